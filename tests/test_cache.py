"""The cache: what comes out is what went in, mapped and not copied, whoever writes, dies or does damage in between."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from workers import cache
from workers.cache import Split, open_split
from workers.datasets import Dataset, Examples, Part
from workers.datasets.digits import Digits

FORK = multiprocessing.get_context("fork")


@dataclass(frozen=True, kw_only=True)
class Sketch(Dataset):
    """Random pixels, the same for the same `content`; `reads` counts, as lines of a file, how often they were made."""

    content: int = 0
    count: int = 40
    side: int = 6
    reads: Path | None = None

    def fingerprint(self, part: Part) -> str:
        return f"{self.content} {part}"

    def read(self, part: Part) -> Examples:
        if self.reads:
            with self.reads.open("a") as file:
                file.write("read\n")
        return pixels_of(self, part)


def pixels_of(sketch: Sketch, part: Part) -> Examples:
    rng = np.random.RandomState(sketch.content + (part == "test"))
    images = rng.randint(0, 256, (sketch.count, 3, sketch.side, sketch.side), dtype=np.uint8)
    return Examples(images, np.arange(sketch.count) % 4, ("ant", "bee", "cat", "ü"))


@dataclass(frozen=True, kw_only=True)
class Given(Dataset):
    """Whatever a test wants to come from a source."""

    examples: Examples | Exception
    prints: Iterator[str] | None = None

    def fingerprint(self, part: Part) -> str:
        return next(self.prints) if self.prints else "0 train"  # as a Sketch's: they share a cache file

    def read(self, part: Part) -> Examples:
        if isinstance(self.examples, Exception):
            raise self.examples
        return self.examples


def same(split: Split, examples: Examples) -> bool:
    everything = range(len(examples.labels))
    return (
        np.array_equal(split.pixels(list(everything)).numpy(), examples.images)
        and np.array_equal(split.labels(list(everything)).numpy(), examples.labels)
        and split.classes == examples.classes
    )


def only_file(folder: Path) -> Path:
    (path,) = folder.glob("*.arrow")
    return path


def put(path: Path, content: bytes) -> None:
    """Another file in the place of `path`, as a backup that went wrong would leave it."""
    beside = path.with_name("beside")
    beside.write_bytes(content)
    beside.replace(path)


@pytest.mark.parametrize("part", ["train", "test"])
def test_what_comes_out_is_what_went_in(tmp_path: Path, part: Part) -> None:
    split, expected = open_split(Sketch(), part, tmp_path), pixels_of(Sketch(), part)
    assert same(split, expected)
    assert (len(split), split.shape) == (40, (3, 6, 6))
    assert np.array_equal(split.pixels([7, 7, 0]).numpy(), expected.images[[7, 7, 0]])
    assert split.labels(torch.tensor([5, 2])).tolist() == [1, 2]
    assert split.labels(np.array([5, 2])).dtype == torch.int64


def test_the_file_is_plain_arrow_with_tensors_and_labels(tmp_path: Path) -> None:
    open_split(Sketch(), "train", tmp_path)
    table = pa.ipc.open_file(only_file(tmp_path).read_bytes()).read_all()
    assert table.schema.field("image").type == pa.fixed_shape_tensor(pa.uint8(), (3, 6, 6))
    assert table.column("label").to_pylist() == [k % 4 for k in range(40)]
    about = json.loads(table.schema.metadata[b"sparring"])
    assert (about["shape"], about["classes"], about["fingerprint"]) == (
        [3, 6, 6],
        ["ant", "bee", "cat", "ü"],
        "0 train",
    )


def test_images_are_pixels_over_255(tmp_path: Path) -> None:
    every_value = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
    split = open_split(Given(examples=Examples(every_value, np.zeros(1, np.int64), ("one",))), "train", tmp_path)
    images = split.images([0])
    assert images.dtype == torch.float32
    assert np.array_equal(images.numpy().ravel(), np.arange(256).astype(np.float32) / np.float32(255))


@pytest.mark.parametrize("axes", [(0, 1, 2, 3), (0, 3, 1, 2), (1, 0, 3, 2)])
def test_the_order_in_memory_does_not_matter(tmp_path: Path, axes: tuple[int, ...]) -> None:
    images = np.random.RandomState(0).randint(0, 256, (4, 5, 6, 7), dtype=np.uint8).transpose(axes)
    for k, given in enumerate((images, images[:, :1], images[:, 0][:, np.newaxis], images[::2, :, ::-1])):
        source = Given(examples=Examples(given, np.zeros(len(given), np.int64), ("one",)))
        split = open_split(source, "train", tmp_path / str(k))
        assert np.array_equal(split.stored.images, given)


def test_tensors_are_the_callers_own(tmp_path: Path) -> None:
    split, before = open_split(Sketch(), "train", tmp_path), pixels_of(Sketch(), "train")
    for tensor in (split.pixels([0, 1]), split.images([0, 1]), split.labels([0, 1])):
        tensor.zero_()
    assert same(split, before)
    assert not split.stored.images.flags.writeable


@pytest.mark.parametrize("wrong", [-1, 40, 10**12])
def test_an_example_that_does_not_exist_is_refused(tmp_path: Path, wrong: int) -> None:
    split = open_split(Sketch(), "train", tmp_path)
    for method in (split.pixels, split.images, split.labels):
        with pytest.raises(IndexError, match=f"example {wrong}: there are 40, counted from 0"):
            method([0, wrong])


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux")
def test_pixels_lie_in_the_mapped_file(tmp_path: Path) -> None:
    split = open_split(Sketch(), "train", tmp_path)
    lines = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
    ranges = [[int(end, 16) for end in line[0].split("-")] for line in lines if line[-1] == str(only_file(tmp_path))]
    for array in (split.stored.images, split.stored.labels):
        address = array.__array_interface__["data"][0]
        assert any(low <= address and address + array.nbytes <= high for low, high in ranges)


def own_memory() -> int:
    """Bytes that belong to this process alone: a mapped file's are not among them."""
    (line,) = [text for text in Path("/proc/self/status").read_text().splitlines() if text.startswith("RssAnon")]
    return 1024 * int(line.split()[1])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
def test_another_process_opens_it_twice_without_a_copy(tmp_path: Path) -> None:
    sketch, answers = Sketch(count=10_000, side=32), FORK.Queue()
    split = open_split(sketch, "train", tmp_path)

    def work() -> None:
        cache._mapped.cache_clear()
        before = own_memory()
        first = open_split(sketch, "train", tmp_path)
        cache._mapped.cache_clear()
        second = open_split(sketch, "train", tmp_path)
        answers.put((first is not second, second.digest, own_memory() - before))

    worker = FORK.Process(target=work)
    worker.start()
    apart, digest, grown = answers.get(timeout=60)
    worker.join(60)
    assert (apart, digest) == (True, split.digest)
    assert grown < split.stored.images.nbytes / 4  # one copy would be 30 MB


def test_the_folder_is_the_argument_else_the_variable_else_in_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPARRING_CACHE", str(tmp_path / "variable"))
    open_split(Sketch(), "train", tmp_path / "argument")
    assert only_file(tmp_path / "argument")
    assert not (tmp_path / "variable").exists()
    open_split(Sketch(), "train")
    assert only_file(tmp_path / "variable")
    monkeypatch.delenv("SPARRING_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.cache_folder() == tmp_path / ".cache" / "sparring"


def test_the_source_is_read_once_and_again_when_it_changes(tmp_path: Path) -> None:
    reads = tmp_path / "reads"
    for content in (0, 0, 1, 0, 1):
        split = open_split(Sketch(content=content, reads=reads), "train", tmp_path)
        assert same(split, pixels_of(Sketch(content=content), "train"))
    assert reads.read_text().count("read") == 2


def test_processes_that_need_it_at_once_make_it_once(tmp_path: Path) -> None:
    barrier, answers = FORK.Barrier(4), FORK.Queue()
    sketch = Sketch(count=2_000, side=16, reads=tmp_path / "reads")

    def work() -> None:
        barrier.wait(60)
        answers.put(open_split(sketch, "train", tmp_path).digest)

    workers = [FORK.Process(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    digests = {answers.get(timeout=60) for _ in workers}
    for worker in workers:
        worker.join(60)
    assert digests == {open_split(sketch, "train", tmp_path).digest}
    assert (tmp_path / "reads").read_text().count("read") == 1
    assert not list(tmp_path.glob(".*.part"))


@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_a_writer_killed_in_the_middle_leaves_nothing_that_is_used(tmp_path: Path, moment: str) -> None:
    def work() -> None:
        def die(*_: object) -> None:
            os.kill(os.getpid(), signal.SIGKILL)

        setattr(*((os, "fsync") if moment == "fsync" else (Path, "replace")), die)
        open_split(Sketch(), "train", tmp_path)

    worker = FORK.Process(target=work)
    worker.start()
    worker.join(60)
    assert worker.exitcode == -signal.SIGKILL
    assert len(list(tmp_path.glob(".*.part"))) == 1
    assert not list(tmp_path.glob("*.arrow"))
    assert same(open_split(Sketch(), "train", tmp_path), pixels_of(Sketch(), "train"))
    assert not list(tmp_path.glob(".*.part"))


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.7, 0.99, 0.9999])
def test_a_file_cut_short_is_named_and_made_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, share: float
) -> None:
    open_split(Sketch(), "train", tmp_path)
    path = only_file(tmp_path)
    whole = path.read_bytes()
    put(path, whole[: int(share * len(whole))])
    with caplog.at_level(logging.WARNING):
        assert same(open_split(Sketch(), "train", tmp_path), pixels_of(Sketch(), "train"))
    assert f"{path} is damaged (" in caplog.text
    assert "it is made again from its source" in caplog.text
    assert path.read_bytes() == whole


def test_a_flipped_byte_never_changes_what_comes_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    expected = pixels_of(Sketch(), "train")
    open_split(Sketch(), "train", tmp_path)
    path = only_file(tmp_path)
    whole = path.read_bytes()
    pixels, labels = whole.index(expected.images.tobytes()), whole.index(expected.labels.tobytes())
    content = set(range(pixels, pixels + expected.images.nbytes)) | set(range(labels, labels + expected.labels.nbytes))
    outside = [k for k in range(len(whole)) if k not in content]
    for position in [*sorted(content)[::97], *outside[::11]]:
        caplog.clear()
        put(path, whole[:position] + bytes([whole[position] ^ 0x01]) + whole[position + 1 :])
        with caplog.at_level(logging.WARNING):
            assert same(open_split(Sketch(), "train", tmp_path), expected)
        if position in content:
            assert "is damaged" in caplog.text
            assert path.read_bytes() == whole


def test_a_file_made_for_another_source_is_not_believed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for content in (0, 1):
        open_split(Sketch(content=content), "train", tmp_path / str(content))
    put(only_file(tmp_path / "1"), only_file(tmp_path / "0").read_bytes())
    assert same(open_split(Sketch(content=1), "train", tmp_path / "1"), pixels_of(Sketch(content=1), "train"))
    assert "is damaged" in caplog.text


def test_a_damaged_file_whose_source_is_gone_says_both(tmp_path: Path) -> None:
    open_split(Sketch(), "train", tmp_path)
    path = only_file(tmp_path)
    put(path, b"no arrow")
    with pytest.raises(
        ValueError, match=r"is damaged \(not a cache file.*cannot be made again: the disk is at home"
    ) as e:
        open_split(Given(examples=FileNotFoundError("the disk is at home")), "train", tmp_path)
    assert str(path) in str(e.value)


def test_a_source_that_changes_while_it_is_read_is_not_cached(tmp_path: Path) -> None:
    source = Given(examples=pixels_of(Sketch(), "train"), prints=iter(["old", "new"]))
    with pytest.raises(
        ValueError, match="dataset test_cache, train: the source changed while it was read; start again"
    ):
        open_split(source, "train", tmp_path)
    assert not list(tmp_path.glob("*.arrow"))


ONE = np.zeros((2, 1, 3, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (ONE, [0, 3], "row 1: a label of 0 .. 1, not 3"),
        (ONE, [-1, 0], "row 0: a label of 0 .. 1, not -1"),
        (ONE, [0, 1, 1], r"labels must be int64 \(2,\), one an image, not int64 \(3,\)"),
        (ONE.astype(np.float32), [0, 1], "images must be uint8 .* not float32"),
        (ONE[:0], [], r"images must be uint8 .* not uint8 \(0, 1, 3, 3\)"),
        (ONE[0], [0], "images must be uint8"),
    ],
)
def test_what_a_dataset_must_not_give_is_refused(
    tmp_path: Path, images: np.ndarray, labels: list[int], message: str
) -> None:
    source = Given(examples=Examples(images, np.array(labels, dtype=np.int64), ("no", "yes")))
    with pytest.raises(ValueError, match=f"dataset test_cache, train: {message}"):
        open_split(source, "train", tmp_path)
    assert not list(tmp_path.glob("*.arrow"))


def test_a_folder_that_cannot_be_one_is_named_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"file.*the dataset's cache cannot be used.*SPARRING_CACHE"):
        open_split(Digits(), "train", tmp_path / "file")


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ValueError, match=r"cannot be used .*No space left on device.*free some space"):
        open_split(Sketch(), "train", tmp_path)
    assert not [path for path in tmp_path.iterdir() if not path.name.endswith(".lock")]


def test_there_are_two_parts(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="part: one of train, test, not 'valid'"):
        open_split(Sketch(), "valid", tmp_path)  # type: ignore[arg-type]
