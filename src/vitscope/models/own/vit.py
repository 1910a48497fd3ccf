"""A vision transformer that fits on a screen (Dosovitskiy et al. 2021, pre-norm), with registers or average pooling."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from vitscope.measurement.bounds import Bounds, check_number
from vitscope.measurement.errors import UserError
from vitscope.models.pixels import PixelInput


@dataclass(frozen=True)
class VitConfig:
    """A vision transformer's shape, and the normalisation of its input.

    ``pool`` says what the classifier sees: the class token, or the mean of the patch tokens (then there is no class
    token). ``registers`` are learned tokens without a position that carry no output (Darcet et al. 2024).
    ``drop_path`` is the rate at which training drops the last branch for a sample; it grows linearly from 0.
    """

    image: int = 32
    channels: int = 3
    patch: int = 4
    classes: int = 10
    dim: int = 64
    depth: int = 6
    heads: int = 4
    mlp_ratio: float = 4.0
    pool: Literal["class", "average"] = "class"
    registers: int = 0
    drop_path: float = 0.0
    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.5,)

    def __post_init__(self) -> None:
        for name, least in (("depth", 1), ("registers", 0), ("channels", 1)):
            check_number(name, getattr(self, name), Bounds(least, 10_000))
        for whole, part, names in ((self.image, self.patch, "image/patch"), (self.dim, self.heads, "dim/heads")):
            if part < 1 or whole % part:
                raise UserError(f"{names} is {whole}/{part}; the first must be a multiple of the second.")
        if self.dim % 4:
            raise UserError(f"dim is {self.dim}; it must be a multiple of 4.")
        if self.pool not in ("class", "average"):
            raise UserError(f"pool is {self.pool!r}; it can be 'class' or 'average'.")

    @property
    def prefix(self) -> int:
        """Tokens before the patches: the class token, if there is one, then the registers."""
        return (self.pool == "class") + self.registers

    @property
    def input(self) -> PixelInput:
        """The model's input for a picture."""
        return PixelInput(self.image, self.channels, self.mean, self.std)


SIZES = {
    "vit-micro": VitConfig(dim=64, depth=6, heads=4),
    "vit-tiny": VitConfig(image=224, patch=16, classes=1000, dim=192, depth=12, heads=3),
    "vit-small": VitConfig(image=224, patch=16, classes=1000, dim=384, depth=12, heads=6),
    "vit-base": VitConfig(image=224, patch=16, classes=1000, dim=768, depth=12, heads=12),
}


class SelfAttention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def project(self, x: Float[Tensor, "batch tokens dim"]) -> Float[Tensor, "3 batch heads tokens width"]:
        """Queries, keys and values."""
        return self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)

    def forward(self, x: Float[Tensor, "batch tokens dim"]) -> Float[Tensor, "batch tokens dim"]:
        """softmax(q kᵀ / √width) v, heads joined and projected."""
        queries, keys, values = self.project(x).unbind(0)
        context = functional.scaled_dot_product_attention(queries, keys, values)  # batch heads tokens width
        return self.proj(context.transpose(1, 2).flatten(2))


class DropPath(nn.Module):
    """Leaves the branch out of a sample with probability ``rate`` in training (Huang et al. 2016)."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Float[Tensor, "batch tokens dim"]) -> Float[Tensor, "batch tokens dim"]:
        """The branch, scaled to keep its mean."""
        if not self.training or self.rate == 0:
            return x
        return x * (x.new_empty(len(x), 1, 1).bernoulli_(1 - self.rate) / (1 - self.rate))


class Block(nn.Module):
    """Attention, then MLP, each on the normed stream and added to it."""

    def __init__(self, config: VitConfig, drop_path: float) -> None:
        super().__init__()
        hidden = int(config.dim * config.mlp_ratio)
        self.norm1 = nn.LayerNorm(config.dim)
        self.attn = SelfAttention(config.dim, config.heads)
        self.norm2 = nn.LayerNorm(config.dim)
        self.mlp = nn.Sequential(nn.Linear(config.dim, hidden), nn.GELU(), nn.Linear(hidden, config.dim))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Float[Tensor, "batch tokens dim"]) -> Float[Tensor, "batch tokens dim"]:
        """The stream after the block."""
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class Vit(nn.Module):
    """The model; ``class_names`` are its outputs' names if they are known."""

    def __init__(self, config: VitConfig, class_names: tuple[str, ...] | None = None) -> None:
        super().__init__()
        self.config, self.class_names = config, class_names
        side = config.image // config.patch
        self.patches = nn.Conv2d(config.channels, config.dim, config.patch, config.patch)
        self.prefix = nn.Parameter(torch.zeros(config.prefix, config.dim))
        self.positions = nn.Parameter(_waves(side, config.dim))
        rates = torch.linspace(0, config.drop_path, config.depth, device="cpu").tolist()
        self.blocks = nn.ModuleList(Block(config, rate) for rate in rates)
        self.norm = nn.LayerNorm(config.dim)
        self.head = nn.Linear(config.dim, config.classes)
        self.apply(_initialise)
        nn.init.trunc_normal_(self.prefix, std=0.02)

    def embed(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch tokens dim"]:
        """Prefix tokens, then patches row by row with their positions."""
        if images.shape[1:] != (expected := (self.config.channels, self.config.image, self.config.image)):
            raise UserError(f"The images are {tuple(images.shape[1:])}; this model was made for {expected}.")
        patches = self.patches(images).flatten(2).transpose(1, 2) + self.positions  # batch patches dim
        return torch.cat([self.prefix.expand(images.shape[0], -1, -1), patches], dim=1)

    def classify(self, x: Float[Tensor, "batch tokens dim"]) -> Float[Tensor, "batch classes"]:
        """Norm, class token or mean patch, linear classifier."""
        x = self.norm(x)
        return self.head(x[:, 0] if self.config.pool == "class" else x[:, self.config.prefix :].mean(1))

    def forward(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        """Logits."""
        x = self.embed(images)
        for block in self.blocks:
            x = block(x)
        return self.classify(x)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)


def _waves(side: int, dim: int) -> Float[Tensor, "patches dim"]:
    """Initial values of learned positions: sines and cosines of row and column, from 1 to 1/side radians a patch.

    Beyer et al. 2022 keep such positions fixed, down to 1/10000 radians, which distinguishes nothing on a small grid.
    """
    frequencies = side ** -torch.linspace(0, 1, dim // 4)
    angles = torch.arange(side)[:, None] * frequencies  # side dim/4
    line = torch.cat([angles.sin(), angles.cos()], dim=1)  # side dim/2
    rows, columns = line[:, None].expand(-1, side, -1), line[None].expand(side, -1, -1)
    return torch.cat([rows, columns], dim=2).flatten(0, 1)
