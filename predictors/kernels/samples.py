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
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hwbench.devices.base import Device
from hwbench.devices.models import GraphModel
from hwbench.errors import PredictorError
from hwbench.graph import Graph
from hwbench.measure.jobs import Job, Node, Target
from hwbench.measure.plan import Failure, Plan
from hwbench.measure.process import WorkerProcess
from hwbench.measure.session import measure
from hwbench.predictors.kernels.cases import case, case_count
from hwbench.predictors.kernels.networks import FAMILIES, random_network
from hwbench.predictors.predictor import Provenance
from hwbench.records import CanaryEpoch, Measurement
from hwbench.spaces import get_space, space_names

FORMAT, VERSION = "hwbench-kernel-samples", 1

#: A network's latency, and its passes of instrumented runs.
NETWORK_PLAN = Plan(processes=3, seconds=0.6, loaded=12)
PASSES, PASS_RUNS, LAUNCH_SECONDS = 5, 4, 1.0

#: The family of test cases, which teach rules alone: their latency is 0.
CASES = "cases"

#: Networks that are measured together: what an interrupt costs.
CHUNK = 24
_Z95 = 1.96


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

    A network that the device does not run comes back as a Failure. Raises DeviceError where the
    device's runtime profiles no operators.
    """
    for start in range(0, len(wanted), CHUNK):
        chunk = wanted[start : start + CHUNK]
        graphs = {each: network(*each) for each in chunk}
        jobs = {
            each: device.job(GraphModel(graph, graph.name), threads)
            for each, graph in graphs.items()
        }
        measured: dict[str, Measurement] = {}
        for result in measure(device, list(jobs.values()), NETWORK_PLAN, epoch):
            if isinstance(result, Failure):
                yield result
            else:
                measured[result.workload.key] = result
        for each, job in jobs.items():
            found = measured.get(job.workload.key)
            if found is not None and found.latency_ns is not None:
                yield _sample(device, job, *each, graphs[each], found)
        if progress:
            progress((start + len(chunk)) / len(wanted))


def sample_cases(device: Device, threads: int) -> Iterator[NetworkSample]:
    """Profile the test cases. Raises DeviceError where the runtime profiles no operators."""
    for number in range(case_count()):
        graph = case(number)
        job = device.job(GraphModel(graph, graph.name), threads)
        nodes = profile_nodes(device, job, passes=1)
        yield NetworkSample(CASES, number, graph.hash, 0.0, 0.0, tuple(nodes))


def _sample(
    device: Device, job: Job, family: str, number: int, graph: Graph, found: Measurement
) -> NetworkSample:
    assert found.latency_ns is not None
    half = np.log(found.high_ns / found.low_ns) / 2 if found.low_ns and found.high_ns else 0.0
    nodes = profile_nodes(device, job)
    return NetworkSample(
        family, number, graph.hash, found.latency_ns, float(half) / _Z95, tuple(nodes)
    )


def profile_nodes(target: Target, job: Job, passes: int = PASSES) -> list[Node]:
    """The operators of a model in the order in which they ran: medians over several passes."""
    with tempfile.TemporaryDirectory(prefix="hwbench-") as folder:
        runner, launcher = job.build(Path(folder)), target.launcher(job.workload.threads)
        if launcher is not None:
            with launcher:
                return list(launcher.profile(launcher.load(runner), LAUNCH_SECONDS).nodes)
        with WorkerProcess(target.python) as worker:
            worker.load("model", runner)
            found = [
                worker.ask("profile", "model", PASS_RUNS, expect_s=600)["ops"]["nodes"]
                for _ in range(passes)
            ]
    # A node's place tells which it is: two may share a name.
    ns = np.median([[node["ns"] for node in nodes] for nodes in found], axis=0)
    rows = zip(found[0], ns, strict=True)
    return [Node(node["name"], node["kind"], float(time)) for node, time in rows]


# -- the file ---------------------------------------------------------------------------------


def write_header(path: Path, provenance: Provenance) -> None:
    """Begin a file of samples."""
    header = {"format": FORMAT, "version": VERSION, "provenance": asdict(provenance)}
    path.write_text(json.dumps(header) + "\n", encoding="utf-8")


def append(path: Path, sample: NetworkSample) -> None:
    """Add a sample to a file that has a header."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(sample)) + "\n")


def read_samples(path: Path) -> tuple[Provenance, list[NetworkSample]]:
    """Where the samples of a file come from, and the samples.

    A last line that was cut short is left out: it is what an interrupt may leave. PredictorError
    for any other damage.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
        header = json.loads(lines[0])
        if header["format"] != FORMAT or header["version"] > VERSION:
            raise ValueError("not samples of kernels, or of a newer hwbench")
        provenance = provenance_from(header["provenance"])
        samples = [_read(json.loads(line)) for line in lines[1:-1]]
    except OSError as error:
        raise PredictorError(f"cannot read {path}: {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise PredictorError(
            f"{path} is no file of kernel samples ({error}): measure into another one"
        ) from None
    return provenance, samples


def provenance_from(row: Mapping[str, Any]) -> Provenance:
    """Of a JSON object; KeyError, TypeError or ValueError where it is not that."""
    options = tuple((str(name), str(value)) for name, value in row["options"])
    c0_ns = tuple(float(c) for c in row["c0_ns"])
    return Provenance(**{**row, "options": options, "c0_ns": c0_ns})


def _read(row: dict[str, Any]) -> NetworkSample:
    nodes = tuple(Node(str(n["name"]), str(n["kind"]), float(n["ns"])) for n in row.pop("nodes"))
    return NetworkSample(**row, nodes=nodes)
