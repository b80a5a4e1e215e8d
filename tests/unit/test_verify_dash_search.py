"""Trials of DASH's search: run once, kept, and what their rows are made to say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hwbench.devices.onnx_cpu import OnnxCpu
from hwbench.search.dash import FitPlan, Tuning
from hwbench.search.dash import tasks as dash_tasks
from hwbench.store import Store
from hwbench.verify import dash_trial, get_claim
from hwbench.verify.dash_search import kept_row, search_verdicts, summarise
from hwbench.verify.dash_trial import Extent, task_of
from hwbench.verify.frame import Setting

pytestmark = pytest.mark.usefixtures("one_torch_thread")

TINY = Extent(1, 2, Tuning((0.1,), (0.0,), 2), 2, 1)
NAMES = dash_trial.METHODS


def row(task: str, seed: int, **errors: float) -> dict[str, Any]:
    """A trial in which all take 10 s, and DASH's search 5 s more."""
    seconds = {"tuning_seconds": 2.0, "training_seconds": 10.0}
    methods = {
        name: {**seconds, "search_seconds": 5.0 * (name != "fixed"), "test_error": error}
        for name, error in (dict.fromkeys(NAMES, 0.2) | errors).items()
    }
    return {"task": task, "seed": seed, "metric": "error rate", "methods": methods}


def test_better_is_what_all_of_an_interval_says() -> None:
    clear = [row("a", s, dash=0.10 + s / 1000) for s in range(3)]
    vague = [row("b", s, dash=0.1 + 0.15 * (s == 1)) for s in range(3)]
    found = summarise([*clear, *vague])
    assert found["tasks"]["a"]["lower_than_fixed"][0] == pytest.approx(0.099)
    assert found["tasks"]["a"]["lower_than_fixed"][1] < 0.01
    assert found["tasks"]["b"]["lower_than_fixed"][1] > 0.1
    assert found["tasks"]["a"]["times_backbone_training"] == 1.5
    assert list(found["bars"]["search"].values()) == [False, True]
    assert list(found["bars"]["cost"].values()) == [True, True]
    assert list(found["bars"]["rivals"].values()) == [False, False]
    both = summarise([*clear, *({**r, "task": "c"} for r in clear), *vague])
    assert list(both["bars"]["search"].values()) == [True, True]
    assert list(both["bars"]["rivals"].values()) == [True, True]


def test_slow_searches_miss_their_bars() -> None:
    slow = row("a", 0)
    slow["methods"]["dash"] |= {"search_seconds": 250.0}
    found = summarise([slow])
    assert list(found["bars"]["search"].values()) == [False, False]
    assert list(found["bars"]["cost"].values()) == [False]


def test_trials_are_run_once_and_end_in_verdicts(
    tmp_path: Path, own_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dash_trial, "Extent", lambda: TINY)
    monkeypatch.setattr(dash_trial, "MADE", ("mnist1d",))
    monkeypatch.setattr(dash_trial, "width_of", lambda task: 2)
    made = dash_tasks.mnist1d
    monkeypatch.setattr(dash_tasks, "mnist1d", lambda: made(300))
    with Store.open(own_store) as store:
        setting = Setting(OnnxCpu(), store, tmp_path, False, 0, lambda what, share: None)
        verdicts = search_verdicts(get_claim("dash"), setting)
        monkeypatch.setattr(dash_trial.Trial, "row", lambda *a: pytest.fail("run again"))
        again = search_verdicts(get_claim("dash"), setting)
        kept = kept_row(setting, "mnist1d", 0, TINY, dash_trial.METHODS)
    assert len({verdict.claim for verdict in verdicts}) == 3
    assert [v.outcome for v in again] == [v.outcome for v in verdicts]
    assert set(kept["methods"]) == set(NAMES)
    json.dumps(kept)
    assert kept["methods"]["random"]["search_seconds"] >= kept["methods"]["dash"]["search_seconds"]


def test_published_tasks_are_read_as_they_are(shared_data: Path) -> None:
    bands, flow = (task_of(name, shared_data / "tasks", 0) for name in ("fsdd", "darcy"))
    assert (bands.shape, bands.outputs, bands.dense) == ((32, 90), 10, False)
    assert len(bands.test_for_the_final_report()) == 300
    assert (flow.shape, flow.outputs, flow.dense) == ((1, 16, 16), 1, True)
    assert len(flow.test_for_the_final_report()) == 50
    assert Extent().plan(bands, 3).final == FitPlan(1000, 32)
