"""How does an attacker look at a model? One file a view; each is a frozen dataclass that implements `View`.

A view is for the attack `through`: gradients come from the view, and what fools is judged on the model itself.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import nn


class View(ABC):
    """Another way to differentiate a model, or to make its logits easier to climb."""

    @abstractmethod
    def see(self, model: nn.Module) -> nn.Module:
        """What is attacked in place of `model`: a module with its weights, whose predictions are to the same classes.

        Raises ValueError for a model that cannot be seen so.
        """
