"""A group of trainers, in processes of this machine: every rank has the sum that one process would have."""

from __future__ import annotations

import multiprocessing
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import pytest
import torch

from orchestrator.recipe import Workers
from workers.descent import ShardGradient, Statistics, tree_sum
from workers.ranks import RankLost, Ranks

SHARDS = 7
CPU = torch.device("cpu")


def parts() -> list[ShardGradient]:
    """Gradients whose sum depends on the order of addition."""
    rng = np.random.default_rng(0)
    gradients = [(10.0 ** rng.integers(-4, 5, 999) * rng.normal(size=999)).astype(np.float32) for _ in range(SHARDS)]
    statistics = [{"mean": Statistics(0.9, g[:3])} for g in gradients]
    return [ShardGradient(float(i), torch.from_numpy(g), statistics[i]) for i, g in enumerate(gradients)]


def rank_of(size: int, rank: int, pipe: Connection, way: Any) -> None:
    """One of the processes."""
    ranks = Ranks(rank, size, CPU)
    pipe.send(ranks.listen() if rank == 0 else None)
    ranks.join("127.0.0.1", pipe.recv(), 60)
    if way == "dies":
        if rank == 1:
            return
        try:
            ranks.total(ranks.mine(parts()), "tree")
        except RankLost:
            pipe.send("lost")
        return
    total = ranks.total(ranks.mine(parts()), way)
    pipe.send((total.gradient.numpy(), total.losses, [statistics["mean"].shift for statistics in total.statistics]))


def together(size: int, way: str) -> list[Any]:
    """What each rank of a group found; nothing from those that say nothing."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["workers.ranks"])
    pipes = [context.Pipe() for _ in range(size)]
    group = [context.Process(target=rank_of, args=(size, rank, pipes[rank][1], way)) for rank in range(size)]
    for process in group:
        process.start()
    port, *_ = [pipe.recv() for pipe, _ in pipes]
    for pipe, _ in pipes:
        pipe.send(port)
    found = [pipe.recv() for pipe, _ in (pipes[:1] if way == "dies" else pipes)]
    for process in group:
        process.join(60)
    return found


def test_every_rank_has_the_sum_of_the_tree() -> None:
    expected = tree_sum([part.gradient for part in parts()])
    for gradient, losses, shifts in together(3, "tree"):
        assert gradient.tobytes() == expected.numpy().tobytes()
        assert losses == list(range(SHARDS))
        assert all(np.array_equal(a, part.statistics["mean"].shift) for a, part in zip(shifts, parts(), strict=True))


def test_an_all_reduce_gives_all_ranks_the_same_sum_up_to_rounding() -> None:
    (first, *_), (second, *_) = together(2, "all-reduce")
    assert first.tobytes() == second.tobytes()
    expected = torch.stack([part.gradient for part in parts()]).double().sum(0)
    assert np.allclose(first, expected, rtol=1e-4, atol=1e-2)
    assert first.tobytes() != tree_sum([part.gradient for part in parts()]).numpy().tobytes()


def test_the_loss_of_a_rank_is_told_to_the_others() -> None:
    assert together(2, "dies") == ["lost"]


def test_one_alone_needs_no_network() -> None:
    total = Ranks(0, 1, CPU).total(parts(), "all-reduce")
    assert total.gradient.numpy().tobytes() == tree_sum([part.gradient for part in parts()]).numpy().tobytes()


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_each_shard_has_one_rank(size: int) -> None:
    taken = [Ranks(rank, size, CPU).mine(range(SHARDS)) for rank in range(size)]
    assert sorted(shard for some in taken for shard in some) == list(range(SHARDS))


def test_trainers_on_gpus_have_one_each() -> None:
    """NCCL refuses two ranks on one GPU, long after the start."""
    with pytest.raises(ValueError, match=r"^trainer_gpus: at least 1 for each of 2 trainers, not 0\.5"):
        Workers(trainers=2, device="cuda", trainer_gpus=0.5)
    assert Workers(trainers=2, device="cuda", trainer_gpus=1).trainers == 2
    assert Workers(trainers=1, device="cuda", trainer_gpus=0.5).trainers == 1
