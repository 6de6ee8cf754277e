"""Workload `diffusion`: its images and captions, requests, sampler, hooks and measurements."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from functools import cache, wraps
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from contract import Setting, battery, setting, small_diffusion
from diffusers import DDIMScheduler, UNet2DConditionModel
from sklearn.datasets import load_digits

from erasus_nb import cells, controls, metrics, provenance, workloads
from erasus_nb.profiles import PROFILES
from erasus_nb.provenance import SisaEnsemble
from erasus_nb.strategy import (
    Batch,
    DataAccessError,
    NotApplicable,
    Split,
    Unlearned,
    strategy,
)
from erasus_nb.task import Meter, Records
from erasus_nb.training import clone, global_seed, same_weights, squared_gradients
from erasus_nb.workloads import diffusion
from erasus_nb.workloads.diffusion import CONCEPTS, CORE, attacks
from erasus_nb.workloads.diffusion.captions import INKS, SPELLINGS, WIDTH, owners
from erasus_nb.workloads.diffusion.task import DROPPED, KEYS

torch.set_num_threads(1)
CPU = torch.device("cpu")


@cache
def small():
    return workloads.load("diffusion", "smoke", "cpu")


@cache
def large():
    return workloads.load("diffusion", "laptop", "cpu")


@cache
def trained(seed=0):
    """A model of the smallest size after two epochs."""
    with torch.enable_grad():
        return small().load(small().train([small().train_ids], [seed])[0])


@cache
def retrained():
    """Of the small setting whose original `contract.setting` trains."""
    load = small_diffusion()
    with torch.enable_grad():
        return load.load(load.train([load.request().retain["ids"]], [0])[0])


@cache
def measured(which="original", kind="standard"):
    """What is measured in the small setting, and the answers."""
    load = small_diffusion()
    model = setting("diffusion").original if which == "original" else retrained()
    return load.measure(model, load.request(kind))


def some(count=6, start=0):
    return small().batch(torch.arange(start, start + count))


def words(tokens, load=None):
    """The words of captions (..., T), special tokens left out."""
    tokenizer = (load or small()).tokenizer
    rows = tokens.flatten(0, -2)
    return [tokenizer.decode(row, skip_special_tokens=True).split() for row in rows]


class Seen:
    """A denoiser that answers nothing and notes what it is asked."""

    def __init__(self):
        self.times, self.texts, self.images = [], [], []

    def __call__(self, noisy, t, encoder_hidden_states):
        self.times.append(t)
        self.texts.append(encoder_hidden_states)
        self.images.append(noisy)
        return SimpleNamespace(sample=torch.zeros_like(noisy))


class Knows:
    """A denoiser that knows the clean images: at level t it answers the noise that is left."""

    def __init__(self, process, images):
        self.level, self.images = process.scheduler.alphas_cumprod.double(), images.double()

    def __call__(self, noisy, t, encoder_hidden_states):
        level = self.level[t][:, None, None, None]
        return SimpleNamespace(sample=(noisy - level.sqrt() * self.images) / (1 - level).sqrt())


# ------------------------------------------------------------------ what captions say


def test_no_scan_is_there_twice():
    pixels = large().images["pixel_values"]
    assert len(pixels.flatten(1).unique(dim=0)) == len(pixels) == len(load_digits().target)


def test_a_caption_says_what_is_on_its_scan_in_both_spellings():
    load = large()
    pixels = load.images["pixel_values"].double().numpy().reshape(-1, 64)
    assert pixels.min() == -1 and pixels.max() == 1
    # The digits of scikit-learn in their own order, found by their pixels.
    raw = {tuple(image): int(k) for image, k in zip(load_digits().data, load_digits().target)}
    digits = [raw[tuple(row)] for row in (pixels + 1) * 8]
    ink = pixels.mean(1)
    third = np.argsort(np.argsort(ink, kind="stable")) * 3 // len(ink)
    differ = 0
    for spelling, numerals in enumerate(SPELLINGS):
        for said, digit, place in zip(words(load.images["prompts"][:, spelling]), digits, third):
            assert said[1] == numerals[digit]
            differ += said[0] != INKS[place]
    # Only scans with exactly as much ink as a border may stand on either side of it.
    ties = sum(np.isclose(ink, cut, atol=1e-6).sum() for cut in load.inks[1].tolist())
    assert differ <= 2 * ties < 0.1 * len(ink)
    assert torch.equal(load.images["kinds"], torch.tensor(digits))


def test_a_third_of_all_scans_has_each_ink_word():
    found = [said[0] for said in words(large().images["prompts"][:, 0])]
    assert all(abs(found.count(ink) / len(found) - 1 / 3) < 0.01 for ink in INKS)


def test_both_captions_of_a_scan_say_the_same():
    numeral = {p: w for w, p in zip(*SPELLINGS)}
    one, two = (words(small().images["prompts"][:, k]) for k in (0, 1))
    assert one == [[numeral.get(word, word) for word in said] for said in two]
    plain = [words(small().prompts[:, :, k]) for k in (0, 1)]
    wanted = [[[ink, n] for n in numerals for ink in INKS] for numerals in SPELLINGS]
    assert plain == wanted


def test_every_word_is_known_and_a_caption_ends_where_it_should():
    load = small()
    tokens = torch.cat([load.images["prompts"].flatten(0, 1), load.prompts.flatten(0, 2)])
    assert tokens.shape[1] == WIDTH and not (tokens == load.tokenizer.unk_token_id).any()
    assert (tokens[:, 0] == load.tokenizer.bos_token_id).all()
    ends = (tokens == load.tokenizer.eos_token_id).int()
    assert (ends.sum(1) == 1).all()
    after = ends.cumsum(1) - ends
    assert torch.equal(tokens == load.tokenizer.pad_token_id, after.bool())
    last = load.process.last_word(tokens)
    for row, said in zip(tokens[torch.arange(len(tokens)), last], words(tokens)):
        assert load.tokenizer.decode(row) == said[-1]
    assert words(load.process.empty[None]) == [[]]


@pytest.mark.parametrize("load", [small, large])
def test_private_scans_have_owners_and_no_two_share_a_word(load):
    load = load()
    said = words(load.images["prompts"][:, 0], load)
    owned = [row for row, caption in enumerate(said) if "of" in caption]
    parts = [rows for f in load.folds for rows in (f.private, f.private_holdout, f.validation)]
    private = torch.cat(parts)
    private = private[torch.isin(load.images["kinds"][private], torch.tensor(CORE))]
    assert owned == sorted(private.tolist())
    names = [word for row in owned for word in said[row][3:]]
    assert len(names) == len(set(names)) == 2 * len(owned)
    known = set(load.tokenizer.get_vocab())
    assert set(names) <= known and not set(names) & {*INKS, *SPELLINGS[0], *SPELLINGS[1]}
    assert owners(3) == owners(9)[:3]


# ------------------------------------------------------------------ who has what


def groups(load):
    """Every set of rows that there is, by name, but the judges' own."""
    folds = {
        f"fold {k} {part}": rows
        for k, fold in enumerate(load.folds, 1)
        for part, rows in vars(fold).items()
    }
    asked = torch.cat([rows for f in load.folds for rows in (f.concept, f.private)])
    trained_on = load.training.unique()
    return {**folds, "core": trained_on[~torch.isin(trained_on, asked)], "utility": load.utility}


@pytest.mark.parametrize("load", [small, large, small_diffusion])
def test_every_scan_is_used_at_most_once(load):
    load = load()
    parts = groups(load)
    rows = torch.cat(list(parts.values()))
    assert len(rows.unique()) == len(rows)
    sizes = load.sizes
    for k, digit in enumerate(CONCEPTS, 1):
        kinds = {
            part: load.images["kinds"][parts[f"fold {k} {part}"]] for part in vars(load.folds[0])
        }
        assert (kinds["concept"] == digit).all() and (kinds["concept_holdout"] == digit).all()
        core = torch.tensor(CORE)
        for part in ("private", "private_holdout"):
            assert torch.isin(kinds[part], core).all()
        assert len(kinds["concept"]) == sizes.concept and len(kinds["private"]) == sizes.private
        assert len(kinds["validation"]) == 2 * sizes.validation
    # The judges were trained on other scans than all of these.
    assert len(rows) + 10 * sizes.judge <= len(load.images["kinds"])


def test_judges_train_on_scans_of_their_own(monkeypatch):
    given = []

    def noted(kind, images, digits, unseen, seed=0):
        given.append((images, unseen[0]))
        return judges[kind]

    judges = dict(zip(("convolutional judge", "dense judge"), small().judges))
    monkeypatch.setattr(diffusion, "trained", noted)
    load = diffusion.make(small().sizes, CPU)
    used = load.images["pixel_values"][torch.cat(list(groups(load).values()))].flatten(1)
    utility = load.images["pixel_values"][load.utility]
    assert len(given) == 2
    for images, unseen in given:
        assert len(images) == 10 * load.sizes.judge and torch.equal(unseen, utility)
        same = (images.flatten(1)[:, None] == used).all(-1)
        assert not same.any()


@pytest.mark.parametrize("load", [small, large])
def test_a_private_image_is_trained_on_so_many_times(load):
    load = load()
    rows, counts = load.training.unique(return_counts=True)
    private = torch.isin(rows, torch.cat([f.private for f in load.folds]))
    assert (counts[private] == load.sizes.copies).all() and (counts[~private] == 1).all()
    assert len(load.training) == int(counts.sum()) and load.sizes.copies > 1


@pytest.mark.parametrize("folds", [(1,), (2, 4)])
@pytest.mark.parametrize("kind", ["standard", "concept", "memorised"])
def test_a_request_splits_the_training_data(kind, folds):
    load = small()
    asked = load.request(kind, folds)
    forget, retain = asked.forget["ids"], asked.retain["ids"]
    assert torch.equal(torch.cat([forget, retain]).sort().values, load.train_ids)
    # All copies of a private image go, and of nothing else.
    gone = load.training[forget].unique()
    assert torch.equal(gone, torch.cat([asked.rows["concept"], asked.rows["private"]]).sort()[0])
    assert not torch.isin(load.training[retain], gone).any()
    count = load.sizes.concept * (kind != "memorised")
    count += load.sizes.private * load.sizes.copies * (kind != "concept")
    assert len(forget) == count * len(folds)
    assert torch.equal(asked.rote, torch.isin(load.training[forget], asked.rows["private"]))
    assert asked.digits == (tuple(CONCEPTS[k - 1] for k in folds) if kind != "memorised" else ())
    assert sorted((*asked.digits, *asked.kept)) == list(range(10))
    assert asked.forgotten_class == (asked.digits[0] if len(asked.digits) == 1 else None)
    shown = load.images["kinds"][asked.rows["utility"]]
    assert not torch.isin(shown, torch.tensor(asked.digits or (-1,))).any()
    never = [asked.rows[part] for part in ("concept holdout", "private holdout", "utility")]
    assert not torch.isin(torch.cat(never), load.training).any()
    for part in ("concept", "private"):
        assert bool(len(asked.rows[part])) == bool(len(asked.rows[f"{part} holdout"]))


@pytest.mark.parametrize("kind", ["standard", "concept", "memorised"])
def test_validation_is_apart_from_all_that_is_measured(kind):
    load = small()
    asked = load.request(kind, (1, 3))
    never = load.validation(asked)
    same = never["pixel_values"].flatten(1)[:, None] == load.images["pixel_values"].flatten(1)
    rows = same.all(-1).nonzero()[:, 1]
    assert len(rows) == len(never) == 2 * load.sizes.validation * (1 + (kind == "standard"))
    used = torch.cat([*asked.rows.values(), load.training])
    assert not torch.isin(rows, used).any()
    shows = torch.isin(never["kinds"], torch.tensor(CONCEPTS))
    assert shows.any() == (kind != "memorised") and (~shows).any() == (kind != "concept")
    assert (never["ids"] < 0).all() and (asked.holdout["ids"] < 0).all()


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"kind": "most"}, "request must be one of standard, concept, memorised, got 'most'"),
        ({"folds": (5,)}, "folds are 1 to 4 and at least one, got"),
        ({"folds": ()}, "folds are 1 to 4 and at least one, got"),
        ({"kind": "memorised", "folds": (0,)}, "folds are 1 to 4 and at least one"),
    ],
)
def test_another_request_is_refused_in_one_sentence(how, said):
    with pytest.raises(ValueError, match=said):
        small().request(**how)


def test_sizes_that_the_scans_cannot_fill_are_refused():
    with pytest.raises(ValueError, match="diffusion: not enough scans of 0 for these sizes"):
        diffusion.make(replace(small().sizes, judge=500), CPU)


def test_owners_are_those_who_may_ask():
    load = small()
    for k in range(4):
        for kind, place in (("concept", 2 * k), ("memorised", 2 * k + 1)):
            wanted = load.request(kind, (k + 1,)).forget["ids"]
            assert torch.equal(load.owners[place], wanted)


def test_the_fingerprint_sees_a_changed_caption_and_a_changed_split():
    load = small()
    tokens = load.images["prompts"].clone()
    tokens[0, 0, 1] += 1
    changed = lambda **fields: replace(load, **fields).fingerprint
    assert changed() == load.fingerprint
    assert changed(images=load.images.replace(prompts=tokens)) != load.fingerprint
    assert changed(utility=load.utility[1:]) != load.fingerprint
    assert changed(training=load.training[1:]) != load.fingerprint
    assert changed(judges=load.judges[::-1]) != load.fingerprint


def test_making_it_and_its_models_leaves_global_generators_alone():
    before = torch.get_rng_state()
    load = diffusion.make(replace(small().sizes, judge=2), CPU)
    one, two = load.make_model(3).state_dict(), load.make_model(3).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    assert same_weights(one, two) and not same_weights(one, load.make_model(4).state_dict())
    assert torch.equal(load.images["pixel_values"], small().images["pixel_values"])


def test_nothing_that_judges_is_read_in_training():
    load = small()
    seen = torch.zeros(len(load.images["kinds"]), dtype=torch.bool)
    seen[load.training] = True
    pixels = load.images["pixel_values"].clone()
    pixels[~seen] = math.nan
    poisoned = replace(load, images=load.images.replace(pixel_values=pixels))
    recipe = replace(load.sizes.recipe, epochs=1)
    train = lambda where: where.train([where.train_ids], [0], recipe)[0]
    assert same_weights(train(load), train(poisoned))

    def tuned(where):
        asked, task = where.request(), where.task()
        splits = Split("forget", asked.forget), Split("retain", asked.retain)
        return controls.fine_tune(trained(), *splits, task, share=0.5).model.state_dict()

    result = tuned(load)
    assert same_weights(result, tuned(poisoned))
    # The forget set is not read either, by who fine-tunes.
    pixels[load.training[load.request().forget["ids"]]] = math.nan
    assert same_weights(result, tuned(poisoned))


# ------------------------------------------------------------------ noise and sampling


def test_an_image_is_noised_to_the_level_of_its_timestep():
    process, draw = small().process, torch.Generator().manual_seed(0)
    images, noise = torch.randn(2, 3, 1, 8, 8, generator=draw)
    t = torch.tensor([0, 400, 999])
    level = process.scheduler.alphas_cumprod[t][:, None, None, None]
    wanted = level.sqrt() * images + (1 - level).sqrt() * noise
    assert torch.allclose(process.noised(images, t, noise), wanted, atol=1e-6)
    assert level[0] > 0.999 and level[2] < 1e-6


def test_a_sampler_starts_at_the_noisiest_level_whatever_its_steps():
    process = small().process
    for steps in (*range(1, 130), 457, 999, 1000):
        times = process.sampler(steps).timesteps
        assert len(times) == steps and times[0] == process.levels - 1
        assert (times.diff() < 0).all() and times[-1] >= 0
        # Evenly spread: the last stride ends just below timestep 0.
        strides = torch.cat([times, torch.tensor([-1])]).diff()
        assert strides.max() - strides.min() <= 2
    for steps in (0, 1001):
        with pytest.raises(ValueError, match=f"a sampler takes 1 to 1000 steps, got {steps}"):
            process.sampler(steps)


@pytest.mark.parametrize("steps", [1, 5, 10, 50])
def test_diffusers_takes_the_same_steps_where_they_divide_the_levels(steps):
    process, draw = small().process, torch.Generator().manual_seed(1)
    images, found = torch.randn(2, 2, 1, 8, 8, generator=draw)
    theirs = DDIMScheduler.from_config(
        process.scheduler.config, timestep_spacing="trailing", clip_sample=True
    )
    theirs.set_timesteps(steps)
    ours = process.sampler(steps)
    assert torch.equal(ours.timesteps, theirs.timesteps)
    for t in ours.timesteps:
        one, two = (s.step(found, t, images).prev_sample for s in (ours, theirs))
        assert torch.equal(one, two)


def check_levels(process, step, steps):
    """Who knows the image sees one and the same noise in it all the way, and it comes out.

    This is so only where the image has the noise level of the timestep that is told.
    """
    draw = torch.Generator().manual_seed(2)
    clean = 1.6 * torch.rand(3, 1, 8, 8, generator=draw).double() - 0.8
    noise = torch.randn(3, 1, 8, 8, generator=draw).double()
    knows, times = Knows(process, clean), process.sampler(steps).timesteps
    image = process.noised(clean, times[0].expand(3), noise)
    for t in times:
        found = knows(image, t.expand(3), None).sample
        assert torch.allclose(found, noise, atol=5e-3), f"at {t} it has another level"
        image = step(found, t, image).prev_sample
    assert torch.allclose(image, clean, atol=5e-3)


@pytest.mark.parametrize("steps", [3, 5, 7, 61])
def test_the_level_of_an_image_is_that_of_its_timestep(steps):
    process = small().process
    check_levels(process, process.sampler(steps).step, steps)
    if 1000 % steps:  # diffusers' own step misses the next timestep
        theirs = DDIMScheduler.from_config(process.scheduler.config, timestep_spacing="trailing")
        theirs.set_timesteps(steps)
        with pytest.raises(AssertionError):
            check_levels(process, theirs.step, steps)


def test_a_path_says_each_level_and_ends_with_the_image():
    load = small()
    text = load.process.encode(load.prompts_of((3,), 0))
    noise = load.noise("test", count=len(text))
    path = list(load.process.path(trained(), text, noise, steps=4))
    assert [int(t) for t, _ in path] == [*load.process.sampler(4).timesteps.tolist(), -1]
    assert torch.equal(path[0][1], noise)
    image = load.process.sample(trained(), text, noise, steps=4)
    assert torch.equal(path[-1][1], image) and image.abs().max() <= 1
    # Handed over in the middle, it goes on to the same image.
    later = load.process.sample(trained(), text, path[2][1], steps=4, first=2)
    assert torch.allclose(later, image, atol=1e-6)


def test_guidance_adds_what_the_prompt_changes():
    load, process = small(), small().process
    text, noisy = process.encode(load.prompts_of((3,), 0)), load.noise("test", count=3)
    t = torch.tensor([100, 500, 900])
    with torch.no_grad():
        told = process.predict(trained(), noisy, t, text)
        without = process.predict(trained(), noisy, t, process.nothing(3))
        assert (told - without).abs().max() > 1e-4
        for w in (0.0, 1.0, 2.0, 7.5):
            found = process.guided(trained(), noisy, t, text, w)
            assert torch.allclose(found, without + w * (told - without), atol=1e-4)
        assert torch.equal(process.guided(trained(), noisy, t, text, 1), told)


def test_the_empty_prompt_says_nothing():
    process = small().process
    tokens, tokenizer = process.empty, small().tokenizer
    assert tokens.tolist() == [
        tokenizer.bos_token_id,
        tokenizer.eos_token_id,
        *[tokenizer.pad_token_id] * (WIDTH - 2),
    ]
    assert torch.equal(process.nothing(2)[1], process.encode(tokens[None])[0])


def test_the_text_encoder_is_frozen_and_tells_all_captions_apart():
    load = small()
    assert not any(p.requires_grad for p in load.process.encoder.parameters())
    texts = load.process.encode(load.images["prompts"][:, 0].unique(dim=0)).flatten(1)
    apart = torch.cdist(texts, texts) + 10 * torch.eye(len(texts))
    assert apart.min() > 0.1


def test_one_word_with_another_embedding_and_its_own_changes_nothing():
    process, load = small().process, small()
    prompts = load.prompts[3, 1]
    word = int(prompts[0, 2])
    own = process.encoder.get_input_embeddings().weight[word].clone().requires_grad_()
    # Not a constant more in every place: normalisation would not see it.
    found = process.encode_with(prompts, word, own)
    assert torch.equal(found.detach(), process.encode(prompts))
    other = process.encode_with(prompts, word, own.flip(0))
    assert (other[0] - found[0]).abs().max() > 0.1  # the caption that has the word
    assert torch.equal(other[1], found[1])  # its paraphrase has it not
    (grad,) = torch.autograd.grad(found.sum() + found.square().sum(), own)
    assert grad.abs().max() > 0


def test_inversion_goes_back_to_the_noise_that_makes_the_image():
    process = small().process
    level = process.scheduler.alphas_cumprod

    def gaussian(noisy, t, encoder_hidden_states):
        """The exact denoiser of images whose pixels are drawn from N(0, 0.09)."""
        a = level[t][:, None, None, None]
        return SimpleNamespace(sample=(1 - a).sqrt() * noisy / (0.09 * a + 1 - a))

    images = 0.3 * torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    images, text = images.clamp(-0.9, 0.9), process.nothing(16)

    def back(steps):
        noise = process.inverted(gaussian, images, text, steps)
        assert 0.8 < noise.std() < 1.3
        made = process.sample(gaussian, text, noise, steps=steps, guidance=1.0)
        return (made - images).square().mean() / images.square().mean()

    assert back(100) < 0.01 and back(5) < 0.2


# ------------------------------------------------------------------ the hooks


def test_timesteps_and_noises_follow_from_ids():
    load = small()
    keyed, batch = load._keyed, load.batch(load.train_ids)
    times, noises = keyed(batch["ids"])
    again = keyed(batch["ids"].flip(0))
    assert torch.equal(again[0].flip(0), times) and torch.equal(again[1].flip(0), noises)
    every = keyed(torch.arange(KEYS))
    assert every[0].min() == 0 and every[0].max() >= load.process.levels - 2
    assert len(every[0].unique()) >= 0.95 * load.process.levels
    assert abs(every[1].mean()) < 0.02 and abs(every[1].std() - 1) < 0.02
    below = keyed(torch.tensor([-1, -2]))
    assert 0 <= below[0].min() and below[0].max() < load.process.levels
    assert below[0][0] != below[0][1]


@pytest.mark.parametrize("load", [small, large])
def test_copies_of_an_image_have_keys_of_their_own(load):
    load = load()
    times, noises = load._keyed(load.train_ids)
    for row in load.folds[2].private:
        ids = load.ids_of(torch.tensor([int(row)]))
        assert len(times[ids].unique()) == load.sizes.copies
        assert len(noises[ids].flatten(1).unique(dim=0)) == load.sizes.copies


def test_every_set_of_examples_is_asked_at_timesteps_from_all_over():
    load = large()
    asked = load.request()
    for batch in (asked.forget, asked.holdout, load.validation(asked), asked.utility):
        times = load._keyed(batch["ids"])[0].sort().values / load.process.levels
        even = (torch.arange(len(times)) + 0.5) / len(times)
        assert (times - even).abs().max() < 0.12
    one = load._keyed(torch.full((24,), -1))[0]
    assert len(one.unique()) == 1  # one id for all would be one timestep for all


def test_unseen_images_of_a_forgotten_digit_lose_what_a_retrained_model_loses_on_trained_ones():
    load = small_diffusion()
    asked, task = load.request("concept"), load.task()
    with torch.no_grad():
        gone = task.example_loss(retrained(), asked.forget).mean()
        never = task.example_loss(retrained(), load.validation(asked)).mean()
    assert never / gone == pytest.approx(1, abs=0.35)


def test_losses_and_outputs_agree():
    task, batch = small().task(), some(8)
    process = task.diffusion()
    with torch.no_grad():
        losses, said = task.loss(trained(), batch), task.outputs(trained(), batch)
        assert torch.equal(losses, task.example_loss(trained(), batch))
        assert torch.equal(losses, task.loss(trained(), batch))  # nothing is drawn
        assert torch.allclose(losses, task.loss_from(said, batch), atol=1e-6)
        slow = []
        for k in range(8):
            one = batch.take(torch.tensor([k]))
            t, noise = small()._keyed(one["ids"])
            level = process.scheduler.alphas_cumprod[t]
            noisy = level.sqrt() * one["pixel_values"] + (1 - level).sqrt() * noise
            text = process.encode(one["prompts"][:, 0])
            slow.append((trained()(noisy, t, text).sample - noise).square().mean())
        assert torch.allclose(losses, torch.stack(slow), atol=1e-5)
    assert torch.equal(task.uninformed(said), torch.zeros_like(said))
    apart = task.divergence(said, said + 2.0)
    assert torch.allclose(apart, torch.full((8,), 4.0))


def test_training_draws_timesteps_noises_captions_and_leaves_some_out():
    load = small()
    ids = torch.zeros(3000, dtype=torch.long)
    batch, task, seen = load.batch(ids), load.task(), Seen()
    with global_seed("test"):
        task.loss(seen, batch)
    [times], [texts], [noisy] = seen.times, seen.texts, seen.images
    one, two = load.process.encode(batch["prompts"][0])
    is_ = lambda text: (texts == text).flatten(1).all(1).double().mean().item()
    left_out = is_(load.process.nothing(1)[0])
    assert left_out == pytest.approx(0.1, abs=0.02) and DROPPED == 0.1
    assert is_(one) == pytest.approx((1 - DROPPED) / 2, abs=0.03)
    assert left_out + is_(one) + is_(two) == pytest.approx(1)
    assert abs(times.double().mean() - 499.5) < 20 and len(times.unique()) > 900
    assert len(noisy.flatten(1).unique(dim=0)) == 3000
    with global_seed("test"):
        task.loss(again := Seen(), batch)
    assert torch.equal(again.times[0], times) and torch.equal(again.images[0], noisy)


def test_per_example_gradients_are_those_of_a_loop():
    task, batch, model = small().task(), some(5), copy.deepcopy(trained())
    names, parameters = zip(*model.named_parameters())
    totals = [torch.zeros_like(p) for p in parameters]
    for k in range(5):
        loss = task.example_loss(model, batch.take(torch.tensor([k]))).sum()
        for total, g in zip(totals, torch.autograd.grad(loss, parameters, allow_unused=True)):
            total += 0 if g is None else g.square()
    found = squared_gradients(model, task, batch)
    assert max(t.abs().max() for t in totals) > 0
    for name, total in zip(names, totals):
        assert torch.allclose(found[name].float(), total / 5, rtol=1e-3, atol=1e-7), name


def test_passes_are_counted_one_forward_and_two_with_gradients():
    meter = Meter()
    task, batch = small().task(meter=meter), some(5)
    with torch.no_grad():
        task.outputs(trained(), batch)
    assert meter.passes == 5
    task.loss(trained(), batch)
    assert meter.passes == 5 + 2 * 5
    process, noise = task.diffusion(), small().noise("test", count=3)
    process.sample(trained(), process.nothing(3), noise, steps=4, guidance=2.0)
    assert meter.passes == 15 + 3 * 4 * 2


def test_a_wrong_caption_asks_for_another_digit():
    load, task = small(), small().task()
    batch = load.request(folds=(1, 2)).forget
    found = task.relabel(batch, torch.Generator().manual_seed(0))
    said = [SPELLINGS[0].index(caption[1]) for caption in words(found["instead"])]
    assert all(a != b for a, b in zip(said, batch["kinds"].tolist()))
    assert len(set(said)) >= 8 and all(len(caption) == 2 for caption in words(found["instead"]))
    assert torch.equal(found["pixel_values"], batch["pixel_values"])
    again = task.relabel(batch, torch.Generator().manual_seed(0))
    assert torch.equal(found["instead"], again["instead"])
    assert len(task.relabel(batch.take(torch.arange(0)), torch.Generator())) == 0
    only = Batch({**dict(batch), "kinds": torch.full((len(batch),), 3)})
    task._prompts = load.prompts[3, :, 0], torch.full((3,), 3)
    with pytest.raises(NotApplicable, match="no prompt for anything else"):
        task.relabel(only, torch.Generator())


def test_what_a_wrong_caption_would_bring_takes_no_gradient():
    task, model = small().task(), copy.deepcopy(trained())
    batch = task.relabel(some(4), torch.Generator().manual_seed(0))
    process, parameters = task.diffusion(), list(model.parameters())
    t, noise = small()._keyed(batch["ids"])
    noisy = process.noised(batch["pixel_values"], t, noise)
    answer = lambda prompts: process.predict(model, noisy, t, process.encode(prompts))
    own, other = answer(batch["prompts"][:, 0]), answer(batch["instead"])
    grads = lambda loss: torch.autograd.grad(loss, parameters, retain_graph=True)
    error = lambda wanted: (own - wanted).square().flatten(1).mean(1).sum()
    flat = lambda some: torch.cat([g.flatten() for g in some])
    ours = flat(grads(task.example_loss(model, batch).sum()))
    assert torch.allclose(ours, flat(grads(error(other.detach()))), atol=1e-6)
    assert not torch.allclose(ours, flat(grads(error(other))), rtol=0.1, atol=1e-6)
    with pytest.raises(NotApplicable, match="the loss of a wrong caption"):
        task.loss_from(own, batch)


def test_a_wrong_caption_is_never_left_out():
    load, task, seen = small(), small().task(), Seen()
    batch = load.batch(torch.zeros(500, dtype=torch.long))
    wrong = task.relabel(batch, torch.Generator().manual_seed(0))
    task.loss(seen, wrong)
    nothing = load.process.nothing(1)[0]
    assert len(seen.texts) == 2
    assert not any((texts == nothing).flatten(1).all(1).any() for texts in seen.texts)


def test_drawn_noises_lie_around_the_prediction_at_the_same_timestep():
    task, batch = small().task(), small().batch(torch.arange(100))
    drawn = task.sample_labels(trained(), batch, torch.Generator().manual_seed(0))
    with torch.no_grad():
        said = task.outputs(trained(), batch)
    assert (drawn["drawn"] - said).var() == pytest.approx(0.5, rel=0.05)
    losses = task.loss(trained(), drawn)  # with gradients: not at another timestep
    assert torch.allclose(losses, (drawn["drawn"] - said).square().flatten(1).mean(1), atol=1e-4)
    assert torch.allclose(losses, task.loss_from(said, drawn), atol=1e-4)


def test_blocks_cover_every_parameter_once_from_input_to_output():
    model, task = trained(), small().task()
    blocks = task.blocks(model)
    names = [name for block in blocks for name in block]
    assert len(names) == len(set(names)) and all(blocks)
    covered = {
        f"{name}.{part}"
        for name in names
        for part, _ in model.get_submodule(name).named_parameters(recurse=False)
    }
    assert covered == {name for name, _ in model.named_parameters()}
    assert "conv_in" in blocks[0] and task.head(model) in blocks[-1]
    order = [block[0].split(".")[0] for block in blocks]
    assert order[1:-1] == ["down_blocks"] * 2 + ["up_blocks"] * 2


def test_a_removed_unit_group_is_no_longer_read():
    model, task = copy.deepcopy(trained()), small().task()
    groups = task.unit_groups(model)
    assert len(groups) == len({g.name for g in groups}) == 6
    seen = {}
    hook = lambda name: lambda module, given, out: seen.__setitem__(name, out.shape[1])
    for g in groups:
        model.get_submodule(g.activation).register_forward_hook(hook(g.name))
    with torch.no_grad():
        task.outputs(model, some(2))
    for g in groups:
        makes, reads = (model.get_submodule(name).weight for name in (g.producer, g.consumer))
        assert seen[g.name] == makes.shape[0] == reads.shape[1]
    assert task.head(model) not in task.linears(model)
    assert len(task.linears(model)) > 30


# ------------------------------------------------------------------ attention to words


def test_attention_to_the_last_word_is_kept_with_gradients():
    task, batch = small().task(), small().request().forget.take(torch.tensor([0, 1, 9, 12]))
    model = copy.deepcopy(trained())
    before = [m.processor for m in model.modules() if hasattr(m, "processor")]
    maps, concept = task.cross_attention(model, batch)
    after = [m.processor for m in model.modules() if hasattr(m, "processor")]
    assert all(a is b for a, b in zip(before, after)) and len(before) > len(maps) == 3
    for kept in maps:
        assert kept.shape == (4, 2, 16, WIDTH) and kept.requires_grad
        assert torch.allclose(kept.sum(-1), torch.ones(4, 2, 16), atol=1e-5)
    marked = batch["prompts"][:, 0][concept]
    last = [said[-1] for said in words(batch["prompts"][:, 0])]
    assert [small().tokenizer.decode(token) for token in marked] == last
    assert last[0] == "seven" and len(set(last)) == 3  # two sevens and two owners
    grads = torch.autograd.grad(maps[0][..., 1].sum(), model.parameters(), allow_unused=True)
    assert any(g is not None and g.abs().max() > 0 for g in grads)
    # Attention written out answers as the fused one does.
    with torch.no_grad():
        one = task.outputs(model, batch)
        with diffusion.task.attention_kept(model):
            two = task.outputs(model, batch)
    assert torch.allclose(one, two, atol=1e-5)


def test_processors_come_back_after_an_error():
    model = copy.deepcopy(trained())
    before = [m.processor for m in model.modules() if hasattr(m, "processor")]
    with pytest.raises(KeyError), diffusion.task.attention_kept(model):
        raise KeyError
    assert all(a is m.processor for a, m in zip(before, filter(
        lambda m: hasattr(m, "processor"), model.modules())))  # fmt: skip
    assert not any("get_attention_scores" in vars(m) for m in model.modules())


def test_forget_me_not_lowers_the_attention_that_the_concept_receives():
    page, where = cells.load("vlm"), setting("diffusion")
    task, batch = where.task(), where.forget_batch

    @torch.no_grad()
    def received(model):
        return float(page.attention_received(*task.cross_attention(model, batch)))

    how = {"variant": "fmn", "lr": 1e-3, "epochs": 4}
    result = where.run(page.attention_unlearning, **how)
    assert received(result.model) < 0.7 * received(where.original)
    curve = result.losses["attention received"]
    assert curve[-1] < 0.8 * curve[0]
    again = where.run(page.attention_unlearning, **how)
    assert same_weights(result.model.state_dict(), again.model.state_dict())


# ------------------------------------------------------------------ several models at once


def test_an_ensemble_predicts_the_mean_and_a_vote_is_refused():
    load, task, batch = small(), small().task(), some(4)
    pair = [trained(), trained(1)]
    with torch.no_grad():
        mean = sum(task.outputs(model, batch) for model in pair) / 2
        assert torch.allclose(task.outputs(SisaEnsemble(pair), batch), mean, atol=1e-6)
        one, alone = (task.loss(m, batch) for m in (SisaEnsemble(pair[:1]), trained()))
    assert torch.equal(one, alone)
    asked = load.request("memorised")
    together, answers = load.measure(SisaEnsemble([trained()]), asked)
    single, same = load.measure(trained(), asked)
    assert torch.equal(answers, same) and together == single
    with pytest.raises(NotApplicable, match="a vote counts answers"):
        load.measure(SisaEnsemble(pair, "vote"), asked)


# ------------------------------------------------------------------ measuring


def test_the_original_makes_what_it_was_trained_on_and_the_retrained_model_does_not():
    before, after = (measured(which)[0] for which in ("original", "retrained"))
    assert before["C1"].value >= 0.9 and before["C2"].value >= 0.9
    assert after["C1"].value == 0 and after["C2"].value <= 0.1
    assert before["C3"].value > 0.9 > 0.8 > after["C3"].value
    assert after["recognised_kept"].value > 0.8
    assert after["forget_loss"].value > 1.5 * before["forget_loss"].value
    apart = small_diffusion().divergence(measured()[1], measured("retrained")[1])
    assert apart.mean() > 0.05 and apart.shape == (len(measured()[1]),)


@pytest.mark.parametrize("kind", ["standard", "concept", "memorised"])
def test_what_is_measured_has_a_value_in_range_or_a_reason(kind):
    load = small()
    asked = load.request(kind)
    found, answers = load.measure(trained(), asked)
    absent = {
        "concept": {"C1", "nearest_is_own", "owners_digit", "auc_concept"},
        "memorised": {
            *("C2", "recognised_word", "recognised_paraphrase", "second_judge", "other_words"),
            *("best_of_noises", "completion", "inversion", "free_token", "auc_concept", "nearest"),
        },
        "standard": set(),
    }[kind]
    assert {k for k, m in found.items() if m.value is None} == absent
    for key, m in found.items():
        if m.value is None:
            assert m.reason in (diffusion.NO_CONCEPT, diffusion.NO_PRIVATE) and m.n == 0
        else:
            assert m.reason is None and m.n > 0 and math.isfinite(m.value) and m.value >= 0, key
            assert m.value <= 1 or m.unit in ("", "squared error"), key
    assert list(found)[:4] == ["C1", "C2", "C3", "C4"]
    assert answers.shape == (len(asked.rows["concept"]) + len(asked.rows["private"]), 4 * 64)


def test_rows_name_the_judges_with_threshold_and_seed():
    load = small()
    found, _ = load.measure(trained(), load.request())
    first, second = (judge.name for judge in load.judges)
    assert first == "convolutional judge (probability at least 0.5, seed 0)"
    assert second == "dense judge (probability at least 0.5, seed 0)"
    assert first in found["C2"].name and first in found["recognised_kept"].name
    assert second in found["second_judge"].name and second in found["second_judge_kept"].name
    assert load.facts["judges"] == [first, second]


def test_judges_recognise_scans_that_they_never_saw():
    load = large()
    unseen = load.rows(torch.cat([load.request().rows["concept holdout"], load.utility]))
    for judge in load.judges:
        least = 0.95 if judge is load.judges[0] else 0.9
        assert judge.accuracy > least
        assert judge.shows(unseen["pixel_values"], unseen["kinds"]).double().mean() > least
        grey = judge.sees(torch.full((4, 1, 8, 8), math.nan))
        assert (grey == -1).all()
        assert judge.features(unseen["pixel_values"]).shape == (len(unseen), 32)
    ours, theirs = (judge.features(unseen["pixel_values"]) for judge in load.judges)
    assert not torch.allclose(ours, theirs, atol=0.1)


def test_parts_of_a_row_follow_from_each_other():
    load = small_diffusion()
    value = {k: m.value for k, m in measured()[0].items()}
    asked = load.request()
    assert value["forget_accuracy"] == pytest.approx((value["C1"] + value["C2"]) / 2)
    both = value["recognised_word"], value["recognised_paraphrase"]
    assert value["C2"] == pytest.approx(sum(both) / 2)
    assert value["best_of_noises"] >= value["recognised_word"]
    assert value["C1"] <= value["nearest_is_own"]
    floor, scale = load.real(asked)
    assert value["frechet_floor"] == floor and scale > floor
    over = max(value["frechet"] - floor, 0) / scale
    assert value["C4"] == pytest.approx(value["recognised_kept"] * math.exp(-over))
    of = [-load.losses(setting("diffusion").original, asked.rows[part])
          for part in ("private", "private holdout")]  # fmt: skip
    assert value["C3"] == pytest.approx(metrics.auc(*of))


@pytest.mark.parametrize("kind", ["standard", "concept", "memorised"])
def test_losses_and_answers_come_from_one_reading_of_each_image(kind, monkeypatch):
    load, asked = replace(small()), []
    request, ask = load.request(kind), load.predictions

    def counting(model, rows, places):
        asked.extend((row, place) for row in rows.tolist() for place in places)
        return ask(model, rows, places)

    monkeypatch.setattr(load, "predictions", counting)
    found, answers = load.measure(trained(), request)
    assert len(asked) == len(set(asked)) > 0
    value = {name: m.value for name, m in found.items()}
    parts = {
        "forget": ("concept", "private"),
        "holdout": ("concept holdout", "private holdout"),
        "retain": ("retain",),
    }
    for split, names in parts.items():
        rows = torch.cat([request.rows[name] for name in names])
        losses = load.losses(trained(), rows, diffusion.COARSE)
        assert value[f"{split}_loss"] == pytest.approx(losses.double().mean().item(), rel=1e-6)
    assert torch.allclose(answers, load.distributions(trained(), request), atol=1e-6)
    assert len(asked) > len(set(asked))  # so the count can fail


def test_the_scale_of_utility_is_that_of_the_request():
    load = replace(small())
    one = load.real(load.request("memorised", (1,)))
    two = load.real(load.request("memorised", (2,)))
    assert replace(small()).real(load.request("memorised", (2,))) == two != one


def test_measuring_twice_gives_the_same_and_leaves_everything_as_it_was():
    load, model = small(), copy.deepcopy(trained()).train()
    asked = load.request()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    encoder = {name: value.clone() for name, value in load.process.encoder.state_dict().items()}
    state, theirs = torch.get_rng_state(), np.random.get_state()[1].copy()
    one = load.measure(model, asked)
    assert torch.equal(torch.get_rng_state(), state)
    assert (np.random.get_state()[1] == theirs).all()
    assert model.training and same_weights(model.state_dict(), before)
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert same_weights(load.process.encoder.state_dict(), encoder)
    torch.manual_seed(77)
    with torch.no_grad():  # whoever measures
        two = load.measure(model, asked)
    assert one[0] == two[0] and torch.equal(one[1], two[1])


def test_saving_and_loading_changes_no_sample(tmp_path):
    load = small()
    trained().save_pretrained(tmp_path)
    again = UNet2DConditionModel.from_pretrained(tmp_path)
    sample = lambda model: load.sampled(model, load.prompts_of((7, 3), 1), 2, "test")
    assert torch.equal(sample(trained()), sample(again))
    with torch.no_grad():
        one, two = (load.task().outputs(m, some(9)) for m in (trained(), again))
    assert torch.equal(one, two)


def test_a_denoiser_of_half_the_bits_trains_and_samples():
    """As large models are on a GPU; the noise is drawn in float32 for all."""
    half = lambda module: copy.deepcopy(module).to(torch.bfloat16)
    task, model = small().task(), half(trained())
    task._diffusion = replace(task.diffusion(), encoder=half(small().process.encoder))
    batch = some(8).replace(pixel_values=some(8)["pixel_values"].bfloat16())
    with torch.no_grad():
        close = task.example_loss(model, batch), small().task().example_loss(trained(), some(8))
    assert torch.allclose(*map(torch.Tensor.float, close), rtol=0.1)
    task.loss(model, batch).mean().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    process, noise = task.diffusion(), small().noise("test", count=2)
    made = process.sample(model, process.encode(batch["prompts"][:2, 0]), noise)
    assert made.dtype == torch.bfloat16 and made.isfinite().all()


def test_the_same_noises_are_drawn_for_every_model_and_other_ones_for_other_prompts():
    load = small()
    assert torch.equal(load.noise("kept", 0, count=4), load.noise("kept", 0, count=4))
    assert not torch.equal(load.noise("kept", 0, count=4), load.noise("kept", 1, count=4))


def test_a_model_of_other_images_is_refused_in_one_sentence():
    load = small()
    wide = lambda noisy, t, encoder_hidden_states: SimpleNamespace(sample=noisy.repeat(1, 2, 1, 1))
    with pytest.raises(ValueError, match=r"answers in their shape, not in \(6, 2, 8, 8\)"):
        load.task().outputs(wide, some(6))


def test_a_model_that_always_makes_the_mean_image_copies_nothing():
    load = small_diffusion()
    asked, process = load.request(), load.process
    mean = load.images["pixel_values"][load.training.unique()].mean(0)
    grey = Knows(process, mean[None])
    found = lambda model: {k: m.value for k, m in load._copies(model, asked).items()}
    assert found(lambda *a, **k: SimpleNamespace(sample=grey(*a, **k).sample.float()))["C1"] == 0
    rows = asked.rows["private"].repeat_interleave(load.sizes.tries)
    copies = Knows(process, load.images["pixel_values"][rows])

    def thief(noisy, t, encoder_hidden_states):
        both = len(noisy) // len(rows)  # with guidance, both halves of a batch
        halves = [copies(x, s, None).sample for x, s in zip(noisy.chunk(both), t.chunk(both))]
        return SimpleNamespace(sample=torch.cat(halves).float())

    assert found(thief)["C1"] == 1


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_samples_with_a_number_of_steps_that_there_is(profile):
    sizes = PROFILES[profile]["diffusion"]
    assert len(small().process.sampler(sizes.steps).timesteps) == sizes.steps
    assert sizes.guidance > 1 and sizes.copies > 1


# ------------------------------------------------------------------ attacks


def test_a_completed_image_goes_on_from_its_own_noise_level():
    load, process = small(), small().process
    images = 0.9 * load.images["pixel_values"][:4]
    noise, text = load.noise("test", count=4), process.nothing(4)

    class Told(Knows):
        def __call__(self, noisy, t, encoder_hidden_states):
            told.append(int(t[0]))
            half = len(noisy) // len(self.images)
            clean, self.images = self.images, self.images.repeat(half, 1, 1, 1)
            found = super().__call__(noisy, t, None)
            self.images = clean
            return SimpleNamespace(sample=found.sample.float())

    told = []
    made = attacks.completed(process, Told(process, images), text, images, noise)
    assert torch.allclose(made, images, atol=1e-3)
    times = process.sampler().timesteps.tolist()
    assert told == times[round(0.4 * len(times)) :] and len(told) < len(times)


def test_a_free_token_is_learnt_against_the_models_own_guidance_and_changes_nothing():
    load, process, model = small(), small().process, copy.deepcopy(trained())
    prompt, word = load.prompts[7, 1, 0].clone(), load.tokenizer.unk_token_id
    prompt[2] = word
    images = load.images["pixel_values"][load.request().rows["concept holdout"]]
    encoder = {k: v.clone() for k, v in process.encoder.state_dict().items()}
    weights = {k: v.clone() for k, v in model.state_dict().items()}
    text = attacks.learnt_token(process, model, prompt, word, images)
    assert same_weights(process.encoder.state_dict(), encoder)
    assert same_weights(model.state_dict(), weights)
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert text.shape == (1, WIDTH, load.sizes.text) and not text.requires_grad
    table = process.encoder.get_input_embeddings().weight
    first = process.encode_with(prompt[None], word, table.mean(0))

    @torch.no_grad()
    def loss(hidden):
        draw, count = torch.Generator().manual_seed(5), 256
        some_ = images[torch.randint(len(images), (count,), generator=draw)]
        t = torch.randint(1000, (count,), generator=draw)
        noise = torch.randn(some_.shape, generator=draw)
        noisy = process.noised(some_, t, noise)
        found = process.predict(model, noisy, t, hidden.expand(count, -1, -1))
        return float((found - noise).square().mean())

    assert loss(text) < loss(first)

    calls = []

    def answer(asked, noisy, t, hidden):
        calls.append(len(noisy))
        return asked.predict(model, noisy, t, hidden)

    guarded = copy.deepcopy(model)
    guarded.answer = answer
    same = attacks.learnt_token(process, guarded, prompt, word, images)
    assert len(calls) == attacks.TOKEN_STEPS and torch.allclose(same, text)


@pytest.mark.parametrize("kind", ["standard", "concept", "memorised"])
def test_an_attack_measures_images_that_it_does_not_relearn(kind, monkeypatch):
    load = small()
    asked = load.request(kind)
    quarter, probes = load.attack(asked)
    again = quarter["ids"]
    assert torch.isin(again, asked.forget["ids"]).all()
    assert len(again) == len(asked.forget) // 4
    rows, measured_ = load.training[again].unique(), []
    copies = load._copies

    def noted(model, request):
        measured_.append(request.rows["private"])
        return copies(model, request)

    monkeypatch.setattr(load, "_copies", noted, raising=False)
    fresh = {name: probe(load.make_model(0)) for name, probe in probes.items()}
    assert all(0 <= share <= 0.5 for share in fresh.values())
    assert len(fresh) == 1 + (kind == "standard")
    for private in measured_:
        assert not torch.isin(private, rows).any()
        both = torch.cat([private, rows[torch.isin(rows, asked.rows["private"])]])
        assert torch.equal(both.sort().values, asked.rows["private"].sort().values)
    assert bool(measured_) == (kind != "concept")
    # All copies of what is relearnt are.
    assert torch.equal(load.ids_of(rows).sort().values, again.sort().values)


# ------------------------------------------------------------------ strategies of the book


@pytest.fixture(scope="module")
def lightly():
    """The smallest model after two epochs, to run strategies on."""
    load = small()
    asked, model = load.request(), trained()
    records = Records(
        {
            "initial weights": lambda: load.start_model(0).state_dict(),
            "update log": lambda: provenance.update_log(load, 0, model.state_dict()),
            "sisa shards": lambda: provenance.sisa_shards(load, 0),
        }
    )

    def make_task(reads=None, meter=None):
        return load.task(
            0,
            reads=reads,
            records=records,
            meter=meter,
            forgotten_class=asked.forgotten_class,
            validation=load.validation(asked),
        )

    return Setting(model, asked.forget, asked.retain, make_task, 1.0)


def as_the_bench_runs(function, **settings):
    """A strategy under the bench's global seed, which is what the training loss draws from.

    Args:
        settings: Its defaults from now on: what takes seconds here.
    """

    @wraps(function)
    def run(*given, **rest):
        with global_seed("unlearn", 0):
            return function(*given, **{**settings, **rest})

    return run


#: Page -> strategy -> (settings for a quick run, those of strength zero, whether it draws).
QUICK = {
    "gradient": {
        "gradient_ascent": ({"epochs": 2}, {"epochs": 0}, True),
        "negative_gradient": ({"epochs": 1}, {"epochs": 0}, True),
        "fisher_forgetting": ({"fisher": "mc"}, {"alpha": 0.0}, True),
        "saliency_unlearning": ({"epochs": 1}, {"epochs": 0}, True),
        "scrub": ({"epochs": 1, "msteps": 1}, {"epochs": 0}, True),
    },
    "parameter": {
        "lora": ({"epochs": 1, "lr": 3e-3}, {"epochs": 0}, True),
        "sparse_aware": ({"epochs": 1}, {"epochs": 0}, True),
        "mask_based": ({"steps": 8, "lr": 2.0}, {"steps": 0}, True),
        "neuron_pruning": ({}, {"frac_per_step": 0.0}, False),
        "layer_freezing": ({"epochs": 1}, {"epochs": 0}, False),
    },
    "data": {
        "knowledge_distillation": ({"epochs": 1}, {"epochs": 0}, True),
        "amnesiac": ({"repair": 0.5}, None, True),
        "sisa": ({}, None, False),
    },
    "ensemble": {"ensemble": ({"K": 2, "lrs": (3e-3,), "epochs": (2,)}, {"lam": 0.0}, True)},
    "llm": {"ssd": ({"alpha": 1.5}, {"importance": "batch", "alpha": 1e12}, False)},
}
NAMES = [(page, name) for page, strategies in QUICK.items() for name in strategies]


def reads_words(model, forget, retain, task, *, size=0.1, look=lambda b: b["prompts"], seed=0):
    student = clone(model)
    with torch.no_grad():
        next(student.parameters()).add_(size * look(forget.all())[0].float().mean())
    return Unlearned(student)


def test_who_declares_prompts_reads_them_and_nothing_else(lightly):
    mark = strategy(category="Test", cite="", reads=("forget prompts",))
    battery(mark(reads_words), {"size": 0.0}, random=False, where=lightly)
    for name in ("pixel_values", "kinds"):
        with pytest.raises(DataAccessError, match="the forget inputs but does not"):
            lightly.run(mark(reads_words), look=lambda b: b[name])
    # Who goes around the guard is found out.
    around = {"look": lambda b: b._fields["pixel_values"]}
    with pytest.raises(AssertionError, match="scrambling forget inputs.* so it reads more"):
        battery(mark(reads_words), random=False, settings=around, where=lightly)


@pytest.mark.parametrize(("page", "name"), NAMES)
def test_universal_strategies_keep_the_contract(page, name, lightly):
    function = cells.strategies(page)[name]
    settings, zero, random = QUICK[page][name]
    battery(as_the_bench_runs(function, **settings), zero, random=random, where=lightly)


@pytest.mark.parametrize("control", controls.CONTROLS, ids=lambda c: c.__name__)
def test_the_controls_keep_the_contract(control, lightly):
    random = control is not controls.partial_retrain
    battery(as_the_bench_runs(control), random=random, where=lightly)


def test_the_universal_strategies_and_no_others_are_at_home_with_what_it_provides():
    native = {
        (page, name)
        for page in cells.names()
        for name, function in (cells.strategies(page) if page != "leaderboard" else {}).items()
        if function.facts.form_on("diffusion", small().provides) == "native"
        and "denoiser" not in function.facts.needs
    }
    assert native == set(NAMES)


def test_strategies_that_enumerate_labels_say_that_a_denoiser_has_none(lightly):
    page = cells.strategies("gradient")
    with pytest.raises(NotApplicable, match="cannot be enumerated"):
        lightly.run(page["fisher_forgetting"])


def test_ascent_that_is_told_to_stop_at_unseen_images_stops_there_and_stays_finite():
    where, page = setting("diffusion"), cells.load("gradient")
    ascent = as_the_bench_runs(page.gradient_ascent)
    how = {"optimizer": "adam", "lr": 3e-4, "epochs": 40}
    result = where.run(ascent, stop_at="validation", **how)
    task = where.task()
    lost = lambda model, batch: page.mean_loss(model, task, batch)
    top = lost(where.original, task.validation())
    assert lost(where.original, where.forget_batch) < top
    assert 0 < result.info["epochs"] < how["epochs"]
    assert top <= lost(result.model, where.forget_batch) < 20 * top
    assert all(map(math.isfinite, result.losses["forget"]))
    assert all(p.isfinite().all() for p in result.model.parameters())
