"""Names that are known without importing a library are those that the library has."""

import pytest
import timm
from torchvision import models

from vitscope.measurement.errors import UserError
from vitscope.models.catalogue import import_adapters
from vitscope.models.names import OWN, refuse_unknown, registered_names
from vitscope.models.own.vit import SIZES


def test_the_names_in_the_source_are_the_librarys() -> None:
    import_adapters("timm")  # which adds names of its own to timm's
    assert set(registered_names("timm")) == set(timm.list_models())
    assert set(registered_names("torchvision")) == set(models.list_models(module=models))
    assert ("digits", *SIZES) == OWN


def test_no_name_that_a_library_has_is_refused() -> None:
    """Renamed models of timm, weights by their tag, and what only a hub can know."""
    renamed = ["vit_base_patch16_224_in21k", "swin_base_patch4_window7_224_in22k", "tv_resnet50"]
    assert all(timm.is_model(name) for name in renamed)
    for name in (*renamed, "vit_tiny_patch16_224.augreg_in21k", "hf-hub:timm/any", "local-dir:any"):
        refuse_unknown(f"timm/{name}")
    for name in (*OWN, "vitscope/digits", "torchvision/vit_b_16", "transformers/google/vit-base-patch16-224"):
        refuse_unknown(name)


def test_what_no_library_has_is_refused() -> None:
    for name in (
        "timm/vit_tiny_patch16_225",
        "torchvision/vit_b_17",
        "keras/vgg",
        "vit_tiny_patch16_224",
        "runs/none.pt",
    ):
        with pytest.raises(UserError, match=r"no model named|is no file, saved folder or model name"):
            refuse_unknown(name)
