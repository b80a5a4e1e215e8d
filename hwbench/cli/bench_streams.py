"""``hwbench bench manifest.json``: networks that inputs leave early, timed over a set of images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hwbench import console
from hwbench.errors import UsageError

#: Images at once, of the second of the two timings.
BATCH = 8


def is_manifest(path: Path) -> bool:
    """Whether a file is the manifest of a network in stages, by its name."""
    return path.suffix == ".json"


def bench_streams(
    paths: Sequence[Path],
    data_name: str | None,
    threads: int,
    seconds: float,
    *,
    as_json: bool,
) -> None:
    """Answer the test images of a data set by each network in turns, and show what that took."""
    from hwbench.search.data import check_fits, load_dataset
    from hwbench.search.s2dnas import DynamicModel
    from hwbench.search.s2dnas.streaming import quality, stream

    if not all(map(is_manifest, paths)):
        raise UsageError("manifests and other models are measured differently: bench them apart")
    if data_name is None:
        raise UsageError(
            "where inputs leave depends on what they are: give --data NAME, images as the network "
            "was made for"
        )
    models = [DynamicModel(path, threads=threads) for path in paths]
    entry = models[0].manifest
    if any(model.manifest.image != entry.image for model in models):
        raise UsageError("these networks read images in different ways: bench them apart")
    channels, height, _ = entry.image.shape
    data = load_dataset(data_name, size=height, channels=channels)
    for model in models:
        check_fits(data, channels=channels, classes=model.manifest.classes, what=entry.name)
    part = data.test_for_the_final_report()
    images = models[0].inputs(part.images)
    with console.progress("answering images") as report:
        one = stream(models, images, seconds=seconds, progress=lambda done: report(done / 2))
        batch = min(BATCH, len(images))
        many = stream(
            models,
            images,
            seconds=seconds,
            batch=batch,
            progress=lambda done: report(0.5 + done / 2),
        )
    found = [
        {
            "manifest": str(path),
            "stages": len(model.manifest.stages),
            **asdict(quality(model, images, part.labels)),
            "latency": [asdict(single), asdict(batched)],
        }
        for path, model, single, batched in zip(paths, models, one, many, strict=True)
    ]
    if as_json:
        console.write_json({"data": data.name, "threads": threads, "results": found})
        return
    _show(found, f"Test images of {data.name}; times are of the wall clock, the networks in turns.")


def _show(found: Sequence[Mapping[str, Any]], note: str) -> None:
    timed = [(row, each) for row in found for each in row["latency"]]
    console.show(
        console.table(
            ("network", "batch", "mean ms", "±", "p50", "p90", "p99", "times faster", "±"),
            [
                (
                    row["manifest"],
                    each["batch"],
                    each["mean"],
                    (each["high"] - each["low"]) / 2,
                    *(each[name] for name in ("p50", "p90", "p99", "faster")),
                    (each["faster_high"] - each["faster_low"]) / 2,
                )
                for row, each in timed
            ],
        ),
        console.table(
            ("network", "accuracy %", "±", "<leave at each stage, %"),
            [
                (
                    row["manifest"],
                    100 * row["accuracy"],
                    50 * (row["accuracy_high"] - row["accuracy_low"]),
                    ", ".join(f"{100 * share:.1f}" for share in row["exits"]),
                )
                for row in found
            ],
        ),
        note,
    )
