"""``ofa_mbv3`` is the published space, and ``mbv3_small`` the same at a smaller size."""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np
import pytest

from hwbench.errors import GraphError, UsageError
from hwbench.graph import Graph
from hwbench.ops import Op
from hwbench.spaces import get_space
from hwbench.spaces.mbv3 import MobileNetV3Space, round_channels
from hwbench.spaces.mbv3_small import MBV3_SMALL
from hwbench.spaces.ofa_mbv3 import OFA_MBV3

SPACE = get_space("ofa_mbv3")

#: Networks released with PNAG (depths : kernels : expansions, 0 where a slot is unused), with
#: the million multiply-adds that its paper (arXiv 2210.07634) gives for them.
PNAG = {
    "cpu-30": (
        "2,2,3,3,3:5,5,0,0,5,5,0,0,7,5,7,0,3,5,5,0,7,5,5,0:3,3,0,0,4,3,0,0,4,3,3,0,6,4,4,0,6,6,6,0",
        335,
    ),
    "cpu-50": (
        "3,4,4,4,4:5,3,7,0,5,7,7,7,7,7,3,7,7,7,7,7,5,7,3,7:4,4,6,0,6,6,6,6,6,6,4,6,6,6,6,6,6,6,6,6",
        682,
    ),
    "gpu-90": (
        "2,2,3,3,4:3,3,0,0,5,3,0,0,5,5,3,0,3,7,3,0,5,3,3,7:3,3,0,0,3,4,0,0,3,3,3,0,4,3,4,0,6,6,6,3",
        310,
    ),
    "gpu-190": (
        "3,4,4,4,4:3,3,5,0,7,3,5,7,7,7,5,3,7,5,7,5,7,3,7,3:4,4,6,0,6,4,6,6,6,6,6,6,6,6,6,6,6,6,6,6",
        640,
    ),
    "mobile-80": (
        "2,3,3,3,3:3,3,0,0,3,5,3,0,3,3,5,0,3,3,5,0,5,5,7,0:3,3,0,0,4,3,3,0,4,4,4,0,4,6,6,0,6,6,3,0",
        349,
    ),
    "mobile-110": (
        "2,3,3,4,4:5,3,0,0,5,3,3,0,3,5,5,0,5,5,5,3,7,5,7,5:3,4,0,0,3,4,4,0,3,3,6,0,4,6,6,6,6,6,6,6",
        451,
    ),
    "mobile-140": (
        "2,4,4,4,4:5,3,0,0,5,5,5,3,5,5,5,5,3,5,5,5,7,5,5,5:4,3,0,0,4,4,4,6,6,3,6,3,6,6,4,6,6,6,6,3",
        492,
    ),
    "mobile-170": (
        "3,4,4,4,4:5,3,7,0,5,5,5,5,5,5,5,5,3,5,5,3,7,5,5,5:4,4,6,0,4,4,6,6,6,4,6,6,6,6,4,6,6,6,6,6",
        606,
    ),
    "mobile-200": (
        "4,4,4,4,4:5,5,5,5,5,7,3,5,7,5,5,3,3,5,5,3,5,3,3,5:6,6,6,6,4,6,6,6,6,6,6,6,6,6,6,6,6,6,6,6",
        724,
    ),
}


def from_pnag(text: str) -> str:
    """Our text form of an architecture that PNAG wrote."""
    depths, kernels, expansions = (part.split(",") for part in text.split(":"))
    k, e = (
        ",".join("".join(slots[4 * u : 4 * u + 4]).rstrip("0") for u in range(5))
        for slots in (kernels, expansions)
    )
    return f"r224 d{','.join(depths)} k{k} e{e}"


@pytest.mark.parametrize(("text", "published"), PNAG.values(), ids=PNAG)
def test_multiply_adds_are_the_published_ones(text: str, published: int) -> None:
    (code,) = SPACE.encode([from_pnag(text)])
    graph = SPACE.graph(code)
    classifier = graph.macs_of(graph.ops[-1])
    assert classifier == 1536 * 1000  # which the publication does not count
    assert (graph.macs - classifier) / 1e6 == pytest.approx(published, abs=0.51)


def test_channels_round_as_mobilenet_does() -> None:
    base = (16, 24, 40, 80, 112, 160, 960, 1280)
    assert [round_channels(c * 1.2) for c in base] == [24, 32, 48, 96, 136, 192, 1152, 1536]
    assert round_channels(10) == 16  # 8 would lose more than a tenth
    assert round_channels(1) == 8


def test_smallest_and_largest() -> None:
    ends = [
        "r128 d2,2,2,2,2 k33,33,33,33,33 e33,33,33,33,33",
        "r224 d4,4,4,4,4 k7777,7777,7777,7777,7777 e6666,6666,6666,6666,6666",
    ]
    codes = SPACE.encode(ends)
    assert SPACE.macs(codes).tolist() == [65_536_896, 843_101_040]
    assert np.array_equal(codes[0], np.zeros(46))


def structure(graph: Graph) -> list[str]:
    """One word for each op: what a reader of the published code would look at."""

    def word(op: Op) -> str:
        if op.kind != "conv":
            return op.kind
        depthwise = "dw" if op["groups"] > 1 else ""
        stride = f"/{op['stride'][0]}" if op["stride"] != (1, 1) else ""
        return f"{depthwise}{op['kernel'][0]}x{op['kernel'][1]}-{op['out_channels']}{stride}"

    return [word(op) for op in graph.ops]


def test_layers_are_those_of_the_published_network() -> None:
    (code,) = SPACE.encode(["r224 d2,2,2,2,2 k35,73,33,33,37 e34,63,33,33,46"])
    words = structure(SPACE.graph(code))
    squeeze = "global_avg_pool {} relu {} hsigmoid mul"
    expected = [
        "3x3-24/2 hswish",
        "dw3x3-24 relu 1x1-24 add",
        "1x1-72 relu dw3x3-72/2 relu 1x1-32",
        "1x1-128 relu dw5x5-128 relu 1x1-32 add",
        f"1x1-192 relu dw7x7-192/2 relu {squeeze.format('1x1-48', '1x1-192')} 1x1-48",
        f"1x1-144 relu dw3x3-144 relu {squeeze.format('1x1-40', '1x1-144')} 1x1-48 add",
        "1x1-144 hswish dw3x3-144/2 hswish 1x1-96",
        "1x1-288 hswish dw3x3-288 hswish 1x1-96 add",
        f"1x1-288 hswish dw3x3-288 hswish {squeeze.format('1x1-72', '1x1-288')} 1x1-136",
        f"1x1-408 hswish dw3x3-408 hswish {squeeze.format('1x1-104', '1x1-408')} 1x1-136 add",
        f"1x1-544 hswish dw3x3-544/2 hswish {squeeze.format('1x1-136', '1x1-544')} 1x1-192",
        f"1x1-1152 hswish dw7x7-1152 hswish {squeeze.format('1x1-288', '1x1-1152')} 1x1-192 add",
        "1x1-1152 hswish global_avg_pool 1x1-1536 hswish flatten linear",
    ]
    assert words == " ".join(expected).split()


def test_input_and_output_have_the_shapes_of_the_task() -> None:
    (code,) = SPACE.encode(["r144 d2,2,2,2,2 k33,33,33,33,33 e33,33,33,33,33"])
    graph = SPACE.graph(code)
    assert [spec.shape for _, spec in graph.inputs] == [(1, 3, 144, 144)]
    assert graph.tensors[graph.outputs[0]].shape == (1, 1000)
    sizes = [graph.tensors[op.output].shape[2] for op in graph.ops if op.kind == "conv"]
    assert [s for s, before in zip(sizes, [0, *sizes], strict=False) if s != before][:6] == [
        72,
        36,
        18,
        1,
        18,
        1,
    ]


def test_every_decision_changes_the_network() -> None:
    (code,) = SPACE.encode(
        ["r176 d3,3,3,3,3 k555,555,555,555,555 e444,444,444,444,444"],
    )
    hashes = Counter(SPACE.graph(near).hash for near in SPACE.neighbours(code)[::7])
    assert max(hashes.values()) == 1
    assert SPACE.graph(code).hash not in hashes


GOOD = "r224 d2,3,2,2,2 k35,577,33,35,55 e34,466,66,33,46"


@pytest.mark.parametrize(
    ("was", "becomes", "message"),
    [
        ("r224", "r220", "r is '220': give one of 128, 144, 160, 176, 192, 208, 224"),
        ("r224", "rabc", "r is 'abc'"),
        ("r224 ", "", "give four fields in the order r d k e"),
        ("k35", "x35", "give four fields in the order r d k e"),
        ("d2,3,2,2,2", "d2,3,2,2", "d has 4 parts: give 5, one for each unit"),
        ("d2,3", "d2,5", "d of unit 2 is '5': give one of 2, 3, 4"),
        ("d2,3", "d2,2", "k of unit 2 is '577', but the unit's depth is 2"),
        ("577", "547", "k of unit 2, layer 2, is '4': give one of 3, 5, 7"),
        ("e34", "e35", "e of unit 1, layer 2, is '5': give one of 3, 4, 6"),
        ("66,33,46", "66,33,4", "e of unit 5 is '4', but the unit's depth is 2"),
        ("r224", "r²24", "r is '²24'"),
    ],
)
def test_the_error_names_the_place(was: str, becomes: str, message: str) -> None:
    assert SPACE.decode(SPACE.encode([GOOD])) == [GOOD]
    with pytest.raises(GraphError) as raised:
        SPACE.encode([GOOD, GOOD.replace(was, becomes, 1)])
    assert message in str(raised.value)
    assert str(raised.value).startswith("ofa_mbv3: '")


def test_text_may_be_pasted_with_any_blanks() -> None:
    pasted = "  " + GOOD.replace(" ", "\t \n") + "\n"
    assert np.array_equal(SPACE.encode([pasted]), SPACE.encode([GOOD]))


def test_another_width_or_resolution_is_another_space() -> None:
    fine = dataclasses.replace(
        OFA_MBV3, name="ofa_w10", width=1.0, resolutions=tuple(range(128, 225, 4))
    )
    space = MobileNetV3Space(fine)
    (code,) = space.encode([GOOD.replace("r224", "r204")])
    convs = [op for op in space.graph(code).ops if op.kind == "conv"]
    assert convs[0]["out_channels"] == 16
    assert space.macs([code])[0] == space.graph(code).macs


@pytest.mark.parametrize(("name", "channels"), [("mbv3_small", 1), ("mbv3_small_rgb", 3)])
def test_small_networks_fit_small_images(name: str, channels: int) -> None:
    space = get_space(name)
    assert [d.name for d in space.decisions] == [d.name for d in SPACE.decisions]
    for code in space.sample(5, np.random.default_rng(0), fixed={"r": 28}):
        graph = space.graph(code)
        assert graph.inputs[0][1].shape == (1, channels, 28, 28)
        assert graph.tensors[graph.outputs[0]].shape == (1, 10)
        assert graph.macs < 20e6
        last_depthwise = [op for op in graph.ops if op.kind == "conv" and op["groups"] > 1][-1]
        assert graph.tensors[last_depthwise.output].shape[2:] == (4, 4)


@pytest.mark.parametrize("change", [{"kernels": (3, 4)}, {"expansions": (3, 12)}])
def test_a_skeleton_that_the_text_or_the_padding_cannot_express_is_refused(change) -> None:
    with pytest.raises(UsageError, match="space ofa_mbv3: kernels"):
        dataclasses.replace(OFA_MBV3, **change)


def test_a_skeleton_with_other_choices_works_too() -> None:
    odd = dataclasses.replace(
        MBV3_SMALL, name="odd", depths=(1, 3), kernels=(1, 9), expansions=(1, 2), resolutions=(20,)
    )
    space = MobileNetV3Space(odd)
    codes = space.sample(20, np.random.default_rng(0))
    assert space.macs(codes).tolist() == [space.graph(code).macs for code in codes]
    assert np.array_equal(space.encode(space.decode(codes)), codes)
