"""What is drawn of images and captions alone. Rows do not depend on it.

Every function takes the scene of a page (book.Scene) and returns something to show. Where a
pair's class or writer is not known, less is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from markupsafe import Markup, escape
from torch import Tensor, nn

from ... import charts
from ...strategy import Split
from ...tables import Html, marked, number, picture, table
from ...training import clone
from .task import members

#: Pairs of each part: in a list, in a matrix, and those that a finding is read off, at most.
LISTED, DRAWN, JUDGED = 3, 4, 72
#: Images that a gallery shows.
FOUND = 5
#: Pixels of a thumbnail, at most.
SIDE = 64
#: What a reader calls the parts of a request.
PARTS = {"forget": "forgotten", "retain": "kept", "holdout": "never trained on"}


# ------------------------------------------------------------------ pairs


def _spread(rows: Tensor, count: int) -> Tensor:
    """At most so many rows, evenly spaced, so that they are not all of one writer."""
    return rows[torch.linspace(0, len(rows) - 1, min(count, len(rows))).round().long()]


def _thumbnails(load, rows: Tensor) -> list[np.ndarray]:
    """Images of 0 to 255, (h, w) or (h, w, 3), with one scale for each channel.

    One channel is ink on paper. The numbers that a processor took colours apart with are not
    known here, so colours are those of the images up to a shift and a scale.
    """
    pixels = load.pairs["pixel_values"][rows.to(load.device)].float().cpu()
    if pixels.shape[-1] > SIDE:
        pixels = F.interpolate(pixels, size=(SIDE, SIDE), mode="area")
    low, high = (f(pixels, (0, 2, 3), keepdim=True) for f in (torch.amin, torch.amax))
    shown = (pixels - low) / (high - low).clamp(min=1e-6)
    shown = 1 - shown[:, 0] if pixels.shape[1] == 1 else shown[:, :3].permute(0, 2, 3, 1)
    return list((255 * shown).round().byte().numpy())


def _text(load, input_ids: Tensor) -> str:
    return load.tokenizer.decode(input_ids, skip_special_tokens=True).strip()


def _caption(load, row: int) -> str:
    return _text(load, load.pairs["input_ids"][row, 0])


def _shows(load, row: int) -> str:
    """What the image of a pair shows and whose it is, as far as that is known."""
    kind, writer = int(load.classes[row]), int(load.writers[row])
    said = load.names[0][kind] if kind >= 0 else _caption(load, row)
    return f"{said}, {load.names[1][writer]}" if writer >= 0 else said


class Choices(NamedTuple):
    """Captions of which one is to be found for each image.

    Args:
        input_ids: The captions, (n, T); numbers: (n,), the same where the words are the same.
        right: Number of the right one for every row of the table of pairs; -1 if unknown.
        words: What they are.
    """

    input_ids: Tensor
    numbers: Tensor
    right: Tensor
    words: str


def _choices(load, asked) -> Choices:
    """Of a concept the captions that name one thing; else those of all pairs searched."""
    if asked.kind == "concept":
        numbers = torch.arange(len(load.prompts), device=load.device)
        first, last = (_text(load, load.prompts[k]) for k in (0, -1))
        words = f"{len(numbers)} captions from “{first}” to “{last}”"
        return Choices(load.prompts, numbers, load.classes, words)
    gallery = load.gallery(asked).to(load.device)
    captions = load.pairs["captions"][:, 0]
    input_ids = load.pairs["input_ids"][gallery, 0]
    return Choices(input_ids, captions[gallery], captions, f"{len(gallery)} captions")


def request(scene) -> Html:
    """Forgotten, kept and never-trained pairs, and which caption two models find nearest."""
    load, asked, models = scene.bench.load, scene.bench.asked, scene.models()
    choices = _choices(load, asked)
    rows = {part: _spread(asked.rows[part], LISTED) for part in PARTS if len(asked.rows[part])}
    every = torch.cat(list(rows.values()))
    nearest = {
        name: (load.images(model, every) @ load.texts(model, choices.input_ids).T).argmax(1)
        for name, model in models.items()
    }
    parts = [PARTS[part] for part, some in rows.items() for _ in some]
    plain = set.intersection(*(set(_caption(load, row).split()) for row in every.tolist()))
    lines = []
    for k, (row, pixels) in enumerate(zip(every.tolist(), _thumbnails(load, every))):
        thumbnail = picture(pixels, f"image: {_shows(load, row)}", 40)
        said = [_said(load, choices, row, int(best[k]), plain) for best in nearest.values()]
        first = Markup("{}<br><small>{}</small>").format(thumbnail, parts[k])
        lines.append((first, escape(_caption(load, row)), *said))
    nearest_of = [f"nearest of {choices.words}: {name}" for name in models]
    key = (
        "✓: the pair's own caption was found. Yellow: words that a wrong caption shares with the "
        "own one, in the same order, but those that stand in every caption shown."
    )
    return Html(_note(key) + table(("image", "caption", *nearest_of), lines))


def _note(text: str) -> str:
    """A line above a table."""
    return f"<p><small>{escape(text)}</small></p>"


def _said(load, choices: Choices, row: int, best: int, plain: set[str]) -> Markup:
    """The caption that was found: with a tick if it is right, else with marks on words that
    are, but those that are plain in all captions."""
    text = _text(load, choices.input_ids[best])
    if choices.numbers[best] == choices.right[row]:
        return Markup("<strong>✓</strong> {}").format(text)
    return marked(_caption(load, row), text, plain)


# ------------------------------------------------------------------ similarity matrices


def matrices(scene, *functions: Callable) -> charts.Chart:
    """Cosines of some images and captions: original, at most two strategies, retrained.

    The title is read off more pairs than are drawn.
    """
    load, rows = scene.bench.load, scene.bench.asked.rows
    judged = [_spread(rows[part], JUDGED) for part in ("forget", "retain")]
    drawn = [_spread(torch.arange(len(some)), DRAWN) for some in judged]
    every, split = torch.cat(judged), len(judged[0])
    places = torch.cat([drawn[0], split + drawn[1]])
    input_ids = load.pairs["input_ids"][every.to(load.device), 0]
    cosines = {
        name: (load.images(model, every) @ load.texts(model, input_ids).T).cpu().numpy()
        for name, model in _in_order(scene, functions, 2).items()
    }
    title, values = _standing_out(cosines, split)
    title += (
        f" (mean of {split} forgotten and {len(every) - split} kept pairs{_single(cosines, split)})"
    )
    alt = (
        f"Rows are images and columns captions, {len(drawn[0])} forgotten pairs before "
        f"{len(drawn[1])} kept ones. Cosine of own pairs minus that with captions of the other "
        f"part, mean over {split} forgotten and {len(every) - split} kept pairs: {values}."
    )
    return charts.heat_maps(
        {name: table[np.ix_(places, places)] for name, table in cosines.items()},
        _thumbnails(load, every[places]),
        [_shows(load, row) for row in every[places].tolist()],
        len(drawn[0]),
        "cosine of image and caption",
        title,
        alt,
    )


def _in_order(scene, functions: Sequence[Callable], most: int) -> dict[str, nn.Module]:
    """Original, the first strategies that have a model, retrained."""
    found = scene.models(*functions)
    ends = {name: found.pop(name) for name in ("original", "retrained")}
    between = dict(islice(found.items(), most))
    return {"original": ends["original"], **between, "retrained": ends["retrained"]}


def _margins(cosines: np.ndarray, split: int) -> tuple[float, float]:
    """How much nearer forgotten, and kept, images are to their own captions than to those of
    the other part: means of cosines."""
    own = np.diagonal(cosines)
    forgotten = own[:split] - cosines[:split, split:].mean(1)
    kept = own[split:] - cosines[split:, :split].mean(1)
    return float(forgotten.mean()), float(kept.mean())


def _standing_out(cosines: dict[str, np.ndarray], split: int) -> tuple[str, str]:
    """The finding of `matrices`, and the values behind it in words."""
    found = {name: _margins(values, split) for name, values in cosines.items()}
    values = "; ".join(f"{n} forgotten {f:.2f}, kept {k:.2f}" for n, (f, k) in found.items())
    before, kept_before = found.pop("original")
    gone, _ = found.pop("retrained")
    if not before - gone > 0.1:
        return "Forgotten pairs stand out hardly more in the original than after retraining", values
    if not found:
        return "Forgotten pairs stand out in the original, and less after retraining", values
    said: dict[str, list[str]] = {}
    for name, (forgotten, kept) in found.items():
        left, stays = (forgotten - gone) / (before - gone), kept / kept_before
        finding = f"forgotten pairs {_left(left)}, kept pairs {_stays(stays)}"
        said.setdefault(finding, []).append(name)
    return "; ".join(f"{' and '.join(names)}: {what}" for what, names in said.items()), values


def _single(cosines: dict[str, np.ndarray], split: int) -> str:
    """How many single forgotten pairs stand out more like the original's than like retrained.

    "" where the two do not differ, as in `_standing_out`.
    """
    before, gone = (_margins(cosines[name], split)[0] for name in ("original", "retrained"))
    if not before - gone > 0.1:
        return ""
    counts = []
    for name, values in cosines.items():
        margins = np.diagonal(values)[:split] - values[:split, split:].mean(1)
        counts.append(f"{int((margins > (before + gone) / 2).sum())} in {name}")
    return f"; forgotten ones nearer to the original's mean: {', '.join(counts)}"


def _left(share: float) -> str:
    """What is left of forgotten pairs, from 0, as retrained, to 1, as the original."""
    if share < -0.25:
        return "stand out less than after retraining"
    if share <= 0.25:
        return "stand out no more than after retraining"
    return "stand out less" if share < 0.75 else "stand out as before"


def _stays(share: float) -> str:
    if share >= 0.75:
        return "as before"
    return "less" if share >= 0.25 else "no longer"


# ------------------------------------------------------------------ attention


class Looked(NamedTuple):
    """Attention of the last layer, mean over heads, of the place that is read.

    `patches` (n, patches): of an image's class token; `words` (n, T): of the end token. Each
    sums to 1 with what the class token gives to itself.
    """

    patches: Tensor
    words: Tensor


@torch.no_grad()
def looked(load, model: nn.Module, rows: Tensor) -> Looked:
    """Where a model looks on some pairs; of an ensemble the mean. The model stays as it is."""
    pairs = load.pairs.take(rows.to(load.device))
    pixels, input_ids = pairs["pixel_values"], pairs["input_ids"][:, 0]
    place = torch.arange(len(input_ids), device=load.device)
    found = []
    for member in members(model):
        eager = clone(member).eval()
        eager.set_attn_implementation("eager")
        seen = eager.vision_model(pixels, output_attentions=True).attentions[-1]
        read = eager.text_model(input_ids, output_attentions=True).attentions[-1]
        found.append((seen.mean(1)[:, 0, 1:], read.mean(1)[place, _ends(load, input_ids)]))
    return Looked(*(torch.stack(parts).mean(0).float().cpu() for parts in zip(*found)))


def _ends(load, input_ids: Tensor) -> Tensor:
    """Where captions end, (n,)."""
    return (input_ids == load.tokenizer.eos_token_id).int().argmax(1)


def attention(scene, function: Callable) -> Html:
    """Where the last layers look, on two forgotten pairs and a kept one.

    An image is bright where its class token looks. The bar under a word is as thick as the
    end token's attention to it.
    """
    load, rows = scene.bench.load, scene.bench.asked.rows
    models = _in_order(scene, [function], 1)
    shown = [*_spread(rows["forget"], 2).tolist(), *_spread(rows["retain"], 1).tolist()]
    where = {name: looked(load, model, torch.tensor(shown)) for name, model in models.items()}
    strongest = Looked(*(torch.stack(t).amax((0, 2)) for t in zip(*where.values())))
    lines = []
    for k, (row, pixels) in enumerate(zip(shown, _thumbnails(load, torch.tensor(shown)))):
        part = PARTS["forget" if row in rows["forget"] else "retain"]
        cells = [
            Markup("{}<br>{}").format(
                _spotlit(pixels, at.patches[k] / strongest.patches[k], _shows(load, row)),
                _weighed(load, row, at.words[k], strongest.words[k]),
            )
            for at in where.values()
        ]
        lines.append((part, *cells))
    key = (
        "An image fades to grey where its class token does not look; a word's bar is as thick as "
        "the attention that the end of the caption pays to it."
    )
    return Html(_note(key) + table(("pair", *models), lines) + _moved(scene, models))


def _spotlit(pixels: np.ndarray, share: Tensor, what: str) -> Markup:
    """A thumbnail that fades to grey where nobody looks; `share` is 1 where most do."""
    grid = int(len(share) ** 0.5)
    shades = F.interpolate(share.view(1, 1, grid, grid), size=pixels.shape[:2])[0, 0].numpy()
    shades = shades if pixels.ndim == 2 else shades[..., None]
    down, across = divmod(int(share.argmax()), grid)
    alt = f"{what}: most attention on patch {across + 1} of {grid} in row {down + 1} of {grid}"
    return picture(128 + (pixels - 128.0) * shades, alt, SIDE)


def _weighed(load, row: int, weights: Tensor, most: Tensor) -> Markup:
    """The words of a caption up to its end, each over a bar as thick as its attention."""
    input_ids = load.pairs["input_ids"][row, 0].cpu()
    words = load.tokenizer.convert_ids_to_tokens(input_ids[: int(_ends(load, input_ids[None])) + 1])
    return Markup(" ").join(
        Markup(
            '<span title="{}" style="display: inline-block; vertical-align: top; '
            'border-bottom: {:.1f}px solid currentColor">{}</span>'
        ).format(number(float(weight)), 10 * float(weight / most), word.removesuffix("</w>"))
        for word, weight in zip(words, weights)
    )


def _moved(scene, models: dict[str, nn.Module]) -> str:
    """Whom a strategy looks like, and how much attention each model turned elsewhere."""
    load, lines, said = scene.bench.load, [], ""
    for part in ("forget", "retain"):
        rows = _spread(scene.bench.asked.rows[part], JUDGED)
        at = {name: looked(load, model, rows) for name, model in models.items()}
        if part == "forget" and len(at) > 2:
            said = _alike(at)
        before = at.pop("original")
        for name, now in at.items():
            shares = _turned(before, now)
            lines.append((f"{PARTS[part]} ({len(rows)})", name, *map(number, shares)))
    said += "Share of attention that is elsewhere than in the original, mean over pairs:"
    return f"<p>{escape(said)}</p>" + table(("pairs", "model", "images", "captions"), lines)


def _alike(at: dict[str, Looked]) -> str:
    """Which of the two reference models the one between them looks like."""
    before, (name, now), gone = at["original"], list(at.items())[1], at["retrained"]
    nearer = sum(_turned(before, now)) <= sum(_turned(gone, now))
    both = "the original looks", "the retrained model looks"
    like, unlike = both if nearer else both[::-1]
    return f"On forgotten pairs {name} looks more where {like} than where {unlike}. "


def _turned(before: Looked, now: Looked) -> tuple[float, float]:
    """Total variation of attention that sums to 1, of patches and of words: 0 to 1.

    Means over pairs. What is not listed, a class token's attention to itself, is one place
    more.
    """
    apart = [one - other for one, other in zip(before, now)]
    return tuple(float((d.abs().sum(1) + d.sum(1).abs()).mean() / 2) for d in apart)


# ------------------------------------------------------------------ the layer that was chosen


def pareto(scene, candidates_of: Callable, function: Callable) -> charts.Chart:
    """Which layer a strategy chose, among all that it looked at.

    Args:
        candidates_of: (model, forget, retain, task) -> layers, each with `tower`, `layer`,
            `importance`, `alignment` and `front`, whether none is better in both.
        function: The strategy; the info of its first row says `tower` and `layer`.
    """
    bench, seed = scene.bench, scene.bench.seeds[0]
    splits = (Split(part, getattr(bench.asked, part)) for part in ("forget", "retain"))
    model = bench.load.load(bench.originals()[seed])
    found = candidates_of(model, *splits, bench.load.task(seed))
    rows = scene.rows(function.__name__)
    info = rows[0].info if rows and rows[0].status == "ok" else {}
    taken = info.get("tower"), info.get("layer")
    return chosen_layer(function.__name__, found, taken)


def chosen_layer(name: str, found: Sequence, taken: tuple[str | None, str | None]) -> charts.Chart:
    """The picture of `pareto`, from the layers and the (tower, layer) that was chosen."""
    panels: dict[str, list[charts.Point]] = {}
    for one in found:
        label = _layer(one.layer)
        point = charts.Point(
            label, one.alignment, one.importance, one.front, (one.tower, one.layer) == taken
        )
        panels.setdefault(f"{one.tower} tower", []).append(point)
    title, alt = _choice(name, panels)
    return charts.trade_off(
        panels,
        "alignment with the retain loss (less is better; scale of square roots)",
        "importance for the forget set (more is better)",
        "VLM",
        title,
        alt,
    )


def _layer(name: str) -> str:
    """A layer's name without what all of its tower have in common."""
    parts = name.removesuffix(".weight").split(".")
    place = parts.index("layers") + 1 if "layers" in parts else 1
    return ".".join(parts[place:] or parts)


def _choice(name: str, panels: dict[str, list[charts.Point]]) -> tuple[str, str]:
    """Where the chosen layer stands among all, and what else is to be seen."""
    every = [point for points in panels.values() for point in points]
    front = [point for point in every if point.front]
    alt = "; ".join(
        f"{tower}: {len(points)} layers, on the front "
        f"{', '.join(p.label for p in points if p.front) or 'none'}"
        for tower, points in panels.items()
    )
    chosen = [(tower, p) for tower, points in panels.items() for p in points if p.chosen]
    if not chosen:
        return f"Of {len(every)} layers {len(front)} are beaten by no other in both measures", alt
    (tower, one), *_ = chosen
    more = 1 + sum(p.y > one.y for p in every)
    less = 1 + sum(p.x < one.x for p in every)
    beaten = "" if one.front else "; another layer of its tower beats it in both"
    title = f"{name} edits {one.label} of the {tower}: of {len(every)} layers rank {more} by "
    return f"{title}importance (most first), rank {less} by alignment (least first){beaten}", alt


# ------------------------------------------------------------------ galleries


class Query(NamedTuple):
    """A caption that looks for images: which part it is of, its tokens (1, T), and which of the
    pool are right, (n,)."""

    part: str
    input_ids: Tensor
    right: Tensor


def gallery(scene, *functions: Callable) -> Html:
    """The images that a caption finds first, for something forgotten and something kept.

    The caption names a writer, a concept, or is a pair's own where neither is known.
    """
    load, asked = scene.bench.load, scene.bench.asked
    pool = _pool(load, asked)
    queries = [
        _query(load, asked, part, rows, pool)
        for part, rows in (
            ("forget", asked.rows["forget"]),
            ("retain", torch.cat([asked.rows["nearest"], asked.rows["retain"]])),
        )
    ]
    models = _in_order(scene, functions, len(functions))
    seen = {name: load.images(model, pool) for name, model in models.items()}
    shown = []
    for query in queries:
        lines = []
        for name, model in models.items():
            cosines = (seen[name] @ load.texts(model, query.input_ids).T)[:, 0]
            first = cosines.topk(min(FOUND, len(pool))).indices.cpu()
            hits = query.right[first]
            lines.append((_counted(name, hits), _framed(load, pool[first], hits)))
        asks = _text(load, query.input_ids[0])
        shown.append(Markup("<p>{}: “{}”</p>").format(PARTS[query.part].capitalize(), asks))
        shown.append(table(("model", f"the first {FOUND} images"), lines))
    return Html("".join(shown))


def _pool(load, asked) -> Tensor:
    """Rows whose images are looked through: of a concept unseen ones, else those trained on too."""
    if asked.kind == "concept":
        return torch.cat([asked.rows["concept"], asked.rows["utility"]])
    return load.gallery(asked)


def _query(load, asked, part: str, rows: Tensor, pool: Tensor) -> Query:
    """What is asked of one part: its first concept, writer or caption."""
    if asked.kind == "concept":
        of, texts = load.classes.cpu(), load.prompts
    elif (load.writers[rows] >= 0).any():
        of, texts = load.writers.cpu(), load.people
    else:
        row = int(rows[0])
        captions = load.pairs["captions"][:, 0].cpu()
        return Query(part, load.pairs["input_ids"][row, :1], captions[pool] == captions[row])
    one = of[rows][of[rows] >= 0][0]
    return Query(part, texts[one : one + 1], of[pool] == one)


def _counted(name: str, right: Tensor) -> Markup:
    return Markup("{}<br><small>{} of {} right</small>").format(name, int(right.sum()), len(right))


def _framed(load, rows: Tensor, right: Tensor) -> Markup:
    """Thumbnails of what was found; right ones with a frame and a tick."""
    cell = Markup('<span style="display: inline-block; text-align: center">{}<br>{}</span>')
    # Black inside white: a frame on a light and on a dark page.
    frames = "border: 3px solid transparent", "border: 3px solid #000; outline: 1px solid #fff"
    shown = []
    for row, pixels, hit in zip(rows.tolist(), _thumbnails(load, rows), right.tolist()):
        alt = f"{'right' if hit else 'not asked for'}: {_shows(load, row)}"
        shown.append(cell.format(picture(pixels, alt, 32, frames[hit]), "✓" if hit else "\u00a0"))
    return Markup(" ").join(shown)


# ------------------------------------------------------------------ what gives membership away


def privacy(scene) -> Html:
    """How well the cosine tells forgotten pairs from pairs that were never trained on.

    With the whole captions, and with captions that only describe the image. Where original and
    retrained model differ by less than a gate asks for, the column says nothing.
    """
    least = next(g["bound"] for g in scene.bench.load.gates if g["measure"] == "AUC gap")
    lines = []
    for metric, what in (("C3", "whole captions"), ("auc_described", "without the writer")):
        found = [scene.board[name].metrics.get(metric) for name in ("original", "retrained")]
        if None in found:  # captions that name no writer are whole as they are
            continue
        original, retrained = (one.mean for one in found)
        gap = original - retrained
        verdict = "yes: it tells members" if gap >= least else "no: uninformative"
        lines.append((what, *(number(value) for value in (original, retrained, gap)), verdict))
    head = "AUC, original", "AUC, retrained", "gap", f"gap of {least} or more?"
    asked = f"<p>To forget: {escape(scene.bench.asked.sentence)}.</p>"
    return Html(asked + table(("captions", *head), lines))


#: Measurements that enter no score, with what a table's head calls them.
_COLUMNS = {
    "recall": "own caption or image found",
    "told_apart": "told from other writers'",
    "top_5": "C2, best 5",
    "tpr_at_1_fpr": "true at 1 % false",
    "probe": "probe on frozen features",
    "retain_accuracy": "kept pairs found",
    "nearest": "nearest kept",
}


def columns(scene) -> Html:
    """What is measured beside the score: references, controls, and this page's strategies."""
    board, lines = scene.board, []
    for line in board.standings:
        if not line.metrics or (line.kind == "strategy" and line.name not in scene.names):
            continue
        found = (line.metrics.get(name) for name in _COLUMNS)
        lines.append((line.label, *(number(one.mean) if one else number(None) for one in found)))
    rows = scene.bench.asked.rows
    apart = scene.board["original"].metrics.get("told_apart")
    note = (
        ("C1 is the mean of the first two columns. " if apart else "")
        + f"Kept pairs: {len(rows['retain'])}. Nearest kept: {len(rows['nearest'])} "
        + f"{scene.bench.asked.near}."
    )
    return Html(_note(note) + table(("row", *_COLUMNS.values()), lines))
