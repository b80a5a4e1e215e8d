"""Devices, spaces and predictors of other packages, found by their entry points.

A package offers one in its ``pyproject.toml``::

    [project.entry-points."hwbench.devices"]
    toy = "my_package.toy:Toy"

A device is a subclass of :class:`hwbench.devices.base.Device`; a space is a callable without
arguments that gives it; a predictor is a subclass of :class:`hwbench.predictors.LatencyModel`
that is registered under the entry point's name. Only what is installed is ever imported.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal, TypeVar

from hwbench.errors import PluginError

Group = Literal["hwbench.devices", "hwbench.spaces", "hwbench.predictors"]

T = TypeVar("T")


def plugin_packages(group: Group) -> dict[str, str]:
    """Names that installed packages offer -> the package and its version."""
    # Of two packages that offer one name the first answers, as in load_plugin.
    return {point.name: _package(point) for point in reversed(tuple(entry_points(group=group)))}


def load_plugin(group: Group, name: str, use: Callable[[Any], T]) -> T | None:
    """What ``use`` makes of what a package offers under the name, ``None`` where no package does.

    Raises :class:`~hwbench.errors.PluginError`, which names the package, whatever goes wrong
    in its code or in ``use``.
    """
    for point in entry_points(group=group, name=name):
        try:
            return use(point.load())
        except Exception as error:
            what = " ".join(f"{type(error).__name__}: {error}".split())
            raise PluginError(
                f"{_package(point)}: its entry point {name} = {point.value} of {group} does not "
                f"work ({what}): correct that package, or uninstall it"
            ) from error
    return None


def _package(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else "a package"
