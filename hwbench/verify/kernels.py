"""Is a network predicted by its kernels alone, where nothing like it was ever measured?

Networks of many families are timed kernel by kernel and as a whole. Each family is then predicted
by models that saw none of it, with an interval from the errors on the others. Then come the ONNX
files of others that are installed: they are measured, and predicted from all families.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import numpy as np

from hwbench.devices.models import read_model_file
from hwbench.lower import from_onnx
from hwbench.measure.campaign import anchor, record
from hwbench.measure.plan import Failure, Plan
from hwbench.predictors.kernels import KernelPredictor, fit_kernels, read_samples
from hwbench.predictors.kernels.campaign import collect, held
from hwbench.predictors.metrics import Metrics
from hwbench.records import Measurement, Verdict
from hwbench.verify.frame import Claim, Setting, by_bars

NETWORKS, QUICK_NETWORKS = 500, 80
WITHIN_BAR, FILES_BAR, HELD_BARS = 0.8, 0.8, (0.85, 0.95)
FILES_HELD_BAR = 0.9
FILES_PLAN = Plan(seconds=2.0)
ALL = "all"

#: Files of installed packages: the package, what a path ends in, shapes that it leaves open.
_IMAGE = {"x": (1, 3, 320, 320)}
_FILES: Sequence[tuple[str, str, Mapping[str, tuple[int, ...]]]] = (
    ("onnx", "light/light_bvlc_alexnet.onnx", {}),
    ("onnx", "light/light_densenet121.onnx", {}),
    ("onnx", "light/light_inception_v1.onnx", {}),
    ("onnx", "light/light_inception_v2.onnx", {}),
    ("onnx", "light/light_resnet50.onnx", {}),
    ("onnx", "light/light_shufflenet.onnx", {}),
    ("onnx", "light/light_squeezenet.onnx", {}),
    ("onnx", "light/light_vgg19.onnx", {}),
    ("onnx", "light/light_zfnet512.onnx", {}),
    ("rapidocr-onnxruntime", "_det_infer.onnx", _IMAGE),
    ("rapidocr-onnxruntime", "_rec_infer.onnx", {"x": (1, 3, 48, 320)}),
    ("rapidocr-onnxruntime", "_cls_infer.onnx", {"x": (1, 3, 48, 192)}),
    ("magika", "model.onnx", {"bytes": (1, 2048)}),
)


@dataclass(frozen=True, slots=True)
class FileResult:
    """An ONNX file, predicted with its 90 % interval and measured, in ms."""

    name: str
    predicted_ms: float
    low_ms: float
    high_ms: float
    measured_ms: float
    status: str

    @property
    def error(self) -> float:
        return self.predicted_ms / self.measured_ms - 1

    @property
    def held(self) -> bool:
        return self.low_ms <= self.measured_ms <= self.high_ms

    def row(self) -> dict[str, Any]:
        """For the evidence."""
        return {
            "file": self.name,
            "predicted_ms": round(self.predicted_ms, 4),
            "low_ms": round(self.low_ms, 4),
            "high_ms": round(self.high_ms, 4),
            "measured_ms": round(self.measured_ms, 4),
            "error_pct": round(100 * self.error, 1),
            "held": self.held,
            "status": self.status,
        }


class Kernels(Claim):
    """Networks of no known family, predicted kernel by kernel."""

    name = "kernels"
    text = (
        "a network of a family that was never measured is predicted by its kernels: over the "
        "families 80 % within 10 %, and 90 % intervals hold .85 to .95; so are ONNX files of "
        "others, 80 % within 10 %, and 90 % of the intervals hold"
    )
    protocol = (
        "networks of 19 families, timed kernel by kernel and as a whole; each family predicted "
        "from all others; ONNX files of installed packages, measured after the fit"
    )

    def run(self, setting: Setting) -> list[Verdict]:
        """About 15 minutes; with ``quick`` 6. What was measured is kept beside the figure."""
        device, n = setting.device, QUICK_NETWORKS if setting.quick else NETWORKS
        epoch = anchor(device, 1, setting.store)
        path = setting.folder / f"kernels-{device.name.replace(':', '-')}-{epoch.id}.jsonl"
        failures: list[Failure] = []
        with held(path):
            collect(path, device, n, 1, epoch, setting.progress, failures.append)
        provenance, samples = read_samples(path)
        setting.progress("leaving families out", 0.0)
        predictor = fit_kernels(samples, provenance, seed=setting.seed)
        files = measured_files(setting, predictor) if device.suffix == ".onnx" else []
        evidence = {
            "quick": setting.quick,
            "networks": predictor.meta.n_train,
            "failed": len(failures),
            **summarise(predictor.meta.left_out, files),
        }
        figure = setting.folder / "kernels.png"
        from hwbench.verify.figures import kernels_figure

        kernels_figure(predictor.meta.left_out, files, figure)
        return [self.verdict(by_bars(evidence["bars"]), evidence, figure)]


def summarise(left_out: Mapping[str, Metrics], files: Sequence[FileResult]) -> dict[str, Any]:
    """What the bars say of families (each counts alike) and of files, and the figures of each."""
    families = [metrics for family, metrics in left_out.items() if family != ALL]
    within = float(np.mean([m.within_10 for m in families]))
    held = float(np.mean([m.coverage_90 for m in families]))
    low, high = HELD_BARS
    bars = {
        f"families left out: {WITHIN_BAR:.0%} within 10 %": within >= WITHIN_BAR,
        f"families left out: {low:g} to {high:g} of the 90 % intervals hold": low <= held <= high,
    }
    found: dict[str, Any] = {
        "within_10": round(within, 3),
        "coverage_90": round(held, 3),
        "least_coverage_90": round(min(m.coverage_90 for m in families), 3),
        "width_90": round(float(np.mean([m.width_90 for m in families])), 3),
    }
    if files:
        near = sum(abs(file.error) < 0.1 for file in files)
        holding = sum(file.held for file in files)
        bars[f"files: {FILES_BAR:.0%} within 10 %"] = near >= FILES_BAR * len(files)
        bars[f"files: {FILES_HELD_BAR:.0%} of the 90 % intervals hold"] = (
            holding >= FILES_HELD_BAR * len(files)
        )
        found |= {"files_within_10": f"{near} of {len(files)}"}
        found |= {"files_held": f"{holding} of {len(files)}"}
    return {
        "bars": bars,
        **found,
        "families": {
            family: {
                "n": m.n,
                "within_5": round(m.within_5, 3),
                "within_10": round(m.within_10, 3),
                "rmspe": round(m.rmspe, 1),
                "coverage_90": round(m.coverage_90, 3),
                "width_90": round(m.width_90, 3),
            }
            for family, m in left_out.items()
        },
        "files": [file.row() for file in files] or "none installed, or the device runs no ONNX",
    }


def installed_files() -> Iterator[tuple[Path, Mapping[str, tuple[int, ...]]]]:
    """The ONNX files of others that are here, with the shapes that they leave open."""
    for package, ending, shapes in _FILES:
        try:
            entries = distribution(package).files or ()
        except PackageNotFoundError:
            continue
        for entry in entries:
            if str(entry).endswith(ending):
                yield Path(str(entry.locate())), shapes


def file_name(path: Path) -> str:
    """What a file is called: its name, or its folder's where that says no more than ``model``."""
    return f"{path.parent.name}{path.suffix}" if path.stem == "model" else path.name


def measured_files(setting: Setting, predictor: KernelPredictor) -> list[FileResult]:
    """Predict the installed files, then measure them; those without an answer are left out."""
    names, jobs, predictions = [], [], []
    for path, shapes in installed_files():
        names.append(file_name(path))
        predictions.append(predictor.predict(from_onnx(path, shapes)[0]))
        jobs.append(setting.device.job(read_model_file(path, shapes), 1))
    epoch = anchor(setting.device, 1, setting.store)
    measured: dict[str, Measurement] = {}
    for answer in record(
        setting.device,
        jobs,
        FILES_PLAN,
        setting.store,
        epoch,
        progress=lambda done: setting.progress("measuring files of others", done),
    ):
        if isinstance(answer, Measurement):
            measured[answer.workload.key] = answer
    results = []
    for name, job, found in zip(names, jobs, predictions, strict=True):
        took = measured.get(job.workload.key)
        if took is not None and took.latency_ns is not None:
            interval = predictor.interval(found, 0.9)
            ms = took.latency_ns / 1e6
            results.append(FileResult(name, found.mean_ms, *interval, ms, took.status))
    return results
