"""Attention heads that are removed: known answers, choices, and what is refused."""

import numpy as np
import pytest
import timm
import torch

from vitscope import PixelInput, UserError, images, load
from vitscope.interventions import RemoveHeads
from vitscope.interventions.head_lesion import HeadLesion, head_counts
from vitscope.interventions.lesion import Lesion
from vitscope.interventions.token_keep import TokenKeep
from vitscope.models.own.vit import SelfAttention, Vit, VitConfig
from vitscope.models.timm.maxvit import MaxVitAdapter


def small_vit(heads: int = 3) -> Vit:
    torch.manual_seed(0)
    module = Vit(VitConfig(image=8, channels=3, patch=2, dim=12, depth=2, heads=heads, classes=4)).double()
    for parameter in module.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return module


@pytest.fixture(scope="module")
def pictures():
    return images(np.random.default_rng(0).integers(0, 256, (24, 8, 8, 3), "uint8"))


@pytest.fixture
def pixels():
    return torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_a_head_that_another_one_copies_is_removed_without_a_trace(pictures, pixels):
    module = small_vit()
    for part in range(3):  # queries, keys and values of head 2 become those of head 0
        weight, bias = module.blocks[1].attn.qkv.weight.data, module.blocks[1].attn.qkv.bias.data
        weight[12 * part + 8 : 12 * part + 12] = weight[12 * part : 12 * part + 4]
        bias[12 * part + 8 : 12 * part + 12] = bias[12 * part : 12 * part + 4]
    subject = load(module)
    heads = ((3, (2,)),)
    repaired = RemoveHeads.fitted(subject, pictures, heads=heads, penalty=1e-12)(subject)
    assert not torch.allclose(RemoveHeads(heads)(subject)(pixels), subject(pixels), atol=1e-3)
    torch.testing.assert_close(repaired(pixels), subject(pixels), rtol=1e-6, atol=1e-6)
    attention = repaired.module.blocks[1].attn
    assert (attention.heads, attention.qkv.out_features, attention.proj.in_features) == (2, 24, 8)
    assert head_counts(repaired) == {1: 3, 3: 2}
    chosen = RemoveHeads.fitted(subject, pictures, share=1 / 6, by="error", penalty=1e-12)
    assert chosen.heads in (((3, (0,)),), ((3, (2,)),))


def test_it_is_the_lesion_of_the_heads_and_all_else_is_shared(pixels):
    subject = load(small_vit())
    heads = ((1, (0, 2)), (3, (1,)))
    smaller = RemoveHeads(heads)(subject)
    torch.testing.assert_close(smaller(pixels), HeadLesion(heads)(subject)(pixels), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(smaller.module(pixels), smaller(pixels))
    assert head_counts(subject) == {1: 3, 3: 3}
    own, new = (dict(one.module.named_parameters()) for one in (subject, smaller))
    assert {name.split(".")[2] for name in own if own[name] is not new[name]} == {"attn"}
    again = RemoveHeads(((3, (0,)),))(smaller)
    assert head_counts(again) == {1: 1, 3: 1}


def contexts_of(subject, pictures, block: int) -> torch.Tensor:
    """What enters the output projection of a block, by hand: rows of tokens."""
    rows = []
    for batch in pictures.batches(subject.preprocessing.transform, 5):
        x = subject.module.embed(batch.pixels.double())
        for number, one in enumerate(subject.module.blocks):
            queries, keys, values = one.attn.project(one.norm1(x)).unbind(0)
            weights = (queries @ keys.transpose(-1, -2) / queries.shape[-1] ** 0.5).softmax(-1)
            context = (weights @ values).transpose(1, 2).flatten(2)
            if number == block:
                rows.append(context.flatten(0, 1))
            x = x + one.attn.proj(context)
            x = x + one.mlp(one.norm2(x))
    return torch.cat(rows).detach()


def test_the_heads_that_change_the_output_least_go(pictures):
    subject = load(small_vit())
    scores = {}
    for layer, block in ((1, 0), (3, 1)):
        rows, weight = contexts_of(subject, pictures, block), subject.module.blocks[block].attn.proj.weight.detach()
        whole = (rows @ weight.T).var(0, unbiased=False).sum()
        for head in range(3):
            some = slice(4 * head, 4 * head + 4)
            scores[layer, head] = float((rows[:, some] @ weight[:, some].T).var(0, unbiased=False).sum() / whole)
    order = sorted(scores, key=scores.__getitem__)
    for count in (1, 2, 3):
        found = RemoveHeads.fitted(subject, pictures, share=count / 6, by="output", repair=False, batch_size=7)
        gone = {(layer, head) for layer, heads in found.heads for head in heads}
        allowed: list[tuple[int, int]] = []
        for layer, head in order:
            if len(allowed) < count and sum(one == layer for one, _ in allowed) < 2:
                allowed.append((layer, head))
        assert gone == set(allowed)


def test_each_layer_keeps_a_head(pictures):
    subject = load(small_vit())
    for by in ("output", "error", "random"):
        found = RemoveHeads.fitted(subject, pictures, share=0.99, by=by)
        assert [len(heads) for _, heads in found.heads] == [2, 2]
        assert head_counts(found(subject)) == {1: 1, 3: 1}
    some = RemoveHeads.fitted(subject, pictures, share=0.34, layers=(3,))
    assert [(layer, len(heads)) for layer, heads in some.heads] == [(3, 1)]


def test_edits_stay_but_heads_that_they_name_would_be_others(pictures, pixels):
    subject = load(small_vit())
    kept = RemoveHeads(((1, (0,)),))(TokenKeep(0.5, 3)(Lesion((2,))(subject)))
    assert [type(edit).__name__ for edit in kept.edits] == ["Lesion", "Keeping"]
    assert kept(pixels).isfinite().all()
    named = HeadLesion(((1, (2,)),))(subject)
    with pytest.raises(UserError, match=r"blocks\.0\.attn are left out by number already"):
        RemoveHeads(((1, (0,)),))(named)
    other = RemoveHeads(((3, (0,)),))(named)
    torch.testing.assert_close(other(pixels), HeadLesion(((1, (2,)), (3, (0,))))(subject)(pixels))


class Counting(SelfAttention):
    """Attention whose own forward pass multiplies by a third of its number of heads, which is one at first."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * (self.heads / 3)


def test_a_module_that_would_run_but_give_something_else_is_refused():
    module = small_vit()
    module.blocks[0].attn.__class__ = Counting
    with pytest.raises(UserError, match=r"blocks\.0\.attn .*its own forward pass gives other outputs"):
        RemoveHeads(((1, (0,)),))(load(module))


def test_packed_head_by_head():
    """MaxViT's attention packs the queries, keys and values of each head together: 12 rows are those of one head."""
    example = next(one for one in MaxVitAdapter.examples() if one.name == "maxvit, position MLP")
    torch.manual_seed(0)
    subject = load(example.build().double().eval(), input=PixelInput(64, 3, (0.5,) * 3, (0.5,) * 3))
    layer, count = next(iter(head_counts(subject).items()))
    smaller = RemoveHeads(((layer, (0,)),))(subject)
    before, after = (one.module.get_submodule(f"{one.places[layer - 1].name}.qkv") for one in (subject, smaller))
    assert before.weight.shape[0] == 12 * count
    assert torch.equal(after.weight, before.weight[12:])


def test_what_cannot_be_is_a_sentence(pictures):
    subject = load(small_vit())
    fitted = RemoveHeads.fitted(subject, pictures, heads=((1, (0,)),))
    for removal, why in (
        (RemoveHeads(((1, (3,)),)), r"heads 0 to 2; there is no head 3"),
        (RemoveHeads(((1, (0, 1, 2)),)), r"leave one at least"),
        (RemoveHeads(((1, (0, 0)),)), r"name each head once"),
        (RemoveHeads(((2, (0,)),)), r"blocks\.0\.mlp .* it has no attention that can be read"),
        (RemoveHeads(((7, (0,)),)), r"there is no layer 7"),
        (RemoveHeads(((3, (0, 1)),), fitted.repairs), r"shape \(12, 8\) instead of \(12, 4\)"),
    ):
        with pytest.raises(UserError, match=why):
            removal(subject)
    for given, why in (
        ({}, "Give either"),
        ({"share": 0.5, "heads": ((1, (0,)),)}, "Give either"),
        ({"share": 1.0}, "share is 1.0"),
        ({"share": 0.5, "images": None}, "give images"),
        ({"heads": ((1, (5,)),)}, "no head 5"),
        ({"share": 0.5, "layers": (2,)}, "no attention that can be read"),
    ):
        with pytest.raises(UserError, match=why):
            RemoveHeads.fitted(**{"subject": subject, "images": pictures, **given})
    with pytest.raises(UserError, match="name each layer once"):
        RemoveHeads(((1, (0,)), (1, (1,))))
    convolutional = load(timm.create_model("convnext_atto", num_classes=4, depths=(1, 1, 1, 1), dims=(4, 4, 4, 4)))
    with pytest.raises(UserError, match="no attention units"):
        RemoveHeads.fitted(convolutional, pictures, share=0.5)
