"""A device of one's own: how little it takes, and what the conformance suite catches."""

from __future__ import annotations

import dataclasses
import inspect
import itertools
from pathlib import Path
from typing import ClassVar

import pytest

from hwbench.devices.base import Check, Device
from hwbench.devices.models import GraphModel, Model
from hwbench.devices.profile import architecture_jobs, sample_codes
from hwbench.errors import DeviceError, ModelError
from hwbench.measure.jobs import Canary, Job, RunnerSpec
from hwbench.records import Fingerprint, Workload
from hwbench.spaces import get_space
from hwbench.testing.devices import check_device
from tests.targets import LocalTarget, runner


class Counter(Device):
    """Counts as far as the model has MACs, in Python."""

    name = "counter"
    runner_file: ClassVar[RunnerSpec]

    def fingerprint(self, threads: int) -> Fingerprint:
        return Fingerprint(self.name, {"runtime": "python"})

    def health(self) -> list[Check]:
        return [Check("runtime", "ok", "python counts")]

    def job(self, model: Model, threads: int) -> Job:
        if not isinstance(model, GraphModel):
            raise ModelError(f"counter runs graphs, not {type(model).__name__}")
        workload = Workload(model.name, "counter:" + model.graph.hash, (), threads)
        args = {**self.runner_file.args, "us": max(model.graph.macs // 1000, 20)}
        return Job(workload, lambda folder: dataclasses.replace(self.runner_file, args=args))


@pytest.fixture(autouse=True)
def runner_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Counter, "runner_file", runner(tmp_path), raising=False)


@pytest.fixture
def light_canaries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    local = LocalTarget(tmp_path)
    monkeypatch.setattr(Counter, "canaries", lambda self, threads: local.canaries(threads))


def test_a_new_device_takes_at_most_40_lines_and_keeps_the_contract() -> None:
    assert len(inspect.getsource(Counter).splitlines()) <= 40
    check_device(Counter())


def test_its_measurements_of_a_space_are_labelled_for_it() -> None:
    """A device need know nothing of spaces for what it measures to be found again."""
    space = get_space("mbv3_small_rgb")
    codes = sample_codes(space, 2)
    found = [job.workload for job in architecture_jobs(Counter(), space, codes)]
    assert [(w.space, w.arch) for w in found] == [(space.name, t) for t in space.decode(codes)]


count = itertools.count()


class NoName(Counter):
    name = "my phone"


class NoPython(Counter):
    python = "/nowhere/python"  # type: ignore[assignment]


class OtherName(Counter):
    def fingerprint(self, threads: int) -> Fingerprint:
        return Fingerprint("cpu", {"runtime": "python"})


class NoFacts(Counter):
    def fingerprint(self, threads: int) -> Fingerprint:
        return Fingerprint(self.name, {})


class Numbers(Counter):
    def fingerprint(self, threads: int) -> Fingerprint:
        return Fingerprint(self.name, {"cores": 4})  # type: ignore[dict-item]


class Uptime(Counter):
    def fingerprint(self, threads: int) -> Fingerprint:
        return Fingerprint(self.name, {"runtime": "python", "uptime": str(next(count))})


class Unplugged(Counter):
    def fingerprint(self, threads: int) -> Fingerprint:
        raise DeviceError("no device is attached: plug it in")


class Blind(Counter):
    def health(self) -> list[Check]:
        return []


class Helpless(Counter):
    def health(self) -> list[Check]:
        return [Check("battery", "warn", "12 %")]


class SameKey(Counter):
    def job(self, model: Model, threads: int) -> Job:
        made = super().job(model, threads)
        return Job(dataclasses.replace(made.workload, model_hash="counter"), made.build)


class NewKey(Counter):
    def job(self, model: Model, threads: int) -> Job:
        made = super().job(model, threads)
        return Job(dataclasses.replace(made.workload, model_hash=str(next(count))), made.build)


class OneThread(Counter):
    def job(self, model: Model, threads: int) -> Job:
        return super().job(model, 1)


class OneKind(Counter):
    def canaries(self, threads: int) -> tuple[Canary, ...]:
        return super().canaries(threads)[:1]


class TwoOfAName(Counter):
    def canaries(self, threads: int) -> tuple[Canary, ...]:
        return tuple(dataclasses.replace(c, name="it") for c in super().canaries(threads))


class NewCanary(Counter):
    def canaries(self, threads: int) -> tuple[Canary, ...]:
        version = str(next(count))
        return tuple(dataclasses.replace(c, version=version) for c in super().canaries(threads))


class Tuples(Counter):
    def job(self, model: Model, threads: int) -> Job:
        made = super().job(model, threads)

        def build(folder: Path) -> RunnerSpec:
            spec = made.build(folder)
            return dataclasses.replace(spec, args={**spec.args, "shape": (1, 3)})

        return Job(made.workload, build)


class Broken(Counter):
    fault = "raise ValueError('no licence')"

    def job(self, model: Model, threads: int) -> Job:
        made = super().job(model, threads)
        folder = Path(self.runner_file.file).parent
        return Job(made.workload, lambda _: runner(folder, self.fault, at=3, us=20))


class Lazy(Broken):
    fault = "return [1_000] * (n - 1)"


class Still(Broken):
    fault = "self.run = lambda n: [0] * n; return [0] * n"


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (NoName, "'my phone' is no name that can be typed after -d"),
        (NoPython, "no interpreter '/nowhere/python'"),
        (OtherName, "its fingerprint is of 'cpu'"),
        (NoFacts, "a fingerprint without facts fits every machine"),
        (Numbers, "facts and state of a fingerprint are texts"),
        (Uptime, r"belong to the state: \['uptime'\]"),
        (Unplugged, "fingerprint fails: no device is attached: plug it in"),
        (Blind, "health looks at nothing"),
        (Helpless, "check 'battery': warn without a cure"),
        (SameKey, "two models have one key"),
        (NewKey, "a model has another key each time"),
        (OneThread, "job ignores the number of threads"),
        (OneKind, "canaries of each kind are needed: compute, "),
        (TwoOfAName, "two canaries of one name"),
        (NewCanary, "the canaries' versions change from call to call"),
        (Tuples, "a runner's args are not plain JSON"),
        (Broken, "a worker fails: no licence"),
        (Lazy, r"a worker fails: the runner answered run\(1\) with 0 times"),
        (Still, "a runner answers times of 0 ns"),
    ],
)
@pytest.mark.usefixtures("light_canaries")
def test_the_suite_catches(kind: type[Counter], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_device(kind())
