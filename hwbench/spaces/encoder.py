"""Spaces of transformer encoders of any size: skeleton, network, MACs and text form.

Blocks are those of Vaswani et al. (arXiv 1706.03762): self-attention and two linear layers with
gelu between, each with a residual. As in AutoFormer (Chen et al., ICCV 2021) every block chooses
its number of heads, whose size is fixed, so that attention may be narrower or wider than the
tokens, and its hidden width as a multiple of theirs; patch or length, width and depth are of the
whole network.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hwbench.errors import GraphError, UsageError
from hwbench.graph import Graph, GraphBuilder
from hwbench.spaces.base import Choice, Decision, Space, Value, listed


@dataclass(frozen=True, slots=True)
class Skeleton:
    """What all networks of a space share, and what they choose from.

    ``sizes`` are patches of a square ``image`` of that many pixels, or lengths of a sequence
    where there is no image. Norms come first in each block (as in ViT) or last (as in BERT).
    """

    name: str
    image: int | None
    sizes: tuple[int, ...]
    widths: tuple[int, ...]
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    ratios: tuple[int, ...]
    head_size: int
    norm_first: bool
    classes: int

    def __post_init__(self) -> None:
        if self.image is not None and any(self.image % patch for patch in self.sizes):
            raise UsageError(f"space {self.name}: patches {self.sizes} do not divide the image")

    @property
    def letter(self) -> str:
        """The decision whose values are ``sizes``: p(atch) or l(ength)."""
        return "l" if self.image is None else "p"

    def tokens(self, size: int) -> int:
        """Tokens that a network of that patch or length works on."""
        return size if self.image is None else (self.image // size) ** 2


class EncoderSpace(Space):
    """All networks over one skeleton.

    Decisions, in order: ``p`` or ``l``, patch or length; ``w``, the width; ``d``, the depth;
    ``h0…`` and ``m0…``, heads and hidden multiple of each block. Block i exists where ``d`` is
    above i.
    """

    def __init__(self, skeleton: Skeleton) -> None:
        self.skeleton = skeleton
        super().__init__(skeleton.name, list(_decisions(skeleton)))

    def build(self, choice: Choice) -> Graph:
        s, width = self.skeleton, choice["w"]
        b = GraphBuilder(self.name)
        x = self._tokens(b, choice[s.letter], width)
        x = b.add(x, b.op("constant", [], {"shape": b.shape(x)[1:], "dtype": "float32"}))
        x = x if s.norm_first else b.layer_norm(x)
        for i in range(choice["d"]):
            x = self._block(b, x, choice[f"h{i}"], choice[f"m{i}"] * width)
        x = b.layer_norm(x) if s.norm_first else x
        return b.build(b.linear(b.mean(x, [1]), s.classes))

    def _tokens(self, b: GraphBuilder, size: int, width: int) -> str:
        """Patches of an image, each multiplied by a matrix, or a sequence as it comes."""
        s = self.skeleton
        if s.image is None:
            return b.input("tokens", (1, size, width))
        image = b.input("image", (1, 3, s.image, s.image))
        patches = b.conv(image, width, kernel=size, stride=size, padding=0)
        return b.transpose(b.reshape(patches, (1, width, s.tokens(size))), (0, 2, 1))

    def _block(self, b: GraphBuilder, x: str, heads: int, hidden: int) -> str:
        s, width = self.skeleton, b.shape(x)[-1]
        y = b.attention(b.layer_norm(x) if s.norm_first else x, heads, s.head_size)
        x = b.add(x, y) if s.norm_first else b.layer_norm(b.add(x, y))
        y = b.linear(b.layer_norm(x) if s.norm_first else x, hidden)
        y = b.linear(b.activation(y, "gelu"), width)
        return b.add(x, y) if s.norm_first else b.layer_norm(b.add(x, y))

    # --- MACs -------------------------------------------------------------------------------

    def macs(self, codes: ArrayLike) -> NDArray[np.int64]:
        """Multiply-accumulates of each architecture (n, L) -> (n,): sums over tables."""
        rows = self.check(codes)
        outside, attention, hidden = self._macs_tables
        blocks = (rows.shape[1] - 3) // 2
        size, width = rows[:, :1], rows[:, 1:2]
        heads, ratios = rows[:, 3 : 3 + blocks], rows[:, 3 + blocks :]
        costs = attention[size, width, heads] + hidden[size, width, ratios]
        present = self.active(rows)[:, 3 : 3 + blocks]
        blocks_macs = np.where(present, costs, 0).sum(axis=1)
        macs: NDArray[np.int64] = outside[rows[:, 0], rows[:, 1]] + blocks_macs
        return macs

    @cached_property
    def _macs_tables(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """By size and width: what is always there; attention by heads; linear layers by ratio."""
        s = self.skeleton
        sizes, widths = np.array(s.sizes)[:, None, None], np.array(s.widths)[None, :, None]
        tokens = np.array([s.tokens(size) for size in s.sizes])[:, None, None]
        inner, ratios = np.array(s.heads) * s.head_size, np.array(s.ratios)
        patches = tokens * widths * 3 * sizes**2 if s.image is not None else 0
        outside = patches + 0 * tokens + widths * s.classes
        attention = 4 * tokens * widths * inner + 2 * tokens**2 * inner
        hidden = 2 * tokens * widths * (ratios * widths)
        return outside[..., 0], attention, hidden

    # --- text -------------------------------------------------------------------------------

    def text(self, choice: Choice) -> str:
        """E.g. ``p16 w128 h2,4,4 m4,2,4``: one number a block."""
        letter = self.skeleton.letter
        heads, ratios = (
            listed([choice[f"{kind}{i}"] for i in range(choice["d"])], ",") for kind in "hm"
        )
        return f"{letter}{choice[letter]} w{choice['w']} h{heads} m{ratios}"

    def parse(self, text: str) -> dict[str, Value]:
        s = self.skeleton
        fields = text.split()
        if [f[:1] for f in fields] != [s.letter, "w", "h", "m"]:
            raise GraphError(
                f"give four fields in the order {s.letter} w h m, "
                f"like {s.letter}{s.sizes[0]} w{s.widths[0]} h… m…"
            )
        size, width, heads, ratios = (field[1:] for field in fields)
        depth = heads.count(",") + 1
        if ratios.count(",") + 1 != depth:
            raise GraphError(f"h has {depth} numbers and m {ratios.count(',') + 1}: one a block")
        if depth not in s.depths:
            raise GraphError(f"{depth} blocks: give one of {listed(s.depths)}")
        choice: dict[str, Value] = {
            s.letter: _number(size, s.sizes, s.letter),
            "w": _number(width, s.widths, "w"),
            "d": depth,
        }
        for letter, field, values in (("h", heads, s.heads), ("m", ratios, s.ratios)):
            for i, written in enumerate(field.split(",")):
                choice[f"{letter}{i}"] = _number(written, values, f"{letter} of block {i + 1}")
        return choice


def _decisions(s: Skeleton) -> Iterator[Decision]:
    yield Decision(s.letter, s.sizes)
    yield Decision("w", s.widths)
    yield Decision("d", s.depths)
    for letter, values in (("h", s.heads), ("m", s.ratios)):
        for i in range(max(s.depths)):
            deeper = tuple(d for d in s.depths if d > i)
            yield Decision(f"{letter}{i}", values, None if deeper == s.depths else ("d", deeper))


def _number(written: str, values: Sequence[int], what: str) -> int:
    if re.fullmatch("[0-9]+", written) is None or int(written) not in values:
        raise GraphError(f"{what} is {written!r}: give one of {listed(values)}")
    return int(written)


#: Images of 224x224 pixels, 1000 classes: 49 to 196 tokens, 13 to 638 million MACs.
VIT_SMALL = Skeleton(
    name="vit_small",
    image=224,
    sizes=(16, 28, 32),
    widths=(64, 96, 128, 192),
    depths=(2, 3, 4, 5, 6),
    heads=(2, 3, 4, 6),
    ratios=(1, 2, 4),
    head_size=32,
    norm_first=True,
    classes=1000,
)

#: Sequences of tokens that are embedded already (a lookup takes microseconds), two classes.
BERT_ENCODER = Skeleton(
    name="bert_encoder",
    image=None,
    sizes=(32, 64, 96, 128),
    widths=(128, 192, 256),
    depths=(2, 3, 4, 5, 6),
    heads=(2, 4, 6),
    ratios=(1, 2, 4),
    head_size=32,
    norm_first=False,
    classes=2,
)


def vit_small() -> EncoderSpace:
    """Encoders of images."""
    return EncoderSpace(VIT_SMALL)


def bert_encoder() -> EncoderSpace:
    """Encoders of sequences."""
    return EncoderSpace(BERT_ENCODER)
