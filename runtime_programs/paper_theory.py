"""Check the paper's theory: `python runtime_programs/paper_theory.py --help`, or `main({...})` from Python."""

from __future__ import annotations

import sys

from qiskit_qdeq.exceptions import InputError, QDEQError
from qiskit_qdeq.programs.paper_theory import command, main

__all__ = ["main"]

if __name__ == "__main__":
    try:
        sys.exit(command())
    except (QDEQError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, InputError) else 1)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
