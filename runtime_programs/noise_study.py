"""Equilibrium models and deep circuits under noise: `python runtime_programs/noise_study.py --help`, or `main(None, {...})`.

The same program as `python -m qiskit_qdeq noise`.
"""

from __future__ import annotations

import sys

from qiskit_qdeq.__main__ import main as run_command
from qiskit_qdeq.programs.noise_study import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(run_command(["noise", *sys.argv[1:]]))
