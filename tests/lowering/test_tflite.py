"""A graph means the same in LiteRT and in torch, op by op and as whole nets."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hwbench.cli import main
from hwbench.errors import GraphError
from hwbench.graph import Graph, GraphBuilder
from hwbench.lower import create_session, from_onnx, random_weights, to_tflite
from hwbench.lower.tflite_ops import TFLITE_OPS
from hwbench.ops import OP_KINDS
from hwbench.spaces import get_space, space_names
from hwbench.verify.litert import feed, interpreter_of, is_taken_whole, operators, run_tflite
from tests.graphs import (
    CASES,
    encoders,
    input_values,
    mobile_net,
    nets,
    op_graphs,
    relative_error,
    residual_net,
)
from tests.in_torch import float32_suffices, run_torch
from tests.onnx_models import TRAINED, trained_model

pytestmark = pytest.mark.usefixtures("one_torch_thread")

TOLERANCE = 1e-4
REFUSED = ("erf",)


def assert_equal_everywhere(graph: Graph, seed: int = 0) -> None:
    """LiteRT, with XNNPACK and without, agrees with torch and with the shapes inferred."""
    inputs = input_values(graph, seed)
    weights = random_weights(graph, seed)
    model = to_tflite(graph, weights)
    in_torch = run_torch(graph, weights, inputs)
    for xnnpack in (True, False):
        in_litert = run_tflite(model, inputs, xnnpack=xnnpack)
        for name, got, wanted in zip(graph.outputs, in_litert, in_torch, strict=True):
            assert got.shape == graph.tensors[name].shape
            assert relative_error(got, wanted) <= TOLERANCE


def test_every_kind_of_op_is_lowered_and_tested() -> None:
    assert set(OP_KINDS) == set(TFLITE_OPS) == set(CASES)


@pytest.mark.parametrize("kind", [kind for kind in OP_KINDS if kind not in REFUSED])
@settings(max_examples=25)
@given(data=st.data(), seed=st.integers(0, 9))
def test_an_op_gives_the_same_in_litert_and_torch(
    kind: str, data: st.DataObject, seed: int
) -> None:
    assert_equal_everywhere(data.draw(op_graphs(kind)), seed)


@settings(max_examples=40)
@given(graph=nets(), seed=st.integers(0, 9))
def test_a_net_gives_the_same_in_litert_and_torch(graph: Graph, seed: int) -> None:
    assert_equal_everywhere(graph, seed)


@settings(max_examples=40)
@given(graph=encoders(), seed=st.integers(0, 9))
def test_an_encoder_gives_the_same_in_litert_and_torch(graph: Graph, seed: int) -> None:
    assume(float32_suffices(graph, seed, TOLERANCE))
    assert_equal_everywhere(graph, seed)


@pytest.mark.parametrize("name", space_names())
def test_architectures_of_every_space_give_the_same_in_litert_and_torch(name: str) -> None:
    space = get_space(name)
    for code in space.sample(3, np.random.default_rng(0)):
        assert_equal_everywhere(space.graph(code))


@pytest.mark.parametrize(("package", "name", "shapes", "out"), TRAINED)
def test_trained_models_of_others_give_the_same_in_litert(
    third_party_models: Callable[[str], list[Path]],
    package: str,
    name: str,
    shapes: dict[str, tuple[int, ...]],
    out: tuple[int, ...],
) -> None:
    model = trained_model(third_party_models(package), name).SerializeToString()
    graph, weights = from_onnx(model, shapes)
    inputs = input_values(graph)
    (wanted,) = create_session(model).run(None, inputs)
    lowered = to_tflite(graph, weights)
    for xnnpack in (True, False):
        (got,) = run_tflite(lowered, inputs, xnnpack=xnnpack)
        assert got.shape == out
        assert relative_error(got, wanted) <= TOLERANCE


# -- the form of the model --------------------------------------------------------------------


def chain(*layers: str, shape: tuple[int, ...] = (1, 3, 9, 9)) -> Graph:
    """A convolution followed by layers of the given kinds."""
    b = GraphBuilder("chain")
    x = b.conv(b.input("x", shape), 8)
    for kind in layers:
        if kind == "batch_norm":
            x = b.op("batch_norm", [x], {"epsilon": 1e-3})
        elif kind == "flatten":
            x = b.flatten(x)
        elif kind == "linear":
            x = b.linear(x, 5)
        elif kind == "max_pool":
            x = b.max_pool(x, 3, 2, 1)
        else:
            x = b.activation(x, kind)
    return b.build(x)


@pytest.mark.parametrize("shape", [(1, 3, 9, 9), (2, 3, 11)])
@pytest.mark.parametrize(
    ("layers", "kinds"),
    [
        (["relu"], ["CONV_2D"]),
        (["relu6"], ["CONV_2D"]),
        (["batch_norm", "relu"], ["CONV_2D"]),
        (["batch_norm", "batch_norm"], ["CONV_2D"]),
        (["relu", "batch_norm"], ["CONV_2D", "MUL", "ADD"]),
        (["hswish"], ["CONV_2D", "HARD_SWISH"]),
        (["hsigmoid"], ["CONV_2D", "MUL"]),
        (["relu", "relu6"], ["CONV_2D", "RELU6"]),
        (["tanh", "hsigmoid"], ["CONV_2D", "TANH", "ADD", "MUL"]),
        (["flatten", "linear"], ["CONV_2D", "RESHAPE", "FULLY_CONNECTED"]),
        (["flatten", "linear", "batch_norm", "relu"], ["CONV_2D", "RESHAPE", "FULLY_CONNECTED"]),
        (["relu", "max_pool"], ["CONV_2D", "MAX_POOL_2D"]),
    ],
)
def test_layers_become_the_operators_of_googles_converter(
    layers: list[str], kinds: list[str], shape: tuple[int, ...]
) -> None:
    graph = chain(*layers, shape=shape)
    assert operators(to_tflite(graph).bytes) == kinds
    assert_equal_everywhere(graph)


def test_a_tensor_with_another_reader_keeps_its_own_value() -> None:
    b = GraphBuilder("shared")
    x = b.conv(b.input("x", (1, 3, 6, 6)), 4)
    graph = b.build([b.activation(x, "relu"), b.activation(x, "hsigmoid"), b.flatten(x)])
    kinds = operators(to_tflite(graph).bytes)
    assert sorted(kinds) == ["ADD", "CONV_2D", "MUL", "RELU", "RESHAPE", "TRANSPOSE"]
    assert_equal_everywhere(graph)


def test_an_output_that_is_also_read_is_not_fused_away() -> None:
    b = GraphBuilder("tapped")
    x = b.conv(b.input("x", (1, 3, 6, 6)), 4)
    y = b.op("batch_norm", [x], {"epsilon": 1e-3})
    graph = b.build([x, y, b.activation(y, "relu")])
    assert_equal_everywhere(graph)


def test_a_channel_shuffle_costs_one_transpose() -> None:
    b = GraphBuilder("shuffle")
    x = b.conv(b.input("x", (1, 6, 8, 8)), 6, groups=3)
    x = b.reshape(x, (1, 3, 2, 8, 8))
    x = b.reshape(b.transpose(x, (0, 2, 1, 3, 4)), (1, 6, 8, 8))
    graph = b.build(b.conv(x, 6, groups=6))
    kinds = operators(to_tflite(graph).bytes)
    assert kinds == ["CONV_2D", "RESHAPE", "TRANSPOSE", "RESHAPE", "DEPTHWISE_CONV_2D"]
    assert_equal_everywhere(graph)


def test_attention_becomes_the_operators_of_googles_converter() -> None:
    b = GraphBuilder("attention")
    graph = b.build(b.layer_norm(b.attention(b.input("x", (1, 6, 16)), 4)))
    model = to_tflite(graph)
    projections = ["FULLY_CONNECTED"] * 3
    scores = ["RESHAPE", "TRANSPOSE"] * 2 + ["BATCH_MATMUL", "MUL", "SOFTMAX"]
    mixed = ["RESHAPE", "TRANSPOSE", "BATCH_MATMUL", "TRANSPOSE", "RESHAPE", "FULLY_CONNECTED"]
    norm = ["MEAN", "SUB", "MUL", "MEAN", "ADD", "RSQRT", "MUL", "MUL", "ADD"]
    assert operators(model.bytes) == projections + scores + mixed + norm
    assert is_taken_whole(model.bytes)
    subgraph = schema.ModelT.InitFromObj(schema.Model.GetRootAs(model.bytes, 0)).subgraphs[0]
    products = [
        op.builtinOptions.adjY
        for op in subgraph.operators
        if op.builtinOptionsType == schema.BuiltinOptions.BatchMatMulOptions
    ]
    assert products == [True, False]  # keys are multiplied as they lie, features last


def test_a_transformer_block_moves_only_what_it_must() -> None:
    b = GraphBuilder("tokens")
    x = b.input("x", (1, 6, 16))
    y = b.linear(b.activation(b.linear(x, 32), "gelu"), 16)
    graph = b.build(b.softmax(b.add(x, y)))
    kinds = operators(to_tflite(graph).bytes)
    assert kinds == ["FULLY_CONNECTED", "GELU", "FULLY_CONNECTED", "ADD", "SOFTMAX"]
    assert_equal_everywhere(graph)


@settings(max_examples=60)
@given(data=st.data())
def test_axes_may_go_anywhere_between_layers(data: st.DataObject) -> None:
    b = GraphBuilder("moved")
    x = b.conv(b.input("x", (2, 3, 4, 6)), 4, kernel=data.draw(st.sampled_from([1, 3])))
    for _ in range(data.draw(st.integers(1, 4))):
        shape = b.shape(x)
        move = data.draw(st.sampled_from(["transpose", "reshape", "flatten", "linear", "scale"]))
        if move == "transpose":
            x = b.transpose(x, data.draw(st.permutations(range(len(shape)))))
        elif move == "reshape":
            x = b.reshape(x, data.draw(st.sampled_from(_shapes_of(int(np.prod(shape))))))
        elif move == "flatten":
            x = b.flatten(x, data.draw(st.integers(0, len(shape))))
        elif move == "linear" and len(shape) > 1:
            x = b.linear(x, 4)
        else:
            size = [n if data.draw(st.booleans()) else 1 for n in shape]
            x = b.mul(x, b.op("constant", [], {"shape": tuple(size), "dtype": "float32"}))
    assert_equal_everywhere(b.build([x, b.activation(x, "tanh")]))


def _shapes_of(elements: int) -> list[tuple[int, ...]]:
    """Shapes of two to five axes with so many elements."""
    shapes = [(1, elements), (elements, 1, 1)]
    for a in (2, 3, 4, 6, 8):
        if elements % a == 0:
            shapes += [(a, elements // a), (1, elements // a, a)]
            for c in (2, 3, 4):
                if elements // a % c == 0:
                    rest = elements // a // c
                    shapes += [(c, a, rest), (1, a, 1, c, rest), (rest, c, a, 1)]
    return shapes


@pytest.mark.parametrize("name", [*space_names(), "residual_net"])
def test_xnnpack_takes_nets_as_a_whole(name: str) -> None:
    graph = residual_net()
    if name in space_names():
        space = get_space(name)
        graph = space.graph(space.sample(1, np.random.default_rng(1))[0])
    model = to_tflite(graph)
    # Of channels and of heads; patches need none to become tokens.
    shuffles = sum(op.kind == "transpose" and len(op["perm"]) > 3 for op in graph.ops)
    assert operators(model.bytes).count("TRANSPOSE") == shuffles
    assert is_taken_whole(model.bytes)


def test_what_xnnpack_lacks_breaks_a_net_in_pieces() -> None:
    b = GraphBuilder("broken")
    x = b.activation(b.conv(b.input("x", (1, 3, 8, 8)), 4), "relu")
    x = b.op("lrn", [x], {"size": 3, "alpha": 0.5, "beta": 0.75, "bias": 2.0})
    assert not is_taken_whole(to_tflite(b.build(x)).bytes)
    assert not is_taken_whole(to_tflite(b.build(b.conv(x, 4))).bytes)


def test_a_residual_net_has_neither_batch_norms_nor_activations_of_their_own() -> None:
    graph = residual_net()
    kinds = operators(to_tflite(graph).bytes)
    assert set(kinds) == {"PAD", "CONV_2D", "ADD", "MAX_POOL_2D", "MEAN", "FULLY_CONNECTED"}
    assert kinds.count("CONV_2D") == sum(op.kind == "conv" for op in graph.ops)
    assert kinds.count("ADD") == sum(op.kind == "add" for op in graph.ops)
    assert_equal_everywhere(graph)


def test_inputs_and_outputs_are_channels_last_and_bear_the_graphs_names() -> None:
    b = GraphBuilder("ports")
    x = b.conv(b.input("image", (2, 3, 8, 6)), 4)
    y = b.max_pool(b.activation(b.input("sound", (2, 5, 7)), "relu"), 3)
    z = b.linear(b.input("tokens", (2, 5, 7)), 3)
    made = interpreter_of(to_tflite(b.build([x, y, z])).bytes, xnnpack=True)
    shapes = [
        {d["name"]: tuple(d["shape"].tolist()) for d in details}
        for details in (made.get_input_details(), made.get_output_details())
    ]
    assert shapes[0] == {"image": (2, 8, 6, 3), "sound": (2, 1, 7, 5), "tokens": (2, 5, 7)}
    assert shapes[1] == {x: (2, 8, 6, 4), y: (2, 1, 2, 5), z: (2, 5, 3)}
    (signature,) = made.get_signature_list().values()
    assert signature == {"inputs": ["image", "sound", "tokens"], "outputs": sorted([x, y, z])}


def test_random_weights_make_no_denormal_and_no_infinite_number() -> None:
    space = get_space("ofa_mbv3")
    graph = space.graph(space.sample(1, np.random.default_rng(3))[0])
    model = to_tflite(graph)
    made = interpreter_of(model.bytes, xnnpack=False, keep=True)
    feed(made, model, input_values(graph))
    made.invoke()
    for detail in made.get_tensor_details():
        values = made.get_tensor(detail["index"])
        if values.dtype == np.float32:
            size = np.abs(values[values != 0])
            assert np.isfinite(values).all()
            assert not (size < np.finfo(np.float32).tiny).any(), detail["name"]


def test_without_weights_the_random_ones_go_into_the_file(tmp_path: Path) -> None:
    graph = mobile_net(64)
    model = to_tflite(graph)
    assert model.bytes == to_tflite(graph, random_weights(graph)).bytes
    model.save(tmp_path / "net.tflite")
    assert (tmp_path / "net.tflite").read_bytes() == model.bytes


# -- refusals ---------------------------------------------------------------------------------


def test_an_op_that_tflite_lacks_is_refused_by_name() -> None:
    b = GraphBuilder("g")
    graph = b.build(b.activation(b.input("x", (1, 4)), "erf"))
    with pytest.raises(GraphError, match=r"'erf1' \(erf\): TFLite has no erf"):
        to_tflite(graph)


def test_a_padding_of_too_many_axes_is_refused() -> None:
    b = GraphBuilder("g")
    graph = b.build(b.pad(b.input("x", (1,) * 6), [0] * 6 + [1] * 6))
    with pytest.raises(GraphError, match=r"'pad1'.*at most 5 axes"):
        to_tflite(graph)


def test_weights_that_do_not_fit_are_refused_by_name() -> None:
    graph = mobile_net(64)
    weights = dict(random_weights(graph))
    with pytest.raises(GraphError, match=r"'linear1\.bias' are float32 \(3,\)"):
        to_tflite(graph, weights | {"linear1.bias": np.zeros(3, np.float32)})


def test_only_float32_is_lowered_to_tflite() -> None:
    b = GraphBuilder("half")
    graph = b.build(b.activation(b.input("x", (1, 4), "float16"), "relu"))
    with pytest.raises(GraphError, match=r"'relu1'.*float16"):
        to_tflite(graph)


def test_weights_of_two_gib_are_refused() -> None:
    b = GraphBuilder("huge")
    graph = b.build(b.linear(b.input("x", (1, 2**15)), 2**15))
    # One row, seen many times: no memory is taken.
    row = np.zeros((1, 2**15), np.float32)
    weights = {
        "linear1.weight": np.broadcast_to(row, (2**15, 2**15)),
        "linear1.bias": np.zeros(2**15, np.float32),
    }
    with pytest.raises(GraphError, match=r"'huge': its weights take 4\.0 GiB"):
        to_tflite(graph, weights)


# -- the claim --------------------------------------------------------------------------------


def test_the_claim_examines_every_space_and_names_its_bars(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["verify", "lowering", "--quick", "--json", "-o", str(tmp_path)])
    (claim,) = json.loads(capsys.readouterr().out)["claims"]
    evidence = claim["evidence"]
    assert [row["space"] for row in evidence["nets"]] == space_names()
    assert evidence["bars"]["XNNPACK takes each float net as a whole"]
    assert (claim["verdict"] == "confirmed") == all(evidence["bars"].values())
    assert code == (0 if claim["verdict"] == "confirmed" else 1)
