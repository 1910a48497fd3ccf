"""A module's own forward pass, watched at submodules by hooks that last one call."""

from collections.abc import Callable, Iterable
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from vitscope.models.own_forward import own_output


def can_be_watched(part: nn.Module) -> bool:
    """Whether it takes hooks; programs of TorchScript do not."""
    return type(part).register_forward_pre_hook is nn.Module.register_forward_pre_hook


def watched(
    module: nn.Module,
    names: Iterable[str],
    images: Float[Tensor, "batch channels height width"],
    before: Callable[[str, object], None],
    behind: Callable[[str, object], object],
) -> Tensor:
    """The module's own output, what enters and leaves these submodules being shown as they run.

    What ``behind`` returns stands in for what the submodule returned, unless it is None.
    """

    def entering(name: str) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
        return lambda _, given, named: before(name, (*given, *named.values()))

    def leaving(name: str) -> Callable[[nn.Module, tuple[Any, ...], Any], Any]:
        return lambda _, given, output: behind(name, output)

    handles: list[Any] = []
    try:
        for name in names:
            part = module.get_submodule(name)
            handles.append(part.register_forward_pre_hook(entering(name), with_kwargs=True))
            handles.append(part.register_forward_hook(leaving(name)))
        return own_output(module, images)
    finally:
        for handle in handles:
            handle.remove()
