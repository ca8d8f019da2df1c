"""The package's programs: what `python -m qiskit_qdeq` runs and runtime_programs/ makes importable."""
