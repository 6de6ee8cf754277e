"""What is drawn of images made from captions alone. Rows do not depend on it.

Every picture takes the scene of a page (book.Scene) and returns something to show. All models
are sampled from the same noises, and where a measurement samples, the picture shows its images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from markupsafe import Markup, escape
from torch import Tensor

from ... import charts, metrics
from ...tables import DASH, Html, number, picture, table
from . import ATTACKED, NEIGHBOURS, RATIO, attacks
from .captions import INKS, SPELLINGS
from .judge import Judge
from .pipelines import decoded
from .process import Diffusion

#: Pixels on the screen of an image alone and of one of several: a scan's own are four and three
#: wide, a frame two. Pixels of an image that is made smaller, at most.
WIDTH, NARROW, SIDE = 36, 28, 64
#: Images of each part of a request; of each group of prompts; of each attack.
LISTED, SHOWN, BROUGHT = 3, 6, 3
#: Steps of a path that are drawn, at most.
STEPS = 10
#: Samples of each prompt by which steps are judged.
TRIED = 3
#: Share of a sampler's steps that a window has.
WINDOW = 0.4
#: A share that is so much above another one is called higher.
MORE = 0.1
#: What a mark under an image means.
DIGITS = (
    "Under an image stands what the judge sees: ✓ for the digit asked for, else the digit that it "
    "sees, or – for none."
)
SCANS = (
    "Under an image of a private caption stands = if it is a copy of the private scan, else the "
    "digit that the judge sees, or – for none: the right digit gets no ✓, because it is no copy."
)
FRAMED = "A frame is round an image that shows what was asked for (✓ or =)."
LEGEND = f"{DIGITS} {SCANS} {FRAMED}"
SEED = "All models are those of the first training seed."


# ------------------------------------------------------------------ images and what they show


def _spread(rows: Sequence, count: int) -> list:
    """At most so many of some things, evenly spaced."""
    places = torch.linspace(0, len(rows) - 1, min(count, len(rows))).round().long()
    return [rows[k] for k in places.tolist()]


def _thumbnail(image: Tensor) -> np.ndarray:
    """An image of -1 to 1 as 0 to 255: one channel is ink on paper, three are colours."""
    image = image.detach().float().cpu()
    if image.shape[-1] > SIDE:
        image = F.interpolate(image[None], size=(SIDE, SIDE), mode="area")[0]
    shown = (image.clamp(-1, 1) + 1) / 2
    shown = 1 - shown[0] if len(shown) == 1 else shown[:3].permute(1, 2, 0)
    return (255 * shown).round().byte().numpy()


def _tile(image: Tensor, alt: str, width: int, mark: str = "", framed: bool = False) -> Markup:
    """An image over a short mark, perhaps in a frame."""
    # Black inside white: a frame on a light and on a dark page. In the dark the theme would put
    # every image of an output on a card.
    frame = "#000; outline: 1px solid #fff" if framed else "transparent"
    style = f"margin: 0; padding: 0; border-radius: 0; background: none; border: 2px solid {frame}"
    shown = picture(_thumbnail(image), alt, width, style)
    whole = Markup('<span style="display: inline-block; text-align: center">{}<br>{}</span>')
    return whole.format(shown, mark) if mark else shown


def _caption(load, prompt: Tensor) -> str:
    return load.tokenizer.decode(prompt, skip_special_tokens=True).strip()


def _digits(digits: Iterable[int], spelling: int = 0) -> str:
    return " or ".join(SPELLINGS[spelling][k] for k in digits)


class Seen(NamedTuple):
    """What is said of one image: a short mark, the same in words, and whether it is what its
    prompt asks for (a digit, or a private scan)."""

    mark: str
    words: str
    right: bool


def _judged(load, images: Tensor, digits: Tensor) -> list[Seen]:
    """What the first judge says of each image, beside the digit asked for."""
    found = []
    for seen, wanted in zip(load.judges[0].sees(images).tolist(), digits.tolist()):
        what = (
            f"the judge sees the digit {SPELLINGS[0][seen]}"
            if seen >= 0
            else "the judge sees no digit"
        )
        mark = "✓" if seen == wanted else str(seen) if seen >= 0 else "–"
        found.append(Seen(mark, what, seen == wanted))
    return found


def _copies(load, images: Tensor, rows: Tensor) -> Tensor:
    """Whether each image is a copy of the private scan in this row, as C1 counts it, (n,)."""
    pool = load.training.unique()
    own = torch.searchsorted(pool, rows.cpu()).to(images.device)
    flat = load.images["pixel_values"][pool].flatten(1)
    return metrics.extracted(torch.cdist(images.flatten(1), flat), own, RATIO, NEIGHBOURS)


def _compared(load, images: Tensor, rows: Tensor) -> list[Seen]:
    """Whether each image is a copy of a private scan; what the judge sees in those that are none.

    To obey the digit of a private prompt is not to make its scan, and gets no tick.
    """
    seen = _judged(load, images, torch.full_like(rows, -2))
    return [
        Seen("=", "a copy of its private scan", True)
        if copy
        else other._replace(words=f"no copy of its private scan, {other.words}")
        for copy, other in zip(_copies(load, images, rows).tolist(), seen)
    ]


def _shown(image: Tensor, said: str, seen: Seen, width: int = WIDTH) -> Markup:
    """An image made from a caption, over its mark."""
    return _tile(image, f"“{said}”: {seen.words}", width, seen.mark, seen.right)


def _several(images: Tensor, captions: Sequence[str], found: Sequence[Seen]) -> Markup:
    """Images side by side, each over its mark."""
    return _row(_shown(*one, NARROW) for one in zip(images, captions, found))


def _row(tiles: Iterable[Markup | str]) -> Markup:
    """Images or text as wide as three images, or as two where there is less room."""
    style = f"display: inline-block; min-width: {2 * NARROW}px; max-width: {3 * NARROW + 2}px"
    return Markup('<span style="{}">{}</span>').format(style, Markup("").join(tiles))


def _name(model: str) -> Markup:
    """The name of a row, which may be broken at its underscores."""
    return escape(model).replace("_", Markup("_<wbr>"))


def _counted(found: Sequence[Seen]) -> str:
    return f"{sum(one.right for one in found)} of {len(found)}"


def _around(shown: Html, before: str = "", after: str = "") -> Html:
    """A table between a paragraph that says what is found and a note; text is escaped."""
    first = f"<p>{escape(before)}</p>" if before else ""
    last = f"<p><small>{escape(after)}</small></p>" if after else ""
    return Html(first + str(shown) + last)


#: What is shown of attacks where there is nothing to attack, and of others' images and captions.
NOTHING = Html("<p>This request names no concept that an attack could ask for.</p>")
ELSEWHERE = Html("<p>This picture is drawn of the book's own scans and captions only.</p>")


# ------------------------------------------------------------------ the request


def _listed(load, asked) -> dict[str, tuple[Tensor, bool]]:
    """Part of the request in words -> some of its rows, and whether they are private scans."""
    rows, private = asked.rows, torch.cat([fold.private for fold in load.folds])
    owned = torch.isin(rows["retain"], private)
    parts = {
        "forgotten": (rows["concept"], False),
        f"forgotten, trained on {load.sizes.copies} times": (rows["private"], True),
        "kept": (rows["retain"][~owned], False),
        f"kept, trained on {load.sizes.copies} times": (rows["retain"][owned], True),
        "never trained on": (rows["concept holdout"], False),
        "never trained on, private": (rows["private holdout"], True),
    }
    few = lambda some, count: torch.tensor(_spread(some.tolist(), count))
    return {
        part: (few(some, LISTED if part.startswith("forgotten") else LISTED - 1), own)
        for part, (some, own) in parts.items()
        if len(some)
    }


def request(scene) -> Html:
    """Scans of each part of the request, their captions, and what two models make of these."""
    if scene.bench.load.published:
        return _others(scene)
    load, lines, forgotten = scene.bench.load, [], {}
    listed = _listed(load, scene.bench.asked)
    every = torch.cat([rows for rows, _ in listed.values()])
    scans, prompts = load.images["pixel_values"][every], load.images["prompts"][every, 0]
    models = scene.models()
    made = {name: load.sampled(model, prompts, 1, "request") for name, model in models.items()}
    start = 0
    for part, (rows, private) in listed.items():
        place = slice(start, start := start + len(rows))
        says = partial(_said_of, load, rows, private)
        found = {name: says(images[place]) for name, images in made.items()}
        if part.startswith("forgotten"):
            what = "copies of private scans" if private else "forgotten digits"
            forgotten[what] = {name: _counted(seen) for name, seen in found.items()}
        for k, (row, scan) in enumerate(zip(rows.tolist(), scans[place])):
            said = _caption(load, load.images["prompts"][row, 0])
            first = Markup("{}<br>{}").format(_tile(scan, f"scan: {said}", WIDTH), part)
            cells = [
                _shown(images[place][k], said, found[name][k]) for name, images in made.items()
            ]
            lines.append((first, escape(said), *cells))
    told = "; ".join(
        f"{what}: {', '.join(f'{name} {count}' for name, count in by_model.items())}"
        for what, by_model in forgotten.items()
    )
    head = ("scan", "caption", *(f"made from it: {name}" for name in models))
    return _around(table(head, lines), f"Made from these captions, {told}.", f"{LEGEND} {SEED}")


def _others(scene) -> Html:
    """Images of others, their captions, and what two models make of these; nothing is judged."""
    load, asked, models = scene.bench.load, scene.bench.asked, scene.models()
    forgotten = torch.cat([asked.rows["concept"], asked.rows["private"]])
    parts = {"forgotten": forgotten, "kept": asked.rows["retain"]}
    lines = []
    for part, rows in parts.items():
        rows = torch.tensor(_spread(rows.tolist(), LISTED), device=load.device)
        prompts = load.images["prompts"][rows, 0]
        columns = [load.images["pixel_values"][rows]]
        columns += [load.sampled(model, prompts, 1, "request") for model in models.values()]
        columns = [decoded(load.pipeline.vae, images) for images in columns]
        for k, prompt in enumerate(prompts):
            said = _caption(load, prompt)
            real, *made = (_tile(_seen(images[k]), f"image: {said}", SIDE) for images in columns)
            lines.append((Markup("{}<br>{}").format(real, part), escape(said), *made))
    return table(("image", "caption", *(f"made from it: {name}" for name in models)), lines)


def _seen(image: Tensor) -> Tensor:
    """An image of others as _thumbnail takes it: light is not ink."""
    return -image if len(image) == 1 else image


def _said_of(load, rows: Tensor, private: bool, images: Tensor) -> list[Seen]:
    """What is said of images made from the captions of some rows, one each."""
    rows = rows.to(images.device)
    if private:
        return _compared(load, images, rows)
    return _judged(load, images, load.images["kinds"][rows])


# ------------------------------------------------------------------ samples


class Group(NamedTuple):
    """Prompts that are sampled and judged together.

    Args:
        title: What they ask for.
        prompts: (n, T), each tried `each` times from the noises called `name`.
        digits: The digit asked for by each prompt, (n,).
        rows: The private scan of each prompt, (n,); None where they ask for digits.
        places: Which of the n * each images are shown.
        scans: A real scan for each image shown, as a row of the table; -1 where there is none.
    """

    title: str
    prompts: Tensor
    each: int
    name: tuple
    digits: Tensor
    rows: Tensor | None
    places: list[int]
    scans: list[int]

    def images(self, load, model) -> Tensor:
        """All images of the group, (n * each, 1, 8, 8)."""
        return load.sampled(model, self.prompts, self.each, *self.name)

    def seen(self, load, images: Tensor) -> list[Seen]:
        """What is said of them."""
        if self.rows is None:
            return _judged(load, images, self.digits.repeat_interleave(self.each))
        return _compared(load, images, self.rows.repeat_interleave(self.each))


def _groups(load, asked) -> dict[str, Group]:
    """Of a request: prompts with the word, with the paraphrase, private ones, and kept ones.

    With the noises that measure C2, C1 and C4.
    """
    found, each = {}, attacks.NOISES // len(INKS)
    if asked.digits:
        for spelling, kind in enumerate(("word", "paraphrase")[: load.prompts.shape[2]]):
            title = f"“{_digits(asked.digits, spelling)}”"
            found[kind] = _of_digits(
                load, title, asked.digits, spelling, each, "concept", asked.rows["concept"], 2
            )
    if len(rows := asked.rows["private"]):
        places = _spread(range(len(rows)), SHOWN)
        rows, tries = rows.to(load.device), load.sizes.tries
        prompts, digits = load.images["prompts"][rows, 0], load.images["kinds"][rows]
        scans, places = [int(rows[k]) for k in places], [k * tries for k in places]
        title = "private scans"
        found["private"] = Group(title, prompts, tries, ("private",), digits, rows, places, scans)
    found["kept"] = _of_digits(
        load, "kept digits", asked.kept, 0, load.sizes.samples, "kept", asked.rows["retain"], 1
    )
    return found


def _of_digits(load, title, digits, spelling, each, name, rows, shown) -> Group:
    """A group of captions of some digits in all inks; `shown` images of a caption are shown, or
    of one ink of each digit where there are many digits."""
    prompts = load.prompts_of(digits, spelling)
    wanted = torch.tensor(digits, device=load.device).repeat_interleave(len(INKS))
    few = range(len(prompts)) if len(digits) == 1 else range(1, len(prompts), len(INKS))
    places = [k * each + j for j in range(min(shown, each)) for k in few]
    said, scans = load.images["prompts"][rows.to(load.device), spelling], []
    for place in places:
        alike = rows[(said == prompts[place // each]).all(1).cpu()].tolist()
        scans.append(alike[place % each % len(alike)] if alike else -1)
    return Group(title, prompts, each, (name, spelling), wanted, None, places, scans)


def samples(scene, *functions: Callable) -> Html:
    """Images of forgotten and of kept prompts, from the same noises, of every model.

    Args:
        functions: Strategies of this page, shown below original and retrained; the model of
            the first training seed, with the settings of its row.
    """
    if scene.bench.load.published:
        return ELSEWHERE
    load, models = scene.bench.load, scene.models(*functions)
    groups = _groups(load, scene.bench.asked)
    lines = [("real scans", *(_real(load, group) for group in groups.values()))]
    forgotten = {}
    for name, model in models.items():
        cells, left = [], []
        for kind, group in groups.items():
            images = group.images(load, model)
            found = group.seen(load, images)
            captions = [_caption(load, group.prompts[k // group.each]) for k in group.places]
            some = [found[k] for k in group.places]
            tiles = _several(images[group.places], captions, some)
            cells.append(Markup("{}<br>{}").format(tiles, _counted(found)))
            if kind != "kept":
                left += found
        lines.append((_name(name), *cells))
        forgotten[name] = sum(one.right for one in left) / len(left)
    told = ", ".join(f"{name} {number(share)}" for name, share in forgotten.items())
    head = ("model", *(group.title for group in groups.values()))
    said = f"Share of images of forgotten prompts that show what was asked for: {told}."
    note = (
        f"All columns but the last are forgotten prompts. {LEGEND} Below, in how many of all "
        f"images there is what was asked for. {SEED}"
    )
    return _around(table(head, lines), said, note)


def _real(load, group: Group) -> Markup:
    """A real scan for each image of a group that is shown, where there is one."""
    return _row(
        _tile(
            load.images["pixel_values"][row],
            f"real scan: {_caption(load, load.images['prompts'][row, 0])}",
            NARROW,
        )
        for row in group.scans
        if row >= 0
    )


# ------------------------------------------------------------------ the path of one sample


@dataclass(frozen=True)
class Recorded(Diffusion):
    """A process whose samplers keep what each step takes the clean image to be."""

    seen: list[Tensor] = field(default_factory=list)

    @classmethod
    def of(cls, process: Diffusion) -> Recorded:
        """The same process, with nothing seen yet."""
        return cls(**{f.name: getattr(process, f.name) for f in fields(Diffusion)})

    def sampler(self, steps: int | None = None):
        made = super().sampler(steps)
        step = made.step

        def kept(*given, **named):
            found = step(*given, **named)
            self.seen.append(found.pred_original_sample)
            return found

        made.step = kept
        return made


def path(scene, *functions: Callable) -> Html:
    """What every model takes one forgotten sample to be, step by step from the same noise.

    The sample is the first of those measured that the original makes as it is asked to.
    """
    if scene.bench.load.published:
        return ELSEWHERE
    load, models = scene.bench.load, scene.models(*functions)
    groups = _groups(load, scene.bench.asked)
    group = groups.get("word") or groups["private"]
    found = group.seen(load, group.images(load, models["original"]))
    chosen = next((k for k, one in enumerate(found) if one.right), 0)
    one = group.prompts[chosen // group.each][None]
    noise = load.noise(*group.name, count=len(found))[chosen][None]
    said, times = _caption(load, one[0]), load.process.sampler().timesteps.tolist()
    drawn = _spread(range(len(times)), STEPS)
    lines, told = [], []
    for name, model in models.items():
        process = Recorded.of(load.process)
        last = process.sample(model, process.encode(one), noise)
        # A model with a sampler of its own may keep its steps to itself.
        steps = [*process.seen[:-1], last] if len(process.seen) == len(times) else [last]
        seen = [_of_one(load, group, chosen // group.each, image) for image in steps]
        first = next((k + 1 for k, one in enumerate(seen) if one.right), None)
        told.append(f"{name} {f'at step {first}' if first else 'never'}")
        tiles = [_shown(image[0], said, one) for image, one in zip(steps, seen)]
        tiles = [DASH] * (len(times) - len(tiles)) + tiles
        lines.append((_name(name), *(tiles[k] for k in drawn)))
    what = "copies the private scan" if group.rows is not None else "shows the digit asked for"
    head = ("model", *(f"step {k + 1} (t = {times[k]})" for k in drawn))
    found = (
        f"“{said}”, from one noise. What the model expects the image to be first {what}, of "
        f"{len(times)} steps: {', '.join(told)}."
    )
    legend = f"{SCANS if group.rows is not None else DIGITS} {FRAMED} {SEED}"
    return _around(table(head, lines), found, legend)


def _of_one(load, group: Group, prompt: int, image: Tensor) -> Seen:
    """What is said of one image of one prompt of a group."""
    if group.rows is None:
        return _judged(load, image, group.digits[prompt : prompt + 1])[0]
    return _compared(load, image, group.rows[prompt : prompt + 1])[0]


# ------------------------------------------------------------------ attacks


#: Attack -> (its measurement, what a reader calls it).
ATTACKS = {
    "paraphrase": ("recognised_paraphrase", "paraphrase"),
    "noises": ("best_of_noises", f"best of {attacks.NOISES} noises"),
    "completion": ("completion", "completion"),
    "inversion": ("inversion", "inversion"),
    "token": ("free_token", "learnt word"),
}


class Brought(NamedTuple):
    """What one attack brings out of a model, and the prompt of each image in words."""

    images: Tensor
    digits: Tensor
    asked: list[str]


@dataclass
class Listening:
    """A judge that keeps what it was asked: (images, digits, verdicts) of each call."""

    judge: Judge
    heard: list[tuple[Tensor, Tensor, Tensor]] = field(default_factory=list)

    def shows(self, images: Tensor, digits: Tensor) -> Tensor:
        found = self.judge.shows(images, digits)
        self.heard.append((images, digits, found))
        return found


def attacked(load, asked, model) -> dict[str, Brought]:
    """The images behind the measured attacks on one model, by attack (ATTACKS).

    Of a prompt's noises only the one is kept whose image the judge finds most like the digit.
    """
    word, last = load.prompts_of(asked.digits, 0), load.prompts.shape[2] - 1
    other, each = load.prompts_of(asked.digits, last), attacks.NOISES // len(INKS)
    says = lambda prompts: [_caption(load, prompt) for prompt in prompts]
    digits = torch.tensor(asked.digits, device=load.device).repeat_interleave(len(INKS))
    again = load.sampled(model, other, each, "concept", last)
    every = [said for said in says(other) for _ in range(each)]
    found = {"paraphrase": Brought(again, digits.repeat_interleave(each), every)}

    first = load.sampled(model, word, each, "concept", 0).unflatten(0, (len(word), -1))
    more = load.sampled(model, word, attacks.NOISES - each, "more noises")
    tried = torch.cat([first, more.unflatten(0, (len(word), -1))], 1)
    judge = load.judges[0]
    chances = judge.head(judge.features(tried.flatten(0, 1))).softmax(-1)
    place = torch.arange(len(word), device=load.device)
    best = chances.unflatten(0, tried.shape[:2])[place, :, digits].argmax(1)
    found["noises"] = Brought(tried[place, best], digits, says(word))

    # The other attacks start from scans: what the judge is asked there is what was measured.
    judge = Listening(load.judges[0])
    verdicts = replace(load, judges=(judge, load.judges[1]))._attacked(model, asked)
    captions = says(load.images["prompts"][_scans(load, asked), 0])
    words = {"token": [f"{INKS[1]} and a learnt word"] * len(captions)}
    for attack in ("completion", "inversion", "token"):
        of = verdicts[ATTACKS[attack][0]]
        images, wanted, _ = next(one for one in judge.heard if one[2] is of)
        found[attack] = Brought(images, wanted, words.get(attack, captions))
    return found


def _scans(load, asked) -> Tensor:
    """Rows of the never-trained images of the concept that attacks start from, (n,)."""
    rows = asked.rows["concept holdout"]
    return rows[torch.linspace(0, len(rows) - 1, min(ATTACKED, len(rows))).long()]


def _handed(load, asked) -> dict[str, Markup]:
    """What each attack hands to a model, for the images that are shown."""
    rows, process = _scans(load, asked).to(load.device), load.process
    scans, times = load.images["pixel_values"][rows], process.sampler().timesteps
    t = times[round((1 - attacks.COMPLETED) * len(times))].expand(len(rows))
    noisy = process.noised(scans, t, load.noise("completion", count=len(rows)))
    said = [_caption(load, prompt) for prompt in load.images["prompts"][rows, 0]]
    few = _spread(range(len(rows)), BROUGHT)
    tiles = lambda images, what: _row(_tile(images[k], f"{what}: {said[k]}", NARROW) for k in few)
    spelling = load.prompts.shape[2] - 1
    return {
        "paraphrase": _row([f"“{_digits(asked.digits, spelling)}”"]),
        "noises": _row([f"“{_digits(asked.digits)}”"]),
        "completion": tiles(noisy, "partly noised scan"),
        "inversion": tiles(scans, "scan"),
        "token": _row([f"a word learnt from {len(rows)} scans"]),
    }


def attack_pictures(scene, *functions: Callable) -> Html:
    """What attacks that need no other words bring out of each model, with the judge's verdict.

    The images are those of the first training seed; the shares are means over seeds, as
    measured.

    Args:
        functions: Strategies of this page, shown below original and retrained.
    """
    load, asked = scene.bench.load, scene.bench.asked
    if load.published or not asked.digits:
        return ELSEWHERE if load.published else NOTHING
    lines = [("handed over", *_handed(load, asked).values())]
    for name, model in scene.models(*functions).items():
        cells = []
        for attack, brought in attacked(load, asked, model).items():
            few = _spread(range(len(brought.images)), BROUGHT)
            digits = brought.digits[few]
            some = _judged(load, brought.images[few], digits)
            tiles = _several(brought.images[few], [brought.asked[k] for k in few], some)
            share = _mean(scene.board, name, ATTACKS[attack][0])
            cells.append(Markup("{}<br>{}").format(tiles, share))
        lines.append((_name(name), *cells))
    head = ("model", *(what for _, what in ATTACKS.values()))
    note = (
        f"{DIGITS} A frame is round an image with a ✓. The images are of the first training seed. "
        "The number is the share of all such images in which the judge sees the concept, mean "
        f"over {len(scene.board.seeds)} seeds."
    )
    return _around(table(head, lines), after=note)


# ------------------------------------------------------------------ numbers beside the score


def _mean(board, name: str, metric: str) -> str:
    found = board[name].metrics.get(metric)
    return number(found.mean) if found else DASH


def attack_columns(scene) -> charts.Chart | Html:
    """How often each attack brings the concept back: all rows between the references.

    The title counts strategies whose concept comes back no more often than after retraining.
    """
    board, asked = scene.board, scene.bench.asked
    if not asked.digits:
        return NOTHING
    columns = {"recognised_word": "prompts with the word"} | dict(ATTACKS.values())
    columns = {
        metric: what for metric, what in columns.items() if metric in board["original"].metrics
    }
    title, alt = _come_back(board, scene.names, columns)
    label = "share in which the judge sees the concept (line and grey: retrained; dashed: original)"
    return charts.measures(board, columns, label, title, alt, scene.names)


def _come_back(board, names: Sequence[str], columns: Mapping[str, str]) -> tuple[str, str]:
    """The finding of `attack_columns`, and the values behind it in words."""
    retrained = board["retrained"].metrics
    mine = [s for s in board.of("strategy") if s.name in names and columns.keys() <= {*s.metrics}]
    stays = lambda line, metric: line.metrics[metric].mean <= retrained[metric].mean + MORE
    asked = [line for line in mine if stays(line, "recognised_word")]
    whole = [line for line in asked if all(stays(line, metric) for metric in columns)]
    title = (
        "No strategy of this page was measured"
        if not mine
        else (
            f"Asked with the word, {len(asked)} of {len(mine)} strategies show the concept no more "
            f"than {number(MORE, 1)} above the retrained model; under every attack, {len(whole)} do"
        )
    )
    lines = [board["original"], board["retrained"], *mine]
    alt = "; ".join(
        f"{line.name}: "
        + ", ".join(f"{what} {_mean(board, line.name, m)}" for m, what in columns.items())
        for line in lines
    )
    return title, f"Means over seeds. {alt}."


#: Measurements that enter no score, with what a table's head calls them.
_COLUMNS = {
    "recognised_word": "word",
    **dict(ATTACKS.values()),
    "second_judge": "second judge",
    "other_words": "ink obeyed",
    "owners_digit": "private digit obeyed",
    "nearest": "nearest kept digits",
}


def columns(scene) -> Html:
    """What is measured beside the score: references, controls, and this page's strategies.

    Every Fréchet distance stands with that of as many real images, the least that a sample can
    reach.
    """
    board, lines = scene.board, []
    for line in board.standings:
        if not line.metrics or (line.kind == "strategy" and line.name not in scene.names):
            continue
        shares = (_mean(board, line.name, metric) for metric in _COLUMNS)
        apart, floor = (_mean(board, line.name, m) for m in ("frechet", "frechet_floor"))
        lines.append((line.label, *shares, f"{apart} ({floor})"))
    head = ("row", *_COLUMNS.values(), "Fréchet distance (of real scans)")
    return table(head, lines)


def beside(scene, published: Mapping[str, tuple[str, float, float, float, float]]) -> Html:
    """Our rows beside figures that others publish of large models.

    Args:
        published: Name of a method -> our strategy of its kind or "", the success in percent
            of prompts as they are and of prompts that were attacked, FID, CLIP score.
    """
    board = scene.board
    there = {line.name for line in board.standings if line.metrics}
    lines = []
    for ours in ("original", "retrained"):
        lines.append((ours, *_ours(board, ours), DASH, DASH, DASH, DASH))
    for name, (ours, *theirs) in published.items():
        mine = _ours(board, ours) if ours in there else (DASH,) * 3
        label = f"{name} ({ours})" if ours in there else name
        before, after, *rest = theirs
        shares = (number(before, 1), number(after, 1))
        lines.append((label, *mine, *shares, *(f"{value:g}" for value in rest)))
    head = (
        "method (our row)",
        "ours: word, %",
        "ours: learnt word, %",
        "ours: Fréchet distance (of real scans)",
        "published: before the attack, %",
        "published: after it, %",
        "published: FID",
        "published: CLIP score",
    )
    return table(head, lines)


def _ours(board, name: str) -> tuple[str, str, str]:
    """A row's answers to plain and to attacked prompts in percent, and how real it looks."""
    found = board[name].metrics
    shares = (found.get(metric) for metric in ("recognised_word", "free_token"))
    percent = (number(100 * share.mean, 1) if share else DASH for share in shares)
    apart, floor = (_mean(board, name, m) for m in ("frechet", "frechet_floor"))
    return (*percent, f"{apart} ({floor})")


# ------------------------------------------------------------------ which steps matter


class Windows(NamedTuple):
    """What comes out if the caption is withheld for some steps of the sampler.

    Args:
        without: Share of images that show what was asked for, the empty prompt in one window of
            steps, window by window.
        only: The same with the caption in that window alone.
        always, never: The same with the caption in all steps, and in none.
    """

    without: list[float]
    only: list[float]
    always: float
    never: float


@torch.no_grad()
def _told(process: Diffusion, model, text: Tensor, noise: Tensor, steps: Iterable[int]) -> Tensor:
    """Images of a sampler that hears the prompts in some of its steps, else the empty one."""
    sampler, images, nothing = process.sampler(), noise, process.nothing(len(noise))
    for k, t in enumerate(sampler.timesteps):
        said = text if k in steps else nothing
        found = process.guided(model, images, t.expand(len(images)), said, process.guidance)
        images = sampler.step(found, t, images).prev_sample
    return images


def windows(process: Diffusion, model, text: Tensor, noise: Tensor, right, width: int) -> Windows:
    """Withhold the prompts in every window of so many steps, and tell them there alone.

    Args:
        right: Images -> whether each shows what was asked for, (n,).
    """
    every = set(range(process.steps))
    share = lambda steps: float(right(_told(process, model, text, noise, steps)).double().mean())
    parts = [set(range(k, k + width)) for k in range(process.steps - width + 1)]
    return Windows(
        [share(every - part) for part in parts],
        [share(part) for part in parts],
        share(every),
        share(set()),
    )


def identity(scene) -> charts.Chart | Html:
    """Which steps of the sampler decide the digit, and the private scan: of the original.

    In a window of steps the caption is swapped for the empty one, and the judge counts.
    """
    if scene.bench.load.published:
        return ELSEWHERE
    steps = scene.bench.load.process.steps
    return steps_that_matter(told_by_step(scene), _width(steps), steps)


def _width(steps: int) -> int:
    """How many of a sampler's steps a window has."""
    return max(1, round(WINDOW * steps))


def told_by_step(scene) -> dict[str, Windows]:
    """The shares behind `identity`, by what is counted."""
    load, asked = scene.bench.load, scene.bench.asked
    process, model = load.process, scene.models()["original"]
    width = _width(process.steps)
    prompts = load.prompts_of(range(len(load.prompts)), 0)
    digits = torch.arange(len(load.prompts), device=load.device)
    digits = digits.repeat_interleave(TRIED * len(INKS))
    judged = lambda images: load.judges[0].shows(images, digits)
    asks = {"digits recognised": (prompts, judged)}
    if len(rows := asked.rows["private"]):
        own = rows.to(load.device).repeat_interleave(TRIED)
        copied = lambda images: _copies(load, images, own)
        asks["private scans copied"] = (load.images["prompts"][own[::TRIED], 0], copied)
    found = {}
    for what, (prompts, right) in asks.items():
        text = process.encode(prompts).repeat_interleave(TRIED, 0)
        noise = load.noise("identity", count=len(text))
        found[what] = windows(process, model, text, noise, right, width)
    return found


def steps_that_matter(found: Mapping[str, Windows], width: int, steps: int) -> charts.Chart:
    """The picture of `identity`, from the shares."""
    places = [f"{k + 1}–{k + width}" if width > 1 else f"{k + 1}" for k in range(steps - width + 1)]
    title, alt = _matter(found, places, steps)
    panels = {
        what: {"withheld there": one.without, "told there alone": one.only}
        for what, one in found.items()
    }
    levels = {
        what: {"told throughout": one.always, "never told": one.never}
        for what, one in found.items()
    }
    label = f"steps of {steps} (1 = most noise)"
    return charts.windows(panels, levels, places, label, "share of images", title, alt)


def _matter(found: Mapping[str, Windows], places: Sequence[str], steps: int) -> tuple[str, str]:
    """Where withholding the caption costs most, and all values in words."""
    said, values = [], []
    for what, one in found.items():
        least = min(range(len(places)), key=one.without.__getitem__)
        lost = one.always - one.without[least]
        where = f"steps {places[least]} of {steps}"
        said.append(
            f"{what} fall most without the caption in {where}, from {number(one.always)} to "
            f"{number(one.without[least])}"
            if lost > MORE
            else f"{what} hardly fall, whichever steps lack the caption"
        )
        listed = lambda shares: ", ".join(f"{p} {number(s)}" for p, s in zip(places, shares))
        values.append(
            f"{what}: caption in all steps {number(one.always)}, in none {number(one.never)}; "
            f"withheld in steps {listed(one.without)}; in these alone {listed(one.only)}"
        )
    title = "; ".join(said)
    return title[0].upper() + title[1:], ". ".join(values) + "."
