"""Pictures as inputs: preprocessing with values worked out by hand, labels, and what is refused."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.datasets import DatasetError, label_of, load_samples, preprocess, thumbnail
from pipelines.schema import Dataset, Preprocess


def picture(width: int, height: int) -> Image.Image:
    """Red is the column, green the row, blue 100."""
    rows, columns = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([columns, rows, np.full_like(rows, 100)], -1).astype(np.uint8))


def dataset(**keys: object) -> Dataset:
    return Dataset.model_validate(
        {"package": "pictures", "version": "1.0", "sha256": "0" * 64, "files": "data/*", **keys}
    )


def test_crop_and_scale_by_hand() -> None:
    how = Preprocess(crop_fraction=0.5, scale=1.0, mean=(2.0, 1.0, 100.0), std=(2.0, 1.0, 4.0))
    pixels = preprocess(picture(8, 4), how)
    assert (pixels.dtype, pixels.shape) == (np.float32, (1, 3, 2, 2))
    assert pixels[0, 0].tolist() == [[0.5, 1.0], [0.5, 1.0]]  # columns 3 and 4
    assert pixels[0, 1].tolist() == [[0.0, 0.0], [1.0, 1.0]]  # rows 1 and 2
    assert not pixels[0, 2].any()


def test_resize_keeps_the_shorter_side_then_crops() -> None:
    pixels = preprocess(picture(40, 20), Preprocess(resize=10, crop=8, interpolation="nearest", scale=1.0))
    assert pixels.shape == (1, 3, 8, 8)
    assert pixels[0, 0, 0].tolist() == [13, 15, 17, 19, 21, 23, 25, 27]


def test_default_scale_is_zero_to_one() -> None:
    white = Image.new("RGB", (3, 3), (255, 255, 255))
    assert preprocess(white, Preprocess()).max() == pytest.approx(1.0)


def test_interpolations_differ() -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8))
    results = {
        name: preprocess(noise, Preprocess(resize=13, interpolation=name)).tobytes()
        for name in ("nearest", "bilinear", "bicubic")
    }
    assert len(set(results.values())) == 3


def test_crop_above_the_picture_is_refused() -> None:
    with pytest.raises(DatasetError, match=r"crop 9 .*\(4x8\).*resize it to 9"):
        preprocess(picture(4, 8), Preprocess(crop=9))


def test_labels_come_from_names() -> None:
    assert label_of("imagenet_17_22.jpg", r"imagenet_\d+_(?P<label>\d+)") == 22
    assert label_of("anything.jpg", None) is None
    with pytest.raises(DatasetError, match=r"photo\.jpg has no class number"):
        label_of("photo.jpg", r"_(?P<label>\d+)")


def test_samples_come_in_the_order_of_names(tmp_path: Path) -> None:
    for name in ("b_2.png", "a_1.png", "c_0.png"):
        picture(6, 6).save(tmp_path / name)
    samples = list(load_samples(tmp_path, dataset(labels=r"_(?P<label>\d)")))
    assert [(sample.path.name, sample.label) for sample in samples] == [
        ("a_1.png", 1),
        ("b_2.png", 2),
        ("c_0.png", 0),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "has no file in pictures/"), (b"not a picture", r"a_1\.png is not a picture")],
)
def test_bad_folders_are_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    if content is not None:
        (folder / "a_1.png").write_bytes(content)
    with pytest.raises(DatasetError, match=message):
        list(load_samples(folder, dataset()))


def test_thumbnail_is_a_square_jpeg(tmp_path: Path) -> None:
    picture(200, 120).save(tmp_path / "x.png")
    kind, _, data = thumbnail(tmp_path / "x.png", 48).partition(",")
    assert kind == "data:image/jpeg;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (48, 48)
