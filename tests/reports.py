"""A demo's report made up for tests: 300 architectures profiled, 100 predicted, three budgets."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hwbench.predictors.metrics import metrics
from hwbench.records import Fingerprint
from hwbench.spaces import get_space
from hwbench.spaces.design import spread_sample
from hwbench.watch.page import Budget, DemoReport, Evaluation, Profile, Stage, Tried
from tests.measurements import epoch


def demo_report(**changes: Any) -> DemoReport:
    """A report as the demo makes it; ``changes`` replace fields."""
    rng = np.random.default_rng(7)
    profile = _profile(rng, 300)
    fields: dict[str, Any] = {
        "title": "Latency budgets on this CPU",
        "created": "2026-01-31T12:00:00+00:00",
        "command": "hwbench demo -n 300",
        "space": "ofa_mbv3",
        "fingerprint": Fingerprint(
            "cpu",
            {
                "cpu_model": "AMD EPYC 9R14",
                "cores": "0-1",
                "smt": "off",
                "governor": "unknown",
                "caches": "L1 Data 32K, L1 Instruction 32K, L2 Unified 1024K, L3 Unified 32768K",
                "onnxruntime": "1.31.0",
                "kernel": "6.1.0-28-amd64",
                "cpu_flags": "0f5c3d5b9ac84b6f8f5b6e1d0a3c2b41",
            },
            {"load_1min": "0.42", "steal_share": "0.00017", "temperature_c": "unknown"},
        ),
        "epoch": epoch(),
        "profile": profile,
        "evaluation": _evaluation(rng, 100, profile),
        "budgets": _budgets(rng),
        "stages": (
            Stage("calibrate the canaries", 14.2),
            Stage("profile 300 architectures", 198.4),
            Stage("fit the predictor", 3.1),
            Stage("measure 100 more to judge it", 71.9),
            Stage("search under three budgets", 0.8),
            Stage("measure the winners", 12.6),
        ),
    }
    return DemoReport(**fields | changes)


class Sample(NamedTuple):
    """Architectures with the latency that this made-up CPU gives them."""

    texts: list[str]
    macs: NDArray[np.int64]
    resolution: NDArray[np.int64]
    latency_ms: NDArray[np.float64]


def _sample(rng: np.random.Generator, n: int) -> Sample:
    """MACs alone do not tell the latency: deep networks of large kernels take longer."""
    space = get_space("ofa_mbv3")
    codes = spread_sample(space, n, rng)
    macs, texts = space.macs(codes), space.decode(codes)
    resolution = np.array([int(text.split()[0].removeprefix("r")) for text in texts])
    sevens = np.array([text.split()[2].count("7") for text in texts])
    latency = 1.5 + 0.021 * macs / 1e6 + 0.15 * sevens * (resolution / 128) ** 2
    return Sample(texts, macs, resolution, latency * np.exp(rng.normal(0, 0.012, n)))


def _budgets(rng: np.random.Generator) -> tuple[Budget, ...]:
    """Two kept, and the one between them broken."""
    pool = _sample(rng, 2000)
    found = []
    for budget, used in ((8.0, 0.985), (13.5, 1.008), (19.0, 0.975)):
        fits = np.flatnonzero(pool.latency_ms < 0.97 * budget)
        best = fits[np.argmax(pool.macs[fits])]
        measured = used * budget
        found.append(
            Budget(
                budget_ms=budget,
                architecture=pool.texts[best],
                macs=int(pool.macs[best]),
                predicted_ms=0.97 * budget,
                upper_ms=0.998 * budget,
                confidence=0.98,
                measured_ms=measured,
                low_ms=0.994 * measured,
                high_ms=1.006 * measured,
            )
        )
    return tuple(found)


def _profile(rng: np.random.Generator, n: int) -> Profile:
    sample = _sample(rng, n)
    width = np.abs(rng.normal(0.005, 0.002, n))
    return Profile(
        architectures=sample.texts,
        measured_ms=sample.latency_ms,
        low_ms=sample.latency_ms * (1 - width),
        high_ms=sample.latency_ms * (1 + width),
        macs=sample.macs,
        resolution=sample.resolution,
        tried=Tried(n + 2, n, 7),
    )


def _evaluation(rng: np.random.Generator, n: int, profile: Profile) -> Evaluation:
    """One prediction is far off."""
    sample = _sample(rng, n)
    measured = sample.latency_ms
    predicted = measured * np.exp(rng.normal(0, 0.024, n))
    predicted[5] = 1.13 * measured[5]
    low, high = 0.958 * predicted, 1.042 * predicted
    line = np.polyval(np.polyfit(profile.macs, profile.measured_ms, 1), sample.macs)
    constant = np.full(n, np.median(profile.measured_ms))
    return Evaluation(
        architectures=sample.texts,
        measured_ms=measured,
        predicted_ms=predicted,
        low_ms=low,
        high_ms=high,
        scores={
            "hwbench": metrics(measured, predicted, low, high),
            "line through MACs": metrics(measured, line, 0.8 * line, 1.2 * line),
            "constant": metrics(measured, constant, 0.4 * constant, 1.7 * constant),
        },
        tried=Tried(n, n, 0),
    )
