"""S2DNAS: a static network becomes a multi-stage one, whose easy inputs leave early.

Names are loaded when first used, so that a process that only runs a deployed network
(:class:`DynamicModel`) never imports torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hwbench.search.s2dnas.costs import StageOracle, mean_latency, on_device
    from hwbench.search.s2dnas.deployment import deploy
    from hwbench.search.s2dnas.dynamic import Answers, DynamicModel
    from hwbench.search.s2dnas.exits import Exits, all_exits
    from hwbench.search.s2dnas.manifest import Manifest, read_manifest
    from hwbench.search.s2dnas.methods import METHODS
    from hwbench.search.s2dnas.net import MultiStageNet
    from hwbench.search.s2dnas.search import Outcome, SplitPlan, search_s2dnas
    from hwbench.search.s2dnas.space import SplitSpace
    from hwbench.search.s2dnas.split import Split
    from hwbench.search.s2dnas.stages import Stage, prefix, stage_graphs
    from hwbench.search.s2dnas.static import StaticNet
    from hwbench.search.s2dnas.tracing import trace
    from hwbench.search.s2dnas.training import StagePlan, recalibrate, stage_logits, train_stages

_HOMES = {
    "Answers": "dynamic",
    "DynamicModel": "dynamic",
    "Exits": "exits",
    "METHODS": "methods",
    "Manifest": "manifest",
    "MultiStageNet": "net",
    "Outcome": "search",
    "Split": "split",
    "SplitPlan": "search",
    "SplitSpace": "space",
    "Stage": "stages",
    "StageOracle": "costs",
    "StagePlan": "training",
    "StaticNet": "static",
    "all_exits": "exits",
    "deploy": "deployment",
    "mean_latency": "costs",
    "on_device": "costs",
    "prefix": "stages",
    "read_manifest": "manifest",
    "recalibrate": "training",
    "search_s2dnas": "search",
    "stage_graphs": "stages",
    "stage_logits": "training",
    "trace": "tracing",
    "train_stages": "training",
}

__all__ = [
    "METHODS",
    "Answers",
    "DynamicModel",
    "Exits",
    "Manifest",
    "MultiStageNet",
    "Outcome",
    "Split",
    "SplitPlan",
    "SplitSpace",
    "Stage",
    "StageOracle",
    "StagePlan",
    "StaticNet",
    "all_exits",
    "deploy",
    "mean_latency",
    "on_device",
    "prefix",
    "read_manifest",
    "recalibrate",
    "search_s2dnas",
    "stage_graphs",
    "stage_logits",
    "trace",
    "train_stages",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
