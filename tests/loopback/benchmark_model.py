"""A stand-in for TFLite's ``benchmark_model``: its command line and output, real LiteRT inference.

Follows ``tensorflow/lite/tools/benchmark`` of 2025: information and warnings go to stdout, errors
and the runtime's own log to stderr; flags are ``--name=value``, and one that the tool does not
know is named in a warning and otherwise ignored. The time of a run is that of this machine; only
the op profile is made up (each node gets an equal share). No GPU or NNAPI is here: these
delegates take nothing and leave the model to the CPU.

``$LOOPBACK_STATE/tool`` orders what goes wrong, as `LoopbackPhone.set_tool` writes it.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import statistics
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

MODES = {
    "sound": "as it should be",
    "old": "the output of a build of 2019, all of it on stderr",
    "fail": "the model cannot be prepared: 'Benchmarking failed.', exit code 1",
    "crash": "a signal ends it after the warm-up",
    "hang": "it does not go on after the warm-up",
    "warmup_only": "it ends after the warm-up, as if all was well",
    "nan": "the statistics of the runs are not numbers",
    "blank": "the statistics of the runs are left out",
    "partial": "a GPU or NNAPI delegate takes half of the nodes",
}

FLAGS: dict[str, tuple[type, object, str]] = {
    "num_runs": (int, 50, "Min num runs"),
    "min_secs": (float, 1.0, "Min runs duration (seconds)"),
    "max_secs": (float, 150.0, "Max runs duration (seconds)"),
    "run_delay": (float, -1.0, "Inter-run delay (seconds)"),
    "num_threads": (int, -1, "Num threads"),
    "warmup_runs": (int, 1, "Min warmup runs"),
    "warmup_min_secs": (float, 0.5, "Min warmup runs duration (seconds)"),
    "graph": (str, "", "Graph"),
    "enable_op_profiling": (bool, False, "Enable op profiling"),
    "profiling_output_csv_file": (str, "", "CSV File to export profiling data to"),
    "use_gpu": (bool, False, "Use gpu"),
    "gpu_precision_loss_allowed": (bool, True, "Allow lower precision in gpu"),
    "use_nnapi": (bool, False, "Use NNAPI"),
    "use_xnnpack": (bool, False, "Use xnnpack"),
}
#: In the order in which the stand-in applies them, with the name that the runtime knows.
DELEGATES = {
    "GPU": "TfLiteGpuDelegateV2",
    "NNAPI": "TfLiteNnapiDelegate",
    "XNNPACK": "TfLiteXNNPackDelegate",
}
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
_RULE = "=" * 30


class ToolError(Exception):
    """What the tool says on stderr before it gives up."""


def main(arguments: list[str]) -> int:
    mode = take_mode()
    log = Log(old=mode == "old")
    log.info("STARTING!")
    try:
        benchmark(arguments, mode, log)
    except ToolError as failure:
        log.error(str(failure))
        log.error("Benchmarking failed.")
        return 1
    return 0


class Log:
    """Prints as the tool does; an old build put everything on stderr, without a level."""

    def __init__(self, old: bool) -> None:
        self.old = old

    def info(self, text: str, level: str = "INFO") -> None:
        if self.old:
            _say(text, sys.stderr)
        else:
            _say(f"{level}: {text}", sys.stdout)

    def error(self, text: str) -> None:
        _say(text if self.old else f"ERROR: {text}", sys.stderr)

    def runtime(self, text: str, level: str = "INFO") -> None:
        _say(f"{level}: {text}", sys.stderr)


def _say(text: str, stream: TextIO) -> None:
    stream.write(f"{text}\n")
    stream.flush()


def take_mode() -> str:
    """The mode ordered for this launch, and count the launch."""
    path = Path(os.environ.get("LOOPBACK_STATE", ""), "tool")
    if not path.is_file():
        return "sound"
    order = json.loads(path.read_text())
    strikes = order["after"] == 0 and order["launches"] != 0
    if order["after"] > 0:
        order["after"] -= 1
    elif order["launches"]:
        order["launches"] -= 1
    path.write_text(json.dumps(order))
    return str(order["mode"]) if strikes else "sound"


def benchmark(arguments: list[str], mode: str, log: Log) -> None:
    """One launch: flags, model, warm-up, runs, summary. Raises ToolError."""
    options, given = parse(arguments, log)
    if not options["graph"]:
        raise ToolError("Please specify the name of your TF Lite input file with --graph")
    log_parameters(options, given, log)
    memory_before = peak_memory_kb()
    started = time.perf_counter_ns()
    net = Net(options, given, mode, log)
    init_us = (time.perf_counter_ns() - started) // 1000
    init_kb = peak_memory_kb() - memory_before
    size_mb = os.path.getsize(options["graph"]) / 1e6
    log.info(f"The input model file size (MB): {number(size_mb)}")
    log.info(f"Initialized session in {number(init_us / 1e3)}ms.")

    warmup = run(net, options["warmup_runs"], options["warmup_min_secs"], options, log)
    log.info(f"{statistics_line(warmup, log.old)}\n")
    if mode == "warmup_only":
        return
    if mode == "crash":
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.kill(os.getpid(), signal.SIGSEGV)
    while mode == "hang":
        time.sleep(1)
    runs = run(net, options["num_runs"], options["min_secs"], options, log)
    line, mean = statistics_line(runs, log.old), mean_of(runs)
    if mode in ("nan", "blank"):
        mean = "nan" if mode == "nan" else ""
        line = " ".join(f"{pair.split('=')[0]}={mean}" for pair in line.split())
    log.info(f"{line}\n")
    summary(init_us, warmup, mean, (init_kb, peak_memory_kb() - memory_before), log)
    if options["enable_op_profiling"] and runs:
        profile(net, runs, options, log)


def parse(arguments: list[str], log: Log) -> tuple[dict[str, Any], list[str]]:
    """The value of each flag, of its first mention, and the names of those given."""
    options: dict[str, Any] = {name: default for name, (_, default, _) in FLAGS.items()}
    given: list[str] = []
    unknown = []
    for argument in arguments:
        name, equals, text = argument.removeprefix("--").partition("=")
        if not (argument.startswith("--") and equals and name in FLAGS) or name in given:
            unknown.append(argument)
            continue
        kind = FLAGS[name][0]
        try:
            options[name] = _BOOLEANS[text] if kind is bool else kind(text)
        except (KeyError, ValueError):
            log.error(f"Failed to parse flag '{name}' against argv '{argument}'")
            raise ToolError(f"usage: {sys.argv[0]} <flags>") from None
        given.append(name)
    if unknown:
        log.info(f"Unconsumed cmdline flags: {' '.join(unknown)}", level="WARN")
    return options, given


def log_parameters(options: dict[str, Any], given: list[str], log: Log) -> None:
    log.info("Log parameter values verbosely: [0]")
    for name, (kind, _, title) in FLAGS.items():
        if name in given:
            value = options[name]
            shown = value if kind is str else number(value)
            log.info(f"{title}: [{shown}]")


class Net:
    """The model in an interpreter, delegates applied, with an input set."""

    def __init__(self, options: dict[str, Any], given: list[str], mode: str, log: Log) -> None:
        graph = options["graph"]
        explicit = options["use_xnnpack"]
        off = "use_xnnpack" in given and not explicit
        resolver = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES if off else OpResolverType.AUTO
        threads = options["num_threads"] if options["num_threads"] > 0 else None
        try:
            self.interpreter = Interpreter(
                model_path=graph, num_threads=threads, experimental_op_resolver_type=resolver
            )
        except (ValueError, OSError):
            raise ToolError(f"Failed to load model {graph}") from None
        log.info(f"Loaded model {graph}")
        log.runtime("Initialized TensorFlow Lite runtime.")
        if mode == "fail":
            raise ToolError("Failed to allocate tensors!")
        try:
            self.interpreter.allocate_tensors()
        except RuntimeError:
            raise ToolError("Failed to allocate tensors!") from None
        self.nodes = executed_nodes(self.interpreter)
        self._tell_delegates(options, mode, log)
        self.inputs = random_inputs(self.interpreter)

    def _tell_delegates(self, options: dict[str, Any], mode: str, log: Log) -> None:
        """What the tool and the runtime say of each delegate, asked for or there by default."""
        asked = [name for name in DELEGATES if options[f"use_{name.lower()}"]]
        log.info(f"Going to apply {len(asked)} delegates one after another.")
        total, replaced = self.nodes.total, self.nodes.replaced
        for name, kind in DELEGATES.items():
            if name == "XNNPACK":  # it alone is real
                taken, kernels = replaced, self.nodes.kernels
            else:
                taken = replaced // 2 if mode == "partial" and name in asked else 0
                kernels = min(taken, 1)
            if name in asked:
                log.info(f"{name} delegate created.")
            if taken:
                log.runtime(
                    f"Replacing {taken} out of {total} node(s) with delegate ({kind}) node,"
                    f" yielding {kernels + (taken < total)} partitions for the whole graph.",
                    level="VERBOSE",
                )
            if name in asked:
                log.info(coverage(name, taken, total, kernels))
            # What it took is one node for the next delegate.
            total, replaced = total - taken + kernels, replaced - taken


def coverage(name: str, taken: int, total: int, kernels: int) -> str:
    if taken == 0:
        return (
            f"Though {name} delegate is explicitly applied, the model graph will not be"
            " executed by the delegate."
        )
    whole = "completely executed by the delegate."
    part = f"partially executed by the delegate w/ {kernels} delegate kernels."
    return (
        f"Explicitly applied {name} delegate, and the model graph will be"
        f" {whole if taken == total else part}"
    )


class Nodes(NamedTuple):
    """What runs: ``names`` of nodes (type, name); of ``total``, ``replaced`` by ``kernels``."""

    names: list[tuple[str, str]]
    total: int
    replaced: int
    kernels: int


def executed_nodes(interpreter: Interpreter) -> Nodes:
    """Which nodes a delegate replaced: those that no output needs any more.

    The runtime appends a node for each part that a delegate took, and keeps the replaced ones in
    its list; so walk from the outputs back, by the delegates' nodes first.
    """
    ops = interpreter._get_ops_details()
    kernels = [op for op in ops if op["op_name"] == "DELEGATE"]
    originals = [op for op in ops if op["op_name"] != "DELEGATE"]
    maker = {int(tensor): op for op in (*originals, *kernels) for tensor in op["outputs"]}
    wanted = [detail["index"] for detail in interpreter.get_output_details()]
    run: dict[int, Any] = {}
    while wanted:
        op = maker.get(int(wanted.pop()))
        if op is not None and op["index"] not in run:
            run[op["index"]] = op
            wanted.extend(op["inputs"])
    left = sum(op["op_name"] != "DELEGATE" for op in run.values())
    tensors = {d["index"]: d["name"] for d in interpreter.get_tensor_details()}
    names = [
        (
            op["op_name"].replace("DELEGATE", "TfLiteXNNPackDelegate"),
            f"[{', '.join(tensors.get(int(t), '') for t in op['outputs'])}]:{index}",
        )
        for index, op in sorted(run.items())
    ]
    return Nodes(names, len(originals), len(originals) - left, len(kernels))


def random_inputs(interpreter: Interpreter) -> list[tuple[int, Any]]:
    """Of the tool's ranges: floats in ±0.5, int8 in ±127, uint8 to 254, other integers to 99."""
    rng = np.random.default_rng()
    found = []
    for detail in interpreter.get_input_details():
        kind, shape = np.dtype(detail["dtype"]), detail["shape"]
        if kind.kind == "f":
            value = rng.uniform(-0.5, 0.5, shape).astype(kind)
        else:
            low, high = {"int8": (-127, 127), "uint8": (0, 254), "bool": (0, 1)}.get(
                kind.name, (0, 99)
            )
            value = rng.integers(low, high, shape, endpoint=True).astype(kind)
        found.append((detail["index"], value))
    return found


def run(net: Net, least: int, least_s: float, options: dict[str, Any], log: Log) -> list[int]:
    """Run so often and so long at least, within ``max_secs``; the times in microseconds."""
    most_s, delay_s = options["max_secs"], options["run_delay"]
    log.info(
        f"Running benchmark for at least {least} iterations and at least {number(least_s)} seconds"
        f" but terminate if exceeding {number(most_s)} seconds."
    )
    times: list[int] = []
    begun = now = time.perf_counter()
    while (len(times) < least or now - begun < least_s) and now - begun <= most_s:
        for index, value in net.inputs:
            net.interpreter.set_tensor(index, value)
        start = time.perf_counter_ns()
        net.interpreter.invoke()
        times.append((time.perf_counter_ns() - start) // 1000)
        if delay_s > 0:
            time.sleep(delay_s)
        now = time.perf_counter()
    return times


def summary(
    init_us: int, warmup: list[int], mean: str, memory_kb: tuple[int, int], log: Log
) -> None:
    warmup_mean = mean_of(warmup)
    if log.old:
        log.info(
            f"Average inference timings in us: Warmup: {warmup_mean}, Init: {init_us},"
            f" no stats: {mean}"
        )
        return
    log.info(
        f"Inference timings in us: Init: {init_us}, First inference: {(warmup or [0])[0]},"
        f" Warmup (avg): {warmup_mean}, Inference (avg): {mean}"
    )
    log.info(
        "Note: as the benchmark tool itself affects memory footprint, the following is only"
        " APPROXIMATE to the actual memory footprint of the model at runtime. Take the"
        " information at your discretion."
    )
    init_mb, overall_mb = (number(kb / 1024) for kb in memory_kb)
    log.info(
        f"Memory footprint delta from the start of the tool (MB): init={init_mb}"
        f" overall={overall_mb}"
    )


def statistics_line(times: list[int], old: bool) -> str:
    """``stats_calculator.h``: Stat::OutputToStream, and StatWithPercentiles in newer builds."""
    if not times:
        return "count=0"
    if min(times) == max(times):
        line = f"count={len(times)} curr={times[0]}" + "(all same)" * (len(times) > 1)
    else:
        mean, spread = mean_of(times), int(statistics.pstdev(times))
        line = (
            f"count={len(times)} first={times[0]} curr={times[-1]} min={min(times)}"
            f" max={max(times)} avg={mean} std={spread}"
        )
    if old:
        return line
    p5, median, p95 = (sorted(times)[len(times) * p // 100] for p in (5, 50, 95))
    return f"{line} p5={p5} median={median} p95={p95}"


def profile(net: Net, runs: list[int], options: dict[str, Any], log: Log) -> None:
    """The op tables, to stdout or as CSV to a file."""
    path = options["profiling_output_csv_file"]
    table = op_table(net.nodes.names, statistics.fmean(runs), csv=bool(path))
    text = (
        "Operator-wise Profiling Info for Regular Benchmark Runs:\n"
        f"{table}\n"
        f"Timings (microseconds): {statistics_line(runs, old=True)}\n"
        "Memory (bytes): count=0\n"
        f"{len(net.nodes.names)} nodes observed\n\n"
    )
    if path:
        Path(path).write_text(text)
    else:
        log.info(text)


def op_table(names: list[tuple[str, str]], mean_us: float, csv: bool) -> str:
    """``stats_calculator.cc``: the columns of HeaderString and ColumnString, in run order."""
    lines = [f"{_RULE} Run Order {_RULE}"]
    titles = ("first", "avg ms", "%", "cdf%", "mem KB", "times called")
    widths = (9, 9, 8, 8, 10, 9)
    if csv:
        lines.append("node type, first, avg_ms, %, cdf%, mem KB, times called, name")
    else:
        columns = (f"{f'[{t}]':>{w}}" for t, w in zip(titles, widths, strict=True))
        lines.append("\t".join(("", f"{'[node type]':>40}", *columns, "[Name]")))
    share_ms, percent = mean_us / 1e3 / len(names), 100 / len(names)
    for place, (kind, name) in enumerate(names, start=1):
        cdf = percent * place
        if csv:
            values = (f"{number(x)}" for x in (share_ms, share_ms))
            shares = (f"{number(x)}%" for x in (percent, cdf))
            lines.append(", ".join((kind, *values, *shares, "0", "1", name.replace(",", "\t"))))
        else:
            cells = (f"{share_ms:>9.3f}", f"{share_ms:>9.3f}", f"{percent:>7.3f}%", f"{cdf:>7.3f}%")
            line = ("", f"{kind:>40}", *cells, f"{0:>10.3f}", f"{1:>9}", name)
            lines.append("\t".join(line))
    return "\n".join(lines) + "\n"


def mean_of(times: list[int]) -> str:
    return number(statistics.fmean(times)) if times else "nan"


def number(value: float) -> str:
    """As a C++ stream prints it: six significant digits, booleans as 0 and 1."""
    return f"{value:g}"


def peak_memory_kb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
