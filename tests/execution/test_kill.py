"""Training at a service that is killed, at any moment and again and again: nothing is lost, nothing is paid twice."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys

import pytest
from killed import Workshop
from nursery import ROOT, Point

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs fork and SIGKILL")

MODES = ("job", "batch", "session")
#: One after the other in one run; numbers count the calls of each process.
FIRST_JOB = [
    Point("checkpoint"),
    Point("rename", 1, after=True),
    Point("half a line"),
    Point("journal", 1, after=True),
    Point("submit"),
    Point("submit", after=True),
    Point("half a line"),
    Point("state"),
    Point("result"),
    Point("half a line", 2),
    Point("charged", after=True),
]
LATER = [
    Point("checkpoint", 1, after=True),
    Point("rename", 2, after=True),
    Point("validation", 1),
    Point("submit", 2, after=True),
    Point("validation", 1, after=True),
    Point("find", 1, after=True),
    Point("test"),
    Point("journal", 1, after=True),
    Point("test", after=True),
    Point("rename", 1),
]
SESSION = [
    Point("open"),
    Point("journal", 3, after=True),
    Point("submit", 1, after=True),
    Point("submit", 3, after=True),
    Point("submit", 5, after=True),
    Point("close"),
    Point("test", after=True),
]


@pytest.mark.parametrize(
    ("mode", "chain"), [("job", FIRST_JOB), ("job", LATER), ("session", SESSION), ("batch", SESSION[1:5:3])]
)
def test_a_run_killed_again_and_again_equals_the_uninterrupted_one(mode, chain, workshop, reference):
    shop = workshop(mode)
    for point in chain:
        run = shop.go(point)
        assert run.status == -signal.SIGKILL, (point, run.output)
    shop.finish()
    shop.check(reference)
    assert shop.unknown_sessions == []


@pytest.mark.parametrize("mode", ["batch", "session"])
def test_the_only_session_left_open_is_one_that_no_line_names_and_it_has_no_job(mode, workshop, reference):
    shop = workshop(mode)
    shop.go(Point("open", after=True))
    shop.finish()
    shop.check(reference)
    (lost,) = shop.unknown_sessions
    assert lost.jobs == []
    # the service ends it by itself
    shop.loopback.skip(1801)
    assert shop.unknown_sessions == []


def test_the_command_line_killed_from_outside_is_resumed(workshop, loopback, reference, tmp_path):
    shop = workshop("session")
    assert shop.go(Point("submit", 2, after=True)).status == -signal.SIGKILL
    environment = {**os.environ, **loopback.environment, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "qiskit_qdeq", *shop.words, "--resume"], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    shop.check(reference)


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_a_kill_between_any_two_steps_changes_nothing(mode, after, loopback, forks, tmp_path, reference):
    whole = Workshop(forks, loopback, tmp_path / "whole", mode)
    steps = whole.go(traced=True).steps
    assert whole.result().differences(reference) == []
    lines = [("half a line", number) for step, number in steps if step == "journal"]
    assert len(steps) > 80
    # between the service's opening of a session and our line that says so
    hole = set()
    if mode != "job":
        number = next(number for step, number in steps[steps.index(("open", 1)) :] if step == "journal")
        hole |= {(("journal", number), False), (("half a line", number), False), (("open", 1), True)}
    for index, (step, number) in enumerate([*steps, *([] if after else lines)]):
        shop = Workshop(forks, loopback, tmp_path / str(index), mode)
        killed = shop.go(Point(step, number, after=after))
        assert killed.status == -signal.SIGKILL, (step, number, killed.output)
        shop.finish()
        shop.check(reference)
        assert bool(shop.unknown_sessions) == (((step, number), after) in hole)


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_kills_at_random_moments_change_nothing(mode, loopback, forks, tmp_path, reference):
    chance = random.Random(mode)
    seconds = 4.0
    for index in range(20):
        shop = Workshop(forks, loopback, tmp_path / str(index), mode)
        while shop.go(kill_after=chance.uniform(0, seconds)).status != 0:
            pass
        seconds = max(seconds, shop.runs[-1].seconds)
        shop.check(reference)
