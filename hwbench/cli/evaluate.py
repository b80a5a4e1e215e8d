"""``hwbench evaluate``: a predictor against measurements that it never saw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hwbench import console
from hwbench.cli import accuracy
from hwbench.cli.options import Debug, Json, Seed, Session, Since, StoreUrl, listed, opened
from hwbench.errors import PredictorError, UsageError

if TYPE_CHECKING:
    from hwbench.predictors import LatencyPredictor, TrainingSet
    from hwbench.predictors.diagnostics import LearningPoint
    from hwbench.predictors.published import PublishedFit, PublishedTable
    from hwbench.records import Measurement
    from hwbench.store import Store


class Selection(StrEnum):
    """How the architectures to learn from are chosen."""

    RANDOM = "random"
    ACTIVE = "active"


_Predictor = Annotated[Path | None, typer.Argument(metavar="PREDICTOR", help="A .hwp file.")]
_Space = Annotated[
    str | None, typer.Option("-s", "--space", metavar="NAME", help="Of a published table.")
]
_Archs = Annotated[Path | None, typer.Option(metavar="CSV", help="Its architectures, one a row.")]
_Latency = Annotated[
    Path | None, typer.Option(metavar="CSV", help="Its latencies in ms, one device a column.")
]
_Device = Annotated[
    str | None, typer.Option("-d", "--device", metavar="COLUMN", help="Which device's.")
]
_Train = Annotated[int | None, typer.Option(metavar="N", help="Architectures to learn from.")]
_Sources = Annotated[
    str | None,
    typer.Option(metavar="COLUMN,…", help="Other devices that are known on all rows."),
]
_Select = Annotated[
    Selection,
    typer.Option(metavar="random|active", help="Which ones: active takes the most telling."),
]
_Seeds = Annotated[
    int,
    typer.Option(metavar="K", min=1, help="Fit a published table K times: mean, worse end."),
]
_TestArchs = Annotated[
    Path | None, typer.Option(metavar="CSV", help="To test on; default: the rest.")
]
_TestLatency = Annotated[Path | None, typer.Option(metavar="CSV", help="Their latencies.")]
_Out = Annotated[
    Path | None,
    typer.Option("-o", "--out", metavar="FILE", help="Draw a figure: .png, .pdf, .svg, …"),
]


def evaluate(
    predictor: _Predictor = None,
    session: Session = None,
    since: Since = None,
    store: StoreUrl = None,
    space: _Space = None,
    archs: _Archs = None,
    latency: _Latency = None,
    device: _Device = None,
    train: _Train = None,
    sources: _Sources = None,
    select: _Select = Selection.RANDOM,
    test_archs: _TestArchs = None,
    test_latency: _TestLatency = None,
    out: _Out = None,
    seed: Seed = 0,
    seeds: _Seeds = 1,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Compare a predictor with later measurements of architectures that it never saw.

    Profile again with another --seed to have some. Measurements made before the predictor was
    fitted don't count, nor do architectures that were measured before.

    Or fit one on N rows of a table that others published, and test it on the rest. Both files join
    on their column arch_idx. Choices are numbers: op0 to op5 (nasbench201), op0 to op21 (fbnet), or
    r, d0 to d4, ks0 to ks19, e0 to e19 (ofa_mbv3), as in the tables of HELP and HW-NAS-Bench.
    Of hat, whose one file is both, they are HAT's columns, and a device is wmt14ende/cpu_xeon.

    In JSON within_5, within_10, coverage_90 and width_90 are fractions of 1, rmspe is in per cent,
    fit_seconds in s, us_per_query_… in µs. Of --seeds K it is runs (one of these a seed), mean and
    worse_end.

    The figure has four panels: predicted against measured latency, error by latency, the learning
    curve with its cost, and the coverage of the intervals.

    Example:

    hwbench evaluate cpu.hwp -o cpu.png

    hwbench evaluate --space nasbench201 --archs a.csv.gz --latency l.csv.gz -d pixel3 --train 100

    hwbench evaluate --space nasbench201 --archs a.csv.gz --latency l.csv.gz -d pixel3 --train 20
    --sources titanx_1,samsung_s7 --select active
    """
    _require_writable(out, seeds)
    needed: dict[str, object] = {"--space": space, "--archs": archs, "--latency": latency}
    needed |= {"--device": device, "--train": train}
    if predictor is not None:
        tests = {"--test-archs": test_archs, "--test-latency": test_latency}
        _require_no_table(needed | tests | {"--sources": sources}, select, seeds)
        _evaluate_file(predictor, session, since, store, out, as_json=as_json)
        return
    if space is None or archs is None or latency is None or device is None or train is None:
        raise _missing(needed)
    if (test_archs is None) != (test_latency is None):
        raise UsageError("--test-archs and --test-latency go together")
    learned = _read(space, archs, latency, device, sources)
    tested = None
    if test_archs is not None and test_latency is not None:
        tested = _read(space, test_archs, test_latency, device)
    fits = _fits(learned, tested, range(seed, seed + seeds), train=train, select=select)
    _tell(learned, train)
    if seeds == 1:
        _show_published(device, fits[0], out, as_json=as_json)
    else:
        _show_seeds(device, fits, as_json=as_json)


def _fits(
    learned: PublishedTable,
    tested: PublishedTable | None,
    seeds: Sequence[int],
    *,
    train: int,
    select: Selection,
) -> list[PublishedFit]:
    """One fit a seed."""
    from hwbench.predictors.published import fit_published

    fits = []
    with console.progress(f"fitting on {train} of {len(learned.labels)}") as report:
        for seed in seeds:
            fit = fit_published(learned, tested, train=train, select=select.value, seed=seed)
            fits.append(fit)
            report(len(fits) / len(seeds))
    return fits


def _require_no_table(given: Mapping[str, object], select: Selection, seeds: int) -> None:
    """UsageError where a predictor's file comes with what is of a published table."""
    names = [name for name, value in given.items() if value is not None]
    names += ["--select"] * (select != Selection.RANDOM) + ["--seeds"] * (seeds > 1)
    if names:
        raise UsageError(f"{names[0]} is for a published table: leave PREDICTOR out")


def _read(
    space: str, archs: Path, latency: Path, device: str, sources: str | None = None
) -> PublishedTable:
    """A published table, and what other devices know of its rows."""
    from hwbench.predictors.published import read_published

    others = () if sources is None else listed("--sources", sources)
    return read_published(space, archs, latency, device, others)


def _tell(table: PublishedTable, train: int) -> None:
    """What a reader has to know of a table's labels."""
    from hwbench.predictors import caveats

    space, labels = table.space, table.labels
    for line in (
        *caveats.coarse_timer(labels), *caveats.repeated(space, labels), *caveats.few(space, train)
    ):  # fmt: skip
        console.note(line)


def _missing(table: Mapping[str, object]) -> UsageError:
    name = next(name for name, value in table.items() if value is None)
    return UsageError(
        f"{name} is missing: give a predictor file, or --space, --archs, --latency, "
        "--device and --train of a published table"
    )


def _require_writable(out: Path | None, seeds: int) -> None:
    """Refuse a figure that cannot be written, or is of several fits, before all computing."""
    if out is not None:
        from hwbench.watch.predictor_figure import require_writable

        require_writable(out)
        if seeds > 1:
            raise UsageError("--out draws one fit: leave --seeds out")


def _show_published(device: str, fitted: PublishedFit, out: Path | None, *, as_json: bool) -> None:
    """The metrics of a published table, and its figure."""
    if out is not None:
        _draw_published(device, fitted, out)
    found = fitted.metrics
    if as_json:
        console.write_json(asdict(found) | _drawn(out))
        return
    title = f"{device}: fitted on {found.n_train}, tested on {found.n} others"
    console.show(title, accuracy.table({"hwbench": found}), *_where(out))


def _show_seeds(device: str, fits: Sequence[PublishedFit], *, as_json: bool) -> None:
    """The metrics of fits of several seeds, their mean and their worse end."""
    from hwbench.predictors.metrics import over_seeds

    runs = [each.metrics for each in fits]
    together = over_seeds(runs)
    if as_json:
        each = [{"seed": fit.predictor.meta.seed, **asdict(fit.metrics)} for fit in fits]
        ends = dict(zip(("mean", "worse_end"), together.values(), strict=True))
        console.write_json({"runs": each, **ends})
        return
    title = f"{device}: fitted on {runs[0].n_train} and tested on others, {len(runs)} seeds"
    console.show(title, accuracy.table(together))


def _evaluate_file(
    predictor: Path,
    session: str | None,
    since: str | None,
    store: str | None,
    out: Path | None,
    *,
    as_json: bool,
) -> None:
    """A predictor's file against the store's later measurements."""
    from hwbench import predictors
    from hwbench.predictors.data import pooled
    from hwbench.predictors.measured import training_from

    tested = predictors.load_predictor(predictor)
    with opened(store, create=False) as results:
        known = comparable(tested, results)
        chosen = {(m.session, m.workload.key) for m in comparable(tested, results, session, since)}
    before, unseen = split(tested, known)
    fresh = [m for m in unseen if (m.session, m.workload.key) in chosen]
    place = tested.meta.provenance
    options = ["=".join(pair) for pair in place.options]
    command = accuracy.profile_command(
        place.device, tested.space.name, options, place.threads, store
    )
    if not fresh:
        raise UsageError(
            f"{predictor}: nothing was measured since that it has not seen: run {command} with "
            "another --seed"
        )
    test = pooled(tested.space, training_from(tested.space, fresh))
    compared = {"predictor": tested}
    if before:
        training = training_from(tested.space, before)
        compared |= accuracy.fit_baselines(
            tested.space, training, tested.meta.provenance, seed=tested.meta.seed
        )
    scores = {name: predictors.evaluate(each, test) for name, each in compared.items()}
    if out is not None:
        _draw_file(tested, before, test, out)
    if as_json:
        console.write_json(
            {
                "predictor": predictor,
                "space": tested.space.name,
                "provenance": tested.meta.provenance,
                "n_train": tested.meta.n_train,
                "n_test": len(test),
                "measurements": len(fresh),
                "inconclusive": sum(m.status == "inconclusive" for m in fresh),
                "results": scores,
            }
            | _drawn(out)
        )
    else:
        title = f"On {len(test)} architectures that it never saw"
        told = accuracy.wide(fresh, "what they are off themselves counts as the predictor's error")
        console.show(title, accuracy.table(scores), *told, *_where(out))
    accuracy.warn(scores, tested.meta, command)


def _draw_published(device: str, fitted: PublishedFit, out: Path) -> None:
    """The figure of a published table; its learning curve ends in the predictor itself."""
    from hwbench.predictors.diagnostics import LearningPoint, learning_curve, sizes_below
    from hwbench.watch.predictor_figure import Shown, draw_predictor

    space, found = fitted.predictor.space, fitted.metrics
    seed = fitted.predictor.meta.seed
    with console.progress("learning curve"):
        sizes = sizes_below(found.n_train)
        curve = learning_curve(space, fitted.learned, fitted.tested, sizes, seed=seed)
    curve.append(LearningPoint(found.n_train, found, found.fit_seconds))
    draw_predictor(Shown(device, fitted.predictor, fitted.tested, curve), out)


def _draw_file(
    tested: LatencyPredictor, before: list[Measurement], test: TrainingSet, out: Path
) -> None:
    """The figure of a predictor's file; its learning curve is of what was measured before it."""
    from hwbench.watch.predictor_figure import Shown, draw_predictor

    device = tested.meta.provenance.device
    if not before:
        why = "no curve: the measurements that it\nlearned from are not in this store"
    elif tested.meta.sources:
        why = "no curve: its sources are other files"
    else:
        curve = _curve_of(tested, before, test)
        draw_predictor(Shown(device, tested, test, curve), out)
        return
    draw_predictor(Shown(device, tested, test, no_curve=why), out)


def _curve_of(
    tested: LatencyPredictor, before: list[Measurement], test: TrainingSet
) -> list[LearningPoint]:
    """Refitted on the stored measurements, shuffled: a session may have gone by size."""
    import numpy as np

    from hwbench.predictors.diagnostics import learning_curve, sizes_below
    from hwbench.predictors.measured import training_from

    meta = tested.meta
    usable = [m for m in before if m.workload.arch and m.latency_ns is not None]
    order = np.random.default_rng(meta.seed).permutation(len(usable))
    with console.progress("learning curve"):
        return learning_curve(
            tested.space,
            training_from(tested.space, usable)[order],
            test,
            [*sizes_below(len(usable)), len(usable)],
            seed=meta.seed,
            kind=meta.kind,
            label_seconds=np.array([m.seconds for m in usable])[order],
        )


def _drawn(out: Path | None) -> dict[str, Path]:
    return {} if out is None else {"figure": out}


def _where(out: Path | None) -> list[str]:
    return [] if out is None else [f"Written to {out}"]


def comparable(
    predictor: LatencyPredictor, store: Store, session: str | None = None, since: str | None = None
) -> list[Measurement]:
    """Measurements whose milliseconds are those of the predictor, the oldest first."""
    source = predictor.meta.provenance
    found = store.measurements(
        device=source.device,
        space=predictor.meta.space,
        fingerprint=source.fingerprint_key,
        session=session,
        since=since,
        with_bursts=False,
    )
    wanted = (source.threads, source.options, source.epoch)
    same = [m for m in found if (m.workload.threads, m.workload.options, m.epoch) == wanted]
    if not same and session is None and since is None:
        held = [(m.workload.threads, m.workload.options, m.epoch) for m in found]
        names = ("thread count", "options", "canary epoch")
        other = [n for i, n in enumerate(names) if all(h[i] != wanted[i] for h in held)]
        what = " and ".join(other or names) if found else "environment"
        raise PredictorError(
            f"the store {store.location} holds no measurement of {predictor.meta.space} on "
            f"{source.device} of the predictor's {what}: name the one that it was fitted from "
            "with --store, or fit a new predictor"
        )
    return same


def split(
    predictor: LatencyPredictor, measured: list[Measurement]
) -> tuple[list[Measurement], list[Measurement]]:
    """Those from before the predictor was fitted, and later ones of other architectures.

    A predictor doesn't list what it learned, but it can't have learned from what came later.
    """
    fitted = datetime.fromisoformat(predictor.meta.created)
    before = [m for m in measured if datetime.fromisoformat(m.created) <= fitted]
    known = {m.workload.key for m in before}
    later = [m for m in measured if datetime.fromisoformat(m.created) > fitted]
    return before, [m for m in later if m.workload.key not in known]
