"""Devices by name. ``cpu`` is this machine through onnxruntime; packages may offer more."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from hwbench.errors import UnknownNameError
from hwbench.plugins import make_plugin, plugin_names

if TYPE_CHECKING:
    from hwbench.devices.base import Device

#: Device name -> module and class, imported when first asked for.
_DEVICES = {"cpu": ("hwbench.devices.onnx_cpu", "OnnxCpu")}


def device_names() -> list[str]:
    """Names that :func:`get_device` knows."""
    return sorted({*_DEVICES, *plugin_names("hwbench.devices")})


def get_device(name: str) -> Device:
    """The device of that name. Raises :class:`~hwbench.errors.UnknownNameError`."""
    device: Device | None
    if name in _DEVICES:
        module, cls = _DEVICES[name]
        device = getattr(import_module(module), cls)()
    else:
        device = make_plugin("hwbench.devices", name)
    if device is None:
        raise UnknownNameError("device", name, device_names())
    return device
