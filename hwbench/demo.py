"""The whole of hwbench in one go: measure, predict, keep a budget, report.

Profiles this CPU over ``ofa_mbv3``, fits a latency predictor, tests it on architectures that a
later session measured and it never saw, trains a PNAG generator that answers any budget with the
largest network that it knows of, measures its answers to three budgets, and writes a page that
says what was promised and what was kept. Predictor and generator are saved as soon as they stand.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from hwbench.devices import get_device
from hwbench.devices.base import Device
from hwbench.devices.profile import (
    PROFILE_PLAN,
    Profile,
    answered,
    architecture_jobs,
    sample_profile,
)
from hwbench.errors import DeviceError, InconclusiveError
from hwbench.measure.campaign import anchor, record
from hwbench.measure.plan import Failure, Plan
from hwbench.predictors import (
    BudgetOracle,
    Constant,
    CostRegression,
    LatencyPredictor,
    MacsLine,
    Metrics,
    evaluate,
    fit_predictor,
)
from hwbench.predictors.measured import provenance_of, training_from
from hwbench.records import Measurement
from hwbench.search.accuracy.proxy import CapacityProxy
from hwbench.search.ledger import SearchLedger
from hwbench.search.pnag import Costs, Generated, Generator, save_generator, train_generator
from hwbench.search.random_search import CAPACITY_PROXY
from hwbench.spaces import Space, get_space
from hwbench.spaces.design import candidates
from hwbench.store import Store
from hwbench.watch import page
from hwbench.watch.figures import predictor_figure

SPACE = "ofa_mbv3"
SAMPLES = 160
TEST_SAMPLES = 40
#: Where in the achievable range (of log latency) the three budgets lie.
BUDGETS_AT = (0.3, 0.55, 0.8)
#: Budgets that the generator is trained on, and architectures whose MACs it is told.
TRAINED_ON, LABELS = 8, 200
CONFIDENCE = 0.98
PREDICTORS = {
    "hwbench": CostRegression.kind,
    "MACs line": MacsLine.kind,
    "constant": Constant.kind,
}

Tell = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class Demo:
    """What the demo found, and where its page and its generator are."""

    report: page.DemoReport
    predictor: LatencyPredictor
    generator: Path
    path: Path


@dataclass(slots=True)
class _Stages:
    """Runs stages, tells how far each is, and keeps what it took."""

    tell: Tell
    done: list[page.Stage] = field(default_factory=list)

    @contextmanager
    def stage(self, name: str) -> Iterator[Callable[[float], None]]:
        began = time.monotonic()
        self.tell(name, 0.0)
        yield lambda share: self.tell(name, share)
        self.done.append(page.Stage(name, time.monotonic() - began))


def run_demo(
    store: Store, folder: Path, tell: Tell, *, samples: int = SAMPLES, seed: int = 0
) -> Demo:
    """Run the demo and write its page to ``folder``.

    What the store holds of the same device, sample and environment is not measured again; the
    winners always are. ``tell`` is told the stage and the share of it that is done.
    InconclusiveError where most of the sample, or of the test, could not be measured.
    """
    folder.mkdir(parents=True, exist_ok=True)  # now, not after minutes of measuring
    device, space, stages = get_device("cpu"), get_space(SPACE), _Stages(tell)
    with stages.stage("calibrate the canaries") as share:
        epoch = anchor(device, 1, store, share)
    with stages.stage(f"profile {samples} architectures") as share:
        learned, tried = _measured(sample_profile(device, space, samples, seed=seed), store, share)
    with stages.stage("fit the predictors"):
        provenance = provenance_of(learned)
        training = training_from(space, learned)
        fitted = {
            name: fit_predictor(space, training, provenance, seed=seed, kind=kind)
            for name, kind in PREDICTORS.items()
        }
        predictor = fitted["hwbench"]
        predictor.save(folder / f"cpu-{SPACE}.hwp")
    with stages.stage(f"measure {TEST_SAMPLES} it never saw") as share:
        unseen = _unseen(device, space, learned, seed)
        tested, tested_of = _measured(unseen, store, share)
    with stages.stage("train a generator") as share:
        generator, ledger = _generator(space, BudgetOracle(predictor), seed + 2, share)
        path = folder / f"cpu-{SPACE}.hwg"
        save_generator(generator, path, objective=CAPACITY_PROXY, ledger=ledger.row())
        found = generator.generate(_budgets(generator))
    with stages.stage("measure its answers again") as share:
        winners = _winners(device, space, found, store, share)
    report = page.DemoReport(
        title="hwbench demo",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        command=f"hwbench demo -n {samples} --seed {seed}",
        space=SPACE,
        fingerprint=device.fingerprint(1),
        epoch=epoch,
        profile=_profile(space, learned, tried),
        evaluation=_evaluation(space, fitted, tested, tested_of),
        budgets=[_budget(space, g, m) for g, m in zip(found, winners, strict=True)],
        stages=stages.done,
    )
    predictor_figure(report.profile, report.evaluation, report.budgets, folder / "demo.png")
    return Demo(report, predictor, path, page.write_page(report, folder))


def _measured(
    profile: Profile, store: Store, share: Callable[[float], None]
) -> tuple[list[Measurement], page.Tried]:
    """Run a profile, or what is left of it; its measurements from the store, and how many failed.

    InconclusiveError where less than half has a latency: nothing would be proved by the rest.
    """
    for result in profile.run(store, PROFILE_PLAN, share):
        _require_disturbed(result)
    stored = profile.stored(store)
    keys = {m.workload.key for m in stored if m.latency_ns is not None}
    asked = len({job.workload.key for job in profile.jobs})
    tried = page.Tried(asked, len(keys), len(keys - answered(stored)))
    if 2 * tried.measured < asked:
        raise InconclusiveError(
            f"{tried}, the machine is too busy: leave it a free core, then run the same command "
            "again; what was measured is stored, it goes on from there"
        )
    return stored, tried


def _require_disturbed(result: Measurement | Failure) -> None:
    """What was disturbed throughout is left out; any other failure is worth stopping for."""
    if isinstance(result, Failure) and not isinstance(result.error, InconclusiveError):
        raise DeviceError(f"{result.workload.name}: {result.reason}")


def _winners(
    device: Device,
    space: Space,
    found: Sequence[Generated],
    store: Store,
    share: Callable[[float], None],
) -> list[Measurement | None]:
    """Measure answers anew, in their order; None where the machine was too busy for one."""
    jobs = architecture_jobs(device, space, np.array([answer.code for answer in found]))
    once = {job.workload.key: job for job in jobs}
    epoch, measured = anchor(device, 1, store), dict[str, Measurement]()
    for result in record(device, list(once.values()), Plan(), store, epoch, progress=share):
        _require_disturbed(result)
        if isinstance(result, Measurement):
            measured[result.workload.key] = result
    return [measured.get(job.workload.key) for job in jobs]


def _unseen(device: Device, space: Space, learned: Sequence[Measurement], seed: int) -> Profile:
    """Architectures drawn uniformly, none of which was learned from."""
    known = {m.workload.arch for m in learned}
    pool = space.sample(2 * TEST_SAMPLES, np.random.default_rng(seed + 1))
    fresh = [c for c, text in zip(pool, space.decode(pool), strict=True) if text not in known]
    return Profile(space, np.array(fresh[:TEST_SAMPLES]), device)


def _generator(
    space: Space, oracle: BudgetOracle, seed: int, share: Callable[[float], None]
) -> tuple[Generator, SearchLedger]:
    """PNAG over all that can be reached, by MACs: nothing was trained that an accuracy is of."""
    upper = oracle.upper(candidates(space, 20_000, np.random.default_rng(seed)), CONFIDENCE)
    trained = np.geomspace(upper.min(), upper.max(), TRAINED_ON)
    return train_generator(
        CapacityProxy(space),
        oracle,
        list(trained),
        costs=Costs(LABELS),
        confidence=CONFIDENCE,
        seed=seed,
        progress=lambda _, done: share(done),
    )


def _budgets(generator: Generator) -> list[float]:
    """Such as a person would type: three digits."""
    low, high = np.log(generator.range_ms)
    return [float(f"{np.exp(low + at * (high - low)):.3g}") for at in BUDGETS_AT]


def _profile(space: Space, learned: Sequence[Measurement], tried: page.Tried) -> page.Profile:
    usable = [m for m in learned if m.latency_ns is not None]
    texts = [str(m.workload.arch) for m in usable]
    codes = space.encode(texts)
    resolution = [space.choice(code)["r"] for code in codes]
    return page.Profile(
        architectures=texts,
        measured_ms=np.array([m.latency_ns for m in usable], float) / 1e6,
        low_ms=np.array([m.low_ns for m in usable], float) / 1e6,
        high_ms=np.array([m.high_ns for m in usable], float) / 1e6,
        macs=space.macs(codes),
        resolution=np.array(resolution),
        tried=tried,
    )


def _evaluation(
    space: Space,
    fitted: dict[str, LatencyPredictor],
    tested: Sequence[Measurement],
    tried: page.Tried,
) -> page.Evaluation:
    test = training_from(space, tested)
    scores: dict[str, Metrics] = {name: evaluate(p, test) for name, p in fitted.items()}
    ours = fitted["hwbench"]
    low, high = ours.interval(test.codes, 0.9)
    return page.Evaluation(
        architectures=space.decode(test.codes),
        measured_ms=test.latency_ms,
        predicted_ms=ours.predict(test.codes).mean_ms,
        low_ms=low,
        high_ms=high,
        scores=scores,
        tried=tried,
    )


def _budget(space: Space, answer: Generated, measured: Measurement | None) -> page.Budget:
    figures: tuple[float | None, ...] = (None, None, None)
    if measured is not None:
        figures = (measured.latency_ns, measured.low_ns, measured.high_ns)
    latency, low, high = (math.nan if f is None else f / 1e6 for f in figures)
    return page.Budget(
        budget_ms=answer.budget_ms,
        architecture=answer.text,
        macs=int(space.macs(answer.code[None])[0]),
        predicted_ms=answer.predicted_ms,
        upper_ms=answer.upper_ms,
        confidence=CONFIDENCE,
        measured_ms=latency,
        low_ms=low,
        high_ms=high,
        inconclusive=measured is not None and measured.status == "inconclusive",
    )
