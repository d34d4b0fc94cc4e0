"""Passes through a model, and the mode in which it is attacked."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from algorithms.attacks.pgd import PGD
from algorithms.gradients import differentiate, dtype_of, predict
from algorithms.modes import evaluating, frozen
from algorithms.search import search
from tests.networks import classes_of, images, small


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_a_model_is_fed_its_own_type_and_half_logits_come_back_as_float32(dtype: torch.dtype) -> None:
    model = small(dtype=dtype)
    assert dtype_of(model) == dtype
    assert predict(model, images()).dtype == (torch.float64 if dtype is torch.float64 else torch.float32)


def test_a_model_without_weights_is_fed_float32() -> None:
    assert dtype_of(nn.Flatten()) == torch.float32
    counted = nn.BatchNorm2d(1, affine=False).double()  # only buffers, and one of them counts batches
    assert dtype_of(counted) == torch.float64


def test_gradients_are_of_the_sum_and_may_be_asked_for_again() -> None:
    x = images().requires_grad_()
    value = (x**2).flatten(1).sum(1)
    for again in (True, False):
        assert torch.equal(differentiate(value, x, again=again), 2 * x.detach())
    assert x.grad is None


def test_an_output_that_ignores_the_input_is_nothing_to_attack() -> None:
    x, other = images(2).requires_grad_(), torch.zeros(2, requires_grad=True)
    with pytest.raises(ValueError, match="the model's output does not depend on its input: there is nothing to attack"):
        differentiate(other * 2, x)
    with pytest.raises(ValueError, match=r"no gradient for its input .* such as square"):
        differentiate(torch.zeros(2), x)


def mixed() -> nn.Sequential:
    """A network that trains, but for a frozen batch norm and a frozen bias."""
    model = small().train()
    model[1].eval()
    model[0].bias.requires_grad_(False)
    return model


def test_frozen_means_evaluation_without_gradients_for_weights() -> None:
    model = mixed()
    with frozen(model):
        assert not any(module.training for module in model.modules())
        assert not any(parameter.requires_grad for parameter in model.parameters())
    with evaluating(model):
        assert not any(module.training for module in model.modules())
        assert [parameter.requires_grad for parameter in model.parameters()] == [True, False, True, True, True, True]
    assert [module.training for module in model] == [True, False, True, True, True]
    assert [parameter.requires_grad for parameter in model.parameters()] == [True, False, True, True, True, True]


def test_flags_come_back_even_after_an_error() -> None:
    model = mixed()
    with pytest.raises(ValueError, match="labels 0 to 3"):
        search(PGD(), model, images(), torch.full((6,), 9), rng=torch.Generator())
    assert [module.training for module in model] == [True, False, True, True, True]
    assert [parameter.requires_grad for parameter in model.parameters()] == [True, False, True, True, True, True]


@pytest.mark.parametrize("grad", [False, True])
def test_attacks_work_where_gradients_are_off_and_on_images_that_want_them(grad: bool) -> None:
    def attacked(x: Tensor) -> Tensor:
        return search(PGD(), model, x, y, rng=torch.Generator().manual_seed(0)).x_adv

    model, x = small(), images()
    y = classes_of(model, x)
    expected = attacked(x)
    with torch.set_grad_enabled(grad):
        x_adv = attacked(x.requires_grad_())
    assert torch.equal(x_adv, expected)
    assert not x_adv.requires_grad
    assert x.grad is None
