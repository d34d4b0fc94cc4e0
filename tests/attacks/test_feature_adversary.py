"""The feature adversary on networks whose features are known in closed form, and how it finds them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from algorithms.attacks.feature_adversary import FeatureAdversary, nearest_guide, watched
from algorithms.companions import WithGuides
from tests.attacks.records import run
from tests.networks import classes_of, images, small


class Doubled(nn.Module):
    """Features are the pixels, twice; then come two classes."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Identity()
        self.head = nn.Linear(36, 2, bias=False, dtype=torch.float64)
        nn.init.constant_(self.head.weight, 0.0)
        with torch.no_grad():
            self.head.weight[1] = 0.1

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(2 * x.flatten(1)))
        return logits


def test_it_is_driven_away_from_its_own_features() -> None:
    """Features are the pixels: the farthest point is a corner of the ball, as far as the box lets it."""
    x = 0.5 + 0.1 * images(4, dtype=torch.float64)
    record = run(FeatureAdversary(eps=0.2, step_size=0.1, steps=10), Doubled(), x, torch.ones(4).long(), "last")
    torch.testing.assert_close((record.x_adv - x).abs(), torch.full_like(x, 0.2))


def test_it_is_drawn_to_the_nearest_guide_of_another_class() -> None:
    x = torch.tensor([0.3, 0.7]).view(2, 1, 1, 1) + 0.05 * images(2, dtype=torch.float64)
    guides = torch.stack([x[0] + 0.01, x[0] + 0.1, x[0] - 0.2, x[1] - 0.1])
    model = WithGuides(Doubled(), guides, torch.tensor([1, 0, 0, 0]))
    record = run(FeatureAdversary(eps=0.2, step_size=0.005, steps=80), model, x, torch.ones(2).long(), "last")
    torch.testing.assert_close(record.x_adv[0], guides[1], rtol=0, atol=0.01)  # the nearest is of its own class
    torch.testing.assert_close(record.x_adv[1], guides[3], rtol=0, atol=0.01)


def test_a_guide_out_of_reach_is_approached_to_the_ball() -> None:
    x = torch.full((1, 1, 6, 6), 0.5, dtype=torch.float64)
    guides = torch.stack([x[0] + 0.4, x[0] * 0 + 1])
    model = WithGuides(Doubled(), guides, torch.tensor([0, 1]))
    record = run(FeatureAdversary(eps=0.1, step_size=0.05, steps=20), model, x, torch.ones(1).long(), "last")
    torch.testing.assert_close(record.x_adv, x + 0.1)


def test_the_nearest_guide_by_hand() -> None:
    clean = torch.tensor([[0.0, 0.0], [4.0, 0.0]])
    known = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0]])
    found = nearest_guide(clean, known, torch.tensor([0, 1]), torch.tensor([0, 1, 1]))
    assert found.tolist() == [[0.0, 2.0], [1.0, 0.0]]


def test_the_layers_that_are_looked_at() -> None:
    model, x = small(), images(2)
    hidden = model[:3](x)
    for layer, expected in (("", hidden.flatten(1)), ("0", model[0](x).flatten(1)), ("4", model(x))):
        with watched(model, layer) as features:
            torch.testing.assert_close(features(model(x)), expected)
    flat = nn.Sequential(nn.Flatten(), nn.Softmax(1))
    with watched(flat, "") as features:  # no linear layer: the logits
        torch.testing.assert_close(features(flat(x)), flat(x))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_another_layer_gives_another_attack() -> None:
    model, x = small(), images()
    y = classes_of(model, x)
    found = {layer: run(FeatureAdversary(eps=0.1, layer=layer), model, x, y, "last").x_adv for layer in ("", "0")}
    assert not torch.equal(found[""], found["0"])


def test_an_unknown_layer_is_refused() -> None:
    x = images()
    with pytest.raises(ValueError, match="layer: no layer is called '9'; there are: 0, 1, 2, 3, 4"):
        run(FeatureAdversary(layer="9"), small(), x, torch.zeros(6, dtype=torch.int64))


def test_hooks_are_gone_after_an_error() -> None:
    model, x = small(), images()
    with pytest.raises(RuntimeError):
        run(FeatureAdversary(layer="0"), model, images(2, 3), torch.zeros(2, dtype=torch.int64))
    assert not model[0]._forward_hooks
    assert run(FeatureAdversary(layer="0"), model, x, classes_of(model, x)).forwards.min() > 0


def test_guides_are_checked() -> None:
    guides: Any = images(3)
    for classes in (torch.tensor([1, 1, 1]), torch.tensor([0, 1])):
        with pytest.raises(ValueError, match=r"guides: .* of two classes or more"):
            WithGuides(small(), guides, classes)


@pytest.mark.parametrize(("field", "value"), [("steps", 0), ("step_size", -1.0), ("eps", 2.0), ("restarts", 0)])
def test_settings_are_checked(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=field):
        FeatureAdversary(**{field: value})
