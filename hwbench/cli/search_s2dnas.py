"""``hwbench search s2dnas``: turn a trained network into one that easy inputs leave early."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from hwbench import console
from hwbench.cli.options import listed, opened
from hwbench.errors import UsageError

if TYPE_CHECKING:
    from hwbench.devices.base import Device
    from hwbench.search.data import Dataset
    from hwbench.search.s2dnas import Outcome, SplitPlan, StaticNet


@dataclass(frozen=True)
class SplitNeeds:
    """What this search rests on and spends; None where the default is to be taken.

    ``mean`` and ``std`` are lists of numbers as text, one for each channel.
    """

    model: str | None
    weights: Path | None
    data: str | None
    method: str | None
    stages: int | None
    groups: int | None
    evaluations: int | None
    points: float | None
    size: int | None
    mean: str | None
    std: str | None

    def options(self) -> Mapping[str, object]:
        """Those that no other search knows, by their flags."""
        return {
            f"--{name}": value
            for name, value in vars(self).items()
            if name != "data" and value is not None
        }

    def plan(self, seed: int) -> SplitPlan:
        """The plan that they ask for."""
        from hwbench.search.s2dnas import SplitPlan

        names = ("method", "stages", "groups", "evaluations", "points")
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        mean, std = (_numbers(f"--{name}", getattr(self, name)) for name in ("mean", "std"))
        return SplitPlan(**given, mean=mean, std=std, seed=seed)


def search_splits(
    device: Device,
    folder: Path,
    needs: SplitNeeds,
    seed: int,
    store: str | None,
    as_json: bool,
) -> None:
    """Search, write the network found into a folder and show it beside the user's own."""
    from hwbench.search.data import load_dataset
    from hwbench.search.s2dnas import on_device, search_s2dnas, trace
    from hwbench.search.s2dnas.loading import load_module
    from hwbench.search.s2dnas.search import MEASURING

    if needs.model is None or needs.weights is None or needs.data is None:
        raise UsageError(
            "search s2dnas needs --model FILE.py:FUNCTION (which builds the network), --weights "
            "FILE (.pt or .npz, its state dict) and --data NAME (images as it was trained on)"
        )
    plan = needs.plan(seed)
    module = load_module(needs.model, needs.weights)
    # Images in files of their own are grey or in colour as the first convolution reads them.
    channels = next((p.shape[1] for p in module.parameters() if p.dim() == 4), 1)
    data = load_dataset(needs.data, size=needs.size or 28, channels=channels)
    net = trace(module, data.train.images.shape[1:])
    try:
        with opened(store) as results, console.stages() as report:
            outcome = search_s2dnas(
                net,
                data,
                on_device(device, results, progress=partial(report, MEASURING)),
                folder,
                plan,
                device=device.fingerprint(1).key,
                runtime="litert" if device.suffix == ".tflite" else "onnxruntime",
                progress=report,
            )
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"{folder} keeps what was done, the same command goes on from there"
        ) from None
    _show(outcome, net, data, device.name, plan.points, as_json=as_json)


def _numbers(flag: str, text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(part) for part in listed(flag, text))
    except ValueError:
        raise UsageError(f"{flag} {text!r}: give a number for each channel, as .5,.5,.5") from None


def _show(
    outcome: Outcome,
    net: StaticNet,
    data: Dataset,
    device: str,
    points: float,
    *,
    as_json: bool,
) -> None:
    lost = 100 * (outcome.static_accuracy - outcome.accuracy)
    if not outcome.within:
        console.note(
            f"no thresholds keep within {points:g} points: {lost:.2f} are lost at the most "
            "accurate; search longer, or for fewer --stages"
        )
    if outcome.latency_ms >= outcome.static_ms:
        console.note("the network found is no faster than the one given: do not use it")
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
