"""``vitscope train``: a recipe's fields as flags."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, cast

import typer

from vitscope.cli.checkup import choose_diagnostics, parse_names
from vitscope.cli.error_reporting import INTERRUPTED, command_line, fail
from vitscope.cli.flags import make_settings, with_flags
from vitscope.cli.learning import Learning, checkpoint_in
from vitscope.cli.paths import refuse_absent
from vitscope.cli.request import first_split, page_of
from vitscope.cli.terminal import hint, stdout, waiting
from vitscope.cli.trials import TrialRequest, train_grid
from vitscope.measurement.errors import UserError
from vitscope.measurement.text import printable
from vitscope.models.names import refuse_unknown
from vitscope.training.recipe import Recipe

if TYPE_CHECKING:
    from vitscope.data import Images
    from vitscope.models.subject import Subject
    from vitscope.training.observer import AbstractTrainingObserver
    from vitscope.training.train import Training

TEST_SPLITS = ("test", "validation", "val")
"""Splits that are tried for the test images, in this order."""


def train_on(
    images: Annotated[str, typer.Option(help="Labelled images, as for vitscope checkup.")],
    out: Annotated[str, typer.Option(help="Folder for weights, metrics and the state to resume from.")],
    pretrained: Annotated[bool, typer.Option("--pretrained", help="Start from the library's weights.")] = False,
    weights: Annotated[str | None, typer.Option(help="Start from this file's weights for MODEL.")] = None,
    start: Annotated[
        str | None, typer.Option("--from", help="Start from the weights of this training's folder, or this checkpoint.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Split to train on; train if there is one.")] = None,
    test_split: Annotated[str | None, typer.Option(help="Split to test on; test or validation if any.")] = None,
    limit: Annotated[int | None, typer.Option(help="Train on this many images, each class in proportion.")] = None,
    label: Annotated[str | None, typer.Option(help="Column or key of the labels.")] = None,
    root: Annotated[str | None, typer.Option(help="Folder that the paths in a table start from.")] = None,
    bits: Annotated[int | None, typer.Option(help="Bit depth of samples stored in 16 bits, such as 12.")] = None,
    max_pixels: Annotated[int, typer.Option(help="Pixels of the largest picture that is read.")] = 178_956_970,
    max_broken: Annotated[int, typer.Option(help="Unreadable images to tolerate.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted training.")] = False,
    watch: Annotated[str | None, typer.Option(help="Measure these diagnostics meanwhile, separated by commas.")] = None,
    watch_every: Annotated[int, typer.Option(help="Measure them every this many steps, into OUT/step-NNNNNN.")] = 200,
    watch_budget: Annotated[float, typer.Option(help="Largest share of the time that measuring them may take.")] = 0.05,
    watch_images: Annotated[int, typer.Option(help="Measure them on this many of the test images.")] = 64,
    **recipe: object,
) -> None:
    """Train a model on images, test it once at the end, and save its weights and the run.

    It starts from random weights, or from those of --weights, --pretrained or --from. With --validation, a share of the
    images chooses the epoch.
    """
    settings, learning, trial = (
        make_settings(Recipe, recipe),
        make_settings(Learning, recipe),
        make_settings(TrialRequest, recipe),
    )
    if trial and watch is not None:
        raise UserError("--watch is for one training; leave out --grid and --seeds, or --watch.")
    refuse_absent(weights, "--weights")
    refuse_absent(start, "--from")
    if "://" in out:
        raise UserError(f"--out is {out}, but a training is saved on this machine; give a folder.")
    refuse_absent(images, "--images")
    refuse_unknown(settings.model or "vit-micro")
    parse_names(watch)  # all three refuse what does not exist, before anything heavy is imported
    with waiting("Loading the images"):
        from vitscope.training.train import train as trained

        settings, begun = _start(settings, pretrained, weights, start)
        objective, hooks = learning.objective(), learning.hooks()
        read = partial(_images, images, label=label, root=root, bits=bits, max_pixels=max_pixels, max_broken=max_broken)
        shown = read((split,) if split else ("train", None), "--split", limit=limit, seed=settings.seed)
        splits = (test_split,) if test_split else (*TEST_SPLITS, None)
        test = read(splits, "--test-split")
        few = None if watch is None else read(splits, "--test-split", limit=watch_images)
        observer = _observer(watch, watch_every, watch_budget, few, out)
    tested = None if shown.name == test.name else test
    if tested is None:
        hint(f"{images} has no split to test on; the trained model is not tested.")
    if trial:
        train_grid(trial, settings, shown, tested, begun, objective, hooks, out, resume)
        return
    how: dict[str, Any] = {"objective": objective, "hooks": hooks, "command": command_line()}
    try:
        result = trained(settings, shown, Path(out), tested, resume, observer, begun, **how)
    except KeyboardInterrupt:
        _say_what_is_kept(Path(out), resume)
    _show(result, images, tested, page_of(result.run, out))


def _show(result: "Training", source: str, test: "Images | None", page: str) -> None:
    """Print its notes, the accuracy on the test images, and where its page and its weights are."""
    for note in result.notes:
        hint(note)
    if result.run.accuracy is not None:
        stdout().print(f"test accuracy {result.run.accuracy}", highlight=False)
    hint(f"page: {page}")
    stdout().print(printable(str(result.weights)), style="bold", soft_wrap=True, highlight=False)
    place = "" if test is None else f" --split {test.name.rpartition('/')[2]}"
    hint(f"next: vitscope checkup {result.weights} --images {source}{place}")


def _start(
    settings: Recipe, pretrained: bool, weights: str | None, start: str | None
) -> "tuple[Recipe, Subject | None]":
    """The recipe and the subject to start from, if there is one: a file or folder names its own model."""
    is_place = settings.model is not None and (settings.model == "digits" or Path(settings.model).exists())
    given = [flag for flag, on in (("--pretrained", pretrained), ("--weights", weights), ("--from", start)) if on]
    if len(given) > 1:
        raise UserError(f"{' and '.join(given)} each set the weights to start from; give only one of them.")
    if not (is_place or given):
        return settings, None
    from vitscope.models.load import load

    if start is not None or (is_place and not given):
        own = checkpoint_in(start or cast(str, settings.model))
        return replace(settings, model=None if start is None else settings.model), load(own)
    if settings.model is None:
        raise UserError(f"{given[0]} is given without a model; name the model of the weights, such as timm/NAME.")
    return settings, load(settings.model, pretrained=pretrained, weights=weights)


def _say_what_is_kept(folder: Path, resume: bool) -> NoReturn:
    """Exit after an interrupt, reporting what is saved and how to continue."""
    from vitscope.training.state import kept_step

    step = kept_step(folder)
    if step is None:
        begin = f"no state was saved yet; start again with: {command_line()}"
        fail(f"interrupted; {begin}", INTERRUPTED, "")
    again = command_line() if resume else f"{command_line()} --resume"
    fail(f"interrupted; the state after step {step} is saved; continue with: {again}", INTERRUPTED, "")


def _observer(
    watch: str | None, every: int, budget: float, few: "Images | None", out: str
) -> "AbstractTrainingObserver":
    """The progress bar, with the diagnostics to measure on the way if some are named."""
    from vitscope.training.progress import TrainingBar

    if watch is None or few is None:
        return TrainingBar()
    from vitscope.training.observer import Several
    from vitscope.training.watch.monitor import Monitor
    from vitscope.training.watch.own import WatchObserver

    monitor = Monitor(few, choose_diagnostics(watch, None), out, every, budget)
    return Several((TrainingBar(), WatchObserver(monitor)))


def _images(source: str, splits: tuple[str | None, ...], flag: str, **options: Any) -> "Images":  # noqa: ANN401
    """The images of the first of these splits that the source has; ``flag`` names one."""
    from vitscope.data import images

    found = first_split(splits[:-1], lambda split: images(source, split=split, **options))
    if found is not None:
        return found
    try:
        return images(source, split=splits[-1], **options)
    except UserError as error:
        raise UserError(str(error).replace("--split", flag)) from error


train = with_flags(train_on, Recipe, Learning, TrialRequest)
