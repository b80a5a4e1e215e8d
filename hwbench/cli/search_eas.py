"""``hwbench search eas``: train a generator for tasks and budgets over a supernet that is there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hwbench import console
from hwbench.cli.fleet import Tls
from hwbench.cli.options import (
    Confidence,
    Debug,
    DeviceName,
    Json,
    Seed,
    SpaceName,
    require_apart,
    require_folder,
    require_inputs,
)
from hwbench.cli.search_options import (
    Budgets,
    Fleet,
    Labels,
    On,
    Oracle,
    Out,
    Seeds,
    all_milliseconds,
    by_seed,
    evaluating,
    predictor_of,
    predictor_path,
    require_on_cpu,
    show_cost,
    show_seeds,
    training_on,
)
from hwbench.cli.supernet import images_of
from hwbench.errors import UsageError

if TYPE_CHECKING:
    from hwbench.search.eas import TaskGenerator
    from hwbench.search.ledger import SearchLedger

#: Images that each label rests on.
_EACH_IMAGES = 1000

_Tasks = Annotated[
    Path,
    typer.Option(metavar="FILE", help='Groups of classes (.json), {"NAME": ["CLASS", …], …}.'),
]
_Supernet = Annotated[
    Path, typer.Option(metavar="FILE", help="Supernet (.pt) that was trained on those tasks.")
]
_Data = Annotated[
    str,
    typer.Option(
        metavar="NAME|FOLDER|FILE",
        help="Images that it was trained on (hwbench supernet --help).",
    ),
]


def eas(
    space: SpaceName,
    budgets: Budgets,
    tasks: _Tasks,
    supernet: _Supernet,
    data: _Data,
    device: DeviceName = "cpu",
    oracle: Oracle = None,
    labels: Labels = 200,
    on: On = "cpu",
    fleet: Fleet = None,
    tls: Tls = None,
    confidence: Confidence = 0.98,
    out: Out = None,
    seed: Seed = 0,
    seeds: Seeds = 1,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Train a generator of architectures for any budget and any task: some groups of classes.

    The supernet learned the tasks (hwbench supernet --tasks); the labels, of each seed, are spent
    alike on each group and on all of them together. Then generate answers in milliseconds.

    Example:

    hwbench search eas -s mbv3_small --budgets MS1,MS2 --supernet f.pt --data fashion-mnist
    --tasks groups.json

    hwbench search eas -s mbv3_small --budgets MS1,MS2 --supernet f.pt --data fashion-mnist
    --tasks groups.json --seeds 4 --fleet tcp://127.0.0.1:8786
    """
    from hwbench.spaces import get_space

    require_on_cpu(fleet, on)
    budgets_ms = all_milliseconds(budgets)
    searched = get_space(space)
    path = out or Path(f"{device}-{space}.hwg")
    require_folder(path)
    require_inputs(path, tasks, supernet)
    require_apart(path, oracle or predictor_path(space, device), Path(data))

    from hwbench.predictors import BudgetOracle
    from hwbench.search.data import check_fits
    from hwbench.search.eas import EasCosts, read_tasks, train_task_generator
    from hwbench.search.eas.afar import task_trainer_afar
    from hwbench.search.generator_file import save_generator
    from hwbench.search.seeds import trained_here
    from hwbench.search.supernet import load_supernet, training_device

    predictor = predictor_of(oracle, searched, device)
    net = load_supernet(supernet, searched).to(training_device(on))
    found = images_of(searched, data)
    skeleton = net.space.skeleton
    check_fits(found, channels=skeleton.in_channels, classes=skeleton.classes, what=space)
    groups = read_tasks(tasks, found.name, found.classes)
    costs = EasCosts(labels=_labels_each(labels, len(groups.groups)), images=_EACH_IMAGES)
    if net.learned is not None and not net.learned.tasks:
        console.note(
            f"{supernet} was trained without --tasks: its paths never learned to tell the classes "
            f"of a group apart by themselves; hwbench supernet --tasks {tasks} trains one that does"
        )
    with (
        evaluating(fleet, tls) as (elsewhere, _),
        training_on(fleet if seeds > 1 else None, tls) as client,
        console.stages() as report,
    ):
        generator, ledger = train_task_generator(
            net,
            found,
            groups,
            BudgetOracle(predictor),
            budgets_ms,
            costs=costs,
            confidence=confidence,
            seed=seed,
            seeds=seeds,
            trainer=trained_here if client is None else task_trainer_afar(client),
            elsewhere=elsewhere,
            progress=report,
        )
    objective = f"cross-entropy on tasks of {found.name}"
    save_generator(generator, path, objective=objective, ledger=ledger.row())
    _show(path, generator, ledger, seed, as_json=as_json)


def _labels_each(labels: int, groups: int) -> int:
    """Labels for each group and for all together; UsageError where they do not reach for one."""
    if labels <= groups:
        raise UsageError(
            f"--labels {labels} are too few: give at least {groups + 1}, one for each of the "
            f"{groups} groups and one for all together"
        )
    return labels // (groups + 1)


def _show(
    path: Path, generator: TaskGenerator, ledger: SearchLedger, seed: int, *, as_json: bool
) -> None:
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
                "range_ms": list(generator.range_ms),
                "kept": len(generator.kept),
                "ledger": ledger.row(),
                "by_seed": by_seed(ledger, seed),
            }
        )
        return
    names = ", ".join(group.name for group in groups.groups)
    title = f"{generator.space.name} on {provenance.device}, for tasks of {groups.data}: {names}"
    show_cost(title, ledger.row(), generator.range_ms, path)
    show_seeds(by_seed(ledger, seed))
