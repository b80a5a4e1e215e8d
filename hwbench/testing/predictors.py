"""``check_predictor``: what every predictor family must do, tried on made-up latencies."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hwbench.errors import HwbenchError, UsageError
from hwbench.predictors import (
    LatencyModel,
    LatencyPredictor,
    Provenance,
    TrainingSet,
    fit_predictor,
    load_predictor,
    training_set,
)
from hwbench.spaces import Codes, Space, get_space

#: Predictions of one architecture may differ by rounding between one batch and another.
_ROUNDING = 1e-5

Array = NDArray[np.float64]


def check_predictor(
    family: str | type[LatencyModel],
    *,
    space: Space | None = None,
    training: TrainingSet | None = None,
    seed: int = 0,
) -> None:
    """Raise AssertionError unless a registered ``family`` keeps the contract.

    The family is its class, or the name that it is registered by. It is fitted on ``training``,
    measurements of ``space``; by default 40 networks of ``mbv3_small``, with latencies that MACs
    explain for the most part. UsageError where it is not registered.
    """
    kind = family if isinstance(family, str) else getattr(family, "kind", None)
    if not isinstance(kind, str):
        called = getattr(family, "__name__", repr(family))
        raise UsageError(
            f"{called} is no registered predictor family: decorate the class with "
            "@register_model(NAME), and give the class or that name"
        )
    space = get_space("mbv3_small") if space is None else space
    training = made_up_training(space, 40, seed) if training is None else training
    codes = space.sample(64, np.random.default_rng(seed + 1))
    provenance = Provenance("check", "0" * 32, "no runtime", 1)
    predictor = fit_predictor(space, training, provenance, seed=seed, kind=kind)
    again = fit_predictor(space, training, provenance, seed=seed, kind=kind)
    _require(_same(predictor, again, codes), f"{kind}: two fits of one seed differ")
    _check_predictions(kind, predictor, codes)
    _check_bounds(kind, predictor, codes)
    _check_codes(kind, predictor, codes, seed)
    _check_files(kind, predictor, codes)


def made_up_training(space: Space, n: int, seed: int = 0) -> TrainingSet:
    """Latencies of ``n`` random architectures: about linear in MACs, with 2 % of noise."""
    rng = np.random.default_rng(seed)
    codes = space.sample(n, rng)
    macs = space.macs(codes).astype(np.float64)
    latency = (0.2 + macs / macs.mean()) * np.exp(0.02 * rng.standard_normal(n))
    return training_set(space, codes, latency, 0.02 * latency)


def _check_predictions(kind: str, predictor: LatencyPredictor, codes: Codes) -> None:
    before = codes.copy()
    whole = predictor.predict(codes)
    _require(np.array_equal(before, codes), f"{kind}: predict changes its argument")
    for name, values in (("mean_ms", whole.mean_ms), ("sd_ms", whole.sd_ms)):
        _require(
            values.shape == (len(codes),) and values.dtype == np.float64,
            f"{kind}: {name} is {values.dtype} {values.shape}, not float64 ({len(codes)},)",
        )
        _require(bool(np.isfinite(values).all()), f"{kind}: {name} is not finite")
    _require(bool((whole.sd_ms > 0).all()), f"{kind}: sd_ms is not positive")
    backwards = predictor.predict(codes[::-1])
    one = predictor.predict(codes[:1])
    _require(
        _close(backwards.mean_ms[::-1], whole.mean_ms) and _close(one.mean_ms, whole.mean_ms[:1]),
        f"{kind}: a prediction depends on the others of its batch",
    )
    _require(len(predictor.predict(codes[:0])) == 0, f"{kind}: no codes give predictions")


def _check_bounds(kind: str, predictor: LatencyPredictor, codes: Codes) -> None:
    levels = (0.5, 0.8, 0.9, 0.98, 0.999)
    bounds = np.stack([predictor.upper(codes, level) for level in levels])
    _require(bool((np.diff(bounds, axis=0) >= 0).all()), f"{kind}: bounds fall with confidence")
    low, high = predictor.interval(codes, 0.9)
    _require(bool((low <= high).all()), f"{kind}: an interval ends before it begins")


def _check_codes(kind: str, predictor: LatencyPredictor, codes: Codes, seed: int) -> None:
    space = predictor.space
    noise = np.random.default_rng(seed).integers(0, space.cardinalities, codes.shape, np.int16)
    raw = np.where(space.active(codes), codes, noise)
    _require(
        _close(predictor.predict(raw).mean_ms, predictor.predict(codes).mean_ms),
        f"{kind}: a decision that is not there changes the prediction",
    )
    for what, wrong in (
        ("codes as floats", codes.astype(float)),
        ("codes with a column too many", np.concatenate([codes, codes[:, :1]], axis=1)),
        ("codes out of range", codes + np.asarray(space.cardinalities)),
    ):
        try:
            predictor.predict(wrong)
        except UsageError:
            continue
        except HwbenchError as error:
            raise AssertionError(f"{kind}: {what}: not a UsageError") from error
        raise AssertionError(f"{kind} takes {what}")


def _check_files(kind: str, predictor: LatencyPredictor, codes: Codes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "check.hwp"
        predictor.save(path)
        loaded = load_predictor(path, space=predictor.space)
    _require(loaded.meta == predictor.meta, f"{kind}: the file changes the metadata")
    _require(_same(predictor, loaded, codes), f"{kind}: a loaded predictor predicts otherwise")


def _same(one: LatencyPredictor, other: LatencyPredictor, codes: Codes) -> bool:
    a, b = one.predict(codes), other.predict(codes)
    return (
        np.array_equal(a.mean_ms, b.mean_ms)
        and np.array_equal(a.sd_ms, b.sd_ms)
        and np.array_equal(one.upper(codes, 0.9), other.upper(codes, 0.9))
    )


def _close(one: Array, other: Array) -> bool:
    return bool(np.allclose(one, other, rtol=_ROUNDING, atol=0))


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise AssertionError(message)
