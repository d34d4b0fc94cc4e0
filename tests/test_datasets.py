"""Datasets: every pixel and label is the source's, and what is wrong in a source is named where it stands."""

from __future__ import annotations

import hashlib
import pickle
import struct
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

from algorithms import plugins, vision
from workers.cache import open_split
from workers.datasets import Dataset, Examples
from workers.datasets.cifar10 import Cifar10
from workers.datasets.cifar100 import Cifar100
from workers.datasets.digits import Digits
from workers.datasets.fashion_mnist import FashionMnist
from workers.datasets.mnist import Mnist

RNG = np.random.RandomState(0)


def random_pixels(count: int, *shape: int) -> np.ndarray:
    return RNG.randint(0, 256, (count, *shape), dtype=np.uint8)


@pytest.mark.parametrize("name", plugins.names(Dataset))
def test_every_dataset_is_a_value(name: str) -> None:
    dataset = plugins.find(Dataset, name)()
    assert pickle.loads(pickle.dumps(dataset)) == dataset
    assert hash(dataset) == hash(plugins.find(Dataset, name)())


# --- the bundled digits


def test_digits_are_all_there_once_and_stratified() -> None:
    bundle = load_digits()
    train, test = Digits().read("train"), Digits().read("test")
    assert (train.images.shape, test.images.shape) == ((1442, 1, 8, 8), (355, 1, 8, 8))
    ours = [
        (image.tobytes(), label)
        for part in (train, test)
        for image, label in zip(part.images, part.labels, strict=True)
    ]
    # v / 16 of full brightness, to the nearest of 0 .. 255, worked out in whole numbers
    pixels = ((bundle.images.astype(int) * 255 * 2 + 16) // 32).astype(np.uint8)
    assert sorted(ours) == sorted((image.tobytes(), label) for image, label in zip(pixels, bundle.target, strict=True))
    for label, count in enumerate(np.bincount(bundle.target)):
        assert (test.labels == label).sum() == count // 5
    assert train.classes == tuple("0123456789")


def test_digits_divide_in_the_bundled_order() -> None:
    bundle = load_digits()
    threes = bundle.images[bundle.target == 3] * 255 / 16
    test = Digits().read("test")
    assert np.abs(test.images[test.labels == 3][:, 0] - threes[4::5]).max() <= 0.5


# --- through torchvision


def idx(path: Path, values: np.ndarray) -> None:
    """A file in MNIST's format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack(f">{1 + values.ndim}I", 0x800 + values.ndim, *values.shape) + values.tobytes())


def idx_folder(folder: Path, kind: str) -> dict[str, Examples]:
    """A whole dataset of random pixels, and what is in it."""
    made = {}
    for part, name, count in (("train", "train", 12), ("test", "t10k", 5)):
        images, labels = random_pixels(count, 28, 28), (np.arange(count) % 10).astype(np.uint8)
        idx(folder / kind / "raw" / f"{name}-images-idx3-ubyte", images)
        idx(folder / kind / "raw" / f"{name}-labels-idx1-ubyte", labels)
        made[part] = Examples(images[:, None], labels.astype(np.int64), ())
    return made


@pytest.mark.parametrize(("dataset", "kind"), [(Mnist, "MNIST"), (FashionMnist, "FashionMNIST")])
def test_mnist_files_come_back_exactly(tmp_path: Path, dataset: type[Mnist], kind: str) -> None:
    for part, expected in idx_folder(tmp_path, kind).items():
        split = open_split(dataset(folder=str(tmp_path)), part, tmp_path / "cache")  # type: ignore[arg-type]
        assert np.array_equal(split.pixels(range(len(split))).numpy(), expected.images)
        assert np.array_equal(split.labels(range(len(split))).numpy(), expected.labels)
        assert len(split.classes) == 10


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train-images-idx3-ubyte", None, "bytes long, where its header promises 9424; delete it"),
        ("train-labels-idx1-ubyte", b"\0\0\x08\x03\0\0\0\x0c", "does not begin as an IDX file of bytes with 1 axes"),
        ("train-labels-idx1-ubyte", b"", "does not begin as an IDX file"),
        (
            "train-images-idx3-ubyte",
            struct.pack(">4I", 0x803, *[2**32 - 1] * 3),
            "16 bytes long, where its header prom",
        ),
    ],
)
def test_a_damaged_mnist_file_is_named(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    idx_folder(tmp_path, "MNIST")
    path = tmp_path / "MNIST" / "raw" / name
    path.write_bytes(path.read_bytes()[:-100] if content is None else content)
    with pytest.raises(ValueError, match=f"{path}: .*{message}"):
        open_split(Mnist(folder=str(tmp_path)), "train", tmp_path / "cache")


def test_mnist_labels_and_images_must_be_as_many_and_in_range(tmp_path: Path) -> None:
    idx_folder(tmp_path, "MNIST")
    labels = tmp_path / "MNIST" / "raw" / "train-labels-idx1-ubyte"
    idx(labels, np.zeros(11, dtype=np.uint8))
    with pytest.raises(ValueError, match=r"labels must be int64 \(12,\), one an image"):
        open_split(Mnist(folder=str(tmp_path)), "train", tmp_path / "cache")
    idx(labels, np.full(12, 10, dtype=np.uint8))
    with pytest.raises(ValueError, match=r"dataset mnist, train: row 0: a label of 0 .. 9, not 10"):
        open_split(Mnist(folder=str(tmp_path)), "train", tmp_path / "cache")


@pytest.mark.parametrize("dataset", [Mnist, FashionMnist, Cifar10, Cifar100])
def test_without_network_one_error_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dataset: type[Mnist]
) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    with pytest.raises(
        ValueError, match=r"the download failed .*no network.*put the files there.*'parquet'.*'digits'"
    ) as e:
        open_split(dataset(folder=str(tmp_path / "data")), "train", tmp_path / "cache")
    assert "\n" not in str(e.value)
    assert str(tmp_path / "data") in str(e.value)


def test_half_an_mnist_is_said_to_be_incomplete(tmp_path: Path) -> None:
    idx_folder(tmp_path, "MNIST")
    (tmp_path / "MNIST" / "raw" / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(ValueError, match=f"MNIST in {tmp_path} is incomplete .*delete it, and it is downloaded again"):
        open_split(Mnist(folder=str(tmp_path)), "train", tmp_path / "cache")


def published(monkeypatch: pytest.MonkeyPatch, folder: Path, contents: dict[str, bytes]) -> None:
    """Writes a CIFAR-10 and lets torchvision take it for the published one."""
    sums = {}
    for name, content in contents.items():
        path = folder / "cifar-10-batches-py" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        sums[name] = hashlib.md5(content).hexdigest()
    source = vision.torchvision().datasets.CIFAR10
    monkeypatch.setattr(source, "train_list", [[name, sums[name]] for name in sums if name.startswith("data")])
    monkeypatch.setattr(source, "test_list", [["test_batch", sums["test_batch"]]])
    monkeypatch.setattr(source, "meta", source.meta | {"md5": sums["batches.meta"]})


def cifar10(pixels: np.ndarray) -> dict[str, bytes]:
    """Files as CIFAR-10 has them: rows of 3072 bytes, channels first; two rows a file."""
    names = [f"data_batch_{k}" for k in range(1, 6)] + ["test_batch"]
    files = {
        name: pickle.dumps({"data": pixels[2 * k : 2 * k + 2].reshape(2, -1), "labels": [k, 9]})
        for k, name in enumerate(names)
    }
    return files | {"batches.meta": pickle.dumps({"label_names": list("abcdefghij")})}


def test_cifar10_files_come_back_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = random_pixels(12, 3, 32, 32)
    published(monkeypatch, tmp_path, cifar10(pixels))
    train = open_split(Cifar10(folder=str(tmp_path)), "train", tmp_path / "cache")
    test = open_split(Cifar10(folder=str(tmp_path)), "test", tmp_path / "cache")
    assert np.array_equal(train.pixels(range(10)).numpy(), pixels[:10])
    assert np.array_equal(test.pixels(range(2)).numpy(), pixels[10:])
    assert train.labels(range(10)).tolist() == [0, 9, 1, 9, 2, 9, 3, 9, 4, 9]
    assert train.classes == tuple("abcdefghij")


class Hostile:
    """A pickle that makes a folder when it is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.mkdir, (self.mark,)


@pytest.mark.parametrize("name", ["data_batch_3", "test_batch", "batches.meta"])
def test_a_pickle_that_was_not_published_is_never_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    published(monkeypatch, tmp_path, cifar10(random_pixels(12, 3, 32, 32)))
    (tmp_path / "cifar-10-batches-py" / name).write_bytes(pickle.dumps(Hostile(tmp_path / "mark")))
    message = f"{name}: its content is not what was published" if name == "data_batch_3" else "CIFAR10 in .* incomplete"
    with pytest.raises(ValueError, match=message):
        open_split(Cifar10(folder=str(tmp_path)), "train", tmp_path / "cache")
    assert not (tmp_path / "mark").exists()
