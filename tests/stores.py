"""Stores made up for tests: devices, series that change, claims, and names as asked for."""

from __future__ import annotations

import dataclasses
import math
import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from hwbench.records import CanaryEpoch, Fingerprint, Measurement, Verdict
from hwbench.store import Store
from tests.measurements import epoch, measurement

BEGAN = datetime(2026, 1, 1, 6, tzinfo=UTC)


def device(number: int) -> Fingerprint:
    """One of many devices."""
    facts = {"cpu_model": f"CPU model {number}", "kernel": "6.1", "onnxruntime": "1.31"}
    return Fingerprint("cpu", facts, {"load_1min": "0.4"})


def calibration(fingerprint: Fingerprint, number: int = 0) -> CanaryEpoch:
    """The epoch of such a device."""
    return epoch(
        number, id=f"epoch-{fingerprint.key[:8]}-{number}", fingerprint_key=fingerprint.key
    )


def history(
    name: str,
    fingerprint: Fingerprint,
    levels_ms: Sequence[float],
    *,
    seed: int = 0,
    noise: float = 0.004,
    began: datetime = BEGAN,
) -> list[Measurement]:
    """A point a day at these levels, give or take."""
    rng = np.random.default_rng(seed)
    found = []
    for day, level in enumerate(levels_ms):
        ns = level * 1e6 * math.exp(rng.normal(0, noise))
        found.append(
            measurement(
                day,
                work_name=name,
                work_model_hash=name,
                work_space=None,
                work_arch=None,
                fingerprint=fingerprint,
                session=f"{name}-{day}-{seed}",
                created=(began + timedelta(days=day)).isoformat(),
                epoch=calibration(fingerprint).id,
                latency_ns=ns,
                low_ns=ns * 0.992,
                high_ns=ns * 1.008,
                tags={
                    "commit": f"{day:04x}" * 10,
                    "branch": "main",
                    "dirty": "no",
                    "team": "vision",
                },
            )
        )
    return found


def tagged(points: Sequence[Measurement], **tags: str) -> list[Measurement]:
    """The same with further tags; a tag of a name that they have is replaced."""
    return [dataclasses.replace(m, tags={**m.tags, **tags}) for m in points]


def integrity(path: Path) -> str:
    """What SQLite itself finds wrong with a store's file: "ok" where it is nothing."""
    connection = sqlite3.connect(path)
    (answer,) = connection.execute("PRAGMA integrity_check").fetchone()
    connection.close()
    return str(answer)


def filled(folder: Path, names: Sequence[str] = ("resnet18.onnx", "mobilenet.onnx")) -> Path:
    """A store of two devices: the first model slows down by 5 % on the first one, once measured
    elsewhere; the others are steady.
    """
    path = folder / "results.db"
    with Store.open(path) as store:
        for number in range(2):
            own = device(number)
            store.add_epoch(calibration(own))
            rng = np.random.default_rng(number)
            for day in range(30):
                store.add_canary_run(
                    own.key,
                    "c" * 32,
                    1,
                    f"session-{day}",
                    (BEGAN + timedelta(days=day)).isoformat(),
                    np.array([1e6, 2e6]) * np.exp(rng.normal(0.01, 0.01, 2)),
                )
            for index, name in enumerate(names):
                slower = 1.05 if index == number == 0 else 1.0
                levels = [2.0 + index] * 18 + [(2.0 + index) * slower] * 12
                store.merge(history(name, own, levels, seed=10 * number + index))
        store.add_verdict(
            Verdict(
                "latencies agree with themselves",
                "fresh runs",
                "confirmed",
                {"median_pct": 0.3, "bars_met": "12 of 12"},
                None,
                "2026-01-20T12:00:00+00:00",
            )
        )
    return path
