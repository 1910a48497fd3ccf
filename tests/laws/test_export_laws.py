"""Exported programs: the subject's logits at every batch size, from the module, its edits included."""

import pytest
import torch
from torch import nn

import vitscope
from vitscope.deploy.onnx_file import open_onnx, save_onnx
from vitscope.deploy.program import trace_program
from vitscope.interventions.attention_shape import AttentionShape
from vitscope.interventions.bypass import irremovable_layers
from vitscope.interventions.lesion import Lesion
from vitscope.interventions.remove_units import Affine, RemoveUnits
from vitscope.interventions.token_keep import TokenKeep
from vitscope.interventions.token_merge import TokenMerge
from vitscope.interventions.token_ranking import ByMask, ByNorm, Worst
from vitscope.models.adapter import ADAPTERS
from vitscope.models.catalogue import import_installed_adapters
from vitscope.models.compact import compact
from vitscope.models.pixels import PixelInput

import_installed_adapters()
TRACED = ("timm/beit", "torchvision/vit", "transformers/swin", "timm/convnext")
"""Families whose batch was once taken for fixed, and one without attention; benchmarks/export_sweep.py has them all."""
BATCHES = (1, 2, 5)


def of_family(name):
    torch.manual_seed(0)
    example = ADAPTERS[name].examples()[0]
    module = example.build().eval()
    for parameter in module.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape)
    shown = PixelInput(example.image_shape[1:], example.image_shape[0], (0.5,), (0.25,))
    subject = vitscope.load(module, input=shown)
    free = [layer for layer in range(1, len(subject.places) + 1) if layer not in irremovable_layers(subject)]
    return Lesion((free[-1],))(subject)


def noise(subject, batch):
    return torch.randn(batch, *subject.preprocessing.shape, generator=torch.Generator().manual_seed(batch))


def assert_same(subject, run):
    for batch in BATCHES:
        images = noise(subject, batch)
        with torch.no_grad():
            torch.testing.assert_close(run(images), subject(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", TRACED)
def test_a_program_takes_any_batch_of_a_family(family):
    subject = of_family(family)
    assert_same(subject, trace_program(compact(subject), subject.preprocessing.shape).module())


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x):
        return x + self.layer(x).tanh()


def test_a_program_of_a_plain_module_lacks_the_blocks_that_are_left_out():
    torch.manual_seed(0)
    stem, blocks = nn.Conv2d(3, 4, 1), nn.Sequential(*(Block() for _ in range(4)))
    module = nn.Sequential(stem, blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))
    edited = Lesion((2, 3))(vitscope.load(module, input=PixelInput(8, 3, (0.5,), (0.5,))))
    program = trace_program(compact(edited), (3, 8, 8))
    assert sum("conv2d" in str(node.target) for node in program.graph.nodes) == 3
    assert_same(edited, program.module())


MASK = torch.arange(64.0).sin().view(8, 8)
MAP = Affine(torch.linspace(-1, 1, 64).double(), torch.eye(64).double() * 0.3)


@pytest.mark.parametrize(
    "changes",
    [
        (TokenKeep(0.6, 3), TokenKeep(0.8, 4, Worst(ByNorm())), TokenMerge(9, (5, 9)), Lesion((8,))),
        (RemoveUnits((5, 6), (MAP, MAP)), TokenKeep(0.5, 3, ByMask(MASK)), AttentionShape("uniform", layers=(9,))),
    ],
    ids=["kept and merged", "masked and mapped"],
)
def test_edits_of_tokens_and_units_are_the_same_in_onnx(changes, tmp_path):
    subject = vitscope.load("digits")
    for change in changes:
        subject = change(subject)
    program = trace_program(compact(subject), subject.preprocessing.shape)
    assert_same(subject, program.module())
    save_onnx(program, tmp_path / "m.onnx", {"said": "so"})
    runner = open_onnx(tmp_path / "m.onnx", 1)
    assert_same(subject, lambda images: runner.logits(runner.run(runner.place(images))))
    told = runner.session.get_modelmeta().custom_metadata_map
    assert told["said"] == "so"


def test_the_tensors_of_edits_are_stored_once(tmp_path):
    subject = RemoveUnits((5,), (MAP,))(vitscope.load("digits"))
    module = compact(subject)
    assert sum(one.numel() for one in module.added) == 64 * 65
    program = trace_program(module, (1, 8, 8))
    held = [*program.state_dict.values(), *program.constants.values()]
    assert sum(one.numel() for one in held) == sum(one.numel() for one in module.parameters())


def test_an_edit_that_was_overridden_is_not_counted():
    subject = Lesion((5,))(RemoveUnits((5,), (MAP,))(vitscope.load("digits")))
    assert len(compact(subject).added) == 0
