"""The adversary critic: both of its losses by differences and kept apart, its memory by hand, its warm-up."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from algorithms import critic, margins, newton
from algorithms.critic import Critic
from algorithms.defenses.adversary_critic import AdversaryCritic, Memory
from algorithms.modes import evaluating
from algorithms.team import Team, accompanied, companion
from tests.defenses.differences import batch, differences
from tests.networks import Affine
from tests.training import changed
from workers import schedule
from workers.messages import Work
from workers.trainer import Trainer

DEFENSE = AdversaryCritic(weight=2.0, cycle_weight=0.3, hidden=(5, 4), steps=2, warmup=0.0)
SMALL = AdversaryCritic(hidden=(8, 8), steps=2, warmup=0.25)


def team(defense: AdversaryCritic = DEFENSE, model: nn.Module | None = None) -> Team:
    """A smooth network, whose logits move enough to be attacked, with a critic, in float64."""
    with torch.random.fork_rng():
        torch.manual_seed(2)
        if model is None:
            model = nn.Sequential(nn.Flatten(), nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
            nn.init.normal_(model[1].weight, std=2.0)
            nn.init.normal_(model[3].weight, std=1.0)
        network = accompanied(model, defense.companions((1, 2, 2), 3, 6))
    assert isinstance(network, Team)
    companion(network, "memory", Memory).confidence.copy_(torch.tensor([0.6, 0.7, 0.8]))
    return network


def loss(defense: AdversaryCritic, network: Team) -> Tensor:
    x, _, y = batch()
    with torch.enable_grad():  # the attack needs gradients, also where differences are taken
        return defense.loss(network, x, x, y, rng=torch.Generator().manual_seed(4))


def assert_close(found: Any, expected: Any, atol: float = 1e-8) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=atol)


def test_the_critics_gradient_by_differences_its_slopes_included() -> None:
    """Without a weight on fooling, the critic enters the sum by its own losses alone."""
    defense = dataclasses.replace(DEFENSE, weight=0.0)
    network = team(defense)
    judge = companion(network, "critic", Critic)
    found = torch.autograd.grad(loss(defense, network), list(judge.parameters()))
    assert_close(found, differences(judge, lambda: loss(defense, network)))
    assert all(slope.any() for slope in found)


def test_the_models_gradient_goes_through_the_attack() -> None:
    """That of cross-entropy, and of both images times what the critic's verdict and the distance change with them."""
    network, (x, _, y) = team(dataclasses.replace(DEFENSE, noise=0.0, pixel_noise=0.0)), batch()
    defense = dataclasses.replace(DEFENSE, noise=0.0, pixel_noise=0.0)
    model, judge = network.model, companion(network, "critic", Critic)
    found = torch.autograd.grad(loss(defense, network), list(model.parameters()), allow_unused=True)

    with evaluating(model):
        here = x.detach().requires_grad_()
        logits = model(here)
        sure, source = logits.detach().softmax(1).max(1)
        _, target = margins.nearest_boundary(logits, here, source, "l2")
        goal = torch.tensor([0.6, 0.7, 0.8], dtype=torch.float64)[target]
        x_adv = newton.unrolled(model, x, target, goal, steps=2)
        reached = model(x_adv).argmax(1)
        back = newton.unrolled(model, x_adv.detach(), source, sure, steps=2)
    rows = (reached != source).double()
    assert rows.sum() >= 2

    def verdict(images: Tensor) -> Tensor:
        logits = judge(images, torch.Generator())
        return -(rows * functional.logsigmoid(logits.gather(1, reached.unsqueeze(1)).squeeze(1))).sum() / rows.sum()

    push = slope_by_differences(verdict, x_adv.detach())
    pull = 2 * (back - x).detach() * rows.view(-1, 1, 1, 1) / rows.sum()
    whole = functional.cross_entropy(model(x), y) + 2.0 * (push * x_adv).sum() + 0.3 * (pull * back).sum()
    assert_close(found, torch.autograd.grad(whole, list(model.parameters()), allow_unused=True), 1e-7)


def slope_by_differences(value: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    slope, step = torch.zeros_like(x), 1e-5
    for i in range(x.numel()):
        shift = torch.zeros_like(x)
        shift.view(-1)[i] = step
        slope.view(-1)[i] = (value(x + shift) - value(x - shift)).detach() / (2 * step)
    return slope


def test_each_loss_moves_its_own() -> None:
    network = team()
    model, judge = list(network.model.parameters()), list(companion(network, "critic", Critic).parameters())
    whole = loss(DEFENSE, network)
    for changed_fields, parameters in (({"penalty": 0.0}, model), ({"weight": 0.0, "cycle_weight": 0.0}, judge)):
        other = loss(dataclasses.replace(DEFENSE, **changed_fields), network)  # type: ignore[arg-type]
        assert other.item() != pytest.approx(whole.item())
        slopes = [torch.autograd.grad(each, parameters, retain_graph=True) for each in (whole, other)]
        assert_close(slopes[0], slopes[1], 1e-12)


@pytest.mark.parametrize(("length", "penalty"), [(1.0, 0.0), (2.0, 1.0), (0.0, 1.0)])
def test_the_penalty_of_a_linear_critic_by_hand(length: float, penalty: float) -> None:
    judge = Critic((1, 2, 2), 3, (), (0.0, 0.0)).double()
    with torch.no_grad():
        judge.layers[0].weight.fill_(length / 2)  # of four pixels: the slope's l2 norm is `length`
    x, _, y = batch()
    cost, found = critic.judged(judge, x, y, torch.Generator(), real=True)
    assert found.tolist() == pytest.approx([penalty] * 6, abs=1e-12)
    value = x.sum((1, 2, 3)) * length / 2
    torch.testing.assert_close(cost, -functional.logsigmoid(value))
    torch.testing.assert_close(
        critic.judged(judge, x, y, torch.Generator(), real=False)[0], -functional.logsigmoid(-value)
    )


def test_the_model_learns_to_fool_the_critic_and_the_critic_to_see_through_it() -> None:
    """A step on the fooling alone makes the images look more natural, a step of the critic alone less."""
    defense = dataclasses.replace(DEFENSE, cycle_weight=0.0, noise=0.0, pixel_noise=0.0)
    network = team(defense)
    judge, memory = companion(network, "critic", Critic), companion(network, "memory", Memory)

    def fooling() -> float:
        memory.terms.zero_()
        loss(defense, network)
        return memory.terms[1].item()

    before = fooling()
    slopes = torch.autograd.grad(loss(defense, network), list(judge.parameters()))
    moved(judge, slopes, 1e-3)
    assert fooling() > before
    moved(judge, slopes, -1e-3)
    whole, plain = loss(defense, network), functional.cross_entropy(network(batch()[0]), batch()[2])
    moved(network.model, torch.autograd.grad(whole - plain, list(network.model.parameters()), allow_unused=True), 1e-3)
    assert fooling() < before


def moved(module: nn.Module, slopes: Any, rate: float) -> None:
    with torch.no_grad():
        for parameter, slope in zip(module.parameters(), slopes, strict=True):
            if slope is not None:
                parameter.sub_(rate * slope)


def test_the_running_confidence_by_hand() -> None:
    """Predictions 0, 0, 1 with confidences 0.6, 0.8, 0.9, after a start at 1: 0.85, 0.95, 1."""
    network = team()
    memory = companion(network, "memory", Memory)
    memory.confidence.fill_(1.0)
    for predicted, sure in ((0, 0.6), (0, 0.8), (1, 0.9)):  # a shard each
        logits = torch.full((1, 3), (1 - sure) / 2, dtype=torch.float64).log()
        logits[0, predicted] = torch.tensor(sure).log()
        DEFENSE._remember(memory, logits, {"fit": torch.tensor(0.5), "critic": torch.tensor(3.0)})
    figures = DEFENSE.settle(network)
    assert memory.confidence.tolist() == pytest.approx([0.85, 0.95, 1.0], abs=1e-6)
    assert (figures["fit"], figures["critic"]) == pytest.approx((0.5, 3.0))
    assert not memory.count.any()
    before = memory.confidence.clone()
    assert DEFENSE.settle(network)["fit"] == 0.0
    assert torch.equal(memory.confidence, before)


def test_where_no_class_changes_nothing_is_asked_of_the_model() -> None:
    network = team(model=Affine(torch.zeros(3, 4, dtype=torch.float64)))
    x, _, y = batch()
    value = DEFENSE.loss(network, x, x, y, rng=torch.Generator())
    slopes = torch.autograd.grad(value, list(network.model.parameters()), allow_unused=True)
    assert all(slope is None or torch.isfinite(slope).all() for slope in slopes)
    assert DEFENSE.settle(network)["fooling"] == 0.0


@pytest.mark.parametrize("broken", ["critic", "model"])
def test_a_part_that_diverges_is_named(broken: str) -> None:
    network = team()
    module = companion(network, "critic", Critic) if broken == "critic" else network.model
    with torch.no_grad():
        next(iter(module.parameters())).fill_(torch.nan)
    with pytest.raises(FloatingPointError, match="the loss's part 'fooling' is nan"):
        loss(DEFENSE, network)


def work(**fields: Any) -> Work:
    return changed(defense=SMALL, exchange="gradients", **fields)


def test_while_it_warms_up_only_the_model_and_the_memory_move() -> None:
    trainer = Trainer(work())
    network, batches = trainer.bench.network, []
    assert isinstance(network, Team)
    start = [p.clone() for p in network.companions["critic"].parameters()]
    for step in range(4):  # of 10: the first 3 are within a quarter
        batches = [trainer.bench.read(shard).x.numpy() for shard in schedule.shards(trainer.bench.work, 1442, step)]
        figures = trainer.step(step, *batches)[0].figures
        same = [torch.equal(p, q) for p, q in zip(start, network.companions["critic"].parameters(), strict=True)]
        assert all(same) == (step < 3)
        assert (figures["critic"] > 0) == (step >= 3)
        assert 0 < figures["confidence"] < 1
    assert int(trainer.companions["critic"].memory["step"]) == 1
    assert trainer.finished()[1].data.nbytes < trainer.snapshot()[1].data.nbytes
    packed = trainer.state()[1]
    assert np.array_equal(Trainer(work(), packed).state()[1], packed)


@pytest.mark.parametrize(
    ("field", "value"),
    [("weight", -1.0), ("steps", 0), ("noise", -0.1), ("hidden", (0,)), ("kept", 1.5), ("warmup", 2.0)],
)
def test_numbers_that_make_no_sense(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{field}: "):
        AdversaryCritic(**{field: value})
