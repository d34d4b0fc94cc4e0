"""What every attack needs and none should write again: the search around an attack's rule.

It freezes the model, hands out gradients for the input only, judges every point by the prediction made there, keeps
the best point a row, lets rows that are done leave the batch, counts passes, and gives each row random numbers of its
own. A row's result does not depend on the rows beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from algorithms import balls, losses
from algorithms.gradients import Evaluated, differentiate, predict
from algorithms.modes import frozen
from algorithms.streams import Streams
from algorithms.tensors import Counts, Images, Labels, Logits, Mask, PerRow, per_row

if TYPE_CHECKING:
    from algorithms.attacks import Attack

Policy = Literal["first success", "highest loss", "last"]
"""Which point a row returns. `first success` (evaluation): the first adversarial one, or the smallest for a minimal-norm
attack; a row that withstands is its highest loss, or the clean row for a minimal-norm attack. `highest loss` (training):
that one, whether it fools or not. `last` (training as the papers print it): the last iterate; saves a forward pass."""


class Record(NamedTuple):
    """What a search found, a row an example."""

    x_adv: Images
    success: Mask  # a fresh prediction at `x_adv` is adversarial; under the policy `last`, of the iterate before it
    norm: PerRow  # of `x_adv - x`, in the attack's norm
    forwards: Counts  # forward passes spent
    backwards: Counts  # backward passes spent


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


class Best(NamedTuple):
    """The best point of every row so far, for rules that return to it or bound themselves by it."""

    x_adv: Images  # where nothing has fooled yet: the point of highest loss
    success: Mask
    norm: PerRow  # of the smallest adversarial point, infinite where there is none; kept for minimal-norm attacks only


@final
class Ledger:
    """The best point of every row so far. Rows are written by index; it is read at the end."""

    def __init__(self, attack: Attack, x: Images, y: Labels, policy: Policy) -> None:
        self.attack, self.x, self.y, self.policy = attack, x, y, policy
        self.best = x.clone()
        self.success = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        self.value = torch.full((len(x),), -torch.inf, dtype=x.dtype, device=x.device)
        self.norm = torch.full((len(x),), torch.inf, dtype=x.dtype, device=x.device)
        self.forwards = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        self.backwards = torch.zeros_like(self.forwards)
        self.labels_checked = False

    def judge(self, rows: Labels, x_adv: Images, logits: Logits, value: PerRow) -> Mask:
        """Notes the points `x_adv` of `rows`; returns which of them are adversarial."""
        success = losses.fooled(logits, self.y[rows], targeted=self.attack.targeted)
        value = value.detach().to(self.value.dtype)
        climbs = value > self.value[rows]
        if self.attack.minimal:
            norm = balls.size(x_adv - self.x[rows], self.attack.norm)
            better = torch.where(success, norm < self.norm[rows], climbs & ~self.success[rows])
            self.norm[rows] = torch.where(success & better, norm, self.norm[rows])
        elif self.policy == "first success":
            better = ~self.success[rows] & (success | climbs)
        else:
            better = climbs
        if self.policy == "last":
            better = torch.ones_like(better)
        self._write(rows, x_adv, success, value, better)
        return success

    def _write(self, rows: Labels, x_adv: Images, success: Mask, value: PerRow, better: Mask) -> None:
        self.best[rows] = torch.where(per_row(better, x_adv), x_adv, self.best[rows])
        self.success[rows] = torch.where(better, success, self.success[rows])
        self.value[rows] = torch.where(better, value, self.value[rows])

    def record(self) -> Record:
        """The outcome. A row that a minimal-norm attack could not fool is the clean row under `first success`."""
        x_adv = self.best
        if self.attack.minimal and self.policy == "first success":
            x_adv = torch.where(per_row(self.success, self.x), x_adv, self.x)
        norm = balls.size(x_adv - self.x, self.attack.norm)
        return Record(x_adv, self.success, norm, self.forwards, self.backwards)


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
        return Best(ledger.best[self.rows], ledger.success[self.rows], ledger.norm[self.rows])

    def gradient(self, x_adv: Images, loss: losses.Loss | None = None) -> Evaluated:
        """Logits, the attack's own or another loss, and input gradient at `x_adv`, all of the images' type.

        The point is judged on the way, by the attack's own loss. One forward and one backward pass.
        """
        return self.gradient_of(x_adv, lambda logits: self.loss(logits, loss))

    def gradient_of(self, x_adv: Images, value: Callable[[Logits], PerRow]) -> Evaluated:
        """The same for any `value` of the logits, a number a row, higher meaning more adversarial."""
        x_adv = x_adv.detach().requires_grad_(True)
        with torch.enable_grad():
            logits = self._logits(x_adv)
            climbed = value(logits)
            gradient = differentiate(climbed, x_adv)
        self.count(forwards=1, backwards=1)
        x_adv, logits = x_adv.detach(), logits.detach()
        self._judge(x_adv, logits)
        if self.stop is not None:
            self.finish(self.stop(Visit(self.x, x_adv, self.y, gradient)))
        return Evaluated(logits.to(x_adv.dtype), climbed.detach().to(x_adv.dtype), gradient)

    def jacobian(self, x_adv: Images, values: Callable[[Logits], Values]) -> Jacobian:
        """Logits, k `values` of them a row, and the input gradient of each, all from one forward pass.

        For rules that look at several classes at once: `values` maps logits to (batch, k), one number for each class or
        boundary of interest, and should hold only what is needed, as it costs one forward and k backward passes. The
        point is judged on the way. A stopping rule is not asked. `algorithms.boundaries` has the usual `values`.
        """
        x_adv = x_adv.detach().requires_grad_(True)
        with torch.enable_grad():
            logits = self._logits(x_adv)
            columns = values(logits).unbind(1)
            more = [True] * (len(columns) - 1) + [False]
            gradients = [differentiate(c, x_adv, again=again) for c, again in zip(columns, more, strict=True)]
        self.count(forwards=1, backwards=len(columns))
        x_adv, logits = x_adv.detach(), logits.detach()
        self._judge(x_adv, logits)
        seen = torch.stack(columns, 1).detach().to(x_adv.dtype)
        return Jacobian(logits.to(x_adv.dtype), seen, torch.stack(gradients, 1))

    def predict(self, x_adv: Images, loss: losses.Loss | None = None) -> Logits:
        """Logits at `x_adv`, which is judged on the way, by the attack's own loss or another. One forward pass."""
        with torch.no_grad():
            logits = self._logits(x_adv)
        self.count(forwards=1)
        self._judge(x_adv, logits, loss)
        return logits.to(x_adv.dtype)

    def loss(self, logits: Logits, loss: losses.Loss | None = None) -> PerRow:
        """The loss that the attack climbs, or another; the right way round for a targeted one."""
        return losses.loss(loss or self.ledger.attack.loss, logits, self.y, targeted=self.ledger.attack.targeted)

    def count(self, *, forwards: int = 0, backwards: int = 0) -> None:
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
        return rest, type(state)(*(None if part is None else part[keep] for part in state))


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

    Streams in place of a generator say what each row draws: an evaluation keys them by example, so that an example's
    draws do not depend on the rows beside it.

    Raises ValueError for images outside [0, 1], NaN, an empty batch, wrong labels and a model that cannot be attacked,
    and FloatingPointError for a model whose loss is not finite.
    """
    check(x, y)
    streams = rng if isinstance(rng, Streams) else Streams.draw(rng, len(x), x.device)
    with frozen(model):
        ledger = Ledger(attack, x.detach(), y, policy)
        for restart in range(attack.restarts):
            rows = standing(ledger)
            if len(rows):
                problem = Problem(model, ledger, rows, streams.select(rows).fork(restart), stop)
                problem.restart = restart
                descend(attack, problem)
    if policy != "last" and not torch.isfinite(ledger.value).all():
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
