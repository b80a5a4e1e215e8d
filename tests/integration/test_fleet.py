"""A fleet: real schedulers and workers on this machine, phones that sleep, and one real CPU."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psutil
import pytest

from hwbench.cli import main
from hwbench.devices import get_device
from hwbench.errors import DeviceError, UsageError
from hwbench.fleet import link, tasks
from hwbench.fleet import sweep as fleet_sweep
from hwbench.fleet.block import Answer, Order
from hwbench.fleet.link import TLS_FILES, connected, local_cluster
from hwbench.fleet.standing import standing
from hwbench.fleet.sweep import FleetSweep
from hwbench.fleet.tasks import Tasks
from hwbench.fleet.work import Architectures
from hwbench.fleet.workers import workers_of
from hwbench.measure.plan import Plan
from hwbench.records import Measurement
from hwbench.spaces import get_space
from hwbench.store import Store
from tests.fleets import Start, local, told
from tests.measurements import epoch_on
from tests.targets import with_light_canaries

if TYPE_CHECKING:
    from distributed import Future

SPACE = get_space("mbv3_small")
PLAN = Plan(processes=3, seconds=0.1, loaded=15)
README = Path(__file__).resolve().parents[2] / "README.md"

pytestmark = pytest.mark.usefixtures("fakes")


def sample(n: int, seed: int = 0) -> np.ndarray:
    return SPACE.sample(n, np.random.default_rng(seed))


def once_each(store: Store, sweep: FleetSweep) -> dict[str, int]:
    """How many measurements each device has, where each architecture has one in all."""
    found = store.measurements(space=SPACE.name)
    assert Counter(m.workload.arch for m in found) == Counter(set(sweep.keys))
    assert all(m.status == "ok" and m.bursts.sample_ns.size for m in found)
    epochs = {e.id: e.fingerprint_key for e in store.epochs()}
    assert all(epochs[m.epoch or ""] == m.fingerprint.key for m in found)
    sessions = {m.session for m in found}
    assert sessions == {run.session for run in store.canary_runs()}
    return Counter(m.fingerprint.device for m in found)


# --- real processes -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folders for ``--tls``, by the name of the authority; each has one certificate."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make certificates with")
    place = tmp_path_factory.mktemp("tls")

    def folder(authority: str) -> Path:
        made = place / authority
        if made.exists():
            return made
        made.mkdir()
        new = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj "
        for how in (
            f"/CN={authority} -keyout ca.key -out ca.pem",
            "/CN=lab -keyout key.pem -out cert.pem -CA ca.pem -CAkey ca.key",
        ):
            subprocess.run((new + how).split(), cwd=made, check=True, capture_output=True)
        assert all((made / name).is_file() for name in TLS_FILES)
        return made

    return folder


def shown(word: str, address: str) -> list[str]:
    """The README's command that has this word, at another address."""
    (line,) = re.findall(rf"^hwbench (.*{word}.*)$", README.read_text("utf-8"), re.MULTILINE)
    words = shlex.split(line, comments=True)
    return [address if word.startswith("tcp:") else word for word in words]


def listening(process: subprocess.Popen[str]) -> set[str]:
    connections = psutil.Process(process.pid).net_connections("inet")
    return {c.laddr.ip for c in connections if c.status == psutil.CONN_LISTEN}


def test_a_worker_that_is_killed_loses_nothing(
    start: Start,
    certificates: Callable[[str], Path],
    own_store: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By the README's commands, under TLS; in the end no worker is left, and that is said."""
    tls = certificates("ours")
    guard = ("--tls", str(tls))
    scheduler = start(*shown("fleet scheduler", "tls://127.0.0.1:0"), *guard)
    address = told(scheduler).split()[-1]
    worker = shown("fleet worker tcp", address)
    devices = worker.index("--devices") + 1
    workers = []
    for host, phones in (("desk", "1"), ("shelf", "23")):
        worker[devices] = ",".join(f"pixel7=fake:{n}" for n in phones)
        workers.append(start(*worker, "--name", host, *guard))
    assert all("lending" in told(each) for each in workers)
    for process in (scheduler, *workers):
        assert listening(process) == {"127.0.0.1"}

    assert main([*shown("fleet status", address), *guard, "--json"]) == 0
    seats = json.loads(capsys.readouterr().out)["devices"]
    assert [s["device"] for s in seats] == ["fake:1@desk", "fake:2@shelf", "fake:3@shelf"]
    assert {s["state"] for s in seats} == {"free"}
    for other in (certificates("theirs"), None):
        with pytest.raises((DeviceError, UsageError)), connected(address, other):
            pass
    with pytest.raises(DeviceError), connected(address.replace("tls", "tcp"), None):
        pass

    with connected(address, tls) as client, Store.open(own_store) as store:
        sweep = FleetSweep(client, "pixel7", SPACE, sample(48))
        assert sweep.calibrate(store) == []
        for count, result in enumerate(sweep.run(store, PLAN, sweep.keys, campaign="c")):
            assert isinstance(result, Measurement)
            if count == 0:
                workers[0].kill()
        by = once_each(store, sweep)
        assert {"fake:2@shelf", "fake:3@shelf"} <= set(by)
        again = FleetSweep(client, "pixel7", SPACE, sample(56))
        assert set(again.devices) == {"fake:2@shelf", "fake:3@shelf"}
        # Of the device that has gone nothing is known: its share is measured on the others.
        assert len(again.stored(store)) == sum(by.values()) - by["fake:1@desk"]

        monkeypatch.setattr(tasks, "PATIENCE_S", 0.5)
        workers[1].send_signal(signal.SIGKILL)
        with pytest.raises(DeviceError, match="the last worker with a device of the kind 'pixel7'"):
            list(again.run(store, PLAN, again.keys, campaign="d"))
    assert scheduler.poll() is None


def test_an_answer_that_goes_with_its_worker_is_measured_again(
    start: Start, own_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host is killed after its block, while the scheduler fetches the answer for the client."""
    address = told(start("fleet", "scheduler", "tcp://127.0.0.1:0")).split()[-1]
    hosts = {
        name: start("fleet", "worker", address, "--devices", f"phone=fake:{name}", "--name", name)
        for name in ("desk", "shelf")
    }
    assert all("lending" in told(each) for each in hosts.values())
    struck = 0.0
    fetched = Tasks._result

    def result(self: Tasks, future: Future) -> str:
        nonlocal struck
        if not struck:
            (holder,) = self.client.who_has([future])[future.key]
            host = hosts[workers_of(self.client)[holder]["name"]]
            host.send_signal(signal.SIGSTOP)  # whoever asks it for the answer waits
            threading.Timer(1, host.kill).start()
            struck = time.monotonic()
        return fetched(self, future)

    with connected(address, None) as client, Store.open(own_store) as store:
        sweep = FleetSweep(client, "phone", SPACE, sample(32))
        sweep.calibrate(store)
        monkeypatch.setattr(Tasks, "_result", result)
        answers = list(sweep.run(store, PLAN, sweep.keys, campaign="c"))
        assert time.monotonic() - struck < 30, "nobody tries to reach the dead for long"
        assert all(isinstance(a, Measurement) for a in answers)
        once_each(store, sweep)


def test_a_host_that_comes_back_is_anchored_as_before(start: Start, own_store: Path) -> None:
    """By what the client left with the scheduler, which keeps it no longer than the client."""
    address = told(start("fleet", "scheduler", "tcp://127.0.0.1:0")).split()[-1]
    lend = ("fleet", "worker", address, "--devices", "phone=fake:1,phone=fake:2", "--name", "desk")
    host = start(*lend)
    assert "lending" in told(host)
    with connected(address, None) as client, Store.open(own_store) as store:
        sweep = FleetSweep(client, "phone", SPACE, sample(32))
        assert sweep.calibrate(store) == []
        host.kill()
        host.wait()
        assert "lending" in told(start(*lend))
        assert all(sweep.run(store, PLAN, sweep.keys, campaign="c"))
        assert set(once_each(store, sweep)) == {"fake:1@desk", "fake:2@desk"}
        assert len(store.epochs()) == 2
        (kept,) = client.get_metadata(["hwbench", client.id]).values()
        assert len(kept) == 2
    with connected(address, None) as client:
        assert client.get_metadata(["hwbench"]) == {}


# --- in this process ----------------------------------------------------------------------


def test_a_device_that_fails_is_set_aside_with_a_word(fakes: Path, own_store: Path) -> None:
    with local_cluster(local("1", "2", failures=2)) as client, Store.open(own_store) as store:
        sweep = FleetSweep(client, "phone", SPACE, sample(64))
        sweep.calibrate(store)
        for count, result in enumerate(sweep.run(store, PLAN, sweep.keys, campaign="c")):
            assert isinstance(result, Measurement)
            if count == 0:
                (fakes / "2.broken").touch()
        assert once_each(store, sweep)["fake:1"] >= 48
        worker = next(iter(client.cluster.workers.values()))
        one, two = worker.extensions["hwbench"].told()
        assert (one["state"], two["state"]) == ("free", "set aside")
        assert two["word"] == "fake:2 is off line"
        (watched,) = store.standings()
        assert (watched.done, watched.failed, watched.sweep.what) == (64, 0, SPACE.name)
        assert {name: share.failures for name, share in watched.shares.items()} == {
            "fake:1": 0,
            "fake:2": 2,
        }
        assert watched.shares["fake:1"].counts["ok"] == once_each(store, sweep)["fake:1"]

        (fakes / "1.broken").touch()
        with pytest.raises(DeviceError, match=r"all devices .* fake:1 is off line.*fake:2 is off"):
            list(sweep.run(store, PLAN, sweep.keys[:8], campaign="d"))
        later = FleetSweep(client, "phone", SPACE, sample(8))
        with pytest.raises(DeviceError, match="all are set aside"):
            later.calibrate(store)


def test_one_task_at_a_time_and_the_urgent_first(
    own_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet_sweep, "BLOCKS_A_DEVICE", 5)
    ended: list[str] = []
    with local_cluster(local("1")) as client, Store.open(own_store) as store:
        sweeps = {
            "patient": FleetSweep(client, "phone", SPACE, sample(40), priority=0),
            "urgent": FleetSweep(client, "phone", SPACE, sample(8, seed=1), priority=5),
        }
        sweeps["patient"].calibrate(store)
        begun = threading.Event()

        def run(name: str) -> None:
            sweep = sweeps[name]
            for _ in sweep.run(store, PLAN, sweep.keys, campaign=name):
                ended.append(name)
                begun.set()

        threads = [threading.Thread(target=run, args=(name,)) for name in sweeps]
        threads[0].start()
        assert begun.wait(30)
        threads[1].start()
        for thread in threads:
            thread.join()
    assert Counter(ended) == {"patient": 40, "urgent": 8}
    assert ended[-1] == "patient", "what was queued before went first"
    spans = [
        (m.bursts.start_ns.min(), m.bursts.start_ns.max(), m.session)
        for m in store.measurements(space=SPACE.name)
    ]
    by = {s: [span for span in spans if span[2] == s] for *_, s in spans}
    ends = sorted((min(s[0] for s in each), max(s[1] for s in each)) for each in by.values())
    assert all(before[1] < after[0] for before, after in pairwise(ends))


def test_a_cpu_of_the_local_cluster_is_the_one_without(
    own_store: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with_light_canaries(tmp_path, monkeypatch)
    with Store.open(own_store) as store:
        store.add_epoch(epoch_on(get_device("cpu")))
    path = tmp_path / "two.txt"
    path.write_text("\n".join(SPACE.decode(sample(2))))
    of = ("-s", SPACE.name, "-d", "cpu", "--file", str(path), "--seconds", "0.3", "--json")
    code = main(["profile", "--fleet", "local", *of])
    summary = json.loads(capsys.readouterr().out)
    assert code in (0, 3)  # on a busy machine an interval may be too wide to be an answer
    assert (summary["measured"], summary["failed"]) == (2, 0)
    main(["profile", *of])
    summary = json.loads(capsys.readouterr().out)
    assert (summary["measured"], summary["already_stored"]) == (0, 2)


def test_a_port_is_taken_once_and_outlives_what_strangers_send(start: Start) -> None:
    scheduler = start("fleet", "scheduler", "tcp://127.0.0.1:0")
    address = told(scheduler).split()[-1]
    second = start("fleet", "scheduler", address)
    assert second.wait(60) == 2
    assert told(second) == f"hwbench: {address} is in use: name another port"
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    with socket.create_connection((host, int(port))) as stranger:
        stranger.sendall(b"GET / HTTP/1.0\r\n\r\n" * 9)
        assert told(scheduler).endswith("a connection failed: MemoryError")
    third = start("fleet", "status", address)
    assert third.wait(60) == 0
    scheduler.terminate()
    assert scheduler.wait(60) == 143
    assert scheduler.stderr is not None
    assert "Traceback" not in scheduler.stderr.read()


@pytest.mark.parametrize(
    ("command", "code", "word"),
    [
        ("fleet scheduler tcp://0.0.0.0:8786", 2, "tls://HOST:PORT and --tls FOLDER"),
        ("fleet scheduler tls://0.0.0.0:8786", 2, "needs --tls FOLDER, with ca.pem"),
        ("fleet scheduler lab", 2, "write it as tcp://127.0.0.1:8786"),
        ("fleet scheduler tcp://[::1]:8786/x?y", 2, "write it as tcp://127.0.0.1:8786"),
        ("fleet scheduler tcp://me:secret@127.0.0.1:8786", 2, "write it as tcp://127.0.0.1:8786"),
        ("fleet status tls://127.0.0.1:9 --tls TLS", 2, "what lies in it cannot be used"),
        (
            "fleet worker tls://127.0.0.1:9 --devices cpu --tls TLS",
            2,
            "what lies in it cannot be used",
        ),
        ("fleet worker tcp://10.0.0.1:8786 --devices cpu", 2, "tls://HOST:PORT and --tls FOLDER"),
        ("fleet worker tls://10.0.0.1:8786 --devices cpu --tls TLS", 2, "name by --listen ADDRESS"),
        ("fleet worker tcp://127.0.0.1:9 --listen 0.0.0.0 --devices cpu", 2, "--listen 0.0.0.0"),
        ("fleet worker tcp://127.0.0.1:9 --devices cpu,cpu", 2, "each once"),
        ("fleet worker tcp://127.0.0.1:9 --devices a=cpu,b=cpu", 2, "cpu@h is named twice"),
        ("fleet worker tcp://127.0.0.1:9 --devices =cpu", 2, "pixel7=adb:SERIAL"),
        ("fleet worker tcp://127.0.0.1:9 --devices cpu --option a=b", 2, "none of the devices"),
        ("fleet status tcp://127.0.0.1:9", 4, "no fleet answers"),
        ("profile --fleet tcp://10.0.0.1:8786 -d cpu", 2, "tls://HOST:PORT and --tls FOLDER"),
        ("profile --fleet tcp://127.0.0.1:9 -d cpu --option a=b", 2, "their worker gave them"),
        ("profile --fleet local -d nonsense", 2, "unknown device 'nonsense'"),
    ],
)
def test_what_is_not_safe_or_not_there_is_told_in_a_line(
    command: str,
    code: int,
    word: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(link, "CONNECT_S", 0.3)
    for name in TLS_FILES:
        (tmp_path / name).touch()
    words = command.replace("TLS", str(tmp_path)).split()
    words += ["--name", "h"] if words[1] == "worker" else []
    words += ["-s", SPACE.name, "-n", "2"] if words[0] == "profile" else []
    assert main(words) == code
    err = capsys.readouterr().err
    assert word in err
    assert len(err.splitlines()) == 1


def test_an_address_that_is_another_machines_is_told(
    certificates: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    lend = ("fleet", "worker", "tls://127.0.0.1:9", "--devices", "cpu", "--name", "h")
    for listen in ("192.0.2.1", "nobody.invalid"):
        assert main([*lend, "--tls", str(certificates("lab")), "--listen", listen]) == 2
        err = capsys.readouterr().err
        assert err == f"hwbench: cannot listen at {listen}: is it an address of this machine?\n"


def test_a_kind_that_nobody_has_is_told_with_those_there_are(own_store: Path) -> None:
    with local_cluster(local("1")) as client, Store.open(own_store) as store:
        assert [d["device"] for d in standing(client)["devices"]] == ["fake:1"]
        with pytest.raises(DeviceError, match="of the kind 'pixel7'; there is phone"):
            FleetSweep(client, "pixel7", SPACE, sample(1)).calibrate(store)


def test_an_order_of_another_version_is_refused() -> None:
    text = Order("cpu", Architectures(SPACE.name, ("a",)), 1, PLAN).text()
    assert Order.of(text).work.items == ("a",)
    with pytest.raises(UsageError, match="install the same on both"):
        Order.of(json.dumps({**json.loads(text), "hwbench": "0"}))


def test_of_an_answer_counts_only_what_was_asked_for_and_once(own_store: Path) -> None:
    """Whatever a worker says: other architectures, other spaces, doubles."""
    with local_cluster(local("1")) as client, Store.open(own_store) as store:
        sweep = FleetSweep(client, "phone", SPACE, sample(10))
        sweep.calibrate(store)
        one, *others = sweep.run(store, PLAN, sweep.keys, campaign="c")
        assert isinstance(one, Measurement)
        arch, other = (r.workload.arch or "" for r in (one, others[0]))
        foreign = replace(one, workload=replace(one.workload, space="other"))
        failed = [(a, DeviceError("broke")) for a in (arch, "nobody's")]
        block = fleet_sweep.Block((arch, other, "third"))
        claimed = [(arch, foreign), (arch, one), (arch, one), ("nobody's", one)]
        answer = Answer.of(Answer(measured=claimed, failed=failed).text())
        done, rest = sweep._sorted(block, answer)
    ((item, found),) = done
    assert item == arch
    assert isinstance(found, Measurement)
    assert (found.workload, found.latency_ns) == (one.workload, one.latency_ns)
    assert rest == block.items[1:]
