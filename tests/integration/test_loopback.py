"""The loopback phone as real adb clients, old and new, see it: services, faults, states, tool."""

from __future__ import annotations

import math
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hwbench.devices.phone.output import parse_launch, parse_ops
from hwbench.errors import ToolOutputError
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
from tests.loopback.states import BIG_KHZ, BIG_MASK, CORES, SMALL_KHZ, STATES

MODEL = Path(__file__).parents[2] / "devices/canaries/conv_dw_v1.tflite"
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


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest) -> Iterator[Client]:
    adb = find_client(request.param)
    with LoopbackPhone() as phone:
        phone.connect(adb)
        yield Client(phone, adb)


@pytest.fixture(scope="module")
def big_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("push") / "big"
    path.write_bytes(os.urandom(BIG_PUSH))
    return path


def alive(pid: int) -> bool:
    """Whether a process runs; one that nobody has reaped yet does not."""
    with suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + BACK_S
    while alive(pid):
        assert time.monotonic() < deadline, f"process {pid} lives on"
        time.sleep(0.02)


# Services


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
    process = client.start("exec-out", "cat noise") if data else client.start("exec-out", "true")
    (client.phone.folder / "noise").write_bytes(data)
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


# Faults


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
    sent, came = big_file.read_bytes(), remote.read_bytes()
    assert len(came) == len(sent)
    assert sum(a != b for a, b in zip(sent, came, strict=True)) == 1
    assert client.push_is_whole(big_file)


def test_a_full_phone_says_so(client: Client, big_file: Path) -> None:
    client.phone.faults.order(NoSpace())
    done = client("push", big_file, client.phone.folder / "arrived")
    assert done.returncode == 1
    assert "No space left on device" in done.stdout + done.stderr
    assert client.push_is_whole(big_file)


@pytest.mark.parametrize("service", ["shell", "push"])
def test_a_hang_lasts_until_it_is_lifted(client: Client, service: str) -> None:
    arguments = ("shell", "echo x") if service == "shell" else ("push", MODEL, client.phone.folder)
    client.phone.faults.order(Hang())
    with pytest.raises(subprocess.TimeoutExpired):
        client(*arguments, timeout_s=1)
    with pytest.raises(subprocess.TimeoutExpired):
        client("shell", "echo also silent", timeout_s=1)
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


# Shims and states


@pytest.fixture(scope="module")
def at_hand() -> Iterator[Client]:
    """A phone for tests that are not about the client."""
    adb = find_client("system")
    with LoopbackPhone() as phone:
        phone.connect(adb)
        yield Client(phone, adb)


def test_getprop_tells_of_an_arm64_phone(at_hand: Client) -> None:
    assert at_hand.shell("getprop ro.product.cpu.abilist64") == "arm64-v8a\n"
    assert at_hand.shell("getprop no.such.property") == "\n"
    assert "[ro.hardware]: [loopback]\n" in at_hand.shell("getprop")


@pytest.mark.parametrize("value", ["$(touch x) `id`; \"'\\", "two\nlines", "", b"\xff\x1b[31m"])
def test_a_property_can_be_hostile(at_hand: Client, value: str | bytes) -> None:
    at_hand.phone.set_property("ro.soc.model", value)
    raw = value if isinstance(value, bytes) else value.encode()
    out, _ = at_hand.start("exec-out", "getprop ro.soc.model").communicate(timeout=BACK_S)
    assert out == raw + b"\n"


def test_cat_reads_the_phones_sys_and_this_machines_files(at_hand: Client) -> None:
    present = at_hand.shell("cat /sys/devices/system/cpu/present")
    assert present == f"0-{CORES - 1}\n"
    files = (f"/sys/devices/system/cpu/cpu{i}/cpufreq/cpuinfo_max_freq" for i in range(CORES))
    fastest = [int(line) for line in at_hand.shell(f"cat {' '.join(files)}").split()]
    assert fastest == [BIG_KHZ if BIG_MASK >> i & 1 else SMALL_KHZ for i in range(CORES)]
    missing = at_hand("shell", "cat /sys/devices/system/cpu/cpu8/online")
    assert missing.returncode == 1
    assert "No such file or directory" in missing.stderr
    (at_hand.phone.folder / "real file").write_text("real\n")
    assert at_hand.shell("cat 'real file'; echo piped | cat") == "real\npiped\n"


def test_taskset_notes_its_mask_and_runs_the_command(at_hand: Client) -> None:
    assert at_hand.shell("taskset f0 sh -c 'echo \"$1 $#\"' - 'a b'") == "a b 1\n"
    assert at_hand.phone.masks()[-1] == "f0"
    for mask in ("0", "100", "xyz", "''", "1ffffffff"):
        assert at_hand("shell", f"taskset {mask} echo ran").stdout == ""
    assert at_hand.phone.masks()[-1] == "f0"


@pytest.mark.parametrize(
    ("name", "status", "level", "big_khz"),
    [
        ("cool", 0, 84, BIG_KHZ),
        ("throttling", 2, 84, BIG_KHZ),
        ("capped", 0, 84, 1_920_000),
        ("low_battery", 0, 9, BIG_KHZ),
    ],
)
def test_each_state_has_its_one_cause(
    at_hand: Client, name: str, status: int, level: int, big_khz: int
) -> None:
    at_hand.phone.set_state(name)
    thermal = at_hand.shell("dumpsys thermalservice")
    assert f"\nThermal Status: {status}\n" in thermal
    cached, current = thermal.split("Current temperatures from HAL:\n")
    assert f"mName=VIRTUAL-SKIN, mStatus={status}}}" in current
    assert "mName=VIRTUAL-SKIN, mStatus=0}" in cached
    assert f"\n  level: {level}\n" in at_hand.shell("dumpsys battery")
    limit = at_hand.shell("cat /sys/devices/system/cpu/cpu7/cpufreq/scaling_max_freq")
    assert int(limit) == big_khz
    assert "mWakefulness=Awake" in at_hand.shell("dumpsys power")


def test_every_state_is_tested() -> None:
    assert set(STATES) == {"cool", "throttling", "capped", "low_battery"}


def test_a_state_passes_after_so_many_reads(at_hand: Client) -> None:
    at_hand.phone.set_state("throttling", reads=3, then="capped")
    look = "dumpsys thermalservice | grep Status:"
    limit = "cat /sys/devices/system/cpu/cpu7/cpufreq/scaling_max_freq"
    seen = [at_hand.shell(f"{limit}; {look}; {look}; {limit}").split() for _ in range(5)]
    hot = [str(BIG_KHZ), *["Thermal", "Status:", "2"] * 2, str(BIG_KHZ)]
    capped = ["1920000", *["Thermal", "Status:", "0"] * 2, "1920000"]
    assert seen == [hot, hot, hot, capped, capped]


def test_an_unknown_service_is_named(at_hand: Client) -> None:
    assert "Can't find service: nonsense" in at_hand("shell", "dumpsys nonsense").stderr


# The stand-in for benchmark_model

QUICK = ("--num_runs=5", "--min_secs=0.01", "--warmup_runs=1", "--warmup_min_secs=0.01")


@pytest.fixture(scope="module")
def tool(at_hand: Client) -> Iterator[partial[subprocess.CompletedProcess[str]]]:
    """Launches the pushed stand-in on the pushed model."""
    for source in (at_hand.phone.tool, MODEL):
        assert at_hand("push", source, at_hand.phone.folder).returncode == 0
    binary = at_hand.phone.folder / at_hand.phone.tool.name
    graph = f"--graph={at_hand.phone.folder / MODEL.name}"

    def launch(*flags: str) -> subprocess.CompletedProcess[str]:
        given = {flag.partition("=")[0] for flag in flags}
        quick = [flag for flag in QUICK if flag.partition("=")[0] not in given]
        return at_hand("shell", " ".join([str(binary), *flags, graph, *quick]))

    return launch


@pytest.fixture(autouse=True)
def sound_tool(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "tool" in request.fixturenames:
        request.getfixturevalue("at_hand").phone.set_tool("sound")


def test_the_tool_measures_a_real_model(tool: partial) -> None:
    done = tool("--num_threads=1", "--use_xnnpack=true")
    assert done.returncode == 0, done
    launch = parse_launch(done.stdout + done.stderr)
    assert launch.count >= 5
    assert launch.warmup_count >= 1
    assert 0 < launch.min_ns <= launch.median_ns <= launch.max_ns
    (xnnpack,) = launch.delegates
    assert xnnpack.nodes == xnnpack.total > 10
    assert launch.complete
    assert not launch.fallback


def test_the_tool_splits_its_output_as_the_real_one_does(tool: partial) -> None:
    done = tool("--use_xnnpack=true")
    for line in ("INFO: STARTING!", "INFO: count=", "INFO: Inference timings in us: Init: "):
        assert line in done.stdout
        assert line not in done.stderr
    for line in ("INFO: Initialized TensorFlow Lite runtime.", "VERBOSE: Replacing "):
        assert line in done.stderr
        assert line not in done.stdout


def test_runs_and_seconds_are_both_minimums(tool: partial) -> None:
    few = parse_launch(tool("--num_runs=3", "--min_secs=0.3").stdout)
    assert few.count * few.mean_ns >= 0.1e9  # some of the 0.3 s goes to setting inputs
    assert parse_launch(tool("--num_runs=40", "--min_secs=0").stdout).count == 40


def test_without_xnnpack_no_delegate_runs(tool: partial) -> None:
    done = tool("--use_xnnpack=false")
    assert "XNNPACK delegate" not in done.stdout + done.stderr
    assert parse_launch(done.stdout + done.stderr).delegates == ()


@pytest.mark.parametrize("flag", ["--use_gpu=true", "--use_nnapi=true"])
def test_a_delegate_that_is_not_there_falls_back(tool: partial, flag: str) -> None:
    done = tool(flag, "--gpu_precision_loss_allowed=false")
    assert "will not be executed by the delegate" in done.stdout
    assert parse_launch(done.stdout + done.stderr).fallback


def test_a_delegate_can_take_a_part(tool: partial, at_hand: Client) -> None:
    at_hand.phone.set_tool("partial")
    done = tool("--use_gpu=true")
    launch = parse_launch(done.stdout + done.stderr)
    gpu = launch.delegates[0]
    assert gpu.name == "TfLiteGpuDelegateV2"
    assert gpu.total is not None
    assert 0 < gpu.nodes < gpu.total
    assert not launch.complete


def test_an_op_profile_lists_the_nodes_that_ran(tool: partial) -> None:
    rows = parse_ops(tool("--enable_op_profiling=true", "--use_xnnpack=false").stdout)
    assert {row.node_type for row in rows} == {"CONV_2D", "DEPTHWISE_CONV_2D", "ADD"}
    whole = parse_ops(tool("--enable_op_profiling=true", "--use_xnnpack=true").stdout)
    assert [row.node_type for row in whole] == ["TfLiteXNNPackDelegate"]


def test_an_op_profile_can_go_to_a_file(tool: partial, at_hand: Client) -> None:
    path = at_hand.phone.folder / "ops.csv"
    done = tool("--enable_op_profiling=true", f"--profiling_output_csv_file={path}")
    assert "node type, first, avg_ms" in path.read_text()
    assert "Run Order" not in done.stdout


def test_an_unknown_flag_is_warned_about_and_ignored(tool: partial) -> None:
    done = tool("--affinity=f0")
    assert done.returncode == 0
    assert "WARN: Unconsumed cmdline flags: --affinity=f0\n" in done.stdout


def test_no_runs_give_no_number(tool: partial) -> None:
    done = tool("--num_runs=0", "--min_secs=0")
    assert "count=0" in done.stdout
    with pytest.raises(ToolOutputError):
        parse_launch(done.stdout + done.stderr)


@pytest.mark.parametrize("flag", ["--num_runs=many", "--use_gpu=maybe"])
def test_a_value_of_the_wrong_kind_is_refused(tool: partial, flag: str) -> None:
    done = tool(flag)
    assert done.returncode == 1
    assert "Failed to parse flag" in done.stderr


def test_what_is_no_model_is_refused(tool: partial, at_hand: Client) -> None:
    (at_hand.phone.folder / "broken").write_bytes(b"\0" * 100)
    done = tool(f"--graph={at_hand.phone.folder / 'broken'}")
    assert done.returncode == 1
    assert done.stderr.endswith("ERROR: Benchmarking failed.\n")


def test_the_old_format_is_readable_too(tool: partial, at_hand: Client) -> None:
    at_hand.phone.set_tool("old")
    done = tool()
    assert "Average inference timings in us: Warmup: " in done.stderr
    assert done.stdout == ""
    assert parse_launch(done.stderr).p5_ns is None


@pytest.mark.parametrize(
    ("mode", "code"),
    [("fail", 1), ("crash", 128 + signal.SIGSEGV), ("warmup_only", 0), ("nan", 0), ("blank", 0)],
)
def test_a_launch_that_goes_wrong_holds_no_number(
    tool: partial, at_hand: Client, mode: str, code: int
) -> None:
    at_hand.phone.set_tool(mode)
    done = tool()
    assert done.returncode == code
    with pytest.raises(ToolOutputError):
        parse_launch(done.stdout + done.stderr)


def test_a_launch_can_hang(tool: partial, at_hand: Client) -> None:
    at_hand.phone.set_tool("hang")
    process = at_hand.start("shell", f"./benchmark_model --graph={MODEL} --warmup_min_secs=0.01")
    with pytest.raises(subprocess.TimeoutExpired):
        process.communicate(timeout=2)
    process.kill()
    process.communicate()


def test_the_tool_goes_wrong_at_the_launches_ordered(tool: partial, at_hand: Client) -> None:
    at_hand.phone.set_tool("fail", after=1, launches=2)
    assert [tool().returncode for _ in range(4)] == [0, 1, 1, 0]
