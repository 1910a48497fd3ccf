"""Classes are found by name where names say which they are, and asked for where they do not."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitscope.data import images
from vitscope.data.class_names import match
from vitscope.data.imagenet import wnids
from vitscope.data.label import Labels, fit_labels, natural, order_labels
from vitscope.measurement.errors import UserError

TENCH, GOLDFISH, RETRIEVER = "n01440764", "n01443537", "n02099601"


def folder_labels(*classes: str) -> Labels:
    """One image of each class, numbered as text sorts."""
    names = tuple(sorted(classes))
    return Labels(np.arange(len(names)), names, "class folders", len(names), numbering="sorted")


def fitted(labels: Labels, count: int, names: tuple[str, ...] | None) -> dict[str, int]:
    """The model's class of each of the images' classes."""
    assert labels.classes is not None
    values = fit_labels(labels, count, names, "photos").values.tolist()
    return {labels.classes[own]: value for own, value in zip(labels.values.tolist(), values, strict=True)}


def imagenet_names() -> tuple[str, ...]:
    from timm.data import ImageNetInfo

    return tuple(ImageNetInfo("imagenet-1k").label_descriptions())


NUMBERED = tuple(str(number) for number in range(1, 13))
DIGITS = tuple("0123456789")


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        (NUMBERED, NUMBERED, {name: int(name) - 1 for name in NUMBERED}),
        (("3", "5"), DIGITS, {"3": 3, "5": 5}),
        (("03", "05"), DIGITS, {"03": 3, "05": 5}),
        (("LABEL_3", "LABEL_5"), DIGITS, {"LABEL_3": 3, "LABEL_5": 5}),
        (("cat", "dog"), ("zebra", "dog", "cat"), {"cat": 2, "dog": 1}),
        (("Golden Retriever", "tench"), ("tench", "golden_retriever"), {"Golden Retriever": 1, "tench": 0}),
        (("tench", "crow"), ("tench, Tinca tinca", "raven, crow"), {"tench": 0, "crow": 1}),
        (("missile", "projectile"), ("projectile, missile", "missile"), {"missile": 1, "projectile": 0}),
        ((TENCH, GOLDFISH), ("goldfish", "tench"), {TENCH: 1, GOLDFISH: 0}),
        (("goldfish", "tench"), (GOLDFISH, TENCH), {"goldfish": 0, "tench": 1}),
        (
            (f"{RETRIEVER}-golden", f"{TENCH}-tench"),
            (TENCH, RETRIEVER),
            {f"{RETRIEVER}-golden": 1, f"{TENCH}-tench": 0},
        ),
    ],
    ids=["numbers", "subset", "zeros", "labels", "words", "case", "synonym", "strictest", "wnids", "to-wnids", "dogs"],
)
def test_classes_are_found_by_name(ours: tuple, theirs: tuple, expected: dict) -> None:
    assert fitted(folder_labels(*ours), len(theirs), theirs) == expected


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (("crane", "jay"), ("crane", "jay", "crane")),
        (("golden_retriever", "jay"), ("golden retriever", "golden-retriever", "jay")),
        (("cat", "Cat"), ("CAT", "dog")),
        (("cat", "dog", "horse"), ("cat", "dog", "zebra")),
        (NUMBERED, tuple(str(number) for number in range(12))),
    ],
    ids=["twice", "two-spellings", "two-on-one", "one-strange", "from-one"],
)
def test_what_is_not_certain_is_no_match(ours: tuple, theirs: tuple) -> None:
    assert match(ours, theirs) is None
    with pytest.raises(UserError, match="are not the model's"):
        fitted(folder_labels(*ours), len(theirs), theirs)


def test_a_match_that_is_not_of_equal_names_is_said_and_a_part_of_the_classes_too() -> None:
    equal = fit_labels(folder_labels("cat", "dog"), 2, ("dog", "cat"), "photos")
    spelled = fit_labels(folder_labels("Cat", "dog"), 3, ("dog", "bird", "cat"), "photos")
    assert equal.notes == ()
    assert "spelled otherwise ('Cat' as 'cat')" in spelled.notes[0]
    assert spelled.notes[1] == "photos has 2 of the model's 3 classes; predictions are among all of them."
    assert (spelled.count, spelled.classes) == (3, ("dog", "bird", "cat"))


@pytest.mark.parametrize(
    ("classes", "sorts"),
    [(NUMBERED, ("10", "2")), (("Zebra", "ant"), ("Zebra", "ant")), (("a9", "a10"), ("a10", "a9"))],
)
def test_names_that_sort_in_two_ways_are_asked_for_where_the_model_names_none(classes: tuple, sorts: tuple) -> None:
    labels = folder_labels(*classes)
    for names in (None, tuple(f"LABEL_{place}" for place in range(len(classes)))):
        with pytest.raises(UserError, match=r"order .* not certain: text .* natural .*--label-order"):
            fit_labels(labels, len(classes), names, "photos")
    first, then = sorts
    for order, sign in (("text", 1), ("natural", -1)):
        told = fitted(order_labels(labels, order, "photos"), len(classes), None)
        assert np.sign(told[then] - told[first]) == sign


def test_names_that_sort_in_one_way_need_no_word() -> None:
    assert fitted(folder_labels("ant", "bee", "cat9"), 3, None) == {"ant": 0, "bee": 1, "cat9": 2}
    assert fitted(folder_labels(*DIGITS), 10, None) == {name: int(name) for name in DIGITS}


def test_natural_order_is_timms() -> None:
    from timm.data.readers.reader_image_folder import natural_key

    names = ["b10", "B9", "a", "10", "9", "x1y2", "x1y10", "Zebra", "ant", "n02", "n1", ""]
    theirs = sorted(sorted(names), key=natural_key)
    assert sorted(names, key=natural) == theirs


def test_an_order_that_was_told_holds_where_names_do_not_match_and_never_against_them() -> None:
    told = order_labels(folder_labels(*NUMBERED), "natural", "photos")
    zero_based = tuple(str(number) for number in range(12))
    assert fitted(told, 12, zero_based) == {name: int(name) - 1 for name in NUMBERED}
    assert fitted(told, 12, tuple(reversed(NUMBERED)))["1"] == 11
    with pytest.raises(UserError, match=r"12 classes .* the model 13"):
        fit_labels(told, 13, None, "photos")
    with pytest.raises(UserError, match="no class names that could be put into an order"):
        images("digits", label_order="text")


def test_strings_that_were_chosen_have_no_numbers_of_their_own() -> None:
    pixels = np.zeros((2, 4, 4), np.uint8)
    named = images((pixels, ["cat", "dog"]))
    assert named.for_classes(2, ("dog", "cat")).labels.tolist() == [1, 0]
    with pytest.raises(UserError, match=r"2 classes .* the model 10"):
        named.for_classes(10, None)
    assert images((pixels, [3, 7])).for_classes(10, None).labels.tolist() == [3, 7]


def test_numbers_that_are_the_names_of_the_model() -> None:
    some = Labels(np.array([3, 7, 5]), None, "key 'y'", 8)
    assert fit_labels(some, 3, ("7", "5", "3"), "photos").values.tolist() == [2, 0, 1]
    small = Labels(np.array([1, 2]), None, "key 'y'", 3)
    with pytest.raises(UserError, match=r"numbers, and so are the names .* \(1, 2, 3\).*--label-map"):
        fit_labels(small, 3, ("1", "2", "3"), "photos")
    assert fit_labels(small, 3, ("0", "1", "2"), "photos").values.tolist() == [1, 2]


def test_classes_without_images_need_not_be_the_models() -> None:
    labels = Labels(np.array([0, 2]), ("cat", "cow", "dog"), "class folders", 3, numbering="sorted")
    fitting = fit_labels(labels, 2, ("dog", "cat"), "photos")
    assert fitting.values.tolist() == [1, 0]
    assert "but for those without images (cow)" in fitting.notes[0]
    numbered = Labels(np.array([0, 1]), ("1", "2", "3"), "class folders", 3, numbering="sorted")
    with pytest.raises(UserError, match="are not the model's"):
        fit_labels(numbered, 3, ("0", "1", "2"), "photos")


def test_imagenet_is_known_by_its_wnids_and_by_its_names_place_by_place() -> None:
    from timm.data import ImageNetInfo
    from torchvision.models._meta import _IMAGENET_CATEGORIES

    numbers = tuple(ImageNetInfo("imagenet-1k").label_names())
    for names in (imagenet_names(), tuple(_IMAGENET_CATEGORIES), numbers):
        assert wnids(names) == numbers
        assert fitted(folder_labels(TENCH, "n02012849", "n03126707"), 1000, names) == {
            TENCH: 0,
            "n02012849": 134,  # both of these are called crane
            "n03126707": 517,
        }
    assert wnids(("background", *imagenet_names())) == ("", *numbers)
    assert wnids(tuple(reversed(imagenet_names()))) is None
    assert match(tuple(_IMAGENET_CATEGORIES), imagenet_names()).places == tuple(range(1000))
    larger = ImageNetInfo("imagenet-12k")
    assert wnids(tuple(larger.label_descriptions())) == tuple(larger.label_names())


def test_a_thousand_classes_that_are_not_imagenets_are_not_taken_for_it() -> None:
    with pytest.raises(UserError, match="are not the model's"):
        fitted(folder_labels(TENCH, RETRIEVER), 1000, tuple(f"bird {place}" for place in range(1000)))
    with pytest.raises(UserError, match=r"2 classes .* the model 1000"):
        fitted(folder_labels(TENCH, RETRIEVER), 1000, None)


def test_long_lists_that_agree_but_for_a_few_names_are_one_list_and_it_is_said() -> None:
    theirs = tuple(f"bird {place:02}" for place in range(40))
    ours = (*theirs[:39], "sparrow")
    labels = Labels(np.arange(40), ours, "column 'label'", 40)
    fitting = fit_labels(labels, 40, theirs, "photos")
    assert fitting.values.tolist() == list(range(40))
    assert "('sparrow' for 'bird 39')" in fitting.notes[0]
    assert match((*theirs[1:], "sparrow"), theirs) is None
    assert match((*theirs[:36], *"abcd"), theirs) is None


def test_folders_of_a_test_set_of_three_of_the_models_classes(tmp_path: Path) -> None:
    for level, name in enumerate(("cat", "horse", "truck")):
        (tmp_path / name).mkdir()
        Image.new("L", (4, 4), level).save(tmp_path / name / "a.png")
    shown = images(tmp_path).for_classes(10, ("truck", *"abcd", "cat", *"xy", "horse", "z"))
    assert shown.labels.tolist() == [5, 8, 0]
    assert shown.notes == (f"{tmp_path.name} has 3 of the model's 10 classes; predictions are among all of them.",)
    assert shown.for_classes(10, shown.classes).notes == shown.notes


def test_names_of_a_chosen_column_are_held_against_the_models_too() -> None:
    chosen = Labels(np.array([0, 1, 2]), ("cat", "dog", "automobile"), "column 'label'", 3, chosen=True)
    for names in (("dog", "car", "cat"), ("dog", "car", "cat", "bird", "cow")):
        with pytest.raises(UserError, match="are not the model's"):
            fit_labels(chosen, len(names), names, "photos")
    assert fit_labels(chosen, 5, None, "photos").values.tolist() == [0, 1, 2]


def test_numbers_without_names_are_said_to_be_taken_for_the_models() -> None:
    labels = Labels(np.array([1, 0]), None, "key 'y'", 2)
    assert fit_labels(labels, 2, None, "photos").notes == ()
    assert "(key 'y') have no names: they were taken" in fit_labels(labels, 2, ("ant", "bee"), "photos").notes[0]


def test_classes_numbered_from_one_are_no_class_numbers_and_those_from_zero_are() -> None:
    from_one = tuple(f"class_{number}" for number in range(1, 10))
    with pytest.raises(UserError, match=r"no class is called 0: say with --label-map FILE which class .* class_1 is"):
        fitted(folder_labels(*from_one), 10, None)
    assert fitted(folder_labels(*from_one), 9, None)["class_1"] == 0
    assert fitted(folder_labels("class_0", "class_7"), 10, None) == {"class_0": 0, "class_7": 7}
    assert fitted(folder_labels("LABEL_3", "LABEL_7"), 10, None) == {"LABEL_3": 3, "LABEL_7": 7}


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (("cafe\u0301", "th\xe9"), ("th\xe9", "caf\xe9")),
        (("\u0645\u06cc\u200c\u062e", "\u0633"), ("\u0633", "\u0645\u06cc\u062e")),
        (("\u0645\u06cc\\u200c\u062e", "\u0633"), ("\u0633", "\u0645\u06cc\u200c\u062e")),
        (("001.Black_footed_Albatross", "002.Laysan_Albatross"), ("Laysan Albatross", "Black footed Albatross")),
        (("tench", "goldfish"), ("000_goldfish", "001_tench")),
    ],
    ids=["composed", "invisible", "escaped", "numbered", "numbered-model"],
)
def test_names_are_the_same_however_they_are_composed_or_numbered(ours: tuple, theirs: tuple) -> None:
    found = match(ours, theirs)
    assert found is not None
    assert found.places == (1, 0)
    assert match(theirs, ours).places == (1, 0)
    assert found.how.startswith("by name")
