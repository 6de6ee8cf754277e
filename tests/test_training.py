"""Seeds, orders, the two training loops, per-example gradients and masks."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import nn

from erasus_nb import training, workloads
from erasus_nb.profiles import Recipe
from erasus_nb.strategy import Batch, DataAccessError, Split
from erasus_nb.task import Counting, Meter
from erasus_nb.training import (
    clone,
    count_of,
    epoch_order,
    fit,
    fit_stack,
    frozen,
    generator,
    global_seed,
    gradient,
    same_weights,
    set_weights,
    squared_gradients,
    teacher_outputs,
    top_fraction,
    training_batches,
    weights,
)
from erasus_nb.update_log import UpdateLog


@cache
def load(name: str = "synthetic"):
    torch.set_num_threads(1)
    return workloads.load(name, "smoke")


def trained(name: str = "synthetic"):
    """A model of the workload after a few epochs, its task and all training data."""
    work = load(name)
    recipe = replace(work.sizes.recipe, epochs=2)
    state = _states(name, (("a", 0),), recipe)[0]
    return work.load(state), work.task(0), work.batch(work.train_ids)


@cache
def _states(name, seeds, recipe):
    work = load(name)
    return work.train([work.train_ids] * len(seeds), list(seeds), recipe)


# ------------------------------------------------------------------ teachers


def test_a_teacher_is_asked_once_or_where_that_is_too_much_each_time(monkeypatch):
    model, task, batch = trained()
    examples, wanted = Split("retain", batch), torch.tensor([70, 0, 3])
    with torch.no_grad():
        said = task.outputs(model, batch.take(wanted))
    kept = teacher_outputs(model, task, examples)
    assert examples.examples_read == len(batch)
    monkeypatch.setattr(training, "KEPT_NUMBERS", said[0].numel() * len(batch) - 1)
    anew = teacher_outputs(model, task, examples)
    before = examples.examples_read
    for answers in (kept, anew):
        assert torch.allclose(answers(wanted), said, atol=1e-5)
        assert not answers(wanted).requires_grad
    assert examples.examples_read == before + 2 * len(wanted)
    with torch.no_grad():
        for value in model.parameters():
            value.zero_()
    assert torch.allclose(kept(wanted), said, atol=1e-5)
    assert (anew(wanted) == 0).all()


# ------------------------------------------------------------------ seeds


def test_a_generator_depends_on_its_keys_alone():
    draw = lambda *keys: torch.rand(4, generator=generator(*keys)).tolist()
    torch.manual_seed(1)
    first = draw("scrub", 3)
    torch.manual_seed(2)
    torch.rand(10)
    assert draw("scrub", 3) == first
    others = [draw("scrub", 4), draw("scrub", "3"), draw("scrubs", 3), draw("scrub", 3, 0)]
    assert len({tuple(x) for x in [first, *others]}) == 5


def test_a_generator_leaves_the_global_one_alone():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    torch.rand(5, generator=generator("x"))
    assert torch.equal(torch.get_rng_state(), before)


def test_nearby_seeds_draw_unrelated_numbers():
    table = torch.stack([torch.randn(400, generator=generator("seed", k)) for k in range(20)])
    correlation = torch.corrcoef(table) - torch.eye(20)
    assert correlation.abs().max() < 0.25  # five standard errors of 400 draws


def test_global_seed_decides_the_block_and_is_gone_after_it():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    with global_seed("init", 7):
        first = nn.Linear(3, 3).weight
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    with global_seed("init", 7):
        again = nn.Linear(3, 3).weight
    with global_seed("init", 8):
        other = nn.Linear(3, 3).weight
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_global_seed_is_put_back_even_if_the_block_fails():
    before = torch.get_rng_state()
    with pytest.raises(RuntimeError), global_seed("x"):
        raise RuntimeError
    assert torch.equal(torch.get_rng_state(), before)


# ------------------------------------------------------------------ batch orders


def test_an_epoch_order_is_a_permutation_that_seed_and_epoch_decide():
    ids = torch.arange(50)
    orders = {
        key: tuple(epoch_order(ids, epoch, seed).tolist())
        for key, (epoch, seed) in {"a": (0, 0), "b": (1, 0), "c": (0, 1)}.items()
    }
    assert all(sorted(order) == list(range(50)) for order in orders.values())
    assert len(set(orders.values())) == 3
    assert orders["a"] == tuple(epoch_order(ids, 0, 0).tolist())


def test_dropping_examples_leaves_the_order_of_all_others():
    ids = torch.arange(60)
    kept = ids[(ids % 4 != 1) & (ids < 55)]  # also the largest ids, which size the draw
    whole = ids[epoch_order(ids, 3, "seed")]
    part = kept[epoch_order(kept, 3, "seed")]
    assert torch.equal(part, whole[torch.isin(whole, kept)])


def test_the_order_does_not_depend_on_how_the_ids_are_listed():
    ids = torch.arange(40)
    shuffled = ids[torch.randperm(40, generator=generator("shuffle"))]
    assert torch.equal(ids[epoch_order(ids, 0, 0)], shuffled[epoch_order(shuffled, 0, 0)])


def test_training_batches_keep_the_last_batch_and_number_the_epochs():
    recipe = Recipe(epochs=2, lr=0.1, batch_size=4)
    steps = list(training_batches(torch.arange(10), recipe, 0, first_epoch=5))
    assert [epoch for epoch, _ in steps] == [5, 5, 5, 6, 6, 6]
    assert [len(positions) for _, positions in steps] == [4, 4, 2, 4, 4, 2]
    for epoch in (5, 6):
        seen = torch.cat([positions for e, positions in steps if e == epoch])
        assert sorted(seen.tolist()) == list(range(10))


# ------------------------------------------------------------------ copies and optimisers


@pytest.mark.parametrize("copy_of", [clone, frozen])
def test_a_copy_shares_no_storage(copy_of):
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    places = lambda m: {t.untyped_storage().data_ptr() for t in m.state_dict().values()}
    copied = copy_of(model)
    assert same_weights(copied.state_dict(), model.state_dict())
    assert not places(copied) & places(model)


def test_a_clone_is_trainable_without_gradients_and_in_the_models_mode():
    model = nn.Linear(2, 2).eval().requires_grad_(False)
    model.weight.grad = torch.ones(2, 2)
    copied = clone(model)
    assert all(p.requires_grad and p.grad is None for p in copied.parameters())
    assert not copied.training and clone(model.train()).training
    assert not any(p.requires_grad for p in model.parameters())
    assert model.weight.grad is not None


def test_a_frozen_copy_is_in_eval_mode_and_takes_no_gradient():
    model = nn.Linear(2, 2).train()
    teacher = frozen(model)
    assert not teacher.training and not any(p.requires_grad for p in teacher.parameters())
    assert model.training and all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_an_optimiser_takes_its_settings(name):
    weight = nn.Parameter(torch.ones(3))
    step = training.optimizer(name, iter([weight]), 0.1, weight_decay=0.5)
    assert step.param_groups[0]["lr"] == 0.1
    assert step.param_groups[0]["weight_decay"] == 0.5
    weight.grad = torch.zeros(3)
    step.step()
    assert (weight < 1).all()  # weight decay alone moves it


def test_momentum_reaches_sgd():
    step = training.optimizer("sgd", [nn.Parameter(torch.ones(1))], 0.1, momentum=0.9)
    assert step.param_groups[0]["momentum"] == 0.9


def test_an_unknown_optimiser_is_refused():
    with pytest.raises(ValueError, match="sgd, adam or adamw, got 'lion'"):
        training.optimizer("lion", [], 0.1)


# ------------------------------------------------------------------ training


def test_a_seed_trained_alone_is_the_same_inside_a_stack():
    recipe = replace(load().sizes.recipe, epochs=3)
    alone = _states("synthetic", (3,), recipe)[0]
    stacked = _states("synthetic", (5, 3, 9), recipe)
    assert same_weights(alone, stacked[1])
    assert not same_weights(alone, stacked[0])


@pytest.mark.parametrize("name, epochs, tolerance", [("synthetic", 8, 1e-5), ("digits", 1, 1e-3)])
def test_both_loops_train_the_same_model(name, epochs, tolerance):
    work, recipe = load(name), replace(load(name).sizes.recipe, epochs=epochs)
    stacked = _states(name, (3,), recipe)[0]
    model = work.make_model(3).train()
    start = weights(model)
    fit(model, work.task(3), Split("retain", work.batch(work.train_ids)), recipe, 3)
    apart = max(float((stacked[n] - w).abs().max()) for n, w in weights(model).items())
    moved = max(float((start[n] - w).abs().max()) for n, w in weights(model).items())
    assert apart < tolerance < moved / 10


def test_members_of_a_stack_may_train_on_different_examples():
    work, recipe = load(), replace(load().sizes.recipe, epochs=2)
    n = len(work.train_ids)
    first, second = work.train_ids[: n // 2], work.train_ids[n // 2 : 2 * (n // 2)]
    both = work.train([first, second], [0, 0], recipe)
    for ids, state in zip((first, second), both):
        assert same_weights(work.train([ids], [0], recipe)[0], state)
    assert not same_weights(*both)


def test_stacks_of_one_size_give_every_member_its_own_model_and_log(monkeypatch):
    work, recipe = load(), replace(load().sizes.recipe, epochs=2)
    seeds = [4, 7, 1, 5, 2]

    def trained(ids, logs):
        return work.train([ids] * len(logs), seeds[: len(logs)], recipe, logs)

    new = lambda: UpdateLog(work.start_model(seeds[1]))
    free = [None, new(), None, None, None]
    whole = trained(work.train_ids, free)
    sizes = []

    def stacked(models, kept=training.stack_module_state):
        sizes.append(len(models))
        return kept(models)

    monkeypatch.setattr(training, "stack_module_state", stacked)
    monkeypatch.setattr(training, "stack_sizes", lambda device: (3, 3))
    fixed = [None, new(), None, None, None]
    parts = trained(work.train_ids, fixed)
    assert sizes == [3, 3]  # the second holds two, and one of them again
    assert all(map(same_weights, whole, parts)) and len(parts) == 5
    assert torch.equal(torch.stack(free[1].changes), torch.stack(fixed[1].changes))
    end = torch.cat([v.flatten() for v in parts[1].values()])
    flat = fixed[1].initial + torch.stack(fixed[1].changes).sum(0)
    assert torch.allclose(flat, end, atol=1e-5)


def test_all_stacks_of_an_accelerator_have_one_size():
    assert training.stack_sizes(torch.device("cpu")) == (2, None)
    least, most = training.stack_sizes(torch.device("cuda"))
    assert least == most


def test_a_stack_of_unequal_members_is_refused():
    work = load()
    with pytest.raises(ValueError, match="equally many"):
        work.train([work.train_ids, work.train_ids[:-1]], [0, 1])


def test_a_stack_does_not_touch_the_models_it_starts_from():
    work = load()
    made = {}

    def make(seed):
        made[seed] = work.make_model(seed)
        return made[seed]

    recipe = replace(work.sizes.recipe, epochs=1)
    loss = lambda logits, y: nn.functional.cross_entropy(logits, y, reduction="none")
    fit_stack(make, loss, work.inputs, work.labels, [work.train_ids], [0], recipe)
    assert same_weights(made[0].state_dict(), work.make_model(0).state_dict())


def test_fit_returns_the_mean_loss_of_each_epoch():
    work = load()
    model, split = work.make_model(0), Split("retain", work.batch(work.train_ids))
    still = replace(work.sizes.recipe, epochs=2, lr=0.0)
    losses = fit(model, work.task(), split, still, 0)
    expected = work.task().loss(model, work.batch(work.train_ids)).mean().item()
    assert losses == pytest.approx([expected, expected], rel=1e-5)
    assert split.examples_read == 2 * len(split)


def test_fit_trains_only_what_it_is_told_to():
    work = load()
    model, split = work.make_model(0), Split("retain", work.batch(work.train_ids))
    before = weights(model)
    recipe = replace(work.sizes.recipe, epochs=1)
    fit(model, work.task(), split, recipe, 0, parameters=model.head.parameters())
    changed = {n for n, w in weights(model).items() if not torch.equal(w, before[n])}
    assert changed == {"head.weight", "head.bias"}


def test_the_first_epochs_number_enters_the_order():
    work = load()
    recipe = replace(work.sizes.recipe, epochs=1)
    ends = []
    for first in (0, 0, 1):
        model = work.make_model(0)
        split = Split("retain", work.batch(work.train_ids))
        fit(model, work.task(), split, recipe, 0, first_epoch=first)
        ends.append(weights(model))
    assert same_weights(ends[0], ends[1]) and not same_weights(ends[0], ends[2])


# ------------------------------------------------------------------ gradients


def test_gradient_is_that_of_the_mean_loss_and_changes_nothing():
    model, task, batch = trained()
    found = gradient(model, task, batch)
    assert all(p.grad is None for p in model.parameters())
    task.loss(model, batch).mean().backward()
    assert all(torch.allclose(found[n], p.grad) for n, p in model.named_parameters())


def test_an_unused_parameter_has_gradient_zero():
    model, task, batch = trained()
    model.register_parameter("logit_scale", nn.Parameter(torch.ones(2)))
    assert torch.equal(gradient(model, task, batch)["logit_scale"], torch.zeros(2))


@pytest.mark.parametrize("name", ["synthetic", "digits"])
def test_squared_gradients_equal_a_slow_loop(name):
    model, task, batch = trained(name)
    batch = batch.take(torch.arange(0, len(batch), 9))
    slow = {n: torch.zeros_like(p, dtype=torch.float64) for n, p in model.named_parameters()}
    for i in range(len(batch)):
        for n, g in gradient(model, task, batch.take(torch.tensor([i]))).items():
            slow[n] += g.double() ** 2 / len(batch)
    fast = squared_gradients(model, task, batch, chunk=10)
    for n, expected in slow.items():
        assert fast[n].dtype == torch.float64
        noise = 1e-8 * expected.max()
        assert torch.allclose(fast[n], expected, rtol=1e-4, atol=noise), n
    # The planted fault: squaring the mean gradient is another quantity altogether.
    mean = gradient(model, task, batch)
    assert not any(torch.allclose(fast[n], mean[n].double() ** 2, rtol=0.1) for n in slow)


def test_squared_gradients_do_not_depend_on_order_or_chunks():
    model, task, batch = trained()
    order = torch.randperm(len(batch), generator=generator("order"))
    first = squared_gradients(model, task, batch, chunk=64)
    for other in (
        squared_gradients(model, task, batch, chunk=7),
        squared_gradients(model, task, batch.take(order), chunk=64),
    ):
        for n, value in first.items():
            noise = 1e-9 * value.max()
            assert torch.allclose(value, other[n], rtol=1e-4, atol=noise), n


def test_squared_gradients_of_two_sets_add_up():
    model, task, batch = trained()
    a, b = batch.take(torch.arange(30)), batch.take(torch.arange(30, 100))
    parts = squared_gradients(model, task, a), squared_gradients(model, task, b)
    whole = squared_gradients(model, task, Batch.cat([a, b]))
    for n in whole:
        joined = (30 * parts[0][n] + 70 * parts[1][n]) / 100
        assert torch.allclose(whole[n], joined, rtol=1e-4, atol=1e-9 * whole[n].max())


def test_squared_gradients_ignore_dropout_and_restore_the_mode():
    class Dropped(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            return self.inner(nn.functional.dropout(x, 0.5, self.training))

    model, task, batch = trained()
    plain = squared_gradients(model, task, batch)
    wrapped = Dropped(copy.deepcopy(model)).train()
    found = squared_gradients(wrapped, task, batch)
    assert wrapped.training
    assert all(torch.allclose(found[f"inner.{n}"], v) for n, v in plain.items())


def test_squared_gradients_count_a_forward_and_a_backward_pass_per_example():
    model, task, batch = trained()
    counted = []
    task._meter = Counting(
        lambda n, backward=None: counted.append(n * (2 if backward is not False else 1))
    )
    squared_gradients(model, task, batch, chunk=50)
    assert sum(counted) == 2 * len(batch)


def test_a_meter_is_only_ever_added_to():
    meter = Meter()
    meter.counting.count(3, backward=True)
    meter.counting.count(2, backward=False)
    assert meter.passes == 8
    with pytest.raises(ValueError, match="only ever added"):
        meter.counting.count(-8)
    with pytest.raises(AttributeError):
        meter.passes = 0
    with pytest.raises(AttributeError):
        meter.counting.count = print
    assert meter.passes == 8 and not hasattr(meter.counting, "passes")


def test_squared_gradients_of_hidden_labels_are_refused_and_the_mode_restored():
    model, task, batch = trained()
    model.train()
    with pytest.raises(DataAccessError, match="the forget labels"):
        squared_gradients(model, task, batch.hide({"labels": "the forget labels"}))
    assert model.training


# ------------------------------------------------------------------ weights and masks


def test_weights_are_detached_copies():
    model = nn.Linear(2, 2)
    taken = weights(model)
    with torch.no_grad():
        model.weight.zero_()
    assert not taken["weight"].requires_grad and taken["weight"].any()


def test_set_weights_writes_only_the_names_given_and_returns_the_model():
    model = nn.Linear(2, 2)
    bias = model.bias.detach().clone()
    assert set_weights(model, {"weight": torch.zeros(2, 2)}) is model
    assert not model.weight.any() and torch.equal(model.bias, bias)
    assert model.weight.requires_grad


def test_same_weights_sees_one_bit_and_one_name():
    a = {"w": torch.tensor([1.0, 2.0])}
    assert same_weights(a, {"w": torch.tensor([1.0, 2.0])})
    assert not same_weights(a, {"w": torch.tensor([1.0, 2.0]).nextafter(torch.tensor(9.0))})
    assert not same_weights(a, {"v": torch.tensor([1.0, 2.0])})
    assert not same_weights(a, {**a, "v": torch.zeros(1)})


@pytest.mark.parametrize("fraction, count", [(0.0, 0), (0.25, 5), (0.33, 6), (0.99, 19), (1.0, 20)])
@pytest.mark.parametrize("values", ["distinct", "all equal", "mostly zero"])
def test_the_top_fraction_is_exact_even_with_ties(fraction, count, values):
    flat = {
        "distinct": torch.arange(20.0),
        "all equal": torch.ones(20),
        "mostly zero": torch.cat([torch.zeros(17), torch.ones(3)]),
    }[values]
    scores = {"a": flat[:12].view(3, 4), "b": flat[12:]}
    masks = top_fraction(scores, fraction)
    assert [masks[n].shape for n in scores] == [scores[n].shape for n in scores]
    assert sum(int(m.sum()) for m in masks.values()) == count
    chosen = torch.cat([masks["a"].flatten(), masks["b"]])
    if 0 < count < 20:
        assert flat[chosen].min() >= flat[~chosen].max()


@pytest.mark.parametrize(
    "fraction, total, count",
    [
        (0.29, 100, 29),  # 28.999999999999996 in floating point
        (1 - 0.9, 10, 1),  # 0.9999999999999998
        (0.07, 100, 7),  # 7.000000000000001
        (0.2999999, 100, 29),
        (0.99, 20, 19),
        (3 / 7, 7, 3),
        (0.5, 10**9 + 1, 500_000_000),
        (0.3, 0, 0),
    ],
)
def test_a_share_is_cut_down_but_not_for_rounding_noise(fraction, total, count):
    assert count_of(fraction, total) == count


def test_the_top_fraction_ranks_over_all_tensors_together():
    masks = top_fraction({"a": torch.tensor([1.0, 9.0]), "b": torch.tensor([5.0, 8.0])}, 0.5)
    assert masks["a"].tolist() == [False, True] and masks["b"].tolist() == [False, True]


@pytest.mark.parametrize("fraction", [-0.1, 1.1])
def test_a_fraction_outside_zero_to_one_is_refused(fraction):
    with pytest.raises(ValueError, match="between 0 and 1"):
        top_fraction({"a": torch.ones(2)}, fraction)
