"""What a test asks of a latency, and the engine's answer: what the plug-in loads when asked."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hwbench.devices import get_device
from hwbench.devices.base import Device
from hwbench.devices.calls import Calls
from hwbench.devices.models import input_names, read_model_file
from hwbench.errors import InconclusiveError, UnknownNameError, UsageError
from hwbench.measure.campaign import anchor, record
from hwbench.measure.jobs import Job
from hwbench.measure.plan import Plan
from hwbench.measure.session import measure
from hwbench.records import Measurement
from hwbench.watch import trial
from hwbench.watch.baselines import HISTORY, baseline_files, without
from hwbench.watch.commits import commit_of, git_tags
from hwbench.watch.comparison import Word, sentence
from hwbench.watch.gate import GATE, Ruling, ruled_by_history, ruled_by_pair
from hwbench.watch.levels import BESIDE, GATED
from hwbench.watch.sides import Side

if TYPE_CHECKING:
    from hwbench.store import Store

_SECONDS_ALONE: Final = 2.0
_NS_PER_MS: Final = 1e6
_NO_ANCHOR: Final = "Milliseconds are provisional: without --latency-store nothing is calibrated."

What = str | Path | Callable[[], Any]


@dataclass(frozen=True, slots=True)
class Question:
    """What is measured, against what, and how hard."""

    what: What
    baseline: What | None
    device: str | None
    shapes: Mapping[str, tuple[int, ...]]
    tolerance_pct: float
    seconds: float | None
    sessions: int

    def __post_init__(self) -> None:
        """UsageError for what nothing could be measured of, or told by."""
        for name, given in (("what", self.what), ("baseline", self.baseline)):
            named = isinstance(given, (str, Path)) and str(given) != ""
            if not (named or callable(given) or (given is None and name == "baseline")):
                raise UsageError(f"{name} {given!r}: give a file, or a function")
        if callable(self.what) and self.what == self.baseline:
            raise UsageError("baseline: it is the function itself: give another")
        if callable(self.what) and self.shapes:
            raise UsageError("shapes: a function has its own: leave them out")
        if not isinstance(self.shapes, Mapping) or not all(map(_is_shape, self.shapes.items())):
            raise UsageError(f"shapes: of inputs by name, as {{'x': (1, 3)}}, not {self.shapes!r}")
        if not (_is_real(self.tolerance_pct) and 0 <= self.tolerance_pct < 100):
            raise UsageError(f"tolerance_pct: from 0 to less than 100, not {self.tolerance_pct!r}")
        if not (self.seconds is None or (_is_real(self.seconds) and 0 < self.seconds < math.inf)):
            raise UsageError(f"seconds: a positive number, not {self.seconds!r}")
        if type(self.sessions) is not int or self.sessions < 1:
            raise UsageError(f"sessions: a whole number from 1 on, not {self.sessions!r}")

    @property
    def tolerance(self) -> float:
        """As a share of 1."""
        return self.tolerance_pct / 100


@dataclass(frozen=True, slots=True)
class Found:
    """A latency in ms with its 95 % interval; a ``verdict`` where there was a baseline.

    ``status`` says whether the milliseconds are an answer (``ok``); ``provisional`` ones compare
    with nothing that was measured in another run. ``change_pct`` is against the baseline.
    """

    name: str
    ms: float | None
    low_ms: float | None
    high_ms: float | None
    status: str
    provisional: bool
    verdict: Word | None = None
    change_pct: float | None = None
    sentence: str = ""

    def row(self) -> dict[str, str]:
        """Texts for the summary."""
        width = ""
        if self.ms and self.low_ms is not None and self.high_ms is not None:
            width = f"{50 * (self.high_ms - self.low_ms) / self.ms:.1f}%"
        told = self.status == "ok"
        return {
            "name": self.name,
            "ms": f"{self.ms:.4g}" if told and self.ms is not None else "-",
            "half_width": width if told else "-",
            "verdict": self.verdict or ("" if told else self.status),
            "change": "" if self.change_pct is None else f"{self.change_pct:+.1f}%",
            "sentence": self.sentence,
            "note": _NO_ANCHOR if self.provisional else "",
        }


def answered(question: Question, store: str | None, folder: Path) -> Found:
    """Measure, and keep that in the ``store`` if one is named; ``folder`` is that of git's tags.

    Raises what the engine raises, but for what is inconclusive: that is a verdict.
    """
    with contextlib.ExitStack() as stack:
        results = None
        if store:
            from hwbench.store import Store

            results = stack.enter_context(Store.open(store))
        asked = _Asked(question, results, git_tags(folder))
        if question.baseline is None:
            return asked.alone()
        if callable(question.baseline):
            return asked.beside(asked.job(question.baseline))
        reference = str(question.baseline)
        if callable(question.what):
            commit = None if reference == HISTORY else commit_of(reference, folder)
            if commit is None and reference != HISTORY:
                raise UsageError(
                    f"baseline {reference!r}: a function is held against a function, a commit of "
                    "git, or history"
                )
        else:
            model = Path(question.what)
            baselines = stack.enter_context(baseline_files(reference, [model]))
            commit = baselines.commit
            if model in baselines.files:
                return asked.beside(asked.job(baselines.files[model]))
            if Path(reference).is_dir():
                return asked.undecided(without(reference, model))
            if model in baselines.unchanged | baselines.new:  # there is nothing to compare
                return asked.alone()
        if results is None:
            raise UsageError(
                f"baseline {reference!r}: only a store could have it: name one with "
                "--latency-store, or another baseline"
            )
        return asked.against_store(results, commit)


class _Asked:
    """A question on its device, with where its answers go."""

    def __init__(self, question: Question, results: Store | None, tags: dict[str, str]) -> None:
        self.question, self.results, self.tags = question, results, tags
        self.target = _target(question)
        self.last: Measurement | None = None

    def job(self, what: What) -> Job:
        """The work of a file or a function."""
        if isinstance(self.target, Calls) != callable(what):
            said = getattr(what, "__qualname__", what)
            raise UsageError(f"{said}: a function is held against functions, a file against files")
        if callable(what):
            assert isinstance(self.target, Calls)
            return self.target.job(what)
        assert isinstance(self.target, Device)
        path, shapes = Path(what), self.question.shapes
        known = input_names(path) if shapes else set()
        for name in shapes.keys() - known:
            raise UnknownNameError("model input", name, known)
        return self.target.job(read_model_file(path, shapes), 1)

    def alone(self) -> Found:
        """Measured, and no more."""
        try:
            measured = self._measured({})
        except InconclusiveError as error:
            return self.undecided(str(error))
        if measured.status == "inconclusive":
            name = measured.workload.name
            return self.undecided(f"{name}: its interval is too wide to be an answer")
        return self._found(None)

    def undecided(self, why: str) -> Found:
        """What there is, and why it has no verdict."""
        return self._found(None, why)

    def beside(self, before: Job) -> Found:
        """Both in the same fresh processes, as ``hwbench gate`` does."""
        effort = replace(
            GATE,
            seconds=self.question.seconds or GATE.seconds,
            sessions=self.question.sessions,
            tolerance=self.question.tolerance,
        )
        after = self.job(self.question.what)
        epoch = anchor(self.target, 1, self.results) if self.results else None

        def compare(side: Side) -> list[trial.Outcome]:
            return trial.compare_live(
                self.target, [side], effort, epoch, keep=self._keep, tags={**self.tags, **BESIDE}
            )

        return self._ruled(lambda: ruled_by_pair(before, after, compare, effort.tolerance))

    def against_store(self, results: Store, commit: str | None) -> Found:
        """Against what the store has. Where that is nothing, this is the beginning."""
        name = self.job(self.question.what).workload.name
        history = results.measurements(name=name, with_bursts=False)
        if not history:
            self.alone()
            return self.undecided(f"{name}: the store had nothing of it: this is the first")
        return self._ruled(
            lambda: ruled_by_history(
                name,
                lambda: self._measured(GATED),
                history,
                results.epochs,
                self.question.tolerance,
                commit=commit,
            )
        )

    def _ruled(self, rule: Callable[[], Ruling]) -> Found:
        try:
            return self._found(rule())
        except InconclusiveError as error:
            return self.undecided(str(error))

    def _measured(self, tags: Mapping[str, str]) -> Measurement:
        """A fresh measurement, with these further tags in the store, where there is one."""
        job = self.job(self.question.what)
        seconds = self.question.seconds or _SECONDS_ALONE
        plan = Plan(seconds=seconds, tags={**self.tags, **tags})
        if self.results is None:
            (answer,) = measure(self.target, [job], plan, None)
        else:
            epoch = anchor(self.target, 1, self.results)
            (answer,) = record(self.target, [job], plan, self.results, epoch)
        if not isinstance(answer, Measurement):
            raise answer.error
        self.last = answer
        return answer

    def _keep(self, measurement: Measurement) -> None:
        """Of a pair: the second is what was asked for."""
        self.last = measurement
        if self.results is not None:
            self.results.add(measurement)

    def _found(self, ruling: Ruling | None, doubt: str = "") -> Found:
        last = self.last
        name = last.workload.name if last else self.job(self.question.what).workload.name
        word = ruling.word if ruling else "inconclusive" if doubt else None
        return Found(
            name,
            _ms(last.latency_ns) if last else None,
            _ms(last.low_ns) if last else None,
            _ms(last.high_ns) if last else None,
            last.status if last else "inconclusive",
            last is not None and last.epoch is None,
            word,
            100 * (ruling.comparison.ratio - 1) if ruling else None,
            sentence(ruling.comparison, ruling.word) if ruling else doubt,
        )


def _target(question: Question) -> Device | Calls:
    if callable(question.what):
        if question.device is not None:
            raise UsageError("device: a function runs on this machine's CPU: leave it out")
        return Calls()
    ending = Path(question.what).suffix.lower()
    return get_device(question.device or ("litert" if ending == ".tflite" else "cpu"))


def _is_real(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_shape(item: tuple[object, object]) -> bool:
    return isinstance(item[0], str) and isinstance(item[1], (tuple, list))


def _ms(time_ns: float | None) -> float | None:
    return None if time_ns is None else time_ns / _NS_PER_MS
