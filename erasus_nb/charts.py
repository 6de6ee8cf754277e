"""The palette and the few chart kinds; each returns a figure with its finding and alt text.

Every chart takes what was measured and says what it found: the title is computed from the
numbers, never typed. Colour means category, everywhere, and never works alone (marker or
label says the same). A chart is drawn as inline SVG that follows the page's light or dark
theme, scales on a phone, and has the same bytes for the same numbers.
"""

from __future__ import annotations

import html
import io
import re
import textwrap
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import matplotlib.style
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter
from scipy.optimize import isotonic_regression

from . import metrics, score

if TYPE_CHECKING:
    from .score import Board, Standing


@dataclass(frozen=True)
class Mark:
    """How a category is drawn: its colour on white, on a dark page, and its marker."""

    colour: str
    dark: str
    marker: str


#: Smallest OKLab distance between any two (x100): 12.6 on white, 13.2 on a dark page; all
#: reach 3:1 against their ground. Text stays black: three of these are below 4.5:1.
PALETTE: dict[str, Mark] = {
    "Gradient": Mark("#004488", "#3E8BE0", "o"),
    "Parameter": Mark("#D55E00", "#F07D28", "s"),
    "Data": Mark("#009E73", "#22C08F", "^"),
    "LLM": Mark("#7B4FC9", "#A98AF0", "v"),
    "VLM": Mark("#7F4F24", "#9C6B30", "X"),
    "Diffusion": Mark("#CE6FA4", "#F0A3CC", "P"),
    "Ensemble": Mark("#882255", "#C9487F", "D"),
}
#: A reader's own strategy: near-black, so that it stands out from every category.
YOURS = Mark("#000000", "#FFFFFF", "*")
#: Controls, do-nothing included.
CONTROL = Mark("#767676", "#949494", "o")

#: What the three memory criteria are called where a workload does not say.
CRITERIA = {"C1": "verbatim memory", "C2": "knowledge", "C3": "privacy leakage"}

_RC = {
    "svg.fonttype": "none",  # text stays text: searchable, and it follows the theme
    "svg.hashsalt": "erasus",
    "text.parse_math": False,  # a "$" in a name is a dollar sign
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "path.simplify": False,
    "image.composite_image": False,  # several pictures in one axes keep their own pixels
}


def _drawing():
    """Matplotlib's own defaults and _RC: whoever draws, a chart has the same bytes."""
    return matplotlib.style.context(["default", _RC])


_TITLE = 11.0  # points
_TEXT = 9.0
_WIDE = 7.4  # inches, all charts: the text column of the page

_DARK = "".join(f"--erasus-{mark.colour[1:]}:{mark.dark};" for mark in [*PALETTE.values(), CONTROL])
_STYLE = (
    "<style>figure.erasus-chart{margin:1em 0;overflow-x:auto}"
    "figure.erasus-chart svg{width:100%;min-width:34rem;max-width:54rem;height:auto}"
    f'html[data-theme="dark"] .erasus-chart,'
    f'body[data-jp-theme-light="false"] .erasus-chart{{{_DARK}}}</style>'
)


@dataclass(frozen=True, repr=False)
class Chart:
    """A figure, the finding that is its title, and what a reader who cannot see it takes away."""

    figure: Figure
    alt: str
    title: str

    def svg(self) -> str:
        """The figure as an `<svg>` element without size, in the page's own text colour."""
        target = io.StringIO()
        nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
        with _drawing():
            self.figure.savefig(target, format="svg", metadata=nothing)
        text = target.getvalue()
        text = text[text.index("<svg") :]
        text = re.sub(r"\s*<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
        head, rest = text.split(">", 1)
        head = re.sub(r'\s(?:width|height)="[^"]*"', "", head)
        head += ' fill="currentColor"'  # what matplotlib fills with black, it does not say
        # Ids of groups are the same in every figure, and a page holds many figures.
        rest = re.sub(r'<g id="[^"]*"', "<g", rest)
        # A hundredth of a point is below what a screen shows; six decimals double the page.
        shorter = lambda tag: re.sub(r"(\.\d\d)\d+", r"\1", tag[0])
        rest = re.sub(r"<(?!image)[^>]+>", shorter, rest)
        rest = rest.replace("<text ", '<text fill="currentColor" ')
        rest = rest.replace("#000000", "currentColor")
        for mark in (*PALETTE.values(), CONTROL):
            colour = mark.colour.lower()
            rest = rest.replace(colour, f"var(--erasus-{mark.colour[1:]},{colour})")
        return f"{head}>{rest}".strip()

    def _repr_html_(self) -> str:
        return (
            f'<figure class="erasus-chart" role="img" aria-label="{html.escape(self.alt)}">'
            f"{_STYLE}{self.svg()}</figure>"
        )

    def __repr__(self) -> str:
        return f"{self.title}\n{self.alt}"


def mark_of(standing: Standing) -> Mark:
    """Colour and marker of one line of a board."""
    if standing.kind != "strategy":
        return CONTROL
    return PALETTE.get(standing.category, YOURS)


# --------------------------------------------------------------------------- words


def _clean(text: object, most: int = 30) -> str:
    """Text from a result as one printable line of at most `most` characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    return line if len(line) <= most else line[: most - 1].rstrip() + "…"


def _listed(names: Sequence[str], most: int = 3) -> str:
    names = [_clean(name) for name in names]
    if len(names) > most:
        return f"{len(names)} strategies"
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _verb(names: Sequence[str], one: str, many: str) -> str:
    return one if len(names) == 1 else many


def _label(standing: Standing) -> str:
    name = _clean(standing.name)
    some = f"{len(standing.seeds)} {_verb(standing.seeds, 'seed', 'seeds')}"
    what = [
        word
        for word, so in (
            ("edited", standing.edited),
            ("control", standing.kind == "control"),
            (some, standing.status == "partial"),
            ("analogue", standing.analogue),
        )
        if so
    ]
    return f"{name} ({what[0]})" if what else name


def _absence(standing: Standing) -> str:
    status = {"not_applicable": "not applicable", "error": "errored"}
    reason = standing.reason or "no seed finished"
    return f"{status.get(standing.status, standing.status)}: {reason}"


# ---------------------------------------------------------------- choosing what to draw


def _rows(board: Board, names: Collection[str] | None) -> list[Standing]:
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


def _reference(board: Board, kind: str) -> Standing | None:
    lines = [line for line in board.of(kind) if line.rm is not None]
    return lines[0] if lines else None


def _scored(rows: Sequence[Standing], kind: str = "strategy") -> list[Standing]:
    return [line for line in rows if line.kind == kind and line.rm is not None]


def _controls(rows: Sequence[Standing]) -> list[Standing]:
    """The controls that a strategy can be compared with: a partial one lacks seeds."""
    return [line for line in _scored(rows, "control") if line.status == "ok"]


# ------------------------------------------------------------------------ the drawing


def _inches(text: str, size: float = _TEXT, bold: bool = False) -> float:
    """Width of a line of text, measured with the font that draws it."""
    font = FontProperties(size=size, weight="bold" if bold else "normal")
    return text_to_path.get_text_width_height_descent(text, font, False)[0] / 72


def _wrapped(text: str, width: float, size: float = _TEXT) -> list[str]:
    """Lines that are at most `width` inches wide, if their words are."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and _inches(longer, size) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def _fit(text: str, width: float) -> str:
    """The text as one line, cut with an ellipsis to `width` inches."""
    line = _clean(text, 400)
    while len(line) > 1 and _inches(line) > width:
        line = _clean(line, len(line) - 1)
    return line


def _canvas(
    title: str,
    height: float,
    left: float,
    right: float = 0.1,
    bottom: float = 0.5,
    panels: int = 1,
    gap: float = 0.2,
    above: float = 0.1,
):
    """A figure with its title, and `panels` axes side by side; all lengths in inches.

    `height` is the height of the axes; `above` is room between axes and title.
    """
    lines = _wrapped(title, _WIDE - 0.1, _TITLE)
    top = above + 0.21 * len(lines) + 0.06
    whole = height + bottom + top
    figure = Figure(figsize=(_WIDE, whole))
    FigureCanvasAgg(figure)
    figure.text(
        0.05 / _WIDE,
        1 - 0.04 / whole,
        "\n".join(lines),
        size=_TITLE,
        va="top",
        ha="left",
        linespacing=1.25,
    )
    width = (_WIDE - left - right - gap * (panels - 1)) / panels
    axes = [
        figure.add_axes(
            ((left + i * (width + gap)) / _WIDE, bottom / whole, width / _WIDE, height / whole)
        )
        for i in range(panels)
    ]
    return figure, axes, width


def _spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Places nearest to those wanted (least squares), at least `gap` apart, inside low..high.

    More labels than fit keep their gap and leave the range at both ends alike.
    """
    if not len(wanted):
        return []
    order = np.argsort(wanted, kind="stable")
    steps = gap * np.arange(len(wanted))
    # With the gaps taken out, "in order and apart" is "non-decreasing".
    flat = isotonic_regression(np.asarray(wanted, float)[order] - steps).x
    room = high - low - steps[-1]
    flat = np.clip(flat, low, low + room) if room >= 0 else np.full_like(flat, low + room / 2)
    places = np.empty(len(wanted))
    places[order] = flat + steps
    return places.tolist()


def _names(axes, rows: Sequence[Standing], emphasise: Collection[str]) -> None:
    axes.set_yticks(range(len(rows)), [_label(line) for line in rows], size=_TEXT)
    axes.tick_params(axis="y", length=0, pad=6)
    for text, line in zip(axes.get_yticklabels(), rows, strict=True):
        if line.name in emphasise:
            text.set_fontweight("bold")
        if line.kind == "control":
            text.set_fontstyle("italic")


def _left(rows: Sequence[Standing], emphasise: Collection[str]) -> float:
    return 0.2 + max(
        (_inches(_label(line), bold=line.name in emphasise) for line in rows), default=1.0
    )


def _pale(line: Standing, emphasise: Collection[str]) -> float:
    return 1.0 if not emphasise or line.name in emphasise else 0.4


#: Coordinates of notes: along the axes' upper edge, along their right edge.
_TOP, _RIGHT = ("data", "axes fraction"), ("axes fraction", "data")


def _note(axes, text: str, at, by, within="data", ha="center", va="baseline") -> None:
    """Text that stands `by` points (right, up) of the place `at`."""
    offset = {"xytext": by, "textcoords": "offset points"}
    axes.annotate(text, at, xycoords=within, ha=ha, va=va, **offset)


def _mark(axes, x, y, line: Standing, alpha: float, marker: str = "", **more) -> None:
    """The marker of one line of a board; controls are hollow."""
    mark = mark_of(line)
    marker = marker or mark.marker
    more |= {"ms": 8.5 if marker == "*" else 5.5, "mec": mark.colour, "mew": 1.2}
    more["mfc"] = "none" if line.kind == "control" else mark.colour
    axes.plot(x, y, marker, alpha=alpha, **more)


def _dot(axes, y: float, line: Standing, interval, seeds, limits, emphasise) -> None:
    """One row: the seeds as small points, the mean as marker, its interval as a bar.

    What lies outside `limits` = (low, high) becomes an arrow at the edge with its number.
    """
    low, high = limits
    colour, alpha = {"color": mark_of(line).colour}, _pale(line, emphasise)
    inside = [value for value in seeds if low <= value <= high]
    # Below the bar, which would cover them.
    axes.plot(inside, [y + 0.24] * len(inside), ".", ms=4, mew=0, alpha=0.5 * alpha, **colour)
    if low <= interval.mean <= high:
        ends = np.clip([interval.low, interval.high], low, high)
        axes.plot(ends, [y, y], lw=1.6, alpha=alpha, solid_capstyle="butt", **colour)
        _mark(axes, interval.mean, y, line, alpha)
        return
    beyond = interval.mean > high
    edge = high if beyond else low
    rightwards = beyond != axes.xaxis_inverted()
    _mark(axes, edge, y, line, alpha, ">" if rightwards else "<", clip_on=False)
    by, ha = ((-6, 0), "right") if rightwards else ((6, 0), "left")
    _note(axes, f"{interval.mean:.1f}", (edge, y), by, ha=ha, va="center")


def _band(axes, values: Sequence[float], mean: float, across: str) -> None:
    """Retrained against retrained: a grey band from the lowest to the highest seed."""
    span, line = (axes.axvspan, axes.axvline) if across == "x" else (axes.axhspan, axes.axhline)
    if len(values) > 1:
        span(min(values), max(values), color="#000000", alpha=0.12, lw=0, zorder=0)
    line(mean, color="#000000", lw=1.2, zorder=0.5)


def forest(
    board: Board, names: Collection[str] | None = None, emphasise: Collection[str] = ()
) -> Chart:
    """Retrain-Match of every strategy and control, with interval, seeds and references.

    Args:
        board: One workload's board.
        names: Strategies to draw; None = all, with their tiers, which only say something
            of a whole board. Controls are always drawn.
        emphasise: Names drawn strongly; the other marks pale.
    """
    rows = _rows(board, names)
    scored = [line for line in rows if line.rm is not None]
    rows = scored + [line for line in rows if line.rm is None]
    original, retrained = _reference(board, "original"), _reference(board, "retrained")
    title = _first(board, rows)

    with _drawing():
        height = 0.24 * max(len(rows), 2)
        figure, (axes,), width = _canvas(
            title, height, _left(rows, emphasise), right=0.5, above=0.34
        )
        limits = (-2.0, 104.0)
        axes.set(xlim=limits, ylim=(max(len(rows), 2) - 0.4, -0.6))
        tops, places = [], []
        if original is not None:
            axes.axvline(original.rm.mean, color="#000000", lw=1.2, ls=(0, (4, 3)), zorder=0.5)
            tops, places = ["original"], [original.rm.mean]
        if retrained is not None:
            _band(axes, list(retrained.rm_by_seed.values()), retrained.rm.mean, "x")
            tops, places = [*tops, "retrained"], [*places, retrained.rm.mean]
        # In units of the score: labels keep apart and stay left of the word "tier".
        unit = (limits[1] - limits[0]) / width
        half = 0.5 * unit * _inches("retrained")
        apart = _spread(places, 2.2 * half, limits[0], limits[1] - half)
        for text, place in zip(tops, apart, strict=True):
            _note(axes, text, (place, 1), (0, 4), _TOP)
        for y, line in enumerate(rows):
            if line.rm is not None:
                _dot(axes, y, line, line.rm, line.rm_by_seed.values(), limits, emphasise)
                if line.tier and names is None:
                    tier = _clean(line.tier, 4)
                    _note(axes, tier, (1, y), (14, 0), _RIGHT, va="center")
            else:
                axes.text(1.5, y, _fit(f"— {_absence(line)}", width - 0.15), va="center")
        if names is None and any(line.tier for line in scored):
            _note(axes, "tier", (1, 1), (14, 4), "axes fraction")
        _names(axes, rows, emphasise)
        axes.set_xlabel(
            "Retrain-Match: 0 = like the original, 100 = like retrained (higher is better)"
        )
    alt = (
        f"Dot plot with intervals, sorted from best to worst. {title}. "
        + _alt_controls(rows)
        + _alt_missing(rows)
    )
    return Chart(figure, alt.strip(), title)


def _first(board: Board, rows: Sequence[Standing]) -> str:
    """The finding of the board in one sentence, and whether a control is as close."""
    if not _scored(rows):
        return f"No strategy has a score on {_clean(board.workload)}"
    said = score.first_place(board, _clean)
    if strong := _as_close(board.leaders, _controls(rows)):
        said += f"; the control {_clean(strong.name)} is as close to retraining"
    return said


def _as_close(first: Sequence[Standing], controls: Sequence[Standing]) -> Standing | None:
    """The best of some controls, if none of those who come first has a higher mean."""
    strong = max(controls, key=lambda line: line.rm.mean, default=None)
    if not first or strong is None:
        return None
    return strong if strong.rm.mean >= max(line.rm.mean for line in first) else None


def _alt_controls(rows: Sequence[Standing]) -> str:
    controls = _controls(rows)
    if not controls or not _scored(rows):
        return ""
    strong = max(controls, key=lambda line: line.rm.mean)
    below = [line for line in _scored(rows) if line.rm.mean <= strong.rm.mean]
    return (
        f"The best control is {_clean(strong.name)}; {len(below)} of {len(_scored(rows))} "
        "strategies are not above it. "
    )


def _alt_missing(rows: Sequence[Standing]) -> str:
    missing = [_clean(line.name) for line in rows if line.rm is None]
    return f"Without a score: {', '.join(missing)}." if missing else ""


def rank_intervals(
    board: Board, names: Collection[str] | None = None, emphasise: Collection[str] = ()
) -> Chart:
    """One bar a strategy: the ranks it may hold, given what the seeds can tell apart."""
    rows = [line for line in _rows(board, names) if line.kind == "strategy" and line.rank]
    resolved, pairs = board.pairs_resolved
    title = f"The seeds tell {resolved} of {pairs} pairs of strategies apart"
    title += f". {score.first_place(board, _clean)}"
    with _drawing():
        last = max((line.rank[1] for line in rows), default=2)
        figure, (axes,), _ = _canvas(
            title, 0.24 * max(len(rows), 2), _left(rows, emphasise), right=0.3
        )
        axes.set(xlim=(0.4, last + 0.6), ylim=(max(len(rows), 2) - 0.4, -0.6))
        for y, line in enumerate(rows):
            mark, alpha = mark_of(line), _pale(line, emphasise)
            ends = {"color": mark.colour, "marker": mark.marker, "ms": 5, "mew": 0}
            axes.plot(line.rank, [y, y], lw=1.6, alpha=alpha, **ends)
        _names(axes, rows, emphasise)
        step = max(1, round(last / 12))
        axes.set_xticks(range(1, last + 1, step))
        axes.set_xlabel("rank that a strategy may hold (1 = closest to retraining)")
    alt = f"Bars from the best to the worst rank that each strategy may hold. {title}."
    return Chart(figure, alt, title)


def positions(
    board: Board, names: Collection[str] | None = None, emphasise: Collection[str] = ()
) -> Chart:
    """Where each strategy ends between original (1), retrained (0) and over-unlearned (-1).

    Three panels, one for each memory criterion. A mean outside the panel is an arrow at its
    edge with the number.
    """
    rows = [line for line in _rows(board, names) if line.rm is not None]
    strategies = _scored(rows)
    near = [line for line in strategies if all(abs(p.mean) <= 0.25 for p in line.position.values())]
    over = [line for line in strategies if any(p.high < -0.1 for p in line.position.values())]
    title = (
        f"On {_clean(board.workload)}, {len(near)} of {len(strategies)} strategies end within "
        f"a quarter of the way from retrained on all three criteria; {len(over)} "
        f"{_verb(over, 'goes', 'go')} beyond retraining on one or more"
    )
    retrained = _reference(board, "retrained")
    called = {**CRITERIA, **board.facts.get("criteria", {})}
    with _drawing():
        figure, panels, width = _canvas(
            title,
            0.24 * max(len(rows), 2),
            _left(rows, emphasise),
            bottom=0.75,
            panels=3,
            gap=0.22,
            above=0.5,
        )
        limits = (-1.35, 1.75)  # wider on the left: a number beyond fits before the dashed line
        for axes, criterion in zip(panels, CRITERIA, strict=True):
            # Original on the left: reading order is the way that unlearning should go.
            axes.set(xlim=limits[::-1], ylim=(max(len(rows), 2) - 0.4, -0.6))
            axes.axvline(1, color="#000000", lw=1.2, ls=(0, (4, 3)), zorder=0.5)
            seeds = retrained.position_by_seed.get(criterion, {}) if retrained else {}
            _band(axes, list(seeds.values()), 0.0, "x")
            for y, line in enumerate(rows):
                if criterion in line.position:
                    _dot(
                        axes,
                        y,
                        line,
                        line.position[criterion],
                        line.position_by_seed.get(criterion, {}).values(),
                        limits,
                        emphasise,
                    )
            heading = "\n".join(_wrapped(f"{criterion} {called[criterion]}", width))
            _note(axes, heading, (0.5, 1), (0, 4), "axes fraction", va="bottom")
            axes.set_xticks([1, -1], ["original", "over"])
            # A line lower: the three words do not fit side by side.
            axes.set_xticks([0], ["retrained"], minor=True)
            axes.tick_params(axis="x", which="minor", length=16, width=0.8, pad=2)
            axes.set_yticks([])
        _names(panels[0], rows, emphasise)
        figure.text(
            0.5,
            0.1 / figure.get_figheight(),
            ha="center",
            va="bottom",
            s="signed position: 1 = original, 0 = retrained (best), below 0 = "
            "over-unlearned; grey: retrained, all seeds",
        )
    leaky = [line for line in strategies if "C3" in line.position]  # it needs a holdout
    exposed = [line.name for line in leaky if line.position["C3"].low > 1]
    alt = f"Three panels of dots from original through retrained to over-unlearned. {title}."
    if exposed:
        worse = _verb(exposed, "is", "are")
        alt += f" {_listed(exposed)} {worse} more exposed than the original."
    return Chart(figure, alt, title)


def axes(
    board: Board, names: Collection[str] | None = None, emphasise: Collection[str] = ()
) -> Chart:
    """The three parts of the score side by side: forgetting, privacy, utility."""
    rows = [line for line in _rows(board, names) if line.rm is not None]
    parts = {"forgetting": "forgetting", "privacy": "privacy", "utility": "utility"}
    strategies = _scored(rows)
    weakest = [
        min(parts, key=lambda part, line=line: getattr(line, part).mean) for line in strategies
    ]
    title = f"No strategy has a score on {_clean(board.workload)}"
    if weakest:
        most = max(parts, key=weakest.count)
        title = (
            f"On {_clean(board.workload)}, {most} is the weakest part of "
            f"{weakest.count(most)} of {len(weakest)} strategies"
        )
    retrained = _reference(board, "retrained")
    with _drawing():
        figure, panels, _ = _canvas(
            title,
            0.24 * max(len(rows), 2),
            _left(rows, emphasise),
            right=0.2,
            bottom=0.6,
            panels=3,
            gap=0.3,
            above=0.34,
        )
        for panel, part in zip(panels, parts, strict=True):
            panel.set(xlim=(-0.04, 1.06), ylim=(max(len(rows), 2) - 0.4, -0.6))
            panel.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
            if retrained is not None:
                part_of = getattr(retrained, part)
                _band(panel, [part_of.low, part_of.high], part_of.mean, "x")
            for y, line in enumerate(rows):
                _dot(panel, y, line, getattr(line, part), (), (-0.04, 1.06), emphasise)
            _note(panel, part, (0.5, 1), (0, 4), "axes fraction")
            panel.set_yticks([])
        _names(panels[0], rows, emphasise)
        figure.text(
            0.5,
            0.1 / figure.get_figheight(),
            ha="center",
            va="bottom",
            s="match with retraining (1 = like retrained, higher is better; "
            "line and grey: retrained)",
        )
    return Chart(figure, f"Three panels of dots with intervals. {title}.", title)


def _boxes_overlap(a, b) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _place(
    figure, axes, points: Sequence[tuple], labels: Sequence[str], keep_clear: Sequence[tuple] = ()
) -> list:
    """Write each label beside its point, clear of the other points and labels.

    Tries places around the point, nearest first; a label that had to move away gets a thin
    line. Points and labels are taken from the top down, so the same data give the same
    picture. `keep_clear` are lines, as (x0, y0, x1, y1) in data coordinates, that a label
    crosses only where there is no place without; nor do labels and other labels' thin lines
    cross where that can be helped.
    """
    points = np.asarray(points, float)
    spots = axes.transData.transform(points) * 72 / figure.dpi  # in points of 1/72 inch
    frame = axes.get_window_extent().extents * 72 / figure.dpi
    marks = [(x - 4, y - 4, x + 4, y + 4) for x, y in spots]
    lines = []
    for x0, y0, x1, y1 in keep_clear:
        (x0, y0), (x1, y1) = axes.transData.transform([(x0, y0), (x1, y1)]) * 72 / figure.dpi
        lines.append((x0 - 1, y0 - 1, x1 + 1, y1 + 1))
    turns = np.deg2rad([0, 180, 90, 270, 30, 330, 150, 210, 60, 300, 120, 240])
    ways = [
        (far, np.cos(turn) * far, np.sin(turn) * far) for far in range(8, 130, 6) for turn in turns
    ]
    texts: list = [None] * len(labels)
    written: list[tuple] = []
    threads: list[np.ndarray] = []
    within = lambda box, spot: box[0] < spot[0] < box[2] and box[1] < spot[1] < box[3]
    for i in sorted(range(len(labels)), key=lambda i: (-spots[i][1], spots[i][0])):
        wide, tall = 72 * _inches(labels[i]), 10.5
        others = [mark for k, mark in enumerate(marks) if k != i]
        fits = []
        for far, dx, dy in ways:
            ha = "left" if dx > 1 else "right" if dx < -1 else "center"
            x, y = spots[i] + (dx, dy)
            x0 = {"left": x, "right": x - wide, "center": x - wide / 2}[ha]
            box = (x0 - 1, y - tall / 2, x0 + wide + 1, y + tall / 2)
            inside = frame[0] < box[0] and box[2] < frame[2] + 6
            if not (inside and frame[1] < box[1] and box[3] < frame[3]):
                continue
            if any(_boxes_overlap(box, other) for other in (*marks, *written)):
                continue
            # The thin line may cross lines, but not run through another point.
            path = spots[i] + np.outer(np.linspace(0.2, 0.95, 24), (dx, dy))
            path = path if far > 14 else path[:0]  # as long as it is drawn
            if any(within(other, spot) for spot in path for other in others):
                continue
            crossed = sum(_boxes_overlap(box, line) for line in lines)
            crossed += 3 * sum(any(within(label, spot) for spot in path) for label in written)
            crossed += 3 * sum(any(within(box, spot) for spot in thread) for thread in threads)
            fits.append((crossed, len(fits), box, far, dx, dy, ha, path))
            if not crossed:
                break
        if not fits:  # fuller than full: beside its point, whatever is there
            x, y = spots[i]
            box = (x + 8, y - 5, x + 8 + wide, y + 5)
            fits = [(0, 0, box, 8, 8, 0, "left", spots[:0])]
        _, _, box, far, dx, dy, ha, path = min(fits, key=lambda fit: fit[:2])
        written.append(box)
        threads.append(path)
        arrow = {"arrowstyle": "-", "lw": 0.5, "alpha": 0.6, "shrinkA": 0, "shrinkB": 3}
        texts[i] = axes.annotate(
            labels[i],
            points[i],
            xytext=(dx, dy),
            textcoords="offset points",
            ha=ha,
            va="center",
            arrowprops=arrow if far > 14 else None,
            annotation_clip=False,
        )
    return texts


def quality_against_cost(
    board: Board, names: Collection[str] | None = None, emphasise: Collection[str] = ()
) -> Chart:
    """Retrain-Match against time, as a share of what retraining takes; upper left wins.

    A ring marks a strategy that had to keep something from training time.
    """
    rows = [
        line for line in _rows(board, names) if line.rm is not None and line.time_ratio is not None
    ]
    original, retrained = _reference(board, "original"), _reference(board, "retrained")
    title = _worth(board, rows)
    # A clock's resolution is not "free": what took no measurable time is drawn at the edge.
    # So is a control that costs next to nothing, or the strategies would share a corner.
    timed = [line.time_ratio for line in _scored(rows)]
    edge = max(1e-4, min(timed, default=0.0) / 2)
    cost = [max(line.time_ratio, edge) for line in rows]
    with _drawing():
        figure, (axes,), _ = _canvas(
            title, 4.4 if len(rows) <= 20 else 5.6, 0.62, right=0.75, bottom=0.55, above=0.3
        )
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        low, high = min([*cost, 0.1]), max([*cost, 1.0])
        room = (high / low) ** 0.08
        axes.set(xlim=(low / room, high * room**1.6), ylim=(-4, 106))
        axes.axvline(1.0, color="#000000", lw=0.8, zorder=0.5)
        _note(axes, "as long as retraining", (1, 1), (0, 4), _TOP)
        if original is not None:
            axes.axhline(original.rm.mean, color="#000000", lw=1.2, ls=(0, (4, 3)), zorder=0.5)
        if retrained is not None:
            _band(axes, list(retrained.rm_by_seed.values()), retrained.rm.mean, "y")
        for x, line in zip(cost, rows, strict=True):
            colour, alpha = mark_of(line).colour, _pale(line, emphasise)
            ends = np.clip([line.rm.low, line.rm.high], -4, 106)
            axes.plot([x, x], ends, lw=1.0, color=colour, alpha=0.6 * alpha)
            _mark(axes, x, line.rm.mean, line, alpha)
            if line.extra_storage_bytes:
                ring = {"ms": 12, "mfc": "none", "mec": colour, "mew": 0.8}
                axes.plot(x, line.rm.mean, "o", alpha=alpha, **ring)
        (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
        lines = [(1.0, bottom, 1.0, top)]
        lines += [(x, line.rm.low, x, line.rm.high) for x, line in zip(cost, rows, strict=True)]
        for line in (original, retrained):
            if line is not None:
                lines.append((left, line.rm.mean, right, line.rm.mean))
        for line, text in ((original, "original"), (retrained, "retrained")):
            if line is not None:
                at = (1, line.rm.mean)
                _note(axes, text, at, (4, 0), _RIGHT, ha="left", va="center")
        spots = [(x, line.rm.mean) for x, line in zip(cost, rows, strict=True)]
        labels = [
            _label(line) + (f" ← {line.time_ratio:.1g}" if line.time_ratio < edge else "")
            for line in rows
        ]
        texts = _place(figure, axes, spots, labels, lines) if rows else []
        for line, text in zip(rows, texts, strict=True):
            if line.name in emphasise:
                text.set_fontweight("bold")
        kept = any(line.extra_storage_bytes for line in rows)
        axes.set_xlabel(
            "time / time of retraining (log; left is cheaper"
            + ("; ring: also keeps data from training time)" if kept else ")")
        )
        axes.set_ylabel("Retrain-Match (higher is better)")
    alt = f"Scatter of score against time relative to retraining, upper left is best. {title}."
    return Chart(figure, alt, title)


def _worth(board: Board, rows: Sequence[Standing]) -> str:
    """What the quality-against-cost picture says in one sentence."""
    workload = _clean(board.workload)
    timed = _scored(rows)
    if not timed:
        return f"No strategy has a score and a time on {workload}"
    cheaper = [line for line in timed if line.time_ratio < 1]
    if not cheaper:
        return f"On {workload}, no strategy takes less time than retraining"
    if not board.above_control:
        return score.first_place(board, _clean)
    than = f"significantly better than the best cheap control, {_clean(board.bar.name)}"
    better = [line for line in cheaper if line in board.above_control]
    if not better:
        return f"On {workload}, no strategy faster than retraining is {than}"
    if len(better) == 1:
        first, said = better, f"only {_clean(better[0].name)} is faster than retraining and {than}"
    else:
        first = [line for line in better if line in board.leaders]
        said = f"{len(better)} strategies are faster than retraining and {than}"
        said += f"; among them {_listed([s.name for s in first])}" if first else ""
        said += ", first as far as the seeds can tell" if first else ""
    slowest = max((line.time_ratio for line in first), default=0.0)
    quick = [line for line in _controls(rows) if line.time_ratio <= slowest]
    if strong := _as_close(first, quick):
        said += f", but the control {_clean(strong.name)} is as close in no more time"
    return f"On {workload}, {said}"


# ------------------------------------------------------------------------ other pictures


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
    with _drawing():
        right = 0.25 + max(_inches(_clean(name)) for name in curves)
        measure = textwrap.wrap(ylabel, 40)  # as long as the axis
        left = 0.45 + 0.17 * len(measure)
        figure, (axes,), _ = _canvas(title, 3.2, left, right=right)
        for name, by_step in means.items():
            category = (categories or {}).get(name, "")
            mark = PALETTE.get(category, YOURS)
            style = {"color": mark.colour, "marker": mark.marker, "ms": 4.5, "lw": 1.4}
            if name == "original":
                style = {"color": "#000000", "ls": (0, (4, 3)), "lw": 1.4}
            if name == "retrained":
                style = {"color": "#000000", "lw": 1.4}
                steps = sorted(curves[name])
                axes.fill_between(
                    steps,
                    [min(curves[name][s]) for s in steps],
                    [max(curves[name][s]) for s in steps],
                    color="#000000",
                    alpha=0.12,
                    lw=0,
                )
            axes.plot(list(by_step), list(by_step.values()), **style)
            dots = [(step, value) for step, values in curves[name].items() for value in values]
            faint = {"ms": 3, "mew": 0, "alpha": 0.4, "color": style["color"]}
            axes.plot(*zip(*dots, strict=True), ".", **faint)
        bottom, top = axes.get_ylim()
        ends = [list(by_step.items())[-1] for by_step in means.values()]
        gap = (top - bottom) * 0.165 / 3.2
        furthest = max(step for step, _ in ends)
        axes.set(ylim=(bottom, top), xlim=(None, furthest))
        heights = _spread([value for _, value in ends], gap, bottom, top)
        for name, y in zip(means, heights, strict=True):
            axes.text(furthest + 0.012 * (furthest or 1), y, _clean(name), va="center")
        axes.set_xticks(sorted({step for by_step in means.values() for step in by_step}))
        axes.set_xlabel("steps of the relearning attack")
        axes.set_ylabel("\n".join(measure))
    said = _fates_told(means, unlearned)
    return Chart(figure, f"Curves by attack step. {title}. {said}", title)


#: What an attack finds of a model: verb of one, verb of several, the rest.
_BACK = ("is", "are", "most of the way back")
_NEAR = ("stays", "stay", "near retrained")
_PARTLY = ("comes", "come", "part of the way back")
_BETWEEN = ("does not come back: between", "do not come back: between", "retrained and original")
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
            said.append(f"{_listed(names)} {_verb(names, one, many)} {where}")
    return f"After {last} relearning steps, " + "; ".join(said)


def _fates_told(means: Mapping[str, Mapping[int, float]], unlearned: Sequence[str]) -> str:
    """Who came back and who did not, each with the values before and after the attack."""

    def moved(name: str) -> str:
        line = means[name]
        return f"{_clean(name)} ({line[min(line)]:.2f} to {line[max(line)]:.2f})"

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


def request_picture(groups: Sequence[tuple], title: str = "") -> Chart:
    """What is to be forgotten and what is kept.

    Args:
        groups: `(label, images)` with images [n, h, w] in 0..1, drawn as columns of small
            pictures, the first 25 of each; or `(label, xy)` / `(label, xy, marker)` with xy
            [n, 2], drawn as one scatter. Labels that begin with "forget" are drawn black,
            the others grey.
        title: What the picture shows; empty = a line made of the groups' labels.
    """
    labels = [_clean(group[0], 40) for group in groups]
    asked = [label for label in labels if label.startswith("forget")]
    rest = [label for label in labels if label not in asked]
    what = [label.removeprefix("forget").strip(" :") or label for label in asked]
    title = title or f"To forget: {' and '.join(what)}. Beside it: {'; '.join(rest)}"
    pictures = np.asarray(groups[0][1]).ndim == 3
    with _drawing():
        figure = _gallery(groups, title) if pictures else _scatter(groups, title)
    kind = "Columns of small pictures" if pictures else "Scatter of the data in two directions"
    return Chart(figure, f"{kind}: {', '.join(labels)}.", title)


def _gallery(groups: Sequence[tuple], title: str) -> Figure:
    across, gap = 5, 0.3
    down = max(-(-min(len(group[1]), 25) // across) for group in groups)
    width = (_WIDE - 0.2 - gap * (len(groups) - 1)) / len(groups)
    _, tall, wide = np.shape(groups[0][1])
    height = width * down * (tall + 1) / (across * (wide + 1))
    figure, panels, _ = _canvas(
        title, height, 0.1, bottom=0.1, panels=len(groups), gap=gap, above=0.45
    )
    for axes, (label, images) in zip(panels, groups, strict=True):
        sheet = np.full((down * (tall + 1), across * (wide + 1)), np.nan)
        for i, image in enumerate(np.asarray(images, float)[:25]):
            y, x = divmod(i, across)
            sheet[y * (tall + 1) :][:tall, x * (wide + 1) :][:, :wide] = image
        axes.imshow(
            np.ma.masked_invalid(sheet), cmap="gray_r", vmin=0, vmax=1, interpolation="none"
        )
        axes.set_axis_off()
        axes.set_title("\n".join(_wrapped(_clean(label, 60), width)[:2]), size=_TEXT, pad=4)
    return figure


def _scatter(groups: Sequence[tuple], title: str) -> Figure:
    """Forget in black above the others in grey: the categories' colours mean strategies."""
    labels = [f"{_clean(group[0])} ({len(group[1])})" for group in groups]
    right = 0.45 + max(_inches(label) for label in labels)
    figure, (axes,), width = _canvas(title, 3.6, 0.1, right=right, bottom=0.35)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.set_xlabel("two directions of the data (no unit)")
    forms = {True: ["o", "X", "P"], False: [".", "o", "s"]}
    seen = {True: 0, False: 0}
    for i, (label, xy, *given) in enumerate(groups):
        asked = str(label).startswith("forget")
        number = seen[asked]
        seen[asked] += 1
        colour = "#000000" if asked else CONTROL.colour
        style = {
            "marker": given[0] if given else forms[asked][number % 3],
            "ls": "none",
            "ms": 4.5,
            "mew": 0.7,
            "mec": colour,
            "alpha": 0.8,
            "mfc": "none" if number % 2 and not asked else colour,
            "zorder": 3 if asked else 2,
        }
        axes.plot(*np.asarray(xy, float).T, **style)
        # Groups overlap, so a label inside the cloud could not say whose it is.
        y = 0.96 - 0.075 * i
        axes.plot(1 + 0.15 / width, y, transform=axes.transAxes, clip_on=False, **style)
        axes.text(1 + 0.27 / width, y, labels[i], transform=axes.transAxes, va="center")
    return figure


def measures(
    board: Board,
    columns: Mapping[str, str],
    label: str,
    title: str,
    alt: str,
    names: Collection[str] | None = None,
) -> Chart:
    """Measured shares side by side, a panel each, with original and retrained as rulers.

    Args:
        board: One workload's board.
        columns: Metric, a share of 0 to 1 -> what it is called.
        label: The measure, with its unit.
        title: The finding. alt: what else a reader who cannot see it takes away.
        names: Strategies to draw; None = all. Controls are always drawn.
    """
    rows = [line for line in _rows(board, names) if columns.keys() & line.metrics.keys()]
    original, retrained = (board[kind].metrics for kind in ("original", "retrained"))
    left, gap, right = _left(rows, ()), 0.14, 0.15
    width = (_WIDE - left - right - gap * (len(columns) - 1)) / len(columns)
    heads = {metric: _wrapped(what, width) for metric, what in columns.items()}
    with _drawing():
        figure, panels, _ = _canvas(
            title,
            0.24 * max(len(rows), 2),
            left,
            right,
            bottom=0.6,
            panels=len(columns),
            gap=gap,
            above=0.2 + 0.15 * max(map(len, heads.values())),
        )
        limits = (-0.06, 1.06)
        for axes, (metric, head) in zip(panels, heads.items(), strict=True):
            axes.set(xlim=limits, ylim=(max(len(rows), 2) - 0.4, -0.6))
            axes.set_xticks([0, 1], ["0", "1"])
            axes.set_yticks([])
            if metric in original:
                style = {"color": "#000000", "lw": 1.2, "ls": (0, (4, 3)), "zorder": 0.5}
                axes.axvline(original[metric].mean, **style)
            if metric in retrained:
                ruler = retrained[metric]
                ends = np.clip([ruler.low, ruler.high], 0, 1) if ruler.n > 1 else ()
                _band(axes, ends, ruler.mean, "x")
            for y, line in enumerate(rows):
                if metric in line.metrics:
                    _dot(axes, y, line, line.metrics[metric], (), limits, ())
            _note(axes, "\n".join(head), (0.5, 1), (0, 4), "axes fraction", va="bottom")
        _names(panels[0], rows, ())
        low = 0.1 / figure.get_figheight()
        figure.text(0.5, low, label, ha="center", va="bottom")
    return Chart(figure, f"Panels of dots with intervals. {title}. {alt}", title)


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
    last = list(panels)[-1]
    with _drawing():
        right = 0.25 + max(_inches(_clean(name)) for name in (*panels[last], *levels[last]))
        shape = {"panels": len(panels), "gap": 0.2, "above": 0.34}
        figure, drawn, _ = _canvas(title, 2.3, 0.62, right, 0.55, **shape)
        end = len(places) - 1
        for axes, (head, curves) in zip(drawn, panels.items(), strict=True):
            for share in levels[head].values():
                axes.axhline(share, color=CONTROL.colour, lw=1.0, zorder=0.5)
            for style, shares in zip(_CURVES, curves.values(), strict=False):
                axes.plot(range(len(places)), shares, color="#000000", lw=1.4, ms=5, **style)
            axes.set(xlim=(-0.35, end + 0.35), ylim=(-0.04, 1.04))
            axes.set_xticks(range(len(places)), places)
            axes.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])
            axes.set_xlabel(xlabel)
            _note(axes, _clean(head, 60), (0.5, 1), (0, 4), "axes fraction")
        drawn[0].set_ylabel(ylabel)
        for axes in drawn[1:]:
            axes.set_yticklabels([])
        ends = {name: shares[-1] for name, shares in panels[last].items()} | levels[last]
        heights = _spread(list(ends.values()), 0.165 / 2.3 * 1.08, -0.04, 1.04)
        for name, y in zip(ends, heights, strict=True):
            drawn[-1].text(end + 0.35 + 0.03 * (end + 1), y, _clean(name), va="center")
    return Chart(figure, f"Curves over places. {title}. {alt}", title)


def leaks(board: Board, names: Collection[str] | None = None) -> Chart:
    """PrivLeak of every row on one line: under-unlearned left, over-unlearned right.

    Args:
        board: The board of a language model.
        names: Strategies to draw; None = all. Controls and the original are always drawn.

    Raises:
        ValueError: no retrained model was measured.
    """
    # Not `_reference`: an AUC can be drawn where nothing can be scored.
    retrained, original = board["retrained"], board["original"]
    if "C3" not in retrained.metrics:
        raise ValueError("PrivLeak needs the retrained model's AUC")
    level = min(retrained.metrics["C3"].mean, 0.999)
    leak = lambda auc: metrics.privleak(min(max(auc, 0.0), 1.0), level)
    rows = [line for line in _rows(board, names) if "C3" in line.metrics]
    rows = sorted([original, *rows], key=lambda line: -line.metrics["C3"].mean)
    at = {line.name: leak(line.metrics["C3"].mean) for line in rows}
    tried = [line for line in rows if line.kind == "strategy"]
    under = sum(at[line.name] < -10 for line in tried)
    over = sum(at[line.name] > 10 for line in tried)
    title = (
        f"Of {len(tried)} strategies, {under} leave the forgotten text more familiar than "
        f"retraining does (PrivLeak below -10 %), {over} make it stranger (above 10 %)"
    )
    with _drawing():
        height = 0.24 * max(len(rows), 2)
        figure, (axes,), _ = _canvas(title, height, _left(rows, ()), 0.2, above=0.34)
        spread = retrained.metrics["C3"]
        if spread.n > 1:
            axes.axvspan(leak(spread.high), leak(spread.low), color="#000000", alpha=0.12)
        axes.axvline(0, color="#000000", lw=1.2, zorder=0.5)
        for y, line in enumerate(rows):
            found = line.metrics["C3"]
            if found.n > 1:
                ends = [leak(found.high), leak(found.low)]
                axes.plot(ends, [y, y], color=mark_of(line).colour, lw=1.4)
            _mark(axes, at[line.name], y, line, 1.0)
        low, high = axes.get_xlim()
        axes.set(xlim=(min(low, -105), max(high, 60)), ylim=(max(len(rows), 2) - 0.4, -0.6))
        _note(axes, "retrained", (0, 1), (0, 4), _TOP)
        _note(axes, "still familiar", (0.01, 1), (0, 4), "axes fraction", ha="left")
        _note(axes, "stranger than unseen", (0.99, 1), (0, 4), "axes fraction", ha="right")
        _names(axes, rows, ())
        axes.set_xlabel("PrivLeak, % (MUSE's sign; 0 = like retrained)")
    said = ", ".join(f"{_clean(name)} {value:.0f}" for name, value in at.items())
    return Chart(figure, f"Strip of PrivLeak in percent. {title}. {said}.", title)


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
        f"Probability of the true answer: {_listed(lost)} "
        f"{_verb(lost, 'loses', 'lose')} retained answers with the forgotten ones"
        if lost
        else "Probability of the true answer, on its way from original towards retrained"
    )
    strokes = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 1.5, 1, 1.5)), (0, (9, 2)))
    with _drawing():
        right = 0.25 + max(_inches(_clean(name)) for name in (*curves, *levels))
        figure, panels, _ = _canvas(title, 2.6, 0.62, right=right, panels=2, above=0.34)
        for place, (axes, what) in enumerate(zip(panels, ("forget", "retain")), 1):
            ends = {}
            furthest = max(points[-1][0] for points in curves.values())
            for name, both in levels.items():
                stroke = (0, (4, 3)) if name == "original" else "-"
                axes.axhline(both[place - 1], color="#000000", ls=stroke, lw=1.2)
                ends[name] = both[place - 1]
            for number, (name, points) in enumerate(curves.items()):
                mark = PALETTE.get(categories.get(name, ""), CONTROL)
                passed, values = zip(*((p[0], p[place]) for p in points))
                stroke = strokes[number % len(strokes)]
                axes.plot(passed, values, color=mark.colour, ls=stroke, lw=1.5)
                axes.plot(passed[-1:], values[-1:], mark.marker, color=mark.colour, ms=4)
                ends[name] = values[-1]
            axes.set(ylim=(-0.02, 1.04), xlim=(0, furthest * 1.02 or 1))
            axes.xaxis.set_major_locator(MaxNLocator(5, prune="upper"))
            axes.set_xlabel("example passes, share of retraining's")
            _note(axes, f"asked about the {what} set", (0.5, 1), (0, 4), "axes fraction")
        panels[0].set_ylabel("probability of the true answer")
        panels[1].set_yticklabels([])
        heights = _spread(list(ends.values()), 0.165 / 2.6 * 1.06, -0.02, 1.04)
        for name, y in zip(ends, heights, strict=True):
            panels[1].text(furthest * 1.05, y, _clean(name), va="center")
    said = "; ".join(
        f"{_clean(n)}: forget {p[0][1]:.2f} to {p[-1][1]:.2f}, retain {p[0][2]:.2f} to "
        f"{p[-1][2]:.2f}"
        for n, p in curves.items()
    )
    return Chart(figure, f"Curves over example passes. {title}. {said}.", title)


def traced(
    effects: Mapping[str, np.ndarray], words: Sequence[str], clean: float, hidden: float
) -> Chart:
    """Where a fact passes: what one restored state gives back, layer by token.

    Args:
        effects: Kind of state -> (layers, tokens) probabilities of the true answer.
        words: The prompt's tokens.
        clean, hidden: The probability with nothing hidden, and with the subject hidden.
    """
    title = (
        f"Probability of the true answer: {clean:.2f} as it is, {hidden:.2f} with the "
        "subject hidden; darker: one state put back restores more"
    )
    with _drawing():
        figure = Figure(figsize=(_WIDE, 1.3 + 0.24 * len(words)), layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplots(1, len(effects), sharey=True, squeeze=False)[0]
        for axes, (kind, table) in zip(panels, effects.items(), strict=True):
            table = np.asarray(table, float)
            image = axes.imshow(table.T, cmap="Greys", vmin=0, vmax=max(clean, 1e-9), aspect="auto")
            axes.set_title(f"{kind} put back", size=_TEXT)
            axes.set_xticks(range(len(table)))
            axes.set_xlabel("layer, from 0")
            axes.set_yticks(range(len(words)), [_clean(word, 14) for word in words])
        figure.suptitle("\n".join(_wrapped(title, _WIDE)), size=_TEXT, x=0.02, ha="left")
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
    gap, left, length = 0.16, 0.1, place[-1] + 1
    room = (_WIDE - left - 0.95 - gap * len(tables)) / (len(tables) * length + 1)
    cell = min(_CELL, room)
    side = cell * length
    right = _WIDE - left - cell - (side + gap) * len(tables)
    with _drawing():
        labels = [_clean(word, 40) for word in words]
        bottom = 0.15 + max(map(_inches, labels))
        beside, shape = left + cell + gap, {"panels": len(tables), "gap": gap, "above": 0.34}
        figure, panels, _ = _canvas(title, side, beside, right, bottom, **shape)
        for axes, (name, table) in zip(panels, tables.items(), strict=True):
            _heat(axes, table, place, split, vmin=low, vmax=high)
            axes.set_xticks(place, labels, rotation=90)
            _note(axes, _fit(name, side), (0.5, 1), (0, 4), "axes fraction")
        tall = figure.get_figheight()
        strip = lambda x, width: figure.add_axes(
            (x / _WIDE, bottom / tall, width / _WIDE, side / tall)
        )
        _stack(strip(left, cell), pictures, place)
        _ramp(strip(_WIDE - right + 0.14, 0.12), low, high, measure)
    return Chart(figure, f"Heat maps on one scale: {', '.join(tables)}. {title}. {alt}", title)


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
    axes.set_ylabel(measure)


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
    """Small boxes along the line that joins some points, y on a log scale."""
    if len(front) < 2:
        return []
    x, y = np.transpose(front)
    steps = np.linspace(0, len(front) - 1, 16 * len(front))
    x, y = (np.interp(steps, np.arange(len(front)), values) for values in (x, np.log(y)))
    return [(a, b, a, b) for a, b in zip(x.tolist(), np.exp(y).tolist())]


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
        xlabel, ylabel: The measures with their unit and direction. y is on a log scale, and
            what is not positive is not drawn.
        category: For the colour of the front.
        title: The finding. alt: what else a reader who cannot see it takes away.
    """
    drawn = {name: [p for p in points if p.y > 0] for name, points in panels.items()}
    every = [p for points in drawn.values() for p in points] or [Point("", 0.0, 1.0, False, False)]
    low, high = min(p.x for p in every), max(p.x for p in every)
    pad = 0.08 * ((high - low) or 1.0)
    room = min(p.y for p in every) / 2.5, max(p.y for p in every) * 2.5
    with _drawing():
        shape = {"panels": len(panels), "gap": 0.25, "above": 0.34}
        figure, places, _ = _canvas(title, 3.4, 0.75, 0.15, **shape)
        for axes, (name, points) in zip(places, drawn.items(), strict=True):
            axes.set(xlim=(low - pad, high + pad), yscale="log", ylim=room)
            axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
            _front(figure, axes, points, PALETTE.get(category, YOURS).colour)
            _note(axes, _clean(name), (0.5, 1), (0, 4), "axes fraction")
            axes.set_xlabel(xlabel)
        places[0].set_ylabel(ylabel)
        for axes in places[1:]:
            axes.yaxis.set_major_formatter(NullFormatter())
    return Chart(figure, f"Scatter in panels, upper left is best. {title}. {alt}", title)


def _front(figure, axes, points: Sequence[Point], colour: str) -> None:
    """Points of one panel: the front joined, a ring around what was chosen, both labelled."""
    front = sorted((p.x, p.y) for p in points if p.front)
    rest = [(p.x, p.y) for p in points if not p.front]
    axes.plot(*np.reshape(rest, (-1, 2)).T, "o", mec=CONTROL.colour, mfc="none", ms=4.5)
    axes.plot(*np.reshape(front, (-1, 2)).T, "o-", color=colour, ms=5.5, lw=1.2)
    ring = {"ms": 12, "mfc": "none", "mec": "#000000", "mew": 1.4}
    for p in points:
        if p.chosen:
            axes.plot(p.x, p.y, "o", **ring)
    labelled = [p for p in points if p.front or p.chosen]
    if not labelled:
        return
    clear = [*_along(front), *((*spot, *spot) for spot in rest)]
    spots, labels = [(p.x, p.y) for p in labelled], [_clean(p.label) for p in labelled]
    for p, text in zip(labelled, _place(figure, axes, spots, labels, clear), strict=True):
        text.set_fontweight("bold" if p.chosen else "normal")
