"""The content security policy of our pages: nothing runs or loads but the files beside them."""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Final

#: Style sheets that a script carries as text, to be put into the page's head.
_STYLE_TEXT: Final = re.compile(r"\.textContent='([^'\\]*)'")


def content_policy(library: str) -> str:
    """The policy of a page that draws with this script, as one line.

    Scripts are files, never inline. Plotly styles its charts through an empty style element,
    which it fills rule by rule, and adds one style sheet (its maps') as text: these two are let
    in by their hashes, so that no other inline style is. Whether ``'self'`` covers a page's
    neighbours on disk differs between browsers, hence ``file:``.
    """
    styles = " ".join(_source(text) for text in ("", *_STYLE_TEXT.findall(library)))
    return "; ".join(
        (
            "default-src 'none'",
            "script-src 'self' file:",
            f"style-src 'self' file: {styles}",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )


def _source(text: str) -> str:
    """The source expression that allows an inline element of exactly this content."""
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
