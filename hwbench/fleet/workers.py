"""Questions to the scheduler itself, and what it knows of the workers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hwbench.errors import DeviceError

if TYPE_CHECKING:
    from distributed import Client


def ask(client: Client, what: str, **arguments: object) -> Any:
    """The scheduler's answer to a question of Dask's. Raises DeviceError where it is gone."""
    try:
        if client.scheduler is None:
            raise OSError("the client is closed")
        return client.sync(getattr(client.scheduler, what), **arguments)
    except OSError as error:
        raise gone() from error


def workers_of(client: Client) -> dict[str, dict[str, Any]]:
    """What the scheduler knows of each worker now, by its address. DeviceError where it is gone.

    Not ``client.scheduler_info()``: that gives what the client knows, of which it forgets the
    workers every other second, also between the scheduler's answer and its own.
    """
    return dict(ask(client, "identity", n_workers=-1)["workers"])


def gone() -> DeviceError:
    """What is said where the scheduler does not answer any more."""
    return DeviceError(
        "the fleet's scheduler has gone: start it again, then run the same command, which goes on "
        "from here"
    )
