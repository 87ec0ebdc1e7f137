"""A path graph and samples give the gates: the tie rule, the table, its store."""
