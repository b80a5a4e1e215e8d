"""The whole search: shared weights, stage costs, a split, its training, thresholds, files.

>>> net = trace(module, data.train.images.shape[1:])
>>> outcome = search_s2dnas(net, data, on_device(device, store), Path("found"))

Everything lies in one folder, in which a search that was killed goes on: the shared weights, the
latencies measured, each candidate judged, the weights of the split chosen. Decisions rest on the
training and the validation images alone.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hwbench.errors import UsageError
from hwbench.lower import to_torch
from hwbench.predictors.files import replace_file
from hwbench.records import digest
from hwbench.search.data import Dataset, Part, check_fits
from hwbench.search.ledger import SearchLedger
from hwbench.search.resuming import Keep, claim_folder
from hwbench.search.s2dnas.costs import LEAST_SPLITS, GraphMeasurer, StageOracle
from hwbench.search.s2dnas.deployment import deploy
from hwbench.search.s2dnas.dynamic import DynamicModel
from hwbench.search.s2dnas.exits import Exits
from hwbench.search.s2dnas.judging import SharedJudge, SplitScores, exits_of, logits_of
from hwbench.search.s2dnas.manifest import Runtime
from hwbench.search.s2dnas.methods import Method, best_split, check_search, search_splits
from hwbench.search.s2dnas.net import MultiStageNet
from hwbench.search.s2dnas.space import Reuse, SplitSpace
from hwbench.search.s2dnas.split import widened
from hwbench.search.s2dnas.stages import Stage, stage_graphs
from hwbench.search.s2dnas.static import StaticNet
from hwbench.search.s2dnas.training import StagePlan, channels_last, train_stages
from hwbench.search.scoring import Scored
from hwbench.spaces.base import Codes

Array = NDArray[np.float64]
Tell = Callable[[str, float], None]

#: The folder in the search's own that holds the network found.
NET = "net"

#: What a search calls the part in which the device measures.
MEASURING = "measuring stages"

_MOST_TRAINING, _MOST_VALIDATION = 20_000, 5_000
#: Images whose answers tell what answering costs beside the stages: few go on to the last one.
_ANSWERED = 3000


@dataclass(frozen=True, slots=True)
class SplitPlan:
    """What is searched, how, and what it may spend.

    ``points``: accuracy that may be lost, in points of the static network's. ``costed`` random
    splits are measured (all, of a network that has fewer) to learn what stages cost. A candidate is
    judged on ``judged_on`` validation images, after ``recalibrated_on`` training images for its
    batch norms. ``mean`` and ``std`` are what pixels of 0..1 are normalised by, as when the network
    was trained.
    """

    stages: int = 3
    groups: int = 4
    reuse: Reuse = "all"
    method: Method = "controller"
    evaluations: int = 30
    points: float = 0.5
    costed: int = 12
    recalibrated_on: int = 300
    judged_on: int = 1000
    shared: StagePlan = field(default_factory=lambda: StagePlan(300))
    tuned: StagePlan = field(default_factory=lambda: StagePlan(1500))
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_search(self.method, self.evaluations)
        if not 0 <= self.points < 100:
            raise UsageError(f"{self.points} points of accuracy lost: give 0 to 100")
        if self.costed < LEAST_SPLITS or min(self.recalibrated_on, self.judged_on) < 1:
            raise UsageError(
                f"a search measures {LEAST_SPLITS} splits at least, and needs images to judge by"
            )

    @property
    def fixed(self) -> dict[str, Any]:
        """What candidates that were judged before have to have in common with it."""
        free = {"method", "evaluations", "points", "tuned"}
        return {name: value for name, value in asdict(self).items() if name not in free}


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """The network found, beside the static one, by validation images and measured stages.

    ``latency_ms`` is the mean that the stages' measured ``costs_ms`` (s,) and the shares ``left``
    (s,) give, with the ``answering_ms`` (s,) that :class:`DynamicModel` takes beside them for an
    image that leaves there; so is the ``static_ms`` of the static network as it would be run.
    ``within``: whether no more accuracy was lost than allowed; else the thresholds are the most
    accurate. ``candidates`` were judged, ``code`` (L,) and ``split`` is that chosen.
    """

    manifest: Path
    code: Codes
    split: str
    static_ms: float
    static_accuracy: float
    latency_ms: float
    accuracy: float
    costs_ms: tuple[float, ...]
    answering_ms: tuple[float, ...]
    left: tuple[float, ...]
    thresholds: tuple[float, ...]
    within: bool
    candidates: int
    ledger: Mapping[str, float]


def search_s2dnas(
    net: StaticNet,
    data: Dataset,
    measurer: GraphMeasurer,
    folder: Path,
    plan: SplitPlan | None = None,
    *,
    device: str = "",
    runtime: Runtime = "onnxruntime",
    progress: Tell = lambda what, share: None,
) -> Outcome:
    """Turn a trained static network into a multi-stage one, and deploy it into ``folder/net``.

    ``device`` names what ``measurer`` measures on: a search goes on only where it began. UsageError
    where the network does not fit the data or knows nothing of it, where the folder is of another
    search or holds a network already, and where nothing would leave early.
    """
    plan = plan or SplitPlan()
    check_fits(data, channels=net.image_shape[0], classes=net.classes, what=net.graph.name)
    space = SplitSpace(net, stages=plan.stages, groups=plan.groups, reuse=plan.reuse)
    search = SplitSearch(space, data, measurer, folder, plan, progress, device)
    with search.ledger.timed():
        search.train_shared()
        search.cost_stages()
        found = search.candidates(plan.method)
        code = search.best(found)
        search.tune(code)
    return search.deployed(code, len(found), runtime)


class SplitSearch:
    """The parts of a search, in their order: :func:`search_s2dnas` runs them all.

    What is wrong with the network, the data or the folder is said here, before anything is done.
    ``teacher``: the static network's logits (n, classes) of the training images;
    ``static_accuracy``: its own on the validation images.
    """

    def __init__(
        self,
        space: SplitSpace,
        data: Dataset,
        measurer: GraphMeasurer,
        folder: Path,
        plan: SplitPlan,
        progress: Tell,
        device: str = "",
    ) -> None:
        self._data = data
        self._plan, self._folder, self._tell = plan, folder, progress
        self._space, self.ledger = space, SearchLedger()
        train = data.train.some(_MOST_TRAINING, plan.seed)
        self._train, self._train_labels = inputs_of(train, plan), torch.tensor(train.labels)
        held = data.validation.some(_MOST_VALIDATION, plan.seed)
        self._held, self._held_labels = inputs_of(held, plan), held.labels
        self._splits = _costed(space, plan)
        self._net = self._tuned = MultiStageNet(space, self._splits[0])
        self._latencies = folder / "latencies.json"
        self._oracle = StageOracle(measurer, _latencies(self._latencies))
        static = to_torch(space.net.graph, space.net.weights)
        channels_last(static)
        self.teacher = logits_of(static, self._train)
        right = logits_of(static, self._held).argmax(dim=1).numpy() == self._held_labels
        self.static_accuracy = float(right.mean())
        if self.static_accuracy < 1 / space.net.classes + 0.05:
            raise UsageError(
                f"{space.net.graph.name} classifies {self.static_accuracy:.1%} of the validation "
                "images right: give the weights that were trained on such data, and the mean and "
                "std that its images were normalised by"
            )
        claim_folder(folder, _about(space, data, plan, device), NET)
        self._judge = SharedJudge(
            self._net,
            self._oracle,
            self._train[: plan.recalibrated_on],
            (self._held[: plan.judged_on], self._held_labels[: plan.judged_on]),
            folder / "candidates.jsonl",
            plan.shared.bfloat16,
        )

    def train_shared(self) -> None:
        """The weights that all splits share."""
        what = "training the shared weights"
        self._trained(what, self._net, self._plan.shared, None, "shared.pt")

    def cost_stages(self) -> None:
        """What the static network and the stages of some splits take on the device."""
        self._tell(MEASURING, 0.0)
        wide = widened(self._space.net, self._space.ties, self._space.stages).weights
        stages = [
            [stage.net.graph for stage in stage_graphs(self._space.split(code), wide)]
            for code in self._splits
        ]
        static = self._space.net.folded().graph
        if static.hash not in self._oracle.known:
            self._oracle.measure([static])
        self._oracle.calibrate(stages)
        self._static_ms = self._oracle.known[static.hash]
        content = json.dumps(dict(self._oracle.known))
        replace_file(self._latencies, content.encode())

    def candidates(self, method: Method) -> Scored:
        """All that a method judges, by the shared weights: none of them twice, whoever asks."""
        plan, what = self._plan, "judging splits"
        first, total = len(self._splits), len(self._splits) + plan.evaluations
        # Shared weights reach less than a split's own: what they lack, all splits lack. So they are
        # held against what half of the random splits reach.
        shared = []
        for count, code in enumerate(self._splits):
            self._tell(what, count / total)
            shared.append(float(self._judge(code).accuracy.max()))
        scores = SplitScores(
            self._judge,
            min(self.static_accuracy, float(np.median(shared))),
            plan.points,
            self.ledger,
            lambda count: self._tell(what, (first + count) / total),
        )
        found = search_splits(scores, method, plan.evaluations, self._static_ms, plan.seed)
        self.ledger.validations = self._judge.validations
        return found

    def best(self, found: Scored) -> Codes:
        """The code (L,) of the cheapest that loses no more than it may."""
        code: Codes = found.codes[best_split(found, self._plan.points)]
        return code

    def tune(self, code: Codes) -> None:
        """The weights of one split (L,), from the static network's on.

        Weights that serve all splits have forgotten more of it than they have learned.
        """
        self._tuned = MultiStageNet(self._space, code)
        name = f"tuned-{digest(code.tolist())[:8]}.pt"
        self._trained("training the split chosen", self._tuned, self._plan.tuned, code[None], name)

    def stages(self) -> tuple[Stage, ...]:
        """Those of the split that was trained last."""
        return self._tuned.stages()

    def exits(self, costs_ms: Array) -> Exits:
        """All thresholds for the split that was trained last, on the validation images."""
        return exits_of(self._tuned, self._held, self._held_labels, costs_ms)

    def deployed(self, code: Codes, candidates: int, runtime: Runtime) -> Outcome:
        """Thresholds by validation images and stages measured now; the files."""
        self._tell(MEASURING, 0.0)
        stages, static = self.stages(), self._space.net.folded().graph
        measured = self._oracle.measure([static, *(stage.net.graph for stage in stages)])
        exits = self.exits(measured[1:])
        wanted = self.static_accuracy - self._plan.points / 100
        most = float(exits.accuracy.max())
        chosen = exits.cheapest(min(wanted, most))
        self.ledger.device_measurements += self._oracle.ledger.measured
        thresholds = tuple(chosen.thresholds[0].tolist())
        plan = self._plan
        manifest = deploy(
            stages,
            thresholds,
            self._folder / NET,
            runtime=runtime,
            name=self._space.net.graph.name,
            class_names=self._data.classes,
            mean=plan.mean,
            std=plan.std,
        )
        answering = DynamicModel(manifest).answering_ms(self._held[:_ANSWERED].numpy())
        return Outcome(
            manifest,
            code,
            self._space.decode(code[None])[0],
            float(measured[0]) + answering[0],
            self.static_accuracy,
            float(chosen.cost[0] + chosen.left[0] @ answering),
            float(chosen.accuracy[0]),
            tuple(measured[1:].tolist()),
            answering,
            tuple(chosen.left[0].tolist()),
            thresholds,
            most >= wanted,
            candidates,
            self.ledger.row(),
        )

    def _trained(
        self, what: str, net: MultiStageNet, plan: StagePlan, codes: Codes | None, name: str
    ) -> None:
        self._tell(what, 0.0)
        about = digest([asdict(plan), None if codes is None else codes.tolist()])
        train_stages(
            net,
            self._train,
            self._train_labels,
            plan,
            codes=codes,
            teacher=self.teacher,
            keep=Keep(self._folder / name, about),
            progress=lambda now: self._tell(what, now.step / plan.steps),
            report_every=max(1, plan.steps // 50),
        )
        self.ledger.training_steps += plan.steps


def _costed(space: SplitSpace, plan: SplitPlan) -> Codes:
    """Splits (n, L) to measure: random ones, or all where there are no more."""
    if space.raw_size() > plan.costed:
        return space.sample(plan.costed, np.random.default_rng([plan.seed, 1]))
    every = space.all_codes()
    if len(every) < LEAST_SPLITS:
        raise UsageError(
            f"{space.net.graph.name} can be cut in {len(every)} ways only, too few to learn what "
            "stages cost: ask for more groups"
        )
    return every


def inputs_of(part: Part, plan: SplitPlan) -> Tensor:
    """Images (n, c, h, w) as the network reads them."""
    channels = part.images.shape[1]
    mean = np.array([0.0] * channels if plan.mean is None else plan.mean, np.float32)
    std = np.array([1.0] * channels if plan.std is None else plan.std, np.float32)
    if {mean.shape, std.shape} != {(channels,)} or not (std > 0).all():
        raise UsageError(f"give a mean and a positive std for each of {channels} channels")
    pixels = part.images.astype(np.float32)
    if part.images.dtype == np.uint8:
        pixels /= np.float32(255)
    return torch.from_numpy((pixels - mean[:, None, None]) / std[:, None, None])


def _about(space: SplitSpace, data: Dataset, plan: SplitPlan, device: str) -> dict[str, Any]:
    """What a search that goes on has to have in common with the one that began, in JSON."""
    weights = hashlib.sha256()
    for name, array in sorted(space.net.weights.items()):
        weights.update(name.encode())
        weights.update(np.ascontiguousarray(array).data)
    about = {
        "space": space.name,
        "weights": weights.hexdigest()[:32],
        "data": data.digest,
        "device": device,
        **plan.fixed,
    }
    return dict(json.loads(json.dumps(about)))


def _latencies(path: Path) -> dict[str, float]:
    """Latencies in ms that a search has measured, by the graph's hash."""
    if not path.exists():
        return {}
    try:
        found = {str(k): float(v) for k, v in json.loads(path.read_text(encoding="utf-8")).items()}
    except (ValueError, TypeError, AttributeError, OSError):
        raise UsageError(f"{path} is damaged: remove it, to measure again") from None
    if not all(math.isfinite(ms) and ms > 0 for ms in found.values()):
        raise UsageError(f"{path} has latencies that cannot be: remove it, to measure again")
    return found
