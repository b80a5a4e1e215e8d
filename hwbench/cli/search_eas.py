"""``hwbench search eas``: train a generator for tasks and budgets over a supernet that is there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hwbench import console
from hwbench.cli.supernet import images_of
from hwbench.errors import UsageError

if TYPE_CHECKING:
    from hwbench.predictors import LatencyPredictor
    from hwbench.search.eas import TaskGenerator
    from hwbench.spaces import Space

#: Images that each label rests on.
_EACH_IMAGES = 1000


@dataclass(frozen=True)
class Needs:
    """What this search rests on: groups of the classes of ``data``, a supernet trained on both."""

    tasks: Path | None
    supernet: Path | None
    data: str | None


def search_eas(
    space: Space,
    predictor: LatencyPredictor,
    budgets_ms: Sequence[float],
    path: Path,
    needs: Needs,
    labels: int,
    confidence: float,
    seed: int,
    as_json: bool,
) -> None:
    """Train, write the generator file and show what it is; UsageError where something is missing.

    ``labels`` are spent alike on each group and on all of them together.
    """
    from hwbench.predictors import BudgetOracle
    from hwbench.search.data import check_fits
    from hwbench.search.eas import EasCosts, read_tasks, train_task_generator
    from hwbench.search.generator_file import save_generator
    from hwbench.search.supernet import load_supernet

    if needs.tasks is None or needs.supernet is None or needs.data is None:
        raise UsageError(
            "search eas needs --tasks FILE.json (groups of classes), --supernet FILE.pt (trained "
            "on those tasks) and --data NAME (what it was trained on)"
        )
    net = load_supernet(needs.supernet, space)
    found = images_of(space, needs.data)
    skeleton = net.space.skeleton
    check_fits(found, channels=skeleton.in_channels, classes=skeleton.classes, what=space.name)
    groups = read_tasks(needs.tasks, found.name, found.classes)
    oracle = BudgetOracle(predictor)
    with console.stages() as report:
        generator, ledger = train_task_generator(
            net,
            found,
            groups,
            oracle,
            budgets_ms,
            costs=EasCosts(labels=labels // (1 + len(groups.groups)), images=_EACH_IMAGES),
            confidence=confidence,
            seed=seed,
            progress=report,
        )
    objective = f"cross-entropy on tasks of {found.name}"
    save_generator(generator, path, objective=objective, ledger=ledger.row())
    _show(path, generator, ledger.row(), as_json=as_json)


def _show(path: Path, generator: TaskGenerator, ledger: dict[str, float], *, as_json: bool) -> None:
    low, high = generator.range_ms
    groups, provenance = generator.groups, generator.oracle.predictor.meta.provenance
    if as_json:
        console.write_json(
            {
                "generator": path,
                "space": generator.space.name,
                "device": provenance.device,
                "data": groups.data,
                "tasks": {
                    g.name: [groups.class_names[c] for c in g.classes] for g in groups.groups
                },
                "confidence": generator.confidence,
                "range_ms": [low, high],
                "kept": len(generator.kept),
                "ledger": ledger,
            }
        )
        return
    rows = [(name.replace("_", " "), value) for name, value in ledger.items()]
    names = ", ".join(group.name for group in groups.groups)
    console.show(
        f"{generator.space.name} on {provenance.device}, for tasks of {groups.data}: {names}",
        console.table(("cost", "<value"), rows),
        f"Budgets from {low:.4g} to {high:.4g} ms can be kept. Written to {path}",
    )
