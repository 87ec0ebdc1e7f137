"""Suites that measure many networks, with one table and one page."""
