"""What other libraries offer, each as a function of model, images and labels, called as its users call it.

The packages are those of the extra `peers` and, as their own pins cannot be met, two more:

    pip install -c constraints.txt -e ".[peers]"
    pip install -c constraints.txt --no-deps adv-lib torchattacks

A library that is not installed is left out. Budgets are given per call, so that all contestants have the same.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from algorithms import vision

Contestant = Callable[[nn.Module, Tensor, Tensor], Tensor]
ORDER = {"linf": np.inf, "l2": 2, "l1": 1, "l0": 0}
PACKAGES = {"adv-lib": "adv_lib", "foolbox": "foolbox", "torchattacks": "torchattacks", "ART": "art"}


def installed(library: str) -> bool:
    """Whether a library can be compared with."""
    return importlib.util.find_spec(PACKAGES[library]) is not None


def load(library: str) -> None:
    """Imports what a library's attacks import when they are made."""
    names = {"adv-lib": ["adv_lib.attacks"], "ART": ["art.attacks.evasion", "art.estimators.classification"]}
    for name in names.get(library, [PACKAGES[library]]):
        module(name)


def module(name: str) -> Any:
    """A module of a library; torchvision first, which two of them import, in a way that works beside any torch."""
    vision.torchvision()
    sys.modules.setdefault("visdom", types.ModuleType("visdom"))  # adv-lib imports it, and uses it for plots alone
    return importlib.import_module(name)


def adv_lib(name: str, *positional: Any, **options: Any) -> Contestant:
    """A function of adversarial-library; `positional` come after model, images and labels."""

    def attack(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        found: Tensor = getattr(module("adv_lib.attacks"), name)(model, x, y, *positional, **options)
        return found

    return attack


def foolbox(name: str, eps: float | None = None, *, start: str = "", **options: Any) -> Contestant:
    """An attack of foolbox, within `eps` or for the smallest norm; `start` names one that finds it a wrong class first.

    Where its C&W and its EAD fail they return a black image, which a network may well give another class. That is no
    adversarial example, and counts as a failure here.
    """

    def attack(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        package = module("foolbox")
        wrapped = package.PyTorchModel(model, bounds=(0, 1), device="cpu")
        first = {"init_attack": getattr(package.attacks, start)()} if start else {}
        found: Tensor = getattr(package.attacks, name)(**first, **options)(wrapped, x, y, epsilons=eps)[1]
        black = (found == 0).flatten(1).all(1)
        return torch.where(black.view(-1, 1, 1, 1), x, found)

    return attack


def torchattacks(name: str, **options: Any) -> Contestant:
    """An attack of torchattacks. It seeds torch's global generator, which is put back."""

    def attack(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        with torch.random.fork_rng(devices=[]):
            found: Tensor = getattr(module("torchattacks"), name)(model, **options)(x, y)
        return found

    return attack


def art(name: str, **options: Any) -> Contestant:
    """An attack of the Adversarial Robustness Toolbox."""

    def attack(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        classifier = module("art.estimators.classification").PyTorchClassifier(
            model, nn.CrossEntropyLoss(), tuple(x.shape[1:]), 10, clip_values=(0.0, 1.0), device_type="cpu"
        )
        made = getattr(module("art.attacks.evasion"), name)(classifier, batch_size=len(x), **options)
        if hasattr(made, "verbose"):
            made.set_params(verbose=False)
        return torch.from_numpy(made.generate(x.numpy(), y.numpy()))

    return attack
