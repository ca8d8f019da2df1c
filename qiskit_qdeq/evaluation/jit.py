"""How every kernel is compiled."""

from __future__ import annotations

from typing import Any

# error_model="numpy" keeps IEEE semantics of division; only reassociation and contraction are allowed, so NaN survives.
JIT: dict[str, Any] = {
    "cache": True,
    "nogil": True,
    "fastmath": {"reassoc", "contract", "nsz"},
    "error_model": "numpy",
}
