"""A torch network becomes a path graph: traced, written in plain operators, read by rules."""
