"""What a bench claims, on times that are made up: verdicts, reasons, and how often it errs about equals."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from vitscope.deploy.bench_claims import judge_bench
from vitscope.deploy.bench_results import BenchFigures, describe_bench
from vitscope.deploy.contestant import AbstractContestant
from vitscope.deploy.tally import PassTally
from vitscope.deploy.timing import Timed
from vitscope.measurement.claim import ClaimKind, Verdict

FAST = np.array([1e12, 1e12, 1e9])
"""Multiply-adds, bytes and operators a second of a machine that binds nothing."""


@dataclass(frozen=True, eq=False)
class Paper(AbstractContestant):
    """A contestant on paper."""

    on: str = "eager"
    eager: Any = True
    shape = (3, 8, 8)
    device = torch.device("cpu")
    parameters = 1000

    @property
    def backend(self):
        return self.on

    def facts(self):
        return {}

    def prepare(self, batches, threads):
        raise AssertionError("it is never run")


def timed(contestant, batch, seconds, rounds=30, noise=0.001, seed=0):
    spread = np.random.default_rng([contestant, batch, seed]).lognormal(0, noise, (rounds, 3))
    return Timed(contestant, batch, seconds * spread, seed=0)


def bench(seconds, batches=(32,), rounds=30, noise=0.001, seed=0, gauges=FAST, eager=(True, True), **more):
    """A bench of two contestants; ``seconds`` by contestant and batch size."""
    several = (Paper("a", eager=eager[0]), Paper("b", eager=eager[1]))
    found = {at: timed(*at, value, rounds, noise, seed) for at, value in seconds.items()}
    return BenchFigures(several, batches, found, np.tile(gauges, (rounds, 1)), **more)


def claim_of(found, name="faster: b, 32"):
    return next(claim for claim in judge_bench(found) if claim.name == name)


@pytest.mark.parametrize(
    ("share", "verdict", "kind", "said"),
    [
        (0.8, Verdict.HOLDS, ClaimKind.LOOK, "b is faster than a at batch 32: it takes 0.8 of the time."),
        (1.5, Verdict.FAILS, ClaimKind.LOOK, "b is slower than a at batch 32: it takes 1.5 times as long."),
        (1.0, Verdict.FAILS, ClaimKind.LOOK, "b is as fast as a at batch 32, to within 2 %."),
        (0.99, Verdict.FAILS, ClaimKind.LOOK, "b is as fast as a at batch 32, to within 2 %."),
        (0.98, Verdict.UNDECIDED, ClaimKind.LOOK, "No difference between b and a is shown at batch 32."),
    ],
)
def test_the_ratio_decides(share, verdict, kind, said):
    claim = claim_of(bench({(0, 32): 1.0, (1, 32): share}))
    assert (claim.verdict, claim.kind, claim.sentence) == (verdict, kind, said)
    assert f"ratio {share:.3g}" in claim.figure


def test_what_is_decided_comes_first_and_large_differences_before_small_ones():
    seconds = {(0, 1): 1.0, (1, 1): 0.98, (0, 8): 1.0, (1, 8): 0.9, (0, 32): 1.0, (1, 32): 0.5}
    names = [claim.name for claim in judge_bench(bench(seconds, (1, 8, 32)))]
    assert names == ["faster: b, 32", "faster: b, 8", "faster: b, 1"]


def test_few_rounds_decide_nothing():
    claim = claim_of(bench({(0, 32): 1.0, (1, 32): 0.5}, rounds=5))
    assert claim.verdict is Verdict.UNDECIDED
    assert "unbounded with so few rounds" in claim.figure


def test_equals_are_hardly_ever_called_faster_or_slower():
    """400 benches of a model against itself, with 20 % of noise in each pass: each test errs in 1 % at most."""
    decided = [
        claim_of(bench({(0, 32): 1.0, (1, 32): 1.0}, rounds=12, noise=0.2, seed=seed)).sentence for seed in range(400)
    ]
    assert sum("faster" in one or "slower" in one for one in decided) <= 8


def of_work(share, **settings):
    """The second has half of the first's multiply-adds; the first takes 1 s."""
    seconds = {(0, 32): 1.0, (1, 32): share}
    return claim_of(bench(seconds, adds={0: 2e9, 1: 1e9}, **settings))


def test_time_that_falls_like_the_work_needs_no_reason():
    claim = of_work(0.5)
    assert "because" not in claim.figure
    assert claim.advice == ""
    assert "multiply-adds 0.5 of the first's" in claim.figure


def tallies(own, first=None):
    return {(0, 32): first or PassTally(100, 1000, 0.9), (1, 32): own}


def test_starting_operators_can_bind():
    """1,000 operators of 0.8 ms each would take 0.8 of the 1 s."""
    found = of_work(1.0, gauges=np.array([1e12, 1e12, 1250.0]), tallies=tallies(PassTally(1000, 1000, 0.9)))
    assert "starting its 1000 operators alone takes 80% of its time" in found.figure
    assert "larger batch" in found.advice


def test_memory_can_bind():
    """0.7 GB at 1 GB/s; 32 images of 1e9 multiply-adds at 1e12 a second take 0.032 s."""
    found = of_work(1.0, gauges=np.array([1e12, 1e9, 1e9]), tallies=tallies(PassTally(10, 700_000_000, 0.2)))
    assert "move 700 MB, for which memory alone needs 70% of its time (its multiply-adds need 3%)" in found.figure


def test_an_image_alone_can_bind():
    seconds = {(0, 1): 0.1, (1, 1): 0.1, (0, 32): 1.0, (1, 32): 0.5}
    found = bench(seconds, (1, 32), adds={0: 2e9, 1: 1e9}, tallies=tallies(PassTally(10, 10, 0.9)))
    assert "an image takes 6.4 times as long as in batches of 32" in claim_of(found, "faster: b, 1").figure
    assert "because" not in claim_of(found, "faster: b, 32").figure


def test_what_is_no_product_can_take_the_time():
    """The first spends 400 of 1,000 ms in products, the second 200 of 800."""
    found = of_work(0.8, tallies=tallies(PassTally(10, 10, 0.25), PassTally(10, 10, 0.4)))
    assert "took 400 ms and take 200 ms, while all other operators took 600 ms and take 600 ms" in found.figure
    assert found.verdict is Verdict.HOLDS
    assert "though its work is 0.5 of the first's" in found.sentence
    assert "no product" in found.advice


def test_nothing_is_made_up_where_nothing_was_measured():
    found = of_work(0.9, eager=(True, False))
    assert "what binds it is not known" in found.figure
    assert "because" not in found.figure


def test_logits_of_another_model_come_first():
    claims = judge_bench(bench({(0, 32): 1.0, (1, 32): 0.5}, apart={1: 0.02}))
    assert claims[0].name == "same-logits"
    assert claims[0].kind is ClaimKind.PROBLEM
    assert "b gives other logits than the module" in claims[0].sentence
    same = judge_bench(bench({(0, 32): 1.0, (1, 32): 0.5}, apart={1: 1e-6}))
    assert same[-1].sentence == "Every backend gives the module's own logits."


@pytest.mark.parametrize(
    ("reading", "verdict"),
    [((1.0, 1.2, 0.9), Verdict.HOLDS), ((0.1, 0.2), Verdict.FAILS), ((0.4, 0.6), Verdict.UNDECIDED)],
)
def test_pictures_bind_if_each_batch_takes_longer_than_the_fastest(reading, verdict):
    seconds = {(0, 32): 1.0, (1, 32): 0.5}
    claim = claim_of(bench(seconds, reading={(0, 32): reading}), "pictures-bind")
    assert claim.verdict is verdict
    assert "b" in claim.sentence.split()


def test_all_tests_together_err_in_five_of_a_hundred_runs():
    batches = (1, 2, 4, 8, 16, 32)
    seconds = {(one, batch): 1.0 for one in (0, 1) for batch in batches}
    rates = [claim.rate for claim in judge_bench(bench(seconds, batches)) if claim.rate is not None]
    assert len(rates) == 6
    assert sum(rates) <= 0.05 + 1e-12


def test_arrays_have_a_place_for_each_figure_and_none_for_what_is_missing():
    several = (Paper("a"), Paper("a", on="onnx", eager=False), Paper("b"))
    found = {(0, 1): timed(0, 1, 0.01), (1, 1): timed(1, 1, 0.005), (2, 32): timed(2, 32, 0.3)}
    groups = describe_bench(BenchFigures(several, (1, 32), found, np.tile(FAST, (30, 1)), peaks={(2, 32): 5_000_000}))
    times = groups["timing"]
    assert times["time"].dims == ("model", "backend", "batch_size")
    assert float(times["time"].sel(model="a", backend="onnx", batch_size=1)) == pytest.approx(5, rel=0.01)
    assert float(times["throughput"].sel(model="b", backend="eager", batch_size=32)) == pytest.approx(
        32 / 0.3, rel=0.01
    )
    assert int(np.isfinite(times["time"]).sum()) == 3
    assert int(times["time_count"].sel(model="a", backend="eager", batch_size=1)) == 90
    ratios = groups["time-ratio"]["time_ratio"]
    assert float(ratios.sel(model="a", backend="onnx", batch_size=1)) == pytest.approx(0.5, rel=0.01)
    assert float(ratios.sel(model="a", backend="eager", batch_size=1)) == 1
    assert int(np.isfinite(ratios).sum()) == 2  # the first was not timed at 32
    assert float(groups["memory"]["peak_memory"].sel(model="b", backend="eager", batch_size=32)) == 5
    assert float(groups["machine"]["bandwidth"]) == pytest.approx(1000)
