"""benchmark_model's output is read whatever its age, and a number is never made up."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hwbench.devices.phone.output import Delegation, parse_launch, parse_ops
from hwbench.devices.phone.tool import (
    ToolOptions,
    check_delegated,
    launch_command,
    published_for,
)
from hwbench.errors import DelegateError, ToolOutputError, UsageError

_AT_LEAST = "Running benchmark for at least {} iterations and at least {} seconds"
_LIMIT = " but terminate if exceeding 150 seconds."
_NOTE = (
    "Note: as the benchmark tool itself affects memory footprint, the following is only"
    " APPROXIMATE to the actual memory footprint of the model at runtime."
)

#: A build of 2019, at the end of which the summary stands.
OLD = f"""\
STARTING!
Min num runs: [50]
Graph: [/data/local/tmp/net.tflite]
Loaded model /data/local/tmp/net.tflite
resolved reporter
Initialized session in 1.892ms
{_AT_LEAST.format(1, 0.5)}
count=6 first=91810 curr=85097 min=84834 max=91810 avg=86184.3 std=2519

{_AT_LEAST.format(50, 1)}
count=50 first=118810 curr=114219 min=88216 max=129193 avg=115062 std=7678

Average inference timings in us: Warmup: 86184.3, Init: 1892, no stats: 115062
"""

#: A build of 2020: the newer summary, and the memory's first wording.
NEWER = f"""\
STARTING!
Log parameter values verbosely: [0]
Num threads: [4]
Loaded model /data/local/tmp/net.tflite
INFO: Created TensorFlow Lite XNNPACK delegate for CPU.
Replacing 31 node(s) with delegate (TfLiteXNNPackDelegate) node, yielding 1 partitions.
The input model file size (MB): 16.9008
Initialized session in 16.242ms.
{_AT_LEAST.format(1, 0.5)}{_LIMIT}
count=2 first=360262 curr=248910 min=248910 max=360262 avg=304586 std=55676

{_AT_LEAST.format(50, 1)}{_LIMIT}
count=50 first=249042 curr=250889 min=247067 max=254474 avg=249684 std=1442

Inference timings in us: Init: 16242, First inference: 360262, Warmup (avg): 304586, \
Inference (avg): 249684
{_NOTE}
Peak memory footprint (MB): init=4.92969 overall=138.809
"""

#: A build of today: prefixes, percentiles, scientific notation, memory by monitoring.
TODAY = f"""\
INFO: STARTING!
INFO: Graph: [/data/local/tmp/net.tflite]
INFO: Loaded model /data/local/tmp/net.tflite
INFO: Created TensorFlow Lite XNNPACK delegate for CPU.
VERBOSE: Replacing 66 out of 66 node(s) with delegate (TfLiteXNNPackDelegate) node, yielding 1 \
partitions for subgraph 0.
INFO: Explicitly applied XNNPACK delegate, and the model graph will be completely executed by the \
delegate.
INFO: Initialized session in 5.579ms.
INFO: {_AT_LEAST.format(1, 0.5)}{_LIMIT}
INFO: count=1 curr=1357602 p5=1357602 median=1357602 p95=1357602

INFO: {_AT_LEAST.format(50, 1)}{_LIMIT}
INFO: count=50 first=1249964 curr=1240143 min=1238588 max=1252566 avg=1.24027e+06 std=2565 \
p5=1238753 median=1239807 p95=1247415

INFO: Inference timings in us: Init: 5579, First inference: 1357602, Warmup (avg): 1.3576e+06, \
Inference (avg): 1.24027e+06
INFO: {_NOTE}
INFO: Memory footprint delta from the start of the tool (MB): init=6.36328 overall=109.832
INFO: Overall peak memory footprint (MB) via periodic monitoring: 93.2383
INFO: Memory status at the end of exeution:
INFO: - VmRSS              : 92 MB
"""

_GPU = """\
INFO: Created TensorFlow Lite delegate for GPU.
INFO: GPU delegate created.
{log}
INFO: count=1 curr=900 p5=900 median=900 p95=900
INFO: count=50 first=800 curr=810 min=790 max=830 avg=805.25 std=9 p5=791 median=805 p95=829
INFO: Inference timings in us: Init: 5664363, First inference: 900, Warmup (avg): 900, \
Inference (avg): 805.25
"""
_ALL_GPU = (
    "VERBOSE: Replacing 49 out of 49 node(s) with delegate (TfLiteGpuDelegateV2) node, yielding 1"
    " partitions for subgraph 0.\nINFO: Explicitly applied GPU delegate, and the model graph will"
    " be completely executed by the delegate."
)
_SOME_GPU = (
    "VERBOSE: Replacing 30 out of 40 node(s) with delegate (TfLiteGpuDelegateV2) node, yielding 3"
    " partitions for subgraph 0.\nINFO: Explicitly applied GPU delegate, and the model graph will"
    " be partially executed by the delegate w/ 3 delegate kernels.\nVERBOSE: Replacing 10 out of 13"
    " node(s) with delegate (TfLiteXNNPackDelegate) node, yielding 2 partitions for subgraph 0."
)
_NO_GPU = (
    "INFO: Though GPU delegate is explicitly applied, the model graph will not be executed by the"
    " delegate."
)
#: Seen with NNAPI: all nodes replaced, and then none of them run.
_TAKEN_BACK = _ALL_GPU.replace("be completely executed", "not be executed")


def test_an_old_build_is_read() -> None:
    launch = parse_launch(OLD)
    assert (launch.count, launch.mean_ns, launch.std_ns) == (50, 115_062_000, 7_678_000)
    assert (launch.min_ns, launch.max_ns) == (88_216_000, 129_193_000)
    assert (launch.init_ns, launch.first_ns) == (1_892_000, 91_810_000)
    assert (launch.warmup_count, launch.warmup_mean_ns) == (6, 86_184_300)
    assert launch.p5_ns is launch.median_ns is launch.p95_ns is launch.peak_memory_bytes is None
    assert (launch.delegates, launch.complete, launch.fallback) == ((), None, False)


def test_the_newer_summary_is_read() -> None:
    launch = parse_launch(NEWER)
    assert (launch.count, launch.mean_ns, launch.init_ns) == (50, 249_684_000, 16_242_000)
    assert launch.peak_memory_bytes == int(138.809 * 1024 * 1024)
    assert launch.delegates == (Delegation("TfLiteXNNPackDelegate", 31, None, 1),)


def test_prefixes_percentiles_and_scientific_notation_are_read() -> None:
    launch = parse_launch(TODAY)
    assert (launch.count, launch.mean_ns) == (50, 1.24027e9)
    assert (launch.p5_ns, launch.median_ns, launch.p95_ns) == (
        1_238_753_000,
        1_239_807_000,
        1_247_415_000,
    )
    assert (launch.warmup_count, launch.first_ns) == (1, 1_357_602_000)
    assert launch.peak_memory_bytes == int(93.2383 * 1024 * 1024)
    assert launch.delegates == (Delegation("TfLiteXNNPackDelegate", 66, 66, 1),)
    assert launch.complete is True


def test_memory_of_a_build_without_monitoring_is_the_growth() -> None:
    text = re.sub(r"INFO: Overall peak.*\n", "", TODAY)
    assert parse_launch(text).peak_memory_bytes == int(109.832 * 1024 * 1024)


def test_memory_that_is_not_supported_is_unknown() -> None:
    text = NEWER.replace("init=4.92969 overall=138.809", "init=0 overall=0")
    assert parse_launch(text).peak_memory_bytes is None


@pytest.mark.parametrize(
    "prefix",
    [
        "I/tflite  ( 4321): ",
        "I/tflite: ",
        "I tflite  : ",
        "11-22 18:44:01.123  4321  4333 I tflite  : ",
        "2026-11-22 18:44:01.123  4321  4333 I tflite  : ",
        "11-22 18:44:01.123 I/tflite  ( 4321): INFO: ",
        "2026-11-22 18:44:01.123456 +0100 10123  4321  4333 I tflite  : ",
    ],
)
def test_logcat_is_read(prefix: str) -> None:
    text = "".join(prefix + line for line in NEWER.splitlines(keepends=True))
    assert parse_launch(text) == parse_launch(NEWER)


def test_windows_line_ends_of_an_old_shell_are_read() -> None:
    assert parse_launch(TODAY.replace("\n", "\r\n")) == parse_launch(TODAY)


def test_one_run_has_a_mean_but_no_deviation() -> None:
    launch = parse_launch(
        "count=1 curr=352\ncount=1 curr=178\n"
        "Average inference timings in us: Warmup: 352, Init: 2491, no stats: 178\n"
    )
    assert (launch.count, launch.mean_ns, launch.std_ns) == (1, 178_000, None)
    assert (launch.min_ns, launch.max_ns, launch.first_ns) == (178_000, 178_000, 352_000)


def test_runs_that_all_took_the_same_time_are_read() -> None:
    launch = parse_launch(
        "count=50 curr=17(all same)\n"
        "Inference timings in us: Init: 5, First inference: 0, Warmup (avg): nan,"
        " Inference (avg): 17\n"
    )
    assert (launch.count, launch.mean_ns, launch.std_ns) == (50, 17_000, 0.0)
    assert launch.warmup_count == 0
    assert launch.first_ns is launch.warmup_mean_ns is None


_TABLE = """\
============================== Run Order ==============================
\t             [node type]\t  [start]\t  [first]\t [avg ms]\t     [%]\t  [cdf%]\t  [mem KB]\
\t[times called]\t[Name]
\t                 CONV_2D\t    0.000\t    4.269\t    4.250\t 66.406%\t 66.406%\t     0.000\
\t        1\t[a/Relu6, b/Relu6]:0
\t       DEPTHWISE_CONV_2D\t    4.270\t    2.150\t    2.150\t 33.594%\t100.000%\t    12.000\
\t        2\t[b, c;d]:1

"""
_BY_TIME = _TABLE.replace("Run Order", "Top by Computation Time")
_BY_TYPE = """\
Number of nodes executed: 2
============================== Summary by node type ==============================
\t             [Node type]\t  [count]\t  [avg ms]\t    [avg %]\t    [cdf %]\t  [mem KB]\
\t[times called]
\t                 CONV_2D\t        1\t     4.250\t    66.406%\t    66.406%\t     0.000\t        1

Timings (microseconds): count=50 first=79449 curr=81350 min=77385 max=88213 avg=79732 std=1929
Memory (bytes): count=0
2 nodes observed

"""
_INIT = """\
Profiling Info for Benchmark Initialization:
============================== Run Order ==============================
\t             [node type]\t  [first]\t [avg ms]\t     [%]\t  [cdf%]\t  [mem KB]\t[times called]\
\t[Name]
\t         AllocateTensors\t    0.102\t    0.102\t100.000%\t100.000%\t   844.000\t        1\
\tAllocateTensors/0

Timings (microseconds): count=1 curr=102
Memory (bytes): count=0
"""
_REGULAR = "Operator-wise Profiling Info for Regular Benchmark Runs:\n"
_INSIDE = """\
Delegate internal:
============================== Run Order ==============================
\t             [node type]\t  [first]\t [avg ms]\t     [%]\t  [cdf%]\t  [mem KB]\t[times called]\
\t[Name]
\t  Convolution (NHWC, F32) IGEMM\t    0.312\t    0.300\t100.000%\t100.000%\t     0.000\t        1\
\tDelegate/Convolution (NHWC, F32) IGEMM:0

"""
PROFILED = NEWER + _INIT + _REGULAR + _TABLE + _BY_TIME + _BY_TYPE + _INSIDE
#: Old builds print the profile before the summary, and no headings.
OLD_PROFILED = (
    OLD[: OLD.index("Average")] + _TABLE + _BY_TIME + _BY_TYPE + OLD[OLD.index("Average") :]
)


@pytest.mark.parametrize(("profiled", "plain"), [(PROFILED, NEWER), (OLD_PROFILED, OLD)])
def test_the_profile_does_not_touch_the_latency(profiled: str, plain: str) -> None:
    assert parse_launch(profiled) == parse_launch(plain)


def test_operators_are_read_once_and_with_commas_in_their_names() -> None:
    conv, depthwise, inner = parse_ops(PROFILED)
    assert (conv.node_type, conv.name) == ("CONV_2D", "[a/Relu6, b/Relu6]:0")
    assert (conv.start_ns, conv.first_ns, conv.mean_ns) == (0, 4_269_000, 4_250_000)
    assert conv.share == pytest.approx(0.66406)
    assert (depthwise.name, depthwise.times_called) == ("[b, c;d]:1", 2)
    assert depthwise.memory_bytes == 12_000
    assert not conv.inside_delegate
    assert inner.inside_delegate
    assert inner.node_type == "Convolution (NHWC, F32) IGEMM"
    assert (inner.start_ns, inner.mean_ns) == (None, 300_000)


def test_operators_of_an_old_build_are_read() -> None:
    assert parse_ops(OLD_PROFILED) == parse_ops(PROFILED)[:2]


def test_operators_behind_logcat_are_read() -> None:
    text = "".join(
        "11-22 18:44:01.123  4321  4333 I tflite  : " + line
        for line in PROFILED.splitlines(keepends=True)
    )
    assert parse_ops(text) == parse_ops(PROFILED)


@pytest.mark.parametrize(
    "text",
    [
        "",
        NEWER,
        NEWER + _INIT,
        NEWER + _REGULAR + _BY_TIME + _BY_TYPE,
        PROFILED.replace("    4.250\t 66", "      nan\t 66"),
        PROFILED.replace("\t        1\t[a/Relu6", "[a/Relu6"),
    ],
)
def test_a_missing_or_damaged_profile_is_an_error(text: str) -> None:
    with pytest.raises(ToolOutputError):
        parse_ops(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "nothing"),
        ("ERROR: Failed to load model /x.tflite\nERROR: Benchmarking failed.\n", "Failed to load"),
        (TODAY + "ERROR: Failed to invoke\nERROR: Benchmarking failed.\n", "Failed to invoke"),
        (TODAY[: TODAY.index("INFO: Inference timings")], "no latency"),
        (OLD[: OLD.index("count=50")], "no latency"),
        (TODAY.replace("avg=1.24027e+06", "avg=nan"), "no latency"),
        (TODAY.replace("Inference (avg): 1.24027e+06", "Inference (avg): nan"), "no latency"),
        (TODAY.replace("Inference (avg): 1.24027e+06", "Inference (avg): "), "no latency"),
        (TODAY.replace("Inference (avg): 1.24027e+06", "Inference (avg): 1.3576e+06"), "two means"),
        (TODAY.replace("Warmup (avg): 1.3576e+06", "Warmup (avg): 1.24027e+06"), "two means"),
        (TODAY.replace("INFO: count=50 first", "INFO: count=0 first"), "no latency"),
        (TODAY.replace("min=1238588", "min=1252567"), "contradict"),
        (TODAY.replace("median=1239807", "median=1247416"), "contradict"),
        (TODAY + TODAY, "more than one"),
        (re.sub(r"INFO: count=.*\n", "", TODAY), "0 statistics lines"),
        ("count=3 curr=9\n" + TODAY, "3 statistics lines"),
        (
            "count=9 curr=0(all same)\nInference timings in us: Init: 5, First inference: 0,"
            " Warmup (avg): 0, Inference (avg): 0\n",
            "too short",
        ),
    ],
)
def test_an_output_without_a_trustworthy_number_is_an_error(text: str, says: str) -> None:
    with pytest.raises(ToolOutputError, match=says) as caught:
        parse_launch(text)
    assert len(str(caught.value).splitlines()) == 1


def test_the_warm_up_is_never_taken_for_the_runs() -> None:
    without_runs = re.sub(r"INFO: count=50 .*\n", "", TODAY)
    with pytest.raises(ToolOutputError, match="two means"):
        parse_launch(without_runs)


@pytest.mark.parametrize("text", [OLD, NEWER, TODAY, PROFILED, OLD_PROFILED])
def test_an_output_cut_anywhere_gives_no_number_or_the_right_one(text: str) -> None:
    right = parse_launch(text)
    end = text.index("\n", text.index("nference timings in us"))
    for cut in range(len(text) + 1):
        if cut <= end:
            with pytest.raises(ToolOutputError):
                parse_launch(text[:cut])
        else:
            launch = parse_launch(text[:cut])
            assert (launch.count, launch.mean_ns) == (right.count, right.mean_ns)


@pytest.mark.parametrize("text", [OLD, NEWER, TODAY])
def test_a_lost_character_gives_no_number_or_the_right_one(text: str) -> None:
    right = parse_launch(text).mean_ns
    for lost in range(len(text)):
        try:
            launch = parse_launch(text[:lost] + text[lost + 1 :])
        except ToolOutputError:
            continue
        assert launch.mean_ns == pytest.approx(right, rel=2e-5)


@given(st.text())
@example(
    "Inference timings in us: Init: 1, First inference: 2, Warmup (avg): 3, Inference (avg): 4"
)
def test_arbitrary_text_holds_no_number(text: str) -> None:
    with pytest.raises(ToolOutputError):
        parse_launch(text)
    with pytest.raises(ToolOutputError):
        parse_ops(text)


_FRAGMENTS = [
    *(line for text in (OLD, NEWER, TODAY) for line in text.splitlines()),
    "count=9999999999999999999999 curr=1",
    "count=5 first=1e99999 curr=1 min=1 max=1 avg=1 std=1",
    "Replacing 1 out of 0 node(s) with delegate () node",
    "\x00",
    "\t",
    "\r",
]


@given(st.lists(st.sampled_from(_FRAGMENTS)).map("\n".join))
def test_a_number_always_stands_in_the_output_it_comes_from(text: str) -> None:
    try:
        launch = parse_launch(text)
    except ToolOutputError:
        return
    summary = re.findall(r"(?:no stats|Inference \(avg\)): (\S+)", text)
    assert f"{launch.mean_ns / 1e3:.6g}" in {f"{float(mean):.6g}" for mean in summary}


def _stats_line(times: list[int], percentiles: bool) -> str:
    mean = sum(times) / len(times)
    line = f"count={len(times)}"
    if min(times) == max(times):
        line += f" curr={times[-1]}" + ("(all same)" if len(times) > 1 else "")
    else:
        variance = sum(t * t for t in times) / len(times) - mean * mean
        line += (
            f" first={times[0]} curr={times[-1]} min={min(times)} max={max(times)}"
            f" avg={mean:.6g} std={int(max(variance, 0) ** 0.5)}"
        )
    if percentiles:
        ordered = sorted(times)
        low, mid, high = (ordered[int(q * (len(times) - 1))] for q in (0.05, 0.5, 0.95))
        line += f" p5={low} median={mid} p95={high}"
    return line


_TIMES = st.lists(st.integers(1, 10**8), min_size=1, max_size=20)


@given(
    _TIMES,
    _TIMES,
    st.booleans(),
    st.booleans(),
    st.sampled_from(["", "INFO: ", "I/tflite  ( 12): "]),
)
def test_what_the_tool_prints_is_what_is_read(
    warmup: list[int], times: list[int], percentiles: bool, old: bool, prefix: str
) -> None:
    warm, mean = sum(warmup) / len(warmup), sum(times) / len(times)
    summary = (
        f"Average inference timings in us: Warmup: {warm:.6g}, Init: 77, no stats: {mean:.6g}"
        if old
        else f"Inference timings in us: Init: 77, First inference: {warmup[0]},"
        f" Warmup (avg): {warm:.6g}, Inference (avg): {mean:.6g}"
    )
    running = "Running benchmark"
    lines = [
        running,
        _stats_line(warmup, percentiles),
        running,
        _stats_line(times, percentiles),
        summary,
    ]
    launch = parse_launch("".join(f"{prefix}{line}\n" for line in lines))
    assert launch.count == len(times)
    assert launch.mean_ns == pytest.approx(1e3 * mean, rel=1e-5)
    assert (launch.min_ns, launch.max_ns) == (1e3 * min(times), 1e3 * max(times))
    assert (launch.warmup_count, launch.first_ns) == (len(warmup), 1e3 * warmup[0])
    assert (launch.median_ns is not None) == percentiles


@pytest.mark.parametrize(
    ("machine", "build"),
    [("x86_64", "linux_x86-64"), ("aarch64", "linux_aarch64"), ("armv7l", "linux_arm")],
)
def test_a_board_gets_the_tools_build_for_linux(machine: str, build: str) -> None:
    assert published_for(machine).endswith(f"/{build}_benchmark_model")


def test_where_no_build_is_published_the_sources_are_named() -> None:
    said = published_for("riscv64")
    assert "bazel build" in said
    assert "riscv64" in said


_ON_GPU = ToolOptions(delegate="gpu")
_PARTLY_ON_GPU = ToolOptions(delegate="gpu", allow_partial=True)


def test_a_model_wholly_on_the_delegate_passes() -> None:
    launch = parse_launch(_GPU.format(log=_ALL_GPU))
    assert check_delegated(launch, _ON_GPU) == 1.0
    assert check_delegated(parse_launch(TODAY), ToolOptions(delegate="xnnpack")) == 1.0


def test_a_part_on_the_delegate_is_an_error_unless_allowed() -> None:
    launch = parse_launch(_GPU.format(log=_SOME_GPU))
    with pytest.raises(DelegateError, match="30 of 40 nodes"):
        check_delegated(launch, _ON_GPU)
    assert check_delegated(launch, _PARTLY_ON_GPU) == 0.75


@pytest.mark.parametrize("options", [_ON_GPU, _PARTLY_ON_GPU])
@pytest.mark.parametrize("log", [_NO_GPU, _TAKEN_BACK, "INFO: nothing"])
def test_a_cpu_number_never_passes_under_the_delegates_name(log: str, options: ToolOptions) -> None:
    with pytest.raises(DelegateError, match="did not run the model"):
        check_delegated(parse_launch(_GPU.format(log=log)), options)


def test_another_delegates_nodes_do_not_count() -> None:
    log = _ALL_GPU.splitlines()[0].replace("TfLiteGpuDelegateV2", "TfLiteXNNPackDelegate")
    with pytest.raises(DelegateError, match="did not run the model"):
        check_delegated(parse_launch(_GPU.format(log=log)), _PARTLY_ON_GPU)


def test_a_delegation_taken_back_by_the_runtime_is_a_fallback() -> None:
    undone = "\nERROR: Restored original execution plan after delegate application failure."
    with pytest.raises(DelegateError):
        check_delegated(parse_launch(_GPU.format(log=_ALL_GPU + undone)), _ON_GPU)


def test_an_old_build_that_hides_the_total_is_not_taken_for_whole() -> None:
    launch = parse_launch(NEWER)
    with pytest.raises(DelegateError, match="unknown part"):
        check_delegated(launch, ToolOptions(delegate="xnnpack"))
    assert check_delegated(launch, ToolOptions(delegate="xnnpack", allow_partial=True)) is None


def test_a_delegate_that_nobody_asked_for_is_an_error() -> None:
    with pytest.raises(DelegateError, match="although"):
        check_delegated(parse_launch(TODAY), ToolOptions(delegate="none"))
    assert check_delegated(parse_launch(OLD), ToolOptions(delegate="none")) == 0.0


def test_a_launch_says_all_it_wants() -> None:
    options = ToolOptions(threads=2, runs=10, min_secs=0.5, delegate="gpu", mask="f0")
    assert launch_command("/r/tool", "/r/net.tflite", options, profile=True) == (
        "taskset",
        "f0",
        "/r/tool",
        "--graph=/r/net.tflite",
        "--num_threads=2",
        "--warmup_runs=1",
        "--num_runs=10",
        "--min_secs=0.5",
        "--max_secs=150",
        "--use_gpu=true",
        "--gpu_precision_loss_allowed=false",
        "--enable_op_profiling=true",
    )


@pytest.mark.parametrize(
    ("delegate", "flag"),
    [
        ("none", "--use_xnnpack=false"),
        ("xnnpack", "--use_xnnpack=true"),
        ("nnapi", "--use_nnapi=true"),
    ],
)
def test_each_delegate_is_asked_for_outright(delegate: str, flag: str) -> None:
    options = ToolOptions(delegate=delegate)  # type: ignore[arg-type]
    assert flag in launch_command("/r/tool", "/r/net.tflite", options)


@pytest.mark.parametrize(
    "options",
    [
        {"threads": 0},
        {"threads": 65},
        {"warmup_runs": 0},
        {"runs": 0},
        {"min_secs": -1.0},
        {"min_secs": float("nan")},
        {"min_secs": 9.0, "max_secs": 8.0},
        {"max_secs": float("inf")},
        {"delegate": "tpu"},
        {"mask": "0"},
        {"mask": "0xf0"},
        {"mask": "f0; reboot"},
        {"mask": "f0\n"},
        {"mask": "80", "threads": 2},
    ],
)
def test_options_that_make_no_launch_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        ToolOptions(**options)  # type: ignore[arg-type]


def test_paths_that_could_be_taken_for_flags_are_refused() -> None:
    with pytest.raises(UsageError):
        launch_command("--help", "/r/net.tflite", ToolOptions())
