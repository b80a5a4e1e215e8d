"""``hwbench predict``: latencies without measuring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hwbench import console
from hwbench.cli.kernels import default_path
from hwbench.cli.options import (
    Confidence,
    Debug,
    DeviceOptions,
    Json,
    Shapes,
    StoreUrl,
    choices,
    device_of,
    lines,
    opened,
    shapes,
)
from hwbench.errors import ModelError, UnknownNameError, UsageError

if TYPE_CHECKING:
    from hwbench.devices.base import Device
    from hwbench.measure.plan import Failure
    from hwbench.predictors.kernels import KernelPredictor, NetworkPrediction
    from hwbench.records import Measurement

_SUFFIX = ".hwp"
#: Characters of a file's name in a table.
_NAME = 20


_Subjects = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[FILE.hwp] ARCH|MODEL",
        help="The predictor, then architectures in their text form or .onnx files. Without a "
        "predictor: that of the device's kernels, which is of any .onnx file.",
    ),
]
_Device = Annotated[
    str | None,
    typer.Option(
        "-d", "--device", metavar="NAME", help="Take DEVICE-kernels.hwp; it must be of here."
    ),
]
_File = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Architectures, one a line; - is standard input."),
]
_Measure = Annotated[
    bool, typer.Option("--measure", metavar="", help="Measure the files too, to compare.")
]
_Top = Annotated[int, typer.Option(min=1, metavar="N", help="Kernels to list, the slowest first.")]


def predict(
    subjects: _Subjects = None,
    device: _Device = None,
    option: DeviceOptions = None,
    file: _File = None,
    shape: Shapes = None,
    measure: _Measure = False,
    confidence: Confidence = 0.98,
    top: _Top = 12,
    store: StoreUrl = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Predict the latency of architectures or of any ONNX file, with an upper bound.

    Of an ONNX file it also tells which kernels take the time.

    In JSON all …_ms are milliseconds; low_ms to high_ms holds a measurement with probability .9,
    upper_ms with that of --confidence; sd of a kernel is a fraction of its ms. What --measure found
    is in measured_ms, null unless measured_status is ok; its 95 % interval is measured_low_ms to
    measured_high_ms.

    Example:

    hwbench predict cpu.hwp --file architectures.txt --confidence 0.98

    hwbench predict model.onnx -d cpu
    """
    from hwbench.predictors.kernels import is_kernels

    predictor, texts = _asked(subjects or (), file, device or "cpu")
    if not is_kernels(predictor):
        if unfit := [name for name, on in (("--shape", shape), ("--measure", measure)) if on]:
            raise UsageError(f"{unfit[0]} is for ONNX files: {predictor} is of a space")
        _architectures(predictor, texts, confidence, device, option, as_json=as_json)
        return
    loaded = _of_here(predictor, device, option)
    paths, given = [Path(text) for text in texts], shapes(shape or ())
    found = _files(loaded, paths, given)
    measured: dict[Path, dict[str, Any]] = {}
    if measure:
        target = device_of(device or loaded.meta.provenance.device, option)
        measured = _measured(target, loaded, paths, given, store)
    if as_json:
        _write_json(predictor, loaded, found, measured, confidence)
    else:
        _show(loaded, found, measured, confidence, top)


def _asked(given: Sequence[str], file: Path | None, device: str) -> tuple[Path, list[str]]:
    """The predictor's file, and what to predict: a file of the suffix comes first, if any."""
    named = bool(given) and Path(given[0]).suffix == _SUFFIX
    predictor = Path(given[0]) if named else default_path(device)
    texts = lines(given[1:] if named else given, file)
    if not (named or predictor.exists()):
        raise UsageError(
            f"there is no {predictor} here to predict {texts[0]} with: make it with "
            f"hwbench kernels -d {device}, or name a .hwp file first"
        )
    return predictor, texts


def _architectures(
    predictor: Path,
    texts: Sequence[str],
    confidence: float,
    device: str | None,
    option: Sequence[str] | None,
    *,
    as_json: bool,
) -> None:
    """Predict architectures of the predictor's space."""
    from hwbench.predictors import load_predictor

    loaded = load_predictor(predictor)
    if device is not None or option:
        place = loaded.meta.provenance
        here = device_of(device or place.device, option)
        load_predictor(predictor, fingerprint_key=here.fingerprint(place.threads).key)
        _require_options(predictor, dict(place.options), choices("--option", option or ()))
    codes = loaded.space.encode(texts)
    prediction = loaded.predict(codes)
    low_ms, high_ms = loaded.interval(codes, 0.9)
    upper_ms, beyond = loaded.bound(prediction, confidence), loaded.unfamiliar(prediction)
    answers = zip(texts, prediction.mean_ms, prediction.sd_ms, upper_ms, strict=True)
    if as_json:
        names = ("architecture", "mean_ms", "sd_ms", "upper_ms", "low_ms", "high_ms")
        more = zip(low_ms, high_ms, beyond.tolist(), strict=True)
        console.write_json(
            {
                "predictor": predictor,
                "device": loaded.meta.provenance.device,
                "space": loaded.space.name,
                "confidence": confidence,
                "results": [
                    {
                        **dict(zip(names, (*answer, low, high), strict=True)),
                        "out_of_distribution": far,
                    }
                    for answer, (low, high, far) in zip(answers, more, strict=True)
                ],
            }
        )
        return
    headings = ("architecture", "mean ms", "sd ms", f"upper ms ({confidence:g})")
    console.show(console.table(headings, answers))
    if beyond.any():
        first = next(text for text, far in zip(texts, beyond, strict=True) if far)
        console.note(
            f"{int(beyond.sum())} of {len(texts)} lie beyond all that the predictor was held to "
            f"({first}): measure them rather than believe their bounds"
        )


def _require_options(predictor: Path, learned: Mapping[str, str], asked: Mapping[str, str]) -> None:
    """Refuse options with which other times were learned; those that change none are not kept."""
    from hwbench.devices.options import says

    for name, value in asked.items():
        if not says(value, learned.get(name, value)):
            raise UsageError(
                f"{predictor} learned latencies with {name}={learned[name]}, not {value}: "
                "fit one with the other"
            )


# -- any network, by its kernels --------------------------------------------------------------


def _of_here(predictor: Path, device: str | None, option: Sequence[str] | None) -> KernelPredictor:
    """The kernels' predictor; refused unless it is of the device and the options that are named.

    Options alone are those of the device that it learned.
    """
    from hwbench.devices.environment import options_of
    from hwbench.predictors.kernels import load_kernels

    loaded = load_kernels(predictor)
    if device is None and not option:
        return loaded
    place = loaded.meta.provenance
    threads, here = place.threads, device_of(device or place.device, option)
    key, options = here.fingerprint(threads).key, options_of(here, threads)
    return load_kernels(predictor, fingerprint_key=key, options=options)


def _files(
    predictor: KernelPredictor, paths: Sequence[Path], given: Mapping[str, tuple[int, ...]]
) -> dict[Path, NetworkPrediction]:
    """Predictions of ONNX files; a given shape goes to every file that has an input of the name."""
    from hwbench.devices.models import input_names
    from hwbench.lower import from_onnx
    from hwbench.lower.onnx_importer import UnsupportedNodeError

    for path in paths:
        if path.suffix == ".tflite":
            raise UsageError(f"{path}: kernels are predicted from ONNX files: export it as one")
    inputs = {path: input_names(path) for path in paths}
    known = set[str]().union(*inputs.values())
    for name in given:
        if name not in known:
            raise UnknownNameError("model input", name, known)
    found = {}
    for path, names in inputs.items():
        try:
            graph, _ = from_onnx(path, {name: given[name] for name in given.keys() & names})
        except ModelError as error:
            if isinstance(error.__cause__, UnsupportedNodeError):
                error.add_note(
                    "such a network cannot be predicted: export it without (a simplifier such as "
                    f"onnxsim may fold it away), or measure it with hwbench bench {path}"
                )
            raise
        found[path] = predictor.predict(graph)
    return found


def _measured(
    target: Device,
    predictor: KernelPredictor,
    paths: Sequence[Path],
    given: Mapping[str, tuple[int, ...]],
    store: str | None,
) -> dict[Path, dict[str, Any]]:
    """What files take by the engine, as they are told in JSON."""
    from hwbench.cli import bench
    from hwbench.measure.plan import Plan

    jobs = bench.jobs_of(target, paths, given, predictor.meta.provenance.threads)
    with opened(store) as results:
        answers = bench.measure(target, jobs, Plan(seconds=2.0), results)
    return {path: _told(answer) for path, answer in zip(paths, answers, strict=True)}


def _told(answer: Measurement | Failure) -> dict[str, Any]:
    """The latency of an answer in ms, with its interval; what is none is told."""
    from hwbench.cli.rows import to_json
    from hwbench.measure.plan import Failure

    entry, name = to_json(answer), answer.workload.name
    if isinstance(answer, Failure):
        console.note(f"{name} could not be measured: {answer.reason}")
    elif answer.status == "observed_only":
        console.note(f"{name}: observed only, not comparable with a prediction")
    elif answer.status == "inconclusive":
        console.note(f"{name}: measured inconclusively, the interval is too wide")
    return {
        "measured_ms": entry["latency_ms"],
        "measured_low_ms": entry["latency_ms_low"],
        "measured_high_ms": entry["latency_ms_high"],
        "measured_status": entry["status"],
    }


def _write_json(
    path: Path,
    predictor: KernelPredictor,
    found: Mapping[Path, NetworkPrediction],
    measured: Mapping[Path, Mapping[str, Any]],
    confidence: float,
) -> None:
    rows = [_row(predictor, *each, confidence) for each in found.items()]
    console.write_json(
        {
            "predictor": path,
            "device": predictor.meta.provenance.device,
            "confidence": confidence,
            "results": [
                {**row, **measured.get(row["model"], {"measured_ms": None})} for row in rows
            ],
        }
    )


def _row(
    predictor: KernelPredictor, path: Path, found: NetworkPrediction, confidence: float
) -> dict[str, Any]:
    low_ms, high_ms = predictor.interval(found, 0.9)
    return {
        "model": path,
        "mean_ms": found.mean_ms,
        "sd_ms": found.sd_ms,
        "low_ms": low_ms,
        "high_ms": high_ms,
        "upper_ms": predictor.bound(found, confidence),
        "out_of_distribution": predictor.surprises(found),
        "overhead_ms": found.overhead_ms,
        "kernels": [
            {
                "name": row.kernel.name,
                "kind": row.kernel.kind,
                "ops": row.kernel.ops,
                "ms": row.ms,
                "sd": row.sd,
                "known": row.known,
            }
            for row in found.kernels
        ],
    }


def _show(
    predictor: KernelPredictor,
    found: Mapping[Path, NetworkPrediction],
    measured: Mapping[Path, Mapping[str, Any]],
    confidence: float,
    top: int,
) -> None:
    headings = ["model", "mean ms", "90 % from", "to", f"upper ms ({confidence:g})"]
    rows: list[list[object]] = [
        [_short(path), f.mean_ms, *predictor.interval(f, 0.9), predictor.bound(f, confidence)]
        for path, f in found.items()
    ]
    console.show(console.table(headings, rows))
    if measured:
        headings = ["model", "measured ms", "95 % from", "to", "<answer", "error"]
        beside = [_compared(path, each, measured[path]) for path, each in found.items()]
        console.show(console.table(headings, beside))
    for path, each in found.items():
        for reason in predictor.surprises(each):
            console.note(f"{path.name} is unlike what was measured, the interval is wide: {reason}")
        console.show(
            f"{path.name}: {len(each.kernels)} kernels, by kind",
            console.table(("<kind", "kernels", "ms", "share"), _kinds(each)),
            console.table(("<slowest kernels", "<kind", "ms", "± %", "share"), _slowest(each, top)),
        )


def _compared(
    path: Path, found: NetworkPrediction, measured: Mapping[str, Any]
) -> tuple[object, ...]:
    """A file's measurement, and how far the prediction is off where it is an answer."""
    ms, ends = measured["measured_ms"], ("measured_low_ms", "measured_high_ms")
    status = measured["measured_status"].replace("_", " ")
    off = None if ms is None else f"{found.mean_ms / ms - 1:+.1%}"
    return _short(path), ms, *(measured[end] for end in ends), status, off


def _short(path: Path) -> str:
    """A file's name in what a table of 80 columns has left for it."""
    return console.shortened(path.name, _NAME)


def _kinds(found: NetworkPrediction) -> list[tuple[object, ...]]:
    kinds: dict[str, list[float]] = {}
    for row in found.kernels:
        kinds.setdefault(row.kernel.kind, []).append(row.ms)
    totals = sorted(kinds.items(), key=lambda item: -sum(item[1]))
    rows: list[tuple[object, ...]] = [
        (kind, len(ms), sum(ms), f"{sum(ms) / found.mean_ms:.1%}") for kind, ms in totals
    ]
    return [*rows, ("(between)", None, found.overhead_ms, None)]


def _slowest(found: NetworkPrediction, top: int) -> list[tuple[object, ...]]:
    slowest = sorted(found.kernels, key=lambda row: -row.ms)[:top]
    return [
        (
            "+".join(row.kernel.ops) or f"convert {row.kernel.name}",
            row.kernel.kind,
            row.ms,
            f"{100 * row.sd:.0f}",
            f"{row.ms / found.mean_ms:.1%}",
        )
        for row in slowest
    ]
