"""Gradients of shards: batch norm's statistics in order, sums over a tree, dropout from the shard's own numbers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from algorithms.defenses.standard import Standard
from workers.descent import apply_statistics, shard_gradient, split_flat, tree_sum


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(108, 4)).double()


def shards() -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(3, 6, 1, 8, 8, generator=generator, dtype=torch.float64)
    return [(part, torch.randint(0, 4, (6,), generator=generator)) for part in x]


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(5)


def test_gradient_is_autograds() -> None:
    model, (x, y) = network(), shards()[0]
    part = shard_gradient(model, Standard(), (x, x, y), rng())
    nn.functional.cross_entropy(model(x), y).backward()
    expected = torch.cat([p.grad.reshape(-1) for p in model.parameters()])
    torch.testing.assert_close(part.gradient, expected, rtol=1e-12, atol=0)


def test_running_statistics_move_as_if_the_shards_came_one_after_the_other() -> None:
    model, oracle = network(), network()
    parts = [shard_gradient(model, Standard(), (x, x, y), rng()) for x, y in shards()]
    apply_statistics(model, [part.statistics for part in parts])
    for x, _ in shards():
        oracle(x)
    for ours, theirs in zip(model.buffers(), oracle.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    assert int(model[1].num_batches_tracked) == 3


def test_a_shard_leaves_the_buffers_as_they_were() -> None:
    model, (x, y) = network(), shards()[0]
    before = [buffer.clone() for buffer in model.buffers()]
    shard_gradient(model, Standard(), (x, x, y), rng())
    assert all(torch.equal(a, b) for a, b in zip(before, model.buffers(), strict=True))
    with pytest.raises(FloatingPointError, match="the loss is nan"):
        shard_gradient(model, Standard(), (x * torch.nan, x, y), rng())
    assert all(torch.equal(a, b) for a, b in zip(before, model.buffers(), strict=True))


def test_dropout_draws_from_the_shards_numbers_and_not_from_the_global_generator() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 4)).double()
    x, y = shards()[0]
    torch.manual_seed(123)
    before = torch.random.get_rng_state()
    first = shard_gradient(model, Standard(), (x, x, y), rng()).gradient
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(321)
    assert torch.equal(shard_gradient(model, Standard(), (x, x, y), rng()).gradient, first)
    other = torch.Generator().manual_seed(6)
    assert not torch.equal(shard_gradient(model, Standard(), (x, x, y), other).gradient, first)


def test_an_unused_parameter_has_a_zero_gradient() -> None:
    model = network()
    model.register_parameter("unused", nn.Parameter(torch.ones(7, dtype=torch.float64)))
    x, y = shards()[0]
    flat = shard_gradient(model, Standard(), (x, x, y), rng()).gradient
    named = split_flat(flat, dict(model.named_parameters()))
    assert named["unused"].eq(0).all()
    assert named["4.weight"].shape == (4, 108)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8])
def test_the_tree_adds_pairs_and_then_pairs_of_pairs(count: int) -> None:
    parts = [torch.full((3,), 10.0**-i) for i in range(count)]
    by_hand = {
        1: lambda p: p[0],
        2: lambda p: p[0] + p[1],
        3: lambda p: (p[0] + p[1]) + p[2],
        5: lambda p: ((p[0] + p[1]) + (p[2] + p[3])) + p[4],
        8: lambda p: ((p[0] + p[1]) + (p[2] + p[3])) + ((p[4] + p[5]) + (p[6] + p[7])),
    }
    assert torch.equal(tree_sum(parts), by_hand[count](parts))


def test_a_cumulative_average_is_refused_by_name() -> None:
    model = nn.Sequential(nn.BatchNorm2d(1, momentum=None), nn.Flatten(), nn.Linear(64, 4)).double()
    x, y = shards()[0]
    with pytest.raises(ValueError, match="batch norm '0' averages cumulatively"):
        shard_gradient(model, Standard(), (x, x, y), rng())
