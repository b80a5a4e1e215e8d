"""Campaigns in processes of their own, for the tests that interrupt or kill them.

``python -m tests.campaign COUNT``: for each folder that is read, a line, a child process measures
COUNT workloads on a local target into ``FOLDER/store.db``, one loaded at a time, all under the
campaign ``sweep``. Printed are the child's number, the name of each workload once it is stored,
and at the end "ended" with the exit code, or minus the signal.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from hwbench.measure import session
from hwbench.measure.campaign import record
from hwbench.measure.plan import Plan
from hwbench.store import Store, core  # noqa: F401 - loaded before the start, not after
from tests.targets import LocalTarget, job, runner

PLAN = Plan(processes=2, seconds=1e-3, loaded=1)
session.TURNS_SECONDS = 0.0  # each workload is stored when it is done, not all at the end


def measure(here: Path, count: int) -> None:
    jobs = [job(f"net{i}", runner(here, us=20 + i)) for i in range(count)]
    with Store.open(here / "store.db") as store:
        for result in record(LocalTarget(here), jobs, PLAN, store, None, campaign="sweep"):
            os.write(1, f"{result.workload.name}\n".encode())


def main(count: str) -> None:
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.write(1, f"{os.getpid()}\n".encode())
                measure(Path(line.rstrip("\n")), int(count))
                code = 0
            finally:
                os._exit(code)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        os.write(1, f"ended {status}\n".encode())


if __name__ == "__main__":
    main(*sys.argv[1:])
