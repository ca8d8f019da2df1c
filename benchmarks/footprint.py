"""Peak memory of a ten-qubit training step and the time of `import qiskit_qdeq` beyond importing qiskit.

python benchmarks/footprint.py [--json FILE]
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
from common import command_line, publish

_STEP = """
import resource, sys
sys.path.insert(0, sys.argv[1])
from common import Step
step = Step(sys.argv[2], preset=sys.argv[3])
for _ in range(3):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""
_IMPORT = (
    "import time; s = time.perf_counter(); import qiskit; a = time.perf_counter(); {}; print(time.perf_counter() - a)"
)


def run(code: str, *arguments: str) -> float:
    words = [sys.executable, "-c", code, *arguments]
    return float(subprocess.run(words, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    options = command_line(__doc__ or "").parse_args()
    here = str(Path(__file__).parent)
    figures = {}
    for preset in ("paper", "default"):
        name = f"peak MiB, amplitude-10, batch 256, preset {preset} (whole process)"
        figures[name] = run(_STEP, here, "amplitude-10", preset)
    for what in ("import qiskit_qdeq", "from qiskit_qdeq import QDEQClassifier, Trainer, solve"):
        times = [run(_IMPORT.format(what)) for _ in range(5)]
        figures[f"seconds beyond import qiskit: {what}"] = float(np.median(times))
    for name, value in figures.items():
        print(f"{value:9.3f}  {name}")
    publish(figures, options.json)


if __name__ == "__main__":
    main()
