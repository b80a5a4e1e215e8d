"""`hwbench kernels` and `predict` of ONNX files: profiles of this machine's onnxruntime."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from hwbench import console
from hwbench.cli import main
from hwbench.devices import get_device
from hwbench.devices.models import GraphModel
from hwbench.errors import DeviceError
from hwbench.graph import Graph, GraphBuilder
from hwbench.lower import to_onnx
from hwbench.measure.jobs import Node
from hwbench.measure.plan import Failure
from hwbench.predictors import files
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
from hwbench.records import Measurement
from hwbench.store import Store
from tests.measurements import epoch_on, measurement

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
        (["-d", "cpu"], "name one"),
        (["cpu-kernels.hwp", "small.onnx", "--option", "nonsense=1"], "nonsense"),
        (["small.onnx", "--option", "nonsense=1"], "nonsense"),
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


@pytest.mark.parametrize("answer", ["failed", "inconclusive"])
def test_a_file_that_could_not_be_measured_is_told(
    answer: str, here: Path, run: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    to_onnx(small()).save("small.onnx")
    workload = get_device("cpu").job(GraphModel(small(), "small.onnx"), 1).workload
    made: Measurement | Failure = Failure(workload, DeviceError("small.onnx: the cable was pulled"))
    if answer == "inconclusive":
        made = measurement(status="inconclusive", work_name="small.onnx")
    monkeypatch.setattr("hwbench.cli.bench.measure", lambda *_: [made])
    code, out, err = run("predict", "cpu-kernels.hwp", "small.onnx", "--measure", "--json")
    assert code == 0
    result = json.loads(out)["results"][0]
    assert result["measured_ms"] is None
    assert result["measured_status"] == answer
    ends = [None, None] if answer == "failed" else [2.9, 3.1]
    assert [result["measured_low_ms"], result["measured_high_ms"]] == ends
    wanted = {"failed": "could not be measured: the cable", "inconclusive": "measured inconclu"}
    assert wanted[answer] in err


def test_measured_ones_fit_80_columns_with_their_intervals(
    here: Path, run: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["small.onnx", "a-name-that-goes-on-and-on-for-quite-a-while-v2.onnx"]
    for name in names:
        to_onnx(small()).save(name)
    made = [
        measurement(latency_ns=1234.5678e6, low_ns=1222.2e6, high_ns=1333.3e6),
        measurement(status="inconclusive", latency_ns=1111e6, low_ns=1000.9e6, high_ns=1444.4e6),
    ]
    monkeypatch.setattr("hwbench.cli.bench.measure", lambda *_: made)
    code, out, _ = run("predict", "cpu-kernels.hwp", *names, "--measure")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    lines = out[out.index("measured ms") :].splitlines()
    ok, wide = lines[2:4]
    assert ok.split()[:5] == ["small.onnx", "1,235", "1,222", "1,333", "ok"]
    assert ok.split()[5].endswith("%")
    short = console.shortened(names[1], 20)
    assert wide.split() == [short, "-", "1,001", "1,444", "inconclusive", "-"]


def test_what_has_no_equivalent_can_be_measured(here: Path, run: Answer) -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3, 3])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([helper.make_node("Det", ["x"], ["y"])], "g", [x], [y])
    onnx.save(helper.make_model(graph), "det.onnx")
    code, _, err = run("predict", "cpu-kernels.hwp", "det.onnx")
    assert code == 2
    assert err.count("\n") == 1
    assert "no equivalent for Det" in err
    assert "measure it with hwbench bench det.onnx" in err


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


# -- what is refused, and when ---------------------------------------------------------------


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails where a device is calibrated, which comes before anything is measured."""

    def calibrated(*_: object) -> None:
        raise AssertionError("this was to be refused before")

    monkeypatch.setattr("hwbench.cli.kernels.calibrated", calibrated)


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("y.jsonl", "as y.hwp"),
        ("y.JSONL", "as y.hwp"),
        ("", "is a folder: name a file"),
        ("sub", "sub is a folder: name a file"),
        ("missing/y.hwp", "make it first"),
        ("damaged.hwp", "damaged.jsonl is no file of kernel samples (line 1"),
    ],
)
def test_an_output_that_cannot_be_is_refused_before_anything_is_measured(
    out: str, message: str, tmp_path: Path, run: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("sub").mkdir()
    Path("damaged.jsonl").write_text("no samples\n")
    before = sorted(tmp_path.iterdir())
    code, stdout, err = run("kernels", "-n", NETWORKS, "-o", out)
    assert (code, stdout) == (2, "")
    assert message in err
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.usefixtures("unmeasured")
def test_a_runtime_without_a_profile_is_refused_before_anything_is_measured(
    tmp_path: Path, run: Answer
) -> None:
    out = tmp_path / "off.hwp"
    code, _, err = run("kernels", "-d", "litert", "--option", "xnnpack=off", "-o", out)
    assert code == 2
    assert "no operator profile" in err
    assert not [*tmp_path.iterdir()]


@pytest.mark.usefixtures("unmeasured")
def test_samples_of_other_options_do_not_mix(tmp_path: Path, run: Answer) -> None:
    plain = get_device("litert")
    opened_samples(tmp_path / "mix.jsonl", provenance_now(plain, 1, epoch_on(plain)))
    before = (tmp_path / "mix.jsonl").read_bytes()
    out = ("-n", NETWORKS, "-o", tmp_path / "mix.hwp")
    code, _, err = run("kernels", "-d", "litert", "--option", "dtype=int8", *out)
    assert code == 2
    assert "dtype=fp32" in err
    assert "name another file" in err
    assert (tmp_path / "mix.jsonl").read_bytes() == before


def test_a_predictor_of_other_options_is_refused(here: Path, run: Answer) -> None:
    to_onnx(small()).save("small.onnx")
    predictor, device = load_kernels("cpu-kernels.hwp"), get_device("litert")
    made = provenance_now(device, 1, epoch_on(device))
    replace(predictor, meta=replace(predictor.meta, provenance=made)).save("litert.hwp")
    ask = ("predict", "litert.hwp", "small.onnx", "-d", "litert")
    assert run(*ask)[0] == 0
    code, out, err = run(*ask, "--option", "dtype=int8")
    assert (code, out) == (2, "")
    assert "dtype=fp32 xnnpack=on, not dtype=int8 xnnpack=on" in err


HUGE, NAN, INF = 10**400, float("nan"), float("inf")


@pytest.mark.parametrize(
    "changes",
    [
        *({"layouts": each} for each in ([1], None, {"conv": "odd"})),
        *({"left_out": each} for each in ([], {"all": 5}, None)),
        *({"noise": each} for each in (HUGE, NAN, INF, -5.0, "x")),
        *({"typical_sd": each} for each in (NAN, -1.0, 0.0, HUGE)),
        *({"strange": [each, [0.0, 1.0]]} for each in ([NAN, 1.0], [0.0, -1.0], [0.0, INF])),
        *({"strange": [[0.0, 1.0], each]} for each in ([NAN, 1.0], [0.0, -1.0], [1, 2, 3], 5)),
        *({"strange": each} for each in ([0.0, 1.0], [[0.0, 1.0]], 5)),
        *({"n_train": each} for each in (INF, -1, 20.5)),
        *({"fused": each} for each in (5, [["a"]], [{"a": 1}])),
        *({"provenance": {"c0_ns": each}} for each in ([HUGE], [NAN], [-1.0], 5)),
        *({"provenance": {"threads": each}} for each in ("x", -4, 0)),
        {"provenance": {"fingerprint_key": 5}},
    ],
    ids=lambda changes: str(changes)[:40],
)
def test_a_header_that_cannot_be_is_refused(
    changes: dict[str, Any], here: Path, run: Answer
) -> None:
    meta, arrays = files.read(Path("cpu-kernels.hwp"))
    for name, value in changes.items():
        meta[name] = {**meta[name], **value} if name == "provenance" else value
    files.write(Path("edited.hwp"), meta, arrays)
    code, out, err = run("predict", "edited.hwp", "small.onnx")
    assert (code, out) == (2, "")
    assert "its parts do not fit together" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "changes", [{"kernels_version": None}, {"kernels_version": 99}, {"features": "others"}]
)
def test_a_file_of_another_format_is_to_be_fitted_again(
    changes: dict[str, Any], here: Path, run: Answer
) -> None:
    meta, arrays = files.read(Path("cpu-kernels.hwp"))
    files.write(Path("edited.hwp"), {**meta, **changes, "strange": [[0, 1, 2], 5]}, arrays)
    code, out, err = run("predict", "edited.hwp", "small.onnx")
    assert (code, out) == (2, "")
    assert "describes kernels otherwise: fit it again with hwbench kernels" in err


def test_arrays_that_cannot_be_are_refused(here: Path, run: Answer) -> None:
    meta, arrays = files.read(Path("cpu-kernels.hwp"))
    kinds = arrays["kinds"].copy()
    kinds[4:6] = 1e300  # what an operator and a MAC take
    for changes, message in (
        ({"kinds": kinds}, "a kind of kernels has scales that cannot be"),
        ({"extra": np.zeros(2)}, "has other arrays than such a predictor: fit it again"),
    ):
        files.write(Path("edited.hwp"), meta, {**arrays, **changes})
        code, out, err = run("predict", "edited.hwp", "small.onnx")
        assert (code, out) == (2, "")
        assert message in err
        assert err.count("\n") == 1


def test_a_kind_belongs_to_its_model(here: Path, run: Answer) -> None:
    meta, arrays = files.read(Path("cpu-kernels.hwp"))
    for kinds in (meta["kinds"][::-1], [meta["kinds"][1], meta["kinds"][0], *meta["kinds"][2:]]):
        files.write(Path("edited.hwp"), {**meta, "kinds": kinds}, arrays)
        code, _, err = run("predict", "edited.hwp", "small.onnx")
        assert code == 2
        assert "its parts do not fit together" in err


@pytest.mark.parametrize("beside", [0.0, 1e200])
def test_a_covariance_that_cannot_be_is_refused(beside: float, here: Path, run: Answer) -> None:
    meta, arrays = files.read(Path("cpu-kernels.hwp"))
    factor = np.diag(np.diag(arrays["factor"]) * beside)
    files.write(Path("edited.hwp"), meta, {**arrays, "factor": factor})
    code, _, err = run("predict", "edited.hwp", "small.onnx")
    assert code == 2
    assert "its parts do not fit together" in err


def test_failures_are_told_where_too_few_are_left(
    here: Path, tmp_path: Path, run: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sample(device: Any, wanted: Sequence[tuple[str, int]], *_: object) -> Iterator[Failure]:
        for each in wanted:
            job = device.job(GraphModel(network(*each), f"network {each}"), 1)
            yield Failure(job.workload, DeviceError("the cable was pulled"))

    where = "hwbench.predictors.kernels.campaign"
    monkeypatch.setattr(f"{where}.sample_networks", sample)
    monkeypatch.setattr(f"{where}.sample_cases", lambda *_: [])
    code, _, err = run("kernels", "-n", NETWORKS, "-o", tmp_path / "k.hwp")
    assert code == 2
    assert "0 measured networks are too few" in err
    assert err.count("was left out: the cable was pulled") >= NETWORKS
    assert err.index("was left out") < err.index("too few")


def test_tensors_that_no_memory_holds_are_refused(here: Path, run: Answer) -> None:
    b = GraphBuilder("huge")
    x = b.activation(b.input("x", (1, 2**31, 2**31)), "relu")
    to_onnx(b.build(x)).save("huge.onnx")
    code, out, err = run("predict", "cpu-kernels.hwp", "huge.onnx")
    assert (code, out) == (2, "")
    assert "which no memory holds" in err
    assert err.count("\n") == 1
