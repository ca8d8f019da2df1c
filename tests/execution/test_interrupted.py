"""Ctrl-C and SIGTERM while a run waits, damaged files, full disks: a clear end, and the same run when it goes on."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest
from killed import Workshop
from nursery import Point

from qiskit_qdeq.execution.journal import Journal

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs fork and signals")

#: What jobs before the checkpoint were charged, which nobody asks for again, only the journal knew exactly.
SPENT = "metrics: charged_qpu_seconds"
HOW = "to go on: python -m qiskit_qdeq train --resume --output"
#: Where a run is killed first, so that it then waits in that part.
PARTS = {"training": None, "validation": Point("validation"), "test": Point("test")}


@contextlib.contextmanager
def long_queue(shop):
    shop.loopback.configure(queue_seconds=36_000)
    try:
        yield
    finally:
        shop.loopback.configure(queue_seconds=0)
        shop.loopback.skip(36_001)


@pytest.mark.parametrize(
    ("part", "mode", "number", "status"),
    [
        ("training", "session", signal.SIGTERM, 143),
        ("training", "job", signal.SIGINT, 130),
        ("validation", "batch", signal.SIGINT, 130),
        ("test", "session", signal.SIGTERM, 143),
    ],
)
def test_a_signal_ends_the_waiting_and_leaves_the_job_in_the_queue(part, mode, number, status, workshop, reference):
    shop = workshop(mode)
    if PARTS[part]:
        assert shop.go(PARTS[part]).status == -signal.SIGKILL
    with long_queue(shop):
        run = shop.go(Point("state", 3, signal=number))
        assert run.status == status, run.output
        assert HOW in run.output
        assert "Traceback" not in run.output
        # about a second; the machine may be busy
        assert run.delay < 5
        assert [job.status for job in shop.loopback.jobs].count("Queued") == 1
        assert shop.checkpoint.exists()
        assert not [session for session in shop.sessions if session.accepting_jobs]
    shop.finish()
    shop.check(reference)
    assert shop.unknown_sessions == []


def test_the_second_ctrl_c_ends_at_once_and_loses_nothing(workshop, reference):
    shop = workshop("session")
    with long_queue(shop):
        run = shop.go(Point("state", 3, signal=signal.SIGINT), Point("state", 3, signal=signal.SIGINT))
        assert run.status == 130, run.output
        assert HOW in run.output
        assert "Traceback" not in run.output
        assert run.delay < 5
    shop.finish()
    shop.check(reference)


@pytest.mark.slow
@pytest.mark.parametrize("step", ["submit", "journal", "result", "close"])
def test_two_ctrl_c_in_the_midst_of_a_step_lose_nothing(step, workshop, reference):
    shop = workshop("session")
    number = 1 if step == "close" else 5
    for after in (False, True)[:number]:
        run = shop.go(*[Point(step, number, after, signal.SIGINT)] * 2)
        assert run.status == 130, run.output
        assert "Traceback" not in run.output
    shop.finish()
    shop.check(reference)


def late(shop):
    """Killed with the journal four jobs ahead of the checkpoint."""
    assert shop.go(Point("checkpoint", 5)).status == -signal.SIGKILL
    return shop


def test_without_its_journal_a_run_finds_its_jobs_by_their_tags(workshop, reference):
    shop = late(workshop())
    shop.journal.unlink()
    shop.finish()
    shop.check(reference, forgotten=SPENT)


@pytest.mark.slow
@pytest.mark.parametrize("lines", [0, 1, 2, 23, 25, 26])
def test_a_journal_that_lost_its_end_costs_nothing(lines, workshop, reference):
    shop = late(workshop())
    whole = shop.journal.read_bytes().splitlines(keepends=True)
    assert len(whole) == 31
    shop.journal.write_bytes(b"".join(whole[:lines]) + whole[lines][:30])
    shop.finish()
    shop.check(reference, forgotten=SPENT)


@pytest.mark.slow
@pytest.mark.parametrize("torn", [0, 30])
def test_a_journal_cut_after_any_line_costs_nothing(torn, loopback, forks, tmp_path, reference):
    for lines in range(31):
        shop = late(Workshop(forks, loopback, tmp_path / str(lines)))
        whole = shop.journal.read_bytes().splitlines(keepends=True)
        shop.journal.write_bytes(b"".join(whole[:lines]) + whole[lines][:torn])
        shop.finish()
        shop.check(reference, forgotten=SPENT)


def test_failed_and_split_jobs_are_found_again_without_a_journal(loopback, forks, tmp_path):
    results = []
    for name in ("whole", "killed"):
        shop = Workshop(forks, loopback, tmp_path / name)
        loopback.fail("job_failed", skip=7)
        loopback.fail("ran_too_long", times=None, executions=1000)
        if name == "killed":
            late(shop)
            shop.journal.unlink()
        shop.finish()
        loopback.clear_faults()
        assert shop.twice == 0
        assert {"Failed", "Cancelled"} <= {job.status for job in loopback.jobs}
        results.append(shop.result())
    # what failed jobs were charged was in the journal that is gone
    for result in results:
        result.metrics.pop("charged_qpu_seconds")
    assert results[1].differences(results[0]) == []


def test_a_damaged_checkpoint_falls_back_to_the_one_before_and_pays_nothing_again(workshop, reference):
    shop = late(workshop())
    data = bytearray(shop.checkpoint.read_bytes())
    data[len(data) // 2] ^= 4
    shop.checkpoint.write_bytes(data)
    run = shop.finish()
    assert "the one saved before it, takes its place" in run.output
    shop.check(reference)


def test_a_damaged_journal_stops_the_run_with_a_reason_and_is_not_touched(workshop, reference):
    shop = late(workshop())
    whole = shop.journal.read_bytes()
    for place in range(7, len(whole), 701):
        data = bytearray(whole)
        data[place] ^= 1
        shop.journal.write_bytes(data)
        run = shop.go()
        assert run.status == 1
        assert "is damaged in line" in run.output
        assert "Traceback" not in run.output
        assert shop.journal.read_bytes() == data
        assert len(shop.loopback.jobs) == 10
    shop.journal.write_bytes(whole)
    shop.finish()
    shop.check(reference)


@pytest.mark.slow
@pytest.mark.parametrize("other", [{"run": "another", "backend": "ibm_loopback"}, {"backend": "ibm_other"}])
def test_the_journal_of_another_run_or_device_is_refused(other, workshop, reference):
    shop = late(workshop())
    own = shop.journal.read_bytes()
    shop.journal.unlink()
    foreign = Journal(shop.journal, **{"run": "always-the-same", **other})
    foreign.opened("s-1", "session")
    foreign.close()
    run = shop.go()
    assert run.status == 1
    assert "error: journal" in run.output
    assert len(shop.loopback.jobs) == 10
    shop.journal.write_bytes(own)
    shop.finish()
    shop.check(reference)


def test_a_journal_in_use_elsewhere_is_left_alone(workshop, reference):
    shop = late(workshop("session"))
    other = Journal(shop.journal)
    other.claim()
    run = shop.go()
    assert run.status == 1
    assert "is in use" in run.output
    # the other one's session is not closed under its feet
    assert [session.accepting_jobs for session in shop.sessions] == [True]
    other.close()
    shop.finish()
    shop.check(reference)


@pytest.mark.slow
@pytest.mark.parametrize(
    "point",
    [Point("remove"), Point("remove", after=True), Point("journal"), Point("journal", after=True), Point("checkpoint")],
)
def test_overwriting_that_is_killed_can_be_begun_again(point, workshop, reference):
    shop = workshop("session")
    assert shop.go(Point("submit", 3, after=True), name="old").status == -signal.SIGKILL
    assert shop.go(point, more=["--overwrite"]).status == -signal.SIGKILL
    run = shop.go(more=["--overwrite"])
    assert run.status == 0, run.output
    assert shop.result().metrics == reference.metrics
    assert {session.state for session in shop.sessions} == {"closed"}


@pytest.mark.parametrize("point", [Point("checkpoint", after=True), Point("submit", 4)])
def test_an_overwriting_run_that_is_killed_can_be_resumed(point, workshop, reference):
    shop = workshop("session")
    assert shop.go(Point("submit", 3, after=True), name="old").status == -signal.SIGKILL
    old = {job.id for job in shop.loopback.jobs}
    assert shop.go(point, more=["--overwrite"]).status == -signal.SIGKILL
    shop.finish()
    for name in old:
        shop.loopback.delete_job(name)
    shop.check(reference)


@contextlib.contextmanager
def disk(kilobytes):
    """A folder on a disk of this size, and what makes it larger."""
    folder = Path(tempfile.mkdtemp())
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
    try:
        if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
            pytest.skip("needs to mount a small disk")
        try:
            yield folder, lambda: subprocess.run(["mount", "-o", "remount,size=4m", str(folder)], check=True)
        finally:
            subprocess.run(["umount", str(folder)], check=True)
    finally:
        folder.rmdir()


def fill(kilobytes, loopback, forks, reference):
    with disk(kilobytes) as (folder, enlarge):
        shop = Workshop(forks, loopback, folder / "run", "session")
        run = shop.go()
        assert "Traceback" not in run.output
        if run.status:
            assert "No space left on device" in run.output
            assert run.status in (1, 2)
            assert not [session for session in shop.sessions if session.accepting_jobs]
            enlarge()
            shop.finish()
        shop.check(reference)
        return run.output


@pytest.mark.slow
@pytest.mark.parametrize("kilobytes", [8, 56, 68])
def test_a_full_disk_ends_a_run_with_a_reason_and_costs_nothing(kilobytes, loopback, forks, reference):
    fill(kilobytes, loopback, forks, reference)


@pytest.mark.slow
def test_a_disk_that_is_full_at_any_moment_costs_nothing(loopback, forks, reference):
    ends = {fill(kilobytes, loopback, forks, reference)[:30] for kilobytes in range(4, 104, 4)}
    assert len(ends) > 2


@pytest.mark.slow
@pytest.mark.parametrize("what", ["folder", "journal"])
def test_what_may_not_be_written_is_named_before_anything_is_paid(what, loopback, forks, reference):
    if os.getuid():
        pytest.skip("needs to become another user")
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        shop = late(Workshop(forks, loopback, Path(name) / "run"))
        if what == "journal":
            shop.folder.chmod(0o777)
        run = shop.go(user=65534)
        assert run.status in (1, 2), run.output
        assert "Traceback" not in run.output
        assert "cannot be written" in run.output
        assert len(loopback.jobs) == 10
        shop.finish()
        shop.check(reference)
