"""One setting of a strategy, moved: a picture with a slider in JupyterLab, all at once elsewhere.

Everything is drawn from what a sweep measured in advance (sweeps.py); moving the slider runs
no strategy. Where no kernel answers, as on the site, the picture shows every value.
"""

from __future__ import annotations

import textwrap
from functools import cache
from html import escape
from typing import Any

import numpy as np

from . import charts
from .charts import base
from .charts.placing import spread
from .sweeps import Point, Sweep

#: How far from a reference a position is called the same as it.
_NEAR = 0.2
#: Positions further out than this are drawn at the edge.
_EDGE = (-1.5, 1.75)


def _mean(values: tuple[float | None, ...]) -> float:
    found = [value for value in values if value is not None]
    return float(np.mean(found)) if found else float("nan")


def _place(z: float) -> str:
    """A position in words."""
    if np.isnan(z):
        return "not measured"
    if z < -_NEAR:
        return "beyond the retrained models"
    if z <= _NEAR:
        return "like the retrained models"
    return "like the original" if z >= 1 - _NEAR else "between retrained and original"


def finding(sweep: Sweep) -> str:
    """What moving the setting does, in one sentence with its numbers."""
    points = sweep.found.points
    means = [_mean(point.rm) for point in points]
    if np.isnan(means).all():
        return f"{sweep.strategy}: no value of {sweep.setting} has a result"
    best = int(np.nanargmax(means))
    ends = [
        f"{'none' if np.isnan(means[i]) else f'{means[i]:.0f}'} at {points[i].value:g}"
        for i in dict.fromkeys((0, len(points) - 1))
        if i != best
    ]
    return (
        f"{sweep.strategy}: Retrain-Match is highest, {means[best]:.0f}, at "
        f"{sweep.setting} = {points[best].value:g}"
        + (f"; it is {' and '.join(ends)}" if ends else "")
    )


def told(sweep: Sweep, point: Point) -> str:
    """What one value of the setting gives, in words and numbers."""
    rm = [value for value in point.rm if value is not None]
    chosen = " (the value that tuning chose)" if point.value == sweep.found.chosen else ""
    head = f"{sweep.setting} = {point.value:g}{chosen}: "
    if not rm:
        return f"{head}no result: {point.reason}."
    parts = [f"Retrain-Match {_mean(point.rm):.1f} (seeds {min(rm):.1f} to {max(rm):.1f})"]
    for name, values in point.position.items():
        z = _mean(values)
        shown = "" if np.isnan(z) else f" (z {z:.2f})"
        parts.append(f"{sweep.found.criteria[name]}: {_place(z)}{shown}")
    parts.append(f"{_mean(point.utility):.0%} of the utility kept")
    if point.time_ratio is not None:
        parts.append(f"{point.time_ratio:.2g} times the seconds of retraining")
    return f"{head}{'; '.join(parts)}."


def _alt(sweep: Sweep) -> str:
    points, criteria = sweep.found.points, sweep.found.criteria

    def of(point: Point) -> str:
        if np.isnan(_mean(point.rm)):
            return f"At {point.value:g}, no result: {point.reason}."
        places = "; ".join(f"{criteria[c]}: {_place(_mean(z))}" for c, z in point.position.items())
        return f"At {point.value:g}, {places}; {_mean(point.utility):.0%} of the utility kept."

    best = max(points, key=lambda point: np.nan_to_num(_mean(point.rm), nan=-1.0))
    shown = {point.value: point for point in (points[0], best, points[-1])}
    return (
        f"Two panels over {sweep.setting} ({sweep.meaning}), {len(points)} values on "
        f"{sweep.workload}. {finding(sweep)}. {' '.join(map(of, shown.values()))} "
        f"Tuning chose {sweep.found.chosen:g}."
    )


def _line(panel, points, values, colour: str, stroke="-", marker: str = "", faint=True) -> float:
    """Means over seeds as a line, seeds as faint points; returns the last mean."""
    means = [_mean(each) for each in values]
    panel.plot(range(len(points)), means, color=colour, ls=stroke, lw=1.5, marker=marker, ms=4)
    if faint:
        dots = [(x, v) for x, each in enumerate(values) for v in each if v is not None]
        panel.plot(*zip(*dots, strict=True), ".", color=colour, ms=3, mew=0, alpha=0.4)
    return means[-1]


def picture(sweep: Sweep, category: str, at: int | None = None) -> charts.Chart:
    """Retrain-Match and the three positions over the values of the setting.

    Args:
        sweep: A measured one.
        category: Of the strategy, for the colour.
        at: Number of the value that the slider stands on; None shows none of them.
    """
    title = finding(sweep) if at is None else f"{sweep.setting} = {sweep.found.points[at].value:g}"
    drawn = base.both(lambda paper: _drawn(paper, sweep, category, title, at))
    said = _alt(sweep) if at is None else told(sweep, sweep.found.points[at])
    rows = [told(sweep, point) for point in sweep.found.points]
    return charts.Chart(alt=said, title=title, rows=rows, **drawn)


def _drawn(paper: base.Paper, sweep: Sweep, category: str, title: str, at: int | None):
    points, mark = sweep.found.points, charts.PALETTE[category]
    black, strokes = "#000000", ("-", (0, (5, 2)), (0, (1, 1.5)))
    names = {
        key: "\n".join(textwrap.wrap(base.clean(name, 40), 18))
        for key, name in sweep.found.criteria.items()
    }
    words = [line for name in (*names.values(), "retrained") for line in name.split("\n")]
    levels = {"original": (0, (4, 3)), "retrained": "-"}
    figure, (score, place), _ = base.canvas(
        paper,
        title,
        2.2,
        0.5,
        right=_LEAD + 0.15 + max(map(base.inches, words)),
        panels=2,
        gap=0.55,
        above=0.34,
        key=[base.category(category), base.SEEDS],
        foot=sweep.setting,
        down=2 if paper.phone else 1,
    )
    _line(score, points, [p.rm for p in points], mark.colour, marker=mark.marker)
    kept = [tuple(u and 100 * u for u in p.utility) for p in points]
    _line(score, points, kept, charts.CONTROL.colour, strokes[1], faint=False)
    ends = {"original": 1.0, "retrained": 0.0}
    for name, level in ends.items():
        place.axhline(level, color=black, ls=levels[name], lw=1.2)
    for (key, name), stroke in zip(names.items(), strokes, strict=True):
        cut = [tuple(z and float(np.clip(z, *_EDGE)) for z in p.position[key]) for p in points]
        ends[name] = _line(place, points, cut, mark.colour, stroke)
    leads = {name: (black, stroke) for name, stroke in levels.items()}
    leads |= {
        name: (mark.colour, stroke) for name, stroke in zip(names.values(), strokes, strict=True)
    }
    _finish(sweep, score, place, at)
    _name_lines(place, ends, leads)
    for number in range(len(points)):  # along each value, what it gives is said
        for panel in (score, place):
            panel.axvline(number, color="none", gid=f"hit-{number}")
    return figure


#: Inches between the panel's edge and the names of its lines.
_LEAD = 0.35


def _name_lines(place, ends: dict[str, float], leads: dict[str, tuple]) -> None:
    """The names of lines, near their ends; what leads there is drawn as the line is."""
    low, high = place.get_ylim()
    figure = place.figure
    wide, tall = place.get_position().size * figure.get_size_inches()
    line = 0.165 * (high - low) / tall
    room = [line * (name.count("\n") + 1) for name in ends]
    known = [0.5 if np.isnan(level) else level for level in ends.values()]
    last = place.get_xlim()[1]
    inch = (last - place.get_xlim()[0]) / wide
    for (name, level), y in zip(ends.items(), spread(known, room, low, high), strict=True):
        colour, stroke = leads[name]
        begin = last if colour == "#000000" else last - 0.3  # levels end at the edge
        x = [begin, last + 0.06 * inch, last + (_LEAD - 0.05) * inch]
        place.plot(x, [level, level, y], color=colour, ls=stroke, lw=1.0, clip_on=False)
        place.text(last + _LEAD * inch, y, name, va="center")
    place.set(xlim=(place.get_xlim()[0], last), ylim=(low, high))


def _finish(sweep: Sweep, score, place, at: int | None) -> None:
    """Axes, headings, and the value that was chosen or moved to."""
    points = sweep.found.points
    values = [point.value for point in points]
    low, high = min(-0.3, place.get_ylim()[0]), max(1.3, place.get_ylim()[1])
    score.set(ylim=(-3, 103))
    place.set(ylim=(low, high))
    for panel in (score, place):
        panel.set(xlim=(-0.3, len(points) - 0.7))
        panel.set_xticks(range(len(points)), [f"{value:g}" for value in values])
        stands = values.index(sweep.found.chosen) if at is None else at
        panel.axvline(stands, color="#000000", alpha=0.12, lw=9, zorder=0)
    if at is not None and not np.isnan(reached := _mean(points[at].rm)):
        score.plot(at, reached, "o", mfc="none", mec="#000000", mew=1.2, ms=9)
        side = -12 if reached > 85 else 7
        base.note(score, f"{reached:.0f}", (at, reached), (0, side))
    base.note(
        score, "Retrain-Match; grey: utility kept, %", (0, 1), (0, 5), "axes fraction", "left"
    )
    base.note(place, "position z of each criterion", (0, 1), (0, 5), "axes fraction", "left")


class Moved:
    """The picture of a page: what Jupyter shows is a slider, and the whole picture as HTML."""

    def __init__(self, sweep: Sweep, category: str):
        self.sweep, self.category = sweep, category

    def widget(self):
        """The slider and the picture that follows it."""
        import ipywidgets

        points = self.sweep.found.points
        html = cache(lambda at: self._at(at))
        options = [(f"{point.value:g}", number) for number, point in enumerate(points)]
        chosen = [point.value for point in points].index(self.sweep.found.chosen)
        slider = ipywidgets.SelectionSlider(
            options=options,
            value=chosen,
            description=self.sweep.setting,
            style={"description_width": "initial"},
            layout={"width": "30em"},
        )
        shown = ipywidgets.HTML(html(chosen))
        slider.observe(lambda change: setattr(shown, "value", html(change["new"])), "value")
        return ipywidgets.VBox([slider, shown])

    def _at(self, at: int) -> str:
        chart = picture(self.sweep, self.category, at)
        return f'{chart._repr_html_()}<p role="status">{escape(chart.alt)}</p>'

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, Any]:
        still = picture(self.sweep, self.category)
        bundle = self.widget()._repr_mimebundle_()
        return {**bundle, "text/html": still._repr_html_(), "text/plain": repr(still)}
