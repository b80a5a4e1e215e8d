"""A graph means the same in onnxruntime and in torch, op by op and as whole nets."""

from __future__ import annotations

import copy
import itertools
import pickle
import subprocess
import sys
from collections.abc import Iterable, Mapping

import numpy as np
import onnx
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hwbench.errors import GraphError, ModelError
from hwbench.graph import Graph, GraphBuilder
from hwbench.lower import create_session, from_onnx, random_weights, to_onnx, to_torch
from hwbench.lower.onnx_write import NEWEST_OPSET, OLDEST_OPSET, ONNX_OPS, OnnxModel
from hwbench.lower.session import external_initializers
from hwbench.lower.torch_module import TORCH_OPS
from hwbench.lower.weights import RANDOM_LOCATION, random_tensors
from hwbench.ops import OP_KINDS
from hwbench.spaces import get_space, space_names
from tests.graphs import (
    CASES,
    encoders,
    input_values,
    mobile_net,
    nets,
    op_graphs,
    relative_error,
)
from tests.in_torch import float32_suffices, run_torch

pytestmark = pytest.mark.usefixtures("one_torch_thread")

TOLERANCE = 1e-4


def run_onnx(model: OnnxModel, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    return create_session(model.bytes).run(None, dict(inputs))


def assert_equal_everywhere(graph: Graph, opset: int, seed: int) -> None:
    """onnxruntime and torch agree with each other, and with the shapes that were inferred."""
    inputs = input_values(graph, seed)
    weights = random_weights(graph, seed)
    in_onnx = run_onnx(to_onnx(graph, weights, opset=opset), inputs)
    in_torch = run_torch(graph, weights, inputs)
    for name, got, wanted in zip(graph.outputs, in_onnx, in_torch, strict=True):
        assert got.shape == graph.tensors[name].shape
        assert relative_error(got, wanted) <= TOLERANCE


OPSETS = st.sampled_from([OLDEST_OPSET, 17, 18, 20, NEWEST_OPSET])


def test_every_kind_of_op_is_lowered_and_tested() -> None:
    assert set(OP_KINDS) == set(ONNX_OPS) == set(TORCH_OPS) == set(CASES)


@pytest.mark.parametrize("kind", OP_KINDS)
@settings(max_examples=25)
@given(data=st.data(), opset=OPSETS, seed=st.integers(0, 9))
def test_an_op_gives_the_same_in_onnxruntime_and_torch(
    kind: str, data: st.DataObject, opset: int, seed: int
) -> None:
    assert_equal_everywhere(data.draw(op_graphs(kind)), opset, seed)


@settings(max_examples=40)
@given(graph=nets(), opset=OPSETS, seed=st.integers(0, 9))
def test_a_net_gives_the_same_in_onnxruntime_and_torch(graph: Graph, opset: int, seed: int) -> None:
    assert_equal_everywhere(graph, opset, seed)


@settings(max_examples=40)
@given(graph=encoders(), opset=OPSETS, seed=st.integers(0, 9))
def test_an_encoder_gives_the_same_in_onnxruntime_and_torch(
    graph: Graph, opset: int, seed: int
) -> None:
    assume(float32_suffices(graph, seed, TOLERANCE))
    assert_equal_everywhere(graph, opset, seed)


@settings(max_examples=40)
@given(graph=encoders(), opset=OPSETS)
def test_an_encoder_survives_the_round_trip_through_onnx(graph: Graph, opset: int) -> None:
    again, _ = from_onnx(to_onnx(graph, opset=opset).bytes)
    assert again.hash == graph.hash


@pytest.mark.parametrize("heads", [1, 3, 4])
def test_attention_is_torchs_own(heads: int) -> None:
    b = GraphBuilder("attention")
    graph = b.build(b.attention(b.input("x", (2, 5, 12)), heads))
    weights = random_weights(graph)
    own = torch.nn.MultiheadAttention(12, heads, batch_first=True)
    with torch.no_grad():
        for target, param in ((own.in_proj_weight, "weight"), (own.in_proj_bias, "bias")):
            rows = [weights[f"linear{i}.{param}"] for i in (1, 2, 3)]
            target.copy_(torch.from_numpy(np.concatenate(rows)))
        own.out_proj.weight.copy_(torch.tensor(weights["linear4.weight"]))
        own.out_proj.bias.copy_(torch.tensor(weights["linear4.bias"]))
    inputs = input_values(graph)
    x = torch.from_numpy(inputs["x"])
    wanted = own(x, x, x, need_weights=False)[0].detach().numpy()
    assert relative_error(run_onnx(to_onnx(graph, weights), inputs)[0], wanted) <= TOLERANCE


def test_attention_may_be_wider_or_narrower_than_its_tokens() -> None:
    b = GraphBuilder("attention")
    graph = b.build(b.attention(b.input("x", (2, 5, 12)), 3, head_size=8))
    assert [graph.weights[f"linear{i}.weight"].shape for i in (1, 4)] == [(24, 12), (12, 24)]
    assert_equal_everywhere(graph, 17, 0)


@settings(max_examples=40)
@given(graph=nets())
def test_a_net_survives_the_round_trip_through_onnx(graph: Graph) -> None:
    weights = random_weights(graph)
    again, weights_again = from_onnx(to_onnx(graph, weights).bytes)
    assert again == graph  # ours names nodes by their tensors, so even the names come back
    assert weights.keys() == weights_again.keys()
    assert all(np.array_equal(weights[name], weights_again[name]) for name in weights)


@pytest.mark.parametrize("name", space_names())
def test_architectures_of_every_space_are_lowered_and_read_back(name: str) -> None:
    space = get_space(name)
    for code in space.sample(3, np.random.default_rng(0)):
        graph = space.graph(code)
        model = to_onnx(graph)
        again, _ = from_onnx(model.bytes)
        assert again.hash == graph.hash
        inputs = input_values(graph)
        (in_onnx,), (in_torch,) = run_onnx(model, inputs), run_torch(graph, None, inputs)
        assert relative_error(in_onnx, in_torch) <= TOLERANCE


@pytest.mark.parametrize("kind", OP_KINDS)
@settings(max_examples=10)
@given(data=st.data(), opset=OPSETS)
def test_an_op_survives_the_round_trip_through_onnx(
    kind: str, data: st.DataObject, opset: int
) -> None:
    graph = data.draw(op_graphs(kind))
    again, _ = from_onnx(to_onnx(graph, opset=opset).bytes)
    assert [op.kind for op in again.ops] == [op.kind for op in graph.ops]
    assert again.hash == graph.hash


def test_onnx_models_are_valid() -> None:
    for opset in (OLDEST_OPSET, 17, NEWEST_OPSET):
        model = to_onnx(mobile_net(64), random_weights(mobile_net(64)), opset=opset)
        onnx.checker.check_model(onnx.load_from_string(model.bytes), full_check=True)


# -- weights that are only named --------------------------------------------------------------


def test_random_weights_are_the_same_by_name_as_in_the_file() -> None:
    graph = mobile_net(64)
    inputs = input_values(graph)
    named, stored = to_onnx(graph), to_onnx(graph, random_weights(graph))
    assert len(named.bytes) < 100_000 < len(stored.bytes)
    (by_name,), (from_file,) = run_onnx(named, inputs), run_onnx(stored, inputs)
    assert np.array_equal(by_name, from_file)
    assert relative_error(by_name, run_torch(graph, None, inputs)[0]) <= TOLERANCE


def test_a_matrix_product_on_more_axes_has_the_same_weights_transposed() -> None:
    b = GraphBuilder("sequence")
    graph = b.build(b.linear(b.input("x", (1, 7, 400)), 3))
    transposed, bias = external_initializers(to_onnx(graph).bytes).values()
    weights = random_weights(graph)
    assert transposed.shape == (400, 3)  # MatMul's layout
    assert np.array_equal(transposed.T, weights["linear1.weight"])
    assert np.array_equal(bias, weights["linear1.bias"])
    assert float(transposed.std()) == pytest.approx((2 / 400) ** 0.5, rel=0.1)


def test_activations_of_deep_nets_stay_normal_numbers() -> None:
    b = GraphBuilder("deep")
    x = b.input("x", (1, 8, 8, 8))
    taps = []
    for _ in range(100):
        x = b.activation(b.conv(x, 8), "hswish")
        taps.append(x)
    graph = b.build(taps)
    outputs = run_onnx(to_onnx(graph), input_values(graph))
    for values in outputs:
        largest = float(np.abs(values).max())
        assert 1e-30 < largest < 1e30


def test_tensors_share_no_memory_and_are_aligned() -> None:
    weights = random_weights(mobile_net(64))
    spans = sorted((w.ctypes.data, w.ctypes.data + w.nbytes) for w in weights.values())
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))
    assert all(start % 64 == 0 for start, _ in spans)


def test_random_tensors_depend_on_the_seed_alone() -> None:
    shapes = [("a.weight", (300, 400)), ("b.bias", (7,)), ("c.var", (9,))]
    first, again, other = (random_tensors(shapes, seed) for seed in (1, 1, 2))
    for name, _ in shapes:
        assert np.array_equal(first[name], again[name])
        assert not np.array_equal(first[name], other[name])
    assert (first["c.var"] > 0).all()
    rows = first["a.weight"]
    assert len(np.unique(rows[:, 0])) == len(rows)


def test_a_weight_of_unknown_role_is_refused() -> None:
    with pytest.raises(GraphError, match=r"'a\.twist'"):
        random_tensors([("a.twist", (3,))])


def test_a_session_has_its_own_copy_of_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    handed_over: dict[str, np.ndarray] = {}

    def writable(shapes: Iterable[tuple[str, tuple[int, ...]]]) -> dict[str, np.ndarray]:
        handed_over.update({name: w.copy() for name, w in random_tensors(shapes).items()})
        return handed_over

    monkeypatch.setattr("hwbench.lower.session.random_tensors", writable)
    b = GraphBuilder("g")
    x = b.conv(b.input("x", (1, 64, 9)), 64, kernel=1)
    x = b.mul(x, b.op("constant", [], {"shape": (64, 9), "dtype": "float32"}))
    graph = b.build(b.linear(x, 300))
    session, inputs = create_session(to_onnx(graph).bytes), input_values(graph)
    before = session.run(None, inputs)[0]
    for weights in handed_over.values():
        weights.fill(np.nan)
    assert len(handed_over) == 5
    assert np.array_equal(session.run(None, inputs)[0], before)


def test_a_saved_model_runs_from_its_path(tmp_path) -> None:
    graph = mobile_net(64)
    path = tmp_path / "net.onnx"
    to_onnx(graph).save(path)
    inputs = input_values(graph)
    assert np.isfinite(create_session(path).run(None, inputs)[0]).all()


def test_a_model_for_random_weights_does_not_load_elsewhere() -> None:
    import onnxruntime as ort

    with pytest.raises(Exception, match=RANDOM_LOCATION):
        ort.InferenceSession(to_onnx(mobile_net(64)).bytes, providers=["CPUExecutionProvider"])


def test_what_makes_sessions_imports_neither_torch_nor_pandas() -> None:
    code = (
        "import sys; from hwbench.lower import create_session, external_initializers;"
        "create_session(sys.stdin.buffer.read());"
        "sys.exit(', '.join({'torch', 'pandas', 'scipy', 'sklearn'} & set(sys.modules)) or None)"
    )
    model = to_onnx(mobile_net(64)).bytes
    done = subprocess.run(
        [sys.executable, "-c", code], input=model, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()


# -- refusals ---------------------------------------------------------------------------------


def test_weights_that_do_not_fit_are_refused_by_name() -> None:
    graph = mobile_net(64)
    weights = dict(random_weights(graph))
    for lower in (to_onnx, to_torch):
        with pytest.raises(GraphError, match=r"'linear1\.bias'"):
            lower(graph, {k: v for k, v in weights.items() if k != "linear1.bias"})
        with pytest.raises(GraphError, match=r"'linear1\.bias' are float32 \(3,\)"):
            lower(graph, weights | {"linear1.bias": np.zeros(3, np.float32)})
        with pytest.raises(GraphError, match="float64"):
            lower(graph, weights | {"linear1.bias": np.zeros(1000)})


@pytest.mark.parametrize("opset", [OLDEST_OPSET - 1, NEWEST_OPSET + 1])
def test_an_opset_out_of_range_is_refused(opset: int) -> None:
    with pytest.raises(GraphError, match=f"opset {opset}"):
        to_onnx(mobile_net(64), opset=opset)


def test_only_float32_is_lowered_to_onnx() -> None:
    b = GraphBuilder("half")
    graph = b.build(b.activation(b.input("x", (1, 4), "float16"), "relu"))
    with pytest.raises(GraphError, match=r"'relu1'.*float16"):
        to_onnx(graph)


def test_a_tensor_called_like_a_weight_is_refused() -> None:
    b = GraphBuilder("clash")
    x = b.op("relu", [b.input("x", (1, 4))], name="linear1.weight")
    with pytest.raises(GraphError, match=r"'linear1\.weight'"):
        to_onnx(b.build(b.linear(x, 3)))


def test_a_model_that_the_runtime_refuses_is_one_line(tmp_path) -> None:
    garbage = tmp_path / "garbage.onnx"
    garbage.write_bytes(b"not a model")
    for model in (garbage, b"not a model", tmp_path / "absent.onnx", tmp_path):
        with pytest.raises(ModelError) as caught:
            create_session(model)
        assert "\n" not in str(caught.value)


# -- the torch module -------------------------------------------------------------------------


def test_a_torch_module_trains_copies_and_pickles() -> None:
    b = GraphBuilder("trained")
    x = b.op("batch_norm", [b.conv(b.input("x", (1, 3, 8, 8)), 4)], {"epsilon": 1e-5})
    graph = b.build(b.linear(b.flatten(b.activation(x, "relu")), 2))
    module = to_torch(graph)
    inputs = torch.rand(1, 3, 8, 8)
    module(inputs).sum().backward()
    grads = {name: p.grad is not None for name, p in module.named_parameters()}
    assert grads["ops.0.weight"]
    assert not grads["ops.1.mean"]  # a statistic, not learned
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(twin(inputs), module(inputs))


def test_a_torch_module_owns_its_weights() -> None:
    graph = mobile_net(64)
    weights = random_weights(graph)
    module = to_torch(graph, weights)
    with torch.no_grad():
        next(module.parameters()).zero_()
    assert weights["conv1.weight"].any()


def test_a_torch_module_refuses_the_wrong_number_of_inputs() -> None:
    with pytest.raises(GraphError, match="takes 1 inputs, got 2"):
        to_torch(mobile_net(64))(torch.zeros(1), torch.zeros(1))
