"""`hwbench top`: what it counts of a sweep, what it shows, and how it leaves a terminal."""

from __future__ import annotations

import dataclasses
import json
import os
import pty
import signal
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from hwbench.cli import main
from hwbench.measure.campaign import record
from hwbench.measure.plan import Plan
from hwbench.store import Store, Sweep
from tests.measurements import measurement
from tests.targets import LocalTarget, job, runner

PLACE = measurement().fingerprint
HOSTILE = "\x1b[31m[red]net\x07\n"


def sweep(cells: int, **changes: Any) -> Sweep:
    """Begun a minute ago, by this process."""
    began = (datetime.now(UTC) - timedelta(minutes=1)).isoformat()
    made = Sweep("ofa_mbv3", "cpu", PLACE.key, "profile:a", cells, 0, began)
    return dataclasses.replace(made, **changes)


def seen(capsys: pytest.CaptureFixture[str], *where: str) -> list[dict[str, Any]]:
    assert main(["top", "--json", *where]) == 0
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["sweeps"]
    return found


def test_a_sweep_counts_its_own_cells_alone(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    with Store.open(place) as store:
        store.add(measurement(0), plan="profile:a")  # was there before
        store.announce(sweep(4, held=1))
        store.add(measurement(1), plan="profile:a")
        store.add(measurement(2, status="inconclusive"), plan="profile:a")
        store.add(measurement(3), plan="profile:b")
        elsewhere = dataclasses.replace(PLACE, device="litert")
        store.add(measurement(4, fingerprint=elsewhere), plan="profile:a")
    (one,) = seen(capsys, "--store", place)
    assert (one["models"], one["done"], one["held_before"]) == (4, 2, 1)
    assert one["counts"] == {"ok": 1, "inconclusive": 1}
    assert one["inconclusive_share"] == 0.5
    assert one["running"] is True
    assert one["seconds_left"] == pytest.approx(one["seconds"], rel=1e-6)
    assert one["models_per_second"] == pytest.approx(2 / one["seconds"], rel=1e-6)
    assert [cell["name"] for cell in one["last"]] == ["net2", "net1"]


def test_a_fleets_sweep_is_told_device_by_device(
    place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    prints = [dataclasses.replace(PLACE, device=f"cpu@{HOSTILE}{n}") for n in range(9)]
    devices = {print_.device: print_.key for print_ in prints}
    with Store.open(place) as store:
        key = store.announce(sweep(20, device="cpu", fingerprint_key="", devices=devices))
        other = store.announce(sweep(20, device="cpu", fingerprint_key="", devices=devices))
        for number in range(3):
            store.add(measurement(number, fingerprint=prints[0]), plan="profile:a")
        wide = measurement(3, fingerprint=prints[1], status="inconclusive")
        store.add(wide, plan="profile:a")
        store.add(measurement(4), plan="profile:a")  # of none of its devices
        for _ in range(2):
            store.set_back(key, prints[8].device, failures=1, cells=0)
        store.set_back(key, "", failures=1, cells=4)  # its worker has died
        store.set_back(other, prints[7].device, failures=1, cells=1)
    (one,) = [each for each in seen(capsys, "--store", place) if each["failed"] == 4]
    assert (one["models"], one["done"], one["running"]) == (20, 4, True)
    shares = {each["name"]: each for each in one["devices"]}
    assert list(shares) == sorted(devices)
    assert shares[prints[0].device]["counts"] == {"ok": 3}
    assert shares[prints[1].device]["counts"] == {"inconclusive": 1}
    failed = {name: share["failures"] for name, share in shares.items() if share["failures"]}
    assert failed == {prints[8].device: 2}
    assert one["seconds_left"] == pytest.approx(12 / one["models_per_second"], rel=1e-6)
    assert main(["top", "--once", "--store", place]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) <= 24
    assert any("and 4 more devices: 0 done" in line for line in lines)
    assert "\x1b" not in "".join(lines)


def test_an_announcement_of_an_earlier_hwbench_is_read(
    own_store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Store.open(own_store) as store:
        store.announce(sweep(2))
    with sqlite3.connect(own_store) as database:
        edited = "json_remove(value, '$.devices')"
        database.execute(f"UPDATE hwbench_meta SET value = {edited} WHERE key LIKE 'sweep:%'")
    (one,) = seen(capsys)
    assert (one["models"], one["devices"]) == (2, [])


@pytest.mark.parametrize(
    "value",
    [
        "'{half'",
        "'[]'",
        "'{}'",
        """'{"what": "a", "after": 0}'""",
        "json_set(value, '$.created', 'xx')",
        "json_set(value, '$.created', '2026-01-01T00:00:00')",
        "json_set(value, '$.cells', '5')",
        "json_set(value, '$.cells', 0)",
        "json_set(value, '$.cells', -5)",
        "json_set(value, '$.held', 'z')",
    ],
)
def test_a_damaged_announcement_hides_no_other(
    value: str, own_store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Store.open(own_store) as store:
        store.announce(sweep(2))
    with sqlite3.connect(own_store) as database:
        copy = f"SELECT 'sweep:9:x', {value} FROM hwbench_meta WHERE key LIKE 'sweep:%'"
        database.execute(f"INSERT INTO hwbench_meta {copy}")
    assert [each["models"] for each in seen(capsys)] == [2]


def test_what_ended_what_is_done_and_what_is_elsewhere(
    own_store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = subprocess.Popen([sys.executable, "-c", "pass"])
    gone.wait()
    with Store.open(own_store) as store:
        store.announce(sweep(1, host="another", created="2026-01-01T00:00:00+00:00"))
        store.announce(sweep(1, process=gone.pid, plan=None))
        store.announce(sweep(1))
        store.add(measurement(1), plan="profile:a")
    assert [each["running"] for each in seen(capsys)] == [False, False, False]
    assert main(["top", "--once"]) == 0
    assert "ofa_mbv3 on cpu, done: 1 of 1 models" in capsys.readouterr().out


def test_a_screen_has_80_columns_and_obeys_no_name(
    own_store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Store.open(own_store) as store:
        store.announce(sweep(300, what=HOSTILE * 20, plan=None))
        for number in range(12):
            store.add(measurement(number, work_name=f"{HOSTILE * 9}{number}"))
    assert main(["top", "--once"]) == 0
    out = capsys.readouterr().out
    assert "12 of 300 models" in out
    assert " 4%  " in out
    assert "\\x1b[31m[red]net\\x07" in out
    assert "\x1b" not in out
    assert max(map(len, out.splitlines())) <= 80
    assert len(out.splitlines()) <= 24


def test_a_store_without_a_sweep_and_none_at_all(
    own_store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["top", "--once"]) == 4
    assert "there is no store" in capsys.readouterr().err
    Store.open(own_store).close()
    assert main(["top", "--once"]) == 0
    assert "Nothing was announced" in capsys.readouterr().out


def test_a_campaign_announces_itself(
    own_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = [job(f"net{i}", runner(tmp_path, us=20 + i)) for i in range(3)]
    plan = Plan(processes=2, seconds=1e-3, loaded=3)
    with Store.open(own_store) as store:
        going = record(LocalTarget(tmp_path), jobs, plan, store, None, campaign="c")
        first = next(going)
        (one,) = seen(capsys)
        assert (one["what"], one["models"], one["done"]) == ("3 models", 3, 1)
        assert one["running"] is True
        assert one["last"][0]["name"] == first.workload.name
        list(going)
    (one,) = seen(capsys)
    assert (one["done"], one["running"]) == (3, False)


def test_ctrl_c_gives_the_terminal_back(own_store: Path) -> None:
    with Store.open(own_store) as store:
        store.announce(sweep(300))
        store.add(measurement(1), plan="profile:a")
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "hwbench", "top", "--every", "0.2"]
    screen = b""
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs) as watching:
        os.close(theirs)
        while b"1 of 300 models" not in screen:
            screen += os.read(ours, 1 << 16)
        watching.send_signal(signal.SIGINT)
        screen += _rest(ours)
        assert watching.wait(30) == 0
    os.close(ours)
    after = screen.rpartition(b"\x1b[?1049l")[2]  # the terminal's own screen is back,
    assert b"1 of 300 models" in after
    assert screen.rfind(b"\x1b[?25h") > screen.rfind(b"\x1b[?25l")  # and its cursor
    assert b"Traceback" not in screen
    assert b"interrupted" not in screen


def _rest(end: int) -> bytes:
    """What a terminal says until its last writer is gone."""
    found = b""
    while True:
        try:
            data = os.read(end, 1 << 16)
        except OSError:  # Linux's way of saying so
            return found
        if not data:
            return found
        found += data
