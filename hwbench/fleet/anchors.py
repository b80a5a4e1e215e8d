"""What a client's store anchors devices by, as its orders have it in common.

An order goes to whichever device of a kind is free. Had it to name the epoch of each, the queue
would grow with the square of the devices.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hwbench.fleet.common import Place, leave, left
from hwbench.records import CanaryEpoch, digest
from hwbench.store.documents import EPOCH, check_document, epoch_document, epoch_of

if TYPE_CHECKING:
    from distributed import Client


def leave_anchors(client: Client, epochs: Sequence[CanaryEpoch]) -> Place:
    """Where epochs lie for the client's orders. Raises DeviceError where the scheduler is gone."""
    texts = {
        _of(each.fingerprint_key, each.canary_key, each.threads): json.dumps(epoch_document(each))
        for each in epochs
    }
    return leave(client, digest(sorted(epoch.id for epoch in epochs)), texts)


def anchor(place: Place, fingerprint: str, canaries: str, threads: int) -> CanaryEpoch | None:
    """On a worker: the epoch of a device among those that lie there, by the keys of its
    fingerprint and its canaries. Raises DeviceError where the scheduler does not answer.
    """
    text = left(place, _of(fingerprint, canaries, threads))
    return None if text is None else epoch_in(json.loads(text))


def epoch_in(document: Any) -> CanaryEpoch:
    """The epoch in a document that came from elsewhere. Raises ValueError where there is none."""
    check_document(document, EPOCH)
    return epoch_of(document)


def _of(fingerprint: str, canaries: str, threads: int) -> str:
    return f"{fingerprint} {canaries} {threads}"
