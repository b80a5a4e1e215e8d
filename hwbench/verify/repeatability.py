"""Does the instrument agree with itself? Fresh runs of the same models, under three conditions.

Every method times the same models again and again, each time from fresh processes; the figure is
the difference between two runs of one model. Methods: ours; the median of one model after the
other; ``torch.utils.benchmark``'s adaptive mode; and, from our own bursts, the interleaved
minimum and median, which share our processes and our interleaving but not our canaries.
Conditions: the machine left alone; a neighbour that computes; a neighbour that streams through
memory. Pairs are taken within a condition and across conditions, for every method of those cells
(run, model) where ours gave an answer at all.

Coverage is judged against **direct** times: those of bursts that met a quiet machine, of
processes of their own spread over the whole check; no ratio is in them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwbench.errors import TORCH_MISSING, WorkerError
from hwbench.measure.campaign import anchor
from hwbench.measure.estimate import KINDS
from hwbench.measure.jobs import Job
from hwbench.measure.plan import Failure, Plan
from hwbench.measure.process import QUIET
from hwbench.measure.result import burst_times
from hwbench.measure.session import measure
from hwbench.records import CAUSES, CanaryEpoch, Measurement, Outcome, Verdict
from hwbench.verify.frame import Claim, Setting
from hwbench.verify.workloads import CONV_CLASSES, check_models

CONDITIONS = ("idle", "compute", "stream")
RIVALS = ("sequential_median", "torch_adaptive")
BY_PRODUCTS = ("interleaved_minimum", "interleaved_median")
METHODS = ("hwbench", *RIVALS, *BY_PRODUCTS)
RUNS, QUICK_RUNS = 4, 3
REFERENCE_PROCESSES = 3  # a visit; one visit before each round of conditions
SECONDS = 1.0
#: A little less for us, whose rounds are not cut short when the time is up.
OUR_SECONDS = 0.88
#: A burst met a quiet machine when the canaries' mean was this near to their canonical times, and
#: what its process's share of the cache does to the model, by its sensitivity, less than this.
QUIET_COMPUTE, QUIET_MEMORY, QUIET_CACHE_EFFECT = 0.01, 0.05, 0.01

Array = NDArray[np.float64]


@contextmanager
def neighbour(kind: str) -> Iterator[None]:
    """Keep one core busy with ``compute`` or ``stream``; ``idle`` does nothing."""
    if kind == "idle":
        yield
        return
    script = Path(__file__).with_name("load.py")
    with subprocess.Popen([sys.executable, str(script), kind], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            if not process.stdout.readline():  # it says when its imports are done
                code = process.wait()
                raise WorkerError(f"the {kind} load generator ended with code {code}")
            yield
        finally:
            process.kill()


@dataclass(slots=True)
class Table:
    """Times in ns by method and condition: one row a run, one column a model."""

    models: list[str]
    classes: list[str]
    times: dict[tuple[str, str], list[Array]] = field(default_factory=dict)
    seconds: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    ours: list[tuple[str, list[Measurement | None]]] = field(default_factory=list)

    def add(self, method: str, condition: str, times: Sequence[float], seconds: float) -> None:
        """Add one run of a method."""
        self.times.setdefault((method, condition), []).append(np.array(times, float))
        self.seconds.setdefault((method, condition), []).append(seconds / len(self.models))

    def within(self, method: str, conditions: Sequence[str], columns: list[int]) -> Array:
        """Relative differences in % between runs of one condition, all pairs, pooled."""
        found = []
        for condition in conditions:
            log = self._logs(method, condition)[:, columns]
            rows, others = np.triu_indices(len(log), 1)
            found.append(np.abs(log[rows] - log[others]).ravel())
        return _known(np.concatenate(found) * 100)

    def across(self, method: str, columns: list[int]) -> Array:
        """Relative differences in % between runs of different conditions."""
        logs = [self._logs(method, c)[:, columns] for c in CONDITIONS]
        pairs = [(a, b) for i, a in enumerate(logs) for b in logs[i + 1 :]]
        return _known(
            np.concatenate([np.abs(a[:, None] - b[None]).ravel() for a, b in pairs]) * 100
        )

    def _logs(self, method: str, condition: str) -> Array:
        """Log times (runs, models); NaN where hwbench claimed no number, for every method.

        Those cells are the hard ones: leaving them out of one row only would flatter it.
        """
        ours, theirs = (np.array(self.times[m, condition]) for m in ("hwbench", method))
        return np.asarray(np.log(np.where(np.isfinite(ours), theirs, np.nan)))


def _known(values: Array) -> Array:
    return np.asarray(values[np.isfinite(values)])


class Repeatability(Claim):
    """This project's own first claim."""

    name = "repeatability"
    text = (
        "latencies agree with themselves: median difference of fresh runs <= 0.5 % (p90 <= 1.5 %) "
        "idle and <= 1 % (3 %) beside a load, at <= 1 s a model; intervals hold"
    )
    protocol = (
        "K fresh runs of models of five classes under three conditions, five methods in turn; "
        "coverage against direct quiet times of separate processes"
    )

    def run(self, setting: Setting) -> list[Verdict]:
        """About 7 minutes; with ``quick`` about 3. Without torch one rival is missing: no test."""
        if find_spec("torch") is None:
            return [self.verdict("not testable here", {"reason": TORCH_MISSING})]
        runs = QUICK_RUNS if setting.quick else RUNS
        with tempfile.TemporaryDirectory(prefix="hwbench-check-") as folder:
            models = check_models(quick=setting.quick)
            jobs = [setting.device.job(model, 1) for _, model in models]
            setting.progress("calibrating", 0.0)
            epoch = anchor(setting.device, 1, setting.store)
            table = Table([j.workload.name for j in jobs], [kind for kind, _ in models])
            reference: list[Measurement] = []
            steps = runs * (1 + len(CONDITIONS))
            for index in range(runs):
                setting.progress("quiet reference", index / runs)
                reference += _reference(setting, jobs, epoch)
                for number, condition in enumerate(CONDITIONS, 1):
                    share = (index * (1 + len(CONDITIONS)) + number) / steps
                    setting.progress(f"run {index + 1} of {runs}, {condition}", share)
                    with neighbour(condition):
                        _run_methods(setting, jobs, epoch, table, condition, Path(folder))
        kinds = [canary.kind for canary in setting.device.canaries(1)]
        truth = direct_quiet(reference, table.models, epoch, kinds)
        evidence = {"quick": setting.quick, **summarise(table, truth)}
        figure = setting.folder / "repeatability.png"
        from hwbench.verify.figures import repeatability_figure

        repeatability_figure(table, METHODS, CONDITIONS, figure)
        return [self.verdict(judge(evidence), evidence, figure)]


def _reference(setting: Setting, jobs: Sequence[Job], epoch: CanaryEpoch) -> list[Measurement]:
    plan = Plan(processes=REFERENCE_PROCESSES, seconds=SECONDS)
    results = measure(setting.device, jobs, plan, epoch)
    return [r for r in results if isinstance(r, Measurement)]


def _run_methods(
    setting: Setting,
    jobs: Sequence[Job],
    epoch: CanaryEpoch,
    table: Table,
    condition: str,
    folder: Path,
) -> None:
    start = time.monotonic()
    plan = Plan(seconds=OUR_SECONDS)
    found: dict[str, Measurement] = {}
    for result in measure(setting.device, jobs, plan, epoch):
        if not isinstance(result, Failure):
            found[result.workload.name] = result
    seconds = time.monotonic() - start
    ours = [found.get(name) for name in table.models]
    table.ours.append((condition, ours))
    table.add("hwbench", condition, [_latency(m) for m in ours], seconds)
    bursts = [None if m is None else m.bursts.sample_ns for m in ours]
    nan = float("nan")
    minimum = [nan if b is None else float(b.min()) for b in bursts]
    median = [nan if b is None else float(np.median(b)) for b in bursts]
    table.add("interleaved_minimum", condition, minimum, seconds)
    table.add("interleaved_median", condition, median, seconds)
    models = []
    for job in jobs:
        runner = job.build(folder)
        models.append({"file": runner.file, "args": dict(runner.args)})
    for method in RIVALS:
        start = time.monotonic()
        times = run_rival(setting.device.python, method, models, SECONDS)
        table.add(method, condition, times, time.monotonic() - start)


def _latency(measurement: Measurement | None) -> float:
    """The undisturbed latency, NaN where the engine said that it does not know."""
    usable = measurement is not None and measurement.status == "ok" and measurement.latency_ns
    return float(usable) if usable else float("nan")


def run_rival(
    python: str, method: str, models: list[dict[str, Any]], seconds: float
) -> list[float]:
    """Times in ns of all models by one of the rivals, in a process of its own."""
    request = json.dumps({"method": method, "seconds": seconds, "models": models})
    script = Path(__file__).with_name("rivals.py")
    done = subprocess.run(
        [python, str(script)],
        input=request,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **QUIET},  # the same silence as around our own workers
    )
    if done.returncode:
        tail = done.stderr.strip().splitlines()
        raise WorkerError(f"{method} failed: {tail[-1] if tail else done.returncode}")
    times: list[float] = json.loads(done.stdout)
    return times


def direct_quiet(
    reference: Sequence[Measurement],
    models: Sequence[str],
    epoch: CanaryEpoch,
    kinds: Sequence[str],
) -> dict[str, tuple[float, float, int]]:
    """(log time, standard error, processes) of each model from quiet bursts alone.

    ``kinds`` are those of the epoch's canaries. A process counts with the median of its quiet
    bursts when it had three or more. Fewer than five such processes give no truth for that model.
    """
    compute, memory, cache = (np.array(kinds) == kind for kind in KINDS)
    truth = {}
    for model in models:
        levels = []
        for record in (m for m in reference if m.workload.name == model):
            state = np.log(record.bursts.canary_ns / np.array(epoch.c0_ns)).mean(axis=1)
            quiet = np.abs(state[:, compute].mean(axis=1)) <= QUIET_COMPUTE
            quiet &= np.abs(state[:, memory].mean(axis=1)) <= QUIET_MEMORY
            quiet &= record.bursts.cause == CAUSES.index("kept")
            felt = state[:, cache] @ np.array(record.beta)[cache]
            times = np.log(burst_times(record.bursts))
            for process in np.unique(record.bursts.process):
                own = record.bursts.process == process
                chosen = quiet & own
                if chosen.sum() >= 3 and abs(felt[own].mean()) <= QUIET_CACHE_EFFECT:
                    levels.append(float(np.median(times[chosen])))
        if len(levels) >= 5:
            se = float(np.std(levels, ddof=1) / np.sqrt(len(levels)))
            truth[model] = (float(np.mean(levels)), se, len(levels))
    return truth


def summarise(table: Table, truth: dict[str, tuple[float, float, int]]) -> dict[str, Any]:
    """All figures of the check."""
    columns = {
        "all": list(range(len(table.models))),
        **{
            kind: [i for i, c in enumerate(table.classes) if c == kind]
            for kind in dict.fromkeys(table.classes)
        },
    }
    evidence: dict[str, Any] = {
        method: {
            "idle": _spread(table, method, ["idle"], columns["all"]),
            "loaded": _spread(table, method, ["compute", "stream"], columns["all"]),
            "across": _quantiles(table.across(method, columns["all"])),
        }
        for method in METHODS
    }
    evidence["by_class"] = {
        kind: {
            method: {
                "idle": _quantiles(table.within(method, ["idle"], chosen)),
                "loaded": _quantiles(table.within(method, ["compute", "stream"], chosen)),
                "across": _quantiles(table.across(method, chosen)),
            }
            for method in METHODS
        }
        for kind, chosen in columns.items()
        if kind != "all"
    }
    conv = [i for i, kind in enumerate(table.classes) if kind in CONV_CLASSES]
    others = [i for i in columns["all"] if i not in conv]
    evidence["across_conv"] = _quantiles(table.across("hwbench", conv))
    evidence["across_others"] = _quantiles(table.across("hwbench", others))
    return {**evidence, **_truthfulness(table, truth)}


def _spread(
    table: Table, method: str, conditions: list[str], columns: list[int]
) -> dict[str, float | None]:
    seconds = [s for c in conditions for s in table.seconds[method, c]]
    return {
        **_quantiles(table.within(method, conditions, columns)),
        "seconds_per_model": round(float(np.mean(seconds)), 3),
    }


def _quantiles(values: Array) -> dict[str, float | None]:
    if values.size == 0:
        return {"median_pct": None, "p90_pct": None, "pairs": 0}
    median, high = np.percentile(values, [50, 90])
    return {
        "median_pct": round(float(median), 3),
        "p90_pct": round(float(high), 3),
        "pairs": int(values.size),
    }


def _truthfulness(table: Table, truth: dict[str, tuple[float, float, int]]) -> dict[str, Any]:
    """Coverage, bias by class and half-widths against the direct quiet times."""
    rows, halves = [], []
    inconclusive = total = 0
    for condition, run in table.ours:
        for kind, record in zip(table.classes, run, strict=True):
            total += 1
            if record is None or record.status != "ok":
                inconclusive += 1
                continue
            if not (record.latency_ns and record.low_ns and record.high_ns):
                continue
            low, high = np.log(record.low_ns), np.log(record.high_ns)
            half = (high - low) / 2
            halves.append((condition == "idle", half))
            known = truth.get(record.workload.name)
            if known is None:
                continue
            log, se, _ = known
            # The truth has an error of its own: widen by it, as for any comparison of two.
            slack = np.hypot(half, 1.96 * se) - half
            held = low - slack <= log <= high + slack
            rows.append((kind, held, np.log(record.latency_ns) - log))
    held = [h for _, h, _ in rows]
    bias = {
        kind: round(100 * float(np.median([b for k, _, b in rows if k == kind])), 3)
        for kind in dict.fromkeys(k for k, *_ in rows)
    }
    width = {
        name: round(100 * float(np.median([h for i, h in halves if i == idle])), 3)
        for name, idle in (("idle", True), ("loaded", False))
        if any(i == idle for i, _ in halves)
    }
    return {
        "coverage_95": round(float(np.mean(held)), 3) if held else None,
        "coverage_cases": len(held),
        "bias_pct": bias,
        "half_width_pct": width,
        "inconclusive_share": round(inconclusive / total, 3) if total else None,
        "truth_processes": min((n for *_, n in truth.values()), default=0),
        "truth_models": len(truth),
    }


def judge(evidence: dict[str, Any]) -> Outcome:
    """Confirmed when every bar of the claim is met, partly when most are.

    Adds ``bars``, each bar with whether it is met, and ``bars_met`` to the evidence.
    """
    idle, loaded = evidence["hwbench"]["idle"], evidence["hwbench"]["loaded"]
    coverage, width = evidence["coverage_95"], evidence["half_width_pct"]
    conv, others = evidence["across_conv"], evidence["across_others"]

    def within(figures: dict[str, Any], median: float, p90: float) -> bool:
        """Met by figures that exist: no pair of answers meets no bar."""
        found = figures["median_pct"], figures["p90_pct"]
        return None not in found and found[0] <= median and found[1] <= p90

    def better(method: str, condition: str, times: float) -> bool:
        theirs, mine = (evidence[m][condition]["median_pct"] for m in (method, "hwbench"))
        return None not in (theirs, mine) and theirs >= times * mine

    bars = {
        "idle, median / p90 <= 0.5 / 1.5 %": within(idle, 0.5, 1.5),
        "loaded, median / p90 <= 1 / 3 %": within(loaded, 1, 3),
        "across conditions, conv <= 1 / 3 %": within(conv, 1, 3),
        "across conditions, others <= 3 / 6 %": within(others, 3, 6),
        "inconclusive <= 10 %": evidence["inconclusive_share"] <= 0.10,
        "<= 1 s a model": idle["seconds_per_model"] <= 1.0,
        "coverage 90 to 98 %": coverage is not None and 0.90 <= coverage <= 0.98,
        "half-width <= 1 % idle": width.get("idle", 100) <= 1,
        "half-width <= 2 % loaded": width.get("loaded", 100) <= 2,
        "bias <= 1 % conv, <= 3 % others": set(evidence["bias_pct"]) == set(evidence["by_class"])
        and all(
            abs(b) <= (1 if kind in CONV_CLASSES else 3) for kind, b in evidence["bias_pct"].items()
        ),
        "3 times better than its rivals, idle": all(better(m, "idle", 3) for m in RIVALS),
        "3 times better than its rivals, loaded": all(better(m, "loaded", 3) for m in RIVALS),
        "better across conditions than any other": all(
            better(m, "across", 1) for m in (*RIVALS, *BY_PRODUCTS)
        ),
    }
    evidence["bars"] = {name: bool(met) for name, met in bars.items()}
    evidence["bars_met"] = f"{sum(bars.values())} of {len(bars)}"
    if all(bars.values()):
        return "confirmed"
    return "partly" if sum(bars.values()) > len(bars) / 2 else "refuted"
