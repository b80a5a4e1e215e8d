"""The file service: stat, list, push and pull (AOSP's ``file_sync_protocol.h``, v1 and v2).

Every request is an id, a length and a path; all numbers are little-endian.
"""

from __future__ import annotations

import contextlib
import os
import stat
import struct
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from tests.loopback.faults import CorruptPush, DropPush, Faults, Hang, NoSpace
from tests.loopback.wire import ClosedError, Stream

_REQUEST = struct.Struct("<4sI")
_STAT_V1 = struct.Struct("<III")  # mode, size, mtime
_STAT_V2 = struct.Struct("<IQQIIIIQqqq")  # error, dev, ino, mode, nlink, uid, gid, size, a/m/ctime
_CHUNK = 1 << 16
_PATH_BYTES = 1024


class SyncService:
    """Serves files; a relative path is under ``folder``."""

    def __init__(self, folder: Path, faults: Faults) -> None:
        self._folder, self._faults = folder, faults

    async def run(self, stream: Stream) -> None:
        """Answer requests until the host has enough."""
        while True:
            kind, length = _REQUEST.unpack(await stream.read_exactly(_REQUEST.size))
            if kind == b"QUIT":
                return
            if length > _PATH_BYTES:
                await _fail(stream, "path too long")
                return
            text = os.fsdecode(await stream.read_exactly(length))
            path = self._folder / text
            if kind == b"STAT":
                await stream.write(kind + _stat_v1(path))
            elif kind == b"STA2":
                await stream.write(kind + _stat_v2(path, os.stat))
            elif kind == b"LST2":
                await stream.write(kind + _stat_v2(path, os.lstat))
            elif kind in (b"LIST", b"LIS2"):
                await _list(stream, path, kind)
            elif kind == b"RECV":
                await _pull(stream, path)
            elif kind == b"RCV2":
                await stream.read_exactly(_REQUEST.size)  # no compression: none was offered
                await _pull(stream, path)
            elif kind == b"SEND":
                name, _, mode = text.rpartition(",")
                await self._push(stream, self._folder / name, int(mode))
            elif kind == b"SND2":
                _, mode, _ = struct.unpack("<4sII", await stream.read_exactly(12))
                await self._push(stream, path, mode)
            else:
                await _fail(stream, f"unknown command {kind!r}")
                return

    async def _push(self, stream: Stream, path: Path, mode: int) -> None:
        name = str(path)
        if hang := self._faults.take(Hang, name):
            self._faults.go_mute(hang.seconds)
        if self._faults.take(NoSpace, name):
            await _refuse(stream, "write failed: No space left on device")
            return
        if stat.S_ISLNK(mode):
            await _refuse(stream, "symbolic links are not stored")
            return
        drop = self._faults.take(DropPush, name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                mtime = await _store(stream, file, drop)
        except OSError as error:
            await _refuse(stream, f"couldn't create file: {error.strerror}")
            return
        if self._faults.take(CorruptPush, name):
            _flip_byte(path)
        path.chmod(stat.S_IMODE(mode))
        os.utime(path, (mtime, mtime))
        await stream.write(_REQUEST.pack(b"OKAY", 0))


async def _store(stream: Stream, file: BinaryIO, drop: DropPush | None) -> int:
    """Write what the host sends; its modification time, in s."""
    stored = 0
    value: int
    while True:
        kind, value = _REQUEST.unpack(await stream.read_exactly(_REQUEST.size))
        if kind == b"DONE":
            return value
        if kind != b"DATA" or value > _CHUNK:
            raise ClosedError
        data = await stream.read_exactly(value)
        if drop and stored + len(data) >= drop.after_bytes:
            file.write(data[: drop.after_bytes - stored])
            stream.connection.abort()
            raise ClosedError
        stored += file.write(data)


async def _refuse(stream: Stream, message: str) -> None:
    """As adbd does: report, and let the host send the rest into the void."""
    await _fail(stream, message)
    while True:
        kind, value = _REQUEST.unpack(await stream.read_exactly(_REQUEST.size))
        if kind != b"DATA":
            return
        await stream.read_exactly(value)


async def _pull(stream: Stream, path: Path) -> None:
    try:
        file = path.open("rb")
    except OSError as error:
        await _fail(stream, f"open failed: {error.strerror}")
        return
    with file:
        while data := file.read(_CHUNK):
            await stream.write(_REQUEST.pack(b"DATA", len(data)) + data)
    await stream.write(_REQUEST.pack(b"DONE", 0))


async def _list(stream: Stream, path: Path, kind: bytes) -> None:
    v2 = kind == b"LIS2"
    names = []
    with contextlib.suppress(OSError):
        names = sorted(os.listdir(path))
    for name in names:
        entry, raw = path / name, os.fsencode(name)
        head = b"DNT2" + _stat_v2(entry, os.lstat) if v2 else b"DENT" + _stat_v1(entry)
        await stream.write(head + struct.pack("<I", len(raw)) + raw)
    await stream.write(b"DONE" + bytes((_STAT_V2 if v2 else _STAT_V1).size + 4))


def _stat_v1(path: Path) -> bytes:
    try:
        found = os.lstat(path)
    except OSError:
        return bytes(_STAT_V1.size)
    return _STAT_V1.pack(found.st_mode, found.st_size & 0xFFFFFFFF, int(found.st_mtime))


def _stat_v2(path: Path, look: Callable[[Path], os.stat_result]) -> bytes:
    try:
        s = look(path)
    except OSError as error:
        return _STAT_V2.pack(error.errno or 0, *[0] * 10)
    owner = (s.st_mode, s.st_nlink, s.st_uid, s.st_gid)
    times = (int(s.st_atime), int(s.st_mtime), int(s.st_ctime))
    return _STAT_V2.pack(0, s.st_dev, s.st_ino, *owner, s.st_size, *times)


def _flip_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


async def _fail(stream: Stream, message: str) -> None:
    raw = message.encode(errors="replace")
    await stream.write(_REQUEST.pack(b"FAIL", len(raw)) + raw)
