"""The laws of curvature diagnostics, over every class, and of Hessian products over every family of models."""

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pytest
import torch
import xarray as xr
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from vitscope import PixelInput, Plan, RunFolder, images, load, measure
from vitscope.data import Batch
from vitscope.diagnostics import default_diagnostics
from vitscope.diagnostics.accuracy import Accuracy
from vitscope.diagnostics.hessian_density import HessianDensity
from vitscope.diagnostics.hessian_spectrum import HessianSpectrum
from vitscope.diagnostics.hessian_trace import HessianTrace
from vitscope.engine.curvature.curvature import CURVATURES, AbstractCurvature, CurvatureResult, CurvatureWork, Records
from vitscope.engine.curvature.hessian import loss_of, minibatch_hessian, trainable_copy
from vitscope.engine.curvature.sample import LossSample
from vitscope.engine.work.executor import AbstractExecutor, Processes
from vitscope.measurement.axes import AXES
from vitscope.measurement.errors import UserError
from vitscope.models.adapter import ADAPTERS
from vitscope.models.catalogue import import_installed_adapters
from vitscope.models.own.vit import Vit, VitConfig

default_diagnostics()  # registers them
import_installed_adapters()
KNOWN = [(cls, known) for _, cls in CURVATURES.items() for known in cls.known_answers()]
SMALL = {
    "hessian-spectrum": HessianSpectrum(top=2, batch=4, batches=4, steps=12, tolerance=1e-2),
    "hessian-density": HessianDensity(steps=4, vectors=2, batch=4, batches=4, per="block", points=501),
    "hessian-trace": HessianTrace(vectors=3, batch=8, batches=3, precision="float64"),
}
DIAGNOSTICS = tuple(SMALL[name] for name in CURVATURES)


@pytest.fixture(scope="module")
def subject():
    torch.manual_seed(0)
    return load(Vit(VitConfig(image=8, channels=1, patch=4, dim=8, depth=1, heads=2, mlp_ratio=1.0)), name="small")


@pytest.fixture(scope="module")
def pictures():
    return images("digits", split="test", limit=26)


@pytest.fixture(scope="module")
def work(subject, pictures):
    return CurvatureWork(subject, pictures.for_classes(10, subject.classes), DIAGNOSTICS)


@pytest.fixture(scope="module")
def results(work):
    return [work.fold(shard, lambda _: None) for shard in work.shards()]


@pytest.fixture(scope="module")
def whole(subject, pictures):
    return measure(subject, pictures, DIAGNOSTICS)


def assert_same(one: xr.DataTree, other: xr.DataTree, rtol: float = 1e-9) -> None:
    assert set(one.children) == set(other.children)
    for name, node in one.children.items():
        xr.testing.assert_allclose(node.to_dataset(), other[name].to_dataset(), rtol=rtol, atol=rtol)


@pytest.mark.parametrize(("cls", "known"), KNOWN, ids=[f"{cls.name}: {known.why}" for cls, known in KNOWN])
def test_known_answers(cls, known):
    found = cls().examine(known.problem)
    for name, answer in known.answer.items():
        torch.testing.assert_close(found[name], answer, rtol=known.tolerance, atol=known.tolerance, equal_nan=True)


def test_every_class_is_measured_here_and_says_what_it_is():
    assert set(SMALL) == set(CURVATURES)
    for name, cls in CURVATURES.items():
        assert cls.name == name
        assert cls.title
        assert cls.references
        assert cls.question == "How is its loss curved?"


def test_a_class_without_a_known_answer_is_refused():
    with pytest.raises(TypeError, match=r"Nameless has no known_answers\(\)"):
        type("Nameless", (AbstractCurvature,), {})


def test_merging_is_associative_and_free_of_order(work, results):
    forward, backward = work.together(results), work.together(results[::-1])
    half = len(results) // 2
    halves = work.together(results[half:]).merge(work.together(results[:half]))
    for other in (backward, halves):
        for one, two in zip(forward.states, other.states, strict=True):
            assert one.parts == two.parts
            assert list(one.rows) == list(two.rows)
            for minibatch, record in one.rows.items():
                assert all(torch.equal(value, two.rows[minibatch][name]) for name, value in record.items())
    for diagnostic, one, two in zip(work.diagnostics, forward.states, halves.states, strict=True):
        xr.testing.assert_identical(diagnostic.finish(one), diagnostic.finish(two))


def test_the_same_minibatch_twice_is_refused(results):
    state = next(state for state in results[0].states if state.rows)
    with pytest.raises(ValueError, match="the same mini-batch"):
        state.merge(state)
    assert Records().merge(state) is state.merge(Records()) is state


def test_a_result_survives_being_written_and_read(results):
    for result in results:
        again = CurvatureResult.from_bytes(result.to_bytes())
        assert again.images == result.images
        for one, two in zip(result.states, again.states, strict=True):
            assert one.parts == two.parts
            assert list(one.rows) == list(two.rows)
            assert all(torch.equal(one.rows[n][name], two.rows[n][name]) for n in one.rows for name in one.rows[n])


def test_two_worker_processes_equal_this_one(subject, pictures, whole):
    assert_same(measure(subject, pictures, DIAGNOSTICS, Plan(executor=Processes(2))).tree, whole.tree, 1e-4)


def test_neither_the_plan_nor_the_company_changes_anything(subject, pictures, whole):
    told = []
    plan = Plan(batch_size=5, progress=lambda done, total: told.append((done, total)))
    run = measure(subject, pictures, [Accuracy(), *DIAGNOSTICS], plan)
    alone = measure(subject, pictures, [Accuracy()], Plan(batch_size=5))
    xr.testing.assert_identical(run.tree["accuracy"].to_dataset(), alone.tree["accuracy"].to_dataset())
    assert run.tree.attrs["images"] == 26
    for name, node in whole.tree.children.items():
        xr.testing.assert_identical(run.tree[name].to_dataset(), node.to_dataset())
    # 3 forward passes for a graph, 6 for a product: 12 of the spectrum, 8 for each of three parts, 3 of the trace
    total = 26 + 16 * (3 + 6 * (12 + 3 * 8)) + 24 * (3 + 6 * 3)
    assert told[-1] == (total, total)
    assert max(later - done for (done, _), (later, _) in pairwise(told)) <= 8 * 6  # product by product
    assert all(done <= total for done, total in told)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


@dataclass(frozen=True)
class Interrupted(AbstractExecutor):
    """Folds two shards and is interrupted."""

    def fold(self, work, shards, advance):
        for shard in list(shards)[:2]:
            yield shard, work.fold(shard, advance)
        raise KeyboardInterrupt


def test_an_interrupted_measurement_goes_on_where_it_ended(subject, pictures, whole, tmp_path, monkeypatch):
    folder = RunFolder(str(tmp_path / "run"))
    with pytest.raises(KeyboardInterrupt):
        measure(subject, pictures, DIAGNOSTICS, Plan(executor=Interrupted(), folder=folder))
    folded = []
    fold = CurvatureWork.fold
    monkeypatch.setattr(CurvatureWork, "fold", lambda self, *a: folded.append(a[0]) or fold(self, *a))
    run = measure(subject, pictures, DIAGNOSTICS, Plan(folder=folder, resume=True))
    assert len(folded) == len(CurvatureWork(subject, pictures, DIAGNOSTICS).shards()) - 2
    assert_same(run.tree, whole.tree)


def test_results_are_labelled_in_the_vocabulary(whole):
    for name, node in whole.tree.children.items():
        dataset = node.to_dataset()
        assert {str(dim) for dim in dataset.dims} <= set(AXES)
        assert dataset.attrs["question"] == "How is its loss curved?"
        assert dataset.attrs["references"]
        for variable in (str(one) for one in dataset.data_vars if not str(one).endswith(("_error", "_count"))):
            assert {f"{variable}_error", f"{variable}_count"} <= set(dataset.data_vars), f"{name}/{variable}"
            assert dataset[variable].attrs.keys() >= {"long_name", "units", "meaning", "better"}
    assert whole["hessian-spectrum/largest_each"].dims == ("minibatch", "rank")
    assert whole["hessian-density"].dims == ("part", "eigenvalue")
    assert whole["hessian-trace"].dims == ()


def test_what_has_not_converged_is_said(subject, pictures):
    run = measure(subject, pictures, [replace(SMALL["hessian-spectrum"], steps=5, tolerance=1e-8)])
    assert float(run["hessian-spectrum/converged"]) < 1
    assert "have not converged" in run.notes[0]
    residuals, values = (run[f"hessian-spectrum/largest_each{part}"] for part in ("_error", ""))
    assert float(residuals.max()) > 1e-8 * float(abs(values).max())
    done = measure(subject, pictures, [replace(SMALL["hessian-spectrum"], steps=100, tolerance=1e-4)])
    assert float(done["hessian-spectrum/converged"]) == 1
    assert done.notes == ()


def test_nep_and_ape_are_those_of_the_eigenvalues_of_largest_modulus(whole):
    dataset = whole.tree["hessian-spectrum"].to_dataset()
    each = np.concatenate([dataset["largest_each"], dataset["smallest_each"]], axis=1)
    chosen = np.take_along_axis(each, np.argsort(-abs(each), axis=1)[:, :2], 1)
    np.testing.assert_allclose(dataset["modulus_each"], chosen)
    assert float(dataset["negative_share"]) == pytest.approx((chosen < 0).mean())
    assert float(dataset["positive_mean"]) == pytest.approx(chosen[chosen > 0].mean())
    error = (chosen < 0).mean(1).std(ddof=1) / np.sqrt(len(chosen))
    assert float(dataset["negative_share_error"]) == pytest.approx(error)
    np.testing.assert_allclose(dataset["largest"], dataset["largest_each"].mean("minibatch"))
    pooled = dataset["pooled"]
    assert np.trapezoid(pooled, pooled["eigenvalue"]) == pytest.approx(1, abs=1e-3)


def test_minibatches_are_of_mixed_classes_and_follow_from_the_seed(subject):
    pixels, labels = np.zeros((40, 8, 8), np.uint8), np.arange(40) // 10
    pictures = images((pixels, labels))
    sample = LossSample(8, 3, "model", "float32", 0)
    seen = [sample.minibatch(subject, pictures, number).labels for number in range(3)]
    assert all(len(set(one.tolist())) > 1 for one in seen)
    assert all(torch.equal(one, sample.minibatch(subject, pictures, n).labels) for n, one in enumerate(seen))
    other = [replace(sample, seed=1).minibatch(subject, pictures, number).labels for number in range(3)]
    assert not all(torch.equal(one, two) for one, two in zip(seen, other, strict=True))
    starts = [
        torch.randn(3, generator=one.generator(n)).tolist() for one in (sample, replace(sample, seed=1)) for n in (0, 1)
    ]
    assert len({tuple(start) for start in starts}) == 4
    assert sample.count(pictures) == 3
    assert replace(sample, batch=64).count(pictures) == 1
    assert len(replace(sample, batch=64).minibatch(subject, pictures, 0)) == 40


def test_without_labels_or_classifier_it_is_skipped_beside_others_and_refused_alone(subject):
    unlabelled = images(np.zeros((4, 8, 8), np.uint8))
    run = measure(subject, unlabelled, [*default_diagnostics()[:1], SMALL["hessian-trace"]])
    assert run.skipped["hessian-trace"] == "the images have no labels"
    with pytest.raises(UserError, match="the images have no labels"):
        measure(subject, unlabelled, [SMALL["hessian-trace"]])
    headless = replace(subject, class_count=0)
    with pytest.raises(UserError, match="small has no classifier"):
        measure(headless, images("digits", limit=4), [SMALL["hessian-trace"]])


def test_a_random_subject_is_refused(pictures):
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10), torch.nn.Dropout())
    subject = load(module, input=PixelInput(8, 1, (0.5,), (0.5,)), name="random")
    module.train()
    with pytest.raises(UserError, match="training mode"):
        measure(subject, pictures, [SMALL["hessian-trace"]])


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: HessianSpectrum(top=0),
        lambda: HessianSpectrum(tolerance=0.0),
        lambda: HessianDensity(kernel=0.001, points=100),
        lambda: HessianDensity(vectors=0),
        lambda: HessianTrace(vectors=0),
        lambda: HessianTrace(batch=0).sample,
    ],
)
def test_settings_that_cannot_be_are_refused(wrong):
    with pytest.raises(UserError):
        wrong()


CLASSIFIERS = [
    pytest.param(example, id=f"{name}: {example.name}")
    for name, adapter in ADAPTERS.items()
    for example in adapter.examples()[:1]
]


@pytest.mark.parametrize("example", CLASSIFIERS)
def test_products_of_every_family_equal_a_double_backward_through_its_own_module(example):
    torch.manual_seed(0)
    module = example.build().eval()
    subject = load(module, name="example")
    if not subject.class_count:
        pytest.skip("it has no classifier")
    batch = Batch(torch.randn(2, *example.image_shape), torch.arange(2), torch.arange(2), ())
    found = minibatch_hessian(trainable_copy(subject, "float64"), batch)
    own = example.build().eval().double()
    own.load_state_dict(module.state_dict())
    weights = {name: weight for name, weight in own.named_parameters() if name in found.weights}
    with sdpa_kernel(SDPBackend.MATH):
        output = own(batch.pixels.double())
        logits = output if isinstance(output, torch.Tensor) else output.logits
        gradients = torch.autograd.grad(
            functional.cross_entropy(logits, batch.labels), list(weights.values()), create_graph=True, allow_unused=True
        )
    vector = torch.randn(found.size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    pieces = found.split_by_weight(vector)
    inner = sum((g * pieces[n]).sum() for n, g in zip(weights, gradients, strict=True) if g is not None)
    expected = torch.autograd.grad(inner, list(weights.values()), allow_unused=True, materialize_grads=True)
    flat = torch.cat([one.reshape(-1) for one in expected])
    torch.testing.assert_close(found.product(vector), flat, rtol=1e-6, atol=1e-8 * float(flat.abs().max()))
    assert float(loss_of(trainable_copy(subject, "float64"), batch).detach()) == pytest.approx(found.loss)
