"""States of a phone to replay: what ``dumpsys``, ``getprop`` and /sys say.

Texts follow AOSP: ThermalManagerService.dump, BatteryService.dump, PowerManagerService.dump. The
phone has four small and four big cores. Each state but ``cool`` has one cause to reject a launch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

CORES = 8
SMALL_KHZ, BIG_KHZ = 1_804_800, 2_841_600
BIG_MASK = 0xF0
_LOWEST_KHZ = 300_000
_MODERATE = 2  # THERMAL_STATUS_MODERATE

PROPERTIES = {
    "ro.product.manufacturer": "hwbench",
    "ro.product.brand": "hwbench",
    "ro.product.device": "loopback",
    "ro.product.board": "loopback",
    "ro.product.cpu.abi": "arm64-v8a",
    "ro.product.cpu.abilist": "arm64-v8a,armeabi-v7a,armeabi",
    "ro.product.cpu.abilist32": "armeabi-v7a,armeabi",
    "ro.product.cpu.abilist64": "arm64-v8a",
    "ro.build.version.release": "14",
    "ro.build.version.sdk": "34",
    "ro.build.fingerprint": "hwbench/loopback/loopback:14/LB1.240101.001/1:user/release-keys",
    "ro.board.platform": "loopback",
    "ro.hardware": "loopback",
    "ro.soc.manufacturer": "hwbench",
    "ro.soc.model": "Loopback 1",
}


@dataclass(frozen=True)
class State:
    """What differs from state to state. ``big_limit_khz`` is the cap on the big cores."""

    thermal_status: int = 0
    skin_c: float = 31.2
    battery_percent: int = 84
    big_limit_khz: int = BIG_KHZ


STATES = {
    "cool": State(),
    "throttling": State(thermal_status=_MODERATE, skin_c=43.6),
    "capped": State(big_limit_khz=1_920_000),
    "low_battery": State(battery_percent=9),
}


def write_state(folder: Path, state: State) -> None:
    """Write the files that the shims replay."""
    folder.mkdir(parents=True)
    (folder / "thermalservice").write_text(_thermalservice(state))
    (folder / "battery").write_text(_battery(state))
    (folder / "power").write_text(_power(state))
    _write_cpus(folder / "sys/devices/system/cpu", state)


def _thermalservice(state: State) -> str:
    # The cached temperatures are old: they tell of a cool phone whatever is the matter.
    return f"""\
IsStatusOverride: false
ThermalEventListeners:
\tcallbacks: 2
\tkilled: false
\tbroadcasts count: -1
ThermalStatusListeners:
\tcallbacks: 3
\tkilled: false
\tbroadcasts count: -1
Thermal Status: {state.thermal_status}
Cached temperatures:
{_temperatures(STATES["cool"])}
HAL Ready: true
HAL connection:
\tThermalHAL AIDL 2  connected: yes
Current temperatures from HAL:
{_temperatures(state)}
Current cooling devices from HAL:
\tCoolingDevice{{mValue=0, mType=2, mName=thermal-cpufreq-0}}
\tCoolingDevice{{mValue={state.thermal_status}, mType=2, mName=thermal-cpufreq-1}}
Temperature static thresholds from HAL:
\tTemperatureThreshold{{mType=3, mName=VIRTUAL-SKIN, mHotThrottlingThresholds=[NaN, 39.0, 43.0, \
45.0, 46.5, 52.0, 55.0], mColdThrottlingThresholds=[NaN, NaN, NaN, NaN, NaN, NaN, NaN]}}
"""


def _temperatures(state: State) -> str:
    readings = (
        (state.skin_c + 6.5, 0, "BIG", 0),
        (state.skin_c + 4.0, 0, "LITTLE", 0),
        (state.skin_c + 3.0, 1, "G3D", 0),
        (29.6, 2, "battery", 0),
        (state.skin_c, 3, "VIRTUAL-SKIN", state.thermal_status),
    )
    return "\n".join(
        f"\tTemperature{{mValue={value:.1f}, mType={kind}, mName={name}, mStatus={status}}}"
        for value, kind, name, status in readings
    )


def _battery(state: State) -> str:
    return f"""\
Current Battery Service state:
  AC powered: false
  USB powered: true
  Wireless powered: false
  Dock powered: false
  Max charging current: 500000
  Max charging voltage: 5000000
  Charge counter: {state.battery_percent * 45_000}
  status: 2
  health: 2
  present: true
  level: {state.battery_percent}
  scale: 100
  voltage: 4123
  temperature: 296
  technology: Li-ion
"""


def _power(state: State) -> str:
    return f"""\
POWER MANAGER (dumpsys power)

Power Manager State:
  mDirty=0x0
  mWakefulness=Awake
  mWakefulnessChanging=false
  mIsPowered=true
  mPlugType=2
  mBatteryLevel={state.battery_percent}
  mStayOn=false
  mBootCompleted=true
  mSystemReady=true

Display Power: state=ON
"""


def _write_cpus(folder: Path, state: State) -> None:
    folder.mkdir(parents=True)
    for name in ("present", "possible", "online"):
        (folder / name).write_text(f"0-{CORES - 1}\n")
    for core in range(CORES):
        big = BIG_MASK >> core & 1
        fastest = BIG_KHZ if big else SMALL_KHZ
        limit = state.big_limit_khz if big else SMALL_KHZ
        values = {
            "cpuinfo_min_freq": _LOWEST_KHZ,
            "cpuinfo_max_freq": fastest,
            "scaling_min_freq": _LOWEST_KHZ,
            "scaling_max_freq": limit,
            "scaling_cur_freq": limit,
            "scaling_governor": "schedutil",
        }
        cpufreq = folder / f"cpu{core}" / "cpufreq"
        cpufreq.mkdir(parents=True)
        for name, value in values.items():
            (cpufreq / name).write_text(f"{value}\n")
