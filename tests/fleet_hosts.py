"""Fleets whose workers are of this process: what they compute can be looked into."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from hwbench.fleet import link
from hwbench.fleet.seats import Seats

if TYPE_CHECKING:
    from distributed import Client


@contextmanager
def hosts(number: int, seats: Seats, *, computes: bool = True) -> Iterator[Client]:
    """A client of so many workers of this process, each with these devices."""
    link.require_dask()
    from distributed import Client, LocalCluster

    options = link.worker_options(seats, computes=computes)
    pages = options.pop("dashboard_address")
    with (
        LocalCluster(
            n_workers=number,
            threads_per_worker=4,
            processes=False,
            dashboard_address=pages,
            worker_dashboard_address=pages,
            **options,
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client
