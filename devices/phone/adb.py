"""Phones through the adb program: find it, choose a phone, and run its shell.

adb itself is somebody's binary of any age (29 and 36 are tested), so nothing is taken from its
exit codes that :mod:`hwbench.devices.phone.shell` or the list of devices can tell.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hwbench.devices.phone.process import Ended, call
from hwbench.devices.phone.script import block_script, clean, split_block
from hwbench.devices.phone.shell import NO_SPACE, QUICK_S, Shell
from hwbench.errors import (
    AdbMissingError,
    DeviceError,
    DeviceOfflineError,
    NoDeviceError,
    NoSpaceError,
    PushError,
    SeveralDevicesError,
    ShellError,
    UnauthorisedError,
    UnsupportedDeviceError,
    UsageError,
)

REMOTE_FOLDER = "/data/local/tmp/hwbench"
#: The first call may have to start adb's server, which takes some seconds.
_CLIENT_S = 30.0
_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 2.0
#: Serials of phones in a network, which adb forgets when their connection drops.
_NETWORK_SERIAL = re.compile(r"[^:]+:\d+|\[[^\]]+\]:\d+")
#: States that pass by themselves.
_PASSING = frozenset({"offline", "authorizing", "connecting"})
_CONNECT = "connect it by USB with USB debugging on, or say `adb connect HOST:PORT`"


@dataclass(frozen=True, slots=True)
class Listed:
    """One line of adb's list of devices."""

    serial: str
    state: str


def check_serial(serial: str) -> str:
    """A serial that is safe to hand to adb. Raises UsageError for what no serial looks like."""
    if not serial or serial.startswith("-") or " " in serial or not serial.isprintable():
        raise UsageError(
            f"{clean(serial)!r} is no serial of a device: take one that `adb devices` lists"
        )
    return serial


@dataclass(frozen=True, slots=True)
class Adb:
    """A working adb program."""

    path: Path
    version: str

    @classmethod
    def find(cls, named: Path | None = None) -> Adb:
        """The named adb, or the one on PATH, or the one that the package adbutils brings.

        Raises AdbMissingError where there is none, or where it does not run.
        """
        path = named or _on_path() or _of_adbutils()
        if path is None:
            raise AdbMissingError(
                "no adb on this machine: install it (Debian, Ubuntu: apt install adb), or"
                " pip install 'hwbench[mobile]'"
            )
        try:
            ended = call([str(path), "version"], _CLIENT_S)
        except ShellError as error:
            raise AdbMissingError(f"{error}: name an adb that runs") from error
        found = re.search(r"^Version (\S+)", ended.output.decode(errors="replace"), re.MULTILINE)
        if ended.code != 0 or found is None:
            raise AdbMissingError(f"{clean(str(path))} is no adb that works here: name another")
        return cls(path, clean(found[1]))

    def devices(self) -> tuple[Listed, ...]:
        """All devices that adb's server knows, in whatever state. Starts the server."""
        ended = call([str(self.path), "devices"], _CLIENT_S)
        text = ended.output.decode(errors="replace")
        _, header, table = text.partition("List of devices attached")
        if ended.code != 0 or not header:
            said = clean(ended.errors.decode(errors="replace") or text, 160) or "it said nothing"
            raise DeviceError(
                f"adb does not list its devices ({said}): try `adb kill-server`, then again"
            )
        rows = (line.split("\t", 1) for line in table.splitlines() if "\t" in line)
        return tuple(Listed(serial, clean(state)) for serial, state in rows)

    def choose(self, serial: str | None = None) -> str:
        """The serial of the phone to use: the given one, or the only one there is.

        Raises NoDeviceError, SeveralDevicesError, UnauthorisedError or DeviceOfflineError, and
        UsageError for what is no serial.
        """
        if serial is not None:
            check_serial(serial)
        listed = self.devices()
        names = ", ".join(f"{clean(d.serial)} ({d.state})" for d in listed)
        if serial is None and len(listed) > 1:
            raise SeveralDevicesError(f"several devices are connected, choose one: {names}")
        mine = [d for d in listed if serial in (None, d.serial)]
        if not mine:
            what = "no device" if serial is None else f"no device {serial}"
            raise NoDeviceError(f"{what} is connected: {_CONNECT} (there is: {names or 'none'})")
        trouble = state_error(mine[0].serial, mine[0].state)
        if trouble:
            raise trouble
        return check_serial(mine[0].serial)

    def state(self, serial: str) -> str | None:
        """What adb says of a device now; None where it does not know it."""
        return next((d.state for d in self.devices() if d.serial == serial), None)


def _on_path() -> Path | None:
    found = shutil.which("adb")
    return Path(found) if found else None


def _of_adbutils() -> Path | None:
    from importlib.resources import files

    try:
        binary = Path(str(files("adbutils") / "binaries" / "adb"))
    except ModuleNotFoundError:
        return None
    return binary if binary.is_file() else None


def state_error(serial: str, state: str | None, partial: str = "") -> DeviceError | None:
    """The error of a device in that state (None: adb does not know it), with its cure."""
    name = clean(serial)
    if state == "device":
        return None
    if state is None:
        return DeviceOfflineError(f"{name} is not connected any more: {_CONNECT}", partial)
    if state == "unauthorized":
        return UnauthorisedError(
            f"{name} does not trust this machine: unlock it and allow USB debugging there"
        )
    if state.startswith("no permissions"):
        return UnauthorisedError(
            f"this user may not open {name}: set up udev rules for it (apt install"
            " android-sdk-platform-tools-common), then plug it in again"
        )
    if state in _PASSING:
        return DeviceOfflineError(
            f"{name} is {state}: unplug it and plug it in again, or restart it", partial
        )
    return DeviceOfflineError(f"{name} is in state {state!r}: start Android on it", partial)


class AdbShell(Shell):
    """The shell of one phone. ``folder`` is created on it."""

    label = "adb"

    def __init__(self, adb: Adb, serial: str, folder: str = REMOTE_FOLDER) -> None:
        super().__init__(folder)
        self.adb, self.serial = adb, check_serial(serial)

    def _adb(self, *arguments: str, timeout_s: float) -> Ended:
        return call([str(self.adb.path), "-s", self.serial, *arguments], timeout_s)

    def _call(self, script: str, timeout_s: float) -> Ended:
        return self._adb("shell", script, timeout_s=timeout_s)

    def _send(self, path: Path, remote: str, timeout_s: float) -> None:
        ended = self._adb("push", str(path.resolve()), remote, timeout_s=timeout_s)
        told = (ended.errors + ended.output).decode(errors="replace")
        if NO_SPACE in told:  # at its end, after two paths of any length
            raise NoSpaceError(f"{self.serial}: no space left in {self.folder}: free some")
        if ended.code is None:
            raise PushError(
                f"{self.serial}: a file took more than {timeout_s:.0f} s to push: check the"
                " connection"
            )
        if ended.code != 0:
            state = self.adb.state(self.serial)
            raise state_error(self.serial, state) or PushError(
                f"{self.serial}: a file could not be pushed ({clean(told[-160:], 160)}): check the"
                " connection"
            )

    def _broken(self, ended: Ended, partial: str) -> DeviceError:
        try:
            state = self.adb.state(self.serial)
        except DeviceError:
            return super()._broken(ended, partial)
        return state_error(self.serial, state, partial) or super()._broken(ended, partial)

    def wait_until_online(self, bound_s: float) -> None:
        """Wait, with growing pauses, until the phone answers again after a drop.

        Raises DeviceOfflineError when it has not within ``bound_s``, and UnauthorisedError at
        once where it is not trusted: that does not pass by itself.
        """
        until, pause_s = time.monotonic() + bound_s, _PAUSE_S
        while True:
            state = self.adb.state(self.serial)
            trouble = state_error(self.serial, state)
            if trouble is None:
                try:
                    self.run(":", min(QUICK_S, bound_s))
                    return
                except ShellError as error:
                    trouble = error
            if isinstance(trouble, UnauthorisedError):
                raise trouble
            if time.monotonic() + pause_s > until:
                raise DeviceOfflineError(
                    f"{self.serial} did not come back within {bound_s:g} s: {trouble}"
                ) from trouble
            if state is None and _NETWORK_SERIAL.fullmatch(self.serial):
                call([str(self.adb.path), "connect", self.serial], QUICK_S)
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


@dataclass(frozen=True, slots=True)
class PhoneFacts:
    """What a phone says it is; an empty text where it does not say. All of it is hostile text."""

    model: str
    android: str
    soc: str
    abi: str
    build: str


_PROPERTIES: Mapping[str, tuple[str, ...]] = {
    "model": ("ro.product.model",),
    "android": ("ro.build.version.release",),
    "soc": ("ro.soc.model", "ro.board.platform", "ro.hardware"),
    "abi": ("ro.product.cpu.abilist64",),
    "build": ("ro.build.fingerprint",),
}


def read_facts(shell: Shell) -> PhoneFacts:
    """A phone's properties, cleaned and cut, in one call.

    Of a fact's properties (newer ones first) the first that is set counts. Raises
    UnsupportedDeviceError for a 32-bit phone, and for a device that has no properties.
    """
    names = [name for candidates in _PROPERTIES.values() for name in candidates]
    script = block_script([["getprop", name] for name in names])
    sections = split_block(shell.run(script, QUICK_S).output)
    if len(sections) != len(names) or any(section.code for section in sections):
        raise UnsupportedDeviceError(
            f"{shell.label}: no Android answers there (getprop does not work): use a phone, or the"
            " local shell on a Linux board"
        )
    said = {name: clean(section.text) for name, section in zip(names, sections, strict=True)}
    facts = PhoneFacts(
        **{
            fact: next((said[name] for name in candidates if said[name]), "")
            for fact, candidates in _PROPERTIES.items()
        }
    )
    if not facts.abi:
        raise UnsupportedDeviceError(
            f"{facts.model or 'the phone'} is a 32-bit phone: benchmark_model is published for"
            " arm64; take a 64-bit phone"
        )
    return facts
