"""Backends: each applies a Recursion to one tile of sample pairs."""
