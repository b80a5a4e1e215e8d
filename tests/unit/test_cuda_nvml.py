"""What NVML's answers become: the real binding, with a driver's answers put in its place."""

from __future__ import annotations

import sys
from typing import Any

import pynvml
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwbench.devices.base import Check
from hwbench.devices.cuda import health
from hwbench.devices.cuda.nvml import REASONS, THROTTLING, GpuState, Nvml, reasons_of
from hwbench.errors import DeviceError

COOL = GpuState(1980, 2619, 310.5, 61, ())
UUID = "5f2c9d1e-0000-0000-0000-000000000000"

#: A driver's answers by query; an int instead of a value is an error code to raise.
ANSWERS: dict[str, Any] = {
    "nvmlInit": None,
    "nvmlDeviceGetHandleByUUID": "handle",
    "nvmlSystemGetDriverVersion": "580.65.06",
    "nvmlDeviceGetEccMode": [1, 1],
    "nvmlDeviceGetMigMode": [0, 0],
    "nvmlDeviceGetPersistenceMode": 1,
    "nvmlDeviceGetMaxClockInfo": 1980,
    "nvmlDeviceGetEnforcedPowerLimit": 700_000,
    "nvmlDeviceGetClockInfo": 1755,
    "nvmlDeviceGetPowerUsage": 123_456,
    "nvmlDeviceGetTemperature": 44,
    "nvmlDeviceGetCurrentClocksEventReasons": 0x24,
    "nvmlDeviceGetCurrentClocksThrottleReasons": 0x8,
    "nvmlDeviceGetComputeRunningProcesses": [],
    "nvmlDeviceGetGraphicsRunningProcesses": [],
}


class Refusal:
    """An NVML error code in the place of an answer."""

    def __init__(self, code: int) -> None:
        self.code = code


UNSUPPORTED = Refusal(pynvml.NVML_ERROR_NOT_SUPPORTED)


class Process:
    """A process as NVML lists it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The answers of a driver, to be changed by a test."""
    answers = dict(ANSWERS)

    def answering(query: str) -> Any:
        def ask(*args: Any) -> Any:
            answer = answers[query]
            if isinstance(answer, Refusal):
                raise pynvml.NVMLError(answer.code)
            return answer

        return ask

    for query in answers:
        monkeypatch.setattr(pynvml, query, answering(query))
    return answers


def test_the_bits_are_those_of_the_binding() -> None:
    named = {
        getattr(pynvml, name)
        for name in dir(pynvml)
        if name.startswith("nvmlClocksEventReason") and not name.endswith(("All", "None"))
    }
    assert set(REASONS) == named
    assert set(REASONS.values()) >= THROTTLING


@given(bits=st.integers(0, 2**64 - 1))
def test_every_bit_has_a_name_and_none_is_lost(bits: int) -> None:
    names = reasons_of(bits)
    back = sum(bit for bit, name in REASONS.items() if name in names)
    back += sum(int(name, 16) for name in names if name.startswith("0x"))
    assert back == bits


@pytest.mark.parametrize(
    ("bits", "throttled"),
    [
        (0x000, ()),
        (0x001, ()),
        (0x002, ()),
        (0x110, ()),
        (0x004, ("power cap",)),
        (0x008, ("hardware slowdown",)),
        (0x020, ("software thermal slowdown",)),
        (0x040, ("hardware thermal slowdown",)),
        (0x080, ("power brake",)),
        (0x025, ("power cap", "software thermal slowdown")),
    ],
)
def test_only_being_held_back_spoils_a_time(bits: int, throttled: tuple[str, ...]) -> None:
    assert GpuState(None, None, None, None, reasons_of(bits)).throttled == throttled


def test_a_state_in_words() -> None:
    assert COOL.texts == {
        "sm_clock_mhz": "1980",
        "memory_clock_mhz": "2619",
        "power_w": "310.5",
        "temperature_c": "61",
        "reasons": "none",
    }
    dumb = GpuState(None, None, None, None, None)
    assert set(dumb.texts.values()) == {"unknown"}
    assert dumb.throttled == ()


@pytest.mark.usefixtures("driver")
def test_facts_and_state_of_a_gpu_that_tells_all() -> None:
    nvml = Nvml(UUID)
    assert nvml.facts() == {
        "driver": "580.65.06",
        "ecc": "on",
        "mig": "off",
        "persistence": "on",
        "most_sm_clock_mhz": "1980",
        "most_memory_clock_mhz": "1980",
        "power_limit_w": "700.0",
    }
    reasons = ("power cap", "software thermal slowdown")
    assert nvml.state() == GpuState(1755, 1755, 123.456, 44, reasons)
    assert nvml.others([]) == ()


def test_what_is_not_told_is_unknown_and_never_a_number(driver: dict[str, Any]) -> None:
    for query in driver:
        if query.startswith("nvmlDeviceGet") and query != "nvmlDeviceGetHandleByUUID":
            driver[query] = UNSUPPORTED
    nvml = Nvml(UUID)
    facts = nvml.facts()
    assert facts.pop("driver") == "580.65.06"
    assert set(facts.values()) == {"unknown"}
    assert nvml.state() == GpuState(None, None, None, None, None)
    assert nvml.others([]) is None


def test_an_older_driver_knows_the_reasons_by_another_name(driver: dict[str, Any]) -> None:
    driver["nvmlDeviceGetCurrentClocksEventReasons"] = Refusal(pynvml.NVML_ERROR_FUNCTION_NOT_FOUND)
    assert Nvml(UUID).state().reasons == ("hardware slowdown",)


def test_a_lost_gpu_is_an_error_and_no_state(driver: dict[str, Any]) -> None:
    nvml = Nvml(UUID)
    driver["nvmlDeviceGetPowerUsage"] = Refusal(pynvml.NVML_ERROR_GPU_IS_LOST)
    with pytest.raises(DeviceError, match="nvmlDeviceGetPowerUsage: GPU is lost: does nvidia-smi"):
        nvml.state()


def test_a_slice_answers_for_its_whole_gpu(
    driver: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def by_uuid(uuid: str) -> str:
        asked.append(uuid)
        if uuid.startswith("GPU-"):
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return "part"

    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByUUID", by_uuid)
    monkeypatch.setattr(
        pynvml, "nvmlDeviceGetDeviceHandleFromMigDeviceHandle", lambda part: f"whole of {part}"
    )
    monkeypatch.setattr(pynvml, "nvmlDeviceGetTemperature", lambda handle, sensor: len(handle))
    assert Nvml(UUID).state().temperature_c == len("whole of part")
    assert asked == [f"GPU-{UUID}", f"MIG-{UUID}"]


def test_processes_of_others_are_named(driver: dict[str, Any]) -> None:
    driver["nvmlDeviceGetComputeRunningProcesses"] = [Process(1), Process(7), Process(2**30)]
    driver["nvmlDeviceGetGraphicsRunningProcesses"] = [Process(1)]
    first, last = Nvml(UUID).others([7]) or ()
    assert first.startswith("pid 1 (")
    assert last == f"pid {2**30} (of another user or container)"


def test_a_missing_binding_has_a_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(DeviceError, match="pip install nvidia-ml-py"):
        Nvml(UUID)


def test_a_missing_driver_has_a_cure() -> None:
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        with pytest.raises(DeviceError, match=r"NVML cannot be asked \(.*\): does nvidia-smi work"):
            Nvml(UUID)
    else:
        pytest.skip("this machine has an NVIDIA driver: nothing is missing")


class TestHealth:
    @pytest.mark.parametrize(
        ("check", "state", "detail"),
        [
            (health.throttling(COOL), "ok", "none; SM clock 1980 MHz, 61 C, 310.5 W"),
            (
                health.throttling(GpuState(1200, 2619, 700.0, 90, reasons_of(0x44))),
                "warn",
                "power cap, hardware thermal slowdown; SM clock 1200 MHz, 90 C, 700.0 W",
            ),
            (
                health.throttling(GpuState(None, None, None, None, None)),
                "warn",
                "the driver does not tell",
            ),
            (health.others(()), "ok", "nobody else uses the GPU"),
            (health.others(("pid 7 (python)",)), "warn", "also used by pid 7 (python)"),
            (health.others(None), "warn", "the driver does not tell who uses the GPU"),
            (health.persistence({"persistence": "on"}), "ok", "on"),
            (health.persistence({}), "ok", "unknown"),
            (health.persistence({"persistence": "off"}), "warn", "off: an idle GPU is reset"),
            (health.slices({"mig": "on"}), "warn", "on: this is a slice of a GPU"),
            (health.slices({"mig": "unknown"}), "ok", "unknown"),
            (
                health.blind("NVML is not at hand: pip install nvidia-ml-py"),
                "warn",
                "NVML is not at hand: throttled runs cannot be told from others",
            ),
        ],
    )
    def test_a_finding_comes_with_its_cure(self, check: Check, state: str, detail: str) -> None:
        assert (check.state, check.detail) == (state, detail)
        assert bool(check.cure) == (state != "ok")
