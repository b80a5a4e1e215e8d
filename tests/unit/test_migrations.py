"""Machines of one make are told apart, and what was stored before they were stays."""

from __future__ import annotations

import dataclasses
import platform
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from hwbench.cli import main
from hwbench.devices import get_device
from hwbench.machine import MACHINE_FACT, MACHINE_VARIABLE, machine_id, product
from hwbench.measure.campaign import known_epoch
from hwbench.records import CanaryEpoch, Fingerprint, Measurement, Verdict
from hwbench.store import Store, Sweep
from hwbench.watch.gate import stored_level
from hwbench.watch.report import gather
from tests.measurements import epoch, epoch_on, measurement, same
from tests.postgres import Server, sql
from tests.schema4 import old_store, run
from tests.stores import history, integrity

#: This machine as schema 4 knew it, and what is none of this machine's.
OWN = Fingerprint(
    "cpu", {"kernel": platform.release(), "machine": product() or "unknown"}, {"load": "1"}
)
STRANGERS = (
    Fingerprint("cpu", {**OWN.facts, "kernel": "2.6.32"}),  # or this one's, of another time
    Fingerprint("cpu@desk", OWN.facts),
    Fingerprint("adb:1234", {"model": "Pixel 7"}),
)
VERDICT = Verdict("claim", "p", "confirmed", {"x": 1}, None, "2026-01-01T00:00:00+00:00")
RUN = ("2026-01-31T12:00:00+00:00", [1e6, 2e6])


def anchored(fingerprint: Fingerprint, number: int, of: CanaryEpoch) -> Measurement:
    return measurement(number, fingerprint=fingerprint, epoch=of.id)


#: An epoch and a measurement of each; the last is an archive's, of another machine of this make.
EPOCHS = [epoch(i, fingerprint_key=f.key) for i, f in enumerate((OWN, *STRANGERS, OWN))]
RECORDS = [anchored(f, i, EPOCHS[i]) for i, f in enumerate((OWN, *STRANGERS, OWN))]


def fill(store: Store) -> None:
    for each, record in zip(EPOCHS[:-1], RECORDS, strict=False):
        store.add_epoch(each)
        store.announce(Sweep("s", "cpu", record.fingerprint.key, "p", 1, 0))
        store.add(record, plan="p")
        store.add_canary_run(record.fingerprint.key, each.canary_key, 1, "s", *RUN)
    store.merge([EPOCHS[-1], RECORDS[-1]])
    store.add_verdict(VERDICT)


def version(place: str) -> str:
    (found,) = run(place, "SELECT value FROM hwbench_meta WHERE key = 'schema_version'")
    return found


def without_machine(record: Measurement) -> Measurement:
    facts = {k: v for k, v in record.fingerprint.facts.items() if k != MACHINE_FACT}
    return dataclasses.replace(
        record, fingerprint=dataclasses.replace(record.fingerprint, facts=facts)
    )


def test_a_store_of_schema_4_keeps_all_that_it_has(place: str) -> None:
    old_store(place, fill)
    assert version(place) == "4"
    for _ in range(2):
        with Store.open(place) as store:
            found = store.measurements()
            runs, epochs, claims = store.canary_runs(), store.epochs(), store.verdicts()
            standings = store.standings()
            assert store.merge([*EPOCHS, *RECORDS]).added == 0, "its own archive is known"
    assert version(place) == "5"
    on_a_server = "://" in place
    assert on_a_server or integrity(Path(place)) == "ok"

    assert len(found) == len(RECORDS)
    assert all(same(without_machine(m), record) for m, record in zip(found, RECORDS, strict=True))
    named = [m for m in found if MACHINE_FACT in m.fingerprint.facts]
    assert [m.workload.name for m in named] == ([] if on_a_server else ["net0"])
    assert all(m.fingerprint.facts[MACHINE_FACT] == machine_id() for m in named)

    keys = [m.fingerprint.key for m in found]
    assert [e.fingerprint_key for e in epochs] == keys
    assert [dataclasses.replace(e, fingerprint_key="") for e in epochs] == [
        dataclasses.replace(e, fingerprint_key="") for e in EPOCHS
    ]
    assert sorted(r.fingerprint_key for r in runs) == sorted(keys[:-1])
    assert {s.sweep.fingerprint_key for s in standings} == set(keys[:-1])
    assert all(s.done == 1 for s in standings)
    assert claims == [VERDICT]


def test_what_is_not_to_be_changed_is_read_as_it_is(
    place: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    old_store(place, fill)
    with Store.open(place, foreign=True) as store:
        assert len(store.measurements()) == len(RECORDS)
    assert main(["store", "merge", place, "--store", str(tmp_path / "mine.db")]) == 0
    if "://" in place:
        server: Server = request.getfixturevalue("postgres")
        for statement in (
            "DROP ROLE IF EXISTS reader",
            "CREATE ROLE reader LOGIN",
            "GRANT pg_read_all_data TO reader",
        ):
            sql(f"postgresql://postgres@/postgres?host={server.folder}", statement)
        with Store.open(place.replace("postgres@", "reader@")) as store:
            assert len(store.measurements()) == len(RECORDS)
    assert version(place) == "4"


def test_of_several_who_open_it_at_once_one_brings_it_up_to_date(place: str) -> None:
    old_store(place, fill)
    ready, counts = threading.Barrier(4), list[int]()

    def open_it() -> None:
        ready.wait()
        with Store.open(place) as store:
            counts.append(len(store.measurements()))

    threads = [threading.Thread(target=open_it) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == [len(RECORDS)] * 4
    assert version(place) == "5"


@pytest.fixture
def machines(monkeypatch: pytest.MonkeyPatch) -> Sequence[Fingerprint]:
    """This machine twice, under two names: two of one make and set-up, to the last fact."""
    found = []
    for name in ("desk", "shelf"):
        monkeypatch.setenv(MACHINE_VARIABLE, name)
        found.append(get_device("cpu").fingerprint(1))
    return found


def test_two_machines_of_one_make_share_nothing(
    place: str, machines: Sequence[Fingerprint], monkeypatch: pytest.MonkeyPatch
) -> None:
    desk, shelf = machines
    assert {k for k in desk.facts if desk.facts[k] != shelf.facts[k]} == {MACHINE_FACT}
    cpu = get_device("cpu")
    with Store.open(place) as store:
        for index, name in enumerate(("desk", "shelf")):
            monkeypatch.setenv(MACHINE_VARIABLE, name)
            assert known_epoch(cpu, 1, store) is None
            own = epoch_on(cpu, id=name, created=f"2026-01-0{index + 1}T00:00:00+00:00")
            store.add_epoch(own)
            for m in history("net", machines[index], [3.0 + index] * 5):
                store.add(dataclasses.replace(m, epoch=name, session=name + m.session))
        for name in ("desk", "shelf"):
            monkeypatch.setenv(MACHINE_VARIABLE, name)
            own = known_epoch(cpu, 1, store)
            assert own is not None
            assert own.id == name
        found = store.measurements()
        report = gather(store, found, "t", "2026-02-01T00:00:00+00:00")
    level = stored_level(found, dataclasses.replace(found[-1], session="new"), None)
    assert level.points == 5
    assert any("measured elsewhere: machine_id" in note for note in level.notes)
    assert [len(s.points) for s in report.series] == [5, 5]
    assert [(d.changed, [e.id for e in d.epochs]) for d in report.devices] == [
        ("", ["desk"]),
        ("", ["shelf"]),
    ]


@pytest.mark.parametrize("missing", ["", "uninitialized", "0123"])
def test_a_machine_is_known_by_what_lasts(
    tmp_path: Path, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(MACHINE_VARIABLE, raising=False)
    assert machine_id(tmp_path) is None
    host = tmp_path / "proc/sys/kernel/hostname"
    host.parent.mkdir(parents=True)
    host.write_text("desk\n")
    (tmp_path / "etc").mkdir()
    installed = tmp_path / "etc/machine-id"
    installed.write_text(missing)
    by_name = machine_id(tmp_path)
    installed.write_text("0123456789abcdef" * 2 + "\n")
    by_id = machine_id(tmp_path)
    host.write_text("renamed\n")
    assert machine_id(tmp_path) == by_id != by_name
    assert by_id is not None
    assert by_id not in installed.read_text()
    monkeypatch.setenv(MACHINE_VARIABLE, "desk")
    assert machine_id(tmp_path) == by_name
