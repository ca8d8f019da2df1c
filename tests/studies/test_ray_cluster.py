from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="needs Ray: the extra `ray`")

import ray

from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.studies.ray_cluster import RayCluster
from qiskit_qdeq.studies.tasks import Task, run_tasks


@pytest.fixture(scope="module")
def cluster():
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield RayCluster()
    ray.shutdown()


def tasks(count, **more):
    return [Task(f"square of {x}", {"x": x, **more}) for x in range(count)]


def square(arguments):
    return {"square": arguments["x"] ** 2, "process": os.getpid()}


def dies_once(arguments):
    """Kills its worker the first time that 3 is asked for."""
    marker = Path(arguments["marker"])
    if arguments["x"] == 3 and not marker.exists():
        marker.touch()
        os._exit(1)
    return square(arguments)


def squares(records):
    return [record["result"]["square"] for record in records]


# its workers cannot import this module
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])


def test_a_cluster_gives_what_one_process_gives_and_does_nothing_twice(cluster, tmp_path):
    told = []
    found = run_tasks(tasks(6), square, tmp_path, mapper=cluster, tell=told.append)
    assert squares(found) == [0, 1, 4, 9, 16, 25]
    assert os.getpid() not in {record["result"]["process"] for record in found}
    assert sorted(outcome.task.name for outcome in told) == sorted(task.name for task in tasks(6))
    again = run_tasks(tasks(8), square, tmp_path, mapper=cluster)
    assert again[:6] == found


def test_a_task_whose_worker_is_killed_is_done_again_and_counted_once(cluster, tmp_path):
    told = []
    found = run_tasks(tasks(6, marker=str(tmp_path / "marker")), dies_once, tmp_path, mapper=cluster, tell=told.append)
    assert (tmp_path / "marker").exists()
    assert squares(found) == [0, 1, 4, 9, 16, 25]
    assert len(told) == 6
    assert len(list((tmp_path / "tasks").glob("*.json"))) == 6


def test_records_are_kept_here_where_the_workers_disk_is_another(cluster, tmp_path):
    def elsewhere(function, items):
        """A cluster whose nodes share no disk with this process."""
        for outcome in cluster(function, items):
            (tmp_path / "tasks" / f"{outcome.task.label}.json").unlink()
            yield outcome

    run_tasks(tasks(3), square, tmp_path, mapper=elsewhere)
    assert len(list((tmp_path / "tasks").glob("*.json"))) == 3


def test_no_more_tasks_run_at_a_time_than_asked_for(cluster, tmp_path):
    found = run_tasks(tasks(4), square, tmp_path, mapper=RayCluster(1))
    assert squares(found) == [0, 1, 4, 9]


@pytest.mark.parametrize("workers", [-1, 1.5, True])
def test_workers_must_be_a_number(workers):
    with pytest.raises(InputError, match="workers must be"):
        RayCluster(workers)
