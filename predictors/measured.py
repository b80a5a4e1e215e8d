"""From stored measurements to what a predictor learns from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hwbench.errors import PredictorError
from hwbench.predictors.data import Array, TrainingSet, training_set
from hwbench.predictors.predictor import Provenance
from hwbench.records import Measurement
from hwbench.spaces import Space

_NS_PER_MS = 1e6
# A two-sided 95 % interval reaches this many standard errors to each side.
_Z95 = 1.96
#: Of a label's error at least this share is its own.
_LEAST_OWN = 0.3


def training_from(space: Space, measurements: Sequence[Measurement]) -> TrainingSet:
    """Architectures of ``space`` with their undisturbed latency and its standard error.

    Measurements without an architecture or without a latency are left out; an inconclusive one
    counts with its own wide error. What a session's measurements have in common is no error of
    one beside another, and told apart; beside those of other sessions it is. PredictorError where
    none is left.
    """
    usable = [m for m in measurements if m.workload.arch is not None and m.latency_ns is not None]
    if not usable:
        raise PredictorError(
            f"no measured architecture of {space.name} to learn from: run hwbench profile first"
        )
    latency = np.array([m.latency_ns for m in usable], float) / _NS_PER_MS
    error = np.array([_half_width(m) for m in usable]) / _Z95
    shared = np.array([m.session_sd for m in usable])
    common = _common([m.session for m in usable]) * shared**2
    own = np.sqrt(np.maximum(error**2 - common, (_LEAST_OWN * error) ** 2))
    codes = space.encode([str(m.workload.arch) for m in usable])
    session_sd = float(np.sqrt(np.mean(shared**2)))
    return training_set(space, codes, latency, latency * own, session_sd=session_sd)


def _common(sessions: Sequence[str]) -> Array:
    """The share of each label's session variance that is no error beside the other labels (n,).

    With a session's share w of the labels, and independent offsets of equal variance, an offset
    stands ``1 - 2 w + sum(w**2)`` of it from the mean of all labels: nothing in one session,
    nearly all of it in many. The rest is common to all.
    """
    _, group, count = np.unique(sessions, return_inverse=True, return_counts=True)
    weight = count / len(sessions)
    return np.asarray((2 * weight - (weight**2).sum())[group])


def provenance_of(measurements: Sequence[Measurement]) -> Provenance:
    """Where these measurements come from; PredictorError where that is not one place."""
    places = {
        (m.fingerprint.key, m.workload.threads, m.workload.options, m.epoch) for m in measurements
    }
    if len(places) != 1:
        raise PredictorError(
            f"the measurements are of {len(places)} environments, thread counts, options or canary "
            "epochs: choose one by --session, --since or --fingerprint"
        )
    first = measurements[0]
    facts = first.fingerprint.facts
    runtime = facts.get("runtime", first.fingerprint.device)
    return Provenance(
        device=first.fingerprint.device,
        fingerprint_key=first.fingerprint.key,
        runtime=f"{runtime} {facts.get(runtime, '')}".strip(),
        threads=first.workload.threads,
        epoch=first.epoch,
        c0_ns=first.canary_ref_ns if first.epoch else (),
        options=first.workload.options,
    )


def _half_width(measurement: Measurement) -> float:
    """Relative half-width of the interval, 0 where there is none."""
    low, high = measurement.low_ns, measurement.high_ns
    if low is None or high is None:
        return 0.0
    if not 0 < low <= high:
        raise PredictorError(
            f"{measurement.workload.name}: an interval from {low} to {high} ns is none: leave "
            "its session out with --session or --since"
        )
    return float(np.log(high / low) / 2)
