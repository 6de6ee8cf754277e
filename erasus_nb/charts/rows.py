"""Charts of rows: a board's lines below each other, each with its name, marks and bars."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.transforms import blended_transform_factory

from .base import RIGHT, TEXT, Paper, clean, inches, mark_of, note, pale, verb

if TYPE_CHECKING:
    from ..score import Board, Interval, Standing


def label(standing: Standing) -> str:
    """The name of a row, with the one thing that sets it apart."""
    name = clean(standing.name)
    some = f"{len(standing.seeds)} {verb(standing.seeds, 'seed', 'seeds')}"
    what = [
        word
        for word, so in (
            *((word, True) for word in standing.notes),
            ("edited", standing.edited),
            ("control", standing.kind == "control"),
            (some, standing.status == "partial"),
            ("analogue", standing.analogue),
        )
        if so
    ]
    return f"{name} ({what[0]})" if what else name


def absence(standing: Standing) -> str:
    """Why a row has no score."""
    status = {"not_applicable": "not applicable", "error": "errored"}
    reason = standing.reason or "no seed finished"
    return f"{status.get(standing.status, standing.status)}: {reason}"


def says(standing: Standing, *parts: str) -> str:
    """What a row says under the pointer."""
    return f"{label(standing)}: {'; '.join(filter(None, parts)) or 'not measured'}"


def spoken(name: str, found: Interval | None, digits: int = 2) -> str:
    """A mean with its interval in words; "" if there is none."""
    if found is None:
        return ""
    mean, low, high = (f"{x:.{digits}f}" for x in (found.mean, found.low, found.high))
    return f"{name} {mean} " + (f"({low} to {high})" if found.n > 1 else "(one seed)")


def rm_of(standing: Standing) -> str:
    """Retrain-Match of a row in words."""
    return spoken("Retrain-Match", standing.rm, 1)


# ---------------------------------------------------------------- choosing what to draw


def rows_of(board: Board, names: Collection[str] | None) -> list[Standing]:
    """Strategies asked for and all controls, in the board's order.

    Raises:
        KeyError: a name that the board does not have.
    """
    if names is not None:
        for name in names:
            board[name]
    return [
        line
        for line in board.standings
        if line.kind == "control"
        or (line.kind == "strategy" and (names is None or line.name in names))
    ]


def reference(board: Board, kind: str) -> Standing | None:
    """The original or the retrained model, if it has a score."""
    lines = [line for line in board.of(kind) if line.rm is not None]
    return lines[0] if lines else None


def scored(rows: Sequence[Standing], kind: str = "strategy") -> list[Standing]:
    """The rows of a kind that have a score."""
    return [line for line in rows if line.kind == kind and line.rm is not None]


def controls_of(rows: Sequence[Standing]) -> list[Standing]:
    """The controls that a strategy can be compared with: a partial one lacks seeds."""
    return [line for line in scored(rows, "control") if line.status == "ok"]


# ------------------------------------------------------------------------ the drawing


def height_of(rows: Sequence, paper: Paper) -> float:
    """Height of the axes, inches."""
    return paper.pitch * max(len(rows), 2)


def left_of(rows: Sequence[Standing], emphasise: Collection[str], paper: Paper) -> float:
    """Room for the names, inches; on a phone they stand above their rows."""
    if paper.phone:
        return 0.15
    return 0.2 + max(
        (inches(label(line), bold=line.name in emphasise) for line in rows), default=1.0
    )


def limits_of(rows: Sequence, paper: Paper) -> tuple[float, float]:
    """Limits of the vertical axis, from below: one unit is one row, the first is at 0."""
    top = -0.75 if paper.phone else -0.6
    return max(len(rows), 2) + (-0.55 if paper.phone else -0.4), top


def name_rows(figure, axes, rows: Sequence[Standing], emphasise: Collection[str], paper: Paper):
    """The names of the rows, and the tracks along which the pointer meets them."""
    middle = -0.18 if paper.phone else 0.0
    across = blended_transform_factory(figure.transFigure, axes.transData)
    for y in range(len(rows)):
        track = Line2D([0, 1], [y + middle] * 2, transform=across, color="none")
        track.set_gid(f"hit-{y}")
        figure.add_artist(track)
    if paper.phone:
        axes.spines["left"].set_visible(False)
        axes.set_yticks([])
        for y, line in enumerate(rows):
            at, within = (0.05 / paper.wide, y), ("figure fraction", "data")
            note(axes, label(line), at, (0, 12), within, "left", "center", f"row-{y}")
        texts = axes.texts[-len(rows) :] if rows else []
    else:
        axes.set_yticks(range(len(rows)), [label(line) for line in rows], size=TEXT)
        axes.tick_params(axis="y", length=0, pad=6)
        texts = axes.get_yticklabels()
    for y, (text, line) in enumerate(zip(texts, rows, strict=True)):
        text.set_gid(f"row-{y}")
        if line.name in emphasise:
            text.set_fontweight("bold")
        if line.kind == "control":
            text.set_fontstyle("italic")


def _spans(count: int, paper: Paper) -> list[tuple[float, float]]:
    """Where a vertical line along `count` rows runs: on a phone, not through the names."""
    if paper.phone:
        return [(y - 0.12, y + 0.3) for y in range(count)]
    return [(-0.6, count - 0.4)]


def rule(axes, x: float, count: int, paper: Paper, **style) -> None:
    """A vertical line beside the first `count` rows."""
    ends = np.array([(*span, np.nan) for span in _spans(count, paper)]).ravel()
    style = {"color": "#000000", "lw": 1.2, "zorder": 0.5} | style
    axes.plot(np.full(len(ends), x), ends, **style)


def band(axes, ends: Sequence[float], mean: float, count: int, paper: Paper, **more) -> None:
    """Retrained against retrained: a grey band from the lowest to the highest seed."""
    if len(ends) > 1:
        low, high = min(ends), max(ends)
        for top, bottom in _spans(count, paper):
            box = Rectangle((low, top), high - low, bottom - top, fc="#000000", alpha=0.12, lw=0)
            axes.add_patch(box).set_zorder(0)
    rule(axes, mean, count, paper, **more)


def draw_mark(axes, x, y, line: Standing, alpha: float, marker: str = "", **more) -> None:
    """The marker of one line of a board; controls are hollow."""
    mark = mark_of(line)
    marker = marker or mark.marker
    more |= {"ms": 8.5 if marker == "*" else 5.5, "mec": mark.colour, "mew": 1.2}
    more["mfc"] = "none" if line.kind == "control" else mark.colour
    axes.plot(x, y, marker, alpha=alpha, **more)


def dot(
    axes,
    y: int,
    line: Standing,
    found: Interval,
    seeds: Iterable[float],
    limits: tuple[float, float],
    emphasise: Collection[str],
    paper: Paper,
) -> None:
    """One row: the seeds as small points, the mean as marker, its interval as a bar.

    What lies outside `limits` = (low, high) becomes an arrow at the edge with its number.
    """
    (low, high), gid = limits, f"row-{y}"
    alpha = pale(line.name, emphasise)
    look = {"color": mark_of(line).colour, "gid": gid}
    inside = sorted(value for value in seeds if low <= value <= high)
    # Below the bar, which would cover them.
    level = [y + paper.below] * len(inside)
    axes.plot(inside, level, ".", ms=4, mew=0, alpha=0.7 * alpha, **look)
    if low <= found.mean <= high:
        ends = np.clip([found.low, found.high], low, high)
        axes.plot(ends, [y, y], lw=1.6, alpha=alpha, **look)
        draw_mark(axes, found.mean, y, line, alpha, gid=gid)
        return
    beyond = found.mean > high
    edge = high if beyond else low
    rightwards = beyond != axes.xaxis_inverted()
    draw_mark(axes, edge, y, line, alpha, ">" if rightwards else "<", clip_on=False, gid=gid)
    by, ha = ((-6, 0), "right") if rightwards else ((6, 0), "left")
    note(axes, f"{found.mean:.1f}", (edge, y), by, ha=ha, va="center", gid=gid)


def tier_of(axes, y: int, line: Standing) -> None:
    """The tier of a row, right of the axes."""
    note(axes, clean(line.tier, 4), (1, y), (14, 0), RIGHT, va="center", gid=f"row-{y}")
