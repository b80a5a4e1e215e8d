"""From a runner's arguments to a network on a device, with inputs of its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from hwbench.devices.cuda.batch import rebatch
from hwbench.devices.cuda.models import findable
from hwbench.devices.cuda.options import CudaOptions
from hwbench.errors import ModelError
from hwbench.lower import from_onnx, to_torch
from hwbench.records import InputSpec

if TYPE_CHECKING:
    Specs = Sequence[InputSpec]

DTYPES: Mapping[str, torch.dtype] = {
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
}


class Network:
    """A module on a device, converted as the options say; calling it queues one run.

    ``inputs`` are random, and made where they are needed: a batch that does not fit the device
    must not first fill the host.
    """

    def __init__(
        self, module: nn.Module, specs: Specs, options: CudaOptions, device: torch.device
    ) -> None:
        dtype = DTYPES[options.dtype]
        self.module = module.eval().to(device=device, dtype=dtype)
        self.inputs = [_random(spec, dtype, device) for spec in specs]
        if options.channels_last:  # of 4 dimensions: what has another rank is left as it is
            nhwc = torch.channels_last
            convert: Any = self.module.to
            convert(memory_format=nhwc)
            self.inputs = [x.to(memory_format=nhwc) if x.dim() == 4 else x for x in self.inputs]

    def __call__(self) -> Any:
        return self.module(*self.inputs)


def build_network(args: Mapping[str, Any], options: CudaOptions, device: torch.device) -> Network:
    """A network from ``{"onnx": path, "shapes": …}`` or ``{"factory": …, "folder", "inputs"}``.

    Raises ModelError or GraphError where there is none.
    """
    if "onnx" in args:
        shapes = {name: tuple(shape) for name, shape in args["shapes"].items()}
        graph, weights = from_onnx(Path(args["onnx"]), shapes)
        if options.batch and options.batch != graph.inputs[0][1].shape[0]:
            graph = rebatch(graph, options.batch)
        specs = [InputSpec(name, spec.dtype, spec.shape) for name, spec in graph.inputs]
        return Network(to_torch(graph, weights), specs, options, device)
    specs = [InputSpec(i["name"], i["dtype"], tuple(i["shape"])) for i in args["inputs"]]
    return Network(_made_by(args["factory"], Path(args["folder"])), specs, options, device)


def _made_by(factory: str, folder: Path) -> nn.Module:
    name, _, function = factory.partition(":")
    torch.manual_seed(0)
    with findable(folder):
        make = getattr(import_module(name), function, None)
        if make is None:
            raise ModelError(f"torch module {name!r} has no function {function!r}")
        module = make()
    if not isinstance(module, nn.Module):
        raise ModelError(f"{factory} made a {type(module).__name__}, not a torch.nn.Module")
    return module


def _random(spec: InputSpec, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Standard normal floats in the network's precision; 0 or 1 for integers."""
    own: torch.dtype = getattr(torch, spec.dtype)
    random = torch.Generator(device).manual_seed(0)
    if own.is_floating_point:
        return torch.randn(spec.shape, generator=random, device=device, dtype=dtype)
    return torch.randint(0, 2, spec.shape, generator=random, device=device, dtype=own)


@contextmanager
def backends(tf32: bool, autotune: bool) -> Iterator[None]:
    """Within it, how fp32 products are rounded, and whether cuDNN tries its algorithms.

    All of it is the process's own again afterwards: other work sets its own, and torch refuses to
    trace a network where it was left changed. The trials are made in the first, unmeasured run.
    """
    torch_backends: Any = torch.backends
    cudnn = torch_backends.cudnn
    kinds = (torch_backends.cuda.matmul, cudnn.conv, cudnn.rnn)
    before, tried = [kind.fp32_precision for kind in kinds], cudnn.benchmark
    try:
        for kind in kinds:
            kind.fp32_precision = "tf32" if tf32 else "ieee"
        cudnn.benchmark = autotune
        yield
    finally:
        for kind, precision in zip(kinds, before, strict=True):
            kind.fp32_precision = precision
        cudnn.benchmark = tried


def tensors(output: Any) -> Iterable[Tensor]:
    """The tensors in an output: one, or a collection of such."""
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, Mapping):
        for item in output.values():
            yield from tensors(item)
    elif isinstance(output, list | tuple):
        for item in output:
            yield from tensors(item)


def check_finite(output: Any) -> None:
    """Raise ValueError unless an output holds tensors, and no NaN or infinity."""
    found = list(tensors(output))
    if not found:
        raise ValueError(f"the module answers a {type(output).__name__} without tensors")
    if not all(bool(torch.isfinite(tensor).all()) for tensor in found):
        raise ValueError(
            f"an output in {found[0].dtype} holds NaN or infinity on random input: "
            "its timing would not be that of real work"
        )
