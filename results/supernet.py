# ruff: noqa: T201
"""How good are a supernet's paths, and do they rank as the same nets trained alone do?

    python results/supernet.py FOLDER train
    python results/supernet.py FOLDER judge
    python results/supernet.py FOLDER alone --seed 0
    python results/supernet.py FOLDER compare

``train`` makes FOLDER/supernet.pt for mbv3_small at 28 pixels on Fashion-MNIST; ``judge`` prints
validation accuracies of the smallest, the median (by MACs) and the largest path and of random
ones; ``alone`` trains 20 nets of all sizes by themselves, with an equal number of steps each, and
writes FOLDER/alone-SEED.csv; ``compare`` holds the accuracies of each such file, and their mean,
against those of the supernet's paths and against MACs (Kendall's tau, with a bootstrap interval
over the nets), and the files against each other. ``train`` and ``alone`` go on where a killed run
was. The test images are not touched.
"""

from __future__ import annotations

import argparse
import csv
import time
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.stats import kendalltau

from hwbench.search.accuracy.supernet import SupernetAccuracy
from hwbench.search.data import load_dataset
from hwbench.search.supernet import (
    Progress,
    Supernet,
    TrainingPlan,
    largest,
    load_supernet,
    smallest,
    train,
)
from hwbench.spaces import Codes, get_space, spread_sample

SPACE = get_space("mbv3_small")
FIXED = {"r": 28}
NETS = 20
SUPERNET_STEPS, ALONE_STEPS = 3000, 400
RESAMPLED = 10_000


def tell(progress: Progress) -> None:
    print(
        f"{progress.step}/{progress.steps} loss {progress.loss:.3f} "
        f"accuracy {progress.accuracy:.3f} {progress.seconds:.0f} s, "
        f"{progress.seconds_left:.0f} s left",
        flush=True,
    )


def make(folder: Path, plan: TrainingPlan) -> None:
    start = time.process_time()
    cost = train(
        Supernet(SPACE),
        load_dataset("fashion-mnist"),
        plan,
        checkpoint=folder / "supernet.pt",
        progress=tell,
        report_every=50,
    )
    print(f"{cost.seconds:.0f} s, of this run {time.process_time() - start:.0f} s of one core")


def source_of(folder: Path, images: int) -> SupernetAccuracy:
    net = load_supernet(folder / "supernet.pt", SPACE)
    return SupernetAccuracy(net, load_dataset("fashion-mnist"), images=images)


def judge(folder: Path, images: int) -> None:
    rng = np.random.default_rng(0)
    many = SPACE.sample(1001, rng, fixed=FIXED)
    by_macs = many[np.argsort(SPACE.macs(many))]
    rows = np.stack([smallest(SPACE, FIXED), by_macs[500], largest(SPACE, FIXED), *many[:20]])
    source = source_of(folder, images)
    start, core = time.perf_counter(), time.process_time()
    accuracy = source.accuracy(rows)
    seconds = (time.perf_counter() - start) / len(rows)
    core = (time.process_time() - core) / len(rows)
    print(f"smallest {accuracy[0]:.4f} median {accuracy[1]:.4f} largest {accuracy[2]:.4f}")
    print(f"20 random: {np.sort(accuracy[3:]).round(4).tolist()}")
    print(f"{images} images: {seconds:.2f} s a path, {core:.2f} s of one core")


def the_nets() -> Codes:
    """(20, L), of all sizes, in no order."""
    rng = np.random.default_rng(1)
    return rng.permutation(spread_sample(SPACE, NETS, rng, fixed=FIXED))


def alone(folder: Path, steps: int, seed: int, images: int) -> None:
    table = folder / f"alone-{seed}.csv"
    done = read_alone(table)
    rows = the_nets()
    for i, (row, text) in enumerate(zip(rows, SPACE.decode(rows), strict=True)):
        if text in done:
            continue
        start = time.process_time()
        net, data = Supernet(SPACE, seed), load_dataset("fashion-mnist")
        plan = TrainingPlan(steps=steps, seed=seed, fixed=SPACE.choice(row))
        train(net, data, plan, checkpoint=folder / f"alone-{seed}-{i}.pt")
        (accuracy,) = SupernetAccuracy(net, data, images=images).accuracy(row[None])
        with table.open("a", newline="") as file:
            csv.writer(file).writerow([text, accuracy])
        print(f"{text} {accuracy:.4f} {time.process_time() - start:.0f} s of one core", flush=True)


def read_alone(table: Path) -> dict[str, float]:
    if not table.exists():
        return {}
    return {text: float(accuracy) for text, accuracy in csv.reader(table.open(newline=""))}


def compare(folder: Path, images: int) -> None:
    rows = the_nets()
    texts, macs, paths = (
        SPACE.decode(rows),
        SPACE.macs(rows),
        source_of(folder, images).accuracy(rows),
    )
    tables = {path.stem: read_alone(path) for path in sorted(folder.glob("alone-*.csv"))}
    alone = {name: np.array([table[text] for text in texts]) for name, table in tables.items()}
    alone["their mean"] = np.mean(list(alone.values()), axis=0)
    for text, size, *figures in zip(texts, macs, paths, *alone.values(), strict=True):
        print(text, f"{size / 1e6:.2f}", *(f"{figure:.4f}" for figure in figures))
    for name, accuracy in alone.items():
        tell_tau(f"paths against {name}", paths, accuracy)
        tell_tau(f"MACs against {name}", macs, accuracy)
    tell_tau("MACs against paths", macs, paths)
    for (one, first), (other, second) in combinations(list(alone.items())[:-1], 2):
        tell_tau(f"{one} against {other}", first, second)


def tell_tau(what: str, one: ArrayLike, other: ArrayLike) -> None:
    """Kendall's tau-b, and the middle 95 % of it over nets drawn with replacement."""
    one, other = np.asarray(one), np.asarray(other)
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, len(one), (RESAMPLED, len(one)))
    taus = [kendalltau(one[rows], other[rows]).statistic for rows in drawn]
    low, high = np.nanquantile(taus, [0.025, 0.975])
    tau = kendalltau(one, other).statistic
    print(f"{what}: tau {tau:.2f} ({low:.2f} to {high:.2f}, {len(one)} nets)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("what", choices=["train", "judge", "alone", "compare"])
    parser.add_argument("--steps", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    asked.folder.mkdir(parents=True, exist_ok=True)
    if asked.what == "train":
        make(
            asked.folder, TrainingPlan(asked.steps or SUPERNET_STEPS, seed=asked.seed, fixed=FIXED)
        )
    elif asked.what == "judge":
        judge(asked.folder, asked.images)
    elif asked.what == "alone":
        alone(asked.folder, asked.steps or ALONE_STEPS, asked.seed, asked.images)
    else:
        compare(asked.folder, asked.images)


if __name__ == "__main__":
    main()
