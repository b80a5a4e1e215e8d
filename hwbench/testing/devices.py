"""``check_device``: what every device must do, tried for real on two tiny networks."""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hwbench.devices.base import Device
from hwbench.devices.models import GraphModel
from hwbench.errors import HwbenchError
from hwbench.graph import GraphBuilder
from hwbench.measure.canary import load_canaries
from hwbench.measure.estimate import NEEDED_KINDS
from hwbench.measure.jobs import Job, Launcher, RunnerSpec, canary_key
from hwbench.measure.plan import Failure, Plan
from hwbench.measure.process import WorkerProcess
from hwbench.measure.session import measure

_PLAN = Plan(processes=2, seconds=0.05)


def check_device(device: Device, *, threads: int = 1) -> None:
    """Raise AssertionError unless ``device`` keeps the contract of :class:`Device`.

    Runs the canaries, two networks and a short session on ``threads`` threads, in workers or by
    the device's launcher: some seconds.
    """
    _check_identity(device)
    with _no_errors(device, "fingerprint"):
        _check_fingerprint(device, threads)
    with _no_errors(device, "health"):
        _check_health(device)
    with _no_errors(device, "job"):
        jobs = [device.job(_tiny_net(channels), threads) for channels in (4, 8)]
        _check_workloads(device, jobs, threads)
    with _no_errors(device, "launcher"):
        launcher = device.launcher(threads)
    how = "a worker" if launcher is None else "a launch"
    with _no_errors(device, how), tempfile.TemporaryDirectory() as folder:
        _check_canaries(device, threads)
        specs = [job.build(Path(folder)) for job in jobs]
        _check_json(device, specs)
        if launcher is None:
            _check_in_worker(device, [*specs, device.backdrop(Path(folder), threads)], threads)
        else:
            _check_launches(device, launcher, specs, threads)
    with _no_errors(device, "a session"):
        _check_session(device, jobs, threads)


def _tiny_net(channels: int) -> GraphModel:
    builder = GraphBuilder(f"check{channels}")
    x = builder.input("x", (1, 3, 16, 16))
    graph = builder.build(builder.activation(builder.conv(x, channels), "relu"))
    return GraphModel(graph, graph.name)


def _check_identity(device: Device) -> None:
    name = device.name
    _require(
        bool(name) and name.isprintable() and not any(c.isspace() for c in name),
        f"{name!r} is no name that can be typed after -d",
    )
    _require(shutil.which(device.python) is not None, f"{name}: no interpreter {device.python!r}")


def _check_fingerprint(device: Device, threads: int) -> None:
    one, other = device.fingerprint(threads), device.fingerprint(threads)
    _require(one.device == device.name, f"{device.name}: its fingerprint is of {one.device!r}")
    _require(bool(one.facts), f"{device.name}: a fingerprint without facts fits every machine")
    texts = [*one.facts.items(), *one.state.items()]
    _require(
        all(isinstance(text, str) for pair in texts for text in pair),
        f"{device.name}: facts and state of a fingerprint are texts",
    )
    changed = [fact for fact, value in one.facts.items() if other.facts.get(fact) != value]
    _require(
        one.key == other.key,
        f"{device.name}: facts that change from call to call belong to the state: {changed}",
    )


def _check_health(device: Device) -> None:
    checks = device.health()
    _require(bool(checks), f"{device.name}: health looks at nothing")
    for check in checks:
        what = f"{device.name}: check {check.name!r}"
        _require(check.state in ("ok", "warn", "fail"), f"{what} has the state {check.state!r}")
        _require(check.state == "ok" or bool(check.cure), f"{what}: {check.state} without a cure")
        _require(
            all(text.isprintable() for text in (check.name, check.detail, check.cure)),
            f"{what} is not one line of text",
        )


def _check_workloads(device: Device, jobs: list[Job], threads: int) -> None:
    keys = [job.workload.key for job in jobs]
    again = device.job(_tiny_net(4), threads).workload
    _require(again.key == keys[0], f"{device.name}: a model has another key each time")
    _require(keys[0] != keys[1], f"{device.name}: two models have one key: whose is its latency?")
    _require(
        all(job.workload.threads == threads for job in jobs),
        f"{device.name}: a job on {threads} threads says it is on {jobs[0].workload.threads}",
    )
    more = device.job(_tiny_net(4), threads + 1).workload
    _require(more.threads == threads + 1, f"{device.name}: job ignores the number of threads")


def _check_canaries(device: Device, threads: int) -> None:
    canaries = device.canaries(threads)
    _require(
        {canary.kind for canary in canaries}.issuperset(NEEDED_KINDS),
        f"{device.name}: canaries of each kind are needed: {', '.join(NEEDED_KINDS)}",
    )
    names = [canary.name for canary in canaries]
    _require(len(set(names)) == len(names), f"{device.name}: two canaries of one name: {names}")
    _require(
        canary_key(canaries) == canary_key(device.canaries(threads)),
        f"{device.name}: the canaries' versions change from call to call",
    )


def _check_json(device: Device, specs: list[RunnerSpec]) -> None:
    for spec in specs:
        copy = json.loads(json.dumps(dict(spec.args)))
        _require(copy == dict(spec.args), f"{device.name}: a runner's args are not plain JSON")


def _check_in_worker(device: Device, specs: list[RunnerSpec], threads: int) -> None:
    canaries = device.canaries(threads)
    with WorkerProcess(device.python) as worker:
        readings = worker.ask("round", [], load_canaries(worker, canaries))["readings"][0]
    for canary, reading in zip(canaries, readings, strict=True):
        _require(reading > 0, f"{device.name}: canary {canary.name} takes {reading} ns")
    with WorkerProcess(device.python) as worker:
        for index, spec in enumerate(specs):
            worker.load(f"net{index}", spec)
            worker.ask("check", f"net{index}")
        # Together, as in a session; the worker itself refuses a wrong number of times.
        steps = [[f"net{index}", runs, 1] for index in range(len(specs)) for runs in (1, 5)]
        bursts = worker.ask("round", steps, [])["bursts"]
    _require(
        all(time > 0 for burst in bursts for time in burst["ns"]),
        f"{device.name}: a runner answers times of 0 ns",
    )


def _check_launches(
    device: Device, launcher: Launcher, specs: list[RunnerSpec], threads: int
) -> None:
    names = [*(canary.name for canary in device.canaries(threads)), "net0", "net1"]
    with launcher:
        runners = [*(canary.runner for canary in device.canaries(threads)), *specs]
        handles = [launcher.load(runner) for runner in runners]
        _require(len(set(handles)) == len(handles), f"{device.name}: two models have one handle")
        launcher.disturbed()
        script = launcher.run(handles, _PLAN.seconds)
        if script.broken is not None:
            raise script.broken
        _require(
            len(script.outcomes) == len(handles),
            f"{device.name}: {len(handles)} launches, {len(script.outcomes)} outcomes",
        )
        for name, outcome in zip(names, script.outcomes, strict=True):
            if isinstance(outcome, HwbenchError):
                raise outcome
            _require(
                outcome.median_ns > 0 and math.isfinite(outcome.median_ns),
                f"{device.name}: {name} takes {outcome.median_ns} ns",
            )
        launcher.recover()  # of nothing: what is loaded stays so
        again = launcher.run(handles[-1:], _PLAN.seconds)
        _require(
            len(again.outcomes) == 1 and not isinstance(again.outcomes[0], HwbenchError),
            f"{device.name}: after recover() a model that was loaded does not run",
        )
        for handle in handles:
            launcher.unload(handle)


def _check_session(device: Device, jobs: list[Job], threads: int) -> None:
    results = list(measure(device, jobs, _PLAN, None))
    _require(len(results) == len(jobs), f"{device.name}: {len(jobs)} jobs, {len(results)} results")
    for result in results:
        if isinstance(result, Failure):
            raise result.error
        latency = result.latency_ns
        _require(
            latency is not None and math.isfinite(latency) and latency > 0,
            f"{device.name}: {result.workload.name} takes {latency} ns",
        )
        _require(
            result.fingerprint.key == device.fingerprint(threads).key,
            f"{device.name}: measuring changes a fact of the fingerprint",
        )


@contextmanager
def _no_errors(device: Device, what: str) -> Iterator[None]:
    try:
        yield
    except HwbenchError as error:
        raise AssertionError(f"{device.name}: {what} fails: {error}") from error


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise AssertionError(message)
