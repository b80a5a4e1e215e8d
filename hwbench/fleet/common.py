"""What the orders of a client have in common: left with the scheduler once, not in each.

An order names where it lies, and whoever takes the order asks the scheduler for what it needs of
it. It is no data that tasks depend on: Dask keeps such tasks to the hosts that hold the data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hwbench.errors import DeviceError
from hwbench.fleet.workers import ask

if TYPE_CHECKING:
    from distributed import Client, Scheduler

#: In the scheduler's metadata; below it are clients, below these what each left.
_OURS = "hwbench"

Place = tuple[str, ...]


def leave(client: Client, name: str, parts: Mapping[str, str | bytes]) -> Place:
    """Leave parts under a name with the scheduler, until the client goes; where they lie.

    Raises DeviceError where the scheduler is gone.
    """
    place = (_OURS, client.id, name)
    ask(client, "set_metadata", keys=list(place), value=dict(parts))
    return place


def left(place: Sequence[str], part: str) -> Any:
    """On a worker: a part of what lies at a place; None where there is none.

    Raises DeviceError where the scheduler does not answer.
    """
    from distributed import get_worker
    from distributed.utils import sync

    worker, keys = get_worker(), [*place, part]
    try:
        return sync(worker.loop, worker.scheduler.get_metadata, keys=keys, default=None)
    except OSError as error:
        raise DeviceError("the fleet's scheduler does not say what an order rests on") from error


def forget_with_clients(scheduler: Scheduler) -> None:
    """Make a scheduler forget what clients left as they go, or are lost."""
    from distributed.diagnostics.plugin import SchedulerPlugin

    class Forgets(SchedulerPlugin):  # type: ignore[misc]  # Dask is not typed
        name = _OURS

        def remove_client(self, scheduler: Scheduler, client: str) -> None:
            scheduler.task_metadata.get(_OURS, {}).pop(client, None)

    scheduler.add_plugin(Forgets())
