"""A split net: one stage is the static net, and no stage knows of a later one."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from hwbench.errors import GraphError, UsageError
from hwbench.lower import to_torch
from hwbench.search.moves import mutated
from hwbench.search.pnag.policy import Walk
from hwbench.search.s2dnas import MultiStageNet, SplitSpace, Stage, StaticNet, prefix, trace
from hwbench.search.s2dnas.ties import CLASSES
from hwbench.testing.spaces import check_space
from tests.graphs import relative_error
from tests.s2dnas_nets import CLASSES as COUNT
from tests.s2dnas_nets import IMAGE as SHAPE
from tests.s2dnas_nets import NETS, Inverted, ResNet, settled

pytestmark = pytest.mark.usefixtures("one_torch_thread")


@cache
def static(name: str) -> tuple[nn.Module, StaticNet]:
    module = settled(NETS[name]())
    return module, trace(module, SHAPE)


@cache
def space_of(name: str, stages: int, groups: int, reuse: str = "layer") -> SplitSpace:
    return SplitSpace(static(name)[1], stages=stages, groups=groups, reuse=reuse)


def images(n: int, seed: int = 1) -> Tensor:
    return torch.randn(n, *SHAPE, generator=torch.Generator().manual_seed(seed))


def net_of(space: SplitSpace, seed: int) -> MultiStageNet:
    """At inference, its weights moved off those that it inherits."""
    net = MultiStageNet(space, space.sample(1, np.random.default_rng(seed))[0])
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in net.state_dict().values():
            value.mul_(1 + 0.2 * torch.rand(value.shape, generator=generator))
    return net.eval()


def run(stage: Stage, live: dict[str, Tensor]) -> None:
    inputs = [live[name] for name, _ in stage.net.graph.inputs]
    found = to_torch(stage.net.graph, stage.net.weights)(*inputs)
    live |= dict(zip(stage.net.graph.outputs, found, strict=True))


@torch.no_grad()
def composed(stages: tuple[Stage, ...], x: Tensor) -> list[Tensor]:
    """Logits of all stages, each from the image and what earlier stages gave."""
    live: dict[str, Tensor] = {"image": x}
    logits = []
    for stage in stages:
        run(stage, live)
        logits.append(live[stage.logits])
    return logits


splits = st.tuples(
    st.sampled_from(sorted(NETS)),
    st.integers(1, 4),
    st.sampled_from([4, 8]),
    st.sampled_from(["layer", "tie"]),
)


@pytest.mark.parametrize("name", NETS)
@torch.no_grad()
def test_with_one_stage_it_is_the_static_net(name: str) -> None:
    module, _ = static(name)
    space = space_of(name, 1, 8)
    (code,) = space.all_codes()
    net, x = MultiStageNet(space, code).eval(), images(6)
    wanted = module(x).numpy()
    assert relative_error(net(x)[0].numpy(), wanted) <= 1e-5
    (stage,) = net.stages()
    assert relative_error(composed((stage,), x)[0].numpy(), wanted) <= 1e-5
    assert stage.takes == stage.gives == ()


@given(splits, st.integers(0, 2**20))
@settings(max_examples=30)
@torch.no_grad()
def test_stages_put_together_are_the_net(split, seed: int) -> None:
    net, x = net_of(space_of(*split), seed), images(3)
    wanted, stages = net(x), net.stages()
    for got, stage, whole in zip(composed(stages, x), stages, wanted, strict=True):
        assert relative_error(got.numpy(), whole.numpy()) <= 1e-4
        joined = prefix(net.split, net.weights(), stage.number)
        live = {"image": x}
        run(joined, live)
        assert relative_error(live[joined.logits].numpy(), whole.numpy()) <= 1e-4
        confidence = whole.softmax(1).amax(1)
        assert relative_error(live[joined.confidence].numpy(), confidence.numpy()) <= 1e-4


@given(splits, st.integers(0, 2**20))
@settings(max_examples=30)
@torch.no_grad()
def test_earlier_answers_do_not_move_when_later_stages_change(split, seed: int) -> None:
    space = space_of(*split)
    net, x = net_of(space, seed), images(3)
    before, gave = net(x), composed(net.stages(), x)
    generator = torch.Generator().manual_seed(seed)
    for last in range(space.stages - 1):
        for op, layer in zip(space.net.graph.ops, net.layers, strict=True):
            later = torch.from_numpy(net.split.stage_of(op.output) > last)
            for param in space.net.graph.params(op):
                value = layer.value(param)
                noise = torch.rand(value.shape, generator=generator) + 0.5
                value[later] = noise[later]
        after, gives = net(x), composed(net.stages(), x)
        for stage in range(space.stages):
            moved = not torch.equal(after[stage], before[stage])
            assert moved == (stage > last)
            assert torch.equal(gives[stage], gave[stage]) == (stage <= last)
        net = net_of(space, seed)


@given(splits, st.integers(0, 2**20))
@settings(max_examples=30)
def test_a_stage_reads_what_its_bits_say_of_earlier_ones(split, seed: int) -> None:
    space = space_of(*split)
    code = space.sample(1, np.random.default_rng(seed))[0]
    choice = space.choice(code)
    net = MultiStageNet(space, code)
    stages = net.stages()
    there: set[str] = set()
    for stage in stages:
        assert set(stage.takes) <= there
        there |= set(stage.gives)
    taken = {name for stage in stages for name in stage.takes}
    assert taken == there  # nothing is kept that nobody reads
    wanted = set()
    for layer, number in space.ties.readers.items():
        name = layer if split[3] == "layer" else space.ties.ties[number].name
        (op,) = (op for op in space.net.graph.ops if op.name == layer)
        for j in range(space.stages):
            wanted |= {
                f"s{i + 1}.{op.inputs[0]}" for i in range(j) if choice[f"{name}:{j + 1}<{i + 1}"]
            }
    assert taken == wanted


@given(splits, st.integers(0, 2**20))
@settings(max_examples=20)
def test_each_channel_is_in_one_stage_and_cuts_are_contiguous_groups(split, seed: int) -> None:
    space = space_of(*split)
    plan = space.split(space.sample(1, np.random.default_rng(seed))[0])
    for tensor, tie in space.ties.tie_of.items():
        if tie < 0:
            continue
        of, groups = plan.stage_of(tensor), space.ties.group_of[tensor]
        assert set(of.tolist()) == set(range(space.stages))
        assert (np.diff(of[np.argsort(groups, kind="stable")]) >= 0).all()
        bounds = np.cumsum(plan.cuts[tie])
        assert all(of[groups < bounds[j]].max() <= j for j in range(space.stages))


class Random(nn.Module):
    """Convolutions, residual and inverted blocks of random widths, in random order."""

    def __init__(self, widths: list[int], kinds: list[str]) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, widths[0], 3, padding=1), nn.ReLU()]
        before = widths[0]
        for width, kind in zip(widths[1:], kinds, strict=False):
            if kind == "conv":
                layers += [nn.Conv2d(before, width, 3, padding=1), nn.BatchNorm2d(width)]
            elif kind == "pool":
                layers += [nn.AvgPool2d(3, 1, 1, count_include_pad=False)]
                width = before  # noqa: PLW2901
            elif kind == "same":
                layers += [Inverted(before, before, 1, 2)]
                width = before  # noqa: PLW2901
            else:
                layers += [Inverted(before, width, 2, 2)]
            before = width
        self.layers = nn.Sequential(*layers)
        self.last = nn.Linear(before, COUNT)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.layers(x).mean([2, 3]))


@given(
    st.lists(st.integers(4, 11), min_size=4, max_size=4),
    st.lists(st.sampled_from(["conv", "pool", "same", "down"]), min_size=3, max_size=3),
    st.integers(2, 4),
    st.integers(0, 2**20),
)
@settings(max_examples=12)
@torch.no_grad()
def test_random_nets_split_at_random_keep_all_of_this(widths, kinds, stages, seed: int) -> None:
    module, x = settled(Random(widths, kinds), seed), images(2)
    static_net = trace(module, SHAPE)
    net = net_of(SplitSpace(static_net, stages=stages, groups=8), seed)
    wanted = net(x)
    for got, whole in zip(composed(net.stages(), x), wanted, strict=True):
        assert relative_error(got.numpy(), whole.numpy()) <= 1e-4
    for op, layer in zip(static_net.graph.ops, net.layers, strict=True):
        last = torch.from_numpy(net.split.stage_of(op.output) == stages - 1)
        for param in static_net.graph.params(op):
            layer.value(param)[last] += 1
    after = net(x)
    assert torch.equal(after[:-1], wanted[:-1])
    assert not torch.equal(after[-1], wanted[-1])


# --- weights and training --------------------------------------------------------------------


def test_weights_are_inherited_and_classifiers_begin_as_the_static_one() -> None:
    _, static_net = static("resnet-a")
    space = space_of("resnet-a", 3, 8)
    net = MultiStageNet(space, space.sample(1, np.random.default_rng(0))[0])
    for name, array in net.weights().items():
        of_static = static_net.weights[name]
        copies = len(array) // len(of_static)
        assert copies == (3 if name.startswith("linear.") else 1)
        assert np.array_equal(array, np.concatenate([of_static] * copies))


def test_each_stage_learns_from_its_own_loss_and_earlier_ones_from_later_losses() -> None:
    space = space_of("mobilenet", 3, 4)
    code = np.array([c - 1 if c == 2 else 0 for c in space.cardinalities], np.int16)  # reads all
    net = MultiStageNet(space, code).train()
    x, labels = images(8), torch.arange(8) % COUNT
    before = net.weights()
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1)
    logits = net(x)
    assert logits.shape == (3, 8, COUNT)
    nn.functional.cross_entropy(logits[1], labels).backward()
    optimiser.step()
    after = net.weights()
    for op in space.net.graph.ops:
        for param in space.net.graph.params(op):
            moved = before[f"{op.name}.{param}"] != after[f"{op.name}.{param}"]
            of = net.split.stage_of(op.output)
            if param in ("mean", "var"):
                assert moved.all()  # of every stage: all ran
            else:
                assert moved[of == 1].any() or param == "bias"
                assert not moved[of == 2].any()
            if space.ties.tie_of[op.output] != CLASSES and param == "weight":
                assert moved[of == 0].any()


def test_the_split_of_a_net_can_be_changed_and_changes_nothing_else() -> None:
    space, x = space_of("vgg", 3, 8), images(3)
    first, second = space.sample(2, np.random.default_rng(3))
    net = MultiStageNet(space, first).eval()
    with torch.no_grad():
        before = net(x)
        weights = net.weights()
        net.use(second)
        assert not torch.equal(net(x), before)
        assert all(np.array_equal(weights[name], now) for name, now in net.weights().items())
        net.use(first)
        assert torch.equal(net(x), before)


# --- the space -------------------------------------------------------------------------------


@pytest.mark.parametrize("reuse", ["layer", "tie", "all"])
def test_it_is_a_space_as_all_others_are(reuse: str) -> None:
    check_space(space_of("vgg", 3, 4, reuse), n=6)


def test_every_code_is_a_network_and_searches_move_about_in_it() -> None:
    space = space_of("resnet-a", 3, 8)
    rng = np.random.default_rng(0)
    high = np.asarray(space.cardinalities)
    codes = rng.integers(0, high, (64, len(high)), dtype=np.int16)
    assert space.valid(codes).all()
    assert np.array_equal(space.canonical(codes), codes)
    assert ((mutated(space, codes, rng) != codes).sum(axis=1) == 1).all()
    assert len(Walk(space).counts) == len(high)
    graph = space.graph(codes[0])
    net = MultiStageNet(space, codes[0])
    assert graph.hash == prefix(net.split, net.weights()).net.graph.hash
    assert graph.macs == sum(stage.net.graph.macs for stage in net.stages())


def test_codes_read_as_text() -> None:
    space = space_of("vgg", 3, 4, "tie")
    text = space.decode(np.zeros((1, len(space.decisions)), np.int16))[0]
    assert text.startswith("features.0=1+1+2 features.0:2<1=0 features.0:3<1=0 features.0:3<2=0 ")
    cuts = [d.values for d in space.decisions if d.name == "features.0"]
    assert cuts == [("1+1+2", "1+2+1", "2+1+1")]


def test_spaces_that_differ_are_called_differently() -> None:
    settings_ = ((2, 4, "layer"), (3, 4, "layer"), (2, 8, "layer"), (2, 4, "tie"))
    names = {
        SplitSpace(static(name)[1], stages=stages, groups=groups, reuse=reuse).name
        for name in ("vgg", "resnet-a", "resnet-b")
        for stages, groups, reuse in settings_
    }
    assert len(names) == 12


def test_reading_nothing_costs_less_than_reading_all() -> None:
    space = space_of("vgg", 3, 8)
    none, every = (
        np.array([c - 1 if c == 2 and bit else 0 for c in space.cardinalities], np.int16)
        for bit in (0, 1)
    )
    costs = [[s.net.graph.macs for s in MultiStageNet(space, c).stages()] for c in (none, every)]
    assert costs[0][0] == costs[1][0]
    assert costs[0][1] < costs[1][1]
    assert sum(costs[1]) < static("vgg")[1].graph.macs + 3 * 16 * COUNT


def test_without_bits_every_layer_reads_all_earlier_stages() -> None:
    bare, bits = space_of("mobilenet", 3, 4, "all"), space_of("mobilenet", 3, 4, "tie")
    assert [d.name for d in bare.decisions] == [tie.name for tie in bare.ties.ties]
    for code in bare.sample(3, np.random.default_rng(0)):
        choice = dict(zip([d.name for d in bare.decisions], code.tolist(), strict=True))
        same = np.array([choice.get(d.name, 1) for d in bits.decisions], np.int16)
        ours, theirs = bare.split(code), bits.split(same)
        assert ours.cuts == theirs.cuts
        assert all(np.array_equal(ours.reads[layer], theirs.reads[layer]) for layer in ours.reads)
        assert bare.macs(code[None]) == bits.macs(same[None])


def test_a_space_needs_stages_and_groups() -> None:
    net = static("vgg")[1]
    with pytest.raises(UsageError, match="0 stages"):
        SplitSpace(net, stages=0)
    with pytest.raises(UsageError, match="0 groups"):
        SplitSpace(net, groups=0)
    wide = trace(settled(ResNet("B", (40, 40, 40), classes=COUNT)), SHAPE)
    with pytest.raises(UsageError, match="'conv1' can be cut in more than 5000 ways"):
        SplitSpace(wide, stages=8, groups=40)
    with pytest.raises(GraphError, match="has no value '9\\+9'"):
        space_of("vgg", 2, 4).encode(["features.0=9+9"])
