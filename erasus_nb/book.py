"""What notebooks show: the parameters check, rows, sentences with numbers, the glance box.

The only module that knows about Jupyter. A page collects what its strategies measured; every
number it prints is read from rows.
"""

from __future__ import annotations

import ast
import math
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Collection, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from html import escape
from typing import Any

import torch
from IPython import get_ipython
from IPython.display import HTML, Markdown, display
from tqdm import TqdmWarning

from . import (
    ROOT,
    charts,
    keys,
    moving,
    profiles,
    progress,
    records,
    references,
    score,
    sweeps,
    workloads,
)
from .benchmark import ATTACKED, Bench, plain
from .parameters import ParameterError, check_device, check_notebook, one_of, strategies_in
from .strategy import NEEDS, settings_of
from .tables import DASH, interval, number, table

# Libraries would draw their progress with widgets, which a published page cannot show: that
# they cannot either is no news to a reader, and the warning prints a path of this machine.
warnings.filterwarnings("ignore", "IProgress not found", TqdmWarning)
# Of libraries that use each other: nothing a reader can do, and a path of this machine too.
warnings.filterwarnings("ignore", "There is a performance drop", UserWarning)
warnings.filterwarnings("ignore", ".*gradient_checkpointing.* is deprecated", FutureWarning)

#: Claims in prose are checked where the rows can carry them.
CLAIM_PROFILES, CLAIM_SEEDS = ("laptop", "full"), 5


def start(name: str, namespace: dict[str, Any]) -> Page:
    """Check a strategy notebook's parameters and open its page. No work is done before.

    Args:
        name: The notebook, e.g. "gradient".
        namespace: Its `globals()`.

    Raises:
        ParameterError: one sentence that says what is wrong and what is allowed.
    """
    given = check_notebook(name, namespace)
    known = strategies_in(ROOT / "notebooks" / f"{name}.ipynb")
    for workload in given["workloads"]:
        one_of("workload", workload, workloads.WORKLOADS)
    if published := _published(given):
        try:
            workloads.made_for(name, published.model, given["workloads"])
        except ValueError as error:
            raise ParameterError(str(error)) from None
    for strategy in given["strategies"]:
        one_of("strategy", strategy, known)
    one_of("profile", given["profile"], profiles.PROFILES)
    check_device(given["device"])
    if given["seeds"] is not None and given["seeds"] < 1:
        raise ParameterError(f"seeds must be at least 1; got {given['seeds']}")
    return Page(name, given, known)


def _published(given: dict[str, Any]) -> workloads.Published | None:
    """The models and data of others that a notebook was given, if any."""
    names = ("model", "data", "retrained", "tokenizer")
    found = {name: given.get(name, "") for name in names}
    return workloads.Published(**found) if any(found.values()) else None


class ReadersBench(Bench):
    """A bench on which whoever reads the page may run a strategy with other settings."""

    def __post_init__(self):
        super().__post_init__()
        #: Strategy -> the settings that the reader gave it; the others are the chosen ones.
        self.given: dict[str, dict[str, Any]] = {}

    def full_settings(self, function: Callable) -> tuple[dict[str, Any], str]:
        full, by = super().full_settings(function)
        given = self.given.get(function.__name__)
        return ({**full, **given}, "given by the reader") if given else (full, by)

    @property
    def first_look(self) -> int:
        """At how many seeds an idea of the reader's own is measured, if nothing is said.

        At all of them; at three where training takes so long that settings are chosen at
        fewer seeds than elsewhere.
        """
        long = len(self.load.tuning_seeds) < len(profiles.TUNING_SEEDS)
        return min(ATTACKED, len(self.seeds)) if long else len(self.seeds)


def _edited_defaults(function: Callable) -> dict[str, Any]:
    """The defaults of a page's strategy that are not, as it runs, those last committed.

    Where git cannot tell, those of the page's file are compared.
    """
    page, name = function.facts.category.lower(), function.__name__
    sources = keys.at_head() or keys.sources()
    place = sources.place_of(page, name)
    if place is None:
        return {}
    written = {}
    for node in sources.module(place[0]).nodes[name]:
        if isinstance(node, ast.FunctionDef):
            written = dict(zip((a.arg for a in node.args.kwonlyargs), node.args.kw_defaults))

    def same(key: str, value: Any) -> bool:
        try:
            return written.get(key) is None or ast.literal_eval(written[key]) == value
        except ValueError:  # not written out: nobody can tell
            return True

    return {k: v for k, v in settings_of(function).items() if not same(k, v)}


def _bench(workload: str, given: dict[str, Any], published) -> Bench:
    seeds = given["seeds"]
    what = f"{published.model} and {published.data}" if published else workload
    try:
        with progress.working(f"opening {what}"):
            return ReadersBench(
                workload,
                given["profile"],
                None if seeds is None else range(seeds),
                request=given["request"],
                device=given["device"],
                out=given["out"],
                resume=given["resume"],
                parameters=given,
                published=published,
            )
    except ValueError as error:
        raise ParameterError(str(error)) from None


@dataclass(frozen=True)
class Scene:
    """What a workload's pictures are drawn of: one workload on one page.

    Args:
        bench: Its bench.
        board: Its board, so far.
        names: Strategies of the page that have been run.
        rows: Name -> its rows of this run, a seed each.
    """

    bench: Bench
    board: score.Board
    names: Sequence[str]
    rows: Callable[[str], list[records.Row]]

    def models(self, *functions: Callable) -> dict[str, torch.nn.Module]:
        """Original, retrained and what the given strategies made, at the first training seed.

        With the settings of their rows; a strategy whose first row has no result is left out.
        """
        bench, seed = self.bench, self.bench.seeds[0]
        found = {
            "original": bench.load.load(bench.originals()[seed]),
            "retrained": bench.load.load(bench.retrained()[seed]),
        }
        for function in functions:
            rows = self.rows(function.__name__)
            if rows and rows[0].status == "ok":
                found[function.__name__] = bench.model_of(function, seed)
        return found


class Page:
    """One strategy notebook while it runs."""

    def __init__(self, name: str, given: dict[str, Any], known: Sequence[str]):
        self.name, self.given, self.known = name, given, list(known)
        published = _published(given)
        self.home, asked = workloads.home(name), given["workloads"]
        if published:
            self.home = workloads.made_for(name, published.model, asked)
        # The page's own workload comes first, in whatever order they were asked for.
        asked = sorted(asked or [self.home], key=lambda w: w != self.home)
        self.benches = {w: _bench(w, given, published) for w in asked}
        self._prepare()
        sizes = [f"{w} ({len(b.seeds)} training seeds)" for w, b in self.benches.items()]
        where = "GPU" if given["device"] == "cuda" else "CPU"
        display(Markdown(f"Profile `{given['profile']}` on the {where}: {' and '.join(sizes)}."))

    def _prepare(self) -> None:
        """Nothing has been run yet."""
        self.functions: dict[str, Callable] = {}
        #: Strategies that are not as they were last committed, saved or not.
        self._edited: set[str] = set()
        self._rows: dict[str, list[records.Row]] = {w: [] for w in self.benches}
        self._references: dict[str, records.Document] = {}
        #: What `relearn` found: workload -> criterion -> model -> step -> values by seed.
        self.relearned: dict[str, dict[str, dict[str, dict[int, list[float]]]]] = {}

    def asking(self, request: str, most: int) -> Page:
        """This page once more for another kind of request, with nothing run yet.

        It has the workloads that take such a request and that a strategy which this page has run
        can run on (any, where none has); none if the page is run for it already.

        Args:
            most: Training seeds, at most.
        """
        other, ran = copy(self), self.functions.values()
        other.benches = {
            name: _bench(
                name,
                {**self.given, "request": request, "seeds": min(most, len(bench.seeds))},
                None,
            )
            for name, bench in self.benches.items()
            if request in bench.load.requests
            and request != self.given["request"]
            and (not ran or any(self._can_run(function, bench) for function in ran))
        }
        other._prepare()
        return other

    # ---- rows and boards

    def _reference(self, workload: str) -> records.Document:
        if workload not in self._references:
            self._references[workload] = self.benches[workload].references()
        return self._references[workload]

    def board(
        self,
        workload: str,
        only: Collection[str] | None = None,
        at: Collection[int] | None = None,
    ) -> score.Board:
        """The board of one workload: references, controls and what this page has run.

        Args:
            only: The strategies that are on it; None = all.
            at: The seeds that it compares at; None = all of this run.
        """
        reference = self._reference(workload)
        seeds = set(self.benches[workload].seeds if at is None else at)
        rows = [row for row in reference.rows if row.seed in seeds]
        ran = [
            row
            for row in self._rows[workload]
            if row.seed in seeds and (only is None or row.strategy in only)
        ]
        mine = reference.model_copy(update={"category": self.name, "rows": ran})
        board = score.board([reference.model_copy(update={"rows": rows}), mine])
        given = self.benches[workload].given

        def marked(s: score.Standing) -> score.Standing:
            notes = ["your settings"] if s.name in given else []
            if s.kind == "strategy" and s.name not in self.known:
                notes = ["yours"]
            return replace(s, edited=s.edited or s.name in self._edited, notes=tuple(notes))

        return replace(board, standings=tuple(map(marked, board.standings)))

    def _pages_board(self, workload: str, *own: Callable) -> score.Board:
        """The board without ideas of the reader's own, but for those that are named.

        All that is on it is compared at the seeds at which those were measured.
        """
        names = {f.__name__ for f in own}.difference(self.known)
        ran = [{row.seed for row in self.rows(workload, name)} for name in names]
        ran = [seeds for seeds in ran if seeds]
        at = set.intersection(*ran) if ran else None
        return self.board(workload, {*self.known, *names}, at)

    def _selected(self, function: Callable) -> bool:
        wanted = self.given["strategies"]
        return not wanted or function.__name__ in wanted or function.__name__ not in self.known

    def run(
        self,
        function: Callable,
        *,
        keep: bool = True,
        everywhere: bool = False,
        seeds: int | None = None,
        **settings: Any,
    ) -> None:
        """Measure a strategy on every workload and seed of this run and show its rows.

        With settings, as in `page.run(gradient_ascent, epochs=3)`, it runs with these, and with
        the chosen ones for the rest. The rows are marked "your settings" and written nowhere;
        `page.run(gradient_ascent)` brings the page's own back. So it is with a default that
        you edit in the strategy's cell, where it differs from the value that tuning chose.

        Args:
            function: A function marked with @strategy.
            keep: Write its rows to the result JSON. False is for ideas of your own, which
                run on the first workload of this run that they can run on, unless `everywhere`.
            everywhere: Run an idea of your own on every workload that it can run on.
            seeds: At how many of the run's seeds to measure an idea of your own; None is all,
                or three where training takes long (`ReadersBench.first_look`).
            settings: Settings of the strategy to run it with.

        Raises:
            ParameterError: the strategy has no such setting, or `seeds` is none of the
                numbers there are, or not for an idea.
            Exception: what an idea of your own raised, with the lines of its cell. In a run
                of the whole book it becomes an `error` row, as a strategy's of the page always
                does; of an edited one the lines are printed too.
        """
        if not self._selected(function):
            display(Markdown(f"`{function.__name__}` is not among the strategies asked for."))
            return
        known = settings_of(function)
        if strange := [name for name in settings if name not in known]:
            raise ParameterError(
                f"{function.__name__} has no setting {strange[0]!r}; it has {', '.join(known)}"
            )
        if seeds is not None:
            self._check_seeds(seeds, keep)
        self.functions[function.__name__] = function
        edited = any(bench.uncommitted(function) for bench in self.benches.values())
        (self._edited.add if edited else self._edited.discard)(function.__name__)
        able = [w for w, bench in self.benches.items() if self._can_run(function, bench)]
        if not keep and not able:
            display(Markdown(f"`{function.__name__}` {self._why_not(function)}"))
        said: list[str] = []
        for workload, bench in self.benches.items():
            if not keep and workload not in (able if everywhere else able[:1]):
                continue
            self._reference(workload)
            said += self._give(function, bench, settings)
            some = bench.seeds if keep else bench.seeds[: seeds or bench.first_look]
            kept = keep and function.__name__ not in bench.given
            rows = bench.run(function, keep=kept, seeds=some)
            if len(some) < (every := len(bench.seeds)):
                how = "keep=False, everywhere=True" if everywhere else "keep=False"
                said.append(
                    f"`{workload}`: a first look, at {len(some)} of {every} seeds; "
                    f"`page.run({function.__name__}, {how}, seeds={every})` takes all."
                )
            others = [r for r in self._rows[workload] if r.strategy != function.__name__]
            self._rows[workload] = others + rows
            if bench.failure and (edited or not keep):
                self._tell_of(bench.failure, function, stop=not keep and not self._in_batch)
        for workload, bench in self.benches.items():
            rows = self.rows(workload, function.__name__)
            if rows and (edited or function.__name__ in bench.given):
                said.append(f"`{workload}`: {_settings(function, rows)}")
        if lines := self._lines(function.__name__):
            display(HTML(lines + "".join(f"<p>{_coded(line)}</p>" for line in said)))

    def _check_seeds(self, seeds: int, keep: bool) -> None:
        most = max(len(bench.seeds) for bench in self.benches.values())
        if keep:
            raise ParameterError(
                "seeds is for ideas of your own (keep=False); a strategy of the page is measured "
                "at every seed of the run"
            )
        if isinstance(seeds, bool) or not isinstance(seeds, int) or not 1 <= seeds <= most:
            raise ParameterError(f"seeds is a number from 1 to {most}, got {seeds!r}")

    def _give(self, function: Callable, bench: ReadersBench, settings: dict) -> list[str]:
        """Set what a strategy is run with beside the chosen settings; what to say of it."""
        name = function.__name__
        bench.given.pop(name, None)
        chosen, _ = bench.full_settings(function)
        # Nobody reads along in a run of the whole book: there, what tuning chose holds.
        changed = {} if self._in_batch else _edited_defaults(function)
        edited = {k: v for k, v in changed.items() if k not in settings and chosen.get(k) != v}
        if given := {**edited, **settings}:
            bench.given[name] = given
        said = [
            f"`{bench.name}`: your edited default `{k}={v}` is used in place of "
            f"`{k}={chosen[k]}`, which was chosen for this workload."
            for k, v in edited.items()
            if k in chosen
        ]
        if given:
            said.append(f"`{bench.name}`: these rows are yours and are written nowhere.")
        return said

    @staticmethod
    def _tell_of(error: Exception, function: Callable, stop: bool) -> None:
        """Raise or print an error, its traceback beginning at the strategy that failed."""
        here, frame = function.__code__.co_filename, error.__traceback__
        while frame and frame.tb_frame.f_code.co_filename != here:
            frame = frame.tb_next
        error = error.with_traceback(frame or error.__traceback__)
        if stop:
            raise error
        print(
            f"`{function.__name__}`, as you edited it, failed; its row says so and the page "
            "goes on:",
            file=sys.stderr,
        )
        shell = get_ipython()
        if shell is None or os.environ.get(progress.BATCH):
            traceback.print_exception(error)
            return
        # As Jupyter prints it, with the cell and the lines around. Not `showtraceback`, which
        # makes it an error of the cell: whoever runs the notebook as a whole would stop here.
        shown = (type(error), error, error.__traceback__)
        lines = shell.InteractiveTB.structured_traceback(*shown, tb_offset=0)
        print("\n".join(lines), file=sys.stderr)

    @property
    def _in_batch(self) -> bool:
        """Whether `python -m erasus_nb run` runs this page: nobody is there to mend a mistake."""
        return bool(os.environ.get(progress.BATCH))

    @staticmethod
    def _can_run(function: Callable, bench: Bench) -> bool:
        return function.facts.form_on(bench.workload, bench.load.provides) is not None

    def _why_not(self, function: Callable) -> str:
        """Why an idea of your own runs on no workload of this page, as the end of a sentence."""
        workload, bench = next(iter(self.benches.items()))
        if function.facts.on and workload not in function.facts.on:
            return f"is not marked for `{workload}`: name it in `on` to run it there."
        lacking = sorted(set(function.facts.needs) - set(bench.load.provides))
        needs = "; ".join(f"{need}: {NEEDS[need]}" for need in lacking)
        return f"does not run on `{workload}`, which lacks what it needs ({needs})."

    def rows(self, workload: str, name: str) -> list[records.Row]:
        """The rows of one strategy that this page has run, a seed each."""
        return [row for row in self._rows[workload] if row.strategy == name]

    def _ran(self, name: str, workload: str) -> bool:
        return bool(self.rows(workload, name))

    def _lines(self, name: str) -> str:
        """The rows of a strategy between original and retrained; "" where it did not run."""
        lines, labels = [], set()
        for workload in filter(partial(self._ran, name), self.benches):
            board = self._pages_board(workload, self.functions[name])
            labels.add(board[name].label)
            for standing in (board["original"], board[name], board["retrained"]):
                lines.append((workload, *_line(standing)))
        # The name first: of a table that scrolls, the first column stays in view.
        lines = [(name, workload, *rest) for workload, name, *rest in lines]
        return table(("row", "workload", *_COLUMNS[1:]), lines, strong=labels) if lines else ""

    # ---- sentences

    def say(
        self, function: Callable, template: str = "Retrain-Match {rm}; {flags}.", *, first: str = ""
    ) -> None:
        """Print one sentence per workload, its numbers taken from the rows.

        Args:
            template: What is said where the workload has no sentence of its own
                (Workload.sentence). Text with fields. {name} {workload} {rm} {F} {P} {U} {C1} {C2} {C3}
                {D} {rank} {tier} {flags} {time_ratio} {pass_ratio}; and, of any measured
                metric, {m:C1} for this strategy, {o:C1} for the original, {r:C1} for the
                retrained model; {info:key} is the mean over seeds of a strategy's info.
            first: With the same fields, said before it of every workload.
        """
        if function.__name__ not in self.functions:
            return
        said = []
        for workload in filter(partial(self._ran, function.__name__), self.benches):
            board = self._pages_board(workload, function)
            standing = board[function.__name__]
            marked = f" ({mark})" if (mark := _mark(standing)) else ""
            if not standing.seeds:
                said.append(f"- `{workload}`{marked}: {_status(standing)}.")
                continue
            rows = self.rows(workload, function.__name__)
            own = self.benches[workload].load.sentence
            whole = first + (template if own is None else f"{own}.")
            fields = _fields(board, standing, rows)
            sentence = whole.format_map(fields).rstrip(".")
            said.append(f"- `{workload}`{marked}: {sentence}. {_settings(function, rows)}")
        display(Markdown("\n".join(said)))

    def claim(
        self, sentence: str, check: Callable[[score.Board], bool], where: str = "classes"
    ) -> None:
        """Stop the run if a sentence stated on this page is not true of the rows.

        Checked where rows can carry a claim: profile laptop or full, at least five seeds,
        the standard request, every strategy of the page run; and of the workloads that the
        book's prose speaks of. Elsewhere nothing is checked.

        Args:
            where: Where the sentence is meant to hold: "home", the page's own workload;
                "everywhere"; or one of strategy.NEEDS, for the workloads that provide it.

        Where the reader has edited a strategy or given it other settings, a line says that this
        changed the sentence, and nothing stops.

        Raises:
            AssertionError: the claim is not true; the sentence must be rewritten.
            ValueError: `where` is none of these.
        """
        if where not in ("home", "everywhere", *NEEDS):
            raise ValueError(f"where is home, everywhere or a need, got {where!r}")
        whole = set(self.known) <= set(self.functions) and self.given["request"] == "standard"
        if self.given["profile"] not in CLAIM_PROFILES or not whole:
            return
        for name, bench in self.benches.items():
            meant = where == "everywhere" or (
                name == self.home if where == "home" else where in bench.load.provides
            )
            if bench.load.in_prose and meant and len(bench.seeds) >= CLAIM_SEEDS:
                board = self._pages_board(name)
                mine = [s.name for s in board.of("strategy") if _mark(s)]
                true = check(board)
                if not true and mine and not self._in_batch:
                    what = ", ".join(f"`{each}`" for each in mine)
                    display(
                        Markdown(
                            f"Your edit or your settings ({what}) changed this sentence of the "
                            f"page on `{name}`: {sentence}."
                        )
                    )
                    continue
                assert true, f"not true on {name}: {sentence}"

    def having(self, need: str) -> dict[str, Bench]:
        """The benches of this book's own workloads that provide something, by name."""
        return {
            name: bench
            for name, bench in self.benches.items()
            if need in bench.load.provides and not bench.load.published
        }

    # ---- what there is to forget

    def request(self) -> None:
        """Show the forget set, and how original and retrained differ on it."""
        for workload, bench in self.benches.items():
            asked = bench.asked
            board = self.board(workload)
            display(
                Markdown(
                    f"**`{workload}`**: forget {len(asked.forget)} of "
                    f"{len(asked.forget) + len(asked.retain)} training examples, {asked.sentence}."
                )
            )
            with progress.working(f"picture of the request on {workload}"):
                display(bench.load.pictures.request(self._scene(workload)))
            lines = [(s.name, *_measured(s)) for s in (board["original"], board["retrained"])]
            names = [f"{c} {name}" for c, name in bench.load.criteria.items()]
            display(HTML(table(("model", *names), lines)))
            failed = [g for g in board.gates if not g.passed]
            if failed:
                display(HTML(_gates(failed)))

    # ---- charts and tables

    def _scene(self, workload: str) -> Scene:
        names = [name for name in self.functions if name in self.known]
        rows = lambda name: self.rows(workload, name)
        return Scene(self.benches[workload], self.board(workload), names, rows)

    def draw(self, picture: str, *what: Any) -> None:
        """Show what only some kinds of workload can draw, for each workload here that can.

        Args:
            picture: A function of the module `pictures` of a workload's folder.
            what: What it takes: mostly strategies of this page.
        """
        for workload, bench in self.benches.items():
            if function := getattr(bench.load.pictures, picture, None):
                with progress.working(f"{picture} on {workload}"):
                    display(function(self._scene(workload), *what))

    def chart(self, *own: Callable) -> None:
        """Draw this page's strategies beside references and controls, one chart a workload.

        Args:
            own: Ideas of a reader, drawn strongly: only workloads on which one ran are drawn.
        """
        for workload in self.benches:
            names = [
                n
                for n in self.functions
                if (n in self.known or self.functions[n] in own) and self._ran(n, workload)
            ]
            strong = [f.__name__ for f in own if f.__name__ in names]
            if own and not strong:
                continue
            board = self._pages_board(workload, *own)
            if caution := self._caution(board):
                display(Markdown(caution))
            some, every = len(board.seeds), len(self.benches[workload].seeds)
            if own and some < every:
                said = (
                    f"Everything in this chart is measured at {some} of {every} seeds, those of "
                    "your idea; the other charts of the page have all."
                )
                display(Markdown(said))
            display(charts.forest(board, names=names, emphasise=strong))

    def _caution(self, board: score.Board) -> str:
        """Why nothing can be concluded from a board, in one line; "" where something can."""
        said = []
        if self.given["profile"] == "smoke":
            some = (
                "1 training seed" if len(board.seeds) == 1 else f"{len(board.seeds)} training seeds"
            )
            said.append(
                f"Profile `smoke` ({some}) only shows that the page runs: it proves nothing, and "
                "the text of the page speaks of larger runs."
            )
        if failed := [g for g in board.gates if not g.passed]:
            gates = "; ".join(
                f"{g.name} (measured {number(g.value)}, wanted {g.wanted})" for g in failed
            )
            said.append(f"Gates not met on `{board.workload}`: {gates}.")
        return " ".join(said)

    def table(self) -> None:
        """The rows behind the chart, one table a workload."""
        for workload in self.benches:
            board = self.board(workload)
            lines = [_line(s) for s in board.standings]
            display(Markdown(f"`{workload}`, mean over {len(board.seeds)} seeds (95 % interval):"))
            display(HTML(table(_COLUMNS, lines)))

    def relearn(self, *functions: Callable) -> None:
        """Attack: fine-tune on a quarter of the forget set and see what else comes back.

        Draws accuracy on the unseen concept and recall of the other canaries against attack
        steps, for the given strategies, the original and the retrained model.
        """
        chosen = [f for f in functions if f.__name__ in self.functions]
        for workload, bench in self.benches.items():
            able = [
                f
                for f in chosen
                if self._ran(f.__name__, workload) and self.board(workload)[f.__name__].seeds
            ]
            categories = {f.__name__: f.facts.category for f in able}
            found = bench.relearn(able, bench.seeds[:ATTACKED])
            self.relearned[workload] = found
            marks = {n: _mark(self.board(workload)[n]) for n in categories}
            labels = {n: f"{n} ({mark})" if mark else n for n, mark in marks.items()}
            categories = {labels[n]: category for n, category in categories.items()}
            for criterion, curves in found.items():
                curves = {labels.get(n, n): curve for n, curve in curves.items()}
                label = f"{workload}: {criterion} (share; higher: more came back)"
                display(charts.relearning(curves, ylabel=label, categories=categories))

    def move(self, function: Callable) -> None:
        """Show what one setting of a strategy does: with a slider, where a kernel answers.

        Everything was measured in advance (sweeps.py), for the settings and the code that
        the file of the page has; where that is no longer so, a line says it.

        Raises:
            ValueError: another strategy of the page was measured.
            RecordError: nothing was measured, or the file cannot be used.
        """
        sweep = sweeps.read(self.name)
        if function.__name__ != sweep.strategy:
            raise ValueError(f"{self.name} has a sweep of {sweep.strategy} alone")
        if sweep.found is None:
            command = f"python -m erasus_nb sweep {self.name}"
            raise records.RecordError(f"nothing was measured yet; `{command}` does so")
        display(moving.Moved(sweep, function.facts.category))
        seeds = sweep.found.seeds
        said = (
            f"Measured in advance on `{sweep.workload}`: means over the tuning seeds {seeds[0]} to "
            f"{seeds[-1]}, which serve to choose settings and are in no other result of this page, so "
            "that the numbers differ a little from its tables. All other settings are those that "
            f"tuning chose{_beside(sweep.found.settings)}."
        )
        changed = sweep.found.code != sweeps.code_now(self.name, sweep)
        if changed or function.__name__ in self._edited:
            said += (
                f" **The code or the settings of `{function.__name__}` have changed since**: "
                f"`python -m erasus_nb sweep {self.name}` measures again what is saved."
            )
        display(Markdown(said))

    def departures(self) -> None:
        """The numbered departures from the papers, from the strategies' marks."""
        parts = []
        for name, function in self.functions.items():
            if name in self.known:
                listed = function.facts.departures or ("None that we know of.",)
                numbered = "\n".join(f"{i}. {d}" for i, d in enumerate(listed, 1))
                parts.append(f"**{name}**\n\n{numbered}")
        display(Markdown("\n\n".join(parts)))

    def references(self) -> None:
        """The papers that this page's text links to, as a list."""
        display(HTML(references.listed(self.name)))

    # ---- the glance box

    def glance(self) -> None:
        """The result at a glance; the site lifts it to the top of the page."""
        boxes = [self._glance(workload) for workload in self.benches]
        rows = [
            row for name in self.benches for row in (*self._reference(name).rows, *self._rows[name])
        ]
        stamp = f"Profile {self.given['profile']}; {records.stamp(rows)}."
        display(
            HTML(
                '<div class="admonition note"><p class="admonition-title">Result at a glance</p>'
                f"{''.join(boxes)}{self._cautions()}{_KEY}"
                f"<p><small>{escape(stamp)}</small></p></div>"
            )
        )

    def _cautions(self) -> str:
        said = filter(None, (self._caution(self._pages_board(name)) for name in self.benches))
        return "".join(f"<p>{_coded(each)}</p>" for each in said)

    def _glance(self, workload: str) -> str:
        board = self.board(workload, self.known)  # a reader's own idea is no result of the page
        mine = [s for s in board.of("strategy") if s.seeds]
        if not mine:
            return f"<p>No strategy of this page ran on {escape(workload)}.</p>"
        ran = [s for s in mine if s.rm]
        if not ran:  # a run so small that original and retrained do not differ
            return f"<p>Nothing can be scored on {escape(workload)} in this run.</p>"
        control, bar = board["partial_retrain"], board.bar
        marks = {s.name: f" ({mark})" for s in mine if (mark := _mark(s))}
        code = lambda name: f"<code>{escape(name)}</code>{marks.get(name, '')}"
        reached = "; ".join(
            f"{code(s.name)}{' (an analogue)' if s.analogue else ''} has a Retrain-Match of "
            f"{interval(s.rm)} of 100"
            for s in board.leaders[:3]
        )
        above = control.rm and control.rm.mean >= max(
            (s.rm.mean for s in board.leaders), default=101
        )
        but = "; but retraining that is stopped early scores higher" if above else ""
        verdict = (
            f"<strong>{score.first_place(board, code)}{but}</strong> ({len(board.seeds)} seeds). "
            + (f"{reached}. " if reached else "")
            + f"{score.what_is_missing(board, code)} "
            f"<code>{escape(bar.name)}</code>, the best cheap control, scores "
            f"{interval(bar.rm)}; full retraining, against the retrainings of other "
            f"seeds, {interval(board['retrained'].rm)}. Retraining for a quarter of its "
            f"epochs ({code(control.name)}) scores {interval(control.rm)}: it shows what that time "
            "buys without any strategy, and is not counted among the cheap controls."
        )
        shown = [board["retrained"], *ran[:3], control, bar, board["original"]]
        shown = sorted(
            {s.name: s for s in shown}.values(), key=lambda s: -s.rm.mean if s.rm else math.inf
        )
        rest = ", ".join(f"{code(s.name)} {interval(s.rm)}" for s in ran[3:])
        below = f"<p>Strategies further down: {rest}.</p>" if rest else ""
        return f"<p>{verdict}</p>" + table(_COLUMNS, [_line(s) for s in shown]) + below


# ------------------------------------------------------------------ text


#: What the columns of the glance box are. The site leads to its own pages (sphinx_runs.py).
_KEY = (
    "<p><small>Retrain-Match is the harmonic mean of F (forgetting), P (privacy) and U "
    "(utility), each 1 like retraining. z is a position on a criterion: 1 like the original, "
    '0 like retraining. All words: <a href="../docs/glossary.md">glossary</a>; criteria and '
    'flags: <a href="../docs/metrics.md">what is measured</a>.</small></p>'
)

_COLUMNS = ("row", "Retrain-Match", "F", "P", "U", "z C1", "z C2", "z C3", "cost", "flags")


def _status(standing: score.Standing) -> str:
    if standing.status == "ok":
        return "no score: a part of it was not measured"
    return f"{standing.status.replace('_', ' ')}: {standing.reason}"


def _line(standing: score.Standing) -> tuple[str, ...]:
    """A standing as the cells of _COLUMNS."""
    name = standing.label
    if standing.rm is None:
        return (name, *(DASH,) * (len(_COLUMNS) - 2), _status(standing))
    return (
        name,
        interval(standing.rm),
        *(
            number(axis.mean) if axis else DASH
            for axis in (standing.forgetting, standing.privacy, standing.utility)
        ),
        *(
            number(standing.position[c].mean) if c in standing.position else DASH
            for c in ("C1", "C2", "C3")
        ),
        DASH if standing.time_ratio is None else f"{number(standing.time_ratio)} x retraining",
        ", ".join(standing.flags) or DASH,
    )


def _coded(text: str) -> str:
    """A sentence as HTML: what stands between backticks is code."""
    return re.sub("`([^`]*)`", r"<code>\1</code>", escape(text))


def _mark(standing: score.Standing) -> str:
    """How a row is not the page's own: "yours", "your settings" or "edited"; "" if it is."""
    return next(iter((*standing.notes, *["edited"][: standing.edited])), "")


def _measured(standing: score.Standing) -> tuple[str, ...]:
    """The four criteria; all are shares, so an interval that leaves 0 to 1 is cut there."""
    found = (standing.metrics.get(c) for c in ("C1", "C2", "C3", "C4"))
    return tuple(
        interval(v and replace(v, low=max(v.low, 0.0), high=min(v.high, 1.0)), 2) for v in found
    )


def _gates(failed: Sequence[records.Gate]) -> str:
    lines = [(g.name, number(g.value), g.wanted, g.reason or "") for g in failed]
    return (
        "<p>This run does not meet every gate of the workload, so its rows rank nothing:</p>"
        + table(("gate", "measured", "wanted", "why"), lines)
    )


class _Metrics:
    """Formats as the mean of the measured metric named in the format spec: {m:C1}."""

    def __init__(self, standing: score.Standing):
        self.standing = standing

    def __format__(self, spec: str) -> str:
        # A metric can be absent with a reason: a selected request has no concept (C2).
        found = self.standing.metrics.get(spec)
        return number(found and found.mean)


class _Info:
    """Formats as the mean over seeds of the rows' info named in the format spec; DASH where
    no row has it."""

    def __init__(self, rows: Sequence[records.Row]):
        self.rows = rows

    def __format__(self, spec: str) -> str:
        values = [r.info[spec] for r in self.rows if spec in r.info]
        if not values:
            return DASH
        if all(isinstance(v, (int, float)) for v in values):
            return f"{sum(values) / len(values):.3g}"
        return ", ".join(sorted({str(v) for v in values}))


def _beside(settings: dict[str, Any]) -> str:
    """Settings that are not the defaults, in brackets; "" if there are none."""
    said = ", ".join(f"`{k}={v}`" for k, v in settings.items())
    return f" ({said})" if said else ""


def _settings(function: Callable, rows: Sequence[records.Row]) -> str:
    """What the rows were made with, as far as it is not the function's default."""
    defaults, used = plain(settings_of(function)), rows[0].settings
    other = [k for k in used if used[k] != defaults.get(k)]
    if not other:
        return "Settings: the defaults."
    return f"Settings: {', '.join(f'`{k}={used[k]}`' for k in other)}, else the defaults."


def _fields(board: score.Board, standing: score.Standing, rows) -> dict[str, Any]:
    rank = standing.rank
    return {
        "name": standing.name,
        "workload": board.workload,
        "rm": interval(standing.rm),
        "F": number(standing.forgetting and standing.forgetting.mean),
        "P": number(standing.privacy and standing.privacy.mean),
        "U": number(standing.utility and standing.utility.mean),
        **{
            c: number(standing.position[c].mean) if c in standing.position else DASH
            for c in ("C1", "C2", "C3")
        },
        "D": number(standing.divergence and standing.divergence.mean),
        "rank": "unranked"
        if rank is None
        else str(rank[0])
        if rank[0] == rank[1]
        else f"{rank[0]} to {rank[1]}",
        "tier": standing.tier or DASH,
        "flags": ", ".join(standing.flags) or "no flags",
        "time_ratio": number(standing.time_ratio),
        "pass_ratio": number(standing.pass_ratio),
        "m": _Metrics(standing),
        "o": _Metrics(board["original"]),
        "r": _Metrics(board["retrained"]),
        "info": _Info(rows),
    }
