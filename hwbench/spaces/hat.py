"""The spaces of HAT: transformers that translate, six encoder layers and one to six decoder layers.

HAT (Wang et al., ACL 2020, arXiv 2005.14187) gives each layer its hidden width and its heads, each
decoder layer also how many of the encoder's last layers it attends to, and the encoder and the
decoder their width. Queries, keys and values are 512 wide whatever the heads. Norms come last,
activations are relu. Choices and layers are those of ``configs/*/latency_dataset`` and
``transformer_super.py`` of its repository (commit 35d1282).

A latency of HAT is that of translating a sentence: the encoder once, then a step of the decoder
for each word, five hypotheses at a time. The graph holds the encoder and one step of one
hypothesis halfway through the sentence, side by side. So its costs are no sentence's; but tokens
and single words are different classes of operation to :mod:`hwbench.predictors.costs`, and how
often each runs is for a regression to learn. What a step knows of the steps before it, and the
encoder's outputs that a layer attends to, are inputs.

The spaces are for reading HAT's tables; no search by steps takes them, as one decoder layer more
has so many forms that :meth:`Space.neighbours` refuses to list them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hwbench.graph import Graph, GraphBuilder
from hwbench.spaces.base import Choice, Decision, Space


def cross(heads: int, layers: int) -> str:
    """The value of a decision on the attention to the encoder."""
    return f"{heads}x{layers}"


WIDTHS = (512, 640)
HIDDEN = (512, 1024, 2048, 3072)
HEADS = (2, 4, 8)
#: How many of the encoder's last layers a decoder layer attends to.
ATTENDED = (1, 2, 3)
#: One decision on the attention to the encoder, as its products depend on both numbers.
CROSS = {cross(heads, layers): (heads, layers) for heads in HEADS for layers in ATTENDED}
ENCODER_LAYERS = 6
DECODER_LAYERS = (1, 2, 3, 4, 5, 6)

_INNER = 512


@dataclass(frozen=True, slots=True)
class Task:
    """Words of the sentence that HAT measured, and of the language that is translated to."""

    name: str
    words: int
    vocabulary: int


WMT14 = Task("hat_wmt14", words=30, vocabulary=32768)
IWSLT14 = Task("hat_iwslt14", words=23, vocabulary=6632)


class HatSpace(Space):
    """All networks of one task.

    Decisions: ``ew``, the encoder's width; ``em0``…, ``eh0``…, hidden width and heads of its
    layers; ``dw`` and ``d``, width and layers of the decoder; for each of them ``dm0``…,
    ``dh0``…, and ``dc0``…, attention to the encoder: 4x2 is four heads on its last two layers.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        super().__init__(task.name, list(_decisions()))

    def build(self, choice: Choice) -> Graph:
        b = GraphBuilder(self.name)
        x = b.layer_norm(b.input("source", (1, self.task.words, choice["ew"])))
        for i in range(ENCODER_LAYERS):
            x = b.layer_norm(b.add(x, b.attention(x, choice[f"eh{i}"], _INNER // choice[f"eh{i}"])))
            x = _hidden(b, x, choice[f"em{i}"])
        y = b.input("word", (1, 1, choice["dw"]))
        for i in range(choice["d"]):
            y = b.layer_norm(b.add(y, self._past(b, y, i, choice[f"dh{i}"])))
            heads, attended = CROSS[choice[f"dc{i}"]]
            seen = b.input(f"encoded{i}", (1, attended * self.task.words, choice["ew"]))
            y = b.layer_norm(b.add(y, _attended(b, y, seen, heads)))
            y = _hidden(b, y, choice[f"dm{i}"])
        return b.build([x, b.linear(y, self.task.vocabulary, bias=False)])

    def _past(self, b: GraphBuilder, y: str, layer: int, heads: int) -> str:
        """Attention of a word to those before it, whose keys and values are known."""
        size = _INNER // heads
        past = self.task.words // 2
        q, k, v = (b.reshape(b.linear(y, _INNER), (1, heads, 1, size)) for _ in range(3))
        k = b.concat([b.input(f"keys{layer}", (1, heads, past, size)), k], axis=2)
        v = b.concat([b.input(f"values{layer}", (1, heads, past, size)), v], axis=2)
        return _mixed(b, q, b.transpose(k, (0, 1, 3, 2)), v, b.shape(y)[-1])


def _attended(b: GraphBuilder, y: str, seen: str, heads: int) -> str:
    """Attention of a word to the encoder's outputs."""
    words, size = b.shape(seen)[1], _INNER // heads
    q = b.reshape(b.linear(y, _INNER), (1, heads, 1, size))
    k, v = (b.reshape(b.linear(seen, _INNER), (1, words, heads, size)) for _ in range(2))
    return _mixed(b, q, b.transpose(k, (0, 2, 3, 1)), b.transpose(v, (0, 2, 1, 3)), b.shape(y)[-1])


def _mixed(b: GraphBuilder, q: str, k: str, v: str, width: int) -> str:
    scores = b.softmax(b.scale(b.matmul(q, k), b.shape(q)[-1] ** -0.5))
    return b.linear(b.reshape(b.matmul(scores, v), (1, 1, _INNER)), width)


def _hidden(b: GraphBuilder, x: str, hidden: int) -> str:
    y = b.linear(b.activation(b.linear(x, hidden), "relu"), b.shape(x)[-1])
    return b.layer_norm(b.add(x, y))


def _decisions() -> Iterator[Decision]:
    yield Decision("ew", WIDTHS)
    for i in range(ENCODER_LAYERS):
        yield Decision(f"em{i}", HIDDEN)
        yield Decision(f"eh{i}", HEADS)
    yield Decision("dw", WIDTHS)
    yield Decision("d", DECODER_LAYERS)
    for i in range(max(DECODER_LAYERS)):
        deeper = tuple(d for d in DECODER_LAYERS if d > i)
        when = None if deeper == DECODER_LAYERS else ("d", deeper)
        for name, values in (("dm", HIDDEN), ("dh", HEADS), ("dc", tuple(CROSS))):
            yield Decision(f"{name}{i}", values, when)
