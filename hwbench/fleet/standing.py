"""What a fleet has and does at the moment."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from hwbench.fleet.computing import HOST, WHOLE
from hwbench.fleet.workers import workers_of

if TYPE_CHECKING:
    from distributed import Client


def standing(client: Client) -> dict[str, Any]:
    """Its devices, each with its worker, state and word; the blocks that wait or run; and the
    workers whose hosts compute.

    Blocks are counted by kind and priority. Workers that are none of hwbench's are left out.
    """
    workers = workers_of(client).values()
    devices = [
        {"worker": worker["name"], **seat}
        for worker in workers
        for seat in worker["metrics"].get("hwbench", [])
    ]
    computing = [w["name"] for w in workers if w["resources"].get(HOST, 0) >= WHOLE]
    blocks = client.run_on_scheduler(_blocks)
    return {
        "devices": sorted(devices, key=lambda d: (d["kind"], d["device"])),
        "blocks": [
            {"kind": kind, "priority": priority, "blocks": number}
            for (kind, priority), number in sorted(blocks.items(), key=lambda each: each[0])
        ],
        "computing": sorted(computing),
    }


def _blocks(dask_scheduler: Any) -> dict[tuple[str, int], int]:
    """On the scheduler: unfinished blocks by (kind, priority)."""
    open_ = ("processing", "no-worker", "queued", "waiting")
    tasks = [t for t in dask_scheduler.tasks.values() if t.state in open_]
    return dict(
        Counter(
            (kind, -t.priority[0])
            for t in tasks
            for kind in t.resource_restrictions or {}
            if kind != HOST
        )
    )
