"""Augmentation: each row is one of the windows of its padded image, and always the same one for the same example."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.augmentation import Augmentation


def pictures(count: int, height: int = 5, width: int = 6) -> torch.Tensor:
    """Images in which every pixel has a value of its own."""
    return torch.arange(1, count * 2 * height * width + 1, dtype=torch.float32).view(count, 2, height, width)


def windows(image: np.ndarray, crop: int, flip: bool) -> list[np.ndarray]:
    """Every outcome for one image, cut out one by one: by row offset, column offset, then mirrored or not."""
    _, height, width = image.shape
    padded = np.zeros((image.shape[0], height + 2 * crop, width + 2 * crop), dtype=image.dtype)
    padded[:, crop : crop + height, crop : crop + width] = image
    cuts = [
        padded[:, down : down + height, right : right + width]
        for down in range(2 * crop + 1)
        for right in range(2 * crop + 1)
    ]
    return [cut if not mirrored else cut[:, :, ::-1] for cut in cuts for mirrored in range(1 + flip)]


def outcomes(augmentation: Augmentation, count: int, seed: int = 0, epoch: int = 0) -> list[int]:
    """For each of `count` examples, which of its windows came out."""
    x = pictures(count)
    changed = augmentation(x, seed=seed, epoch=epoch, indices=torch.arange(count)).numpy()
    found = []
    for before, after in zip(x.numpy(), changed, strict=True):
        fitting = [
            k
            for k, cut in enumerate(windows(before, augmentation.crop, augmentation.flip))
            if np.array_equal(cut, after)
        ]
        assert len(fitting) == 1
        found.append(fitting[0])
    return found


def test_by_default_nothing_changes() -> None:
    x = pictures(3)
    assert torch.equal(Augmentation()(x, seed=1, epoch=2, indices=torch.arange(3)), pictures(3))


@pytest.mark.parametrize(("crop", "flip", "kinds"), [(0, True, 2), (1, False, 9), (1, True, 18), (2, True, 50)])
def test_every_window_comes_out_about_equally_often(crop: int, flip: bool, kinds: int) -> None:
    count = 60 * kinds
    seen = np.bincount(outcomes(Augmentation(crop=crop, flip=flip), count), minlength=kinds)
    chi_square = ((seen - 60) ** 2 / 60).sum()
    assert len(seen) == kinds
    assert abs(chi_square - (kinds - 1)) < 5 * np.sqrt(2 * (kinds - 1)) + 5  # mean and deviation of the statistic


@pytest.mark.parametrize(("seed", "epoch"), [(0, 1), (1, 0), (-5, 0), ((1 << 63) - 1, 3)])
def test_another_seed_or_epoch_gives_other_windows(seed: int, epoch: int) -> None:
    augmentation = Augmentation(crop=2, flip=True)
    first, second = outcomes(augmentation, 200), outcomes(augmentation, 200, seed, epoch)
    same = np.mean(np.equal(first, second))
    assert same < 0.1  # by chance 1 in 50
    assert second == outcomes(augmentation, 200, seed, epoch)


@settings(max_examples=40, deadline=None)
@given(
    indices=st.lists(st.integers(0, 10**12), min_size=1, max_size=12),
    keep=st.randoms(use_true_random=False),
    seed=st.integers(0, 2**62),
    epoch=st.integers(0, 10_000),
    crop=st.integers(0, 4),
    flip=st.booleans(),
)
def test_a_row_does_not_depend_on_its_batch(
    indices: list[int], keep: random.Random, seed: int, epoch: int, crop: int, flip: bool
) -> None:
    augmentation, names = Augmentation(crop=crop, flip=flip), torch.tensor(indices)
    x = pictures(len(indices))
    whole = augmentation(x, seed=seed, epoch=epoch, indices=names)
    rows = torch.tensor(keep.sample(range(len(indices)), keep.randint(1, len(indices))))
    assert torch.equal(augmentation(x[rows], seed=seed, epoch=epoch, indices=names[rows]), whole[rows])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float64, torch.bfloat16])
def test_any_type_is_cut_alike(dtype: torch.dtype) -> None:
    x = (pictures(4) % 251).to(dtype)
    given = {"seed": 3, "epoch": 1, "indices": torch.tensor([9, 2, 2, 7])}
    changed = Augmentation(crop=2, flip=True)(x, **given)
    assert changed.dtype == dtype
    assert torch.equal(changed.float(), Augmentation(crop=2, flip=True)(x.float(), **given))


def test_the_input_and_the_global_generator_stay_as_they_were() -> None:
    x, state = pictures(3), torch.random.get_rng_state()
    Augmentation(crop=1, flip=True)(x, seed=0, epoch=0, indices=torch.arange(3))
    assert torch.equal(x, pictures(3))
    assert torch.equal(state, torch.random.get_rng_state())


def test_a_crop_that_could_lose_the_image_is_refused() -> None:
    with pytest.raises(ValueError, match="crop: less than the 5x6 pixels of an image, not 5"):
        Augmentation(crop=5)(pictures(1), seed=0, epoch=0, indices=torch.arange(1))
    with pytest.raises(ValueError, match="crop: a number of pixels around the image, between 0 and 1024, not -1"):
        Augmentation(crop=-1)
