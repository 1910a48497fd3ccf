"""Layouts that other libraries write, against what these libraries read from them."""

import csv
import io
import json
import pickle
import tarfile
from pathlib import Path

import cloudpickle
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch.utils.data import (
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    SubsetRandomSampler,
    WeightedRandomSampler,
)
from torchvision import transforms
from torchvision.datasets import CIFAR10, MNIST, DatasetFolder, FakeData, ImageFolder, ImageNet
from torchvision.datasets.vision import StandardTransform

from vitscope.data import BrokenImage, Images, images
from vitscope.measurement.errors import UserError

datasets = pytest.importorskip("datasets")

COUNT, NAMES = 12, ("ant", "bee", "cat")
COLOUR = np.random.default_rng(0).integers(0, 256, (COUNT, 5, 6, 3), dtype=np.uint8)
LABELS = (np.arange(COUNT) % 3).tolist()


def png(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(COLOUR[number]).save(buffer, format="PNG")
    return buffer.getvalue()


def stacked(source: Images) -> np.ndarray:
    return np.stack([np.asarray(picture) for picture in source])


def check(source: Images, rows: slice | list[int] = slice(None), classes: tuple | None = NAMES) -> None:
    """The pictures and labels of these rows, here, after pickling, and in the order given."""
    for each in (source, pickle.loads(cloudpickle.dumps(source))):
        assert np.array_equal(stacked(each), COLOUR[rows])
        assert (each.labels.tolist(), each.classes) == (np.array(LABELS)[rows].tolist(), classes)
        assert each.fingerprint == source.fingerprint


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder with the pictures `0.png` ... below `pictures/`."""
    (tmp_path / "set" / "pictures").mkdir(parents=True)
    for number in range(COUNT):
        (tmp_path / "set" / "pictures" / f"{number}.png").write_bytes(png(number))
    return tmp_path / "set"


def rows(path: str = "pictures/{}.png", names: tuple = NAMES) -> list[dict]:
    return [{"file_name": path.format(n), "label": names[LABELS[n]], "width": 6.5} for n in range(COUNT)]


def write_table(path: Path, records: list[dict]) -> None:
    if path.suffix in (".csv", ".tsv"):
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(records[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(records)
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(records), path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(records))
    else:
        path.write_text("\n".join(map(json.dumps, records)))


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_an_image_folder_with_metadata_agrees_with_datasets(pictures: Path, suffix: str) -> None:
    write_table(pictures / f"metadata.{suffix}", rows())
    theirs = datasets.load_dataset("imagefolder", data_dir=str(pictures), split="train", cache_dir=str(pictures / ".c"))
    ours = images(pictures)
    check(ours)
    assert np.array_equal(stacked(ours), np.stack([np.asarray(row["image"]) for row in theirs]))
    assert [NAMES[label] for label in ours.labels] == theirs["label"]
    check(images(theirs))
    assert ours.notes == ()


def test_metadata_beside_the_pictures_of_each_split(pictures: Path) -> None:
    for split, part in (("train", range(8)), ("test", range(8, COUNT))):
        (pictures / "data" / split / "deep").mkdir(parents=True)
        for number in part:
            (pictures / "pictures" / f"{number}.png").rename(pictures / "data" / split / "deep" / f"{number}.png")
        write_table(pictures / "data" / split / "metadata.jsonl", [rows("deep/{}.png")[number] for number in part])
    (pictures / "pictures").rmdir()
    with pytest.raises(UserError, match=r"several splits \(test, train\)"):
        images(pictures)
    check(images(pictures, split="test"), slice(8, COUNT))
    assert images(pictures, split="train").name == "set/train"
    check(images(pictures / "data" / "train"), slice(0, 8))


def test_metadata_names_what_it_does_not_use(pictures: Path) -> None:
    write_table(
        pictures / "metadata.csv", [{"file_name": row["file_name"], "kind": row["label"]} for row in rows()[:6]]
    )
    plain = images(pictures)
    assert plain.labels is None
    assert "--label chooses one of: kind" in plain.notes[0]
    assert plain.notes[1] == f"6 image files of {pictures} are in no row of its tables and were left out."
    check(images(pictures, label="kind"), slice(0, 6))
    assert images(pictures, label="none").labels is None
    assert images(pictures, label="folder").classes == ("pictures",)


def test_metadata_without_file_names_is_passed_over_with_a_word(pictures: Path) -> None:
    write_table(pictures / "metadata.csv", [{"id": 3, "label": "ant"}])
    found = images(pictures)
    assert (len(found), found.labels) == (COUNT, None)
    assert found.notes == (f"metadata.csv in {pictures} has no column file_name and was skipped.",)


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "json", "parquet"])
def test_tables_of_paths(pictures: Path, suffix: str) -> None:
    records = [
        {"image": row["file_name"], "split": "ab"[n // 8], "label": row["label"]} for n, row in enumerate(rows())
    ]
    write_table(pictures / f"list.{suffix}", records)
    with pytest.raises(UserError, match=r"several splits \(a, b\)"):
        images(pictures / f"list.{suffix}")
    check(images(pictures / f"list.{suffix}", split="b"), slice(8, COUNT))
    check(images(pd.DataFrame(records), split="a", root=pictures), slice(0, 8))


@pytest.mark.parametrize(
    ("column", "cells", "split"),
    [
        ("Split", ["train", "test"], "test"),
        ("set", ["Train", "Test"], "Test"),
        ("subset", ["training", "holdout"], "holdout"),
        ("partition", ["0", "1"], "1"),
        ("fold", ["1", "2"], "2"),
        ("Usage", ["Training", "PublicTest"], "PublicTest"),
        ("is_train", ["1", "0"], "not train"),
        ("is_train", ["True", "False"], "not train"),
    ],
)
def test_columns_that_are_splits_whatever_they_are_called(
    pictures: Path, column: str, cells: list[str], split: str
) -> None:
    records = [
        {"file_name": row["file_name"], "label": row["label"], column: cells[n // 8]} for n, row in enumerate(rows())
    ]
    write_table(pictures / "list.csv", records)
    write_table(pictures / "metadata.csv", records)
    held = {"image": [png(n) for n in range(COUNT)], "label": LABELS, column: [cells[n // 8] for n in range(COUNT)]}
    pq.write_table(pa.table(held), pictures.parent / "rows.parquet")
    features = {
        "image": datasets.Image(),
        "label": datasets.ClassLabel(names=list(NAMES)),
        column: datasets.Value("string"),
    }
    made = datasets.Dataset.from_dict(
        held | {"image": [{"bytes": each} for each in held["image"]]}, datasets.Features(features)
    )
    made.save_to_disk(str(pictures.parent / "saved"))
    places = (pictures / "list.csv", pictures, pictures.parent / "rows.parquet", pictures.parent / "saved")
    for source in (*places, pd.DataFrame(records), made):
        with pytest.raises(UserError, match=r"has several splits \(.*\): choose one with --split"):
            images(source)
        ours = images(source, split=split, root=pictures if isinstance(source, pd.DataFrame) else None)
        check(ours, slice(8, COUNT), ours.classes)
        assert ours.name.endswith(f"/{split}")
    with pytest.raises(UserError, match=rf"train is one split, but its column '{column}' has several"):
        images(datasets.DatasetDict(train=made))
    (pictures.parent / "both").mkdir()
    for name in ("train", "test"):
        (pictures.parent / "both" / f"{name}.parquet").write_bytes((pictures.parent / "rows.parquet").read_bytes())
    with pytest.raises(UserError, match=rf"is one split, but its column '{column}' has several"):
        images(pictures.parent / "both", split="train")


def test_columns_that_are_no_splits_are_none_and_rows_without_one_are_asked_for(pictures: Path) -> None:
    records = [{"path": row["file_name"], "label": row["label"], "set": "ab"[n % 2]} for n, row in enumerate(rows())]
    write_table(pictures / "list.csv", records)
    check(images(pictures / "list.csv"))
    assert images(pictures / "list.csv", label="set").classes == ("a", "b")
    part = [
        {"file_name": row["file_name"], "label": row["label"], "split": "train" * (n < 8)}
        for n, row in enumerate(rows())
    ]
    write_table(pictures / "metadata.csv", part)
    write_table(pictures / "list.csv", part)
    for source in (pictures, pictures / "list.csv"):
        with pytest.raises(UserError, match=r"several splits \(None, train\)"):
            images(source)
        check(images(source, split="train"), slice(0, 8))


@pytest.mark.parametrize(
    ("header", "cells", "message"),
    [
        ("xmin,ymin,xmax,ymax,class", "0,0,3,3,ant", r"boxes \(detection\) in 'xmin', 'ymin', 'xmax', 'ymax'"),
        ("class,x,y,w,h", "ant,0,0,3,3", r"boxes \(detection\) in 'x', 'y', 'w', 'h'"),
        ("class,bbox_x1,bbox_y1,bbox_x2,bbox_y2", "ant,0,0,3,3", r"boxes \(detection\)"),
        ("label", "pictures/1.png", r"masks \(segmentation\) in 'label'"),
    ],
)
def test_tables_of_boxes_and_masks_are_refused_by_name(pictures: Path, header: str, cells: str, message: str) -> None:
    for name, path in (("list.csv", "path"), ("metadata.csv", "file_name")):
        (pictures / name).write_text(f"{path},{header}\npictures/0.png,{cells}\npictures/1.png,{cells}\n")
        source = pictures / name if name == "list.csv" else pictures
        with pytest.raises(UserError, match=rf"{message}.*--label none"):
            images(source)
        assert images(source, label="none").labels is None
        if "class" in header:
            assert images(source, label="class").classes == ("ant",)


def test_a_picture_in_rows_of_different_labels_is_refused(pictures: Path) -> None:
    for name, path in (("list.csv", "path"), ("metadata.csv", "file_name")):
        (pictures / name).write_text(f"{path},label\npictures/0.png,ant\npictures/0.png,bee\npictures/1.png,ant\n")
        for label in (None, "label"):
            with pytest.raises(UserError, match=r"gives pictures/0.png the labels 0 \(ant\) and 1 \(bee\)"):
                images(pictures / name if name == "list.csv" else pictures, label=label)


def write_parquet(path: Path, **columns: object) -> Path:
    pq.write_table(pa.table({"image": [png(n) for n in range(3)], **columns}), path)
    return path


@pytest.mark.parametrize(
    ("column", "labels"),
    [
        (pa.array([True, False, True]), [1, 0, 1]),
        (pa.array(["b", "a", "b"]).dictionary_encode(), [1, 0, 1]),
        (pa.array([2.0, 0.0, 1.0]), [2, 0, 1]),
        (pa.array([2.0, None, float("nan")]), "2 of the 3 images"),
        (pa.array([0.5, 1.0, 2.0]), "numbers that are no classes"),
    ],
    ids=["bool", "dictionary", "whole", "missing", "fractions"],
)
def test_label_columns_of_every_type_of_parquet(tmp_path: Path, column: object, labels: list[int] | str) -> None:
    path = write_parquet(tmp_path / "a.parquet", label=column)
    if isinstance(labels, list):
        assert images(path).labels.tolist() == labels
    else:
        with pytest.raises(UserError, match=labels):
            images(path)


@pytest.mark.skipif(not hasattr(pa, "string_view"), reason="this pyarrow has no string views")
def test_string_views_are_strings(tmp_path: Path) -> None:
    assert images(write_parquet(tmp_path / "a.parquet", label=pa.array(["b", "a", "b"], pa.string_view()))).classes == (
        "a",
        "b",
    )


def test_columns_that_might_be_labels_are_named(tmp_path: Path) -> None:
    assert (
        "--label chooses one of: species"
        in images(write_parquet(tmp_path / "a.parquet", species=["a", "b", "c"])).notes[0]
    )


def test_files_whose_labels_differ_are_refused(tmp_path: Path) -> None:
    first, second = (tmp_path / f"train-0000{number}-of-00002.parquet" for number in range(2))
    write_parquet(first, label=[0, 1, 2])
    write_parquet(second)
    for _ in range(2):
        with pytest.raises(UserError, match=r"do not have the same column 'label': .*no such column"):
            images(tmp_path)
        assert images(tmp_path, label="none").labels is None
        write_parquet(first)
        write_parquet(second, label=[0, 1, 2])
    for path, names in ((first, NAMES), (second, tuple(reversed(NAMES)))):
        in_memory().cast_column("label", datasets.ClassLabel(names=list(names))).to_parquet(str(path))
    with pytest.raises(
        UserError, match=r"'label': classes cat, bee, ant in train-00001.*, classes ant, bee, cat in another"
    ):
        images(tmp_path)


def test_tables_of_paths_in_several_files_of_which_one_has_no_labels(pictures: Path) -> None:
    for columns in (({"path": ["pictures/0.png"], "label": [0]}, {"path": ["pictures/1.png"]}), ({}, {})):
        for number, each in enumerate(columns):
            held = each or [{"path": ["pictures/0.png"]}, {"path": ["pictures/1.png"], "label": [0]}][number]
            pq.write_table(pa.table(held), pictures / f"train-0000{number}-of-00002.parquet")
        with pytest.raises(UserError, match=r"1 of the 2 images .* have no label"):
            images(pictures)


def test_numbers_of_a_table_are_class_numbers_unless_they_are_written_as_names(pictures: Path) -> None:
    for written, values, classes in (("{}", LABELS, None), ("00{}", LABELS, ("000", "001", "002"))):
        records = [{"path": f"pictures/{n}.png", "class": written.format(LABELS[n])} for n in range(COUNT)]
        write_table(pictures / "list.csv", records)
        ours = images(pictures / "list.csv")
        assert (ours.labels.tolist(), ours.classes) == (values, classes)


@pytest.mark.parametrize(
    ("cells", "labels"),
    [("0.0 1.0 2.0", [0, 1, 2]), ("1 0 2.", [1, 0, 2]), ("0 NaN 1", 1), ("0.0 NA 1", 1), ("ant NA bee", 1)],
)
def test_whole_numbers_and_missing_cells_of_a_table(pictures: Path, cells: str, labels: list[int] | int) -> None:
    lines = [f"pictures/{n}.png,{cell}" for n, cell in enumerate(cells.split())]
    (pictures / "list.csv").write_text("\n".join(["path,label", *lines]))
    if isinstance(labels, list):
        assert images(pictures / "list.csv").labels.tolist() == labels
    else:
        with pytest.raises(UserError, match=rf"{labels} of the 3 images .* have no label"):
            images(pictures / "list.csv")


def test_frames_with_what_pandas_has_for_nothing_or_a_name_twice(pictures: Path) -> None:
    paths = [str(pictures / "pictures" / f"{n}.png") for n in range(3)]
    for labels in (pd.array([0, None, 1], dtype="Int64"), pd.Categorical(["a", None, "b"]), [0.0, None, 1.0]):
        with pytest.raises(UserError, match="1 of the 3 images of the data frame have no label"):
            images(pd.DataFrame({"path": paths, "label": labels}))
    assert images(pd.DataFrame({"path": paths, "label": [0.0, 2.0, 1.0]})).labels.tolist() == [0, 2, 1]
    for several in ([{1}, {2}, {3}], [np.arange(2)] * 3):
        with pytest.raises(UserError, match="several labels an image"):
            images(pd.DataFrame({"path": paths, "label": several}))
    with pytest.raises(UserError, match="names a column twice; its columns are path, label, label"):
        images(pd.DataFrame([[paths[0], 0, 1]], columns=["path", "label", "label"]))


def test_a_table_without_a_first_row_of_names_is_refused(pictures: Path) -> None:
    (pictures / "list.csv").write_text("pictures/0.png,0\npictures/1.png,1\n")
    with pytest.raises(UserError, match=r"holds pictures/0\.png, but must name the columns: add a row"):
        images(pictures / "list.csv")


def test_lines_end_where_tables_say_so(pictures: Path) -> None:
    for end in ("\n", "\r\n", "\r"):
        text = f"path,label,text{end}pictures/0.png,0,a\u2028b\x85c{end}pictures/1.png,1,d{end}"
        (pictures / "list.csv").write_bytes(text.encode())
        assert images(pictures / "list.csv").labels.tolist() == [0, 1]
    (pictures / "list.jsonl").write_text('{"path": "pictures/0.png", "label": 1, "text": "a\u2028b"}\n')
    assert images(pictures / "list.jsonl").labels.tolist() == [1]


def test_a_frame_may_lead_anywhere_and_a_file_only_below_its_root(pictures: Path, tmp_path: Path) -> None:
    frame = pd.DataFrame({"path": [str(pictures / row["file_name"]) for row in rows()], "label": LABELS})
    check(images(frame), classes=None)
    frame.to_csv(pictures / "inside.csv", index=False)
    check(images(pictures / "inside.csv"), classes=None)
    (tmp_path / "elsewhere").mkdir()
    frame.to_csv(tmp_path / "elsewhere" / "list.csv", index=False)
    with pytest.raises(UserError, match=r"row 0 .* is not below .*: choose with --root"):
        images(tmp_path / "elsewhere" / "list.csv")
    check(images(tmp_path / "elsewhere" / "list.csv", root=tmp_path), classes=None)


def test_lists_of_paths(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [pictures / row["file_name"] for row in rows()]
    check(images((paths, [NAMES[label] for label in LABELS])))
    check(images((list(map(str, paths)), LABELS)), classes=None)
    assert np.array_equal(stacked(images(paths)), COLOUR)
    monkeypatch.chdir(pictures)
    assert np.array_equal(stacked(images([row["file_name"] for row in rows()])), COLOUR)
    assert np.array_equal(stacked(images(["3.png", "5.png"], root="pictures")), COLOUR[[3, 5]])


def in_memory() -> "datasets.Dataset":
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list(NAMES))})
    cells = [{"bytes": png(number), "path": None} for number in range(COUNT)]
    return datasets.Dataset.from_dict({"image": cells, "label": LABELS}, features=features)


def test_data_sets_in_memory_and_on_disk(tmp_path: Path) -> None:
    whole = in_memory()
    check(images(whole))
    check(images(whole.with_transform(lambda rows: {"image": [0] * len(rows["image"])})))
    check(images(whole.select([3, 1, 7])), [3, 1, 7])
    whole.save_to_disk(str(tmp_path / "one"), num_shards=3)
    check(images(tmp_path / "one"))
    whole.select([3, 1, 7]).save_to_disk(str(tmp_path / "some"))
    check(images(tmp_path / "some"), [3, 1, 7])
    both = datasets.DatasetDict({"train": whole.select(range(8)), "test": whole.select(range(8, COUNT))})
    both.save_to_disk(str(tmp_path / "both"))
    for source in (both, tmp_path / "both"):
        with pytest.raises(UserError, match=r"several splits \(test, train\)"):
            images(source)
        check(images(source, split="test"), slice(8, COUNT))
    assert len(pickle.dumps(images(tmp_path / "one"))) < 3000
    with pytest.raises(UserError, match="cannot be read in any order"):
        images(whole.to_iterable_dataset())


def write_tar(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def write_shards(folder: Path, labelled: str) -> None:
    for shard in range(3):
        members: dict[str, bytes] = {}
        for number in range(4 * shard, 4 * shard + 4):
            members[f"a.b/{number:03}.png"] = png(number)
            if labelled == "cls":
                members[f"a.b/{number:03}.cls"] = str(LABELS[number]).encode()
            elif labelled == "json":
                members[f"a.b/{number:03}.json"] = json.dumps({"label": NAMES[LABELS[number]], "width": 6}).encode()
        write_tar(folder / f"train-{shard:04}.tar", members)


def test_tars_of_webdataset_agree_with_datasets(tmp_path: Path) -> None:
    write_shards(tmp_path, "cls")
    check(images(tmp_path), classes=None)
    check(images(str(tmp_path / "train-{0000..0002}.tar")), classes=None)
    check(images(str(tmp_path / "train-000[12].tar")), slice(4, COUNT), None)
    check(images(tmp_path / "train-0001.tar"), slice(4, 8), None)
    files = sorted(map(str, tmp_path.glob("*.tar")))
    theirs = datasets.load_dataset("webdataset", data_files=files, split="train", cache_dir=str(tmp_path / ".c"))
    assert theirs["cls"] == images(tmp_path).labels.tolist()
    assert np.array_equal(stacked(images(tmp_path)), np.stack([np.asarray(row["png"]) for row in theirs]))


def test_tars_may_have_their_labels_in_json_or_have_none(tmp_path: Path) -> None:
    write_shards(tmp_path, "json")
    check(images(tmp_path))
    with pytest.raises(UserError, match="columns that can hold labels: label, width"):
        images(tmp_path, label="size")
    assert images(tmp_path, label="none").labels is None
    write_shards(tmp_path, "")
    assert (images(tmp_path).labels, images(tmp_path).notes) == (None, ())
    write_tar(tmp_path / "train-0000.tar", {"ant/0.png": png(0), "bee/1.png": png(1)})
    assert "were not taken as classes; unpack it" in images(tmp_path).notes[0]
    write_tar(tmp_path / "train-0000.tar", {"0.png": png(0), "0.json": b'{"objects": [{"bbox": [0]}]}'})
    with pytest.raises(UserError, match=r"boxes \(detection\) in 'objects'"):
        images(tmp_path)
    write_tar(tmp_path / "train-0000.tar", {"0.png": png(0), "1.png": png(1), "1.txt": b"a caption"})
    assert "--label chooses one of: txt" in images(tmp_path).notes[0]
    with pytest.raises(UserError, match=r"9 of the 10 images .* have no label"):
        images(tmp_path, label="txt")


@pytest.mark.parametrize(
    ("extension", "cells", "labels"),
    [
        ("cls", ["-1", "0"], "1 of the 2 images"),
        ("cls", ["NaN", "ant"], "1 of the 2 images"),
        ("cls", ["1.0", "0.0"], [1, 0]),
        ("cls", ["0,3", "1"], "several labels an image"),
        ("json", [{"label": None}, {"label": 1}], "1 of the 2 images"),
        ("json", [{"width": 8}, {"label": 1}], "1 of the 2 images"),
        ("json", [{"label": 1.0}, {"label": 0.0}], [1, 0]),
        ("json", [{"label": 1}, {"label": [0, 1]}], "several labels an image"),
        ("json", [{"label": 0.5}, {"label": 1}], "numbers that are no classes"),
    ],
    ids=repr,
)
def test_labels_of_tars_are_never_left_out_in_silence(
    tmp_path: Path, extension: str, cells: list, labels: list[int] | str
) -> None:
    members = {f"{n}.png": png(n) for n in range(2)}
    contents = [cell if isinstance(cell, str) else json.dumps(cell) for cell in cells]
    write_tar(tmp_path / "a.tar", members | {f"{n}.{extension}": each.encode() for n, each in enumerate(contents)})
    if isinstance(labels, list):
        assert images(tmp_path / "a.tar").labels.tolist() == labels
    else:
        with pytest.raises(UserError, match=labels):
            images(tmp_path / "a.tar")


def test_tars_of_several_splits_are_asked_for(tmp_path: Path) -> None:
    write_shards(tmp_path, "cls")
    (tmp_path / "train-0002.tar").rename(tmp_path / "val-0000.tar")
    with pytest.raises(UserError, match=r"several splits \(train, val\)"):
        images(tmp_path)
    check(images(tmp_path, split="val"), slice(8, COUNT), None)


@pytest.mark.parametrize(
    ("extensions", "message"),
    [
        (("jpg", "mask.png"), r"masks \(segmentation\) \(jpg, mask.png\)"),
        (("jpg", "png"), "several images a sample"),
        (("mp4", "cls"), "holds videos, no images"),
        (("flac", "txt"), "holds sounds, no images"),
        (("txt",), "holds no images: the extensions of its members are txt"),
    ],
)
def test_tars_of_other_tasks_are_refused_by_name(tmp_path: Path, extensions: tuple, message: str) -> None:
    write_tar(tmp_path / "a.tar", {f"0.{extension}": b"1" for extension in extensions})
    with pytest.raises(UserError, match=message):
        images(tmp_path / "a.tar")


@pytest.fixture
def class_folders(tmp_path: Path) -> Path:
    for number in range(COUNT):
        (tmp_path / "photos" / NAMES[LABELS[number]]).mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / NAMES[LABELS[number]] / f"{number:02}.png").write_bytes(png(number))
    return tmp_path / "photos"


BY_CLASS = sorted(range(COUNT), key=lambda number: (LABELS[number], number))


def test_torchvisions_image_folder_is_read_from_its_files(class_folders: Path) -> None:
    normalised = transforms.Compose([transforms.ToTensor(), transforms.Normalize([0.5], [0.2])])
    folder = ImageFolder(str(class_folders), normalised)
    ours = images(folder)
    check(ours, BY_CLASS)
    assert ours.notes == (
        "The transform of the data set ImageFolder was left out: the model brings its own preprocessing.",
    )
    assert folder.transform is normalised
    check(images(Subset(Subset(folder, [5, 2, 9, 0]), [1, 2])), [BY_CLASS[2], BY_CLASS[9]])
    loader = images(DataLoader(folder, batch_size=4, shuffle=True))
    check(loader, BY_CLASS)
    assert loader.notes[0] == "The images are those of the loader's data set, in its order, without its batches."
    check(images(DataLoader(folder, sampler=SubsetRandomSampler([7, 3]))), [BY_CLASS[3], BY_CLASS[7]])
    reverse = images(ImageFolder(str(class_folders), target_transform=lambda label: 2 - label))
    assert (reverse.labels.tolist(), reverse.classes) == ([2] * 4 + [1] * 4 + [0] * 4, None)


def test_torchvisions_image_folder_sorts_as_text_which_is_no_answer(tmp_path: Path) -> None:
    for number in range(1, 11):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "a.png").write_bytes(png(number))
    with pytest.raises(UserError, match=r"order .* is not certain"):
        images(ImageFolder(str(tmp_path))).for_classes(10, None)
    told = images(ImageFolder(str(tmp_path)), label_order="natural").for_classes(10, None)
    assert told.labels.tolist() == [0, 9, 1, 2, 3, 4, 5, 6, 7, 8]


def cifar(kind: type = CIFAR10) -> CIFAR10:
    """CIFAR-10 as torchvision has it in memory, without its files."""
    made = kind.__new__(kind)
    made.data, made.targets, made.classes = COLOUR, LABELS, list(NAMES)
    made.transform = made.transforms = made.target_transform = None
    return made


def test_torchvisions_arrays_are_read_as_they_are() -> None:
    made = cifar()
    check(images(made))
    made.transform = transforms.Compose([transforms.RandomCrop(3), transforms.ToTensor()])
    check(images(made))
    digits = MNIST.__new__(MNIST)
    digits.data, digits.targets = torch.from_numpy(COLOUR[..., 0]), torch.tensor(LABELS)
    digits.transform = digits.transforms = digits.target_transform = None
    ours = images(digits)
    assert np.array_equal(stacked(ours), COLOUR[..., 0])
    assert ours.for_classes(10, tuple("9876543210")).labels.tolist() == [9 - label for label in LABELS]
    fake = images(FakeData(3, (3, 4, 4), 10, transforms.ToTensor()))
    assert (len(fake), fake[0].size) == (3, (4, 4))


def test_a_subclass_with_items_of_its_own_is_read_by_them() -> None:
    class Halved(CIFAR10):
        def __getitem__(self, index: int) -> tuple:
            picture, label = super().__getitem__(index)
            return picture, 2 - label

        def __len__(self) -> int:
            return 5

    ours = images(cifar(Halved))
    assert np.array_equal(stacked(ours), COLOUR[:5])
    assert ours.labels.tolist() == [2 - label for label in LABELS[:5]]


class Listed(Dataset):
    """A data set of anybody's, of these items."""

    def __init__(self, items: list, transform: object = None) -> None:
        self.items, self.transform, self.given = items, transform, 0

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> object:
        self.given += 1
        return self.items[index]


def tensor(number: int) -> torch.Tensor:
    return torch.from_numpy(COLOUR[number]).permute(2, 0, 1)


@pytest.mark.parametrize(
    "item",
    [
        lambda n: (Image.fromarray(COLOUR[n]), LABELS[n]),
        lambda n: [COLOUR[n], torch.tensor(LABELS[n]), "a path"],
        lambda n: {"image": tensor(n), "label": np.int64(LABELS[n])},
        lambda n: (tensor(n) / 255, torch.tensor([LABELS[n]])),
    ],
    ids=["pillow", "array", "mapping", "floats"],
)
def test_data_sets_of_anybody(item: object) -> None:
    ours = images(Listed([item(number) for number in range(COUNT)]))
    check(ours, classes=None)
    named = Listed([(picture, NAMES[label]) for picture, label in zip(COLOUR, LABELS, strict=True)])
    check(images(named))
    assert images(Listed(list(COLOUR))).labels is None
    listed = Listed([(picture, label) for picture, label in zip(COLOUR, LABELS, strict=True)])
    listed.targets, listed.classes = LABELS, list(NAMES)
    check(images(listed))
    listed.given = 0
    images(listed)
    assert listed.given < 3 * COUNT  # a few are looked at; the labels are in the list
    listed.targets = LABELS[1:] + LABELS[:1]
    check(images(listed), classes=None)  # names are those of the list, which the items do not follow


class Changing(Listed):
    """A data set that lists its labels as they are and changes them in its items."""

    def __init__(self, count: int, change: object) -> None:
        super().__init__([Image.new("L", (2, 2), number % 256) for number in range(count)])
        self.targets, self.classes, self.change = (
            [number % 50 for number in range(count)],
            list(map(str, range(50))),
            change,
        )

    def __getitem__(self, index: int) -> object:
        return self.items[index], self.change(self.targets[index])


def test_labels_that_items_change_are_read_from_the_items_and_lose_their_names() -> None:
    swapped = images(Changing(200, lambda label: {5: 7, 7: 5}.get(label, label)))
    assert swapped.labels.tolist()[:9] == [0, 1, 2, 3, 4, 7, 6, 5, 8]
    assert swapped.classes is None
    assert "class names of the data set Changing were left out" in swapped.for_classes(50, None).notes[0]
    assert images(Changing(200, lambda label: label)).classes == tuple(map(str, range(50)))


def test_torchvision_s_target_transform_is_kept_and_its_picture_transform_left_out() -> None:
    made = cifar()
    made.target_transform = lambda label: 2 - label
    made.transforms = StandardTransform(transforms.Normalize([0.5], [0.5]), made.target_transform)
    made.transform = made.transforms.transform
    ours = images(made)
    assert (ours.labels.tolist(), ours.classes) == ([2 - label for label in LABELS], None)
    assert np.array_equal(stacked(ours), COLOUR)
    assert isinstance(made.transform, transforms.Normalize)
    made.transforms = StandardTransform(None, made.target_transform)
    made.transform = None
    assert (images(made).labels.tolist(), images(made).notes) == (ours.labels.tolist(), ())

    class Joint(CIFAR10):
        def __getitem__(self, index: int) -> object:
            return self.transforms(Image.fromarray(self.data[index]), self.targets[index])

    joint = cifar(Joint)
    Joint.__getitem__.__module__ = "torchvision.datasets.own"
    joint.transforms = StandardTransform(transforms.Normalize([0.5], [0.5]), lambda label: 2 - label)
    assert images(joint).labels.tolist() == ours.labels.tolist()
    joint.transforms = lambda picture, label: (picture, 2 - label)
    assert images(joint).labels.tolist() == ours.labels.tolist()


def test_names_of_classes_are_kept_where_data_sets_are_wrapped(class_folders: Path) -> None:
    from timm.data import ImageDataset

    folder, by_name = ImageFolder(str(class_folders)), ("cat", "ant", "bee")
    expected = images(folder).for_classes(3, by_name).labels.tolist()
    indexed = Listed([folder[number] for number in range(COUNT)])
    indexed.class_to_idx = folder.class_to_idx
    for source in (folder, ConcatDataset([folder]), ImageDataset(str(class_folders)), indexed):
        assert images(source).for_classes(3, by_name).labels.tolist() == expected
    both = images(Subset(ConcatDataset([folder, Subset(folder, [11, 0]), in_memory()]), [0, 12, 13, 14, 15]))
    assert (both.labels.tolist(), both.classes) == ([0, 2, 0, *LABELS[:2]], NAMES)
    assert np.array_equal(stacked(both), COLOUR[[0, 11, 0, 0, 1]])
    assert pickle.loads(pickle.dumps(both)).fingerprint == both.fingerprint
    other = in_memory().cast_column("label", datasets.ClassLabel(names=list(reversed(NAMES))))
    with pytest.raises(UserError, match=r"name their classes differently \(ant, bee, cat and cat, bee, ant\)"):
        images(ConcatDataset([folder, other]))
    with pytest.raises(UserError, match="only 1 of the 2 parts of the data set ConcatDataset have labels"):
        images(ConcatDataset([folder, Listed(list(COLOUR))]))


def test_names_that_timm_sorted_are_no_order(tmp_path: Path) -> None:
    from timm.data import ImageDataset

    for number in range(1, 11):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "a.png").write_bytes(png(number))
    with pytest.raises(UserError, match=r"order .* is not certain"):
        images(ImageDataset(str(tmp_path))).for_classes(10, None)


def test_a_subset_with_items_of_its_own_is_read_by_them(class_folders: Path) -> None:
    class Reversed(Subset):
        def __getitem__(self, index: int) -> tuple:
            picture, label = super().__getitem__(index)
            return picture, 2 - label

        def __getitems__(self, indices: list[int]) -> list:
            return [self[index] for index in indices]

    assert images(Reversed(ImageFolder(str(class_folders)), [0, 5, 11])).labels.tolist() == [2, 1, 0]


def test_a_subset_stays_within_its_data_set(class_folders: Path) -> None:
    folder = ImageFolder(str(class_folders))
    assert images(Subset(folder, [-1, 0])).labels.tolist() == [2, 0]
    for beyond in (COUNT, -COUNT - 1):
        with pytest.raises(UserError, match=f"takes item {beyond} of ImageFolder, which has {COUNT}"):
            images(Subset(folder, [0, beyond]))


def test_lists_may_stand_for_data_sets() -> None:
    pairs = [(tensor(number), label) for number, label in enumerate(LABELS)]
    for source in (DataLoader(pairs, batch_size=3), Subset(pairs, range(COUNT)), ConcatDataset([pairs[:5], pairs[5:]])):
        check(images(source), classes=None)


def test_synonyms_of_torchvision_s_imagenet_are_one_class(tmp_path: Path) -> None:
    wnids = {"n01440764": ("tench", "Tinca tinca"), "n01443537": ("goldfish", "Carassius auratus")}
    torch.save((wnids, []), tmp_path / "meta.bin")
    for number, wnid in enumerate(wnids):
        (tmp_path / "val" / wnid).mkdir(parents=True)
        (tmp_path / "val" / wnid / "a.png").write_bytes(png(number))
    ours = images(ImageNet(str(tmp_path), split="val"))
    assert ours.classes == ("tench, Tinca tinca", "goldfish, Carassius auratus")
    assert ours.for_classes(2, ("goldfish", "tench")).labels.tolist() == [1, 0]


@pytest.mark.parametrize("seed", range(3))
def test_pictures_that_change_only_now_and_then_are_refused(seed: int) -> None:
    class Flipping(Listed):
        def __getitem__(self, index: int) -> object:
            return (self.transform or self.hidden)(Image.fromarray(self.items[index])), 0

    torch.manual_seed(seed)
    flipping = Flipping(list(COLOUR), transforms.RandomHorizontalFlip())
    with pytest.raises(UserError, match="another picture each time"):
        images(flipping)
    flipping.hidden, flipping.transform = flipping.transform, None
    with pytest.raises(UserError, match="another picture each time"):
        images(flipping)


@pytest.mark.parametrize("key", ["Label", "fine_label", "category", "class_id", "cls", "CLASS", "target", "y"])
def test_items_keep_their_label_under_any_usual_key(key: str) -> None:
    check(images(Listed([{"image": COLOUR[n], key: LABELS[n], "width": 6} for n in range(COUNT)])), classes=None)


def test_items_of_several_labels_are_refused() -> None:
    source = Listed([{"img": COLOUR[n], "fine_label": LABELS[n], "coarse_label": 0} for n in range(COUNT)])
    with pytest.raises(UserError, match=r"several labels in each item \(fine_label, coarse_label\).*--label none"):
        images(source)
    assert images(source, label="none").labels is None


def test_floats_that_may_be_normalised_are_refused() -> None:
    floats = [(tensor(number) / 255, 0) for number in range(COUNT)]
    assert "floats between 0 and 1" in images(Listed(floats)).notes[0]
    with pytest.raises(UserError, match="leave Normalize out"):
        images(Listed(floats, transforms.Compose([transforms.Normalize([0.5], [0.5])])))
    with pytest.raises(UserError, match=r"floats must lie in \[0, 1\]"):
        images(Listed([(2 * picture - 1, label) for picture, label in floats]))


def test_a_transform_of_anybody_is_told_and_a_random_one_refused() -> None:
    told = images(Listed([(COLOUR[0], 0)], transforms.Resize(4)))
    assert told.notes == (
        "The images are as the transform of the data set Listed leaves them, before the model's own preprocessing.",
    )

    class Noisy(Listed):
        def __getitem__(self, index: int) -> object:
            self.given += 1
            return COLOUR[self.given % COUNT]

    with pytest.raises(UserError, match="another picture each time"):
        images(Noisy([0] * 3))


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (torch.tensor([0, 1, 1]), "several labels an image"),
        ([0, 1], "several labels an image"),
        ({"boxes": torch.zeros(1, 4)}, "boxes"),
        ([{"bbox": [0, 0, 1, 1]}], "boxes"),
        (Image.new("L", (6, 5)), "masks"),
        (torch.zeros(5, 6), "masks"),
    ],
)
def test_annotations_of_other_tasks_are_refused_and_can_be_left_out(label: object, message: str) -> None:
    source = Listed([(picture, label) for picture in COLOUR])
    with pytest.raises(UserError, match=rf"{message}.* one class for each image.*--label none"):
        images(source)
    assert images(source, label="none").labels is None


@pytest.mark.parametrize("labels", [[0, None, 1], ["ant", float("nan"), "bee"], ["ant", "", "bee"], [0.0, np.nan, 1.0]])
def test_items_without_a_label_are_counted(labels: list) -> None:
    source = Listed(list(zip(COLOUR[:3], labels, strict=True)))
    with pytest.raises(UserError, match="1 of the 3 images of the data set Listed have no label"):
        images(source)


def test_items_that_are_no_pictures_are_refused() -> None:
    with pytest.raises(UserError, match="4 axes, like videos"):
        images(Listed([(torch.zeros(8, 3, 5, 6), 0)]))
    with pytest.raises(UserError, match="the keys text, none of which is 'image'"):
        images(Listed([{"text": 3}]))
    with pytest.raises(UserError, match="hold a str: give Pillow images"):
        images(Listed([("a.png", 3)]))
    with pytest.raises(UserError, match="holds no images"):
        images(Listed([]))


def test_what_goes_wrong_in_a_data_set_is_said(tmp_path: Path) -> None:
    class Failing(Listed):
        def __getitem__(self, index: int) -> object:
            if index >= self.given:
                raise KeyError("no such\nrow")
            return self.items[index]

    source = Failing(list(COLOUR))
    with pytest.raises(UserError, match="the data set Failing cannot be read as pictures and their classes: 'no such"):
        images(source)
    source.given = COUNT
    ours = images(source, max_broken=COUNT)
    source.given = 3
    with pytest.raises(BrokenImage, match=r"Failing\[5\]: 'no such"):
        ours.read(5)


def test_loaders_and_data_sets_whose_order_is_not_known_are_refused(class_folders: Path) -> None:
    class Stream(IterableDataset):
        def __iter__(self) -> object:
            return iter(())

    folder = ImageFolder(str(class_folders))
    with pytest.raises(UserError, match="with a sampler of its own"):
        images(DataLoader(folder, sampler=WeightedRandomSampler([1.0] * COUNT, COUNT)))
    for source in (Stream(), DataLoader(Stream())):
        with pytest.raises(UserError, match="no fixed order or length"):
            images(source)
    files = DatasetFolder(str(class_folders), loader=lambda path: np.asarray(Image.open(path)), extensions=(".png",))
    check(images(files), BY_CLASS)


@pytest.mark.parametrize(
    ("features", "cell", "message"),
    [
        (
            {"label": datasets.List(datasets.ClassLabel(names=list(NAMES)))},
            {"label": [0, 2]},
            "several labels an image",
        ),
        ({"labels": datasets.List(datasets.Value("int64"))}, {"labels": [0]}, "several labels an image"),
        (
            {"objects": {"bbox": datasets.List(datasets.List(datasets.Value("float32")))}},
            {"objects": {"bbox": [[0.0]]}},
            "boxes",
        ),
        ({"annotation": datasets.Image()}, {"annotation": {"bytes": png(1), "path": None}}, "masks"),
        ({"label": datasets.Image()}, {"label": {"bytes": png(1), "path": None}}, "masks"),
    ],
)
def test_rows_of_other_tasks_are_refused_by_name(tmp_path: Path, features: dict, cell: dict, message: str) -> None:
    schema = datasets.Features({"image": datasets.Image(), **features})
    row = {"image": {"bytes": png(0), "path": None}, **cell}
    made = datasets.Dataset.from_list([row] * 2, features=schema)
    made.save_to_disk(str(tmp_path / "saved"))
    made.to_parquet(str(tmp_path / "rows.parquet"))
    for source in (made, tmp_path / "saved", tmp_path / "rows.parquet"):
        with pytest.raises(UserError, match=rf"{message}.*--label none"):
            images(source)
        assert images(source, label="none").labels is None
        with pytest.raises(UserError, match="one class for each image"):
            images(source, label=next(iter(features)))


def test_tables_of_other_tasks_are_refused_by_name(pictures: Path) -> None:
    for name, cell in (("labels", [1, 2]), ("objects", {"bbox": [[0, 0, 1, 1]]})):
        write_table(pictures / "metadata.jsonl", [{"file_name": row["file_name"], name: cell} for row in rows()])
        with pytest.raises(UserError, match="one class for each image"):
            images(pictures)
    write_table(pictures / "metadata.jsonl", [{"file_name": row["file_name"], "label": "ant|bee"} for row in rows()])
    with pytest.raises(UserError, match=r"the label 'ant\|bee' .* several labels an image"):
        images(pictures)
    (pictures / "coco.json").write_text(json.dumps({"images": [], "annotations": []}))
    with pytest.raises(UserError, match="annotations like those of COCO"):
        images(pictures / "coco.json")
    with pytest.raises(UserError, match="12 x 3, several labels an image"):
        images((COLOUR, np.eye(3, dtype=int)[LABELS]))


@pytest.mark.parametrize(("kind", "media"), [("Video", "videos"), ("Audio", "sounds")])
def test_rows_of_other_media_are_refused_by_name(tmp_path: Path, kind: str, media: str) -> None:
    cells = pa.array([{"bytes": b"1", "path": "a"}], pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    described = json.dumps({"info": {"features": {"clip": {"_type": kind}, "label": {"_type": "Value"}}}})
    table = pa.table({"clip": cells, "label": [0]}).replace_schema_metadata({"huggingface": described})
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(UserError, match=f"holds {media}, no images"):
        images(tmp_path / "a.parquet")


def test_fractions_are_no_classes(pictures: Path) -> None:
    frame = pd.DataFrame({"path": [f"pictures/{n}.png" for n in range(3)], "target": [0.5, 1.0, None]})
    frame.to_parquet(pictures / "a.parquet")
    for source in (frame, pictures / "a.parquet"):
        with pytest.raises(UserError, match=r"holds numbers that are no classes in 'target'.*--label none"):
            images(source)
        assert images(source, label="none").labels is None
    whole = frame.assign(target=np.array([2, 0, 1], dtype=object), path=[Path(path) for path in frame["path"]])
    assert images(whole).labels.tolist() == [2, 0, 1]


def test_loaders_of_rows_and_packages_called_datasets() -> None:
    check(images(DataLoader(in_memory())))
    check(images(Subset(in_memory(), [4, 2])), [4, 2])

    class Own(Listed):
        __module__ = "datasets.own"

    check(images(Own([(picture, label) for picture, label in zip(COLOUR, LABELS, strict=True)])), classes=None)


def test_a_parquet_file_of_more_rows_than_bytes_is_refused(tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"image": pa.nulls(10**6, pa.binary()), "label": pa.array(np.zeros(10**6, int))}),
        tmp_path / "a.parquet",
    )
    with pytest.raises(UserError, match="declares 1,000,000 rows, but has only"):
        images(tmp_path / "a.parquet")


def test_members_that_are_there_twice_are_refused(tmp_path: Path) -> None:
    for _ in range(2):
        with tarfile.open(tmp_path / "a.tar", "a") as archive:
            info = tarfile.TarInfo("0.png")
            info.size = len(png(0))
            archive.addfile(info, io.BytesIO(png(0)))
    with pytest.raises(UserError, match=r"holds 0\.png twice"):
        images(tmp_path / "a.tar")
