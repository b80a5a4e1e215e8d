"""What a device says of kernels: whole networks, each with its latency and the times of its parts.

A kernel that is timed alone runs from warm caches and is faster than it ever is in a network. So
networks are measured: their undisturbed latency by the engine, and what their operators take by
the runtime's own profiler, in several passes of which the median counts: it leaves out a pass in
which somebody else had the core. A few hundred networks hold ten thousand kernels.

Samples are lines of JSON in a file: a header of where they come from, then a line a network. The
networks themselves are not in it, since :func:`network` draws them again.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from hwbench.devices.base import Device
from hwbench.devices.models import GraphModel
from hwbench.errors import GraphError, PredictorError
from hwbench.graph import Graph
from hwbench.inputs import require_finite
from hwbench.measure.jobs import Job, Node, Target
from hwbench.measure.plan import Failure, Plan
from hwbench.measure.process import WorkerProcess
from hwbench.measure.scratch import scratch
from hwbench.measure.session import measure
from hwbench.predictors.files import replace_file
from hwbench.predictors.kernels.cases import case, case_count
from hwbench.predictors.kernels.networks import FAMILIES, random_network
from hwbench.predictors.predictor import Provenance, provenance_from, typed
from hwbench.records import CanaryEpoch, Measurement
from hwbench.spaces import get_space, space_names

FORMAT, VERSION = "hwbench-kernel-samples", 1

#: A network's latency, and its passes of instrumented runs: some at least, as many as fill a while.
NETWORK_PLAN = Plan(processes=3, seconds=0.6, loaded=12)
PASSES, LAUNCH_SECONDS = 5, 1.0
PASS_RUNS, MOST_PASS_RUNS, PASS_NS = 4, 40, 2e7

#: The family of test cases, which teach rules alone: their latency is 0.
CASES = "cases"

#: Networks that are measured together: what an interrupt costs.
CHUNK = 24
_Z95 = 1.96
#: What onnxruntime numbers its own nodes by.
_NUMBER = re.compile(r"_token_\d+|_\d+$")


@dataclass(frozen=True, slots=True)
class NetworkSample:
    """One network as the device ran it.

    ``sd`` is the relative standard error of ``latency_ns``; ``nodes`` are the runtime's
    operators in the order in which they ran, with their times in the instrumented pass.
    """

    family: str
    number: int
    hash: str
    latency_ns: float
    sd: float
    nodes: tuple[Node, ...]


def families() -> list[str]:
    """Names of all families of networks: the spaces, then the random ones.

    Of a space and its variant (``mbv3_small_rgb``) one is enough: a family that is left out must
    not be known by its twin.
    """
    names = space_names()
    alone = [n for n in names if not any(n != m and n.startswith(f"{m}_") for m in names)]
    return [*alone, *FAMILIES]


def network(family: str, number: int) -> Graph:
    """Network ``number`` of a family: the same one whenever it is asked for."""
    if family == CASES:
        return case(number)
    if family in FAMILIES:
        return random_network(family, number)
    space = get_space(family)
    return space.graph(space.sample(1, np.random.default_rng(number))[0])


def sample_networks(
    device: Device,
    wanted: Sequence[tuple[str, int]],
    threads: int,
    epoch: CanaryEpoch,
    progress: Callable[[float], None] | None = None,
) -> Iterator[NetworkSample | Failure]:
    """Measure and profile networks, by family and number; results come a chunk at a time.

    A network that the device does not run comes back as a Failure. ``progress`` is told the share
    that is done, within a chunk as well. Raises DeviceError where the device's runtime profiles
    no operators.
    """
    for start in range(0, len(wanted), CHUNK):
        chunk = wanted[start : start + CHUNK]
        tell = partial(_tell, progress, start, len(chunk), len(wanted))
        yield from _sample_chunk(device, chunk, threads, epoch, tell)


def _tell(
    progress: Callable[[float], None] | None, start: int, size: int, total: int, share: float
) -> None:
    """Tell how far all is, with this share of ``size`` networks after the first ``start``."""
    if progress:
        progress((start + share * size) / total)


def _sample_chunk(
    device: Device,
    chunk: Sequence[tuple[str, int]],
    threads: int,
    epoch: CanaryEpoch,
    tell: Callable[[float], None],
) -> Iterator[NetworkSample | Failure]:
    """Measure networks together, then profile each: about as long again."""
    graphs = {each: network(*each) for each in chunk}
    jobs = {
        each: device.job(GraphModel(graph, graph.name), threads) for each, graph in graphs.items()
    }
    measured: dict[str, Measurement] = {}
    half = partial(_tell, tell, 0, 1, 2)
    for result in measure(device, list(jobs.values()), NETWORK_PLAN, epoch, progress=half):
        if isinstance(result, Failure):
            yield result
        else:
            measured[result.workload.key] = result
    answered = {
        each: found
        for each, job in jobs.items()
        if (found := measured.get(job.workload.key)) and found.latency_ns is not None
    }
    runs = [_pass_runs(found.latency_ns or 0.0) for found in answered.values()]
    profiles = profile_nodes(device, [jobs[each] for each in answered], runs)
    pairs = zip(answered.items(), profiles, strict=True)
    for done, ((each, found), nodes) in enumerate(pairs, start=1):
        latency_ns, sd = found.latency_ns or 0.0, _relative_error(found)
        yield NetworkSample(*each, graphs[each].hash, latency_ns, sd, tuple(nodes))
        tell((1 + done / len(answered)) / 2)


def _relative_error(found: Measurement) -> float:
    """The relative standard error of a latency."""
    if not found.low_ns or not found.high_ns:
        return 0.0
    return float(np.log(found.high_ns / found.low_ns)) / 2 / _Z95


def sample_cases(device: Device, threads: int) -> list[NetworkSample]:
    """Profile the test cases, but for those with operations that the device's runtime lacks.

    Raises DeviceError where the runtime profiles no operators.
    """
    graphs = {number: case(number) for number in range(case_count())}
    jobs = {n: device.job(GraphModel(graph, graph.name), threads) for n, graph in graphs.items()}
    jobs = {number: job for number, job in jobs.items() if _is_lowered(job)}
    profiles = profile_nodes(device, list(jobs.values()), passes=1)
    return [
        NetworkSample(CASES, number, graphs[number].hash, 0.0, 0.0, tuple(nodes))
        for number, nodes in zip(jobs, profiles, strict=True)
    ]


def require_profiles(device: Device, threads: int) -> None:
    """ModelError or DeviceError where the device's runtime profiles no operators: asks it once."""
    job = device.job(GraphModel(case(0), "probe"), threads)
    list(profile_nodes(device, [job], passes=1))


def _is_lowered(job: Job) -> bool:
    """Whether the runtime has all operations of a job's model."""
    with scratch() as folder:
        try:
            job.build(folder)
        except GraphError:
            return False
    return True


def _pass_runs(latency_ns: float) -> int:
    """Runs of a pass: the shorter they are, the more it takes until their mean says something."""
    return int(np.clip(PASS_NS / max(latency_ns, 1.0), PASS_RUNS, MOST_PASS_RUNS))


def profile_nodes(
    target: Target, jobs: Sequence[Job], runs: Sequence[int] | None = None, passes: int = PASSES
) -> Iterator[list[Node]]:
    """The operators of each model in the order in which they ran: medians over several passes.

    ``runs`` are each model's in a pass, the least that there are by default.
    Raises ModelError when a model cannot run, DeviceError when the runtime gives no profile.
    """
    if not jobs:
        return
    launcher = target.launcher(jobs[0].workload.threads)
    with scratch() as folder:
        if launcher is not None:
            with launcher:
                for job in jobs:
                    handle = launcher.load(job.build(folder))
                    yield list(launcher.profile(handle, LAUNCH_SECONDS).nodes)
                    launcher.unload(handle)
            return
        with WorkerProcess(target.python) as worker:
            for job, n in zip(jobs, runs or [PASS_RUNS] * len(jobs), strict=True):
                worker.load("model", job.build(folder))
                answers = [worker.ask("profile", "model", n, expect_s=600) for _ in range(passes)]
                yield _medians([answer["ops"]["nodes"] for answer in answers])


def _medians(passes: Sequence[Sequence[Mapping[str, Any]]]) -> list[Node]:
    """The nodes of the first pass with the median of their times in all.

    Each pass is a session of its own, which may run branches in another order and number its own
    nodes otherwise: these bear a name without the number, and the longest of a name correspond.
    """
    times: dict[tuple[str, int], list[float]] = {}
    for nodes in passes:
        for key, node in zip(_keys(nodes), nodes, strict=True):
            times.setdefault(key, []).append(float(node["ns"]))
    return [
        Node(node["name"], node["kind"], float(np.median(times[key])))
        for key, node in zip(_keys(passes[0]), passes[0], strict=True)
    ]


def _keys(nodes: Sequence[Mapping[str, Any]]) -> list[tuple[str, int]]:
    """What each node is called in every pass: its name, and its rank by time among namesakes."""
    names = [_NUMBER.sub("", node["name"]) for node in nodes]
    ranks: Counter[str] = Counter()
    keys: dict[int, tuple[str, int]] = {}
    for i in sorted(range(len(nodes)), key=lambda i: float(nodes[i]["ns"])):
        keys[i] = (names[i], ranks[names[i]])
        ranks[names[i]] += 1
    return [keys[i] for i in range(len(nodes))]


# -- the file ---------------------------------------------------------------------------------


def write_header(path: Path, provenance: Provenance) -> None:
    """Begin a file of samples: with a whole header, or not at all."""
    header = {"format": FORMAT, "version": VERSION, "provenance": asdict(provenance)}
    try:
        replace_file(path, f"{json.dumps(header)}\n".encode())
    except OSError as error:
        raise PredictorError(f"cannot write {path}: {error.strerror or error}") from None


def append(path: Path, sample: NetworkSample) -> None:
    """Add a sample to a file that has a header."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(sample)) + "\n")


def read_samples(path: Path) -> tuple[Provenance, list[NetworkSample]]:
    """Where the samples of a file come from, and the samples, one a network: the first.

    A last line that was cut short is left out: it is what an interrupt may leave. PredictorError
    for any other damage, with the line's number.
    """
    at = 1
    try:
        require_finite(path)
        lines = path.read_text(encoding="utf-8").split("\n")
        header = json.loads(lines[0] if len(lines) > 1 else "")
        if header["format"] != FORMAT or header["version"] > VERSION:
            raise ValueError("not samples of kernels, or of a newer hwbench")
        provenance = provenance_from(header["provenance"])
        samples: dict[tuple[str, int, str], NetworkSample] = {}
        for at, line in enumerate(lines[1:-1], start=2):  # noqa: B007 - told where it fails
            sample = _read(json.loads(line))
            samples.setdefault((sample.family, sample.number, sample.hash), sample)
    except OSError as error:
        raise PredictorError(f"cannot read {path}: {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise PredictorError(
            f"{path} is no file of kernel samples (line {at}: {error}): measure into another one"
        ) from None
    return provenance, list(samples.values())


def _read(row: Any) -> NetworkSample:
    """A line's sample; KeyError, TypeError, ValueError or OverflowError where it is none."""
    values = typed(NetworkSample, row)
    nodes = tuple(Node(str(n["name"]), str(n["kind"]), float(n["ns"])) for n in values["nodes"])
    sample = NetworkSample(**{**values, "nodes": nodes})
    times = [sample.latency_ns, sample.sd, *(node.ns for node in nodes)]
    if not all(0 <= float(value) < math.inf for value in times):
        raise ValueError("a time is no time")
    is_case = sample.family == CASES
    if not (is_case or sample.latency_ns > 0):
        raise ValueError("latency_ns is 0")
    if not 0 <= sample.number < (case_count() if is_case else math.inf):
        raise ValueError(f"there is no network {sample.number} of {sample.family}")
    return sample
