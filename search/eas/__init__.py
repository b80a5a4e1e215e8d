"""EAS: trained once, then an architecture for any task and latency budget by inference."""

from __future__ import annotations

from hwbench.search.eas.generator import TaskGenerator
from hwbench.search.eas.search import EasCosts, Lesson, train_task_generator
from hwbench.search.eas.tasks import (
    Task,
    TaskDropout,
    TaskGroups,
    read_tasks,
    task_dropout,
)

__all__ = [
    "EasCosts",
    "Lesson",
    "Task",
    "TaskDropout",
    "TaskGenerator",
    "TaskGroups",
    "read_tasks",
    "task_dropout",
    "train_task_generator",
]
