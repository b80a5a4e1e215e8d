"""What every built-in space does with codes and texts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwbench.errors import GraphError, UnknownNameError, UsageError
from hwbench.spaces import Codes, Space, get_space, space_names
from hwbench.testing.spaces import check_space

NAMES = (
    "bert_encoder",
    "fbnet",
    "mbv3_small",
    "mbv3_small_rgb",
    "nasbench201",
    "ofa_mbv3",
    "vit_small",
)

SPACES = [get_space(name) for name in NAMES]

space_of_each_name = pytest.mark.parametrize("space", SPACES, ids=NAMES)
any_space = st.sampled_from(SPACES)


@st.composite
def space_and_code(draw: st.DrawFn) -> tuple[Space, Codes]:
    """Any built-in space and any code of it, canonical or not."""
    space = draw(any_space)
    code = [draw(st.integers(0, c - 1)) for c in space.cardinalities]
    return space, np.array([code], dtype=np.int16)


def test_the_built_in_spaces_are_known_by_name() -> None:
    assert set(NAMES) <= set(space_names())
    assert get_space("ofa_mbv3") is get_space("ofa_mbv3")


def test_an_unknown_space_is_answered_with_the_nearest_name() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'ofa_mbv3'"):
        get_space("ofa_mbv2")


@space_of_each_name
def test_space_keeps_the_contract(space: Space) -> None:
    check_space(space)


@settings(deadline=None)
@given(space_and_code())
def test_text_and_code_name_the_same_architecture(case: tuple[Space, Codes]) -> None:
    space, raw = case
    canonical = space.canonical(raw)
    texts = space.decode(raw)
    assert texts == space.decode(canonical)
    assert np.array_equal(space.encode(texts), canonical)
    assert space.decode(space.encode(texts)) == texts


@settings(deadline=None)
@given(space_and_code())
def test_canonical_is_idempotent_and_clears_what_is_inactive(case: tuple[Space, Codes]) -> None:
    space, raw = case
    canonical = space.canonical(raw)
    active = space.active(raw)
    assert np.array_equal(space.canonical(canonical), canonical)
    assert np.array_equal(canonical[active], raw[active])
    assert not canonical[~active].any()


@settings(max_examples=60, deadline=None)
@given(space_and_code())
def test_macs_are_those_of_the_graph(case: tuple[Space, Codes]) -> None:
    space, raw = case
    if space.valid(raw)[0]:
        assert space.macs(raw)[0] == space.graph(raw[0]).macs
    else:
        assert space.macs(raw)[0] == 0


@settings(max_examples=15, deadline=None)
@given(space_and_code(), st.randoms(use_true_random=False))
def test_neighbours_differ_in_one_decision_and_see_each_other(case, random) -> None:
    space, raw = case
    here = space.canonical(raw)
    near = space.neighbours(here[0])
    assert len(np.unique(near, axis=0)) == len(near)
    shared = space.active(near) & space.active(here)
    assert (((near != here) & shared).sum(axis=1) == 1).all()
    if space.valid(here)[0]:
        for other in random.sample(list(near), min(5, len(near))):
            assert (space.neighbours(other) == here).all(axis=1).any()


def test_a_deeper_unit_may_take_any_kernel_and_expansion() -> None:
    space = get_space("ofa_mbv3")
    (here,) = space.encode(["r128 d2,2,2,2,2 k33,33,33,33,33 e33,33,33,33,33"])
    texts = space.decode(space.neighbours(here))
    resolutions, slots, units = 6, 10 * 4, 5 * (9 + 81)
    assert len(texts) == resolutions + slots + units
    assert "r128 d2,2,2,2,4 k33,33,33,33,3375 e33,33,33,33,3346" in texts


@space_of_each_name
def test_sample_is_distinct_reproducible_and_uniform_over_choices(space: Space) -> None:
    codes = space.sample(3000, np.random.default_rng(1))
    assert np.array_equal(codes, space.sample(3000, np.random.default_rng(1)))
    assert len(np.unique(codes, axis=0)) == 3000
    active = space.active(codes)
    for j, values in enumerate(space.cardinalities):
        share = np.bincount(codes[active[:, j], j], minlength=values) / active[:, j].sum()
        assert np.abs(share - 1 / values).max() < 0.07, space.decisions[j].name


def test_sample_keeps_to_what_is_fixed() -> None:
    space = get_space("ofa_mbv3")
    codes = space.sample(50, np.random.default_rng(0), fixed={"r": 160, "d4": 3})
    assert {text.split()[0] for text in space.decode(codes)} == {"r160"}
    assert {space.choice(row)["d4"] for row in codes} == {3}


def test_a_small_space_is_sampled_to_the_last_architecture_and_no_further() -> None:
    space = get_space("nasbench201")
    fixed = {"0>1": "none", "0>2": "none", "1>2": "none", "1>3": "none"}
    every = space.all_codes(fixed=fixed)
    assert len(every) == 4 * 5  # a live edge 0>3, and the dead one from node 2
    codes = space.sample(20, np.random.default_rng(0), fixed=fixed)
    assert np.array_equal(np.unique(codes, axis=0), every)
    with pytest.raises(UsageError, match="gave 20 distinct architectures of the 21 asked, 0>1"):
        space.sample(21, np.random.default_rng(0), fixed=fixed)


def test_too_large_a_space_is_not_listed() -> None:
    with pytest.raises(UsageError, match="too many architectures to list"):
        get_space("ofa_mbv3").all_codes()


@pytest.mark.parametrize(
    ("fixed", "message"),
    [
        ({"R": 224}, "unknown decision 'R'"),
        ({"r": 225}, "r has no value 225: give one of 128, 144, 160, 176, 192, 208, 224"),
        ({"r": True}, "r has no value True"),
        ({"r": "224"}, "r has no value '224'"),
    ],
)
def test_fixing_what_is_not_there_is_refused(fixed, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        get_space("ofa_mbv3").sample(1, np.random.default_rng(0), fixed=fixed)


def test_a_value_is_read_as_a_person_writes_it() -> None:
    assert get_space("ofa_mbv3").value("r", "224") == 224
    assert get_space("nasbench201").value("0>3", "none") == "none"
    with pytest.raises(GraphError, match="r has no value '22'"):
        get_space("ofa_mbv3").value("r", "22")


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (np.zeros(6, int), r"codes have shape \(6,\): give \(n, 6\)"),
        (np.zeros((2, 7), int), r"codes have shape \(2, 7\)"),
        (np.zeros((2, 6)), "codes are float64: give integers"),
        (np.zeros((2, 6), bool), "codes are bool: give integers"),
        ([[0, 0, 0, 0, 0, 0], [0, 0, 5, 0, 0, 0]], "row 1, decision '1>2': code 5 is outside 0..4"),
        ([[0, 0, 0, 0, 0, -1]], "row 0, decision '2>3': code -1 is outside 0..4"),
        ([[0], [0, 1]], "codes are ragged"),
    ],
)
def test_codes_that_are_none_are_refused(codes, message: str) -> None:
    with pytest.raises(GraphError, match=message):
        get_space("nasbench201").check(codes)


def test_codes_of_any_integer_type_and_no_codes_at_all_are_accepted() -> None:
    space = get_space("nasbench201")
    for kind in (np.uint8, np.int32, np.int64):
        assert space.check(np.full((1, 6), 4, dtype=kind)).dtype == np.int16
    none = np.empty((0, 6), dtype=np.int64)
    assert space.macs(none).shape == (0,)
    assert space.decode(none) == []
    assert space.encode([]).shape == (0, 6)


def test_encode_refuses_a_lone_text() -> None:
    with pytest.raises(UsageError, match="takes a list of texts"):
        get_space("nasbench201").encode("|none~0|")


@settings(deadline=None)
@given(any_space, st.text(max_size=60))
def test_no_random_text_is_an_architecture(space: Space, text: str) -> None:
    with pytest.raises(GraphError) as raised:
        space.encode([text])
    assert len(str(raised.value).splitlines()) == 1


@settings(deadline=None)
@given(any_space, st.data())
def test_a_slip_of_the_pen_is_an_error_or_another_architecture(space: Space, data) -> None:
    (text,) = space.decode(space.sample(1, np.random.default_rng(3)))
    at = data.draw(st.integers(0, len(text) - 1))
    slip = text[:at] + data.draw(st.sampled_from(["", " ", "0", "9", "4", "|", ",", "x"]))
    slip += text[at + 1 :]
    try:
        written = space.decode(space.encode([slip]))[0]
    except GraphError as error:
        said = str(error)
    else:
        said = ""
        assert written.split() == slip.split()
    assert said.startswith(f"{space.name}: {slip!r}: ") or not said
