import os
from pathlib import Path

import pytest
import torch
from jaxtyping import install_import_hook

_hook = install_import_hook("vitscope", "beartype.beartype")
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real images and weights."""
    folder = os.environ.get("VITSCOPE_DATA")
    if not folder:
        pytest.skip("VITSCOPE_DATA is not set: no real images or weights to test on")
    return Path(folder)
