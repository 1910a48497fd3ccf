"""The laws of blocks: every block, with pooled and token-wise outputs, against the paper's formulas written out."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from vitscope.convex import blocks
from vitscope.convex.block import BLOCKS, AbstractBlock, GatedLens, Sizes
from vitscope.convex.blocks.attention import AttentionBlock
from vitscope.convex.blocks.block_fno import BlockFno
from vitscope.convex.blocks.fno import Fno
from vitscope.convex.blocks.linear import Linear
from vitscope.convex.blocks.mixer import Mixer
from vitscope.convex.blocks.mlp import Mlp
from vitscope.convex.gates import terms
from vitscope.convex.heads import Factors, Heads
from vitscope.convex.loss import CrossEntropy, Squared
from vitscope.convex.problem import Problem
from vitscope.convex.solver import solve
from vitscope.measurement.errors import UserError
from vitscope.runs.registry import import_all

import_all(blocks.__name__)
IMAGES, TOKENS, DIM, OUTPUTS = 7, 6, 5, 3
KINDS = {
    "attention": AttentionBlock(),
    "block-fno": BlockFno(blocks=2),
    "block-fno in two dimensions": BlockFno(blocks=3, grid=(3, 2)),
    "fno": Fno(),
    "fno in two dimensions": Fno(grid=(2, 3)),
    "linear": Linear(),
    "mixer": Mixer(),
    "mlp": Mlp(),
}
ACTIVATIONS = ("linear", "gated-relu", "relu")
every_block = pytest.mark.parametrize("block", KINDS.values(), ids=KINDS.keys())
every_rows = pytest.mark.parametrize("pooled", [True, False], ids=["pooled", "token-wise"])
every_gate = pytest.mark.parametrize("gated", [True, False], ids=["gated", "no gate"])
every_activation = pytest.mark.parametrize("activation", ACTIVATIONS)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


@dataclass(frozen=True)
class Naive:
    """One head on one image, as in section 1(a) of Sahiner et al. (2022): tokens (s, d) to rows (s, outputs)."""

    block: AbstractBlock

    def rows(self, image: np.ndarray, left: np.ndarray, right: np.ndarray, gate: np.ndarray | None) -> np.ndarray:
        scores = self.scores(image, left)
        kept = scores if gate is None else np.where(self.scores(image, gate) >= 0, scores, 0.0)
        if self.block.name == "attention":
            return kept @ image @ right  # (X W1 X^T) X W2
        return kept @ right  # (W1 X) W2, or (circ(X) w1) w2^T, or (X w1) w2^T

    def scores(self, image: np.ndarray, left: np.ndarray) -> np.ndarray:
        tokens, dim = image.shape
        match self.block.name:
            case "attention":
                return image @ left.reshape(dim, dim) @ image.T
            case "mixer":
                return left.reshape(tokens, tokens) @ image
            case "fno" | "block-fno":
                return (self.circulant(image) @ left)[:, None]
            case _:
                return (image @ left)[:, None]

    def circulant(self, image: np.ndarray) -> np.ndarray:
        """Row ``a``: the tokens shifted cyclically by ``a``, in one row of entries."""
        height, width = self.block.grid or (1, len(image))
        grid = image.reshape(height, width, -1)
        return np.stack(
            [np.roll(grid, (-down, -right), axis=(0, 1)).ravel() for down in range(height) for right in range(width)]
        )


def naive_outputs(problem: Problem, heads: Heads) -> torch.Tensor:
    """The outputs of all images: image by image, head by head."""
    naive, found = Naive(problem.block), np.zeros((len(problem.tokens), problem.sizes.tokens, problem.sizes.outputs))
    for image, out in zip(np.asarray(problem.tokens, dtype=float), found, strict=True):
        for term, factors in zip(problem.terms, heads.terms, strict=True):
            part = image[:, term.entries]
            if problem.block.name == "linear" and problem.pooled:
                part = part.mean(0, keepdims=True)
            for left, right in zip(factors.left.double().numpy(), factors.right.double().numpy(), strict=True):
                gate = left if problem.relu else None if term.vector is None else term.vector.numpy()
                out[:, term.outputs] += naive.rows(part, left, right, gate)
    return torch.from_numpy(found.mean(1, keepdims=True) if problem.pooled else found)


def problem_of(block: AbstractBlock, pooled: bool, activation: str = "gated-relu", **settings) -> Problem:
    tokens = normal(IMAGES, TOKENS, DIM, seed=1)
    targets = normal(IMAGES, 1 if pooled else TOKENS, OUTPUTS, seed=2)
    gates = 2 if activation == "gated-relu" else None
    parts = terms(block, Sizes(TOKENS, DIM, OUTPUTS), gates, generator(3), torch.float64)
    weights = torch.linspace(0.5, 1.5, IMAGES, dtype=torch.float64)
    defaults = {"dtype": torch.float64, "chunk": 3, "relu": activation == "relu"}
    return Problem(tokens, Squared(targets, weights), block, parts, 0.1, pooled, **(defaults | settings))


def heads_of(problem: Problem, count: int = 2, seed: int = 4) -> Heads:
    shapes = [problem.shape(term) for term in problem.terms]
    return Heads(
        tuple(
            Factors(normal(count + t, left, seed=seed + t), normal(count + t, inner, outputs, seed=seed + 50 + t))
            for t, (left, inner, outputs) in enumerate(shapes)
        )
    )


def lens_sizes(block: AbstractBlock) -> tuple[torch.Tensor, int]:
    """Tokens for a block's own maps, which know no groups, and the size of its left weights."""
    return normal(IMAGES, TOKENS, DIM, seed=1), block.left_size(Sizes(TOKENS, DIM, OUTPUTS))


def test_every_registered_block_is_tried_here():
    assert {block.name for block in KINDS.values()} == set(BLOCKS)
    assert all(BLOCKS[block.name] is type(block) for block in KINDS.values())


@every_block
@every_rows
def test_inward_and_outward_have_their_adjoints(block, pooled):
    tokens, size = lens_sizes(block)
    left = normal(2, size, seed=5)
    inner = block.inward(tokens, left, pooled)
    activity = normal(*inner.shape, seed=6)
    forth, back = inner * activity, block.inward_adjoint(tokens, activity, pooled) * left
    torch.testing.assert_close(forth.transpose(0, 1).flatten(1).sum(1), back.sum(1), rtol=1e-11, atol=1e-11)
    rows = block.outward(tokens, activity, pooled)
    other = normal(*rows.shape, seed=7)
    back = block.outward_adjoint(tokens, other, pooled) * activity
    torch.testing.assert_close((rows * other).flatten(2).sum(2), back.flatten(2).sum(2), rtol=1e-11, atol=1e-11)


@every_block
@every_rows
@every_gate
def test_a_block_s_own_lens_is_its_definition(block, pooled, gated):
    tokens, size = lens_sizes(block)
    gate = normal(size, seed=8) if gated else None
    mask = block.inward(tokens, gate[None], pooled) >= 0 if gated else None
    defined, own = GatedLens(block, tokens, mask, pooled), block.lens(tokens, gate, pooled)
    left = normal(3, size, seed=9)
    rows = defined.rows(left)
    assert rows.shape == (IMAGES, 3, 1 if pooled else TOKENS, block.inner_size(Sizes(TOKENS, DIM, OUTPUTS)))
    torch.testing.assert_close(own.rows(left), rows, rtol=1e-11, atol=1e-11)
    other = normal(*rows.shape, seed=10)
    torch.testing.assert_close(own.adjoint(other), defined.adjoint(other), rtol=1e-11, atol=1e-11)
    torch.testing.assert_close((rows * other).sum(), (own.adjoint(other) * left).sum(), rtol=1e-11, atol=1e-11)


@every_block
@every_rows
@every_activation
def test_outputs_are_the_paper_s_formula(block, pooled, activation):
    problem = problem_of(block, pooled, activation)
    heads = heads_of(problem)
    torch.testing.assert_close(problem.outputs(heads), naive_outputs(problem, heads), rtol=1e-10, atol=1e-10)


@every_block
@every_rows
@every_activation
def test_the_gradient_of_the_objective_is_that_of_its_differences(block, pooled, activation):
    problem = problem_of(block, pooled, activation)
    heads = heads_of(problem)
    value, gradient = problem.value_and_gradient(heads)
    direct = problem.data_loss(naive_outputs(problem, heads)) + problem.beta * heads.half_squares
    assert value == pytest.approx(direct, rel=1e-10)
    for seed in range(2):
        direction = normal(len(heads.vector), seed=20 + seed)
        ahead, behind = (
            problem.value_and_gradient(heads.with_vector(heads.vector + step * direction))[0] for step in (1e-6, -1e-6)
        )
        assert float(gradient.vector @ direction) == pytest.approx((ahead - behind) / 2e-6, rel=1e-6, abs=1e-6)


@every_block
@every_rows
@every_activation
def test_pulling_a_residual_is_the_adjoint_of_the_outputs(block, pooled, activation):
    problem = problem_of(block, pooled, activation)
    heads = heads_of(problem)
    residual = normal(IMAGES, problem.rows, OUTPUTS, seed=11)
    product = float((problem.outputs(heads) * residual).sum())
    left = right = 0.0
    for t, factors in enumerate(heads.terms):
        right += float((problem.pull_right(residual, t, factors.left) * factors.right).sum())
        own = factors.left if problem.relu else None
        left += float((problem.pull_left(residual, t, factors.right, own) * factors.left).sum())
    assert (left, right) == pytest.approx((product, product), rel=1e-11)


@every_block
@every_rows
@every_activation
def test_the_size_of_a_chunk_and_what_is_kept_do_not_matter(block, pooled, activation):
    problem = problem_of(block, pooled, activation)
    heads = heads_of(problem)
    value, gradient = problem.value_and_gradient(heads)
    for other in ({"chunk": 1}, {"chunk": 100}, {"memory": 0}):
        changed = replace(problem, kept={}, **other)
        found = changed.value_and_gradient(heads)
        assert found[0] == pytest.approx(value, rel=1e-12)
        torch.testing.assert_close(found[1].vector, gradient.vector, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(changed.outputs(heads), problem.outputs(heads), rtol=1e-10, atol=1e-12)
        assert bool(changed.kept) == (changed.memory > 0 and not problem.relu)


@every_block
@every_rows
@every_activation
def test_nothing_that_is_given_is_written_to(block, pooled, activation):
    problem = problem_of(block, pooled, activation)
    heads = heads_of(problem)
    before = problem.tokens.clone(), heads.vector.clone(), problem.loss.targets.clone()
    outputs = problem.outputs(heads)
    residual = problem.gradient(outputs)
    kept = outputs.clone(), residual.clone()
    problem.value_and_gradient(heads)
    problem.pull_right(residual, 0, heads.terms[0].left)
    problem.pull_left(residual, 0, heads.terms[0].right, heads.terms[0].left if problem.relu else None)
    after = problem.tokens, heads.vector, problem.loss.targets
    assert all(torch.equal(*pair) for pair in zip(before + kept, (*after, outputs, residual), strict=True))


@every_block
@every_rows
@every_activation
def test_a_problem_of_mean_tokens_is_the_same_where_the_block_sees_no_more(block, pooled, activation):
    problem = problem_of(block, pooled, activation)
    averaged = problem.average_tokens()
    assert (averaged is problem) == (not (pooled and block.of_mean))
    heads = heads_of(problem)
    value, gradient = problem.value_and_gradient(heads)
    found = averaged.value_and_gradient(heads)
    assert found[0] == pytest.approx(value, rel=1e-12)
    torch.testing.assert_close(found[1].vector, gradient.vector, rtol=1e-10, atol=1e-12)


@every_block
@every_rows
@every_activation
def test_no_heads_are_pulled_to_none(block, pooled, activation):
    problem = problem_of(block, pooled, activation)
    none = problem.no_heads()
    residual = problem.gradient(problem.outputs(none))
    for term, factors in enumerate(none.terms):
        assert problem.pull_left(residual, term, factors.right, factors.left).shape == factors.left.shape
        assert problem.pull_right(residual, term, factors.left).shape == factors.right.shape


def test_mean_tokens_are_in_double_precision_and_read_but_once():
    random, read = np.random.default_rng(0), list[int]()

    class Counted(np.ndarray):
        def __getitem__(self, images):
            read.extend(range(len(self))[images])
            return np.asarray(self)[images]

    tokens = random.standard_normal((500, 60, 30), dtype=np.float32) + 1000
    labels = torch.arange(500) % 2
    problem = Problem(
        tokens.view(Counted),
        CrossEntropy(labels, torch.ones(500), 2),
        Linear(),
        terms(Linear(), Sizes(60, 30, 2), None, generator(), torch.float32),
        1e-3,
    )
    solve(problem, tol=1e-1)
    assert read == list(range(500))
    means = problem.average_tokens().tokens[:, 0]
    np.testing.assert_allclose(means.numpy(), tokens.mean(1, dtype=np.float64), rtol=1e-15)
    assert len(problem.average_tokens().average_tokens().chunks) == 1


@every_block
@every_activation
def test_cross_entropy_in_single_precision_has_the_same_gradient_as_autograd(block, activation):
    labels, weights = torch.arange(IMAGES) % OUTPUTS, torch.linspace(0.5, 1.5, IMAGES)
    problem = replace(problem_of(block, True, activation), loss=CrossEntropy(labels, weights, OUTPUTS))
    heads = heads_of(problem)
    single = replace(problem, dtype=torch.float32, kept={})
    value, gradient = single.value_and_gradient(heads.to(torch.float32, single.device))
    vector = heads.vector.clone().requires_grad_()
    outputs = problem.outputs(heads.with_vector(vector)).squeeze(1)
    losses = torch.nn.functional.cross_entropy(outputs, labels, reduction="none") * weights.double()
    whole = losses.mean() + problem.beta * vector.square().sum() / 2
    (slopes,) = torch.autograd.grad(whole, vector)
    assert value == pytest.approx(whole.item(), rel=1e-4)
    torch.testing.assert_close(gradient.vector.double(), slopes, rtol=1e-3, atol=1e-4 * float(slopes.abs().max()))


@pytest.mark.parametrize("block", [Fno(grid=(2, 2)), BlockFno(blocks=1, grid=(5, 1))])
def test_a_grid_that_does_not_hold_the_tokens_is_refused(block):
    with pytest.raises(UserError, match="6 tokens; give one that holds them all"):
        block.left_size(Sizes(TOKENS, DIM, OUTPUTS))


def test_no_blocks_of_entries_are_refused():
    with pytest.raises(UserError, match="give 1 or more"):
        BlockFno(blocks=0)
