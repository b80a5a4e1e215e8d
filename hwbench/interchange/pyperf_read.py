"""pyperf's JSON in, and out again as it was: values, warm-ups, calibrations, metadata.

What pyperf wrote is kept run by run, with numbers as it wrote them: an export of what was imported
is what pyperf itself would write. pyperf's dates bear no zone; they are taken as UTC.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

import pyperf

from hwbench.interchange.foreign import IMPORTED, ForeignFile, ForeignResults, imported
from hwbench.records import Measurement

TOOL: Final = "pyperf"
#: Metadata that all runs of a benchmark share, by pyperf's own rule: its environment.
_FACTS: Final = (
    "aslr",
    "cpu_count",
    "hostname",
    "platform",
    "python_executable",
    "python_implementation",
    "python_unicode",
    "python_version",
)
_TAG: Final = "tag_"


def read_pyperf(file: ForeignFile) -> ForeignResults:
    """Its benchmarks; one whose unit is not the second, or that has no value, is left out.

    Raises what pyperf raises for what is not of its form.
    """
    suite = list(pyperf.BenchmarkSuite.loads(file.text))
    dates = [run.get_metadata().get("date") for b in suite for run in b.get_runs()]
    created = _created([date for date in dates if date], file)
    found, left_out = [], []
    for benchmark in suite:
        values = [value for run in benchmark.get_runs() for value in run.values]
        if any(isinstance(value, bool) for value in values):  # a number to Python, and to pyperf
            raise ValueError(f"{benchmark.get_name()}: a truth value is no time")
        if benchmark.get_unit() == "second" and values:
            found.append(_measurement(file, benchmark, statistics.median(values), created))
        else:
            left_out.append(benchmark.get_name())
    return ForeignResults(tuple(found), tuple(left_out), is_dated=any(dates))


def written_runs(measurement: Measurement, name: str | None) -> Iterator[Any]:
    """The runs of an imported benchmark, under another ``name`` if one is given.

    Raises ValueError where they are not what was once read.
    """
    try:
        for run in json.loads(measurement.fingerprint.state[IMPORTED]):
            metadata = run["metadata"] if name is None else {**run["metadata"], "name": name}
            warmups = [tuple(item) for item in run["warmups"]]
            yield pyperf.Run(run["values"], warmups, metadata, collect_metadata=False)
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{measurement.workload.name}: its pyperf runs are damaged") from error


def _measurement(file: ForeignFile, benchmark: Any, median: float, created: str) -> Measurement:
    common = benchmark.get_metadata()
    facts = {name: str(common[name]) for name in _FACTS if name in common}
    if "cpu_model_name" in common:
        facts["cpu_model"] = common["cpu_model_name"]
    tags = {k.removeprefix(_TAG): str(v) for k, v in common.items() if k.startswith(_TAG)}
    for name in ("commit_id", "commit_branch"):  # as pyperformance says it
        if name in common:
            tags["commit" if name == "commit_id" else "branch"] = str(common[name])
    inner = common.get("inner_loops")
    return imported(
        file,
        TOOL,
        benchmark.get_name(),
        created=created,
        median_s=float(median),
        facts=facts,
        tags=tags,
        said=[
            {"values": run.values, "warmups": run.warmups, "metadata": run.get_metadata()}
            for run in benchmark.get_runs()
        ],
        options=() if inner is None else (("inner_loops", str(inner)),),
    )


def _created(dates: list[str], file: ForeignFile) -> str:
    """When a file's first run was; of a file without dates, when it was written."""
    if dates:
        moment = min(datetime.fromisoformat(date) for date in dates)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).isoformat()
    written = datetime.fromtimestamp(int(file.path.stat().st_mtime), UTC)
    return written.isoformat()
