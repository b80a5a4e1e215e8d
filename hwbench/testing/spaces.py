"""``check_space``: what every search space must do, tried on random architectures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from hwbench.errors import HwbenchError, UsageError
from hwbench.spaces import Codes, Space, space_filling


def check_space(space: Space, *, n: int = 24, seed: int = 0) -> None:
    """Raise AssertionError unless ``space`` keeps the contract of :class:`Space`.

    Tries up to ``n`` random architectures, reproducible by ``seed``; it builds their graphs.
    """
    total = len(space.all_codes()) if space.raw_size() <= n else n
    codes = space.sample(min(n, total), np.random.default_rng(seed))
    _check_samples(space, codes, seed)
    _check_canonical(space, codes)
    _check_texts(space, codes)
    _check_graphs(space, codes)
    _check_neighbours(space, codes[: max(1, n // 8)])
    _check_refusals(space, codes)


def _check_samples(space: Space, codes: Codes, seed: int) -> None:
    name = space.name
    again = space.sample(len(codes), np.random.default_rng(seed))
    _require(np.array_equal(codes, again), f"{name}: sample differs for equal generators")
    _require(
        codes.dtype == np.int16 and codes.shape[1:] == (len(space.decisions),),
        f"{name}: sample is {codes.dtype} {codes.shape}, not int16 (n, {len(space.decisions)})",
    )
    _require(
        bool(((codes >= 0) & (codes < np.asarray(space.cardinalities))).all()),
        f"{name}: sample leaves the range of a decision",
    )
    _require(len(np.unique(codes, axis=0)) == len(codes), f"{name}: sample repeats itself")
    _require(bool(space.valid(codes).all()), f"{name}: sample gives codes that are not valid")
    filling = space_filling(space, min(3, len(codes)), np.random.default_rng(seed))
    _require(len(filling) == min(3, len(codes)), f"{name}: space_filling gives too few")
    rng = np.random.default_rng(seed)
    for decision, value in space.choice(codes[0]).items():
        for _ in range(8):
            (pinned,) = space.sample(1, rng, fixed={decision: value})
            got = space.choice(pinned).get(decision, value)
            _require(got == value, f"{name}: sample ignores {decision} fixed at {value}: {got}")


def _check_canonical(space: Space, codes: Codes) -> None:
    rng = np.random.default_rng(0)
    high = np.asarray(space.cardinalities)
    raw = rng.integers(0, high, size=(256, len(high)), dtype=np.int16)
    canonical = space.canonical(raw)
    for what, same in (
        ("is not idempotent", np.array_equal(space.canonical(canonical), canonical)),
        ("leaves an inactive decision", not canonical[~space.active(raw)].any()),
        ("changes an active decision", not (canonical != raw)[space.active(raw)].any()),
        ("changes what is active", np.array_equal(space.active(canonical), space.active(raw))),
        ("changes a sample", np.array_equal(space.canonical(codes), codes)),
        ("changes the MACs", _same_macs(space, raw, canonical)),
    ):
        _require(same, f"{space.name}: canonical {what}")


def _same_macs(space: Space, raw: Codes, canonical: Codes) -> bool:
    some = np.flatnonzero(space.valid(raw))[:8]
    return np.array_equal(space.macs(raw[some]), space.macs(canonical[some]))


def _check_texts(space: Space, codes: Codes) -> None:
    texts = space.decode(codes)
    _require(
        all(t == t.strip() and t.isprintable() and t for t in texts),
        f"{space.name}: a text must be one printable line: {texts[0]!r}",
    )
    back = space.encode(texts)
    _require(np.array_equal(back, codes), f"{space.name}: encode(decode(codes)) != codes")
    _require(space.decode(back) == texts, f"{space.name}: decode(encode(texts)) != texts")


def _check_graphs(space: Space, codes: Codes) -> None:
    macs = space.macs(codes)
    for row, text, mine in zip(codes, space.decode(codes), macs, strict=True):
        graph = space.graph(row)
        _require(
            graph.macs == mine, f"{space.name}: {text}: macs() is {mine}, its graph's {graph.macs}"
        )
        _require(
            graph.hash == space.graph(row).hash, f"{space.name}: {text}: two builds, two graphs"
        )


def _check_neighbours(space: Space, codes: Codes) -> None:
    for row, text in zip(codes, space.decode(codes), strict=True):
        near = space.neighbours(row)
        _require(
            np.array_equal(space.canonical(near), near) and bool(space.valid(near).all()),
            f"{space.name}: {text}: neighbours are not canonical and valid",
        )
        both = space.active(near) & space.active(row[None])
        changed = ((near != row) & both).sum(axis=1)
        _require(
            bool((changed == 1).all()),
            f"{space.name}: {text}: a neighbour differs in {changed.tolist()} decisions, not 1",
        )
        for other in near[:: max(1, len(near) // 8)]:
            _require(
                bool((space.neighbours(other) == row).all(axis=1).any()),
                f"{space.name}: {text} is no neighbour of its neighbour {space.decode([other])[0]}",
            )


def _check_refusals(space: Space, codes: Codes) -> None:
    row, rng = codes[:1], np.random.default_rng(0)
    wide = np.concatenate([row, row[:, :1]], axis=1)
    refusals: tuple[tuple[str, Callable[[], Any]], ...] = (
        ("codes as floats", lambda: space.check(row.astype(float))),
        ("codes with a column too many", lambda: space.check(wide)),
        ("codes above the range", lambda: space.check(row + np.asarray(space.cardinalities))),
        ("codes below the range", lambda: space.check(row - 1 - row)),
        ("an empty text", lambda: space.encode([""])),
        ("a text with a tail", lambda: space.encode([space.decode(row)[0] + " tail"])),
        ("a sample of none", lambda: space.sample(0, rng)),
        ("an unknown decision", lambda: space.sample(1, rng, fixed={"no such decision": 0})),
    )
    for what, attempt in refusals:
        try:
            attempt()
        except UsageError as error:
            _require("\n" not in str(error), f"{space.name}: the error on {what} is not one line")
        except HwbenchError as error:
            raise AssertionError(f"{space.name}: {what}: not a UsageError") from error
        else:
            raise AssertionError(f"{space.name} takes {what}")


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise AssertionError(message)
