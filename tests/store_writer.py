"""Processes that write a store, for the tests that share it or kill them.

``python -m tests.store_writer STORE PLAN COUNT PROCESSES``: PROCESSES forks wait for a line on
the standard input; then each opens STORE and adds measurements 0 .. COUNT-1, process p from
number p on, all under PLAN ("-": none, and the session is the process's own). After each
``add`` has returned, its number is printed.
"""

from __future__ import annotations

import os
import sys

from hwbench.store import Store, core  # noqa: F401 - loaded before the start, not after
from tests.measurements import measurement


def write(store: str, plan: str, count: int, process: int) -> None:
    with Store.open(store) as opened:
        for step in range(count):
            number = (process + step) % count
            session = f"session-{process}"
            opened.add(measurement(number, session=session), plan=None if plan == "-" else plan)
            os.write(1, b"%d\n" % number)


def main(store: str, plan: str, count: str, processes: str) -> None:
    if "://" in store:
        import psycopg  # noqa: F401 - as above
    children = []
    gate, opener = os.pipe()
    for process in range(int(processes)):
        child = os.fork()
        if child == 0:
            os.close(opener)
            os.read(gate, 1)  # returns at the end of file: all start at once
            write(store, plan, int(count), process)
            os._exit(0)
        children.append(child)
    os.write(1, b"ready\n")
    sys.stdin.readline()
    os.close(opener)
    sys.exit(any(os.waitpid(child, 0)[1] for child in children))


if __name__ == "__main__":
    main(*sys.argv[1:])
