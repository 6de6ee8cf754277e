"""What base training records: the records are complete, exact, and made before a request."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from erasus_nb import workloads
from erasus_nb.profiles import Recipe
from erasus_nb.provenance import (
    SisaEnsemble,
    UpdateLog,
    convex_head,
    sisa_plan,
    sisa_shards,
    update_log,
    update_logs,
)
from erasus_nb.strategy import Batch, MissingRecord, Split
from erasus_nb.training import fit, same_weights

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def synthetic():
    return workloads.load("synthetic", "smoke")


@pytest.fixture(scope="module")
def recorded(synthetic):
    """The original of seed 3, trained beside others, and its log."""
    original = synthetic.train([synthetic.train_ids] * 3, [8, 3, 5])[1]
    return original, update_log(synthetic, 3, original)


def distance(a, b) -> float:
    return max(float((a[name].detach() - b[name].detach()).abs().max()) for name in a)


# ------------------------------------------------------------------ what a log rests on


@pytest.mark.parametrize("name", ["synthetic", "digits"])
def test_a_seed_gives_the_same_model_in_any_company(name):
    load = workloads.load(name, "smoke")
    ids = load.request().retain["ids"]  # not a whole number of batches
    recipe = replace(load.sizes.recipe, epochs=5)  # fewer steps round alike by luck
    alone = load.train([ids], [0], recipe)[0]
    for seeds in ([1, 0], [0, 1, 2]):
        beside = load.train([ids] * len(seeds), seeds, recipe)[seeds.index(0)]
        assert same_weights(alone, beside), seeds


# ------------------------------------------------------------------ the update log


def test_start_plus_all_changes_is_the_original(synthetic, recorded):
    original, log = recorded
    total = log.initial + torch.stack(log.changes).sum(0)
    final = torch.cat([value.flatten() for value in original.values()])
    assert torch.allclose(total, final, atol=1e-5)
    assert not torch.allclose(log.initial, final, atol=0.01)


def test_every_epoch_of_the_log_uses_every_example_once(synthetic, recorded):
    _, log = recorded
    recipe, count = synthetic.sizes.recipe, len(synthetic.labels)
    assert len(log) == recipe.epochs * -(-count // recipe.batch_size)
    for epoch in range(recipe.epochs):
        used = torch.cat([i for i, e in zip(log.ids, log.epochs) if e == epoch])
        assert used.sort().values.tolist() == list(range(count))


def test_the_log_finds_the_steps_of_an_example(synthetic, recorded):
    _, log = recorded
    steps = log.steps_with(torch.tensor([7]))
    assert len(steps) == synthetic.sizes.recipe.epochs
    assert all(7 in log.ids[k].tolist() for k in steps)
    assert log.steps_with(torch.arange(len(synthetic.labels))) == list(range(len(log)))
    assert log.steps_with(torch.tensor([], dtype=torch.long)) == []


def test_the_size_of_a_log_is_that_of_its_changes(synthetic, recorded):
    _, log = recorded
    weights = sum(p.numel() for p in synthetic.make_model(0).parameters())
    ids = 8 * len(synthetic.labels) * synthetic.sizes.recipe.epochs
    assert log.nbytes == 4 * weights * (len(log) + 1) + ids


def test_a_log_that_does_not_end_at_the_original_is_refused(synthetic, recorded):
    original, _ = recorded
    other = {name: value.clone() for name, value in original.items()}
    other["head.bias"][0] = torch.nextafter(other["head.bias"][0], torch.tensor(9.0))
    with pytest.raises(MissingRecord, match="seed 3 of synthetic"):
        update_log(synthetic, 3, other)


def test_logs_recorded_side_by_side_are_the_same_logs(synthetic, recorded):
    _, alone = recorded
    states = synthetic.train([synthetic.train_ids] * 3, [8, 3, 5])
    logs = update_logs(synthetic, dict(zip([8, 3, 5], states)))
    assert list(logs) == [8, 3, 5]
    assert torch.equal(torch.stack(logs[3].changes), torch.stack(alone.changes))
    assert all(map(torch.equal, logs[3].ids, alone.ids))
    assert not torch.equal(logs[8].changes[0], alone.changes[0])


def test_reverting_nothing_is_identity_and_everything_is_the_start(synthetic, recorded):
    original, log = recorded
    assert same_weights(log.revert(original, []), original)
    start = dict(synthetic.make_model(3).named_parameters())
    assert distance(log.revert(original, range(len(log))), start) < 1e-6


def test_reverting_adds_up(recorded):
    original, log = recorded
    one, two = [0, 5, 9], [2, 30]
    both = log.revert(original, one + two)
    apart = log.revert(log.revert(original, one), two)
    assert distance(both, apart) < 1e-6
    assert distance(both, original) > 1e-3


def test_a_step_that_was_not_logged_cannot_be_reverted(recorded):
    original, log = recorded
    with pytest.raises(MissingRecord, match="no step 1000"):
        log.revert(original, [3, 1000])


class Normalised(nn.Sequential):
    """A model with running statistics."""

    def __init__(self):
        torch.manual_seed(0)
        super().__init__(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))


def train_logged(model, recipe, poison=None, owners=None):
    """Train on 40 random examples; the ids in `poison` are a thousand times larger."""
    torch.manual_seed(1)
    inputs, labels = torch.randn(40, 4), torch.randint(3, (40,))
    if poison is not None:
        inputs[poison] *= 1000
    data = Batch({"inputs": inputs, "labels": labels, "ids": torch.arange(40)})
    mean = nn.functional.cross_entropy
    task = SimpleNamespace(loss=lambda m, b: mean(m(b["inputs"]), b["labels"], reduction="none"))
    log = UpdateLog(model, owners)
    fit(model.train(), task, Split("data", data), recipe, 0, log=log)
    return log


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_reverting_the_last_step_is_exact(optimizer):
    recipe, model = Recipe(3, 1e-2, 8, optimizer), Normalised()
    log = train_logged(model, recipe)
    last = len(log) - 1
    before = log.initial + torch.stack(log.changes[:last]).sum(0)
    reverted = log.revert(model, [last])
    found = torch.cat([reverted[n].flatten() for n, _ in model.named_parameters()])
    assert torch.allclose(found, before, atol=1e-6)
    assert not torch.equal(found, before + log.changes[last])


def test_running_statistics_forget_a_poisoned_batch_too():
    recipe, model = Recipe(1, 1e-3, 8, "sgd"), Normalised()
    clean = train_logged(Normalised(), recipe)
    last = len(clean) - 1
    log = train_logged(model, recipe, poison=clean.ids[last])
    reverted = log.revert(model, log.steps_with(clean.ids[last]))
    kept = log.revert(model, log.steps_with(clean.ids[last]), buffers=False)
    for name, value in clean.buffers[last].items():
        assert torch.equal(reverted[name], value), name
    assert not torch.allclose(kept["1.running_var"], reverted["1.running_var"], rtol=10)
    model.load_state_dict(reverted)  # a complete state


#: Of the 40 examples: two owners who may ask; 15 steps of 8 examples hold some of them.
OWNERS = (torch.arange(3), torch.tensor([10, 39]))


def test_a_log_by_owner_takes_back_what_a_log_of_every_step_does():
    recipe, model = Recipe(3, 1e-2, 8), Normalised()
    whole = train_logged(Normalised(), recipe)
    summed = train_logged(model, recipe, owners=OWNERS)
    assert len(summed) == len(whole) == 15 and len(summed.changes) == 4
    for asked in (OWNERS[0], OWNERS[1], torch.cat(OWNERS)):
        steps = summed.steps_with(asked)
        assert steps == whole.steps_with(asked) and 0 < len(steps) < 15
        found, wanted = summed.revert(model, steps), whole.revert(model, steps)
        assert distance(found, wanted) < 1e-6
        assert distance(dict(model.named_parameters()), found) > 1e-3
        assert torch.equal(found["1.running_mean"], wanted["1.running_mean"])
    assert summed.nbytes < whole.nbytes


def test_a_log_by_owner_cannot_take_back_less_than_an_owner():
    model = Normalised()
    log = train_logged(model, Recipe(3, 1e-2, 8), owners=OWNERS)
    with pytest.raises(MissingRecord, match="same owners"):
        log.revert(model, log.steps_with(OWNERS[0][:1]))


@pytest.mark.parametrize("owners", [None, OWNERS])
def test_a_log_is_the_same_after_it_was_kept(owners):
    recipe, model = Recipe(2, 1e-2, 7), Normalised()  # the last batch is a smaller one
    log = train_logged(model, recipe, owners=owners)
    again = UpdateLog(Normalised(), owners).restore(log.tensors())
    assert len(again) == len(log) and again.nbytes == log.nbytes
    assert again.epochs == log.epochs and all(map(torch.equal, again.ids, log.ids))
    steps = again.steps_with(OWNERS[1])
    assert same_weights(again.revert(model, steps), log.revert(model, steps))
    assert all(map(same_weights, again.buffers, log.buffers))


def test_logging_does_not_change_training():
    plain, logged = Normalised(), Normalised()
    torch.manual_seed(1)
    inputs, labels = torch.randn(40, 4), torch.randint(3, (40,))
    data = Batch({"inputs": inputs, "labels": labels, "ids": torch.arange(40)})
    mean = nn.functional.cross_entropy
    task = SimpleNamespace(loss=lambda m, b: mean(m(b["inputs"]), b["labels"], reduction="none"))
    recipe = Recipe(3, 1e-2, 8)
    fit(plain.train(), task, Split("data", data), recipe, 0)
    train_logged(logged, recipe)
    assert same_weights(plain.state_dict(), logged.state_dict())


# ------------------------------------------------------------------ SISA


def test_every_example_has_one_place_that_others_cannot_move(synthetic):
    plan = sisa_plan(synthetic, 0)
    ids = synthetic.train_ids
    places = [plan.upto(s, plan.slices - 1, ids) for s in range(plan.shards)]
    assert torch.cat(places).sort().values.tolist() == ids.tolist()
    left = ids[ids != 11]
    for shard in range(plan.shards):
        before = ids[plan.upto(shard, 1, ids)]
        after = left[plan.upto(shard, 1, left)]
        assert after.tolist() == [i for i in before.tolist() if i != 11]
    assert not torch.equal(plan.cells, sisa_plan(synthetic, 1).cells)


def test_slices_cost_as_many_epochs_as_unsliced_training(synthetic):
    for slices in (1, 3, 7):
        plan = sisa_plan(synthetic, 0, 4, slices)
        assert plan.epochs * (slices + 1) / 2 == synthetic.sizes.recipe.epochs


def test_the_first_touched_slice_is_named_for_each_shard(synthetic):
    plan = sisa_plan(synthetic, 0, 3, 4)
    ids = torch.cat([(plan.cells == cell).nonzero()[:2, 0] for cell in (1, 3, 4 + 2)])
    assert plan.first_touched(ids) == {0: 1, 1: 2}
    assert plan.first_touched(ids[:0]) == {}


def test_one_shard_of_one_slice_is_ordinary_training(synthetic):
    model = synthetic.make_model(("sisa", 0, 0)).train()
    data = Split("all", synthetic.batch(synthetic.train_ids))
    fit(model, synthetic.task(0), data, synthetic.sizes.recipe, ("sisa", 0, 0))
    whole = sisa_shards(synthetic, 0, 1, 1)
    assert same_weights(whole.after(0, 1), model.state_dict())
    start = synthetic.make_model(("sisa", 0, 0))
    assert same_weights(whole.after(0, 0), start.state_dict())


def test_a_checkpoint_does_not_depend_on_later_slices(synthetic):
    every = sisa_shards(synthetic, 0, 2, 3)
    plan, task = every.plan, synthetic.task(0)
    early = synthetic.train_ids[plan.cells % plan.slices == 0]
    data = Split("early", synthetic.batch(early))
    first = every.again(data, task, lambda shard, slices: slices == 0)
    for shard in range(2):
        assert same_weights(every.after(shard, 1), first.after(shard, 1))
        assert not same_weights(every.after(shard, 2), first.after(shard, 2))


def test_only_what_a_request_goes_back_to_is_trained(synthetic, monkeypatch):
    load, kept = remembering(synthetic)
    plan = sisa_plan(load, 0)
    late = (plan.cells == 2).nonzero()[0]  # shard 0, slice 2
    first = torch.tensor([int((plan.cells == s * 4).nonzero()[0]) for s in range(4)])
    sisa_shards(load, 0).ready_for(first)
    assert not kept  # initial weights are all it takes
    ready = sisa_shards(load, 0).ready_for(late)
    whole = {f"sisa 0 4x4 {s}/{r}" for s in (1, 2, 3) for r in (1, 2, 3, 4)}
    assert set(kept) == whole | {"sisa 0 4x4 0/1", "sisa 0 4x4 0/2"}
    monkeypatch.setattr("erasus_nb.provenance.fit", None)
    assert ready.after(0, 2) and ready.model(3)


def remembering(workload):
    """The workload with a memory of its own, and that memory."""
    kept: dict = {}

    def remember(name, make):
        if name not in kept:
            kept[name] = make()
        return kept[name]

    return replace(workload, remember=remember), kept


def test_remembered_shards_are_not_trained_again(synthetic, monkeypatch):
    load, kept = remembering(synthetic)
    first = SisaEnsemble(sisa_shards(load, 0).models()).state_dict()
    monkeypatch.setattr("erasus_nb.provenance.fit", None)
    again = sisa_shards(load, 0)
    assert same_weights(first, SisaEnsemble(again.models()).state_dict())
    weights = sum(p.numel() for p in synthetic.make_model(0).parameters())
    assert again.nbytes == 4 * weights * 4 * 5


class Says(nn.Module):
    """A constituent that always gives the same probabilities."""

    def __init__(self, *probabilities):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(probabilities).log() + 3)

    def forward(self, inputs):
        return self.logits.expand(len(inputs), -1)


def says(aggregation, *models):
    return SisaEnsemble(models, aggregation)(torch.zeros(2, 1)).exp()


def test_an_ensemble_answers_with_the_mean_probability_or_the_majority():
    models = Says(0.4, 0.3, 0.3), Says(0.4, 0.3, 0.3), Says(0.01, 0.01, 0.98)
    mean = torch.tensor([0.27, 0.61 / 3, 1.58 / 3]).expand(2, -1)
    assert torch.allclose(says("mean", *models), mean, atol=1e-6)
    vote = says("vote", *models)
    assert vote.argmax(-1).tolist() == [0, 0]
    assert torch.allclose(vote.sum(-1), torch.ones(2))
    tie = says("vote", Says(0.6, 0.3, 0.1), Says(0.05, 0.9, 0.05))
    assert tie.argmax(-1).tolist() == [1, 1]
    with pytest.raises(ValueError, match="median"):
        says("median", *models)


# ------------------------------------------------------------------ the convex head


@pytest.fixture(scope="module")
def head(synthetic):
    return convex_head(synthetic, 0)


@pytest.fixture(scope="module")
def examples(synthetic, head):
    return head.examples(synthetic.batch(synthetic.train_ids))


def objective(head, weights, rows, targets):
    """The objective in its own words: what the class docstring says."""
    scores = rows @ weights.T
    loss = nn.functional.binary_cross_entropy_with_logits(scores, targets, reduction="sum")
    return loss + head.lam * len(rows) / 2 * weights.pow(2).sum()


def test_gradient_and_hessian_are_those_of_the_objective(head, examples):
    weights = torch.randn(head.weights.shape, generator=torch.Generator().manual_seed(0)).double()
    weights.requires_grad_(True)
    found = torch.autograd.grad(objective(head, weights, *examples), weights)[0]
    assert torch.allclose(found, head.gradient(weights.detach(), *examples))
    one = weights.detach()[2:3]
    second = torch.autograd.functional.hessian(
        lambda w: objective(head, w, examples[0], examples[1][:, 2:3]), one
    )
    ours = head.hessian(one, examples[0])[0]
    assert torch.allclose(second[0, :, 0], ours)


def test_the_head_is_at_the_optimum_of_the_perturbed_objective(head, examples):
    assert head.spent < 1e-10
    assert head.spent == head.residual(head.weights, *examples)
    # The noise moved it: without it, this is not an optimum.
    assert head.gradient(head.weights, *examples).norm() > 1
    value = lambda w: objective(head, w, *examples) + (head.noise * w).sum()
    for k in range(3):
        step = torch.zeros_like(head.weights)
        step[k, k] = 1e-3
        assert value(head.weights) < min(value(head.weights + step), value(head.weights - step))


def test_features_are_no_longer_than_the_certificate_asks(synthetic, head, examples):
    length = examples[0].norm(dim=1)
    assert length.max() <= 1 + 1e-12
    assert length.min() > 0.99
    assert examples[1].sum(1).tolist() == [1.0] * len(synthetic.labels)


def test_features_have_never_seen_what_can_be_asked_for(synthetic, head):
    private = torch.ones(len(synthetic.labels), dtype=torch.bool)
    private[synthetic.core_ids] = False
    for fold in range(1, 5):
        asked = synthetic.request("standard", (fold,)).forget["ids"]
        assert private[asked].all()
    inputs, labels = synthetic.inputs.clone(), synthetic.labels.clone()
    inputs[private] = 100.0
    labels[private] = 0
    other = convex_head(replace(synthetic, inputs=inputs, labels=labels), 0)
    assert same_weights(other.features.state_dict(), head.features.state_dict())
    assert not torch.allclose(other.weights, head.weights)


def test_the_noise_is_drawn_from_the_seed_and_scales_with_sigma(synthetic, head):
    twice = convex_head(synthetic, 0, sigma=2 * head.sigma)
    assert torch.allclose(twice.noise, 2 * head.noise)
    assert head.noise.std().item() == pytest.approx(head.sigma, rel=0.1)
    other = convex_head(synthetic, 1)
    assert not torch.allclose(other.noise, head.noise)


def test_the_predictor_answers_with_the_normalised_heads(synthetic, head, examples):
    model = head.predictor()
    said = model(synthetic.inputs).softmax(-1).double()
    heads = torch.sigmoid(examples[0] @ head.weights.T)
    assert torch.allclose(said, heads / heads.sum(1, keepdim=True), atol=1e-6)
    moved = head.predictor(torch.zeros_like(head.weights))(synthetic.inputs)
    assert torch.allclose(moved.softmax(-1), torch.full_like(moved, 0.1))


def test_a_remembered_head_is_not_solved_again(synthetic, monkeypatch):
    load, _ = remembering(synthetic)
    first = convex_head(load, 0)
    monkeypatch.setattr("erasus_nb.provenance.root", None)
    again = convex_head(load, 0)
    assert torch.equal(first.weights, again.weights)
    assert first.spent == again.spent
