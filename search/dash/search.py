"""The whole search: a mixture trained, decoded (within a latency budget), tuned, trained, measured.

What the backbone came with is tuned and trained alike, and stays where it does better on validation
samples: a search need not pay.

>>> task = load_task("mnist1d")
>>> outcome = search_dash(backbone_for(task), task, Path("found"))

Everything lies in one folder, in which a search that was killed goes on. Decisions rest on training
and validation samples; the test's are read once, at the end.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from hwbench.devices.cuda.twin import CpuStream
from hwbench.errors import InconclusiveError, ModelError, UsageError
from hwbench.predictors.files import replace_file
from hwbench.records import digest, keeps
from hwbench.search.dash.backbones import Backbone
from hwbench.search.dash.budget import ConvCosts, Table, best_within, named
from hwbench.search.dash.choice import TryingChooser
from hwbench.search.dash.export import exported, graph_of
from hwbench.search.dash.module import MixedConv
from hwbench.search.dash.swap import (
    Choice,
    candidates_for,
    decoded,
    eligible,
    mixed,
    renewed,
    sizes_read,
)
from hwbench.search.dash.tasks import Task
from hwbench.search.dash.training import FitPlan, fit, mean_error
from hwbench.search.dash.tuning import Finished, Tuning, finish
from hwbench.search.ledger import SearchLedger
from hwbench.search.resuming import Keep, claim_folder
from hwbench.search.s2dnas.costs import GraphMeasurer

Tell = Callable[[str, float], None]

#: Kernel sizes and dilations by the number of dimensions (the paper's).
SPACES = {1: ((3, 7, 11, 15, 19), (1, 3, 7, 15)), 2: ((3, 5, 7, 9), (1, 3, 7, 15))}
#: What a search calls the part in which the device measures.
MEASURING = "measuring convolutions"

_RESULT, _NET, _ONNX = "result.json", "net.pt", "net.onnx"
_LATENCIES = "latencies.json"
_NS_PER_MS = 1e6
#: How often a decoded network that is measured to be too slow is decoded again, by how much below.
_DECODES, _BELOW = 4, 0.97


@dataclass(frozen=True, slots=True)
class DashPlan:
    """What is searched, and for how long.

    ``kernels`` and ``dilations`` (default: :data:`SPACES`); convolutions of one tap only with
    ``pointwise``. ``relaxed`` trains the mixture, ``final`` the network found, after ``tuning``.
    """

    kernels: tuple[int, ...] | None = None
    dilations: tuple[int, ...] | None = None
    pointwise: bool = False
    relaxed: FitPlan = field(default_factory=lambda: FitPlan(200))
    final: FitPlan = field(default_factory=lambda: FitPlan(400))
    tuning: Tuning = field(default_factory=Tuning)
    budget_ms: float | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """The network found: its kernel size and dilation by convolution, errors, latency, cost.

    ``found_error`` is the validation error with the kernels that were found, ``own_error`` with
    those that the backbone came with (None where these do not keep the budget). The network has
    the better ones, and ``is_own`` says whether these are its own.
    ``kept`` says whether the measured latency, all of its interval, is within the budget: True,
    False, or None where it is not sure, or there is no budget. Seconds are of the CPU.
    """

    folder: Path
    backbone: str
    task: str
    metric: str
    choice: Choice
    validation_error: float
    found_error: float
    own_error: float | None
    is_own: bool
    test_error: float
    budget_ms: float | None
    latency_ms: float | None
    low_ms: float | None
    high_ms: float | None
    kept: bool | None
    seconds: Mapping[str, float]
    ledger: Mapping[str, float]


def search_dash(
    backbone: Backbone,
    task: Task,
    folder: Path,
    plan: DashPlan | None = None,
    measurer: GraphMeasurer | None = None,
    *,
    device: str = "",
    progress: Tell = lambda what, share: None,
) -> Outcome:
    """Choose kernel sizes and dilations of a backbone for a task, and train it so.

    A budget needs a ``measurer``, of the ``device`` named. UsageError where the backbone cannot be
    searched, no choice keeps the budget, or the folder is of another search.
    """
    plan = plan or DashPlan()
    if plan.budget_ms is not None and measurer is None:
        raise UsageError("a latency budget is one of a device: name it")
    search = DashSearch(backbone, task, folder, plan, progress, device)
    with search.ledger.timed():
        search.relax()
        choice = search.decode(measurer)
        found = search.finish(choice)
        own = None
        if choice == search.own:
            own = found
        elif search.keeps_own(measurer):
            own = search.finish(search.own)
    return search.deployed(choice, found, own, measurer)


class DashSearch:
    """The parts of a search, in their order: :func:`search_dash` runs them all.

    ``seconds``: of the CPU, by part.
    """

    def __init__(
        self,
        backbone: Backbone,
        task: Task,
        folder: Path,
        plan: DashPlan,
        progress: Tell = lambda what, share: None,
        device: str = "",
    ) -> None:
        self._backbone, self._task, self._plan = backbone, task, plan
        self._folder, self._tell = folder, progress
        kernels, dilations = SPACES[task.dims]
        if plan.kernels and max(plan.kernels) > min(task.shape[1:]):
            raise UsageError(
                f"a kernel of {max(plan.kernels)} taps does not fit into {min(task.shape[1:])} "
                f"places of {task.name}: leave it out"
            )
        convs = eligible(backbone.searched, plan.pointwise)
        self.sizes = sizes_read(backbone.searched, convs, task.shape)
        self.candidates = candidates_for(
            self.sizes, plan.kernels or kernels, plan.dilations or dilations
        )
        #: The kernels that the backbone came with.
        self.own: Choice = {
            name: (convs[name].kernel_size[0], convs[name].dilation[0]) for name in self.candidates
        }
        self.ledger, self.seconds = SearchLedger(), dict[str, float]()
        self.logits: Table = {}
        claim_folder(folder, _about(backbone, task, plan, device), _RESULT)

    def relax(self) -> None:
        """Train the mixture of all candidates: ``logits`` (m,) of each are what it learns."""
        what, plan = "searching", replace(self._plan.relaxed, seed=self._plan.seed)
        net = renewed(self._backbone.searched, plan.seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(plan.seed)
            net = mixed(net, self.candidates, TryingChooser(CpuStream()))
        keep = Keep(self._folder / "mixture.pt", digest([str(net), asdict(plan)]))
        self.seconds["search"] = fit(
            net, self._task, plan, keep, lambda share: self._tell(what, share)
        )
        self.ledger.training_steps += plan.steps
        found = {n: m for n, m in net.named_modules() if isinstance(m, MixedConv)}
        self.logits = {n: found[n].logits.detach().double().numpy() for n in self.candidates}

    def decode(self, measurer: GraphMeasurer | None = None) -> Choice:
        """The likeliest candidate of each convolution; with a budget the likeliest of all choices
        together that keep it, by what the device was measured to take."""
        if self._plan.budget_ms is None or measurer is None:
            places = {name: int(logits.argmax()) for name, logits in self.logits.items()}
            return named(self.candidates, places)
        self._tell(MEASURING, 0.0)
        costs = ConvCosts(measurer, self._folder / _LATENCIES)
        choice = self._within(self._plan.budget_ms, costs)
        self.ledger.device_measurements += costs.oracle.ledger.measured
        return choice

    def keeps_own(self, measurer: GraphMeasurer | None = None) -> bool:
        """Whether the kernels that the backbone came with are within the budget, if there is one,
        as far within as a choice has to be."""
        if self._plan.budget_ms is None or measurer is None:
            return True
        costs = ConvCosts(measurer, self._folder / _LATENCIES)
        took = float(costs.of([graph_of(decoded(self._backbone.trained, self.own), self._task)])[0])
        self.ledger.device_measurements += costs.oracle.ledger.measured
        return took <= _BELOW * self._plan.budget_ms

    def _within(self, budget: float, costs: ConvCosts) -> Choice:
        net = self._backbone.trained
        table = costs.table(net, self.candidates, self.sizes)
        worth = {n: v - np.logaddexp.reduce(v) for n, v in self.logits.items()}
        cheapest = {name: int(cost.argmin()) for name, cost in table.items()}
        chosen = named(self.candidates, cheapest)

        def measured(choice: Choice) -> float:
            return float(costs.of([graph_of(decoded(net, choice), self._task)])[0])

        least = measured(chosen)
        if least > budget:
            raise UsageError(
                f"a budget of {budget:g} ms cannot be kept: {self._backbone.name} takes "
                f"{least:.4g} ms even with the cheapest kernels"
            )
        extra = {name: cost - cost.min() for name, cost in table.items()}
        room = _BELOW * budget - least  # its interval has to fit, too
        for _ in range(_DECODES):
            if room <= 0:
                break
            places = best_within(worth, extra, room)
            self.ledger.oracle_queries += 1
            choice = named(self.candidates, places)
            took = measured(choice)
            if took <= _BELOW * budget or choice == chosen:
                return choice
            added = sum(float(extra[name][place]) for name, place in places.items())
            # Between two networks measured the sum is that much too low.
            room = min(_BELOW * room, added * (_BELOW * budget - least) / max(took - least, 1e-9))
        return chosen

    def finish(self, choice: Choice) -> Finished:
        """Hyper-parameters and weights of a network with these kernels, plain convolutions."""
        plan = replace(self._plan.final, seed=self._plan.seed)
        net = decoded(self._backbone.trained, choice)
        finished = finish(net, self._task, plan, self._plan.tuning, self._folder, self._tell)
        tried = len(self._plan.tuning.rates) * len(self._plan.tuning.decays)
        self.ledger.training_steps += tried * self._plan.tuning.steps + plan.steps
        self.ledger.validations += tried + 1
        if choice == self.own:
            self.seconds["the own kernels"] = finished.seconds
        else:
            self.seconds["tuning"] = finished.tuning_seconds
            self.seconds["training"] = finished.training_seconds
        return finished

    def deployed(
        self,
        choice: Choice,
        found: Finished,
        own: Finished | None,
        measurer: GraphMeasurer | None = None,
    ) -> Outcome:
        """Of what the kernels chosen and the backbone's own came to the better one: its files, its
        latency as measured now, and the one look at the test."""
        finished = found
        if own is not None and own.error < found.error:
            choice, finished = self.own, own
        task, plan, net = self._task, self._plan, finished.net
        content = exported(net, task)
        latency = low = high = kept = None
        if measurer is not None:
            self._tell(MEASURING, 0.0)
            (took,) = measurer([graph_of(net, task)])
            self.ledger.device_measurements += 1
            if took.latency_ns is None or took.low_ns is None or took.high_ns is None:
                raise InconclusiveError(
                    "no latency could be measured: the same command tries again"
                )
            latency, low, high = (
                ns / _NS_PER_MS for ns in (took.latency_ns, took.low_ns, took.high_ns)
            )
            kept = None if plan.budget_ms is None else keeps(plan.budget_ms, low, high)
        outcome = Outcome(
            self._folder,
            self._backbone.name,
            task.name,
            task.metric,
            choice,
            finished.error,
            found.error,
            None if own is None else own.error,
            choice == self.own,
            mean_error(net, task, task.test_for_the_final_report()),
            plan.budget_ms,
            latency,
            low,
            high,
            kept,
            self.seconds,
            self.ledger.row(),
        )
        self._write(outcome, net, content)
        return outcome

    def _write(self, outcome: Outcome, net: nn.Module, content: bytes) -> None:
        buffer = io.BytesIO()
        torch.save({"choice": dict(outcome.choice), "state_dict": net.state_dict()}, buffer)
        rows = [
            {"conv": name, "kernel": k, "dilation": d} for name, (k, d) in outcome.choice.items()
        ]
        result = {**asdict(outcome), "choice": rows, "folder": str(outcome.folder)}
        try:
            replace_file(self._folder / _NET, buffer.getvalue())
            replace_file(self._folder / _ONNX, content)
            replace_file(self._folder / _RESULT, json.dumps(result, indent=1).encode())
            for path in (self._folder / "mixture.pt", *self._folder.glob("fit-*.pt")):
                path.unlink(missing_ok=True)
        except OSError as error:
            raise ModelError(f"cannot write {self._folder}: {error.strerror or error}") from None


def _about(backbone: Backbone, task: Task, plan: DashPlan, device: str) -> dict[str, Any]:
    """What a search that goes on has to have in common with the one that began, in JSON."""
    nets = digest([str(backbone.searched), str(backbone.trained)])
    about = {"network": nets, "data": task.digest, "device": device, **asdict(plan)}
    return dict(json.loads(json.dumps(about)))
