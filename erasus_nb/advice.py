"""What the boards say to somebody who has to choose, in sentences made from rows.

Neither torch nor Jupyter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from . import ROOT, score
from .front import cost, flags_of, interval
from .marks import Mark, marks
from .overall import TOLD, Overall, resolution
from .score import Board
from .tables import number


def _best(lines: Iterable[Overall], everywhere: int) -> Overall | None:
    found = [x for x in lines if x.above_control and len(x.on) == everywhere]
    return max(found, key=lambda x: x.rm.mean, default=None)


def _advice(line: Overall, mark: Callable[[str], str], known: Mapping[str, Mark]) -> str:
    needs = score.listed(known[line.name].needs) or "nothing more than the model"
    ratio, on = cost(line), list(line.on.values())
    time = f", {number(ratio)} of the time of retraining" if ratio is not None else ""
    # A fault on at least half of the workloads belongs to the advice.
    counts = {flag: sum(flag in s.flags for s in on) for flag in flags_of(on)}
    faults = [f'"{flag}" on {n} of {len(on)}' for flag, n in counts.items() if 2 * n >= len(on)]
    flagged = f"; flagged {score.listed(faults)}" if faults else ""
    return (
        f"{mark(line.name)} (mean Retrain-Match {interval(line.rm)}{time}{flagged}; "
        f"it needs: {needs})"
    )


def advice(
    lines: Sequence[Overall],
    mark: Callable[[str], str] = str,
    root: Path = ROOT,
) -> str:
    """What to use if training kept records and what if it did not, in one sentence.

    Only a strategy that runs on every workload and is significantly better than the best cheap
    control is advised.
    """
    known, every = marks(root), max((len(x.on) for x in lines), default=0)
    kept = lambda line: line.name in known and bool(known[line.name].records)
    strategies = [x for x in lines if x.kind == "strategy" and x.name in known]
    with_records = _best((x for x in strategies if kept(x)), every)
    without = _best((x for x in strategies if not kept(x)), every)
    if not with_records and not without:
        return "No strategy can be advised: none is better than the controls on every workload."
    tried = lambda line: f"try {_advice(line, mark, known)}" if line else "none can be advised"
    first = f"If training kept records of itself, {tried(with_records)}"
    second = f"if it kept none, {tried(without)}"
    return f"{first}; {second}."


def certainty(boards: Mapping[str, Board], mark: Callable[[str], str] = str) -> str:
    """How sure the order is, in one or two sentences."""
    shown = score.standard(boards) or boards
    told = sum(b.pairs_resolved[0] for b in shown.values())
    pairs = sum(b.pairs_resolved[1] for b in shown.values())
    found = {w: resolution(b) for w, b in shown.items()}
    parts = [
        f"{number(r.smallest, 0)} on {mark(w)} ({len(shown[w].seeds)} seeds)"
        for w, r in found.items()
        if r
    ]
    if not parts:
        return "One training seed tells nothing apart."
    return (
        f"The seeds tell {told} of {pairs} pairs of strategies apart; the smallest difference in "
        f"Retrain-Match that they can tell is {score.listed(parts)}."
    )


def carried(board: Board, mark: Callable[[str], str] = str) -> str:
    """What the seeds of one board can carry, in plain sentences."""
    found = resolution(board)
    if found is None:
        return f"On {mark(board.workload)} there are too few seeds or strategies to compare."
    first = [mark(s.name) for s in board.leaders]
    who = (
        f"May be first: {score.listed(first, 29)}." if first else "No strategy may be called first."
    )
    return (
        f"With {len(board.seeds)} seeds, two strategies have to differ by "
        f"{number(found.smallest, 1)} points of Retrain-Match to be told apart, if their "
        f"difference scatters like that of the median pair. A difference of "
        f"{number(TOLD, 0)} points would need {found.seeds_for} seeds. All rank intervals of this "
        "board hold together with a probability of at least 95 %, because the tests of its "
        f"{found.pairs} pairs are corrected for their number. {who}"
    )
