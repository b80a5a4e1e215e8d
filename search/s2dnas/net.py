"""The multi-stage network in torch, for training: all stages in one pass, by masks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.nn import functional

from hwbench.graph import Graph
from hwbench.lower.torch_module import TORCH_OPS
from hwbench.ops import Op
from hwbench.search.s2dnas.space import SplitSpace
from hwbench.search.s2dnas.split import Split, widened
from hwbench.search.s2dnas.stages import Stage, stage_graphs
from hwbench.search.s2dnas.static import StaticNet

_STATISTICS = ("mean", "var")
_MOMENTUM = 0.1


class MultiStageNet(nn.Module):
    """A static network under a split: images (n, c, h, w) -> logits (stages, n, classes).

    It holds the wide network's weights, which begin as the static network's, and computes all
    stages at once: what a stage must not read is masked out. A layer that mixes channels costs what
    it costs in the static network. Since each channel belongs to one stage, so do the batch norms.
    The weights are shared by all splits: :meth:`use` changes the split and nothing else.
    """

    def __init__(self, space: SplitSpace, code: ArrayLike) -> None:
        super().__init__()
        self.space = space
        wide = widened(space.net, space.ties, space.stages)
        self.graph: Graph = wide.graph
        self.layers = [_Layer(wide, op) for op in wide.graph.ops]
        self.wide = nn.ModuleList(self.layers)  # makes their weights the net's
        self.use(code)

    def use(self, code: ArrayLike) -> None:
        """Run under the split of another code (L,) from now on."""
        self.split: Split = self.space.split(code)
        for op, layer in zip(self.space.net.graph.ops, self.layers, strict=True):
            mask = self.split.mask(op)
            if mask is not None:
                layer.mask = torch.from_numpy(mask).to(layer.value("weight"))

    def forward(self, images: Tensor) -> Tensor:
        (image, _), *_ = self.graph.inputs
        live = {image: images}
        for op, layer in zip(self.graph.ops, self.layers, strict=True):
            live[op.output] = layer(*(live[name] for name in op.inputs))
        every = live[self.graph.outputs[0]]
        return every.view(len(images), self.space.stages, -1).transpose(0, 1)

    @contextmanager
    def momentum(self, share: float) -> Iterator[None]:
        """Let each batch in training move the batch norms' statistics by so much (usually .1)."""
        before = self.layers[0].momentum
        for layer in self.layers:
            layer.momentum = share
        try:
            yield
        finally:
            for layer in self.layers:
                layer.momentum = before

    def weights(self) -> Mapping[str, NDArray[np.float32]]:
        """A copy of the wide network's weights, by ``"<layer>.<param>"``."""
        return {
            f"{op.name}.{param}": layer.value(param).numpy(force=True).copy()
            for op, layer in zip(self.graph.ops, self.layers, strict=True)
            for param in self.graph.params(op)
        }

    def stages(self) -> tuple[Stage, ...]:
        """The stages as networks of their own, batch norms folded: what is deployed."""
        return stage_graphs(self.split, self.weights())


class _Layer(nn.Module):
    """One layer of the wide network: its weights, statistics and mask."""

    mask: Tensor | None

    def __init__(self, wide: StaticNet, op: Op) -> None:
        super().__init__()
        self.op, self.momentum = op, _MOMENTUM
        self.register_buffer("mask", None, persistent=False)
        self._params = tuple(wide.graph.params(op))
        for param in self._params:
            value = torch.from_numpy(np.array(wide.weights[f"{op.name}.{param}"]))
            if param in _STATISTICS:
                self.register_buffer(param, value)
            else:
                self.register_parameter(param, nn.Parameter(value))

    def value(self, param: str) -> Tensor:
        """A weight, or a statistic."""
        value: Tensor = getattr(self, param)
        return value

    def forward(self, *inputs: Tensor) -> Tensor:
        if self.op.kind == "batch_norm":
            mean, var, scale, bias = (self.value(p) for p in ("mean", "var", "scale", "bias"))
            return functional.batch_norm(
                inputs[0], mean, var, scale, bias, self.training, self.momentum, self.op["epsilon"]
            )
        params = {param: self.value(param) for param in self._params}
        if self.mask is not None:
            mask = self.mask.view(*self.mask.shape, *(1,) * (params["weight"].dim() - 2))
            params["weight"] = params["weight"] * mask
        return TORCH_OPS[self.op.kind](self.op, inputs, params)

    def extra_repr(self) -> str:
        return f"{self.op.name}: {self.op.kind}"
