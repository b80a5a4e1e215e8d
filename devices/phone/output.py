"""Reads what TFLite's ``benchmark_model`` prints, of any age, and never makes a number up.

The formats are those of ``benchmark_model.cc``, ``stats_calculator.cc`` and
``benchmark_tflite_model.cc``. A launch is believed only when its last summary line is whole and
agrees with the statistics line before it; both stand in the output of every version. A line
without its end may have lost digits, so it does not count.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hwbench.devices.phone.script import clean
from hwbench.errors import ToolOutputError

_MB = 1024 * 1024
_N = r"[0-9]{1,15}(?:\.[0-9]{0,15})?(?:[eE][-+]?[0-9]{1,2})?"
_COUNT = r"[0-9]{1,12}"
#: A mean of no runs is printed as nan.
_MAYBE = rf"(?:{_N}|-?nan)"
_PREFIX = re.compile(
    r"(?:(?:[0-9]{4}-)?[0-9]{2}-[0-9]{2} [0-9:.]{8,}(?: [-+][0-9]{4})? +"  # logcat's date
    r"(?:[0-9]+ +){0,3})?"  # user, process and thread
    r"(?:[VDIWEF][/ ] ?[\w.-]+ *(?:\( *[0-9]+\))? *: ?)?"  # priority and tag
    r"(?:(?:VERBOSE|DEBUG|INFO|WARN|WARNING|ERROR|FATAL): )?"
)
_STATS = re.compile(
    rf"count=(?P<count>{_COUNT})"
    rf"(?: curr=(?P<same>{_N})(?:\(all same\))?"
    rf"| first=(?P<first>{_N}) curr={_N} min=(?P<min>{_N}) max=(?P<max>{_N})"
    rf" avg=(?P<avg>{_N}) std=(?P<std>-?{_N}))"
    rf"(?: p5=(?P<p5>{_N}) median=(?P<median>{_N}) p95=(?P<p95>{_N}))?"
)
_SUMMARY = re.compile(
    rf"Inference timings in us: Init: (?P<init>{_N}), First inference: {_MAYBE},"
    rf" Warmup \(avg\): (?P<warmup>{_MAYBE}), Inference \(avg\): (?P<mean>{_N})"
)
_OLD_SUMMARY = re.compile(
    rf"Average inference timings in us: (?:Warmup: (?P<warmup>{_MAYBE}), )?Init: (?P<init>{_N}),"
    rf" (?:no stats|Inference): (?P<mean>{_N})"
)
_IS_SUMMARY = re.compile(r"(?:Average inference|Inference) timings in us:")
_REPLACING = re.compile(
    rf"Replacing ({_COUNT})(?: out of ({_COUNT}))? node\(s\) with delegate \(([^)]*)\) node"
    rf"(?:, yielding ({_COUNT}) partitions)?"
)
_COVERAGE = re.compile(r"model graph will (be completely|be partially|not be|be not) executed")
#: The runtime took a delegate off again.
_UNDONE = "Restored original execution plan after delegate application failure"
#: From the one that says most to the one that says least.
_MEMORY = tuple(
    re.compile(pattern)
    for pattern in (
        rf"Overall peak memory footprint \(MB\) via periodic monitoring: ({_N})",
        rf"Peak memory footprint \(MB\): init={_N} overall=({_N})",
        rf"Memory footprint delta from the start of the tool \(MB\): init={_N} overall=({_N})",
    )
)
#: A run takes a nanosecond at least, and no day.
_NS_US, _DAY_US = 1e-3, 86_400e6
_FAILED = "Benchmarking failed"
#: Flags that the tool does not know; it goes on without them.
_UNKNOWN_FLAGS = "Unconsumed cmdline flags:"
_TROUBLE = re.compile(r"error|fail|cannot|could not|unable|disallowed|not found", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Delegation:
    """A delegate took ``nodes`` of ``total`` nodes, in so many partitions (None: not said)."""

    name: str
    nodes: int
    total: int | None
    partitions: int | None


@dataclass(frozen=True, slots=True)
class Launch:
    """What one launch measured, in nanoseconds; None is what the tool did not say.

    ``first_ns`` is the first run of the warm-up. ``peak_memory_bytes`` is the whole tool's, or
    where a build does not say it, by how much the tool grew.
    ``fallback`` means that the delegate does not run the model; ``complete`` is the tool's own
    word on whether it runs all of it.
    """

    count: int
    mean_ns: float
    std_ns: float | None
    min_ns: float
    max_ns: float
    p5_ns: float | None
    median_ns: float | None
    p95_ns: float | None
    init_ns: float
    first_ns: float | None
    warmup_mean_ns: float | None
    warmup_count: int
    peak_memory_bytes: int | None
    delegates: tuple[Delegation, ...]
    complete: bool | None
    fallback: bool


@dataclass(frozen=True, slots=True)
class _Stats:
    """A statistics line, in microseconds."""

    count: int
    first: float
    mean: float
    std: float | None
    min: float
    max: float
    percentiles: tuple[float, float, float] | None


def whole_lines(text: str) -> list[str]:
    """The lines that have their end, without logcat's and the logger's prefixes."""
    lines = text.replace("\r\n", "\n").split("\n")[:-1]
    return [_PREFIX.sub("", line, count=1) for line in lines]


def parse_launch(text: str) -> Launch:
    """The launch whose output, both streams, is ``text``.

    Raises ToolOutputError, with the tool's last telling line, when it failed, was cut before its
    summary, measured nothing, or contradicts itself.
    """
    lines = [line.strip() for line in whole_lines(text)]
    lines = [line for i, line in enumerate(lines) if line and line not in lines[max(i - 1, 0) : i]]
    if any(_FAILED in line for line in lines):
        raise ToolOutputError(f"benchmark_model failed: {_telling(lines)}")
    for line in lines:
        if line.startswith(_UNKNOWN_FLAGS):
            flags = clean(line.removeprefix(_UNKNOWN_FLAGS), 160)
            raise ToolOutputError(
                f"benchmark_model does not know {flags}, and measured without: take a newer build"
            )
    ends = [i for i, line in enumerate(lines) if _IS_SUMMARY.match(line)]
    if not ends:
        raise ToolOutputError(f"benchmark_model gave no latency: {_telling(lines)}")
    if len(ends) > 1:
        raise ToolOutputError("benchmark_model's output holds more than one run: read one by one")
    line = lines[ends[0]]
    summary = _SUMMARY.match(line) or _OLD_SUMMARY.match(line)
    if summary is None:
        raise ToolOutputError(f"benchmark_model gave no latency: {clean(line, 160)}")
    before = [line for line in lines[: ends[0]] if line.startswith("count=")]
    return _launch(before, summary, lines)


def _launch(before: Sequence[str], summary: re.Match[str], lines: Sequence[str]) -> Launch:
    if not 1 <= len(before) <= 2:
        raise ToolOutputError(
            f"benchmark_model's output has {len(before)} statistics lines, not a warm-up's and the"
            " runs': it is no single run"
        )
    runs = _stats(before[-1])
    if runs is None:
        raise ToolOutputError(f"benchmark_model gave no latency: {clean(before[-1], 160)}")
    warmup = _stats(before[0]) if len(before) == 2 else None
    _agree(runs.mean, float(summary["mean"]), "runs")
    if warmup and summary["warmup"] and "nan" not in summary["warmup"]:
        _agree(warmup.mean, float(summary["warmup"]), "warm-up")
    p5, median, p95 = runs.percentiles or (None, None, None)
    covered = [match[1] for line in lines if (match := _COVERAGE.search(line))]
    return Launch(
        count=runs.count,
        mean_ns=runs.mean * 1e3,
        std_ns=_ns(runs.std),
        min_ns=runs.min * 1e3,
        max_ns=runs.max * 1e3,
        p5_ns=_ns(p5),
        median_ns=_ns(median),
        p95_ns=_ns(p95),
        init_ns=float(summary["init"]) * 1e3,
        first_ns=_ns(warmup.first) if warmup else None,
        warmup_mean_ns=_ns(warmup.mean) if warmup else None,
        warmup_count=warmup.count if warmup else 0,
        peak_memory_bytes=_peak_memory(lines),
        delegates=tuple(_delegations(lines)),
        complete=all(word == "be completely" for word in covered) if covered else None,
        fallback=any("not" in word for word in covered) or any(_UNDONE in line for line in lines),
    )


def _ns(us: float | None) -> float | None:
    if us is not None and us > _DAY_US:
        raise ToolOutputError(f"benchmark_model says that something took {us:g} us: it lies")
    return None if us is None else us * 1e3


def _stats(line: str) -> _Stats | None:
    """A statistics line; None where it is damaged, or of no runs."""
    match = _STATS.fullmatch(line)
    if match is None or int(match["count"]) == 0:
        return None
    count = int(match["count"])
    percentiles = (
        (float(match["p5"]), float(match["median"]), float(match["p95"])) if match["p5"] else None
    )
    if match["same"]:  # all runs took the same time
        all_same = float(match["same"])
        std = 0.0 if count > 1 else None
        stats = _Stats(count, all_same, all_same, std, all_same, all_same, percentiles)
    else:
        first, mean, spread = float(match["first"]), float(match["avg"]), float(match["std"])
        std = spread if spread >= 0 else None  # a variance rounded below zero has no root
        stats = _Stats(
            count, first, mean, std, float(match["min"]), float(match["max"]), percentiles
        )
    if stats.max > _DAY_US:
        raise ToolOutputError(f"benchmark_model's times cannot be: {line[:160]}")
    if stats.mean < _NS_US or (percentiles and percentiles[1] < _NS_US):
        raise ToolOutputError(
            f"benchmark_model measured {stats.mean:g} us: the model is too short for its clock"
        )
    ordered = (stats.min, *(percentiles or ()), stats.max)
    if list(ordered) != sorted(ordered) or not _near(
        stats.mean, min(max(stats.mean, stats.min), stats.max)
    ):
        raise ToolOutputError(f"benchmark_model's statistics contradict themselves: {line[:160]}")
    return stats


def _near(a: float, b: float) -> bool:
    """Whether two printed times are one: six digits are printed, or whole microseconds."""
    return abs(a - b) <= max(1.0, 1e-5 * max(a, b))


def _agree(listed: float, summed_up: float, what: str) -> None:
    if not _near(listed, summed_up):
        raise ToolOutputError(
            f"benchmark_model says two means of the {what}, {listed:g} and {summed_up:g} us: its"
            " output is damaged or of several launches"
        )


def _delegations(lines: Sequence[str]) -> Iterator[Delegation]:
    for line in lines:
        match = _REPLACING.search(line)
        if match:
            nodes, total, name, partitions = match.groups()
            yield Delegation(
                clean(name),
                int(nodes),
                int(total) if total else None,
                int(partitions) if partitions else None,
            )


def _peak_memory(lines: Sequence[str]) -> int | None:
    for pattern in _MEMORY:
        for line in lines:
            match = pattern.fullmatch(line)
            if match and 0 < float(match[1]) < 1e9:  # 0 is "not supported here"
                return int(float(match[1]) * _MB)
    return None


def _telling(lines: Sequence[str]) -> str:
    """The last line that speaks of trouble, else the last line."""
    said = [line for line in lines if not line.startswith(_FAILED)]
    trouble = [line for line in said if _TROUBLE.search(line)]
    return clean((trouble or said or ["it printed nothing"])[-1], 160)


@dataclass(frozen=True, slots=True)
class OpRow:
    """One operator of the profile. ``share`` is of the table's whole; times are nanoseconds.

    Operators ``inside_delegate`` are parts of another row's, the delegate node's.
    """

    node_type: str
    name: str
    start_ns: float | None
    first_ns: float
    mean_ns: float
    share: float
    memory_bytes: int
    times_called: int
    inside_delegate: bool


_TITLE = re.compile(r"=+ (.+?) =+")
_RUN_ORDER = "Run Order"
_INITIALISATION = "Profiling Info for Benchmark Initialization:"
_REGULAR = "Operator-wise Profiling Info for Regular Benchmark Runs:"
_INTERNAL = "Delegate internal:"
_COLUMNS = ("[first]", "[avg ms]", "[%]", "[mem KB]", "[times called]", "[Name]")


def parse_ops(text: str) -> tuple[OpRow, ...]:
    """The operators of a profiled launch, in the order in which they ran.

    Only the tables in run order of the regular runs count: the others repeat them, or are of the
    initialisation. Raises ToolOutputError where there is no such table, or a damaged one.
    """
    rows: list[OpRow] = []
    initialising = inside = False
    table, header = "", None
    for line in whole_lines(text):
        bare = line.strip()
        if bare == _INITIALISATION:
            initialising = True
        elif bare == _REGULAR:
            initialising = inside = False
        elif bare == _INTERNAL:
            inside = True
        elif title := _TITLE.fullmatch(bare):
            table, header = title[1], None
        elif not bare:
            table, header = "", None
        elif "[node type]" in bare:
            header = line.split("\t")
        elif header and table == _RUN_ORDER and not initialising:
            rows.append(_op_row(line, header, inside))
    if not rows:
        raise ToolOutputError("benchmark_model printed no profile of its operators")
    return tuple(rows)


def _op_row(line: str, header: Sequence[str], inside: bool) -> OpRow:
    """A row of a table. Cells are apart by tabs alone: names and types hold commas and spaces."""
    names = [name.strip() for name in header]
    cells = [cell.strip() for cell in line.split("\t", len(names) - 1)]
    row = dict(zip(names, cells, strict=False))
    try:
        first, mean, share, memory, called, name = (row[column] for column in _COLUMNS)
        node_type = row["[node type]"]
        return OpRow(
            node_type=clean(node_type, 200),
            name=clean(name, 400),
            start_ns=_ms(row["[start]"]) if "[start]" in row else None,
            first_ns=_ms(first),
            mean_ns=_ms(mean),
            share=_number(share.removesuffix("%")) / 100,
            memory_bytes=int(_number(memory) * 1000),
            times_called=int(_number(called)),
            inside_delegate=inside or node_type == "DelegateOpInvoke",
        )
    except (KeyError, ValueError) as error:
        raise ToolOutputError(
            f"a row of benchmark_model's profile cannot be read: {clean(line, 160)}"
        ) from error


def _number(text: str) -> float:
    if not re.fullmatch(_N, text):
        raise ValueError(text)
    return float(text)


def _ms(text: str) -> float:
    return _number(text) * 1e6
