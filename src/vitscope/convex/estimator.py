"""Convex heads as scikit-learn estimators: what all of them share."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, TypeVar, cast

import numpy as np
import torch
from jaxtyping import Float, Float64
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.metrics import r2_score
from sklearn.utils import Tags, check_random_state, compute_class_weight
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from vitscope.convex.attach import Headed, attach
from vitscope.convex.block import BLOCKS, AbstractBlock, Sizes
from vitscope.convex.certificate import Certificate
from vitscope.convex.features.extractor import TokenExtractor
from vitscope.convex.gates import check_activation, terms
from vitscope.convex.heads import Heads
from vitscope.convex.inputs import as_array, labels_of, targets_of, tokens_of
from vitscope.convex.loss import AbstractLoss, CrossEntropy, Squared
from vitscope.convex.module import ConvexHead
from vitscope.convex.options import Positive, Whole, check_all, check_device, check_gates, check_precision
from vitscope.convex.problem import Problem
from vitscope.convex.selection import Choice, Fitting, choose_beta, print_step, split, warn_interrupted, warn_of
from vitscope.convex.solver import Solution, SolverStep
from vitscope.convex.tokens import Standardisation, Tokens, TokenSource, identity_standardisation, standardisation_of
from vitscope.convex.trained import Member, Trained
from vitscope.measurement.errors import UserError
from vitscope.models.subject import Subject


@dataclass(frozen=True, eq=False)
class Goal:
    """The goal of a fit: the loss, the offset of every row of outputs, and whether outputs are pooled."""

    loss: AbstractLoss
    offset: Float[Tensor, " outputs"]
    pooled: bool


@dataclass(frozen=True, eq=False)
class Prepared:
    """What a fit solves: a problem for each draw of gates, all with the same tokens and goal."""

    draws: tuple[Problem, ...]
    standardisation: Standardisation
    offset: Float[Tensor, " outputs"]
    seed: int
    """Seed of the images that are held out."""

    def assemble(self, solutions: Sequence[Solution]) -> Trained:
        """The head of these solutions, one for each of the first draws."""
        first = self.draws[0]
        members = tuple(Member(draw.terms, one.heads) for draw, one in zip(self.draws, solutions, strict=False))
        return Trained(first.block, first.sizes, first.pooled, first.relu, self.standardisation, self.offset, members)


Head = TypeVar("Head", bound="AbstractConvexHead")


@dataclass(kw_only=True, eq=False, repr=False)
class AbstractConvexHead(BaseEstimator, ABC):
    r"""A head on tokens, trained to certified optimality: no learning rate, and the only seed is that of its gates.

    .. math:: \min_Z \frac1n \sum_i \ell(f_Z(X_i), y_i) + \beta \sum_t \lVert Z_t \rVert_*

    the mean loss over images plus beta times the penalty, outputs pooled by the mean over tokens (except for token-wise
    targets); ``certificate_.primal`` is its value. The penalty is half the squared weights of all heads. Tokens ``X``
    are ``(images, tokens, dim)``, NumPy (a memory map stays on disk) or torch; two-dimensional ``X`` is one token an
    image. Parameters are stored as given and checked in ``fit``, which raises ``UserError`` (a ``ValueError``).

    After ``fit``: ``certificate_``, ``heads_``, ``solution_``, ``history_`` (of an ensemble's first member) and
    ``certificates_``, ``solutions_`` of all; ``trained_`` (all that outputs depend on), ``beta_``, ``validation_`` (the
    trials of ``beta="auto"``, else None), ``n_features_in_`` (dim), ``tokens_in_``. If the certificate does not reach
    ``tol``, a ``ConvergenceWarning`` says what to do and the fit is kept. An interrupted fit (``interrupted_``) keeps
    its best point, from which another fit with ``warm_start`` continues. Source: Sahiner et al. 2022.
    """

    activation: str = "gated-relu"
    """``linear``, ``gated-relu`` (gates drawn by seed) or ``relu`` (whose certificate is heuristic)."""
    beta: float | Literal["auto"] = 1e-3
    """Weight of the penalty; ``auto`` chooses it on ``validation`` along a path of ``betas`` values."""
    gates: int = 4
    """Number of gates of the gated ReLU; time and memory grow in proportion."""
    tol: float = 1e-3
    """Certified relative gap at which a fit ends."""
    solver: str = "auto"
    """Name of a solver; ``auto`` picks the faster one for the problem."""
    max_passes: int = 2000
    """Passes over the images after which a fit ends."""
    standardize: bool = True
    """Whether each entry of a token is brought to mean 0 and variance ``1 / dim`` over images and tokens (the head
    sees this; it is part of the module). A regressor's targets then lose their mean, which outputs start from."""
    ensemble: int = 1
    """Number of draws of gates, fitted one after another, whose outputs are averaged."""
    betas: int = 20
    """Number of values of beta on the path of ``auto``."""
    validation: float = 0.2
    """Share of the images held out for ``auto``; the chosen fit then continues with all of them."""
    random_state: int | np.random.RandomState | None = 0
    """Seed of gates and of the images held out."""
    precision: str = "float32"
    """``float32`` or ``float64``; the certificate is always in float64."""
    device: str = "cpu"
    """Device of the fit."""
    memory: int = 2**30
    """Bytes that prepared images may take; if they take more, they are prepared again in every pass."""
    warm_start: bool = False
    """Whether ``fit`` starts with the previous fit's heads, under every gate that both have: an interrupted fit then
    continues (and its trials of ``auto`` are reused), and a finished one is certified at once. If tokens, outputs, kind
    of head or gates differ, it starts from nothing."""
    verbose: bool = False
    """Whether each step of the solver is printed."""
    callback: Callable[[SolverStep], None] | None = None
    """A function called with every :class:`~vitscope.convex.solver.Step`: seconds, passes, objective, lower bound and
    number of heads. If it raises ``KeyboardInterrupt``, the fit ends with its best point, as with control-C."""

    of: ClassVar[type[AbstractBlock]]
    """The kind of head."""

    def block(self) -> AbstractBlock:
        """The kind of head at this estimator's options, which are its parameters of the same names."""
        return self.of(**{name: getattr(self, name) for name in self.of.options()})

    @abstractmethod
    def _goal(self, y: Any, tokens: TokenSource) -> Goal:  # noqa: ANN401
        """The goal of the fit; stores what predictions need."""

    def fit(self: Head, X: Any, y: Any) -> Head:  # noqa: ANN401
        """Train on tokens ``(images, tokens, dim)`` and their labels or targets."""
        prepared = self._prepare(X, y)
        self.solutions_ = tuple(
            replace(one, heads=one.heads.to(prepared.offset.dtype, torch.device("cpu")))
            for one in self._solve_draws(prepared.draws, prepared.seed)
        )
        self.trained_ = prepared.assemble(self.solutions_)
        return self

    def problem(self, X: Any, y: Any) -> Problem:  # noqa: ANN401
        """The problem that ``fit`` solves: tokens standardised, images weighted, gates drawn; of the first member.

        If beta is to be chosen it is 1: see :meth:`~vitscope.convex.problem.Problem.with_beta`. Raises as ``fit`` does.
        The estimator does not change. Cost: one reading of the tokens.
        """
        return copy(self)._prepare(X, y).draws[0]

    def check(self) -> None:
        """Raise ``UserError`` for parameters that are wrong whatever the tokens; ``fit`` does so first."""
        check_all(
            (
                Whole("gates", self.gates),
                Whole("max_passes", self.max_passes),
                Whole("ensemble", self.ensemble),
                Whole("betas", self.betas),
                Whole("memory", self.memory),
                Positive("tol", self.tol),
                Positive("validation", self.validation, below=1.0),
            )
        )
        if self.beta != "auto":
            Positive("beta", self.beta, instead=', or "auto" to choose it on images held out').check()
        check_precision(self.precision)
        check_device(self.device)
        if self.ensemble > 1 and check_activation(self.activation) != "gated-relu":
            raise UserError(
                f"An ensemble averages draws of gates, but the {self.activation} activation has none; give "
                'ensemble=1 or activation="gated-relu".'
            )

    def _prepare(self, X: Any, y: Any) -> Prepared:  # noqa: ANN401
        """The problems to solve; stores what predictions need."""
        self.check()
        source = tokens_of(self, X, reset=True)
        self.tokens_in_, self.n_features_in_ = int(source.shape[1]), int(source.shape[2])
        goal = self._goal(y, source)
        tokens = Tokens(source, (standardisation_of if self.standardize else identity_standardisation)(source))
        random = check_random_state(self.random_state)
        seeds = [int(random.randint(2**31 - 1)) for _ in range(self.ensemble + 1)]
        draws = tuple(self._draw(tokens, goal, seed) for seed in seeds[1:])
        return Prepared(draws, tokens.standardisation, goal.offset.to(draws[0].dtype), seeds[0])

    def _draw(self, tokens: Tokens, goal: Goal, seed: int) -> Problem:
        """The problem under the gates of a seed. Gates are float32 numbers, whatever the precision."""
        activation = check_activation(self.activation)
        block, sizes = self.block(), Sizes(tokens.shape[1], tokens.shape[2], goal.loss.outputs)
        gates = self.gates if activation == "gated-relu" else None
        drawn = terms(block, sizes, gates, torch.Generator().manual_seed(seed), torch.float32)
        if gates is not None:
            check_gates(gates, block, sizes, len(tokens) * (1 if goal.pooled else sizes.tokens), self.memory)
        return Problem(
            tokens,
            goal.loss,
            block,
            drawn,
            beta=1.0 if self.beta == "auto" else float(self.beta),
            pooled=goal.pooled,
            relu=activation == "relu",
            dtype=check_precision(self.precision),
            device=check_device(self.device),
            memory=self.memory,
        )

    def _solve_draws(self, draws: Sequence[Problem], seed: int) -> tuple[Solution, ...]:
        """Solve each draw, after choosing beta with the first if it is ``auto``; sets the attributes of the fit."""
        fitting = Fitting(self.tol, self.solver, self.max_passes, self._watch)
        starts, before = self._starts(draws)
        self.beta_, self.validation_, self.interrupted_ = draws[0].beta, None, False
        solutions: list[Solution] = []
        if self.beta == "auto":
            choice = choose_beta(draws[0], split(draws[0], self.validation, seed), self.betas, fitting, before)
            self.beta_, self.validation_, self.interrupted_ = choice.beta, choice.trials, choice.interrupted
            starts[0] = choice.solution.heads
            if choice.interrupted:
                solutions.append(choice.solution)
        for draw, start in zip(draws, starts, strict=True):
            if self.interrupted_:
                break
            problem = draw.with_beta(self.beta_)
            solution = fitting.solve(problem, start)
            self.interrupted_ = solution.stopped == "interrupted"
            if not self.interrupted_:
                warn_of(solution, problem, fitting)
            if not self.interrupted_ or not solutions:
                solutions.append(solution)
            draw.kept.clear()
        if self.interrupted_:
            warn_interrupted()
        return tuple(solutions)

    def _starts(self, draws: Sequence[Problem]) -> tuple[list[Heads | None], Choice | None]:
        """Each draw's first heads, and the choice of beta so far: with ``warm_start``, those of the previous fit."""
        if not self.warm_start or not hasattr(self, "trained_"):
            return [None] * len(draws), None
        starts = [self.trained_.start(member, draw) for member, draw in enumerate(draws)]
        if starts[0] is None or self.validation_ is None:
            return starts, None
        first = replace(self.solution_, heads=starts[0])
        return starts, Choice(first, self.beta_, self.validation_, self.interrupted_)

    def _watch(self, step: SolverStep) -> None:
        """Print a step and pass it to the callback, if there is one."""
        if self.verbose:
            print_step(step)
        if self.callback is not None:
            self.callback(step)

    @property
    def solution_(self) -> Solution:
        """The first member's solution."""
        return self.solutions_[0]

    @property
    def certificate_(self) -> Certificate:
        """At most how far the first member's heads are from the optimum."""
        return self.solution_.certificate

    @property
    def certificates_(self) -> tuple[Certificate, ...]:
        """The certificates of all members."""
        return tuple(solution.certificate for solution in self.solutions_)

    @property
    def heads_(self) -> Heads:
        """The first member's heads."""
        return self.solution_.heads

    @property
    def history_(self) -> tuple[SolverStep, ...]:
        """The first member's steps."""
        return self.solution_.history

    def to_module(self) -> ConvexHead:
        """The head as a torch module: tokens (batch, tokens, dim) to logits, or outputs."""
        check_is_fitted(self)
        return ConvexHead(self.trained_).eval()

    def attach(self, source: Subject | TokenExtractor) -> Headed:
        """A whole model of a backbone and this head: images to logits; see :func:`vitscope.convex.attach.attach`."""
        return attach(self.to_module(), source)

    def _outputs(self, X: Any) -> Float64[np.ndarray, "images rows outputs"]:  # noqa: ANN401
        """The outputs of images, for any kind of prediction."""
        check_is_fitted(self)
        source = tokens_of(self, X, reset=False)
        if tuple(source.shape[1:]) != (self.tokens_in_, self.n_features_in_):
            raise UserError(
                f"The head was fitted to images of {self.tokens_in_} tokens of {self.n_features_in_} entries, but "
                f"these have {source.shape[1]} of {source.shape[2]}; give tokens made in the same way."
            )
        return self.trained_.outputs(source, check_device(self.device), self.memory).double().numpy()

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.target_tags.required = True
        return tags


@dataclass(kw_only=True, eq=False, repr=False)
class AbstractConvexClassifier(ClassifierMixin, AbstractConvexHead):
    """A convex head for one of several classes: softmax cross-entropy, in nats, of outputs pooled over tokens.

    One output for each class, even of two classes. There is no intercept. ``classes_`` are the classes, sorted.
    """

    class_weight: Mapping[Any, float] | Literal["balanced"] | None = None
    """Weight of each class's images; ``balanced`` gives every class the same share. They are scaled to a mean of 1."""

    def _goal(self, y: Any, tokens: TokenSource) -> Goal:  # noqa: ANN401
        self.classes_, numbers = labels_of(y, len(tokens))
        each = compute_class_weight(self.class_weight, classes=self.classes_, y=self.classes_[numbers])
        weights = torch.as_tensor(each)[torch.as_tensor(numbers)]
        loss = CrossEntropy(torch.as_tensor(numbers), weights / weights.mean(), len(self.classes_))
        return Goal(loss, torch.zeros(loss.classes), pooled=True)

    def decision_function(self, X: Any) -> Float64[np.ndarray, "..."]:  # noqa: ANN401
        """Logits (images, classes); for two classes the second minus the first (images,)."""
        logits = self._outputs(X)[:, 0]
        return logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits

    def predict_proba(self, X: Any) -> Float64[np.ndarray, "images classes"]:  # noqa: ANN401
        """The softmax of the logits."""
        return softmax(self._outputs(X)[:, 0], axis=1)

    def predict(self, X: Any) -> NDArray[Any]:  # noqa: ANN401
        """The class with the largest logit."""
        best = self._outputs(X)[:, 0].argmax(1)
        return self.classes_[best]


@dataclass(kw_only=True, eq=False, repr=False)
class AbstractConvexRegressor(RegressorMixin, AbstractConvexHead):
    """A convex head for numbers: half the squared distance, summed over an image's outputs, mean over images.

    Targets are ``(images,)`` or ``(images, outputs)`` for the mean over tokens, or ``(images, tokens, outputs)`` for
    every token (denoising). Predictions have the same shape.
    """

    def _goal(self, y: Any, tokens: TokenSource) -> Goal:  # noqa: ANN401
        found = torch.tensor(targets_of(y, len(tokens), tokens.shape[1]))  # a copy: it may be read-only
        self.target_shape_ = tuple(found.shape[1:])
        pooled = found.ndim < 3
        targets = found.reshape(len(found), -1, found.shape[-1] if found.ndim > 1 else 1)
        offset = targets.mean((0, 1)) if self.standardize else targets.new_zeros(targets.shape[2])
        loss = Squared(targets - offset, targets.new_ones(len(targets)))
        return Goal(loss, offset, pooled)

    def predict(self, X: Any) -> Float64[np.ndarray, "images ..."]:  # noqa: ANN401
        """The outputs, in the shape of the targets."""
        outputs = self._outputs(X)
        return outputs.reshape(len(outputs), *self.target_shape_)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:  # noqa: ANN401
        """The coefficient of determination, mean over outputs; with token-wise targets, tokens count as images."""
        predicted, wanted = self.predict(X), as_array(y)
        if predicted.ndim == 3:
            sample_weight = None if sample_weight is None else np.repeat(sample_weight, predicted.shape[1])
            predicted, wanted = (one.reshape(-1, one.shape[-1]) for one in (predicted, wanted))
        return float(r2_score(wanted, predicted, sample_weight=sample_weight))

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags


def estimators() -> dict[str, type[AbstractConvexHead]]:
    """The classifier and the regressor of every kind of head, by the names of their classes."""
    pairs = (cast("tuple[type[AbstractConvexHead], ...]", block.estimators()) for _, block in BLOCKS.items())
    return {cls.__name__: cls for pair in pairs for cls in pair}


def estimator_named(name: str) -> type[AbstractConvexHead]:
    """The classifier or regressor of this name. ``UserError`` if no kind of head has it."""
    found = estimators().get(name)
    if found is None:
        raise UserError(f"No kind of head here has an estimator {name}; import the module or plugin that defines it.")
    return found
