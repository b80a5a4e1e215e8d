"""DASH: kernel size and dilation of a network's convolutions, by mixtures of candidates."""

from __future__ import annotations

from hwbench.search.dash.backbones import Backbone, backbone_for, resnet1d, wide_resnet
from hwbench.search.dash.cases import Case
from hwbench.search.dash.choice import Chooser
from hwbench.search.dash.cost_model import CostModel, fitted_costs
from hwbench.search.dash.mixture import Mixture
from hwbench.search.dash.module import MixedConv
from hwbench.search.dash.operators import OPERATORS
from hwbench.search.dash.search import DashPlan, Outcome, search_dash
from hwbench.search.dash.swap import decoded, eligible, mixed
from hwbench.search.dash.tasks import Task, load_task, make_task
from hwbench.search.dash.training import FitPlan
from hwbench.search.dash.tuning import Tuning

__all__ = [
    "OPERATORS",
    "Backbone",
    "Case",
    "Chooser",
    "CostModel",
    "DashPlan",
    "FitPlan",
    "MixedConv",
    "Mixture",
    "Outcome",
    "Task",
    "Tuning",
    "backbone_for",
    "decoded",
    "eligible",
    "fitted_costs",
    "load_task",
    "make_task",
    "mixed",
    "resnet1d",
    "search_dash",
    "wide_resnet",
]
