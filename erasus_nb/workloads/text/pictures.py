"""What is drawn of a language model alone. Rows do not depend on it.

Every function takes the scene of a page (book.Scene) and returns something to show.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from markupsafe import Markup

from ... import charts, controls, metrics
from ...tables import Html, marked, number, table

#: The yardsticks whose course is drawn.
_COURSE = ("grad_diff", "npo", "ascent_to_destruction")


def request(scene) -> Html:
    """What original and retrained model continue a forgotten and a kept passage with."""
    return continuations(scene)


def continuations(scene, *functions: Callable) -> Html:
    """What models continue a passage with, true words marked.

    Args:
        functions: Strategies of this page, shown beside original and retrained; the model
            of the first training seed, with the settings of its row.
    """
    bench, models = scene.bench, scene.models(*functions)
    lines = []
    for part in ("forget", "retain"):
        passage = bench.asked.parts[part].passages[0]
        given, true, said = bench.load.continued(list(models.values()), passage)
        lines.append((part, Markup("<em>{}</em> {}").format(given, true)))
        lines += [(name, marked(true, text)) for name, text in zip(models, said)]
    head = ("text or model", "given (in italics) and true; then each continuation")
    return table(head, lines)


def beside(scene, published: Mapping[str, tuple[float, float, float, float]]) -> Html:
    """Our rows beside numbers that others publish.

    Args:
        published: Row -> KnowMem on forget, VerbMem on forget (both 0 to 1), PrivLeak in
            percent, KnowMem on retain (0 to 1).
    """
    board = scene.board
    retrained = board["retrained"].metrics["C3"].mean
    lines = []
    for name, theirs in published.items():
        found = board[name].metrics
        leak = metrics.privleak(found["C3"].mean, min(retrained, 0.999))
        ours = (
            found["answers_unseen"].mean,
            found["C1"].mean,
            leak,
            found["retain_answers"].mean,
        )
        digits = (2, 2, 0, 2)
        pairs = zip(ours, theirs, digits, strict=True)
        lines.append((name, *(f"{number(a, d)} / {number(b, d)}" for a, b, d in pairs)))
    head = (
        "row (ours / 7B, MUSE-News)",
        "KnowMem, forget",
        "VerbMem, forget",
        "PrivLeak %",
        "KnowMem, retain",
    )
    return table(head, lines)


def course(scene, *functions: Callable, every: float = 0.03) -> charts.Chart:
    """How the true answer's probability moves while a language model is unlearned.

    The yardsticks and the given strategies, on the original of the first seed; a strategy is
    looked at while it computes its losses, so it must use the task's.

    Args:
        every: Example passes between two looks, as a share of retraining's.
    """
    bench, seed = scene.bench, scene.bench.seeds[0]
    load, parts = bench.load, bench.asked.parts
    asked = parts["forget"].unseen, parts["retain"].some(64).unseen
    say = lambda model: tuple(load.answer_probability(model, q) for q in asked)
    levels = {
        "original": say(load.load(bench.originals()[seed])),
        "retrained": say(load.load(bench.retrained()[seed])),
    }
    yardsticks = [c for c in controls.on(load.provides) if c.__name__ in _COURSE]
    shown = [f for f in functions if scene.rows(f.__name__)]
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
    return charts.course(curves, levels, categories)


def leaks(scene) -> charts.Chart:
    """PrivLeak of this page's strategies, yardsticks and controls."""
    return charts.leaks(scene.board, scene.names)
