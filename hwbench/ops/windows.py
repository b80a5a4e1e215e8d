"""Convolutions, pools and what undoes them: windows that move over an image or a sequence.

Functions come by the roles of :class:`~hwbench.ops.types.OpKind`: ``<kind>_infer`` gives the
output's shape or refuses the inputs, ``<kind>_params`` the learned tensors, ``<kind>_macs``
the cost.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from hwbench.ops.types import Op, Specs, TensorSpec, fail, weight_and_bias


def _slide(op: Op, x: TensorSpec, dilation: tuple[int, ...]) -> tuple[int, ...]:
    """Output sizes of a window of ``kernel`` that moves by ``stride`` over the padded input."""
    spatial = x.shape[2:]
    rank = len(spatial)
    kernel, stride, padding = op["kernel"], op["stride"], op["padding"]
    if rank not in (1, 2):
        fail(op, f"needs an NCL or NCHW input, got shape {x.shape}")
    if not (len(kernel) == len(stride) == len(dilation) == rank and len(padding) == 2 * rank):
        fail(op, f"kernel, stride, dilation and padding do not fit input shape {x.shape}")
    if min(*kernel, *stride, *dilation) < 1 or min(padding) < 0:
        fail(op, "kernel, stride and dilation must be positive, padding not negative")
    out = []
    for axis, (n, k, s, d) in enumerate(zip(spatial, kernel, stride, dilation, strict=True)):
        padded, reach = n + padding[axis] + padding[axis + rank], d * (k - 1) + 1
        if reach > padded:
            fail(op, f"a window of {reach} exceeds the padded input of {padded}")
        out.append((padded - reach) // s + 1)
    return tuple(out)


def conv_infer(op: Op, specs: Specs) -> TensorSpec:
    (x,) = specs
    spatial = _slide(op, x, op["dilation"])
    groups, out_channels = op["groups"], op["out_channels"]
    if groups < 1 or x.shape[1] % groups or out_channels < 1 or out_channels % groups:
        fail(op, f"{groups} groups do not divide {x.shape[1]} -> {out_channels} channels")
    return TensorSpec((x.shape[0], out_channels, *spatial), x.dtype)


def conv_params(op: Op, specs: Specs) -> Mapping[str, TensorSpec]:
    (x,) = specs
    shape = (op["out_channels"], x.shape[1] // op["groups"], *op["kernel"])
    return weight_and_bias(op, shape, x.dtype)


def conv_macs(op: Op, specs: Specs, out: TensorSpec) -> int:
    per_output: int = specs[0].shape[1] // op["groups"] * math.prod(op["kernel"])
    return out.elements * per_output


def pool_infer(op: Op, specs: Specs) -> TensorSpec:
    (x,) = specs
    spatial = _slide(op, x, (1,) * len(op["kernel"]))
    if any(p >= k for p, k in zip(op["padding"], op["kernel"] * 2, strict=True)):
        fail(op, f"padding {op['padding']} must stay below the kernel {op['kernel']}")
    return TensorSpec((*x.shape[:2], *spatial), x.dtype)


def global_pool_infer(op: Op, specs: Specs) -> TensorSpec:
    (x,) = specs
    if len(x.shape) not in (3, 4):
        fail(op, f"needs an NCL or NCHW input, got shape {x.shape}")
    return TensorSpec((*x.shape[:2], *(1,) * (len(x.shape) - 2)), x.dtype)


def conv_transpose_infer(op: Op, specs: Specs) -> TensorSpec:
    """Each input place adds a window of ``kernel`` to the output, ``stride`` apart; ``padding``
    is cut off."""
    (x,) = specs
    kernel, stride, padding = op["kernel"], op["stride"], op["padding"]
    rank = len(x.shape) - 2
    if rank not in (1, 2):
        fail(op, f"needs an NCL or NCHW input, got shape {x.shape}")
    if not (len(kernel) == len(stride) == rank and len(padding) == 2 * rank):
        fail(op, f"kernel, stride and padding do not fit input shape {x.shape}")
    if min(*kernel, *stride) < 1 or min(padding) < 0:
        fail(op, "kernel and stride must be positive, padding not negative")
    cut = [padding[axis] + padding[axis + rank] for axis in range(rank)]
    rows = zip(x.shape[2:], kernel, stride, cut, strict=True)
    spatial = [(n - 1) * s + k - c for n, k, s, c in rows]
    if min(spatial) < 1:
        fail(op, f"padding {padding} leaves nothing of input shape {x.shape}")
    return TensorSpec((x.shape[0], op["out_channels"], *spatial), x.dtype)


def conv_transpose_params(op: Op, specs: Specs) -> Mapping[str, TensorSpec]:
    """A weight of (in, out, *kernel), as ONNX and torch hold it."""
    (x,) = specs
    out = op["out_channels"]
    weight = {"weight": TensorSpec((x.shape[1], out, *op["kernel"]), x.dtype)}
    return weight | {"bias": TensorSpec((out,), x.dtype)} if op["bias"] else weight


def conv_transpose_macs(op: Op, specs: Specs, out: TensorSpec) -> int:
    per_input: int = op["out_channels"] * math.prod(op["kernel"])
    return specs[0].elements * per_input


def upsample_infer(op: Op, specs: Specs) -> TensorSpec:
    """Every element is repeated ``factors`` times along each spatial axis."""
    (x,), factors = specs, op["factors"]
    if len(x.shape) not in (3, 4) or len(factors) != len(x.shape) - 2:
        fail(op, f"factors {factors} are not one for each spatial axis of shape {x.shape}")
    if min(factors) < 1:
        fail(op, f"factors must be positive, got {factors}")
    spatial = (n * f for n, f in zip(x.shape[2:], factors, strict=True))
    return TensorSpec((*x.shape[:2], *spatial), x.dtype)
