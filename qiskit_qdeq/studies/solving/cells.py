"""The cells of the solver study, solver × start × tolerance × backward mode, and why some of them are none."""

from __future__ import annotations

from dataclasses import dataclass, replace

from qiskit_qdeq.equilibrium.solvers import Solver, solver
from qiskit_qdeq.evaluation.probe import refuse_other_encoders
from qiskit_qdeq.exceptions import InputError
from qiskit_qdeq.gradient.implicit import Backward
from qiskit_qdeq.model import QDEQModel
from qiskit_qdeq.training.config import TrainingConfig

SOLVERS = ("newton", "broyden", "anderson", "picard", "probe", "scipy:hybr", "scipy:krylov", "scipy:df-sane")
TOLERANCES = (1e-2, 1e-4, 1e-6, 1e-9)
#: L of start "direct".
LAYERS = 2


@dataclass(frozen=True, order=True)
class Cell:
    """One way to solve and to differentiate; its defaults are the package's."""

    solver: str
    start: str = "zeros"
    tol: float = 1e-6
    backward: str = "exact"

    @property
    def is_scipy(self) -> bool:
        """Whether SciPy solves, one sample at a time."""
        return self.solver.startswith("scipy:")

    def chosen(self) -> Solver:
        """The solver with its tolerance; all else as the package has it."""
        found: Solver = solver(self.solver, tol=self.tol)
        return found

    def config(self, recipe: TrainingConfig) -> TrainingConfig:
        """`recipe` trained in this way.

        Raises:
            InputError: if the package refuses the combination.
        """
        return replace(
            recipe,
            solver=self.chosen(),
            backward=Backward(self.backward, on_failure="accept"),
            start=self.start,
            layers=LAYERS if self.start == "direct" else 1,
        )


def refusal(cell: Cell, model: QDEQModel) -> str:
    """Why the package refuses a cell, in its own words; empty if it does not.

    >>> from qiskit_qdeq import model_config
    >>> refusal(Cell("newton", backward="shine"), model_config("default", 4, 2, 2).build())
    "backward mode 'shine' reuses the inverse of solver 'broyden'"
    """
    try:
        cell.config(TrainingConfig())
        if cell.solver == "probe":
            refuse_other_encoders(model.template.encoder)
    except InputError as error:
        return str(error).partition(", got ")[0]
    return ""
