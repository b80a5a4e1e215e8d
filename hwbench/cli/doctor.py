"""``hwbench doctor``: is this device fit to be measured?"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated

import typer

from hwbench import console
from hwbench.cli.options import (
    Debug,
    DeviceName,
    DeviceOptions,
    Json,
    StoreUrl,
    Threads,
    device_of,
    opened,
)
from hwbench.errors import EXIT_DEVICE

if TYPE_CHECKING:
    from rich.table import Table

    from hwbench.devices.base import Check, Device
    from hwbench.records import CanaryEpoch
    from hwbench.store import Store

#: A canary that moved by less than this (log ratio) is no reason for a new epoch.
WORTH_A_WORD = 0.01


def doctor(
    device: DeviceName = "cpu",
    option: DeviceOptions = None,
    threads: Threads = 1,
    recalibrate: Annotated[
        bool,
        typer.Option(
            "--recalibrate",
            metavar="",
            help="Set the canonical times anew: later milliseconds count from them.",
        ),
    ] = False,
    store: StoreUrl = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Check a device by real inference, name what disturbs it, and calibrate its canaries.

    Example:

    hwbench doctor -d cpu

    The canonical times are set once and never change by themselves. When the canaries of later
    sessions stay away from them, a line says so, and --recalibrate sets new ones.
    """
    target = device_of(device, option)
    checks = target.health()
    failed = any(check.state == "fail" for check in checks)
    with opened(store) as results:
        epoch = None if failed else calibrated(target, threads, results, anew=recalibrate)
        if epoch is not None:
            checks.append(_drift(target, epoch, results))
    if as_json:
        console.write_json(
            {"device": target.name, "ok": not failed, "checks": checks, "epoch": epoch}
        )
    else:
        rows = [(c.name, c.state, c.detail + (f": {c.cure}" if c.cure else "")) for c in checks]
        console.show(f"Device {target.name}", console.table(("check", "<state", "<finding"), rows))
        if epoch is not None:
            console.show(f"Canonical times of {epoch.created}", canary_table(epoch))
    if failed:
        raise typer.Exit(EXIT_DEVICE)


def calibrated(target: Device, threads: int, store: Store, *, anew: bool = False) -> CanaryEpoch:
    """The device's epoch; where there is none, one from a calibration that is shown going on.

    Says so where a busy machine left its times in doubt.
    """
    from hwbench.measure import campaign

    with console.progress("calibrating the canaries") as report:
        set_epoch = campaign.recalibrate if anew else campaign.anchor
        epoch = set_epoch(target, threads, store, report)
    if names := campaign.unsure(epoch):
        console.note(
            f"the canonical times of {', '.join(names)} are in doubt: the machine was busy when "
            "they were set. You may go on: what is measured on them compares with itself, but "
            "absolute times may be off. Better, before measuring much: hwbench doctor "
            f"-d {target.name} --recalibrate when the machine is quiet, which begins anew"
        )
    return epoch


def tell_load(target: Device, threads: int) -> None:
    """Say so where other programs keep busy the cores of this machine that the device measures on.

    A phone has its own, which its own checks look at.
    """
    from hwbench.devices.doctor import load

    if target.launcher(threads) is None and (check := load()).state == "warn":
        console.note(f"other programs keep {check.detail}: {check.cure}")


def _drift(target: Device, epoch: CanaryEpoch, store: Store) -> Check:
    """Whether the canaries of later sessions stayed with their epoch."""
    from hwbench.devices.base import Check
    from hwbench.measure.campaign import DRIFT_SESSIONS, drift_since

    found = drift_since(target, epoch, store)
    if found is None:
        detail = f"fewer than {DRIFT_SESSIONS} sessions since {epoch.created}: too early to tell"
        return Check("epoch", "ok", detail)
    away = {name: by for name, by in found.items() if abs(by) > WORTH_A_WORD}
    if not away:
        return Check("epoch", "ok", f"the canaries still read what they did on {epoch.created}")
    detail = ", ".join(f"{name} {math.expm1(by):+.1%}" for name, by in away.items())
    cure = "if the machine changed for good, hwbench doctor --recalibrate sets a new epoch"
    return Check("epoch", "warn", f"since {epoch.created} the canaries moved: {detail}", cure)


def canary_table(epoch: CanaryEpoch) -> Table:
    """The canonical time of each canary, in microseconds."""
    times = zip(epoch.names, epoch.c0_ns, epoch.c0_low_ns, epoch.c0_high_ns, strict=True)
    rows = [(name, c0 / 1e3, low / 1e3, high / 1e3) for name, c0, low, high in times]
    return console.table(("canary", "time us", "95 % from", "to"), rows)
