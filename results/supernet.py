# ruff: noqa: T201
"""How good are a supernet's paths, and do they rank as the same nets trained alone do?

    python results/supernet.py FOLDER train
    python results/supernet.py FOLDER judge
    python results/supernet.py FOLDER alone --seed 0 --steps 1200 --on cuda --part 0/4
    python results/supernet.py FOLDER compare --steps 1200

``train`` makes FOLDER/supernet.pt for mbv3_small at 28 pixels on Fashion-MNIST; ``judge`` prints
validation accuracies of the smallest, the median (by MACs) and the largest path and of random
ones; ``alone`` trains 20 nets of all sizes by themselves, with an equal number of steps each, and
writes FOLDER/alone-STEPS-SEED.csv; ``compare`` holds the accuracies of each such file of as many
steps, and their mean, against those of the supernet's paths and against MACs (Kendall's tau, with
a bootstrap interval over the nets), and the files against each other. ``train`` and ``alone`` go
on where a killed run was. The test images are not touched.

``--part 1/4`` of ``alone`` takes every fourth net from the second on: parts run at the same time,
and each adds whole lines to the one file. ``--on cuda`` trains and judges on a GPU, where a process
needs one thread (``--threads 1``). ``--data`` is a folder with Fashion-MNIST's four idx files, for
machines without Debian's package.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.stats import kendalltau

from hwbench.search.accuracy.supernet import SupernetAccuracy
from hwbench.search.data import Dataset, fashion_mnist
from hwbench.search.supernet import (
    Progress,
    Supernet,
    TrainingPlan,
    largest,
    load_supernet,
    smallest,
    train,
    training_device,
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


def make(folder: Path, plan: TrainingPlan, data: Dataset, on: torch.device) -> None:
    start = time.process_time()
    cost = train(
        Supernet(SPACE).to(on),
        data,
        plan,
        checkpoint=folder / "supernet.pt",
        progress=tell,
        report_every=50,
    )
    print(f"{cost.seconds:.0f} s, of this run {time.process_time() - start:.0f} s of one core")


def judge(source: SupernetAccuracy, images: int) -> None:
    rng = np.random.default_rng(0)
    many = SPACE.sample(1001, rng, fixed=FIXED)
    by_macs = many[np.argsort(SPACE.macs(many))]
    rows = np.stack([smallest(SPACE, FIXED), by_macs[500], largest(SPACE, FIXED), *many[:20]])
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


def alone(
    table: Path,
    part: tuple[int, int],
    plan: TrainingPlan,
    data: Dataset,
    on: torch.device,
    images: int,
) -> None:
    first, every = part
    done = read_alone(table)
    rows = the_nets()
    for i, (row, text) in list(enumerate(zip(rows, SPACE.decode(rows), strict=True)))[first::every]:
        if text in done:
            continue
        start, core = time.perf_counter(), time.process_time()
        net = Supernet(SPACE, plan.seed).to(on)
        checkpoint = table.with_name(f"{table.stem}-{i}.pt")
        train(net, data, replace(plan, fixed=SPACE.choice(row)), checkpoint=checkpoint)
        (accuracy,) = SupernetAccuracy(net, data, images=images).accuracy(row[None])
        with table.open("a", newline="") as file:
            csv.writer(file).writerow([text, accuracy])
        seconds, core = time.perf_counter() - start, time.process_time() - core
        print(f"{text} {accuracy:.4f} {seconds:.0f} s, {core:.0f} s of one core", flush=True)


def read_alone(table: Path) -> dict[str, float]:
    if not table.exists():
        return {}
    return {text: float(accuracy) for text, accuracy in csv.reader(table.open(newline=""))}


def compare(tables: Sequence[Path], source: SupernetAccuracy) -> None:
    if not tables:
        raise SystemExit("there is no table of nets trained alone with as many steps: make one")
    rows = the_nets()
    texts, macs, paths = SPACE.decode(rows), SPACE.macs(rows), source.accuracy(rows)
    found = {path.stem: read_alone(path) for path in tables}
    alone = {
        name: np.array([table.get(text, np.nan) for text in texts]) for name, table in found.items()
    }
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
    """Kendall's tau-b, and the middle 95 % of it over nets drawn with replacement.

    Of the nets that both have a number for.
    """
    one, other = np.asarray(one), np.asarray(other)
    both = np.isfinite(one) & np.isfinite(other)
    one, other = one[both], other[both]
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, len(one), (RESAMPLED, len(one)))
    taus = [kendalltau(one[rows], other[rows]).statistic for rows in drawn]
    low, high = np.nanquantile(taus, [0.025, 0.975])
    tau = kendalltau(one, other).statistic
    print(f"{what}: tau {tau:.2f} ({low:.2f} to {high:.2f}, {len(one)} nets)")


def share(text: str) -> tuple[int, int]:
    """``1/4`` as (1, 4)."""
    part, _, parts = text.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and int(part) < int(parts)):
        raise argparse.ArgumentTypeError(f"{text!r}: write 0/4, 1/4, 2/4 or 3/4 for four parts")
    return int(part), int(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("what", choices=["train", "judge", "alone", "compare"])
    parser.add_argument("--steps", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--part", type=share, default=(0, 1), metavar="I/N")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--data", type=Path, metavar="FOLDER")
    parser.add_argument("--on", default="cpu", metavar="cpu|cuda|cuda:N")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    on, data = training_device(asked.on), fashion_mnist(asked.data)
    folder, steps = asked.folder, asked.steps or ALONE_STEPS
    folder.mkdir(parents=True, exist_ok=True)
    if asked.what == "train":
        plan = TrainingPlan(asked.steps or SUPERNET_STEPS, seed=asked.seed, fixed=FIXED)
        make(folder, plan, data, on)
    elif asked.what == "alone":
        plan = TrainingPlan(steps, seed=asked.seed)
        table = folder / f"alone-{steps}-{asked.seed}.csv"
        alone(table, asked.part, plan, data, on, asked.images)
    else:
        net = load_supernet(folder / "supernet.pt", SPACE).to(on)
        source = SupernetAccuracy(net, data, images=asked.images)
        if asked.what == "judge":
            judge(source, asked.images)
        else:
            compare(sorted(folder.glob(f"alone-{steps}-*.csv")), source)


if __name__ == "__main__":
    main()
