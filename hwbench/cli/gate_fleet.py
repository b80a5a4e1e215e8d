"""``hwbench gate --fleet``: models side by side or against the store, many at once over a fleet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from hwbench import console
from hwbench.cli.fleet import on_devices

if TYPE_CHECKING:
    from hwbench.fleet.models import FleetModels, OneDevice
    from hwbench.measure.jobs import Job
    from hwbench.records import Measurement
    from hwbench.store import Store
    from hwbench.watch.gate import Ruling
    from hwbench.watch.sides import Side
    from hwbench.watch.trial import Effort, Outcome

#: Models a device that are looked at at once: while one is compared, the next one waits for it.
_AHEAD = 2

Answer = TypeVar("Answer")


class AllOver:
    """Rules on models by a fleet's devices: each model by one of them, whose name is noted."""

    def __init__(self, models: FleetModels, effort: Effort, results: Store) -> None:
        from hwbench.watch.commits import git_tags

        self.target, self.effort, self.results = models, effort, results
        self.tags = git_tags()

    def each(self, rule: Callable[[Path], Answer], models: Sequence[Path]) -> list[Answer]:
        """What ``rule`` answers to each model, as many at once as there are devices for."""
        on = on_devices(self.target)
        what = f"holding {console.counted(len(models), 'model')} against the baseline {on}"
        most = min(len(models), _AHEAD * len(self.target.devices))
        with console.progress(what) as report, ThreadPoolExecutor(most) as pool:
            asked = [pool.submit(rule, model) for model in models]
            try:
                report(0.0)
                for number, _ in enumerate(as_completed(asked), start=1):
                    report(number / len(models))
            except BaseException:
                self.target.tasks.end()
                pool.shutdown(cancel_futures=True)
                raise
        return [each.result() for each in asked]

    def side_by_side(self, before: Job, after: Job) -> Ruling:
        """Run both, on whichever device is free; each session of theirs is a task of the queue."""
        from hwbench.fleet.models import OneDevice, first_that_finishes
        from hwbench.fleet.sweep import MOST_TRIES
        from hwbench.watch.gate import ruled_by_pair
        from hwbench.watch.levels import BESIDE
        from hwbench.watch.trial import compare_at

        def attempt(place: str | None) -> Ruling:
            venue, keep = OneDevice(self.target, self.results, place), self.results.add

            def compare(side: Side) -> list[Outcome]:
                tags = {**self.tags, **BESIDE}
                return compare_at(venue, [side], self.effort, keep=keep, tags=tags)

            return _noted(ruled_by_pair(before, after, compare, self.effort.tolerance), venue)

        return first_that_finishes([None] * MOST_TRIES, attempt)

    def against_store(
        self,
        job: Job,
        history: Sequence[Measurement],
        rule: Callable[[Callable[[], Measurement]], Ruling],
        seconds: float,
    ) -> Ruling:
        """Measure a model on a device that the store has a history of it on, else on any."""
        from hwbench.fleet.models import OneDevice, first_that_finishes
        from hwbench.measure.plan import Plan
        from hwbench.watch.levels import GATED

        plan = Plan(seconds=seconds, tags={**self.tags, **GATED})
        named = {device.fingerprint: name for name, (_, device) in self.target.devices.items()}
        keys = dict.fromkeys(m.fingerprint.key for m in reversed(history))
        known = [named[key] for key in keys if key in named]

        def attempt(place: str | None) -> Ruling:
            venue = OneDevice(self.target, self.results, place)
            return _noted(rule(lambda: venue.measured(job, plan)), venue)

        return first_that_finishes(known or [None], attempt)


def _noted(ruling: Ruling, venue: OneDevice) -> Ruling:
    return replace(ruling, notes=(f"measured on {venue.device}", *ruling.notes))
