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


def random_input(rng, dtype, shape):
    """Standard normal floats; 0 or 1 for integers, which are valid indices almost anywhere."""
    if dtype == "bool" or np.issubdtype(np.dtype(dtype), np.integer):
        return rng.integers(0, 2, shape).astype(dtype)
    if np.issubdtype(np.dtype(dtype), np.floating):
        return rng.standard_normal(shape).astype(dtype)
    raise ValueError(f"inputs of type {dtype} are not supported")


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
        for meta, value in zip(self._session.get_outputs(), self._session.run(None, self._feeds)):
            array = np.asarray(value)
            if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
                raise ValueError(
                    f"output {meta.name!r} holds NaN or infinity on random input: "
                    "its timing would not be that of real work"
                )

    def profile(self, n):
        """Mean time of each node over n runs, from onnxruntime's own profiler."""
        with tempfile.TemporaryDirectory() as folder:
            session = self._open(profile=os.path.join(folder, "profile"))
            for _ in range(n + 3):
                session.run(None, self._feeds)
            with open(session.end_profiling()) as file:
                events = json.load(file)
        return node_times(events, skip=3)


def node_times(events, skip):
    """Reduce profiler events to one row a node; the first ``skip`` runs are warm-up."""
    rows, runs, seen = {}, [], {}
    for event in events:
        name = event.get("name", "")
        if event.get("cat") == "Session" and name == "model_run":
            runs.append(event["dur"] * 1000)
        if event.get("cat") != "Node" or not name.endswith("_kernel_time"):
            continue
        seen[name] = seen.get(name, 0) + 1
        if seen[name] <= skip:
            continue
        kind = event.get("args", {}).get("op_name", "?")
        row = rows.setdefault(name, {"name": name[: -len("_kernel_time")], "kind": kind, "ns": []})
        row["ns"].append(event["dur"] * 1000)
    nodes = [
        {"name": r["name"], "kind": r["kind"], "ns": float(np.mean(r["ns"]))} for r in rows.values()
    ]
    return {"nodes": nodes, "whole_ns": float(np.mean(runs[skip:]))}


def load(args):
    """Build the runner: ``model`` (path), ``inputs``, ``threads``, optional ``options``."""
    return OrtRunner(args)
