"""`python -m qiskit_qdeq COMMAND`."""

from __future__ import annotations

import importlib
import io
import logging
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

_USAGE = """usage: python -m qiskit_qdeq COMMAND [options]

Quantum Deep Equilibrium Models in Qiskit.

  train      train and evaluate a model (no options: digits 0, 3, 6, 9 in seconds)
  evaluate   evaluate the checkpoint of a run on a data set
  sweep      runs of every combination of some options of train, with several seeds
  reproduce  the tables of arXiv:2410.23940, with baselines and classical controls
  readouts   test accuracy against shots per circuit for products of one to four Z
  noise      equilibrium models and deep circuits under noise, with mitigation and without
  scaling    time, memory, circuits and gradients against qubits, depth, batch and features
  solvers    solver, start, tolerance and backward mode: what each costs and changes
  theory     its theory, checked and drawn

Options of a command: python -m qiskit_qdeq train --help
"""
_COMMANDS = {
    "train": "qiskit_qdeq.programs.train",
    "evaluate": "qiskit_qdeq.programs.evaluate",
    "sweep": "qiskit_qdeq.programs.sweep",
    "reproduce": "qiskit_qdeq.programs.reproduce_paper",
    "readouts": "qiskit_qdeq.programs.readout_study",
    "noise": "qiskit_qdeq.programs.noise_study",
    "scaling": "qiskit_qdeq.programs.scaling_study",
    "solvers": "qiskit_qdeq.programs.solver_study",
    "theory": "qiskit_qdeq.programs.paper_theory",
}


def main(words: Sequence[str] | None = None) -> int:
    """Run a command; the exit code is 0 when done, 2 for bad usage, 130 and 143 after Ctrl-C and SIGTERM, else 1.

    Every failure is one clear line.
    """
    arguments = list(sys.argv[1:] if words is None else words)
    if arguments and arguments[0] in {"-h", "--help"}:
        print(_USAGE, end="")
        return 0
    if arguments and arguments[0] == "--version":
        from qiskit_qdeq import __version__

        print(f"qiskit-qdeq {__version__}")
        return 0
    if not arguments or arguments[0] not in _COMMANDS:
        print(_USAGE, end="", file=sys.stderr)
        if arguments:
            print(f"error: unknown command {arguments[0]!r}", file=sys.stderr)
        return 2
    name, *rest = arguments
    return run_guarded(lambda: program(name).command(rest))


def program(name: str) -> Any:
    """The module of a command, with its `main` and `command`."""
    return importlib.import_module(_COMMANDS[name])


def run_guarded(action: Callable[[], int]) -> int:
    """The exit code of an action: every failure is one line on standard error, and a warning is one, too."""
    from qiskit_qdeq.exceptions import InputError, QDEQError
    from qiskit_qdeq.programs.stopping import Terminated, terminating

    if isinstance(sys.stdout, io.TextIOWrapper):
        # a folder's name may hold what the terminal cannot show
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with warnings.catch_warnings(), terminating():
            warnings.showwarning = _show_warning
            return int(action())
    except SystemExit as stop:
        return int(stop.code or 0)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (QDEQError, OSError, MemoryError) as error:
        print(f"error: {error or type(error).__name__}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stop:
        terminated = isinstance(stop, Terminated)
        print("; ".join(["terminated" if terminated else "interrupted", *map(str, stop.args)]), file=sys.stderr)
        return 143 if terminated else 130


def _show_warning(message: Warning | str, *details: Any, **more: Any) -> None:
    logging.getLogger("qiskit_qdeq.warnings").warning("%s", message)
    print(f"warning: {message}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
