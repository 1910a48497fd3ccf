"""Files that are damaged anywhere are read as what is left of them, or end in one sentence that names the file."""

import io
import json
import shutil
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from vitscope.data import BrokenImage, images
from vitscope.measurement.errors import UserError

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
LABELS = [0, 1, 2, 0, 1, 2]
MUTATIONS = 60
"""Of each file."""


def encoded(number: int, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS[number]).save(buffer, format=kind)
    return buffer.getvalue()


def table() -> pa.Table:
    cells = [{"bytes": encoded(number), "path": None} for number in range(6)]
    described = json.dumps({"info": {"features": {"image": {"_type": "Image"}, "label": {"names": list("abc")}}}})
    kinds = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    made = pa.table({"image": pa.array(cells, kinds), "label": LABELS})
    return made.replace_schema_metadata({"huggingface": described})


def write_sound(root: Path) -> None:
    """One data set of each kind, each in a folder of its own."""
    for name in ("folder", "metadata", "list", "parquet", "npz", "tar", "saved", "map"):
        (root / name).mkdir()
    for number in range(6):
        for name in ("metadata", "list"):
            (root / name / f"{number}.png").write_bytes(encoded(number))
    for number, kind in enumerate(("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP")):
        (root / "folder" / f"{number}.{kind.lower()}").write_bytes(encoded(number, kind))
    rows = [{"file_name": f"{number}.png", "label": "abc"[label]} for number, label in enumerate(LABELS)]
    lines = "\n".join(map(json.dumps, rows))
    (root / "metadata" / "metadata.jsonl").write_text(lines)
    (root / "list" / "list.csv").write_text(
        "path,label\n" + "\n".join(f"{row['file_name']},{row['label']}" for row in rows)
    )
    pq.write_table(table(), root / "parquet" / "a.parquet", row_group_size=2)
    np.savez_compressed(root / "npz" / "a.npz", images=PIXELS, labels=LABELS, classes=np.array(list("abc")))
    with tarfile.open(root / "tar" / "a.tar", "w") as archive:
        for number, label in enumerate(LABELS):
            for name, content in (
                (f"{number}.png", encoded(number)),
                (f"{number}.json", json.dumps({"label": label}).encode()),
            ):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    path = str(root / "saved" / "data-00000-of-00001.arrow")
    with pa.OSFile(path, "wb") as file, pa.ipc.new_stream(file, table().schema) as stream:
        stream.write_table(table())
    (root / "saved" / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}))
    (root / "map" / "map.json").write_text(json.dumps({str(digit): digit + 1 for digit in range(10)}))


DAMAGED = (
    ("folder", "*"),
    ("metadata", "metadata.jsonl"),
    ("list/list.csv", "list.csv"),
    ("parquet", "a.parquet"),
    ("npz/a.npz", "a.npz"),
    ("tar", "a.tar"),
    ("saved", "data-00000-of-00001.arrow"),
    ("saved", "state.json"),
    ("map", "map.json"),
)


def mutated(content: bytes, generator: np.random.Generator) -> bytes:
    """The content with bytes changed, cut off, left out, doubled or put in at random places."""
    data, place = bytearray(content), int(generator.integers(0, len(content)))
    length = int(generator.integers(1, 9))
    kind = int(generator.integers(0, 6))
    if kind == 0:
        return bytes(data[:place])
    if kind == 1:
        del data[place : place + length]
    elif kind == 2:
        data[place:place] = generator.bytes(length)
    elif kind == 3:
        data[place:place] = data[place : place + 64 * length]
    elif kind == 4:
        data[place : place + length] = bytes([int(generator.choice([0, 0x7F, 0xFF, 0x80]))]) * length
    else:
        for each in generator.integers(0, len(data), length):
            data[each] = int(generator.integers(0, 256))
    return bytes(data)


def read(source: Path) -> None:
    """Open it, read all pictures, and fit the labels; `UserError` or `BrokenImage` where that cannot be."""
    found = images("digits", label_map=source / "map.json") if source.name == "map" else images(source)
    for index in range(min(len(found), 50)):
        try:
            assert found.read(index).mode in ("L", "RGB")
        except BrokenImage:
            continue
    assert len(found.fingerprint) == 64


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sound")
    write_sound(root)
    return root


def victims(root: Path, pattern: str) -> Iterator[Path]:
    while True:
        yield from sorted(root.glob(pattern))


@pytest.mark.parametrize(("name", "pattern"), DAMAGED, ids=[f"{name}:{pattern}" for name, pattern in DAMAGED])
def test_any_damage_is_survived_or_said(sound: Path, tmp_path: Path, name: str, pattern: str) -> None:
    generator = np.random.default_rng(7)
    folder = name.partition("/")[0]
    shutil.copytree(sound / folder, tmp_path / folder)
    read(tmp_path / name)
    said: list[str] = []
    for _, victim in zip(range(MUTATIONS), victims(tmp_path / folder, pattern), strict=False):
        whole = victim.read_bytes()
        victim.write_bytes(mutated(whole, generator))
        try:
            read(tmp_path / name)
        except UserError as error:
            said.append(str(error))
        victim.write_bytes(whole)
    assert said or folder == "folder"
    assert [text for text in said if not (text.isprintable() and text.endswith("."))] == []
    assert [text for text in said if folder not in text and "digits" not in text] == []
    read(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", "no image columns"),
        ("a.csv", b"path,label\n1.png", "row 2 of .*a.csv has 1 cells, but its first row names 2"),
        ("a.csv", b"path,path\n", "names a column twice"),
        ("a.csv", b'path\n"1.png', "cannot be read as CSV"),
        ("a.csv", b"path\n\xff.png", "cannot be read as CSV"),
        ("a.csv", b"path\n", "holds no images"),
        ("a.csv", b"path,label\n,cat", "row 0 of .* names no file|no image columns"),
        ("a.jsonl", b"{", "cannot be read as JSON lines"),
        ("a.jsonl", b"[1]", "is not a table"),
        ("a.jsonl", b"[" * 100_000, "cannot be read as JSON lines"),
        ("a.json", b'{"path": "a.png"}', "is not a table"),
        ("a.json", b'[{"path": 3}]', "no image columns"),
        ("a.parquet", b"PAR1", "a.parquet cannot be read as Parquet"),
        ("a.tar", b"\0" * 10_240, "holds no images"),
        ("a.tar", b"x" * 10_240, "cannot be read as an uncompressed tar"),
        ("a.tar", b"", "cannot be read as an uncompressed tar"),
        ("a.npz", b"PK", "is not a .npz file"),
        ("state.json", b"[]", "is not a JSON object"),
        ("state.json", b"\xff", "state.json of .* cannot be read as JSON"),
        ("state.json", b"{}", "does not list plain file names"),
        ("state.json", b'{"_data_files": [{"filename": "a.arrow"}]}', "a.arrow is not a file"),
    ],
)
def test_files_of_no_sense(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        images(tmp_path if name == "state.json" else tmp_path / name)


def test_arrays_that_declare_more_than_they_have_are_refused_before_memory_is_asked_for(tmp_path: Path) -> None:
    def write(shape: str, content: bytes, kind: str = "|u1") -> None:
        header = f"{{'descr': {kind!r}, 'fortran_order': False, 'shape': {shape}}}".ljust(117) + "\n"
        path = tmp_path / "a.npz"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("images.npy", "w") as file:
            file.write(b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header.encode())
            for _ in range(len(content) or 1):
                file.write(content)

    write("(1000000, 1000, 1000)", b"x")
    with pytest.raises(UserError, match="'images' declares 1,000,000,000,000 bytes"):
        images(tmp_path / "a.npz")
    write("(2, 8)", b"x" * 8, "|O")
    with pytest.raises(UserError, match="'images' holds objects"):
        images(tmp_path / "a.npz")
    write("(300, 1024, 1024)", b"", "|u1")
    with pytest.raises(UserError, match="declares 314,572,800 bytes"):
        images(tmp_path / "a.npz")
    with (
        zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("images.npy", "w") as file,
    ):
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (300, 1024, 1024)})
        for _ in range(300):
            file.write(bytes(2**20))
    with pytest.raises(UserError, match=r"would grow to 314,572,800 bytes from [\d,]+, more than images do"):
        images(tmp_path / "a.npz")


def test_a_tar_that_is_cut_at_a_members_end_or_damaged_inside_is_refused(sound: Path, tmp_path: Path) -> None:
    whole = (sound / "tar" / "a.tar").read_bytes()
    with tarfile.open(sound / "tar" / "a.tar") as archive:
        third = archive.getmembers()[4].offset
        last = archive.getmembers()[-1]
    for content, message in (
        (whole[:third], "has no end, as if it were cut short"),
        (whole[: third + 512 + 100], "is cut short|cannot be read"),
        (whole[:third] + b"x" * 512 + whole[third + 512 :], f"is damaged at byte {third:,}"),
        (whole[: last.offset_data + 512], "has no end, as if it were cut short"),
    ):
        (tmp_path / "a.tar").write_bytes(content)
        with pytest.raises(UserError, match=message):
            images(tmp_path / "a.tar")
