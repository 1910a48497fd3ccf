"""Images behave as a sequence of pictures, and show a few of them in a notebook."""

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitscope.cli.request import Request
from vitscope.data import BrokenImage, images
from vitscope.data.decode import MAX_PIXELS

LEVELS = np.arange(10, dtype=np.uint8)[:, None, None] * np.ones((1, 300, 200), np.uint8)


def levels(pictures: object) -> list[int]:
    return [picture.getpixel((0, 0)) for picture in pictures]


def test_items_are_pictures_and_slices_are_images() -> None:
    ours = images((LEVELS, np.arange(10)))
    assert isinstance(ours[3], Image.Image)
    assert levels((ours[3], ours[-1], ours[np.int64(2)])) == [3, 9, 2]
    assert levels(ours) == list(range(10))
    part = ours[2:9:3]
    assert (levels(part), part.labels.tolist(), len(part)) == ([2, 5, 8], [2, 5, 8], 3)
    assert levels(ours[::-1]) == list(range(10))  # the order is the source's
    assert ours[2:9:3].fingerprint == ours.take(np.array([2, 5, 8])).fingerprint != ours.fingerprint
    for index in (10, -11):
        with pytest.raises(IndexError):
            ours[index]


def test_a_broken_picture_is_an_error_where_it_is_taken(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(BrokenImage, match=r"a.png: the file is empty"):
        images(tmp_path)[0]


def test_the_short_text_says_how_many_and_of_what() -> None:
    assert repr(images("digits")) == "Images('digits/test': 445 images, 10 classes)"
    assert repr(images(LEVELS)) == "Images('images': 10 images, no labels)"
    assert repr(images((LEVELS, np.arange(10)))) == "Images('images': 10 images, labels without names)"


def test_a_notebook_shows_thumbnails_with_their_classes_escaped(tmp_path: Path) -> None:
    for name in ("<script>alert(1)<", "cat & dog"):
        (tmp_path / name).mkdir()
        for number in range(6):
            Image.fromarray(LEVELS[number]).save(tmp_path / name / f"{number}.png")
    (tmp_path / "cat & dog" / "5.png").write_bytes(b"no image")
    page = images(tmp_path)._repr_html_()
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;" in page
    assert "cat &amp; dog" in page
    assert "cat &amp; dog/5.png: not an image of a known format" in page
    shown = [Image.open(io.BytesIO(base64.b64decode(data))) for data in re.findall(r"base64,([^\"]+)", page)]
    assert len(shown) == 7
    assert {picture.size for picture in shown} == {(64, 96)}
    assert levels(shown)[0] == 0
    assert len(page) < 20_000


def test_the_command_line_allows_as_many_pixels_as_the_library() -> None:
    assert Request().max_pixels == MAX_PIXELS
