"""Diagnostics and studies by their names: the same run as by their values, at any place that takes them."""

import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from vitscope import Plan, checkup, compare, figures, images, load, measure, read_run, report, study
from vitscope.diagnostics.accuracy import Accuracy
from vitscope.diagnostics.hessian_trace import HessianTrace
from vitscope.diagnostics.token_rank import TokenRank
from vitscope.engine.measure import Measurement
from vitscope.engine.reading import activation, diagnostic
from vitscope.interventions.lesion import Lesion
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


MISGIVEN = """
import numpy as np
import vitscope
from vitscope.measurement.errors import UserError

subject, images = vitscope.load("digits"), vitscope.images("digits", limit=4)
run = vitscope.measure(subject, images, "accuracy")
calls = {
    "The model is 'digits', which is not loaded yet; load it with vitscope.load(...).":
        lambda: vitscope.checkup("digits", images),
    "The model is Vit, which is not loaded yet; load it with vitscope.load(...).":
        lambda: vitscope.study(subject.module, images, "lesion"),
    "The images are 'digits', which is not opened yet; open it with vitscope.images(...).":
        lambda: vitscope.checkup(subject, "digits", ["accuracy"]),
    "The images are ndarray, which is not opened yet; open it with vitscope.images(...).":
        lambda: vitscope.measure(subject, np.zeros((4, 8, 8)), "accuracy"),
    "The images were given before the model; give the model first, then the images.":
        lambda: vitscope.measure(images, subject, "accuracy"),
    "No diagnostic was given; give one or more of the names that vitscope list shows.":
        lambda: vitscope.measure(subject, images, []),
    "No diagnostic and no study was given; give some, or leave out diagnostics to run all of them.":
        lambda: vitscope.checkup(subject, images, []),
    "'out' is not a plan; give vitscope.Plan(folder=..., batch_size=...).":
        lambda: vitscope.measure(subject, images, "accuracy", "out"),
    "The batch size is '32'; it must be a whole number.": lambda: vitscope.Plan(batch_size="32"),
    "The batch size is 2.5; it must be a whole number.": lambda: vitscope.Plan(batch_size=2.5),
    "0 is not a name; this run holds accuracy.": lambda: run[0],
    "['accuracy'] is not a name; this run holds accuracy.": lambda: run.to_dataframe(["accuracy"]),
    "--limit is 2.5; it must be a whole number.": lambda: vitscope.images("digits", limit=2.5),
    "--limit is '5'; it must be a whole number.": lambda: vitscope.images("digits", limit="5"),
    "3 is not a path; give the folder, the file or the URL of a run.": lambda: vitscope.read_run(3),
    "3 is not a run; give runs or their folders.": lambda: vitscope.report([3], "page.html"),
    "A comparison takes 2 to 12 runs; 1 were given.": lambda: vitscope.compare(run, "page.html"),
    "The labels are 'ab'; give a list with one label for each run.":
        lambda: vitscope.compare([run, run], "page.html", "ab"),
    "digits takes a tensor of images x 1 x 8 x 8, not Images; see its preprocessing.": lambda: subject(images),
}
for said, call in calls.items():
    try:
        print(said, call())
    except UserError as error:
        if str(error) != said:
            print(said, "|", error)
"""


def test_what_is_of_another_kind_is_refused_in_one_sentence(tmp_path):
    """In a process whose types nothing else checks."""
    done = subprocess.run([sys.executable, "-c", MISGIVEN], capture_output=True, text=True, cwd=tmp_path)
    assert (done.stdout, done.stderr) == ("", "")
    assert not list(tmp_path.iterdir())


def test_a_subject_is_called_and_shown(shown):
    subject, pictures = shown
    (batch,) = pictures.batches(subject.preprocessing.transform, 12)
    assert torch.equal(subject(batch.pixels), subject.module(batch.pixels))
    lesioned = Lesion((1,))(subject)
    assert not torch.equal(lesioned(batch.pixels), subject(batch.pixels))
    assert "edited by Lesion" in repr(lesioned)
    for wrong in (torch.zeros(1, 3, 8, 8), torch.zeros(1, 1, 9, 8), torch.zeros(1, 8, 8)):
        with pytest.raises(UserError, match=r"small takes a tensor of images x 1 x 8 x 8, not \("):
            subject(wrong)
    said = f"<Subject: small, {subject.parameter_count:,} parameters, as handed over, 2 units (1 attention, 1 mlp), "
    assert repr(subject).startswith(said)
    assert "\n" not in repr(subject)
    html = replace(subject, name="<b>")._repr_html_()
    assert html.startswith("<table><caption>Subject</caption>")
    assert "&lt;b&gt;" in html
    assert "<b>" not in html


def test_a_report_takes_the_places_of_runs(shown, tmp_path):
    for name in ("one", "two"):
        measure(*shown, "accuracy").save(tmp_path / name)
    one, two = str(tmp_path / "one"), tmp_path / "two" / "run.nc"
    assert report(one, tmp_path / "a.html").exists()
    assert report([one, read_run(two)], tmp_path / "b.html").exists()
    assert compare((one, two), tmp_path / "c.html").exists()
    figures(one, tmp_path / "figures")
    with pytest.raises(UserError, match="There is no finished run at 'nowhere'"):
        report("nowhere", tmp_path / "d.html")


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
        "'weight-prune' was given twice with different settings": lambda: checkup(
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
    reads = ActivationKind.PREDICTIONS

    def observe(self, activation):
        return {"top1": TIMES * (activation.logits.argmax(1) == activation.labels).float()}

    def conclude(self, means, scene):
        return scalars(means, (Quantity("top1", "Top 1", "1", "."),))

    @classmethod
    def known_answers(cls):
        return ()
"""


def test_a_class_of_ones_own_that_has_changed_is_another_question(shown, tmp_path):
    right = measure(*shown, "accuracy")["accuracy/top1"].item()
    addresses = set()
    for times in ("1", "2"):  # the parts of the first are there when the second goes on
        cell = {**vars(diagnostic), **vars(activation), "__name__": "__main__", "dataclass": dataclass}
        exec(CELL.replace("TIMES", times), cell)
        plan = Plan(batch_size=4, folder=tmp_path, resume=True)
        run = Measurement.of(*shown, cell["Mine"]).answer(plan).run  # which keeps parts alone
        assert run["mine"].item() == pytest.approx(int(times) * right)
        addresses.add(run.spec.address)
    assert len(addresses) == 2


def test_a_plan_keeps_its_run_at_a_path(shown, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("string", Path("path")):
        run = checkup(*shown, "accuracy", Plan(folder=folder))
        assert read_run(folder).spec == run.spec
