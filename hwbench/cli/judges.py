"""Who rules on the models of ``hwbench gate``: a device of this machine (or many: gate_fleet)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from hwbench.cli.bench import Maker, is_torch_module, jobs_of
from hwbench.cli.compare import live
from hwbench.errors import (
    HwbenchError,
    InconclusiveError,
    ModelError,
    NoHistoryError,
    UnknownNameError,
)

if TYPE_CHECKING:
    from hwbench.devices.base import Device
    from hwbench.measure.jobs import Job
    from hwbench.records import Measurement
    from hwbench.store import Store
    from hwbench.watch.baselines import Baselines
    from hwbench.watch.gate import Ruling, Settled
    from hwbench.watch.sides import Side
    from hwbench.watch.trial import Effort, Outcome

Answer = TypeVar("Answer")


class Judge(Protocol):
    """What rules on models with a device, or with many."""

    @property
    def target(self) -> Maker:
        """Makes their jobs."""

    @property
    def results(self) -> Store:
        """Where all goes that was measured."""

    @property
    def effort(self) -> Effort:
        """What a ruling may cost."""

    def each(self, rule: Callable[[Path], Answer], models: Sequence[Path]) -> list[Answer]:
        """What ``rule`` answers to each model, in their order."""

    def side_by_side(self, before: Job, after: Job) -> Ruling:
        """Run both."""

    def against_store(
        self,
        job: Job,
        history: Sequence[Measurement],
        rule: Callable[[Callable[[], Measurement]], Ruling],
        seconds: float,
    ) -> Ruling:
        """What ``rule`` says, which asks for a fresh measurement of the model when it needs one."""


def ruled_all(
    judge: Judge,
    models: Sequence[Path],
    baselines: Baselines,
    baseline: str,
    given: Mapping[str, tuple[int, ...]],
    threads: int,
    seconds: float,
) -> list[Ruling | Settled | HwbenchError]:
    """The ruling on each model, or why it has none: the others still have theirs.

    ``seconds`` are for one that is measured alone.
    """
    from hwbench.watch.baselines import without
    from hwbench.watch.gate import Settled

    shapes = _shapes_of(models, given)

    def rule(path: Path) -> Ruling | Settled | HwbenchError:
        try:
            (job,) = jobs_of(judge.target, [path], shapes[path], threads)
            if path in baselines.unchanged:
                return Settled(job.workload.name, "unchanged")
            if path in baselines.new:
                return Settled(job.workload.name, "new")
            if (file := baselines.files.get(path)) is not None:
                (before,) = jobs_of(judge.target, [file], shapes[path], threads)
                return judge.side_by_side(before, job)
            if Path(baseline).is_dir():
                raise InconclusiveError(without(baseline, path))
            return _against_store(judge, job, baselines.commit, seconds)
        except HwbenchError as error:
            return error

    return judge.each(rule, models)


def _shapes_of(
    models: Sequence[Path], given: Mapping[str, tuple[int, ...]]
) -> dict[Path, Mapping[str, tuple[int, ...]]]:
    """Of the given shapes, those of each model's own inputs. UnknownNameError for one of none."""
    from hwbench.devices.models import input_names

    found: dict[Path, Mapping[str, tuple[int, ...]]] = {}
    unread = False
    for path in models:
        found[path] = given
        if given and not is_torch_module(path):
            try:
                names = input_names(path)
            except ModelError:  # whoever makes its job says what is wrong with it
                unread, names = True, set()
            found[path] = {name: given[name] for name in given.keys() & names}
    known = set[str]().union(*found.values())
    for name in given:
        if name not in known and not unread:
            raise UnknownNameError("model input", name, known)
    return found


def _against_store(judge: Judge, job: Job, commit: str | None, seconds: float) -> Ruling:
    """Measure the model, and hold it against the store."""
    from hwbench.watch.gate import ruled_by_history
    from hwbench.watch.selection import of_commit

    name = job.workload.name
    history = judge.results.measurements(name=name, with_bursts=False)
    known = history if commit is None else of_commit(history, commit)
    if not known:
        of = "" if commit is None else f" as of commit {commit[:12]}"
        raise NoHistoryError(
            f"{name}: the store has nothing of it{of}: run hwbench bench on the baseline"
        )

    def rule(once: Callable[[], Measurement]) -> Ruling:
        return ruled_by_history(
            name,
            once,
            history,
            judge.results.epochs,
            judge.effort.tolerance,
            commit=commit,
            confidence=judge.effort.confidence,
        )

    return judge.against_store(job, known, rule, seconds)


@dataclass(frozen=True)
class Here:
    """Rules on one model after the other, with a device of this machine."""

    target: Device
    effort: Effort
    results: Store

    def each(self, rule: Callable[[Path], Answer], models: Sequence[Path]) -> list[Answer]:
        """One after the other."""
        return [rule(model) for model in models]

    def side_by_side(self, before: Job, after: Job) -> Ruling:
        """Both in the same fresh processes."""
        from hwbench.watch.gate import ruled_by_pair
        from hwbench.watch.levels import BESIDE

        def compare(side: Side) -> list[Outcome]:
            return live(self.target, [side], self.effort, self.results, BESIDE)

        return ruled_by_pair(before, after, compare, self.effort.tolerance)

    def against_store(
        self,
        job: Job,
        history: Sequence[Measurement],
        rule: Callable[[Callable[[], Measurement]], Ruling],
        seconds: float,
    ) -> Ruling:
        """As ``hwbench bench`` measures it."""
        from hwbench.cli.bench import measure
        from hwbench.measure.plan import Plan
        from hwbench.records import Measurement
        from hwbench.watch.commits import git_tags
        from hwbench.watch.levels import GATED

        plan = Plan(seconds=seconds, tags={**git_tags(), **GATED})

        def once() -> Measurement:
            (current,) = measure(self.target, [job], plan, self.results)
            if not isinstance(current, Measurement):
                raise current.error
            return current

        return rule(once)
