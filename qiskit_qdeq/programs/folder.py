"""The folder of a run: whose it is, what is in it, and that only one process writes it."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Iterator
from pathlib import Path

from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.execution.locking import lock
from qiskit_qdeq.programs.arguments import TrainArguments
from qiskit_qdeq.training.checkpoint import has_checkpoint, remove_checkpoint

CHECKPOINT = "checkpoint.safetensors"
METRICS = "metrics.json"
JOURNAL = "jobs.jsonl"
EVALUATION_JOURNAL = "evaluation-jobs.jsonl"
#: Says whose folder it is from the beginning of a study on.
STUDY = "study.json"
FIGURES = ("history", "confusion", "residual_traces", "spectrum", "circuit")
_RESULTS = (METRICS, *(f"{name}.png" for name in FIGURES))
_LOCK = ".qdeq-run.lock"


@contextlib.contextmanager
def earlier_run(options: TrainArguments) -> Iterator[Path]:
    """The folder of the run to resume, locked.

    Raises:
        InputError: if there is no run in it, or another process writes it.
    """
    folder = earlier_folder(options)
    with locked(folder):
        yield folder


def earlier_folder(options: TrainArguments) -> Path:
    """The folder of the run to resume, to be read only.

    Raises:
        InputError: if there is no run in it.
    """
    if options.overwrite:
        raise InputError("--resume continues the run in --output and --overwrite deletes it: give one of them")
    if options.output is None:
        raise InputError("--resume continues the run in --output: name that folder")
    folder = Path(options.output)
    if not has_checkpoint(folder / CHECKPOINT):
        raise InputError(f"--output {folder} holds no run to resume (no {CHECKPOINT})")
    return folder


@contextlib.contextmanager
def new_run(options: TrainArguments) -> Iterator[Path]:
    """The folder of a new run, made and locked; an earlier run in it is only touched on request.

    Raises:
        InputError: if it cannot be made, holds an earlier run or files that are not ours, or another process writes it.
    """
    if options.output is None:
        folder = _new_folder(Path("qdeq-runs") / f"{options.data}-{options.preset}-{options.mode}-seed{options.seed}")
        ours = True
    else:
        folder = Path(options.output)
        ours = not os.path.lexists(folder)
        make_folder(folder, exist_ok=True)
    try:
        with locked(folder):
            _refuse_what_is_there(folder, options.overwrite)
            yield folder
    finally:
        if ours:
            # only an empty folder can be removed: nothing came of this run
            with contextlib.suppress(OSError):
                folder.rmdir()


def remove_results(folder: Path) -> None:
    """Delete the metrics and figures of a run that goes on, so that none are taken for the new ones."""
    for name in _RESULTS:
        (folder / name).unlink(missing_ok=True)


def remove_run(folder: Path) -> None:
    """Delete what an earlier run wrote, results first: what is left after a crash is a run to resume, or nothing."""
    remove_results(folder)
    remove_checkpoint(folder / CHECKPOINT)


def _refuse_what_is_there(folder: Path, overwrite: bool) -> None:
    if os.path.lexists(folder / STUDY):
        raise InputError(f"--output {folder} is the folder of a study: name another one")
    if has_checkpoint(folder / CHECKPOINT):
        if not overwrite:
            raise InputError(
                f"--output {folder} holds an earlier run: add --resume to continue it, --overwrite to delete it, "
                "or name another folder"
            )
        return
    foreign = [name for name in _RESULTS if os.path.lexists(folder / name)]
    if foreign:
        raise InputError(
            f"--output {folder} holds {', '.join(foreign)} but no run that they belong to, and this run would replace "
            "them: name another folder"
        )


def _new_folder(base: Path) -> Path:
    """`base`, or base-2, base-3 and so on: the first that nobody has made, made now."""
    number = 1
    while True:
        folder = base if number == 1 else base.with_name(f"{base.name}-{number}")
        try:
            make_folder(folder, exist_ok=False)
            return folder
        except FileExistsError:
            number += 1


def make_folder(folder: Path, exist_ok: bool) -> None:
    """Make the folder named by --output.

    Raises:
        InputError: if it cannot be made.
        FileExistsError: if it is there and must not.
    """
    try:
        folder.mkdir(parents=True, exist_ok=exist_ok)
    except (OSError, ValueError) as error:
        if not exist_ok and isinstance(error, FileExistsError):
            raise
        raise InputError(f"--output {folder} cannot be created: {getattr(error, 'strerror', error)}") from error


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which the system frees when a process ends, however it ends."""
    path = folder / _LOCK
    descriptor = _open_locked(path, folder)
    try:
        yield
    finally:
        # removed while it is held: whoever waits for it finds another file there, and starts again
        if os.name != "nt" and _is_file_at(descriptor, path):
            path.unlink(missing_ok=True)
        os.close(descriptor)


def _open_locked(path: Path, folder: Path) -> int:
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise InputError(f"--output {folder} cannot be written: {error.strerror or error}") from error
        if not lock(descriptor):
            holder = os.pread(descriptor, 200, 0).decode("utf-8", "replace") if hasattr(os, "pread") else ""
            os.close(descriptor)
            raise InputError(
                f"--output {folder} is being written by another run ({holder.strip() or 'process unknown'}): wait for "
                "its end, stop it, or name another folder"
            )
        if _is_file_at(descriptor, path):
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"process {os.getpid()} on {platform.node()}\n".encode())
            return descriptor
        os.close(descriptor)


def _is_file_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False
