"""The ``hwbench`` command: one module a verb, each a thin caller of the library."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from contextlib import suppress

#: What a scheduler or a closed terminal sends: cleaned up after like Ctrl-C.
_ENDS = (signal.SIGTERM, signal.SIGHUP)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv`` (``sys.argv[1:]`` by default); returns the exit code.

    Imports happen inside, so that Ctrl-C ends in one line even while they run.
    """
    ended = [signal.SIGINT]

    def stop(number: int, frame: object) -> None:
        ended[0] = signal.Signals(number)
        raise KeyboardInterrupt

    before = {}
    with suppress(ValueError):  # not in the main thread: whoever runs us ends us
        before = {number: signal.signal(number, stop) for number in _ENDS}
    try:
        from hwbench.cli.frame import run

        return run(sys.argv[1:] if argv is None else argv)
    except KeyboardInterrupt as interrupt:
        # A verb that keeps what it has done so far says so in the exception.
        sys.stderr.write(": ".join(["hwbench", "interrupted", *map(str, interrupt.args)]) + "\n")
        return 128 + ended[0]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
