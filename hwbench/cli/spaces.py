"""``hwbench spaces``: which search spaces there are."""

from __future__ import annotations

from hwbench import console
from hwbench.cli.options import Debug, Json


def spaces(as_json: Json = False, debug: Debug = False) -> None:
    """List the search spaces, each with one of its architectures as the other verbs write it.

    Example:

    hwbench spaces --json
    """
    import numpy as np

    from hwbench.spaces import get_space, space_names

    found = []
    for space in map(get_space, space_names()):
        (example,) = space.decode(space.sample(1, np.random.default_rng(0)))
        found.append({"name": space.name, "decisions": len(space.decisions), "example": example})
    if as_json:
        console.write_json({"spaces": found})
        return
    rows = [(entry["name"], entry["decisions"]) for entry in found]
    texts = [str(entry["example"]) for entry in found]
    console.show_above(("space, and an architecture of it", "decisions"), rows, texts)
