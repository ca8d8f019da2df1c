"""Quantum Deep Equilibrium Models, trained natively in Qiskit."""

__version__ = "0.1.0"
