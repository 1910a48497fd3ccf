import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure
from report_run import ANATOMY, dataset

from vitscope.report.drawing import drawings
from vitscope.report.drawing.drawing import break_axis_words, break_lines
from vitscope.report.measured import quantities_of
from vitscope.report.strip import strip

STRIP = strip(ANATOMY)


@pytest.mark.parametrize(
    ("dims", "expected"),
    [
        ((), []),
        (("layer",), ["DepthLine"]),
        (("layer", "head"), ["DepthDots"]),
        (("layer", "frequency"), ["HeatMap", "CurveFamily"]),
        (("frequency", "layer"), ["HeatMap", "CurveFamily"]),
        (("confidence_bin",), ["CoordinateLines"]),
        (("epoch",), ["CoordinateLines"]),
        (("epoch", "frequency"), ["HeatMap"]),
        (("layer", "frequency", "epoch"), ["HeatMap", "CurveFamily"] * 2),
    ],
)
def test_axes_decide_the_drawing(dims, expected):
    groups = drawings(quantities_of("any-name", dataset("quantity", *dims)), STRIP)
    assert [type(drawing).__name__ for group in groups for drawing in group] == expected


def test_a_model_of_unknown_anatomy_has_no_strip_to_draw_on():
    ((drawing,),) = drawings(quantities_of("any", dataset("quantity", "layer")), strip(()))
    assert type(drawing).__name__ == "CoordinateLines"
    assert not drawing.over_depth


def test_quantities_of_one_axis_and_unit_share_a_figure():
    several = xr.merge(
        [dataset("a", "epoch"), dataset("b", "epoch"), dataset("c", "epoch", unit="nats")],
        compat="override",
        join="outer",
    )
    names = [[q.name for q in group[0].quantities] for group in drawings(quantities_of("any", several), STRIP)]
    assert names == [["a", "b"], ["c"]]


@pytest.mark.parametrize("dims", [("layer",), ("layer", "head"), ("layer", "frequency")])
def test_figures_over_depth_share_range_and_margins_with_the_strip(dims):
    drawing = drawings(quantities_of("any", dataset("quantity", *dims)), STRIP)[0][0]
    layout = drawing.interactive().to_plotly_json()["layout"]
    assert drawing.over_depth
    assert tuple(layout["xaxis"]["range"]) == STRIP.bounds == (-0.5, 5.5)
    assert (layout["margin"]["l"], layout["margin"]["r"]) == (52, 14)
    assert [shape["x0"] for shape in layout["shapes"] if shape.get("ysizemode") == "pixel"] == pytest.approx(
        [-0.42, 0.58, 1.58, 2.58, 3.58, 4.58]
    )


def test_the_band_is_one_standard_error_wide():
    ((line,),) = drawings(quantities_of("any", dataset("quantity", "layer")), STRIP)
    band, _ = line.interactive().to_plotly_json()["data"]
    assert band["x"] == [0, 1, 2, 3, 4, 4, 3, 2, 1, 0]
    assert band["y"] == pytest.approx([0.35, 1.35, 2.35, 3.35, 4.35, 3.85, 2.85, 1.85, 0.85, -0.15])


def test_a_head_that_a_unit_does_not_have_has_no_dot():
    padded = dataset("quantity", "layer", "head")
    padded["quantity"][1:, 2] = np.nan
    padded["quantity"][0, :] = np.nan
    ((dots,),) = drawings(quantities_of("any", padded), STRIP)
    line, points = dots.interactive().to_plotly_json()["data"]
    assert points["y"] == pytest.approx([3.1, 4.1, 6.1, 7.1, 9.1, 10.1, 12.1, 13.1])
    assert points["x"] == pytest.approx([0.85, 1.15, 1.85, 2.15, 2.85, 3.15, 3.85, 4.15])
    assert line["y"] == [None, pytest.approx(3.6), pytest.approx(6.6), pytest.approx(9.6), pytest.approx(12.6)]


def test_attention_is_shaded_and_downsampling_dotted():
    shapes = STRIP.shapes()
    shaded = [shape["x0"] for shape in shapes if shape.get("fillcolor") == "var(--attention-shade)"]
    dotted = [shape["x0"] for shape in shapes if shape["type"] == "line" and shape["line"]["dash"] == "dot"]
    assert shaded == [0.5, 3.5]
    assert dotted == [3]


def test_a_probability_axis_has_a_diagonal_and_shares_are_bars():
    shares = dataset("share", "confidence_bin")
    shares["share"][:] = [0.25, 0.75]
    both = xr.merge([dataset("value", "confidence_bin"), shares], compat="override", join="outer")
    ((drawing,),) = drawings(quantities_of("any", both), STRIP)
    bars, diagonal, line = drawing.interactive().to_plotly_json()["data"]
    assert (bars["type"], bars["y"]) == ("bar", [0.25, 0.75])
    assert (diagonal["x"], diagonal["y"]) == ([0, 1], [0, 1])
    assert line["error_y"]["array"] == [0.25, 0.25]


@pytest.mark.parametrize(
    ("values", "kind"), [([1, 2, 3, 4, 51], "log"), ([1, 2, 3, 4, 50], "linear"), ([0, 1, 2, 3, 99], "linear")]
)
def test_values_that_span_decades_get_a_logarithmic_axis(values, kind):
    wide = dataset("quantity", "layer")
    wide["quantity"][:] = values
    wide["quantity_error"][:] = np.nan
    ((line,),) = drawings(quantities_of("any", wide), STRIP)
    assert line.interactive().to_plotly_json()["layout"]["yaxis"]["type"] == kind


@pytest.mark.parametrize(("values", "middle"), [([-1, 0, 1, 2, 3], 0.0), ([0, 1, 2, 3, 4], None)])
def test_a_map_of_both_signs_is_two_sided_about_zero(values, middle):
    signed = dataset("quantity", "layer", "frequency")
    signed["quantity"][:] = np.array(values, dtype=float)[:, None]
    drawing = drawings(quantities_of("any", signed), STRIP)[0][0]
    assert drawing.interactive().to_plotly_json()["data"][0].get("zmid") == middle


def test_a_quantity_without_a_single_value_is_left_out():
    empty = dataset("quantity", "layer")
    empty["quantity"][:] = np.nan
    assert quantities_of("any", empty) == ()


def test_stages_label_the_strip_and_blocks_where_there_is_one_stage():
    assert (STRIP.division, STRIP.ticks) == ("stage", ((1.5, "0"), (3.5, "1")))
    one = strip(ANATOMY[:2])
    assert (one.division, one.ticks) == ("block", ((1.5, "0"),))


def test_a_logarithmic_axis_goes_up_a_heat_map_in_equal_factors():
    quantity = dataset("quantity", "epoch", "frequency").assign_coords(
        frequency=("frequency", [4, 8, 16, 32], {"scale": "log"})
    )
    drawing = drawings(quantities_of("any", quantity), STRIP)[0][0]
    axis = drawing.interactive().to_plotly_json()["layout"]["yaxis"]
    assert axis["type"] == "log"
    assert list(axis["tickvals"]) == [4, 8, 16, 32]
    assert list(axis["ticktext"]) == ["4", "8", "16", "32"]
    axes = plt.figure().add_subplot()
    drawing.paint(axes)
    corners = axes.collections[0].get_coordinates()
    assert axes.get_yscale() == "log"
    assert corners[:, 0, 1].tolist() == pytest.approx((4 * 2.0 ** np.arange(-0.5, 4)).tolist())
    assert corners[0, :, 0].tolist() == pytest.approx([0.5, 1.5, 2.5])
    plt.close(axes.figure)


def test_a_heat_map_of_one_column_has_a_column():
    drawing = drawings(quantities_of("any", dataset("quantity", "epoch", "frequency").isel(epoch=[0])), STRIP)[0][0]
    axes = plt.figure().add_subplot()
    drawing.paint(axes)
    assert axes.collections[0].get_coordinates()[0, :, 0].tolist() == pytest.approx([0.5, 1.5])
    plt.close(axes.figure)


def theory_beside(dim: str, *more: str) -> xr.Dataset:
    """A measured quantity and a prediction of it; with names, a prediction among its own lines."""
    if more:
        lines = dataset("measured", dim, *more)
        lines["measured"].attrs |= {"predicted": ["guess"], "missing": "not reached"}
        return lines
    both = xr.merge([dataset("measured", dim), dataset("guess", dim)], compat="override", join="outer")
    both["guess"].attrs["predicted"] = "label of guess"  # as a file gives back a list of one
    both["measured"].attrs["missing"] = "not reached"
    return both


def test_a_prediction_is_dashed_and_has_no_markers():
    ((drawing,),) = drawings(quantities_of("any", theory_beside("epoch")), STRIP)
    line, guess = drawing.interactive().to_plotly_json()["data"]
    assert (line["mode"], line["line"]["dash"]) == ("lines+markers", "solid")
    assert (guess["mode"], guess["line"]["dash"]) == ("lines", "dash")
    assert "Dashed, without markers: predicted." in drawing.how_to_read
    axes = plt.figure().add_subplot()
    drawing.paint(axes)
    assert [bars.lines[0].get_linestyle() for bars in axes.containers] == ["-", "--"]


def test_a_prediction_among_lines_is_dashed_and_has_no_markers_nor_band():
    lines = theory_beside("epoch", "frequency").assign_coords(frequency=["a", "b", "c", "guess"])
    ((drawing,),) = drawings(quantities_of("any", lines), STRIP)
    traces = drawing.interactive().to_plotly_json()["data"]
    styles = {one["name"]: (one["mode"], one["line"]["dash"]) for one in traces if "name" in one}
    assert styles == {**dict.fromkeys("abc", ("lines+markers", "solid")), "guess": ("lines", "dash")}
    assert sum("fill" in one for one in traces) == 3
    assert "Dashed, without markers: predicted." in drawing.how_to_read


def test_predictions_over_names_are_hollow():
    names = theory_beside("epoch").assign_coords(epoch=["x", "y"])
    ((drawing,),) = drawings(quantities_of("any", names), STRIP)
    line, guess = drawing.interactive().to_plotly_json()["data"]
    assert (line["mode"], line["marker"]["symbol"]) == ("markers", "circle")
    assert (guess["mode"], guess["marker"]["symbol"]) == ("markers", "square-open")
    assert "Hollow: predicted." in drawing.how_to_read


def test_what_is_missing_is_said_in_its_place():
    lacking = theory_beside("epoch")
    lacking["measured"][1] = np.nan
    ((drawing,),) = drawings(quantities_of("any", lacking), STRIP)
    _, note = drawing.interactive().to_plotly_json()["layout"]["annotations"]
    assert (note["x"], note["text"]) == (2.0, "not<br>reached")
    lacking["guess"][0] = np.nan
    assert len(drawing.interactive().to_plotly_json()["layout"]["annotations"]) == 2


AXES = [("layer",), ("layer", "head"), ("layer", "frequency"), ("confidence_bin",), ("epoch",), ("epoch", "frequency")]


@pytest.mark.parametrize(("unit", "said"), [("1", "Label of quantity"), ("nats", "Label of quantity (nats)")])
def test_every_figure_says_what_its_vertical_axis_or_its_colour_is_with_the_unit(unit, said):
    for dims in AXES:
        for group in drawings(quantities_of("any", dataset("quantity", *dims, unit=unit)), STRIP):
            for drawing in group:
                layout = drawing.interactive().to_plotly_json()["layout"]
                assert layout["annotations"][0]["text"] == said, (dims, drawing)
                if drawing.name == "map":
                    assert layout["yaxis"]["title"]["text"] == dims[1]
                assert said in [axis.get_ylabel().replace("\n", " ") for axis in painted(drawing).figure.axes]
                assert all(axis.get_ylabel() for axis in painted(drawing).figure.axes)


def painted(drawing):
    axes = Figure().add_subplot()
    axes.set_ylabel(break_axis_words(drawing.quantities))
    drawing.paint(axes)
    return axes


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (("Largest Hessian eigenvalues", "Smallest Hessian eigenvalues"), "Hessian eigenvalues (nats)"),
        (("Steps to half", "Steps to half, mean field"), "Steps to half (nats)"),
        (("accuracy of the bin", "confidence of the bin"), "Bin (nats)"),
        (("Accuracy", "Confidence"), "Value (nats)"),
    ],
)
def test_quantities_of_one_axis_are_called_by_the_words_that_they_share(labels, said):
    both = xr.merge([dataset(name, "epoch", unit="nats") for name in "ab"], compat="override", join="outer")
    for name, label in zip("ab", labels, strict=True):
        both[name].attrs["long_name"] = label
    ((drawing,),) = drawings(quantities_of("any", both), STRIP)
    assert drawing.interactive().to_plotly_json()["layout"]["annotations"][0]["text"] == said
    assert drawing.file == "any-a-b"


def test_long_words_of_an_axis_stand_in_lines_as_even_as_can_be():
    assert break_lines("Change of the log variance across the unit (log)", 26) == [
        "Change of the log variance",
        "across the unit (log)",
    ]
    assert break_lines("Negative log-likelihood (nats)", 26) == ["Negative", "log-likelihood (nats)"]
    assert (break_lines("", 26), break_lines("entropy", 26)) == ([], ["entropy"])


def test_whole_numbers_have_no_ticks_between_them():
    ((drawing,),) = drawings(quantities_of("any", dataset("quantity", "epoch")), STRIP)
    ticks = painted(drawing).get_xticks()
    assert np.array_equal(ticks, np.round(ticks))


def test_a_legend_stands_above_the_unit():
    ((drawing,),) = drawings(quantities_of("any", theory_beside("epoch")), STRIP)
    layout = drawing.interactive().to_plotly_json()["layout"]
    assert (layout["legend"]["yref"], layout["legend"]["yanchor"]) == ("container", "top")
    assert min(layout["margin"]["t"], layout["meta"]["wide_margin"]) >= 20 + 26


@pytest.mark.parametrize(("count", "ticks"), [(5, 5), (24, None)])
def test_the_few_entries_of_a_logarithmic_axis_are_all_its_ticks(count, ticks):
    at = np.geomspace(0.1, 0.8, count).round(4)
    values = xr.Dataset({"quantity": ("alpha", at)}, coords={"alpha": ("alpha", at, {"scale": "log"})})
    ((drawing,),) = drawings(quantities_of("any", values), STRIP)
    axis = drawing.interactive().to_plotly_json()["layout"]["xaxis"]
    assert axis["type"] == "log"
    assert (list(axis["tickvals"]) == at.tolist()) if ticks else "tickvals" not in axis
    axes = plt.figure().add_subplot()
    drawing.paint(axes)
    assert axes.get_xticks().tolist() == at.tolist() if ticks else True
