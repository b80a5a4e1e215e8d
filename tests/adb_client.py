"""An adb client bound to one phone on loopback: for tests of what it sees of the phone."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.loopback import LoopbackPhone
from tests.loopback.clients import CLIENTS, find_client
from tests.phones import Pool

CANARY = Path(__file__).parents[1] / "devices/canaries/conv_dw_v1.tflite"
BIG_PUSH = 20_000_000
BACK_S = 20  # far more than an adb server takes to find a phone again


class Client:
    """One adb client bound to one phone."""

    def __init__(self, phone: LoopbackPhone, adb: str) -> None:
        self.phone, self.adb = phone, adb

    def __call__(
        self, *arguments: str | Path, timeout_s: float = 60
    ) -> subprocess.CompletedProcess[str]:
        return self.phone.adb(self.adb, "-s", self.phone.serial, *arguments, timeout_s=timeout_s)

    def shell(self, command: str) -> str:
        """What a command prints; it must succeed."""
        done = self("shell", command)
        assert done.returncode == 0, done
        return done.stdout

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [self.adb, "-s", self.phone.serial, *arguments],
            env=self.phone.env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def listed(self) -> str:
        """The state that ``adb devices`` gives the phone."""
        listing = self("devices").stdout
        match = re.search(rf"^{re.escape(self.phone.serial)}\t(.*)$", listing, re.MULTILINE)
        return match[1] if match else ""

    def wait_for(self, state: str) -> None:
        deadline = time.monotonic() + BACK_S
        while self.listed() != state:
            assert time.monotonic() < deadline, f"{self.listed()}, never {state}"
            time.sleep(0.05)

    def push_is_whole(self, source: Path) -> bool:
        """Whether a push succeeds, and what arrived is what was sent."""
        remote = self.phone.folder / "arrived"
        done = self("push", source, remote)
        return done.returncode == 0 and remote.read_bytes() == source.read_bytes()


@pytest.fixture(scope="module")
def whole_pool() -> Iterator[Pool]:
    """The phones of this module, whose tool runs for as long as it is told to."""
    with Pool(quick=False) as pool:
        yield pool


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest, whole_pool: Pool) -> Client:
    """Each client, with a phone as new."""
    phone, adb = whole_pool.fresh(request.param)
    phone.connect(adb)
    return Client(phone, adb)


@pytest.fixture(scope="module")
def at_hand() -> Iterator[Client]:
    """A phone for tests that are not about the client."""
    adb = find_client("system")
    with LoopbackPhone() as phone:
        phone.connect(adb)
        yield Client(phone, adb)


@pytest.fixture(scope="module")
def big_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of 20 MB, random."""
    path = tmp_path_factory.mktemp("push") / "big"
    path.write_bytes(os.urandom(BIG_PUSH))
    return path
