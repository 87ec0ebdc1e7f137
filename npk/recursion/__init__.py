"""A path graph becomes a recursion that a backend can apply to pairs of samples."""
