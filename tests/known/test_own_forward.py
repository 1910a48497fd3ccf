"""A model is walked through by its family's adapter only if that is its own forward pass."""

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torch.nn.utils import parametrize

from vitscope import PixelInput, images, load, measure, study
from vitscope.diagnostics.accuracy import Accuracy
from vitscope.diagnostics.feature_variance import FeatureVariance
from vitscope.diagnostics.hessian_trace import HessianTrace
from vitscope.engine.reading.failure import report_failures
from vitscope.engine.reading.finite import wanting_weights
from vitscope.engine.reading.operations import count_operations
from vitscope.findings.checkup import checkup
from vitscope.interventions.lesion import Lesion, mean_branches
from vitscope.measurement.errors import UserError
from vitscope.models.subject import Composition, Unwatched

INPUT = PixelInput(32, 3, (0.5,), (0.5,))
SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3, "num_classes": 4}


def vit():
    torch.manual_seed(0)
    return timm.create_model("vit_tiny_patch16_224", **SMALL).eval()


def pictures(count=4):
    rng = np.random.default_rng(0)
    shown = [Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)) for _ in range(count)]
    return images((shown, np.arange(count) % 4))


def noise():
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(7))


def same(subject, module):
    with torch.inference_mode():
        torch.testing.assert_close(subject.anatomy.walk(noise(), Unwatched()), module(noise()), rtol=1e-4, atol=1e-5)


class Colder(VisionTransformer):
    def forward(self, x):
        return super().forward(x) / 3


def colder_in_itself(module):
    own = module.forward
    module.forward = lambda x: own(x) / 3


def late(module):
    """A hook that does nothing until its third call."""
    calls = []

    def hook(_, given, out):
        calls.append(1)
        return out * 0 if len(calls) > 40 else None

    module.blocks[1].attn.register_forward_hook(hook)


CHANGES = {
    "hook on attention": lambda m: m.blocks[0].attn.register_forward_hook(lambda _, given, out: out * 0),
    "hook on a block": lambda m: m.blocks[1].register_forward_hook(lambda _, given, out: out + 1),
    "hook on the model": lambda m: m.register_forward_hook(lambda _, given, out: out / 3),
    "pre-hook on attention": lambda m: m.blocks[0].attn.register_forward_pre_hook(lambda _, given: (given[0] * 2,)),
    "replaced forward": colder_in_itself,
    "replaced forward of a block": lambda m: setattr(m.blocks[0], "forward", lambda x, **_: x),
    "late hook": late,
    "logger": lambda m: m.blocks[0].register_forward_hook(lambda *_: None),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_a_walk_would_pass_by_is_read_by_the_models_own_forward_pass(change):
    module = vit()
    change(module)
    subject = load(module, input=INPUT)
    assert not isinstance(subject.anatomy, Composition)
    assert "forward" in subject.notes[0]
    same(subject, module)
    assert any("forward" in note for note in measure(subject, pictures(), [Accuracy()]).notes)


def test_a_subclass_with_another_forward_is_read_by_it():
    torch.manual_seed(0)
    module = Colder(**SMALL).eval()
    subject = load(module, input=INPUT)
    same(subject, module)
    assert "gives other outputs" in subject.notes[0]


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.blocks[0].mlp.fc1.register_forward_hook(lambda _, given, out: out * 0),
        lambda m: parametrize.register_parametrization(m.blocks[0].attn.qkv, "weight", nn.Tanh()),
        lambda m: m.head.register_forward_hook(lambda *_: None),
    ],
    ids=["hook on a layer", "parametrization", "hook on the head"],
)
def test_what_the_walk_runs_as_well_is_no_hindrance(change):
    module = vit()
    change(module)
    subject = load(module, input=INPUT)
    assert isinstance(subject.anatomy, Composition)
    same(subject, module)


def test_a_model_that_was_changed_after_loading_is_refused_by_name():
    module = vit()
    subject = load(module, input=INPUT)
    module.blocks[0].attn.register_forward_hook(lambda _, given, out: out * 0)
    with pytest.raises(UserError, match=r"forward hooks on blocks\.0\.attn"):
        measure(subject, pictures(), [Accuracy()])


class InPlace(nn.Module):
    def __init__(self, in_place):
        super().__init__()
        self.conv, self.in_place = nn.Conv2d(8, 8, 3, padding=1), in_place

    def forward(self, x):
        y = self.conv(x)
        if self.in_place:
            x += y
            return x
        return x + y


class Normalising(nn.Module):
    """Normalises what it is given, in place or not."""

    def __init__(self, in_place):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.in_place = nn.Conv2d(3, 8, 4, 4), in_place
        self.blocks = nn.Sequential(InPlace(in_place), InPlace(in_place))
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        mean = x.mean((1, 2, 3), keepdim=True)
        x = x.sub_(mean).mul_(2) if self.in_place else (x - mean) * 2
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


def test_work_in_place_spoils_no_layer_and_no_image():
    runs, walked = [], noise()
    for in_place in (True, False):
        subject = load(Normalising(in_place), input=INPUT)
        with torch.inference_mode():
            subject.anatomy.walk(walked, Unwatched())
        runs.append(measure(subject, pictures(), [FeatureVariance(), Accuracy()]))
    assert torch.equal(walked, noise())
    for name in ("feature-variance/variance", "feature-variance/log_change", "accuracy/nll"):
        np.testing.assert_allclose(runs[0][name].values, runs[1][name].values, rtol=1e-5)


def test_a_block_in_place_is_left_out_as_any_other():
    found = []
    for in_place in (True, False):
        subject = load(Normalising(in_place), input=INPUT)
        lesions = (Lesion((1,)), mean_branches(subject, pictures(), [1]))
        with torch.inference_mode():
            found.append([lesion(subject).anatomy.walk(noise(), Unwatched()) for lesion in lesions])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_a_model_that_writes_into_its_weights_is_told_so():
    class Growing(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3, 4)
            self.register_buffer("seen", torch.zeros(()))

        def forward(self, x):
            self.seen += 1
            return self.fc(x.mean((2, 3))) * self.seen

    module = Growing()
    with pytest.raises(UserError, match="writes into seen in its forward pass"):
        measure(load(module, input=INPUT), pictures(), [Accuracy()])


class Remembering(nn.Module):
    """Keeps a running mean in a buffer, a count, and what it made of its weights, and returns the same all the same."""

    def __init__(self, in_place):
        super().__init__()
        self.stem, self.in_place, self.scale = nn.Conv2d(3, 8, 8, 8), in_place, None
        self.blocks = nn.Sequential(InPlace(False), InPlace(False))
        self.head = nn.Linear(8, 4)
        self.register_buffer("seen", torch.zeros(3))

    def forward(self, x):
        mean = x.mean((0, 2, 3))
        self.seen = self.seen.copy_(mean) if self.in_place else 0.9 * self.seen + 0.1 * mean
        if self.scale is None:
            self.scale = torch.arange(8.0).view(1, 8, 1, 1)
        return self.head((self.blocks(self.stem(x)) * self.scale).mean((2, 3)))


@pytest.mark.parametrize("in_place", [True, False])
def test_buffers_are_as_before_and_the_module_can_be_trained_after(in_place):
    module = Remembering(in_place)
    seen = module.seen
    measure(load(module, input=INPUT), pictures(), [Accuracy(), FeatureVariance()])
    assert module.seen is seen
    assert torch.equal(seen, torch.zeros(3))
    module.train()(noise()).sum().backward()
    assert module.stem.weight.grad is not None


def test_a_buffer_that_is_replaced_and_used_is_named_and_put_back():
    class Drifting(Remembering):
        def forward(self, x):
            return super().forward(x) + self.seen.sum()

    module = Drifting(False).eval()
    seen = module.seen
    with pytest.raises(UserError, match="writes into seen in its forward pass"):
        measure(load(module, input=INPUT), pictures(), [Accuracy()])
    assert module.seen is seen
    assert torch.equal(seen, torch.zeros(3))


def test_probabilities_are_not_taken_for_logits():
    for last in (nn.Softmax(1), nn.Sequential(nn.Softmax(1), nn.Hardtanh(0, 1))):
        with pytest.raises(UserError, match="returns probabilities"):
            load(nn.Sequential(nn.Conv2d(3, 4, 32), nn.Flatten(), last), input=INPUT)
    for last in (nn.LogSoftmax(1), nn.Sigmoid(), nn.Identity()):
        assert load(nn.Sequential(nn.Conv2d(3, 4, 32), nn.Flatten(), last), input=INPUT).class_count == 4
    half = nn.Sequential(nn.Conv2d(3, 1000, 32), nn.Flatten(), nn.Softmax(1)).to(torch.bfloat16)
    with pytest.raises(UserError, match="log_softmax"):
        load(half, input=INPUT)


@pytest.mark.parametrize("ask", [measure, study], ids=["measure", "study"])
def test_one_output_is_not_compared_with_labels(ask):
    subject = load(nn.Sequential(nn.Conv2d(3, 1, 32), nn.Flatten()), input=INPUT)
    with pytest.raises(UserError, match=r"torch\.stack\(\[0 \* z, z\], 1\)"):
        ask(subject, pictures(), "accuracy" if ask is measure else "weight-prune")
    assert len(measure(subject, images([pictures()[0]]), ["feature-variance"]).notes) == 0


class Choosing(nn.Module):
    """Two classifiers, one for pictures above a threshold and one for the others; ``bright`` sees the former."""

    def __init__(self, threshold, bright=lambda logits: logits):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.threshold, self.bright = nn.Conv2d(3, 8, 8, 8), threshold, bright
        self.blocks = nn.Sequential(InPlace(False), InPlace(False))
        self.head, self.other = nn.Linear(8, 4), nn.Linear(8, 4)

    def forward(self, x):
        features = self.blocks(self.stem(x)).mean((2, 3))
        bright = (x.mean((1, 2, 3)) > self.threshold)[:, None]
        other = self.other(features)
        return torch.where(bright, self.bright(other) if bright.any() else other, self.head(features))


def grey(*levels):
    """A picture of one level each, from 0 to 255."""
    return images(([Image.new("RGB", (32, 32), (level,) * 3) for level in levels], np.arange(len(levels)) % 4))


def test_statistics_that_are_not_finite_are_counted_among_the_weights():
    module = nn.Sequential(nn.Conv2d(3, 4, 32), nn.BatchNorm2d(4), nn.Flatten())
    module[1].running_var[1] = torch.nan
    module.register_buffer("mask", torch.full((3, 3), -torch.inf).triu(1))
    module.register_buffer("cache", torch.full((3,), torch.nan), persistent=False)
    assert wanting_weights(module) == ("1 of 4 numbers in 1.running_var",)


def test_a_weight_that_only_some_images_reach_does_not_condemn_the_others():
    module = Choosing(0.5)
    with torch.no_grad():
        module.other.weight[0, 0] = torch.nan
    run = measure(load(module, input=INPUT), grey(255, 255, 255, 0, 10, 20, 30, 40), [Accuracy()])
    assert any("1 of 32 numbers in other.weight" in note for note in run.notes)
    with pytest.raises(UserError, match="none of the 3 images tried has finite logits"):
        measure(load(module, input=INPUT), grey(255, 250, 245), [Accuracy()])


def test_what_is_random_is_found_behind_broken_pictures(tmp_path):
    for number, picture in enumerate(pictures(3)):
        picture.save(tmp_path / f"{number}.png")
    for name in ("-a.png", "-b.png", "-c.png"):
        (tmp_path / name).write_bytes(b"no picture")
    shown = images(str(tmp_path), max_broken=3)
    subject = load(Choosing(-9.0, lambda logits: nn.functional.dropout(logits, 0.5)), input=INPUT)
    with pytest.raises(UserError, match="different logits for the same images twice"):
        measure(subject, shown, [FeatureVariance()])


def fails(logits):
    raise ValueError("too bright to look at")


@pytest.mark.parametrize(
    "ask",
    [
        lambda s, i: measure(s, i, [Accuracy()]),
        lambda s, i: measure(s, i, [HessianTrace(vectors=1, batch=4, batches=1)]),
        lambda s, i: study(s, i, "lesion"),
        lambda s, i: mean_branches(s, i, [1]),
    ],
    ids=["measure", "curvature", "study", "means"],
)
def test_pictures_that_a_module_breaks_off_at_are_named(ask):
    subject = load(Choosing(0.9, fails), input=INPUT)
    with pytest.raises(UserError, match=r"does not run on \S+ \(too bright to look at\)"):
        ask(subject, grey(0, 30, 255, 60))


def test_what_a_module_raises_at_noise_is_told_as_well():
    module = Choosing(9.0, fails)
    subject = load(module, input=INPUT)
    module.threshold = -0.5
    for ask in (lambda: measure(subject, grey(0), [Accuracy()]), lambda: Lesion((1,))(subject)):
        with pytest.raises(UserError, match=r"pictures of 3 x 32 x 32 \(too bright to look at\)"):
            ask()


def test_the_fault_of_who_watches_is_not_the_models():
    subject, shown = load(Choosing(9.0), input=INPUT), grey(0, 30)
    (batch,) = shown.batches(subject.preprocessing.transform, 2)
    with pytest.raises(ZeroDivisionError), report_failures(subject, shown, batch):
        raise ZeroDivisionError


def test_images_without_a_finite_loss_are_left_out_of_the_curvature():
    trace = HessianTrace(vectors=1, batch=4, batches=1)
    dark = grey(0, 30, 60)
    mixed = images(([*dark, Image.new("RGB", (32, 32), "white")], np.arange(4)))
    found = measure(load(Choosing(0.9, lambda logits: logits * torch.nan), input=INPUT), mixed, [trace])
    expected = measure(load(Choosing(0.9), input=INPUT), dark, [trace])
    np.testing.assert_allclose(found["hessian-trace/trace"].values, expected["hessian-trace/trace"].values, rtol=0.05)
    assert any("left out of the curvature" in note for note in found.notes)
    none = measure(
        load(Choosing(-9.0, lambda logits: logits * torch.nan), input=INPUT), dark, [trace, FeatureVariance()]
    )
    assert none.skipped["hessian-trace"] == "the loss is not finite for any of 3 images"


def test_a_loss_without_a_second_derivative_is_refused_by_the_weights_name():
    rooted = Choosing(-9.0, lambda logits: logits + torch.sqrt(0 * logits))
    with pytest.raises(UserError, match=r"Hessian of the loss with respect to stem\.weight is not finite"):
        measure(load(rooted, input=INPUT), grey(0, 30), [HessianTrace(vectors=1, batch=2, batches=1)])


def test_operations_of_attention_pooling_are_counted():
    torch.manual_seed(0)
    module = timm.create_model("vit_base_patch16_siglip_224", **SMALL).eval()
    plain = vit()
    counts = []
    for model in (module, plain, plain):
        with count_operations() as operations:
            model(torch.zeros(1, 3, 32, 32))
        counts.append(operations.total)
    assert counts[1] == counts[2]
    tokens, width = 17, 24
    layer = 2 * tokens * width * width * (3 + 1 + 4 + 4) + 4 * tokens * tokens * width
    assert counts[1] == 2 * layer + 2 * 16 * (3 * 64) * width + 2 * width * 4
    assert counts[0] > counts[1]


def test_a_study_that_fails_takes_nothing_else_with_it(monkeypatch):
    from vitscope.interventions.studies import token_keep

    def fails(subject):
        raise AttributeError("'NoneType' object has no attribute 'next_functions'")

    monkeypatch.setattr(token_keep, "_operations", fails)
    run = checkup(load(vit(), input=INPUT), pictures(), [Accuracy()], studies=["token-keep", "lesion"])
    assert "next_functions" in run.skipped["token-keep"]
    assert "lesion-accuracy" in run
    assert "accuracy" in run


def test_weights_without_numbers_are_refused():
    with torch.device("meta"):
        module = timm.create_model("vit_tiny_patch16_224", **SMALL)
    with pytest.raises(UserError, match="'meta'"):
        load(module.eval(), input=INPUT, device="meta")
    assert not wanting_weights(vit())


class Blurred(VisionTransformer):
    """Drops features at random whatever the mode, in a forward of its own."""

    def forward(self, x):
        return self.forward_head(nn.functional.dropout(self.forward_features(x), 0.9, training=True))


def test_a_forward_pass_that_is_random_is_not_measured_by_a_walk_that_is_not():
    torch.manual_seed(0)
    subject = load(Blurred(**SMALL).eval(), input=INPUT)
    assert not isinstance(subject.anatomy, Composition)
    assert "its own forward pass is random" in subject.notes[0]
    with pytest.raises(UserError, match="different logits for the same images twice"):
        measure(subject, pictures(), [Accuracy()])


class Returning(nn.Module):
    """A linear classifier of mean colours that returns what ``form`` makes of its logits and features."""

    def __init__(self, form):
        super().__init__()
        torch.manual_seed(0)
        self.head, self.form = nn.Linear(3, 4), form

    def forward(self, x):
        features = x.mean((2, 3))
        return self.form(self.head(features), features)


@pytest.mark.parametrize(
    ("form", "message"),
    [
        (lambda logits, _: torch.cat([logits, logits]), "returns 2 rows for 1 image; a classifier returns"),
        (lambda logits, _: logits.mean(0, keepdim=True), "returns 1 row for 11 images"),
        (lambda logits, _: logits.T, "returns 4 rows for 1 image"),
        (lambda logits, _: logits.squeeze(), r"of shape \(4,\); .*: do not squeeze the batch axis"),
        (lambda *both: both, r"a tuple of a tensor of shape \(1, 4\), a tensor of shape \(1, 3\);"),
        (lambda logits, f: {"out": logits, "f": f}, r"a dict of 'out': a tensor of shape \(1, 4\), 'f': a tensor"),
        (lambda *_: None, "returns a NoneType;"),
    ],
    ids=["two rows an image", "one row a batch", "transposed", "squeezed", "tuple", "mapping", "nothing"],
)
def test_an_output_that_is_not_one_row_an_image_is_refused_by_its_shape(form, message):
    with pytest.raises(UserError, match=message):
        load(Returning(form), input=INPUT)


def test_logits_are_taken_from_a_mapping_by_their_name():
    subject = load(Returning(lambda logits, features: {"features": features, "logits": logits}), input=INPUT)
    assert subject.class_count == 4
    with torch.no_grad():
        assert torch.equal(subject.anatomy.walk(noise(), Unwatched()), subject.module(noise())["logits"])


class Encoded(nn.Module):
    """Patches through torch's encoder, batch first or not."""

    def __init__(self, batch_first):
        super().__init__()
        layer = nn.TransformerEncoderLayer(12, 2, 12, batch_first=batch_first)
        self.stem, self.head = nn.Conv2d(3, 12, 8, 8), nn.Linear(12, 4)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)

    def forward(self, x):
        return self.head(self.encoder(self.stem(x).flatten(2).transpose(1, 2)).mean(1))


class Centred(nn.Module):
    """Takes the mean over these axes off the input."""

    def __init__(self, axes):
        super().__init__()
        self.head, self.axes = nn.Linear(3 * 32 * 32, 4), axes

    def forward(self, x):
        return self.head((x - x.mean(self.axes, keepdim=True)).flatten(1))


def normalised(kept):
    norm = nn.BatchNorm2d(4, track_running_stats=kept)
    return nn.Sequential(nn.Conv2d(3, 4, 8, 8), norm, nn.ReLU(), nn.Flatten(), nn.Linear(64, 4))


@pytest.mark.parametrize(
    ("build", "own"),
    [
        (lambda: Centred((1, 2, 3)), True),
        (lambda: Centred((0, 1, 2, 3)), False),
        (lambda: normalised(kept=True), True),
        (lambda: normalised(kept=False), False),
        (lambda: Encoded(batch_first=True), True),
        (lambda: Encoded(batch_first=False), False),
    ],
)
def test_logits_that_depend_on_the_rest_of_the_batch_are_refused(build, own):
    torch.manual_seed(0)
    subject = load(build().eval(), input=INPUT)
    if own:
        assert "accuracy" in measure(subject, pictures(1), [Accuracy()])
    else:
        with pytest.raises(UserError, match="other logits when another image is in its batch"):
            measure(subject, pictures(1), [Accuracy()])
