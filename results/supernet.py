# ruff: noqa: T201
"""How good are a supernet's paths, and do they rank as the same nets trained alone do?

    python results/supernet.py FOLDER train
    python results/supernet.py FOLDER judge
    python results/supernet.py FOLDER alone --steps 400

``train`` makes FOLDER/supernet.pt for mbv3_small at 28 pixels on Fashion-MNIST; ``judge`` prints
validation accuracies of the smallest, the median (by MACs) and the largest path and of random
ones; ``alone`` trains 20 nets of all sizes (or the first so many of them, in no order) by
themselves, with an equal number of steps each, and compares (Kendall's tau). ``train`` and
``alone`` go on where a killed run was. The test images are not touched.
"""

from __future__ import annotations

import argparse
import csv
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
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
DRAWN = 20
PLAN = TrainingPlan(steps=700, alone=0.25, learning_rate=0.3, fixed=FIXED)


def tell(progress: Progress) -> None:
    print(
        f"{progress.step}/{progress.steps} loss {progress.loss:.3f} "
        f"accuracy {progress.accuracy:.3f} {progress.seconds:.0f} s, "
        f"{progress.seconds_left:.0f} s left",
        flush=True,
    )


def make(folder: Path, plan: TrainingPlan) -> None:
    start = time.process_time()
    data = load_dataset("fashion-mnist")
    cost = train(
        Supernet(SPACE),
        data,
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


def alone(folder: Path, nets: int, steps: int, images: int) -> None:
    rng = np.random.default_rng(1)
    rows = rng.permutation(spread_sample(SPACE, DRAWN, rng, fixed=FIXED))[:nets]
    source = source_of(folder, images)
    table = folder / f"alone-{steps}.csv"
    done = dict(csv.reader(table.open())) if table.exists() else {}
    for row, text in zip(rows, SPACE.decode(rows), strict=True):
        if text in done:
            continue
        done[text] = str(accuracy_alone(row, steps, images))
        with table.open("a", newline="") as file:
            csv.writer(file).writerow([text, done[text]])
        print(text, done[text], flush=True)
    by_itself = [float(done[text]) for text in SPACE.decode(rows)]
    paths = source.accuracy(rows)
    found = kendalltau(paths, by_itself)
    print(f"{nets} nets: tau {found.statistic:.2f} (p {found.pvalue:.1e})")
    print(f"MACs against alone: tau {kendalltau(SPACE.macs(rows), by_itself).statistic:.2f}")


def accuracy_alone(code: Codes, steps: int, images: int) -> float:
    data, net = load_dataset("fashion-mnist"), Supernet(SPACE)
    train(net, data, replace(PLAN, steps=steps, alone=1.0, fixed=SPACE.choice(code)))
    return float(SupernetAccuracy(net, data, images=images).accuracy(code[None])[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("what", choices=["train", "judge", "alone"])
    parser.add_argument("--steps", type=int, default=PLAN.steps)
    parser.add_argument("--nets", type=int, default=DRAWN)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    asked.folder.mkdir(parents=True, exist_ok=True)
    if asked.what == "train":
        make(asked.folder, replace(PLAN, steps=asked.steps))
    elif asked.what == "judge":
        judge(asked.folder, asked.images)
    else:
        alone(asked.folder, asked.nets, asked.steps, asked.images)


if __name__ == "__main__":
    main()
