"""The judge of an evaluation, on a linear model whose smallest perturbations are known in closed form."""

from __future__ import annotations

import dataclasses
import pickle
from typing import Any, NamedTuple, final

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from algorithms.attacks import Attack
from algorithms.attacks.fgsm import FGSM
from algorithms.attacks.pgd import PGD
from algorithms.search import search
from algorithms.streams import Streams
from workers.judge import Judged, JudgeTask, goals_of, judge, streams_of

SHAPE = (1, 3, 3)


class Given(NamedTuple):
    """A split made of given tensors."""

    x: Tensor
    y: Tensor

    def images(self, indices: np.ndarray) -> Tensor:
        return self.x[torch.from_numpy(indices)].clone()

    def labels(self, indices: np.ndarray) -> Tensor:
        return self.y[torch.from_numpy(indices)].clone()


class Linear(nn.Module):
    """Two classes; the gap between their logits is `w . (x - 0.5)`."""

    def __init__(self, w: Tensor) -> None:
        super().__init__()
        self.register_buffer("w", w)
        self.dropout = nn.Dropout(0.5)  # a judge that forgets evaluation mode gives other figures

    def forward(self, x: Tensor) -> Tensor:
        gap = self.dropout(x - 0.5).flatten(1) @ self.w
        return torch.stack([gap, torch.zeros_like(gap)], 1)


@pytest.fixture(scope="module")
def w() -> Tensor:
    return torch.tensor([1.0, -2.0, 3.0, 0.5, -0.5, 1.5, -1.0, 2.0, 0.25])


@pytest.fixture(scope="module")
def split(w: Tensor) -> Given:
    x = 0.35 + 0.3 * torch.rand((40, *SHAPE), generator=torch.Generator().manual_seed(1))
    y = ((x - 0.5).flatten(1) @ w < 0).long()
    y[::10] = 1 - y[::10]  # four examples that the model gets wrong as they are
    return Given(x, y)


def smallest(split: Given, w: Tensor) -> np.ndarray:
    """By hand: in l-infinity a linear gap moves by `eps * |w|_1`, so the boundary lies at `|gap| / |w|_1`."""
    return ((split.x - 0.5).flatten(1) @ w).abs().div(w.abs().sum()).numpy()


def task(attack: Attack | None, indices: Any = range(40), **changes: Any) -> JudgeTask:
    plain = JudgeTask("test", np.array(indices, np.int64), attack, "an attack", 3, 0, 0)
    return plain._replace(**changes)


def rows(judged: Judged) -> dict[str, np.ndarray]:
    return {f.name: getattr(judged, f.name) for f in dataclasses.fields(judged) if f.name != "kept"}


@pytest.mark.parametrize("eps", [0.0, 0.01, 0.03, 0.1])
@pytest.mark.parametrize("kind", ["fgsm", "pgd"])
def test_success_is_what_the_closed_form_says(split: Given, w: Tensor, kind: str, eps: float) -> None:
    attack = FGSM(eps=eps) if kind == "fgsm" else PGD(eps=eps, step_size=eps / 4)
    judged = judge(Linear(w), split, task(attack))
    wrong = np.arange(40) % 10 == 0
    assert judged.success.tolist() == (wrong | (smallest(split, w) < eps)).tolist()
    assert (judged.linf <= eps + 1e-7).all()
    assert (judged.success == (judged.predicted_adv != judged.label)).all()
    assert ((judged.predicted != judged.label) == wrong).all()


def test_clean_task_costs_nothing_and_measures_the_clean_images(split: Given, w: Tensor) -> None:
    judged = judge(Linear(w), split, task(None))
    gap = (split.x - 0.5).flatten(1) @ w
    towards = torch.where(split.y == 0, gap, -gap).double()
    np.testing.assert_allclose(judged.loss, torch.log1p((-towards).exp()), rtol=1e-5)
    np.testing.assert_allclose(judged.confidence, torch.sigmoid(gap.abs()), rtol=1e-5)
    assert judged.loss.tolist() == judged.loss_adv.tolist()
    for column in (judged.forwards, judged.backwards, judged.linf, judged.l2, judged.l1, judged.l0):
        assert (column == 0).all()


def test_an_example_that_is_wrong_already_is_not_attacked(split: Given, w: Tensor) -> None:
    judged = judge(Linear(w), split, task(PGD(eps=0.05)))
    wrong = judged.predicted != judged.label
    assert wrong.sum() == 4
    assert judged.success[wrong].all()
    assert (judged.backwards[wrong] == 0).all()
    assert (judged.l2[wrong] == 0).all()
    assert (judged.backwards[~wrong] > 0).all()


def test_norms_and_images_are_those_of_the_perturbation(split: Given, w: Tensor) -> None:
    judged = judge(Linear(w), split, task(PGD(eps=0.05), keep=7))
    delta = judged.kept.adversarial.astype(np.float64) - judged.kept.clean
    flat = np.abs(delta.reshape(7, -1))
    np.testing.assert_allclose(judged.linf[:7], flat.max(1), rtol=1e-12)
    np.testing.assert_allclose(judged.l2[:7], np.sqrt((flat**2).sum(1)), rtol=1e-12)
    np.testing.assert_allclose(judged.l1[:7], flat.sum(1), rtol=1e-12)
    assert judged.l0[:7].tolist() == (flat > 0).sum(1).tolist()
    np.testing.assert_allclose(
        judged.relative[:7], flat.max(1) / split.x[:7].double().amax((1, 2, 3)).numpy(), rtol=1e-12
    )
    assert judged.kept.index.tolist() == list(range(7))
    assert np.array_equal(judged.kept.clean, split.x[:7].numpy())


def test_random_numbers_belong_to_examples(split: Given, w: Tensor) -> None:
    attack = PGD(norm="l2", eps=0.02, steps=3)
    whole = rows(judge(Linear(w), split, task(attack)))
    chosen = [31, 5, 18, 2]
    some = rows(judge(Linear(w), split, task(attack, chosen)))
    for name, column in some.items():
        np.testing.assert_allclose(column, whole[name][chosen], rtol=1e-5, atol=1e-7, err_msg=name)


def test_streams_differ_by_seed_label_and_example() -> None:
    device = torch.device("cpu")
    keys = [streams_of(t, device).keys for t in (task(None), task(None, seed=4), task(None, label="another"))]
    assert len(torch.cat(keys).unique()) == 3 * 40
    assert torch.equal(streams_of(task(None, [7]), device).keys, keys[0][7:8])


def test_the_model_is_left_as_it_was(split: Given, w: Tensor) -> None:
    model = Linear(w)
    model.train()
    judge(model, split, task(PGD(eps=0.05, steps=2)))
    assert model.training
    assert model.dropout.training


class Moved(NamedTuple):
    x_adv: Tensor


@final
@dataclasses.dataclass(frozen=True, kw_only=True)
class Liar(Attack):
    """Claims success by going where no image is, or by standing still."""

    shift: float
    norm = "linf"
    eps: float = 1.0
    targeted: bool = False
    loss = "cross_entropy"
    steps = 1

    def start(self, problem: Any) -> Moved:
        problem.ledger.success[:] = True
        problem.ledger.value[:] = 1.0
        return Moved(problem.x)

    def step(self, problem: Any, state: Moved, k: int) -> Moved:
        problem.ledger.best[problem.rows] = problem.x + self.shift
        problem.finish(torch.ones(len(problem.x), dtype=torch.bool))
        return state


def test_what_an_attack_claims_does_not_count(split: Given, w: Tensor) -> None:
    judged = judge(Linear(w), split, task(Liar(shift=0.0)))
    assert judged.success.sum() == 4


def test_pixels_outside_the_box_are_a_fault(split: Given, w: Tensor) -> None:
    with pytest.raises(ValueError, match=r"'an attack' returned pixels from .* clamp every iterate"):
        judge(Linear(w), split, task(Liar(shift=2.0)))


def test_other_precisions_and_broken_weights_are_refused(split: Given, w: Tensor) -> None:
    with pytest.raises(ValueError, match="measured in float32"):
        judge(Linear(w).double(), split, task(None))
    with pytest.raises(ValueError, match="not finite"):
        judge(Linear(w * torch.nan), split, task(None))


class Three(nn.Module):
    """Three classes on one pixel: class 2 right of about 0.74, else class 0; class 1 is likely, but never likeliest."""

    def forward(self, x: Tensor) -> Tensor:
        p = x.flatten(1)[:, :1]
        return torch.cat([0.5 - p, torch.full_like(p, -0.3), 4 * (p - 0.7) - 0.2], 1)


def test_targets_are_tried_from_the_likeliest_until_one_falls() -> None:
    split = Given(torch.full((2, 1, 1, 1), 0.45), torch.zeros(2, dtype=torch.int64))
    attack = PGD(eps=0.3, step_size=0.1, steps=5, random_start=False, targeted=True)
    logits = Three()(split.x)  # 0.05, -0.3, -1.2: class 1 is the likeliest wrong one, then class 2
    assert [goals_of(logits, split.y, rank).tolist() for rank in (0, 1)] == [[1, 1], [2, 2]]
    first = judge(Three(), split, task(attack, [0, 1], targets=1))
    both = judge(Three(), split, task(attack, [0, 1], targets=9))  # more than there are
    assert first.predicted_adv.tolist() == [0, 0]
    assert both.predicted_adv.tolist() == [2, 2]
    assert (both.forwards > first.forwards).all()


def test_a_row_says_how_far_its_search_had_converged(split: Given, w: Tensor) -> None:
    """The attack ends in a corner, where the condition is zero; without a ball, or an attack, there is none."""
    found = judge(Linear(w), split, task(PGD(eps=0.03, step_size=0.01, steps=5, random_start=False), keep=3))
    attacked = found.predicted == found.label
    stands = attacked & ~found.success
    assert stands.any()
    assert np.abs(found.fosc[stands]).max() < 1e-6
    np.testing.assert_array_equal(np.isnan(found.fosc), ~attacked)
    np.testing.assert_array_equal(np.isnan(found.fosc_box), ~attacked)
    assert found.kept.fosc.shape == found.kept.loss.shape == (6, 3)
    assert (found.kept.fosc[0] > 0.01).all()
    clean = judge(Linear(w), split, task(None, keep=3))
    assert np.isnan(clean.fosc).all()
    assert clean.kept.fosc.size == 0


def test_a_report_travels() -> None:
    split = Given(torch.full((2, 1, 1, 1), 0.45), torch.zeros(2, dtype=torch.int64))
    judged = judge(Three(), split, task(None, [0, 1], keep=1))
    again = pickle.loads(pickle.dumps(judged))
    for name, column in rows(judged).items():
        np.testing.assert_array_equal(rows(again)[name], column)
    assert len(pickle.dumps(task(PGD()))) < 2000


def test_streams_given_to_a_search_are_used(w: Tensor, split: Given) -> None:
    attack = PGD(norm="l2", eps=0.01, steps=1)
    keys = Streams(torch.arange(40))
    whole = search(attack, Linear(w), split.x, split.y, rng=keys, policy="last").x_adv
    part = search(
        attack, Linear(w), split.x[5:9], split.y[5:9], rng=keys.select(torch.arange(5, 9)), policy="last"
    ).x_adv
    assert torch.equal(whole[5:9], part)


def test_the_geometric_margin_of_clean_images_is_the_distance_to_the_boundary(split: Given, w: Tensor) -> None:
    gap = ((split.x - 0.5).flatten(1) @ w).numpy()
    by_hand = np.abs(gap) / w.norm().item()
    by_hand[::10] *= -1  # the model gets these wrong
    np.testing.assert_allclose(judge(Linear(w), split, task(None)).margin, by_hand, rtol=1e-5)
    assert np.isnan(judge(Linear(w), split, task(FGSM(eps=0.03))).margin).all()


class Step(Linear):
    """The same classes, without a gradient for the input."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).sign().detach()


def test_a_model_without_a_gradient_has_no_geometric_margin(split: Given, w: Tensor) -> None:
    assert np.isnan(judge(Step(w), split, task(None)).margin).all()
