"""A phone on loopback: a real adb client talks to it as to any other, and a test orders its faults.

It runs this machine's /bin/sh and this machine's CPU: a latency measured on it is that of the
host, which is why it calls itself ``loopback-x86``.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.loopback.daemon import Daemon
from tests.loopback.faults import Faults
from tests.loopback.forks import forked
from tests.loopback.states import PROPERTIES, STATES, write_state

MODEL = "loopback-x86"
_SOURCES = Path(__file__).parent
_SHIMS = ("cat", "dumpsys", "getprop", "grep", "taskset")
_SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"
_CONNECT_S = 30
_KILL_S = 10
_POLL_S = 0.1


class LoopbackPhone:
    """Starts on entry, on a free port of 127.0.0.1; on exit ends its adb server and all children.

    ``folder`` stands for /data/local/tmp, ``state`` holds what the shims replay, ``tool`` is the
    stand-in for benchmark_model, a file of this machine to push. ``env`` is what an adb client
    needs to reach the adb server that this phone has for itself. A second phone is put
    ``beside`` a first one, on the same server. The tool of a ``quick`` one runs a model for some
    milliseconds, however long it is told to: for tests that are not about its time.
    """

    def __init__(
        self,
        *,
        model: str = MODEL,
        beside: LoopbackPhone | None = None,
        port: int = 0,
        quick: bool = False,
    ) -> None:
        self.faults = Faults()
        self.serial = ""
        self._beside = beside
        self._model, self._quick = model, quick
        self._root = Path(tempfile.mkdtemp(prefix="loopback-phone-"))
        self.folder = self._root / "data/local/tmp"
        self.state = self._root / "state"
        self.tool = self._root / "host/benchmark_model"
        self.env: dict[str, str] = beside.env if beside else self._client_environment()
        self._lock = threading.Lock()
        self._reads_left: int | None = None
        self._then = "cool"
        self._daemon = Daemon(
            self.folder, model, self._device_environment(), self.faults, self._count_read, port
        )

    def __enter__(self) -> Self:
        try:
            self._furnish()
            self.serial = f"127.0.0.1:{self._daemon.start()}"
        except BaseException:
            shutil.rmtree(self._root)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._beside is None:
            _kill_server(int(self.env["ANDROID_ADB_SERVER_PORT"]))
        self._daemon.stop()
        shutil.rmtree(self._root)
        if self._daemon.errors and error is None:
            raise ExceptionGroup("the loopback daemon failed", self._daemon.errors)

    def reset(self) -> None:
        """As new: no faults, no state but cool, its own tool and properties, an empty folder."""
        self.faults.clear()
        self._daemon.end_children()
        for path in self.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        for name in ("tool", "masks", "looked"):
            (self.state / name).unlink(missing_ok=True)
        self._equip()
        if errors := tuple(self._daemon.errors):
            self._daemon.errors.clear()
            raise ExceptionGroup("the loopback daemon failed", errors)

    def connect(self, adb: str | Path) -> None:
        """``adb connect``, until the phone is listed as a device."""
        deadline = time.monotonic() + _CONNECT_S
        while True:
            self.adb(adb, "connect", self.serial)
            state = self.adb(adb, "-s", self.serial, "get-state")
            if state.stdout.strip() == "device":
                return
            if time.monotonic() > deadline:
                raise TimeoutError(f"{adb}: {state.stderr.strip()} after {_CONNECT_S} s")
            time.sleep(_POLL_S)

    def adb(
        self, adb: str | Path, *arguments: str | Path, timeout_s: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """An adb client of this phone's server, run to its end."""
        return subprocess.run(
            [adb, *arguments],
            env=self.env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        )

    def set_state(self, name: str, *, reads: int | None = None, then: str = "cool") -> None:
        """Replay a state of `STATES`; after ``reads`` reads of it, the state ``then``.

        A read is one shell command that looks at ``dumpsys thermalservice``, however often.
        """
        with self._lock:
            self._reads_left, self._then = reads, then
            _point(self.state / "now", f"states/{name}")

    def set_property(self, name: str, value: str | bytes) -> None:
        """What ``getprop NAME`` prints; hostile values are welcome."""
        raw = value if isinstance(value, bytes) else value.encode()
        (self.state / "props" / name).write_bytes(raw)

    def set_tool(self, mode: str, *, after: int = 0, launches: int | None = None) -> None:
        """How the stand-in behaves (`benchmark_model.MODES`).

        The next ``after`` launches are sound, then ``launches`` of them (all, when None) are not.
        """
        order = {"mode": mode, "after": after, "launches": launches}
        (self.state / "tool").write_text(json.dumps(order))

    def masks(self) -> tuple[str, ...]:
        """The masks that ``taskset`` was called with, oldest first."""
        noted = self.state / "masks"
        return tuple(noted.read_text().splitlines()) if noted.exists() else ()

    def _count_read(self) -> None:
        noted = self.state / "looked"
        with self._lock:
            if not noted.exists():
                return
            noted.unlink()
            if self._reads_left is not None:
                self._reads_left -= 1
                if self._reads_left == 0:
                    self._reads_left = None
                    _point(self.state / "now", f"states/{self._then}")

    def _furnish(self) -> None:
        shims = self._root / "bin"
        for folder in (shims, self.folder, self.state / "props", self.tool.parent):
            folder.mkdir(parents=True)
        for name in _SHIMS:
            shutil.copy(_SOURCES / "shims" / name, shims / name)
            (shims / name).chmod(0o755)
        for name, state in STATES.items():
            write_state(self.state / "states" / name, state)
        self._equip()

    def _equip(self) -> None:
        """What tests may change."""
        self.set_state("cool")
        for name, value in {**PROPERTIES, "ro.product.model": self._model}.items():
            self.set_property(name, value)
        stand_in = (_SOURCES / "benchmark_model.py").read_text()
        tool = forked(_hurried(stand_in)) if self._quick else f"#!{sys.executable}\n{stand_in}"
        self.tool.write_text(tool)
        self.tool.chmod(0o755)

    def _device_environment(self) -> dict[str, str]:
        return {
            "PATH": f"{self._root}/bin:{_SYSTEM_PATH}",
            "HOME": str(self.folder),
            "TMPDIR": str(self.folder),
            "LOOPBACK_STATE": str(self.state),
        }

    def _client_environment(self) -> dict[str, str]:
        home = self._root / "home"
        home.mkdir()
        kept = {name: value for name, value in os.environ.items() if not _is_adbs(name)}
        return {
            **kept,
            "HOME": str(home),
            "TMPDIR": str(home),  # the server's log
            "ANDROID_ADB_SERVER_PORT": str(_free_port()),
            # Look for no other devices: neither emulators, nor on the network, nor on USB.
            "ADB_LOCAL_TRANSPORT_MAX_PORT": "5554",
            "ADB_MDNS_AUTO_CONNECT": "0",
            "ADB_USB": "0",
        }


def _hurried(stand_in: str) -> str:
    """The tool with hardly a run in its warm-up and runs."""
    for seconds in ('options["warmup_min_secs"]', 'options["min_secs"]'):
        assert stand_in.count(seconds) == 1
        stand_in = stand_in.replace(seconds, "0.002")
    return stand_in


def _point(link: Path, target: str) -> None:
    """Make ``link`` point to ``target`` in one step."""
    fresh = link.with_suffix(".new")
    fresh.symlink_to(target)
    fresh.replace(link)


def _is_adbs(name: str) -> bool:
    return name.startswith(("ADB_", "ANDROID_"))


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _kill_server(port: int) -> None:
    """Ask an adb server to end, and wait until it did; none there is fine."""
    deadline = time.monotonic() + _KILL_S
    while time.monotonic() < deadline:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=_KILL_S) as server:
                server.sendall(b"0009host:kill")
                server.recv(64)
        except ConnectionRefusedError:
            return
        except ConnectionError:
            pass  # it ended before it answered
        time.sleep(_POLL_S)
    raise TimeoutError(f"the adb server on port {port} does not end")
