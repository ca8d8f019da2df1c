"""Training: optimizers, rate schedules and checkpoints."""
