"""Layers and modules of other shapes, and the description by which they are made again."""

import json

import pytest
import torch
from torch import nn

from vitscope import UserError
from vitscope.models.own.vit import Vit, VitConfig
from vitscope.models.surgery import double_copy, narrow, reshape, shape_changes, with_matrix, with_parts


def vit() -> Vit:
    torch.manual_seed(0)
    return Vit(VitConfig(image=8, channels=3, patch=2, dim=12, depth=2, heads=3, classes=4)).eval()


@pytest.mark.parametrize("layer", [nn.Linear(5, 4), nn.Conv2d(5, 4, 1), nn.Linear(5, 4, bias=False)])
def test_a_narrow_layer_computes_some_outputs_of_some_inputs(layer):
    outputs, inputs = torch.tensor([3, 0]), torch.tensor([1, 2, 4])
    small = narrow(layer, outputs, inputs)
    values = torch.randn(2, 5, 3, 3) if isinstance(layer, nn.Conv2d) else torch.randn(2, 5)
    only = torch.zeros_like(values)
    only[:, inputs] = values[:, inputs]
    torch.testing.assert_close(small(values[:, inputs]), layer(only)[:, outputs])
    sides = [getattr(small, name) for name in ("in_features", "out_features", "in_channels", "out_channels")
             if hasattr(small, name)]  # fmt: skip
    assert sides == [3, 2]
    assert tuple(layer.weight.shape[:2]) == (4, 5)
    assert torch.equal(narrow(layer).weight, layer.weight)
    assert narrow(layer).weight is not layer.weight


def test_a_matrix_keeps_type_mode_and_whether_it_is_trained():
    layer = nn.Linear(3, 2).to(torch.bfloat16).eval().requires_grad_(False)
    new = with_matrix(layer, torch.eye(3, dtype=torch.float64)[:1].T.T, None)
    assert (new.weight.dtype, new.weight.requires_grad, new.training, new.bias) == (torch.bfloat16, False, False, None)
    assert (new.in_features, new.out_features) == (3, 1)
    with_bias = with_matrix(nn.Linear(3, 2, bias=False), torch.ones(2, 3).T.contiguous().T, torch.ones(2))
    assert with_bias.weight.is_contiguous()
    assert with_bias.bias.tolist() == [1, 1]


def test_parts_are_replaced_in_a_copy_that_shares_all_else():
    module = vit()
    part = nn.Linear(12, 4)
    new = with_parts(module, {"head": part}, {"prefix": torch.zeros(2, 12)})
    assert new.head is part
    assert not part.training
    assert module.head is not part
    assert (tuple(new.prefix.shape), tuple(module.prefix.shape)) == ((2, 12), (1, 12))
    assert new.blocks[1].norm1.weight is module.blocks[1].norm1.weight
    assert with_parts(module, {}).head is not module.head
    for parts, tensors in (({"tail": part}, None), ({}, {"suffix": torch.zeros(1)})):
        with pytest.raises(UserError, match="has no part"):
            with_parts(module, parts, tensors)


def test_a_part_under_two_names_is_replaced_under_both():
    shared = nn.Linear(2, 2)
    new = with_parts(nn.Sequential(shared, nn.ReLU(), shared), {"0": nn.Linear(2, 2)})
    assert new[0] is new[2] is not shared


def test_a_double_copy_shares_nothing():
    module = vit()
    double = double_copy(module)
    assert {one.dtype for one in double.parameters()} == {torch.float64}
    double.head.weight.data.zero_()
    assert {one.dtype for one in module.parameters()} == {torch.float32}
    assert module.head.weight.abs().sum() > 0


def edited() -> Vit:
    module = vit()
    mlp, kept = module.blocks[0].mlp, torch.arange(5)
    pair = nn.Sequential(nn.Linear(12, 2, bias=False), nn.Linear(2, 12))
    parts = {"blocks.0.mlp.0": narrow(mlp[0], outputs=kept), "blocks.0.mlp.2": narrow(mlp[2], inputs=kept)}
    new = with_parts(module, {**parts, "blocks.1.attn.proj": pair}, {"prefix": torch.ones(1, 12)})
    new.blocks[1].attn.heads = 1
    return new


def test_changes_are_said_in_json():
    changes = shape_changes(vit(), edited())
    assert json.loads(json.dumps(changes)) == {
        "blocks.0.mlp.0": {"in_features": 12, "out_features": 5},
        "blocks.0.mlp.2": {"in_features": 5, "out_features": 12},
        "blocks.1.attn": {"heads": 1},
        "blocks.1.attn.proj": {"rank": 2},
    }
    assert shape_changes(vit(), vit()) == {}


def test_a_module_is_made_again_from_its_changes():
    before, wanted = vit(), edited()
    fresh = reshape(before, json.loads(json.dumps(shape_changes(vit(), wanted))))
    assert {id(one) for one in fresh.parameters()}.isdisjoint(id(one) for one in before.parameters())
    fresh.load_state_dict(wanted.state_dict())
    pixels = torch.randn(2, 3, 8, 8)
    assert torch.equal(fresh(pixels), wanted(pixels))
    assert isinstance(before.blocks[1].attn.proj, nn.Linear)


class Odd(nn.Module):
    """A module with a bare parameter, buffers that no state dict holds, and attributes of several kinds."""

    def __init__(self, heads: int, offset: float = 0.5) -> None:
        super().__init__()
        self.heads, self.shape, self.scale, self.mode, self.fused = heads, (3, heads), 1 / heads, "plain", True
        self.table = nn.Parameter(torch.zeros(5, heads))
        self.register_buffer("offset", torch.full((heads,), offset), persistent=False)
        self.register_buffer("count", torch.zeros(heads, dtype=torch.long))
        self.layer = nn.Conv2d(heads, heads, 3)
        self.bare = nn.Linear(heads, 2, bias=False)


def test_parameters_buffers_and_attributes():
    small = Odd(2)
    small.bare.register_parameter("bias", nn.Parameter(torch.ones(2)))
    changes = json.loads(json.dumps(shape_changes(Odd(4), small)))
    assert changes[""] == {
        "heads": 2,
        "shape": [3, 2],
        "scale": 0.5,
        "tensors": {"table": {"shape": [5, 2]}, "offset": {"shape": [2], "value": 0.5}, "count": {"shape": [2]}},
    }
    assert changes["bare"] == {"in_features": 2, "out_features": 2, "bias": True}
    with torch.device("meta"):
        unmade = Odd(4)
    assert shape_changes(unmade, small) == changes
    again = reshape(Odd(4), changes)
    again.load_state_dict(small.state_dict())
    assert (again.heads, again.shape, again.scale) == (2, (3, 2), 0.5)
    assert again.offset.tolist() == [0.5, 0.5]
    assert again.count.dtype == torch.long
    assert tuple(again.layer.weight.shape) == (2, 2, 3, 3)
    assert isinstance(again.table, nn.Parameter)


def test_what_is_no_change_of_shape_is_refused():
    for base, other, why in (
        (nn.Sequential(nn.Linear(2, 2)), nn.Sequential(nn.ReLU()), "0 is a Linear in one"),
        (nn.Sequential(nn.Linear(2, 2)), nn.Sequential(nn.Linear(2, 2), nn.ReLU()), "1 is a part of one"),
        (nn.Linear(2, 2), nn.Linear(2, 3), "3 out_features and had 2"),
        (Odd(2), Odd(4), r"is \(5, 4\) and was \(5, 2\)|can only shrink"),
        (nn.LayerNorm(4), nn.LayerNorm(4, bias=False), "bias is a tensor in one"),
    ):
        with pytest.raises(UserError, match=why):
            shape_changes(base, other)
    uneven = Odd(2)
    uneven.offset = torch.tensor([0.0, 1.0])
    with pytest.raises(UserError, match="is in no state dict"):
        shape_changes(Odd(4), uneven)


@pytest.mark.parametrize(
    "changes",
    [
        {"blocks.7": {"heads": 1}},
        {"blocks.0.attn": [1]},
        {"blocks.0.attn": {"heads": "1"}},
        {"blocks.0.attn": {"heads": True}},
        {"blocks.0.attn": {"forward": 1}},
        {"blocks.0.attn": {"_modules": 1}},
        {"blocks.0.attn": {"training": False}},
        {"blocks.0.attn": {"tensors": 3}},
        {"": {"tensors": {"prefix": {"shape": [12]}}}},
        {"": {"tensors": {"prefix": {"shape": [1, -12]}}}},
        {"": {"tensors": {"prefix": {"shape": [1, 10**12]}}}},
        {"": {"tensors": {"prefix": {"shape": [1, 6], "value": "x"}}}},
        {"": {"tensors": {"suffix": {"shape": [1, 12]}}}},
        {"head": {"out_features": 10**12}},
        {"head": {"out_features": 0}},
        {"head": {"out_features": 3.0}},
        {"head": {"rank": 9}},
        {"head": {"rank": True}},
        {"head": {"bias": 1}},
        {"head": {"weight": [1]}},
    ],
    ids=str,
)
def test_descriptions_that_nobody_wrote_are_refused(changes):
    module = vit()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(UserError, match=r"\.$"):
        reshape(module, changes)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
