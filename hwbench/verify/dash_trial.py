"""One trial of DASH's search: a task and a seed; the fixed network, what is found, and rivals.

All are tuned and trained alike: the same learning rates and decays, steps, samples. Kernels at
random and by evolution are searched for as many CPU seconds as DASH took. The test's samples are
read when a method's network is trained, and decide nothing.
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
from hwbench.search.dash.rivals import RIVALS, Found, Rival, search_by
from hwbench.search.dash.search import DashSearch
from hwbench.search.dash.swap import Candidates
from hwbench.search.dash.training import mean_error
from hwbench.search.dash.tuning import Finished, finish

Tell = Callable[[str, float], None]

#: Files of the tasks with data of others, and those that need none.
TASKS = {"semg": "semg_myo.npz", "fsdd": "fsdd.npz", "darcy": "darcy16.npz"}
MADE = ("mnist1d", "digits")
#: The methods of a trial, in the order in which they are run.
FIXED = "fixed"
METHODS = ("dash", FIXED, *RIVALS)
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
    final: int = 1000
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


class Trial:
    """One task and one seed: what each method reaches, one after the other.

    Kept in ``folder`` are the search's own checkpoints: it goes on where it was.
    """

    def __init__(self, task: Task, seed: int, extent: Extent, folder: Path, progress: Tell) -> None:
        self._task, self._seed, self._extent = task, seed, extent
        self._folder, self._progress = folder, progress
        self._plan = extent.plan(task, seed)
        self._backbone = backbone_for(task, width=width_of(task))

    def about(self) -> dict[str, Any]:
        """What the methods of a trial have in common."""
        return {
            "task": self._task.name,
            "seed": self._seed,
            "metric": self._task.metric,
            "backbone": f"{self._backbone.name}, width {width_of(self._task):g}",
            "extent": asdict(self._extent),
        }

    def row(self, method: str, seconds: float) -> dict[str, Any]:
        """Errors and CPU seconds of one method; a rival searches for ``seconds``."""
        folder = self._folder / method
        search = DashSearch(self._backbone, self._task, folder, self._plan, self._progress)
        found: dict[str, Any] = {"search_seconds": 0.0}
        if method == "dash":
            search.relax()
            choice = search.decode()
            found = {"search_seconds": search.seconds["search"], "choice": choice}
        elif method in RIVALS:
            best = self._rival(method, search.candidates, seconds)
            choice = best.choice
            found = {"search_seconds": best.seconds, "choice": choice, "judged": best.judged}
        net = self._backbone.trained if method == FIXED else decoded(self._backbone.trained, choice)
        final = replace(self._plan.final, seed=self._seed)
        each = finish(net, self._task, final, self._plan.tuning, folder, self._progress)
        test = self._task.test_for_the_final_report()
        return {**found, **_finished(each), "test_error": mean_error(each.net, self._task, test)}

    def _rival(self, name: Rival, candidates: Candidates, seconds: float) -> Found:
        short = replace(self._plan.final, seed=self._seed, steps=self._extent.candidate_steps)
        return search_by(
            name,
            self._backbone.searched,
            self._task,
            candidates,
            short,
            seconds,
            self._seed,
            lambda share: self._progress(name, share),
        )


def _finished(each: Finished) -> Mapping[str, Any]:
    return {
        "validation_error": each.error,
        "learning_rate": each.plan.learning_rate,
        "weight_decay": each.plan.weight_decay,
        "tuning_seconds": each.tuning_seconds,
        "training_seconds": each.training_seconds,
    }
