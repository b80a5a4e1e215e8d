"""Measurements out of hwbench and back: pyperf JSON, Parquet, CSV, and our own archive.

The archive (``.jsonl``, ``.jsonl.gz``) is lossless and imports back; the others are for the
tools that read them. Results of pyperf and pytest-benchmark come in as theirs (:mod:`.foreign`).
The modules behind load pyarrow or pyperf when they are first needed.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hwbench.errors import UnknownNameError, UsageError
from hwbench.inputs import require_finite
from hwbench.interchange.archive import (
    FORMAT,
    MAX_ARCHIVE_BYTES,
    opened,
    read_archive,
    write_archive,
)
from hwbench.interchange.files import replacing
from hwbench.interchange.foreign import ENDINGS, ForeignResults, foreign_files, read_foreign
from hwbench.records import CanaryEpoch, Measurement
from hwbench.store.documents import measurement_document

if TYPE_CHECKING:
    from hwbench.store import ImportReport, Store

__all__ = [
    "FORMATS",
    "ExportReport",
    "export",
    "format_of",
    "import_archive",
    "import_results",
]

#: The formats, each with the suffixes that choose it.
FORMATS: Final[dict[str, tuple[str, ...]]] = {
    "archive": (".jsonl", ".jsonl.gz"),
    "csv": (".csv",),
    "parquet": (".parquet",),
    "pyperf": (".json", ".json.gz"),
}


@dataclass(frozen=True, slots=True)
class ExportReport:
    """How many measurements were written, and the name of each that the format could not hold."""

    path: Path
    format: str
    measurements: int
    left_out: tuple[str, ...] = ()


def format_of(path: Path, format: str | None = None) -> str:
    """``format``, or the one that the suffix of ``path`` stands for. UsageError if unknown."""
    if format is not None:
        if format not in FORMATS:
            raise UnknownNameError("export format", format, FORMATS)
        return format
    for name, suffixes in FORMATS.items():
        if path.name.lower().endswith(suffixes):
            return name
    known = ", ".join(suffix for suffixes in FORMATS.values() for suffix in suffixes)
    raise UsageError(f"{path} does not tell the format: name one, or end the file with {known}")


def export(
    measurements: Sequence[Measurement],
    path: str | Path,
    format: str | None = None,
    *,
    samples: bool = False,
    epochs: Sequence[CanaryEpoch] = (),
) -> ExportReport:
    """Write measurements to a file, which appears whole or not at all.

    ``samples`` (CSV and Parquet) writes one row a sample instead of one a measurement; ``epochs``
    (archive) go along, so that absolute latencies keep what they rest on. pyperf and
    ``samples`` need measurements with their bursts. Raises UsageError for an unknown format, for
    nothing to write, for values that no file can hold, and for what the disk refuses.
    """
    path = Path(path)
    name = format_of(path, format)
    if not measurements:
        raise UsageError("there is no measurement to export: check the selection")
    if samples and name not in ("csv", "parquet"):
        raise UsageError(f"{name} has no table of samples: use csv or parquet")
    if epochs and name != "archive":
        raise UsageError(f"{name} holds no epochs: use archive")
    try:
        for measurement in measurements:
            measurement_document(measurement)
        with replacing(path) as draft:
            left_out = _write(name, measurements, draft, samples, epochs)
    except ValueError as error:
        raise UsageError(f"cannot export to {path}: {error}") from error
    return ExportReport(path, name, len(measurements) - len(left_out), tuple(left_out))


def _write(
    name: str,
    measurements: Sequence[Measurement],
    path: Path,
    samples: bool,
    epochs: Sequence[CanaryEpoch],
) -> Sequence[str]:
    """Write one format; return the name of each measurement that it could not hold."""
    if name == "archive":
        write_archive(measurements, epochs, path)
        return ()
    if name == "pyperf":
        from hwbench.interchange.pyperf_json import write_pyperf

        return write_pyperf(measurements, path)
    from hwbench.interchange import tables

    table = (tables.sample_table if samples else tables.measurement_table)(measurements)
    (tables.write_csv if name == "csv" else tables.write_parquet)(table, path)
    return ()


def import_archive(
    path: str | Path, store: Store, *, limit_bytes: int = MAX_ARCHIVE_BYTES
) -> ImportReport:
    """Import an archive into ``store``, all or nothing; what it already holds is not doubled.

    Raises ImportFileError for a file that is damaged, cut, foreign or longer than
    ``limit_bytes`` (uncompressed), StoreError where the store refuses.
    """
    return store.merge(read_archive(Path(path), limit_bytes=limit_bytes))


def import_results(path: str | Path, store: Store) -> tuple[ImportReport, tuple[str, ...]]:
    """Import an archive, a file of pytest-benchmark or pyperf (``.json``), or a folder of such.

    All or nothing; what the store holds already is not doubled. Answers what was added, and the
    names of foreign results that are no times. Raises ImportFileError, naming the file, StoreError.
    """
    path = Path(path)
    if not path.is_dir() and (not path.name.endswith(ENDINGS) or _is_archive(path)):
        return import_archive(path, store), ()
    files = foreign_files(path) if path.is_dir() else [path]
    found = [read_foreign(file) for file in files]
    report = store.merge(m for each in found for m in _as_first_read(each, store))
    return report, tuple(name for each in found for name in each.left_out)


def _as_first_read(found: ForeignResults, store: Store) -> Sequence[Measurement]:
    """Results whose file bears no date keep the time of their first import: a copy is newer."""
    if found.is_dated or not found.measurements:
        return found.measurements
    known = store.measurements(session=found.measurements[0].session, with_bursts=False)
    return [replace(m, created=known[0].created) if known else m for m in found.measurements]


def _is_archive(path: Path) -> bool:
    """Whether a file that ends as foreign ones do begins as our archive does."""
    try:
        require_finite(path)
        with opened(path) as file:
            return FORMAT.encode() in file.read(64)
    except (OSError, EOFError, zlib.error):
        return False  # whoever reads it says so
