"""The classifier fitted again to the features that reach it."""

from dataclasses import dataclass
from typing import Any, final

import torch
from jaxtyping import Float64, Int
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from vitscope.data import Images
from vitscope.improvement.prescription import PRESCRIPTIONS, AbstractMove, AbstractPrescription
from vitscope.improvement.splits import Splits
from vitscope.interventions.temperature import labelled_logits
from vitscope.measurement.errors import UserError
from vitscope.models.edit import with_module
from vitscope.models.hooks import hooks
from vitscope.models.rewritten import replace_parameters
from vitscope.models.subject import Subject
from vitscope.numerics.precision import to_float64


@final
@dataclass(frozen=True)
class RefitHead(AbstractMove):
    """Fit the last linear layer again, at a penalty on its distance from the present one."""

    penalty: float

    @property
    @override
    def label(self) -> str:
        return f"fit the classifier again (penalty {self.penalty:g})"

    @override
    def apply(self, subject: Subject, splits: Splits) -> Subject:
        return refit_head(subject, splits.calibration, self.penalty)


@PRESCRIPTIONS.add("head")
@final
@dataclass(frozen=True)
class AnotherHead(AbstractPrescription):
    """Fit the classifier again to labelled calibration images: a convex problem with one solution.

    It helps if the classes or the pictures differ from those the model was trained on, and hardly otherwise.
    """

    penalties: tuple[float, ...] = (1.0, 0.1, 0.01)
    name = "head"
    title = "Another classifier"
    goals = frozenset({"accurate"})

    @override
    def moves(self, subject: Subject) -> tuple[AbstractMove, ...]:
        return tuple(RefitHead(penalty) for penalty in self.penalties) if _head_name(subject) else ()


def refit_head(subject: Subject, images: Images, penalty: float) -> Subject:
    r"""The subject with a classifier that is fitted to the labels of the images.

    .. math:: \min_{W, b}\ \frac1n \sum_i \mathrm{CE}(W x_i + b, y_i)
        + \frac{\lambda \bar v}{2} \left(\lVert W - W_0 \rVert_F^2 + \lVert b - b_0 \rVert^2\right)

    :math:`x` is what enters the last linear layer with as many outputs as classes, :math:`\bar v` its mean squared
    entry, :math:`W_0, b_0` the present layer: at a large penalty :math:`\lambda` nothing changes. The problem is
    strongly convex; L-BFGS solves it in float64. Cost: one forward pass over the images. Raises ``UserError`` without
    such a layer, or without labels.
    """
    name = _head_name(subject)
    if name is None:
        raise UserError(f"{subject.name} has no last linear layer with one output a class, so none can be fitted.")
    rows: list[Tensor] = []

    def keep(_: str, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        rows.append(to_float64(next(iter((*given, *named.values())))).detach().cpu().flatten(1))

    with hooks(subject.module, [name], before=keep):
        logits, labels = labelled_logits(subject, images)
    features, layer = torch.cat(rows), subject.module.get_submodule(name)
    assert isinstance(layer, nn.Linear)
    if len(features) != len(logits) or layer.bias is None:  # pyright: ignore[reportUnnecessaryComparison]
        raise UserError(f"The classifier of {subject.name} ({name}) has no bias or runs more than once for an image.")
    weight, bias = fit_head(features, labels, to_float64(layer.weight).cpu(), to_float64(layer.bias).cpu(), penalty)
    changed = {f"{name}.weight": weight, f"{name}.bias": bias}
    return with_module(subject, replace_parameters(subject.module, changed))


def fit_head(
    features: Float64[Tensor, "images dim"],
    labels: Int[Tensor, " images"],
    weight: Float64[Tensor, "classes dim"],
    bias: Float64[Tensor, " classes"],
    penalty: float,
) -> tuple[Float64[Tensor, "classes dim"], Float64[Tensor, " classes"]]:
    """The solution of :func:`refit_head`'s problem that begins at ``weight`` and ``bias``."""
    start = torch.cat((weight, bias[:, None]), 1).detach()
    inputs = torch.cat((features, torch.ones(len(features), 1, dtype=features.dtype)), 1)
    strength = penalty * float(inputs.square().mean())
    found = start.clone().requires_grad_(True)
    solver = torch.optim.LBFGS(
        [found], max_iter=500, tolerance_grad=1e-9, tolerance_change=1e-15, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        solver.zero_grad()
        value = functional.cross_entropy(inputs @ found.T, labels) + strength / 2 * (found - start).square().sum()
        value.backward()
        return value

    with torch.enable_grad():
        solver.step(loss)
    return found.detach()[:, :-1], found.detach()[:, -1]


def _head_name(subject: Subject) -> str | None:
    """The last linear layer with as many outputs as classes; None without one."""
    named = [name for name, part in subject.module.named_modules() if isinstance(part, nn.Linear)]
    last = named[-1] if named else None
    if last is None or subject.class_count < 2:
        return None
    return last if subject.module.get_parameter(f"{last}.weight").shape[0] == subject.class_count else None
