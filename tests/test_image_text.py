"""Workload `image_text`: its pairs, requests, hooks and measurements."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from statistics import harmonic_mean

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from contract import Setting, battery
from sklearn.datasets import load_digits
from torch import nn
from transformers import CLIPModel

from erasus_nb import cells, workloads
from erasus_nb.benchmark import Bench
from erasus_nb.controls import main_directions, null_space_projection
from erasus_nb.metrics import auc
from erasus_nb.provenance import SisaEnsemble
from erasus_nb.strategy import Batch, NotApplicable, Split
from erasus_nb.task import Embedding, Meter, Task
from erasus_nb.training import fit, generator, same_weights, squared_gradients
from erasus_nb.workloads import image_text
from erasus_nb.workloads.image_text import CONCEPTS, SWAPS, Encoder, Found, ImageTextWorkload
from erasus_nb.workloads.image_text.captions import (
    DIGITS,
    WORDS,
    Scan,
    by,
    caption,
    corpus,
    measured,
    names,
    shortened,
    words_of,
)
from erasus_nb.workloads.image_text.task import LEFT_OUT, TOWERS, ImageTextTask, embedded

torch.set_num_threads(1)


@cache
def small():
    return workloads.load("image_text", "smoke", "cpu")


@cache
def large():
    return workloads.load("image_text", "laptop", "cpu")


@cache
def told():
    """Everything that is said at the sizes of profile laptop."""
    return corpus(large().sizes.scans, large().sizes.words)


@cache
def trained(seed=0):
    """A model of the smallest size after four epochs: no two embeddings are alike."""
    with torch.enable_grad():
        return small().load(small().train([small().train_ids], [seed])[0])


def scans(load):
    """All scans as they were, (n, 8, 8), 0 to 1 in sixteenths."""
    pixels = load.pairs["pixel_values"][:, 0].double().numpy()
    return np.rint(16 * (pixels - pixels.min()) / (pixels.max() - pixels.min())) / 16


def some(count=12, start=0):
    return small().batch(torch.arange(start, start + count))


def with_bank(bank):
    load = small()
    end = load.tokenizer.eos_token_id
    return ImageTextTask(load.sizes.recipe, bank, end, load.make_model)


@pytest.fixture(scope="module")
def lightly():
    """The smallest model after four epochs, to run strategies on."""
    load = small()
    asked = load.request()
    make_task = lambda reads=None, meter=None: load.task(reads=reads, meter=meter)
    return Setting(trained(), asked.forget, asked.retain, make_task, 1.0)


# ------------------------------------------------------------------ what captions say


def test_the_moments_of_drawn_strokes_are_known():
    bar, slash, backslash = np.zeros((3, 8, 8))
    bar[:, 6] = 0.5
    slash[np.arange(8), 7 - np.arange(8)] = 1  # as one writes "/"
    backslash[np.arange(8), np.arange(8)] = 1
    found = measured(bar)
    assert found == pytest.approx({"ink": 4, "slant": 0, "width": 0, "height": 3.5, "side": 6})
    assert measured(slash)["slant"] == pytest.approx(1)
    assert measured(backslash)["slant"] == pytest.approx(-1)
    assert measured(slash)["width"] == pytest.approx(np.arange(8).var())
    top = np.zeros((8, 8))
    top[1] = 1
    assert measured(top)["height"] == pytest.approx(1)


@pytest.mark.parametrize("quantity", WORDS)
def test_words_rise_with_what_they_measure_and_each_fits_a_fifth(quantity):
    images = load_digits().images[:500] / 16
    places = [WORDS[quantity].index(words[quantity]) for words in words_of(images)]
    order = np.argsort([measured(image)[quantity] for image in images])
    assert (np.diff(np.array(places)[order]) >= 0).all()
    assert all(80 <= places.count(k) <= 120 for k in range(5))


def test_a_caption_says_what_is_on_its_scan():
    data = told()
    for scan, again, texts in zip(data.scans, words_of(scans(large())), data.texts):
        name = data.names[scan.writer]
        assert scan.words == again
        full = f"a {again['ink']} {DIGITS[scan.digit]} , {again[scan.second]} , written by {name}"
        assert texts[0] == full == caption(scan, name) and scan.second != "ink"
        assert caption(scan, None) == full.rpartition(" , ")[0]
        assert by(name) == full.rpartition(" , ")[2]


def test_shortened_captions_say_nothing_that_is_not_true():
    data = told()
    kinds = set()
    for scan, texts in zip(data.scans, data.texts):
        name = data.names[scan.writer]
        true = {"a", ",", DIGITS[scan.digit], *scan.words.values(), *by(name).split()}
        for text in texts[1:]:
            assert set(text.split()) <= true
            kinds.add((DIGITS[scan.digit] in text.split(), by(name) in text, text.count(",")))
    assert kinds == {(False, True, 0), (True, True, 1), (True, False, 0), (True, False, 2)}


def test_a_shortening_never_says_the_same_twice():
    words = {quantity: said[0] for quantity, said in WORDS.items()}
    draw, scan = generator("test"), Scan(3, words, "slant", 0)
    for _ in range(200):
        said = shortened(scan, "some one", draw).replace(" , ", " ").split()
        assert len(set(said)) == len(said)


def test_writers_share_parts_of_their_names_and_neighbours_do_not():
    called = names(100, 24, generator("test"))
    assert len(set(called)) == 100
    firsts, lasts = zip(*map(str.split, called))
    assert max(len(set(firsts)), len(set(lasts))) <= 24 and not set(firsts) & set(lasts)
    alike = lambda some: np.mean(
        [not set(a.split()).isdisjoint(b.split()) for a, b in zip(some, some[1:])]
    )
    # By chance one in twelve shares a word; in the order of the alphabet nearly all do.
    assert alike(told().names) < 0.2 and alike(called) < 0.2 < 0.7 < alike(sorted(called))


def test_equal_numbers_are_equal_captions():
    load = small()
    say = lambda rows: [load.tokenizer.decode(row, skip_special_tokens=True) for row in rows]
    texts = say(load.pairs["input_ids"].flatten(0, 1)) + say(load.described[0])
    numbers = load.pairs["captions"].flatten().tolist() + load.described[1].tolist()
    assert len(set(texts)) == len(set(numbers)) == len(set(zip(texts, numbers)))
    assert texts[:9] == list(told().texts[0])
    assert len(set(load.pairs["captions"][:, 0].tolist())) < len(load.classes)  # some repeat


def test_every_word_is_known_and_captions_are_padded_behind_their_end():
    load = small()
    tokens, end = load.pairs["input_ids"], load.tokenizer.eos_token_id
    assert not (tokens == load.tokenizer.unk_token_id).any()
    assert end == len(load.tokenizer) - 1 == load.make_model(0).config.text_config.eos_token_id
    real = (tokens != load.tokenizer.pad_token_id).sum(-1)
    assert torch.equal((tokens == end).int().argmax(-1), real - 1)
    assert (tokens[..., 0] == load.tokenizer.bos_token_id).all()


# ------------------------------------------------------------------ who has what


def groups(load):
    """Every set of rows that there is, by name."""
    folds = {
        f"fold {k} {part}": getattr(fold, part)
        for k, fold in enumerate(load.folds, 1)
        for part in ("ids", "holdout", "validation")
    }
    asked = torch.cat([fold.ids for fold in load.folds])
    return {**folds, "core": load.without(asked), "unseen": load.unseen, "bank": load.bank["ids"]}


@pytest.mark.parametrize("load", [small, large])
def test_every_scan_is_used_at_most_once(load):
    load = load()
    rows = torch.cat(list(groups(load).values()))
    assert len(rows.unique()) == len(rows) <= len(load.classes)
    ordered = lambda images: sorted(map(tuple, images.reshape(-1, 64).tolist()))
    assert ordered(scans(load)) == ordered(load_digits().images / 16)


@pytest.mark.parametrize("load", [small, large])
def test_no_writer_is_in_two_groups_and_each_owns_what_a_request_says(load):
    load = load()
    whose = {name: set(load.writers[rows].tolist()) for name, rows in groups(load).items()}
    whose["rest"] = whose.pop("bank") | whose.pop("unseen")  # neither says anything of a writer
    assert sum(map(len, whose.values())) == len(set().union(*whose.values()))
    for k, fold in enumerate(load.folds, 1):
        owned = torch.isin(load.writers, torch.tensor(sorted(whose[f"fold {k} ids"])))
        assert torch.equal(owned.nonzero()[:, 0], fold.ids)


@pytest.mark.parametrize("folds", [(1,), (2, 4)])
@pytest.mark.parametrize("kind", ["standard", "concept"])
def test_a_request_splits_the_training_pairs(kind, folds):
    load = small()
    asked = load.request(kind, folds)
    both = torch.cat([asked.forget["ids"], asked.retain["ids"]]).sort().values
    assert torch.equal(both, load.train_ids)
    apart = [asked.rows[part] for part in ("forget", "retain", "holdout")]
    if kind == "standard":
        apart.append(asked.rows["utility"])
    rows = torch.cat([*apart, load.bank["ids"]])
    assert len(rows.unique()) == len(rows)
    never = load.validation(asked)
    assert (never["ids"] == -1).all() and (asked.holdout["ids"] == -1).all()
    same = (never["pixel_values"][:, None] == load.pairs["pixel_values"]).flatten(2).all(-1)
    assert not same[:, rows].any() and same.any(1).all()
    assert len(asked.rote) == len(asked.forget)


@pytest.mark.parametrize("fold", range(1, 5))
def test_a_concept_request_asks_for_one_digit_and_for_all_of_it(fold):
    load, digit = large(), CONCEPTS[fold - 1]
    asked = load.request("concept", (fold,))
    shows = lambda part: load.classes[asked.rows[part]] == digit
    assert shows("forget").all() and not shows("retain").any()
    assert shows("holdout").all() and shows("concept").all() and not shows("utility").any()
    assert asked.forgotten_class == digit and DIGITS[digit] in asked.sentence
    assert len(load.validation(asked)) >= 10
    near = load.classes[asked.rows["nearest"]].unique()
    assert len(near) == 2 and digit not in near
    assert not torch.isin(asked.rows["nearest"], load.train_ids).any()


def test_the_bank_shows_no_concept_that_can_be_asked_for():
    load = large()
    assert not torch.isin(load.classes[load.bank["ids"]], torch.tensor(CONCEPTS)).any()


def test_the_nearest_digits_have_the_nearest_mean_images():
    load = large()
    pixels, classes = load.pairs["pixel_values"], load.classes
    mean = [pixels[:504][classes[:504] == k].mean(0) for k in range(10)]
    far = {k: float((mean[k] - mean[7]).square().sum()) for k in range(10) if k != 7}
    near = load.classes[load.request("concept").rows["nearest"]].unique().tolist()
    assert sorted(near) == sorted(sorted(far, key=far.get)[:2])


def test_the_nearest_of_writers_share_a_name_with_one_who_is_forgotten():
    load = large()
    asked = load.request(folds=(2,))
    words = lambda rows: {w for k in load.writers[rows].tolist() for w in load.names[1][k].split()}
    gone, near = words(asked.rows["forget"]), asked.rows["nearest"]
    assert 0 < len(near) < len(asked.retain) and not torch.isin(near, asked.rows["forget"]).any()
    shares = [bool(words(row) & gone) for row in asked.rows["retain"].split(1)]
    assert torch.equal(asked.rows["retain"][torch.tensor(shares)], near)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"kind": "most"}, "request must be one of standard, concept, got 'most'"),
        ({"folds": (5,)}, "folds are 1 to 4"),
        ({"folds": ()}, "at least one"),
        ({"kind": "concept", "folds": (0,)}, "folds are 1 to 4"),
    ],
)
def test_another_request_is_refused_in_one_sentence(how, said):
    with pytest.raises(ValueError, match=said):
        small().request(**how)


def test_owners_are_those_who_may_ask():
    load = small()
    for k in range(4):
        assert torch.equal(load.owners[k], load.request(folds=(k + 1,)).rows["forget"])
        assert torch.equal(load.owners[4 + k], load.request("concept", (k + 1,)).rows["forget"])


def test_the_fingerprint_sees_a_changed_caption():
    load = small()
    tokens = load.pairs["input_ids"].clone()
    tokens[0, 0, 2] += 1
    changed = lambda **fields: replace(load, **fields).fingerprint
    assert changed() == load.fingerprint
    assert changed(pairs=load.pairs.replace(input_ids=tokens)) != load.fingerprint
    assert changed(unseen=load.unseen[1:]) != load.fingerprint
    assert changed(prompts=load.prompts.flip(0)) != load.fingerprint


# ------------------------------------------------------------------ the loss


def slow_loss(model, batch):
    """InfoNCE of each pair, written out."""
    out = model(input_ids=batch["input_ids"][:, 0], pixel_values=batch["pixel_values"])
    logits, said, losses = out.logits_per_image.tolist(), batch["captions"][:, 0].tolist(), []
    for i in range(len(batch)):
        wrong = [j for j in range(len(batch)) if said[j] != said[i]]
        rows = [logits[i][j] for j in wrong], [logits[j][i] for j in wrong]
        denominators = [sum(map(math.exp, [logits[i][i], *row])) for row in rows]
        losses.append(sum(map(math.log, denominators)) / 2 - logits[i][i])
    return torch.tensor(losses)


def repeated(batch):
    """The batch, whose second half says what the first half says."""
    half = len(batch) // 2
    double = lambda name: torch.cat([batch[name][:half]] * 2)
    return batch.replace(input_ids=double("input_ids"), captions=double("captions"))


@torch.no_grad()
def test_the_loss_is_infonce_in_both_directions():
    model, task = trained(), small().task()
    plain = some()
    assert len(plain["captions"][:, 0].unique()) == len(plain)
    logits = model(
        input_ids=plain["input_ids"][:, 0], pixel_values=plain["pixel_values"]
    ).logits_per_image
    at = torch.arange(len(plain))
    both = [F.cross_entropy(side, at, reduction="none") for side in (logits, logits.T)]
    assert torch.allclose(task.loss(model, plain), sum(both) / 2, atol=1e-5)
    for batch in (plain, repeated(plain)):
        assert torch.allclose(task.loss(model, batch), slow_loss(model, batch), atol=1e-4)
    blind = repeated(plain)
    blind = blind.replace(captions=torch.arange(12)[:, None].expand(-1, 9))  # a planted fault
    assert (task.loss(model, blind) > task.loss(model, repeated(plain)) + 0.05).all()


@torch.no_grad()
def test_a_duplicate_caption_in_the_bank_is_no_false_negative():
    model, load, batch = trained(), small(), some()
    twins = load.rows(torch.arange(100, 112)).replace(
        input_ids=batch["input_ids"], captions=batch["captions"], ids=torch.arange(12)
    )
    alone, beside = with_bank(load.bank), with_bank(Batch.cat([load.bank, twins]))
    for at in range(len(batch)):  # each has one twin, and eleven pairs that are none
        one, bank = batch.take(torch.tensor([at])), Batch.cat([load.bank, twins.take([at])])
        assert torch.equal(with_bank(bank).example_loss(model, one), alone.example_loss(model, one))
    left_out = (beside.outputs(model, batch) == LEFT_OUT).sum(-1)
    assert torch.equal(left_out, torch.ones(12, 2, dtype=torch.long))
    same = twins.replace(captions=batch["captions"] + 10**6)  # a planted fault
    blind = with_bank(Batch.cat([load.bank, same])).example_loss(model, batch)
    assert (blind > beside.example_loss(model, batch)).all()


@torch.no_grad()
def test_a_loss_against_the_bank_does_not_depend_on_who_else_is_in_the_batch():
    model, task, batch = trained(), small().task(), some(20)
    losses = task.example_loss(model, batch)
    assert torch.equal(task.loss_from(task.outputs(model, batch), batch), losses)
    alone = torch.cat([task.example_loss(model, one) for one in batch.parts(1)])
    assert torch.allclose(alone, losses, atol=1e-5)
    halves = torch.cat([task.loss(model, half) for half in batch.parts(10)])
    assert not torch.allclose(halves, task.loss(model, batch), atol=1e-2)  # as training's does


@torch.no_grad()
def test_outputs_are_cosines_times_the_temperature():
    model, task, load, batch = trained(), small().task(), small(), some(5)
    logits = task.outputs(model, batch)
    pairs = Batch.cat([batch, load.bank])
    images, texts = embedded(model, pairs["pixel_values"], pairs["input_ids"][:, 0])
    scale = model.logit_scale.exp()
    assert torch.allclose(logits[:, 0, 1:], scale * images[:5] @ texts[5:].T, atol=1e-4)
    assert torch.allclose(logits[:, 1, 1:], scale * texts[:5] @ images[5:].T, atol=1e-4)
    assert torch.allclose(logits[:, 0, 0], scale * (images * texts).sum(-1)[:5], atol=1e-4)
    assert torch.equal(logits[:, 0, 0], logits[:, 1, 0])


def test_training_shows_each_caption_and_measuring_the_full_one():
    task, batch = small().task(), Batch.cat([some(1)] * 4000)
    torch.manual_seed(0)
    shown, numbers = task._shown(batch)
    which = (shown[:, None] == batch["input_ids"]).all(-1)
    assert (which.any(1)).all() and torch.equal(
        numbers, batch["captions"].gather(1, which.int().argmax(1, keepdim=True))[:, 0]
    )
    assert which[:, 0].double().mean().item() == pytest.approx(0.5, abs=0.03)
    distinct = batch["captions"][0, 1:].unique()
    assert set(numbers.unique().tolist()) == {batch["captions"][0, 0].item(), *distinct.tolist()}
    with torch.no_grad():
        assert torch.equal(task._shown(batch)[0], batch["input_ids"][:, 0])
    one = batch.replace(input_ids=batch["input_ids"][:, 3:4], captions=batch["captions"][:, 3:4])
    assert torch.equal(task._shown(one)[0], batch["input_ids"][:, 3])


# ------------------------------------------------------------------ gradients


def test_squared_gradients_equal_the_loop_over_single_examples():
    model, meter, batch = trained(), Meter(), some(6)
    task = small().task(meter=meter)
    fast = squared_gradients(model, task, batch, chunk=4)
    # Each of two chunks reads the bank once, in a forward pass.
    assert meter.passes == 2 * len(batch) + 2 * len(small().bank)
    names, parameters = zip(*model.named_parameters())
    slow = {name: 0.0 for name in names}
    for one in batch.parts(1):
        found = torch.autograd.grad(task.example_loss(model, one).sum(), parameters)
        slow = {n: slow[n] + g.double() ** 2 / len(batch) for n, g in zip(names, found)}
    for name in names:
        assert torch.allclose(fast[name], slow[name], rtol=1e-3, atol=1e-9), name
    assert all((fast[n] > 0).any() for n in names)  # both towers, and the temperature


def test_outputs_carry_no_gradient_through_the_bank():
    model, load, batch = trained(), small(), some(4)
    bank = load.bank
    with torch.no_grad():
        images, texts = embedded(model, bank["pixel_values"], bank["input_ids"][:, 0])
    mine = embedded(model, batch["pixel_values"], batch["input_ids"][:, 0])
    scale, own = model.logit_scale.exp(), (mine[0] * mine[1]).sum(-1, keepdim=True)
    sides = [torch.cat([own, one @ o.T], 1) for one, o in zip(mine, (texts, images))]
    fixed = -(scale * torch.stack(sides, 1)).log_softmax(-1)[..., 0].mean()
    parameters = list(model.parameters())
    wanted = torch.autograd.grad(fixed, parameters)
    found = torch.autograd.grad(load.task().example_loss(model, batch).mean(), parameters)
    for a, b in zip(found, wanted):
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-6)


def test_a_divergence_is_zero_at_equality_and_so_is_its_slope():
    task, batch = small().task(), repeated(some())
    bank = Batch.cat([small().bank, some(4)])  # with duplicates of the first pairs
    task = with_bank(bank)
    said = task.outputs(trained(), batch)
    assert (said == LEFT_OUT).any()
    known = said.detach()
    apart = task.divergence(said, known, 2.0)
    assert apart.shape == (len(batch),) and apart.abs().max() < 1e-5
    slopes = torch.autograd.grad(apart.sum(), trained().logit_scale)
    assert slopes[0].abs() < 1e-4
    with torch.no_grad():
        other = task.outputs(trained(1), batch)
        found = task.divergence(other, known, 2.0)
        p, q = (known / 2).softmax(-1), (other / 2).softmax(-1)
        by_hand = (p * ((p + 1e-30).log() - (q + 1e-30).log())).sum(-1).mean(-1) * 4
    assert torch.allclose(found, by_hand, rtol=1e-3) and (found > 0).all()


@torch.no_grad()
def test_an_uninformed_model_calls_all_captions_equally_likely():
    batch = some(4)
    task = with_bank(Batch.cat([small().bank, batch]))
    said = task.outputs(trained(), batch)
    nothing = task.uninformed(said)
    chances = nothing.softmax(-1)
    there = said > LEFT_OUT
    count = len(small().bank) + 1 + 3  # its own, the bank's and those of three others
    assert torch.allclose(chances[there], torch.tensor(1 / count)) and (chances[~there] == 0).all()
    assert task.loss_from(nothing, batch).tolist() == pytest.approx([math.log(count)] * 4)
    assert task.divergence(said, nothing).max() < 50  # a duplicate left out is no distance


# ------------------------------------------------------------------ captions as labels


def test_a_wrong_caption_is_never_a_right_one():
    load = small()
    forget = load.request().forget
    task = with_bank(Batch.cat([load.bank, forget]))
    wrong = task.relabel(forget, generator("wrong"))
    for own, other in zip(forget["captions"].tolist(), wrong["captions"].tolist()):
        assert set(own).isdisjoint(other)
    assert torch.equal(wrong["pixel_values"], forget["pixel_values"])
    assert torch.equal(wrong["ids"], forget["ids"])
    again = task.relabel(forget, generator("wrong"))
    assert torch.equal(wrong["input_ids"], again["input_ids"])
    assert not torch.equal(
        wrong["input_ids"], task.relabel(forget, generator("other"))["input_ids"]
    )
    with pytest.raises(NotApplicable, match="has a caption of a pair to relabel"):
        with_bank(forget.take(torch.arange(1))).relabel(forget, generator("wrong"))
    assert len(task.relabel(forget.take(torch.arange(0)), generator("wrong"))) == 0


def test_captions_are_drawn_as_the_model_finds_them_likely(monkeypatch):
    load, bank = small(), small().bank
    batch, task = Batch.cat([some(1)] * 6000), load.task()
    chances = torch.zeros(1 + len(bank))
    chances[torch.tensor([0, 3, 4])] = torch.tensor([0.5, 0.3, 0.2])
    says = lambda model, batch: chances.log().expand(len(batch), 2, -1)
    monkeypatch.setattr(task, "outputs", says)
    drawn = task.sample_labels(None, batch, generator("draw"))
    for place, chance in ((None, 0.5), (2, 0.3), (3, 0.2)):
        source = (
            batch.take(torch.tensor([0])) if place is None else bank.take(torch.tensor([place]))
        )
        hits = (drawn["input_ids"] == source["input_ids"]).flatten(1).all(1)
        assert hits.double().mean().item() == pytest.approx(chance, abs=0.02)
        assert (drawn["captions"][hits] == source["captions"]).all()
    assert torch.equal(drawn["pixel_values"], batch["pixel_values"])


def test_labels_are_not_enumerated():
    with pytest.raises(NotApplicable, match="enumerated"):
        small().task().label_distribution(trained(), some())
    with pytest.raises(NotApplicable, match="two output layers"):
        small().task().head(trained())


# ------------------------------------------------------------------ the architecture


def shortened_ones(count=12):
    """Pairs with one of their shortened captions: these are padded, full ones are not."""
    batch = some(count)
    return batch.replace(input_ids=batch["input_ids"][:, 1:], captions=batch["captions"][:, 1:])


def seen_by(model, name, run):
    """Examples that pass through a module while `run` runs."""
    seen = []
    handle = model.get_submodule(name).register_forward_hook(lambda m, i, o: seen.append(len(i[0])))
    run()
    handle.remove()
    return sum(seen)


@torch.no_grad()
def test_who_watches_the_modules_sees_the_examples_and_not_the_bank():
    model, task, batch = trained(), small().task(), some()
    for group in task.unit_groups(model):
        through = lambda run: seen_by(model, group.producer, lambda: run(model, batch))
        assert through(task.forward) == len(batch)
        assert through(task.outputs) == len(batch) + len(small().bank)


def test_real_places_are_those_up_to_a_captions_end():
    load, task, batch = small(), small().task(), shortened_ones()
    real = task.places(batch, "text_model.encoder.layers.0.mlp.fc2")
    assert torch.equal(real, batch["input_ids"][:, 0] != load.tokenizer.pad_token_id)
    assert not real.all()
    assert task.places(batch, "vision_model.encoder.layers.0.mlp.fc2") is None
    assert task.places(batch) is None


@torch.no_grad()
def test_padding_does_not_count_as_activity():
    page, model, load = cells.load("parameter"), trained(), small()
    batch, task = shortened_ones(), load.task()
    groups = task.unit_groups(model)
    how = (groups, "abs", 5)
    found = page.activity(model, task, Split("part", batch), *how)
    alone = {group.name: [] for group in groups}
    for one in batch.parts(1):
        real = int((one["input_ids"][0, 0] != load.tokenizer.pad_token_id).sum())
        cut = one.replace(input_ids=one["input_ids"][..., :real])
        part = page.activity(model, task, Split("part", cut), *how)
        for group in groups:
            places = real if "text" in group.name else 1
            alone[group.name].append((part[group.name] * places, places))
    for name, parts in alone.items():
        mean = sum(total for total, _ in parts) / sum(n for _, n in parts)
        assert torch.allclose(found[name], mean, rtol=1e-4)


def test_blocks_hold_every_parameter_but_the_temperature_once():
    model, task = small().make_model(0), small().task()
    found = [
        f"{n}.{k}"
        for block in task.blocks(model)
        for n in block
        for k, _ in model.get_submodule(n).named_parameters(recurse=False)
    ]
    assert sorted(found) == sorted(n for n, _ in model.named_parameters() if n != "logit_scale")
    assert len(task.blocks(model)) == 1 + small().sizes.layers
    assert task.heads(model) == ["visual_projection", "text_projection"]
    assert set(task.heads(model)) <= set(task.blocks(model)[-1])
    assert not set(task.heads(model)) & set(task.linears(model))


def test_training_the_last_block_leaves_the_temperature_and_all_else():
    load, model = small(), trained()
    freezing = cells.load("parameter").layer_freezing
    asked = load.request()
    splits = Split("forget", asked.forget), Split("retain", asked.retain)
    new = freezing(model, *splits, load.task(), epochs=1, lr=1e-3).model
    last = tuple(f"{name}." for name in load.task().blocks(model)[-1])
    for (name, now), before in zip(new.named_parameters(), model.parameters()):
        assert torch.equal(now, before) != name.startswith(last), name


@torch.no_grad()
def test_pruning_every_unit_of_a_layer_silences_its_mlp():
    load, task = small(), small().task()
    prune = cells.load("parameter").remove_units
    for at, group in enumerate(task.unit_groups(load.make_model(0))):
        model = load.make_model(0)
        prune(model, group, torch.ones(2 * load.sizes.width, dtype=torch.bool), task.matrix)
        seen = []
        for other in task.unit_groups(model):
            module = model.get_submodule(other.activation)
            module.register_forward_hook(lambda m, i, o: seen.append(i[0]))
        task.forward(model, some())
        silent = [bool((z == 0).all()) for z in seen]
        assert silent == [k == at for k in range(len(silent))]


def test_embeddings_are_those_of_the_model_and_modules_run_in_order():
    model, task, batch = trained(), small().task(), some()
    found = task.embeddings(model, batch)
    wanted = embedded(model, batch["pixel_values"], batch["input_ids"][:, 0])
    for (name, side), embeds in zip(found.items(), wanted):
        assert torch.allclose(side.projected, embeds, atol=1e-6)
        projection = model.get_submodule(TOWERS[name][1])
        assert torch.allclose(F.normalize(projection(side.features), dim=-1), embeds, atol=1e-6)
        order = []
        modules = task.modalities(model)[name]
        hooks = [
            model.get_submodule(m).register_forward_hook(lambda *_, m=m: order.append(m))
            for m in modules
        ]
        task.forward(model, batch)
        for hook in hooks:
            hook.remove()
        assert order == modules


# ------------------------------------------------------------------ models


def test_a_model_follows_its_seed_alone():
    load = small()
    recipe = replace(load.sizes.recipe, epochs=1)
    one, two = load.train([load.train_ids] * 2, [3, 4], recipe)
    torch.manual_seed(77)
    [again] = load.train([load.train_ids], [3], recipe)
    assert same_weights(one, again) and not same_weights(one, two)
    assert not same_weights(load.make_model(3).state_dict(), load.make_model(4).state_dict())


def numbers(model, asked=None, load=None):
    load = load or small()
    found, answers = load.measure(model, asked or load.request())
    return {name: m.value for name, m in found.items()}, answers


@pytest.mark.parametrize("kind", ["standard", "concept"])
def test_saving_and_loading_changes_no_number(tmp_path, kind):
    asked = small().request(kind)
    before, answers = numbers(trained(), asked)
    trained().save_pretrained(tmp_path)
    again = CLIPModel.from_pretrained(tmp_path, attn_implementation="eager")
    after, same = numbers(again, asked)
    assert before == after and torch.equal(answers, same)
    assert all(value is None or math.isfinite(value) for value in before.values())


@pytest.mark.parametrize("kind", ["standard", "concept"])
def test_how_many_are_read_at_once_changes_no_number(monkeypatch, kind):
    asked = small().request(kind)
    before, answers = numbers(trained(), asked)
    monkeypatch.setattr(image_text, "READING", 7)
    after, same = numbers(trained(), asked)
    assert after == pytest.approx(before, abs=1e-5) and torch.allclose(answers, same, atol=1e-5)


def test_an_ensemble_answers_with_the_mean_cosine():
    alone, answers = numbers(trained())
    one, same = numbers(SisaEnsemble([trained()]))
    assert one == pytest.approx(alone, abs=1e-6) and torch.allclose(same, answers)
    batch, pair = some(), [trained(), trained(1)]
    look = lambda model: embedded(model, batch["pixel_values"], batch["input_ids"][:, 0])
    with torch.no_grad():
        (images, texts), parts = look(SisaEnsemble(pair)), [look(model) for model in pair]
    mean = sum(a @ b.T for a, b in parts) / 2
    assert torch.allclose(images @ texts.T, mean, atol=1e-6)
    task = small().task()
    with torch.no_grad():  # relearning trains an ensemble
        twice, once = (task.loss(m, batch) for m in (SisaEnsemble([trained()] * 2), trained()))
    assert torch.allclose(twice, once, atol=1e-5)
    assert torch.allclose(images.norm(dim=-1), torch.ones(len(batch)))
    with pytest.raises(NotApplicable, match="a vote counts answers"):
        small().measure(SisaEnsemble(pair, "vote"), small().request())


def test_measuring_leaves_the_mode_and_the_weights():
    load = small()
    model = load.make_model(0).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    load.measure(model, load.request())
    assert model.training and same_weights(model.state_dict(), before)


# ------------------------------------------------------------------ finding


def found(similar, captions):
    """Pairs whose image k has these similarities to the captions, row k."""
    similar = torch.tensor(similar, dtype=torch.float)
    return Found(torch.eye(len(similar)), similar.T, torch.tensor(captions))


def test_recall_of_matrices_whose_answer_is_seen():
    assert found([[0.9, 0.1], [0.2, 0.8]], [0, 1]).recall().tolist() == [1, 1]
    # Image 0 finds the caption of 1; caption 0 finds image 0, and so on.
    crossed = found([[0.5, 0.6, 0.0], [0.1, 0.9, 0.0], [0.0, 0.0, 0.3]], [0, 1, 2])
    assert crossed.recall().tolist() == [0.5, 1, 1]
    assert crossed.recall(torch.tensor([2, 0])).tolist() == [1, 0.5]
    assert found([[0.5, 0.6], [0.1, 0.9]], [0, 1]).recall(top=2).tolist() == [1, 1]


def test_a_caption_that_says_the_same_is_no_wrong_answer():
    table = [[0.5, 0.9], [0.9, 0.4]]
    assert found(table, [0, 1]).recall().tolist() == [0, 0]
    assert found(table, [3, 3]).recall().tolist() == [1, 1]
    three = [[0.5, 0.9, 0.7], [0.9, 0.4, 0.1], [0.1, 0.1, 0.2]]
    # What else is nearer still counts.
    assert found(three, [3, 3, 4]).recall().tolist() == [0.5, 1, 0.5]


def test_a_collapsed_model_finds_nothing():
    assert found([[0.5] * 4] * 4, [0, 1, 2, 3]).recall(top=1).tolist() == [0] * 4
    assert found([[0.5] * 4] * 4, [0, 1, 2, 3]).recall(top=3).tolist() == [0] * 4


def test_planted_duplicates_change_no_recall():
    draw = generator("test")
    images, texts = (F.normalize(torch.randn(40, 6, generator=draw), dim=-1) for _ in range(2))
    texts = F.normalize(images + texts, dim=-1)
    captions = torch.arange(40)
    plain = Found(images, texts, captions).recall()
    twice = Found(*(torch.cat([t, t]) for t in (images, texts, captions)))
    assert torch.equal(twice.recall(captions), plain) and 0.2 < plain.mean() < 0.9
    blind = Found(twice.images, twice.texts, torch.arange(80))  # a planted fault
    assert blind.recall(captions).sum() == 0


# ------------------------------------------------------------------ planted models


class Planted:
    """Embeddings that follow from what is on the pairs; stands for a workload's readers."""

    def __init__(self, load, monkeypatch, images, texts, features=None):
        put = lambda name, value: monkeypatch.setattr(load, name, value)
        put("images", lambda model, rows: F.normalize(images(rows).float(), dim=-1))
        put("texts", lambda model, tokens: F.normalize(texts(tokens).float(), dim=-1))
        if features is not None:
            put("features", lambda model, rows: features(rows).float())


def name_of(load):
    """Captions -> the number of the writer that each names."""
    pairs = {tuple(row[3:5].tolist()): k for k, row in enumerate(load.people)}
    end = load.tokenizer.eos_token_id

    def named(tokens):
        last = (tokens == end).int().argmax(1)
        return torch.tensor([pairs.get(tuple(t[e - 2 : e].tolist()), -1) for t, e in
                             zip(tokens, last)])  # fmt: skip

    return named


@pytest.mark.parametrize("load", [small, large])
def test_only_names_are_swapped(load):
    load = load()
    rows = load.request().rows["forget"]
    full, others = load.pairs["input_ids"][rows, 0], load.writers[rows].flip(0)
    new, named = load.renamed(full, others), name_of(load)
    assert torch.equal(named(full), load.writers[rows]) and torch.equal(named(new), others)
    changed = (new != full).nonzero()
    end = (full == load.tokenizer.eos_token_id).int().argmax(1)
    assert set((changed[:, 1] - end[changed[:, 0]]).tolist()) <= {-2, -1}
    assert torch.equal(load.renamed(new, load.writers[rows]), full)


def test_who_reads_nothing_but_names_tells_writers_apart(monkeypatch):
    load = large()
    asked, named = load.request(), name_of(load)
    hot = lambda numbers: F.one_hot(numbers, len(load.people))
    knows = lambda rows: hot(load.writers[rows])
    Planted(load, monkeypatch, knows, lambda tokens: hot(named(tokens).clamp(min=0)))
    for part in ("forget", "holdout"):
        assert load.told_apart(None, asked.rows[part], asked).all()
    known = load._known(None, asked)
    assert known["C2"][1].all() and known["top_5"][1].all()


def test_who_does_not_know_the_writers_has_one_chance_in_ten(monkeypatch):
    load = large()
    asked, named, draw = load.request(), name_of(load), generator("test")
    guess = torch.randn(len(load.people), 16, generator=draw)
    images = torch.randn(len(load.writers), 16, generator=draw)
    Planted(load, monkeypatch, lambda rows: images[rows], lambda tokens: guess[named(tokens)])
    parts = [load.request(folds=(k,)).rows["forget"] for k in range(1, 5)]
    told = torch.cat([load.told_apart(None, rows, asked) for rows in parts])
    assert told.double().mean().item() == pytest.approx(1 / (SWAPS + 1), abs=0.05)
    # Who reads no name sees the same caption ten times, and a tie is a miss.
    monkeypatch.undo()
    Planted(
        load, monkeypatch, lambda rows: images[rows], lambda tokens: torch.ones(len(tokens), 16)
    )
    assert not load.told_apart(None, asked.rows["forget"], asked).any()


def test_a_probe_finds_writers_only_where_features_know_them(monkeypatch):
    load, draw = large(), generator("test")
    asked = load.request()
    noise = torch.randn(len(load.writers), 24, generator=draw)
    knows = F.one_hot(load.writers, len(load.people))
    count = len(load.writers[asked.rows["forget"]].unique())
    for features, least, most in ((noise, 0, 3 / count), (knows, 1, 1)):
        Planted(load, monkeypatch, lambda rows: rows, lambda t: t, lambda rows: features[rows])
        right = load._probe(None, asked)[1]
        assert len(right) == 2 * count and least <= right.double().mean() <= most


def test_a_probe_finds_the_concept_only_where_features_know_it(monkeypatch):
    load, draw = large(), generator("test")
    asked = load.request("concept")
    shows = (load.classes == 7).float()[:, None]
    for features, least, most in (
        (torch.randn(len(load.classes), 8, generator=draw), 0.2, 0.8),
        (shows, 1, 1),
    ):
        Planted(load, monkeypatch, lambda rows: rows, lambda t: t, lambda rows: features[rows])
        assert least <= load._probe(None, asked)[1].double().mean() <= most


def test_a_model_that_reads_digits_alone_recognises_the_concept(monkeypatch):
    load = large()
    asked = load.request("concept")
    word = {load.tokenizer.convert_tokens_to_ids(digit): k for k, digit in enumerate(DIGITS)}
    said = lambda tokens: torch.tensor(
        [next((word[t] for t in row if t in word), 0) for row in tokens.tolist()]
    )
    hot = lambda numbers: F.one_hot(numbers, 10)
    Planted(load, monkeypatch, lambda rows: hot(load.classes[rows]), lambda t: hot(said(t)))
    assert load._known(None, asked)["C2"][1].all()
    every = Found.of(load, None, load.gallery(asked))
    assert load._nearest(None, every, asked)[1].all()
    useful = load._useful(None, asked.rows["utility"])
    assert useful["zero_shot"].all() and useful["recall"].mean() < 0.5  # of one digit, all tie


@pytest.mark.parametrize("kind", ["standard", "concept"])
def test_a_measurement_encodes_no_image_and_no_caption_twice(kind, monkeypatch):
    """But for the bank, which is no part of any split, and the one that fills the other side."""
    load = small()
    asked, seen = load.request(kind), {"images": [], "captions": []}
    whole = image_text.embedded

    def counting(model, pixel_values, input_ids):
        if len(pixel_values) > 1:
            seen["images"] += [p.numpy().tobytes() for p in pixel_values]
        if len(input_ids) > 1:
            seen["captions"] += map(tuple, input_ids.tolist())
        return whole(model, pixel_values, input_ids)

    monkeypatch.setattr(image_text, "embedded", counting)
    once = load.measure(trained(), asked)
    scans = {p.numpy().tobytes() for p in load.pairs["pixel_values"]}
    assert len(scans) == len(load.pairs)  # no two scans are the same
    assert {*seen["images"]} <= scans and len(load.train_ids) < len(seen["images"])
    for what, every in seen.items():
        assert len(every) == len(set(every)) > 0, what
    # Without what is kept, the same comes out to the last bit.
    monkeypatch.setattr(Encoder, "images", lambda e, rows: load.images(e._model, rows))
    monkeypatch.setattr(Encoder, "texts", lambda e, ids: load.texts(e._model, ids))
    again = load.measure(trained(), asked)
    assert {k: m.value for k, m in once[0].items()} == {k: m.value for k, m in again[0].items()}
    assert torch.equal(once[1], again[1])
    assert len(seen["images"]) > len(set(seen["images"]))  # so the count can fail


def test_what_stands_in_a_row_follows_from_its_parts():
    load = small()
    asked = load.request()
    found, answers = load.measure(trained(), asked)
    value = {name: m.value for name, m in found.items()}
    assert value["C1"] == pytest.approx((value["recall"] + value["told_apart"]) / 2)
    parts = value["zero_shot"], value["recall_at_5"], value["retain_accuracy"]
    assert value["C4"] == pytest.approx(harmonic_mean(parts))
    batches = asked.forget, asked.holdout
    cosines = [load.task().outputs(trained(), b)[:, 0, 0].detach() for b in batches]
    assert value["C3"] == pytest.approx(auc(*cosines), abs=1e-6)
    assert value["forget_loss"] == pytest.approx(
        load.task().example_loss(trained(), asked.forget).mean().item(), rel=1e-5
    )
    assert answers.shape == (len(asked.forget), len(load.train_ids) + len(asked.holdout))
    assert torch.allclose(answers.sum(-1), torch.ones(len(answers)), atol=1e-5)


@pytest.mark.parametrize("kind", ["standard", "concept"])
def test_an_attack_measures_pairs_that_it_does_not_relearn(kind):
    load = large()
    asked = load.request(kind)
    quarter, probes = load.attack(asked)
    again = quarter["ids"]
    assert torch.isin(again, asked.rows["forget"]).all()
    assert 0.2 < len(again) / len(asked.forget) <= 0.25
    if kind == "standard":
        others = asked.rows["forget"][~torch.isin(asked.rows["forget"], again)]
        assert not set(load.writers[again].tolist()) & set(load.writers[others].tolist())
    fresh = {name: probe(load.make_model(0)) for name, probe in probes.items()}
    assert len(fresh) == 2 and all(0 <= share < 0.5 for share in fresh.values())


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ({"core": 400}, "there are 1797 scans; 448 writers of 6 and a bank of 16 need more"),
        ({"bank": 1600}, "scans; 52 writers of 6 and a bank of 1600 need more"),
        ({"bank": 1400}, "scans are left for a bank of 1400"),
        ({"words": 5}, "5 first and 5 second names are too few for 300 writers"),
    ],
)
def test_sizes_that_the_scans_cannot_fill_are_refused(sizes, said):
    with pytest.raises(ValueError, match=said):
        image_text.make(replace(small().sizes, **sizes), torch.device("cpu"))


def test_relearning_two_pairs_makes_them_found():
    load = small()
    model, batch = load.make_model(0).train(), some(2)
    recipe = replace(load.sizes.recipe, epochs=60, lr=3e-3)
    fit(model, load.task(), Split("two", batch), recipe, 0)
    with torch.no_grad():
        chances = load.task().outputs(model.eval(), batch).softmax(-1)[..., 0]
        apart = load.task().loss(model, batch)
    assert (apart < 0.1).all() and chances.shape == (2, 2)


# ------------------------------------------------------------------ strategies of the book


NEEDS_MORE = [
    (page, name)
    for page in cells.names()
    if page != "leaderboard"
    for name, function in cells.strategies(page).items()
    if function.facts.form_on("image_text", ImageTextWorkload.provides) is None
]


def test_some_strategies_need_what_pairs_have_not():
    assert ("llm", "token_masking") in NEEDS_MORE and ("data", "certified_removal") in NEEDS_MORE
    assert not {"ssd", "scrub", "sisa", "neuron_pruning"} & {name for _, name in NEEDS_MORE}


@cache
def smoke_bench():
    return Bench("image_text", "smoke", (0,), out=None, cache="")


@pytest.mark.parametrize(("page", "name"), NEEDS_MORE)
def test_who_needs_more_than_there_is_gives_no_result(page, name):
    [row] = smoke_bench().run(cells.strategies(page)[name], keep=False)
    assert row.status == "not_applicable" and row.reason and not row.metrics


# ------------------------------------------------------------------ the closed-form baseline


class Sayings(Task):
    """Pairs whose captions are embedded as they stand, and a model of one projection each."""

    recipe = small().sizes.recipe

    def modalities(self, model):
        return {"vision": ["seen"], "text": ["said"]}

    def embeddings(self, model, batch):
        rows = batch["input_ids"].float()
        return {"text": Embedding(rows, F.normalize(model.said(rows), dim=-1))}


def sayings(rows):
    return Split("some", Batch({"input_ids": torch.tensor(rows), "ids": torch.arange(len(rows))}))


def two_projections(width=6):
    model = nn.Module()
    model.seen, model.said = nn.Linear(4, width), nn.Linear(width, width, bias=False)
    nn.init.eye_(model.said.weight)
    return model


def units(*numbers, width=6):
    return [[1.0 * (k == n) for k in range(width)] for n in numbers]


def what_is_left(before, after, gone):
    """Largest part of `after` along directions that are gone, and largest change elsewhere."""
    kept = torch.tensor([k not in gone for k in range(len(after))])
    return after[~kept].abs().max(), (after - before)[kept].abs().max()


def check_projection(function):
    """Forgotten directions are gone from the projection, and kept ones are as they were."""
    model = two_projections()
    # A caption in a direction of its own, and one that is half like the kept ones.
    forget = sayings([*units(0), [0.0, 1.0, 1.0, 0.0, 0.0, 0.0]])
    how = (model, forget, sayings(units(2, 3, 4)), Sayings())
    new = function(*how, share=1.0, kept=1.0).model
    for part in ("weight", "bias"):
        left, moved = what_is_left(getattr(model.seen, part), getattr(new.seen, part), (0, 1))
        assert left < 1e-7, "something is left of what only the forgotten captions say"
        assert moved < 1e-7, "what the kept captions say has changed"
    assert torch.equal(new.said.weight, model.said.weight)


def test_what_only_forgotten_captions_say_is_gone_and_what_kept_ones_say_stays():
    check_projection(null_space_projection)

    def zeroed(model, forget, retain, task, **settings):
        new = null_space_projection(model, forget, retain, task, **settings)
        nn.init.zeros_(new.model.seen.weight)
        return new

    def untouched(model, forget, retain, task, **settings):
        return null_space_projection(model, forget, retain, task, share=0.0)

    for stub, reason in ((zeroed, "kept captions say has changed"), (untouched, "is left")):
        with pytest.raises(AssertionError, match=reason):
            check_projection(stub)


def test_the_paper_s_projection_removes_all_that_forgotten_captions_say():
    model = two_projections()
    forget, retain = sayings([*units(0), [0.0, 1.0, 1.0, 0.0, 0.0, 0.0]]), sayings(units(2, 3, 4))
    new = null_space_projection(model, forget, retain, Sayings(), share=1.0, kept=0.0, tower="both")
    assert new.info == {"removed": 2, "kept": 0, "dimensions": 6}
    found = Sayings().embeddings(new.model, forget.all())["text"].features @ new.model.said.weight.T
    assert found.abs().max() < 1e-7
    half = torch.tensor(units(1, 2)).sum(0)
    assert (new.model.seen.weight.T @ half).abs().max() < 1e-6
    assert (new.model.seen.bias @ half).abs() < 1e-6


@pytest.mark.parametrize(("share", "count"), [(0.0, 0), (0.5, 1), (0.7, 2), (0.95, 3), (1.0, 3)])
def test_so_many_directions_are_taken_as_hold_the_share(share, count):
    rows = torch.diag(torch.tensor([3.0, 2.0, 1.0, 0.0, 0.0])).double()
    found = main_directions(rows[torch.tensor([2, 0, 3, 1])], share)  # 9, 4 and 1 of 14
    assert torch.allclose(found.abs(), torch.eye(5)[:count].double())
    assert len(main_directions(1e-9 * rows, share, of=1.0)) == 0
    with pytest.raises(ValueError, match="between 0 and 1"):
        main_directions(rows, 1.5)


def test_the_projection_keeps_the_contract(lightly):
    for tower in ("vision", "text", "both"):
        how = {"settings": {"tower": tower}, "random": False, "where": lightly}
        battery(null_space_projection, ({"share": 0.0}, {"kept": 1.0}), **how)
    with pytest.raises(ValueError, match="tower is vision, text or both, got 'audio'"):
        lightly.run(null_space_projection, tower="audio")


def test_the_projection_changes_one_layer_of_the_tower_that_it_is_asked_for(lightly):
    changes = {"vision": {"visual_projection.weight"}, "text": {"text_projection.weight"}}
    changes["both"] = changes["vision"] | changes["text"]
    for tower, wanted in changes.items():
        new = lightly.run(null_space_projection, tower=tower).model.named_parameters()
        old = dict(lightly.original.named_parameters())
        assert {name for name, value in new if not torch.equal(value, old[name])} == wanted


@torch.no_grad()
def test_no_image_has_a_component_along_the_removed_directions(lightly):
    task = small().task()
    said = task.embeddings(lightly.original, lightly.forget_batch)["text"].projected.double()
    kept = task.embeddings(lightly.original, lightly.retain_batch)["text"].projected.double()
    base = main_directions(kept, 0.5)
    gone = main_directions(said - said @ base.T @ base, 0.5, len(said))
    unlearned = lightly.run(null_space_projection)
    assert unlearned.info["removed"] == len(gone) > 0
    everything = lightly.retain_batch
    before, after = (
        task.embeddings(model, everything)["vision"].projected.double()
        for model in (lightly.original, unlearned.model)
    )
    assert (before @ gone.T).abs().max() > 0.01 > 1e-5 > (after @ gone.T).abs().max()


def test_the_projection_is_a_baseline_of_pairs_and_of_nothing_else():
    from erasus_nb import controls

    for name in ("synthetic", "digits", "text"):
        provides = workloads.load(name, "smoke").provides
        assert null_space_projection not in controls.on(provides)
    assert controls.on(small().provides)[-1] is null_space_projection
