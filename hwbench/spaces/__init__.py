"""Search spaces: what an architecture is, and its graph.

``get_space("ofa_mbv3")`` gives a built-in one by name. A space of your own is a subclass of
:class:`Space` with its decisions and ``build``; :func:`register_space` makes its name known in a
process, an entry point (:mod:`hwbench.plugins`) wherever its package is installed, and
``hwbench.testing.check_space`` proves that it keeps the contract.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

from hwbench.errors import UnknownNameError, UsageError
from hwbench.plugins import load_plugin, plugin_packages
from hwbench.spaces.base import Choice, Codes, Decision, Space, Value
from hwbench.spaces.design import space_filling, spread_sample
from hwbench.spaces.encoder import bert_encoder, vit_small
from hwbench.spaces.fbnet import fbnet
from hwbench.spaces.mbv3_small import mbv3_small, mbv3_small_rgb
from hwbench.spaces.nasbench201 import nasbench201
from hwbench.spaces.ofa_mbv3 import ofa_mbv3

__all__ = [
    "Choice",
    "Codes",
    "Decision",
    "Space",
    "Value",
    "get_space",
    "register_space",
    "space_filling",
    "space_names",
    "space_packages",
    "spread_sample",
]

_FACTORIES: dict[str, Callable[[], Space]] = {
    "bert_encoder": bert_encoder,
    "fbnet": fbnet,
    "mbv3_small": mbv3_small,
    "mbv3_small_rgb": mbv3_small_rgb,
    "nasbench201": nasbench201,
    "ofa_mbv3": ofa_mbv3,
    "vit_small": vit_small,
}


def space_names() -> list[str]:
    """Names that :func:`get_space` knows, sorted."""
    return list(space_packages())


def space_packages() -> dict[str, str]:
    """Those names -> the package that each comes from."""
    known = plugin_packages("hwbench.spaces") | dict.fromkeys(_FACTORIES, "hwbench")
    return dict(sorted(known.items()))


@cache
def get_space(name: str) -> Space:
    """The space of that name, made once; UnknownNameError names the nearest one there is.

    PluginError where another package's fails.
    """
    if name in _FACTORIES:
        return _FACTORIES[name]()
    space = load_plugin("hwbench.spaces", name, partial(_made, name))
    if space is None:
        raise UnknownNameError("space", name, space_names())
    return space


def _made(name: str, make: Callable[[], object]) -> Space:
    space = make()
    if not isinstance(space, Space) or space.name != name:  # files name a space by its own name
        raise TypeError(f"it gives {getattr(space, 'name', space)!r}, not a space called {name!r}")
    return space


def register_space(space: Space) -> None:
    """Make a space of your own known to :func:`get_space` under its name, for this process."""
    if space.name in _FACTORIES:
        raise UsageError(f"a space {space.name!r} exists already: choose another name")
    _FACTORIES[space.name] = lambda: space
