"""``hwbench fit``: a predictor from stored measurements."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
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
    from hwbench.predictors import LatencyPredictor
    from hwbench.records import Measurement

#: Architectures of a space with which a fit was good on published tables (results/README.md).
ENOUGH = 100


def _kinds() -> list[str]:
    from hwbench.predictors import model_kinds

    return model_kinds()


_Out = Annotated[
    Path | None, typer.Option("-o", "--out", metavar="FILE", help="Default: DEVICE-SPACE.hwp.")
]
_Kind = Annotated[
    str, typer.Option(metavar="NAME", help="Predictor family.", autocompletion=_kinds)
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
    from hwbench.predictors import fit_predictor
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
    command = _profile_command(device, space, option or (), threads, store)
    _require_enough(measured, space, device, threads, command)
    training, provenance = training_from(learned, measured), provenance_of(measured)
    training = replace(training, sources=sources_of(learned, sources))
    predictor = fit_predictor(learned, training, provenance, seed=seed, kind=kind)
    predictor.save(path)
    baselines = accuracy.fit_baselines(learned, training, provenance, seed=seed)
    _show(path, {"predictor": predictor, **baselines}, measured, as_json=as_json)
    _warn(predictor, baselines, command)


def _profile_command(
    device: str, space: str, options: Sequence[str], threads: int, store: str | None
) -> str:
    """The command that measures more of the same, without its -n."""
    how = ["-d", device, "-s", space]
    for option in options:
        how += ["--option", option]
    if threads > 1:
        how += ["--threads", str(threads)]
    if store is not None:
        how += ["--store", store]
    return shlex.join(["hwbench", "profile", *how])


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
        raise UsageError(
            f"{distinct} measured architectures of {space} are too few, a fit needs at least "
            f"{MIN_SAMPLES}: run {command} -n {ENOUGH} first, which adds what is missing"
        )


def _show(
    path: Path,
    compared: Mapping[str, LatencyPredictor],
    measured: Sequence[Measurement],
    *,
    as_json: bool,
) -> None:
    """The predictor that was written, beside the baselines."""
    scores = {name: each.meta.cross_validated for name, each in compared.items()}
    meta = compared["predictor"].meta
    wide = sum(m.status == "inconclusive" for m in measured)
    if as_json:
        console.write_json(
            {
                "predictor": path,
                "kind": meta.kind,
                "space": meta.space,
                "provenance": meta.provenance,
                "n_train": meta.n_train,
                "measurements": len(measured),
                "inconclusive": wide,
                "cross_validated": scores,
            }
        )
        return
    repeated = "" if len(measured) == meta.n_train else f" ({len(measured)} measurements)"
    console.show(
        f"Cross-validated on {meta.n_train} architectures{repeated}", accuracy.table(scores)
    )
    if wide:
        console.show(
            f"{wide} of the {len(measured)} measurements are inconclusive: "
            "each counts with its own wide error"
        )
    console.show(f"Written to {path}")


def _warn(
    predictor: LatencyPredictor, baselines: Mapping[str, LatencyPredictor], command: str
) -> None:
    """Say where a line on MACs does as well, and what to do about it."""
    name = "MACs line"
    found, line = predictor.meta, baselines[name].meta
    error, plain = found.cross_validated.rmspe, line.cross_validated.rmspe
    if found.kind != accuracy.BASELINES[name] and error >= plain:
        console.note(
            f"no better than a {name} (RMSPE {error:.1f}% against {plain:.1f}%): {found.n_train} "
            f"architectures may be too few, {command} -n {max(ENOUGH, 2 * found.n_train)} adds more"
        )


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
        labels = ", ".join("=".join(pair) for pair in kept[0].workload.options)
        console.note(
            f"{len(found) - len(kept)} measurements of other environments left out"
            + (f", kept are those with {labels}" if labels else "")
        )
    return kept


def _agrees(measured: Measurement, options: Mapping[str, str]) -> bool:
    """Whether it was measured so. Options that are no workload's say how a device is reached."""
    stored = dict(measured.workload.options)
    return all(stored.get(name, value) == value for name, value in options.items())


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
