"""A few pictures as HTML, for notebooks."""

import base64
import io
from collections.abc import Sequence

import numpy as np
from markupsafe import Markup
from PIL import Image

SHOWN, SIDE = 8, 96


def evenly_spaced(count: int) -> list[int]:
    """Up to eight whole numbers, evenly spaced from 0 to below `count`."""
    return np.unique(np.linspace(0, count - 1, SHOWN).astype(np.int64)).tolist() if count else []


def gallery(title: str, pictures: Sequence[tuple[Image.Image | None, str]]) -> str:
    """A title above thumbnails with a line below each; None for a picture that cannot be shown."""
    cells = Markup("").join(
        Markup(
            '<figure style="margin:0;width:{}px;overflow-wrap:anywhere">{}<figcaption>{}</figcaption></figure>'
        ).format(SIDE, Markup("&#10005;") if picture is None else _thumbnail(picture), below)
        for picture, below in pictures
    )
    return str(Markup('<div>{}<div style="display:flex;flex-wrap:wrap;gap:8px">{}</div></div>').format(title, cells))


def _thumbnail(picture: Image.Image) -> Markup:
    small = picture.copy()
    small.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    small.save(buffer, format="PNG")
    data = base64.b64encode(buffer.getvalue()).decode()
    return Markup('<img alt="" src="data:image/png;base64,{}">').format(data)
