"""Several runs on one page: aligned, told apart, and their differences with errors."""

import csv
import io
import json
import re
from dataclasses import replace
from html import unescape
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from report_run import ANATOMY, HOSTILE, claim, group
from report_run import run as made
from typer.testing import CliRunner

from vitscope.cli import app
from vitscope.measurement.claim import Verdict
from vitscope.measurement.errors import UserError
from vitscope.measurement.quantity import Quantity, label_quantity
from vitscope.report import compare, report
from vitscope.report.comparison import difference_tables, differences, format_difference, join_runs
from vitscope.report.drawing import drawings
from vitscope.report.measured import quantities_of
from vitscope.report.pairing import pair, pair_models
from vitscope.report.side import sides
from vitscope.report.side_by_side import CompareView
from vitscope.runs.run import Run
from vitscope.runs.store import RunFolder, read_run

SHORT = tuple({"unit": f"u{i}", "kind": "convolution", "stage": 0, "block": i} for i in range(2))


def values(name: str, mean: object, error: float = 0.3, **coords: object) -> xr.Dataset:
    dims = tuple(coords)
    numbers = np.asarray(mean, dtype=np.float64)
    quantity = Quantity(name, f"label of {name}", "1", "meaning", "Larger is better.")
    labels = {dim: (dim, list(value)) for dim, value in coords.items()}
    return label_quantity(quantity, dims, numbers, np.full(numbers.shape, error), np.full(numbers.shape, 9), labels)


def a_run(groups: dict[str, xr.Dataset], model: str = "m", anatomy: object = ANATOMY, images: str = "i") -> Run:
    run = made(groups)
    spec = json.loads(run.tree.attrs["spec"])
    spec["model"]["name"] = model
    spec["images"]["fingerprint"] = images
    run.tree.attrs |= {"spec": json.dumps(spec), "anatomy": json.dumps(anatomy)}
    return run


def titled(*datasets: xr.Dataset) -> xr.Dataset:
    return group("Title", "Which?", *datasets)


@pytest.fixture(name="unlike")
def two_models_of_different_depth() -> tuple[Run, Run]:
    one = a_run({"d": titled(values("x", [0, 1, 2, 3, 4], layer=range(5)))}, "vit")
    other = a_run({"d": titled(values("x", [10, 11, 12], layer=range(3)))}, "resnet", SHORT)
    return one, other


def test_unlike_models_are_aligned_by_relative_depth(unlike):
    view = CompareView(sides(unlike))
    quantities = quantities_of("d", join_runs(view.sides, "d", view.exact))
    ((lines,),) = drawings(quantities, view.strip)
    *_, first, second = lines.interactive().to_plotly_json()["data"]
    assert not view.exact
    assert (first["x"], first["y"]) == ([0, 0.25, 0.5, 0.75, 1], [0, 1, 2, 3, 4])
    assert (second["x"], second["y"]) == ([0, 0.5, 1], [10, 11, 12])
    assert (first["name"], second["name"]) == ("a: vit", "b: resnet")
    assert first["marker"]["symbol"] == ["circle-open", "circle", "circle-open", "circle-open", "circle"]


def test_alike_models_are_aligned_by_layer_on_the_strip():
    runs = [a_run({"d": titled(values("x", [0, 1, 2, 3, 4], layer=range(5)))}, f"m{i}") for i in range(2)]
    view = CompareView(sides(runs))
    ((lines,),) = drawings(quantities_of("d", join_runs(view.sides, "d", view.exact)), view.strip)
    assert view.exact
    assert type(lines).__name__ == "DepthLines"
    assert lines.interactive().to_plotly_json()["data"][-1]["x"] == [0, 1, 2, 3, 4]


def test_a_lesion_is_aligned_by_depth_like_a_layer(unlike):
    groups = []
    for units, kinds in (([1, 3], ["attention", "downsampling"]), ([1, 2], ["convolution"] * 2)):
        lesion = values("x_change", [-1, -2], lesion=units).assign_coords(lesion_kind=("lesion", kinds))
        groups.append({"lesion-d": titled(lesion)})
    runs = a_run(groups[0], "vit"), a_run(groups[1], "resnet", SHORT)
    dataset = join_runs(sides(runs), "lesion-d", exact=False)
    assert dataset["x_change"].dims == ("run", "depth")
    assert dataset["depth"].values.tolist() == [0.25, 0.5, 0.75, 1]
    assert dataset["x_change"].sel(run="b: resnet").values.tolist()[1::2] == [-1, -2]


def test_heads_become_their_mean_whose_error_is_at_most_the_mean_of_theirs():
    heads = values("x", [[1, 3, np.nan], [5, 7, 9]], layer=[1, 4], head=range(3))
    heads["x_error"][:] = [[1, 2, np.nan], [1, 2, 3]]
    dataset = join_runs(sides([a_run({"d": titled(heads)})] * 2), "d", exact=True)
    assert dataset["x"].values.tolist() == [[2, 7]] * 2
    assert dataset["x_error"].values.tolist() == [[1.5, 2]] * 2
    assert "mean over heads" in dataset["x"].attrs["meaning"]


def test_differences_are_from_the_first_run_with_independent_errors():
    runs = [a_run({"d": titled(values("x", mean, error))}, "m") for mean, error in ((1, 0.3), (2, 0.4), (0.5, 0.4))]
    compared = sides(runs)
    (table,) = difference_tables(
        compared, quantities_of("d", join_runs(compared, "d", exact=True)), pair(compared).errors
    )
    assert table.header[-2:] == ("b − a", "c − a")
    assert table.rows[0][-2:] == ("+1.00 ± 0.50", "−0.50 ± 0.50")
    (row,) = csv.DictReader(io.StringIO(table.csv))
    assert float(row["difference of b: m - a: m"]) == 1
    assert float(row["standard error of b: m - a: m"]) == pytest.approx(0.5)


def test_over_relative_depth_quarters_are_compared(unlike):
    compared = sides(unlike)
    (table,) = difference_tables(
        compared, quantities_of("d", join_runs(compared, "d", exact=False)), pair(compared).errors
    )
    assert [(row[0], row[1], row[2], row[3]) for row in table.rows] == [
        ("second", "2.00 ± 0.30", "11.00 ± 0.30", "+9.00 ± 0.42"),
        ("last", "4.00 ± 0.30", "12.00 ± 0.30", "+8.00 ± 0.42"),
    ]


def test_a_quarter_holds_the_units_that_end_in_it():
    groups = {"d": titled(values("x", [100, 1, 2, 3, 4, 5], layer=range(6)))}
    compared = sides([a_run(groups, anatomy=tuple({**SHORT[0], "block": i} for i in range(5)))] * 2)
    (table,) = difference_tables(
        compared, quantities_of("d", join_runs(compared, "d", exact=False)), pair(compared).errors
    )
    means = [("first", "1.00"), ("second", "2.00"), ("third", "3.00"), ("last", "4.50")]
    assert [(row[0], row[1].split(" ")[0]) for row in table.rows] == means


def test_on_an_axis_of_their_own_only_common_places_are_compared():
    runs = [a_run({"d": titled(values("x", [1, 2], keep=keep))}) for keep in ([0.1, 0.5], [0.5, 1.0])]
    compared = sides(runs)
    (table,) = difference_tables(
        compared, quantities_of("d", join_runs(compared, "d", exact=True)), pair(compared).errors
    )
    assert [(row[0], row[-1]) for row in table.rows] == [("0.5", "−1.00 ± 0.42")]


@pytest.mark.parametrize(
    ("numbers", "text"),
    [((1.0, 3.0, 1.0, 4.0), "0.0 ± 5.0"), ((np.nan, 1.0, 2.0, 1.0), ""), ((1.0, 1.0, np.nan, 1.0), "")],
)
def test_a_difference_needs_both(numbers, text):
    mean, error, first, first_error = numbers
    ((apart, apart_error),) = differences((first, mean), (first_error, error), (None,))
    assert format_difference(apart, apart_error) == text


def test_a_paired_error_takes_the_place_of_that_of_independent_errors():
    assert differences((1.0, 3.0, 2.0), (3.0, 4.0, 4.0), (0.5, None)) == [(2.0, 0.5), (1.0, 5.0)]


def test_checkpoints_are_called_by_their_moment_and_shaded_in_order():
    compared = sides([a_run({}, f"net-epoch{moment}") for moment in (1, 10, 200)])
    assert [side.label for side in compared] == ["epoch 1", "epoch 10", "epoch 200"]
    shades = [side.style.shade for side in compared]
    assert shades == sorted(shades)
    assert CompareView(compared).title == "net from epoch 1 to epoch 200"


def test_the_step_that_a_callback_noted_names_the_run(tmp_path):
    found: list[Run] = []
    for step in (100, 200):
        one = a_run({"d": titled(values("y", step))})
        one.tree.attrs["step"] = step
        found.append(read_run(stored(tmp_path / str(step), one)))
    view = CompareView(sides(found))
    assert [side.label for side in view.sides] == ["step 100", "step 200"]
    assert view.title == "m from step 100 to step 200"
    ((course,),) = drawings(quantities_of("d", join_runs(view.sides, "d", view.exact)), view.strip)
    assert course.interactive().to_plotly_json()["data"][0]["mode"] == "lines+markers"


def test_runs_of_the_same_moment_or_without_one_are_called_by_letters():
    same = sides([a_run({}, "net-epoch1"), a_run({}, "net-epoch1")])
    one = sides([a_run({}, "net-epoch1"), a_run({}, "other")])
    assert [side.label for side in same] == ["a: net-epoch1", "b: net-epoch1"]
    assert [side.label for side in one] == ["a: net-epoch1", "b: other"]


def test_twelve_runs_are_told_apart():
    looks = [side.style for side in sides([a_run({})] * 12)]
    assert len({(look.colour, look.dash) for look in looks}) == 12
    assert len({look.symbol for look in looks}) == 12


def test_facts_that_differ_are_marked():
    view = CompareView(sides([a_run({}, "one"), a_run({}, "two")]))
    marks = {row.name: row.differs for row in view.facts}
    assert marks["name"]
    assert not marks["parameters"]


@pytest.mark.parametrize(("images", "said"), [("i", "saw the same images"), ("j", "did not see the same images")])
def test_it_says_whether_the_images_were_the_same(images, said):
    assert said in CompareView(sides([a_run({}), a_run({}, images=images)])).errors


def scored(predicted: list[int], loss: list[float], images: str = "i", **changed: object) -> Run:
    """A run of ten images of class 0, whose accuracy, loss and overconfidence are those of these scores."""
    numbers, confidence = np.arange(10), np.linspace(0.5, 0.95, 10)
    right = np.array(predicted) == 0
    parts = {"top1": right, "nll": loss, "overconfidence": confidence - right}
    groups = {
        name: titled(*(values(one, np.mean(parts[one]), np.std(parts[one], ddof=1) / 10**0.5) for one in several))
        for name, several in (("accuracy", ("top1", "nll")), ("calibration", ("overconfidence",)))
    }
    scores = {"label": [0] * 10, "predicted": predicted, "confidence": confidence, "loss": loss, **changed}
    arrays = {name: ("image", np.array(one)) for name, one in scores.items()}
    coords = {"image": numbers, "picture": ("image", [f"{number}.png" for number in numbers])}
    groups["predictions"] = xr.Dataset(arrays, coords, {"title": "Predictions", "fingerprint": images, "apart": 1})
    return a_run(groups, "one" if predicted[0] else "other", images=images)


BEFORE = scored([1, 1, 1, 1, 0, 0, 0, 0, 0, 0], [2.0] * 4 + [0.5] * 6)
AFTER = scored([0, 0, 0, 0, 0, 0, 0, 0, 0, 1], [1.0] * 4 + [0.25] * 5 + [3.0])


def test_runs_over_the_same_images_are_compared_image_by_image():
    """By hand: 4 gained, 1 lost, p = 2 (1 + 5) / 32; losses differ by -1 four times, -1/4 five times, 2.5 once."""
    pairings = pair(sides([BEFORE, AFTER]))
    (found,) = pairings.found
    assert (found.right.gained, found.right.lost, found.right.p_value) == (4, 1, pytest.approx(0.375))
    apart = np.array([-1.0] * 4 + [-0.25] * 5 + [2.5])
    assert found.loss.mean == pytest.approx(apart.mean())
    assert found.loss.error == pytest.approx(apart.std(ddof=1) / 10**0.5)
    first, second, _ = found.sentences
    assert first.startswith("other is right on 4 images that one gets wrong, and wrong on 1 image that one gets right")
    assert "+30.00 points of accuracy over 10 images" in first
    assert "p = 0.38 (McNemar's exact test)" in first
    assert "differs by −0.28 ± 0.33 nats, 95 % interval −1." in second
    assert found.gained == ("0.png", "1.png", "2.png", "3.png")
    assert found.lost == ("9.png",)


def test_paired_errors_stand_on_the_page_and_in_its_table():
    compared = sides([BEFORE, AFTER])
    view = CompareView(compared)
    quantities = quantities_of("accuracy", join_runs(compared, "accuracy", exact=True))
    (table,) = difference_tables(compared, quantities, view.pairings.errors)
    top1, nll = csv.DictReader(io.StringIO(table.csv))
    right, loss = view.pairings.found[0].right, view.pairings.found[0].loss
    name = "standard error of b: other - a: one"
    assert float(top1[name]) == right.error == pytest.approx(np.std([1] * 4 + [0] * 5 + [-1], ddof=1) / 10**0.5)
    assert float(nll[name]) == loss.error
    assert view.differences[0].cells[0] == "+0.30 ± 0.21"
    assert "differences in accuracy/top1, accuracy/nll, calibration/overconfidence are computed" in view.errors


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (
            scored([1] * 10, [1.0] * 10, "j"),
            "they saw different images, or the same images with other labels (10 images of",
        ),
        (scored([1] * 10, [1.0] * 10, label=[1] * 10), "their images have different names or labels"),
        (a_run({}, "third"), "the run of third holds no scores of single images; measure its accuracy again"),
    ],
)
def test_runs_that_cannot_be_compared_image_by_image_say_why(other, said, tmp_path):
    pairings = pair(sides([AFTER, other]))
    assert pairings.each == (None,)
    (reason,) = pairings.refusals
    assert said in reason
    assert reason in unescape(compare([AFTER, other], tmp_path / "page.html").read_text())
    assert pairings.errors("accuracy/top1") == (None,)


def test_only_images_that_both_could_read_are_compared_and_ranks_make_the_five_most_probable():
    few = AFTER.tree.copy()
    few["predictions"] = xr.DataTree(few["predictions"].to_dataset().isel(image=slice(2, 10)))
    (found,) = pair(sides([BEFORE, Run(few)])).found
    assert (found.count, found.right.gained, found.right.lost) == (8, 2, 1)
    ranks = [1, 2, 5, 6, 0, 1, 1, 1, 1, 1]
    one, other = scored([1] * 10, [1.0] * 10, rank=ranks), scored([0] * 10, [1.0] * 10, rank=[1] * 10)
    top5 = pair(sides([one, other])).found[0].changes["accuracy/top5"]
    assert (top5.gained, top5.lost) == (2, 0)
    assert "accuracy/top5" not in found.changes


def test_a_loss_that_is_not_finite_in_one_run_is_left_out_of_the_change():
    found = pair(sides([BEFORE, scored([0] * 10, [np.nan, np.inf] + [1.0] * 8)])).found[0]
    assert found.loss.count == 8
    assert found.loss.mean == pytest.approx((-1.0 * 2 + 0.5 * 6) / 8)
    assert found.right.count == 10


def test_runs_that_are_right_on_the_same_images_say_so():
    first, loss, _ = (
        pair(sides([BEFORE, scored([2, 1, 1, 1, 0, 0, 0, 0, 0, 0], [3.0] * 4 + [1.5] * 6)])).found[0].sentences
    )
    assert "right on the same images" in first
    assert "differs by 1.000 nats, the same on every image" in loss


def test_the_page_of_a_run_of_several_models_says_the_same(tmp_path):
    """The scores of two models in one run, as a contrast keeps them."""
    scores = [run.tree["predictions"].to_dataset() for run in (BEFORE, AFTER)]
    joined_scores = xr.concat(scores, xr.IndexVariable("subject", ["one", "other"]), combine_attrs="override")
    run = a_run({"predictions": joined_scores})
    spec = json.loads(run.tree.attrs["spec"])
    spec["model"] = {"name": "one against other", "subjects": {"one": {"family": "f", "parameters": 1234}, "other": {}}}
    run.tree.attrs["spec"] = json.dumps(spec)
    (alone,) = pair_models(run)
    assert alone.sentences == pair(sides([BEFORE, AFTER])).found[0].sentences
    html = unescape(report(run, tmp_path / "page.html").read_text())
    assert alone.sentences[0] in html
    assert "f, 1,234 parameters" in html
    assert "No findings were drawn" not in html
    assert pair_models(BEFORE) == ()


def test_the_terminal_says_it_too_beside_the_path(tmp_path):
    folders = [stored(tmp_path / name, run) for name, run in (("a", BEFORE), ("b", AFTER))]
    told = CliRunner().invoke(app, ["compare", *folders, "--out", str(tmp_path / "page.html")])
    assert told.stdout.strip() == str(tmp_path / "page.html")
    assert "is right on 4 images that" in " ".join(told.stderr.split())


def test_what_only_some_have_is_said_with_the_reason():
    one = a_run({"d": titled(values("x", 1)), "e": titled(values("x", 1))})
    other = a_run({"d": titled(values("x", 2))})
    other.tree.attrs["skipped"] = json.dumps({"e": "no attention"})
    view = CompareView(sides([one, other]))
    assert view.alone == (("e", "not in b: m: no attention"),)
    assert [one.name for one in view.diagnostics] == ["d"]


def test_findings_stand_side_by_side_those_on_which_runs_disagree_first():
    agreed, disputed = claim("agreed", 0.9, "d/x"), claim("disputed", 0.1, "d/x")
    one = a_run({}).with_claims((agreed, disputed))
    other = a_run({}).with_claims((agreed, replace(disputed, verdict=Verdict.HOLDS)))
    alone = a_run({}).with_claims((agreed,))
    rows = CompareView(sides([one, other, alone])).findings
    assert [statement for statement, _ in rows] == ["statement disputed", "statement agreed"]
    assert [one and one.verdict for one in rows[0][1]] == [Verdict.UNDECIDED, Verdict.HOLDS, None]


def test_the_page_is_safe_loads_nothing_and_its_links_lead_somewhere(tmp_path):
    one = a_run({"d": titled(values("x", [1, 2], layer=[1, 2]), values("y", 1))}, HOSTILE).with_claims(
        (claim("c", 1.0, "d/x"),)
    )
    path = compare([one, a_run({"d": titled(values("x", [1, 2], layer=[1, 2]), values("y", 2))})], tmp_path / "c.html")
    html = path.read_text()
    html = html[: html.rindex("</main>")]
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert "<script>alert" not in html
    assert "<script>alert" in unescape(html)
    assert re.findall(r'(?:src|href)="(?!#|data:,)[^"]*"', html) == []
    assert set(re.findall(r'href="#([^"]+)"', html)) <= set(ids)
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("count", [0, 1, 13])
def test_too_few_and_too_many_runs_are_refused(tmp_path, count):
    with pytest.raises(UserError, match=f"takes 2 to 12 runs; {count} were given"):
        compare([a_run({})] * count, tmp_path / "c.html")


def stored(folder: Path, run: Run) -> str:
    RunFolder(str(folder)).write(run)
    return str(folder)


def test_the_command_takes_folders_and_files(tmp_path):
    one = stored(tmp_path / "a", a_run({"d": titled(values("y", 1))}))
    other = stored(tmp_path / "b", a_run({"d": titled(values("y", 2))}))
    out = tmp_path / "page.html"
    told = CliRunner().invoke(app, ["compare", one, f"{other}/run.nc", "--out", str(out)])
    assert (told.exit_code, told.stdout.strip()) == (0, str(out))
    assert "m, b" in out.read_text()  # both models are called m, so that their folders tell them apart


def test_runs_of_one_model_are_told_apart_by_what_differs():
    runs = [a_run({}), a_run({}), a_run({}, "other")]
    for run, weights in zip(runs, ("w/clean.pt", "w/tuned.pt", "w/any.pt"), strict=True):
        spec = json.loads(run.tree.attrs["spec"])
        run.tree.attrs["spec"] = json.dumps({**spec, "model": {**spec["model"], "weights": weights}})
    assert [side.label for side in sides(runs)] == ["a: m, clean.pt", "b: m, tuned.pt", "c: other"]
    assert [side.label for side in sides([a_run({}), a_run({})])] == ["a: m", "b: m"]
    assert [side.label for side in sides(runs, ["x", "y", "z"])] == ["x", "y", "z"]
    for labels in (["x"], ["x", "x", "y"]):
        with pytest.raises(UserError, match="give each run its own label"):
            sides(runs, labels)


@pytest.mark.parametrize(("runs", "said"), [(["a"], "needs at least two runs"), (["a", "gone"], "no finished run")])
def test_the_command_refuses_in_one_sentence(tmp_path, runs, said):
    stored(tmp_path / "a", a_run({}))
    told = CliRunner().invoke(app, ["compare", *(str(tmp_path / name) for name in runs)])
    assert told.exit_code == 2
    assert said in told.stderr
    assert "Traceback" not in told.stderr
