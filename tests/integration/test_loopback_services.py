"""What adb clients, old and new, get of the loopback phone's services."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.adb_client import BACK_S, Client
from tests.loopback import LoopbackPhone
from tests.loopback.clients import CLIENTS, find_client


def alive(pid: int) -> bool:
    """Whether a process runs; one that nobody has reaped yet does not."""
    with suppress(FileNotFoundError, ProcessLookupError):  # it may go while it is read
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + BACK_S
    while alive(pid):
        assert time.monotonic() < deadline, f"process {pid} lives on"
        time.sleep(0.02)


def test_the_phone_is_listed_with_its_model(client: Client) -> None:
    assert client.listed() == "device"
    assert "model:loopback_x86" in client("devices", "-l").stdout
    assert client.shell("getprop ro.product.model") == "loopback-x86\n"


def test_a_shell_keeps_exit_code_and_both_streams_apart(client: Client) -> None:
    done = client("shell", "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")
    assert client("shell", "kill -9 $$").returncode == 128 + signal.SIGKILL


def test_a_command_reads_its_input_to_the_end(client: Client) -> None:
    process = client.start("shell", "cat; echo over")
    out, _ = process.communicate(b"a\nb\n", timeout=BACK_S)
    assert out == b"a\nb\nover\n"


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=200_000))
def test_every_byte_passes_both_ways(client: Client, data: bytes) -> None:
    (client.phone.folder / "noise").write_bytes(data)
    process = client.start("exec-out", "cat noise")
    out, _ = process.communicate(timeout=BACK_S)
    assert out == data


def test_twenty_megabytes_come_back_as_they_went(
    client: Client, big_file: Path, tmp_path: Path
) -> None:
    remote, back = client.phone.folder / "deep/er/big", tmp_path / "back"
    assert client("push", big_file, remote).returncode == 0
    assert remote.read_bytes() == big_file.read_bytes()
    assert client("pull", remote, back).returncode == 0
    assert back.read_bytes() == big_file.read_bytes()


@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 65537])
def test_a_push_of_any_size_keeps_bytes_mode_and_time(
    client: Client, size: int, tmp_path: Path
) -> None:
    source, remote = tmp_path / "a name; with $signs", client.phone.folder / "arrived 'so'"
    source.write_bytes(os.urandom(size))
    source.chmod(0o741)
    os.utime(source, (1_700_000_000, 1_700_000_000))
    assert client("push", source, remote).returncode == 0
    assert remote.read_bytes() == source.read_bytes()
    assert remote.stat().st_mtime == 1_700_000_000
    assert remote.stat().st_mode & 0o700 == 0o700


def test_folders_go_and_come_back(client: Client, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    files = {"one": b"1", "sub/two": b"22", "sub/sub/three": os.urandom(70_000)}
    for name, data in files.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(data)
    assert client("push", tree, f"{client.phone.folder}/").returncode == 0
    assert client("pull", client.phone.folder / "tree", tmp_path / "back").returncode == 0
    back = tmp_path / "back"
    found = {str(p.relative_to(back)): p.read_bytes() for p in back.rglob("*") if p.is_file()}
    assert found == files


def test_pulling_what_is_not_there_fails(client: Client, tmp_path: Path) -> None:
    done = client("pull", client.phone.folder / "absent", tmp_path / "back")
    assert done.returncode == 1
    assert "No such file or directory" in done.stdout + done.stderr


def test_a_service_that_the_phone_lacks_is_refused(client: Client) -> None:
    assert client("reboot").returncode != 0
    assert client.shell("echo still here") == "still here\n"


def test_many_commands_run_at_once(client: Client, big_file: Path) -> None:
    with ThreadPoolExecutor(6) as pool:
        pushed = pool.submit(client.push_is_whole, big_file)
        said = list(pool.map(lambda i: client.shell(f"sleep 0.2; echo {i}"), range(5)))
        assert pushed.result()
    assert said == [f"{i}\n" for i in range(5)]


def test_one_phone_serves_two_computers() -> None:
    adbs = [find_client(name) for name in CLIENTS]
    with LoopbackPhone() as phone, LoopbackPhone() as other:
        phone.connect(adbs[0])
        other.serial = phone.serial  # the other's adb server, this phone
        other.connect(adbs[1])
        assert Client(phone, adbs[0]).shell("echo one") == "one\n"
        assert Client(other, adbs[1]).shell("echo two") == "two\n"


def test_two_phones_on_one_server_need_a_choice(client: Client) -> None:
    with LoopbackPhone(model="another", beside=client.phone) as other:
        other.connect(client.adb)
        undecided = client.phone.adb(client.adb, "shell", "true")
        assert undecided.returncode == 1
        assert "more than one device" in undecided.stderr
        assert Client(other, client.adb).shell("getprop ro.product.model") == "another\n"
        assert client.shell("getprop ro.product.model") == "loopback-x86\n"


def test_a_client_that_leaves_takes_its_shell_along_and_no_child_of_it(client: Client) -> None:
    process = client.start("shell", "sleep 600 & echo $$ $!; wait")
    assert process.stdout is not None
    pid, child = map(int, process.stdout.readline().split())
    assert alive(pid)
    process.kill()
    process.wait()
    wait_until_gone(pid)
    assert alive(child)
    os.kill(child, signal.SIGKILL)


def test_nothing_outlives_the_phone() -> None:
    adb = find_client("system")
    with LoopbackPhone() as phone:
        phone.connect(adb)
        background = int(Client(phone, adb).shell("sleep 600 >/dev/null 2>&1 & echo $!"))
        running = Client(phone, adb).start("shell", "echo $$; sleep 600")
        assert running.stdout is not None
        foreground = int(running.stdout.readline())
        assert alive(background)
        assert alive(foreground)
    wait_until_gone(background)
    wait_until_gone(foreground)
    running.communicate(timeout=BACK_S)
    assert not phone.folder.exists()
    for port in (int(phone.env["ANDROID_ADB_SERVER_PORT"]), int(phone.serial.split(":")[1])):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))


def test_a_phone_can_be_started_by_hand(root: Path) -> None:
    command = [sys.executable, "-m", "tests.loopback", "--adb", find_client("system")]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        told = dict(process.stdout.readline().split(maxsplit=1) for _ in range(5))
        assert Path(told["tool"].strip()).stat().st_mode & 0o100
        assert "ANDROID_ADB_SERVER_PORT=" in told["server"]
        process.send_signal(signal.SIGINT)
        assert process.wait(BACK_S) == 0
    assert not Path(told["folder"].strip()).exists()
