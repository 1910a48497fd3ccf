"""Compaction: equal logits in every family, no weight that is not used, and the original as it was."""

import pytest
import torch
from torch import nn

import vitscope
from vitscope.interventions.bypass import Mean, irremovable_layers
from vitscope.interventions.lesion import Lesion
from vitscope.interventions.token_keep import TokenKeep
from vitscope.models.adapter import ADAPTERS
from vitscope.models.catalogue import import_installed_adapters
from vitscope.models.compact import compact
from vitscope.models.pixels import PixelInput
from vitscope.models.subject import Preprocessing, Subject

import_installed_adapters()
EXAMPLES = [(adapter, example) for _, adapter in ADAPTERS.items() for example in adapter.examples()]


def of_family(adapter, example):
    torch.manual_seed(0)
    module = example.build().eval().double()
    shape = Preprocessing(example.image_shape, torch.tensor, "")
    return Subject("x", adapter.name, module, adapter.anatomy(module), shape, 7)


def logits(model, shape):
    with torch.no_grad():
        return model(torch.randn(3, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64))


@pytest.mark.parametrize(("adapter", "example"), EXAMPLES, ids=[example.name for _, example in EXAMPLES])
def test_a_compacted_subject_has_its_logits_and_no_other_weights(adapter, example):
    subject = of_family(adapter, example)
    before, shape = subject.fingerprint, subject.preprocessing.shape
    free = [layer for layer in range(1, len(subject.places) + 1) if layer not in irremovable_layers(subject)]
    edited = Lesion((free[-1],))(subject)
    whole, fewer = compact(subject), compact(edited)
    assert torch.equal(logits(whole, shape), logits(subject, shape))
    assert torch.equal(logits(fewer, shape), logits(edited, shape))
    count, less = (sum(one.numel() for one in model.parameters()) for model in (whole, fewer))
    unit = subject.module.get_submodule(subject.places[free[-1] - 1].name)
    assert less < count
    assert count - less >= sum(one.numel() for one in unit.parameters())
    assert subject.fingerprint == before


def test_a_compacted_walk_keeps_fewer_tokens():
    subject = vitscope.load("vit-micro")
    edited = TokenKeep(0.5, 3)(subject)
    shape = subject.preprocessing.shape
    images = torch.randn(2, *shape)
    with torch.no_grad():
        assert torch.equal(compact(edited)(images), edited(images))
        exported = torch.export.export(compact(edited), (images,)).module()
        assert torch.equal(exported(images), edited(images))


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x):
        return x + self.layer(x).tanh()


def plain(seed=0):
    torch.manual_seed(seed)
    stem, blocks = nn.Conv2d(3, 4, 1), nn.Sequential(*(Block() for _ in range(4)))
    module = nn.Sequential(stem, blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))
    return vitscope.load(module, input=PixelInput(8, 3, (0.5,), (0.5,)), name="plain")


def test_the_blocks_of_a_plain_module_that_are_left_out_do_not_run():
    subject = plain()
    ran = []
    edited = Lesion((2, 3))(subject)
    fewer = compact(edited)
    for part in fewer.modules():
        if isinstance(part, Block):
            part.register_forward_hook(lambda *_: ran.append(1))
    images = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(fewer(images), edited(images))
    assert len(ran) == 2
    assert sum(1 for part in subject.module.modules() if isinstance(part, Block)) == 4


def test_a_mean_stays_in_the_place_of_a_block():
    subject = plain()
    shown = torch.randn(2, 3, 8, 8)
    edited = Lesion((2,), (Mean(torch.full((4, 8, 8), 0.3, dtype=torch.float64)),))(subject)
    with torch.no_grad():
        assert torch.allclose(compact(edited)(shown), edited(shown), atol=1e-6)
        assert not torch.allclose(compact(edited)(shown), compact(Lesion((2,))(subject))(shown), atol=1e-3)
    assert any("mean" in name for name in compact(edited).state_dict())
