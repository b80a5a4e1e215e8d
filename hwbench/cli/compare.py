"""``hwbench compare``: two models side by side, or two selections of the store."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
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
    DeviceError,
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
    b: Annotated[
        str | None, typer.Argument(metavar="B", help="The same, to be held against A.")
    ] = None,
    device: DeviceName = "cpu",
    option: DeviceOptions = None,
    threads: Threads = 1,
    cores: Cores = None,
    shape: Shapes = None,
    tolerance: Tolerance = 1.0,
    confidence: Level = 0.95,
    seconds: Seconds = 4.5,
    sessions: Sessions = 3,
    python_a: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="Interpreter that runs A, as venv/bin/python."),
    ] = None,
    python_b: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="Interpreter that runs B, which then may be A itself."),
    ] = None,
    store: StoreUrl = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Tell how two models differ in latency: slower, faster, same, or inconclusive.

    Models take turns in the same fresh processes, so that what disturbs one disturbs both. Two
    folders are compared file by file. A selection is of the store: session:ID, commit:HASH or
    tag:NAME=VALUE. Two interpreters run the same model, or a function (FILE.py:FUNCTION), in
    turns; nothing of that is stored. Exits with 1 if anything of B is slower, else with 3 if
    something stays undecided.

    Example:

    hwbench compare before.onnx after.onnx -d cpu

    hwbench compare commit:4f2a commit:91bc

    hwbench compare model.onnx --python-a old/bin/python --python-b new/bin/python
    """
    from hwbench.watch.selection import is_selection
    from hwbench.watch.trial import Effort

    if "" in (python_a, python_b):  # an unset variable of a build, say
        raise UsageError("an interpreter is empty: name one, or leave the option out")
    effort = Effort(
        seconds=seconds, sessions=sessions, tolerance=tolerance / 100, confidence=confidence
    )
    if python_a is not None or python_b is not None:
        from hwbench.cli.bench import run_on

        if is_selection(a) or is_selection(b or a):
            raise UsageError(f"{b or a}: interpreters run models, not what the store has")
        run_on(core_list(cores))
        pythons = (python_a or sys.executable, python_b or sys.executable)
        target = device_of(device, option)
        sides = _elsewhere(target, a, b or a, shapes(shape or ()), threads, pythons)
        outcomes = _under(sides, pythons, effort)
        raise typer.Exit(show(outcomes, tolerance / 100, as_json=as_json))
    if b is None:
        raise UsageError(f"{a}: with what? Name B, or two interpreters for it")
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
        effort = replace(effort, versions=_are_versions(Path(a), Path(b)))
        with opened(store) as results:
            outcomes = live(target, sides, effort, results)
    raise typer.Exit(show(outcomes, tolerance / 100, as_json=as_json))


def _are_versions(a: Path, b: Path) -> bool:
    """Whether what is held against each other bears one name, as the files of two folders do."""
    return a.is_dir() or a.name == b.name


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
    target: Device,
    a: Path,
    b: Path,
    given: Mapping[str, tuple[int, ...]],
    threads: int,
    suffixes: tuple[str, str] = (" (A)", " (B)"),
) -> list[tuple[Job, Job]]:
    """The jobs to compare: the two models, or the models that two folders both have."""
    from hwbench.cli.bench import jobs_of
    from hwbench.watch.sides import told_apart

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
    pairs = zip(jobs[::2], jobs[1::2], strict=True)
    return [told_apart(one, other, suffixes) for one, other in pairs]


def _elsewhere(
    target: Device,
    a: str,
    b: str,
    given: Mapping[str, tuple[int, ...]],
    threads: int,
    pythons: tuple[str, str],
) -> list[tuple[Job, Job]]:
    """The jobs to compare under two interpreters, their names with the runtime that differs."""
    from hwbench.devices.calls import function_job, is_function
    from hwbench.devices.interpreters import packages_of
    from hwbench.watch.sides import told_apart

    try:
        found = [packages_of(python) for python in pythons]
    except DeviceError as error:
        raise UsageError(f"{error}: name a Python 3.11 or newer") from error
    differ = [n for n in found[0] if n in found[1] and found[0][n] != found[1][n]]
    said = [", ".join(f"{name} {own[name]}" for name in differ) for own in found]
    suffixes = (f" ({said[0]})", f" ({said[1]})") if differ else (" (A)", " (B)")
    if is_function(a) != is_function(b):
        raise UsageError(f"{a} and {b}: compare a function with a function, a model with a model")
    if is_function(a):
        return [told_apart(function_job(a), function_job(b), suffixes)]
    if target.launcher(threads) is not None:
        raise UsageError(f"{target.name}: interpreters are those of this host, not of a phone")
    return _sides(target, Path(a), Path(b), given, threads, suffixes)


def _under(
    sides: Sequence[tuple[Job, Job]], pythons: tuple[str, str], effort: Effort
) -> list[Outcome]:
    from hwbench.watch.interpreters import compare_interpreters

    with console.progress("comparing") as report:
        return compare_interpreters(sides, pythons, effort, progress=report)


def live(
    target: Device,
    sides: Sequence[tuple[Job, Job]],
    effort: Effort,
    results: Store,
    tags: Mapping[str, str] | None = None,
) -> list[Outcome]:
    """Compare pairs of jobs on the device; every measurement is stored, with git's ``tags`` and
    these.
    """
    from hwbench.measure.campaign import known_epoch
    from hwbench.watch.commits import git_tags
    from hwbench.watch.trial import compare_live

    epoch = known_epoch(target, sides[0][0].workload.threads, results)
    tags = {**git_tags(), **(tags or {})}
    with console.progress("comparing") as report:
        return compare_live(
            target, sides, effort, epoch, keep=results.add, tags=tags, progress=report
        )


def show(outcomes: Sequence[Outcome], tolerance: float, *, as_json: bool) -> int:
    """Print every outcome; the exit code that they call for."""
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
    for failure in failures:
        console.error(str(failure))
    return exit_code(words, failures)


def exit_code(words: Sequence[Word], failures: Sequence[HwbenchError]) -> int:
    """1 where anything is slower, whatever failed beside it; else that of the worst failure, and 3
    where anything is undecided.
    """
    if "slower" in words:
        return EXIT_REGRESSION
    undecided = EXIT_INCONCLUSIVE if "inconclusive" in words else EXIT_OK
    return max([undecided, *(failure.exit_code for failure in failures)])


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
        "before_ms": None if comparison.before_ns is None else comparison.before_ns / 1e6,
        "confidence": comparison.confidence,
        "paired": comparison.paired,
        "processes": comparison.processes if comparison.paired else None,
        "pairs": comparison.pairs if comparison.paired else None,
        "rejected": comparison.rejected if comparison.paired else None,
        "seconds": comparison.seconds or None,
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
