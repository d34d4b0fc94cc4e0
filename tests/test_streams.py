"""Streams: SplitMix64 against Python integers, the distributions, and independence of rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from algorithms.streams import Streams

WORD = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15


def mix(z: int) -> int:
    """SplitMix64's finaliser on unsigned integers."""
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & WORD
    return z ^ (z >> 31)


def split_mix(seed: int, count: int) -> list[int]:
    """The first outputs of the generator with this seed."""
    return [mix((seed + k * GOLDEN) & WORD) for k in range(1, count + 1)]


def fork(key: int, label: int) -> int:
    """The key of the stream that a purpose has of its own."""
    return mix((key + mix(((label + 1) * GOLDEN) & WORD)) & WORD)


def unsigned(values: torch.Tensor) -> list[int]:
    return [value & WORD for value in values.flatten().tolist()]


def drawn(batch: int, seed: int = 0) -> Streams:
    return Streams.draw(torch.Generator().manual_seed(seed), batch)


def test_the_oracle_is_split_mix_64() -> None:
    # Published outputs for the seed 1234567: https://rosettacode.org/wiki/Pseudo-random_numbers/Splitmix64
    expected = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert split_mix(1234567, 5) == expected


@pytest.mark.parametrize("key", [0, 1, -1, 1234567, -(1 << 63), (1 << 63) - 1])
def test_bits_and_forks_are_those_of_split_mix_64(key: int) -> None:
    streams = Streams(torch.tensor([key]))
    for label in (0, 1, 2, 1_000_003):
        assert unsigned(streams.fork(label).keys) == [fork(key & WORD, label)]
    for draw in (0, 3):
        assert unsigned(streams.bits((2, 3), draw)) == split_mix(fork(key & WORD, draw), 6)


def test_uniforms_are_the_leading_bits() -> None:
    streams = drawn(3)
    bits = np.array(unsigned(streams.bits((7,), 2)), dtype=object).reshape(3, 7)
    for dtype, digits in ((torch.float64, 53), (torch.float32, 24), (torch.float16, 11), (torch.bfloat16, 8)):
        uniform = streams.uniform((7,), 2, dtype=dtype)
        assert uniform.dtype == dtype
        assert (uniform.double().numpy() == (bits >> (64 - digits)).astype(float) / 2**digits).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_no_uniform_is_one_and_no_normal_infinite(dtype: torch.dtype) -> None:
    streams = drawn(400)
    uniform, normal = streams.uniform((100,), dtype=dtype), streams.normal((100,), dtype=dtype)
    assert uniform.min() >= 0
    assert uniform.max() < 1
    finest = torch.float64 if dtype is torch.float64 else torch.float32
    assert torch.equal(normal, streams.normal((100,), dtype=finest).to(dtype))  # rounded once, at the end
    assert torch.isfinite(normal).all()


def test_the_distributions() -> None:
    streams = drawn(200)
    uniform, normal = streams.uniform((200,)).flatten().numpy(), streams.normal((200,)).flatten().numpy()
    assert stats.kstest(uniform, "uniform").pvalue > 0.01
    assert stats.kstest(normal, "norm").pvalue > 0.01
    signs = streams.signs((200,))
    assert set(signs.unique().tolist()) == {-1.0, 1.0}
    assert stats.binomtest(int((signs > 0).sum()), signs.numel()).pvalue > 0.01
    counts = torch.bincount(streams.integers(7, (200,)).flatten(), minlength=7).numpy()
    assert len(counts) == 7
    assert stats.chisquare(counts).pvalue > 0.01


def test_rows_draws_purposes_and_positions_are_not_alike() -> None:
    streams = drawn(300)
    base = streams.uniform((50,)).double()
    others = {
        "another draw": streams.uniform((50,), 1),
        "another purpose": streams.fork(1).uniform((50,)),
        "another seed": drawn(300, 1).uniform((50,)),
        "the next row": base.roll(1, 0),
        "the next position": base.roll(1, 1),
    }
    for what, other in others.items():
        correlation = np.corrcoef(base.flatten(), other.double().flatten())[0, 1]
        assert abs(correlation) < 4 / np.sqrt(base.numel()), what  # four standard deviations


def test_integers_have_a_bound_a_row() -> None:
    high = torch.tensor([1, 2, 1000])
    values = drawn(3).integers(high, (4, 50))
    assert values.dtype == torch.int64
    assert values.min() >= 0
    assert (values.flatten(1).amax(1) < high).all()
    assert values[2].max() > 900


def test_a_rows_numbers_are_its_own() -> None:
    streams, rows = drawn(6), torch.tensor([4, 0, 4])
    for selected, index in (
        (streams.select(rows), rows),
        (streams.select(torch.arange(6) % 2 == 0), slice(None, None, 2)),
    ):
        for name in ("bits", "uniform", "normal", "signs"):
            assert torch.equal(getattr(selected, name)((3, 2), 5), getattr(streams, name)((3, 2), 5)[index])
        assert torch.equal(selected.fork(3).keys, streams.fork(3).keys[index])


def test_drawing_advances_the_generator_and_nothing_else() -> None:
    rng = torch.Generator().manual_seed(9)
    before = torch.get_rng_state()
    first, second = Streams.draw(rng, 4), Streams.draw(rng, 4)
    assert not torch.equal(first.keys, second.keys)
    assert torch.equal(first.keys, drawn(4, 9).keys)
    assert torch.equal(first.normal((5,)), first.normal((5,)))  # there is no state in a stream
    assert torch.equal(torch.get_rng_state(), before)
    assert (first.keys < 0).any() or (second.keys < 0).any()  # all 64 bits are in use
