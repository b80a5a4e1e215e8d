"""A user's torch module -> :class:`StaticNet`.

By ``torch.export`` rather than ``torch.fx``: it runs the module once and records what was computed,
in one set of operators whichever way the user wrote them (module, function or method), with every
shape known. So ``avg_pool2d(x, x.size(3))``, ``x.view(x.size(0), -1)`` and loops over blocks need
no rules of their own, which symbolic tracing cannot say. It follows one way through the code: what
depends on values in the image is refused; in the end both nets answer the same image.
"""

from __future__ import annotations

import copy
import io
import logging
import re
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn
from torch.export import ExportedProgram

from hwbench.errors import GraphError, UsageError
from hwbench.graph import Graph, GraphBuilder
from hwbench.lower import to_torch
from hwbench.search.s2dnas.aten import ATEN, Call, Cuts, RefusalError
from hwbench.search.s2dnas.static import StaticNet

#: Two, so that what mixes images of a batch shows, and no size 1 is taken for the batch's.
_BATCH = 2
_TOLERANCE = 1e-4
_HERE = (str(Path(torch.__file__).parent), __file__)


def trace(module: nn.Module, image_shape: Sequence[int]) -> StaticNet:
    """What ``module`` computes at inference of one image of ``image_shape`` (c, h, w).

    It takes images (n, c, h, w) and gives logits (n, classes). Weights are copied; the module stays
    as it is. Understood are convolutions (dense and depthwise), batch norms, element-wise
    activations, additions, max, average and global pools, linear layers, flattening, shortcuts
    that skip pixels and pad channels; dropout vanishes. GraphError names the layer that is
    something else, that is used twice, or where the module's own code follows the values.
    """
    shape = tuple(image_shape)
    if len(shape) != 3 or not all(isinstance(n, int) and n > 0 for n in shape):
        raise UsageError(f"an image's shape is (channels, height, width), not {shape}")
    name = type(module).__name__
    module = copy.deepcopy(module).eval().cpu()
    images = torch.randn(_BATCH, *shape, generator=torch.Generator().manual_seed(0))
    answer = _answer(name, module, images)
    tracer = _Tracer(name, _exported(name, module, images), shape)
    net = tracer.net()
    _check(net, answer, images)
    return net


def _answer(name: str, module: nn.Module, images: Tensor) -> Tensor:
    try:
        with torch.no_grad():
            answer = module(images)
    except Exception as error:
        raise GraphError(
            f"{name} does not run on images of shape {tuple(images.shape[1:])}: "
            f"{_reason(error)}: give the shape that it takes"
        ) from error
    if not isinstance(answer, Tensor) or answer.dim() != 2 or len(answer) != len(images):
        got = tuple(answer.shape) if isinstance(answer, Tensor) else type(answer).__name__
        raise GraphError(
            f"{name} gives {got} for {len(images)} images: let it return logits "
            f"({len(images)}, classes)"
        )
    return answer


def _exported(name: str, module: nn.Module, images: Tensor) -> ExportedProgram:
    try:
        with torch.no_grad(), _quiet():
            return torch.export.export(module, (images,), strict=False)
    except Exception as error:
        raise GraphError(
            f"{name} cannot be traced: {_reason(error)}: its layers must be the same for every "
            "image; take control flow that depends on values out of it"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """What torch logs and prints of a module that it cannot export is in the error, in short."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _reason(error: Exception) -> str:
    """The first line of an error, and the user's own line of code where it came up."""
    text = str(error).strip() or type(error).__name__
    first = " ".join(text.partition("\n")[0].split()).rstrip(".:")
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not _ours(f.filename)]
    return f"{first} (in {frames[-1].name}, line {frames[-1].lineno})" if frames else first


def _ours(filename: str) -> bool:
    return filename.startswith(_HERE)


def _check(net: StaticNet, answer: Tensor, images: Tensor) -> None:
    """What was written into an input in place, and read again elsewhere, would show here."""
    with torch.no_grad():
        ours = to_torch(net.graph, net.weights)(images)
    scale = max(1.0, float(answer.abs().max()))
    if not torch.isfinite(answer).all():
        raise GraphError(f"{net.graph.name} gives values that are no numbers: train it again")
    if float((ours - answer).abs().max()) > _TOLERANCE * scale:
        raise GraphError(
            f"{net.graph.name}: its layers, one after the other, give other answers than the "
            "module does: an operation that changes its input in place may be the reason"
        )


class _Tracer:
    """Walks over an exported program, and builds the graph."""

    def __init__(self, name: str, program: ExportedProgram, shape: tuple[int, ...]) -> None:
        signature = program.graph_signature
        self._program, self.builder = program, GraphBuilder(name)
        names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
        self._stored = dict(names)  # placeholder -> name in the state dict
        self._owners: dict[int, str] = {}  # of each storage, the layer that took its weights
        self._names = {"image"}
        self.cuts: dict[str, tuple[str, Cuts]] = {}
        self._env: dict[fx.Node, str] = {}
        self.weights: dict[str, NDArray[np.float32]] = {}
        for node in program.graph.nodes:
            if node.op == "placeholder" and node.name in signature.user_inputs:
                self._env[node] = self.builder.input("image", (1, *shape))
            elif node.op == "call_function":
                self._node(node)
            elif node.op == "output":
                (self._result,) = node.args[0]
            elif node.op != "placeholder":
                self.refuse(node, "is nothing that a graph can hold")

    def net(self) -> StaticNet:
        """What leads to the output; a part that leads nowhere is left out."""
        graph = self.builder.build(self._env[self._result])
        needed, ops = set(graph.outputs), []
        for op in reversed(graph.ops):
            if op.output in needed:
                needed.update(op.inputs)
                ops.append(op)
        graph = Graph(graph.name, graph.inputs, graph.outputs, tuple(reversed(ops)))
        return StaticNet(graph, {name: self.weights[name] for name in graph.weights})

    def _node(self, node: fx.Node) -> None:
        target = str(node.target)
        kind, in_place = _functional(target)
        if not node.users and not in_place:
            return
        if kind not in ATEN:
            self.refuse(node, "is not understood: write it with other layers, or leave it out")
        call = Call(self, node, _arguments(node))
        try:
            result = ATEN[kind](call)
        except RefusalError as error:
            self.refuse(node, str(error))
        if in_place:
            changed = self._env[node.args[0]]  # type: ignore[index]
            self._env = {k: result if v == changed else v for k, v in self._env.items()}
        self._env[node] = result

    # -- what the rules of single operators ask ------------------------------------------------

    def tensor(self, value: Any) -> str:
        """The graph's tensor that an argument is."""
        if not isinstance(value, fx.Node) or value not in self._env:
            raise RefusalError("reads something that is computed from no image: leave it out")
        return self._env[value]

    def take(self, layer: str, param: str, value: fx.Node) -> None:
        """Give a layer its weights; each belongs to one layer alone."""
        tensor = self._value(value)
        if tensor.dtype != torch.float32:
            raise RefusalError(f"has weights of {tensor.dtype}: make the module float32")
        owner = self._owners.setdefault(tensor.data_ptr(), layer)
        if owner != layer:
            raise RefusalError(
                f"shares its weights with {owner!r}: one layer cannot be split in two ways, give "
                "each place a layer of its own"
            )
        self.weights[f"{layer}.{param}"] = tensor.detach().numpy().copy()

    def layer_name(self, value: Any) -> str:
        """A name for the layer that these weights are of: the module's path."""
        path = self._stored.get(value.name) if isinstance(value, fx.Node) else None
        if path is None:
            raise RefusalError("has weights that are computed: make them parameters of a layer")
        module = path.rpartition(".")[0] or path
        if any(name.startswith(f"{module}.") for name in self.weights):
            raise RefusalError(
                f"uses layer {module!r} a second time: one layer cannot be split in two ways, "
                "give each place a layer of its own"
            )
        return self.free_name(module)

    def free_name(self, wanted: str) -> str:
        """The name wanted, or one like it that no tensor has yet."""
        name, count = wanted, 1
        while name in self._names:
            count += 1
            name = f"{wanted}_{count}"
        self._names.add(name)
        return name

    def _value(self, node: fx.Node) -> Tensor:
        name = self._stored[node.name]
        state = self._program.state_dict
        value: Tensor = state[name] if name in state else self._program.constants[name]
        return value

    def refuse(self, node: fx.Node, why: str) -> NoReturn:
        """Refuse a node, by the layer's path, its own name and its operator."""
        stack = list(node.meta.get("nn_module_stack", {}).values())
        path = stack[-1][0] if stack else ""
        where = f"layer {path!r}, " if path else ""
        raise GraphError(f"{self.builder.name}: {where}{node.name} ({node.target}) {why}")


def _functional(target: str) -> tuple[str, bool]:
    """``aten.relu_.default`` -> ``aten.relu``; and whether it writes into its input."""
    match = re.fullmatch(r"(aten\.[a-z0-9_]+?)(_?)\.\w+", target)
    return (match[1], bool(match[2])) if match else (target, False)


def _arguments(node: fx.Node) -> dict[str, Any]:
    """The arguments by the names of the operator's schema, defaults included."""
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return {str(i): value for i, value in enumerate(node.args)}
    found = {a.name: a.default_value for a in schema.arguments if a.has_default_value()}
    found |= {a.name: v for a, v in zip(schema.arguments, node.args, strict=False)}
    return found | dict(node.kwargs)
