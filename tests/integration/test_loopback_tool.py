"""The loopback phone's stand-in for benchmark_model: its output is the real one's."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from functools import partial

import pytest

from hwbench.devices.phone.output import parse_launch, parse_ops
from hwbench.errors import ToolOutputError
from tests.adb_client import CANARY, Client

QUICK = ("--num_runs=5", "--min_secs=0.01", "--warmup_runs=1", "--warmup_min_secs=0.01")


@pytest.fixture(scope="module")
def tool(at_hand: Client) -> Iterator[partial[subprocess.CompletedProcess[str]]]:
    """Launches the pushed stand-in on the pushed model."""
    for source in (at_hand.phone.tool, CANARY):
        assert at_hand("push", source, at_hand.phone.folder).returncode == 0
    binary = at_hand.phone.folder / at_hand.phone.tool.name
    graph = f"--graph={at_hand.phone.folder / CANARY.name}"

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
    process = at_hand.start("shell", f"./benchmark_model --graph={CANARY} --warmup_min_secs=0.01")
    with pytest.raises(subprocess.TimeoutExpired):
        process.communicate(timeout=1)
    process.kill()
    process.communicate()


def test_the_tool_goes_wrong_at_the_launches_ordered(tool: partial, at_hand: Client) -> None:
    at_hand.phone.set_tool("fail", after=1, launches=2)
    assert [tool().returncode for _ in range(4)] == [0, 1, 1, 0]
