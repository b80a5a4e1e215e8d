"""The ``hwbench`` command: one module a verb, each a thin caller of the library."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv`` (``sys.argv[1:]`` by default); returns the exit code.

    Imports happen inside, so that Ctrl-C ends in one line even while they run.
    """
    try:
        from hwbench.cli.frame import run

        return run(sys.argv[1:] if argv is None else argv)
    except KeyboardInterrupt as interrupt:
        # A verb that keeps what it has done so far says so in the exception.
        sys.stderr.write(": ".join(["hwbench", "interrupted", *map(str, interrupt.args)]) + "\n")
        return 130
