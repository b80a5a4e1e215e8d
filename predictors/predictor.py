"""A latency predictor: fitted, calibrated, saved, and loaded where it fits.

>>> training = training_set(space, codes, latency_ms, sd_ms)
>>> predictor = fit_predictor(space, training, Provenance("cpu", key, "onnxruntime 1.31", 1))
>>> predictor.predict(codes).mean_ms, predictor.upper(codes, confidence=0.98)
>>> predictor.save("cpu.hwp"); load_predictor("cpu.hwp", fingerprint_key=key)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

import hwbench
from hwbench.errors import PredictorError, UnknownNameError, UsageError
from hwbench.predictors import files
from hwbench.predictors.calibration import Calibration, normal_quantile
from hwbench.predictors.costs import op_costs
from hwbench.predictors.data import MIN_SAMPLES, MOST_MS, Prediction, TrainingSet, prepared
from hwbench.predictors.metrics import Metrics, metrics
from hwbench.predictors.model import LatencyModel, model_kind
from hwbench.predictors.threads import one_thread
from hwbench.records import digest
from hwbench.spaces import Space, get_space

Array = NDArray[np.float64]

#: Relative: sessions that differ by more than this are of two machines.
_MOST_SESSION_SD = 2.0
#: Labels, threads and relative scales of a file that cannot be; what a correlation of 1 rounds to.
_MOST_LABELS, _MOST_THREADS, _MOST_SD, _ONE = 10**9, 2**16, 1e6, 1 + 1e-9

#: Networks whose costs are kept in the file, to see whether the space is still the same.
_WITNESSES = 3


@dataclass(frozen=True)
class Provenance:
    """Where latencies come from: what makes a predictor's milliseconds comparable to others.

    ``epoch`` and ``c0_ns`` are those of the canaries (:class:`hwbench.records.CanaryEpoch`);
    without an epoch the milliseconds are provisional. ``options`` are the workloads'.
    """

    device: str
    fingerprint_key: str
    runtime: str
    threads: int
    epoch: str | None = None
    c0_ns: tuple[float, ...] = ()
    options: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class PredictorMeta:
    """What a predictor is of, and how good it was on architectures left out of its fit.

    ``space_hash`` covers the decisions; ``features_hash`` the costs of the networks of
    ``witnesses`` (codes): it changes with the networks of the space, and with what we count.
    ``session_sd`` is the relative standard deviation of what the sessions of the labels and of
    a later measurement differ by. ``sources`` names the other devices that it learned from.
    ``widest_sd`` is the largest relative scale of a prediction that was held against a label,
    ``held_ms`` are the least and the largest of these.
    """

    kind: str
    space: str
    space_hash: str
    witnesses: tuple[tuple[int, ...], ...]
    features_hash: str
    provenance: Provenance
    n_train: int
    seed: int
    session_sd: float
    sources: tuple[str, ...]
    widest_sd: float | None
    held_ms: tuple[float, float] | None
    cross_validated: Metrics
    created: str
    hwbench: str


class LatencyPredictor:
    """Latency of the architectures of one space on one device, with bounds that hold.

    Made by :func:`fit_predictor` or :func:`load_predictor`; never changes afterwards. Codes are
    (n, L) whole numbers as :class:`~hwbench.spaces.Space` has them, canonical or not, and are
    checked: ``GraphError`` where they are of another space.
    """

    def __init__(
        self, space: Space, model: LatencyModel, calibration: Calibration, meta: PredictorMeta
    ) -> None:
        self.space = space
        self.meta = meta
        self._model = model
        self._calibration = calibration

    def predict(self, codes: ArrayLike) -> Prediction:
        """Mean and scale of n architectures, in milliseconds."""
        checked = self.space.check(codes)
        with one_thread():
            return self._model.predict(checked)

    def upper(self, codes: ArrayLike, confidence: float) -> Array:
        """Latency (n,) in ms that a measurement stays below with this probability, each.

        At .5 it is the middle of what may happen. A search that takes the best of thousands of
        candidates picks those whose error is in its favour: give it .98 rather than .9, and
        measure what it chose.
        """
        return self.bound(self.predict(codes), confidence)

    def interval(self, codes: ArrayLike, confidence: float) -> tuple[Array, Array]:
        """Ends (n,), (n,) of the interval that holds a measurement with this probability."""
        prediction = self.predict(codes)
        beside = (1 - confidence) / 2
        return self.bound(prediction, beside), self.bound(prediction, 1 - beside)

    def bound(self, prediction: Prediction, level: float) -> Array:
        """The ``level`` quantile (n,) in ms of a prediction of this predictor's, never below 0.

        Of a measurement in another session: what held-out labels of the same sessions could
        show, and what sessions differ by (as it was measured; normal), in quadrature.
        """
        own = self._calibration.quantile(level) * prediction.sd_ms
        between = normal_quantile(level) * self.meta.session_sd * prediction.mean_ms
        beyond = np.sign(between) * (np.hypot(own, between) - abs(own))
        return np.maximum(prediction.mean_ms + own + beyond, 0.0)

    def calibrated_on(self, chosen: TrainingSet) -> LatencyPredictor:
        """The same predictor, its bounds by errors on what a search chose, and it had not learned.

        A search chooses where a predictor errs in its favour: errors on architectures drawn at
        random, by which it was calibrated, are then too small. PredictorError for less than 5.
        """
        if len(chosen) < MIN_SAMPLES:
            raise PredictorError(f"bounds rest on {MIN_SAMPLES} errors at least: measure more")
        calibration = Calibration.of(chosen.latency_ms, self.predict(chosen.codes))
        return LatencyPredictor(self.space, self._model, calibration, self.meta)

    def unfamiliar(self, prediction: Prediction) -> NDArray[np.bool_]:
        """Which predictions of this predictor's (n,) lie beyond all that it was held to.

        It is less sure of them, or they are longer or shorter. Of n labels about three in n + 1
        architectures of their kind are such; far from them, most. Measure these rather than
        believe their bounds. None are where an old file does not tell.
        """
        widest = math.inf if self.meta.widest_sd is None else self.meta.widest_sd
        least, most = self.meta.held_ms or (0.0, math.inf)
        beyond = (prediction.mean_ms < least) | (prediction.mean_ms > most)
        return np.asarray(beyond | (prediction.sd_ms > widest * prediction.mean_ms))

    @property
    def parts(self) -> tuple[tuple[int, ...], ...]:
        """Columns of decisions that act together on latency, as far as the model knows."""
        return self._model.parts or tuple((j,) for j in range(len(self.space.decisions)))

    def save(self, path: str | Path) -> None:
        """Write the predictor to a ``.hwp`` file: all of it, and no code."""
        state = {f"model.{name}": array for name, array in self._model.state().items()}
        arrays = {"calibration": self._calibration.errors, **state}
        files.write(Path(path), asdict(self.meta), arrays)

    def __repr__(self) -> str:
        m = self.meta
        return f"<{m.kind} predictor of {m.space} on {m.provenance.device}, {m.n_train} samples>"


def fit_predictor(
    space: Space,
    training: TrainingSet,
    provenance: Provenance,
    *,
    seed: int = 0,
    kind: str = "cost-regression",
) -> LatencyPredictor:
    """Fit a predictor family on measured latencies and calibrate its bounds.

    Repeated architectures are pooled. The same arguments give the same predictor.
    :class:`PredictorError` where the measurements teach nothing (fewer than 5 architectures, all
    latencies equal), ``GraphError`` where they are not of ``space``.
    """
    # scipy has a BLAS of its own, which only a library that is loaded can be told to limit.
    import scipy.linalg  # noqa: F401
    from threadpoolctl import threadpool_limits

    rng = np.random.default_rng(seed)
    training = prepared(space, training)
    # Matrices of some hundred rows: threads cost more than they bring, far more on a busy machine;
    # and they add up in another order each time.
    with threadpool_limits(1, user_api="blas"):
        model = model_kind(kind).fit(space, training, rng)
        held_out = model.cross_validate(space, training, rng)
    calibration = Calibration.of(training.latency_ms, held_out)
    witnesses = _witnesses(space, training)
    meta = PredictorMeta(
        kind=kind,
        space=space.name,
        space_hash=_space_hash(space),
        witnesses=witnesses,
        features_hash=_features_hash(space, witnesses),
        provenance=provenance,
        n_train=len(training),
        seed=seed,
        # A label's session and a later one's: two draws.
        session_sd=math.sqrt(2) * training.session_sd,
        sources=training.sources.names if training.sources and model.used_sources else (),
        widest_sd=float((held_out.sd_ms / held_out.mean_ms).max()),
        held_ms=(float(held_out.mean_ms.min()), float(held_out.mean_ms.max())),
        cross_validated=_cross_validated(training, held_out),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        hwbench=hwbench.__version__,
    )
    return LatencyPredictor(space, model, calibration, meta)


def load_predictor(
    path: str | Path, *, space: Space | None = None, fingerprint_key: str | None = None
) -> LatencyPredictor:
    """Read a predictor file. No code in it is executed; of its kind it holds the name.

    ``space`` is looked up by its name unless given; it must still have the decisions and the
    networks that the predictor learned. With ``fingerprint_key`` a predictor of another device
    is refused. :class:`PredictorError` gives the reason in one line.
    """
    path = Path(path)
    header, arrays = files.read(path)
    if "space" not in header:
        raise PredictorError(
            f"{path} is of no space: a predictor of kernels takes ONNX files (hwbench predict, or "
            "hwbench.predictors.kernels.load_kernels)"
        )
    try:
        meta = _meta(header)
        space = get_space(meta.space) if space is None else space
    except UnknownNameError as error:
        raise PredictorError(f"{path}: {error}") from None
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise PredictorError(f"{path}: its header is not understood ({error})") from None
    try:
        family = model_kind(meta.kind)
    except UnknownNameError:
        raise PredictorError(
            f"{path} is of kind {meta.kind!r}, which no package here offers: install the one that "
            f"it was fitted with (entry point {meta.kind} of hwbench.predictors)"
        ) from None
    _require_same_space(path, meta, space)
    if fingerprint_key is not None and fingerprint_key != meta.provenance.fingerprint_key:
        raise PredictorError(
            f"{path} was fitted on another device or runtime ({meta.provenance.device}, "
            f"{meta.provenance.runtime}, fingerprint {meta.provenance.fingerprint_key[:8]}, "
            f"not {fingerprint_key[:8]}): fit one here"
        )
    try:
        errors = arrays.pop("calibration")
        state = {name.removeprefix("model."): array for name, array in arrays.items()}
        model = family.restore(space, state)
        if {*arrays} != {f"model.{name}" for name in model.state()}:
            raise ValueError("arrays that no predictor of this kind has")
        predictor = LatencyPredictor(space, model, Calibration.restored(errors), meta)
        found = predictor.predict(np.array(meta.witnesses, dtype=np.int16))
        if not ((found.mean_ms > 0) & (found.mean_ms <= MOST_MS)).all():
            raise ValueError(f"they say that a network takes {found.mean_ms.min():g} ms")
        if not ((found.sd_ms > 0) & (found.sd_ms <= _MOST_SD * found.mean_ms)).all():
            raise ValueError(f"they say that a latency's scale is {found.sd_ms.min():g} ms")
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise PredictorError(f"{path}: its arrays do not fit together ({error})") from None
    return predictor


def evaluate(predictor: LatencyPredictor, test: TrainingSet) -> Metrics:
    """How good a predictor is on measured architectures, which it should not have seen."""
    prediction = predictor.predict(test.codes)
    low, high = predictor.bound(prediction, 0.05), predictor.bound(prediction, 0.95)
    return metrics(test.latency_ms, prediction.mean_ms, low, high)


def _cross_validated(training: TrainingSet, held_out: Prediction) -> Metrics:
    """Metrics on the folds; each half is covered by the quantiles of the other."""
    low, high = np.empty(len(training)), np.empty(len(training))
    order = np.argsort(training.latency_ms, kind="stable")
    for here, there in ((order[::2], order[1::2]), (order[1::2], order[::2])):
        other = Prediction(held_out.mean_ms[there], held_out.sd_ms[there])
        calibration = Calibration.of(training.latency_ms[there], other)
        for ends, level in ((low, 0.05), (high, 0.95)):
            shift = calibration.quantile(level) * held_out.sd_ms[here]
            ends[here] = np.maximum(held_out.mean_ms[here] + shift, 0.0)
    return metrics(training.latency_ms, held_out.mean_ms, low, high)


# --- what a file is of ------------------------------------------------------------------------


def _space_hash(space: Space) -> str:
    return digest([space.name, [[d.name, d.values, d.when] for d in space.decisions]])


def _witnesses(space: Space, training: TrainingSet) -> tuple[tuple[int, ...], ...]:
    built = training.codes[space.valid(training.codes)][:_WITNESSES]
    return tuple(tuple(map(int, code)) for code in built)


def _features_hash(space: Space, witnesses: tuple[tuple[int, ...], ...]) -> str:
    codes = [np.array(code, dtype=np.int16) for code in witnesses]
    return digest([op_costs(space.graph(code)) for code in codes])


def _require_same_space(path: Path, meta: PredictorMeta, space: Space) -> None:
    if space.name != meta.space:
        raise PredictorError(f"{path} is a predictor of {meta.space}, not of {space.name}")
    if _space_hash(space) != meta.space_hash:
        raise PredictorError(
            f"{path}: the decisions of {meta.space} have changed since it was fitted: fit it again"
        )
    try:
        features_hash = _features_hash(space, meta.witnesses)
    except (UsageError, IndexError, ValueError) as error:
        raise PredictorError(f"{path}: its witnesses are no networks ({error})") from None
    if features_hash != meta.features_hash:
        raise PredictorError(
            f"{path}: the networks of {meta.space}, or how their costs are counted, have changed "
            "since it was fitted: fit it again"
        )


def _meta(header: Mapping[str, Any]) -> PredictorMeta:
    """Metadata from JSON; KeyError, TypeError, ValueError or OverflowError where it is not that."""
    values = typed(PredictorMeta, header)
    values["provenance"] = provenance_from(header["provenance"])
    if not 0 <= values["session_sd"] <= _MOST_SESSION_SD:
        raise ValueError(f"session_sd is {values['session_sd']}")
    if values["widest_sd"] is not None and not 0 < values["widest_sd"] <= _MOST_SD:
        raise ValueError(f"widest_sd is {values['widest_sd']}")
    if (held := values["held_ms"]) is not None:
        least, most = values["held_ms"] = tuple(float(ms) for ms in held)
        if not 0 <= least <= most < math.inf:
            raise ValueError(f"held_ms is {held}")
    if not MIN_SAMPLES <= values["n_train"] <= _MOST_LABELS or values["seed"] < 0:
        raise ValueError(f"n_train is {values['n_train']}, seed {values['seed']}")
    values["sources"] = tuple(str(name) for name in values["sources"])
    values["cross_validated"] = metrics_from(header["cross_validated"])
    values["witnesses"] = tuple(tuple(int(c) for c in code) for code in header["witnesses"])
    if not values["witnesses"] or any(
        not 0 <= c < 2**15 for code in values["witnesses"] for c in code
    ):
        raise ValueError("witnesses are no codes")
    if datetime.fromisoformat(values["created"]).tzinfo is None:
        raise ValueError(f"created has no UTC offset: {values['created']!r}")
    return PredictorMeta(**values)


def metrics_from(row: Any) -> Metrics:
    """Of a JSON object; KeyError, TypeError, ValueError or OverflowError where it is not that."""
    found = Metrics(**typed(Metrics, row))
    ranks = [rank for rank in (found.spearman, found.kendall) if rank is not None]
    shares = (found.within_5, found.within_10, found.coverage_90)
    if not (
        2 <= found.n <= _MOST_LABELS
        and all(abs(rank) <= _ONE for rank in ranks)
        and all(0 <= share <= 1 for share in shares)
        and 0 <= found.rmspe < math.inf
        and math.isfinite(found.width_90)
    ):
        raise ValueError("metrics that cannot be")
    return found


def provenance_from(row: Any) -> Provenance:
    """Of a JSON object; KeyError, TypeError, ValueError or OverflowError where it is not that."""
    values = typed(Provenance, row)
    values["c0_ns"] = tuple(float(c) for c in values["c0_ns"])
    values["options"] = tuple((str(k), str(v)) for k, v in values["options"])
    if not 1 <= values["threads"] <= _MOST_THREADS or not all(
        0 < c < math.inf for c in values["c0_ns"]
    ):
        raise ValueError("threads or c0_ns cannot be")
    return Provenance(**values)


#: Field types as the dataclasses write them -> what JSON gives.
_JSON_TYPES: Mapping[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (float, int),
    "float | None": (float, int, type(None)),
    "str | None": (str, type(None)),
}


def typed(record: type, values: Any) -> dict[str, Any]:
    """The fields of a dataclass out of a JSON object, plain ones checked for their type.

    KeyError or TypeError where they are not that.
    """
    if not isinstance(values, dict):
        raise TypeError(f"{record.__name__} is no JSON object")
    for field in fields(record):
        allowed = _JSON_TYPES.get(str(field.type), (object,))
        value = values[field.name]
        if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
            raise TypeError(f"{field.name} is {value!r}")
    return {field.name: values[field.name] for field in fields(record)}
