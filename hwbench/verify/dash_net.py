"""A training step of the 1D network of the DASH paper, its convolutions computed in each way.

At equal groups all nets have the same weights and do the same. The released script's comparison
is another: there the Fourier net's convolutions are depthwise wherever they can be (7 of 9), and
the dense nets' are not. Both are measured; the second decides nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import torch
from torch import nn
from torch.nn import functional

from hwbench.devices.cuda.stream import Stream
from hwbench.search.dash import Case, Chooser, MixedConv, eligible, mixed, resnet1d
from hwbench.search.dash.costs import counts
from hwbench.search.dash.operators import FOURIER, RESULTS, WEIGHTS
from hwbench.search.dash.timing import Race
from hwbench.verify.dash_map import DILATIONS, KERNELS, MOST_NS, Row, tried

LENGTH, CLASSES = 1000, 10
#: The Fourier net as the released speed script has it.
RELEASED = "fourier, mostly depthwise"
#: Each layer by the operator that is the fastest for it.
AUTO = "auto"
NETS = (FOURIER, RELEASED, AUTO, RESULTS, WEIGHTS)


@dataclass(frozen=True, slots=True)
class NetPlan:
    """Width and batch of the network, and the numbers of kernel sizes and dilations."""

    width: int
    batch: int
    columns: tuple[int, ...]
    seconds: float

    def build(self, name: str, i: int, method: str | Chooser) -> nn.Module:
        """The network of one way, of i kernel sizes and dilations, computed by a method."""
        net = resnet1d(1, CLASSES, self.width, depthwise=name == RELEASED)
        pairs = tuple(product(KERNELS[1][:i], DILATIONS[1][:i]))
        return mixed(net, dict.fromkeys(eligible(net), pairs), method, gumbel=False)


class NetTimer:
    """Measures steps, from few candidates to many: what would take too long is left out."""

    def __init__(self, stream: Stream, chooser: Chooser, plan: NetPlan, seed: int) -> None:
        self._stream, self._plan, self._seed = stream, plan, seed
        self._methods: dict[str, str | Chooser] = {RELEASED: FOURIER, AUTO: chooser}
        self._taken: dict[str, tuple[float, float]] = {}

    def measured(self, key: str) -> Row:
        """The row of i candidates each way, as a map's row."""
        i = int(key)
        race = Race(self._stream, self._seed)
        left_out: dict[str, str] = {}
        for name in NETS:
            net = self._plan.build(name, i, self._methods.get(name, name))
            operations = self._operations(net, name)
            why = self._too_long(name, operations)
            if not why:
                why = tried(race, name, self._step(net))
            if why:
                left_out[name] = why
            else:
                self._taken[name] = operations, race.trial_ns[name]
        times = race.run(list(race.trial_ns), self._plan.seconds)
        ratios = {n: times.ratio(n, FOURIER) for n in race.trial_ns}
        released = {n: times.ratio(n, RELEASED) for n in (RESULTS, WEIGHTS) if n in race.trial_ns}
        return {
            "key": key,
            "ns": {n: times.median_ns(n) for n in race.trial_ns},
            "rounds": {n: len(times.by_work[n]) for n in race.trial_ns},
            "over_fourier": {n: [r.value, r.low, r.high] for n, r in ratios.items()},
            "over_released": {n: [r.value, r.low, r.high] for n, r in released.items()},
            "left_out": left_out,
        }

    def _step(self, net: nn.Module) -> Callable[[], object]:
        """One step of plain SGD on random sequences."""
        device = self._stream.device
        net.to(device)
        random = torch.Generator().manual_seed(self._seed)
        x = torch.randn(self._plan.batch, 1, LENGTH, generator=random).to(device)
        labels = torch.randint(CLASSES, (self._plan.batch,), generator=random).to(device)
        optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)

        def step() -> None:
            optimizer.zero_grad()
            loss = functional.cross_entropy(net(x), labels)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()

        return step

    def _operations(self, net: nn.Module, name: str) -> float:
        """Of all its mixtures; for ``auto`` as if it chose Fourier."""
        operator = FOURIER if name in self._methods else name
        convs = [module for module in net.modules() if isinstance(module, MixedConv)]
        cases = [Case(conv.mixture, self._plan.batch, (LENGTH,)) for conv in convs]
        return math.fsum(counts(operator, case).operations for case in cases)

    def _too_long(self, name: str, operations: float) -> str:
        if name not in self._taken:
            return ""
        before, ns = self._taken[name]
        expected = ns * operations / before
        limit = 2 * MOST_NS[self._stream.device.type]
        return "" if expected < limit else f"would take about {expected / 1e9:.0f} s"
