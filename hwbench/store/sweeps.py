"""Sweeps: what somebody is measuring into a store, announced by who measures, read by who watches.

An announcement is a row of the meta table, written once: how many cells there are and after which
measurement they come. What has become of them is counted in the measurements themselves.
"""

from __future__ import annotations

import json
import os
import platform
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import Connection, Select, func, insert, select

from hwbench.store import documents, schema

#: Of the meta table's keys of announcements.
PREFIX: Final = "sweep:"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True, slots=True)
class Sweep:
    """One run over ``cells`` workloads on one device; ``held`` others of its plan were there.

    ``what`` is a reader's name for them. ``host`` and ``process`` tell who measures.
    """

    what: str
    device: str
    fingerprint_key: str
    plan: str | None
    cells: int
    held: int
    created: str = field(default_factory=_now)
    host: str = field(default_factory=platform.node)
    process: int = field(default_factory=os.getpid)


@dataclass(frozen=True, slots=True)
class Cell:
    """A measurement of a sweep, as far as a watcher looks: times in ns, ``None`` where none."""

    name: str
    status: str
    latency_ns: float | None
    low_ns: float | None
    high_ns: float | None
    state: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a sweep is: measurements by status, and the last few, the newest first.

    Of a sweep without a plan these are all that its device got since: what another process
    measures on the same device at the same time counts as well.
    """

    sweep: Sweep
    counts: Mapping[str, int]
    last: tuple[Cell, ...]

    @property
    def done(self) -> int:
        """How many cells of the sweep are measured."""
        return sum(self.counts.values())


def announce(connection: Connection, sweep: Sweep) -> None:
    """Insert an announcement."""
    after = connection.scalar(select(func.max(schema.measurements.c.id))) or 0
    key = f"{PREFIX}{documents.microseconds(sweep.created):020}:{uuid.uuid4().hex}"
    value = documents.to_json({**asdict(sweep), "after": after})
    connection.execute(insert(schema.meta), {"key": key, "value": value})


def standings(connection: Connection, sweeps: int, cells: int) -> list[Standing]:
    """The newest sweeps, the newest first, each with so many of its last cells at most."""
    meta = schema.meta.c
    query = select(meta.value).where(meta.key.startswith(PREFIX, autoescape=True))
    rows = connection.scalars(query.order_by(meta.key.desc()).limit(sweeps)).all()
    return [_standing(connection, json.loads(row), cells) for row in rows]


def _standing(connection: Connection, announced: Mapping[str, Any], cells: int) -> Standing:
    sweep = Sweep(**{each.name: announced[each.name] for each in fields(Sweep)})
    columns = schema.measurements.c

    def own(query: Select[Any]) -> Select[Any]:
        query = query.where(
            columns.id > announced["after"], columns.fingerprint_key == sweep.fingerprint_key
        )
        return query if sweep.plan is None else query.where(columns.plan == sweep.plan)

    counts = own(select(columns.status, func.count()).group_by(columns.status))
    shown = [columns[each.name] for each in fields(Cell)]
    last = own(select(*shown).order_by(columns.id.desc()).limit(cells))
    return Standing(
        sweep,
        {row[0]: row[1] for row in connection.execute(counts)},
        tuple(
            Cell(**{**row._asdict(), "state": json.loads(row.state)})
            for row in connection.execute(last)
        ),
    )
