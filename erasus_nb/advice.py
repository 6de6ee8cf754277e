"""What the boards say to somebody who has to choose, in sentences made from rows.

Neither torch nor Jupyter.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from . import ROOT, score
from .front import cost, flags_of
from .marks import START, Mark, marks
from .overall import TOLD, Overall, most_workloads, paired, resolution
from .score import Board
from .tables import interval, number

#: What may have been kept -> how the advice begins, from the most to nothing.
_KEPT = {
    "records": "If training kept records of itself (a log of its updates, for example)",
    "start": "If the weights that it started from were saved",
    "nothing": "If only the trained model and the data that may stay are left",
}


def _kept(mark: Mark) -> str:
    """Which of _KEPT a strategy depends on."""
    if mark.records:
        return "records"
    return "start" if START in mark.needs else "nothing"


def _advice(
    line: Overall, mark: Callable[[str], str], known: Mapping[str, Mark], less: Sequence[Overall]
) -> str:
    needs = score.listed(known[line.name].needs) or "nothing more than the model"
    ratio, on = cost(line), list(line.on.values())
    time = f", in {number(ratio)} of the time of retraining" if ratio is not None else ""
    # A fault on at least half of the workloads belongs to the advice; that it is nothing worth on
    # one of them always does.
    counts = {flag: sum(flag in s.flags for s in on) for flag in flags_of(on)}
    faults = [
        f'"{flag}" on {n} of {len(on)}'
        for flag, n in counts.items()
        if 2 * n >= len(on) or flag == "not better than control"
    ]
    flagged = f"; flagged {score.listed(faults)}" if faults else ""
    alike = [mark(other.name) for other in less if not _told_apart(line, other)]
    undecided = (
        f"; the seeds do not tell it apart from {score.listed(alike)}, which needs less"
        if alike
        else ""
    )
    return (
        f"{mark(line.name)} (mean Retrain-Match {interval(line.rm)}{time}; needs {needs}{flagged}"
        f"{undecided})"
    )


def _told_apart(a: Overall, b: Overall) -> bool:
    """Whether two rows differ significantly over the workloads that both run on."""
    scores = lambda line: {w: s.rm_by_seed for w, s in line.on.items()}
    return paired(scores(a), scores(b))[1] < score.ALPHA


#: What is said where nothing can be advised.
NOBODY = (
    "No strategy can be advised: none runs on every workload and is, in the mean over them, "
    "significantly better than the cheap controls."
)


def advice(
    lines: Sequence[Overall],
    mark: Callable[[str], str] = str,
    root: Path = ROOT,
) -> list[str]:
    """What to use, by what training kept: a sentence each; NOBODY if nothing can be advised.

    Only a strategy that runs on every workload and is significantly better than the cheap
    controls, in the mean over them, is advised; and only if its mean is above that of what needs
    less. Where the seeds do not tell these two apart, that is said.
    """
    known, every = marks(root), most_workloads(lines)
    good = [x for x in lines if x.name in known and x.above_control and len(x.on) == every]
    found: dict[str, Overall] = {}
    for kept in reversed(_KEPT):  # from nothing up: more must be worth more
        best = max(
            (x for x in good if _kept(known[x.name]) == kept), key=lambda x: x.rm.mean, default=None
        )
        if best and all(best.rm.mean > less.rm.mean for less in found.values()):
            found[kept] = best
    said, less = [], []
    for kept, line in found.items():
        said.append(f"{_KEPT[kept]}, try {_advice(line, mark, known, less)}.")
        less.append(line)
    return said[::-1] or [NOBODY]


def closeness(
    lines: Sequence[Overall], boards: Mapping[str, Board], mark: Callable[[str], str] = str
) -> str:
    """How close to retraining the best strategies that run everywhere come; "" if none does."""
    every = most_workloads(lines)
    whole = [x for x in lines if x.rank and len(x.on) == every]
    retrained = next((x for x in lines if x.kind == "retrained"), None)
    if not whole or retrained is None:
        return ""
    best = sorted(whole, key=lambda x: -x.rm.mean)[:2]
    scores = score.listed(f"{mark(x.name)} {number(x.rm.mean, 0)}" for x in best)
    nowhere = [
        mark(w) for w, b in (score.standard(boards) or boards).items() if not b.above_control
    ]
    none = (
        f" On {score.listed(nowhere)}, no strategy is significantly better than the best cheap control."
        if nowhere
        else ""
    )
    return (
        f"A retrained model scores {number(retrained.rm.mean, 0)}; of the strategies that run on "
        f"all workloads, the closest on average are {scores}.{none}"
    )


def early(boards: Mapping[str, Board], mark: Callable[[str], str] = str) -> str:
    """How many strategies are above retraining that was stopped early, in one sentence; ""
    where no board has that control."""
    parts, ratios = [], []
    for workload, board in (score.standard(boards) or boards).items():
        control = next((s for s in board.of("control") if s.name == "partial_retrain"), None)
        if control is None or control.rm is None or control.status != "ok":
            continue
        ranked = [s for s in board.of("strategy") if s.rank]
        above = sum(s.rm.mean > control.rm.mean for s in ranked)
        parts.append(f"{above} of {len(ranked)} on {mark(workload)}")
        ratios += [control.time_ratio] if control.time_ratio is not None else []
    if not parts:
        return ""
    share = f" (about {number(statistics.median(ratios))} of its time)" if ratios else ""
    return (
        f"Compare with retraining that is stopped early{share}, the control "
        f"{mark('partial_retrain')}. Strategies with a higher mean: {score.listed(parts)}."
    )


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
        return "There are too few training seeds or strategies to tell any apart."
    return (
        f"Each workload by itself, the training seeds tell {told} of {pairs} pairs of strategies "
        f"apart. A typical pair is told apart if it differs in Retrain-Match by "
        f"{score.listed(parts)}. That is more than the brackets suggest, because all pairs are "
        "tested at once. A pair whose scores move together from seed to seed needs less."
    )


def carried(board: Board, mark: Callable[[str], str] = str) -> str:
    """What the seeds of one board can carry, in plain sentences."""
    found = resolution(board)
    if found is None:
        return f"On {mark(board.workload)} there are too few seeds or strategies to compare."
    first = [mark(s.name) for s in board.leaders]
    lowest = min((s.rm.mean for s in board.leaders), default=math.inf)
    passed = [
        s for s in board.of("strategy") if s.rank and s.rm.mean > lowest and s not in board.leaders
    ]
    beaten = [mark(s.name) for s in passed if s.rank[0] > 1]
    no_better = [mark(s.name) for s in passed if s.rank[0] == 1]
    who = (
        f"May be first: {score.listed(first, 29)}." if first else "No strategy may be called first."
    )
    higher = "with a higher mean than one of them, "
    if beaten:
        who += f" {score.listed(beaten, 29)}, {higher}may not: another strategy is significantly better."
    if no_better:
        who += (
            f" {score.listed(no_better, 29)}, {higher}may not: not significantly better than the "
            "best cheap control."
        )
    return (
        f"With {len(board.seeds)} seeds, two strategies are told apart if they differ by "
        f"{number(found.smallest, 1)} points of Retrain-Match and their difference scatters like "
        f"that of the median pair. A measured difference of {number(TOLD, 0)} points would be "
        f"significant with {found.seeds_for} seeds. All rank intervals of this board hold together "
        "with a probability of at least 95 %, if differences over seeds are about normal, because "
        f"the tests of its {found.pairs} pairs are corrected for their number. {who}"
    )
