"""How often a model is loaded into one process.

Where its buffers lie in memory can move a model by several per cent, anew each time that it is
loaded, in one process as in many: the bursts of its copies alternate, and each copy is one more
draw of that.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence

from hwbench.measure.jobs import RunnerSpec
from hwbench.measure.process import WorkerProcess

#: A model by itself has as many copies as load in this time, up to a limit: more would cost it
#: bursts, of which it needs many to find a quiet moment.
COPIES_NS, MOST_COPIES = 12e6, 4
#: Two models that are held against each other need no quiet moment, and their copies are what
#: remains when all else has cancelled: so much of their time goes into copies (a pair of bursts
#: has one to two times the spread of a pair of copies, and costs a third to all of what it takes to
#: load these), up to a limit, also of their memory together.
PAIRED_SHARE, MOST_PAIRED, PAIRED_BYTES = 0.45, 32, 500_000_000


def copies_of(load_ns: float) -> int:
    """How many copies to load of a model by itself that takes so long to load."""
    return max(1, min(int(COPIES_NS // max(load_ns, 1)), MOST_COPIES))


def copy_slot(slot: str, copy: int) -> str:
    """The slot of a copy; number 0 is the model's own."""
    return f"{slot}#{copy}" if copy else slot


def load_paired(
    models: Sequence[tuple[WorkerProcess, str, RunnerSpec]],
    footprint_bytes: int,
    end: float,
    rng: random.Random,
    *,
    threads: int,
) -> int:
    """Load further copies of models that are held against each other, of each as many and in
    random order, in a share of the time that is left until ``end`` (of ``time.monotonic``).

    ``footprint_bytes`` is what one copy of each takes together. Answers how many there are of each
    then, the first one counted.
    """
    now = time.monotonic()
    until = now + PAIRED_SHARE * (end - now)
    most = min(MOST_PAIRED, PAIRED_BYTES // max(footprint_bytes, 1))
    if threads > 1:  # each copy has threads of its own, which spin
        most = min(most, MOST_COPIES)
    copies = 1
    while copies < most and time.monotonic() < until:
        for worker, together in _by_worker(rng.sample(models, len(models))):
            worker.load_together([(copy_slot(slot, copies), runner) for slot, runner in together])
        copies += 1
    return copies


def _by_worker(
    models: Sequence[tuple[WorkerProcess, str, RunnerSpec]],
) -> list[tuple[WorkerProcess, list[tuple[str, RunnerSpec]]]]:
    """What each worker loads: at once, which on two cores makes two thirds more copies."""
    found: dict[int, tuple[WorkerProcess, list[tuple[str, RunnerSpec]]]] = {}
    for worker, slot, runner in models:
        found.setdefault(id(worker), (worker, []))[1].append((slot, runner))
    return list(found.values())
