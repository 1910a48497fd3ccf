"""Failures of a model's walk, reported in one sentence that names the images."""

from collections.abc import Generator
from contextlib import contextmanager

import torch
from torch import Tensor

from vitscope.data import Images
from vitscope.data.batch import Batch
from vitscope.measurement.errors import UserError
from vitscope.measurement.text import reason
from vitscope.models.feed import input_like
from vitscope.models.subject import Subject, Unwatched


@contextmanager
def report_failures(subject: Subject, images: Images, batch: Batch) -> Generator[None]:
    """Turn what the subject raises on the batch into a ``UserError`` that names the images; other errors pass.

    The subject is to blame if its walk also fails on these images without an observer. Cost: none unless it fails.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        pixels = batch.pixels.to(input_like(subject.module).device)
        names = [images.pictures.name(int(images.positions[index])) for index in batch.indices.tolist()]
        alone = [name for name, one in zip(names, pixels.split(1), strict=True) if _fails(subject, one)]
        if not alone and not _fails(subject, pixels):
            raise
        shown = ", ".join((alone or names)[:3]) + (", ..." if len(alone or names) > 3 else "")
        what = "fix it, or leave them out" if alone else "each alone is fine: give a smaller batch size, or fix it"
        raise UserError(f"{subject.name} does not run on {shown} ({reason(error)}); {what}.") from error


def _fails(subject: Subject, pixels: Tensor) -> bool:
    try:
        with torch.no_grad():
            subject.anatomy.walk(pixels.clone(), Unwatched())
    except Exception:  # a user's module may raise anything
        return True
    return False
