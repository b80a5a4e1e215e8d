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
from hwbench.predictors import BudgetOracle, files, load_predictor
from hwbench.predictors.oracle import Measurer
from hwbench.search.answering import Answering, codes_of, numbers_of
from hwbench.spaces import Space

#: Kind -> module and class, imported when a file is of it.
_KINDS = {
    "pnag": ("hwbench.search.pnag.generator", "Generator"),
    "eas": ("hwbench.search.eas.generator", "TaskGenerator"),
}


def save_generator(
    generator: Answering, path: str | Path, *, objective: str, ledger: Mapping[str, float]
) -> None:
    """Write a generator file; ``objective`` names what was searched for, ``ledger`` its cost."""
    oracle = generator.oracle
    with tempfile.TemporaryDirectory() as folder:
        inside = Path(folder) / "oracle.hwp"
        oracle.predictor.save(inside)
        predictor = np.frombuffer(inside.read_bytes(), dtype=np.uint8)
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
        "predictor": predictor,
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
    try:
        oracle = _oracle(path, arrays, space, fingerprint_key, measurer)
        kept = codes_of(arrays, "kept", oracle.predictor.space)
        confidence = float(meta["confidence"])
        if not len(kept):
            raise ValueError("candidates are missing")
        if not 0.5 <= confidence < 1:
            raise ValueError(f"confidence is {confidence}")
        return cls.from_parts(meta, arrays, oracle, kept, confidence), meta
    except PredictorError:
        raise
    except (KeyError, TypeError, ValueError, UsageError, np.linalg.LinAlgError) as error:
        raise PredictorError(f"{path}: its parts do not fit together ({error})") from None


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
        known = codes_of(arrays, "known", predictor.space)
        oracle.know(known, numbers_of(arrays, "known_ms"), numbers_of(arrays, "known_sd_ms"))
    return oracle
