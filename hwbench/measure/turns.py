"""Who runs when in a worker: bursts of several models in rounds, and canaries between them.

In a round each model has one burst. Models that are measured by themselves come in a new random
order each round, and the canaries are read between any two bursts (:meth:`Rota.one_by_one`).
Models that are held against each other come in pairs, one of a pair right after the other, in
random order (:meth:`Rota.in_pairs`): what the machine does to both cancels, so that the time goes
into more pairs, and the canaries are read now and then only.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count, takewhile
from typing import Any

import numpy as np

from hwbench.measure.copies import copy_slot
from hwbench.measure.process import WorkerProcess

BURST_NS = 1.5e6
BURST_RUNS = (5, 20)
#: Unmeasured runs before a burst, while weights and code come back into the caches: one more for
#: each so many bytes of footprint, since the caches relearn what is worth keeping. A network of
#: 5 ms and 45 MB runs 3 % slower in its second run after another's turn, 1 % in its fifth, and
#: at its own pace from its tenth.
WARM_NS = 1.5e6
WARM_BYTES = 6e6
WARM_RUNS = (1, 10)
MOST_WARM_BY_BYTES = 7
#: Rounds a process makes at least.
LEAST_ROUNDS = 2
#: Pairs have their canaries read about so often (s); a reading takes some 20 ms.
READ_EVERY_S = 0.3

Readings = list[int]


@dataclass(frozen=True, slots=True)
class Step:
    """A model's burst: in turn by one of its ``copies``, ``runs`` after ``warm`` unmeasured ones,
    each of about ``typical_ns``.
    """

    slot: str
    copies: int
    runs: int
    warm: int
    typical_ns: float

    @classmethod
    def of(cls, slot: str, copies: int, typical_ns: float, footprint_bytes: int = 0) -> Step:
        """The burst of a model of this pace and footprint."""
        cold = min(1 + footprint_bytes / WARM_BYTES, MOST_WARM_BY_BYTES)
        return cls(
            slot,
            copies,
            int(np.clip(math.ceil(BURST_NS / typical_ns), *BURST_RUNS)),
            int(np.clip(math.ceil(max(WARM_NS / typical_ns, cold)), *WARM_RUNS)),
            typical_ns,
        )

    @property
    def seconds(self) -> float:
        """About how long it takes."""
        return (self.runs + self.warm) * self.typical_ns / 1e9

    def turn(self, round_: int) -> list[Any]:
        """As a worker is asked for it."""
        return [copy_slot(self.slot, round_ % self.copies), self.runs, self.warm]


@dataclass(frozen=True, slots=True)
class Visit:
    """A burst of a round, between two readings of the canaries."""

    round: int
    burst: dict[str, Any]
    before: Readings
    after: Readings


@dataclass(slots=True)
class Rota:
    """A worker, its ``canaries`` as it is asked to read them, and all their ``readings``.

    Rounds are made until ``end`` (of ``time.monotonic``), ``settle_s`` waited before each reading.
    """

    worker: WorkerProcess
    canaries: list[list[object]]
    settle_s: float
    end: float
    random: random.Random
    readings: list[Readings] = field(default_factory=list)

    def one_by_one(self, steps: Sequence[Step]) -> Iterator[list[Visit]]:
        """Rounds of all steps, the canaries read between any two bursts."""
        for round_ in self._rounds(steps):
            bursts, readings = self._visit(self._shuffled(steps), round_, self.canaries)
            self.readings += readings
            around = zip(bursts, readings, readings[1:], strict=False)
            yield [Visit(round_, *each) for each in around]

    def in_pairs(self, pairs: Sequence[Sequence[Step]]) -> Iterator[list[Visit]]:
        """Rounds of all pairs; the visits between two readings of the canaries each time."""
        before, read_at = self._read(), time.monotonic()
        visits: list[tuple[int, dict[str, Any]]] = []
        for round_ in self._rounds([step for pair in pairs for step in pair]):
            for pair in self._shuffled(pairs):
                bursts, _ = self._visit(self._shuffled(pair), round_, [])
                visits += [(round_, burst) for burst in bursts]
                if time.monotonic() - read_at >= READ_EVERY_S:
                    after, read_at = self._read(), time.monotonic()
                    yield [Visit(*visit, before, after) for visit in visits]
                    before, visits = after, []
        if visits:
            after = self._read()
            yield [Visit(*visit, before, after) for visit in visits]

    def _rounds(self, steps: Sequence[Step]) -> Iterator[int]:
        """Numbers of rounds, while there is time for more than half of another."""
        half_s = sum(step.seconds for step in steps) / 2
        return takewhile(
            lambda round_: round_ < LEAST_ROUNDS or time.monotonic() + half_s < self.end, count()
        )

    def _visit(
        self, steps: Sequence[Step], round_: int, canaries: list[list[object]]
    ) -> tuple[list[dict[str, Any]], list[Readings]]:
        expect_s = 10 * sum(step.seconds for step in steps)
        turns = [step.turn(round_) for step in steps]
        answer = self.worker.ask("round", turns, canaries, self.settle_s, expect_s=expect_s)
        return answer["bursts"], answer["readings"]

    def _read(self) -> Readings:
        (reading,) = self._visit([], 0, self.canaries)[1]
        self.readings.append(reading)
        return reading

    def _shuffled(self, items: Sequence[Any]) -> list[Any]:
        return self.random.sample(items, len(items))
