"""hwbench's own archive: JSON lines that import back to equal measurements, to the last sample.

The first line is a header, then one line an epoch or measurement, and the last line holds
their number and the SHA-256 of all bytes before it, so that a cut or changed file shows. Arrays
are base64 of the store's packed form. Nothing in a file is executed, and what one can make
us read or inflate is bounded.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final, NoReturn

from hwbench.errors import ImportFileError
from hwbench.interchange.files import writing
from hwbench.records import CanaryEpoch, Measurement
from hwbench.store.arrays import BURST_ARRAYS, pack_bursts, unpack_bursts
from hwbench.store.documents import (
    EPOCH,
    Check,
    check_document,
    check_measurement,
    epoch_document,
    epoch_of,
    integer,
    measurement_document,
    measurement_of,
    text,
    to_json,
)

FORMAT: Final = "hwbench-archive"
VERSION: Final = 3

#: A measurement of a million samples takes a line of 4 MiB.
MAX_LINE_BYTES: Final = 64 << 20
MAX_ARRAYS_BYTES: Final = 256 << 20
MAX_ARCHIVE_BYTES: Final = 4 << 30

_COUNTS: Final = ("burst_count", "sample_count", "canary_count")
_BURSTS: Final[dict[str, Check]] = {
    **dict.fromkeys(_COUNTS, integer),
    **{name: text for name, _ in BURST_ARRAYS},
}


def write_archive(
    measurements: Sequence[Measurement],
    epochs: Sequence[CanaryEpoch],
    path: Path,
) -> None:
    """Write epochs and measurements. Raises ValueError for what a store would refuse."""
    sha = hashlib.sha256()
    with writing(path) as file:

        def put(record: dict[str, Any]) -> None:
            line = _line(record)
            sha.update(line)
            file.write(line)

        put({"format": FORMAT, "version": VERSION})
        for epoch in epochs:
            put({"epoch": epoch_document(epoch)})
        for measurement in measurements:
            put(measurement_record(measurement))
        file.write(_end(len(epochs) + len(measurements), sha.hexdigest()))


def _line(record: dict[str, Any]) -> bytes:
    return to_json(record).encode() + b"\n"


def _end(records: int, sha256: str) -> bytes:
    return _line({"records": records, "sha256": sha256})


def read_archive(
    path: Path, *, limit_bytes: int = MAX_ARCHIVE_BYTES
) -> Iterator[Measurement | CanaryEpoch]:
    """Epochs and measurements of an archive, one at a time.

    Raises ImportFileError, naming the line, for a file that is damaged, cut, of another format
    or version, or longer than ``limit_bytes`` (uncompressed). Only after the last record is it
    certain that the file is whole: take all or none.
    """
    lines = _Lines(path, limit_bytes)
    try:
        _check_header(lines, path)
        yield from _records(lines)
    finally:
        lines.close()


def _check_header(lines: _Lines, path: Path) -> None:
    foreign = f"{path} is no hwbench archive: import a .jsonl file that `hwbench export` wrote"
    try:
        header = next(lines, {})
    except ImportFileError as error:
        raise ImportFileError(foreign) from error
    version = header.get("version")
    if header.get("format") != FORMAT or type(version) is not int:
        raise ImportFileError(foreign)
    if version != VERSION:
        raise ImportFileError(
            f"cannot import {path}: its archive version is {version}, this hwbench reads "
            f"{VERSION}: {'update hwbench' if version > VERSION else 'export it again'}"
        )


def _records(lines: _Lines) -> Iterator[Measurement | CanaryEpoch]:
    before, count = lines.sha256, 0
    for line in lines:
        if set(line) == {"records", "sha256"}:
            if lines.raw != _end(count, before):  # its own bytes, which no checksum covers
                lines.fail("the file was changed: its checksum differs")
            if next(lines, None) is not None:
                lines.fail("there is more after the archive's end")
            return
        with lines.failing():
            record = record_of(line)
        yield record
        before, count = lines.sha256, count + 1
    lines.fail("the file is cut off: export it again")


def _pack(measurement: Measurement) -> dict[str, Any]:
    bursts = measurement.bursts
    counts = (len(bursts), bursts.sample_ns.size, bursts.canary_ns.shape[2])
    arrays = {k: base64.b64encode(blob).decode() for k, blob in pack_bursts(bursts).items()}
    return {**dict(zip(_COUNTS, counts, strict=True)), **arrays}


def measurement_record(measurement: Measurement) -> dict[str, Any]:
    """A measurement in JSON's own types. Raises ValueError for one that a store would refuse."""
    return {"measurement": measurement_document(measurement), "bursts": _pack(measurement)}


def record_of(record: dict[str, Any]) -> Measurement | CanaryEpoch:
    """The record behind an archive's line. Raises ValueError where it is none."""
    if set(record) == {"epoch"}:
        check_document(record["epoch"], EPOCH)
        return epoch_of(record["epoch"])
    if set(record) != {"measurement", "bursts"}:
        raise ValueError("is neither an epoch nor a measurement")
    check_measurement(record["measurement"])
    packed = record["bursts"]
    check_document(packed, _BURSTS)
    bursts_count, samples, canaries = (packed[name] for name in _COUNTS)
    if min(bursts_count, samples, canaries) < 0:
        raise ValueError("has a negative count")
    if 8 * (samples + bursts_count * (canaries + len(BURST_ARRAYS))) > MAX_ARRAYS_BYTES:
        raise ValueError(f"has arrays of more than {MAX_ARRAYS_BYTES >> 20} MiB")
    blobs = {name: base64.b64decode(packed[name], validate=True) for name, _ in BURST_ARRAYS}
    return measurement_of(
        record["measurement"], unpack_bursts(blobs, bursts_count, samples, canaries)
    )


class _Lines(Iterator[dict[str, Any]]):
    """The JSON objects of a file's lines.

    ``raw`` is the line of the last one, ``sha256`` that of all bytes up to its end.
    """

    def __init__(self, path: Path, limit_bytes: int) -> None:
        self._path, self._limit = path, limit_bytes
        self._number = self._bytes = 0
        self._sha = hashlib.sha256()
        self.raw = b""
        with self.failing():
            self._file = opened(path)

    @property
    def sha256(self) -> str:
        return self._sha.hexdigest()

    def close(self) -> None:
        self._file.close()

    def __next__(self) -> dict[str, Any]:
        with self.failing():
            line = self.raw = self._file.readline(MAX_LINE_BYTES + 1)
        if not line:
            raise StopIteration
        self._number += 1
        self._bytes += len(line)
        if len(line) > MAX_LINE_BYTES or self._bytes > self._limit:
            self.fail("the file is too large: export fewer measurements to each")
        if not line.endswith(b"\n"):
            self.fail("the file is cut off: export it again")
        self._sha.update(line)
        with self.failing():
            record = json.loads(line.decode("utf-8"), parse_constant=_refuse_constant)
            if not isinstance(record, dict):
                raise ValueError("is not an object")
        return record

    def fail(self, what: str) -> NoReturn:
        raise ImportFileError(f"cannot import {self._path}: line {self._number}: {what}")

    @contextmanager
    def failing(self) -> Iterator[None]:
        """Whatever a file can do to its reader, as one line."""
        try:
            yield
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            self.fail(f"the file does not decompress ({error}): export it again")
        except OSError as error:
            reason = error.strerror or error
            raise ImportFileError(f"cannot import {self._path}: {reason}") from error
        except RecursionError:
            self.fail("is nested too deeply")
        except ValueError as error:
            self.fail(" ".join(str(error).split()))


def opened(path: Path) -> IO[bytes] | gzip.GzipFile:
    """A file's bytes, unpacked where they begin as gzip's do."""
    file = path.open("rb")
    if file.peek(2)[:2] != b"\x1f\x8b":
        return file
    return gzip.GzipFile(fileobj=file)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")
