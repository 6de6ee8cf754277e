"""Charts of curves and points: relearning, courses, windows, trade-offs."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from .base import (
    CONTROL,
    PALETTE,
    SEEDS,
    YOURS,
    Chart,
    Entry,
    Paper,
    both,
    canvas,
    category,
    clean,
    heading,
    inches,
    listed,
    verb,
)
from .placing import place, spread


def _categories(of: Mapping[str, str]) -> list[Entry]:
    """Entries for the categories of some names, in the palette's order."""
    return [category(name) for name in PALETTE if name in of.values()]


def _named_ends(
    axes,
    ends: Mapping[str, float],
    x: float,
    gids: Mapping[str, str],
    led: tuple[float, Mapping[str, Mapping]] | None = None,
) -> None:
    """The names of curves right of the axes, at the height of their ends, none on another.

    Args:
        led: Where the curves end, and the look of a stroke from there to each name.
    """
    low, high = axes.get_ylim()
    tall = axes.get_position().height * axes.figure.get_figheight()
    heights = spread(list(ends.values()), (high - low) * 0.165 / tall, low, high)
    for name, y in zip(ends, heights, strict=True):
        axes.text(x, y, clean(name), va="center", gid=gids.get(name))
        if led:
            start, looks = led
            end = x - 0.15 * (x - start)
            axes.plot([start, end], [ends[name], y], clip_on=False, **looks[name])


def relearning(
    curves: Mapping[str, Mapping[int, Sequence[float]]],
    ylabel: str,
    categories: Mapping[str, str] | None = None,
) -> Chart:
    """How fast a model that should have forgotten learns the rest of the request again.

    Args:
        curves: Name -> attack step -> one value a seed. "original" and "retrained" are the
            references and are expected; the other names are unlearned models.
        ylabel: The measure with its unit and direction.
        categories: Name -> category, for the colour; a name without one is "Yours".

    Raises:
        ValueError: a reference is missing.
    """
    for name in ("original", "retrained"):
        if name not in curves:
            raise ValueError(f"relearning curves need {name!r}; there are {', '.join(curves)}")
    means = {
        name: {step: float(np.mean(by_step[step])) for step in sorted(by_step)}
        for name, by_step in curves.items()
    }
    unlearned = [name for name in curves if name not in ("original", "retrained")]
    title = _relearned(means, unlearned)
    drawn = both(lambda paper: _relearning(paper, title, curves, means, ylabel, categories or {}))
    told = [
        f"{clean(name)}, mean by attack step: "
        + ", ".join(f"{value:.2f} after {step}" for step, value in by_step.items())
        for name, by_step in means.items()
    ]
    alt = f"Curves by attack step. {title}. {_fates_told(means, unlearned)}"
    return Chart(alt=alt, title=title, rows=told, **drawn)


def _relearning(
    paper: Paper,
    title: str,
    curves: Mapping[str, Mapping[int, Sequence[float]]],
    means: Mapping[str, Mapping[int, float]],
    ylabel: str,
    categories: Mapping[str, str],
):
    right = 0.5 + max(inches(clean(name)) for name in curves)
    measure = textwrap.wrap(ylabel, 40)  # as long as the axis
    left = 0.45 + 0.17 * len(measure)
    figure, (axes,), width = canvas(
        paper,
        title,
        3.2,
        left,
        right=right,
        key=[*_categories(categories), SEEDS],
        foot="steps of the relearning attack",
    )
    unlearned = [name for name in means if name not in ("original", "retrained")]
    for number, (name, by_step) in enumerate(means.items()):
        style = _stroke(name, categories)
        if name in unlearned:  # the colour is the category's, so strokes tell curves apart
            style["ls"] = _STROKES[unlearned.index(name) % len(_STROKES)]
        if name == "retrained":
            _seed_band(axes, curves[name])
        gid = f"row-{number}"
        axes.plot(list(by_step), list(by_step.values()), gid=gid, **style)
        dots = [(step, value) for step, values in curves[name].items() for value in values]
        faint = {"ms": 3, "mew": 0, "alpha": 0.6, "color": style["color"]}
        axes.plot(*zip(*dots, strict=True), ".", gid=gid, **faint)
    ends = {name: list(by_step.values())[-1] for name, by_step in means.items()}
    furthest = max(max(by_step) for by_step in means.values())
    axes.set(ylim=axes.get_ylim(), xlim=(None, furthest))
    gids = {name: f"row-{number}" for number, name in enumerate(means)}
    low, high = axes.get_xlim()
    # A thin stroke leads from each end to its name, which may stand higher or lower.
    looks = {name: {"color": _stroke(name, categories)["color"], "lw": 0.6} for name in means}
    _named_ends(axes, ends, furthest + 0.3 * (high - low) / width, gids, (furthest, looks))
    axes.set_xticks(sorted({step for by_step in means.values() for step in by_step}))
    axes.set_ylabel("\n".join(measure))
    return figure


#: Strokes of the unlearned models' curves in `relearning`, in their order.
_STROKES = ("-", (0, (5, 1.5)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)))


def _stroke(name: str, categories: Mapping[str, str]) -> dict:
    """How a curve of `relearning` is drawn."""
    if name == "original":
        return {"color": "#000000", "ls": (0, (4, 3)), "lw": 1.4}
    if name == "retrained":
        return {"color": "#000000", "lw": 1.4}
    mark = PALETTE.get(categories.get(name, ""), YOURS)
    return {"color": mark.colour, "marker": mark.marker, "ms": 4.5, "lw": 1.4}


def _seed_band(axes, by_step: Mapping[int, Sequence[float]]) -> None:
    """A grey band from the lowest to the highest seed."""
    steps = sorted(by_step)
    low, high = ([f(by_step[step]) for step in steps] for f in (min, max))
    axes.fill_between(steps, low, high, color="#000000", alpha=0.12, lw=0)


#: What an attack finds of a model: verb of one, verb of several, the rest.
_BACK = ("is", "are", "most of the way back")
_NEAR = ("stays", "stay", "near retrained")
_PARTLY = ("comes", "come", "part of the way back")
_BETWEEN = ("hardly rises and stays", "hardly rise and stay", "between retrained and original")
_NEVER_GONE = ("was", "were", "not forgotten in the first place")


def _fates(means: Mapping[str, Mapping[int, float]], unlearned: Sequence[str]) -> dict[str, tuple]:
    """What the attack finds of each model; empty where original and retrained are alike."""
    first, last = min(means["original"]), max(means["original"])
    full = means["original"][last] - means["retrained"].get(last, np.nan)
    if not abs(full) > 0:
        return {}
    start = means["original"][first] - means["retrained"][first]
    share = lambda name, step, scale: (
        (means[name].get(step, np.nan) - means["retrained"][step]) / (scale or np.nan)
    )

    def fate(name: str) -> tuple[str, str, str]:
        back = share(name, last, full)
        risen = (means[name].get(last, np.nan) - means[name][first]) / full
        if back <= 0.1:
            return _NEAR
        if share(name, first, start) >= 0.5:
            return _NEVER_GONE
        if back >= 0.5:
            return _BACK
        return _PARTLY if risen >= 0.1 else _BETWEEN

    return {name: fate(name) for name in unlearned}


def _relearned(means: Mapping[str, Mapping[int, float]], unlearned: Sequence[str]) -> str:
    last, fates = max(means["original"]), _fates(means, unlearned)
    if not fates:
        return f"After {last} steps the original and the retrained model are alike"
    said = []
    for one, many, where in (_BACK, _NEAR, _PARTLY, _BETWEEN, _NEVER_GONE):
        names = [name for name, fate in fates.items() if fate == (one, many, where)]
        if names:
            said.append(f"{listed(names)} {verb(names, one, many)} {where}")
    return f"After {last} relearning steps, " + "; ".join(said)


def _fates_told(means: Mapping[str, Mapping[int, float]], unlearned: Sequence[str]) -> str:
    """Who came back and who did not, each with the values before and after the attack."""

    def moved(name: str) -> str:
        line = means[name]
        return f"{clean(name)} ({line[min(line)]:.2f} to {line[max(line)]:.2f})"

    fates, said = _fates(means, unlearned), []
    for what, which in (
        ("Came back", (_BACK, _PARTLY)),
        ("Did not come back", (_NEAR, _BETWEEN)),
        ("Was not forgotten before the attack", (_NEVER_GONE,)),
    ):
        names = [moved(name) for name in unlearned if fates.get(name) in which]
        said += [f"{what}: {', '.join(names)}."] if names else []
    references = " and ".join(map(moved, ("original", "retrained")))
    return " ".join([*said, f"To compare with: {references}."])


#: How the curves of `windows` are drawn: no category is meant.
_CURVES = (
    {"ls": "-", "marker": "o", "mfc": "#000000"},
    {"ls": (0, (1, 1.5)), "marker": "s", "mfc": "none"},
    {"ls": (0, (5, 2)), "marker": "^", "mfc": "none"},
)


def windows(
    panels: Mapping[str, Mapping[str, Sequence[float]]],
    levels: Mapping[str, Mapping[str, float]],
    places: Sequence[str],
    xlabel: str,
    ylabel: str,
    title: str,
    alt: str,
) -> Chart:
    """Shares by place along a process, a panel for each thing that is counted.

    Args:
        panels: Heading -> curve's name, the same in all panels -> a share of 0 to 1 for each
            place.
        levels: Heading -> name, the same in all -> a share to compare with, as a grey line.
        places: What each place is called.
        xlabel, ylabel: What a place is, and what the shares are of.
        title: The finding. alt: what else a reader who cannot see it takes away.
    """
    curves = [(head, name, shares) for head in panels for name, shares in panels[head].items()]
    told = [
        f"{clean(head, 60)}, {clean(name)}: "
        + ", ".join(f"{share:.2f} at {where}" for where, share in zip(places, shares))
        for head, name, shares in curves
    ]
    numbers = {(head, name): number for number, (head, name, _) in enumerate(curves)}
    drawn = both(lambda p: _windows(p, title, panels, levels, places, (xlabel, ylabel), numbers))
    alt = f"Curves over places. {title}. {alt}"
    return Chart(alt=alt, title=title, rows=told, **drawn)


def _windows(
    paper: Paper,
    title: str,
    panels: Mapping[str, Mapping[str, Sequence[float]]],
    levels: Mapping[str, Mapping[str, float]],
    places: Sequence[str],
    labels: tuple[str, str],
    numbers: Mapping[tuple[str, str], int],
):
    last = list(panels)[-1]
    right = 0.25 + max(inches(clean(name)) for name in (*panels[last], *levels[last]))
    down = len(panels) if paper.phone else 1
    shape = {"panels": len(panels), "gap": 0.2, "above": 0.34, "down": down}
    figure, drawn, width = canvas(paper, title, 2.3, 0.62, right, foot=labels[0], **shape)
    end = len(places) - 1
    # Every second place where the names of all would touch.
    step = 1 if sum(inches(name) + 0.08 for name in places) < width else 2
    for number, (axes, (head, curves)) in enumerate(zip(drawn, panels.items(), strict=True)):
        for share in levels[head].values():
            axes.axhline(share, color=CONTROL.colour, lw=1.0, zorder=0.5)
        gids = {name: f"row-{numbers[head, name]}" for name in curves}
        for style, (name, shares) in zip(_CURVES, curves.items(), strict=False):
            look = {"color": "#000000", "lw": 1.4, "ms": 5, "gid": gids[name], **style}
            axes.plot(range(len(places)), shares, **look)
        axes.set(xlim=(-0.35, end + 0.35), ylim=(-0.04, 1.04))
        axes.set_xticks(range(0, len(places), step), places[::step])
        axes.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])
        heading(axes, [clean(head, 60)])
        if number == 0 or paper.phone:
            axes.set_ylabel(labels[1])
        else:
            axes.set_yticklabels([])
        if head == last or paper.phone:
            ends = {name: shares[-1] for name, shares in curves.items()} | levels[head]
            _named_ends(axes, ends, end + 0.35 + 0.03 * (end + 1), gids)
    return figure


def course(
    curves: Mapping[str, Sequence[tuple[float, float, float]]],
    levels: Mapping[str, tuple[float, float]],
    categories: Mapping[str, str],
) -> Chart:
    """How a measure of the forget and of the retain set moves while a strategy works.

    Args:
        curves: Name -> (example passes as a share of retraining's, value on the forget
            set, value on the retain set), point by point.
        levels: "original" and "retrained" -> their values on both sets.
        categories: Name -> category, for the colour.
    """
    lost = [
        name
        for name, points in curves.items()
        if points[-1][1] < 0.5 * points[0][1] and points[-1][2] < 0.5 * points[0][2]
    ]
    title = (
        f"Probability of the true answer: {listed(lost)} "
        f"{verb(lost, 'loses', 'lose')} retained answers with the forgotten ones"
        if lost
        else "Probability of the true answer, on its way from original towards retrained"
    )
    told = [
        f"{clean(n)}: forget {p[0][1]:.2f} to {p[-1][1]:.2f}, retain {p[0][2]:.2f} to "
        f"{p[-1][2]:.2f}"
        for n, p in curves.items()
    ]
    drawn = both(lambda paper: _course(paper, title, curves, levels, categories))
    alt = f"Curves over example passes. {title}. {'; '.join(told)}."
    return Chart(alt=alt, title=title, rows=told, **drawn)


_STROKES = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 1.5, 1, 1.5)), (0, (9, 2)))


def _course(
    paper: Paper,
    title: str,
    curves: Mapping[str, Sequence[tuple[float, float, float]]],
    levels: Mapping[str, tuple[float, float]],
    categories: Mapping[str, str],
):
    figure, panels, _ = canvas(
        paper,
        title,
        2.6,
        0.62,
        right=0.25 + max(inches(clean(name)) for name in (*curves, *levels)),
        panels=2,
        above=0.34,
        key=_categories({name: categories.get(name, "") for name in curves}),
        foot="example passes, share of retraining's",
        down=2 if paper.phone else 1,
    )
    furthest = max(points[-1][0] for points in curves.values())
    gids = {name: f"row-{number}" for number, name in enumerate(curves)}
    for which, (axes, what) in enumerate(zip(panels, ("forget", "retain")), 1):
        ends = {}
        for name, values in levels.items():
            stroke = (0, (4, 3)) if name == "original" else "-"
            axes.axhline(values[which - 1], color="#000000", ls=stroke, lw=1.2)
            ends[name] = values[which - 1]
        for number, (name, points) in enumerate(curves.items()):
            mark = PALETTE.get(categories.get(name, ""), CONTROL)
            passed, values = zip(*((p[0], p[which]) for p in points))
            look = {"color": mark.colour, "gid": gids[name]}
            axes.plot(passed, values, ls=_STROKES[number % len(_STROKES)], lw=1.5, **look)
            axes.plot(passed[-1:], values[-1:], mark.marker, ms=4, **look)
            ends[name] = values[-1]
        axes.set(ylim=(-0.02, 1.04), xlim=(0, furthest * 1.02 or 1))
        axes.xaxis.set_major_locator(MaxNLocator(5, prune="upper"))
        heading(axes, [f"asked about the {what} set"])
        if which == 1 or paper.phone:
            axes.set_ylabel("probability of the true answer")
        else:
            axes.set_yticklabels([])
        if which == 2 or paper.phone:
            _named_ends(axes, ends, furthest * 1.05, gids)
    return figure


class Point(NamedTuple):
    """One mark of a trade-off: less of x and more of y is better.

    `front` says that no other is better in both, `chosen` that this one was taken.
    """

    label: str
    x: float
    y: float
    front: bool
    chosen: bool


def _along(front: Sequence[tuple[float, float]]) -> list[tuple]:
    """Small boxes along the line that joins some points, on the scales of `trade_off`."""
    if len(front) < 2:
        return []
    x, y = np.transpose(front)
    steps = np.linspace(0, len(front) - 1, 16 * len(front))
    x, y = (np.interp(steps, np.arange(len(front)), v) for v in (_root(x), np.log(y)))
    return [(a, b, a, b) for a, b in zip(_square(x).tolist(), np.exp(y).tolist())]


def trade_off(
    panels: Mapping[str, Sequence[Point]],
    xlabel: str,
    ylabel: str,
    category: str,
    title: str,
    alt: str,
) -> Chart:
    """Marks that trade two measures against each other, a panel for each group of them.

    Args:
        panels: Heading -> points; those of the front are joined, upper left is best.
        xlabel, ylabel: The measures with their unit and direction. x is on a scale of square
            roots; y is on a log scale, and what is not positive is not drawn.
        category: For the colour of the front.
        title: The finding. alt: what else a reader who cannot see it takes away.
    """
    shown = {name: [p for p in points if p.y > 0] for name, points in panels.items()}
    colour = PALETTE.get(category, YOURS).colour
    drawn = both(lambda paper: _trade_off(paper, title, shown, (xlabel, ylabel), colour))
    told = [
        f"{clean(name)}, {clean(p.label)}: {p.x:.2g} across, {p.y:.2g} up"
        + ("; on the front" if p.front else "")
        + ("; chosen" if p.chosen else "")
        for name, points in shown.items()
        for p in points
    ]
    alt = f"Scatter in panels, upper left is best. {title}. {alt}"
    return Chart(alt=alt, title=title, rows=told, **drawn)


#: Ticks across, where they are inside.
_STEPS = (0, 0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 0.7, 1)


def _root(x):
    return np.sign(x) * np.sqrt(np.abs(x))


def _square(x):
    return np.sign(x) * np.square(x)


_RING = {"ms": 10, "mfc": "none", "mec": "#000000", "mew": 1.4}
_REST = {"mec": CONTROL.colour, "mfc": "none", "ms": 4.5}


def _trade_off(
    paper: Paper,
    title: str,
    shown: Mapping[str, Sequence[Point]],
    labels: tuple[str, str],
    colour: str,
):
    every = [p for points in shown.values() for p in points] or [Point("", 0.0, 1.0, False, False)]
    low, high = min(p.x for p in every), max(p.x for p in every)
    pad = 0.08 * ((_root(high) - _root(low)) or 1.0)
    room = min(p.y for p in every) / 2.5, max(p.y for p in every) * 2.5
    key = [
        Entry("no other is better in both", {"marker": "o", "color": colour, "ms": 5.5}),
        Entry("another is", {"marker": "o", **_REST}),
        Entry("chosen", {"marker": "o", **_RING}),
    ]
    down = len(shown) if paper.phone else 1
    shape = {"panels": len(shown), "gap": 0.25, "above": 0.34, "key": key, "down": down}
    figure, places, _ = canvas(paper, title, 3.6, 0.75, 0.15, foot=labels[0], **shape)
    first = 0
    for axes, (name, points) in zip(places, shown.items(), strict=True):
        # Square roots: most layers are close to 0, where a linear scale would pile them up.
        axes.set_xscale("function", functions=(_root, _square))
        axes.set(xlim=(_square(_root(low) - pad), _square(_root(high) + pad)))
        axes.set(yscale="log", ylim=room)
        axes.set_xticks([x for x in _STEPS if axes.get_xlim()[0] <= x <= axes.get_xlim()[1]])
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
        _front(figure, axes, points, colour, first)
        first += len(points)
        heading(axes, [clean(name)])
        if axes is places[0] or paper.phone:
            axes.set_ylabel(labels[1])
        else:
            axes.yaxis.set_major_formatter(NullFormatter())
    return figure


def _front(figure, axes, points: Sequence[Point], colour: str, first: int) -> None:
    """Points of one panel: the front joined, a ring around what was chosen, both labelled.

    Args:
        first: Number of the first point among the rows of the chart.
    """
    front = sorted((p.x, p.y) for p in points if p.front)
    rest = [(p.x, p.y) for p in points if not p.front]
    axes.plot(*np.reshape(front, (-1, 2)).T, "-", color=colour, lw=1.2)
    for number, p in enumerate(points, first):
        look = {"color": colour, "ms": 5.5} if p.front else _REST
        axes.plot(p.x, p.y, "o", gid=f"row-{number}", **look)
        axes.plot(p.x, p.y, "o", ms=16, mfc="none", mec="none", gid=f"hit-{number}")
        if p.chosen:
            axes.plot(p.x, p.y, "o", gid=f"row-{number}", **_RING)
    labelled = [(number, p) for number, p in enumerate(points, first) if p.front or p.chosen]
    if not labelled:
        return
    clear = [*_along(front), *((*spot, *spot) for spot in rest)]
    spots, labels = [(p.x, p.y) for _, p in labelled], [clean(p.label) for _, p in labelled]
    texts = place(figure, axes, spots, labels, clear)
    for (number, p), text in zip(labelled, texts, strict=True):
        text.set_gid(f"label-{number}")
        text.set_fontweight("bold" if p.chosen else "normal")
