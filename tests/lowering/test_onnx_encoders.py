"""Transformers as torch exports them become graphs of attention, norms and lookups."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from hwbench.graph import Graph
from tests.onnx_models import assert_import_computes_the_same, torch_export

OPSETS = [14, 17, 18, 20]


@pytest.fixture(autouse=True, scope="module")
def as_exporters_see_it() -> Iterator[None]:
    """One thread, and attention in its parts: the fused form is of eager torch alone."""
    threads, fast = torch.get_num_threads(), torch.backends.mha.get_fastpath_enabled()
    torch.set_num_threads(1)
    torch.backends.mha.set_fastpath_enabled(False)
    yield
    torch.set_num_threads(threads)
    torch.backends.mha.set_fastpath_enabled(fast)


class Block(nn.Module):
    """Pre-norm; one product makes queries, keys and values."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.qkv, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)
        hidden = nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        self.hidden = nn.Sequential(*hidden)

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.mix(self.qkv(self.norms[0](x))).transpose(1, 2).reshape(x.shape)
        x = x + self.project(mixed)
        return x + self.hidden(self.norms[1](x))

    def mix(self, qkv: Tensor) -> Tensor:
        """As timm does: one reshape, and torch's own attention."""
        n, tokens, width = qkv.shape
        parts = qkv.reshape(n, tokens, 3, self.heads, width // 3 // self.heads)
        return nn.functional.scaled_dot_product_attention(*parts.permute(2, 0, 3, 1, 4).unbind(0))


class ChunkedBlock(Block):
    def mix(self, qkv: Tensor) -> Tensor:
        """As older code does: the products are split, and scores scaled and mixed by hand."""
        n, tokens, _ = qkv.shape
        q, k, v = (
            part.view(n, tokens, self.heads, -1).transpose(1, 2) for part in qkv.chunk(3, dim=-1)
        )
        scores = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(-1)
        return scores @ v


class ImageNet(nn.Module):
    """A ViT with a class token."""

    def __init__(self, block: Callable[[int, int], nn.Module]) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, 16))
        self.places = nn.Parameter(torch.randn(1, 17, 16))
        self.blocks = nn.Sequential(block(16, 4), block(16, 2))
        self.norm, self.head = nn.LayerNorm(16), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.places
        return self.head(self.norm(self.blocks(x))[:, 0])


class TextNet(nn.Module):
    """An encoder of tokens from torch's own layers; token 0 may be padding that is masked."""

    def __init__(self, masked: bool) -> None:
        super().__init__()
        self.masked = masked
        self.words, self.places = nn.Embedding(50, 16), nn.Embedding(32, 16)
        self.norm, self.pool = nn.LayerNorm(16, eps=1e-12), nn.Linear(16, 16)
        layer = nn.TransformerEncoderLayer(16, 4, 32, activation="gelu", batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.norm(self.words(tokens) + self.places(torch.arange(tokens.shape[1])[None]))
        mask = tokens == 0 if self.masked else None
        return torch.tanh(self.pool(self.encoder(x, src_key_padding_mask=mask)[:, 0]))


def kinds_of(graph: Graph) -> Counter[str]:
    return Counter(op.kind for op in graph.ops)


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("block", [Block, ChunkedBlock])
def test_encoders_of_images_are_read_back(
    block: Callable[[int, int], nn.Module], opset: int
) -> None:
    torch.manual_seed(0)
    model = torch_export(ImageNet(block), torch.zeros(2, 3, 16, 16), opset)
    kinds = kinds_of(assert_import_computes_the_same(model, {"x": (2, 3, 16, 16)}))
    assert (kinds["layer_norm"], kinds["gelu"], kinds["softmax"], kinds["matmul"]) == (5, 2, 2, 4)
    assert not kinds.keys() & {"pow", "sqrt", "erf", "mean"}  # no norm and no gelu is in pieces


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("masked", [False, True])
def test_encoders_of_tokens_are_read_back(masked: bool, opset: int) -> None:
    torch.manual_seed(0)
    model = torch_export(TextNet(masked), torch.ones(2, 7, dtype=torch.int64), opset)
    kinds = kinds_of(assert_import_computes_the_same(model, {"x": (2, 7)}))
    assert (kinds["embedding"], kinds["layer_norm"], kinds["gelu"]) == (1, 5, 2)
    assert kinds["where"] == masked
