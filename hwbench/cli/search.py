"""``hwbench search``: a generator that answers any latency budget, or a network in stages."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hwbench import console
from hwbench.cli.options import (
    Confidence,
    Debug,
    DeviceName,
    DeviceOptions,
    Json,
    OptionalSpaceName,
    Seed,
    StoreUrl,
    device_of,
    opened,
    require_folder,
)
from hwbench.cli.search_eas import Needs, search_eas
from hwbench.cli.search_s2dnas import SplitNeeds, search_splits
from hwbench.cli.supernet import images_of
from hwbench.errors import UnknownNameError, UsageError

if TYPE_CHECKING:
    from hwbench.devices.base import Device
    from hwbench.predictors import BudgetOracle, LatencyPredictor
    from hwbench.predictors.oracle import Measurer
    from hwbench.search.accuracy import AccuracySource
    from hwbench.search.pnag import Costs, Generator
    from hwbench.spaces import Space, Value
    from hwbench.store import Store

    #: Where accuracy comes from, what to call it, and the decisions that it was trained with.
    _Source = tuple[AccuracySource, str, Mapping[str, Value]]

METHODS = ("pnag", "eas", "s2dnas")
_UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3}


def _methods() -> list[str]:
    return list(METHODS)


_Method = Annotated[
    str,
    typer.Argument(
        metavar="METHOD", help="pnag, eas: of tasks, or s2dnas: of stages.", autocompletion=_methods
    ),
]
_Oracle = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Predictor (.hwp) to ask (default: DEVICE-SPACE.hwp)."),
]
_Budgets = Annotated[
    str | None, typer.Option(metavar="MS,MS,…", help="Budgets to train on, as 5ms,8ms,12ms.")
]
_Out = Annotated[
    Path | None,
    typer.Option(
        "-o",
        "--out",
        metavar="FILE|FOLDER",
        help="Default: DEVICE-SPACE.hwg; for s2dnas a folder, DEVICE-s2dnas.",
    ),
]
_Accuracy = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Table of accuracies (.npz: ops, op_names, acc, acc_names); without: MACs as a proxy.",
    ),
]
_Supernet = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Supernet (.pt) to ask for accuracies, in place of a table."),
]
_Data = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|FOLDER|FILE", help="Images that the supernet, or the network, was trained on."
    ),
]
_Tasks = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help='For eas: groups of classes (.json), {"NAME": ["CLASS", …], …}.'
    ),
]
_Dataset = Annotated[str, typer.Option(metavar="NAME", help="Column of the table of accuracies.")]
_Labels = Annotated[int, typer.Option(min=20, metavar="N", help="Accuracy labels to spend.")]
_Measurements = Annotated[
    int,
    typer.Option(min=0, metavar="N", help="Measurements to spend where they decide a budget."),
]
_S2DNAS = "S2DNAS"
_Model = Annotated[
    str | None,
    typer.Option(
        metavar="FILE.py:FUNCTION",
        help="Builds the trained network, a torch module.",
        rich_help_panel=_S2DNAS,
    ),
]
_Weights = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Its state dict (.pt or .npz).", rich_help_panel=_S2DNAS),
]
_Size = Annotated[
    int | None,
    typer.Option(
        min=4,
        metavar="N",
        help="Pixels a side that digits and a folder's images are scaled to (default: 28).",
        rich_help_panel=_S2DNAS,
    ),
]
_Mean = Annotated[
    str | None,
    typer.Option(
        metavar="X,…",
        help="What pixels of 0..1 are normalised by, a channel each (default: 0).",
        rich_help_panel=_S2DNAS,
    ),
]
_Std = Annotated[
    str | None, typer.Option(metavar="X,…", help="The same (default: 1).", rich_help_panel=_S2DNAS)
]
_By = Annotated[
    str | None,
    typer.Option(
        "--method",
        metavar="NAME",
        help="controller (default), random, evolution or nsga2.",
        rich_help_panel=_S2DNAS,
    ),
]
_Stages = Annotated[
    int | None,
    typer.Option(min=2, max=8, metavar="N", help="Stages (default: 3).", rich_help_panel=_S2DNAS),
]
_Groups = Annotated[
    int | None,
    typer.Option(
        min=2,
        metavar="N",
        help="Groups that channels are cut into (default: 4).",
        rich_help_panel=_S2DNAS,
    ),
]
_Evaluations = Annotated[
    int | None,
    typer.Option(
        min=5, metavar="N", help="Candidates to judge (default: 60).", rich_help_panel=_S2DNAS
    ),
]
_Points = Annotated[
    float | None,
    typer.Option(
        min=0,
        metavar="X",
        help="Points of accuracy that may be lost (default: 0.5).",
        rich_help_panel=_S2DNAS,
    ),
]


def search(
    method: _Method,
    space: OptionalSpaceName = None,
    budgets: _Budgets = None,
    device: DeviceName = "cpu",
    option: DeviceOptions = None,
    oracle: _Oracle = None,
    accuracy: _Accuracy = None,
    dataset: _Dataset = "cifar10",
    supernet: _Supernet = None,
    data: _Data = None,
    tasks: _Tasks = None,
    labels: _Labels = 200,
    measurements: _Measurements = 0,
    confidence: Confidence = 0.98,
    model: _Model = None,
    weights: _Weights = None,
    size: _Size = None,
    mean: _Mean = None,
    std: _Std = None,
    by: _By = None,
    stages: _Stages = None,
    groups: _Groups = None,
    evaluations: _Evaluations = None,
    points: _Points = None,
    out: _Out = None,
    seed: Seed = 0,
    store: StoreUrl = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Train a generator of architectures for any budget between the first and the last given.

    It asks the predictor that fit wrote for the device; then generate answers in milliseconds.

    A table of accuracies has the arrays ops (n, L), which index op_names for each decision of the
    space in its order, and acc (n, d) in per cent of the d datasets acc_names.

    s2dnas turns a trained network into stages that easy images leave early; the same command goes
    on where it was stopped.

    Example:

    hwbench search pnag -s mbv3_small -d cpu --budgets 0.5ms,0.8ms,1.2ms -o cpu.hwg

    hwbench search pnag -s mbv3_small --budgets 0.5ms,1ms --supernet f.pt --data fashion-mnist

    hwbench search eas -s mbv3_small --budgets 0.5ms,1ms --supernet f.pt --data fashion-mnist
    --tasks groups.json

    hwbench search s2dnas --model mynet.py:build --weights w.pt --data fashion-mnist -o found
    """
    if method not in METHODS:
        raise UnknownNameError("search method", method, METHODS)
    split = SplitNeeds(
        model, weights, data, by, stages, groups, evaluations, points, size, mean, std
    )
    generators = {
        "--space": space,
        "--budgets": budgets,
        "--oracle": oracle,
        "--accuracy": accuracy,
        "--supernet": supernet,
        "--tasks": tasks,
    }
    if method == "s2dnas":
        _refuse(method, generators)
        folder = out or Path(f"{device}-s2dnas".replace(":", "-"))
        search_splits(device_of(device, option), folder, split, seed, store, as_json)
        return
    _refuse(method, split.options())
    if space is None or budgets is None:
        raise UsageError(
            f"search {method} needs --space NAME (hwbench spaces lists them) and --budgets MS,MS"
        )
    from hwbench.predictors import BudgetOracle
    from hwbench.search.pnag import Costs
    from hwbench.spaces import get_space

    wanted = [milliseconds(part) for part in budgets.split(",")]
    searched = get_space(space)
    path = out or Path(f"{device}-{space}.hwg")
    require_folder(path)
    predictor = _predictor(oracle or Path(f"{device}-{space}.hwp"), searched, device)
    if method == "eas":
        if accuracy is not None or measurements:
            raise UsageError("search eas takes no --accuracy and no --measurements: leave them out")
        needs = Needs(tasks, supernet, data)
        search_eas(searched, predictor, wanted, path, needs, labels, confidence, seed, as_json)
        return
    if tasks is not None:
        raise UsageError("search pnag knows no tasks: leave --tasks out, or search eas")
    if supernet is None and data is None:
        source: _Source = (*accuracy_source(searched, accuracy, dataset), {})
    else:
        source = supernet_source(searched, supernet, data, accuracy)
    with opened(store) as results:
        measurer = None
        if measurements:
            require_here(path, predictor, device, option)
            measurer = _measurer(predictor, device_of(device, option), results)
        asked = BudgetOracle(predictor, measurer=measurer)
        _search_pnag(
            asked, source, wanted, path, Costs(labels, measurements), confidence, seed, as_json
        )


def _refuse(method: str, options: Mapping[str, object]) -> None:
    """UsageError where an option of another method was given."""
    if given := [flag for flag, value in options.items() if value is not None]:
        raise UsageError(f"search {method} takes no {given[0]}: leave it out")


def _measurer(predictor: LatencyPredictor, device: Device, results: Store) -> Measurer:
    from hwbench.devices.profile import measure_architectures

    space, threads = predictor.space, predictor.meta.provenance.threads
    return lambda codes: measure_architectures(device, space, codes, results, threads=threads)


def _search_pnag(
    oracle: BudgetOracle,
    source: _Source,
    budgets_ms: Sequence[float],
    path: Path,
    costs: Costs,
    confidence: float,
    seed: int,
    as_json: bool,
) -> None:
    """Train, write the generator file and show what it is."""
    from hwbench.search.pnag import require_reachable, save_generator, train_generator

    accuracy, objective, fixed = source
    require_reachable(oracle, budgets_ms, confidence, seed, fixed)
    with console.stages() as report:
        generator, ledger = train_generator(
            accuracy,
            oracle,
            budgets_ms,
            costs=costs,
            fixed=fixed,
            confidence=confidence,
            seed=seed,
            progress=report,
        )
    save_generator(generator, path, objective=objective, ledger=ledger.row())
    _show(path, generator, objective, ledger.row(), as_json=as_json)


def milliseconds(text: str) -> float:
    """A latency from ``9.3ms``, ``900us``, ``0.01s``, or a plain number of ms; positive."""
    word = text.strip()
    number = word.rstrip("abcdefghijklmnopqrstuvwxyz")
    unit = word[len(number) :] or "ms"
    try:
        value = float(number) * _UNITS[unit]
    except (KeyError, ValueError):
        raise UsageError(f"budget {text!r}: write it as 9.3ms, 900us or 0.01s") from None
    if not (math.isfinite(value) and value > 0):
        raise UsageError(f"budget {text!r} cannot be kept: give a positive time")
    return value


def accuracy_source(space: Space, table: Path | None, dataset: str) -> tuple[AccuracySource, str]:
    """Where accuracy comes from, and what to call it."""
    from hwbench.search.accuracy.proxy import CapacityProxy
    from hwbench.search.accuracy.table import read_table
    from hwbench.search.random_search import CAPACITY_PROXY

    if table is None:
        return CapacityProxy(space), CAPACITY_PROXY
    return read_table(table, space, dataset), f"accuracy on {dataset}"


def supernet_source(
    space: Space, supernet: Path | None, data: str | None, table: Path | None
) -> tuple[AccuracySource, str, Mapping[str, Value]]:
    """Accuracy by a supernet's paths, what to call it, and the decisions that it was trained with.

    Its answers are kept beside its file: no search asks for one again.
    """
    from hwbench.search.accuracy.kept import KeptAccuracy
    from hwbench.search.accuracy.supernet import SupernetAccuracy
    from hwbench.search.supernet import load_supernet

    if supernet is None or data is None:
        raise UsageError("--supernet FILE and --data NAME go together: give both, or neither")
    if table is not None:
        raise UsageError("--accuracy and --supernet are two sources of accuracy: give one")
    images = images_of(space, data)
    net = load_supernet(supernet, space)
    source = SupernetAccuracy(net, images)
    weights = hashlib.sha256(supernet.read_bytes()).hexdigest()[:16]
    about = f"the supernet {weights} on {images.name}"
    kept = KeptAccuracy(source, supernet.with_suffix(".labels.jsonl"), about)
    return kept, f"accuracy of a supernet's paths on {images.name}", source.fixed


def require_here(
    path: Path, predictor: LatencyPredictor, device: str, options: Sequence[str] | None
) -> None:
    """UsageError where a predictor is of another device or runtime than the one here."""
    place = predictor.meta.provenance
    here = device_of(device, options).fingerprint(place.threads).key
    if here != place.fingerprint_key:
        raise UsageError(
            f"{path} rests on latencies of another device or runtime ({place.device}, "
            f"{place.runtime}): nothing can be measured on {device} to hold against them"
        )


def _predictor(path: Path, space: Space, device: str) -> LatencyPredictor:
    from hwbench.predictors import load_predictor

    if not path.exists():
        raise UsageError(
            f"there is no {path} to ask for latencies: make it with hwbench fit -d {device} "
            f"-s {space.name}, or name one with --oracle"
        )
    return load_predictor(path, space=space)


def _show(
    path: Path, generator: Generator, objective: str, ledger: dict[str, float], *, as_json: bool
) -> None:
    low, high = generator.range_ms
    provenance = generator.oracle.predictor.meta.provenance
    if as_json:
        console.write_json(
            {
                "generator": path,
                "space": generator.space.name,
                "device": provenance.device,
                "objective": objective,
                "fixed": generator.fixed,
                "confidence": generator.confidence,
                "range_ms": [low, high],
                "kept": len(generator.kept),
                "ledger": ledger,
            }
        )
        return
    rows = [(name.replace("_", " "), value) for name, value in ledger.items()]
    console.show(
        f"{generator.space.name} on {provenance.device}, by {objective}",
        console.table(("cost", "<value"), rows),
        f"Budgets from {low:.4g} to {high:.4g} ms can be kept. Written to {path}",
    )
