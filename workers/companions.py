"""What an evaluation brings for attacks that need more than the model: surrogates by reference, guides by name."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from algorithms import companions
from algorithms.attacks import Attack
from algorithms.models import Model
from workers import runtime
from workers.bench import Bench
from workers.cache import Split
from workers.messages import Snapshot


class Surrogate(NamedTuple):
    """Another model that attacks are made on: how to build it, and its parameters and buffers."""

    model: Model
    snapshot: Snapshot


def accompanied(bench: Bench, attack: Attack | None, surrogate: Surrogate | None) -> nn.Module:
    """The bench's model together with what the attack asks for beside it; the model itself if that is nothing."""
    model, other = bench.model, None if surrogate is None else built(bench, surrogate)
    each = companions.guides_of(attack)
    if each:
        chosen = guides(bench.split, each)
        images, classes = bench.split.images(chosen).to(bench.device), bench.split.labels(chosen).to(bench.device)
        model = companions.WithGuides(model, images, classes)
        other = None if other is None else companions.WithGuides(other, images, classes)
    return model if other is None else companions.WithSurrogate(model, other)


def built(bench: Bench, surrogate: Surrogate) -> nn.Module:
    """The surrogate's network, for the images and on the device of the bench."""
    fresh = runtime.build(surrogate.model, bench.split.shape, len(bench.split.classes), bench.work.seed)
    network = runtime.arranged(fresh.to(bench.device))
    runtime.load(network, surrogate.snapshot)
    return network


def guides(split: Split, each: int) -> NDArray[np.int64]:
    """The first `each` examples of every class of a part, in the order of the classes; all where there are fewer."""
    labels = split.labels(np.arange(len(split)))
    found = [torch.nonzero(labels == label).squeeze(1)[:each] for label in range(len(split.classes))]
    return torch.cat(found).numpy()
