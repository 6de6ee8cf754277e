"""All workloads together: a mean, two orders that need no common scale, and how firm they are.

Retrain-Match is about 0 for the original and about 100 for retraining on every workload, so
a mean over workloads can be read. It is a mean over *these* workloads and no estimate for
others: its interval is about training seeds alone. Two more numbers need no common scale:
points (Borda) and the share of comparisons won. Both depend on which other strategies run on
the same workloads. A test of two strategies uses the workloads where both run.

Reads boards, not rows; neither torch nor Jupyter.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from scipy.special import stdtr, stdtrit

from . import score
from .score import Board, Interval, Standing

#: Row -> workload -> seed -> Retrain-Match.
Scores = Mapping[str, Mapping[str, Mapping[int, float]]]


@dataclass(frozen=True)
class Overall:
    """One row over all workloads.

    Args:
        name, kind, category: As on the boards.
        rm: Mean over its workloads of its mean Retrain-Match, with a 95 % interval over
            training seeds; n is the smallest number of seeds on any of them.
        on: Workload -> its standing there, where it is ok; of a control also where it lacks seeds.
        points: Borda, 0 to 1: the share of the other strategies on a board with a lower mean,
            averaged over its workloads. None for controls and references.
        place: Place by points, 1 is best; equal points share a place.
        won: Share of its comparisons, over all other strategies and shared workloads, in
            which it is significantly better; one that the seeds cannot decide counts half.
        rank: Rank interval, from tests of the mean difference on shared workloads.
        tier: See `score.tiers`.
        without_workload, without_seed: The lowest and the highest place that it takes when any
            one workload, or all strategies' values at any one seed of any one workload, are left
            out; the reference models of that seed stay.
        above_control: Whether its mean is significantly above that of each cheap control, over
            the workloads that both have.
    """

    name: str
    kind: str
    category: str
    rm: Interval
    on: dict[str, Standing]
    points: float | None = None
    place: int | None = None
    won: float | None = None
    rank: tuple[int, int] | None = None
    tier: str | None = None
    without_workload: tuple[int, int] | None = None
    without_seed: tuple[int, int] | None = None
    above_control: bool = False


# ------------------------------------------------------------------ means and tests


def _joined(groups: Iterable[Sequence[float]]) -> tuple[float, float, float]:
    """Mean of the means of several groups, its standard error and degrees of freedom.

    The groups are independent: models of different workloads share no training run. Degrees of
    freedom after Welch and Satterthwaite; infinite where every group's spread is nothing.
    """
    groups = list(groups)
    parts = [
        (statistics.variance(g) / len(g) / len(groups) ** 2, len(g) - 1)
        for g in groups
        if len(g) > 1
    ]
    total = sum(part for part, _ in parts)
    spread = sum(part**2 / freedom for part, freedom in parts)
    freedom = total**2 / spread if spread > 0 else math.inf
    return statistics.fmean(map(statistics.fmean, groups)), math.sqrt(total), freedom


def mean_over(by_workload: Mapping[str, Mapping[int, float]]) -> Interval:
    """Mean over workloads of the mean over seeds, with its 95 % interval over seeds."""
    groups = [list(seeds.values()) for seeds in by_workload.values()]
    mean, error, freedom = _joined(groups)
    n = min(map(len, groups))
    half = float(stdtrit(freedom, 1 - score.ALPHA / 2)) * error if n > 1 and error else 0.0
    return Interval(mean, max(0.0, mean - half), min(100.0, mean + half), n)


def paired(
    a: Mapping[str, Mapping[int, float]], b: Mapping[str, Mapping[int, float]]
) -> tuple[float, float, int]:
    """Test of the mean difference a - b over the workloads that both have.

    Within a workload the difference is paired by seed.

    Returns:
        Mean difference, two-sided p, the smallest number of shared seeds on a workload. p is 1
        where a shared workload has fewer than two seeds, or no workload is shared.
    """
    groups = [
        [a[w][s] - b[w][s] for s in sorted(a[w].keys() & b[w].keys())] for w in a.keys() & b.keys()
    ]
    n = min(map(len, groups), default=0)
    if n == 0:
        return 0.0, 1.0, 0
    mean, error, freedom = _joined(groups)
    if n < 2:
        return mean, 1.0, n
    if error < 1e-9:  # scores are of the order of 1 to 100
        return mean, float(abs(mean) < 1e-9), n
    return mean, float(2 * stdtr(freedom, -abs(mean) / error)), n


# ------------------------------------------------------------------ points and places


def points(means: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Borda points, 0 to 1.

    Args:
        means: Row -> workload -> mean; a row may lack workloads.

    Returns:
        Row -> mean over its workloads of the share of the other rows there that it is above;
        an equal one counts half. A workload with one row only tells nothing and is left out.
    """
    found: dict[str, list[float]] = {name: [] for name in means}
    for workload in dict.fromkeys(w for row in means.values() for w in row):
        here = {name: row[workload] for name, row in means.items() if workload in row}
        for name, mine in here.items():
            others = [value for other, value in here.items() if other != name]
            below = sum(1.0 if v < mine - 1e-9 else 0.5 * (v <= mine + 1e-9) for v in others)
            if others:
                found[name].append(below / len(others))
    return {name: statistics.fmean(shares) for name, shares in found.items() if shares}


def places(of: Mapping[str, float]) -> dict[str, int]:
    """Row -> its place by points; equal points share a place."""
    return {
        name: 1 + sum(other > mine + 1e-9 for other in of.values()) for name, mine in of.items()
    }


def _means(scores: Scores, without: tuple[str, int | None] | None = None) -> dict:
    """Row -> workload -> mean, without one workload (w, None) or one seed of one (w, s)."""
    found: dict[str, dict[str, float]] = {}
    for name, row in scores.items():
        for workload, seeds in row.items():
            kept = list(seeds.values())
            if without and without[0] == workload:
                kept = [v for s, v in seeds.items() if without[1] not in (None, s)]
            if kept:
                found.setdefault(name, {})[workload] = statistics.fmean(kept)
    return found


def _reach(scores: Scores, left_out: Iterable[tuple[str, int | None]]) -> dict:
    """Row -> lowest and highest place over several ways of leaving something out."""
    found: dict[str, list[int]] = {}
    for without in left_out:
        for name, place in places(points(_means(scores, without))).items():
            found.setdefault(name, []).append(place)
    return {name: (min(some), max(some)) for name, some in found.items()}


def _share_won(names: Sequence[str], boards: Mapping[str, Board]) -> dict[str, float]:
    """Row -> share of its paired comparisons won; an undecided one counts half."""
    found: dict[str, list[float]] = {name: [] for name in names}
    for board in boards.values():
        here = {s.name: s.rm_by_seed for s in board.of("strategy") if s.rank}
        for pair, winner in score.told_apart(here).items():
            for name in pair:
                found[name].append(0.5 if winner is None else float(winner == name))
    return {name: statistics.fmean(shares) for name, shares in found.items() if shares}


# ------------------------------------------------------------------ the board


def overall(boards: Mapping[str, Board]) -> list[Overall]:
    """Every strategy that is ranked somewhere, by points; then controls and references.

    Boards of another request than the standard one are left out where there are standard ones.
    """
    boards = score.standard(boards) or boards
    on: dict[str, dict[str, Standing]] = {}
    for workload, board in boards.items():
        for s in board.standings:
            partial = s.kind == "control" and s.status == "partial"
            if s.rm and (s.status == "ok" or partial):
                on.setdefault(s.name, {})[workload] = s
    scores = {name: {w: s.rm_by_seed for w, s in row.items()} for name, row in on.items()}
    first = {name: next(iter(row.values())) for name, row in on.items()}
    ranked = {name: row for name, row in scores.items() if first[name].kind == "strategy"}

    borda = points(_means(ranked))
    place, won = places(borda), _share_won(list(ranked), boards)
    rank = score.ranks_of(list(ranked), score.told_apart(ranked, paired))
    order = sorted(ranked, key=lambda n: (place.get(n, math.inf), -mean_over(scores[n]).mean, n))
    tier = score.tiers({name: rank[name] for name in order})
    workload = _reach(ranked, [(w, None) for w in boards] if len(boards) > 1 else [])
    seed = _reach(ranked, [(w, s) for w, b in boards.items() if len(b.seeds) > 1 for s in b.seeds])
    lines = []
    for name in [*order, *(n for n in scores if n not in ranked)]:
        line = Overall(
            name, first[name].kind, first[name].category, mean_over(scores[name]), on[name]
        )
        if name in ranked:
            line = replace(
                line,
                points=borda.get(name),
                place=place.get(name),
                won=won.get(name),
                rank=rank[name],
                tier=tier[name],
                without_workload=workload.get(name),
                without_seed=seed.get(name),
                above_control=_above_controls(name, scores),
            )
        lines.append(line)
    rest = sorted(lines[len(order) :], key=lambda line: (-round(line.rm.mean, 9), line.name))
    return lines[: len(order)] + rest


def _above_controls(name: str, scores: Scores) -> bool:
    """Whether a row is significantly better than each cheap control on the workloads they share.

    Of each, because the best one is not the same on every workload, and one that lacks a
    workload must not be passed over for a worse one. False where there is none to beat.
    """
    bars = [scores[bar] for bar in score.CHEAP_CONTROLS if scores.get(bar)]
    tests = [paired(scores[name], bar) for bar in bars if scores[name].keys() & bar.keys()]
    return bool(tests) and all(d > 0 and p < score.ALPHA for d, p, _ in tests)


def most_workloads(lines: Iterable[Overall]) -> int:
    """On how many workloads a row runs at most; 0 without rows."""
    return max((len(line.on) for line in lines), default=0)


def leaders(lines: Sequence[Overall]) -> list[Overall]:
    """Strategies that may be first: no other is significantly better over shared workloads,
    and they are significantly better than the cheap controls."""
    return [line for line in lines if line.rank and line.rank[0] == 1 and line.above_control]


def first_place(lines: Sequence[Overall], mark: Callable[[str], str] = str) -> str:
    """Who is first over all workloads, in one sentence without a full stop.

    Beside a strategy that runs on fewer workloads stands on how many.
    """
    better = [line for line in lines if line.above_control]
    ranked = [line for line in lines if line.rank]
    than = "significantly better than the cheap controls, over the workloads they run on"
    most = most_workloads(lines)

    def called(line: Overall) -> str:
        few = f" (on {len(line.on)} of {most})" if len(line.on) < most else ""
        return f"{mark(line.name)}{few}"

    if not ranked:
        return "No strategy could be ranked"
    if max(line.rm.n for line in ranked) < 2:
        return "One training seed tells nothing apart, so no strategy is called first"
    if not better:
        return f"No strategy is {than}"
    if len(better) == 1:
        return f"Only {called(better[0])} is {than}"
    first = [called(line) for line in leaders(lines)]
    counted = f"{len(better)} of {len(ranked)} strategies are {than}"
    if not first:  # whoever scatters widely may be undecided against all, and below the control
        return f"{counted}, and the seeds put none of them first"
    shared = "is first" if len(first) == 1 else "may each be first"
    those = "it is" if len(first) == 1 else "they are"
    return (
        f"{score.listed(first)} {shared}: no other strategy is significantly better, and {those} "
        f"among the {len(better)} of {len(ranked)} strategies that are {than}"
    )


# ------------------------------------------------------------------ what seeds can carry


@dataclass(frozen=True)
class Resolution:
    """How small a difference the seeds of one board can tell.

    Args:
        pairs: Pairs of ranked strategies, which are all corrected for.
        spread: Standard deviation over seeds of the difference of two strategies, in points of
            Retrain-Match; of the median pair, pairs that never differ left out.
        smallest: The smallest mean difference of such a pair that is significant.
        seeds_for: How many seeds would make a measured difference of `TOLD` points significant.
            A true one of that size is then found about half of the time.
    """

    pairs: int
    spread: float
    smallest: float
    seeds_for: int


#: A difference of scores that a reader may want told apart.
TOLD = 5.0


def resolution(board: Board) -> Resolution | None:
    """What the seeds of a board can carry; None where fewer than two strategies or seeds are,
    or no two strategies ever differ.

    A difference d of n seeds is significant if d >= t(n - 1, 1 - 0.05 / (2 pairs)) s / sqrt(n):
    the first step of Holm's procedure, which is its strictest.
    """
    ranked = [s.rm_by_seed for s in board.of("strategy") if s.rank]
    n = len(board.seeds)
    if len(ranked) < 2 or n < 2:
        return None
    spreads = [
        statistics.stdev(a[s] - b[s] for s in a.keys() & b.keys())
        for i, a in enumerate(ranked)
        for b in ranked[:i]
    ]
    differing = [spread for spread in spreads if spread > 1e-9]  # of scores from 0 to 100
    if not differing:
        return None
    pairs, spread = len(spreads), statistics.median(differing)

    def smallest(seeds: int) -> float:
        quantile = stdtrit(seeds - 1, 1 - score.ALPHA / (2 * pairs))
        return float(quantile * spread / math.sqrt(seeds))

    wanted = 2
    while smallest(wanted) > TOLD:
        wanted += 1
    return Resolution(pairs, spread, smallest(n), wanted)
