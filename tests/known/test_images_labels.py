"""What labels mean: maps, class names, and whether they are the model's."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from vitscope.data import images
from vitscope.data.label import LabelColumn, Labels, choose_column, fit_labels, read_labels
from vitscope.data.label_map import map_labels
from vitscope.measurement.errors import UserError

CATS = Labels(np.array([0, 2, 1, 2]), ("ant", "bee", "cat"), "column 'label'", 3)
NAMELESS = Labels(np.array([0, 9, 4]), None, "key 'y'", 10)
CHOSEN = Labels(np.array([0, 9, 4]), None, "column 'wnid'", 10, chosen=True)


@pytest.mark.parametrize(
    ("entries", "values", "classes"),
    [
        ({"ant": 5, "bee": 7, "cat": 6}, [5, 6, 7, 6], None),
        ({0: 5, 1: 7, 2: 6}, [5, 6, 7, 6], None),
        ({"0": 2, "1": 1, "cat": 0}, [2, 0, 1, 0], ("cat", "bee", "ant")),
        ({"ant": 0, "bee": 0, "cat": 1}, [0, 1, 0, 1], ("ant / bee", "cat")),
        ({"ant": np.int64(5), np.int64(1): np.uint8(7), "cat": 6}, [5, 6, 7, 6], None),
    ],
    ids=["names", "values", "mixed", "merged", "numpy"],
)
def test_a_map_sends_labels_to_classes_of_the_model(entries: dict, values: list[int], classes: tuple | None) -> None:
    mapped = map_labels(CATS, entries, "photos")
    assert mapped.values.tolist() == values
    assert mapped.classes == classes


def test_a_class_name_wins_over_a_value_of_the_same_spelling() -> None:
    swapped = Labels(np.array([0, 1]), ("1", "0"), "column 'label'", 2)
    assert map_labels(swapped, {"0": 10, "1": 11}, "photos").values.tolist() == [11, 10]


def test_a_map_may_be_a_file_which_the_source_of_the_labels_names(tmp_path: Path) -> None:
    path = tmp_path / "map.json"
    path.write_text(json.dumps({str(digit): digit + 100 for digit in range(10)}))
    mapped = images("digits", limit=20, label_map=str(path))
    assert mapped.label_source == f"the digit written, mapped by {path}"
    assert mapped.labels.tolist() == (images("digits", limit=20).labels + 100).tolist()


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"ant": 0, "bee": 1}, r"no entry for 1 labels of photos, such as 2 \(cat\)"),
        ({"ant": 0, "bee": 1, "cow": 2}, "names the class 'cow', which photos does not have: its classes are ant, bee"),
        ({"ant": 0, "bee": 1, "cat": "dog"}, "sends 'cat' to 'dog', not to a class number"),
        ({"ant": 0, "bee": 1, "cat": -1}, "sends 'cat' to -1"),
        ({"ant": 0, "bee": 1, "cat": True}, "sends 'cat' to True"),
    ],
)
def test_a_map_that_cannot_be_is_refused(entries: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        map_labels(CATS, entries, "photos")


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"{", "is not JSON"), (b"[1, 2]", "must be an object such as"), (b"\xff\xfe", "is not JSON")],
    ids=["no-json", "no-object", "no-text"],
)
def test_a_map_file_that_cannot_be_read_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "map.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        images("digits", label_map=str(path))


def test_a_map_file_that_is_not_there_is_refused() -> None:
    with pytest.raises(UserError, match=r"the label map no/map\.json cannot be read: No such file"):
        images("digits", label_map="no/map.json")


@pytest.mark.parametrize(
    ("labels", "count", "names", "values"),
    [
        (CATS, 3, None, [0, 2, 1, 2]),
        (CATS, 3, ("ant", "bee", "cat"), [0, 2, 1, 2]),
        (CATS, 3, ("cat", "ant", "bee"), [1, 0, 2, 0]),
        (CATS, 3, ("ant, Formicidae", "bee", "cat, Felis"), [0, 2, 1, 2]),
        (NAMELESS, 10, ("a",) * 10, [0, 9, 4]),
        (CHOSEN, 1000, None, [0, 9, 4]),
        (map_labels(CATS, {"ant": 2, "bee": 1, "cat": 0}, ""), 3, ("ant", "bee", "cat"), [2, 0, 1, 0]),
    ],
    ids=["unknown", "same", "reordered", "spelling", "nameless", "chosen", "mapped"],
)
def test_labels_that_are_the_models_pass(labels: Labels, count: int, names: tuple | None, values: list[int]) -> None:
    fitted = fit_labels(labels, count, names, "photos")
    assert fitted.values.tolist() == values


def test_labels_put_into_the_models_order_take_its_names() -> None:
    fitted = fit_labels(CATS, 3, ("cat", "ant", "bee"), "photos")
    assert fitted.classes == ("cat", "ant", "bee")
    assert fitted.source == "column 'label', in the model's order by name"


@pytest.mark.parametrize(
    ("labels", "count", "names", "message"),
    [
        (CATS, 2, None, r"the label 2 \(cat\) of photos has no class in a model of 2 classes: choose a label column"),
        (CHOSEN, 9, None, r"the label 9 of photos has no class in a model of 9 classes"),
        (CATS, 1000, None, r"photos has 3 classes \(column 'label'\), the model 1000"),
        (NAMELESS, 1000, None, r"photos has 10 classes \(key 'y'\), the model 1000.*--label-map FILE"),
        (CATS, 3, ("car", "bus", "van"), r"classes of photos \(ant, bee, cat\) are not the model's \(car, bus, van\)"),
        (CATS, 3, ("bee", "ant", "car"), "are not the model's"),
    ],
    ids=["too-large", "chosen-too-large", "fewer", "nameless-fewer", "other-names", "shared-elsewhere"],
)
def test_labels_that_are_not_the_models_are_refused(
    labels: Labels, count: int, names: tuple | None, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        fit_labels(labels, count, names, "photos")


def test_images_follow_their_labels_to_the_model_and_the_fingerprint_with_them() -> None:
    digits = images("digits", limit=30)
    reversed_names = tuple(reversed(digits.classes))
    fitted = digits.for_classes(10, reversed_names)
    assert fitted.labels.tolist() == (9 - digits.labels).tolist()
    assert fitted.fingerprint != digits.fingerprint


def test_images_without_labels_fit_every_model() -> None:
    bare = images(np.zeros((2, 4, 4), dtype=np.uint8))
    assert bare.for_classes(7, None) is bare


@pytest.mark.parametrize(
    ("columns", "label", "found"),
    [
        (["label", "imagenet_label"], None, "label"),
        (["label", "imagenet_label"], "imagenet_label", "imagenet_label"),
        (["id", "fine_label"], None, "fine_label"),
        (["id"], "id", "id"),
    ],
)
def test_the_label_column_is_the_evident_one(columns: list[str], label: str | None, found: str) -> None:
    assert choose_column([LabelColumn(name, None) for name in columns], label, "photos").name == found


def test_no_column_is_a_label_without_a_reason() -> None:
    assert choose_column([LabelColumn("id", None)], None, "photos") is None


@pytest.mark.parametrize(
    ("raw", "values", "classes"),
    [
        ([1, 0, 2], [1, 0, 2], None),
        (np.array([[1], [0]]), [1, 0], None),
        (np.array([1, 0], dtype=np.uint8), [1, 0], None),
        (["dog", "cat", "dog"], [1, 0, 1], ("cat", "dog")),
        (np.array([0, 1, 10, 2], dtype=object), [0, 1, 10, 2], None),
        ([0.0, 2.0, np.float32(1)], [0, 2, 1], None),
        ([[2], [0], [1]], [2, 0, 1], None),
        (range(3), [0, 1, 2], None),
        (np.array([b"dog", b"cat"]), [1, 0], ("cat", "dog")),
        (["polar bear", "bear"], [1, 0], ("bear", "polar bear")),
    ],
    ids=["list", "column", "uint8", "strings", "objects", "floats", "rows", "range", "bytes", "words"],
)
def test_labels_are_read_from_integers_and_strings(raw: object, values: list[int], classes: tuple | None) -> None:
    labels = read_labels(raw, "photos", "the labels given")
    assert (labels.values.tolist(), labels.values.dtype, labels.classes) == (values, np.int64, classes)


MISSING = [None, -1, float("nan"), np.float64("nan"), pd.NA, "", " ", "NaN", "nan", "NA", "N/A", "null", "<NA>"]


def test_labels_that_are_all_missing_are_none() -> None:
    for raw in ([-1, -1], MISSING[2:], [None, None]):
        assert read_labels(raw, "photos", "column 'label'") is None


@pytest.mark.parametrize("missing", MISSING, ids=repr)
def test_what_is_no_value_is_no_class(missing: object) -> None:
    for known in (["cat", "dog"], [1, 0]):
        with pytest.raises(UserError, match=r"1 of the 3 images of photos have no label \(column 'label': "):
            read_labels([known[0], missing, known[1]], "photos", "column 'label'")


@pytest.mark.parametrize(
    "raw",
    [
        [[0], [1, 2], [0]],
        [{0}, {1, 2}],
        [("cat", "dog"), ("cat",)],
        np.array([[0], [1, 2]], dtype=object),
        ["cat", "['cat', 'dog']"],
        ["0 3 5", "1"],
        ["1,2", "1"],
        ["cat,dog", "cat"],
        ["cat, dog", "bird, dog", "dog"],
        ["cat dog", "cat", "dog"],
        ["cat;dog", "bird"],
    ],
    ids=repr,
)
def test_several_labels_an_image_are_refused_however_they_are_written(raw: object) -> None:
    with pytest.raises(UserError, match=r"several labels an image \(multi-label\): give one class"):
        read_labels(raw, "photos", "the labels given")


@pytest.mark.parametrize(
    ("raw", "classes", "message"),
    [
        ([0, -1, 1], None, r"1 of the 3 images of photos have no label"),
        ([0.5, 1.5], None, "must be one integer per image, not 2 float64"),
        (np.eye(3, dtype=int), None, "must be one integer per image, not 3x3 int64"),
        ([0, 2**70], None, "must be one integer per image, not 2 object"),
        ([0, 5], ("a", "b"), "photos has the label 5 .* but only 2 class names"),
    ],
    ids=["partly", "floats", "one-hot", "huge", "unnamed"],
)
def test_labels_that_cannot_be_are_refused(raw: object, classes: tuple | None, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_labels(raw, "photos", "column 'label'", classes)


@pytest.mark.parametrize("limit", [None, 10, 50])
def test_labels_from_one_do_not_pass_because_few_images_were_taken(limit: int | None) -> None:
    pixels = np.zeros((200, 2, 2), np.uint8)
    ours = images((pixels, list(range(1, 101)) * 2), limit=limit)
    with pytest.raises(UserError, match="the label 100 of images has no class in a model of 100 classes"):
        ours.for_classes(100, None)
    ordered = images((pixels, [f"{number:03}" for number in range(1, 101)] * 2), limit=limit, label_order="text")
    assert ordered.for_classes(100, None).labels.max() < 100


def test_labels_beside_images_may_come_in_any_sequence() -> None:
    pixels = np.zeros((3, 4, 4), np.uint8)
    for given in ((2, 0, 1), range(3), pd.Series([0, 1, 2]), np.arange(3.0)):
        assert images((pixels, given)).labels.tolist() == list(given)
    for several in ([[0], [1, 2], [0]], [{0}, {1}, {2}]):
        with pytest.raises(UserError, match="several labels an image"):
            images((pixels, several))
    paths = ["a.png", "b.png", "c.png"]
    for source in (np.array(paths), np.array(paths, dtype=object), pd.Series(paths), tuple(paths)):
        assert images((source, [2, 0, 1])).pictures.files == images(source).pictures.files == tuple(paths)
