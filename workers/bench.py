"""What attackers and trainers have in common: the run's examples, its network, and the gradient on a shard."""

from __future__ import annotations

from typing import NamedTuple, final

import numpy as np
import torch
from torch import nn

from algorithms.defenses import Defense
from algorithms.normalisation import Whiten
from algorithms.team import Team, accompanied
from algorithms.tensors import Images, Labels
from workers import runtime, schedule
from workers.cache import open_split
from workers.descent import Learning, ShardGradient, shard_gradient
from workers.messages import Shard, Work

FITTED = 10_000  # training images, at most, that a layer is fitted to


class Batch(NamedTuple):
    """A shard's examples, augmented."""

    x: Images
    y: Labels


@final
class Bench:
    """A worker's network and data, made from nothing but the `Work`.

    `model` is what is kept and evaluated; `network` is what is trained: the model, or a team of it and companions.
    """

    def __init__(self, work: Work) -> None:
        self.work = work
        self.device = runtime.prepare(work.device, work.threads)
        self.split = open_split(work.dataset, "train")
        shape, classes = self.split.shape, len(self.split.classes)
        self.model = runtime.arranged(runtime.build(work.model, shape, classes, work.seed).to(self.device))
        self.companions = runtime.companions(work, shape, classes)
        self.network = accompanied(self.model, self.companions)
        self.steps = work.epochs * schedule.steps_per_epoch(work, len(self.split))

    def fit(self) -> None:
        """Fits the layers that know the training images. Who loads a snapshot gets them with it."""
        layers = [module for module in self.model.modules() if isinstance(module, Whiten)]
        if layers:
            training = schedule.divide(len(self.split), self.work.validation, self.work.seed).training
            places = np.linspace(0, len(training) - 1, min(len(training), FITTED)).round().astype(np.int64)
            images = self.split.images(training[places]).to(self.device)
            for layer in layers:
                layer.fit(images)

    def progress(self, step: int) -> float:
        """How far the run has come before `step`, in [0, 1)."""
        return schedule.progress(step, self.steps)

    def defense(self, step: int) -> Defense:
        """The run's defense as it is at `step`."""
        return self.work.defense.at(self.progress(step))

    def places(self, shard: Shard) -> schedule.Indices:
        """The examples of a shard, as indices into the training part."""
        return schedule.indices(self.work, len(self.split), shard)

    def read(self, shard: Shard) -> Batch:
        """The examples of a shard, with their augmentation."""
        chosen = self.places(shard)
        seed = runtime.seed_of(self.work.seed, "augment")
        x = self.work.augmentation(
            self.split.images(chosen), seed=seed, epoch=shard.epoch, indices=torch.from_numpy(chosen)
        )
        return Batch(x.to(self.device), self.split.labels(chosen).to(self.device))

    def placed(self, network: nn.Module, shard: Shard) -> nn.Module:
        """The network, or a copy of it, told which rows of the step's batch the shard holds."""
        if isinstance(network, Team):
            first = shard.number * self.work.shard
            network.rows = slice(first, first + self.work.shard)
        return network

    def gradient(self, shard: Shard, batch: Batch, x_adv: Images) -> ShardGradient:
        """The gradient of the defense's loss on a shard."""
        rng = runtime.rng_of(self.work.seed, "loss", shard.epoch, shard.step, shard.number)
        network = self.placed(self.network, shard)
        learning = Learning(self.work.label_smoothing, self.work.weight_perturbation)
        return shard_gradient(network, self.defense(shard.step), (batch.x, x_adv, batch.y), rng, learning)
