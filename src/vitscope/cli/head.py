"""``vitscope head``: convex heads on a frozen model's tokens, their runs and their pages."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vitscope.cli.error_reporting import INTERRUPTED, Commands, command_line, fail
from vitscope.cli.flags import make_settings, with_flags
from vitscope.cli.head_summary import print_comparison, print_fit, print_path
from vitscope.cli.index import find, own_names
from vitscope.cli.request import Request, answer, first_split
from vitscope.cli.terminal import ProgressBar, waiting
from vitscope.cli.train import TEST_SPLITS
from vitscope.cli.workers import Workers
from vitscope.convex.runs.settings import HeadSettings, all_kinds, parse_beta
from vitscope.measurement.errors import UserError
from vitscope.runs.whole import local_path

if TYPE_CHECKING:
    from vitscope.convex.runs.data import HeadData
    from vitscope.data import Images
    from vitscope.engine.plan import Plan
    from vitscope.runs.run import Run

_KINDS = f"One of {', '.join(own_names('Convex heads'))}, or one of a plugin."


@dataclass(frozen=True)
class HeadRequest:
    """The tokens that heads are trained and tested on, and where the run is saved; each field is a flag."""

    split: str | None = None
    """Split to train on; train if there is one."""
    test_split: str | None = None
    """Split to test on; test or validation if there is one, else a fifth of the images, held out by --seed."""
    test_limit: int | None = None
    """Test on this many images, each class in proportion to its size."""
    pool: int = 7
    """Side of the token grid, at most: neighbouring patches are averaged. Time grows with the number of tokens."""
    width: int = 64
    """Principal components kept of each token, at most. An attention head's time grows with the square."""
    prefix: bool = False
    """Keep prefix tokens (class, registers) too."""
    features: str = "features"
    """Folder where the tokens are saved, once for each model, images and recipe."""
    out: str | None = None
    """Folder of the run and its page; heads/MODEL-ADDRESS if left out."""

    def __post_init__(self) -> None:
        """Refuse what is known to be wrong before anything heavy is imported."""
        local_path(self.features, "Features are")
        if self.pool < 1 or self.width < 1:
            raise UserError("--pool and --width must be 1 or more.")


def fit_head(
    kind: Annotated[str, typer.Option(help=f"Kind of head. {_KINDS}")] = "attention",
    beta: Annotated[str, typer.Option(help="Penalty weight: a number, or auto to choose by validation.")] = "1e-3",
    **fields: object,
) -> None:
    """Train one head to certified optimality, test it, and save it with its run and its page.

    The head is saved as OUT/head.safetensors, for vitscope.convex.load. There is no learning rate: training is a convex
    problem, and the certificate says how far the result can be from its global optimum. An interrupted fit saves its
    best point, and --resume continues from there.
    """
    settings, request = make_settings(HeadSettings, fields), make_settings(Request, fields)
    weight = parse_beta(beta)
    settings.check((find_kind(kind),), weight)
    plan = request.plan(make_settings(Workers, fields).check())
    data = _data(request, make_settings(HeadRequest, fields), plan)
    from vitscope.convex.runs.fit import FitQuestion
    from vitscope.convex.saved import HEAD_FILE

    question = FitQuestion(data, settings, kind, weight, request.seed, request.device)

    def show(run: "Run", page: str) -> None:
        print_fit(run, str(Path(page).with_name(HEAD_FILE)), page)

    answer(question, "heads", request.out, plan, show)


def head_path(
    kind: Annotated[str, typer.Option(help=f"Kind of head. {_KINDS}")] = "attention", **fields: object
) -> None:
    """Train one kind of head along its whole regularisation path: accuracy, rank, heads, every point certified.

    The penalty falls from the largest that leaves any head to a thousandth of it; each fit starts from the one before.
    Finished points are saved, and --resume continues from there.
    """
    settings, request = make_settings(HeadSettings, fields), make_settings(Request, fields)
    settings.check((find_kind(kind),))
    plan = request.plan(make_settings(Workers, fields).check())
    data = _data(request, make_settings(HeadRequest, fields), plan)
    from vitscope.convex.runs.path import PathQuestion

    question = PathQuestion(data, settings, kind, request.seed, request.device)
    answer(question, "heads", request.out, plan, print_path)


def compare_heads(
    kinds: Annotated[
        str | None, typer.Option(help=f"Kinds to compare, separated by commas; all if left out. {_KINDS}")
    ] = None,
    seeds: Annotated[int, typer.Option(help="Fits of each kind, with further seeds of gates and validation.")] = 1,
    **fields: object,
) -> None:
    """Train kinds of head side by side, each at its own validated beta, and say whether attention-like heads win.

    Finished fits are saved, and --resume continues from there.
    """
    chosen = all_kinds() if kinds is None else parse_kinds(kinds)
    settings, request = make_settings(HeadSettings, fields), make_settings(Request, fields)
    if seeds < 1:
        raise UserError(f"--seeds must be 1 or more, not {seeds}.")
    settings.check(chosen)
    plan = request.plan(make_settings(Workers, fields).check())
    data = _data(request, make_settings(HeadRequest, fields), plan)
    from vitscope.convex.runs.compare import CompareQuestion

    question = CompareQuestion(data, settings, chosen, seeds, request.seed, request.device)
    answer(question, "heads", request.out, plan, print_comparison)


def parse_kinds(text: str) -> tuple[str, ...]:
    """Kinds from their comma-separated names, each once."""
    return tuple(dict.fromkeys(find_kind(name.strip()) for name in text.split(",")))


def find_kind(name: str) -> str:
    """The kind of this name; ``UserError`` if there is none, before anything heavy is imported."""
    return find("Convex heads", name, "kind of head").name


def _data(request: Request, head: HeadRequest, plan: "Plan") -> "HeadData":
    """The tokens of the training and the test images, extracted unless they are saved already."""
    with waiting("Loading the model and the images"):
        from vitscope.convex.features import TokenRecipe
        from vitscope.convex.runs.data import divide_images, head_data

        pictures = divide_images(*_images(request, head), request.seed)
        subject = request.subject()
    recipe = TokenRecipe(pool=head.pool, width=head.width, prefix=head.prefix)
    done = [0, 0]
    try:
        with ProgressBar("Extracting tokens", len(pictures.training)) as bar:

            def progress(images: float | int, total: float | int) -> None:
                done[:] = int(images), int(total)
                bar(images, total)

            return head_data(
                subject,
                pictures,
                recipe,
                folder=head.features,
                batch_size=request.batch_size,
                seed=request.seed,
                progress=progress,
                executor=plan.executor,
            )
    except KeyboardInterrupt:
        state = f"tokens of {done[0]} of {done[1]} images are saved in {head.features}"
        fail(f"interrupted; {state}; continue with: {command_line()}", INTERRUPTED, "")


def _images(request: Request, head: HeadRequest) -> "tuple[Images, Images | None]":
    """The images to train on, and those to test on or None."""
    training = _training(request, head)
    if head.test_split:
        return training, replace(request, split=head.test_split, limit=head.test_limit).pictures()
    test = first_split(TEST_SPLITS, lambda split: replace(request, split=split, limit=head.test_limit).pictures())
    return training, None if test is None or test.name == training.name else test


def _training(request: Request, head: HeadRequest) -> "Images":
    """The named split, else the one called train, else the source without a split."""
    if head.split:
        return request.pictures()
    found = first_split(("train",), lambda split: replace(request, split=split).pictures())
    return request.pictures() if found is None else found


head = typer.Typer(
    cls=Commands,
    help="Convex heads: trained to certified global optimality on a frozen model's tokens.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_UNUSED = ("augment",)
_NOT_OF_A_PATH = ("ensemble", "validation")
"""Flags without use for a path, which has one draw of gates and chooses nothing."""
head.command("fit")(with_flags(fit_head, HeadRequest, HeadSettings, Request, Workers, without=_UNUSED))
head.command("path")(
    with_flags(head_path, HeadRequest, HeadSettings, Request, Workers, without=(*_UNUSED, *_NOT_OF_A_PATH))
)
head.command("compare")(with_flags(compare_heads, HeadRequest, HeadSettings, Request, Workers, without=_UNUSED))
