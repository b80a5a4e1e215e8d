"""``hwbench fleet``: lend devices to others, and see who has which; verbs over all of them."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hwbench import console
from hwbench.cli.options import Debug, DeviceOptions, Json, choices, listed
from hwbench.errors import UsageError

if TYPE_CHECKING:
    from distributed import Client

    from hwbench.fleet.models import FleetModels
    from hwbench.fleet.sweep import FleetSweep, Spread
    from hwbench.measure.plan import Failure
    from hwbench.records import Measurement
    from hwbench.store import Store

Address = Annotated[
    str, typer.Argument(metavar="ADDRESS", help="The scheduler's, as tcp://127.0.0.1:8786.")
]
Tls = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER", help="Certificates for tls://: ca.pem, cert.pem and key.pem lie in it."
    ),
]

Fleet = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="Over all devices of the kind -d of a fleet; or local: over the devices -d A,B.",
    ),
]
Priority = Annotated[int, typer.Option(metavar="N", help="In a fleet's queue: larger goes first.")]


def scheduler(
    address: Address = "tcp://127.0.0.1:8786",
    tls: Tls = None,
    debug: Debug = False,
) -> None:
    """Run the scheduler that workers and clients meet at, until Ctrl-C.

    Beyond this machine its address begins with tls://, and everyone shows a certificate of one
    authority: Dask's messages can carry code, so who holds one may run it on all of them.

    Example:

    hwbench fleet scheduler tcp://127.0.0.1:8786
    """
    from hwbench.fleet.serve import run_scheduler

    run_scheduler(address, tls, lambda at: console.note(f"the fleet meets at {at}"))


def worker(
    address: Address,
    devices: Annotated[
        str | None,
        typer.Option(
            metavar="DEVICE,…", help="What to lend: cpu, adb:SERIAL, or KIND=DEVICE of a kind."
        ),
    ] = None,
    compute: Annotated[
        bool,
        typer.Option(
            "--compute",
            metavar="",
            help="Evaluate networks for searches, too, while none of its devices measures.",
        ),
    ] = False,
    option: DeviceOptions = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="This host's name (default: its own).")
    ] = None,
    listen: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="This machine's address that others reach it at."),
    ] = None,
    failures: Annotated[
        int,
        typer.Option(min=1, metavar="K", help="A device that fails so often in a row rests."),
    ] = 3,
    tls: Tls = None,
    debug: Debug = False,
) -> None:
    """Lend this machine's devices to a fleet, one block of measurements at a time each.

    Devices that run on this machine's own cores take turns. One that failed K times in a row is
    set aside until the worker is started again. A host has one worker for all that runs on its own
    cores: only then does none of it measure while the host computes. Another one needs a --name.

    Example:

    hwbench fleet worker tcp://127.0.0.1:8786 --devices cpu

    hwbench fleet worker tls://lab:8786 --tls certs --listen 10.0.0.7 --devices pixel7=adb:SERIAL

    hwbench fleet worker tcp://127.0.0.1:8786 --compute
    """
    from hwbench.fleet.seats import Seats, seats_of
    from hwbench.fleet.serve import run_worker

    host = name or platform.node()
    if not host.isprintable() or any(c.isspace() or c == "@" for c in host):
        raise UsageError(f"--name {host!r}: letters without blanks or @ between them")
    if devices is None and not compute:
        raise UsageError("a worker lends devices, computes, or both: give --devices or --compute")
    names = [] if devices is None else listed("--devices", devices)
    seats = Seats(seats_of(names, choices("--option", option or ()), host), failures)

    def ready(at: str) -> None:
        lent = [f"{seat['device']} ({seat['kind']})" for seat in seats.told()]
        lent += ["this host's cores"] * compute
        console.note(f"lending {', '.join(lent)} to {address}")

    run_worker(address, tls, seats, name=host, computes=compute, listen=listen, ready=ready)


def status(
    address: Address = "tcp://127.0.0.1:8786",
    tls: Tls = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Show a fleet's devices, what they do, and what waits for them.

    Example:

    hwbench fleet status tcp://127.0.0.1:8786
    """
    from hwbench.fleet.link import connected
    from hwbench.fleet.standing import standing

    with connected(address, tls) as client:
        found = standing(client)
    if as_json:
        console.write_json(found)
        return
    rows = [
        (d["device"], d["kind"], d["state"], d["blocks"], d["word"] or None)
        for d in found["devices"]
    ]
    console.show(console.table(("device", "<kind", "<state", "blocks done", "<last failure"), rows))
    waiting = [(b["kind"], b["priority"], b["blocks"]) for b in found["blocks"]]
    if waiting:
        console.show(console.table(("kind", "priority", "blocks to do"), waiting))
    if found["computing"]:
        console.show(f"Computing between measurements: {', '.join(found['computing'])}")


# --- verbs with --fleet -------------------------------------------------------------------


@contextmanager
def fleet_at(
    address: str, tls: Path | None, device: str, options: Mapping[str, str]
) -> Iterator[tuple[Client, str]]:
    """The fleet at an address, or (``local``) one of devices of this machine; and their kind."""
    from hwbench.fleet import link
    from hwbench.fleet.seats import Seats, seats_of

    if address == link.LOCAL:
        seats = seats_of([f"{link.LOCAL}={name}" for name in listed("-d", device)], options, None)
        with link.local_cluster(Seats(seats)) as client:
            yield client, link.LOCAL
        return
    if options:
        raise UsageError("a fleet's devices have the options that their worker gave them")
    with link.connected(address, tls) as client:
        yield client, device


@contextmanager
def fleet_models(
    address: str,
    tls: Path | None,
    device: str,
    option: Sequence[str] | None,
    cores: str | None,
    threads: int,
    priority: int,
) -> Iterator[FleetModels]:
    """What measures model files over a fleet, as :func:`fleet_at` finds it."""
    from hwbench.fleet.models import FleetModels

    if cores is not None:
        raise UsageError(
            "--cores are this process's: a fleet's worker is started on its own, as by taskset"
        )
    options = choices("--option", option or ())
    with fleet_at(address, tls, device, options) as (client, kind):
        yield FleetModels(client, kind, threads=threads, priority=priority)


def on_devices(spread: Spread) -> str:
    """On how many devices there will be work; what is amiss with others is noted."""
    on = f"on {console.counted(len(spread.devices), 'device')}"
    for word in spread.unfit:
        console.note(f"left out: {word}")
    return on


def measure_over(
    sweep: FleetSweep,
    store: Store,
    held: Sequence[Measurement],
    *,
    redo: bool,
    seconds: float | None,
) -> list[Failure]:
    """Measure over the fleet what ``held`` lacks; answers the failures."""
    from hwbench.devices.profile import PROFILE_PLAN
    from hwbench.records import Measurement

    done = {sweep.key_of(m) for m in held if not redo or m.status != "inconclusive"}
    missing = [arch for arch in dict.fromkeys(sweep.keys) if arch not in done]
    if not missing:
        return []
    plan = PROFILE_PLAN if seconds is None else replace(PROFILE_PLAN, seconds=seconds)
    on = on_devices(sweep)
    with console.progress("calibrating the devices' canaries") as report:
        for word in sweep.calibrate(store, report):
            console.note(word)
    # A campaign keeps the first measurement of a workload alone.
    campaign = None if redo else sweep.campaign(store)
    what = f"measuring {console.counted(len(missing), 'architecture')} {on}"
    with console.progress(what) as report:
        answers = sweep.run(store, plan, missing, campaign=campaign, progress=report)
        return [answer for answer in answers if not isinstance(answer, Measurement)]
