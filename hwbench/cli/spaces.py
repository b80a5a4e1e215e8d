"""``hwbench spaces``: which search spaces there are."""

from __future__ import annotations

from hwbench import console
from hwbench.cli.options import Debug, Json
from hwbench.errors import PluginError


def spaces(as_json: Json = False, debug: Debug = False) -> None:
    """List the search spaces, each with its package and an architecture as other verbs write it.

    Example:

    hwbench spaces --json
    """
    import numpy as np

    from hwbench.spaces import get_space, space_packages

    found = []
    for name, package in space_packages().items():
        try:
            space = get_space(name)
        except PluginError as error:  # one bad package hides no other's
            console.note(str(error))
            continue
        (example,) = space.decode(space.sample(1, np.random.default_rng(0)))
        found.append(
            {
                "name": name,
                "decisions": len(space.decisions),
                "package": package,
                "example": example,
            }
        )
    if as_json:
        console.write_json({"spaces": found})
        return
    rows = [(entry["name"], entry["decisions"], entry["package"]) for entry in found]
    texts = [str(entry["example"]) for entry in found]
    console.show_above(("space, and an architecture of it", "decisions", "<package"), rows, texts)
