"""``hwbench search``: train a generator that answers any latency budget."""

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
    Seed,
    SpaceName,
    StoreUrl,
    device_of,
    opened,
    require_folder,
)
from hwbench.cli.search_eas import Needs, search_eas
from hwbench.cli.supernet import images_of
from hwbench.errors import UnknownNameError, UsageError

if TYPE_CHECKING:
    from hwbench.predictors import LatencyPredictor
    from hwbench.search.accuracy import AccuracySource
    from hwbench.search.pnag import Generator
    from hwbench.spaces import Space, Value

METHODS = ("pnag", "eas")
_UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3}


def _methods() -> list[str]:
    return list(METHODS)


_Method = Annotated[
    str,
    typer.Argument(metavar="METHOD", help="pnag, or eas: of tasks.", autocompletion=_methods),
]
_Oracle = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Predictor (.hwp) to ask (default: DEVICE-SPACE.hwp)."),
]
_Budgets = Annotated[
    str, typer.Option(metavar="MS,MS,…", help="Budgets to train on, as 5ms,8ms,12ms.")
]
_Out = Annotated[
    Path | None, typer.Option("-o", "--out", metavar="FILE", help="Default: DEVICE-SPACE.hwg.")
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
    typer.Option(metavar="NAME|FOLDER|FILE", help="Images that the supernet was trained on."),
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


def search(
    method: _Method,
    space: SpaceName,
    budgets: _Budgets,
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

    Example:

    hwbench search pnag -s mbv3_small -d cpu --budgets 0.5ms,0.8ms,1.2ms -o cpu.hwg

    hwbench search pnag -s mbv3_small --budgets 0.5ms,1ms --supernet f.pt --data fashion-mnist

    hwbench search eas -s mbv3_small --budgets 0.5ms,1ms --supernet f.pt --data fashion-mnist
    --tasks groups.json
    """
    from hwbench.predictors import BudgetOracle
    from hwbench.search.pnag import Costs, require_reachable, save_generator, train_generator
    from hwbench.spaces import get_space

    if method not in METHODS:
        raise UnknownNameError("search method", method, METHODS)
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
    fixed: Mapping[str, Value] = {}
    if supernet is None and data is None:
        source, objective = accuracy_source(searched, accuracy, dataset)
    else:
        source, objective, fixed = supernet_source(searched, supernet, data, accuracy)
    asked = BudgetOracle(predictor)
    require_reachable(asked, wanted, confidence, seed, fixed)
    with opened(store) as results, console.stages() as report:
        if measurements:
            from hwbench.devices.profile import measure_architectures

            target, threads = device_of(device, option), predictor.meta.provenance.threads
            require_here(path, predictor, device, option)
            asked = BudgetOracle(
                predictor,
                measurer=lambda codes: measure_architectures(
                    target, searched, codes, results, threads=threads
                ),
            )
        generator, ledger = train_generator(
            source,
            asked,
            wanted,
            costs=Costs(labels, measurements),
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
