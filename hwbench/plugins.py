"""Devices and spaces of other packages, found by their entry points.

A package offers one in its ``pyproject.toml``::

    [project.entry-points."hwbench.devices"]
    toy = "my_package.toy:Toy"

A device is a subclass of :class:`hwbench.devices.base.Device`; a space is a callable without
arguments that gives it.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any, Literal

Group = Literal["hwbench.devices", "hwbench.spaces"]


def plugin_names(group: Group) -> list[str]:
    """Names that installed packages offer, sorted."""
    return sorted(entry_points(group=group).names)


def load_plugin(group: Group, name: str) -> Any:
    """What a package offers under the name, ``None`` where no package does.

    Errors in the package's own code are not caught: they belong to it.
    """
    for point in entry_points(group=group, name=name):
        return point.load()
    return None
