"""The typer application: which verbs there are, in the order of use."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated

import typer

import hwbench
from hwbench import console
from hwbench.cli.bench import bench
from hwbench.cli.compare import compare
from hwbench.cli.demo import demo
from hwbench.cli.devices import devices
from hwbench.cli.doctor import doctor
from hwbench.cli.evaluate import evaluate
from hwbench.cli.export import export
from hwbench.cli.fit import fit
from hwbench.cli.fleet import scheduler, status, worker
from hwbench.cli.gate import GateGroup, calibrate, check
from hwbench.cli.generate import generate
from hwbench.cli.importing import import_
from hwbench.cli.kernels import kernels
from hwbench.cli.log import log, merge
from hwbench.cli.predict import predict
from hwbench.cli.profile import profile
from hwbench.cli.report import report
from hwbench.cli.search_dash import dash
from hwbench.cli.search_eas import eas
from hwbench.cli.search_pnag import pnag
from hwbench.cli.search_s2dnas import s2dnas
from hwbench.cli.spaces import spaces
from hwbench.cli.suggest import suggest
from hwbench.cli.supernet import supernet
from hwbench.cli.top import top
from hwbench.cli.verify import verify

app = typer.Typer(
    name="hwbench",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

_MEASURE, _PREDICT, _SEARCH = "Measure", "Predict", "Search"
_PROVE, _WATCH, _DATA = "Prove", "Watch", "Results"


def _help_of(verb: Callable[..., None]) -> str:
    """A verb's docstring, a line each paragraph: typer would keep the source's line ends."""
    paragraphs = inspect.cleandoc(verb.__doc__ or "").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


for _verb, _name, _panel in (
    (doctor, "doctor", _MEASURE),
    (devices, "devices", _MEASURE),
    (spaces, "spaces", _MEASURE),
    (bench, "bench", _MEASURE),
    (profile, "profile", _MEASURE),
    (suggest, "suggest", _PREDICT),
    (fit, "fit", _PREDICT),
    (evaluate, "evaluate", _PREDICT),
    (kernels, "kernels", _PREDICT),
    (predict, "predict", _PREDICT),
    (supernet, "supernet", _SEARCH),
    (generate, "generate", _SEARCH),
    (compare, "compare", _WATCH),
    (report, "report", _WATCH),
    (log, "log", _WATCH),
    (top, "top", _WATCH),
    (verify, "verify", _PROVE),
    (demo, "demo", _PROVE),
    (export, "export", _DATA),
    (import_, "import", _DATA),
):
    app.command(_name, rich_help_panel=_panel, help=_help_of(_verb))(_verb)

search = typer.Typer(no_args_is_help=True)
for _method, _name in ((pnag, "pnag"), (eas, "eas"), (s2dnas, "s2dnas"), (dash, "dash")):
    search.command(_name, help=_help_of(_method))(_method)
app.add_typer(
    search,
    name="search",
    rich_help_panel=_SEARCH,
    help="Train a generator that answers any budget, cut a network into stages, or choose its "
    "kernels.\n\nExample:\n\n"
    "hwbench search pnag -s mbv3_small -d cpu --budgets MS1,MS2 -o cpu.hwg",
)


gate = typer.Typer(cls=GateGroup, no_args_is_help=True)
for _check, _name in ((check, "check"), (calibrate, "calibrate")):
    gate.command(_name, help=_help_of(_check))(_check)
app.add_typer(
    gate,
    name="gate",
    rich_help_panel=_WATCH,
    help="Fail on a latency regression, and on nothing else.\n\nExample:\n\n"
    "hwbench gate model.onnx --baseline origin/main",
)


fleet = typer.Typer(no_args_is_help=True)
for _part, _name in ((scheduler, "scheduler"), (worker, "worker"), (status, "status")):
    fleet.command(_name, help=_help_of(_part))(_part)
app.add_typer(
    fleet,
    name="fleet",
    rich_help_panel=_MEASURE,
    help="Many devices on many hosts: lend them, see who has which.\n\nExample:\n\n"
    "hwbench fleet worker tcp://127.0.0.1:8786 --devices cpu",
)


store = typer.Typer(no_args_is_help=True)
store.command("merge", help=_help_of(merge))(merge)
app.add_typer(
    store,
    name="store",
    rich_help_panel=_DATA,
    help="Join the stores of several machines.\n\nExample:\n\nhwbench store merge laptop.db",
)


def _version(wanted: bool) -> None:
    if wanted:
        console.write_text(f"hwbench {hwbench.__version__}\n")
        raise typer.Exit


@app.callback()
def hwbench_(
    version: Annotated[
        bool,
        typer.Option("--version", metavar="", callback=_version, is_eager=True, help="Say which."),
    ] = False,
) -> None:
    """Measure, predict and keep a latency budget on your own device.

    Example:

    hwbench bench model.onnx -d cpu
    """
