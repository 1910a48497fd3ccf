"""Exported files: they are read as they were written, and nothing in them is run as they are read."""

import io
import os
import zipfile
from contextlib import suppress

import numpy as np
import pytest
import torch
from torch.export import Dim

import vitscope
from vitscope import UserError
from vitscope.deploy.exported import open_exported
from vitscope.deploy.onnx_file import count_weights, open_onnx, write_onnx
from vitscope.models.compact import compact


@pytest.fixture(scope="module")
def subject():
    return vitscope.load("digits")


@pytest.fixture(scope="module")
def module(subject):
    return compact(subject)


def noise(batch, shape=(1, 8, 8)):
    return torch.randn(batch, *shape, generator=torch.Generator().manual_seed(batch))


def exported(module, path, batch="batch"):
    shapes = {"images": {0: Dim(batch)}} if batch else None
    program = torch.export.export(module, (noise(2),), dynamic_shapes=shapes)
    torch.export.save(program, path)
    return path


@pytest.fixture(scope="module")
def file(module, tmp_path_factory):
    return exported(module, tmp_path_factory.mktemp("exported") / "model.pt2")


def altered(file, path, part, change):
    """The archive with the content of some of its files changed."""
    touched = 0
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as new:
        for one in old.infolist():
            content = old.read(one.filename)
            if part in one.filename:
                content, before = change(content), content
                touched += content != before
            new.writestr(one.filename, content)
    assert touched, "the change changed something"
    return path


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_an_exported_program_gives_the_modules_logits(file, module, subject, batch):
    found = open_exported(file)
    with torch.no_grad():
        assert torch.equal(found.module(noise(batch)), module(noise(batch)))
    assert (found.shape, found.fixed, found.weight_count) == ((1, 8, 8), None, subject.parameter_count)


def test_a_batch_that_was_fixed_is_told(module, tmp_path):
    assert open_exported(exported(module, tmp_path / "fixed.pt2", batch="")).fixed == 2


class Harm:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (self.mark,)


def pickled(mark):
    stream = io.BytesIO()
    torch.save((Harm(mark),), stream)
    return stream.getvalue()


def replacing(old, new):
    return lambda content: content.replace(old.encode(), new.encode())


HARMFUL = {
    "example inputs that are pickles": ("sample_inputs", lambda mark: lambda _: pickled(mark), "example inputs"),
    "a call of what is no operator": (
        "models/",
        lambda _: replacing("torch.ops.aten.gelu.default", "torch.os.getcwd"),
        r"a call of torch\.os\.getcwd",
    ),
    "a size that is code": (
        "models/",
        lambda mark: replacing("Symbol('s", f"__import__('os').mkdir('{mark}') or Symbol('s"),
        "the size __import__",
    ),
    "a size that builds code": (
        "models/",
        lambda _: replacing(", positive=True, integer=True)", ", positive=True, integer=True) + eval(chr(49))"),
        "the size Symbol",
    ),
    "weights that are pickles": (
        "weights_config",
        lambda _: replacing('"use_pickle": false', '"use_pickle": true'),
        "an object that is no tensor",
    ),
}


@pytest.mark.parametrize("name", HARMFUL)
def test_what_could_run_code_is_refused_and_does_not(file, tmp_path, name):
    part, change, said = HARMFUL[name]
    mark = tmp_path / "harm"
    path = altered(file, tmp_path / "harmful.pt2", part, change(str(mark)))
    with pytest.raises(UserError, match=rf"holds {said}.*, which could run code; export it again"):
        open_exported(path)
    assert not mark.exists()


def test_the_harm_is_real(file, tmp_path):
    """PyTorch's own loader runs what is refused here: the test above can fail."""
    mark = tmp_path / "harm"
    path = altered(file, tmp_path / "harmful.pt2", "sample_inputs", lambda _: pickled(str(mark)))
    with suppress(Exception):  # it then fails to log that it did
        torch.export.load(path)
    assert mark.exists()


def test_compiled_code_in_the_archive_is_refused(file, tmp_path):
    path = tmp_path / "code.pt2"
    path.write_bytes(file.read_bytes())
    with zipfile.ZipFile(path, "a", zipfile.ZIP_STORED) as archive:
        archive.writestr(f"{archive.namelist()[0].partition('/')[0]}/data/aotinductor/model/code.so", b"\0" * 64)
    with pytest.raises(UserError, match="aotinductor"):
        open_exported(path)


@pytest.mark.parametrize("content", [b"", b"no archive at all", b"PK\3\4" + b"\0" * 100])
def test_a_damaged_file_is_a_sentence(tmp_path, content):
    path = tmp_path / "damaged.pt2"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"damaged\.pt2 is no file of torch\.export that this version reads"):
        open_exported(path)
    onnx = tmp_path / "damaged.onnx"
    onnx.write_bytes(content)
    with pytest.raises(UserError, match=r"damaged\.onnx cannot be read by ONNX Runtime"):
        open_onnx(onnx, 1)


def test_a_program_of_something_else_is_refused(tmp_path):
    program = torch.export.export(torch.nn.Linear(3, 2), (torch.zeros(4, 3),))
    torch.export.save(program, tmp_path / "line.pt2")
    with pytest.raises(UserError, match=r"takes \('4', '3'\), not batch x channels x height x width"):
        open_exported(tmp_path / "line.pt2")


def test_an_onnx_file_gives_the_modules_logits_at_any_batch(module, subject, tmp_path):
    path = tmp_path / "model.onnx"
    write_onnx(module, subject.preprocessing.shape, path)
    runner = open_onnx(path, 1)
    assert (runner.shape, runner.fixed) == ((1, 8, 8), None)
    for batch in (1, 2, 5):
        with torch.no_grad():
            wanted = module(noise(batch))
        logits = runner.logits(runner.run(runner.place(noise(batch))))
        assert np.allclose(logits, wanted, atol=1e-4)
    runner.release()
    found = count_weights(path)
    assert found is not None
    assert 0.9 * subject.parameter_count < found <= 1.1 * subject.parameter_count


def test_without_onnx_runtime_the_command_that_installs_it_is_said(monkeypatch, tmp_path):
    from vitscope.deploy import onnx_file

    monkeypatch.setattr(onnx_file, "find_spec", lambda name: None)
    with pytest.raises(
        UserError, match=r"model\.onnx needs onnxruntime; install it with: pip install 'vitscope\[onnx\]'"
    ):
        open_onnx(tmp_path / "model.onnx", 1)
    with pytest.raises(UserError, match=r"backend onnx needs onnxruntime and onnxscript; install it with: pip install"):
        vitscope.bench("digits", backend="onnx")
    assert count_weights(tmp_path / "model.onnx") is None
