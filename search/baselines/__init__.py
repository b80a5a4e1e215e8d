"""What PNAG is held against: searches over the same evaluator, oracle and ledger.

Each gives all that it scored (:class:`~hwbench.search.scoring.Scored`); what it answers to a budget
is the best of that within it.
"""

from __future__ import annotations

from hwbench.search.baselines.evolution import evolve
from hwbench.search.baselines.nsga2 import nsga2
from hwbench.search.baselines.plain import every_one, random_pool

__all__ = ["every_one", "evolve", "nsga2", "random_pool"]
