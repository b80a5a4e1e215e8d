"""Runs a small ONNX file in onnxruntime, on any interpreter that has it. Stand-alone."""

from time import perf_counter_ns

import numpy as np
import onnxruntime as ort


class CanaryRunner:
    """One session of a network with one float input, its input bound once."""

    def __init__(self, model, threads):
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 4
        self._session = ort.InferenceSession(model, options, ["CPUExecutionProvider"])
        (entry,) = self._session.get_inputs()
        value = np.random.default_rng(0).standard_normal(entry.shape, np.float32)
        self._binding = self._session.io_binding()
        self._binding.bind_cpu_input(entry.name, value)
        for output in self._session.get_outputs():
            self._binding.bind_output(output.name, "cpu")

    def run(self, n):
        """Time n runs, in nanoseconds."""
        run, binding, times = self._session.run_with_iobinding, self._binding, []
        for _ in range(n):
            start = perf_counter_ns()
            run(binding)
            times.append(perf_counter_ns() - start)
        return times


def load(args):
    """Build the runner: ``model`` (path), ``threads``."""
    return CanaryRunner(args["model"], args["threads"])
