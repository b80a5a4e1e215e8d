"""Start a phone by hand: ``python -m tests.loopback --adb PATH``, until Ctrl-C."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys

from tests.loopback.phone import MODEL, LoopbackPhone
from tests.loopback.states import STATES


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.loopback", description=__doc__)
    parser.add_argument("--adb", default="adb", help="the adb client that connects to it")
    parser.add_argument("--port", type=int, default=0, help="the phone's port (default: free)")
    parser.add_argument("--model", default=MODEL, help="ro.product.model")
    parser.add_argument("--state", choices=sorted(STATES), default="cool")
    options = parser.parse_args()
    for end in (signal.SIGINT, signal.SIGTERM):  # a job in the background ignores the first
        signal.signal(end, signal.default_int_handler)
    with (
        contextlib.suppress(KeyboardInterrupt),
        LoopbackPhone(model=options.model, port=options.port) as phone,
    ):
        phone.set_state(options.state)
        phone.connect(options.adb)
        sys.stdout.write(
            f"serial   {phone.serial}\n"
            f"folder   {phone.folder}\n"
            f"tool     {phone.tool}\n"
            f"state    {phone.state}\n"
            f"server   export ANDROID_ADB_SERVER_PORT={phone.env['ANDROID_ADB_SERVER_PORT']}\n"
        )
        sys.stdout.flush()
        signal.pause()


if __name__ == "__main__":
    main()
