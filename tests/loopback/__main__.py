"""``python -m tests.loopback --port 0 queue_seconds=0.2``: prints its base URL, serves until its standard input ends."""

from __future__ import annotations

import argparse
import json
import sys

from .client import LoopbackService
from .devices import QUBITS


def main() -> None:
    """Serve."""
    parser = argparse.ArgumentParser(prog="loopback", description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fake", default="FakeTorino", help="class name of the fake backend")
    parser.add_argument("--all-qubits", action="store_true", help="all of its qubits, not only five")
    parser.add_argument("settings", nargs="*", metavar="NAME=JSON", help="fields of records.Settings")
    options = parser.parse_args()
    settings = {name: _value(text) for name, _, text in (item.partition("=") for item in options.settings)}
    qubits = None if options.all_qubits else QUBITS
    with LoopbackService(options.fake, qubits, seed=options.seed, port=options.port, **settings) as service:
        print(service.url, flush=True)
        while sys.stdin.readline():
            pass


def _value(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text


if __name__ == "__main__":
    main()
