"""TFLite's ``benchmark_model``: its command line, and whether the delegate did the work.

The tool has no flag for affinity, so ``taskset`` goes before it; and it allows the GPU to lose
precision unless it is told not to.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from hwbench.devices.phone.output import Launch
from hwbench.devices.phone.script import clean
from hwbench.errors import DelegateError, UsageError

Delegate = Literal["none", "xnnpack", "gpu", "nnapi"]
DELEGATES: tuple[Delegate, ...] = ("none", "xnnpack", "gpu", "nnapi")
_NIGHTLY = (
    "https://storage.googleapis.com/tensorflow-nightly-public/prod/tensorflow/release/lite/tools/"
    "nightly/latest/{}_benchmark_model"
)
#: Where Google publishes the tool for phones; no package carries it.
PUBLISHED = _NIGHTLY.format("android_aarch64")
#: Its builds for Linux, by the machine's name.
_LINUX = {"x86_64": "linux_x86-64", "aarch64": "linux_aarch64", "armv7l": "linux_arm"}
_MASK = re.compile(r"[0-9a-f]{1,16}")
_MOST_THREADS = 64
_MOST_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class ToolOptions:
    """How one launch runs a model. ``runs`` and ``min_secs`` are both minimums.

    ``mask`` is the hexadecimal set of cores to run on, or None for all. ``allow_partial`` accepts
    a delegate that runs a part of the model only. Raises UsageError for what the tool would
    refuse or misread.
    """

    threads: int = 1
    warmup_runs: int = 1
    runs: int = 50
    min_secs: float = 1.0
    max_secs: float = 150.0
    delegate: Delegate = "xnnpack"
    gpu_precision_loss_allowed: bool = False
    allow_partial: bool = False
    mask: str | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.threads <= _MOST_THREADS:
            raise UsageError(f"threads must be 1 to {_MOST_THREADS}, not {self.threads}")
        if self.warmup_runs < 1 or self.runs < 1:
            raise UsageError("a launch needs at least one warm-up run and one run")
        if not 0 <= self.min_secs <= self.max_secs <= _MOST_SECONDS:
            raise UsageError(
                f"a launch's seconds must be 0 <= min_secs <= max_secs <= {_MOST_SECONDS:g}, not"
                f" {self.min_secs:g} and {self.max_secs:g}"
            )
        if self.delegate not in DELEGATES:
            raise UsageError(f"delegate must be one of {', '.join(DELEGATES)}")
        if self.mask is None:
            return
        if not _MASK.fullmatch(self.mask) or int(self.mask, 16) == 0:
            raise UsageError("a core mask is hexadecimal and names a core, like f0")
        cores = int(self.mask, 16).bit_count()
        if self.threads > cores:
            raise UsageError(
                f"{self.threads} threads do not fit on the {cores} cores of mask {self.mask}: take"
                " fewer threads or another mask"
            )


def published_for(machine: str) -> str:
    """Where the tool for Linux on a machine of that name is to be had."""
    if machine in _LINUX:
        return _NIGHTLY.format(_LINUX[machine])
    return (
        "TensorFlow's sources (bazel build -c opt"
        " //tensorflow/lite/tools/benchmark:benchmark_model), nobody publishes one for"
        f" {clean(machine)}"
    )


def launch_command(
    tool: str, model: str, options: ToolOptions, *, profile: bool = False
) -> tuple[str, ...]:
    """The argument list of one launch, of paths on the device.

    ``profile`` asks for the times of the operators, which slows the model: in a pass of its own.
    """
    for path in (tool, model):
        if not PurePosixPath(path).is_absolute():
            raise UsageError(f"the tool and the model must be absolute paths, not {path!r}")
    pinned = ("taskset", options.mask) if options.mask else ()
    asked = ("--enable_op_profiling=true",) if profile else ()
    return (
        *pinned,
        tool,
        f"--graph={model}",
        f"--num_threads={options.threads}",
        f"--warmup_runs={options.warmup_runs}",
        f"--num_runs={options.runs}",
        f"--min_secs={options.min_secs:g}",
        f"--max_secs={options.max_secs:g}",
        *_delegate_flags(options),
        *asked,
    )


def _delegate_flags(options: ToolOptions) -> tuple[str, ...]:
    """Said outright, because builds differ in what they do by themselves."""
    if options.delegate == "none":
        return ("--use_xnnpack=false",)
    if options.delegate == "xnnpack":
        return ("--use_xnnpack=true",)
    if options.delegate == "nnapi":
        return ("--use_nnapi=true",)
    loss = "true" if options.gpu_precision_loss_allowed else "false"
    return ("--use_gpu=true", f"--gpu_precision_loss_allowed={loss}")


def check_delegated(launch: Launch, options: ToolOptions) -> float | None:
    """The share of the model's nodes that the delegate ran; None where an old build hides it.

    Raises DelegateError when it ran none of the model, or left no sign, and when it ran only a
    part unless that is allowed: TFLite falls back to the CPU without a word, and its number must
    not pass under the delegate's name. With the delegate ``none``, raises when one ran anyway.
    """
    name = options.delegate
    if name == "none":
        if launch.delegates:
            raise DelegateError(
                f"{launch.delegates[0].name} ran although no delegate was asked for: take a newer"
                " benchmark_model, or ask for that delegate"
            )
        return 0.0
    mine = [d for d in launch.delegates if name in d.name.lower()]
    if launch.fallback or not (mine or launch.complete is not None):
        raise DelegateError(
            f"the {name} delegate did not run the model, the CPU did: take a model that it"
            " supports, or another delegate"
        )
    nodes = sum(d.nodes for d in mine)
    total = sum(d.total for d in mine if d.total is not None)
    if mine and total and all(d.total is not None for d in mine):
        share: float | None = nodes / total
    else:
        share = 1.0 if launch.complete else None
    if share == 0.0 or (share is not None and share > 1.0):
        raise DelegateError(f"the {name} delegate took {nodes} of {total} nodes: none of the model")
    if share != 1.0 and not options.allow_partial:
        part = "an unknown part" if share is None else f"{nodes} of {total} nodes"
        raise DelegateError(
            f"the {name} delegate ran {part} of the model, the CPU the rest: allow a partial"
            " delegate, or take a model that it supports whole"
        )
    return share
