"""Fitted estimators in one ``.safetensors`` file: tensors and a JSON description, nothing that could run code."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from vitscope.convex.block import Sizes, Term
from vitscope.convex.certificate import Certificate
from vitscope.convex.estimator import AbstractConvexHead, estimator_named
from vitscope.convex.heads import Factors, Heads
from vitscope.convex.selection import Trial
from vitscope.convex.solver import Solution, SolverStep
from vitscope.convex.tokens import Standardisation
from vitscope.convex.trained import Member, Trained
from vitscope.measurement.errors import UserError
from vitscope.numerics.digest import tensor_digest
from vitscope.runs.seal import Damaged, digest
from vitscope.runs.store import RunFolder
from vitscope.runs.whole import local_path, write_whole

HEAD_FILE = "head.safetensors"
_KEY, _SEAL = "vitscope.convex", "vitscope.seal"
_FORMAT = 1
_LEARNED = ("beta_", "interrupted_", "tokens_in_", "n_features_in_", "feature_names_in_", "classes_", "target_shape_")
_UNSAVED = ("callback",)


def save(estimator: AbstractConvexHead, path: str | Path) -> Path:
    """Write a fitted estimator to a ``.safetensors`` file, or as ``head.safetensors`` into a folder; returns the file.

    The file is written whole or not at all, and replaces an earlier one. Its tensors are the standardisation, the gates
    and the heads; its metadata holds, as one JSON object under ``vitscope.convex``, the parameters (except
    ``callback``), the classes, the certificates and the steps of the fit. Raises ``UserError`` for parameters that JSON
    cannot express.
    """
    target = _file(path)
    write_whole(target, to_bytes(estimator))
    return target


def to_bytes(estimator: AbstractConvexHead) -> bytes:
    """The content of the file that :func:`save` writes."""
    check_is_fitted(estimator)
    tensors = {name: tensor.contiguous().clone() for name, tensor in _tensors(estimator.trained_)}
    facts = _json(estimator)
    return save_tensors(tensors, {_KEY: facts, _SEAL: _seal(facts, tensors)})


def load(path: str | Path) -> AbstractConvexHead:
    """The estimator that :func:`save` wrote; its predictions are the same bit for bit. Nothing is unpickled.

    Raises ``UserError`` if the file is not whole, or does not belong to the run beside it.
    """
    target = _file(path)
    if not target.is_file():
        raise UserError(f"There is no saved head at {target}; give the folder or file that it was saved to.")
    if target.name == HEAD_FILE:
        RunFolder(str(target.parent)).read()  # which refuses files that do not belong together
    return from_bytes(target.read_bytes(), str(target))


def from_bytes(content: bytes, where: str) -> AbstractConvexHead:
    """The estimator whose :func:`to_bytes` these are; errors say ``where`` they come from."""
    try:
        tensors = load_tensors(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        metadata: Mapping[str, Any] = header.get("__metadata__", {})
    except (SafetensorError, ValueError, AttributeError, RecursionError) as error:
        raise UserError(f"{where} is not a whole .safetensors file ({error}); save the head again.") from error
    if f'"format": {_FORMAT},' not in str(metadata.get(_KEY)):
        raise UserError(f"{where} is not a convex head that this version of vitscope can read.")
    try:
        if metadata.get(_SEAL, "") not in ("", _seal(metadata[_KEY], tensors)):
            raise Damaged("its content is not what was saved")
        return _estimator(json.loads(metadata[_KEY]), tensors)
    except (Damaged, LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        why = str(error) if isinstance(error, Damaged) else f"{type(error).__name__}: {error}"
        raise UserError(f"{where} is damaged ({why.splitlines()[0]}); save the head again.") from error


def _file(path: str | Path) -> Path:
    path = local_path(path, "A head is")
    return path if path.suffix == ".safetensors" else path / HEAD_FILE


def _seal(facts: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of everything that a file says."""
    sums = [f"{name} {tensor.dtype} {tuple(tensor.shape)} {tensor_digest(tensor)}" for name, tensor in tensors.items()]
    return digest("\n".join([facts, *sorted(sums)]).encode())


def _tensors(trained: Trained) -> Iterator[tuple[str, Tensor]]:
    yield "standardisation.mean", trained.standardisation.mean
    yield "standardisation.scale", trained.standardisation.scale
    yield "offset", trained.offset
    for m, member in enumerate(trained.members):
        for t, (term, factors) in enumerate(zip(member.terms, member.heads.terms, strict=True)):
            if term.vector is not None:
                yield f"{m}.{t}.gate", term.vector
            yield f"{m}.{t}.left", factors.left
            yield f"{m}.{t}.right", factors.right


def _json(estimator: AbstractConvexHead) -> str:
    trained = estimator.trained_
    facts: dict[str, object] = {
        "format": _FORMAT,
        "estimator": type(estimator).__name__,
        "parameters": {
            name: _encode(value) for name, value in estimator.get_params(deep=False).items() if name not in _UNSAVED
        },
        "learned": {name: _encode(getattr(estimator, name)) for name in _LEARNED if hasattr(estimator, name)},
        "validation": None if estimator.validation_ is None else [asdict(trial) for trial in estimator.validation_],
        "sizes": asdict(trained.sizes),
        "pooled": trained.pooled,
        "relu": trained.relu,
        "terms": [[_bounds(term) for term in member.terms] for member in trained.members],
        "solutions": [
            {
                "certificate": asdict(solution.certificate),
                "stopped": solution.stopped,
                "history": [asdict(step) for step in solution.history],
            }
            for solution in estimator.solutions_
        ],
    }
    try:
        return json.dumps(facts)
    except TypeError as error:
        raise UserError(
            f"The head cannot be saved ({error}); give parameters that are numbers, strings or None."
        ) from error


def _estimator(facts: dict[str, Any], tensors: Mapping[str, Tensor]) -> AbstractConvexHead:
    parameters = {name: _decode(value) for name, value in facts["parameters"].items()}
    estimator = estimator_named(facts["estimator"])(**parameters)
    for name, value in facts["learned"].items():
        if name not in _LEARNED:
            raise ValueError(f"{name} is not a learned attribute")
        setattr(estimator, name, _decode(value))
    trials = facts["validation"]
    estimator.validation_ = None if trials is None else tuple(Trial(**trial) for trial in trials)
    members = tuple(_member(m, terms, tensors) for m, terms in enumerate(facts["terms"]))
    estimator.trained_ = Trained(
        estimator.block(),
        Sizes(**facts["sizes"]),
        facts["pooled"],
        facts["relu"],
        Standardisation(tensors["standardisation.mean"], tensors["standardisation.scale"]),
        tensors["offset"],
        members,
    )
    estimator.solutions_ = tuple(
        Solution(
            member.heads,
            Certificate(**solution["certificate"]),
            tuple(SolverStep(**step) for step in solution["history"]),
            solution["stopped"],
        )
        for member, solution in zip(members, facts["solutions"], strict=True)
    )
    return estimator


def _member(m: int, bounds: list[list[int]], tensors: Mapping[str, Tensor]) -> Member:
    terms = tuple(
        Term(tensors.get(f"{m}.{t}.gate"), slice(first, last), slice(start, stop))
        for t, (first, last, start, stop) in enumerate(bounds)
    )
    factors = tuple(Factors(tensors[f"{m}.{t}.left"], tensors[f"{m}.{t}.right"]) for t in range(len(bounds)))
    return Member(terms, Heads(factors))


def _bounds(term: Term) -> list[int]:
    return [term.entries.start, term.entries.stop, term.outputs.start, term.outputs.stop]


def _encode(value: object) -> object:
    """A value as JSON; what JSON cannot express becomes an object with a key that names its kind."""
    if isinstance(value, np.ndarray):
        return {"array": value.tolist(), "dtype": value.dtype.str}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, tuple):
        return {"tuple": [_encode(one) for one in cast("tuple[object, ...]", value)]}
    if isinstance(value, Mapping):
        pairs = cast("Mapping[object, object]", value).items()
        return {"mapping": [[_encode(name), _encode(one)] for name, one in pairs]}
    return value


def _decode(value: Any) -> Any:  # noqa: ANN401
    if not isinstance(value, dict):
        return value
    if "array" in value:
        return np.array(value["array"], dtype=value["dtype"])
    if "tuple" in value:
        return tuple(_decode(one) for one in value["tuple"])
    return {_decode(name): _decode(one) for name, one in value["mapping"]}
