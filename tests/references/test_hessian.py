"""Hessians of small models against dense eigensolvers, and against what other tools get wrong."""

import copy
import importlib.util

import numpy as np
import pytest
import torch
from timm.models.resnet import BasicBlock
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torch.func import functional_call
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from vitscope import PixelInput, images, load, measure
from vitscope.data import Batch
from vitscope.diagnostics.hessian_density import HessianDensity
from vitscope.diagnostics.hessian_spectrum import HessianSpectrum
from vitscope.diagnostics.hessian_trace import HessianTrace
from vitscope.engine.curvature.curvature import CurvatureProblem
from vitscope.engine.curvature.eigenvectors import top_eigenvectors
from vitscope.engine.curvature.hessian import MeanHessian, loss_of, minibatch_hessian, trainable_copy, weights_of
from vitscope.engine.curvature.part import parts_of
from vitscope.engine.curvature.sample import LossSample
from vitscope.measurement.errors import UserError
from vitscope.models.own.vit import Vit, VitConfig
from vitscope.numerics.lanczos import Krylov
from vitscope.numerics.spectral_density import lanczos_quadrature

CLASSES, IMAGE = 4, 8


def vit() -> nn.Module:
    return Vit(VitConfig(image=IMAGE, channels=1, patch=4, dim=4, depth=2, heads=2, classes=CLASSES, mlp_ratio=1.0))


class Resnet(nn.Module):
    """Basic blocks with batch norm, small enough for a dense Hessian."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU())
        self.blocks = nn.Sequential(BasicBlock(4, 4), BasicBlock(4, 4))
        self.head = nn.Linear(4, CLASSES)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(self.stem(images)).mean((2, 3)))


class Mlp(nn.Module):
    """A plain module of nobody's family."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Sequential(nn.Conv2d(1, 3, 4, stride=4), nn.BatchNorm2d(3), nn.Tanh())])
        self.head = nn.Sequential(nn.Linear(12, 8), nn.GELU(), nn.Linear(8, CLASSES))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            images = block(images)
        return self.head(images.flatten(1))


MODELS = {"vit": vit, "resnet": Resnet, "mlp": Mlp}


def subject_of(build, seed=0):
    torch.manual_seed(seed)
    module = build().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in module.parameters():
            weight += 0.2 * torch.randn(weight.shape, generator=generator)
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.running_mean.normal_(generator=generator)
                part.running_var.uniform_(0.5, 2, generator=generator)
    return load(module, input=PixelInput(IMAGE, 1, (0.5,), (0.25,)), name="small")


def batch_of(count=6, seed=0, channels=1, image=IMAGE, classes=CLASSES, soft=False):
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randn(count, channels, image, image, generator=generator)
    targets = torch.rand(count, classes, generator=generator).softmax(1) if soft else None
    return Batch(pixels, torch.arange(count) % classes, torch.arange(count), (), targets)


def dense(module, batch, weight_decay=0.0, names=None):
    """The Hessian by the user's own module, row by row.

    Not by ``torch.func.hessian`` or any ``vmap``, which is wrong by the weights of LayerNorm in torch 2.15.
    """
    module = copy.deepcopy(module).double()
    weights = {name: weight.detach() for name, weight in module.named_parameters()}
    chosen = {name: weight for name, weight in weights.items() if names is None or name in names}
    truth = batch.labels if batch.targets is None else batch.targets.double()

    def loss(flat):
        pieces = flat.split([weight.numel() for weight in chosen.values()])
        own = {name: piece.view_as(chosen[name]) for name, piece in zip(chosen, pieces, strict=True)}
        logits = functional_call(module, {**weights, **own}, (batch.pixels.double(),))
        return functional.cross_entropy(logits, truth) + 0.5 * weight_decay * flat.square().sum()

    with sdpa_kernel(SDPBackend.MATH):
        return torch.autograd.functional.hessian(loss, torch.cat([weight.reshape(-1) for weight in chosen.values()]))


def problem_of(subject, batch, precision="float64", per="model"):
    shown = trainable_copy(subject, precision)
    return CurvatureProblem(
        minibatch_hessian(shown, batch), parts_of(shown, batch, per), torch.Generator().manual_seed(0)
    )


@pytest.fixture(scope="module", params=list(MODELS))
def case(request):
    subject, batch = subject_of(MODELS[request.param]), batch_of()
    return subject, batch, dense(subject.module, batch)


@pytest.mark.parametrize(("precision", "close"), [("float32", 1e-4), ("float64", 1e-9)])
def test_extreme_eigenvalues_equal_a_dense_eigensolve(case, precision, close):
    subject, batch, matrix = case
    values = torch.linalg.eigvalsh(matrix)
    tolerance = 1e-5 if precision == "float32" else 1e-10
    found = HessianSpectrum(tolerance=tolerance, precision=precision).examine(problem_of(subject, batch, precision))
    scale = float(values.abs().max())
    torch.testing.assert_close(found["largest"][0], values.flip(0)[:5], rtol=0, atol=close * scale)
    torch.testing.assert_close(found["smallest"][0], values[:5], rtol=0, atol=close * scale)
    assert float(values[0]) < -1e-3 * scale  # there is something to tell apart


def test_products_and_gradient_equal_the_dense_ones(case):
    subject, batch, matrix = case
    found = problem_of(subject, batch).hessian
    vector = torch.randn(found.size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(found.product(vector), matrix @ vector, rtol=1e-8, atol=1e-9)
    leaves = [weight.requires_grad_() for weight in copy.deepcopy(subject.module).double().parameters()]
    assert found.size == len(matrix) == sum(leaf.numel() for leaf in leaves)


@pytest.mark.parametrize("per", ["block", "unit", "module"])
def test_each_part_has_its_diagonal_block(case, per):
    subject, batch, matrix = case
    problem = problem_of(subject, batch, per=per)
    names = [name for name, _ in subject.module.named_parameters()]
    assert sorted(name for part in problem.parts for name in part.weights) == sorted(names)
    found = HessianSpectrum(top=1, tolerance=1e-8, per=per, precision="float64").examine(problem)
    numbers = dict(
        zip(names, torch.arange(len(matrix)).split([p.numel() for p in subject.module.parameters()]), strict=True)
    )
    for row, part in enumerate(problem.parts):
        index = torch.cat([numbers[name] for name in part.weights])
        values = torch.linalg.eigvalsh(matrix[index][:, index])
        assert float(found["largest"][row, 0]) == pytest.approx(float(values[-1]), abs=1e-6)
        assert float(found["smallest"][row, 0]) == pytest.approx(float(values[0]), abs=1e-6)


def test_a_weight_belongs_to_the_unit_that_uses_it():
    subject = subject_of(vit)
    parts = {part.name: part.weights for part in parts_of(trainable_copy(subject, "float32"), batch_of(), "unit")}
    assert list(parts) == ["stem", "blocks.0.attn", "blocks.0.mlp", "blocks.1.attn", "blocks.1.mlp", "tail"]
    assert {name.split(".")[2] for name in parts["blocks.1.attn"]} == {"norm1", "attn"}
    blocks = parts_of(trainable_copy(subject, "float32"), batch_of(), "block")
    assert [part.name for part in blocks] == ["stem", "blocks.0", "blocks.1", "tail"]
    assert blocks[1].kind == "attention+mlp"


@pytest.mark.parametrize("soft", [False, True])
def test_weight_decay_in_the_loss_shifts_every_eigenvalue_by_itself(soft):
    subject, batch = subject_of(Mlp), batch_of(soft=soft)
    values = torch.linalg.eigvalsh(dense(subject.module, batch, weight_decay=0.3))
    spectrum = HessianSpectrum(weight_decay=0.3, tolerance=1e-10, precision="float64")
    found = spectrum.examine(problem_of(subject, batch))
    torch.testing.assert_close(found["largest"][0], values.flip(0)[:5], rtol=0, atol=1e-9)
    torch.testing.assert_close(found["smallest"][0], values[:5], rtol=0, atol=1e-9)
    estimates = HessianTrace(weight_decay=0.3, vectors=20, precision="float64").examine(problem_of(subject, batch))
    bare = HessianTrace(vectors=20, precision="float64").examine(problem_of(subject, batch))
    torch.testing.assert_close(estimates["trace"] - bare["trace"], torch.full((1, 20), 0.3 * len(values)).double())
    density = HessianDensity(weight_decay=0.3, steps=5).examine(problem_of(subject, batch))
    nodes = HessianDensity(steps=5).examine(problem_of(subject, batch))["nodes"]
    torch.testing.assert_close(density["nodes"], nodes + 0.3, rtol=0, atol=1e-7)


def test_soft_labels_are_the_losss_targets():
    subject = subject_of(vit)
    batch = batch_of(soft=True)
    shown = trainable_copy(subject, "float64")
    expected = -(subject.module(batch.pixels).log_softmax(1) * batch.targets).sum(1).mean()
    assert float(loss_of(shown, batch).detach()) == pytest.approx(float(expected.detach()), abs=1e-5)
    matrix = dense(subject.module, batch)
    vector = torch.ones(len(matrix)).double()
    torch.testing.assert_close(minibatch_hessian(shown, batch).product(vector), matrix @ vector, rtol=1e-8, atol=1e-9)


def power_iteration(matrix, count, generator):
    """PyHessian 0.1: power iteration with deflation, until the estimate changes by less than 1e-3."""
    values, vectors = [], []
    for _ in range(count):
        vector, value = torch.randn(len(matrix), generator=generator, dtype=torch.float64), None
        for _ in range(100):
            for other in vectors:
                vector = vector - (vector @ other) * other
            vector = vector / vector.norm()
            image = matrix @ vector
            estimate, vector = float(vector @ image), image / image.norm()
            if value is not None and abs(value - estimate) / (abs(value) + 1e-6) < 1e-3:
                break
            value = estimate
        values.append(value)
        vectors.append(vector)
    return values


def test_largest_and_smallest_are_told_apart_where_power_iteration_mixes_them():
    """Peer: PyHessian 0.1, ``hessian(...).eigenvalues(top_n=5)``, and Landscaper, which copies it."""
    subject, batch = subject_of(vit, seed=8), batch_of()
    matrix = dense(subject.module, batch)
    values = torch.linalg.eigvalsh(matrix)
    peer = power_iteration(matrix, 5, torch.Generator().manual_seed(0))
    assert min(peer) < 0 < max(peer)
    wrong = max(abs(one - other) for one, other in zip(peer, values.flip(0)[:5].tolist(), strict=True))
    assert wrong > 0.1 * float(values[-1])
    spectrum = HessianSpectrum(tolerance=1e-8, precision="float64")
    problem = problem_of(subject, batch)
    found = spectrum.examine(problem)
    torch.testing.assert_close(found["largest"][0], values.flip(0)[:5], rtol=0, atol=1e-6)
    modulus = spectrum.conclude(spectrum.update(spectrum.init(), 0, problem))["modulus_each"].values[0]
    truth = values[values.abs().argsort(descending=True)][:5]
    np.testing.assert_allclose(modulus, truth.numpy(), atol=1e-6)
    assert (modulus < 0).any()
    assert (modulus > 0).any()


def test_no_ghost_copies_at_200_iterations(case):
    """Peer: hessian-eigenthings 1.0.0a5, which above 50 iterations returned 84.52 five times."""
    subject, batch, matrix = case
    values, product = torch.linalg.eigvalsh(matrix), problem_of(subject, batch, "float32").hessian.product
    start, steps = torch.randn(len(values), generator=torch.Generator().manual_seed(0)), min(200, len(values))
    krylov = Krylov(product, start, steps, torch.Generator())
    for _ in range(steps):
        krylov.extend()
    scale, found = float(values.abs().max()), krylov.ritz()[0]
    torch.testing.assert_close(found.flip(0)[:5], values.flip(0)[:5], rtol=0, atol=1e-4 * scale)
    torch.testing.assert_close(found[:5], values[:5], rtol=0, atol=1e-4 * scale)
    copied, _ = lanczos_quadrature(product, start, steps, torch.Generator(), rows=1)  # nothing re-orthogonalised
    wrong = (copied.flip(0)[:5] - values.flip(0)[:5]).abs().max()
    assert float(wrong) > 1e-2 * scale


FUSED = {
    "timm": lambda: VisionTransformer(
        img_size=8, patch_size=4, in_chans=1, embed_dim=8, depth=1, num_heads=2, num_classes=4
    ),
    "transformers": lambda: transformers_vit(),
}


def transformers_vit():
    from transformers import ViTConfig, ViTForImageClassification

    return ViTForImageClassification(
        ViTConfig(
            hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=8,
            patch_size=4, num_channels=1, num_labels=4,
        )
    )  # fmt: skip


@pytest.mark.parametrize("library", list(FUSED))
@pytest.mark.parametrize("described", [True, False], ids=["described", "by its blocks"])
def test_fused_attention_is_not_in_the_way(library, described):
    """Peers: PyHessian, Landscaper, hessian-eigenthings, curvlinops all raise on such a model as it is."""
    torch.manual_seed(0)
    module, batch = FUSED[library]().eval(), batch_of()
    parameters = list(module.parameters())
    logits = module(batch.pixels)
    loss = functional.cross_entropy(logits if library == "timm" else logits.logits, batch.labels)
    gradients = torch.autograd.grad(loss, parameters, create_graph=True)
    with pytest.raises(RuntimeError, match="scaled_dot_product"):
        torch.autograd.grad(sum(gradient.sum() for gradient in gradients), parameters)
    if library == "transformers" and not described:
        pytest.skip("a module that returns no tensor needs its family")
    units = None if described else [name for name, part in module.named_modules() if name.endswith("blocks.0")]
    subject = load(module, input=PixelInput(IMAGE, 1, (0.5,), (0.25,)), units=units, name="fused")
    found = problem_of(subject, batch).hessian
    vector = torch.randn(found.size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    vector, step = vector / vector.norm(), 1e-5
    nearby = [loss_gradient(module, dict(found.split_by_weight(sign * step * vector)), batch) for sign in (1, -1)]
    torch.testing.assert_close(found.product(vector), (nearby[0] - nearby[1]) / (2 * step), rtol=1e-5, atol=1e-7)


def loss_gradient(module, moves, batch):
    """The gradient at displaced weights, by the module's own fused attention."""
    moved = copy.deepcopy(module).double()
    with torch.no_grad():
        for name, weight in moved.named_parameters():
            weight += moves[name]
    output = moved(batch.pixels.double())
    loss = functional.cross_entropy(output if isinstance(output, torch.Tensor) else output.logits, batch.labels)
    return torch.cat([gradient.reshape(-1) for gradient in torch.autograd.grad(loss, list(moved.parameters()))])


def test_density_integrates_to_one_and_its_moments_match_the_dense_ones():
    subject, batch = subject_of(Mlp), batch_of()
    matrix = dense(subject.module, batch)
    diagnostic = HessianDensity(steps=20, vectors=60, precision="float64", kernel=0.01)
    result = diagnostic.finish(diagnostic.update(diagnostic.init(), 0, problem_of(subject, batch)))
    density = result["density"]
    points = density["eigenvalue"].values
    assert np.trapezoid(density.values, points) == pytest.approx(1, abs=1e-4)
    first, second = float(matrix.trace()) / len(matrix), float(matrix.square().sum()) / len(matrix)
    values = torch.linalg.eigvalsh(matrix)
    error = float((values - first).square().mean().mul(2 / 60 / len(values)).sqrt())
    assert float(result["mean"]) == pytest.approx(first, abs=4 * error)
    error = float((values.square() - second).square().mean().mul(2 / 60 / len(values)).sqrt())
    assert float(result["mean_square"]) == pytest.approx(second, abs=4 * error)
    width = density.attrs["kernel_width"]
    assert np.trapezoid(density.values * points, points) == pytest.approx(float(result["mean"]), abs=1e-3)
    spread = float(result["mean_square"]) + width**2
    assert np.trapezoid(density.values * points**2, points) == pytest.approx(spread, rel=1e-3)
    assert float(result["nodes"].min()) == pytest.approx(float(values[0]), rel=1e-3)
    assert float(result["nodes"].max()) == pytest.approx(float(values[-1]), rel=1e-3)


def test_trace_is_within_its_error_of_the_dense_one():
    subject, batch = subject_of(vit), batch_of()
    diagnostic = HessianTrace(vectors=100, precision="float64", per="block")
    problem = problem_of(subject, batch, per="block")
    result = diagnostic.finish(diagnostic.update(diagnostic.init(), 0, problem))
    matrix = dense(subject.module, batch)
    places = problem.hessian.split_by_weight(torch.arange(len(matrix)).double())
    places = {name: place.reshape(-1).long() for name, place in places.items()}
    for part, trace, error in zip(problem.parts, result["trace"].values, result["trace_error"].values, strict=True):
        rows = torch.cat([places[name] for name in part.weights])
        block, coupling = matrix[rows][:, rows], matrix[rows].square().sum() - matrix[rows][:, rows].square().sum()
        variance = 2 * (block.square().sum() - block.diag().square().sum()) + coupling
        expected = float(variance.div(100).sqrt())
        assert trace == pytest.approx(float(block.trace()), abs=4 * expected)
        assert error == pytest.approx(expected, rel=0.5)


def test_eigenvectors_of_the_mean_hessian_are_those_of_the_dense_mean():
    subject = subject_of(Mlp)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (24, IMAGE, IMAGE), generator=generator, dtype=torch.uint8).numpy()
    pictures = images((pixels, np.arange(24) % CLASSES))
    sample = LossSample(8, 3, "model", "float64", 0)
    matrix = sum(dense(subject.module, sample.minibatch(subject, pictures, n)) for n in range(3)) / 3
    _, vectors = torch.linalg.eigh(matrix)
    for which, columns in (("largest", [-1, -2]), ("smallest", [0, 1])):
        found = top_eigenvectors(subject, pictures, 2, which, 8, 3, "float64", tolerance=1e-8)
        assert [list(one) for one in found] == [[name for name, _ in subject.module.named_parameters()]] * 2
        for one, column in zip(found, columns, strict=True):
            flat = torch.cat([piece.reshape(-1) for piece in one.values()])
            assert float((flat @ vectors[:, column]).abs()) == pytest.approx(1, abs=1e-6)
    with pytest.raises(UserError, match="raise steps above 3"):
        top_eigenvectors(subject, pictures, 2, steps=3, batch=8, batches=3, tolerance=1e-6)


def test_the_mean_hessian_weighs_each_loss_by_its_share():
    subject = subject_of(Mlp)
    shown, batches = trainable_copy(subject, "float64"), (batch_of(4, seed=1), batch_of(2, seed=2))
    mean = MeanHessian(tuple(minibatch_hessian(shown, batch) for batch in batches), (2 / 3, 1 / 3))
    matrices = [dense(subject.module, batch) for batch in batches]
    vector = torch.randn(mean.size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = (2 * matrices[0] + matrices[1]) @ vector / 3
    torch.testing.assert_close(mean.product(vector), expected, rtol=1e-8, atol=1e-9)


class Remembering(Mlp):
    """Keeps what it once made of a weight until it is put into training mode, as LeViT does."""

    def __init__(self) -> None:
        super().__init__()
        self.factor, self.kept = nn.Parameter(torch.ones(1)), None

    def train(self, mode=True):
        self.kept = None if mode else self.kept
        return super().train(mode)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self.kept is None:
            self.kept = 2 * self.factor
        return self.kept * super().forward(images)


def test_what_a_module_remembers_of_its_weights_is_made_anew():
    subject, batch = subject_of(Remembering), batch_of()
    subject.module.train().eval()
    with torch.no_grad():
        subject.module(batch.pixels)
    found = problem_of(subject, batch).hessian
    assert float(found.gradients["factor"].detach().abs()) > 1e-3
    bare = subject_of(Mlp)
    assert found.size == sum(weight.numel() for weight in bare.module.parameters()) + 1


def state_of(module):
    """All that a measurement may not change."""
    return (
        {name: tensor.clone() for name, tensor in module.state_dict(keep_vars=True).items()},
        [(weight.requires_grad, weight.grad, weight.grad_fn) for weight in module.parameters()],
        [(part.training, dict(part._forward_hooks), dict(part._forward_pre_hooks)) for part in module.modules()],
        torch.get_rng_state(),
        torch.backends.cuda.flash_sdp_enabled(),
        torch.is_grad_enabled(),
    )


def assert_untouched(module, before):
    after = state_of(module)
    assert before[0].keys() == after[0].keys()
    assert all(torch.equal(before[0][name], after[0][name]) for name in before[0])
    assert before[1:3] == after[1:3]
    assert torch.equal(before[3], after[3])
    assert before[4:] == after[4:]


DIAGNOSTICS = (
    HessianSpectrum(top=2, batch=4, batches=1, per="unit", steps=20, tolerance=0.1),
    HessianDensity(steps=3, batch=4, batches=1, precision="float64"),
    HessianTrace(vectors=2, batch=4, batches=1),
)


@pytest.mark.parametrize("build", [vit, Resnet, Mlp])
def test_the_users_module_is_untouched(build):
    subject, pictures = subject_of(build), random_images()
    frozen = next(iter(subject.module.parameters()))
    frozen.requires_grad_(False)
    subject.module.head.register_forward_hook(lambda *_: None)
    before = state_of(subject.module)
    run = measure(subject, pictures, DIAGNOSTICS)
    assert_untouched(subject.module, before)
    assert set(run.tree.children) == {"hessian-spectrum", "hessian-density", "hessian-trace"}
    top_eigenvectors(subject, pictures, 1, batch=4, batches=1, tolerance=0.1)
    assert_untouched(subject.module, before)
    assert len(weights_of(trainable_copy(subject, "float32"))) == len(list(subject.module.parameters())) - 1


def random_images():
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (12, IMAGE, IMAGE), generator=generator, dtype=torch.uint8).numpy()
    return images((pixels, np.arange(12) % CLASSES))


def test_the_users_module_is_untouched_by_an_error_in_the_middle(monkeypatch):
    subject = subject_of(vit)
    before = state_of(subject.module)
    calls = []

    def failing(self, vector):
        calls.append(vector)
        if len(calls) > 3:
            raise RuntimeError("the power went out")
        return vector

    monkeypatch.setattr("vitscope.engine.curvature.hessian.LossHessian.product", failing)
    with pytest.raises(RuntimeError, match="the power went out"):
        measure(subject, random_images(), [HessianSpectrum(batch=4, batches=2)])
    assert_untouched(subject.module, before)


def test_where_no_weight_requires_gradients_all_are_differentiated_by():
    subject = subject_of(Mlp)
    subject.module.requires_grad_(False)
    assert len(weights_of(trainable_copy(subject, "float32"))) == len(list(subject.module.parameters()))
    assert not any(weight.requires_grad for weight in subject.module.parameters())


def test_extreme_eigenvalues_equal_those_of_curvlinops():
    """Peer: curvlinops 3.x with ARPACK, which is right where it converges."""
    if not importlib.util.find_spec("curvlinops"):
        pytest.skip("curvlinops is not installed")
    from curvlinops import HessianLinearOperator
    from scipy.sparse.linalg import eigsh

    subject, batch = subject_of(Mlp), batch_of()
    module = copy.deepcopy(subject.module).double()
    data = [(batch.pixels.double(), batch.labels)]
    arguments = (module, nn.CrossEntropyLoss(), list(module.parameters()), data)
    operator = HessianLinearOperator(*arguments, check_deterministic=False).to_scipy()
    values = np.sort(eigsh(operator, k=6, which="BE", tol=1e-10)[0])
    found = HessianSpectrum(top=3, tolerance=1e-9, precision="float64").examine(problem_of(subject, batch))
    np.testing.assert_allclose(found["largest"][0].numpy(), values[:-4:-1], atol=1e-7)
    np.testing.assert_allclose(found["smallest"][0].numpy(), values[:3], atol=1e-7)
