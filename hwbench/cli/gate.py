"""``hwbench gate``: fail a build on a latency regression, and on nothing else."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from hwbench import console
from hwbench.cli.bench import jobs_of, require_distinct, run_on
from hwbench.cli.compare import Seconds, Sessions, Tolerance, exit_code, to_json
from hwbench.cli.fleet import Fleet, Priority, Tls, fleet_models
from hwbench.cli.gate_fleet import AllOver
from hwbench.cli.judges import Here, ruled_all
from hwbench.cli.options import (
    Cores,
    Debug,
    DeviceName,
    DeviceOptions,
    Json,
    Seed,
    Shapes,
    StoreUrl,
    Threads,
    core_list,
    device_of,
    opened,
    shapes,
)
from hwbench.errors import EXIT_INCONCLUSIVE, EXIT_OK, EXIT_USAGE, HwbenchError, UsageError

if TYPE_CHECKING:
    from hwbench.watch.calibration import Calibration
    from hwbench.watch.gate import Ruling, Settled

    Found = Ruling | Settled | HwbenchError


_SECONDS_ALONE = 2.0


class GateGroup(TyperGroup):
    """``gate MODEL`` is ``gate check MODEL``, and so is its help."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put in the verb that is not said."""
        if args and args[0] not in self.commands:
            args = ["check", *args]
        return super().parse_args(ctx, args)


Confidence = Annotated[
    float,
    typer.Option(min=0.5, max=0.9999, metavar="P", help="Two-sided: .98 is 1 % of false alarms."),
]


def check(
    models: Annotated[list[Path], typer.Argument(metavar="MODEL", help="Model files.")],
    baseline: Annotated[
        str,
        typer.Option(
            metavar="REF",
            help="A commit, branch or tag of git; a file or folder; or history: what the store "
            "has of each model on this device.",
        ),
    ],
    device: DeviceName = "cpu",
    option: DeviceOptions = None,
    threads: Threads = 1,
    cores: Cores = None,
    shape: Shapes = None,
    tolerance: Tolerance = 1.0,
    confidence: Confidence = 0.98,
    seconds: Annotated[
        float | None,
        typer.Option(
            min=0.1,
            max=600,
            metavar="S",
            help="Time for a model in each session [4.5; 2 where the store has its baseline].",
        ),
    ] = None,
    sessions: Sessions = 3,
    summary: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Add a summary in Markdown, as $GITHUB_STEP_SUMMARY."),
    ] = None,
    allow_inconclusive: Annotated[
        bool,
        typer.Option(
            "--allow-inconclusive",
            help="Exit 0, not 3, where some models stay undecided and none is slower.",
        ),
    ] = False,
    fleet: Fleet = None,
    priority: Priority = 0,
    tls: Tls = None,
    store: StoreUrl = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Fail on a latency regression: exit 1 if a model is slower, 3 if that stays undecided.

    A baseline that git or a folder has is run beside the model; a file that is the same in git, or
    new there, needs no measurement. Any other model is measured and held against what the store
    has of it, on the same device, since its level last changed. An alarm is measured again, and
    stands where the second time is beyond the tolerance as well.

    hwbench gate calibrate tells how small a regression that sees on your device.

    Example:

    hwbench gate model.onnx --baseline origin/main --summary "$GITHUB_STEP_SUMMARY"

    hwbench gate *.onnx --baseline origin/main --fleet tcp://127.0.0.1:8786 -d pixel7
    """
    from hwbench.watch.baselines import baseline_files
    from hwbench.watch.gate import GATE

    effort = replace(
        GATE,
        seconds=seconds or GATE.seconds,
        sessions=sessions,
        tolerance=tolerance / 100,
        confidence=confidence,
    )
    alone_s = seconds or _SECONDS_ALONE
    require_distinct(models)
    if summary is not None:
        _require_summary(summary)
    given = shapes(shape or ())
    target = device_of(device, option) if fleet is None else None
    if target is not None:
        run_on(core_list(cores))
    with opened(store) as results, baseline_files(baseline, models) as baselines:
        if target is not None:
            here = Here(target, effort, results)
            found = ruled_all(here, models, baselines, baseline, given, threads, alone_s)
        else:
            with fleet_models(fleet or "", tls, device, option, cores, threads, priority) as far:
                over = AllOver(far, effort, results)
                found = ruled_all(over, models, baselines, baseline, given, threads, alone_s)
    code = _show(found, baseline, as_json=as_json, allow_inconclusive=allow_inconclusive)
    if summary is not None:
        try:
            with summary.open("a", encoding="utf-8") as out:
                out.write(markdown(found, baseline))
        except OSError as error:  # the verdict stands
            console.error(f"cannot add to {summary}: {error.strerror}")
            code = code or EXIT_USAGE
    raise typer.Exit(code)


def _require_summary(path: Path) -> None:
    """UsageError where no summary could be added to a file, before anything is measured."""
    if path.is_dir():  # as an empty name is, which an unset variable leaves
        raise UsageError(f"summary {str(path)!r} is a folder, or was empty: name a file")
    place = path if path.exists() else path.parent
    if not os.access(place, os.W_OK):
        raise UsageError(f"summary {path}: {place} cannot be written, or is not there")


def _show(found: Sequence[Found], baseline: str, *, as_json: bool, allow_inconclusive: bool) -> int:
    """Print what was found of each model; the exit code."""
    from hwbench.watch.comparison import sentence
    from hwbench.watch.gate import Ruling, Settled

    rulings = [each for each in found if isinstance(each, Ruling)]
    failures = [each for each in found if isinstance(each, HwbenchError)]
    settled = [each for each in found if isinstance(each, Settled)]
    if as_json:
        entries = [ruling_json(ruling) for ruling in rulings]
        errors = [str(failure) for failure in failures]
        names = {w: [e.name for e in settled if e.word == w] for w in ("unchanged", "new")}
        console.write_json({"gate": entries, **names, "errors": errors})
    for ruling in rulings:
        if not as_json:
            line = f"{ruling.word.upper()}: {sentence(ruling.comparison, ruling.word)}"
            console.write_text(console.printable(line) + "\n")
        if ruling.alarm is not None:
            by = 100 * (ruling.alarm.ratio - 1)
            console.note(f"{ruling.name}: measured again after an alarm of {by:+.1f} %")
        for note in ruling.notes:
            console.note(f"{ruling.name}: {note}")
    for each in settled if not as_json else ():
        has = "the file that" if each.word == "unchanged" else "no file that"
        line = f"{each.word.upper()}: {each.name} is {has} {baseline} has: nothing to measure"
        console.write_text(console.printable(line) + "\n")
    for failure in failures:
        console.error(str(failure))
    words = [ruling.word for ruling in rulings]
    if allow_inconclusive:
        words = [word for word in words if word != "inconclusive"]
        failures = [each for each in failures if each.exit_code != EXIT_INCONCLUSIVE]
    return exit_code(words, failures)


def ruling_json(ruling: Ruling) -> dict[str, Any]:
    """One entry of ``gate``."""
    alarm = None if ruling.alarm is None else 100 * (ruling.alarm.ratio - 1)
    return {
        "name": ruling.name,
        **to_json(ruling.comparison, ruling.word),
        "first_alarm_pct": alarm,
        "notes": list(ruling.notes),
    }


def markdown(found: Sequence[Found], baseline: str) -> str:
    """A summary as a table of GitHub's Markdown; names are escaped."""
    from hwbench.watch.gate import Ruling, Settled

    lines = [
        f"### Latency against {_escaped(baseline)}",
        "",
        "| model | verdict | ms | change | interval | basis |",
        "| --- | --- | ---: | ---: | ---: | --- |",
    ]
    for each in found:
        if isinstance(each, Settled):
            why = "the same file" if each.word == "unchanged" else "no such file there"
            lines.append(f"| {_escaped(each.name)} | **{each.word}** | | | | {why} |")
        if not isinstance(each, Ruling):
            continue
        comparison = each.comparison
        low, high = (100 * (end - 1) for end in comparison.interval)
        paired = comparison.paired
        basis = f"{comparison.processes} processes" if paired else _escaped(comparison.a)
        again = ", measured twice" if each.alarm is not None else ""
        ms = None if comparison.before_ns is None else comparison.before_ns / 1e6
        span = "" if ms is None else f"{ms:.4g} to {ms * comparison.ratio:.4g}"
        lines.append(
            f"| {_escaped(each.name)} | **{each.word}** | {span} "
            f"| {100 * (comparison.ratio - 1):+.1f} % "
            f"| {low:+.1f} to {high:+.1f} % | {basis}{again} |"
        )
    failures = [each for each in found if isinstance(each, HwbenchError)]
    lines += [f"\n:warning: {_escaped(str(failure))}" for failure in failures]
    return "\n".join(lines) + "\n\n"


def _escaped(text: str) -> str:
    """Text that Markdown shows as it is."""
    plain = console.printable(text).replace("&", "&amp;").replace("<", "&lt;")
    return "".join(f"\\{c}" if c in "\\`*_[]|#!~$@" else c for c in plain)


def calibrate(
    models: Annotated[list[Path], typer.Argument(metavar="MODEL", help="Model files.")],
    device: DeviceName = "cpu",
    option: DeviceOptions = None,
    threads: Threads = 1,
    cores: Cores = None,
    shape: Shapes = None,
    tolerance: Tolerance = 1.0,
    confidence: Confidence = 0.98,
    seconds: Seconds = 4.5,
    runs: Annotated[
        int, typer.Option(min=1, max=1000, metavar="N", help="Sessions, of two comparisons each.")
    ] = 5,
    draws: Annotated[
        int, typer.Option(min=10, max=100_000, metavar="N", help="Comparisons drawn from them.")
    ] = 500,
    seed: Seed = 0,
    store: StoreUrl = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Hold models against themselves: how often the gate would cry wolf, and what it sees.

    Prints how many comparisons look like an alarm, so that the gate would measure again, live and
    drawn anew from the processes of the live ones, and the upper end of that rate's 95 % interval;
    how many false alarms it would raise then; and the smallest regression that it would find with
    80 % power, by a session and another one.

    Example:

    hwbench gate calibrate model.onnx --runs 10
    """
    from hwbench.measure.campaign import known_epoch
    from hwbench.watch.calibration import calibrate_gate
    from hwbench.watch.gate import GATE

    target = device_of(device, option)
    run_on(core_list(cores))
    effort = replace(
        GATE,
        seconds=seconds,
        sessions=1,
        tolerance=tolerance / 100,
        confidence=confidence,
        seed=seed,
    )
    entries = []
    with opened(store) as results, console.stages() as report:
        epoch = known_epoch(target, threads, results)
        for job in jobs_of(target, models, shapes(shape or ()), threads):
            name = job.workload.name
            found = calibrate_gate(
                target, job, runs, draws, effort, epoch, progress=_stage(report, name)
            )
            entries.append(calibration_json(name, found))
    if as_json:
        console.write_json({"calibration": entries})
        raise typer.Exit(EXIT_OK)
    rows = [
        (
            e["name"],
            f"{e['live_again']} of {e['live']}",
            f"{100 * e['again_rate_at_most']:.1f}%",
            f"{e['drawn_again']} of {e['drawn']}",
            f"{e['alarms']} of {e['rulings']}",
            None if e["smallest_pct"] is None else f"{e['smallest_pct']:.1f}%",
        )
        for e in entries
    ]
    headings = ("model", "again", "at most", "drawn anew", "false alarms", "smallest seen")
    console.show(console.table(headings, rows))


def _stage(report: console.StageReport, name: str) -> Callable[[float], None]:
    return lambda share: report(f"{name} against itself", share)


def calibration_json(name: str, found: Calibration) -> dict[str, Any]:
    """One entry of ``calibration``; the rate is the upper end of its 95 % interval, of the live."""
    smallest, (alarms, rulings) = found.smallest(), found.raised()
    return {
        "name": name,
        "live": len(found.live),
        "live_again": found.again(found.live),
        "again_rate_at_most": found.most_likely(found.live),
        "drawn": len(found.drawn),
        "drawn_again": found.again(found.drawn),
        "rulings": rulings,
        "alarms": alarms,
        "smallest_pct": None if smallest is None else 100 * smallest,
        "tolerance_pct": 100 * found.tolerance,
        "seconds": sum(c.seconds for c in found.live),
    }
