"""How every kernel is compiled, and when compiled ones are thrown away.

numba renews a cached kernel when the file it stands in changes, not when a helper inlined into it does (of `vectors`,
`strips`, `lanes`, ...), and a kernel that was compiled against another version of a helper can crash the process. So a
change of any of these files throws all of this package's cached kernels away.
"""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path
from typing import Any

# error_model="numpy" keeps IEEE semantics of division; only reassociation and contraction are allowed, so NaN survives.
JIT: dict[str, Any] = {
    "cache": True,
    "nogil": True,
    "fastmath": {"reassoc", "contract", "nsz"},
    "error_model": "numpy",
}

_PACKAGE = Path(__file__).parent.parent
_STAMP = "kernels.sha256"


def drop_stale_kernels(package: Path = _PACKAGE) -> bool:
    """Delete numba's files beside the sources unless these are what the files were made from; whether any were deleted.

    Where the folder cannot be written numba keeps its cache elsewhere: such an installation changes as a whole.
    """
    sources = [*sorted((package / "evaluation").glob("*.py")), package / "readout.py"]
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources if source.exists())).hexdigest()
    folder = package / "evaluation" / "__pycache__"
    stamp = folder / _STAMP
    deleted = False
    with contextlib.suppress(OSError):
        if stamp.exists() and stamp.read_text("ascii") == digest:
            return False
        for kernel in (*folder.glob("*.nb[ic]"), *(package / "__pycache__").glob("*.nb[ic]")):
            kernel.unlink(missing_ok=True)
            deleted = True
        folder.mkdir(exist_ok=True)
        stamp.write_text(digest, "ascii")
    return deleted


# before any module with kernels is imported: they all import this one first
drop_stale_kernels()
