"""Findings on small runs whose verdict is known by hand."""

import json
from collections.abc import Mapping

import numpy as np
import pytest
import xarray as xr

from vitscope.findings.checkup import claims_of, findings
from vitscope.findings.finding import FINDINGS, AbstractFinding
from vitscope.measurement.claim import Claim, Verdict
from vitscope.measurement.estimate import Estimate, above, average, below, difference, wilson
from vitscope.measurement.quantity import Quantity, labelled
from vitscope.runs.run import Run
from vitscope.runs.spec import Spec

HOLDS, FAILS, UNDECIDED = Verdict.HOLDS, Verdict.FAILS, Verdict.UNDECIDED
REACH = 2.62641 * 0.01  # of the 99 % t interval at 100 images and a standard error of 0.01
KINDS = {"s": "stem", "a": "attention", "m": "mlp", "c": "convolution", "d": "downsampling", "t": "token-mixing"}


def number(name: str, value: float, error: float = 0.01, count: int = 100) -> xr.Dataset:
    quantity = Quantity(name, name, "1", name)
    return labelled(quantity, (), np.asarray(value), np.asarray(error), np.asarray(count), {})


def depth(name: str, kinds: str, values: object, error: float = 0.01, count: int = 100, stages: str = "") -> xr.Dataset:
    """A quantity after units of these kinds, layer 0 being the stem where it is named."""
    mean = np.asarray(values, dtype=float)
    layers = np.arange(len(kinds)) + (kinds[0] != "s")
    coords = {
        "layer": layers,
        "unit": ("layer", [f"unit{layer}" for layer in layers]),
        "kind": ("layer", [KINDS[kind] for kind in kinds]),
        "stage": ("layer", [int(stage) for stage in stages or "0" * len(kinds)]),
        "block": ("layer", layers),
    }
    dims = ("layer", "head")[: mean.ndim]
    quantity = Quantity(name, name, "1", name)
    return labelled(quantity, dims, mean, np.full(mean.shape, error), np.full(mean.shape, count), coords)


def run_of(*groups: tuple[str, xr.Dataset], images: int = 100, weights: str = "pretrained") -> Run:
    spec = Spec("measure", {"name": "model", "weights": weights}, {}, {})
    root = xr.Dataset(attrs={"spec": spec.text, "skipped": "{}", "images": images})
    merged: Mapping[str, xr.Dataset] = {
        name: xr.merge([d for n, d in groups if n == name], compat="no_conflicts") for name, _ in groups
    }
    return Run(xr.DataTree.from_dict({"/": root, **merged}))


def amplitudes(kinds: str, *values: float, stages: str = "", error: float = 0.01) -> Run:
    """Amplitudes after each layer, with the changes between them; both have the same error."""
    group = "fourier-spectrum"
    after = depth("sharpening", kinds, np.diff(values, prepend=np.nan), error, stages=stages)
    return run_of((group, depth("at_highest_frequency", kinds, values, error, stages=stages)), (group, after))


def lesions(kinds: str, *values: float, stages: str = "", error: float = 0.01) -> Run:
    """The change of accuracy without each unit."""
    found = depth("top1_change", kinds, values, error, stages=stages)
    names = {name: f"lesion_{name}" for name in ("unit", "kind", "stage", "block")}
    return run_of(("lesion-accuracy", found.rename({"layer": "lesion", **names})))


def settings(study: str, axis: str, values: Mapping[float, float], error: float = 0.01) -> Run:
    """The change of accuracy at settings of a study of one axis."""
    count = len(values)
    quantity = Quantity("top1_change", "top1_change", "1", "top1_change")
    numbers = (np.asarray(list(values.values())), np.full(count, error), np.full(count, 100))
    return run_of((f"{study}-accuracy", labelled(quantity, (axis,), *numbers, {axis: list(values)})))


def variances(kinds: str, *values: float, error: float = 0.01) -> Run:
    with np.errstate(divide="ignore"):
        changes = np.diff(np.log(values), prepend=np.nan)
    seen = np.where(np.isfinite(changes), changes, np.nan)
    return run_of(("feature-variance", depth("log_change", kinds, seen, error)))


def predictions(over: float, error: float, top1: float, count: int = 100) -> Run:
    share, confidence = np.eye(10)[7], np.where(np.eye(10)[7] > 0, 0.75, np.nan)
    bins = xr.Dataset({"bin_share": ("confidence_bin", share), "bin_confidence": ("confidence_bin", confidence)})
    return run_of(
        ("accuracy", number("top1", top1, 0.05, count)),
        ("calibration", number("ece", abs(over), error, count)),
        ("calibration", number("overconfidence", over, error, count)),
        ("calibration", bins),
    )


def right(share: float, count: int) -> Run:
    return run_of(("accuracy", number("top1", share, 0.05, count)))


def per_unit(group: str, name: str, *values: float, error: float = 0.01, count: int = 100) -> Run:
    return run_of((group, depth(name, "a" * len(values), values, error, count)))


def per_head(group: str, name: str, *rows: tuple[float, ...], error: float = 0.01) -> Run:
    return run_of((group, depth(name, "a" * len(rows), rows, error)))


def reach(*rows: tuple[float, ...], uniform: tuple[float, ...] = (10.0, 10.0, 10.0)) -> Run:
    kinds = "a" * len(rows)
    return run_of(
        ("attention-distance", depth("distance", kinds, rows, 0.1)),
        ("attention-distance", depth("uniform_distance", kinds, uniform[: len(rows)], 0.0)),
    )


def high_norms(mass: float, share: float, error: float = 0.001) -> Run:
    return run_of(
        ("attention-sinks", depth("high_norm_mass", "aa", [(mass, 0.0), (0.0, 0.0)], error)),
        ("attention-sinks", depth("high_norm_share", "aa", [share, 0.001], 0.0)),
    )


NOTHING = run_of(("feature-variance", depth("other", "a", [1.0])))

CASES: list[tuple[str, Run, Verdict | None]] = [
    ("random-weights", run_of(weights="random"), HOLDS),
    ("random-weights", run_of(weights="pretrained"), None),
    ("random-weights", run_of(weights="as handed over"), None),
    ("few-images", run_of(images=99), HOLDS),
    ("few-images", run_of(images=100), None),
    ("accuracy", right(0.5, 381), HOLDS),  # Wilson: 0.09993
    ("accuracy", right(0.5, 380), FAILS),  # 0.10006
    ("accuracy", right(1.0, 35), HOLDS),  # 0.0989, where the standard error is 0
    ("accuracy", right(1.0, 34), FAILS),  # 0.1015
    ("accuracy", NOTHING, None),
    ("calibration", predictions(REACH + 1e-4, 0.01, 0.7), FAILS),
    ("calibration", predictions(-REACH - 1e-4, 0.01, 0.7), FAILS),
    ("calibration", predictions(REACH - 1e-4, 0.01, 0.7), UNDECIDED),
    ("calibration", predictions(0.02 - REACH / 10 - 1e-4, 0.001, 0.7), HOLDS),  # not 0, and too small to matter
    ("calibration", predictions(0.02 - REACH / 10 + 1e-4, 0.001, 0.7), FAILS),
    ("calibration", predictions(0.5, 0.01, 0.04), UNDECIDED),  # four right images
    ("calibration", predictions(0.5, 0.01, 0.05), FAILS),
    ("calibration", predictions(0.5, 0.01, 0.96), UNDECIDED),  # four wrong ones
    ("calibration", NOTHING, None),
    ("low-pass-in-depth", amplitudes("sam", 5.0, -1.0, -1.0 - 2 * REACH - 1e-4), HOLDS),  # the stem plays no part
    ("low-pass-in-depth", amplitudes("sam", 5.0, -1.0, -1.0 + 2 * REACH + 1e-4), FAILS),
    ("low-pass-in-depth", amplitudes("sam", 5.0, -1.0, -1.0 - 2 * REACH + 1e-4), UNDECIDED),
    ("low-pass-in-depth", amplitudes("samdcc", 0, 9.0, 8.0, 1.0, 5.0, 2.0, stages="000111"), FAILS),  # last stage only
    ("low-pass-in-depth", amplitudes("samd", 0, 2.0, 1.0, 0.5, stages="0001"), None),
    ("low-pass-in-depth", NOTHING, None),
    ("attention-smooths", amplitudes("samam", 0.0, -0.1, 0.1, 0.0, 0.2), HOLDS),
    ("attention-smooths", amplitudes("samam", 0.0, 0.1, -0.1, 0.0, -0.2), FAILS),
    ("attention-smooths", amplitudes("samam", 0.0, -0.01, 0.1, 0.09, 0.2), UNDECIDED),  # within noise
    ("attention-smooths", amplitudes("samam", 0.0, -0.9, 0.1, 0.2, 0.2), UNDECIDED),  # one of two units only
    ("attention-smooths", amplitudes("scdc", 0.0, -0.1, -0.2, -0.3), None),
    ("mlp-sharpens", amplitudes("samam", 0.0, -0.1, 0.1, 0.0, 0.2), HOLDS),
    ("mlp-sharpens", amplitudes("scdc", 0.0, -0.1, 9.0, 8.0), FAILS),  # downsampling plays no part
    ("mlp-sharpens", amplitudes("stm", 0.0, -9.0, -8.99), UNDECIDED),
    ("mlp-sharpens", amplitudes("sttt", 0.0, 1.0, 2.0, 3.0), None),
    ("attention-lowers-variance", variances("samam", 4.0, 2.0, 4.0, 2.0, 4.0), HOLDS),
    ("attention-lowers-variance", variances("samam", 2.0, 4.0, 2.0, 4.0, 2.0), FAILS),
    ("attention-lowers-variance", variances("samam", 4.0, 2.0, 4.0, 2.0, 4.0, error=2.0), UNDECIDED),
    ("attention-lowers-variance", variances("sa", 4.0, 0.0), None),
    ("mlp-raises-variance", variances("samam", 4.0, 2.0, 4.0, 2.0, 4.0), HOLDS),
    ("mlp-raises-variance", variances("scdc", 4.0, 2.0, 9.0, 4.0), FAILS),
    ("mlp-raises-variance", variances("sc", 4.0, 4.01), UNDECIDED),
    ("mlp-raises-variance", variances("sa", 4.0, 3.0), None),
    ("early-attention-sharpens", amplitudes("saaaa", 0.0, 1.0, 0.0, -1.0, -2.0), HOLDS),  # the first of four
    ("early-attention-sharpens", amplitudes("saaaa", 0.0, -1.0, 0.0, 1.0, 2.0), FAILS),
    ("early-attention-sharpens", amplitudes("saaaa", 0.0, 0.01, 1.0, 2.0, 3.0), UNDECIDED),
    ("early-attention-sharpens", amplitudes("saaa", 0.0, 1.0, 2.0, 3.0), None),
    ("oversmoothing", per_unit("token-similarity", "cosine", 0.1, 0.9 + REACH + 1e-4), HOLDS),
    ("oversmoothing", per_unit("token-similarity", "cosine", 0.99, 0.9 - REACH - 1e-4), FAILS),
    ("oversmoothing", per_unit("token-similarity", "cosine", 0.1, 0.9 + REACH - 1e-4), UNDECIDED),
    ("oversmoothing", per_unit("token-similarity", "cosine", 0.99, count=1), UNDECIDED),
    ("oversmoothing", NOTHING, None),
    ("rank-collapse", per_unit("token-rank", "rank", 9.0, 2.0 - REACH - 1e-4), HOLDS),
    ("rank-collapse", per_unit("token-rank", "rank", 1.0, 2.0 + REACH + 1e-4), FAILS),
    ("rank-collapse", per_unit("token-rank", "rank", 9.0, 2.0, error=0.0), UNDECIDED),
    ("rank-collapse", NOTHING, None),
    ("prefix-sinks", per_head("attention-sinks", "prefix_mass", (0.1, 0.2), (0.6, np.nan)), HOLDS),
    ("prefix-sinks", per_head("attention-sinks", "prefix_mass", (0.1, 0.2), (0.4, np.nan)), FAILS),
    # beyond the 99 % interval of one test, within that of four
    ("prefix-sinks", per_head("attention-sinks", "prefix_mass", (0.5 + REACH + 1e-3, 0.2), (0.1, 0.1)), UNDECIDED),
    ("prefix-sinks", NOTHING, None),
    ("high-norm-tokens", high_norms(0.31, 0.03), HOLDS),
    ("high-norm-tokens", high_norms(0.29, 0.03), FAILS),
    ("high-norm-tokens", high_norms(0.301, 0.03), UNDECIDED),
    ("high-norm-tokens", high_norms(0.04, 0.001), FAILS),  # forty times their share, and still next to nothing
    ("high-norm-tokens", high_norms(0.06, 0.001), HOLDS),
    ("high-norm-tokens", NOTHING, None),
    ("redundant-heads", per_unit("attention-diversity", "heads", 0.5, 0.01), HOLDS),
    ("redundant-heads", per_unit("attention-diversity", "heads", 0.5, 0.09), FAILS),
    ("redundant-heads", per_unit("attention-diversity", "heads", 0.5, 0.05), UNDECIDED),
    ("redundant-heads", NOTHING, None),
    ("reach-grows-with-depth", reach((1.0, 1.0), (9.0, 9.0), (9.0, 9.0)), HOLDS),
    ("reach-grows-with-depth", reach((9.0, 9.0), (1.0, 1.0), (1.0, 1.0)), FAILS),
    ("reach-grows-with-depth", reach((1.0, 9.0), (1.0, 1.0), (5.5, 5.6)), UNDECIDED),  # 0.05 more, the margin
    ("reach-grows-with-depth", reach((2.0, 2.0), (2.0, 2.0), (2.0, 2.0), uniform=(9.0, 9.0, 3.0)), HOLDS),  # windows
    ("reach-grows-with-depth", reach((1.0, 9.0), (9.0, 9.0)), None),
    ("query-collapse", per_head("attention-diversity", "mutual_information", (0.9, 0.9), (0.01, 0.02)), HOLDS),
    ("query-collapse", per_head("attention-diversity", "mutual_information", (0.01, 0.01), (0.01, 0.2)), FAILS),
    ("query-collapse", per_head("attention-diversity", "mutual_information", (0.9, 0.9), (0.04, 0.05)), UNDECIDED),
    ("query-collapse", NOTHING, None),
    ("entropy-collapse", per_head("attention-entropy", "relative_entropy", (0.9, 0.001), (0.9, 0.9)), HOLDS),
    ("entropy-collapse", per_head("attention-entropy", "relative_entropy", (0.9, 0.2), (0.9, 0.9)), FAILS),
    ("entropy-collapse", per_head("attention-entropy", "relative_entropy", (0.9, 0.04), (0.9, 0.9)), UNDECIDED),
    ("entropy-collapse", NOTHING, None),
    ("sparse-attention", per_head("attention-sparsity", "keys_share", (0.1, 0.3), (0.1, 0.1)), HOLDS),
    ("sparse-attention", per_head("attention-sparsity", "keys_share", (0.1, 0.3), (0.1, 0.5)), FAILS),
    ("sparse-attention", per_head("attention-sparsity", "keys_share", (0.5, 0.5), (0.1, 0.1)), FAILS),
    ("sparse-attention", per_head("attention-sparsity", "keys_share", (0.1, 0.3), (0.1, 0.3)), UNDECIDED),
    ("sparse-attention", NOTHING, None),
    ("spare-units", lesions("am", -0.5, 0.1), HOLDS),
    ("spare-units", lesions("am", -0.5, 0.0, error=0.0), UNDECIDED),  # none of 100 changed: one in 100 may
    ("spare-units", lesions("am", -0.5, -0.1), FAILS),
    ("spare-units", lesions("am", -0.5, -0.01), UNDECIDED),
    ("spare-units", NOTHING, None),
    ("late-attention-matters", lesions("aaaaaa", 0.0, 0.0, -0.5, -0.5, 0.0, 0.0), HOLDS),
    ("late-attention-matters", lesions("aaaaaa", -0.5, -0.5, 0.0, 0.0, -0.5, -0.5), FAILS),
    ("late-attention-matters", lesions("ammama", 0.0, -9.0, -9.0, 0.01, 0.0, 0.0), UNDECIDED),  # attention alone counts
    ("late-attention-matters", lesions("aaaa", 0.0, -0.5, 0.0, -0.5, stages="0011"), HOLDS),
    ("late-attention-matters", lesions("aaaa", -0.5, 0.0, -0.5, 0.0, stages="0011"), FAILS),
    ("late-attention-matters", lesions("aaaa", 0.0, -0.5, 0.0, -0.5, stages="0123"), None),  # each is its stage's only
    ("late-attention-matters", lesions("aa", 0.0, -0.5), None),
    ("late-attention-matters", NOTHING, None),
    ("low-frequencies-matter", settings("frequency-noise", "frequency_band", {0.1: -0.5, 0.5: 0.0, 0.9: 0.0}), HOLDS),
    ("low-frequencies-matter", settings("frequency-noise", "frequency_band", {0.1: 0.0, 0.5: -9.0, 0.9: -0.5}), FAILS),
    ("low-frequencies-matter", settings("frequency-noise", "frequency_band", {0.1: -0.5, 0.9: -0.5}), UNDECIDED),
    ("low-frequencies-matter", settings("frequency-noise", "frequency_band", {0.1: -0.5, 0.5: -0.5}), None),
    ("low-frequencies-matter", NOTHING, None),
    ("tokens-to-spare", settings("token-keep", "keep", {1.0: 0.0, 0.7: 0.1, 0.1: -0.9}), HOLDS),
    ("tokens-to-spare", settings("token-keep", "keep", {1.0: 0.0, 0.7: -0.1, 0.1: 0.9}), FAILS),
    ("tokens-to-spare", settings("token-keep", "keep", {0.7: -0.02}), UNDECIDED),
    ("tokens-to-spare", settings("token-keep", "keep", {1.0: 0.0, 0.8: 0.0}), None),
    ("tokens-to-spare", NOTHING, None),
    ("negative-curvature", run_of(("hessian-spectrum", number("negative_share", 0.1 + REACH + 1e-4))), HOLDS),
    ("negative-curvature", run_of(("hessian-spectrum", number("negative_share", 0.1 - REACH - 1e-4))), FAILS),
    ("negative-curvature", run_of(("hessian-spectrum", number("negative_share", 0.1))), UNDECIDED),
    ("negative-curvature", NOTHING, None),
]


def verdict_of(claim: Claim | None) -> Verdict | None:
    return None if claim is None else claim.verdict


@pytest.mark.parametrize(("name", "run", "verdict"), CASES, ids=[f"{i}-{case[0]}" for i, case in enumerate(CASES)])
def test_verdict_is_the_known_one(name: str, run: Run, verdict: Verdict | None) -> None:
    assert verdict_of({finding.name: finding for finding in findings()}[name].apply(run)) is verdict


def test_every_finding_has_cases_that_decide() -> None:
    decided = {name for name, _, verdict in CASES if verdict in (HOLDS, FAILS)}
    assert decided == {finding.name for finding in findings()}


@pytest.mark.parametrize("finding", findings(), ids=lambda finding: finding.name)
def test_finding_says_statement_rule_source_and_what_to_try(finding: AbstractFinding) -> None:
    texts = (finding.statement, finding.rule, finding.reference, *(finding.outcomes[v].advice for v in Verdict))
    assert all(text and text == text.strip() for text in texts)
    assert finding.statement.endswith(".")
    assert finding.rule.endswith(".")
    assert FINDINGS[finding.name] is type(finding)
    assert all(0 <= finding.outcomes[verdict].weight <= 1 for verdict in Verdict)


def test_figure_names_the_numbers_and_the_place() -> None:
    run = per_head("attention-sinks", "prefix_mass", (0.1, 0.2), (0.6, 0.1))
    claim = {claim.name: claim for claim in claims_of(run)}["prefix-sinks"]
    assert claim.figure == "1 of 4 heads above 0.5; foremost layer 2 head 0 (unit2): 0.600 ± 0.010"
    assert claim.weight == pytest.approx(0.5 * 0.85)


def test_calibration_shows_what_sampling_alone_makes() -> None:
    claim = {claim.name: claim for claim in claims_of(predictions(0.1, 0.01, 0.7))}["calibration"]
    floor = (2 / np.pi * 0.75 * 0.25 / 100) ** 0.5
    assert f"of which {floor:.3f} would" in claim.figure
    assert claim.figure.startswith("overconfident by 0.100 ± 0.010 (z = 10.0)")


def test_random_weights_are_the_weightiest_of_claims_and_claims_survive_storage() -> None:
    run = run_of(
        ("token-similarity", depth("cosine", "aa", [0.1, 0.99])),
        ("token-rank", depth("rank", "aa", [1.0, 1.0])),
        images=10,
        weights="random",
    )
    claims = claims_of(run)
    assert [claim.name for claim in claims] == ["random-weights", "few-images", "oversmoothing", "rank-collapse"]
    assert run.with_claims(claims).claims == claims
    assert len(json.loads(run.with_claims(claims).tree.attrs["claims"])) == 4


def test_a_run_without_claims_has_none() -> None:
    assert claims_of(NOTHING) == ()


@pytest.mark.parametrize(
    ("mean", "error", "count", "verdict"),
    [
        (1.0, 0.0, 2, HOLDS),
        (0.0, 0.0, 2, UNDECIDED),
        (-1.0, 0.0, 2, FAILS),
        (1.0, 0.0, 1, UNDECIDED),
        (1.0, np.nan, 9, UNDECIDED),
        (64.0, 1.0, 2, HOLDS),  # t at one degree of freedom reaches 63.66
        (63.0, 1.0, 2, UNDECIDED),
        (2.58, 1.0, 10**6, HOLDS),
        (2.57, 1.0, 10**6, UNDECIDED),
    ],
)
def test_test_against_zero_has_its_false_alarm_rate(mean: float, error: float, count: int, verdict: Verdict) -> None:
    assert above(Estimate(mean, error, count), 0.0) is verdict
    assert below(Estimate(-mean, error, count), 0.0) is verdict


def test_errors_of_means_over_the_same_images_are_bounds() -> None:
    one, two = Estimate(1.0, 0.1, 10), Estimate(4.0, 0.3, 8)
    assert difference(two, one) == Estimate(3.0, 0.4, 8)
    assert average([one, two]) == Estimate(2.5, 0.2, 8)


def test_wilson_interval_of_a_half_and_of_everything() -> None:
    assert wilson(0.5, 100) == pytest.approx((0.40383, 0.59617), abs=1e-5)  # Wilson 1927; Newcombe 1998
    assert wilson(1.0, 10) == pytest.approx((0.72247, 1.0), abs=1e-5)
