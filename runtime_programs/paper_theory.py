"""The paper's theory, checked and drawn: `python runtime_programs/paper_theory.py --help`, or `main({...})` from Python.

The same program as `python -m qiskit_qdeq theory`.
"""

from __future__ import annotations

import sys

from qiskit_qdeq.__main__ import main as run_command
from qiskit_qdeq.programs.paper_theory import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(run_command(["theory", *sys.argv[1:]]))
