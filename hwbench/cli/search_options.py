"""What the searches for generators share, and what ``generate`` reads as they do."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hwbench import console
from hwbench.cli.options import device_of
from hwbench.errors import UsageError

if TYPE_CHECKING:
    from distributed import Client

    from hwbench.predictors import LatencyPredictor
    from hwbench.search.accuracy.supernet import Elsewhere
    from hwbench.search.ledger import SearchLedger
    from hwbench.spaces import Space

_UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3}
_LATENCY = re.compile(r"([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?) *(us|ms|s)?")

Oracle = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Predictor (.hwp) to ask (default: DEVICE-SPACE.hwp)."),
]
Budgets = Annotated[str, typer.Option(metavar="MS,MS,…", help="Budgets to train on, as 5ms,8ms.")]
Labels = Annotated[int, typer.Option(min=20, metavar="N", help="Accuracy labels to spend.")]
Out = Annotated[
    Path | None,
    typer.Option("-o", "--out", metavar="FILE", help="Default: DEVICE-SPACE.hwg."),
]
On = Annotated[
    str,
    typer.Option("--on", metavar="cpu|cuda|cuda:N", help="What the supernet runs on."),
]

Fleet = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="Hosts of a fleet evaluate the supernet's networks, and train the seeds.",
    ),
]
Seeds = Annotated[
    int,
    typer.Option(
        min=1,
        metavar="N",
        help="Generators to train, from --seed on; the best is kept, and what all have found.",
    ),
]


def require_on_cpu(fleet: str | None, on: str) -> None:
    """UsageError where a fleet is to evaluate what runs on a GPU here: its answers are others."""
    if fleet is not None and on != "cpu":
        raise UsageError("--fleet evaluates networks on CPUs: leave --on out")


@contextmanager
def evaluating(fleet: str | None, tls: Path | None) -> Iterator[tuple[Elsewhere | None, int]]:
    """What evaluates a supernet's networks in the place of this machine, and how many hosts do: a
    fleet's, where there is one.
    """
    if fleet is None:
        yield None, 1
        return
    from hwbench.fleet.computing import hosts_of
    from hwbench.fleet.link import connected
    from hwbench.search.accuracy.afar import accuracies_afar

    with connected(fleet, tls) as client:
        yield partial(accuracies_afar, client), hosts_of(client)


@contextmanager
def training_on(fleet: str | None, tls: Path | None) -> Iterator[Client | None]:
    """A client of the fleet whose hosts train the seeds, where there is one."""
    if fleet is None:
        yield None
        return
    from hwbench.fleet.computing import hosts_of
    from hwbench.fleet.link import connected

    with connected(fleet, tls) as client:
        hosts_of(client)
        yield client


def milliseconds(text: str) -> float:
    """A latency from ``9.3ms``, ``900us``, ``0.01s``, or a plain number of ms; positive."""
    if "," in text:
        raise UsageError(f"budget {text!r}: give one at a time, as --budget 0.15ms --budget 0.2ms")
    found = _LATENCY.fullmatch(text.strip())
    if found is None:
        raise UsageError(f"budget {text!r}: write it as 9.3ms, 900us or 0.01s")
    number, unit = found.groups("ms")
    value = float(number) * _UNITS[unit]
    if not (math.isfinite(value) and value > 0):
        raise UsageError(f"budget {text!r} cannot be kept: give a positive time")
    return value


def all_milliseconds(budgets: str) -> list[float]:
    """The budgets of ``5ms,8ms,12ms``."""
    return [milliseconds(part) for part in budgets.split(",")]


def require_here(
    path: Path, predictor: LatencyPredictor, device: str, options: Sequence[str] | None
) -> None:
    """UsageError where a predictor is of another device, runtime or options than those here."""
    from hwbench.devices.environment import options_of

    place = predictor.meta.provenance
    here = device_of(device, options)
    own = options_of(here, place.threads)
    if here.fingerprint(place.threads).key != place.fingerprint_key:
        raise UsageError(
            f"{path} rests on latencies of another device or runtime ({place.device}, "
            f"{place.runtime}): nothing can be measured on {device} to hold against them"
        )
    for name, value in place.options:
        if dict(own).get(name, value) != value:
            raise UsageError(
                f"{path} rests on latencies with {name}={value}, not {dict(own)[name]}: give "
                f"--option {name}={value}"
            )


def predictor_path(space: str, device: str) -> Path:
    """Where fit writes the predictor of a space on a device."""
    return Path(f"{device}-{space}.hwp")


def predictor_of(path: Path | None, space: Space, device: str) -> LatencyPredictor:
    """The predictor in a file, or in the one that fit writes; UsageError where there is none."""
    from hwbench.predictors import load_predictor

    path = path or predictor_path(space.name, device)
    if not path.exists():
        raise UsageError(
            f"there is no {path} to ask for latencies: make it with hwbench fit -d {device} "
            f"-s {space.name}, or name one with --oracle"
        )
    return load_predictor(path, space=space)


def show_cost(
    title: str, ledger: dict[str, float], range_ms: tuple[float, float], path: Path
) -> None:
    """What a generator cost, which budgets it answers, and where it is."""
    from hwbench.search.answering import rounded

    low, high = range_ms
    least, most = rounded(low, up=True), rounded(high, up=False)
    console.show(
        title,
        console.table(
            ("cost", "<value"), [(name.replace("_", " "), value) for name, value in ledger.items()]
        ),
        f"Budgets from {least} to {most} ms can be kept. Written to {path}",
    )


def by_seed(ledger: SearchLedger, first: int) -> dict[int, float]:
    """What each seed is worth by itself, of a search that had several from ``first`` on."""
    return {first + i: worth for i, worth in enumerate(ledger.by_seed)}


def show_seeds(worth: dict[int, float]) -> None:
    """What each of several seeds would have answered with by itself."""
    if worth:
        told = ", ".join(f"{seed}: {each:.2%}" for seed, each in worth.items())
        console.note(f"mean score of what each seed would answer by itself: {told}")
