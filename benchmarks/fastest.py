"""The same training step here and in the strongest peer stacks, timed in turns on one machine in one run.

    python benchmarks/fastest.py [--settings amplitude-4 ...] [--peers tensorcircuit_jax ...] [--json FILE]

Batch 256, paper's circuit with all angles trained, readout z and relu. Peers solve to 1e-3 or ten Broyden steps, in single
precision; here the equilibrium is solved to 1e-6 in double precision (ten qubits with angle encoding: ten Broyden steps, as
the peers, because no solver brings all random samples there to a fixed point). Peers are installed from PyPI into an
environment of their own, see peers/.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

from common import SETTINGS, Step, command_line, publish

sys.path.insert(0, str(Path(__file__).parent / "peers"))


def our_step(setting: str, dtype: str) -> Step:
    from qiskit_qdeq.equilibrium import Broyden

    options = {"solver": Broyden(max_steps=10)} if setting == "angle-10" else {}
    return Step(setting, preset="paper", dtype=dtype, **options)


def timed(step: Step, count: int) -> list[float]:
    from qiskit_qdeq.evaluation.threads import compute_context

    times = []
    # what the trainer does for a whole run
    with compute_context():
        for _ in range(count):
            started = time.perf_counter()
            step()
            times.append(1e3 * (time.perf_counter() - started))
    return times


def main() -> None:
    from run import PEERS, PeerProcess, default_venv

    parser = command_line(__doc__ or "")
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS), choices=SETTINGS)
    parser.add_argument(
        "--peers", nargs="+", default=list(PEERS[1:]), choices=PEERS, help="all but PennyLane, for time"
    )
    parser.add_argument("--venv", type=Path, default=default_venv(), help="environment of the peers")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--turns", type=int, default=5, help="turns of every stack")
    options = parser.parse_args()
    figures: dict[str, dict[str, dict[str, float]]] = {}
    for setting in options.settings:
        rows: dict[str, dict[str, float]] = {}
        ours = {}
        for dtype in ("float64", "float32"):
            started = time.perf_counter()
            ours[dtype] = our_step(setting, dtype)
            ours[dtype]()
            rows[f"qiskit-qdeq {dtype}"] = {"first_step_s": time.perf_counter() - started}
        count = 10 if setting.endswith("10") else 60
        times: dict[str, list[float]] = {name: [] for name in rows}
        # one peer at a time is kept warm, so that idle peers take neither memory nor processors
        for peer in options.peers:
            with PeerProcess(options.venv, peer, setting, options.threads, 256) as process:
                process.time(3)
                times[peer] = []
                for _ in range(options.turns):
                    # a stack's idle threads spin for a while before they sleep: let them, before the other's turn
                    time.sleep(0.5)
                    times[peer] += process.time(count)
                    for dtype, step in ours.items():
                        time.sleep(0.5)
                        times[f"qiskit-qdeq {dtype}"] += timed(step, count)
                rows[peer] = {"first_step_s": process.initial["first_step_s"]}
        for name, values in times.items():
            rows[name] |= {"median": statistics.median(values), "min": min(values), "max": max(values)}
        fastest_peer = min(rows[peer]["median"] for peer in options.peers)
        for name, row in rows.items():
            row["fastest_peer_over_this"] = fastest_peer / row["median"]
            print(
                f"{setting:13s} {name:20s} median {row['median']:8.2f} ms  min {row['min']:8.2f}  max {row['max']:8.2f}  "
                f"first step {row['first_step_s']:5.1f} s  fastest peer / this {row['fastest_peer_over_this']:5.2f}",
                flush=True,
            )
        print(f"{'':13s} here: {ours['float64'].result.solution}")
        figures[setting] = rows
    publish(figures, options.json)


if __name__ == "__main__":
    main()
