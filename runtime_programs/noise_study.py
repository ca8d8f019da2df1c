"""Equilibrium models and deep circuits under noise: `main(backend, arguments, mode, mapper, publish)`, or as a script.

`python runtime_programs/noise_study.py ...` is `python -m qiskit_qdeq noise ...`. With $ARGUMENTS_PATH and
$RESULTS_PATH it is a job of Qiskit Serverless, which reads its arguments from the one JSON file and writes its result to the
other.
"""

from __future__ import annotations

import sys

from qiskit_qdeq.programs.noise_study import main
from qiskit_qdeq.programs.serverless import run_script

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(run_script("noise"))
