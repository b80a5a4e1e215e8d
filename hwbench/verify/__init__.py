"""Claims by name: experiments that anyone can run on their own machine."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from hwbench.errors import UnknownNameError

if TYPE_CHECKING:
    from hwbench.verify.frame import Claim

#: Claim name -> module and class, imported when first asked for; and about how long it takes on
#: two idle cores, in full and quick, as its ``run`` and results/README.md have it.
_CLAIMS = {
    "repeatability": ("hwbench.verify.repeatability", "Repeatability", "7 min", "3 min"),
    "budgets": ("hwbench.verify.budgets", "Budgets", "8 min", "3 min"),
    "lowering": ("hwbench.verify.lowering", "Lowering", "30 s", "seconds"),
    "kernels": ("hwbench.verify.kernels", "Kernels", "15 min", "6 min"),
    "pnag": ("hwbench.verify.pnag", "Pnag", "20 min", "4 min"),
    "eas": ("hwbench.verify.eas", "Eas", "over 16 min", "3 min"),
    "dash": ("hwbench.verify.dash", "Dash", "an hour", "3 min"),
    "s2dnas": ("hwbench.verify.s2dnas", "S2dnas", "hours", "2 min"),
}


def claim_names() -> list[str]:
    """Names that :func:`get_claim` knows."""
    return list(_CLAIMS)


def claim_times() -> dict[str, tuple[str, str]]:
    """About how long each claim takes, in full and quick; imports none of them."""
    return {name: (full, quick) for name, (_, _, full, quick) in _CLAIMS.items()}


def get_claim(name: str) -> Claim:
    """The claim of that name. Raises :class:`~hwbench.errors.UnknownNameError`."""
    if name not in _CLAIMS:
        raise UnknownNameError("claim", name, _CLAIMS)
    module, cls, _, _ = _CLAIMS[name]
    claim: Claim = getattr(import_module(module), cls)()
    return claim
