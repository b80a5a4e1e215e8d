"""Made-up bursts beside made-up canaries: a machine, its neighbours, and a model of ``U`` ns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hwbench.measure.estimate import (
    KINDS,
    Estimate,
    Evidence,
    Sensitivity,
    prior_sensitivity,
    undisturbed,
)

Array = NDArray[np.float64]

U = 3.0e6
LOG_U = float(np.log(U))
K = len(KINDS)
READING_NOISE = np.full(K, 0.005)
#: Of a model that fits the caches.
PRIOR = prior_sensitivity(1_500_000, U)


@dataclass(frozen=True)
class Bursts:
    """What an estimate is given."""

    log_time: Array
    state: Array
    process: NDArray[np.int64]
    noise_sd: Array | None = None
    prior: Sensitivity = PRIOR

    @property
    def evidence(self) -> Evidence:
        return Evidence(self.log_time, self.state, self.process, self.prior, noise_sd=self.noise_sd)

    def estimate(self) -> Estimate:
        return undisturbed(self.evidence)

    def error(self) -> float:
        """Relative (log) error of the estimate."""
        return self.estimate().log_latency - LOG_U


@dataclass(frozen=True)
class Machine:
    """A way in which a model's bursts come about.

    ``share`` of the bursts meet a neighbour that slows the canaries by up to ``load`` (log),
    those of the later kinds by half as much again, and the model by ``beta`` times that: the
    first for the first kind, the second shared by the others. ``noise`` is the shape of what the
    canaries do not see, of standard deviation ``burst_sd``. Processes differ by ``process_sd``, and
    whole sessions by ``session_sd`` more.
    """

    noise: Literal["normal", "lognormal", "two modes", "delays", "autocorrelated"] = "normal"
    processes: int = 8
    bursts: int = 10
    burst_sd: float = 0.01
    process_sd: float = 0.004
    session_sd: float = 0.0
    load: float = 0.0
    share: float = 0.8
    beta: tuple[float, float] = (1.0, 0.05)

    @property
    def _beta(self) -> Array:
        compute, other = self.beta
        return np.array([compute, *[other / (K - 1)] * (K - 1)])

    def draw(self, rng: np.random.Generator) -> Bursts:
        times, states = [], []
        session = self.session_sd * rng.standard_normal() if self.session_sd else 0.0
        for _ in range(self.processes):
            busy = (rng.random((self.bursts, 1)) < self.share) * rng.uniform(0.5, 1)
            state = np.abs(rng.normal(0, 0.005, (self.bursts, K)))
            state[:, :1] += self.load * busy
            state[:, 1:] += 1.5 * self.load * busy
            level = LOG_U + session + rng.normal(0, self.process_sd)
            times.append(level + state @ self._beta + self.burst_sd * self._shape(rng))
            states.append(state + READING_NOISE * rng.standard_normal(state.shape))
        return Bursts(
            np.concatenate(times),
            np.concatenate(states),
            np.repeat(np.arange(self.processes), self.bursts),
            READING_NOISE,
        )

    def _shape(self, rng: np.random.Generator) -> Array:
        """Noise whose level (the median, or the mode of two) is 0."""
        normal = rng.standard_normal(self.bursts)
        if self.noise == "lognormal":
            return np.asarray(np.exp(0.8 * normal) - 1) / 1.5
        if self.noise == "two modes":
            return np.asarray(np.where(rng.random(self.bursts) < 0.15, 3.0, 0.0) + 0.5 * normal)
        if self.noise == "delays":  # a third of the bursts, by a tenth in the mean
            met = rng.random(self.bursts) < 1 / 3
            return normal + np.where(met, rng.exponential(0.1 / self.burst_sd, self.bursts), 0)
        if self.noise == "autocorrelated":
            for i in range(1, self.bursts):
                normal[i] = 0.8 * normal[i - 1] + 0.6 * normal[i]
        return normal


def quiet(rng: np.random.Generator, processes: int = 8, bursts: int = 10) -> Bursts:
    return Machine(processes=processes, bursts=bursts, process_sd=0.002, burst_sd=0.005).draw(rng)
