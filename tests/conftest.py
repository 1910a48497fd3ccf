import multiprocessing
import os
from pathlib import Path

import pytest
import torch
import typed

typed.install()
from vitscope.engine.work import crew  # noqa: E402

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real images and weights."""
    folder = os.environ.get("VITSCOPE_DATA")
    if not folder:
        pytest.skip("VITSCOPE_DATA is not set: no real images or weights to test on")
    return Path(folder)


@pytest.fixture(autouse=True, scope="session")
def no_transform_of_nothing():
    """Intel's MKL refuses Fourier transforms of empty tensors; other builds of PyTorch learn it here."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("fftn", "ifftn", "rfft2", "irfft2"):
            patch.setattr(torch.fft, name, refusing_nothing(getattr(torch.fft, name)))
        yield


@pytest.fixture(autouse=True, scope="session")
def quick_workers():
    """Worker processes are forked from one that has the libraries imported; by themselves each imports them anew."""
    forking = multiprocessing.get_context("forkserver")
    forking.set_forkserver_preload(["timm", "vitscope.engine.work.executor"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(crew, "CONTEXT", forking)
        yield


def refusing_nothing(transform):
    def refusing(values, *more, **settings):
        assert values.numel(), "MKL FFT error: Inconsistent configuration parameters"
        return transform(values, *more, **settings)

    return refusing
