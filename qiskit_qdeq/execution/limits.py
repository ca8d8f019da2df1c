"""Splits what is asked into PUBs and jobs, only where a limit demands it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from qiskit_qdeq.exceptions import ExecutionError, InputError


@dataclass(frozen=True)
class Limits:
    """How large a PUB and a job may be.

    None means what the estimator is known to need.

    Attributes:
        max_rows_per_pub: parameter rows in one PUB. None: as many as take time proportional to their number (512 for Aer's
            EstimatorV2 without `runtime_parameter_bind_enable`, 4096 for IBM's client-side Estimator, any number for the
            others).
        max_executions_per_job: shots over all rows and bases. None: 10 million for IBM's client-side Estimator, whose jobs
            are of the kind for which IBM documents that number; unlimited for the others, IBM's legacy one included,
            which the service itself splits.
        max_payload_bytes: estimated size of a job's circuits and parameter values. IBM accepts 300 MB; the default leaves
            a factor 6 for what the client-side Estimator adds to them.
    """

    max_rows_per_pub: int | None = None
    max_executions_per_job: int | None = None
    max_payload_bytes: int = 50_000_000

    def __post_init__(self) -> None:
        for name in ("max_rows_per_pub", "max_executions_per_job", "max_payload_bytes"):
            value = getattr(self, name)
            if value is None and name != "max_payload_bytes":
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InputError(f"{name} must be an integer of at least 1, got {value!r}")


@dataclass(frozen=True)
class Workload:
    """What one request asks of a job: `rows` rows of `executions` shots and `row_bytes` each, `pub_bytes` per PUB.

    Workloads of different `lane` never share a job.
    """

    rows: int
    executions: int
    row_bytes: int
    pub_bytes: int
    lane: object = None


@dataclass(frozen=True)
class Piece:
    """The rows [start, stop) of request `index`: one PUB."""

    index: int
    start: int
    stop: int


def split(workloads: Sequence[Workload], limits: Limits) -> list[list[Piece]]:
    """Jobs as lists of pieces; within a lane the requests and their rows keep their order. None is no limit here.

    Raises:
        InputError: if a single row exceeds a limit.
    """
    open_jobs: dict[object, _Job] = {}
    jobs: list[list[Piece]] = []
    for index, work in enumerate(workloads):
        for piece in _pieces(index, work, limits):
            rows = piece.stop - piece.start
            executions, size = rows * work.executions, work.pub_bytes + rows * work.row_bytes
            job = open_jobs.get(work.lane)
            if job is None or not job.has_room(executions, size, limits):
                job = open_jobs[work.lane] = _Job([])
                jobs.append(job.pieces)
            job.pieces.append(piece)
            job.executions += executions
            job.size += size
    return jobs


def halved(pieces: Sequence[Piece]) -> tuple[list[Piece], list[Piece]]:
    """The pieces of a job as those of two, each with half of the rows.

    Raises:
        ExecutionError: for a single row.
    """
    rows = sum(piece.stop - piece.start for piece in pieces)
    if rows < 2:
        raise ExecutionError(
            "a job ran too long although it holds a single circuit; ask for fewer shots, or a larger max_execution_time"
        )
    left: list[Piece] = []
    right: list[Piece] = []
    room = rows // 2
    for piece in pieces:
        cut = min(piece.start + room, piece.stop)
        room -= cut - piece.start
        left += [Piece(piece.index, piece.start, cut)] if cut > piece.start else []
        right += [Piece(piece.index, cut, piece.stop)] if piece.stop > cut else []
    return left, right


def _pieces(index: int, work: Workload, limits: Limits) -> Iterator[Piece]:
    if not work.rows:
        return
    most = limits.max_executions_per_job
    by_executions = work.rows if most is None or not work.executions else most // work.executions
    by_size = work.rows if not work.row_bytes else (limits.max_payload_bytes - work.pub_bytes) // work.row_bytes
    if by_executions < 1:
        raise InputError(
            f"request {index}: one row takes {work.executions} shots, more than max_executions_per_job={most}; "
            "ask for a larger precision or raise the limit"
        )
    if by_size < 1:
        raise InputError(
            f"request {index}: one row takes about {work.pub_bytes + work.row_bytes} bytes, more than "
            f"max_payload_bytes={limits.max_payload_bytes}; raise the limit or take a smaller circuit"
        )
    step = min(work.rows, by_executions, by_size, limits.max_rows_per_pub or work.rows)
    for start in range(0, work.rows, step):
        yield Piece(index, start, min(start + step, work.rows))


@dataclass
class _Job:
    pieces: list[Piece]
    executions: int = 0
    size: int = 0

    def has_room(self, executions: int, size: int, limits: Limits) -> bool:
        most = limits.max_executions_per_job
        return (most is None or self.executions + executions <= most) and self.size + size <= limits.max_payload_bytes
