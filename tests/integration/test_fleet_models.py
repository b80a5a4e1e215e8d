"""Model files over a fleet: `bench` and `gate` on phones that sleep, by real Dask."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from dataclasses import replace
from itertools import chain, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from hwbench import GraphBuilder
from hwbench.cli import main
from hwbench.cli.bench import jobs_of
from hwbench.devices import get_device
from hwbench.errors import ModelError, UsageError
from hwbench.fleet import link, tasks, work
from hwbench.fleet.link import connected, local_cluster
from hwbench.fleet.models import FleetModels, OneDevice
from hwbench.fleet.work import Sent, far_job
from hwbench.lower import random_weights, to_onnx
from hwbench.measure.jobs import Job
from hwbench.measure.plan import Failure, Plan
from hwbench.records import Measurement
from hwbench.store import Store
from tests.fleet_devices import FakePhone
from tests.fleets import Start, local, told

if TYPE_CHECKING:
    from distributed import Worker

pytestmark = pytest.mark.usefixtures("fakes")

PLAN = Plan(processes=3, seconds=0.1, loaded=4)
FAST = ("--seconds", "0.2", "--json")


def net(path: Path, depth: int) -> Path:
    """A file of so many layers; a fake phone takes it for so much longer."""
    builder = GraphBuilder("net")
    x = builder.input("image", (1, 3, 8, 8))
    for _ in range(depth):
        x = builder.activation(builder.conv(x, 8), "relu")
    graph = builder.build(x)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(to_onnx(graph, random_weights(graph, 0)).bytes)
    return path


@pytest.fixture
def nets(tmp_path: Path) -> list[Path]:
    return [net(tmp_path / "nets" / f"net{depth}.onnx", depth) for depth in range(1, 7)]


def printed(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def spans(found: list[Measurement], device: str) -> list[tuple[int, int]]:
    """When each session of a device began and ended, in their order."""
    by: dict[str, list[Measurement]] = {}
    for m in found:
        if m.fingerprint.device == device:
            by.setdefault(m.session, []).append(m)
    return sorted(
        (
            min(int(m.bursts.start_ns.min()) for m in each),
            max(int(m.bursts.start_ns.max()) for m in each),
        )
        for each in by.values()
    )


def _read(path: Path) -> Any:
    from hwbench.devices.models import read_model_file

    return read_model_file(path)


@pytest.mark.filterwarnings("error:Sending large graph")
def test_bench_says_what_it_says_without_a_fleet(
    nets: list[Path], own_store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    builder = GraphBuilder("large")
    graph = builder.build(builder.linear(builder.input("x", (1, 1700)), 1700))
    nets[0].write_bytes(to_onnx(graph, random_weights(graph, 0)).bytes)  # 11 MiB
    files = list(map(str, nets[:3]))
    assert main(["bench", *files, "-d", "fake:1", "--tag", "a=b", *FAST]) == 0
    here = printed(capsys)["results"]
    of = ("--fleet", "local", "-d", "fake:1,fake:2", "--tag", "a=b")
    assert main(["bench", *files, *of, *FAST]) == 0
    there = printed(capsys)["results"]
    assert {e["device"] for e in there} == {"fake:1", "fake:2"}
    varying = {"device", "samples", "seconds", "first_inference_ms", "load_ms", "contention"}
    for one, other in zip(here, there, strict=True):
        assert one.keys() == other.keys()
        assert other["latency_ms"] == pytest.approx(one["latency_ms"], rel=0.01)
        same = [k for k in one if k not in varying and not isinstance(one[k], float)]
        assert [one[k] for k in same] == [other[k] for k in same]
    with Store.open(own_store) as store:
        stored = store.measurements()
        assert {m.tags["a"] for m in stored} == {"b"}
        assert {m.session for m in stored} == {run.session for run in store.canary_runs()}
    assert main(["bench", *files, *of, "--seconds", "0.2"]) == 0
    out = capsys.readouterr().out
    assert all(word in out for word in ("On fake:1", "On fake:2", *(p.name for p in nets[:3])))


def test_a_gate_says_what_it_says_without_a_fleet(
    tmp_path: Path, own_store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Slower, faster, the same, and one without a baseline; each pair on one device."""
    depths = {"slow": (2, 4), "fast": (4, 2), "same": (3, 3), "small": (1, 1)}
    before = [net(tmp_path / "before" / f"{n}.onnx", a) for n, (a, _) in depths.items()]
    after = [str(net(tmp_path / "after" / f"{n}.onnx", b)) for n, (_, b) in depths.items()]
    before[-1].unlink()
    gate = ("gate", *after, "--baseline", str(tmp_path / "before"), *FAST)
    assert main([*gate, "-d", "fake:1"]) == 1
    here = printed(capsys)
    assert main([*gate, "--fleet", "local", "-d", "fake:1,fake:2"]) == 1
    captured = capsys.readouterr()
    there = json.loads(captured.out)
    assert there["errors"] == here["errors"]
    for one, other in zip(here["gate"], there["gate"], strict=True):
        assert one.keys() == other.keys()
        exact = ("name", "a", "b", "verdict", "confidence", "paired", "processes")
        assert [one[k] for k in exact] == [other[k] for k in exact]
        assert other["change_pct"] == pytest.approx(one["change_pct"], abs=1)
        assert (one["first_alarm_pct"] is None) == (other["first_alarm_pct"] is None)
        (note,) = other["notes"]
        assert note in ("measured on fake:1", "measured on fake:2")
        assert f"{one['name']}: {note}" in captured.err
    assert [e["verdict"] for e in there["gate"]] == ["slower", "faster", "same"]

    with Store.open(own_store) as store:
        found = store.measurements()[len(store.measurements()) // 2 :]
    pairs = Counter((m.session, m.fingerprint.device) for m in found)
    assert set(pairs.values()) == {2}, "both of a pair in one session"
    assert {device for _, device in pairs} == {"fake:1", "fake:2"}
    places = {(m.workload.name.partition(" ")[0], m.fingerprint.device) for m in found}
    assert len(places) == 3, "an alarm is measured again where it was raised"
    assert Counter(m.workload.name for m in found)["slow.onnx"] == 2
    for device in ("fake:1", "fake:2"):
        ends = spans(found, device)
        assert all(one[1] < other[0] for one, other in pairwise(ends)), "one task at a time"


def test_a_file_that_cannot_be_sent_keeps_no_other_from_it(
    nets: list[Path], own_store: Path
) -> None:
    with local_cluster(local("1", "2")) as client, Store.open(own_store) as store:
        models = FleetModels(client, "phone")
        jobs = jobs_of(models, nets[:4], {}, 1)
        nets[0].unlink()
        net(nets[2], 9)
        gone, one, changed, other = models.bench(jobs, PLAN, store)
        assert isinstance(gone, Failure)
        assert "net1.onnx: cannot be read: No such file" in str(gone.error)
        assert isinstance(changed, Failure)
        assert "net3.onnx changed while" in str(changed.error)
        assert isinstance(one, Measurement)
        assert isinstance(other, Measurement)
        assert {m.workload.name for m in store.measurements()} == {"net2.onnx", "net4.onnx"}
        (watched,) = store.standings()
        assert (watched.done, watched.failed) == (2, 2)
        assert isinstance(models.bench(jobs[:1], PLAN, store)[0], Failure)
        with pytest.raises(ModelError, match="cannot be read"):
            OneDevice(models, store).session(jobs[:2], PLAN, None)


def test_a_batch_of_the_devices_own_is_the_models(
    nets: list[Path], own_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def job(self: FakePhone, *asked: Any) -> Job:
        own = sound(self, *asked)
        inputs = tuple(replace(each, shape=(8, *each.shape[1:])) for each in own.workload.inputs)
        return replace(own, workload=replace(own.workload, inputs=inputs))

    sound = FakePhone.job
    monkeypatch.setattr(FakePhone, "job", job)
    with local_cluster(local("1")) as client, Store.open(own_store) as store:
        models = FleetModels(client, "phone")
        (answer,) = models.bench(jobs_of(models, nets[:1], {}, 1), PLAN, store)
        assert isinstance(answer, Measurement)
        assert answer.workload.inputs[0].shape == (8, 3, 8, 8)


def test_a_gate_on_history_asks_the_device_that_has_one(
    tmp_path: Path,
    own_store: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = net(tmp_path / "model.onnx", 3)
    fleet = ("--fleet", "local", "-d", "fake:1,fake:2,fake:3")
    short = ("--tolerance", "10", "--seconds", "0.2", "--json")
    gate = ("gate", str(model), "--baseline", "history", *short)
    assert main([*gate, *fleet]) == 3
    assert "run hwbench bench on the baseline" in capsys.readouterr().err
    assert main(["bench", str(model), "-d", "fake:3", *FAST]) == 0
    printed(capsys)
    assert main([*gate, *fleet]) == 0
    (entry,) = printed(capsys)["gate"]
    assert (entry["verdict"], entry["notes"]) == ("same", ["measured on fake:3"])
    net(model, 5)
    assert main([*gate, *fleet]) == 1
    (entry,) = printed(capsys)["gate"]
    assert entry["verdict"] == "slower"
    assert entry["first_alarm_pct"] == pytest.approx(entry["change_pct"], abs=1)
    with Store.open(own_store) as store:
        assert {m.fingerprint.device for m in store.measurements()} == {"fake:3"}


def test_what_a_lost_worker_was_at_goes_elsewhere(
    start: Start,
    nets: list[Path],
    own_store: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One of three hosts is killed in the middle of a bench, the next one in that of a gate."""
    monkeypatch.setattr(tasks, "PATIENCE_S", 1.0)
    address = told(start("fleet", "scheduler", "tcp://127.0.0.1:0")).split()[-1]
    hosts = {
        name: start("fleet", "worker", address, "--devices", f"phone=fake:{name}", "--name", name)
        for name in ("desk", "shelf", "bank")
    }
    assert all("lending" in told(each) for each in hosts.values())

    files = [*nets, nets[0]]  # a file that is named twice is measured twice
    with connected(address, None) as client, Store.open(own_store) as store:
        models = FleetModels(client, "phone")
        jobs = jobs_of(models, files, {}, 1)
        answers = models.bench(jobs, PLAN, store, lambda share: hosts["desk"].kill())
        stored = store.measurements()
    assert [a.workload.name for a in answers] == [path.name for path in files]
    assert Counter(m.workload.name for m in stored) == Counter(path.name for path in files)
    for answer, path in zip(answers, files, strict=True):
        assert isinstance(answer, Measurement)
        assert answer.latency_ns == pytest.approx(1000 * path.stat().st_size, rel=0.01)
        assert answer.workload.key == FakePhone("a").job(_read(path), 1).workload.key

    killed, ended = list[str](), threading.Event()

    def devices(dask_worker: Worker) -> list[dict[str, str]]:
        return dask_worker.extensions["hwbench"].told()  # what the scheduler hears a second later

    def kill_the_busy() -> None:
        with connected(address, None) as client:
            while not (killed or ended.is_set()):
                for seat in chain(*client.run(devices).values()):
                    if seat["state"] == "busy" and not killed:
                        killed.append(seat["device"].partition("@")[2])
                        hosts[killed[0]].kill()
                time.sleep(0.05)

    killer = threading.Thread(target=kill_the_busy)
    killer.start()
    of = ("--baseline", str(nets[1]), "--fleet", address, "-d", "phone")
    code = main(["gate", str(nets[3]), *of, "--seconds", "1", "--sessions", "1", "--json"])
    ended.set()
    killer.join()
    (entry,) = printed(capsys)["gate"]
    assert (code, entry["verdict"]) == (1, "slower")
    (other,) = {"shelf", "bank"} - set(killed)
    assert entry["notes"] == [f"measured on fake:{other}@{other}"]
    with Store.open(own_store) as store:
        found = [m.fingerprint.device for m in store.measurements()[len(stored) :]]
    assert found[-4:] == [f"fake:{other}@{other}"] * 4, "an alarm is measured twice"
    # What died in the second of its sessions had ended the first, which is kept.
    (dead,) = killed
    assert found[:-4] in ([], [f"fake:{dead}@{dead}"] * 2)


def test_a_comparison_begins_anew_where_its_device_gives_out(
    fakes: Path,
    nets: list[Path],
    own_store: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Between its sessions: what one device said is not completed by another."""
    real, broken = OneDevice.session, list[str]()

    def session(self: OneDevice, *asked: Any) -> Any:
        if self.device is not None and not broken:
            broken.append(self.device)
            (fakes / f"{self.device.partition(':')[2]}.broken").touch()
        return real(self, *asked)

    monkeypatch.setattr(OneDevice, "session", session)
    of = ("--baseline", str(nets[1]), "--fleet", "local", "-d", "fake:1,fake:2")
    assert main(["gate", str(nets[3]), *of, *FAST]) == 1
    (entry,) = printed(capsys)["gate"]
    (other,) = {"fake:1", "fake:2"} - set(broken)
    assert (entry["verdict"], entry["notes"]) == ("slower", [f"measured on {other}"])
    with Store.open(own_store) as store:
        found = Counter(m.fingerprint.device for m in store.measurements())
    assert found == {broken[0]: 2, other: 4}


@pytest.mark.parametrize(
    ("command", "code", "word"),
    [
        (
            "bench MODEL --fleet local -d fake:1 --profile-ops",
            2,
            "operators can be timed on this machine",
        ),
        ("bench a/manifest.json --fleet local -d fake:1", 2, "a network in stages can be timed"),
        ("bench MODEL --fleet local -d fake:1 --cores 0", 2, "--cores are this process's"),
        ("bench a.py:make --fleet local -d fake:1", 2, "a torch module can be timed"),
        ("bench none.onnx --fleet local -d fake:1", 2, "No such file"),
        ("bench MODEL --fleet local -d litert", 2, "litert: litert runs .tflite files"),
        ("bench MODEL --fleet tcp://127.0.0.1:9 -d cpu", 4, "no fleet answers"),
        ("bench MODEL --fleet tcp://127.0.0.1:9 -d cpu --option a=b", 2, "their worker gave them"),
        ("gate MODEL --baseline MODEL --fleet local -d fake:1", 2, "is the model itself"),
        ("gate MODEL --baseline history --fleet tcp://10.0.0.1:1 -d cpu", 2, "and --tls FOLDER"),
    ],
)
def test_what_a_fleet_does_not_do_is_told_in_a_line(
    command: str,
    code: int,
    word: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(link, "CONNECT_S", 0.3)
    model = str(net(tmp_path / "model.onnx", 1))
    assert main(command.replace("MODEL", model).split()) == code
    err = capsys.readouterr().err
    assert word in err
    assert len(err.splitlines()) == 1


def test_a_model_arrives_as_it_was_with_all_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnx

    path = net(tmp_path / "here" / "model.onnx", 2)
    (path.parent / "data").mkdir()
    stored = onnx.load(path)
    onnx.save(stored, path, save_as_external_data=True, location="data/w.bin", size_threshold=0)
    job = far_job(_read(path), 1)
    sent = Sent.of(json.loads(json.dumps(Sent.read(job).document())))
    assert set(sent.files) == {"model.onnx", "data/w.bin"}
    there = sent.job(get_device("cpu"), 1, tmp_path / "there")
    assert there.workload == get_device("cpu").job(_read(path), 1).workload

    here = Sent.read(job).document() | {"file": str(path)}
    with pytest.raises(UsageError, match="did not come along"):
        Sent.of(here)
    for name in ("../w.bin", "/tmp/w.bin", "data/../../w.bin"):
        document = Sent.read(job).document()
        document["files"][name] = ""
        with pytest.raises(UsageError, match="is not beside it"):
            Sent.of(document)
    monkeypatch.setattr(work, "MOST_BYTES", 100)
    with pytest.raises(ModelError, match="too many to send"):
        Sent.read(job)
    monkeypatch.undo()
    (path.parent / "data" / "w.bin").write_bytes(b"")
    with pytest.raises(ModelError, match="changed while"):
        Sent.read(job)
