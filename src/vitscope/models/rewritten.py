"""A module with some of its parameters replaced, which shares all the others with the module it was made from."""

import copy
from collections.abc import Iterator, Mapping

from jaxtyping import Float
from torch import Tensor, nn

from vitscope.measurement.errors import UserError
from vitscope.measurement.text import reason
from vitscope.models.edit import with_module
from vitscope.models.feed import quantised_layers
from vitscope.models.subject import Subject


def replace_parameters(module: nn.Module, parameters: Mapping[str, Float[Tensor, "..."]]) -> nn.Module:
    """A copy of the module with these parameters, by the names of ``named_parameters``; the original is untouched.

    All other parameters, and all buffers (such as the statistics of batch norm), are shared with the original. A
    parameter that is used under several names is replaced under all. Parts keep their mode and drop what they cache of
    their weights. Raises ``UserError`` for a name, or a shape, that the module does not have. Cost: about 10 ms for a
    ViT of twelve blocks, and no copy of a weight.
    """
    own = dict(module.named_parameters())
    memo: dict[int, object] = {id(tensor): tensor for tensor in (*own.values(), *module.buffers())}
    for name, value in parameters.items():
        if name not in own or own[name].shape != value.shape:
            shape = f"of shape {tuple(value.shape)}"
            raise UserError(
                f"{type(module).__name__} has no parameter {name!r} {shape}; see module.named_parameters()."
            )
        memo[id(own[name])] = nn.Parameter(value.detach().to(own[name]), own[name].requires_grad)
    return copy_afresh(module, memo)


def copy_afresh(module: nn.Module, memo: dict[int, object]) -> nn.Module:
    """A deep copy with what ``memo`` puts in place of some objects, in which no part caches anything of its weights.

    Parts keep their mode; one that replaces another has its mode.
    """
    modes = {name: part.training for name, part in module.named_modules()}
    new = copy_module(module, memo)
    # Some modules (LeViT's attention) keep a gathered copy of a parameter until they are put into training mode.
    new.train()
    for name, part in new.named_modules():
        if name in modes:
            part.train(modes[name])
    return new


def copy_module(module: nn.Module, memo: dict[int, object] | None = None) -> nn.Module:
    """A deep copy with some objects replaced by ``memo``. Raises ``UserError`` if a part cannot be copied."""
    try:
        return copy.deepcopy(module, memo)
    except Exception as error:  # a user's module may hold anything
        raise UserError(
            f"{type(module).__name__} cannot be copied ({reason(error)}): remove locks, files and "
            "generators from it, and load it again before using it."
        ) from error


def with_parameters(subject: Subject, parameters: Mapping[str, Float[Tensor, "..."]]) -> Subject:
    """The subject, its edits included, with these parameters; the subject itself if there are none."""
    return with_module(subject, replace_parameters(subject.module, parameters)) if parameters else subject


def parameters_of(subject: Subject) -> dict[str, Float[Tensor, "..."]]:
    """The subject's parameters by name, detached; one used under several names appears once."""
    return {name: parameter.detach() for name, parameter in subject.module.named_parameters()}


def kernels_of(subject: Subject) -> dict[str, Float[Tensor, "..."]]:
    """Matrices and kernels: parameters called ``...weight`` of two axes or more, in the order of the module.

    The stem's and the classifier's are among them. Biases, the factors of norms and of LayerScale, tokens, position
    embeddings, position biases and look-up tables (``nn.Embedding``) are not.
    """
    tables = {id(part.weight) for part in subject.module.modules() if isinstance(part, nn.Embedding)}
    found = {name: parameter for name, parameter in subject.module.named_parameters() if name.endswith("weight")}
    return {name: p.detach() for name, p in found.items() if p.ndim >= 2 and id(p) not in tables}


def refuse_computed_kernels(subject: Subject) -> None:
    """Raise ``UserError`` if a layer computes its matrix or kernel from other parameters, or holds it quantised.

    Zeros in the parameters it is computed from (weight norm, spectral norm, a mask) are not zeros of the layer.
    """
    computed = list(_computed_kernels(subject.module))
    if computed:
        more = f" and {len(computed) - 1} more" if len(computed) > 1 else ""
        raise UserError(
            f"{subject.name} computes {computed[0]}{more} from other numbers (by a norm, a mask or quantisation), so "
            "its entries cannot be set; make it a plain parameter first, as "
            "torch.nn.utils.parametrize.remove_parametrizations, remove_weight_norm and prune.remove do."
        )


def _computed_kernels(module: nn.Module) -> Iterator[str]:
    """Names of tensors computed from parameters with two axes or more, and of quantised ones."""
    for path, part in module.named_modules():
        prefix = f"{path}." if path else ""
        for name, sources in getattr(part, "parametrizations", {}).items():
            if any(source.ndim >= 2 for source in sources.parameters()):
                yield prefix + name
        plain = [name for name, value in vars(part).items() if isinstance(value, Tensor)]
        own = {name: value.ndim for name, value in part.named_parameters(recurse=False)}
        yield from (prefix + name for name in plain if any(own[o] >= 2 for o in own if o.startswith(f"{name}_")))
    yield from (f"{name}.weight" for name in quantised_layers(module))
