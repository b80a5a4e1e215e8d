"""The experiment on PNAG: what regret means, what counts as kept, and what the bars make of it."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from hwbench.errors import UsageError
from hwbench.predictors import MacsLine, Provenance, fit_predictor, training_set
from hwbench.spaces import get_space
from hwbench.verify import get_claim, pnag, pnag_device
from hwbench.verify.cells import DeviceTable, ListedCells, TableOracle, find_tables, read_device
from hwbench.verify.frame import Setting
from hwbench.verify.pnag_figure import pnag_figure
from hwbench.verify.pnag_trial import Task, run_trial

NB201 = get_space("nasbench201")
SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
METHODS = {"pnag", "pnag, controller alone", "rank all, labels of pnag", *pnag.BASELINES}


def made_up_table(n: int = 900) -> DeviceTable:
    """Cells with latencies and accuracies that MACs explain for the most part."""
    rng = np.random.default_rng(0)
    codes = NB201.sample(n, rng)
    macs = NB201.macs(codes) / 1e8
    latency = (1 + 4 * macs) * np.exp(0.03 * rng.standard_normal(n))
    accuracy = np.clip(0.94 - 0.3 * np.exp(-3 * macs) + 0.005 * rng.standard_normal(n), 0, 1)
    labels = training_set(NB201, codes, latency)
    return DeviceTable("made_up", ListedCells(labels.codes), labels, accuracy)


@pytest.fixture(scope="module")
def table() -> DeviceTable:
    return made_up_table()


@pytest.fixture(scope="module")
def task(table: DeviceTable) -> Task:
    """With a plain predictor: the other family takes seconds to fit."""
    rng = np.random.default_rng(1)
    learned = table.labels[rng.permutation(len(table.labels))[:100]]
    nowhere = Provenance("published", "", "unknown", 1)
    few, many = (
        fit_predictor(table.space, learned[np.arange(n)], nowhere, kind=MacsLine.kind)
        for n in (60, 100)
    )
    budgets = np.geomspace(*np.quantile(table.latency_ms, [0.05, 0.95]), 20)
    front = np.array([table.known_accuracy[table.latency_ms <= b].max() for b in budgets])
    return Task(table, 7, budgets[::2], budgets, front, learned, few, many)


# --- judging ----------------------------------------------------------------------------------


def best_rows(table: DeviceTable, budgets: np.ndarray) -> np.ndarray:
    within = table.latency_ms[:, None] <= budgets
    return np.where(within, table.known_accuracy[:, None], -1).argmax(axis=0)


def test_the_best_cells_have_no_regret(task: Task) -> None:
    codes = task.table.space.check(task.table.labels.codes[best_rows(task.table, task.budgets)])
    judged = task.judge(codes, np.ones(20, bool))
    assert judged["regret_points_mean"] == pytest.approx(0, abs=1e-12)
    assert judged["satisfaction"] == judged["answered"] == 1
    assert 0.9 < judged["hypervolume"] <= 1


def test_a_broken_budget_counts_as_the_safest_choice(task: Task) -> None:
    codes = task.table.space.check(task.table.labels.codes[best_rows(task.table, task.budgets)])
    slowest = task.table.labels.codes[task.table.latency_ms.argmax()]
    broken = codes.copy()
    broken[10] = slowest
    judged = task.judge(broken, np.ones(20, bool))
    expected = 100 * (task.front[10] - task.front[0]) / 20
    assert judged["regret_points_mean"] == pytest.approx(expected)
    assert judged["satisfaction"] == 0.95
    assert judged["regret_kept_points_mean"] == pytest.approx(0, abs=1e-12)
    answered = np.ones(20, bool)
    answered[10] = False
    unanswered = task.judge(codes, answered)
    assert unanswered["regret_points_mean"] == pytest.approx(expected)
    assert (unanswered["satisfaction"], unanswered["answered"]) == (1, 0.95)


def test_where_no_budget_is_kept_there_is_no_mean_of_those_that_are(task: Task) -> None:
    none = task.judge(np.repeat(task.table.labels.codes[:1], 20, axis=0), np.zeros(20, bool))
    assert (none["utilisation"], none["regret_kept_points_mean"]) == (None, None)
    assert none["regret_points_mean"] == pytest.approx(100 * (task.front - task.front[0]).mean())
    assert none["hypervolume"] == 0


def test_what_was_measured_is_known_exactly(task: Task) -> None:
    oracle = task.oracle(60)
    codes = task.table.space.check(task.table.labels.codes[:50])
    truth = task.table.latency(codes)
    oracle.measure(codes)
    assert np.array_equal(oracle.latency(codes), truth)
    assert np.array_equal(oracle.upper(codes, 0.98), truth)
    learned = task.table.space.check(task.learned.codes[:60])
    assert np.array_equal(task.oracle(60).latency(learned), task.learned.latency_ms[:60])
    assert isinstance(oracle, TableOracle)


def test_every_method_is_run_on_the_same_labels_and_counted(task: Task) -> None:
    rows = run_trial(task, 40)
    assert {row["method"] for row in rows} == METHODS
    calls = {row["method"]: row["ledger"]["evaluator_calls"] for row in rows}
    assert calls["evolution"] == 6000
    assert calls["pnag"] <= calls["evolution"]
    assert calls["best of labelled"] == 0
    for row in rows:
        assert row["ledger"]["validations"] == 40
        assert row["ledger"]["device_measurements"] <= 40
        assert row["confirmed"]["satisfaction"] >= 0.9
        assert row["calibrated"]["satisfaction"] >= 0.9
        assert row["confirmed"]["regret_points_mean"] >= 0
    json.dumps(rows)


def test_only_listed_cells_are_searched(table: DeviceTable) -> None:
    listed = {row.tobytes() for row in table.space.check(table.labels.codes)}
    assert {row.tobytes() for row in table.space.all_codes()} == listed
    drawn = table.space.sample(300, np.random.default_rng(0))
    assert {row.tobytes() for row in drawn} <= listed


# --- the bars ---------------------------------------------------------------------------------


def row(method: str, seed: int, regret: float, **changes: float | None) -> dict:
    figures = dict.fromkeys(pnag.FIGURES, 1.0) | {"regret_points_mean": regret} | changes
    readings = dict.fromkeys(pnag.READINGS, figures)
    ledger = {"evaluator_calls": 100, "validations": 400}
    return {
        "device": "d",
        "seed": seed,
        "labels": 400,
        "method": method,
        "ledger": ledger,
    } | readings


def rows(ours: float = 0.2, theirs: float = 0.5, **changes: float) -> list[dict]:
    baselines = [row(m, s, theirs + 0.01 * s) for m in pnag.BASELINES for s in range(10)]
    return [*(row("pnag", s, ours + 0.01 * s, **changes) for s in range(10)), *baselines]


def test_all_bars_are_met_where_all_is_well() -> None:
    found = pnag.summarise(rows())
    assert all(found["bars"].values())
    assert found["paired_difference_points"] == pytest.approx(-0.3)
    assert found["regret_points_mean"] == pytest.approx(0.245)
    assert set(found["devices"]["d"]["pnag"]) >= {
        "regret_points_mean", "satisfaction", "hypervolume", "raw", "guarded", "calibrated",
        "ledger",
    }  # fmt: skip


def test_figures_that_some_rows_lack_are_means_over_the_others() -> None:
    lacking = [row("pnag", s, 0.2, utilisation=0.7) for s in range(3)]
    lacking[1] = json.loads(json.dumps(row("pnag", 1, 0.2, utilisation=None)))
    others = [row(m, s, 0.5, utilisation=None) for m in pnag.BASELINES for s in range(3)]
    found = pnag.summarise([*lacking, *others])
    json.dumps(found, allow_nan=False)
    assert found["devices"]["d"]["pnag"]["utilisation"] == 0.7
    assert found["devices"]["d"]["nsga2"]["utilisation"] is None


@pytest.mark.parametrize(
    ("changed", "missed"),
    [
        (rows(ours=0.31, theirs=0.9), [0]),
        (rows(ours=0.5, theirs=0.5), [0, 1]),
        (rows(satisfaction=0.9), [2, 3, 4]),
        (rows(hypervolume=0.99), [5]),
    ],
)
def test_each_bar_can_be_missed(changed: list[dict], missed: list[int]) -> None:
    bars = [*pnag.summarise(changed)["bars"].values()]
    assert [i for i, met in enumerate(bars) if not met] == missed


def test_more_calls_than_evolution_miss_their_bar() -> None:
    changed = [
        r | {"ledger": {"evaluator_calls": 101}} if r["method"] == "pnag" else r for r in rows()
    ]
    assert [*pnag.summarise(changed)["bars"].values()][6] is False


def test_a_difference_within_its_interval_is_none() -> None:
    mixed = [row("pnag", s, 0.2 + 0.5 * (s % 2)) for s in range(10)]
    mixed += [row(m, s, 0.5) for m in pnag.BASELINES for s in range(10)]
    difference, half = pnag.paired(mixed, "pnag", "evolution")
    assert difference == pytest.approx(-0.05)
    assert half > 0.15


def test_the_figure_is_drawn(tmp_path: Path) -> None:
    few = [r | {"labels": 100} for r in rows(ours=0.4)]
    pnag_figure([*rows(), *few], tmp_path / "pnag.png")
    assert (tmp_path / "pnag.png").stat().st_size > 10_000


# --- on a device ------------------------------------------------------------------------------


def judged_rows(gains: list[float]) -> list[dict]:
    """PNAG above evolution by these points, seed by seed."""
    return [
        {
            "seed": seed,
            "method": method,
            "test_accuracy": [0.8 + (gain / 100 if method == "pnag" else 0)] * 4,
            "distinct": 3,
            "ledger": {"seconds": 60.0 + seed},
        }
        for seed, gain in enumerate(gains)
        for method in pnag_device.METHODS
    ]


def trials(measured: float = 0.95) -> list[dict]:
    return [
        {
            "budget_ms": b,
            "architecture": f"a{b // 2}",
            "upper_ms": b,
            "measured_ms": measured * b,
            "kept": measured <= 1,
        }
        for b in range(1, 9)
    ]


def device_bars(gains: list[float], **changed: list[dict]) -> list[bool]:
    read = dict.fromkeys((*pnag_device.READINGS, "evolution"), trials()) | changed
    found = pnag_device.summarise(judged_rows(gains), read, 8)
    assert found["readings"]["raw"]["networks"] == 5
    return [*found["bars"].values()]


def test_the_bars_on_a_device_can_each_be_missed() -> None:
    assert all(device_bars([0.1, 0.0, -0.1, 0.2, 0.0]))
    assert device_bars([-0.5, -0.5, -0.6, -0.5, -0.5]) == [True, True, True, True, False]
    noise = [-2.4, -1.6]  # an interval over 0, but so wide that it says nothing
    assert device_bars(noise) == [True, True, True, True, False]
    assert device_bars([0.0] * 3, calibrated=trials(1.1))[:3] == [True, False, True]
    assert device_bars([0.0] * 3, guarded=trials(0.8))[3] is False


def test_times_are_judged_too() -> None:
    found = pnag_device.times_of(judged_rows([0.0] * 3), {"profile_and_fit": 100, "supernet": 300})
    assert found["pipeline_seconds"] == 460
    assert all(found["bars"].values())
    slow = pnag_device.times_of(judged_rows([0.0] * 70), {"profile_and_fit": 500, "supernet": 300})
    assert not any(slow["bars"].values())


# --- files ------------------------------------------------------------------------------------


def write_tables(folder: Path, table: DeviceTable) -> None:
    """As the published files are, at different depths."""
    (folder / "deep").mkdir()
    codes, n = table.labels.codes, len(table.labels)
    space_order = ["none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3"]
    np.savez(
        folder / "nasbench201_acc.npz",
        ops=codes.astype(np.uint8),
        op_names=np.array(space_order),
        acc=100 * table.known_accuracy[:, None],
        acc_names=np.array(["cifar10"]),
    )
    archs = ["arch_idx,op0,op1,op2,op3,op4,op5"]
    archs += [",".join(map(str, [i, *codes[i].tolist()])) for i in range(n)]
    latency = ["arch_idx,board,eyeriss,silver_4114"]
    latency += [f"{i},{ms!r},1.0,2.0" for i, ms in enumerate(table.latency_ms.tolist())]
    for name, text in (("archs", archs), ("latency", latency)):
        with gzip.open(folder / "deep" / f"nb201_x_{name}.csv.gz", "wt") as file:
            file.write("\n".join(text) + "\n")


def test_tables_are_found_and_read_back(tmp_path: Path, table: DeviceTable) -> None:
    write_tables(tmp_path, table)
    columns = find_tables(tmp_path)
    assert set(columns) == {"board", "silver_4114"}  # sums of a model's terms are left out
    assert pnag.judged_devices(columns) == ["board"]  # and what the search was developed on
    read = read_device(tmp_path, "board", columns["board"])
    assert np.allclose(read.latency_ms, table.latency_ms)
    assert np.allclose(read.known_accuracy, table.known_accuracy)


def test_a_folder_without_tables_says_what_is_missing(tmp_path: Path, table: DeviceTable) -> None:
    with pytest.raises(UsageError, match="has no pair of files nb201_"):
        find_tables(tmp_path)
    write_tables(tmp_path, table)
    (tmp_path / "nasbench201_acc.npz").unlink()
    with pytest.raises(UsageError, match="regret needs the accuracies"):
        read_device(tmp_path, "board", find_tables(tmp_path)["board"])


def test_what_is_done_is_not_done_again(
    tmp_path: Path, table: DeviceTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[tuple[int, int]] = []

    def trial(task: int, labels: int) -> list[dict]:
        ran.append((task, labels))
        return [{"seed": task, "labels": labels, "x": 1.5}]

    monkeypatch.setattr(pnag, "run_trial", trial)
    monkeypatch.setattr(pnag.Task, "of", lambda table, seed: seed)
    path = tmp_path / "rows.jsonl"
    first = pnag.trial_rows(table, 3, (100, 200), path)
    assert pnag.trial_rows(table, 3, (100, 200), path) == first
    assert ran == [(3, 100), (3, 200)]
    path.write_text(path.read_text()[:-9])  # killed while it wrote the last line
    assert pnag.trial_rows(table, 3, (100, 200), path) == first
    assert ran == [(3, 100), (3, 200), (3, 200)]
    assert pnag.trial_rows(table, 3, (100, 200), path) == first
    assert len(ran) == 3
    with path.open("ab") as file:
        file.write(b'\n5\nnull\n[5]\n{"seed": 3}\n[{"seed": 3}]\n[{"seed": "\xff\n')
    assert pnag.trial_rows(table, 3, (100, 200), path) == first
    assert len(ran) == 3


def test_without_tables_and_without_torch_it_says_what_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pnag_device, "find_spec", lambda name: None)
    setting = Setting(None, None, tmp_path, True, 0, lambda what, share: None)  # type: ignore[arg-type]
    (verdict,) = get_claim("pnag").run(setting)
    assert verdict.outcome == "not testable here"
    assert "--tables FOLDER" in verdict.evidence["reason"]


@pytest.mark.skipif(not SHARED.exists(), reason=f"needs the published tables in {SHARED}")
def test_published_tables_of_a_real_device() -> None:
    columns = find_tables(SHARED)
    assert set(pnag.JUDGED) | set(pnag.DEVELOPMENT) <= set(columns)
    table = read_device(SHARED, "silver_4114", columns["silver_4114"])
    assert len(table.labels) == 12_120
    assert table.known_accuracy.max() == pytest.approx(0.9437, abs=1e-3)
    best = table.labels.codes[table.known_accuracy.argmax()]
    assert table.accuracy(best[None])[0] == table.known_accuracy.max()
