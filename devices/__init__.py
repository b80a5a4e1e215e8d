"""Devices by name, as ``cpu`` or ``cuda:1``; installed packages may offer more."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING

from hwbench.errors import UnknownNameError
from hwbench.plugins import load_plugin, plugin_names

if TYPE_CHECKING:
    from hwbench.devices.base import Device

#: Kind of device -> module and class, imported when first asked for.
_DEVICES = {
    "adb": ("hwbench.devices.phone.device", "AdbPhone"),
    "cpu": ("hwbench.devices.onnx_cpu", "OnnxCpu"),
    "cuda": ("hwbench.devices.cuda.device", "Cuda"),
    "litert": ("hwbench.devices.litert", "LiteRt"),
    "shell": ("hwbench.devices.phone.device", "Board"),
}
#: What a kind is called elsewhere.
_MEANT = {
    "android": "adb",
    "board": "shell",
    "gpu": "cuda",
    "nvidia": "cuda",
    "onnx": "cpu",
    "onnxruntime": "cpu",
    "phone": "adb",
    "tflite": "litert",
}


def device_names() -> list[str]:
    """Kinds of devices that :func:`get_device` knows."""
    return sorted({*_DEVICES, *plugin_names("hwbench.devices")})


def device_class(kind: str) -> type[Device]:
    """The class of a kind. Raises :class:`~hwbench.errors.UnknownNameError`."""
    cls: type[Device] | None
    if kind in _DEVICES:
        module, name = _DEVICES[kind]
        cls = getattr(import_module(module), name)
    else:
        cls = load_plugin("hwbench.devices", kind)
    if cls is None:
        raise UnknownNameError("device", kind, device_names(), _MEANT.get(kind.lower()))
    return cls


def get_device(name: str, options: Mapping[str, str] | None = None) -> Device:
    """The device of a name: its kind, or ``KIND:ADDRESS`` where there may be several of it.

    ``options`` are texts by name, as the command line's ``--option`` gives them. Raises
    UnknownNameError for a kind or an option that does not exist, UsageError for an address or a
    value that the kind does not take.
    """
    kind, colon, address = name.partition(":")
    return device_class(kind).open(address if colon else None, options or {})
