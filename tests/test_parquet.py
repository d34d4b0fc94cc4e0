"""Parquet datasets: every pixel and label is the file's, and what is wrong in a file is named with its row."""

from __future__ import annotations

import io
import json
import struct
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from workers.cache import open_split
from workers.datasets import _images, _tables
from workers.datasets.parquet import Parquet

SHARED = Path(__file__).parents[2] / "shared" / "data"
RNG = np.random.RandomState(0)


def random_pixels(count: int, *shape: int) -> np.ndarray:
    return RNG.randint(0, 256, (count, *shape), dtype=np.uint8)


def encoded(pixels: np.ndarray, kind: str = "PNG", **options: Any) -> bytes:
    """(height, width) or (height, width, 3) uint8 as an image file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def write(
    path: Path,
    images: list[bytes | None],
    labels: Any,
    *,
    names: list[str] | None = None,
    column: str = "image",
) -> Path:
    """A Parquet file as the Hugging Face hub has them."""
    cells = [{"bytes": data, "path": "never/opened.png"} for data in images]
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    table = pa.table(
        {column: pa.array(cells, kind), "label": labels if isinstance(labels, pa.Array) else pa.array(labels)}
    )
    if names is not None:
        features = {"label": {"_type": "ClassLabel", "names": names}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=700)
    return path


def train_file(folder: Path) -> Path:
    return folder / "train-00000-of-00001.parquet"


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3)])
def test_parquet_gives_the_pixels_that_were_encoded(tmp_path: Path, shape: tuple[int, ...]) -> None:
    pixels, labels = random_pixels(2500, *shape), RNG.randint(0, 4, 2500)
    names = ["ant", "bee", "cat", "dog"]
    for k in range(2):
        rows = slice(1500 * k, 1500 * (k + 1))
        path = tmp_path / f"train-0000{k}-of-00002-ab{9 - k}.parquet"
        write(path, [encoded(image) for image in pixels[rows]], labels[rows], names=names, column="img")
    split = open_split(Parquet(folder=str(tmp_path)), "train", tmp_path / "cache")
    expected = pixels[:, None] if len(shape) == 2 else np.moveaxis(pixels, 3, 1)
    assert np.array_equal(split.pixels(range(2500)).numpy(), expected)
    assert np.array_equal(split.labels(range(2500)).numpy(), labels)
    assert split.classes == tuple(names)


def test_the_default_columns_are_the_first_struct_with_bytes_and_label(tmp_path: Path) -> None:
    pixels = random_pixels(2, 3, 3)
    kind = pa.struct({"path": pa.string(), "bytes": pa.large_binary()})
    cells = [pa.array([{"bytes": encoded(image), "path": None}], kind) for image in pixels]
    columns = {
        "meta": pa.array([{"path": "x"}]),
        "a.b": cells[0],
        "other": cells[1],
        "label": pa.array([1], pa.uint8()),
        "fine": pa.array([2]),
    }
    pq.write_table(pa.table(columns), train_file(tmp_path))
    first = Parquet(folder=str(tmp_path)).read("train")
    other = Parquet(folder=str(tmp_path), image="other", label="fine").read("train")
    assert np.array_equal(first.images[0, 0], pixels[0])
    assert (first.labels.tolist(), first.classes) == ([1], ("0", "1"))
    assert np.array_equal(other.images[0, 0], pixels[1])
    assert (other.labels.tolist(), other.classes) == ([2], ("0", "1", "2"))


def test_both_parts_have_the_same_classes_and_the_same_shape(tmp_path: Path) -> None:
    grey, colour = random_pixels(1, 4, 4)[0], random_pixels(1, 4, 4, 3)[0]
    write(train_file(tmp_path), [encoded(colour)], [1])
    write(tmp_path / "test-0.parquet", [encoded(grey)], [6])
    dataset = Parquet(folder=str(tmp_path))
    assert dataset.read("train").classes == dataset.read("test").classes == tuple("0123456")
    assert np.array_equal(dataset.read("test").images, np.broadcast_to(grey, (1, 3, 4, 4)))


def test_the_fingerprint_follows_content_and_settings_and_no_place(tmp_path: Path) -> None:
    image = encoded(random_pixels(1, 4, 4)[0])
    for place, label in (("a", 0), ("b", 0), ("c", 1)):
        write(train_file(tmp_path / place), [image], [label])
    a, b, c = (Parquet(folder=str(tmp_path / place)) for place in "abc")
    assert a.fingerprint("train") == b.fingerprint("train") != c.fingerprint("train")
    assert len({d.fingerprint("train") for d in (a, Parquet(folder=a.folder, channels=3))}) == 2
    before = a.fingerprint("train")
    write(tmp_path / "a" / "test-0.parquet", [image], [5])
    assert before != a.fingerprint("train") != a.fingerprint("test")


def read_one(tmp_path: Path, data: bytes, channels: int = 0) -> np.ndarray:
    write(train_file(tmp_path), [data], [0])
    return Parquet(folder=str(tmp_path), channels=channels).read("train").images[0]


def test_other_kinds_of_pixels_follow_the_rule(tmp_path: Path) -> None:
    grey, colour = random_pixels(1, 8, 8)[0], random_pixels(1, 8, 8, 3)[0]
    alpha = random_pixels(1, 8, 8)[0]
    black_and_white = (grey > 127).astype(np.uint8) * 255
    bits, grey_alpha, colour_alpha = io.BytesIO(), io.BytesIO(), io.BytesIO()
    Image.fromarray(grey > 127).save(bits, "PNG")
    Image.fromarray(np.dstack([grey, alpha])).save(grey_alpha, "PNG")
    Image.fromarray(np.dstack([colour, alpha])).save(colour_alpha, "PNG")
    few = colour // 128 * 128
    palette = io.BytesIO()
    Image.fromarray(few).quantize(8).save(palette, "PNG")
    red, green, blue = np.moveaxis(colour.astype(float), 2, 0)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    assert np.array_equal(read_one(tmp_path, bits.getvalue()), black_and_white[np.newaxis])
    assert np.array_equal(read_one(tmp_path, grey_alpha.getvalue()), grey[np.newaxis])
    assert np.array_equal(read_one(tmp_path, colour_alpha.getvalue()), np.moveaxis(colour, 2, 0))
    assert np.array_equal(read_one(tmp_path, palette.getvalue()), np.moveaxis(few, 2, 0))
    assert np.array_equal(read_one(tmp_path, encoded(grey), channels=3), np.stack([grey] * 3))
    assert np.abs(read_one(tmp_path, encoded(colour), channels=1)[0] - luma).max() <= 1


@pytest.mark.parametrize("kind", ["PNG", "BMP", "PPM", "WEBP"])
def test_lossless_formats_come_back_exactly(tmp_path: Path, kind: str) -> None:
    colour = random_pixels(1, 8, 8, 3)[0]
    options = {"lossless": True} if kind == "WEBP" else {}
    assert np.array_equal(read_one(tmp_path, encoded(colour, kind, **options)), np.moveaxis(colour, 2, 0))


def test_jpeg_is_what_pillow_decodes(tmp_path: Path) -> None:
    data = encoded(random_pixels(1, 16, 16, 3)[0], "JPEG")
    with Image.open(io.BytesIO(data)) as image:
        assert np.array_equal(read_one(tmp_path, data), np.moveaxis(np.array(image), 2, 0))


def png_that_claims(height: int, width: int) -> bytes:
    """A PNG of a few bytes whose header says it is larger."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )


GOOD = encoded(np.full((4, 4), 7, dtype=np.uint8))
COLOURED = encoded(np.full((4, 4, 3), 7, dtype=np.uint8))
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n%%EndComments\nshowpage\n%%EOF\n"


BAD: list[tuple[bytes | None, str]] = [
    (b"no image at all", "no readable image: none of PNG, JPEG, "),
    (GOOD[:48], "no readable image: "),
    (GOOD[:40] + b"\xff" + GOOD[41:], "no readable image: "),
    (encoded(np.zeros((4, 4), dtype=np.uint8), "TIFF"), "no readable image: none of PNG, JPEG, "),
    (EPS, "no readable image: none of PNG, JPEG, "),
    (b"", "no image: its bytes are missing"),
    (None, "no image: its bytes are missing"),
    (encoded(np.zeros((4, 5), dtype=np.uint8)), "4x5 pixels, where the first image has 4x4"),
    (encoded(np.zeros((4, 4), dtype=np.uint16)), "pixels of mode I;16, where one of 1, L, LA, "),
    (COLOURED, "in colour, where the first image is grey; channels = 1 or 3"),
    (png_that_claims(4097, 4096), "4097x4096 pixels; at most 16,777,216 are accepted"),
    (png_that_claims(60_000, 60_000), "no readable image: Image size .* decompression bomb"),
]


@pytest.mark.parametrize(
    ("row", "bad", "message"),
    [(row, *case) for row in (0, 1030) for case in BAD if row or "where the first image" not in case[1]],
)
def test_a_bad_image_is_named_with_its_row(tmp_path: Path, row: int, bad: bytes | None, message: str) -> None:
    images: list[bytes | None] = [GOOD] * 1040
    images[row] = bad
    path = write(train_file(tmp_path), images, [0] * 1040)
    with pytest.raises(ValueError, match=f"{path}: row {row}: {message}"):
        open_split(Parquet(folder=str(tmp_path)), "train", tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*.arrow"))


def test_a_small_file_that_claims_many_pixels_is_named(tmp_path: Path) -> None:
    write(train_file(tmp_path), [png_that_claims(4000, 4000)], [0])
    with pytest.raises(ValueError, match="row 0: no readable image: image file is truncated"):
        Parquet(folder=str(tmp_path)).read("train")


def test_a_missing_struct_is_a_missing_image(tmp_path: Path) -> None:
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    cells = pa.array([{"bytes": GOOD, "path": ""}, None], kind)
    pq.write_table(pa.table({"image": cells, "label": [0, 0]}), train_file(tmp_path))
    with pytest.raises(ValueError, match="row 1: no image: its bytes are missing"):
        Parquet(folder=str(tmp_path)).read("train")


@pytest.mark.parametrize(
    ("labels", "names", "message"),
    [
        ([0, 1, None], None, "row 2: no label"),
        ([0, -1, 0], None, "row 1: a label of 0 .. 99999, not -1"),
        ([0, 2, 0], ["no", "yes"], "row 1: a label of 0 .. 1, not 2"),
        (pa.array([0, 2**63, 0], pa.uint64()), None, "row 1: a label of 0 .. 99999, not 9223372036854775808"),
        ([0.0, 1.0, 0.5], None, r"no label column \(integers\) is called 'label'; the columns are .*label \(double\)"),
        (["a", "b", "c"], None, r"no label column .* label \(string\)"),
        (pa.nulls(3), None, r"no label column .* label \(null\)"),
    ],
)
def test_a_bad_label_is_named_with_its_row(tmp_path: Path, labels: Any, names: list[str] | None, message: str) -> None:
    path = write(train_file(tmp_path), [GOOD] * 3, labels, names=names)
    with pytest.raises(ValueError, match=f"{path}: {message}"):
        Parquet(folder=str(tmp_path)).read("train")


@pytest.mark.parametrize("metadata", [b"{", b"[]", b'{"info": {"features": {"label": {"names": 3}}}}', b"[" * 100_000])
def test_metadata_that_nobody_understands_is_left_alone(tmp_path: Path, metadata: bytes) -> None:
    path = write(train_file(tmp_path), [GOOD] * 2, [0, 1])
    pq.write_table(pq.read_table(path).replace_schema_metadata({b"huggingface": metadata}), path)
    assert Parquet(folder=str(tmp_path)).read("train").classes == ("0", "1")


def test_files_that_disagree_on_the_classes_are_named(tmp_path: Path) -> None:
    train = write(train_file(tmp_path), [GOOD], [0], names=["cat", "dog"])
    test = write(tmp_path / "test-0.parquet", [GOOD], [0], names=["dog", "cat"])
    with pytest.raises(ValueError, match=f"{train}, {test}: these files name different classes"):
        Parquet(folder=str(tmp_path)).read("train")


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        (
            {"image": "photo"},
            r"no image column \(a struct with bytes\) is called 'photo'; the columns are image \(struct",
        ),
        ({"image": "label"}, "no image column .* is called 'label'"),
        ({"label": "fine"}, r"no label column \(integers\) is called 'fine'"),
    ],
)
def test_a_missing_column_is_named_with_those_that_exist(
    tmp_path: Path, settings_: dict[str, str], message: str
) -> None:
    path = write(train_file(tmp_path), [GOOD], [0])
    with pytest.raises(ValueError, match=f"{path}: {message}"):
        Parquet(folder=str(tmp_path), **settings_).read("train")  # type: ignore[arg-type]


def test_a_file_without_images_or_rows_is_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["x"], "label": [0]}), train_file(tmp_path))
    with pytest.raises(ValueError, match=r"no image column .* is called ''; the columns are text"):
        Parquet(folder=str(tmp_path)).read("train")
    write(train_file(tmp_path), [], pa.array([], pa.int64()))
    with pytest.raises(ValueError, match=r"train-00000-of-00001.parquet: has no rows"):
        Parquet(folder=str(tmp_path)).read("train")


@pytest.mark.parametrize("content", [b"", b"PAR1", b"\x89PNG\r\n\x1a\n" + bytes(99)])
def test_a_file_that_is_not_parquet_is_named(tmp_path: Path, content: bytes) -> None:
    train_file(tmp_path).write_bytes(content)
    with pytest.raises(ValueError, match=f"{train_file(tmp_path)}: not a readable Parquet file: "):
        Parquet(folder=str(tmp_path)).read("train")


def test_a_damaged_parquet_file_is_named_or_harmless(tmp_path: Path) -> None:
    pixels = random_pixels(20, 4, 4)
    path = write(train_file(tmp_path), [encoded(image) for image in pixels], [0, 1] * 10)
    whole = path.read_bytes()
    for position in range(4, len(whole), 53):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x24]) + whole[position + 1 :])
        problem = ""
        try:
            assert Parquet(folder=str(tmp_path)).read("train").images.shape == (20, 1, 4, 4)
        except ValueError as error:
            problem = str(error)
        assert not problem or str(path) in problem
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="not a readable Parquet file"):
        Parquet(folder=str(tmp_path)).read("train")


@pytest.mark.parametrize("promised", [3, 5])
def test_other_rows_than_promised_are_damage(tmp_path: Path, promised: int) -> None:
    path = write(train_file(tmp_path), [GOOD] * 4, [0] * 4)
    table = _tables.opened(path, "", "label")
    liar = SimpleNamespace(metadata=SimpleNamespace(num_rows=promised), iter_batches=table.file.iter_batches)
    with pytest.raises(ValueError, match=f"{path}: damaged: {promised} rows are promised, and others came"):
        list(_tables.batches(table._replace(file=liar), 1))


def test_a_missing_folder_file_or_piece_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"folder: .*nowhere is not a folder; it should hold train-\*\.parquet"):
        open_split(Parquet(folder=str(tmp_path / "nowhere")), "train", tmp_path)
    write(tmp_path / "test-00000-of-00001.parquet", [GOOD], [0])
    with pytest.raises(ValueError, match=r"holds no train-\*\.parquet; there is test-00000-of-00001\.parquet"):
        open_split(Parquet(folder=str(tmp_path)), "train", tmp_path)
    write(tmp_path / "train-00001-of-00002.parquet", [GOOD], [0])
    with pytest.raises(ValueError, match=r"the files train-\*-of-00002 are not all there, or some are there twice"):
        open_split(Parquet(folder=str(tmp_path)), "train", tmp_path)


def test_channels_are_grey_or_colour() -> None:
    with pytest.raises(ValueError, match=r"channels: 1 \(grey\), 3 \(RGB\) or 0 \(as the first image\), not 4"):
        Parquet(channels=4)


IMAGES = {kind: encoded(random_pixels(1, 6, 6, 3)[0], kind) for kind in ("PNG", "JPEG", "GIF", "BMP", "WEBP", "PPM")}


@settings(max_examples=300, deadline=None)
@given(
    kind=st.sampled_from(sorted(IMAGES)),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=6),
    end=st.just(1.0) | st.floats(0, 1),
)
def test_damaged_images_are_refused_or_read_and_nothing_else(
    kind: str, changes: list[tuple[float, int]], end: float
) -> None:
    data = bytearray(IMAGES[kind])
    for place, value in changes:
        data[int(place * len(data))] = value
    try:
        pixels = _images.decode(bytes(data[: round(end * len(data))]), (3, 6, 6))
    except ValueError:
        return
    assert (pixels.shape, pixels.dtype) == ((3, 6, 6), np.uint8)


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("name", "column", "shape", "names"),
    [("mnist", "image", (1, 28, 28), ("0", "9")), ("cifar10", "img", (3, 32, 32), ("airplane", "truck"))],
)
def test_the_real_test_parts_are_what_pillow_decodes(
    tmp_path: Path, name: str, column: str, shape: tuple[int, int, int], names: tuple[str, str]
) -> None:
    if not (SHARED / name).is_dir():
        pytest.skip(f"{SHARED / name} is not there")
    split = open_split(Parquet(folder=str(SHARED / name)), "test", tmp_path)
    table = pq.read_table(SHARED / name / "test-00000-of-00001.parquet")
    assert (len(split), split.shape, split.classes[0], split.classes[-1]) == (10_000, shape, *names)
    assert np.array_equal(split.labels(range(10_000)).numpy(), table.column("label").to_numpy())
    for row in range(0, 10_000, 97):
        with Image.open(io.BytesIO(table.column(column)[row]["bytes"].as_py())) as image:
            pixels = np.array(image).reshape(*shape[1:], shape[0])
        assert np.array_equal(split.pixels([row])[0].numpy(), np.moveaxis(pixels, 2, 0))
