"""Writing several files together, so that at every moment each of them is complete: the old one or the new one."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from ..exceptions import CheckpointError


def write_together(path: Path, files: Mapping[Path, bytes]) -> None:
    """Write all files under temporary names, then rename them one after the other, ``path`` itself last."""
    staged: dict[Path, Path] = {}
    state = "what was there before is untouched"
    try:
        for target, data in files.items():
            staged[target] = target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
            with staged[target].open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        for target, temporary in staged.items():
            os.replace(temporary, target)
        state = "the new one is in its place, but may not survive a power failure"
        _sync_folder(path.parent)
    except OSError as error:
        reason = error.strerror or str(error)
        raise CheckpointError(f"Checkpoint '{path}' could not be written ({reason}); {state}.") from error
    finally:
        for temporary in staged.values():
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def temporary_pattern(target: Path) -> str:
    """What the names match under which a killed process may have left unfinished copies of a file."""
    return f".{glob.escape(target.name)}.*.tmp"


def _sync_folder(folder: Path) -> None:
    """Force the renames themselves to the disk, where the system can do that for folders (POSIX)."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)
