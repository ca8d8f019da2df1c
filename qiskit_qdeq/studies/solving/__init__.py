"""Which solver and which start pay, and what tolerance and backward mode change: the science of the solver study."""
