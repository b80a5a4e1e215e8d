"""``hwbench profile``: measure a sample of a search space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hwbench import console
from hwbench.cli.doctor import calibrated
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
    from hwbench.measure.plan import Failure
    from hwbench.records import Measurement
    from hwbench.spaces import Codes, Space, Value
    from hwbench.store import Store


_SAMPLES = 300


_Samples = Annotated[
    int | None,
    typer.Option(
        "-n", "--samples", min=1, metavar="N", help="How many architectures (default: 300)."
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
    """
    from hwbench.devices.profile import Profile, sample_profile
    from hwbench.spaces import get_space

    target, searched = device_of(device, option), get_space(space)
    if file is None:
        fixed = pinned(searched, choices("--fix", fix or ()))
        count = _SAMPLES if samples is None else samples
        sample = sample_profile(target, searched, count, seed=seed, threads=threads, fixed=fixed)
    elif fix or samples is not None:
        raise UsageError("--file says which architectures: leave --samples and --fix out")
    else:
        with told_of(file):
            codes = named(searched, lines((), file))
        sample = Profile(searched, codes, target, threads)
    with opened(store) as results:
        before = sample.stored(results)
        failures = measure(sample, results, before, redo=redo, seconds=seconds)
        campaign, stored = sample.campaign(results), sample.stored(results)
    summary = {"device": target.name, "space": space, "campaign": campaign}
    summary |= _counts(sample, before, stored, failures)
    _show(summary, as_json=as_json)
    _require_answers(summary, failures, redo=redo)


def _counts(
    sample: Profile,
    before: Sequence[Measurement],
    stored: Sequence[Measurement],
    failures: Sequence[Failure],
) -> dict[str, Any]:
    """Counts of architectures; of those that are one and the same model, one is measured."""
    from hwbench.devices.profile import answered

    keys = [job.workload.key for job in sample.jobs]
    held = {m.workload.key for m in before}
    wide = {m.workload.key for m in stored} - answered(stored)
    return {
        "architectures": len(keys),
        "measured": len(stored) - len(before),
        "already_stored": sum(key in held for key in keys),
        "inconclusive": sum(key in wide for key in keys),
        "failed": len(failures),
        "seconds": sum(m.seconds for m in stored),
    }


def _show(summary: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        console.write_json(summary)
    else:
        rows = [(name.replace("_", " "), value) for name, value in summary.items()]
        console.show(console.table(("profile", "<value"), rows))


def _require_answers(
    summary: Mapping[str, Any], failures: Sequence[Failure], *, redo: bool
) -> None:
    """Say how many have no answer; raise where the device failed, or most are without one."""
    count, wide = summary["architectures"], summary["inconclusive"]
    device = summary["device"]
    told: list[str] = []
    if wide:
        told.append(
            f"{wide} of {count} architectures {'is' if wide == 1 else 'are'} inconclusive, with an "
            "interval too wide to be an answer: quiet the machine (see hwbench doctor -d "
            f"{device}), then run this again"
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
    try:
        calibrated(sample.device, sample.threads, store)
        with console.progress(f"measuring {missing} architecture{'s' * (missing != 1)}") as report:
            answers = sample.run(store, plan, progress=report, redo=redo)
            return [answer for answer in answers if not isinstance(answer, Measurement)]
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            "what was finished is stored, the same command goes on from there"
        ) from None


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
