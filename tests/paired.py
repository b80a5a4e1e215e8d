"""Two models measured side by side, made up: what an engine's session would have stored."""

from __future__ import annotations

from typing import Any

import numpy as np

from hwbench.records import Bursts, Measurement
from tests.measurements import measurement

KINDS = ("compute", "memory", "cache")
#: Canonical times of the canaries, in ns.
C0 = (1e6, 2e6, 3e6)


def side_by_side(
    ratio: float = 1.0,
    *,
    seed: int = 0,
    processes: int = 6,
    rounds: int = 12,
    burst_sd: float = 0.01,
    process_sd: float = 0.002,
    slow: float = 0.0,
    walk: float = 0.02,
    session_sd: float = 0.0,
    copies: int = 1,
    copy_sd: float = 0.0,
    delay: float = 0.0,
    beta: tuple[float, float] = (1.0, 1.0),
    **changes: Any,
) -> tuple[Measurement, Measurement]:
    """A and B, the latter ``ratio`` times as slow, of one session.

    The machine wanders by a log-normal ``walk`` that both feel as ``beta`` says, and is ``slow``
    (log) throughout. Processes differ by ``process_sd``, their ``copies`` by ``copy_sd``, and B's
    session by ``session_sd`` more. A neighbour that the canaries miss ``delay`` s (log) none, half
    or all of the bursts, a third of a process each.
    """
    rng = np.random.default_rng(seed)
    count = processes * rounds
    process = np.repeat(np.arange(processes), rounds)
    state = slow + np.abs(np.cumsum(rng.normal(0, walk, count))) % 0.3
    canary = np.array(C0) * np.exp(state[:, None, None] * np.array([1.0, 0, 0]))
    canary = canary * np.exp(rng.normal(0, 0.003, (count, 2, 3)))
    turn = np.tile(np.arange(rounds), processes)
    copy = turn % copies
    met = np.array([0.0, 0.5, 1.0])[turn * 3 // rounds]
    sides = []
    shared = session_sd * rng.standard_normal() if session_sd else 0.0
    for number, (level, own) in enumerate(zip((1.0, ratio), beta, strict=True)):
        log = np.log(2e6 * level) + number * shared + own * state + rng.normal(0, burst_sd, count)
        log = log + rng.normal(0, process_sd, processes)[process]
        if copy_sd:
            log = log + rng.normal(0, copy_sd, (processes, copies))[process, copy]
        if delay:
            log = log + delay * (rng.random(count) < met)
        runs = np.repeat(np.exp(log), 5).astype(np.int64)
        record = Bursts(
            sample_ns=runs,
            length=np.full(count, 5, np.int32),
            start_ns=np.arange(count, dtype=np.int64) * 10**7 + number * 10**6,
            process=process.astype(np.int16),
            copy=copy.astype(np.int16),
            round=turn.astype(np.int32),
            canary_ns=canary.astype(np.int64),
            preemptions=np.zeros(count, np.int32),
            steal_ns=np.zeros(count, np.int64),
            cause=np.zeros(count, np.uint8),
        )
        sides.append(
            measurement(
                number,
                bursts=record,
                canaries=KINDS,
                beta=(own, 0.0, 0.0),
                canary_ref_ns=C0,
                footprint_bytes=4_000_000,
                **changes,
            )
        )
    return sides[0], sides[1]
