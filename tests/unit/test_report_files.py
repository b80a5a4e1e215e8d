"""What a report shows of searches, predictors, generators and operators, and of files of them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwbench.cli import main
from hwbench.errors import HwbenchError
from hwbench.measure.jobs import Node
from hwbench.predictors import BudgetOracle, load_predictor
from hwbench.predictors.kernels.samples import NetworkSample
from hwbench.records import Verdict
from hwbench.search.accuracy.model import fit_accuracy
from hwbench.search.eas import Task, TaskGenerator, TaskGroups
from hwbench.search.eas.generator import Labels
from hwbench.search.eas.policy import TaskPolicy, weight_shapes
from hwbench.search.generator_file import save_generator
from hwbench.search.pnag import Generator
from hwbench.search.pnag.policy import HIDDEN, Policy
from hwbench.spaces import spread_sample
from hwbench.store import Store
from hwbench.watch import (
    report_files,
    report_generators,
    report_operators,
    report_predictors,
    report_searches,
)
from tests import lived_in
from tests.measurements import measurement
from tests.stores import device

MADE = "2026-02-01T12:00:00+00:00"


def verdict(**evidence: Any) -> Verdict:
    return Verdict("a claim", "a protocol", "partly", evidence, None, MADE)


# --- searches ---------------------------------------------------------------------------------


def test_the_newest_trials_of_a_claim_are_drawn_by_confidence() -> None:
    ledger = sorted(lived_in.verdicts(), key=lambda v: v.created, reverse=True)
    (search,) = report_searches.searches(ledger)
    assert search.created == ledger[0].created
    assert list(search.sets) == ["bound at confidence 0.98", "bound at confidence 0.5"]
    rows = ledger[0].evidence["trials"]
    for trials, own in zip(search.sets.values(), (rows[:24], rows[24:]), strict=True):
        assert [t.kept for t in trials] == [row["kept"] for row in own]
    chart = report_searches.budgets_chart(search)
    marks = {t["name"]: t["y"] for t in chart.traces if t["mode"] == "markers"}
    assert all(used <= 100 for name, ys in marks.items() if name.endswith("kept") for used in ys)
    assert all(used > 100 for name, ys in marks.items() if name.endswith("broken") for used in ys)
    assert sum(map(len, marks.values())) == len(rows) == len(chart.table.rows)
    assert f"{sum(r['kept'] for r in rows[:24])} of 24 budgets kept" in chart.summary


def test_a_front_has_nothing_that_another_beats() -> None:
    (search,) = report_searches.searches(lived_in.verdicts()[-2:])
    chart = report_searches.front_chart(search)
    assert chart is not None
    assert chart.y_label == "million MACs (capacity proxy)"
    for name, trials in search.sets.items():
        front = [row[2:] for row in chart.table.rows if row[1] == name]
        assert front == sorted(front)  # type: ignore[type-var]
        for ms, quality in front:
            assert not [
                t for t in trials if t.measured_ms < ms and (t.quality or 0) >= quality  # type: ignore[operator]
            ]  # fmt: skip


def test_trials_by_name_and_without_a_quality() -> None:
    row = {"budget_ms": 2.0, "measured_ms": 1.5, "kept": None, "architecture": "x"}
    (search,) = report_searches.searches([verdict(trials={"raw": [row], "guarded": [row, row]})])
    assert {name: len(trials) for name, trials in search.sets.items()} == {"raw": 1, "guarded": 2}
    assert report_searches.front_chart(search) is None
    assert "0 of 1 budgets kept, 1 open; 75 %" in report_searches.budgets_chart(search).summary


def test_claims_that_share_their_trials_are_one_search() -> None:
    row = {"budget_ms": 2.0, "measured_ms": 1.5, "kept": True}
    one = verdict(trials=[row])
    assert len(report_searches.searches([one, dataclasses.replace(one, claim="another")])) == 1


names = st.sampled_from(["budget_ms", "measured_ms", "kept", "macs", "confidence", "predicted_ms"])
anything = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["trials", "within_10", "networks"]), anything))
def test_whatever_a_ledger_holds_is_drawn_or_left_out(evidence: dict[str, Any]) -> None:
    for search in report_searches.searches([verdict(**evidence)]):
        report_searches.budgets_chart(search)
        report_searches.front_chart(search)
    found = report_predictors.tested([verdict(**evidence)])
    report_predictors.tested_chart(found * 2)


# --- predictors -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lived-in")


@pytest.fixture(scope="module")
def store(folder: Path) -> Path:
    return lived_in.lived_in(folder)


def test_a_predictor_is_held_against_each_session_of_its_device(store: Path) -> None:
    path = lived_in.predictor(store, store.with_name("cpu.hwp"))
    with Store.open(store) as results:
        measured = results.measurements(with_bursts=False)
    (file,) = report_files.read([path], measured).predictors
    days = [each.created[8:10] for each in file.sessions]
    assert days == ["03", "10", "21", "28"]  # and not the other device's
    assert [each.later for each in file.sessions] == [False, True, True, True]
    last = [m for m in measured if m.session == "profile-27" and m.status == "ok"]
    codes = file.predictor.space.encode([str(m.workload.arch) for m in last])
    ms = np.array([(m.latency_ns or 0) / 1e6 for m in last])
    off = file.predictor.predict(codes).mean_ms / ms - 1
    assert file.sessions[-1].n == len(last)
    assert file.sessions[-1].errors[1] == pytest.approx(np.median(off))
    assert file.sessions[-1].within_10 == np.mean(np.abs(off) < 0.1)
    chart = report_predictors.error_chart(file)
    assert chart is not None
    assert f"Of {sum(e.n for e in file.later)} architectures" in chart.summary

    (alone,) = report_files.read([path], []).predictors
    assert report_predictors.error_chart(alone) is None


def test_claims_of_predictions_by_their_own_figures_and_by_their_trials() -> None:
    ledger = sorted(lived_in.verdicts(), key=lambda v: v.created, reverse=True)
    found = report_predictors.tested(ledger)
    assert len(found) == 6
    kernels = [each for each in found if "kernels" in each.claim]
    assert [each.within_10 for each in kernels] == pytest.approx([0.79, 0.75, 0.71])
    assert all(each.n == 240 and each.held_90 == 0.9 for each in kernels)
    (by_trials, *_) = [each for each in found if each not in kernels]
    assert by_trials.held_90 is None
    assert by_trials.within_10 >= (by_trials.within_5 or 0)
    assert report_predictors.tested_chart(found) is not None
    assert report_predictors.tested_chart(found[:2]) is None  # none of them twice


# --- operators --------------------------------------------------------------------------------


def test_operators_of_a_model_by_their_share(tmp_path: Path) -> None:
    (found,) = report_operators.of_profiles("o0", lived_in.operators(tmp_path / "net.json"))
    assert found.title == "resnet18.onnx on cpu"
    assert found.rows[0].name == "Conv /layer0/Conv"
    assert found.rows[0].us == pytest.approx(0.2 * 8.4e3)
    assert sum(row.share for row in found.rows) == pytest.approx(1)
    shares = [row.share for row in found.rows]
    assert shares == sorted(shares, reverse=True)


def test_kinds_of_operators_over_the_samples_of_kernels(tmp_path: Path) -> None:
    nodes = (Node("a", "Conv", 3000.0), Node("b", "Conv", 1000.0), Node("c", "Add", 1000.0))
    sample = NetworkSample("mobilenet", 1, "0" * 32, 5000.0, 0.01, nodes)
    cases = dataclasses.replace(sample, family="cases", number=0, latency_ns=0.0)
    place = {
        "device": "cpu", "fingerprint_key": "f", "runtime": "onnxruntime 1", "threads": 2,
        "epoch": None, "c0_ns": [], "options": [],
    }  # fmt: skip
    header = {"format": "hwbench-kernel-samples", "version": 1, "provenance": place}
    lines = [header, *(dataclasses.asdict(each) for each in (sample, cases))]
    path = tmp_path / "cpu-kernels.jsonl"
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    (found,) = report_files.read([path], []).operators
    assert "1 networks of 1 families on cpu (onnxruntime 1), 2 threads" in found.note
    assert [(r.name, r.count, r.us, r.share) for r in found.rows] == [
        ("Conv", 2, 2.0, 0.8),
        ("Add", 1, 1.0, 0.2),
    ]


def test_what_a_table_has_no_room_for_is_added_up() -> None:
    rows = report_operators.rows_of({f"op{n}": [float(n + 1)] for n in range(60)})
    assert len(rows) == report_operators.MOST + 1
    assert rows[-1].name == "35 more"
    assert sum(row.count for row in rows) == 60
    assert sum(row.share for row in rows) == pytest.approx(1)


# --- files ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("x.txt", "", "name a predictor"),
        ("x.hwp", "no zip", "not a predictor file"),
        ("x.hwg", "no zip", "not a predictor file"),
        ("x.jsonl", "{}\n", "no file of kernel samples"),
        ("x.json", "[]", "bench --profile-ops --json"),
        ("x.json", '{"results": [{"operators": {"ops": [{"ms": -1}]}}]}', "nothing that"),
        ("x.json", '{"results": [{"operators": null}]}', "tells of no operators"),
        ("x.json", '{"results": [{"operators": {"ops": [{"kind": "a", "name": "b", "ms": NaN}]}}]}',
         "is no time"),
        ("gone.json", None, "cannot read"),
        ("gone.hwp", None, "cannot read"),
    ],
)  # fmt: skip
def test_what_is_no_such_file_is_told_in_a_line(
    name: str, content: str | None, words: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    with pytest.raises(HwbenchError, match=words) as raised:
        report_files.read([path], [])
    assert raised.value.exit_code == 2
    assert str(path) in str(raised.value)


def test_the_verb_shows_files_beside_the_store(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [
        lived_in.predictor(store, tmp_path / "cpu.hwp"),
        lived_in.operators(tmp_path / "net.json"),
    ]
    where = ("--store", str(store), "-o", str(tmp_path / "site"))
    assert main(["report", *map(str, files), *where, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    (shown,) = found["predictors"]
    assert shown["file"] == "cpu.hwp"
    assert [each["later"] for each in shown["sessions"]] == [False, True, True, True]
    assert found["architectures"] == 175
    page = (tmp_path / "site" / "index.html").read_text()
    assert "Conv /layer0/Conv" in page
    assert "fitted <time" in page
    assert main(["report", str(tmp_path / "none.hwp"), *where]) == 2


# --- generators -------------------------------------------------------------------------------


def generator(store: Path, path: Path) -> Path:
    """A generator whose policy knows nothing: the candidates that stand by answer."""
    predictor = load_predictor(lived_in.predictor(store, path.with_suffix(".hwp")))
    space = predictor.space
    codes = spread_sample(space, 60, np.random.default_rng(0))
    tokens, most = 1 + sum(space.cardinalities), max(space.cardinalities)
    decisions = len(space.decisions)
    policy = Policy(
        *(np.zeros(shape, np.float32) for shape in (
            (1,), (1, HIDDEN), (tokens, HIDDEN), (4 * HIDDEN, HIDDEN), (4 * HIDDEN, HIDDEN),
            (4 * HIDDEN,), (decisions, most, HIDDEN), (decisions, most),
        ))
    )  # fmt: skip
    accuracy = fit_accuracy(space, codes, 0.5 + 0.4 * space.macs(codes) / space.macs(codes).max())
    made = Generator(policy, accuracy, BudgetOracle(predictor), codes, 0.98)
    save_generator(made, path, objective="made up", ledger={})
    return path


def task_generator(store: Path, path: Path) -> TaskGenerator:
    """One for two groups of classes that holds large networks for likely, and what it knows."""
    predictor = load_predictor(lived_in.predictor(store, path.with_suffix(".hwp")))
    space = predictor.space
    codes = spread_sample(space, 60, np.random.default_rng(0))
    shapes = {"log_budgets": (1,), **weight_shapes(1, 2, sum(space.cardinalities))}
    weights = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    weights["b3"] = np.concatenate([np.arange(n, dtype=np.float32) for n in space.cardinalities])
    shares = space.macs(codes) / space.macs(codes).max()
    groups = TaskGroups("bars", ("a", "b", "<c>", "d"), (Task("ab", (0, 1)), Task("cd", (2, 3))))
    tasks = [(0, 1)] * 60 + [(1, 2)] * 60
    accuracy = np.concatenate([0.5 + 0.4 * shares, 0.6 + 0.2 * shares])
    labels = Labels(tasks, np.concatenate([codes, codes]), accuracy)
    made = TaskGenerator(
        TaskPolicy(**weights), groups, {}, labels, BudgetOracle(predictor), codes, 0.98
    )
    save_generator(made, path, objective="tasks", ledger={})
    return made


def test_a_generator_of_tasks_has_a_front_for_each(store: Path) -> None:
    made = task_generator(store, store.with_name("tasks.hwg"))
    (file,) = report_files.read([store.with_name("tasks.hwg")], []).generators
    assert list(file.fronts) == ["ab", "b, <c>"]  # those whose accuracy is known
    for task, answers in file.fronts.items():
        bounds = [answer.upper_ms for answer in answers]
        assert len(bounds) > 3
        assert bounds == sorted(bounds)
        assert {answer.task for answer in answers} == {task}
    chart = report_generators.front_chart(file)
    lines = [trace for trace in chart.traces if trace["mode"] == "lines"]
    assert len(lines) == 2
    assert all(trace["y"] == sorted(trace["y"]) for trace in lines)
    assert chart.table.headings[1] == "task"
    place, answer = made.oracle.predictor.meta.provenance, file.fronts["ab"][-1]
    both = {a.text for a in file.fronts["ab"]} & {a.text for a in file.fronts["b, <c>"]}
    kept, ns = sorted(both)[0], 1e6 * answer.upper_ms
    bound = 1e6 * float(made.oracle.upper(made.space.encode([kept]), 0.98)[0])
    stored = [
        measurement(
            work_space=lived_in.SPACE, work_arch=text, fingerprint=device(0), epoch=place.epoch,
            created="2990-01-01T00:00:00+00:00", latency_ns=t, low_ns=0.99 * t, high_ns=1.01 * t,
        )
        for text, t in ((kept, 0.9 * bound), (answer.text, 2 * ns))
    ]  # fmt: skip
    (file,) = report_files.read([store.with_name("tasks.hwg")], stored).generators
    first, second = file.measured
    assert (first.kept, len(first.qualities)) == (True, 2)
    assert second.kept is False
    chart = report_generators.front_chart(file)
    marks = {
        trace["name"]: len(trace["x"])
        for trace in chart.traces
        if "measured" in trace.get("name", "")
    }
    assert marks["measured: within its bound"] == 2
    assert "answer all budgets of 2 tasks" in chart.summary


def test_what_a_generator_promises_is_held_against_what_was_measured_since(store: Path) -> None:
    path = generator(store, store.with_name("cpu.hwg"))
    (unmeasured,) = report_files.read([path], []).generators
    assert "None of its space was measured" in report_generators.front_chart(unmeasured).summary
    (answers,) = unmeasured.fronts.values()
    bounds = [answer.upper_ms for answer in answers]
    assert len(bounds) > 3
    assert bounds == sorted(bounds)
    place = load_predictor(path.with_suffix(".hwp")).meta.provenance
    measured = []
    for answer, factor in zip(answers, (0.9, 1.1, 1.0), strict=False):
        ns = 1e6 * answer.upper_ms * factor
        measured.append(
            measurement(
                work_space=lived_in.SPACE, work_arch=answer.text, fingerprint=device(0),
                epoch=place.epoch, created="2990-01-01T00:00:00+00:00",
                latency_ns=ns, low_ns=0.99 * ns, high_ns=1.01 * ns,
            )
        )  # fmt: skip
    before = dataclasses.replace(measured[0], created="2020-01-01T00:00:00+00:00")
    other = dataclasses.replace(measured[0], epoch="another")
    (file,) = report_files.read([path], [before, *measured, other]).generators
    assert [each.kept for each in file.measured] == [True, False, None]
    for each, answer in zip(file.measured, answers, strict=False):
        assert each.bound_ms == pytest.approx(answer.upper_ms)
        assert each.qualities == pytest.approx([answer.accuracy])
    chart = report_generators.front_chart(file)
    assert "3 of its space were measured since it was made: 1 within their bound, 1 above" in (
        chart.summary
    )
    assert len(chart.table.rows) == len(answers) + 3
