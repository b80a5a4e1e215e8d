"""``hwbench bench``: measure model files."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol

import typer

from hwbench import console
from hwbench.cli.doctor import calibrated, tell_load
from hwbench.cli.fleet import Fleet, Priority, Tls, fleet_models, on_devices
from hwbench.cli.options import (
    Cores,
    Debug,
    DeviceName,
    DeviceOptions,
    Json,
    Shapes,
    StoreUrl,
    Threads,
    choices,
    core_list,
    device_of,
    opened,
    shapes,
)
from hwbench.errors import (
    DeviceError,
    InconclusiveError,
    ModelError,
    UnknownNameError,
    UsageError,
)

if TYPE_CHECKING:
    from hwbench.devices.base import Device
    from hwbench.devices.cuda.models import TorchModule
    from hwbench.devices.models import Model
    from hwbench.fleet.models import FleetModels
    from hwbench.measure.jobs import Job
    from hwbench.measure.ops import OpProfile
    from hwbench.measure.plan import Failure, Plan
    from hwbench.records import Measurement
    from hwbench.store import Store


def bench(
    models: Annotated[
        list[Path],
        typer.Argument(
            metavar="MODEL",
            help="Files (.onnx, .tflite, manifest.json of a network in stages), or module:function "
            "that makes a torch module.",
        ),
    ],
    device: DeviceName = "cpu",
    option: DeviceOptions = None,
    threads: Threads = 1,
    cores: Cores = None,
    shape: Shapes = None,
    precision: Annotated[
        float,
        typer.Option(min=0.01, max=50, metavar="PCT", help="Stop at an interval of ± this many %."),
    ] = 0.5,
    seconds: Annotated[
        float,
        typer.Option(
            min=0.01, metavar="S", help="Time for a model; 100 runs of a slow one may take more."
        ),
    ] = 1.0,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Images for a manifest.json: as --data of search s2dnas."
        ),
    ] = None,
    profile_ops: Annotated[
        bool,
        typer.Option("--profile-ops", metavar="", help="Also time each operator, in its own pass."),
    ] = False,
    tag: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="A tag, or a note, to keep with each result."),
    ] = None,
    fleet: Fleet = None,
    priority: Priority = 0,
    tls: Tls = None,
    store: StoreUrl = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Measure models: undisturbed latency with its interval, and what was observed.

    The first run on a device calibrates its canaries before it measures, which takes from some
    seconds to two minutes, once.

    A manifest's network is timed over the test images of --data, several ones in turns.
    Exits with 3 if a model's interval stays too wide to be an answer: its latency_ms is null.
    docs/glossary.md explains the words.

    Example:

    hwbench bench a.onnx b.onnx -d cpu --threads 1 --shape x=1,3,224,224

    hwbench bench *.tflite --fleet tcp://127.0.0.1:8786 -d pixel7
    """
    from hwbench.cli.bench_streams import bench_streams, is_manifest
    from hwbench.measure.plan import Plan
    from hwbench.watch.commits import git_tags

    if fleet is not None:
        _require_files(models, profile_ops)
    target = device_of(device, option) if fleet is None else None
    if target is not None:
        run_on(core_list(cores))
    if any(map(is_manifest, models)):
        _require_streamed(
            device,
            option=option,
            shape=shape,
            profile_ops=profile_ops,
            tag=tag,
            store=store,
        )
        bench_streams(models, data, threads, seconds, as_json=as_json)
        return
    if data is not None:
        raise UsageError("--data goes with a manifest.json: other models take random inputs")
    require_distinct(models)
    plan = Plan(
        seconds=seconds,
        precision=precision / 100,
        memory=True,
        tags={**git_tags(), **choices("--tag", tag or ())},
    )
    given, profiles = shapes(shape or ()), None
    if target is None:
        queued = fleet_models(fleet or "", tls, device, option, cores, threads, priority)
        with queued as far, opened(store) as results:
            answers = bench_over(far, jobs_of(far, models, given, threads), plan, results)
    else:
        jobs = jobs_of(target, models, given, threads)
        with opened(store) as results:
            answers = measure(target, jobs, plan, results)
        if any(map(_is_undecided, answers)):
            tell_load(target, threads)
        profiles = operators(target, jobs, answers) if profile_ops else None
    show(answers, profiles, as_json=as_json, by_device=fleet is not None)


class Maker(Protocol):
    """What makes a model's job: a device, or many."""

    def job(self, model: Model, threads: int) -> Job:
        """The work of running ``model``. Raises ModelError where that cannot be."""


def run_on(cores: tuple[int, ...] | None) -> None:
    """Keep to these cores: this process, and with it the fingerprint and every worker.

    Raises:
        UsageError: they are not all ours.
    """
    if cores is None:
        return
    allowed = os.sched_getaffinity(0)
    if not allowed.issuperset(cores):
        raise UsageError(f"cores {list(cores)} are not all ours: choose of {sorted(allowed)}")
    os.sched_setaffinity(0, cores)


def jobs_of(
    target: Maker, paths: Sequence[Path], given: Mapping[str, tuple[int, ...]], threads: int
) -> list[Job]:
    """One job a model file; a given shape goes to every model that has an input of that name."""
    from hwbench.devices.models import input_names, read_model_file

    if any(is_torch_module(path) for path in paths):
        if not all(is_torch_module(path) for path in paths):
            raise UsageError("files and torch modules read shapes differently: bench them apart")
        return [target.job(torch_module(path, given), threads) for path in paths]
    inputs = [input_names(path) for path in paths]
    known = set[str]().union(*inputs)
    for name in given:
        if name not in known:
            raise UnknownNameError("model input", name, known)
    files = [
        read_model_file(path, {name: given[name] for name in given.keys() & mine})
        for path, mine in zip(paths, inputs, strict=True)
    ]
    return [target.job(file, threads) for file in files]


def require_distinct(models: Sequence[Path]) -> None:
    """UsageError for two files of one name, whose histories the store could not tell apart."""
    named = defaultdict[str, dict[Path, Path]](dict)
    for path in models:
        named[path.name].setdefault(path.resolve(), path)
    for name, files in named.items():
        if len(files) > 1:
            shown = " and ".join(map(str, list(files.values())[:2]))
            raise UsageError(
                f"{shown} are both called {name}, by which the store tells models apart: rename one"
            )


def is_torch_module(path: Path) -> bool:
    """Whether a text names a function that makes a module, rather than a file."""
    return ":" in path.name and not path.exists()


def torch_module(path: Path, given: Mapping[str, tuple[int, ...]]) -> TorchModule:
    """The torch module of a text; the given shapes are its inputs."""
    from hwbench.devices.cuda.models import read_torch_module

    return read_torch_module(str(path), given)


def measure(
    target: Device, jobs: Sequence[Job], plan: Plan, store: Store
) -> list[Measurement | Failure]:
    """Measure and store the jobs; the answers are in their order."""
    from hwbench.measure.campaign import record
    from hwbench.measure.plan import Failure
    from hwbench.records import Measurement, Workload

    epoch = calibrated(target, jobs[0].workload.threads, store)
    answers = defaultdict[Workload, list[Measurement | Failure]](list)
    with console.progress("measuring the models") as report:
        for answer in record(target, jobs, plan, store, epoch, progress=report):
            answers[answer.workload].append(answer)
    return [answers[job.workload].pop() for job in jobs]


def _is_undecided(answer: Measurement | Failure) -> bool:
    """Whether what the machine was doing left a model without an answer."""
    from hwbench.records import Measurement

    if isinstance(answer, Measurement):
        return answer.status == "inconclusive"
    return isinstance(answer.error, InconclusiveError)


def _require_files(models: Sequence[Path], profile_ops: bool) -> None:
    """UsageError for what a fleet cannot be sent."""
    from hwbench.cli.bench_streams import is_manifest

    here = {
        "operators": profile_ops,
        "a network in stages": any(map(is_manifest, models)),
        "a torch module": any(map(is_torch_module, models)),
    }
    for what, asked in here.items():
        if asked:
            raise UsageError(f"{what} can be timed on this machine's devices: leave out --fleet")


def _require_streamed(device: str, **given: object) -> None:
    """UsageError for what does not hold for networks in stages, which nothing is stored of."""
    for name, value in given.items():
        if value:
            raise UsageError(
                f"--{name.replace('_', '-')} is for models of one file: a network in stages is "
                "timed on this machine's CPU as its manifest says, and not stored: leave it out"
            )
    if device not in ("cpu", "litert"):
        raise UsageError(
            f"-d {device}: a network in stages is timed on this machine's CPU: leave it out"
        )


def bench_over(
    models: FleetModels, jobs: Sequence[Job], plan: Plan, store: Store
) -> list[Measurement | Failure]:
    """Measure the jobs over a fleet, each on one device; the answers are in their order."""
    what = f"measuring {console.counted(len(jobs), 'model')} {on_devices(models)}"
    with console.progress(what) as report:
        return models.bench(jobs, plan, store, report)


def operators(
    target: Device, jobs: Sequence[Job], answers: Sequence[Measurement | Failure]
) -> list[OpProfile | None]:
    """The operators' times of each job that could be measured, from a pass of its own."""
    from hwbench.measure.ops import profile_ops
    from hwbench.records import Measurement

    profiles: list[OpProfile | None] = []
    with console.progress("timing the operators") as report:
        for job, answer in zip(jobs, answers, strict=True):
            profiles.append(None)
            if isinstance(answer, Measurement):
                try:
                    profiles[-1] = profile_ops(target, job)
                except (ModelError, DeviceError) as error:  # the measurement stands without it
                    console.error(f"{job.workload.name}: operators: {error}")
            report(len(profiles) / len(jobs))
    return profiles


def show(
    answers: Sequence[Measurement | Failure],
    profiles: Sequence[OpProfile | None] | None,
    *,
    as_json: bool,
    by_device: bool = False,
) -> None:
    """Print every answer; then the first failure, or what is no answer, is raised."""
    from hwbench.cli import rows
    from hwbench.records import Measurement

    measured = [answer for answer in answers if isinstance(answer, Measurement)]
    failures = [answer for answer in answers if not isinstance(answer, Measurement)]
    if as_json:
        entries = [rows.to_json(answer) for answer in answers]
        for entry, profile in zip(entries, profiles or (), strict=profiles is not None):
            entry["operators"] = profile and rows.operators_json(entry, profile)
        console.write_json({"results": entries})
    elif by_device:
        for name in dict.fromkeys(m.fingerprint.device for m in measured):
            own = [m for m in measured if m.fingerprint.device == name]
            console.show(f"On {name}", rows.to_table(own))
    elif measured:
        console.show(rows.to_table(measured))
        for answer, profile in zip(answers, profiles or (), strict=profiles is not None):
            if profile is not None:
                console.show(*rows.operators_view(rows.to_json(answer), profile))
    for failure in failures[1:]:
        console.error(str(failure.error))
    if failures:
        raise failures[0].error
    wide = [answer.workload.name for answer in measured if answer.status == "inconclusive"]
    if wide:
        raise InconclusiveError(
            f"{', '.join(wide)}: measured, but the interval is too wide to be an answer: close "
            "other programs (hwbench doctor tells what disturbs), then run it again, or give more "
            "--seconds"
        )
