"""How every kernel is compiled.

numba renews a cached kernel when the file it stands in changes, not when a helper inlined into it does: after editing
`vectors`, `strips` or `lanes` delete the `.nbi` files of `__pycache__`, or touch the modules that import them.
"""

from __future__ import annotations

from typing import Any

# error_model="numpy" keeps IEEE semantics of division; only reassociation and contraction are allowed, so NaN survives.
JIT: dict[str, Any] = {
    "cache": True,
    "nogil": True,
    "fastmath": {"reassoc", "contract", "nsz"},
    "error_model": "numpy",
}
