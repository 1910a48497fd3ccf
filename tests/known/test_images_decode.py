"""Pictures of every usual kind, made by hand, come out as a person sees them."""

import io

import numpy as np
import pytest
from PIL import Image

from vitscope.data.decode import DEFAULT, BrokenImage, Decoding, as_displayed, decode, eight_bit, from_array

RED, WHITE = (255, 0, 0), (255, 255, 255)


def file_of(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, **options)
    return buffer.getvalue()


def palette(transparent: bool) -> bytes:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.putpixel((1, 0), 1)
    return file_of(image, format="PNG", **({"transparency": 1} if transparent else {}))


def rotated() -> bytes:
    image = Image.new("RGB", (3, 2), "white")
    image.putpixel((0, 0), RED)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter: the top left corner goes to the top right
    return file_of(image, format="PNG", exif=exif)


def animated(kind: str) -> bytes:
    frames = [Image.new("RGB", (2, 2), colour) for colour in ("red", "blue")]
    return file_of(frames[0], format=kind, save_all=True, append_images=frames[1:], lossless=True)


def sixteen_bit() -> bytes:
    return file_of(Image.fromarray(np.array([[0, 257, 32896, 65535]], dtype=np.uint16)), format="PNG")


def over_white(mode: str, colour: tuple[int, ...]) -> bytes:
    return file_of(Image.new(mode, (1, 1), colour), format="PNG")


def grey_with_transparent_level() -> bytes:
    return file_of(Image.fromarray(np.array([[10, 200]], dtype=np.uint8)), format="PNG", transparency=10)


@pytest.mark.parametrize(
    ("content", "mode", "pixels"),
    [
        (file_of(Image.new("L", (1, 1), 77), format="PNG"), "L", [[77]]),
        (file_of(Image.fromarray(np.array([[False, True]])), format="PNG"), "L", [[0, 255]]),
        (file_of(Image.new("RGB", (1, 1), RED), format="PNG"), "RGB", [[RED]]),
        (palette(transparent=False), "RGB", [[RED, (0, 255, 0)]]),
        (palette(transparent=True), "RGB", [[RED, WHITE]]),
        (over_white("RGBA", (255, 0, 0, 0)), "RGB", [[WHITE]]),
        (over_white("RGBA", (0, 0, 0, 102)), "RGB", [[(153, 153, 153)]]),
        (over_white("LA", (0, 102)), "L", [[153]]),
        (grey_with_transparent_level(), "L", [[255, 200]]),
        (file_of(Image.new("CMYK", (1, 1), (0, 255, 255, 0)), format="TIFF"), "RGB", [[RED]]),
        (sixteen_bit(), "L", [[0, 1, 128, 255]]),
        (animated("GIF"), "RGB", [[RED, RED], [RED, RED]]),
        (animated("WEBP"), "RGB", [[RED, RED], [RED, RED]]),
        (file_of(Image.fromarray(np.array([[0.0, 0.5, 1.0]], dtype=np.float32)), format="TIFF"), "L", [[0, 128, 255]]),
        (rotated(), "RGB", [[WHITE, RED], [WHITE, WHITE], [WHITE, WHITE]]),
    ],
    ids=[
        "grey",
        "one-bit",
        "rgb",
        "palette",
        "palette-transparent",
        "rgba-clear",
        "rgba-half",
        "la",
        "grey-trns",
        "cmyk",
        "16-bit",
        "gif",
        "webp",
        "float",
        "exif",
    ],
)
def test_a_file_is_shown_as_a_person_sees_it(content: bytes, mode: str, pixels: list) -> None:
    picture = decode(content, "a file", DEFAULT)
    assert picture.mode == mode
    assert np.asarray(picture).tolist() == np.array(pixels).tolist()


def test_a_cmyk_jpeg_of_adobe_is_not_a_negative() -> None:
    picture = decode(file_of(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), format="JPEG"), "a file", DEFAULT)
    np.testing.assert_allclose(np.asarray(picture)[4, 4], RED, atol=4)


def test_unreadable_exif_does_not_break_an_image() -> None:
    content = file_of(Image.new("RGB", (8, 8), RED), format="JPEG", exif=b"Exif\0\0garbage that is no TIFF header")
    assert decode(content, "a file", DEFAULT).size == (8, 8)


JPEG = file_of(Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)), format="JPEG")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"no image", "not an image of a known format"),
        (JPEG[: len(JPEG) // 2], "truncated"),
        (sixteen_bit()[:45], "truncated"),
        (file_of(Image.fromarray(np.array([[0, 1 << 20]], dtype=np.int32)), format="TIFF"), "no known scale"),
    ],
    ids=["empty", "foreign", "truncated-jpeg", "truncated-png", "32-bit"],
)
def test_a_broken_file_says_which_it_is_and_why(content: bytes, reason: str) -> None:
    with pytest.raises(BrokenImage, match=reason) as raised:
        decode(content, "photos/a.jpg", DEFAULT)
    assert raised.value.name == "photos/a.jpg"


def test_a_picture_of_more_pixels_than_allowed_is_broken_until_more_are_allowed() -> None:
    with pytest.raises(BrokenImage, match=r"64 x 64 pixels are more than the 4,095 that --max-pixels allows"):
        decode(JPEG, "bomb.jpg", Decoding(max_pixels=4095))
    assert decode(JPEG, "bomb.jpg", Decoding(max_pixels=4096)).size == (64, 64)


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        (np.array([0.0, 0.5, 1.0]), [0, 128, 255]),
        (np.array([0.0, 1.0], dtype=np.float16), [0, 255]),
        (np.array([False, True]), [0, 255]),
        (np.array([0, 65535, 128, 129], dtype=np.uint16), [0, 255, 0, 1]),
        (np.array([0, 255], dtype=np.int64), [0, 255]),
    ],
)
def test_samples_are_scaled_to_eight_bits(samples: np.ndarray, expected: list[int]) -> None:
    assert eight_bit(samples).tolist() == expected


@pytest.mark.parametrize(("shape", "mode"), [((4, 5), "L"), ((4, 5, 1), "L"), ((4, 5, 3), "RGB"), ((4, 5, 4), "RGB")])
def test_arrays_become_pictures_of_their_size(shape: tuple[int, ...], mode: str) -> None:
    picture = from_array(np.zeros(shape, dtype=np.uint8), DEFAULT)
    assert (picture.mode, picture.size) == (mode, (5, 4))


def test_showing_leaves_the_image_given_as_it_is() -> None:
    image = Image.new("LA", (2, 2), (5, 0))
    as_displayed(image, DEFAULT)
    assert (image.mode, image.getpixel((0, 0))) == ("LA", (5, 0))
