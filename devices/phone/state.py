"""What moves a phone's latency, read before and after each launch, in one call.

Temperatures are those of the HAL where the phone gives them: the cached ones of ``dumpsys
thermalservice`` may be hours old. What cannot be read is None, never a number. ``time_in_state``
is not read: it counts a core's idle time too, and so says less of the clock that a launch met than
the canaries on both sides of it.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hwbench.devices.phone.script import block_script, clean, split_block
from hwbench.devices.phone.shell import QUICK_S, Shell
from hwbench.errors import ShellError, UnsupportedDeviceError, UsageError

#: Below this a phone throttles or shuts down.
LOW_BATTERY_PERCENT = 15
_CPU = "/sys/devices/system/cpu"
_FILES = ("cpuinfo_max_freq", "scaling_max_freq", "scaling_cur_freq", "scaling_governor")
#: A line a core, and one a file as "PATH:CONTENT", of one program: each that starts heats.
_CORES_SCRIPT = f"""\
files=
for range in $(cat {_CPU}/present | tr , ' '); do
  core=${{range%-*}}
  while [ "$core" -le "${{range#*-}}" ]; do
    echo "cpu $core"
    for file in {" ".join(_FILES)}; do
      files="$files {_CPU}/cpu$core/cpufreq/$file"
    done
    core=$((core + 1))
  done
done
grep -s '' $files /dev/null || :"""
_COMMANDS = (
    ("dumpsys", "thermalservice"),
    ("dumpsys", "battery"),
    ("sh", "-c", "dumpsys power | grep mWakefulness="),
    ("sh", "-c", _CORES_SCRIPT),
)
_CORE_LINE = re.compile(r"^cpu (\d{1,4})\r?$", re.MULTILINE)
_FILE_LINE = re.compile(rf"^{_CPU}/cpu(\d{{1,4}})/cpufreq/({'|'.join(_FILES)}):(.*)$", re.MULTILINE)
_STATUS = re.compile(r"^\s*Thermal Status: (\d{1,3})\s*$", re.MULTILINE)
_TEMPERATURE = re.compile(
    r"Temperature\{mValue=(-?\d{1,4}(?:\.\d{1,9})?), mType=(-?\d{1,3}), mName=([^,}]*),"
    r" mStatus=(\d{1,3})\}"
)
_FROM_HAL, _CACHED = "Current temperatures from HAL:", "Cached temperatures:"
#: Sensors that are not there read -99.9.
_COLDEST_C, _HOTTEST_C = -40.0, 200.0
_MASK = re.compile(r"(?:0x)?([0-9a-fA-F]{1,16})")


@dataclass(frozen=True, slots=True)
class Core:
    """One core, frequencies in kHz: what it can do, what it may do now, and what it does."""

    index: int
    max_khz: int | None
    allowed_khz: int | None
    now_khz: int | None
    governor: str | None


@dataclass(frozen=True, slots=True)
class Temperature:
    """One sensor. ``kind`` and ``status`` are Android's numbers (kind 0 CPU, 3 skin; 0 cool)."""

    name: str
    celsius: float
    kind: int
    status: int


@dataclass(frozen=True, slots=True)
class Battery:
    """The battery; ``percent`` is None on a device that has none."""

    percent: float | None
    celsius: float | None
    plugged: bool | None


@dataclass(frozen=True, slots=True)
class PhoneState:
    """A device at one moment. ``wakefulness`` is Android's word: Awake, Asleep, Dozing."""

    cores: tuple[Core, ...]
    thermal_status: int | None
    temperatures: tuple[Temperature, ...] | None
    battery: Battery | None
    wakefulness: str | None


def read_state(shell: Shell) -> PhoneState:
    """Read the state. Raises ShellError where the device does not answer."""
    output = shell.run(block_script(_COMMANDS), QUICK_S).output
    said = {s.index: s.text if s.code == 0 else "" for s in split_block(output)}
    if len(said) != len(_COMMANDS):
        raise ShellError(f"{shell.label}: the device's state came back incomplete: try again")
    thermal, battery, power, cores = (said[i] for i in range(len(_COMMANDS)))
    status = _STATUS.search(thermal)
    wakefulness = re.search(r"mWakefulness=(\w{1,20})", power)
    return PhoneState(
        cores=_cores(cores),
        thermal_status=int(status[1]) if status else None,
        temperatures=_temperatures(thermal),
        battery=_battery(battery),
        wakefulness=wakefulness[1] if wakefulness else None,
    )


def _cores(text: str) -> tuple[Core, ...]:
    read: dict[int, dict[str, str]] = {int(core): {} for core in _CORE_LINE.findall(text)}
    for core, file, value in _FILE_LINE.findall(text):
        read.setdefault(int(core), {}).setdefault(file, value.strip())
    return tuple(
        Core(
            index,
            _khz(files.get("cpuinfo_max_freq")),
            _khz(files.get("scaling_max_freq")),
            _khz(files.get("scaling_cur_freq")),
            clean(files.get("scaling_governor", "")) or None,
        )
        for index, files in sorted(read.items())
    )


def _khz(text: str | None) -> int | None:
    return int(text) if text and re.fullmatch(r"[1-9][0-9]{0,9}", text) else None


def _temperatures(text: str) -> tuple[Temperature, ...] | None:
    for title in (_FROM_HAL, _CACHED):
        sensors = _sensors(text.partition(title)[2].splitlines()[1:])
        if sensors:
            return sensors
    return None


def _sensors(lines: Iterable[str]) -> tuple[Temperature, ...]:
    """The sensors of a list, up to its end; those that read nothing are left out."""
    bare = (line.strip() for line in lines)
    listed = itertools.takewhile(lambda line: line.startswith("Temperature{"), bare)
    matches = [match for line in listed if (match := _TEMPERATURE.fullmatch(line))]
    return tuple(
        Temperature(clean(m[3]), float(m[1]), int(m[2]), int(m[4]))
        for m in matches
        if _COLDEST_C < float(m[1]) < _HOTTEST_C
    )


def _battery(text: str) -> Battery | None:
    said = dict(re.findall(r"^\s*([A-Za-z ]+): (\S+)\s*$", text, re.MULTILINE))
    if not said:
        return None
    level, scale, tenths = (_whole(said.get(k)) for k in ("level", "scale", "temperature"))
    plugged = [value == "true" for key, value in said.items() if key.endswith(" powered")]
    there = said.get("present") != "false"
    return Battery(
        percent=100 * level / scale if there and level is not None and scale else None,
        celsius=tenths / 10 if there and tenths is not None else None,
        plugged=any(plugged) if plugged else None,
    )


def _whole(text: str | None) -> int | None:
    return int(text) if text and re.fullmatch(r"-?[0-9]{1,6}", text) else None


def rejections(state: PhoneState, mask: str | None = None) -> tuple[str, ...]:
    """Why a launch in this state must not count; empty where nothing is known against it.

    Of the cores of a ``taskset`` mask, or of all: what others may do at most slows no launch.
    """
    used = -1 if mask is None else int(mask, 16)
    reasons = []
    if state.thermal_status:
        reasons.append(f"thermal status {state.thermal_status}")
    capped = [
        f"{core.index} ({core.allowed_khz / 1e6:g} of {core.max_khz / 1e6:g} GHz)"
        for core in state.cores
        if core.max_khz and core.allowed_khz and core.allowed_khz < core.max_khz
        if used >> core.index & 1
    ]
    if capped:
        reasons.append(f"capped cores {', '.join(capped)}")
    percent = state.battery.percent if state.battery else None
    if percent is not None and percent < LOW_BATTERY_PERCENT:
        reasons.append(f"battery at {percent:g} %")
    return tuple(reasons)


def core_mask(cores: Sequence[Core], which: str) -> str:
    """The hexadecimal mask for ``taskset``: of ``big``, ``little`` or ``all`` cores, or one given.

    Big cores are those of the highest ``cpuinfo_max_freq``, little ones those of the lowest;
    where all are equal, both are all. Raises UnsupportedDeviceError where the device does not say
    which is which, and UsageError for a mask that names no core of the device.
    """
    if not cores:
        raise UnsupportedDeviceError("the device does not say which cores it has: give no mask")
    if which == "all":
        return _mask(core.index for core in cores)
    if which in ("big", "little"):
        speeds = [core.max_khz for core in cores if core.max_khz is not None]
        if len(speeds) < len(cores):
            raise UnsupportedDeviceError(
                f"the device does not say which cores are {which}: give a mask like f0, or all"
            )
        speed = max(speeds) if which == "big" else min(speeds)
        return _mask(core.index for core in cores if core.max_khz == speed)
    given = _MASK.fullmatch(which)
    present = int(_mask(core.index for core in cores), 16)
    if given is None or not int(given[1], 16) or int(given[1], 16) & ~present:
        raise UsageError(
            f"cores must be big, little, all or a mask of the device's cores ({present:x}), not"
            f" {clean(which)!r}"
        )
    return f"{int(given[1], 16):x}"


def _mask(indices: Iterable[int]) -> str:
    return f"{sum(1 << index for index in indices):x}"
