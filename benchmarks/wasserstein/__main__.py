"""`python -m benchmarks.wasserstein RUN [--examples N] [--steps N]`: attacks that move mass, against a trained model.

All take as many gradients. An image counts as feasible if its exact distance (a linear program over its window, and POT
over all moves beside it) is at most eps (1 + 1e-4) and its precision error below 1e-5. The published forms are measured
as they are, before any repair. Success is of all examples, those that the model gets wrong as they are included.
"""

from __future__ import annotations

import argparse
import time
from typing import NamedTuple

import numpy as np
import ot
import torch
from torch import Tensor, nn
from torch.nn import functional

from algorithms import transport, transport_distance
from algorithms.attacks import Attack
from algorithms.attacks.wasser_attack import WasserAttack
from algorithms.attacks.wasserstein_frank_wolfe import WassersteinFrankWolfe
from algorithms.attacks.wasserstein_pgd import WassersteinPGD
from algorithms.search import search
from benchmarks.wasserstein.memory import memory
from orchestrator.evaluations.targets import find, network_of
from workers.cache import open_split

RADII = (0.3, 0.5, 0.9)
PUBLISHED = 0.5  # the radius that published forms are shown at


class Found(NamedTuple):
    """What an attack did."""

    x_adv: Tensor
    success: Tensor
    seconds: float  # of the process


def contestants(eps: float, steps: int) -> dict[str, Attack]:
    """The attacks, and at one radius their published forms."""
    ours: dict[str, Attack] = {
        "WasserAttack": WasserAttack(eps=eps, steps=steps),
        "Frank-Wolfe": WassersteinFrankWolfe(eps=eps, steps=steps),
        "projected Sinkhorn": WassersteinPGD(eps=eps, steps=steps),
    }
    if eps != PUBLISHED:
        return ours
    tanh = WasserAttack(eps=eps, steps=steps, encoding="tanh", step_size=0.1, loss="margin", repair=False)
    uncapped = WassersteinFrankWolfe(eps=eps, steps=steps, capped=False, entropy=1e-3, loss="cross_entropy")
    clipped = WassersteinPGD(eps=eps, steps=steps, repair=False)
    return ours | {
        "WasserAttack, tanh, published": tanh,
        "Frank-Wolfe, no cap, repaired": uncapped,
        "projected Sinkhorn, published": clipped,
    }


def attacked(attack: Attack, model: nn.Module, x: Tensor, y: Tensor) -> Found:
    """The strongest images, and whether they fool."""
    began = time.process_time()
    record = search(attack, model, x, y, rng=torch.Generator().manual_seed(0), policy="highest loss")
    return Found(record.x_adv, record.success, time.process_time() - began)


def least(x: Tensor, x_adv: Tensor) -> list[float]:
    """POT's distances over all moves, for squared distances; the rounding of the mass is spread."""
    height, width = x.shape[2:]
    places = np.stack(np.meshgrid(np.arange(height), np.arange(width), indexing="ij"), -1).reshape(-1, 2).astype(float)
    cost = ((places[:, None] - places[None]) ** 2).sum(2)
    found = []
    for a, b in zip(x.double().flatten(1).numpy(), x_adv.double().flatten(1).numpy(), strict=True):
        one, other = a > 0, b > 0
        matrix = np.ascontiguousarray(cost[one][:, other])
        found.append(float(ot.emd2(a[one], b[other] * a.sum() / b.sum(), matrix, numItermax=10**6)) / a.sum())
    return found


def line(name: str, eps: float, found: Found, images: tuple[nn.Module, Tensor, Tensor]) -> str:
    """A row of the table."""
    model, x, y = images
    error = transport.precision_error(x.double(), found.x_adv.double())
    moved = transport_distance.distance(x.double(), found.x_adv.double(), 5, 2, "l2") / eps
    feasible = (moved <= 1 + 1e-4) & (error < 1e-5)
    with torch.no_grad():
        loss = functional.cross_entropy(model(found.x_adv), y).item()
    exact = max(least(x, found.x_adv)) / eps
    return (
        f"| {name} | {eps} | {found.success.float().mean():.2f} | {(found.success & feasible).float().mean():.2f} | "
        f"{loss:.2f} | {error.mean():.0e} | {error.max():.0e} | {moved.max():.5f} | {exact:.5f} | {found.seconds:.0f} |"
    )


def main() -> None:
    """Prints tables for docs/results.md."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.wasserstein", description=__doc__)
    parser.add_argument("run", help="name or folder of a run on grey images")
    parser.add_argument("--examples", type=int, default=100)
    parser.add_argument("--steps", type=int, default=50)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    target = find(chosen.run)
    split = open_split(target.recipe.dataset, "test")
    model = network_of(target, split).eval().requires_grad_(False)
    x, y = split.images(np.arange(chosen.examples)), split.labels(np.arange(chosen.examples))
    print("| attack | eps | success | feasible | cross-entropy | precision, mean | largest | W/eps | POT | CPU s |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for eps in RADII:
        for name, attack in contestants(eps, chosen.steps).items():
            print(line(name, eps, attacked(attack, model, x, y), (model, x, y)), flush=True)
    tanh = contestants(PUBLISHED, chosen.steps)["WasserAttack, tanh, published"]
    assert isinstance(tanh, WasserAttack)
    rows = tanh.audit(model, x, y, rng=torch.Generator().manual_seed(0))
    means = {name: f"{value.mean():.1e}" for name, value in rows._asdict().items()}
    print(f"\nThe published plans before any repair, means: {means}\n")
    print(memory())


if __name__ == "__main__":
    main()
