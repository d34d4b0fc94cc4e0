"""States, co-states, products and Hamiltonians against a recursion written out by hand and against autograd."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from algorithms.control.hamiltonian import hamiltonian, increase, products
from algorithms.control.states import layers, trajectory
from tests.control.networks import batch, plain, residual


def loss_of(model: nn.Module, channels: int) -> Callable[[], Tensor]:
    x, y = batch(channels)
    return lambda: functional.cross_entropy(model(x), y)


def test_costates_of_a_dense_network_are_those_of_the_recursion() -> None:
    """p_T = -dJ/dx_T = (onehot - softmax) / B, then p_t = W^T p_{t+1}, through a ReLU only where it is open."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 4), nn.Linear(4, 3)).double()
    x, y = torch.randn(6, 5, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1, 2])
    visits = trajectory(model, lambda: functional.cross_entropy(model(x), y)).visits
    with torch.no_grad():
        hidden = model[0](x)
        opened = hidden.relu()
        p3 = (functional.one_hot(y, 3) - model(x).softmax(1)) / 6
        p2 = p3 @ model[3].weight
        p1 = (p2 @ model[2].weight) * (hidden > 0)
    expected = {"0": (x, p1), "2": (opened, p2), "3": (model[2](opened).detach(), p3)}
    assert list(visits) == list(expected)
    for name, (state, costate) in expected.items():
        torch.testing.assert_close(visits[name][0].state, state, rtol=0, atol=1e-14)
        torch.testing.assert_close(visits[name][0].costate, costate, rtol=0, atol=1e-14)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("make", "channels"), [(residual, 2), (plain, 1)])
def test_products_are_minus_the_gradients(make: Callable[[], nn.Sequential], channels: int, *, training: bool) -> None:
    """In a residual network, with a ReLU that writes over a batch norm's output, in either mode of the batch norm."""
    model = make().train(training)
    buffers = [buffer.clone() for buffer in model.buffers()]
    record = trajectory(model, loss_of(model, channels))
    if training:
        for buffer, old in zip(model.buffers(), buffers, strict=True):
            buffer.copy_(old)
    assert all(parameter.grad is None for parameter in model.parameters())
    value = loss_of(model, channels)()
    value.backward()
    assert record.loss == float(value.detach())
    for name, layer in layers(model).items():
        for own, product in products(layer, record.visits[name]).items():
            torch.testing.assert_close(product, -layer.get_parameter(own).grad, rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 2), dilation=(1, 2), groups=2),
        nn.Conv2d(4, 2, 3, padding=1, padding_mode="circular", bias=False),
        nn.Conv2d(4, 2, 3, padding="same"),
        nn.BatchNorm2d(4),
    ],
    ids=str,
)
def test_products_of_odd_layers(layer: nn.Module) -> None:
    layer = layer.double()
    x, _ = batch(4)
    weights = torch.randn(layer(x).shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    visits = trajectory(layer, lambda: (weights * layer(x)).sum()).visits[""]  # noqa: PLW0108 - the pass is inside
    (layer(x) * weights).sum().backward()
    for own, product in products(layer, visits).items():
        torch.testing.assert_close(product, -layer.get_parameter(own).grad, rtol=0, atol=1e-11)


def test_a_layer_that_is_passed_twice_has_two_visits_whose_products_add_up() -> None:
    layer = nn.Linear(3, 3).double()
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    record = trajectory(layer, lambda: layer(layer(x).tanh()).square().sum())
    layer(layer(x).tanh()).square().sum().backward()
    assert len(record.visits[""]) == 2
    torch.testing.assert_close(products(layer, record.visits[""])["weight"], -layer.weight.grad, rtol=0, atol=1e-13)


def test_the_hamiltonian_is_linear_with_the_product_as_its_slope() -> None:
    model = residual().train()
    visits = trajectory(model, loss_of(model, 2)).visits
    buffers = [buffer.clone() for buffer in model.buffers()]
    for name, layer in layers(model).items():
        old = {key: value.detach() for key, value in layer.named_parameters(recurse=False)}
        new = {key: value + 0.1 for key, value in old.items()}
        slope = products(layer, visits[name])
        gain = sum(float((slope[key] * (new[key] - old[key])).sum()) for key in old)
        assert increase(layer, visits[name], new, 0.0) == pytest.approx(gain, abs=1e-12)
        penalty = 0.3 * sum(float(value.square().sum()) for value in new.values())
        without, with_penalty = (hamiltonian(layer, visits[name], new, alpha) for alpha in (0.0, 0.3))
        assert with_penalty == pytest.approx(without - penalty, abs=1e-12)
    assert all(torch.equal(old, now) for old, now in zip(buffers, model.buffers(), strict=True))


def test_numbers_that_are_not_finite_are_named() -> None:
    model = plain()
    x, y = batch(1)
    with pytest.raises(FloatingPointError, match="the loss is nan"):
        trajectory(model, lambda: functional.cross_entropy(model(x * torch.nan), y))
    with pytest.raises(FloatingPointError, match=r"^0: a co-state is NaN or infinite"):
        trajectory(model, lambda: (model(x) - model(x).detach()).square().sum().sqrt())  # 1 / 0 times 0


def test_other_layers_have_no_product() -> None:
    layer = nn.GroupNorm(2, 4).double()
    visits = trajectory(layer, lambda: layer(batch(4)[0]).square().sum()).visits[""]
    with pytest.raises(ValueError, match="GroupNorm has none"):
        products(layer, visits)
