"""Convex estimators: scikit-learn's own checks, its transformers and searches, other ways to the same numbers."""

import os
import re

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.utils import estimator_checks as sklearn_checks
from sklearn.utils.estimator_checks import parametrize_with_checks

import vitscope.convex as convex
from vitscope.convex.estimator import AbstractConvexHead, estimators
from vitscope.convex.tokens import Tokens, standardisation_of
from vitscope.measurement.errors import UserError

ESTIMATORS = estimators()
QUICK = {"gates": 4, "tol": 1e-2, "max_passes": 60}
CLASSIFIERS = [name for name in ESTIMATORS if name.endswith("Classifier")]
REGRESSORS = [name for name in ESTIMATORS if name.endswith("Regressor")]
EXCEPTIONS = {
    "check_do_not_raise_errors_in_init_or_set_params": "the type checker of these tests refuses wrong types at once; "
    "without it any value is stored and refused in fit",
}
OWN = {
    "ConvexAttentionClassifier": {
        "check_class_weight_classifiers": "an attention head of one token is odd and has no intercept: a weight of 1e7 "
        "cannot make it give one class everywhere",
    },
    "ConvexBlockFnoClassifier": {
        "check_classifiers_train": "with two groups a class sees one of the two entries, and one is not enough",
        "check_fit2d_1feature": "one entry cannot be split into two groups, which the error says in its own words",
    },
}


def made(name, **more) -> AbstractConvexHead:
    groups = {"blocks": 1} if name == "ConvexBlockFnoRegressor" else {}  # the checks have targets of one output
    return ESTIMATORS[name](**{**QUICK, **groups, **more})


def data(images=60, tokens=5, dim=6, classes=3, seed=0, signal=0.8):
    random = np.random.default_rng(seed)
    labels = np.arange(images) % classes
    means = signal * random.standard_normal((classes, tokens, dim))
    return (random.standard_normal((images, tokens, dim)) + means[labels] + 2).astype(np.float32), labels


CHECKED = ESTIMATORS if os.environ.get("VITSCOPE_ALL_CHECKS") else ["ConvexLinearClassifier"]
"""Of which estimators all checks are made; with the variable set, of all of them, which takes some minutes."""


def expected(estimator):
    return {**EXCEPTIONS, **OWN.get(type(estimator).__name__, {})}


@parametrize_with_checks([made(name, precision="float64") for name in CHECKED], expected_failed_checks=expected)
def test_scikit_learns_checks(estimator, check):  # they ask for seven digits of equality between batches
    check(estimator)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_scikit_learns_checks_of_what_is_each_ones_own(name):
    sklearn_checks.check_estimator_cloneable(name, made(name))
    sklearn_checks.check_estimator_repr(name, made(name))
    sklearn_checks.check_parameters_default_constructible(name, made(name))
    sklearn_checks.check_get_params_invariance(name, made(name))
    sklearn_checks.check_no_attributes_set_in_init(name, made(name))
    sklearn_checks.check_estimators_unfitted(name, made(name))
    sklearn_checks.check_fit2d_predict1d(name, made(name))


def test_scikit_learns_checks_of_a_regressor():
    head, name = made("ConvexLinearRegressor"), "ConvexLinearRegressor"
    sklearn_checks.check_regressors_train(name, head, readonly_memmap=True)
    sklearn_checks.check_regressor_multioutput(name, head)
    sklearn_checks.check_regressors_no_decision_function(name, head)
    sklearn_checks.check_regressors_int(name, head)
    sklearn_checks.check_supervised_y_2d(name, head)
    sklearn_checks.check_supervised_y_no_nan(name, head)
    sklearn_checks.check_fit2d_1sample(name, head)


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_the_modules_softmax_is_predict_proba(name, precision):
    tokens, labels = data(images=40)
    head = made(name, precision=precision, beta=1e-2).fit(tokens, labels)
    found = head.to_module()(torch.from_numpy(tokens)).softmax(1).detach().numpy()
    assert np.abs(found - head.predict_proba(tokens)).max() < (1e-6 if precision == "float32" else 1e-12)
    assert head.score(tokens, labels) > 0.5


@pytest.mark.parametrize("name", REGRESSORS)
def test_token_wise_targets_are_learned_and_their_module_agrees(name):
    tokens, _ = data(images=40, tokens=4, dim=4)
    targets = tokens[:, :, [0, 2]] - 3.0
    more = {"blocks": 2} if "Block" in name else {}
    head = made(name, activation="linear", beta=1e-3, max_passes=200, **more).fit(tokens, targets)
    assert head.predict(tokens).shape == targets.shape
    assert head.score(tokens, targets) > (0.1 if "Attention" in name else 0.8)
    found = head.to_module()(torch.from_numpy(tokens)).detach().numpy()
    assert np.abs(found - head.predict(tokens)).max() < 1e-5


def test_torch_numpy_and_memory_maps_give_the_same(tmp_path):
    tokens, labels = data(images=300)
    np.save(tmp_path / "tokens.npy", tokens)
    on_disk = np.load(tmp_path / "tokens.npy", mmap_mode="r")
    heads = [made("ConvexLinearClassifier").fit(X, labels) for X in (tokens, torch.from_numpy(tokens), on_disk)]
    logits = [head.decision_function(on_disk) for head in heads]
    assert np.array_equal(logits[0], logits[1])
    assert np.array_equal(logits[0], logits[2])


def test_standardisation_is_scikit_learns_divided_by_the_root_of_dim():
    tokens, _ = data(images=300)
    tokens[:, :, 2] = 5.0
    wanted = StandardScaler().fit_transform(tokens.reshape(-1, 6).astype(np.float64)).reshape(tokens.shape) / 6**0.5
    wanted[:, :, 2] = 0.0
    found = Tokens(tokens, standardisation_of(tokens))
    assert np.abs(found[:].numpy() - wanted).max() < 1e-6
    assert np.array_equal(found.select(np.array([3, 299]))[0:2].numpy(), found[:].numpy()[[3, 299]])


def test_the_objective_is_that_of_cvxpy():
    programs = pytest.importorskip("convex_programs")
    tokens, labels = data(images=12, tokens=3, dim=2)
    head = made("ConvexAttentionClassifier", beta=0.02, gates=2, tol=1e-6, max_passes=3000, precision="float64")
    head.fit(tokens, labels)
    seen = Tokens(tokens, head.trained_.standardisation)[:].numpy()
    gates = [term.vector.double().numpy().reshape(2, 2) for term in head.trained_.members[0].terms]
    wanted = programs.optimum("attention", seen, labels, gates, 0.02, loss="cross-entropy", pooled=True)
    assert head.certificate_.primal == pytest.approx(wanted, rel=1e-5)


def test_a_linear_head_is_near_logistic_regression():
    tokens, labels = data(images=300)
    means = tokens.mean(1)
    head = made("ConvexLinearClassifier", activation="linear", beta=1e-3).fit(tokens, labels)
    other = make_pipeline(StandardScaler(), LogisticRegression()).fit(means, labels)
    assert head.score(tokens, labels) == pytest.approx(other.score(means, labels), abs=0.03)


def test_weights_of_classes_are_images_given_twice():
    tokens, labels = data(images=30)
    twice = labels == 1
    exact = {"standardize": False, "precision": "float64", "tol": 1e-8, "beta": 0.05, "activation": "linear"}
    weighted = made("ConvexMlpClassifier", **{**exact, "max_passes": 1000, "class_weight": {0: 1.0, 1: 2.0, 2: 1.0}})
    repeated = made("ConvexMlpClassifier", **{**exact, "max_passes": 1000})
    weighted.fit(tokens, labels)
    repeated.fit(np.concatenate((tokens, tokens[twice])), np.concatenate((labels, labels[twice])))
    assert weighted.certificate_.primal == pytest.approx(repeated.certificate_.primal, rel=1e-6)


def test_pipelines_searches_and_clones():
    tokens, labels = data()
    steps = make_pipeline(FunctionTransformer(np.tanh), made("ConvexAttentionClassifier", beta=1e-2))
    search = GridSearchCV(steps, {"convexattentionclassifier__activation": ["linear", "gated-relu"]}, cv=2)
    assert search.fit(tokens, labels).best_score_ > 0.5
    head = clone(search.best_estimator_[-1])
    assert head.activation == search.best_params_["convexattentionclassifier__activation"]
    assert not hasattr(head, "trained_")


def test_beta_is_chosen_where_held_out_images_are_best_and_fitted_to_all():
    tokens, labels = data(images=90, signal=0.5)
    head = made("ConvexLinearClassifier", beta="auto", betas=10, max_passes=2000).fit(tokens, labels)
    trials = head.validation_
    assert head.beta_ == max(trials, key=lambda trial: (trial.score, trial.beta)).beta
    assert [trial.beta for trial in trials] == sorted((trial.beta for trial in trials), reverse=True)
    best = [trial.beta for trial in trials].index(head.beta_)
    assert len(trials) == min(10, best + 4)
    again = made("ConvexLinearClassifier", beta=head.beta_, max_passes=2000).fit(tokens, labels)
    assert head.certificate_.primal == pytest.approx(again.certificate_.primal, rel=0.03)
    assert head.history_[0].primal < again.history_[0].primal  # it started from what was found


def test_an_ensemble_is_the_mean_of_its_members():
    tokens, labels = data()
    head = made("ConvexMlpClassifier", ensemble=3, gates=2).fit(tokens, labels)
    assert len(head.certificates_) == 3
    whole = head.trained_
    single = [type(whole)(**{**vars(whole), "members": (member,)}) for member in whole.members]
    outputs = [one.outputs(tokens, torch.device("cpu"), 2**20)[:, 0].numpy() for one in single]
    assert np.allclose(np.mean(outputs, 0), head.decision_function(tokens), atol=1e-6)
    assert np.abs(outputs[0] - outputs[1]).max() > 1e-3
    assert np.allclose(head.to_module()(torch.from_numpy(tokens)).detach(), head.decision_function(tokens), atol=1e-5)


def interrupts(step):
    """A callback that presses control-C as soon as there are heads."""
    if step.heads:
        raise KeyboardInterrupt


def test_a_fit_that_is_interrupted_keeps_its_best_point_and_goes_on_from_there():
    tokens, labels = data()
    asked = {"beta": 1e-2, "tol": 1e-6, "max_passes": 2000, "precision": "float64"}
    head = made("ConvexAttentionClassifier", callback=interrupts, **asked)
    with pytest.warns(ConvergenceWarning, match=r"interrupted; its best point so far is kept.*warm_start=True"):
        head.fit(tokens, labels)
    assert (head.solution_.stopped, head.interrupted_) == ("interrupted", True)
    reached = head.certificate_
    assert reached.dual <= reached.primal < np.log(3)
    assert head.score(tokens, labels) > 0.5
    seen = []
    head.set_params(callback=seen.append, warm_start=True).fit(tokens, labels)
    assert not head.interrupted_
    assert seen[0].primal <= reached.primal * (1 + 1e-12)
    assert tuple(seen) == head.history_
    whole = made("ConvexAttentionClassifier", **asked).fit(tokens, labels)
    assert head.certificate_.primal == pytest.approx(whole.certificate_.primal, rel=2e-6)


@pytest.mark.parametrize("activation", ["linear", "gated-relu", "relu"])
@pytest.mark.parametrize("name", ["ConvexMlpClassifier", "ConvexBlockFnoRegressor"])
def test_a_warm_fit_from_the_optimum_is_certified_at_once(name, activation):
    tokens, labels = data(images=18, tokens=2, dim=3)
    asked = {"beta": 0.06, "max_passes": 1000, "activation": activation, "gates": 2}
    head = made(name, warm_start=True, **asked).fit(tokens, labels)
    cold = head.history_[-1].passes
    found = head.certificate_.primal
    head.fit(tokens, labels)
    assert head.history_[-1].passes <= 2 < cold
    assert head.certificate_.relative_gap <= head.tol
    assert head.certificate_.primal == pytest.approx(found, rel=1e-6)


def test_a_warm_fit_takes_the_heads_of_gates_it_shares_and_none_where_nothing_agrees():
    tokens, labels = data(images=18, tokens=2, dim=4)
    asked = {"warm_start": True, "max_passes": 300, "beta": 0.06, "tol": 0.01}
    head = made("ConvexMlpClassifier", **{**asked, "gates": 2}).fit(tokens, labels)
    found = head.certificate_.primal
    more = head.set_params(gates=3).fit(tokens, labels)
    assert more.history_[0].primal <= found * (1 + 1e-6)  # the third gate begins with no head
    zero = made("ConvexMlpClassifier", **asked).fit(tokens, labels).history_[0].primal
    for change in ({"random_state": 1}, {"activation": "linear"}, {"activation": "relu"}):
        head.set_params(random_state=0, activation="gated-relu").fit(tokens, labels)
        other = head.set_params(**change).fit(tokens, labels)
        assert other.history_[0].primal == pytest.approx(np.log(3))
    narrow = head.fit(tokens[:, :, :3], labels)
    assert narrow.history_[0].primal == pytest.approx(zero) == pytest.approx(np.log(3))
    assert narrow.predict(tokens[:, :, :3]).shape == labels.shape


def test_an_interrupted_choice_of_beta_goes_on_with_the_trials_it_made():
    tokens, labels = data(images=60, signal=0.5)
    asked = {"beta": "auto", "betas": 4, "max_passes": 300, "activation": "linear"}
    whole = made("ConvexLinearClassifier", **asked).fit(tokens, labels)
    before = []

    def on_the_third(step):
        before.append(step)
        if sum(one.passes <= before[0].passes for one in before) == 3:
            raise KeyboardInterrupt

    head = made("ConvexLinearClassifier", callback=on_the_third, **asked)
    with pytest.warns(ConvergenceWarning, match="interrupted"):
        head.fit(tokens, labels)
    made_before = head.validation_
    assert head.interrupted_
    assert 1 <= len(made_before) < len(whole.validation_)
    head.set_params(callback=None, warm_start=True).fit(tokens, labels)
    assert head.validation_[: len(made_before)] == made_before
    assert len(head.validation_) == len(whole.validation_)
    assert [one.beta for one in head.validation_] == [one.beta for one in whole.validation_]
    seen = []
    again = head.set_params(callback=seen.append).fit(tokens, labels)
    assert len(seen) == 1  # no trial is made again
    assert again.beta_ == head.beta_


def test_the_problem_is_the_one_that_fit_solves():
    tokens, labels = data()
    for name, more in (("ConvexMlpClassifier", {"class_weight": "balanced"}), ("ConvexFnoRegressor", {})):
        head = made(name, **more)
        before = dict(vars(head))
        problem = head.problem(tokens, labels)
        assert vars(head) == before
        head.fit(tokens, labels)
        assert problem.value(head.heads_) == pytest.approx(head.certificate_.primal, rel=1e-5)
        assert problem.beta == head.beta_
    with pytest.raises(UserError, match="of at least two classes"):
        made("ConvexMlpClassifier").problem(tokens, labels * 0)


def test_a_callback_is_kept_by_clones_and_left_out_of_files(tmp_path):
    tokens, labels = data()
    seen = []

    def watch(step):
        seen.append(step)

    head = clone(made("ConvexLinearClassifier", callback=watch)).fit(tokens, labels)
    assert head.callback is watch
    assert tuple(seen) == head.history_
    assert convex.load(convex.save(head, tmp_path)).callback is None


def test_a_beta_too_large_for_any_head_is_said():
    tokens, labels = data()
    with pytest.warns(UserWarning, match=r"A beta of 9 leaves no head.*below 0\.\d+, so") as said:
        made("ConvexLinearClassifier", beta=9.0).fit(tokens, labels)
    largest = float(re.search(r"begin below ([\d.]+),", str(said[0].message)).group(1))
    assert made("ConvexLinearClassifier", beta=0.8 * largest).fit(tokens, labels).heads_.count > 0
    with pytest.warns(UserWarning, match="leaves no head"):
        made("ConvexLinearClassifier", beta=1.05 * largest).fit(tokens, labels)


def test_a_certificate_that_falls_short_is_said_and_the_fit_kept():
    tokens, labels = data()
    with pytest.warns(ConvergenceWarning, match=r"above the global optimum.*All 5 passes were made; raise max_passes"):
        head = made("ConvexAttentionClassifier", beta=1e-6, tol=1e-6, max_passes=5).fit(tokens, labels)
    assert head.predict(tokens).shape == labels.shape


TOKENS, LABELS = data(images=12)
WRONG = {
    "one dimension": (TOKENS[0, 0], LABELS, {}, "tokens are (images, tokens, dim)"),
    "four dimensions": (TOKENS[None], LABELS, {}, "tokens are (images, tokens, dim)"),
    "not finite": (np.where(np.arange(12)[:, None, None] == 7, np.nan, TOKENS), LABELS, {}, "of image 7 hold NaN"),
    "one token not finite": (TOKENS[:, 0] / np.array(np.arange(12) != 3)[:, None], LABELS, {}, "repair them"),
    "complex": (TOKENS * 1j, LABELS, {}, "real numbers"),
    "nothing": (TOKENS[:, :0], LABELS, {}, "are empty"),
    "one class": (TOKENS, LABELS * 0, {}, "of one class, 0; give images of at least two classes"),
    "two labels an image": (TOKENS, np.stack((LABELS, LABELS), 1), {}, "one label for each image"),
    "fewer labels": (TOKENS, LABELS[:5], {}, "12 images but labels or targets of 5"),
    "gates": (TOKENS, LABELS, {"gates": 1000}, "give at most 360"),
    "memory": (TOKENS, LABELS, {"memory": 200}, "MiB of memory allowed; give at most 2 gates, or more memory"),
    "no gates": (TOKENS, LABELS, {"gates": 0}, "gates is 0; give a whole number, 1 or more"),
    "labels not finite": (TOKENS, np.where(LABELS == 1, np.nan, LABELS), {}, "contains NaN; leave such"),
    "tol": (TOKENS, LABELS, {"tol": 0.0}, "tol is 0.0; give a number above 0"),
    "beta 0": (TOKENS, LABELS, {"beta": 0.0}, 'beta is 0.0; give a number above 0, or "auto"'),
    "groups": (TOKENS, LABELS, {"blocks": 4}, "give at most 3"),
    "grid": (TOKENS, LABELS, {"grid": (2, 2)}, "grid of 2 x 2 was given for 5 tokens"),
    "activation": (TOKENS, LABELS, {"activation": "tanh"}, "no activation 'tanh'; there are: linear"),
    "solver": (TOKENS, LABELS, {"solver": "adam"}, "no solver named 'adam'; there are:"),
    "precision": (TOKENS, LABELS, {"precision": "float16"}, "precision is 'float16'; give 'float32' or 'float64'"),
    "device": (TOKENS, LABELS, {"device": "toaster"}, "The device 'toaster' cannot be used here"),
    "ensemble": (TOKENS, LABELS, {"ensemble": 2, "activation": "linear"}, 'give ensemble=1 or activation="gated-relu"'),
    "validation": (TOKENS, LABELS, {"validation": 1.0, "beta": "auto"}, "give a number between 0 and 1"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_answered_by_what_to_do(case):
    tokens, labels, options, words = WRONG[case]
    name = "ConvexBlockFnoClassifier" if options.keys() & {"blocks", "grid"} else "ConvexMlpClassifier"
    with pytest.raises(UserError, match=re.escape(words)) as raised:
        made(name, **options).fit(tokens, labels)
    assert "\n" not in str(raised.value)


def test_predicting_other_tokens_is_refused():
    head = made("ConvexLinearClassifier").fit(TOKENS, LABELS)
    with pytest.raises(UserError, match="fitted to images of 5 tokens of 6 entries, but these have 4 of 6"):
        head.predict(TOKENS[:, :4])
    with pytest.raises(UserError, match="of image 3 hold NaN"):
        head.predict(np.where(np.arange(12)[:, None, None] == 3, np.inf, TOKENS))


SAVED = {
    "words": ("ConvexAttentionClassifier", {"class_weight": {"a": 1.0, "b": 2.0, "c": 1.0}}, np.array(list("abc"))),
    "numbers": ("ConvexFnoClassifier", {"ensemble": 2, "grid": (5, 1), "precision": "float64"}, np.array([3, 5, 9])),
    "path": (
        "ConvexBlockFnoClassifier",
        {"beta": "auto", "betas": 3, "activation": "linear"},
        np.array([1.0, 2.0, 4.0]),
    ),
}


@pytest.mark.parametrize("case", SAVED)
def test_a_saved_head_predicts_bit_by_bit_the_same(case, tmp_path):
    name, options, names = SAVED[case]
    head = made(name, **options).fit(TOKENS, names[LABELS])
    convex.save(head, tmp_path)
    found = convex.load(tmp_path / "head.safetensors")
    assert found.get_params() == head.get_params()
    assert np.array_equal(found.predict_proba(TOKENS), head.predict_proba(TOKENS))
    assert np.array_equal(found.predict(TOKENS), head.predict(TOKENS))
    assert found.classes_.dtype == head.classes_.dtype
    assert (found.certificates_, found.history_) == (head.certificates_, head.history_)
    assert (found.beta_, found.validation_) == (head.beta_, head.validation_)
    assert torch.equal(found.to_module()(torch.from_numpy(TOKENS)), head.to_module()(torch.from_numpy(TOKENS)))


def test_a_saved_regressor_keeps_the_shape_of_its_targets(tmp_path):
    head = made("ConvexMlpRegressor").fit(TOKENS, TOKENS[:, 0, 0])
    assert np.array_equal(
        convex.load(convex.save(head, tmp_path / "a.safetensors")).predict(TOKENS), head.predict(TOKENS)
    )


def test_saving_is_whole_or_not_at_all(tmp_path, monkeypatch):
    head = made("ConvexLinearClassifier").fit(TOKENS, LABELS)
    file = convex.save(head, tmp_path)
    before = file.read_bytes()

    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space left"):
        convex.save(head, tmp_path)
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["head.safetensors"]


def test_what_is_not_a_head_is_not_loaded(tmp_path):
    with pytest.raises(UserError, match="no saved head at"):
        convex.load(tmp_path)
    (tmp_path / "head.safetensors").write_bytes(b"half")
    with pytest.raises(UserError, match="not a whole"):
        convex.load(tmp_path)
    save_file({"a": torch.zeros(1)}, tmp_path / "head.safetensors")
    with pytest.raises(UserError, match="not a convex head"):
        convex.load(tmp_path)
    head = made("ConvexLinearClassifier", random_state=np.random.RandomState(0)).fit(TOKENS, LABELS)
    with pytest.raises(UserError, match="cannot be saved"):
        convex.save(head, tmp_path)


def test_every_public_name_is_there():
    assert all(getattr(convex, name) is not None for name in convex.__all__)
