"""A small space with decisions under conditions, an oracle and accuracies made up for it."""

from __future__ import annotations

from dataclasses import replace
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from hwbench.graph import Graph
from hwbench.predictors import LatencyPredictor
from hwbench.records import Measurement
from hwbench.spaces.base import Choice, Codes, Decision, Space
from tests.measurements import measurement


class Toy(Space):
    """Up to three layers, each with a width; a second branch, which must not be as wide."""

    why = "both branches are wide"

    def __init__(self) -> None:
        deeper = [("depth", tuple(d for d in (1, 2, 3) if d > i)) for i in range(3)]
        super().__init__(
            "toy",
            [
                Decision("depth", (1, 2, 3)),
                *(Decision(f"w{i}", (2, 4, 8, 16), deeper[i]) for i in range(3)),
                Decision("branch", ("none", "thin", "wide")),
                Decision("mode", ("a", "b"), ("branch", ("thin", "wide"))),
            ],
        )

    def build(self, choice: Choice) -> Graph:
        raise NotImplementedError

    def valid(self, codes: ArrayLike) -> np.ndarray:
        rows = self.check(codes)
        return ~((rows[:, 4] == 2) & (rows[:, 1] == 3))

    def macs(self, codes: ArrayLike) -> np.ndarray:
        rows = self.canonical(codes)
        widths = np.where(self.active(rows)[:, 1:4], 2 ** (rows[:, 1:4] + 1), 0)
        return (100 * widths.sum(axis=1) + 150 * rows[:, 4]).astype(np.int64)


class ToyOracle:
    """Latency from MACs; bounds take 4 % of relative standard deviation. It can measure."""

    def __init__(self, space: Space, error: float = 0.0, seed: int = 0) -> None:
        self.space, self.error, self.seed = space, error, seed
        self.measured: set[bytes] = set()

    def true_ms(self, codes: Codes) -> np.ndarray:
        """What a measurement says: off the prediction by an error of each architecture's own."""
        rows = self.space.canonical(codes)
        own = [np.random.default_rng([self.seed, *row.tolist()]).standard_normal() for row in rows]
        return self._predicted(rows) * np.exp(self.error * np.array(own))

    def latency(self, codes: Codes) -> np.ndarray:
        known = self._known(codes)
        return np.where(known, self.true_ms(codes), self._predicted(codes))

    def upper(self, codes: Codes, confidence: float) -> np.ndarray:
        margin = np.where(self._known(codes), 0, 0.04 * NormalDist().inv_cdf(confidence))
        return self.latency(codes) * (1 + margin)

    def within_limits(self, codes: Codes, confidence: float) -> np.ndarray:
        return np.ones(len(codes), bool)

    def measure(self, codes: Codes) -> None:
        self.measured |= {row.tobytes() for row in self.space.canonical(codes)}

    def _predicted(self, codes: Codes) -> np.ndarray:
        return 1 + self.space.macs(codes) / 500

    def _known(self, codes: Codes) -> np.ndarray:
        return np.array([r.tobytes() in self.measured for r in self.space.canonical(codes)], bool)


def toy_accuracy(codes: Codes) -> np.ndarray:
    """Wider and deeper is better, with less and less to gain; mode b helps a thin branch."""
    toy = Toy()
    rows = toy.canonical(codes)
    size = np.where(toy.active(rows)[:, 1:4], np.log2(2.0 + rows[:, 1:4]), 0).sum(axis=1)
    return 0.6 + 0.3 * np.tanh(size / 4) + 0.03 * (rows[:, 4] == 1) * rows[:, 5]


class Exact:
    """An evaluator that knows."""

    def score(self, codes: Codes) -> np.ndarray:
        return toy_accuracy(codes)


class SlowDevice:
    """A measurer: each network takes so much longer than it was predicted to take, to 1 %."""

    def __init__(self, predictor: LatencyPredictor, beyond: float) -> None:
        self.predictor, self.beyond = predictor, beyond
        self.asked: list[bytes] = []

    def __call__(self, codes: Codes) -> list[Measurement]:
        self.asked += [row.tobytes() for row in codes]
        own = [np.random.default_rng([*row]).uniform(-0.01, 0.01) for row in codes.tolist()]
        ms = self.predictor.predict(codes).mean_ms * (1 + self.beyond + np.array(own))
        found = []
        for text, ns in zip(self.predictor.space.decode(codes), 1e6 * ms, strict=True):
            made = measurement(latency_ns=ns, low_ns=0.999 * ns, high_ns=1.001 * ns)
            found.append(replace(made, workload=replace(made.workload, arch=text)))
        return found
