"""Learning against an adversary critic (Matyasko 2021, https://doi.org/10.32657/10356/143316, equations 4.2 to 4.5).

What the thesis leaves open is as in its released code; what it prints wrongly is put right (`algorithms.critic`,
`algorithms.newton`).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import NamedTuple, Self, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from algorithms import checks, critic, margins, newton
from algorithms.critic import Critic
from algorithms.defenses import Defense
from algorithms.gradients import predict
from algorithms.models import Shape
from algorithms.modes import evaluating
from algorithms.schedules.piecewise import Piecewise
from algorithms.search import Record, unperturbed
from algorithms.team import Companion, Companions, apart, companion, model_of
from algorithms.tensors import Images, Labels, Mask, PerRow
from algorithms.updates import Update
from algorithms.updates.adam import Adam

TERMS = ("fit", "fooling", "cycle", "critic", "critic_penalty", "attacked")  # figures of a step


@final
class Memory(nn.Module):
    """The running mean of the confidence in each class, and sums over the shards of a step."""

    confidence: Tensor
    total: Tensor
    count: Tensor
    terms: Tensor
    shards: Tensor

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.register_buffer("confidence", torch.ones(classes))
        self.register_buffer("total", torch.zeros(classes))  # of confidences, by predicted class
        self.register_buffer("count", torch.zeros(classes, dtype=torch.int64))
        self.register_buffer("terms", torch.zeros(len(TERMS)))
        self.register_buffer("shards", torch.zeros((), dtype=torch.int64))


class Attacked(NamedTuple):
    """High-confidence images of the nearest class, row by row."""

    x: Images
    source: Labels  # predicted for the clean image
    certainty: PerRow  # probability of that prediction
    x_adv: Images  # differentiable for the model's parameters; may leave [0, 1]
    reached: Labels  # predicted for it
    changed: Mask  # rows where that is another class


@final
@dataclass(frozen=True, kw_only=True)
class AdversaryCritic(Defense):
    """Learns until its own adversarial images look, to a critic that learns beside it, like images of their new class.

    The loss makes the images: five Newton steps to the nearest class and the confidence that the model has in clean
    images of it, differentiated for the model's parameters. The critic is a companion with an update of its own; both
    move at once, where the thesis alternates. The images must also lead back (`cycle_weight`).

    A step costs as much as about 90 forward passes with ten classes, all of it in the loss: use
    `train.exchange = "gradients"`, so that attackers share it. Memory: the activations of twice `steps` passes and of
    their gradients. The model is attacked as it evaluates, without dropout.
    """

    weight: float = 0.5  # lambda of the paper, of fooling the critic; 0.1 for lenet5
    cycle_weight: float = 0.01  # of the squared l2 distance to where an adversarial image leads back
    penalty: float = 10.0  # on slopes of the critic other than 1
    steps: int = 5  # of the attack; enough for confidences up to 0.95
    overshoot: float = 0.05  # share of the perturbation added to reach the confidence
    hidden: tuple[int, ...] = (1200, 1200)  # units of the critic's layers
    pixel_noise: float = 0.1  # standard deviation of what is added to the critic's images, in pixel units
    noise: float = 0.5  # the same at its other layers
    kept: float = 0.5  # share of the running means of confidence that a step keeps
    warmup: float = 0.01  # share of the training without any of this: one epoch of 100
    critic_update: Update = field(
        default_factory=lambda: Adam(
            learning_rate=1e-3, betas=(0.5, 0.999), schedule=Piecewise(milestones=(0.4, 0.8), gamma=0.5)
        )
    )
    progress: float = 0.0  # how far the training has come, 0 to 1; a run sets it

    def __post_init__(self) -> None:
        """Raises ValueError for numbers that make no sense."""
        for name in ("weight", "cycle_weight", "penalty"):
            checks.at_least(name, getattr(self, name), 0, "a weight")
        checks.at_least("steps", self.steps, 1, "a number of steps")
        checks.at_least("overshoot", self.overshoot, 0, "a share of the perturbation")
        for name in ("pixel_noise", "noise"):
            checks.at_least(name, getattr(self, name), 0, "a standard deviation")
        for units in self.hidden:
            checks.at_least("hidden", units, 1, "a number of units")
        checks.between("kept", self.kept, 0, 1, "a share of the running mean")
        checks.between("warmup", self.warmup, 0, 1, "a share of the training")
        checks.between("progress", self.progress, 0, 1, "a share of the training")

    def at(self, progress: float) -> Self:
        """The same at that time."""
        return replace(self, progress=progress)

    def companions(self, shape: Shape, classes: int, batch: int) -> Companions:
        """The critic, and the memory of confidences."""
        judge = Critic(shape, classes, self.hidden, (self.pixel_noise, self.noise))
        return {"critic": Companion(judge, self.critic_update), "memory": Companion(Memory(classes))}

    def perturb(self, model: nn.Module, x: Images, y: Labels, *, rng: torch.Generator) -> Record:
        """The clean images, at no cost."""
        return unperturbed(x)

    def loss(self, model: nn.Module, x: Images, x_adv: Images, y: Labels, *, rng: torch.Generator) -> Tensor:
        """Cross-entropy on clean images, what fooling and the way back cost the model, and what the critic loses.

        Raises FloatingPointError, naming the part, if one is not finite.
        """
        memory, judge = companion(model, "memory", Memory), companion(model, "critic", Critic)
        terms: dict[str, Tensor] = {}
        if self.progress >= self.warmup:
            attacked = self._attack(model_of(model), x, memory.confidence)
            terms |= self._model_terms(model_of(model), judge, attacked, rng)
            terms |= self._critic_terms(judge, attacked, y, rng)
            terms["attacked"] = attacked.changed.to(x.dtype).mean()
        logits = predict(model, x)
        terms["fit"] = functional.cross_entropy(logits, y)
        for name, term in terms.items():
            if not torch.isfinite(term):
                raise FloatingPointError(f"the loss's part {name!r} is {term.item()}")
        self._remember(memory, logits.detach(), terms)
        factors = {"fooling": self.weight, "cycle": self.cycle_weight, "critic_penalty": self.penalty, "attacked": 0.0}
        return torch.stack([factors.get(name, 1.0) * term for name, term in terms.items()]).sum()

    def settle(self, model: nn.Module) -> dict[str, float]:
        """The running means of classes that were predicted move towards the mean over the step's batch."""
        memory = companion(model, "memory", Memory)
        now = memory.total / memory.count.clamp_min(1)
        moved = self.kept * memory.confidence + (1 - self.kept) * now
        memory.confidence.copy_(torch.where(memory.count > 0, moved, memory.confidence))
        terms = (memory.terms / memory.shards.clamp_min(1)).tolist()
        for buffer in (memory.total, memory.count, memory.terms, memory.shards):
            buffer.zero_()
        return {"confidence": memory.confidence.mean().item(), **dict(zip(TERMS, terms, strict=True))}

    def _attack(self, model: nn.Module, x: Images, confidence: Tensor) -> Attacked:
        with evaluating(model):
            here = x.detach().requires_grad_(True)
            logits = predict(model, here)
            certainty, source = logits.detach().softmax(1).max(1)
            _, target = margins.nearest_boundary(logits, here, source, "l2")
            x_adv = self._driven(model, x, target, confidence[target].to(x.dtype))
            with torch.no_grad():
                reached = predict(model, x_adv).argmax(1)
        return Attacked(x, source, certainty, x_adv, reached, reached != source)

    def _driven(self, model: nn.Module, x: Images, target: Labels, goal: PerRow) -> Images:
        return newton.unrolled(model, x, target, goal, steps=self.steps, overshoot=self.overshoot)

    def _model_terms(
        self, model: nn.Module, judge: Critic, attacked: Attacked, rng: torch.Generator
    ) -> dict[str, Tensor]:
        """What moves the model, over the rows whose class has changed: the critic's verdict, and the way back."""
        verdict = critic.natural(apart(judge, attacked.x_adv, rng), attacked.reached)
        with evaluating(model):
            back = self._driven(model, attacked.x_adv.detach(), attacked.source, attacked.certainty)
        distance = (attacked.x - back).square().flatten(1).sum(1)
        rows = attacked.changed.to(distance.dtype)
        some = rows.sum().clamp_min(1)
        return {"fooling": (rows * verdict).sum() / some, "cycle": (rows * distance).sum() / some}

    def _critic_terms(self, judge: Critic, attacked: Attacked, y: Labels, rng: torch.Generator) -> dict[str, Tensor]:
        """What moves the critic, over all rows: its verdicts on both kinds of images, and its slopes there."""
        natural = critic.judged(judge, attacked.x, y, rng, real=True)
        adversarial = critic.judged(judge, attacked.x_adv, attacked.reached, rng, real=False)
        verdict, penalty = ((one + other).mean() for one, other in zip(natural, adversarial, strict=True))
        return {"critic": verdict, "critic_penalty": penalty}

    def _remember(self, memory: Memory, logits: Tensor, terms: dict[str, Tensor]) -> None:
        certainty, predicted = logits.softmax(1).max(1)
        memory.total.index_add_(0, predicted, certainty.to(memory.total.dtype))
        memory.count.index_add_(0, predicted, torch.ones_like(predicted))
        for place, name in enumerate(TERMS):
            if name in terms:
                memory.terms[place] += terms[name].detach()
        memory.shards += 1
