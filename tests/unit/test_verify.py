"""What a check makes of its numbers: differences, coverage, the verdict."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hwbench.errors import UnknownNameError, WorkerError
from hwbench.lower import create_session, to_onnx, to_tflite
from hwbench.records import Measurement
from hwbench.verify import claim_names, get_claim
from hwbench.verify import repeatability as check
from hwbench.verify.figures import repeatability_figure
from hwbench.verify.litert import is_taken_whole, operators, run_tflite
from hwbench.verify.workloads import check_models, transformer
from tests.measurements import bursts as any_bursts
from tests.measurements import epoch as any_epoch
from tests.measurements import measurement

MODELS, CLASSES = ["a", "b"], ["conv", "dense"]


def table(spread: dict[str, float], ours: Measurement | None = None) -> check.Table:
    """Three runs a condition; a method's times differ by up to ``spread`` (relative)."""
    made = check.Table(MODELS, CLASSES)
    for condition in check.CONDITIONS:
        for run, sign in enumerate((-1, 0, 1)):
            for method in check.METHODS:
                times = 1e6 * np.exp(sign * spread.get(method, 0.1) / 2 * np.ones(2))
                made.add(method, condition, list(times), seconds=1.6)
            records = None if ours is None else replace(ours, session=f"{condition}{run}")
            made.ours.append((condition, [records, records]))
    return made


def test_differences_are_relative_and_of_all_pairs() -> None:
    made = table({"hwbench": 0.02})
    within = made.within("hwbench", ["idle"], [0, 1])
    assert np.allclose(np.sort(within), [1, 1, 1, 1, 2, 2])
    assert made.across("hwbench", [0]).size == 3 * 9


def test_a_run_without_an_answer_is_left_out_and_counted() -> None:
    made = table({})
    made.times["hwbench", "idle"][0][:] = np.nan
    for method in check.METHODS:  # of the same cells, or one row would be flattered
        assert made.within(method, ["idle"], [0]).size == 1
    assert check.summarise(made, {})["inconclusive_share"] == 1.0


@pytest.mark.parametrize(
    ("felt", "cache", "compute", "known"),
    [
        (0.5, 0.01, 0.0, True),
        (0.5, 0.04, 0.0, False),  # 2 % of the model's time
        (0.0, 0.04, 0.0, True),  # nothing of it is felt
        (0.0, 0.0, 0.02, False),
    ],
)
def test_a_quiet_burst_is_one_whose_model_was_not_disturbed(
    felt: float, cache: float, compute: float, known: bool
) -> None:
    kinds = ("compute", "memory", "cache")
    canaries = np.exp([compute, 0.0, cache]) * 1e6
    plain = any_bursts(count=32, processes=6)
    made = replace(
        record(3e6, 0.01),
        beta=(1.0, 0.1, felt),
        bursts=replace(
            plain,
            canary_ns=np.broadcast_to(canaries, (32, 2, 3)).astype(np.int64),
            cause=np.zeros_like(plain.cause),
        ),
    )
    quiet = any_epoch(names=kinds, c0_ns=(1e6,) * 3, c0_low_ns=(1e6,) * 3, c0_high_ns=(1e6,) * 3)
    truth = check.direct_quiet([made], ["a"], quiet, kinds)
    assert ("a" in truth) == known
    if known:
        log, _, processes = truth["a"]
        assert log == pytest.approx(np.log(3e6), abs=0.02)
        assert processes == 6


def record(latency_ns: float, half: float) -> Measurement:
    made = measurement()
    return replace(
        made,
        workload=replace(made.workload, name="a"),
        status="ok",
        latency_ns=latency_ns,
        low_ns=latency_ns * (1 - half),
        high_ns=latency_ns * (1 + half),
    )


@pytest.mark.parametrize(("latency", "coverage"), [(1.005e6, 1.0), (1.02e6, 0.0)])
def test_coverage_counts_the_intervals_that_hold_the_direct_time(
    latency: float, coverage: float
) -> None:
    made = table({}, record(latency, 0.01))
    found = check.summarise(made, {"a": (float(np.log(1e6)), 0.0, 6)})
    assert found["coverage_95"] == coverage
    assert found["bias_pct"]["conv"] == pytest.approx(100 * np.log(latency / 1e6), abs=0.01)


def test_the_verdict_follows_the_bars() -> None:
    good = {"hwbench": 0.004, "interleaved_minimum": 0.02}
    found = check.summarise(table(good, record(1e6, 0.005)), {"a": (float(np.log(1e6)), 0.001, 6)})
    found["coverage_95"] = 0.95
    assert check.judge(found) == "confirmed"
    assert len(found["bars"]) == 13
    for name, value in [("inconclusive_share", 0.2), ("coverage_95", 0.99), ("bias_pct", {"x": 4})]:
        worse = {**found, name: value}
        assert check.judge(worse) == "partly"
        assert worse["bars_met"] == "12 of 13"
    bad = check.summarise(table(dict.fromkeys(check.METHODS, 0.2)), {})
    assert check.judge(bad) == "refuted"


def test_the_figure_is_drawn(tmp_path: Path) -> None:
    path = tmp_path / "figure.png"
    repeatability_figure(table({}), check.METHODS, check.CONDITIONS, path)
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("kind", ["compute", "stream"])
def test_a_neighbour_is_there_and_then_gone(kind: str) -> None:
    import psutil

    before = set(psutil.Process().children())  # of other tests of this process: a tracker, a pool
    with check.neighbour(kind):
        (child,) = set(psutil.Process().children()) - before
        assert child.is_running()
    assert not child.is_running()


def test_a_neighbour_of_unknown_kind_is_an_error() -> None:
    with pytest.raises(WorkerError, match="ended with code 1"), check.neighbour("sleep"):
        pass


def test_claims_are_known_by_name() -> None:
    for name in claim_names():
        claim = get_claim(name)
        assert claim.name == name
        assert claim.text
        assert claim.protocol
    with pytest.raises(UnknownNameError, match="did you mean 'budgets'"):
        get_claim("budget")


def test_the_models_are_of_every_class_and_none_names_two() -> None:
    models = check_models(quick=False)
    assert {kind for kind, _ in models} == {"conv", "depthwise", "dense", "memory", "attention"}
    assert len({model.name for _, model in models}) == len(models)
    assert {kind for kind, _ in check_models(quick=True)} == {kind for kind, _ in models}


def test_the_transformer_computes_the_same_in_both_runtimes_and_is_taken_whole() -> None:
    graph = transformer(depth=2, tokens=8, width=32, heads=4)
    assert graph.macs == 2 * (12 * 8 * 32 * 32 + 2 * 8 * 8 * 32)
    x = np.random.default_rng(0).standard_normal((1, 8, 32), np.float32)
    (expected,) = create_session(to_onnx(graph).bytes).run(None, {"x": x})
    model = to_tflite(graph)
    (found,) = run_tflite(model, {"x": x})
    assert np.abs(found - expected).max() < 1e-4
    assert is_taken_whole(model.bytes)
    assert operators(model.bytes).count("BATCH_MATMUL") == 4
