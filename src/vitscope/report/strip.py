"""The anatomy strip: the model from stem to tail, which is the axis of every figure over depth."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.transforms import blended_transform_factory

from vitscope.report.colour import LIGHT, kind_colour, token

Shape = dict[str, object]


@dataclass(frozen=True)
class Cell:
    """One place on the strip: layer 0 is the stem, i the i-th unit, the last the tail."""

    layer: int
    name: str
    kind: str
    stage: int
    block: int

    @property
    def colour(self) -> str:
        """The palette's name for its kind."""
        return kind_colour(self.kind)


@dataclass(frozen=True)
class Span:
    """Neighbouring cells that belong together, such as a stage."""

    number: int
    first: int
    last: int


@dataclass(frozen=True)
class Strip:
    """The cells from stem to tail; none if the model's anatomy is unknown."""

    cells: tuple[Cell, ...]

    @property
    def bounds(self) -> tuple[float, float]:
        """The ends of the axis."""
        return -0.5, len(self.cells) - 0.5

    @property
    def units(self) -> tuple[Cell, ...]:
        """The cells between stem and tail."""
        return self.cells[1:-1]

    @property
    def stages(self) -> tuple[Span, ...]:
        """The stages in order."""
        return _spans([(cell.stage, cell.layer) for cell in self.units])

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of unit, in order of appearance."""
        return tuple(dict.fromkeys(cell.kind for cell in self.units))

    @property
    def division(self) -> str:
        """What the axis counts: stages if there are several, otherwise blocks."""
        return "stage" if len(self.stages) > 1 else "block"

    @property
    def ticks(self) -> tuple[tuple[float, str], ...]:
        """The positions and texts of the axis labels, at most a dozen."""
        spans = self.stages
        if len(spans) < 2:
            spans = _spans([(cell.block, cell.layer) for cell in self.units])
        step = -(-len(spans) // 12) or 1
        return tuple(((span.first + span.last) / 2, str(span.number)) for span in spans[::step])

    def describe(self, layer: int) -> str:
        """The name and kind of a layer's unit."""
        cell = self.cells[layer]
        return cell.name if cell.kind in ("stem", "tail") else f"{cell.name} ({cell.kind})"

    def shapes(self) -> list[Shape]:
        """The strip beneath a plotly figure, attention shaded and downsampling and stages marked behind it."""
        shaded = [_column(cell, token("attention-shade")) for cell in self.units if cell.kind == "attention"]
        dotted = [_upright(float(cell.layer), "dot") for cell in self.units if cell.kind == "downsampling"]
        parted = [_upright(span.first - 0.5, "solid") for span in self.stages[1:]]
        return shaded + parted + dotted + [_tile(cell) for cell in self.cells]

    def paint(self, axes: Axes) -> None:
        """Draw the strip on matplotlib axes, in place of the horizontal axis."""
        below = blended_transform_factory(axes.transData, axes.transAxes)
        for cell in self.units:
            if cell.kind == "attention":
                axes.axvspan(cell.layer - 0.5, cell.layer + 0.5, color="#0072b2", alpha=0.08, linewidth=0, zorder=0)
            if cell.kind == "downsampling":
                axes.axvline(cell.layer, color=LIGHT["soft"], linewidth=0.6, linestyle=":", zorder=0)
        for cell in self.cells:
            place = (cell.layer - 0.42, -0.065)
            tile = Rectangle(place, 0.84, 0.042, transform=below, color=LIGHT[cell.colour], linewidth=0, clip_on=False)
            axes.add_patch(tile)
        for span in self.stages[1:]:
            axes.axvline(span.first - 0.5, color=LIGHT["rule"], linewidth=0.6, zorder=0)
        axes.set_xlim(*self.bounds)
        axes.set_xticks([at for at, _ in self.ticks], [text for _, text in self.ticks])
        axes.tick_params(axis="x", length=0, pad=9)
        axes.set_xlabel(self.division)


def strip(anatomy: Sequence[Mapping[str, str | int]]) -> Strip:
    """The strip of a run's anatomy."""
    if not anatomy:
        return Strip(())
    units = [
        Cell(layer, str(unit["unit"]), str(unit["kind"]), int(unit["stage"]), int(unit["block"]))
        for layer, unit in enumerate(anatomy, start=1)
    ]
    stem = Cell(0, "stem", "stem", units[0].stage, -1)
    tail = Cell(len(units) + 1, "tail", "tail", units[-1].stage, -1)
    return Strip((stem, *units, tail))


def _spans(numbered: Sequence[tuple[int, int]]) -> tuple[Span, ...]:
    groups = [(number, list(members)) for number, members in groupby(numbered, key=lambda pair: pair[0])]
    return tuple(Span(number, members[0][1], members[-1][1]) for number, members in groups)


def _column(cell: Cell, colour: str) -> Shape:
    return {
        "type": "rect",
        "layer": "below",
        "yref": "paper",
        "x0": cell.layer - 0.5,
        "x1": cell.layer + 0.5,
        "y0": 0,
        "y1": 1,
        "fillcolor": colour,
        "line": {"width": 0},
    }


def _upright(at: float, dash: str) -> Shape:
    line = {"width": 1, "dash": dash, "color": token("soft" if dash == "dot" else "rule")}
    return {"type": "line", "layer": "below", "yref": "paper", "x0": at, "x1": at, "y0": 0, "y1": 1, "line": line}


def _tile(cell: Cell) -> Shape:
    return {
        "type": "rect",
        "yref": "paper",
        "ysizemode": "pixel",
        "yanchor": 0,
        "x0": cell.layer - 0.42,
        "x1": cell.layer + 0.42,
        "y0": -4,
        "y1": -12,
        "fillcolor": token(cell.colour),
        "line": {"width": 0},
    }
