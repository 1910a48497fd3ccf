"""How outputs that nobody described are laid out is found out, or the block is left out and named."""

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import nn

from vitscope import PixelInput, images, load, measure
from vitscope.diagnostics.feature_variance import FeatureVariance
from vitscope.engine.plan import Plan
from vitscope.measurement.errors import UserError
from vitscope.models.bands import BANDS, agreement, difference
from vitscope.models.named import anatomy_at_blocks
from vitscope.models.stream import Layout
from vitscope.models.subject import AbstractObserver

SHAPE = (3, 48, 48)
INPUT = PixelInput(48, 3, (0.5,), (0.5,))


class Block(nn.Module):
    """A residual block on tokens or maps whose last axis is the channels."""

    def __init__(self, width=12):
        super().__init__()
        self.norm, self.fc = nn.LayerNorm(width), nn.Linear(width, width)

    def forward(self, x):
        return x + self.fc(self.norm(x))


class Net(nn.Module):
    """Patches of 8 pixels, laid out by ``arrange``, through two blocks."""

    def __init__(self, arrange, block=Block):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.arrange = nn.Conv2d(3, 12, 8, 8), arrange
        self.blocks = nn.Sequential(block(), block())
        self.head = nn.Linear(12, 4)

    def forward(self, x):
        out = self.blocks(self.arrange(self.stem(x)))
        out = out[1] if isinstance(out, tuple) else out
        if out.ndim == 3 and out.shape[0] != len(x):
            out = out.transpose(0, 1)
        return self.head(out.reshape(len(x), -1, 12).mean(1))


def tokens(x):
    return x.flatten(2).transpose(1, 2)


def with_extra(count, place="before"):
    def arrange(x):
        patches = tokens(x)
        extra = torch.linspace(-1, 1, 12).expand(len(x), count, 12)
        half = patches.shape[1] // 2
        parts = {
            "before": (extra, patches),
            "between": (patches[:, :half], extra, patches[:, half:]),
            "behind": (patches, extra),
        }
        return torch.cat(parts[place], 1)

    return arrange


def blockwise(x):
    """Tokens window by window, as in Hiera."""
    return x.unflatten(2, (-1, 2)).unflatten(4, (-1, 2)).permute(0, 2, 4, 3, 5, 1).flatten(1, 4)


def found(net, shape=SHAPE):
    return anatomy_at_blocks(net.eval(), None, shape)


@pytest.mark.parametrize(
    ("arrange", "layout", "prefix"),
    [
        (lambda x: x.permute(0, 2, 3, 1), Layout.CHANNELS_LAST, 0),
        (tokens, Layout.TOKENS, 0),
        (with_extra(1), Layout.TOKENS, 1),
        (with_extra(5), Layout.TOKENS, 5),
        (lambda x: tokens(x).transpose(0, 1), Layout.TOKENS, 0),
    ],
    ids=["channels last", "tokens", "class token", "registers", "tokens x batch"],
)
@pytest.mark.parametrize("shape", [(3, 48, 48), (3, 32, 80)])
def test_a_layout_is_found(arrange, layout, prefix, shape):
    anatomy, notes = found(Net(arrange), shape)
    assert not notes
    assert {one.layout for one in anatomy.layouts} == {layout}
    assert {one.grid for one in anatomy.layouts} == {(shape[1] // 8, shape[2] // 8)}
    assert {one.prefix for one in anatomy.layouts} == {prefix}
    assert anatomy.entry == anatomy.layouts[0]


@pytest.mark.parametrize(
    "arrange",
    [
        with_extra(1, "between"),
        with_extra(1, "behind"),
        blockwise,
        lambda x: tokens(x.transpose(2, 3)),
        lambda x: tokens(x).flatten(0, 1),
        lambda x: x.mean((2, 3)),
        lambda x: tokens(x)[:, torch.randperm(36, generator=torch.Generator().manual_seed(0))],
    ],
    ids=["token between", "token behind", "window by window", "column by column", "batch folded", "pooled", "shuffled"],
)
def test_what_cannot_be_read_is_left_out_and_named(arrange):
    anatomy, notes = found(Net(arrange))
    assert not anatomy.places
    assert "blocks.0" in notes[0]
    assert "not read" in notes[0]


@pytest.mark.parametrize("sides", [(8, 8, 8, 8), (0, 0, 8, 8), (8, 0, 8, 0), (0, 8, 0, 8)])
def test_rows_of_padding_are_not_read_as_tokens_of_another_kind(sides):
    class Padded(Net):
        def forward(self, x):
            return super().forward(nn.functional.pad(x, sides))

    anatomy, notes = found(Padded(tokens))
    assert all(
        (one.grid, one.prefix) == ((6 + sum(sides[2:]) // 8, 6 + sum(sides[:2]) // 8), 0) for one in anatomy.layouts
    )
    assert anatomy.places or "blocks.0" in notes[0]


@pytest.mark.parametrize(
    "order",
    [
        torch.randperm(36, generator=torch.Generator().manual_seed(0)),
        torch.arange(36).view(3, 2, 3, 2).transpose(1, 2).flatten(),
        torch.arange(36).flip(0),
    ],
    ids=["shuffled", "window by window", "backwards"],
)
def test_an_order_that_changes_between_two_blocks_is_not_taken_over(order):
    class Mixing(Block):
        """Takes a third of the mean over all tokens along."""

        def forward(self, x):
            return super().forward(x) + x.mean(1, keepdim=True) / 3

    class Changing(Net):
        def forward(self, x):
            x = self.blocks[0](tokens(self.stem(x)))
            return self.head(self.blocks[1](x[:, order]).mean(1))

    anatomy, notes = found(Changing(tokens, Mixing))
    assert [place.name for place in anatomy.places] == ["blocks.0"]
    assert "blocks.1 is not read" in notes[0]


def test_a_map_that_is_one_of_several_tensors_is_found():
    class Both(Block):
        def forward(self, x):
            x = super().forward(x[1] if isinstance(x, tuple) else x)
            return x.mean((1, 2)), x

    anatomy, _ = found(Net(lambda x: x.permute(0, 2, 3, 1), Both))
    assert [(one.layout, one.part) for one in anatomy.layouts] == [(Layout.CHANNELS_LAST, 1)] * 2


def test_several_maps_are_not_chosen_among():
    class Two(Block):
        def forward(self, x):
            x = super().forward(x[0] if isinstance(x, tuple) else x)
            return x, 2 * x

    _, notes = found(Net(lambda x: x.permute(0, 2, 3, 1), Two))
    assert "several feature maps" in notes[0]


@pytest.mark.parametrize("arrange", [lambda x: x.permute(0, 2, 3, 1), tokens, with_extra(3)])
def test_pictures_of_one_colour_vary_over_no_position(arrange):
    shown = [Image.new("RGB", (48, 48), colour) for colour in ("red", "green", "blue", "white")]
    run = measure(load(Net(arrange), input=INPUT), images(shown), [FeatureVariance()])
    assert np.nanmax(np.abs(run["feature-variance/variance"].values)) < 1e-6


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("gcvit_xxtiny", {Layout.CHANNELS_FIRST, Layout.CHANNELS_LAST}),
        ("mambaout_femto", {Layout.CHANNELS_LAST}),
        ("pvt_v2_b0", {Layout.TOKENS, Layout.CHANNELS_FIRST}),
        ("edgenext_xx_small", {Layout.CHANNELS_FIRST}),
    ],
)
def test_models_of_timm_that_nobody_described(name, layout):
    torch.manual_seed(0)
    module = timm.create_model(name, **({"img_size": 64} if name.startswith("gcvit") else {}))
    anatomy, _ = found(module, (3, 64, 64))
    assert anatomy.places
    assert {one.layout for one in anatomy.layouts} <= layout


def test_the_order_of_hiera_is_not_read_as_rows():
    torch.manual_seed(0)
    anatomy, notes = found(timm.create_model("hiera_tiny_224", img_size=64), (3, 64, 64))
    assert "blocks.0" in " ".join(notes)
    assert not {place.name for place in anatomy.places} & {"blocks.0", "blocks.1", "blocks.2"}


def test_looking_changes_nothing():
    module = Net(tokens).eval()
    module.norm = nn.BatchNorm2d(3)
    before, state = {k: v.clone() for k, v in module.state_dict().items()}, torch.get_rng_state()
    load(module, input=INPUT)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())


def test_a_unit_that_is_asked_for_and_has_no_positions_is_refused():
    with pytest.raises(UserError, match="The unit 'head' returns no feature map"):
        load(Net(tokens), input=INPUT, units=["blocks.0", "head"])


def test_agreement_is_one_for_the_right_cells_and_less_for_others():
    cells = np.arange(25)
    rows, columns = cells // 5, cells % 5
    exact = np.concatenate([np.arange(BANDS)[:, None] == rows, np.arange(BANDS)[:, None] == columns]).astype(float)
    movement = np.stack([exact, exact])
    assert agreement(movement, rows, columns, (5, 5)) == pytest.approx(1)
    assert abs(agreement(movement, columns, rows, (5, 5))) < 1e-9
    alike = np.concatenate([np.full((2, 2 * BANDS, 3), 0.2), movement], 2)  # tokens before them see every band
    behind = [np.concatenate([np.full(3, -1), cells]) for cells in (rows, columns)]
    assert agreement(alike, *behind, (5, 5)) == pytest.approx(1)


def test_positions_differ_by_1_if_each_sees_a_cell_in_whatever_order_and_by_0_if_all_see_the_same():
    cells = np.random.default_rng(0).permutation(25)
    exact = np.concatenate([np.arange(BANDS)[:, None] == cells // 5, np.arange(BANDS)[:, None] == cells % 5])
    movement = np.stack([exact, exact]).astype(float)
    assert difference(movement, (5, 5)) == pytest.approx(1)
    assert difference(np.ones_like(movement), (5, 5)) == pytest.approx(0)


def test_a_change_is_not_told_across_what_lies_between_two_units():
    class Stages(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.stem, self.down = nn.Conv2d(3, 12, 4, 4), nn.Conv2d(12, 12, 2, 2)
            self.one, self.two = nn.Sequential(Block(), Block()), nn.Sequential(Block(), Block())
            self.head = nn.Linear(12, 4)

        def forward(self, x):
            x = self.one(self.stem(x).permute(0, 2, 3, 1))
            x = self.two(self.down(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
            return self.head(x.mean((1, 2)))

    rng = np.random.default_rng(0)
    shown = [Image.fromarray(rng.integers(0, 255, (48, 48, 3), dtype=np.uint8)) for _ in range(3)]
    run = measure(load(Stages(), input=INPUT), images(shown), [FeatureVariance()])
    changes = run["feature-variance/log_change"]
    assert np.isnan(changes.sel(layer=3))
    assert np.isfinite(changes.sel(layer=[1, 2, 4])).all()


class Beside(nn.Module):
    """Blocks on maps whose last axis is the channels, and something beside or between them."""

    def __init__(self, way):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.head = nn.Conv2d(3, 12, 8, 8), nn.Linear(12, 4)
        self.blocks, self.other = nn.ModuleList(Block() for _ in range(3)), nn.ModuleList(Block() for _ in range(2))
        self.position, self.way = nn.Parameter(torch.randn(1, 6, 6, 12)), way

    def forward(self, x):
        return self.head(self.way(self, self.stem(x).permute(0, 2, 3, 1)).mean((1, 2)))


def one_by_one(net, x):
    for block in net.blocks:
        x = block(x.permute(0, 3, 1, 2).permute(0, 2, 3, 1).contiguous())
    return x


def position_added(net, x):
    for block in net.blocks:
        x = block(x + net.position)
    return x


def changed_in_place(net, x):
    for block in net.blocks:
        x = block(x.add_(net.position))
    return x


def as_branches(net, x):
    for block in net.blocks:
        x = x + block(x)
    return x


def two_towers(net, x):
    y = x
    for block in net.blocks:
        x = block(x)
    for block in net.other:
        y = block(y)
    return x + y


@pytest.mark.parametrize(
    ("way", "apart"),
    [
        (one_by_one, set()),
        (position_added, {2, 3}),
        (changed_in_place, {2, 3}),
        (as_branches, {1, 2, 3}),
        (two_towers, {4}),
    ],
)
def test_a_change_is_told_only_across_a_unit_that_takes_up_what_the_one_before_left(way, apart):
    anatomy, notes = found(Beside(way))
    assert anatomy.apart == apart
    assert ("is not measured" in " ".join(notes)) == bool(apart)
    shown = [Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 48, 3), dtype=np.uint8))]
    changes = measure(load(Beside(way), input=INPUT), images(shown), [FeatureVariance()])["feature-variance/log_change"]
    assert {layer for layer in changes.layer.values if np.isnan(changes.sel(layer=layer))} == {0, *apart}


def test_a_change_that_no_picture_of_noise_meets_is_not_told_either():
    def sometimes(net, x):
        noise = x.std((1, 2)).mean(1)[:, None, None, None] > 0.1
        for block in net.blocks:
            x = block(torch.where(noise, x, x + net.position))
        return x

    shown = [Image.new("RGB", (48, 48), "grey")]
    changes = measure(load(Beside(sometimes), input=INPUT), images(shown), [FeatureVariance()])[
        "feature-variance/log_change"
    ]
    assert np.isnan(changes.sel(layer=[2, 3])).all()


def skipped_if_bright(net, x):
    for place, block in enumerate(net.blocks):
        x = block(x) if place != 1 or not net.lit else x
    return x


def only_if_bright(net, x):
    for place, block in enumerate(net.blocks):
        x = block(x) if place != 1 or net.lit else x
    return x


def twice_if_bright(net, x):
    for place, block in enumerate(net.blocks):
        x = block(block(x)) if place == 1 and net.lit else block(x)
    return x


class Lit(Beside):
    """The same, knowing whether all pictures are white."""

    def forward(self, x):
        self.lit = bool((x > 0.9).all())
        return super().forward(x)


WHITE, GREY = Image.new("RGB", (48, 48), "white"), Image.new("RGB", (48, 48), "grey")


@pytest.mark.parametrize(("way", "said"), [(skipped_if_bright, "did not run"), (twice_if_bright, "ran 2 times")])
def test_a_block_that_not_every_batch_runs_once_is_named(way, said):
    subject = load(Lit(way), input=INPUT)
    shown = images([GREY, GREY, GREY, WHITE])
    with pytest.raises(UserError, match=rf"The unit 'blocks\.1' {said} for a batch"):
        measure(subject, shown, [FeatureVariance()], Plan(batch_size=1))
    whole = measure(load(Lit(way), input=INPUT, units=["blocks.0", "blocks.2"]), shown, [FeatureVariance()])
    assert whole["feature-variance/variance_count"].values.tolist() == [4, 4, 4]


def test_a_block_that_no_picture_of_noise_runs_is_named_and_no_change_is_told_behind_it():
    anatomy, notes = found(Lit(only_if_bright))
    assert [place.name for place in anatomy.places] == ["blocks.0", "blocks.2"]
    assert "blocks.1 and 2 more blocks are not read: it does not run for pictures of noise." in notes  # and two others

    class Seen(AbstractObserver):
        def __init__(self):
            self.follows = {}

        def stream(self, layer, stream):
            self.follows[layer] = stream.follows

        def attention(self, layer, attention):
            return attention.context()

    for value, follows in ((0.0, True), (1.0, False)):
        seen = Seen()
        with torch.no_grad():
            anatomy.walk(torch.full((1, *SHAPE), value), seen)
        assert seen.follows[2] == follows


def test_a_block_that_is_a_program_is_named_and_no_change_is_told_behind_it():
    module = Beside(one_by_one)
    module.blocks[1] = torch.jit.script(module.blocks[1].eval())
    anatomy, notes = found(module)
    assert [place.name for place in anatomy.places] == ["blocks.0", "blocks.2"]
    assert anatomy.apart == {2}
    assert "blocks.1 is not read: it is a TorchScript program" in notes[0]
    with pytest.raises(UserError, match=r"The unit 'blocks\.1' cannot be read: it is a TorchScript program"):
        load(module, input=INPUT, units=["blocks.1"])


def test_blocks_by_name_are_read_also_if_they_are_compiled_in_place():
    module = Beside(lambda net, x: net.blocks["b"](net.blocks["a"](x)))
    module.blocks = nn.ModuleDict({"a": Block(), "b": Block()})
    module.blocks["a"].compile(backend="eager")
    subject = load(module, input=INPUT)
    assert [place.name for place in subject.places] == ["blocks.a", "blocks.b"]
    assert module.blocks["a"]._compiled_call_impl is not None


def test_a_model_without_blocks_is_told_how_units_are_given():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 8, 8, 8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    shown = images([Image.new("RGB", (48, 48), "grey")])
    run = measure(load(module, input=INPUT), shown, [FeatureVariance()])
    assert (
        "load it with units=[...], submodules that return one (it has 0, 1, 2, ...)" in run.skipped["feature-variance"]
    )
    assert "feature-variance" in measure(load(module, input=INPUT, units=["0", "1"]), shown, [FeatureVariance()])


class Around(nn.Module):
    """Two blocks inside one, with a shortcut around them, or with more behind them."""

    def __init__(self, shortcut):
        super().__init__()
        self.inside, self.norm, self.shortcut = nn.Sequential(Block(), Block()), nn.LayerNorm(12), shortcut

    def forward(self, x):
        return self.norm(x + self.inside(x) if self.shortcut else self.inside(x))


@pytest.mark.parametrize("shortcut", [True, False])
def test_blocks_inside_one_are_read_unless_a_shortcut_passes_by_them(shortcut):
    anatomy, _ = found(Net(lambda x: x.permute(0, 2, 3, 1), lambda: Around(shortcut)))
    inside = [f"blocks.{block}.inside.{place}" for block in (0, 1) for place in (0, 1)]
    assert [place.name for place in anatomy.places] == (["blocks.0", "blocks.1"] if shortcut else inside)
    assert anatomy.apart == (set() if shortcut else {3})


def test_a_change_that_goes_everywhere_hides_no_layout():
    class Global(Block):
        def forward(self, x):
            return super().forward(x) + 50 * x.mean((1, 2), keepdim=True)

    anatomy, notes = found(Net(lambda x: x.permute(0, 2, 3, 1), Global))
    assert {one.layout for one in anatomy.layouts} == {Layout.CHANNELS_LAST}
    assert not notes


class Spoiling(Block):
    """The same block, whose numbers are none for pictures of noise."""

    def forward(self, x):
        return super().forward(x) + (x - 100).log() * 0


def test_a_block_whose_numbers_are_not_finite_is_read_as_what_enters_it_or_left_out_for_that():
    module = Net(tokens)
    module.blocks[1] = Spoiling()
    anatomy, notes = anatomy_at_blocks(module, None, SHAPE)
    assert ([place.name for place in anatomy.places], notes) == (["blocks.0", "blocks.1"], ())
    module.arrange = lambda x: tokens(x) * float("nan")
    anatomy, notes = anatomy_at_blocks(module, None, SHAPE)
    assert anatomy.places == ()
    assert "not finite for pictures of noise" in notes[0]
