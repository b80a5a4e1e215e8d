"""Two common ways to time a model, each as it is done elsewhere. Stand-alone.

``python rivals.py`` reads one JSON request from standard input, ``{"method", "seconds",
"models": [{"file", "args"}, …]}``, and prints the time of each model in ns as a JSON list.

``sequential_median``: one model after the other, ten warm-up runs, then the median of as many
runs as fit into the time. ``torch_adaptive``: ``torch.utils.benchmark`` with its own adaptive
stopping, its median, bounded by the same time.
"""

import importlib.util
import json
import os
import statistics
import sys
import time


def load(model):
    """Build a runner from its file."""
    spec = importlib.util.spec_from_file_location("runner", model["file"])
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.load(model["args"])


def sequential_median(runner, seconds):
    """Median of the runs that fit into the time, five at least."""
    runner.run(10)
    times, end = [], time.monotonic() + seconds
    while len(times) < 5 or time.monotonic() < end:
        times += runner.run(1)
    return statistics.median(times)


def torch_adaptive(runner, seconds):
    """Median of torch's adaptive measurement."""
    from torch.utils.benchmark import Timer

    timer = Timer("run(1)", globals={"run": runner.run}, num_threads=1)
    return timer.adaptive_autorange(max_run_time=seconds).median * 1e9


def main():
    """Answer one request. Runtimes print what they like: to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    request = json.load(sys.stdin)
    method = {"sequential_median": sequential_median, "torch_adaptive": torch_adaptive}
    times = []
    for model in request["models"]:
        times.append(method[request["method"]](load(model), request["seconds"]))
    json.dump(times, answers)


if __name__ == "__main__":
    main()
