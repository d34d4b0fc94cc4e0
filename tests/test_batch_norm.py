"""Batch norms folded into layers: the same function, cheaper, and nothing left of it afterwards."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pytest
import torch
from torch import Tensor, nn

from algorithms.batch_norm import Folded, folded, pairs
from algorithms.models.cnn4 import Cnn4
from algorithms.models.cnn8 import Cnn8
from algorithms.models.resnet18 import ResNet18
from algorithms.models.wide_resnet import WideResNet
from workers import runtime

SHAPE = (3, 8, 8)
NETWORKS = {
    "cnn4": (lambda: Cnn4(width=4, hidden=8).build(SHAPE, 3), 2),
    "cnn8": (lambda: Cnn8(widths=(4, 4, 8), hidden=8).build(SHAPE, 3), 7),
    "resnet18": (lambda: ResNet18(width=4).build(SHAPE, 3), 20),
    "wide_resnet": (lambda: WideResNet(depth=10, widen_factor=1).build(SHAPE, 3), 3),  # of 7: the others come first
}


def lived(network: nn.Module) -> nn.Module:
    """The network with statistics and weights of batch norm that no fresh one has."""
    generator = torch.Generator().manual_seed(0)
    network.train()
    with torch.no_grad():
        for _ in range(5):
            network(torch.rand(32, *SHAPE, generator=generator))
        for norm in network.modules():
            if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d) and norm.affine:
                norm.weight.uniform_(-1, 2, generator=generator)
                norm.bias.normal_(0, 0.3, generator=generator)
    return network.eval()


def looked(network: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Logits, and a gradient for the images."""
    x = x.clone().requires_grad_(True)
    logits = network(x)
    (gradient,) = torch.autograd.grad(logits.square().sum(), x)
    return logits.detach(), gradient


@pytest.mark.parametrize("name", NETWORKS)
def test_folded_it_is_the_same_function(name: str) -> None:
    build, count = NETWORKS[name]
    network = lived(runtime.arranged(build())).double()
    x = torch.rand(5, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = looked(network, x)
    assert len(pairs(network)) == count
    with folded(network):
        assert sum(isinstance(module, Folded) for module in network.modules()) == count
        for found, wanted in zip(looked(network, x), expected, strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)
            assert not torch.equal(found, wanted)  # it would mean that nothing was folded


@pytest.mark.parametrize("fails", [False, True])
def test_nothing_is_left_of_it_afterwards(fails: bool) -> None:
    network = lived(ResNet18(width=4).build(SHAPE, 3))
    state = {name: value.clone() for name, value in network.state_dict().items()}
    parameters, kinds = list(network.parameters()), [type(module) for module in network.modules()]
    with suppress(KeyboardInterrupt), folded(network):
        assert not torch.equal(network[0].weight, state["0.weight"])
        if fails:
            raise KeyboardInterrupt
    assert [type(module) for module in network.modules()] == kinds
    assert all(now is before for now, before in zip(network.parameters(), parameters, strict=True))
    assert network.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())


class Doubled(nn.Sequential):
    """Layers that are called in an order of their own."""

    def forward(self, x: Tensor) -> Tensor:
        """The layers, the first twice."""
        return self[1](self[0](x) + self[0](x))


def repeated() -> nn.Module:
    layer = nn.Conv2d(3, 3, 1)
    return nn.Sequential(layer, nn.BatchNorm2d(3), layer)


def tied() -> nn.Module:
    network = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1))
    network[2].weight = network[0].weight
    return network


STAYING: dict[str, Callable[[], nn.Module]] = {
    "layer repeated": repeated,
    "weights tied": tied,
    "no statistics": lambda: nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3, track_running_stats=False)),
    "norm first": lambda: nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1)),
    "something between": lambda: nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(), nn.BatchNorm2d(3)),
    "a forward of its own": lambda: Doubled(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)),
    "a weight that is computed": lambda: nn.Sequential(
        nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 3, 1)), nn.BatchNorm2d(3)
    ),
}


@pytest.mark.parametrize("name", STAYING)
def test_what_would_not_be_the_same_stays_as_it_is(name: str) -> None:
    network, x = lived(STAYING[name]()), torch.rand(2, *SHAPE)
    expected = looked(network, x)
    with folded(network):
        for found, wanted in zip(looked(network, x), expected, strict=True):
            torch.testing.assert_close(found, wanted, rtol=0, atol=0)


@pytest.mark.parametrize("affine", [True, False])
def test_a_dense_layer_without_biases_gets_some_for_a_while(affine: bool) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 5, bias=False), nn.BatchNorm1d(5, affine=affine))
    expected = looked(lived(network), torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(1)))
    with folded(network):
        found = looked(network, torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(1)))
    torch.testing.assert_close(found, expected)
    assert network[1].bias is None


def test_folded_it_cannot_be_trained() -> None:
    network = lived(Cnn4(width=4, hidden=8).build(SHAPE, 3))
    with folded(network), pytest.raises(RuntimeError, match="train the network outside"):
        network.train()(torch.rand(2, *SHAPE))


@torch.no_grad()
def test_in_bfloat16_it_is_nearer_to_float32_than_without() -> None:
    x = torch.rand(64, *SHAPE, generator=torch.Generator().manual_seed(1))
    errors = {"plain": 0.0, "twice": 0.0, "once": 0.0}
    for seed in range(10):
        network = lived(runtime.arranged(runtime.build(Cnn8(widths=(8, 8, 8), hidden=16), SHAPE, 3, seed)))
        half, exact = runtime.lowered(network, "bfloat16"), network(x)

        def error(model: nn.Module = half, wanted: Tensor = exact) -> float:
            return (model(x.bfloat16()).float() - wanted).square().mean().item()

        errors["plain"] += error()
        with folded(half):
            errors["twice"] += error()
        with folded(half, network):
            errors["once"] += error()
    assert errors["once"] < errors["plain"] < errors["twice"], errors
