"""A recipe: everything that decides a run's result, as frozen dataclasses. A TOML file is the same thing in text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self, final

from algorithms import checks
from algorithms.attacks import Attack
from algorithms.attacks.pgd import PGD
from algorithms.defenses import Defense
from algorithms.defenses.standard import Standard
from algorithms.models import Model
from algorithms.models.cnn4 import Cnn4
from algorithms.updates import Update
from algorithms.updates.sgd import SGD
from workers.augmentation import Augmentation
from workers.datasets import Dataset
from workers.datasets.digits import Digits
from workers.messages import Exchange, Reduction

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")  # of a run, which becomes the name of a folder
Choice = Literal["auto", "float32", "bfloat16"]  # auto: see `orchestrator.plan.precision_of`


@final
@dataclass(frozen=True, kw_only=True)
class Train:
    """The loop: what a step is, and how old the attacked parameters may be."""

    epochs: int = 10
    batch: int = 128  # examples a step; what remains of an epoch after whole batches is left out, other ones each epoch
    replays: int = 1  # steps in a row with the same batch; an epoch has so many times more of them
    shard: int = 32  # examples a shard, which one attacker works on at a time; divides the batch
    lag: int = 0  # attacks see parameters exactly this many updates old
    exchange: Exchange = "examples"  # what attackers send back
    precision: Choice = "float32"  # of passes that make examples; all else is float32. auto: bfloat16 where it serves
    reduction: Reduction = "tree"  # of several trainers' gradients; all-reduce: fewer bytes, other bits for each number
    average: float = 0.0  # decay of the moving average of weights, which is then the model; 0: none
    label_smoothing: float = 0.0  # share of each label that all classes get alike, in whatever cross-entropy is learnt
    weight_perturbation: float = 0.0  # of each weight, relative to its norm, when gradients are taken; 0.005 is usual
    checkpoint_every: int = 200  # steps between checkpoints; the end of an epoch is always one

    def __post_init__(self) -> None:
        """Raises ValueError for numbers that make no sense."""
        checks.at_least("epochs", self.epochs, 1, "passes over the training examples")
        checks.at_least("shard", self.shard, 1, "examples a shard")
        checks.at_least("batch", self.batch, 1, "examples a step")
        checks.at_least("replays", self.replays, 1, "steps with the same batch")
        if self.batch % self.shard:
            raise ValueError(f"shard: a divisor of batch = {self.batch}, not {self.shard}")
        checks.between("lag", self.lag, 0, 1000, "a number of updates")
        checks.between("average", self.average, 0, 0.999999, "a decay")
        checks.between("label_smoothing", self.label_smoothing, 0, 1, "a share of the labels")
        checks.between("weight_perturbation", self.weight_perturbation, 0, 1, "a size relative to the weights'")
        checks.at_least("checkpoint_every", self.checkpoint_every, 1, "steps between checkpoints")


@final
@dataclass(frozen=True, kw_only=True)
class Validation:
    """What is measured at the end of an epoch, on examples kept out of the training."""

    share: float = 0.1  # of the training part, drawn by the recipe's seed
    attack: Attack = field(default_factory=PGD)
    examples: int = 512  # at most this many of them are attacked
    clean: int = 0  # at most this many are predicted as they are, all that are attacked among them; 0: all
    every: int = 1  # epochs
    stability: bool = False  # also spectra of the weights, and how perturbations grow through the layers

    def __post_init__(self) -> None:
        """Raises ValueError for numbers that make no sense."""
        checks.between("share", self.share, 0, 0.9, "a share of the training part")
        checks.at_least("examples", self.examples, 1, "a number of examples")
        checks.at_least("clean", self.clean, 0, "a number of examples, 0 for all")
        checks.at_least("every", self.every, 1, "a number of epochs")


@final
@dataclass(frozen=True, kw_only=True)
class Convergence:
    """What is measured at the end of an epoch on examples that the defense makes: how far its attack has converged."""

    examples: int = 256  # about so many of the epoch's last, made again with the newest parameters; 0: none
    every: int = 1  # epochs; the last one is always measured

    def __post_init__(self) -> None:
        """Raises ValueError for numbers that make no sense."""
        checks.at_least("examples", self.examples, 0, "a number of examples")
        checks.at_least("every", self.every, 1, "a number of epochs")


@final
@dataclass(frozen=True, kw_only=True)
class Workers:
    """Who does the work. Nothing here changes a result, but for `threads` and `device`."""

    backend: Literal["ray", "inline"] = "ray"
    address: str = ""  # of a Ray cluster; empty: RAY_ADDRESS if it is set, else a local cluster of this run's own
    attackers: int = 2  # as many as there is room for, and no more; they join as their machines come
    least_attackers: int = 1  # the run stops if there are fewer for `start_deadline` seconds
    device: Literal["cpu", "cuda"] = "cpu"
    threads: int = 1  # of torch, in each worker
    trainers: int = 1  # that share each update's work; no more than shards in a batch
    attacker_cpus: float = 1.0
    attacker_gpus: float = 0.0  # a fraction shares a GPU among attackers
    trainer_cpus: float = 1.0
    trainer_gpus: float = 0.0
    maximizers: int = (
        0  # CPUs for layers of hamiltonian_maximization, each a Ray task; 0: the trainer takes them in turn
    )
    deadline: float = 600.0  # seconds that one call may take before its worker is replaced
    start_deadline: float = 180.0  # seconds that a worker may take to start
    start_failures: int = 3  # workers that may fail to start before the run stops

    def __post_init__(self) -> None:
        """Raises ValueError for numbers that make no sense."""
        checks.at_least("attackers", self.attackers, 1, "a number of workers")
        checks.at_least("trainers", self.trainers, 1, "a number of workers")
        checks.between("least_attackers", self.least_attackers, 1, self.attackers, "a number of workers")
        checks.at_least("threads", self.threads, 1, "a number of threads")
        for name in ("attacker_cpus", "attacker_gpus", "trainer_cpus", "trainer_gpus"):
            checks.at_least(name, getattr(self, name), 0, "a number of processors, or a fraction of one")
        checks.at_least("maximizers", self.maximizers, 0, "a number of CPUs")
        if self.maximizers and self.device == "cuda":
            raise ValueError(
                "maximizers: 0 with device = 'cuda', as tasks on CPUs would give other bits than the trainer"
            )
        if self.trainers > 1 and self.device == "cuda" and self.trainer_gpus < 1:
            raise ValueError(
                f"trainer_gpus: at least 1 for each of {self.trainers} trainers, not {self.trainer_gpus:g}, as NCCL"
                " connects no two processes on one GPU"
            )
        checks.between("deadline", self.deadline, 1, 1e6, "a number of seconds")
        checks.between("start_deadline", self.start_deadline, 1, 1e6, "a number of seconds")
        checks.at_least("start_failures", self.start_failures, 0, "a number of workers")


@final
@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What is measured when the training is over, on the test part."""

    suite: str = "quick"  # a name from `sparring list suites`, or a path to a TOML file
    norm: Literal["linf", "l2", "l1", "l0", "wasserstein"] = "linf"
    eps: float = 0.3  # the radius that robust accuracy is quoted at; `wasserstein`: cost of transport per unit of mass
    examples: int = 0  # the first so many of the test part; 0: all
    certify: bool = False  # also l2 radii that no perturbation within changes a class, from the norms of all layers
    surrogate: str = ""  # a run, or a checkpoint, whose model all attacks are made on; empty: on the model itself

    def __post_init__(self) -> None:
        """Raises ValueError for numbers that make no sense."""
        checks.radius(self.norm, self.eps)
        checks.at_least("examples", self.examples, 0, "a number of examples")


@final
@dataclass(frozen=True, kw_only=True)
class Tracking:
    """Where runs are recorded."""

    uri: str = ""  # of an MLflow server; empty: MLFLOW_TRACKING_URI if it is set, else a SQLite file in `folder`
    experiment: str = "sparring"
    folder: str = "runs"  # run folders: checkpoints, records, evaluations
    parent: str = ""  # id of the MLflow run that this one is shown under; a study sets it

    def __post_init__(self) -> None:
        """Raises ValueError for an empty name."""
        if not self.experiment or not self.folder:
            raise ValueError("experiment and folder: a name, not an empty text")


@final
@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A run. Every section has defaults: the empty recipe trains the bundled digits without a defense."""

    name: str = "run"
    seed: int = 0
    dataset: Dataset = field(default_factory=Digits)
    augmentation: Augmentation = field(default_factory=Augmentation)
    model: Model = field(default_factory=Cnn4)
    defense: Defense = field(default_factory=Standard)
    update: Update = field(default_factory=SGD)
    train: Train = field(default_factory=Train)
    validation: Validation = field(default_factory=Validation)
    convergence: Convergence = field(default_factory=Convergence)
    workers: Workers = field(default_factory=Workers)
    evaluation: Evaluation = field(default_factory=Evaluation)
    tracking: Tracking = field(default_factory=Tracking)

    def __post_init__(self) -> None:
        """Raises ValueError for a name that no folder should have, and for a negative seed."""
        if not NAME.fullmatch(self.name):
            raise ValueError(f"name: up to 100 letters, digits, dots, dashes and underscores, not {self.name[:100]!r}")
        checks.at_least("seed", self.seed, 0, "a whole number")
        checks.between(
            "workers", self.workers.trainers, 1, self.train.batch // self.train.shard, "trainers for a batch"
        )
        if self.train.reduction == "all-reduce" and self.workers.backend == "inline" and self.workers.trainers > 1:
            raise ValueError(
                "workers: one trainer inline, where train.reduction is all-reduce: more would give other bits"
            )

    @classmethod
    def load(cls, path: str | Path, overrides: Sequence[str] = ()) -> Self:
        """The recipe in a TOML file, changed by overrides such as `train.epochs=5`.

        Raises RecipeError, a ValueError that says in one line what is wrong where.
        """
        from orchestrator.config import load_recipe  # noqa: PLC0415 - it needs this module

        recipe: Self = load_recipe(path, overrides)
        return recipe
