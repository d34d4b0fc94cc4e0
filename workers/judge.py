"""One shard of an evaluation: an attack on given examples, judged by a fresh prediction.

What an attack says of itself does not count. The images it returns are predicted again, in float32 and evaluation mode,
their pixels checked and their distance from the clean images measured. An example that the model gets wrong as it is
has fallen at distance zero, and no attack is spent on it.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from algorithms import balls, losses, margins, transport, transport_distance
from algorithms.attacks import Attack
from algorithms.control.certificate import radii
from algorithms.gradients import dtype_of, predict
from algorithms.modes import evaluating
from algorithms.search import Policy, Record, search
from algorithms.streams import Streams
from algorithms.tensors import Images, Labels, Logits, Mask, per_row
from workers.convergence import Floats, conditions, nowhere, paths
from workers.datasets import Part
from workers.runtime import seed_of

MOST_CLASSES = 100  # a geometric margin takes a gradient a class


class Source(Protocol):
    """What a judge asks of a split."""

    def images(self, indices: NDArray[np.int64]) -> Images:
        """The images at these places of the split."""

    def labels(self, indices: NDArray[np.int64]) -> Labels:
        """Their labels."""


class JudgeTask(NamedTuple):
    """What to judge, by name."""

    part: Part
    indices: NDArray[np.int64]  # of the examples within the part
    attack: Attack | None  # None: the clean images alone
    label: str  # the attack's name in its suite; its random numbers depend on it, the seed and an example's index
    seed: int
    targets: int  # for a targeted attack: so many of the likeliest wrong classes are tried; else 0
    keep: int  # of so many rows, from the first, the images come back too
    policy: Policy = "first success"  # which image of an example counts
    lipschitz: float = 0.0  # a bound on how much the model enlarges l2 distances; 0: radii are not certified


@final
@dataclass(frozen=True, kw_only=True)
class Kept:
    """Images of the first rows, for a person to look at."""

    index: NDArray[np.int64]
    clean: NDArray[np.float32]  # (kept, channels, height, width) in [0, 1]
    adversarial: NDArray[np.float32]
    fosc: Floats = field(default_factory=nowhere)  # (points, kept): first-order condition from the start to the end
    loss: Floats = field(default_factory=nowhere)  # cross-entropy there; no points where the attack has no ball


@final
@dataclass(frozen=True, kw_only=True)
class Judged:
    """What was found: columns with a row an example, and images of the first rows."""

    index: NDArray[np.int64]
    label: NDArray[np.int64]
    predicted: NDArray[np.int64]  # of the clean image
    predicted_adv: NDArray[np.int64]
    success: NDArray[np.bool_]  # the adversarial image is predicted wrongly
    linf: NDArray[np.float64]  # norms of the perturbation, in pixel units
    l2: NDArray[np.float64]
    l1: NDArray[np.float64]
    l0: NDArray[np.float64]  # entries (pixel and channel) that changed
    relative: NDArray[
        np.float64
    ]  # the norm over that of the clean image, both in the attack's norm; 0 without an attack
    wasserstein: NDArray[np.float64]  # distance by a linear program; infinite where the attack moves no mass
    precision: NDArray[np.float64]  # mass that came or went, over all mass
    loss: NDArray[np.float64]  # cross-entropy of the clean image
    loss_adv: NDArray[np.float64]
    confidence: NDArray[np.float64]  # probability of the predicted class, clean
    confidence_adv: NDArray[np.float64]
    fosc: NDArray[np.float64]  # first-order condition where the search ended, over the attack's ball; NaN without one
    fosc_box: NDArray[np.float64]  # the same over the images in the ball
    forwards: NDArray[np.int64]  # passes that the attack spent; the judge's own are not counted
    backwards: NDArray[np.int64]
    certified: NDArray[np.float64]  # l2 radius within which no perturbation changes the class; NaN: not asked for
    margin: NDArray[np.float64]  # without an attack: l2 distance to the nearest linearised boundary, below 0 if wrong
    kept: Kept


class Seen(NamedTuple):
    """What the model makes of some images."""

    logits: Logits
    predicted: Labels
    loss: Tensor  # cross-entropy (batch,)
    confidence: Tensor  # probability of the predicted class (batch,)


def judge(model: nn.Module, split: Source, task: JudgeTask, shown: nn.Module | None = None) -> Judged:
    """Runs the task's attack on its examples, on the model's device. The model is left as it was.

    `shown` is what the attack is given in place of the model: the model together with its companions. Raises ValueError
    for a model in another precision than float32, for logits that are not finite, and for an attack whose images leave
    [0, 1].
    """
    if dtype_of(model) is not torch.float32:
        raise ValueError(f"figures are measured in float32, not in the model's {dtype_of(model)}: call model.float()")
    device = next((t.device for t in (*model.parameters(), *model.buffers())), torch.device("cpu"))
    x, y = split.images(task.indices).to(device), split.labels(task.indices).to(device)
    clean = look(model, x, y)
    record = attacked(model if shown is None else shown, x, y, clean, task)
    check_box(record.x_adv, task.label)
    after = look(model, record.x_adv, y)
    kept = _kept(model if shown is None else shown, task, x, y, record.x_adv)
    gaps = conditions(model, x, record.x_adv, y, rows=clean.predicted == y, attack=task.attack)
    far = geometric_margins(model, task, x, y, clean.logits.shape[1])
    found = _columns(task, x, y, (clean, after), record)
    return Judged(**found, fosc=gaps[0], fosc_box=gaps[1], margin=far, kept=kept)


def look(model: nn.Module, x: Images, y: Labels) -> Seen:
    """A fresh prediction, in evaluation mode."""
    with evaluating(model), torch.no_grad():
        logits = predict(model, x)
    if not torch.isfinite(logits).all():
        raise ValueError("the model gave logits that are not finite: its weights hold NaN, or grew too large")
    confidence, predicted = logits.softmax(1).max(1)
    return Seen(logits, predicted, losses.cross_entropy(logits, y), confidence)


def attacked(model: nn.Module, x: Images, y: Labels, clean: Seen, task: JudgeTask) -> Record:
    """The attack's record. Rows that the model gets wrong as they are stay clean, at no cost."""
    wrong = clean.predicted != y
    nothing = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    record = Record(x.clone(), wrong, torch.zeros(len(x), device=x.device), nothing, nothing.clone())
    if task.attack is None:
        return record
    streams = streams_of(task, x.device)
    for rank in range(min(max(1, task.targets), clean.logits.shape[1] - 1)):
        rows = (~wrong if task.attack.minimal else ~record.success).nonzero().squeeze(1)
        if not len(rows):
            break
        goals = goals_of(clean.logits[rows], y[rows], rank) if task.targets else y[rows]
        found = search(task.attack, model, x[rows], goals, rng=streams.fork(rank).select(rows), policy=task.policy)
        better = improves(model, y[rows], found, Record(*(part[rows] for part in record)), first=rank == 0)
        _merge(record, rows, found, better)
    return record


def streams_of(task: JudgeTask, device: torch.device) -> Streams:
    """A stream an example: it depends on the seed, the attack's label and the example's index, and on nothing else."""
    purpose = seed_of(task.seed, "evaluate", zlib.crc32(task.label.encode()))
    return Streams(torch.from_numpy(task.indices.astype(np.int64)).to(device)).fork(purpose)


def goals_of(logits: Logits, y: Labels, rank: int) -> Labels:
    """The wrong class that the model finds likeliest (`rank` 0), next likeliest (1), and so on."""
    others = logits.scatter(1, y.unsqueeze(1), -torch.inf)
    return others.argsort(dim=1, descending=True, stable=True)[:, rank]


def improves(model: nn.Module, y: Labels, found: Record, best: Record, *, first: bool) -> Mask:
    """Rows where `found` is to replace `best`: the smaller of two successes, a success, or the nearer to being one."""
    if first:
        return torch.ones_like(found.success)
    nearer = losses.margin(look(model, found.x_adv, y).logits, y) > losses.margin(look(model, best.x_adv, y).logits, y)
    smaller = found.success & (~best.success | (found.norm < best.norm))
    return torch.where(found.success | best.success, smaller, nearer)


def check_box(x_adv: Images, label: str) -> None:
    """Raises ValueError for pixels that no image has: a fault of the attack, not a finding."""
    low, high = x_adv.aminmax()
    if not (low >= 0 and high <= 1):  # so written, NaN fails too
        raise ValueError(
            f"the attack {label!r} returned pixels from {low.item():.4g} to {high.item():.4g}; images lie in [0, 1]: "
            "clamp every iterate in the attack's `step`"
        )


def _merge(record: Record, rows: Labels, found: Record, better: Mask) -> None:
    """Writes what is better into `record`, and adds the passes that it took."""
    record.x_adv[rows] = torch.where(per_row(better, found.x_adv), found.x_adv, record.x_adv[rows])
    record.success[rows] = torch.where(better, found.success, record.success[rows])
    record.norm[rows] = torch.where(better, found.norm, record.norm[rows])
    record.forwards[rows] += found.forwards
    record.backwards[rows] += found.backwards


def _columns(task: JudgeTask, x: Images, y: Labels, seen: tuple[Seen, Seen], record: Record) -> dict[str, Any]:
    """The record and both predictions as NumPy columns; norms in float64."""
    clean, after = seen
    delta = record.x_adv.double() - x.double()
    sizes = {norm: _array(balls.size(delta, norm)) for norm in balls.ORDER}
    return {
        "index": task.indices.astype(np.int64),
        "label": _array(y),
        "predicted": _array(clean.predicted),
        "predicted_adv": _array(after.predicted),
        "success": _array(after.predicted != y),
        "linf": sizes["linf"],
        "l2": sizes["l2"],
        "l1": sizes["l1"],
        "l0": sizes["l0"],
        "relative": _relative(task, x, delta),
        "wasserstein": _array(moved(x, record.x_adv, task.attack)),
        "precision": _array(transport.precision_error(x.double(), record.x_adv.double())),
        "loss": _array(clean.loss.double()),
        "loss_adv": _array(after.loss.double()),
        "confidence": _array(clean.confidence.double()),
        "confidence_adv": _array(after.confidence.double()),
        "forwards": _array(record.forwards),
        "backwards": _array(record.backwards),
        "certified": _certified(task, clean, y),
    }


def geometric_margins(model: nn.Module, task: JudgeTask, x: Images, y: Labels, classes: int) -> NDArray[np.float64]:
    """Of the clean images, where there is no attack; NaN elsewhere, and where so many classes would make them dear."""
    if task.attack is not None or classes > MOST_CLASSES:
        return np.full(len(y), np.nan)
    return np.asarray(_array(margins.geometric_margin(model, x, y).double()))


def moved(x: Images, x_adv: Images, attack: Attack | None) -> Tensor:
    """The Wasserstein distance by the costs of an attack that moves mass, (batch,); else 0 where nothing changed."""
    if attack is None or attack.costs is None:
        changed = (x != x_adv).flatten(1).any(1)
        return torch.where(changed, torch.inf, torch.zeros(len(x), dtype=torch.float64, device=x.device))
    return transport_distance.distance(x.double(), x_adv.double(), *attack.costs)


def _certified(task: JudgeTask, clean: Seen, y: Labels) -> NDArray[np.float64]:
    """The radii that the bound on the model gives."""
    if not task.lipschitz:
        return np.full(len(y), np.nan)
    return np.asarray(_array(radii(clean.logits, y, task.lipschitz)))


def _relative(task: JudgeTask, x: Images, delta: Images) -> NDArray[Any]:
    """How large the perturbations are beside their images, in the attack's norm; infinite beside a black image."""
    norm = "l2" if task.attack is None else task.attack.norm
    change, whole = balls.size(delta, norm), balls.size(x.double(), norm)
    return _array(torch.where(change > 0, change / whole, 0))


def _kept(network: nn.Module, task: JudgeTask, x: Images, y: Labels, x_adv: Images) -> Kept:
    """The images of as many rows as the task asks for, and the attack's way from one to the other."""
    rows = torch.arange(min(task.keep, len(x)), device=x.device)
    ways = paths(network, x[rows], y[rows], task.attack, streams_of(task, x.device).fork(0).select(rows))
    return Kept(
        fosc=ways[0],
        loss=ways[1],
        index=task.indices[: task.keep].astype(np.int64),
        clean=_array(x[: task.keep]),
        adversarial=_array(x_adv[: task.keep]),
    )


def _array(tensor: Tensor) -> NDArray[Any]:
    """A NumPy copy on the CPU."""
    return tensor.detach().cpu().numpy().copy()
