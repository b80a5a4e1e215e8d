"""Measure a sample of a space on a device, so that a predictor can learn from it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from hwbench.devices.base import Device
from hwbench.devices.models import GraphModel
from hwbench.measure.campaign import anchor, known_epoch, record
from hwbench.measure.jobs import Job
from hwbench.measure.plan import Failure, Plan, Progress
from hwbench.records import Measurement, digest
from hwbench.spaces import Space, space_filling
from hwbench.spaces.base import NOTHING_FIXED, Codes, Value
from hwbench.store import Store

#: Enough for a predictor, which pools the noise of many architectures: three processes.
PROFILE_PLAN = Plan(processes=3, seconds=0.8, loaded=15)


@dataclass(frozen=True)
class Profile:
    """Which architectures of which space, on which device."""

    space: Space
    codes: Codes
    device: Device
    threads: int = 1

    def campaign(self, store: Store) -> str:
        """Its name in a store: of the same sample, device, options, environment and canary epoch.

        Milliseconds of two epochs do not mix, so a new epoch starts a new campaign.
        """
        fingerprint = self.device.fingerprint(self.threads).key
        epoch = known_epoch(self.device, self.threads, store)
        texts = self.space.decode(self.codes)
        anchored = epoch.id if epoch else None
        how = [self.threads, self.jobs[0].workload.options, anchored]
        return "profile:" + digest([self.space.name, texts, fingerprint, *how])

    @cached_property
    def jobs(self) -> list[Job]:
        """One job an architecture."""
        return architecture_jobs(self.device, self.space, self.codes, self.threads)

    @property
    def keys(self) -> list[str]:
        """What tells the models of the architectures apart, one each."""
        return [job.workload.key for job in self.jobs]

    @staticmethod
    def key_of(measured: Measurement | Failure) -> str:
        """Which of :attr:`keys` a measurement is of."""
        return measured.workload.key

    def stored(self, store: Store) -> list[Measurement]:
        """What a store holds of these architectures, the oldest first, without samples.

        Of this environment, these options and the present canary epoch: their milliseconds
        compare, whichever sample and session they come from. Of one architecture there may be
        several.
        """
        epoch = known_epoch(self.device, self.threads, store)
        if epoch is None:
            return []
        own = {job.workload.key for job in self.jobs}
        found = store.measurements(
            space=self.space.name,
            fingerprint=self.device.fingerprint(self.threads).key,
            with_bursts=False,
        )
        return [m for m in found if m.epoch == epoch.id and m.workload.key in own]

    def run(
        self,
        store: Store,
        plan: Plan = PROFILE_PLAN,
        progress: Progress | None = None,
        *,
        redo: bool = False,
    ) -> Iterator[Measurement | Failure]:
        """Measure what the store does not hold yet; results are stored as blocks end.

        With ``redo`` also what stayed inconclusive each time: beside what there is, for nothing
        is taken back. Calibrates the device first where the store has no epoch for it.
        """
        epoch = anchor(self.device, self.threads, store)
        held = self.stored(store)
        done = answered(held) if redo else {m.workload.key for m in held}
        # Architectures may be one and the same model: it is measured once.
        models = {job.workload.key: job for job in self.jobs}
        jobs = [job for key, job in models.items() if key not in done]
        # A campaign keeps the first measurement of a workload alone.
        campaign = None if redo else self.campaign(store)
        yield from record(
            self.device, jobs, plan, store, epoch, campaign=campaign, progress=progress
        )


def answered(measured: Iterable[Measurement]) -> set[str]:
    """Keys of the workloads of which a measurement is not inconclusive."""
    return {m.workload.key for m in measured if m.status != "inconclusive"}


def sample_profile(
    device: Device,
    space: Space,
    n: int,
    *,
    seed: int = 0,
    threads: int = 1,
    fixed: Mapping[str, Value] = NOTHING_FIXED,
) -> Profile:
    """A space-filling sample of ``n`` architectures, the same for the same seed."""
    return Profile(space, sample_codes(space, n, seed=seed, fixed=fixed), device, threads)


def sample_codes(
    space: Space, n: int, *, seed: int = 0, fixed: Mapping[str, Value] = NOTHING_FIXED
) -> Codes:
    """The architectures (n, L) of :func:`sample_profile`."""
    return space_filling(space, n, np.random.default_rng(seed), fixed=fixed)


def architecture_jobs(device: Device, space: Space, codes: Codes, threads: int = 1) -> list[Job]:
    """The jobs of measuring architectures (n, L), in their order, each labelled with its own."""
    jobs = []
    for code, text in zip(codes, space.decode(codes), strict=True):
        job = device.job(GraphModel(space.graph(code), text), threads)
        # Here and not by each device: what is stored is found again by these labels.
        jobs.append(replace(job, workload=replace(job.workload, space=space.name, arch=text)))
    return jobs


def measure_architectures(
    device: Device,
    space: Space,
    codes: Codes,
    store: Store,
    *,
    threads: int = 1,
    plan: Plan = PROFILE_PLAN,
    campaign: str | None = None,
    progress: Progress | None = None,
) -> list[Measurement]:
    """Measure architectures (n, L) anew, in their order.

    Raises the first failure's error, once the others are measured and stored.
    """
    jobs = architecture_jobs(device, space, codes, threads)
    epoch = anchor(device, threads, store)
    found: dict[str, Measurement] = {}
    failures: list[Failure] = []
    for result in record(device, jobs, plan, store, epoch, campaign=campaign, progress=progress):
        if isinstance(result, Failure):
            failures.append(result)
        else:
            found[result.workload.key] = result
    if failures:
        raise failures[0].error
    if campaign:
        for stored in store.measurements(plan=campaign, with_bursts=False):
            found.setdefault(stored.workload.key, stored)
    return [found[job.workload.key] for job in jobs]
