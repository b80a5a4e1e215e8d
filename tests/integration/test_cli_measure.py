"""`hwbench doctor`, `devices`, `bench` and `profile` on this machine's CPU, for real."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from hwbench import GraphBuilder
from hwbench.cli import main
from hwbench.devices import get_device
from hwbench.lower import random_weights, to_onnx
from hwbench.measure.campaign import DRIFT_SESSIONS
from hwbench.measure.canary import load_canaries
from hwbench.measure.process import WorkerProcess
from hwbench.records import CanaryEpoch
from hwbench.spaces import get_space, space_names
from hwbench.store import Store
from tests.measurements import epoch_on, measurement

#: Three processes are enough where no test asks how sure an answer is.
SHORT = ("--seconds", "0.4", "--precision", "50")
#: The entry of a model as other programs rely on it.
FIXED_FIELDS = {
    "name", "latency_ms", "latency_ms_low", "latency_ms_high", "p50_ms", "p90_ms", "p99_ms",
    "samples", "rejected", "warmup", "stop_reason", "peak_memory_mb", "seconds",
}  # fmt: skip


@pytest.fixture(scope="module")
def readings() -> list[float]:
    """The canaries' times, in ns: about what a calibration would find."""
    device = get_device("cpu")
    with WorkerProcess(device.python) as worker:
        answer = worker.ask("round", [], load_canaries(worker, device.canaries(1)))
    return [float(ns) for ns in answer["readings"][0]]


@pytest.fixture(autouse=True)
def known_epoch(own_store: Path, readings: list[float]) -> CanaryEpoch:
    """A store that needs no calibration: these tests are about no millisecond."""
    epoch = epoch_on(get_device("cpu"), readings)
    with Store.open(own_store) as store:
        store.add_epoch(epoch)
    return epoch


def conv_net(path: Path, channels: int) -> Path:
    builder = GraphBuilder(path.stem)
    x = builder.conv(builder.input("image", (1, 3, 32, 32)), channels)
    graph = builder.build(builder.activation(x, "relu"))
    path.write_bytes(to_onnx(graph, random_weights(graph, 0)).bytes)
    return path


def one_node(path: Path, kind: str, shape: list[int | str], dtype: int = TensorProto.FLOAT) -> Path:
    x = helper.make_tensor_value_info("x", dtype, shape)
    y = helper.make_tensor_value_info("y", dtype, None)
    graph = helper.make_graph([helper.make_node(kind, ["x"], ["y"])], path.stem, [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.save(model, path)
    return path


def printed(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_devices_lists_the_cpu(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["devices", "--json"]) == 0
    assert "cpu" in [device["name"] for device in printed(capsys)["devices"]]
    assert main(["devices"]) == 0
    assert "cpu" in capsys.readouterr().out


def test_spaces_are_listed_with_an_architecture_of_each(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["spaces", "--json"]) == 0
    found = printed(capsys)["spaces"]
    assert [space["name"] for space in found] == space_names()
    for space in found:
        get_space(space["name"]).encode([space["example"]])
    assert main(["spaces"]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


def test_doctor_checks_by_a_real_inference(
    known_epoch: CanaryEpoch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "--json"]) == 0
    answer = printed(capsys)
    assert answer["ok"] is True
    states = {check["name"]: check["state"] for check in answer["checks"]}
    assert states["runtime"] == states["canaries"] == "ok"
    assert answer["epoch"]["id"] == known_epoch.id


def test_doctor_says_when_the_canaries_left_their_epoch(
    known_epoch: CanaryEpoch, own_store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def finding(moved_by: float) -> tuple[str, str]:
        with Store.open(own_store) as store:
            for number in range(DRIFT_SESSIONS):
                store.add_canary_run(
                    known_epoch.fingerprint_key,
                    known_epoch.canary_key,
                    known_epoch.threads,
                    f"session {moved_by} {number}",
                    f"2099-01-31T12:00:0{number}+00:00",
                    [c0 * moved_by for c0 in known_epoch.c0_ns],
                )
        assert main(["doctor", "--json"]) == 0
        (check,) = [c for c in printed(capsys)["checks"] if c["name"] == "epoch"]
        return check["state"], check["detail"]

    assert finding(1.0)[0] == "ok"
    state, detail = finding(0.5)
    assert state == "warn"
    # What neighbours hold of the cache they share is no change of the machine.
    shared = {c.name for c in get_device("cpu").canaries(1) if c.kind == "cache"}
    assert {name for name in known_epoch.names if name not in detail} == shared


@pytest.mark.usefixtures("short_calibration")
@pytest.mark.parametrize("spread", [0.1, 0.3])
def test_canonical_times_in_doubt_are_named_with_their_cure(
    spread: float, own_store: Path, readings: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    """Not that the machine is busy now, but that it was when they were set."""
    later = {"id": "f" * 12, "created": "2099-01-31T12:00:00+00:00"}
    with Store.open(own_store) as store:
        store.add_epoch(epoch_on(get_device("cpu"), readings, spread, **later))
    assert main(["doctor"]) == 0
    assert ("hwbench doctor -d cpu --recalibrate" in capsys.readouterr().err) == (spread > 0.2)


@pytest.mark.usefixtures("short_calibration")
def test_doctor_sets_a_new_epoch_only_on_purpose(
    known_epoch: CanaryEpoch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "--recalibrate", "--json"]) == 0
    new = printed(capsys)["epoch"]["id"]
    assert new != known_epoch.id
    assert main(["doctor", "--json"]) == 0
    assert printed(capsys)["epoch"]["id"] == new


def test_bench_answers_each_model_in_the_order_given(
    tmp_path: Path, own_store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = [conv_net(tmp_path / f"{name}.onnx", c) for name, c in (("b", 32), ("a", 4))]
    code = main(["bench", *map(str, models), "--seconds", "0.6", "--json"])
    assert code in (0, 3)  # whether an interval is narrow enough is this machine's affair
    results = printed(capsys)["results"]
    assert [entry["name"] for entry in results] == ["b.onnx", "a.onnx"]
    for entry in results:
        assert set(entry) >= FIXED_FIELDS
        low, ms, high = (entry[f"latency_ms{end}"] for end in ("_low", "", "_high"))
        assert 0 < low < high
        assert low < ms < high if entry["status"] == "ok" else ms is None
        assert entry["samples"] > 0
        assert entry["peak_memory_mb"] > 0
        assert entry["error"] is None
    assert (code == 3) == any(entry["status"] == "inconclusive" for entry in results)
    with Store.open(own_store, create=False) as store:
        assert {m.workload.name for m in store.measurements()} == {"a.onnx", "b.onnx"}


def test_bench_shows_a_table_and_the_operators(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = conv_net(tmp_path / "net.onnx", 8)
    assert main(["bench", str(model), *SHORT, "--profile-ops"]) in (0, 3)
    shown = capsys.readouterr().out
    assert "net.onnx" in shown
    assert "Conv" in shown
    assert "of the instrumented run" in shown
    assert max(map(len, shown.splitlines())) <= 80


@pytest.mark.parametrize("busy", [10.0, 90.0])
def test_what_is_no_answer_is_no_number_and_says_what_to_do(
    busy: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wide = measurement(status="inconclusive", work_name="net.onnx")
    monkeypatch.setattr("hwbench.cli.bench.measure", lambda *_: [wide])
    monkeypatch.setattr("psutil.cpu_percent", lambda interval: busy)
    model = str(conv_net(tmp_path / "net.onnx", 4))
    assert main(["bench", model, "--json"]) == 3
    out, err = capsys.readouterr()
    (entry,) = json.loads(out)["results"]
    assert entry["latency_ms"] is None
    assert 0 < entry["latency_ms_low"] < entry["latency_ms_high"]
    assert err.startswith("other programs keep 90% of") == (busy > 50)
    assert all(word in err.splitlines()[-1] for word in ("net.onnx", "doctor", "--seconds"))
    assert main(["bench", model]) == 3
    assert "No latency: inconclusive" in capsys.readouterr().out


def test_bench_gives_every_operator_as_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = conv_net(tmp_path / "net.onnx", 8)
    assert main(["bench", str(model), *SHORT, "--profile-ops", "--json"]) in (0, 3)
    (entry,) = printed(capsys)["results"]
    operators = entry["operators"]
    assert sum(op["share"] for op in operators["ops"]) == pytest.approx(1)
    assert sum(op["ms"] for op in operators["ops"]) == pytest.approx(
        operators["covered"] * operators["instrumented_ms"]
    )


def test_an_open_shape_is_settled_for_the_models_that_have_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    open_one = one_node(tmp_path / "open.onnx", "Relu", ["n", 64])
    closed = conv_net(tmp_path / "closed.onnx", 4)
    assert main(["bench", str(open_one)]) == 2
    assert "open dimensions in input x" in capsys.readouterr().err
    assert main(["bench", str(open_one), "--shape", "z=2,64"]) == 2
    assert "'z'" in capsys.readouterr().err
    models = [str(closed), str(open_one)]
    assert main(["bench", *models, "--shape", "x=2,64", *SHORT, "--json"]) in (0, 3)
    assert all(entry["samples"] > 0 for entry in printed(capsys)["results"])


def test_a_model_that_fails_leaves_the_others_their_answers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = conv_net(tmp_path / "good.onnx", 4)
    bad = one_node(tmp_path / "bad.onnx", "NoSuchOperator", [1, 4])
    assert main(["bench", str(bad), str(good), *SHORT, "--json"]) == 2
    said = capsys.readouterr()
    failed, measured = json.loads(said.out)["results"]
    assert failed["name"] == "bad.onnx"
    assert failed["latency_ms"] is None
    assert "NoSuchOperator" in failed["error"]
    assert measured["latency_ms_high"] > 0
    assert said.err.splitlines()[-1].startswith("hwbench: bad.onnx")


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "No such file"), (b"", "net.onnx"), (b"\x08\x07garbage", "net.onnx")],
)
def test_a_file_that_is_no_model_is_told_before_anything_runs(
    content: bytes | None, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "net.onnx"
    if content is not None:
        path.write_bytes(content)
    assert main(["bench", str(path), "--json"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert words in said.err


def test_a_core_that_is_not_ours_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = conv_net(tmp_path / "net.onnx", 4)
    assert main(["bench", str(model), "--cores", "4000"]) == 2
    assert "4000" in capsys.readouterr().err


def test_profile_goes_on_where_it_stopped_and_holds_decisions(
    own_store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["profile", "-s", "mbv3_small", "-n", "3", "--fix", "r=28", "--json"]
    # 3: measured, but a busy machine may leave every interval too wide to be an answer.
    assert main(command) in {0, 3}
    first = printed(capsys)
    assert (first["measured"], first["already_stored"], first["failed"]) == (3, 0, 0)
    assert main(command) in {0, 3}
    again = printed(capsys)
    assert (again["measured"], again["already_stored"]) == (0, 3)
    assert again["campaign"] == first["campaign"]
    with Store.open(own_store, create=False) as store:
        shapes = {m.workload.inputs[0].shape[-1] for m in store.measurements(space="mbv3_small")}
    assert shapes == {28}


@pytest.mark.parametrize(
    ("fix", "words"),
    [
        ("resolutio=28", "'resolutio'"),
        ("r=29", "r is one of 28"),
        ("r", "name=value"),
    ],
)
def test_a_decision_that_is_not_there_is_told(
    fix: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["profile", "-s", "mbv3_small", "-n", "3", "--fix", fix]) == 2
    assert words in capsys.readouterr().err


def test_an_interrupted_profile_says_how_to_go_on_and_loses_nothing(own_store: Path) -> None:
    command = [sys.executable, "-m", "hwbench", "profile", "-s", "mbv3_small", "-n", "40", "--json"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("time for 40 architectures"):
                break
        time.sleep(1)  # it is among its workers now
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert stdout == ""
    with Store.open(own_store, create=False) as store:
        kept = store.measurements()
    assert stderr.splitlines() == [
        f"hwbench: interrupted: {len(kept)} of 40 architectures are stored, the same command goes "
        "on with the others"
    ]
    assert all(np.isfinite(m.latency_ns or np.nan) for m in kept)
    assert not _group(process.pid)


def _group(group: int) -> list[int]:
    """Living processes of a process group."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(ProcessLookupError):
                if os.getpgid(int(entry.name)) == group:
                    found.append(int(entry.name))
    return found
