"""Diagnostics and studies by their names: the same run as by their values, at any place that takes them."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from vitscope import Plan, checkup, images, load, measure, read_run, study
from vitscope.diagnostics.accuracy import Accuracy
from vitscope.diagnostics.hessian_trace import HessianTrace
from vitscope.diagnostics.token_rank import TokenRank
from vitscope.engine import activation, diagnostic
from vitscope.interventions.studies.weight_prune import WeightPruneStudy
from vitscope.measurement.errors import UserError
from vitscope.models.own.vit import Vit, VitConfig
from vitscope.training.watch import Monitor


@pytest.fixture(scope="module")
def shown():
    torch.manual_seed(0)
    vit = Vit(VitConfig(image=8, channels=1, patch=4, dim=8, depth=1, heads=2))
    return load(vit, name="small"), images("digits", limit=12)


def test_names_classes_and_values_give_the_same_run(shown):
    for named, valued in (
        ("accuracy", [Accuracy()]),
        (["accuracy", TokenRank], [Accuracy(), TokenRank()]),
        (("token-rank", Accuracy(), "accuracy"), [TokenRank(), Accuracy()]),
    ):
        one, other = measure(*shown, named), measure(*shown, valued)
        assert one.spec == other.spec
        assert list(one) == list(other)
        assert one.tree.equals(other.tree)


def test_curvature_goes_by_its_name_too(shown):
    few = HessianTrace(batch=4, batches=1, vectors=1)
    assert list(measure(*shown, ["accuracy", few])) == ["accuracy", "hessian-trace"]
    assert list(measure(*shown, "hessian-trace").spec.settings) == ["hessian-trace"]


def test_studies_go_by_their_names(shown):
    one = study(*shown, "weight-prune", "token-rank")
    other = study(*shown, WeightPruneStudy(), [TokenRank()])
    assert one.spec == other.spec
    assert study(*shown, WeightPruneStudy).spec == study(*shown, "weight-prune", Accuracy).spec
    named = checkup(*shown, "accuracy", studies="weight-prune")
    assert list(named) == list(checkup(*shown, ["accuracy"], studies=[WeightPruneStudy])) == ["accuracy", *named][1:]
    assert "weight-prune-accuracy" in named


def test_what_does_not_go_together_is_refused(shown):
    refused = {
        "no diagnostic named 'hessian-trace' \\(it is a curvature diagnostic\\)": lambda: study(
            *shown, "weight-prune", "hessian-trace"
        ),
        "no study named 'accuracy'": lambda: study(*shown, "accuracy"),
        "Two of the name 'weight-prune' cannot share a run": lambda: checkup(
            *shown, "accuracy", studies=["weight-prune", WeightPruneStudy("0.5")]
        ),
        "no diagnostic named 'acuracy' \\(is it accuracy\\?\\)": lambda: Monitor(shown[1], ["acuracy"], "nowhere"),
    }
    for said, call in refused.items():
        with pytest.raises(UserError, match=said):
            call()


CELL = """
@dataclass(frozen=True)
class Mine(AbstractDiagnostic[Predictions]):
    \"\"\"So many times the accuracy.\"\"\"

    name, title, question, references = "mine", "Mine", "Which?", ()
    reads = Kind.PREDICTIONS

    def observe(self, activation):
        return {"top1": TIMES * (activation.logits.argmax(1) == activation.labels).float()}

    def conclude(self, means, scene):
        return plainly(means, (Quantity("top1", "Top 1", "1", "."),))

    @classmethod
    def known(cls):
        return ()
"""


def test_a_class_of_ones_own_that_has_changed_is_another_question(shown, tmp_path):
    right = measure(*shown, "accuracy")["accuracy/top1"].item()
    addresses = set()
    for times in ("1", "2"):  # the parts of the first are there when the second goes on
        cell = {**vars(diagnostic), **vars(activation), "__name__": "__main__", "dataclass": dataclass}
        exec(CELL.replace("TIMES", times), cell)
        run = measure(*shown, cell["Mine"], Plan(batch_size=4, folder=tmp_path, resume=True))
        assert run["mine"].item() == pytest.approx(int(times) * right)
        addresses.add(run.spec.address)
    assert len(addresses) == 2


def test_a_plan_keeps_its_run_at_a_path(shown, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("string", Path("path")):
        run = checkup(*shown, "accuracy", Plan(folder=folder))
        assert read_run(folder).spec == run.spec
