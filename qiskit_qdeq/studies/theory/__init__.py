"""The paper's theory and three first experiments, one module per check; each has `check(setting) -> Finding`."""
