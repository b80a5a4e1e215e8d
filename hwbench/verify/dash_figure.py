"""Figures of the claim about DASH: the map of speed-ups, and how times grow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hwbench.search.dash.operators import FOURIER, PLAIN, RESULTS, WEIGHTS
from hwbench.verify.dash_findings import Line, Measured, speed_up
from hwbench.verify.dash_map import Layer, Row
from hwbench.verify.dash_net import AUTO, RELEASED

_COLOURS = {
    FOURIER: "#0b6e4f",
    RESULTS: "#c1440e",
    WEIGHTS: "#3a6ea5",
    AUTO: "#7b4b94",
    RELEASED: "#8d8d8d",
    PLAIN: "#b8a44c",
}
_UNITS = {
    "taps": "taps of all candidates",
    "length": "places",
    "channels": "channels, in and out",
    "batch": "inputs",
}
_MOST = 16.0


def map_figure(measured: Measured, path: Path) -> None:
    """Heat maps of Fourier's speed-up over the fastest dense form, with the break-even line."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.colors import LinearSegmentedColormap, LogNorm

    dims = sorted({cell.layer.dims for cell, _ in measured})
    rows = {d: list(dict.fromkeys(c.layer for c, _ in measured if c.layer.dims == d)) for d in dims}
    heights = [len(rows[d]) for d in dims]
    figure, axes = plt.subplots(
        len(dims),
        2,
        figsize=(12, 2.4 + 0.32 * sum(heights)),
        squeeze=False,
        height_ratios=heights,
        layout="constrained",
    )
    colours = LinearSegmentedColormap.from_list("", ["#c1440e", "#f7f5f0", "#0b6e4f"])
    norm = LogNorm(1 / _MOST, _MOST)
    for line, d in zip(axes, dims, strict=True):
        for axis, training in zip(line, (False, True), strict=True):
            some = [(c, r) for c, r in measured if (c.layer.dims, c.training) == (d, training)]
            if not some:
                axis.set_axis_off()
                continue
            image = _heat(axis, some, rows[d], colours, norm)
            direction = "forward and backward" if training else "forward"
            axis.set_title(f"{d}D, {direction}", fontsize=10)
            axis.set_yticks(range(len(rows[d])), [layer.label for layer in rows[d]], fontsize=8)
            axis.set_xlabel("kernel sizes × dilations", fontsize=9)
    bar = figure.colorbar(image, ax=axes, location="bottom", aspect=50, shrink=0.6, pad=0.02)
    bar.set_ticks([1 / 16, 1 / 4, 1, 4, 16], labels=["1/16", "1/4", "1", "4", "16"])
    bar.ax.minorticks_off()
    bar.set_label(
        "times faster than the fastest dense form (line: break-even; in brackets: not decided)",
        fontsize=9,
    )
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _heat(axis: Any, measured: Measured, rows: Sequence[Layer], colours: Any, norm: Any) -> Any:
    columns = sorted({cell.i for cell, _ in measured})
    values = np.full((len(rows), len(columns)), np.nan)
    for cell, row in measured:
        at = rows.index(cell.layer), columns.index(cell.i)
        ratio = speed_up(row)
        values[at] = ratio.value
        text = f"{ratio.value:.2g}" if ratio.value < 9.95 else f"{ratio.value:.0f}"
        if ratio.low is not None and ratio.high is not None and ratio.low < 1 < ratio.high:
            text = f"({text})"
        colour = "#222222" if 0.2 < ratio.value < 5 else "white"
        axis.text(at[1], at[0], text, ha="center", va="center", fontsize=8, color=colour)
    image = axis.imshow(np.clip(values, 1 / _MOST, _MOST), cmap=colours, norm=norm, aspect="auto")
    _break_even(axis, values)
    axis.set_xticks(range(len(columns)), [f"{i} × {i}" for i in columns], fontsize=8)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    return image


def _break_even(axis: Any, values: np.ndarray[Any, np.dtype[np.float64]]) -> None:
    """A line between cells that are faster and cells that are slower."""
    style = {"color": "#222222", "lw": 1.8, "solid_capstyle": "butt"}
    faster = values >= 1
    for y, x in np.ndindex(*values.shape):
        if np.isnan(values[y, x]):
            continue
        right, below = (y, x + 1), (y + 1, x)
        if x + 1 < values.shape[1] and values[right] > 0 and faster[y, x] != faster[right]:
            axis.plot([x + 0.5] * 2, [y - 0.5, y + 0.5], **style)
        if y + 1 < values.shape[0] and values[below] > 0 and faster[y, x] != faster[below]:
            axis.plot([x - 0.5, x + 0.5], [y + 0.5] * 2, **style)


def scaling_figure(
    lines: Sequence[Line],
    nets: Sequence[Row],
    memory: Sequence[Mapping[str, Any]],
    path: Path,
) -> None:
    """Times along each axis with their exponents; the network's step; peak memory."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    axes_of = list(dict.fromkeys(line.axis for line in lines))
    height = -(-(len(axes_of) + 2) // 3)
    figure, grid = plt.subplots(
        height, 3, figsize=(12.5, 3.8 * height), squeeze=False, layout="constrained"
    )
    panels = list(grid.flat)
    for panel, name in zip(panels, axes_of, strict=False):
        own = [line for line in lines if line.axis == name]
        for line in own:
            label = f"{line.operator}: {line.fitted:.2f} (derived {line.derived:.2f})"
            ms, colour = np.array(line.ns) / 1e6, _COLOURS[line.operator]
            panel.plot(line.values, ms, "o-", ms=4, lw=1.4, color=colour, label=label)
        panel.set_title(f"a layer over its {name}, with exponents", fontsize=10)
        panel.set_xlabel(_UNITS[name], fontsize=9)
        _logs(panel, sorted({value for line in own for value in line.values}))
        panel.set_ylabel("ms, forward and backward", fontsize=9)
    _net_panel(panels[len(axes_of)], nets)
    _memory_panel(panels[len(axes_of) + 1], memory)
    for panel in panels[len(axes_of) + 2 :]:
        panel.set_axis_off()
    for panel in panels:
        panel.grid(alpha=0.25, lw=0.6)
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(labelsize=8)
        if panel.get_legend_handles_labels()[0]:
            panel.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _logs(panel: Any, values: Sequence[float]) -> None:
    panel.set_xscale("log")
    panel.set_xticks(values, [f"{value:g}" for value in values])
    panel.minorticks_off()
    _plain_logs(panel)


def _plain_logs(panel: Any) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    panel.set_yscale("log")
    panel.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    panel.yaxis.set_minor_locator(NullLocator())
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _net_panel(panel: Any, nets: Sequence[Row]) -> None:
    for name, colour in _COLOURS.items():
        points = [
            (int(row["key"]) ** 2, row["ns"][name] / 1e6) for row in nets if name in row["ns"]
        ]
        if points:
            panel.plot(*zip(*points, strict=True), "o-", ms=4, lw=1.4, color=colour, label=name)
    _logs(panel, sorted({int(row["key"]) ** 2 for row in nets}))
    panel.set_title("a training step of the 1D ResNet", fontsize=10)
    panel.set_xlabel("candidates", fontsize=9)
    panel.set_ylabel("ms", fontsize=9)


def _memory_panel(panel: Any, memory: Sequence[Mapping[str, Any]]) -> None:
    names = list(dict.fromkeys(name for entry in memory for name in entry["mib"]))
    width = 0.8 / max(len(names), 1)
    for k, name in enumerate(names):
        base = name.removesuffix(", cropped")
        values = [entry["mib"].get(name) or 0 for entry in memory]
        places = np.arange(len(memory)) + (k - (len(names) - 1) / 2) * width
        alpha = 1.0 if base == name else 0.5
        panel.bar(places, values, width, color=_COLOURS[base], alpha=alpha, label=name)
    labels = [
        f"{entry['layer']['dims']}D {entry['kernels_and_dilations']} × "
        f"{entry['kernels_and_dilations']}"
        for entry in memory
    ]
    panel.set_xticks(range(len(memory)), labels)
    _plain_logs(panel)
    low, high = panel.get_ylim()
    panel.set_ylim(low, high * (high / low) ** 0.5)  # room for the legend
    panel.set_title("peak memory of a layer's training run", fontsize=10)
    panel.set_ylabel("MiB", fontsize=9)
