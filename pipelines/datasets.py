"""Labelled images as inputs of a model. The pictures come from a data set's folder; no code of its package
is run."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from PIL import Image, UnidentifiedImageError

from pipelines.schema import Dataset, Preprocess

Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}


class DatasetError(ValueError):
    """A data set does not hold what its configuration says."""


@dataclass(frozen=True)
class Sample:
    """A picture: its file, its class number where the set has labels, and the model's input ``(1, 3, h,
    w)``."""

    path: Path
    label: int | None
    pixels: Array


def load_samples(folder: Path, dataset: Dataset) -> Iterator[Sample]:
    """The pictures of ``folder`` in the order of their names, one at a time.

    Raises ``DatasetError`` if there is none, if a file is not a picture, or if its name has no label.
    """
    files = sorted(path for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []
    if not files:
        raise DatasetError(
            f"the data set {dataset.package} {dataset.version} has no file in {folder.name}/; "
            f"check verify.dataset.files ({dataset.files}) and fetch it again"
        )
    for path in files:
        yield Sample(
            path, label_of(path.name, dataset.labels), preprocess(open_picture(path), dataset.preprocess)
        )


def label_of(name: str, pattern: str | None) -> int | None:
    """The class number in a file's name. Raises ``DatasetError`` if the name does not have it."""
    if pattern is None:
        return None
    found = re.search(pattern, name)
    if found is None or not found["label"].isdecimal():
        raise DatasetError(f"{name} has no class number where verify.dataset.labels looks for it ({pattern})")
    return int(found["label"])


def open_picture(path: Path) -> Image.Image:
    """The picture as RGB. Raises ``DatasetError`` if the file is not one."""
    try:
        with Image.open(path) as picture:
            return picture.convert("RGB")
    except (UnidentifiedImageError, OSError) as error:
        raise DatasetError(f"{path.name} is not a picture ({error}); narrow verify.dataset.files") from None


def preprocess(picture: Image.Image, how: Preprocess) -> Array:
    """``picture`` as float32 ``(1, 3, height, width)``: centre crop, resize, crop, ``(pixel * scale - mean)
    / std``."""
    if how.crop_fraction is not None:
        side = round(how.crop_fraction * min(picture.size))
        picture = _centre(picture, side)
    if how.resize is not None:
        factor = how.resize / min(picture.size)
        size = (round(picture.width * factor), round(picture.height * factor))
        picture = picture.resize(size, _FILTERS[how.interpolation])
    if how.crop is not None:
        if how.crop > min(picture.size):
            raise DatasetError(
                f"preprocess.crop {how.crop} is above the "
                f"picture ({picture.width}x{picture.height}); resize it to {how.crop} or more"
            )
        picture = _centre(picture, how.crop)
    pixels: Array = np.asarray(picture, np.float32) * np.float32(how.scale)
    pixels = (pixels - np.asarray(how.mean, np.float32)) / np.asarray(how.std, np.float32)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None])


def thumbnail(path: Path, side: int = 96) -> str:
    """A small square JPEG of the picture as a data URI."""
    picture = open_picture(path)
    picture = _centre(picture, min(picture.size)).resize((side, side), Image.Resampling.LANCZOS)
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()


def _centre(picture: Image.Image, side: int) -> Image.Image:
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    return picture.crop((left, top, left + side, top + side))
