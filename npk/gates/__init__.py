"""A path graph and samples give the gates: what is recorded, the table, its store."""
