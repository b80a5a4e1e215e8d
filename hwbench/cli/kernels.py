"""``hwbench kernels``: from a device to a predictor of any network on it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hwbench import console
from hwbench.cli import accuracy
from hwbench.cli.doctor import calibrated
from hwbench.cli.options import (
    Debug,
    DeviceName,
    DeviceOptions,
    Json,
    Seed,
    StoreUrl,
    Threads,
    device_of,
    opened,
    require_folder,
)
from hwbench.errors import UsageError

if TYPE_CHECKING:
    from hwbench.devices.base import Device
    from hwbench.measure.plan import Failure
    from hwbench.predictors.kernels import KernelPredictor


def default_path(device: str) -> Path:
    """Where the predictor of a device's kernels is unless a path is given."""
    return Path(f"{device.replace(':', '-')}-kernels.hwp")


def kernels(
    device: DeviceName = "cpu",
    networks: Annotated[
        int, typer.Option("-n", "--networks", min=20, metavar="N", help="How many to measure.")
    ] = 240,
    option: DeviceOptions = None,
    threads: Threads = 1,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            metavar="FILE",
            help="Default: DEVICE-kernels.hwp; what was measured goes beside it, as .jsonl.",
        ),
    ] = None,
    seed: Seed = 0,
    store: StoreUrl = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Measure networks of many families kernel by kernel, and fit a predictor of any network.

    Takes about 2 s a network; run it again to go on where it stopped. The table tells how well
    each family was predicted without it.

    Example:

    hwbench kernels -d cpu -n 240 -o cpu-kernels.hwp
    """
    from hwbench.predictors.kernels.campaign import held

    path = default_path(device) if out is None else out
    samples = _beside(path)
    with held(samples):
        target = device_of(device, option)
        if threads > 1 and target.launcher(threads) is None:
            accuracy.note_observed(threads)
        failed = _measure(target, samples, networks, threads, store)
    predictor = _fit(samples, seed)
    predictor.save(path)
    meta = predictor.meta
    if as_json:
        console.write_json(
            {
                "predictor": path,
                "samples": samples,
                "provenance": meta.provenance,
                "n_train": meta.n_train,
                "failed": failed,
                "kinds": list(predictor.models.kinds),
                "left_out": meta.left_out,
            }
        )
        return
    console.show(
        f"{meta.n_train} networks, each family predicted from all others",
        accuracy.table_of_parts(meta.left_out),
        f"Written to {path}",
    )


def _beside(path: Path) -> Path:
    """Where the samples of a predictor's file go. UsageError where the two cannot be written."""
    require_folder(path)
    if path.suffix.lower() == ".jsonl":
        raise UsageError(
            f"{path}: what was measured goes there itself: name the predictor's file with -o, "
            f"as {path.with_suffix('.hwp')}"
        )
    return path.with_suffix(".jsonl")


def _measure(target: Device, samples: Path, n: int, threads: int, store: str | None) -> int:
    """Measure what is missing, and tell of each network that failed; how many did."""
    from hwbench.predictors.kernels import campaign

    campaign.require_ready(samples, target, threads)
    failures: list[Failure] = []
    with opened(store) as results:
        epoch = calibrated(target, threads, results)
    try:
        with console.stages() as report:
            campaign.collect(samples, target, n, threads, epoch, report, failures.append)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"what was measured is in {samples}, the same command goes on from there"
        ) from None
    finally:  # too few may be left for a fit
        for failure in failures:
            console.note(f"{failure.workload.name} was left out: {failure.reason}")
    return len(failures)


def _fit(samples: Path, seed: int) -> KernelPredictor:
    from hwbench.predictors.kernels import fit_kernels, read_samples

    provenance, measured = read_samples(samples)
    return fit_kernels(measured, provenance, seed=seed)
