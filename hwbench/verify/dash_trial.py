"""One trial of DASH's search: a task and a seed; the fixed network, what is found, and rivals.

All are tuned and trained alike: the same learning rates and decays, steps, samples. Kernels at
random and by evolution are searched for as many CPU seconds as DASH took. The test's samples are
read when all of them are trained.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from hwbench.search.dash import (
    DashPlan,
    FitPlan,
    Task,
    Tuning,
    backbone_for,
    decoded,
    load_task,
    make_task,
)
from hwbench.search.dash.rivals import RIVALS, search_by
from hwbench.search.dash.search import DashSearch
from hwbench.search.dash.training import mean_error
from hwbench.search.dash.tuning import Finished, finish

Tell = Callable[[str, float], None]

#: Files of the tasks with data of others, and those that need none.
TASKS = {"semg": "semg_myo.npz", "fsdd": "fsdd.npz", "darcy": "darcy16.npz"}
MADE = ("mnist1d", "digits")
#: Of a frame of sound, every so many samples, so many bands.
_FRAME, _HOP, _BANDS = 256, 64, 32


@dataclass(frozen=True, slots=True)
class Extent:
    """How much is done: steps of search, of each hyper-parameter's trial, of the last training.

    ``candidate_steps`` is what a rival's candidate is trained for before it is judged.
    """

    seeds: int = 3
    relaxed: int = 200
    tuning: Tuning = field(default_factory=lambda: Tuning(steps=40))
    final: int = 400
    candidate_steps: int = 40

    def plan(self, task: Task, seed: int) -> DashPlan:
        """For one task: 64 samples a step, fewer where there are few."""
        batch = 64 if len(task.train) >= 4000 else 32 if len(task.train) >= 1000 else 20
        return DashPlan(
            relaxed=FitPlan(self.relaxed, batch),
            final=FitPlan(self.final, batch),
            tuning=self.tuning,
            seed=seed,
        )


def task_of(name: str, tables: Path | None, seed: int) -> Task:
    """The task of a name; its parts are drawn by the seed. Those of files lie in ``tables``."""
    if name in MADE or tables is None:
        return load_task(name, seed=seed)
    path = tables / TASKS[name]
    if name != "fsdd":
        return load_task(str(path), seed=seed)
    with np.load(path, allow_pickle=False) as file:
        sound, labels, is_test = (np.array(file[key]) for key in ("x", "y", "is_test"))
    frames = np.lib.stride_tricks.sliding_window_view(sound.astype(np.float32), _FRAME, axis=1)
    spectra = np.abs(np.fft.rfft(frames[:, ::_HOP] * np.hanning(_FRAME), axis=2)[:, :, 1:]) ** 2
    bands = spectra.reshape(*spectra.shape[:2], _BANDS, -1).mean(axis=3)
    x = np.log(bands + 1).transpose(0, 2, 1)
    return make_task(name, x, labels, is_test, dims=1, seed=seed)


def width_of(task: Task) -> float:
    """16 channels in 1D; half of WRN-16-1's in 2D, which two cores train in a minute."""
    return 16 if task.dims == 1 else 0.5


def run_trial(
    task: Task, seed: int, extent: Extent, folder: Path, progress: Tell
) -> dict[str, Any]:
    """The row of a trial: errors on the test's samples, and CPU seconds, by method.

    Kept in ``folder`` are the search's own checkpoints: it goes on where it was.
    """
    backbone, plan = backbone_for(task, width=width_of(task)), extent.plan(task, seed)
    final = replace(plan.final, seed=seed)
    search = DashSearch(backbone, task, folder / "search", plan, progress)
    search.relax()
    choice = search.decode()
    seconds = search.seconds["search"]
    found: dict[str, dict[str, Any]] = {"dash": {"search_seconds": seconds, "choice": choice}}
    nets: dict[str, Finished] = {"dash": search.finish(choice)}
    nets["fixed"] = finish(backbone.trained, task, final, plan.tuning, None, progress)
    found["fixed"] = {"search_seconds": 0.0}
    short = replace(final, steps=extent.candidate_steps)
    for rival in RIVALS:
        best = search_by(
            rival,
            backbone.searched,
            task,
            search.candidates,
            short,
            seconds,
            seed,
            lambda share, rival=rival: progress(rival, share),  # type: ignore[misc]
        )
        net = decoded(backbone.trained, best.choice)
        nets[rival] = finish(net, task, final, plan.tuning, None, progress)
        found[rival] = {
            "search_seconds": best.seconds,
            "choice": best.choice,
            "judged": best.judged,
        }
    test = task.test_for_the_final_report()
    methods = {
        name: {**found[name], **_finished(each), "test_error": mean_error(each.net, task, test)}
        for name, each in nets.items()
    }
    return {
        "task": task.name,
        "seed": seed,
        "metric": task.metric,
        "backbone": f"{backbone.name}, width {width_of(task):g}",
        "candidates": sum(len(pairs) for pairs in search.candidates.values()),
        "extent": asdict(extent),
        "methods": methods,
    }


def _finished(each: Finished) -> Mapping[str, Any]:
    return {
        "validation_error": each.error,
        "learning_rate": each.plan.learning_rate,
        "weight_decay": each.plan.weight_decay,
        "tuning_seconds": each.tuning_seconds,
        "training_seconds": each.training_seconds,
    }
