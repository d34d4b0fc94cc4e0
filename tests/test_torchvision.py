"""Torchvision's classifiers, and its import beside any build of torch."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from algorithms.models import Shape
from algorithms.models.torchvision import Torchvision
from algorithms.normalisation import Normalisation
from tests.sketching import CIFAR, DIGITS, MNIST, built, pixels, sketched


def test_unknown_architecture_gets_the_nearest_names() -> None:
    with pytest.raises(ValueError, match=r"architecture: .* not 'resnet19'; did you mean .*resnet18"):
        Torchvision(architecture="resnet19")
    with pytest.raises(ValueError, match=r"one of alexnet, .*wide_resnet50_2"):
        Torchvision(architecture="zzz")
    with pytest.raises(ValueError, match="not 'fcn_resnet50'"):  # torchvision has it, but it is no classifier
        Torchvision(architecture="fcn_resnet50")


def test_grey_images_are_three_equal_colours() -> None:
    model = Torchvision(architecture="squeezenet1_1", normalisation=Normalisation(mean=(0.1, 0.2, 0.3), std=(1, 1, 1)))
    x = pixels((1, 32, 32))
    grey, colour = built(model, (1, 32, 32)).eval(), built(model, CIFAR).eval()
    torch.testing.assert_close(grey(x), colour(x.repeat(1, 3, 1, 1)))
    with pytest.raises(ValueError, match="1 or 3 channels, not 2"):
        built(model, (2, 32, 32))


@pytest.mark.parametrize("architecture", ["vit_b_16", "googlenet"])
def test_architectures_with_arguments_of_their_own(architecture: str) -> None:
    network = sketched(Torchvision(architecture=architecture), CIFAR, 5)
    assert network.training
    assert network(torch.empty(2, *CIFAR, device="meta")).shape == (2, 5)


@pytest.mark.parametrize(("architecture", "shape"), [("alexnet", DIGITS), ("vit_b_16", MNIST), ("maxvit_t", CIFAR)])
def test_architecture_that_needs_larger_images(architecture: str, shape: Shape) -> None:
    with pytest.raises(ValueError, match=rf"torchvision's {architecture} cannot take images of {shape[1]}x{shape[2]}"):
        sketched(Torchvision(architecture=architecture), shape)


def test_torchvision_is_imported_late_and_once() -> None:
    program = (
        "import sys; from algorithms import vision; from algorithms.models.torchvision import Torchvision\n"
        "assert 'torchvision' not in sys.modules\n"
        "package = vision.torchvision()\n"
        "assert package is vision.torchvision() is sys.modules['torchvision']\n"
        "assert len(vision.declared) <= 1\n"
        "import torch; assert torch.ops.torchvision.nms and torch.ops.torchvision.qnms\n"
        "assert vision.has_operators(__import__('pathlib').Path(package.__file__).parent)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
