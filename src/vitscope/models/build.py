"""A module from its name and constructor arguments, which checkpoints store and training starts from."""

from collections.abc import Mapping

import torch
from torch import nn

from vitscope.measurement.errors import UserError
from vitscope.models.adapter import refuse_misfit
from vitscope.models.amended import all_weights, amend, apply_changes
from vitscope.models.checkpoint import Checkpoint


def build_model(model: str, arguments: Mapping[str, object], classes: tuple[str, ...] | None) -> nn.Module:
    """A module with random weights: ``vit-micro`` and the project's other sizes, or a model of another library.

    ``arguments`` are fields of :class:`~vitscope.models.own.vit.VitConfig`, arguments of the constructor of
    ``timm/NAME`` or ``torchvision/NAME``, or the whole configuration of ``transformers/CLASS``, as ``config``.
    """
    library, _, name = model.rpartition("/")
    if library in ("", "vitscope"):
        from vitscope.models.own.library import make_vit

        return make_vit(name, arguments, classes)
    if library == "timm":
        from vitscope.models.timm.construction import timm_model

        return timm_model(name, arguments)
    if library == "torchvision":
        from vitscope.models.torchvision.library import Torchvision

        values = {key: tuple(one) if isinstance(one, list) else one for key, one in arguments.items()}
        return Torchvision.create(name, False, **values)
    if library == "transformers":
        from vitscope.models.transformers.folder import transformers_from_configuration

        return transformers_from_configuration(name, arguments)
    raise UserError(f"{model!r} cannot be built by name; give vit-micro, vit-tiny, vit-small, vit-base or timm/NAME.")


def head_names(model: str, arguments: Mapping[str, object]) -> tuple[str, ...]:
    """The weights of the head: those whose shapes depend on the number of classes. Allocates no memory for them."""
    key = "num_classes" if model.startswith("timm/") else "classes"
    shapes: list[dict[str, torch.Size]] = []
    with torch.device("meta"):
        for classes in (7, 11):
            module = build_model(model, {**arguments, key: classes}, None)
            shapes.append({name: one.shape for name, one in module.state_dict().items()})
    first, second = shapes
    return tuple(name for name, shape in first.items() if second[name] != shape)


def image_side(module: nn.Module) -> int:
    """Side of the square input in the configuration of a module from :func:`build_model`."""
    if type(module).__module__.startswith("vitscope"):
        from vitscope.models.own.vit import Vit

        assert isinstance(module, Vit)
        return module.config.image
    from vitscope.models.timm.construction import configured_side

    return configured_side(module)


def restore_module(checkpoint: Checkpoint) -> nn.Module:
    """The module that a checkpoint of :func:`~vitscope.models.checkpoint.save_checkpoint` came from, with its weights.

    Its memory is allocated only after its shapes have been compared with the file's.
    """
    if checkpoint.model is None:
        raise UserError("This checkpoint does not name its model; give the architecture it was saved from.")
    with torch.device("meta"):
        made = build_model(checkpoint.model, checkpoint.arguments, checkpoint.classes)
        made = apply_changes(made, checkpoint.changes)
        refuse_misfit(made, all_weights(made, checkpoint))
    return amend(build_model(checkpoint.model, checkpoint.arguments, checkpoint.classes), checkpoint).eval()
