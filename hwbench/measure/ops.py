"""Where a model's time goes: per-operator times from an instrumented pass of its own.

The runtime's profiler slows every operator a little, so this pass never feeds a latency; what it
gives is shares. Two checks stand beside them: the operators against the instrumented whole
(what no operator accounts for), and the instrumented whole against the undisturbed latency
(what the instrument costs).
"""

from __future__ import annotations

from dataclasses import dataclass

from hwbench.errors import WorkerError
from hwbench.measure.jobs import Job, Node, Profiled, RunnerSpec, Target
from hwbench.measure.process import WorkerProcess
from hwbench.measure.scratch import scratch

#: Instrumented runs in a worker, and the seconds of an instrumented launch.
RUNS, LAUNCH_SECONDS = 30, 1.0


@dataclass(frozen=True, slots=True)
class OpTime:
    """One operator of the model as the runtime ran it, fusions included."""

    name: str
    kind: str
    time_ns: float
    share: float


@dataclass(frozen=True, slots=True)
class OpProfile:
    """Operators in the order of their time, largest first.

    ``whole_ns`` is the instrumented run, ``covered`` the operators' share of it.
    """

    ops: tuple[OpTime, ...]
    whole_ns: float
    covered: float


def profile_ops(target: Target, job: Job, *, runs: int = RUNS) -> OpProfile:
    """Profile one workload, in a worker or a launch of its own.

    Raises ModelError when the model cannot run, DeviceError when the runtime gives no profile.
    """
    with scratch() as folder:
        runner, launcher = job.build(folder), target.launcher(job.workload.threads)
        if launcher is None:
            found = _in_worker(target.python, runner, runs)
        else:
            with launcher:
                found = launcher.profile(launcher.load(runner), LAUNCH_SECONDS)
    total = sum(node.ns for node in found.nodes)
    if not total > 0 or not found.whole_ns > 0:
        raise WorkerError(f"{job.workload.name}: the runtime gave no profile")
    ops = [
        OpTime(node.name, node.kind, node.ns, node.ns / total)
        for node in sorted(found.nodes, key=lambda node: -node.ns)
    ]
    return OpProfile(tuple(ops), found.whole_ns, total / found.whole_ns)


def _in_worker(python: str, runner: RunnerSpec, runs: int) -> Profiled:
    with WorkerProcess(python) as worker:
        worker.load("model", runner)
        answer = worker.ask("profile", "model", runs, expect_s=600)["ops"]
    nodes = tuple(Node(node["name"], node["kind"], node["ns"]) for node in answer["nodes"])
    return Profiled(nodes, answer["whole_ns"])
