"""How studies and curvature are drawn: by their axes, on the strip where these are units."""

import numpy as np
import pytest
import xarray as xr
from report_run import ANATOMY, HOSTILE, group, run

from vitscope.measurement.quantity import Quantity, label_quantity
from vitscope.report import figures
from vitscope.report.drawing import drawings
from vitscope.report.drawing.distribution import warp
from vitscope.report.measured import quantities_of
from vitscope.report.page import page
from vitscope.report.strip import strip

STRIP = strip(ANATOMY)
LESION = {
    "lesion": ("lesion", [1, 2, 4], {"long_name": "Unit left out", "units": "1"}),
    "lesion_unit": ("lesion", ["a", "b", "d"]),
    "lesion_kind": ("lesion", ["attention", "mlp", "attention"]),
}
PART = {
    "part": ("part", ["a", "b", "head"]),
    "part_kind": ("part", ["unit", "unit", "tail"]),
    "part_layer": ("part", [1, 3, -1]),
}
COORDINATES = {
    "lesion": LESION,
    "part": PART,
    "layer": {"layer": np.arange(5)},
    "head": {"head": np.arange(3)},
    "keep": {"keep": ("keep", [0.1, 0.5, 1.0], {"long_name": "Share kept", "units": "1"})},
    "frequency": {"frequency": np.linspace(0, 1, 4)},
    "ranking": {"ranking": ["attention", f"norm {HOSTILE}"]},
    "corruption": {"corruption": [f"kind {i}" for i in range(9)]},
    "severity": {"severity": np.arange(1, 6)},
    "first": {"first": [-1.0, 0.0, 1.0]},
    "second": {"second": [-1.0, 0.0, 1.0]},
    "minibatch": {"minibatch": np.arange(4)},
    "rank": {"rank": np.arange(3)},
    "eigenvalue": {"eigenvalue": np.linspace(-1, 1, 101)},
    "shape": {"shape": ["mean", "local"]},
}


def values(name: str, *dims: str, numbers: np.ndarray | None = None) -> xr.Dataset:
    coords = {key: value for dim in dims for key, value in COORDINATES[dim].items()}
    shape = tuple(len(xr.Dataset(coords=COORDINATES[dim])[dim]) for dim in dims)
    mean = np.arange(1.0, 1.0 + np.prod(shape)).reshape(shape) if numbers is None else numbers
    quantity = Quantity(name, f"label of {name}", "1", f"meaning of {name}", "Larger is better.")
    return label_quantity(quantity, dims, mean, np.full(shape, 0.5), np.full(shape, 16), coords)


def studied(*dims: str) -> xr.Dataset:
    """A study's group: a quantity, its change, and what the intact model has."""
    return xr.merge([values("x", *dims), values("x_change", *dims), values("x_intact")], compat="override")


def shown(dataset: xr.Dataset) -> list[list[str]]:
    groups = drawings(quantities_of("any", dataset), STRIP)
    return [[type(drawing).__name__ for drawing in group] for group in groups]


@pytest.mark.parametrize(
    ("dims", "expected"),
    [
        (("lesion",), ["DepthStems"]),
        (("part",), ["DepthStems"]),
        (("lesion", "head"), ["DepthDots"]),
        (("part", "minibatch", "rank"), ["DepthDots"]),
        (("lesion", "layer"), ["HeatMap"]),
        (("shape", "layer"), ["DepthLines"]),
        (("shape", "lesion"), ["DepthLines"]),
        (("keep", "layer"), ["HeatMap", "CurveFamily"]),
        (("ranking", "keep"), ["SeriesLines"]),
        (("corruption", "severity"), ["HeatMap"]),
        (("first", "second"), ["Contour", "Surface"]),
        (("minibatch", "rank"), ["Distribution"]),
        (("minibatch",), ["Distribution"]),
        (("eigenvalue",), ["CoordinateLines"]),
        (("shape", "keep", "ranking"), ["SeriesLines"] * 2),
        (("lesion", "layer", "frequency"), ["HeatMap"] * 4),
        (("corruption", "severity", "layer"), ["HeatMap"] * 9),
    ],
)
def test_axes_decide_the_drawing(dims, expected):
    assert shown(values("quantity", *dims)) == [expected]


def test_a_lesion_stands_on_the_strip_at_its_layer_and_others_have_a_gap():
    ((stems,),) = drawings(quantities_of("any", values("quantity", "lesion")), STRIP)
    layout, (points,) = (stems.interactive().to_plotly_json()[part] for part in ("layout", "data"))
    assert (points["x"], points["y"], points["mode"]) == ([1, 2, 4], [1, 2, 3], "markers")
    assert tuple(layout["xaxis"]["range"]) == STRIP.bounds
    assert points["marker"]["color"] == ["var(--attention)", "var(--mlp)", "var(--attention)"]
    assert stems.over_depth


def test_a_part_that_is_no_unit_is_left_out():
    ((stems,),) = drawings(quantities_of("any", values("quantity", "part")), STRIP)
    assert stems.interactive().to_plotly_json()["data"][0]["x"] == [1, 3]


def test_an_axis_over_units_of_an_unknown_anatomy_is_an_axis_like_others():
    ((lines,),) = drawings(quantities_of("any", values("quantity", "lesion")), strip(()))
    assert type(lines).__name__ == "CoordinateLines"


def test_the_change_comes_first_then_the_quantity_and_what_is_intact_is_their_reference():
    change, quantity, intact = quantities_of("any", studied("lesion"))
    assert [one.name for one in (change, quantity, intact)] == ["x_change", "x", "x_intact"]
    assert (change.is_change, quantity.is_change, intact.is_intact) == (True, False, True)
    (first,), (second,) = drawings((change, quantity, intact), STRIP)
    zero, stems, _ = first.interactive().to_plotly_json()["data"]
    line = second.interactive().to_plotly_json()["data"][0]
    assert (zero["y"], zero["name"]) == ([0, 0], "no change (intact, 1.00 ± 0.50)")
    assert stems["y"][:5] == [0, 1, None, 0, 2]
    assert (line["y"], line["name"]) == ([1, 1], "intact, 1.00 ± 0.50")


def test_a_quantity_that_is_called_change_by_its_diagnostic_is_no_change_from_the_intact():
    own = xr.merge([values("log_change", "lesion"), values("log_change_intact")], compat="override")
    assert [one.is_change for one in quantities_of("any", own)] == [False, False]


def test_of_a_landscape_the_quantity_comes_before_its_change():
    assert [one.name for one in quantities_of("any", studied("first", "second"))] == ["x", "x_change", "x_intact"]


def test_a_groups_headline_comes_first():
    two = xr.merge([studied("keep"), values("y", "keep"), values("y_intact")], compat="override")
    names = [one.name for one in quantities_of("any", two.assign_attrs(headline="y"))]
    assert names[:3] == ["y", "x_change", "x"]


def test_lines_of_several_settings_carry_their_errors_as_bands_and_are_told_apart():
    ((lines,),) = drawings(quantities_of("any", values("quantity", "ranking", "keep")), STRIP)
    low, _, first, second = lines.interactive().to_plotly_json()["data"]
    assert low["y"] == [1.5, 2.5, 3.5, 2.5, 1.5, 0.5]
    assert low["fillcolor"] == "var(--series-0-faint)"
    assert (first["y"], second["y"]) == ([1, 2, 3], [4, 5, 6])
    assert len({(one["line"]["color"], one["marker"]["symbol"]) for one in (first, second)}) == 2
    assert lines.interactive().to_plotly_json()["layout"]["xaxis"]["title"]["text"] == "share kept"


@pytest.mark.parametrize(
    ("low", "high", "ticks"), [(1.0, 9.0, None), (0.1, 100.0, ["0.1", "0.2", "0.5", "1", "2", "5", "10"])]
)
def test_a_landscape_over_decades_has_a_logarithmic_colour_scale(low, high, ticks):
    heights = np.full((3, 3), high)
    heights[1, 1] = low
    contour = drawings(quantities_of("any", values("q", "first", "second", numbers=heights)), STRIP)[0][0]
    shown, centre = contour.interactive().to_plotly_json()["data"]
    assert shown["z"][1][1] == pytest.approx(low if ticks is None else -1)
    marks = shown["colorbar"].get("ticktext")
    assert marks == (None if ticks is None else ["0.1", "1", "10", "100"])
    assert (centre["x"], centre["y"]) == ([0], [0])
    assert "0.5000" in contour.how_to_read


def test_the_first_direction_goes_across():
    heights = np.array([[1.0, 2.0, 3.0]] * 3)
    contour = drawings(quantities_of("any", values("q", "first", "second", numbers=heights)), STRIP)[0][0]
    assert contour.interactive().to_plotly_json()["data"][0]["z"] == [[1, 1, 1], [2, 2, 2], [3, 3, 3]]


def test_eigenvalues_are_pooled_and_told_apart_by_sign():
    numbers = np.array([[9.0, 3.0, -1.0], [8.0, -2.0, -1.0], [7.0, 2.0, 1.0], [6.0, np.nan, 1.0]])
    ((spread,),) = drawings(quantities_of("any", values("q", "minibatch", "rank", numbers=numbers)), STRIP)
    down, down_rug, up, up_rug = spread.interactive().to_plotly_json()["data"]
    assert sorted(down_rug["x"]) == [-2, -1, -1]
    assert sorted(up_rug["x"]) == [1, 1, 2, 3, 6, 7, 8, 9]
    assert "Negative: 3 of 11." in spread.how_to_read
    assert max(x + down["width"] / 2 for x in down["x"]) <= 1e-9
    assert min(x - up["width"] / 2 for x in up["x"]) >= -1e-9


@pytest.mark.parametrize(("largest", "threshold"), [(40.0, None), (1e4, 1.0)])
def test_a_spread_over_decades_is_logarithmic_on_both_sides(largest, threshold):
    numbers = np.array([-largest, -1.0, 1.0, 2.0, 3.0, largest])
    change = warp(numbers)
    assert change.threshold == threshold
    assert change.back(change(numbers)) == pytest.approx(numbers)
    assert change(-numbers) == pytest.approx(-change(numbers))


def test_a_logarithmic_axis_is_in_decades_of_its_threshold():
    change = warp(np.array([-1e5, -10.0, 10.0, 20.0, 30.0, 1e5]))
    assert change(np.array([-990.0, 0.0, 90.0])) == pytest.approx([-2, 0, 1])


def test_a_density_over_decades_has_a_logarithmic_axis_and_is_cut():
    x = np.linspace(-1, 1, 101)
    ((curve,),) = drawings(quantities_of("any", values("q", "eigenvalue", numbers=np.exp(-200 * x**2))), STRIP)
    drawn = curve.interactive().to_plotly_json()
    assert drawn["layout"]["yaxis"]["type"] == "log"
    assert drawn["data"][0]["mode"] == "lines"
    assert drawn["data"][0]["y"][0] is None
    assert drawn["data"][0]["y"][50] == 1


def test_small_multiples_share_their_scale_and_say_which_they_are():
    group = drawings(quantities_of("any", values("q", "lesion", "layer", "severity")), STRIP)[0]
    maps = [drawing.interactive().to_plotly_json()["data"][0] for drawing in group]
    assert {(one["zmin"], one["zmax"]) for one in maps} == {(1, 75)}
    assert [drawing.quantities[0].entry for drawing in group] == [f"severity {i}" for i in range(1, 6)]
    assert [drawing.file for drawing in group][:1] == ["any-q-severity-1-map"]
    assert [one["showscale"] for one in maps] == [True] + [False] * (len(maps) - 1)


def test_questions_come_in_the_order_of_the_page():
    asked = ("What can it lose?", "Where does it look?", "Any other?", "How is its loss curved?")
    groups = {f"g{i}": group(f"title {i}", question, values("q", "keep")) for i, question in enumerate(asked)}
    html = page([run(groups)])
    places = [html.index(f"<h2>{asked[i]}</h2>") for i in (2, 1, 3, 0)]
    assert places == sorted(places)


def test_the_page_of_a_study_shows_its_change_folds_the_rest_and_is_safe():
    groups = {
        "lesion-accuracy": group("Lesion study: Accuracy", "What does it depend on?", studied("lesion")),
        "keep-accuracy": group(HOSTILE, "What can it lose?", studied("ranking", "keep")),
        "land-accuracy": group("Land", "How is its loss curved?", studied("first", "second")),
        "many": group("Many", "What can it lose?", values("q", "corruption", "severity", "layer")),
    }
    html = page([run(groups)])
    html = html[: html.rindex("</main>")]
    assert "<script>alert" not in html
    assert html.index('id="run1-lesion-accuracy-x-change"') < html.index('id="run1-lesion-accuracy-x"')
    assert html.count("1 more figure: ") == 3
    assert "5 more like these" in html
    assert "The first 200 of 225 rows" in html


def test_a_landscape_is_a_contour_map_on_paper(tmp_path):
    written = figures(
        run({"land": group("Land", "How is its loss curved?", values("q", "first", "second"))}), tmp_path, "svg"
    )
    assert [path.name for path in written] == ["land-q-contour.svg"]


@pytest.mark.parametrize(
    "dims", [("lesion",), ("shape", "layer"), ("ranking", "keep"), ("minibatch", "rank"), ("lesion", "head")]
)
def test_every_drawing_of_a_study_has_its_figure_for_a_paper(tmp_path, dims):
    (file,) = figures(run({"d": group("D", "Which?", values("q", *dims))}), tmp_path, "svg")
    assert file.read_text().rstrip().endswith("</svg>")
