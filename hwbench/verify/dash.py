"""Does the Fourier form of DASH pay? Equality first, then times, memory and growth, on a device.

:mod:`hwbench.verify.dash_map` has the layers, :mod:`hwbench.verify.dash_net` the whole network,
:mod:`hwbench.verify.dash_findings` what their rows say. The headline is judged against the fastest
dense form, cropped kernels included, at equal groups.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import hwbench
from hwbench.errors import TORCH_MISSING, UsageError
from hwbench.records import Verdict, digest
from hwbench.verify.frame import Claim, Setting, by_bars

if TYPE_CHECKING:
    from hwbench.devices.cuda.stream import Stream
    from hwbench.search.dash import Chooser
    from hwbench.verify.dash_map import Cell, Layer, Row
    from hwbench.verify.dash_net import NetPlan

OUTPUT_BAR, GRADIENT_BAR = 1e-12, 1e-11
_EQUAL_CASES, _EQUAL_CANDIDATES = 40, 5
#: With autotune, so many algorithms of cuDNN are tried: a mixture has many convolutions.
_CUDNN_TRIALS = 4


#: What is decided beside the claim's own statement.
_EQUAL = "DASH's operators, cropped and Fourier ones included, compute the same"
_GROWTH = (
    "DASH's Fourier convolution has the better asymptotic complexity: it grows less with "
    "candidates than dense forms do, and as derived"
)
_CHOICE = (
    "an operator chosen by a fitted cost model, and by a trial where that is not sure, is as fast "
    "as the fastest"
)
_CROPPED = "cropped kernels, 5-smooth lengths and real backward transforms pay on one core"


@dataclass(frozen=True, slots=True)
class Extent:
    """What is measured, and for how many seconds in all; ``cell_seconds`` of each cell's rounds."""

    layers: Sequence[Layer]
    columns: Mapping[int, tuple[int, ...]]
    memory_columns: Mapping[int, tuple[int, ...]]
    net: NetPlan
    fit_seconds: float
    map_seconds: float
    net_seconds: float
    cell_seconds: float


def extent_of(kind: str, quick: bool) -> Extent:
    """Of ``cpu`` or ``cuda``: full runs take about 10 and 7 minutes, quick ones under 3."""
    from hwbench.verify.dash_map import Layer, layers
    from hwbench.verify.dash_net import NetPlan

    if kind == "cpu":
        one, two = Layer("", 1, 1000, 16, 32), Layer("", 2, 32, 16, 32)
        if quick:
            rows = layers(one, length=(125,), batch=(1,)) + layers(two, batch=(1,))
            columns, net = {1: (1, 2, 3, 5), 2: (1, 2, 4)}, NetPlan(8, 8, (1, 3), 0.5)
            return Extent(rows, columns, {1: (3,), 2: (4,)}, net, 20, 75, 15, 0.1)
        rows = layers(
            one,
            length=(125, 250, 500, 2000),
            channels=(4, 8, 32),
            batch=(1, 8, 128),
            groups=(4, 16),
        )
        rows += [Layer("both", 1, 1000, 64, 1), Layer("both", 1, 1000, 64, 8)]
        rows += layers(two, length=(16, 64), channels=(4,), batch=(1, 8), groups=(16,))
        rows += [Layer("both", 2, 32, 64, 8)]
        columns, net = {1: (1, 2, 3, 4, 5), 2: (1, 2, 3, 4)}, NetPlan(16, 16, (1, 2, 3, 4, 5), 3)
        return Extent(rows, columns, {1: (1, 3, 5), 2: (1, 4)}, net, 60, 560, 120, 0.4)
    one, two = Layer("", 1, 1000, 64, 128), Layer("", 2, 32, 64, 128)
    if quick:
        rows = layers(one, batch=(1,)) + layers(two)
        columns, net = {1: (1, 2, 3, 5, 7), 2: (1, 2, 4)}, NetPlan(64, 128, (1, 3, 5, 7), 0.5)
        return Extent(rows, columns, {1: (7,), 2: (4,)}, net, 20, 60, 45, 0.1)
    rows = layers(one, length=(250, 4000), channels=(16, 128), batch=(1, 16), groups=(64,))
    rows += layers(two, length=(64,), channels=(16,), batch=(1,), groups=(64,))
    columns, net = {1: (1, 2, 3, 5, 7), 2: (1, 2, 3, 4)}, NetPlan(64, 128, (1, 2, 3, 4, 5, 6, 7), 1)
    return Extent(rows, columns, {1: (1, 3, 7), 2: (1, 4)}, net, 50, 200, 90, 0.3)


class Dash(Claim):
    """The operators' equality and speed; and, in a full run, the search."""

    name = "dash"
    text = (
        "DASH's Fourier convolution is up to 10 times faster than computing a mixture's results or "
        "weights densely (here: than the fastest of these, at equal groups)"
    )
    protocol = (
        "fp64 equality of all operators first; then layers over candidates, length, channels, "
        "batch and groups, forward and with gradients, operators interleaved round by round, "
        "median ratios with 95 % intervals; a 1D ResNet's training step at equal groups, and as "
        "the released script compares; peak memory; log-log slopes against counted operations"
    )

    def run(self, setting: Setting) -> list[Verdict]:
        """On the CPU about 10 minutes of one core (``quick``: 3), and 40 for the search
        (``quick``: without it). Resumes where it was."""
        kind, _, index = setting.device.name.partition(":")
        if kind not in ("cpu", "cuda"):
            reason = "it runs torch, on the devices cpu and cuda"
            return [self.verdict("not testable here", {"reason": reason})]
        if find_spec("torch") is None:
            return [self.verdict("not testable here", {"reason": TORCH_MISSING})]
        import torch

        from hwbench.search.dash.timing import stream_of
        from hwbench.verify.dash_search import search_verdicts

        extent = extent_of(kind, setting.quick)
        stream = stream_of(torch.device(kind, int(index)) if index else torch.device(kind))
        with _one_thread(), _gpu_as_asked(setting) if kind == "cuda" else nullcontext():
            setting.progress("equality", 0.0)
            found = self._equality(setting, equality(stream))
            if found.outcome != "confirmed":
                return [found]  # times of what is not equal say nothing
            trial = Trial(setting, extent, stream, setting.folder / f"dash-{_key(setting)}")
            verdicts = [found, *trial.verdicts(self)]
            searched = [] if setting.quick or kind == "cuda" else search_verdicts(self, setting)
            return [*verdicts, *searched]

    def _equality(self, setting: Setting, equal: Mapping[str, tuple[float, float]]) -> Verdict:
        outputs = max(output for output, _ in equal.values())
        gradients = max(gradient for _, gradient in equal.values())
        bars = {
            f"outputs differ by {OUTPUT_BAR:g} of the largest or less": outputs <= OUTPUT_BAR,
            f"gradients differ by {GRADIENT_BAR:g} of the largest or less": (
                gradients <= GRADIENT_BAR
            ),
        }
        evidence = {
            "bars": bars,
            "quick": setting.quick,
            "cases": _EQUAL_CASES,
            "largest_difference_of_outputs": outputs,
            "largest_difference_of_gradients": gradients,
        }
        return replace(self.verdict(by_bars(bars), evidence), claim=_EQUAL)


def _key(setting: Setting) -> str:
    """What rows depend on: environment, torch, precision, seed, this version, quick or not."""
    import torch

    from hwbench.devices.environment import environment_of

    how = [str(torch.__version__), hwbench.__version__, setting.seed, setting.quick]
    return digest([environment_of(setting.device), *how])[:12]


@contextmanager
def _one_thread() -> Iterator[None]:
    """What is measured on the CPU is one core; beside a GPU it makes no difference."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def _gpu_as_asked(setting: Setting) -> Iterator[None]:
    """fp32 products and cuDNN's choices as the device's options say; UsageError for others."""
    import torch

    from hwbench.devices.cuda.network import backends
    from hwbench.devices.cuda.options import CudaOptions

    options: CudaOptions = setting.device.options  # type: ignore[attr-defined]
    if options != CudaOptions(tf32=options.tf32, autotune=options.autotune):
        raise UsageError("verify dash takes the options tf32 and autotune: leave out the others")
    cudnn: Any = torch.backends.cudnn
    limit = cudnn.benchmark_limit
    with backends(options.tf32, options.autotune):
        cudnn.benchmark_limit = _CUDNN_TRIALS
        try:
            yield
        finally:
            cudnn.benchmark_limit = limit


def equality(stream: Stream, cases: int = _EQUAL_CASES) -> dict[str, tuple[float, float]]:
    """Largest differences from mixed results in float64, of outputs and of gradients, relative to
    the largest of each: by operator, over random cases."""
    import torch

    from hwbench.search.dash.cost_model import draw_case
    from hwbench.search.dash.operators import OPERATORS, RESULTS

    random = np.random.default_rng(7)
    worst = dict.fromkeys(OPERATORS, (0.0, 0.0))
    for number in range(cases):
        case = draw_case(random, 1 + number % 2, True, most=1e6)
        some = case.mixture.candidates[-_EQUAL_CANDIDATES:]
        case = replace(case, mixture=replace(case.mixture, candidates=some, stride=1 + number % 3))
        work = case.works(stream.device, torch.float64, seed=number)
        outputs = replace(case, training=False).works(stream.device, torch.float64, seed=number)
        exact: Any = (outputs(RESULTS)(), *work(RESULTS)())  # type: ignore[misc]
        scale = max(float(t.abs().max()) for t in exact[1:])
        for name in OPERATORS:
            own: Any = (outputs(name)(), *work(name)())  # type: ignore[misc]
            output = float((own[0] - exact[0]).abs().max() / exact[0].abs().max())
            gradient = max(
                float((a - b).abs().max()) for a, b in zip(own[1:], exact[1:], strict=True)
            )
            worst[name] = max(worst[name][0], output), max(worst[name][1], gradient / scale)
    return worst


class Trial:
    """All that is measured after equality, with its rows kept in files that begin with ``stem``."""

    def __init__(self, setting: Setting, extent: Extent, stream: Stream, stem: Path) -> None:
        self._setting, self._extent = setting, extent
        self._stream, self._stem = stream, stem

    def verdicts(self, claim: Claim) -> list[Verdict]:
        """Measure, then judge: the headline, growth, the choice, and the bars of the CPU."""
        from hwbench.verify import dash_findings as findings
        from hwbench.verify.dash_figure import map_figure, scaling_figure

        chooser = self._chooser()
        nets = self._nets(chooser)
        measured = self._map(chooser)
        memory = self._memory()
        map_path = self._setting.folder / "dash-map.png"
        scaling_path = self._setting.folder / "dash-scaling.png"
        lines = findings.lines(measured)
        map_figure(measured, map_path)
        scaling_figure(lines, nets, memory, scaling_path)
        losses = findings.auto_losses(measured)
        headline = {**self._headline(measured, nets), "peak_memory_mib": memory}
        judged = [
            (claim.text, findings.headline_bars(measured, nets), headline, map_path),
            (
                _GROWTH,
                findings.exponent_bars(lines),
                {"exponents": [line.row for line in lines]},
                scaling_path,
            ),
            (
                _CHOICE,
                findings.auto_bars(losses),
                {
                    "mean_over_fastest": round(float(losses.mean()), 4),
                    "worst_over_fastest": round(float(losses.max()), 4),
                    "cells_above_worst_bar": int((losses > findings.AUTO_BARS[1]).sum()),
                    "tried_share": round(float(np.mean([row["tried"] for _, row in measured])), 3),
                },
                map_path,
            ),
        ]
        if self._stream.device.type == "cpu":
            judged.append((_CROPPED, findings.own_bars(measured), {}, map_path))
        complete = self._is_complete(measured, nets)
        extent = {
            "quick": self._setting.quick,
            "cells": f"{len(measured)} of {len(self._cells())}",
            "network_columns": f"{len(nets)} of {len(self._extent.net.columns)}",
        }
        found = []
        for text, bars, evidence, figure in judged:
            outcome = by_bars(bars)
            # What holds somewhere holds; what holds everywhere, or nowhere, takes the whole map.
            decided = complete or (outcome == "confirmed" and text not in (_GROWTH, _CHOICE))
            if not (bars and decided):
                outcome = "inconclusive"  # time was up: another run goes on
            made = claim.verdict(outcome, {"bars": bars, **extent, **evidence}, figure)
            found.append(replace(made, claim=text))
        return found

    def _headline(
        self, measured: Sequence[tuple[Cell, Row]], nets: Sequence[Row]
    ) -> dict[str, Any]:
        """Figures of the map and of the network."""
        from hwbench.verify import dash_findings as findings

        table = findings.net_table(nets)
        cell, ratio = findings.best(measured)
        direction = "with gradients" if cell.training else "forward"
        return {
            "best_layer": f"{cell.layer.label}, {cell.i} x {cell.i}, {direction}",
            "best_over_fastest_dense": findings.rounded(ratio),
            "network_equal_groups_over_fastest_dense": {
                entry["kernels_and_dilations"]: entry["equal_groups_over_fastest_dense"]
                for entry in table
            },
            "released_unequal_comparison_up_to": findings.summary_of_released(table),
            "faster_from_so_many_candidates": findings.condition(measured),
            "map": findings.map_table(measured),
            "network": table,
        }

    def _is_complete(self, measured: Sequence[tuple[Cell, Row]], nets: Sequence[Row]) -> bool:
        """Whether time sufficed for the network and for all cells of the base layers."""
        known = {cell for cell, _ in measured}
        base = {cell for cell in self._cells() if not cell.layer.axis}
        return base <= known and len(nets) == len(self._extent.net.columns)

    def _chooser(self) -> Chooser:
        from hwbench.search.dash import Chooser, fitted_costs

        model = fitted_costs(
            self._stream,
            self._stem.with_name(f"{self._stem.name}-costs.jsonl"),
            self._extent.fit_seconds,
            lambda share: self._setting.progress("learning what operators take", 0.1 * share),
        )
        return Chooser(self._stream, model)

    def _nets(self, chooser: Chooser) -> list[Row]:
        from hwbench.verify.dash_map import kept_rows
        from hwbench.verify.dash_net import NetTimer

        timer = NetTimer(self._stream, chooser, self._extent.net, self._setting.seed)
        keys = [str(i) for i in self._extent.net.columns]
        path = self._stem.with_name(f"{self._stem.name}-net.jsonl")
        told = self._tell("the network's step", 0.1, 0.15, len(keys))
        timed = kept_rows(path, keys, timer.measured, _until(self._extent.net_seconds))
        return [row for row in timed if told()]

    def _cells(self) -> list[Cell]:
        from hwbench.verify.dash_map import cells

        return cells(list(self._extent.layers), self._extent.columns)

    def _map(self, chooser: Chooser) -> list[tuple[Cell, Row]]:
        from hwbench.verify.dash_map import Mapper, kept_rows

        by_key = {cell.key: cell for cell in self._cells()}
        mapper = Mapper(self._stream, chooser, self._extent.cell_seconds, self._setting.seed)
        path = self._stem.with_name(f"{self._stem.name}-map.jsonl")
        told = self._tell("the map", 0.25, 0.7, len(by_key))
        timed = kept_rows(
            path,
            list(by_key),
            lambda key: mapper.measured(by_key[key]),
            _until(self._extent.map_seconds),
        )
        return [(by_key[row["key"]], row) for row in timed if told()]

    def _memory(self) -> list[dict[str, Any]]:
        """MiB of a training run, by base layer, number of candidates and operator."""
        from hwbench.search.dash.operators import FOURIER, PLAIN, RESULTS
        from hwbench.verify.dash_map import Cell
        from hwbench.verify.dash_memory import peak_bytes

        found = []
        for layer in (layer for layer in self._extent.layers if not layer.axis):
            for i in self._extent.memory_columns[layer.dims]:
                self._setting.progress("memory", 0.95)
                cell = Cell(layer, i, True)
                names = dict.fromkeys((FOURIER, RESULTS, *cell.case.dense, PLAIN))
                bytes_of = {name: peak_bytes(self._stream, cell, name) for name in names}
                mib = {n: None if b is None else round(b / 2**20, 1) for n, b in bytes_of.items()}
                found.append({"layer": asdict(layer), "kernels_and_dilations": i, "mib": mib})
        return found

    def _tell(self, what: str, begins: float, share: float, n: int) -> Callable[[], bool]:
        """Called after each of n rows; always true."""
        done = 0

        def told() -> bool:
            nonlocal done
            done += 1
            self._setting.progress(what, begins + share * done / n)
            return True

        return told


def _until(seconds: float) -> Callable[[], bool]:
    """True for so many seconds from now."""
    end = time.monotonic() + seconds
    return lambda: time.monotonic() < end
