"""What a client's store anchors devices by: left with the scheduler once, not in each order.

An order goes to whichever device of a kind is free. Had it to name the epoch of each, the queue
would grow with the square of the devices. So it names where they lie, and whoever takes it asks the
scheduler for one. They are no data that tasks depend on: Dask would keep those tasks to the hosts
that hold the data.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hwbench.errors import DeviceError
from hwbench.fleet.workers import ask
from hwbench.records import CanaryEpoch, digest
from hwbench.store.documents import EPOCH, check_document, epoch_document, epoch_of

if TYPE_CHECKING:
    from distributed import Client, Scheduler

#: In the scheduler's metadata: by client, set of epochs, and what is anchored.
_OURS = "hwbench"


def leave(client: Client, epochs: Sequence[CanaryEpoch]) -> tuple[str, ...]:
    """Leave epochs with the scheduler until the client goes; where they lie, for its orders.

    Raises DeviceError where the scheduler is gone.
    """
    place = (_OURS, client.id, digest(sorted(epoch.id for epoch in epochs)))
    texts = {
        _of(each.fingerprint_key, each.canary_key, each.threads): json.dumps(epoch_document(each))
        for each in epochs
    }
    ask(client, "set_metadata", keys=list(place), value=texts)
    return place


def left(place: Sequence[str], fingerprint: str, canaries: str, threads: int) -> CanaryEpoch | None:
    """On a worker: the epoch of a device among those that lie there, by the keys of its
    fingerprint and its canaries. Raises DeviceError where the scheduler does not answer.
    """
    from distributed import get_worker
    from distributed.utils import sync

    worker, keys = get_worker(), [*place, _of(fingerprint, canaries, threads)]
    try:
        text = sync(worker.loop, worker.scheduler.get_metadata, keys=keys, default=None)
    except OSError as error:
        raise DeviceError("the fleet's scheduler does not say what anchors the device") from error
    return None if text is None else epoch_in(json.loads(text))


def epoch_in(document: Any) -> CanaryEpoch:
    """The epoch in a document that came from elsewhere. Raises ValueError where there is none."""
    check_document(document, EPOCH)
    return epoch_of(document)


def forget_with_clients(scheduler: Scheduler) -> None:
    """Make a scheduler forget what clients left as they go, or are lost."""
    from distributed.diagnostics.plugin import SchedulerPlugin

    class Forgets(SchedulerPlugin):  # type: ignore[misc]  # Dask is not typed
        name = _OURS

        def remove_client(self, scheduler: Scheduler, client: str) -> None:
            scheduler.task_metadata.get(_OURS, {}).pop(client, None)

    scheduler.add_plugin(Forgets())


def _of(fingerprint: str, canaries: str, threads: int) -> str:
    return f"{fingerprint} {canaries} {threads}"
