"""The laws of ensembles: a trial comes to the same whatever else is trained, in whatever order, chunk or thread."""

from dataclasses import replace

import pytest
import torch

from vitscope.labs.shallow.criterion import Criterion
from vitscope.labs.shallow.ensemble import Budget, train
from vitscope.labs.shallow.keep import (
    AbstractKeep,
    DropSpurious,
    KeepAll,
    KeepAtRandom,
    KeepByAttention,
    KeepByMagnitude,
    KeepByRole,
    KeepInProportion,
    KeepLeastNoisy,
)
from vitscope.labs.shallow.shallow_vit import ShallowVit, mean_error, mean_hinge
from vitscope.labs.shallow.token_model import Role, TokenModel
from vitscope.labs.shallow.trial import BATCHES, DATA, INITIAL, TESTS, ShallowTrial
from vitscope.measurement.errors import UserError

EXACT = Budget(dtype=torch.float64)
RULES = [
    KeepAll(),
    KeepByRole(),
    KeepAtRandom(),
    KeepInProportion(),
    KeepLeastNoisy(),
    KeepByMagnitude(),
    KeepByAttention(),
    DropSpurious(),
]
TOKENS = TokenModel(tokens=10, dim=6, patterns=6, relevant=0.4, confusion=0.1, spurious=0.2, agreement=0.9)
BASE = ShallowTrial(
    data=TOKENS,
    model=ShallowVit(neurons=8, value_width=6, query_width=7, xi=0.2),
    batch=6,
    tests=30,
    criterion=Criterion(loss=0.1, steps=60, every=4),
)


def mixed(attention=True):
    """Trials that differ in everything that may differ within one batch."""
    model = replace(BASE.model, attention=attention)
    return [
        replace(
            BASE,
            seed=number,
            samples=8 + 9 * number,
            rate=0.4 + 0.3 * number,
            keep=keep,
            data=replace(TOKENS, noise=0.05 * number, relevant=0.4 + 0.02 * number),
            model=replace(model, sigma=0.05 * number),
            criterion=replace(
                BASE.criterion, steps=60 - 4 * number, goal=("hinge", "error", "both", "none")[number % 4]
            ),
            watched=3 * (number % 2),
        )
        for number, keep in enumerate(RULES)
    ]


def assert_same(found, expected, near=1e-11):
    assert found.trial == expected.trial
    assert (found.steps, found.hinge_step, found.error_step) == (
        expected.steps,
        expected.hinge_step,
        expected.error_step,
    )
    torch.testing.assert_close(torch.tensor(found.hinge), torch.tensor(expected.hinge), rtol=near, atol=near)
    assert found.error == expected.error
    for one, other in zip(found.weights.all, expected.weights.all, strict=True):
        torch.testing.assert_close(one, other, rtol=near, atol=near)
    assert len(found.profiles) == len(expected.profiles) == (len(found.hinge) if found.trial.watched else 0)
    for one, other in zip(found.profiles, expected.profiles, strict=True):
        torch.testing.assert_close(one.mass, other.mass, rtol=near, atol=near, equal_nan=True)


@pytest.mark.parametrize("attention", [True, False], ids=["attention", "uniform"])
def test_an_ensemble_is_its_trials_one_by_one(attention):
    trials = mixed(attention)
    alone = [train([trial], EXACT)[0] for trial in trials]
    assert len({one.steps for one in alone}) > 2, "trials must end at different times for this to mean anything"
    size = 8 * BASE.batch * BASE.model.mixing.scratch(10, 6, 8)
    for budget in (EXACT, replace(EXACT, cache=1), replace(EXACT, cache=3 * size), replace(EXACT, threads=2)):
        for order in (list(range(len(trials))), list(reversed(range(len(trials))))):
            found = train([trials[place] for place in order], budget)
            for place, outcome in zip(order, found, strict=True):
                assert_same(outcome, alone[place])


def test_a_trial_is_plain_sgd_by_autograd():
    trial = replace(BASE, seed=3, samples=11, criterion=replace(BASE.criterion, goal="none", steps=20))
    (outcome,) = train([trial], EXACT)
    data, tests = TOKENS.draw(11, trial.generator(DATA)), TOKENS.draw(30, trial.generator(TESTS))
    weights = trial.model.initial(10, TOKENS.vectors, trial.generator(INITIAL)).to(torch.float64, torch.device("cpu"))
    parts, top = [part[0].requires_grad_() for part in weights.trained], weights.top[0]

    def outputs(tokens):
        query, key, value, output = parts
        shares = (tokens @ query.T @ (tokens @ key.T).mT).softmax(2)
        return ((shares @ tokens @ value.T @ output.T).relu() * top.T).sum(2).mean(1)

    def evaluated():
        found, labels = outputs(tests.tokens.double())[None], tests.labels.double()[None]
        return mean_hinge(found, labels).item(), mean_error(found, labels).item()

    values, chance = [evaluated()], trial.generator(BATCHES)
    for _ in range(5):
        for rows in torch.randint(0, 11, (4, 6), generator=chance):
            loss = mean_hinge(outputs(data.tokens[rows].double())[None], data.labels[rows].double()[None]).sum()
            slopes = torch.autograd.grad(loss, parts)
            with torch.no_grad():
                for part, slope in zip(parts, slopes, strict=True):
                    part.sub_(slope)
        values.append(evaluated())
    torch.testing.assert_close(
        torch.tensor(outcome.hinge), torch.tensor([one for one, _ in values]), rtol=1e-11, atol=0
    )
    assert list(outcome.error) == pytest.approx([one for _, one in values])
    for found, part in zip(outcome.weights.trained, parts, strict=True):
        torch.testing.assert_close(found[0], part.detach(), rtol=1e-11, atol=1e-13)
    assert outcome.hinge[-1] < 0.9 * outcome.hinge[0]


def test_trials_of_different_shapes_are_trained_in_one_call_and_reported_as_they_end():
    trials = [BASE, replace(BASE, batch=3), replace(BASE, model=ShallowVit(neurons=5)), replace(BASE, seed=1)]
    told = {}
    outcomes = train(trials, EXACT, lambda place, outcome: told.update({place: outcome}))
    assert [outcome.trial for outcome in outcomes] == trials
    assert told == dict(enumerate(outcomes))
    for trial, outcome in zip(trials, outcomes, strict=True):
        assert_same(outcome, train([trial], EXACT)[0])


def test_single_precision_agrees_with_double_at_first():
    (single,), (double,) = (train([replace(BASE, seed=5)], budget) for budget in (Budget(), EXACT))
    assert list(single.hinge[:4]) == pytest.approx(list(double.hinge[:4]), abs=1e-4)


@pytest.mark.parametrize(
    ("goal", "steps"), [("hinge", 8), ("error", 4), ("both", 8), ("none", 12)], ids=["hinge", "error", "both", "none"]
)
def test_each_goal_ends_where_it_is_first_met(goal, steps):
    criterion = Criterion(loss=0.5, goal=goal, steps=12, every=4)
    hinge, error = [1.0, 0.9, 0.4, 0.6], [0.5, 0.0, 0.1, 0.0]
    ends = next(4 * n for n in range(4) if criterion.stops(hinge[: n + 1], error[: n + 1]))
    assert ends == steps
    assert (criterion.hinge_step(hinge), criterion.error_step(error)) == (8, 4)
    assert criterion.hinge_step([float("nan")]) is None


def test_budgets_never_starve_a_trial():
    assert Budget(cache=1).slots([BASE] * 5) == 1
    assert Budget(memory=1).slots([BASE] * 5) == 1
    assert Budget().slots([BASE] * 5) == 5
    assert Budget(threads=2).slots([BASE] * 5) == 3


def sample():
    return TOKENS.draw(50, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
def test_rules_keep_their_share_and_something_of_every_image(rule: AbstractKeep):
    drawn = sample()
    attended = drawn.tokens.square().sum(2).softmax(1) if rule.attends else None
    kept = rule.keep_mask(drawn, attended, torch.Generator().manual_seed(1))
    assert (kept.sum(1) >= 1).all()
    if hasattr(rule, "rate"):
        assert (kept.sum(1) == 5).all()


def test_rules_rank_by_what_they_say():
    drawn, chance = sample(), torch.Generator().manual_seed(1)
    received = torch.rand(50, 10)
    for rule, scores in (
        (KeepLeastNoisy(0.3), -drawn.distances),
        (KeepByMagnitude(0.3), drawn.tokens.norm(dim=2)),
        (KeepByAttention(0.3), received),
        (KeepByRole(0.3), ((drawn.roles == Role.RELEVANT) | (drawn.roles == Role.CONFUSION)).float()),
    ):
        kept = rule.keep_mask(drawn, received, chance)
        least = scores.masked_fill(~kept, torch.inf).amin(1)
        assert (least >= scores.masked_fill(kept, -torch.inf).amax(1)).all()
    assert torch.equal(DropSpurious().keep_mask(drawn, None, chance), drawn.roles != Role.SPURIOUS)
    assert KeepAll().keep_mask(drawn, None, chance).all()


def test_oracles_raise_the_relevant_share_and_lower_the_noise_and_chance_does_neither():
    drawn = TokenModel(noise=0.3).draw(2000, torch.Generator().manual_seed(0))
    relevant = (drawn.roles == Role.RELEVANT).double()

    def kept(rule):
        found = rule.keep_mask(drawn, None, torch.Generator().manual_seed(1)).double()
        return [float((part * found).sum() / found.sum()) for part in (relevant, drawn.distances.double())]

    share, distance = float(relevant.mean()), float(drawn.distances.double().mean())
    assert kept(KeepByRole(0.5))[0] == pytest.approx(2 * share)
    assert kept(KeepLeastNoisy(0.5))[1] < 0.95 * distance
    error = 5 * (0.3 * 0.7 / 40_000) ** 0.5  # exceeded by chance less than once in a million draws
    assert kept(KeepAtRandom(0.5)) == pytest.approx([share, distance], abs=error)
    assert kept(KeepInProportion(0.5)) == pytest.approx([share, distance], abs=error)


def test_keeping_in_proportion_keeps_half_of_each_role_in_every_image():
    drawn = TokenModel(relevant=0.2, confusion=0.05).draw(50, torch.Generator().manual_seed(0))
    found = KeepInProportion(0.5).keep_mask(drawn, None, torch.Generator().manual_seed(1))
    for role, wanted in ((Role.RELEVANT, 4), (Role.CONFUSION, 1), (Role.IRRELEVANT, 15)):
        assert ((drawn.roles == role) & found).sum(1).eq(wanted).all()
    assert float(found.double().mean(0).min()) > 0.2


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"samples": 0}, "samples"),
        ({"watched": 31}, "watched"),
        ({"test_data": TokenModel(tokens=12)}, "test_data"),
    ],
)
def test_impossible_trials_are_refused(change, word):
    with pytest.raises(UserError, match=word):
        replace(BASE, **change)


def test_impossible_criteria_and_rates_are_refused():
    with pytest.raises(UserError, match="multiple"):
        Criterion(steps=50, every=20)
    with pytest.raises(UserError, match="rate"):
        KeepAtRandom(0.0)
