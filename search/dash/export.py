"""A trained network as an ONNX file: inputs and answers in the user's own units."""

from __future__ import annotations

import io
import warnings

import torch
from torch import Tensor, nn
from torch.nn import functional

from hwbench.errors import ModelError
from hwbench.graph import Graph
from hwbench.lower import from_onnx
from hwbench.search.dash.tasks import Task

_OPSET = 17
INPUT, OUTPUT = "x", "y"


class Deployed(nn.Module):
    """A network with what its task normalises by in it: (b, c, m, …) as in the user's file."""

    def __init__(self, net: nn.Module, task: Task) -> None:
        super().__init__()
        self.net = net
        self._is_scaled = task.dense
        mean, sd = task.inputs
        self.register_buffer("mean", mean)
        self.register_buffer("variance", sd**2)
        shift, scale = task.targets
        self.register_buffer("shift", torch.full((task.outputs,), shift))
        self.register_buffer("scale", torch.full((task.outputs,), scale))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (b, classes), or a map in its own unit."""
        y: Tensor = self.net(functional.batch_norm(x, self.mean, self.variance, eps=0.0))  # type: ignore[arg-type]
        if not self._is_scaled:
            return y
        none, one = torch.zeros_like(self.shift), torch.ones_like(self.shift)  # type: ignore[arg-type]
        return functional.batch_norm(y, none, one, self.scale, self.shift, eps=0.0)  # type: ignore[arg-type]


def exported(net: nn.Module, task: Task) -> bytes:
    """ONNX for any number of samples, by torch's exporter that needs no other package.

    ModelError where it knows no way to write some operation.
    """
    buffer, sample = io.BytesIO(), torch.zeros(2, *task.shape)
    axes = {INPUT: {0: "batch"}, OUTPUT: {0: "batch"}}
    try:
        with warnings.catch_warnings():  # it is the old one
            warnings.simplefilter("ignore")
            torch.onnx.export(
                Deployed(net, task).eval(),
                (sample,),
                buffer,  # type: ignore[arg-type]
                dynamo=False,
                opset_version=_OPSET,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_axes=axes,
            )
    except Exception as error:
        said = str(error).partition("\n")[0]
        raise ModelError(f"{type(net).__name__} cannot be written as ONNX: {said}") from error
    return buffer.getvalue()


def graph_of(net: nn.Module, task: Task) -> Graph:
    """The network for one sample, as a device runs it. ModelError for what no graph can hold."""
    graph, _ = from_onnx(exported(net, task), {INPUT: (1, *task.shape)})
    return graph
