"""How a GPU runs a model: precision, layout, launches, caches. Part of what a latency is of."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from hwbench.errors import UsageError


@dataclass(frozen=True, slots=True)
class CudaOptions:
    """What ``--option NAME=VALUE`` may say to a CUDA device.

    ``dtype`` is that of weights and of inputs that hold floats (the whole network is converted;
    this is no autocast). ``tf32`` lets fp32 convolutions and matrix products round their inputs
    to 10 bits; off unless asked for, whatever torch's default is. ``channels_last`` lays out
    images as NHWC. ``autotune`` lets cuDNN time its algorithms for each convolution when a process
    first runs it (``torch.backends.cudnn.benchmark``; off, as in torch): processes may then choose
    differently. ``cuda_graph`` replays captured launches, which takes the host out of the time.
    ``cache`` says whether the L2 cache is flushed before each run (``cold``) or holds what the run
    before left in it (``hot``). ``batch`` replaces dimension 0 of every input; 0 leaves the model
    as it is.

    Raises UsageError for values that contradict each other.
    """

    dtype: Literal["fp32", "fp16", "bf16"] = "fp32"
    tf32: bool = False
    channels_last: bool = False
    autotune: bool = False
    cuda_graph: bool = False
    cache: Literal["hot", "cold"] = "hot"
    batch: int = 0

    def __post_init__(self) -> None:
        if self.batch < 0:
            raise UsageError(f"option batch is a number of inputs (0: unchanged), not {self.batch}")
        if self.tf32 and self.dtype != "fp32":
            raise UsageError(f"option tf32 rounds fp32; with dtype={self.dtype} leave it out")

    @property
    def labels(self) -> tuple[tuple[str, str], ...]:
        """What tells two workloads of one model apart. The batch stands in the inputs' shapes."""
        values = ((field.name, getattr(self, field.name)) for field in fields(self))
        return tuple((name, str(value).lower()) for name, value in values if name != "batch")
