"""What ``--option NAME=VALUE`` says to a device: texts in, a frozen dataclass out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from hwbench.errors import UnknownNameError, UsageError

T = TypeVar("T")

_SWITCH = {"true": True, "on": True, "yes": True, "false": False, "off": False, "no": False}


def parse_options(kind: type[T], texts: Mapping[str, str]) -> T:
    """An options dataclass from texts; what is not given keeps its default.

    Its fields are ``bool``, ``int``, ``str`` or a ``Literal`` of texts.

    Raises:
        UnknownNameError: there is no such option.
        UsageError: a value is none of the option's.
    """
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    hints = get_type_hints(kind)
    values: dict[str, Any] = {}
    for name, text in texts.items():
        if name not in known:
            raise UnknownNameError("option", name, known)
        values[name] = _value(name, text, hints[name])
    return kind(**values)


def says(text: str, label: str) -> bool:
    """Whether an option's text asks for what a label tells: a switch has several words for each."""
    if text == label:
        return True
    one, other = (_SWITCH.get(each.lower()) for each in (text, label))
    return one is not None and one == other


def _value(name: str, text: str, hint: Any) -> bool | int | str:
    if hint is bool:
        if text.lower() not in _SWITCH:
            raise UsageError(f"option {name}={text!r}: say on or off")
        return _SWITCH[text.lower()]
    if hint is int:
        if not (text.isascii() and text.isdigit() and len(text) <= 18):
            raise UsageError(f"option {name}={text!r}: give a whole number")
        return int(text)
    if get_origin(hint) is Literal:
        if text not in get_args(hint):
            raise UsageError(f"option {name}={text!r}: it is one of {', '.join(get_args(hint))}")
        return text
    return text
