"""Do 90 % intervals hold? Fits on published tables, a row a fit, and what a plain GP does there.

    python results/coverage.py FOLDER reference/coverage.csv --samples 10 20 100 --seeds 20
    python results/coverage.py FOLDER reference/coverage-alone.csv --alone --samples 10 20
    python results/coverage.py FOLDER reference/coverage.csv --show

FOLDER has the tables as ``hwbench evaluate`` reads them (``TABLES`` below). Each fit is what
``hwbench evaluate --space … --device … --train N --seed S [--sources …]`` does; at 20 labels and
fewer the other columns of a table are sources, but for ``--alone``. A killed run goes on where it
was. The rival, for the first ``--rivals`` seeds, is scikit-learn's Gaussian process on latency over
its mean (a Gaussian kernel and white noise by maximum likelihood, from one start) on one-hot
choices, beside them the sources' latencies where there are any, on the same rows.

``score`` is the interval score (Gneiting and Raftery, 2007) over the measured latency: the width,
and 20 times what lies outside. Less is better.
"""

from __future__ import annotations

import argparse
import csv
import fcntl
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pandas as pd
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

from hwbench.predictors.published import PublishedFit, PublishedTable, fit_published, read_published

#: Space, architectures, latencies, and whether other columns are sources at few labels.
TABLES = {
    "NAS-Bench-201": ("nasbench201", "nb201_help", True),
    "FBNet": ("fbnet", "fbnet_help", True),
    "OFA": ("ofa_mbv3", "ofa_help", True),
    "Pi 5": ("nasbench201", "no_licence/nb201_pi5pixel", False),
}
FEW, Z = 20, 1.6449
KEYS = ["table", "device", "samples", "seed"]
COLUMNS = ["coverage", "width", "score", "spearman", "within_10", "gp_coverage", "gp_width"]
COLUMNS += ["gp_score", "gp_spearman"]


def score(latency: np.ndarray, low: np.ndarray, high: np.ndarray) -> float:
    outside = np.maximum(low - latency, 0) + np.maximum(latency - high, 0)
    return float(np.mean((high - low + 20 * outside) / latency))


def one_hot(table: PublishedTable, codes: np.ndarray) -> np.ndarray:
    cards = table.space.cardinalities
    active = table.space.active(codes)
    columns = [
        (codes[:, [j]] == np.arange(n)) & active[:, [j]] for j, n in enumerate(cards) if n > 1
    ]
    return np.concatenate(columns, axis=1).astype(float)


def gp(table: PublishedTable, found: PublishedFit) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of the tested rows by the rival."""
    learned, tested = found.learned, found.tested
    x, asked = one_hot(table, learned.codes), one_hot(table, tested.codes)
    if (known := table.labels.sources) is not None:
        row = {code.tobytes(): i for i, code in enumerate(known.codes)}
        relative = known.latency_ms / known.latency_ms.mean(axis=0)
        scores = PCA(whiten=True, n_components=min(8, relative.shape[1])).fit_transform(relative)
        here, there = (
            scores[[row[code.tobytes()] for code in part.codes]] for part in (learned, tested)
        )
        x, asked = np.hstack([x, here]), np.hstack([asked, there])
    unit = learned.latency_ms.mean()
    kernel = ConstantKernel(1.0) * RBF(3.0, (0.1, 1e3)) + WhiteKernel(0.01, (1e-8, 1.0))
    model = GaussianProcessRegressor(kernel, normalize_y=True, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(x, learned.latency_ms / unit)
    batches = np.array_split(asked, 1 + len(asked) // 2000)
    parts = [model.predict(batch, return_std=True) for batch in batches]
    mean, sd = (np.concatenate(values) for values in zip(*parts, strict=True))
    return mean * unit, sd * unit


def one_fit(table: PublishedTable, samples: int, seed: int, *, rival: bool) -> dict[str, float]:
    found = fit_published(table, train=samples, seed=seed)
    low, high = found.predictor.interval(found.tested.codes, 0.9)
    latency, m = found.tested.latency_ms, found.metrics
    ours = {
        "coverage": m.coverage_90,
        "width": m.width_90,
        "score": score(latency, low, high),
        "spearman": m.spearman,
        "within_10": m.within_10,
    }
    if not rival:
        return ours
    mean, sd = gp(table, found)
    below, above = mean - Z * sd, mean + Z * sd
    return ours | {
        "gp_coverage": float(np.mean((below <= latency) & (latency <= above))),
        "gp_width": float(np.mean((above - below) / latency)),
        "gp_score": score(latency, below, above),
        "gp_spearman": float(pd.Series(mean).corr(pd.Series(latency), method="spearman")),
    }


def devices(folder: Path, stem: str) -> list[str]:
    header = pd.read_csv(folder / f"{stem}_latency.csv.gz", nrows=0).columns
    return [name for name in header if name != "arch_idx"]


def asked(folder: Path, tables: list[str], samples: list[int], seeds: range) -> Iterator[tuple]:
    for seed in seeds:
        for name in tables:
            for device in devices(folder, TABLES[name][1]):
                for n in samples:
                    yield name, device, n, seed


def run(
    folder: Path,
    out: Path,
    tables: list[str],
    samples: list[int],
    seeds: range,
    rivals: int,
    *,
    alone: bool,
) -> None:
    done = set()
    if out.exists() and out.stat().st_size:
        done = set(pd.read_csv(out)[KEYS].itertuples(index=False, name=None))
    cache: dict[tuple, PublishedTable] = {}
    for name, device, n, seed in asked(folder, tables, samples, seeds):
        if (name, device, n, seed) in done:
            continue
        space, stem, transfer = TABLES[name]
        sources = ()
        if transfer and n <= FEW and not alone:
            sources = tuple(d for d in devices(folder, stem) if d != device)
        key = (name, device, sources)
        if key not in cache:
            archs, latency = (folder / f"{stem}_{what}.csv.gz" for what in ("archs", "latency"))
            cache[key] = read_published(space, archs, latency, device, sources)
        values = one_fit(cache[key], n, seed, rival=seed < rivals)
        with out.open("a", newline="") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if file.tell() == 0:
                csv.writer(file).writerow(KEYS + COLUMNS)
            row = [f"{values[c]:.5g}" if c in values else "" for c in COLUMNS]
            csv.writer(file).writerow([name, device, n, seed, *row])
        print(name, device, n, seed, f"{values['coverage']:.3f}", flush=True)  # noqa: T201


def show(out: Path) -> None:
    """A line a table and number of labels; means over fits, and what is by device."""
    print("| table, columns | learned | seeds | held, mean | by column | in .87 to .95 |", end="")  # noqa: T201
    print(" worst 5 % of fits | width | score | GP: held | width | score | better than GP on |")  # noqa: T201
    print("| --- " * 13 + "|")  # noqa: T201
    for (name, n), fits in pd.read_csv(out).groupby(["table", "samples"], sort=False):
        by = fits.groupby("device")[COLUMNS].mean()
        both = fits.dropna(subset="gp_score").groupby("device")[["score", "gp_score"]].mean()
        held, count = by["coverage"], len(by)
        least, most = fits.groupby("device").size().agg(["min", "max"])
        cells = [
            f"{name}, {count}",
            n,
            least if least == most else f"{least}-{most}",
            f"{held.mean():.3f}",
            f"{held.min():.2f} to {held.max():.2f}",
            int(held.between(0.87, 0.95).sum()),
            f"{fits['coverage'].quantile(0.05):.2f}",
            f"{by['width'].mean():.2f}",
            f"{by['score'].mean():.2f}",
            f"{by['gp_coverage'].mean():.2f}",
            f"{by['gp_width'].mean():.2f}",
            f"{by['gp_score'].mean():.2f}",
            f"{int((both['score'] < both['gp_score']).sum())} of {len(both)}",
        ]
        print("| " + " | ".join(map(str, cells)) + " |")  # noqa: T201


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--tables", nargs="+", default=list(TABLES), choices=list(TABLES))
    parser.add_argument("--samples", nargs="+", type=int, default=[10, 20, 100, 900])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--rivals", type=int, default=20, help="seeds below it have a GP beside")
    parser.add_argument("--alone", action="store_true", help="without sources")
    parser.add_argument("--show", action="store_true", help="the table of what OUT has")
    args = parser.parse_args()
    if not args.show:
        seeds = range(args.first_seed, args.first_seed + args.seeds)
        run(
            args.folder,
            args.out,
            args.tables,
            args.samples,
            seeds,
            args.rivals,
            alone=args.alone,
        )
    show(args.out)


if __name__ == "__main__":
    main()
