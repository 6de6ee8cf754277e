"""What all charts are made of: palette, paper, title and key, and how they come to the page."""

from __future__ import annotations

import hashlib
import html
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import matplotlib.style
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.textpath import text_to_path

from .svg import TEXT, write

if TYPE_CHECKING:
    from ..score import Standing


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

_RC = {
    "svg.fonttype": "none",  # text stays text: searchable, and it follows the theme
    "svg.hashsalt": "erasus",
    "text.parse_math": False,  # a "$" in a name is a dollar sign
    "font.size": TEXT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "lines.solid_capstyle": "butt",
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "path.simplify": False,
    "image.composite_image": False,  # several pictures in one axes keep their own pixels
}


def drawing():
    """Matplotlib's own defaults and _RC: whoever draws, a chart has the same bytes."""
    return matplotlib.style.context(["default", _RC])


TITLE = 11.0  # points
#: The line of the original.
DASHED = {"color": "#000000", "lw": 1.2, "ls": (0, (4, 3)), "zorder": 0.5}


@dataclass(frozen=True)
class Paper:
    """What a chart is drawn for: a column of text, or a phone.

    Args:
        wide: Width of the figure, inches.
        pitch: Height of one row of a chart of rows, inches.
        below: How far a row's seeds are below its bar, in rows.
        phone: Whether names stand above their rows, and panels below each other.
    """

    wide: float
    pitch: float
    below: float
    phone: bool


#: The text column of the page, and a phone held upright: there, nine points are ten pixels.
COLUMN = Paper(7.4, 0.24, 0.24, False)
PHONE = Paper(4.3, 0.4, 0.14, True)

#: Colour in a figure -> the page's variable that holds it, other in the dark.
_NAMES = {mark.colour: f"--ec{n}" for n, mark in enumerate([*PALETTE.values(), CONTROL])}
_DARK = "".join(f"{_NAMES[mark.colour]}:{mark.dark};" for mark in [*PALETTE.values(), CONTROL])


def _track(paper: Paper) -> str:
    """How broad a row is where the pointer meets it, points."""
    return f"{72 * paper.pitch:.4g}"


#: Narrower than `_SWITCH`, text of the wide drawing would be smaller than eight pixels.
_SWITCH = "30rem"
_STYLE = (
    "<style>figure.erasus-chart{margin:1em 0;overflow-x:auto;container-type:inline-size}"
    ".erasus-chart svg{display:block;width:100%;max-width:54rem;height:auto}"
    ".erasus-chart svg.only{min-width:34rem}.erasus-chart svg.narrow{display:none}"
    f"@container (max-width:{_SWITCH}){{.erasus-chart svg.wide{{display:none}}"
    ".erasus-chart svg.narrow{display:block}}"
    f".erasus-chart .hit{{stroke-width:{_track(COLUMN)};pointer-events:stroke}}"
    f".erasus-chart .narrow .hit{{stroke-width:{_track(PHONE)}}}"
    ".erasus-chart .label{paint-order:stroke;stroke-width:3;"
    "stroke:var(--pst-color-background,var(--jp-layout-color0,Canvas))}"
    ".erasus-chart .row:is(:hover,:focus) .hit{stroke:currentColor;stroke-opacity:.1}"
    f'html[data-theme="dark"] .erasus-chart,'
    f'body[data-jp-theme-light="false"] .erasus-chart{{{_DARK}}}</style>'
)


@dataclass(frozen=True, repr=False)
class Chart:
    """A figure, the finding that is its title, and what a reader who cannot see it takes away.

    Args:
        figure: Drawn for a column of text.
        alt: Kind of chart, finding, exceptions.
        title: The finding.
        narrow: The same drawn for a phone; without it, the figure scrolls in its box there.
        rows: What each row says under the pointer; their parts carry the ids `row-0`, ...
    """

    figure: Figure
    alt: str
    title: str
    narrow: Figure | None = None
    rows: Sequence[str] = ()

    def svg(self, narrow: bool = False) -> str:
        """The figure as an `<svg>` element without size, in the page's own text colour.

        Args:
            narrow: Whether for a phone.

        Raises:
            ValueError: there is no drawing for a phone.
        """
        figure = self.narrow if narrow else self.figure
        if figure is None:
            raise ValueError("this chart has no drawing for a phone")
        kind = "narrow" if narrow else "wide" if self.narrow else "only"
        salt = hashlib.sha256(f"{kind} {self.alt}".encode()).hexdigest()[:8]
        themed = {c.lower(): f"var({name},{c.lower()})" for c, name in _NAMES.items()}
        with drawing():
            return write(figure, [clean(row, 1000) for row in self.rows], themed, salt, kind)

    def _repr_html_(self) -> str:
        # A group can be entered: what its rows say is read one by one.
        role = "group" if self.rows else "img"
        keys = ' tabindex="0"' if self.rows or self.narrow is None else ""
        drawn = self.svg() + (self.svg(narrow=True) if self.narrow else "")
        label = html.escape(self.alt)
        return (
            f'<figure class="erasus-chart" role="{role}"{keys} aria-label="{label}">'
            f"{_STYLE}{drawn}</figure>"
        )

    def __repr__(self) -> str:
        return f"{self.title}\n{self.alt}"


def both(draw: Callable[[Paper], Figure]) -> dict[str, Figure]:
    """A chart's `figure` and `narrow`, by a function that draws for a paper."""
    with drawing():
        return {"figure": draw(COLUMN), "narrow": draw(PHONE)}


def mark_of(standing: Standing) -> Mark:
    """Colour and marker of one line of a board."""
    if standing.kind != "strategy":
        return CONTROL
    return PALETTE.get(standing.category, YOURS)


# --------------------------------------------------------------------------- words


def clean(text: object, most: int = 30) -> str:
    """Text from a result as one printable line of at most `most` characters."""
    line = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    return line if len(line) <= most else line[: most - 1].rstrip() + "…"


def listed(names: Sequence[str], most: int = 3) -> str:
    names = [clean(name) for name in names]
    if len(names) > most:
        return f"{len(names)} strategies"
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def verb(names: Sequence[str], one: str, many: str) -> str:
    return one if len(names) == 1 else many


def inches(text: str, size: float = TEXT, bold: bool = False) -> float:
    """Width of a line of text, measured with matplotlib's font: most pages' is narrower."""
    font = FontProperties(size=size, weight="bold" if bold else "normal")
    return text_to_path.get_text_width_height_descent(text, font, False)[0] / 72


def wrapped(text: str, width: float, size: float = TEXT) -> list[str]:
    """Lines that are at most `width` inches wide, if their words are."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and inches(longer, size) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def fit(text: str, width: float) -> str:
    """The text as one line, cut with an ellipsis to `width` inches."""
    line = clean(text, 400)
    while len(line) > 1 and inches(line) > width:
        line = clean(line, len(line) - 1)
    return line


# ----------------------------------------------------------------------------- key


@dataclass(frozen=True)
class Entry:
    """One entry of a chart's key: a text, what it explains, and the row it belongs to."""

    text: str
    look: Mapping[str, Any]
    gid: str | None = None


def category(name: str) -> Entry:
    """The entry of a category; a name that is none is a reader's own strategy."""
    mark = PALETTE.get(name, YOURS)
    # As large as the mark of a row with its rim.
    size = 9.7 if mark is YOURS else 6.7
    look = {"marker": mark.marker, "mfc": mark.colour, "mew": 0, "ms": size}
    return Entry(name if name in PALETTE else "yours", look)


_GREY = {"color": CONTROL.colour}
CONTROLS = Entry(
    "control",
    {"marker": CONTROL.marker, "mec": CONTROL.colour, "mfc": "none", "mew": 1.2, "ms": 5.5},
)
SEEDS = Entry("one training seed", {"marker": ".", "ms": 4, "mew": 0, **_GREY})
INTERVAL = Entry("95 % interval of the mean", {"lw": 1.6, "across": 0.16, **_GREY})
RING = Entry(
    "also keeps data from training time",
    {"marker": "o", "ms": 12, "mfc": "none", "mec": CONTROL.colour, "mew": 0.8},
)


def key_of(rows: Sequence[Standing], *more: Entry) -> list[Entry]:
    """The entries for the categories of some rows, in the palette's order, and some more."""
    tried = {line.category for line in rows if line.kind == "strategy"}
    entries = [category(name) for name in PALETTE if name in tried]
    if tried - PALETTE.keys():
        entries.append(category("yours"))
    if any(line.kind == "control" for line in rows):
        entries.append(CONTROLS)
    return [*entries, *more]


_BESIDE, _BETWEEN, _HIGH = 0.22, 0.16, 0.18  # inches: sign, gap behind a text, line


def _arranged(entries: Sequence[Entry], wide: float) -> list[list[tuple[float, Entry]]]:
    """Lines of a key: each entry with the place of its left edge, in inches."""
    lines: list[list[tuple[float, Entry]]] = []
    at = wide
    for entry in entries:
        width = _BESIDE + inches(entry.text)
        if at + width > wide or not lines:
            lines.append([])
            at = 0.05
        lines[-1].append((at, entry))
        at += width + _BETWEEN
    return lines


def _draw_key(figure: Figure, lines: Sequence[Sequence[tuple[float, Entry]]], top: float) -> None:
    """The key, its first line `top` inches above the figure's lower edge."""
    wide, tall = figure.get_size_inches()
    for number, line in enumerate(lines):
        y = (top - (number + 0.5) * _HIGH) / tall
        for left, entry in line:
            look = dict(entry.look)
            half = look.pop("across", 0) / 2
            x = [(left + 0.1 + by) / wide for by in ((-half, half) if half else (0,))]
            look |= {"ls": "-" if half else "none", "transform": figure.transFigure}
            shape = Line2D(x, [y] * len(x), **look)
            figure.add_artist(shape)
            shape.set_gid(entry.gid)
            place = {"va": "center_baseline", "gid": entry.gid}
            figure.text((left + _BESIDE) / wide, y, entry.text, **place)


# --------------------------------------------------------------------------- paper


def canvas(
    paper: Paper,
    title: str,
    height: float,
    left: float,
    right: float = 0.1,
    bottom: float = 0.3,
    panels: int = 1,
    gap: float = 0.2,
    above: float = 0.1,
    key: Sequence[Entry] = (),
    foot: str = "",
    down: int = 1,
    listing: Sequence[Entry] = (),
):
    """A figure with its title, key, and `panels` axes; all lengths in inches.

    Args:
        paper: What it is drawn for.
        title: Wrapped to the width.
        height: Of each of the axes.
        left, right, bottom: Room beside and below the axes, for their ticks.
        panels: How many axes, `gap` apart.
        above: Room between axes and what is above them.
        key: What shapes and colours mean.
        foot: The measure, with its unit and direction, below the axes.
        down: In how many rows the panels stand, with `above` and `bottom` for each.
        listing: Entries below each other, below everything else.

    Returns:
        The figure, its axes, and the width of each.
    """
    lines = wrapped(title, paper.wide - 0.1, TITLE)
    keys = _arranged(key, paper.wide)
    across = -(-panels // down)
    width = (paper.wide - left - right - gap * (across - 1)) / across
    feet = wrapped(foot, min(0.9 * paper.wide, 1.3 * (paper.wide - left - right)))
    head = 0.21 * len(lines) + 0.06 + (_HIGH * len(keys) + 0.06 if keys else 0)
    under = _HIGH * len(listing) + (0.1 if listing else 0)
    low = under + 0.16 * len(feet) + (0.08 if feet else 0)
    whole = low + head + (height + bottom + above) * down
    figure = Figure(figsize=(paper.wide, whole))
    FigureCanvasAgg(figure)
    place = {"va": "top", "ha": "left", "linespacing": 1.25, "size": TITLE}
    figure.text(0.05 / paper.wide, 1 - 0.04 / whole, "\n".join(lines), **place)
    _draw_key(figure, keys, whole - 0.21 * len(lines) - 0.1)
    _draw_key(figure, [[(0.05, entry)] for entry in listing], under - 0.05)
    middle = (left + (paper.wide - left - right) / 2) / paper.wide
    if feet:  # inside the figure, whatever is left and right of the axes
        half = 0.53 * max(map(inches, feet)) / paper.wide
        middle = min(max(middle, half), 1 - half)
    for number, line in enumerate(reversed(feet)):
        figure.text(middle, (under + 0.06 + 0.16 * number) / whole, line, ha="center", va="bottom")
    axes = []
    for i in range(panels):
        x = left + i % across * (width + gap)
        y = low + bottom + (down - 1 - i // across) * (height + bottom + above)
        box = (x / paper.wide, y / whole, width / paper.wide, height / whole)
        axes.append(figure.add_axes(box))
    return figure, axes, width


#: Coordinates of notes: along the axes' upper edge, along their right edge.
TOP, RIGHT = ("data", "axes fraction"), ("axes fraction", "data")


def note(axes, text: str, at, by, within="data", ha="center", va="baseline", gid=None) -> None:
    """Text that stands `by` points (right, up) of the place `at`."""
    offset = {"xytext": by, "textcoords": "offset points"}
    axes.annotate(text, at, xycoords=within, ha=ha, va=va, gid=gid, **offset)


def heading(axes, lines: Sequence[str]) -> None:
    """Lines above a panel; each is centred by itself, whatever font the page has."""
    for number, line in enumerate(reversed(lines)):
        note(axes, line, (0.5, 1), (0, 4 + 11 * number), "axes fraction")


def pale(name: str, emphasise: Collection[str]) -> float:
    """How strongly a name is drawn beside those that are emphasised."""
    return 1.0 if not emphasise or name in emphasise else 0.4
