"""``hwbench profile``: measure a sample of a search space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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


def profile(
    space: SpaceName,
    samples: _Samples = None,
    device: DeviceName = "cpu",
    option: DeviceOptions = None,
    threads: Threads = 1,
    fix: _Fix = None,
    file: _File = None,
    seed: Seed = 0,
    store: StoreUrl = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Measure a space-filling sample of a search space; run it again to go on where it stopped.

    Example:

    hwbench profile -d cpu -s ofa_mbv3 -n 300

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
        sample = Profile(searched, named(searched, lines((), file)), target, threads)
    count = len(sample.codes)
    with opened(store) as results:
        held = len(results.done(sample.campaign(results)))
        failures = measure(sample, results, f"measuring {count - held} architectures")
        campaign = sample.campaign(results)
        stored = results.measurements(plan=campaign, with_bursts=False)
    head = {"device": target.name, "space": space, "campaign": campaign, "architectures": count}
    _show(head | _counts(stored, held, failures), as_json=as_json)
    _require_answers(stored, failures, count)


def _counts(
    stored: Sequence[Measurement], held: int, failures: Sequence[Failure]
) -> dict[str, object]:
    return {
        "measured": len(stored) - held,
        "already_stored": held,
        "inconclusive": sum(m.status == "inconclusive" for m in stored),
        "failed": len(failures),
        "seconds": sum(m.seconds for m in stored),
    }


def _show(summary: Mapping[str, object], *, as_json: bool) -> None:
    if as_json:
        console.write_json(summary)
    else:
        rows = [(name.replace("_", " "), value) for name, value in summary.items()]
        console.show(console.table(("profile", "<value"), rows))


def _require_answers(
    stored: Sequence[Measurement], failures: Sequence[Failure], count: int
) -> None:
    """Raise where an architecture failed, or where no interval is an answer."""
    if failures:
        first = failures[0]
        busy = all(isinstance(failure.error, InconclusiveError) for failure in failures)
        raise (InconclusiveError if busy else DeviceError)(
            f"{len(failures)} of {count} architectures could not be measured, the first is "
            f"{first.workload.name}: {first.error}; run the same command again for them"
        )
    if all(m.status == "inconclusive" for m in stored):
        raise InconclusiveError(
            "every interval is too wide to be an answer: quiet the machine, and measure another "
            "sample with --seed"
        )


def named(space: Space, texts: list[str]) -> Codes:
    """Codes of architectures by their texts; one that is named twice is measured once."""
    from hwbench.spaces.base import unique_in_order

    return unique_in_order(space.canonical(space.encode(texts)))


def measure(sample: Profile, store: Store, label: str) -> list[Failure]:
    """Measure and store what the store does not hold yet; answers the failures."""
    from hwbench.records import Measurement

    try:
        calibrated(sample.device, sample.threads, store)
        with console.progress(label) as report:
            answers = sample.run(store, progress=report)
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
