"""Runs a .tflite model in LiteRT (or the older tflite-runtime). Stand-alone, loaded by path."""

from time import perf_counter_ns

import numpy as np

try:
    from ai_edge_litert.interpreter import Interpreter
except ImportError:
    from tflite_runtime.interpreter import Interpreter


class LiteRtRunner:
    """One interpreter with its input set once."""

    def __init__(self, args):
        self._interpreter = Interpreter(model_path=args["model"], num_threads=args["threads"])
        self._interpreter.allocate_tensors()
        rng = np.random.default_rng(0)
        for detail in self._interpreter.get_input_details():
            value = rng.standard_normal(detail["shape"]).astype(detail["dtype"])
            self._interpreter.set_tensor(detail["index"], value)

    def run(self, n):
        """Time n runs, in nanoseconds."""
        invoke, times = self._interpreter.invoke, []
        for _ in range(n):
            start = perf_counter_ns()
            invoke()
            times.append(perf_counter_ns() - start)
        return times


def load(args):
    """Build the runner: ``model`` (path), ``threads``."""
    return LiteRtRunner(args)
