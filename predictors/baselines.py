"""What a predictor has to beat: the mean of the measurements, and a line through the MACs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from hwbench.predictors.data import Prediction, TrainingSet
from hwbench.predictors.model import LatencyModel, State, register_model
from hwbench.spaces import Codes, Space

#: A line is never below this share of the shortest latency learned from.
_FLOOR = 0.25


@register_model("constant")
@dataclass(frozen=True)
class Constant(LatencyModel):
    """The mean of the training latencies, whatever the architecture."""

    mean_ms: float
    sd_ms: float

    @classmethod
    def fit(cls, space: Space, training: TrainingSet, rng: np.random.Generator) -> Self:
        return cls(float(training.latency_ms.mean()), float(training.latency_ms.std(ddof=1)))

    def predict(self, codes: Codes) -> Prediction:
        return Prediction(np.full(len(codes), self.mean_ms), np.full(len(codes), self.sd_ms))

    def state(self) -> State:
        return {"mean_and_sd": np.array([self.mean_ms, self.sd_ms])}

    @classmethod
    def restore(cls, space: Space, state: State) -> Self:
        mean, sd = map(float, state["mean_and_sd"])
        return cls(mean, sd)


@register_model("macs-line")
@dataclass(frozen=True)
class MacsLine(LatencyModel):
    """Latency as a line over multiply-accumulates, by least squares.

    Small networks may lie where the line is near 0 or below: it ends at ``least_ms``, a quarter of
    the shortest latency learned from.
    """

    space: Space
    intercept_ms: float
    ms_per_mac: float
    sd_ms: float
    least_ms: float = 0.0  # older files do not tell

    @classmethod
    def fit(cls, space: Space, training: TrainingSet, rng: np.random.Generator) -> Self:
        macs = space.macs(training.codes)
        slope, intercept = np.polyfit(macs, training.latency_ms, 1) if np.ptp(macs) else (0.0, 0.0)
        left = training.latency_ms - (intercept + slope * macs)
        line = float(intercept + left.mean()), float(slope), float(left.std(ddof=1))
        return cls(space, *line, _FLOOR * float(training.latency_ms.min()))

    def predict(self, codes: Codes) -> Prediction:
        line = self.intercept_ms + self.ms_per_mac * self.space.macs(codes).astype(np.float64)
        mean_ms = np.maximum(line, self.least_ms)
        return Prediction(mean_ms, np.full(len(codes), self.sd_ms))

    def state(self) -> State:
        line = [self.intercept_ms, self.ms_per_mac, self.sd_ms, self.least_ms]
        return {"line": np.array(line)}

    @classmethod
    def restore(cls, space: Space, state: State) -> Self:
        return cls(space, *map(float, state["line"]))
