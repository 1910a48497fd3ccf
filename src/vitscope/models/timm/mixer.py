"""timm's MLP-Mixer, ResMLP and gMLP: token mixing without attention."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, cast, final

from timm.layers.mlp import GatedMlp, GluMlp
from timm.models.mlp_mixer import Affine, MixerBlock, MlpMixer, ResBlock, SpatialGatingBlock
from torch import Tensor, nn

from vitscope.measurement.errors import UserError
from vitscope.models.adapter import ADAPTERS, AbstractAdapter, Example
from vitscope.models.stream import Stream, token_stream
from vitscope.models.subject import Composition
from vitscope.models.unit import AbstractUnit, Place, Residual, Times, UnitKind


def transpose_map(values: Tensor) -> Tensor:
    """Tokens and channels exchanged."""
    return values.transpose(1, 2)


def _block_units(block: nn.Module, index: int) -> Iterator[AbstractUnit]:
    """Token mixing, then the channel MLP; gMLP's block mixes tokens inside its one MLP."""
    name = f"blocks.{index}"

    def place(kind: UnitKind, part: str) -> Place:
        return Place(kind, f"{name}.{part}", 0, index)

    if isinstance(block, SpatialGatingBlock):
        layers = (block.norm, block.mlp_channels, block.drop_path)
        yield Residual(place(UnitKind.TOKEN_MIXING, "mlp_channels"), layers)
    elif isinstance(block, MixerBlock):
        mixing = (block.norm1, transpose_map, block.mlp_tokens, transpose_map, block.drop_path)
        yield Residual(place(UnitKind.TOKEN_MIXING, "mlp_tokens"), mixing)
        yield Residual(place(UnitKind.MLP, "mlp_channels"), (block.norm2, block.mlp_channels, block.drop_path))
    elif isinstance(block, ResBlock):
        mixing = (block.norm1, transpose_map, block.linear_tokens, transpose_map, Times(block.ls1), block.drop_path)
        yield Residual(place(UnitKind.TOKEN_MIXING, "linear_tokens"), mixing)
        layers = (block.norm2, block.mlp_channels, Times(block.ls2), block.drop_path)
        yield Residual(place(UnitKind.MLP, "mlp_channels"), layers)
    else:
        found = type(block).__name__
        raise UserError(f"{name} is a {found}; MixerBlock, ResBlock and SpatialGatingBlock can be read.")


@ADAPTERS.add("timm/mixer")
@final
class MixerAdapter(AbstractAdapter):
    """``timm.models.MlpMixer``: MLP-Mixer, gMixer, ResMLP and gMLP."""

    name = "timm/mixer"

    @classmethod
    def matches(cls, module: nn.Module) -> bool:
        """Whether the module is a timm ``MlpMixer``."""
        return isinstance(module, MlpMixer)

    @classmethod
    def anatomy(cls, module: nn.Module) -> Composition:
        """Patch embedding; token mixing and MLP of every block; norm, pooling and head."""
        model = cast(MlpMixer, module)

        def stem(images: Tensor) -> Stream:
            grid = model.stem.dynamic_feat_size((images.shape[2], images.shape[3]))
            return token_stream(model.stem(images), grid)

        def tail(stream: Stream) -> Tensor:
            return model.forward_head(model.norm(stream.values))

        units = tuple(unit for i, block in enumerate(model.blocks) for unit in _block_units(block, i))
        return Composition(stem, units, tail)

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        """MLP-Mixer, its gated variant, ResMLP, gMLP, a wide image."""
        mixer = cast(Callable[..., nn.Module], MlpMixer)
        build = partial(mixer, img_size=32, patch_size=8, num_blocks=2, embed_dim=16, num_classes=7)
        shape = (3, 32, 32)
        gated: dict[str, Any] = {"mlp_layer": GluMlp, "act_layer": nn.SiLU, "mlp_ratio": (1.0, 4.0)}
        resmlp: dict[str, Any] = {"block_layer": ResBlock, "norm_layer": Affine, "mlp_ratio": 4}
        gmlp: dict[str, Any] = {"block_layer": SpatialGatingBlock, "mlp_layer": GatedMlp, "mlp_ratio": 6}
        return (
            Example("mlp-mixer", build, shape),
            Example("gated mixer", partial(build, **gated), shape),
            Example("resmlp", partial(build, **resmlp), shape),
            Example("gmlp", partial(build, **gmlp), shape),
            Example("wide image", partial(build, img_size=(32, 48), stem_norm=True), (3, 32, 48)),
        )
