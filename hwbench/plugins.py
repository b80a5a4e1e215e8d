"""Devices and spaces of other packages, found by their entry points.

A package offers one in its ``pyproject.toml``::

    [project.entry-points."hwbench.devices"]
    toy = "my_package.toy:Toy"

The object is called without arguments and gives the device or the space of that name.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any, Literal

Group = Literal["hwbench.devices", "hwbench.spaces"]


def plugin_names(group: Group) -> list[str]:
    """Names that installed packages offer, sorted."""
    return sorted(entry_points(group=group).names)


def make_plugin(group: Group, name: str) -> Any:
    """What the package makes of the name, ``None`` where no package offers it.

    Errors in the package's own code are not caught: they belong to it.
    """
    for point in entry_points(group=group, name=name):
        return point.load()()
    return None
