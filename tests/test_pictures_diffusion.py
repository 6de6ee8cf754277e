"""What the pictures of a denoiser say: marks are the judge's, numbers are those measured."""

from __future__ import annotations

import copy
import dataclasses
from html.parser import HTMLParser
from types import SimpleNamespace

import contract
import numpy as np
import pytest
import test_published_diffusion as others
import torch

from erasus_nb import book, cells, charts, score
from erasus_nb.benchmark import Bench
from erasus_nb.training import generator
from erasus_nb.workloads.diffusion import NEIGHBOURS, RATIO, attacks, pictures
from erasus_nb.workloads.diffusion.captions import INKS, SPELLINGS

EVIL = 'a "><script>alert(1)</script> &'


def never_run(model, forget, retain, task, *, seed=0):
    """A strategy without a row."""


def damaged(model, forget, retain, task, *, seed=0):
    """A strategy whose model is in `trained`."""


class Reader(HTMLParser):
    """Tags with attributes, and of each table row its cells: text, images."""

    def __init__(self, page: str):
        super().__init__()
        self.tags, self.rows, self.inside = [], [], False
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag == "tr":
            self.rows.append([])
            self.inside = True
        if tag in ("td", "th"):
            self.rows[-1].append(["", []])
        if tag == "br" and self.rows and self.rows[-1]:
            self.rows[-1][-1][0] += " "
        if tag == "img":
            self.rows[-1][-1][1].append(dict(attributes))

    def handle_endtag(self, tag):
        self.inside = tag != "table" and self.inside

    def handle_data(self, data):
        if self.inside and self.rows[-1]:
            self.rows[-1][-1][0] += data

    @property
    def images(self):
        return [attributes for tag, attributes in self.tags if tag == "img"]


def line(name: str, measured: dict[str, float], category: str = "Diffusion") -> score.Standing:
    """One line of a made-up board; its intervals are a tenth wide."""
    kind = name if name in ("original", "retrained") else "strategy"
    found = {k: score.Interval(v, v - 0.05, v + 0.05, 5) for k, v in measured.items()}
    given = {f.name: None for f in dataclasses.fields(score.Standing)}
    given |= {"name": name, "kind": kind, "category": category, "metrics": found, "status": "ok"}
    given |= {
        "analogue": False,
        "seeds": (0, 1),
        "edited": False,
        "position": {},
        "flags": (),
        "notes": (),
    }
    return score.Standing(**given)


def board_of(*lines: score.Standing) -> score.Board:
    return score.Board("diffusion", "laptop", {}, [], True, lines, (0, 0), (0, 1))


def values_of(load, model, asked) -> dict[str, float]:
    found = load.measure(model, asked)[0]
    return {name: one.value for name, one in found.items() if one.value is not None}


@pytest.fixture(scope="module")
def trained():
    """A small original that has learnt, a fresh network in retrained's place, and one between."""
    load, original = contract.small_diffusion(), contract.setting("diffusion").original
    fresh, between = load.start_model(0), copy.deepcopy(original)
    draw = generator("damaged")
    with torch.no_grad():
        for weight in between.parameters():
            size = weight.square().mean().sqrt()
            weight += 0.25 * size * torch.randn(weight.shape, generator=draw)
    models = {"original": original, "retrained": fresh, "damaged": between}
    asked = load.request()
    bench = SimpleNamespace(
        load=load,
        asked=asked,
        seeds=(0, 1),
        originals=lambda: {0: original.state_dict()},
        retrained=lambda: {0: fresh.state_dict()},
        model_of=lambda function, seed: between,
    )
    measured = {name: values_of(load, model, asked) for name, model in models.items()}
    board = board_of(*(line(name, found) for name, found in measured.items()))
    rows = lambda name: [SimpleNamespace(status="ok")] if name == "damaged" else []
    scene = book.Scene(bench, board, ["damaged"], rows)
    return SimpleNamespace(scene=scene, load=load, asked=asked, models=models, measured=measured)


def test_the_model_between_is_between(trained):
    """Else the comparisons below could not fail."""
    found = trained.measured["damaged"]
    between = [k for k in ("C1", "recognised_word", "recognised_paraphrase") if 0 < found[k] < 1]
    between += [k for k in ("completion", "inversion", "free_token") if 0 < found[k] < 1]
    assert len(between) >= 3, found


# ------------------------------------------------------------------ all of them

PICTURES = ("request", "samples", "path", "attack_pictures", "attack_columns", "identity")
TAKING = ("samples", "path", "attack_pictures")


@pytest.mark.parametrize("request_kind", ["standard", "concept", "memorised"])
def test_every_picture_is_drawn_of_every_request(tmp_path_factory, request_kind):
    cache = tmp_path_factory.getbasetemp() / "pictures"
    bench = Bench("diffusion", "smoke", (0,), out=None, cache=cache, request=request_kind)
    ascent = cells.load("gradient").gradient_ascent
    rows = {"gradient_ascent": bench.run(ascent, keep=False)}
    measured = dict.fromkeys(("frechet", "frechet_floor"), 1.0)
    if bench.asked.digits:
        measured |= dict.fromkeys((m for m, _ in pictures.ATTACKS.values()), 0.5)
        measured["recognised_word"] = 0.5
    board = board_of(*(line(name, measured) for name in ("original", "retrained", *rows)))
    scene = book.Scene(bench, board, list(rows), lambda name: rows.get(name, []))
    concept = bool(bench.asked.digits)
    for name in PICTURES + ("columns",):
        shown = getattr(pictures, name)(scene)._repr_html_()
        nothing = name.startswith("attack") and not concept
        assert ("names no concept" in shown) == nothing, name
    for functions in ((never_run,), (ascent, never_run)):
        names = ["original", "retrained", *(f.__name__ for f in functions if f is ascent)]
        found = Reader(pictures.samples(scene, *functions)).rows
        assert [row[0][0] for row in found[1:]] == ["real scans", *names]
        assert len(found[0]) == 2 + 2 * concept + (request_kind != "concept")
        found = Reader(pictures.path(scene, *functions)).rows
        assert [row[0][0] for row in found] == ["model", *names]
        assert len(found[0]) == 1 + bench.load.process.steps


def test_drawing_leaves_models_as_they_are(trained):
    before = {name: copy.deepcopy(model.state_dict()) for name, model in trained.models.items()}
    modes = {name: model.training for name, model in trained.models.items()}
    state = torch.get_rng_state()
    for name in PICTURES:
        getattr(pictures, name)(trained.scene, *([damaged] if name in TAKING else []))
    assert torch.equal(torch.get_rng_state(), state)
    for name, model in trained.models.items():
        assert model.training == modes[name]
        assert all(torch.equal(v, before[name][k]) for k, v in model.state_dict().items())
        assert all(p.requires_grad and p.grad is None for p in model.parameters())


def test_images_say_what_is_seen_and_are_not_smoothed(trained):
    for name in ("request", *TAKING):
        images = Reader(getattr(pictures, name)(trained.scene)).images
        assert images
        for image in images:
            assert "judge sees" in image["alt"] or "scan" in image["alt"]
            assert "image-rendering: pixelated" in image["style"]
            # Whole screen pixels for each of a scan's, beside the frame; no card in the dark.
            assert (int(image["width"]) - 4) % 8 == 0
            assert "padding: 0" in image["style"] and image["class"] == "dark-light"


def test_captions_are_escaped(trained, monkeypatch):
    monkeypatch.setattr(pictures, "_caption", lambda load, prompt: EVIL)
    for name in ("request", *TAKING):
        page = getattr(pictures, name)(trained.scene)
        assert "alert(1)" in page
        assert "script" not in {tag for tag, _ in Reader(page).tags}


def test_ink_is_dark_colours_are_kept_and_large_images_are_made_small(trained):
    scan = trained.load.images["pixel_values"][0]
    shown = pictures._thumbnail(scan).reshape(-1)
    assert shown[scan.argmax()] == 0 and shown[scan.argmin()] == 255
    red = torch.full((3, 100, 100), -1.0)
    red[0] = 1.0
    shown = pictures._thumbnail(red)
    assert shown.shape == (pictures.SIDE, pictures.SIDE, 3) and shown[3, 3].tolist() == [255, 0, 0]


# ------------------------------------------------------------------ verdicts


def said(judge, image) -> str:
    """What a judge says of one image, slowly."""
    chances = judge.head(judge.body(image[None])).softmax(-1)[0]
    best = int(chances.argmax())
    return f"sees the digit {SPELLINGS[0][best]}" if chances[best] >= 0.5 else "sees no digit"


def copies(load, image, row: int) -> bool:
    """Whether an image is a copy of a scan, slowly."""
    mine, others = None, []
    for other in set(load.training.tolist()):
        far = float((load.images["pixel_values"][other] - image).norm())
        mine, others = (far, others) if other == row else (mine, [*others, far])
    near = sorted(others)[:NEIGHBOURS]
    return mine < near[0] and mine < RATIO * sum(near) / NEIGHBOURS


def test_marks_frames_and_alternative_texts_of_samples_are_true(trained):
    load, judge = trained.load, trained.load.judges[0]
    rows = Reader(pictures.samples(trained.scene, damaged)).rows[2:]
    groups = pictures._groups(load, trained.asked)
    seen = set()
    for row, model in zip(rows, trained.models.values(), strict=True):
        for (text, images), group in zip(row[1:], groups.values(), strict=True):
            made = group.images(load, model)
            for place, shown in zip(group.places, images, strict=True):
                prompt = place // group.each
                caption, words = shown["alt"].split(": ")
                assert caption == f"“{pictures._caption(load, group.prompts[prompt])}”"
                digit = SPELLINGS[0][int(group.digits[prompt])]
                right = said(judge, made[place]) == f"sees the digit {digit}"
                if group.rows is not None:
                    right = copies(load, made[place], int(group.rows[prompt]))
                    assert words.startswith("a copy" if right else "no copy")
                if group.rows is None or not right:
                    assert words.endswith(said(judge, made[place]))
                assert ("#000" in shown["style"]) == right
                seen.add((group.rows is None, right))
            ticks = sum("#000" in shown["style"] for shown in images)
            assert text.count("✓" if group.rows is None else "=") == ticks
    assert len(seen) == 4  # right and wrong ones of both kinds


def test_samples_count_what_was_measured(trained):
    rows = Reader(pictures.samples(trained.scene, damaged)).rows[2:]
    for row, measured in zip(rows, trained.measured.values(), strict=True):
        counts = [[int(n) for n in cell[0].split()[-3::2]] for cell in row[1:4]]
        for (right, all_), metric in zip(
            counts, ("recognised_word", "recognised_paraphrase", "C1"), strict=True
        ):
            assert right / all_ == pytest.approx(measured[metric]), metric


def test_real_scans_stand_above_the_samples_of_their_captions(trained):
    load = trained.load
    for kind, group in pictures._groups(load, trained.asked).items():
        for place, scan in zip(group.places, group.scans, strict=True):
            if scan >= 0:
                asks = pictures._caption(load, group.prompts[place // group.each])
                spelling = 1 if kind == "paraphrase" else 0
                assert pictures._caption(load, load.images["prompts"][scan, spelling]) == asks
                assert (scan in load.training) and (kind != "kept") == (
                    scan in trained.asked.rows["concept"] or scan in trained.asked.rows["private"]
                )


def test_the_request_says_what_was_made_of_forgotten_captions(trained):
    page = pictures.request(trained.scene)
    rows, count = Reader(page).rows[1:], {}
    for (part, _), _, *made in rows:
        for name, (_, (image,)) in zip(("original", "retrained"), made, strict=True):
            if part.strip().startswith("forgotten"):
                key = part.strip() == "forgotten", name
                right, all_ = count.get(key, (0, 0))
                count[key] = right + ("#000" in image["style"]), all_ + 1
    for digits, what in ((True, "forgotten digits"), (False, "copies of private scans")):
        both = [f"{n} {'{} of {}'.format(*count[digits, n])}" for n in ("original", "retrained")]
        assert f"{what}: {', '.join(both)}" in page
    assert count[True, "original"] != count[True, "retrained"]
    parts = [row[0][0].strip() for row in rows]
    assert {"kept", "never trained on"} < set(parts)


# ------------------------------------------------------------------ the path


def test_a_path_ends_in_the_sample_and_names_the_first_right_step(trained):
    load = trained.load
    page = pictures.path(trained.scene, damaged)
    rows = Reader(page).rows[1:]
    for row, (name, model) in zip(rows, trained.models.items(), strict=True):
        right = ["#000" in cell[1][0]["style"] for cell in row[1:]]
        first = f"at step {right.index(True) + 1}" if any(right) else "never"
        assert f"{name} {first}" in page
    group = pictures._groups(load, trained.asked)["word"]
    made = group.images(load, trained.models["original"])
    chosen = next(k for k, one in enumerate(group.seen(load, made)) if one.right)
    pixels = pictures._thumbnail(made[chosen])
    shown = pictures._tile(torch.tensor(0.0).expand(1, 8, 8), "", 36)
    assert shown != pictures._tile(made[chosen], "", 36)
    last = rows[0][-1][1][0]["src"]
    wanted = Reader(f"<tr><td>{pictures._tile(made[chosen], '', 36)}").images[0]["src"]
    assert last == wanted and pixels.min() < pixels.max()


def test_every_step_of_a_sampler_is_kept_and_changes_nothing(trained):
    load, model = trained.load, trained.models["original"]
    process = pictures.Recorded.of(load.process)
    text, noise = process.encode(trained.asked.forget["prompts"][:1, 0]), load.noise("x", count=1)
    assert torch.equal(process.sample(model, text, noise), load.process.sample(model, text, noise))
    assert len(process.seen) == process.steps
    # What a step expects the clean image to be, by the definition of the noise level.
    t = process.sampler().timesteps[0]
    found = process.guided(model, noise, t.expand(1), text, process.guidance)
    level = process.scheduler.alphas_cumprod[t]
    clean = ((noise - (1 - level).sqrt() * found) / level.sqrt()).clamp(-1, 1)
    assert torch.allclose(process.seen[0], clean, atol=1e-4)


def test_a_model_that_keeps_its_steps_to_itself_shows_its_last_image(trained):
    class Own(torch.nn.Module):
        def sample(self, process, text, noise, **how):
            return noise.clamp(-1, 1)

    scene = dataclasses.replace(trained.scene)
    models = {"original": trained.models["original"], "own": Own()}
    scene = SimpleNamespace(bench=scene.bench, models=lambda *functions: models)
    row = Reader(pictures.path(scene)).rows[-1]
    assert [len(cell[1]) for cell in row[1:]] == [0] * (len(row) - 2) + [1]


# ------------------------------------------------------------------ attacks


@pytest.mark.parametrize("name", ["original", "damaged"])
def test_the_pictures_of_attacks_are_those_that_were_measured(trained, name):
    judge = trained.load.judges[0]
    found = pictures.attacked(trained.load, trained.asked, trained.models[name])
    assert list(found) == list(pictures.ATTACKS)
    for attack, (images, digits, asked) in found.items():
        share = float(judge.shows(images, digits).double().mean())
        assert share == pytest.approx(trained.measured[name][pictures.ATTACKS[attack][0]]), attack
        assert len(asked) == len(images)
        assert set(digits.tolist()) == set(trained.asked.digits)


def test_of_many_noises_the_best_is_shown(trained):
    load, model = trained.load, trained.models["damaged"]
    each, words = attacks.NOISES // len(INKS), load.prompts_of(trained.asked.digits, 0)
    first = load.sampled(model, words, each, "concept", 0)
    more = load.sampled(model, words, attacks.NOISES - each, "more noises")
    shown = pictures.attacked(load, trained.asked, model)["noises"].images
    judge, digit = load.judges[0], trained.asked.digits[0]
    for k in range(len(words)):
        own = [first[k * each : (k + 1) * each], more[k * 2 * each : (k + 1) * 2 * each]]
        chances = judge.head(judge.body(torch.cat(own))).softmax(-1)[:, digit]
        best = judge.head(judge.body(shown[k : k + 1])).softmax(-1)[0, digit]
        assert len(chances) == attacks.NOISES
        assert float(best) == pytest.approx(float(chances.max()), abs=1e-5)


def test_shares_of_attacks_are_the_means_over_seeds(trained):
    rows = Reader(pictures.attack_pictures(trained.scene, damaged)).rows
    assert [row[0][0] for row in rows[1:]] == ["handed over", *trained.models]
    for row in rows[2:]:
        for (text, images), (metric, _) in zip(row[1:], pictures.ATTACKS.values(), strict=True):
            mean = trained.measured[row[0][0]][metric]
            assert text.split()[-1] == f"{mean:.2f}"
            assert len(images) == pictures.BROUGHT


COLUMNS = {"recognised_word": "word", "completion": "completion"}


def come_back(*strategies):
    fixed = (
        line("original", dict.fromkeys(COLUMNS, 1.0)),
        line("retrained", dict.fromkeys(COLUMNS, 0.1)),
    )
    lines = [line(f"s{k}", dict(zip(COLUMNS, both))) for k, both in enumerate(strategies)]
    names = [one.name for one in lines]
    return pictures._come_back(board_of(*fixed, *lines), names, COLUMNS)


def test_the_title_of_attacks_counts_from_the_retrained_model():
    title, alt = come_back((0.15, 0.15), (0.15, 0.9), (0.9, 0.1))
    assert "2 of 3 strategies" in title and title.endswith("under every attack, 1 do")
    assert "s1: word 0.15, completion 0.90" in alt and "retrained: word 0.10" in alt
    assert "0 of 1 strategies" in come_back((0.9, 0.1))[0]


def test_measures_are_drawn_at_their_values_and_missing_ones_are_not():
    lines = line("original", {"a": 0.9, "b": 0.8}), line("retrained", {"a": 0.1, "b": 0.2})
    board = board_of(*lines, line("one", {"a": 0.4, "b": 0.6}), line("two", {"a": 0.7}))
    chart = charts.measures(board, {"a": "first", "b": "second"}, "share", "Title", "alt")
    drawn = []
    for axes in chart.figure.axes:
        markers = [m for m in axes.lines if m.get_marker() == charts.PALETTE["Diffusion"].marker]
        drawn.append([(float(m.get_xdata()[0]), float(m.get_ydata()[0])) for m in markers])
        rulers = {round(float(m.get_xdata()[0]), 2) for m in axes.lines if m.get_ls() != "None"}
        assert rulers >= ({0.9, 0.1} if axes is chart.figure.axes[0] else {0.8, 0.2})
    assert drawn == [[(0.4, 0), (0.7, 1)], [(0.6, 0)]]
    only = charts.measures(board, {"a": "first"}, "share", "Title", "alt", ["two"])
    labels = [text.get_text() for text in only.figure.axes[0].get_yticklabels()]
    assert labels == ["two"]


# ------------------------------------------------------------------ numbers


def test_what_enters_no_score_stands_with_its_floor(trained):
    rows = Reader(pictures.columns(trained.scene)).rows
    assert [row[0][0] for row in rows[1:]] == list(trained.models)
    for row in rows[1:]:
        measured = trained.measured[row[0][0]]
        assert [cell[0] for cell in row[1:-1]] == [f"{measured[m]:.2f}" for m in pictures._COLUMNS]
        assert row[-1][0] == f"{measured['frechet']:.2f} ({measured['frechet_floor']:.2f})"
    other = dataclasses.replace(trained.scene, names=[])
    assert "damaged" not in pictures.columns(other)


def test_published_figures_stand_beside_our_rows_and_without(trained):
    published = {"Theirs": ("damaged", 1.41, 11.27, 233, 0.287), "Alone": ("", 0.0, 2.11, 9, 0.18)}
    rows = {
        row[0][0]: [cell[0] for cell in row[1:]]
        for row in Reader(pictures.beside(trained.scene, published)).rows[1:]
    }
    measured = trained.measured["damaged"]
    ours = [f"{100 * measured[m]:.1f}" for m in ("recognised_word", "free_token")]
    apart = f"{measured['frechet']:.2f} ({measured['frechet_floor']:.2f})"
    assert rows["Theirs (damaged)"] == [*ours, apart, "1.4", "11.3", "233", "0.287"]
    assert rows["Alone"] == ["—"] * 3 + ["0.0", "2.1", "9", "0.18"]
    before = 100 * trained.measured["original"]["recognised_word"]
    assert rows["original"][3:] == ["—"] * 4 and rows["original"][0] == f"{before:.1f}"


# ------------------------------------------------------------------ steps


def test_a_caption_told_throughout_is_plain_sampling_and_never_is_the_empty_one(trained):
    load, model = trained.load, trained.models["original"]
    process, prompts = load.process, trained.asked.forget["prompts"][:4, 0]
    text, noise = process.encode(prompts), load.noise("x", count=4)
    steps = set(range(process.steps))
    told = lambda some: pictures._told(process, model, text, noise, some)
    assert torch.allclose(told(steps), process.sample(model, text, noise), atol=1e-5)
    empty = process.sample(model, process.nothing(4), noise)
    assert torch.allclose(told(set()), empty, atol=1e-5)
    assert not torch.allclose(told({0}), told({1}), atol=1e-3)


def test_windows_are_withheld_and_told_alone_where_they_say(trained, monkeypatch):
    heard = []
    monkeypatch.setattr(pictures, "_told", lambda *given: heard.append(given[-1]) or given[3])
    process = dataclasses.replace(trained.load.process, steps=5)
    right = lambda images: torch.tensor([True, len(heard) % 2 == 0])
    found = pictures.windows(process, None, None, torch.zeros(2), right, 2)
    parts = [{0, 1}, {1, 2}, {2, 3}, {3, 4}]
    assert heard == [*({*range(5)} - part for part in parts), *parts, {*range(5)}, set()]
    assert found == pictures.Windows([0.5, 1.0] * 2, [0.5, 1.0] * 2, 0.5, 1.0)


def test_the_title_says_where_the_caption_matters_and_changes_with_it():
    late = pictures.Windows([0.9, 0.8, 0.3], [0.0, 0.1, 0.7], 0.95, 0.05)
    never = pictures.Windows([0.9, 0.9, 0.92], [0.8, 0.8, 0.8], 0.95, 0.8)
    chart = pictures.steps_that_matter({"digits": late, "scans": never}, 2, 4)
    assert chart.title == (
        "Digits fall most without the caption in steps 3–4 of 4, from 0.95 to 0.30; "
        "scans hardly fall, whichever steps lack the caption"
    )
    assert (
        "digits: caption in all steps 0.95, in none 0.05; withheld in steps 1–2 0.90" in chart.alt
    )
    early = late._replace(without=[0.2, 0.8, 0.9])
    title = pictures.steps_that_matter({"digits": early}, 2, 4).title
    assert "steps 1–2 of 4, from 0.95 to 0.20" in title
    first, second = chart.figure.axes
    curves = [one.get_ydata() for one in first.lines if one.get_marker() not in ("None", None, "")]
    assert np.allclose(curves, [late.without, late.only])
    assert [t.get_text() for t in second.get_xticklabels()] == ["1–2", "2–3", "3–4"]


def test_steps_are_judged_of_the_original_and_private_scans_only_where_asked(trained):
    title = pictures.identity(trained.scene).title
    assert "igits recognised" in title and "rivate scans copied" in title
    asked = trained.load.request("concept")
    bench = SimpleNamespace(**{**vars(trained.scene.bench), "asked": asked})
    only = pictures.identity(dataclasses.replace(trained.scene, bench=bench))
    assert "rivate scans" not in only.title and len(only.figure.axes) == 1


# ------------------------------------------------------------------ models and data of others


#: The pipelines and folders of the door for them.
made = others.made


@pytest.mark.parametrize("images, model", [("disks", "pixels"), ("colours", "latents")])
def test_pictures_of_published_pipelines_and_folders(made, images, model):
    bench = Bench(
        "diffusion", "smoke", (0,), out=None, cache="", published=others.source(made, images, model)
    )
    lines = (line(name, {"recognised_word": 0.5}) for name in ("original", "retrained"))
    scene = book.Scene(bench, board_of(*lines), [], lambda name: [])
    load, rows = bench.load, Reader(pictures.request(scene)).rows[1:]
    said = {pictures._caption(load, prompt) for prompt in load.images["prompts"][:, 0]}
    assert {row[1][0] for row in rows} <= said and len(rows) > 1
    assert [len(cell[1]) for cell in rows[0]] == [1, 0, 1, 1]
    for name in ("samples", "path", "attack_pictures", "identity"):
        assert getattr(pictures, name)(scene) == pictures.ELSEWHERE
    assert pictures.attack_columns(scene)._repr_html_()
