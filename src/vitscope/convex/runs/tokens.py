"""What a head looks at: the weight that it gives each patch of example images, and the pairs of entries it reads."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float64, Int
from scipy.stats import spearmanr
from sklearn.cluster import KMeans
from torch import Tensor

from vitscope.convex.block import AbstractBlock
from vitscope.convex.blocks.attention import Attention
from vitscope.convex.blocks.linear import Linear
from vitscope.convex.blocks.mixer import Mixer
from vitscope.convex.gates import Term
from vitscope.convex.heads import Factors
from vitscope.convex.runs.data import HeadData
from vitscope.convex.runs.group import Words, exact, group, number
from vitscope.convex.trained import Member, Trained
from vitscope.measurement.quantity import Quantity
from vitscope.models.subject import Preprocessing

EXAMPLES = 6
SHOWN_HEADS = 3
CLUSTERED_HEADS = 8
CLUSTERS = 4
GRAM_IMAGES = 256
"""Training images whose Gram matrices are averaged."""
GRAM_ENTRIES = 64
"""Entries of a token that the maps show."""
_PIXELS = 56
_CONSTANT = 1e-9
"""Weights whose deviation is at most this part of the largest weight do not vary but for rounding."""

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
    "Patches to which the leading heads give alike weights; cluster 1 has most patches.",
    "Neither.",
)
_CORRELATION = Quantity(
    "gram_correlation",
    "Rank correlation of Gram weight and block size",
    "1",
    "Spearman's correlation, over pairs of entries, of the mean Gram weight and the block's norm.",
    "Neither.",
)
_GRAM = Quantity(
    "gram_weight",
    "Mean Gram weight",
    "1",
    "How much a pair of entries weighs in an image's sum of linear models, whatever the head does with it.",
    "Neither.",
)
_BLOCK = Quantity(
    "block_norm",
    "Norm of the block",
    "1",
    "How large the head's linear model of that pair of entries is. A pair of no weight is not forced to 0.",
    "Neither.",
)

_ATTENTION = r"""The weight of a patch ``t`` is the mean over queries ``q`` of its score under head ``h``:

    .. math:: \frac1s \sum_q \sigma(x_q^T U_h x_t)

    with the gate's zeros where the activation is gated: the head's output is the sum of the patches with these weights,
    read out by ``V_h``."""
_MIXER = r"""The weight of a patch ``t`` is the mean over output tokens ``a`` (and, under gates, entries ``k``) of the
    mixing matrix:

    .. math:: \frac1{s d} \sum_{a, k} M_{ak} U_h[a, t]

    Without gates it is the same for every image."""
_NEURON = r"""The weight of a patch is its part of the head's activity before the readout: the activity, a mean over
    tokens or shifts, is linear in the patches once the gates are decided, and is the sum of these parts."""
_REST = """

    Shown are the heads with the largest singular values, under whatever gate. Tokens are standardised as in the fit.
    Clusters: k-means, seeded, of the patches of these examples by the weights of up to 8 heads, each head's brought to
    mean 0 and variance 1 within each image. Examples are test images, drawn by the seed, of each class in
    proportion to its size. Of an ensemble the first member's."""
_GRAM_WORDS = Words(
    "Pairs of entries",
    "What does it look at?",
    r"""Lifted, an attention head is a sum of linear models, one for each pair of a key's entry ``k`` and a value's
    entry ``l``, weighted by the (gated) Gram matrix of the image: :math:`f(X) = \sum_{kl} G_{kl}\, X Z^{(kl)}`, with
    :math:`G_{kl} = \sum_t m_t\, x_{tk} x_{tl}` and ``m_t`` the share of queries whose gate key ``t`` passes. The Gram
    weight is the mean of :math:`|G_{kl}|` over 256 training images at most and over gates, the block's norm the
    Frobenius norm of :math:`Z^{(kl)}` over all gates. The nuclear norm makes ``Z`` low in rank, not sparse in blocks:
    a small block is an outcome and no rule. Maps show the first 64 entries; the correlation is over all.""",
)


@dataclass(frozen=True)
class Leading:
    """A head among those of all terms."""

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
        if isinstance(trained.block, Attention):
            scores = trained.block.inward(seen, left[None], True)[:, 0]
            found.append((scores * passing).mean(1))
        elif isinstance(trained.block, Mixer):
            matrix = left.unflatten(0, (tokens.shape[1], tokens.shape[1]))
            found.append(torch.einsum("iad,at->it", passing, matrix) / seen[0].numel())
        else:
            found.append(_parts(trained.block, seen, left, passing))
    return torch.stack(found, 1)


def _passing(trained: Trained, term: Term, tokens: Tensor, left: Tensor) -> Tensor:
    """1 where a head's activity passes, 0 elsewhere."""
    if trained.relu:
        return (trained.block.inward(tokens, left[None], True) >= 0)[:, 0].double()
    if term.vector is None:
        return torch.ones_like(trained.block.inward(tokens, left[None], True)[:, 0])
    return trained.block.passes(tokens, term.vector.to(tokens.device), True).double()


def _parts(block: AbstractBlock, tokens: Tensor, left: Tensor, passing: Tensor) -> Tensor:
    """Each token's part of the mean activity that passes, which is linear in the tokens."""
    with torch.enable_grad():
        varied = tokens.clone().requires_grad_()
        activity = (block.inward(varied, left[None], True)[:, 0] * passing).flatten(1).mean(1)
        (gradient,) = torch.autograd.grad(activity.sum(), varied)
    return (gradient * tokens).sum(2)


def token_group(trained: Trained, member: Member, data: HeadData, seed: int) -> Mapping[str, xr.Dataset]:
    """The group of token weights; none for a head that sees only the mean token, or that has no heads."""
    heads = leading(member, CLUSTERED_HEADS)
    if isinstance(trained.block, Linear) or not heads:
        return {}
    rows = _examples(data, seed)
    tokens = torch.from_numpy(np.array(data.test.tokens[rows], dtype=np.float64))
    weights = token_weights(trained, member, heads, trained.standardisation(tokens)).numpy()[:, :, data.test.prefix :]
    grid = weights.reshape(*weights.shape[:2], *data.test.grid)
    clusters = clustered(weights, seed).reshape(len(rows), *data.test.grid)
    shown = grid[:, :SHOWN_HEADS]
    weight = Quantity("token_weight", "Weight of a patch", "1", "How much a head makes of the patch.", "Neither.")
    names = {"example": ("example", _names(data, rows), {"long_name": "image"})}
    place = {"convex_head": ("convex_head", [f"{i + 1}" for i in range(shown.shape[1])], {"long_name": "head"})}
    pictures = np.stack([_luminance(data, int(row)) for row in rows])
    kind = _said(trained.block)
    parts = (
        exact(_LUMINANCE, pictures, ("example", "pixel_row", "pixel_column"), names),
        exact(weight, shown, ("example", "convex_head", "height", "width"), {**names, **place}),
        exact(_CLUSTERS, clusters.astype(np.float64), ("example", "height", "width"), names),
    )
    return {"convex-tokens": group(Words("Weights of patches", "What does it look at?", kind + _REST), parts)}


def _said(block: AbstractBlock) -> str:
    """What the weight of a patch is."""
    if isinstance(block, Attention):
        return _ATTENTION
    return _MIXER if isinstance(block, Mixer) else _NEURON


def clustered(weights: Float64[np.ndarray, "images heads tokens"], seed: int) -> Int[np.ndarray, "images tokens"]:
    """Clusters of tokens by their weights under all heads, from 1, the largest cluster first.

    Each head's weights are brought to mean 0 and variance 1 within each image, so that tokens are compared with those
    of their own image, whatever an image's weights are as a whole.
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
    """Rows of the test features."""
    labelled = data.images.test.take(data.test.positions).sample(EXAMPLES, seed)
    return np.flatnonzero(np.isin(data.images.test.positions[data.test.positions], labelled.positions))


def _names(data: HeadData, rows: Int[np.ndarray, " examples"]) -> list[str]:
    """What the examples are called: their class, and their number among the test images."""
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


def gram_group(trained: Trained, member: Member, data: HeadData, seed: int) -> Mapping[str, xr.Dataset]:
    """The group of Gram weights and block norms; only of attention whose gates are fixed, and that has heads."""
    if not isinstance(trained.block, Attention) or trained.relu or member.heads.count == 0:
        return {}
    random = np.random.default_rng(seed)
    rows = np.sort(random.permutation(len(data.labels))[:GRAM_IMAGES])
    tokens = trained.standardisation(torch.from_numpy(np.array(data.training.tokens[rows], dtype=np.float64)))
    weight = torch.stack([mean_gram(trained, term, tokens) for term in member.terms]).mean(0)
    squares = torch.stack([block_squares(factors, trained.sizes.dim) for factors in member.heads.terms if len(factors)])
    norm = squares.sum(0).sqrt()
    correlation = float(cast(Any, spearmanr(weight.flatten().numpy(), norm.flatten().numpy())).statistic)
    shown = min(GRAM_ENTRIES, len(weight))
    axes = ("key_entry", "value_entry")
    coords = {axis: (axis, np.arange(1, shown + 1), {"long_name": f"entry of the {axis[:-6]}"}) for axis in axes}
    parts = (
        number(_CORRELATION, correlation),
        exact(_GRAM, weight[:shown, :shown].numpy(), axes, coords),
        exact(_BLOCK, norm[:shown, :shown].numpy(), axes, coords),
    )
    return {"convex-gram": group(_GRAM_WORDS, parts)}


def mean_gram(trained: Trained, term: Term, tokens: Float64[Tensor, "images tokens dim"]) -> Float64[Tensor, "dim dim"]:
    """The mean over images of the sizes of a gate's Gram matrix."""
    shares = torch.ones(tokens.shape[:2], dtype=tokens.dtype)
    if term.vector is not None:
        shares = torch.cat([trained.block.passes(one[None], term.vector, True).double().mean(1) for one in tokens])
    return torch.einsum("it,itk,itl->ikl", shares, tokens, tokens).abs().mean(0)


def block_squares(factors: Factors, dim: int) -> Float64[Tensor, "dim dim"]:
    """The squared Frobenius norm of every block ``Z^(k,l)`` of an attention head's lifted variable.

    ``Z`` is never formed: the sum over pairs of heads of the products of their columns ``U[:, k]`` and rows ``V[l]``.
    """
    left, right = factors.left.double().unflatten(1, (dim, dim)), factors.right.double()
    keys, values = torch.einsum("hdk,gdk->khg", left, left), torch.einsum("hlo,glo->lhg", right, right)
    return torch.einsum("khg,lhg->kl", keys, values).clamp(min=0)
