"""Controllers trained by the hosts of a fleet, a seed each at a time.

What they learn from travels once to each host: a file of plain arrays and JSON, the predictor's
within (:mod:`hwbench.predictors.files`), in which nothing is executed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import threadpool_limits

from hwbench.fleet.computing import Computing
from hwbench.predictors import BudgetOracle, files
from hwbench.search.accuracy.model import AccuracyModel, Scales
from hwbench.search.answering import codes_of, numbers_of
from hwbench.search.generator_file import disclosed, enclosed
from hwbench.search.hosts import answer, ask, require_plain
from hwbench.search.ledger import SearchLedger
from hwbench.search.pnag.policy import Policy
from hwbench.search.pnag.seeds import Course, Trained, Trainer
from hwbench.search.pnag.training import Schedule
from hwbench.search.scoring import Scored
from hwbench.search.seeds import Progress

if TYPE_CHECKING:
    from distributed import Client

#: What training counts; its seconds are the client's.
_COUNTS = ("training_steps", "evaluator_calls", "oracle_queries")


def trainer_afar(client: Client) -> Trainer:
    """Trains by a fleet's hosts: the controllers that this machine would make of those seeds.

    It raises UsageError where a host has other software, or where the oracle has limits, or knows
    latencies, which a host would not have; NoDeviceError where none computes.
    """
    return partial(_trained_afar, client)


def _trained_afar(
    client: Client, course: Course, seeds: Sequence[int], progress: Progress
) -> list[Trained]:
    orders = [{"seed": seed} for seed in seeds]
    found = ask(Computing(client, packed(course)), trained_on_host, orders, progress)
    return [_unpacked(course, each) for each in found]


def packed(course: Course) -> bytes:
    """A course as bytes."""
    require_plain(course.oracle)
    meta = {
        "space": course.space.name,
        "confidence": course.confidence,
        "fixed": dict(course.fixed),
        "plan": asdict(course.plan),
        "scales": asdict(course.evaluator.scales),
    }
    arrays: dict[str, Any] = {
        "predictor": enclosed(course.oracle.predictor),
        "labelled": course.evaluator.codes.astype(np.int16),
        "accuracy": course.evaluator.accuracy,
        "budgets_ms": course.budgets_ms,
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "course"
        files.write(path, meta, arrays)
        return path.read_bytes()


@lru_cache(maxsize=1)
def unpacked(parcel: bytes) -> Course:
    """The course in these bytes, with a ledger of its own. PredictorError where it is none."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "course"
        path.write_bytes(parcel)
        meta, arrays = files.read(path)
        predictor = disclosed(arrays["predictor"], path)
    labelled = codes_of(arrays, "labelled", predictor.space)
    accuracy = numbers_of(arrays, "accuracy", most=1)
    return Course(
        evaluator=AccuracyModel(predictor.space, labelled, accuracy, Scales(**meta["scales"])),
        oracle=BudgetOracle(predictor),
        confidence=meta["confidence"],
        budgets_ms=arrays["budgets_ms"].astype(np.float64),
        fixed=meta["fixed"],
        plan=Schedule(**meta["plan"]),
        ledger=SearchLedger(),
    )


def trained_on_host(parcel: bytes, text: str) -> str:
    """Task: the controller of an order's seed, or why it is refused; as JSON."""

    def trained(asked: dict[str, Any]) -> dict[str, Any]:
        course = replace(unpacked(parcel), ledger=SearchLedger())  # of this training alone
        with threadpool_limits(1, user_api="blas"):
            made = course.trained(asked["seed"], lambda share: None)
        return {
            "policy": {name: array.tolist() for name, array in made.policy.state().items()},
            "archive": {f.name: getattr(made.archive, f.name).tolist() for f in fields(Scored)},
            "ledger": {name: getattr(course.ledger, name) for name in _COUNTS},
        }

    return answer(text, trained)


def _unpacked(course: Course, found: dict[str, Any]) -> Trained:
    """What a host answered; its costs are added to the course's."""
    for name in _COUNTS:
        setattr(course.ledger, name, getattr(course.ledger, name) + int(found["ledger"][name]))
    archive = found["archive"]
    return Trained(
        Policy.restored(found["policy"], course.space),
        Scored(
            course.space.check(archive["codes"]),
            np.array(archive["score"], dtype=np.float64),
            np.array(archive["upper_ms"], dtype=np.float64),
        ),
    )
