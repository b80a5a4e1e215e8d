"""The loopback phone's properties, files, cores and states, as a shell on it reads them."""

from __future__ import annotations

import pytest

from tests.adb_client import BACK_S, Client
from tests.loopback.states import BIG_KHZ, BIG_MASK, CORES, SMALL_KHZ, STATES


def test_getprop_tells_of_an_arm64_phone(at_hand: Client) -> None:
    assert at_hand.shell("getprop ro.product.cpu.abilist64") == "arm64-v8a\n"
    assert at_hand.shell("getprop no.such.property") == "\n"
    assert "[ro.hardware]: [loopback]\n" in at_hand.shell("getprop")


@pytest.mark.parametrize("value", ["$(touch x) `id`; \"'\\", "two\nlines", "", b"\xff\x1b[31m"])
def test_a_property_can_be_hostile(at_hand: Client, value: str | bytes) -> None:
    at_hand.phone.set_property("ro.soc.model", value)
    raw = value if isinstance(value, bytes) else value.encode()
    out, _ = at_hand.start("exec-out", "getprop ro.soc.model").communicate(timeout=BACK_S)
    assert out == raw + b"\n"


def test_cat_reads_the_phones_sys_and_this_machines_files(at_hand: Client) -> None:
    present = at_hand.shell("cat /sys/devices/system/cpu/present")
    assert present == f"0-{CORES - 1}\n"
    files = (f"/sys/devices/system/cpu/cpu{i}/cpufreq/cpuinfo_max_freq" for i in range(CORES))
    fastest = [int(line) for line in at_hand.shell(f"cat {' '.join(files)}").split()]
    assert fastest == [BIG_KHZ if BIG_MASK >> i & 1 else SMALL_KHZ for i in range(CORES)]
    missing = at_hand("shell", "cat /sys/devices/system/cpu/cpu8/online")
    assert missing.returncode == 1
    assert "No such file or directory" in missing.stderr
    (at_hand.phone.folder / "real file").write_text("real\n")
    assert at_hand.shell("cat 'real file'; echo piped | cat") == "real\npiped\n"


def test_taskset_notes_its_mask_and_runs_the_command(at_hand: Client) -> None:
    assert at_hand.shell("taskset f0 sh -c 'echo \"$1 $#\"' - 'a b'") == "a b 1\n"
    assert at_hand.phone.masks()[-1] == "f0"
    for mask in ("0", "100", "xyz", "''", "1ffffffff"):
        assert at_hand("shell", f"taskset {mask} echo ran").stdout == ""
    assert at_hand.phone.masks()[-1] == "f0"


@pytest.mark.parametrize(
    ("name", "status", "level", "big_khz"),
    [
        ("cool", 0, 84, BIG_KHZ),
        ("throttling", 2, 84, BIG_KHZ),
        ("capped", 0, 84, 1_920_000),
        ("low_battery", 0, 9, BIG_KHZ),
    ],
)
def test_each_state_has_its_one_cause(
    at_hand: Client, name: str, status: int, level: int, big_khz: int
) -> None:
    at_hand.phone.set_state(name)
    thermal = at_hand.shell("dumpsys thermalservice")
    assert f"\nThermal Status: {status}\n" in thermal
    cached, current = thermal.split("Current temperatures from HAL:\n")
    assert f"mName=VIRTUAL-SKIN, mStatus={status}}}" in current
    assert "mName=VIRTUAL-SKIN, mStatus=0}" in cached
    assert f"\n  level: {level}\n" in at_hand.shell("dumpsys battery")
    limit = at_hand.shell("cat /sys/devices/system/cpu/cpu7/cpufreq/scaling_max_freq")
    assert int(limit) == big_khz
    assert "mWakefulness=Awake" in at_hand.shell("dumpsys power")


def test_every_state_is_tested() -> None:
    assert set(STATES) == {"cool", "throttling", "capped", "low_battery"}


def test_a_state_passes_after_so_many_reads(at_hand: Client) -> None:
    at_hand.phone.set_state("throttling", reads=3, then="capped")
    look = "dumpsys thermalservice | grep Status:"
    limit = "cat /sys/devices/system/cpu/cpu7/cpufreq/scaling_max_freq"
    seen = [at_hand.shell(f"{limit}; {look}; {look}; {limit}").split() for _ in range(5)]
    hot = [str(BIG_KHZ), *["Thermal", "Status:", "2"] * 2, str(BIG_KHZ)]
    capped = ["1920000", *["Thermal", "Status:", "0"] * 2, "1920000"]
    assert seen == [hot, hot, hot, capped, capped]


def test_an_unknown_service_is_named(at_hand: Client) -> None:
    assert "Can't find service: nonsense" in at_hand("shell", "dumpsys nonsense").stderr
