"""What a person sees: tables that fit 80 columns, progress with time left, one-line errors.

Results go to standard output, all else to standard error. Colours and moving bars appear on a
terminal only. Names come from files and devices, so control characters in them are shown as
escapes, and nothing is read as markup.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import select
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TextIO

if TYPE_CHECKING:  # rich takes 50 ms to import: --json and shell completion go without it
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
    from rich.table import Table

#: Called with the share of the work that is done, 0 to 1, while something long goes on.
Report = Callable[[float], None]

#: The same for work of several stages: called with the stage's label and its share.
StageReport = Callable[[str, float], None]

_PLAIN_PERIOD_S = 10.0
_GAP = 2
#: Text that is not folded, and the longest name in a table with texts below its rows.
_SHORT_TEXT, _LONGEST_NAME = 12, 32


class ClosedPipeError(Exception):
    """Whoever read our standard output has gone, as in ``hwbench ... | head``."""


# --- results ------------------------------------------------------------------------------


def write_json(value: object) -> None:
    """Write ``value`` as one JSON document to standard output."""
    _write(json.dumps(plain(value), indent=2, allow_nan=False) + "\n")


def write_text(text: str) -> None:
    """Write ``text`` to standard output as it is."""
    _write(text)


def show(*parts: RenderableType) -> None:
    """Show tables and lines of text on standard output, an empty line after each table."""
    console = _console(sys.stdout)
    for part in parts:
        if isinstance(part, str):
            console.print(printable(part), style="bold")
        else:
            console.print(part, crop=False)
            console.print()


def show_anew(screen: Callable[[], RenderableType], period_s: float) -> NoReturn:
    """Show what ``screen`` answers, again every period, until somebody interrupts.

    A terminal has it in place, and keeps the last one; elsewhere one follows the other.
    """
    if not sys.stdout.isatty():
        while True:
            show(screen())
            time.sleep(period_s)
    from rich.live import Live

    now = screen()
    try:
        with Live(console=_console(sys.stdout), screen=True, auto_refresh=False) as live:
            while True:
                live.update(now, refresh=True)
                time.sleep(period_s)
                now = screen()
    finally:
        show(now)


def flush() -> None:
    """Flush standard output, so that a full disk or a closed pipe shows here and not at exit."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        closed_pipe()


def settle() -> None:
    """Flush standard output after an error; give up what it does not take, a full disk's say."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        _give_up()


def is_read() -> bool:
    """Whether standard output has a reader still: one that went away leaves an error on a pipe."""
    try:
        ends = select.poll()
        ends.register(sys.stdout.fileno(), 0)
    except (OSError, ValueError):  # no file of the system's
        return True
    return not any(event & select.POLLERR for _, event in ends.poll(0))


def plain(value: object) -> Any:
    """``value`` in JSON's own types; a number that JSON can't hold (NaN, infinity) is null."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else None
        case Mapping():
            return {str(key): plain(item) for key, item in value.items()}
        case PurePath():
            return str(value)
        case Iterable():
            tolist = getattr(value, "tolist", None)  # numpy's arrays
            return plain(tolist()) if tolist else [plain(item) for item in value]
        case _ if dataclasses.is_dataclass(value) and not isinstance(value, type):
            names = [field.name for field in dataclasses.fields(value)]
            return {name: plain(getattr(value, name)) for name in names}
    item = getattr(value, "item", None)  # numpy's scalars
    if item is None:
        raise TypeError(f"{type(value).__name__} has no JSON form")
    return plain(item())


# --- tables -------------------------------------------------------------------------------


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, folds: bool = True) -> Table:
    """A table whose first column is a name and whose others are figures, set to the right.

    A column whose heading starts with ``<`` holds text instead. Cells may be strings, numbers
    (shown with four significant digits) or ``None`` (shown as a dash). Where the columns are too
    few, long text and headings are folded over several lines, unless it never ``folds``. Nothing is
    cut: on a very narrow terminal a table is the wider one, and its lines go on in the next.
    """
    from rich import box
    from rich.cells import cell_len
    from rich.table import Table

    class WholeTable(Table):
        def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
            room = max(options.max_width, narrowest)
            return super().__rich_console__(console, options.update_width(room))

    shown = [[cell(value) for value in row] for row in rows]
    made = WholeTable(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, _GAP, 0, 0),
    )
    narrowest = 0
    for position, heading in enumerate(columns):
        is_text = position == 0 or heading.startswith("<")
        title = printable(heading.removeprefix("<"))
        widest = max((cell_len(row[position]) for row in shown), default=0)
        full = max(widest, cell_len(title))
        cells = min(widest, _SHORT_TEXT) if is_text else widest
        least = max(cells, *map(cell_len, title.split() or [""])) if folds else full
        justify: Literal["left", "right"] = "left" if is_text else "right"
        made.add_column(
            title, justify=justify, overflow="fold", no_wrap=least == full, min_width=least
        )
        narrowest += least + _GAP + 1  # the box's own
    for row in shown:
        made.add_row(*row)
    return made


def show_above(columns: Sequence[str], rows: Sequence[Sequence[object]], texts: list[str]) -> None:
    """Show a table, and below each row its text on a line of its own: it can be copied.

    The names in the table are short: of a long one the middle is cut. A text that does not fit the
    width goes on in the next line, after a blank, a comma or a plus.
    """
    short = [
        [shortened(printable(v), _LONGEST_NAME) if isinstance(v, str) else v for v in row]
        for row in rows
    ]
    made, console = table(columns, short, folds=False), _console(sys.stdout)
    with console.capture() as captured:
        console.print(made, crop=False)
    heading, rule, *shown = (line.rstrip() for line in captured.get().splitlines())
    below = [
        f"{row}\n{_folded(printable(text), console.width)}"
        for row, text in zip(shown, texts, strict=True)
    ]
    _write("\n".join([heading, rule, *below]) + "\n\n")


def _folded(text: str, width: int) -> str:
    """Text in lines of at most ``width``, broken between words alone."""
    lines = [""]
    for word in re.split(r"(?<=[ ,+])", text):
        if lines[-1] and len(lines[-1]) + len(word.rstrip()) > width:
            lines.append("")
        lines[-1] += word
    return "\n".join(line.rstrip() for line in lines)


def cell(value: object) -> str:
    """One value as a table shows it."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return significant(value)
    return printable(str(value))


def significant(value: float, digits: int = 4) -> str:
    """``value`` with that many significant digits: 0.01234, 1.234, 1,234.

    With an exponent from 1e9 on, 1.234e+09, for which a table has room.
    """
    if not math.isfinite(value):
        return "-"
    if value == 0:
        return "0"
    if abs(value) >= 1e9:
        return f"{value:.{digits - 1}e}"
    decimals = digits - 1 - math.floor(math.log10(abs(value)))
    return f"{value:,.{max(decimals, 0)}f}"


def counted(number: int, noun: str) -> str:
    """``1 architecture``, ``2 architectures``."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def shortened(text: str, width: int) -> str:
    """``text`` in at most so many characters, its beginning and end around an ellipsis."""
    if len(text) <= width:
        return text
    end = (width - 1) // 2
    return f"{text[: width - 1 - end]}…{text[len(text) - end :]}"


def printable(text: str) -> str:
    r"""``text`` on one line, what a terminal would obey shown as an escape (``\x1b``)."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


# --- notes, errors, progress --------------------------------------------------------------


def note(text: str) -> None:
    """Say something beside the result, on standard error; a terminal has it broken at blanks."""
    _console(sys.stderr).print(printable(text), style="dim", soft_wrap=not sys.stderr.isatty())


def error(text: str) -> None:
    """Say in one line what went wrong, on standard error."""
    line = f"hwbench: {' '.join(text.split())}"
    if sys.stderr.isatty():
        _console(sys.stderr).print(printable(line), style="red", soft_wrap=True)
    else:
        _line(line)


@contextmanager
def progress(label: str) -> Iterator[Report]:
    """Show how far something long has come and how long it will take, on standard error.

    Yields the function to call with the share done. On a terminal that moves a bar, which goes
    when the work is done; elsewhere it writes a line now and then.
    """
    with stages() as report:
        yield lambda share: report(label, share)


@contextmanager
def waiting(label: str) -> Iterator[None]:
    """Show on a terminal what goes on, while that is not known to take long; elsewhere nothing."""
    if not sys.stderr.isatty():
        yield
        return
    with _console(sys.stderr).status(printable(label)):
        yield


@contextmanager
def stages(*, clock: bool = True) -> Iterator[StageReport]:
    """As :func:`progress`, for work of several stages: a new label starts a new one.

    Without ``clock`` a bar shows no time left: the labels say it.
    """
    if not sys.stderr.isatty():
        yield _PlainStages()
        return
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
    from rich.progress import TimeRemainingColumn as TimeLeft

    parts = (
        TextColumn("{task.description}", markup=False),
        BarColumn(24),
        TaskProgressColumn(),
        *([TimeLeft()] if clock else []),
    )
    with Progress(*parts, console=_console(sys.stderr), transient=True) as bars:
        bar, current = None, None

        def report(label: str, share: float) -> None:
            nonlocal bar, current
            if bar is None or label != current:
                if bar is not None:
                    bars.remove_task(bar)
                bar, current = bars.add_task(printable(label), total=1), label
            bars.update(bar, completed=share)

        yield report


class _PlainStages:
    """Progress where nothing can move: whole lines, and not many of them."""

    def __init__(self) -> None:
        self._label: str | None = None
        self._began = self._last = 0.0

    def __call__(self, label: str, share: float) -> None:
        now = time.monotonic()
        if label != self._label:
            self._label, self._began, self._last = label, now, now
            _line(f"{label} ...")
        elif now - self._last >= _PLAIN_PERIOD_S and 0 < share < 1:
            self._last = now
            left_s = round((now - self._began) * (1 - share) / share)
            _line(f"{label}: {share:.0%}, {left_s // 60}:{left_s % 60:02} left")


def _line(text: str) -> None:
    sys.stderr.write(f"{printable(text)}\n")
    sys.stderr.flush()


# --- streams ------------------------------------------------------------------------------


def _write(text: str) -> None:
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        closed_pipe()


def closed_pipe() -> NoReturn:
    """Give up standard output: its reader has gone."""
    _give_up()
    raise ClosedPipeError


def _give_up() -> None:
    # Python flushes standard output once more at exit; that must not fail again.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _console(stream: TextIO) -> Console:
    from rich.console import Console

    class PipeAwareConsole(Console):
        def on_broken_pipe(self) -> None:
            closed_pipe()

    return PipeAwareConsole(file=stream, markup=False, highlight=False, emoji=False)
