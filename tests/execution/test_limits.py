from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.execution.limits import Limits, Workload, split

workloads = st.lists(
    st.builds(
        Workload,
        rows=st.integers(0, 40),
        executions=st.integers(0, 10),
        row_bytes=st.integers(0, 10),
        pub_bytes=st.integers(0, 10),
        lane=st.sampled_from(["a", "b"]),
    ),
    max_size=6,
)


@given(workloads, st.none() | st.integers(10, 200), st.integers(20, 200), st.none() | st.integers(1, 30))
def test_every_row_is_sent_once_in_order_within_the_limits(works, executions, size, max_rows):
    limits = Limits(max_rows, executions, size)
    jobs = split(works, limits)
    for index, work in enumerate(works):
        pieces = [piece for job in jobs for piece in job if piece.index == index]
        assert [row for piece in pieces for row in range(piece.start, piece.stop)] == list(range(work.rows))
    for job in jobs:
        assert job
        assert len({works[piece.index].lane for piece in job}) == 1
        counts = [(works[piece.index], piece.stop - piece.start) for piece in job]
        assert executions is None or sum(work.executions * rows for work, rows in counts) <= executions
        assert sum(work.pub_bytes + work.row_bytes * rows for work, rows in counts) <= size
        assert all(max_rows is None or rows <= max_rows for _, rows in counts)


def test_what_fits_is_one_job_with_one_pub_per_request():
    works = [Workload(100, 4096, 100, 5000)] * 5
    assert [len(job) for job in split(works, Limits())] == [5]


@pytest.mark.parametrize("limits", [Limits(max_executions_per_job=99), Limits(max_payload_bytes=99)])
def test_a_row_beyond_a_limit_is_refused(limits):
    with pytest.raises(InputError, match=r"request 1: one row takes"):
        split([Workload(1, 1, 1, 1), Workload(3, 100, 90, 10)], limits)


@pytest.mark.parametrize("value", [0, -1, 1.5, True])
@pytest.mark.parametrize("name", ["max_rows_per_pub", "max_executions_per_job", "max_payload_bytes"])
def test_impossible_limits_are_refused(name, value):
    with pytest.raises(InputError, match=name):
        Limits(**{name: value})
