"""Does a network become a .tflite model in no time, and mean the same there?

Networks of every space are lowered, run in LiteRT with XNNPACK and without, and compared with
torch. Int8 models are compared with their float forms in two ways: operator by operator, each
fed what the int8 model itself computed, and as a whole. The first shows whether the
quantisation is right; the second also how well the network bears it, and networks with random
weights bear it badly: gates that saturate make noise large.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from hwbench.errors import TORCH_MISSING
from hwbench.graph import Graph
from hwbench.lower import Int8, random_weights, to_tflite
from hwbench.lower.tflite_model import TfliteModel
from hwbench.records import Verdict
from hwbench.spaces import get_space, space_names
from hwbench.verify.frame import Claim, Setting
from hwbench.verify.int8_operators import operator_steps
from hwbench.verify.litert import Batch, Floats, is_taken_whole, operators, partitions, run_tflite

NETS, QUICK_NETS = 3, 1  # of each space
REPEATS, INT8_REPEATS = 7, 3  # the first of each is the model that is examined
INPUTS = 10
TIME_BAR_MS, DIFFERENCE_BAR, STEPS_BAR = 100.0, 1e-4, 2.0

_CONVERTER = "litert_torch"  # takes 7 GB, so it is no dependency
_SECONDS = "litert_torch_seconds"


class Lowering(Claim):
    """Graph -> .tflite: quick, exact, whole in XNNPACK, and right in int8."""

    name = "lowering"
    text = (
        "a network of any space becomes a .tflite model within 100 ms, which XNNPACK takes as a "
        "whole and which computes what torch does within a relative 1e-4; in int8 every operator "
        "is within two steps of its float form"
    )
    protocol = (
        "random networks and weights; median of 7 conversions; LiteRT with XNNPACK and without; "
        "int8 calibrated on 4 random normal inputs, the largest class compared on 10 others"
    )

    def run(self, setting: Setting) -> list[Verdict]:
        """About half a minute; with ``quick`` some seconds."""
        if find_spec("torch") is None:
            return [self.verdict("not testable here", {"reason": TORCH_MISSING})]
        rng = np.random.default_rng(setting.seed)
        rows = []
        for i, name in enumerate(names := space_names()):
            setting.progress("lowering", i / len(names))
            space = get_space(name)
            for j, code in enumerate(space.sample(QUICK_NETS if setting.quick else NETS, rng)):
                found = examine(space.graph(code), rng, beside=j == 0)
                rows.append({"space": name, **found})
        bars = {
            f"a conversion takes at most {TIME_BAR_MS:g} ms": _most(rows, "ms") <= TIME_BAR_MS,
            f"relative difference to torch at most {DIFFERENCE_BAR:g}": (
                _most(rows, "difference") <= DIFFERENCE_BAR
            ),
            "XNNPACK takes each float net as a whole": all(
                r["xnnpack_takes_it_whole"] for r in rows
            ),
            f"int8 operators differ by at most {STEPS_BAR:g} steps": (
                _most(rows, "int8_steps") <= STEPS_BAR
            ),
        }
        evidence = {
            "quick": setting.quick,
            "bars": bars,
            "slowest_ms": _most(rows, "ms"),
            "slowest_int8_ms": _most(rows, "int8_ms"),
            "largest_difference": _most(rows, "difference"),
            "largest_int8_steps": _most(rows, "int8_steps"),
            "int8_same_class_share": round(statistics.mean(r["int8_same_class"] for r in rows), 3),
            "nets": rows,
            "litert_torch_slowest_seconds": max(
                (r[_SECONDS] for r in rows if _SECONDS in r), default="not installed"
            ),
        }
        return [self.verdict("confirmed" if all(bars.values()) else "refuted", evidence)]


def _most(rows: Sequence[Mapping[str, Any]], key: str) -> float:
    return float(max(row[key] for row in rows))


def examine(graph: Graph, rng: np.random.Generator, *, beside: bool = False) -> dict[str, Any]:
    """What the claim says, of one network with one input and one output.

    ``beside``: and what the other converter makes of it.
    """
    weights = random_weights(graph)
    batches = [_normal(graph, rng) for _ in range(4)]
    int8 = Int8(batches)
    model, ms = _timed(lambda: to_tflite(graph, weights), REPEATS)
    quantised_model, int8_ms = _timed(lambda: to_tflite(graph, weights, int8=int8), INT8_REPEATS)
    inputs = _normal(graph, rng)
    wanted = _torch(graph, inputs)
    results = [run_tflite(model, inputs, xnnpack=xnnpack)[0] for xnnpack in (True, False)]
    difference = max(_relative(result, wanted) for result in results)
    others = [_normal(graph, rng) for _ in range(INPUTS)]
    same = [
        int(run_tflite(model, x)[0].argmax() == run_tflite(quantised_model, x)[0].argmax())
        for x in others
    ]
    return {
        "ops": len(graph.ops),
        "parameters": graph.parameters,
        "mb": round(len(model.bytes) / 1e6, 2),
        "ms": ms,
        "difference": float(f"{difference:.2g}"),
        "xnnpack_takes_it_whole": is_taken_whole(model.bytes),
        "int8_ms": int8_ms,
        "int8_steps": round(operator_steps(graph, int8), 2),
        "int8_same_class": round(statistics.mean(same), 2),
        "int8_xnnpack_partitions": len(partitions(quantised_model.bytes)),
        **(beside_converter(graph, model) if beside else {}),
    }


def _normal(graph: Graph, rng: np.random.Generator) -> Batch:
    return {name: rng.standard_normal(spec.shape, np.float32) for name, spec in graph.inputs}


def _timed(convert: Callable[[], TfliteModel], repeats: int) -> tuple[TfliteModel, float]:
    """The model, and the median of the milliseconds that it took each time."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        model = convert()
        times.append(1e3 * (time.perf_counter() - start))
    return model, round(statistics.median(times), 2)


def _relative(got: Floats, wanted: Floats) -> float:
    return float(np.abs(got - wanted).max() / np.abs(wanted).max())


def _torch(graph: Graph, inputs: Batch) -> Floats:
    import torch

    from hwbench.lower import to_torch

    outputs = to_torch(graph)(*(torch.from_numpy(inputs[name]) for name, _ in graph.inputs))
    array: Floats = outputs.detach().numpy()
    return array


# -- beside it --------------------------------------------------------------------------------


def beside_converter(graph: Graph, model: TfliteModel) -> dict[str, Any]:
    """What Google's converter from torch makes of the same network, if it is installed.

    Seconds that it takes, and the operators that it has more (+) or fewer (-) of each kind.
    """
    if find_spec(_CONVERTER) is None:
        return {}
    import torch

    from hwbench.lower import to_torch

    converter = import_module(_CONVERTER)
    ((_, spec),) = graph.inputs
    module, image = to_torch(graph).eval(), torch.zeros(spec.shape)
    with redirect_stdout(sys.stderr), tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.tflite"
        start = time.perf_counter()
        converter.convert(module, (image,)).export(str(path))
        seconds = time.perf_counter() - start
        theirs = Counter(operators(path.read_bytes()))
    theirs.subtract(Counter(operators(model.bytes)))
    more = {kind: count for kind, count in sorted(theirs.items()) if count}
    return {_SECONDS: round(seconds, 1), "litert_torch_operators": more}
