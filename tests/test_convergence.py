"""What a run keeps of its attacks' convergence: which examples, which figures, and plots that show them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from algorithms.attacks.pgd import PGD
from algorithms.balls import Norm
from algorithms.defenses.adversarial import Adversarial
from algorithms.defenses.dynamic import Dynamic
from algorithms.defenses.fast_adversarial import FastAdversarial
from algorithms.defenses.standard import Standard
from algorithms.defenses.wasser_train import WasserTrain
from algorithms.diagnostics.convergence import Ball
from orchestrator import convergence, fosc_plots
from orchestrator.backend import Inline
from orchestrator.folders import RunFolder
from orchestrator.plan import work_of
from orchestrator.recipe import Convergence, Recipe, Train
from workers import schedule
from workers.convergence import Convergence as Measured
from workers.convergence import ball_of_training
from workers.messages import Snapshot

RECIPE = Recipe(
    defense=Dynamic(attack=PGD(eps=0.2, step_size=0.05, steps=4), c_max=0.2),
    train=Train(epochs=3, batch=128, shard=32),
    convergence=Convergence(examples=150, every=2),
)
EXAMPLES = 1438  # of the training part of digits


def test_only_some_epochs_are_measured_and_the_last_one_always() -> None:
    assert [convergence.due(RECIPE, epoch) for epoch in range(3)] == [False, True, True]
    never = dataclasses.replace(RECIPE, convergence=Convergence(examples=0))
    plain = dataclasses.replace(RECIPE, defense=Standard())
    assert not any(convergence.due(recipe, epoch) for recipe in (never, plain) for epoch in range(3))


def test_the_examples_are_an_epochs_last() -> None:
    shards = convergence.last_shards(RECIPE, EXAMPLES, 1)
    per_epoch = schedule.steps_per_epoch(work_of(RECIPE), EXAMPLES)
    assert len(set(shards)) == len(shards) == 5  # 150 examples are about five shards of 32
    assert {shard.epoch for shard in shards} == {1}
    assert [shard.step for shard in shards] == [2 * per_epoch - 1] * 4 + [2 * per_epoch - 2]


@pytest.mark.parametrize(
    ("defense", "ball"),
    [
        (Adversarial(attack=PGD(norm="l2", eps=0.7)), ("l2", 0.7)),
        (FastAdversarial(norm="l2", eps=0.4), ("l2", 0.4)),
        (WasserTrain(), None),
        (Standard(), None),
    ],
)
def test_the_ball_is_that_of_the_defense(defense: object, ball: tuple[Norm, float] | None) -> None:
    assert ball_of_training(defense) == (None if ball is None else Ball(*ball))


class Shown(Inline):  # type: ignore[misc] # final, but a test may stand in for the trainer
    """A backend whose trainer has the initial weights."""

    def ask_trainer(self, method: str) -> Snapshot:
        self.start_trainer(None)
        taken: Snapshot = super().ask_trainer(method)
        return taken


def test_what_is_measured_is_what_the_defense_makes_then(tmp_path: Path) -> None:
    """At steps 18 and 19 of 30 the criterion of 0.2 has fallen to a quarter."""
    work = work_of(RECIPE)
    rows = convergence.measure_convergence(RECIPE, EXAMPLES, Shown(work), 1)
    assert rows.num_rows == 160
    again = convergence.measure_convergence(RECIPE, EXAMPLES, Shown(work), 1)
    assert rows.equals(again)
    fosc, spent = rows["fosc"].to_numpy(), rows["backwards"].to_numpy()
    early = spent < 4
    assert early.any()
    assert (fosc[early] <= 0.2 * (1 - 0.6 / 0.8)).all()  # who stopped before the last step had met the criterion
    folder = RunFolder(tmp_path)
    convergence.write(folder, rows)
    assert list(convergence.read(folder)) == [2]
    assert convergence.read(folder)[2].equals(rows)


def measured(fosc: list[float], loss: list[float], fooled: list[bool]) -> Measured:
    count = np.arange(len(fosc))
    return Measured(
        index=count,
        label=count,
        fosc=np.array(fosc),
        fosc_box=np.array(fosc) / 2,
        loss=np.array(loss),
        fooled=np.array(fooled),
        backwards=count,
    )


def test_figures_by_hand() -> None:
    rows = convergence.table([measured([0.0, 0.2], [3.0, 1.0], [True, False]), measured([0.4], [2.0], [False])], 0)
    found = convergence.metrics_of(rows)
    assert [found["fosc/mean"], found["fosc/median"]] == pytest.approx([0.2, 0.2])
    assert (found["fosc/largest"], found["fosc/box_largest"]) == (0.4, 0.2)
    assert found["fosc/correlation_with_loss"] == pytest.approx(np.corrcoef([0.0, 0.2, 0.4], [3, 1, 2])[0, 1])
    assert found["fosc/correlation_with_accuracy"] == pytest.approx(np.corrcoef([0.0, 0.2, 0.4], [0, 1, 1])[0, 1])
    assert "fosc/correlation_with_loss" not in convergence.metrics_of(
        convergence.table([measured([0.1, 0.1], [1.0, 2.0], [True, False])], 0)
    )


def test_densities_are_drawn_as_they_are() -> None:
    values = np.random.default_rng(0).random(300)
    figure = fosc_plots.densities({"fosc": {"epoch 1": values, "epoch 9": values / 2}})
    (axes,) = figure.axes
    one, other = (line.get_xydata() for line in axes.lines)
    assert np.trapezoid(one[:, 1], one[:, 0]) == pytest.approx(
        0.91, abs=0.02
    )  # the rest lies below 0 and beyond the end
    assert other[:, 1].max() > 1.5 * one[:, 1].max()
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["epoch 1", "epoch 9"]


def test_strength_has_a_mark_for_each_group_with_examples() -> None:
    condition = np.linspace(0, 1, 200)
    figure = fosc_plots.strength(condition, 2 - condition, condition > 0.5)
    accuracy, loss = (axes.lines[0].get_xydata() for axes in figure.axes)
    assert len(accuracy) == len(loss) == fosc_plots.GROUPS
    assert (accuracy[0, 1], accuracy[-1, 1]) == (0, 100)
    np.testing.assert_allclose(loss[:, 1], 2 - loss[:, 0], atol=0.02)


def test_ways_are_a_line_an_example() -> None:
    figure = fosc_plots.ways(np.ones((5, 3)), np.zeros((5, 3)))
    assert [len(axes.lines) for axes in figure.axes] == [3, 3]


def test_stages_are_spread_from_the_first_to_the_last() -> None:
    assert fosc_plots.stages([1, 2, 3]) == [1, 2, 3]
    assert fosc_plots.stages(list(range(1, 121))) == [1, 31, 61, 90, 120]
