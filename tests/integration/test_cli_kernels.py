"""`hwbench kernels` and `predict` of ONNX files: profiles of this machine's onnxruntime."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hwbench.cli import main
from hwbench.devices import get_device
from hwbench.devices.models import GraphModel
from hwbench.graph import Graph, GraphBuilder
from hwbench.lower import to_onnx
from hwbench.measure.jobs import Node
from hwbench.predictors.kernels import fit_kernels, load_kernels, read_samples, split
from hwbench.predictors.kernels.campaign import in_turn, opened_samples, provenance_now
from hwbench.predictors.kernels.kernels import CONVERT, Kernel
from hwbench.predictors.kernels.models import Sum
from hwbench.predictors.kernels.rules import Case, learn_rules, nodes_by_op
from hwbench.predictors.kernels.samples import (
    NetworkSample,
    append,
    network,
    profile_nodes,
    sample_cases,
)
from hwbench.store import Store
from tests.measurements import epoch_on

NETWORKS = 20


def profiled(*graphs: Graph) -> list[tuple[Node, ...]]:
    device = get_device("cpu")
    jobs = [device.job(GraphModel(graph, "network"), 1) for graph in graphs]
    return [tuple(nodes) for nodes in profile_nodes(device, jobs, passes=1)]


INSTRUMENT_NS = 2000.0


def time_of(kernel: Kernel) -> float:
    """A machine of plain habits, in ns: what is tested must not hang on how busy this one is."""
    moved = kernel.size("read") + kernel.size("written")
    return 1000 + kernel.size("macs") / 50 + moved / 20 + kernel.size("weights") / 10


def timed(case: Case, kernels: Sequence[Kernel]) -> tuple[Node, ...]:
    """This runtime's operators with that machine's times, and what a profiler adds."""
    owned, _ = nodes_by_op(case)
    ns = {node.name: 1000.0 + INSTRUMENT_NS for node in case.nodes}
    for kernel in kernels:
        runs = [node for op in kernel.ops for node in owned.get(op, ())]
        ns |= {node.name: time_of(kernel) / len(runs) + INSTRUMENT_NS for node in runs}
    return tuple(Node(node.name, node.kind, ns[node.name]) for node in case.nodes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Samples of what this runtime makes of networks, and a predictor fitted on them."""
    folder, device = tmp_path_factory.mktemp("kernels"), get_device("cpu")
    path = folder / "cpu-kernels.jsonl"
    opened_samples(path, provenance_now(device, 1, epoch_on(device)))
    tests = sample_cases(device, 1)
    wanted = in_turn(NETWORKS, set())
    graphs = [network(*each) for each in wanted]
    cases = [Case(*pair) for pair in zip(graphs, profiled(*graphs), strict=True)]
    asked = [Case(network(s.family, s.number), s.nodes) for s in tests]
    rules = learn_rules([*asked, *cases])
    for sample in tests:
        append(path, sample)
    for (family, number), case in zip(wanted, cases, strict=True):
        nodes = timed(case, split(case.graph, rules))
        latency_ns = sum(node.ns - INSTRUMENT_NS for node in nodes)
        append(path, NetworkSample(family, number, case.graph.hash, latency_ns, 0.01, nodes))
    provenance, samples = read_samples(path)
    fit_kernels(samples, provenance).save(folder / "cpu-kernels.hwp")
    with Store.open(str(folder / "store.db")) as store:
        store.add_epoch(epoch_on(device))
    return folder


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HWBENCH_STORE", str(folder / "store.db"))
    return folder


def small() -> Graph:
    b = GraphBuilder("small")
    x = b.activation(b.conv(b.input("x", (1, 3, 32, 32)), 32, stride=2), "relu")
    y = b.conv(b.activation(b.conv(x, 64, kernel=1), "relu"), 32, kernel=1)
    x = b.activation(b.add(x, y), "relu")
    return b.build(b.linear(b.flatten(b.global_avg_pool(x)), 10))


Answer = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Answer:
    def answer(*arguments: object) -> tuple[int, str, str]:
        code = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return answer


def test_each_kernel_is_an_operator_of_this_runtime(here: Path) -> None:
    """What the rules join, onnxruntime runs as one, but for a few in a hundred."""
    rules = load_kernels("cpu-kernels.hwp").models.rules
    graphs = (small(), network("residual", 901), network("mobile", 902))
    counts = []
    for graph, nodes in zip(graphs, profiled(*graphs), strict=True):
        owned, rest = nodes_by_op(Case(graph, nodes))
        assert all("Reorder" in node.kind for node in rest)
        kernels = [kernel for kernel in split(graph, rules) if kernel.kind != CONVERT]
        counts += [sum(len(owned.get(op, ())) for op in kernel.ops) for kernel in kernels]
    assert counts.count(1) >= 0.95 * len(counts)


def test_predict_tells_where_the_time_goes(here: Path, run: Answer) -> None:
    to_onnx(small()).save("small.onnx")
    code, out, _ = run("predict", "small.onnx", "-d", "cpu", "--json")
    assert code == 0
    answer = json.loads(out)
    assert answer["predictor"] == "cpu-kernels.hwp"
    (result,) = answer["results"]
    assert result["low_ms"] < result["mean_ms"] < result["high_ms"] <= result["upper_ms"]
    times = [kernel["ms"] for kernel in result["kernels"]]
    assert sum(times) + result["overhead_ms"] == pytest.approx(result["mean_ms"])
    assert min(times) > 0
    ops = [op for kernel in result["kernels"] for op in kernel["ops"]]
    assert len(ops) == len(small().ops)
    code, out, _ = run("predict", "cpu-kernels.hwp", "small.onnx", "--top", "2")
    assert code == 0
    assert "small.onnx" in out
    assert "slowest kernels" in out


def test_networks_that_were_not_measured_are_predicted(here: Path) -> None:
    predictor = load_kernels("cpu-kernels.hwp")
    errors = []
    for family in ("plain", "residual", "mobile", "branches", "ofa_mbv3", "nasbench201"):
        graph = network(family, 903)
        truth_ms = sum(map(time_of, split(graph, predictor.models.rules))) / 1e6
        errors.append(abs(predictor.predict(graph).mean_ms / truth_ms - 1))
    assert np.median(errors) < 0.1


def test_an_operation_that_was_never_timed_is_named(here: Path) -> None:
    predictor = load_kernels("cpu-kernels.hwp")
    kind = split(small(), predictor.models.rules)[0].kind
    before = predictor.predict(small())
    assert not any(kind in reason for reason in predictor.surprises(before))
    known = {k: v for k, v in predictor.models.kinds.items() if k != kind}
    every = [*predictor.models.kinds]
    weighed = ["call", "gap", *every, *every]  # each kind's gap, then its share
    rest = [i for i, k in enumerate(weighed) if k != kind]
    total = predictor.models.sum
    left = Sum(total.weights[rest], total.factor[np.ix_(rest, rest)], total.noise)
    models = replace(predictor.models, kinds=known, sum=left)
    without = replace(predictor, models=models)
    found = without.predict(small())
    assert any(kind in reason for reason in without.surprises(found))
    assert found.sd_ms > before.sd_ms


@pytest.mark.slow
def test_kernels_goes_on_where_it_stopped(here: Path, run: Answer, tmp_path: Path) -> None:
    samples = tmp_path / "mine.jsonl"
    whole = (here / "cpu-kernels.jsonl").read_text()
    samples.write_text(whole + whole.splitlines()[-1][:100])  # an interrupt cut the last one short
    arguments = ("kernels", "-d", "cpu", "-n", NETWORKS + 1, "-o", tmp_path / "mine.hwp")
    code, out, err = run(*arguments, "--json")
    assert code == 0, err
    answer = json.loads(out)
    assert answer["n_train"] == NETWORKS + 1
    assert samples.read_text().startswith(whole)
    assert answer["left_out"]["all"]["n"] == NETWORKS + 1
    assert load_kernels(tmp_path / "mine.hwp").meta.n_train == NETWORKS + 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["small.onnx", "-d", "litert"], "no litert-kernels.hwp here"),
        (["cpu-kernels.hwp", "missing.onnx"], "missing.onnx"),
        (["cpu-kernels.hwp", "small.tflite"], "export it as one"),
        (["cpu-kernels.hwp"], "name one"),
        (["cpu-kernels.hwp", "small.onnx", "--shape", "y=1"], "unknown model input 'y'"),
    ],
)
def test_what_cannot_be_predicted_is_told(
    arguments: list[str], message: str, here: Path, run: Answer
) -> None:
    to_onnx(small()).save("small.onnx")
    code, out, err = run("predict", *arguments)
    assert (code, out) == (2, "")
    assert message in err


def test_a_predictor_of_another_device_is_refused(here: Path, run: Answer) -> None:
    to_onnx(small()).save("small.onnx")
    predictor = load_kernels("cpu-kernels.hwp")
    other = replace(predictor.meta.provenance, fingerprint_key="0" * 32)
    replace(predictor, meta=replace(predictor.meta, provenance=other)).save("other.hwp")
    assert run("predict", "other.hwp", "small.onnx")[0] == 0
    code, _, err = run("predict", "other.hwp", "small.onnx", "-d", "cpu")
    assert code == 2
    assert "another device or runtime" in err


def test_samples_of_another_environment_do_not_mix(here: Path, run: Answer, tmp_path: Path) -> None:
    header, *rest = (here / "cpu-kernels.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "o.jsonl").write_text(header.replace("onnxruntime", "another") + "".join(rest))
    code, _, err = run("kernels", "-d", "cpu", "-n", NETWORKS, "-o", tmp_path / "o.hwp")
    assert code == 2
    assert "name another file" in err


def test_a_file_that_was_tampered_with_is_refused(here: Path, run: Answer, tmp_path: Path) -> None:
    whole = (here / "cpu-kernels.hwp").read_bytes()
    damaged = tmp_path / "d.hwp"
    for content in (whole[:500], whole[:-200] + b"0" * 200, b""):
        damaged.write_bytes(content)
        code, _, err = run("predict", damaged, "small.onnx")
        assert code == 2
        assert "d.hwp" in err


def test_the_file_gives_back_the_same_predictor(here: Path, tmp_path: Path) -> None:
    predictor = load_kernels("cpu-kernels.hwp")
    predictor.save(tmp_path / "again.hwp")
    assert (tmp_path / "again.hwp").read_bytes() == Path("cpu-kernels.hwp").read_bytes()
    again = load_kernels(tmp_path / "again.hwp")
    assert again.predict(small()) == predictor.predict(small())
