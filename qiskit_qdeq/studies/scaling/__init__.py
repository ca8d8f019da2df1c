"""How far a model scales: time, memory and circuits of a training step, and the variance of its gradient."""
