"""The results store: every measurement with every sample, through SQLAlchemy: SQLite or PostgreSQL.

``from hwbench.store import Store`` loads SQLAlchemy (0.15 s), so a light import path names it
inside the function that needs it. The codecs (:mod:`.arrays`, :mod:`.documents`) load no
database.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hwbench.store.core import CanaryRun, ImportReport, Standing, Store, Sweep

__all__ = ["CanaryRun", "ImportReport", "Standing", "Store", "Sweep"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from hwbench.store import core

        return getattr(core, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
