"""Results of pytest-benchmark and pyperf, taken over as what they are: figures of another tool.

What such a file says stays as it was said, in the state of the measurement's fingerprint
(:data:`IMPORTED`, as JSON). It makes no bursts and no undisturbed latency: no canary ran beside it.
The fingerprint's device is the tool's name, so that no series, level or comparison mixes the
tool's figures with ours. A file is a session, at its own time and with its own commit.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

from hwbench.errors import ImportFileError
from hwbench.inputs import require_finite
from hwbench.records import Fingerprint, Measurement, Percentile, Workload, digest
from hwbench.store.arrays import empty_bursts
from hwbench.store.documents import measurement_document, to_json

#: Why such a measurement ended; and where the state of its fingerprint keeps what the tool said.
IMPORTED: Final = "imported"
ENDINGS: Final = (".json", ".json.gz")
MAX_FILE_BYTES: Final = 256 << 20
_NS: Final = 1e9
_DIGITS: Final = 40


@dataclass(frozen=True, slots=True)
class ForeignFile:
    """What is known of a file as a whole: its session, and its parsed content and text."""

    path: Path
    session: str
    content: dict[str, Any]
    text: str


@dataclass(frozen=True, slots=True)
class ForeignResults:
    """The measurements of a file, and the names of what is no time of something.

    Without ``is_dated`` their time is that of the file.
    """

    measurements: tuple[Measurement, ...]
    left_out: tuple[str, ...] = ()
    is_dated: bool = True


def read_foreign(path: Path, *, limit_bytes: int = MAX_FILE_BYTES) -> ForeignResults:
    """The results in a file of pytest-benchmark or pyperf, by its content.

    Raises ImportFileError, in one line, for a file that is neither, damaged, or longer than
    ``limit_bytes`` (uncompressed). Nothing in it is executed.
    """
    with _failing(path):
        file = _opened(path, limit_bytes)
        if {"machine_info", "benchmarks"} <= file.content.keys():
            from hwbench.interchange.pytest_benchmark_json import read_pytest_benchmark as read
        elif {"version", "benchmarks"} <= file.content.keys():
            from hwbench.interchange.pyperf_read import read_pyperf as read
        else:
            raise ValueError("it is of neither pytest-benchmark nor pyperf: import a file of one")
        found = read(file)
        for measurement in found.measurements:
            measurement_document(measurement)
    return found


def foreign_files(folder: Path) -> list[Path]:
    """The files below a folder, as ``.benchmarks`` has them. ImportFileError where is none."""
    paths = sorted(p for p in folder.rglob("*") if p.name.endswith(ENDINGS) and p.is_file())
    if not paths:
        raise ImportFileError(f"cannot import {folder}: no .json file lies in it")
    return paths


def imported(
    file: ForeignFile,
    tool: str,
    name: str,
    *,
    created: str,
    median_s: float,
    facts: Mapping[str, str],
    tags: Mapping[str, str],
    said: object,
    options: Sequence[tuple[str, str]] = (),
) -> Measurement:
    """One result of another tool: its median as what was observed, and all that it ``said``."""
    return Measurement(
        workload=Workload(name, f"{tool}:{digest(name)}", (), 1, tuple(options)),
        fingerprint=Fingerprint(tool, facts, {IMPORTED: to_json(said)}),
        session=file.session,
        created=created,
        status="observed_only",
        latency_ns=None,
        low_ns=None,
        high_ns=None,
        confidence=0.0,
        canaries=(),
        beta=(),
        canary_ref_ns=(),
        epoch=None,
        observed=(Percentile(50.0, median_s * _NS, None, None),),
        bursts=empty_bursts(0),
        warmup="unknown",
        stop_reason=IMPORTED,
        contention={},
        seconds=0.0,
        tags=tags,
    )


def _opened(path: Path, limit_bytes: int) -> ForeignFile:
    require_finite(path)
    with path.open("rb") as raw:
        zipped = raw.peek(2)[:2] == b"\x1f\x8b"
        data = (gzip.GzipFile(fileobj=raw) if zipped else raw).read(limit_bytes + 1)
    if len(data) > limit_bytes:
        raise ValueError(f"it holds more than {limit_bytes >> 20} MiB")
    text = data.decode("utf-8-sig")
    try:
        content = json.loads(text, parse_constant=_refuse_constant, parse_int=_whole)
    except json.JSONDecodeError as error:
        raise ValueError(f"it is no JSON, or not all of it ({error}): save it again") from None
    if not isinstance(content, dict):
        raise ValueError("it is of neither pytest-benchmark nor pyperf: import a file of one")
    return ForeignFile(path, digest(content)[:12], content, text)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def _whole(digits: str) -> int:
    """A whole number; one of thousands of digits is none of either tool's."""
    if len(digits) > _DIGITS:
        raise ValueError(f"{digits[:_DIGITS]}… is no number that it could have measured")
    return int(digits)


@contextmanager
def _failing(path: Path) -> Iterator[None]:
    """Whatever a file can do to its reader, as one line."""
    try:
        yield
    except OSError as error:
        raise ImportFileError(f"cannot import {path}: {error.strerror or error}") from error
    except (EOFError, zlib.error) as error:
        raise ImportFileError(f"cannot import {path}: it does not decompress ({error})") from error
    except RecursionError:
        raise ImportFileError(f"cannot import {path}: it is nested too deeply") from None
    except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, KeyError):
            reason = f"it lacks {reason}"
        elif not isinstance(error, (OverflowError, ValueError)):
            reason = f"it is not as pytest-benchmark or pyperf writes one ({reason})"
        raise ImportFileError(f"cannot import {path}: {reason}") from error
