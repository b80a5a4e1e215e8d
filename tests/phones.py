"""A phone on loopback in a test's hand: options that reach it, and a quick tool."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hwbench.cli import main
from hwbench.devices.phone.device import AdbPhone
from hwbench.measure.jobs import Launched, canary_key
from hwbench.store import Store
from tests.loopback import LoopbackPhone
from tests.loopback.states import BIG_MASK as _BIG
from tests.measurements import epoch

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
        """Names of the files in that folder."""
        return sorted(p.name for p in self.folder.iterdir()) if self.folder.exists() else []

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


@contextmanager
def in_hand(client: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lent]:
    """A connected phone. Its tool runs for a moment only: no test is about a millisecond."""
    with LoopbackPhone() as phone:
        text = phone.tool.read_text()
        for seconds in ('options["warmup_min_secs"]', 'options["min_secs"]'):
            assert text.count(seconds) == 1
            text = text.replace(seconds, "0.02")
        one_thread = 'os.environ["OPENBLAS_NUM_THREADS"] = "1"\n'  # numpy starts in half the time
        phone.tool.write_text(text.replace("import numpy", f"{one_thread}import numpy"))
        for name, value in phone.env.items():
            if name.startswith(("ADB_", "ANDROID_")) or name in ("HOME", "TMPDIR"):
                monkeypatch.setenv(name, value)
        phone.connect(client)
        options = {
            "adb": client,
            "benchmark_model": str(phone.tool),
            "folder": str(phone.folder / "hwbench"),
            "drift": "1000",  # this machine has other users
        }
        yield Lent(phone, client, options)


def anchored(device: AdbPhone, store: Path) -> None:
    """Give the store an epoch of this device by a few launches; a real one takes half a minute."""
    canaries = device.canaries(1)
    if not _times_ns:
        with device.launcher(1) as launcher:
            handles = [launcher.load(canary.runner) for canary in canaries]
            outcomes = launcher.run(handles, 0.3).outcomes
        _times_ns.extend(o.median_ns for o in outcomes if isinstance(o, Launched))
    made = epoch(
        id=EPOCH,
        fingerprint_key=device.fingerprint(1).key,
        canary_key=canary_key(canaries),
        names=tuple(canary.name for canary in canaries),
        c0_ns=tuple(_times_ns),
        c0_low_ns=tuple(0.99 * time for time in _times_ns),
        c0_high_ns=tuple(1.01 * time for time in _times_ns),
    )
    with Store.open(store) as opened:
        opened.add_epoch(made)
