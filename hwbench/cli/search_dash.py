"""``hwbench search dash``: choose the kernel sizes and dilations of a network, for a task."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hwbench import console
from hwbench.cli.options import (
    Debug,
    DeviceOptions,
    Json,
    Seed,
    StoreUrl,
    device_of,
    listed,
    opened,
)
from hwbench.cli.search_options import milliseconds
from hwbench.errors import EXIT_INCONCLUSIVE, EXIT_REGRESSION, UsageError

if TYPE_CHECKING:
    from hwbench.search.dash import Outcome

_Task = Annotated[
    str,
    typer.Option(metavar="NAME|FILE", help="mnist1d, digits, fashion-mnist, or an .npz file."),
]
_Backbone = Annotated[
    str,
    typer.Option(
        metavar="auto|FILE.py:FUNCTION",
        help="A network for the task, or a function that builds it.",
    ),
]
_Budget = Annotated[
    str | None, typer.Option(metavar="MS", help="Latency to keep on the device, as 5ms.")
]
_Device = Annotated[
    str | None,
    typer.Option("-d", "--device", metavar="NAME", help="Device to measure on (budget: cpu)."),
]
_Dims = Annotated[
    int | None, typer.Option(min=1, max=2, metavar="N", help="Dimensions of a file's inputs.")
]
_Kernels = Annotated[
    str | None, typer.Option(metavar="K,…", help="Kernel sizes (default: by the dimensions).")
]
_Dilations = Annotated[str | None, typer.Option(metavar="D,…", help="Dilations (the same).")]
_Pointwise = Annotated[
    bool, typer.Option("--pointwise", metavar="", help="Search 1x1 convolutions, too.")
]
_Width = Annotated[
    float | None,
    typer.Option(min=0.1, metavar="X", help="1D: channels (16); 2D: times WRN-16-1's (1)."),
]
_Trained = Annotated[
    float | None,
    typer.Option(min=0.1, metavar="X", help="The same of the network trained with the result."),
]
_Steps = Annotated[int, typer.Option(min=1, metavar="N", help="Steps of the search.")]
_Final = Annotated[int, typer.Option(min=1, metavar="N", help="Steps of the last training.")]
_Batch = Annotated[int, typer.Option(min=2, metavar="N", help="Samples a step.")]
_Out = Annotated[
    Path | None, typer.Option("-o", "--out", metavar="FOLDER", help="Default: TASK-dash.")
]


def dash(
    task: _Task,
    backbone: _Backbone = "auto",
    budget: _Budget = None,
    device: _Device = None,
    option: DeviceOptions = None,
    dims: _Dims = None,
    kernels: _Kernels = None,
    dilations: _Dilations = None,
    pointwise: _Pointwise = False,
    width: _Width = None,
    trained_width: _Trained = None,
    steps: _Steps = 200,
    final_steps: _Final = 400,
    batch: _Batch = 64,
    out: _Out = None,
    seed: Seed = 0,
    store: StoreUrl = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Choose a network's kernel sizes and dilations for a task, within a latency budget or not.

    The network's own are trained alike, and stay where they do better on validation samples.

    The folder gets the trained network (.onnx, .pt) and what was chosen (.json); the same command
    goes on where it was stopped. Exits with 1 if the budget is not kept, with 3 if that is not
    sure.

    Example:

    hwbench search dash --task mnist1d --budget 0.5ms -d cpu -o found
    """
    from hwbench.devices.environment import environment_of
    from hwbench.search.dash import DashPlan, FitPlan, backbone_for, load_task, search_dash
    from hwbench.search.dash.search import MEASURING
    from hwbench.search.s2dnas import on_device

    plan = DashPlan(
        kernels=_whole("--kernels", kernels),
        dilations=_whole("--dilations", dilations),
        pointwise=pointwise,
        relaxed=FitPlan(steps, batch),
        final=FitPlan(final_steps, batch),
        budget_ms=None if budget is None else milliseconds(budget),
        seed=seed,
    )
    name = device or (None if budget is None else "cpu")
    if option and name is None:
        raise UsageError("--option is for a device, which nothing is measured on: leave it out")
    target = None if name is None else device_of(name, option)
    found = load_task(task, dims=dims, seed=seed)
    net = backbone_for(found, backbone, width, trained_width)
    folder = out or Path(f"{found.name}-dash")
    try:
        with opened(store) as results, console.stages() as report:
            measurer = (
                None
                if target is None
                else on_device(target, results, progress=partial(report, MEASURING))
            )
            key = "" if target is None else environment_of(target)
            outcome = search_dash(net, found, folder, plan, measurer, device=key, progress=report)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"{folder} keeps what was done, the same command goes on from there"
        ) from None
    _show(outcome, as_json=as_json)
    if outcome.budget_ms is not None and outcome.kept is not True:
        raise typer.Exit(EXIT_INCONCLUSIVE if outcome.kept is None else EXIT_REGRESSION)


def _whole(flag: str, text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        return tuple(int(part) for part in listed(flag, text))
    except ValueError:
        raise UsageError(f"{flag} {text!r}: give whole numbers, as 3,5,7") from None


def _show(outcome: Outcome, *, as_json: bool) -> None:
    if as_json:
        rows = [{"conv": n, "kernel": k, "dilation": d} for n, (k, d) in outcome.choice.items()]
        console.write_json({**console.plain(outcome), "choice": rows})
        return
    found: list[tuple[str, object]] = [
        (f"{outcome.metric}, validation", outcome.validation_error),
        ("  with the kernels found", outcome.found_error),
        ("  with its own", outcome.own_error),
        (f"{outcome.metric}, test", outcome.test_error),
    ]
    if outcome.latency_ms is not None:
        found += [
            ("latency, ms", outcome.latency_ms),
            ("from", outcome.low_ms),
            ("to", outcome.high_ms),
        ]
    if outcome.budget_ms is not None:
        words = {True: "kept", False: "not kept", None: "not sure: measure again"}
        found += [("budget, ms", outcome.budget_ms), ("it is", words[outcome.kept])]
    stays = ["It keeps the kernels that it came with: those found do worse."]
    console.show(
        f"{outcome.backbone} for {outcome.task}",
        console.table(("", "<value"), found),
        console.table(
            ("convolution", "kernel", "dilation"),
            [(name, k, d) for name, (k, d) in outcome.choice.items()],
        ),
        console.table(
            ("cost", "<value"),
            [
                *((f"CPU seconds of {part}", took) for part, took in outcome.seconds.items()),
                *((name.replace("_", " "), value) for name, value in outcome.ledger.items()),
            ],
        ),
        *(stays if outcome.is_own and outcome.found_error > outcome.validation_error else []),
        f"Written to {outcome.folder}",
    )
