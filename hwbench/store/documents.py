"""Measurements as plain JSON documents: the one form behind store, archive and digest.

A document holds all of a :class:`Measurement` except the arrays of its bursts. It is checked
where it crosses the border, in both directions: NaN (which SQLite would turn into NULL),
foreign types and text that is not Unicode are refused, never coerced.
"""

from __future__ import annotations

import json
import math
import numbers
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, get_args

from hwbench.machine import MACHINE_FACT
from hwbench.records import (
    Bursts,
    CanaryEpoch,
    Fingerprint,
    InputSpec,
    Measurement,
    Outcome,
    Percentile,
    Status,
    Workload,
    digest,
)
from hwbench.store.arrays import check_bursts

Document = dict[str, Any]
Check = Callable[[Any], None]

_INT64: Final = 2**63
#: Nothing takes less (light crosses an atom in it): what does is no time.
LEAST_NS: Final = 1e-9


def text(value: Any) -> None:
    """Accept Unicode text; a lone surrogate (an undecodable file name) is not text."""
    if not isinstance(value, str):
        raise ValueError(f"must be text, is {type(value).__name__}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"is not valid Unicode: {value!r}") from error


def real(value: Any) -> None:
    """Accept a finite float."""
    if not isinstance(value, float) or not math.isfinite(value):
        raise ValueError(f"must be a finite number, is {value!r}")


def amount(value: Any) -> None:
    """Accept a finite float that is not negative."""
    real(value)
    if value < 0:
        raise ValueError(f"must not be negative, is {value!r}")


def within(low: float, high: float) -> Check:
    """A finite float in a range, its ends too."""

    def accept(value: Any) -> None:
        real(value)
        if not low <= value <= high:
            raise ValueError(f"must lie between {low} and {high}, is {value!r}")

    return accept


def integer(value: Any) -> None:
    """Accept an integer of 64 bits."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"must be an integer, is {value!r}")
    if not -_INT64 <= value < _INT64:
        raise ValueError(f"exceeds 64 bits: {value}")


def count(value: Any) -> None:
    """Accept an integer of 64 bits that is not negative."""
    integer(value)
    if value < 0:
        raise ValueError(f"must not be negative, is {value}")


def positive(value: Any) -> None:
    """Accept an integer of 64 bits from 1 on."""
    integer(value)
    if value < 1:
        raise ValueError(f"must be 1 or more, is {value}")


def instant(value: Any) -> None:
    """Accept an ISO 8601 time with its UTC offset, of a year that UTC has as well."""
    text(value)
    microseconds(value)
    try:
        datetime.fromisoformat(value).astimezone(UTC)
    except OverflowError:
        raise ValueError(f"lies beyond the calendar: {value!r}") from None


def optional(check: Check) -> Check:
    """``check``, or ``None``."""

    def accept(value: Any) -> None:
        if value is not None:
            check(value)

    return accept


def row(*checks: Check) -> Check:
    """A list of exactly these items."""

    def accept(value: Any) -> None:
        if not isinstance(value, list) or len(value) != len(checks):
            raise ValueError(f"must be a list of {len(checks)}, is {value!r}")
        for check, item in zip(checks, value, strict=True):
            check(item)

    return accept


def many(check: Check) -> Check:
    """A list of any length."""

    def accept(value: Any) -> None:
        if not isinstance(value, list):
            raise ValueError(f"must be a list, is {type(value).__name__}")
        for item in value:
            check(item)

    return accept


def table(check: Check) -> Check:
    """An object with text keys."""

    def accept(value: Any) -> None:
        if not isinstance(value, dict):
            raise ValueError(f"must be an object, is {type(value).__name__}")
        for key, item in value.items():
            text(key)
            check(item)

    return accept


def one_of(*known: str) -> Check:
    """One of the known words."""

    def accept(value: Any) -> None:
        if value not in known:
            raise ValueError(f"must be one of {', '.join(known)}, is {value!r}")

    return accept


MEASUREMENT: Final[Mapping[str, Check]] = {
    "name": text,
    "space": optional(text),
    "arch": optional(text),
    "model_hash": text,
    "inputs": many(row(text, text, many(integer))),
    "threads": positive,
    "options": many(row(text, text)),
    "device": text,
    "facts": table(text),
    "state": table(text),
    "session": text,
    "created": instant,
    "status": one_of(*get_args(Status)),
    "latency_ns": optional(amount),
    "low_ns": optional(amount),
    "high_ns": optional(amount),
    "confidence": within(0, 1),
    "canaries": many(text),
    "beta": many(real),
    "canary_ref_ns": many(real),
    "epoch": optional(text),
    "observed": many(row(within(0, 100), optional(amount), optional(amount), optional(amount))),
    "warmup": text,
    "stop_reason": text,
    "contention": table(real),
    "seconds": amount,
    "load_ns": optional(count),
    "first_inference_ns": optional(count),
    "footprint_bytes": optional(count),
    "peak_memory_bytes": optional(count),
    "session_sd": within(0, 1),
    "energy_mj": optional(real),
    "tags": table(text),
}

EPOCH: Final[Mapping[str, Check]] = {
    "id": text,
    "fingerprint_key": text,
    "threads": integer,
    "names": many(text),
    "canary_key": text,
    "c0_ns": many(real),
    "c0_low_ns": many(real),
    "c0_high_ns": many(real),
    "runs": integer,
    "created": instant,
}

CANARY_RUN: Final[Mapping[str, Check]] = {
    "fingerprint_key": text,
    "canary_key": text,
    "threads": integer,
    "session": text,
    "created": instant,
}

#: Without its evidence, which is any JSON.
VERDICT: Final[Mapping[str, Check]] = {
    "claim": text,
    "protocol": text,
    "outcome": one_of(*get_args(Outcome)),
    "figure": optional(text),
    "created": instant,
}


def check_document(document: Any, fields: Mapping[str, Check]) -> None:
    """Raise ValueError, naming the field, unless ``document`` is exactly of these fields."""
    if not isinstance(document, dict):
        raise ValueError("is not an object")
    if wrong := sorted(set(fields) ^ set(document)):
        raise ValueError(f"{'lacks' if wrong[0] in fields else 'has an unknown'} field {wrong[0]}")
    for name, check in fields.items():
        try:
            check(document[name])
        except ValueError as error:
            raise ValueError(f"{name} {error}") from error


def check_measurement(document: Any) -> None:
    """Raise ValueError, naming the field, unless ``document`` is that of a measurement."""
    check_document(document, MEASUREMENT)
    low, latency, high = (document[name] for name in ("low_ns", "latency_ns", "high_ns"))
    if low is None and latency is None and high is None:
        if document["status"] == "ok":
            raise ValueError("latency_ns is missing, though its status is ok")
        return
    if low is None or latency is None or high is None:
        raise ValueError("latency_ns, low_ns and high_ns belong together: some are missing")
    if not LEAST_NS <= low <= latency <= high:
        raise ValueError(f"latency_ns {latency} must be a time within its interval {low} to {high}")
    if not 0 < document["confidence"] < 1:
        raise ValueError(f"confidence {document['confidence']} of an interval cannot be")


def measurement_document(measurement: Measurement) -> Document:
    """The checked document of a measurement, whose bursts are checked too.

    Raises ValueError with the field at fault.
    """
    m, work, print_ = measurement, measurement.workload, measurement.fingerprint
    document: Document = {
        "name": work.name,
        "space": work.space,
        "arch": work.arch,
        "model_hash": work.model_hash,
        "inputs": [[i.name, i.dtype, _numbers(i.shape)] for i in work.inputs],
        "threads": _number(work.threads),
        "options": [list(pair) for pair in work.options],
        "device": print_.device,
        "facts": dict(print_.facts),
        "state": dict(print_.state),
        "session": m.session,
        "created": m.created,
        "status": m.status,
        "latency_ns": _real(m.latency_ns),
        "low_ns": _real(m.low_ns),
        "high_ns": _real(m.high_ns),
        "confidence": _real(m.confidence),
        "canaries": list(m.canaries),
        "beta": _reals(m.beta),
        "canary_ref_ns": _reals(m.canary_ref_ns),
        "epoch": m.epoch,
        "observed": [_reals((p.q, p.value_ns, p.low_ns, p.high_ns)) for p in m.observed],
        "warmup": m.warmup,
        "stop_reason": m.stop_reason,
        "contention": {key: _real(value) for key, value in m.contention.items()},
        "seconds": _real(m.seconds),
        "load_ns": _number(m.load_ns),
        "first_inference_ns": _number(m.first_inference_ns),
        "footprint_bytes": _number(m.footprint_bytes),
        "peak_memory_bytes": _number(m.peak_memory_bytes),
        "session_sd": _real(m.session_sd),
        "energy_mj": _real(m.energy_mj),
        "tags": dict(m.tags),
    }
    check_measurement(document)
    check_bursts(m.bursts)
    return document


def measurement_of(
    document: Document, bursts: Bursts, fingerprint: Fingerprint | None = None
) -> Measurement:
    """The measurement behind a checked document; ``fingerprint`` spares making it again."""
    d = document
    return Measurement(
        workload=Workload(
            name=d["name"],
            model_hash=d["model_hash"],
            inputs=tuple(InputSpec(name, kind, tuple(shape)) for name, kind, shape in d["inputs"]),
            threads=d["threads"],
            options=tuple((key, value) for key, value in d["options"]),
            space=d["space"],
            arch=d["arch"],
        ),
        fingerprint=fingerprint or Fingerprint(d["device"], d["facts"], d["state"]),
        session=d["session"],
        created=d["created"],
        status=d["status"],
        latency_ns=d["latency_ns"],
        low_ns=d["low_ns"],
        high_ns=d["high_ns"],
        confidence=d["confidence"],
        canaries=tuple(d["canaries"]),
        beta=tuple(d["beta"]),
        canary_ref_ns=tuple(d["canary_ref_ns"]),
        epoch=d["epoch"],
        observed=tuple(Percentile(*item) for item in d["observed"]),
        bursts=bursts,
        warmup=d["warmup"],
        stop_reason=d["stop_reason"],
        contention=d["contention"],
        seconds=d["seconds"],
        load_ns=d["load_ns"],
        first_inference_ns=d["first_inference_ns"],
        footprint_bytes=d["footprint_bytes"],
        peak_memory_bytes=d["peak_memory_bytes"],
        session_sd=d["session_sd"],
        energy_mj=d["energy_mj"],
        tags=d["tags"],
    )


def epoch_document(epoch: CanaryEpoch) -> Document:
    """The checked document of a canary epoch. Raises ValueError with the field at fault."""
    document: Document = {
        "id": epoch.id,
        "fingerprint_key": epoch.fingerprint_key,
        "threads": _number(epoch.threads),
        "names": list(epoch.names),
        "canary_key": epoch.canary_key,
        "c0_ns": _reals(epoch.c0_ns),
        "c0_low_ns": _reals(epoch.c0_low_ns),
        "c0_high_ns": _reals(epoch.c0_high_ns),
        "runs": _number(epoch.runs),
        "created": epoch.created,
    }
    check_document(document, EPOCH)
    return document


def epoch_of(document: Document) -> CanaryEpoch:
    """The epoch behind a checked document. Raises ValueError where its times make no sense."""
    lists = ("names", "c0_ns", "c0_low_ns", "c0_high_ns")
    if len({len(document[name]) for name in lists}) != 1:
        raise ValueError("names, c0_ns, c0_low_ns and c0_high_ns differ in length")
    for low, c0, high in zip(*(document[n] for n in (lists[2], lists[1], lists[3])), strict=True):
        if not 0 < low <= c0 <= high:
            raise ValueError(f"c0_ns {c0} must lie above 0 and within its interval {low} to {high}")
    return CanaryEpoch(**{**document, **{name: tuple(document[name]) for name in lists}})


def content_digest(document: Document, samples: str) -> str:
    """What makes a measurement itself, with its bursts' checksum: equal digest, the same one.

    Its machine does not: stores and archives of before machines were told apart name none.
    """
    facts = {name: fact for name, fact in document["facts"].items() if name != MACHINE_FACT}
    return digest({**document, "facts": facts, "bursts": samples})


def to_json(value: Any) -> str:
    """JSON text of plain values. Raises ValueError for NaN, infinity and foreign types."""
    try:
        return json.dumps(value, allow_nan=False, ensure_ascii=True, separators=(",", ":"))
    except TypeError as error:
        raise ValueError(str(error)) from error


def microseconds(created: str) -> int:
    """Microseconds since 1970 of an ISO 8601 time. Raises ValueError without a UTC offset."""
    try:
        moment = datetime.fromisoformat(created)
    except ValueError:
        raise ValueError(f"{created!r} is no time: write 2026-01-31T12:00:00+00:00") from None
    if moment.tzinfo is None:
        raise ValueError(f"needs a UTC offset, as in 2026-01-31T12:00:00+00:00: {created!r}")
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def _real(value: Any) -> Any:
    """A numpy scalar or an int as float; whatever is no number stays, to be refused."""
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        return float(value) + 0.0  # -0.0 becomes 0.0: SQLite keeps no sign of zero
    return value


def _reals(values: Any) -> list[Any]:
    return [_real(value) for value in values]


def _number(value: Any) -> Any:
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        return int(value)
    return value


def _numbers(values: Any) -> list[Any]:
    return [_number(value) for value in values]
