"""Singular values that are found for every matrix."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

Floats = NDArray[np.float64]


def thin_svd(matrix: Floats) -> tuple[Floats, Floats, Floats]:
    """u (n, r), sizes (r,) and v (r, m) of a matrix (n, m), r the lesser of both.

    By divide and conquer, which is fast, and fails on one sound matrix in some thousands; by QR
    where it does.
    """
    try:
        u, size, v = np.linalg.svd(matrix, full_matrices=False)
    except np.linalg.LinAlgError:
        u, size, v = linalg.svd(matrix, full_matrices=False, lapack_driver="gesvd")
    return u, size, v
