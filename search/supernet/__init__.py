"""Supernets: one training, and the accuracy of every architecture of a space."""

from __future__ import annotations

from hwbench.search.supernet.checkpoint import load_supernet, steps_done
from hwbench.search.supernet.extract import StandAlone, extract
from hwbench.search.supernet.net import (
    Supernet,
    largest,
    recalibrated,
    resolution_of,
    smallest,
    to_inputs,
)
from hwbench.search.supernet.place import training_device
from hwbench.search.supernet.training import Progress, TrainingCost, TrainingPlan, train

__all__ = [
    "Progress",
    "StandAlone",
    "Supernet",
    "TrainingCost",
    "TrainingPlan",
    "extract",
    "largest",
    "load_supernet",
    "recalibrated",
    "resolution_of",
    "smallest",
    "steps_done",
    "to_inputs",
    "train",
    "training_device",
]
