"""DASH's operators: equal to convolutions one by one, gradients too, whatever the mixture."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hwbench.devices.cuda.twin import CpuStream
from hwbench.errors import PredictorError, UnknownNameError, UsageError
from hwbench.search.dash import (
    Case,
    Chooser,
    MixedConv,
    Mixture,
    cost_model,
    eligible,
    mixed,
    resnet1d,
)
from hwbench.search.dash.cost_model import CostModel, draw_case, fitted_costs
from hwbench.search.dash.costs import counts, plain_is_hopeless
from hwbench.search.dash.operators import (
    CROPPED_RESULTS,
    CROPPED_WEIGHTS,
    DENSE,
    FOURIER,
    OPERATORS,
    PLAIN,
    RESULTS,
    WEIGHTS,
    is_cropped,
)
from hwbench.search.dash.spectral import correlate, smooth_length
from hwbench.search.dash.timing import Race

pytestmark = pytest.mark.usefixtures("one_torch_thread")

SMALL = Mixture.grid((3, 5), (1, 4), 4, 6)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Mixtures of few channels, on inputs at least as long as the largest kernel."""
    dims = draw(st.integers(1, 2))
    sizes = tuple(draw(st.integers(5, 24 if dims == 1 else 11)) for _ in range(dims))
    odd = st.sampled_from([k for k in (1, 3, 5, 7, 9) if k <= min(sizes)])
    pair = st.tuples(odd, st.sampled_from([1, 2, 3, 7, 15, 31]))
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    mixture = Mixture(
        candidates=tuple(draw(st.lists(pair, min_size=1, max_size=6))),
        c_in=groups * draw(st.integers(1, 3)),
        c_out=groups * draw(st.integers(1, 3)),
        dims=dims,
        groups=groups,
        stride=draw(st.integers(1, 3)),
    )
    return Case(mixture, draw(st.integers(1, 3)), sizes)


Answer = tuple[Tensor, Sequence[Tensor]]


def answers(case: Case, seed: int) -> Callable[[str], Answer]:
    """Output and gradients of an operator in float64, for one random gradient of the output."""
    random = torch.Generator().manual_seed(seed)
    mixture = case.mixture

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    c_in = mixture.c_in // mixture.groups
    sources = [normal(case.batch, mixture.c_in, *case.sizes), normal(len(mixture.candidates))]
    for k, _ in mixture.candidates:
        sources.append(normal(mixture.c_out, c_in, *[k] * mixture.dims))
    sources = [source.requires_grad_() for source in sources]
    out = [-(-n // mixture.stride) for n in case.sizes]
    upstream = normal(case.batch, mixture.c_out, *out)

    def answer(name: str) -> Answer:
        x, shares, *weights = sources
        y = OPERATORS[name](mixture, x, weights, shares)
        return y.detach(), torch.autograd.grad(y, sources, upstream)

    return answer


def largest(tensors: Sequence[Tensor]) -> float:
    return max(float(tensor.abs().max()) for tensor in tensors)


@settings(max_examples=200)
@given(cases(), st.integers(0, 2**31))
def test_all_operators_are_equal(case: Case, seed: int) -> None:
    answer = answers(case, seed)
    y, gradients = answer(RESULTS)
    for name in OPERATORS:
        own, own_gradients = answer(name)
        assert own.shape == y.shape
        assert largest([own - y]) <= 1e-12 * largest([y])
        differences = [a - b for a, b in zip(own_gradients, gradients, strict=True)]
        assert largest(differences) <= 1e-11 * largest(gradients)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_the_fourier_gradient_is_that_of_finite_differences(groups: int) -> None:
    x = torch.randn(2, 4, 5, 4, dtype=torch.float64, requires_grad=True)
    kernel = torch.randn(8, 4 // groups, 7, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a, b: correlate(a, b, groups), (x, kernel))


def test_a_gradient_is_computed_for_what_needs_one_only() -> None:
    weights = [weight.requires_grad_() for weight in SMALL.initial()]
    shares = torch.ones(4)
    OPERATORS[FOURIER](SMALL, torch.randn(1, 4, 9), weights, shares).sum().backward()
    assert all(weight.grad is not None for weight in weights)
    assert shares.grad is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_keeps_its_dtype(dtype: torch.dtype) -> None:
    weights = [weight.to(dtype) for weight in SMALL.initial()]
    x = torch.randn(2, 4, 30).to(dtype)
    y = OPERATORS[FOURIER](SMALL, x, weights, torch.full((4,), 0.25, dtype=dtype))
    exact = OPERATORS[RESULTS](
        SMALL, x.double(), [w.double() for w in weights], torch.full((4,), 0.25).double()
    )
    assert y.dtype == dtype
    assert largest([y.double() - exact]) <= 0.02 * largest([exact])


@given(st.integers(1, 5000))
def test_a_smooth_length_is_the_next_with_small_factors(least: int) -> None:
    found = smooth_length(least)
    smooth = {2**a * 3**b * 5**c for a in range(14) for b in range(9) for c in range(7)}
    assert found == min(n for n in smooth if n >= least)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"candidates": ()}, "no candidates"),
        ({"candidates": ((4, 1),)}, "kernel size 4: it has no centre"),
        ({"candidates": ((3, 0),)}, "dilation 0"),
        ({"groups": 3}, "3 groups do not divide 4 and 6"),
        ({"stride": 0}, "positive"),
        ({"dims": 3}, "dims 3"),
    ],
)
def test_what_is_no_mixture_is_refused(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        replace(SMALL, **wrong)


@pytest.mark.parametrize("name", OPERATORS)
def test_what_does_not_fit_a_mixture_is_refused(name: str) -> None:
    weights, shares = SMALL.initial(), torch.ones(4)
    x = torch.randn(2, 4, 9)

    def refused(says: str, x: Tensor, weights: list[Tensor], shares: Tensor) -> None:
        with pytest.raises(UsageError, match=says):
            OPERATORS[name](SMALL, x, weights, shares)

    refused("5 taps does not fit into 4 places", x[:, :, :4], weights, shares)
    refused("complex64: convert it", x + 0j, weights, shares)
    refused("int64: convert it", x.long(), weights, shares)
    refused(r"has to be \(batch, 4, n\)", x[:, :3], weights, shares)
    refused(r"has to be \(batch, 4, n\)", x[0], weights, shares)
    refused("4 candidates need", x, weights[1:], shares)
    refused("4 candidates need", x, weights, shares[1:])
    refused(r"\(6, 4, 3\) are wanted", x, [weights[0].mT, *weights[1:]], shares)
    refused("of torch.float64 for", x, [w.double() for w in weights], shares)


def test_counts_are_those_of_the_derivation() -> None:
    case = Case(Mixture.grid((3, 5), (1, 100), 8, 4, groups=2), 3, (50,))
    assert is_cropped(case.mixture, case.sizes)
    assert case.dense == (CROPPED_RESULTS, CROPPED_WEIGHTS)
    assert counts(RESULTS, case).products == 3 * 16 * 50 * 16
    assert counts(CROPPED_RESULTS, case).products == 3 * 16 * 50 * (8 + 2)
    assert counts(WEIGHTS, case).products == 3 * 16 * 50 * 401
    assert counts(CROPPED_WEIGHTS, case).products == 3 * 16 * 50 * 5
    assert plain_is_hopeless(case)
    assert counts(FOURIER, case).products == 3 * 16 * 54 * 2
    assert counts(PLAIN, case).products == 3 * 16 * 450 * 2


def made_up(case: Case) -> dict[str, float]:
    """Times that are as fast as the counts are low."""
    return {n: 1e5 + 3 * counts(n, case).operations for n in (FOURIER, *case.dense)}


@pytest.fixture(scope="module")
def model() -> CostModel:
    random = np.random.default_rng(0)
    drawn = [draw_case(random, 1 + i % 2, i % 4 < 2, 1e6) for i in range(60)]
    return CostModel([(n, c, ns) for c in drawn for n, ns in made_up(c).items()])


def test_a_model_tells_the_fastest_where_it_is_clear(model: CostModel) -> None:
    chooser = Chooser(CpuStream(), model)
    many = Case(Mixture.grid((3, 5, 7, 9, 11), (1, 3, 7, 15), 8, 8), 8, (100,))
    one = Case(Mixture.grid((3,), (1,), 8, 8), 8, (100,))
    assert chooser.near(many)[0] == FOURIER
    assert chooser.near(one)[0] != FOURIER
    assert chooser.choose(many) in (FOURIER, *many.dense)
    before = chooser.trials
    chooser.choose(many)
    assert chooser.trials == before


def test_what_is_near_is_tried(model: CostModel, monkeypatch: pytest.MonkeyPatch) -> None:
    chooser = Chooser(CpuStream(), model)
    case = Case(SMALL, 2, (20,), training=False)
    monkeypatch.setattr(chooser, "near", lambda case: [WEIGHTS, FOURIER])
    assert chooser.choose(case) in (WEIGHTS, FOURIER)
    assert chooser.trials == 1


def test_a_fit_is_kept_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "costs.jsonl"
    measured: list[Case] = []

    def times(stream: object, case: Case) -> dict[str, float]:
        measured.append(case)
        return made_up(case)

    monkeypatch.setattr(cost_model, "_times", times)
    fitted_costs(CpuStream(), path, 0.0)
    assert len(measured) == 24
    lines = path.read_text().split("\n")
    path.write_text("\n".join(lines)[:-40])  # cut short: that case is measured again
    again = fitted_costs(CpuStream(), path, 0.0)
    assert measured[24:] == measured[23:24]
    assert again.predict(FOURIER, measured[0])[0] == pytest.approx(
        np.log(made_up(measured[0])[FOURIER]), abs=0.3
    )
    path.write_text(json.dumps({"case": 3}))
    with pytest.raises(PredictorError, match="remove it"):
        fitted_costs(CpuStream(), path, 0.0)


def test_a_race_runs_what_it_is_told_and_keeps_the_trials_of_the_rest() -> None:
    race = Race(CpuStream())
    seen: list[str] = []
    for name in ("a", "b", "c"):
        race.add(name, lambda name=name: seen.append(name) or sum(range(20_000)))  # type: ignore[misc,func-returns-value]
    times = race.run(["a", "b"], seconds=0.0)
    assert [len(times.by_work[name]) for name in ("a", "b", "c")] == [6, 6, 1]
    ratio = times.ratio("a", "b")
    assert ratio.low is not None
    assert ratio.high is not None
    assert ratio.low <= ratio.value <= ratio.high
    assert times.ratio("a", "c").low is None


@pytest.mark.parametrize("depthwise", [False, True])
def test_a_network_is_the_same_by_every_operator(depthwise: bool) -> None:
    plain = resnet1d(1, 10, width=4, depthwise=depthwise)
    pairs = dict.fromkeys(eligible(plain), ((3, 1), (3, 3), (5, 1), (5, 3)))
    nets = {}
    for name in (*DENSE, FOURIER):
        torch.manual_seed(0)
        nets[name] = mixed(plain, pairs, name, gumbel=False).eval()
    grouped = [m.mixture.groups > 1 for m in nets[FOURIER].modules() if isinstance(m, MixedConv)]
    assert (len(grouped), sum(grouped)) == (9, 7 if depthwise else 0)
    x = torch.randn(2, 1, 20)
    for name in DENSE:
        torch.testing.assert_close(nets[name](x), nets[FOURIER](x), rtol=1e-4, atol=1e-5)


def test_a_layer_takes_the_chosen_operator(model: CostModel) -> None:
    layer = MixedConv(SMALL, Chooser(CpuStream(), model))
    assert layer(torch.randn(2, 4, 21)).shape == (2, 6, 21)
    with pytest.raises(UnknownNameError, match="unknown operator 'fft'"):
        MixedConv(SMALL, "fft")
