"""A phone on loopback in a test's hand: options that reach it, and a quick tool."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import psutil
import pytest

from hwbench.cli import main
from hwbench.devices.phone.device import AdbPhone, ToolDevice
from hwbench.devices.phone.launcher import ToolLauncher
from hwbench.measure.jobs import Launched
from hwbench.store import Store
from tests.loopback import LoopbackPhone
from tests.loopback.clients import CLIENTS, find_client
from tests.loopback.states import BIG_MASK as _BIG
from tests.measurements import epoch_on

BIG_MASK = f"{_BIG:x}"
EPOCH = "for-tests"
#: Of the canaries on this machine, once they were measured.
_times_ns: list[float] = []


@dataclasses.dataclass
class Lent:
    """A phone, the adb client that reaches it, and the options that a user would give."""

    phone: LoopbackPhone
    client: str
    options: dict[str, str]

    @property
    def folder(self) -> Path:
        """Where the files of hwbench go, on the phone."""
        return self.phone.folder / "hwbench"

    def left_over(self) -> list[str]:
        """Names of the files in that folder and below it."""
        return sorted(p.name for p in self.folder.rglob("*") if p.is_file())

    def running(self) -> list[int]:
        """Numbers of the processes that run a model of that folder, on the phone."""
        commands = ((p.pid, p.info["cmdline"] or []) for p in psutil.process_iter(["cmdline"]))
        mark = f"--graph={self.folder}/"
        return [pid for pid, words in commands if any(word.startswith(mark) for word in words)]

    def servers(self) -> list[psutil.Process]:
        """The adb server that its client talks to, if one runs."""
        place = f"tcp:{self.phone.env['ANDROID_ADB_SERVER_PORT']}"
        found = ((p, p.info["cmdline"] or []) for p in psutil.process_iter(["cmdline"]))
        return [process for process, words in found if place in words and "fork-server" in words]

    def device(self, **options: str) -> AdbPhone:
        """The phone as a device."""
        return AdbPhone.open(self.phone.serial, {**self.options, **options})

    def main(self, verb: str, *arguments: str) -> int:
        """The exit code of the command on it."""
        given = [f"--option={name}={value}" for name, value in self.options.items()]
        return main([verb, *arguments, "-d", f"adb:{self.phone.serial}", *given])

    def forget_flag(self, name: str) -> None:
        """Make the tool one of a build that has no such flag."""
        text = self.phone.tool.read_text()
        kept = [line for line in text.splitlines() if not line.startswith(f'    "{name}":')]
        assert len(kept) == len(text.splitlines()) - 1
        self.phone.tool.write_text("\n".join(kept) + "\n")


class Pool:
    """The phones of a test module, one for each client: started once, and lent out as new."""

    def __init__(self, *, quick: bool = True) -> None:
        self._stack, self._phones = ExitStack(), dict[str, LoopbackPhone]()
        self._quick = quick

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *how: object) -> None:
        self._stack.close()

    def fresh(self, client: str) -> tuple[LoopbackPhone, str]:
        """The phone of a client of `CLIENTS`, not connected, and that client's path."""
        path = find_client(client)
        if client not in self._phones:
            phone = self._stack.enter_context(LoopbackPhone(quick=self._quick))
            self._phones[client] = phone
        phone = self._phones[client]
        phone.reset()
        phone.adb(path, "disconnect")
        return phone, path

    def lend(self, client: str, monkeypatch: pytest.MonkeyPatch, *, connected: bool = True) -> Lent:
        """The phone of a client of `CLIENTS`, which reaches it for the rest of this test."""
        phone, path = self.fresh(client)
        for name, value in phone.env.items():
            if name.startswith(("ADB_", "ANDROID_")) or name in ("HOME", "TMPDIR"):
                monkeypatch.setenv(name, value)
        if connected:
            phone.connect(path)
        options = {
            "adb": path,
            "benchmark_model": str(phone.tool),
            "folder": str(phone.folder / "hwbench"),
            "drift": "1000",  # this machine has other users
        }
        return Lent(phone, path, options)


def anchored(device: AdbPhone, store: Path) -> None:
    """Give the store an epoch of this device by a few launches; a real one takes half a minute."""
    canaries = device.canaries(1)
    if not _times_ns:
        with device.launcher(1) as launcher:
            handles = [launcher.load(canary.runner) for canary in canaries]
            outcomes = launcher.run(handles, 0.3).outcomes
        _times_ns.extend(o.median_ns for o in outcomes if isinstance(o, Launched))
    with Store.open(store) as opened:
        opened.add_epoch(epoch_on(device, _times_ns, id=EPOCH))


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    """The phones of this module."""
    with Pool() as pool:
        yield pool


@pytest.fixture(params=CLIENTS)
def lent(request: pytest.FixtureRequest, pool: Pool, monkeypatch: pytest.MonkeyPatch) -> Lent:
    """A phone with each client."""
    return pool.lend(request.param, monkeypatch)


@pytest.fixture
def one(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> Lent:
    """With one client, where it makes no difference which."""
    return pool.lend("wheel", monkeypatch)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What hangs is given up after seconds."""
    with_patience(monkeypatch, launch_s=1.0, canary_s=0.8, back_within_s=2.0, patience_s=1.0)


def with_patience(monkeypatch: pytest.MonkeyPatch, **seconds: float) -> None:
    """Let phones be waited for so long (``launcher.Settings``)."""
    patient = ToolDevice.launcher

    def launcher(device: ToolDevice, threads: int) -> ToolLauncher:
        made = patient(device, threads)
        return ToolLauncher(device.shell, dataclasses.replace(made.settings, **seconds))

    monkeypatch.setattr(ToolDevice, "launcher", launcher)
