"""A kernel predictor as users have it: fitted, calibrated, saved, and asked about networks.

>>> provenance, samples = read_samples("cpu-kernels.jsonl")
>>> predictor = fit_kernels(samples, provenance)
>>> found = predictor.predict(graph)
>>> found.mean_ms, predictor.interval(found, confidence=0.9)
>>> predictor.save("cpu-kernels.hwp"); load_kernels("cpu-kernels.hwp")
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import hwbench
from hwbench.errors import PredictorError
from hwbench.graph import Graph
from hwbench.predictors import files
from hwbench.predictors.calibration import Calibration
from hwbench.predictors.data import MOST_MS, Prediction
from hwbench.predictors.kernels.kernels import (
    BLOCKED,
    ENTERING,
    FEATURES,
    PASSING,
    Kernel,
    Rules,
    Signature,
    split,
)
from hwbench.predictors.kernels.kind_model import COSTS, KindModel
from hwbench.predictors.kernels.models import (
    UNKNOWN,
    Models,
    NetworkPrediction,
    Strange,
    Sum,
    fit_models,
    left_out,
)
from hwbench.predictors.kernels.samples import NetworkSample
from hwbench.predictors.kernels.training import LEAST_NETWORKS, training_from
from hwbench.predictors.metrics import Metrics, metrics
from hwbench.predictors.predictor import Provenance, metrics_from, provenance_from, typed
from hwbench.records import digest

Array = NDArray[np.float64]

KIND = "kernels"
#: Of what such a file holds; raise it with the meaning of any part.
VERSION = 1
#: What models of kinds are made of: a file of others says nothing to these.
_DESCRIBED = digest([*FEATURES, COSTS])
#: A network with a larger share of its time in kinds that were never timed is out of
#: distribution, as is one whose scale is that many times that of the networks measured.
MOST_UNKNOWN, MOST_SPREAD = 0.1, 2.0
#: Bytes of a tensor beyond which no device holds a network, and no latency is told.
MOST_BYTES = 2**40


@dataclass(frozen=True)
class KernelMeta:
    """What a kernel predictor is of, and how good it was on families left out of its fit.

    ``typical_sd`` is the relative scale that nine tenths of the measured networks stay below.
    """

    provenance: Provenance
    n_train: int
    seed: int
    typical_sd: float
    left_out: Mapping[str, Metrics]
    created: str
    hwbench: str


@dataclass(frozen=True, eq=False)
class KernelPredictor:
    """Latency of any network on one device; made by :func:`fit_kernels` or :func:`load_kernels`."""

    models: Models
    calibration: Calibration
    meta: KernelMeta

    def predict(self, graph: Graph) -> NetworkPrediction:
        """Mean and scale of a network's latency, and what each of its kernels takes.

        PredictorError for a network that takes no time, or whose tensors no memory holds.
        """
        kernels = split(graph, self.models.rules)
        for kernel in kernels:
            _require_held(graph, kernel)
        found = self.models.predict(kernels)
        if not (found.mean_ms <= MOST_MS and found.sd_ms <= MOST_MS):  # NaN is neither
            raise PredictorError(
                f"{graph.name} would take {found.mean_ms:g} ms, which no network does: check its "
                "shapes, or fit the predictor again"
            )
        return found

    def interval(self, found: NetworkPrediction, confidence: float) -> tuple[float, float]:
        """Latencies in ms between which a measurement lies with this probability."""
        beside = (1 - confidence) / 2
        return self.bound(found, beside), self.bound(found, 1 - beside)

    def bound(self, found: NetworkPrediction, level: float) -> float:
        """The ``level`` quantile in ms of what a measurement may be."""
        return max(found.mean_ms + self.calibration.quantile(level) * found.sd_ms, 0.0)

    def surprises(self, found: NetworkPrediction) -> list[str]:
        """Why a network lies outside of what was measured; empty where it does not."""
        reasons = []
        if kinds := sorted({row.kernel.kind for row in found.kernels if not row.known}):
            reasons.append(f"never timed: {', '.join(kinds)} ({found.unknown:.0%} of the time)")
        far = [row for row in found.kernels if row.sd > 0.3 and row.ms > 0.05 * found.mean_ms]
        if far or found.sd_ms > MOST_SPREAD * self.meta.typical_sd * found.mean_ms:
            names = ", ".join(row.kernel.name for row in far[:3]) or "in all"
            reasons.append(f"kernels unlike those timed: {names}")
        return reasons

    def save(self, path: str | Path) -> None:
        """Write the predictor to a ``.hwp`` file: all of it, and no code."""
        m = self.models
        header = {
            "kind": KIND,
            "kernels_version": VERSION,
            "features": _DESCRIBED,
            "kinds": list(m.kinds),
            "fused": [
                [*signature, kind, joins] for (signature, kind), joins in m.rules.fused.items()
            ],
            "layouts": dict(m.rules.layouts),
            "noise": m.sum.noise,
            "strange": [[each.longer, each.unsure] for each in m.strange],
            **asdict(self.meta),
        }
        arrays = {
            "calibration": self.calibration.errors,
            "kinds": np.concatenate([model.state() for model in m.kinds.values()]),
            "weights": m.sum.weights,
            "factor": m.sum.factor,
        }
        files.write(Path(path), header, arrays)


def _require_held(graph: Graph, kernel: Kernel) -> None:
    most = max(kernel.size(part) for part in ("read", "written", "weights"))
    if most > MOST_BYTES:
        raise PredictorError(
            f"{graph.name}: {kernel.name} works on tensors of {most / 2**40:.3g} TiB, which no "
            "memory holds: check the shapes, as given by --shape"
        )


def fit_kernels(
    samples: Sequence[NetworkSample], provenance: Provenance, *, seed: int = 0
) -> KernelPredictor:
    """Learn rules, kinds and their sum from profiled networks; calibrate on families left out.

    The same arguments give the same predictor. PredictorError for too few networks or families.
    """
    # scipy has a BLAS of its own, which only a library that is loaded can be told to limit.
    import scipy.linalg  # noqa: F401
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, user_api="blas"):
        training = training_from(samples)
        families = [each.family for each in training.networks]
        if len(set(families)) < 3:
            raise PredictorError(
                f"networks of {len(set(families))} families say nothing of others: measure more"
            )
        models = fit_models(training, np.random.default_rng(seed))
        latency_ms, held_out = left_out(models, training)
    meta = KernelMeta(
        provenance=provenance,
        n_train=len(families),
        seed=seed,
        typical_sd=float(np.quantile(held_out.sd_ms / held_out.mean_ms, 0.9)),
        left_out=_by_family(families, latency_ms, held_out),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        hwbench=hwbench.__version__,
    )
    return KernelPredictor(models, _calibration(latency_ms, held_out, np.array(families)), meta)


#: Errors by which each family tells of its own in the calibration.
_OF_FAMILY = 20


def _calibration(
    latency_ms: Array, held_out: Prediction, families: NDArray[np.str_]
) -> Calibration:
    """Errors of families left out, in which each counts alike: a new network is of a new family."""
    errors = (latency_ms - held_out.mean_ms) / held_out.sd_ms
    levels = (np.arange(_OF_FAMILY) + 0.5) / _OF_FAMILY
    parts = [
        np.quantile(errors[families == family], levels, method="hazen")
        for family in dict.fromkeys(families.tolist())
    ]
    return Calibration(np.sort(np.concatenate(parts)))


def _by_family(
    families: Sequence[str], latency_ms: Array, held_out: Prediction
) -> dict[str, Metrics]:
    """Metrics of each family and of all; a family's intervals come from the errors of others."""
    names = np.array(families)
    low, high = np.empty(len(names)), np.empty(len(names))
    for family in set(families):
        rows = names == family
        others = Prediction(held_out.mean_ms[~rows], held_out.sd_ms[~rows])
        calibration = _calibration(latency_ms[~rows], others, names[~rows])
        for ends, level in ((low, 0.05), (high, 0.95)):
            shift = calibration.quantile(level) * held_out.sd_ms[rows]
            ends[rows] = np.maximum(held_out.mean_ms[rows] + shift, 0.0)
    scores = {}
    for family in [*dict.fromkeys(families), "all"]:
        rows = (names == family) | (family == "all")
        if rows.sum() > 1:
            of = (latency_ms, held_out.mean_ms, low, high)
            scores[family] = metrics(*(values[rows] for values in of))
    return scores


# -- the file ---------------------------------------------------------------------------------


def is_kernels(path: str | Path) -> bool:
    """Whether a predictor file is one of kernels. PredictorError where it is damaged."""
    return files.read(Path(path))[0].get("kind") == KIND


def load_kernels(
    path: str | Path,
    *,
    fingerprint_key: str | None = None,
    options: tuple[tuple[str, str], ...] | None = None,
) -> KernelPredictor:
    """Read a predictor file. No code in it is executed.

    With ``fingerprint_key`` a predictor of another device is refused, with ``options`` one of a
    device with others (:func:`hwbench.devices.environment.options_of`). PredictorError gives the
    reason in one line.
    """
    path = Path(path)
    header, arrays = files.read(path)
    if header.get("kind") != KIND:
        raise PredictorError(f"{path} predicts architectures of a space, not any network")
    if (header.get("kernels_version"), header.get("features")) != (VERSION, _DESCRIBED):
        raise PredictorError(
            f"{path} was fitted by a hwbench that describes kernels otherwise: fit it again with "
            "hwbench kernels, which takes what was measured"
        )
    if {*arrays} != _ARRAYS:
        raise PredictorError(f"{path} has other arrays than such a predictor: fit it again")
    try:
        models = _models(header, {name: array.astype(np.float64) for name, array in arrays.items()})
        calibration = Calibration.restored(arrays["calibration"])
        predictor = KernelPredictor(models, calibration, _meta(header))
    except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
        raise PredictorError(f"{path}: its parts do not fit together ({error})") from None
    made = predictor.meta.provenance
    if fingerprint_key is not None and fingerprint_key != made.fingerprint_key:
        raise PredictorError(
            f"{path} was fitted on another device or runtime ({made.device}, {made.runtime}, "
            f"fingerprint {made.fingerprint_key[:8]}, not {fingerprint_key[:8]}): fit one here"
        )
    if options is not None and options != made.options:
        fitted, here = (" ".join(map("=".join, each)) or "none" for each in (made.options, options))
        raise PredictorError(
            f"{path} was fitted with other options of the device ({fitted}, not {here}): "
            "give these by --option, or fit one with yours"
        )
    return predictor


_ARRAYS = {"calibration", "kinds", "weights", "factor"}
#: What numbers of a file may be at most: scales and logarithms (relative), weights of the sum.
_MOST_SCALE, _MOST_WEIGHT = 1e3, 1e6


def _models(header: Mapping[str, Any], arrays: Mapping[str, Array]) -> Models:
    names, rest = list(map(str, header["kinds"])), arrays["kinds"]
    # The order of a fit: it ties each name to its model and its weights.
    if names != [*sorted({*names} - {UNKNOWN}), UNKNOWN]:
        raise ValueError("kinds are not in the order of their models")
    kinds: dict[str, KindModel] = {}
    for name in names:
        kinds[name], rest = KindModel.restore(rest)
    weights, factor = arrays["weights"], arrays["factor"]
    size = 2 * len(kinds) + 2
    if len(rest) or weights.shape != (size,) or factor.shape != (size, size):
        raise ValueError("kinds and their shares")
    # The factor is a Cholesky factor.
    if not (np.abs(weights).max() <= _MOST_WEIGHT and np.abs(factor).max() <= _MOST_WEIGHT):
        raise ValueError("weights that cannot be")
    if np.triu(factor, 1).any() or not (np.diag(factor) > 0).all():
        raise ValueError("a covariance that cannot be")
    total = Sum(weights, factor, _number(header["noise"]))
    kin, none = header["strange"]
    return Models(_rules(header), kinds, total, (_strange(*kin), _strange(*none)))


def _strange(longer: Any, unsure: Any) -> Strange:
    return Strange(_number(longer, -_MOST_SCALE), _number(unsure))


def _number(value: Any, least: float = 0.0) -> float:
    """A scale or a logarithm of a file; TypeError or ValueError where it is none."""
    if not isinstance(value, (int, float)) or not least <= value <= _MOST_SCALE:
        raise ValueError("a scale that cannot be")
    return float(value)


def _rules(header: Mapping[str, Any]) -> Rules:
    fused: dict[tuple[Signature, str], bool] = {}
    for *signature, kind, joins in header["fused"]:
        fused[tuple(map(str, signature)), str(kind)] = bool(joins)
    layouts = header["layouts"]
    if not isinstance(layouts, dict) or not {*layouts.values()} <= {BLOCKED, ENTERING, PASSING}:
        raise ValueError("layouts that are none")
    return Rules(fused, layouts)


def _meta(header: Mapping[str, Any]) -> KernelMeta:
    values = typed(KernelMeta, header)
    if not isinstance(values["left_out"], dict):
        raise TypeError("left_out is no JSON object")
    scores = {str(family): metrics_from(row) for family, row in values["left_out"].items()}
    if values["n_train"] < LEAST_NETWORKS or not _number(values["typical_sd"]):
        raise ValueError("n_train or typical_sd cannot be")
    provenance = provenance_from(values["provenance"])
    return KernelMeta(**{**values, "provenance": provenance, "left_out": scores})
