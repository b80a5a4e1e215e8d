"""A space of one's own: how little it takes, and what the conformance suite catches."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

from hwbench.errors import GraphError, UsageError
from hwbench.graph import Graph, GraphBuilder
from hwbench.spaces import Choice, Decision, Space, get_space, register_space
from hwbench.testing.spaces import check_space


class PlainCnn(Space):
    """One or two stages of convolutions; the second has a kernel of its own."""

    def __init__(self) -> None:
        decisions = [
            Decision("width", (8, 16, 24)),
            Decision("kernel", (1, 3, 5)),
            Decision("stages", (1, 2)),
            Decision("kernel2", (3, 5), when=("stages", (2,))),
            Decision("act", ("relu", "hswish")),
        ]
        super().__init__("plain_cnn", decisions)

    def build(self, choice: Choice) -> Graph:
        b = GraphBuilder(self.name)
        x = b.conv(b.input("image", (1, 3, 16, 16)), choice["width"], kernel=choice["kernel"])
        if choice["stages"] == 2:
            x = b.activation(x, choice["act"])
            x = b.conv(x, 2 * choice["width"], kernel=choice["kernel2"], stride=2)
        x = b.global_avg_pool(b.activation(x, choice["act"]))
        return b.build(b.linear(b.flatten(x), 10))


def test_a_new_space_takes_at_most_30_lines_and_keeps_the_contract() -> None:
    assert len(inspect.getsource(PlainCnn).splitlines()) <= 30
    check_space(PlainCnn())


def test_it_has_a_text_form_for_free() -> None:
    space = PlainCnn()
    texts = ["width=16 kernel=3 stages=1 act=relu", "width=8 kernel=1 stages=2 kernel2=5 act=relu"]
    assert space.decode(space.encode(texts)) == texts
    assert space.encode(["act=relu stages=1 kernel=3 width=16"]).tolist() == [[1, 1, 0, 0, 0]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("width=16 kernel=3 stages=1", "act is missing: give one of relu, hswish"),
        ("width=16 kernel=3 stages=2 act=relu", "kernel2 is missing: give one of 3, 5"),
        ("width=9 kernel=3 stages=1 act=relu", "width has no value '9': give one of 8, 16, 24"),
        ("widht=8 kernel=3 stages=1 act=relu", "unknown decision 'widht': did you mean 'width'?"),
        ("width=8 width=8 kernel=3 stages=1 act=relu", "'width' is given twice"),
        ("width=8 kernel=3 stages=1 act", "'act' is not of the form name=value"),
        (
            "width=8 kernel=3 stages=1 kernel2=3 act=relu",
            "kernel2 exists only where stages is 2",
        ),
    ],
)
def test_its_text_errors_name_the_place(text: str, message: str) -> None:
    with pytest.raises(GraphError) as raised:
        PlainCnn().encode([text])
    assert str(raised.value).startswith(f"plain_cnn: {text!r}: {message}")


def test_every_architecture_is_listed_once() -> None:
    space = PlainCnn()
    assert len(space.all_codes()) == 3 * 3 * (1 + 2) * 2
    assert space.raw_size() == 3 * 3 * 2 * 2 * 2


def test_neighbours_turn_on_what_hangs_on_the_change() -> None:
    space = PlainCnn()
    (here,) = space.encode(["width=8 kernel=3 stages=1 act=relu"])
    assert set(space.decode(space.neighbours(here))) == {
        "width=16 kernel=3 stages=1 act=relu",
        "width=24 kernel=3 stages=1 act=relu",
        "width=8 kernel=1 stages=1 act=relu",
        "width=8 kernel=5 stages=1 act=relu",
        "width=8 kernel=3 stages=1 act=hswish",
        "width=8 kernel=3 stages=2 kernel2=3 act=relu",
        "width=8 kernel=3 stages=2 kernel2=5 act=relu",
    }


def test_it_can_be_registered_once() -> None:
    space = PlainCnn()
    space.name = "plain_cnn_registered"
    register_space(space)
    assert get_space("plain_cnn_registered") is space
    with pytest.raises(UsageError, match="exists already"):
        register_space(space)


@pytest.mark.parametrize(
    ("decisions", "message"),
    [
        ([], "has no decision"),
        ([Decision("a", ())], "'a' needs a name of its own and at least one value"),
        ([Decision("a", (1, 2)), Decision("a", (1, 2))], "'a' needs a name of its own"),
        ([Decision("a", (1, "1"))], "at least one value, each once"),
        ([Decision("a b", (1, 2))], "words without blanks"),
        ([Decision("a", ("x=y",))], "words without blanks"),
        ([Decision("a", (1,), when=("b", (1,))), Decision("b", (1,))], "no decision before it"),
        ([Decision("b", (1, 2)), Decision("a", (1,), when=("b", (3,)))], "no decision before it"),
    ],
)
def test_ill_formed_decisions_are_refused(decisions: list[Decision], message: str) -> None:
    class Broken(PlainCnn):
        def __init__(self) -> None:
            Space.__init__(self, "broken", decisions)

    with pytest.raises(UsageError, match=message):
        Broken()


def test_decisions_may_hang_on_decisions_that_hang_on_others() -> None:
    class Chain(PlainCnn):
        def __init__(self) -> None:
            chain = [
                Decision("a", (0, 1)),
                Decision("b", (0, 1), when=("a", (1,))),
                Decision("c", (0, 1, 2), when=("b", (1,))),
            ]
            Space.__init__(self, "chain", chain)

    space = Chain()
    assert space.decode(space.all_codes()) == [
        "a=0",
        "a=1 b=0",
        "a=1 b=1 c=0",
        "a=1 b=1 c=1",
        "a=1 b=1 c=2",
    ]
    assert len(space.neighbours([0, 0, 0])) == 4
    assert space.canonical([[0, 1, 2]]).tolist() == [[0, 0, 0]]


class WrongMacs(PlainCnn):
    def macs(self, codes):
        return super().macs(codes) + 1


class ForgetfulText(PlainCnn):
    def text(self, choice):
        return super().text({**choice, "act": "relu"})


class TwoLines(PlainCnn):
    def text(self, choice):
        return super().text(choice).replace(" ", "\n")


class LaxParser(PlainCnn):
    def parse(self, text):
        return super().parse(" ".join(field for field in text.split() if "=" in field))


class OneWayNeighbours(PlainCnn):
    def neighbours(self, code):
        near = super().neighbours(code)
        return near[(near > code).any(axis=1)]


class FarNeighbours(PlainCnn):
    def neighbours(self, code):
        return self.all_codes()


class MoodyGraph(PlainCnn):
    builds = 0

    def build(self, choice):
        self.builds += 1
        return super().build({**choice, "act": ("relu", "tanh")[self.builds % 2]})


class Repeats(PlainCnn):
    def sample(self, n, rng, *, fixed=None):
        return np.repeat(super().sample(1, rng, fixed=fixed or {}), n, axis=0)


class FloatsWelcome(PlainCnn):
    def check(self, codes):
        return super().check(np.asarray(codes).astype(int))


class DeafToFixed(PlainCnn):
    def pinned(self, fixed):
        return {}


@pytest.mark.parametrize(
    ("space", "complaint"),
    [
        (WrongMacs, "its graph's"),
        (ForgetfulText, "encode\\(decode\\(codes\\)\\) != codes"),
        (TwoLines, "one printable line"),
        (LaxParser, "takes a text with a tail"),
        (OneWayNeighbours, "is no neighbour of its neighbour"),
        (FarNeighbours, "a neighbour differs in"),
        (MoodyGraph, "two builds, two graphs"),
        (Repeats, "sample repeats itself"),
        (FloatsWelcome, "takes codes as floats"),
        (DeafToFixed, "sample ignores"),
    ],
)
def test_the_suite_catches_a_broken_space(space: type[Space], complaint: str) -> None:
    with pytest.raises(AssertionError, match=complaint):
        check_space(space())
