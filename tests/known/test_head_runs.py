"""Runs of convex heads: what their numbers are by pencil and paper, and what their rules decide."""

import numpy as np
import pytest
import torch
import xarray as xr

from vitscope.cli.head import parse_kinds
from vitscope.convex.block import AbstractBlock, Sizes, Term
from vitscope.convex.blocks.attention import AttentionBlock, block_squares, mean_gram
from vitscope.convex.blocks.block_fno import BlockFno
from vitscope.convex.blocks.fno import Fno
from vitscope.convex.blocks.mixer import Mixer
from vitscope.convex.blocks.mlp import Mlp
from vitscope.convex.gates import terms
from vitscope.convex.heads import Factors, Heads
from vitscope.convex.runs.compare import Tried, attention_claim
from vitscope.convex.runs.data import divide_images, in_classes
from vitscope.convex.runs.group import accuracy, certificate_claim, effective_rank, exact, resample_means
from vitscope.convex.runs.path import PathPoint
from vitscope.convex.runs.settings import HeadSettings, all_kinds, parse_beta
from vitscope.convex.runs.tokens import cluster_tokens, leading, token_weights
from vitscope.convex.tokens import Standardisation
from vitscope.convex.trained import Member, Trained
from vitscope.data import images
from vitscope.measurement.claim import Verdict
from vitscope.measurement.errors import UserError
from vitscope.measurement.exact import clopper_pearson
from vitscope.measurement.quantity import Quantity
from vitscope.report.drawing import drawings
from vitscope.report.drawing.pictures import Pictures
from vitscope.report.measured import quantities_of
from vitscope.report.strip import strip

QUANTITY = Quantity("some", "Some quantity", "1", "What it says.")
SIZES = Sizes(6, 4, 3)


def test_effective_rank_counts_equal_values() -> None:
    assert effective_rank(np.array([2.0, 2.0, 2.0])) == pytest.approx(3)
    assert effective_rank(np.array([5.0, 0.0])) == pytest.approx(1)
    assert effective_rank(np.array([])) == 0


def test_the_bootstrap_error_is_that_of_a_share() -> None:
    right = np.repeat([1.0, 0.0], [300, 100])
    found = accuracy(QUANTITY, [right], 0)
    assert float(found["some"]) == 0.75
    assert float(found["some_error"]) == pytest.approx((0.75 * 0.25 / 400) ** 0.5, rel=0.1)  # 4.5 sd of its own error
    assert np.array_equal(resample_means(right, 3), resample_means(right, 3))
    assert resample_means(np.ones(9), 0).std() == 0


@pytest.mark.parametrize(("gain", "verdict"), [(1.0, Verdict.HOLDS), (-1.0, Verdict.FAILS), (0.0, Verdict.UNDECIDED)])
def test_the_claim_about_attention_follows_the_paired_interval(gain: float, verdict: Verdict) -> None:
    rival = np.tile([1.0, 0.0, 1.0, 0.0], 50)
    better = rival.copy()
    better[: 4 * 25] = rival[:100] if gain == 0 else float(gain > 0)
    for seeds in (1, 3):
        (claim,) = attention_claim({"linear": ([rival] * seeds, 0.5), "mixer": ([better] * seeds, 0.4)})
        assert claim.verdict is verdict
        assert claim.rate == 0.01
        assert claim.figure.startswith("mixer less linear")


def test_the_claim_about_attention_is_as_sure_as_the_images_that_turned() -> None:
    rival, better = np.zeros(100), np.zeros(100)
    better[:9] = 1
    (claim,) = attention_claim({"linear": ([rival], 0.5), "mixer": ([better], 0.4)})
    low, high = claim.figure.rpartition("interval ")[2].split(" to ")
    gained = clopper_pearson(9.0, 100, 0.005)
    lost = clopper_pearson(0.0, 100, 0.005)
    assert float(low) == pytest.approx(100 * (gained[0] - lost[1]), abs=0.005)
    assert float(high) == pytest.approx(100 * gained[1], abs=0.005)
    assert claim.verdict is Verdict.UNDECIDED
    assert "test images would decide it" in claim.advice


def test_the_best_of_either_side_is_chosen_by_validation() -> None:
    perfect, wrong = np.ones(20), np.zeros(20)
    tried = {"mlp": (wrong, 0.9), "linear": (perfect, 0.2), "fno": (wrong, 0.9), "attention": (perfect, 0.1)}
    heads = {kind: ([right], validated) for kind, (right, validated) in tried.items()}
    assert attention_claim(heads)[0].figure.startswith("fno less mlp: +0.00")
    assert attention_claim({"mlp": ([wrong], 0.9)}) == ()


def test_certified_needs_every_gap_and_a_bound() -> None:
    def verdict(gaps: list[float], kind: str) -> Verdict:
        return certificate_claim(gaps, [kind] * len(gaps), 1e-3, "It is", "said", "a/b").verdict

    assert verdict([1e-3, 1e-4], "exact") is Verdict.HOLDS
    assert verdict([2e-3, 1e-4], "exact") is Verdict.FAILS
    assert verdict([1e-4], "heuristic") is Verdict.UNDECIDED


def test_labels_are_brought_to_the_training_classes_by_name() -> None:
    labels = np.array([0, 1, 1])
    assert in_classes(labels, ("dog", "cat"), ("cat", "dog"), "pets").tolist() == [1, 0, 0]
    assert in_classes(labels, None, ("cat", "dog"), "pets") is labels
    with pytest.raises(UserError, match=r"pets has classes .*\(cow\)"):
        in_classes(labels, ("dog", "cow"), ("cat", "dog"), "pets")


def test_a_stratified_fifth_is_held_out_by_the_seed() -> None:
    given = images("digits", limit=100)
    halves = divide_images(given, None, 0)
    training, test = halves.training, halves.test
    assert halves.held_out
    assert sorted([*training.positions, *test.positions]) == sorted(given.positions)
    assert np.bincount(test.labels).tolist() == [2] * 10  # pyright: ignore
    assert np.array_equal(divide_images(given, None, 0).test.positions, test.positions)
    assert not np.array_equal(divide_images(given, None, 1).test.positions, test.positions)
    assert not divide_images(given, test, 0).held_out


def test_images_without_labels_are_refused() -> None:
    with pytest.raises(UserError, match="no labels"):
        divide_images(images(np.zeros((8, 8, 8), np.uint8)), None, 0)


def _trained(block: AbstractBlock, gates: int | None, relu: bool) -> Trained:
    """Random heads, two in each term."""
    generator = torch.Generator().manual_seed(0)
    drawn = terms(block, SIZES, gates, generator, torch.float64)
    found = []
    for term in drawn:
        entries, outputs = term.entries.stop - term.entries.start, term.outputs.stop - term.outputs.start
        part = Sizes(SIZES.tokens, entries, outputs)
        left = torch.randn(2, block.left_size(part), generator=generator, dtype=torch.float64)
        right = torch.randn(2, block.inner_size(part), outputs, generator=generator, dtype=torch.float64)
        found.append(Factors(left, right))
    plain = Standardisation(torch.zeros(4, dtype=torch.float64), torch.ones(4, dtype=torch.float64))
    offset = torch.zeros(3, dtype=torch.float64)
    return Trained(block, SIZES, True, relu, plain, offset, (Member(drawn, Heads(tuple(found))),))


@pytest.mark.parametrize(("gates", "relu"), [(None, False), (3, False), (None, True)])
@pytest.mark.parametrize("block", [AttentionBlock(), Mixer(), Fno(), Fno((2, 3)), BlockFno(2, (2, 3)), Mlp()], ids=repr)
def test_outputs_follow_from_token_weights(block: AbstractBlock, gates: int | None, relu: bool) -> None:
    if isinstance(block, Mixer) and (gates or relu):
        pytest.skip("a gated mixer weighs every entry of a token apart")
    trained = _trained(block, gates, relu)
    member = trained.members[0]
    tokens = torch.randn(5, 6, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    heads = leading(member, 99)
    weights = token_weights(trained, member, heads, tokens)
    outputs = torch.zeros(5, 3, dtype=torch.float64)
    for h, head in enumerate(heads):
        term, right = member.terms[head.term], member.heads.terms[head.term].right[head.place]
        weighted = torch.einsum("it,itd->id", weights[:, h], tokens)
        row = weighted if isinstance(block, AttentionBlock | Mixer) else weights[:, h].sum(1, keepdim=True)
        outputs[:, term.outputs] += row @ right
    wanted = trained.outputs(tokens, torch.device("cpu"), 2**20)[:, 0]
    torch.testing.assert_close(outputs, wanted, rtol=1e-9, atol=1e-9)


def test_leading_heads_are_the_largest_of_all_terms() -> None:
    one = Factors(torch.tensor([[1.0], [3.0]]), torch.ones(2, 1, 1))
    other = Factors(torch.tensor([[2.0]]), torch.ones(1, 1, 1))
    term = Term(None, slice(0, 1), slice(0, 1))
    found = leading(Member((term, term), Heads((one, other))), 2)
    assert [(head.term, head.place) for head in found] == [(0, 1), (1, 0)]


def test_block_norms_are_those_of_the_lifted_variable() -> None:
    trained = _trained(AttentionBlock(), None, False)
    factors = trained.members[0].heads.terms[0]
    found = block_squares(factors, 4)
    for k in range(4):
        for value in range(4):
            columns = factors.left.unflatten(1, (4, 4))[:, :, k]
            block = torch.einsum("hd,ho->do", columns, factors.right[:, value])
            assert float(found[k, value]) == pytest.approx(float(block.square().sum()))


def test_the_mean_gram_of_two_images_and_a_gate() -> None:
    trained = _trained(AttentionBlock(), 1, False)
    tokens = torch.tensor([[[1.0, 2.0, 0.0, 0.0]], [[-3.0, 0.0, 0.0, 0.0]]], dtype=torch.float64)
    everything = Term(None, slice(0, 4), slice(0, 3))
    assert mean_gram(trained.block, everything, tokens)[0].tolist() == [5.0, 1.0, 0.0, 0.0]
    closed = Term(-torch.eye(4, dtype=torch.float64).flatten(), slice(0, 4), slice(0, 3))
    assert mean_gram(trained.block, closed, tokens).abs().max() == 0


def test_clusters_are_named_by_size() -> None:
    weights = np.array([[[1.0, 1.0, 1.0, 9.0]], [[1.0, 1.0, 1.0, 9.0]]])
    assert cluster_tokens(weights, 0).tolist() == [[1, 1, 1, 2], [1, 1, 1, 2]]


def test_what_is_kept_of_a_point_and_of_a_try_comes_back() -> None:
    heads = Heads((Factors(torch.rand(2, 3), torch.rand(2, 1, 2)), Factors(torch.rand(0, 3), torch.rand(0, 1, 2))))
    right = np.array([1.0, 0.0])
    point = PathPoint(
        0.3, 0.1, 2.0, 1.9, "exact", "fine", 0.05, 1.5, right, right[::-1].copy(), np.array([3.0, 1.0]), heads
    )
    back = PathPoint.from_bytes(point.to_bytes())
    assert (back.beta, back.kind, back.advice, back.seconds) == (0.1, "exact", "fine", 1.5)
    assert back.training_right.tolist() == [0.0, 1.0]
    assert [len(factors) for factors in back.heads.terms] == [2, 0]
    assert torch.equal(back.heads.vector, heads.vector)
    tried = Tried(right, 0.1, 0.9, 3.0, 30.0, 1e-4, "exact", "fine", 2.0)
    assert vars(Tried.from_bytes(tried.to_bytes())).keys() == vars(tried).keys()
    assert Tried.from_bytes(tried.to_bytes()).advice == "fine"


def test_kinds_and_betas_are_read_from_words() -> None:
    assert parse_kinds("fno, linear,fno") == ("fno", "linear")
    assert all_kinds() == ("linear", "mlp", "attention", "block-fno", "fno", "mixer")
    assert (parse_beta("auto"), parse_beta("2e-3")) == ("auto", 2e-3)
    for text in ("-1", "nan", "much"):
        with pytest.raises(UserError, match="--beta"):
            parse_beta(text)
    with pytest.raises(UserError, match="no kind of head named 'softmax'"):
        parse_kinds("linear,softmax")


@pytest.mark.parametrize("kind", ["linear", "mlp", "attention", "mixer", "fno", "block-fno"])
def test_settings_make_every_kind(kind: str) -> None:
    head = HeadSettings(gates=3, class_weight="balanced").estimator(kind, "auto", seed=7, grid=(2, 3), device="cpu")
    assert (head.gates, head.class_weight, head.beta, head.random_state) == (3, "balanced", "auto", 7)
    assert head.block().name == kind
    assert getattr(head, "grid", (2, 3)) == (2, 3)


def test_pictures_and_what_lies_over_them_are_one_figure() -> None:
    names = {"example": ("example", ["<b>", "two"])}
    pixels = exact(
        QUANTITY, np.random.default_rng(0).random((2, 9, 9)), ("example", "pixel_row", "pixel_column"), names
    )
    over = Quantity("over", "Over it", "1", "What it says.")
    weights = exact(over, np.ones((2, 3, 4, 4)), ("example", "convex_head", "height", "width"), names)
    groups = drawings(quantities_of("some-group", xr.merge([pixels, weights])), strip(()))
    ((drawing,),) = groups
    assert isinstance(drawing, Pictures)
    shown = drawing.interactive().to_plotly_json()
    assert len(shown["data"]) == 2 * (1 + 3)
    assert shown["data"][0]["colorscale"][0][1] == "#000000"
    assert "<b>," not in str(shown["data"][0]["hovertemplate"]).replace("<br><b>", "")
    assert "&lt;b&gt;" in shown["data"][0]["hovertemplate"]


def test_an_axis_says_that_it_is_logarithmic() -> None:
    beta = {"beta": ("beta", [1e-3, 1e-1, 1.0], {"scale": "log"})}
    ((drawing,),) = drawings(quantities_of("group", exact(QUANTITY, np.arange(3.0), ("beta",), beta)), strip(()))
    assert drawing.interactive().to_plotly_json()["layout"]["xaxis"]["type"] == "log"
