"""The tables of arXiv:2410.23940: `python runtime_programs/reproduce_paper.py --help`, or `main({...})` from Python.

The same program as `python -m qiskit_qdeq reproduce`.
"""

from __future__ import annotations

import sys

from qiskit_qdeq.__main__ import main as run_command
from qiskit_qdeq.programs.reproduce_paper import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(run_command(["reproduce", *sys.argv[1:]]))
