"""Whatever a user can get wrong is said in one sentence that names it and what to do."""

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from vitscope.data import images
from vitscope.data.load import _open
from vitscope.data.source import SourceChoice
from vitscope.measurement.errors import UserError


def put(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (2, 2)).save(path)


def table(path: Path, **columns: list) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Sources of every kind in the working directory, each wrong in one way or apt to be misread."""
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("notes.txt").write_text("no images")
    Path("corrupt.npz").write_bytes(b"no archive")
    Path("corrupt.parquet").write_bytes(b"no table")
    for name in ("flat/a.png", "classes/cat/a.png", "splits/train/cat/a.png", "splits/val/cat/a.png"):
        put(Path(name))
    for name in ("mixed/a.png", "mixed/cat/b.png", "hollow/cat/a.png", "hollow/dog/a.txt"):
        put(Path(name).with_suffix(".png"))
    Path("hollow/dog/a.png").rename("hollow/dog/a.txt")
    cells = [b"a", b"b"]
    table(Path("shards/train-00000-of-00002.parquet"), image=cells, label=[0, 1])
    table(Path("halves/train.parquet"), image=cells, label=[0, 1])
    table(Path("halves/test.parquet"), image=cells, label=[0, 1])
    table(Path("two_labels.parquet"), image=cells, fine_label=[0, 1], coarse_label=[0, 0])
    table(Path("no_images.parquet"), text=["a", "b"], label=[0, 1])
    table(Path("no_rows.parquet"), image=pa.array([], pa.binary()), label=pa.array([], pa.int64()))
    table(Path("hidden.parquet"), image=cells, label=[-1, -1])
    table(Path("partly.parquet"), image=cells, label=[0, None])
    grey = np.zeros((2, 4, 4), np.uint8)
    np.savez("uneven.npz", images=grey, labels=np.zeros(3, int))
    np.savez("foreign.npz", weights=grey)
    np.savez("plain.npz", images=grey)
    np.savez("splits.npz", x_train=grey, y_train=np.zeros(2, int), x_test=grey)
    np.savez("objects.npz", images=np.array([{}, {}], dtype=object))
    return tmp_path


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("digits", {"limit": 0}, "--limit takes at least one image, not 0"),
        ("digits", {"max_broken": -1}, "--max-broken cannot be negative"),
        ("digits", {"split": "val"}, "digits has no split 'val'; it has: all, test, train"),
        ("digits", {"label": "digit"}, "digits has no label column 'digit': .* leave --label out"),
        ("nowhere/", {}, "nowhere/ does not exist: give a folder"),
        ("nowhere/*.parquet", {}, "does not exist: give a folder"),
        (Path("nowhere"), {}, "nowhere does not exist"),
        ("flat/*.png", {}, r"flat/\*.png is a pattern of image files: name their folder, or give a list of paths"),
        ("flat/b.png", {}, "flat/b.png does not exist"),
        ("flat/sub", {}, "flat/sub does not exist"),
        ("notes.txt", {}, "notes.txt is neither a folder nor a .parquet, .npz, .tar, .csv, .tsv, .jsonl or image file"),
        ("empty", {}, "empty holds no image files"),
        ("flat", {"split": "test"}, "flat has no splits, so there is no split 'test': leave --split out"),
        ("flat", {"label": "kind"}, "flat has no label column 'kind': the labels of a folder are the names"),
        ("flat", {"label_map": {"cat": 0}}, "flat has no labels to map"),
        ("flat/a.png", {"split": "test"}, "a.png has no splits"),
        ("classes", {"split": "test"}, "classes has no splits"),
        ("splits", {}, r"splits has several splits \(train, val\): choose one with --split"),
        ("splits", {"split": "test"}, "splits has no split 'test'; it has: train, val"),
        ("mixed", {}, r"mixed holds both image files \(such as a.png\) and class folders \(such as cat\)"),
        ("hollow", {}, "the class folder dog of hollow holds no image files"),
        ("halves", {}, r"halves has several splits \(test, train\)"),
        ("halves", {"split": "val"}, "halves has no split 'val'; it has: test, train"),
        ("halves/train.parquet", {"split": "test"}, "has no split 'test'; it has: train"),
        ("halves/test.parquet", {"label": "kind"}, "no label column 'kind'; columns that can hold labels: label"),
        ("shards", {}, "shards has only 1 of the 2 files of split 'train'"),
        ("two_labels.parquet", {}, r"several label columns \(fine_label, coarse_label\): choose one with --label"),
        ("no_images.parquet", {}, "no_images.parquet has no image columns; its columns are text, label"),
        ("no_rows.parquet", {}, "holds no images"),
        ("hidden.parquet", {"label": "label"}, "has no labels in 'label': all of them are negative or null"),
        ("partly.parquet", {}, "1 of the 2 images of partly.parquet have no label"),
        ("corrupt.parquet", {}, "corrupt.parquet cannot be read as Parquet"),
        ("corrupt.npz", {}, "corrupt.npz is not a .npz file"),
        ("uneven.npz", {}, "uneven.npz has 2 images and 3 labels"),
        ("foreign.npz", {}, "foreign.npz has no images: its keys are weights"),
        ("plain.npz", {"split": "test"}, "plain.npz has no splits"),
        ("plain.npz", {"label": "y"}, "plain.npz has no labels under 'y'; its keys are images"),
        ("splits.npz", {}, r"splits.npz has several splits \(test, train\)"),
        ("splits.npz", {"split": "val"}, "splits.npz has no split 'val'"),
        ("objects.npz", {}, "objects.npz cannot be read as plain arrays"),
        ([], {}, "images holds no images"),
        ([3], {}, "hold a int: give Pillow images, arrays or tensors"),
        (np.zeros((4, 4)), {}, "have the shape 4x4"),
        (np.zeros((2, 5, 4, 6)), {}, "have the shape 2x5x4x6"),
        (np.full((1, 2, 2), 255.0), {}, r"run from 255 to 255: floats must lie in \[0, 1\]"),
        (np.full((1, 2, 2), np.nan), {}, r"run from nan to nan: floats must lie in \[0, 1\]"),
        (np.full((1, 2, 2), -1), {}, r"integers must lie in \[0, 255\]"),
        (np.zeros((1, 2, 2), complex), {}, "hold complex128 values"),
        ((np.zeros((2, 4, 4)), [0, 1, 2]), {}, "2 images were given with 3 labels"),
        (np.zeros((2, 4, 4)), {"split": "test"}, "the given images has no splits"),
    ],
)
def test_a_mistake_is_said_in_one_sentence(place: Path, source: object, options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        images(source, **options)
    assert "\n" not in str(raised.value)
    assert str(raised.value).endswith(".")


def test_what_is_no_source_is_named_by_its_type() -> None:
    with pytest.raises(UserError, match="cannot be read from a float: give a path, an array or Pillow images"):
        _open(3.5, SourceChoice())


def test_without_the_datasets_library_the_hub_says_what_to_install(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"'owner/name' is not a path here, .* pip install 'vitscope\[hub\]'"):
        images("owner/name")
