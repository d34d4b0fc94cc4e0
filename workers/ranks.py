"""Several trainers as one: each takes the gradient on some of a step's shards, and all make the same update.

`tree` gathers every shard's gradient everywhere and adds them over the fixed tree of `workers.descent`, so the sum is
the same to the last bit for one rank or many. `all-reduce` sends one sum a rank instead of its shards' gradients: less
traffic and less memory, and other last bits for each number of ranks. torch.distributed carries both: gloo between
CPUs, NCCL between GPUs. All that NCCL is asked for is one tensor a step; losses and statistics go by gloo there too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from itertools import chain, zip_longest
from typing import NamedTuple, TypeVar, final

import torch
from torch import Tensor, distributed
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from workers.descent import ShardGradient, Statistics, tree_sum
from workers.messages import Reduction

Item = TypeVar("Item")
Facts = list[tuple[float, dict[str, Statistics]]]  # a shard's loss and statistics


class RankLost(Exception):  # noqa: N818 - a thing that happens, and is mended
    """Another trainer of the group is gone, so that this one cannot go on either."""


class Total(NamedTuple):
    """What all shards of a step come to."""

    gradient: Tensor  # the sum over shards, flat
    losses: list[float]  # by shard
    statistics: list[dict[str, Statistics]]  # by shard


@final
class Ranks:
    """One trainer's view of its group; a group of one needs no network."""

    def __init__(self, rank: int, size: int, device: torch.device) -> None:
        self.rank, self.size, self.device = rank, size, device
        self.store: TCPStore | None = None

    def listen(self) -> int:
        """Rank 0: begins to wait for the others; returns the port."""
        self.store = TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
        return int(self.store.port)

    def join(self, host: str, port: int, seconds: float) -> None:
        """Meets the others at rank 0's address. Whoever waits longer than so many seconds gives up."""
        patience = timedelta(seconds=seconds)
        store = self.store or TCPStore(host, port, is_master=False, timeout=patience)
        backend = "cpu:gloo,cuda:nccl" if self.device.type == "cuda" else "gloo"
        distributed.init_process_group(backend, store=store, rank=self.rank, world_size=self.size, timeout=patience)

    def mine(self, items: Sequence[Item]) -> Sequence[Item]:
        """Those of a step's shards, or of what belongs to them, that this rank takes."""
        return items[self.rank :: self.size]

    def total(self, parts: Sequence[ShardGradient], way: Reduction) -> Total:
        """What all ranks' shards come to; the same everywhere. Raises RankLost."""
        facts: Facts = [(part.loss, part.statistics) for part in parts]
        if self.size == 1:
            gradient = tree_sum([part.gradient for part in parts])
        else:
            facts = self._facts(facts)
            add = self._reduced if way == "all-reduce" else self._gathered
            gradient = add([part.gradient for part in parts], len(facts))
        return Total(gradient, [loss for loss, _ in facts], [statistics for _, statistics in facts])

    def _facts(self, facts: Facts) -> Facts:
        """All shards' losses and statistics, in the order of the shards."""
        found: list[Facts] = [[] for _ in range(self.size)]
        with _together():
            distributed.all_gather_object(found, facts)
        return [fact for fact in chain.from_iterable(zip_longest(*found)) if fact is not None]

    def _gathered(self, gradients: Sequence[Tensor], count: int) -> Tensor:
        """The sum over the fixed tree of all shards' gradients. Ranks with one shard less send zeros for it."""
        most = -(-count // self.size)
        own = torch.stack([*gradients, *[torch.zeros_like(gradients[0])] * (most - len(gradients))])
        everywhere = torch.empty((self.size, *own.shape), dtype=own.dtype, device=own.device)
        with _together():
            distributed.all_gather(list(everywhere), own)
        return tree_sum(everywhere.transpose(0, 1).flatten(0, 1)[:count].unbind())

    def _reduced(self, gradients: Sequence[Tensor], count: int) -> Tensor:
        """The sum of the ranks' sums, in whatever order the network adds them."""
        own = tree_sum(gradients).clone()
        with _together():
            distributed.all_reduce(own)
        return own


@contextmanager
def _together() -> Iterator[None]:
    """Where all ranks have to come: what the network raises there is the loss of one of them."""
    try:
        yield
    except RuntimeError as error:  # gloo's and NCCL's own, and a timeout
        raise RankLost(str(error)) from error
