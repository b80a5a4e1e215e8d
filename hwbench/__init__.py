"""hwbench: measure, predict and keep a latency budget on your own device.

The names below are loaded on first use (PEP 562), so that ``import hwbench`` stays light
enough for a shell completion or a search job's workers.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hwbench.errors import HwbenchError
    from hwbench.graph import Graph, GraphBuilder
    from hwbench.predictors import BudgetOracle, LatencyPredictor, Prediction, load_predictor
    from hwbench.records import Measurement, Workload
    from hwbench.spaces import Space, get_space, space_names
    from hwbench.store import Store

__version__ = "0.1.0"

__all__ = [
    "BudgetOracle",
    "Graph",
    "GraphBuilder",
    "HwbenchError",
    "LatencyPredictor",
    "Measurement",
    "Prediction",
    "Space",
    "Store",
    "Workload",
    "__version__",
    "get_space",
    "load_predictor",
    "space_names",
]

_HOME = {
    "BudgetOracle": "hwbench.predictors",
    "Graph": "hwbench.graph",
    "GraphBuilder": "hwbench.graph",
    "HwbenchError": "hwbench.errors",
    "LatencyPredictor": "hwbench.predictors",
    "Measurement": "hwbench.records",
    "Prediction": "hwbench.predictors",
    "Space": "hwbench.spaces",
    "Store": "hwbench.store",
    "Workload": "hwbench.records",
    "get_space": "hwbench.spaces",
    "load_predictor": "hwbench.predictors",
    "space_names": "hwbench.spaces",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'hwbench' has no attribute {name!r}")
    value: object = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
