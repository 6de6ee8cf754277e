"""CLIP models and image folders of others: read as `imagefolder` reads them, refused with a
sentence."""

import csv
import re
import shutil

import published
import pytest
import torch
from PIL import Image
from transformers import (
    CLIPModel,
    CLIPProcessor,
    CLIPTextModel,
    CLIPVisionModel,
    LlamaConfig,
    LlamaForCausalLM,
)

from erasus_nb import __main__, book, cells, parameters, workloads
from erasus_nb.benchmark import Bench
from erasus_nb.profiles import PublishedPairSizes, Recipe
from erasus_nb.training import same_weights
from erasus_nb.workloads import Published
from erasus_nb.workloads.image_text.published import PARTS, build, coded, pixels, read

CPU = torch.device("cpu")
RECIPE = Recipe(2, 1e-3, 6)
SIZES = PublishedPairSizes(1, None, None, 4, RECIPE)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with two checkpoints and two image folders: of a concept, and of pairs."""
    folder = tmp_path_factory.mktemp("published")
    published.clip_checkpoint(folder / "clip")
    published.clip_checkpoint(folder / "retrained", seed=1)
    published.image_folder(folder / "disks")
    published.image_folder(folder / "pairs", published.pairs(concepts=False), "jsonl")
    return folder


def source(made, data="disks", model="clip", retrained="", tokenizer=""):
    return published.given(made, data, model, retrained, tokenizer)


@pytest.fixture(scope="module")
def disks(made):
    return build(source(made), SIZES, CPU)


@pytest.fixture(scope="module")
def single(made):
    return build(source(made, "pairs"), SIZES, CPU)


def said(load, batch) -> list[str]:
    return load.tokenizer.batch_decode(batch["input_ids"][:, 0], skip_special_tokens=True)


def texts(lines, *parts) -> list[str]:
    return sorted(line["text"] for line in lines if line["part"] in parts)


# ------------------------------------------------------------------ reading


@pytest.mark.parametrize(("name", "concepts"), [("disks", True), ("pairs", False)])
def test_every_pair_is_what_its_line_says(made, name, concepts):
    load, lines = build(source(made, name), SIZES, CPU), published.pairs(concepts)
    asked = load.request()
    assert sorted(said(load, asked.forget)) == texts(lines, "forget")
    assert sorted(said(load, asked.retain)) == texts(lines, "retain")
    assert sorted(said(load, asked.holdout)) == texts(lines, "holdout")
    assert sorted(said(load, load.validation(asked))) == texts(lines, "validation")
    # No measurement sees the pairs that all others are compared with.
    tested = said(load, asked.utility), said(load, load.bank)
    assert sorted(sum(tested, [])) == texts(lines, "test") and len(load.bank) == SIZES.bank
    assert asked.forget["ids"].tolist() == list(range(6))
    for part in (asked.holdout, asked.utility, load.bank, load.validation(asked)):
        assert (part["ids"] == -1).all()


def test_a_folder_is_one_that_imagefolder_reads(made):
    import datasets

    for name in ("disks", "pairs"):
        table = datasets.load_dataset("imagefolder", data_dir=str(made / name), split="train")
        lines = read(str(made / name))
        assert {"text", "part"} <= set(table.column_names) and len(table) == len(lines)
        ours = {line.text: line for line in lines}
        for row in table:
            line = ours[row["text"]]
            assert row["part"] == line.part and row.get("concept", "") == line.concept
            with Image.open(line.image) as image:
                assert row["image"].tobytes() == image.tobytes()


def test_an_image_goes_through_the_models_processor(made, disks):
    processor = CLIPProcessor.from_pretrained(made / "clip")
    line = next(line for line in read(str(made / "disks")) if line.part == "forget")
    with Image.open(line.image) as image:
        wanted = processor(text=[line.text], images=image, return_tensors="pt")
    forget = disks.request().forget
    place = said(disks, forget).index(line.text)
    assert torch.equal(forget["pixel_values"][place], wanted["pixel_values"][0])
    ids = forget["input_ids"][place, 0][: wanted["input_ids"].shape[1]]
    assert torch.equal(ids, wanted["input_ids"][0])


def test_an_image_lies_as_imagefolder_turns_it(tmp_path):
    upright = published.picture("bar", 1)
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn by a quarter"
    upright.rotate(90, expand=True).save(tmp_path / "turned.png", exif=exif)
    upright.save(tmp_path / "upright.png")
    found = [
        pixels(tmp_path / f"{name}.png", published.clip_processor(), (3, 16, 16))
        for name in ("turned", "upright")
    ]
    assert torch.equal(*found)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "1", "I;16"])
def test_images_of_any_mode_are_read(tmp_path, mode):
    path = tmp_path / ("image.tif" if mode == "CMYK" else "image.png")
    image = published.picture("ring", 2)
    image = image.convert("I").convert("I;16") if mode == "I;16" else image.convert(mode)
    image.save(path)
    found = pixels(path, published.clip_processor(), (3, 16, 16))
    assert found.shape == (3, 16, 16) and found.isfinite().all() and found.std() > 0


def test_metadata_may_lie_beside_the_images_of_each_part(made, tmp_path):
    for part in PARTS:
        lines = [line for line in published.pairs() if line["part"] == part]
        short = [
            {**line, "file_name": line["file_name"].removeprefix(f"{part}/")} for line in lines
        ]
        published.image_folder(tmp_path / "data" / part, short)
    again = build(Published(str(made / "clip"), str(tmp_path / "data")), SIZES, CPU)
    one, two = (load.request().forget for load in (again, build(source(made), SIZES, CPU)))
    assert sorted(said(again, one)) == sorted(said(again, two))


def test_sizes_cut_every_part(made):
    sizes = PublishedPairSizes(1, 5, 4, 8, RECIPE, forget=4)
    load = build(source(made), sizes, CPU)
    asked = load.request()
    assert [len(x) for x in (asked.forget, asked.retain, asked.holdout)] == [4, 5, 4]
    assert len(load.bank) == len(asked.utility) == 2  # half of four
    again = build(source(made), sizes, CPU)
    assert said(again, again.request().retain) == said(load, asked.retain)


# ------------------------------------------------------------------ the request


def test_a_concept_is_asked_for_where_the_forget_set_has_it_alone(disks, single):
    asked = disks.request()
    assert asked.kind == "concept" and disks.names[0][asked.forgotten_class] == "disk"
    assert sorted(said(disks, asked.concept)) == texts(published.pairs(), "holdout")
    assert disks.names[0] == ("bar", "cross", "disk", "ring")
    prompts = disks.tokenizer.batch_decode(disks.prompts, skip_special_tokens=True)
    assert prompts[2] == "a photo of a disk."
    other = single.request()
    assert other.kind == "standard" and other.forgotten_class is None and not len(other.concept)


def test_a_concept_that_is_kept_elsewhere_is_none_to_forget(made, tmp_path):
    lines = published.pairs()
    next(line for line in lines if line["part"] == "retain")["concept"] = "disk"
    load = build(
        Published(str(made / "clip"), str(published.image_folder(tmp_path, lines))), SIZES, CPU
    )
    assert load.request().kind == "standard"
    measured, _ = load.measure(load.start_model(0), load.request())
    # Whether kept concepts are recognised is still measured, on every test pair that names one.
    assert measured["C2"].value is None and measured["zero_shot"].value is not None


def test_what_cannot_be_measured_says_why(disks, single):
    reasons = {
        (name, measure): metric.reason
        for name, load in (("disks", disks), ("pairs", single))
        for measure, metric in load.measure(load.start_model(0), load.request())[0].items()
        if metric.value is None
    }
    assert reasons == {
        ("disks", "told_apart"): "the captions name no writers",
        ("disks", "auc_described"): "the captions name no writers",
        ("pairs", "told_apart"): "the captions name no writers",
        ("pairs", "auc_described"): "the captions name no writers",
        ("pairs", "C2"): "no concept is marked that the forget set has alone",
        ("pairs", "top_5"): "no concept is marked that the forget set has alone",
        ("pairs", "zero_shot"): "no concept of a kept test pair is marked",
        ("pairs", "probe"): "nothing is marked that a probe could tell",
    }


def test_a_model_without_knowledge_scores_by_chance(disks, single):
    # Recall at 5 among 6 unseen pairs of each, and at 1 among all trained ones; four concepts.
    count = len(single.request().utility) / 5
    assert single.chance == pytest.approx(2 / (count + single.trained))
    count = len(disks.request().utility) / 5
    assert disks.chance == pytest.approx(3 / (count + disks.trained + 4))


def test_nearest_pairs_are_kept_ones(disks, single):
    asked = single.request()
    near, kept = asked.rows["nearest"], set(asked.rows["retain"].tolist())
    assert 0 < len(near) < len(kept) and set(near.tolist()) <= kept
    shown = disks.classes[disks.request().rows["nearest"]]
    assert len(shown) and 2 not in shown.tolist()


@pytest.mark.parametrize("fixture", ["disks", "single"])
def test_relearning_takes_a_quarter_and_asks_for_the_rest(request, fixture):
    load = request.getfixturevalue(fixture)
    asked = load.request()
    some, probes = load.attack(asked)
    assert len(some) == 1 and some["ids"].item() in asked.forget["ids"].tolist()
    values = [probe(load.start_model(0)) for probe in probes.values()]
    assert len(values) == (2 if fixture == "disks" else 1) and all(0 <= v <= 1 for v in values)


@pytest.mark.parametrize(("kind", "folds"), [("concept", (1,)), ("most", (1,)), ("standard", (2,))])
def test_other_requests_are_refused(disks, kind, folds):
    with pytest.raises(ValueError, match="standard request only|folds are 1 to 1"):
        disks.request(kind, folds)


# ------------------------------------------------------------------ models


def test_saving_and_loading_a_model_changes_no_number(made, disks, tmp_path):
    model = disks.start_model(0)
    disks.load(disks.train([disks.train_ids], [0])[0]).save_pretrained(tmp_path / "trained")
    CLIPProcessor.from_pretrained(made / "clip").save_pretrained(tmp_path / "trained")
    trained = build(Published(str(tmp_path / "trained"), str(made / "disks")), SIZES, CPU)
    assert not same_weights(trained.start_model(0).state_dict(), model.state_dict())
    trained.start_model(0).save_pretrained(tmp_path / "again")
    CLIPProcessor.from_pretrained(tmp_path / "trained").save_pretrained(tmp_path / "again")
    again = build(Published(str(tmp_path / "again"), str(made / "disks")), SIZES, CPU)
    results = [load.measure(load.start_model(0), load.request()) for load in (trained, again)]
    assert results[0][0] == results[1][0] and torch.equal(results[0][1], results[1][1])
    assert trained.fingerprint == again.fingerprint != disks.fingerprint


def test_the_published_model_is_what_training_starts_from(made, disks):
    stored = CLIPModel.from_pretrained(made / "clip").state_dict()
    assert same_weights(disks.start_model(0).state_dict(), stored)
    trained = disks.train([disks.train_ids], [0])[0]
    assert not same_weights(trained, stored)
    assert same_weights(disks.start_model(1).state_dict(), stored)  # nothing was trained in place
    assert not same_weights(disks.make_model(0).state_dict(), stored)


def test_two_published_models_are_taken_as_they_are(made):
    load = build(source(made, retrained="retrained"), SIZES, CPU)
    for kind, name in (("original", "clip"), ("retrained", "retrained")):
        stored = CLIPModel.from_pretrained(made / name).state_dict()
        assert same_weights(load.load(load.fixed(kind)).state_dict(), stored)
    assert "both models are published" in load.facts["published"]["references"]
    assert load.name != build(source(made), SIZES, CPU).name


def test_what_is_read_makes_the_name_and_not_where_it_lies(made, disks, tmp_path):
    assert re.fullmatch(r"image_text-disks-clip-[0-9a-f]{8}", disks.name)
    for name in ("clip", "disks"):
        shutil.copytree(made / name, tmp_path / name)
    again = lambda: build(source(tmp_path), SIZES, CPU).name
    assert again() == disks.name
    image = tmp_path / "disks" / "images" / "7.png"
    published.picture("ring", 77).save(image)
    assert again() != disks.name


def test_weights_may_be_bfloat16(made):
    sizes = PublishedPairSizes(1, None, None, 4, RECIPE, dtype="bfloat16")
    load = build(source(made), sizes, CPU)
    model = load.load(load.train([load.train_ids], [0])[0])
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert load.make_model(0).dtype == torch.bfloat16
    measured, chances = load.measure(model, load.request())
    assert chances.isfinite().all() and measured["forget_loss"].value > 0


@pytest.mark.parametrize("data", ["disks", "pairs"])
@pytest.mark.parametrize("retrained", ["", "retrained"])
def test_strategies_and_controls_give_rows(made, data, retrained):
    bench = Bench(
        "image_text", "smoke", out=None, cache="", published=source(made, data, "clip", retrained)
    )
    rows = [*bench.references().rows, *bench.run(cells.load("llm").ssd)]
    unable = {row.strategy: row.reason for row in rows if row.status != "ok"}
    # It needs the weights that training started from, and two published models have none.
    assert list(unable) == (["partial_retrain"] if retrained else []), unable
    assert {"original", "retrained", "random_init", "ssd"} <= {row.strategy for row in rows}
    ssd = rows[-1]
    assert 0 <= ssd.metrics["C1"].value <= 1 and ssd.divergence_to_retrained
    assert "image_text" in ssd.settings_chosen_by or not ssd.settings


# ------------------------------------------------------------------ what is refused


def refused(model, data, words, tokenizer="", retrained=""):
    given = Published(str(model), str(data), str(retrained), str(tokenizer))
    with pytest.raises(ValueError, match=words) as found:
        build(given, SIZES, CPU)
    assert "\n" not in str(found.value)
    return str(found.value)


def folder_with(path, change, kind="csv"):
    """An image folder whose lines of metadata were changed, after the images were made."""
    lines = published.pairs()
    published.image_folder(path, lines, kind)
    with (path / "metadata.csv").open("w", newline="") as file:
        lines = change(lines)
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
    return path


def first(**fields):
    """A change of the first line."""
    return lambda lines: [{**lines[0], **fields}, *lines[1:]]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (first(file_name="images/none.png"), r"line 2 names the image images/none.png, which is"),
        (first(file_name="../disks/images/0.png"), "which is not in"),
        (first(part="forgotten"), "line 2: part is 'forgotten'; it is one of forget, retain"),
        (first(text=" "), "line 2: text is empty"),
        (first(part=""), "line 2: part is empty"),
        (first(file_name="images/6.png"), "images/6.png is marked forget and retain"),
        (lambda x: [r for r in x if r["part"] != "forget"], "marks no pairs forget; at least 4"),
        (lambda x: [r for r in x if r["part"] != "holdout"], "marks no pairs holdout"),
        (lambda x: [r for r in x if r["part"] != "test"][:-1], "marks no pairs test"),
        (
            lambda x: [{k: v for k, v in r.items() if k != "part"} for r in x],
            "there is no column part; there are file_name, text, concept",
        ),
        (
            lambda x: [{k: v for k, v in r.items() if k != "text"} for r in x],
            "there is no column text; there are file_name, part, concept",
        ),
        (first(text=" ".join(["red"] * 15)), "takes 17 tokens and the model reads 16"),
        (
            lambda x: [{**r, "text": "a disk"} if r["part"] == "test" else r for r in x],
            "test pairs of .* that all others are compared with have one caption",
        ),
    ],
)
def test_a_metadata_file_that_cannot_be_used_is_named(made, tmp_path, change, words):
    refused(made / "clip", folder_with(tmp_path / "disks", change), words)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"file_name": "a.png"', "cannot be read: Expecting"),
        (b'["a.png"]', "line 1 is no JSON object"),
        (b'{"file_name": "a.png", "text": 3, "part": "test"}', "text is no text but of type int"),
        (b"\xff\xfe{}", "is not UTF-8 text"),
    ],
)
def test_lines_of_json_that_cannot_be_used_are_named(made, tmp_path, content, words):
    (tmp_path / "metadata.jsonl").write_bytes(content)
    refused(made / "clip", tmp_path, words)


def test_a_folder_without_metadata_is_refused(made, tmp_path):
    shutil.copytree(made / "disks", tmp_path / "disks")
    (tmp_path / "disks" / "metadata.csv").unlink()
    refused(made / "clip", tmp_path / "disks", "has no metadata.csv or metadata.jsonl")


@pytest.mark.parametrize("content", [b"no image", None])
def test_a_broken_image_is_named(made, tmp_path, content):
    shutil.copytree(made / "disks", tmp_path / "disks")
    image = tmp_path / "disks" / "images" / "3.png"
    image.write_bytes(image.read_bytes()[:200] if content is None else content)
    refused(made / "clip", tmp_path / "disks", r"images/3\.png is broken: ")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (dict(do_convert_rgb=False), r"\(20 x 28, mode L\) cannot be used by the image processor"),
        (
            dict(do_resize=False, do_center_crop=False),
            r"becomes 3 x 28 x 20 numbers .* the model takes 3 x 16 x 16",
        ),
    ],
)
def test_an_image_that_no_processor_converts_is_named(made, tmp_path, settings, words):
    shutil.copytree(made / "disks", tmp_path / "disks")
    image = tmp_path / "disks" / "images" / "3.png"
    with Image.open(image) as whole:
        grey = whole.convert("L")
    grey.save(image)
    processor = published.clip_processor(**settings)
    CLIPProcessor(processor, published.clip_tokenizer()).save_pretrained(tmp_path / "processor")
    refused(made / "clip", tmp_path / "disks", words, tokenizer=tmp_path / "processor")


def test_a_model_without_its_processor_is_refused_and_can_be_given_one(made, tmp_path):
    tokenizer = published.clip_tokenizer()
    published.clip_model(len(tokenizer)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    refused(tmp_path, made / "disks", "has no image processor .* as tokenizer")
    given = Published(str(tmp_path), str(made / "disks"), "", str(made / "clip"))
    assert len(build(given, SIZES, CPU).request().forget) == 6


@pytest.mark.parametrize("tower", ["vision", "text"])
def test_a_model_without_projections_is_refused(made, tmp_path, tower):
    whole = CLIPModel.from_pretrained(made / "clip")
    cls = {"vision": CLIPVisionModel, "text": CLIPTextModel}[tower]
    cls(getattr(whole.config, f"{tower}_config")).save_pretrained(tmp_path)
    refused(tmp_path, made / "disks", f"one tower .of type clip_{tower}_model. without the proj")


def test_a_checkpoint_that_lacks_projections_is_refused(made, tmp_path):
    model = CLIPModel.from_pretrained(made / "clip")
    kept = {k: v for k, v in model.state_dict().items() if "projection" not in k}
    model.save_pretrained(tmp_path, state_dict=kept)
    refused(tmp_path, made / "disks", "lacks the weights text_projection.weight and 1 more")


def test_a_model_of_another_kind_is_refused(made, tmp_path):
    config = LlamaConfig(
        vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    refused(tmp_path, made / "disks", "is of type llama; wanted is a CLIP model")
    with pytest.raises(ValueError, match="is of type clip; wanted is a causal language model"):
        workloads.load("text", "smoke", published=source(made))


def test_an_adapter_is_refused(made, tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    refused(tmp_path, made / "disks", "is an adapter")


@pytest.mark.parametrize(("value", "held"), [(torch.nan, "NaN"), (torch.inf, "infinity")])
@pytest.mark.parametrize("which", ["model", "retrained"])
def test_weights_that_are_not_finite_are_named(made, tmp_path, value, held, which):
    model = CLIPModel.from_pretrained(made / "clip")
    model.visual_projection.weight.data[0, 0] = value
    model.save_pretrained(tmp_path)
    CLIPProcessor.from_pretrained(made / "clip").save_pretrained(tmp_path)
    given = {"model": made / "clip", **{which: tmp_path}}
    words = f"holds {held} in its weights visual_projection.weight"
    refused(given["model"], made / "disks", words, retrained=given.get("retrained", ""))


def test_a_retrained_model_of_another_shape_is_refused(made, tmp_path):
    published.clip_checkpoint(tmp_path, max_position_embeddings=20)
    refused(made / "clip", made / "disks", "not of the architecture", retrained=tmp_path)


def test_another_models_tokenizer_is_refused(made, tmp_path):
    few = published.tokenizer_of(["one two"])
    CLIPProcessor(published.clip_processor(), few).save_pretrained(tmp_path / "few")
    words = "ends captions with '<eos>', and the model looks for their end at token"
    refused(made / "clip", made / "disks", words, tokenizer=tmp_path / "few")
    many = published.tokenizer_of([" ".join(map(str, range(99)))])
    CLIPProcessor(published.clip_processor(), many).save_pretrained(tmp_path / "many")
    words = "tokens and the model embeds .*: it is not this model's tokenizer"
    refused(made / "clip", made / "disks", words, tokenizer=tmp_path / "many")


def test_captions_end_where_the_first_clip_models_read_them(made):
    tokenizer = published.clip_tokenizer()
    config = published.clip_model(len(tokenizer), eos_token_id=2).config.text_config
    said = [("one", "a red disk"), ("two", "a red disk at the left")]
    found = coded(tokenizer, said, config)
    model = published.clip_model(len(tokenizer), eos_token_id=2).eval()
    alone = tokenizer("a red disk", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        padded = model.get_text_features(input_ids=found).pooler_output[:1]
        whole = model.get_text_features(input_ids=alone).pooler_output
    torch.testing.assert_close(padded, whole)


# ------------------------------------------------------------------ the door


def test_the_kind_of_a_model_decides_its_workload(made, tmp_path):
    config = LlamaConfig(
        vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    clip, llama = str(made / "clip"), str(tmp_path)
    for page, model, asked, found in (
        ("gradient", clip, (), "image_text"),
        ("gradient", llama, (), "text"),
        ("gradient", "owner/model", (), "text"),  # nobody looks on the hub for that
        ("gradient", "owner/model", ("image_text",), "image_text"),
        ("llm", clip, (), "text"),  # the page's own; the model is refused by it
        ("llm", clip, ("image_text",), "image_text"),
    ):
        assert workloads.made_for(page, model, asked) == found, (page, model, asked)


def test_a_page_and_the_command_line_find_the_workload(made, monkeypatch):
    both = {"model": str(made / "clip"), "data": str(made / "disks")}
    for asked in ([], [("workloads", "['image_text']")]):
        values = __main__._values("gradient", [*both.items(), *asked], "smoke")
        assert values["workloads"] == ["image_text"]
    known = parameters.declared(cells.NOTEBOOKS / "gradient.ipynb")
    given = {k: what.default for k, what in known.items()} | {"profile": "smoke", **both}
    monkeypatch.setattr(book, "display", lambda shown: None)
    page = book.start("gradient", {**given, "out": ""})
    assert page.home == "image_text" and list(page.benches) == ["image_text"]
    bench = page.benches["image_text"]
    assert bench.load.source == workloads.Published(**both) and bench.name.startswith("image_text-")


@pytest.mark.parametrize("asked", [["image_text", "text"], ["synthetic"]])
def test_a_page_takes_published_models_for_one_workload(made, asked):
    known = parameters.declared(cells.NOTEBOOKS / "gradient.ipynb")
    given = {k: what.default for k, what in known.items()} | {"profile": "smoke"}
    both = {"model": str(made / "clip"), "data": str(made / "disks")}
    words = re.escape("leave workloads empty or give ['text'] or ['image_text']")
    with pytest.raises(parameters.ParameterError, match=words):
        book.start("gradient", {**given, **both, "workloads": asked})


@pytest.mark.parametrize(
    ("model", "data", "words"),
    [
        ("here", "owner/images", "dataset owner/images is no folder here, and the hub did not"),
        ("owner/clip", "here", "model owner/clip is no folder here, and the hub did not"),
        ("here", "nowhere", "dataset 'nowhere' is no folder here and no hub id"),
    ],
)
def test_a_hub_id_without_network_says_what_to_do(made, monkeypatch, model, data, words):
    def unknown(*_):
        raise OSError("no network")

    monkeypatch.setattr("socket.getaddrinfo", unknown)
    model = made / "clip" if model == "here" else model
    refused(model, made / "disks" if data == "here" else data, words)


def test_model_and_data_go_together(made):
    refused(made / "clip", "", "together")
