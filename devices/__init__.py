"""Devices by name, as ``cpu`` or ``cuda:1``; installed packages may offer more."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from hwbench.errors import UnknownNameError
from hwbench.plugins import load_plugin, plugin_packages

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
    """Kinds of devices that :func:`get_device` knows, sorted."""
    return list(device_packages())


def device_packages() -> dict[str, str]:
    """Those kinds -> the package that each comes from."""
    known = plugin_packages("hwbench.devices") | dict.fromkeys(_DEVICES, "hwbench")
    return dict(sorted(known.items()))


def device_class(kind: str) -> type[Device]:
    """The class of a kind. Raises UnknownNameError, PluginError where another package's fails."""
    cls: type[Device] | None
    if kind in _DEVICES:
        module, name = _DEVICES[kind]
        cls = getattr(import_module(module), name)
    else:
        cls = load_plugin("hwbench.devices", kind, _checked)
    if cls is None:
        raise UnknownNameError("device", kind, device_names(), _MEANT.get(kind.lower()))
    return cls


def _checked(offered: Any) -> type[Device]:
    from hwbench.devices.base import Device

    if not (isinstance(offered, type) and issubclass(offered, Device)):
        raise TypeError(f"{offered!r} is no subclass of hwbench.devices.base.Device")
    return offered


def get_device(name: str, options: Mapping[str, str] | None = None) -> Device:
    """The device of a name: its kind, or ``KIND:ADDRESS`` where there may be several of it.

    ``options`` are texts by name, as the command line's ``--option`` gives them. Raises
    UnknownNameError for a kind or an option that does not exist, UsageError for an address or a
    value that the kind does not take.
    """
    kind, colon, address = name.partition(":")
    return device_class(kind).open(address if colon else None, options or {})
