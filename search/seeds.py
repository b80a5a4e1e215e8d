"""Several seeds of one training: here one after the other, or at once by a fleet's hosts.

A training is a search by chance, and what one seed finds another may not. All seeds of a course
learn from the same things, so that to train more of them costs nothing but time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

T_co = TypeVar("T_co", covariant=True)

#: Told which share of the work is done.
Progress = Callable[[float], None]


class Course(Protocol[T_co]):
    """What the trainings of several seeds have in common."""

    def trained(self, seed: int, progress: Progress) -> T_co:
        """What the training of a seed makes: the same each time."""


def trained_here(course: Course[T_co], seeds: Sequence[int], progress: Progress) -> list[T_co]:
    """What each seed's training makes, one after the other."""
    return [
        course.trained(seed, share_of(progress, done, len(seeds)))
        for done, seed in enumerate(seeds)
    ]


def share_of(progress: Progress, done: int, parts: int) -> Progress:
    """The progress of one of some equal parts, before which so many were done."""
    return lambda share: progress((done + share) / parts)
