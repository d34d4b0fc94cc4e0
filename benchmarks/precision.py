"""What bfloat16 saves of PGD-10 in training, by network, size of images and of shards; weights are random."""

from __future__ import annotations

from functools import partial

import torch

from algorithms.attacks.pgd import PGD
from algorithms.batch_norm import folded
from algorithms.defenses.adversarial import Adversarial
from algorithms.models import Model
from algorithms.models.cnn4 import Cnn4
from algorithms.models.madry_cnn import MadryCnn
from algorithms.models.mlp import Mlp
from algorithms.models.wong_mnist import WongMnist
from benchmarks.measuring import CPU, Row, compare
from workers import runtime
from workers.messages import Precision

SIDES, SHARDS, PAIRS = (8, 28), (32, 128), 5
MODELS: dict[str, Model] = {
    "mlp, 200 units": Mlp(hidden=(200,)),
    "mlp, 3 x 1000 units": Mlp(),
    "wong_mnist": WongMnist(),
    "cnn4": Cnn4(),
    "madry_cnn": MadryCnn(),
}


def run() -> list[Row]:
    """A row a network, a side and a shard."""
    return [ratio(name, side, shard) for name in MODELS for side in SIDES for shard in SHARDS]


def ratio(name: str, side: int, shard: int) -> Row:
    """The time of a shard's examples in bfloat16 over that in float32."""
    model = runtime.arranged(MODELS[name].build((1, side, side), 10)).eval()
    x, y = torch.rand(shard, 1, side, side), torch.randint(0, 10, (shard,))
    defense = Adversarial(attack=PGD(eps=0.1, step_size=0.025, steps=10))

    def work(precision: Precision) -> None:
        with folded(opponents[precision], exact=model):
            defense.perturb(opponents[precision], x, y, rng=torch.Generator().manual_seed(0))

    opponents = {"float32": model, "bfloat16": runtime.lowered(model, "bfloat16").eval()}
    names = f"{name}, {side}x{side}, shards of {shard}", "float32"
    return compare(names, partial(work, "bfloat16"), partial(work, "float32"), CPU, PAIRS)
