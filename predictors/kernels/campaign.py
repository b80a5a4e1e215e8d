"""Which networks to measure, and a file of samples that an interrupt leaves whole.

The first networks are of all families in turn. Later ones are those of which a predictor fitted
so far is least sure: of several that a family offers, the one with the widest prediction.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from hwbench.devices.base import Device
from hwbench.devices.environment import options_of
from hwbench.errors import PredictorError
from hwbench.measure.plan import Failure
from hwbench.predictors.kernels.predictor import KernelPredictor, fit_kernels
from hwbench.predictors.kernels.samples import (
    CASES,
    NetworkSample,
    append,
    families,
    network,
    read_samples,
    require_profiles,
    sample_cases,
    sample_networks,
    write_header,
)
from hwbench.predictors.kernels.training import LEAST_NETWORKS
from hwbench.predictors.predictor import Provenance
from hwbench.records import CanaryEpoch

#: Networks that a family offers for one that is chosen.
OFFERED = 6
#: Networks beyond those that a first fit needs, for a busy machine spoils one now and then; and how
#: often others are drawn for those that failed where too few are left for a fit.
SPARE, ROUNDS = 4, 4


def collect(
    path: Path,
    device: Device,
    n: int,
    threads: int,
    epoch: CanaryEpoch,
    report: Callable[[str, float], None],
    failed: Callable[[Failure], None],
) -> None:
    """Bring a file of samples to ``n`` networks: half of them in turn, half where it is unsure.

    What the file holds is not measured again, unless the library draws it otherwise by now;
    ``failed`` is told of each network that could not be measured. Have the file :func:`held`.
    """
    held = opened_samples(path, provenance_now(device, threads, epoch))
    profile_cases(path, device, threads, _as_drawn(held))

    def bring(wanted: Sequence[tuple[str, int]], label: str) -> None:
        progress = partial(report, label)
        for failure in measure_into(path, device, wanted, threads, epoch, progress):
            failed(failure)

    first = min(max(round(n / 2), LEAST_NETWORKS + SPARE), n)
    tried = done = _networks_of(path)
    for _ in range(ROUNDS):
        wanted = in_turn(len(tried) + first - len(done), tried)
        bring(wanted, "measuring networks")
        tried, done = tried | {*wanted}, _networks_of(path)
        if len(done) >= LEAST_NETWORKS:
            break
    if n > len(done):
        provenance, samples = read_samples(path)
        wanted = least_sure(fit_kernels(samples, provenance), n - len(done), done)
        bring(wanted, "measuring what is least sure")


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Keep a file of samples to this process, by a lock beside it that goes with the process.

    PredictorError names the process that holds it already.
    """
    beside = path.with_name(f".{path.name}.lock")
    try:
        lock = beside.open("a+", encoding="ascii")
    except OSError as error:
        raise PredictorError(f"cannot write {beside}: {error.strerror or error}") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise PredictorError(
                f"process {lock.read(20) or 'of another run'} is measuring into {path}: wait for "
                "it, or name another file with -o"
            ) from None
        except OSError as error:
            raise PredictorError(f"cannot lock {beside}: {error.strerror or error}") from None
        # The one who held it may have removed it since it was opened here.
        if not (beside.exists() and os.path.samestat(os.fstat(lock.fileno()), beside.stat())):
            raise PredictorError(f"another process has just left {path}: run it again")
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        try:
            yield
        finally:
            beside.unlink(missing_ok=True)


def _as_drawn(samples: Sequence[NetworkSample]) -> set[tuple[str, int]]:
    """Families and numbers of the samples that the library draws so still."""
    return {
        (sample.family, sample.number)
        for sample in samples
        if network(sample.family, sample.number).hash == sample.hash
    }


def _networks_of(path: Path) -> set[tuple[str, int]]:
    """The networks that a file holds, without the test cases."""
    return {each for each in _as_drawn(read_samples(path)[1]) if each[0] != CASES}


def require_ready(path: Path, device: Device, threads: int) -> None:
    """Refuse what is to fail anyway before the minutes that it takes to calibrate and measure.

    PredictorError where the file holds samples of something else, or none; ModelError or
    DeviceError where the device is not there or its runtime profiles no operators.
    """
    now = provenance_now(device, threads, None)
    if path.exists():
        found, _ = read_samples(path)
        _require_same(path, replace(found, epoch=None, c0_ns=()), now)
    require_profiles(device, threads)


def provenance_now(device: Device, threads: int, epoch: CanaryEpoch | None) -> Provenance:
    """Where samples that are measured now come from."""
    fingerprint = device.fingerprint(threads)
    runtime = fingerprint.facts.get("runtime", device.name)
    return Provenance(
        device=device.name,
        fingerprint_key=fingerprint.key,
        runtime=f"{runtime} {fingerprint.facts.get(runtime, '')}".strip(),
        threads=threads,
        epoch=epoch.id if epoch else None,
        c0_ns=epoch.c0_ns if epoch else (),
        options=options_of(device, threads),
    )


def _require_same(path: Path, found: Provenance, now: Provenance) -> None:
    if found != now:
        options = ", ".join(f"{name}={value}" for name, value in found.options) or "no options"
        raise PredictorError(
            f"{path} holds samples of another device, environment, option or canary epoch "
            f"({found.device}, {found.runtime}, {options}): name another file with -o"
        )


def opened_samples(path: Path, provenance: Provenance) -> list[NetworkSample]:
    """The samples of a file, which is begun where there is none.

    PredictorError where they are of another device, runtime, option or canary epoch.
    """
    if not path.exists():
        write_header(path, provenance)
        return []
    found, samples = read_samples(path)
    _require_same(path, found, provenance)
    content = path.read_bytes()
    if not content.endswith(b"\n"):  # what an interrupt cut short is measured again
        os.truncate(path, content.rfind(b"\n") + 1)
    return samples


def measure_into(
    path: Path,
    device: Device,
    wanted: Sequence[tuple[str, int]],
    threads: int,
    epoch: CanaryEpoch,
    progress: Callable[[float], None],
) -> Iterator[Failure]:
    """Measure networks and write each as it is profiled; yields those that could not be."""
    for result in sample_networks(device, wanted, threads, epoch, progress):
        if isinstance(result, Failure):
            yield result
        else:
            append(path, result)


def profile_cases(path: Path, device: Device, threads: int, done: set[tuple[str, int]]) -> None:
    """Profile the test cases and write them, unless the file holds them."""
    if not any(family == CASES for family, _ in done):
        for sample in sample_cases(device, threads):
            append(path, sample)


def in_turn(n: int, done: set[tuple[str, int]]) -> list[tuple[str, int]]:
    """Networks of all families in turn, until ``n`` are done."""
    every = families()
    turns = ((family, number) for number in range(n) for family in every)
    missing = [each for each in turns if each not in done]
    return missing[: max(n - len(done), 0)]


def least_sure(
    predictor: KernelPredictor, n: int, done: set[tuple[str, int]]
) -> list[tuple[str, int]]:
    """``n`` networks of all families in turn, each the least sure of those that it offers."""
    chosen: list[tuple[str, int]] = []
    every, taken = families(), set(done)
    for turn in range(n):
        family = every[turn % len(every)]
        first = 1 + max((number for f, number in taken if f == family), default=-1)
        offered = range(first, first + OFFERED)
        found = {i: predictor.predict(network(family, i)) for i in offered}
        best = max(offered, key=lambda i: found[i].sd_ms / found[i].mean_ms)
        chosen.append((family, best))
        taken.update((family, i) for i in offered)
    return chosen
