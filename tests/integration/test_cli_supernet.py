"""``supernet``, and a search that asks one: trained, gone on with, refused in one line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hwbench.cli import main
from hwbench.cli.search_pnag import supernet_source
from hwbench.cli.supernet import images_of
from hwbench.predictors import MacsLine, Provenance, fit_predictor
from hwbench.search.accuracy.kept import KeptAccuracy
from hwbench.search.data import load_dataset
from hwbench.search.pnag import Costs, Schedule
from hwbench.search.supernet import Supernet, TrainingPlan, load_supernet, train
from hwbench.spaces import get_space
from hwbench.testing.predictors import made_up_training

pytestmark = pytest.mark.usefixtures("one_torch_thread")

SMALL = get_space("mbv3_small")
PLAN = TrainingPlan(steps=3, fixed={"r": 28})
TRAIN = "supernet -s mbv3_small --data shades.npz --steps 3 --fix r=28"
SEARCH = "search pnag -s mbv3_small --labels 20 --data shades.npz --supernet"


@pytest.fixture(scope="module")
def folder(one_torch_thread, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of ten shades of grey, a predictor, and a supernet that was trained on them."""
    folder = tmp_path_factory.mktemp("supernet")
    rng, y = np.random.default_rng(0), np.repeat(np.arange(10), 12)
    x = (25 * y[:, None, None] + rng.integers(0, 25, (120, 28, 28))).astype(np.uint8)
    np.savez(folder / "shades.npz", x=x, y=y)
    np.savez(folder / "others.npz", x=255 - x, y=y)
    place = Provenance("cpu", "0" * 32, "made up", 1)
    predictor = fit_predictor(SMALL, made_up_training(SMALL, 40), place, kind=MacsLine.kind)
    predictor.save(folder / "cpu-mbv3_small.hwp")
    data = load_dataset(str(folder / "shades.npz"))
    train(Supernet(SMALL), data, PLAN, checkpoint=folder / "ready.pt")
    (folder / "damaged.pt").write_bytes((folder / "ready.pt").read_bytes()[:-500])
    leave_off(folder / "begun.pt", data)
    return folder


def leave_off(path: Path, data) -> None:
    """As a training that was killed in its second step leaves its file."""

    def stop(progress):
        if progress.step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(
            Supernet(SMALL),
            data,
            PLAN,
            checkpoint=path,
            save_every_seconds=0,
            progress=stop,
            report_every=1,
        )


@pytest.fixture
def there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HWBENCH_STORE", str(folder / "store.db"))
    return folder


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main([*arguments])
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def test_a_supernet_is_trained_and_gone_on_with(
    there: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, *TRAIN.split(), "-o", "whole.pt", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert (found["supernet"], found["space"], found["steps"]) == ("whole.pt", "mbv3_small", 3)
    assert (found["data"], found["fixed"]) == ("shades", {"r": 28})
    assert all(0 <= found["accuracy"][path] <= 1 for path in ("smallest", "largest"))
    assert "loss" in err
    assert "accuracy" in err
    assert "left" in err
    code, out, err = run(capsys, *TRAIN.split(), "-o", "begun.pt")
    assert code == 0, err
    assert "begun.pt was trained for 1 of 3 steps: going on from there" in err
    assert "3 steps" in out
    states = [load_supernet(Path(name), SMALL).state_dict() for name in ("whole.pt", "begun.pt")]
    assert all(torch.equal(a, b) for a, b in zip(*(s.values() for s in states), strict=True))


def test_a_search_asks_the_supernet_and_no_path_twice(
    there: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    short = Schedule(steps=5, last=5, first=50)
    monkeypatch.setattr("hwbench.search.pnag.Costs", lambda *spent: Costs(*spent, plan=short))
    command = [*SEARCH.split(), "ready.pt", "--budgets", "0.9ms,1.6ms", "-o", "s.hwg"]
    code, out, err = run(capsys, *command, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["objective"] == "accuracy of a supernet's paths on shades"
    assert found["fixed"] == {"r": 28}
    budgets = [w for ms in np.linspace(*found["range_ms"], 12)[1:-1] for w in ("--budget", f"{ms}")]
    _, out, _ = run(capsys, "generate", "s.hwg", *budgets, "--json")
    assert all(r["architecture"].startswith("r28 ") for r in json.loads(out)["results"])
    assert all(0 <= r["accuracy"] <= 1 for r in json.loads(out)["results"])
    _, *lines = (there / "ready.labels.jsonl").read_text().split("\n\n")
    labels = {label["architecture"]: label["accuracy"] for label in map(json.loads, lines)}
    with supernet_source(SMALL, Path("ready.pt"), "shades.npz") as (source, _, _):
        assert source.accuracy(SMALL.encode(list(labels))).tolist() == list(labels.values())
    assert len(labels) == 20
    assert isinstance(source, KeptAccuracy)
    assert source.asked == 0


@pytest.mark.parametrize(("space", "size"), [("mbv3_small", 28), ("ofa_mbv3", 224)])
def test_a_folders_images_are_as_large_as_the_networks_take_them(
    tmp_path: Path, space: str, size: int
) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(8):
            Image.new("RGB", (240, 200), (20 * i, 9, 99)).save(tmp_path / name / f"{i}.png")
    images = images_of(get_space(space), str(tmp_path)).train.images
    assert images.shape[2:] == (size, size)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (f"{TRAIN} -o no/s.pt", "there is no folder no"),
        (f"{TRAIN} --on gpu", "nothing is trained on 'gpu': give cpu, cuda"),
        (f"{TRAIN} --fix q=1", "unknown decision of mbv3_small 'q'"),
        (f"{TRAIN} --fix k0=4", "k0 is one of 3, 5, 7"),
        (f"{TRAIN} -o damaged.pt", "damaged.pt is not a supernet, or damaged"),
        (f"{TRAIN} --seed 1 -o ready.pt", "another training (plan differ): give another"),
        ("supernet -s mbv3_small --data shadse.npz", "no data 'shadse.npz': give digits"),
        ("supernet -s mbv3_small_rgb --data shades.npz", "takes 3: choose another space"),
        ("supernet -s mbv3_small_rgb --data shades.npz -o ready.pt", "not of 'mbv3_small_rgb'"),
        ("supernet -s nasbench201 --data shades.npz", "no supernet for the space nasbench201"),
        (f"{SEARCH} none.pt --budgets 1,2", "cannot read none.pt"),
        (f"{SEARCH} damaged.pt --budgets 1,2", "damaged.pt is not a supernet, or damaged"),
        (f"{SEARCH} begun2.pt --budgets 1,2", "begun2.pt was trained for 1 of 3 steps"),
        (f"{SEARCH} ready.pt --data others.npz --budgets 1,2", "trained on other images than"),
        (f"{SEARCH} ready.pt --on gpu --budgets 1,2", "nothing is trained on 'gpu': give cpu"),
        ("search pnag -s mbv3_small --on cuda --budgets 1,2", "--on is for --supernet, of which"),
        ("search pnag -s mbv3_small --fleet local --budgets 1,2", "or trains --seeds: give one"),
        (
            f"{SEARCH} ready.pt --on cuda --fleet local --budgets 1,2",
            "on CPUs: leave --on out",
        ),
        (f"{SEARCH} ready.pt --accuracy a.npz --budgets 1,2", "two sources of accuracy"),
        ("search pnag -s mbv3_small --data digits --budgets 1,2", "go together: give both"),
        ("search pnag -s mbv3_small --supernet no.pt --budgets 1,2", "go together: give both"),
        (f"{SEARCH} ready.pt --budgets 1,2 -o ready.pt", "ready.pt is read here, and would be"),
        (f"{SEARCH} ready.pt --budgets 1,2 -o ./shades.npz", "is read here, and would be"),
        (
            f"{SEARCH} cpu-mbv3_small.hwp --budgets 1,2",
            "damaged: give a file that hwbench supernet",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    there: Path, capsys: pytest.CaptureFixture[str], arguments: str, words: str
) -> None:
    if "begun2" in arguments:
        leave_off(there / "begun2.pt", load_dataset("shades.npz"))
    code, out, err = run(capsys, *arguments.split())
    assert code == 2
    assert out == ""
    assert err.count("\n") == 1
    assert words in err


@pytest.mark.parametrize(
    ("name", "words"), [("new.pt", "nothing was saved yet"), ("ready.pt", "ready.pt keeps what")]
)
def test_an_interrupt_says_what_was_saved(
    there: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    words: str,
) -> None:
    def interrupted(*arguments: object, **others: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("hwbench.search.supernet.train", interrupted)
    _, out, err = run(capsys, *TRAIN.split(), "-o", name)
    assert out == ""
    assert words in err
