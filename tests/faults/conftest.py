"""Phones on loopback, for all tests of this folder."""

from tests.phones import impatient, lent, one, pool

__all__ = ["impatient", "lent", "one", "pool"]
