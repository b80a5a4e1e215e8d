"""Latency predictors: fitted on measurements, calibrated, saved as plain files; the oracle.

A family of your own is a subclass of :class:`LatencyModel` under :func:`register_model`, known
wherever its package is installed by an entry point (:mod:`hwbench.plugins`);
``hwbench.testing.predictors.check_predictor`` proves that it keeps the contract.
"""

from __future__ import annotations

from hwbench.predictors.baselines import Constant, MacsLine
from hwbench.predictors.cost_regression import CostRegression
from hwbench.predictors.data import Prediction, TrainingSet, training_set
from hwbench.predictors.metrics import Metrics
from hwbench.predictors.model import LatencyModel, model_kinds, register_model
from hwbench.predictors.oracle import BudgetOracle, Ledger, Limit
from hwbench.predictors.predictor import (
    LatencyPredictor,
    PredictorMeta,
    Provenance,
    evaluate,
    fit_predictor,
    load_predictor,
)
from hwbench.predictors.selection import most_telling
from hwbench.predictors.sources import Sources, predicted_sources
from hwbench.predictors.table import LatencyTable

__all__ = [
    "BudgetOracle",
    "Constant",
    "CostRegression",
    "LatencyModel",
    "LatencyPredictor",
    "LatencyTable",
    "Ledger",
    "Limit",
    "MacsLine",
    "Metrics",
    "Prediction",
    "PredictorMeta",
    "Provenance",
    "Sources",
    "TrainingSet",
    "evaluate",
    "fit_predictor",
    "load_predictor",
    "model_kinds",
    "most_telling",
    "predicted_sources",
    "register_model",
    "training_set",
]
