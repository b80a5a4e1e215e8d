"""Whose turn it is in a worker, and how many copies it holds: of one that only writes it down."""

from __future__ import annotations

import random
import time
from typing import Any

import pytest

from hwbench.measure import copies as copies_module
from hwbench.measure import turns as turns_module
from hwbench.measure.copies import copies_of, load_paired
from hwbench.measure.turns import Rota, Step

CANARIES: list[list[object]] = [["canary:a", 1, 0, 0.0]]


class Written:
    """A worker that answers at once, its readings numbered."""

    def __init__(self) -> None:
        self.turns: list[list[str]] = []
        self.loaded: list[list[str]] = []
        self.read = 0

    def ask(self, op: str, turns: list[Any], canaries: list[Any], *_: Any, **__: Any) -> Any:
        assert op == "round"
        if turns:
            self.turns.append([slot for slot, *_ in turns])
        readings = []
        for _ in range(len(turns) + 1):
            self.read += bool(canaries)
            readings.append([self.read] if canaries else [])
        return {"bursts": [{"slot": slot} for slot, *_ in turns], "readings": readings}

    def load_together(self, runners: list[tuple[str, object]]) -> None:
        self.loaded.append([slot for slot, _ in runners])


def steps(count: int, copies: int = 3) -> list[Step]:
    return [Step.of(f"w{number}", copies, 1e6, 0) for number in range(count)]


def rota(worker: Written, seconds: float = 0.0) -> Rota:
    end = time.monotonic() + seconds
    return Rota(worker, CANARIES, 0.0, end, random.Random(0))  # type: ignore[arg-type]


class TestOneByOne:
    def test_each_has_one_burst_a_round_between_two_readings(self) -> None:
        worker = Written()
        rounds = list(rota(worker).one_by_one(steps(4)))
        assert len(rounds) == 2  # however late it is
        for number, visits in enumerate(rounds):
            assert {visit.round for visit in visits} == {number}
            assert sorted(v.burst["slot"] for v in visits) == sorted(
                f"w{model}#{number}" if number else f"w{model}" for model in range(4)
            )
            assert all(v.after[0] == v.before[0] + 1 for v in visits)


class TestInPairs:
    def pairs(self) -> list[list[Step]]:
        four = steps(4)
        return [four[:2], four[2:]]

    def test_the_two_of_a_pair_follow_one_another(self) -> None:
        worker = Written()
        visits = [v for found in rota(worker).in_pairs(self.pairs()) for v in found]
        assert len(visits) == 8
        for turn in worker.turns:
            models = {slot.partition("#")[0] for slot in turn}
            assert models in ({"w0", "w1"}, {"w2", "w3"})
            assert len({slot.partition("#")[2] for slot in turn}) == 1  # the same copy of both

    def test_who_is_first_is_chance(self) -> None:
        worker = Written()
        pair = [steps(2)]
        end = rota(worker, 0.05)
        list(end.in_pairs(pair))
        assert {turn[0][:2] for turn in worker.turns} == {"w0", "w1"}

    def test_canaries_are_read_now_and_then_only(self, monkeypatch: pytest.MonkeyPatch) -> None:
        worker = Written()
        (found,) = rota(worker).in_pairs(self.pairs())
        assert worker.read == 2
        assert {(*v.before, *v.after) for v in found} == {(1, 2)}
        monkeypatch.setattr(turns_module, "READ_EVERY_S", 0.0)
        often = Written()
        assert [len(found) for found in rota(often).in_pairs(self.pairs())] == [2, 2, 2, 2]
        assert often.read == 5


class TestCopies:
    RUNNER: Any = None

    def load(self, worker: Written, seconds: float = 60.0, footprint: int = 0, threads: int = 1):
        models = [(worker, slot, self.RUNNER) for slot in ("w0", "w1")]
        end = time.monotonic() + seconds
        return load_paired(models, footprint, end, random.Random(0), threads=threads)  # type: ignore[arg-type]

    def test_as_many_of_each(self) -> None:
        worker = Written()
        count = self.load(worker)
        assert count == copies_module.MOST_PAIRED
        both = [[f"w{model}#{copy}" for model in range(2)] for copy in range(1, count)]
        assert [sorted(pair) for pair in worker.loaded] == both
        assert both != worker.loaded != [pair[::-1] for pair in both]

    def test_of_two_workers_each_loads_its_own(self) -> None:
        workers = Written(), Written()
        models = [(worker, "model", None) for worker in workers]
        end = time.monotonic() + 60
        assert load_paired(models, 10**8, end, random.Random(0), threads=1) == 5  # type: ignore[arg-type]
        for worker in workers:
            assert worker.loaded == [[f"model#{copy}"] for copy in range(1, 5)]

    def test_no_more_than_memory_holds(self) -> None:
        worker = Written()
        assert self.load(worker, footprint=copies_module.PAIRED_BYTES // 3) == 3
        assert self.load(worker, footprint=10 * copies_module.PAIRED_BYTES) == 1

    def test_none_where_the_time_is_up(self) -> None:
        worker = Written()
        assert self.load(worker, seconds=-1.0) == 1
        assert worker.loaded == []

    def test_few_where_each_brings_its_own_threads(self) -> None:
        assert self.load(Written(), threads=2) == copies_module.MOST_COPIES

    @pytest.mark.parametrize(("load_ns", "copies"), [(0, 4), (1e6, 4), (5e6, 2), (1e9, 1)])
    def test_of_a_model_by_itself(self, load_ns: float, copies: int) -> None:
        assert copies_of(load_ns) == copies
