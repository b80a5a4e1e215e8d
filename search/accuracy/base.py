"""The accuracy source: what a search asks to learn how good an architecture is.

Anything with a ``space`` and an ``accuracy`` is one. A function of your own becomes one by
:class:`CallableAccuracy`:

>>> source = CallableAccuracy(space, lambda codes: my_trainer(space.decode(codes)))
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hwbench.errors import UsageError
from hwbench.spaces.base import Codes, Space


class AccuracySource(Protocol):
    """Accuracy of the architectures of one space.

    Every architecture asked is one *validation* in a search's ledger, so a source is asked once
    for each. What it answers with must not rest on test data.
    """

    @property
    def space(self) -> Space:
        """The space whose codes it knows."""

    def accuracy(self, codes: Codes) -> NDArray[np.float64]:
        """Accuracy (n,), from 0 to 1, of valid canonical codes (n, L)."""


class CallableAccuracy:
    """A function from codes (n, L) to accuracies (n,), 0 to 1, as a source."""

    def __init__(self, space: Space, function: Callable[[Codes], ArrayLike]) -> None:
        self.space = space
        self._function = function

    def accuracy(self, codes: Codes) -> NDArray[np.float64]:
        """What the function says, checked."""
        return _checked(self._function(codes.copy()), codes, self.space)


def checked_accuracy(source: AccuracySource, codes: Codes) -> NDArray[np.float64]:
    """What ``source`` says of codes (n, L); UsageError where that is no accuracy.

    The source gets codes of its own: what it writes into them changes no search.
    """
    return _checked(source.accuracy(codes.copy()), codes, source.space)


def _checked(values: ArrayLike, codes: Codes, space: Space) -> NDArray[np.float64]:
    try:
        given = np.asarray(values)
    except (ValueError, TypeError, RuntimeError, OverflowError) as error:  # ragged, or a tensor's
        reason = str(error).partition("\n")[0]
        raise UsageError(
            f"the accuracy source gave a {type(values).__name__} that is no array of numbers "
            f"({reason}): it has to give one number from 0 to 1 each"
        ) from None
    if given.dtype.kind not in "fiu":
        raise UsageError(
            f"the accuracy source gave a {type(values).__name__} of {given.dtype}: it has to give "
            "one number from 0 to 1 each"
        )
    accuracy = given.astype(np.float64)
    if accuracy.shape != (len(codes),):
        raise UsageError(
            f"the accuracy source gave shape {accuracy.shape} for {len(codes)} architectures: "
            "it has to give one number each"
        )
    bad = ~((accuracy >= 0) & (accuracy <= 1))  # NaN too
    if bad.any():
        row = int(bad.argmax())
        (text,) = space.decode(codes[row : row + 1])
        raise UsageError(
            f"the accuracy source gave {accuracy[row]:g} for {text!r} ({bad.sum()} of {len(codes)} "
            "are no accuracy): it has to give numbers from 0 to 1"
        )
    return accuracy
