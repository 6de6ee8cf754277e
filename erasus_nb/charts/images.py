"""Charts with pictures in them: what is to be forgotten, heat maps, traces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from .base import (
    COLUMN,
    CONTROL,
    TEXT,
    Chart,
    Entry,
    Paper,
    both,
    canvas,
    clean,
    drawing,
    fit,
    heading,
    inches,
    wrapped,
)


def request_picture(groups: Sequence[tuple], title: str = "") -> Chart:
    """What is to be forgotten and what is kept.

    Args:
        groups: `(label, images)` with images [n, h, w] in 0..1, drawn as columns of small
            pictures, the first 25 of each; or `(label, xy)` / `(label, xy, marker)` with xy
            [n, 2], drawn as one scatter. Labels that begin with "forget" are drawn black,
            the others grey.
        title: What the picture shows; empty = a line made of the groups' labels.
    """
    labels = [clean(group[0], 40) for group in groups]
    asked = [label for label in labels if label.startswith("forget")]
    rest = [label for label in labels if label not in asked]
    what = [label.removeprefix("forget").strip(" :") or label for label in asked]
    title = title or f"To forget: {' and '.join(what)}. Beside it: {'; '.join(rest)}"
    pictures = np.asarray(groups[0][1]).ndim == 3
    draw = _gallery if pictures else _scatter
    kind = "Columns of small pictures" if pictures else "Scatter of the data in two directions"
    alt = f"{kind}: {', '.join(labels)}."
    return Chart(alt=alt, title=title, **both(lambda paper: draw(paper, groups, title)))


def _gallery(paper: Paper, groups: Sequence[tuple], title: str) -> Figure:
    across, gap = 5, 0.3
    down = max(-(-min(len(group[1]), 25) // across) for group in groups)
    beside = min(2, len(groups)) if paper.phone else len(groups)
    width = (paper.wide - 0.2 - gap * (beside - 1)) / beside
    _, tall, wide = np.shape(groups[0][1])
    height = width * down * (tall + 1) / (across * (wide + 1))
    shape = {"panels": len(groups), "gap": gap, "above": 0.45, "down": -(-len(groups) // beside)}
    figure, panels, _ = canvas(paper, title, height, 0.1, bottom=0.1, **shape)
    for axes, (label, images) in zip(panels, groups, strict=True):
        sheet = np.full((down * (tall + 1), across * (wide + 1)), np.nan)
        for i, image in enumerate(np.asarray(images, float)[:25]):
            y, x = divmod(i, across)
            sheet[y * (tall + 1) :][:tall, x * (wide + 1) :][:, :wide] = image
        axes.imshow(
            np.ma.masked_invalid(sheet), cmap="gray_r", vmin=0, vmax=1, interpolation="none"
        )
        axes.set_axis_off()
        heading(axes, wrapped(clean(label, 60), width)[:2])
    return figure


def _scatter(paper: Paper, groups: Sequence[tuple], title: str) -> Figure:
    """Forget in black above the others in grey: the categories' colours mean strategies."""
    looks = _looks(groups)
    # Groups overlap, so a label inside the cloud could not say whose it is.
    key = [
        Entry(f"{clean(group[0])} ({len(group[1])})", look)
        for group, look in zip(groups, looks, strict=True)
    ]
    foot = "the two directions in which the training data vary most (no unit)"
    figure, (axes,), _ = canvas(paper, title, 3.6, 0.1, bottom=0.1, key=key, foot=foot)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    for (_, xy, *_), look in zip(groups, looks, strict=True):
        axes.plot(*np.asarray(xy, float).T, **look)
    return figure


def _looks(groups: Sequence[tuple]) -> list[dict]:
    """How the points of each group of a scatter are drawn."""
    forms = {True: ["o", "X", "P"], False: [".", "o", "s"]}
    seen = {True: 0, False: 0}
    looks = []
    for label, _, *given in groups:
        asked = str(label).startswith("forget")
        number = seen[asked]
        seen[asked] += 1
        colour = "#000000" if asked else CONTROL.colour
        looks.append(
            {
                "marker": given[0] if given else forms[asked][number % 3],
                "ls": "none",
                "ms": 4.5,
                "mew": 0.7,
                "mec": colour,
                "alpha": 0.8,
                "mfc": "none" if number % 2 and not asked else colour,
                "zorder": 3 if asked else 2,
            }
        )
    return looks


def traced(
    effects: Mapping[str, np.ndarray], words: Sequence[str], as_is: float, hidden: float
) -> Chart:
    """Where a fact passes: what one restored state gives back, layer by token.

    Args:
        effects: Kind of state -> (layers, tokens) probabilities of the true answer.
        words: The prompt's tokens.
        as_is, hidden: The probability with nothing hidden, and with the subject hidden.
    """
    title = (
        f"Probability of the true answer: {as_is:.2f} as it is, {hidden:.2f} with the "
        "subject hidden; darker: one state put back restores more"
    )
    with drawing():
        figure = Figure(figsize=(COLUMN.wide, 1.3 + 0.24 * len(words)), layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplots(1, len(effects), sharey=True, squeeze=False)[0]
        for axes, (kind, table) in zip(panels, effects.items(), strict=True):
            table = np.asarray(table, float)
            image = axes.imshow(table.T, cmap="Greys", vmin=0, vmax=max(as_is, 1e-9), aspect="auto")
            axes.set_title(f"{kind} put back", size=TEXT)
            axes.set_xticks(range(len(table)))
            axes.set_xlabel("layer, from 0")
            axes.set_yticks(range(len(words)), [clean(word, 14) for word in words])
        figure.suptitle("\n".join(wrapped(title, COLUMN.wide)), size=TEXT, x=0.02, ha="left")
        figure.colorbar(image, ax=list(panels), label="probability of the true answer")
    best = {
        kind: np.unravel_index(np.argmax(np.asarray(t)), np.asarray(t).shape)
        for kind, t in effects.items()
    }
    peaks = "; ".join(
        f"{kind}: most at layer {at[0]}, token {words[at[1]]!r}" for kind, at in best.items()
    )
    return Chart(figure, f"Heat maps, layer by token. {peaks}.", title)


#: Widest cell of a heat map, and the room between its two parts: in inches, and in cells.
_CELL, _APART = 0.3, 0.35


def heat_maps(
    tables: Mapping[str, np.ndarray],
    pictures: Sequence[np.ndarray],
    words: Sequence[str],
    split: int,
    measure: str,
    title: str,
    alt: str,
) -> Chart:
    """Square tables of the same rows and columns side by side, on one scale of greys.

    Args:
        tables: Heading -> (n, n) values; darker is more.
        pictures: What each row is, (h, w) or (h, w, 3) of 0 to 255.
        words: What each column is.
        split: The first so many rows and columns stand apart from the rest.
        measure: What the values are, with their unit.
        title: The finding. alt: what else a reader who cannot see it takes away.
    """
    tables = {name: np.asarray(table, float) for name, table in tables.items()}
    low, high = (float(f([f(table) for table in tables.values()])) for f in (np.min, np.max))
    place = [k + _APART * (k >= split > 0) for k in range(len(words))]
    labels, scale = [clean(word, 40) for word in words], {"vmin": low, "vmax": high}

    def draw(paper: Paper) -> Figure:
        gap, left, length = 0.16, 0.1, place[-1] + 1
        down = -(-len(tables) // 2) if paper.phone else 1
        across = -(-len(tables) // down)
        room = (paper.wide - left - 0.95 - gap * across) / (across * length + 1)
        cell = min(_CELL, room)
        side = cell * length
        right = paper.wide - left - cell - (side + gap) * across
        bottom = 0.15 + max(map(inches, labels))
        heads = [_broken(name, side) for name in tables]
        shape = {"panels": len(tables), "gap": gap, "down": down}
        shape["above"] = 0.19 + 0.15 * max(map(len, heads))
        beside = left + cell + gap
        figure, panels, _ = canvas(paper, title, side, beside, right, bottom, **shape)
        for axes, head, table in zip(panels, heads, tables.values(), strict=True):
            _heat(axes, table, place, split, **scale)
            axes.set_xticks(place, labels, rotation=90)
            heading(axes, head)

        def strip(x: float, width: float, row: int):
            box = panels[row * across].get_position()
            return figure.add_axes((x / paper.wide, box.y0, width / paper.wide, box.height))

        for row in range(down):
            _stack(strip(left, cell, row), pictures, place)
        _ramp(strip(paper.wide - right + 0.14, 0.12, 0), low, high, measure)
        return figure

    alt = f"Heat maps on one scale: {', '.join(tables)}. {title}. {alt}"
    return Chart(alt=alt, title=title, **both(draw))


def _broken(name: str, width: float) -> list[str]:
    """A name in one line, or in two that break behind an underscore; cut where it must be."""
    if inches(clean(name, 400)) <= width or "_" not in name:
        return [fit(name, width)]
    at = min((k for k, c in enumerate(name, 1) if c == "_"), key=lambda k: abs(2 * k - len(name)))
    return [fit(name[:at], width), fit(name[at:], width)]


def _heat(axes, table: np.ndarray, place: Sequence[float], split: int, **scale) -> None:
    """One table, in four parts with room between them; `place` is where rows and columns are."""
    ends = lambda block: (place[block[0]] - 0.5, place[block[-1]] + 0.5)
    blocks = [block for block in (range(split), range(split, len(place))) if len(block)]
    for down in blocks:
        for across in blocks:
            where = (*ends(across), *ends(down)[::-1])
            style = {"cmap": "Greys", "aspect": "auto", "interpolation": "none", **scale}
            axes.imshow(table[np.ix_(down, across)], extent=where, **style)
    axes.set(xlim=(-0.5, place[-1] + 0.5), ylim=(place[-1] + 0.5, -0.5), yticks=[])
    axes.tick_params(length=0, pad=3)
    axes.spines[:].set_visible(False)


def _stack(axes, pictures: Sequence[np.ndarray], place: Sequence[float]) -> None:
    """Pictures one below the other, each with its own pixels."""
    for y, picture in zip(place, pictures, strict=True):
        style = {"vmin": 0, "vmax": 255, "aspect": "auto", "interpolation": "none"}
        axes.imshow(picture, "gray", extent=(-0.45, 0.45, y + 0.45, y - 0.45), **style)
    axes.set(xlim=(-0.5, 0.5), ylim=(place[-1] + 0.5, -0.5))
    axes.set_axis_off()


def _ramp(axes, low: float, high: float, measure: str) -> None:
    """The scale of a heat map."""
    values, where = np.linspace(low, high, 64)[:, None], (0, 1, low, max(high, low + 1e-9))
    axes.imshow(values, "Greys", extent=where, origin="lower", aspect="auto")
    axes.set_xticks([])
    axes.spines[:].set_visible(False)
    axes.yaxis.tick_right()
    axes.yaxis.set_label_position("right")
