"""A store as a team leaves it behind: models measured daily, a space profiled, searches, claims.

And the files that lie beside it: a predictor fitted on part of it, and operators' times.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np

from hwbench.measure.stats import percentile
from hwbench.predictors import MacsLine, fit_predictor
from hwbench.predictors.measured import provenance_of, training_from
from hwbench.records import Bursts, Fingerprint, Measurement, Verdict
from hwbench.spaces import Space, get_space, spread_sample
from hwbench.store import Store
from tests.measurements import measurement
from tests.stores import BEGAN, calibration, device, history

SPACE = "mbv3_small"
#: A model's name, its latency in ms, the day on which it changes, and by how much.
MODELS = (
    ("resnet18.onnx", 8.2, 17, 1.06),
    ("mobilenet_v3.onnx", 1.9, 40, 1.0),
    ("keyword_spotter.tflite", 0.31, 23, 0.91),
)
DAYS = 30


def runs(level_ms: float, seed: int, count: int = 160) -> Bursts:
    """Runs around a level: most near it, some beside a neighbour, a few far out.

    ``count`` is a multiple of 8, the length of a burst.
    """
    rng = np.random.default_rng(seed)
    slower = np.where(rng.random(count) < 0.15, rng.gamma(2, 0.04, count), 0)
    far = np.where(rng.random(count) < 0.01, rng.uniform(0.5, 2, count), 0)
    times = level_ms * 1e6 * (1 + np.abs(rng.normal(0, 0.006, count)) + slower + far)
    bursts = count // 8
    return Bursts(
        sample_ns=times.astype(np.int64),
        length=np.full(bursts, 8, np.int32),
        start_ns=np.arange(bursts, dtype=np.int64) * 10**8,
        process=(np.arange(bursts) % 4).astype(np.int16),
        copy=np.zeros(bursts, np.int16),
        round=np.arange(bursts, dtype=np.int32),
        canary_ns=rng.normal(1e6, 1e4, (bursts, 2, 2)).astype(np.int64),
        preemptions=np.zeros(bursts, np.int32),
        steal_ns=np.zeros(bursts, np.int64),
        cause=np.zeros(bursts, np.uint8),
    )


def with_runs(
    m: Measurement, seed: int, state: Mapping[str, str] | None = None, count: int = 160
) -> Measurement:
    """A measurement with runs around its latency, and the percentiles of these."""
    assert m.latency_ns is not None
    bursts = runs(m.latency_ns / 1e6, seed, count)
    observed = tuple(percentile(bursts.sample_ns, q) for q in (50.0, 90.0, 99.0))
    print_ = dataclasses.replace(m.fingerprint, state=state or m.fingerprint.state)
    return dataclasses.replace(m, bursts=bursts, observed=observed, fingerprint=print_)


def profiled(
    space: Space, place: Fingerprint, day: int, count: int, seed: int
) -> list[Measurement]:
    """A session that measured architectures of a space: latencies nearly by MACs."""
    rng = np.random.default_rng(seed)
    codes = spread_sample(space, count, rng)
    ns = (0.08 + space.macs(codes) / 9e6 * rng.normal(1, 0.015, count)) * 1e6
    created = (BEGAN + timedelta(days=day, hours=3)).isoformat()
    return [
        measurement(
            work_name=text,
            work_model_hash=text,
            work_space=space.name,
            work_arch=text,
            fingerprint=place,
            session=f"profile-{day}",
            created=created,
            epoch=calibration(place).id,
            latency_ns=float(latency),
            low_ns=float(latency * 0.99),
            high_ns=float(latency * 1.01),
            status="inconclusive" if number % 23 == 7 else "ok",
            tags={},
        )
        for number, (text, latency) in enumerate(zip(space.decode(codes), ns, strict=True))
    ]


def trials(confidence: float, seed: int, count: int = 24) -> list[dict[str, Any]]:
    """Budgets, and the networks that a search chose for them: a guarded one keeps most."""
    rng = np.random.default_rng(seed)
    slack = 0.95 if confidence > 0.9 else 1.0
    rows = []
    for budget in np.geomspace(2, 12, count):
        predicted = budget * slack * rng.uniform(0.97, 1.0)
        measured = predicted * rng.normal(1.0, 0.02)
        rows.append(
            {
                "budget_ms": round(budget, 4),
                "confidence": confidence,
                "architecture": f"r{128 + 8 * int(budget)} d2,3,2,2,2 k{int(1e3 * budget)}",
                "macs": int(6e7 * predicted * rng.uniform(0.9, 1.1)),
                "predicted_ms": round(predicted, 4),
                "upper_ms": round(budget, 4),
                "measured_ms": round(measured, 4),
                "kept": bool(measured <= budget),
            }
        )
    return rows


def verdicts() -> list[Verdict]:
    """Claims tested several times over a month."""
    made = []
    for number, day in enumerate((3, 12, 26)):
        created = (BEGAN + timedelta(days=day)).isoformat()
        tried = trials(0.98, number) + trials(0.5, number + 10)
        kept = float(np.mean([row["kept"] for row in tried[:24]]))
        made.append(
            Verdict(
                "of the latency budgets promised at confidence .98, at least 95 % are kept when "
                "the winner is measured again",
                "search, then measure again",
                "confirmed" if kept >= 0.95 else "refuted",
                {"quick": False, "budgets": 24, "kept_share": kept, "trials": tried},
                "budgets.png",
                created,
            )
        )
        made.append(
            Verdict(
                "a network of a family that was never measured is predicted by its kernels",
                "each family left out in turn",
                "partly",
                {"networks": 240, "within_10": 0.71 + 0.04 * number, "coverage_90": 0.9},
                None,
                created,
            )
        )
    return made


def lived_in(folder: Path, names: Sequence[str] = tuple(m[0] for m in MODELS)) -> Path:
    """The store's file. The first model slows down on the first device, the third gets faster."""
    path, space = folder / "results.db", get_space(SPACE)
    rng = np.random.default_rng(5)
    with Store.open(path) as store:
        for number in range(2):
            place = device(number)
            store.add_epoch(calibration(place))
            for day in range(DAYS):
                store.add_canary_run(
                    place.key, "c" * 32, 1, f"session-{day}",
                    (BEGAN + timedelta(days=day)).isoformat(),
                    np.array([1e6, 2e6]) * np.exp(rng.normal(0.01, 0.008, 2)),
                )  # fmt: skip
            for index, (name, (_, ms, at, by)) in enumerate(zip(names, MODELS, strict=True)):
                own = ms * (1 + 0.4 * number)
                levels = [own * (by if number == 0 and day >= at else 1) for day in range(DAYS)]
                points = history(name, place, levels, seed=10 * number + index)
                loads = rng.gamma(2, 0.2, DAYS)
                store.merge(
                    with_runs(
                        m, 100 * number + 31 * index + day,
                        {"load_1min": f"{loads[day]:.2f}", "frequency_mhz_max": "2596",
                         "temperature_c": f"{44 + 6 * loads[day]:.0f}"},
                    )
                    for day, m in enumerate(points)
                )  # fmt: skip
        for day, count in ((2, 60), (9, 12), (20, 12), (27, 12)):
            store.merge(profiled(space, device(0), day, count, seed=day))
        store.merge(profiled(space, device(1), 4, 80, seed=4))
        for verdict in verdicts():
            store.add_verdict(verdict)
    return path


def predictor(store: Path, path: Path) -> Path:
    """A predictor of the space on the first device, by its first session, fitted a day later."""
    space = get_space(SPACE)
    with Store.open(store) as results:
        learned = results.measurements(session="profile-2", with_bursts=False)
    training = training_from(space, learned)
    fitted = fit_predictor(space, training, provenance_of(learned), kind=MacsLine.kind)
    fitted.meta = dataclasses.replace(fitted.meta, created=(BEGAN + timedelta(days=3)).isoformat())
    fitted.save(path)
    return path


def operators(path: Path) -> Path:
    """What ``hwbench bench --profile-ops --json`` writes of one model."""
    shares = {"Conv": (0.2, 0.16, 0.12, 0.1, 0.09, 0.08), "Gemm": (0.15,), "Add": (0.06, 0.04)}
    ops = [
        {"name": f"/layer{n}/{kind}", "kind": kind, "ms": 8.4 * share, "share": share}
        for kind, parts in shares.items()
        for n, share in enumerate(parts)
    ]
    operators = {"instrumented_ms": 8.9, "covered": 0.95, "slowdown": 1.08, "ops": ops}
    entry = {"name": MODELS[0][0], "device": "cpu", "latency_ms": 8.2, "operators": operators}
    path.write_text(json.dumps({"results": [entry, {**entry, "operators": None}]}))
    return path
