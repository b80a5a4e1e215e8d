"""``hwbench search pnag``: train a generator that answers any latency budget."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hwbench import console
from hwbench.cli.fleet import Tls
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
    require_here,
    require_on_cpu,
    show_cost,
    show_seeds,
    training_on,
)
from hwbench.cli.supernet import images_of
from hwbench.errors import UsageError

if TYPE_CHECKING:
    from hwbench.devices.base import Device
    from hwbench.predictors import LatencyPredictor
    from hwbench.predictors.oracle import Measurer
    from hwbench.search.accuracy import AccuracySource
    from hwbench.search.ledger import SearchLedger
    from hwbench.search.pnag import Generator
    from hwbench.spaces import Space, Value
    from hwbench.store import Store

    #: Where accuracy comes from, what to call it, and the decisions that it was trained with.
    _Source = tuple[AccuracySource, str, Mapping[str, Value]]

_DATASET = "cifar10"

_Accuracy = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Table of accuracies (.npz: ops, op_names, acc, acc_names); without: MACs as a proxy.",
    ),
]
_Dataset = Annotated[
    str | None,
    typer.Option(metavar="NAME", help=f"Column of the table of accuracies (default: {_DATASET})."),
]
_Supernet = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Supernet (.pt) to ask for accuracies, in place of a table."),
]
_Data = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|FOLDER|FILE",
        help="Images that the supernet was trained on (hwbench supernet --help).",
    ),
]
_Measurements = Annotated[
    int,
    typer.Option(min=0, metavar="N", help="Measurements to spend where they decide a budget."),
]


def pnag(
    space: SpaceName,
    budgets: Budgets,
    device: DeviceName = "cpu",
    option: DeviceOptions = None,
    oracle: Oracle = None,
    accuracy: _Accuracy = None,
    dataset: _Dataset = None,
    supernet: _Supernet = None,
    data: _Data = None,
    on: On = "cpu",
    fleet: Fleet = None,
    tls: Tls = None,
    labels: Labels = 200,
    measurements: _Measurements = 0,
    confidence: Confidence = 0.98,
    out: Out = None,
    seed: Seed = 0,
    seeds: Seeds = 1,
    store: StoreUrl = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Train a generator of architectures for any budget between the first and the last given.

    It asks the predictor that fit wrote for the device; then generate answers in milliseconds.
    MS1 and MS2 are latencies as 0.2ms: fit says which ones the space has on the device.

    A table of accuracies has the arrays ops (n, L), which index op_names for each decision of the
    space in its order, and acc (n, d) in per cent of the d datasets acc_names.

    Example:

    hwbench search pnag -s mbv3_small -d cpu --budgets MS1,MS2 -o cpu.hwg

    hwbench search pnag -s mbv3_small --budgets MS1,MS2 --supernet f.pt --data fashion-mnist

    hwbench search pnag -s mbv3_small --budgets MS1,MS2 --supernet f.pt --data fashion-mnist
    --fleet tcp://127.0.0.1:8786

    hwbench search pnag -s mbv3_small --budgets MS1,MS2 --seeds 8 --fleet tcp://127.0.0.1:8786
    """
    from hwbench.spaces import get_space

    if option and not measurements:
        raise UsageError("--option is for --measurements, of which there are none: leave it out")
    _require_one_source(accuracy, supernet, data, on, dataset)
    if fleet is not None and supernet is None and seeds == 1:
        raise UsageError("--fleet evaluates a --supernet's networks, or trains --seeds: give one")
    require_on_cpu(fleet, on)
    budgets_ms = all_milliseconds(budgets)
    searched = get_space(space)
    path = out or Path(f"{device}-{space}.hwg")
    require_folder(path)
    require_inputs(path, accuracy, supernet)
    require_apart(path, oracle or predictor_path(space, device), Path(data or "."))

    from hwbench.predictors import BudgetOracle
    from hwbench.search.pnag import Costs, require_reachable, save_generator, train_generator
    from hwbench.search.pnag.afar import trainer_afar
    from hwbench.search.seeds import trained_here

    predictor = predictor_of(oracle, searched, device)
    sourced: AbstractContextManager[_Source]
    if supernet is None or data is None:
        sourced = nullcontext(accuracy_source(searched, accuracy, dataset))
    else:
        sourced = supernet_source(searched, supernet, data, on, fleet, tls)
    with (
        opened(store) as results,
        sourced as (source, objective, fixed),
        training_on(fleet if seeds > 1 else None, tls) as client,
    ):
        measurer = None
        if measurements:
            require_here(path, predictor, device, option)
            measurer = _measurer(predictor, device_of(device, option), results)
        asked = BudgetOracle(predictor, measurer=measurer)
        require_reachable(asked, budgets_ms, confidence, seed, fixed)
        with console.stages() as report:
            generator, ledger = train_generator(
                source,
                asked,
                budgets_ms,
                costs=Costs(labels, measurements),
                fixed=fixed,
                confidence=confidence,
                seed=seed,
                seeds=seeds,
                trainer=trained_here if client is None else trainer_afar(client),
                progress=report,
            )
    save_generator(generator, path, objective=objective, ledger=ledger.row())
    _show(path, generator, objective, ledger, seed, as_json=as_json)


def _require_one_source(
    table: Path | None, supernet: Path | None, data: str | None, on: str, dataset: str | None
) -> None:
    """UsageError where options of a source are missing, or of two are given."""
    if on != "cpu" and supernet is None:
        raise UsageError("--on is for --supernet, of which there is none: leave it out")
    if (supernet is None) != (data is None):
        raise UsageError("--supernet FILE and --data NAME go together: give both, or neither")
    if supernet is not None and table is not None:
        raise UsageError("--accuracy and --supernet are two sources of accuracy: give one")
    if dataset is not None and table is None:
        raise UsageError("--dataset is a column of --accuracy FILE: give both, or neither")


def _measurer(predictor: LatencyPredictor, device: Device, results: Store) -> Measurer:
    from hwbench.devices.profile import measure_architectures

    space, threads = predictor.space, predictor.meta.provenance.threads
    return lambda codes: measure_architectures(device, space, codes, results, threads=threads)


def accuracy_source(space: Space, table: Path | None, dataset: str | None) -> _Source:
    """Accuracy by a table, or else MACs; what to call it; and that it fixes nothing."""
    from hwbench.search.accuracy.proxy import CapacityProxy
    from hwbench.search.accuracy.table import read_table
    from hwbench.search.random_search import CAPACITY_PROXY

    if table is not None:
        dataset = dataset or _DATASET
        return read_table(table, space, dataset), f"accuracy on {dataset}", {}
    return CapacityProxy(space), CAPACITY_PROXY, {}


@contextmanager
def supernet_source(
    space: Space,
    supernet: Path,
    data: str,
    on: str = "cpu",
    fleet: str | None = None,
    tls: Path | None = None,
) -> Iterator[_Source]:
    """Accuracy by a supernet's paths, what to call it, and the decisions that it was trained with.

    Its answers are kept beside its file: no search asks for one again. The hosts of a fleet
    evaluate, where there is one.
    """
    from hwbench.search.accuracy.supernet import SupernetAccuracy, kept_labels
    from hwbench.search.supernet import load_supernet, training_device

    images = images_of(space, data)
    net = load_supernet(supernet, space).to(training_device(on))
    with evaluating(fleet, tls) as (elsewhere, hosts):
        source = SupernetAccuracy(net, images, elsewhere=elsewhere)
        objective = f"accuracy of a supernet's paths on {images.name}"
        yield kept_labels(source, supernet, hosts=hosts), objective, source.fixed


def _show(
    path: Path,
    generator: Generator,
    objective: str,
    ledger: SearchLedger,
    seed: int,
    *,
    as_json: bool,
) -> None:
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
                "range_ms": list(generator.range_ms),
                "kept": len(generator.kept),
                "ledger": ledger.row(),
                "by_seed": by_seed(ledger, seed),
            }
        )
        return
    title = f"{generator.space.name} on {provenance.device}, by {objective}"
    show_cost(title, ledger.row(), generator.range_ms, path)
    show_seeds(by_seed(ledger, seed))
