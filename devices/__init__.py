"""Devices by name. ``cpu`` is this machine through onnxruntime."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from hwbench.errors import UnknownNameError

if TYPE_CHECKING:
    from hwbench.devices.base import Device

#: Device name -> module and class, imported when first asked for.
_DEVICES = {"cpu": ("hwbench.devices.onnx_cpu", "OnnxCpu")}


def device_names() -> list[str]:
    """Names that :func:`get_device` knows."""
    return sorted(_DEVICES)


def get_device(name: str) -> Device:
    """The device of that name. Raises :class:`~hwbench.errors.UnknownNameError`."""
    if name not in _DEVICES:
        raise UnknownNameError("device", name, _DEVICES)
    module, cls = _DEVICES[name]
    device: Device = getattr(import_module(module), cls)()
    return device
