"""Studies, by what they share and keep, give the numbers of plain passes over every edited subject."""

import math
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
import torch
import xarray as xr

from vitscope import Plan, RunFolder, images, load, measure
from vitscope.diagnostics.accuracy import Accuracy
from vitscope.diagnostics.attention_entropy import AttentionEntropy
from vitscope.diagnostics.feature_variance import FeatureVariance
from vitscope.engine import studying
from vitscope.engine.grid import Axis, StudyGrid
from vitscope.engine.reading import together
from vitscope.engine.study import resolve_study, study
from vitscope.engine.work.executor import Processes
from vitscope.interventions.bypass import irremovable_layers
from vitscope.interventions.frequency_noise import FrequencyNoise
from vitscope.interventions.lesion import Lesion
from vitscope.interventions.studies.attention_shape import AttentionShapeStudy
from vitscope.interventions.studies.lesion import LesionStudy
from vitscope.interventions.weight_prune import WeightPrune
from vitscope.models.adapter import ADAPTERS
from vitscope.models.catalogue import import_installed_adapters
from vitscope.models.own.vit import Vit, VitConfig
from vitscope.models.pixels import PixelInput
from vitscope.models.subject import Subject, Unwatched

import_installed_adapters()
FAMILIES = dict(ADAPTERS.items())
COUNT = 6


@pytest.fixture(scope="module")
def digits():
    return images("digits", split="test", limit=COUNT)


@pytest.fixture(scope="module")
def small() -> Subject:
    torch.manual_seed(0)
    module = Vit(VitConfig(image=8, channels=1, patch=2, dim=16, depth=3, heads=2)).double()
    subject = load(module, name="small")
    return replace(subject, preprocessing=replace(subject.preprocessing, transform=InDouble(subject)))


class InDouble:
    """The subject's own transform, in float64."""

    def __init__(self, subject: Subject) -> None:
        self.transform = subject.preprocessing.transform

    def __call__(self, picture):
        return self.transform(picture).double()


def family(name: str) -> Subject:
    """The family's first example with square images, in float64, on pictures of its own size."""
    adapter = FAMILIES[name]
    example = next(one for one in adapter.examples() if one.image_shape[1] == one.image_shape[2])
    torch.manual_seed(0)
    module = example.build().eval().double()
    for parameter in module.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, dtype=torch.float64)
    channels, side, _ = example.image_shape
    given = PixelInput(image=side, channels=channels, mean=(0.5,) * channels, std=(0.25,) * channels)
    preprocessing = given.preprocessing
    subject = Subject(name, name, module, adapter.anatomy(module), preprocessing, 0)
    subject = replace(subject, preprocessing=replace(preprocessing, transform=InDouble(subject)))
    with torch.inference_mode():
        zeros = torch.zeros(1, *example.image_shape, dtype=torch.float64)
        return replace(subject, class_count=subject.anatomy.walk(zeros, Unwatched()).shape[-1])


@pytest.fixture(scope="module")
def pictures():
    generator = np.random.default_rng(0)
    return images((generator.integers(0, 256, (3, 40, 40, 3), "uint8"), np.array([0, 1, 2])))


@pytest.mark.parametrize("name", FAMILIES)
def test_lesion_by_shared_prefix_equals_lesion_by_full_passes(name, pictures, monkeypatch):
    subject = family(name)
    diagnostics = [Accuracy(), FeatureVariance()]
    run = study(subject, pictures, LesionStudy(), diagnostics, Plan(batch_size=2))
    monkeypatch.setattr(together, "IMAGES_TOGETHER_ON_CPU", 64)
    in_batches = study(subject, pictures, LesionStudy(), [Accuracy()], Plan(batch_size=2))  # nobody reads the streams
    xr.testing.assert_allclose(in_batches["lesion-accuracy/nll"], run["lesion-accuracy/nll"], rtol=1e-9)
    layers = [layer for layer in range(1, len(subject.places) + 1) if layer not in irremovable_layers(subject)]
    assert run["lesion-accuracy/nll"]["lesion"].values.tolist() == layers
    for index in sorted({0, len(layers) // 2, len(layers) - 1}):
        layer = layers[index]
        alone = measure(Lesion((layer,))(subject), pictures, diagnostics, Plan(batch_size=2))
        for diagnostic in diagnostics:
            found = run.tree[f"lesion-{diagnostic.name}"].to_dataset().isel(lesion=index)
            for quantity, values in alone.tree[diagnostic.name].to_dataset().data_vars.items():
                np.testing.assert_allclose(found[quantity].values, values.values, rtol=1e-9, atol=1e-12)


def logits_of(subject: Subject, pictures) -> tuple[torch.Tensor, torch.Tensor]:
    (batch,) = pictures.batches(subject.preprocessing.transform, len(pictures))
    with torch.inference_mode():
        return subject.anatomy.walk(batch.pixels, Unwatched()), batch.labels


def test_the_error_of_a_change_is_of_the_images_own_differences(small, digits):
    run = study(small, digits, LesionStudy(), plan=Plan(batch_size=4))
    for layer in (1, 4):
        losses = []
        for subject in (small, Lesion((layer,))(small)):
            logits, labels = logits_of(subject, digits)
            probabilities = torch.tensor([[math.exp(one) for one in row] for row in logits.tolist()])
            right = probabilities[torch.arange(COUNT), labels] / probabilities.sum(1)
            losses.append([-math.log(one) for one in right.tolist()])
        change = np.array(losses[1]) - np.array(losses[0])
        found = run.tree["lesion-accuracy"].to_dataset().sel(lesion=layer)
        np.testing.assert_allclose(found["nll_change"], change.mean(), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(found["nll_change_error"], scipy.stats.sem(change), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(found["nll_intact"], np.mean(losses[0]), rtol=1e-5)
        np.testing.assert_allclose(found["nll_error"], scipy.stats.sem(losses[1]), rtol=1e-4)
        assert found["nll_change_count"] == COUNT
        assert found["lesion_unit"] == small.places[layer - 1].name


def assert_same(one: xr.DataTree, other: xr.DataTree) -> None:
    assert list(one.children) == list(other.children)
    for name, node in one.children.items():
        xr.testing.assert_allclose(node.to_dataset(), other[name].to_dataset(), rtol=1e-9, atol=1e-12)


def mixed_grid() -> StudyGrid:
    """Settings that share the module, settings with weights of their own, and a point with nothing to do."""
    settings = ((Lesion((2,)),), (WeightPrune(0.5),), None, (FrequencyNoise(0.5, 0.3, width=1.2), Lesion((1, 3))))
    return StudyGrid((Axis("keep", (1.0, 0.9, 0.8, 0.7), "any"),), settings)


@pytest.fixture(scope="module")
def mixed(small, digits) -> xr.DataTree:
    return study(small, digits, mixed_grid(), [Accuracy(), AttentionEntropy()], Plan(batch_size=1)).tree


def test_a_mixed_grid_equals_plain_passes(small, digits, mixed):
    for index, setting in enumerate(mixed_grid().settings):
        found = mixed["grid-attention-entropy"].to_dataset().isel(keep=index)
        if setting is None:
            assert found["entropy"].isnull().all()
            assert (found["entropy_count"] == 0).all()
            continue
        subject = studying.apply_setting(small, setting)
        alone = measure(subject, digits, [AttentionEntropy()], Plan(batch_size=1)).tree["attention-entropy"]
        layers = alone.to_dataset()["layer"].values
        np.testing.assert_allclose(found["entropy"].sel(layer=layers), alone["entropy"], rtol=1e-9)
        left_out = sorted({1, 3, 5} - set(layers.tolist()))
        assert found["entropy"].sel(layer=left_out).isnull().all()


def test_blocks_of_settings_give_the_same(small, digits, mixed, monkeypatch):
    monkeypatch.setattr(studying, "WALKS_PER_BLOCK", 1)
    again = study(small, digits, mixed_grid(), [Accuracy(), AttentionEntropy()], Plan(batch_size=1))
    assert_same(again.tree, mixed)


def test_two_worker_processes_give_the_same(small, digits, mixed):
    plan = Plan(batch_size=1, executor=Processes(2))
    assert_same(study(small, digits, mixed_grid(), [Accuracy(), AttentionEntropy()], plan).tree, mixed)


def test_branches_in_one_batch_give_the_same_and_are_no_more_than_allowed(small, digits, monkeypatch):
    grid = StudyGrid((Axis("lesion", (1, 2, 3, 4, 5, 6), "any"),), tuple((Lesion((layer,)),) for layer in range(1, 7)))
    found, sizes = {}, {}
    for most in (1, 4, 7, 64):
        seen = sizes.setdefault(most, [])
        handle = small.module.blocks[2].mlp.register_forward_hook(lambda _m, x, _o, seen=seen: seen.append(len(x[0])))
        monkeypatch.setattr(together, "IMAGES_TOGETHER_ON_CPU", most)
        found[most] = study(small, digits, grid, [Accuracy()], Plan(batch_size=2)).tree
        handle.remove()
    for most in (1, 4, 7):
        assert_same(found[most], found[64])
    # the last unit, of two images in each of three batches (after the test for randomness): 5 lesions and the trunk
    assert sizes[1][-18:] == [2] * 18
    assert max(sizes[4]) == 4
    assert max(sizes[7]) == 6
    assert sizes[64][-3:] == [12, 12, 12]


class Stopped(Exception):
    """An interrupt."""


def test_an_interrupted_study_goes_on_where_it_was(small, digits, mixed, tmp_path, monkeypatch):
    monkeypatch.setattr(studying, "WALKS_PER_BLOCK", 1)
    diagnostics, folded = [Accuracy(), AttentionEntropy()], []
    fold = studying.StudyWork.fold

    def counted(work, shard, advance):
        folded.append(shard)
        return fold(work, shard, advance)

    def stop(done: int, total: int) -> None:
        if done > total // 2:
            raise Stopped

    monkeypatch.setattr(studying.StudyWork, "fold", counted)
    plan = Plan(batch_size=1, folder=RunFolder(str(tmp_path)), progress=stop)
    with pytest.raises(Stopped):
        study(small, digits, mixed_grid(), diagnostics, plan)
    started, shards = len(folded), 3 * 2
    assert 1 < started < shards
    ends: list[tuple[int, int]] = []
    plan = replace(plan, resume=True, progress=lambda done, total: ends.append((done, total)))
    again = study(small, digits, mixed_grid(), diagnostics, plan)
    assert_same(again.tree, mixed)
    assert len(folded) == shards + 1  # the one that was interrupted is done again
    assert ends[0][0] > 0
    assert ends[-1][0] == ends[-1][1]


def heavy_grid(count: int = 4) -> StudyGrid:
    """Settings with weights of their own, but for one."""
    shares = [number / 10 for number in range(1, count + 1)]
    settings = (*((WeightPrune(share),) for share in shares), (Lesion((2,)),))
    return StudyGrid((Axis("keep", tuple(range(count + 1)), "any"),), settings)


@pytest.fixture
def makings(monkeypatch):
    """The shares of the prunings that are carried out."""
    seen: list[float] = []
    prune = WeightPrune.__call__
    monkeypatch.setattr(WeightPrune, "__call__", lambda own, subject: seen.append(own.sparsity) or prune(own, subject))
    return seen


def test_each_subject_is_made_once_and_each_image_read_once_for_all_of_them(small, digits, makings):
    """Six images in batches of one are two shards; every subject was once made for each of them, and once more."""
    read = []
    transform = small.preprocessing.transform

    class Reading:
        def __call__(self, picture):
            read.append(picture)
            return transform(picture)

    subject = replace(small, preprocessing=replace(small.preprocessing, transform=Reading()))
    whole = study(subject, digits, heavy_grid(), [Accuracy()], Plan(batch_size=1))
    assert sorted(makings) == [0.1, 0.2, 0.3, 0.4]
    looked_at = 2 + 2  # the first two images are looked at beforehand; each batch reads one ahead at most
    assert len(read) <= 2 * COUNT + looked_at  # once for the settings that walk together, once for all others
    for index in range(4):
        alone = measure(WeightPrune((index + 1) / 10)(small), digits, [Accuracy()], Plan(batch_size=1))
        found = whole.tree["grid-accuracy"].to_dataset().isel(keep=index)
        assert float(found["nll"]) == float(alone["accuracy/nll"]), "bit for bit"


def test_a_stretch_of_images_that_is_kept_is_as_long_as_memory_allows(small, digits, makings, monkeypatch):
    whole = study(small, digits, heavy_grid(), [Accuracy()], Plan(batch_size=1))
    makings.clear()
    monkeypatch.setattr(studying, "HELD", 4 * 4 * 64)  # the pixels of one shard: four images of 8 x 8
    again = study(small, digits, heavy_grid(), [Accuracy()], Plan(batch_size=1))
    assert sorted(makings) == sorted([0.1, 0.2, 0.3, 0.4] * 2)
    xr.testing.assert_identical(again.tree["grid-accuracy"].to_dataset(), whole.tree["grid-accuracy"].to_dataset())


def test_a_piece_that_was_cut_in_another_way_is_done_again(small, digits, tmp_path):
    """Several settings with weights of their own were one block before; their piece has the name of another now."""
    plan = Plan(batch_size=6, folder=RunFolder(str(tmp_path)), resume=True)
    question = resolve_study(small, digits, heavy_grid(), [Accuracy()], plan)
    work = question.work(6)
    results = {shard: work.fold(shard, lambda _: None) for shard in work.shards()}
    lights = next(shard for shard in results if shard.block == 4)
    one, other = (work.read(results[lights].to_bytes()) for _ in range(2))
    merged = replace(one, states=one.states + other.states, silent=one.silent + other.silent)
    for shard in results:
        assert plan.store is not None
        plan.store.write_part(question.spec, f"batch-6-{shard.name}", merged.to_bytes())
    assert question.kept_amount(plan) == 0
    run = study(small, digits, heavy_grid(), [Accuracy()], plan)
    assert_same(run.tree, study(small, digits, heavy_grid(), [Accuracy()], Plan(batch_size=6)).tree)


def test_every_shape_at_every_unit_is_a_grid_of_two_axes(small, digits):
    whole = study(small, digits, AttentionShapeStudy(sizes="3"), plan=Plan(batch_size=6))
    each = study(small, digits, AttentionShapeStudy(sizes="3", at="each"), plan=Plan(batch_size=6))
    assert whole["attention-shape-accuracy/nll"].dims == ("shape",)
    assert each["attention-shape-accuracy/nll"].dims == ("shape", "lesion")
    assert whole["attention-shape-accuracy/nll"]["shape"].values.tolist() == ["uniform", "diagonal", "3 x 3"]
    assert each["attention-shape-accuracy/nll"]["lesion"].values.tolist() == [1, 3, 5]


@pytest.mark.parametrize("mode", ["identity", "mean"])
@pytest.mark.parametrize("of", ["block", "head"])
def test_blocks_and_heads_are_left_out_one_at_a_time(small, digits, of, mode):
    run = study(small, digits, LesionStudy(of=of, mode=mode), plan=Plan(batch_size=6))
    nll = run["lesion-accuracy/nll"]
    if of == "block":
        assert nll["lesion"].values.tolist() == [1, 3, 5]
        assert nll["lesion_unit"].values.tolist()[0] == "blocks.0.attn, blocks.0.mlp"
    else:
        assert nll.shape == (3, 2)
    assert len(set(nll.values.flatten().tolist())) == nll.size
