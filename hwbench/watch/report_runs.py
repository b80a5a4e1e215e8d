"""The runs behind the newest measurements, as a page carries them: quantiles in milliseconds.

Samples are read a session at a time, and dropped as soon as their quantiles stand: a store may hold
far more of them than fit in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from hwbench.errors import StoreError
from hwbench.records import Measurement

if TYPE_CHECKING:
    from hwbench.store import Store

#: The shares of runs that a page tells the times of: close together where tails are.
SHARES: Final = (
    0.0, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, *(n / 100 for n in range(10, 91, 5)),
    0.925, 0.95, 0.97, 0.98, 0.99, 0.995, 1.0,
)  # fmt: skip
#: Of so many measurements of a series, and of so many in all.
EACH: Final = 6
MOST: Final = 1500
_NS_PER_MS = 1e6

#: A measurement among all of a store.
Of = tuple[str, str, str]


def of(measurement: Measurement) -> Of:
    """What tells a measurement's runs from those of all others."""
    return measurement.session, measurement.workload.key, measurement.fingerprint.key


def newest(groups: Iterable[Sequence[Measurement]]) -> list[Measurement]:
    """The last few of each group, each the oldest first; of many groups fewer of each."""
    ranked = [(rank, m) for group in groups for rank, m in enumerate(reversed(group[-EACH:]))]
    ranked.sort(key=lambda each: each[0])
    return [m for _, m in ranked[:MOST]]


def distributions(store: Store, wanted: Iterable[Measurement]) -> tuple[dict[Of, list[float]], int]:
    """Quantiles at :data:`SHARES` in ms of the runs of each measurement wanted that has some, as
    they were observed; and how many sessions' samples are damaged, and left out.
    """
    asked = {of(m) for m in wanted}
    found: dict[Of, list[float]] = {}
    damaged = 0
    for session in dict.fromkeys(session for session, _, _ in sorted(asked)):
        try:
            measured = store.measurements(session=session)
        except StoreError:
            damaged += 1
            continue
        for m in measured:
            if of(m) in asked and m.bursts.sample_ns.size:
                times = np.quantile(m.bursts.sample_ns, SHARES) / _NS_PER_MS
                found[of(m)] = [float(f"{ms:.5g}") for ms in times]
    return found, damaged
