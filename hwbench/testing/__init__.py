"""Conformance suites: prove that an extension of yours keeps the contract of its kind.

Each is a function to call from a test of your own; it raises AssertionError with what is
broken. One file a suite: ``from hwbench.testing.spaces import check_space``.
"""
