"""The journal of jobs: what is written is read again, what is damaged or hostile is refused, one process writes it."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import qiskit_qdeq
from qiskit_qdeq.evaluation.protocol import Cost
from qiskit_qdeq.exceptions import JournalError
from qiskit_qdeq.execution.journal import Journal

ROOT = Path(qiskit_qdeq.__file__).parent.parent
COST = Cost(circuits=3, shots=300, jobs=1, pubs=2, qpu_seconds=2.5)

names = st.text("abcXYZ019_-", min_size=1, max_size=8)
amounts = st.integers(0, 10**9)
costs = st.builds(Cost, amounts, amounts, amounts, amounts, st.floats(0, 1e9))


@st.composite
def histories(draw):
    """Calls of a journal's methods as a run makes them."""
    calls, submitted, prepared, modes = [], [], [], []
    for _ in range(draw(st.integers(0, 25))):
        kind = draw(
            st.sampled_from(
                ["prepare", "submitted", "finished", "failed", "split", "opened", "closed", "already_spent", "reopen"]
            )
        )
        if kind == "prepare":
            prepared.append(draw(names))
            calls.append((kind, prepared[-1], draw(costs)))
        elif kind == "submitted" and prepared:
            submitted.append(draw(st.sampled_from(prepared)))
            calls.append((kind, submitted[-1], draw(names)))
        elif kind == "finished" and submitted:
            calls.append((kind, submitted.pop(), draw(costs)))
        elif kind == "failed" and submitted:
            calls.append((kind, submitted.pop(), draw(st.text(max_size=600)), draw(st.none() | costs)))
            submitted = [key for key in submitted if key != calls[-1][1]]
        elif kind == "split":
            calls.append((kind, draw(names), draw(st.integers(1, 10**9)), draw(st.text(max_size=20))))
            submitted = [key for key in submitted if key != calls[-1][1]]
        elif kind == "opened":
            modes.append(draw(names))
            calls.append((kind, modes[-1], draw(st.sampled_from(["batch", "session"]))))
        elif kind == "closed" and modes:
            calls.append((kind, modes.pop()))
        elif kind == "already_spent":
            calls.append((kind, draw(costs)))
        elif kind == "reopen":
            calls.append((kind,))
    return calls


def knowledge(journal):
    return journal.entries, journal.spent, journal.open_modes, journal.too_long, journal.run, journal.backend


@given(histories())
@settings(max_examples=60)
def test_what_was_written_is_read_again(tmp_path_factory, calls):
    path = tmp_path_factory.mktemp("journal") / "jobs.jsonl"
    memory, file = Journal(None, run="r", backend="device"), Journal(path, run="r", backend="device")
    for name, *arguments in calls:
        if name == "reopen":
            file.close()
            file = Journal(path, run="r", backend="device")
            continue
        getattr(memory, name)(*arguments)
        getattr(file, name)(*arguments)
        assert knowledge(file) == knowledge(memory)
    file.close()
    assert knowledge(Journal(path, run="r", backend="device")) == knowledge(memory)


@pytest.fixture
def path(tmp_path):
    """A small journal with every kind of line."""
    journal = Journal(tmp_path / "jobs.jsonl", run="r1", backend="device")
    journal.opened("s-1", "batch")
    journal.prepare("a", COST)
    journal.submitted("a", "job1")
    journal.failed("a", "it failed", Cost(qpu_seconds=1.5))
    journal.submitted("a", "job2")
    journal.finished("a", COST)
    journal.split("b", 300, "too long")
    journal.closed("s-1")
    journal.opened("s-2", "session")
    journal.close()
    return journal.path


def test_spent_counts_what_was_charged_and_not_what_failed(path):
    journal = Journal(path)
    assert journal.spent == replace(COST, qpu_seconds=4.0)
    assert journal.open_modes == {"s-2": "session"}
    assert journal.too_long == 300
    assert journal.entries["a"].job == "job2"
    assert journal.entries["a"].refused == ["job1"]


def test_a_flipped_bit_in_any_byte_is_noticed(path):
    whole = path.read_bytes()
    end = len(whole) - 1
    for place in range(len(whole)):
        for bit in {place % 8, 5}:
            damaged = bytearray(whole)
            damaged[place] ^= 1 << bit
            path.write_bytes(damaged)
            if place == end:
                # a last line without its end counts as not written
                assert Journal(path).open_modes == {}
                continue
            with pytest.raises(JournalError, match=r"jobs.jsonl' is damaged in line \d+ .* put back an undamaged copy"):
                Journal(path)


def test_a_journal_cut_anywhere_is_the_journal_of_its_whole_lines(path):
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        cut = Journal(path)
        assert cut._number == sum(len(b"".join(lines[: n + 1])) <= length for n in range(len(lines)))
        cut.belongs_to("device")
        cut.closed("s-9")
        cut.close()
        assert knowledge(Journal(path)) == knowledge(cut)


@pytest.mark.parametrize(
    "change", [lambda lines: lines[:2] + lines[3:], lambda lines: lines[:1] + lines[2:0:-1] + lines[3:]]
)
def test_lines_lost_or_moved_are_noticed(path, change):
    path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))
    with pytest.raises(JournalError, match="damaged in line"):
        Journal(path)


def forged(*records, header=True):
    """A journal with right digests, by whoever knows how they are made."""
    lines, digest = [], ""
    first = [{"n": 0, "event": "run", "format": 1, "run": "r1", "backend": "device"}] if header else []
    for number, record in enumerate([*first, *records]):
        text = record if isinstance(record, str) else json.dumps({"n": number, **record}, separators=(",", ":"))
        digest = hashlib.sha256(f"{digest} {text}".encode()).hexdigest()[:24]
        lines.append(f"{digest} {text}\n")
    return "".join(lines).encode()


PREPARED = {"event": "prepared", "key": "a", "cost": {"shots": 1}}
SUBMITTED = {"event": "submitted", "key": "a", "job": "j"}
HOSTILE = {
    "path as job": [PREPARED, {**SUBMITTED, "job": "../../instances"}],
    "dots as job": [PREPARED, {**SUBMITTED, "job": ".."}],
    "url as job": [PREPARED, {**SUBMITTED, "job": "http://elsewhere/x"}],
    "query as job": [PREPARED, {**SUBMITTED, "job": "j?x=1"}],
    "escape as job": [PREPARED, {**SUBMITTED, "job": "%2e%2e"}],
    "newline as job": [PREPARED, {**SUBMITTED, "job": "j\n"}],
    "number as job": [PREPARED, {**SUBMITTED, "job": 7}],
    "no job": [PREPARED, {**SUBMITTED, "job": ""}],
    "path as session": [{"event": "opened", "mode": "../x", "kind": "session"}],
    "list as session": [{"event": "closed", "mode": ["x"]}],
    "path as key": [{**PREPARED, "key": "../a"}],
    "long key": [{**PREPARED, "key": "a" * 201}],
    "finished, never submitted": [PREPARED, {"event": "finished", "key": "a", "cost": {}}],
    "submitted, never prepared": [SUBMITTED],
    "nan": ['{"n":1,"event":"prepared","key":"a","cost":{"qpu_seconds":NaN}}'],
    "infinite": ['{"n":1,"event":"prepared","key":"a","cost":{"qpu_seconds":1e999}}'],
    "huge": [{**PREPARED, "cost": {"shots": 10**400}}],
    "more digits than are read": ['{"n":1,"event":"prepared","key":"a","cost":{"shots":' + "9" * 5000 + "}}"],
    "negative": [{**PREPARED, "cost": {"qpu_seconds": -1.0}}],
    "fraction of a shot": [{**PREPARED, "cost": {"shots": 0.5}}],
    "text as cost": [{**PREPARED, "cost": {"shots": "1"}}],
    "yes as cost": [{**PREPARED, "cost": {"shots": True}}],
    "cost of nobody": [{**PREPARED, "cost": {"euros": 1}}],
    "no cost": [{**PREPARED, "cost": None}],
    "cost of a failure": [
        PREPARED,
        SUBMITTED,
        {"event": "failed", "key": "a", "reason": "", "cost": {"qpu_seconds": "nan"}},
    ],
    "no shots": [{"event": "split", "key": "a", "shots": 0, "reason": ""}],
    "negative shots": [{"event": "split", "key": "a", "shots": -5, "reason": ""}],
    "unknown event": [{"event": "exec", "key": "a"}],
    "event of no kind": [{"event": ["run"]}],
    "second run": [{"event": "run", "format": 1, "run": "r2", "backend": "device"}],
    "no record": ["[1,2]"],
    "no JSON": ["import os"],
    "deep": ["[" * 30_000],
    "deep and whole": ["[" * 30_000 + "]" * 30_000],
    "same name twice": ['{"n":1,"event":"prepared","key":"a","key":"b","cost":{}}'],
    "wrong number": ['{"n":7,"event":"prepared","key":"a","cost":{}}'],
    "yes as number": ['{"n":true,"event":"prepared","key":"a","cost":{}}'],
    "100 MB": ['{"n":1,"event":"prepared","key":"a","cost":{},"x":"' + "x" * 100_000_000 + '"}'],
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_forged_journal_is_refused_with_a_reason(tmp_path, name):
    path = tmp_path / "jobs.jsonl"
    path.write_bytes(forged(*HOSTILE[name]))
    with pytest.raises(JournalError, match=r"jobs.jsonl' is damaged in line \d") as caught:
        Journal(path)
    assert len(str(caught.value)) < 600 + len(str(path))


def test_a_journal_begins_with_its_run(tmp_path):
    path = tmp_path / "jobs.jsonl"
    path.write_bytes(forged(PREPARED, header=False))
    with pytest.raises(JournalError, match=r"line 1 .*begins with its run"):
        Journal(path)
    path.write_bytes(forged({"event": "run", "format": 2, "run": "r1", "backend": "device"}, header=False))
    with pytest.raises(JournalError, match="another version"):
        Journal(path)
    path.write_bytes(forged({"event": "run", "format": 1, "run": "../r", "backend": "device"}, header=False))
    with pytest.raises(JournalError, match="is no name"):
        Journal(path)


@settings(max_examples=200)
@given(st.binary(max_size=300))
def test_any_bytes_give_a_journal_or_a_journal_error(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("bytes") / "jobs.jsonl"
    path.write_bytes(data)
    try:
        assert Journal(path).entries == {}
    except JournalError:
        assert b"\n" in data


def test_a_journal_of_another_run_or_device_is_refused(path):
    with pytest.raises(JournalError, match="of run r1, not of run r2"):
        Journal(path, run="r2")
    with pytest.raises(JournalError, match="of a run on device, this one is on other"):
        Journal(path, backend="other")


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: path.symlink_to(path.parent / "nothing"), os.mkfifo])
def test_what_is_no_file_is_refused(tmp_path, make):
    make(tmp_path / "jobs.jsonl")
    with pytest.raises(JournalError, match="not a file"):
        Journal(tmp_path / "jobs.jsonl")


def test_a_second_process_is_refused_before_it_has_done_anything(path):
    first = Journal(path)
    first.claim()
    size = path.stat().st_size
    code = f"from qiskit_qdeq.execution.journal import Journal; Journal({str(path)!r}).claim()"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert "JournalError" in done.stderr
    assert "is in use, by another process" in done.stderr
    assert path.stat().st_size == size
    first.close()
    second = Journal(path)
    second.claim()
    second.close()


@pytest.mark.parametrize("old", [b"", None])
def test_two_that_begin_at_once_do_not_write_into_one_file(tmp_path, old):
    path = tmp_path / "jobs.jsonl"
    if old is not None:
        path.write_bytes(old)
    first, second = Journal(path), Journal(path)
    first.opened("s-1", "session")
    with pytest.raises(JournalError, match="in use"):
        second.opened("s-2", "session")
    first.close()
    with pytest.raises(JournalError, match="another process writes it"):
        second.opened("s-2", "session")
    assert Journal(path).open_modes == {"s-1": "session"}


def test_lines_of_another_writer_are_never_cut_off(path):
    stale = Journal(path)
    busy = Journal(path)
    busy.prepare("c", COST)
    busy.close()
    with pytest.raises(JournalError, match="another process writes it"):
        stale.prepare("d", COST)
    assert "c" in Journal(path).entries


def test_a_deleted_journal_is_not_begun_in_the_middle(path):
    journal = Journal(path)
    path.unlink()
    with pytest.raises(JournalError, match="was deleted while it was in use"):
        journal.prepare("c", COST)
    assert not path.exists()


@pytest.mark.parametrize("written", [0, 1, 20])
def test_a_full_disk_leaves_whole_lines_and_a_journal_to_go_on_with(path, monkeypatch, written):
    real, before = os.write, path.read_bytes()

    def full(descriptor, data):
        if len(data) <= written:
            raise OSError(28, "No space left on device")
        return (
            real(descriptor, data[:written]) if written and not full.begun.append(1) and len(full.begun) < 2 else fail()
        )

    def fail():
        raise OSError(28, "No space left on device")

    full.begun = []
    journal = Journal(path)
    with monkeypatch.context() as context:
        context.setattr(os, "write", full)
        with pytest.raises(
            JournalError, match=r"cannot be written \(No space left on device\).*found again by its tags"
        ):
            journal.prepare("c", COST)
    assert path.read_bytes() == before
    journal.prepare("c", COST)
    journal.close()
    assert knowledge(Journal(path)) == knowledge(journal)


def test_a_failing_fsync_counts_as_not_written(path, monkeypatch):
    def fail(descriptor):
        raise OSError(5, "Input/output error")

    journal, before = Journal(path), path.read_bytes()
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(JournalError, match="Input/output error"):
        journal.prepare("c", COST)
    assert path.read_bytes() == before
    assert "c" not in journal.entries


def test_replacing_keeps_the_old_one_until_the_new_one_begins(path):
    before = path.read_bytes()
    new = Journal.replacing(path, backend="device")
    new.claim()
    assert (new.entries, new.resumed, new.open_modes) == ({}, False, {"s-2": "session"})
    assert path.read_bytes() == before
    new.replace()
    new.close()
    found = Journal(path)
    assert (found.run, found.entries, found.open_modes) == (new.run, {}, {"s-2": "session"})
    assert found.run != "r1"


def test_replacing_forgets_what_was_closed_and_what_cannot_be_read(path):
    new = Journal.replacing(path, backend="device")
    new.closed("s-2")
    new.replace()
    new.close()
    assert Journal(path).open_modes == {}
    path.write_bytes(b"nonsense\n")
    other = Journal.replacing(path, backend="device")
    other.replace()
    other.prepare("a", COST)
    other.close()
    assert list(Journal(path).entries) == ["a"]


def test_replacing_nothing_writes_nothing(tmp_path):
    new = Journal.replacing(tmp_path / "jobs.jsonl")
    new.claim()
    new.replace()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["", "a/b", "..", "a b", "a\n", "x" * 201, None])
def test_ids_that_could_not_be_read_again_are_not_written(path, name):
    journal, before = Journal(path), path.read_bytes()
    with pytest.raises(ValueError, match="is no name"):
        journal.opened(name, "session")
    with pytest.raises(ValueError, match="is no name"):
        journal.submitted("a", name)
    assert path.read_bytes() == before
