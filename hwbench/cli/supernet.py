"""``hwbench supernet``: train the weights of every architecture of a space at once."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hwbench import console
from hwbench.cli.options import Debug, Json, Seed, SpaceName, choices, require_folder
from hwbench.cli.profile import pinned

if TYPE_CHECKING:
    from hwbench.search.data import Dataset
    from hwbench.search.supernet import Progress, Supernet, TrainingCost
    from hwbench.spaces import Space

_STEPS = 3000
_REPORTS = 40

Data = Annotated[
    str,
    typer.Option(
        metavar="NAME|FOLDER|FILE",
        help="Images: digits, fashion-mnist (or fashion-mnist:FOLDER), a folder with one of images "
        "for each class, or an .npz file with the arrays x (n, h, w) or (n, c, h, w), uint8 or "
        "float, y (n,) of integers from 0, and if you like is_test (n,) and class_names.",
    ),
]
_Out = Annotated[
    Path | None, typer.Option("-o", "--out", metavar="FILE", help="Default: SPACE.pt.")
]
_Steps = Annotated[int, typer.Option(min=1, metavar="N", help="Steps to train for.")]
_Fix = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=VALUE", help="Train paths with this value of a decision alone."),
]
_Threads = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Threads to train on (default: all cores, which is slow where others need them: give "
        "as many as are idle).",
    ),
]
_On = Annotated[
    str, typer.Option("--on", metavar="cpu|cuda|cuda:N", help="What to train on: cpu, or a GPU.")
]
_Tasks = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Groups of classes (.json), of which steps take some."),
]


def supernet(
    space: SpaceName,
    data: Data,
    out: _Out = None,
    steps: _Steps = _STEPS,
    fix: _Fix = None,
    tasks: _Tasks = None,
    on: _On = "cpu",
    threads: _Threads = None,
    seed: Seed = 0,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Train a supernet: one set of weights that gives the accuracy of every architecture.

    It is saved as it goes; the same command goes on where it was stopped, on another device too.
    Then search takes it as its source of accuracy, with --supernet.

    Example:

    hwbench supernet -s mbv3_small --data fashion-mnist --fix r=28 -o fashion.pt
    """
    from hwbench.spaces import get_space

    trained = get_space(space)
    path = out or Path(f"{space}.pt")
    require_folder(path)
    fixed = pinned(trained, choices("--fix", fix or ()))
    with console.waiting("loading torch and the images"):
        import torch

        from hwbench.devices.cuda.stream import device_errors
        from hwbench.search.eas.tasks import read_tasks, task_dropout
        from hwbench.search.supernet import (
            Supernet,
            TrainingPlan,
            steps_done,
            train,
            training_device,
        )

        if threads is not None:
            torch.set_num_threads(threads)
        net = Supernet(trained, seed).to(training_device(on))
        images = images_of(trained, data)
        groups = None if tasks is None else read_tasks(tasks, images.name, images.classes)
        before = steps_done(path, net) if path.exists() else 0
    if 0 < before < steps:
        console.note(f"{path} was trained for {before} of {steps} steps: going on from there")
    try:
        with device_errors(), console.stages(clock=False) as report:
            if sys.stderr.isatty():  # elsewhere an error stays one line
                report("training", before / steps)
            cost = train(
                net,
                images,
                TrainingPlan(steps, seed=seed, fixed=fixed),
                checkpoint=path,
                tasks=None if groups is None else task_dropout(groups),
                progress=lambda now: report(_told(now), now.step / now.steps),
                report_every=max(1, steps // _REPORTS),
            )
    except KeyboardInterrupt:
        kept = f"{path} keeps what was done, the same command goes on from there"
        raise KeyboardInterrupt(kept if path.exists() else "nothing was saved yet") from None
    with device_errors():
        _show(path, net, images, cost, as_json=as_json)


def images_of(space: Space, data: str) -> Dataset:
    """The images of a name, file or folder, with the channels that networks of a space take, and
    of their size.
    """
    from hwbench.search.data import load_dataset
    from hwbench.search.supernet.net import image_size
    from hwbench.spaces.mbv3 import MobileNetV3Space

    if not isinstance(space, MobileNetV3Space):
        return load_dataset(data)
    skeleton = space.skeleton
    return load_dataset(data, size=image_size(skeleton.resolutions), channels=skeleton.in_channels)


def _told(now: Progress) -> str:
    left = round(now.seconds_left)
    return f"loss {now.loss:.3f}, accuracy {now.accuracy:.3f}, {left // 60}:{left % 60:02} left"


def _show(path: Path, net: Supernet, images: Dataset, cost: TrainingCost, *, as_json: bool) -> None:
    import numpy as np

    from hwbench.search.accuracy.supernet import SupernetAccuracy
    from hwbench.search.supernet import largest, smallest

    source = SupernetAccuracy(net, images)
    ends = np.stack([end(net.space, source.fixed) for end in (smallest, largest)])
    accuracy = dict(zip(("smallest", "largest"), source.accuracy(ends).tolist(), strict=True))
    if as_json:
        console.write_json(
            {
                "supernet": path,
                "space": net.space.name,
                "data": images.name,
                "fixed": source.fixed,
                "steps": cost.steps,
                "seconds": cost.seconds,
                "accuracy": accuracy,
            }
        )
        return
    console.show(
        f"{net.space.name} on {images.name}: {cost.steps} steps in {cost.seconds:.0f} s",
        console.table(("path", "accuracy on validation images"), accuracy.items()),
        f"Written to {path}",
    )
