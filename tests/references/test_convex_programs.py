"""The oracles of the convex programs against pencil and paper, against networks, and against the paper's table."""

import numpy as np
import pytest

pytest.importorskip("cvxpy")

from convex_programs import PAPER_CASES, circulant, gate_features, optimum, planar_relu_optimum, solution

BLOCKS = ["linear", "mlp", "attention", "mixer", "fno", "block-fno"]
TOKENS, DIM, OUTPUTS = 3, 2, 2
GATES = {
    "linear": (DIM,),
    "mlp": (DIM,),
    "attention": (DIM, DIM),
    "mixer": (TOKENS, TOKENS),
    "fno": (TOKENS * DIM,),
    "block-fno": (2, TOKENS * DIM // 2),
}


def drawn(seed=0, images=3):
    generator = np.random.default_rng(seed)
    return generator.standard_normal((images, TOKENS, DIM)), generator.standard_normal((images, TOKENS, OUTPUTS))


def groups_of(block):
    return 2 if block == "block-fno" else 1


@pytest.mark.parametrize("name", PAPER_CASES)
def test_the_papers_table(name):
    case = PAPER_CASES[name]
    settings = {"loss": "squared", "pooled": False, "groups": case.groups}
    value = optimum(case.block, case.tokens, case.targets, case.gate_vectors, case.beta, **settings)
    assert value == pytest.approx(case.value, abs=2e-7)


def test_rank_of_the_papers_first_case():
    case = PAPER_CASES["linear attention, rank 4"]
    found = solution("attention", case.tokens, case.targets, None, case.beta, loss="squared", pooled=False)
    assert np.sum(np.linalg.svd(found.matrices[0], compute_uv=False) > 1e-4) == 4


def test_the_papers_relu_case():
    """25 points per cell gave the paper 3.387635 and its network 3.387627; with the cells' edges it is 3.387626."""
    case = PAPER_CASES["fno, all 20 arrangements"]
    values = [5 * planar_relu_optimum(case.tokens, case.targets, case.beta, points=points) for points in (5, 25)]
    assert len(case.gate_vectors) == 20
    assert values == pytest.approx([3.3876256] * 2, abs=1e-6)
    assert min(values) > case.summed_value


@pytest.mark.parametrize(("block", "power"), [("linear", 1), ("mlp", 1), ("fno", 1), ("mixer", 1), ("attention", 3)])
@pytest.mark.parametrize(("target", "beta"), [(5.0, 0.7), (-5.0, 0.7), (1.0, 9.0)])
def test_one_number_is_soft_thresholded(block, power, target, beta):
    """With one token of one dimension ``f = x^power z``, so ``z`` is the soft threshold of least squares."""
    x = 1.5
    feature = x**power
    z = np.sign(target) * max(abs(target) * feature - beta, 0) / feature**2
    expected = (feature * z - target) ** 2 / 2 + beta * abs(z)
    tokens, targets = np.full((1, 1, 1), x), np.full((1, 1, 1), target)
    assert optimum(block, tokens, targets, None, beta, loss="squared", pooled=False) == pytest.approx(
        expected, abs=1e-7
    )
    pooled = optimum(block, tokens, targets[:, 0], None, beta, loss="squared", pooled=True)
    assert pooled == pytest.approx(expected, abs=1e-7)


def test_one_image_pooled_is_a_soft_thresholded_norm():
    """``f = Z^T x`` for one mean token x: ``Z`` has rank one and the problem is that of one number."""
    tokens, targets, beta = np.array([[[1.0, 4.0], [5.0, 4.0]]]), np.array([[6.0, -8.0]]), 2.0
    length, size = 5.0, 10.0
    z = (length * size - beta) / length**2
    expected = (length * z - size) ** 2 / 2 + beta * z
    assert optimum("linear", tokens, targets, None, beta, loss="squared", pooled=True) == pytest.approx(expected)


def test_one_image_cross_entropy_of_two_classes():
    """``Z = x (-v, v)``: nuclear norm ``sqrt 2 ||x|| v`` and loss ``log(1 + exp(-2 ||x||^2 v))``, minimised in v."""
    tokens, beta = np.array([[[3.0, 4.0]]]), 0.5
    ratio = beta * np.sqrt(2) / 10
    margin = np.log(1 / ratio - 1)
    expected = np.log1p(np.exp(-margin)) + beta * np.sqrt(2) * margin / 10
    value = optimum("linear", tokens, np.array([1]), None, beta, loss="cross-entropy", pooled=True)
    assert value == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("pooled", [False, True])
def test_features_are_those_of_the_network(block, pooled):
    """``sum_h sigma(...) W_2h`` computed as the network does, against ``F`` and ``Z = sum_h vec(W_1h) vec(W_2h)^T``."""
    tokens, _ = drawn()
    generator = np.random.default_rng(7)
    gate = generator.standard_normal(GATES[block])
    first = generator.standard_normal((4, *GATES[block]))
    second = generator.standard_normal((4, *{"attention": (DIM, 3), "mixer": (DIM, 3)}.get(block, (3,))))
    if block == "block-fno":
        second = generator.standard_normal((4, 2, 3))
    inputs = tokens.mean(1, keepdims=True) if pooled and block == "linear" else tokens
    expected = np.stack([network(block, image, gate, first, second) for image in inputs])
    found = np.concatenate(
        [
            np.einsum("iark,rkc->iac", features, lifted(block, first, second, group).reshape(*features.shape[-2:], -1))
            for group, features in enumerate(gate_features(block, tokens, gate, pooled, groups_of(block)))
        ],
        axis=2,
    )
    np.testing.assert_allclose(found, expected.mean(1, keepdims=True) if pooled else expected, atol=1e-12)


def lifted(block, first, second, group):
    """``sum_h vec(W_1h) vec(W_2h)^T``; vec stacks the columns of attention's ``W_1``, and rows elsewhere."""
    if block == "block-fno":
        return np.einsum("hr,hc->rc", first[:, group], second[:, group])
    heads = len(first)
    rows = (first.transpose(0, 2, 1) if block == "attention" else first).reshape(heads, -1)
    return np.einsum("hr,hc->rc", rows, second.reshape(heads, -1))


def network(block, image, gate, first, second):
    """Heads of one gate, each masked where the gate is negative."""
    if block == "attention":
        mask = image @ gate @ image.T >= 0
        return sum((mask * (image @ w @ image.T)) @ image @ v for w, v in zip(first, second, strict=True))
    if block == "mixer":
        mask = gate @ image >= 0
        return sum((mask * (w @ image)) @ v for w, v in zip(first, second, strict=True))
    if block == "block-fno":
        halves = np.split(image, 2, axis=1)
        parts = [network("fno", half, gate[b], first[:, b], second[:, b]) for b, half in enumerate(halves)]
        return np.concatenate(parts, axis=1)
    rows = circulant(image) if block == "fno" else image
    return ((rows @ gate >= 0)[:, None] * (rows @ first.T)) @ second


def test_circulant_is_a_circular_correlation():
    image, _ = (array[0] for array in drawn())
    kernel = np.random.default_rng(1).standard_normal((TOKENS, DIM))
    spectrum = np.sum(np.fft.fft(image, axis=0) * np.conj(np.fft.fft(kernel, axis=0)), axis=1)
    np.testing.assert_allclose(circulant(image) @ kernel.ravel(), np.fft.ifft(spectrum).real, atol=1e-12)


@pytest.mark.parametrize("block", ["linear", "mlp", "attention", "mixer", "fno"])
def test_a_gate_that_is_always_open_is_linear(block):
    """A zero gate vector opens every mask, for masks are ``1{. >= 0}``; two of them are no better than one."""
    tokens, targets = drawn()
    gates = np.zeros((2, *GATES[block]))
    values = [optimum(block, tokens, targets, g, 0.1, loss="squared", pooled=False) for g in (None, gates[:1], gates)]
    np.testing.assert_allclose(values, values[0], rtol=1e-7)


@pytest.mark.parametrize("block", BLOCKS)
def test_more_gates_cost_nothing(block):
    tokens, targets = drawn()
    gates = np.random.default_rng(3).standard_normal((2, *GATES[block]))
    settings = {"loss": "squared", "pooled": True, "groups": groups_of(block)}
    one, two = (optimum(block, tokens, targets[:, 0], gates[:count], 0.05, **settings) for count in (1, 2))
    assert two <= one + 1e-8


@pytest.mark.parametrize("block", BLOCKS)
def test_scaling(block):
    """Targets and penalty times t: the squared optimum times t^2. Every image twice: the mean does not change."""
    tokens, targets = drawn()
    settings = {"loss": "squared", "pooled": False, "groups": groups_of(block)}
    value = optimum(block, tokens, targets, None, 0.2, **settings)
    assert optimum(block, tokens, 3 * targets, None, 0.6, **settings) == pytest.approx(9 * value, rel=1e-7)
    twice = np.concatenate([tokens, tokens]), np.concatenate([targets, targets])
    assert optimum(block, *twice, None, 0.2, **settings) == pytest.approx(value, rel=1e-7)


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("loss", ["squared", "cross-entropy"])
def test_the_solution_is_stationary(block, loss):
    """The value is the objective at Z, no gradient exceeds beta, and ``<gradient, Z> = -beta ||Z||_*``."""
    tokens, targets = drawn(images=4)
    targets = targets[:, 0] if loss == "squared" else np.array([0, 1, 1, 0])
    gates = np.random.default_rng(3).standard_normal((2, *GATES[block]))
    groups, beta = groups_of(block), 0.05
    found = solution(block, tokens, targets, gates, beta, loss=loss, pooled=True, groups=groups)
    features = [f[:, 0] for gate in gates for f in gate_features(block, tokens, gate, True, groups)]
    width = OUTPUTS // groups
    outputs = np.zeros((len(tokens), OUTPUTS))
    columns = [slice(group * width, (group + 1) * width) for _ in gates for group in range(groups)]
    for f, z, at in zip(features, found.matrices, columns, strict=True):
        outputs[:, at] += np.einsum("irk,rkc->ic", f, z.reshape(*f.shape[1:], width))
    losses, residual = loss_and_gradient(outputs, targets)
    norms = [np.linalg.norm(z, "nuc") for z in found.matrices]
    assert losses.mean() + beta * sum(norms) == pytest.approx(found.value, abs=1e-7)
    for f, z, at, norm in zip(features, found.matrices, columns, norms, strict=True):
        gradient = np.einsum("irk,ic->rkc", f, residual[:, at]).reshape(z.shape) / len(tokens)
        assert np.linalg.norm(gradient, 2) <= beta * (1 + 1e-4)
        assert np.sum(gradient * z) == pytest.approx(-beta * norm, abs=1e-5)


def loss_and_gradient(outputs, targets):
    if targets.ndim == 2:
        return np.sum((outputs - targets) ** 2, axis=1) / 2, outputs - targets
    shares = np.exp(outputs) / np.exp(outputs).sum(1, keepdims=True)
    return -np.log(shares[np.arange(len(targets)), targets]), shares - np.eye(OUTPUTS)[targets]


@pytest.mark.parametrize("block", BLOCKS)
def test_a_great_penalty_leaves_nothing(block):
    tokens, targets = drawn()
    labels = np.array([0, 1, 1])
    settings = {"pooled": True, "groups": groups_of(block)}
    squared = optimum(block, tokens, targets[:, 0], None, 1e3, loss="squared", **settings)
    assert squared == pytest.approx(np.sum(targets[:, 0] ** 2) / 6, rel=1e-6)
    assert optimum(block, tokens, labels, None, 1e3, loss="cross-entropy", **settings) == pytest.approx(
        np.log(2), rel=1e-6
    )


def test_both_solvers_agree():
    tokens, targets = drawn()
    gates = np.random.default_rng(3).standard_normal((2, DIM, DIM))
    values = [
        optimum("attention", tokens, targets, gates, 0.1, loss="squared", pooled=False, solver=solver)
        for solver in ("CLARABEL", "SCS")
    ]
    assert values[1] == pytest.approx(values[0], rel=1e-5)
