"""Diffusion pipelines and image folders of others: read, measured, refused with a sentence."""

import json
import re
import shutil

import published
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

from erasus_nb import __main__, cells, workloads
from erasus_nb.benchmark import Bench
from erasus_nb.profiles import PublishedDiffusionSizes, Recipe
from erasus_nb.training import global_seed, same_weights
from erasus_nb.workloads import Published, imagefolder
from erasus_nb.workloads.diffusion.captions import tokenizer_of
from erasus_nb.workloads.diffusion.pipelines import decoded, pixels
from erasus_nb.workloads.diffusion.published import PARTS, build
from erasus_nb.workloads.identity import PIPELINE, model_type

CPU = torch.device("cpu")
RECIPE = Recipe(2, 1e-3, 8)
SIZES = PublishedDiffusionSizes(1, None, None, 4, 2, 3, RECIPE, 3, 3.0)
#: part -> (what its pairs show, how many of each, copies).
LAYOUT = [
    ("forget", ("disk",), 6, 1),
    ("forget", ("bar",), 3, 4),
    ("retain", ("bar", "cross", "ring"), 5, 1),
    ("holdout", ("disk",), 4, 1),
    ("holdout", ("bar",), 3, 1),
    ("validation", ("disk", "bar"), 2, 1),
    ("test", ("bar", "cross", "ring"), 6, 1),
    ("judge", published.SHAPES, 8, 1),
]


# ------------------------------------------------------------------ making pipelines and folders


def lines_of(concepts: bool = True, copies: bool = True) -> list[dict[str, str]]:
    """Lines of a metadata file: disks are to be forgotten, and bars that come four times."""
    lines = []
    for part, shapes, count, times in LAYOUT:
        for shape in shapes:
            for k in range(count):
                number = len(lines)
                text = f"{published.COLOURS[number % 4]} {shape} {published.PLACES[k % 3]}"
                marked = concepts or part in ("test", "judge")
                lines.append(
                    {
                        "file_name": f"images/{number}.png",
                        "text": text,
                        "part": part,
                        "concept": shape if marked else "",
                        "copies": str(times if copies else 1),
                    }
                )
    return lines


def folder_of(folder, lines=None, side=8, mode="L", kind="csv", written=None):
    """An image folder; `written` are the lines of its metadata file, if others than `lines`."""
    lines = lines_of() if lines is None else lines
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for line in lines:
        number = int(re.search(r"\d+", line["file_name"])[0])
        shape = next(word for word in line["text"].split() if word in published.SHAPES)
        image = published.picture(shape, number).convert(mode).resize((side, side))
        image.save(folder / line["file_name"])
    lines = lines if written is None else written
    published.write_metadata(folder, lines, kind)
    return folder


def tokenizer():
    said = [line["text"] for line in lines_of()]
    found = tokenizer_of([" ".join(sorted({word for text in said for word in text.split()}))])
    found.model_max_length = 6
    return found


def unet_of(seed=0, **settings):
    usual = dict(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        mid_block_type=None,
        cross_attention_dim=16,
        attention_head_dim=2,
        norm_num_groups=4,
    )
    with global_seed("unet", seed):
        return UNet2DConditionModel(**usual | settings)


def vae_of(seed=0):
    with global_seed("vae", seed):
        return AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            block_out_channels=(8, 8),
            norm_num_groups=4,
            sample_size=16,
        )


def encoder_of(words, seed=0):
    config = CLIPTextConfig(
        vocab_size=words + 2,  # published vocabularies are padded, too
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=6,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=words - 1,
    )
    with global_seed("text", seed):
        return CLIPTextModel(config)


def scheduler_of(kind=PNDMScheduler, **settings):
    usual = dict(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    return kind(num_train_timesteps=1000, **usual | settings)


def save(folder, **parts):
    """A pipeline as it is published: each part in its folder, and the index beside them.

    `StableDiffusionPipeline` cannot be made without a vae; whoever trains one in pixels writes
    such a folder with a pipeline class of their own. A part that is None is left out.
    """
    words = tokenizer()
    usual = {
        "unet": lambda: unet_of(),
        "text_encoder": lambda: encoder_of(len(words)),
        "tokenizer": lambda: words,
        "scheduler": lambda: scheduler_of(),
    }
    index = {"_class_name": "StableDiffusionPipeline", "_diffusers_version": "0.42.1"}
    for name in (*usual, *(set(parts) - set(usual))):
        part = parts[name] if name in parts else usual[name]()
        if part is not None:
            part.save_pretrained(folder / name)
            library = type(part).__module__.split(".")[0]
            index[name] = [library, type(part).__name__]
        else:
            index[name] = [None, None]
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def latent(folder, seed=0):
    """A whole Stable Diffusion pipeline, tiny, as diffusers itself saves it."""
    words = tokenizer()
    made = StableDiffusionPipeline(
        vae=vae_of(),
        text_encoder=encoder_of(len(words)),
        tokenizer=words,
        unet=unet_of(seed, in_channels=4, out_channels=4),
        scheduler=scheduler_of(steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    made.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Pipelines in pixels and in latents, two of each, and folders of images for both."""
    folder = tmp_path_factory.mktemp("published")
    save(folder / "pixels")
    save(folder / "retrained", unet=unet_of(1))
    latent(folder / "latents")
    folder_of(folder / "disks")
    folder_of(folder / "colours", side=16, mode="RGB", kind="jsonl")
    return folder


def source(made, data="disks", model="pixels", retrained="", beside=""):
    return published.given(made, data, model, retrained, beside)


@pytest.fixture(scope="module")
def disks(made):
    return build(source(made), SIZES, CPU)


@pytest.fixture(scope="module")
def colours(made):
    return build(source(made, "colours", "latents"), SIZES, CPU)


def said(load, batch) -> list[str]:
    return load.tokenizer.batch_decode(batch["prompts"][:, 0], skip_special_tokens=True)


def texts(part, *shapes) -> list[str]:
    return sorted(
        x["text"]
        for x in lines_of()
        if x["part"] == part and x["concept"] in (shapes or x["concept"])
    )


# ------------------------------------------------------------------ reading


def test_every_pair_is_what_its_line_says(disks):
    asked = disks.request()
    assert sorted(said(disks, asked.retain)) == texts("retain")
    assert sorted(said(disks, asked.forget)) == sorted(
        texts("forget", "disk") + 4 * texts("forget", "bar")
    )
    assert sorted(said(disks, asked.holdout)) == texts("holdout")
    assert sorted(said(disks, asked.concept)) == texts("holdout", "disk")
    assert sorted(said(disks, asked.utility)) == texts("test")
    assert sorted(said(disks, disks.validation(asked))) == texts("validation")
    assert sorted(said(disks, disks.rows(disks.judged))) == texts("judge")
    for part in (asked.holdout, asked.utility, disks.validation(asked)):
        assert (part["ids"] < 0).all()
    rote = asked.rote.tolist()
    assert sum(rote) == 12 and [text for text, r in zip(said(disks, asked.forget), rote) if r]
    shown = disks.images["kinds"][disks.training[asked.forget["ids"][asked.rote]]]
    assert {disks.concepts[k] for k in shown.tolist()} == {"bar"}


def test_images_are_read_as_they_are(made, tmp_path):
    line = imagefolder.read(str(made / "disks"), PARTS)[0]
    found = pixels(line.image, 1, (8, 8))
    with Image.open(line.image) as image:
        assert found.shape == (1, 8, 8) and [*((found + 1) * 127.5).flatten().round()] == [
            *image.get_flattened_data()
        ]
    wide = Image.new("RGB", (6, 4), (255, 0, 51))
    wide.save(tmp_path / "wide.png")
    found = pixels(tmp_path / "wide.png", 3, (4, 6))
    assert found.shape == (3, 4, 6)
    torch.testing.assert_close(found[:, 0, 0], torch.tensor([1.0, -1.0, -0.6]))


def test_a_pair_that_stands_there_twice_has_two_copies(made, tmp_path):
    once = lines_of(copies=False)
    bars = [line for line in once if line["part"] == "forget" and line["concept"] == "bar"]
    data = folder_of(tmp_path, once, written=[*once, *bars, *bars, *bars])
    load, wanted = (
        build(Published(str(made / "pixels"), str(folder)), SIZES, CPU)
        for folder in (data, made / "disks")
    )
    assert load.fingerprint == wanted.fingerprint


def test_latents_are_the_mean_that_the_pipelines_vae_gives(made, colours):
    vae = AutoencoderKL.from_pretrained(made / "latents", subfolder="vae").eval()
    line = next(x for x in imagefolder.read(str(made / "colours"), PARTS) if x.part == "forget")
    image = pixels(line.image, 3, (16, 16))[None]
    with torch.no_grad():
        wanted = vae.encode(image).latent_dist.mean * vae.config.scaling_factor
    table = colours.images["pixel_values"]
    assert table.shape[1:] == (4, 8, 8)
    assert (table - wanted).flatten(1).norm(dim=1).min() < 1e-5
    with torch.no_grad():
        torch.testing.assert_close(
            decoded(colours.pipeline.vae, wanted),
            vae.decode(wanted / vae.config.scaling_factor).sample,
        )


def test_sizes_cut_every_part_and_leave_every_concept(made):
    sizes = PublishedDiffusionSizes(1, 6, 4, 4, 1, 3, RECIPE, 3, forget=8)
    load = build(source(made), sizes, CPU)
    asked = load.request()
    assert [len(asked.rows[k]) for k in ("concept", "private")] == [4, 3]
    assert len(asked.rows["retain"]) == 6 and len(asked.holdout) == 4
    assert len(asked.utility) == 12 and len(load.judged) == 16  # four of each
    again = build(source(made), sizes, CPU)
    assert said(again, again.request().retain) == said(load, asked.retain)


# ------------------------------------------------------------------ the request


def test_the_request_follows_from_concepts_and_copies(made, tmp_path, disks):
    asked = disks.request()
    assert asked.kind == "standard" and disks.concepts[asked.forgotten_class] == "disk"
    assert asked.kept == (0, 1, 3)
    bars = {x["file_name"] for x in lines_of() if x["part"] == "forget" and x["concept"] == "bar"}
    rest = [x for x in lines_of() if x["file_name"] not in bars]
    given = Published(str(made / "pixels"), str(folder_of(tmp_path / "one", rest)))
    alone = build(given, SIZES, CPU).request()
    assert alone.kind == "concept" and not alone.rote.any()
    given = Published(str(made / "pixels"), str(folder_of(tmp_path / "two", lines_of(False))))
    load = build(given, SIZES, CPU)
    single = load.request()
    assert single.kind == "memorised" and single.forgotten_class is None and single.rote.all()
    reasons = {
        name: found.reason
        for name, found in load.measure(load.start_model(0), single)[0].items()
        if found.value is None
    }
    concept = "the request names no concept"
    names = ("C2", "recognised_word", "recognised_paraphrase", "second_judge", "other_words")
    names = (*names, "best_of_noises", "completion", "inversion", "free_token", "auc_concept")
    wanted = dict.fromkeys((*names, "nearest"), concept)
    wanted["owners_digit"] = "no concept of a memorised image is marked"
    assert reasons == wanted


def test_what_cannot_be_measured_says_why(disks):
    measured, answers = disks.measure(disks.start_model(0), disks.request())
    assert {k: m.reason for k, m in measured.items() if m.value is None} == {
        "recognised_paraphrase": "an image has one caption, so there is no paraphrase",
        "other_words": "nothing of a caption but its concept is marked",
    }
    assert answers.isfinite().all() and len(answers) == 9


def test_a_token_that_no_caption_has_is_learnt(made):
    load = build(source(made), SIZES, CPU)
    assert load._free not in load.images["prompts"].unique().tolist()
    asked, model = load.request(), load.start_model(0)
    assert load._attacked(model, asked).keys() == {"completion", "inversion", "free_token"}
    load.__dict__["_free"] = None  # as of a tokenizer all of whose tokens are in captions
    found = load._concept(model, asked)["free_token"]
    assert found.value is None and found.reason == "the tokenizer has no token that no caption has"


def test_the_judges_know_the_concepts_from_their_own_images(disks, colours):
    for load in (disks, colours):
        batch = load.rows(load.judged)
        for judge in load.judges:
            assert judge.shows(batch["pixel_values"], batch["kinds"]).double().mean() > 0.9
            assert judge.accuracy > 0.5, judge.name  # a guess among four is right in a quarter
            assert "of 4 concepts, trained on 32 images" in judge.name and "seed 0" in judge.name
        assert load.about["judges"] == [judge.name for judge in load.judges]
    # Nothing that is trained on or measured taught them.
    taken = set(disks.judged.tolist())
    asked = disks.request()
    for name, rows in asked.rows.items():
        assert taken.isdisjoint(rows.tolist()), name
    assert taken.isdisjoint(disks.training.tolist())


def test_a_copy_of_a_memorised_image_counts_and_a_mean_image_does_not(disks, monkeypatch):
    asked = disks.request()
    rows = asked.rows["private"]
    prompts = disks.images["prompts"]
    images = disks.images["pixel_values"]

    def own(model, wanted, each, *name):
        places = [int((prompts[rows, 0] == one).all(1).nonzero()[0, 0]) for one in wanted]
        return images[rows[places]].repeat_interleave(each, 0)

    monkeypatch.setattr(disks, "sampled", own)
    assert disks._copies(None, asked)["C1"].value == 1
    mean = images[disks.training].mean(0, keepdim=True)
    monkeypatch.setattr(
        disks,
        "sampled",
        lambda model, wanted, each, *name: mean.repeat(len(wanted) * each, 1, 1, 1),
    )
    assert disks._copies(None, asked)["C1"].value == 0


def test_real_images_are_as_good_as_sampling_can_be(disks, monkeypatch):
    asked = disks.request()
    table, test = disks.images, asked.rows["utility"]

    def real(model, wanted, each, *name):
        found = []
        for one in wanted:
            same = test[(table["prompts"][test, 0] == one).all(1)]
            found.append(table["pixel_values"][same[:1].repeat(each)])
        return torch.cat(found)

    monkeypatch.setattr(disks, "sampled", real)
    good = disks._useful(None, asked)
    monkeypatch.setattr(
        disks, "sampled", lambda m, wanted, each, *n: torch.zeros(len(wanted) * each, 1, 8, 8)
    )
    bad = disks._useful(None, asked)
    assert good["C4"].value > 0.3 > bad["C4"].value
    assert good["recognised_kept"].value > 0.7 > bad["recognised_kept"].value
    assert good["frechet"].value < bad["frechet"].value


@pytest.mark.parametrize("fixture", ["disks", "colours"])
def test_relearning_takes_a_quarter_and_asks_for_the_rest(request, fixture):
    load = request.getfixturevalue(fixture)
    asked = load.request()
    some, probes = load.attack(asked)
    assert sorted(load.training[some["ids"]].unique().tolist()) == sorted(
        asked.rows["concept"][:2].tolist() + asked.rows["private"][:1].tolist()
    )
    assert list(probes) == ["the other memorised images made", "the concept recognised"]
    assert all(0 <= probe(load.start_model(0)) <= 1 for probe in probes.values())


@pytest.mark.parametrize(("kind", "folds"), [("concept", (1,)), ("most", (1,)), ("standard", (2,))])
def test_other_requests_are_refused(disks, kind, folds):
    with pytest.raises(ValueError, match="standard request only|folds are 1 to 1"):
        disks.request(kind, folds)


# ------------------------------------------------------------------ models


def test_a_sample_is_what_diffusers_own_pipeline_makes(made, colours):
    pipe = StableDiffusionPipeline.from_pretrained(made / "latents", safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = DDIMScheduler.from_config(
        pipe.scheduler.config,
        timestep_spacing="trailing",
        set_alpha_to_one=True,
        clip_sample=False,
    )
    prompts = ["red disk left", "blue cross right"]
    noise = colours.noise("compared", count=2)
    wanted = pipe(
        prompts,
        num_inference_steps=SIZES.steps,
        guidance_scale=SIZES.guidance,
        latents=noise,
        output_type="pt",
    ).images
    ids = torch.stack([row for row in _coded(colours, prompts)])
    process = colours.process
    found = process.sample(colours.start_model(0), process.encode(ids), noise)
    assert found.abs().max() > 1  # latents are not cut to what images may be
    shown = decoded(colours.pipeline.vae, found) / 2 + 0.5
    torch.testing.assert_close(shown.clamp(0, 1), wanted, atol=1e-4, rtol=1e-4)


def _coded(load, prompts):
    return load.tokenizer(
        prompts, padding="max_length", max_length=6, truncation=True, return_tensors="pt"
    )["input_ids"]


@pytest.mark.parametrize(("data", "model"), [("disks", "pixels"), ("colours", "latents")])
def test_saving_and_loading_a_pipeline_changes_no_sample(made, tmp_path, data, model):
    first = build(source(made, data, model), SIZES, CPU)
    state = first.train([first.train_ids], [0])[0]
    shutil.copytree(made / model, tmp_path / "trained")
    first.load(state).save_pretrained(tmp_path / "trained" / "unet")
    given = Published(str(tmp_path / "trained"), str(made / data))
    trained = build(given, SIZES, CPU)
    asked = trained.request()
    assert same_weights(trained.start_model(0).state_dict(), state)
    prompts = trained.asked(asked.rows["concept"])[0]
    images = [load.sampled(load.load(state), prompts, 2, "a") for load in (first, trained)]
    assert torch.equal(*images)
    results = [load.measure(load.load(state), asked) for load in (first, trained)]
    assert results[0][0] == results[1][0] and torch.equal(results[0][1], results[1][1])
    assert trained.fingerprint != first.fingerprint


def test_the_published_unet_is_what_training_starts_from(made, disks):
    stored = UNet2DConditionModel.from_pretrained(made / "pixels", subfolder="unet").state_dict()
    assert same_weights(disks.start_model(0).state_dict(), stored)
    trained = disks.train([disks.train_ids], [0])[0]
    assert not same_weights(trained, stored)
    assert same_weights(disks.start_model(1).state_dict(), stored)  # nothing was trained in place
    assert not same_weights(disks.make_model(0).state_dict(), stored)


def test_training_lowers_the_loss_of_what_is_trained_on(disks):
    sizes = PublishedDiffusionSizes(1, None, None, 4, 2, 3, Recipe(30, 3e-3, 8), 3, 3.0)
    load = build(disks.source, sizes, CPU)
    model = load.load(load.train([load.train_ids], [0])[0])
    rows = load.training.unique()
    assert load.losses(model, rows).mean() < load.losses(load.start_model(0), rows).mean()


def test_two_published_pipelines_are_taken_as_they_are(made):
    load = build(source(made, retrained="retrained"), SIZES, CPU)
    for kind, name in (("original", "pixels"), ("retrained", "retrained")):
        stored = UNet2DConditionModel.from_pretrained(made / name, subfolder="unet").state_dict()
        assert same_weights(load.load(load.fixed(kind)).state_dict(), stored)
    assert "both models are published" in load.facts["published"]["references"]
    assert load.name != build(source(made), SIZES, CPU).name


def test_what_is_read_makes_the_name_and_not_where_it_lies(made, disks, tmp_path):
    assert re.fullmatch(r"diffusion-disks-pixels-[0-9a-f]{8}", disks.name)
    for name in ("pixels", "disks"):
        shutil.copytree(made / name, tmp_path / name)
    again = lambda: build(source(tmp_path), SIZES, CPU).name
    assert again() == disks.name
    encoder = CLIPTextModel.from_pretrained(tmp_path / "pixels", subfolder="text_encoder")
    encoder.get_input_embeddings().weight.data[5] += 1
    encoder.save_pretrained(tmp_path / "pixels" / "text_encoder")
    changed = again()
    assert changed != disks.name
    published.picture("ring", 777).convert("L").resize((8, 8)).save(
        tmp_path / "disks" / "images" / "7.png"
    )
    assert again() not in (changed, disks.name)


@pytest.mark.parametrize("kind", [DDPMScheduler, DDIMScheduler, EulerDiscreteScheduler])
def test_noise_levels_are_those_of_the_betas_whatever_the_sampler(made, tmp_path, kind, disks):
    save(tmp_path, scheduler=scheduler_of(kind))
    load = build(Published(str(tmp_path), str(made / "disks")), SIZES, CPU)
    assert torch.equal(
        load.process.scheduler.alphas_cumprod, disks.process.scheduler.alphas_cumprod
    )


# ------------------------------------------------------------------ strategies


@pytest.mark.parametrize("retrained", ["", "retrained"])
def test_strategies_and_controls_give_rows(made, retrained):
    bench = Bench(
        "diffusion", "smoke", out=None, cache="", published=source(made, retrained=retrained)
    )
    rows = [*bench.references().rows, *bench.run(cells.load("llm").ssd)]
    unable = {row.strategy: row.reason for row in rows if row.status != "ok"}
    # It needs the weights that training started from, and two published models have none.
    assert list(unable) == (["partial_retrain"] if retrained else []), unable
    assert {"original", "retrained", "random_init", "ssd"} <= {row.strategy for row in rows}
    ssd = rows[-1]
    assert 0 <= ssd.metrics["C1"].value <= 1 and ssd.divergence_to_retrained
    assert "diffusion" in ssd.settings_chosen_by
    document = bench.references()
    assert document.facts["published"]["model"].endswith("pixels")
    assert document.facts["published"]["data"].endswith("disks")
    assert {gate.name.split(" >=")[0] for gate in document.gates} >= {"C1 gap", "C2 gap"}


@pytest.fixture(scope="module")
def benches(made):
    return {
        name: Bench("diffusion", "smoke", out=None, cache="", published=source(made, *which))
        for name, which in (("pixels", ()), ("latents", ("colours", "latents")))
    }


#: Strategies that cannot mean anything on a published pipeline -> a word of the reason.
UNABLE = {
    "amnesiac": "log of every update",
    "sisa": "shards",
    "certified_removal": "convex",
    "modality_decoupling": "one modality",
}


def universal():
    pages = ("gradient", "parameter", "data", "ensemble")
    found = [(page, name) for page in pages for name in cells.strategies(page)]
    return [*found, ("llm", "ssd")]


@pytest.mark.parametrize(("page", "name"), universal())
def test_every_universal_strategy_runs_or_says_why_not(benches, page, name):
    function = cells.strategies(page)[name]
    bench = benches["latents" if name == "ssd" else "pixels"]
    row = bench.run(function)[0]
    if row.status == "not_applicable":
        assert name in UNABLE and UNABLE[name] in row.reason, row.reason
    else:
        assert row.status == "ok" and name not in UNABLE, row.reason
        assert row.weights_changed or function.facts.product


# ------------------------------------------------------------------ what is refused


def refused(model, data, words, retrained="", beside="", sizes=SIZES):
    given = Published(str(model), str(data), str(retrained), str(beside))
    with pytest.raises(ValueError, match=words) as found:
        build(given, sizes, CPU)
    assert "\n" not in str(found.value)


def changed(change):
    return lambda lines: [{**line, **change(line)} for line in lines]


def first(**fields):
    """A change of the first line."""
    return lambda lines: [{**lines[0], **fields}, *lines[1:]]


def without(part, *concepts):
    gone = lambda line: line["part"] == part and line["concept"] in (concepts or line["concept"])
    return lambda lines: [line for line in lines if not gone(line)]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (first(file_name="images/none.png"), "line 2 names the image images/none.png, which is"),
        (first(part="bank"), "part is 'bank'; it is one of forget, retain, .* judge"),
        (first(text=" "), "line 2: text is empty"),
        (first(copies="0"), "line 2: copies is '0'; it is a whole number from 1"),
        (first(copies="-1"), "copies is '-1'"),
        (first(copies="two"), "copies is 'two'"),
        (first(text="red zebra left"), "images/0.png: the tokenizer does not know 'zebra'"),
        (first(text="red disk left left left"), "takes 7 tokens and the model reads 6"),
        (first(concept="zebra"), "shows 'zebra', and no judge pair does; there are bar, cross"),
        (without("forget"), "marks no pairs forget; at least 4 are needed"),
        (without("judge"), "marks no pairs judge; at least 8"),
        (without("judge", "bar", "cross", "ring"), "the judge pairs of .* show one concept"),
        (without("holdout", "bar"), "ask for single images, and no holdout pairs are like them"),
        (without("test", "bar", "ring"), "marks 6 pairs test; at least 8"),
        (
            changed(lambda x: {"concept": "bar"} if x["part"] == "test" else {}),
            "show 1 kept concepts at least 4 times; at least 2 are needed",
        ),
        (
            lambda x: [r for k, r in enumerate(without("judge", "ring")(x) + x[-3:])],
            "marks 3 judge pairs of concept ring; at least 4",
        ),
        (
            changed(lambda x: {"concept": ""} if x["part"] == "judge" else {}),
            "is marked judge, and no concept says what it shows",
        ),
    ],
)
def test_a_metadata_file_that_cannot_be_used_is_named(made, tmp_path, change, words):
    data = folder_of(tmp_path, written=change(lines_of()))
    refused(made / "pixels", data, words)


def test_a_folder_without_metadata_is_refused(made, tmp_path):
    shutil.copytree(made / "disks", tmp_path / "disks")
    (tmp_path / "disks" / "metadata.csv").unlink()
    refused(made / "pixels", tmp_path / "disks", "has no metadata.csv or metadata.jsonl")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (None, r"images/3\.png is broken: "),
        (lambda image: image.resize((9, 8)), r"\(9 x 8, mode L\) is not what .* 8 x 8, mode L"),
        (lambda image: image.convert("RGB"), r"\(8 x 8, mode RGB\) is not what the pipeline takes"),
    ],
)
def test_an_image_that_is_not_what_the_pipeline_takes_is_named(made, tmp_path, change, words):
    shutil.copytree(made / "disks", tmp_path / "disks")
    path = tmp_path / "disks" / "images" / "3.png"
    if change is None:
        path.write_bytes(path.read_bytes()[:60])
    else:
        with Image.open(path) as image:
            found = change(image)
        found.save(path)
    refused(made / "pixels", tmp_path / "disks", words)


def test_one_image_in_two_parts_is_refused_whatever_its_name(made, tmp_path):
    shutil.copytree(made / "disks", tmp_path / "disks")
    images = {x["part"]: tmp_path / "disks" / x["file_name"] for x in lines_of()}
    shutil.copy(images["forget"], images["test"])
    words = r"are the same: an image belongs to one part"
    refused(made / "pixels", tmp_path / "disks", words)


def test_images_of_latents_are_as_large_as_the_vae_makes_them(made):
    refused(made / "latents", made / "disks", "is not what the pipeline takes: 16 x 16, mode RGB")


def without_part(name):
    return {name: None}, f"has no {name}; wanted is one that makes images of texts"


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        *map(without_part, ("unet", "text_encoder", "tokenizer", "scheduler")),
        (
            {"scheduler": FlowMatchEulerDiscreteScheduler()},
            r"\(FlowMatchEulerDiscreteScheduler\) has not the noise levels of a DDPM",
        ),
        (
            {"scheduler": scheduler_of(DDIMScheduler, prediction_type="v_prediction")},
            "predicts v_prediction; wanted is one that predicts the noise",
        ),
        (
            {"scheduler": scheduler_of(DDIMScheduler, rescale_betas_zero_snr=True)},
            "has not the noise levels",
        ),
        ({"unet": unet_of(out_channels=2)}, "takes 1 channels and gives 2"),
        ({"unet": unet_of(in_channels=2, out_channels=2)}, "have 2 channels; wanted are 1"),
        ({"unet": unet_of(cross_attention_dim=8)}, "gives 16 numbers a token and its unet reads 8"),
        ({"unet": unet_of(sample_size=None)}, "does not say the size of its images"),
        (
            {"unet": unet_of(class_embed_type="timestep")},
            "wants more than a noisy image, .*class_embed_type is timestep",
        ),
        ({"vae": vae_of()}, "the vae of .* gives 4 channels and its unet takes 1"),
        (
            {
                "text_encoder": T5EncoderModel(
                    T5Config(vocab_size=9, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
                )
            },
            "the text_encoder of .* is of class T5EncoderModel; wanted is CLIPTextModel",
        ),
        ({"text_encoder_2": encoder_of(9)}, "has two text encoders; wanted is one"),
        ({"tokenizer": tokenizer_of(map(str, range(99)))}, "it is not this model's tokenizer"),
    ],
)
def test_a_pipeline_that_cannot_be_used_says_why(made, tmp_path, parts, words):
    refused(save(tmp_path, **parts), made / "disks", words)


def test_a_folder_that_is_no_pipeline_is_refused(made):
    refused(made / "pixels" / "unet", made / "disks", "has no model_index.json: it is no diffusers")


def test_an_unknown_noise_schedule_is_refused(made, tmp_path):
    save(tmp_path)
    config = tmp_path / "scheduler" / "scheduler_config.json"
    found = json.loads(config.read_text())
    config.write_text(json.dumps({**found, "beta_schedule": "exponential"}))
    refused(tmp_path, made / "disks", "cannot be used: exponential is not implemented")


def test_more_sampling_steps_than_noise_levels_are_refused(made, tmp_path):
    scheduler = DDPMScheduler(num_train_timesteps=2)
    refused(
        save(tmp_path, scheduler=scheduler), made / "disks", "in 3 steps, .* has 2 noise levels"
    )


@pytest.mark.parametrize(("value", "held"), [(torch.nan, "NaN"), (torch.inf, "infinity")])
@pytest.mark.parametrize("which", ["model", "retrained"])
def test_weights_that_are_not_finite_are_named(made, tmp_path, value, held, which):
    unet = unet_of()
    unet.conv_out.weight.data[0, 0, 0, 0] = value
    given = {"model": made / "pixels", which: save(tmp_path, unet=unet)}
    words = f"holds {held} in its weights conv_out.weight"
    refused(given["model"], made / "disks", words, given.get("retrained", ""))


def test_a_pipeline_that_lacks_weights_is_refused(made, tmp_path):
    unet = unet_of()
    save(tmp_path)
    kept = {k: v for k, v in unet.state_dict().items() if not k.startswith("conv_out")}
    unet.state_dict = lambda *args, **rest: kept
    unet.save_pretrained(tmp_path / "unet")
    refused(tmp_path, made / "disks", "lacks the weights conv_out.bias and 1 more")


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"unet": unet_of(block_out_channels=(8, 24))}, "is not of the architecture of"),
        ({"text_encoder": encoder_of(len(tokenizer()), 1)}, "text encoder, vae or noise levels of"),
        ({"scheduler": scheduler_of(beta_end=0.02)}, "only the unet is unlearned"),
    ],
)
def test_a_retrained_pipeline_differs_in_its_unet_alone(made, tmp_path, parts, words):
    refused(made / "pixels", made / "disks", words, save(tmp_path, **parts))


def test_a_tokenizer_can_be_given_apart(made, tmp_path, disks):
    tokenizer().save_pretrained(tmp_path / "words")
    given = Published(str(made / "pixels"), str(made / "disks"), "", str(tmp_path / "words"))
    assert build(given, SIZES, CPU).fingerprint == disks.fingerprint


# ------------------------------------------------------------------ the door


def test_a_folder_of_a_pipeline_is_told_from_others(made, tmp_path):
    assert model_type(str(made / "pixels")) == model_type(str(made / "pixels" / "unet")) == PIPELINE
    (tmp_path / "model_index.json").write_text("[")
    assert model_type(str(tmp_path)) == ""


def test_the_kind_of_a_model_decides_its_workload(made):
    for page, model, asked in (
        ("gradient", str(made / "pixels"), ()),
        ("diffusion", "owner/model", ()),
        ("gradient", "owner/model", ("diffusion",)),
        ("vlm", str(made / "pixels"), ("diffusion",)),
    ):
        assert workloads.made_for(page, model, asked) == "diffusion", (page, model, asked)
    with pytest.raises(ValueError, match="model .*pixels.* cannot be read|is of type"):
        workloads.load("text", "smoke", published=source(made))


def test_the_command_line_finds_the_workload(made):
    both = {"model": str(made / "pixels"), "data": str(made / "disks")}
    values = __main__._values("gradient", list(both.items()), "smoke")
    assert values["workloads"] == ["diffusion"]


def test_model_and_data_go_together(made):
    refused(made / "pixels", "", "together")


def test_a_hub_id_without_network_says_what_to_do(made, monkeypatch):
    def unknown(*_):
        raise OSError("no network")

    monkeypatch.setattr("socket.getaddrinfo", unknown)
    refused("owner/pipeline", made / "disks", "model owner/pipeline is no folder here, and the hub")
