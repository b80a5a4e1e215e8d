"""A user's module becomes a graph that answers alike, or is refused by the layer's name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from hwbench.errors import GraphError, UsageError
from hwbench.lower import to_torch
from hwbench.search.s2dnas import SplitSpace, StaticNet, trace
from hwbench.search.s2dnas.ties import CLASSES, IMAGE, find_ties
from tests.graphs import relative_error
from tests.s2dnas_nets import CLASSES as COUNT
from tests.s2dnas_nets import IMAGE as SHAPE
from tests.s2dnas_nets import NETS, ResNet, settled


@pytest.fixture(scope="module")
def nets() -> dict[str, tuple[nn.Module, StaticNet]]:
    modules = {name: settled(make()) for name, make in NETS.items()}
    return {name: (module, trace(module, SHAPE)) for name, module in modules.items()}


def images(n: int, shape: tuple[int, ...] = SHAPE, seed: int = 1) -> Tensor:
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def errors(module: nn.Module, net: StaticNet, x: Tensor) -> list[float]:
    wanted = module(x).numpy()
    folded = net.folded()
    return [
        relative_error(to_torch(graph, weights)(x).numpy(), wanted)
        for graph, weights in ((net.graph, net.weights), (folded.graph, folded.weights))
    ]


@pytest.mark.parametrize("name", NETS)
def test_a_traced_net_answers_as_the_module_does(name, nets) -> None:
    module, net = nets[name]
    assert max(errors(module, net, images(7))) <= 1e-5
    assert (net.image_shape, net.classes) == (SHAPE, COUNT)


@pytest.mark.parametrize("name", NETS)
def test_batch_norms_stay_until_they_are_folded(name, nets) -> None:
    module, net = nets[name]
    norms = sum(isinstance(m, nn.BatchNorm2d) for m in module.modules())
    assert [op.kind for op in net.graph.ops].count("batch_norm") == norms
    folded = net.folded().graph
    assert "batch_norm" not in {op.kind for op in folded.ops}
    assert folded.macs == net.graph.macs
    assert len(folded.ops) == len(net.graph.ops) - norms


def test_layers_bear_the_modules_names_and_hold_copies(nets) -> None:
    module, net = nets["resnet-b"]
    weight = module.layer2[0].short[0].weight
    name = "layer2.0.short.0.weight"
    assert np.array_equal(net.weights[name], weight.detach().numpy())
    assert not np.shares_memory(net.weights[name], weight.detach().numpy())


def test_a_module_in_training_stays_so_and_is_traced_as_at_inference() -> None:
    module = settled(NETS["plain"]()).train()
    net = trace(module, SHAPE)
    assert module.training
    assert module[5].training
    assert max(errors(module.eval(), net, images(3))) <= 1e-5


class NormFirst(nn.Module):
    """Batch norms before the convolutions, one on the image, and what else need not be folded."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.first = nn.Conv2d(3, 8, 3, padding="same", bias=False)
        self.inner = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 8, 1)
        self.pool = nn.AdaptiveMaxPool2d(1)
        self.last = nn.Linear(8, COUNT)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(self.norm(x))
        y = functional.relu6(self.inner(x))
        x = x + self.second(functional.avg_pool2d(y, 3, 1, 1))
        x = self.pool(functional.gelu(functional.leaky_relu(x, 0.2)))
        return self.last(x.squeeze(-1).squeeze(-1))


def test_norms_that_follow_no_convolution_stay_in_the_graph() -> None:
    module = settled(NormFirst())
    net = trace(module, SHAPE)
    assert max(errors(module, net, images(4))) <= 1e-5
    assert [op.name for op in net.folded().graph.ops if op.kind == "batch_norm"] == [
        "norm",
        "inner",
    ]


def test_the_trained_resnet20_is_traced(shared_data: Path) -> None:
    module = ResNet("A", (16, 32, 64), blocks=3, classes=10)
    with np.load(shared_data / "tasks" / "cifar10_resnet20.npz", allow_pickle=False) as file:
        state = {name: torch.from_numpy(file[name]) for name in file.files}
    missing, unexpected = module.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(name.endswith("num_batches_tracked") for name in missing)
    net = trace(module.eval(), (3, 32, 32))
    assert max(errors(module, net, images(2, (3, 32, 32)))) <= 1e-5
    assert net.graph.macs == 40_550_400 + 64 * 10
    assert [tie.name for tie in find_ties(net, 8).ties] == ["conv1"] + [
        f"layer{i}.{j}.conv1" for i in (1, 2, 3) for j in range(3)
    ]
    SplitSpace(net, stages=3, groups=16)


# --- ties ------------------------------------------------------------------------------------


def test_what_a_skip_path_adds_is_split_alike(nets) -> None:
    one_path = ["conv1", "layer1.0.conv1", "layer2.0.conv1", "layer3.0.conv1"]
    three_paths = sorted([*one_path, "layer2.0.conv2", "layer3.0.conv2"])
    for name, wanted in {"resnet-a": one_path, "resnet-b": three_paths}.items():
        net = nets[name][1]
        ties = find_ties(net, 4)
        assert [tie.name for tie in ties.ties] == wanted
        for op in net.graph.ops:
            if op.kind == "add":
                of = [ties.group_of[tensor] for tensor in (*op.inputs, op.output)]
                assert all(np.array_equal(of[0], other) for other in of)


def test_a_depthwise_convolution_follows_its_expansion(nets) -> None:
    net = nets["mobilenet"][1]
    ties = find_ties(net, 8)
    block = "features.4.conv"
    assert ties.tie_of[f"{block}.0"] == ties.tie_of[f"{block}.3"] != ties.tie_of[f"{block}.6"]
    assert ties.readers[f"{block}.6"] == ties.tie_of[f"{block}.3"]
    assert f"{block}.3" not in ties.readers
    assert ties.tie_of["image"] == IMAGE
    assert ties.tie_of[net.output] == CLASSES


def test_groups_differ_by_one_channel_at_most_and_lie_in_order(nets) -> None:
    net = nets["plain"][1]
    ties = find_ties(net, 4)
    assert ties.group_of["3"].tolist() == [0, 0, 0, 1, 1, 2, 2, 2, 3, 3]
    # A flattened channel keeps its pixels together.
    assert np.array_equal(ties.group_of["flatten"], np.repeat(ties.group_of["3"], 4))


def test_padded_channels_are_shared_out_to_all_groups(nets) -> None:
    net = nets["resnet-a"][1]
    ties = find_ties(net, 4)
    narrow, wide = ties.group_of["conv1"], ties.group_of["layer3.0.bn2"]
    assert np.array_equal(wide[4:12], narrow)  # 8 -> 12 -> 16, two before and two behind each time
    assert np.bincount(wide).tolist() == [4, 4, 4, 4]
    assert find_ties(net, 100).ties[0].groups == 8


# --- refusals --------------------------------------------------------------------------------


class Two(nn.Module):
    """Two convolutions, and between them what a test puts there."""

    def __init__(self, between) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, COUNT)
        self.inner = nn.Conv2d(8, 8, 3, padding=1)
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.bare = nn.BatchNorm2d(8, track_running_stats=False)
        self.table = nn.Parameter(torch.ones(1, 8, 1, 1))
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        x = self.between(self, self.first(x))
        return self.last(x.mean([2, 3]))


def branch(m: Two, x: Tensor) -> Tensor:
    return m.inner(x) if x.mean() > 0 else x


REFUSED = {
    "control flow": (branch, r"Two cannot be traced: .*\(in branch, line \d+\).*control flow"),
    "a shared module": (lambda m, x: m.inner(m.inner(x)), "layer 'inner' a second time"),
    "groups": (lambda m, x: m.grouped(x), r"layer 'grouped', .*aten.conv2d.default\) has 2 groups"),
    "norm": (lambda m, x: m.bare(x), r"layer 'bare', .*track_running_stats=True"),
    "gate": (lambda m, x: x * torch.sigmoid(x.mean((2, 3), keepdim=True)), r"aten\.mul\.Tensor"),
    "table": (lambda m, x: x + m.table, "computed from no image"),
    "row": (lambda m, x: x + x[:, :, :1], "not channel to channel"),
    "channels": (lambda m, x: x[:, :4].repeat(1, 2, 1, 1), "only pixels can be skipped"),
    "up": (lambda m, x: functional.max_pool2d(x, 5, 2, ceil_mode=True), "ceil_mode=False"),
    "twice": (
        lambda m, x: functional.conv2d(m.inner(x), m.inner.weight, padding=1),
        "layer 'inner' a second time",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_transformed_is_refused_by_name(what: str, capfd) -> None:
    between, match = REFUSED[what]
    with pytest.raises(GraphError, match=match) as refusal:
        trace(settled(Two(between)), SHAPE)
    assert "\n" not in str(refusal.value)
    assert capfd.readouterr() == ("", "")  # torch has much to say


def test_two_names_of_one_weight_are_one_layer_used_twice() -> None:
    module = nn.Sequential(*NETS["plain"](), nn.ReLU(), nn.Linear(COUNT, COUNT))
    module.append(nn.Linear(COUNT, COUNT))
    module[-1].weight = module[-2].weight
    with pytest.raises(GraphError, match=r"second time|shares its weights with"):
        trace(settled(module), SHAPE)


def test_writing_in_place_into_what_is_read_again_is_followed() -> None:
    def between(m: Two, x: Tensor) -> Tensor:
        y = m.inner(functional.relu_(x))
        return x + y  # x is the rectified one here

    module = settled(Two(between))
    assert max(errors(module, trace(module, SHAPE), images(3))) <= 1e-5


def test_writing_in_place_through_a_view_is_noticed() -> None:
    def between(m: Two, x: Tensor) -> Tensor:
        functional.relu_(x[:, :, ::2, ::2])
        return m.inner(x)

    with pytest.raises(GraphError, match="in place"):
        trace(settled(Two(between)), SHAPE)


@pytest.mark.parametrize(
    ("module", "match"),
    [
        (nn.Conv2d(3, 4, 3), r"gives \(2, 4, 10, 10\) for 2 images"),
        (nn.Sequential(nn.Flatten(), nn.Linear(3, 2)), "does not run on images of shape"),
        (nn.Sequential(NETS["plain"](), nn.Softmax(dim=1)), r"aten\.softmax"),
        (nn.Sequential(NETS["plain"]()).double(), "does not run on"),
    ],
)
def test_modules_that_are_no_classifier_of_such_images_are_refused(module, match: str) -> None:
    with pytest.raises(GraphError, match=match):
        trace(settled(module), SHAPE)


def test_a_shape_is_three_numbers() -> None:
    with pytest.raises(UsageError, match="channels, height, width"):
        trace(NETS["plain"](), (12, 12))


def test_ties_that_cannot_be_cut_are_refused_by_name(nets) -> None:
    class Adds(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.same, self.last = nn.Conv2d(3, 3, 3, padding=1), nn.Linear(3, COUNT)

        def forward(self, x: Tensor) -> Tensor:
            return self.last((x + self.same(x)).mean([2, 3]))

    with pytest.raises(GraphError, match="'same' is added to the image"):
        find_ties(trace(settled(Adds()), SHAPE), 4)
    pooled = (nn.AdaptiveAvgPool2d(1), nn.Flatten())
    for layers in (pooled, (*pooled, nn.Linear(3, COUNT))):
        with pytest.raises(GraphError, match="nothing to cut"):
            find_ties(trace(settled(nn.Sequential(*layers)), SHAPE), 4)
    with pytest.raises(UsageError, match="'conv1' has 8 groups of channels for 9 stages"):
        SplitSpace(nets["resnet-b"][1], stages=9, groups=16)
    with pytest.raises(UsageError, match="'conv1' has 2 groups of channels for 3 stages"):
        SplitSpace(nets["resnet-b"][1], stages=3, groups=2)
