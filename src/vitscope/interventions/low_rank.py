"""Linear layers replaced by two smaller ones in sequence."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from typing_extensions import override

from vitscope.data import Images
from vitscope.engine.intervention import INTERVENTIONS, AbstractIntervention
from vitscope.interventions.bypass import refuse_unknown
from vitscope.interventions.layer_inputs import Refit, input_moments
from vitscope.interventions.smaller import with_smaller_parts
from vitscope.measurement.bounds import SHARE, Bounds, bounded_field, check_number
from vitscope.measurement.errors import UserError
from vitscope.models.catalogue import adapter_of
from vitscope.models.edit import with_module
from vitscope.models.feed import module_input
from vitscope.models.hooks import record_runs, takes_hooks
from vitscope.models.own_forward import call_module, probe_images
from vitscope.models.rewritten import refuse_computed_kernels
from vitscope.models.state import buffers_kept
from vitscope.models.subject import Subject, Unwatched
from vitscope.models.surgery import with_matrix
from vitscope.numerics.moments import Scatter
from vitscope.numerics.precision import to_float64


@final
@dataclass(frozen=True)
class LowRankFactors:
    """A linear layer by name, as two in sequence: ``outward(inward x) + bias``, fitted to calibration images."""

    layer: str
    inward: Refit
    outward: Refit


@INTERVENTIONS.add("low-rank")
@final
@dataclass(frozen=True)
class LowRank(AbstractIntervention):
    r"""Linear layers replaced by two in sequence, of ``share`` of their weights.

    .. math:: W x + b \to U (V x) + b', \qquad r = s m n / (m + n)

    The rank :math:`r` is rounded down, for the share :math:`s` of the weights of an ``m x n`` matrix that stays.

    ``layers`` are units (from 1), all of them unless given. Every ``nn.Linear`` in them that runs once as a module of
    its own, and of which two layers have fewer weights, is replaced by an ``nn.Sequential`` of two. Without
    ``factors``, :math:`U V` is the truncated singular value decomposition of :math:`W`, the matrix of that rank nearest
    to it; with the ``factors`` of :meth:`fitted` it is the one with the least error on calibration images. A share of 1
    changes nothing. The module is a copy that shares all other weights with the original. This saves memory; whether
    it saves time must be measured.
    """

    share: float = bounded_field(0.5, SHARE)
    layers: tuple[int, ...] | None = None
    factors: tuple[LowRankFactors, ...] = ()
    name: ClassVar[str] = "low-rank"
    title: ClassVar[str] = "Linear layers of low rank"
    references: ClassVar[tuple[str, ...]] = (
        "Eckart and Young, The Approximation of One Matrix by Another of Lower Rank, Psychometrika 1936",
        "Yuan et al., ASVD: Activation-aware Singular Value Decomposition for Compressing Large Language Models, 2023",
    )
    changes_weights: ClassVar[bool] = True
    changes_shapes: ClassVar[bool] = True

    @override
    def __call__(self, subject: Subject) -> Subject:
        """The subject with these pairs of layers. Raises ``UserError`` if no layer of these units gets smaller."""
        if self.layers == () or (self.share == 1 and not self.factors):
            return subject
        linear = _linear_layers(subject, self.layers)
        factors = self.factors or _decompose(linear, self.share)
        if not factors:
            raise UserError(f"No linear layer of {subject.name} in these units gets smaller as two of {self.share:g}.")
        known, parts = {name: layer for name, (_, layer) in linear.items()}, dict[str, nn.Module]()
        for one in factors:
            if one.layer not in known or not _fits(known[one.layer], one):
                raise UserError(
                    f"The factors of {one.layer} fit no linear layer of {subject.name} in these units; "
                    "fit them to the present subject."
                )
            parts[one.layer] = _pair(known[one.layer], one)
        return with_smaller_parts(subject, parts, linear[factors[0].layer][0])

    @classmethod
    def fitted(
        cls,
        subject: Subject,
        images: Images,
        share: float | None = None,
        energy: float | None = None,
        layers: Sequence[int] | None = None,
        batch_size: int = 32,
    ) -> "LowRank":
        r"""The pairs of layers with the least error of their output on the images.

        Give the ``share`` of each layer's weights that stay, or the ``energy``, the share of the variance of each
        layer's output that stays; a layer of which two are not smaller stays whole. For inputs of covariance
        :math:`C` the mean squared error of the output is :math:`\lVert (W - UV)\, C^{1/2} \rVert_F^2`. Among all
        matrices of rank :math:`r` it is least for

        .. math:: U V = U_r U_r^\top W, \qquad W C W^\top = U \,\mathrm{diag}(\lambda)\, U^\top,

        with the :math:`r` leading columns :math:`U_r`: the principal components of the layer's output. A bias takes up
        the means; without a bias :math:`C` is the second moment about zero. The images need no labels.
        Cost: that of :func:`~vitscope.interventions.layer_inputs.input_moments` and an eigendecomposition of
        ``outputs x outputs`` for each layer.
        """
        if (share is None) == (energy is None):
            raise UserError("Give either the share of weights, or of the variance of each output (energy), that stays.")
        check_number("share" if energy is None else "energy", energy or share, Bounds(0, 1, above=0), whole=False)
        chosen = None if layers is None else tuple(layers)
        linear = {name: layer for name, (_, layer) in _linear_layers(subject, chosen).items()}
        seen = input_moments(subject, images, list(linear), batch_size)
        found: list[LowRankFactors] = []
        for name, layer in linear.items():
            moments = seen[name].scatter
            values, vectors = _output_components(layer, moments)
            rank = _rank_of(layer, share) if share is not None else _rank_of_energy(values, energy or 0.0)
            if rank and _saves(layer, rank):
                found.append(_project(name, layer, moments, vectors[:, :rank]))
        if not found:
            raise UserError(f"No linear layer of {subject.name} gets smaller as two at this share or energy.")
        return cls(share or _share_of(linear, found), chosen, tuple(found))

    @override
    @classmethod
    def examples(cls) -> "tuple[LowRank, ...]":
        """Half of the weights of the first three units, a third of all."""
        return cls(0.5, (1, 2, 3)), cls(0.34)

    @override
    @classmethod
    def nothing(cls) -> "tuple[LowRank, ...]":
        """All weights, and no unit."""
        return cls(1.0), cls(layers=())


def _linear_layers(subject: Subject, layers: tuple[int, ...] | None) -> dict[str, tuple[int, nn.Linear]]:
    """The linear layers in these units that run once, as modules, in the walk and in the module's own forward pass.

    Each comes with its layer. Raises ``UserError`` if there are none.
    """
    asked = tuple(range(1, len(subject.places) + 1)) if layers is None else layers
    refuse_unknown(asked, subject)
    refuse_computed_kernels(subject)
    within = {f"{subject.places[layer - 1].name}.": layer for layer in asked}
    found = {
        name: (within[unit], part)
        for name, part in subject.module.named_modules()
        for unit in within
        if name.startswith(unit) and isinstance(part, nn.Linear) and takes_hooks(part)
    }
    runs = _runs(subject, list(found))
    once = {name: one for name, one in found.items() if all(counted[name] == 1 for counted in runs)}
    if not once:
        where = f"{subject.places[asked[0] - 1].name}" if len(asked) == 1 else f"the {len(asked)} units asked for"
        raise UserError(f"{subject.name} has no linear layer of its own in {where} that could be made of low rank.")
    return once


def _runs(subject: Subject, names: Sequence[str]) -> tuple[Counter[str], Counter[str]]:
    """How often each of these submodules runs in the plain walk and in the module's own forward pass."""
    module, images = subject.module, probe_images(subject.preprocessing.shape)
    plain, adapter = with_module(replace(subject, edits=()), module), adapter_of(module)
    arguments = adapter.call_arguments(module, images) if adapter else {}
    with torch.no_grad(), buffers_kept(module):
        with record_runs(module, names) as walked:
            plain.anatomy.walk(module_input(module, images), Unwatched())
        with record_runs(module, names) as own:
            call_module(module, images, arguments)
    return Counter(walked), Counter(own)


def _rank_of(layer: nn.Linear, share: float) -> int:
    """The largest rank at which two layers have at most this share of the weights."""
    rows, columns = layer.weight.shape
    return int(share * rows * columns / (rows + columns))


def _rank_of_energy(values: Float[Tensor, " outputs"], energy: float) -> int:
    """The least rank that keeps this share of the variance; ``values`` are in descending order."""
    kept = values.cumsum(0) / values.sum().clamp(min=torch.finfo(torch.float64).tiny)
    return min(int((kept < energy).sum()) + 1, len(values))


def _saves(layer: nn.Linear, rank: int) -> bool:
    rows, columns = layer.weight.shape
    return rank * (rows + columns) < rows * columns


def _share_of(linear: Mapping[str, nn.Linear], factors: Sequence[LowRankFactors]) -> float:
    """How many weights these pairs have for one of the layers that they replace."""
    before = sum(linear[one.layer].weight.numel() for one in factors)
    return sum(one.inward.weight.numel() + one.outward.weight.numel() for one in factors) / before


def _decompose(linear: Mapping[str, tuple[int, nn.Linear]], share: float) -> tuple[LowRankFactors, ...]:
    """The truncated singular value decompositions of those layers that get smaller."""
    found: list[LowRankFactors] = []
    for name, (_, layer) in linear.items():
        rank = _rank_of(layer, share)
        if rank and _saves(layer, rank):
            weight = to_float64(layer.weight.detach())
            nothing = Scatter(torch.tensor(1), weight.new_zeros(weight.shape[1]), torch.eye(weight.shape[1]).to(weight))
            vectors = torch.linalg.svd(weight, full_matrices=False).U
            found.append(_project(name, layer, nothing, vectors[:, :rank]))
    return tuple(found)


def _output_components(
    layer: nn.Linear, seen: Scatter
) -> tuple[Float[Tensor, " outputs"], Float[Tensor, "outputs outputs"]]:
    """The variances of the output's principal components in descending order, and their directions as columns."""
    weight = to_float64(layer.weight.detach()).to(seen.products.device)
    moment = seen.products / seen.count.clamp(min=1)
    if not _is_biased(layer):
        moment = moment + torch.outer(seen.mean, seen.mean)
    values, vectors = torch.linalg.eigh(weight @ moment @ weight.T)
    return values.flip(0).clamp(min=0), vectors.flip(1)


def _project(name: str, layer: nn.Linear, seen: Scatter, onto: Float[Tensor, "outputs rank"]) -> LowRankFactors:
    """The layer with its output projected onto these orthonormal columns, about its mean if it has a bias."""
    weight = to_float64(layer.weight.detach()).to(onto.device)
    inward = onto.T @ weight
    like, offset = layer.weight, None
    if _is_biased(layer):
        offset = to_float64(layer.bias.detach()).to(onto.device) + (weight - onto @ inward) @ seen.mean
        offset = offset.to(like)
    return LowRankFactors(name, Refit(inward.to(like)), Refit(onto.to(like), offset))


def _is_biased(layer: nn.Linear) -> bool:
    return getattr(layer, "bias", None) is not None


def _fits(layer: nn.Linear, factors: LowRankFactors) -> bool:
    rows, columns = factors.outward.weight.shape[0], factors.inward.weight.shape[1]
    joined = factors.inward.weight.shape[0] == factors.outward.weight.shape[1]
    return joined and (rows, columns) == (layer.out_features, layer.in_features)


def _pair(layer: nn.Linear, factors: LowRankFactors) -> nn.Sequential:
    first, second = (with_matrix(layer, one.weight, one.bias) for one in (factors.inward, factors.outward))
    return nn.Sequential(first, second).train(layer.training)
