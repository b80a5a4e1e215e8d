from __future__ import annotations
from hwbench.cli.options import Debug, Json, StoreUrl
from hwbench.errors import HwbenchError


def predict(store: StoreUrl = None, as_json: Json = False, debug: Debug = False) -> None:
    """X.

    Example:

    hwbench predict
    """
    raise HwbenchError("predict is not built yet")
