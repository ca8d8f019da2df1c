"""What was asked of a service and what became of it, on the disk before anything else happens.

A file of lines ``<digest> <JSON>``, appended and forced to the disk one by one. Each digest covers the line and the digest
before it, so that a changed, lost or moved line is noticed; a last line without its end was being written when the process
died, and counts as not written. What such a line said is found again at the service, by the tags of the jobs.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qiskit_qdeq.evaluation.protocol import Cost
from qiskit_qdeq.exceptions import JournalError
from qiskit_qdeq.execution.locking import lock

_FORMAT = 1
_DIGEST = 24
#: A job's line takes about 200 bytes; a line above this is not one of ours.
_LONGEST_LINE = 1 << 16
#: What ids and keys look like; they become parts of addresses at the service.
_NAME = re.compile(r"[A-Za-z0-9_-]{1,200}")
_BACKEND = re.compile(r"[A-Za-z0-9_.:-]{0,200}")
#: No run costs as much; what adds up from less stays a finite number.
_LARGEST_COST = 1e15
_DAMAGE = (ValueError, KeyError, TypeError, AttributeError, RecursionError)


@dataclass
class Entry:
    """What is known of one request.

    Attributes:
        state: "prepared", "submitted", "finished", "failed" or "split".
        job: id of its last job, "" if none is known.
        cost: predicted; of a finished job with the QPU seconds charged.
        refused: ids of jobs that had no usable result.
    """

    state: str
    job: str = ""
    cost: Cost = dataclasses.field(default_factory=Cost)
    refused: list[str] = dataclasses.field(default_factory=list)


class Journal:
    """The journal of one run.

    Args:
        path: the file, made when the first line is written; None keeps it in memory only.
        run: name of the run, part of every job's tags; None takes the file's, or a new one.
        backend: name of the device; another one than in the file is refused.

    Raises:
        JournalError: if the file is damaged, cannot be read, or is of another run or device.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None, run: str | None = None, backend: str = "") -> None:
        self.path = None if path is None else Path(path)
        self.entries: dict[str, Entry] = {}
        #: Sessions and batches that were opened and not closed, by id: which of both it is.
        self.open_modes: dict[str, str] = {}
        #: Shots of the smallest job that ran too long.
        self.too_long: int | None = None
        self.spent = Cost()
        self._number, self._digest, self._size = 0, "", 0
        #: Bytes in the file that are no whole line.
        self._torn = 0
        self._file: int | None = None
        self._replacing = False
        self._header: dict[str, str] = {}
        if self.path is not None and os.path.lexists(self.path):
            self._read(self.path)
        #: Whether an earlier process may have asked for something.
        self.resumed = bool(self._header) or run is not None
        found = self._header.get("run")
        if run is not None and found is not None and run != found:
            raise JournalError(
                f"journal '{self.path}' is of run {found}, not of run {run}: put back the run's own file"
            )
        self.run: str = found or run or secrets.token_hex(8)
        self.backend: str = self._header.get("backend", "")
        if backend:
            self.belongs_to(backend)

    def belongs_to(self, backend: str) -> None:
        """Keep the name of the device.

        Raises:
            JournalError: if the journal is of another one.
        """
        if self.backend not in ("", backend):
            raise JournalError(
                f"journal '{self.path}' is of a run on {self.backend}, this one is on {backend}: go on there, or delete the "
                "file to give up that run's jobs"
            )
        self.backend = backend

    @classmethod
    def replacing(cls, path: str | os.PathLike[str], backend: str = "") -> Journal:
        """A new journal in the place of an old one, which knows of the old one's open sessions and nothing else.

        Until `replace` is called nothing is written, and the old one stays.
        """
        new = cls(None, backend=backend)
        with contextlib.suppress(JournalError):
            new.open_modes = cls(path).open_modes
        new.path, new._replacing = Path(path), True
        with contextlib.suppress(OSError):
            new._torn = new.path.stat().st_size
        return new

    def replace(self) -> None:
        """Write over the old one, where this is one that replaces it."""
        if not self._replacing:
            return
        self._replacing = False
        still_open, self.open_modes = self.open_modes, {}
        if self._torn:
            self._begin()
        for mode, kind in still_open.items():
            self.opened(mode, kind)

    def claim(self) -> None:
        """Keep other processes from the file, if it is there; without it that happens with the first line.

        Raises:
            JournalError: if another process has it, or it cannot be written.
        """
        if self.path is not None and self._file is None and (self._size or self._torn):
            try:
                self._descriptor()
            except OSError as error:
                raise self._unwritable(error) from error

    def prepare(self, key: str, cost: Cost) -> None:
        """A job is about to be submitted."""
        self._append({"event": "prepared", "key": key, "cost": _plain(cost)})

    def submitted(self, key: str, job: str) -> None:
        """The service has accepted it."""
        self._append({"event": "submitted", "key": key, "job": _name(job)})

    def finished(self, key: str, cost: Cost) -> None:
        """Its result was read and is usable; `cost` with the QPU seconds charged."""
        self._append({"event": "finished", "key": key, "cost": _plain(cost)})

    def failed(self, key: str, reason: str, cost: Cost | None = None) -> None:
        """It has no usable result, but a `cost` perhaps; the same request may be submitted again."""
        self._append({"event": "failed", "key": key, "reason": reason[:500], "cost": _plain(cost or Cost())})

    def split(self, key: str, shots: int, reason: str) -> None:
        """It ran, or would run, too long: parts of it take its place."""
        self._append({"event": "split", "key": key, "shots": shots, "reason": reason[:500]})

    def already_spent(self, cost: Cost) -> None:
        """Earlier processes have spent this, and their journal is gone."""
        self._append({"event": "spent", "cost": _plain(cost)})

    def opened(self, mode: str, kind: str) -> None:
        """A session or batch was opened; ValueError for an id that cannot be one."""
        self._append({"event": "opened", "mode": _name(mode), "kind": kind})

    def closed(self, mode: str) -> None:
        """It was closed, by us or by the service."""
        self._append({"event": "closed", "mode": mode})

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _append(self, record: dict[str, Any]) -> None:
        if self.path is not None and not self._replacing:
            if not self._number:
                self._begin()
            self._write(record)
        self._apply(record)

    def _begin(self) -> None:
        self._write({"event": "run", "format": _FORMAT, "run": self.run, "backend": self.backend})

    def _write(self, record: dict[str, Any]) -> None:
        text = _spelled(self._number, record)
        digest = _chained(self._digest, text)
        line = f"{digest} {text}\n".encode("ascii")
        try:
            descriptor = self._descriptor()
            self._refuse_other_writer(descriptor)
            if self._torn:
                os.ftruncate(descriptor, self._size)
                self._torn = 0
            try:
                _write_all(descriptor, line)
                os.fsync(descriptor)
            except OSError:
                # half a line would be in the way of the next one
                with contextlib.suppress(OSError):
                    os.ftruncate(descriptor, self._size)
                raise
        except OSError as error:
            raise self._unwritable(error) from error
        self._number, self._digest, self._size = self._number + 1, digest, self._size + len(line)

    def _descriptor(self) -> int:
        assert self.path is not None
        if self._file is not None:
            return self._file
        begun = bool(self._size or self._torn)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | (0 if begun else os.O_CREAT), 0o644)
        except FileNotFoundError as error:
            raise JournalError(f"journal '{self.path}' was deleted while it was in use: begin again") from error
        try:
            if not lock(descriptor):
                raise JournalError(
                    f"journal '{self.path}' is in use, by another process or elsewhere in this one: wait for its end, stop "
                    "it, or give each run a journal of its own"
                )
            self._refuse_other_writer(descriptor)
            if not begun:
                _sync_folder(self.path.parent)
        except BaseException:
            os.close(descriptor)
            raise
        self._file = descriptor
        return descriptor

    def _refuse_other_writer(self, descriptor: int) -> None:
        size, known = os.fstat(descriptor).st_size, self._size + self._torn
        if size != known:
            raise JournalError(
                f"journal '{self.path}' has {size} bytes instead of {known}: another process writes it; stop that one, or "
                "give each run a journal of its own"
            )

    def _unwritable(self, error: OSError) -> JournalError:
        return JournalError(
            f"journal '{self.path}' cannot be written ({error.strerror or error}); what was submitted is found again by its "
            "tags when the run is resumed"
        )

    def _read(self, path: Path) -> None:
        number = 0
        try:
            if not path.is_file():
                raise JournalError(f"journal '{path}' is not a file")
            with path.open("rb") as file:
                while line := file.readline(_LONGEST_LINE + 1):
                    if len(line) > _LONGEST_LINE:
                        raise ValueError("it is longer than any line of a journal")
                    if not line.endswith(b"\n"):
                        self._torn = len(line)
                        break
                    self._take(number, line[:-1].decode("ascii"))
                    number, self._size = number + 1, self._size + len(line)
        except OSError as error:
            raise JournalError(f"journal '{path}' cannot be read: {error.strerror or error}") from error
        except _DAMAGE as error:
            reason = str(error) if type(error) is ValueError else type(error).__name__
            raise JournalError(
                f"journal '{path}' is damaged in line {number + 1} ({reason[:200]}); put back an undamaged copy, or move "
                "the file away: a run with a checkpoint then finds its jobs again at the service by their tags"
            ) from None

    def _take(self, number: int, line: str) -> None:
        digest, _, text = line.partition(" ")
        if digest != _chained(self._digest, text):
            raise ValueError("its digest is wrong")
        record = json.loads(text)
        if type(record.pop("n")) is not int or text != _spelled(number, record):
            raise ValueError("its number or spelling is wrong")
        if (record["event"] == "run") != (number == 0):
            raise ValueError("a journal begins with its run, and holds only one")
        self._apply(record)
        self._number, self._digest = number + 1, digest

    def _apply(self, record: dict[str, Any]) -> None:
        event = record["event"]
        if event == "run":
            if record["format"] != _FORMAT:
                raise ValueError(f"format {record['format']!r} is of another version of qiskit-qdeq")
            self._header = {"run": _name(record["run"]), "backend": _name(record["backend"], _BACKEND)}
        elif event == "opened":
            self.open_modes[_name(record["mode"])] = "batch" if record["kind"] == "batch" else "session"
        elif event == "closed":
            self.open_modes.pop(_name(record["mode"]), None)
        elif event == "spent":
            self.spent += _cost(record["cost"])
        elif event in ("prepared", "submitted", "finished", "failed", "split"):
            self._apply_to_entry(event, record)
        else:
            raise ValueError(f"event {event!r} is unknown")

    def _apply_to_entry(self, event: str, record: dict[str, Any]) -> None:
        key = _name(record["key"])
        entry = self.entries.get(key)
        if entry is None:
            if event not in ("prepared", "split"):
                raise ValueError(f"{key} is {event} and was never prepared")
            entry = self.entries[key] = Entry("prepared")
        if event == "prepared":
            entry.cost = _cost(record["cost"])
        elif event == "submitted":
            entry.job = _name(record["job"])
            self.spent += entry.cost
        elif event == "finished":
            if not entry.job:
                raise ValueError(f"{key} is finished and was never submitted")
            charged = _cost(record["cost"])
            self.spent += charged - entry.cost
            entry.cost = charged
        elif entry.job and entry.state != "finished":
            # whatever it did, no circuit of it counts; what is gone after it was paid for stays paid
            self.spent += _cost(record.get("cost", {})) - entry.cost
        entry.state = event
        if event in ("failed", "split") and entry.job:
            entry.refused.append(entry.job)
            entry.job = ""
        if event == "split":
            shots = _count(record["shots"])
            self.too_long = min(shots, self.too_long or shots)


def _spelled(number: int, record: dict[str, Any]) -> str:
    return json.dumps({"n": number, **record}, separators=(",", ":"), allow_nan=False)


def _chained(before: str, text: str) -> str:
    return hashlib.sha256(f"{before} {text}".encode("ascii", "replace")).hexdigest()[:_DIGEST]


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _sync_folder(folder: Path) -> None:
    if os.name != "nt":
        descriptor = os.open(folder, os.O_RDONLY)
        with contextlib.suppress(OSError):  # not every file system knows it for folders
            os.fsync(descriptor)
        os.close(descriptor)


def _name(value: Any, pattern: re.Pattern[str] = _NAME) -> str:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise ValueError(f"{str(value)[:60]!r} is no name")
    return value


def _count(value: Any) -> int:
    if type(value) is not int or not 1 <= value <= _LARGEST_COST:
        raise ValueError("its number of shots is none")
    return value


def _plain(cost: Cost) -> dict[str, int | float]:
    return {name: value for name, value in dataclasses.asdict(cost).items() if value}


def _cost(values: dict[str, Any]) -> Cost:
    # a charge may be below what was predicted, no amount is below 0
    for name, value in values.items():
        kinds = (int, float) if name == "qpu_seconds" else (int,)
        if (
            not isinstance(value, kinds)
            or isinstance(value, bool)
            or not (0 <= value <= _LARGEST_COST and math.isfinite(value))
        ):
            raise ValueError("its cost is no cost")
    return Cost(**values)
