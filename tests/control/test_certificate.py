"""Certified radii: never beaten by an attack, and refused for networks whose gain is not known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from algorithms.batch_norm import scale_of
from algorithms.blocks import BasicBlock, Multiply, PreActivationBlock
from algorithms.control.certificate import certify, radii
from algorithms.control.constraints.spectral_norm import SpectralNorm
from algorithms.normalisation import Normalisation
from tests.control.networks import batch, plain, residual


def attacked(model: nn.Module, x: Tensor, y: Tensor, radius: Tensor) -> Tensor:
    """The classes `y`, but -1 where a projected gradient step in an l2 ball, of a radius a row, finds another class."""
    size = radius.view(-1, 1, 1, 1)
    delta, fallen = torch.zeros_like(x), torch.zeros(len(x), dtype=torch.bool)
    for _ in range(40):
        delta.requires_grad_()
        logits = model(x + delta)
        fallen |= logits.argmax(1) != y
        (gradient,) = torch.autograd.grad(functional.cross_entropy(logits, y, reduction="sum"), delta)
        step = gradient / gradient.flatten(1).norm(dim=1).clamp(min=1e-30).view(-1, 1, 1, 1)
        moved = delta.detach() + size / 5 * step
        delta = moved * (size / moved.flatten(1).norm(dim=1).view(-1, 1, 1, 1)).clamp(max=1)
    return torch.where(fallen, -1, y)


def slopes_of(model: nn.Module) -> list[float]:
    """The largest singular value of the Jacobian at a few points, in evaluation mode."""
    model.eval()
    slopes = []
    for seed in range(3):
        x, _ = batch(2, count=1, seed=seed)
        matrix = torch.autograd.functional.jacobian(lambda v: model(v).flatten(), 4 * x - 2).flatten(1)
        slopes.append(float(torch.linalg.svdvals(matrix)[0]))
    return slopes


@torch.no_grad()
def constrained() -> nn.Sequential:
    """A network whose layers all have norm 1 as matrices, with logits large enough to matter."""
    model = plain()
    for layer in model:
        if isinstance(layer, nn.Linear | nn.Conv2d):
            layer.weight.copy_(SpectralNorm().project(20 * layer.weight))
    return model


def test_no_attack_flips_a_class_within_its_radius() -> None:
    model = constrained()
    x, _ = batch(1, count=40)
    logits = model(x).detach()
    y = logits.argmax(1)
    certificate = certify(model, (1, 8, 8))
    radius = radii(logits, y, certificate.lipschitz)
    assert (radius > 0).all()
    assert torch.equal(attacked(model, x, y, radius - 1e-6), y)
    assert (attacked(model, x, y, 200 * radius + 3) == -1).any()  # the attack does flip classes where it may


def test_certified_accuracy_is_below_attacked_accuracy_at_every_radius() -> None:
    model = constrained()
    x, y = batch(1, count=40)
    with torch.no_grad():
        radius = radii(model(x), y, certify(model, (1, 8, 8)).lipschitz)
    for eps in (0.0, 0.003, 0.01, 0.03, 0.1, 1.0):
        held = attacked(model, x, y, torch.full((40,), eps, dtype=torch.float64)) == y
        assert ((radius > eps) <= held).all()


def test_the_bound_is_met_by_a_chain_of_multiples_of_the_identity() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)).double()
    with torch.no_grad():
        model[1].weight.copy_(3 * torch.eye(4))
        model[3].weight.copy_(torch.tensor([[2.0, 0, 0, 0], [0, 2, 0, 0]]))
    certificate = certify(model, (1, 2, 2))
    assert certificate.lipschitz == pytest.approx(6)
    assert certificate.gains == pytest.approx({"0": 1, "1": 3, "2": 1, "3": 2})
    logits = torch.tensor([[5.0, 2.0], [2.0, 5.0]])
    assert radii(logits, torch.tensor([0, 0]), 6.0).tolist() == pytest.approx([3 / (6 * math.sqrt(2)), 0])


@pytest.mark.parametrize(
    "layers",
    [
        [nn.Conv2d(2, 4, 3, padding=1, groups=2), nn.BatchNorm2d(4), nn.ReLU()],
        [nn.BatchNorm2d(2), nn.LeakyReLU(1.5)],
        [nn.Conv2d(2, 3, 3, stride=2, padding=1, padding_mode="circular")],
        [nn.Conv2d(2, 3, 3, dilation=2)],
        [nn.Softplus(), nn.MaxPool2d(3, stride=1)],
        [nn.Tanh(), Multiply(-3.0), nn.MaxPool2d(2)],
        [nn.AvgPool2d(3, stride=2, padding=1)],
        [nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(1)],
        [*Normalisation(mean=(0.5, 0.4), std=(0.2, 0.25)).layers((2, 8, 8)), nn.Identity()],
    ],
    ids=str,
)
def test_gains_bound_the_slope_everywhere(layers: list[nn.Module]) -> None:
    """Against the largest singular value of the Jacobian at a few points, in evaluation mode."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Sequential(*layers), nn.Flatten()).double()
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.reset_parameters()  # they were drawn when the tests were collected, from whatever state there was
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.uniform_(0.2, 2)
            nn.init.normal_(module.weight)
    bound = certify(model, (2, 8, 8)).lipschitz
    slopes = slopes_of(model)
    assert max(slopes) <= bound * (1 + 1e-9)
    if not any(isinstance(layer, nn.MaxPool2d | nn.AvgPool2d) for layer in layers):
        assert bound <= 1.6 * max(slopes)


@pytest.mark.parametrize(
    "block",
    [BasicBlock(2, 2, 1), BasicBlock(2, 4, 2), PreActivationBlock(2, 2, 1, 0.0), PreActivationBlock(2, 4, 2, 0.0)],
    ids=["plain", "wider", "pre-activation", "pre-activation, wider"],
)
def test_a_residual_block_has_the_sum_of_its_ways(block: nn.Module) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), nn.Sequential(block), nn.Flatten()).double()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, -2, 2)
    certificate = certify(model, (2, 8, 8))
    assert list(certificate.gains) == ["0", "1.0", "2"]
    slopes = slopes_of(model)
    assert max(slopes) <= certificate.lipschitz <= 12 * max(slopes)


def test_a_block_of_known_gains_adds_them_up() -> None:
    """A branch that triples, then a batch norm that halves, beside the identity."""
    block = BasicBlock(1, 1, 1).double()
    with torch.no_grad():
        for conv, value in ((block.branch[0], 3.0), (block.branch[3], 1.0)):
            conv.weight.zero_()
            conv.weight[0, 0, 1, 1] = value
        for norm in (block.branch[1], block.branch[4]):
            norm.running_var.fill_(4.0 - norm.eps)
    assert certify(block, (1, 8, 8)).lipschitz == pytest.approx(1 + 3 / 4)


def test_a_batch_norm_is_folded_into_the_layer_before_it_and_modes_are_left_alone() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout(0.5)).train()
    model[2].running_var.copy_(torch.tensor([4.0, 1.0, 0.25]))
    certificate = certify(model, (1, 2, 2))
    expected = torch.linalg.svdvals((scale_of(model[2])[:, None] * model[1].weight).detach().double())[0]
    assert certificate.gains["1"] == pytest.approx(float(expected), rel=1e-6)
    assert list(certificate.gains) == ["0", "1", "3"]
    assert model[2].training
    assert all(parameter.requires_grad for parameter in model.parameters())
    with pytest.raises(ValueError, match="without running statistics"):
        certify(nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2, track_running_stats=False)), (1, 8, 8))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (residual(), "no certificate: '3' is a Residual, whose gain is not known"),
        (nn.Sequential(nn.Sequential(nn.GELU())), "'0.0' is a GELU"),
        (nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect"), "padding_mode = 'reflect'"),
        (nn.AdaptiveAvgPool2d(2), "averages adaptively to more than 1x1"),
        (nn.MaxPool2d(2, dilation=2), "a dilated pooling"),
        (nn.AvgPool2d(3, padding=1, count_include_pad=False), "divides by other numbers"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_networks_are_refused_by_name(model: nn.Module, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        certify(model, (2 if isinstance(model, nn.Sequential) else 1, 8, 8))
