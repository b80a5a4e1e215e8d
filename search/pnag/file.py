"""The generator file ``.hwg``: plain arrays and JSON as a predictor's file, nothing to execute.

It holds the policy, the labelled architectures that the evaluator is made of, the candidates kept,
what was measured, and the whole predictor file: a generator is of one space and one device, and
both are checked when it is loaded.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import hwbench
from hwbench.errors import GraphError, PredictorError
from hwbench.predictors import BudgetOracle, files, load_predictor
from hwbench.predictors.oracle import Measurer
from hwbench.search.accuracy.model import AccuracyModel
from hwbench.search.pnag.generator import Generator
from hwbench.search.pnag.policy import Policy
from hwbench.spaces import Codes, Space

KIND, VERSION = "pnag", 1


def save_generator(
    generator: Generator, path: str | Path, *, objective: str, ledger: Mapping[str, float]
) -> None:
    """Write a generator file; ``objective`` names what was searched for, ``ledger`` its cost."""
    evaluator, oracle = generator.evaluator, generator.oracle
    with tempfile.TemporaryDirectory() as folder:
        inside = Path(folder) / "oracle.hwp"
        oracle.predictor.save(inside)
        predictor = np.frombuffer(inside.read_bytes(), dtype=np.uint8)
    known = oracle.known
    meta = {
        "generator": KIND,
        "generator_version": VERSION,
        "space": generator.space.name,
        "fingerprint_key": oracle.predictor.meta.provenance.fingerprint_key,
        "confidence": generator.confidence,
        "objective": objective,
        "length": evaluator.length,
        "noise": evaluator.noise,
        "ledger": dict(ledger),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "hwbench": hwbench.__version__,
    }
    arrays: dict[str, NDArray[np.generic]] = {
        "predictor": predictor,
        "kept": generator.kept.astype(np.int16),
        "labelled": evaluator.codes.astype(np.int16),
        "accuracy": evaluator.accuracy,
        "known": known.codes.astype(np.int16),
        "known_ms": known.latency_ms,
        "known_sd_ms": known.sd_ms,
        **{f"policy.{name}": array for name, array in generator.policy.state().items()},
    }
    files.write(Path(path), meta, arrays)


def load_generator(
    path: str | Path,
    *,
    space: Space | None = None,
    fingerprint_key: str | None = None,
    measurer: Measurer | None = None,
) -> tuple[Generator, dict[str, Any]]:
    """Read a generator file, and its header. No code in it is executed.

    ``space`` is looked up by its name unless given; with ``fingerprint_key`` a generator for
    another device is refused. PredictorError gives the reason in one line.
    """
    path = Path(path)
    meta, arrays = files.read(path)
    if meta.get("generator") != KIND:
        raise PredictorError(f"{path} is no generator: make one with hwbench search pnag")
    if meta.get("generator_version") != VERSION:
        raise PredictorError(
            f"{path} has version {meta.get('generator_version')!r} of the generator's format, this "
            f"hwbench reads {VERSION}: search again"
        )
    try:
        oracle = _oracle(path, arrays, space, fingerprint_key, measurer)
        evaluator = AccuracyModel(
            oracle.predictor.space,
            _codes(arrays, "labelled", oracle.predictor.space),
            _numbers(arrays, "accuracy"),
            float(meta["length"]),
            float(meta["noise"]),
        )
        policy = Policy.restored(_below(arrays, "policy."), evaluator.space)
        kept, confidence = _codes(arrays, "kept", evaluator.space), float(meta["confidence"])
        if len(evaluator.codes) != len(evaluator.accuracy) or not len(kept):
            raise ValueError("labels or candidates are missing")
        if not 0.5 <= confidence < 1:
            raise ValueError(f"confidence is {confidence}")
    except (KeyError, TypeError, ValueError, GraphError, np.linalg.LinAlgError) as error:
        raise PredictorError(f"{path}: its parts do not fit together ({error})") from None
    return Generator(policy, evaluator, oracle, kept, confidence), meta


def _oracle(
    path: Path,
    arrays: Mapping[str, NDArray[np.generic]],
    space: Space | None,
    fingerprint_key: str | None,
    measurer: Measurer | None,
) -> BudgetOracle:
    with tempfile.TemporaryDirectory() as folder:
        inside = Path(folder) / "oracle.hwp"
        inside.write_bytes(arrays["predictor"].astype(np.uint8).tobytes())
        try:
            predictor = load_predictor(inside, space=space, fingerprint_key=fingerprint_key)
        except PredictorError as error:
            raise PredictorError(str(error).replace(str(inside), str(path))) from None
    oracle = BudgetOracle(predictor, measurer=measurer)
    if len(arrays["known"]):
        known = _codes(arrays, "known", predictor.space)
        oracle.know(known, _numbers(arrays, "known_ms"), _numbers(arrays, "known_sd_ms"))
    return oracle


def _below(
    arrays: Mapping[str, NDArray[np.generic]], prefix: str
) -> dict[str, NDArray[np.generic]]:
    return {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}


def _codes(arrays: Mapping[str, NDArray[np.generic]], name: str, space: Space) -> Codes:
    rows = space.canonical(arrays[name])
    if not space.valid(rows).all():
        raise ValueError(f"{name} has codes of no network")
    return rows


def _numbers(arrays: Mapping[str, NDArray[np.generic]], name: str) -> NDArray[np.float64]:
    values = arrays[name].astype(np.float64)
    if values.ndim != 1:
        raise ValueError(f"{name} has shape {values.shape}")
    return values
