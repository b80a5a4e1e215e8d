"""Scripts for a device's sh, and the reading of what they print.

Argument lists are quoted once, here, where they leave for the device: serials, file names and
properties are somebody else's text, and so is all that comes back.
"""

from __future__ import annotations

import re
import secrets
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

_BEGIN = re.compile(r"^([0-9a-f]{32}) begin 0\r?$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Section:
    """One command of a block that ran to its end; ``text`` is both of its streams."""

    index: int
    code: int
    text: str


def clean(text: str, most: int = 80) -> str:
    """A device's text, made fit for a message or a record: one line, printable, and short."""
    return "".join(c if c.isprintable() else " " for c in text).strip()[:most]


def block_script(commands: Sequence[Sequence[str]]) -> str:
    """One script that runs argument lists one after the other, whatever becomes of each.

    On a phone the launches that belong together run in one such script: a round trip between
    them would let it cool down, or be noticed by its governor.
    """
    token = secrets.token_hex(16)
    lines = []
    for i, arguments in enumerate(commands):
        lines.append(f"echo {token} begin {i}")
        lines.append(f"{shlex.join(arguments)} 2>&1 </dev/null")
        lines.append(f"printf '\\n%s end {i} %s\\n' {token} $?")
    return "\n".join(lines)


def split_block(output: str) -> tuple[Section, ...]:
    """The commands of a :func:`block_script` that ended, out of its output, however that was cut.

    The block's token is on the first line, which no command could have written.
    """
    begin = _BEGIN.search(output)
    if begin is None:
        return ()
    token = begin[1]
    section = re.compile(
        rf"^{token} begin (\d+)\r?\n(.*?)\r?\n{token} end \1 (\d+)\r?\n", re.MULTILINE | re.DOTALL
    )
    found = section.finditer(output, begin.start())
    return tuple(Section(int(m[1]), int(m[3]), m[2]) for m in found)
