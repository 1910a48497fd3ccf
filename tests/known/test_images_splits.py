"""Folders are splits, classes, or asked for."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitscope.cli.request import first_split
from vitscope.cli.train import _images
from vitscope.data import Images, images
from vitscope.measurement.errors import UserError


def grow(root: Path, *paths: str) -> Path:
    """A folder of one-pixel pictures, and empty folders where a path ends in a slash."""
    for number, path in enumerate(paths):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        if path.endswith("/"):
            (root / path).mkdir(exist_ok=True)
        else:
            Image.new("L", (1, 1), number % 256).save(root / path, format="PNG")
    return root


def tree(*folders: str) -> tuple[str, ...]:
    """Two pictures in each of these folders."""
    return tuple(f"{folder}/{name}.png" for folder in folders for name in "ab")


def found(source: Images) -> tuple[tuple[str, ...] | None, int]:
    return source.classes, len(source)


@pytest.mark.parametrize(
    "splits",
    [
        ("train", "holdout"),
        ("train", "val", "extra"),
        ("fold_a", "fold_b"),
        ("Training", "Hold-out"),
        ("train2017", "val2017"),
        ("seg_train", "seg_test"),
        ("odd", "even"),
    ],
    ids="-".join,
)
def test_folders_that_hold_the_same_classes_are_splits(tmp_path: Path, splits: tuple[str, ...]) -> None:
    root = grow(tmp_path, *tree(*(f"{split}/{name}" for split in splits for name in ("cat", "dog"))))
    with pytest.raises(UserError, match="choose one with --split"):
        images(root)
    assert found(images(root, split=splits[0])) == (("cat", "dog"), 4)
    assert found(images(root, label="folder")) == (tuple(sorted(splits)), 4 * len(splits))
    with pytest.raises(UserError, match="has no split 'other'; it has: "):
        images(root, split="other")


@pytest.mark.parametrize(
    "folders",
    [
        ("train", "holdout"),
        ("train", "rest"),
        ("seg_train", "seg_test", "seg_pred"),
        ("bus", "car", "train"),
        ("query", "gallery"),
        ("gallery", "probe_set"),
        ("support", "query"),
        ("fold1", "fold2", "fold3"),
        ("fold_a", "fold_b"),
        ("labeled", "unlabeled"),
        ("public_test", "private_test"),
    ],
    ids="-".join,
)
def test_flat_folders_some_of_which_are_called_as_splits_are_asked_for(tmp_path: Path, folders: tuple) -> None:
    root = grow(tmp_path, *tree(*folders))
    with pytest.raises(UserError, match=r"choose one with --split|splits: .*--label folder"):
        images(root)
    assert found(images(root, split=folders[0])) == (None, 2)
    assert found(images(root, label="folder"))[0] == tuple(sorted(folders))


@pytest.mark.parametrize(
    ("paths", "classes"),
    [
        (tree("cat", "dog"), ("cat", "dog")),
        (tree("n01443537/images", "n01440764/images"), ("n01440764", "n01443537")),
        (tree("cat/2020", "dog/2021"), ("cat", "dog")),
        ((*tree("cat/2020", "dog/2020"), "cat/c.png"), ("cat", "dog")),
        (tree("bullet_train", "car"), ("bullet_train", "car")),
        (tree("church", "gallery"), ("church", "gallery")),
        (tree("art_gallery", "gallery"), ("art_gallery", "gallery")),
        ((*tree("a", "c"), "b/"), ("a", "b", "c")),
        ((*tree("a"), "b/deep/", "c/"), ("a", "b", "c")),
        (tree("images/cat", "images/dog"), ("cat", "dog")),
        (tree("cat"), ("cat",)),
    ],
    ids=[
        "plain",
        "tiny-imagenet",
        "years",
        "mixed",
        "bullet",
        "gallery",
        "galleries",
        "empty",
        "deep-empty",
        "wrapper",
        "one",
    ],
)
def test_class_folders(tmp_path: Path, paths: tuple, classes: tuple) -> None:
    assert images(grow(tmp_path, *paths)).classes == classes


def test_links_to_folders_are_followed_once_and_never_upward(tmp_path: Path) -> None:
    root = grow(tmp_path / "set", *tree("cat", "dog"))
    elsewhere = grow(tmp_path / "elsewhere", "deep/a.png", "b.png")
    (root / "cat" / "more").symlink_to(elsewhere)
    (root / "cat" / "again").symlink_to(elsewhere / "deep")
    (root / "dog" / "up").symlink_to(root)
    (root / "dog" / "itself").symlink_to(root / "dog")
    ours = images(root)
    assert (ours.classes, np.bincount(ours.labels).tolist()) == (("cat", "dog"), [4, 2])
    assert ours.pictures.files == (
        "cat/a.png",
        "cat/again/a.png",
        "cat/b.png",
        "cat/more/b.png",
        "dog/a.png",
        "dog/b.png",
    )


def test_pictures_in_a_folder_called_images_have_no_class(tmp_path: Path) -> None:
    assert found(images(grow(tmp_path, *tree("images")))) == (None, 2)
    assert found(images(grow(tmp_path / "set", *tree("train/images", "val/images")), split="val")) == (None, 2)


def test_a_single_folder_of_folders_is_asked_for(tmp_path: Path) -> None:
    root = grow(tmp_path, *tree("letters/A", "letters/B"))
    with pytest.raises(UserError, match=r"a single folder, letters, with folders of its own \(A, B\): name that one"):
        images(root)
    assert images(root, label="folder").classes == ("letters",)


def test_classes_that_share_their_folders_can_be_told_from_splits(tmp_path: Path) -> None:
    root = grow(tmp_path, *tree("cat/day", "cat/night", "dog/day", "dog/night"))
    with pytest.raises(UserError, match=r"\(cat, dog\) each hold such folders as day, night.*--label folder"):
        images(root)
    assert found(images(root, label="folder")) == (("cat", "dog"), 8)
    grow(root, "cat/a.png")  # an image that strayed changes nothing
    with pytest.raises(UserError, match="each hold such folders"):
        images(root)


def test_empty_folders_and_those_of_other_files_beside_splits_do_not_count(tmp_path: Path) -> None:
    root = grow(tmp_path, *tree("train/cat", "train/dog", "val/cat", "val/dog"), "scripts/")
    (root / "scripts" / "run.py").write_text("")
    assert found(images(root, split="val")) == (("cat", "dog"), 4)


def test_imagenet_as_it_is_unpacked(tmp_path: Path) -> None:
    root = grow(tmp_path / "ILSVRC" / "Data" / "CLS-LOC", *tree("val/n01440764", "val/n02102040", "train/n01440764"))
    for source, split in ((root, "val"), (root / "val", None)):
        shown = images(source, split=split)
        assert shown.classes == ("n01440764", "n02102040")
        assert len(shown) == 4
    grow(tmp_path / "flat", "val/ILSVRC2012_val_00000001.JPEG", "val/ILSVRC2012_val_00000002.JPEG")
    assert found(images(tmp_path / "flat" / "val")) == (None, 2)


@pytest.mark.parametrize("clutter", ["__MACOSX", ".ipynb_checkpoints", "@eaDir", "$RECYCLE.BIN", "lost+found"])
def test_what_systems_leave_is_no_class(tmp_path: Path, clutter: str) -> None:
    root = grow(tmp_path, *tree("cat", "dog", clutter, f"cat/{clutter}"), "cat/._a.png")
    for name in ("Thumbs.db", "desktop.ini", "cat/Thumbs.db"):
        (root / name).write_bytes(b"")
    assert found(images(root)) == (("cat", "dog"), 4)


@pytest.mark.parametrize(
    ("paths", "pictures"),
    [
        (tree("images", "masks"), "images"),
        (tree("JPEGImages", "SegmentationClass"), "JPEGImages"),
        ((*tree("images/train", "images/val"), "labels/"), "images/train"),
        ((*tree("train2017", "val2017"), "annotations/"), "val2017"),
    ],
    ids=["masks", "voc", "yolo", "coco"],
)
def test_annotations_of_other_tasks_are_refused_by_name(tmp_path: Path, paths: tuple, pictures: str) -> None:
    root = grow(tmp_path, *paths)
    with pytest.raises(UserError, match=r"beside their annotations .* as for segmentation or detection"):
        images(root)
    assert found(images(root / pictures)) == (None, 2)


@pytest.mark.parametrize(("name", "kind"), [("a.mp4", "videos"), ("a.WAV", "sounds")])
def test_videos_and_sounds_are_refused_by_name(tmp_path: Path, name: str, kind: str) -> None:
    for path in (tmp_path / "cat" / name, tmp_path / "dog" / name):
        path.parent.mkdir()
        path.write_bytes(b"")
    for source in (tmp_path, tmp_path / "cat"):
        with pytest.raises(UserError, match=rf"holds {kind} \(such as .*\), no images"):
            images(source)
    with pytest.raises(UserError, match="is a video or a sound"):
        images(tmp_path / "cat" / name)


def test_training_takes_a_split_and_never_learns_one(tmp_path: Path) -> None:
    root = grow(tmp_path, *tree(*(f"{split}/{name}" for split in ("train", "holdout") for name in ("cat", "dog"))))
    options = {"label": None}
    assert _images(str(root), ("train", None), "--split", **options).classes == ("cat", "dog")
    with pytest.raises(
        UserError, match=r"several splits \(holdout, train\)|may be splits: choose one with --test-split"
    ):
        _images(str(root), ("test", "validation", "val", None), "--test-split", **options)
    plain = grow(tmp_path / "plain", *tree("cat", "dog"))
    assert _images(str(plain), ("train", None), "--split", **options).classes == ("cat", "dog")
    with pytest.raises(UserError, match="no label column 'kind'"):
        _images(str(plain), ("train", None), "--split", label="kind")


def test_a_split_is_passed_over_only_where_there_is_none_of_its_name() -> None:
    def read(split: str | None) -> Images:
        return images("digits", split=split, max_broken=-1 if split == "train" else 0)

    assert first_split(("val", "test"), read).name == "digits/test"
    assert first_split(("val", "dev"), read) is None
    with pytest.raises(UserError, match="--max-broken cannot be negative"):
        first_split(("train", "test"), read)
