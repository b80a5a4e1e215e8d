"""What the scheduler knows of the workers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hwbench.errors import DeviceError

if TYPE_CHECKING:
    from distributed import Client


def workers_of(client: Client) -> dict[str, dict[str, Any]]:
    """What the scheduler knows of each worker now, by its address. DeviceError where it is gone.

    Not ``client.scheduler_info()``: that gives what the client knows, of which it forgets the
    workers every other second, also between the scheduler's answer and its own.
    """
    try:
        if client.scheduler is None:
            raise OSError("the client is closed")
        return dict(client.sync(client.scheduler.identity, n_workers=-1)["workers"])
    except OSError as error:
        raise DeviceError(
            "the fleet's scheduler has gone: start it again, then run the same command, which "
            "goes on from here"
        ) from error
