"""The table of faults names tests that exist, and exit codes that are those of the errors."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from hwbench import errors

TESTS = Path(__file__).resolve().parents[1]


def rows() -> list[list[str]]:
    """The cells of each row: fault, what is kept, what is seen, exit code, tests."""
    lines = (TESTS / "faults" / "README.md").read_text().splitlines()
    cells = [
        [c.strip() for c in line.strip("| ").split(" | ")] for line in lines if line[:1] == "|"
    ]
    return [row for row in cells if row[0] != "fault" and set(row[0]) - set("-| ")]


@cache
def names_in(file: Path) -> set[str]:
    """The names of a file's tests, as pytest has them."""
    found = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}::{f.name}" for f in node.body if isinstance(f, ast.FunctionDef)}
        elif isinstance(node, ast.FunctionDef):
            found.add(node.name)
    return found


@pytest.mark.parametrize("row", [pytest.param(row, id=row[0]) for row in rows()])
def test_a_row_is_what_the_tests_say(row: list[str]) -> None:
    assert len(row) == 5
    assert all(row)
    named = re.findall(r"`(\S+?)::(test_\w+|Test\w+::test_\w+)`", row[4])
    assert len(named) == len(row[4].split())
    for file, test in named:
        assert test in names_in(TESTS / file)
    code, _, name = row[3].partition(" ")
    if name:
        assert getattr(errors, name.strip("`")).exit_code == int(code)
        texts = [(TESTS / file).read_text() for file, _ in named]
        assert any(re.search(rf"\b{name.strip('`')}\b", text) for text in texts)
    else:
        assert int(code) in (0, errors.EXIT_USAGE, 130, 137)


def test_there_are_rows() -> None:
    assert len(rows()) > 40
