"""Latency of networks that belong to no space: split into kernels, timed a kind at a time.

``sample_networks`` measures what :func:`fit_kernels` learns from; the predictor that it makes
answers for any :class:`~hwbench.graph.Graph`, kernel by kernel.
"""

from __future__ import annotations

from hwbench.predictors.kernels.kernels import Kernel, Rules, split
from hwbench.predictors.kernels.models import KernelTime, NetworkPrediction
from hwbench.predictors.kernels.predictor import (
    KernelMeta,
    KernelPredictor,
    fit_kernels,
    is_kernels,
    load_kernels,
)
from hwbench.predictors.kernels.samples import (
    NetworkSample,
    read_samples,
    sample_networks,
)

__all__ = [
    "Kernel",
    "KernelMeta",
    "KernelPredictor",
    "KernelTime",
    "NetworkPrediction",
    "NetworkSample",
    "Rules",
    "fit_kernels",
    "is_kernels",
    "load_kernels",
    "read_samples",
    "sample_networks",
    "split",
]
