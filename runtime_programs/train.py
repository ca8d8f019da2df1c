"""Train and evaluate a QDEQ: `python runtime_programs/train.py --help`, or `main({...})` from Python.

The same program as `python -m qiskit_qdeq train`.
"""

from __future__ import annotations

import sys

from qiskit_qdeq.__main__ import main as run_command
from qiskit_qdeq.programs.train import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(run_command(["train", *sys.argv[1:]]))
