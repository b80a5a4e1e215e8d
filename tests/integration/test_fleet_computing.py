"""Hosts of a fleet evaluate networks: the same labels, and never beside a measurement."""

from __future__ import annotations

import json
import os
import pickle
import threading
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hwbench.cli.search_pnag import supernet_source
from hwbench.cli.supernet import images_of
from hwbench.devices.profile import PROFILE_PLAN
from hwbench.errors import NoDeviceError, UsageError
from hwbench.fleet import computing, link
from hwbench.fleet import sweep as sweep_module
from hwbench.fleet.computing import Computing
from hwbench.fleet.seats import Seats, seats_of
from hwbench.fleet.standing import standing
from hwbench.fleet.sweep import FleetSweep
from hwbench.search import hosts as hosts_module
from hwbench.search.accuracy import afar
from hwbench.search.accuracy.afar import accuracies_afar, packed, unpacked
from hwbench.search.accuracy.supernet import SupernetAccuracy
from hwbench.search.supernet import Supernet, TrainingPlan, load_supernet, train
from hwbench.spaces import get_space
from hwbench.spaces.mbv3 import MobileNetV3Space
from hwbench.store import Store
from tests.fleet_devices import LAUNCH, install
from tests.fleet_hosts import hosts
from tests.supernets import TINY

pytestmark = pytest.mark.usefixtures("one_torch_thread")
SMALL = get_space("mbv3_small")
SPACE = MobileNetV3Space(replace(TINY, name="tiny_digits", classes=10))


@pytest.fixture(scope="module")
def trained(one_torch_thread, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A supernet that has seen some digits."""
    path = tmp_path_factory.mktemp("supernet") / "digits.pt"
    plan = TrainingPlan(steps=2, fixed={"r": 12})
    train(Supernet(SPACE), images_of(SPACE, "digits"), plan, checkpoint=path)
    return path


def test_labels_are_those_of_this_machine_bit_for_bit(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(afar, "get_space", {SPACE.name: SPACE}.__getitem__)  # the workers' too
    codes = SPACE.sample(7, np.random.default_rng(0), fixed={"r": 12})
    images = images_of(SPACE, "digits")
    here = SupernetAccuracy(load_supernet(trained, SPACE), images)
    expected = here.accuracy(codes)
    assert len(set(expected)) > 1
    theirs = unpacked(packed(here.judge))
    for one, other in zip(
        here.judge.stand_alone(codes[0]).weights.items(),
        theirs.stand_alone(codes[0]).weights.items(),
        strict=True,
    ):
        assert one[0] == other[0]
        assert np.array_equal(one[1], other[1])

    with hosts(2, Seats(())) as client:
        assert len(standing(client)["computing"]) == 2
        monkeypatch.setattr(link, "connected", lambda address, tls: nullcontext(client))
        how = (SPACE, trained, "digits", "cpu", "tcp://127.0.0.1:9")
        with supernet_source(*how) as (source, _, fixed):
            assert fixed == {"r": 12}
            assert source.accuracy(codes).tolist() == expected.tolist()
        kept = trained.with_suffix(".labels.jsonl").read_text()
        assert kept.count("accuracy") == len(codes)

        evaluate = accuracies_afar(client, here.judge)
        monkeypatch.setattr(hosts_module, "software", lambda: {"torch": f"{time.time_ns()}"})
        with pytest.raises(UsageError, match="install the same on both"):
            evaluate(list(codes[:1]))


def test_a_parcel_runs_no_code(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "run"),)

    with pytest.raises(pickle.UnpicklingError):
        unpacked(pickle.dumps(Hostile()))
    assert not (tmp_path / "run").exists()


def place(parcel: bytes, order: str) -> str:
    """Task: the host that did it, with what."""
    from distributed import get_worker

    time.sleep(0.2)
    return f"{get_worker().address} {parcel.decode()} {order}"


@pytest.mark.parametrize("devices", [(), ("phone=fake:1", "phone=fake:2", "phone=fake:3")])
def test_all_hosts_compute_at_once(
    devices: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(install(tmp_path / "fakes"))
    with hosts(3, Seats(seats_of(devices, {}, None))) as client:
        one, other = Computing(client, b"one"), Computing(client, b"other")
        for computing, parcel in ((one, "one"), (other, "other"), (one, "one")):
            found = [a.split() for a in computing.answers(place, ["1", "2", "3"])]
            assert len({host for host, _, _ in found}) == 3
            assert [rest for _, *rest in found] == [[parcel, "1"], [parcel, "2"], [parcel, "3"]]


# --- computing and measuring --------------------------------------------------------------


def look(parcel: bytes, order: str) -> str:
    """Task: how often in 60 ms a device of the host was seen at work."""
    from distributed import get_worker

    seats, seen = get_worker().extensions["hwbench"], 0
    for _ in range(20):
        seen += at_work(seats)
        time.sleep(0.003)
    return json.dumps(seen)


def at_work(seats: Seats) -> bool:
    return any(seat["state"] == "busy" for seat in seats.told())


def test_a_host_never_computes_while_one_of_its_devices_measures(
    own_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(install(tmp_path / "fakes"))
    monkeypatch.setenv(LAUNCH, "0.01")
    monkeypatch.setattr(computing, "_PRIORITY", 1)  # between the blocks, not after them
    monkeypatch.setattr(sweep_module, "BLOCKS_A_DEVICE", 6)  # usually two, with one pause between
    seats = Seats(seats_of(["phone=fake:1", "phone=fake:2"], {}, None))
    with hosts(1, seats) as client, Store.open(own_store) as store:
        sweep = FleetSweep(client, "phone", SMALL, SMALL.sample(48, np.random.default_rng(0)))
        sweep.calibrate(store)
        run = sweep.run(store, PROFILE_PLAN, sweep.keys, campaign="c")
        measuring = threading.Thread(target=list, args=(run,))
        measuring.start()
        while not at_work(seats):
            time.sleep(0.001)
        beside = json.loads(client.submit(look, b"", "", pure=False).result())
        assert beside > 0, "what does not ask for the host runs beside a measurement"
        hosts_of, between = Computing(client, b""), 0
        while measuring.is_alive():
            assert hosts_of.answers(look, ["", ""]) == ["0", "0"]
            between += measuring.is_alive()
        assert between > 0
        assert len(store.measurements(space=SMALL.name)) == len(set(sweep.keys))


def test_a_host_that_lends_devices_alone_computes_nothing() -> None:
    with hosts(1, Seats(()), computes=False) as client:
        assert standing(client)["computing"] == []
        with pytest.raises(NoDeviceError, match="fleet worker … --compute"):
            Computing(client, b"")
