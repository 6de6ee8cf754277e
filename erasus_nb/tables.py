"""Numbers in words and tables in HTML, the same on every page. Knows neither torch nor Jupyter."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

from markupsafe import Markup, escape

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
        return f'<td style="text-align: left; white-space: normal">{text}</td>'
    whole = f"<strong>{escape(text)}</strong>" if text in strong else escape(text)
    return f"<td>{whole}</td>"
