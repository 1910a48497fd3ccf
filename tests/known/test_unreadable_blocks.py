"""A model of a known family with a block that cannot be read is refused, and the block is named."""

from functools import partial

import pytest
import timm
from timm.models.beit import Beit
from timm.models.convnext import ConvNeXt
from timm.models.eva import Eva
from timm.models.mlp_mixer import MlpMixer
from torch import nn
from torchvision import models

from vitscope.measurement.errors import UserError
from vitscope.models.catalogue import adapter_of

SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3}

SWIN = partial(models.SwinTransformer, [4, 4], 8, [2], [2], [4, 4])
CONVNEXT = partial(models.ConvNeXt, [models.convnext.CNBlockConfig(8, None, 2)])


def replaced(module: nn.Module, parent: str, name: str, block: nn.Module) -> nn.Module:
    """The module with one block replaced."""
    setattr(module.get_submodule(parent), name, block)
    return module


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: timm.create_model("res2net50_26w_4s", layers=(1, 1, 1, 1)), "layer1.0 is a Bottle2neck"),
        (lambda: replaced(Beit(**SMALL), "blocks", "1", nn.Identity()), "blocks.1 is a Identity"),
        (lambda: replaced(Eva(**SMALL), "blocks.1", "attn", nn.Identity()), "blocks.1 is a EvaBlock with Identity"),
        (
            lambda: replaced(ConvNeXt(depths=(1, 1, 1, 1), dims=(8, 8, 8, 8)), "stages.2.blocks", "0", nn.Identity()),
            "stages.2.blocks.0 is a Identity",
        ),
        (
            lambda: replaced(MlpMixer(img_size=32, num_blocks=1, embed_dim=8), "blocks", "0", nn.Identity()),
            "blocks.0 is a Identity",
        ),
        (lambda: replaced(models.resnet18(), "layer2", "1", nn.Identity()), "layer2.1 is a Identity"),
        (
            lambda: replaced(
                models.VisionTransformer(32, 8, 1, 2, 16, 16),
                "encoder.layers.encoder_layer_0",
                "self_attention",
                nn.MultiheadAttention(16, 2, batch_first=True, add_bias_kv=True),
            ),
            "encoder.layers.encoder_layer_0 is a EncoderBlock with MultiheadAttention",
        ),
        (
            lambda: replaced(SWIN(), "features.1.1", "attn", nn.Identity()),
            "features.1.1 is a SwinTransformerBlock with Identity",
        ),
        (
            lambda: replaced(CONVNEXT(), "features.1", "0", nn.Identity()),
            "features.1.0 is a Identity",
        ),
    ],
)
def test_the_block_is_named(build, message):
    module = build()
    with pytest.raises(UserError, match=message):
        adapter_of(module).anatomy(module)
