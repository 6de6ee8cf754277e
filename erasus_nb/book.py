"""What notebooks show: the parameters check, rows, sentences with numbers, the glance box.

The only module that knows about Jupyter. A page collects what its strategies measured; every
number it prints is read from rows.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Collection, Sequence
from difflib import SequenceMatcher
from functools import partial
from html import escape
from typing import Any

import torch
from IPython.display import HTML, Markdown, display
from tqdm import TqdmWarning

from . import ROOT, charts, controls, metrics, profiles, records, score, workloads
from .benchmark import ATTACKED, Bench, plain
from .parameters import ParameterError, check_notebook, one_of, strategies_in
from .strategy import settings_of
from .workloads.classifier import REQUESTS

# Libraries would draw their progress with widgets, which a published page cannot show: that
# they cannot either is no news to a reader, and the warning prints a path of this machine.
warnings.filterwarnings("ignore", "IProgress not found", TqdmWarning)
# Of libraries that use each other: nothing a reader can do, and a path of this machine too.
warnings.filterwarnings("ignore", "There is a performance drop", UserWarning)
warnings.filterwarnings("ignore", ".*gradient_checkpointing.* is deprecated", FutureWarning)

#: Claims in prose are checked where the rows can carry them.
CLAIM_PROFILES, CLAIM_SEEDS = ("laptop", "full"), 5
#: Every page's home workload, but for the language models' own.
HOME = {"llm": ("text",)}
#: Where the classifiers' sentences and claims hold.
CLASSIFIERS = ("synthetic", "digits")
#: The yardsticks whose course is drawn on a language model.
_COURSE = ("grad_diff", "npo", "ascent_to_destruction")
#: What `say` prints of a language model: its criteria have other names.
ON_TEXT = (
    "Retrain-Match {rm}. Continuations {m:C1} (original {o:C1}, retrained {r:C1}), answers "
    "{m:C2} ({o:C2}, {r:C2}), Min-40 % AUC {m:C3} ({o:C3}, {r:C3}), retained answers and "
    "text {m:C4} ({r:C4}); loss on forget passages {m:forget_loss} nats ({r:forget_loss}); "
    "{time_ratio} times the seconds of retraining; {flags}"
)


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
    if _published(given) and given["workloads"] not in ([], ["text"]):
        raise ParameterError(
            "published models and data are for workload text alone: leave workloads empty "
            'or give ["text"]'
        )
    for strategy in given["strategies"]:
        one_of("strategy", strategy, known)
    one_of("profile", given["profile"], profiles.PROFILES)
    one_of("request", given["request"], REQUESTS)
    one_of("device", given["device"], ("cpu", "cuda"))
    if given["device"] == "cuda" and not torch.cuda.is_available():
        raise ParameterError("device is cuda, but this machine has no usable GPU; use cpu")
    if given["seeds"] is not None and given["seeds"] < 1:
        raise ParameterError(f"seeds must be at least 1; got {given['seeds']}")
    return Page(name, given, known)


def _published(given: dict[str, Any]) -> workloads.Published | None:
    """The models and data of others that a notebook was given, if any."""
    names = ("model", "data", "retrained", "tokenizer")
    found = {name: given.get(name, "") for name in names}
    return workloads.Published(**found) if any(found.values()) else None


def _bench(workload: str, given: dict[str, Any], published) -> Bench:
    seeds = given["seeds"]
    try:
        return Bench(
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
        if published is None:
            raise
        raise ParameterError(str(error)) from None


class Page:
    """One strategy notebook while it runs."""

    def __init__(self, name: str, given: dict[str, Any], known: Sequence[str]):
        self.name, self.given, self.known = name, given, list(known)
        published = _published(given)
        home = ("text",) if published else HOME.get(name, ("synthetic",))
        # The page's own workload comes first, in whatever order they were asked for.
        asked = sorted(given["workloads"] or home, key=lambda w: w not in home)
        self.benches = {w: _bench(w, given, published) for w in asked}
        self.functions: dict[str, Callable] = {}
        self._rows: dict[str, list[records.Row]] = {w: [] for w in self.benches}
        self._references: dict[str, records.Document] = {}
        #: What `relearn` found: workload -> criterion -> model -> step -> values by seed.
        self.relearned: dict[str, dict[str, dict[str, dict[int, list[float]]]]] = {}
        sizes = [f"{w} ({len(b.seeds)} training seeds)" for w, b in self.benches.items()]
        where = "GPU" if given["device"] == "cuda" else "CPU"
        display(Markdown(f"Profile `{given['profile']}` on the {where}: {' and '.join(sizes)}."))

    # ---- rows and boards

    def _reference(self, workload: str) -> records.Document:
        if workload not in self._references:
            self._references[workload] = self.benches[workload].references()
        return self._references[workload]

    def board(self, workload: str, only: Collection[str] | None = None) -> score.Board:
        """The board of one workload: references, controls and what this page has run.

        Args:
            only: The strategies that are on it; None = all.
        """
        reference = self._reference(workload)
        seeds = set(self.benches[workload].seeds)
        rows = [row for row in reference.rows if row.seed in seeds]
        ran = [row for row in self._rows[workload] if only is None or row.strategy in only]
        mine = reference.model_copy(update={"category": self.name, "rows": ran})
        return score.board([reference.model_copy(update={"rows": rows}), mine])

    def _selected(self, function: Callable) -> bool:
        wanted = self.given["strategies"]
        return not wanted or function.__name__ in wanted or function.__name__ not in self.known

    def run(self, function: Callable, *, keep: bool = True) -> None:
        """Measure a strategy on every workload and seed of this run and show its rows.

        Args:
            function: A function marked with @strategy.
            keep: Write its rows to the result JSON. False is for ideas of your own, which
                run where their mark says.
        """
        if not self._selected(function):
            display(Markdown(f"`{function.__name__}` is not among the strategies asked for."))
            return
        self.functions[function.__name__] = function
        meant = {*function.facts.on, *function.facts.analogue_on}
        for workload, bench in self.benches.items():
            if not keep and bench.workload not in meant:
                display(
                    Markdown(
                        f"`{function.__name__}` is not marked for `{bench.workload}`: "
                        "name it in `on` to run it there."
                    )
                )
                continue
            self._reference(workload)
            rows = bench.run(function, keep=keep)
            others = [r for r in self._rows[workload] if r.strategy != function.__name__]
            self._rows[workload] = others + rows
        if lines := self._lines(function.__name__):
            display(HTML(lines))

    def rows(self, workload: str, name: str) -> list[records.Row]:
        """The rows of one strategy that this page has run, a seed each."""
        return [row for row in self._rows[workload] if row.strategy == name]

    def _ran(self, name: str, workload: str) -> bool:
        return bool(self.rows(workload, name))

    def _lines(self, name: str) -> str:
        """The rows of a strategy between original and retrained; "" where it did not run."""
        lines = []
        for workload in filter(partial(self._ran, name), self.benches):
            board = self.board(workload)
            for standing in (board["original"], board[name], board["retrained"]):
                lines.append((workload, *_line(standing)))
        return _table(("workload", *_COLUMNS), lines, strong=name) if lines else ""

    # ---- sentences

    def say(
        self, function: Callable, template: str = "Retrain-Match {rm}; {flags}.", *, first: str = ""
    ) -> None:
        """Print one sentence per workload, its numbers taken from the rows.

        Args:
            template: What is said of a classifier; language models have a text of their
                own. Text with fields. {name} {workload} {rm} {F} {P} {U} {C1} {C2} {C3}
                {D} {rank} {tier} {flags} {time_ratio} {pass_ratio}; and, of any measured
                metric, {m:C1} for this strategy, {o:C1} for the original, {r:C1} for the
                retrained model; {info:key} is the mean over seeds of a strategy's info.
            first: With the same fields, said before it of every workload.
        """
        if function.__name__ not in self.functions:
            return
        said = []
        for workload in filter(partial(self._ran, function.__name__), self.benches):
            standing = self.board(workload)[function.__name__]
            if not standing.seeds:
                said.append(f"- `{workload}`: {_status(standing)}.")
                continue
            rows = self.rows(workload, function.__name__)
            whole = first + (f"{ON_TEXT}." if workload == "text" else template)
            fields = _fields(self.board(workload), standing, rows)
            sentence = whole.format_map(fields).rstrip(".")
            said.append(f"- `{workload}`: {sentence}. {_settings(function, rows)}")
        display(Markdown("\n".join(said)))

    def claim(
        self,
        sentence: str,
        check: Callable[[score.Board], bool],
        workload: str | Sequence[str] = CLASSIFIERS,
    ) -> None:
        """Stop the run if a sentence stated on this page is not true of the rows.

        Checked where rows can carry a claim: profile laptop or full, at least five seeds,
        the standard request, every strategy of the page run. Elsewhere nothing is checked.

        Args:
            workload: Where the sentence is meant to hold; one name or several.

        Raises:
            AssertionError: the claim is not true; the sentence must be rewritten.
        """
        whole = set(self.known) <= set(self.functions) and self.given["request"] == "standard"
        if self.given["profile"] not in CLAIM_PROFILES or not whole:
            return
        meant = (workload,) if isinstance(workload, str) else workload
        for name, bench in self.benches.items():
            ours = bench.published is None  # others' models are not what is claimed of
            if ours and name in meant and len(bench.seeds) >= CLAIM_SEEDS:
                assert check(self.board(name)), f"not true on {name}: {sentence}"

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
            if workload == "text":
                self.continuations(workload)
            else:
                display(charts.request_picture(_groups(bench)))
            lines = [(s.name, *_measured(s)) for s in (board["original"], board["retrained"])]
            names = [f"{c} {name}" for c, name in bench.load.criteria.items()]
            display(HTML(_table(("model", *names), lines)))
            failed = [g for g in board.gates if not g.passed]
            if failed:
                display(HTML(_gates(failed)))

    def continuations(self, workload: str = "text", *functions: Callable) -> None:
        """Show what models continue a forgotten passage with, true words marked.

        Args:
            functions: Strategies of this page, shown beside original and retrained; the
                model of the first training seed, with the settings of its row.
        """
        if workload not in self.benches:
            return
        bench, seed = self.benches[workload], self.benches[workload].seeds[0]
        models = {
            "original": bench.load.load(bench.originals()[seed]),
            "retrained": bench.load.load(bench.retrained()[seed]),
        }
        for function in functions:
            name = function.__name__
            rows = self.rows(workload, name)
            if name in self.functions and rows and rows[0].status == "ok":
                models[name] = bench.model_of(function, seed)
        parts = bench.asked.parts
        texts = {"forget": parts["forget"].passages[0], "retain": parts["retain"].passages[0]}
        lines = []
        for part, passage in texts.items():
            given, true, said = bench.load.continued(list(models.values()), passage)
            lines.append((part, f"<em>{escape(given)}</em> {escape(true)}"))
            lines += [(n, _marked(true, s)) for n, s in zip(models, said)]
        head = ("text or model", "given (in italics) and true; then each continuation")
        display(HTML(_html_table(head, lines)))

    def beside(self, published: dict[str, tuple[float, float, float, float]]) -> None:
        """Our rows on `text` beside numbers that others publish.

        Args:
            published: Row -> KnowMem on forget, VerbMem on forget (both 0 to 1), PrivLeak
                in percent, KnowMem on retain (0 to 1).
        """
        if "text" not in self.benches:
            return
        board = self.board("text")
        retrained = board["retrained"].metrics["C3"].mean
        lines = []
        for name, theirs in published.items():
            found = board[name].metrics
            leak = metrics.privleak(found["C3"].mean, min(retrained, 0.999))
            ours = [
                _number(found["answers_unseen"].mean),
                _number(found["C1"].mean),
                _number(leak, 0),
                _number(found["retain_answers"].mean),
            ]
            know, verbatim, privleak, kept = theirs
            shown = (_number(know), _number(verbatim), _number(privleak, 0), _number(kept))
            lines.append((name, *(f"{a} / {b}" for a, b in zip(ours, shown))))
        head = (
            "row (ours / 7B, MUSE-News)",
            "KnowMem, forget",
            "VerbMem, forget",
            "PrivLeak %",
            "KnowMem, retain",
        )
        display(HTML(_table(head, lines)))

    # ---- charts and tables

    def course(self, *functions: Callable, every: float = 0.03) -> None:
        """Draw how the true answer's probability moves while language models are unlearned.

        The yardsticks and the given strategies, on the original of the first seed; a
        strategy is looked at while it computes its losses, so it must use the task's.

        Args:
            every: Example passes between two looks, as a share of retraining's.
        """
        if "text" not in self.benches:
            return
        bench, seed = self.benches["text"], self.benches["text"].seeds[0]
        load, parts = bench.load, bench.asked.parts
        asked = parts["forget"].unseen, parts["retain"].some(64).unseen
        say = lambda model: tuple(load.answer_probability(model, q) for q in asked)
        levels = {
            "original": say(load.load(bench.originals()[seed])),
            "retrained": say(load.load(bench.retrained()[seed])),
        }
        yardsticks = [c for c in controls.on("text") if c.__name__ in _COURSE]
        shown = [f for f in functions if f.__name__ in self.functions]
        curves, categories = {}, {}
        for function in (*yardsticks, *shown):
            points = [(0.0, *levels["original"])]

            def look(model, passes, points=points):
                share = passes / bench.retrain_passes
                if share >= points[-1][0] + every:
                    points.append((share, *say(model)))

            full, _ = bench.full_settings(function)
            unlearned, meter, _ = bench.unlearn(function, seed, full, look=look)
            points.append((meter.passes / bench.retrain_passes, *say(unlearned.model)))
            curves[function.__name__] = points
            categories[function.__name__] = function.facts.category
        display(charts.course(curves, levels, categories))

    def leaks(self) -> None:
        """Draw the PrivLeak of this page's strategies, yardsticks and controls on `text`."""
        if "text" in self.benches:
            names = [n for n in self.functions if n in self.known]
            display(charts.leaks(self.board("text"), names))

    def chart(self, *own: Callable) -> None:
        """Draw this page's strategies beside references and controls, one chart a workload."""
        for workload in self.benches:
            names = [
                n
                for n in self.functions
                if (n in self.known or self.functions[n] in own) and self._ran(n, workload)
            ]
            strong = [f.__name__ for f in own if f.__name__ in names]
            display(charts.forest(self.board(workload), names=names, emphasise=strong))

    def table(self) -> None:
        """The rows behind the chart, one table a workload."""
        for workload in self.benches:
            board = self.board(workload)
            lines = [_line(s) for s in board.standings]
            display(Markdown(f"`{workload}`, mean over {len(board.seeds)} seeds (95 % interval):"))
            display(HTML(_table(_COLUMNS, lines)))

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
            for criterion, curves in found.items():
                label = f"{workload}: {criterion} (share; higher: more came back)"
                display(charts.relearning(curves, ylabel=label, categories=categories))

    def departures(self) -> None:
        """The numbered departures from the papers, from the strategies' marks."""
        parts = []
        for name, function in self.functions.items():
            if name in self.known:
                listed = function.facts.departures or ("None that we know of.",)
                numbered = "\n".join(f"{i}. {d}" for i, d in enumerate(listed, 1))
                parts.append(f"**{name}**\n\n{numbered}")
        display(Markdown("\n\n".join(parts)))

    # ---- the glance box

    def glance(self) -> None:
        """The result at a glance; the site lifts it to the top of the page."""
        boxes = [self._glance(workload) for workload in self.benches]
        environment = next(iter(self._references.values())).environment
        dirty = ", uncommitted changes" if environment.dirty else ""
        stamp = (
            f"Profile {self.given['profile']}; {environment.device}, torch {environment.torch}; "
            f"commit {environment.commit[:10]}{dirty}; {environment.at[:10]}."
        )
        display(
            HTML(
                '<div class="admonition note"><p class="admonition-title">Result at a glance</p>'
                f"{''.join(boxes)}<p><small>{escape(stamp)}</small></p></div>"
            )
        )

    def _glance(self, workload: str) -> str:
        board = self.board(workload, self.known)  # a reader's own idea is no result of the page
        mine = [s for s in board.of("strategy") if s.seeds]
        if not mine:
            return f"<p>No strategy of this page ran on {escape(workload)}.</p>"
        ran = [s for s in mine if s.rm]
        if not ran:  # a run so small that original and retrained do not differ
            return f"<p>Nothing can be scored on {escape(workload)} in this run.</p>"
        control, bar = board["partial_retrain"], board.bar
        code = lambda name: f"<code>{escape(name)}</code>"
        reached = "; ".join(
            f"{code(s.name)}{' (an analogue)' if s.analogue else ''} has a Retrain-Match of "
            f"{_interval(s.rm, 1)} of 100"
            for s in board.leaders[:3]
        )
        verdict = (
            f"<strong>{score.first_place(board, code)}</strong> ({len(board.seeds)} seeds). "
            + (f"{reached}. " if reached else "")
            + f"{score.what_is_missing(board, code)} "
            f"Retraining for a quarter of its epochs scores {_interval(control.rm, 1)}; "
            f"<code>{escape(bar.name)}</code>, the best cheap control, "
            f"{_interval(bar.rm, 1)}; full retraining, against the retrainings of other "
            f"seeds, {_interval(board['retrained'].rm, 1)}."
        )
        shown = [board["retrained"], *ran[:3], control, bar, board["original"]]
        shown = sorted(
            {s.name: s for s in shown}.values(), key=lambda s: -s.rm.mean if s.rm else math.inf
        )
        rest = ", ".join(f"<code>{escape(s.name)}</code> {_interval(s.rm, 1)}" for s in ran[3:])
        below = f"<p>Further down: {rest}.</p>" if rest else ""
        return f"<p>{verdict}</p>" + _table(_COLUMNS, [_line(s) for s in shown]) + below


# ------------------------------------------------------------------ text


_COLUMNS = ("row", "Retrain-Match", "F", "P", "U", "z C1", "z C2", "z C3", "cost", "flags")


def _number(value: float | None, digits: int = 2) -> str:
    if value is None or not math.isfinite(value):
        return "—"
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def _interval(interval: score.Interval | None, digits: int = 2) -> str:
    """mean (low to high); the mean alone where one seed is all there is."""
    if interval is None:
        return "—"
    if interval.n < 2:
        return f"{_number(interval.mean, digits)} (1 seed)"
    low, high = _number(interval.low, digits), _number(interval.high, digits)
    return f"{_number(interval.mean, digits)} ({low} to {high})"


def _status(standing: score.Standing) -> str:
    return f"{standing.status.replace('_', ' ')}: {standing.reason}"


def _line(standing: score.Standing) -> tuple[str, ...]:
    """A standing as the cells of _COLUMNS."""
    name = standing.name + (" (analogue)" if standing.analogue else "")
    if standing.rm is None:
        return (name, *("—",) * (len(_COLUMNS) - 2), _status(standing))
    return (
        name,
        _interval(standing.rm, 1),
        *(
            _number(axis.mean) if axis else "—"
            for axis in (standing.forgetting, standing.privacy, standing.utility)
        ),
        *(
            _number(standing.position[c].mean) if c in standing.position else "—"
            for c in ("C1", "C2", "C3")
        ),
        "—" if standing.time_ratio is None else f"{_number(standing.time_ratio)} x retraining",
        ", ".join(standing.flags) or "—",
    )


def _measured(standing: score.Standing) -> tuple[str, ...]:
    return tuple(_interval(standing.metrics.get(c)) for c in ("C1", "C2", "C3", "C4"))


def _table(columns: Sequence[str], lines: Sequence[Sequence[str]], strong: str = "") -> str:
    """An HTML table; every text is escaped."""
    head = "".join(f"<th>{escape(c)}</th>" for c in columns)
    body = "".join(
        "<tr>"
        + "".join(
            f"<td><strong>{escape(c)}</strong></td>" if c == strong else f"<td>{escape(c)}</td>"
            for c in line
        )
        + "</tr>"
        for line in lines
    )
    return (
        '<div class="rows"><table class="dataframe table">'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _marked(true: str, said: str) -> str:
    """What was said, as HTML, with the words that stand in `true` in this order marked."""
    words = said.split()
    same = SequenceMatcher(None, true.split(), words, autojunk=False)
    marked = {k for at in same.get_matching_blocks() for k in range(at.b, at.b + at.size)}
    return " ".join(
        f"<mark>{escape(w)}</mark>" if k in marked else escape(w) for k, w in enumerate(words)
    )


def _html_table(columns: Sequence[str], lines: Sequence[tuple[str, str]]) -> str:
    """A table of a name and a piece of HTML a line."""
    head = "".join(f"<th>{escape(c)}</th>" for c in columns)
    body = "".join(
        f'<tr><td>{escape(name)}</td><td style="text-align: left; white-space: normal">'
        f"{html}</td></tr>"
        for name, html in lines
    )
    return (
        '<div class="rows"><table class="dataframe table">'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _gates(failed: Sequence[records.Gate]) -> str:
    lines = [(g.name, _number(g.value), g.wanted, g.reason or "") for g in failed]
    return (
        "<p>This run does not meet every gate of the workload, so its rows rank nothing:</p>"
        + _table(("gate", "measured", "wanted", "why"), lines)
    )


class _Metrics:
    """Formats as the mean of the measured metric named in the format spec: {m:C1}."""

    def __init__(self, standing: score.Standing):
        self.standing = standing

    def __format__(self, spec: str) -> str:
        # A metric can be absent with a reason: a selected request has no concept (C2).
        found = self.standing.metrics.get(spec)
        return _number(found and found.mean)


class _Info:
    """Formats as the mean over seeds of the rows' info named in the format spec; "—" where
    no row has it."""

    def __init__(self, rows: Sequence[records.Row]):
        self.rows = rows

    def __format__(self, spec: str) -> str:
        values = [r.info[spec] for r in self.rows if spec in r.info]
        if not values:
            return "—"
        if all(isinstance(v, (int, float)) for v in values):
            return f"{sum(values) / len(values):.3g}"
        return ", ".join(sorted({str(v) for v in values}))


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
        "rm": _interval(standing.rm, 1),
        "F": _number(standing.forgetting and standing.forgetting.mean),
        "P": _number(standing.privacy and standing.privacy.mean),
        "U": _number(standing.utility and standing.utility.mean),
        **{
            c: _number(standing.position[c].mean) if c in standing.position else "—"
            for c in ("C1", "C2", "C3")
        },
        "D": _number(standing.divergence and standing.divergence.mean),
        "rank": "unranked"
        if rank is None
        else str(rank[0])
        if rank[0] == rank[1]
        else f"{rank[0]} to {rank[1]}",
        "tier": standing.tier or "—",
        "flags": ", ".join(standing.flags) or "no flags",
        "time_ratio": _number(standing.time_ratio),
        "pass_ratio": _number(standing.pass_ratio),
        "m": _Metrics(standing),
        "o": _Metrics(board["original"]),
        "r": _Metrics(board["retrained"]),
        "info": _Info(rows),
    }


def _groups(bench: Bench) -> list[tuple[str, Any]]:
    """What charts.request_picture draws: examples of each part of the request."""
    asked, rote = bench.asked, bench.asked.rote.cpu()
    forget, retain, holdout = (
        b["inputs"].cpu() for b in (asked.forget, asked.retain, asked.holdout)
    )
    parts = [
        ("forget: concept", forget[~rote]),
        ("forget: canaries", forget[rote]),
        ("retain", retain),
        ("holdout, never trained", holdout),
    ]
    parts = [(label, x) for label, x in parts if len(x)]
    if forget.dim() == 4:
        return [(label, ((x[:, 0] + 1) / 2).clamp(0, 1).numpy()) for label, x in parts]
    # Two directions of largest variance of the training data, for a picture only.
    every = torch.cat([forget, retain])
    _, _, axes = torch.linalg.svd(every - every.mean(0), full_matrices=False)
    return [(label, ((x - every.mean(0)) @ axes[:2].T).numpy()) for label, x in parts]
