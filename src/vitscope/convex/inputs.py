"""A convex estimator's inputs, converted to tokens, labels and targets, or refused with an error that says why."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_array, column_or_1d, validate_data
from torch import Tensor

from vitscope.convex.tokens import TokenSource
from vitscope.measurement.errors import UserError
from vitscope.measurement.text import reason


def tokens_of(estimator: BaseEstimator, given: Any, *, reset: bool) -> TokenSource:  # noqa: ANN401
    """Images' tokens: three-dimensional arrays and tensors as they are, two-dimensional ones as one token an image.

    With ``reset`` the estimator learns the names of columns; otherwise it compares them.
    """
    if isinstance(given, Tensor) and given.ndim != 3:
        given = given.detach().cpu().numpy()
    if isinstance(given, list | tuple) and np.ndim(cast("Any", given)) == 3:
        given = np.asarray(given)
    if isinstance(given, Tensor | np.ndarray) and given.ndim == 3:
        return _check_tokens(given)
    shape: tuple[int, ...] = getattr(given, "shape", ())
    if len(shape) == 1 or len(shape) > 3:
        do = "Reshape your data" if len(shape) == 1 else "flatten grids of tokens to one axis"
        raise UserError(
            f"Found array with dim {len(shape)}: tokens are (images, tokens, dim), but these have the shape "
            f"{tuple(shape)}; {do}."
        )
    check = cast("Callable[..., NDArray[Any]]", validate_data)
    with _in_a_sentence():
        return check(estimator, given, reset=reset, dtype="numeric")[:, None, :]


def _check_tokens(given: TokenSource) -> TokenSource:
    real = not given.is_complex() if isinstance(given, Tensor) else given.dtype.kind in "fiub"
    if not real:
        raise UserError(f"Tokens must be real numbers, but these are {given.dtype}; convert them to float32.")
    if 0 in given.shape:
        raise UserError(f"Tokens of the shape {tuple(given.shape)} are empty; give images with tokens.")
    return given


def labels_of(given: Any, images: int) -> tuple[NDArray[Any], Int[np.ndarray, " images"]]:  # noqa: ANN401
    """The classes, sorted, and the number of each image's class."""
    given = as_array(given)
    if (given.ndim == 2 and given.shape[1] > 1) or given.ndim > 2:
        raise UserError(
            f"A head learns one label for each image, but y has the shape {given.shape}; fit a head for each column."
        )
    _check_finite(given, dtype=None)
    check_classification_targets(given)
    labels = cast("NDArray[Any]", column_or_1d(given, warn=True))
    _check_length(images, labels)
    classes, numbers = np.unique(labels, return_inverse=True)
    if len(classes) < 2:
        raise UserError(f"All labels are of one class, {classes[0]}; give images of at least two classes.")
    return classes, numbers.astype(np.int64)


def targets_of(given: Any, images: int, tokens: int) -> Float[np.ndarray, "..."]:  # noqa: ANN401
    """Targets as ``(images,)``, ``(images, outputs)`` or ``(images, tokens, outputs)``, in float64."""
    given = as_array(given)
    found = _check_finite(given, dtype=np.float64)
    _check_length(images, found)
    if found.ndim > 3 or (found.ndim == 3 and found.shape[1] != tokens):
        raise UserError(
            f"Targets are (images,), (images, outputs) or (images, {tokens}, outputs), but y has the shape "
            f"{found.shape}; give one of these."
        )
    return found


def as_array(given: Any) -> NDArray[Any]:  # noqa: ANN401
    """Labels or targets as an array."""
    if given is None:
        raise UserError("The estimator requires y to be passed, but the target y is None; give a label or a target.")
    if isinstance(given, Tensor):
        given = given.detach().cpu().numpy()
    return np.asarray(given)


def _check_length(images: int, y: NDArray[Any]) -> None:
    if len(y) != images:
        raise UserError(f"There are tokens of {images} images but labels or targets of {len(y)}; give one for each.")


def _check_finite(y: NDArray[Any], dtype: type | None) -> NDArray[Any]:
    check = cast("Callable[..., NDArray[Any]]", check_array)
    with _in_a_sentence():
        return check(y, ensure_2d=False, allow_nd=True, dtype=dtype, input_name="y")


@contextmanager
def _in_a_sentence() -> Generator[None]:
    """Reports numbers that are not finite as scikit-learn does, without its advice to use another estimator."""
    try:
        yield
    except ValueError as error:
        said = reason(error)
        if "contains NaN" not in said and "contains infinity" not in said:
            raise
        raise UserError(f"{said}; leave such images out or repair them.") from error
