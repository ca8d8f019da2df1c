from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

import qiskit_qdeq
from qiskit_qdeq.exceptions import InputError, StudyError
from qiskit_qdeq.studies.processes import LocalProcesses
from qiskit_qdeq.studies.tasks import Task, run_tasks


def square(arguments):
    if arguments.get("bad"):
        raise ValueError("no square of this")
    if "calls" in arguments:
        with open(arguments["calls"], "a") as file:
            file.write(f"{arguments['x']}\n")
    return {"square": arguments["x"] ** 2, "process": os.getpid()}


def dies_once(arguments):
    """Kills its process the first time that 3 is asked for."""
    marker = Path(arguments["marker"])
    if arguments["x"] == 3 and not marker.exists():
        marker.touch()
        os._exit(1)
    return square(arguments)


def reveal(arguments):
    raise KeyError(f"key {arguments['key']}")


def squares(count, **more):
    return [Task(f"square of {x}", {"x": x, **more}) for x in range(count)]


def results(records):
    return [record["result"]["square"] for record in records]


def test_records_come_in_the_order_of_the_tasks(tmp_path):
    backwards = run_tasks(squares(5), square, tmp_path, mapper=lambda f, tasks: map(f, reversed(tasks)))
    assert results(backwards) == [0, 1, 4, 9, 16]
    assert [record["name"] for record in backwards] == [f"square of {x}" for x in range(5)]


def test_a_finished_task_is_not_done_again(tmp_path):
    calls = str(tmp_path / "calls")
    run_tasks(squares(3, calls=calls), square, tmp_path)
    told = []
    found = run_tasks(squares(5, calls=calls), square, tmp_path, tell=told.append)
    assert results(found) == [0, 1, 4, 9, 16]
    assert Path(calls).read_text().split() == ["0", "1", "2", "3", "4"]
    assert len(told) == 5


def test_other_arguments_are_another_task(tmp_path):
    run_tasks([Task("one", {"x": 2})], square, tmp_path)
    assert results(run_tasks([Task("one", {"x": 3})], square, tmp_path)) == [9]


def test_a_task_that_fails_stops_no_other_and_is_done_again(tmp_path):
    tasks = [Task("bad", {"x": 1, "bad": True}), *squares(3)]
    with pytest.raises(StudyError, match=r"1 of 4 tasks failed.*bad: ValueError: no square of this"):
        run_tasks(tasks, square, tmp_path)
    assert len(list((tmp_path / "tasks").iterdir())) == 3
    done = []
    found = run_tasks(tasks, lambda arguments: done.append(arguments) or {"square": 1}, tmp_path)
    assert done == [tasks[0].arguments]
    assert results(found) == [1, 0, 1, 4]


def test_workers_write_where_the_study_was_begun_whatever_the_working_folder(tmp_path, monkeypatch):
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        run_tasks(squares(2), square, "study", mapper=LocalProcesses(2))
        assert len(list((tmp_path / name / "study" / "tasks").iterdir())) == 2


def test_an_error_that_ended_several_tasks_is_said_once(tmp_path):
    tasks = [Task(f"bad {x}", {"x": x, "bad": True}) for x in range(5)]
    with pytest.raises(
        StudyError, match=r"5 of 5 tasks failed.*: bad 0 and 4 more: ValueError: no square of this"
    ) as caught:
        run_tasks(tasks, square, tmp_path)
    assert str(caught.value).count("no square") == 1


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (3, "work must return a mapping .*got int"),
        ({"arr": {1, 2}}, "type set is not JSON"),
        ({"y": [1.0, float("nan")]}, "result.y.1 = nan"),
    ],
)
def test_what_is_no_result_is_named(tmp_path, result, message):
    with pytest.raises(StudyError, match=message):
        run_tasks([Task("one", {})], lambda arguments: result, tmp_path)


def test_work_that_cannot_be_sent_is_not_taken_for_dead_workers(tmp_path):
    with ProcessPoolExecutor(1) as pool, pytest.raises(InputError, match="define it at the top level of a module"):
        run_tasks([Task("one", {})], lambda arguments: {}, tmp_path, mapper=pool.map)


def test_an_error_of_somebody_else_s_is_shown_without_credentials(tmp_path):
    secret = "abcdefghijklmnopqrstuvwxyz0123456789"
    with pytest.raises(StudyError, match=r"KeyError: 'key \*\*\*'") as caught:
        run_tasks([Task("one", {"key": secret})], reveal, tmp_path)
    assert secret not in str(caught.value)


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"key": "other", "result": {}}', '{"result": 3}'])
def test_a_damaged_record_is_done_again_with_a_warning(tmp_path, damage):
    (task,) = squares(1)
    run_tasks([task], square, tmp_path)
    (path,) = (tmp_path / "tasks").iterdir()
    path.write_text(damage)
    with pytest.warns(UserWarning, match="done again"):
        assert results(run_tasks([task], square, tmp_path)) == [0]
    assert json.loads(path.read_text())["result"]["square"] == 0


def test_records_of_another_version_are_used_with_a_warning(tmp_path):
    run_tasks(squares(2), square, tmp_path)
    path = sorted((tmp_path / "tasks").iterdir())[0]
    record = json.loads(path.read_text("utf-8"))
    assert record["version"] == qiskit_qdeq.__version__
    path.write_text(json.dumps({**record, "version": "0.0.1"}), "utf-8")
    with pytest.warns(UserWarning, match=r"1 tasks in .* by version 0.0.1 .*: delete them"):
        assert results(run_tasks(squares(2), square, tmp_path)) == [0, 1]


def test_processes_give_what_one_process_gives(tmp_path):
    found = run_tasks(squares(6), square, tmp_path, mapper=LocalProcesses(2))
    assert results(found) == [0, 1, 4, 9, 16, 25]
    assert os.getpid() not in {record["result"]["process"] for record in found}


@pytest.mark.filterwarnings("ignore:A worker stopped")
def test_what_a_killed_worker_left_undone_is_given_out_again(tmp_path):
    tasks = squares(6, marker=str(tmp_path / "marker"))
    assert results(run_tasks(tasks, dies_once, tmp_path, mapper=LocalProcesses(2))) == [0, 1, 4, 9, 16, 25]
    assert len(list((tmp_path / "tasks").glob("*.json"))) == 6


def test_workers_that_always_die_end_the_study_with_what_is_done(tmp_path):
    def broken(function, tasks):
        yield function(tasks[0])
        raise OSError("the cluster is gone")

    with pytest.raises(StudyError, match=r"workers died 3 times.*the cluster is gone.*3 of 5 tasks are done"):
        run_tasks(squares(5), square, tmp_path, mapper=broken)
    assert results(run_tasks(squares(5), square, tmp_path)) == [0, 1, 4, 9, 16]


def test_a_thousand_tasks_go_on_where_they_stopped(tmp_path):
    calls = str(tmp_path / "calls")

    def interrupted(function, tasks):
        for number, task in enumerate(tasks):
            if number == 400:
                raise KeyboardInterrupt
            yield function(task)

    with pytest.raises(KeyboardInterrupt, match="400 of 1000 tasks are done and kept: the same command goes on"):
        run_tasks(squares(1000, calls=calls), square, tmp_path, mapper=interrupted)
    assert results(run_tasks(squares(1000, calls=calls), square, tmp_path)) == [x * x for x in range(1000)]
    assert len(Path(calls).read_text().split()) == 1000


def test_names_must_differ_and_arguments_be_plain(tmp_path):
    with pytest.raises(InputError, match="'same' more than once"):
        run_tasks([Task("same", {"x": 1}), Task("same", {"x": 2})], square, tmp_path)
    with pytest.raises(InputError, match=r"'odd'.*JSON"):
        run_tasks([Task("odd", {"x": object()})], square, tmp_path)
    with pytest.raises(InputError, match="workers"):
        LocalProcesses(-1)


KILLED = """
import sys, time
from qiskit_qdeq.studies.processes import LocalProcesses
from qiskit_qdeq.studies.tasks import Task, run_tasks

def slow_square(arguments):
    time.sleep(0.01)
    return {"square": arguments["x"] ** 2}

if __name__ == "__main__":
    tasks = [Task(f"square of {x}", {"x": x}) for x in range(1000)]
    found = run_tasks(tasks, slow_square, sys.argv[1], mapper=LocalProcesses(2))
    print(sum(record["result"]["square"] for record in found))
"""


@pytest.mark.skipif(os.name == "nt", reason="POSIX process groups")
def test_a_sweep_of_a_thousand_that_is_killed_with_its_workers_goes_on_where_it_stopped(tmp_path):
    (tmp_path / "sweep.py").write_text(KILLED, "utf-8")
    words = [sys.executable, tmp_path / "sweep.py", tmp_path]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    files = tmp_path / "tasks"
    first = subprocess.Popen(words, env=environment, start_new_session=True, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(list(files.glob("*.json"))) < 100 and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    done = {path.name: path.stat().st_mtime_ns for path in files.glob("*.json")}
    assert 100 <= len(done) < 1000
    second = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120)
    assert second.stdout.split() == [str(sum(x * x for x in range(1000)))], second.stderr
    after = {path.name: path.stat().st_mtime_ns for path in files.glob("*.json")}
    assert len(after) == 1000
    assert {name: after[name] for name in done} == done


def test_a_mapper_that_gives_outcomes_twice_tells_them_once(tmp_path):
    def twice(function, tasks):
        return [function(task) for task in tasks for _ in range(2)]

    outcomes = []
    assert results(run_tasks(squares(3), square, tmp_path, mapper=twice, tell=outcomes.append)) == [0, 1, 4]
    assert [outcome.task.name for outcome in outcomes] == [task.name for task in squares(3)]


def test_a_mapper_that_drops_tasks_is_told_so_and_the_others_are_kept(tmp_path):
    def first_dropped(function, tasks):
        return map(function, [task for task in tasks if task.arguments["x"]])

    with pytest.raises(StudyError, match=r"no outcome of 1 of 3 tasks, such as 'square of 0'"):
        run_tasks(squares(3), square, tmp_path, mapper=first_dropped)
    assert len(list((tmp_path / "tasks").iterdir())) == 2


@pytest.mark.parametrize(
    "mapper",
    [None, "ray", lambda function, tasks: None, lambda function, tasks: [function(task).record for task in tasks]],
)
def test_what_is_not_called_like_map_is_refused(tmp_path, mapper):
    with pytest.raises(InputError, match=r"^mapper must "):
        run_tasks(squares(1), square, tmp_path, mapper=mapper)


def nowhere(arguments):
    return {"rows": [{"loss": 1.0}, {"loss": float("nan")}]}


def test_a_result_that_is_not_finite_is_named(tmp_path):
    with pytest.raises(StudyError, match=r"result\.rows\.1\.loss = nan"):
        run_tasks(squares(1), nowhere, tmp_path)


def test_a_record_nested_too_deep_is_done_again_with_a_warning(tmp_path):
    (task,) = squares(1)
    path = tmp_path / "tasks" / f"{task.label}.json"
    path.parent.mkdir()
    path.write_text("[" * 100_000)
    with pytest.warns(UserWarning, match="done again"):
        assert results(run_tasks([task], square, tmp_path)) == [0]
