"""Where labels stand so that none covers another, a point or a line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from scipy.optimize import isotonic_regression

from .base import inches


def spread(
    wanted: Sequence[float], gap: float | Sequence[float], low: float, high: float
) -> list[float]:
    """Places nearest to those wanted (least squares), at least `gap` apart, inside low..high.

    More labels than fit keep their gap and leave the range at both ends alike.

    Args:
        gap: One for all, or how much room each label takes, half of it on either side.
    """
    if not len(wanted):
        return []
    order = np.argsort(wanted, kind="stable")
    room = np.broadcast_to(gap, len(wanted))[order]
    steps = np.concatenate([[0.0], np.cumsum((room[1:] + room[:-1]) / 2)])
    # With the gaps taken out, "in order and apart" is "non-decreasing".
    flat = isotonic_regression(np.asarray(wanted, float)[order] - steps).x
    room = high - low - steps[-1]
    flat = np.clip(flat, low, low + room) if room >= 0 else np.full_like(flat, low + room / 2)
    places = np.empty(len(wanted))
    places[order] = flat + steps
    return places.tolist()


#: x0, y0, x1, y1 in points of 1/72 inch.
_Box = tuple[float, float, float, float]


class _Way(NamedTuple):
    """A label's place: its box, where it begins, and the thin line that leads to it."""

    box: _Box
    offset: tuple[float, float]
    side: str
    thread: np.ndarray


def _overlap(a: _Box, b: _Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _runs_through(box: _Box, thread: np.ndarray) -> bool:
    """Whether a thin line runs through a box."""
    x, y = thread.T
    return bool(((box[0] < x) & (x < box[2]) & (box[1] < y) & (y < box[3])).any())


#: Farther from its point than this, a label has a thin line to it.
_NEAR = 14
#: How often all labels are placed again, at most.
_ROUNDS = 8
_TURNS = np.deg2rad([0, 180, 90, 270, *(k for k in range(15, 360, 15) if k % 90)])


def _ways(spot: np.ndarray, width: float, frame: _Box) -> list[_Way]:
    """Places for a label around its point and inside the frame, nearest first."""
    found = []
    for far in range(8, 190, 6):
        for turn in _TURNS:
            dx, dy = np.cos(turn) * far, np.sin(turn) * far
            side = "left" if dx > 1 else "right" if dx < -1 else "center"
            x, y = spot + (dx, dy)
            x0 = {"left": x, "right": x - width, "center": x - width / 2}[side]
            box = (x0 - 1, y - 5.25, x0 + width + 1, y + 5.25)
            if frame[0] < box[0] and box[2] < frame[2] and frame[1] < box[1] and box[3] < frame[3]:
                steps = np.linspace(0.2, 0.95, 24)[:, None] if far > _NEAR else np.empty((0, 1))
                found.append(_Way(box, (dx, dy), side, spot + steps * (dx, dy)))
    return found


@dataclass
class _Sheet:
    """What stands in the way of labels, and the labels placed so far."""

    marks: list[_Box]
    lines: list[_Box]
    placed: dict[int, _Way] = field(default_factory=dict)
    costs: dict[int, float] = field(default_factory=dict)

    def put(self, number: int, ways: Sequence[_Way], fallback: _Way) -> None:
        """Place a label where it covers nothing and crosses least; its own mark is `number`."""
        others = [mark for k, mark in enumerate(self.marks) if k != number]
        written = [way.box for way in self.placed.values()]
        best, least = fallback, 1000.0
        for rank, way in enumerate(ways):
            if rank / 100 >= least:  # the rest is farther away
                break
            if any(_overlap(way.box, box) for box in (*self.marks, *written)):
                continue
            # The thin line may cross lines, but not run through another point.
            if any(_runs_through(mark, way.thread) for mark in others):
                continue
            crossed = sum(_overlap(way.box, line) for line in self.lines)
            crossed += sum(_runs_through(box, way.thread) for box in written)
            crossed += sum(_runs_through(way.box, one.thread) for one in self.placed.values())
            if (cost := 10 * crossed + rank / 100) < least:
                best, least = way, cost
        self.placed[number] = best
        self.costs[number] = least

    @property
    def cost(self) -> float:
        """Ten for each crossing, and something for the distances."""
        return sum(self.costs.values())

    @property
    def crossing(self) -> list[int]:
        """The labels that cross something."""
        return [number for number, cost in self.costs.items() if cost >= 10]


def place(
    figure,
    axes,
    points: Sequence[tuple],
    labels: Sequence[str],
    keep_clear: Sequence[tuple] = (),
    taken: Sequence[_Box] = (),
) -> list:
    """Write each label beside its point, clear of points, other labels and their thin lines.

    Tries places around the point, nearest first; a label that had to move away gets a thin
    line. Labels are placed from the top down; those that cross something come first in the
    next round, and the best round is drawn: the same data give the same picture.

    Args:
        points: In data coordinates.
        keep_clear: Lines, as (x0, y0, x1, y1) in data coordinates, that a label crosses
            only where there is no place without.
        taken: Boxes in points from the figure's lower left corner, where other text stands.

    Returns:
        The annotations, in the order of the labels.
    """
    points = np.asarray(points, float)
    spots = axes.transData.transform(points) * 72 / figure.dpi
    x0, y0, x1, y1 = axes.get_window_extent().extents * 72 / figure.dpi
    frame = (x0, y0, x1 + 6, y1)
    marks = [(x - 4, y - 4, x + 4, y + 4) for x, y in spots]
    lines = []
    for x0, y0, x1, y1 in keep_clear:
        (x0, y0), (x1, y1) = axes.transData.transform([(x0, y0), (x1, y1)]) * 72 / figure.dpi
        lines.append((x0 - 1, y0 - 1, x1 + 1, y1 + 1))
    widths = [72 * inches(label) for label in labels]
    ways = [_ways(spot, width, frame) for spot, width in zip(spots, widths, strict=True)]
    beside = [  # fuller than full: whatever is there
        _Way((x + 8, y - 5, x + 8 + width, y + 5), (8, 0), "left", np.empty((0, 2)))
        for (x, y), width in zip(spots, widths, strict=True)
    ]
    best = None
    order = np.lexsort((spots[:, 0], -spots[:, 1])).tolist()
    for _ in range(_ROUNDS):
        sheet = _Sheet([*marks, *taken], lines)
        for i in order:
            sheet.put(i, ways[i], beside[i])
        best = sheet if best is None or sheet.cost < best.cost else best
        if not sheet.crossing:
            break
        order = [*sheet.crossing, *(i for i in order if i not in sheet.crossing)]
    return [_written(axes, points[i], labels[i], best.placed[i]) for i in range(len(labels))]


def _written(axes, point: np.ndarray, text: str, way: _Way):
    arrow = {"arrowstyle": "-", "lw": 0.5, "alpha": 0.6, "shrinkA": 0, "shrinkB": 3}
    return axes.annotate(
        text,
        point,
        xytext=way.offset,
        textcoords="offset points",
        ha=way.side,
        va="center",
        arrowprops=arrow if len(way.thread) else None,
        annotation_clip=False,
    )
