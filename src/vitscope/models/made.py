"""A module from a library's name, a folder, a checkpoint, or the module itself; with the weights of a file."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import Tensor, nn

from vitscope.measurement.errors import UserError
from vitscope.measurement.text import reason
from vitscope.models.adapter import LIBRARIES, AbstractLibrary, Restored, Size, load_strictly, misfit, refuse_options
from vitscope.models.amended import amend, amendment_notes
from vitscope.models.architectures import nearest_architectures
from vitscope.models.averages import averages_in, complete_averages
from vitscope.models.build import restore_module
from vitscope.models.catalogue import import_adapters, library_of
from vitscope.models.checkpoint import Amendment, Checkpoint, checkpoint_of, find_amended, groups_in
from vitscope.models.folder import read_folder, refuse_without_weights
from vitscope.models.pixels import PixelInput
from vitscope.models.recorded import Recorded, class_names, note_ignored_input, read_record
from vitscope.models.rewritten import copy_module
from vitscope.models.sized import NamedModel, Shapes, size_of
from vitscope.models.weight_file import Contents, read_contents
from vitscope.models.weight_notes import average_notes, number_notes, set_notes, size_notes, some_names
from vitscope.models.weight_sets import TensorGroup, WeightSet, candidate, choose_set, fitting_sets, groups_of, only

_COUNTED = ("total_ops", "total_params", "n_averaged")
"""Counters of operations (thop) and of averaged steps, which files hold among the weights."""
_LIBRARIES = ("timm", "torchvision", "transformers", "vitscope")


@dataclass(frozen=True)
class LoadOptions:
    """What the user requests of a model besides its name."""

    pretrained: bool = False
    weights: Path | None = None
    average: bool | None = None
    """Whether to take averaged weights from a file that has both; None takes them if there are any."""
    part: str | None = None
    """Which of several sets of weights in the file to take."""
    size: Size = field(default_factory=Size)
    options: Mapping[str, object] = field(default_factory=dict[str, object])
    """Arguments of the library's constructor."""
    input: PixelInput | None = None
    """The model's input, which overrides every other source."""

    def refuse_size(self, what: str) -> None:
        """Raise if a size is given for a model that already exists."""
        sized = {"classes": self.size.classes, "image_size": self.size.image, "channels": self.size.channels}
        refuse_options(what, {name: value for name, value in sized.items() if value is not None} | {**self.options})


@dataclass(frozen=True)
class MadeModel:
    """A module, and what is known about it."""

    module: nn.Module
    name: str
    weights: str
    classes: tuple[str, ...] | None = None
    input: PixelInput | None = None
    notes: tuple[str, ...] = ()
    labels: tuple[tuple[str, object], ...] = ()
    """Class names as a foreign file holds them, each with its key."""
    amendment: Amendment | None = None
    """How the file's subject departs from the module's plain walk; None if it does not."""


def make_from_module(module: nn.Module, asked: LoadOptions) -> MadeModel:
    """The module itself, or a copy with the requested weights."""
    name = type(module).__name__
    asked.refuse_size(f"A module that you pass ({name})")
    if asked.weights is None:
        return MadeModel(module, name, "as handed over")
    contents = read_contents(asked.weights)
    return _fill(MadeModel(copy_module(module), name, str(asked.weights)), contents, asked.weights, asked)


def make_from_name(model: str, asked: LoadOptions) -> MadeModel:
    """The model of this name, folder or checkpoint. Raises ``UserError`` if ``model`` is none of these."""
    path = Path(model)
    if path.is_file():
        return _from_file(path, asked)
    if (path / "config.json").is_file():
        return _from_folder(path, asked)
    if reserved := [key for key in ("name", "pretrained") if key in asked.options]:
        raise UserError(f"{model} takes no argument {reserved[0]!r} here: it is not an argument of the model itself.")
    prefix, _, rest = model.partition("/")
    prefix, rest = (prefix, rest) if rest else ("vitscope", prefix)
    if prefix not in _LIBRARIES:
        raise UserError(
            f"{model!r} is no file, saved folder or model name; a name is digits, vit-micro, "
            "timm/NAME, torchvision/NAME or transformers/NAME."
        )
    named = NamedModel(_library(prefix), rest, asked.options)
    if asked.weights is not None and asked.pretrained:
        raise UserError(f"--pretrained and --weights {asked.weights} are two sets of weights; give one of them.")
    if asked.weights is not None:
        return _of_file(model, named, asked.weights, read_contents(asked.weights), asked)
    module = named.library.create(rest, asked.pretrained, **named.arguments(asked.size))
    return MadeModel(
        module,
        model,
        "pretrained" if asked.pretrained or rest == "digits" else "random",
        notes=_head_note(named, asked),
    )


def _head_note(named: NamedModel, asked: LoadOptions) -> tuple[str, ...]:
    """A note on the weights that are random despite ``pretrained``: those of a classifier of another size."""
    (key,) = named.library.options(Size(classes=1))
    if not asked.pretrained or (asked.size.classes is None and key not in asked.options):
        return ()
    plain = replace(named, options={name: value for name, value in named.options.items() if name != key})
    own, sized = plain.shapes(Size()), named.shapes(Size(asked.size.classes))
    new = sorted(name for name, shape in sized.items() if own.get(name) != shape)
    return (f"Pretrained except {some_names(new)}, which are random: the classifier has another size.",) if new else ()


def _library(prefix: str) -> type[AbstractLibrary]:
    import_adapters(prefix)
    return next(library for _, library in LIBRARIES.items() if library.name == prefix)


def _from_folder(path: Path, asked: LoadOptions) -> MadeModel:
    """The model that a folder was saved from, with its weights or those of another file."""
    asked.refuse_size("A saved folder")
    folder = read_folder(path, weights=asked.weights is None)
    contents = folder.contents if asked.weights is None else read_contents(asked.weights)
    for prefix in ("timm", "transformers"):
        library = _library(prefix)
        if library.owns_folder(dict(folder.configuration)):
            if asked.weights is None:
                refuse_without_weights(folder)
            opened = library.from_folder(folder)
            file = asked.weights or folder.file
            assert file is not None, "a folder without weights is refused"
            assert contents is not None, "a file has contents"
            made = MadeModel(opened.module, path.name, str(asked.weights or path), notes=opened.notes)
            return _fill(made, contents, file, asked, saved=asked.weights is None)
    keys = ", ".join(folder.configuration)
    raise UserError(f"{path}/config.json names no architecture of timm or transformers; its keys: {keys}.")


def _from_file(path: Path, asked: LoadOptions) -> MadeModel:
    """A checkpoint that names its model: the project's own, or a trainer's with its architecture."""
    if asked.weights is not None:
        raise UserError(f"{path} and --weights {asked.weights} are both files of weights; give one of them.")
    contents = read_contents(path)
    checkpoint = checkpoint_of(path, contents)
    if checkpoint.model is not None:
        asked.refuse_size(f"{path}, which vitscope wrote,")
        _refuse_choice(path, asked)
        try:
            module = restore_module(checkpoint)
        except UserError as error:
            why = reason(error)
            raise UserError(f"{path} says that it holds {checkpoint.model}, but does not: {why}.") from error
        made = MadeModel(module, checkpoint.model, str(path), checkpoint.classes, checkpoint.input)
        return _amended(made, checkpoint, path)
    if checkpoint.amendment is not None:
        raise UserError(
            f"{path} holds edits of a model that has no name: pass the module that they were made on, and the file as "
            "its weights, as in vitscope.load(module, weights=FILE)."
        )
    said = read_record(contents.data)
    fits = [name for name in said.names if _fits(name, contents, said, asked)] or list(said.names)
    if len(fits) == 1:
        prefix, _, rest = fits[0].partition("/")
        made = _of_file(fits[0], NamedModel(_library(prefix), rest, asked.options), path, contents, asked)
        return replace(made, notes=(f"{path.name} names the architecture {said.said}: read as {fits[0]}.", *made.notes))
    groups = groups_in(path, contents)
    likely = _likely(groups)
    words = f"it names {said.said}, which is {' or '.join(fits)}" if fits else likely and f"its weights {likely}"
    example = fits[0] if fits else "timm/NAME"
    raise UserError(
        f"{path} does not say which model its weights belong to{f' ({words})' if words else ''}; name the "
        f"architecture and give the file with it: {example} --weights {path}."
    )


def _amended(made: MadeModel, checkpoint: Checkpoint, path: Path) -> MadeModel:
    """The model with what its checkpoint says of edits, and the notes on that."""
    if checkpoint.amendment is None:
        return made
    notes = (*made.notes, *amendment_notes(checkpoint.amendment, path.name))
    return replace(made, amendment=checkpoint.amendment, notes=notes)


def _refuse_choice(path: Path, asked: LoadOptions) -> None:
    if asked.average is not None or asked.part is not None:
        raise UserError(f"{path} holds only one set of weights; leave out --ema, --raw and --part.")


def _fits(name: str, contents: Contents, said: Recorded, asked: LoadOptions) -> bool:
    prefix, _, rest = name.partition("/")
    named = NamedModel(_library(prefix), rest, {**said.options, **asked.options})
    try:
        return bool(fitting_sets(groups_of(contents.data), list(named.shapes(asked.size))))
    except UserError:
        return False


def _of_file(model: str, named: NamedModel, path: Path, contents: Contents, asked: LoadOptions) -> MadeModel:
    """The named model in the size of the file's weights, with these loaded."""
    said = read_record(contents.data)
    size = asked.size
    heard = _name_notes(model, said, path)
    amended = find_amended(path, contents)
    if amended is not None:
        if amended.model is not None:
            raise UserError(f"{path} names its own model, {amended.model}, and edits of it: load the file by itself.")
        module = named.library.create(named.name, False, **named.arguments(size))
        return _fill(MadeModel(module, model, str(path)), contents, path, asked)
    if said.is_of(model):
        model = said.add_tag(model)
        named = NamedModel(named.library, model.partition("/")[2] or model, {**said.options, **named.options})
        size = replace(size, image=size.image or (None if "img_size" in named.options else said.image))
    found = _choose_set(named, size, path, contents, asked)
    if found is not None:
        size = size_of(named, size, _shapes(found.state))
    module = named.library.create(named.name, False, **named.arguments(size))
    if said.is_of(model) and said.shown and named.library.name == "timm" and asked.input is None:
        from vitscope.models.timm.construction import show_as

        show_as(module, said.shown)
    elif said.is_of(model) and named.library.name == "torchvision":
        heard = (*heard, *note_ignored_input(path, said, named.library.preprocessing(module)))
    made = _fill(MadeModel(module, model, str(path)), contents, path, asked)
    return replace(made, notes=(*heard, *size_notes(path, asked.size, size), *made.notes))


def _name_notes(model: str, said: Recorded, path: Path) -> tuple[str, ...]:
    """A note if the file names another model than the user, or names it more precisely."""
    if not said.is_of(model) or ("." in model and model not in said.names and any("." in one for one in said.names)):
        return (f"{path.name} names the architecture {said.said}: it is read as {model}, whose input is used.",)
    tagged = said.add_tag(model)
    return () if tagged == model else (f"{path.name} names the architecture {said.said}: its input is {tagged}'s.",)


def _choose_set(named: NamedModel, size: Size, path: Path, contents: Contents, asked: LoadOptions) -> WeightSet | None:
    """The set of weights with the model's names, or with those of the model without a classifier; None if none."""
    groups = groups_in(path, contents)
    for tried in (size, replace(size, classes=0)):
        try:
            module = named.module(tried)
            sets = fitting_sets(groups, list(module.state_dict())) or _rename(module, named.library, groups)
        except UserError:
            if tried is size:
                raise
            continue
        if sets:  # incomplete averages are only found once the module is made
            average = asked.average if any(one.averaged for one in sets) else None
            return choose_set(str(path), sets, average, asked.part)
    return None


def _fill(made: MadeModel, contents: Contents, path: Path, asked: LoadOptions, saved: bool = False) -> MadeModel:
    """The module with the weights of the file that fit it, and notes on them.

    If they were ``saved`` with its configuration, weights of parts that it lacks are left out.
    """
    checkpoint = find_amended(path, contents)
    if checkpoint is not None:
        _refuse_choice(path, asked)
        made = replace(made, module=amend(made.module, checkpoint), classes=checkpoint.classes, input=checkpoint.input)
        return _amended(made, checkpoint, path)
    library, groups = library_of(made.module), groups_in(path, contents)
    own = made.module.state_dict()
    buffers = own.keys() - dict(made.module.named_parameters(remove_duplicate=False)).keys()
    sets = complete_averages(fitting_sets(groups, list(own)), groups, list(own), buffers)
    if not sets and library is not None:
        sets = _rename(made.module, library, groups) or _of_any_names(own, library, groups)
    if not sets:
        raise misfit(type(made.module).__name__, _shapes(own), _nearest(groups, own))
    found = choose_set(str(path), sets, asked.average, asked.part)
    others = [one for one in sets if one is not found and one.averaged != found.averaged]
    state, beside = _own_part(found, made.module, [*sets])
    notes = [*set_notes(path, found, others, beside), *number_notes(path, state, own)]
    if not any(one.averaged for one in sets) and asked.average is None:
        notes += average_notes(path, averages_in(contents.data, sets))
    opened = _load(made.module, state, library, saved)
    sort = f" ({'averaged' if found.averaged else 'raw'}: {found.label})" if others or found.averaged else ""
    labels = class_names(contents.data)
    notes = (*made.notes, *notes, *opened.notes)
    return replace(made, module=opened.module, weights=f"{made.weights}{sort}", notes=notes, labels=labels)


def _load(module: nn.Module, state: dict[str, Tensor], library: type[AbstractLibrary] | None, saved: bool) -> Restored:
    if library is None:
        return Restored(load_strictly(module, state))
    return library.load_saved(module, state) if saved else Restored(library.load_weights(module, state))


def _rename(module: nn.Module, library: type[AbstractLibrary], groups: Sequence[TensorGroup]) -> tuple[WeightSet, ...]:
    """The sets that fit after the library has replaced names of earlier versions by today's."""
    own = module.state_dict()
    found = [candidate(group, own) for group in groups]
    return fitting_sets(
        [TensorGroup(one.words, library.update_names(module, one.state), one.averaged) for one in found], list(own)
    )


def _of_any_names(
    own: Mapping[str, Tensor], library: type[AbstractLibrary], groups: Sequence[TensorGroup]
) -> tuple[WeightSet, ...]:
    """Sets that may fit, for a library that translates names on loading: large enough ones, or the only one."""
    found = [candidate(group, own) for group in groups] if library.renames else []
    needed = sum(one.numel() for one in own.values()) / 2
    return tuple(one for one in found if len(found) == 1 or sum(map(Tensor.numel, one.state.values())) > needed)


def _own_part(
    found: WeightSet, module: nn.Module, sets: Sequence[WeightSet]
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The set without tensors of other sets or that the module makes itself, and the names that are left out.

    Counters of batches, which change nothing in evaluation, are the module's own if the file has none.
    """
    own, state = module.state_dict(), found.state
    made_anew = {name: one for name, one in module.named_buffers() if name not in own}
    same = [one for one in sets if one is not found and one.group is found.group]
    others = {there for one in same for there in one.names.values()}
    for name in [name for name in state if name not in own]:
        anew = made_anew.get(name)
        equal = anew is not None and anew.shape == state[name].shape and bool((anew == state[name].to(anew)).all())
        if equal or found.names[name] in others or name.rpartition(".")[2] in _COUNTED:
            del state[name]
    for name, value in own.items():
        if name.endswith("num_batches_tracked"):
            state.setdefault(name, value)
    beside = [name for name in found.beside if name not in others and not name.endswith("n_averaged")]
    return state, tuple(beside)


def _shapes(state: Mapping[str, Tensor]) -> Shapes:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def _nearest(groups: Iterable[TensorGroup], own: Mapping[str, Tensor]) -> Shapes:
    """The shapes of the file's group that shares most names with the model, compared by their last parts."""

    def common(group: TensorGroup) -> int:
        return sum(name.rpartition(".")[2] in lasts for name in group.tensors)

    lasts = {name.rpartition(".")[2] for name in own}
    best = max(groups, key=common, default=None)
    return {} if best is None else _bare(best)


def _bare(group: TensorGroup) -> Shapes:
    """Names and shapes without the prefix that all names share."""
    shapes = _shapes(only(group).state)
    while len({name.partition(".")[0] for name in shapes}) == 1 and all("." in name for name in shapes):
        shapes = {name.partition(".")[2]: shape for name, shape in shapes.items()}
    return shapes


def _likely(groups: Iterable[TensorGroup]) -> str:
    """What the weights of a file look like, in words that follow "its weights"; empty if unknown."""
    for group in groups:
        found = nearest_architectures(_bare(group))
        if found:
            return f"{'are those' if found[1] else 'look like those'} of {found[0]}"
    return ""
