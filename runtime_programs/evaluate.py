"""Evaluate the checkpoint of a run: `python runtime_programs/evaluate.py DIR`, or `main({...})` from Python.

The same program as `python -m qiskit_qdeq evaluate`.
"""

from __future__ import annotations

import sys

from qiskit_qdeq.__main__ import main as run_command
from qiskit_qdeq.programs.evaluate import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(run_command(["evaluate", *sys.argv[1:]]))
