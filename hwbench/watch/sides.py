"""The two sides of a comparison, and how they are called where both bear one name."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:  # whoever reads names alone loads nothing that measures
    from hwbench.measure.jobs import Job

Side: TypeAlias = "tuple[Job, Job]"
#: What is put after a name that both of a pair bear.
A_B: Final = (" (A)", " (B)")
BASELINE: Final = " (baseline)"


def told_apart(a: Job, b: Job, suffixes: tuple[str, str] = A_B) -> Side:
    """The two jobs; where they bear one name, A's and B's."""
    if a.workload.name != b.workload.name:
        return a, b
    named = [
        replace(job, workload=replace(job.workload, name=job.workload.name + suffix))
        for job, suffix in zip((a, b), suffixes, strict=True)
    ]
    return named[0], named[1]


def is_side(name: str) -> bool:
    """Whether a name is one that :func:`told_apart` gave: of a comparison, not of a model."""
    return name.endswith((*A_B, BASELINE))
