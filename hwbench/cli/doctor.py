"""``hwbench doctor``: is this device fit to be measured?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from hwbench import console
from hwbench.cli.options import Debug, DeviceName, Json, StoreUrl, Threads, opened
from hwbench.errors import EXIT_DEVICE

if TYPE_CHECKING:
    from rich.table import Table

    from hwbench.devices.base import Device
    from hwbench.records import CanaryEpoch
    from hwbench.store import Store


def doctor(
    device: DeviceName = "cpu",
    threads: Threads = 1,
    store: StoreUrl = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Check a device by real inference, name what disturbs it, and calibrate its canaries.

    Example:

    hwbench doctor -d cpu
    """
    from hwbench.devices import get_device

    target = get_device(device)
    checks = target.health()
    failed = any(check.state == "fail" for check in checks)
    with opened(store) as results:
        epoch = None if failed else calibrated(target, threads, results)
    if as_json:
        console.write_json({"device": device, "ok": not failed, "checks": checks, "epoch": epoch})
    else:
        rows = [(c.name, c.state, c.detail + (f": {c.cure}" if c.cure else "")) for c in checks]
        console.show(f"Device {device}", console.table(("check", "<state", "<finding"), rows))
        if epoch is not None:
            console.show(f"Canonical times of {epoch.created}", canary_table(epoch))
    if failed:
        raise typer.Exit(EXIT_DEVICE)


def calibrated(target: Device, threads: int, store: Store) -> CanaryEpoch:
    """The device's epoch; where there is none, one from a calibration that is shown going on."""
    from hwbench.measure.campaign import anchor

    with console.progress("calibrating the canaries") as report:
        return anchor(target, threads, store, report)


def canary_table(epoch: CanaryEpoch) -> Table:
    """The canonical time of each canary, in microseconds."""
    times = zip(epoch.names, epoch.c0_ns, epoch.c0_low_ns, epoch.c0_high_ns, strict=True)
    rows = [(name, c0 / 1e3, low / 1e3, high / 1e3) for name, c0, low, high in times]
    return console.table(("canary", "time us", "95 % from", "to"), rows)
