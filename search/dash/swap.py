"""A network's convolutions, swapped: for mixtures to search, for what was chosen to train.

Any torch module will do. Eligible are dense, grouped and depthwise convolutions with an odd kernel,
alike in all directions, whose padding keeps the size: what a mixture can stand for.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product

import torch
from torch import Tensor, nn

from hwbench.errors import UsageError
from hwbench.search.dash.choice import Chooser
from hwbench.search.dash.mixture import Mixture
from hwbench.search.dash.module import MixedConv

Conv = nn.Conv1d | nn.Conv2d
#: A kernel size and a dilation.
Pair = tuple[int, int]
#: What each convolution is, by its name in the network.
Choice = Mapping[str, Pair]
#: What each may be.
Candidates = Mapping[str, tuple[Pair, ...]]


def eligible(net: nn.Module, pointwise: bool = False) -> dict[str, Conv]:
    """The convolutions that can be searched, by name; those of one tap only if ``pointwise``.

    UsageError where there is none.
    """
    convs = {n: m for n, m in net.named_modules() if type(m) in (nn.Conv1d, nn.Conv2d)}
    found = {name: conv for name, conv in convs.items() if _fits(conv, 1 if pointwise else 3)}
    if not found:
        raise UsageError(
            f"none of the {len(convs)} convolutions of {type(net).__name__} can be searched: they "
            "need an odd kernel (not 1x1), alike in all directions, and padding that keeps the size"
        )
    return found


def _fits(conv: Conv, least: int) -> bool:
    k, d = conv.kernel_size[0], conv.dilation[0]
    alike = all(len(set(each)) == 1 for each in (conv.kernel_size, conv.dilation, conv.stride))
    same = conv.padding == "same" or all(p == d * (k // 2) for p in conv.padding)
    return alike and same and k % 2 == 1 and k >= least and conv.padding_mode == "zeros"


@torch.no_grad()
def sizes_read(
    net: nn.Module, names: Iterable[str], shape: Sequence[int]
) -> dict[str, tuple[int, ...]]:
    """The sizes (n, …) that each of these convolutions reads of one sample of ``shape`` (c, n, …).

    UsageError where the network does not run on that, or uses a convolution twice or never.
    """
    read: dict[str, tuple[int, ...]] = {}

    def watcher(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def seen(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if name in read:
                raise UsageError(f"{name} is used twice: give each place a convolution of its own")
            read[name] = tuple(inputs[0].shape[2:])

        return seen

    wanted = dict.fromkeys(names)
    hooks = [net.get_submodule(n).register_forward_pre_hook(watcher(n)) for n in wanted]
    try:
        answer(net, shape)
    finally:
        for hook in hooks:
            hook.remove()
    if unused := [name for name in wanted if name not in read]:
        raise UsageError(f"{unused[0]} is never used: take it out of the network")
    return read


@torch.no_grad()
def answer(net: nn.Module, shape: Sequence[int]) -> Tensor:
    """What a network answers to two samples of ``shape`` (c, n, …), whatever is in them.

    UsageError where it does not run on them, or gives something else than a tensor of two.
    """
    was = net.training
    try:
        found = net.eval()(torch.zeros(2, *shape))
    except UsageError:
        raise
    except Exception as error:
        said = " ".join(str(error).split())
        raise UsageError(
            f"{type(net).__name__} does not run on samples of shape {tuple(shape)}: {said}"
        ) from error
    finally:
        net.train(was)
    if not isinstance(found, Tensor) or found.shape[:1] != (2,):
        raise UsageError(f"{type(net).__name__} gives no tensor with one answer a sample")
    return found


def candidates_for(
    sizes: Mapping[str, tuple[int, ...]], kernels: Sequence[int], dilations: Sequence[int]
) -> dict[str, tuple[Pair, ...]]:
    """For each convolution the pairs that make a difference to an input of these sizes.

    Where the outermost taps read nothing, a smaller kernel does the same. A convolution with less
    than two such pairs is left out. UsageError where none has, and for kernels that have no centre.
    """
    for k in kernels:
        if k < 1 or k % 2 == 0:
            raise UsageError(f"kernel size {k}: it has no centre; take an odd number")
    if not kernels or not dilations or min(dilations) < 1:
        raise UsageError("name at least one kernel size and one dilation, from 1 on")
    longest = max((min(n) for n in sizes.values()), default=0)
    if min(kernels) > longest:
        raise UsageError(
            f"a kernel of {min(kernels)} taps does not fit into {longest} places: take smaller "
            "kernels, or longer inputs"
        )
    found = {}
    for name, n in sizes.items():
        pairs = dict.fromkeys((k, d if k > 1 else 1) for k, d in product(kernels, dilations))
        fit = tuple((k, d) for k, d in pairs if k <= min(n) and (k == 1 or d * (k // 2) < min(n)))
        if len(fit) > 1:
            found[name] = fit
    if not found:
        raise UsageError("no convolution has two candidates that differ: name more of them")
    return found


def mixed(
    net: nn.Module, candidates: Candidates, method: str | Chooser, *, gumbel: bool = True
) -> nn.Module:
    """A copy of the network whose convolutions are mixtures of these candidates."""

    def make(name: str, conv: Conv) -> nn.Module:
        mixture = Mixture(
            candidates[name],
            conv.in_channels,
            conv.out_channels,
            len(conv.kernel_size),
            conv.groups,
            conv.stride[0],
        )
        return MixedConv(mixture, method, bias=conv.bias is not None, gumbel=gumbel)

    return _swapped(net, candidates, make)


def decoded(net: nn.Module, choice: Choice) -> nn.Module:
    """A copy of the network with plain convolutions of the kernel sizes and dilations chosen."""

    def make(name: str, conv: Conv) -> nn.Module:
        k, d = choice[name]
        return type(conv)(
            conv.in_channels,
            conv.out_channels,
            k,
            conv.stride[0],
            d * (k // 2),
            d,
            conv.groups,
            conv.bias is not None,
        )

    return _swapped(net, choice, make)


def _swapped(
    net: nn.Module, names: Iterable[str], make: Callable[[str, Conv], nn.Module]
) -> nn.Module:
    net = copy.deepcopy(net)
    for name in names:
        parent, _, own = name.rpartition(".")
        conv: Conv = net.get_submodule(name)  # type: ignore[assignment]
        setattr(net.get_submodule(parent), own, make(name, conv))
    return net


def renewed(net: nn.Module, seed: int) -> nn.Module:
    """The network with weights drawn anew, wherever its layers say how."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for module in net.modules():
            if callable(reset := getattr(module, "reset_parameters", None)):
                reset()
    return net
