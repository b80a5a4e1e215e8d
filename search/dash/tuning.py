"""From a network to one that is trained: hyper-parameters by validation, then all of the steps.

What was searched and what it is held against go through here alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path

from torch import nn

from hwbench.records import digest
from hwbench.search.dash.swap import renewed
from hwbench.search.dash.tasks import Task
from hwbench.search.dash.training import DivergedError, FitPlan, fit, mean_error
from hwbench.search.resuming import Keep

Tell = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class Tuning:
    """Learning rates and weight decays, each pair tried for ``steps``."""

    rates: tuple[float, ...] = (0.3, 0.1, 0.03)
    decays: tuple[float, ...] = (5e-4, 5e-6)
    steps: int = 50


@dataclass(frozen=True, slots=True, eq=False)
class Finished:
    """A trained network: the plan that won, its error on validation samples, what it all cost."""

    net: nn.Module
    plan: FitPlan
    error: float
    tuning_seconds: float
    training_seconds: float

    @property
    def seconds(self) -> float:
        """Of the CPU, in all."""
        return self.tuning_seconds + self.training_seconds


def finish(
    net: nn.Module,
    task: Task,
    plan: FitPlan,
    tuning: Tuning,
    folder: Path | None = None,
    progress: Tell = lambda what, share: None,
) -> Finished:
    """Train a network, from weights drawn by the plan's seed, by the hyper-parameters that a short
    training of each tells to be best on validation samples.

    In ``folder`` it goes on where it was. DivergedError where none leads to numbers.
    """
    plans = [
        replace(plan, learning_rate=rate, weight_decay=decay)
        for rate, decay in product(tuning.rates, tuning.decays)
    ]
    best, least, tuned = plans[0], math.inf, 0.0
    for i, each in enumerate(plans):
        progress("hyper-parameters", i / len(plans))
        error, seconds = tried(net, task, replace(each, steps=tuning.steps), folder)
        tuned += seconds
        if error < least:
            best, least = each, error
    if math.isinf(least):
        raise DivergedError(f"no learning rate of {tuning.rates} leads to numbers: give lower ones")
    seconds = fit(
        renewed(net, plan.seed),
        task,
        best,
        _keep(folder, net, best),
        lambda share: progress("training", share),
    )
    return Finished(net, best, mean_error(net, task, task.validation), tuned, seconds)


def tried(
    net: nn.Module,
    task: Task,
    plan: FitPlan,
    folder: Path | None = None,
) -> tuple[float, float]:
    """Error on validation samples, infinite if training diverges, and CPU seconds of a training."""
    try:
        seconds = fit(renewed(net, plan.seed), task, plan, _keep(folder, net, plan))
    except DivergedError:
        return math.inf, 0.0
    return mean_error(net, task, task.validation), seconds


def _keep(folder: Path | None, net: nn.Module, plan: FitPlan) -> Keep | None:
    if folder is None:
        return None
    about = digest([str(net), asdict(plan)])
    return Keep(folder / f"fit-{about[:12]}.pt", about)
