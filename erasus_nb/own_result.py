"""What strategies made of a classifier of one's own: tables, picture, sentences, models.

What the numbers cannot say stands beside them, and what makes them noise stands above.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from markupsafe import escape
from torch import Tensor, nn

from . import charts, records, score
from .own_bench import REDRAWN, UNCHOSEN, UNVALIDATED, OwnBench
from .parameters import ParameterError
from .strategy import settings_of
from .tables import DASH, number, table
from .training import clone
from .workloads.classifier.own import CLASSIFIERS, OwnClassifier

_SCORES = "RM", "F", "P", "U", "z C1", "z C2", "z C3"
#: Kinds of rows, in the order in which they are printed.
_KINDS = "original", "retrained", "strategy", "control"
#: What must differ for a trace of the forget set to be seen, and by how much.
_TRACES = {"C1": 0.2, "C2": 0.1, "C3": score.AUC_GAP}
_UNSEEN = "holdout", "test", "validation"
_WHERE = {
    "training": "training data",
    "retain": "retain set",
    "holdout": "holdout",
    "test": "test data",
}
#: Parts of the data that should not share an example with others, and what it means if they do.
_COPIES = (
    ("holdout", "training", "so they do not show whether membership still shows"),
    ("test", "training", "so they do not show what the model can do with unseen examples"),
    ("validation", "training", "so a strategy that tunes itself on them is misled"),
    ("validation", "holdout", "so a strategy that tunes itself has seen what C3 is measured on"),
    ("validation", "test", "so a strategy that tunes itself has seen what C4 is measured on"),
    ("forget", "retain", "so retrained models were trained on them, too"),
)
#: Where they share examples, retrained models saw some of the forget set or the holdout.
_SEEN_BY_RETRAINED = ("holdout", "training"), ("forget", "retain")
#: With so many classes, an untrained network is often right.
_FEW_CLASSES = 5
#: Gates of a board -> what they ask for, in words.
_ASKED = {
    "C1 gap": "original and retrained models to differ by at least 0.2 in accuracy on the forget "
    "set (here {})",
    "AUC gap": "original and retrained models to differ by at least 0.15 in the AUC (here {})",
    "D gap / its spread over seeds": "the answers of original and retrained models to differ at "
    "least 5 times as much as chance moves them from seed to seed (here {})",
    "RM retrained": "retrained models to score at least 90 (here {})",
    "RM original": "the original to score at most 5 (here {})",
    "RM random_init": "a network with new, untrained weights to score at most 10 (here {})",
}
#: What flags mean where there is no retrained model to compare with; see score.FLAGS for the rest.
_FLAGS_ALONE = {
    "no-op": "no weight changed",
    "collapsed": "over half of what the original knew beyond the most frequent class is lost",
    "forgets what stays": "right on the retain set less often than the original, by over 0.1",
    "over-unlearned": "the AUC is below 0.5, by over two standard errors",
    "exposes": "the AUC is above the original's, by over two standard errors",
}
_MEASURES = {
    "forget": "forget_accuracy",
    "retain": "retain_accuracy",
    "unseen": "C4",
    "AUC": "C3",
}


@dataclass(frozen=True)
class Line:
    """One model or strategy, as means over the training seeds.

    Args:
        name, kind: As in the rows; kind is original, retrained, control or strategy.
        label: The name, with what a reader must know beside it.
        status: ok, partial, not_applicable, error or diverged; and the reason where not ok.
        scores: RM, F, P, U and the positions z of C1, C2 and C3, where there are any.
        measures: Accuracy on the forget set, the retain set and unseen examples, 0 to 1; and the
            AUC of the loss, forget set against holdout.
        interval: 95 % t interval of RM over the seeds; None for a single seed.
        cost: Mean time of a run, in words: a multiple of retraining's, where that is known, or
            else in seconds; of retraining, both.
        flags: What to beware of; of score.FLAGS.
    """

    name: str
    kind: str
    label: str
    status: str
    reason: str | None
    scores: dict[str, float]
    measures: dict[str, float]
    cost: str
    flags: tuple[str, ...]
    interval: tuple[float, float] | None = None

    @property
    def score(self) -> str:
        """Retrain-Match with its interval, for a table."""
        mean = number(self.scores.get("RM"), 1)
        if self.interval is None:
            return mean
        return f"{mean} ({number(self.interval[0], 0)} to {number(self.interval[1], 0)})"


@dataclass(repr=False)
class Result:
    """What strategies made of a classifier of one's own.

    Attributes:
        mine: The own.Classifier.
        bench: The bench that ran them.
        functions: The strategies.
        reference: Rows of original, retrained models and controls.
        rows: The strategies' rows, one for each and every training seed.
        settings: Strategy -> its settings that differ from the defaults.
    """

    mine: Any
    bench: OwnBench
    functions: list[Callable]
    reference: records.Document
    rows: list[records.Row]
    settings: Mapping[str, Mapping[str, Any]]

    @cached_property
    def board(self) -> score.Board | None:
        """The board; None where there is no retrained model to score against."""
        if not self.bench.own.material.compares:
            return None
        try:
            return score.board(
                [
                    self.reference,
                    self.reference.model_copy(update={"category": "own", "rows": self.rows}),
                ]
            )
        except records.RecordError:  # the original or the retrained model diverged
            return None

    @cached_property
    def lines(self) -> list[Line]:
        """Original, retrained models, strategies, controls.

        Strategies come in the order of their scores where a board would rank them, or else in
        the order in which they were run.
        """
        found: dict[str, list[records.Row]] = {}
        for row in (*self.reference.rows, *self.rows):
            found.setdefault(row.strategy, []).append(row)
        if self.board is not None:
            lines = [_line_of(standing) for standing in self.board.standings]
        else:
            before = _means([row for row in found["original"] if row.status == "ok"])
            lines = [_line_alone(rows, before, self.bench.own) for rows in found.values()]
        places = {name: place for place, name in enumerate(found)}

        def order(line: Line) -> tuple:
            rm = line.scores.get("RM") if self.ranked and line.kind == "strategy" else 0.0
            return _KINDS.index(line.kind), math.inf if rm is None else -rm, places[line.name]

        return sorted(lines, key=order)

    @cached_property
    def _failed(self) -> list[records.Gate]:
        """What a board of the book asks for and does not find here; of what can be told."""
        gates = () if self.board is None else self.board.gates
        return [gate for gate in gates if gate.reason is None and not gate.passed]

    @property
    def ranked(self) -> bool:
        """Whether the order of the scores means anything: several seeds, and no gate failed."""
        return self.board is not None and len(self.board.seeds) > 1 and not self._failed

    def _gap(self, criterion: str) -> tuple[float, float] | None:
        """A criterion of the original and of retrained models."""
        mean = lambda kind: getattr(self.board[kind].metrics.get(criterion), "mean", None)
        values = mean("original"), mean("retrained")
        return None if None in values else values

    @property
    def _traceless(self) -> bool:
        """Whether original and retrained models hardly differ in anything that is measured."""
        if self.board is None:
            return False
        gaps = {c: self._gap(c) for c in _TRACES}
        return all(v is None or abs(v[0] - v[1]) < _TRACES[c] for c, v in gaps.items())

    @property
    def _noise(self) -> str | None:
        """Why the scores mean nothing; None where they may mean something."""
        if self._traceless:
            count = len(self.bench.own.material.forget)
            these = "This one example leaves" if count == 1 else f"These {count} examples leave"
            scores = " The scores below are noise." if self.scored else ""
            return (
                f"{these} hardly a trace that this test can see: original and retrained models "
                f"differ too little.{scores}"
            )
        if not self.scored:
            return None
        if any(gate.name.startswith(("RM original", "RM retrained")) for gate in self._failed):
            rm = lambda kind: number(self[kind].scores.get("RM"), 1)
            return (
                "The scale does not hold here: the original should score near 0 and retrained "
                f"models near 100, and they score {rm('original')} and {rm('retrained')}. The "
                "scores below are noise."
            )
        return None

    @cached_property
    def first(self) -> list[str]:
        """What to know before any number is read, a sentence each."""
        m, said = self.bench.own.material, self._about_copies() + self._about_holdout()
        if noise := self._noise:
            said.append(noise)
        if self.board is not None and m.test is not None and not self.scored:
            said.append(self._unscored())
        elif self._failed and not noise:
            said.append(f"The scores below are no ranking. {self._about_gates()[0]}")
        return said

    @cached_property
    def _copies(self) -> dict[tuple[str, str], tuple[int, int]]:
        """Two parts of _COPIES -> examples of the first that are in the second, and of how many."""
        m, found = self.bench.own.material, {}
        stays = torch.ones(len(m.labels), dtype=torch.bool)
        stays[m.forget] = False
        parts = {
            "forget": m.inputs[m.forget],
            "retain": m.inputs[stays],
            **{k: pair[0] for k in _UNSEEN if (pair := getattr(m, k)) is not None},
        }
        numbers = {k: _numbers(part) for k, part in parts.items()}
        known = {k: set(each) for k, each in numbers.items()}
        known["training"] = known["forget"] | known["retain"]
        for some, others, _ in _COPIES:
            if some in numbers and others in known:
                shared = sum(each in known[others] for each in numbers[some])
                found[some, others] = shared, len(numbers[some])
        return found

    def _about_copies(self) -> list[str]:
        """Examples that stand in two parts of the data, number for number."""
        said = []
        for some, others, therefore in _COPIES:
            shared, count = self._copies.get((some, others), (0, 0))
            if shared:
                said.append(
                    f"{shared} of {count} {some} examples are in the {_WHERE[others]}, too, "
                    f"{therefore}."
                )
        return said

    def _about_holdout(self) -> list[str]:
        """A holdout that models which saw neither tell from the forget set."""
        m, gap = self.bench.own.material, None if self.board is None else self._gap("C3")
        seen = any(self._copies.get(k, (0, 0))[0] for k in _SEEN_BY_RETRAINED)
        if gap is None or m.holdout is None or seen:
            return []
        if abs(gap[1] - 0.5) <= 2 * score.auc_error(len(m.forget), len(m.holdout[1])):
            return []
        which, why = "which saw neither", "the holdout is not like the forget set"
        if "retrained" in m.states:
            which, why = "which should have seen neither", f"{why}, or they saw one of the two"
        return [
            f"Retrained models, {which}, tell the forget set from the holdout (AUC "
            f"{number(gap[1])}, expected about 0.5): {why}, so AUC, P and z C3 do not measure "
            "membership."
        ]

    def __getitem__(self, name: str) -> Line:
        for line in self.lines:
            if line.name == name:
                return line
        raise KeyError(f"no {name!r} here; there are {', '.join(line.name for line in self.lines)}")

    @property
    def flags(self) -> dict[str, tuple[str, ...]]:
        """Strategy -> its flags."""
        return {f.__name__: self[f.__name__].flags for f in self.functions}

    def model(self, name: str, seed: int = 0) -> nn.Module:
        """The model that a strategy made, in eval mode; it is the caller's to change.

        The bench keeps the models of the first seeds. Another is made again, in the same way.

        Args:
            name: A strategy; or "retrained", the model trained (or given) without the forget set.
            seed: Training seed.

        Raises:
            KeyError: no such strategy was run at this seed, or it made no model.
        """
        functions = {f.__name__: f for f in self.functions}
        compares = self.bench.own.material.compares
        if name == "retrained" and compares:
            if seed not in self.bench.seeds:
                seeds = ", ".join(map(str, self.bench.seeds))
                raise KeyError(f"no seed {seed!r} here; there are {seeds}")
            return self.bench.own.load(self.bench.retrained()[seed])
        if name not in functions:
            names = [*functions, *(["retrained"] if compares else [])]
            raise KeyError(f"no strategy {name!r} here; there are {', '.join(names)}")
        rows = {row.seed: row for row in self.rows if row.strategy == name}
        if seed not in rows:
            raise KeyError(f"no seed {seed!r} here; there are {', '.join(map(str, rows))}")
        row = rows[seed]
        kept = self.bench._models.get(row.key)
        if kept is None and row.status in ("error", "not_applicable"):
            raise KeyError(f"{name} made no model at seed {seed}: {row.reason}")
        if kept is None:
            # Not the row's settings: as JSON has them, a tuple is a list.
            full = {**settings_of(functions[name]), **self.settings.get(name, {})}
            made = self.bench.unlearn(functions[name], seed, full)[0]
            kept = self.bench.product_of(functions[name], made)
        return clone(kept).eval()

    # ---- the picture

    @property
    def scored(self) -> bool:
        """Whether anything has a Retrain-Match, and so a position to draw."""
        return any(line.scores.get("RM") is not None for line in self.lines)

    def picture(self) -> charts.Chart:
        """Where each strategy and control ends between original and retrained.

        Raises:
            ParameterError: there is no position to draw.
        """
        if not self.scored:
            known = self.board is not None and self.bench.own.material.test is not None
            why = self._unscored() if known else " ".join(self.missing)
            raise ParameterError(f"there is no position to draw: {why}")
        return charts.positions(self.board, names=[f.__name__ for f in self.functions])

    # ---- sentences

    @property
    def sentence(self) -> str:
        """What the numbers say, and what they cannot say."""
        return " ".join([*self.first, *self.says, *self.missing, *self.limits])

    @property
    def says(self) -> list[str]:
        """What was found, a sentence for each strategy that has a result."""
        before = self["original"].measures
        if not before:
            return [f"The original could not be measured: {self['original'].reason}."]
        mine = [line for line in self.lines if line.kind == "strategy" and line.measures]
        if not mine:
            return ["No strategy has a result."]
        scored = [line for line in mine if line.scores.get("RM") is not None]
        if not scored or self._noise:
            return self._answers(mine)
        every = score.listed((f"{line.name} {number(line.scores['RM'], 1)}" for line in scored), 6)
        return [
            "Retrain-Match says how near the answers are to a model's that never saw the forget "
            f"set, from 0 (like the original) to 100 (like retrained): "
            f"{'; '.join([every, *self._beside(scored)])}."
        ]

    def _beside(self, lines: Sequence[Line]) -> list[str]:
        """What controls have, beside strategies that have a score."""
        said, bar = [], self.board.bar
        rm = {line.name: line.scores.get("RM") for line in self.lines}
        if bar:
            cheap = ", ".join(name for name in score.CHEAP_CONTROLS if rm.get(name) is not None)
            said.append(
                f"{bar.name}, the best of the cheap controls ({cheap}), has "
                f"{number(bar.rm.mean, 1)}"
            )
        if (stopped := rm.get("partial_retrain")) is not None:
            above = all(stopped > line.scores["RM"] for line in lines)
            which = {1: "the strategy", 2: "both strategies"}.get(len(lines), "all strategies")
            said.append(
                "retraining that is stopped early (partial_retrain) has "
                f"{number(stopped, 1)}{f', above {which}' if above else ''}"
            )
        return said

    def _answers(self, lines: Sequence[Line]) -> list[str]:
        """How often strategies are right, where no score says more; and what is to be expected."""
        m, others = self.bench.own.material, [self["original"]]
        others += [line for line in self.lines if line.kind == "retrained" and line.measures]
        beside = lambda what: ", ".join(
            f"{line.kind} {number(line.measures[what])}" for line in others
        )
        said = [
            f"{line.name} is right on {number(line.measures['forget'])} of the forget set "
            f"({beside('forget')}) and on {number(line.measures['retain'])} of the retain set "
            f"({beside('retain')})."
            for line in lines
        ]
        if len(others) == 1:
            stays = torch.ones(len(m.labels), dtype=torch.bool)
            stays[m.forget] = False
            if torch.isin(m.labels[m.forget], m.labels[stays]).any():
                said.append(
                    "A model that never saw the forget set is right on about as many of it as of "
                    "unseen examples like these: for examples drawn at random, near 1 is no "
                    "failure."
                )
            else:
                said.append("A model that never saw these classes is right on none of them.")
        return said

    @property
    def notes(self) -> list[str]:
        """What strategies had to do without, a sentence each."""
        said = []
        for note in (REDRAWN, UNVALIDATED):
            rows = (*self.rows, *self.reference.rows)
            names = dict.fromkeys(row.strategy for row in rows if note in row.departures)
            said += [f"{name}: {note}." for name in names]
        return said

    @property
    def key(self) -> list[str]:
        """What the columns and flags of the tables mean, and why a column is empty."""
        said, scored = [], any(line.scores for line in self.lines)
        if scored:
            several = ", with its 95 % interval over the seeds" if len(self.bench.seeds) > 1 else ""
            said.append(
                f"RM: Retrain-Match, 0 like the original, 100 like retrained models{several}. F, "
                "P, U: its parts forgetting, privacy and utility, 0 to 1. z: position, 1 like the "
                "original, 0 like retrained models, below 0 beyond them; in C1 (accuracy on the "
                "forget set), C2 (accuracy on unseen examples of a forgotten class) and C3 (AUC)."
            )
            said += [f"z {c} is empty: {why}." for c, why in self._empty_positions().items()]
        said.append(
            "forget, retain, unseen: accuracy on the forget set, the retain set and the test data"
            "; AUC: how well the loss tells the forget set from the holdout, 0.5 is not at all. "
            f"{DASH}: not known."
        )
        used = {flag for line in self.lines for flag in line.flags}
        meanings = score.FLAGS if scored else {**score.FLAGS, **_FLAGS_ALONE}
        flags = [f'"{flag}", {meanings[flag]}' for flag in score.FLAGS if flag in used]
        if flags:
            beside = "retrained models" if scored else "the original, for want of retrained models"
            said.append(f"Flags here compare with {beside}: {'; '.join(flags)}.")
        if scored and any(line.kind == "strategy" for line in self.lines):
            rms = [line.scores.get("RM") for line in self.lines if line.kind == "strategy"]
            ranks = self.ranked and any(rm is not None for rm in rms)
            by = "of their Retrain-Match" if ranks else "in which they ran: no ranking"
            said.append(f"Strategies come in the order {by}; controls come after them.")
        return said

    def _empty_positions(self) -> dict[str, str]:
        found = {}
        for criterion in score.POSITIONS:
            if any(line.scores.get(f"z {criterion}") is not None for line in self.lines):
                continue
            rows = [row for row in self.reference.rows if row.kind == "original"]
            reasons = [row.metrics[criterion].reason for row in rows if criterion in row.metrics]
            alike = "original and retrained models do not differ in it"
            found[criterion] = next((why for why in reasons if why), alike)
        return found

    @property
    def missing(self) -> list[str]:
        """What was not given, and what is therefore not known, a sentence each."""
        m, said = self.bench.own.material, []
        if not m.compares:
            said.append(
                "No retrained model: how near a strategy comes to a model that never saw the "
                "forget set is not known, so there is no Retrain-Match and no position, and flags "
                "compare with the original alone; give recipe to train one here, or retrained."
            )
        elif self.board is None:
            said.append(
                "No original, or no retrained model, could be measured, so nothing is scored."
            )
        if m.holdout is None:
            rests = ", and privacy rests on the answers to the forget set alone"
            said.append(
                "No holdout: whether the forget set still stands out from examples that were "
                f"never trained on (C3) is not known{rests if m.compares else ''}."
            )
        if m.test is None:
            score_too = ", so there is no Retrain-Match" if m.compares else ""
            said.append(f"No test data: what the model can still do is not known{score_too}.")
        return said

    def _unscored(self) -> str:
        """Why nothing has a score although everything was given."""
        if any(line.scores["U"] is not None for line in self.lines):
            return (
                "Original and retrained models are alike on the forget set, so there is nothing to "
                "score, and no Retrain-Match."
            )
        if not len(self.bench.asked.utility):
            return (
                "All test data are of a forgotten class, so what the model can still do is not "
                "known: no Retrain-Match."
            )
        m, before = self.bench.own.material, number(self["original"].measures.get("unseen"))
        elsewhere = "original" in m.states and "retrained" not in m.states
        asked = " Does recipe say how the original was trained?" if elsewhere else ""
        return (
            "The retrained models are right on no more of the test data than the most frequent "
            f"class would be (original {before}), so what strategies keep cannot be scored: no "
            f"Retrain-Match.{asked}"
        )

    @property
    def limits(self) -> list[str]:
        """What the numbers cannot say, a sentence each."""
        m, said = self.bench.own.material, []
        if len(self.bench.seeds) == 1:
            itself = " and the retrained model is compared with itself (its 100 says nothing)"
            said.append(
                f"One training seed: there is no interval{itself if m.compares else ''}, and "
                "chance alone may have put one row above another."
            )
        elif "original" in m.states:
            said.append(
                "All seeds have the same original, so intervals do not hold the spread of originals."
            )
        said += self._about_data() + (self._about_gaps() if self.board is not None else [])
        if "original" in m.states and m.trains and "retrained" not in m.states:
            said.append(
                "The original was trained elsewhere, so it may differ from the models retrained "
                "here by more than the forget set."
            )
        said += self._about_settings()
        if self.mine.assumed:
            said.append(
                f"No recipe was given: {'models and ' if m.trains else ''}controls go by AdamW, "
                f"step size {m.recipe.lr:g} and {m.recipe.epochs} epochs."
            )
        said.append(
            "No number here proves that the data are gone; a stronger attack may find them."
        )
        return said

    def _about_settings(self) -> list[str]:
        """Who chose the settings of the strategies that have a result."""
        chosen: dict[str, list[str]] = {}
        for row in self.rows:
            names = chosen.setdefault(row.settings_chosen_by, [])
            if row.strategy not in names and self[row.strategy].measures:
                names.append(row.strategy)
        said = []
        for by, names in chosen.items():
            if by == UNCHOSEN and names:
                said.append(
                    f"Settings are the defaults of {score.listed(names)}; nothing was tuned on "
                    "this model. The scores on this book's front page are of tuned settings, so "
                    f'they do not carry over; settings=own.tuned("{CLASSIFIERS[0]}") gives such a '
                    "start."
                )
            elif by.startswith("chosen on the workload") and names:
                said.append(
                    f"Settings of {score.listed(names)} were {by}: others may suit it better."
                )
        return said

    def _about_data(self) -> list[str]:
        """What is to be said of the examples themselves."""
        m, said = self.bench.own.material, []
        if m.holdout is not None:
            forget, holdout = len(m.forget), len(m.holdout[1])
            twice = 2 * score.auc_error(forget, holdout)
            if twice > 0.1:
                said.append(
                    f"The AUC of {forget} against {holdout} examples is uncertain by "
                    f"{number(twice)} (two standard errors)."
                )
        before = self["original"].measures
        if before and before["retain"] < 1 / m.classes + 0.1:
            advice = "a recipe that trains it longer may help"
            if "original" in m.states:
                advice = "if it is not trained, give a function that makes it"
            said.append(
                f"The original is right on only {number(before['retain'])} of the retain set; "
                f"{advice}."
            )
        return said

    def _about_gaps(self) -> list[str]:
        """Where original and retrained hardly differ, a position means little."""
        said = []
        for criterion, bound in _TRACES.items():
            values = self._gap(criterion)
            if values is not None and abs(values[0] - values[1]) < bound:
                said.append(f"{criterion} ({number(values[0])} and {number(values[1])})")
        hardly = (
            f"Original and retrained hardly differ in {score.listed(said)}, so what these add to "
            "score and position is mostly noise."
        )
        return ([hardly] if said else []) + (self._about_gates() if self._noise else [])

    def _about_gates(self) -> list[str]:
        """Conditions that a board of the book has to meet, and this one does not, in words."""
        failed = []
        for gate in self._failed:
            measure = next(name for name in _ASKED if gate.name.startswith(f"{name} "))
            found = number(gate.value)
            if measure.startswith("D gap"):
                found = f"{found} times" if gate.value >= 1 else "no more than chance does"
            failed.append(_ASKED[measure].format(found))
        if not failed:
            return []
        said = f"A board of this book would not rank these rows: it asks for {'; '.join(failed)}."
        untrained = any(gate.name.startswith("RM random_init ") for gate in self._failed)
        if untrained and self.bench.own.material.classes <= _FEW_CLASSES:
            said += (
                " With few classes an untrained network is right by chance about as often; a "
                "larger forget set or more seeds make this steadier."
            )
        return [said]

    # ---- as text

    def _tables(self) -> list[tuple[list[str], list[list[str]]]]:
        """Columns and rows: of the scores, where there are any, and of what was measured."""
        lines = [line for line in self.lines if line.measures]
        flags = [", ".join(line.flags) or DASH for line in lines]
        measured = [
            [line.label, *(number(line.measures.get(name)) for name in _MEASURES), line.cost]
            for line in lines
        ]
        columns = ["row", *_MEASURES, "time"]
        if not any(line.scores for line in lines):
            return [([*columns, "flags"], [[*m, f] for m, f in zip(measured, flags)])]
        scored = [
            [line.label, line.score, *(number(line.scores.get(name)) for name in _SCORES[1:]), f]
            for line, f in zip(lines, flags)
        ]
        tables = [(["row", *_SCORES, "flags"], scored), (columns, measured)]
        return tables[::-1] if self._noise else tables  # what was measured holds in any case

    @property
    def head(self) -> str:
        """Which model, how many examples and seeds, in one line."""
        m, load, seeds = self.bench.own.material, self.bench.own, len(self.bench.seeds)
        parts = [f"forget {load.asked.sentence}"]
        for what in ("holdout", "test"):
            pair = getattr(m, what)
            parts.append(f"{what} {len(pair[1])}" if pair else f"no {what}")
        return (
            f"{load.model_text}: {', '.join(parts)}; {seeds} training "
            f"seed{'s' if seeds > 1 else ''}."
        )

    def _without_result(self) -> list[str]:
        return [
            f"{line.name}: {line.status.replace('_', ' ')}: {line.reason}"
            for line in self.lines
            if line.status != "ok"
        ]

    def __str__(self) -> str:
        parts = [self.head, *self.first]
        parts += [_aligned(*each) for each in self._tables()]
        parts += ["\n".join(self.key)]
        beside = [*self._without_result(), *self.notes]
        parts += ["\n".join(beside)] if beside else []
        cannot = [f"- {line}" for line in (*self.missing, *self.limits)]
        parts += [" ".join(self.says), "\n".join(["What these numbers cannot say:", *cannot])]
        return "\n\n".join(parts)

    __repr__ = __str__  # or a notebook would keep the data themselves beside the table

    def _repr_html_(self) -> str:
        strong = {line.label for line in self.lines if line.kind == "strategy"}
        tables = "".join(table(*each, strong) for each in self._tables())
        paragraphs = lambda lines: "".join(f"<p>{escape(line)}</p>" for line in lines)
        before = "".join(f"<p><strong>{escape(line)}</strong></p>" for line in self.first)
        absent = paragraphs([*self._without_result(), *self.notes])
        key = f"<small>{paragraphs(self.key)}</small>"
        cannot = "".join(f"<li>{escape(line)}</li>" for line in (*self.missing, *self.limits))
        return (
            f"<p>{escape(self.head)}</p>{before}{tables}{key}{absent}"
            f"<p>{escape(' '.join(self.says))}</p>"
            f"<p>What these numbers cannot say:</p><ul>{cannot}</ul>"
        )


def _aligned(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in plain text; all but the first column and flags stand to the right."""
    widths = [max(map(len, column)) for column in zip(columns, *rows)]
    left = {0, *(k for k, name in enumerate(columns) if name == "flags")}
    return "\n".join(
        "  ".join(
            cell.ljust(width) if k in left else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(line, widths))
        ).rstrip()
        for line in (columns, *rows)
    )


def _label(name: str, kind: str) -> str:
    return f"{name} (control)" if kind == "control" else name


def _line_of(standing: score.Standing) -> Line:
    """A standing of a board as a line."""
    mean = lambda found: None if found is None else found.mean
    scores = {
        "RM": mean(standing.rm),
        "F": mean(standing.forgetting),
        "P": mean(standing.privacy),
        "U": mean(standing.utility),
        **{f"z {name}": mean(standing.position.get(name)) for name in score.POSITIONS},
    }
    measures = {
        name: standing.metrics[key].mean
        for name, key in _MEASURES.items()
        if key in standing.metrics
    }
    return Line(
        standing.name,
        standing.kind,
        _label(standing.label, standing.kind),
        standing.status,
        standing.reason,
        scores,
        measures,
        _cost(standing.seconds, standing.time_ratio, both=standing.kind == "retrained"),
        standing.flags,
        (standing.rm.low, standing.rm.high) if standing.rm and standing.rm.n > 1 else None,
    )


def _cost(seconds: float | None, ratio: float | None, both: bool = False) -> str:
    if ratio and seconds and both:
        took = number(seconds) if seconds >= 0.01 else "under 0.01"
        return f"{took} s ({number(ratio)} x retraining)"
    if ratio:
        return f"{number(ratio)} x retraining"
    return f"{number(seconds)} s" if seconds else DASH


def _line_alone(
    rows: Sequence[records.Row], original: Mapping[str, float], workload: OwnClassifier
) -> Line:
    """The rows of one name where there is no retrained model: compared with the original.

    Args:
        original: What was measured on the original; nothing, if that failed.
    """
    done, first = [row for row in rows if row.status == "ok"], rows[0]
    bad = next((row for row in rows if row.status != "ok"), None)
    measures = _means(done)
    seconds = [row.cost.seconds for row in done if row.cost]
    return Line(
        first.strategy,
        first.kind,
        _label(_noted(first), first.kind),
        "ok" if bad is None else ("partial" if done else bad.status),
        bad.reason if bad else None,
        {},
        measures,
        _cost(sum(seconds) / len(seconds) if seconds else None, None),
        _flags_alone(done, measures, original, workload) if done and original else (),
    )


def _noted(row: records.Row) -> str:
    """A row's name as a board would label it."""
    notes = [*(["analogue"] if row.analogue else []), *([row.product] if row.product else [])]
    return f"{row.strategy} ({', '.join(notes)})" if notes else row.strategy


def _means(rows: Collection[records.Row]) -> dict[str, float]:
    found = {}
    for name, key in _MEASURES.items():
        values = [row.metrics[key].value for row in rows if key in row.metrics]
        values = [value for value in values if value is not None]
        if values:
            found[name] = sum(values) / len(values)
    return found


def _flags_alone(
    rows: Sequence[records.Row],
    mine: Mapping[str, float],
    original: Mapping[str, float],
    workload: OwnClassifier,
) -> tuple[str, ...]:
    """The flags of score.FLAGS that the original alone can tell, in their order.

    An AUC differs where it does by more than two of its standard errors.
    """
    if rows[0].kind in ("original", "retrained"):
        return ()
    flags = set()
    if all(row.weights_changed is False for row in rows):
        flags.add("no-op")
    lost = lambda name: original.get(name, 0) - mine.get(name, 0)
    what = "unseen" if "unseen" in original else "retain"
    if lost(what) > (original[what] - workload.chance) / 2 > 0:
        flags.add("collapsed")
    if lost("retain") > score.REMEMBERED:
        flags.add("forgets what stays")
    if "AUC" in mine:
        error = 2 * score.auc_error(len(workload.asked.forget), len(workload.asked.holdout))
        flags |= {"over-unlearned"} if mine["AUC"] < 0.5 - error else set()
        flags |= {"exposes"} if mine["AUC"] > original["AUC"] + error else set()
    return tuple(flag for flag in score.FLAGS if flag in flags)


def _numbers(part: Tensor) -> list[bytes]:
    """A hash of each example's numbers, to tell which are the same."""
    flat = part.cpu().reshape(len(part), -1).contiguous().view(torch.uint8).numpy()
    return [hashlib.blake2b(row, digest_size=16).digest() for row in flat]
