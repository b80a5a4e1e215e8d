"""Predictors side by side, as ``fit`` and ``evaluate`` show them, and what has to be said."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from hwbench import console

if TYPE_CHECKING:
    from rich.table import Table

    from hwbench.predictors import LatencyPredictor, Metrics, Provenance, TrainingSet
    from hwbench.predictors.predictor import PredictorMeta
    from hwbench.records import Measurement
    from hwbench.spaces import Space

#: What every predictor has to beat: the name shown, and its family.
BASELINES = {"MACs line": "macs-line", "constant": "constant"}

#: Architectures of a space with which a fit was good on published tables (results/README.md).
ENOUGH = 100

#: Networks whose rank correlation is told, at least.
_RANKED = 8

_COLUMNS = ("", "±5 %", "±10 %", "Spearman", "RMSPE", "90 % holds", "width")


def fit_baselines(
    space: Space, training: TrainingSet, provenance: Provenance, *, seed: int
) -> dict[str, LatencyPredictor]:
    """The baselines, fitted on the same measurements."""
    from hwbench.predictors import fit_predictor

    return {
        name: fit_predictor(space, training, provenance, seed=seed, kind=kind)
        for name, kind in BASELINES.items()
    }


def table(metrics: Mapping[str, Metrics]) -> Table:
    """One row a predictor: shares within 5 and 10 %, rank correlation, error, intervals."""
    return console.table(_COLUMNS, [(name, *_figures(m)) for name, m in metrics.items()])


def table_of_parts(metrics: Mapping[str, Metrics]) -> Table:
    """The same of parts of the networks, a row each, which may be small: with their number."""
    name, *others = _COLUMNS
    rows = [(part, m.n, *_figures(m, _RANKED)) for part, m in metrics.items()]
    return console.table((name, "n", *others), rows)


def _figures(metrics: Metrics, ranked: int = 0) -> tuple[str | float | None, ...]:
    """``ranked``: with fewer networks their order is chance, and not told."""
    return (
        f"{metrics.within_5:.1%}",
        f"{metrics.within_10:.1%}",
        metrics.spearman if metrics.n >= ranked else None,
        f"{metrics.rmspe:.1f}%",
        f"{metrics.coverage_90:.1%}",
        f"{metrics.width_90:.1%}",
    )


def wide(measured: Sequence[Measurement], what: str) -> list[str]:
    """Says how many of the measurements are inconclusive, if any, and ``what`` of it."""
    count = sum(m.status == "inconclusive" for m in measured)
    are = "is" if count == 1 else "are"
    return [f"{count} of the {len(measured)} measurements {are} inconclusive: {what}"] * (count > 0)


def warn(scores: Mapping[str, Metrics], meta: PredictorMeta, command: str) -> None:
    """Say where a line on MACs does as well as a predictor, and what to do about it.

    ``command`` measures more of the same, without its -n.
    """
    name = "MACs line"
    if name not in scores or meta.kind == BASELINES[name]:
        return
    error, plain = scores["predictor"].rmspe, scores[name].rmspe
    if error >= plain:
        console.note(
            f"no better than a {name} (RMSPE {error:.1f}% against {plain:.1f}%): {meta.n_train} "
            f"architectures may be too few, {command} -n {max(ENOUGH, 2 * meta.n_train)} adds more"
        )


def profile_command(
    device: str, space: str, options: Sequence[str], threads: int, store: str | None
) -> str:
    """The command that measures more of the same, without its -n.

    A fleet's device, NAME@HOST, is reached by its kind, which a worker may have named otherwise;
    its options are the worker's.
    """
    name, elsewhere, _ = device.partition("@")
    how = ["--fleet", "ADDRESS", "-d", name.partition(":")[0]] if elsewhere else ["-d", device]
    how += ["-s", space]
    for option in () if elsewhere else options:
        how += ["--option", option]
    if threads > 1:
        how += ["--threads", str(threads)]
    if store is not None:
        how += ["--store", store]
    return shlex.join(["hwbench", "profile", *how])


def note_observed(threads: int) -> None:
    """Say what latencies of several threads are worth."""
    console.note(
        f"measured on {threads} threads: latencies as they were observed, beside whatever ran; no "
        "undisturbed latency is claimed"
    )
