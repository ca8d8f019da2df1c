"""Times the peers' training steps: every peer in a process of its own, in a virtual environment of its own.

Run it, or import ``measure_peers`` (everything at once), ``measure_peer`` (one peer, one setting) or ``PeerProcess`` (a
peer that stays warm, so that its steps can be timed in turns with someone else's).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import venv as virtual_environment
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

HERE = Path(__file__).resolve().parent
SETTINGS = ("amplitude-4", "angle-4", "amplitude-10", "angle-10")
NOTES = {
    "pennylane_torch": "PennyLane default.qubit (broadcast, backprop) + PyTorch + TorchDEQ, every sample simulated",
    "torch_unitary": "PyTorch by hand, the unitary's reachable columns built once per step, complex64",
    "tensorcircuit_unitary": "TensorCircuit-NG + JAX jit, unitary shared and applied in every solver step, complex64",
    "tensorcircuit_jax": (
        "TensorCircuit-NG + JAX jit with this project's closed-form reformulation, i.e. its mathematics in JAX "
        "(ratio of quadratics for amplitude, Pauli/Bloch coefficients for angle; exact linear backward solve), complex64"
    ),
}
PEERS = tuple(NOTES)
WARM_UP = 5
SECONDS_PER_PEER = 40.0
LOSS_TOLERANCE = 1e-3


def measure_peers(
    venv: Path, settings: Sequence[str], steps: int, threads: int, batch: int, peers: Sequence[str] = PEERS
) -> dict[str, dict[str, dict[str, Any]]]:
    """Measure peers one after the other in every setting: peer -> setting -> what ``measure_peer`` returns."""
    results: dict[str, dict[str, dict[str, Any]]] = {peer: {} for peer in peers}
    for setting in settings:
        for peer in peers:
            results[peer][setting] = measure_peer(venv, peer, setting, steps, threads, batch)
    return results


def measure_peer(venv: Path, peer: str, setting: str, steps: int, threads: int, batch: int) -> dict[str, Any]:
    """Measure one peer in one setting, in a fresh process.

    Args:
        venv: Folder of the virtual environment; made and filled if need be.
        peer: One of ``PEERS``.
        setting: One of ``SETTINGS``.
        steps: Training steps to time after the warm-up; fewer, but at least 3, where they would take too long.
        threads: Threads of the peer.
        batch: Samples of the minibatch.

    Returns:
        ``ms_per_step`` (median), ``ms_min``, ``ms_max``, ``steps`` timed, ``compile_s`` (building and first step beyond a
        usual step), ``loss`` and ``residual`` (mean relative residual of the solved batch) at the initial parameters,
        and ``note``.
    """
    with PeerProcess(venv, peer, setting, threads, batch) as process:
        first = process.time(1)
        usual = statistics.median(process.time(WARM_UP)) if first[0] < 1e3 * SECONDS_PER_PEER / 20 else first[0]
        times = process.time(min(steps, max(3, int(1e3 * SECONDS_PER_PEER / usual))))
        return process.summary(times)


class PeerProcess:
    """A peer in a process of its own: compiled and ready on entering the context, ended on leaving it.

    Attributes:
        initial: ``loss`` and ``residual`` at the initial parameters and ``first_step_s``.
    """

    def __init__(self, venv: Path, peer: str, setting: str, threads: int, batch: int, solver_steps: int = 10) -> None:
        if peer not in PEERS:
            raise ValueError(f"peer={peer!r} is unknown; choose one of {', '.join(PEERS)}.")
        if setting not in SETTINGS:
            raise ValueError(f"setting={setting!r} is unknown; choose one of {', '.join(SETTINGS)}.")
        self.peer, self.setting = peer, setting
        options = {"setting": setting, "threads": threads, "batch": batch, "solver-steps": solver_steps}
        flags = [f"--{name}={value}" for name, value in options.items()]
        self._command = [str(prepare(venv)), str(HERE / f"{peer}.py"), *flags]
        self._environment = environment(threads)

    def __enter__(self) -> PeerProcess:
        self._errors = tempfile.TemporaryFile(mode="w+", encoding="utf-8", errors="replace")
        self._process = subprocess.Popen(
            self._command,
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        try:
            self.initial: dict[str, float] = self._answer()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def time(self, steps: int) -> list[float]:
        """Take ``steps`` training steps; milliseconds of each."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{steps}\n")
        self._process.stdin.flush()
        times: list[float] = self._answer()
        return times

    def summary(self, times: Sequence[float]) -> dict[str, Any]:
        """The result of ``measure_peer`` from the milliseconds of timed steps."""
        median = statistics.median(times)
        return {
            "ms_per_step": median,
            "ms_min": min(times),
            "ms_max": max(times),
            "steps": len(times),
            "compile_s": max(0.0, self.initial["first_step_s"] - median / 1e3),
            "loss": self.initial["loss"],
            "residual": self.initial["residual"],
            "note": NOTES[self.peer],
        }

    def _end(self) -> None:
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if line:
            return json.loads(line)
        self._process.wait()
        self._errors.seek(0)
        tail = "".join(self._errors.readlines()[-15:])
        raise RuntimeError(f"peer {self.peer} in setting {self.setting} ended without an answer:\n{tail}")


def prepare(venv: Path) -> Path:
    """Make the virtual environment and install the pinned peers, unless that is done; path of its interpreter."""
    python = venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    wanted = (HERE / "requirements.txt").read_text(encoding="utf-8")
    stamp = venv / "installed-peers.txt"
    if python.exists() and stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return python
    if not python.exists():
        virtual_environment.create(venv, with_pip=True)
    subprocess.run([python, "-m", "pip", "install", "--quiet", "-r", HERE / "requirements.txt"], check=True)
    stamp.write_text(wanted, encoding="utf-8")
    return python


def environment(threads: int) -> dict[str, str]:
    """Environment of a peer: its threads, which XLA takes from NPROC, and the CPU as the only device."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "XLA_", "JAX_"))}
    counts = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NPROC")
    # OpenMP's threads spin for long while they wait, which makes PyTorch many times slower where other processes want
    # the cores; a short spin costs nothing where none do. The hash seed decides opt_einsum's contraction path.
    short_spin = {"GOMP_SPINCOUNT": "20000"}
    fixed = {"PYTHONHASHSEED": "0", "JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    return short_spin | kept | dict.fromkeys(counts, str(threads)) | fixed


def one_application_losses(
    venv: Path, settings: Sequence[str], threads: int, batch: int, peers: Sequence[str] = PEERS
) -> dict[str, dict[str, float]]:
    """Setting -> peer -> loss of a single application of m from zero, which no solver's last digits can change."""
    losses: dict[str, dict[str, float]] = {setting: {} for setting in settings}
    for setting in settings:
        for peer in peers:
            with PeerProcess(venv, peer, setting, threads, batch, solver_steps=0) as process:
                losses[setting][peer] = process.initial["loss"]
    return losses


def agreement(losses: dict[str, dict[str, float]]) -> dict[str, dict[str, Any]]:
    """For every setting, how far the peers' losses at the initial parameters lie apart."""
    spreads = {setting: max(found.values()) - min(found.values()) for setting, found in losses.items() if found}
    return {
        setting: {"largest_difference": spread, "agree": spread <= LOSS_TOLERANCE, "losses": losses[setting]}
        for setting, spread in spreads.items()
    }


def table(results: dict[str, dict[str, dict[str, Any]]]) -> str:
    """Results as text, one line per setting and peer."""
    lines = [f"{'setting':13} {'peer':22} {'ms/step':>9} {'min':>9} {'max':>9} {'steps':>5} {'compile s':>9}"]
    lines[0] += f" {'loss':>9} {'residual':>9}"
    for setting in SETTINGS:
        for peer, settings in results.items():
            if setting in settings:
                r = settings[setting]
                numbers = f"{r['ms_per_step']:9.2f} {r['ms_min']:9.2f} {r['ms_max']:9.2f} {r['steps']:5d}"
                tail = f"{r['compile_s']:9.1f} {r['loss']:9.5f} {r['residual']:9.1e}"
                lines.append(f"{setting:13} {peer:22} {numbers} {tail}")
    return "\n".join(lines)


def default_venv() -> Path:
    """Folder in the user's cache."""
    if os.name == "nt":
        cache = Path(os.environ.get("LOCALAPPDATA", tempfile.gettempdir()))
    else:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "qiskit-qdeq" / "peers-venv"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the chosen peers, print a table and write JSON."""
    parser = argparse.ArgumentParser(description="Time the QDEQ training step of other stacks.")
    parser.add_argument("--venv", type=Path, default=default_venv(), help="virtual environment of the peers")
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=PEERS)
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=SETTINGS)
    parser.add_argument("--steps", type=int, default=30, help="training steps to time (default 30)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--check", action="store_true", help="also compare losses without a solver")
    parser.add_argument("--json", type=Path, help="file to write the results to")
    chosen = parser.parse_args(arguments)
    results = measure_peers(chosen.venv, chosen.settings, chosen.steps, chosen.threads, chosen.batch, chosen.peers)
    print(table(results))
    solved = {s: {peer: results[peer][s]["loss"] for peer in chosen.peers} for s in chosen.settings}
    agreements = {"at the equilibrium": agreement(solved)}
    if chosen.check:
        once = one_application_losses(chosen.venv, chosen.settings, chosen.threads, chosen.batch, chosen.peers)
        agreements["after one application"] = agreement(once)
    for where, reports in agreements.items():
        for setting, report in reports.items():
            verdict = "agree" if report["agree"] else "differ"
            print(f"{setting}: initial losses {where} {verdict} (by {report['largest_difference']:.1e})")
    if chosen.json:
        pins = (HERE / "requirements.txt").read_text(encoding="utf-8").splitlines()
        record = {
            "threads": chosen.threads,
            "batch": chosen.batch,
            "versions": dict(line.split("==") for line in pins if "==" in line),
            "peers": results,
            "initial_losses": agreements,
        }
        chosen.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
