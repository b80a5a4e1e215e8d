"""How long an operator takes on a device: learnt from times of random cases, kept in a file.

A Gaussian process for each operator, on the logs of what it does and of the case's sizes. The
file holds the times, one a line; a longer fit goes on where a shorter one ended.
"""

from __future__ import annotations

import json
import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwbench.devices.cuda.stream import Stream
from hwbench.errors import PredictorError
from hwbench.search.dash.cases import Case
from hwbench.search.dash.costs import counts, extent
from hwbench.search.dash.mixture import Mixture
from hwbench.search.dash.operators import (
    CROPPED_RESULTS,
    CROPPED_WEIGHTS,
    FOURIER,
    RESULTS,
    WEIGHTS,
)
from hwbench.search.dash.timing import Race

#: Cases are drawn up to so many products of mixed results.
_MOST_PRODUCTS = {"cpu": 1e8, "cuda": 1e11}
_LEAST_CASES, _SLACK_SECONDS = 24, 5.0
#: The fit of a process grows with the cube of its samples.
_MOST_CASES = 200
#: A work that takes longer runs no more rounds.
_LONG_NS = 2e8

#: A measured time: the operator, its case, ns.
Sample = tuple[str, Case, float]


class CostModel:
    """Predicts times of a device from samples of it."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        kinds = {_kind(name) for name, _, _ in samples}
        self._processes = {
            kind: _Process([s for s in samples if _kind(s[0]) == kind]) for kind in sorted(kinds)
        }

    def predict(self, operator: str, case: Case) -> tuple[float, float]:
        """Mean and standard deviation of log ns."""
        return self._processes[_kind(operator)].predict(_features(operator, case))


class _Process:
    """A linear trend and a smooth deviation from it."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import RBF, ConstantKernel, DotProduct, WhiteKernel

        features = np.stack([_features(name, case) for name, case, _ in samples])
        logs = np.log([ns for _, _, ns in samples])
        self._centre, self._scale = features.mean(0), features.std(0)
        self._scale[self._scale == 0] = 1.0
        self._mean = logs.mean()
        kernel = ConstantKernel(1.0) * DotProduct(1.0) + ConstantKernel(0.3) * RBF(3.0, (1, 30))
        self._regressor = GaussianProcessRegressor(kernel + WhiteKernel(0.01), random_state=0)
        with warnings.catch_warnings():  # of scales at their bounds
            warnings.simplefilter("ignore", ConvergenceWarning)
            self._regressor.fit((features - self._centre) / self._scale, logs - self._mean)

    def predict(self, features: NDArray[np.float64]) -> tuple[float, float]:
        scaled = (features - self._centre) / self._scale
        mean, sd = self._regressor.predict(scaled[None], return_std=True)
        return float(mean[0] + self._mean), float(sd[0])


def _kind(operator: str) -> str:
    """Cropping changes the counts, not what is done."""
    return {CROPPED_RESULTS: RESULTS, CROPPED_WEIGHTS: WEIGHTS}.get(operator, operator)


def _features(operator: str, case: Case) -> NDArray[np.float64]:
    found, m = counts(operator, case), case.mixture
    taps, halves = extent(case, operator not in (RESULTS, WEIGHTS))
    sizes = [
        *(found.calls, found.products, 1 + found.transforms, found.moved),
        *(m.c_in / m.groups, m.c_out / m.groups, m.groups, m.stride, case.batch),
        *(math.prod(case.sizes), taps, math.prod(2 * half + 1 for half in halves)),
    ]
    return np.array([*np.log(sizes), m.dims, case.training], float)


def fitted_costs(
    stream: Stream,
    path: Path,
    seconds: float,
    progress: Callable[[float], None] = lambda share: None,
) -> CostModel:
    """The model of a device, from the times in its file and new ones up to so many seconds.

    PredictorError where the file is damaged.
    """
    samples, cases, spent = _kept(path)
    with path.open("a", encoding="utf-8") as file:
        for case in _cases(stream, cases):
            enough = cases >= _LEAST_CASES or spent >= 2 * seconds + _SLACK_SECONDS
            if (enough and spent >= seconds) or cases >= _MOST_CASES:
                break
            start = time.monotonic()
            times = _times(stream, case)
            took = time.monotonic() - start
            # A line of its own, whatever an interruption left at the end.
            file.write(f"\n{json.dumps({'case': asdict(case), 'ns': times, 'seconds': took})}\n")
            file.flush()
            samples += [(name, case, ns) for name, ns in times.items()]
            cases, spent = cases + 1, spent + took
            progress(spent / max(seconds, spent))
    return CostModel(samples)


def _kept(path: Path) -> tuple[list[Sample], int, float]:
    """Samples, cases and seconds in a file."""
    samples: list[Sample] = []
    cases, spent = 0, 0.0
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            row = json.loads(line)
        except ValueError:  # empty, or cut short by an interruption
            continue
        try:
            case = _case(row["case"])
            samples += [(str(name), case, float(ns)) for name, ns in row["ns"].items()]
            cases, spent = cases + 1, spent + float(row["seconds"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise PredictorError(f"{path} holds no times of DASH ({error}): remove it") from None
    return samples, cases, spent


def _case(row: dict[str, Any]) -> Case:
    mixture = dict(row["mixture"])
    mixture["candidates"] = tuple((int(k), int(d)) for k, d in mixture["candidates"])
    return Case(Mixture(**mixture), int(row["batch"]), tuple(row["sizes"]), bool(row["training"]))


def _times(stream: Stream, case: Case) -> dict[str, float]:
    race, work = Race(stream), case.works(stream.device)
    for name in (FOURIER, *case.dense):
        race.add(name, work(name))
    times = race.run([name for name, ns in race.trial_ns.items() if ns < _LONG_NS], 0.0, 3)
    return {name: times.median_ns(name) for name in race.trial_ns}


def _cases(stream: Stream, skipped: int) -> Iterator[Case]:
    """Random cases of all kinds in turn, always the same ones, without the first."""
    random = np.random.default_rng(2)
    most = _MOST_PRODUCTS[stream.device.type]
    number = 0
    while True:
        case = draw_case(random, 1 + number % 2, number % 4 < 2, most)
        number += 1
        if number > skipped:
            yield case


def draw_case(random: np.random.Generator, dims: int, training: bool, most: float) -> Case:
    """One of those that networks have: log-uniform channels, batch, size; 1 to 25 candidates.

    ``most`` bounds the products of mixed results."""
    while True:
        channels = int(2 ** random.integers(2, 8))
        groups = int(random.choice([1, 1, 1, 4, channels]))
        kernels = 3 + 2 * np.arange(random.integers(1, 6))
        dilations = (
            2 ** np.arange(random.integers(1, 6)) if random.random() < 0.5 else (1, 3, 7, 15)
        )
        mixture = Mixture.grid(
            [int(k) for k in kernels[: 4 if dims == 2 else 5]],
            [int(d) for d in dilations[: int(random.integers(1, 6))]],
            channels,
            channels,
            dims,
            groups,
        )
        batch = int(2 ** random.integers(0, 8))
        size = int(2 ** random.uniform(6, 12)) if dims == 1 else int(2 ** random.uniform(3.3, 6.5))
        case = Case(mixture, batch, (size,) * dims, training)
        pairs = channels * channels / groups
        if batch * pairs * size**dims * mixture.taps <= most:
            return case
