"""``hwbench profile``: measure a sample of a search space."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hwbench import console
from hwbench.cli.doctor import calibrated, tell_load
from hwbench.cli.fleet import Fleet, Priority, Tls, fleet_at, measure_over
from hwbench.cli.options import (
    Debug,
    DeviceName,
    DeviceOptions,
    Json,
    Seed,
    SpaceName,
    StoreUrl,
    Threads,
    choices,
    device_of,
    lines,
    opened,
    told_of,
)
from hwbench.errors import DeviceError, InconclusiveError, UnknownNameError, UsageError

if TYPE_CHECKING:
    from hwbench.devices.profile import Profile
    from hwbench.fleet.sweep import FleetSweep
    from hwbench.measure.plan import Failure
    from hwbench.records import Measurement
    from hwbench.spaces import Codes, Space, Value
    from hwbench.store import Store


_SAMPLES = 300
#: To choose a sample that fills the space takes minutes for so many, and days for ten times more.
_MOST_SAMPLES = 20_000

_Samples = Annotated[
    int | None,
    typer.Option(
        "-n",
        "--samples",
        min=1,
        max=_MOST_SAMPLES,
        metavar="N",
        help=f"How many architectures, at most {_MOST_SAMPLES:,} (default: {_SAMPLES}).",
    ),
]
_Fix = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=VALUE", help="Hold a decision of the space at a value."),
]
_File = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="These architectures, one a line; - is standard input."),
]
_Redo = Annotated[
    bool,
    typer.Option("--redo", metavar="", help="Measure again, too, what stayed inconclusive."),
]

_Seconds = Annotated[
    float | None,
    typer.Option(
        min=0.1, metavar="S", help="Wall time an architecture gets; more for surer answers."
    ),
]


def profile(
    space: SpaceName,
    samples: _Samples = None,
    device: DeviceName = "cpu",
    option: DeviceOptions = None,
    threads: Threads = 1,
    fix: _Fix = None,
    file: _File = None,
    redo: _Redo = False,
    seconds: _Seconds = None,
    seed: Seed = 0,
    fleet: Fleet = None,
    priority: Priority = 0,
    tls: Tls = None,
    store: StoreUrl = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Measure a space-filling sample of a search space.

    Of what the store holds nothing is measured again: run the same command to go on after an
    interrupt, or a larger -n to add what is missing.

    An interval that is too wide to be an answer is inconclusive: a fit counts it for little, and
    --redo measures it again. Exits with 3 if more than half stay so.

    Example:

    hwbench profile -d cpu -s ofa_mbv3 -n 300

    hwbench profile -d cpu -s ofa_mbv3 -n 300 --redo

    hwbench profile -d cpu -s ofa_mbv3 --file next.txt

    hwbench profile --fleet tcp://127.0.0.1:8786 -d pixel7 -s ofa_mbv3
    """
    from hwbench.devices.profile import Profile
    from hwbench.fleet.sweep import FleetSweep
    from hwbench.spaces import get_space

    searched = get_space(space)
    codes = _architectures(searched, samples, fix or (), file, seed)
    options = choices("--option", option or ())
    with opened(store) as results:
        if fleet is None:
            sample = Profile(searched, codes, device_of(device, option), threads)
            device = sample.device.name
            run = partial(measure, sample, results, redo=redo, seconds=seconds)
            summary, failures = _measured(sample, results, run)
        else:
            with fleet_at(fleet, tls, device, options) as (client, kind):
                sweep = FleetSweep(
                    client, kind, searched, codes, threads=threads, priority=priority
                )
                run = partial(measure_over, sweep, results, redo=redo, seconds=seconds)
                summary, failures = _measured(sweep, results, run)
    summary = {"device": device, "space": space, **summary}
    _show(summary, as_json=as_json)
    _require_answers(summary, failures, redo=redo, afar=fleet is not None)


def _architectures(
    space: Space, samples: int | None, fix: Sequence[str], file: Path | None, seed: int
) -> Codes:
    """Those of a file, or a sample."""
    from hwbench.devices.profile import sample_codes

    if file is None:
        count = _SAMPLES if samples is None else samples
        fixed = pinned(space, choices("--fix", fix))
        return sample_codes(space, count, seed=seed, fixed=fixed)
    if fix or samples is not None:
        raise UsageError("--file says which architectures: leave --samples and --fix out")
    with told_of(file):
        return named(space, lines((), file))


def _measured(
    sample: Profile | FleetSweep,
    store: Store,
    measuring: Callable[[Sequence[Measurement]], list[Failure]],
) -> tuple[dict[str, Any], list[Failure]]:
    """Measure what the store lacks; the campaign and the counts, and what failed."""
    before, began = sample.stored(store), time.monotonic()
    try:
        failures = measuring(before)
    except KeyboardInterrupt:
        held = {sample.key_of(m) for m in sample.stored(store)}
        kept = sum(key in held for key in sample.keys)
        raise KeyboardInterrupt(
            f"{kept} of {console.counted(len(sample.keys), 'architecture')} are stored, the same "
            "command goes on with the others"
        ) from None
    counts = _counts(sample, before, sample.stored(store), failures)
    took = time.monotonic() - began
    return {"campaign": sample.campaign(store), **counts, "seconds": took}, failures


def _counts(
    sample: Profile | FleetSweep,
    before: Sequence[Measurement],
    stored: Sequence[Measurement],
    failures: Sequence[Failure],
) -> dict[str, Any]:
    """Counts of architectures; of those that are one and the same model, one is measured."""
    keys, key_of = sample.keys, sample.key_of
    held = {key_of(m) for m in before}
    wide = {key_of(m) for m in stored} - {key_of(m) for m in stored if m.status != "inconclusive"}
    wide -= {key_of(failure) for failure in failures}  # tried again, and counted there
    return {
        "architectures": len(keys),
        "measured": len(stored) - len(before),
        "already_stored": sum(key in held for key in keys),
        "inconclusive": sum(key in wide for key in keys),
        "failed": len(failures),
    }


def _show(summary: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        console.write_json(summary)
    else:
        rows = [(k.replace("_", " "), v) for k, v in summary.items() if k != "campaign"]
        console.show(console.table(("profile", "<value"), rows))


def _require_answers(
    summary: Mapping[str, Any], failures: Sequence[Failure], *, redo: bool, afar: bool
) -> None:
    """Say how many have no answer; raise where the device failed, or most are without one."""
    count, wide = summary["architectures"], summary["inconclusive"]
    look = "" if afar else f" (see hwbench doctor -d {summary['device']})"
    told: list[str] = []
    if wide:
        told.append(
            f"{wide} of {count} architectures {'is' if wide == 1 else 'are'} inconclusive, with an "
            f"interval too wide to be an answer: quiet the machine{look}, then run this again"
            + (", with more --seconds" if redo else " with --redo")
        )
    if failures:
        first = failures[0]
        told.append(
            f"{len(failures)} of {count} architectures could not be measured: run the same command "
            f"again for them; the first is {first.workload.name}: {first.reason}"
        )
    if not told:
        return
    *others, last = told
    for text in others:
        console.note(text)
    if not all(isinstance(failure.error, InconclusiveError) for failure in failures):
        raise DeviceError(last)
    if 2 * (wide + len(failures)) > count:
        raise InconclusiveError(last)
    console.note(last)


def named(space: Space, texts: list[str]) -> Codes:
    """Codes of architectures by their texts; one that is named twice is measured once."""
    from hwbench.spaces.base import unique_in_order

    return unique_in_order(space.canonical(space.encode(texts)))


def measure(
    sample: Profile,
    store: Store,
    held: Sequence[Measurement],
    *,
    redo: bool = False,
    seconds: float | None = None,
) -> list[Failure]:
    """Measure and store what ``held`` lacks, which is what the store has; answers the failures."""
    from hwbench.devices.profile import PROFILE_PLAN, answered
    from hwbench.records import Measurement

    done = answered(held) if redo else {m.workload.key for m in held}
    plan = PROFILE_PLAN if seconds is None else replace(PROFILE_PLAN, seconds=seconds)
    missing = len({job.workload.key for job in sample.jobs} - done)
    if not missing:
        return []
    tell_load(sample.device, sample.threads)
    calibrated(sample.device, sample.threads, store)
    # They take turns, and a group of them ends together: a share of the time, not of them.
    what = f"time for {console.counted(missing, 'architecture')}, in turns"
    with console.progress(what) as report:
        answers = sample.run(store, plan, progress=report, redo=redo)
        return [answer for answer in answers if not isinstance(answer, Measurement)]


def pinned(space: Space, given: Mapping[str, str]) -> dict[str, Value]:
    """The values of a space's decisions that ``given`` names by their texts.

    Raises:
        UnknownNameError: there is no such decision.
        UsageError: the decision has no such value.
    """
    decisions = {decision.name: decision for decision in space.decisions}
    fixed: dict[str, Value] = {}
    for name, text in given.items():
        if name not in decisions:
            raise UnknownNameError(f"decision of {space.name}", name, decisions)
        values = {str(value): value for value in decisions[name].values}
        if text not in values:
            raise UsageError(f"--fix {name}={text}: {name} is one of {', '.join(values)}")
        fixed[name] = values[text]
    return fixed
