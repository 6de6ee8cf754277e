"""From rows to boards: Retrain-Match, intervals, ranks, tiers, flags and gates.

Everything here is computed when rows are read and nothing is stored. Reading rows must
not cost more than a moment, because the site does it at build time: no torch here.

Retrain-Match (RM, 0 to 100) asks how close an unlearned model is to one that never saw
the forget set. For training seed s and criterion m, R_m(-s) is the mean of m over the
retrained models of the *other* seeds, and G_m = mean m(originals) - mean m(retrained):

    position  z_m(s) = (m(u_s) - R_m(-s)) / G_m   1 original, 0 retrained, < 0 too far
    match     a_m(s) = clip(1 - |z_m(s)|, 0, 1)      C1, C2, C3: two-sided
    output    a_D(s) = clip((D_o - D(u_s)) / (D_o - D_0), 0, 1)
    utility   a_U(s) = clip(1 - max(0, R_C4(-s) - C4(u_s)) / (R_C4(-s) - chance), 0, 1)
    axes      F = mean(a_C1, a_C2)   P = mean(a_C3, a_D)   U = a_U
    RM(s)     = 100 x 3 / (1/F + 1/P + 1/U), 0 if an axis is 0

D(.) is the mean divergence of a model's answers on the forget set from the retrained
models of the other seeds; D_o is its mean over the originals and D_0 over the retrained
models themselves, the noise floor.

With a single seed there is no other retrained model, so the seed's own one is the
reference: the retrained model then matches itself (RM 100 by construction), D_0 is 0,
intervals shrink to a point (n = 1), and nothing can be told apart.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path

from scipy.special import stdtr, stdtrit

from . import ROOT, __version__, metrics, records, selection
from .tables import DASH, number
from .workloads.gates import CLASSIFIER

#: Level of every test and interval.
ALPHA = 0.05

#: Criteria with a position between original and retrained.
POSITIONS = ("C1", "C2", "C3")

#: Controls that any strategy has to beat. `partial_retrain` is not among them: it is
#: the cost-matched comparison, a question of its own.
CHEAP_CONTROLS = ("original", "fine_tune", "random_label", "random_init")


@dataclass(frozen=True)
class Interval:
    """A mean over seeds and its 95 % t interval; with n = 1, low = high = mean."""

    mean: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Standing:
    """One line of a board: one strategy, control or reference on one workload.

    Args:
        name, kind, category, analogue: As in the rows.
        status: "ok"; "partial" if it has a result at some of the board's seeds and not at
            all; else what the seeds are (not_applicable, error, diverged; "error" where
            they differ).
        reason: Why it is not ok, with the seeds that it lacks; null if it is.
        seeds: Those of the board's seeds at which it is ok.
        rm_by_seed: Retrain-Match, 0 to 100.
        rm: Its interval, cut to 0 to 100. None if nothing could be scored.
        forgetting, privacy, utility: The axes F, P and U, 0 to 1.
        position: Signed positions of C1, C2, C3: 1 like the original, 0 like retrained.
        position_by_seed: The same by criterion and seed.
        divergence: Divergence from the retrained models on the forget set, in the workload's unit.
        rank: Rank interval among the strategies that are ok; None for everything else.
        tier: "A", "B", ... (see `tiers`); None where rank is.
        flags: See `FLAGS`.
        time_ratio, pass_ratio: Wall time and example passes relative to retraining,
            median.
        peak_memory_mb: Median rise of peak memory.
        extra_storage_bytes: What had to be kept before the request, the most of any
            seed.
        metrics: Every measured metric.
        settings, settings_chosen_by, departures: As in the rows.
        axes_by_seed: Axis "F", "P", "U" -> seed -> value.
        other_scores: "privleak" (percent, MUSE's sign) and "tug_of_war" (0 to 1), for
            readers who know them; they do not enter RM.
        seconds: Median wall time.
        product: What was measured, where that is more than the weights of the workload's model.
        edited: Whether a row ran with other code than its page's file holds.
        notes: What else a page that runs says beside the name, such as "your settings".
    """

    name: str
    kind: str
    category: str
    analogue: bool
    status: str
    reason: str | None
    seeds: tuple[int, ...]
    rm_by_seed: dict[int, float]
    rm: Interval | None
    forgetting: Interval | None
    privacy: Interval | None
    utility: Interval | None
    position: dict[str, Interval]
    position_by_seed: dict[str, dict[int, float]]
    divergence: Interval | None
    rank: tuple[int, int] | None
    tier: str | None
    flags: tuple[str, ...]
    time_ratio: float | None
    pass_ratio: float | None
    peak_memory_mb: float | None
    extra_storage_bytes: int
    metrics: dict[str, Interval]
    settings: dict
    settings_chosen_by: str
    departures: tuple[str, ...]
    axes_by_seed: dict[str, dict[int, float]] = field(default_factory=dict)
    other_scores: dict[str, Interval] = field(default_factory=dict)
    seconds: float | None = None
    product: str = ""
    edited: bool = False
    notes: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """Its name, with what a reader must know beside it."""
        notes = ["analogue"] if self.analogue else []
        notes += [self.product] if self.product else []
        notes += [*self.notes, *(["edited"] if self.edited else [])]
        return f"{self.name} ({', '.join(notes)})" if notes else self.name


@dataclass(frozen=True)
class Board:
    """All standings on one workload, by RM from the top; what is not ok comes last.

    Args:
        workload, profile, facts: As in the reference document.
        gates: What the workload has to meet for the board to mean anything.
        gates_passed: Whether it meets all of it.
        standings: References and controls included, each with its kind.
        pairs_resolved: (pairs of ranked strategies told apart after Holm, all pairs).
        seeds: The training seeds that everything on the board is computed on: original and
            retrained model are ok there, and at least one strategy was tried.
        generated: When the newest of its rows were made, ISO 8601.
        left_out: Seeds of any row that are not among them.
        missing: Strategy or control that is partial -> the board's seeds that it lacks.
        left_aside: A sentence on rows that were made with other code; "" if there are none.
    """

    workload: str
    profile: str
    facts: dict
    gates: list[records.Gate]
    gates_passed: bool
    standings: tuple[Standing, ...]
    pairs_resolved: tuple[int, int]
    seeds: tuple[int, ...]
    generated: str = ""
    left_out: tuple[int, ...] = ()
    missing: dict[str, tuple[int, ...]] = field(default_factory=dict)
    left_aside: str = ""

    def __getitem__(self, name: str) -> Standing:
        for standing in self.standings:
            if standing.name == name:
                return standing
        names = ", ".join(s.name for s in self.standings)
        raise KeyError(f"no {name!r} on the {self.workload} board; there are {names}")

    def of(self, *kinds: str) -> tuple[Standing, ...]:
        """The standings of these kinds, in the board's order."""
        return tuple(s for s in self.standings if s.kind in kinds)

    @property
    def bar(self) -> Standing | None:
        """The best of the cheap controls, which a strategy has to beat."""
        return _bar({s.name: s for s in self.standings})

    @property
    def above_control(self) -> tuple[Standing, ...]:
        """Ranked strategies that are significantly better than the best cheap control."""
        if self.bar is None or len(self.seeds) < 2:  # nothing to beat, or no test
            return ()
        ranked = [s for s in self.of("strategy") if s.rank]
        return tuple(s for s in ranked if "not better than control" not in s.flags)

    @property
    def leaders(self) -> tuple[Standing, ...]:
        """Strategies that may be called first: no other is significantly better, and they
        are significantly better than the best cheap control. None where a gate failed."""
        return tuple(s for s in self.above_control if s.rank[0] == 1 and self.gates_passed)


def _bar(standings: Mapping[str, Standing]) -> Standing | None:
    found = [standings[name] for name in CHEAP_CONTROLS if name in standings]
    # One that lacks a seed is compared at the seeds that are there: it is not dropped for a worse one.
    scored = [control for control in found if control.rm and control.status in ("ok", "partial")]
    return max(scored, key=lambda control: control.rm.mean, default=None)


# ------------------------------------------------------------------ the score


def _clip(x: float) -> float:
    return min(1.0, max(0.0, x))


#: Ways to join axes of 0 to 1 into one number; "harmonic" is the headline.
RULES = {
    "harmonic": lambda axes: statistics.harmonic_mean(axes),
    "geometric": lambda axes: math.prod(axes) ** (1 / len(axes)),
    "product": lambda axes: math.prod(axes),
    "min": lambda axes: min(axes),
}


def retrain_match(axes: Iterable[float], rule: str = "harmonic") -> float:
    """Join axes into one score of 0 to 100; an axis of 0 makes it 0.

    Args:
        axes: F, P and U, each 0 to 1.
        rule: One of RULES. The headline is harmonic: the worst axis dominates.

    Raises:
        ValueError: an axis outside [0, 1], or an unknown rule.
    """
    axes = list(axes)
    if rule not in RULES:
        raise ValueError(f"there is no rule {rule!r}; there are {', '.join(RULES)}")
    if not axes or not all(0 <= axis <= 1 for axis in axes):
        raise ValueError(f"axes are between 0 and 1, got {axes}")
    return 100 * RULES[rule](axes) if all(axes) else 0.0


def _value(row: records.Row, name: str) -> float | None:
    metric = row.metrics.get(name)
    return None if metric is None else metric.value


def _mean(values: Iterable[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return statistics.fmean(known) if known else None


@dataclass(frozen=True)
class Ruler:
    """What the rows of one workload are measured against.

    Args:
        originals, retrained: The rows with status ok, by seed.
        chance: C4 of a model without knowledge.
    """

    originals: dict[int, records.Row]
    retrained: dict[int, records.Row]
    chance: float

    @classmethod
    def of(cls, rows: Iterable[records.Row], chance: float) -> Ruler:
        """The ruler among some rows; it may be empty."""
        ok = [row for row in rows if row.status == "ok"]
        by_seed = lambda kind: {row.seed: row for row in ok if row.kind == kind}
        return cls(by_seed("original"), by_seed("retrained"), chance)

    def others(self, seed: int) -> list[int]:
        """Seeds of the retrained models that a row of this seed is compared with."""
        return [s for s in self.retrained if s != seed] or list(self.retrained)

    def reference(self, name: str, seed: int) -> float | None:
        """R_m(-s): the metric's mean over the other seeds' retrained models."""
        key = (name, seed)
        if key not in self._references:
            peers = (self.retrained[s] for s in self.others(seed))
            self._references[key] = _mean(_value(row, name) for row in peers)
        return self._references[key]

    @cached_property
    def _references(self) -> dict[tuple[str, int], float | None]:
        """Filled by `reference`: every row of a seed asks for the same few means."""
        return {}

    @cached_property
    def gap(self) -> dict[str, float]:
        """G_m of each criterion on which originals and retrained differ at all."""
        gaps = {}
        for name in POSITIONS:
            original = _mean(_value(row, name) for row in self.originals.values())
            retrained = _mean(_value(row, name) for row in self.retrained.values())
            if None not in (original, retrained) and abs(original - retrained) > 1e-9:
                gaps[name] = original - retrained
        return gaps

    def divergence(self, row: records.Row) -> float | None:
        """D: mean divergence from the other seeds' retrained models."""
        found = row.divergence_to_retrained
        return _mean(found.get(str(s)) for s in self.others(row.seed))

    @cached_property
    def divergence_range(self) -> tuple[float | None, float | None]:
        """(D_o, D_0): mean divergence of the originals, and of the retrained models."""
        of = lambda rows: _mean(self.divergence(row) for row in rows.values())
        return of(self.originals), of(self.retrained)

    @cached_property
    def divergence_noise(self) -> float:
        """Standard deviation over seeds of D, the larger of originals' and retrained's."""
        known = lambda rows: [d for d in map(self.divergence, rows.values()) if d is not None]
        spread = lambda rows: statistics.stdev(found) if len(found := known(rows)) > 1 else 0.0
        return max(spread(self.originals), spread(self.retrained))

    def position(self, row: records.Row) -> dict[str, float]:
        """z of every criterion that the row has."""
        found = {}
        for name, gap in self.gap.items():
            value, reference = _value(row, name), self.reference(name, row.seed)
            if None not in (value, reference):
                found[name] = (value - reference) / gap
        return found

    def axes(self, row: records.Row) -> dict[str, float]:
        """F, P and U; a part that was not measured is left out of its axis."""
        match = {name: _clip(1 - abs(z)) for name, z in self.position(row).items()}
        axes = {
            "F": _mean([match.get("C1"), match.get("C2")]),
            "P": _mean([match.get("C3"), self._output_match(row)]),
            "U": self._utility(row),
        }
        return {name: axis for name, axis in axes.items() if axis is not None}

    def _output_match(self, row: records.Row) -> float | None:
        (worst, floor), own = self.divergence_range, self.divergence(row)
        if None in (worst, floor, own) or worst <= floor:
            return None
        return _clip((worst - own) / (worst - floor))

    def _utility(self, row: records.Row) -> float | None:
        own, wanted = _value(row, "C4"), self.reference("C4", row.seed)
        if None in (own, wanted) or wanted <= self.chance:
            return None
        return _clip(1 - max(0.0, wanted - own) / (wanted - self.chance))

    def rm(self, row: records.Row) -> float | None:
        """Retrain-Match of one row; None if a whole axis was not measured."""
        axes = self.axes(row)
        return retrain_match(axes.values()) if len(axes) == 3 else None

    def other_scores(self, row: records.Row) -> dict[str, float]:
        """PrivLeak against the other seeds' retrained, tug-of-war against its own."""
        found = {}
        own, wanted = _value(row, "C3"), self.reference("C3", row.seed)
        if None not in (own, wanted) and wanted < 1:
            found["privleak"] = metrics.privleak(own, wanted)
        if row.seed in self.retrained:
            names = ("forget_accuracy", "retain_accuracy", "C4")
            mine = [_value(row, name) for name in names]
            its = [_value(self.retrained[row.seed], name) for name in names]
            if None not in mine + its:
                found["tug_of_war"] = metrics.tug_of_war(tuple(mine), tuple(its))
        return found


# ---------------------------------------------------------------- statistics over seeds


def interval(
    values: Iterable[float], low: float = -math.inf, high: float = math.inf
) -> Interval | None:
    """Mean and 95 % t interval over seeds, cut to [low, high]; None without values."""
    values = list(values)
    n = len(values)
    if n == 0:
        return None
    mean = statistics.fmean(values)
    if n == 1:
        return Interval(mean, mean, mean, 1)
    half = stdtrit(n - 1, 1 - ALPHA / 2) * statistics.stdev(values) / math.sqrt(n)
    return Interval(mean, float(max(low, mean - half)), float(min(high, mean + half)), n)


def paired(a: Mapping[int, float], b: Mapping[int, float]) -> tuple[float, float, int]:
    """Paired t test of a - b over the seeds they share.

    Returns:
        Mean difference, two-sided p, number of shared seeds. p is 1 for fewer than two
        seeds and for equal rows, and 0 for a difference that is the same at every seed.
    """
    differences = [a[s] - b[s] for s in sorted(a.keys() & b.keys())]
    n = len(differences)
    mean = statistics.fmean(differences) if n else 0.0
    if n < 2:
        return mean, 1.0, n
    # Scores are of the order of 1 to 100: below 1e-9 there is only rounding.
    error = statistics.stdev(differences) / math.sqrt(n)
    if error < 1e-9:
        return mean, float(abs(mean) < 1e-9), n
    return mean, float(2 * stdtr(n - 1, -abs(mean) / error)), n


def holm(p: Sequence[float]) -> list[float]:
    """Holm's adjusted p values, in the order given (Holm, 1979)."""
    adjusted, worst = [0.0] * len(p), 0.0
    for turn, i in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        worst = max(worst, min(1.0, (len(p) - turn) * p[i]))
        adjusted[i] = worst
    return adjusted


def told_apart(
    scores: Mapping[str, Mapping[int, float]],
    test: Callable[[Mapping, Mapping], tuple[float, float, int]] = paired,
) -> dict[tuple[str, str], str | None]:
    """For each pair of rows: which is significantly better, after Holm over all pairs.

    Args:
        scores: Row -> seed -> score, higher is better; or whatever `test` compares.
        test: Two rows' scores -> difference, two-sided p, number of shared seeds.

    Returns:
        Pair of names -> the better one, or None where the seeds cannot tell.
    """
    pairs = list(itertools.combinations(scores, 2))
    tests = [test(scores[a], scores[b]) for a, b in pairs]
    adjusted = holm([p for _, p, _ in tests])
    return {
        (a, b): (a if difference > 0 else b) if p < ALPHA else None
        for (a, b), (difference, *_), p in zip(pairs, tests, adjusted, strict=True)
    }


def ranks_of(
    names: Sequence[str], better: Mapping[tuple[str, str], str | None]
) -> dict[str, tuple[int, int]]:
    """Row -> [1 + rows significantly better, M - rows significantly worse].

    Args:
        better: As `told_apart` returns it.
    """
    above, below = dict.fromkeys(names, 0), dict.fromkeys(names, 0)
    for (a, b), winner in better.items():
        if winner is not None:
            below[winner] += 1
            above[b if winner == a else a] += 1
    return {name: (1 + above[name], len(names) - below[name]) for name in names}


def rank_intervals(
    scores: Mapping[str, Mapping[int, float]],
) -> tuple[dict[str, tuple[int, int]], tuple[int, int]]:
    """The ranks that each row may hold, from Holm-corrected paired tests of all pairs.

    Args:
        scores: Row -> seed -> score, higher is better.

    Returns:
        Row -> rank interval (see `ranks_of`), and (pairs told apart, all pairs).
    """
    better = told_apart(scores)
    resolved = sum(winner is not None for winner in better.values())
    return ranks_of(list(scores), better), (resolved, len(better))


def tiers(ranks: Mapping[str, tuple[int, int]]) -> dict[str, str]:
    """Letters for groups of rows whose rank intervals overlap.

    Going down the rows in the order given (best first), a row joins the current tier
    while all of the tier's intervals and its own still share a rank, and opens the next
    tier otherwise. So each row has one letter, letters follow the order, rows of one
    tier could all hold one and the same rank, and no tier could take in the row below
    it. Neighbours on two sides of a border may still not be told apart: their rank
    intervals say so.
    """
    found, count, common = {}, 0, (1, 0)
    for name, (low, high) in ranks.items():
        common = max(common[0], low), min(common[1], high)
        if common[0] > common[1]:
            count, common = count + 1, (low, high)
        found[name] = _letters(count)
    return found


def _letters(count: int) -> str:
    """1 -> A, 26 -> Z, 27 -> AA."""
    count, last = divmod(count - 1, 26)
    return (_letters(count) if count else "") + chr(ord("A") + last)


# ------------------------------------------------------------------ flags

#: Flag -> what it says.
FLAGS = {
    "errored": "at least one seed is not ok",
    "no-op": "its weights are the original's, or it cannot be told from the original",
    "collapsed": "utility is below one half",
    "forgets what stays": (
        "right on the retain set less often than retrained models, by over 10 percentage points: "
        "training examples that should stay are lost, which utility, asked of unseen ones, may miss"
    ),
    "over-unlearned": "the forget set looks less familiar than to a retrained model",
    "exposes": "the forget set stands out more than in the original",
    "not better than control": "not significantly above the best cheap control",
}

#: By how much a model may be right less often on the retain set than retrained models are.
REMEMBERED = 0.1

#: Differences from the original that count as nothing: RM points, and position.
_NEGLIGIBLE_RM, _NEGLIGIBLE_POSITION = 1.0, 0.05


def _no_op(standing: Standing, rows: Sequence[records.Row], original: Standing) -> bool:
    """Whether a strategy shows no effect.

    True if no seed's weights changed. Also true if (a) the paired difference of its RM
    from the original's is not significant or is below one point, and (b) each position
    that it has (C1, C2, C3) is as close to the originals' mean as originals are to each
    other: two standard deviations over seeds, or 0.05 where they agree better than
    that. (b) is what keeps a destroyed model, whose RM is 0 too, and a run of two
    seeds, where nothing is ever significant, from passing as no-ops.
    """
    if all(row.weights_changed is False for row in rows):
        return True
    if standing.rm is None or original.rm is None or not standing.position:
        return False
    difference, p, _ = paired(standing.rm_by_seed, original.rm_by_seed)
    if p < ALPHA and abs(difference) >= _NEGLIGIBLE_RM:
        return False
    for name, position in standing.position.items():
        values = list(original.position_by_seed[name].values())
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        noise = max(_NEGLIGIBLE_POSITION, 2 * spread)
        if abs(position.mean - original.position[name].mean) > noise:
            return False
    return True


def _forgets_what_stays(standing: Standing, retrained: Standing) -> bool:
    """Whether less of the retain set is remembered than retrained models remember.

    Utility is measured on unseen examples on most workloads, which a model without this
    memory can get right.
    """
    mine, theirs = (s.metrics.get("retain_accuracy") for s in (standing, retrained))
    return bool(mine and theirs) and mine.high < theirs.mean - REMEMBERED


def _beats(standing: Standing, control: Standing) -> bool:
    difference, p, n = paired(standing.rm_by_seed, control.rm_by_seed)
    # One shared seed allows no test; then the two numbers are compared.
    return difference > 0 and (p < ALPHA or n < 2)


def _flags(
    standing: Standing, rows: Sequence[records.Row], reference: Mapping[str, Standing]
) -> tuple[str, ...]:
    """The flags of a strategy or control, in the order of FLAGS."""
    if standing.kind not in ("strategy", "control"):
        return ()
    flags = set()
    here = [row for row in rows if row.seed in reference["original"].seeds]
    if any(row.status not in ("ok", "not_applicable") for row in here):
        flags.add("errored")
    done = [row for row in here if row.status == "ok"]
    if done and _no_op(standing, done, reference["original"]):
        flags.add("no-op")
    if standing.utility and standing.utility.mean < 0.5:
        flags.add("collapsed")
    if _forgets_what_stays(standing, reference["retrained"]):
        flags.add("forgets what stays")
    privacy = standing.position.get("C3")
    if privacy and privacy.high < -0.1:
        flags.add("over-unlearned")
    if privacy and privacy.low > 1:
        flags.add("exposes")
    bar = _bar(reference)
    if standing.kind == "strategy" and standing.rm and bar and not _beats(standing, bar):
        flags.add("not better than control")
    return tuple(flag for flag in FLAGS if flag in flags)


# ------------------------------------------------------------------ gates


@dataclass(frozen=True)
class _Measured:
    """What the gates of one workload are computed from."""

    ruler: Ruler
    rows: Sequence[records.Row]
    facts: Mapping

    def mean(self, kind: str, name: str) -> float | None:
        """Mean of a metric over the originals or the retrained models."""
        return _mean(_value(row, name) for row in getattr(self.ruler, kind).values())

    def gap(self, name: str) -> float | None:
        """Original minus retrained."""
        original, retrained = self.mean("originals", name), self.mean("retrained", name)
        return None if None in (original, retrained) else original - retrained

    def rm(self, rows: Iterable[records.Row]) -> float | None:
        return _mean(self.ruler.rm(row) for row in rows)

    @property
    def single(self) -> bool:
        return len(self.ruler.retrained) < 2


#: A value, and why there is none, or why it does not count.
_Found = tuple[float | None, str | None]

_UNMEASURED = "it was not measured on the original and the retrained model"
_UNSCORED = "an axis of the score was not measured"
_ALONE = "one seed: there is no second retrained model to compare with"


def _or(value: float | None, why: str) -> _Found:
    return value, why if value is None else None


def _over_holdout(found: _Measured) -> _Found:
    """C1 of the retrained model, above the same on text that nobody trained on.

    That text shares the common words, so it is what must not be exceeded.
    """
    recited = found.mean("retrained", "C1")
    unseen = found.mean("retrained", "verbatim_holdout")
    return _or(None if None in (recited, unseen) else recited - unseen, _UNMEASURED)


#: The gap in AUC that gates ask for.
AUC_GAP = 0.15


def auc_error(n: int, m: int) -> float:
    """Standard error of an AUC of one half, from n against m examples.

    Ties and other AUCs only make it smaller.
    """
    return math.sqrt((n + m + 1) / (12 * n * m))


def _auc_gap(found: _Measured) -> _Found:
    """The AUC gap; it counts only if the examples behind it can carry it.

    That is if it is as precise as from 100 against 100 examples. Where the attack is asked of
    a few of the request's examples alone, the gap less twice its standard error has to be
    what gates ask for.
    """
    gap = found.gap("C3")
    forget, holdout = found.facts.get("forget"), found.facts.get("holdout")
    if gap is None or not forget or not holdout:
        return _or(gap, _UNMEASURED)
    asked = next(iter(found.ruler.originals.values())).metrics["C3"].n or 0
    if 4 <= asked < min(forget, holdout):
        # How many of them are members is not said. One in four is less precise than any more
        # even split. The gap is a difference of two AUCs.
        own = math.sqrt(2) * auc_error(asked // 4, asked - asked // 4)
        few = f"its standard error, from {asked} examples, may be {own:.2f}"
        return gap, few if gap - 2 * own < AUC_GAP else None
    if auc_error(forget, holdout) > auc_error(100, 100):
        return gap, f"{forget} against {holdout} examples is less precise than 100 against 100"
    return gap, None


def _divergence(found: _Measured, in_noise: Callable[[Ruler, float, float], float]) -> _Found:
    worst, floor = found.ruler.divergence_range
    if found.single or len(found.ruler.originals) < 2:  # no spread over seeds
        return None, _ALONE
    if None in (worst, floor):
        return None, _UNMEASURED
    return in_noise(found.ruler, worst, floor), None


#: What a gate can ask of a workload -> how it is computed. Retrained models that agree to the
#: last digit leave no noise at all, so nothing is divided by less than 1e-9.
MEASURES: dict[str, Callable[[_Measured], _Found]] = {
    "C1 original": lambda found: _or(found.mean("originals", "C1"), _UNMEASURED),
    "C1 gap": lambda found: _or(found.gap("C1"), _UNMEASURED),
    "C1 retrained": lambda found: _or(found.mean("retrained", "C1"), _UNMEASURED),
    "C1 retrained over holdout": _over_holdout,
    "C2 original": lambda found: _or(found.mean("originals", "C2"), _UNMEASURED),
    "C2 retrained": lambda found: _or(found.mean("retrained", "C2"), _UNMEASURED),
    "C2 gap": lambda found: _or(found.gap("C2"), _UNMEASURED),
    "AUC gap": _auc_gap,
    "D original / D retrained": lambda found: _divergence(
        found, lambda ruler, worst, floor: worst / max(floor, 1e-9)
    ),
    "D gap / its spread over seeds": lambda found: _divergence(
        found, lambda ruler, worst, floor: (worst - floor) / max(ruler.divergence_noise, 1e-9)
    ),
    "RM retrained": lambda found: (
        (None, _ALONE) if found.single else _or(found.rm(found.ruler.retrained.values()), _UNSCORED)
    ),
    "RM original": lambda found: _or(found.rm(found.ruler.originals.values()), _UNSCORED),
    "RM random_init": lambda found: _or(
        found.rm(r for r in found.rows if r.strategy == "random_init" and r.status == "ok"),
        _UNSCORED,
    ),
}
_SIGNS = {">=": lambda value, bound: value >= bound, "<=": lambda value, bound: value <= bound}


def gates(document: records.Document) -> list[records.Gate]:
    """What a workload has to meet before its board means anything.

    The workload declares it: `facts["gates"]` lists gates (see workloads/gates.py), and a
    document without the key is held to a classifier's. A gate that cannot be computed has no
    value, is not passed, and says why.

    Raises:
        records.RecordError: a gate is declared that cannot be understood; it is named.
    """
    facts = document.facts
    declared = _declared(document)
    ruler = Ruler.of(document.rows, facts.get("chance", 0.0))
    if not ruler.originals or not ruler.retrained:
        what = "original" if not ruler.originals else "retrained model"
        reason = f"no {what} could be measured"
        return [_gate("references", ">=", 1, None, reason)]

    measured = _Measured(ruler, document.rows, facts)
    names = {row.strategy for row in document.rows if row.status == "ok"}
    kind = facts.get("request_kind", "standard")
    return [
        _gate(gate["measure"], gate["sign"], gate["bound"], *MEASURES[gate["measure"]](measured))
        for gate in declared
        if gate.get("request", kind) == kind and gate.get("row") in {None, *names}
    ]


def _declared(document: records.Document) -> Sequence[Mapping]:
    """The gates that a document declares, each of them understood."""
    where = f"{document.profile}/{document.workload}/{document.category}"
    declared = document.facts.get("gates", CLASSIFIER)
    if not isinstance(declared, list) or not all(isinstance(gate, dict) for gate in declared):
        raise records.RecordError(f"{where}: the gates among its facts are no list of gates")
    for gate in declared:
        measure, sign, bound = (gate.get(key) for key in ("measure", "sign", "bound"))
        if measure not in MEASURES:
            raise records.RecordError(
                f"{where}: there is no measure {measure!r} for a gate; there are "
                f"{', '.join(MEASURES)}"
            )
        if sign not in _SIGNS or not isinstance(bound, (int, float)):
            raise records.RecordError(
                f"{where}: the gate on {measure} needs a sign, >= or <=, and a number as bound; "
                f"it has {sign!r} and {bound!r}"
            )
    return declared


def _gate(
    measure: str, sign: str, bound: float, value: float | None, reason: str | None
) -> records.Gate:
    wanted = f"{sign} {bound:g}"
    passed = reason is None and _SIGNS[sign](value, bound)
    return records.Gate(
        name=f"{measure} {wanted}", value=value, wanted=wanted, passed=passed, reason=reason
    )


# ------------------------------------------------------------------ boards


def board(documents: Sequence[records.Document]) -> Board:
    """The board of one workload from its documents (reference and categories).

    Everything is computed on the same seeds, see `Board.seeds`. A strategy or control that
    lacks one of them is shown with its mean over the others, after the complete ones, and
    takes part in no comparison.

    Raises:
        records.RecordError: the documents are of different workloads, profiles or data;
            a row is there twice; or there is no seed with an original and a retrained model
            to measure with.
    """
    if not documents:
        raise records.RecordError("no documents to make a board from")
    head = next((d for d in documents if any(r.kind == "retrained" for r in d.rows)), documents[0])
    _check_one_workload(head, documents)
    rows = [row for document in documents for row in document.rows]
    chance = head.facts.get("chance", 0.0)
    seeds = _common_seeds(rows, Ruler.of(rows, chance), f"{head.profile}/{head.workload}")
    ruler = Ruler.of((row for row in rows if row.seed in seeds), chance)
    by_name: dict[str, list[records.Row]] = {}
    for row in sorted(rows, key=lambda row: row.seed):
        by_name.setdefault(row.strategy, []).append(row)
    standings = {name: _standing(group, ruler, seeds) for name, group in by_name.items()}
    order = sorted(standings.values(), key=_place)

    ranked = [s for s in order if s.kind == "strategy" and s.status == "ok" and s.rm]
    ranks, resolved = rank_intervals({s.name: s.rm_by_seed for s in ranked})
    letters = tiers(ranks)
    here = [row for row in head.rows if row.seed in seeds]
    found_gates = gates(head.model_copy(update={"rows": here}))
    return Board(
        workload=head.workload,
        profile=head.profile,
        facts=head.facts,
        gates=found_gates,
        gates_passed=all(gate.passed for gate in found_gates),
        standings=tuple(
            replace(
                s,
                rank=ranks.get(s.name),
                tier=letters.get(s.name),
                flags=_flags(s, by_name[s.name], standings),
            )
            for s in order
        ),
        pairs_resolved=resolved,
        seeds=seeds,
        generated=max((row.made.at for row in rows if row.made), default=head.environment.at),
        left_out=tuple(sorted({row.seed for row in rows} - set(seeds))),
        missing={
            s.name: tuple(seed for seed in seeds if seed not in s.rm_by_seed)
            for s in order
            if s.status == "partial"
        },
    )


def _common_seeds(rows: Sequence[records.Row], ruler: Ruler, where: str) -> tuple[int, ...]:
    """The seeds that a board compares on; see `Board.seeds`.

    A strategy that failed at a seed was tried there: its failure must not vanish. One that
    does not apply was not.
    """
    if not ruler.originals or not ruler.retrained:
        what = "original" if not ruler.originals else "retrained model"
        raise records.RecordError(f"{where}: no {what} was measured; run its reference rows")
    both = ruler.originals.keys() & ruler.retrained.keys()
    if not both:
        raise records.RecordError(
            f"{where}: at no seed are both the original and the retrained model there; "
            "run its reference rows"
        )
    tried = {r.seed for r in rows if r.kind == "strategy" and r.status != "not_applicable"}
    return tuple(sorted(both & tried or both))


def _check_one_workload(head: records.Document, documents: Sequence[records.Document]) -> None:
    seen: dict[tuple[str, int], str] = {}
    for document in documents:
        where = f"{document.profile}/{document.workload}/{document.category}"
        if (document.workload, document.profile) != (head.workload, head.profile):
            raise records.RecordError(
                f"{where} does not belong on the board of {head.profile}/{head.workload}"
            )
        for name in ("chance", "forget", "retain", "holdout", "request", "data"):
            mine, its = document.facts.get(name), head.facts.get(name)
            if None not in (mine, its) and mine != its:
                raise records.RecordError(
                    f"{where}: was measured with {name} {mine!r}, "
                    f"the reference rows with {its!r}; run it again"
                )
        for row in document.rows:
            key = (row.strategy, row.seed)
            if key in seen:
                raise records.RecordError(
                    f"{where}: {row.strategy}, seed {row.seed}, is also in {seen[key]}"
                )
            seen[key] = where


def _place(standing: Standing) -> tuple:
    done = {"ok": 0, "partial": 1}.get(standing.status, 2)
    # Rounded, so that rows which differ by rounding alone are ordered by name.
    score = round(standing.rm.mean, 9) if standing.rm else -1.0
    return done, -score, standing.name


def _seeds_text(seeds: Iterable[int]) -> str:
    seeds = [str(seed) for seed in seeds]
    return f"{'seed' if len(seeds) == 1 else 'seeds'} {', '.join(seeds)}"


def _status(
    rows: Sequence[records.Row], scored: Mapping[int, float], seeds: Sequence[int]
) -> tuple[str, str | None]:
    """Status and reason of a standing, from its rows at the board's seeds."""
    bad = [row for row in rows if row.status != "ok"]
    kinds = {row.status for row in bad}
    if kinds == {"not_applicable"} and len(bad) == len(rows):
        return "not_applicable", bad[0].reason
    absent = [seed for seed in seeds if seed not in {row.seed for row in rows}]
    # Scored nowhere is a metric that the workload does not have; scored somewhere is a gap.
    unscored = [r.seed for r in rows if r.status == "ok" and scored and r.seed not in scored]
    if not (bad or absent or unscored):
        return "ok", None
    whole = len(bad) == len(rows) and bool(rows)
    status = "partial" if not whole else kinds.pop() if len(kinds) == 1 else "error"
    said = []
    if bad:
        reasons = list(dict.fromkeys(row.reason for row in bad))
        others = len(reasons) - 1
        more = f" (and {others} other {'reason' if others == 1 else 'reasons'})" if others else ""
        if whole and not absent and not others:
            return status, reasons[0]
        said.append(f"{_seeds_text(row.seed for row in bad)}: {reasons[0]}{more}")
    if absent:
        said.append(f"no row at {_seeds_text(absent)}")
    if unscored:
        said.append(f"no score at {_seeds_text(unscored)}")
    return status, "; ".join(said)


def _standing(rows: Sequence[records.Row], ruler: Ruler, seeds: Sequence[int]) -> Standing:
    """The standing of all rows of one name, at the board's seeds."""
    here = [row for row in rows if row.seed in seeds]
    first, rows = (here or rows)[0], here
    done = [row for row in rows if row.status == "ok"]
    scored = {row.seed: ruler.rm(row) for row in done}
    scored = {seed: rm for seed, rm in scored.items() if rm is not None}
    status, reason = _status(rows, scored, seeds)
    axes = _by_name({row.seed: ruler.axes(row) for row in done})
    positions = _by_name({row.seed: ruler.position(row) for row in done})
    other = _by_name({row.seed: ruler.other_scores(row) for row in done})
    measured = _by_name(
        {
            row.seed: {k: m.value for k, m in row.metrics.items() if m.value is not None}
            for row in done
        }
    )
    divergence = [ruler.divergence(row) for row in done]
    costs = [row.cost for row in done if row.cost]
    memory = [c.peak_memory_mb for c in costs if c.peak_memory_mb is not None]
    axis = lambda name: interval(axes.get(name, {}).values(), 0, 1)
    return Standing(
        name=first.strategy,
        kind=first.kind,
        category=first.category,
        analogue=first.analogue,
        status=status,
        reason=reason,
        seeds=tuple(row.seed for row in done),
        rm_by_seed=scored,
        rm=interval(scored.values(), 0, 100),
        forgetting=axis("F"),
        privacy=axis("P"),
        utility=axis("U"),
        position=_intervals(positions),
        position_by_seed=positions,
        divergence=interval(d for d in divergence if d is not None),
        rank=None,
        tier=None,
        flags=(),
        time_ratio=_median(c.seconds / c.retrain_seconds for c in costs if c.retrain_seconds),
        pass_ratio=_median(
            c.example_passes / c.retrain_example_passes for c in costs if c.retrain_example_passes
        ),
        peak_memory_mb=_median(memory),
        extra_storage_bytes=max((c.extra_storage_bytes for c in costs), default=0),
        metrics=_intervals(measured),
        settings=first.settings,
        settings_chosen_by=first.settings_chosen_by,
        departures=tuple(first.departures),
        axes_by_seed=axes,
        other_scores=_intervals(other),
        seconds=_median(c.seconds for c in costs),
        product=first.product,
        edited=any(row.edited for row in rows),
    )


def _by_name(by_seed: Mapping[int, Mapping[str, float]]) -> dict[str, dict[int, float]]:
    """Seed -> name -> value, turned to name -> seed -> value."""
    found: dict[str, dict[int, float]] = {}
    for seed, values in by_seed.items():
        for name, value in values.items():
            found.setdefault(name, {})[seed] = value
    return found


def _intervals(by_name: Mapping[str, Mapping[int, float]]) -> dict[str, Interval]:
    return {name: interval(values.values()) for name, values in by_name.items()}


def _median(values: Iterable[float]) -> float | None:
    values = list(values)
    return statistics.median(values) if values else None


def boards(folder: str | Path, root: str | Path = ROOT) -> dict[str, Board]:
    """Workload -> board, for every workload of one results folder with rows of the code here.

    Args:
        root: The project whose code that is.

    Raises:
        records.RecordError: a file cannot be used; it is named. Or no row there was made with
            the code that is here.
    """
    return boards_of(selection.usable(folder, root))


def boards_of(rows: selection.Rows) -> dict[str, Board]:
    """Workload -> board of rows that were read; a sentence on each says what was left aside."""
    return {
        name: replace(board(found), left_aside=rows.left_aside(name))
        for name, found in rows.documents.items()
    }


# ------------------------------------------------------------------ who is first


def listed(names: Iterable[str], most: int = 5) -> str:
    """Names as part of a sentence; of more than `most` the rest is a number."""
    names = list(names)
    if len(names) > most:
        names = [*names[: most - 1], f"{len(names) - most + 1} more"]
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def first_place(board: Board, mark: Callable[[str], str] = str) -> str:
    """Who is first on a board, in one sentence without a full stop.

    Only a strategy that is significantly better than the best cheap control is called first;
    and where one strategy alone is, that is the sentence. Where a gate failed, nobody is.

    Args:
        mark: How a name is written, e.g. as code. Names come from result files, so it also
            escapes them.
    """
    where = mark(board.workload)
    ranked = [s for s in board.of("strategy") if s.rank]
    if not ranked:
        return f"No strategy could be ranked on {where}"
    if board.bar is None:
        return f"No cheap control has a score on {where}, so no strategy can be called first"
    if len(board.seeds) < 2:
        return f"One training seed tells nothing apart on {where}, so no strategy is called first"
    if not board.gates_passed:
        return f"A gate failed on {where}, so no strategy is called first"
    bar, better = mark(board.bar.name), board.above_control
    than = f"significantly better than the best cheap control, {bar}"
    if len(ranked) == 1:
        is_it = "is" if better else "is not"
        return f"{mark(ranked[0].name)}, the only strategy ranked on {where}, {is_it} {than}"
    field = f"of {len(ranked)} strategies on {where}"
    if not better:
        return f"No strategy is {than}, {field}"
    if len(better) == 1:
        return f"Only {mark(better[0].name)} is {than}, {field}"
    leaders = [mark(s.name) for s in board.leaders]
    counted = f"{len(better)} {field} are {than}"
    if not leaders:  # one that is not better than the control is better than each of them
        return f"{counted}, but the seeds put none of them first"
    shared = "is first" if len(leaders) == 1 else "share the first place"
    return f"{listed(leaders)} {shared}, as far as the seeds can tell; {counted}"


def what_is_missing(board: Board, mark: Callable[[str], str] = str) -> str:
    """Seeds and rows that a board's comparison leaves out, in one sentence; "" if none."""
    said = []
    if board.left_out:
        said.append(
            f"{_seeds_text(board.left_out)} left out, because original, retrained model and at "
            "least one strategy are not all there"
        )
    if board.missing:
        some = [f"{mark(n)} ({_seeds_text(seeds)})" for n, seeds in board.missing.items()]
        said.append(f"not compared, because they lack seeds: {', '.join(some)}")
    text = "; ".join(said)
    return f"{text[:1].upper()}{text[1:]}." if text else ""


# -------------------------------------------------------------- across boards and rules


def standard(boards: Mapping[str, Board]) -> dict[str, Board]:
    """The boards of the standard request."""
    kind = lambda board: board.facts.get("request_kind", "standard")
    return {name: board for name, board in boards.items() if kind(board) == "standard"}


@dataclass(frozen=True)
class Sensitivity:
    """The order of the strategies under one way of making the score.

    Args:
        rule: One of RULES.
        output_match: Whether D is part of the privacy axis.
        rm: Strategy -> mean score, best first.
        tau: Kendall's tau-b with the headline's order; None where it is not defined
            (fewer than two strategies, or all equal).
    """

    rule: str
    output_match: bool
    rm: dict[str, float]
    tau: float | None


def sensitivity(board: Board) -> list[Sensitivity]:
    """The ranked strategies under every rule, with and without D; headline first."""
    # scipy.stats takes as long to import as everything else here, and only this needs it.
    from scipy.stats import kendalltau

    ranked = [s for s in board.of("strategy") if s.status == "ok" and s.rm]
    found = []
    for rule, with_output in itertools.product(RULES, (True, False)):
        scores = {}
        for s in ranked:
            axes = {name: dict(values) for name, values in s.axes_by_seed.items()}
            if not with_output:
                privacy = s.position_by_seed.get("C3", {})
                axes["P"] = {seed: _clip(1 - abs(z)) for seed, z in privacy.items()}
            seeds = axes["F"].keys() & axes["P"].keys() & axes["U"].keys()
            if seeds:
                scores[s.name] = statistics.fmean(
                    retrain_match([axes[a][seed] for a in "FPU"], rule) for seed in seeds
                )
        tau = None
        if len(scores) > 1:
            headline = [board[name].rm.mean for name in scores]
            tau = float(kendalltau(headline, list(scores.values())).statistic)
            tau = None if math.isnan(tau) else tau
        order = dict(sorted(scores.items(), key=lambda item: (-item[1], item[0])))
        found.append(Sensitivity(rule, with_output, order, tau))
    return found


# ------------------------------------------------------------------ boards as text


def _plain(text: object) -> str:
    """Text from a result file, safe inside one cell of a Markdown table."""
    line = " ".join(str(text).split()).replace("&", "&amp;").replace("<", "&lt;")
    return "".join(f"\\{c}" if c in "\\`*[]{}|$" else c for c in line)


def _range(x: Interval | None, digits: int) -> str:
    if x is None:
        return DASH
    if x.n == 1:
        return number(x.mean, digits)
    return f"{number(x.mean, digits)} ({number(x.low, digits)} to {number(x.high, digits)})"


def _ranks(standing: Standing) -> str:
    if standing.rank is None:
        return DASH
    low, high = standing.rank
    return str(low) if low == high else f"{low} to {high}"


def _remarks(standing: Standing) -> str:
    parts = ["analogue"] if standing.analogue else []
    parts += [f"measured as {_plain(standing.product)}"] if standing.product else []
    parts += ["edited"] if standing.edited else []
    parts += standing.flags
    if standing.status != "ok":
        parts.append(f"{standing.status.replace('_', ' ')}: {_plain(standing.reason)}")
    return "; ".join(parts) or DASH


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [header, ["---"] * len(header), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]


def markdown(board: Board) -> str:
    """The board as a Markdown table, gates first; what could not be scored says why."""
    header = ["Strategy", "Kind", "Category", "RM", "Rank", "Tier"]
    header += ["Forgetting", "Privacy", "Utility", "z C1", "z C2", "z C3", "D"]
    header += ["PrivLeak %", "ToW", "Time / retraining", "Passes / retraining", "Remarks"]
    rows = []
    for s in board.standings:
        mean = lambda found: None if found is None else found.mean
        rows.append(
            [_plain(s.name), s.kind, _plain(s.category)]
            + [_range(s.rm, 1), _ranks(s), s.tier or DASH]
            + [number(mean(axis), 2) for axis in (s.forgetting, s.privacy, s.utility)]
            + [_range(s.position.get(name), 2) for name in POSITIONS]
            + [number(mean(s.divergence), 3)]
            + [number(mean(s.other_scores.get("privleak")), 1)]
            + [number(mean(s.other_scores.get("tug_of_war")), 2)]
            + [number(s.time_ratio, 2), number(s.pass_ratio, 2), _remarks(s)]
        )
    resolved, pairs = board.pairs_resolved
    lines = [
        f"## {_plain(board.workload)}",
        "",
        f"Profile {_plain(board.profile)}, {len(board.seeds)} training seeds; mean "
        "(95 % t interval over seeds). "
        f"{resolved} of {pairs} pairs of strategies are told apart after Holm's "
        "correction.",
        "",
    ]
    for sentence in (what_is_missing(board, _plain), _plain(board.left_aside)):
        lines += [sentence, ""] if sentence else []
    failed = [gate for gate in board.gates if not gate.passed]
    if failed:
        lines.append("**This workload misses its gates; the order below means nothing:**")
        lines.append("")
        for gate in failed:
            why = f" ({_plain(gate.reason)})" if gate.reason else ""
            lines.append(f"- {gate.name}: {number(gate.value, 3)}{why}")
    else:
        lines.append(f"All {len(board.gates)} gates of the workload are met.")
        lines += ["", f"{first_place(board, _plain)}."]
    return "\n".join([*lines, "", *_table(header, rows)]) + "\n"


def csv_text(*boards: Board) -> str:
    """One line per standing and board, numbers unrounded; empty where there is none."""
    intervals = ["rm", "forgetting", "privacy", "utility", "divergence"]
    intervals += [f"position_{name}" for name in POSITIONS] + ["privleak", "tug_of_war"]
    measured = sorted({name for b in boards for s in b.standings for name in s.metrics})
    intervals += measured
    header = ["workload", "profile", "gates_passed", "strategy", "kind", "category"]
    header += ["analogue", "product", "status", "reason"]
    header += ["seeds", "missing_seeds", "seeds_left_out", "rows_left_aside"]
    header += ["rank_low", "rank_high", "tier"]
    header += ["flags", "seconds", "time_ratio", "pass_ratio", "peak_memory_mb"]
    header += ["extra_storage_bytes"]
    header += [f"{name}_{part}" for name in intervals for part in ("mean", "low", "high")]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    for board, s in ((b, s) for b in boards for s in b.standings):
        values = [s.rm, s.forgetting, s.privacy, s.utility, s.divergence]
        values += [s.position.get(name) for name in POSITIONS]
        values += [s.other_scores.get(name) for name in ("privleak", "tug_of_war")]
        values += [s.metrics.get(name) for name in measured]
        writer.writerow(
            [board.workload, board.profile, board.gates_passed]
            + [s.name, s.kind, s.category]
            + [s.analogue, s.product, s.status, s.reason, len(s.seeds)]
            + [
                " ".join(map(str, found))
                for found in (board.missing.get(s.name, ()), board.left_out)
            ]
            + [board.left_aside]
            + [
                *(s.rank or (None, None)),
                s.tier,
                "; ".join(s.flags),
                s.seconds,
                s.time_ratio,
                s.pass_ratio,
            ]
            + [s.peak_memory_mb, s.extra_storage_bytes]
            + [
                part
                for value in values
                for part in ((value.mean, value.low, value.high) if value else (None, None, None))
            ]
        )
    return out.getvalue()


def json_text(*boards: Board) -> str:
    """The boards as a JSON list; numbers are numbers, what is missing is null."""
    found = []
    for b in boards:
        gates = [gate.model_dump(mode="json") for gate in b.gates]
        found.append(asdict(replace(b, gates=[])) | {"gates": gates})
    return json.dumps(found, indent=1, allow_nan=False, ensure_ascii=False) + "\n"


# ------------------------------------------------------------------ the seed board


def seed_table(board: Board, kinds: Sequence[str] = ("strategy",)) -> tuple[list[dict], dict]:
    """The board under the seed's rule: lowest forget accuracy, ties by retain accuracy.

    Args:
        kinds: What competes. The seed board had strategies only; with the controls and
            references in it, the table shows what its rule rewards.

    Returns:
        Rows, best first: Rank, Strategy, Category, Time (s) (median), Forget Loss, Retain
        Loss, Forget Acc, Retain Acc (means over seeds). Those that are not ok at every seed
        follow with None everywhere and a Reason. And the summary: best_unlearning,
        best_utility, fastest (rows, or None if nothing succeeded), total, succeeded, errored,
        not_applicable.
    """
    return _seed_rows(board.of(*kinds))


def _seed_rows(standings: Sequence[Standing]) -> tuple[list[dict], dict]:
    """What `seed_table` returns, of some standings."""
    keys = {
        "Forget Loss": "forget_loss",
        "Retain Loss": "retain_loss",
        "Forget Acc": "forget_accuracy",
        "Retain Acc": "retain_accuracy",
    }
    rows, rest = [], []
    for s in standings:
        reason = f"{s.status.replace('_', ' ')}: {s.reason}"
        if s.status == "ok":
            known = {"forget_accuracy", "retain_accuracy"} <= s.metrics.keys()
            reason = None if known else "its accuracies were not measured"
        measured = s.metrics if reason is None else {}
        row = {"Rank": None, "Strategy": s.name, "Category": s.category}
        row["Time (s)"] = s.seconds if reason is None else None
        for label, name in keys.items():
            row[label] = measured[name].mean if name in measured else None
        row["Reason"] = reason
        (rest if reason else rows).append(row)
    rows.sort(key=lambda r: (round(r["Forget Acc"], 9), -round(r["Retain Acc"], 9), r["Strategy"]))
    for rank, row in enumerate(rows, 1):
        row["Rank"] = rank
    not_applicable = sum(s.status == "not_applicable" for s in standings)
    timed = [row for row in rows if row["Time (s)"] is not None]
    summary = {
        "best_unlearning": rows[0] if rows else None,
        "best_utility": max(rows, key=lambda r: r["Retain Acc"], default=None),
        "fastest": min(timed, key=lambda r: r["Time (s)"], default=None),
        "total": len(rows) + len(rest),
        "succeeded": len(rows),
        "errored": len(rest) - not_applicable,
        "not_applicable": not_applicable,
    }
    return rows + sorted(rest, key=lambda r: r["Strategy"]), summary


def at_home(
    boards: Mapping[str, Board], home: Callable[[str], str]
) -> dict[str, tuple[str, Standing]]:
    """Strategy -> the workload that it is at home on, and its standing there.

    That is the home of its category; of a strategy that has no row of its own method there,
    the first workload on which it has one.

    Args:
        boards: Workload -> board; those of other requests than the standard one do not count.
        home: Category in small letters -> workload.
    """
    shown = standard(boards)
    found: dict[str, tuple[str, Standing]] = {}
    every = [s for board in shown.values() for s in board.of("strategy")]
    for category in dict.fromkeys(s.category for s in every):
        wanted = home(category.lower())
        order = sorted(shown, key=lambda name: name != wanted)
        for workload in order:
            for standing in shown[workload].of("strategy"):
                if standing.category != category:
                    continue
                native = standing.status == "ok" and not standing.analogue
                _, known = found.get(standing.name, (None, None))
                if known is None or (native and (known.status != "ok" or known.analogue)):
                    found[standing.name] = workload, standing
    return found


def seed_markdown(
    board: Board,
    *,
    framework: str = f"erasus_nb {__version__}",
    title: str = "MUSE Benchmark Leaderboard",
    kinds: Sequence[str] = ("strategy",),
) -> str:
    """The board as the seed printed it: header block, criteria, medals, summary.

    Two things are added where they are needed, because the seed had no such rows: the count
    of strategies that do not apply, and a footnote with the reason of each line of dashes.
    """
    rows, summary = seed_table(board, kinds)
    facts, original = board.facts, board["original"].metrics
    base = {
        name: original[name].mean if name in original else None
        for name in ("forget_accuracy", "retain_accuracy")
    }
    data = _plain(facts.get("data", board.workload)).rstrip(".")
    lines = [
        f"# {title}",
        "",
        f"> **Generated**: {board.generated[:16].replace('T', ' ')}  ",
        f"> **Framework**: {framework}  ",
        f"> **Model**: {_plain(facts.get('model', DASH))}  ",
        f"> **Data**: {data} ({facts.get('forget', DASH)} forget / "
        f"{facts.get('retain', DASH)} retain, "
        f"batch={facts.get('batch_size', DASH)})  ",
        f"> **Base Model Accuracy**: Forget {number(base['forget_accuracy'], 4)} / "
        f"Retain {number(base['retain_accuracy'], 4)}  ",
        *_seed_body(rows, summary),
    ]
    return "\n".join(lines) + "\n"


def seed_markdown_at_home(
    boards: Mapping[str, Board],
    home: Callable[[str], str],
    *,
    framework: str = f"erasus_nb {__version__}",
    title: str = "MUSE Benchmark Leaderboard",
) -> str:
    """All strategies in the seed's format, each with its row on the workload it is at home on.

    A column says which. The seed's rule sorts them as it sorts one workload's rows, although
    accuracies of different models and data are no common scale.
    """
    found = at_home(boards, home)
    rows, summary = _seed_rows([standing for _, standing in found.values()])
    shown = [boards[name] for name in dict.fromkeys(name for name, _ in found.values())]
    generated = max((board.generated for board in shown), default="")
    lines = [
        f"# {title}",
        "",
        f"> **Generated**: {generated[:16].replace('T', ' ')}  ",
        f"> **Framework**: {framework}  ",
        f"> **Workloads**: {', '.join(board.workload for board in shown)}  ",
        *_seed_body(rows, summary, {name: workload for name, (workload, _) in found.items()}),
    ]
    return "\n".join(lines) + "\n"


def _seed_body(
    rows: Sequence[Mapping], summary: Mapping, homes: Mapping[str, str] | None = None
) -> list[str]:
    """The seed's lines from the count of strategies on: criteria, table, notes, summary.

    Args:
        homes: Strategy -> workload, for a column more; None leaves it out.
    """
    absent = summary["not_applicable"]
    lines = [
        f"> **Strategies Tested**: {summary['succeeded']} succeeded, "
        f"{summary['errored']} errored"
        + (f", {absent} not applicable" if absent else "")
        + f" (out of {summary['total']} total)",
        "",
        "## Ranking Criteria",
        "",
        "Strategies are ranked by **forget accuracy** (lower = better unlearning), "
        "with ties broken by **retain accuracy** (higher = better utility "
        "preservation).",
        "",
        "## Leaderboard",
        "",
        "| Rank | Strategy | Category | Time (s) | Forget Loss | Retain Loss "
        "| Forget Acc ↓ | Retain Acc ↑ |" + (" Workload |" if homes else ""),
        "|------|----------|----------|----------|-------------|-------------"
        "|--------------|--------------|" + ("----------|" if homes else ""),
    ]
    medals = {1: "🥇 ", 2: "🥈 ", 3: "🥉 "}
    notes = []
    for row in rows:
        rank = row["Rank"]
        mark = ""
        if row["Reason"]:
            notes.append(f"\\* `{row['Strategy']}`: {_plain(row['Reason'])}")
            mark = " \\*"
        cells = [
            DASH if rank is None else f"{medals.get(rank, '')}{rank}",
            f"**{_plain(row['Strategy'])}**{mark}",
            _plain(row["Category"]),
            number(row["Time (s)"], 3),
        ]
        for label in ("Forget Loss", "Retain Loss", "Forget Acc", "Retain Acc"):
            cells.append(number(row[label], 4))
        if homes:
            cells.append(_plain(homes[row["Strategy"]]))
        lines.append("| " + " | ".join(cells) + " |")
    for note in notes:
        lines += ["", note]

    def winner(key: str, label: str, wording: str) -> str:
        row = summary[key]
        return DASH if row is None else f"`{row['Strategy']}` ({wording.format(row[label])})"

    lines += [
        "",
        "## Summary",
        "",
        f"- **Best unlearning**: {winner('best_unlearning', 'Forget Acc', 'Forget Acc: {:.4f}')}",
        f"- **Best utility preservation**: "
        f"{winner('best_utility', 'Retain Acc', 'Retain Acc: {:.4f}')}",
        f"- **Fastest**: {winner('fastest', 'Time (s)', '{:.3f}s')}",
        f"- **Total strategies**: {summary['total']}",
        f"- **Successful runs**: {summary['succeeded']}",
        f"- **Errored**: {summary['errored']}",
    ]
    if absent:
        lines.append(f"- **Not applicable**: {absent}")
    return lines
