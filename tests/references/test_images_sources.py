"""Every kind of source against what another library, or the data it was written from, says it holds."""

import io
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch.utils.data import TensorDataset
from torchvision.datasets import ImageFolder

from vitscope.data import BrokenImage, Images, images
from vitscope.measurement.errors import UserError

GREY = np.random.default_rng(0).integers(0, 256, (12, 5, 6), dtype=np.uint8)
COLOUR = np.random.default_rng(1).integers(0, 256, (12, 5, 6, 3), dtype=np.uint8)
LABELS = np.arange(12) % 3
NAMES = ("ant", "bee", "cat")


def stacked(source: Images) -> np.ndarray:
    return np.stack([np.asarray(source.read(index)) for index in range(len(source))])


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def write_hub_file(path: Path, rows: slice, group: int = 2) -> None:
    """A file as the hub writes it: images as {bytes, path}, class names in the schema's metadata."""
    cells = [{"bytes": png(pixels), "path": None} for pixels in COLOUR[rows]]
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": list(NAMES)}}
    described = json.dumps({"info": {"features": features}})
    kinds = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"image": pa.array(cells, kinds), "label": pa.array(LABELS[rows].tolist(), pa.int64())})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.replace_schema_metadata({"huggingface": described}), path, row_group_size=group)


@pytest.fixture
def class_folders(tmp_path: Path) -> Path:
    for number in range(12):
        folder = tmp_path / "photos" / NAMES[LABELS[number]] / ("deep" * (number % 2))
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(COLOUR[number]).save(folder / f"{number}.png")
    (tmp_path / "photos" / "ant" / "notes.txt").write_text("no image")
    return tmp_path / "photos"


@pytest.fixture
def hub_folder(tmp_path: Path) -> Path:
    write_hub_file(tmp_path / "set" / "data" / "train-00000-of-00002.parquet", slice(0, 5))
    write_hub_file(tmp_path / "set" / "data" / "train-00001-of-00002-0a1b2c.parquet", slice(5, 10))
    write_hub_file(tmp_path / "set" / "data" / "test-00000-of-00001.parquet", slice(10, 12))
    return tmp_path / "set"


def test_class_folders_agree_with_torchvision(class_folders: Path) -> None:
    theirs, ours = ImageFolder(str(class_folders)), images(class_folders)
    assert ours.classes == tuple(theirs.classes)
    names = [str(class_folders / ours.pictures.name(index)) for index in range(len(ours))]
    assert dict(zip(names, ours.labels.tolist(), strict=True)) == dict(theirs.samples)
    reference = {path: np.asarray(theirs.loader(path)) for path, _ in theirs.samples}
    assert all(np.array_equal(picture, reference[name]) for picture, name in zip(stacked(ours), names, strict=True))


def test_files_come_in_order_of_their_names(class_folders: Path) -> None:
    ours = images(class_folders)
    assert ours.pictures.files[:4] == ("ant/0.png", "ant/6.png", "ant/deep/3.png", "ant/deep/9.png")
    assert list(ours.pictures.files) == sorted(ours.pictures.files)


def test_hidden_files_and_folders_are_passed_over(class_folders: Path) -> None:
    (class_folders / ".cache").mkdir()
    for place in (".", ".cache", "ant"):
        (class_folders / place / ".hidden.png").write_bytes(b"")
    assert (len(images(class_folders)), images(class_folders).classes) == (12, NAMES)


def test_a_folder_of_splits_holds_class_folders(class_folders: Path) -> None:
    (class_folders.parent / "whole").mkdir()
    class_folders.rename(class_folders.parent / "whole" / "val")
    ours = images(class_folders.parent / "whole")  # the only split needs no name
    assert (ours.name, len(ours), ours.label_source) == ("whole/val", 12, "class folders")


def test_a_flat_folder_and_a_single_file_have_no_labels(class_folders: Path) -> None:
    flat, single = images(class_folders / "bee" / "deep"), images(class_folders / "bee" / "deep" / "1.png")
    assert (flat.labels, flat.classes, len(flat)) == (None, None, 2)
    assert np.array_equal(stacked(single), COLOUR[1:2])


@pytest.mark.parametrize("where", [".", "data", "data/train-*.parquet"], ids=["folder", "data", "glob"])
def test_hub_files_are_read_in_order_across_row_groups(hub_folder: Path, where: str) -> None:
    ours = images(str(hub_folder / where), split="train")
    assert np.array_equal(stacked(ours), COLOUR[:10])
    assert ours.labels.tolist() == LABELS[:10].tolist()
    assert (ours.classes, ours.label_source) == (NAMES, "column 'label'")


def test_row_groups_are_read_in_any_order_and_after_pickling(hub_folder: Path) -> None:
    ours = pickle.loads(pickle.dumps(images(hub_folder, split="train")))
    for index in (9, 0, 4, 5, 8, 1, 9, 2):
        assert np.array_equal(ours.read(index), COLOUR[index])
    assert ours.pictures.name(7) == "train-00001-of-00002-0a1b2c.parquet, row 2"


def test_only_the_row_groups_in_use_are_in_memory(hub_folder: Path) -> None:
    write_hub_file(hub_folder / "data" / "big.parquet", slice(0, 12), group=1)
    ours = images(hub_folder / "data" / "big.parquet")
    stacked(ours)
    assert len(ours.pictures.recent._kept) == 4


def test_a_folder_of_numbered_files_is_a_split(tmp_path: Path) -> None:
    write_hub_file(tmp_path / "set" / "test" / "0000.parquet", slice(0, 4))
    assert images(tmp_path / "set").name == "set/test"


def test_cells_may_be_bytes_or_name_a_file_and_an_empty_one_is_broken(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(COLOUR[0]))
    kinds = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    cells = [{"bytes": None, "path": "a.png"}, None, {"bytes": None, "path": "b.png"}]
    pq.write_table(pa.table({"image": pa.array(cells, kinds)}), tmp_path / "named.parquet")
    pq.write_table(pa.table({"img": [png(COLOUR[1])], "thumbnail": [b""]}), tmp_path / "plain.parquet")
    named = images(tmp_path / "named.parquet")
    assert named.labels is None
    assert np.array_equal(named.read(0), COLOUR[0])
    assert np.array_equal(images(tmp_path / "plain.parquet").read(0), COLOUR[1])
    with pytest.raises(BrokenImage, match=r"named\.parquet, row 1: the cell is empty"):
        named.read(1)
    with pytest.raises(BrokenImage, match=r"row 2: b\.png: No such file"):
        named.read(2)


def test_string_labels_are_numbered_by_name(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [b"", b"", b""], "label": ["dog", "cat", "dog"]}), tmp_path / "a.parquet")
    ours = images(tmp_path / "a.parquet")
    assert (ours.labels.tolist(), ours.classes) == ([1, 0, 1], ("cat", "dog"))


@pytest.mark.parametrize(
    ("keys", "split", "name"),
    [
        (("images", "labels"), None, "set"),
        (("x", "y"), None, "set"),
        (("x_test", "y_test"), "test", "set/test"),
        (("test_images", "test_labels"), None, "set/test"),
    ],
)
def test_npz_files_of_the_usual_keys(tmp_path: Path, keys: tuple[str, str], split: str | None, name: str) -> None:
    np.savez(tmp_path / "set.npz", **{keys[0]: COLOUR, keys[1]: LABELS[:, None], "classes": np.array(NAMES)})
    ours = images(tmp_path / "set.npz", split=split)
    assert (ours.name, ours.classes, ours.label_source) == (name, NAMES, f"key '{keys[1]}'")
    assert ours.labels.tolist() == LABELS.tolist()
    assert np.array_equal(stacked(pickle.loads(pickle.dumps(ours))), COLOUR)
    assert len(pickle.dumps(ours)) < 3000


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (GREY, GREY),
        (COLOUR, COLOUR),
        (COLOUR.transpose(0, 3, 1, 2), COLOUR),
        (GREY[:, None], GREY),
        (COLOUR / 255, COLOUR),
        (COLOUR.astype(np.int64), COLOUR),
        (GREY.astype(np.uint16) * 257, GREY),
        (torch.from_numpy(COLOUR).permute(0, 3, 1, 2), COLOUR),
        (torch.from_numpy(COLOUR).permute(0, 3, 1, 2).float() / 255, COLOUR),
        (torch.from_numpy(COLOUR).permute(0, 3, 1, 2).double().div(255).requires_grad_(), COLOUR),
        ([Image.fromarray(pixels) for pixels in COLOUR], COLOUR),
        ([torch.from_numpy(pixels).permute(2, 0, 1) for pixels in COLOUR], COLOUR),
        (list(GREY), GREY),
    ],
    ids=[
        "grey",
        "colour",
        "channels-first",
        "one-channel",
        "floats",
        "int64",
        "uint16",
        "tensor",
        "float-tensor",
        "double-tensor",
        "pillow",
        "tensors",
        "arrays",
    ],
)
def test_arrays_tensors_and_lists_hold_what_they_were_given(source: object, expected: np.ndarray) -> None:
    ours = images((source, torch.from_numpy(LABELS)))
    assert np.array_equal(stacked(ours), expected)
    assert (ours.labels.tolist(), ours.label_source) == (LABELS.tolist(), "the labels given")
    assert images(source).labels is None


@pytest.mark.parametrize(
    ("source", "size"), [(np.zeros((2, 3, 5, 3), np.uint8), (5, 3)), (torch.zeros(2, 3, 5, 3), (3, 5))]
)
def test_channels_come_last_in_arrays_and_first_in_tensors_where_both_may_be(source: object, size: tuple) -> None:
    assert images(source).read(0).size == size


@pytest.mark.parametrize("pixels", [COLOUR[0], torch.zeros(3, 32, 32), np.zeros((3, 9, 8)), np.zeros((28, 28, 1))])
def test_three_axes_that_may_be_one_picture_are_asked_for(tmp_path: Path, pixels: object) -> None:
    for source in (pixels, (pixels, [2])):
        with pytest.raises(UserError, match=r"may be one picture or \d+ grey ones: give images\[None\] for one"):
            images(source)
    assert len(images((pixels, list(range(len(pixels)))))) == len(images(pixels[..., None])) == len(pixels)
    assert len(images(pixels[None])) == 1
    np.savez(tmp_path / "a.npz", images=np.asarray(pixels))
    with pytest.raises(UserError, match="may be one picture or"):
        images(tmp_path / "a.npz")


def test_a_single_pillow_image_is_one_picture() -> None:
    picture = Image.fromarray(COLOUR[0])
    assert np.array_equal(stacked(images(picture)), COLOUR[:1])
    assert images((picture, [2])).labels.tolist() == [2]


def test_a_fourth_channel_is_said_to_be_transparency(tmp_path: Path) -> None:
    clear = np.concatenate([COLOUR, COLOUR[..., :1]], axis=-1)
    np.savez(tmp_path / "a.npz", images=clear)
    items = TensorDataset(torch.from_numpy(clear).permute(0, 3, 1, 2))
    for source in (clear, list(clear), torch.from_numpy(clear).permute(0, 3, 1, 2), tmp_path / "a.npz", items):
        assert "fourth channel" in images(source).notes[0]
    assert images(COLOUR).notes == images(list(COLOUR)).notes == ()


def test_npz_files_of_other_keys_and_names_in_bytes(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", train_images=COLOUR, train_target=LABELS, classes=np.array([b"ant", b"bee", b"cat"]))
    assert (images(tmp_path / "a.npz").labels.tolist(), images(tmp_path / "a.npz").classes) == (LABELS.tolist(), NAMES)
    np.savez(tmp_path / "b.npz", images=COLOUR, species=LABELS)
    assert images(tmp_path / "b.npz").notes[0].endswith("--label chooses one of: species.")
    assert images(tmp_path / "b.npz", label="species").labels.tolist() == LABELS.tolist()


def test_stray_files_beside_class_folders_are_passed_over(class_folders: Path) -> None:
    pq.write_table(pa.table({"id": ["a", "b"], "embedding": [0.1, 0.2]}), class_folders / "embeddings.parquet")
    (class_folders / "state.json").write_text("{}")
    assert (images(class_folders).classes, len(images(class_folders))) == (NAMES, 12)


def test_digits_are_scikit_learns() -> None:
    theirs = load_digits()
    ours = images("digits", split="all")
    assert np.array_equal(stacked(ours), np.rint(theirs.images * 255 / 16).astype(np.uint8))
    assert ours.labels.tolist() == theirs.target.tolist()
    assert ours.classes == tuple("0123456789")


def test_the_splits_of_digits_are_disjoint_and_stratified_and_test_is_the_default() -> None:
    train, test, everything = (images("digits", split=split) for split in ("train", "test", "all"))
    assert images().fingerprint == images(None, split=None).fingerprint == test.fingerprint
    assert (np.bincount(train.labels) + np.bincount(test.labels)).tolist() == np.bincount(everything.labels).tolist()
    assert (np.bincount(test.labels) == np.bincount(everything.labels) // 4).all()
    last = np.flatnonzero(everything.labels == 3)[-44:]
    assert np.array_equal(stacked(test)[test.labels == 3][-44:], stacked(everything)[last])


def test_the_hub_reader_agrees_with_the_parquet_reader(hub_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", hub_folder.parent / "cache")
    (hub_folder.parent / "work" / "owner").mkdir(parents=True)
    hub_folder.rename(hub_folder.parent / "work" / "owner" / "set")
    monkeypatch.chdir(hub_folder.parent / "work")  # the library looks for a folder of that name first
    ours, theirs = images("hub:owner/set", split="train"), images("owner/set", split="train")
    assert (ours.name, ours.classes, ours.label_source) == ("owner/set/train", NAMES, "column 'label'")
    assert ours.labels.tolist() == theirs.labels.tolist()
    assert np.array_equal(stacked(pickle.loads(pickle.dumps(ours))), stacked(theirs))
    assert ours.fingerprint == theirs.fingerprint
    with pytest.raises(UserError, match=r"the hub data set owner/set has no such split: .*val"):
        images("hub:owner/set", split="val")
    with pytest.raises(UserError, match=r"hub data set owner/set has several splits \(test, train\)"):
        images("hub:owner/set")


def test_a_hub_out_of_reach_is_said_in_one_sentence(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    code = """
from vitscope.data.load import UserError, images
for source in ("owner/name", "hf://owner/name"):
    try: images(source)
    except UserError as error: print(error)
"""
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=tmp_path)
    bare, prefixed = done.stdout.splitlines()
    reason = "he data set 'owner/name' could not be read from the Hugging Face hub ("
    assert bare.startswith("'owner/name' is not a path here, and t" + reason)
    assert prefixed.startswith("t" + reason)
    assert bare.endswith("): check name and network.")
