"""Figure of the claim about S2DNAS: accuracy over measured latency, with all rivals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hwbench.verify.s2dnas import BRANCHED, OWN, STATIC, kind_of

_STYLES = {
    OWN: ("#0b6e4f", "o-", "in stages (S2DNAS)"),
    "narrowed": ("#3a6ea5", "s--", "narrowed in all layers"),
    "unsplit": ("#c1440e", "^--", BRANCHED),
    STATIC: ("#333333", "*", "static"),
}
#: Ticks of a decade of milliseconds.
_TICKS = (1, 1.5, 2, 3, 4, 6)


def s2dnas_figure(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """A panel for each family; every point the mean over its seeds."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

    families = list(dict.fromkeys(row["family"] for row in rows))
    figure, axes = plt.subplots(1, len(families), figsize=(4.2 * len(families), 4.2), squeeze=False)
    for axis, family in zip(axes[0], families, strict=True):
        own = [row for row in rows if row["family"] == family]
        for kind, (colour, style, label) in _STYLES.items():
            points = _points(own, kind)
            axis.plot(*points.T, style, ms=5, lw=1, color=colour, label=label)
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=_TICKS))
        axis.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.set_title(f"{family}, {len(own)} seed{'s' * (len(own) != 1)}", fontsize=9)
        axis.set_xlabel("mean latency of an image on the wall clock, ms", fontsize=9)
        axis.grid(alpha=0.25, lw=0.6)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0, 0].set_ylabel("accuracy on test images, %", fontsize=9)
    shown = axes[0, 0].get_legend_handles_labels()
    figure.legend(*shown, frameon=False, fontsize=8, loc="upper center", ncols=len(_STYLES))
    figure.tight_layout(rect=(0, 0, 1, 0.94))
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _points(rows: Sequence[Mapping[str, Any]], kind: str) -> np.ndarray[Any, Any]:
    """(ms, accuracy in per cent) of a kind's networks (n, 2), fastest first: means over the rows
    that have them."""
    found: dict[tuple[str, float | None], list[tuple[float, float]]] = {}
    for row in rows:
        for each, latency in zip(row["networks"], row["latency"], strict=True):
            if kind_of(each["name"]) == kind:
                point = (latency["one"]["mean"], 100 * each["accuracy"])
                found.setdefault((each["name"], each["points"]), []).append(point)
    means = [np.mean(points, axis=0) for points in found.values()]
    return np.array(sorted(means, key=lambda point: float(point[0]))).reshape(-1, 2)
