"""The gradient of a defense's loss on one shard, and the sum over shards: the same bits wherever each part is taken.

Batch norm normalises over a shard. Its running statistics move by `r <- (1 - m)^n r + c`, where a shard's passes
(n of them) decide `c`; shards are applied in their order, so the statistics do not depend on who worked on which. What
shards add to the buffers of a defense's companions adds up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from algorithms.defenses import Defense
from algorithms.smoothing import smoothed
from algorithms.team import Team, model_of
from algorithms.tensors import Images, Labels
from algorithms.weight_perturbation import perturbed, weights_of


class Statistics(NamedTuple):
    """How a shard moves one buffer: `buffer <- decay * buffer + shift`."""

    decay: float
    shift: NDArray[Any]


class ShardGradient(NamedTuple):
    """What a shard contributes to a step."""

    loss: float
    gradient: Tensor  # all parameters' gradients, flat, in the model's order, on the device where they were taken
    statistics: dict[str, Statistics]  # by the name of the buffer


class SentGradient(NamedTuple):
    """The same on its way to another process: an array, so that Ray moves it without copying."""

    loss: float
    gradient: NDArray[Any]
    statistics: dict[str, Statistics]


class Learning(NamedTuple):
    """How gradients are taken, whatever the defense."""

    label_smoothing: float = 0.0  # share of each label that all classes get alike
    weight_perturbation: float = 0.0  # size of the adversarial perturbation of each weight, relative to its norm


PLAIN = Learning()


def shard_gradient(
    model: nn.Module,
    defense: Defense,
    examples: tuple[Images, Images, Labels],
    rng: torch.Generator,
    learning: Learning = PLAIN,
) -> ShardGradient:
    """Gradient of the mean loss over a shard (`x`, `x_adv`, `y`), in training mode. The model's buffers come back.

    With weights perturbed, loss and gradient are those there; the perturbation is the shard's own. Raises
    FloatingPointError if the loss is not finite.
    """
    before = {name: buffer.detach().clone() for name, buffer in model.named_buffers()}
    parameters = list(model.parameters())
    model.train()
    x, x_adv, y = examples
    state = rng.get_state()

    def loss_now() -> Tensor:
        rng.set_state(state)
        with dropout_from(rng, x.device), smoothed(learning.label_smoothing):
            loss = defense.loss(model, x, x_adv, y, rng=rng)
        if not torch.isfinite(loss):
            raise FloatingPointError(f"the loss is {loss.item()}")
        return loss

    try:
        with worst_weights(model, loss_now, learning.weight_perturbation):
            restore(model, before)
            loss = loss_now()
            gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        statistics = moved(model, before)
    finally:
        restore(model, before)
    flat = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, gradients, strict=True)]
    return ShardGradient(float(loss.detach()), torch.cat([g.reshape(-1) for g in flat]), statistics)


def sent(part: ShardGradient) -> SentGradient:
    """A shard's gradient, ready to leave the process."""
    return SentGradient(part.loss, array(part.gradient), part.statistics)


def received(part: SentGradient, device: torch.device) -> ShardGradient:
    """A shard's gradient that another process has taken."""
    return ShardGradient(part.loss, tensor(part.gradient, device), part.statistics)


@contextmanager
def worst_weights(model: nn.Module, loss: Callable[[], Tensor], size: float) -> Iterator[None]:
    """Within the block the model's weights, and not its companions', are adversarially perturbed; 0: as they are."""
    if size == 0:
        yield
        return
    weights = weights_of(model_of(model))
    slopes = torch.autograd.grad(loss(), weights, allow_unused=True)
    gradients = [torch.zeros_like(w) if g is None else g for w, g in zip(weights, slopes, strict=True)]
    with perturbed(weights, gradients, size):
        yield


@contextmanager
def dropout_from(rng: torch.Generator, device: torch.device) -> Iterator[None]:
    """Within the block torch's global generator, which dropout draws from, is seeded by `rng`; then it is as before."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(int(torch.randint(1 << 62, (), generator=rng)))
        yield


def moved(model: nn.Module, before: dict[str, Tensor]) -> dict[str, Statistics]:
    """How the forward passes since `before` have moved the buffers."""
    statistics = {}
    decays = _decays(model, before)
    for name, buffer in model.named_buffers():
        if name in decays:
            statistics[name] = Statistics(decays[name], array(buffer - decays[name] * before[name]))
        elif not torch.equal(buffer, before[name]):
            adds = name.startswith("companions.") and isinstance(model, Team)
            decay = 1 if adds or not buffer.is_floating_point() else 0.0  # a count (of batches seen, say) adds up
            statistics[name] = Statistics(decay, array(buffer - decay * before[name]))
    return statistics


def _decays(model: nn.Module, before: dict[str, Tensor]) -> dict[str, float]:
    """(1 - momentum)^passes for each running statistic of a batch norm."""
    decays: dict[str, float] = {}
    for path, module in model.named_modules():
        if not isinstance(module, _BatchNorm) or module.num_batches_tracked is None:
            continue
        if module.momentum is None:
            raise ValueError(f"batch norm {path!r} averages cumulatively; give it a momentum")
        prefix = f"{path}." if path else ""
        passes = int(module.num_batches_tracked) - int(before[f"{prefix}num_batches_tracked"])
        for name in ("running_mean", "running_var"):
            decays[prefix + name] = (1 - module.momentum) ** passes
    return decays


def restore(model: nn.Module, buffers: dict[str, Tensor]) -> None:
    """Puts buffers back."""
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            buffer.copy_(buffers[name])


def apply_statistics(model: nn.Module, statistics: Sequence[dict[str, Statistics]]) -> None:
    """Moves the buffers by each shard's statistics, in the order of the shards."""
    buffers = dict(model.named_buffers())
    with torch.no_grad():
        for shard in statistics:
            for name, (decay, shift) in shard.items():
                buffers[name].mul_(decay).add_(tensor(shift, buffers[name].device))


def tree_sum(parts: Sequence[Tensor]) -> Tensor:
    """Sum over a fixed binary tree: pairs, then pairs of pairs. The order never depends on who came first."""
    while len(parts) > 1:
        pairs = [parts[i] + parts[i + 1] for i in range(0, len(parts) - 1, 2)]
        parts = [*pairs, parts[-1]] if len(parts) % 2 else pairs
    return parts[0]


def array(values: Tensor) -> NDArray[Any]:
    """A tensor as an array on the host; shares memory where it can."""
    return values.detach().cpu().numpy()


def tensor(values: NDArray[Any], device: torch.device) -> Tensor:
    """An array, which may be read-only shared memory, as a tensor of its own."""
    return torch.tensor(values, device=device)


def split_flat(flat: Tensor, like: dict[str, Tensor]) -> dict[str, Tensor]:
    """Views into a flat tensor, named and shaped like `like`."""
    pieces = flat.split([t.numel() for t in like.values()])
    return {name: piece.view(t.shape) for (name, t), piece in zip(like.items(), pieces, strict=True)}
