"""DASH: kernel size and dilation of a network's convolutions, by mixtures of candidates."""

from __future__ import annotations

from hwbench.search.dash.cases import Case
from hwbench.search.dash.choice import Chooser
from hwbench.search.dash.cost_model import CostModel, fitted_costs
from hwbench.search.dash.mixture import Mixture
from hwbench.search.dash.module import MixedConv, ResNet1d
from hwbench.search.dash.operators import OPERATORS

__all__ = [
    "OPERATORS",
    "Case",
    "Chooser",
    "CostModel",
    "MixedConv",
    "Mixture",
    "ResNet1d",
    "fitted_costs",
]
