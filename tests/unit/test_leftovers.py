"""What a killed session left is cleared; what may be anybody else's is not touched."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwbench.devices.phone.leftovers import (
    MARK,
    clear_script,
    dead_sessions,
    kill_script,
    session_name,
)
from hwbench.devices.phone.shell import LocalShell
from hwbench.measure.scratch import machine, prefix, scratch


@pytest.fixture(scope="module")
def dead() -> str:
    """The name of a session whose process has ended."""
    code = "from hwbench.devices.phone.leftovers import session_name; print(session_name())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def elsewhere(name: str) -> str:
    """That session's name if another machine had made it."""
    _, machine, rest = name.split("-", 2)
    return f"hwbench-{'0' * 8 if machine != '0' * 8 else 'f' * 8}-{rest}"


def test_every_session_has_its_own_name() -> None:
    assert len({session_name() for _ in range(50)}) == 50


@pytest.mark.parametrize("silent", [True, False])
def test_of_this_machines_processes_the_number_tells(dead: str, silent: bool) -> None:
    mine = session_name()
    listed = f"/tmp/{mine}\n/tmp/{dead}\n"
    assert dead_sessions(listed, listed if silent else "") == [dead]


def test_of_another_machine_only_a_week_of_silence_tells(dead: str) -> None:
    other, living = elsewhere(dead), elsewhere(session_name())
    listed = f"/x/{other}\n/x/{living}\r\n"
    assert dead_sessions(listed, "") == []
    assert dead_sessions(listed, listed) == sorted([other, living])
    assert dead_sessions(listed, f"/x/{other}\n") == [other]


@pytest.mark.parametrize(
    "name",
    [
        "hwbench",
        "hwbench-",
        "hwbench-results",
        "hwbench-0123456789abcdef",
        "hwbench-00000000-1-0123456789abcdef; reboot",
        "hwbench-00000000-1-$(reboot)56789abcdef",
        "hwbench-00000000-x-0123456789abcdef",
        f"hwbench-{machine()}-9999999999-0123456789abcdef",
        "..",
        "",
    ],
)
def test_what_is_not_named_as_a_session_is_nobodys(name: str) -> None:
    assert dead_sessions(f"/tmp/{name}\n", f"/tmp/{name}\n") == []


@given(st.text(), st.text())
def test_whatever_a_device_prints_only_sessions_are_named(listed: str, silent: str) -> None:
    for name in dead_sessions(listed, silent):
        assert name.startswith("hwbench-")
        assert all(c.isascii() and (c.isalnum() or c == "-") for c in name)


def test_all_processes_of_a_session_are_ended_and_no_other(tmp_path: Path) -> None:
    mine, other = session_name(), session_name()
    marked = subprocess.Popen(["sleep", "600"], env={**os.environ, MARK: mine})
    apart = subprocess.Popen(
        ["/bin/sh", "-c", "sleep 600 & exec sleep 600"],
        env={**os.environ, MARK: mine},
        start_new_session=True,
    )
    spared = subprocess.Popen(["sleep", "600"], env={**os.environ, MARK: other})
    try:
        LocalShell(str(tmp_path)).checked(kill_script(mine))
        assert marked.wait(10) == apart.wait(10) == -9
        assert spared.poll() is None
    finally:
        for process in (marked, apart, spared):
            process.kill()
            process.wait()


def test_its_folder_goes_and_nothing_beside_it(tmp_path: Path, dead: str) -> None:
    other = elsewhere(dead)
    for name in (dead, other, "notes"):
        (tmp_path / name / "below").mkdir(parents=True)
    (tmp_path / dead / "link").symlink_to(tmp_path / "notes")
    LocalShell(str(tmp_path)).checked(clear_script(str(tmp_path), [dead]))
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([other, "notes"])
    assert (tmp_path / "notes/below").is_dir()


@pytest.mark.parametrize("mine", [True, False])
def test_the_next_run_removes_the_folders_of_a_dead_process_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mine: bool
) -> None:
    code = "from hwbench.measure.scratch import prefix; print(prefix())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    dead = done.stdout.strip()
    if not mine:
        dead = dead.replace(machine(), "0" * 8)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    too_large = f"hwbench-scratch-{machine()}-9999999999-c_3"
    for name in (f"{dead}a_1", f"{prefix()}b_2", too_large, "hwbench-scratch-notes", "notes"):
        (tmp_path / name / "below").mkdir(parents=True)
    (tmp_path / f"{dead}a_1" / "link").symlink_to(tmp_path / "notes")
    (tmp_path / f"{dead}link").symlink_to(tmp_path / "notes")
    before = {path.name for path in tmp_path.iterdir()}
    with scratch() as folder:
        assert folder.parent == tmp_path
        left = {path.name for path in tmp_path.iterdir()} - {folder.name}
    assert before - left == ({f"{dead}a_1"} if mine else set())
    assert (tmp_path / "notes/below").is_dir()
    assert not folder.exists()
