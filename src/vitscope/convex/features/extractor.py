"""The module that turns images into token features: a subject's walk to its last stream, and a recipe."""

import copy
from dataclasses import dataclass
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from vitscope.convex.features.projection import Projection
from vitscope.convex.features.recipe import TokenRecipe
from vitscope.measurement.errors import UserError
from vitscope.models import feed
from vitscope.models.attention import Attention
from vitscope.models.edit import with_module
from vitscope.models.probe import probe
from vitscope.models.stream import Stream
from vitscope.models.subject import AbstractAnatomy, AbstractObserver, Composition, Subject, refuse_if_random

_EPS = 1e-6
"""Added to the variance by the LayerNorm that normalises tokens."""


@final
class TokenExtractor(nn.Module):
    """Images to tokens: stem and units of the subject, then normalise, pool and project as the recipe says.

    Without edits it is the model without its tail; edits that change the walk apply here too. It shares the subject's
    module (as ``module``), whose weights are neither copied nor changed; moving the extractor to a device moves that
    module too, and ``copy.deepcopy`` copies it. Buffers ``mean`` (dim) and ``components`` (dim, width) are None if
    nothing is projected. Works with ``torch.jit.trace``, ``torch.export`` and ``torch.onnx.export`` if the subject's
    walk does, for images of the size it is traced with.
    """

    mean: Tensor | None
    components: Tensor | None

    def __init__(
        self, subject: Subject, recipe: TokenRecipe | None = None, projection: Projection | None = None
    ) -> None:
        super().__init__()
        self.subject = subject
        self.recipe = recipe or TokenRecipe()
        if (projection is None) != (self.recipe.width is None):
            given = "no projection was" if projection is None else "a projection was"
            raise UserError(f"The recipe has the width {self.recipe.width} and {given} given; give both or neither.")
        self.module = subject.module
        device = input_like(subject).device
        self.register_buffer("mean", None if projection is None else projection.mean.to(device))
        self.register_buffer("components", None if projection is None else projection.components.to(device))
        self.training = subject.module.training  # not by .eval(), which would reach into the subject's module

    @property
    def projection(self) -> Projection | None:
        """The projection of the tokens; None if they are not projected."""
        if self.mean is None or self.components is None:
            return None
        return Projection(self.mean.detach(), self.components.detach())

    def forward(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch tokens dim"]:
        """The tokens, in float32."""
        tokens = kept_tokens(last_stream(self.subject.anatomy, images), self.recipe)
        if self.mean is None or self.components is None:
            return tokens
        return (tokens - self.mean) @ self.components

    def __deepcopy__(self, memo: dict[int, Any]) -> "TokenExtractor":
        # An anatomy is bound to its module by closures, which a plain deep copy would leave bound to the old one.
        subject = with_module(self.subject, copy.deepcopy(self.module, memo))
        return TokenExtractor(subject, self.recipe, copy.deepcopy(self.projection, memo))


@dataclass
class _Last(AbstractObserver):
    """Keeps the last stream of a walk."""

    seen: Stream | None = None

    def stream(self, layer: int, stream: Stream) -> None:
        """Keep this stream in place of the one before."""
        del layer
        self.seen = stream

    def attention(self, layer: int, attention: Attention) -> Float[Tensor, "batch windows heads queries width"]:
        """The fused kernel's context."""
        return attention.context()


def last_stream(anatomy: AbstractAnatomy, images: Float[Tensor, "batch channels height width"]) -> Stream:
    """The stream after the last unit. Cost: the walk without its tail, or all of it if it is not taken apart."""
    if isinstance(anatomy, Composition):
        stream = anatomy.stem(images)
        for unit in anatomy.units:
            stream = unit(stream)
        return stream
    last = _Last()
    anatomy.walk(images, last)
    if last.seen is None:
        raise UserError("The model has no unit that gives tokens or a feature map; name such units when loading it.")
    return last.seen


def kept_tokens(stream: Stream, recipe: TokenRecipe) -> Float[Tensor, "batch tokens dim"]:
    """The stream's tokens in float32, prefix first if kept, normalised and pooled."""
    # int(...): while torch.jit traces, sizes are tensors, and exporters need them as constants.
    tokens = stream.tokens.float()
    if recipe.normalise:
        tokens = functional.layer_norm(tokens, (int(tokens.shape[-1]),), eps=_EPS)
    first, patches = tokens[:, : stream.prefix], tokens[:, stream.prefix :]
    if recipe.pool is not None:
        patches = average_patches(patches, (int(stream.grid[0]), int(stream.grid[1])), recipe.pool)
    return torch.cat((first, patches), dim=1) if recipe.prefix and stream.prefix else patches


def average_patches(
    patches: Float[Tensor, "batch patches dim"], grid: tuple[int, int], pool: int
) -> Float[Tensor, "batch cells dim"]:
    """The patches of ``grid`` averaged to ``pool x pool`` cells, those of adaptive average pooling.

    Computed by two products with constant matrices, because not every exporter takes
    ``torch.nn.functional.adaptive_avg_pool2d`` if ``pool`` does not divide the grid.
    """
    down, across = (_averages(side, pool).to(patches) for side in grid)
    rows = down @ patches.unflatten(1, grid).flatten(2)
    return (across @ rows.unflatten(2, (grid[1], -1))).flatten(1, 2)


def _averages(side: int, pool: int) -> Float[Tensor, "cells side"]:
    """Row i averages the entries from floor(i side / pool) to ceil((i + 1) side / pool), the last left out."""
    weights = [[0.0] * side for _ in range(pool)]
    for cell, row in enumerate(weights):
        start, stop = cell * side // pool, -(-(cell + 1) * side // pool)
        row[start:stop] = [1 / (stop - start)] * (stop - start)
    return torch.tensor(weights)


@final
@dataclass(frozen=True)
class TokenShape:
    """The tokens of one image: ``prefix`` kept prefix tokens, then the patches of ``grid`` row by row."""

    grid: tuple[int, int]
    prefix: int
    dim: int

    @property
    def tokens(self) -> int:
        """The number of tokens."""
        return self.prefix + self.grid[0] * self.grid[1]

    @property
    def row_bytes(self) -> int:
        """The bytes that they take in float32."""
        return self.tokens * self.dim * torch.float32.itemsize


def input_like(subject: Subject) -> Tensor:
    """A tensor of the type and on the device that the subject's input must have."""
    return feed.input_like(subject.module)


def token_shape(subject: Subject, recipe: TokenRecipe) -> TokenShape:
    """The shape of the subject's features under the recipe.

    Raises ``UserError`` if the subject is random, its last patches do not fill a grid or are too few to be pooled, or
    they have fewer entries than the recipe keeps. Cost: three forward passes of two images of noise.
    """
    noise = probe(subject, input_like(subject).dtype)
    refuse_if_random(subject, noise)
    with torch.inference_mode():
        stream = last_stream(subject.anatomy, noise)
    height, width = stream.grid
    if stream.kept is not None or stream.patches.shape[1] != height * width:
        raise UserError(
            f"{subject.name} ends with {stream.patches.shape[1]} patches that do not fill their grid of "
            f"{height} x {width}; take features of the model without the edit that removes tokens."
        )
    if recipe.pool is not None and recipe.pool > min(height, width):
        raise UserError(
            f"{subject.name} ends with {height} x {width} patches, fewer than the {recipe.pool} x {recipe.pool} of the "
            f"recipe; give a pool of at most {min(height, width)}."
        )
    dim = stream.patches.shape[2]
    if recipe.width is not None and recipe.width > dim:
        raise UserError(f"The tokens of {subject.name} have {dim} entries; give a width of at most {dim}.")
    grid = stream.grid if recipe.pool is None else (recipe.pool, recipe.pool)
    return TokenShape(grid, stream.prefix if recipe.prefix else 0, recipe.width or dim)
