"""``hwbench fit``: a predictor from stored measurements."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hwbench import console
from hwbench.cli import accuracy
from hwbench.cli.options import (
    Debug,
    DeviceName,
    DeviceOptions,
    Json,
    Seed,
    Session,
    Since,
    SourceFiles,
    SpaceName,
    StoreUrl,
    Threads,
    choices,
    opened,
    require_folder,
    sources_of,
)
from hwbench.errors import HwbenchError, UsageError

if TYPE_CHECKING:
    from hwbench.predictors import LatencyPredictor, TrainingSet
    from hwbench.records import Measurement


def _kinds() -> list[str]:
    from hwbench.predictors import model_kinds

    return model_kinds()


_Out = Annotated[
    Path | None, typer.Option("-o", "--out", metavar="FILE", help="Default: DEVICE-SPACE.hwp.")
]
_Kind = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="Predictor family: cost-regression, macs-line, constant, or a plug-in's.",
        autocompletion=_kinds,
    ),
]
_Environment = Annotated[
    str | None,
    typer.Option(
        metavar="KEY", help="Only of this environment (default: the present one, else the newest)."
    ),
]


def fit(
    space: SpaceName,
    device: DeviceName = "cpu",
    option: DeviceOptions = None,
    threads: Threads = 1,
    out: _Out = None,
    kind: _Kind = "cost-regression",
    session: Session = None,
    since: Since = None,
    fingerprint: _Environment = None,
    sources: SourceFiles = None,
    seed: Seed = 0,
    store: StoreUrl = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Fit a latency predictor on stored measurements, and cross-validate it.

    With predictors of other devices as --sources, ten to twenty measurements are enough: those
    that the verb suggest names.

    Example:

    hwbench fit -d cpu -s ofa_mbv3 -o cpu.hwp

    hwbench fit -d adb -s ofa_mbv3 --sources cpu.hwp,board.hwp -o phone.hwp
    """
    from hwbench.predictors import caveats, fit_predictor
    from hwbench.predictors.measured import provenance_of, training_from
    from hwbench.spaces import get_space

    learned = get_space(space)
    path = out or Path(f"{device}-{space}.hwp")
    require_folder(path)
    with opened(store, create=False) as results:
        found = results.measurements(
            device=device,
            space=space,
            session=session,
            since=since,
            fingerprint=fingerprint,
            with_bursts=False,
        )
    measured = comparable(found, device, choices("--option", option or ()), threads)
    command = accuracy.profile_command(device, space, option or (), threads, store)
    _require_enough(measured, space, device, threads, command)
    if any(m.status == "observed_only" for m in measured):
        accuracy.note_observed(threads)
    training, provenance = training_from(learned, measured), provenance_of(measured)
    training = replace(training, sources=sources_of(learned, sources))
    predictor = fit_predictor(learned, training, provenance, seed=seed, kind=kind)
    predictor.save(path)
    baselines = accuracy.fit_baselines(learned, training, provenance, seed=seed)
    compared = {"predictor": predictor, **baselines}
    _show(path, compared, measured, range_of(predictor, training), as_json=as_json)
    if training.sources is not None and not predictor.meta.sources:
        console.note(
            f"{', '.join(training.sources.names)}: unlike this device, by its own measurements; "
            "fitted without"
        )
    if kind not in accuracy.BASELINES.values():
        for line in caveats.coarse_timer(training) + caveats.few(learned, predictor.meta.n_train):
            console.note(line)
    scores = {"predictor": predictor, **baselines}
    accuracy.warn({n: p.meta.cross_validated for n, p in scores.items()}, predictor.meta, command)


def _require_enough(
    measured: Sequence[Measurement], space: str, device: str, threads: int, command: str
) -> None:
    """UsageError with the next step where too few architectures were measured for a fit."""
    from hwbench.predictors.data import MIN_SAMPLES

    if not measured:
        raise UsageError(
            f"no measurement of {space} on {device} with {threads} threads is stored: "
            f"run {command} first"
        )
    distinct = len({m.workload.arch for m in measured if m.latency_ns is not None})
    if distinct < MIN_SAMPLES:
        are = "is" if distinct == 1 else "are"
        raise UsageError(
            f"{console.counted(distinct, 'measured architecture')} of {space} {are} too few, a fit "
            f"needs at least {MIN_SAMPLES}: run {command} -n {accuracy.ENOUGH} first, which adds "
            "what is missing"
        )


def _show(
    path: Path,
    compared: Mapping[str, LatencyPredictor],
    measured: Sequence[Measurement],
    range_ms: tuple[float, float],
    *,
    as_json: bool,
) -> None:
    """The predictor that was written, beside the baselines."""
    from hwbench.search.answering import rounded

    scores = {name: each.meta.cross_validated for name, each in compared.items()}
    meta = compared["predictor"].meta
    if as_json:
        console.write_json(
            {
                "predictor": path,
                "kind": meta.kind,
                "space": meta.space,
                "provenance": meta.provenance,
                "n_train": meta.n_train,
                "measurements": len(measured),
                "inconclusive": sum(m.status == "inconclusive" for m in measured),
                "range_ms": list(range_ms),
                "cross_validated": scores,
            }
        )
        return
    repeated = "" if len(measured) == meta.n_train else f" ({len(measured)} measurements)"
    console.show(
        f"Cross-validated on {meta.n_train} architectures{repeated}", accuracy.table(scores)
    )
    told = accuracy.wide(measured, "each counts with its own wide error")
    sessions = len({m.session for m in measured})
    if sessions > 1:
        told.append(
            f"Measured in {sessions} sessions: what generate --measure and verify measured counts "
            "beside profile's (hwbench log lists them, --session takes one)"
        )
    least, most = rounded(range_ms[0], up=True), rounded(range_ms[1], up=False)
    told.append(f"Of these architectures the fastest keeps {least} ms, the slowest {most} ms")
    console.show(*told, f"Written to {path}")


def range_of(predictor: LatencyPredictor, training: TrainingSet) -> tuple[float, float]:
    """The least and the largest bound in ms of what was measured: budgets that can be asked for.

    A profile begins with the smallest and the largest architecture of what it was told to sample.
    """
    from hwbench.predictors.oracle import CONFIDENCE

    upper = predictor.upper(training.codes, CONFIDENCE)
    return float(upper.min()), float(upper.max())


def comparable(
    found: Sequence[Measurement], device: str, options: Mapping[str, str], threads: int
) -> list[Measurement]:
    """Those of one environment, one set of options and one canary epoch, whose times compare.

    The environment is the present one if any was measured in it, else the newest: others may
    have been imported since. The device is asked where there are several, or options that may
    tell. What is left out is told. Raises UsageError for options that the device does not have.
    """
    fitting = [m for m in found if m.workload.threads == threads and _agrees(m, options)]
    if not fitting:
        return []
    own = fitting
    if options or len({m.fingerprint.key for m in fitting}) > 1:
        present = present_environment(device, options, threads)
        own = [m for m in fitting if m.fingerprint.key == present]
    wanted = _environment((own or fitting)[-1])
    kept = [m for m in fitting if _environment(m) == wanted]
    if len(kept) < len(found):
        console.note(_left_out(found, kept))
    return kept


def _left_out(found: Sequence[Measurement], kept: Sequence[Measurement]) -> str:
    """How many measurements do not compare with those that are kept, and by what."""
    own, ids = kept[0], {id(m) for m in kept}
    left = [m for m in found if id(m) not in ids]
    labels = ", ".join("=".join(pair) for pair in own.workload.options)
    ways: dict[str, tuple[Callable[[Measurement], object], str]] = {
        "environments": (lambda m: m.fingerprint.key, ""),
        "thread counts": (lambda m: m.workload.threads, f"--threads {own.workload.threads}"),
        "options": (lambda m: m.workload.options, labels),
        "canary epochs": (lambda m: m.epoch, f"canary epoch {own.epoch}"),
    }
    differing = {
        name: label for name, (of, label) in ways.items() if any(of(m) != of(own) for m in left)
    }
    named = ", ".join(label for label in differing.values() if label)
    return f"{len(left)} measurements of other {' or '.join(differing)} left out" + (
        f", kept are those with {named}" if named else ""
    )


def _agrees(measured: Measurement, options: Mapping[str, str]) -> bool:
    """Whether it was measured so. Options that are no workload's say how a device is reached."""
    from hwbench.devices.options import says

    stored = dict(measured.workload.options)
    return all(says(value, stored.get(name, value)) for name, value in options.items())


def _environment(measured: Measurement) -> tuple[object, ...]:
    return measured.fingerprint.key, measured.workload.options, measured.epoch


def present_environment(device: str, options: Mapping[str, str], threads: int) -> str | None:
    """The key of the device's fingerprint now; None where it is not at hand.

    Raises UsageError for options that it does not have.
    """
    from hwbench.devices import get_device

    try:
        return get_device(device, options).fingerprint(threads).key
    except HwbenchError as error:
        if options and isinstance(error, UsageError):
            raise
        return None
