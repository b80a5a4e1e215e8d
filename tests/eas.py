"""Tasks of a small space, with an oracle made up for it: what the tests of EAS share."""

from __future__ import annotations

import numpy as np
import torch

from hwbench.predictors import BudgetOracle, MacsLine, Provenance, fit_predictor
from hwbench.search.eas import Lesson, Task, TaskGroups
from hwbench.search.eas.conditional import ConditionalNet
from hwbench.search.eas.policy import Choices
from hwbench.search.supernet import largest, smallest
from hwbench.testing.predictors import made_up_training
from tests.supernets import bars, tiny_space

SPACE = tiny_space()
FIXED = {"r": 12}
GROUPS = TaskGroups("bars", bars().classes, (Task("flat", (0, 1)), Task("slant", (2, 3))))
SHORT = Lesson(first=30, steps=8, scenarios=2, images=16, kept=16)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def oracle_of(space: object, kind: str | None = MacsLine.kind) -> BudgetOracle:
    place = Provenance("cpu", "a" * 32, "made up", 1)
    return BudgetOracle(fit_predictor(space, made_up_training(space, 40), place, kind=kind))


def one_hot(choices: Choices, codes: np.ndarray) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.from_numpy(codes).long(), choices.shape[1]).float()


def untrained(choices: Choices, seed: int = 0) -> ConditionalNet:
    torch.manual_seed(seed)
    return ConditionalNet(choices, 2, np.array([1.0, 2.0, 4.0]), 1e-3)


def ends(oracle: BudgetOracle) -> tuple[float, float]:
    low, high = oracle.upper(np.stack([smallest(SPACE, FIXED), largest(SPACE, FIXED)]), 0.98)
    return float(low), float(high)
