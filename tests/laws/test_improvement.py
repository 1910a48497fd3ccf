"""Better models: chosen on validation images alone, proven on test images once, resumed to the same, never by luck."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch

import vitscope
from vitscope import Plan, UserError
from vitscope.engine.question import carry_out
from vitscope.improvement import improve as module
from vitscope.improvement.figures import Figures, expected_calibration_error, judge_on
from vitscope.improvement.goal import GOALS, find_goal
from vitscope.improvement.improve import MODEL, ImproveQuestion, resolve_tries
from vitscope.improvement.prescription import PRESCRIPTIONS, AbstractMove, AbstractPrescription
from vitscope.improvement.prescriptions.head import fit_head
from vitscope.improvement.proof import Proof, Ratio
from vitscope.improvement.search import GreedySearch
from vitscope.improvement.splits import LEAST, split_images
from vitscope.measurement.claim import Verdict


@pytest.fixture(scope="module")
def digits():
    return vitscope.images("digits", split="train")


@pytest.fixture(scope="module")
def subject():
    return vitscope.load()


@pytest.fixture(scope="module")
def splits(digits):
    return split_images(digits.sample(600))


def figures(right: Any, operations: int = 100, loss: float = 0.1) -> Figures:
    shares = np.asarray(right, dtype=bool)
    return Figures(shares, np.where(shares, loss, 3.0), np.full(len(shares), 0.9), operations, 10)


def question(subject, splits, goal="faster", **more):
    names = more.pop("tries", ("tokens", "units"))
    settings = {"give_up": 0.02, "trials": 14, **more}
    chosen = resolve_tries(find_goal(goal), names)
    return ImproveQuestion(subject, splits, find_goal(goal), prescriptions=chosen, **settings)


@pytest.fixture
def untimed(monkeypatch):
    monkeypatch.setattr(module, "TIMED", 0.5)
    monkeypatch.setattr(module, "BATCHES", (2,))


def test_the_splits_are_disjoint_and_of_each_class_in_proportion(digits):
    splits = split_images(digits)
    parts = [set(one.positions.tolist()) for one in (splits.calibration, splits.validation, splits.test)]
    assert sum(map(len, parts)) == len(digits) == len(set.union(*parts))
    for one in (splits.calibration, splits.validation):
        counts = np.bincount(one.labels, minlength=10)
        assert counts.max() - counts.min() <= 2
    assert split_images(digits, seed=1).facts != splits.facts == split_images(digits).facts


def test_images_to_test_on_are_not_chosen_from(digits):
    test = vitscope.images("digits", split="test")
    splits = split_images(digits, test)
    assert splits.test is test
    assert not set(splits.calibration.positions) & set(splits.validation.positions)
    with pytest.raises(UserError, match="given both to choose on and to test on"):
        split_images(digits, digits)


def test_too_few_images_and_images_without_labels_are_refused(digits):
    with pytest.raises(UserError, match=rf"leaves \d+ images for calibration and needs {LEAST}; give more images"):
        split_images(digits.sample(100))
    with pytest.raises(UserError, match="has no labels, by which a better model is chosen"):
        split_images(vitscope.images("digits", split="train", label="none"))


def test_no_test_image_is_read_before_the_candidate_is_fixed(subject, splits, untimed, monkeypatch, tmp_path):
    seen: list[tuple[str, str]] = []

    def watch(one, images, batch_size):
        seen.append((images.fingerprint, one.name))
        return judge_on(one, images, batch_size)

    saved = module.save
    monkeypatch.setattr(module, "judge_on", watch)
    monkeypatch.setattr(module, "save", lambda *a: (seen.append(("saved", "")), saved(*a))[1])
    carry_out(question(subject, splits), Plan(64, folder=tmp_path))
    order = [print_ for print_, _ in seen]
    fixed = order.index("saved")
    assert splits.test.fingerprint not in order[:fixed]
    assert order[fixed + 1 :].count(splits.test.fingerprint) == len(order) - fixed - 1
    assert len(order) - fixed - 1 <= 3


def test_a_better_model_is_smaller_saved_and_loaded_and_the_original_untouched(subject, digits, untimed, tmp_path):
    before = subject.fingerprint
    found = vitscope.improve(
        subject, digits.sample(600), give_up=0.02, tries=("units",), trials=20, plan=Plan(64, folder=tmp_path)
    )
    assert subject.fingerprint == before
    assert not subject.edits
    proof = found.run.tree["proof"].to_dataset()
    assert float(proof["cost"].sel(model="better")) < 1
    assert [claim.name for claim in found.run.claims].count("better-model") == 1
    again = vitscope.load(tmp_path / MODEL)
    images = torch.randn(2, *subject.preprocessing.shape)
    with torch.no_grad():
        assert torch.equal(again(images), found.subject(images))
        assert not torch.equal(again(images), subject(images))
    test = split_images(digits.sample(600)).test
    assert float(proof["accuracy"].sel(model="better")) == pytest.approx(judge_on(again, test, 64).right.mean())


def test_a_search_that_was_interrupted_goes_on_to_the_same_end(subject, splits, untimed, tmp_path, monkeypatch):
    whole = carry_out(question(subject, splits), Plan(64, folder=tmp_path / "whole"))
    calls = 0

    def stop(*given):
        nonlocal calls
        calls += 1
        if calls > 6:
            raise KeyboardInterrupt
        return judge_on(*given)

    monkeypatch.setattr(module, "judge_on", stop)
    plan = Plan(64, folder=tmp_path / "parts")
    with pytest.raises(KeyboardInterrupt):
        carry_out(question(subject, splits), plan)
    assert question(subject, splits).kept_amount(replace(plan, resume=True)) == 6
    monkeypatch.setattr(module, "judge_on", judge_on)
    again = carry_out(question(subject, splits), replace(plan, resume=True))
    for name in ("search", "proof"):
        assert whole.tree[name].to_dataset().equals(again.tree[name].to_dataset())
    assert not list((tmp_path / "parts").glob("partial*/*"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"goal": "quick"}, "There is no goal 'quick'; give faster, smaller, calibrated, accurate"),
        ({"give_up": 1.5}, r"give_up is 1\.5; it is a share of accuracy"),
        ({"trials": 0}, "trials is 0; it must be at least 1"),
        ({"tries": ("magic",)}, "There is no prescription named 'magic'"),
    ],
)
def test_a_mistake_is_one_sentence(subject, digits, settings, message):
    with pytest.raises(UserError, match=message):
        vitscope.improve(subject, digits.sample(600), **settings)


def test_every_goal_has_a_prescription_and_every_prescription_makes_moves(subject):
    for goal in GOALS.values():
        assert resolve_tries(goal, ())
    for _, prescription in PRESCRIPTIONS.items():
        assert prescription().moves(subject)


@dataclass(frozen=True)
class Fake(AbstractMove):
    """A move that takes a share of the operations and turns some images."""

    number: int
    label = ""

    def apply(self, subject, splits):
        return replace(subject, notes=(*subject.notes, str(self.number)))


@dataclass(frozen=True)
class FakePrescription(AbstractPrescription):
    count: int

    def moves(self, subject):
        return tuple(Fake(n) for n in range(self.count) if str(n) not in subject.notes)


def fake_search(losses, splits, give_up=0.02, budget=100):
    """A search whose moves each save a tenth of the operations and lose their own share of the accuracy."""
    count = len(splits.validation)

    def judge(path, subject, screen):
        lost = round(sum(losses[move.number] for move in path) * count)
        return figures([False] * lost + [True] * (count - lost), round(1000 * 0.9 ** len(path)))

    return GreedySearch(find_goal("faster"), (FakePrescription(len(losses)),), splits, judge, give_up, budget)


def test_the_search_takes_what_costs_nothing_first_and_stops_at_what_is_allowed(subject, splits):
    search = fake_search([0.3, 0.0, 0.0, 0.2, 0.001], splits)
    taken = list(search.run(subject))
    assert [move.number for move in taken[-1].path][:2] in ([1, 2], [2, 1])
    assert {move.number for move in taken[-1].path} <= {1, 2, 4}
    assert {one.said for one in search.tried} == {"taken", "not allowed", ""}


def test_the_search_spends_no_more_than_its_budget(subject, splits):
    search = fake_search([0.0] * 8, splits, budget=3)
    list(search.run(subject))
    assert len(search.tried) == 3


def proof(original, candidate, give_up, **more):
    change = candidate.change_of_accuracy(original)
    return Proof(find_goal("faster"), give_up, original, candidate, {}, change, 1, **more)


def test_the_proof_is_not_given_more_often_than_its_rate_to_a_model_that_gives_up_what_is_not_allowed():
    """At the edge of what is allowed at most one proof in 20 is false: 200 proofs, 5 % and three standard errors."""
    generator, given, give_up = np.random.default_rng(0), 0, 0.02
    for _ in range(200):
        turned = generator.choice([1, -1, 0], p=[0.03, 0.05, 0.92], size=1500)
        original = figures(turned != 1)
        given += proof(original, figures(turned != -1), give_up).verdict() is Verdict.HOLDS
    assert 0 < given <= 200 * 0.05 + 3 * (200 * 0.05 * 0.95) ** 0.5


def test_shuffled_labels_prove_nothing():
    """A search over shuffled labels: accuracy is chance for all, so no gain of accuracy is ever proven too often."""
    generator, given = np.random.default_rng(1), 0
    for _ in range(200):
        first, second = (generator.random(400) < 0.1 for _ in range(2))
        one, other = figures(first), figures(second)
        change = other.change_of_accuracy(one)
        found = Proof(find_goal("accurate"), 0.0, one, other, {}, change, 1)
        given += found.claims()[0].verdict is Verdict.HOLDS
    assert given <= 200 * 0.05 + 3 * (200 * 0.05 * 0.95) ** 0.5


def test_the_proof_says_what_was_gained_at_what_price_and_how_sure():
    original = figures([True] * 970 + [False] * 30)
    equal = proof(original, figures(original.right, 60), 0.01, time=Ratio(0.7, 0.66, 0.75, 32)).claims()[0]
    assert equal.headline == (
        "It takes 70% (66% to 75%) of the original's time at batch 32, with 60% of the operations, and gives up less "
        "than 1 points of accuracy."
    )
    assert equal.verdict is Verdict.HOLDS
    worse = proof(original, figures([False] * 100 + [True] * 870 + [False] * 30, 60), 0.01).claims()[0]
    assert worse.verdict is Verdict.FAILS
    assert "do not take it" in worse.headline
    slow = proof(original, figures(original.right, 60), 0.01, time=Ratio(1.0, 0.9, 1.1, 32)).claims()[0]
    assert slow.headline.startswith("It is not shown to be faster, with 60% of the operations")
    few = proof(figures([True] * 50), figures([True] * 50, 60), 0.01).claims()[0]
    assert few.verdict is Verdict.UNDECIDED
    assert few.advice.startswith("About ")


def test_calibration_error_by_pencil_and_paper():
    """Two bins of two: accuracies .5 and 1, confidences .6 and .9: (2 x .1 + 2 x .1) / 4 = .1."""
    one = Figures(np.array([1, 0, 1, 1], bool), np.zeros(4), np.array([0.6, 0.6, 0.9, 0.9]), 1, 1)
    assert expected_calibration_error(one, bins=2) == pytest.approx(0.1)


def test_the_figures_of_a_trial_are_the_same_from_a_file():
    one = figures([True, False, True])
    again = Figures.from_bytes(one.to_bytes())
    assert all(np.array_equal(getattr(one, name), getattr(again, name)) for name in vars(one))


def test_a_head_is_fitted_to_the_minimum_and_stays_at_a_large_penalty():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(60, 4, generator=generator, dtype=torch.float64)
    labels = (features @ torch.randn(4, 3, generator=generator, dtype=torch.float64)).argmax(1)
    start, bias = torch.zeros(3, 4, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    weight, offset = fit_head(features, labels, start, bias, 0.1)
    strength = 0.1 * float(torch.cat((features, torch.ones(60, 1)), 1).square().mean())
    shares = (features @ weight.T + offset).softmax(1) - torch.nn.functional.one_hot(labels, 3)
    assert float((shares.T @ features / 60 + strength * weight).abs().max()) < 1e-6  # the gradient, by hand
    assert float((shares.mean(0) + strength * offset).abs().max()) < 1e-6
    assert float(fit_head(features, labels, start, bias, 1e6)[0].abs().max()) < 1e-5
