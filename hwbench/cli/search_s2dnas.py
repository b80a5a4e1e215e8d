"""``hwbench search s2dnas``: turn a trained network into one that easy inputs leave early."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from hwbench import console
from hwbench.cli.options import (
    Debug,
    DeviceName,
    DeviceOptions,
    Json,
    Seed,
    StoreUrl,
    device_of,
    listed,
    opened,
)
from hwbench.errors import UsageError

if TYPE_CHECKING:
    from hwbench.search.data import Dataset
    from hwbench.search.s2dnas import Outcome, StaticNet
    from hwbench.search.s2dnas.methods import Method

_Model = Annotated[
    str,
    typer.Option(metavar="FILE.py:FUNCTION", help="Builds the trained network, a torch module."),
]
_Weights = Annotated[Path, typer.Option(metavar="FILE", help="Its state dict (.pt or .npz).")]
_Data = Annotated[
    str, typer.Option(metavar="NAME|FOLDER|FILE", help="Images that it was trained on.")
]
_Size = Annotated[
    int,
    typer.Option(
        min=4, metavar="N", help="Pixels a side that digits and a folder's are scaled to."
    ),
]
_Mean = Annotated[
    str | None,
    typer.Option(
        metavar="X,…", help="What pixels of 0..1 are normalised by, a channel each (default: 0)."
    ),
]
_Std = Annotated[str | None, typer.Option(metavar="X,…", help="The same (default: 1).")]
_By = Annotated[
    str,
    typer.Option("--method", metavar="NAME", help="controller, random, evolution or nsga2."),
]
_Stages = Annotated[int, typer.Option(min=2, max=8, metavar="N", help="Stages.")]
_Groups = Annotated[
    int, typer.Option(min=2, metavar="N", help="Groups that channels are cut into.")
]
_Evaluations = Annotated[int, typer.Option(min=5, metavar="N", help="Candidates to judge.")]
_Points = Annotated[
    float, typer.Option(min=0, metavar="X", help="Points of accuracy that may be lost.")
]
_Out = Annotated[
    Path | None, typer.Option("-o", "--out", metavar="FOLDER", help="Default: DEVICE-s2dnas.")
]


def s2dnas(
    model: _Model,
    weights: _Weights,
    data: _Data,
    device: DeviceName = "cpu",
    option: DeviceOptions = None,
    size: _Size = 28,
    mean: _Mean = None,
    std: _Std = None,
    method: _By = "controller",
    stages: _Stages = 3,
    groups: _Groups = 4,
    evaluations: _Evaluations = 60,
    points: _Points = 0.5,
    out: _Out = None,
    seed: Seed = 0,
    store: StoreUrl = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Turn a trained network into stages, measured on the device, that easy images leave early.

    The folder gets a file for each stage and a manifest; the same command goes on where it was
    stopped.

    Example:

    hwbench search s2dnas --model mynet.py:build --weights w.pt --data fashion-mnist -o found
    """
    from hwbench.devices.environment import environment_of
    from hwbench.search.data import load_dataset
    from hwbench.search.s2dnas import SplitPlan, on_device, search_s2dnas, trace
    from hwbench.search.s2dnas.loading import load_module
    from hwbench.search.s2dnas.search import MEASURING

    target = device_of(device, option)
    folder = out or Path(f"{device}-s2dnas".replace(":", "-"))
    plan = SplitPlan(
        stages=stages,
        groups=groups,
        method=cast("Method", method),  # which is refused where it is none
        evaluations=evaluations,
        points=points,
        mean=_numbers("--mean", mean),
        std=_numbers("--std", std),
        seed=seed,
    )
    module = load_module(model, weights)
    # Images in files of their own are grey or in colour as the first convolution reads them.
    channels = next((p.shape[1] for p in module.parameters() if p.dim() == 4), 1)
    images = load_dataset(data, size=size, channels=channels)
    net = trace(module, images.train.images.shape[1:])
    try:
        with opened(store) as results, console.stages() as report:
            outcome = search_s2dnas(
                net,
                images,
                on_device(target, results, progress=partial(report, MEASURING)),
                folder,
                plan,
                device=environment_of(target),
                runtime="litert" if target.suffix == ".tflite" else "onnxruntime",
                progress=report,
            )
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"{folder} keeps what was done, the same command goes on from there"
        ) from None
    _show(outcome, net, images, target.name, points, as_json=as_json)


def _numbers(flag: str, text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(part) for part in listed(flag, text))
    except ValueError:
        raise UsageError(f"{flag} {text!r}: give a number for each channel, as .5,.5,.5") from None


def remarks(outcome: Outcome, points: float) -> list[str]:
    """What is to be said of a network found where ``points`` of accuracy might be lost, if
    anything: a line each."""
    said = []
    if not outcome.within:
        lost = 100 * (outcome.static_accuracy - outcome.accuracy)
        said.append(
            f"no thresholds keep within {points:g} points: {lost:.2f} are lost at the most "
            "accurate; search longer, or for fewer --stages"
        )
    reached = max(number for number, share in enumerate(outcome.left, start=1) if share)
    if reached < len(outcome.left):
        said.append(
            f"no validation image goes on after stage {reached}: the later ones serve nothing, "
            "allow fewer --points to be lost to see what they add"
        )
    if outcome.latency_ms >= outcome.static_ms:
        said.append("the network found is no faster than the one given: do not use it")
    return said


def _show(
    outcome: Outcome,
    net: StaticNet,
    data: Dataset,
    device: str,
    points: float,
    *,
    as_json: bool,
) -> None:
    for line in remarks(outcome, points):
        console.note(line)
    if as_json:
        console.write_json(outcome)
        return
    rows = [
        (f"stage {number}", cost, 100 * share, threshold)
        for number, (cost, share, threshold) in enumerate(
            zip(outcome.costs_ms, outcome.left, (*outcome.thresholds, None), strict=True), start=1
        )
    ]
    console.show(
        f"{net.graph.name} on {device}, accuracy on validation images of {data.name}",
        console.table(
            ("network", "mean ms", "accuracy %"),
            [
                ("as given", outcome.static_ms, 100 * outcome.static_accuracy),
                ("in stages", outcome.latency_ms, 100 * outcome.accuracy),
            ],
        ),
        console.table(("", "ms", "leaves here %", "from confidence"), rows),
        console.table(
            ("cost", "<value"),
            [(name.replace("_", " "), value) for name, value in outcome.ledger.items()],
        ),
        f"{console.counted(outcome.candidates, 'split')} judged. Written to {outcome.manifest}",
    )
