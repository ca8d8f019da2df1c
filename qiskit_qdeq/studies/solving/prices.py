"""Circuits that a solve and a training step would take on a device, by the plan that runs them there.

    solve   L + Σ evaluations · (1, or 1 + all shifted encoder angles where the solver takes J)     per sample
    step    solve + J at q* + all shifted weights;       probe: K + 2, and K(K+1)/2 for the batch, and no J

An exact simulator runs no circuits; prices are those of the package's prediction for a measured model.
"""

from __future__ import annotations

from dataclasses import dataclass

from qiskit_qdeq.equilibrium.solution import Solution
from qiskit_qdeq.equilibrium.solvers import solver
from qiskit_qdeq.execution.description import Execution
from qiskit_qdeq.execution.running import executed
from qiskit_qdeq.model import QDEQModel
from qiskit_qdeq.studies.solving.cells import LAYERS, Cell, refusal
from qiskit_qdeq.training.config import TrainingConfig
from qiskit_qdeq.training.cost import predicted_evaluation, predicted_step

#: Solvers that take the Jacobian with every evaluation.
_LINEARIZE = frozenset({"newton", "scipy:hybr", "scipy:lm"})


@dataclass(frozen=True)
class Prices:
    """Circuits of a model.

    Attributes:
        linearized: of m and J of one sample at one state.
        differentiated: of J and the weight gradient of one sample at its solution.
        weights: of the weight gradient alone.
        probed: of one sample by `probe`, its measured residual included.
        shared: of `probe`, for the whole batch.
    """

    linearized: int
    differentiated: int
    weights: int
    probed: int
    shared: int

    @classmethod
    def of(cls, model: QDEQModel) -> Prices:
        """Of a model that simulates; no circuit is run."""
        newton, broyden, probe = (solver(name) for name in ("newton", "broyden", "probe"))
        with executed(model, Execution("aer", shots=100)) as measured:
            # each prediction holds one circuit for the readout at the solution, which the last step has measured
            linearized = predicted_evaluation(measured, 1, newton, solver_steps=0).circuits - 1
            step = predicted_step(measured, TrainingConfig(solver=broyden), 1, solver_steps=0).circuits
            size, amplitude = model.num_states, not refusal(Cell("probe"), model)
            pairs = size * (size + 1) // 2
            probed = predicted_evaluation(measured, 1, probe).circuits - pairs if amplitude else 0
        differentiated = step - 2
        return cls(linearized, differentiated, differentiated - (linearized - 1), probed, pairs if amplitude else 0)

    def solve(self, cell: Cell, found: Solution) -> float:
        """Of a solve, all samples of `found` together; what rescues Newton counts as evaluations with J."""
        samples = len(found.status)
        if cell.solver == "probe":
            return samples * (self.probed + self._layers(cell)) + self.shared
        price = self.linearized if cell.solver in _LINEARIZE else 1
        return float(found.evaluations.sum()) * price + samples * self._layers(cell)

    def step(self, cell: Cell, found: Solution) -> float:
        """Of a training step, all samples together."""
        rest = self.weights if cell.solver == "probe" else self.differentiated
        return self.solve(cell, found) + len(found.status) * rest

    def _layers(self, cell: Cell) -> int:
        return LAYERS if cell.start == "direct" else 0
