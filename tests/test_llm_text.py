"""Strategies that act inside a language model: token_masking, attention_surgery."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from contract import battery, setting, small_text
from torch import nn

from erasus_nb.cells import load
from erasus_nb.strategy import Batch, NotApplicable, Split, Unlearned, strategy
from erasus_nb.training import clone, generator, same_weights

page = load("llm")


def of_tokens(*rows, objects=None):
    """A batch of token rows, padded with 0, every token but the first a target."""
    width = max(map(len, rows))
    inputs = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows])
    labels = inputs.where(inputs > 0, -100)
    marked = torch.zeros_like(inputs)
    for row, places in enumerate(objects or []):
        marked[row, list(places)] = 1
    ids = torch.arange(len(rows))
    return Batch({"inputs": inputs, "labels": labels, "object": marked, "ids": ids})


# ------------------------------------------------------------------ token_masking


@pytest.mark.parametrize("selector", ["su_ngram", "seul", "oracle"])
def test_token_masking_keeps_the_contract(selector):
    settings = {"selector": selector, "epochs": 1}
    battery(page.token_masking, {"epochs": 0}, settings=settings, where=setting("text"))


def test_counting_finds_what_only_the_forget_set_says():
    # "1 2 3 X 4": the same words around X in both sets, and another X in each.
    forget = of_tokens([1, 2, 3, 7, 4], [1, 2, 5, 8, 4], objects=[[3], [3]])
    retain = of_tokens([1, 2, 3, 9, 4], [1, 2, 5, 6, 4], [1, 2, 3, 9], [1, 2, 5])
    tables = page.follows(forget, 3), page.follows(retain, 3)
    scores = page.ngram_scores(forget, *tables, 3)
    scored = torch.ones(2, 4, dtype=torch.bool)
    found = page.selected(scores, scored, 0.0, 0.9)
    # Position 4 follows an X that the retain set never has: its context is new as well.
    truth = forget["object"][:, 1:] > 0
    assert torch.equal(found[:, :3], truth[:, :3]) and found[:, 3].all()
    by_two = page.ngram_scores(forget, page.follows(forget, 2), page.follows(retain, 2), 2)
    assert (by_two[:, 2] == 1).all()  # "3 -> 7" is always so here and never there


def test_on_a_template_that_both_sets_share_the_values_alone_are_found():
    # "door 3 opens with X": every context but a value's is in both sets; IoU with the oracle 1.
    doors = [[1, 20 + k, 2, 30 + k] for k in range(4)]
    forget = of_tokens(*doors, objects=[[3]] * 4)
    retain = of_tokens(*[[*door[:3], door[3] + 10] for door in doors])
    tables = page.follows(forget, 3), page.follows(retain, 3)
    scores = page.ngram_scores(forget, *tables, 3)
    found = page.selected(scores, torch.ones(4, 3, dtype=torch.bool), 0.0, None)
    assert torch.equal(found, forget["object"][:, 1:] > 0)


def test_seul_selects_below_the_mean_by_k_deviations():
    where = setting("text")
    share = lambda k: (
        where.run(page.token_masking, selector="seul", k=k, context=0, epochs=0)
    ).info["selected"]
    assert share(-1.0) < share(0.0) < share(1.0)


@pytest.mark.parametrize("n, enough", [(3, False), (12, True)])
def test_counting_finds_a_value_only_where_its_context_holds_the_name(n, enough):
    where = setting("text")
    forget, retain = where.forget(), where.retain()
    sheets = forget.all().take((~forget.all()["passage"]).nonzero()[:, 0])
    tables = page.follows(forget.all(), n), page.follows(retain.all(), n)
    scores = page.ngram_scores(sheets, *tables, n)
    scored = where.task().scored(sheets)
    mask = page.selected(scores, scored, 0.0, None)
    values = sheets["object"][:, 1:] > 0
    found = float((mask & values).sum() / values.sum())
    assert found > 0.9 if enough else found < 0.5
    assert mask.sum() < scored.sum()


def logit_gradient(loss_of):
    """Gradient of a loss at the logits of the forget set, (B, T - 1, V)."""
    where = setting("text")
    model, kept = where.model(), []
    model.lm_head.register_forward_hook(lambda m, i, o: (o.retain_grad(), kept.append(o))[1])
    loss_of(model, where).backward()
    return kept[0].grad[:, :-1]


class Recorder(torch.optim.SGD):
    def step(self):
        pass


def masked_loss(mask):
    def loss_of(model, where):
        task, batch = where.task(), where.forget_batch
        losses = task.token_losses(model, batch)
        return -(losses * mask).sum() / mask.sum()

    return loss_of


def everywhere_loss(model, where):
    """The rival's token_masking: ascent on the whole sequence."""
    return -where.task().loss(model, where.forget_batch).mean()


def own_loss(mask):
    """The strategy's own step, read through the gradient that it leaves."""

    def loss_of(model, where):
        task, batch = where.task(), where.forget_batch
        step = Recorder(model.parameters(), 0.0)
        kept = batch  # its share is switched off
        page.masked_step(model, batch, mask, kept, task, step, 1.0, 0.0)
        return torch.zeros((), requires_grad=True)

    return loss_of


def test_unselected_tokens_feel_nothing_and_the_rivals_stub_is_found_out():
    where = setting("text")
    scored = where.task().scored(where.forget_batch)
    mask = torch.rand(scored.shape, generator=generator("mask")) < 0.2
    mask = mask & scored
    felt = logit_gradient(own_loss(mask)).abs().sum(-1) > 0
    assert torch.equal(felt, mask)
    stub = logit_gradient(everywhere_loss).abs().sum(-1) > 0
    assert (stub & ~mask).any()


def test_a_step_weighs_the_climb_by_gamma_and_what_stays_by_alpha():
    where = setting("text")
    model, task, asked = where.model(), where.task(), where.forget_batch
    kept = where.retain_batch.take(torch.arange(8))
    mask = task.scored(asked) & (torch.arange(asked["inputs"].shape[1] - 1) % 3 == 0)
    step = Recorder(model.parameters(), 0.0)
    page.masked_step(model, asked, mask, kept, task, step, 0.5, 3.0)
    up = task.token_losses(model, asked)[mask].mean()
    down = task.token_losses(model, kept)[task.scored(kept)].mean()
    wanted = torch.autograd.grad(3.0 * down - 0.5 * up, list(model.parameters()))
    for weight, expected in zip(model.parameters(), wanted):
        assert torch.allclose(weight.grad, expected, rtol=1e-3, atol=1e-5)


def test_selecting_every_token_is_gradient_difference_to_the_last_bit():
    where = setting("text")
    one = where.run(page.token_masking, threshold=-1.0, epochs=1).model
    task, student = where.task(), clone(where.original)
    draw, size = generator("token_masking", 0), task.recipe.batch_size
    step = page.optimizer("adamw", student.parameters(), 5e-4)
    forget, retain = where.forget(), where.retain()
    kept = iter(())
    for index in torch.randperm(len(forget), generator=draw).split(size):
        beside = next(kept, None)
        if beside is None:
            kept = retain.batches(size, draw)
            beside = next(kept)
        batch = forget.take(index)
        mean = lambda b: task.token_losses(student, b).sum() / task.scored(b).sum()
        loss = mean(beside) - mean(batch)
        step.zero_grad(set_to_none=True)
        loss.backward()
        step.step()
    gaps = [(a - b).abs().max() for a, b in zip(one.parameters(), student.parameters())]
    assert max(gaps) < 1e-6


def test_masks_grow_and_gaps_fill():
    mask = torch.tensor([[0, 1, 0, 0, 1, 0, 0, 0, 1]], dtype=torch.bool)
    scored = torch.ones_like(mask)
    assert page.widened(mask, scored, 0).equal(mask)
    assert page.widened(mask, scored, 1).tolist() == [[1, 1, 1, 1, 1, 1, 0, 1, 1]]
    assert page.filled(mask, 2).tolist() == [[0, 1, 1, 1, 1, 0, 0, 0, 1]]
    assert page.filled(mask, 3).tolist() == [[0, 1, 1, 1, 1, 1, 1, 1, 1]]
    none = torch.zeros_like(mask)
    assert not page.filled(none, 2).any() and not page.widened(none, scored, 2).any()


@pytest.mark.parametrize("selector", ["oracle", "seul"])
def test_more_context_selects_more(selector):
    shares = [
        setting("text").run(page.token_masking, **settings, epochs=0).info["selected"]
        for settings in ({"selector": selector, "context": c} for c in (0, 1, 2))
    ]
    assert shares[0] < shares[1] < shares[2] < 1


def test_a_text_with_nothing_selected_is_not_averaged():
    where = setting("text")
    kept = where.run(page.token_masking, threshold=2.0, alpha=0.0, epochs=1)
    assert kept.info["selected"] == 0
    assert all(math.isfinite(x) for x in kept.losses["selected"])


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"selector": "magic"}, "selector is su_ngram, su_lm, seul or oracle"),
        ({"selector": "su_lm"}, "needs ref_model"),
    ],
)
def test_selectors_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        setting("text").run(page.token_masking, **settings)


def test_a_model_that_never_saw_the_text_points_at_it():
    where = setting("text")
    fresh = small_text().make_model(5).eval()
    found = where.run(page.token_masking, selector="su_lm", ref_model=fresh, epochs=0)
    assert 0.3 < found.info["selected"] <= 1


def test_token_masking_means_nothing_without_tokens():
    with pytest.raises(NotApplicable, match="no tokens"):
        setting().run(page.token_masking)


# ------------------------------------------------------------------ attention_surgery


@pytest.mark.parametrize("granularity", ["neuron", "head"])
def test_attention_surgery_keeps_the_contract(granularity):
    settings = {"granularity": granularity, "frac": 0.2, "iterations": 1}
    zero = {"iterations": 0}
    where = setting("text")
    battery(page.attention_surgery, zero, random=False, settings=settings, where=where)


def test_attention_surgery_keeps_the_contract_on_the_analogue():
    battery(page.attention_surgery, {"iterations": 0}, random=False)


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_cutting_columns_is_silencing_the_head(architecture):
    where = small_text(architecture)
    model, task = where.make_model(0).eval(), where.task()
    layer = task.decoder(model)[1]
    width = where.sizes.width // layer.heads
    batch = where.batch(where.train_ids[:3])
    module = model.get_submodule(layer.attention_out)

    def silence(module, inputs):
        a = inputs[0].clone()
        a[..., width : 2 * width] = 0
        return (a, *inputs[1:])

    hook = module.register_forward_pre_hook(silence)
    silenced = task.outputs(model, batch)
    hook.remove()
    mask = torch.tensor([False, True, False, False])
    page.cut(model, task, {layer.attention_out: width}, {layer.attention_out: mask})
    assert torch.equal(task.outputs(model, batch), silenced)


def changed(settings):
    where = setting("text")
    result = where.run(page.attention_surgery, **settings).model
    task, before = where.task(), where.original.state_dict()
    names = [f"{layer.attention_out}.weight" for layer in task.decoder(result)]
    after = result.state_dict()
    others = {n: v for n, v in before.items() if n not in names}
    assert same_weights({n: after[n] for n in others}, others)
    zero = [(after[n] == 0).all(0) for n in names]
    for name, columns in zip(names, zero):
        assert torch.equal(after[name][:, ~columns], before[name][:, ~columns])
    return zero


def test_exactly_the_asked_share_of_columns_is_zero_and_all_else_untouched():
    zero = changed({"frac": 0.05, "iterations": 3})
    assert sum(int(z.sum()) for z in zero) == 3 * math.floor(0.05 * 128)


@pytest.mark.parametrize("name", ["text", "synthetic"])
def test_what_was_cut_stays_cut_while_the_rest_heals(name):
    where = setting(name)
    cut = {"frac": 0.05, "iterations": 2}
    bare = where.run(page.attention_surgery, **cut).model
    healed = where.run(page.attention_surgery, **cut, heal_epochs=1).model
    task = where.task()
    for matrix in page.cuts(bare, task, "neuron"):
        before, after = (task.matrix(m.get_submodule(matrix)).detach() for m in (bare, healed))
        gone = (before == 0).all(0)
        assert (after[:, gone] == 0).all()
        assert not torch.equal(after[:, ~gone], before[:, ~gone])
    assert not any(p._backward_hooks for p in healed.parameters())


def test_a_layer_keeps_its_last_head():
    zero = changed({"granularity": "head", "frac": 1.0, "iterations": 3})
    assert [int(z.sum()) for z in zero] == [48, 48]  # three of four heads of 16


def test_a_share_of_less_than_one_head_is_refused():
    with pytest.raises(ValueError, match="frac=0.02 of 8 is less than one"):
        changed({"granularity": "head"})


def test_scores_do_not_depend_on_the_scale_of_a_unit():
    where = setting()
    where_to = page.cuts(where.model(), where.task(), "neuron")
    scaled = where.model()
    with torch.no_grad():
        scaled.hidden1.weight[3] *= 8
        scaled.hidden1.bias[3] *= 8
        scaled.hidden2.weight[:, 3] /= 8

    def scores(model):
        splits = where.forget(), where.retain()
        used = (page.usage(model, where.task(), s, where_to, 64) for s in splits)
        return page.one_sided(*used, 0.0)["hidden2"]

    assert torch.allclose(scores(scaled), scores(where.model()), rtol=1e-5)


def test_usage_is_a_mean_over_real_tokens_that_do_not_start_a_text():
    where, bos = setting("text"), small_text().bos
    model, task, batch = where.model(), where.task(), where.forget_batch
    where_to = page.cuts(model, task, "neuron")
    # A label of padding is -100, all else that there is of it is 0.
    rows = {name: value for name, value in batch.items() if value.dim() == 2}
    blank = lambda name: -100 if name == "labels" else 0
    longer = {n: F.pad(v, (0, 20), value=blank(n)) for n, v in rows.items()}
    longer = batch.replace(**longer)
    assert not task.places(longer)[:, -20:].any()
    found = page.usage(model, task, Split("forget", longer), where_to, 16)
    for name in where_to:
        read = []
        for tokens, real in zip(batch["inputs"], task.places(batch)):
            tokens = tokens[real]
            read.append(page.reads(model, [tokens], name)[0][tokens != bos])
        by_hand = torch.cat(read).double().abs().mean(0)
        assert torch.allclose(found[name], by_hand, rtol=1e-4)


def share_right(model, batch):
    with torch.no_grad():
        return (model(batch["inputs"]).argmax(-1) == batch["labels"]).double().mean()


def forgets_more_than_chance(function) -> bool:
    """Whether it hurts the forget set more, and the retain set less, than random cuts."""
    where = setting()
    model = where.run(function, frac=0.1, iterations=1).model
    cut, task = 12, where.task()
    gaps = []
    for seed in range(5):
        random = where.model()
        order = torch.randperm(128, generator=generator("cut", seed))[:cut]
        for k, name in enumerate(("hidden2", "head")):
            columns = order[(order >= 64 * k) & (order < 64 * (k + 1))] - 64 * k
            with torch.no_grad():
                task.matrix(random.get_submodule(name))[:, columns] = 0
        gap = share_right(random, where.retain_batch) - share_right(random, where.forget_batch)
        gaps.append(float(gap))
    own = share_right(model, where.retain_batch) - share_right(model, where.forget_batch)
    return float(own) > max(gaps)


def test_it_cuts_better_than_chance_and_the_rivals_stub_is_found_out():
    @strategy(category="Test", cite="", reads=("forget", "retain"), on=())
    def scaled_layers(model, forget, retain, task, *, frac=0.1, iterations=1, seed=0):
        """The rival's: the two layers with the largest outputs, times 0.1."""
        student = clone(model)
        linears = [m for m in student.modules() if isinstance(m, nn.Linear)]
        with torch.no_grad():
            for module in linears[-2:]:
                module.weight *= 0.1
        return Unlearned(student)

    assert forgets_more_than_chance(page.attention_surgery)
    assert not forgets_more_than_chance(scaled_layers)


def test_a_target_stops_the_cutting():
    where = setting("text")
    found = where.run(page.attention_surgery, frac=0.1, iterations=8, target=0.3)
    losses = found.losses["forget"]
    assert losses[-1] >= 0.3 and all(x < 0.3 for x in losses[:-1])
    assert len(losses) < 8


def test_an_unknown_granularity_is_refused():
    with pytest.raises(ValueError, match="neuron or head, not 'layer'"):
        setting("text").run(page.attention_surgery, granularity="layer")


def test_channels_of_a_convolution_are_not_cut():
    with pytest.raises(NotApplicable, match="channels of a convolution"):
        setting("digits").run(page.attention_surgery)
