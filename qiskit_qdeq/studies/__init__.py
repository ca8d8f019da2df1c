"""Studies: the paper's tables, its theory and its baselines, made of independent tasks."""
