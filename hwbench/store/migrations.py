"""From an earlier schema to the present one: a step a version, all in one transaction.

Schema 5 has the tables of schema 4. Since then a fingerprint holds which machine it is of, so
that two of one make have neither an epoch nor a series in common.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Mapping
from typing import Final

from sqlalchemy import Connection, delete, func, select, update

from hwbench.machine import MACHINE_FACT, machine_id, product
from hwbench.records import Fingerprint
from hwbench.store import rows, schema
from hwbench.store.sweeps import PREFIX

#: Of the schemas before this one nothing can be brought over.
OLDEST: Final = 4
#: In a device's name, before the host of a fleet that has it.
_ELSEWHERE: Final = "@"


def migrate(connection: Connection, found: int) -> None:
    """Bring a store of schema ``found`` (at least :data:`OLDEST`) to the present one."""
    for version in range(found, schema.SCHEMA_VERSION):
        _STEPS[version](connection)
    meta = schema.meta
    new = update(meta).where(meta.c.key == schema.VERSION_KEY)
    connection.execute(new.values(value=str(schema.SCHEMA_VERSION)))


def _tell_machines_apart(connection: Connection) -> None:
    """What a machine like this one calibrated into a file is this one's, which goes on with it.

    On a server it may be of any of those that share it: it stays without a machine, and each
    begins anew.
    """
    here = machine_id()
    if connection.dialect.name != "sqlite" or here is None:
        return
    prints, epochs = schema.fingerprints, schema.epochs
    calibrated = select(epochs.c.fingerprint_key).where(~epochs.c.imported)
    query = select(prints.c.key, prints.c.device, prints.c.facts)
    for key, device, text in connection.execute(query.where(prints.c.key.in_(calibrated))).all():
        facts: dict[str, str] = json.loads(text)
        if _ELSEWHERE not in device and _is_like_this(facts):
            named = Fingerprint(device, {**facts, MACHINE_FACT: here})
            _move(connection, key, rows.insert_fingerprint(connection, named))


def _is_like_this(facts: Mapping[str, str]) -> bool:
    """Whether they may be this machine's, as it is now. A phone has none of these facts."""
    return facts.get("kernel") == platform.release() and facts.get("machine") == (
        product() or "unknown"
    )


def _move(connection: Connection, old: str, new: str) -> None:
    """Give what rests on a fingerprint's own epochs to another; the rest was imported."""
    prints, epochs, meta = schema.fingerprints.c, schema.epochs.c, schema.meta.c
    found, runs = schema.measurements.c, schema.canary_runs.c
    own = select(epochs.id).where(epochs.fingerprint_key == old, ~epochs.imported)
    anchored = update(schema.measurements).where(found.fingerprint_key == old, found.epoch.in_(own))
    connection.execute(anchored.values(fingerprint_key=new))
    watched = update(schema.canary_runs).where(runs.fingerprint_key == old)
    connection.execute(watched.values(fingerprint_key=new))
    anchors = update(schema.epochs).where(epochs.fingerprint_key == old, ~epochs.imported)
    connection.execute(anchors.values(fingerprint_key=new))
    told = update(schema.meta).where(meta.key.startswith(PREFIX, autoescape=True))
    connection.execute(told.values(value=func.replace(meta.value, old, new)))
    used = select(found.id).where(found.fingerprint_key == old)
    connection.execute(delete(schema.fingerprints).where(prints.key == old, ~used.exists()))


_STEPS: Final[Mapping[int, Callable[[Connection], None]]] = {4: _tell_machines_apart}
