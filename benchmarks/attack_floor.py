"""Attacks against their floor: the same forward and backward passes, in the same batches, and nothing else.

The floor is recorded from the attack itself: how many images went forward each time, and how often backward. So it
leaves out what an attack adds to its passes: steps, projections, judging, counting, and leaving rows out.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from algorithms.attacks import Attack
from algorithms.attacks.apgd import APGD
from algorithms.attacks.boundary import Boundary
from algorithms.attacks.brendel_bethge import BrendelBethge
from algorithms.attacks.carlini_wagner import CarliniWagner
from algorithms.attacks.daa import DAA
from algorithms.attacks.ddn import DDN
from algorithms.attacks.deepfool import DeepFool
from algorithms.attacks.ead import EAD
from algorithms.attacks.fab import FAB
from algorithms.attacks.fgsm import FGSM
from algorithms.attacks.fmn import FMN
from algorithms.attacks.jsma import JSMA
from algorithms.attacks.lbfgs import LBFGS
from algorithms.attacks.one_pixel import OnePixel
from algorithms.attacks.pdgd import PDGD
from algorithms.attacks.pdpgd import PDPGD
from algorithms.attacks.pgd import PGD
from algorithms.attacks.sigma_zero import SigmaZero
from algorithms.attacks.sparsefool import SparseFool
from algorithms.attacks.spsa import SPSA
from algorithms.attacks.square import Square
from algorithms.balls import Norm
from algorithms.convolution import quickened
from algorithms.models.cnn4 import Cnn4
from algorithms.models.madry_cnn import MadryCnn
from algorithms.modes import frozen
from algorithms.search import search
from benchmarks.measuring import CPU, Row, compare

BATCH, EPS, STEPS = 64, 0.3, 10
WORTH = 1e4  # of a wrong class: the slopes of a network with random weights are small, and with less nothing moves
NORMS: tuple[Norm, ...] = ("linf", "l2", "l1", "l0")
ATTACKS: dict[str, Attack] = {
    "FGSM": FGSM(eps=EPS),
    "PGD linf": PGD(eps=EPS, step_size=EPS / 4, steps=STEPS),
    "PGD l2": PGD(norm="l2", eps=2.0, step_size=0.5, steps=STEPS),
    "PGD l1": PGD(norm="l1", eps=10.0, step_size=2.0, steps=STEPS),
    "DAA": DAA(eps=EPS, step_size=EPS / 4, steps=STEPS),
    "APGD linf": APGD(eps=EPS, steps=STEPS),
    "APGD l2": APGD(norm="l2", eps=2.0, steps=STEPS),
    "APGD l1": APGD(norm="l1", eps=10.0, steps=STEPS),
    "DeepFool l2": DeepFool(steps=5),
    "DeepFool linf": DeepFool(norm="linf", steps=5),
    "SparseFool": SparseFool(steps=5),
    "DDN": DDN(steps=STEPS),
    "L-BFGS": LBFGS(steps=STEPS, searches=1, worth=WORTH),
    "Carlini-Wagner": CarliniWagner(steps=STEPS, searches=1, worth=WORTH),
    "EAD": EAD(steps=STEPS, searches=1, worth=WORTH),
    "FAB linf": FAB(steps=4),
    "FAB l2": FAB(norm="l2", steps=4),
    "FAB l1": FAB(norm="l1", steps=4),
    **{f"FMN {norm}": FMN(norm=norm, steps=STEPS) for norm in NORMS},
    "sigma-zero": SigmaZero(steps=STEPS),
    "PDGD": PDGD(steps=STEPS),
    **{f"PDPGD {norm}": PDPGD(norm=norm, steps=STEPS) for norm in NORMS},
    "JSMA": JSMA(steps=STEPS, rivals=1),
    **{f"Brendel-Bethge {norm}": BrendelBethge(norm=norm, steps=STEPS) for norm in NORMS},
    "Square linf": Square(eps=EPS, steps=20),
    "Square l2": Square(norm="l2", eps=2.0, steps=20),
    "SPSA": SPSA(eps=EPS, steps=2, samples=8),
    "one pixel": OnePixel(population=20, generations=1),
    "Boundary": Boundary(steps=20),
}
STOPPING = ("PGD linf", "PGD l2", "APGD linf", "APGD l2")  # where the first success is enough


class Pass(NamedTuple):
    """One forward pass, and the backward passes that came of it."""

    images: int
    backwards: int


class Recorder(nn.Module):
    """A model that notes the passes made through it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.passes = model, list[Pass]()

    def forward(self, x: Tensor) -> Tensor:
        """The model's logits."""
        logits: Tensor = self.model(x)
        self.passes.append(Pass(len(x), 0))
        if logits.requires_grad:
            logits.register_hook(partial(self._back, len(self.passes) - 1))
        return logits

    def _back(self, number: int, gradient: Tensor) -> None:
        seen = self.passes[number]
        self.passes[number] = seen._replace(backwards=seen.backwards + 1)


def replay(model: nn.Module, x: Tensor, y: Tensor, passes: list[Pass]) -> None:
    """The passes alone, by plain torch, with gradients for the input only."""
    times = -(-max(images for images, _ in passes) // len(x))  # a pass may hold several points of each image
    x, y = x.repeat(times, 1, 1, 1), y.repeat(times)
    for images, backwards in passes:
        here = x[:images].detach().requires_grad_(backwards > 0)
        logits = model(here) if backwards else _without_graph(model, here)
        for left in reversed(range(backwards)):
            loss = functional.cross_entropy(logits, y[:images], reduction="sum")
            torch.autograd.grad(loss, here, retain_graph=left > 0)


@torch.no_grad()
def _without_graph(model: nn.Module, x: Tensor) -> Tensor:
    logits: Tensor = model(x)
    return logits


def bare_loop(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """PGD as anyone would write it: input gradients, sign steps, both projections, and one last forward pass."""
    x_adv = x + EPS * (2 * torch.rand_like(x) - 1)
    for _ in range(STEPS):
        x_adv = x_adv.clamp(0, 1).requires_grad_(True)
        loss = functional.cross_entropy(model(x_adv), y, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, x_adv)
        x_adv = x_adv.detach() + EPS / 4 * gradient.sign()
        x_adv = torch.minimum(torch.maximum(x_adv, x - EPS), x + EPS)
    with torch.no_grad():
        model(x_adv.clamp(0, 1))
    return x_adv


def over_floor(name: str, attack: Attack, model: nn.Module, x: Tensor, y: Tensor, pairs: int = 3) -> list[Row]:
    """One attack against its own passes: through torch's layers, and through the quick ones that it goes through."""
    rng = torch.Generator().manual_seed(0)
    recorder = Recorder(model)
    search(attack, recorder, x, y, rng=rng, policy="highest loss")
    ours = partial(search, attack, model, x, y, rng=rng, policy="highest loss")
    floor = partial(replay, model, x, y, recorder.passes)
    with frozen(model):
        bare = compare((name, f"{len(recorder.passes)} passes alone"), ours, floor, CPU, pairs)
        with quickened(model):
            return [bare, compare((name, "the same, quick layers"), ours, floor, CPU, pairs)]


def stopping_early(name: str, attack: Attack, model: nn.Module, x: Tensor, y: Tensor) -> Row:
    """An evaluation by an attack that fools most images soon, against all passes that it may make."""
    rng = torch.Generator().manual_seed(0)
    ours = partial(search, attack, model, x, y, rng=rng, policy="first success")
    every = [Pass(len(x), 1)] * attack.steps + [Pass(len(x), 0)]
    with frozen(model), quickened(model):
        row = compare((f"{name}, stopping early", "all passes"), ours, partial(replay, model, x, y, every), CPU, 3)
    return dataclasses.replace(row, note=f"{ours().success.double().mean().item():.0%} fooled")


def over_bare_loop(name: str, model: nn.Module, x: Tensor, y: Tensor) -> Row:
    """PGD against the loop that anyone would write, in plain torch."""
    ours = partial(search, ATTACKS["PGD linf"], model, x, y, policy="highest loss")
    with frozen(model):
        return compare(
            (f"PGD-{STEPS}, {name}, batch {len(x)}", "a bare loop"),
            lambda: ours(rng=torch.Generator().manual_seed(0)),
            lambda: bare_loop(model, x, y),
            CPU,
            9,
        )


def run() -> list[Row]:
    """No example leaves early, but where an attack's own rule says so: the policy is the training's."""
    torch.manual_seed(0)
    small, model = Cnn4().build((1, 28, 28), 10).eval(), MadryCnn().build((1, 28, 28), 10).eval()
    x = torch.rand(2 * BATCH, 1, 28, 28)
    rows = [over_bare_loop("cnn4", small, x, torch.randint(0, 10, (2 * BATCH,)))]
    x = x[:BATCH]
    y = model(x).argmax(1)
    rows.append(over_bare_loop("madry_cnn", model, x, y))
    rows += [stopping_early(name, ATTACKS[name], model, x, y) for name in STOPPING]
    return rows + [row for name, attack in ATTACKS.items() for row in over_floor(name, attack, model, x, y)]
