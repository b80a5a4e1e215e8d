"""Whole sessions on this machine's onnxruntime: tiny nets, short plans, real workers."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from hwbench.devices import get_device
from hwbench.devices.models import read_onnx_file
from hwbench.errors import GraphError, ModelError, UsageError
from hwbench.measure import session as session_module
from hwbench.measure.campaign import known_epoch, record
from hwbench.measure.jobs import Job, RunnerSpec
from hwbench.measure.plan import Failure, Plan
from hwbench.measure.session import measure
from hwbench.records import CAUSES, CanaryEpoch, Measurement
from hwbench.store import Store
from tests.measurements import epoch_on
from tests.targets import LocalTarget, job, leaves_nothing, runner, tiny_net

CPU = get_device("cpu")
#: Just two rounds in each process: 4 bursts of at most 20 runs.
SHORTEST = Plan(processes=2, seconds=1e-3)


@pytest.fixture(autouse=True)
def nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with leaves_nothing(tmp_path, monkeypatch):
        yield


@pytest.fixture
def target(tmp_path: Path) -> LocalTarget:
    return LocalTarget(tmp_path)


def nan_net(folder: Path) -> Job:
    """The logarithm of negative numbers."""
    nodes = [
        helper.make_node("Abs", ["x"], ["size"]),
        helper.make_node("Neg", ["size"], ["negative"]),
        helper.make_node("Log", ["negative"], ["y"]),
    ]
    value = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 8]) for n in "xy"]
    graph = helper.make_graph(nodes, "nan", value[:1], value[1:])
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), folder / "nan.onnx")
    return CPU.job(read_onnx_file(folder / "nan.onnx"), 1)


@dataclasses.dataclass(frozen=True)
class Session:
    jobs: list[Job]
    results: list[Measurement | Failure]
    shares: list[float]
    floors: list[Any]

    def of(self, name: str) -> list[Measurement]:
        found = [r for r in self.results if r.workload.name == name]
        assert all(isinstance(r, Measurement) for r in found)
        return found  # type: ignore[return-value]


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    """Three nets, one of them twice, and one whose output is no number."""
    jobs = [CPU.job(tiny_net(n), 1) for n in (4, 5, 6, 6)]
    jobs.append(nan_net(tmp_path_factory.mktemp("models")))
    plan = Plan(processes=2, seconds=0.1, memory=True, tags={"commit": "abc"})
    shares, floors = list[float](), list[Any]()
    results = measure(CPU, jobs, plan, None, progress=shares.append, watch=floors.append)
    return Session(jobs, list(results), shares, floors)


class TestResults:
    def test_every_job_gets_one(self, session: Session) -> None:
        wanted = sorted(j.workload.name for j in session.jobs)
        assert sorted(r.workload.name for r in session.results) == wanted
        assert len(session.of("tiny6")) == 2
        assert len({r.workload.key for r in session.results}) == 4

    def test_a_model_that_gives_nan_fails_alone_and_in_one_line(self, session: Session) -> None:
        failure = session.results[0]
        assert isinstance(failure, Failure)
        assert isinstance(failure.error, ModelError)
        text = str(failure.error)
        assert text.startswith("nan.onnx: output 'y' holds NaN")
        assert "\n" not in text

    def test_a_measurement_is_complete(self, session: Session) -> None:
        found = [r for r in session.results if isinstance(r, Measurement)]
        for result in found:
            assert result.status in ("ok", "inconclusive")
            assert result.latency_ns is not None
            assert result.low_ns is not None
            assert result.high_ns is not None
            assert 100 < result.low_ns < result.latency_ns < result.high_ns < 1e9
            assert result.confidence == 0.95
            assert result.canaries == tuple(c.name for c in CPU.canaries(1))
            assert len(result.beta) == len(result.canary_ref_ns) == len(result.canaries)
            assert result.fingerprint.key == CPU.fingerprint(1).key
            assert result.stop_reason == "time"
            assert result.warmup in ("flat", "warm-up", "slowdown", "unsteady")
            assert result.load_ns is not None
            assert result.first_inference_ns is not None
            assert min(result.load_ns, result.first_inference_ns) > 0
            assert result.peak_memory_bytes is not None
            assert 0 <= result.peak_memory_bytes < 1 << 30
            assert 0 < result.seconds < 60
            assert result.tags == {"commit": "abc"}
        assert len({(r.session, r.created) for r in found}) == 1

    def test_the_raw_record_is_whole(self, session: Session) -> None:
        for result in (r for r in session.results if isinstance(r, Measurement)):
            bursts = result.bursts
            count = len(bursts)
            assert bursts.length.sum() == bursts.sample_ns.size
            assert (bursts.sample_ns > 0).all()
            assert bursts.canary_ns.shape == (count, 2, len(CPU.canaries(1)))
            assert (bursts.canary_ns > 1e3).all()
            for process in (0, 1):
                mine = bursts.process == process
                # Each round visits each workload once, in the order of time.
                assert bursts.round[mine].tolist() == list(range(mine.sum()))
                assert mine.sum() >= 2
                assert (np.diff(bursts.start_ns[mine]) > 0).all()
            assert set(bursts.process) == {0, 1}
            assert set(bursts.cause) <= set(range(len(CAUSES)))

    def test_without_an_epoch_milliseconds_are_provisional(self, session: Session) -> None:
        """Anchored to the session's own quiet moments, the same for all of it."""
        found = [r for r in session.results if isinstance(r, Measurement)]
        assert {r.epoch for r in found} == {None}
        (reference,) = {r.canary_ref_ns for r in found}
        assert min(reference) > 1e3

    def test_the_canaries_own_times_are_watched(self, session: Session) -> None:
        (floor,) = session.floors
        assert floor.shape == (len(CPU.canaries(1)),)
        reference = session.of("tiny4")[0].canary_ref_ns
        assert (floor >= np.array(reference) * (1 - 1e-9)).all()

    def test_progress_only_grows_and_ends_at_the_whole(self, session: Session) -> None:
        assert session.shares == sorted(session.shares)
        assert session.shares[0] > 0
        assert session.shares[-1] == pytest.approx(1.0)


def test_blocks_take_turns(tmp_path: Path, target: LocalTarget) -> None:
    """What disturbs for a while hits one process of all, not all processes of one."""
    jobs = [job(f"net{i}", runner(tmp_path, us=20 + i)) for i in range(3)]
    plan = dataclasses.replace(SHORTEST, loaded=1)
    results = [r for r in measure(target, jobs, plan, None) if isinstance(r, Measurement)]
    spans = [
        [r.bursts.start_ns[r.bursts.process == process] for process in range(plan.processes)]
        for r in results
    ]
    assert len(spans) == len(jobs)
    for earlier, later in zip(range(plan.processes), range(1, plan.processes), strict=False):
        assert max(s[earlier].max() for s in spans) < min(s[later].min() for s in spans)


def test_models_of_one_space_are_estimated_together(
    tmp_path: Path, target: LocalTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of all blocks, in this session and before in it; models of no space stand alone."""

    def job_of(name: str, space: str | None) -> Job:
        made = job(name, runner(tmp_path, us=20))
        return dataclasses.replace(made, workload=dataclasses.replace(made.workload, space=space))

    known, of_a_family = list[int](), dict[str, bool]()
    learned, conclude = session_module.learned, session_module.conclude

    def noted(evidence: list[Any]) -> Any:
        known.append(len(evidence))
        return learned(evidence)

    def concluded(log: Any, *rest: Any) -> Any:
        of_a_family[log.workload.name] = rest[-1] is not None
        return conclude(log, *rest)

    monkeypatch.setattr(session_module, "learned", noted)
    monkeypatch.setattr(session_module, "conclude", concluded)
    monkeypatch.setattr(session_module, "TURNS_SECONDS", 5 * SHORTEST.seconds * 2)
    jobs = [job_of(f"space{i}", "s") for i in range(18)]
    jobs += [job_of("few", "t"), job_of("none", None)]
    plan = dataclasses.replace(SHORTEST, loaded=5, seed=0)
    assert len(list(measure(target, jobs, plan, None))) == 20
    assert (len(known), known[-1]) == (2, 18)
    assert [name for name, found in of_a_family.items() if not found] == ["few", "none"]


def test_the_two_of_a_pair_meet_copy_by_copy(tmp_path: Path, target: LocalTarget) -> None:
    """All in memory at once, whatever the plan says of that; answers in the jobs' order."""
    jobs = [job(f"net{number}", runner(tmp_path, us=20 + number)) for number in range(4)]
    plan = Plan(processes=2, seconds=0.1, loaded=1, pairs=True, seed=0)
    found = list(measure(target, jobs, plan, None))
    assert [m.workload.name for m in found] == [each.workload.name for each in jobs]
    for pair in (found[:2], found[2:]):
        turns = []
        for one in pair:
            assert isinstance(one, Measurement)
            rows = zip(one.bursts.process, one.bursts.round, one.bursts.copy, strict=True)
            turns.append(sorted((int(p), int(r), int(c)) for p, r, c in rows))
        assert turns[0] == turns[1]
        assert {process for process, *_ in turns[0]} == {0, 1}
        assert max(copy for *_, copy in turns[0]) > 0


def test_few_samples_refuse_percentiles() -> None:
    (result,) = measure(CPU, [CPU.job(tiny_net(), 1)], SHORTEST, None)
    assert isinstance(result, Measurement)
    assert len(result.bursts) == 4
    assert [p.q for p in result.observed] == [50, 90, 99]
    assert [p.value_ns is None for p in result.observed] == [False, False, True]
    for percentile in result.observed[:2]:
        assert percentile.low_ns is not None
        assert percentile.low_ns <= percentile.value_ns <= percentile.high_ns


def test_an_epoch_anchors_and_its_uncertainty_counts(tmp_path: Path, target: LocalTarget) -> None:
    jobs = [job("net", runner(tmp_path, us=50))]

    def anchored(epoch: CanaryEpoch | None) -> Measurement:
        (result,) = measure(target, jobs, SHORTEST, epoch)
        assert isinstance(result, Measurement)
        return result

    plain = anchored(None)
    reference = plain.canary_ref_ns
    sure = anchored(epoch_on(target, reference, 0.001))
    assert (sure.epoch, sure.canary_ref_ns) == ("epoch-0", reference)
    unsure = anchored(epoch_on(target, reference, 0.3))
    assert unsure.status == "inconclusive"
    assert math.log(unsure.high_ns / unsure.low_ns) > 0.5
    # The canaries were twice as fast once: what is slow is the machine, not the net.
    slow = anchored(epoch_on(target, tuple(t / 2 for t in reference), 0.001))
    assert slow.latency_ns < 0.8 * plain.latency_ns
    assert slow.contention["slowdown"] > 1.2


def test_two_threads_are_observed_only() -> None:
    (result,) = measure(CPU, [CPU.job(tiny_net(), 2)], SHORTEST, None)
    assert isinstance(result, Measurement)
    assert (result.status, result.workload.threads) == ("observed_only", 2)
    assert result.observed[0].value_ns is not None


def test_threads_are_not_mixed() -> None:
    jobs = [CPU.job(tiny_net(), threads) for threads in (1, 2)]
    with pytest.raises(UsageError, match="different numbers of threads need sessions of their own"):
        next(iter(measure(CPU, jobs, SHORTEST, None)))


def test_no_jobs_are_no_work() -> None:
    assert list(measure(CPU, [], SHORTEST, None)) == []


class TestStopping:
    def results(self, target: LocalTarget, *jobs: Job, **plan: Any) -> dict[str, Measurement]:
        found = list(measure(target, jobs, Plan(seconds=1e-3, **plan), None))
        assert all(isinstance(r, Measurement) for r in found)
        return {r.workload.name: r for r in found}  # type: ignore[misc]

    def test_a_precise_answer_ends_the_session_at_the_next_look(
        self, tmp_path: Path, target: LocalTarget
    ) -> None:
        net = job("net", runner(tmp_path))
        found = self.results(target, net, processes=6, precision=0.5)["net"]
        assert (found.stop_reason, set(found.bursts.process)) == ("precision", {0, 1, 2})
        assert found.confidence == 0.95

    def test_without_one_it_takes_the_time_it_was_given(
        self, tmp_path: Path, target: LocalTarget
    ) -> None:
        net = job("net", runner(tmp_path))
        found = self.results(target, net, processes=4, precision=1e-9)["net"]
        assert (found.stop_reason, set(found.bursts.process)) == ("time", {0, 1, 2, 3})

    def test_each_workload_stops_for_itself(self, tmp_path: Path, target: LocalTarget) -> None:
        """One is as steady as can be; the other is three times slower in each next process."""
        (tmp_path / "seen").mkdir()
        folder = repr(str(tmp_path / "seen"))
        grow = (
            f"open(os.path.join({folder}, str(os.getpid())), 'w').close(); "
            f"self.us = 20 * 3 ** len(os.listdir({folder}))"
        )
        jobs = job("calm", runner(tmp_path)), job("wild", runner(tmp_path, grow, at=1))
        found = self.results(target, *jobs, processes=4, precision=0.5)
        assert found["calm"].stop_reason == "precision"
        assert set(found["calm"].bursts.process) == {0, 1, 2}
        assert found["wild"].stop_reason == "time"
        assert set(found["wild"].bursts.process) == {0, 1, 2, 3}
        assert found["wild"].status == "inconclusive"


class TestBlocks:
    def test_those_that_took_turns_are_given_out_as_they_end(
        self, tmp_path: Path, target: LocalTarget, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(session_module, "TURNS_SECONDS", 0.0)  # each block by itself
        jobs = [job(f"net{i}", runner(tmp_path, us=20 + i)) for i in range(5)]
        shares: list[float] = []
        plan = dataclasses.replace(SHORTEST, loaded=2)
        results = measure(target, jobs, plan, None, progress=shares.append)
        seen = [next(results)]
        assert max(shares) <= 1 / 3 + 1e-9
        seen += results
        assert {r.workload.name for r in seen} == {f"net{i}" for i in range(5)}
        assert shares[-1] == pytest.approx(1)
        assert len({r.session for r in seen if isinstance(r, Measurement)}) == 1

    def test_leaving_early_leaves_nothing(self, tmp_path: Path, target: LocalTarget) -> None:
        jobs = [job(f"net{i}", runner(tmp_path, us=20 + i)) for i in range(2)]
        results = measure(target, jobs, dataclasses.replace(SHORTEST, loaded=1), None)
        next(results)
        results.close()  # type: ignore[attr-defined]


def test_a_graph_that_cannot_be_built_fails_alone(tmp_path: Path, target: LocalTarget) -> None:
    good = job("good", runner(tmp_path))

    def build(folder: Path) -> RunnerSpec:
        raise GraphError("op 'conv' has no lowering")

    bad = Job(dataclasses.replace(good.workload, name="bad"), build)
    failure, result = measure(target, [good, bad], SHORTEST, None)
    assert isinstance(failure, Failure)
    assert str(failure.error) == "op 'conv' has no lowering"
    assert isinstance(result, Measurement)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("processes", 1, "at least 2 processes"),
        ("seconds", 0.0, "seconds must be positive"),
        ("seconds", -1.0, "seconds must be positive"),
        ("seconds", math.nan, "seconds must be positive"),
        ("seconds", math.inf, "seconds must be positive and finite"),
        ("confidence", 1.0, "confidence must lie in 0.5 to 1, not 1.0"),
        ("confidence", 0.4, "confidence must lie"),
        ("confidence", math.nan, "confidence must lie"),
        ("precision", 0.0, "precision must be positive"),
        ("precision", -0.1, "precision must be positive"),
        ("precision", math.nan, "precision must be positive"),
        ("loaded", 0, "at least 1 workload"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(field: str, value: float, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Plan(**{field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("processes", [2, 3, 4, 8, 30])
@pytest.mark.parametrize("precision", [None, 0.01])
def test_the_looks_spend_the_error_once(processes: int, precision: float | None) -> None:
    looks = Plan(processes=processes, precision=precision).looks
    assert max(looks) == processes
    assert sum(looks.values()) == pytest.approx(1.0)
    assert len(looks) == 1 or precision is not None


class TestCampaign:
    PLAN = Plan(processes=2, seconds=1e-3, loaded=1)

    @pytest.fixture
    def jobs(self, tmp_path: Path) -> list[Job]:
        return [job(f"net{i}", runner(tmp_path, us=20 + i)) for i in range(4)]

    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[Store]:
        with Store.open(tmp_path / "store.db") as opened:
            yield opened

    def test_a_result_is_stored_before_it_is_given_out(
        self, jobs: list[Job], store: Store, target: LocalTarget
    ) -> None:
        given = 0
        for result in record(target, jobs, self.PLAN, store, None, campaign="c"):
            given += 1
            assert result.workload.key in store.done("c")
            assert len(store.measurements(plan="c")) == given
        assert given == 4

    def test_it_goes_on_where_it_stopped(
        self, jobs: list[Job], store: Store, target: LocalTarget
    ) -> None:
        first = record(target, jobs, self.PLAN, store, None, campaign="c")
        seen = {next(first).workload.name, next(first).workload.name}
        first.close()  # type: ignore[attr-defined]
        again = list(record(target, jobs, self.PLAN, store, None, campaign="c"))
        assert seen | {r.workload.name for r in again} == {j.workload.name for j in jobs}
        assert len(again) == 2
        assert len(store.measurements(plan="c")) == 4
        assert list(record(target, jobs, self.PLAN, store, None, campaign="c")) == []

    def test_campaigns_do_not_share_their_cells_and_none_has_none(
        self, jobs: list[Job], store: Store, target: LocalTarget
    ) -> None:
        for campaign in ("a", "b", None, None):
            found = list(record(target, jobs[:1], self.PLAN, store, None, campaign=campaign))
            assert len(found) == 1
        assert len(store.measurements()) == 4

    def test_a_failure_is_tried_again(
        self, tmp_path: Path, store: Store, target: LocalTarget
    ) -> None:
        """Once the cure that its message told was taken, say."""
        flag = tmp_path / "cured"
        fault = f"assert os.path.exists({str(flag)!r})"
        jobs = [job("ill", runner(tmp_path, fault, at=1))]
        (failure,) = record(target, jobs, self.PLAN, store, None, campaign="c")
        assert isinstance(failure, Failure)
        assert store.done("c") == set()
        flag.touch()
        (result,) = record(target, jobs, self.PLAN, store, None, campaign="c")
        assert isinstance(result, Measurement)

    def test_the_watched_series_gets_a_point_a_session(
        self, jobs: list[Job], store: Store, target: LocalTarget
    ) -> None:
        results = list(record(target, jobs, self.PLAN, store, None, campaign="c"))
        (run,) = store.canary_runs()
        assert run.values_ns.shape == (len(target.canaries(1)),)
        assert {run.session} == {r.session for r in results if isinstance(r, Measurement)}
        list(record(target, jobs, self.PLAN, store, None))
        assert len(store.canary_runs(canary_key=run.canary_key)) == 2

    def test_an_epoch_is_known_by_device_canaries_and_threads(self, store: Store) -> None:
        epoch = epoch_on(CPU, (1e5,) * len(CPU.canaries(1)), 0.01)
        assert known_epoch(CPU, 1, store) is None
        store.add_epoch(dataclasses.replace(epoch, id="other", canary_key="0" * 32))
        store.add_epoch(dataclasses.replace(epoch, id="elsewhere", fingerprint_key="0" * 32))
        assert known_epoch(CPU, 1, store) is None
        store.add_epoch(epoch)
        assert known_epoch(CPU, 1, store) == epoch
        assert known_epoch(CPU, 2, store) is None
