"""Batches are fixed slices, read ahead in the background, with broken images named."""

import gc
import pickle
import threading
import time
from pathlib import Path

import cloudpickle
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from vitscope.data import Batch, Broken, Images, images
from vitscope.data.lookahead import ahead
from vitscope.measurement.errors import UserError


def pixels(picture: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(picture.convert("L"))).float()[None] / 255


def numbered(count: int) -> Images:
    """Images whose grey level is their number, of classes 0, 1, 0, 1, ..."""
    return images(
        (np.arange(count, dtype=np.uint8)[:, None, None] * np.ones((1, 2, 2), np.uint8), np.arange(count) % 2)
    )


def levels(batch: Batch) -> list[int]:
    return torch.round(batch.pixels[:, 0, 0, 0] * 255).int().tolist()


@pytest.fixture
def partly_broken(tmp_path: Path) -> Path:
    for number in range(7):
        Image.new("L", (2, 2), number).save(tmp_path / f"{number}.png")
    (tmp_path / "2.png").write_bytes(b"no image")
    (tmp_path / "3.png").write_bytes(b"")
    return tmp_path


def test_batches_are_slices_in_order() -> None:
    batches = list(numbered(7).batches(pixels, 3))
    assert [levels(batch) for batch in batches] == [[0, 1, 2], [3, 4, 5], [6]]
    assert [batch.labels.tolist() for batch in batches] == [[0, 1, 0], [1, 0, 1], [0]]
    assert [batch.indices.tolist() for batch in batches] == [[0, 1, 2], [3, 4, 5], [6]]
    assert [len(batch) for batch in batches] == [3, 3, 1]


@pytest.mark.parametrize(
    ("start", "stop", "expected"),
    [(0, 1, [[0, 1, 2]]), (1, None, [[3, 4, 5], [6]]), (1, 2, [[3, 4, 5]]), (2, 9, [[6]]), (3, None, []), (2, 1, [])],
)
def test_a_range_of_batches_gives_the_same_batches(start: int, stop: int | None, expected: list) -> None:
    assert [levels(batch) for batch in numbered(7).batches(pixels, 3, start, stop)] == expected


@pytest.mark.parametrize(("batch_size", "count"), [(1, 7), (3, 3), (7, 1), (8, 1)])
def test_batches_are_counted_without_reading(batch_size: int, count: int) -> None:
    assert numbered(7).batch_count(batch_size) == count


def test_a_batch_without_images_is_refused_at_once() -> None:
    with pytest.raises(UserError, match="at least one image, not 0"):
        numbered(3).batches(pixels, 0)


def test_unlabelled_images_have_no_labels() -> None:
    bare = images(np.zeros((2, 4, 4), dtype=np.uint8))
    assert next(bare.batches(pixels, 2)).labels is None
    assert bare.label_source == "unlabelled"


def test_broken_images_are_left_out_of_their_batch_and_named(partly_broken: Path) -> None:
    batches = list(images(partly_broken, max_broken=2).batches(pixels, 3))
    assert [levels(batch) for batch in batches] == [[0, 1], [4, 5], [6]]
    assert [batch.indices.tolist() for batch in batches] == [[0, 1], [4, 5], [6]]
    assert batches[0].broken == (Broken("2.png", "not an image of a known format"),)
    assert batches[1].broken == (Broken("3.png", "the file is empty"),)


def test_a_batch_of_broken_images_alone_has_no_rows(partly_broken: Path) -> None:
    batch = list(images(partly_broken, max_broken=2).batches(pixels, 1))[2]
    assert len(batch) == len(batch.pixels) == 0
    assert batch.pixels.ndim == 4


def test_too_many_broken_images_stop_the_reading(partly_broken: Path) -> None:
    batches = images(partly_broken, max_broken=1).batches(pixels, 3)
    assert levels(next(batches)) == [0, 1]
    with pytest.raises(UserError, match=r"2 broken images met in .* \(2\.png: not an image .*; 3\.png: .* empty\).*1"):
        next(batches)


def test_no_broken_image_is_allowed_unless_asked_for(partly_broken: Path) -> None:
    with pytest.raises(UserError, match=r"1 broken image met .* more than the 0 that --max-broken allows"):
        list(images(partly_broken).batches(pixels, 3))


def test_images_of_different_sizes_call_for_a_transform_that_resizes() -> None:
    with pytest.raises(UserError, match=r"different sizes .*1x2x2 and 1x3x3.* must resize"):
        list(images([Image.new("L", (2, 2)), Image.new("L", (3, 3))]).batches(pixels, 2))


def test_an_error_of_the_transform_reaches_the_caller() -> None:
    def fail(picture: Image.Image) -> Tensor:
        raise ZeroDivisionError(picture.size)

    with pytest.raises(ZeroDivisionError):
        list(numbered(3).batches(fail, 2))


def test_reading_ahead_is_bounded() -> None:
    begun: list[int] = []
    results = ahead(lambda number: begun.append(number) or number, range(1000), window=5)
    assert next(results) == 0
    time.sleep(0.1)
    assert begun == sorted(begun)
    assert len(begun) == 6


def test_work_not_begun_is_cancelled_with_its_iterator() -> None:
    begun: list[int] = []
    results = ahead(lambda number: begun.append(number) or time.sleep(0.002), range(1000), window=200)
    next(results)
    results.close()
    time.sleep(0.3)
    assert len(begun) < 100


def test_reading_ahead_happens_in_the_background() -> None:
    threads: set[str] = set()
    assert list(ahead(lambda number: threads.add(threading.current_thread().name) or number, range(9), 3)) == [
        *range(9)
    ]
    assert all(name.startswith("vitscope-ahead") for name in threads)


def test_a_dropped_iterator_leaves_no_thread() -> None:
    batches = numbered(200).batches(pixels, 10)
    next(batches)
    reading = [thread for thread in threading.enumerate() if thread.name.startswith("vitscope-ahead")]
    assert reading
    del batches
    gc.collect()
    for thread in reading:
        thread.join(timeout=5)
    assert not any(thread.is_alive() for thread in reading)


@pytest.mark.parametrize("pickler", [pickle, cloudpickle])
def test_images_read_the_same_after_pickling(partly_broken: Path, pickler: object) -> None:
    ours = images(partly_broken, max_broken=2)
    theirs = pickle.loads(pickler.dumps(ours))
    assert [levels(batch) for batch in theirs.batches(pixels, 3)] == [[0, 1], [4, 5], [6]]
    assert theirs.fingerprint == ours.fingerprint


def test_the_fingerprint_is_of_content_not_of_place(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder / "cat").mkdir(parents=True)
        Image.new("L", (2, 2), 7).save(tmp_path / folder / "cat" / "a.png")
    first, second = images(tmp_path / "one"), images(tmp_path / "two")
    assert first.fingerprint == second.fingerprint
    assert len(first.fingerprint) == 64
    Image.new("L", (2, 2), 8).save(tmp_path / "two" / "cat" / "a.png")
    assert images(tmp_path / "two").fingerprint != first.fingerprint
    (tmp_path / "one" / "cat").rename(tmp_path / "one" / "dog")
    assert images(tmp_path / "one").fingerprint != first.fingerprint


@pytest.mark.parametrize(
    "other",
    [
        {"split": "train"},
        {"limit": 20},
        {"limit": 21, "seed": 1},
        {"limit": 21, "label_map": {digit: 9 - digit for digit in range(10)}},
    ],
    ids=["split", "limit", "seed", "map"],
)
def test_every_choice_changes_the_fingerprint(other: dict) -> None:
    assert images("digits", **other).fingerprint != images("digits", limit=21).fingerprint
