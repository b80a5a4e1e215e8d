"""Sweeps: what somebody is measuring into a store, announced by who measures, read by who watches.

An announcement is a row of the meta table, written once: how many cells there are and after which
measurement they come. What has become of them is counted in the measurements themselves; what
failed of a fleet's sweep leaves no measurement, and is a row of its own.
"""

from __future__ import annotations

import json
import os
import platform
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import Connection, Select, func, insert, select

from hwbench.store import documents, schema

#: Of the meta table's keys of announcements.
PREFIX: Final = "sweep:"
_SETBACK: Final = "setback:"

_ANNOUNCED: Final[Mapping[str, documents.Check]] = {
    "what": documents.text,
    "device": documents.text,
    "fingerprint_key": documents.text,
    "plan": documents.optional(documents.text),
    "cells": documents.positive,
    "held": documents.count,
    "created": documents.instant,
    "host": documents.text,
    "process": documents.integer,
    "devices": documents.table(documents.text),
    "after": documents.count,
}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True, slots=True)
class Sweep:
    """One run over ``cells`` workloads on one device; ``held`` others of its plan were there.

    ``what`` is a reader's name for them. ``host`` and ``process`` tell who measures. A fleet's is
    on all devices of a kind (``device``): ``devices`` are their fingerprints' keys by name, and
    ``fingerprint_key`` is empty.
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
    devices: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Cell:
    """A measurement of a sweep, as far as a watcher looks: times in ns, ``None`` where none."""

    name: str
    status: str
    latency_ns: float | None
    low_ns: float | None
    high_ns: float | None
    state: Mapping[str, str]


@dataclass(slots=True)
class Share:
    """What one device of a fleet has of a sweep: measurements by status, and times it failed."""

    counts: dict[str, int] = field(default_factory=dict)
    failures: int = 0


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a sweep is: measurements by status, and the last few, the newest first.

    Of a sweep without a plan these are all that its device got since: what another process
    measures on the same device at the same time counts as well. ``shares`` are those of a fleet's
    devices by name; ``failed`` cells no device could measure.
    """

    sweep: Sweep
    counts: Mapping[str, int]
    last: tuple[Cell, ...]
    shares: Mapping[str, Share]
    failed: int

    @property
    def done(self) -> int:
        """How many cells of the sweep are measured."""
        return sum(self.counts.values())


def announce(connection: Connection, sweep: Sweep) -> str:
    """Insert an announcement; its key."""
    after = connection.scalar(select(func.max(schema.measurements.c.id))) or 0
    key = f"{PREFIX}{documents.microseconds(sweep.created):020}:{uuid.uuid4().hex}"
    value = documents.to_json({**asdict(sweep), "after": after})
    connection.execute(insert(schema.meta), {"key": key, "value": value})
    return key


def set_back(connection: Connection, sweep: str, device: str, failures: int, cells: int) -> None:
    """Insert what went wrong on a device in the sweep of that key, and the cells given up."""
    value = {"device": device, "failures": failures, "cells": cells}
    row = {"key": f"{_SETBACK}{sweep}:{uuid.uuid4().hex}", "value": documents.to_json(value)}
    connection.execute(insert(schema.meta), row)


def standings(connection: Connection, sweeps: int, cells: int) -> list[Standing]:
    """The newest sweeps, the newest first, each with so many of its last cells at most.

    An announcement that is damaged is left out: the measurements are none of it.
    """
    meta = schema.meta.c
    query = select(meta.key, meta.value).where(meta.key.startswith(PREFIX, autoescape=True))
    rows = connection.execute(query.order_by(meta.key.desc()).limit(sweeps)).all()
    found = []
    for key, value in rows:
        with suppress(AttributeError, KeyError, TypeError, ValueError):
            found.append(_standing(connection, key, json.loads(value), cells))
    return found


def _standing(
    connection: Connection, key: str, announced: Mapping[str, Any], cells: int
) -> Standing:
    known = [name for name in _ANNOUNCED if name in announced]  # an earlier one's too
    documents.check_document(dict(announced), {name: _ANNOUNCED[name] for name in known})
    sweep = Sweep(**{name: announced[name] for name in known if name != "after"})
    names = {print_: name for name, print_ in sweep.devices.items()}
    columns = schema.measurements.c
    place = columns.fingerprint_key

    def own(query: Select[Any]) -> Select[Any]:
        query = query.where(
            columns.id > announced["after"], place.in_(list(names) or [sweep.fingerprint_key])
        )
        return query if sweep.plan is None else query.where(columns.plan == sweep.plan)

    counts: dict[str, int] = {}
    shares = {name: Share() for name in sweep.devices}
    counted = own(select(place, columns.status, func.count()).group_by(place, columns.status))
    for print_, status, number in connection.execute(counted):
        counts[status] = counts.get(status, 0) + number
        if print_ in names:
            shares[names[print_]].counts[status] = number
    failed = 0
    for setback in _setbacks(connection, key):
        failed += setback["cells"]
        if setback["device"] in shares:
            shares[setback["device"]].failures += setback["failures"]
    shown = [columns[each.name] for each in fields(Cell)]
    last = own(select(*shown).order_by(columns.id.desc()).limit(cells))
    newest = [
        Cell(**{**row._asdict(), "state": json.loads(row.state)})
        for row in connection.execute(last)
    ]
    return Standing(sweep, counts, tuple(newest), shares, failed)


def _setbacks(connection: Connection, sweep: str) -> list[dict[str, Any]]:
    meta = schema.meta.c
    own = meta.key.startswith(f"{_SETBACK}{sweep}:", autoescape=True)
    return [json.loads(value) for value in connection.scalars(select(meta.value).where(own))]
