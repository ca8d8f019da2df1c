from __future__ import annotations

import os

import pytest
import test_tasks
from test_tasks import dies_once, results, square, squares

pytest.importorskip("ray", reason="needs Ray: the extra `ray`")

import ray

from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.studies.ray_cluster import RayCluster
from qiskit_qdeq.studies.tasks import run_tasks


@pytest.fixture(scope="module")
def cluster():
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield RayCluster()
    ray.shutdown()


# its workers cannot import that module
ray.cloudpickle.register_pickle_by_value(test_tasks)


def test_a_cluster_gives_what_one_process_gives_and_does_nothing_twice(cluster, tmp_path):
    told = []
    found = run_tasks(squares(6), square, tmp_path, mapper=cluster, tell=told.append)
    assert results(found) == [0, 1, 4, 9, 16, 25]
    assert os.getpid() not in {record["result"]["process"] for record in found}
    assert sorted(outcome.task.name for outcome in told) == sorted(task.name for task in squares(6))
    again = run_tasks(squares(8), square, tmp_path, mapper=cluster)
    assert again[:6] == found


def test_a_task_whose_worker_is_killed_is_done_again_and_counted_once(cluster, tmp_path):
    told = []
    found = run_tasks(
        squares(6, marker=str(tmp_path / "marker")), dies_once, tmp_path, mapper=cluster, tell=told.append
    )
    assert (tmp_path / "marker").exists()
    assert results(found) == [0, 1, 4, 9, 16, 25]
    assert len(told) == 6
    assert len(list((tmp_path / "tasks").glob("*.json"))) == 6


def test_records_are_kept_here_where_the_workers_disk_is_another(cluster, tmp_path):
    def elsewhere(function, items):
        """A cluster whose nodes share no disk with this process."""
        for outcome in cluster(function, items):
            (tmp_path / "tasks" / f"{outcome.task.label}.json").unlink()
            yield outcome

    run_tasks(squares(3), square, tmp_path, mapper=elsewhere)
    assert len(list((tmp_path / "tasks").glob("*.json"))) == 3


def test_no_more_tasks_run_at_a_time_than_asked_for(cluster, tmp_path):
    found = run_tasks(squares(4), square, tmp_path, mapper=RayCluster(1))
    assert results(found) == [0, 1, 4, 9]


@pytest.mark.parametrize("workers", [-1, 1.5, True])
def test_workers_must_be_a_number(workers):
    with pytest.raises(InputError, match="workers must be"):
        RayCluster(workers)
