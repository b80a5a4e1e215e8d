"""A folder with a page in it: rendered from a template, opened from disk, offline.

Text and tables are rendered here, charts are drawn by the browser once they are scrolled to. Names
of models and facts of a device are hostile input: every value is escaped by the template, and the
content security policy lets nothing run but the script files beside the page.
"""

from __future__ import annotations

import math
import os
import re
import shutil
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hwbench.errors import UsageError
from hwbench.watch import charts
from hwbench.watch.policy import content_policy

if TYPE_CHECKING:
    import jinja2

_TEMPLATES: Final = Path(__file__).with_name("templates")

#: What tells our pages from others'.
MARK: Final = b'<meta name="generator" content="hwbench">'
#: Control characters but tab and newline, which HTML cannot carry, and those that turn the
#: direction of what follows, by which a name could show as another.
_CONTROL: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)
_NOT_DEFINED: Final = "–"
_WORDS: Final = {
    "1min": "1 min",
    "c": "°C",
    "cpu": "CPU",
    "id": "ID",
    "kb": "kB",
    "mhz": "MHz",
    "smt": "SMT",
}


def write_site(render: Callable[[str], str], assets: Sequence[str], folder: Path) -> Path:
    """Write a page and the files beside it into ``folder``, and return the page's path.

    ``render`` is given the content security policy and answers the page's HTML. Everything is
    there before ``index.html`` appears, so a page that exists is whole. OSError where the folder
    cannot be written, UsageError where its page is somebody else's.
    """
    from plotly.offline import get_plotlyjs

    library = get_plotlyjs()
    html = render(content_policy(library))
    _require_own(folder / "index.html")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plotly.min.js").write_text(library, encoding="utf-8")
    for name in assets:
        shutil.copyfile(_TEMPLATES / name, folder / name)
    page = folder / "index.html"
    half_written = folder / "index.html.tmp"
    # A name that is no valid text (a file name's stray bytes) shows as escapes.
    half_written.write_text(html, encoding="utf-8", errors="backslashreplace")
    os.replace(half_written, page)
    return page


def _require_own(page: Path) -> None:
    """UsageError where a page stands that no hwbench has written."""
    if page.is_file():
        with page.open("rb") as file:
            if MARK not in file.read(4096):
                raise UsageError(f"{page} was not written by hwbench: name another folder")


def environment() -> jinja2.Environment:
    """The templates, with the filters that they use."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_visible,
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    environment.filters |= {
        "brief": charts.brief,
        "date": _date,
        "duration": _duration,
        "figure": _figure,
        "label": _label,
        "millions": _millions,
        "percent": _percent,
        "unbroken": _unbroken,
    }
    return environment


def _visible(value: object) -> object:
    """A plain string with its control characters as escapes; all else as it is."""
    if type(value) is not str:  # markup is ours, and escaped already
        return value
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], value)


def _figure(value: float | None, digits: int = 3) -> str:
    """A number to so many significant digits, without an exponent; an integer as it is."""
    if isinstance(value, int):
        return f"{value:,}"
    if value is None or not math.isfinite(value):
        return _NOT_DEFINED
    whole = math.floor(math.log10(abs(value))) + 1 if value else 1
    return f"{value:,.{max(0, digits - whole)}f}"


def _percent(share: float | None, decimals: int = 1) -> str:
    if share is None or not math.isfinite(share):
        return _NOT_DEFINED
    return f"{100 * share:.{decimals}f}\N{NO-BREAK SPACE}%"


def _millions(count: int) -> str:
    return f"{count / 1e6:,.0f}\N{NO-BREAK SPACE}M"


def _duration(seconds: float) -> str:
    """As a person says it: ``3.4 s``, ``48 s``, ``4 min 52 s``."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _date(iso: str) -> str:
    """As ``31 January 2026, 12:00 UTC``."""
    moment = datetime.fromisoformat(iso)
    return f"{moment.day} {moment:%B %Y, %H:%M} {moment.tzname() or ''}".rstrip()


def _unbroken(text: str) -> str:
    """A number and its unit stay on one line."""
    return re.sub(r"(?<=\d) (?=%|ms)", "\N{NO-BREAK SPACE}", text)


def _label(name: str) -> str:
    """A fact's name for a reader: ``cpu_model`` is ``CPU model``."""
    words = " ".join(_WORDS.get(word, word) for word in name.split("_"))
    return words[:1].upper() + words[1:]
