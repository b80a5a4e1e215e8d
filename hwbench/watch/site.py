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
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hwbench.errors import UsageError
from hwbench.inputs import require_finite
from hwbench.watch import charts
from hwbench.watch.policy import content_policy

if TYPE_CHECKING:
    import jinja2

_TEMPLATES: Final = Path(__file__).with_name("templates")

#: Control characters but tab and newline, which HTML cannot carry, and those that turn the
#: direction of the text that follows.
_CONTROL: Final = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)
#: By which a page that hwbench wrote is known: it stands at the top of ``base.html``.
_MARK: Final = b'<meta name="generator" content="hwbench">'
_HEAD_BYTES: Final = 4096
_PAGE, _DRAFT, _LIBRARY = "index.html", "index.html.tmp", "plotly.min.js"
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
    there before ``index.html`` appears, so a page that exists is whole. UsageError where files of
    somebody else's would be lost, OSError where the folder cannot be written.
    """
    from plotly.offline import get_plotlyjs

    require_own(folder, (_PAGE, _DRAFT, _LIBRARY, *assets))
    library = get_plotlyjs()
    html = render(content_policy(library))
    folder.mkdir(parents=True, exist_ok=True)
    page, draft = folder / _PAGE, folder / _DRAFT
    # First of all: what was interrupted is known as ours by it. A name that is no valid text (a
    # file name's stray bytes) shows as escapes.
    draft.write_text(html, encoding="utf-8", errors="backslashreplace")
    (folder / _LIBRARY).write_text(library, encoding="utf-8")
    for name in assets:
        shutil.copyfile(_TEMPLATES / name, folder / name)
    os.replace(draft, page)
    return page


def require_own(folder: Path, names: Iterable[str]) -> None:
    """UsageError where files of these names are there, and no page that hwbench wrote."""
    found = [name for name in names if (folder / name).exists()]
    if found and not any(map(_is_ours, (folder / _PAGE, folder / _DRAFT))):
        raise UsageError(
            f"{folder} holds {found[0]}, which no earlier report wrote: name another folder "
            "with --out"
        )


def _is_ours(page: Path) -> bool:
    try:
        require_finite(page)
        with page.open("rb") as file:
            return _MARK in file.read(_HEAD_BYTES)
    except OSError:
        return False


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
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), value)


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
