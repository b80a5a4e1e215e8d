"""Phones on loopback and small disks, for all tests of this folder."""

from tests.disks import small_disk
from tests.phones import impatient, lent, one, pool

__all__ = ["impatient", "lent", "one", "pool", "small_disk"]
