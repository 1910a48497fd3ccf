"""Trained heads as torch modules: the paper's formulas by hand, the solver's outputs, export, and whole models."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch

from vitscope.convex.attach import attach
from vitscope.convex.block import Sizes, Term
from vitscope.convex.blocks.attention import AttentionBlock
from vitscope.convex.blocks.block_fno import BlockFno
from vitscope.convex.blocks.fno import Fno
from vitscope.convex.blocks.linear import Linear
from vitscope.convex.blocks.mixer import Mixer
from vitscope.convex.blocks.mlp import Mlp
from vitscope.convex.features import TokenExtractor, TokenRecipe
from vitscope.convex.gates import terms
from vitscope.convex.heads import Factors, Heads
from vitscope.convex.module import ConvexHead
from vitscope.convex.tokens import identity_standardisation, standardisation_of
from vitscope.convex.trained import Member, Trained
from vitscope.measurement.errors import UserError
from vitscope.models.load import load
from vitscope.models.pixels import PixelInput

TOKENS, DIM, OUTPUTS = 6, 4, 3
BLOCKS = [Linear(), Mlp(), AttentionBlock(), Mixer(), Fno(), Fno((2, 3)), BlockFno(2), BlockFno(2, (3, 2))]
CPU = torch.device("cpu")


def images(count=5):
    return 3 * torch.randn(count, TOKENS, DIM, generator=torch.Generator().manual_seed(1)) + 1


def trained(block, activation="gated-relu", *, pooled=True, dtype=torch.float64, members=1, sizes=None, heads=2):
    """Random heads under random gates."""
    generator = torch.Generator().manual_seed(0)
    sizes = sizes or Sizes(TOKENS, DIM, OUTPUTS)
    found = []
    for _ in range(members):
        drawn = terms(block, sizes, 3 if activation == "gated-relu" else None, generator, torch.float32)
        parts = []
        for term in drawn:
            group = Sizes(sizes.tokens, term.entries.stop - term.entries.start, term.outputs.stop - term.outputs.start)
            shape = (heads, block.inner_size(group), group.outputs)
            left = torch.randn(heads, block.left_size(group), generator=generator, dtype=dtype)
            parts.append(Factors(left, torch.randn(shape, generator=generator, dtype=dtype)))
        found.append(Member(drawn, Heads(tuple(parts))))
    offset = torch.randn(sizes.outputs, generator=generator).to(dtype)
    standardisation = standardisation_of(3 * torch.randn(9, sizes.tokens, sizes.dim, generator=generator) + 1)
    return Trained(block, sizes, pooled, activation == "relu", standardisation, offset, tuple(found))


def one_head(block, sizes, first, second, gate=None, relu=False, pooled=False):
    """One head by hand, on tokens as they are."""
    term = Term(gate, slice(0, sizes.dim), slice(0, sizes.outputs))
    heads = Heads((Factors(first.reshape(1, -1), second.reshape(1, -1, sizes.outputs)),))
    nothing = identity_standardisation(torch.zeros(1, sizes.tokens, sizes.dim))
    offset = torch.zeros(sizes.outputs, dtype=first.dtype)
    return ConvexHead(Trained(block, sizes, pooled, relu, nothing, offset, (Member((term,), heads),)))


def test_one_attention_head_by_hand():
    tokens = torch.tensor([[[1.0, 0.0], [0.0, 2.0]]], dtype=torch.float64)
    query_key = torch.tensor([[1.0, -1.0], [3.0, 1.0]], dtype=torch.float64)  # scores [[1, -2], [6, 4]]
    value = torch.tensor([[1.0], [10.0]], dtype=torch.float64)  # values 1, 20
    gate = torch.tensor([1.0, 1.0, -1.0, 1.0])  # gate scores [[1, 2], [-2, 4]]
    sizes = Sizes(2, 2, 1)
    linear = one_head(AttentionBlock(), sizes, query_key, value)
    relu = one_head(AttentionBlock(), sizes, query_key, value, relu=True)
    gated = one_head(AttentionBlock(), sizes, query_key, value, gate=gate)
    assert linear(tokens).flatten().tolist() == [1 - 40, 6 + 80]
    assert relu(tokens).flatten().tolist() == [1, 86]
    assert gated(tokens).flatten().tolist() == [1 - 40, 80]
    assert one_head(AttentionBlock(), sizes, query_key, value, pooled=True)(tokens).tolist() == [[(86 - 39) / 2]]


def test_one_fourier_head_is_the_image_shifted_and_weighed():
    tokens = torch.arange(6, dtype=torch.float64).reshape(1, 6, 1)
    kernel = torch.tensor([1.0, 10.0, 0.0, 0.0, 0.0, 100.0], dtype=torch.float64)
    row = one_head(Fno(), Sizes(6, 1, 1), kernel, torch.ones(1, dtype=torch.float64))
    assert row(tokens).flatten().tolist() == [x + 10 * ((x + 1) % 6) + 100 * ((x + 5) % 6) for x in range(6)]
    grid = one_head(Fno((2, 3)), Sizes(6, 1, 1), kernel, torch.ones(1, dtype=torch.float64))
    picture = np.arange(6).reshape(2, 3)
    shifted = [np.roll(picture, (-a, -b), (0, 1)).ravel() for a in range(2) for b in range(3)]
    assert grid(tokens).flatten().tolist() == [float(image @ kernel.numpy()) for image in shifted]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("pooled", [True, False], ids=["pooled", "token-wise"])
@pytest.mark.parametrize("activation", ["linear", "gated-relu", "relu"])
@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_the_module_gives_what_the_solver_sees(block, activation, pooled, dtype):
    head = trained(block, activation, pooled=pooled, dtype=dtype, members=2)
    wanted = head.outputs(images().numpy(), CPU, 2**20)
    wanted = wanted.squeeze(1) if pooled else wanted
    found = ConvexHead(head)(images())
    assert found.dtype == dtype
    assert found.shape == wanted.shape
    assert (found - wanted).abs().max() <= (1e-12 if dtype == torch.float64 else 2e-6) * wanted.abs().max()


def test_no_gate_flips_between_precisions():
    head = ConvexHead(trained(AttentionBlock(), pooled=False))
    tokens = images(200).double()
    there = head(tokens)
    back = head.float().double()
    assert (back(tokens) - there).abs().max() < 1e-5 * there.abs().max()  # one flip would be a hundredth of it


def test_heads_are_trained_on_as_any_module():
    head = ConvexHead(trained(AttentionBlock()))
    head(images()).square().sum().backward()
    names = {name.split(".")[-1] for name, _ in head.named_parameters()}
    assert names == {"W_1", "W_2"}
    assert all(parameter.grad is not None for parameter in head.parameters())
    assert {tuple(p.shape) for name, p in head.named_parameters() if name.endswith("W_1")} == {(2, DIM, DIM)}


def test_a_head_without_heads_gives_its_offset():
    nothing = trained(AttentionBlock(), heads=0)
    assert torch.equal(ConvexHead(nothing)(images(2)), nothing.offset.expand(2, -1))


@pytest.mark.parametrize("block", [AttentionBlock(), BlockFno(2, (3, 2))], ids=str)
@pytest.mark.parametrize("pooled", [True, False], ids=["pooled", "token-wise"])
def test_modules_are_traced_for_any_batch(block, pooled):
    head = ConvexHead(trained(block, pooled=pooled))
    traced = torch.jit.trace(head, (images(2),))
    assert torch.equal(traced(images(7)), head(images(7)))


UNCHECKED = """
import sys, torch
sys.path.insert(0, sys.argv[1])
from test_convex_module import *
for block in (Linear(), Mlp(), AttentionBlock(), Mixer(), Fno()):
    head = ConvexHead(trained(block))
    print(torch.allclose(torch.jit.script(head)(images(7)), head(images(7)), rtol=1e-12))
for activation in ("linear", "relu"):
    head = ConvexHead(trained(BlockFno(2, (3, 2)), activation, pooled=False))
    print(torch.allclose(torch.jit.script(head)(images(7)), head(images(7)), rtol=1e-12))
whole, pictures = whole_model(small_vit())
traced = torch.jit.trace(whole, (pictures,))
print(torch.allclose(traced(pictures + 1), whole(pictures + 1), rtol=1e-5, atol=1e-6))
"""


def test_modules_are_scripted_and_whole_models_traced():
    # In a process of its own: the type checker of these tests wraps functions, which TorchScript refuses.
    here = str(Path(__file__).parent)
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", UNCHECKED, here], capture_output=True, text=True)
    assert done.stdout.split() == ["True"] * 8, done.stderr


def test_modules_are_exported_to_onnx(tmp_path):
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    head = ConvexHead(trained(BlockFno(2, (3, 2)), dtype=torch.float32)).eval()
    file = tmp_path / "head.onnx"
    torch.onnx.export(head, (images(),), file, dynamo=True, verbose=False)
    session = runtime.InferenceSession(file)
    (found,) = session.run(None, {session.get_inputs()[0].name: images().numpy()})
    assert np.abs(found - head(images()).detach().numpy()).max() < 1e-4


def small_vit():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = timm.create_model("vit_tiny_patch16_224", img_size=32, embed_dim=24, depth=2, num_heads=3)
    return load(module.eval(), input=PixelInput(32, 3, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)))


def whole_model(subject):
    head = ConvexHead(trained(AttentionBlock(), dtype=torch.float32, sizes=Sizes(2, 24, 3)))
    pictures = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    return attach(head, TokenExtractor(subject, TokenRecipe(pool=1, prefix=True))), pictures


def test_a_head_is_attached_to_a_copy_of_its_backbone():
    subject = small_vit()
    whole, pictures = whole_model(subject)
    tokens = TokenExtractor(subject, TokenRecipe(pool=1, prefix=True))(pictures)
    assert torch.allclose(whole(pictures), whole.head(tokens), rtol=1e-5, atol=1e-6)
    kept = {id(parameter) for parameter in subject.module.parameters()}
    assert not kept & {id(parameter) for parameter in whole.parameters()}


def test_a_head_of_other_tokens_is_refused():
    head = ConvexHead(trained(AttentionBlock(), sizes=Sizes(9, 24, 3)))
    with pytest.raises(UserError, match=r"to 9 tokens of 24 entries, but .* gives 4 of 24 .*; give the extractor"):
        attach(head, small_vit())
