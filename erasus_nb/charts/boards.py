"""The charts of a board: score, ranks, positions, parts of the score, cost, measures."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.ticker import FuncFormatter

from .. import metrics, score
from .base import (
    CONTROLS,
    DASHED,
    INTERVAL,
    RIGHT,
    RING,
    SEEDS,
    TOP,
    Chart,
    Entry,
    Paper,
    both,
    canvas,
    category,
    clean,
    fit,
    heading,
    inches,
    key_of,
    listed,
    mark_of,
    note,
    pale,
    verb,
    wrapped,
)
from .placing import place, spread
from .rows import (
    absence,
    band,
    controls_of,
    dot,
    draw_mark,
    height_of,
    label,
    left_of,
    limits_of,
    name_rows,
    reference,
    rm_of,
    rows_of,
    rule,
    says,
    scored,
    spoken,
    tier_of,
)

if TYPE_CHECKING:
    from ..score import Board, Standing

#: What the three memory criteria are called where a workload does not say.
CRITERIA = {"C1": "verbatim memory", "C2": "knowledge", "C3": "privacy leakage"}


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
    rows = rows_of(board, names)
    rows = [line for line in rows if line.rm is not None] + [r for r in rows if r.rm is None]
    title = _first(board, rows)
    references = _references(board)
    tiers = names is None and any(line.tier for line in rows)
    drawn = both(
        lambda paper: _forest(paper, title, rows, list(references.values()), emphasise, tiers)
    )
    told = [_forest_says(line, tiers) for line in rows]
    told += [says(line, rm_of(line)) for line in references.values()]
    alt = (
        f"Dot plot with intervals, sorted from best to worst. {title}. "
        + _alt_controls(rows)
        + _alt_missing(rows)
    )
    return Chart(alt=alt.strip(), title=title, rows=told, **drawn)


def _references(board: Board) -> dict[str, Standing]:
    """Original and retrained model, as far as they have a score."""
    found = {kind: reference(board, kind) for kind in ("original", "retrained")}
    return {kind: line for kind, line in found.items() if line is not None}


def _forest_says(line: Standing, tiers: bool) -> str:
    if line.rm is None:
        return says(line, absence(line))
    return says(line, rm_of(line), f"tier {line.tier}" if tiers and line.tier else "")


def _forest(
    paper: Paper,
    title: str,
    rows: Sequence[Standing],
    references: Sequence[Standing],
    emphasise: Collection[str],
    tiers: bool,
):
    count = sum(line.rm is not None for line in rows) or len(rows)
    figure, (axes,), width = canvas(
        paper,
        title,
        height_of(rows, paper),
        left_of(rows, emphasise, paper),
        right=0.5 if tiers else 0.3,
        above=0.3,
        key=key_of(rows, INTERVAL, SEEDS),
        foot="Retrain-Match: 0 = like the original, 100 = like retrained (higher is better)",
    )
    limits = (-2.0, 104.0)
    axes.set(xlim=limits, ylim=limits_of(rows, paper))
    for number, line in enumerate(references, len(rows)):
        if line.kind == "original":
            rule(axes, line.rm.mean, count, paper, gid=f"row-{number}", **DASHED)
        else:
            seeds = list(line.rm_by_seed.values())
            band(axes, seeds, line.rm.mean, count, paper, gid=f"row-{number}")
    # In units of the score: labels keep apart and stay left of the word "tier".
    half = 0.5 * (limits[1] - limits[0]) / width * inches("retrained")
    apart = spread([line.rm.mean for line in references], 2.2 * half, limits[0], limits[1] - half)
    for number, (line, at) in enumerate(zip(references, apart, strict=True), len(rows)):
        note(axes, line.kind, (at, 1), (0, 4), TOP, gid=f"row-{number}")
    for y, line in enumerate(rows):
        if line.rm is None:
            said = fit(f"— {_why(absence(line), width - 0.4)}", width - 0.15)
            axes.text(1.5, y, said, va="center", gid=f"row-{y}")
            continue
        dot(axes, y, line, line.rm, line.rm_by_seed.values(), limits, emphasise, paper)
        if tiers and line.tier:
            tier_of(axes, y, line)
    if tiers:
        note(axes, "tier", (1, 1), (14, 4), "axes fraction")
    name_rows(figure, axes, rows, emphasise, paper)
    return figure


def _why(text: str, width: float) -> str:
    """Why a row has no result; what does not fit is left out by the clause, not by the letter."""
    whole, _, _ = text.partition("; ")
    shorter = (text, whole, whole.removeprefix("not applicable: "))
    return next((said for said in shorter if inches(clean(said, 400)) <= width), text)


def _first(board: Board, rows: Sequence[Standing]) -> str:
    """The finding of the board in one sentence, and whether a control is as close."""
    if not scored(rows):
        return f"No strategy has a score on {clean(board.workload)}"
    said = score.first_place(board, clean)
    if strong := _as_close(board.leaders, controls_of(rows)):
        closer = strong.rm.low > max(line.rm.high for line in board.leaders)
        how = "comes closer" if closer else "is at least as close"
        said += f"; the control {clean(strong.name)} {how} to retraining"
    return said


def _as_close(first: Sequence[Standing], controls: Sequence[Standing]) -> Standing | None:
    """The best of some controls, if none of those who come first has a higher mean."""
    strong = max(controls, key=lambda line: line.rm.mean, default=None)
    if not first or strong is None:
        return None
    return strong if strong.rm.mean >= max(line.rm.mean for line in first) else None


def _alt_controls(rows: Sequence[Standing]) -> str:
    controls = controls_of(rows)
    if not controls or not scored(rows):
        return ""
    strong = max(controls, key=lambda line: line.rm.mean)
    below = [line for line in scored(rows) if line.rm.mean <= strong.rm.mean]
    return (
        f"The best control is {clean(strong.name)}; {len(below)} of {len(scored(rows))} "
        "strategies are not above it. "
    )


def _alt_missing(rows: Sequence[Standing]) -> str:
    missing = [clean(line.name) for line in rows if line.rm is None]
    return f"Without a score: {', '.join(missing)}." if missing else ""


def rank_intervals(
    board: Board, names: Collection[str] | None = None, emphasise: Collection[str] = ()
) -> Chart:
    """One bar a strategy: the ranks it may hold, given what the seeds can tell apart."""
    rows = [line for line in rows_of(board, names) if line.kind == "strategy" and line.rank]
    resolved, pairs = board.pairs_resolved
    title = f"The seeds tell {resolved} of {pairs} pairs of strategies apart"
    title += f". {score.first_place(board, clean)}"
    told = [says(line, _ranks(line.rank), rm_of(line)) for line in rows]
    alt = f"Bars from the best to the worst rank that each strategy may hold. {title}."
    drawn = both(lambda paper: _rank_intervals(paper, title, rows, emphasise))
    return Chart(alt=alt, title=title, rows=told, **drawn)


def _ranks(rank: tuple[int, int]) -> str:
    return f"rank {rank[0]}" if rank[0] == rank[1] else f"rank {rank[0]} to {rank[1]}"


def _rank_intervals(paper: Paper, title: str, rows: Sequence[Standing], emphasise: Collection[str]):
    last = max((line.rank[1] for line in rows), default=2)
    figure, (axes,), _ = canvas(
        paper,
        title,
        height_of(rows, paper),
        left_of(rows, emphasise, paper),
        right=0.3,
        key=key_of(rows),
        foot="rank that a strategy may hold (1 = closest to retraining)",
    )
    axes.set(xlim=(0.4, last + 0.6), ylim=limits_of(rows, paper))
    for y, line in enumerate(rows):
        mark = mark_of(line)
        ends = {"color": mark.colour, "marker": mark.marker, "ms": 5, "mew": 0}
        axes.plot(
            line.rank, [y, y], lw=1.6, alpha=pale(line.name, emphasise), gid=f"row-{y}", **ends
        )
    name_rows(figure, axes, rows, emphasise, paper)
    axes.set_xticks(range(1, last + 1, max(1, round(last / 12))))
    return figure


def positions(
    board: Board, names: Collection[str] | None = None, emphasise: Collection[str] = ()
) -> Chart:
    """Where each strategy ends between original (1), retrained (0) and over-unlearned (-1).

    Three panels, one for each memory criterion. A mean outside the panel is an arrow at its
    edge with the number.
    """
    rows = [line for line in rows_of(board, names) if line.rm is not None]
    strategies = scored(rows)
    near = [line for line in strategies if all(abs(p.mean) <= 0.25 for p in line.position.values())]
    over = [line for line in strategies if any(p.high < -0.1 for p in line.position.values())]
    title = (
        f"On {clean(board.workload)}, {len(near)} of {len(strategies)} strategies end within "
        f"a quarter of the way from retrained on all three criteria; {len(over)} "
        f"{verb(over, 'goes', 'go')} beyond retraining on one or more"
    )
    called = {**CRITERIA, **board.facts.get("criteria", {})}
    retrained = reference(board, "retrained")
    drawn = both(lambda paper: _positions(paper, title, rows, retrained, called, emphasise))
    told = [
        says(line, *(spoken(f"{c} {called[c]}", line.position.get(c)) for c in CRITERIA))
        for line in rows
    ]
    leaky = [line for line in strategies if "C3" in line.position]  # it needs a holdout
    exposed = [line.name for line in leaky if line.position["C3"].low > 1]
    alt = f"Three panels of dots from original through retrained to over-unlearned. {title}."
    if exposed:
        worse = verb(exposed, "is", "are")
        alt += f" {listed(exposed)} {worse} more exposed than the original."
    return Chart(alt=alt, title=title, rows=told, **drawn)


def _positions(
    paper: Paper,
    title: str,
    rows: Sequence[Standing],
    retrained: Standing | None,
    called: Mapping[str, str],
    emphasise: Collection[str],
):
    left, right, gap = left_of(rows, emphasise, paper), 0.1, 0.22
    room = (paper.wide - left - right - 2 * gap) / 3
    heads = {c: wrapped(f"{c} {called[c]}", room) for c in CRITERIA}
    figure, panels, _ = canvas(
        paper,
        title,
        height_of(rows, paper),
        left,
        right,
        bottom=0.45,
        panels=3,
        gap=gap,
        above=0.15 + 0.16 * max(map(len, heads.values())),
        key=key_of(rows, INTERVAL, SEEDS),
        foot="signed position: 1 = original, 0 = retrained (best), below 0 = over-unlearned; "
        "grey: retrained, all seeds",
    )
    # Wider on the left: a number beyond fits before the dashed line.
    limits = (-1.6, 2.3) if paper.phone else (-1.35, 1.75)
    for axes, criterion in zip(panels, CRITERIA, strict=True):
        # Original on the left: reading order is the way that unlearning should go.
        axes.set(xlim=limits[::-1], ylim=limits_of(rows, paper))
        rule(axes, 1, len(rows), paper, **DASHED)
        seeds = retrained.position_by_seed.get(criterion, {}) if retrained else {}
        band(axes, list(seeds.values()), 0.0, len(rows), paper)
        for y, line in enumerate(rows):
            if found := line.position.get(criterion):
                seeds = line.position_by_seed.get(criterion, {}).values()
                dot(axes, y, line, found, seeds, limits, emphasise, paper)
        heading(axes, heads[criterion])
        axes.set_xticks([1, -1], ["original", "over"])
        # A line lower: the three words do not fit side by side.
        axes.set_xticks([0], ["retrained"], minor=True)
        axes.tick_params(axis="x", which="minor", length=16, width=0.8, pad=2)
        axes.set_yticks([])
    name_rows(figure, panels[0], rows, emphasise, paper)
    _without_left_spines(panels, paper)
    return figure


def _without_left_spines(panels: Sequence, paper: Paper) -> None:
    """On a phone the names run over the panels, and no line runs through them."""
    for axes in panels:
        axes.spines["left"].set_visible(not paper.phone)


#: The parts of the score, as they are called in a standing.
PARTS = ("forgetting", "privacy", "utility")


def axes(
    board: Board, names: Collection[str] | None = None, emphasise: Collection[str] = ()
) -> Chart:
    """The three parts of the score side by side: forgetting, privacy, utility."""
    rows = [line for line in rows_of(board, names) if line.rm is not None]
    weakest = [
        min(PARTS, key=lambda part, line=line: getattr(line, part).mean) for line in scored(rows)
    ]
    title = f"No strategy has a score on {clean(board.workload)}"
    if weakest:
        most = max(PARTS, key=weakest.count)
        title = (
            f"On {clean(board.workload)}, {most} is the weakest part of "
            f"{weakest.count(most)} of {len(weakest)} strategies"
        )
    retrained = reference(board, "retrained")
    drawn = both(lambda paper: _axes(paper, title, rows, retrained, emphasise))
    told = [says(line, *(spoken(part, getattr(line, part)) for part in PARTS)) for line in rows]
    alt = f"Three panels of dots with intervals. {title}."
    return Chart(alt=alt, title=title, rows=told, **drawn)


def _axes(
    paper: Paper,
    title: str,
    rows: Sequence[Standing],
    retrained: Standing | None,
    emphasise: Collection[str],
):
    figure, panels, _ = canvas(
        paper,
        title,
        height_of(rows, paper),
        left_of(rows, emphasise, paper),
        right=0.2,
        panels=3,
        gap=0.3,
        above=0.34,
        key=key_of(rows, INTERVAL),
        foot="match with retraining (1 = like retrained, higher is better; "
        "line and grey: retrained)",
    )
    for panel, part in zip(panels, PARTS, strict=True):
        panel.set(xlim=(-0.04, 1.06), ylim=limits_of(rows, paper))
        panel.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
        if retrained is not None:
            found = getattr(retrained, part)
            band(panel, [found.low, found.high], found.mean, len(rows), paper)
        for y, line in enumerate(rows):
            dot(panel, y, line, getattr(line, part), (), (-0.04, 1.06), emphasise, paper)
        heading(panel, [part])
        panel.set_yticks([])
    name_rows(figure, panels[0], rows, emphasise, paper)
    _without_left_spines(panels, paper)
    return figure


def quality_against_cost(
    board: Board, names: Collection[str] | None = None, emphasise: Collection[str] = ()
) -> Chart:
    """Retrain-Match against time, as a share of what retraining takes; upper left wins.

    A ring marks a strategy that had to keep something from training time.
    """
    rows = [
        line
        for line in rows_of(board, names)
        if line.rm is not None and line.time_ratio is not None
    ]
    references = _references(board)
    title = _worth(board, rows)
    drawn = both(lambda paper: _cost(paper, title, rows, references, emphasise))
    told = [
        says(
            line,
            rm_of(line),
            f"{line.time_ratio:.2g} of the time of retraining",
            "also keeps data from training time" if line.extra_storage_bytes else "",
        )
        for line in rows
    ]
    told += [says(line, rm_of(line)) for line in references.values()]
    alt = f"Scatter of score against time relative to retraining, upper left is best. {title}."
    return Chart(alt=alt, title=title, rows=told, **drawn)


def _cost(
    paper: Paper,
    title: str,
    rows: Sequence[Standing],
    references: Mapping[str, Standing],
    emphasise: Collection[str],
):
    # A clock's resolution is not "free": what took no measurable time is drawn at the edge.
    # So is a control that costs next to nothing, or the strategies would share a corner.
    edge = max(1e-4, min((line.time_ratio for line in scored(rows)), default=0.0) / 2)
    cost = [max(line.time_ratio, edge) for line in rows]
    kept = any(line.extra_storage_bytes for line in rows)
    labels = [
        label(line) + (f" ← {line.time_ratio:.1g}" if line.time_ratio < edge else "")
        for line in rows
    ]
    # A phone has no room for thirty names among the points: numbers there, names below.
    looks = [CONTROLS.look if r.kind == "control" else category(r.category).look for r in rows]
    listing = [
        Entry(f"{number + 1} {labels[number]}", look, f"row-{number}")
        for number, look in enumerate(looks)
    ]
    tall = 5.4 if paper.phone or len(rows) <= 20 else 6.4
    figure, (axes,), _ = canvas(
        paper,
        title,
        tall,
        0.62,
        right=0.12 if paper.phone else 0.75,
        above=0.3,
        key=key_of(rows, INTERVAL, *([RING] if kept else [])),
        foot="time / time of retraining (log; left is cheaper)",
        listing=listing if paper.phone else (),
    )
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    low, high = min([*cost, 0.1]), max([*cost, 1.0])
    room = (high / low) ** 0.08
    axes.set(xlim=(low / room, high * room**1.6), ylim=(-4, 106))
    axes.axvline(1.0, color="#000000", lw=0.8, zorder=0.5)
    note(axes, "as long as retraining", (1, 1), (0, 4), TOP)
    taken = _levels(figure, axes, paper, references, len(rows))
    for number, (x, line) in enumerate(zip(cost, rows, strict=True)):
        _priced(axes, number, x, line, pale(line.name, emphasise))
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    lines = [(1.0, bottom, 1.0, top)]
    lines += [(x, line.rm.low, x, line.rm.high) for x, line in zip(cost, rows, strict=True)]
    lines += [(left, line.rm.mean, right, line.rm.mean) for line in references.values()]
    spots = [(x, line.rm.mean) for x, line in zip(cost, rows, strict=True)]
    if paper.phone:
        labels = [str(number + 1) for number in range(len(rows))]
    texts = place(figure, axes, spots, labels, lines, taken) if rows else []
    for number, (line, text) in enumerate(zip(rows, texts, strict=True)):
        text.set_gid(f"label-{number}")
        if line.name in emphasise:
            text.set_fontweight("bold")
    axes.set_ylabel("Retrain-Match (higher is better)")
    return figure


def _levels(
    figure, axes, paper: Paper, references: Mapping[str, Standing], first: int
) -> list[tuple]:
    """Original and retrained as horizontal lines; their rows begin with number `first`.

    Returns:
        The boxes of their names, as far as these are inside of the axes.
    """
    boxes = []
    for number, (kind, line) in enumerate(references.items(), first):
        style = DASHED if kind == "original" else {**DASHED, "ls": "-"}
        seeds = list(line.rm_by_seed.values())
        if kind == "retrained" and len(seeds) > 1:
            axes.axhspan(min(seeds), max(seeds), color="#000000", alpha=0.12, lw=0, zorder=0)
        axes.axhline(line.rm.mean, gid=f"row-{number}", **style)
        at, by, ha, va = (1, line.rm.mean), (4, 0), "left", "center"
        if paper.phone:  # no room beside the axes: where few rows are, left above, right below
            up = kind == "original"
            (left, right), wide = axes.get_xlim(), 72 * inches(kind) + 4
            x, y = axes.transData.transform((right if up else left, line.rm.mean))
            x, y = x * 72 / figure.dpi - (wide if up else 0), y * 72 / figure.dpi
            boxes.append((x, y + 2, x + wide, y + 14) if up else (x, y - 14, x + wide, y - 2))
            at, by = (float(up), line.rm.mean), (-2, 3) if up else (2, -3)
            ha, va = ("right", "bottom") if up else ("left", "top")
        note(axes, kind, at, by, RIGHT, ha, va, f"row-{number}")
    return boxes


def _priced(axes, number: int, x: float, line: Standing, alpha: float) -> None:
    """One row at its cost: mark, interval, ring, and a wider area where the pointer meets it."""
    colour, gid = mark_of(line).colour, f"row-{number}"
    ends = np.clip([line.rm.low, line.rm.high], -4, 106)
    # Below all labels, like their thin lines.
    axes.plot([x, x], ends, lw=1.0, color=colour, alpha=0.6 * alpha)
    draw_mark(axes, x, line.rm.mean, line, alpha, gid=gid)
    axes.plot(x, line.rm.mean, "o", ms=16, mfc="none", mec="none", gid=f"hit-{number}")
    if line.extra_storage_bytes:
        ring = {"ms": 12, "mfc": "none", "mec": colour, "mew": 0.8}
        axes.plot(x, line.rm.mean, "o", alpha=alpha, gid=gid, **ring)


def _worth(board: Board, rows: Sequence[Standing]) -> str:
    """What the quality-against-cost picture says in one sentence."""
    workload = clean(board.workload)
    timed = scored(rows)
    if not timed:
        return f"No strategy has a score and a time on {workload}"
    cheaper = [line for line in timed if line.time_ratio < 1]
    if not cheaper:
        return f"On {workload}, no strategy takes less time than retraining"
    if not board.above_control:
        return score.first_place(board, clean)
    than = f"significantly better than the best cheap control, {clean(board.bar.name)}"
    better = [line for line in cheaper if line in board.above_control]
    if not better:
        return f"On {workload}, no strategy faster than retraining is {than}"
    if len(better) == 1:
        first, said = better, f"only {clean(better[0].name)} is faster than retraining and {than}"
    else:
        first = [line for line in better if line in board.leaders]
        said = f"{len(better)} strategies are faster than retraining and {than}"
        said += f"; among them {listed([s.name for s in first])}" if first else ""
        said += ", first as far as the seeds can tell" if first else ""
    slowest = max((line.time_ratio for line in first), default=0.0)
    quick = [line for line in controls_of(rows) if line.time_ratio <= slowest]
    if strong := _as_close(first, quick):
        said += f", but the control {clean(strong.name)} is at least as close in no more time"
    return f"On {workload}, {said}"


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
    rows = [line for line in rows_of(board, names) if columns.keys() & line.metrics.keys()]
    drawn = both(lambda paper: _measures(paper, title, board, rows, columns, label))
    told = [
        says(line, *(spoken(what, line.metrics.get(metric)) for metric, what in columns.items()))
        for line in rows
    ]
    alt = f"Panels of dots with intervals. {title}. {alt}"
    return Chart(alt=alt, title=title, rows=told, **drawn)


def _measures(
    paper: Paper,
    title: str,
    board: Board,
    rows: Sequence[Standing],
    columns: Mapping[str, str],
    foot: str,
):
    original, retrained = (board[kind].metrics for kind in ("original", "retrained"))
    left, gap, right = left_of(rows, (), paper), 0.14, 0.15
    width = (paper.wide - left - right - gap * (len(columns) - 1)) / len(columns)
    heads = {metric: wrapped(what, width) for metric, what in columns.items()}
    figure, panels, _ = canvas(
        paper,
        title,
        height_of(rows, paper),
        left,
        right,
        panels=len(columns),
        gap=gap,
        above=0.2 + 0.155 * max(map(len, heads.values())),
        key=key_of(rows, INTERVAL),
        foot=foot,
    )
    limits = (-0.06, 1.06)
    for axes, (metric, head) in zip(panels, heads.items(), strict=True):
        axes.set(xlim=limits, ylim=limits_of(rows, paper))
        axes.set_xticks([0, 1], ["0", "1"])
        axes.set_yticks([])
        if metric in original:
            rule(axes, original[metric].mean, len(rows), paper, **DASHED)
        if metric in retrained:
            ruler = retrained[metric]
            ends = np.clip([ruler.low, ruler.high], 0, 1) if ruler.n > 1 else ()
            band(axes, ends, ruler.mean, len(rows), paper)
        for y, line in enumerate(rows):
            if metric in line.metrics:
                dot(axes, y, line, line.metrics[metric], (), limits, (), paper)
        heading(axes, head)
    name_rows(figure, panels[0], rows, (), paper)
    _without_left_spines(panels, paper)
    return figure


def leaks(board: Board, names: Collection[str] | None = None) -> Chart:
    """PrivLeak of every row on one line: under-unlearned left, over-unlearned right.

    Args:
        board: The board of a language model.
        names: Strategies to draw; None = all. Controls and the original are always drawn.

    Raises:
        ValueError: no retrained model was measured.
    """
    # Not `reference`: an AUC can be drawn where nothing can be scored.
    retrained, original = board["retrained"], board["original"]
    if "C3" not in retrained.metrics:
        raise ValueError("PrivLeak needs the retrained model's AUC")
    level = min(retrained.metrics["C3"].mean, 0.999)
    leak = lambda auc: metrics.privleak(min(max(auc, 0.0), 1.0), level)
    rows = [line for line in rows_of(board, names) if "C3" in line.metrics]
    rows = sorted([original, *rows], key=lambda line: -line.metrics["C3"].mean)
    at = {line.name: leak(line.metrics["C3"].mean) for line in rows}
    ends = {
        line.name: (leak(line.metrics["C3"].high), leak(line.metrics["C3"].low)) for line in rows
    }
    tried = [line for line in rows if line.kind == "strategy"]
    under = sum(at[line.name] < -10 for line in tried)
    over = sum(at[line.name] > 10 for line in tried)
    title = (
        f"Of {len(tried)} strategies, {under} leave the forgotten text more familiar than "
        f"retraining does (PrivLeak below -10 %), {over} make it stranger (above 10 %)"
    )
    spread_of = retrained.metrics["C3"]
    ruler = [leak(spread_of.high), leak(spread_of.low)] if spread_of.n > 1 else []
    drawn = both(lambda paper: _leaks(paper, title, rows, at, ends, ruler))
    told = [
        says(line, f"PrivLeak {at[line.name]:.0f} % ({low:.0f} to {high:.0f})")
        for line, (low, high) in zip(rows, ends.values(), strict=True)
    ]
    said = ", ".join(f"{clean(name)} {value:.0f}" for name, value in at.items())
    alt = f"Strip of PrivLeak in percent. {title}. {said}."
    return Chart(alt=alt, title=title, rows=told, **drawn)


def _leaks(
    paper: Paper,
    title: str,
    rows: Sequence[Standing],
    at: Mapping[str, float],
    ends: Mapping[str, tuple[float, float]],
    ruler: Sequence[float],
):
    height = height_of(rows, paper)
    left = left_of(rows, (), paper)
    figure, (axes,), _ = canvas(
        paper,
        title,
        height,
        left,
        0.2,
        above=0.5,
        key=key_of(rows, INTERVAL),
        foot="PrivLeak, % (MUSE's sign; 0 = like retrained)",
    )
    reach = [*ruler, *(end for both_ends in ends.values() for end in both_ends)]
    room = 0.03 * (max(*reach, 60) - min(*reach, -105))
    axes.set_xlim(min(*reach, -105) - room, max(*reach, 60) + room)
    axes.set_ylim(limits_of(rows, paper))
    band(axes, ruler, 0.0, len(rows), paper)
    for y, line in enumerate(rows):
        if line.metrics["C3"].n > 1:
            look = {"color": mark_of(line).colour, "lw": 1.4, "gid": f"row-{y}"}
            axes.plot(ends[line.name], [y, y], **look)
        draw_mark(axes, at[line.name], y, line, 1.0, gid=f"row-{y}")
    note(axes, "retrained", (0, 1), (0, 4), TOP)
    # A line higher: on a phone the three do not fit side by side.
    note(axes, "still familiar", (0.01, 1), (0, 16), "axes fraction", ha="left")
    note(axes, "stranger than unseen", (0.99, 1), (0, 16), "axes fraction", ha="right")
    name_rows(figure, axes, rows, (), paper)
    return figure
