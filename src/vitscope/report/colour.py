"""The palette of the style sheet, plotly and matplotlib, which uses the light half.

Built on the colours of Okabe and Ito (2008), which people with any common colour blindness can distinguish. In plotly a
colour is the name of a CSS variable, which the page resolves when it draws, so that one figure serves light and dark.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

LIGHT: Mapping[str, str] = MappingProxyType(
    {
        "paper": "#ffffff",
        "panel": "#f6f7f9",
        "ink": "#1c2024",
        "soft": "#59626c",
        "rule": "#d8dde2",
        "link": "#005a94",
        "line": "#6b7580",
        "band": "rgba(70,82,94,0.20)",
        "cursor": "rgba(28,32,36,0.10)",
        "attention": "#0072b2",
        "mlp": "#e69f00",
        "convolution": "#009e73",
        "token-mixing": "#cc79a7",
        "downsampling": "#3b4148",
        "rearrangement": "#b7bfc7",
        "block": "#56b4e9",
        "stem": "#949ea8",
        "tail": "#949ea8",
        "attention-shade": "rgba(0,114,178,0.065)",
        "bar": "rgba(86,180,233,0.35)",
        "series-0": "#0072b2",
        "series-1": "#d55e00",
        "series-2": "#009e73",
        "series-3": "#cc79a7",
        "series-4": "#b07d00",
        "series-5": "#4d5761",
        "problem": "#b04a00",
        "look": "#005a94",
        "good": "#00694d",
        "theory": "#59626c",
        "ramp-0": "#f1f5f9",
        "ramp-25": "#b5cee3",
        "ramp-50": "#6ba1cb",
        "ramp-75": "#2a72ab",
        "ramp-100": "#0a3c69",
        "both-0": "#a84300",
        "both-25": "#e5a771",
        "both-50": "#f4f4f2",
        "both-75": "#7fb1d6",
        "both-100": "#07568f",
    }
)

DARK: Mapping[str, str] = MappingProxyType(
    {
        "paper": "#14171a",
        "panel": "#1c2024",
        "ink": "#e7eaed",
        "soft": "#a3adb7",
        "rule": "#343b42",
        "link": "#7cc0ee",
        "line": "#8d98a3",
        "band": "rgba(175,188,200,0.24)",
        "cursor": "rgba(231,234,237,0.14)",
        "attention": "#4ba3db",
        "mlp": "#e8ad2f",
        "convolution": "#2dbb92",
        "token-mixing": "#d893b8",
        "downsampling": "#d3d9df",
        "rearrangement": "#5d6770",
        "block": "#7cc6f0",
        "stem": "#78838d",
        "tail": "#78838d",
        "attention-shade": "rgba(75,163,219,0.11)",
        "bar": "rgba(86,180,233,0.30)",
        "series-0": "#4ba3db",
        "series-1": "#f08a3c",
        "series-2": "#2dbb92",
        "series-3": "#d893b8",
        "series-4": "#d9a520",
        "series-5": "#c3ccd4",
        "problem": "#f2974f",
        "look": "#7cc0ee",
        "good": "#4cc9a0",
        "theory": "#a3adb7",
        "ramp-0": "#17212a",
        "ramp-25": "#1d4464",
        "ramp-50": "#2f74a6",
        "ramp-75": "#78b1d8",
        "ramp-100": "#e0eef9",
        "both-0": "#f5a468",
        "both-25": "#96511b",
        "both-50": "#1d2125",
        "both-75": "#245f8c",
        "both-100": "#84c2ef",
    }
)

STOPS = (0, 25, 50, 75, 100)
_KINDS = frozenset(
    ("attention", "mlp", "convolution", "token-mixing", "downsampling", "rearrangement", "block", "stem", "tail")
)


def token(name: str) -> str:
    """The CSS variable of a colour."""
    return f"var(--{name})"


def kind_colour(kind: str) -> str:
    """The palette's name for a unit's kind; an unknown kind looks like an opaque block."""
    return kind if kind in _KINDS else "block"


def kind_tokens(kinds: Sequence[str]) -> list[str]:
    """The CSS variables of the units' kinds."""
    return [token(kind_colour(kind)) for kind in kinds]


def scale(name: str) -> list[list[float | str]]:
    """A plotly colour scale through the stops of ``ramp`` (one-sided) or ``both`` (two-sided)."""
    return [[stop / 100, token(f"{name}-{stop}")] for stop in STOPS]


def declarations(palette: Mapping[str, str]) -> str:
    """The palette as CSS declarations."""
    return "".join(f"--{name}:{colour};" for name, colour in palette.items())
