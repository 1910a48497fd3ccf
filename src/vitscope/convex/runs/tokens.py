"""What a head looks at: the weight that it gives each patch of example images, and the pairs of entries it reads."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float64, Int
from sklearn.cluster import KMeans
from torch import Tensor

from vitscope.convex.block import Term
from vitscope.convex.runs.data import HeadData
from vitscope.convex.runs.group import GroupWords, exact, group
from vitscope.convex.trained import Member, Trained
from vitscope.measurement.quantity import Quantity
from vitscope.models.subject import Preprocessing

EXAMPLES = 6
SHOWN_HEADS = 3
CLUSTERED_HEADS = 8
CLUSTERS = 4
READ = 256
"""A kind of head takes further readings on at most this many training images."""
_PIXELS = 56
_CONSTANT = 1e-9
"""Weights whose deviation is at most this share of the largest weight vary only by rounding."""

_LUMINANCE = Quantity(
    "luminance",
    "Example image",
    "1",
    "Brightness of the image as the model gets it, 0 is black and 1 is white.",
    "Neither.",
)
_CLUSTERS = Quantity(
    "token_cluster",
    "Cluster of patches",
    "1",
    "Patches to which the leading heads give similar weights; cluster 1 has the most patches.",
    "Neither.",
)
_REST = """

    The heads shown have the largest singular values, under any gate. Tokens are standardised as in the fit. Clusters:
    seeded k-means of the patches of these examples by the weights of up to 8 heads, each head's scaled to mean 0 and
    variance 1 within each image. Examples are test images, drawn by the seed, of each class in proportion to its size.
    For an ensemble, all is of the first member."""


@dataclass(frozen=True)
class Leading:
    """The place of a head: its term, and its place among the term's heads."""

    term: int
    place: int


def leading(member: Member, count: int) -> tuple[Leading, ...]:
    """The largest heads of all terms."""
    sizes = [
        (float(left.double().norm() * right.double().norm()), Leading(t, h))
        for t, factors in enumerate(member.heads.terms)
        for h, (left, right) in enumerate(zip(factors.left, factors.right, strict=True))
    ]
    return tuple(head for _, head in sorted(sizes, key=lambda one: -one[0])[:count])


def token_weights(
    trained: Trained, member: Member, heads: tuple[Leading, ...], tokens: Float64[Tensor, "images tokens dim"]
) -> Float64[Tensor, "images heads tokens"]:
    """The weight that each of these heads gives each token of images, as the group's definition says."""
    found: list[Tensor] = []
    for head in heads:
        term, left = member.terms[head.term], member.heads.terms[head.term].left[head.place].double()
        seen = tokens[:, :, term.entries]
        passing = _passing(trained, term, seen, left)
        found.append(trained.block.token_weights(seen, left, passing))
    return torch.stack(found, 1)


def _passing(trained: Trained, term: Term, tokens: Tensor, left: Tensor) -> Tensor:
    """1 where a head's activity passes, 0 elsewhere."""
    if trained.relu:
        return (trained.block.inward(tokens, left[None], True) >= 0)[:, 0].double()
    if term.vector is None:
        return torch.ones_like(trained.block.inward(tokens, left[None], True)[:, 0])
    return trained.block.passes(tokens, term.vector.to(tokens.device), True).double()


def token_group(trained: Trained, member: Member, data: HeadData, seed: int) -> Mapping[str, xr.Dataset]:
    """The group of token weights; none for a head that sees only the mean token, or that has no heads."""
    heads = leading(member, CLUSTERED_HEADS)
    if trained.block.of_mean or not heads:
        return {}
    rows = _examples(data, seed)
    tokens = torch.from_numpy(np.array(data.test.tokens[rows], dtype=np.float64))
    weights = token_weights(trained, member, heads, trained.standardisation(tokens)).numpy()[:, :, data.test.prefix :]
    grid = weights.reshape(*weights.shape[:2], *data.test.grid)
    clusters = cluster_tokens(weights, seed).reshape(len(rows), *data.test.grid)
    shown = grid[:, :SHOWN_HEADS]
    weight = Quantity("token_weight", "Weight of a patch", "1", "How much a head makes of the patch.", "Neither.")
    names = {"example": ("example", _names(data, rows), {"long_name": "image"})}
    place = {"convex_head": ("convex_head", [f"{i + 1}" for i in range(shown.shape[1])], {"long_name": "head"})}
    pictures = np.stack([_luminance(data, int(row)) for row in rows])
    parts = (
        exact(_LUMINANCE, pictures, ("example", "pixel_row", "pixel_column"), names),
        exact(weight, shown, ("example", "convex_head", "height", "width"), {**names, **place}),
        exact(_CLUSTERS, clusters.astype(np.float64), ("example", "height", "width"), names),
    )
    words = GroupWords("Weights of patches", "What does it look at?", trained.block.weight + _REST)
    return {"convex-tokens": group(words, parts)}


def cluster_tokens(weights: Float64[np.ndarray, "images heads tokens"], seed: int) -> Int[np.ndarray, "images tokens"]:
    """Clusters of tokens by their weights under all heads, from 1, the largest cluster first.

    Each head's weights are scaled to mean 0 and variance 1 within each image, so tokens are compared with those of
    their own image, whatever an image's weights are as a whole.
    """
    images, heads, tokens = weights.shape
    centred = weights - weights.mean(2, keepdims=True)
    spread = centred.std(2, keepdims=True)
    varies = spread > _CONSTANT * np.abs(weights).max()
    rows = (centred / np.where(varies, spread, np.inf)).transpose(0, 2, 1).reshape(-1, heads)
    count = min(CLUSTERS, len(np.unique(rows, axis=0)))
    found = cast(Any, KMeans)(count, n_init=10, random_state=seed).fit_predict(rows)
    order = np.argsort(-np.bincount(found, minlength=count), kind="stable")
    return (np.argsort(order)[found] + 1).reshape(images, tokens)


def _examples(data: HeadData, seed: int) -> Int[np.ndarray, " examples"]:
    """The rows of the examples in the test features."""
    labelled = data.images.test.take(data.test.positions).sample(EXAMPLES, seed)
    return np.flatnonzero(np.isin(data.images.test.positions[data.test.positions], labelled.positions))


def _names(data: HeadData, rows: Int[np.ndarray, " examples"]) -> list[str]:
    """The examples' names: their class, and their number among the test images."""
    classes = data.training.classes
    words = [str(label) if classes is None else classes[label] for label in data.test_labels[rows].tolist()]
    return [f"{word} ({number})" for word, number in zip(words, data.test.positions[rows].tolist(), strict=True)]


def _luminance(data: HeadData, row: int) -> Float64[np.ndarray, "height width"]:
    """An image as the model gets it, in grey from 0 to 1, at most 56 pixels a side."""
    preprocessing = data.subject.preprocessing
    pixels = preprocessing.transform(data.images.test.read(int(data.test.positions[row]))).double()
    grey = _in_grey(pixels, preprocessing)
    size = (min(_PIXELS, grey.shape[0]), min(_PIXELS, grey.shape[1]))
    return torch.nn.functional.adaptive_avg_pool2d(grey[None], size)[0].numpy()


def _in_grey(pixels: Tensor, preprocessing: Preprocessing) -> Tensor:
    if preprocessing.mean is None or preprocessing.std is None:
        pixels = (pixels - pixels.min()) / (pixels.max() - pixels.min()).clamp(min=1e-12)
    else:
        mean, std = (
            torch.tensor(each, dtype=pixels.dtype)[:, None, None] for each in (preprocessing.mean, preprocessing.std)
        )
        pixels = pixels * std + mean
    weights = (
        pixels.new_tensor([0.299, 0.587, 0.114])
        if len(pixels) == 3
        else pixels.new_full((len(pixels),), 1 / len(pixels))
    )
    return torch.einsum("c,chw->hw", weights, pixels).clamp(0, 1)


def further_groups(trained: Trained, member: Member, data: HeadData, seed: int) -> Mapping[str, xr.Dataset]:
    """The kind of head's further readings, of heads under fixed gates; on at most 256 training images."""
    if trained.relu or member.heads.count == 0:
        return {}
    rows = np.sort(np.random.default_rng(seed).permutation(len(data.labels))[:READ])
    tokens = trained.standardisation(torch.from_numpy(np.array(data.training.tokens[rows], dtype=np.float64)))
    return trained.block.readings(member.terms, member.heads, tokens)
