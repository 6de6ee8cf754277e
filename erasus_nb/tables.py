"""Numbers in words, tables and small pictures in HTML, the same on every page.

Knows neither torch nor Jupyter.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Collection, Sequence
from difflib import SequenceMatcher
from typing import Protocol

import numpy as np
from markupsafe import Markup, escape
from PIL import Image

DASH = "—"


class Html(str):
    """HTML that a notebook shows as such."""

    def _repr_html_(self) -> str:
        return str(self)


def number(value: float | None, digits: int = 2) -> str:
    """A number with so many decimals; a dash where there is none. Never "-0.00"."""
    if value is None or not math.isfinite(value):
        return DASH
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text


class Spread(Protocol):
    """A mean over n seeds and the ends of its interval; score.Interval is one."""

    mean: float
    low: float
    high: float
    n: int


def interval(value: Spread | None, digits: int = 1, unknown: str = DASH) -> str:
    """Mean and interval in words, "71.2 (69.8 to 72.6)"; `unknown` where there is none."""
    if value is None:
        return unknown
    if value.n < 2:
        return f"{number(value.mean, digits)} (one seed)"
    ends = f"{number(value.low, digits)} to {number(value.high, digits)}"
    return f"{number(value.mean, digits)} ({ends})"


def table(
    columns: Sequence[str], lines: Sequence[Sequence[str]], strong: Collection[str] = ()
) -> Html:
    """An HTML table; text is escaped, and a cell of markup (Markup) stands to the left.

    Args:
        strong: Texts of cells to print in bold.
    """
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = "".join(f"<tr>{''.join(_cell(c, strong) for c in line)}</tr>" for line in lines)
    return Html(
        '<div class="rows"><table class="dataframe table">'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _cell(text: str, strong: Collection[str]) -> str:
    if isinstance(text, Markup):
        style = "text-align: left; white-space: normal; vertical-align: top"
        return f'<td style="{style}">{text}</td>'
    whole = f"<strong>{escape(text)}</strong>" if text in strong else escape(text)
    return f"<td>{whole}</td>"


def marked(true: str, said: str, plain: Collection[str] = ()) -> Markup:
    """What was said, with the words that stand in `true` in this order marked.

    Args:
        plain: Words that stand everywhere and are not marked.
    """
    words = said.split()
    same = SequenceMatcher(None, true.split(), words, autojunk=False)
    there = {k for at in same.get_matching_blocks() for k in range(at.b, at.b + at.size)}
    return Markup(" ").join(
        Markup("<mark>{}</mark>").format(word) if k in there and word not in plain else escape(word)
        for k, word in enumerate(words)
    )


def picture(pixels: np.ndarray, alt: str, width: int, style: str = "") -> Markup:
    """A small picture inside the page, the same in light and dark mode.

    Args:
        pixels: (h, w) or (h, w, 3) of 0 to 255; enlarged without smoothing.
        alt: What is to be seen.
        width: On the screen, in CSS pixels, also where there is little room.
        style: More CSS.
    """
    target = io.BytesIO()
    Image.fromarray(np.asarray(pixels, np.uint8)).save(target, "png")
    code = base64.b64encode(target.getvalue()).decode("ascii")
    # The theme dims pictures in dark mode but for those of this class.
    return Markup(
        '<img class="dark-light" alt="{}" width="{}" src="data:image/png;base64,{}" '
        'style="image-rendering: pixelated; max-width: none; min-width: {}px; {}">'
    ).format(alt, width, code, width, style)
