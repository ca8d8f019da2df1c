"""Test accuracy against shots per readout: `python runtime_programs/readout_study.py --help`, or `main({...})`.

The same program as `python -m qiskit_qdeq readouts`.
"""

from __future__ import annotations

import sys

from qiskit_qdeq.__main__ import main as run_command
from qiskit_qdeq.programs.readout_study import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(run_command(["readouts", *sys.argv[1:]]))
