"""Training in bfloat16 where the CPU gains by it, and in float32 where it loses.

A depthwise convolution has few products for what it reads, so half the bits save little, and its
backward pass in bfloat16 takes several times that in float32: of a MobileNetV2's step two thirds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_CONVOLUTIONS = (torch.conv1d, torch.conv2d)


@contextmanager
def mixed_precision(enabled: bool = True) -> Iterator[None]:
    """Compute in bfloat16, as ``torch.autocast`` does, but grouped convolutions in float32.

    These give the type that they were given. Nothing changes where it is not ``enabled``.
    """
    if not enabled:
        yield
        return
    with torch.autocast("cpu", torch.bfloat16), _GroupedInFloat32():
        yield


class _GroupedInFloat32(TorchFunctionMode):
    def __torch_function__(
        self,
        func: Callable[..., Tensor],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = dict(kwargs or {})
        if func not in _CONVOLUTIONS or _groups(args, given) == 1:
            return func(*args, **given)
        images, *others = args
        with torch.autocast("cpu", enabled=False):
            return func(images.float(), *others, **given).to(images.dtype)


def _groups(args: Sequence[Any], given: Mapping[str, Any]) -> int:
    """Of a call ``conv(input, weight, bias, stride, padding, dilation, groups)``."""
    groups: int = args[6] if len(args) > 6 else given.get("groups", 1)
    return groups
