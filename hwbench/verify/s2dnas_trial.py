"""One network of the claim about S2DNAS, trained, cut and deployed beside its rivals.

All of one row: a family of networks and a seed. Every network of it learns twice, on the same
images for as many steps: from their labels, and then from the labels and the answers that the
user's network gives after its first time. So do the user's network itself and narrower ones; the
one in stages, and the unsplit one with early exits, take over from the user's for the second time.
Thresholds rest on validation images alone. Every network is deployed, so that all are measured
alike (:func:`measured`).
"""

from __future__ import annotations

import contextlib
import copy
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hwbench.errors import UsageError
from hwbench.records import digest
from hwbench.search.data import Dataset
from hwbench.search.resuming import Keep
from hwbench.search.s2dnas import (
    METHODS,
    DynamicModel,
    Exits,
    SplitPlan,
    SplitSpace,
    Stage,
    StagePlan,
    all_exits,
    deploy,
    stage_logits,
    trace,
)
from hwbench.search.s2dnas.costs import GraphMeasurer
from hwbench.search.s2dnas.methods import Method, best_split
from hwbench.search.s2dnas.search import NET, SplitSearch, inputs_of
from hwbench.search.s2dnas.streaming import quality, stream
from hwbench.search.s2dnas.training import learn
from hwbench.verify.s2dnas import BRANCHED, OWN, STATIC
from hwbench.verify.s2dnas_nets import FAMILIES, Branched, network, whole
from hwbench.verify.work import Work

Tell = Callable[[str, float], None]

#: What pixels of 0..1 are normalised by.
MEAN, STD = (0.286,), (0.353,)
#: Points of accuracy that may be lost on the validation images: where curves have their points.
LOSSES = (-0.5, 0.0, 0.25, 0.5, 1.0, 2.0)
#: Images at once, of the second timing.
BATCH = 8

_OF_OUTCOME = (
    "split",
    "static_ms",
    "latency_ms",
    "accuracy",
    "costs_ms",
    "answering_ms",
    "left",
    "thresholds",
    "within",
    "candidates",
)


@dataclass(frozen=True, slots=True)
class Extent:
    """How much is done.

    ``images`` to train on (None: all); ``trained`` is how networks learn the first time, which the
    search is given one after, ``plan.tuned`` how all learn the second time. ``widths`` are those of
    the narrowed networks. Each network is timed for ``seconds``.
    """

    data: str
    images: int | None
    families: tuple[str, ...]
    seeds: int
    trained: StagePlan
    plan: SplitPlan
    widths: tuple[float, ...]
    seconds: float


def extent_of(quick: bool) -> Extent:
    """All of the claim; or one small network on digits, which says nothing but that it runs."""
    fast = StagePlan(1, learning_rate=0.1, weight_decay=5e-4, bfloat16=_has_bfloat16())
    # Each stage adds a loss from the labels and one from the teacher: gradients are larger.
    taught = replace(fast, learning_rate=0.05)
    if quick:
        steps = replace(taught, steps=120)
        plan = SplitPlan(evaluations=12, costed=8, judged_on=200, shared=steps, tuned=steps)
        return Extent("digits", None, FAMILIES[:1], 1, steps, plan, (0.25, 0.5), 1.0)
    plan = SplitPlan(
        evaluations=10,
        points=0.25,
        recalibrated_on=200,
        judged_on=800,
        shared=replace(taught, steps=234, learning_rate=0.02),
        tuned=replace(taught, steps=1560),
    )
    trained = replace(fast, steps=1248)
    return Extent("fashion-mnist", 10_000, FAMILIES, 3, trained, plan, (0.25, 0.375, 0.5), 2.0)


def _has_bfloat16() -> bool:
    """Whether this CPU says that it computes in bfloat16; where it says nothing, no."""
    told = Path("/proc/cpuinfo")
    flags = told.read_text(encoding="utf-8").split() if told.exists() else []
    return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(flags)


def run_trial(
    family: str,
    seed: int,
    data: Dataset,
    extent: Extent,
    measurer: GraphMeasurer,
    folder: Path,
    tell: Tell,
    prepare: bool = False,
) -> dict[str, Any] | None:
    """The row of one network, all of whose files lie in ``folder``; goes on where it was.

    With ``prepare`` all is trained and nothing judged: None.
    """
    trial = _Trial(family, seed, data, extent, measurer, folder, tell)
    trial.train()
    return None if prepare else trial.row()


class _Alone(nn.Module):
    """A network as one of one stage."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x)[None]
        return logits


class _Trial:
    """What the networks of a row share."""

    def __init__(
        self,
        family: str,
        seed: int,
        data: Dataset,
        extent: Extent,
        measurer: GraphMeasurer,
        folder: Path,
        tell: Tell,
    ) -> None:
        part = data.train if extent.images is None else data.train.some(extent.images, seed)
        self.data = replace(data, train=part)
        self.family, self.seed, self.extent = family, seed, extent
        self.plan = replace(
            extent.plan,
            mean=MEAN,
            std=STD,
            seed=seed,
            shared=replace(extent.plan.shared, seed=seed),
            tuned=replace(extent.plan.tuned, seed=seed),
        )
        self.measurer, self.folder, self.tell = measurer, folder, tell
        folder.mkdir(parents=True, exist_ok=True)
        self.shape = data.train.images.shape[1:]
        self.train_images, self.labels = inputs_of(part, self.plan), torch.tensor(part.labels)
        self.held = inputs_of(data.validation, self.plan)
        test = data.test_for_the_final_report()
        self.test, self.test_labels = inputs_of(test, self.plan).numpy(), test.labels
        self.given = network(family, seed)
        self.nets: dict[str, nn.Module] = {}
        self.networks: list[dict[str, Any]] = []
        self.accuracy = 0.0
        self.work = Work(folder / "seconds.json")

    def train(self) -> None:
        """All networks: the first time by labels, the second time by the one given as well."""
        self._learn(self.given, "given", first=True)
        self._search()
        self._learn(learning := copy.deepcopy(self.given), STATIC)
        self.nets[STATIC] = learning
        for width in self.extent.widths:
            name, net = f"width {width:g}", network(self.family, self.seed, width)
            self._learn(net, f"{name}, first", first=True)
            self._learn(net, name)
            self.nets[name] = net
        self.branched = Branched(self.family, copy.deepcopy(self.given))
        self._learn(self.branched, BRANCHED)

    def row(self) -> dict[str, Any]:
        """Judge what was trained. What is given up is held against the better of the network as
        it was given and as it has learned on, by validation images."""
        given = self._validation(self.given)
        self.accuracy = max(given, self._validation(self.nets[STATIC]))
        if given == self.accuracy:
            self.nets[STATIC] = self.given
        self._deploy_whole(STATIC)
        searched = self._staged()
        for width in self.extent.widths:
            self._deploy_whole(f"width {width:g}")
        self._with_exits()
        return {
            "family": self.family,
            "seed": self.seed,
            "given_validation": given,
            "static_validation": self.accuracy,
            **searched,
            "networks": self.networks,
        }

    def _validation(self, net: nn.Module) -> float:
        """Share of the validation images that a network classifies right."""
        (logits,) = stage_logits(_Alone(net), self.held)
        return float((logits.argmax(dim=1).numpy() == self.data.validation.labels).mean())

    def _learn(self, net: nn.Module, name: str, first: bool = False) -> None:
        plan = replace(self.extent.trained, seed=self.seed) if first else self.plan.tuned
        what = f"{self.family}, seed {self.seed}: training {name}"
        path = self.folder / f"{name.replace(',', '').replace(' ', '-')}.pt"
        learn(
            net if isinstance(net, Branched) else _Alone(net),
            self.train_images,
            self.labels,
            plan,
            None if first else self.search.teacher,
            keep=Keep(path, digest([asdict(plan), self.family, self.seed, self.data.digest])),
            progress=lambda now: self.tell(what, now.step / plan.steps),
        )

    def _search(self) -> None:
        """Choose a split of the network given, and let it learn."""
        plan = self.plan
        space = SplitSpace(
            trace(self.given, self.shape), stages=plan.stages, groups=plan.groups, reuse=plan.reuse
        )

        def tell(what: str, share: float) -> None:
            self.work.keep()
            self.tell(what, share)

        folder = self.folder / "search"
        shutil.rmtree(folder / NET, ignore_errors=True)  # of a trial that was interrupted
        self.search = search = SplitSearch(space, self.data, self.measurer, folder, plan, tell)
        with self.work.on("training the shared weights"):
            search.train_shared()
        with self.work.on("measuring", wall=True):
            search.cost_stages()
        with self.work.on("judging splits"):
            self.found = search.candidates(plan.method)
        with self.work.on("training the split chosen"):
            search.tune(search.best(self.found))
        self.methods = {method: self._by(method) for method in METHODS}

    def _by(self, method: Method) -> dict[str, float]:
        """What the best split of a method promises, by the shared weights."""
        found = self.search.candidates(method)
        at = best_split(found, self.plan.points)
        return {"latency_ms": -float(found.score[at]), "lost": float(found.upper_ms[at])}

    def _staged(self) -> dict[str, Any]:
        """The network in stages: deployed, and judged at several thresholds."""
        search = self.search
        code = search.best(self.found)
        outcome = search.deployed(code, len(self.found), "onnxruntime")
        exits = search.exits(np.array(outcome.costs_ms))
        macs = [stage.net.graph.macs for stage in search.stages()]
        self._points(OWN, outcome.manifest, exits, macs)
        row = asdict(outcome)
        return {
            **{name: row[name] for name in _OF_OUTCOME},
            "seconds": self.work.seconds,
            "methods": self.methods,
        }

    def _with_exits(self) -> None:
        """The unsplit network with early exits: deployed, and judged at several thresholds."""
        net = self.branched
        stages = net.stages(self.shape)
        graphs = [stage.net.graph for stage in stages]
        costs_ms = np.array([(m.latency_ns or math.nan) / 1e6 for m in self.measurer(graphs)])
        logits = stage_logits(net, self.held)
        exits = all_exits(
            logits.softmax(dim=2).amax(dim=2).numpy(),
            logits.argmax(dim=2).numpy() == self.data.validation.labels,
            costs_ms,
        )
        manifest = self._deploy(BRANCHED, stages, [1.0] * (len(stages) - 1))
        self._points(BRANCHED, manifest, exits, [graph.macs for graph in graphs])

    def _deploy_whole(self, name: str) -> None:
        stage = whole(trace(self.nets[name], self.shape))
        manifest = self._deploy(name, [stage], [])
        self._add(name, manifest, float(stage.net.graph.macs))

    def _deploy(self, name: str, stages: Sequence[Stage], thresholds: Sequence[float]) -> Path:
        folder = self.folder / name.replace(" ", "-")
        shutil.rmtree(folder, ignore_errors=True)
        return deploy(stages, thresholds, folder, mean=MEAN, std=STD)

    def _points(self, name: str, manifest: Path, exits: Exits, macs: Sequence[int]) -> None:
        """Add a network once for each loss that thresholds can keep within, and let some leave."""
        for points in LOSSES:
            with contextlib.suppress(UsageError):
                chosen = exits.cheapest(self.accuracy - points / 100)
                reach = 1 - np.cumsum(chosen.left[0]) + chosen.left[0]
                thresholds = tuple(chosen.thresholds[0].tolist())
                self._add(
                    name,
                    manifest,
                    float(reach @ macs),
                    thresholds,
                    points,
                    stages_ms=float(chosen.cost[0]),
                    expected=chosen.left[0].tolist(),
                )

    def _add(
        self,
        name: str,
        manifest: Path,
        macs: float,
        thresholds: tuple[float, ...] = (),
        points: float | None = None,
        **foreseen: Any,
    ) -> None:
        """Judge a network on the test images, as it was deployed. ``foreseen``: what its stages
        take on average, and where images leave, by validation images."""
        model = DynamicModel(manifest, thresholds=thresholds)
        self.networks.append(
            {
                "name": name,
                "points": points,
                "manifest": str(manifest.relative_to(self.folder)),
                "thresholds": list(thresholds),
                "macs": macs,
                **foreseen,
                **asdict(quality(model, self.test, self.test_labels)),
            }
        )


def measured(
    row: Mapping[str, Any], data: Dataset, extent: Extent, folder: Path
) -> list[dict[str, Any]]:
    """Wall-clock latency of each network of a row, in their order, timed in turns over the test
    images: one by one, then eight at once."""
    models = [
        DynamicModel(folder / each["manifest"], thresholds=each["thresholds"])
        for each in row["networks"]
    ]
    images = models[0].inputs(data.test_for_the_final_report().images)
    one = stream(models, images, seconds=extent.seconds)
    many = stream(models, images, seconds=extent.seconds / 2, batch=BATCH)
    return [
        {"one": asdict(single), "many": asdict(batched)}
        for single, batched in zip(one, many, strict=True)
    ]
