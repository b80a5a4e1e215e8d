from __future__ import annotations
from hwbench.cli.options import Debug, Json, StoreUrl
from hwbench.errors import HwbenchError


def evaluate(store: StoreUrl = None, as_json: Json = False, debug: Debug = False) -> None:
    """X.

    Example:

    hwbench evaluate
    """
    raise HwbenchError("evaluate is not built yet")
