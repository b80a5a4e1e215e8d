"""The space-level predictor: a Bayesian regression on what an architecture costs.

Latency over its median is a linear function of cost totals plus a Gaussian process on the grand
totals (:mod:`.features`), fitted by evidence with Student's t noise (:mod:`.bayes`). Not in log
space: latency is a sum, its logarithm is not. Tail and shape of the noise, and whether single
choices join the features, are chosen by leave-one-out density on the data at hand.

For serving, posterior mean and covariance are folded into the tables: a row of additive terms
holds its part of the mean, of the projections whose squares add up to the variance, and of the
grand totals that the kernel reads. Projections are the principal ones over the space; the rest
of the variance, a percent or so, enters as its average.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

from hwbench.errors import PredictorError
from hwbench.predictors.bayes import Data, Regression, regress
from hwbench.predictors.costs import cost_tables
from hwbench.predictors.data import Prediction, TrainingSet
from hwbench.predictors.features import (
    Basis,
    LoadKernel,
    choice_block,
    cost_basis,
    gaussian_kernel,
    pair_block,
)
from hwbench.predictors.model import LatencyModel, State, register_model
from hwbench.predictors.tables import TableSum, symbol_counts, symbols
from hwbench.spaces import Codes, Space, spread_sample

Array = NDArray[np.float64]

#: Degrees of freedom of the noise that are tried.
_TAILS = (math.inf, 4.0, 2.0)
#: The learned noise is the same for all, or in proportion to the latency.
_POWERS = (0, 1)

_REFERENCE = 1000
_PROJECTIONS = 48
_FUSED_STATES = 2048
_BATCH = 8192

#: A prediction is never below this share of the shortest latency learned from.
_FLOOR = 0.25
"""
"""
