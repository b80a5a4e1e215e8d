"""The canaries' canonical time, on made-up readings and once on this machine."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hwbench.devices import get_device
from hwbench.errors import DeviceError
from hwbench.measure import canary
from hwbench.measure.canary import WINDOW, calibrate, canonical, drift, floor, windows
from hwbench.measure.jobs import Canary, RunnerSpec, canary_key
from tests.measurements import epoch
from tests.targets import LocalTarget

Array = NDArray[np.float64]

LEVELS = np.array([400e3, 1.5e6])  # ns, of two canaries
BAND = np.array([0.03, 0.1])


def readings(rng: np.random.Generator, n: int = 400, slow: float = 0.0, by: float = 1.5) -> Array:
    """Readings (n, 2) near LEVELS; the last share ``slow`` of the run takes ``by`` times as long.

    Now and then one is hit: most readings of a real canary are good to 1 %, some are not.
    """
    spread = 0.01 * rng.standard_normal((n, 2)) + 0.3 * (rng.random((n, 2)) < 0.03)
    disturbed = np.arange(n) >= n * (1 - slow)
    return np.asarray(LEVELS * np.exp(spread) * np.where(disturbed, by, 1.0)[:, None])


class TestWindows:
    def test_they_are_medians_of_log_readings_in_order(self) -> None:
        values = np.exp(np.arange(2.0 * WINDOW)).reshape(-1, 1)
        middle = (WINDOW - 1) / 2
        assert windows(values).ravel() == pytest.approx([middle, middle + WINDOW])

    def test_a_rest_smaller_than_a_window_is_left_out(self) -> None:
        values = np.ones((3 * WINDOW - 1, 2))
        assert windows(values).shape == (2, 2)

    @pytest.mark.parametrize("n", [1, 2, WINDOW - 1])
    def test_few_readings_make_one_window(self, n: int) -> None:
        assert windows(np.full((n, 3), math.e)) == pytest.approx(np.ones((1, 3)))


class TestFloor:
    def test_a_quiet_run_gives_the_level(self) -> None:
        found = floor(readings(np.random.default_rng(0)), BAND)
        assert found == pytest.approx(LEVELS, rel=0.01)

    @pytest.mark.parametrize("slow", [0.3, 0.6, 0.8])
    def test_a_run_with_quiet_moments_gives_the_same(self, slow: float) -> None:
        found = floor(readings(np.random.default_rng(0), slow=slow), BAND)
        assert found == pytest.approx(LEVELS, rel=0.01)

    def test_a_run_without_any_does_not(self) -> None:
        found = floor(readings(np.random.default_rng(0), slow=1.0, by=1.3), BAND)
        assert found == pytest.approx(1.3 * LEVELS, rel=0.01)

    def test_single_readings_that_are_too_fast_do_not_move_it(self) -> None:
        """The noise of one reading must not look like a faster machine: a minimum would."""
        values = readings(np.random.default_rng(0))
        values[7::41] *= 0.5
        assert floor(values, BAND) == pytest.approx(LEVELS, rel=0.01)
        assert values.min(axis=0) == pytest.approx(0.5 * LEVELS, rel=0.05)


class TestCanonical:
    def test_it_is_the_level_within_its_interval(self) -> None:
        rng = np.random.default_rng(0)
        runs = [readings(rng, slow=share) for share in (0, 0, 0.5, 0.2, 1.0, 0)]
        c0, low, high = canonical(runs, BAND, rng)
        assert c0 == pytest.approx(LEVELS, rel=0.01)
        assert (low <= c0).all()
        assert (c0 <= high).all()
        assert (high < 1.02 * low).all()

    def test_runs_that_differ_make_it_less_certain(self) -> None:
        def width(by: float) -> Array:
            rng = np.random.default_rng(0)
            runs = [readings(rng, slow=1.0, by=1 + by * i / 5) for i in range(6)]
            _, low, high = canonical(runs, BAND, rng)
            return np.asarray(np.log(high / low))

        assert (width(0.2) > 3 * width(0.01)).all()

    def test_equal_draws_give_equal_intervals(self) -> None:
        runs = [readings(np.random.default_rng(i)) for i in range(5)]
        one, other = (canonical(runs, BAND, np.random.default_rng(1)) for _ in range(2))
        assert np.array_equal(one, other)

    @settings(max_examples=20)
    @given(st.floats(1e-3, 1e3))
    def test_the_unit_of_time_means_nothing(self, unit: float) -> None:
        runs = [readings(np.random.default_rng(i), n=60) for i in range(3)]
        plain = np.array(canonical(runs, BAND, np.random.default_rng(0)))
        scaled = canonical([unit * run for run in runs], BAND, np.random.default_rng(0))
        assert np.array(scaled) == pytest.approx(unit * plain)

    @given(st.lists(st.lists(st.floats(1e3, 1e9), min_size=1, max_size=45), min_size=1, max_size=4))
    def test_it_lies_among_the_readings(self, runs: list[list[float]]) -> None:
        columns = [np.array(run).reshape(-1, 1) for run in runs]
        c0, low, high = canonical(columns, BAND[:1], np.random.default_rng(0))
        every = np.concatenate(columns)
        assert every.min() * (1 - 1e-9) <= low <= c0 <= high <= every.max() * (1 + 1e-9)


class TestDrift:
    """``epoch()`` has c0 = 1.00 and 2.00 ms, each within ± 1 %."""

    @pytest.mark.parametrize(
        "floors",
        [
            [(1e6, 2e6)],
            [(1.01e6, 1.98e6)],
            [(1.5e6, 3e6), (1.3e6, 2.01e6), (1.0e6, 2.9e6)],  # busy sessions, and a quiet one
        ],
    )
    def test_a_quiet_session_within_the_interval_is_none(
        self, floors: list[tuple[float, float]]
    ) -> None:
        assert drift(epoch(), floors).tolist() == [0.0, 0.0]

    def test_it_is_how_far_the_quietest_session_lies_outside(self) -> None:
        found = drift(epoch(), [(1.3e6, 1.8e6), (1.111e6, 2.0e6)])
        assert found == pytest.approx([math.log(1.111 / 1.01), math.log(1.8 / 1.98)])


class TestCalibrate:
    @pytest.fixture(autouse=True)
    def short(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(canary, "RUNS", 3)
        monkeypatch.setattr(canary, "MOST_RUNS", 3)
        monkeypatch.setattr(canary, "RUN_SECONDS", 0.1)
        monkeypatch.setattr(canary, "PAUSE_SECONDS", 0.0)

    def test_this_machine(self) -> None:
        device, told = get_device("cpu"), list[float]()
        found = calibrate(device, 1, progress=told.append)
        canaries = device.canaries(1)
        assert found.names == tuple(c.name for c in canaries)
        assert found.canary_key == canary_key(canaries)
        assert (found.threads, found.runs) == (1, 3)
        assert found.fingerprint_key == device.fingerprint(1).key
        assert told == pytest.approx([1 / 3, 2 / 3, 1.0])
        times = zip(found.c0_low_ns, found.c0_ns, found.c0_high_ns, strict=True)
        assert all(1e3 < low <= c0 <= high < 1e9 for low, c0, high in times)
        assert calibrate(device, 1).id != found.id

    @pytest.mark.parametrize(("restless", "runs"), [(0, 3), (3, 9), (40, 12)])
    def test_it_goes_on_until_the_machine_came_to_rest(
        self, monkeypatch: pytest.MonkeyPatch, restless: int, runs: int
    ) -> None:
        """So many runs each find the machine at another pace; the others find it quiet."""
        device, rng, made = get_device("cpu"), np.random.default_rng(0), list[Array]()
        levels = np.geomspace(1e5, 1e6, len(device.canaries(1)))

        def made_up(*_: object) -> Array:
            by = 1.2 + 0.1 * len(made) if len(made) < restless else 1.0
            made.append(levels * by * np.exp(0.002 * rng.standard_normal((240, len(levels)))))
            return made[-1]

        monkeypatch.setattr(canary, "MOST_RUNS", 12)
        monkeypatch.setattr(canary, "_run", made_up)
        found = calibrate(device, 1)
        assert found.runs == len(made)
        assert len(made) <= runs
        assert (len(made) > 3) == (restless > 0)
        if restless < 40:
            assert found.c0_ns == pytest.approx(levels, rel=0.002)

    def test_a_canary_that_cannot_run_is_the_devices_fault(self, tmp_path: Path) -> None:
        target = LocalTarget(tmp_path)
        broken = dataclasses.replace(
            target.canaries(1)[0], name="lost", runner=RunnerSpec("/nowhere/lost.py", {})
        )

        class Broken(LocalTarget):
            def canaries(self, threads: int) -> tuple[Canary, ...]:
                return (*super().canaries(threads), broken)

        with pytest.raises(DeviceError, match=r"canary lost: .*/nowhere/lost\.py"):
            calibrate(Broken(tmp_path), 1)
