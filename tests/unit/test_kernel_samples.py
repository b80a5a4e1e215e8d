"""Files of kernel samples, and the campaign that fills them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from subprocess import PIPE
from typing import Any

import pytest

from hwbench.devices import get_device
from hwbench.devices.models import GraphModel
from hwbench.errors import DeviceError, PredictorError
from hwbench.measure.jobs import Job
from hwbench.measure.plan import Failure
from hwbench.predictors.kernels import read_samples
from hwbench.predictors.kernels.campaign import collect, held, opened_samples
from hwbench.predictors.kernels.samples import (
    NetworkSample,
    families,
    network,
    sample_networks,
    write_header,
)
from hwbench.predictors.kernels.training import LEAST_NETWORKS
from hwbench.predictors.predictor import Provenance
from tests.measurements import epoch_on, measurement

HERE = Provenance("cpu", "f" * 32, "onnxruntime", 1, "epoch-1", (1e5,), (("dtype", "fp32"),))
HUGE = 10**400
NAN, INF = float("nan"), float("inf")
GOOD = {"family": "plain", "number": 0, "hash": "x", "latency_ns": 1e6, "sd": 0.01, "nodes": []}


@pytest.mark.parametrize(
    "line",
    [
        *("5", '"abc"', "null", "[]", "{}", "[" * 100_000),
        *(
            json.dumps({**GOOD, name: value})
            for name, value in [
                *(("latency_ns", each) for each in (NAN, INF, -1.0, 0.0, HUGE, "x", True)),
                *(("sd", each) for each in (NAN, -0.1)),
                *(("nodes", each) for each in (5, [5], [{"name": "a", "kind": "b", "ns": NAN}])),
                *(("number", each) for each in (-1, 0.5)),
                ("family", 5),
            ]
        ),
        json.dumps({**GOOD, "family": "cases", "number": 10**6, "latency_ns": 0.0}),
    ],
    ids=lambda line: line[:20],
)
def test_a_line_that_is_no_sample_is_named(line: str, tmp_path: Path) -> None:
    path = tmp_path / "k.jsonl"
    write_header(path, HERE)
    path.write_text(f"{path.read_text()}{json.dumps(GOOD)}\n")
    assert read_samples(path)[0] == HERE
    assert len(read_samples(path)[1]) == 1
    path.write_text(f"{path.read_text()}{line}\n")
    with pytest.raises(PredictorError, match=r"k\.jsonl is no file of kernel samples \(line 3: "):
        read_samples(path)


def test_a_header_that_was_cut_short_is_named(tmp_path: Path) -> None:
    path = tmp_path / "k.jsonl"
    write_header(path, HERE)
    path.write_text(path.read_text().rstrip("\n"))
    with pytest.raises(PredictorError, match=r"no file of kernel samples \(line 1: "):
        read_samples(path)


def test_a_network_that_was_measured_twice_counts_once(tmp_path: Path) -> None:
    path = tmp_path / "k.jsonl"
    write_header(path, HERE)
    twice = [{**GOOD, "latency_ns": ns} for ns in (1e6, 2e6)]
    rows = [*twice, {**GOOD, "number": 1}, {**GOOD, "hash": "drawn otherwise"}]
    path.write_text(path.read_text() + "".join(f"{json.dumps(row)}\n" for row in rows))
    assert [s.latency_ns for s in read_samples(path)[1]] == [1e6, 1e6, 1e6]


def test_a_file_is_touched_only_where_its_tail_is_torn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "k.jsonl"
    assert opened_samples(path, HERE) == []
    whole = f"{path.read_text()}{json.dumps(GOOD)}\n"
    path.write_text(whole)
    path.chmod(0o400)
    before = path.stat()
    assert len(opened_samples(path, HERE)) == 1
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == (before.st_mtime_ns, before.st_ino)
    path.chmod(0o600)
    path.write_text(f'{whole}{{"family": "pla')
    # A disk that is full would lose what is written anew.
    monkeypatch.setattr(Path, "write_bytes", None)
    monkeypatch.setattr(Path, "write_text", None)
    assert len(opened_samples(path, HERE)) == 1
    assert path.read_text() == whole


def test_a_second_run_is_told_who_measures(tmp_path: Path) -> None:
    path = tmp_path / "k.jsonl"
    code = (
        "import pathlib, sys; from hwbench.predictors.kernels.campaign import held\n"
        "with held(pathlib.Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, stdin=PIPE, stdout=PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(
            PredictorError, match=rf"process {other.pid} is measuring into .*k\.jsonl"
        ):
            held(path).__enter__()
        other.kill()
    with held(path):  # the lock goes with its process
        pass
    assert list(tmp_path.iterdir()) == []


def test_progress_is_told_within_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measuring makes half of it, profiling one after the other the rest."""
    wanted = [(family, 0) for family in families()[:4]]

    def measure(_: object, jobs: Sequence[Job], *__: object, progress: Any) -> Iterator[Any]:
        progress(0.5)
        yield from (measurement(0, workload=job.workload) for job in jobs)
        progress(1.0)

    where = "hwbench.predictors.kernels.samples"
    monkeypatch.setattr(f"{where}.CHUNK", 2)
    monkeypatch.setattr(f"{where}.measure", measure)
    monkeypatch.setattr(f"{where}.profile_nodes", lambda _, jobs, *__: ([] for _ in jobs))
    told: list[float] = []
    device = get_device("cpu")
    found = [*sample_networks(device, wanted, 1, epoch_on(device), told.append)]
    assert len(found) == 4
    assert told == [0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0]


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[set[int]], None]:
    """Measures nothing: all networks are answered at once, but some fail by their turn."""
    turn = iter(range(10**6))

    def install(failed: set[int]) -> None:
        def sample(
            device: Any, wanted: Sequence[tuple[str, int]], *_: object
        ) -> Iterator[NetworkSample | Failure]:
            for each in wanted:
                graph = network(*each)
                if next(turn) in failed:
                    job = device.job(GraphModel(graph, graph.name), 1)
                    yield Failure(job.workload, DeviceError("the cable was pulled"))
                else:
                    yield NetworkSample(*each, graph.hash, 1e6, 0.01, ())

        where = "hwbench.predictors.kernels.campaign"
        monkeypatch.setattr(f"{where}.sample_networks", sample)
        monkeypatch.setattr(f"{where}.sample_cases", lambda *_: [])

    return install


def test_others_are_drawn_for_networks_that_failed(
    tmp_path: Path, failing: Callable[[set[int]], None]
) -> None:
    failing({3, 7, 20})
    device, failures = get_device("cpu"), list[Failure]()
    path, epoch = tmp_path / "k.jsonl", epoch_on(get_device("cpu"))
    collect(path, device, LEAST_NETWORKS, 1, epoch, lambda *_: None, failures.append)
    assert len(failures) == 3
    assert len(read_samples(path)[1]) == LEAST_NETWORKS
