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
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path

from scipy.special import stdtr, stdtrit

from . import __version__, metrics, records

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
        status: "ok"; "partial" if some seeds are not ok; else what the seeds are
            (not_applicable, error, diverged; "error" where they differ).
        reason: Why it is not ok; null if it is.
        seeds: Seeds with status ok.
        rm_by_seed: Retrain-Match, 0 to 100.
        rm: Its interval, cut to 0 to 100. None if nothing could be scored.
        forgetting, privacy, utility: The axes F, P and U, 0 to 1.
        position: Signed positions of C1, C2, C3: 1 like the original, 0 like retrained.
        position_by_seed: The same by criterion and seed.
        divergence: Divergence from the retrained models on the forget set, nats.
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


@dataclass(frozen=True)
class Board:
    """All standings on one workload, by RM from the top; what is not ok comes last.

    Args:
        workload, profile, facts: As in the reference document.
        gates: What the workload has to meet for the board to mean anything.
        gates_passed: Whether it meets all of it.
        standings: References and controls included, each with its kind.
        pairs_resolved: (pairs of ranked strategies told apart after Holm, all pairs).
        seeds: Training seeds with a retrained model.
        generated: When the newest of its rows were made, ISO 8601.
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


def _bar(standings: Mapping[str, Standing]) -> Standing | None:
    found = [standings[name] for name in CHEAP_CONTROLS if name in standings]
    scored = [control for control in found if control.rm]
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
        """D: mean divergence from the other seeds' retrained models, nats."""
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
        spread = lambda rows: statistics.stdev(map(self.divergence, rows.values()))
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


def rank_intervals(
    scores: Mapping[str, Mapping[int, float]],
) -> tuple[dict[str, tuple[int, int]], tuple[int, int]]:
    """The ranks that each row may hold, from Holm-corrected paired tests of all pairs.

    Args:
        scores: Row -> seed -> score, higher is better.

    Returns:
        Row -> [1 + rows significantly better, M - rows significantly worse], and
        (pairs told apart, all pairs).
    """
    pairs = list(itertools.combinations(scores, 2))
    tests = [paired(scores[a], scores[b]) for a, b in pairs]
    better, worse = dict.fromkeys(scores, 0), dict.fromkeys(scores, 0)
    resolved = 0
    adjusted = holm([p for _, p, _ in tests])
    for (a, b), (difference, *_), p in zip(pairs, tests, adjusted, strict=True):
        if p < ALPHA:
            above, below = (a, b) if difference > 0 else (b, a)
            resolved += 1
            better[below] += 1
            worse[above] += 1
    ranks = {name: (1 + better[name], len(scores) - worse[name]) for name in scores}
    return ranks, (resolved, len(pairs))


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
    "over-unlearned": "the forget set looks less familiar than to a retrained model",
    "exposes": "the forget set stands out more than in the original",
    "not better than control": "not significantly above the best cheap control",
}

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
    if standing.status not in ("ok", "not_applicable"):
        flags.add("errored")
    done = [row for row in rows if row.status == "ok"]
    if done and _no_op(standing, done, reference["original"]):
        flags.add("no-op")
    if standing.utility and standing.utility.mean < 0.5:
        flags.add("collapsed")
    privacy = standing.position.get("C3")
    if privacy and privacy.high < -0.1:
        flags.add("over-unlearned")
    if privacy and privacy.low > 1:
        flags.add("exposes")
    bar = _bar(reference)
    if standing.kind == "strategy" and standing.rm and bar:
        if not _beats(standing, bar):
            flags.add("not better than control")
    return tuple(flag for flag in FLAGS if flag in flags)


# ------------------------------------------------------------------ gates


def gates(document: records.Document) -> list[records.Gate]:
    """What a workload has to meet before its board means anything.

    The original must have learnt the forget set and the retrained model must not know
    it; the privacy gap must be visible with that many examples; the noise between
    retrained models must leave room to rank; and the score must put retrained, original
    and (where present) random_init where they belong. A request selected by
    memorisation names no concept, so its C2 has no gate. A gate that cannot be computed
    has no value, is not passed, and says why.
    """
    facts = document.facts
    ruler = Ruler.of(document.rows, facts.get("chance", 0.0))
    if not ruler.originals or not ruler.retrained:
        what = "original" if not ruler.originals else "retrained model"
        reason = f"no {what} could be measured"
        return [_gate("references", None, ">=", 1, reason)]

    mean = lambda rows, name: _mean(_value(row, name) for row in rows.values())
    original = {name: mean(ruler.originals, name) for name in POSITIONS}
    retrained = {name: mean(ruler.retrained, name) for name in POSITIONS}

    def gap(name: str) -> float | None:
        if None in (original[name], retrained[name]):
            return None
        return original[name] - retrained[name]

    missing = "it was not measured on the original and the retrained model"
    # Others' models recite and answer less than ours; what can be ranked is a difference.
    published = "published" in facts
    found = [
        _gate("C1 gap", gap("C1"), ">=", 0.2, missing)
        if published
        else _gate("C1 original", original["C1"], ">=", 0.9, missing),
        _retrained_gate(retrained["C1"], mean(ruler.retrained, "verbatim_holdout"), missing),
    ]
    if facts.get("request_kind", "standard") == "standard":
        wanted = 0.1 if published else 0.5
        found.append(_gate("C2 gap", gap("C2"), ">=", wanted, missing))
    found.append(_auc_gate(gap("C3"), facts, missing))

    single = len(ruler.retrained) < 2
    alone = "one seed: there is no second retrained model to compare with"
    worst, floor = ruler.divergence_range
    noise, why = None, alone if single else missing
    if not single and None not in (worst, floor):
        noise = ruler.divergence_noise if "divergence_positions" in facts else floor
    if "divergence_positions" in facts:
        # Two models that were never shown a text differ at every word of it, so their
        # own divergence is large whatever the noise; what ranking needs is a gap that
        # training seeds do not blur.
        gap_in_noise = None if noise is None else (worst - floor) / max(noise, 1e-9)
        found.append(_gate("D gap / its spread over seeds", gap_in_noise, ">=", 5, why))
    else:
        # Retrained models that agree to the last digit leave no noise at all.
        ratio = None if noise is None else worst / max(noise, 1e-9)
        found.append(_gate("D original / D retrained", ratio, ">=", 5, why))

    def rm(rows: Iterable[records.Row]) -> float | None:
        return _mean(ruler.rm(row) for row in rows)

    unscored = "an axis of the score was not measured"
    found += [
        _gate(
            "RM retrained",
            None if single else rm(ruler.retrained.values()),
            ">=",
            90,
            alone if single else unscored,
        ),
        _gate("RM original", rm(ruler.originals.values()), "<=", 5, unscored),
    ]
    fresh = [r for r in document.rows if r.strategy == "random_init" and r.status == "ok"]
    if fresh:
        found.append(_gate("RM random_init", rm(fresh), "<=", 10, unscored))
    return found


def _gate(name: str, value: float | None, sign: str, bound: float, why: str) -> records.Gate:
    wanted = f"{sign} {bound:g}"
    passed = value is not None and (value >= bound if sign == ">=" else value <= bound)
    reason = why if value is None else None
    return records.Gate(
        name=f"{name} {wanted}", value=value, wanted=wanted, passed=passed, reason=reason
    )


def _retrained_gate(verbatim: float | None, unseen: float | None, missing: str) -> records.Gate:
    """The retrained model holds nothing by rote.

    Where the same was measured on text that nobody trained on, which shares its common
    words, that is what it must not exceed.
    """
    if verbatim is None or unseen is None:
        return _gate("C1 retrained", verbatim, "<=", 0.15, missing)
    return _gate("C1 retrained over holdout", verbatim - unseen, "<=", 0.05, missing)


def _auc_gate(gap: float | None, facts: Mapping, missing: str) -> records.Gate:
    """The AUC gap; it counts only if as precise as from 100 against 100 examples."""
    gate = _gate("AUC gap", gap, ">=", 0.15, missing)
    forget, holdout = facts.get("forget"), facts.get("holdout")
    if gap is None or not forget or not holdout:
        return gate
    # Standard error of an AUC of one half; ties and other AUCs only make it smaller.
    error = lambda n, m: math.sqrt((n + m + 1) / (12 * n * m))
    if error(forget, holdout) > error(100, 100):
        reason = f"{forget} against {holdout} examples is less precise than 100 against 100"
        return gate.model_copy(update={"passed": False, "reason": reason})
    return gate


# ------------------------------------------------------------------ boards


def board(documents: Sequence[records.Document]) -> Board:
    """The board of one workload from its documents (reference and categories).

    Raises:
        records.RecordError: the documents are of different workloads, profiles or data;
            a row is there twice; or there is no original or retrained model to measure
            with.
    """
    if not documents:
        raise records.RecordError("no documents to make a board from")
    head = next((d for d in documents if any(r.kind == "retrained" for r in d.rows)), documents[0])
    _check_one_workload(head, documents)
    rows = [row for document in documents for row in document.rows]
    ruler = Ruler.of(rows, head.facts.get("chance", 0.0))
    if not ruler.originals or not ruler.retrained:
        what = "original" if not ruler.originals else "retrained model"
        raise records.RecordError(
            f"{head.profile}/{head.workload}: no {what} was measured; run its reference rows"
        )
    by_name: dict[str, list[records.Row]] = {}
    for row in sorted(rows, key=lambda row: row.seed):
        by_name.setdefault(row.strategy, []).append(row)
    standings = {name: _standing(group, ruler) for name, group in by_name.items()}
    order = sorted(standings.values(), key=_place)

    ranked = [s for s in order if s.kind == "strategy" and s.status == "ok" and s.rm]
    ranks, resolved = rank_intervals({s.name: s.rm_by_seed for s in ranked})
    letters = tiers(ranks)
    found_gates = gates(head)
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
        seeds=tuple(sorted(ruler.retrained)),
        generated=max(document.environment.at for document in documents),
    )


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


def _status(rows: Sequence[records.Row]) -> tuple[str, str | None]:
    bad = [row for row in rows if row.status != "ok"]
    if not bad:
        return "ok", None
    kinds = {row.status for row in bad}
    if len(bad) < len(rows):
        status = "partial"
    else:
        status = kinds.pop() if len(kinds) == 1 else "error"
    reasons = list(dict.fromkeys(row.reason for row in bad))
    if len(reasons) == 1 and len(bad) == len(rows):
        return status, reasons[0]
    seeds = ", ".join(str(row.seed) for row in bad if row.reason == reasons[0])
    more = f" (and {len(reasons) - 1} other reasons)" if len(reasons) > 1 else ""
    return status, f"seeds {seeds}: {reasons[0]}{more}"


def _standing(rows: Sequence[records.Row], ruler: Ruler) -> Standing:
    first, done = rows[0], [row for row in rows if row.status == "ok"]
    status, reason = _status(rows)
    scored = {row.seed: ruler.rm(row) for row in done}
    scored = {seed: rm for seed, rm in scored.items() if rm is not None}
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


def boards(folder: str | Path) -> dict[str, Board]:
    """Workload -> board, for every workload of one results folder.

    Raises:
        records.RecordError: a file cannot be used; it is named.
    """
    return {name: board(found) for name, found in records.load(folder).items()}


# -------------------------------------------------------------- across boards and rules


@dataclass(frozen=True)
class Overall:
    """One strategy over all workloads.

    Args:
        rm: Mean over workloads of its mean RM.
        by_workload: Workload -> mean RM, where it is ok.
        workloads: How many those are.
        rank: Place among the strategies that are ok on every workload, equal scores
            sharing a place; None for the others, and for controls and references.
    """

    name: str
    kind: str
    category: str
    rm: float
    by_workload: dict[str, float]
    workloads: int
    rank: int | None


def overall(boards: Mapping[str, Board]) -> list[Overall]:
    """Mean RM over workloads: ranked rows first, then by number of workloads and RM."""
    scores: dict[str, dict[str, float]] = {}
    known: dict[str, Standing] = {}
    for workload, board in boards.items():
        for standing in board.standings:
            if standing.status == "ok" and standing.rm:
                known.setdefault(standing.name, standing)
                scores.setdefault(standing.name, {})[workload] = standing.rm.mean
    mean = {name: statistics.fmean(found.values()) for name, found in scores.items()}
    everywhere = [
        name
        for name, found in scores.items()
        if len(found) == len(boards) and known[name].kind == "strategy"
    ]
    lines = []
    for name, found in scores.items():
        rank = None
        if name in everywhere:
            rank = 1 + sum(mean[other] > mean[name] + 1e-9 for other in everywhere)
        kind, category = known[name].kind, known[name].category
        lines.append(Overall(name, kind, category, mean[name], found, len(found), rank))
    return sorted(lines, key=lambda x: (x.rank or math.inf, -x.workloads, -round(x.rm, 9), x.name))


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
    # scipy.stats takes as long to import as everything else here, and only this needs
    # it.
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

_DASH = "—"


def _plain(text: object) -> str:
    """Text from a result file, safe inside one cell of a Markdown table."""
    line = " ".join(str(text).split()).replace("&", "&amp;").replace("<", "&lt;")
    return "".join(f"\\{c}" if c in "\\`*[]{}|$" else c for c in line)


def _number(x: float | None, digits: int) -> str:
    return _DASH if x is None else f"{x:z.{digits}f}"


def _range(x: Interval | None, digits: int) -> str:
    if x is None:
        return _DASH
    if x.n == 1:
        return f"{x.mean:z.{digits}f}"
    return f"{x.mean:z.{digits}f} ({x.low:z.{digits}f} to {x.high:z.{digits}f})"


def _ranks(standing: Standing) -> str:
    if standing.rank is None:
        return _DASH
    low, high = standing.rank
    return str(low) if low == high else f"{low} to {high}"


def _remarks(standing: Standing) -> str:
    parts = ["analogue"] if standing.analogue else []
    parts += standing.flags
    if standing.status != "ok":
        parts.append(f"{standing.status.replace('_', ' ')}: {_plain(standing.reason)}")
    return "; ".join(parts) or _DASH


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [header, ["---"] * len(header), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]


def markdown(board: Board) -> str:
    """The board as a Markdown table, gates first; what could not be scored says why."""
    header = ["Strategy", "Kind", "Category", "RM", "Rank", "Tier"]
    header += ["Forgetting", "Privacy", "Utility", "z C1", "z C2", "z C3", "D (nats)"]
    header += ["PrivLeak %", "ToW", "Time / retraining", "Passes / retraining", "Remarks"]
    rows = []
    for s in board.standings:
        mean = lambda found: None if found is None else found.mean
        rows.append(
            [_plain(s.name), s.kind, _plain(s.category)]
            + [_range(s.rm, 1), _ranks(s), s.tier or _DASH]
            + [_number(mean(axis), 2) for axis in (s.forgetting, s.privacy, s.utility)]
            + [_range(s.position.get(name), 2) for name in POSITIONS]
            + [_number(mean(s.divergence), 3)]
            + [_number(mean(s.other_scores.get("privleak")), 1)]
            + [_number(mean(s.other_scores.get("tug_of_war")), 2)]
            + [_number(s.time_ratio, 2), _number(s.pass_ratio, 2), _remarks(s)]
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
    failed = [gate for gate in board.gates if not gate.passed]
    if failed:
        lines.append("**This workload misses its gates; the order below means nothing:**")
        lines.append("")
        for gate in failed:
            why = f" ({_plain(gate.reason)})" if gate.reason else ""
            lines.append(f"- {gate.name}: {_number(gate.value, 3)}{why}")
    else:
        lines.append(f"All {len(board.gates)} gates of the workload are met.")
    return "\n".join([*lines, "", *_table(header, rows)]) + "\n"


def csv_text(*boards: Board) -> str:
    """One line per standing and board, numbers unrounded; empty where there is none."""
    intervals = ["rm", "forgetting", "privacy", "utility", "divergence_nats"]
    intervals += [f"position_{name}" for name in POSITIONS] + ["privleak", "tug_of_war"]
    measured = sorted({name for b in boards for s in b.standings for name in s.metrics})
    intervals += measured
    header = ["workload", "profile", "gates_passed", "strategy", "kind", "category"]
    header += ["analogue", "status", "reason", "seeds", "rank_low", "rank_high", "tier"]
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
            + [s.analogue, s.status, s.reason, len(s.seeds), *(s.rank or (None, None))]
            + [s.tier, "; ".join(s.flags), s.seconds, s.time_ratio, s.pass_ratio]
            + [s.peak_memory_mb, s.extra_storage_bytes]
            + [
                number
                for value in values
                for number in ((value.mean, value.low, value.high) if value else (None, None, None))
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
        Rows, best first: Rank, Strategy, Category, Time (s) (median), Forget Loss,
            Retain
        Loss, Forget Acc, Retain Acc (means over seeds). Those that are not ok at every
        seed follow with None everywhere and a Reason. And the summary: best_unlearning,
        best_utility, fastest (rows, or None if nothing succeeded), total, succeeded,
        errored, not_applicable.
    """
    keys = {
        "Forget Loss": "forget_loss",
        "Retain Loss": "retain_loss",
        "Forget Acc": "forget_accuracy",
        "Retain Acc": "retain_accuracy",
    }
    rows, rest = [], []
    for s in board.of(*kinds):
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
    not_applicable = sum(s.status == "not_applicable" for s in board.of(*kinds))
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


def seed_markdown(
    board: Board,
    *,
    framework: str = f"erasus_nb {__version__}",
    title: str = "MUSE Benchmark Leaderboard",
    kinds: Sequence[str] = ("strategy",),
) -> str:
    """The board as the seed printed it: header block, criteria, medals, summary.

    Two things are added where they are needed, because the seed had no such rows: the
        count
    of strategies that do not apply, and a footnote with the reason of each line of
    dashes.
    """
    rows, summary = seed_table(board, kinds)
    facts, original = board.facts, board["original"].metrics
    base = {
        name: original[name].mean if name in original else None
        for name in ("forget_accuracy", "retain_accuracy")
    }
    absent = summary["not_applicable"]
    data = _plain(facts.get("data", board.workload)).rstrip(".")
    lines = [
        f"# {title}",
        "",
        f"> **Generated**: {board.generated[:16].replace('T', ' ')}  ",
        f"> **Framework**: {framework}  ",
        f"> **Model**: {_plain(facts.get('model', _DASH))}  ",
        f"> **Data**: {data} ({facts.get('forget', _DASH)} forget / "
        f"{facts.get('retain', _DASH)} retain, "
        f"batch={facts.get('batch_size', _DASH)})  ",
        f"> **Base Model Accuracy**: Forget {_number(base['forget_accuracy'], 4)} / "
        f"Retain {_number(base['retain_accuracy'], 4)}  ",
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
        "| Forget Acc ↓ | Retain Acc ↑ |",
        "|------|----------|----------|----------|-------------|-------------"
        "|--------------|--------------|",
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
            _DASH if rank is None else f"{medals.get(rank, '')}{rank}",
            f"**{_plain(row['Strategy'])}**{mark}",
            _plain(row["Category"]),
            _number(row["Time (s)"], 3),
        ]
        for label in ("Forget Loss", "Retain Loss", "Forget Acc", "Retain Acc"):
            cells.append(_number(row[label], 4))
        lines.append("| " + " | ".join(cells) + " |")
    for note in notes:
        lines += ["", note]

    def winner(key: str, label: str, wording: str) -> str:
        row = summary[key]
        return _DASH if row is None else f"`{row['Strategy']}` ({wording.format(row[label])})"

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
    return "\n".join(lines) + "\n"
