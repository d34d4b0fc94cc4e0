"""What every attack refuses, and in which words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from algorithms.attacks import Attack
from algorithms.tensors import Images, Labels
from tests.attacks.cheap import needs_logits
from tests.attacks.records import assert_true, run
from tests.networks import classes_of, images, small


def spoilt(x: Images, value: float) -> Images:
    x = x.clone()
    x[1, 0, 2, 3] = value
    return x


BAD_INPUTS: dict[str, tuple[Callable[[Images, Labels], tuple[Any, Any]], str]] = {
    "empty": (lambda x, y: (x[:0], y[:0]), "x: the batch is empty"),
    "NaN": (lambda x, y: (spoilt(x, torch.nan), y), r"x: pixels in \[0, 1\] expected, got nan"),
    "infinite": (lambda x, y: (spoilt(x, torch.inf), y), r"x: pixels in \[0, 1\] expected, got 0 to inf"),
    "too bright": (lambda x, y: (x * 255, y), r"got 0 to 255; scale images to \[0, 1\] and put any normalisation"),
    "negative": (lambda x, y: (spoilt(x, -0.5), y), r"x: pixels in \[0, 1\] expected, got -0.5 to 1"),
    "integer images": (lambda x, y: (x.to(torch.uint8), y), r"x: float images .* got torch.uint8 \(6, 1, 6, 6\)"),
    "no channels": (lambda x, y: (x[:, 0], y), r"x: float images \(batch, channels, .* \(6, 6, 6\)"),
    "float labels": (lambda x, y: (x, y.float()), r"y: int64 labels of shape \(6,\) expected, got torch.float32"),
    "few labels": (lambda x, y: (x, y[1:]), r"y: int64 labels of shape \(6,\) expected, got torch.int64 \(5,\)"),
    "one-hot": (lambda x, y: (x, nn.functional.one_hot(y, 4)), r"y: int64 labels of shape \(6,\) .* \(6, 4\)"),
    "label 4 of 4": (lambda x, y: (x, y * 0 + 4), "y: labels 0 to 3 expected, got 4 to 4"),
    "label -1": (lambda x, y: (x, y * 0 - 1), "y: labels 0 to 3 expected, got -1 to -1"),
}


@pytest.mark.parametrize("case", BAD_INPUTS)
def test_bad_inputs_are_refused(any_norm: Attack, case: str) -> None:
    model, x = small(), images()
    spoil, message = BAD_INPUTS[case]
    with pytest.raises(ValueError, match=message):
        run(any_norm, model, *spoil(x, classes_of(model, x)))


class Passing(nn.Module):
    """A model whose output `change` spoils."""

    def __init__(self, change: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.model, self.change = small(), change

    def forward(self, x: Tensor) -> Any:
        return self.change(self.model(x))


BAD_MODELS: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "one logit": (lambda z: z[:, :1], r"must return logits of shape \(6, classes\), .* got \(6, 1\)"),
    "no batch": (lambda z: z[0], r"must return logits of shape \(6, classes\), .* got \(4,\)"),
    "feature maps": (lambda z: z[:, :, None], r"must return logits of shape \(6, classes\), .* got \(6, 4, 1\)"),
    "a row lost": (lambda z: z[1:], r"must return logits of shape \(6, classes\), .* got \(5, 4\)"),
    "a tuple": (lambda z: (z, z), r"must return logits of shape \(6, classes\), .* got tuple"),
}


@pytest.mark.parametrize("case", BAD_MODELS)
def test_bad_models_are_refused(any_norm: Attack, case: str) -> None:
    change, message = BAD_MODELS[case]
    x = images()
    with pytest.raises(ValueError, match=message):
        run(any_norm, Passing(change), x, torch.zeros(len(x), dtype=torch.int64))


def test_a_model_that_gives_nan_is_refused(attack: Attack) -> None:
    x = images()
    with pytest.raises(FloatingPointError, match="the model gave no finite loss"):
        run(attack, Passing(lambda z: z * torch.nan), x, torch.zeros(len(x), dtype=torch.int64))


NO_GRADIENT: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "detached": (lambda z: z.detach(), "the model gives no gradient for its input"),
    "rounded": (lambda z: nn.functional.one_hot(z.argmax(1), 4).float(), "the model gives no gradient for its input"),
}


@pytest.mark.parametrize("case", NO_GRADIENT)
def test_a_model_without_gradient_is_refused_by_those_who_need_one(any_norm: Attack, case: str) -> None:
    change, message = NO_GRADIENT[case]
    x = images()
    model = Passing(change)
    y = classes_of(model.model, x)
    if needs_logits(any_norm) and run(any_norm, model.model, x, y).backwards.any():
        with pytest.raises(ValueError, match=message):
            run(any_norm, model, x, y)
    else:
        assert_true(run(any_norm, model, x, y), any_norm, model, x, y)
