"""`hwbench profile`: what is measured, what is not measured again, and what is said of the answers.

The engine is replaced by made-up answers: which architectures it is asked for is the point.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hwbench.cli import main
from hwbench.devices import get_device
from hwbench.devices.profile import PROFILE_PLAN, measure_architectures
from hwbench.errors import DeviceError, HwbenchError, InconclusiveError
from hwbench.measure.jobs import Job
from hwbench.measure.plan import Failure, Plan
from hwbench.records import Measurement
from hwbench.spaces import get_space
from hwbench.store import Store
from tests.measurements import epoch_on, measurement

CPU = get_device("cpu")
PROFILE = ("profile", "-s", "mbv3_small", "--json")


class Engine:
    """Answers as it is told, and stores them as the real one does."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.seconds: list[float] = []
        self.sessions = 0
        self.inconclusive: Callable[[str], bool] = lambda _: False
        self.fails: Callable[[str], bool] = lambda _: False
        self.failure: HwbenchError = DeviceError("the cable was pulled")

    def record(
        self,
        target: object,
        jobs: Sequence[Job],
        plan: Plan,
        store: Store,
        epoch: Any,
        **how: Any,
    ) -> Iterator[Measurement | Failure]:
        self.asked = [job.workload.name for job in jobs]
        self.seconds.append(plan.seconds)
        self.sessions += 1
        for number, job in enumerate(jobs):
            name = job.workload.name
            if self.fails(name):
                yield Failure(job.workload, self.failure)
                continue
            answer = measurement(
                number,
                session=f"session {self.sessions}",
                status="inconclusive" if self.inconclusive(name) else "ok",
                fingerprint=CPU.fingerprint(1),
                epoch=epoch.id,
                **{f"work_{f}": getattr(job.workload, f) for f in job.workload.__slots__},
            )
            store.add(answer, plan=how["campaign"])
            yield answer


@pytest.fixture
def engine(own_store: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    with Store.open(own_store) as store:
        store.add_epoch(epoch_on(CPU))
    made = Engine()
    monkeypatch.setattr("hwbench.devices.profile.record", made.record)
    return made


Run = Callable[..., tuple[int, dict[str, Any], str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def answer(*arguments: object) -> tuple[int, dict[str, Any], str]:
        code = main([*PROFILE, *map(str, arguments)])
        out, err = capsys.readouterr()
        return code, json.loads(out), err

    return answer


@pytest.fixture
def some(tmp_path: Path) -> Callable[[int], tuple[str, Path]]:
    """The options that name the first so many of a list of architectures."""
    space = get_space("mbv3_small")
    texts = space.decode(space.sample(12, np.random.default_rng(0)))

    def name(n: int) -> tuple[str, Path]:
        path = tmp_path / f"{n}.txt"
        path.write_text("\n".join(texts[:n]))
        return "--file", path

    return name


Some = Callable[[int], tuple[str, Path]]


def test_a_larger_sample_measures_only_what_is_missing(engine: Engine, run: Run) -> None:
    assert run("-n", 5)[0] == 0
    first = engine.asked
    assert len(first) == 5
    code, told, _ = run("-n", 12)
    assert (code, told["measured"], told["already_stored"]) == (0, 7, 5)
    assert len({*first, *engine.asked}) == 12
    sessions = engine.sessions
    code, told, err = run("-n", 8)
    assert (code, told["measured"], told["already_stored"]) == (0, 0, 8)
    assert engine.sessions == sessions
    assert err == ""


def test_what_another_sample_measured_counts(engine: Engine, run: Run, some: Some) -> None:
    run(*some(4))
    code, told, _ = run(*some(2))
    assert (code, told["measured"], told["already_stored"]) == (0, 0, 2)


@pytest.mark.parametrize("otherwise", ["epoch", "threads"])
def test_what_does_not_compare_is_measured_anew(
    otherwise: str, engine: Engine, run: Run, some: Some, own_store: Path
) -> None:
    run(*some(4))
    later = {"id": "later", "created": "2099-01-31T00:00:00+00:00"}
    changes, options = (later, ()) if otherwise == "epoch" else ({"threads": 2}, ("--threads", 2))
    with Store.open(own_store) as store:
        store.add_epoch(epoch_on(CPU, **{"id": "two", **changes}))
    _, told, _ = run(*some(4), *options)
    assert (told["measured"], told["already_stored"]) == (4, 0)


def test_redo_measures_the_inconclusive_ones_again_and_keeps_all(
    engine: Engine, run: Run, some: Some, own_store: Path
) -> None:
    engine.inconclusive = lambda name: name in engine.asked[:3]
    assert run(*some(8))[1]["inconclusive"] == 3
    wide = engine.asked[:3]
    assert run(*some(8))[1]["measured"] == 0  # only on purpose

    engine.inconclusive = lambda name: name == wide[1]
    code, told, err = run(*some(8), "--redo")
    assert engine.asked == wide
    assert (code, told["measured"], told["inconclusive"]) == (0, 3, 1)
    assert "1 of 8 architectures is inconclusive" in err
    run(*some(8), "--redo")
    assert engine.asked == [wide[1]]
    with Store.open(own_store) as store:
        assert len(store.measurements(with_bursts=False)) == 8 + 3 + 1


def test_redo_measures_what_is_missing_too(engine: Engine, run: Run, some: Some) -> None:
    engine.inconclusive = lambda _: True
    run(*some(3))
    engine.inconclusive = lambda _: False
    code, told, _ = run(*some(5), "--redo")
    assert (code, told["measured"], told["inconclusive"]) == (0, 5, 0)


def test_an_architecture_gets_the_time_that_is_asked_for(
    engine: Engine, run: Run, some: Some
) -> None:
    run(*some(2))
    run(*some(3), "--seconds", "4")
    assert engine.seconds == [PROFILE_PLAN.seconds, 4.0]


@pytest.mark.parametrize(("wide", "code"), [(0, 0), (2, 0), (3, 3)])
def test_most_of_them_inconclusive_is_no_success(
    wide: int, code: int, engine: Engine, run: Run, some: Some
) -> None:
    engine.inconclusive = lambda name: name in engine.asked[:wide]
    found, told, err = run(*some(4))
    assert (found, told["inconclusive"]) == (code, wide)
    assert (f"{wide} of 4 architectures are inconclusive" in err) == (wide > 0)
    assert ("run this again with --redo" in err) == (wide > 0)
    assert ("hwbench: " in err) == (code == 3)


def test_what_was_tried_again_and_failed_counts_once(engine: Engine, run: Run, some: Some) -> None:
    """Two of five: less than half."""
    engine.inconclusive = lambda name: name in engine.asked[:2]
    assert run(*some(5))[0] == 0
    engine.failure, engine.fails = InconclusiveError("no burst counts"), lambda _: True
    code, told, err = run(*some(5), "--redo")
    assert (code, told["inconclusive"], told["failed"]) == (0, 0, 2)
    assert "2 of 5 architectures could not be measured" in err


def test_a_failure_keeps_nothing_from_the_others(engine: Engine, own_store: Path) -> None:
    """The generator's own measurements: what was measured beside it is stored."""
    space = get_space("mbv3_small")
    codes = space.sample(4, np.random.default_rng(0))
    engine.fails = lambda name: name == engine.asked[0]
    with Store.open(own_store) as store:
        with pytest.raises(DeviceError, match="the cable was pulled"):
            measure_architectures(CPU, space, codes, store)
        assert len(store.measurements()) == 3


@pytest.mark.parametrize("redo", [False, True])
def test_architectures_that_are_the_same_model_are_measured_once(
    redo: bool, engine: Engine, run: Run, tmp_path: Path, own_store: Path
) -> None:
    """One input, skipped to the output: by the first way, and by another."""
    direct = "|none~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|"
    around = "|skip_connect~0|+|none~0|skip_connect~1|+|none~0|none~1|skip_connect~2|"
    path = tmp_path / "archs"
    path.write_text(f"{direct}\n{around}\n")
    command = ("-s", "nasbench201", "--file", path, *(("--redo",) if redo else ()))
    engine.inconclusive = lambda _: True
    code, told, _ = run(*command)
    assert (code, told["architectures"], told["measured"], told["inconclusive"]) == (3, 2, 1, 2)
    assert len(engine.asked) == 1
    engine.inconclusive = lambda _: False
    code, told, _ = run(*command)
    assert (told["measured"], told["already_stored"]) == (int(redo), 2)
    assert engine.sessions == 1 + redo
    with Store.open(own_store) as store:
        assert len(store.measurements(with_bursts=False)) == 1 + redo


def test_an_interrupt_says_how_many_are_kept(
    engine: Engine, some: Some, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(*given: Any, **how: Any) -> Iterator[Measurement | Failure]:
        found = engine.record(*given, **how)
        yield from (next(found) for _ in range(3))
        raise KeyboardInterrupt

    monkeypatch.setattr("hwbench.devices.profile.record", stopped)
    assert main([*PROFILE, *map(str, some(8))]) == 130
    assert capsys.readouterr().err.splitlines()[-1] == (
        "hwbench: interrupted: 3 of 8 architectures are stored, the same command goes on with the "
        "others"
    )


def test_seconds_are_those_of_this_run_though_nothing_came_of_it(
    engine: Engine, run: Run, some: Some
) -> None:
    engine.fails = lambda _: True
    assert run(*some(2))[1]["seconds"] > 0


@pytest.mark.parametrize("busy", [10.0, 90.0])
def test_a_busy_machine_is_told_of_before_anything_is_measured(
    busy: float, engine: Engine, run: Run, some: Some, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("psutil.cpu_percent", lambda interval: busy)
    code, _, err = run(*some(2))
    assert code == 0
    told = [line for line in err.splitlines() if line.startswith("other programs keep 90% of")]
    assert len(told) == (busy > 50)
    assert run(*some(2))[2] == ""  # there is nothing to measure


def test_a_failure_names_its_architecture_once(engine: Engine, run: Run, some: Some) -> None:
    engine.fails = lambda name: name == engine.asked[0]
    code, told, err = run(*some(3))
    assert (code, told["failed"], told["measured"]) == (4, 1, 2)
    last = err.splitlines()[-1]
    assert last.count(engine.asked[0]) == 1
    assert "1 of 3 architectures could not be measured: run the same command again" in last
    assert last.endswith("the cable was pulled")
    engine.fails = lambda _: False
    assert run(*some(3))[0] == 0
    assert len(engine.asked) == 1


@pytest.mark.parametrize(
    ("disturbed", "wide", "code"), [(1, 0, 0), (1, 1, 0), (2, 1, 3), (3, 0, 3)]
)
def test_some_that_were_disturbed_throughout_are_no_failure(
    disturbed: int, wide: int, code: int, engine: Engine, run: Run, some: Some
) -> None:
    engine.failure = InconclusiveError("never quiet")
    engine.fails = lambda name: name in engine.asked[:disturbed]
    engine.inconclusive = lambda name: name in engine.asked[disturbed : disturbed + wide]
    found, told, err = run(*some(4))
    assert (found, told["failed"], told["inconclusive"]) == (code, disturbed, wide)
    assert f"{disturbed} of 4 architectures could not be measured" in err
    assert ("hwbench: " in err) == (code == 3)
