"""Running circuits: noisy simulators, fake and IBM devices, execution modes, and estimators over them."""
