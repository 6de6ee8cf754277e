"""Boards as HTML: the heat map of all workloads, the overall table and each workload's board.

Plain tables: they read without a script, offline and by keyboard. On the site,
`_static/boards.js` sorts them by a click on a header and folds the columns of class `more`.
Neither torch nor Jupyter.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from . import ROOT, score
from .marks import Mark, marks, section
from .overall import Overall, most_workloads
from .score import Board, Interval, Standing
from .tables import DASH, Html, interval, number

#: What each flag says, and one word more than `score.FLAGS` has: it is no fault.
SAID = {
    **score.FLAGS,
    "analogue": "a method made for another kind of model, in the closest form this one allows",
}

Value = tuple[str | Markup, float | None]


def _stacked(value: Interval | None) -> Value:
    """A mean with its interval below it, small."""
    if value is None:
        return DASH, None
    mean, _, rest = interval(value).partition(" ")
    return Markup("{} <small>{}</small>").format(mean, rest), value.mean


def tip(word: str, text: str, extra: str = "") -> Markup:
    """A word with a tooltip that also opens by keyboard and by touch."""
    return Markup('<span class="tip {}" tabindex="0" data-tip="{}">{}</span>').format(
        extra, text, word
    )


def flags(found: Iterable[str]) -> Markup:
    """Flags, each with what it says; a dash where there are none."""
    return Markup(", ").join(tip(flag, SAID[flag], "flag") for flag in found) or Markup(DASH)


def name(row: str, known: Mapping[str, Mark], up: str = "", label: str = "") -> Markup:
    """A row's name, which leads to its section where it is a strategy of a page.

    Args:
        up: What leads from the page to the site's root, e.g. "../".
        label: More than the name, where a reader must know it.
    """
    text = Markup("<code>{}</code>").format(row)
    if row in known:
        text = Markup('<a href="{}{}">{}</a>').format(up, section(row, known[row].page), text)
    rest = label.removeprefix(row).strip()
    return text + (Markup(" <small>{}</small>").format(rest) if rest else "")


# ------------------------------------------------------------------ tables


@dataclass(frozen=True)
class Column:
    """One column of a board.

    Args:
        title: Its heading, in words.
        tip: What it says, in one line.
        value: Line of the board -> what to print, and the number to sort by (None sorts last).
        more: Whether it is folded at first.
    """

    title: str
    tip: str
    value: Callable[[object], Value]
    more: bool = False


def table(columns: Sequence[Column], lines: Iterable[object], caption: str) -> Html:
    """A board of class `board`; the first column holds the names and stays in view."""
    head = Markup().join(
        Markup('<th scope="col" class="tip{}" data-tip="{}">{}</th>').format(
            " more" if c.more else "", c.tip, c.title
        )
        for c in columns
    )
    body = Markup().join(Markup("<tr>{}</tr>").format(_cells(columns, line)) for line in lines)
    return Html(
        Markup(
            '<div class="rows" tabindex="0" role="region" aria-label="{0}">'
            '<table class="dataframe table board"><caption class="visually-hidden">{0}</caption>'
            "<thead><tr>{1}</tr></thead><tbody>{2}</tbody></table></div>"
        ).format(caption, head, body)
    )


def _class(column: Column) -> Markup:
    return Markup(' class="more"') if column.more else Markup()


def _cells(columns: Sequence[Column], line: object) -> Markup:
    first, *rest = columns
    text, _ = first.value(line)
    cells = Markup('<th scope="row">{}</th>').format(text)
    for column in rest:
        text, order = column.value(line)
        order = "" if order is None else f"{order:.6g}"
        cells += Markup('<td{} data-order="{}">{}</td>').format(_class(column), order, text)
    return cells


def notes(columns: Sequence[Column], found: Iterable[str]) -> Html:
    """What each column and each flag on a page says, in one line each."""
    terms = [(c.title, c.tip) for c in columns] + [(f"flag: {f}", SAID[f]) for f in found]
    lines = Markup().join(
        Markup("<dt>{}</dt><dd>{}.</dd>").format(term, text[:1].upper() + text[1:])
        for term, text in dict(terms).items()
    )
    return Html(
        Markup(
            '<details class="notes"><summary>What each column and flag says</summary>'
            "<dl>{}</dl></details>"
        ).format(lines)
    )


# ------------------------------------------------------------------ one workload's board


def _number(value: float | None, digits: int = 2) -> Value:
    return number(value, digits), value


def _mean(found: Interval | None, digits: int = 2) -> Value:
    return _number(found.mean if found else None, digits)


def _rank(standing: Standing) -> Value:
    if standing.rank:
        return _span(standing.rank)
    kind = "reference" if standing.kind in ("original", "retrained") else standing.kind
    return (DASH if kind == "strategy" else kind), None


def _needs(mark: Mark | None) -> Value:
    if mark is None:
        return DASH, None
    return ", ".join(mark.needs) or "nothing more", float(len(mark.needs))


def _status(standing: Standing) -> Value:
    status = standing.status.replace("_", " ")
    text = status if standing.status == "ok" else f"{status}: {standing.reason}"
    return text, float(standing.status != "ok")


#: Criterion -> what a position on it is about.
_POSITIONS = {"C1": "verbatim memory", "C2": "knowledge", "C3": "membership"}
_POSITION = "1 like the original, 0 like retraining, below 0 forgotten more than retraining does"


_KEPT_BEFORE = (
    "storage of what training had to keep for it; initial weights, which the seed gives again, "
    "count as 0"
)


def board_columns(known: Mapping[str, Mark], up: str = "") -> list[Column]:
    """The columns of a workload's board; what a reader needs first comes first."""
    position = lambda c: lambda s: _mean(s.position.get(c))
    kept = lambda s: _number(s.extra_storage_bytes / 1e6 if s.seeds else None)
    return [
        Column("Row", "strategy, control or reference", lambda s: (_name(s, known, up), None)),
        Column(
            "Retrain-Match",
            "0 like the original, about 100 like a retrained model; 95 % interval over seeds",
            lambda s: _stacked(s.rm),
        ),
        Column("Rank", "the ranks that the seeds cannot rule out", _rank),
        Column(
            "Tier",
            "strategies of one tier may all hold one and the same rank",
            lambda s: (s.tier or DASH, _letters(s.tier)),
        ),
        Column(
            "Time / retraining",
            "wall time, relative to retraining; below 1 is faster",
            lambda s: _number(s.time_ratio),
        ),
        Column(
            "Needs",
            "what one must have, besides the model and the examples to forget",
            lambda s: _needs(known.get(s.name) if s.kind == "strategy" else None),
        ),
        Column("Flags", "faults that the rows show", lambda s: (flags(s.flags), len(s.flags))),
        Column("Category", "the seed board's category", lambda s: (s.category, None), True),
        Column("Forgetting", "1 like retraining, 0 like the original", _part("forgetting"), True),
        Column("Privacy", "1 like retraining, 0 like the original", _part("privacy"), True),
        Column("Utility", "1 as useful as a retrained model, 0 no use", _part("utility"), True),
        *(
            Column(f"Position: {word}", _POSITION, position(c), True)
            for c, word in _POSITIONS.items()
        ),
        Column(
            "Divergence",
            "distance of its answers on the forget set from retrained models'",
            lambda s: _mean(s.divergence, 3),
            True,
        ),
        Column(
            "Passes / retraining",
            "examples that went through the network, relative to retraining",
            lambda s: _number(s.pass_ratio),
            True,
        ),
        Column(
            "Memory (MB)",
            "rise of the peak memory while it ran",
            lambda s: _number(s.peak_memory_mb, 0),
            True,
        ),
        Column("Kept before (MB)", _KEPT_BEFORE, kept, True),
        Column("Seeds", "training seeds with a result", lambda s: _number(len(s.seeds), 0), True),
        Column("Status", "ok, or why there is no result", _status, True),
    ]


def _name(standing: Standing, known: Mapping[str, Mark], up: str) -> Markup:
    there = known if standing.kind == "strategy" else {}
    return name(standing.name, there, up, standing.label)


def _part(axis: str) -> Callable[[Standing], Value]:
    return lambda s: _mean(getattr(s, axis))


def _letters(tier: str | None) -> float | None:
    return None if tier is None else float(sum(map(ord, tier)) + 1000 * len(tier))


def board_table(board: Board, up: str = "", root: Path = ROOT) -> Html:
    """The board of one workload."""
    columns = board_columns(marks(root), up)
    return table(columns, board.standings, f"Board of the workload {board.workload}")


# ------------------------------------------------------------------ all workloads


def flags_of(standings: Iterable[Standing]) -> tuple[str, ...]:
    """Flags of a row on several workloads, in the order of FLAGS."""
    found = {flag for s in standings for flag in s.flags}
    return tuple(flag for flag in score.FLAGS if flag in found)


def _counted_flags(line: Overall) -> Value:
    parts = []
    for flag in flags_of(line.on.values()):
        count = sum(flag in s.flags for s in line.on.values())
        parts.append(tip(flag, SAID[flag], "flag") + f" ({count})")
    return Markup(", ").join(parts) or Markup(DASH), float(len(parts))


def cost(line: Overall) -> float | None:
    """Median over workloads of the time relative to retraining; None where none was taken."""
    ratios = [s.time_ratio for s in line.on.values() if s.time_ratio is not None]
    return statistics.median(ratios) if ratios else None


def _storage(line: Overall) -> Value:
    kept = [s.extra_storage_bytes / 1e6 for s in line.on.values()]
    if not any(kept):
        return "0", 0.0
    low, high = number(min(kept)), number(max(kept))
    return (low if low == high else f"{low} to {high}"), max(kept)


def _span(found: tuple[int, int] | None) -> Value:
    if found is None:
        return DASH, None
    low, high = found
    return (str(low) if low == high else f"{low} to {high}"), low + high / 1000


def _workloads(line: Overall, of: int) -> Value:
    own = [w for w, s in line.on.items() if not s.analogue]
    extra = f", {len(line.on) - len(own)} as an analogue" if len(own) < len(line.on) else ""
    return f"{len(line.on)} of {of}{extra}", float(len(line.on))


def overall_columns(known: Mapping[str, Mark], workloads: int, up: str = "") -> list[Column]:
    """The columns of the overall board."""
    return [
        Column(
            "Row",
            "strategy, control or reference",
            lambda x: (name(x.name, known if x.kind == "strategy" else {}, up), None),
        ),
        Column(
            "Retrain-Match",
            "mean over the workloads it runs on; 95 % interval over training seeds",
            lambda x: _stacked(x.rm),
        ),
        Column(
            "Workloads",
            "how many it runs on; as an analogue means in another form than its paper's",
            lambda x: _workloads(x, workloads),
        ),
        Column(
            "Rank",
            "the ranks that the seeds cannot rule out, compared on shared workloads",
            lambda x: _span(x.rank),
        ),
        Column(
            "Time / retraining",
            "median over workloads of its wall time, relative to retraining",
            lambda x: _number(cost(x)),
        ),
        Column(
            "Needs",
            "what one must have, besides the model and the examples to forget",
            lambda x: _needs(known.get(x.name) if x.kind == "strategy" else None),
        ),
        Column("Kept before (MB)", _KEPT_BEFORE, _storage),
        Column("Flags", "faults that the rows show, and on how many workloads", _counted_flags),
        Column(
            "Points",
            "Borda: share of the other strategies that it is above, mean over its workloads",
            lambda x: _number(x.points),
            True,
        ),
        Column("Place by points", "1 is best", lambda x: _number(x.place, 0), True),
        Column(
            "Comparisons won",
            "share of paired comparisons it wins significantly; an undecided one counts half",
            lambda x: _number(x.won),
            True,
        ),
        Column(
            "Without one workload",
            "the places by points that it takes when any one workload is left out",
            lambda x: _span(x.without_workload),
            True,
        ),
        Column(
            "Without one seed",
            "the places by points that it takes when all values at one seed of a workload are left out",
            lambda x: _span(x.without_seed),
            True,
        ),
    ]


def overall_table(
    lines: Sequence[Overall], up: str = "", root: Path = ROOT, more: bool = True
) -> Html:
    """The overall board.

    Args:
        more: Whether the columns that are folded at first are there at all.
    """
    every = most_workloads(lines)
    columns = [c for c in overall_columns(marks(root), every, up) if more or not c.more]
    return table(columns, lines, "All strategies over all workloads")


# ------------------------------------------------------------------ the heat map

#: Retrain-Match 0, 50, 100 as red, green and blue; dark is close to retraining.
_SCALE = ((247, 251, 255), (107, 174, 214), (8, 48, 107))


def _colours(value: float) -> tuple[str, str]:
    """Background and text colour of a score of 0 to 100; their contrast is at least 4.5."""
    place = min(max(value, 0.0), 100.0) / 50
    low, high = _SCALE[int(place)], _SCALE[min(int(place) + 1, 2)]
    mixed = [a + (b - a) * (place - int(place)) for a, b in zip(low, high, strict=True)]
    linear = [
        c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4
        for c in (channel / 255 for channel in mixed)
    ]
    luminance = sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
    # WCAG: black is the better of the two above this luminance.
    text = "#000" if luminance > 0.179 else "#fff"
    return "#" + "".join(f"{round(c):02x}" for c in mixed), text


def _whole(value: float) -> str:
    """A score without decimals, rounded from the one decimal that tables print."""
    return str(math.floor(round(value, 1) + 0.5))


def _heat(standing: Standing | None, row: str, workload: str) -> Markup:
    if standing is None or standing.rm is None:
        why = "is not run there" if standing is None else standing.status.replace("_", " ")
        reason = f": {standing.reason}" if standing is not None and standing.reason else ""
        return Markup(
            '<td class="none tip" data-tip="{0} on {1}: {2}{3}">{4}'
            '<span class="visually-hidden"> {2}</span></td>'
        ).format(row, workload, why, reason, DASH)
    back, text = _colours(standing.rm.mean)
    more = [f"tier {standing.tier}"] if standing.tier else []
    if standing.status != "ok":  # a mean over some of the seeds
        more.append(f"{standing.status}, not compared: {standing.reason}")
    more += ["analogue"] if standing.analogue else []
    hidden = ", ".join([interval(standing.rm), *more])
    shown = _whole(standing.rm.mean)
    shown = Markup("<i>{}</i>").format(shown) if standing.analogue else shown
    tier = Markup("<small>{}</small>").format(standing.tier) if standing.tier else ""
    said = f"{row} on {workload}: {', '.join([hidden, *standing.flags])}"
    return Markup(
        '<td class="tip" style="background:{};color:{}" data-tip="{}"><span aria-hidden="true">{} '
        '{}</span><span class="visually-hidden">{}</span></td>'
    ).format(back, text, said, shown, tier, hidden)


def _mean_cell(line: Overall) -> Markup:
    back, text = _colours(line.rm.mean)
    over = f"mean over {len(line.on)} workload{'s' if len(line.on) > 1 else ''}"
    hidden = f"{interval(line.rm)}, {over}"
    return Markup(
        '<td class="mean tip" style="background:{};color:{}" data-tip="{}: {}">'
        '<span aria-hidden="true">{}</span><span class="visually-hidden">{}</span></td>'
    ).format(back, text, line.name, hidden, _whole(line.rm.mean), hidden)


def _points_cell(line: Overall) -> Markup:
    if line.points is None:
        return Markup('<td class="points"><span class="visually-hidden">no points</span></td>')
    said = f"place {line.place} by points; may have any rank from {line.rank[0]} to {line.rank[1]}"
    return Markup(
        '<td class="points tip" data-tip="{0}: {1}">{2}<span class="visually-hidden">, {1}</span></td>'
    ).format(line.name, said, number(line.points))


def heat_map(
    lines: Sequence[Overall], boards: Mapping[str, Board], up: str = "", root: Path = ROOT
) -> Html:
    """Retrain-Match of every row on every workload, as a table of coloured cells.

    Strategies are in the overall order, with a line where its tier changes; controls and
    references follow as rulers. A cell holds the mean and the workload's tier.
    """
    known, shown = marks(root), score.standard(boards) or boards
    standings = {w: {s.name: s for s in b.standings} for w, b in shown.items()}
    head = Markup().join(
        Markup('<th scope="col">{}</th>').format(w.replace("_", "_\u200b")) for w in shown
    )
    bodies, last = [[], []], None

    def row(label: str, first: Markup, ruler: bool, border: bool = False) -> None:
        cells = Markup().join(_heat(standings[w].get(label), label, w) for w in shown)
        linked = name(label, {} if ruler else known, up)
        bodies[ruler].append(
            Markup('<tr{}><th scope="row">{}</th>{}{}</tr>').format(
                Markup(' class="new-tier"') if border else "", linked, first, cells
            )
        )

    for line in lines:
        ruler = line.kind != "strategy"
        first = _points_cell(line) + _mean_cell(line)
        row(line.name, first, ruler, not ruler and line.tier != last)
        last = line.tier
    # Who has a result nowhere is not forgotten.
    every = {s.name for b in shown.values() for s in b.of("strategy")}
    nothing = Markup(
        '<td class="none">{0}<span class="visually-hidden"> no points</span></td>'
        '<td class="none mean">{0}<span class="visually-hidden"> no result</span></td>'
    ).format(DASH)
    for label in sorted(every - {line.name for line in lines}):
        row(label, nothing, False)
    groups = Markup().join(
        Markup(
            '<tbody><tr class="group"><th scope="rowgroup" colspan="{}">{}</th></tr>{}</tbody>'
        ).format(len(shown) + 3, title, Markup().join(body))
        for title, body in zip(
            (
                "Strategies, by points",
                "For comparison: retrained and original models, and controls",
            ),
            bodies,
            strict=True,
        )
        if body
    )
    return Html(
        Markup(
            '<div class="rows" tabindex="0" role="region" aria-label="Heat map of Retrain-Match">'
            '<table class="heatmap"><caption>{}</caption><thead><tr><th scope="col">Row</th>'
            '<th scope="col" class="points">points</th><th scope="col">mean</th>{}</tr></thead>{}</table></div>'
        ).format(HEAT_CAPTION, head, groups)
    )


HEAT_CAPTION = (
    "Retrain-Match of each row on each workload: 0 (light) is like the original, 100 (dark) like a "
    "retrained model. Strategies stand in the order of their points (the share of the other "
    "strategies that they are above, on the workloads where they run); one that runs on few "
    "workloads can stand high with a low mean. The letter is the tier "
    "on that workload: the seeds leave one and the same rank open to all of a tier, which does not "
    "say that they are equally good; with few seeds a tier is wide. A thick line parts the tiers over all workloads. Italics: an "
    "analogue. A dash: it does not apply, or is not run, there. Point at a cell, tap it or go there with the "
    "arrow keys, for more."
)
