"""Claims by name: experiments that anyone can run on their own machine."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from hwbench.errors import UnknownNameError

if TYPE_CHECKING:
    from hwbench.verify.frame import Claim

#: Claim name -> module and class, imported when first asked for.
_CLAIMS = {
    "repeatability": ("hwbench.verify.repeatability", "Repeatability"),
    "budgets": ("hwbench.verify.budgets", "Budgets"),
    "lowering": ("hwbench.verify.lowering", "Lowering"),
    "kernels": ("hwbench.verify.kernels", "Kernels"),
    "pnag": ("hwbench.verify.pnag", "Pnag"),
    "eas": ("hwbench.verify.eas", "Eas"),
    "dash": ("hwbench.verify.dash", "Dash"),
    "s2dnas": ("hwbench.verify.s2dnas", "S2dnas"),
}


def claim_names() -> list[str]:
    """Names that :func:`get_claim` knows."""
    return list(_CLAIMS)


def get_claim(name: str) -> Claim:
    """The claim of that name. Raises :class:`~hwbench.errors.UnknownNameError`."""
    if name not in _CLAIMS:
        raise UnknownNameError("claim", name, _CLAIMS)
    module, cls = _CLAIMS[name]
    claim: Claim = getattr(import_module(module), cls)()
    return claim
