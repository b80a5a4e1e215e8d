"""HAT's rows of averages as networks of its space.

The tables of HAT (Wang et al., ACL 2020) describe a network by ten numbers: widths, layers, and
averages over the layers (hidden width, heads, layers attended to). The networks themselves are
lost. Each row is read as the network of these very averages whose layers are as alike as the
choices let them be, the larger first. That leaves the costs exact where a layer's cost grows in
proportion to its choice, as that of a hidden width does; heads cost next to nothing but for how
their products are cut up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import combinations_with_replacement
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hwbench.errors import GraphError, PredictorError
from hwbench.spaces import Codes, Space
from hwbench.spaces.base import listed
from hwbench.spaces.hat import (
    ATTENDED,
    DECODER_LAYERS,
    ENCODER_LAYERS,
    HEADS,
    HIDDEN,
    IWSLT14,
    WIDTHS,
    WMT14,
    HatSpace,
    cross,
)

if TYPE_CHECKING:
    import pandas as pd

#: Columns of the tables, in the order that :func:`codes_of_averages` takes them.
COLUMNS = (
    "encoder_embed_dim",
    "encoder_layer_num",
    "encoder_ffn_embed_dim_avg",
    "encoder_self_attention_heads_avg",
    "decoder_embed_dim",
    "decoder_layer_num",
    "decoder_ffn_embed_dim_avg",
    "decoder_self_attention_heads_avg",
    "decoder_ende_attention_heads_avg",
    "decoder_arbitrary_ende_attn_avg",
)
#: A sentence takes the sum of the two, in ms.
LATENCIES = ("latency_mean_encoder", "latency_mean_decoder")

#: Averages are written with some eight digits.
_ROUNDING = 0.01


def space_of_pair(pair: str) -> Space:
    """The space of a task and device, as in ``iwslt14deen/gpu_titanxp``."""
    return HatSpace(IWSLT14 if pair.startswith("iwslt") else WMT14)


def codes_of_averages(path: Path, space: Space, rows: pd.DataFrame) -> Codes:
    """Codes (n, L) from rows (n, 10) of :data:`COLUMNS`, by ``arch_idx``.

    PredictorError names the row of ``path`` that is no network of the space.
    """
    codes = np.zeros((len(rows), len(space.decisions)), dtype=np.int16)
    for row, averages in enumerate(rows.to_numpy().tolist()):
        try:
            codes[row] = space.code(_choice(averages))
        except GraphError as error:
            raise PredictorError(
                f"{path}: arch_idx {rows.index[row]} is no network of hat: {error}"
            ) from None
    return codes


def _choice(averages: Sequence[float]) -> dict[str, int | str]:
    width, layers, hidden, heads, *decoder = averages
    _one_of((ENCODER_LAYERS,), layers, COLUMNS[1])
    choice: dict[str, int | str] = {"ew": _one_of(WIDTHS, width, COLUMNS[0])}
    choice |= _named("em", _alike(HIDDEN, ENCODER_LAYERS, hidden, COLUMNS[2]))
    choice |= _named("eh", _alike(HEADS, ENCODER_LAYERS, heads, COLUMNS[3]))
    width, layers, *each = decoder
    count = _one_of(DECODER_LAYERS, layers, COLUMNS[5])
    choice |= {"dw": _one_of(WIDTHS, width, COLUMNS[4]), "d": count}
    kinds = zip((HIDDEN, HEADS, HEADS, ATTENDED), each, COLUMNS[6:], strict=True)
    hidden_of, heads_of, cross_heads, attended = (
        _alike(values, count, average, column) for values, average, column in kinds
    )
    choice |= _named("dm", hidden_of) | _named("dh", heads_of)
    return choice | {
        f"dc{i}": cross(*pair) for i, pair in enumerate(zip(cross_heads, attended, strict=True))
    }


def _one_of(values: Sequence[int], given: float, column: str) -> int:
    if given not in values:
        raise GraphError(f"{column} is {given:g}: give one of {listed(values)}")
    return int(given)


def _named(prefix: str, values: Sequence[int]) -> dict[str, int]:
    return {f"{prefix}{i}": value for i, value in enumerate(values)}


@lru_cache(maxsize=4096)
def _alike(values: Sequence[int], layers: int, average: float, column: str) -> tuple[int, ...]:
    """The choices of so many layers that have this average, as near to each other as any."""
    total = round(average * layers) if math.isfinite(average) else 0
    found = [
        each
        for each in combinations_with_replacement(sorted(values, reverse=True), layers)
        if sum(each) == total
    ]
    if not found or abs(average * layers - total) > _ROUNDING:
        raise GraphError(f"no {layers} layers have {average:g} for {column}")
    return min(found, key=lambda each: sum(value * value for value in each))
