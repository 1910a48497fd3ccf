"""What a model's name leaves open, said on the command line."""

import pytest
import torch
from checkpoint_files import small

from vitscope.cli import main
from vitscope.cli.model import ModelRequest, arguments, sides
from vitscope.measurement.errors import UserError


@pytest.mark.parametrize(
    ("text", "expected"), [("96", (96, 96)), ("64x256", (64, 256)), (" 64 X 256".lower(), (64, 256)), (None, None)]
)
def test_sizes_are_sides_or_height_and_width(text, expected):
    assert sides(text) == expected


@pytest.mark.parametrize("text", ["", "0", "-3", "3x", "3.5", "axb", "1x2x3", "123456"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(UserError, match="--image-size takes a side or height x width in pixels"):
        sides(text)


def test_arguments_are_literals_or_texts():
    given = arguments(["patch_size=8", "global_pool=avg", "depths=(1, 2)", "bias=None", "act_layer='gelu'", "a=b=c"])
    assert given == {
        "patch_size": 8, "global_pool": "avg", "depths": (1, 2), "bias": None, "act_layer": "gelu", "a": "b=c"
    }  # fmt: skip


@pytest.mark.parametrize("texts", [["depth"], ["=3"], ["a b=3"], ["depth=1", "depth=2"]])
def test_what_is_no_argument_is_refused(texts):
    with pytest.raises(UserError, match="--set"):
        arguments(texts)


def test_averaged_and_raw_weights_are_not_both_taken():
    with pytest.raises(UserError, match="give only one of them"):
        ModelRequest(ema=True, raw=True)


def test_every_flag_reaches_the_model(tmp_path, monkeypatch, capsys):
    state = small(img_size=(32, 64), in_chans=1, num_classes=5).state_dict()
    torch.save({"state_dict": state, "state_dict_ema": state, "other": state}, tmp_path / "last.pth.tar")
    sizes = "--image-size 32x64 --channels 1 --classes 5 --raw --part state_dict"
    options = "--set depth=1 --set embed_dim=24 --set num_heads=3"
    command = f"vitscope anatomy timm/vit_tiny_patch16_224 --weights {tmp_path}/last.pth.tar {sizes} {options}"
    monkeypatch.setattr("sys.argv", command.split())
    with pytest.raises(SystemExit) as ended:
        main()
    shown = " ".join(capsys.readouterr().out.split())
    assert ended.value.code in (0, None)
    assert "5 classes" in shown
    assert "input: 1 x 32 x 64" in shown
    assert "the raw ones (state_dict), not the averaged ones (state_dict_ema)" in shown
