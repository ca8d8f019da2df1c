"""Evaluating the model function m(u; θ) and its derivatives."""
