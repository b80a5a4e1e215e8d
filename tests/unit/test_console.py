"""What the console writes: valid JSON always, tables of 80 columns, nothing faked by a name."""

from __future__ import annotations

import dataclasses
import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwbench import console

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
documents = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20
)


@given(st.text(max_size=60), st.integers(3, 30))
def test_a_shortened_text_keeps_its_ends(text: str, width: int) -> None:
    short = console.shortened(text, width)
    assert len(short) == min(len(text), width)
    if len(text) > width:
        end = (width - 1) // 2
        assert short[width - 1 - end] == "…"
        assert text.startswith(short[: width - 1 - end])
        assert text.endswith(short[width - end :])


@pytest.mark.parametrize(("number", "said"), [(0, "0 nets"), (1, "1 net"), (1200, "1,200 nets")])
def test_things_are_counted(number: int, said: str) -> None:
    assert console.counted(number, "net") == said


@given(documents)
def test_any_document_becomes_strict_json(document: object) -> None:
    text = json.dumps(console.plain(document), allow_nan=False)
    assert json.loads(text) == console.plain(document)


def test_records_arrays_and_scalars_become_plain() -> None:
    @dataclasses.dataclass(frozen=True)
    class Record:
        path: Path
        times: tuple[float, ...]

    value = {
        "record": Record(Path("a/b"), (1.5, float("nan"))),
        "array": np.arange(4, dtype=np.int16).reshape(2, 2),
        "scalar": np.float32(0.5),
        "infinite": np.float64("inf"),
        "flag": np.bool_(True),
    }
    assert console.plain(value) == {
        "record": {"path": "a/b", "times": [1.5, None]},
        "array": [[0, 1], [2, 3]],
        "scalar": 0.5,
        "infinite": None,
        "flag": True,
    }


def test_what_has_no_json_form_is_named() -> None:
    with pytest.raises(TypeError, match="object has no JSON form"):
        console.plain(object())


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (True, "yes"),
        (1234567, "1,234,567"),
        (123456789.4, "123,456,789"),
        (7.8e23, "7.800e+23"),
        (1.23456, "1.235"),
        (0.000123456, "0.0001235"),
        (12345.6, "12,346"),
        (0.0, "0"),
        (-2.5, "-2.500"),
        (float("nan"), "-"),
        ("name", "name"),
    ],
)
def test_cells(value: object, text: str) -> None:
    assert console.cell(value) == text


@given(st.text())
def test_printable_text_holds_no_character_that_a_terminal_obeys(text: str) -> None:
    shown = console.printable(text)
    assert shown.isprintable()
    assert shown == text or not text.isprintable()


def test_a_table_fits_80_columns_and_cuts_no_name(capsys: pytest.CaptureFixture[str]) -> None:
    name = "a-model-whose-name-goes-on-" * 4
    rows = [(name, 1.2345, 10, "flat"), ("[red]x[/]\x1b[2J", None, 2, "unsteady")]
    console.show(console.table(("model", "latency ms", "kept", "<warm-up"), rows))
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    folded = "".join(line.strip().split("  ")[0] for line in shown.splitlines())
    assert name in folded
    assert r"[red]x[/]\x1b[2J" in shown
    assert "\x1b" not in shown


@pytest.mark.parametrize("width", [1, 10, 40, 60])
def test_a_narrow_terminal_cuts_no_figure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    names = ("RMSPE", "share within 10 %", "rank", "held")
    figures = ("1.3%", "100.0%", 0.9779, "88.3%")
    console.show(console.table(("net", *names, "<note"), [("a-net-" * 9, *figures, "word " * 9)]))
    shown = capsys.readouterr().out
    assert all(console.cell(figure) in shown.split() for figure in figures)
    assert "".join(line[:12].strip() for line in shown.splitlines()[-20:]).count("a-net-") == 9
    assert shown.split().count("word") == 9
    console.show_above(("net", *names), [("a-net-" * 9, *figures)], ["text"])
    row = capsys.readouterr().out.splitlines()[2].split()
    assert row == ["a-net-a-net-a-ne…et-a-net-a-net-", *map(console.cell, figures)]


def test_texts_below_the_rows_of_a_table_break_between_words_alone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    texts = ["k5_e1,skip," * 20, "a b\x1b[2J", "|a~0|+|" * 20]
    rows = [("first", 1.0), ("second", 20.0), ("third", 3.0)]
    console.show_above(("net", "ms"), rows, texts)
    heading, _, *shown = capsys.readouterr().out.splitlines()
    assert heading == "net         ms"
    assert max(map(len, shown)) <= 80
    first, second, third = (
        shown.index(line) for line in shown if line[:3] in ("fir", "sec", "thi")
    )
    assert "".join(shown[first + 1 : second]) == texts[0]
    assert all(line.endswith(",") for line in shown[first + 1 : second])
    assert shown[second + 1 : third] == [r"a b\x1b[2J"]
    assert "".join(shown[third + 1 :]) == texts[2]


@pytest.mark.parametrize(("on_terminal", "lines"), [(True, 3), (False, 1)])
def test_a_terminal_has_a_note_broken_at_blanks(
    monkeypatch: pytest.MonkeyPatch, on_terminal: bool, lines: int
) -> None:
    stream = _Terminal() if on_terminal else io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("COLUMNS", "80")
    text = " ".join(["architectures"] * 15)
    console.note(text)
    shown = stream.getvalue().splitlines()
    assert len(shown) == lines
    assert " ".join(line.strip() for line in shown) == text


def test_without_a_clock_a_bar_shows_no_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = _Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with console.stages(clock=False) as report:
        report("0:30 left", 0.3)
    assert "0:30 left" in terminal.getvalue()
    assert "-:--:--" not in terminal.getvalue()


def test_what_is_waited_for_is_shown_on_a_terminal_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with console.waiting("loading"):
        pass
    assert capsys.readouterr().err == ""
    terminal = _Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with console.waiting("loading"):
        pass
    assert "loading" in terminal.getvalue()


def test_an_error_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    console.error("first\nsecond\tthird \x1b[2Jfourth " + "long " * 50)
    line = capsys.readouterr().err
    assert line.startswith(r"hwbench: first second third \x1b[2Jfourth long")
    assert line.endswith("long\n")
    assert line.count("\n") == 1


def test_progress_off_a_terminal_writes_whole_lines_with_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 5.0, 20.0, 21.0, 40.0, 50.0, 60.0])
    monkeypatch.setattr(console.time, "monotonic", lambda: next(clock))
    with console.stages() as report:
        for share in (0.0, 0.1, 0.25, 0.3, 1.0):
            report("measuring", share)
        for share in (0.0, 0.5):
            report("fitting", share)
    assert capsys.readouterr().err.splitlines() == [
        "measuring ...",
        "measuring: 25%, 1:00 left",
        "fitting ...",
        "fitting: 50%, 0:10 left",
    ]


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_on_a_terminal_shows_a_bar_and_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = _Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with console.progress("measuring") as report:
        report(0.3)
    assert "measuring" in terminal.getvalue()
    assert "30%" in terminal.getvalue()
    assert terminal.getvalue().endswith("\x1b[2K")  # the bar's line is erased
