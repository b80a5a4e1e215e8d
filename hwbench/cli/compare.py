"""``hwbench compare``: two models side by side, or two selections of the store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hwbench import console
from hwbench.cli.options import (
    Cores,
    Debug,
    DeviceName,
    DeviceOptions,
    Json,
    Shapes,
    StoreUrl,
    Threads,
    core_list,
    device_of,
    opened,
    shapes,
)
from hwbench.errors import (
    EXIT_INCONCLUSIVE,
    EXIT_OK,
    EXIT_REGRESSION,
    HwbenchError,
    UsageError,
)

if TYPE_CHECKING:
    from rich.table import Table

    from hwbench.devices.base import Device
    from hwbench.measure.jobs import Job
    from hwbench.store import Store
    from hwbench.watch.comparison import Comparison, Word
    from hwbench.watch.trial import Effort, Outcome

Tolerance = Annotated[
    float,
    typer.Option(min=0.0, max=50, metavar="PCT", help="A smaller difference is none."),
]
Level = Annotated[
    float,
    typer.Option(min=0.5, max=0.9999, metavar="P", help="Confidence of verdicts and intervals."),
]
Seconds = Annotated[
    float,
    typer.Option(min=0.1, max=600, metavar="S", help="Time for a model in each session."),
]
Sessions = Annotated[
    int,
    typer.Option(min=1, max=20, metavar="N", help="At most so many: more while in doubt."),
]


def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="A model, a folder, or a selection.")],
    b: Annotated[str, typer.Argument(metavar="B", help="The same, to be held against A.")],
    device: DeviceName = "cpu",
    option: DeviceOptions = None,
    threads: Threads = 1,
    cores: Cores = None,
    shape: Shapes = None,
    tolerance: Tolerance = 1.0,
    confidence: Level = 0.95,
    seconds: Seconds = 5.0,
    sessions: Sessions = 3,
    store: StoreUrl = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Tell how two models differ in latency: slower, faster, same, or inconclusive.

    Models take turns in the same fresh processes, so that what disturbs one disturbs both. Two
    folders are compared file by file. A selection is of the store: session:ID, commit:HASH or
    tag:NAME=VALUE. Exits with 1 if anything of B is slower, else with 3 if something stays
    undecided.

    Example:

    hwbench compare before.onnx after.onnx -d cpu

    hwbench compare commit:4f2a commit:91bc
    """
    from hwbench.watch.selection import is_selection
    from hwbench.watch.trial import Effort

    if is_selection(a) != is_selection(b):
        raise UsageError(f"{a} and {b}: compare two models, two folders, or two selections")
    if is_selection(a):
        with opened(store, create=False) as results:
            outcomes = _stored(results, a, b, confidence)
    else:
        from hwbench.cli.bench import run_on

        target = device_of(device, option)
        run_on(core_list(cores))
        sides = _sides(target, Path(a), Path(b), shapes(shape or ()), threads)
        effort = Effort(
            seconds=seconds,
            sessions=sessions,
            tolerance=tolerance / 100,
            confidence=confidence,
        )
        with opened(store) as results:
            outcomes = live(target, sides, effort, results)
    raise typer.Exit(show(outcomes, tolerance / 100, as_json=as_json))


def _stored(results: Store, a: str, b: str, confidence: float) -> list[Outcome]:
    from hwbench.watch.selection import compare_selections, selected

    everything = results.measurements(with_bursts=False)
    epochs = {epoch.id: epoch for epoch in results.epochs()}
    found, notes = compare_selections(
        selected(everything, a), selected(everything, b), epochs, confidence=confidence
    )
    for note in notes:
        console.note(note)
    return list(found)


def _sides(
    target: Device, a: Path, b: Path, given: Mapping[str, tuple[int, ...]], threads: int
) -> list[tuple[Job, Job]]:
    """The jobs to compare: the two models, or the models that two folders both have."""
    from hwbench.cli.bench import jobs_of

    if a.is_dir() != b.is_dir():
        raise UsageError(f"{a} and {b}: compare a folder with a folder, a file with a file")
    paths = [(a, b)]
    if a.is_dir():
        names = sorted(
            path.name for path in a.glob(f"*{target.suffix}") if (b / path.name).is_file()
        )
        if not names:
            raise UsageError(f"{a} and {b} have no *{target.suffix} file of the same name")
        paths = [(a / name, b / name) for name in names]
    jobs = jobs_of(target, [path for side in paths for path in side], given, threads)
    return [told_apart(one, other) for one, other in zip(jobs[::2], jobs[1::2], strict=True)]


def told_apart(a: Job, b: Job, suffixes: tuple[str, str] = (" (A)", " (B)")) -> tuple[Job, Job]:
    """The two jobs; where they bear one name, A's and B's."""
    from dataclasses import replace

    if a.workload.name != b.workload.name:
        return a, b
    named = [
        replace(job, workload=replace(job.workload, name=job.workload.name + suffix))
        for job, suffix in zip((a, b), suffixes, strict=True)
    ]
    return named[0], named[1]


def live(
    target: Device, sides: Sequence[tuple[Job, Job]], effort: Effort, results: Store
) -> list[Outcome]:
    """Compare pairs of jobs on the device; every measurement is stored."""
    from hwbench.measure.campaign import known_epoch
    from hwbench.watch.commits import git_tags
    from hwbench.watch.trial import compare_live

    epoch = known_epoch(target, sides[0][0].workload.threads, results)
    tags = git_tags()
    with console.progress("comparing") as report:
        return compare_live(
            target, sides, effort, epoch, keep=results.add, tags=tags, progress=report
        )


def show(outcomes: Sequence[Outcome], tolerance: float, *, as_json: bool) -> int:
    """Print every outcome; the exit code that they call for. A lone failure is raised."""
    from hwbench.watch.comparison import Comparison, sentence, verdicts

    found = [outcome for outcome in outcomes if isinstance(outcome, Comparison)]
    failures = [outcome for outcome in outcomes if isinstance(outcome, HwbenchError)]
    words = verdicts(found, tolerance)
    if as_json:
        entries = [to_json(c, word) for c, word in zip(found, words, strict=True)]
        console.write_json({"comparisons": entries, "errors": [str(e) for e in failures]})
    else:
        for comparison, word in zip(found, words, strict=True):
            if len(found) == 1:
                console.write_text(console.printable(sentence(comparison, word)) + "\n")
        if len(found) > 1:
            console.show(to_table(found, words))
    for failure in failures[1:]:
        console.error(str(failure))
    if failures:
        raise failures[0]
    return exit_code(words)


def exit_code(words: Sequence[Word]) -> int:
    """1 where anything is slower, else 3 where anything is undecided."""
    if "slower" in words:
        return EXIT_REGRESSION
    return EXIT_INCONCLUSIVE if "inconclusive" in words else EXIT_OK


def to_json(comparison: Comparison, word: Word) -> dict[str, Any]:
    """One entry of ``comparisons``: the change of B against A in per cent, with its interval."""
    low, high = comparison.interval
    return {
        "a": comparison.a,
        "b": comparison.b,
        "verdict": word,
        "change_pct": 100 * (comparison.ratio - 1),
        "change_pct_low": 100 * (low - 1),
        "change_pct_high": 100 * (high - 1),
        "confidence": comparison.confidence,
        "paired": comparison.paired,
        "processes": comparison.processes if comparison.paired else None,
        "pairs": comparison.pairs if comparison.paired else None,
        "rejected": comparison.rejected if comparison.paired else None,
        "seconds": comparison.seconds,
    }


def to_table(comparisons: Sequence[Comparison], words: Sequence[Word]) -> Table:
    """The same as a table of at most 80 columns."""
    rows = []
    for comparison, word in zip(comparisons, words, strict=True):
        low, high = comparison.interval
        rows.append(
            (
                comparison.b,
                word,
                f"{100 * (comparison.ratio - 1):+.1f}%",
                f"{100 * (low - 1):+.1f}",
                f"{100 * (high - 1):+.1f}",
                comparison.processes if comparison.paired else None,
                comparison.rejected if comparison.paired else None,
            )
        )
    headings = ("model", "<verdict", "change", "from", "to", "processes", "rejected")
    return console.table(headings, rows)
