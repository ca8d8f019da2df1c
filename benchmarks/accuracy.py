"""Test accuracy of the presets, mean and standard deviation over seeds.

python benchmarks/accuracy.py        digits, 4 and 10 classes, no download

MNIST, Fashion-MNIST and CIFAR-10 are in the tables of `python -m qiskit_qdeq reproduce`.
"""

from __future__ import annotations

import tempfile

import numpy as np
from common import command_line, publish

from qiskit_qdeq.programs.train import main as train

ALL = tuple(range(10))
TASKS = {
    "digits-4": {"data": "digits"},
    "digits-10": {"data": "digits", "classes": ALL},
}


def main() -> None:
    parser = command_line(__doc__ or "")
    parser.add_argument("--tasks", nargs="+", default=["digits-4", "digits-10"], choices=TASKS)
    parser.add_argument("--presets", nargs="+", default=["default", "paper"], choices=("default", "paper"))
    parser.add_argument("--modes", nargs="+", default=["implicit", "direct"], choices=("implicit", "direct"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=None)
    options = parser.parse_args()
    figures = {}
    for task in options.tasks:
        for preset in options.presets:
            for mode in options.modes:
                rows = [_run(task, preset, mode, seed, options) for seed in range(options.seeds)]
                accuracy = [row["test_accuracy"] for row in rows]
                name = f"{task} {preset} {mode}"
                figures[name] = {
                    "test_accuracy": accuracy,
                    "mean": float(np.mean(accuracy)),
                    "std": float(np.std(accuracy)),
                    "residual": float(np.median([row["test_residual"] for row in rows])),
                    "unconverged": float(np.mean([row["test_unconverged"] for row in rows])),
                    "seconds": float(np.mean([row["train_seconds"] for row in rows])),
                    "epochs": rows[0]["epochs"],
                    "num_parameters": rows[0]["num_parameters"],
                }
                row = figures[name]
                print(
                    f"{name:28s} test accuracy {row['mean']:.2%} ± {row['std']:.2%} ({options.seeds} seeds, "
                    f"{row['epochs']} epochs, {row['seconds']:.1f} s each)  residual {row['residual']:.0e}  "
                    f"unconverged {row['unconverged']:.1%}",
                    flush=True,
                )
    publish(figures, options.json)


def _run(task: str, preset: str, mode: str, seed: int, options: object) -> dict:
    arguments = {
        **TASKS[task],
        "preset": preset,
        "mode": mode,
        "seed": seed,
        "quiet": True,
        "no_plots": True,
    }
    if preset == "paper" and mode == "direct":
        arguments["regularization"] = "none"
    if options.epochs:
        arguments["epochs"] = options.epochs
    with tempfile.TemporaryDirectory() as folder:
        return train(None, {**arguments, "output": folder})


if __name__ == "__main__":
    main()
