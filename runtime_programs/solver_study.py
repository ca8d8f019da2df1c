"""Which solver and which start pay: `python runtime_programs/solver_study.py --help`, or `main({...})`.

The same program as `python -m qiskit_qdeq solvers`.
"""

from __future__ import annotations

import sys

from qiskit_qdeq.__main__ import main as run_command
from qiskit_qdeq.programs.solver_study import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(run_command(["solvers", *sys.argv[1:]]))
