"""Between a graph and what runtimes eat: ONNX both ways, torch, weights, sessions.

Names are loaded when first used, so that a process that only makes weights and sessions never
imports torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hwbench.lower.onnx_file import input_specs, open_onnx
    from hwbench.lower.onnx_read import from_onnx
    from hwbench.lower.onnx_write import OnnxModel, to_onnx
    from hwbench.lower.session import create_session, external_initializers
    from hwbench.lower.torch_module import GraphModule, to_torch
    from hwbench.lower.weights import random_weights

_HOMES = {
    "GraphModule": "torch_module",
    "OnnxModel": "onnx_write",
    "create_session": "session",
    "external_initializers": "session",
    "from_onnx": "onnx_read",
    "input_specs": "onnx_file",
    "open_onnx": "onnx_file",
    "random_weights": "weights",
    "to_onnx": "onnx_write",
    "to_torch": "torch_module",
}

__all__ = [
    "GraphModule",
    "OnnxModel",
    "create_session",
    "external_initializers",
    "from_onnx",
    "input_specs",
    "open_onnx",
    "random_weights",
    "to_onnx",
    "to_torch",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
