"""Kernels of graphs, the rules learned from test cases, and the models of kinds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwbench.errors import UnknownNameError
from hwbench.graph import Graph, GraphBuilder
from hwbench.measure.jobs import Node
from hwbench.predictors.data import Prediction
from hwbench.predictors.kernels import Rules, split
from hwbench.predictors.kernels.alignment import _PARTS, assigned
from hwbench.predictors.kernels.cases import case, case_count
from hwbench.predictors.kernels.kernels import (
    BLOCKED,
    CONVERT,
    ENTERING,
    FEATURES,
    PASSING,
    Kernel,
    conversions,
    conversions_under,
    fuse,
    kernel_of,
    part_of,
    surroundings,
)
from hwbench.predictors.kernels.kind_model import KindData, KindModel, average, fit_kind
from hwbench.predictors.kernels.models import (
    UNKNOWN,
    Strange,
    fit_models,
    kernel_times,
    without_family,
)
from hwbench.predictors.kernels.models import _strangeness as strangeness_of
from hwbench.predictors.kernels.networks import FAMILIES, MOST_MACS, random_network
from hwbench.predictors.kernels.predictor import _calibration as calibration_of
from hwbench.predictors.kernels.rules import Case, learn_rules, nodes_by_op
from hwbench.predictors.kernels.samples import NetworkSample
from hwbench.predictors.kernels.training import Profiled, Training
from hwbench.predictors.kernels.training import _instrument as instrument_of
from hwbench.predictors.kernels.training import _moment as moment_of

FUSING = Rules(
    {
        (("conv",), "relu"): True,
        (("conv",), "add"): True,
        (("conv", "add"), "relu"): True,
        (("conv", "relu"), "add"): False,
    }
)


def residual() -> Graph:
    b = GraphBuilder("residual")
    x = b.activation(b.conv(b.input("x", (1, 16, 8, 8)), 16), "relu")
    y = b.activation(b.add(x, b.conv(x, 16)), "relu")
    return b.build(b.activation(b.conv(y, 16), "tanh"))


class TestSplit:
    def test_without_rules_each_operation_is_a_kernel(self) -> None:
        kernels = split(residual(), Rules())
        assert [kernel.ops for kernel in kernels] == [(op.name,) for op in residual().ops]

    def test_rules_join_what_follows(self) -> None:
        kernels = split(residual(), FUSING)
        assert [kernel.ops for kernel in kernels] == [
            ("conv1", "relu1"),
            ("conv2", "add1", "relu2"),
            ("conv3",),
            ("tanh1",),
        ]
        assert [kernel.kind for kernel in kernels] == ["conv", "conv", "conv", "tanh"]

    def test_nothing_joins_what_two_read(self) -> None:
        b = GraphBuilder("two")
        x = b.conv(b.input("x", (1, 16, 8, 8)), 16)
        graph = b.build(b.mul(b.activation(x, "relu"), x))
        assert [k.ops for k in split(graph, FUSING)] == [("conv1",), ("relu1",), ("mul1",)]

    def test_an_output_of_the_network_is_made(self) -> None:
        b = GraphBuilder("out")
        x = b.conv(b.input("x", (1, 16, 8, 8)), 16)
        graph = b.build([x, b.activation(x, "relu")])
        assert [k.ops for k in split(graph, FUSING)] == [("conv1",), ("relu1",)]

    def test_a_batch_norm_in_a_kernel_changes_nothing_unless_it_was_seen_to(self) -> None:
        rules = Rules({(("conv", "add"), "hswish"): True, (("*", "add"), "relu"): True})
        assert rules.joins(("conv", "batch_norm", "add"), "hswish")
        assert rules.joins(("conv", "batch_norm", "add"), "relu")
        assert not rules.joins(("conv", "batch_norm"), "hswish")
        seen = {**rules.fused, (("conv", "batch_norm", "add"), "hswish"): False}
        assert not Rules(seen).joins(("conv", "batch_norm", "add"), "hswish")

    def test_any_first_operation_unless_it_is_known(self) -> None:
        rules = Rules({(("*",), "relu"): True, (("conv",), "relu"): False})
        assert rules.joins(("depthwise",), "relu")
        assert not rules.joins(("conv",), "relu")

    def test_a_kernel_costs_what_its_operations_do(self) -> None:
        graph = residual()
        for kernel in split(graph, FUSING):
            ops = [op for op in graph.ops if op.name in kernel.ops]
            assert kernel.size("macs") == sum(map(graph.macs_of, ops))
            assert kernel.size("written") == graph.tensors[ops[-1].output].bytes
        joined = split(graph, FUSING)[1]
        tensor = 16 * 8 * 8 * 4
        assert (joined.size("read"), joined.size("joined")) == (tensor, 1)

    @settings(max_examples=25, deadline=None)
    @given(st.sampled_from(sorted(FAMILIES)), st.integers(0, 10_000))
    def test_every_operation_is_in_one_kernel(self, family: str, seed: int) -> None:
        graph = random_network(family, seed)
        kernels = split(graph, FUSING)
        ops = [name for kernel in kernels for name in kernel.ops]
        assert sorted(ops) == sorted(op.name for op in graph.ops if op.kind != "constant")
        sizes = np.array([kernel.sizes for kernel in kernels])
        assert sizes.shape == (len(kernels), len(FEATURES))
        assert np.isfinite(sizes).all()
        assert (sizes >= 0).all()
        assert sizes[:, 0].sum() == graph.macs


@pytest.mark.parametrize(
    ("channels", "kind"), [(30, "depthwise of odd"), (32, "depthwise"), (36, "depthwise")]
)
def test_a_depthwise_conv_whose_channels_fill_no_vectors_is_another_kind(
    channels: int, kind: str
) -> None:
    b = GraphBuilder("d")
    x = b.input("x", (1, channels, 8, 8))
    (kernel,) = split(b.build(b.conv(x, channels, kernel=3, groups=channels)), Rules())
    assert kernel.kind == kind


class TestLayouts:
    def conversions(self, layouts: dict[str, str]) -> list[str]:
        b = GraphBuilder("layouts")
        x = b.conv(b.input("x", (1, 16, 8, 8)), 16)
        x = b.conv(b.activation(x, "gelu"), 16)
        kernels = split(b.build(b.softmax(x)), Rules({}, layouts))
        return [kernel.name for kernel in kernels if kernel.kind == CONVERT]

    def test_each_change_of_layout_is_a_kernel(self) -> None:
        assert self.conversions({"conv": BLOCKED}) == ["x", "conv1", "gelu1", "conv2"]

    def test_what_keeps_a_layout_needs_none(self) -> None:
        assert self.conversions({"conv": BLOCKED, "gelu": PASSING}) == ["x", "conv2"]

    def test_what_takes_plain_images_needs_none_before_it(self) -> None:
        assert self.conversions({"conv": ENTERING}) == ["conv1", "conv2"]

    def test_a_tensor_is_converted_once(self) -> None:
        b = GraphBuilder("once")
        x = b.conv(b.input("x", (1, 16, 8, 8)), 16)
        graph = b.build([b.softmax(x), b.activation(x, "erf")])
        kernels = split(graph, Rules({}, {"conv": BLOCKED}))
        assert [k.name for k in kernels if k.kind == CONVERT] == ["x", "conv1"]

    @settings(max_examples=25, deadline=None)
    @given(st.sampled_from(sorted(FAMILIES)), st.integers(0, 10_000), st.data())
    def test_many_layouts_in_one_pass_convert_what_each_does(
        self, family: str, seed: int, data: st.DataObject
    ) -> None:
        graph = random_network(family, seed)
        around = surroundings(graph)
        groups = fuse(graph, FUSING)
        parts = [part_of(graph, ops, kernel_of(graph, ops, around)) for ops in groups]
        layout = st.sampled_from(["plain", BLOCKED, ENTERING, PASSING])
        each = st.fixed_dictionaries({part.kind: layout for part in parts})
        choices = data.draw(st.lists(each, min_size=2, max_size=5))
        together = conversions_under(parts, graph.outputs, choices)
        for i, alone in enumerate(choices):
            found = [[name for name, under in before if under >> i & 1] for before in together]
            assert found == conversions(parts, graph.outputs, alone)


class TestRules:
    def nodes(self, *names: tuple[str, str]) -> tuple[Node, ...]:
        return tuple(Node(name, kind, 1000.0) for name, kind in names)

    def test_names_tell_what_was_fused(self) -> None:
        named = [("relu1_nchwc", "Conv"), ("relu2", "Conv"), ("conv3", "Conv"), ("tanh1", "Tanh")]
        rules = learn_rules([Case(residual(), self.nodes(*named))])
        assert rules.joins(("conv",), "relu")
        assert rules.joins(("conv",), "add")
        assert rules.joins(("conv", "add"), "relu")
        assert not rules.joins(("conv",), "tanh")
        assert not rules.layouts

    def test_conversions_tell_layouts(self) -> None:
        reorder = ("Reorder", "Reorder")
        b = GraphBuilder("c")
        x = b.conv(b.input("x", (1, 16, 8, 8)), 16)
        graph = b.build(b.conv(b.activation(x, "erf"), 16))
        convs = [("conv1", "Conv"), ("erf1", "Erf"), ("conv2", "Conv")]
        b = GraphBuilder("one")
        one = b.build(b.conv(b.input("x", (1, 16, 8, 8)), 16))
        alone = Case(one, self.nodes(("conv1", "Conv"), reorder, reorder))
        plain = Case(graph, self.nodes(*convs, *[reorder] * 4))
        assert learn_rules([alone, plain]).layouts == {"conv": BLOCKED}
        passing = Case(graph, self.nodes(*convs, *[reorder] * 2))
        assert learn_rules([alone, passing]).layouts == {"conv": BLOCKED, "erf": PASSING}

    def test_what_one_layout_has_explained_no_other_explains_again(self) -> None:
        reorder = ("Reorder", "Reorder")
        b = GraphBuilder("two")
        x = b.conv(b.input("x", (1, 16, 8, 8)), 16)
        for kind in ("erf", "tanh"):
            x = b.conv(b.activation(x, kind), 16)
        names = [("conv1", "Conv"), ("erf1", "Erf"), ("conv2", "Conv"), ("tanh1", "Tanh")]
        either = self.nodes(*names, ("conv3", "Conv"), *[reorder] * 4)
        found = learn_rules([Case(b.build(x), either)]).layouts
        assert sorted(found.values()) == sorted([BLOCKED, PASSING])

    def test_nodes_that_lost_their_names_go_to_the_next_of_their_kind(self) -> None:
        b = GraphBuilder("g")
        x = b.linear(b.input("x", (1, 8)), 8)
        x = b.activation(b.linear(b.activation(x, "gelu"), 8), "hswish")
        x = b.layer_norm(b.add(x, x))
        named = [
            ("linear1", "Gemm"),
            ("Gelu_7", "Gelu"),
            ("linear2", "Gemm"),
            ("HardSigmoid_1", "HardSigmoid"),
            ("Mul_2", "Mul"),
            ("SkipLayerNormalization", "SkipLayerNormalization"),
            ("gemm_reshape", "Reshape"),
            ("odd", "Odd"),
        ]
        found, rest = nodes_by_op(Case(b.build(x), self.nodes(*named)))
        assert [node.name for node in found["gelu1"]] == ["Gelu_7"]
        assert [node.name for node in found["hswish1"]] == ["HardSigmoid_1", "Mul_2"]
        assert [node.name for node in found["layer_norm1"]] == ["SkipLayerNormalization"]
        assert [node.name for node in rest] == ["odd"]

    def test_cases_ask_about_different_operations(self) -> None:
        graphs = [case(number) for number in range(case_count())]
        assert len({graph.hash for graph in graphs}) == len(graphs)
        assert all(graph.macs < 1e8 for graph in graphs)


class TestAlignment:
    """Operators that bear no names of ours."""

    def kinds(self, graph: Graph, *kinds: str) -> dict[str, list[str]]:
        nodes = [Node(f"{kind}:{i}", f"{kind} (NHWC, F32)", 1.0) for i, kind in enumerate(kinds)]
        found = assigned(graph, nodes)
        return {
            name: [node.kind.removesuffix(" (NHWC, F32)") for node in of]
            for name, of in found.items()
        }

    def test_what_has_no_operator_was_joined(self) -> None:
        found = self.kinds(residual(), "Convolution", "Convolution", "Add", "Clamp", "Convolution")
        assert list(found) == ["conv1", "conv2", "add1", "relu2", "conv3"]

    def test_one_operation_may_be_several_operators(self) -> None:
        b = GraphBuilder("norms")
        x = b.linear(b.input("x", (1, 4, 8)), 8)
        graph = b.build(b.linear(b.layer_norm(b.add(x, x)), 8))
        norm = ["Mean", "Subtract", "Mean Squared", "Add", "Reciprocal Square Root"]
        norm += ["Multiply", "Multiply", "Add"]
        dense = "Fully Connected"
        found = self.kinds(graph, dense, "Add", *norm, "Static Reshape", dense)
        assert found["add1"] == ["Add"]
        assert found["layer_norm1"][: len(norm)] == norm
        assert [kind for kind in found["linear2"] if kind == dense] == [dense]

    @settings(max_examples=40, deadline=None)
    @given(st.sampled_from(sorted(FAMILIES)), st.integers(0, 10_000), st.data())
    def test_each_product_has_its_operator(
        self, family: str, seed: int, data: st.DataObject
    ) -> None:
        """Whatever else has operators, or is joined."""
        graph = random_network(family, seed)
        kinds, owners = [], []
        for op in graph.ops:
            parts = _PARTS.get(op.kind)
            if parts and (graph.macs_of(op) or data.draw(st.booleans())):
                kinds.append(parts[0])
                owners.append(op)
        nodes = [Node(str(i), f"{kind} (NC)", 1.0) for i, kind in enumerate(kinds)]
        found = assigned(graph, nodes)
        assert sorted(n.name for of in found.values() for n in of) == sorted(n.name for n in nodes)
        for op, node in zip(owners, nodes, strict=True):
            if graph.macs_of(op):
                assert node in found[op.name]

    def test_rules_come_of_them(self) -> None:
        kinds = ("Convolution", "Convolution", "Add", "Clamp", "Convolution", "TanH")
        nodes = tuple(Node(f"{k}:{i}", f"{k} (NHWC)", 1.0) for i, k in enumerate(kinds))
        rules = learn_rules([Case(residual(), nodes)])
        assert rules.joins(("conv",), "relu")
        assert not rules.joins(("conv",), "add")
        assert not rules.joins(("add",), "relu")
        assert not rules.layouts


FAMILY = np.array(["one", "two", "three"] * 100)


def kernels_of(n: int, rng: np.random.Generator) -> np.ndarray:
    """Sizes (n, F) of convolutions."""
    sizes = np.ones((n, len(FEATURES)))
    deep, wide, rows = (np.exp(rng.uniform(np.log(8), np.log(512), n)).round() for _ in range(3))
    columns = {
        "macs": 9 * deep * wide * rows,
        "read": 4 * deep * rows,
        "written": 4 * wide * rows,
        "weights": 36 * deep * wide,
        "deep": deep,
        "wide": wide,
        "rows": rows,
    }
    for name, column in columns.items():
        sizes[:, FEATURES.index(name)] = column
    return sizes


def time_of(sizes: np.ndarray) -> np.ndarray:
    """A machine that works at half its rate on narrow convolutions."""
    wide = sizes[:, FEATURES.index("wide")]
    slow: np.ndarray = 2000 + sizes[:, 0] / 50 * (1 + 32 / wide) + sizes[:, 3] / 20
    return slow


@pytest.fixture(scope="module")
def fitted() -> tuple[KindModel, KindData]:
    rng = np.random.default_rng(0)
    sizes = kernels_of(150, rng)
    data = KindData(sizes, time_of(sizes) * rng.lognormal(0, 0.02, 150), FAMILY[:150])
    return fit_kind(data, rng), data


class TestKindModel:
    def test_learns_what_no_roofline_holds(self, fitted: tuple[KindModel, KindData]) -> None:
        sizes = kernels_of(200, np.random.default_rng(1))
        ns, sd = fitted[0].predict(sizes)
        error = np.abs(np.log(ns / time_of(sizes)))
        assert np.median(error) < 0.03
        assert np.mean(error < 2 * sd) > 0.8

    def test_far_away_it_is_a_roofline_and_says_so(
        self, fitted: tuple[KindModel, KindData]
    ) -> None:
        model = fitted[0]
        near, far = kernels_of(1, np.random.default_rng(1)), kernels_of(1, np.random.default_rng(1))
        far[:, :] = 1e9
        (_, (sd_near,)), ((ns,), (sd_far,)) = model.predict(near), model.predict(far)
        assert sd_far > 2 * sd_near
        assert ns == pytest.approx(1e9 * model.line[1:].sum() + 1e9 * model.line[2], rel=0.5)

    def test_comes_back_from_its_state(self, fitted: tuple[KindModel, KindData]) -> None:
        model, data = fitted
        again, rest = KindModel.restore(np.concatenate([model.state(), [7.0]]))
        assert [*rest] == [7.0]
        for before, after in zip(model.predict(data.sizes), again.predict(data.sizes), strict=True):
            assert np.array_equal(before, after)

    @settings(max_examples=30, deadline=None)
    @given(st.lists(st.floats(-1e3, 1e3), max_size=40))
    def test_no_other_numbers_are_a_state(self, numbers: list[float]) -> None:
        with pytest.raises(ValueError, match="a kind of kernels"):
            KindModel.restore(np.array(numbers, float))

    def test_the_many_of_a_microsecond_do_not_say_what_the_largest_take(self) -> None:
        """A thousand that are done from a cache, and forty from memory, which takes four times."""
        rng = np.random.default_rng(8)
        sizes = np.ones((1040, len(FEATURES)))
        sizes[:, 3] = np.exp(rng.uniform(np.log(1e3), np.log(2e4), 1040))  # bytes of weights
        sizes[1000:, 3] *= 1e4
        ns = 800 + sizes[:, 3] * np.where(sizes[:, 3] > 1e6, 0.04, 0.01)
        data = KindData(sizes, ns * rng.lognormal(0, 0.2, 1040), np.array(["one"] * 1040))
        ten_times = sizes[-1:].copy()
        ten_times[:, 3] = 2e9
        (found,) = average(data).mean(ten_times)
        assert found == pytest.approx(2e9 * 0.04, rel=0.15)

    @pytest.mark.parametrize("n", [1, 2, 5])
    def test_few_kernels_give_a_wide_answer(self, n: int) -> None:
        rng = np.random.default_rng(0)
        sizes = kernels_of(n, rng)
        model = fit_kind(KindData(sizes, time_of(sizes), FAMILY[: len(sizes)]), rng)
        ns, sd = model.predict(sizes)
        assert (ns > 0).all()
        assert (sd > 0).all()

    def test_the_same_data_give_the_same_model(self) -> None:
        sizes = kernels_of(60, np.random.default_rng(3))
        data = KindData(sizes, time_of(sizes), FAMILY[: len(sizes)])
        one, other = (fit_kind(data, np.random.default_rng(0)).state() for _ in range(2))
        assert np.array_equal(one, other)

    def test_what_no_profiler_resolves_is_told_less_surely(self) -> None:
        rng = np.random.default_rng(5)
        sizes = kernels_of(150, rng)
        sizes[:75] /= 1e4
        ns = np.maximum(sizes[:, 0] / 50 + rng.normal(0, 300, 150), 50)  # of a clock's tick
        model = fit_kind(KindData(sizes, ns, FAMILY[:150]), rng)
        found, sd = model.predict(sizes)
        assert (found >= 50).all()
        assert np.median(sd[:75]) > 3 * np.median(sd[75:])
        error = np.abs(np.log(found[75:] / (sizes[75:, 0] / 50)))
        assert np.median(error) < 0.05


class TestStrange:
    """Three variants of a kind take half as long again: so will the fourth, give or take."""

    sizes = kernels_of(60, np.random.default_rng(6))

    def kinds(self, **factors: float) -> tuple[dict[str, KindModel], dict[str, KindData]]:
        data = {
            kind.replace("_", " "): KindData(self.sizes, factor * time_of(self.sizes), FAMILY[:60])
            for kind, factor in factors.items()
        }
        kinds = {kind: average(measured) for kind, measured in data.items()}
        return kinds | {UNKNOWN: kinds["conv"]}, data

    def test_a_kind_never_timed_takes_what_kinds_take_beside_their_next_of_kin(self) -> None:
        kin, _ = strangeness_of(*self.kinds(conv=1.0, conv_a=1.5, conv_b=1.5, conv_c=1.4))
        assert kin.longer == pytest.approx(np.log(1.5), abs=0.1)
        assert kin.unsure == pytest.approx(0.3)  # the least

    def test_kinds_without_kin_say_so_of_their_like(self) -> None:
        kinds, data = self.kinds(conv=1.0, conv_a=1.1, pool=4.0, pad=8.0, lrn=16.0)
        kin, none = strangeness_of(kinds, data)
        assert kin.longer == pytest.approx(np.log(1.1), abs=0.05)
        assert none.longer == pytest.approx(np.log(6), abs=0.2)  # of 1, 4, 8 and 16
        assert none.unsure > 3 * kin.unsure

    def test_what_no_profiler_resolves_says_nothing_of_kinds(self) -> None:
        kinds, data = self.kinds(conv=1.0, conv_a=1.5, conv_b=1e-4)
        assert (data["conv b"].ns < 2000).all()
        assert strangeness_of(kinds, data)[0].longer == pytest.approx(np.log(1.5), abs=0.05)

    def test_the_scale_is_that_of_factors(self) -> None:
        kinds, _ = self.kinds(conv=1.0)
        kernel = Kernel("x", "conv d", ("x",), tuple(self.sizes[0]))
        strange = (Strange(0.5, 1.0), Strange(9.0, 9.0))
        (known,), (sd,) = kernel_times(kinds, [replace(kernel, kind="conv")], strange)
        (longer,), (wider,) = kernel_times(kinds, [kernel], strange)
        assert longer == pytest.approx(known * np.exp(0.5))
        ends = np.exp(1.645 * np.hypot(sd, 1.0))  # of factors, in a large kernel
        assert 1 + 1.645 * wider == pytest.approx(ends, rel=0.1)


class TestMoment:
    """A profile is of another moment than the latency, and its instrument is known badly."""

    @settings(deadline=None)
    @given(
        st.lists(st.floats(50, 1e7), min_size=1, max_size=40),
        st.floats(0.5, 2.0),
    )
    def test_the_operators_make_the_latency(self, own: list[float], off: float) -> None:
        times = np.array(own)
        factor, beside = moment_of(times, off * times.sum())
        assert (times * factor + beside).sum() == pytest.approx(off * times.sum())

    def test_short_ones_are_timed_amiss_and_long_ones_moved(self) -> None:
        factor, beside = moment_of(np.full(100, 1e3), 1.5e5)
        assert factor == pytest.approx(1, abs=0.01)
        assert beside == pytest.approx(500, rel=0.05)
        factor, beside = moment_of(np.full(100, 1e6), 1.1e8)
        assert factor == pytest.approx(1.1, abs=0.001)
        assert abs(beside) < 100


@settings(deadline=None, max_examples=25)
@given(st.floats(0, 5000), st.floats(0, 20_000), st.integers(0, 100))
def test_what_the_instrument_adds_and_what_a_call_takes(
    added: float, call: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    samples = []
    for i in range(40):
        own = np.exp(rng.uniform(np.log(200), np.log(2e5), int(rng.integers(5, 120))))
        nodes = tuple(Node(str(j), "Conv", ns + added) for j, ns in enumerate(own))
        samples.append(NetworkSample("plain", i, "x", own.sum() + call, 0.01, nodes))
    assert instrument_of(samples) == pytest.approx((added, call), abs=1.0)


def test_each_family_counts_alike_in_the_calibration() -> None:
    """A hundred networks that are well predicted don't narrow the interval of another family."""
    families = np.array(["many"] * 100 + ["few"] * 10)
    errors = np.concatenate([np.linspace(-1, 1, 100), np.linspace(-4, 4, 10)])
    held_out = Prediction(np.full(110, 5.0), np.ones(110))
    found = calibration_of(5.0 + errors, held_out, families)
    assert np.sum(np.abs(found.errors) > 1) == pytest.approx(len(found.errors) * 0.4, abs=1)
    assert found.errors.min() == pytest.approx(-4)
    assert found.quantile(0.9) > 2


def test_kernels_of_no_kind_are_timed_without_the_family_that_is_left_out() -> None:
    unknown = []
    for factor in (1.0, 30.0):
        networks = []
        for family in ("plain", "mobile", "residual"):
            kernels = tuple(split(random_network(family, 2), FUSING))
            ns = np.array([1000 + kernel.size("macs") / 50 for kernel in kernels])
            ns *= factor if family == "plain" else 1.0
            networks.append(Profiled(family, float(ns.sum()), 0.01, kernels, ns))
        training = Training(FUSING, tuple(networks), 0.0, 0.0)
        models = fit_models(training, np.random.default_rng(0))
        unknown.append(without_family(models, training, "plain").kinds[UNKNOWN].state())
    assert np.array_equal(*unknown)


def test_what_a_family_left_out_tells_nothing_of_is_learned_as_it_was() -> None:
    networks = []
    for family in ("plain", "mobile", "residual"):
        kernels = tuple(split(random_network(family, 2), FUSING))
        ns = np.array([1000 + kernel.size("macs") / 50 for kernel in kernels])
        networks.append(Profiled(family, float(ns.sum()), 0.01, kernels, ns))
    training = Training(FUSING, tuple(networks), 0.0, 0.0)
    models = fit_models(training, np.random.default_rng(0))
    rest = without_family(models, training, "plain").kinds
    timed = {k: data[data.families != "plain"] for k, data in training.timed.items()}
    assert {*rest} == {UNKNOWN, *(kind for kind, data in timed.items() if len(data.ns))}
    for kind in {*rest} - {UNKNOWN}:
        learned = models.kinds[kind].learned(timed[kind])
        assert np.array_equal(rest[kind].state(), learned.state())


class TestNetworks:
    @settings(max_examples=20, deadline=None)
    @given(st.sampled_from(sorted(FAMILIES)), st.integers(0, 10_000))
    def test_the_same_seed_gives_the_same_network(self, family: str, seed: int) -> None:
        graph = random_network(family, seed)
        assert graph.hash == random_network(family, seed).hash
        assert 0 < graph.macs <= MOST_MACS

    def test_every_third_is_small(self) -> None:
        costs = [random_network("mobile", seed).macs for seed in range(30)]
        small, usual = costs[2::3], [cost for i, cost in enumerate(costs) if i % 3 != 2]
        assert np.median(small) < np.median(usual) / 4

    def test_every_ninth_is_large(self) -> None:
        costs = [random_network("plain", seed).macs for seed in range(27)]
        large, usual = costs[1::9], [cost for i, cost in enumerate(costs) if i % 9 != 1]
        assert min(large) > np.median(usual) * 4
        assert max(large) > MOST_MACS / 4

    def test_an_unknown_family_is_refused(self) -> None:
        with pytest.raises(UnknownNameError, match="did you mean 'residual'"):
            random_network("residul", 0)


def test_the_slope_of_the_evidence_is_its_slope() -> None:
    from scipy.optimize import check_grad

    from hwbench.predictors.kernels.scales import _evidence

    rng = np.random.default_rng(0)
    inputs, known = rng.normal(size=(30, 3)), rng.uniform(0.001, 0.01, 30)
    target = np.sin(inputs[:, 0]) + 0.1 * rng.normal(size=30)
    theta = np.log([1.5, 3.0, 8.0, 0.7, 0.1])
    off = check_grad(
        lambda t: _evidence(t, inputs, target, known)[0],
        lambda t: _evidence(t, inputs, target, known)[1],
        theta,
    )
    assert off < 1e-4 * np.linalg.norm(_evidence(theta, inputs, target, known)[1])
