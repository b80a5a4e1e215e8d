"""A campaign in a process of its own, for the tests that interrupt or kill it.

``python -m tests.campaign FOLDER COUNT``: measures COUNT workloads on a local target into
``FOLDER/store.db``, one loaded at a time, all under the campaign ``sweep``. "ready" is printed
before the first, and the name of each once it is stored.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from hwbench.measure.campaign import record
from hwbench.measure.plan import Plan
from hwbench.store import Store
from tests.targets import LocalTarget, job, runner

PLAN = Plan(processes=2, seconds=1e-3, loaded=1)


def main(folder: str, count: str) -> None:
    here = Path(folder)
    jobs = [job(f"net{i}", runner(here, us=20 + i)) for i in range(int(count))]
    os.write(1, b"ready\n")
    with Store.open(here / "store.db") as store:
        for result in record(LocalTarget(here), jobs, PLAN, store, None, campaign="sweep"):
            os.write(1, f"{result.workload.name}\n".encode())


if __name__ == "__main__":
    main(*sys.argv[1:])
