"""pytest-benchmark's JSON, as ``--benchmark-autosave`` leaves it in ``.benchmarks``."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from hwbench.interchange.foreign import ForeignFile, ForeignResults, imported
from hwbench.records import digest

TOOL: Final = "pytest-benchmark"
#: Of the processor's facts, those that vary from minute to minute.
_VARIES: Final = "hz_"
#: What stands for a commit where there is none.
_UNVERSIONED: Final = ("unversioned", "unknown", "")


def read_pytest_benchmark(file: ForeignFile) -> ForeignResults:
    """Its results. Raises ValueError, KeyError or TypeError for what is not of its form."""
    content = file.content
    created = _utc(content["datetime"])
    facts = dict(_flat("", content["machine_info"]))
    if brand := facts.get("cpu.brand_raw"):
        facts["cpu_model"] = brand
    tags = _tags(content.get("commit_info"))
    if not isinstance(content["benchmarks"], list):
        raise ValueError("its benchmarks are no list")
    found = []
    for entry in content["benchmarks"]:
        name = _text("fullname", entry.get("fullname")) or _text("name", entry["name"])
        if not name:
            raise ValueError("a benchmark of it has no name")
        median = entry["stats"]["median"]
        is_number = isinstance(median, (int, float)) and not isinstance(median, bool)
        if not is_number or not (math.isfinite(median) and median >= 0):
            raise ValueError(f"{name}: its median is no time: {median!r}")
        found.append(
            imported(
                file,
                TOOL,
                name,
                created=created,
                median_s=float(median),
                facts=facts,
                tags=tags,
                said=entry,
            )
        )
    return ForeignResults(tuple(found))


def _utc(said: object) -> str:
    """A time as ISO 8601 with its offset; one without is in UTC."""
    moment = datetime.fromisoformat(_text("datetime", said))
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).isoformat()


def _flat(prefix: str, value: Any) -> Iterator[tuple[str, str]]:
    """The facts of a machine by dotted names; a processor's flags by their digest."""
    for key, item in value.items():
        name = f"{prefix}{key}"
        if isinstance(item, Mapping):
            yield from _flat(f"{name}.", item)
        elif str(key).startswith(_VARIES):
            continue
        elif key == "flags":
            yield name, digest(sorted(map(str, item)))
        else:
            yield name, ", ".join(map(str, item)) if isinstance(item, list) else str(item)


def _tags(commit: Mapping[str, Any] | None) -> dict[str, str]:
    """What git says of a run, as our own runs bear it."""
    if commit is None:
        return {}
    names = ("id", "branch", "project")
    said, branch, project = (_text(name, commit.get(name)) for name in names)
    dirty = commit.get("dirty")
    if not isinstance(dirty, bool | None):
        raise ValueError(f"its dirty is no truth value, but {type(dirty).__name__}")
    tags = {}
    if said not in _UNVERSIONED:
        tags["commit"] = said
        tags["dirty"] = "yes" if dirty else "no"
    if branch and not branch.startswith("("):  # "(unknown)", "(detached head)"
        tags["branch"] = branch
    if project:
        tags["project"] = project
    return tags


def _text(name: str, said: object) -> str:
    """What a file says in words, empty for null; nothing else is made a text of."""
    if said is None or isinstance(said, str):
        return said or ""
    raise ValueError(f"its {name} is no text, but {type(said).__name__}")
