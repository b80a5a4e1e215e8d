"""``hwbench devices``: what there is to measure on."""

from __future__ import annotations

from hwbench import console
from hwbench.cli.options import Debug, Json
from hwbench.errors import PluginError


def devices(as_json: Json = False, debug: Debug = False) -> None:
    """List the devices that can be measured from here, and the package each comes from.

    Example:

    hwbench devices --json
    """
    from hwbench.devices import device_class, device_packages

    found = []
    for kind, package in device_packages().items():
        try:
            description = device_class(kind).description
        except PluginError as error:  # one bad package hides no other's
            console.note(str(error))
            continue
        found.append({"name": kind, "description": description, "package": package})
    if as_json:
        console.write_json({"devices": found})
        return
    rows = [list(entry.values()) for entry in found]
    console.show(console.table(("device", "<what it is", "<package"), rows))
