"""What the driver tells of a GPU through NVML: facts, state, and whether it is held back.

A value that a GPU or its driver does not tell is ``None`` (text: ``unknown``), never a number.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from importlib import import_module
from typing import Any, Protocol

from hwbench.errors import DeviceError

UNKNOWN = "unknown"

#: Why clocks are not at what was asked for (NVML's "clocks event reasons", a bit each).
REASONS: Mapping[int, str] = {
    0x001: "idle",
    0x002: "application clocks",
    0x004: "power cap",
    0x008: "hardware slowdown",
    0x010: "sync boost",
    0x020: "software thermal slowdown",
    0x040: "hardware thermal slowdown",
    0x080: "power brake",
    0x100: "display clocks",
}
#: Those under which a time is not the model's own.
THROTTLING = frozenset(
    {
        "power cap",
        "hardware slowdown",
        "software thermal slowdown",
        "hardware thermal slowdown",
        "power brake",
    }
)


@dataclass(frozen=True, slots=True)
class GpuState:
    """What varies from moment to moment; ``None`` where it is not told.

    ``reasons`` are names of :data:`REASONS`.
    """

    sm_clock_mhz: int | None
    memory_clock_mhz: int | None
    power_w: float | None
    temperature_c: int | None
    reasons: tuple[str, ...] | None

    @property
    def throttled(self) -> tuple[str, ...]:
        """The reasons, if any, for which a time measured now does not count."""
        return tuple(reason for reason in self.reasons or () if reason in THROTTLING)

    @property
    def texts(self) -> dict[str, str]:
        """For the record: every field as text."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        if self.reasons is not None:
            values["reasons"] = ", ".join(self.reasons) or "none"
        return {name: UNKNOWN if v is None else str(v) for name, v in values.items()}


class Sensor(Protocol):
    """What is asked of NVML about one GPU."""

    def facts(self) -> dict[str, str]:
        """What makes latencies comparable: driver, modes, limits of clocks and power."""

    def state(self) -> GpuState:
        """Clocks, power, temperature and throttle reasons, now."""

    def others(self, mine: Iterable[int]) -> tuple[str, ...] | None:
        """Processes that compute or draw on this GPU, without those of the ids ``mine``.

        None where it is not told.
        """


def reasons_of(bits: int) -> tuple[str, ...]:
    """Names of the bits that are set; one that has no name is given as its number."""
    names = [name for bit, name in REASONS.items() if bits & bit]
    rest = bits & ~sum(REASONS)
    return (*names, f"{rest:#x}") if rest else tuple(names)


class Nvml:
    """NVML's view of the GPU with this UUID (as torch gives it, without a prefix).

    Raises DeviceError, with the cure, where NVML cannot be asked or the GPU is lost.
    """

    def __init__(self, uuid: str) -> None:
        try:
            self._nvml = import_module("pynvml")
        except ImportError:
            raise DeviceError("NVML is not at hand: pip install nvidia-ml-py") from None
        try:
            self._nvml.nvmlInit()
            self._handle = self._find(uuid)
        except self._nvml.NVMLError as error:
            raise DeviceError(
                f"NVML cannot be asked ({error}): does nvidia-smi work here? In a container, "
                "NVIDIA_DRIVER_CAPABILITIES must hold 'utility'"
            ) from error

    def _find(self, uuid: str) -> Any:
        """The handle; clocks and power of a slice (MIG) are those of the whole GPU."""
        try:
            return self._nvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
        except self._nvml.NVMLError:
            part = self._nvml.nvmlDeviceGetHandleByUUID(f"MIG-{uuid}")
            return self._nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(part)

    def _ask(self, query: str, *args: Any) -> Any:
        """One query; None where this GPU, this driver or our rights do not allow it."""
        nvml = self._nvml
        try:
            return getattr(nvml, query)(self._handle, *args)
        except nvml.NVMLError as error:
            if error.value in (
                nvml.NVML_ERROR_NOT_SUPPORTED,
                nvml.NVML_ERROR_FUNCTION_NOT_FOUND,
                nvml.NVML_ERROR_NO_PERMISSION,
            ):
                return None
            raise DeviceError(
                f"{query}: {error}: does nvidia-smi still list the GPU? "
                "A lost one needs a restart of the machine"
            ) from error

    def facts(self) -> dict[str, str]:
        """Driver, ECC, MIG and persistence mode, limits of clocks (MHz) and power (W)."""
        nvml = self._nvml
        return {
            "driver": str(nvml.nvmlSystemGetDriverVersion()),
            "ecc": _mode(self._ask("nvmlDeviceGetEccMode")),
            "mig": _mode(self._ask("nvmlDeviceGetMigMode")),
            "persistence": _mode(self._ask("nvmlDeviceGetPersistenceMode")),
            "most_sm_clock_mhz": _text(self._ask("nvmlDeviceGetMaxClockInfo", nvml.NVML_CLOCK_SM)),
            "most_memory_clock_mhz": _text(
                self._ask("nvmlDeviceGetMaxClockInfo", nvml.NVML_CLOCK_MEM)
            ),
            "power_limit_w": _text(_thousandth(self._ask("nvmlDeviceGetEnforcedPowerLimit"))),
        }

    def state(self) -> GpuState:
        """Five queries; none waits for the GPU."""
        nvml = self._nvml
        bits = self._ask("nvmlDeviceGetCurrentClocksEventReasons")
        if bits is None:  # drivers before 535 know it by its former name
            bits = self._ask("nvmlDeviceGetCurrentClocksThrottleReasons")
        return GpuState(
            self._ask("nvmlDeviceGetClockInfo", nvml.NVML_CLOCK_SM),
            self._ask("nvmlDeviceGetClockInfo", nvml.NVML_CLOCK_MEM),
            _thousandth(self._ask("nvmlDeviceGetPowerUsage")),
            self._ask("nvmlDeviceGetTemperature", nvml.NVML_TEMPERATURE_GPU),
            None if bits is None else reasons_of(bits),
        )

    def others(self, mine: Iterable[int]) -> tuple[str, ...] | None:
        """``pid 123 (name)`` each."""
        queries = ("nvmlDeviceGetComputeRunningProcesses", "nvmlDeviceGetGraphicsRunningProcesses")
        answers = [answer for query in queries if (answer := self._ask(query)) is not None]
        if not answers:
            return None
        pids = {process.pid for answer in answers for process in answer}
        return tuple(f"pid {pid} ({_program(pid)})" for pid in sorted(pids - set(mine)))


def _mode(answer: Any) -> str:
    """A mode as NVML gives it: a flag, or a pair of the current and the pending one."""
    if answer is None:
        return UNKNOWN
    return "on" if (answer[0] if isinstance(answer, list) else answer) else "off"


def _text(value: object) -> str:
    return UNKNOWN if value is None else str(value)


def _thousandth(value: int | None) -> float | None:
    return None if value is None else value / 1000


def _program(pid: int) -> str:
    import psutil

    try:
        return str(psutil.Process(pid).name())
    except psutil.Error:
        return "of another user or container"
