"""Checks of the theory on a network: each compares with a tolerance and returns a frozen result."""
