"""The options that several verbs share, and the parsers of those that need one."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hwbench.errors import GraphError, UsageError

if TYPE_CHECKING:
    from hwbench.devices.base import Device
    from hwbench.predictors import Sources
    from hwbench.spaces import Space
    from hwbench.store import Store


def _debug(context: typer.Context, value: bool) -> bool:
    if value:
        context.find_root().obj.debug = True
    return value


def _devices() -> list[str]:
    from hwbench.devices import device_names

    return list(device_names())


def _spaces() -> list[str]:
    from hwbench.spaces import space_names

    return list(space_names())


Json = Annotated[
    bool, typer.Option("--json", metavar="", help="Print one JSON document, not tables.")
]
Debug = Annotated[
    bool,
    typer.Option(
        "--debug",
        metavar="",
        callback=_debug,
        is_eager=True,
        help="Show an error's traceback.",
    ),
]
Shapes = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=SIZES", help="Shape of an input left open, as x=1,3,224,224."),
]
StoreUrl = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="PATH|URL",
        help="Results store (default: HWBENCH_STORE, else the clone's, else the user's).",
    ),
]
DeviceName = Annotated[
    str,
    typer.Option(
        "-d", "--device", metavar="NAME", help="Device, as cpu or cuda:1.", autocompletion=_devices
    ),
]
DeviceOptions = Annotated[
    list[str] | None,
    typer.Option("--option", metavar="NAME=VALUE", help="An option of the device."),
]
SpaceName = Annotated[
    str,
    typer.Option(
        "-s",
        "--space",
        metavar="NAME",
        help="Search space: hwbench spaces lists them.",
        autocompletion=_spaces,
    ),
]
AnyDevice = Annotated[
    str | None,
    typer.Option("-d", "--device", metavar="NAME", help="Only of this device."),
]
AnySpace = Annotated[
    str | None,
    typer.Option(
        "-s", "--space", metavar="NAME", help="Only of this space.", autocompletion=_spaces
    ),
]
Session = Annotated[str | None, typer.Option(metavar="ID", help="Only of this session.")]
Since = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="Only from this time on, as 2026-01-31T08:00+00:00."),
]
Threads = Annotated[int, typer.Option(min=1, metavar="N", help="Threads of the runtime.")]
Cores = Annotated[
    str | None,
    typer.Option(metavar="LIST", help="Cores to run on, as 0,2-3 (default: all allowed)."),
]
Seed = Annotated[int, typer.Option(min=0, metavar="N", help="Seed of all random choices.")]
SourceFiles = Annotated[
    str | None,
    typer.Option(
        "--sources",
        metavar="FILE,FILE,…",
        help="Predictors (.hwp) of other devices, to learn from with few measurements.",
    ),
]
Confidence = Annotated[
    float,
    typer.Option(metavar="P", help="Probability that the upper bound holds, between 0 and 1."),
]


@contextmanager
def opened(url: str | None, *, create: bool = True) -> Iterator[Store]:
    """The results store at ``url``, or the default one; closed at the end."""
    from hwbench.store import Store

    with Store.open(url, create=create) as store:
        yield store


@contextmanager
def told_of(file: Path) -> Iterator[None]:
    """Name the file that architectures come from in what is wrong with them."""
    try:
        yield
    except GraphError as error:
        raise UsageError(f"{file}: {error}") from None


def require_folder(path: Path) -> None:
    """UsageError where a file cannot be written: it is a folder, or has none that takes files."""
    if path.is_dir():
        raise UsageError(f"{path} is a folder: name a file in it")
    if not path.parent.is_dir():
        raise UsageError(f"{path}: there is no folder {path.parent}: make it first")
    # A file is replaced by a whole one, so its folder is written to; a device itself is.
    written = path if path.exists() and not path.is_file() else path.parent
    if not os.access(written, os.W_OK):
        raise UsageError(f"{path}: {written} cannot be written: name a file elsewhere")


def require_inputs(out: Path, *inputs: Path | None) -> None:
    """UsageError where one of the inputs given is not there, or is what ``out`` would replace."""
    given = [path for path in inputs if path is not None]
    require_apart(out, *given)
    for path in given:
        if not path.exists():
            raise UsageError(f"cannot read {path}: there is no such file")


def require_apart(out: Path, *others: Path) -> None:
    """UsageError where a file to write is one of these, which would be lost."""
    if os.path.realpath(out) in map(os.path.realpath, others):
        raise UsageError(f"{out} is read here, and would be replaced: name another file with --out")


def shapes(texts: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """Input shapes from ``name=1,3,224,224`` (a scalar: ``name=``).

    Raises:
        UsageError: a text is not of that form, a size is not positive, or a name comes twice.
    """
    parsed: dict[str, tuple[int, ...]] = {}
    for text in texts:
        name, equals, sizes = text.rpartition("=")
        if not equals or not name:
            raise UsageError(f"shape {text!r}: write it as name=1,3,224,224")
        if name in parsed:
            raise UsageError(f"shape of {name!r} is given twice")
        parsed[name] = tuple(_positive(size, text) for size in sizes.split(",")) if sizes else ()
    return parsed


def _positive(size: str, text: str) -> int:
    if re.fullmatch(r"\d+([x×*;: ]\d+)+", size):
        raise UsageError(f"shape {text!r}: separate the sizes by commas, as 1,3,224,224")
    if not (size.strip().isascii() and size.strip().isdigit()) or int(size) == 0:
        raise UsageError(f"shape {text!r}: {size!r} is not a positive whole number")
    return int(size)


def core_list(text: str | None) -> tuple[int, ...] | None:
    """Core numbers from ``0,2-3``, in ascending order; ``None`` stays ``None``.

    Raises:
        UsageError: the text is not a list of numbers and ascending ranges.
    """
    if text is None:
        return None
    cores: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        ends = (first, last if dash else first)
        if not all(end.isascii() and end.isdigit() and len(end) <= 4 for end in ends):
            raise UsageError(f"cores {text!r}: {part!r} is neither a core nor a range such as 2-3")
        low, high = map(int, ends)
        if low > high:
            raise UsageError(f"cores {text!r}: the range {part!r} runs backwards")
        cores.update(range(low, high + 1))
    return tuple(sorted(cores))


def device_of(name: str, options: Iterable[str] | None) -> Device:
    """The device of a name with its options."""
    from hwbench.devices import get_device

    return get_device(name, choices("--option", options or ()))


def choices(flag: str, texts: Iterable[str]) -> dict[str, str]:
    """Choices from ``name=value``, as ``flag`` was given them.

    Raises:
        UsageError: a text is not of that form, or a name comes twice.
    """
    parsed: dict[str, str] = {}
    for text in texts:
        name, _, value = text.partition("=")
        if not name or not value:
            raise UsageError(f"{flag} {text!r}: write it as name=value")
        if name in parsed:
            raise UsageError(f"{flag} {name!r} is given twice")
        parsed[name] = value
    return parsed


def sources_of(space: Space, given: str | None) -> Sources | None:
    """What the predictor files of ``--sources`` know of a space; ``None`` where none is given.

    Raises:
        UsageError: a file is named twice.
        PredictorError: a file is no predictor of that space.
    """
    from hwbench.predictors import load_predictor, predicted_sources

    paths = [] if given is None else listed("--sources", given)
    loaded = {path: load_predictor(path, space=space) for path in paths}
    return predicted_sources(space, loaded) if loaded else None


def listed(flag: str, text: str) -> list[str]:
    """The parts of ``a,b,c``.

    Raises:
        UsageError: one is empty or comes twice.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(parts) or len(set(parts)) < len(parts):
        raise UsageError(f"{flag} {text!r}: write names with commas between them, each once")
    return parts


def lines(arguments: Iterable[str], file: Path | None) -> list[str]:
    """Texts from the arguments and from a file's non-empty lines (``-``: standard input).

    Raises:
        UsageError: there is none, or the file is not text.
    """
    texts = list(arguments)
    if file is not None:
        try:
            text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise UsageError(f"{file} is not a text file") from None
        texts += [line.strip() for line in text.splitlines() if line.strip()]
        if not texts:
            empty = "standard input" if str(file) == "-" else file
            raise UsageError(f"{empty} names no architecture: give one a line")
    if not texts:
        raise UsageError("no architecture given: name one, or a file of them with --file")
    return texts
