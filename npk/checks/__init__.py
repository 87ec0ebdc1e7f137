"""Checks of the theory on a network: each measures, compares with a stated tolerance, and returns a
frozen result.
"""
