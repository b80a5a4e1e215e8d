"""``hwbench devices``: what there is to measure on."""

from __future__ import annotations

from hwbench import console
from hwbench.cli.options import Debug, Json


def devices(as_json: Json = False, debug: Debug = False) -> None:
    """List the devices that can be measured from here.

    Example:

    hwbench devices --json
    """
    from hwbench.devices import device_names, get_device

    found = [get_device(name) for name in device_names()]
    if as_json:
        console.write_json(
            {"devices": [{"name": d.name, "description": d.description} for d in found]}
        )
        return
    rows = [(device.name, device.description) for device in found]
    console.show(console.table(("device", "<what it is"), rows))
