"""The definition by enumeration, and the network of given gates: the oracles of the tests."""
