"""What the pictures of image-text pairs say: marks are right, claims follow from values."""

from __future__ import annotations

import dataclasses
from html.parser import HTMLParser
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import published
import pytest
import torch

from erasus_nb import book, cells, score, tables, workloads
from erasus_nb.benchmark import Bench
from erasus_nb.training import clone
from erasus_nb.workloads.image_text import pictures

EVIL = 'a "><script>alert(1)</script> &'


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module", params=["standard", "concept"])
def bench(request, cache):
    return Bench("image_text", "smoke", (0,), out=None, cache=cache, request=request.param)


@pytest.fixture(scope="module")
def ascent():
    return cells.load("gradient").gradient_ascent


@pytest.fixture(scope="module")
def scene(bench, ascent):
    return scene_of(bench, ascent)


def scene_of(bench, *functions) -> book.Scene:
    rows = {f.__name__: bench.run(f, keep=False) for f in functions}
    return book.Scene(bench, None, list(rows), lambda name: rows.get(name, []))


def never_run(model, forget, retain, task, *, seed=0):
    """A strategy without a row."""


class Reader(HTMLParser):
    """Tags with attributes, the cells of each table row, and the images of each cell."""

    def __init__(self, page: str):
        super().__init__()
        self.tags, self.rows = [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append(["", []])
        if tag == "img":
            self.rows[-1][-1][1].append(dict(attributes))

    def handle_data(self, data):
        if self.rows and self.rows[-1]:
            self.rows[-1][-1][0] += data

    @property
    def images(self):
        return [attributes for tag, attributes in self.tags if tag == "img"]


# ------------------------------------------------------------------ all of them


def test_every_picture_is_drawn_with_a_strategy_with_none_and_with_one_that_has_no_row(
    scene, ascent
):
    for functions in ((), (ascent,), (never_run,), (ascent, never_run)):
        names = ["original", *(f.__name__ for f in functions if f is ascent), "retrained"]
        alt = pictures.matrices(scene, *functions).alt
        assert alt.startswith(f"Heat maps on one scale: {', '.join(names)}. ")
        found = pictures.gallery(scene, *functions)
        assert [name for name in names if f">{name}<br>" in found] == names
        assert "never_run" not in found
    for function in (ascent, never_run):
        head = Reader(pictures.attention(scene, function)).rows[0]
        names = ["original", *([function.__name__] if function is ascent else []), "retrained"]
        assert [text for text, _ in head] == ["pair", *names]


def test_images_say_what_is_seen_and_are_not_smoothed(scene, ascent):
    load = scene.bench.load
    for page in (
        pictures.request(scene),
        pictures.attention(scene, ascent),
        pictures.gallery(scene),
    ):
        images = Reader(page).images
        assert images
        for image in images:
            assert any(digit in image["alt"] for digit in load.names[0])
            assert any(name in image["alt"] for name in load.names[1])
            assert "image-rendering: pixelated" in image["style"]
            assert image["src"].startswith("data:image/png;base64,")
            # A table on a phone must not squeeze it to nothing, and no theme dims it.
            assert f"min-width: {image['width']}px" in image["style"]
            assert image["class"] == "dark-light"


def test_captions_names_and_words_are_escaped(scene, ascent, monkeypatch):
    load = scene.bench.load
    monkeypatch.setattr(pictures, "_text", lambda load, input_ids: EVIL)
    monkeypatch.setattr(load, "names", ([EVIL] * 10, [EVIL] * len(load.names[1])))
    tokens = lambda ids: [EVIL] * len(ids)
    monkeypatch.setattr(load.tokenizer, "convert_ids_to_tokens", tokens, raising=False)
    pages = [
        pictures.request(scene),
        pictures.attention(scene, ascent),
        pictures.gallery(scene, ascent),
        pictures.matrices(scene, ascent)._repr_html_(),
    ]
    for page in pages:
        assert "alert(1)" in page
        assert "script" not in {tag for tag, _ in Reader(page).tags}


def test_pairs_without_class_and_writer_show_less_and_do_not_crash(cache, ascent):
    bench = Bench("image_text", "smoke", (0,), out=None, cache=cache)
    scene = scene_of(bench, ascent)
    nobody = torch.full_like(bench.load.writers, -1)
    bench.load = dataclasses.replace(
        bench.load,
        writers=nobody,
        classes=nobody,
        people=bench.load.people[:0],
        names=((), ()),
    )
    assert pictures.matrices(scene, ascent).title
    assert len(Reader(pictures.request(scene)).images) == 3 * pictures.LISTED
    # Nothing better to ask with than a pair's own caption.
    caption = pictures._caption(bench.load, int(bench.asked.rows["forget"][0]))
    assert f"Forgotten: “{caption}”" in pictures.gallery(scene, ascent)
    assert f"{caption}: most attention on patch" in pictures.attention(scene, ascent)


def test_images_in_colour_keep_their_channels_and_large_ones_are_made_small(scene, monkeypatch):
    load = scene.bench.load
    images = torch.zeros(2, 3, 100, 100)
    images[0, 0], images[1, 2, :50] = 2.0, 1.0
    pairs = load.pairs.replace(pixel_values=images.repeat(len(load.classes) // 2 + 1, 1, 1, 1))
    monkeypatch.setattr(load, "pairs", pairs)
    red, blue = pictures._thumbnails(load, torch.tensor([0, 1]))
    assert red.shape == blue.shape == (pictures.SIDE, pictures.SIDE, 3)
    assert red[3, 3].tolist() == [255, 0, 0] and blue[3, 3].tolist() == [0, 0, 255]


def test_ink_is_dark_on_a_light_ground(scene):
    load = scene.bench.load
    pixels = load.pairs["pixel_values"][:1, 0].reshape(-1)
    shown = pictures._thumbnails(load, torch.tensor([0]))[0].reshape(-1)
    assert shown[pixels.argmax()] == 0 and shown[pixels.argmin()] == 255


# ------------------------------------------------------------------ request


def test_the_request_ticks_what_is_right_by_a_slow_search(scene):
    load, asked = scene.bench.load, scene.bench.asked
    rows = torch.cat([pictures._spread(asked.rows[p], pictures.LISTED) for p in pictures.PARTS])
    lines = Reader(pictures.request(scene)).rows[1:]
    assert [line[0][0] for line in lines] == [
        pictures.PARTS[part] for part in pictures.PARTS for _ in range(pictures.LISTED)
    ]
    concept = asked.kind == "concept"
    searched = load.gallery(asked)
    input_ids = load.prompts if concept else load.pairs["input_ids"][searched, 0]
    for place, model in enumerate(scene.models().values()):
        texts = load.texts(model, input_ids)
        for row, line in zip(rows.tolist(), lines, strict=True):
            best = int((texts @ load.images(model, torch.tensor([row]))[0]).argmax())
            own = load.pairs["captions"][row, 0]
            found = load.pairs["captions"][searched, 0]
            right = best == load.classes[row] if concept else found[best] == own
            said = line[2 + place][0]
            assert said.startswith("✓") == bool(right)
            assert said.removeprefix("✓ ") == load.tokenizer.decode(
                input_ids[best], skip_special_tokens=True
            )


def test_of_a_wrong_caption_the_right_words_are_marked_but_for_those_of_all():
    found = tables.marked("a bold seven , low", "a bold nine , high", {"a", ","})
    assert found == "a <mark>bold</mark> nine , high"


# ------------------------------------------------------------------ matrices


def cosines(forgotten: float, kept: float) -> np.ndarray:
    """Four pairs, two of them forgotten, whose own cosine is so much above all others."""
    return np.diag([forgotten, forgotten, kept, kept])


BEFORE, GONE = cosines(0.8, 0.8), cosines(0.2, 0.8)


@pytest.mark.parametrize(
    "after, finding",
    [
        (BEFORE, "forgotten pairs stand out as before, kept pairs as before"),
        (GONE, "forgotten pairs stand out no more than after retraining, kept pairs as before"),
        (cosines(0.5, 0.8), "forgotten pairs stand out less, kept pairs as before"),
        (cosines(0.2, 0.4), "no more than after retraining, kept pairs less"),
        (cosines(0.2, 0.0), "no more than after retraining, kept pairs no longer"),
        (cosines(-0.5, 0.8), "stand out less than after retraining, kept pairs as before"),
    ],
)
def test_the_title_of_matrices_follows_from_the_values(after, finding):
    tables = {"original": BEFORE, "ssd": after, "retrained": GONE}
    title, values = pictures._standing_out(tables, 2)
    assert title.startswith("ssd: ") and title.endswith(finding)
    assert "original forgotten 0.80, kept 0.80" in values
    assert "retrained forgotten 0.20, kept 0.80" in values


def test_strategies_with_one_finding_share_it_and_others_do_not():
    tables = {"original": BEFORE, "a": BEFORE, "b": BEFORE, "retrained": GONE}
    assert pictures._standing_out(tables, 2)[0].startswith("a and b: forgotten pairs")
    title = pictures._standing_out(tables | {"b": GONE}, 2)[0]
    assert title.startswith("a: forgotten") and "; b: forgotten pairs stand out no more" in title


def test_without_a_strategy_the_title_is_about_the_references_and_changes_with_them():
    said = lambda a, b: pictures._standing_out({"original": a, "retrained": b}, 2)[0]
    assert said(BEFORE, GONE) == (
        "Forgotten pairs stand out in the original, and less after retraining"
    )
    assert "hardly more" in said(GONE, BEFORE) and "hardly more" in said(BEFORE, BEFORE)


def test_the_matrices_show_the_cosines_of_the_pairs_at_their_side(scene, ascent):
    load, rows = scene.bench.load, scene.bench.asked.rows
    chart = pictures.matrices(scene, ascent)
    drawn = [pictures._spread(rows[part], 72) for part in ("forget", "retain")]
    chosen = torch.cat([pictures._spread(some, pictures.DRAWN) for some in drawn])
    model = scene.models()["original"]
    wanted = load.images(model, chosen) @ load.texts(model, load.pairs["input_ids"][chosen, 0]).T
    axes = chart.figure.axes[0]
    first = min(axes.images, key=lambda image: (image.get_extent()[3], image.get_extent()[0]))
    assert np.allclose(first.get_array(), wanted[: pictures.DRAWN, : pictures.DRAWN].numpy())
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert labels == [pictures._shows(load, row) for row in chosen.tolist()]
    assert chart.title in chart.alt and "4 forgotten pairs before 4 kept ones" in chart.alt


# ------------------------------------------------------------------ attention


def test_attention_without_logits_is_spread_evenly(scene):
    load = scene.bench.load
    model = load.make_model(0)
    for names in load.task().attentions(model).values():
        for name in names:
            model.get_submodule(name).scale = 0.0
    rows = torch.arange(5)
    patches, words = pictures.looked(load, model, rows)
    assert torch.allclose(patches, torch.full_like(patches, 1 / (1 + patches.shape[1])))
    for row, line in zip(rows.tolist(), words):
        end = len(pictures._caption(load, row).split()) + 1
        # The end token sees what stands before it, and itself.
        assert torch.allclose(line[: end + 1], torch.full((end + 1,), 1 / (end + 1)))
        assert not line[end + 1 :].any()


def test_looking_leaves_the_model_as_it_is_and_takes_ensembles(scene):
    load, rows = scene.bench.load, torch.arange(3)
    one, other = load.make_model(0).train(), load.make_model(1)
    one.set_attn_implementation("sdpa")
    before = clone(one).state_dict()
    first = pictures.looked(load, one, rows)
    assert one.training and one.config._attn_implementation == "sdpa"
    assert all(torch.equal(value, before[name]) for name, value in one.state_dict().items())
    both = torch.nn.Module()
    both.models = torch.nn.ModuleList([one, other])
    mean = (first.words + pictures.looked(load, other, rows).words) / 2
    assert torch.allclose(pictures.looked(load, both, rows).words, mean)


def test_the_share_that_looks_elsewhere_is_a_total_variation():
    here = pictures.Looked(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.5, 0.5]]))
    there = pictures.Looked(torch.tensor([[0.0, 1.0]]), torch.tensor([[0.5, 0.5]]))
    itself = pictures.Looked(torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, 1.0]]))
    assert pictures._turned(here, here) == (0.0, 0.0)
    assert pictures._turned(here, there) == (1.0, 0.0)
    assert pictures._turned(here, itself) == (1.0, 0.5)
    at = {"original": here, "ssd": there, "retrained": there}
    assert "ssd looks more where the retrained model looks" in pictures._alike(at)
    assert "looks more where the original looks" in pictures._alike(at | {"ssd": here})


def test_a_thumbnail_is_bright_where_most_attention_is_and_says_so():
    page = pictures._spotlit(np.full((8, 8), 255), torch.tensor([0.0, 0.1, 1.0, 0.2]), "a seven")
    assert "a seven: most attention on patch 1 of 2 in row 2 of 2" in page
    assert page != pictures._spotlit(np.full((8, 8), 255), torch.tensor([0.0, 1, 0.1, 0.2]), "")


def test_the_bar_under_a_word_is_as_thick_as_its_attention(scene):
    load = scene.bench.load
    input_ids = load.pairs["input_ids"][0, 0]
    weights = torch.arange(len(input_ids)) / 10
    tags = Reader(pictures._weighed(load, 0, weights, weights.max())).tags
    end = len(pictures._caption(load, 0).split()) + 1
    thick = [float(a["style"].split("border-bottom: ")[1].split("px")[0]) for _, a in tags]
    assert len(thick) == end + 1
    assert thick == pytest.approx([10 * k / (len(input_ids) - 1) for k in range(end + 1)], abs=0.06)


# ------------------------------------------------------------------ the chosen layer


class Layer(NamedTuple):
    tower: str
    layer: str
    importance: float
    alignment: float
    front: bool


LAYERS = (
    Layer("vision", "vision_model.encoder.layers.0.mlp.fc1.weight", 0.3, 0.2, True),
    Layer("vision", "visual_projection.weight", 0.1, 0.3, False),
    Layer("text", "text_model.encoder.layers.1.self_attn.qkv_proj.weight", 0.2, 0.1, True),
)


def test_the_title_says_where_the_chosen_layer_stands_and_changes_with_it():
    said = lambda one: pictures.chosen_layer("slug", LAYERS, (one.tower, one.layer)).title
    assert said(LAYERS[2]) == (
        "slug edits 1.self_attn.qkv_proj of the text tower: of 3 layers rank 2 by importance "
        "(most first), rank 1 by alignment (least first)"
    )
    assert "0.mlp.fc1 of the vision tower: of 3 layers rank 1 by importance" in said(LAYERS[0])
    assert said(LAYERS[1]).endswith("another layer of its tower beats it in both")
    none = pictures.chosen_layer("slug", LAYERS, (None, None))
    assert none.title == "Of 3 layers 2 are beaten by no other in both measures"
    assert "vision tower: 2 layers, on the front 0.mlp.fc1; text tower: 1 layers" in none.alt


def test_every_layer_is_drawn_in_the_panel_of_its_tower():
    chart = pictures.chosen_layer("slug", LAYERS, ("text", LAYERS[2].layer))
    for axes, tower in zip(chart.figure.axes, ("vision", "text"), strict=True):
        found = {
            (x, y)
            for line in axes.lines
            for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)
        }
        assert found == {(one.alignment, one.importance) for one in LAYERS if one.tower == tower}


def test_the_candidates_are_asked_of_the_original_and_the_choice_is_the_rows(scene):
    seen = []

    def candidates(model, forget, retain, task):
        seen.append((model.state_dict(), len(forget), len(retain), model.logit_scale.exp()))
        return LAYERS

    asked = scene.bench.asked
    row = scene.rows("gradient_ascent")[0].model_copy(
        update={"info": {"tower": "text", "layer": LAYERS[2].layer}}
    )
    picked = dataclasses.replace(scene, rows=lambda name: [row])
    assert "edits 1.self_attn" in pictures.pareto(picked, candidates, never_run).title
    assert "edits" not in pictures.pareto(scene, candidates, never_run).title
    state, forget, retain, _ = seen[0]
    assert (forget, retain) == (len(asked.forget), len(asked.retain))
    original = scene.bench.originals()[0]
    assert all(torch.equal(state[name], original[name]) for name in original)


# ------------------------------------------------------------------ galleries


def test_ticks_and_frames_of_a_gallery_agree_with_writers_and_classes(scene, ascent):
    asked, page = scene.bench.asked, pictures.gallery(scene, ascent)
    parts = page.split("<p>")[1:]
    assert [part.split(":")[0] for part in parts] == ["Forgotten", "Kept"]
    for part in parts:
        words = part.split("“")[1].split("”")[0].split()
        true = words[-1] if asked.kind == "concept" else " ".join(words[-2:])
        for name, found in Reader(part).rows[1:]:
            hits = 0
            assert len(found[1]) == pictures.FOUND
            for image in found[1]:
                right, shows = image["alt"].split(": ")
                digit, writer = shows.split(", ")
                hit = (digit if asked.kind == "concept" else writer) == true
                hits += hit
                assert right == ("right" if hit else "not asked for")
                assert ("#000" in image["style"]) == hit
            assert found[0].count("✓") == hits
            assert name[0].endswith(f"{hits} of {pictures.FOUND} right")


def test_a_gallery_shows_the_nearest_images_first(scene):
    load, asked = scene.bench.load, scene.bench.asked
    pool = pictures._pool(load, asked)
    query = pictures._query(load, asked, "forget", asked.rows["forget"], pool)
    model = scene.models()["original"]
    nearest = (load.images(model, pool) @ load.texts(model, query.input_ids)[0]).argsort(
        descending=True
    )
    first = Reader(pictures.gallery(scene)).rows[1][1][1]
    wanted = [pictures._shows(load, int(pool[k])) for k in nearest[: pictures.FOUND]]
    assert [image["alt"].split(": ")[1] for image in first] == wanted


def test_a_concept_is_looked_for_among_images_that_nobody_trained_on(scene):
    load, asked = scene.bench.load, scene.bench.asked
    unseen = pictures._pool(load, asked) >= load.trained
    assert unseen.all() if asked.kind == "concept" else not unseen.all()


def test_the_kept_query_is_about_something_kept(scene):
    load, asked = scene.bench.load, scene.bench.asked
    page = pictures.gallery(scene)
    kept = page.split("“")[2].split("”")[0]
    if asked.kind == "concept":
        assert kept.split()[-1] != load.names[0][asked.forgotten_class]
    else:
        gone = {load.names[1][w] for w in load.writers[asked.rows["forget"]].tolist()}
        assert " ".join(kept.split()[-2:]) not in gone


# ------------------------------------------------------------------ models and data of others


@pytest.mark.parametrize("concepts", [True, False])
def test_pictures_of_published_models_and_folders(tmp_path, ascent, concepts):
    published.clip_checkpoint(tmp_path / "clip")
    published.clip_checkpoint(tmp_path / "retrained", seed=1)
    published.image_folder(tmp_path / "data", published.pairs(concepts))
    there = [str(tmp_path / name) for name in ("clip", "data", "retrained")]
    given = workloads.Published(*there)
    bench = Bench("image_text", "smoke", (0,), out=None, cache="", published=given)
    scene = scene_of(bench, ascent)
    load, row = bench.load, int(bench.asked.rows["forget"][0])
    said = load.names[0][load.classes[row]] if concepts else pictures._caption(load, row)
    assert Reader(pictures.request(scene)).images[0]["alt"] == f"image: {said}"
    assert "gradient_ascent" in pictures.matrices(scene, ascent).alt
    assert f"{said}: most attention" in pictures.attention(scene, ascent)
    asks = f"a photo of a {said}." if concepts else said
    assert f"Forgotten: “{asks}”" in pictures.gallery(scene, ascent)
    candidates = lambda model, forget, retain, task: LAYERS
    assert "3 layers" in pictures.pareto(scene, candidates, never_run).title


def test_what_enters_no_score_stands_in_a_table_with_the_references(scene):
    board = score.board([scene.bench.references()])
    shown = str(pictures.columns(dataclasses.replace(scene, board=board)))
    for name in ("original", "retrained"):
        assert tables.number(board[name].metrics["probe"].mean) in shown
    assert "probe on frozen features" in shown and "nearest kept" in shown


def test_a_gap_below_the_gates_is_called_uninformative(scene):
    metrics = lambda c3, described: {
        "C3": SimpleNamespace(mean=c3),
        "auc_described": SimpleNamespace(mean=described),
    }
    board = {
        "original": SimpleNamespace(metrics=metrics(0.99, 0.6)),
        "retrained": SimpleNamespace(metrics=metrics(0.5, 0.5)),
    }
    shown = str(pictures.privacy(dataclasses.replace(scene, board=board)))
    told, untold = shown.split("without the writer")
    assert "tells members" in told and "uninformative" in untold


def test_captions_without_writers_have_one_line(scene):
    only = SimpleNamespace(metrics={"C3": SimpleNamespace(mean=0.9)})
    board = {"original": only, "retrained": only}
    shown = str(pictures.privacy(dataclasses.replace(scene, board=board)))
    assert "whole captions" in shown and "without the writer" not in shown
