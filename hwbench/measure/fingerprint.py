"""What this Linux host is, read from /proc and /sys: facts that a latency belongs to, and state.

A fact changes only when the machine or its set-up does; two latencies of equal facts may be
compared, and are of one machine. State varies from minute to minute and is kept for the record.
Every value is text; what a host does not tell is ``"unknown"``, never left out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from hwbench.machine import MACHINE_FACT, machine_id, product
from hwbench.records import digest

UNKNOWN: Final = "unknown"
NO_LIMIT: Final = "none"

_CPU: Final = "sys/devices/system/cpu"
#: cgroup v1 writes "no limit" as the largest page multiple of 63 bits.
_V1_NO_LIMIT_BYTES: Final = 1 << 62


def fingerprint_host(root: Path = Path("/")) -> tuple[dict[str, str], dict[str, str]]:
    """(facts, state) of the host whose ``proc`` and ``sys`` lie under ``root``.

    Runtimes and their versions are the device's to add.
    """
    host = _Host(root)
    cpus = host.cpus()
    flags = cpus[0].get("flags") or cpus[0].get("Features") if cpus else None
    facts = {
        "machine": product(root),
        MACHINE_FACT: machine_id(root),
        "cpu_model": _distinct(cpus, ("model name",), ("CPU implementer", "CPU part")),
        "cpu_id": _distinct(cpus, ("cpu family", "model", "stepping"), ("CPU variant",)),
        "cpu_flags": digest(sorted(flags.split())) if flags else None,
        "microcode": _distinct(cpus, ("microcode",)),
        "caches": host.caches(),
        "cores": host.line(f"{_CPU}/online"),
        "smt": _on_off(host.line(f"{_CPU}/smt/active")),
        "affinity": host.fields("proc/self/status").get("Cpus_allowed_list"),
        "governor": host.every(f"{_CPU}/cpu[0-9]*/cpufreq/scaling_governor"),
        "turbo": host.turbo(),
        "huge_pages": _chosen(host.line("sys/kernel/mm/transparent_hugepage/enabled")),
        "cpu_limit": host.cpu_limit(),
        "memory_limit": host.memory_limit(),
        "kernel": host.line("proc/sys/kernel/osrelease"),
        # Only x86 says so, by a flag that hypervisors set.
        "hypervisor": _yes_no(cpus[0]["flags"]) if cpus and "flags" in cpus[0] else None,
    }
    load = (host.line("proc/loadavg") or "").split()
    frequencies = host.frequencies_mhz(cpus)
    state = {
        "load_1min": load[0] if load else None,
        "frequency_mhz_min": f"{min(frequencies):.0f}" if frequencies else None,
        "frequency_mhz_max": f"{max(frequencies):.0f}" if frequencies else None,
        "steal_share": host.steal_share(),
        "temperature_c": host.temperature_c(),
        "memory_available_kb": host.fields("proc/meminfo").get("MemAvailable", "").split(" ")[0],
    }
    return _told(facts), _told(state)


_SIZE = re.compile(r"([0-9]{1,9})([KMG])")
_SHIFT = {"K": 10, "M": 20, "G": 30}


def last_cache_mib(root: Path = Path("/")) -> int | None:
    """Size of the largest cache of the first core; ``None`` where the host tells none of 1 MiB."""
    sizes = [
        int(found[1]) << _SHIFT[found[2]] >> 20
        for path in root.glob(f"{_CPU}/cpu0/cache/index[0-9]*/size")
        if (found := _SIZE.fullmatch(_text(path) or ""))
    ]
    return max(sizes, default=0) or None


class _Host:
    """Readers of one host's files; each answers ``None`` where the host does not tell."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def text(self, path: str) -> str | None:
        """Content of a file without the white space and NULs around it; ``None`` if empty."""
        return _text(self._root / path)

    def line(self, path: str) -> str | None:
        text = self.text(path)
        return text.splitlines()[0] if text else None

    def every(self, pattern: str) -> str | None:
        """The distinct contents of all files of a pattern."""
        return _joined(self._contents(pattern))

    def fields(self, path: str) -> dict[str, str]:
        """A file of ``name: value`` lines."""
        return _fields(self.text(path) or "")

    def cpus(self) -> list[dict[str, str]]:
        """The fields of each processor in /proc/cpuinfo."""
        blocks = (self.text("proc/cpuinfo") or "").split("\n\n")
        return [fields for fields in map(_fields, blocks) if "processor" in fields]

    def caches(self) -> str | None:
        """As ``L1 Data 48K, L2 Unified 1024K``, of the first core."""
        found = []
        for index in sorted(self._root.glob(f"{_CPU}/cpu0/cache/index[0-9]*")):
            level, kind, size = (_text(index / name) for name in ("level", "type", "size"))
            if level and kind and size:
                found.append(f"L{level} {kind} {size}")
        return ", ".join(found) or None

    def turbo(self) -> str | None:
        if (off := self.line(f"{_CPU}/intel_pstate/no_turbo")) is not None:
            return {"0": "on", "1": "off"}.get(off)
        return _on_off(self.line(f"{_CPU}/cpufreq/boost"))

    def frequencies_mhz(self, cpus: Iterable[dict[str, str]]) -> list[float]:
        """Current frequency of each core."""
        khz = map(_number, self._contents(f"{_CPU}/cpu[0-9]*/cpufreq/scaling_cur_freq"))
        mhz = [value / 1e3 for value in khz if value is not None]
        told = (_number(cpu.get("cpu MHz")) for cpu in cpus)
        return mhz or [value for value in told if value is not None]

    def steal_share(self) -> str | None:
        """Share of all CPU time since boot that the hypervisor gave to others."""
        words = (self.line("proc/stat") or "").split()
        times = [_number(word) for word in words[1:9]]  # user … steal; guest is in user already
        known = [value for value in times if value is not None]
        if words[:1] != ["cpu"] or len(known) < 8 or not sum(known):
            return None
        return f"{known[7] / sum(known):.5f}"

    def temperature_c(self) -> str | None:
        """Of the hottest thermal zone."""
        told = map(_number, self._contents("sys/class/thermal/thermal_zone[0-9]*/temp"))
        known = [value for value in told if value is not None]
        return f"{max(known) / 1e3:.0f}" if known else None

    def cpu_limit(self) -> str | None:
        """Cores' worth of CPU time that the control groups grant."""
        groups = self._control_groups("cpu")
        limits = []
        for folder in groups:
            words = (_text(folder / "cpu.max") or "").split()  # v2: "quota period"
            if not words:
                v1 = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
                words = [text for name in v1 if (text := _text(folder / name))]
            quota, period = map(_number, words) if len(words) == 2 else (None, None)
            if quota and period and quota > 0:
                limits.append(quota / period)
        return f"{min(limits):.2f}" if limits else NO_LIMIT if groups else None

    def memory_limit(self) -> str | None:
        """Bytes that the control groups grant."""
        groups = self._control_groups("memory")
        told = (_text(f / "memory.max") or _text(f / "memory.limit_in_bytes") for f in groups)
        limits = [value for value in map(_number, told) if value and value < _V1_NO_LIMIT_BYTES]
        return f"{min(limits):.0f}" if limits else NO_LIMIT if groups else None

    def _contents(self, pattern: str) -> list[str]:
        texts = (_text(path) for path in sorted(self._root.glob(pattern)))
        return [text for text in texts if text]

    def _control_groups(self, controller: str) -> list[Path]:
        """Folders of this process's control group and of those around it, v1 and v2.

        In a container the group's path may be one of the host's, that is not mounted here: what
        is mounted then is the container's own group.
        """
        found = []
        for line in (self.text("proc/self/cgroup") or "").splitlines():
            _, _, rest = line.partition(":")
            controllers, _, group = rest.partition(":")
            if controllers and controller not in controllers.split(","):
                continue  # another controller of v1; v2 names none
            mount = self._root / "sys/fs/cgroup" / controllers
            inner = mount / group.lstrip("/")
            around = [inner, *(path for path in inner.parents if path.is_relative_to(mount))]
            found += [path for path in around if path.is_dir()]
        return found


def _told(values: dict[str, str | None]) -> dict[str, str]:
    return {name: value or UNKNOWN for name, value in values.items()}


def _text(path: Path) -> str | None:
    try:
        text = path.read_text(encoding="utf-8", errors="replace").strip("\0 \t\n")
    except OSError:  # absent, or not ours to read: the host does not tell
        return None
    return text or None


def _fields(text: str) -> dict[str, str]:
    pairs = (line.partition(":") for line in text.splitlines())
    return {name.strip(): value.strip() for name, colon, value in pairs if colon}


def _distinct(cpus: list[dict[str, str]], *choices: tuple[str, ...]) -> str | None:
    """What the cores say in the first choice of fields that any of them has."""
    for names in choices:
        told = [" ".join(cpu[name] for name in names if cpu.get(name)) for cpu in cpus]
        if any(told):
            return _joined(told)
    return None


def _joined(texts: Iterable[str]) -> str | None:
    return ", ".join(sorted(set(filter(None, texts)))) or None


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "nan")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _on_off(text: str | None) -> str | None:
    return {"1": "on", "0": "off"}.get(text or "")


def _yes_no(flags: str) -> str:
    return "yes" if "hypervisor" in flags.split() else "no"


def _chosen(text: str | None) -> str | None:
    """The bracketed one of ``always [madvise] never``."""
    _, bracket, rest = (text or "").partition("[")
    return rest.partition("]")[0] if bracket else None
