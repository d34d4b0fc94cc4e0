"""How does a masked gradient show in the gradient itself? One file a sign; each is a frozen dataclass.

A sign measures a number of things about each example, on a worker, and says which examples show it.
`algorithms.diagnostics.findings` decides from the counts.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

from torch import Tensor, nn

from algorithms.balls import Norm
from algorithms.streams import Streams
from algorithms.tensors import Images, Labels

Columns = dict[str, Tensor]  # numbers or flags, (batch,) each; `shows` says which examples show the sign

SHOWS = "shows"


class Scene(NamedTuple):
    """A model, examples, and the ball in which robustness is claimed."""

    model: nn.Module  # in evaluation mode; no parameter asks for a gradient
    x: Images
    y: Labels
    norm: Norm
    eps: float
    streams: Streams  # random numbers, a stream an example


class Sign(ABC):
    """A way to see that gradients do not lead where attacks are to go."""

    honest: ClassVar[str]  # what an honest model shows
    slack: float  # share of examples on which honest models may show the sign

    @abstractmethod
    def applies(self, model: nn.Module) -> bool:
        """Whether the sign makes sense for a model."""

    @abstractmethod
    def measure(self, scene: Scene) -> Columns:
        """What is measured of each example, `shows` among it."""

    @abstractmethod
    def summary(self, columns: Columns) -> str:
        """What was measured, in a sentence for a person."""


def nearby(scene: Scene, draw: int = 0) -> Images:
    """A point close to each image, uniform in the part of the box where each pixel is within the ball.

    Real images have regions of one colour, where max-pooling meets ties and a derivative is not defined; such points
    have none.
    """
    x = scene.x
    radius = scene.eps if scene.norm == "linf" else scene.eps / x[0].numel() ** (0.5 if scene.norm == "l2" else 1.0)
    low, high = (x - radius).clamp_min(0), (x + radius).clamp_max(1)
    place: Images = scene.streams.uniform(tuple(x.shape[1:]), draw, dtype=x.dtype)
    return low + (high - low) * place
