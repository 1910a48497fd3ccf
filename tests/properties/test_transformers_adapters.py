"""What transformers' adapters refuse, and that Swin's windows say truly which token stands where."""

import pytest
import torch
from torch import nn
from transformers import (
    CLIPConfig,
    CLIPModel,
    SwinConfig,
    SwinModel,
    ViTConfig,
    ViTMAEConfig,
    ViTMAEModel,
    ViTModel,
)

from vitscope.measurement.errors import UserError
from vitscope.models.adapter import AbstractAdapter
from vitscope.models.transformers.clip import ClipAdapter
from vitscope.models.transformers.swin import SwinAdapter
from vitscope.models.transformers.vit import VitAdapter
from vitscope.models.transformers.vit_mae import VitMaeAdapter

SMALL = {
    "hidden_size": 12,
    "num_hidden_layers": 1,
    "num_attention_heads": 3,
    "intermediate_size": 16,
    "image_size": 16,
    "patch_size": 8,
}


def swin(pooled: bool = True) -> SwinModel:
    torch.manual_seed(0)
    config = SwinConfig(image_size=40, patch_size=4, embed_dim=8, depths=[2, 2], num_heads=[2, 4], window_size=4)
    return SwinModel(config, add_pooling_layer=pooled).eval()


def clip() -> CLIPModel:
    text = {"hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 3, "intermediate_size": 16}
    return CLIPModel(CLIPConfig(vision_config=SMALL, text_config=text))


def foreign_attention() -> ViTModel:
    model = ViTModel(ViTConfig(**SMALL))
    model.layers[0].attention = nn.Identity()
    return model


def foreign_block() -> ViTModel:
    model = ViTModel(ViTConfig(**SMALL))
    model.layers[0] = nn.Identity()
    return model


@pytest.mark.parametrize(
    ("adapter", "module", "message"),
    [
        (VitMaeAdapter, ViTMAEModel(ViTMAEConfig(**SMALL)), "hides a share of 0.75 of the patches"),
        (ClipAdapter, clip(), "examine its vision_model"),
        (SwinAdapter, swin(pooled=False), "no pooling layer"),
        (VitAdapter, foreign_attention(), "layers.0.attention is a Identity"),
        (VitAdapter, foreign_block(), "layers.0 is a Identity; only a ViTLayer or"),
    ],
)
def test_what_cannot_be_read_is_named(adapter: type[AbstractAdapter], module, message):
    with pytest.raises(UserError, match=message):
        adapter.anatomy(module)


def test_a_grid_smaller_than_the_window_is_named():
    anatomy = SwinAdapter.anatomy(swin())
    with pytest.raises(UserError, match=r"encoder.layers.0.blocks.0.attention meets a grid of 3 x 3 tokens"):
        anatomy.units[0](anatomy.stem(torch.zeros(1, 3, 12, 12)))


@pytest.mark.parametrize("block", [0, 1])
def test_swin_values_are_those_of_the_named_tokens(block):
    model = swin()
    unit = SwinAdapter.anatomy(model).units[2 * block]
    stream = SwinAdapter.anatomy(model).stem(torch.randn(2, 3, 40, 40, generator=torch.Generator().manual_seed(0)))
    layer = model.encoder.layers[0].blocks[block]
    with torch.inference_mode():
        attention = unit.project(stream)
        normed = layer.layernorm_before(stream.values)
        padded = torch.cat([normed, torch.zeros_like(normed[:, :1])], dim=1)  # token -1 is padding
        expected = layer.attention.v_proj(padded)[:, attention.key_tokens]
        torch.testing.assert_close(attention.values.transpose(2, 3).flatten(3), expected)
    assert attention.key_tokens.shape == (9, 16)
    assert sorted(attention.key_tokens.flatten().tolist()) == [-1] * 44 + list(range(100))


def test_swin_is_read_without_being_changed_where_upstream_clamps_its_shift():
    model = swin()
    images = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    layer = model.encoder.layers[1].blocks[1]
    with torch.inference_mode():
        anatomy = SwinAdapter.anatomy(model)
        stream = anatomy.stem(images)
        for unit in anatomy.units:
            stream = unit(stream)
        assert layer.shift_size == 2
        torch.testing.assert_close(anatomy.tail(stream), model(images).pooler_output)
    assert layer.shift_size == 0


def test_a_stage_begins_with_its_downsampling():
    places = [(place.kind.value, place.stage, place.block) for place in SwinAdapter.anatomy(swin()).places]
    halves = [[("attention", block // 2, block), ("mlp", block // 2, block)] for block in range(4)]
    assert places == [*halves[0], *halves[1], ("downsampling", 1, 2), *halves[2], *halves[3]]
