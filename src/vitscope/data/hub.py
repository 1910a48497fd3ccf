"""Data sets of the Hugging Face hub, by name."""

import os
import re
from pathlib import Path
from types import ModuleType
from typing import final

from vitscope.data.rows import open_rows
from vitscope.data.source import AbstractSource, FoundSource, SourceChoice, choose_split
from vitscope.measurement.errors import UserError
from vitscope.measurement.text import printable

PREFIX = re.compile(r"^(hub:|hf://(datasets/)?)")
OWNER_AND_NAME = re.compile(r"^\w[\w.-]*/\w[\w.-]*$")
FILE_SUFFIX = re.compile(r"\.(parquet|npz|npy|jpe?g|png|webp|zip|tar|json)$", re.IGNORECASE)


@final
class HubSource(AbstractSource):
    """`hub:owner/name`, `hf://owner/name`, or `owner/name` if no such path or folder exists; needs `vitscope[hub]`.

    The chosen split is downloaded once, into the cache of the `datasets` library.
    """

    def claims(self, source: object) -> bool:
        """A name with one of the prefixes, or one that looks like owner/name and is not a path."""
        if not isinstance(source, str):
            return False
        plain = OWNER_AND_NAME.match(source) and not FILE_SUFFIX.search(source)
        # A missing file of an existing folder is a typing error, not a name on the hub.
        here = os.path.exists(source) or os.path.exists(source.split("/")[0])
        return bool(PREFIX.match(source) or (plain and not here))

    def open(self, source: object, choice: SourceChoice) -> FoundSource:
        """Download what is not in the cache, and find the image and label columns."""
        name = PREFIX.sub("", str(source))
        library = _library(str(source))
        try:
            # A split given by name is not looked up first, so that a cached one is read without network.
            splits = library.get_dataset_split_names(name) if choice.split is None else [choice.split]
            chosen = choose_split(f"the hub data set {name}", splits, choice.split)
            rows = library.load_dataset(name, split=chosen)
        except UserError:
            raise
        except Exception as error:  # the library lets errors of its HTTP client, cache and builders through
            raise _unreachable(str(source), name, error) from error
        where = printable(f"{name}/{chosen}")
        return open_rows(where, where, rows, choice, _folders(name, library), within=True)


def _folders(name: str, library: ModuleType) -> tuple[Path, ...]:
    """The folders that may hold the files of a data set's rows: the caches of its download, and its own folder."""
    from huggingface_hub import constants

    caches = (Path(library.config.HF_DATASETS_CACHE), Path(constants.HF_HUB_CACHE))
    return (*caches, Path(name)) if os.path.isdir(name) else caches


def _library(source: str) -> ModuleType:
    try:
        import datasets  # optional, and slow to import
    except ImportError as error:
        raise UserError(
            f"{source!r} is not a path here, and reading it from the Hugging Face hub needs the datasets library: "
            "pip install 'vitscope[hub]'."
        ) from error
    return datasets


def _unreachable(source: str, name: str, error: Exception) -> UserError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
    if "split" in reason.lower() and isinstance(error, ValueError):
        return UserError(f"the hub data set {name} has no such split: {reason}.", ())
    path = "" if PREFIX.match(source) else f"{source!r} is not a path here, and "
    return UserError(
        f"{path}the data set {name!r} could not be read from the Hugging Face hub ({reason}): check name and network."
    )
