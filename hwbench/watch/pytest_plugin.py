"""pytest's plug-in: a fixture ``latency`` that measures, and fails a test by the gate's verdict.

Nothing of the engine is loaded before a test asks for the fixture. Rows for the summary travel as
user properties of the tests' reports, so that they come back from a worker of xdist as well.
"""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from hwbench.watch.latencies import Found

_PROPERTY: Final = "hwbench_latency"
_WIDTH: Final = 80
_NAME_WIDTH: Final = 30
_LONGEST: Final = 1000


class LatencyWarning(UserWarning):
    """A latency could not be told from its baseline."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options; a store and a baseline may stand in the ini file."""
    group = parser.getgroup("hwbench", "latencies (hwbench)")
    store = "Store that measured latencies are kept in (default: none, nothing is kept)."
    baseline = (
        "What latencies are held against: a file, a folder, a commit of git, or history: what the "
        "store has (default: nothing)."
    )
    group.addoption("--latency-store", metavar="PATH|URL", help=store)
    group.addoption("--latency-baseline", metavar="REF", help=baseline)
    group.addoption(
        "--latency-skip", action="store_true", help="Skip the tests that measure a latency."
    )
    parser.addini("latency_store", store)
    parser.addini("latency_baseline", baseline)


@pytest.fixture
def latency(request: pytest.FixtureRequest) -> Latency:
    """Measure a model's file or a function: ``latency(what, baseline=...)``.

    The test is skipped where ``--latency-skip`` says so, and beside other workers of xdist.
    """
    config = request.config
    if config.getoption("--latency-skip"):
        pytest.skip("--latency-skip")
    workers = getattr(config, "workerinput", {}).get("workercount", 1)
    if workers > 1:
        pytest.skip(f"{workers} xdist workers disturb each other's latencies: run these with -n 0")
    return Latency(request)


class Latency:
    """What the fixture ``latency`` gives a test."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self._request = request

    def __call__(
        self,
        what: str | Path | Callable[[], Any],
        *,
        baseline: str | Path | Callable[[], Any] | None = None,
        device: str | None = None,
        shapes: Mapping[str, tuple[int, ...]] | None = None,
        tolerance_pct: float = 1.0,
        seconds: float | None = None,
        sessions: int = 3,
    ) -> Found:
        """Measure ``what``, and hold it against ``baseline``, if there is one.

        ``what`` is a file (.onnx, .tflite) or a function that stands at the top of a module. Such a
        function is called once in each fresh process: if what it returns can be called, that is
        timed; a session of onnxruntime is run on random inputs; else the function itself is timed.
        ``baseline`` is a file, a folder, a commit of git, ``"history"``, or another function;
        ``device`` that of a file, if neither cpu nor litert by its ending. ``seconds`` are for
        each of at most so many ``sessions`` (2 where one model is measured, else 5).

        Fails the test where ``what`` is slower beyond doubt, by more than the tolerance, and where
        it cannot be measured. Warns where a verdict cannot be had.
        """
        from hwbench.errors import HwbenchError
        from hwbench.watch.latencies import Question, answered

        try:
            question = Question(
                what,
                self._default("latency_baseline") if baseline is None else baseline,
                device,
                shapes or {},
                tolerance_pct,
                seconds,
                sessions,
            )
            root = self._request.config.rootpath
            found = answered(question, self._default("latency_store"), root)
        except HwbenchError as error:
            raise pytest.fail.Exception(_obeyed_by_none(str(error)), pytrace=False) from None
        self._request.node.user_properties.append((_PROPERTY, found.row()))
        if found.verdict == "slower":
            pytest.fail(f"SLOWER: {found.sentence}", pytrace=False)
        if found.verdict == "inconclusive":
            warnings.warn(LatencyWarning(f"INCONCLUSIVE: {found.sentence}"), stacklevel=2)
        return found

    def _default(self, name: str) -> str | None:
        """What the option says, else the ini file; a path there is relative to the root.

        UsageError for an option that is empty, as an unset variable of a build leaves it.
        """
        from hwbench.errors import UsageError

        config, root = self._request.config, self._request.config.rootpath
        option = "--" + name.replace("_", "-")
        given: str | None = config.getoption(option)
        if given == "":
            raise UsageError(f"{option} is empty: name one, or leave it out")
        if given is not None:
            return given
        said: str = config.getini(name)
        is_path = "://" not in said if name == "latency_store" else (root / said).exists()
        return str(root / said) if said and is_path else said or None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """A table of all latencies of this run, and what was said of those with a baseline."""
    rows = [
        value
        for reports in terminalreporter.stats.values()
        for report in reports
        if getattr(report, "when", None) == "call"
        for name, value in report.user_properties
        if name == _PROPERTY
    ]
    if not rows:
        return
    terminalreporter.section("latency", sep="=")
    terminalreporter.write_line(_line("model", "latency ms", "±", "verdict", "change"))
    for row in rows:
        bad = row["verdict"] in ("slower", "inconclusive")
        line = _line(row["name"], row["ms"], row["half_width"], row["verdict"], row["change"])
        terminalreporter.write_line(line, bold=bad, red=row["verdict"] == "slower", yellow=bad)
    for text in dict.fromkeys(text for row in rows for text in (row["sentence"], row["note"])):
        if text:
            terminalreporter.write_line("\n".join(textwrap.wrap(text, _WIDTH)))


def _obeyed_by_none(text: str) -> str:
    """A function's own words, as far as a reader goes, what a terminal would obey as escapes."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text[:_LONGEST])


def _line(name: str, ms: str, half_width: str, verdict: str, change: str) -> str:
    label = name if len(name) < _NAME_WIDTH else f"{name[: _NAME_WIDTH - 2]}…"
    return f"{label:<{_NAME_WIDTH}}{ms:>12}{half_width:>8}  {verdict:<14}{change:>9}".rstrip()
