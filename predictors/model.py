"""The seam where a predictor family plugs in.

A family learns from measured latencies and says mean and scale. Everything else is the same for
all of them and lives elsewhere: checks, calibrated bounds, files (:mod:`.predictor`), the oracle.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from typing import ClassVar, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from hwbench.errors import PredictorError, UnknownNameError
from hwbench.plugins import load_plugin, plugin_packages
from hwbench.predictors.data import MIN_SAMPLES, Prediction, TrainingSet
from hwbench.spaces import Codes, Space

State = Mapping[str, NDArray[np.generic]]

_FOLDS = 10


class LatencyModel(ABC):
    """A predictor family. Subclass it, decorate it with :func:`register_model`, and

    1. ``fit`` learns from a prepared training set: canonical codes, distinct, at least
       :data:`~hwbench.predictors.data.MIN_SAMPLES` of them, positive latencies that differ.
       The same ``rng`` state gives the same model.
    2. ``cross_validate`` says how well each label was predicted without it: bounds are
       calibrated on that. The default refits on folds; override it where there is a closed form.
    3. ``predict`` answers for checked codes, a hundred thousand at a time. Inactive decisions may
       hold any value there: ``space.canonical`` puts them to 0.
    4. ``state`` gives all that was learned as arrays, for the file; ``restore`` makes a model
       of them that predicts the same to the last bit. It gets arrays of unknown origin:
       raise ``PredictorError``, ``KeyError``, ``ValueError`` or ``IndexError`` where they do not
       fit together.

    A model is never changed once it is made. ``kind`` names the family in files: change it when
    the meaning of ``state`` changes. ``hwbench.testing.predictors.check_predictor`` proves the
    contract.
    """

    kind: ClassVar[str]
    #: Whether a fit learned from the training set's sources; those that are unlike are left out.
    used_sources: bool = False

    @classmethod
    @abstractmethod
    def fit(cls, space: Space, training: TrainingSet, rng: np.random.Generator) -> Self: ...

    @abstractmethod
    def predict(self, codes: Codes) -> Prediction: ...

    @abstractmethod
    def state(self) -> State: ...

    @classmethod
    @abstractmethod
    def restore(cls, space: Space, state: State) -> Self: ...

    @property
    def parts(self) -> tuple[tuple[int, ...], ...]:
        """Decisions that act together on latency, for a table of it; empty: each by itself."""
        return ()

    def cross_validate(
        self, space: Space, training: TrainingSet, rng: np.random.Generator
    ) -> Prediction:
        """A prediction for each row of the training set by a model that never saw it."""
        n = len(training)
        mean, sd = np.empty(n), np.empty(n)
        for fold in np.array_split(rng.permutation(n), min(_FOLDS, n)):
            rest = np.setdiff1d(np.arange(n), fold)
            if len(rest) < MIN_SAMPLES - 1:
                raise PredictorError(f"{n} architectures are too few to cross-validate on")
            model = type(self).fit(space, training[rest], rng)
            prediction = model.predict(space.check(training.codes[fold]))
            mean[fold], sd[fold] = prediction.mean_ms, prediction.sd_ms
        return Prediction(mean, sd)


_KINDS: dict[str, type[LatencyModel]] = {}

Model = TypeVar("Model", bound=LatencyModel)


def register_model(kind: str) -> Callable[[type[Model]], type[Model]]:
    """Class decorator: files of this ``kind`` are restored by this family."""

    def enter(family: type[Model]) -> type[Model]:
        if kind in _KINDS:
            raise PredictorError(f"a predictor kind {kind!r} exists already: choose another name")
        family.kind = kind
        _KINDS[kind] = family
        return family

    return enter


def model_kind(kind: str) -> type[LatencyModel]:
    """The family of that name, which an installed package may offer.

    UnknownNameError names the nearest one there is; PluginError where another package's fails.
    """
    family = _KINDS.get(kind) or load_plugin("hwbench.predictors", kind, partial(_checked, kind))
    if family is None:
        raise UnknownNameError("predictor kind", kind, model_kinds())
    return family


def _checked(kind: str, offered: object) -> type[LatencyModel]:
    family = _KINDS.get(kind)  # importing its module has registered it
    if family is None or offered is not family:
        raise TypeError(f"{offered!r} is not registered by @register_model({kind!r})")
    return family


def model_kinds() -> list[str]:
    """Names of all families, sorted; nothing of another package is imported for them."""
    return sorted({*_KINDS, *plugin_packages("hwbench.predictors")})
