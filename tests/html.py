"""A strict reader of pages, for tests of what they are made of."""

from __future__ import annotations

import itertools
import json
import re
from html.parser import HTMLParser

VOID = {"img", "input", "link", "meta"}


class Page(HTMLParser):
    """A strict reading of a page: every element closed in turn, attributes and texts kept."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(html)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), f"attribute twice in {tag}"
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> out of turn"

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((self.open[-1] if self.open else "", data))

    @property
    def text(self) -> str:
        """All that a reader sees, white space made one."""
        seen = (text for tag, text in self.texts if tag not in {"script", "style"})
        return " ".join(" ".join(seen).split())

    def of(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def data(self) -> list[dict[str, object]]:
        return [json.loads(text) for tag, text in self.texts if tag == "script"]

    def references(self) -> int:
        """Check ids and headings; how many references there are.

        Ids are unique and every reference finds its element; headings descend a level at a time.
        """
        ids = [attributes["id"] for _, attributes in self.elements if "id" in attributes]
        assert len(ids) == len(set(ids))
        named = ("aria-labelledby", "aria-describedby", "data-chart")
        wanted = [a[name] for _, a in self.elements for name in named if name in a]
        inside = [a["href"][1:] for a in self.of("a") if a["href"].startswith("#")]
        assert set(wanted + inside) <= set(ids)
        levels = [int(tag[1]) for tag, _ in self.elements if re.fullmatch("h[1-6]", tag)]
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
        return len(wanted + inside)

    def files(self) -> set[str]:
        """Check that no script or style is inline, and nothing active; the files it refers to."""
        for tag, attributes in self.elements:
            assert tag not in {"style", "iframe", "object", "embed", "base"}
            assert not [name for name in attributes if name == "style" or name.startswith("on")]
        for script in self.of("script"):
            assert script.get("type") == "application/json" or set(script) == {"src", "defer"}
        found = {a[name] for _, a in self.elements for name in ("src", "href") if name in a}
        return {source for source in found if not source.startswith("#")} - {"data:,"}
