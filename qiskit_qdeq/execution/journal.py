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
import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qiskit_qdeq.evaluation.protocol import Cost
from qiskit_qdeq.exceptions import JournalError

_FORMAT = 1
_DIGEST = 24
#: A job's line takes about 200 bytes; a file above this is not one of ours.
_LARGEST_FILE = 1 << 30
#: What ids and keys look like; they become parts of addresses at the service.
_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,200}")


@dataclass
class Entry:
    """What is known of one request.

    Attributes:
        state: "prepared", "submitted", "finished", "failed" or "split".
        job: id of its last job, "" if none is known.
        cost: predicted; of a finished job with the QPU seconds charged.
    """

    state: str
    job: str = ""
    cost: Cost = dataclasses.field(default_factory=Cost)


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
        #: Sessions and batches that were opened and not closed.
        self.open_modes: list[str] = []
        #: Shots of the smallest job that ran too long.
        self.too_long: int | None = None
        self.spent = Cost()
        self._number, self._digest, self._size = 0, "", 0
        self._file: int | None = None
        self._header: dict[str, Any] = {}
        if self.path is not None and self.path.exists():
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
            raise JournalError(f"journal '{self.path}' is of a run on {self.backend}, this one is on {backend}")
        self.backend = backend

    @classmethod
    def replacing(cls, path: str | os.PathLike[str], backend: str = "") -> Journal:
        """A new journal in the place of an old one, which knows of the old one's open sessions and nothing else."""
        new = cls(None, backend=backend)
        with contextlib.suppress(JournalError):
            new.open_modes = list(cls(path).open_modes)
        new.path = Path(path)
        return new

    def prepare(self, key: str, cost: Cost) -> None:
        """A job is about to be submitted."""
        self._append({"event": "prepared", "key": key, "cost": _plain(cost)})

    def submitted(self, key: str, job: str) -> None:
        """The service has accepted it."""
        self._append({"event": "submitted", "key": key, "job": job})

    def finished(self, key: str, cost: Cost) -> None:
        """Its result was read and is usable; `cost` with the QPU seconds charged."""
        self._append({"event": "finished", "key": key, "cost": _plain(cost)})

    def failed(self, key: str, reason: str, cost: Cost | None = None) -> None:
        """It has no usable result, but a `cost` perhaps; the same request may be submitted again."""
        self._append({"event": "failed", "key": key, "reason": reason[:500], "cost": _plain(cost or Cost())})

    def split(self, key: str, shots: int, reason: str) -> None:
        """It ran, or would run, too long: parts of it take its place."""
        self._append({"event": "split", "key": key, "shots": shots, "reason": reason[:500]})

    def opened(self, mode: str, kind: str) -> None:
        """A session or batch was opened."""
        self._append({"event": "opened", "mode": mode, "kind": kind})

    def closed(self, mode: str) -> None:
        """It was closed, by us or by the service."""
        self._append({"event": "closed", "mode": mode})

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _append(self, record: dict[str, Any]) -> None:
        if self.path is not None:
            if not self._number:
                self._write({"event": "run", "format": _FORMAT, "run": self.run, "backend": self.backend})
            self._write(record)
        self._apply(record)

    def _write(self, record: dict[str, Any]) -> None:
        text = json.dumps({"n": self._number, **record}, separators=(",", ":"), allow_nan=False)
        digest = _chained(self._digest, text)
        line = f"{digest} {text}\n".encode("ascii")
        try:
            descriptor = self._opened()
            size = os.fstat(descriptor).st_size
            if size != self._size:
                raise JournalError(
                    f"journal '{self.path}' has {size} bytes instead of {self._size}: another process writes it; stop that "
                    "one, or give each run a journal of its own"
                )
            try:
                _write_all(descriptor, line)
                os.fsync(descriptor)
            except OSError:
                # half a line would be in the way of the next one
                with contextlib.suppress(OSError):
                    os.ftruncate(descriptor, self._size)
                raise
        except OSError as error:
            raise JournalError(
                f"journal '{self.path}' cannot be written ({error.strerror or error}); what was submitted is found again by "
                "its tags when the run is resumed"
            ) from error
        self._number, self._digest, self._size = self._number + 1, digest, self._size + len(line)

    def _opened(self) -> int:
        assert self.path is not None
        if self._file is None:
            new = not self.path.exists()
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            if not new and os.fstat(self._file).st_size > self._size:
                os.ftruncate(self._file, self._size)  # the torn last line
            if new and os.name != "nt":
                folder = os.open(self.path.parent, os.O_RDONLY)
                with contextlib.suppress(OSError):  # not every file system knows it for folders
                    os.fsync(folder)
                os.close(folder)
        return self._file

    def _read(self, path: Path) -> None:
        try:
            if path.stat().st_size > _LARGEST_FILE:
                raise JournalError(f"journal '{path}' is larger than any journal can be: it is something else")
            data = path.read_bytes()
        except OSError as error:
            raise JournalError(f"journal '{path}' cannot be read: {error.strerror or error}") from error
        *lines, _torn = data.split(b"\n")
        for number, line in enumerate(lines):
            try:
                digest, _, text = line.decode("ascii").partition(" ")
                if digest != _chained(self._digest, text):
                    raise ValueError("its digest is wrong")
                record = json.loads(text)
                if record.pop("n") != number:
                    raise ValueError("its number is wrong")
                self._apply(record)
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                raise JournalError(
                    f"journal '{path}' is damaged in line {number + 1} ({error}); put back an undamaged copy, or move the "
                    "file away: a run with a checkpoint then finds its jobs again at the service by their tags"
                ) from None
            self._number, self._digest, self._size = number + 1, digest, self._size + len(line) + 1

    def _apply(self, record: dict[str, Any]) -> None:
        event = record["event"]
        if event == "run":
            if record["format"] != _FORMAT:
                raise ValueError(f"format {record['format']!r} is of a newer version of qiskit-qdeq")
            self._header = {"run": _name(record["run"]), "backend": str(record["backend"])}
        elif event == "opened":
            self.open_modes.append(_name(record["mode"]))
        elif event == "closed":
            with contextlib.suppress(ValueError):
                self.open_modes.remove(record["mode"])
        elif event in ("prepared", "submitted", "finished", "failed", "split"):
            self._apply_to_entry(event, record)
        else:
            raise ValueError(f"event {event!r} is unknown")

    def _apply_to_entry(self, event: str, record: dict[str, Any]) -> None:
        key = _name(record["key"])
        entry = self.entries.setdefault(key, Entry("prepared"))
        entry.state = event
        if event == "prepared":
            entry.cost = _cost(record["cost"])
        elif event == "submitted":
            entry.job = _name(record["job"])
            self.spent += entry.cost
        elif event == "finished":
            charged = _cost(record["cost"])
            self.spent += charged - entry.cost
            entry.cost = charged
        elif entry.job:
            self.spent += _cost(record.get("cost", {})) - entry.cost
        if event == "failed":
            entry.job = ""
        if event == "split":
            entry.job, shots = "", int(record["shots"])
            self.too_long = min(shots, self.too_long or shots)


def _chained(before: str, text: str) -> str:
    return hashlib.sha256(f"{before} {text}".encode("ascii", "replace")).hexdigest()[:_DIGEST]


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _name(value: Any) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise ValueError(f"{value!r} is no name")
    return value


def _plain(cost: Cost) -> dict[str, int | float]:
    return {name: value for name, value in dataclasses.asdict(cost).items() if value}


def _cost(values: dict[str, Any]) -> Cost:
    # a charge may be below what was predicted, no amount is below 0
    if any(not isinstance(value, int | float) or isinstance(value, bool) or value < 0 for value in values.values()):
        raise ValueError("its cost is no cost")
    return Cost(**values)
