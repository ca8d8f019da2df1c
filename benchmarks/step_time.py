"""The equilibrium is nearly free: an IMPLICIT training step against DIRECT steps of 1, 2 and 5 layers, in one run.

python benchmarks/step_time.py [--preset paper|default] [--settings amplitude-4 ...] [--json FILE]
"""

from __future__ import annotations

from common import SETTINGS, Step, command_line, interleaved, publish


def main() -> None:
    parser = command_line(__doc__ or "")
    parser.add_argument("--preset", default="default", choices=("paper", "default"))
    parser.add_argument("--settings", nargs="+", default=["amplitude-4", "amplitude-10"], choices=SETTINGS)
    parser.add_argument("--dtype", default="float64", choices=("float64", "float32"))
    parser.add_argument("--rounds", type=int, default=0, help="0: 300 at 4 qubits, 30 at 10")
    options = parser.parse_args()
    figures = {}
    print(f"ms per training step, batch 256, equilibrium to 1e-6, preset {options.preset}, {options.dtype}")
    for setting in options.settings:
        steps = {"implicit": Step(setting, preset=options.preset, dtype=options.dtype)}
        for layers in (1, 2, 5):
            steps[f"direct-{layers}"] = Step(setting, preset=options.preset, layers=layers, dtype=options.dtype)
        rounds = options.rounds or (300 if SETTINGS[setting][1] == 4 else 30)
        times = interleaved(steps, rounds)
        base = times["direct-1"]["median"]
        solution = steps["implicit"].result.solution
        for name, row in times.items():
            row["ratio_to_direct_1"] = row["median"] / base
            print(
                f"{setting:14s} {name:10s} median {row['median']:8.3f}  min {row['min']:8.3f}  "
                f"max {row['max']:8.3f}  ratio to direct-1 {row['ratio_to_direct_1']:5.2f}"
            )
        print(f"{'':14s} {solution}")
        figures[setting] = times
    publish(figures, options.json)


if __name__ == "__main__":
    main()
