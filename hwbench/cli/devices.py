"""``hwbench devices``: what there is to measure on."""

from __future__ import annotations

from hwbench import console
from hwbench.cli.options import Debug, Json


def devices(as_json: Json = False, debug: Debug = False) -> None:
    """List the devices that can be measured from here.

    Example:

    hwbench devices --json
    """
    from hwbench.devices import device_class, device_names

    found = {kind: device_class(kind).description for kind in device_names()}
    if as_json:
        console.write_json(
            {"devices": [{"name": n, "description": text} for n, text in found.items()]}
        )
        return
    console.show(console.table(("device", "<what it is"), list(found.items())))
