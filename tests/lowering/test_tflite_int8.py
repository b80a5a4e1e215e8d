"""An int8 model means nearly the same as its float form, in LiteRT with XNNPACK and without."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hwbench.errors import GraphError
from hwbench.graph import Graph, GraphBuilder
from hwbench.lower import Int8, to_tflite
from hwbench.ops import OP_KINDS
from hwbench.spaces import get_space, space_names
from hwbench.verify.int8_operators import operator_steps
from hwbench.verify.litert import interpreter_of, operators, run_tflite
from tests.graphs import encoders, input_values, mobile_net, nets, op_graphs, residual_net

#: Kinds of op that become an operator which TFLite cannot be trusted with in int8.
REFUSED = ("div", "lrn", "reciprocal", "neg", "cast", "equal")
#: Error of one op as a share of its output's range: a few of 255 steps; with a narrow output
#: behind a wide input, such as a relu6's, those of the input count.
ONE_OP = 0.05


def batches(graph: Graph, count: int = 4) -> list[dict[str, np.ndarray]]:
    return [input_values(graph, seed) for seed in range(count)]


def normal_inputs(graph: Graph, count: int) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    return [
        {name: rng.standard_normal(spec.shape, np.float32) for name, spec in graph.inputs}
        for _ in range(count)
    ]


def errors(graph: Graph, *, xnnpack: bool) -> list[float]:
    """Largest error of each output of the int8 model, as a share of the output's range."""
    inputs = batches(graph)
    int8 = to_tflite(graph, int8=Int8(inputs))
    wanted = run_tflite(to_tflite(graph), inputs[0])
    got = run_tflite(int8, inputs[0], xnnpack=xnnpack)
    ranges = [255 * float(port.quant.scale[0]) for port in int8.outputs if port.quant]
    assert len(ranges) == len(graph.outputs)
    return [float(np.abs(g - w).max()) / r for g, w, r in zip(got, wanted, ranges, strict=True)]


def rounding_alone(graph: Graph) -> float:
    """What an exact last op of one input makes of that input's rounding to int8, as a share of

    the output's range: a steep one, as clip(2 x, 0, 1) of x from -9 to 9, has no better answer.
    """
    op = graph.ops[-1]
    if len(op.inputs) != 1 or op.inputs[0] not in {each.output for each in graph.ops}:
        return 0.0
    before = to_tflite(Graph("before", graph.inputs, op.inputs, graph.ops[:-1]))
    spec = graph.tensors[op.inputs[0]]
    alone = to_tflite(Graph("alone", ((op.inputs[0], spec),), (op.output,), (op,)))
    values = [run_tflite(before, inputs)[0] for inputs in batches(graph)]
    step = (max(0, np.max(values)) - min(0, np.min(values))) / 255
    rounded = (step * np.round(values[0] / step)).astype(np.float32)
    (wanted,), (got,) = (run_tflite(alone, {op.inputs[0]: x}) for x in (values[0], rounded))
    return float(np.abs(got - wanted).max() / (max(0, wanted.max()) - min(0, wanted.min())))


#: Powers other than squares are refused, and TFLite has no erf at all.
ONLY_IN_PART = ("pow", "erf")


@pytest.mark.parametrize("kind", [k for k in OP_KINDS if k not in (*REFUSED, *ONLY_IN_PART)])
@settings(max_examples=15)
@given(data=st.data(), xnnpack=st.booleans())
def test_an_op_gives_nearly_the_same_in_int8(kind: str, data: st.DataObject, xnnpack: bool) -> None:
    graph = data.draw(op_graphs(kind))
    # The chain before it rounds up to four times, and the op has steps of its own.
    assume(kind != "hsigmoid" or rounding_alone(graph) <= ONE_OP / 5)
    assert max(errors(graph, xnnpack=xnnpack)) <= ONE_OP


@pytest.mark.parametrize("kind", REFUSED)
@settings(max_examples=3)
@given(data=st.data())
def test_an_op_that_int8_cannot_have_is_refused_by_name(kind: str, data: st.DataObject) -> None:
    graph = data.draw(op_graphs(kind))
    with pytest.raises(GraphError, match=rf"'{kind}1': TFLite's int8 "):
        to_tflite(graph, int8=Int8(batches(graph)))


@pytest.mark.parametrize("kind", ["div", "lrn"])
def test_the_runtime_itself_fails_on_what_is_refused(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hwbench.lower.tflite_int8.NOT_IN_INT8", {})
    b = GraphBuilder("g")
    x = b.input("x", (1, 4, 3, 3))
    attrs = {"size": 3, "alpha": 0.5, "beta": 0.75, "bias": 2.0} if kind == "lrn" else {}
    graph = b.build(b.op(kind, [x, b.input("y", (4, 1, 1))] if kind == "div" else [x], attrs))
    model = to_tflite(graph, int8=Int8(batches(graph)))
    inputs = {name: np.zeros_like(array) for name, array in batches(graph)[0].items()}
    with pytest.raises(RuntimeError):
        run_tflite(model, inputs)


@settings(max_examples=25)
@given(graph=nets())
def test_every_operator_of_a_net_is_within_two_steps_of_its_float_form(graph: Graph) -> None:
    assert operator_steps(graph, Int8(batches(graph))) <= 2


@settings(max_examples=25)
@given(graph=encoders())
def test_every_operator_of_an_encoder_is_within_two_steps_of_its_float_form(graph: Graph) -> None:
    assert operator_steps(graph, Int8(batches(graph))) <= 2


def test_a_square_is_an_int8_product_and_other_powers_are_refused() -> None:
    graphs = []
    for exponent in (2.0, 3.0):
        b = GraphBuilder("g")
        graphs.append(b.build(b.op("pow", [b.input("x", (1, 4))], {"exponent": exponent})))
    square, cube = graphs
    assert max(errors(square, xnnpack=True)) <= ONE_OP
    with pytest.raises(GraphError, match="'pow1': TFLite's int8 POW does not exist"):
        to_tflite(cube, int8=Int8())


@pytest.mark.parametrize("name", space_names())
def test_every_operator_of_a_spaces_net_is_within_two_steps(name: str) -> None:
    space = get_space(name)
    (code,) = space.sample(1, np.random.default_rng(0))
    assert operator_steps(space.graph(code), Int8()) <= 2


@pytest.mark.parametrize("name", ["nasbench201", "mbv3_small_rgb", "residual_net"])
def test_a_net_keeps_its_largest_class_mostly(name: str) -> None:
    graph = residual_net()
    if name in space_names():
        space = get_space(name)
        graph = space.graph(space.sample(1, np.random.default_rng(0))[0])
    inputs = normal_inputs(graph, 24)
    exact, int8 = to_tflite(graph), to_tflite(graph, int8=Int8(inputs[:4]))
    same = [run_tflite(exact, x)[0].argmax() == run_tflite(int8, x)[0].argmax() for x in inputs]
    assert np.mean(same) >= 0.8


def trained_resnet(path: Path) -> tuple[Graph, dict[str, np.ndarray]]:
    """A ResNet-20 for CIFAR-10 with the weights that its authors trained."""
    state = np.load(path, allow_pickle=False)
    b, weights = GraphBuilder("resnet20"), {}

    def conv(x: str, name: str, norm: str, channels: int, stride: int = 1) -> str:
        y = b.conv(x, channels, kernel=3, stride=stride, padding=1, bias=False)
        weights[f"{y}.weight"] = state[f"{name}.weight"]
        y = b.op("batch_norm", [y], {"epsilon": 1e-5})
        for ours, theirs in (
            ("scale", "weight"),
            ("bias", "bias"),
            ("mean", "running_mean"),
            ("var", "running_var"),
        ):
            weights[f"{y}.{ours}"] = state[f"{norm}.{theirs}"]
        return y

    x = b.activation(conv(b.input("image", (1, 3, 32, 32)), "conv1", "bn1", 16), "relu")
    for stage, channels in enumerate((16, 32, 64), start=1):
        for block in range(3):
            stride = 2 if stage > 1 and block == 0 else 1
            at = f"layer{stage}.{block}"
            y = b.activation(conv(x, f"{at}.conv1", f"{at}.bn1", channels, stride), "relu")
            y = conv(y, f"{at}.conv2", f"{at}.bn2", channels)
            if stride == 2:  # every second pixel, and zeros for the new channels
                more = channels // 4
                x = b.pad(b.max_pool(x, 1, 2), (0, more, 0, 0, 0, more, 0, 0))
            x = b.activation(b.add(y, x), "relu")
    x = b.linear(b.flatten(b.global_avg_pool(x)), 10)
    weights[f"{x}.weight"], weights[f"{x}.bias"] = state["linear.weight"], state["linear.bias"]
    return b.build(x), weights


def test_a_trained_net_keeps_its_largest_class(shared_data: Path) -> None:
    graph, weights = trained_resnet(shared_data / "tasks" / "cifar10_resnet20.npz")
    inputs = normal_inputs(graph, 60)
    exact, int8 = to_tflite(graph, weights), to_tflite(graph, weights, int8=Int8(inputs[:10]))
    logits = np.array([(run_tflite(exact, x)[0], run_tflite(int8, x)[0]) for x in inputs[10:]])
    logits, near = logits[:, 0, 0], logits[:, 1, 0]
    assert np.sqrt(np.mean((logits - near) ** 2)) <= 0.1 * logits.std()
    second, first = np.sort(logits, axis=1)[:, -2:].T
    same = logits.argmax(axis=1) == near.argmax(axis=1)
    assert same[first - second > 1].all()  # where the net is sure
    assert same.mean() >= 0.9


# -- how it is stored -------------------------------------------------------------------------


def parts(content: bytes) -> tuple[list[object], list[object]]:
    """Tensors and operators of a file, as the schema's own classes read them."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    return model.subgraphs[0].tensors, model.subgraphs[0].operators


def test_an_int8_model_is_int8_throughout_as_the_specification_says() -> None:
    graph = mobile_net(64)
    tensors, _ = parts(to_tflite(graph, int8=Int8()).bytes)
    allowed = {schema.TensorType.INT8, schema.TensorType.INT32}
    assert {tensor.type for tensor in tensors} == allowed
    weights = [t for t in tensors if t.name.endswith(b".weight")]
    for tensor in weights:
        quant = tensor.quantization
        assert not quant.zeroPoint.any()
        if tensor.name.startswith(b"conv"):
            assert len(quant.scale) == tensor.shape[quant.quantizedDimension]
    assert any(t.quantization.quantizedDimension == 3 for t in weights)  # a depthwise one


@pytest.mark.parametrize(
    ("kind", "scale", "zero_point"),
    [("softmax", 1 / 256, -128), ("sigmoid", 1 / 256, -128), ("tanh", 1 / 128, 0)],
)
def test_outputs_of_a_known_range_are_stored_as_the_specification_says(
    kind: str, scale: float, zero_point: int
) -> None:
    b = GraphBuilder("g")
    x = b.input("x", (1, 8))
    graph = b.build(b.softmax(x) if kind == "softmax" else b.activation(x, kind))
    (port,) = to_tflite(graph, int8=Int8()).outputs
    assert port.quant is not None
    assert (port.quant.scale.tolist(), port.quant.zero_point) == ([scale], zero_point)


def test_operators_that_move_numbers_store_them_alike() -> None:
    b = GraphBuilder("moved")
    x = b.conv(b.input("x", (1, 3, 8, 8)), 4)
    y = b.max_pool(b.pad(b.conv(x, 4), (0, 0, 1, 1, 0, 0, 1, 1)), 3, 1)
    graph = b.build(b.concat([x, y, b.activation(x, "sigmoid")]))
    content = to_tflite(graph, int8=Int8()).bytes
    assert operators(content).count("QUANTIZE") == 1  # a sigmoid's scale is its own
    tensors, moves = parts(content)
    stored = [
        {
            (float(tensors[i].quantization.scale[0]), int(tensors[i].quantization.zeroPoint[0]))
            for i in (*op.inputs, *op.outputs)
            if tensors[i].type == schema.TensorType.INT8
        }
        for op in moves
        if op.builtinOptionsType
        in (
            schema.BuiltinOptions.ConcatenationOptions,
            schema.BuiltinOptions.PadOptions,
            schema.BuiltinOptions.Pool2DOptions,
        )
    ]
    assert len(stored) == 3
    assert all(len(scales) == 1 for scales in stored)
    assert max(errors(graph, xnnpack=True)) <= ONE_OP


def test_channels_without_weights_and_large_biases_survive() -> None:
    b = GraphBuilder("odd")
    graph = b.build(b.conv(b.input("x", (1, 2, 4, 4)), 3, kernel=1))
    weight = np.array([[0, 0], [1e-9, 0], [1, -1]], np.float32).reshape(3, 2, 1, 1)
    weights = {"conv1.weight": weight, "conv1.bias": np.array([5, 100, -3], np.float32)}
    inputs = batches(graph)
    int8 = to_tflite(graph, weights, int8=Int8(inputs))
    wanted = run_tflite(to_tflite(graph, weights), inputs[0])[0]
    got = run_tflite(int8, inputs[0])[0]
    assert np.abs(got - wanted).max() <= 0.01 * np.ptp(wanted)


def test_an_int8_model_is_fed_and_read_as_the_runtime_says() -> None:
    graph = mobile_net(64)
    model = to_tflite(graph, int8=Int8())
    made = interpreter_of(model.bytes, xnnpack=True)
    for details, ports in (
        (made.get_input_details(), model.inputs),
        (made.get_output_details(), model.outputs),
    ):
        for detail, port in zip(details, ports, strict=True):
            assert detail["dtype"] is np.int8
            assert port.quant is not None
            scale, zero_point = detail["quantization"]
            assert (scale, zero_point) == (port.quant.scale[0], port.quant.zero_point)


# -- calibration ------------------------------------------------------------------------------


def test_the_range_of_the_batches_sets_the_scale() -> None:
    b = GraphBuilder("g")
    graph = b.build(b.activation(b.input("x", (1, 4)), "relu"))
    batch = {"x": np.array([[-1, 0, 2, 4]], np.float32)}
    (port,) = to_tflite(graph, int8=Int8([batch])).inputs
    assert port.quant is not None
    assert port.quant.scale.tolist() == pytest.approx([5 / 255])
    assert port.quant.zero_point == -77


@pytest.mark.parametrize(
    ("batch", "said"),
    [
        ({}, "got nothing"),
        ({"x": np.zeros((1, 3), np.float32)}, r"got float32 \(1, 3\)"),
        ({"x": np.zeros((1, 4))}, "got float64"),
        ({"x": np.full((1, 4), np.nan, np.float32)}, "infinite or no number"),
    ],
)
def test_batches_that_do_not_fit_are_refused(batch: dict[str, np.ndarray], said: str) -> None:
    b = GraphBuilder("g")
    graph = b.build(b.activation(b.input("x", (1, 4)), "relu"))
    with pytest.raises(GraphError, match=said):
        to_tflite(graph, int8=Int8([batch]))
    with pytest.raises(GraphError, match="no batches"):
        to_tflite(graph, int8=Int8([]))
