"""Images from strangers run nothing, reach nothing, never hang, and put nothing raw on the terminal."""

import io
import json
import os
import socket
import stat
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import EpsImagePlugin, Image, PngImagePlugin

from vitscope.data import BrokenImage, images
from vitscope.data.array import ArrayPictures
from vitscope.data.decode import DEFAULT, Decoding, decode
from vitscope.data.files import inside, read_file
from vitscope.measurement.errors import UserError
from vitscope.measurement.text import printable


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


PNG = encoded(Image.new("RGB", (4, 4), "red"))
POSTSCRIPT = encoded(Image.new("RGB", (4, 4)), "EPS")
CELL = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


@pytest.fixture
def no_ghostscript(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("Ghostscript was started")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", refuse)


@pytest.mark.usefixtures("no_ghostscript")
def test_postscript_is_no_image_whatever_it_is_called(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "x.png").write_bytes(POSTSCRIPT)
    pq.write_table(pa.table({"image": [POSTSCRIPT]}), tmp_path / "a.parquet")
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(tmp_path / "photos" / "x.png", "x.png")
    for source in (tmp_path / "photos", tmp_path / "a.parquet", tmp_path / "a.tar"):
        with pytest.raises(BrokenImage, match="not an image of a known format"):
            images(source).read(0)
    with pytest.raises(BrokenImage, match="EPS pictures are not read"):
        images([Image.open(io.BytesIO(POSTSCRIPT))]).read(0)


def test_formats_that_are_not_pictures_of_pixels_are_not_tried() -> None:
    for kind in ("PDF", "XBM", "PCX", "SPIDER", "IM"):
        image = Image.new("1" if kind == "XBM" else "F" if kind == "SPIDER" else "L", (4, 4))
        with pytest.raises(BrokenImage, match="not an image of a known format"):
            decode(encoded(image, kind), "x.png", DEFAULT)
    for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "ICO", "JPEG2000", "TGA", "MPO"):
        assert decode(encoded(Image.new("RGB", (16, 16), "red"), kind), "x", DEFAULT).size == (16, 16), kind


@pytest.fixture
def special(tmp_path: Path) -> Path:
    """A folder of what is no file although it has its name."""
    root = tmp_path / "photos"
    root.mkdir()
    os.mkfifo(root / "pipe.png")
    os.symlink("/dev/zero", root / "zero.png")
    os.symlink(root / "nothing", root / "dangling.png")
    with socket.socket(socket.AF_UNIX) as made:
        here = os.getcwd()
        os.chdir(root)
        made.bind("socket.png")
        os.chdir(here)
    return root


def test_pipes_devices_and_sockets_never_hang(special: Path) -> None:
    reasons = {"pipe.png": "a pipe", "zero.png": "a device", "dangling.png": "No such file", "socket.png": "."}
    source = images(special, max_broken=4)
    assert len(source) == 4
    for index in range(4):
        with pytest.raises(BrokenImage, match=reasons[source.pictures.name(index)]):
            source.read(index)
    for path in ("/dev/zero", special / "pipe.png", special / "socket.png"):
        with pytest.raises(UserError, match=r"is neither a folder nor"):
            images(path)
    with pytest.raises(BrokenImage, match=r"a folder, not a file|Is a directory"):
        read_file(special, "photos")


@pytest.mark.parametrize(
    "name", ["x.parquet", "x.npz", "x.tar", "x.csv", "metadata.csv", "dataset_dict.json", "state.json"]
)
def test_a_pipe_in_place_of_a_table_is_not_waited_for(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    for source in (tmp_path, tmp_path / name):
        with pytest.raises(UserError, match=r"holds no image files|is neither a folder nor|is not a file"):
            images(source)
    with pytest.raises(UserError, match=r"label map .* cannot be read: a pipe, not a file"):
        images("digits", label_map=tmp_path / name)
    with pytest.raises(UserError, match=r"label map /dev/zero cannot be read: a device, not a file"):
        images("digits", label_map="/dev/zero")


@pytest.mark.parametrize(
    "path", ["/etc/hostname", "/dev/zero", "../secret.png", "a/../../secret.png", "\0", "{root}/in.png"]
)
def test_cells_do_not_lead_out_of_the_folder(tmp_path: Path, path: str) -> None:
    root = tmp_path / "set"
    root.mkdir()
    (tmp_path / "secret.png").write_bytes(PNG)
    (root / "in.png").write_bytes(PNG)
    path = path.format(root=root)
    pq.write_table(pa.table({"image": pa.array([{"bytes": None, "path": path}], CELL)}), root / "a.parquet")
    with pytest.raises(BrokenImage, match="is absolute or leads out of the folder"):
        images(root / "a.parquet").read(0)
    (root / "a.parquet").unlink()
    (root / "metadata.jsonl").write_text(json.dumps({"file_name": path}))
    with pytest.raises(UserError, match="which is not a file below"):
        images(root)
    (root / "metadata.jsonl").rename(root / "list.jsonl")
    if not path.startswith(str(root)):
        with pytest.raises(UserError, match="which is not below"):
            images(root / "list.jsonl")


def test_arrow_folders_name_files_of_their_own(tmp_path: Path) -> None:
    for name in ("../a.arrow", "/a.arrow", "..", "", 3, "a\0b"):
        (tmp_path / "state.json").write_text(json.dumps({"_data_files": [{"filename": name}]}))
        with pytest.raises(UserError, match="does not list plain file names"):
            images(tmp_path)
    (tmp_path / "dataset_dict.json").write_text(json.dumps({"splits": ["../train"]}))
    with pytest.raises(UserError, match="does not list plain file names"):
        images(tmp_path)


def test_what_lies_below_a_folder() -> None:
    assert inside("/a/b", "c/../d.png") == "/a/b/d.png"
    assert inside("/a/b", "/a/b/d.png") == "/a/b/d.png"
    assert inside("/", "a.png") == "/a.png"
    assert [inside("/a/b", path) for path in ("..", "../bc/d", "/a/bc", ".", "", "c/../..")] == [None] * 6


ESCAPE = "\x1b]0;owned\x07"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text, Größe, 猫\u3000犬", "plain text, Größe, 猫\u3000犬"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("a\nb\tc\r", "a\\nb\\tc\\r"),
        (os.fsdecode(b"caf\xe9"), "caf\\udce9"),
        ("evil\u202egnp.exe", "evil\\u202egnp.exe"),
        ("\x9b31m", "\\x9b31m"),
    ],
)
def test_text_is_made_safe_to_show(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert str(UserError(text)) == shown


def safe(text: str) -> bool:
    return text.isprintable() and text.encode("utf-8").decode() == text


@pytest.mark.parametrize("name", [ESCAPE, "a\nb", os.fsdecode(b"caf\xe9"), "x\u202ey"])
def test_names_of_files_and_classes_reach_nobody_raw(tmp_path: Path, name: str) -> None:
    root = tmp_path / name
    for number, folder in enumerate((name, "cat")):
        (root / folder).mkdir(parents=True)
        (root / folder / f"{name}{number}.png").write_bytes(PNG if number else b"no image")
    (root / f"{name}-empty").mkdir()
    source = images(root, max_broken=1)
    batch = next(source.batches(lambda picture: torch.zeros(1, 2, 2), 2))
    assert all(map(safe, (source.name, *source.classes, batch.broken[0].name, batch.broken[0].reason, *source.notes)))
    assert safe(repr(source))
    with pytest.raises(UserError) as raised:
        list(images(root).batches(lambda picture: torch.zeros(1, 2, 2), 2))
    assert safe(str(raised.value))
    for path in (root / "nothing", root / "x.parquet"):
        if path.suffix:
            path.write_bytes(b"")
        with pytest.raises(UserError) as raised:
            images(path)
        assert safe(str(raised.value))


@pytest.mark.parametrize("source", ["a\0b", "a\0b.png", "a\0b/*.parquet", Path("a\0b.npz"), "x" * 5000])
def test_paths_that_cannot_be_are_said(source: object) -> None:
    with pytest.raises(UserError, match=r"a path holds no zero byte|File name too long|does not exist"):
        images(source)
    with pytest.raises(UserError, match=r"label map .* cannot be read"):
        images("digits", label_map=source)


def test_huge_pictures_are_refused_before_memory_is_asked_for_and_can_be_allowed(tmp_path: Path) -> None:
    def claiming(width: int, height: int) -> bytes:
        header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\x02\0\0\0"
        buffer = io.BytesIO(b"\x89PNG\r\n\x1a\n")
        buffer.seek(8)
        PngImagePlugin.putchunk(buffer, b"IHDR", header)
        PngImagePlugin.putchunk(buffer, b"IDAT", b"")
        PngImagePlugin.putchunk(buffer, b"IEND", b"")
        return buffer.getvalue()

    (tmp_path / "a.png").write_bytes(claiming(100_000, 100_000))
    with pytest.raises(BrokenImage, match="100000 x 100000 pixels are more than the 178,956,970 that --max-pixels"):
        images(tmp_path).read(0)
    (tmp_path / "a.png").write_bytes(claiming(20_000, 10_000))
    with pytest.raises(BrokenImage, match="--max-pixels"):
        images(tmp_path).read(0)
    with pytest.raises(BrokenImage, match="truncated"):  # allowed, and then found to be empty
        images(tmp_path, max_pixels=200_000_000).read(0)
    (tmp_path / "a.png").write_bytes(encoded(Image.new("1", (15_000, 13_000))))
    assert images(tmp_path, max_pixels=200_000_000).read(0).size == (15_000, 13_000)
    with pytest.raises(UserError, match="--max-pixels takes at least one pixel, not 0"):
        images("digits", max_pixels=0)


def test_a_file_that_claims_too_many_bytes_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "a.png").open("wb") as file:
        file.truncate(2**33)
    with pytest.raises(BrokenImage, match="8,589,934,592 bytes are more than any"):
        images(tmp_path).read(0)


def sixteen(values: list[int], kind: str = "PNG") -> bytes:
    return encoded(Image.fromarray(np.array([values], dtype=np.uint16)), kind)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_samples_whose_depth_is_open_are_asked_for(kind: str) -> None:
    dark = sixteen([0, 2048, 4095], kind)
    with pytest.raises(BrokenImage, match=r"reach 4095 of 65535, .* --bits 16, or --bits 12"):
        decode(dark, "a", DEFAULT)
    assert np.asarray(decode(dark, "a", Decoding(bits=12))).tolist() == [[0, 128, 255]]
    assert np.asarray(decode(dark, "a", Decoding(bits=16))).tolist() == [[0, 8, 16]]
    with pytest.raises(BrokenImage, match="no known scale"):
        decode(sixteen([0, 4096], kind), "a", Decoding(bits=12))
    assert np.asarray(decode(sixteen([0, 65535], kind), "a", DEFAULT)).tolist() == [[0, 255]]
    assert np.asarray(decode(sixteen([0, 0], kind), "a", DEFAULT)).tolist() == [[0, 0]]
    for bits in (7, 17):
        with pytest.raises(UserError, match="--bits runs from 8 to 16"):
            Decoding(bits=bits)


def colour_png(depth: int, top: int) -> bytes:
    """Red, green and blue of 16 bits, which Pillow reads and does not write."""
    row = b"\0" + b"".join(value.to_bytes(2, "big") for value in (0, top // 2, top))
    buffer = io.BytesIO(b"\x89PNG\r\n\x1a\n")
    buffer.seek(8)
    PngImagePlugin.putchunk(buffer, b"IHDR", b"\0\0\0\1\0\0\0\1" + bytes([depth, 2, 0, 0, 0]))
    PngImagePlugin.putchunk(buffer, b"IDAT", zlib.compress(row))
    PngImagePlugin.putchunk(buffer, b"IEND", b"")
    return buffer.getvalue()


def test_colours_of_sixteen_bits_are_asked_for_too() -> None:
    assert np.asarray(decode(colour_png(16, 65535), "a", DEFAULT)).tolist() == [[[0, 127, 255]]]
    with pytest.raises(BrokenImage, match=r"its 16-bit colours reach 3840 of 65535"):
        decode(colour_png(16, 4095), "a", DEFAULT)
    assert np.asarray(decode(colour_png(16, 4095), "a", Decoding(bits=16))).max() == 15
    with pytest.raises(BrokenImage, match="colours of 12 bits stored in 16 are not read"):
        decode(colour_png(16, 4095), "a", Decoding(bits=12))


def test_arrays_of_sixteen_bits_are_asked_for_as_a_whole(tmp_path: Path) -> None:
    pixels = np.array([[[0, 1]], [[2, 4095]]], dtype=np.uint16)
    np.savez(tmp_path / "a.npz", images=pixels)
    for source in (pixels, list(pixels), tmp_path / "a.npz"):
        with pytest.raises(UserError, match=r"reach 4095 of 65535, .* --bits 12"):
            images(source)
        ours = images(source, bits=12)
        assert np.asarray(ours.read(1)).tolist() == [[0, 255]]
        assert ours.fingerprint != images(source, bits=16).fingerprint
        with pytest.raises(UserError, match="reach 4095, more than 11 bits hold"):
            images(source, bits=11)
    bright = np.array([[[0, 1]], [[2, 65535]]], dtype=np.uint16)  # its first picture is dark, the whole is not
    assert np.asarray(images(bright).read(0)).tolist() == [[0, 0]]
    assert isinstance(images(bright).pictures, ArrayPictures)


def test_links_and_devices_in_a_tar_are_passed_over(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, kind in (("0.png", tarfile.SYMTYPE), ("1.png", tarfile.CHRTYPE), ("2.png", tarfile.LNKTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/hostname"
            archive.addfile(info)
        info = tarfile.TarInfo("../../3.png")
        info.size = len(PNG)
        archive.addfile(info, io.BytesIO(PNG))
    source = images(tmp_path / "a.tar")
    assert (len(source), source[0].size) == (1, (4, 4))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar"]
    assert stat.S_ISREG((tmp_path / "a.tar").stat().st_mode)


def test_a_pattern_that_stands_for_too_many_files_is_refused(tmp_path: Path) -> None:
    for pattern in ("a-{0..99999999999}.tar", "{0..999}{0..999}{0..999}.tar"):
        with pytest.raises(UserError, match=r"stands for .* files, more than the 100,000"):
            images(str(tmp_path / pattern))
