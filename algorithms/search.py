"""What every attack needs and none should write again: the search around an attack's rule.

It freezes the model, hands out gradients for the input only, judges every point by the prediction made there, keeps
the best point a row, lets rows that are done leave the batch, counts passes, and gives each row random numbers of its
own. A row's result does not depend on the rows beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from algorithms import losses
from algorithms.convolution import quickened
from algorithms.gradients import Evaluated, differentiate, predict
from algorithms.ledger import Best, Ledger, Policy, Record
from algorithms.modes import frozen
from algorithms.streams import Streams
from algorithms.tensors import Counts, Images, Labels, Logits, Mask, PerRow

if TYPE_CHECKING:
    from algorithms.attacks import Attack

__all__ = [
    "Best",
    "Jacobian",
    "Ledger",
    "Policy",
    "Problem",
    "Record",
    "Stop",
    "Values",
    "Visit",
    "search",
    "unperturbed",
]


class Visit(NamedTuple):
    """A point that a search has evaluated, offered to a stopping rule."""

    x: Images  # clean
    x_adv: Images
    y: Labels
    gradient: Images


Values = Float[Tensor, "batch values"]  # several numbers an example, one for each class or boundary, say
Stop = Callable[[Visit], Mask]  # rows for which it is True take no further step


class Jacobian(NamedTuple):
    """A point that the model has seen: its logits, several values of them, and the input gradient of each value."""

    logits: Logits
    values: Values
    gradients: Float[Tensor, "batch values channels height width"]


@final
class Problem:
    """The rows that a search is still busy with. What an attack's rule sees of the world."""

    def __init__(self, model: nn.Module, ledger: Ledger, rows: Labels, streams: Streams, stop: Stop | None) -> None:
        self.model, self.ledger, self.rows, self.streams, self.stop = model, ledger, rows, streams, stop
        self.x: Images = ledger.x[rows]
        self.y: Labels = ledger.y[rows]
        self.done: Mask | None = None  # None until a row may be done: then nothing has to be asked of the device
        self.restart = 0  # which of the attack's restarts this is; 0 is the first search

    @property
    def best(self) -> Best:
        """The best points of these rows so far, earlier restarts included."""
        ledger = self.ledger
        return Best(*(kept.index_select(0, self.rows) for kept in (ledger.best, ledger.success, ledger.norm)))

    def gradient(self, x_adv: Images, loss: losses.Loss | None = None) -> Evaluated:
        """Logits, the attack's own or another loss, and input gradient at `x_adv`, all of the images' type.

        The point is judged on the way, by the attack's own loss. One forward and one backward pass.
        """
        return self.gradient_of(x_adv, lambda logits: self.loss(logits, loss))

    def gradient_of(self, x_adv: Images, value: Callable[[Logits], PerRow], *, judged: bool = True) -> Evaluated:
        """The same for any `value` of the logits, a number a row, higher meaning more adversarial.

        `judged` is False for points that are no candidates, outside of the ball, say; `judge` may take some of them.
        """
        x_adv = x_adv.detach().requires_grad_(True)
        with torch.enable_grad():
            logits = self._logits(x_adv)
            climbed = value(logits)
            gradient = differentiate(climbed, x_adv)
        self.count(forwards=1, backwards=1)
        x_adv, logits = x_adv.detach(), logits.detach()
        if judged:
            self._judge(x_adv, logits)
            if self.stop is not None:
                self.finish(self.stop(Visit(self.x, x_adv, self.y, gradient)))
        return Evaluated(logits.to(x_adv.dtype), climbed.detach().to(x_adv.dtype), gradient)

    def jacobian(self, x_adv: Images, values: Callable[[Logits], Values], *, judged: bool = True) -> Jacobian:
        """Logits, k `values` of them a row, and the input gradient of each, all from one forward pass.

        `values` maps logits to (batch, k), a number for each class or boundary of interest; `algorithms.boundaries` has
        the usual ones. One forward and k backward passes. The point is judged; no stopping rule is asked.
        """
        x_adv = x_adv.detach().requires_grad_(True)
        with torch.enable_grad():
            logits = self._logits(x_adv)
            columns = values(logits).unbind(1)
            more = [True] * (len(columns) - 1) + [False]
            gradients = [differentiate(c, x_adv, again=again) for c, again in zip(columns, more, strict=True)]
        self.count(forwards=1, backwards=len(columns))
        x_adv, logits = x_adv.detach(), logits.detach()
        if judged:
            self._judge(x_adv, logits)
        seen = torch.stack(columns, 1).detach().to(x_adv.dtype)
        return Jacobian(logits.to(x_adv.dtype), seen, torch.stack(gradients, 1))

    def predict(self, x_adv: Images, loss: losses.Loss | None = None, *, judged: bool = True) -> Logits:
        """Logits at `x_adv`, which is judged on the way, by the attack's own loss or another. One forward pass."""
        with torch.no_grad():
            logits = self._logits(x_adv)
        self.count(forwards=1)
        if judged:
            self._judge(x_adv, logits, loss)
        return logits.to(x_adv.dtype)

    def values(self, points: Float[Tensor, "points batch channels height width"]) -> Float[Tensor, "points batch"]:
        """The attack's loss at several points of every row that are no candidates.

        One forward pass each, all at once: with few rows that is quicker.
        """
        with torch.no_grad():
            logits = self._logits(points.flatten(0, 1)).to(points.dtype)
        self.count(forwards=len(points))
        return torch.stack([self.loss(part) for part in logits.split(len(self.rows))])

    def judge(self, x_adv: Images, logits: Logits, rows: Mask) -> None:
        """Judges points that were evaluated before with `judged=False`: those of `rows`. No pass."""
        value, among = self.loss(logits), rows.nonzero().squeeze(1)
        success = self.ledger.judge(self.rows[among], x_adv[among], logits[among], value[among])
        if self.ledger.policy == "first success" and not self.ledger.attack.minimal:
            self.finish(torch.zeros_like(rows).index_copy(0, among, success))

    def loss(self, logits: Logits, loss: losses.Loss | None = None) -> PerRow:
        """The loss that the attack climbs, or another; the right way round for a targeted one."""
        return losses.loss(loss or self.ledger.attack.loss, logits, self.y, targeted=self.ledger.attack.targeted)

    def count(self, *, forwards: int | Counts = 0, backwards: int | Counts = 0) -> None:
        """Adds passes that were made outside of `gradient` and `predict` to what the rows have spent."""
        self.ledger.forwards[self.rows] += forwards
        self.ledger.backwards[self.rows] += backwards

    def finish(self, rows: Mask) -> None:
        """Marks rows that need no further step: they leave the batch after this one."""
        self.done = rows if self.done is None else self.done | rows

    def _logits(self, x_adv: Images) -> Logits:
        logits = predict(self.model, x_adv)
        if not self.ledger.labels_checked:
            check_labels(self.y, logits.shape[1])
            self.ledger.labels_checked = True
        return logits

    def _judge(self, x_adv: Images, logits: Logits, loss: losses.Loss | None = None) -> None:
        success = self.ledger.judge(self.rows, x_adv, logits, self.loss(logits, loss))
        if self.ledger.policy == "first success" and not self.ledger.attack.minimal:
            self.finish(success)

    def without_done(self, state: Any) -> tuple[Problem, Any]:
        """The problem and the attack's state for the rows that are not done."""
        if self.done is None or not self.done.any():
            return self, state
        keep = ~self.done
        rest = Problem(self.model, self.ledger, self.rows[keep], self.streams.select(keep), self.stop)
        rest.restart = self.restart
        return rest, select(state, keep)


def select(state: Any, keep: Mask) -> Any:
    """The rows of an attack's state that stay: of its tensors, and of states inside it."""
    if state is None or isinstance(state, Tensor):
        return None if state is None else state[keep]
    return type(state)(*(select(part, keep) for part in state))


def search(
    attack: Attack,
    model: nn.Module,
    x: Images,
    y: Labels,
    *,
    rng: torch.Generator | Streams,
    policy: Policy = "first success",
    stop: Stop | None = None,
) -> Record:
    """Runs `attack` on every row. `stop` ends single rows early (dynamic training); `rng` lives on the CPU.

    Streams in place of a generator say what each row draws: an evaluation keys them by example.
    Raises ValueError for images outside [0, 1], an empty batch, wrong labels and a model that cannot be attacked, and
    FloatingPointError for a model whose loss is not finite.
    """
    check(x, y)
    streams = rng if isinstance(rng, Streams) else Streams.draw(rng, len(x), x.device)
    with frozen(model), quickened(model):
        ledger = Ledger(attack, x.detach(), y, policy)
        for restart in range(attack.restarts):
            rows = standing(ledger)
            if len(rows):
                problem = Problem(model, ledger, rows, streams.select(rows).fork(restart), stop)
                problem.restart = restart
                descend(attack, problem)
    if (ledger.value.isnan() if policy == "last" else ~ledger.value.isfinite()).any():  # `last` may not have looked
        raise FloatingPointError("the model gave no finite loss for some images: its weights or its output hold NaN")
    return ledger.record()


def standing(ledger: Ledger) -> Labels:
    """Indices of the rows worth another restart: all, or those not yet fooled where the first success is enough."""
    if ledger.policy == "first success" and not ledger.attack.minimal:
        return (~ledger.success).nonzero().squeeze(1)
    return torch.arange(len(ledger.x), device=ledger.x.device)


def descend(attack: Attack, problem: Problem) -> None:
    """One search from one start: steps until all are made or no row is left, then the last point is judged."""
    state = attack.start(problem)
    problem, state = problem.without_done(state)
    for k in range(attack.steps):
        if not len(problem.rows):
            return
        state = attack.step(problem, state, k)
        problem, state = problem.without_done(state)
    if len(problem.rows):
        conclude(problem, state.x_adv)


def conclude(problem: Problem, x_adv: Images) -> None:
    """Judges the last iterates, or under the policy `last` takes them as they are."""
    if problem.ledger.policy == "last":
        problem.ledger.best[problem.rows] = x_adv
    else:
        problem.predict(x_adv)


def check(x: Images, y: Labels) -> None:
    """Raises ValueError, before any work, for inputs that no attack can use."""
    if x.dim() != 4 or not x.is_floating_point():
        raise ValueError(f"x: float images (batch, channels, height, width) expected, got {x.dtype} {tuple(x.shape)}")
    if len(x) == 0:
        raise ValueError("x: the batch is empty")
    if y.shape != (len(x),) or y.dtype != torch.int64:
        raise ValueError(f"y: int64 labels of shape ({len(x)},) expected, got {y.dtype} {tuple(y.shape)}")
    low, high = x.aminmax()
    if not (low >= 0 and high <= 1):  # so written, NaN fails too
        raise ValueError(
            f"x: pixels in [0, 1] expected, got {low.item():.4g} to {high.item():.4g}; "
            "scale images to [0, 1] and put any normalisation into the model's first layer"
        )


def check_labels(y: Labels, classes: int) -> None:
    """Raises ValueError for labels that the model has no logit for."""
    if y.min() < 0 or y.max() >= classes:
        raise ValueError(f"y: labels 0 to {classes - 1} expected, got {y.min().item()} to {y.max().item()}")


def unperturbed(x: Images) -> Record:
    """The record of no attack at all: the clean images, free of charge."""
    none = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    return Record(x, none.bool(), torch.zeros(len(x), dtype=x.dtype, device=x.device), none, none.clone())
