"""Seconds of work: what is counted, and what a kill leaves of it."""

from __future__ import annotations

import time

import pytest

from hwbench.verify import work
from hwbench.verify.work import Work


def busy(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def interrupted(seconds: float) -> None:
    busy(seconds)
    raise KeyboardInterrupt


def test_seconds_of_all_runs_are_counted(tmp_path) -> None:
    path = tmp_path / "seconds.json"
    first = Work(path)
    with first.on("training"):
        busy(0.05)
    with pytest.raises(KeyboardInterrupt), first.on("judging"):
        interrupted(0.05)
    before = first.seconds
    assert before >= 0.1
    again = Work(path)
    assert again.seconds == pytest.approx(before)
    with again.on("training"):
        busy(0.05)
    assert again.seconds >= before + 0.05


def test_waiting_counts_where_others_work(tmp_path) -> None:
    path = tmp_path / "seconds.json"
    with Work(path).on("training"):
        time.sleep(0.1)
    assert Work(path).seconds < 0.1
    with Work(path).on("measuring", wall=True):
        time.sleep(0.1)
    assert Work(path).seconds >= 0.1


def test_what_was_kept_survives_a_kill(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(work, "_EVERY", 0.0)
    path = tmp_path / "seconds.json"
    killed = Work(path)
    killed.keep()  # nothing goes on
    assert not path.exists()
    with killed.on("training"):
        busy(0.05)
        killed.keep()
        assert Work(path).seconds >= 0.05
        busy(0.05)
    assert killed.seconds == pytest.approx(Work(path).seconds)
    assert killed.seconds >= 0.1
