"""Real adb clients, old and new, against a phone on loopback: states, files, faults."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.resources import files
from pathlib import Path

import psutil
import pytest

from hwbench.devices.phone.adb import Adb, AdbShell, Listed, check_serial, read_facts, state_error
from hwbench.devices.phone.output import parse_launch, parse_ops
from hwbench.devices.phone.script import block_script, split_block
from hwbench.devices.phone.shell import LocalShell
from hwbench.devices.phone.state import core_mask, read_state, rejections
from hwbench.devices.phone.tool import (
    ToolOptions,
    check_delegated,
    launch_command,
)
from hwbench.errors import (
    EXIT_DEVICE,
    EXIT_USAGE,
    AdbMissingError,
    DelegateError,
    DeviceError,
    DeviceOfflineError,
    NoDeviceError,
    NoSpaceError,
    PushError,
    SeveralDevicesError,
    ShellError,
    ShellTimeoutError,
    ToolOutputError,
    UnauthorisedError,
    UnsupportedDeviceError,
    UsageError,
)
from tests.loopback import (
    CorruptPush,
    DieInShell,
    DropPush,
    Hang,
    LoopbackPhone,
    NoSpace,
    TruncateShell,
)
from tests.loopback.clients import CLIENTS
from tests.phones import Lent, Pool

_WHEELS = Path(str(files("adbutils") / "binaries" / "adb"))
_CANARY = Path(__file__).resolve().parents[2] / "devices/canaries/conv_dw_v1.tflite"
_QUICK = ToolOptions(runs=3, min_secs=0.05)


@pytest.fixture(params=CLIENTS)
def lent(request: pytest.FixtureRequest, pool: Pool, monkeypatch: pytest.MonkeyPatch) -> Lent:
    return pool.lend(request.param, monkeypatch, connected=False)


@pytest.fixture
def phone(lent: Lent) -> LoopbackPhone:
    return lent.phone


@pytest.fixture
def adb(lent: Lent) -> Adb:
    return Adb.find(Path(lent.client))


@pytest.fixture
def shell(adb: Adb, lent: Lent) -> AdbShell:
    lent.phone.connect(adb.path)
    return AdbShell(adb, lent.phone.serial, str(lent.folder))


def _leftovers(mark: str) -> list[psutil.Process]:
    return [p for p in psutil.process_iter(["cmdline"]) if mark in (p.info["cmdline"] or [])]


def _wait_while(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 30
    while condition() and time.monotonic() < until:
        time.sleep(0.1)


def test_the_clients_say_their_versions(adb: Adb) -> None:
    assert adb.version.split(".")[0].isdigit()


def test_without_an_adb_on_path_the_one_of_adbutils_is_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert Adb.find().path == _WHEELS


@pytest.mark.parametrize(
    "content", [None, "#!/bin/sh\nexit 1\n", "#!/bin/sh\necho hello\n", "junk"]
)
def test_what_is_no_adb_is_an_error(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "adb"
    if content:
        path.write_text(content)
        path.chmod(0o755)
    with pytest.raises(AdbMissingError) as caught:
        Adb.find(path)
    assert caught.value.exit_code == EXIT_DEVICE


def test_no_device_is_an_error_with_its_cure(adb: Adb) -> None:
    assert adb.devices() == ()
    for serial in (None, "emulator-5554"):
        with pytest.raises(NoDeviceError, match="USB debugging") as caught:
            adb.choose(serial)
        assert caught.value.exit_code == EXIT_DEVICE


def test_the_only_device_is_chosen(adb: Adb, phone: LoopbackPhone) -> None:
    phone.connect(adb.path)
    assert adb.devices() == (Listed(phone.serial, "device"),)
    assert adb.choose() == adb.choose(phone.serial) == phone.serial
    with pytest.raises(NoDeviceError, match=phone.serial):
        adb.choose("another")


def test_of_several_devices_one_has_to_be_chosen(adb: Adb, phone: LoopbackPhone) -> None:
    with LoopbackPhone(beside=phone) as other:
        phone.connect(adb.path)
        other.connect(adb.path)
        with pytest.raises(SeveralDevicesError, match=rf"{phone.serial} \(device\)") as caught:
            adb.choose()
        assert other.serial in str(caught.value)
        assert adb.choose(other.serial) == other.serial


def test_an_unauthorised_phone_is_an_error_with_its_cure(adb: Adb, phone: LoopbackPhone) -> None:
    phone.faults.authorise(False)
    phone.adb(adb.path, "connect", phone.serial)
    _wait_while(lambda: adb.state(phone.serial) != "unauthorized")
    with pytest.raises(UnauthorisedError, match="allow USB debugging"):
        adb.choose()
    shell = AdbShell(adb, phone.serial, str(phone.folder))
    with pytest.raises(UnauthorisedError):
        shell.run(":", 10)
    with pytest.raises(UnauthorisedError):
        shell.wait_until_online(30)


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        (None, DeviceOfflineError),
        ("offline", DeviceOfflineError),
        ("authorizing", DeviceOfflineError),
        ("recovery", DeviceOfflineError),
        ("unauthorized", UnauthorisedError),
        ("no permissions (user in plugdev group); see [http://…]", UnauthorisedError),
    ],
)
def test_every_state_but_device_has_its_error(state: str | None, kind: type[DeviceError]) -> None:
    assert isinstance(state_error("X1", state), kind)
    assert state_error("X1", "device") is None


@pytest.mark.parametrize(
    "serial", ["", "-s", "--help", "a b", "a\nb", "a\tb", "a\0b", "\x1b[31m", "x\u202ey"]
)
def test_what_no_serial_looks_like_is_a_usage_error(serial: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_serial(serial)
    assert caught.value.exit_code == EXIT_USAGE
    assert str(caught.value).isprintable()


def test_hostile_serials_run_nothing(adb: Adb, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    touch = f"touch${{IFS}}{canary}"
    for serial in (f"$({touch})", f";{touch}", f"`{touch}`", f"';{touch};'", f"&&{touch}", "'"):
        with pytest.raises(NoDeviceError):
            adb.choose(serial)
        with pytest.raises(DeviceOfflineError):
            AdbShell(adb, serial).run(":", 20)
    assert not canary.exists()


def test_a_script_comes_back_with_its_code_and_streams(shell: AdbShell) -> None:
    done = shell.run("echo out; echo err >&2; exit 7", 20)
    assert (done.code, done.output, done.errors) == (7, "out\n", "err\n")


def test_files_are_pushed_checked_and_removed(shell: AdbShell, tmp_path: Path) -> None:
    file = tmp_path / "$(touch canary)'; \"x.tflite"
    file.write_bytes(os.urandom(3_000_000))
    with shell.fresh():
        remote = Path(shell.push(file))
        assert remote.read_bytes() == file.read_bytes()
        assert remote.suffix == ".tflite"
    assert not Path(shell.folder).exists()


def test_a_file_that_lies_there_is_not_sent_again(
    shell: AdbShell, phone: LoopbackPhone, tmp_path: Path
) -> None:
    file = tmp_path / "net.tflite"
    file.write_bytes(b"content")
    remote = shell.push(file)
    phone.faults.order(CorruptPush())
    assert shell.push(file) == remote
    assert phone.faults.pending()


def test_a_file_that_arrives_damaged_is_an_error(
    shell: AdbShell, phone: LoopbackPhone, tmp_path: Path
) -> None:
    file = tmp_path / "net.tflite"
    file.write_bytes(b"content")
    phone.faults.order(CorruptPush())
    with pytest.raises(PushError, match="arrived damaged"), shell.fresh():
        shell.push(file)
    assert not Path(shell.folder).exists()
    assert Path(shell.push(file)).read_bytes() == b"content"


def test_a_push_that_drops_is_an_error_and_can_be_done_again(
    shell: AdbShell, phone: LoopbackPhone, tmp_path: Path
) -> None:
    file = tmp_path / "net.tflite"
    file.write_bytes(os.urandom(5_000_000))
    phone.faults.order(DropPush(after_bytes=1_000_000))
    with pytest.raises((PushError, ShellError)) as caught:
        shell.push(file)
    assert caught.value.exit_code == EXIT_DEVICE
    shell.wait_until_online(30)
    with shell.fresh():
        assert Path(shell.push(file)).read_bytes() == file.read_bytes()
    assert not Path(shell.folder).exists()


def test_a_full_phone_is_an_error(shell: AdbShell, phone: LoopbackPhone, tmp_path: Path) -> None:
    file = tmp_path / "net.tflite"
    file.write_bytes(b"content")
    phone.faults.order(NoSpace())
    with pytest.raises(NoSpaceError, match="free some"):
        shell.push(file)


@pytest.mark.parametrize("fault", [DieInShell(after_bytes=150), TruncateShell(after_bytes=150)])
def test_of_a_script_that_died_what_came_is_kept_and_no_code_is_made_up(
    shell: AdbShell, phone: LoopbackPhone, fault: DieInShell | TruncateShell
) -> None:
    script = block_script([["echo", "first"], ["sh", "-c", "sleep 1; seq 10000"]])
    phone.faults.order(fault)
    with pytest.raises(ShellError) as caught:
        shell.run(script, 30)
    done = split_block(caught.value.partial)
    assert [(s.index, s.text) for s in done] == [(0, "first\n")]
    shell.wait_until_online(30)
    assert shell.run("echo back", 20).output == "back\n"


def test_a_phone_that_goes_offline_is_waited_for(shell: AdbShell, phone: LoopbackPhone) -> None:
    phone.faults.order(DieInShell(after_s=0.3, offline_s=1))
    with pytest.raises(ShellError):
        shell.run("sleep 30", 30)
    with pytest.raises(DeviceOfflineError):
        shell.run(":", 20)
    shell.wait_until_online(60)
    assert shell.run("echo back", 20).output == "back\n"


def test_a_phone_that_stays_away_is_given_up_in_time(shell: AdbShell, phone: LoopbackPhone) -> None:
    phone.faults.go_offline()
    _wait_while(lambda: shell.adb.state(phone.serial) == "device")
    with pytest.raises(DeviceOfflineError, match="did not come back within 2 s"):
        shell.wait_until_online(2)


def test_what_outlived_its_connection_is_killed_before_the_next_script(
    shell: AdbShell, phone: LoopbackPhone
) -> None:
    phone.faults.order(DieInShell(after_s=0.5, kill_child=False))
    with pytest.raises(ShellError):
        shell.run("sleep 86.4", 30)
    assert _leftovers("86.4")
    shell.wait_until_online(30)
    assert not _leftovers("86.4")


def test_a_script_out_of_time_is_ended_on_the_phone(shell: AdbShell) -> None:
    with pytest.raises(ShellTimeoutError) as caught:
        shell.run("echo before; sleep 85.3", 1)
    assert caught.value.partial == "before\n"
    shell.run(":", 20)
    assert not _leftovers("85.3")


def test_an_interrupt_leaves_nothing_on_the_phone(
    shell: AdbShell, phone: LoopbackPhone, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """adbd tells only the shell that its client is gone."""

    def interrupted(*_: object, **__: object) -> None:
        _wait_while(lambda: not _leftovers("84.2"))
        raise KeyboardInterrupt

    file = tmp_path / "net.tflite"
    file.write_bytes(b"content")

    def measure() -> None:
        shell.push(file)
        with monkeypatch.context() as patched:
            patched.setattr("hwbench.devices.phone.process._drained", interrupted)
            shell.run("sleep 84.2; :", 20)

    with pytest.raises(KeyboardInterrupt), shell.fresh():
        measure()
    _wait_while(lambda: bool(_leftovers("84.2")))
    assert not _leftovers("84.2")
    assert not Path(shell.base).exists()


def test_what_a_killed_client_left_running_is_ended_before_the_next_script(
    shell: AdbShell,
) -> None:
    def kill() -> None:
        _wait_while(lambda: not _leftovers("83.1"))
        for child in psutil.Process().children():
            with suppress(psutil.NoSuchProcess):  # a child of another test's that just ended
                if "shell" in child.cmdline():
                    child.kill()

    killing = threading.Thread(target=kill)
    killing.start()
    with pytest.raises(ShellError):
        shell.run("sleep 83.1; :", 20)
    killing.join()
    assert _leftovers("83.1")
    shell.run(":", 20)
    _wait_while(lambda: bool(_leftovers("83.1")))
    assert not _leftovers("83.1")


def test_a_phone_that_hangs_does_not_hang_us(shell: AdbShell, phone: LoopbackPhone) -> None:
    phone.faults.order(Hang(seconds=3))
    with pytest.raises(ShellTimeoutError):
        shell.run("echo hello", 1)
    shell.wait_until_online(60)


def test_a_phone_says_what_it_is(shell: AdbShell, phone: LoopbackPhone) -> None:
    facts = read_facts(shell)
    assert (facts.model, facts.android, facts.abi) == ("loopback-x86", "14", "arm64-v8a")
    phone.set_property("ro.soc.model", "")
    assert read_facts(shell).soc == "loopback"


def test_hostile_properties_are_text(shell: AdbShell, phone: LoopbackPhone, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    phone.set_property("ro.product.model", f"$(touch {canary})\n\x1b[31m\u202e'; x" + "y" * 5000)
    phone.set_property("ro.soc.model", b"\xff\xfe")
    facts = read_facts(shell)
    assert facts.model.startswith("$(touch")
    assert facts.model.isprintable()
    assert len(facts.model) <= 80
    assert not canary.exists()


def test_a_32_bit_phone_is_refused(shell: AdbShell, phone: LoopbackPhone) -> None:
    phone.set_property("ro.product.cpu.abilist64", "")
    with pytest.raises(UnsupportedDeviceError, match="32-bit") as caught:
        read_facts(shell)
    assert caught.value.exit_code == EXIT_DEVICE


def test_a_machine_without_properties_is_no_phone(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedDeviceError, match="getprop"):
        read_facts(LocalShell(str(tmp_path)))


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ("cool", ""),
        ("throttling", "thermal status 2"),
        ("capped", "capped cores 4 (1.92 of 2.8416 GHz)"),
        ("low_battery", "battery at 9 %"),
    ],
)
def test_each_state_of_a_phone_is_told(
    shell: AdbShell, phone: LoopbackPhone, state: str, reason: str
) -> None:
    phone.set_state(state)
    read = read_state(shell)
    assert core_mask(read.cores, "big") == "f0"
    assert core_mask(read.cores, "little") == "f"
    reasons = rejections(read)
    assert len(reasons) == bool(reason)
    assert "".join(reasons).startswith(reason)


def test_a_block_of_real_launches_comes_back(shell: AdbShell, phone: LoopbackPhone) -> None:
    with shell.fresh():
        tool, model = shell.push(phone.tool), shell.push(_CANARY)
        options = ToolOptions(runs=3, min_secs=0.05, mask=core_mask(read_state(shell).cores, "big"))
        command = launch_command(tool, model, options)
        profiled = launch_command(tool, model, options, profile=True)
        done = split_block(shell.run(block_script([command, command, profiled]), 60).output)
        launches = [parse_launch(section.text) for section in done]
    assert [section.code for section in done] == [0, 0, 0]
    assert [check_delegated(launch, options) for launch in launches] == [1.0, 1.0, 1.0]
    assert all(launch.count >= 3 and launch.warmup_count >= 1 for launch in launches)
    assert all(launch.min_ns <= launch.mean_ns <= launch.max_ns for launch in launches)
    assert parse_ops(done[2].text)
    assert phone.masks() == ("f0", "f0", "f0")


def _launch(shell: AdbShell, phone: LoopbackPhone, options: ToolOptions = _QUICK) -> str:
    tool, model = shell.push(phone.tool), shell.push(_CANARY)
    script = block_script([launch_command(tool, model, options)])
    (section,) = split_block(shell.run(script, 60).output)
    return section.text


def test_an_old_build_is_read(shell: AdbShell, phone: LoopbackPhone) -> None:
    phone.set_tool("old")
    launch = parse_launch(_launch(shell, phone))
    assert launch.count >= 3
    assert launch.p5_ns is None


@pytest.mark.parametrize("mode", ["fail", "crash", "warmup_only", "nan", "blank"])
def test_a_launch_that_went_wrong_gives_no_number(
    shell: AdbShell, phone: LoopbackPhone, mode: str
) -> None:
    phone.set_tool(mode)
    text = _launch(shell, phone)
    with pytest.raises(ToolOutputError):
        parse_launch(text)


def test_a_launch_that_hangs_leaves_the_finished_ones(
    shell: AdbShell, phone: LoopbackPhone
) -> None:
    phone.set_tool("hang", after=1)
    tool, model = shell.push(phone.tool), shell.push(_CANARY)
    script = block_script([launch_command(tool, model, _QUICK)] * 3)
    with pytest.raises(ShellTimeoutError) as caught:
        shell.run(script, 3)
    (done,) = split_block(caught.value.partial)
    assert parse_launch(done.text).count >= 3
    shell.run(":", 20)
    assert not _leftovers(f"--graph={model}")


def test_a_gpu_that_falls_back_gives_no_gpu_number(shell: AdbShell, phone: LoopbackPhone) -> None:
    options = ToolOptions(runs=3, min_secs=0.05, delegate="gpu")
    launch = parse_launch(_launch(shell, phone, options))
    with pytest.raises(DelegateError):
        check_delegated(launch, options)


def test_a_gpu_that_takes_a_part_is_told_with_its_share(
    shell: AdbShell, phone: LoopbackPhone
) -> None:
    phone.set_tool("partial")
    options = ToolOptions(runs=3, min_secs=0.05, delegate="gpu", allow_partial=True)
    share = check_delegated(parse_launch(_launch(shell, phone, options)), options)
    assert share is not None
    assert 0 < share < 1
