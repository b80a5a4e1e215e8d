"""PNAG: trained once, then an architecture for any latency budget by inference."""

from __future__ import annotations

from hwbench.search.answering import Generated
from hwbench.search.generator_file import load_generator, save_generator
from hwbench.search.pnag.generator import Generator
from hwbench.search.pnag.search import Costs, require_reachable, train_generator
from hwbench.search.pnag.training import Schedule

__all__ = [
    "Costs",
    "Generated",
    "Generator",
    "Schedule",
    "load_generator",
    "require_reachable",
    "save_generator",
    "train_generator",
]
