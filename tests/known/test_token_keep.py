"""Tokens that are removed: which they are, what is left, and that the others are as if nobody attended to these."""

from dataclasses import dataclass, field, replace

import cloudpickle
import pytest
import timm
import torch
from transformers import ViTMAEConfig, ViTMAEForPreTraining

import vitscope
from vitscope.diagnostics import default_diagnostics
from vitscope.diagnostics.accuracy import Accuracy
from vitscope.diagnostics.attention_distance import AttentionDistance
from vitscope.diagnostics.token_rank import TokenRank
from vitscope.engine.grid import Axis, StudyGrid
from vitscope.engine.reading.activation import Workspace, rows_with
from vitscope.engine.reading.shard import Reading
from vitscope.engine.study import study
from vitscope.interventions.head_lesion import HeadLesion
from vitscope.interventions.lesion import Lesion
from vitscope.interventions.studies.token_keep import TokenKeepStudy
from vitscope.interventions.token_keep import Keeping, TokenKeep, highest, kept_count
from vitscope.interventions.token_merge import TokenMerge
from vitscope.interventions.token_ranking import (
    PIXELS,
    AtRandom,
    ByAttention,
    ByMask,
    ByNorm,
    ByPixels,
    Worst,
)
from vitscope.measurement.errors import UserError
from vitscope.models.adapter import ADAPTERS
from vitscope.models.catalogue import import_installed_adapters
from vitscope.models.edit import with_edits
from vitscope.models.own.vit import Vit, VitConfig
from vitscope.models.stream import Stream, token_stream
from vitscope.models.subject import AbstractObserver, Composition, Unwatched, after
from vitscope.models.unit import AbstractAttentionUnit

import_installed_adapters()
CASES = {f"{name}: {one.name}": (adapter, one) for name, adapter in ADAPTERS.items() for one in adapter.examples()}
FREE = ("timm/vit", "timm/eva", "timm/beit", "torchvision/vit", "vitscope/vit")
FREE += tuple(f"transformers/{name}" for name in ("vit", "deit", "dinov2", "clip", "vit-mae"))
"""Families of which every unit works on any choice of the patches."""
BOUND = tuple(name for name, _ in ADAPTERS.items() if name not in FREE)


@dataclass
class Recorder(AbstractObserver):
    streams: dict[int, Stream] = field(default_factory=dict)

    def stream(self, layer, stream):
        self.streams[layer] = stream

    def attention(self, layer, attention):
        return attention.context()


def built(key):
    """The case's anatomy and two images, in float64, with weights that leave nothing trivial."""
    adapter, example = CASES[key]
    torch.manual_seed(0)
    module = example.build().eval().double()
    generator = torch.Generator().manual_seed(1)
    for parameter in module.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    images = torch.randn(2, *example.image_shape, generator=generator, dtype=torch.float64)
    return adapter.anatomy(module), images


def applied(anatomy, *keeps):
    """The anatomy after these interventions."""
    for keep in keeps:
        anatomy = Keeping(keep).apply(anatomy)
    return anatomy


def masked(anatomy, images, chosen):
    """The slow way: no token is removed, but from each layer on nobody attends to those that are not ``chosen``.

    ``chosen`` maps a layer to the grid cells of each image that are kept from it on.
    """
    stream, hidden = anatomy.stem(images), None
    for layer, unit in enumerate(anatomy.units, start=1):
        if layer in chosen:
            hidden = torch.ones(len(images), stream.tokens.shape[1], dtype=torch.bool)
            hidden[:, : stream.prefix] = False
            hidden.scatter_(1, chosen[layer] + stream.prefix, False)
        if hidden is None or not isinstance(unit, AbstractAttentionUnit):
            stream = unit(stream)
            continue
        attention = unit.project(stream)
        bias = torch.zeros(hidden.shape, dtype=torch.float64).masked_fill(hidden, -torch.inf)[:, None, None, None]
        attention = replace(attention, bias=bias if attention.bias is None else attention.bias + bias)
        stream = unit.finish(stream, unit.branch(attention, attention.weights() @ attention.values))
    rows = torch.arange(len(images))[:, None]
    values = torch.cat((stream.values[:, : stream.prefix], stream.patches[rows, chosen[max(chosen)]]), dim=1)
    return anatomy.tail(replace(stream, values=values, kept=chosen[max(chosen)]))


@pytest.fixture(scope="module", params=[key for key in CASES if key.split(":")[0] in FREE])
def family(request):
    with torch.inference_mode():
        return built(request.param)


@pytest.mark.parametrize("layer", [1, 2, 3])
@pytest.mark.parametrize("by", [ByAttention(), AtRandom(3)], ids=["attention", "random"])
def test_removing_tokens_is_hiding_them_from_all_attention(family, layer, by):
    anatomy, images = family
    recorder = Recorder()
    with torch.inference_mode():
        fewer = applied(anatomy, TokenKeep(0.4, layer, by))
        logits = fewer.walk(images, recorder)
        stream = recorder.streams[layer]
        count = recorder.streams[0].patches.shape[1]
        assert stream.patches.shape[1] == stream.kept.shape[1] == round(0.4 * count)
        assert (stream.kept.diff(dim=1) > 0).all()
        assert not torch.equal(stream.kept[0], stream.kept[1])
        torch.testing.assert_close(logits, masked(anatomy, images, {layer: stream.kept}), rtol=1e-9, atol=1e-9)


def test_two_choices_compose_and_each_keeps_its_share_of_what_is_left(family):
    anatomy, images = family
    recorder = Recorder()
    with torch.inference_mode():
        logits = applied(anatomy, TokenKeep(0.5, 1), TokenKeep(0.5, 3, ByNorm())).walk(images, recorder)
        counts = [recorder.streams[layer].patches.shape[1] for layer in (0, 1, 2, 3, 4)]
        first, second = recorder.streams[1].kept, recorder.streams[3].kept
        expected = masked(anatomy, images, {1: first, 3: second})
    half = round(counts[0] / 2)
    assert counts[1:] == [half, half, round(half / 2), round(half / 2)]
    assert all(set(late.tolist()) < set(early.tolist()) for early, late in zip(first, second, strict=True))
    torch.testing.assert_close(logits, expected, rtol=1e-9, atol=1e-9)


def test_the_order_of_patches_matters_to_no_later_unit_when_their_cells_travel_along(family):
    """What an adapter must heed that says so: positions at ``kept``; every patch is kept here, in another order."""
    anatomy, images = family
    with torch.inference_mode():
        stream = anatomy.stem(images)
        generator = torch.Generator().manual_seed(5)
        kept = torch.stack([torch.randperm(stream.patches.shape[1], generator=generator) for _ in images])
        patches = stream.patches[torch.arange(len(images))[:, None], kept]
        stream = replace(stream, values=torch.cat((stream.values[:, : stream.prefix], patches), dim=1), kept=kept)
        for unit in anatomy.units:
            stream = unit(stream)
        torch.testing.assert_close(anatomy.tail(stream), anatomy.walk(images, Unwatched()), rtol=1e-9, atol=1e-9)


def test_keeping_every_token_is_the_identity_where_tome_is_off_by_logits(family):
    """ToMe with r = 0 is off by 1.5 on DeiT3 (LayerScale) and by 3.3 on DINOv2 with registers (timm 1.0.31)."""
    anatomy, images = family
    with torch.inference_mode():
        expected = anatomy.walk(images, Unwatched())
        for keep in TokenKeep.nothing():
            assert torch.equal(applied(anatomy, keep).walk(images, Unwatched()), expected)


@pytest.mark.parametrize("key", [key for key in CASES if key.split(":")[0] in BOUND])
def test_models_whose_later_units_need_the_grid_are_refused_by_name(key):
    """At any layer; the last stage of a pooling transformer is an exception, below."""
    adapter, example = CASES[key]
    anatomy = adapter.anatomy(example.build().eval())
    for layer in range(1, len(anatomy.places) + 1 if adapter.name != "timm/pit" else 2):
        with pytest.raises(UserError, match=r"needs the whole grid|needs attention among all patches"):
            applied(anatomy, TokenKeep(0.5, layer, ByNorm()))


def test_the_last_stage_of_a_pooling_transformer_can_do_with_fewer():
    anatomy, images = built("timm/pit: three stages")
    last = max(layer for layer, place in enumerate(anatomy.places, 1) if place.kind.value == "downsampling") + 1
    recorder = Recorder()
    with torch.inference_mode():
        logits = applied(anatomy, TokenKeep(0.5, last, AtRandom(2))).walk(images, recorder)
        kept = recorder.streams[last].kept
        assert kept.shape[1] == round(0.5 * recorder.streams[last - 1].patches.shape[1])
        torch.testing.assert_close(logits, masked(anatomy, images, {last: kept}), rtol=1e-9, atol=1e-9)
    with pytest.raises(UserError, match=r"transformers\.1\.pool"):
        applied(anatomy, TokenKeep(0.5, 1))


def test_a_masked_autoencoder_hides_the_same_patches_as_upstream():
    config = ViTMAEConfig(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=40, image_size=32, patch_size=8,
        decoder_hidden_size=16, decoder_num_hidden_layers=1, decoder_num_attention_heads=2,
        decoder_intermediate_size=24, mask_ratio=0.0,
    )  # fmt: skip
    torch.manual_seed(0)
    module = ViTMAEForPreTraining(config).eval().double()
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    scores = torch.rand(4, 4, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        anatomy = ADAPTERS["transformers/vit-mae"].anatomy(module)
        logits = applied(anatomy, TokenKeep(0.25, 1, ByMask(scores))).walk(images, Unwatched())
        module.config.mask_ratio = module.vit.embeddings.config.mask_ratio = 0.75
        expected = module(images, noise=-scores.flatten().expand(2, -1).double()).logits
    torch.testing.assert_close(logits, expected, rtol=1e-9, atol=1e-9)


# Rankings


def ranked(weights, prefix, class_token=True):
    grid = (1, weights.shape[-1] - prefix)
    stream = token_stream(torch.zeros(len(weights), weights.shape[-1], 2), grid, prefix, class_token)
    return ByAttention()(stream, rows_with(weights, grid, prefix).attention)


WEIGHTS = torch.tensor(
    [
        [[0.7, 0.1, 0.2], [0.2, 0.5, 0.3], [0.1, 0.1, 0.8]],
        [[0.1, 0.5, 0.4], [0.3, 0.3, 0.4], [0.6, 0.2, 0.2]],
    ]
)[None, None]
"""One image, one window, two heads, three tokens."""


def test_attention_ranks_by_what_the_class_token_gives_on_average_over_heads():
    torch.testing.assert_close(ranked(WEIGHTS, 1), torch.tensor([[0.3, 0.3]]))


def test_without_class_token_attention_ranks_by_what_patches_receive_from_patches():
    patches = torch.tensor([[(0.7 + 0.2 + 0.1 + 0.1 + 0.3 + 0.6) / 6, 1.7 / 6, 2.3 / 6]])
    torch.testing.assert_close(ranked(WEIGHTS, 0), patches)
    registers = torch.tensor([[(0.5 + 0.1 + 0.3 + 0.2) / 4, (0.3 + 0.8 + 0.4 + 0.2) / 4]])
    torch.testing.assert_close(ranked(WEIGHTS, 1, class_token=False), registers)


def test_attention_ranks_with_the_bias_of_the_rows_it_reads():
    bias = torch.randn(2, 3, 3, generator=torch.Generator().manual_seed(0))
    attention = replace(rows_with(WEIGHTS, (1, 2), 1).attention, bias=bias)
    shares = (WEIGHTS[0, 0].log() + bias).softmax(-1)
    for class_token, rows in ((True, slice(0, 1)), (False, slice(1, 3))):
        stream = token_stream(torch.zeros(1, 3, 2), (1, 2), 1, class_token)
        torch.testing.assert_close(ByAttention()(stream, attention), shares[:, rows, 1:].mean((0, 1))[None])


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("timm/vit: vit class token", True),
        ("timm/eva: rotary, one register", False),
        ("timm/eva: dinov3, wide image", True),
        ("vitscope/vit: own registers", True),
        ("vitscope/vit: own registers, average pooling, grey", False),
    ],
)
def test_registers_are_no_class_token(key, expected):
    with torch.inference_mode():
        anatomy, images = built(key)
        stream = anatomy.stem(images)
    assert stream.prefix > 0
    assert stream.class_token is expected


def test_registers_of_timm_are_no_class_token():
    small = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 3}
    module = timm.create_model("vit_medium_patch16_reg4_gap_256", **small).eval()
    stream = ADAPTERS["timm/vit"].anatomy(module).stem(torch.zeros(1, 3, 32, 32))
    assert (stream.prefix, stream.class_token) == (4, False)


def test_the_largest_are_kept_in_their_order_and_of_equal_ones_the_first():
    scores = torch.tensor([[1.0, 3.0, 3.0, 0.0, 3.0], [5.0, 5.0, 5.0, 5.0, 5.0]])
    assert highest(scores, 2).tolist() == [[1, 2], [0, 1]]
    assert highest(scores, 4).tolist() == [[0, 1, 2, 4], [0, 1, 2, 3]]
    assert [kept_count(share, 16) for share in (0, 0.01, 0.4, 0.5, 1)] == [1, 1, 6, 8, 16]


def test_the_norm_keeps_the_longest_tokens_and_worst_the_shortest():
    values = torch.tensor([[[9.0, 9.0], [3.0, 4.0], [0.0, 1.0], [6.0, 8.0]]])
    stream = token_stream(values, (1, 3), 1)
    assert ByNorm()(stream, None).tolist() == [[5.0, 1.0, 10.0]]
    assert highest(Worst(ByNorm())(stream, None), 1).tolist() == [[1]]
    assert Worst(ByAttention()).reads is ByAttention().reads


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    model = Vit(VitConfig(image=16, channels=1, patch=4, dim=24, depth=3, heads=3, registers=1, classes=10))
    return vitscope.load(model.eval(), name="small")


@pytest.fixture(scope="module")
def batch():
    return torch.randn(6, 1, 16, 16, generator=torch.Generator().manual_seed(0))


def kept(subject, images, layer):
    recorder = Recorder()
    with torch.inference_mode():
        subject.anatomy.walk(images, recorder)
    return recorder.streams[layer].kept


def test_random_is_a_function_of_the_image_and_the_seed_alone(small, batch):
    whole = kept(TokenKeep(0.5, 3, AtRandom(1))(small), batch, 3)
    alone = [kept(TokenKeep(0.5, 3, AtRandom(1))(small), image[None], 3)[0] for image in batch]
    assert torch.equal(whole, torch.stack(alone))
    assert torch.equal(kept(TokenKeep(0.5, 3, AtRandom(1))(small), batch.flip(0), 3), whole.flip(0))
    assert len({tuple(row.tolist()) for row in whole}) == 6
    assert not torch.equal(kept(TokenKeep(0.5, 3, AtRandom(2))(small), batch, 3), whole)
    fewer = kept(TokenKeep(0.25, 3, AtRandom(1))(small), batch, 3)
    assert all(set(few.tolist()) < set(many.tolist()) for few, many in zip(fewer, whole, strict=True))


def test_a_second_random_choice_goes_on_with_the_scores_of_the_cells(small, batch):
    twice = TokenKeep(0.5, 4, AtRandom(1))(TokenKeep(0.5, 2, AtRandom(1))(small))
    assert torch.equal(kept(twice, batch, 4), kept(TokenKeep(0.25, 4, AtRandom(1))(small), batch, 4))


def test_random_keeps_every_cell_alike(small):
    """Each of 16 cells is kept in half of 2000 draws: 4.5 standard errors allow one false alarm in about 10,000."""
    images = torch.randn(2000, 1, 2, 2, generator=torch.Generator().manual_seed(3))
    stream = replace(token_stream(torch.zeros(2000, 16, 1), (4, 4)), carried={PIXELS: images})
    counts = highest(AtRandom(7)(stream, None), 8).flatten().bincount(minlength=16)
    assert (counts - 1000).abs().max() < 4.5 * (2000 * 0.25) ** 0.5


def test_a_mask_keeps_its_cells_and_an_oracle_those_of_each_image(small, batch):
    mask = torch.zeros(4, 4, dtype=torch.bool)
    mask[1:3, 1:3] = True
    subject = TokenKeep(0.25, 2, ByMask(mask))(small)
    assert kept(subject, batch, 2).tolist() == [[5, 6, 9, 10]] * 6
    bright = TokenKeep(2 / 16, 1, ByPixels(brightness))(small)
    expected = brightness(batch).flatten(1).topk(2).indices.sort().values
    assert torch.equal(kept(bright, batch, 1), expected)
    assert ByMask(mask).label != ByMask(~mask).label
    assert repr(ByPixels(brightness)) == f"<pixels {__name__}.brightness>"


def brightness(images):
    return torch.nn.functional.avg_pool2d(images, 4)[:, 0]


def test_scores_that_do_not_fit_the_grid_are_refused(small, batch):
    with pytest.raises(UserError, match=r"The mask is \(3, 4\); the model's patches form a grid of \(4, 4\)"):
        kept(TokenKeep(0.5, 1, ByMask(torch.zeros(3, 4)))(small), batch, 1)
    with pytest.raises(UserError, match=r"gave scores of shape \(6, 16, 16\)"):
        kept(TokenKeep(0.5, 1, ByPixels(whole))(small), batch, 1)


def whole(images):
    return images[:, 0]


# What it does to a subject


def test_prefix_tokens_stay_and_nothing_is_computed_of_removed_tokens(small, batch):
    recorder = Recorder()
    with torch.inference_mode():
        TokenKeep(0.0, 3)(small).anatomy.walk(batch, recorder)
    assert [stream.values.shape[1] for stream in recorder.streams.values()] == [18, 18, 18, 3, 3, 3, 3]


def test_the_subject_stays_as_it_was_and_the_new_one_shares_its_module(small, batch):
    before = {name: tensor.clone() for name, tensor in small.module.state_dict().items()}
    edited = TokenKeep(0.5, 3)(small)
    with torch.inference_mode():
        logits = edited.anatomy.walk(batch, Unwatched())
    assert edited.module is small.module
    assert edited.places == small.places
    assert all(torch.equal(tensor, before[name]) for name, tensor in small.module.state_dict().items())
    again = with_edits(small.anatomy, cloudpickle.loads(cloudpickle.dumps(edited.edits)))
    with torch.inference_mode():
        assert torch.equal(again.walk(batch, Unwatched()), logits)


def test_equal_choices_are_equal_units_so_that_studies_share_their_work(small):
    one, other = (TokenKeep(0.5, 3, AtRandom(1))(small).anatomy for _ in range(2))
    assert one.units == other.units
    assert one.stem == other.stem
    assert TokenKeep(0.5, 3, AtRandom(2))(small).anatomy.units != one.units
    assert TokenKeep(0.5, 3).settings != TokenKeep(0.5, 3, ByNorm()).settings


def test_a_lesion_of_the_unit_leaves_the_choice_in_place(small, batch):
    expected = kept(TokenKeep(0.5, 3)(small), batch, 3)
    assert torch.equal(kept(Lesion((3,))(TokenKeep(0.5, 3)(small)), batch, 3), expected)
    assert torch.equal(kept(Lesion((3,))(TokenKeep(0.5, 3, ByNorm())(small)), batch, 3).diff() > 0, expected.diff() > 0)
    after_lesion = TokenKeep(0.5, 2, ByNorm())(HeadLesion(((5, (0,)),))(Lesion((4,))(small)))
    assert kept(after_lesion, batch, 6).shape == (6, 8)


@pytest.mark.parametrize(
    ("intervention", "said"),
    [
        (lambda: TokenKeep(1.5, 1), "keep is 1.5"),
        (lambda: TokenKeep(-0.1, 1), "keep is -0.1"),
        (lambda: AtRandom(-1), "The seed is -1"),
        (lambda: ByPixels(lambda images: images), "A lambda has no name"),
    ],
)
def test_settings_that_mean_nothing_are_refused(intervention, said):
    with pytest.raises(UserError, match=said):
        intervention()


def test_subjects_that_cannot_are_told_why(small):
    with pytest.raises(UserError, match="was given layer 7; this model has layers 1 to 6"):
        TokenKeep(0.5, 7)(small)
    with pytest.raises(UserError, match="at layer 6 needs an attention unit there or later"):
        TokenKeep(0.5, 6)(small)
    with pytest.raises(UserError, match="keep first"):
        TokenKeep(0.5, 5)(TokenMerge(2, (3,))(small))
    plain = vitscope.load(
        torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(256, 3)), input=small.module.config.input, units=()
    )
    with pytest.raises(UserError, match="whose units are described"):
        TokenKeep(0.5, 1)(plain)


def test_diagnostics_read_nothing_where_patches_no_longer_fill_the_grid(small, batch):
    diagnostics = default_diagnostics()
    seen = []
    for subject in (small, TokenKeep(0.5, 3)(small)):
        reading = Reading(diagnostics, subject.places, (16, 16), Workspace())
        with torch.inference_mode():
            subject.anatomy.walk(batch, reading)
        seen.append([set(found) for found in reading.results()])
    for whole_, fewer in zip(*seen, strict=True):
        assert fewer == {(layer, quantity) for layer, quantity in whole_ if layer < 3}


# The study


def test_the_study_gives_a_curve_for_every_ranking(small):
    pictures = vitscope.images("digits", split="test", limit=40)
    run = study(small, pictures, TokenKeepStudy("1.0:0.25:4", "attention, worst,merge,random", layer=3, seed=1))
    result = run.tree["token-keep-accuracy"].to_dataset()
    assert result["nll"].dims == ("keep", "ranking")
    assert result["keep"].values.tolist() == [1.0, 0.75, 0.5, 0.25]
    assert result["keep_tokens"].values.tolist() == [16, 12, 8, 4]
    assert result["ranking"].values.tolist() == ["attention", "worst", "merge", "random"]
    assert (result["nll_change"].sel(keep=1.0) == 0).all()
    assert (result["nll_change"].sel(keep=0.25) != 0).all()
    operations = result["forward_operations"]
    assert (operations.diff("keep") < 0).all()
    assert float(operations[0, 0]) == float(result["forward_operations_intact"])
    assert "From blocks.1.attn (layer 3) on, 4 to 16 of 16 patch tokens" in run.tree.attrs["notes"]
    for ranking, by in (("worst", Worst(ByAttention())), ("random", AtRandom(1))):
        alone = vitscope.measure(TokenKeep(0.5, 3, by)(small), pictures, [Accuracy()])
        assert float(result["nll"].sel(keep=0.5, ranking=ranking)) == pytest.approx(float(alone["accuracy/nll"]))


def test_layers_that_lost_tokens_are_empty_in_a_study_of_other_diagnostics(small):
    pictures = vitscope.images("digits", split="test", limit=8)
    axis = Axis("keep", (1.0, 0.5), "kept")
    grid = StudyGrid((axis,), ((TokenKeep(1.0, 3),), (TokenKeep(0.5, 3),)))
    run = study(small, pictures, grid, [TokenRank(), AttentionDistance()])
    for group in ("grid-token-rank", "grid-attention-distance"):
        result = run.tree[group].to_dataset()
        counts = next(one for name, one in result.data_vars.items() if name.endswith("_count") and "layer" in one.dims)
        reduced = counts.sum([dim for dim in counts.dims if dim not in ("keep", "layer")])
        late = reduced.sel(layer=[layer for layer in reduced.layer.values if layer >= 3])
        assert (late.sel(keep=1.0) > 0).all()
        assert (late.sel(keep=0.5) == 0).all()
        assert (reduced.sel(keep=0.5, layer=reduced.layer < 3) > 0).all()


def test_the_study_starts_past_a_third_unless_told(small):
    notes = TokenKeepStudy("0.5").notes(small)
    assert notes[0].startswith("From blocks.1.attn (layer 3) on, 8 to 8 of 16")
    with pytest.raises(UserError, match="cannot be ranked by 'colour'; name some of attention, norm, random, worst"):
        TokenKeepStudy(by="attention,colour").notes(small)
    with pytest.raises(UserError, match="there is no layer 9"):
        TokenKeepStudy(layer=9).notes(small)


def test_a_walk_is_the_same_whoever_watches(small, batch):
    """Reading the intact units before the choice changes rounding at most."""
    subject = TokenKeep(0.5, 5)(small)
    assert isinstance(subject.anatomy, Composition)
    with torch.inference_mode():
        stream = subject.anatomy.stem(batch)
        for layer, unit in enumerate(subject.anatomy.units, 1):
            stream = after(unit, layer, stream, Unwatched())
        reading = Reading(default_diagnostics(), subject.places, (16, 16), Workspace())
        torch.testing.assert_close(subject.anatomy.walk(batch, reading), subject.anatomy.tail(stream))
