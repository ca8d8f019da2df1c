"""Solving q = m(x + P q; θ): solvers, starts, solutions and the contraction report."""

from __future__ import annotations

from qiskit_qdeq.equilibrium.contraction import ContractionReport, contraction
from qiskit_qdeq.equilibrium.driver import direct_state, solve
from qiskit_qdeq.equilibrium.scipy_root import ScipyRoot
from qiskit_qdeq.equilibrium.solution import Solution, Status
from qiskit_qdeq.equilibrium.solvers import Anderson, Broyden, Newton, Picard, Solver, solver

__all__ = [
    "Anderson",
    "Broyden",
    "ContractionReport",
    "Newton",
    "Picard",
    "ScipyRoot",
    "Solution",
    "Solver",
    "Status",
    "contraction",
    "direct_state",
    "solve",
    "solver",
]
