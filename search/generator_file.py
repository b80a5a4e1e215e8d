"""The generator file ``.hwg``: plain arrays and JSON as a predictor's file, nothing to execute.

It holds what a kind of generator is made of (:meth:`Answering.parts`), the candidates kept, what
was measured, and the whole predictor file: a generator is of one space and one device, and both
are checked when it is loaded.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import hwbench
from hwbench.errors import PredictorError, UsageError
from hwbench.predictors import BudgetOracle, LatencyPredictor, files, load_predictor
from hwbench.predictors.data import MOST_MS
from hwbench.predictors.oracle import Measurer
from hwbench.search.answering import Answering, codes_of, numbers_of
from hwbench.spaces import Codes, Space

#: Kind -> module and class, imported when a file is of it.
_KINDS = {
    "pnag": ("hwbench.search.pnag.generator", "Generator"),
    "eas": ("hwbench.search.eas.generator", "TaskGenerator"),
}


#: What all kinds have.
_ARRAYS = ("predictor", "kept", "known", "known_ms", "known_sd_ms")
#: Weights of a policy are of about 1.
_MOST_WEIGHT = 1e6


def save_generator(
    generator: Answering, path: str | Path, *, objective: str, ledger: Mapping[str, float]
) -> None:
    """Write a generator file; ``objective`` names what was searched for, ``ledger`` its cost.

    UsageError where its oracle has limits beside the latency budget: the file could not keep them.
    """
    oracle = generator.oracle
    if oracle.limited:
        raise UsageError(
            f"{path}: limits beside the latency budget are this process's, and no file keeps them: "
            "ask the generator here, or search without"
        )
    known = oracle.known
    own_meta, own_arrays = generator.parts()
    meta = {
        "generator": generator.kind,
        "generator_version": generator.version,
        "space": generator.space.name,
        "fingerprint_key": oracle.predictor.meta.provenance.fingerprint_key,
        "confidence": generator.confidence,
        "objective": objective,
        **own_meta,
        "ledger": dict(ledger),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "hwbench": hwbench.__version__,
    }
    arrays: dict[str, NDArray[np.generic]] = {
        "predictor": enclosed(oracle.predictor),
        "kept": generator.kept.astype(np.int16),
        "known": known.codes.astype(np.int16),
        "known_ms": known.latency_ms,
        "known_sd_ms": known.sd_ms,
        **own_arrays,
    }
    files.write(Path(path), meta, arrays)


def load_generator(
    path: str | Path,
    *,
    space: Space | None = None,
    fingerprint_key: str | None = None,
    measurer: Measurer | None = None,
) -> tuple[Answering, dict[str, Any]]:
    """Read a generator file, and its header. No code in it is executed.

    ``space`` is looked up by its name unless given; with ``fingerprint_key`` a generator for
    another device is refused. PredictorError gives the reason in one line.
    """
    path = Path(path)
    meta, arrays = files.read(path)
    kind = meta.get("generator")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise PredictorError(f"{path} is no generator: make one with hwbench search")
    module, name = _KINDS[kind]
    cls: type[Answering] = getattr(import_module(module), name)
    if meta.get("generator_version") != cls.version:
        raise PredictorError(
            f"{path} has version {meta.get('generator_version')!r} of the generator's format, this "
            f"hwbench reads {cls.version}: search again"
        )
    if "predictor" not in arrays:
        raise PredictorError(f"{path} has no predictor inside: search again")
    predictor = disclosed(arrays["predictor"], path, space, fingerprint_key)
    try:
        oracle = _oracle(meta, arrays, predictor, measurer)
        kept = codes_of(arrays, "kept", oracle.predictor.space)
        confidence = meta["confidence"]
        if not len(kept):
            raise ValueError("candidates are missing")
        if not (isinstance(confidence, float) and 0.5 <= confidence < 1):
            raise ValueError(f"confidence is {confidence}")
        _check_fixed(meta["fixed"], kept, oracle.predictor.space)
        own = {name: array for name, array in arrays.items() if name not in _ARRAYS}
        if any(np.abs(array).max(initial=0) > _MOST_WEIGHT for array in own.values()):
            raise ValueError("weights that cannot be")
        generator = cls.from_parts(meta, arrays, oracle, kept, confidence)
        if {*own} != {*generator.parts()[1]}:
            raise ValueError("arrays that no generator of this kind has")
        low, high = generator.range_ms
        if not 0 < low <= high <= MOST_MS:
            raise ValueError(f"candidates that take {low:g} to {high:g} ms")
    except _MISFITS as error:
        raise PredictorError(f"{path}: its parts do not fit together ({error})") from None
    return generator, meta


def _check_fixed(fixed: Mapping[str, Any], kept: Codes, space: Space) -> None:
    """ValueError where candidates (n, L) are not of the decisions that all answers share."""
    if not isinstance(fixed, dict):
        raise ValueError("what is fixed is no object")
    active = space.active(kept)
    for column, code in space.pinned(fixed).items():
        if (active[:, column] & (kept[:, column] != code)).any():
            raise ValueError(f"{space.decisions[column].name} is fixed, but candidates differ")


_MISFITS = (KeyError, TypeError, ValueError, OverflowError, UsageError, np.linalg.LinAlgError)


def enclosed(predictor: LatencyPredictor) -> NDArray[np.uint8]:
    """The whole file of a predictor (n,), to be an array of another file."""
    with tempfile.TemporaryDirectory() as folder:
        inside = Path(folder) / "oracle.hwp"
        predictor.save(inside)
        return np.frombuffer(inside.read_bytes(), dtype=np.uint8)


def disclosed(
    content: NDArray[np.generic],
    path: Path,
    space: Space | None = None,
    fingerprint_key: str | None = None,
) -> LatencyPredictor:
    """The predictor whose file (n,) was an array of ``path``; PredictorError as of a file."""
    with tempfile.TemporaryDirectory() as folder:
        inside = Path(folder) / "oracle.hwp"
        inside.write_bytes(content.astype(np.uint8).tobytes())
        try:
            return load_predictor(inside, space=space, fingerprint_key=fingerprint_key)
        except PredictorError as error:
            raise PredictorError(str(error).replace(str(inside), str(path))) from None


def _oracle(
    meta: Mapping[str, Any],
    arrays: Mapping[str, NDArray[np.generic]],
    predictor: LatencyPredictor,
    measurer: Measurer | None,
) -> BudgetOracle:
    own = predictor.meta
    if (meta["space"], meta["fingerprint_key"]) != (own.space, own.provenance.fingerprint_key):
        raise ValueError("its predictor is of another space or device")
    oracle = BudgetOracle(predictor, measurer=measurer)
    latency_ms, sd_ms = (numbers_of(arrays, name, MOST_MS) for name in ("known_ms", "known_sd_ms"))
    if not len(arrays["known"]) == len(latency_ms) == len(sd_ms):
        raise ValueError("latencies of known ones are missing")
    if len(latency_ms):
        oracle.know(codes_of(arrays, "known", predictor.space), latency_ms, sd_ms)
    return oracle
