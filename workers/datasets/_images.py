"""Encoded images become pixels. They may come from anyone: nothing in them is ever run, and none may be a bomb."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from algorithms.models import Shape

_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "PPM")  # not EPS, which is a program, nor TIFF, which is a zoo
_CHANNELS = {"1": 1, "L": 1, "LA": 1, "P": 3, "RGB": 3, "RGBA": 3, "CMYK": 3}  # by mode
_LARGEST = 1 << 24  # pixels of one image; a small file can claim any number of them
_UNREADABLE = (  # what Pillow's decoders raise for damaged images
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    TypeError,
    LookupError,
    OverflowError,
    AttributeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


def shape_of(data: bytes) -> Shape:
    """Channels (1: grey, 3: colour), height and width of an encoded image, without decoding its pixels.

    Raises ValueError if it is no image, an unreasonably large one, or one of a mode that is not 8 bits a channel.
    """
    image = _opened(data)
    return _CHANNELS[image.mode], image.height, image.width


def decode(data: bytes, shape: Shape, *, colour_to_grey: bool = False) -> NDArray[np.uint8]:
    """The pixels of an encoded image as an array of exactly `shape`.

    Black and white counts as grey, every other kind of colour as RGB, and transparency is left out. Where `shape` asks
    for colour, a grey image gets three equal channels; where it asks for grey, a coloured one becomes so, by ITU-R
    601 luma, only with `colour_to_grey`. Raises ValueError, as `shape_of` does, and for an image of another size.
    """
    channels, height, width = shape
    image = _opened(data)
    if image.size != (width, height):
        raise ValueError(f"{image.height}x{image.width} pixels, where the first image has {height}x{width}")
    if channels == 1 and _CHANNELS[image.mode] == 3 and not colour_to_grey:
        raise ValueError("in colour, where the first image is grey; channels = 1 or 3 makes all of them alike")
    mode = "L" if channels == 1 else "RGB"
    with _decoding():
        pixels = np.asarray(image if image.mode == mode else image.convert(mode), dtype=np.uint8)
    return pixels.reshape(height, width, channels).transpose(2, 0, 1)


def _opened(data: bytes) -> Image.Image:
    """The image, its pixels not yet decoded."""
    with _decoding():
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
    if image.width * image.height > _LARGEST:
        raise ValueError(f"{image.height}x{image.width} pixels; at most {_LARGEST:,} are accepted in one image")
    if image.mode not in _CHANNELS:
        raise ValueError(
            f"pixels of mode {image.mode}, where one of {', '.join(_CHANNELS)} is accepted; convert it first"
        )
    return image


@contextmanager
def _decoding() -> Iterator[None]:
    """Turns all that Pillow raises for damaged images into one ValueError."""
    try:
        yield
    except UnidentifiedImageError as error:
        raise ValueError(f"no readable image: none of {', '.join(_FORMATS)}") from error
    except _UNREADABLE as error:
        raise ValueError(f"no readable image: {error}") from error
