"""How long the report of a large store takes: to build, and to stand in a browser.

    python results/report.py FOLDER

writes a store of 1,000 measurements with 104,000 samples on 20 devices, and times ``hwbench
report`` on it as a command; then a page of 10,000 measurements in 200 series, and what chromium
(headless) says of its first paint and its loading, five times. It needs a clone: the browser's
driver is that of the tests.
"""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from hwbench.store import Store
from tests.browser.chromium import Browser
from tests.lived_in import with_runs
from tests.stores import calibration, device, history

PAINTED = "performance.getEntriesByType('paint').find(e => e.name === 'first-paint')?.startTime"
LOADED = "performance.getEntriesByType('navigation')[0].loadEventEnd"


def stored(path: Path, nets: int, points: int, runs: int) -> Path:
    """A store of 20 devices, so many nets on each, so many points a net, so many runs a point."""
    with Store.open(path) as store:
        for number in range(20):
            place = device(number)
            store.add_epoch(calibration(place))
            for net in range(nets):
                made = history(f"net{net}", place, [2.0 + net] * points, seed=number * nets + net)
                store.merge(with_runs(m, day, count=runs) for day, m in enumerate(made))
    return path


def built(store: Path, site: Path) -> str:
    """How long ``hwbench report`` takes from the command to its end, and of a core."""
    command = [sys.executable, "-m", "hwbench", "report", "--store", str(store), "-o", str(site)]
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, capture_output=True)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    core = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return f"{wall:.1f} s ({core:.1f} s of a core)"


def say(line: str) -> None:
    """A line of standard output."""
    sys.stdout.write(f"{line}\n")


def main(folder: str) -> None:
    """Print all figures."""
    here = Path(folder)
    here.mkdir(parents=True, exist_ok=True)
    store = stored(here / "samples.db", 5, 10, 104)
    for _ in range(3):
        say(f"built from 104,000 samples in {built(store, here / 'samples')}")
    site = here / "measurements"
    store = stored(here / "measurements.db", 10, 50, 16)
    say(f"built from 10,000 measurements in {built(store, site)}")
    size = (site / "index.html").stat().st_size / 1e6
    binary = shutil.which("chromium")
    if binary is None:
        sys.exit("no chromium, so no page was timed: apt-get install chromium")
    times = []
    for _ in range(5):
        with tempfile.TemporaryDirectory() as profile, Browser(binary, Path(profile)) as browser:
            browser.screen(1280, 900, "light")
            browser.open(site / "index.html")
            browser.wait_for(f"{LOADED} > 0 && {PAINTED}")
            times.append([round(browser.evaluate(each)) for each in (PAINTED, LOADED)])
    say(f"page of {size:.1f} MB: first paint and loaded, ms: {times}")


if __name__ == "__main__":
    main(*sys.argv[1:])
