"""What a search space is: named decisions, and the network that a set of choices stands for.

An architecture has three forms. Searches and predictors use a row of small integers, its
*code*: column j indexes the values of decision j. People use its *text*, one line to read,
paste and diff. Both name one :class:`~hwbench.graph.Graph`.

Some decisions exist only under others (the kernel of a fourth layer, where the depth is 4).
An inactive decision is 0 in a *canonical* code, so equal architectures have equal codes.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hwbench.errors import GraphError, UnknownNameError, UsageError
from hwbench.graph import Graph

Value = int | str
Codes = NDArray[np.int16]
Draw = Callable[[int], Codes]
#: Active decisions by name, in order. The values of a decision have one type; its space knows it.
Choice = Mapping[str, Any]

NOTHING_FIXED: Mapping[str, Value] = MappingProxyType({})

#: Spaces of at most so many codes can be listed.
ENUMERABLE = 1 << 18
_ROUNDS = 16
_TEXT_SHOWN = 200  # the longest text of a built-in space, and a slip


@dataclass(frozen=True, slots=True)
class Decision:
    """One choice: its name and values; ``when`` says under which earlier choices it exists.

    ``when=("depth", (3, 4))``: only where decision ``depth`` exists and is 3 or 4. Values that
    have a natural order (sizes) are given in it.
    """

    name: str
    values: tuple[Value, ...]
    when: tuple[str, tuple[Value, ...]] | None = None


class Space(ABC):
    """A search space. A subclass gives the decisions and ``build``; the rest follows.

    Optional to override: ``text`` with ``parse`` (default ``name=value …``), ``macs`` (default:
    from the graphs, one at a time), ``valid`` (default: all). ``name`` identifies the space:
    spaces that differ in anything have different names.
    """

    #: Completes "… is not a network: …" in a space whose ``valid`` says no to some codes.
    why = "its choices exclude each other"

    def __init__(self, name: str, decisions: Sequence[Decision]) -> None:
        self.name = name
        self.decisions = tuple(decisions)
        self.cardinalities = tuple(len(d.values) for d in self.decisions)
        self._column = {d.name: j for j, d in enumerate(self.decisions)}
        self._code_of = [{v: c for c, v in enumerate(d.values)} for d in self.decisions]
        self._check_decisions()
        self._conditions = [self._condition(j) for j, d in enumerate(self.decisions) if d.when]

    # --- what a space gives -----------------------------------------------------------------

    @abstractmethod
    def build(self, choice: Choice) -> Graph:
        """The network of these choices: every active decision by name, in order, no other."""

    def text(self, choice: Choice) -> str:
        """One line that names the architecture; ``parse`` reads it back."""
        return " ".join(f"{name}={value}" for name, value in choice.items())

    def parse(self, text: str) -> dict[str, Value]:
        """Read ``text`` back into choices by decision name; GraphError says what is wrong.

        Whether all active decisions are there, and no other, is for :meth:`code` to check.
        """
        choice: dict[str, Value] = {}
        for field in text.split():
            name, equals, written = field.partition("=")
            if not equals:
                raise GraphError(f"{field!r} is not of the form name=value")
            if name in choice:
                raise GraphError(f"{name!r} is given twice")
            choice[name] = self.value(name, written)
        return choice

    def valid(self, codes: ArrayLike) -> NDArray[np.bool_]:
        """Which of the codes (n, L) have a graph, as (n,) bool. ``sample`` draws no others."""
        return np.ones(len(self.check(codes)), dtype=bool)

    def macs(self, codes: ArrayLike) -> NDArray[np.int64]:
        """Multiply-accumulates of each architecture (n, L) -> (n,), equal to its graph's."""
        rows = self.check(codes)
        return np.fromiter((self.graph(row).macs for row in rows), np.int64, len(rows))

    def views(self, codes: ArrayLike) -> tuple[Codes, ...]:
        """Codes (n, L) as runtimes may see them: canonical, then with what has no effect removed.

        A runtime that prunes what leads nowhere runs another network than one that does not. Each
        view is of codes again; a space without such differences has one.
        """
        return (self.canonical(codes),)

    # --- codes ------------------------------------------------------------------------------

    def check(self, codes: ArrayLike) -> Codes:
        """``codes`` as an (n, L) int16 array; GraphError where one is no code of this space."""
        try:
            array = np.asarray(codes)
        except ValueError:
            raise GraphError(f"{self.name}: codes are ragged: give rows of one length") from None
        width = len(self.decisions)
        if array.ndim != 2 or array.shape[1] != width:
            raise GraphError(
                f"{self.name}: codes have shape {array.shape}: "
                f"give (n, {width}), one column for each decision"
            )
        if not np.issubdtype(array.dtype, np.integer):
            raise GraphError(f"{self.name}: codes are {array.dtype}: give integers")
        outside = (array < 0) | (array >= np.asarray(self.cardinalities))
        if outside.any():
            row, column = (int(i) for i in np.argwhere(outside)[0])
            raise GraphError(
                f"{self.name}: row {row}, decision {self.decisions[column].name!r}: code "
                f"{array[row, column]} is outside 0..{self.cardinalities[column] - 1}"
            )
        return array.astype(np.int16, copy=False)

    def active(self, codes: ArrayLike) -> NDArray[np.bool_]:
        """Which decisions exist in each architecture: (n, L) bool."""
        rows = self.check(codes)
        mask = np.ones(rows.shape, dtype=bool)
        for column, parent, holds in self._conditions:
            mask[:, column] = mask[:, parent] & holds[rows[:, parent]]
        return mask

    def canonical(self, codes: ArrayLike) -> Codes:
        """The codes (n, L) with every inactive decision 0, as a new array."""
        rows = self.check(codes)
        out: Codes = np.where(self.active(rows), rows, np.int16(0))
        return out

    def choice(self, code: ArrayLike) -> dict[str, Value]:
        """The active decisions of one code (L,), by name, in order."""
        row = self.check(np.asarray(code)[None])
        return self._named(row[0], self.active(row)[0])

    def code(self, choice: Mapping[str, Value]) -> Codes:
        """The canonical code (L,) of choices that name every active decision and no other."""
        code = np.zeros(len(self.decisions), dtype=np.int16)
        for name, value in choice.items():
            column = self._column_of(name)
            code[column] = self._value_code(column, value)
        active = self.active(code[None])[0]
        for d, on in zip(self.decisions, active, strict=True):
            if on and d.name not in choice:
                raise GraphError(f"{d.name} is missing: give one of {listed(d.values)}")
            if not on and d.name in choice:
                parent, values = d.when or ("", ())
                raise GraphError(f"{d.name} exists only where {parent} is {listed(values)}")
        return code

    def graph(self, code: ArrayLike) -> Graph:
        """The network of one code (L,). GraphError where the code stands for none."""
        row = self.canonical(np.asarray(code)[None])
        if not self.valid(row)[0]:
            raise GraphError(f"{self.name}: {self.decode(row)[0]!r} is not a network: {self.why}")
        return self.build(self.choice(row[0]))

    # --- text -------------------------------------------------------------------------------

    def encode(self, texts: Sequence[str]) -> Codes:
        """Canonical codes (n, L) of n texts; GraphError names the text and the place in it."""
        if isinstance(texts, str):
            raise UsageError(f"{self.name}: encode takes a list of texts, not one text")
        rows = np.zeros((len(texts), len(self.decisions)), dtype=np.int16)
        for row, text in zip(rows, texts, strict=True):
            try:
                row[:] = self.code(self.parse(text))
            except UsageError as error:
                shown = text if len(text) <= _TEXT_SHOWN else text[:_TEXT_SHOWN] + "…"
                raise GraphError(f"{self.name}: {shown!r}: {error}") from None
        return rows

    def decode(self, codes: ArrayLike) -> list[str]:
        """The text of each of the codes (n, L)."""
        rows = self.check(codes)
        pairs = zip(rows, self.active(rows), strict=True)
        return [self.text(self._named(row, active)) for row, active in pairs]

    # --- moving about -----------------------------------------------------------------------

    def sample(
        self, n: int, rng: np.random.Generator, *, fixed: Mapping[str, Value] = NOTHING_FIXED
    ) -> Codes:
        """``n`` distinct valid architectures (n, L), each decision uniform over its values.

        ``fixed`` pins decisions by name to a value, e.g. ``{"r": 224}``. UsageError where the
        space holds fewer than ``n``. Uniform choices crowd the middle of the space in size;
        :mod:`hwbench.spaces.design` spreads them.
        """
        high = np.asarray(self.cardinalities)

        def uniform(m: int) -> Codes:
            return rng.integers(0, high, size=(m, len(high)), dtype=np.int16)

        return self.distinct(n, uniform, rng, fixed=fixed)

    def distinct(
        self,
        n: int,
        draw: Draw,
        rng: np.random.Generator,
        *,
        fixed: Mapping[str, Value] = NOTHING_FIXED,
    ) -> Codes:
        """The first ``n`` distinct valid architectures that ``draw`` gives, in its order.

        ``draw(m)`` gives m codes. Where it runs dry, the rest of a small space follows, shuffled.
        """
        if n < 1:
            raise UsageError(f"{n} architectures were asked of {self.name}: give at least 1")
        pinned = self.pinned(fixed)
        found = np.empty((0, len(self.decisions)), dtype=np.int16)
        for _ in range(_ROUNDS):
            rows = draw(max(64, (n - len(found)) * 5 // 4))
            rows[:, list(pinned)] = list(pinned.values())
            rows = self.canonical(rows)
            found = unique_in_order(np.concatenate([found, rows[self.valid(rows)]]))
            if len(found) >= n:
                return found[:n]
        if self.raw_size(fixed) <= ENUMERABLE:
            every = rng.permutation(self.all_codes(fixed=fixed))
            found = unique_in_order(np.concatenate([found, every]))
        if len(found) < n:
            raise UsageError(
                f"{self.name} gave {len(found)} distinct architectures of the {n} asked"
                f"{_pins(fixed)}: ask for fewer"
            )
        return found[:n]

    def all_codes(self, *, fixed: Mapping[str, Value] = NOTHING_FIXED) -> Codes:
        """Every valid architecture, canonical, sorted; UsageError where they are too many."""
        pinned, free = self.pinned(fixed), self._free(fixed)
        size = self.raw_size(fixed)
        if size > ENUMERABLE:
            raise UsageError(
                f"{self.name} has too many architectures to list ({size:.1e} codes"
                f"{_pins(fixed)}): sample them, or fix more decisions"
            )
        rows = np.zeros((size, len(self.decisions)), dtype=np.int16)
        number = np.arange(size)
        for j, values in enumerate(self.cardinalities):
            if j in pinned:
                rows[:, j] = pinned[j]
            elif j in free:
                number, rows[:, j] = np.divmod(number, values)
        rows = np.unique(self.canonical(rows), axis=0)
        return rows[self.valid(rows)]

    def neighbours(self, code: ArrayLike) -> Codes:
        """All valid architectures one decision away from ``code`` (L,): canonical, sorted.

        Changing a decision may turn others on; those may then take any of their values, so
        that neighbourhood is symmetric.
        """
        here = self.canonical(np.asarray(code)[None])
        was_active = self.active(here)[0]
        rows = np.concatenate(
            [self._every_value(here, j, skip=int(here[0, j])) for j in _indices(was_active)]
        )
        for j in _indices(~was_active):  # a parent stands before its children
            opened = self.active(rows)[:, j]
            if opened.any():
                rows = np.concatenate([rows[~opened], self._every_value(rows[opened], j)])
            if len(rows) > ENUMERABLE:
                raise UsageError(f"{self.name}: one decision turns on too many others to list")
        rows = np.unique(self.canonical(rows), axis=0)
        return rows[self.valid(rows)]

    def raw_size(self, fixed: Mapping[str, Value] = NOTHING_FIXED) -> int:
        """Number of codes, canonical or not; no space has more architectures than codes.

        What ``fixed`` turns off counts for nothing.
        """
        return math.prod(self.cardinalities[j] for j in self._free(fixed))

    def value(self, name: str, written: str) -> Value:
        """The value of decision ``name`` that a person wrote as ``written``."""
        values = self.decisions[self._column_of(name)].values
        for value in values:
            if str(value) == written:
                return value
        raise GraphError(f"{name} has no value {written!r}: give one of {listed(values)}")

    def pinned(self, fixed: Mapping[str, Value]) -> dict[int, int]:
        """Column -> code of the decisions that ``fixed`` pins to a value."""
        return {
            (column := self._column_of(name)): self._value_code(column, value)
            for name, value in fixed.items()
        }

    def __repr__(self) -> str:
        return f"<space {self.name}: {len(self.decisions)} decisions>"

    # --- inside -----------------------------------------------------------------------------

    def _named(self, code: Codes, active: NDArray[np.bool_]) -> dict[str, Value]:
        row = zip(self.decisions, code, active, strict=True)
        return {d.name: d.values[c] for d, c, on in row if on}

    def _free(self, fixed: Mapping[str, Value]) -> set[int]:
        """Columns of the decisions that ``fixed`` neither pins nor turns off."""
        pinned = self.pinned(fixed)
        off: set[int] = set()
        for column, parent, holds in self._conditions:  # a parent stands before its children
            if parent in off or (parent in pinned and not holds[pinned[parent]]):
                off.add(column)
        return set(range(len(self.decisions))) - off - pinned.keys()

    def _every_value(self, rows: Codes, column: int, skip: int = -1) -> Codes:
        values = [v for v in range(self.cardinalities[column]) if v != skip]
        out = np.repeat(rows, len(values), axis=0)
        out[:, column] = np.tile(np.asarray(values, dtype=np.int16), len(rows))
        return out

    def _column_of(self, name: str) -> int:
        if name not in self._column:
            raise UnknownNameError("decision", name, self._column)
        return self._column[name]

    def _value_code(self, column: int, value: Value) -> int:
        codes = self._code_of[column]
        if isinstance(value, bool) or value not in codes:
            decision = self.decisions[column]
            raise GraphError(
                f"{decision.name} has no value {value!r}: give one of {listed(decision.values)}"
            )
        return codes[value]

    def _condition(self, column: int) -> tuple[int, int, NDArray[np.bool_]]:
        parent, values = self.decisions[column].when or ("", ())
        at = self._column[parent]
        holds = np.zeros(self.cardinalities[at], dtype=bool)
        holds[[self._code_of[at][v] for v in values]] = True
        return column, at, holds

    def _check_decisions(self) -> None:
        known: dict[str, Decision] = {}
        for d in self.decisions:
            written = [str(v) for v in d.values]
            if d.name in known or not written or len(set(written)) < len(written):
                raise UsageError(
                    f"space {self.name}: decision {d.name!r} needs a name of its own "
                    "and at least one value, each once"
                )
            if any(set(" \t\n=") & set(part) or not part for part in (d.name, *written)):
                raise UsageError(
                    f"space {self.name}: decision {d.name!r}: names and values are words "
                    "without blanks and '=', as the text form writes name=value"
                )
            if d.when is not None:
                parent, values = d.when
                if parent not in known or not set(values) <= set(known[parent].values):
                    raise UsageError(
                        f"space {self.name}: decision {d.name!r} hangs on {parent!r} = "
                        f"{listed(values)}, which no decision before it has"
                    )
            known[d.name] = d
        if not known:
            raise UsageError(f"space {self.name} has no decision: give at least one")


def unique_in_order(rows: Codes) -> Codes:
    """The distinct rows, each where it came first."""
    _, first = np.unique(rows, axis=0, return_index=True)
    return rows[np.sort(first)]


def _indices(mask: NDArray[np.bool_]) -> list[int]:
    return [int(j) for j in np.flatnonzero(mask)]


def listed(values: Sequence[Value], by: str = ", ") -> str:
    """Values in one line."""
    return by.join(map(str, values))


def _pins(fixed: Mapping[str, Value]) -> str:
    return "".join(f", {name} fixed at {value}" for name, value in fixed.items())
