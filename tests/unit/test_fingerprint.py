"""The host's fingerprint, read from folders made like the /proc and /sys of several machines."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from hwbench.measure.fingerprint import NO_LIMIT, UNKNOWN, fingerprint_host, last_cache_mib
from hwbench.records import Fingerprint

CPU = "sys/devices/system/cpu"

INTEL = {
    "proc/cpuinfo": "".join(
        f"processor\t: {core}\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 142\n"
        "model name\t: Intel(R) Core(TM) i7-8550U CPU @ 1.80GHz\nstepping\t: 10\n"
        f"microcode\t: 0xf0\ncpu MHz\t\t: {800 + core}.0\nflags\t\t: fpu sse avx2\n\n"
        for core in (0, 1)
    ),
    "proc/loadavg": "0.52 0.40 0.30 1/300 12345\n",
    "proc/stat": "cpu  100 0 50 800 20 0 10 20 0 0\ncpu0 50 0 25 400 10 0 5 10 0 0\n",
    "proc/meminfo": "MemTotal:       16000000 kB\nMemAvailable:    8000000 kB\n",
    "proc/self/status": "Name:\tpython\nCpus_allowed:\t3\nCpus_allowed_list:\t0-1\n",
    "proc/self/cgroup": "0::/user.slice/job.scope\n",
    "proc/sys/kernel/osrelease": "6.1.0-18-amd64\n",
    f"{CPU}/online": "0-1\n",
    f"{CPU}/smt/active": "1\n",
    f"{CPU}/intel_pstate/no_turbo": "0\n",
    f"{CPU}/cpu0/cpufreq/scaling_governor": "powersave\n",
    f"{CPU}/cpu1/cpufreq/scaling_governor": "performance\n",
    f"{CPU}/cpu0/cpufreq/scaling_cur_freq": "1800000\n",
    f"{CPU}/cpu1/cpufreq/scaling_cur_freq": "3900000\n",
    f"{CPU}/cpu0/cache/index0/level": "1\n",
    f"{CPU}/cpu0/cache/index0/type": "Data\n",
    f"{CPU}/cpu0/cache/index0/size": "32K\n",
    "sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never\n",
    "etc/machine-id": "0123456789abcdef0123456789abcdef\n",
    "sys/class/dmi/id/product_name": "20L5CTO1WW\n",
    "sys/class/thermal/thermal_zone0/temp": "41000\n",
    "sys/class/thermal/thermal_zone1/temp": "67500\n",
    "sys/fs/cgroup/cgroup.controllers": "cpu memory\n",
    "sys/fs/cgroup/user.slice/cpu.max": "max 100000\n",
    "sys/fs/cgroup/user.slice/memory.max": "8589934592\n",
    "sys/fs/cgroup/user.slice/job.scope/cpu.max": "150000 100000\n",
    "sys/fs/cgroup/user.slice/job.scope/memory.max": "max\n",
}

PI = {
    "proc/cpuinfo": "processor\t: 0\nFeatures\t: fp asimd\nCPU implementer\t: 0x41\n"
    "CPU variant\t: 0x4\nCPU part\t: 0xd0b\n\nprocessor\t: 1\nFeatures\t: fp asimd\n"
    "CPU implementer\t: 0x41\nCPU variant\t: 0x4\nCPU part\t: 0xd0b\n\n"
    "Revision\t: d04170\nModel\t\t: Raspberry Pi 5 Model B Rev 1.0\n",
    "proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0",
}


def host(root: Path, files: Mapping[str, str]) -> Path:
    """A root folder with these files."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


def test_a_laptop(tmp_path: Path) -> None:
    facts, state = fingerprint_host(host(tmp_path, INTEL))
    assert len(facts.pop("cpu_flags")) == 32
    assert facts == {
        "machine": "20L5CTO1WW",
        "machine_id": "3ec96a453a2be432",
        "cpu_model": "Intel(R) Core(TM) i7-8550U CPU @ 1.80GHz",
        "cpu_id": "6 142 10",
        "microcode": "0xf0",
        "caches": "L1 Data 32K",
        "cores": "0-1",
        "smt": "on",
        "affinity": "0-1",
        "governor": "performance, powersave",
        "turbo": "on",
        "huge_pages": "madvise",
        "cpu_limit": "1.50",
        "memory_limit": "8589934592",
        "kernel": "6.1.0-18-amd64",
        "hypervisor": "no",
    }
    assert state == {
        "load_1min": "0.52",
        "frequency_mhz_min": "1800",
        "frequency_mhz_max": "3900",
        "steal_share": "0.02000",
        "temperature_c": "68",
        "memory_available_kb": "8000000",
    }


def test_an_arm_board_has_no_model_name(tmp_path: Path) -> None:
    facts, _ = fingerprint_host(host(tmp_path, PI))
    assert facts["machine"] == "Raspberry Pi 5 Model B Rev 1.0"
    assert (facts["cpu_model"], facts["cpu_id"]) == ("0x41 0xd0b", "0x4")
    assert facts["cpu_flags"] != UNKNOWN
    assert facts["hypervisor"] == UNKNOWN


def test_the_last_cache_is_the_largest(tmp_path: Path) -> None:
    cache = f"{CPU}/cpu0/cache"
    sizes = {f"{cache}/index{i}/size": text for i, text in enumerate(("48K", "1024K", "32768K"))}
    assert last_cache_mib(host(tmp_path / "three", sizes)) == 32
    sizes[f"{cache}/index3/size"] = "96M"
    assert last_cache_mib(host(tmp_path / "four", sizes)) == 96
    for odd in ("plenty", "0K", "512K", "\u00b2K", "9" * 5000 + "K"):
        assert last_cache_mib(host(tmp_path / odd[:6], {f"{cache}/index0/size": odd})) is None
    assert last_cache_mib(tmp_path / "nothing") is None


def test_what_a_host_does_not_tell_is_unknown_and_there(tmp_path: Path) -> None:
    told = fingerprint_host(host(tmp_path / "intel", INTEL))
    silent = fingerprint_host(tmp_path / "nothing")
    for one, other in zip(told, silent, strict=True):
        assert set(one) == set(other)
        assert set(other.values()) == {UNKNOWN}


@pytest.mark.parametrize("name", sorted(INTEL))
@pytest.mark.parametrize("content", ["", "\n", ":", "garbage", "1:2", "-1 0", "\xff\0[", "nan inf"])
def test_no_file_can_break_it(tmp_path: Path, name: str, content: str) -> None:
    facts, state = fingerprint_host(host(tmp_path, {**INTEL, name: content}))
    values = [*facts.values(), *state.values()]
    assert all(isinstance(value, str) and value for value in values)


def test_flags_count_not_their_order(tmp_path: Path) -> None:
    def flags(folder: str, text: str) -> str:
        files = {"proc/cpuinfo": f"processor : 0\nflags : {text}\n"}
        return fingerprint_host(host(tmp_path / folder, files))[0]["cpu_flags"]

    assert flags("a", "avx2 sse fpu") == flags("b", "fpu sse avx2")
    assert flags("c", "fpu sse") != flags("d", "fpu sse avx512f")


@pytest.mark.parametrize(
    ("files", "cpu", "memory"),
    [
        # v2 in a container: the group is the root of what is mounted
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "50000 100000\n"}, "0.50", "none"),
        # v2 on the host's root group, which has no limit files
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cgroup.procs": ""}, "none", "none"),
        # v1, whose path in the host is not mounted in the container
        (
            {
                "proc/self/cgroup": "4:memory:/docker/ab\n2:cpu,cpuacct:/docker/ab\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "200000\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "1073741824\n",
            },
            "2.00",
            "1073741824",
        ),
        # v1 without limits
        (
            {
                "proc/self/cgroup": "4:memory:/\n2:cpu:/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            },
            NO_LIMIT,
            NO_LIMIT,
        ),
        # the tightest of the groups around counts
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/memory.max": "1000\n",
                "sys/fs/cgroup/a/b/memory.max": "2000\n",
            },
            "none",
            "1000",
        ),
    ],
)
def test_container_limits(tmp_path: Path, files: dict[str, str], cpu: str, memory: str) -> None:
    facts, _ = fingerprint_host(host(tmp_path, files))
    assert (facts["cpu_limit"], facts["memory_limit"]) == (cpu, memory)


@pytest.mark.parametrize(
    ("name", "content", "answer"),
    [
        ("intel_pstate/no_turbo", "1\n", "off"),
        ("cpufreq/boost", "1\n", "on"),
        ("cpufreq/boost", "0\n", "off"),
    ],
)
def test_turbo(tmp_path: Path, name: str, content: str, answer: str) -> None:
    facts, _ = fingerprint_host(host(tmp_path, {f"{CPU}/{name}": content}))
    assert facts["turbo"] == answer


def test_a_virtual_machine_says_so(tmp_path: Path) -> None:
    files = {"proc/cpuinfo": "processor : 0\nflags : fpu hypervisor\n"}
    assert fingerprint_host(host(tmp_path, files))[0]["hypervisor"] == "yes"


def test_this_host_has_the_same_facts_a_moment_later() -> None:
    first, second = fingerprint_host()[0], fingerprint_host()[0]
    assert Fingerprint("cpu", first).key == Fingerprint("cpu", second).key
    assert first["kernel"] != UNKNOWN
