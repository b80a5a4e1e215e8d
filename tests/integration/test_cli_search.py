"""``search`` and ``generate``: trained once, asked many times, refused in one line."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwbench.cli import main
from hwbench.cli.search_options import milliseconds, show_cost
from hwbench.errors import UsageError
from hwbench.predictors import BudgetOracle, MacsLine, Provenance, fit_predictor
from hwbench.search.accuracy.proxy import CapacityProxy
from hwbench.search.answering import rounded
from hwbench.search.generator_file import load_generator
from hwbench.search.pnag import Costs, Schedule, save_generator, train_generator
from hwbench.spaces import get_space
from hwbench.testing.predictors import made_up_training
from tests.measurements import measurement

SMALL = get_space("mbv3_small")
KEYS = {
    "budget_ms", "task", "architecture", "predicted_ms", "upper_ms", "measured_ms",
    "measured_status", "low_ms", "high_ms", "kept", "accuracy", "from",
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A predictor where ``hwbench fit`` would put it, and a generator made with it."""
    folder = tmp_path_factory.mktemp("search")
    provenance = Provenance("cpu", "0" * 32, "made up", 1)
    training = made_up_training(SMALL, 40)
    predictor = fit_predictor(SMALL, training, provenance, kind=MacsLine.kind)
    predictor.save(folder / "cpu-mbv3_small.hwp")
    source, costs = CapacityProxy(SMALL), Costs(30, plan=Schedule(steps=2, last=2))
    generator, _ = train_generator(source, BudgetOracle(predictor), [0.9, 2.0], costs=costs)
    save_generator(generator, folder / "ready.hwg", objective="made up", ledger={})
    return folder


@pytest.fixture
def there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HWBENCH_STORE", str(folder / "store.db"))
    return folder


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main([*arguments])
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def test_a_generator_is_trained_and_answers(
    there: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    short = Schedule(steps=10, last=15, first=100)
    monkeypatch.setattr("hwbench.search.pnag.Costs", lambda *spent: Costs(*spent, plan=short))
    command = ["search", "pnag", "-s", "mbv3_small", "--budgets", "2ms,900us,1.4", "--labels", "30"]
    code, out, err = run(capsys, *command, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["objective"] == "MACs (capacity proxy)"
    assert found["ledger"]["validations"] == 30
    low, high = found["range_ms"]
    assert low < 0.9 < 2 < high
    budgets = ["1.9ms", "1ms", "0.0019s", "950us"]
    command = [word for budget in budgets for word in ("--budget", budget)]
    code, out, _ = run(capsys, "generate", "cpu-mbv3_small.hwg", *command, "--json")
    answer = json.loads(out)
    assert code == 0
    assert set(answer) == {"results", "seconds"}
    assert [r["budget_ms"] for r in answer["results"]] == pytest.approx([1.9, 1, 1.9, 0.95])
    for result in answer["results"]:
        assert set(result) == KEYS
        assert result["upper_ms"] <= result["budget_ms"]
        assert (result["measured_ms"], result["kept"], result["task"]) == (None, None, None)
        assert result["accuracy"] is None  # a proxy is none
    texts = [r["architecture"] for r in answer["results"]]
    assert texts[0] == texts[2]
    macs = SMALL.macs(SMALL.encode(texts))
    assert macs[3] <= macs[1] < macs[0]
    code, out, _ = run(capsys, "generate", "cpu-mbv3_small.hwg", "--budget", "1ms")
    assert code == 0
    heading, _, row, below, *_ = out.splitlines()
    assert below == texts[1]  # whole, to be copied
    assert re.split(r"\s{2,}", heading) == [
        "budget ms", "predicted ms", "upper ms", "share of most MACs",
    ]  # fmt: skip
    assert row.startswith("1.000 ")


@given(st.floats(1e-4, 1e5), st.booleans())
def test_an_end_of_a_range_is_rounded_to_the_inside(ms: float, up: bool) -> None:
    shown = milliseconds(rounded(ms, up=up))
    assert shown >= ms if up else shown <= ms
    assert abs(shown - ms) <= ms / 999


def test_the_ends_of_the_range_that_is_shown_are_answered(
    there: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    generator, _ = load_generator(there / "ready.hwg")
    show_cost("made", {}, generator.range_ms, there / "ready.hwg")
    shown = re.search(r"Budgets from (\S+) to (\S+) ms can be kept", capsys.readouterr().out)
    assert shown is not None
    least, most = shown.groups()
    code, _, err = run(capsys, "generate", "ready.hwg", "--budget", least, "--budget", f"{most}ms")
    assert code == 0, err
    for budget, words in (
        ("99", f"every architecture keeps 99 ms: ask for {most} ms"),
        ("0.001", "no architecture keeps 0.001 ms"),
    ):
        code, _, err = run(capsys, "generate", "ready.hwg", "--budget", budget)
        assert code == 2
        assert words in err


def test_accuracies_of_a_table_are_searched(
    there: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cells = get_space("nasbench201")
    codes = cells.all_codes()
    np.savez(
        there / "acc.npz",
        ops=codes.astype(np.uint8),
        op_names=np.array(cells.decisions[0].values),
        acc=(50 + 40 * cells.macs(codes) / cells.macs(codes).max())[:, None],
        acc_names=np.array(["mine"]),
    )
    training = made_up_training(cells, 40)
    place = Provenance("cpu", "0" * 32, "made up", 1)
    fit_predictor(cells, training, place, kind=MacsLine.kind).save(there / "cells.hwp")
    command = ["search", "pnag", "-s", "nasbench201", "--oracle", "cells.hwp", "-o", "cells.hwg"]
    table = ["--accuracy", "acc.npz", "--labels", "30"]
    code, _, err = run(capsys, *command, *table, "--dataset", "mine", "--budgets", "1ms,2ms")
    assert code == 0, err
    code, out, _ = run(capsys, "generate", "cells.hwg", "--budget", "1.5ms", "--json")
    (result,) = json.loads(out)["results"]
    truth = 0.5 + 0.4 * cells.macs(cells.encode([result["architecture"]])) / cells.macs(codes).max()
    assert result["accuracy"] == pytest.approx(truth[0], abs=0.02)
    code, _, err = run(capsys, *command, *table, "--dataset", "yours", "--budgets", "1ms,2ms")
    assert code == 2
    assert "unknown dataset of acc.npz 'yours'" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("search pnga -s mbv3_small --budgets 1ms,2ms", "Did you mean 'pnag'"),
        ("search pnag -s mbv3_small --budgets 0.001ms,2ms", "outside what mbv3_small can reach"),
        ("search pnag -s mbv3_small --budgets 1ms,200ms", "outside what mbv3_small can reach"),
        ("search pnag -s mbv3_small --budgets 1ms,1ms", "at least two different budgets"),
        ("search pnag -s mbv3_small --budgets 1ms,2parsecs", "write it as 9.3ms"),
        ("search pnag -s ofa_mbv3 --budgets 1ms,2ms", "hwbench fit -d cpu -s ofa_mbv3"),
        ("search pnag -s ofa_mbv3 --oracle cpu-mbv3_small.hwp --budgets 1ms,2ms", "not of ofa"),
        ("search pnag -s mbv3_small --budgets 1ms,2ms -o no/x.hwg", "there is no folder no"),
        ("search pnag -s mbv3_small --budgets 1ms,2ms --dataset mine", "a column of --accuracy"),
        (
            "search pnag -s mbv3_small --budgets 1ms,2ms --supernet a --data digits --dataset mine",
            "a column of --accuracy",
        ),
        ("search dash --task mnist1d --option nonsense=1", "--option is for a device"),
        ("search pnag -s mbv3_small --budgets 1ms,2ms --option a=b", "is for --measurements"),
        (
            "search pnag -s mbv3_small --budgets 1,2 -o cpu-mbv3_small.hwp",
            "is read here, and would",
        ),
        (
            "search pnag -s mbv3_small --budgets 1,2 --oracle ready.hwp -o ./ready.hwp",
            "is read here, and would be replaced: name another file with --out",
        ),
        ("search pnag -s mbv3_small --budgets 1,2 --accuracy no.npz", "cannot read no.npz: there"),
        ("generate ready.hwg --budget 1ms,2ms", "as --budget 0.15ms --budget 0.2ms"),
        ("generate cpu-mbv3_small.hwp --budget 1ms", "is no generator"),
        ("generate none.hwg --budget 1ms", "cannot read none.hwg"),
        ("generate ready.hwg", "Missing option '--budget'"),
        ("generate ready.hwg --budget nanms", "write it as 9.3ms"),
        ("generate ready.hwg --budget 1ms -d litert", "are for --measure"),
        ("generate ready.hwg --budget 1ms --option a=b", "are for --measure"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    there: Path, capsys: pytest.CaptureFixture[str], arguments: str, words: str
) -> None:
    code, out, err = run(capsys, *arguments.split())
    assert code == 2
    assert out == ""
    assert err.count("\n") == 1
    assert words in err


def test_a_folder_that_cannot_be_written_is_told_before_the_search(
    there: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (there / "sealed").mkdir()
    monkeypatch.setattr("os.access", lambda path, mode: Path(path).name != "sealed")
    command = "search pnag -s mbv3_small --budgets 1ms,2ms -o sealed/x.hwg"
    code, out, err = run(capsys, *command.split())
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "sealed/x.hwg: sealed cannot be written: name a file elsewhere" in err


def test_a_generator_refuses_budgets_tasks_and_devices_that_are_not_its_own(
    there: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, words in (
        (["--budget", "99ms"], "outside what can be reached here: give"),
        (["--budget", "1ms", "--task", "digits:0,1"], "knows no tasks"),
        (["--budget", "1ms", "--measure"], "another device or runtime"),
    ):
        code, out, err = run(capsys, "generate", "ready.hwg", *arguments)
        assert (code, out) == (2, "")
        assert words in err


@pytest.mark.parametrize(
    ("interval", "status", "kept", "told", "code"),
    [
        ((0.98, 1.0, 1.5), "ok", True, "yes", 0),  # an interval that ends at the budget keeps it
        ((1.49, 1.495, 1.51), "ok", None, "open", 3),  # the point alone would be within
        ((1.49, 1.505, 1.51), "ok", None, "open", 3),
        ((1.501, 1.6, 1.7), "ok", False, "no", 1),
        ((1.2, 1.45, 1.8), "inconclusive", None, "open", 3),
        ((1.2, 1.3, 1.4), "inconclusive", True, "yes", 0),
        ((None, None, None), "observed_only", None, "-", 3),
    ],
)
def test_a_measured_answer_keeps_its_budget_by_all_of_the_interval(
    there: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    interval: tuple[float | None, ...],
    status: str,
    kept: bool | None,
    told: str,
    code: int,
) -> None:
    def measured(device, space, codes, store, **others):
        low, middle, high = (None if ms is None else ms * 1e6 for ms in interval)
        made = measurement(latency_ns=middle, low_ns=low, high_ns=high, status=status)
        return [
            replace(made, workload=replace(made.workload, arch=text))
            for text in space.decode(codes)
        ]

    monkeypatch.setattr("hwbench.devices.profile.measure_architectures", measured)
    monkeypatch.setattr("hwbench.cli.generate.require_here", lambda *arguments: None)
    command = ["generate", "ready.hwg", "--budget", "1.5ms", "--measure"]
    done, out, err = run(capsys, *command, "--json")
    assert done == code, err
    (row,) = json.loads(out)["results"]
    assert row["kept"] is kept
    answer = interval[1] if status == "ok" else None
    assert (row["low_ms"], row["measured_ms"], row["high_ms"]) == (interval[0], answer, interval[2])
    assert row["measured_status"] == status
    done, out, _ = run(capsys, *command)
    assert done == code
    assert told in [line.split()[-1] for line in out.splitlines() if line.strip()]


@pytest.mark.parametrize(
    ("text", "ms"), [("9.3ms", 9.3), ("900us", 0.9), ("0.01s", 10.0), (" 12 ", 12.0), ("1e1", 10.0)]
)
def test_budgets_have_units(text: str, ms: float) -> None:
    assert milliseconds(text) == pytest.approx(ms)


@pytest.mark.parametrize(
    "text", ["", "ms", "5m", "-1ms", "0", "inf", "1,2", "５ms", "٣ms", "1_0ms", "1e999"]
)
def test_what_is_no_budget(text: str) -> None:
    with pytest.raises(UsageError, match="budget"):
        milliseconds(text)
