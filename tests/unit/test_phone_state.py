"""A device's state is what it says, and nothing where it says nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwbench.devices.phone.process import Ended, call
from hwbench.devices.phone.shell import LocalShell
from hwbench.devices.phone.state import (
    Battery,
    Core,
    PhoneState,
    Temperature,
    core_mask,
    read_state,
    rejections,
)
from hwbench.errors import UnsupportedDeviceError, UsageError

THERMAL = """\
IsStatusOverride: false
ThermalEventListeners:
\tcallbacks: 2
Thermal Status: 1
Cached temperatures:
\tTemperature{mValue=24.0, mType=3, mName=VIRTUAL-SKIN, mStatus=0}
HAL Ready: true
Current temperatures from HAL:
\tTemperature{mValue=41.5, mType=3, mName=VIRTUAL-SKIN, mStatus=1}
\tTemperature{mValue=-99.9, mType=5, mName=TYPE_POWER_AMPLIFIER, mStatus=0}
\tTemperature{mValue=NaN, mType=0, mName=CPU1, mStatus=0}
\tTemperature{mValue=55.0, mType=0, mName=CPU0, mStatus=0}
Current cooling devices from HAL:
\tCoolingDevice{mValue=2, mType=2, mName=thermal-cpufreq-0}
"""
BATTERY = """\
Current Battery Service state:
  AC powered: false
  USB powered: true
  status: 2
  present: true
  level: 42
  scale: 50
  temperature: 296
  technology: Li-ion
"""
POWER = "POWER MANAGER (dumpsys power)\n  mWakefulness=Dozing\n  mWakefulnessChanging=false\n"
CORES = {
    0: ("1800000", "1800000", "300000", "schedutil"),
    1: ("1800000", "1800000", "300000", "schedutil"),
    2: ("2800000", "1500000", "1500000", "schedutil"),
    3: (None, None, None, None),
}
_FILES = ("cpuinfo_max_freq", "scaling_max_freq", "scaling_cur_freq", "scaling_governor")
_COOL = PhoneState((Core(0, 2_000_000, 2_000_000, 300_000, "x"),), 0, None, None, "Awake")


class Replay(LocalShell):
    """This machine's shell with a folder of programs before its own, and a /sys of its own."""

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder))
        self._programs = folder / "bin"
        self._programs.mkdir()
        self._program("cat", f'[ "$1" = "${{1#/sys}}" ] && exec /bin/cat "$@"; /bin/cat {folder}$1')
        relative = 'for file; do shift; set -- "$@" "${file#/sys/}"; done'
        self._program("grep", f"cd {folder}/sys; {relative}; /bin/grep \"$@\" | sed 's|^|/sys/|'")
        self.sys = folder / "sys/devices/system/cpu"
        self.sys.mkdir(parents=True)

    def _call(self, script: str, timeout_s: float) -> Ended:
        path = f"PATH={self._programs}:$PATH; export PATH; "
        return call(["/bin/sh", "-c", path + script], timeout_s)

    def _program(self, name: str, body: str) -> None:
        file = self._programs / name
        file.write_text(f"#!/bin/sh\n{body}\n")
        file.chmod(0o755)

    def cores(self, present: str, files: dict[int, tuple[str | None, ...]]) -> None:
        (self.sys / "present").write_text(present + "\n")
        for core, values in files.items():
            folder = self.sys / f"cpu{core}/cpufreq"
            folder.mkdir(parents=True)
            for name, value in zip(_FILES, values, strict=True):
                if value is not None:
                    (folder / name).write_text(value + "\n")

    def dumps(self, **texts: str) -> None:
        for name, text in texts.items():
            (self._programs / f"{name}.txt").write_text(text)
        self._program("dumpsys", f"/bin/cat {self._programs}/$1.txt")


@pytest.fixture
def replay(tmp_path: Path) -> Replay:
    return Replay(tmp_path)


def test_a_phone_is_read_in_one_call(replay: Replay) -> None:
    replay.cores("0-3", CORES)
    replay.dumps(thermalservice=THERMAL, battery=BATTERY, power=POWER)
    state = read_state(replay)
    assert state.cores == (
        Core(0, 1_800_000, 1_800_000, 300_000, "schedutil"),
        Core(1, 1_800_000, 1_800_000, 300_000, "schedutil"),
        Core(2, 2_800_000, 1_500_000, 1_500_000, "schedutil"),
        Core(3, None, None, None, None),
    )
    assert state.thermal_status == 1
    assert state.battery == Battery(84.0, 29.6, True)
    assert state.wakefulness == "Dozing"


def test_temperatures_are_the_hals_not_the_cached_ones(replay: Replay) -> None:
    replay.dumps(thermalservice=THERMAL.replace("NaN", "48.5"), battery="", power="")
    assert read_state(replay).temperatures == (
        Temperature("VIRTUAL-SKIN", 41.5, 3, 1),
        Temperature("CPU1", 48.5, 0, 0),
        Temperature("CPU0", 55.0, 0, 0),
    )


def test_an_unreadable_sensor_hides_no_other(replay: Replay) -> None:
    replay.dumps(thermalservice=THERMAL, battery="", power="")
    temperatures = read_state(replay).temperatures
    assert temperatures is not None
    assert [t.name for t in temperatures] == ["VIRTUAL-SKIN", "CPU0"]


def test_cached_temperatures_serve_where_the_hal_gives_none(replay: Replay) -> None:
    thermal = THERMAL[: THERMAL.index("Current temperatures")]
    replay.dumps(thermalservice=thermal, battery="", power="")
    assert read_state(replay).temperatures == (Temperature("VIRTUAL-SKIN", 24.0, 3, 0),)


def test_a_linux_board_without_dumpsys_gives_its_cores_and_nothing_else(replay: Replay) -> None:
    replay.cores("0,2-3", CORES)
    state = read_state(replay)
    assert [core.index for core in state.cores] == [0, 2, 3]
    assert state.thermal_status is state.temperatures is state.battery is state.wakefulness is None
    assert rejections(state) == ("capped cores 2 (1.5 of 2.8 GHz)",)


def test_this_machine_is_read(tmp_path: Path) -> None:
    state = read_state(LocalShell(str(tmp_path)))
    present = Path("/sys/devices/system/cpu/present").read_text()
    assert state.cores[-1].index == int(present.replace(",", "-").split("-")[-1])


@pytest.mark.parametrize("level", ["", "  level: -5x\n", "  level: 99999999999\n"])
def test_a_battery_level_that_is_no_number_is_unknown(replay: Replay, level: str) -> None:
    battery = BATTERY.replace("  level: 42\n", level)
    replay.dumps(thermalservice="", battery=battery, power="")
    assert read_state(replay).battery == Battery(None, 29.6, True)


def test_a_device_without_a_battery_has_no_low_battery(replay: Replay) -> None:
    battery = BATTERY.replace("present: true", "present: false").replace("level: 42", "level: 0")
    replay.dumps(thermalservice="", battery=battery, power="")
    state = read_state(replay)
    assert state.battery == Battery(None, None, True)
    assert rejections(state) == ()


def test_a_cool_phone_is_not_rejected() -> None:
    assert rejections(_COOL) == ()


def test_each_cause_to_reject_is_said() -> None:
    hot = PhoneState(
        (
            Core(0, 1_800_000, 1_800_000, None, None),
            Core(7, 2_841_600, 1_920_000, None, None),
        ),
        2,
        None,
        Battery(9.0, 30.0, True),
        None,
    )
    assert rejections(hot) == (
        "thermal status 2",
        "capped cores 7 (1.92 of 2.8416 GHz)",
        "battery at 9 %",
    )
    assert rejections(hot, "1") == ("thermal status 2", "battery at 9 %")  # the other core's alone
    assert rejections(hot, "81") == rejections(hot)


def test_what_is_unknown_rejects_nothing() -> None:
    unknown = PhoneState((Core(0, None, None, None, None),), None, None, Battery(None, 1, None), "")
    assert rejections(unknown) == ()


def _phone(*speeds: int | None) -> tuple[Core, ...]:
    return tuple(Core(i, speed, speed, None, None) for i, speed in enumerate(speeds))


_TWO_CLUSTERS = _phone(*[1_800_000] * 4, *[2_800_000] * 4)


@pytest.mark.parametrize(
    ("cores", "which", "mask"),
    [
        (_TWO_CLUSTERS, "big", "f0"),
        (_TWO_CLUSTERS, "little", "f"),
        (_TWO_CLUSTERS, "all", "ff"),
        (_TWO_CLUSTERS, "70", "70"),
        (_TWO_CLUSTERS, "0xF0", "f0"),
        (_phone(1, 1, 2, 2, 3), "big", "10"),
        (_phone(5, 5, 5), "big", "7"),
        (_phone(5, 5, 5), "little", "7"),
        (_phone(None, None), "all", "3"),
        ((Core(0, 1, 1, 1, ""), Core(5, 2, 1, 1, "")), "all", "21"),
    ],
)
def test_masks_follow_the_cores_speeds(cores: tuple[Core, ...], which: str, mask: str) -> None:
    assert core_mask(cores, which) == mask


@pytest.mark.parametrize("cores", [(), _phone(None, 2), _phone(None)])
def test_an_unknown_core_is_not_guessed(cores: tuple[Core, ...]) -> None:
    with pytest.raises(UnsupportedDeviceError):
        core_mask(cores, "big")


@pytest.mark.parametrize("which", ["", "0", "100", "bigger", "-1", "f0;reboot", "f0\n", "0x"])
def test_a_mask_of_no_core_is_refused(which: str) -> None:
    with pytest.raises(UsageError):
        core_mask(_TWO_CLUSTERS, which)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=20))
def test_big_and_little_cores_are_apart_or_the_same(speeds: list[int]) -> None:
    cores = _phone(*speeds)
    big, little = int(core_mask(cores, "big"), 16), int(core_mask(cores, "little"), 16)
    assert min(big, little) > 0
    assert (big == little) == (len(set(speeds)) == 1)
    assert big & little in (0, big)
    assert {speeds[i] for i in range(len(speeds)) if big >> i & 1} == {max(speeds)}
