"""The whole of hwbench in one go: measure, predict, keep a budget, report.

Profiles this CPU over ``ofa_mbv3``, fits a latency predictor, tests it on architectures that a
later session measured and it never saw, trains a PNAG generator that answers any budget with the
largest network that it knows of, measures its answers to three budgets, and writes a page that
says what was promised and what was kept.
"""

from __future__ import annotations

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
    measure_architectures,
    sample_profile,
)
from hwbench.errors import DeviceError, InconclusiveError
from hwbench.measure.campaign import anchor
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
    """What the demo found, and where its page is."""

    report: page.DemoReport
    predictor: LatencyPredictor
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
    """
    folder.mkdir(parents=True, exist_ok=True)  # now, not after minutes of measuring
    device, space, stages = get_device("cpu"), get_space(SPACE), _Stages(tell)
    with stages.stage("calibrate the canaries") as share:
        epoch = anchor(device, 1, store, share)
    with stages.stage(f"profile {samples} architectures") as share:
        learned = _measured(sample_profile(device, space, samples, seed=seed), store, share)
    with stages.stage("fit the predictors"):
        provenance = provenance_of(learned)
        training = training_from(space, learned)
        fitted = {
            name: fit_predictor(space, training, provenance, seed=seed, kind=kind)
            for name, kind in PREDICTORS.items()
        }
    with stages.stage(f"measure {TEST_SAMPLES} it never saw") as share:
        unseen = _unseen(device, space, learned, seed)
        tested = _measured(unseen, store, share)
    with stages.stage("train a generator") as share:
        generator, ledger = _generator(space, BudgetOracle(fitted["hwbench"]), seed + 2, share)
        found = generator.generate(_budgets(generator))
    with stages.stage("measure its answers again") as share:
        codes = np.array([answer.code for answer in found])
        winners = measure_architectures(device, space, codes, store, plan=Plan(), progress=share)
    report = page.DemoReport(
        title="hwbench demo",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        command=f"hwbench demo -n {samples} --seed {seed}",
        space=SPACE,
        fingerprint=device.fingerprint(1),
        epoch=epoch,
        profile=_profile(space, learned),
        evaluation=_evaluation(space, fitted, tested),
        budgets=[_budget(space, g, m) for g, m in zip(found, winners, strict=True)],
        stages=stages.done,
    )
    predictor = fitted["hwbench"]
    predictor.save(folder / "cpu-ofa_mbv3.hwp")
    save_generator(
        generator, folder / "cpu-ofa_mbv3.hwg", objective=CAPACITY_PROXY, ledger=ledger.row()
    )
    predictor_figure(report.profile, report.evaluation, report.budgets, folder / "demo.png")
    return Demo(report, predictor, page.write_page(report, folder))


def _measured(profile: Profile, store: Store, share: Callable[[float], None]) -> list[Measurement]:
    """Run a profile, or what is left of it; its measurements from the store."""
    disturbed: InconclusiveError | None = None
    for result in profile.run(store, PROFILE_PLAN, share):
        if not isinstance(result, Failure):
            continue
        # One that was disturbed throughout is left out; anything else is worth stopping for.
        if not isinstance(result.error, InconclusiveError):
            raise DeviceError(f"{result.workload.name}: {result.reason}")
        disturbed = result.error
    stored = profile.stored(store)
    if disturbed is not None and not stored:
        raise disturbed
    return stored


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


def _profile(space: Space, learned: Sequence[Measurement]) -> page.Profile:
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
        refused=len(learned) - len(usable),
    )


def _evaluation(
    space: Space, fitted: dict[str, LatencyPredictor], tested: Sequence[Measurement]
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
    )


def _budget(space: Space, answer: Generated, measured: Measurement) -> page.Budget:
    nan = float("nan")
    figures = (measured.latency_ns, measured.low_ns, measured.high_ns)
    latency, low, high = (nan if f is None else f / 1e6 for f in figures)
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
    )
