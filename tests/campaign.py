"""Campaigns in processes of their own, for the tests that interrupt or kill them.

``python -m tests.campaign COUNT``: for each folder that is read, a line, a child process measures
COUNT workloads on a local target into ``FOLDER/store.db``, one loaded at a time, all under the
campaign ``sweep``. Printed are the child's number, the name of each workload once it is stored,
and at the end "ended" with the exit code, or minus the signal.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Self

import psutil

from hwbench.measure import session
from hwbench.measure.campaign import record
from hwbench.measure.plan import Plan
from hwbench.store import Store, core  # noqa: F401 - loaded before the start, not after
from tests.targets import LocalTarget, job, runner, workers

PLAN = Plan(processes=2, seconds=1e-3, loaded=1)


def measure(here: Path, count: int) -> None:
    jobs = [job(f"net{i}", runner(here, us=20 + i)) for i in range(count)]
    with Store.open(here / "store.db") as store:
        for result in record(LocalTarget(here), jobs, PLAN, store, None, campaign="sweep"):
            os.write(1, f"{result.workload.name}\n".encode())


class Campaigns:
    """``python -m tests.campaign``: one process after another measures the same sweep."""

    def __init__(self, root: Path, count: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.campaign", str(count)],
            cwd=root,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *how: object) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()

    def line(self) -> str:
        """What is printed next."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def begin(self, folder: Path) -> int:
        """Start a process that goes on with the sweep there; its number."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{folder}\n")
        self.process.stdin.flush()
        return int(self.line())

    def rest(self) -> tuple[list[str], int]:
        """Wait for its end: what it told, and its exit code, or minus the signal."""
        told = list[str]()
        while not (line := self.line()).startswith("ended "):
            told.append(line)
        return told, int(line.split()[1])

    def end(self, process: int, number: int) -> tuple[list[str], int]:
        """Send it the signal; then as :meth:`rest`. Its workers end with it."""
        below = list[psutil.Process]()
        with suppress(psutil.NoSuchProcess, ProcessLookupError):  # where it came to its end
            os.kill(process, signal.SIGSTOP)  # here, however long we take to look
            below = workers(process)
            os.kill(process, number)
            os.kill(process, signal.SIGCONT)
        ended = self.rest()
        _, alive = psutil.wait_procs(below, timeout=10)
        assert not alive, "a worker outlived its session"
        return ended


def main(count: str) -> None:
    session.TURNS_SECONDS = 0.0  # each workload is stored when it is done, not all at the end
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
