"""What the generator of EAS is made of: latency with its gradient, gates, and plain arrays."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hwbench.search.eas.conditional import sampled_gates, straight_through
from hwbench.search.eas.latency import ExpectedLatency
from hwbench.search.eas.policy import Choices, TaskPolicy
from hwbench.search.eas.training import Latency, relaxed
from hwbench.search.supernet import Supernet
from hwbench.search.supernet.elastic import Norms
from tests.eas import FIXED, GROUPS, SPACE, one_hot, oracle_of, rng, untrained
from tests.searches import Toy

pytestmark = pytest.mark.usefixtures("one_torch_thread")

TOY = Toy()


# --- latency ----------------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_expected_latency_is_the_tables_at_choices_and_the_mean_over_them(seed: int) -> None:
    """Of layers that may not be there too; against every architecture with its probability."""
    generator = rng(seed)
    choices, table = Choices(TOY, {}), toy_table(seed)
    expected = ExpectedLatency(table)
    codes = TOY.sample(20, generator)
    assert expected(one_hot(choices, codes)).numpy() == pytest.approx(table.latency(codes))
    gates = np.where(choices.there, generator.random(choices.shape), 0)
    gates /= gates.sum(axis=1, keepdims=True)
    raw = np.indices(TOY.cardinalities).reshape(len(TOY.cardinalities), -1).T.astype(np.int16)
    chance = np.prod(gates[np.arange(raw.shape[1]), raw], axis=1)
    mean = (chance * table.latency(TOY.canonical(raw))).sum()
    found = expected(torch.from_numpy(gates[None]).float())
    assert found.item() == pytest.approx(mean, rel=1e-5)


def toy_table(seed: int):
    """Entries over a pair whose second decision hangs on a third, over one, and over a chain."""
    from hwbench.predictors.table import LatencyTable

    parts = (("w0", "w2"), ("branch", "mode"), ("w1",), ("depth",))
    size = dict(zip([d.name for d in TOY.decisions], TOY.cardinalities, strict=True))
    entries = tuple(rng(seed).random([size[name] for name in part]) for part in parts)
    return LatencyTable(TOY, {}, 0.7, parts, entries, 0.0)


def test_latency_is_the_oracles_bound_and_its_gradient_the_tables() -> None:
    choices, oracle = Choices(SPACE, FIXED), oracle_of(SPACE)
    latency = Latency(oracle, choices, 0.98, 0)
    codes = SPACE.sample(10, rng(), fixed=FIXED)
    logits = torch.where(torch.from_numpy(choices.allowed), 3 * one_hot(choices, codes), -1e9)
    logits.requires_grad_()
    found = latency(logits)
    assert found.detach().numpy() == pytest.approx(oracle.upper(codes, 0.98), rel=1e-4)
    found.sum().backward()
    active = SPACE.active(codes)
    moved = (logits.grad.numpy() != 0).any(axis=2)
    assert moved[:, 1:3].all()  # depths
    assert not moved[:, 0].any()  # the resolution is fixed
    assert not moved[~active].any()
    assert moved[:, 3:][active[:, 3:]].mean() > 0.9


# --- gates ------------------------------------------------------------------------------------


def test_gates_are_choices_with_the_gradient_of_probabilities() -> None:
    logits = torch.tensor([[[0.0, 1.0, -1e9], [2.0, 0.0, 1.0]]], requires_grad=True)
    torch.manual_seed(0)
    many = torch.stack([sampled_gates(logits, 1.0) for _ in range(4000)])
    assert set(many.detach().unique().round(decimals=5).abs().tolist()) == {0.0, 1.0}
    often = many.mean(0).detach()
    assert torch.allclose(often, logits.softmax(-1), atol=0.03)
    (straight_through(logits.softmax(-1))[0, 1] * torch.tensor([1.0, 5.0, 0.0])).sum().backward()
    p = logits.detach()[0, 1].softmax(-1)
    value = torch.tensor([1.0, 5.0, 0.0])
    assert torch.allclose(logits.grad[0, 1], p * (value - p @ value), atol=1e-6)


def test_hard_gates_run_the_path_of_their_choices() -> None:
    net, choices = Supernet(SPACE), Choices(SPACE, FIXED)
    images = torch.rand(8, 1, 12, 12)
    for code in SPACE.sample(5, rng(), fixed=FIXED):
        (gates,) = one_hot(choices, code[None])
        expected = net(images, code, Norms())
        assert torch.allclose(relaxed(net, images, gates), expected, atol=1e-4)


# --- the policy -------------------------------------------------------------------------------


def test_arrays_answer_as_the_net_that_they_are_of() -> None:
    choices = Choices(SPACE, FIXED)
    net = untrained(choices)
    shares, budgets = GROUPS.shares([*GROUPS.groups, GROUPS.every]), np.array([0.5, 1.3, 9.0])
    found = choices.padded(net.policy().logits(shares, budgets))
    assert found == pytest.approx(net.logits(shares, budgets).detach().numpy(), abs=1e-4)
    codes = choices.likeliest(found)
    assert (codes[:, 0] == 0).all()
    assert np.array_equal(codes, SPACE.canonical(codes))


def test_the_shortfall_is_what_likelier_choices_have_more() -> None:
    choices = Choices(TOY, {"depth": 2})
    logits = choices.padded(rng().standard_normal((3, choices.size)).astype(np.float32))
    codes = TOY.sample(50, rng(), fixed={"depth": 2})
    lost = choices.shortfall(logits, codes)
    for i in range(3):
        for j, code in enumerate(codes):
            on = np.flatnonzero(TOY.active(code[None])[0])
            below = [logits[i, k].max() - logits[i, k, code[k]] for k in on]
            assert lost[i, j] == pytest.approx(-sum(below), abs=1e-4)
    best = choices.likeliest(logits)
    assert np.diag(choices.shortfall(logits, best)) == pytest.approx(0)
    other = TOY.sample(1, rng(), fixed={"depth": 3})
    assert (choices.shortfall(logits, other) < -1e8).all()


def test_weights_that_do_not_fit_are_refused() -> None:
    choices = Choices(SPACE, FIXED)
    state = untrained(choices).policy().state()
    assert TaskPolicy.restored(state, 2, choices.size).table.shape == (2, 64)
    with pytest.raises(ValueError, match="table has shape"):
        TaskPolicy.restored(state, 3, choices.size)
    with pytest.raises(ValueError, match="w3 has shape"):
        TaskPolicy.restored(state, 2, choices.size + 1)
    with pytest.raises(ValueError, match="do not ascend"):
        TaskPolicy.restored({**state, "log_budgets": state["log_budgets"][::-1]}, 2, choices.size)
    with pytest.raises(KeyError):
        TaskPolicy.restored({name: a for name, a in state.items() if name != "b1"}, 2, choices.size)
