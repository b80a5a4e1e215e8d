"""Runs an ONNX model in onnxruntime on the CPU. A worker loads this file by its path.

Inputs and outputs are bound once, so that a run measures the model and not the copying of
Python objects; about 4 microseconds of call remain in each time.
"""

import json
import os
import tempfile
from time import perf_counter_ns

import numpy as np
import onnxruntime as ort

from hwbench.lower import create_session

ort.set_default_logger_severity(3)

LOADS_TOGETHER = True


def random_input(rng, dtype, shape):
    """Standard normal floats; 0 or 1 for integers, which are valid indices almost anywhere."""
    kind = getattr(np, dtype, None)  # numpy has no bfloat16 and no 4-bit integers
    if dtype == "bool" or (kind and np.issubdtype(kind, np.integer)):
        return rng.integers(0, 2, shape).astype(dtype)
    if kind and np.issubdtype(kind, np.floating):
        return rng.standard_normal(shape).astype(dtype)
    raise ValueError(f"inputs of type {dtype} are not supported")


def arrays(output):
    """The arrays in an output: a tensor, or a sequence or map of such."""
    if isinstance(output, dict):
        output = list(output.values())
    if not isinstance(output, list):
        return [np.asarray(output)]
    return [array for item in output for array in arrays(item)]


class OrtRunner:
    """One session with bound inputs."""

    def __init__(self, args):
        self._args = args
        self._session = self._open(profile=None)
        rng = np.random.default_rng(0)
        self._feeds = {
            spec["name"]: random_input(rng, spec["dtype"], tuple(spec["shape"]))
            for spec in args["inputs"]
        }
        binding = self._session.io_binding()
        for name, value in self._feeds.items():
            binding.bind_cpu_input(name, value)
        for output in self._session.get_outputs():
            binding.bind_output(output.name, "cpu")
        self._binding = binding

    def _open(self, profile):
        options = ort.SessionOptions()
        options.intra_op_num_threads = self._args["threads"]
        options.inter_op_num_threads = 1
        for key, value in self._args.get("options", {}).items():
            options.add_session_config_entry(key, value)
        if profile:
            options.enable_profiling = True
            options.profile_file_prefix = profile
        return create_session(self._args["model"], options)

    def run(self, n):
        """Time n runs, in nanoseconds."""
        run, binding, times = self._session.run_with_iobinding, self._binding, []
        for _ in range(n):
            start = perf_counter_ns()
            run(binding)
            times.append(perf_counter_ns() - start)
        return times

    def check(self):
        """Raise ``ValueError`` when an output is not finite."""
        outputs = self._session.run(None, self._feeds)
        for meta, output in zip(self._session.get_outputs(), outputs, strict=True):
            floats = [a for a in arrays(output) if np.issubdtype(a.dtype, np.floating)]
            if not all(np.isfinite(array).all() for array in floats):
                raise ValueError(
                    f"output {meta.name!r} holds NaN or infinity on random input: "
                    "its timing would not be that of real work"
                )

    def profile(self, n):
        """Mean time of each node over n runs, from onnxruntime's own profiler."""
        owner = os.environ.get("HWBENCH_SCRATCH", "hwbench-")  # by which a killed run's are found
        with tempfile.TemporaryDirectory(prefix=owner) as folder:
            session = self._open(profile=os.path.join(folder, "profile"))
            for _ in range(n + 3):
                session.run(None, self._feeds)
            with open(session.end_profiling()) as file:
                events = json.load(file)
        return node_times(events, skip=3)


def node_times(events, skip):
    """Reduce profiler events to one row a node: its own time in a mean run, without its body's.

    The nodes in the body of an If or a Loop have events of their own inside that of their owner,
    and as many as they are executed. The first ``skip`` runs are warm-up. Times in ns.
    """
    runs = [e for e in events if e.get("cat") == "Session" and e.get("name") == "model_run"][skip:]
    kernels = [
        event
        for event in events
        if event.get("cat") == "Node"
        and event["name"].endswith("_kernel_time")
        and event["ts"] >= runs[0]["ts"]
    ]
    rows, around = {}, []
    for event in sorted(kernels, key=lambda e: (e["ts"], -e["dur"])):
        name = event["name"].removesuffix("_kernel_time")
        kind = event.get("args", {}).get("op_name", "?")
        row = rows.setdefault(name, {"name": name, "kind": kind, "ns": 0.0})
        row["ns"] += event["dur"] * 1000 / len(runs)
        while around and around[-1][0] < event["ts"] + event["dur"]:
            around.pop()
        if around:
            around[-1][1]["ns"] -= event["dur"] * 1000 / len(runs)
        around.append((event["ts"] + event["dur"], row))
    return {
        "nodes": [{**row, "ns": max(row["ns"], 0.0)} for row in rows.values()],
        "whole_ns": float(np.mean([event["dur"] for event in runs])) * 1000,
    }


def load(args):
    """Build the runner: ``model`` (path), ``inputs``, ``threads``, optional ``options``."""
    return OrtRunner(args)
