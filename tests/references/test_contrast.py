"""Contrasts: changes of subjects on the same images are those of the images' own numbers, and so are their errors."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
import torch
import xarray as xr
from torch import nn

import vitscope
from vitscope import Plan, UserError, contrast, images, load, measure
from vitscope.diagnostics import default_diagnostics
from vitscope.diagnostics.accuracy import Accuracy
from vitscope.diagnostics.calibration import Calibration
from vitscope.engine.contrasting import ContrastResult, ContrastWork
from vitscope.engine.reading import jackknife as jackknife_module
from vitscope.engine.reading.activation import Predictions
from vitscope.engine.reading.diagnostic import Scene
from vitscope.engine.reading.jackknife import empty_groups, jackknife, update_groups
from vitscope.engine.study import study
from vitscope.engine.work.executor import Processes
from vitscope.interventions.lesion import Lesion
from vitscope.interventions.studies.weight_prune import WeightPruneStudy
from vitscope.interventions.weight_prune import WeightPrune
from vitscope.measurement.estimate import Estimate
from vitscope.models.own.vit import Vit, VitConfig
from vitscope.models.subject import Unwatched
from vitscope.report.pairing import pair
from vitscope.report.side import sides

COUNT = 30
ALL = ("accuracy", "calibration", "attention-distance", "token-rank", "fourier-spectrum")


def vit(seed, depth=2, **settings):
    torch.manual_seed(seed)
    return Vit(VitConfig(**{"image": 8, "channels": 1, "patch": 2, "dim": 16, "depth": depth, "heads": 2, **settings}))


@pytest.fixture(scope="module")
def digits():
    return images("digits", split="test", limit=COUNT)


@pytest.fixture(scope="module")
def pretrained():
    return load("digits")


@pytest.fixture(scope="module")
def pruned(pretrained):
    return replace(WeightPrune(0.75)(pretrained), name="pruned")


@pytest.fixture(scope="module")
def whole(pretrained, pruned, digits):
    return contrast(pretrained, pruned, digits, ALL, Plan(batch_size=4))


def logits_of(subject, pictures):
    (batch,) = pictures.batches(subject.preprocessing.transform, len(pictures))
    with torch.inference_mode():
        return subject.anatomy.walk(batch.pixels, Unwatched()).double().numpy(), batch.labels.numpy()


def losses_of(subject, pictures):
    logits, labels = logits_of(subject, pictures)
    return -np.log([row[label] for row, label in zip(scipy.special.softmax(logits, 1), labels, strict=True)])


def test_values_are_those_of_each_subject_alone(whole, pretrained, pruned, digits):
    assert list(whole) == list(ALL)
    for place, subject in enumerate((pretrained, pruned)):
        alone = measure(subject, digits, ALL, Plan(batch_size=4))
        for name in ALL:
            found, own = (run.tree[name].to_dataset() for run in (whole, alone))
            for quantity, values in own.data_vars.items():
                np.testing.assert_array_equal(found[quantity].isel(subject=place).values, values.values, str(quantity))
            assert found.attrs["definition"] == own.attrs["definition"]


def test_changes_and_their_errors_are_of_the_images_own_differences(whole, pretrained, pruned, digits):
    apart = losses_of(pruned, digits) - losses_of(pretrained, digits)
    found = whole.tree["accuracy"].to_dataset().isel(subject=1)
    np.testing.assert_allclose(found["nll_change"], apart.mean(), rtol=1e-5)
    np.testing.assert_allclose(found["nll_change_error"], scipy.stats.sem(apart), rtol=1e-5)
    low, high = scipy.stats.t.interval(0.95, COUNT - 1, apart.mean(), scipy.stats.sem(apart))
    np.testing.assert_allclose([found["nll_change_low"], found["nll_change_high"]], [low, high], rtol=1e-5)
    assert found["nll_change_error"] < np.hypot(*whole["accuracy/nll_error"].values)
    right = [(np.argmax(one, 1) == labels) for one, labels in (logits_of(s, digits) for s in (pretrained, pruned))]
    gained, lost = (right[1] & ~right[0]).sum(), (right[0] & ~right[1]).sum()
    assert (found["top1_change_gained"], found["top1_change_lost"]) == (gained, lost)
    assert lost > 3
    p = scipy.stats.binomtest(int(gained), int(gained + lost)).pvalue
    np.testing.assert_allclose(found["top1_change_p"], p)
    first = whole.tree["accuracy"].to_dataset().isel(subject=0)
    assert math.isnan(first["nll_change"])
    assert first["nll_change_count"] == 0


def test_changes_after_units_are_those_of_a_study(whole, pretrained, digits):
    """A study of one setting finds the same changes in another way; across a unit the contrast has them too."""
    run = study(pretrained, digits, WeightPruneStudy(sparsity="0.75"), ["attention-distance", "token-rank"])
    for name, quantity in (("attention-distance", "distance_change"), ("token-rank", "rank_change")):
        found = whole.tree[name].to_dataset().isel(subject=1)
        own = run.tree[f"weight-prune-{name}"].to_dataset().isel(sparsity=0)
        for end in ("", "_error", "_count"):
            np.testing.assert_allclose(found[f"{quantity}{end}"], own[f"{quantity}{end}"], rtol=2e-4, atol=1e-5)
    spectrum = whole.tree["fourier-spectrum"].to_dataset()
    apart = spectrum["sharpening"].isel(subject=1) - spectrum["sharpening"].isel(subject=0)
    np.testing.assert_allclose(spectrum["sharpening_change"].isel(subject=1), apart, rtol=1e-9, atol=1e-9)


class InDouble:
    """A subject's own transform, in float64, in which kernels round alike wherever their numbers lie in memory."""

    def __init__(self, subject):
        self.transform = subject.preprocessing.transform

    def __call__(self, picture):
        return self.transform(picture).double()


def doubled(subject):
    own = load(copy.deepcopy(subject.module).double(), name=subject.name)
    return replace(own, preprocessing=replace(own.preprocessing, transform=InDouble(subject)))


def test_runs_of_single_subjects_compared_give_the_same(pretrained, pruned, digits):
    """What ``vitscope compare`` says of two runs, from the scores that they keep."""
    subjects = doubled(pretrained), doubled(pruned)
    whole = contrast(*subjects, digits, ["accuracy", "calibration"])
    runs = [measure(subject, digits, ["accuracy", "calibration"]) for subject in subjects]
    (paired,) = pair(sides(runs)).found
    top1 = whole.tree["accuracy"].to_dataset().isel(subject=1)
    assert (paired.right.gained, paired.right.lost) == (top1["top1_change_gained"], top1["top1_change_lost"])
    low, high = paired.right.interval(0.05)
    found = [float(top1[f"top1_change{end}"]) for end in ("", "_low", "_high", "_p")]
    assert [paired.right.mean, low, high, paired.right.p_value] == pytest.approx(found, rel=1e-12)
    for address, change in paired.changes.items():
        group, _, quantity = address.partition("/")
        own = whole.tree[group].to_dataset().isel(subject=1)
        assert change.mean == pytest.approx(float(own[f"{quantity}_change"]), rel=1e-12)
        assert change.error == pytest.approx(float(own[f"{quantity}_change_error"]), rel=1e-12)
        assert change.count == own[f"{quantity}_change_count"]


def test_the_scores_of_every_image_are_kept_for_every_subject(whole, pretrained, pruned, digits):
    scores = whole.tree["predictions"].to_dataset()
    assert scores["predicted"].dims == ("subject", "image")
    for place, subject in enumerate((pretrained, pruned)):
        own = measure(subject, digits, ALL, Plan(batch_size=4)).tree["predictions"].to_dataset()
        xr.testing.assert_equal(scores.isel(subject=place).drop_vars("subject"), own)


def assert_same(one: xr.DataTree, other: xr.DataTree) -> None:
    assert list(one.children) == list(other.children)
    for name, node in one.children.items():
        xr.testing.assert_allclose(node.to_dataset(), other[name].to_dataset(), rtol=1e-9, atol=1e-12)


def test_neither_batches_nor_worker_processes_matter(whole, pretrained, pruned, digits):
    plan = Plan(batch_size=3, executor=Processes(2))
    again = contrast(pretrained, pruned, digits, ALL, plan)
    for name in ALL:
        for quantity, values in whole.tree[name].to_dataset().data_vars.items():
            found = again.tree[name].to_dataset()[quantity]
            np.testing.assert_allclose(found, values, rtol=2e-4, atol=2e-5, err_msg=f"{name}/{quantity}")
    assert again.spec.address == whole.spec.address


class Stopped(Exception):
    """An interrupt."""


def test_an_interrupted_contrast_goes_on_where_it_was(whole, pretrained, pruned, digits, tmp_path, monkeypatch):
    folded = []
    fold = ContrastWork.fold
    monkeypatch.setattr(
        ContrastWork, "fold", lambda work, shard, advance: folded.append(shard) or fold(work, shard, advance)
    )

    def stop(done, total):
        if done > 0.6 * total:
            raise Stopped

    plan = Plan(batch_size=4, folder=tmp_path, progress=stop)
    with pytest.raises(Stopped):
        contrast(pretrained, pruned, digits, ALL, plan)
    ends = []
    plan = replace(plan, resume=True, progress=lambda done, total: ends.append((done, total)))
    again = contrast(pretrained, pruned, digits, ALL, plan)
    assert_same(again.tree, whole.tree)
    assert len(folded) == 2 + 1
    assert ends[0][0] > 0
    assert ends[-1] == (2 * COUNT, 2 * COUNT)
    assert [path.name for path in tmp_path.iterdir() if path.name == "partial"] == []
    assert_same(contrast(pretrained, pruned, digits, ALL, Plan(folder=tmp_path)).tree, whole.tree)
    assert len(folded) == 3, "the run that is there is the answer"


def test_a_result_survives_being_written_and_read(pretrained, pruned, digits):
    work = ContrastWork(pretrained, digits, (pruned,), (digits,), (Accuracy(), Calibration()), 4)
    result = work.fold(work.shards()[0], lambda _: None)
    again = ContrastResult.from_bytes(result.to_bytes())
    assert again.to_bytes() == result.to_bytes()
    assert (again.images, len(again.values), len(again.groups[1].states)) == (16, 2, COUNT)


def test_subjects_of_another_size_and_depth_compare_by_their_predictions(digits):
    one, other = load(vit(0), name="one"), load(vit(1, depth=3, image=12, patch=3), name="other")
    again = load(vit(2), name="again")
    run = contrast(one, [other, again], digits, ALL)
    assert run["accuracy/nll_change"].isel(subject=1).notnull()
    assert run["token-rank"].sel(subject="other").isnull().all()
    assert run["token-rank/rank_change"].sel(subject="again").notnull().all()
    assert any("without other, whose units differ" in note for note in run.notes)
    alone = contrast(one, other, digits, ALL)
    assert list(alone) == ["accuracy", "calibration"]
    assert alone.skipped["token-rank"] == "it is measured after each unit, and the units of one and other differ"
    assert alone.anatomy == ()
    apart = losses_of(other, digits) - losses_of(one, digits)
    np.testing.assert_allclose(alone["accuracy/nll_change"][1], apart.mean(), rtol=1e-4, atol=1e-6)


def test_a_class_has_its_number_in_each_model(digits):
    """A model with the classes in another order is right on the same images, and nothing changes."""
    module, turned = vit(0), vit(0)
    with torch.no_grad():
        turned.head.weight.copy_(module.head.weight.flip(0))
        turned.head.bias.copy_(module.head.bias.flip(0))
    names = [str(number) for number in range(10)]
    shown = images((np.stack([np.asarray(one) for one in digits]), digits.labels), label_map=None)
    shown = replace(shown, annotation=replace(shown.annotation, classes=tuple(names)))
    one = replace(load(module, name="one"), classes=tuple(names))
    other = replace(load(turned, name="other"), classes=tuple(names[::-1]))
    run = contrast(one, other, shown, ["accuracy"])
    assert run["accuracy/nll_change"][1] == pytest.approx(0, abs=1e-6)
    assert run["accuracy/top1_change_p"][1] == 1


def test_subjects_need_names_of_their_own(pretrained, pruned, digits):
    lesioned = Lesion((1,))(pretrained)
    run = contrast(pretrained, [lesioned, pruned, pruned], digits, ["accuracy"])
    names = run["accuracy"]["subject"].values.tolist()
    assert names[0] == "digits"
    assert names[1].startswith("digits, ")
    assert names[2:] == ["pruned (1)", "pruned (2)"]
    given = contrast(pretrained, pruned, digits, ["accuracy"], labels=["x", "y"])
    assert given["accuracy"]["subject"].values.tolist() == ["x", "y"]
    for labels in (["x"], ["x", "x"], "xy"):
        with pytest.raises(UserError, match="give each model its own label"):
            contrast(pretrained, pruned, digits, ["accuracy"], labels=labels)
    with pytest.raises(UserError, match="only one was given"):
        contrast(pretrained, [], digits, ["accuracy"])
    with pytest.raises(UserError, match="No diagnostic was given"):
        contrast(pretrained, pruned, digits, [])


def test_without_labels_there_are_no_predictions_to_compare(pretrained, pruned, digits):
    run = contrast(pretrained, pruned, replace(digits, annotation=None), ["accuracy", "token-rank"])
    assert list(run) == ["token-rank"]
    assert run.skipped == {"accuracy": "the images have no labels"}
    assert "predictions" not in run.tree.children


@pytest.mark.parametrize("diagnostic", default_diagnostics(), ids=lambda one: one.name)
def test_quantities_are_linear_unless_they_are_said_not_to_be(diagnostic, pretrained, pruned, digits):
    """What the mean of a quantity's differences is not the difference of, says so; and nothing else does."""
    work = ContrastWork(pretrained, digits, (pruned,), (digits,), (diagnostic,), 16)
    result = work.fold(work.shards()[0], lambda _: None)
    scene = Scene(pretrained.places)
    before, after = (diagnostic.finish(one.states[0], scene) for one in result.values)
    changes = diagnostic.finish(result.changes[1].states[0], scene)
    for name in (name for name in before if f"{name}_error" in before):
        whole = ((before[f"{name}_count"] == COUNT) & (after[f"{name}_count"] == COUNT)).values
        apart = (after[name] - before[name]).values
        same = np.allclose(changes[name].values, apart, rtol=1e-6, atol=1e-6, equal_nan=True)
        assert same == (name not in diagnostic.nonlinear), name
        assert whole.all() or name in diagnostic.nonlinear or np.isnan(apart[~whole]).all(), name


def test_a_study_tells_no_change_of_what_is_no_mean(pretrained, digits):
    run = study(pretrained, digits, WeightPruneStudy(sparsity="0.5"), [Calibration()])
    found = run.tree["weight-prune-calibration"].to_dataset()
    assert {"ece", "ece_intact", "overconfidence_change", "bin_share_change"} <= set(found)
    assert not {"ece_change", "bin_accuracy_change", "bin_confidence_change"} & set(found)


def predictions(seed: int, count: int) -> Predictions:
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(count, 5, generator=generator, dtype=torch.float64)
    return Predictions(logits, torch.randint(5, (count,), generator=generator))


def grouped(diagnostic, said: Predictions, count: int):
    seen = {(0, name): values for name, values in diagnostic.observe(said).items()}
    return update_groups(empty_groups(count), seen, torch.arange(count), count)


class Means(Accuracy):
    """Accuracy, whose loss is called nonlinear, so that the jackknife's error has a known answer."""

    nonlinear = frozenset({"nll"})


def test_the_jackknife_of_a_mean_over_single_images_is_its_standard_error(monkeypatch):
    monkeypatch.setattr(jackknife_module, "GROUPS", 200)
    before, after = predictions(0, 60), predictions(1, 60)
    errors, count = jackknife(Means(), grouped(Means(), before, 60), grouped(Means(), after, 60), Scene(()))
    assert count == 60
    assert list(errors) == ["nll"]
    assert float(errors["nll"]) == pytest.approx(scipy.stats.sem((after.loss - before.loss).numpy()), rel=1e-9)


def test_the_change_of_the_calibration_error_has_the_error_of_its_delta_method():
    """At the signs of the bins' gaps the calibration error is a mean over images; its changes' error is known."""
    count, ratios = 4000, []
    for seed in range(6):
        shared, parts, groups = predictions(seed, count), [], []
        for scale in (1.0, 1.3):
            said = Predictions(shared.logits * scale, shared.labels)
            gap = Calibration().observe(said)["gap"]
            parts.append((gap * gap.mean(0).sign()).sum(1).numpy())
            groups.append(grouped(Calibration(), said, count))
        errors, groups_seen = jackknife(Calibration(), *groups, Scene(()))
        assert groups_seen == jackknife_module.GROUPS
        ratios.append(float(errors["ece"]) / scipy.stats.sem(parts[1] - parts[0]))
    assert np.sqrt(np.mean(np.square(ratios))) == pytest.approx(1, abs=0.15)  # six errors of 49 degrees of freedom


def test_the_calibrations_change_stands_beside_its_values(whole):
    found = whole.tree["calibration"].to_dataset()
    apart = found["ece"].values[1] - found["ece"].values[0]
    assert found["ece_change"].values[1] == pytest.approx(apart, rel=1e-12)
    change = Estimate(apart, float(found["ece_change_error"][1]), COUNT)
    ends = [float(found[f"ece_change_{end}"][1]) for end in ("low", "high")]
    assert ends == pytest.approx(change.interval(0.05), rel=1e-12)
    assert "jackknife" in found["ece_change_error"].attrs["long_name"]


def test_changes_are_lines_of_the_table_with_their_intervals(whole):
    table = whole.to_dataframe("accuracy/top1_change")
    assert table.columns.tolist() == [
        *("diagnostic", "quantity", "subject", "value", "error", "count", "low", "high", "gained", "lost", "p", "units")
    ]
    assert table["subject"].tolist() == ["pruned"]
    everything = whole.to_dataframe()
    assert not [name for name in everything["quantity"] if name.endswith(("_low", "_gained", "_p"))]
    assert "low" not in measure(load("digits"), images("digits", split="test", limit=4), "accuracy").to_dataframe()


def test_it_is_a_name_of_the_package_and_random_models_are_refused(pretrained, digits):
    assert vitscope.contrast is contrast

    class Dropping(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.Sequential(nn.Identity())
            self.head = nn.Linear(64, 10)

        def forward(self, x):
            return nn.functional.dropout(self.head(self.blocks(x).flatten(1)), 0.5, training=True)

    other = load(Dropping(), input=vitscope.PixelInput(8, 1, (0.5,), (0.5,)), units=["blocks.0"])
    with pytest.raises(UserError):
        contrast(pretrained, other, digits, ["accuracy"])
