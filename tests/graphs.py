"""Random graphs for tests: one op of every kind, and whole nets of many."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from hypothesis import strategies as st

from hwbench.graph import Graph, GraphBuilder
from hwbench.ops import UNARY

Draw = st.DrawFn
Case = Callable[[Draw, GraphBuilder], str]


def input_values(graph: Graph, seed: int = 0) -> dict[str, np.ndarray]:
    """Positive inputs of order 1 for a graph (so that square roots and quotients are tame).

    Integers are 0 or 1, which are indices almost anywhere.
    """
    rng = np.random.default_rng(seed)
    return {
        name: rng.uniform(0.1, 2.0, spec.shape).astype(np.float32)
        if spec.dtype == "float32"
        else rng.integers(0, 2, spec.shape).astype(spec.dtype)
        for name, spec in graph.inputs
    }


def relative_error(got: np.ndarray, wanted: np.ndarray) -> float:
    """Largest difference, as a share of the largest value."""
    assert got.shape == wanted.shape
    assert np.isfinite(wanted).all()
    got, wanted = got.astype(np.float64), wanted.astype(np.float64)
    return float(np.abs(got - wanted).max() / max(float(np.abs(wanted).max()), 1e-6))


def _image(draw: Draw, b: GraphBuilder, channels: int | None = None) -> str:
    rank = draw(st.integers(1, 2))
    spatial = draw(st.lists(st.integers(5, 9), min_size=rank, max_size=rank))
    channels = channels or draw(st.integers(1, 6))
    return b.input("x", (draw(st.integers(1, 2)), channels, *spatial))


def _any(draw: Draw, b: GraphBuilder, name: str = "x", least: int = 2) -> str:
    return b.input(name, tuple(draw(st.lists(st.integers(1, 5), min_size=least, max_size=4))))


def _conv(draw: Draw, b: GraphBuilder) -> str:
    groups = draw(st.integers(1, 3))
    x = _image(draw, b, channels=groups * draw(st.integers(1, 3)))
    rank = len(b.shape(x)) - 2

    def per_axis(low: int, high: int, count: int = rank) -> tuple[int, ...]:
        return tuple(draw(st.lists(st.integers(low, high), min_size=count, max_size=count)))

    return b.conv(
        x,
        groups * draw(st.integers(1, 3)),
        kernel=per_axis(1, 3),
        stride=per_axis(1, 3),
        padding=draw(st.sampled_from(["same", per_axis(0, 2), per_axis(0, 3, 2 * rank)])),
        dilation=per_axis(1, 2),
        groups=groups,
        bias=draw(st.booleans()),
    )


def _pool(draw: Draw, b: GraphBuilder, average: bool) -> str:
    x = _image(draw, b)
    rank = len(b.shape(x)) - 2
    kernel = tuple(draw(st.lists(st.integers(1, 4), min_size=rank, max_size=rank)))
    padding = [draw(st.integers(0, k - 1)) for k in kernel * 2]
    # A window that lies in the padding alone has no maximum and no mean.
    padding = [min(p, n - 1) for p, n in zip(padding, b.shape(x)[2:] * 2, strict=True)]
    stride = draw(st.integers(1, 3)) if draw(st.booleans()) else None
    if not average:
        return b.max_pool(x, kernel, stride, padding)
    return b.avg_pool(x, kernel, stride, padding, count_include_pad=draw(st.booleans()))


def _linear(draw: Draw, b: GraphBuilder) -> str:
    return b.linear(_any(draw, b), draw(st.integers(1, 5)), bias=draw(st.booleans()))


def _conv_transpose(draw: Draw, b: GraphBuilder) -> str:
    x = _image(draw, b)
    rank = len(b.shape(x)) - 2
    kernel, stride = (
        tuple(draw(st.lists(st.integers(1, 3), min_size=rank, max_size=rank))) for _ in range(2)
    )
    padding = tuple(draw(st.lists(st.integers(0, 1), min_size=2 * rank, max_size=2 * rank)))
    out, bias = draw(st.integers(1, 4)), draw(st.booleans())
    return b.conv_transpose(x, out, kernel=kernel, stride=stride, padding=padding, bias=bias)


def _matmul(draw: Draw, b: GraphBuilder) -> str:
    """Batched products with broadcast batches, one side perhaps transposed, perhaps constant."""
    m, k, n = (draw(st.integers(1, 5)) for _ in range(3))
    batch = draw(st.lists(st.integers(1, 3), max_size=2))
    other = [size if draw(st.booleans()) else 1 for size in batch][draw(st.integers(0, 2)) :]
    sides = [(*batch, m, k), (*other, k, n)]
    if draw(st.booleans()):
        sides = [(*other, m, k), (*batch, k, n)]
    names = []
    for name, shape in zip("xy", sides, strict=True):
        if draw(st.booleans()):
            rank = len(shape)
            swapped = (*range(rank - 2), rank - 1, rank - 2)
            turned = b.input(name, [shape[axis] for axis in swapped])
            names.append(b.transpose(turned, swapped))
        elif name == "y" and len(shape) > 2 and draw(st.booleans()):
            names.append(b.op("constant", [], {"shape": shape, "dtype": "float32"}))
        else:
            names.append(b.input(name, shape))
    return b.matmul(*names)


def _embedding(draw: Draw, b: GraphBuilder) -> str:
    shape = draw(st.lists(st.integers(1, 5), min_size=1, max_size=3))
    x = b.input("x", shape, draw(st.sampled_from(["int32", "int64"])))
    return b.embedding(x, draw(st.integers(2, 9)), draw(st.integers(1, 5)))


def _upsample(draw: Draw, b: GraphBuilder) -> str:
    x = _image(draw, b)
    rank = len(b.shape(x)) - 2
    factors = [*draw(st.lists(st.integers(1, 3), min_size=rank - 1, max_size=rank - 1))]
    factors.append(draw(st.integers(2, 3)))
    return b.op("upsample", [x], {"factors": tuple(factors)})


def _cast(draw: Draw, b: GraphBuilder) -> str:
    dtypes = draw(st.permutations(["float32", "int32", "int64"]))
    x = b.input("x", draw(st.lists(st.integers(1, 5), min_size=1, max_size=4)), dtypes[0])
    return b.op("cast", [x], {"dtype": dtypes[1]})


def _equal(draw: Draw, b: GraphBuilder) -> str:
    x = b.input("x", draw(st.lists(st.integers(1, 5), min_size=1, max_size=3)), "int32")
    return b.equal(x, b.op("constant", [], {"shape": (3, 1, 1, 1), "dtype": "int32"}))


def _where(draw: Draw, b: GraphBuilder) -> str:
    x = _any(draw, b)
    keep = [[n if draw(st.booleans()) else 1 for n in b.shape(x)] for _ in range(2)]
    condition = b.input("condition", keep[0][draw(st.integers(0, 1)) :], "bool")
    other = b.input("y", keep[1])
    return b.op("where", [condition, x, other] if draw(st.booleans()) else [condition, other, x])


def _global_pool(kind: str) -> Case:
    return lambda draw, b: b.op(kind, [_image(draw, b)])


def _unary(kind: str) -> Case:
    def case(draw: Draw, b: GraphBuilder) -> str:
        x = _any(draw, b)
        if kind not in ("sqrt", "exp", "reciprocal", "pow"):  # both signs, and beyond every kink
            x = b.mul(b.sub(x, b.input("shift", (1,))), b.input("gain", (1,)))
            x = b.mul(x, b.op("constant", [], {"shape": (1,), "dtype": "float32"}))
        if kind == "clip":
            bounds = draw(st.sampled_from([(-1.0, 1.0), (-np.inf, 0.5), (0.2, np.inf)]))
            return b.op("clip", [x], {"min": bounds[0], "max": bounds[1]})
        attrs = {name: draw(st.sampled_from([0.1, 0.2, 0.5, 2.0])) for name in UNARY[kind].attrs}
        return b.op(kind, [x], attrs)

    return case


def _binary(kind: str) -> Case:
    def case(draw: Draw, b: GraphBuilder) -> str:
        x = _any(draw, b)
        # Broadcast: some axes of the second operand have size 1, leading ones are left out.
        keep = [n if draw(st.booleans()) else 1 for n in b.shape(x)]
        y = b.input("y", tuple(keep[draw(st.integers(0, len(keep) - 1)) :]))
        return b.op(kind, [x, y] if draw(st.booleans()) else [y, x])

    return case


def _axis(draw: Draw, b: GraphBuilder, x: str) -> int:
    return draw(st.integers(-len(b.shape(x)), len(b.shape(x)) - 1))


def _softmax(draw: Draw, b: GraphBuilder) -> str:
    x = _any(draw, b)
    return b.softmax(x, _axis(draw, b, x))


def _reduction(kind: str) -> Case:
    def case(draw: Draw, b: GraphBuilder) -> str:
        x = _any(draw, b)
        axes = draw(st.sets(st.integers(0, len(b.shape(x)) - 1), min_size=1))
        attrs = {"axes": tuple(sorted(axes)), "keepdims": draw(st.booleans())}
        return b.op(kind, [x], attrs)

    return case


def _layer_norm(draw: Draw, b: GraphBuilder) -> str:
    x = b.input("x", (*draw(st.lists(st.integers(1, 4), min_size=1, max_size=3)), 6))
    if draw(st.booleans()):  # an order of axes of which the last is not the innermost
        x = b.transpose(b.conv(b.input("image", (1, 2, 5, 4)), 6), (0, 2, 3, 1))
    return b.layer_norm(x, draw(st.sampled_from([1e-5, 1e-3])))


def _slice(draw: Draw, b: GraphBuilder) -> str:
    """Parts of some axes, never all of one: that would be no slice in a file."""
    x = b.input("x", draw(st.lists(st.integers(2, 5), min_size=2, max_size=4)))
    axes = sorted(draw(st.sets(st.integers(0, len(b.shape(x)) - 1), min_size=1)))
    starts = [draw(st.integers(0, b.shape(x)[axis] - 1)) for axis in axes]
    rows = zip(axes, starts, strict=True)
    stops = [draw(st.integers(start + 1, b.shape(x)[a] - (not start))) for a, start in rows]
    steps = [draw(st.integers(1, 3)) for _ in axes]
    cut = {"axes": axes, "starts": starts, "stops": stops, "steps": steps}
    return b.op("slice", [x], {name: tuple(values) for name, values in cut.items()})


def _batch_norm(draw: Draw, b: GraphBuilder) -> str:
    return b.op("batch_norm", [_image(draw, b)], {"epsilon": draw(st.sampled_from([1e-5, 1e-3]))})


def _lrn(draw: Draw, b: GraphBuilder) -> str:
    attrs = {"size": draw(st.sampled_from([1, 3, 5])), "alpha": 0.5, "beta": 0.75, "bias": 2.0}
    return b.op("lrn", [_any(draw, b, least=4)], attrs)


def _concat(draw: Draw, b: GraphBuilder) -> str:
    x = _any(draw, b)
    axis = _axis(draw, b, x)
    shape = list(b.shape(x))
    shape[axis] = draw(st.integers(1, 4))
    return b.concat([x, b.input("y", shape), x], axis)


def _pad(draw: Draw, b: GraphBuilder) -> str:
    x = _any(draw, b)
    count = 2 * len(b.shape(x))
    pads = draw(st.lists(st.integers(0, 2), min_size=count, max_size=count))
    return b.pad(x, pads, draw(st.sampled_from([0.0, -1.5])))


def _expand(draw: Draw, b: GraphBuilder) -> str:
    """At least one axis repeats: else a file would say nothing of it."""
    shape = draw(st.lists(st.integers(2, 4), min_size=2, max_size=4))
    keep = [n if draw(st.booleans()) else 1 for n in shape]
    keep[draw(st.integers(0, len(shape) - 1))] = 1
    x = b.input("x", keep[draw(st.integers(0, 1)) :])
    return b.op("expand", [x], {"shape": tuple(shape)})


def _transpose(draw: Draw, b: GraphBuilder) -> str:
    x = _any(draw, b)
    return b.transpose(x, draw(st.permutations(range(len(b.shape(x))))))


def _flatten(draw: Draw, b: GraphBuilder) -> str:
    x = _any(draw, b)
    return b.flatten(x, draw(st.integers(0, len(b.shape(x)))))


def _reshape(draw: Draw, b: GraphBuilder) -> str:
    x = _any(draw, b)
    return b.reshape(x, draw(st.permutations((*b.shape(x), 1))))


def _constant(draw: Draw, b: GraphBuilder) -> str:
    x = _any(draw, b)
    constant = b.op("constant", [], {"shape": b.shape(x)[-1:], "dtype": "float32"})
    return b.add(x, constant) if draw(st.booleans()) else constant


#: For every kind of op, a way to draw a small graph that ends in it.
CASES: Mapping[str, Case] = {
    "conv": _conv,
    "conv_transpose": _conv_transpose,
    "linear": _linear,
    "matmul": _matmul,
    "embedding": _embedding,
    "max_pool": lambda draw, b: _pool(draw, b, average=False),
    "avg_pool": lambda draw, b: _pool(draw, b, average=True),
    "global_avg_pool": _global_pool("global_avg_pool"),
    "global_max_pool": _global_pool("global_max_pool"),
    "upsample": _upsample,
    **{kind: _unary(kind) for kind in UNARY},
    "cast": _cast,
    **{kind: _binary(kind) for kind in ("add", "sub", "mul", "div", "maximum", "minimum")},
    "equal": _equal,
    "where": _where,
    "softmax": _softmax,
    **{kind: _reduction(kind) for kind in ("mean", "sum", "max")},
    "batch_norm": _batch_norm,
    "layer_norm": _layer_norm,
    "lrn": _lrn,
    "concat": _concat,
    "slice": _slice,
    "pad": _pad,
    "expand": _expand,
    "transpose": _transpose,
    "flatten": _flatten,
    "reshape": _reshape,
    "constant": _constant,
}


@st.composite
def op_graphs(draw: Draw, kind: str) -> Graph:
    """Small graphs that end in an op of that kind."""
    b = GraphBuilder(kind)
    return b.build(CASES[kind](draw, b))


@st.composite
def nets(draw: Draw) -> Graph:
    """Small classifiers: conv stages with residual, gated and parallel branches."""
    b = GraphBuilder("net")
    x = _image(draw, b)
    activations = st.sampled_from(["relu", "relu6", "hswish", "hsigmoid", "silu", "gelu", "tanh"])
    for _ in range(draw(st.integers(1, 4))):
        width = draw(st.integers(2, 6))
        x = b.activation(b.conv(x, width, kernel=draw(st.integers(1, 3))), draw(activations))
        branch = b.conv(x, width, kernel=3, groups=draw(st.sampled_from([1, width])))
        block = draw(st.sampled_from(["residual", "gate", "concat", "pool"]))
        if block == "residual":
            x = b.activation(b.add(x, branch), draw(activations))
        elif block == "gate":
            squeezed = b.conv(b.global_avg_pool(branch), width, kernel=1)
            x = b.mul(x, b.activation(squeezed, "hsigmoid"))
        elif block == "concat":
            x = b.concat([x, branch, b.avg_pool(x, 3, 1, 1)])
        else:
            x = b.max_pool(branch, 3, 1, 1)
    return b.build(
        [b.linear(b.flatten(b.global_avg_pool(x)), 4), b.mean(x, range(2, len(b.shape(x))))]
    )


@st.composite
def encoders(draw: Draw) -> Graph:
    """Small transformer encoders of images or tokens, norms before or after."""
    b = GraphBuilder("encoder")
    heads = draw(st.integers(1, 3))
    width = heads * draw(st.integers(2, 4))
    if draw(st.booleans()):
        x = b.conv(b.input("image", (1, 3, 6, 4)), width, kernel=2, stride=2, padding=0)
        x = b.transpose(b.reshape(x, (1, width, 6)), (0, 2, 1))
        x = b.concat([b.op("constant", [], {"shape": (1, 1, width), "dtype": "float32"}), x])
    else:
        shape = (draw(st.integers(1, 2)), draw(st.integers(2, 7)))
        x = b.embedding(b.input("tokens", shape, "int32"), 5, width)
    places = b.op("constant", [], {"shape": b.shape(x)[1:], "dtype": "float32"})
    x = b.add(x, places)
    before = draw(st.booleans())
    for _ in range(draw(st.integers(1, 2))):
        y = b.attention(b.layer_norm(x) if before else x, heads)
        x = b.add(x, y) if before else b.layer_norm(b.add(x, y))
        y = b.linear(b.layer_norm(x) if before else x, 2 * width)
        y = b.linear(b.activation(y, draw(st.sampled_from(["gelu", "relu"]))), width)
        x = b.add(x, y) if before else b.layer_norm(b.add(x, y))
    first = b.reshape(b.slice(b.layer_norm(x), 1, 0, 1), (b.shape(x)[0], width))
    return b.build([b.linear(first, 3), b.mean(x, [1])])


def mobile_net(resolution: int = 224) -> Graph:
    """A large MobileNetV3: five stages of four inverted residuals with kernel 7, expansion 6."""
    b = GraphBuilder("mobile_net")
    x = b.activation(b.conv(b.input("x", (1, 3, resolution, resolution)), 16, stride=2), "hswish")
    for width, stride, gated in ((32, 2, 0), (48, 2, 1), (96, 2, 0), (136, 1, 1), (192, 2, 1)):
        for i in range(4):
            expanded = 6 * b.shape(x)[1]
            y = b.activation(b.conv(x, expanded, kernel=1), "hswish")
            y = b.conv(y, expanded, kernel=7, stride=1 if i else stride, groups=expanded)
            y = b.activation(y, "hswish")
            if gated:
                squeezed = b.conv(b.global_avg_pool(y), expanded // 4, kernel=1)
                gate = b.conv(b.activation(squeezed, "relu"), expanded, kernel=1)
                y = b.mul(y, b.activation(gate, "hsigmoid"))
            y = b.conv(y, width, kernel=1)
            x = b.add(x, y) if i else y
    x = b.global_avg_pool(b.activation(b.conv(x, 960, kernel=1), "hswish"))
    x = b.activation(b.conv(x, 1280, kernel=1), "hswish")
    return b.build(b.linear(b.flatten(x), 1000))


def residual_net(resolution: int = 64) -> Graph:
    """A ResNet-18 of half the width, its batch norms not yet folded."""
    b = GraphBuilder("residual_net")

    def conv(x: str, channels: int, kernel: int, stride: int = 1) -> str:
        y = b.conv(x, channels, kernel=kernel, stride=stride, padding=kernel // 2, bias=False)
        return b.op("batch_norm", [y], {"epsilon": 1e-5})

    x = b.activation(conv(b.input("x", (1, 3, resolution, resolution)), 32, 7, 2), "relu")
    x = b.max_pool(x, 3, 2, 1)
    for channels, stride in ((32, 1), (32, 1), (64, 2), (64, 1), (128, 2), (128, 1)):
        y = b.activation(conv(x, channels, 3, stride), "relu")
        x = conv(x, channels, 1, stride) if stride == 2 else x
        x = b.activation(b.add(conv(y, channels, 3), x), "relu")
    return b.build(b.linear(b.flatten(b.global_avg_pool(x)), 100))
