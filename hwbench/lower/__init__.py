"""Between a graph and what runtimes eat: ONNX both ways, TFLite, torch, weights.

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
    from hwbench.lower.tflite_file import tflite_inputs
    from hwbench.lower.tflite_int8 import Int8
    from hwbench.lower.tflite_model import TfliteModel, to_tflite
    from hwbench.lower.torch_module import GraphModule, to_torch
    from hwbench.lower.weights import random_weights

_HOMES = {
    "GraphModule": "torch_module",
    "Int8": "tflite_int8",
    "OnnxModel": "onnx_write",
    "TfliteModel": "tflite_model",
    "create_session": "session",
    "external_initializers": "session",
    "from_onnx": "onnx_read",
    "input_specs": "onnx_file",
    "open_onnx": "onnx_file",
    "random_weights": "weights",
    "tflite_inputs": "tflite_file",
    "to_onnx": "onnx_write",
    "to_tflite": "tflite_model",
    "to_torch": "torch_module",
}

__all__ = [
    "GraphModule",
    "Int8",
    "OnnxModel",
    "TfliteModel",
    "create_session",
    "external_initializers",
    "from_onnx",
    "input_specs",
    "open_onnx",
    "random_weights",
    "tflite_inputs",
    "to_onnx",
    "to_tflite",
    "to_torch",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
