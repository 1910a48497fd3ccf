"""Checkpoints: what is written is read, and a good file is never replaced by half of one."""

import json
import pickle

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from vitscope.measurement.errors import UserError
from vitscope.models.build import build_model, restore_module
from vitscope.models.checkpoint import Checkpoint, atomic_file, read_checkpoint, save_checkpoint
from vitscope.models.pixels import PixelInput

MODELS = [
    ("vit-micro", {"image": 8, "patch": 4, "channels": 1, "depth": 1, "classes": 3, "mean": (0.2,), "std": (0.3,)}),
    ("vit-micro", {"depth": 2, "pool": "average", "registers": 2}),
    ("timm/resnet18_cifar", {"num_classes": 3}),
    ("timm/resnet18_cifar", {"num_classes": 3, "img_size": 32}),  # an argument that does not apply to it
    ("timm/vit_tiny_patch16_224", {"num_classes": 3, "img_size": 32, "patch_size": 8, "depth": 1}),
]
CLASSES = ("a", "b", "c")


@pytest.mark.parametrize(("name", "arguments"), MODELS)
def test_a_module_comes_back_as_it_was(tmp_path, name, arguments):
    module = build_model(name, arguments, CLASSES)
    pixels = PixelInput(8, 3, (0.1, 0.2, 0.3), (0.5,))
    saved = Checkpoint(module.state_dict(), name, arguments, CLASSES, pixels, {"epochs": 3})
    save_checkpoint(saved, tmp_path / "model.safetensors")
    found = read_checkpoint(tmp_path / "model.safetensors")
    assert (found.model, found.classes, found.input, found.training) == (name, CLASSES, pixels, {"epochs": 3})
    again = restore_module(found)
    assert not again.training
    assert type(again) is type(module)
    for key, value in module.state_dict().items():
        assert torch.equal(again.state_dict()[key], value)


def test_the_metadata_is_one_json_object_that_others_can_read(tmp_path):
    save_checkpoint(Checkpoint({"w": torch.ones(2)}, "vit-micro", {"depth": 1}, ("a",)), tmp_path / "m.safetensors")
    with safe_open(tmp_path / "m.safetensors", framework="pt") as file:
        facts = json.loads(file.metadata()["vitscope"])
    assert facts == {
        "model": "vit-micro",
        "arguments": {"depth": 1},
        "classes": ["a"],
        "preprocessing": None,
        "training": {},
    }


def test_a_file_of_someone_elses_has_weights_only(tmp_path):
    save_file({"w": torch.ones(2)}, tmp_path / "m.safetensors")
    found = read_checkpoint(tmp_path / "m.safetensors")
    assert found.model is None
    assert torch.equal(found.weights["w"], torch.ones(2))
    with pytest.raises(UserError, match="does not name its model; give the architecture"):
        restore_module(found)


@pytest.mark.parametrize("wrap", [{}, {"state_dict": 0}, {"model": 0}, {"model_state_dict": 0}])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_weights_in_pytorchs_format(tmp_path, wrap, prefix):
    weights = {f"{prefix}w": torch.arange(3.0)}
    torch.save({key: weights for key in wrap} or weights, tmp_path / "m.pt")
    assert torch.equal(read_checkpoint(tmp_path / "m.pt").weights["w"], torch.arange(3.0))


class Hostile:
    ran = False

    def __reduce__(self):
        return (setattr, (Hostile, "ran", True))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m.pt", pickle.dumps(Hostile()), "cannot be read as weights alone.*a pickled model is never run"),
        ("m.pt", b"", "m.pt is empty, and holds no weights that can be read"),
        ("m.safetensors", b"\x08\x00\x00", "cannot be read as safetensors .*it may have been cut short"),
    ],
)
def test_a_bad_file_is_named_and_nothing_in_it_runs(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_checkpoint(tmp_path / name)
    assert not Hostile.ran


def test_a_missing_file_and_one_without_weights(tmp_path):
    with pytest.raises(UserError, match="There is no checkpoint file"):
        read_checkpoint(tmp_path / "m.safetensors")
    torch.save([1, 2], tmp_path / "m.pt")
    with pytest.raises(UserError, match="holds a list that is not a state_dict of tensors"):
        read_checkpoint(tmp_path / "m.pt")


def write_half(path, error):
    with atomic_file(path) as file:
        file.write(b"ha")
        raise error


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_half_written_file_never_replaces_a_good_one(tmp_path, error):
    path = tmp_path / "state"
    path.write_bytes(b"good")
    with pytest.raises(error):
        write_half(path, error)
    assert path.read_bytes() == b"good"
    assert list(tmp_path.iterdir()) == [path]


def test_until_it_is_whole_the_old_file_is_read(tmp_path):
    path = tmp_path / "state"
    path.write_bytes(b"old")
    with atomic_file(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"


def test_cifar_resnet_by_hand():
    module = build_model("timm/resnet18_cifar", {}, None).eval()
    convolutions = 3 * 64 * 9 + 4 * 64 * 64 * 9
    convolutions += sum(n // 2 * n * 9 + 3 * n * n * 9 + n // 2 * n for n in (128, 256, 512))
    norms = 2 * (64 * 5 + 5 * (128 + 256 + 512))
    assert sum(p.numel() for p in module.parameters()) == convolutions + norms + 512 * 10 + 10 == 11_173_962
    with torch.inference_mode():
        assert module.forward_features(torch.zeros(1, 3, 32, 32)).shape == (1, 512, 4, 4)
