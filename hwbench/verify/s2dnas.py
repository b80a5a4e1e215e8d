"""Is a network in stages faster on this device at the same accuracy, and faster than a narrow one?

Networks of three families are trained on a part of Fashion-MNIST, each with several seeds, and
handed to the search; :mod:`hwbench.verify.s2dnas_trial` has one row. In the end all networks of a
row answer the same test images in turns, on the wall clock.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import hwbench
from hwbench.errors import TORCH_MISSING, UnknownNameError, UsageError
from hwbench.records import Verdict, digest
from hwbench.verify.frame import Claim, Setting, over_seeds

if TYPE_CHECKING:
    from hwbench.search.data import Dataset
    from hwbench.verify.s2dnas_trial import Extent

Array = NDArray[np.float64]
Row = Mapping[str, Any]

FASTER_BAR, LOST_BAR, FAMILIES_BAR = 1.8, 0.5, 2
#: Names of networks in a row; narrowed ones are called by their width.
STATIC, OWN, BRANCHED = "static", "s2dnas", "exits on the unsplit"
PREDICTED_BAR, SEARCH_SECONDS, ABOVE_BAR = 0.07, 360.0, 0.2


class S2dnas(Claim):
    """Early exits in stages of channels, against all that else makes a network faster."""

    name = "s2dnas"
    in_parts = True
    text = (
        "S2DNAS turns a trained network into one in stages that answers images one by one in at "
        "most 1/1.8 of the time (mean, wall clock) at no more than half a point of accuracy lost, "
        "for two of three families of networks, after at most 6 minutes of search"
    )
    protocol = (
        "networks like VGG, ResNet-20 and MobileNetV2 and 10,000 images of Fashion-MNIST, without "
        "augmentation; all learn twice, for as many steps at the same rates: from labels, then "
        "from labels and the answers that the network given has after its first time; narrowed "
        "ones from random weights, the static one on by itself, those in stages and with exits on "
        "the unsplit one from the network given; the static one that counts is the better on "
        "validation images of before and after its second time; thresholds by validation images; "
        "all deployed alike, timed in turns on test images; a search's seconds are its processor's "
        "and, while the device measures, the clock's"
    )

    def run(self, setting: Setting) -> list[Verdict]:
        """Hours of one core, and some minutes of measuring. Resumes where it was."""
        if find_spec("torch") is None:
            return [self.verdict("not testable here", {"reason": TORCH_MISSING})]
        extent, data = prepared(setting)
        rows = []
        places = chosen_places(setting, extent)
        for i, (family, seed) in enumerate(places):
            part = _part(setting, 0.9 * i / len(places), 0.9 / len(places))
            rows.append(kept_row(part, data, extent, family, seed))
        if setting.prepare:
            return []
        for i, row in enumerate(rows):
            setting.progress("measuring", 0.9 + 0.1 * i / len(rows))
            rows[i] = {**row, "latency": kept_latency(setting, data, extent, row)}
        from hwbench.verify.s2dnas_figure import s2dnas_figure

        figure = setting.folder / "s2dnas.png"
        s2dnas_figure(rows, figure)
        evidence = {
            "quick": setting.quick,
            "data": extent.data,
            **summarise(rows, extent.plan.points),
        }
        return self.verdicts(STATEMENTS, evidence, figure)


def _part(setting: Setting, start: float, share: float) -> Setting:
    return replace(
        setting, progress=lambda what, done: setting.progress(what, start + share * done)
    )


# --- what is kept ---------------------------------------------------------------------------------


def prepared(setting: Setting) -> tuple[Extent, Dataset]:
    """How much is done, and on what; the data's validation part is cut to what searches use."""
    from hwbench.search.data import load_dataset
    from hwbench.verify.s2dnas_trial import extent_of

    extent = extent_of(setting.quick)
    try:
        data = load_dataset(extent.data)
    except UsageError as error:
        raise UsageError(f"{error}; or test the claim on digits, with --quick") from None
    return extent, replace(data, validation=data.validation.some(5000, 0))


def chosen_places(setting: Setting, extent: Extent) -> list[tuple[str, int]]:
    """Families and seeds of the rows, the first seed's first. UsageError for a part that is none
    of them."""
    seeds = range(setting.seed, setting.seed + extent.seeds)
    places = {f"{family}-{seed}": (family, seed) for seed in seeds for family in extent.families}
    for part in setting.parts:
        if part not in places:
            raise UnknownNameError("part of s2dnas", part, tuple(places))
    return [place for name, place in places.items() if name in (setting.parts or places)]


def kept_row(
    setting: Setting, data: Dataset, extent: Extent, family: str, seed: int
) -> dict[str, Any]:
    """The row of a family and a seed: from its folder, or run and kept there. Where ``setting``
    only prepares, it is trained and empty."""
    from hwbench.search.s2dnas import on_device
    from hwbench.verify.s2dnas_trial import run_trial

    folder = _folder(setting, data, extent, family, seed)
    path = folder / "row.json"
    if not path.exists():
        measurer = on_device(setting.device, setting.store)
        made = run_trial(
            family, seed, data, extent, measurer, folder, setting.progress, setting.prepare
        )
        if made is None:
            return {}
        _keep(path, made)
    row: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return row


def kept_latency(setting: Setting, data: Dataset, extent: Extent, row: Row) -> list[dict[str, Any]]:
    """Latency of a row's networks: from its folder, or measured now and kept there."""
    from hwbench.verify.s2dnas_trial import measured

    folder = _folder(setting, data, extent, row["family"], row["seed"])
    path = folder / "latency.json"
    if not path.exists():
        _keep(path, measured(row, data, extent, folder))
    found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _folder(setting: Setting, data: Dataset, extent: Extent, family: str, seed: int) -> Path:
    """Another one for other data, another extent, another version or another device."""
    from hwbench.devices.environment import environment_of

    device = environment_of(setting.device)
    about = digest([asdict(extent), data.digest, hwbench.__version__, device])[:8]
    return setting.folder / f"s2dnas-{about}" / f"{family}-{seed}"


def _keep(path: Path, content: object) -> None:
    from hwbench.predictors.files import replace_file

    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, json.dumps(content, indent=1).encode())


# --- the bars -------------------------------------------------------------------------------------


def summarise(rows: Sequence[Row], points: float) -> dict[str, Any]:
    """Figures, and what each bar says, of rows with their latencies; own thresholds for so many
    points lost on validation images are those that count."""
    families = {name: [row for row in rows if row["family"] == name] for name in _names(rows)}
    by_family = {name: _family(own, points) for name, own in families.items()}
    reached = [
        f["times_faster"] >= FASTER_BAR and f["points_lost"] <= LOST_BAR for f in by_family.values()
    ]
    errors = [_chosen(row, points)["predicted_error"] for row in rows]
    seconds = [row["seconds"] for row in rows]
    methods = {m: _against(rows, m, points) for m in ("random", "evolution", "nsga2")}
    needed = min(FAMILIES_BAR, len(families))
    return {
        "bars": {
            f"{FASTER_BAR} times faster, at most {LOST_BAR} points lost: {needed} families": (
                sum(reached) >= needed
            ),
            f"predicted mean within {PREDICTED_BAR:.0%} of the measured, undisturbed": (
                max(map(abs, errors)) <= PREDICTED_BAR
            ),
            f"a search takes at most {SEARCH_SECONDS:.0f} s": max(seconds) <= SEARCH_SECONDS,
            "no less accurate than narrowed networks at any latency that both have": all(
                _reaches(f["least_above_narrowed"], 0) for f in by_family.values()
            ),
            f"{ABOVE_BAR} points above the best rival at equal latency for one": any(
                _reaches(f["points_above_rivals"], ABOVE_BAR) for f in by_family.values()
            ),
            "the controller's splits are faster than random search's": (
                methods["random"][0] - methods["random"][1] > 0
            ),
            "the controller's splits are faster than evolution's": (
                methods["evolution"][0] - methods["evolution"][1] > 0
            ),
            "p99 by measured stages no longer than the static network's": all(
                _reaches(f["faster_p99_by_stages"], 1) for f in by_family.values()
            ),
        },
        "rows": len(rows),
        "points_lost_on_validation": points,
        "families": by_family,
        "predicted_error_mean": round(float(np.mean(np.abs(errors))), 4),
        "predicted_error_worst": round(float(max(errors, key=abs)), 4),
        "search_seconds": [round(s) for s in seconds],
        "controller_faster_pct": {m: _finite(mean) for m, (mean, _) in methods.items()},
        "controller_half_width_95": {m: _finite(half) for m, (_, half) in methods.items()},
        "trials": [_trial(row, points) for row in rows],
    }


def _names(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row["family"] for row in rows))


def _family(rows: Sequence[Row], points: float) -> dict[str, Any]:
    """What the seeds of a family say, on average."""
    chosen = [_chosen(row, points) for row in rows]

    def mean(name: str) -> float | None:
        known = [each[name] for each in chosen if not math.isnan(each[name])]
        return _finite(float(np.mean(known))) if known else None

    above, half = over_seeds(np.array([each["above_rivals"] for each in chosen]))
    names = (
        "times_faster",
        "points_lost",
        "times_fewer_macs",
        "ms",
        "static_ms",
        "above_narrowed",
    )
    return {
        **{name: mean(name) for name in names},
        **{
            name: mean(name)
            for name in (*_FASTER, "faster_p99_by_stages", "above_unsplit", "faster_8")
        },
        "points_above_rivals": _finite(above),
        "half_width_95": _finite(half),
        "least_above_narrowed": _finite(least_above(rows)),
    }


def _finite(value: float) -> float | None:
    """For a file: rounded; None where nothing is known."""
    return round(value, 4) if math.isfinite(value) else None


def _reaches(value: float | None, bar: float) -> bool:
    return value is not None and value >= bar


def _chosen(row: Row, points: float) -> dict[str, float]:
    """The network in stages at the thresholds that count, beside the static one and its rivals."""
    at = _at(row, points)
    network, latency = row["networks"][at], row["latency"][at]
    static, of_static = row["networks"][0], row["latency"][0]
    ms = latency["one"]["mean"]
    above = {
        which: 100 * (network["accuracy"] - rival_accuracy(row, ms, which))
        for which in ("narrowed", "unsplit")
    }
    return {
        "ms": ms,
        "static_ms": of_static["one"]["mean"],
        "times_faster": latency["one"]["faster"],
        "points_lost": 100 * (static["accuracy"] - network["accuracy"]),
        "times_fewer_macs": static["macs"] / network["macs"],
        "predicted_error": foreseen_ms(row, network) / latency["one"]["undisturbed"] - 1,
        **{
            name: of_static["one"][figure] / latency["one"][figure]
            for name, figure in _FASTER.items()
        },
        "above_narrowed": above["narrowed"],
        "above_unsplit": above["unsplit"],
        "above_rivals": min((a for a in above.values() if not math.isnan(a)), default=math.nan),
        "faster_p99_by_stages": row["static_ms"] / slowest_ms(row, network),
        "faster_8": latency["many"]["faster"],
    }


def foreseen_ms(row: Row, network: Row) -> float:
    """Mean latency of a network in stages as its stages and validation images promise it."""
    return float(network["stages_ms"] + np.dot(network["expected"], row["answering_ms"]))


def slowest_ms(row: Row, network: Row) -> float:
    """What an image takes in a network in stages that leaves where the 99th of a hundred test
    images does, by measured stages."""
    stage = int(np.searchsorted(np.cumsum(network["exits"]), 0.99))
    return float(sum(row["costs_ms"][: stage + 1]) + row["answering_ms"][stage])


def _at(row: Row, points: float) -> int:
    """Place of the network in stages at these thresholds; where none keep within, of the most
    accurate ones."""
    own = [i for i, each in enumerate(row["networks"]) if each["name"] == OWN]
    exact = [i for i in own if row["networks"][i]["points"] == points]
    return (exact or own)[0]


def rival_accuracy(row: Row, ms: float, which: str) -> float:
    """Accuracy that rivals of one kind have at a mean latency, between two of them in its log.

    More accurate ones that are faster stand in for slower ones. Not a number below the fastest.
    """
    found = sorted(
        (latency["one"]["mean"], each["accuracy"])
        for each, latency in zip(row["networks"], row["latency"], strict=True)
        if kind_of(each["name"]) == which or (which == "narrowed" and each["name"] == STATIC)
    )
    times, accuracy = map(np.array, zip(*found, strict=True))
    best = np.maximum.accumulate(accuracy)
    return float(np.interp(math.log(ms), np.log(times), best, left=math.nan))


def kind_of(name: str) -> str:
    """``narrowed``, ``unsplit``, or the name itself."""
    return {BRANCHED: "unsplit"}.get(name, "narrowed" if name.startswith("width") else name)


def least_above(rows: Sequence[Row]) -> float:
    """Least points that the network in stages is above narrowed ones: the mean of the seeds at each
    of its thresholds that are as fast as some narrowed network in every one."""
    by_points: dict[float, list[float]] = {}
    for row in rows:
        for each, latency in zip(row["networks"], row["latency"], strict=True):
            rival = rival_accuracy(row, latency["one"]["mean"], "narrowed")
            if each["name"] == OWN and not math.isnan(rival):
                by_points.setdefault(each["points"], []).append(100 * (each["accuracy"] - rival))
    means = [float(np.mean(found)) for found in by_points.values() if len(found) == len(rows)]
    return min(means, default=-math.inf)


def _against(rows: Sequence[Row], method: str, points: float) -> tuple[float, float]:
    """By how many per cent the controller's best is faster than a method's, and the half of the
    95 % interval over rows, of those in which both lose no more points than they may."""
    both = [(row["methods"]["controller"], row["methods"][method]) for row in rows]
    faster = [
        100 * math.log(other["latency_ms"] / own["latency_ms"])
        for own, other in both
        if max(own["lost"], other["lost"]) <= points
    ]
    return over_seeds(np.array(faster)) if faster else (math.nan, math.inf)


def _trial(row: Row, points: float) -> dict[str, Any]:
    """A row in short: what the table and the figure are made of."""
    return {
        **{name: row[name] for name in _TOLD},
        **{name: _finite(value) for name, value in _chosen(row, points).items()},
        "networks": [
            {
                **{name: each[name] for name in ("name", "points", "accuracy", "macs", "exits")},
                "ms": {
                    name: round(latency["one"][name], 5)
                    for name in ("mean", "low", "high", *_FASTER.values())
                },
                "ms_of_8": round(latency["many"]["mean"], 5),
            }
            for each, latency in zip(row["networks"], row["latency"], strict=True)
        ],
    }


_FASTER = {f"faster_{n}": n for n in ("undisturbed", "p50", "p90", "p99")}
_TOLD = (
    "family",
    "seed",
    "given_validation",
    "static_validation",
    "split",
    "costs_ms",
    "answering_ms",
    "left",
    "methods",
)

#: What each verdict rests on: statements beside the claim's own, and their bars by place.
STATEMENTS = (
    (None, slice(0, 3)),
    (
        "S2DNAS is more accurate than networks narrowed in all layers and than early exits on the "
        "unsplit network at equal measured latency",
        slice(3, 5),
    ),
    (
        "the controller of S2DNAS finds faster splits than random search and evolution at equal "
        "evaluations",
        slice(5, 7),
    ),
    (
        "the slowest of a hundred images take no longer in stages than in the static network",
        slice(7, 8),
    ),
)
