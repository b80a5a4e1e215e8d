"""Singular values, also where the fast way does not find them."""

from __future__ import annotations

import numpy as np
import pytest

from hwbench.predictors.linear import thin_svd


@pytest.mark.parametrize("fails", [False, True])
def test_the_parts_make_the_matrix(fails: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_convergence(*_: object, **__: object) -> None:
        raise np.linalg.LinAlgError("SVD did not converge")

    if fails:
        monkeypatch.setattr(np.linalg, "svd", no_convergence)
    matrix = np.random.default_rng(0).standard_normal((9, 4))
    u, size, v = thin_svd(matrix)
    assert (u.shape, size.shape, v.shape) == ((9, 4), (4,), (4, 4))
    assert u * size @ v == pytest.approx(matrix)
    assert size.tolist() == sorted(size, reverse=True)
