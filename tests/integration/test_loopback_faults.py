"""What adb clients, old and new, see of the faults that a test orders of the loopback phone."""

from __future__ import annotations

import math
import os
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from tests.adb_client import BACK_S, CANARY, Client
from tests.loopback import (
    CorruptPush,
    DieInShell,
    DropPush,
    Faults,
    Hang,
    LoopbackPhone,
    NoSpace,
    TruncateShell,
)
from tests.loopback.clients import CLIENTS, find_client, major_version


def exit_code_of_a_lost_shell(adb: str) -> int:
    """adb 29 calls a shell whose device died a success: what the sentinel is there for."""
    major = major_version(adb)
    if 29 < major < 36:
        pytest.skip(f"adb {major} was never seen to lose a device in mid-shell")
    return 0 if major <= 29 else 255


def test_death_after_some_bytes_cuts_the_output(client: Client) -> None:
    client.phone.faults.order(DieInShell(match="printf 1234", after_bytes=3))
    done = client("shell", "printf 1234; sleep 600; echo the end")
    assert done.stdout == "123"
    assert done.returncode == exit_code_of_a_lost_shell(client.adb)
    assert client.phone.faults.pending() == ()
    client.wait_for("device")
    assert client.shell("echo back") == "back\n"


def test_death_after_some_time_ends_the_command(client: Client) -> None:
    client.phone.faults.order(DieInShell(after_s=0.5))
    done = client("shell", "printf 1234; sleep 600; echo the end")
    assert "1234".startswith(done.stdout)
    assert done.returncode == exit_code_of_a_lost_shell(client.adb)


def test_a_death_spares_the_command_where_told(client: Client) -> None:
    mark = client.phone.folder / "survived"
    client.phone.faults.order(DieInShell(after_bytes=1, kill_child=False))
    client("shell", f"echo x; sleep 0.3; echo more; echo yes >{mark}")
    deadline = time.monotonic() + BACK_S
    while not mark.exists():
        assert time.monotonic() < deadline, "the command died with its connection"
        time.sleep(0.02)


def test_a_death_can_keep_the_phone_offline(client: Client) -> None:
    client.phone.faults.order(DieInShell(after_bytes=0, offline_s=math.inf))
    client("shell", "echo x")
    client.wait_for("offline")
    client.phone.faults.come_online()
    client.wait_for("device")


def test_an_absence_of_some_seconds_ends_by_itself() -> None:
    faults = Faults()
    faults.go_offline(seconds=0.2)
    assert faults.offline
    time.sleep(0.3)
    assert not faults.offline


def test_a_truncated_stream_has_no_exit_code(client: Client) -> None:
    client.phone.faults.order(TruncateShell(after_bytes=3))
    done = client("shell", "echo 123456; exit 5")
    assert done.stdout == "123"
    assert done.returncode == exit_code_of_a_lost_shell(client.adb)
    assert client("shell", "echo 123456; exit 5").returncode == 5


def test_an_order_that_comes_too_late_for_the_output_still_strikes(client: Client) -> None:
    client.phone.faults.order(TruncateShell(after_bytes=1000))
    done = client("shell", "echo short; exit 5")
    assert (done.stdout, done.returncode) == ("short\n", exit_code_of_a_lost_shell(client.adb))


def test_a_fault_strikes_what_it_matches_as_often_as_ordered(client: Client) -> None:
    client.phone.faults.order(TruncateShell(match="target", after_bytes=2), times=2)
    commands = ("echo other", "echo target", "echo other", "echo target", "echo target")
    said = [client("shell", command).stdout for command in commands]
    assert said == ["other\n", "ta", "other\n", "ta", "target\n"]


def test_a_drop_in_mid_push_leaves_a_part(client: Client, big_file: Path) -> None:
    client.phone.faults.order(DropPush(after_bytes=1_000_000))
    remote = client.phone.folder / "arrived"
    done = client("push", big_file, remote)
    assert done.returncode == 1
    assert remote.read_bytes() == big_file.read_bytes()[:1_000_000]
    client.wait_for("device")
    assert client.push_is_whole(big_file)


def test_a_corrupt_push_is_reported_as_a_success(client: Client, big_file: Path) -> None:
    client.phone.faults.order(CorruptPush(match="arrived"))
    remote = client.phone.folder / "arrived"
    assert client("push", big_file, remote).returncode == 0
    sent, came = (np.fromfile(path, np.uint8) for path in (big_file, remote))
    assert len(came) == len(sent)
    assert np.count_nonzero(sent != came) == 1
    assert client.push_is_whole(big_file)


def test_a_full_phone_says_so(client: Client, big_file: Path) -> None:
    client.phone.faults.order(NoSpace())
    done = client("push", big_file, client.phone.folder / "arrived")
    assert done.returncode == 1
    assert "No space left on device" in done.stdout + done.stderr
    assert client.push_is_whole(big_file)


@pytest.mark.parametrize("service", ["shell", "push"])
def test_a_hang_lasts_until_it_is_lifted(client: Client, service: str) -> None:
    arguments = ("shell", "echo x") if service == "shell" else ("push", CANARY, client.phone.folder)
    client.phone.faults.order(Hang())
    with pytest.raises(subprocess.TimeoutExpired):
        client(*arguments, timeout_s=0.5)
    with pytest.raises(subprocess.TimeoutExpired):
        client("shell", "echo also silent", timeout_s=0.5)
    assert client.listed() == "device"  # the server cannot know
    client.phone.faults.clear()
    assert client.shell("echo back") == "back\n"


def test_a_hang_of_some_seconds_delays_the_answer(client: Client) -> None:
    client.phone.faults.order(Hang(seconds=0.7))
    began = time.monotonic()
    assert client.shell("echo late") == "late\n"
    assert time.monotonic() - began >= 0.7


def test_a_phone_is_offline_until_it_comes_back(client: Client) -> None:
    client.phone.faults.go_offline()
    client.wait_for("offline")
    lost = client("shell", "echo x")
    assert lost.returncode == 1
    assert "device offline" in lost.stderr
    client.phone.faults.come_online()
    client.wait_for("device")
    assert client.shell("echo x") == "x\n"


def test_a_slow_link_takes_the_time_of_its_bytes(client: Client, tmp_path: Path) -> None:
    source = tmp_path / "file"
    source.write_bytes(os.urandom(200_000))
    with client.phone.faults.slow_link(bytes_per_s=200_000):
        began = time.monotonic()
        assert client.push_is_whole(source)
        assert time.monotonic() - began >= 1


@pytest.mark.parametrize("name", CLIENTS)
def test_a_phone_whose_owner_has_not_agreed_is_unauthorised(name: str) -> None:
    adb = find_client(name)
    with LoopbackPhone() as phone:
        client = Client(phone, adb)
        phone.faults.authorise(False)
        phone.adb(adb, "connect", phone.serial)
        client.wait_for("unauthorized")
        refused = client("shell", "echo x")
        assert refused.returncode == 1
        assert "unauthorized" in refused.stderr
        phone.faults.authorise(True)
        client.wait_for("device")
        assert client.shell("echo x") == "x\n"
