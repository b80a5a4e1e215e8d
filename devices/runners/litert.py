"""Runs a .tflite model in LiteRT (or the older tflite-runtime). Stand-alone, loaded by path.

Both packages say it is TFLite; they differ in name and version only, and this file imports
nothing else, so that it runs on any interpreter that has one of them.
"""

import importlib.util
import os
import sys
from time import perf_counter_ns

import numpy as np

try:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType
except ImportError:
    from tflite_runtime.interpreter import Interpreter, OpResolverType


def random_input(rng, detail):
    """Standard normal floats; any value for quantised numbers; 0 or 1 where it may be an index."""
    shape, dtype = detail["shape"], detail["dtype"]
    if np.issubdtype(dtype, np.floating):
        return rng.standard_normal(shape).astype(dtype)
    if dtype == np.bool_ or not detail["quantization_parameters"]["scales"].size:
        return rng.integers(0, 2, shape).astype(dtype)
    limits = np.iinfo(dtype)
    return rng.integers(limits.min, limits.max, shape, dtype=dtype, endpoint=True)


class LiteRtRunner:
    """One interpreter with its inputs set once."""

    def __init__(self, model, threads, xnnpack, shapes):
        self._model, self._threads, self._xnnpack = model, threads, xnnpack
        kinds = OpResolverType
        resolver = kinds.AUTO if xnnpack else kinds.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        self._interpreter = interpreter = Interpreter(
            model_path=model, num_threads=threads, experimental_op_resolver_type=resolver
        )
        for detail in interpreter.get_input_details():
            wanted = shapes.get(detail["name"])
            if wanted is not None and list(detail["shape"]) != wanted:
                interpreter.resize_tensor_input(detail["index"], wanted, strict=True)
        interpreter.allocate_tensors()
        rng = np.random.default_rng(0)
        for detail in interpreter.get_input_details():
            interpreter.set_tensor(detail["index"], random_input(rng, detail))

    def run(self, n):
        """Time n runs, in nanoseconds."""
        invoke, times = self._interpreter.invoke, []
        for _ in range(n):
            start = perf_counter_ns()
            invoke()
            times.append(perf_counter_ns() - start)
        return times

    def check(self):
        """Raise ``ValueError`` when an output is not finite."""
        self._interpreter.invoke()
        for detail in self._interpreter.get_output_details():
            value = self._interpreter.get_tensor(detail["index"])
            if np.issubdtype(value.dtype, np.floating) and not np.isfinite(value).all():
                raise ValueError(
                    f"output {detail['name']!r} holds NaN or infinity on random input: "
                    "its timing would not be that of real work"
                )

    def profile(self, n):
        """Mean time of each operator over n runs; ValueError where this runtime tells none."""
        if not self._xnnpack:
            raise ValueError("no operator profile of the built-in kernels: leave XNNPACK on")
        here = os.path.join(os.path.dirname(__file__), "litert_ops.py")
        spec = importlib.util.spec_from_file_location("hwbench_litert_ops", here)
        ops = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(ops)
        package = os.path.dirname(sys.modules[Interpreter.__module__].__file__)
        library = os.path.join(package, "libLiteRt.so")
        details = self._interpreter.get_input_details()
        inputs = [self._interpreter.get_tensor(detail["index"]) for detail in details]
        return ops.operator_times(library, self._model, self._threads, inputs, n)


def load(args):
    """Build the runner: ``model`` (path), ``threads``; optional ``xnnpack``, ``shapes``."""
    return LiteRtRunner(
        args["model"], args["threads"], args.get("xnnpack", True), args.get("shapes", {})
    )
