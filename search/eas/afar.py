"""Generators of tasks trained by the hosts of a fleet, a seed each at a time.

The supernet, the images and the predictor travel once to each host, as tensors, numbers and text
that ``torch.load(weights_only=True)`` reads: no code in them runs.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hwbench.fleet.computing import Computing
from hwbench.predictors import BudgetOracle
from hwbench.search.data import Part
from hwbench.search.eas.policy import Choices, TaskPolicy
from hwbench.search.eas.search import Lesson
from hwbench.search.eas.seeds import TaskCourse, TaskTrainer
from hwbench.search.eas.tasks import TaskGroups
from hwbench.search.generator_file import disclosed, enclosed
from hwbench.search.hosts import answer, ask, require_plain
from hwbench.search.seeds import Progress
from hwbench.search.supernet import Supernet

if TYPE_CHECKING:
    from distributed import Client


def task_trainer_afar(client: Client) -> TaskTrainer:
    """Trains by a fleet's hosts, on as many threads each as this machine would: sums depend on it.

    It raises UsageError where a host has other software, or where the oracle has limits, or knows
    latencies, which a host would not have; NoDeviceError where none computes.
    """
    return partial(_trained_afar, client)


def _trained_afar(
    client: Client, course: TaskCourse, seeds: Sequence[int], progress: Progress
) -> list[TaskPolicy]:
    orders = [{"seed": seed, "threads": torch.get_num_threads()} for seed in seeds]
    found = ask(Computing(client, packed(course)), policy_on_host, orders, progress)
    groups, values = len(course.groups.groups), course.choices.size
    return [TaskPolicy.restored(each["policy"], groups, values) for each in found]


def packed(course: TaskCourse) -> bytes:
    """A course as bytes."""
    require_plain(course.oracle)
    content = {
        "weights": {name: tensor.cpu() for name, tensor in course.net.state_dict().items()},
        "images": [
            torch.from_numpy(np.array(x)) for x in (course.images.images, course.images.labels)
        ],
        "predictor": torch.from_numpy(enclosed(course.oracle.predictor).copy()),
        "groups": course.groups.plain(),
        "fixed": dict(course.choices.fixed),
        "budgets_ms": torch.from_numpy(np.array(course.budgets_ms)),
        "confidence": course.confidence,
        "plan": asdict(course.plan),
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


@lru_cache(maxsize=1)
def unpacked(parcel: bytes) -> TaskCourse:
    """The course in these bytes, on the CPU. PredictorError where its space is not known here."""
    content: dict[str, Any] = torch.load(io.BytesIO(parcel), weights_only=True)
    predictor = disclosed(content["predictor"].numpy(), Path("the course"))
    net = Supernet(predictor.space)
    net.load_state_dict(content["weights"])
    return TaskCourse(
        net=net.eval(),
        images=Part(*(x.numpy() for x in content["images"])),
        oracle=BudgetOracle(predictor),
        groups=TaskGroups.restored(content["groups"]),
        choices=Choices(predictor.space, content["fixed"]),
        budgets_ms=content["budgets_ms"].numpy(),
        confidence=content["confidence"],
        plan=Lesson(**content["plan"]),
    )


def policy_on_host(parcel: bytes, text: str) -> str:
    """Task: the policy of an order's seed, or why it is refused; as JSON."""

    def trained(asked: dict[str, Any]) -> dict[str, Any]:
        with _threads(asked["threads"]):
            policy = unpacked(parcel).trained(asked["seed"], lambda share: None)
        return {"policy": {name: array.tolist() for name, array in policy.state().items()}}

    return answer(text, trained)


@contextmanager
def _threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
