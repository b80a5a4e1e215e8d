"""Sessions at once: whose cores they have, and how they end."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hwbench.errors import WorkerError
from hwbench.measure import lanes
from hwbench.measure.lanes import at_once, lanes_for
from hwbench.measure.plan import Progress

pytestmark = pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity"), reason="this system binds no thread to cores"
)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[int, str]], None]:
    """A machine of these hardware threads, each with its siblings."""

    def made(siblings: dict[int, str]) -> None:
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(siblings))
        monkeypatch.setattr(lanes, "_siblings", siblings.__getitem__)

    return made


class TestLanes:
    @pytest.mark.parametrize(
        ("siblings", "threads", "wanted"),
        [
            ({0: "0"}, 1, [{0}]),
            ({0: "0", 1: "1"}, 1, [{0}, {1}]),
            ({0: "0", 1: "1"}, 2, [{0, 1}]),
            ({0: "0-1", 1: "0-1"}, 1, [{0, 1}]),
            ({0: "0,2", 1: "1,3", 2: "0,2", 3: "1,3"}, 1, [{0, 2}, {1, 3}]),
            ({n: str(n) for n in range(4)}, 2, [{0, 1}, {2, 3}]),
            ({n: str(n) for n in range(9)}, 1, [{0, 1, 2, 3}, {4, 5, 6, 7}]),
        ],
    )
    def test_no_core_is_in_two(
        self,
        machine: Callable[[dict[int, str]], None],
        siblings: dict[int, str],
        threads: int,
        wanted: list[set[int]],
    ) -> None:
        machine(siblings)
        assert [set(lane) for lane in lanes_for(threads)] == wanted

    def test_of_what_this_process_may_use(self) -> None:
        found = lanes_for(1)
        assert set().union(*found) <= os.sched_getaffinity(0)

    def test_without_a_topology_each_is_a_core(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(lanes, "_SIBLINGS", "/nowhere/{}")
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5})
        assert [set(lane) for lane in lanes_for(1)] == [{3}, {5}]


def two() -> list[set[int]]:
    """Two lanes, which may be the same core."""
    cores = sorted(os.sched_getaffinity(0))
    return [{cores[0]}, {cores[-1]}]


class TestAtOnce:
    def test_each_and_its_processes_are_bound(self) -> None:
        own, script = os.sched_getaffinity(0), "import os; print(*os.sched_getaffinity(0))"

        def run(lane: int, tell: Progress | None) -> set[int]:
            said = subprocess.check_output([sys.executable, "-c", script], text=True)
            return set(map(int, said.split()))

        assert at_once(two(), run, None) == two()
        assert os.sched_getaffinity(0) == own

    def test_they_run_at_once(self) -> None:
        meet = threading.Barrier(2, timeout=30)
        assert len(at_once(two(), lambda lane, tell: meet.wait(), None)) == 2

    def test_one_runs_where_it_is(self) -> None:
        here = threading.get_ident()
        assert at_once([()], lambda lane, tell: threading.get_ident(), None) == [here]

    def test_progress_is_of_all_and_told_by_the_caller(self) -> None:
        told: list[tuple[float, int]] = []
        done = threading.Event()

        def run(lane: int, tell: Progress | None) -> None:
            assert tell is not None
            tell(1.0 - lane)
            assert done.wait(30)

        def progress(share: float) -> None:
            told.append((share, threading.get_ident()))
            done.set()

        at_once(two(), run, progress)
        assert told[0] == (0.5, threading.get_ident())

    @pytest.mark.parametrize("failing", [0, 1])
    def test_an_error_ends_the_others(self, failing: int, tmp_path: Path) -> None:
        def run(lane: int, tell: Progress | None) -> None:
            assert tell is not None
            if lane == failing:
                raise WorkerError("it died")
            try:
                while True:
                    tell(0.0)
                    time.sleep(0.01)
            finally:
                (tmp_path / "tidied").touch()

        with pytest.raises(WorkerError, match="it died"):
            at_once(two(), run, None)
        assert (tmp_path / "tidied").exists()

    def test_an_interrupt_ends_all(self) -> None:
        ended = []

        def run(lane: int, tell: Progress | None) -> None:
            assert tell is not None
            try:
                while True:
                    tell(0.0)
                    time.sleep(0.01)
            finally:
                ended.append(lane)

        def interrupted(share: float) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            at_once(two(), run, interrupted)
        assert sorted(ended) == [0, 1]
