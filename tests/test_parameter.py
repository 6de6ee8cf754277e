"""The parameter strategies: the contract, and what each paper's algorithm must fulfil."""

import math
from dataclasses import replace

import pytest
import torch
from contract import battery, setting
from torch import nn

from erasus_nb import cells
from erasus_nb.profiles import Recipe
from erasus_nb.strategy import Batch, Split
from erasus_nb.task import Task
from erasus_nb.training import clone, fit, generator, optimizer, same_weights

page = cells.load("parameter")

#: Strong enough to change a trained network; the papers' step sizes are for larger ones.
LORA = {"lr": 3e-3, "epochs": 2}
MASKS = {"steps": 60, "lr": 0.2}


@pytest.fixture(scope="module")
def here():
    return setting()


@pytest.fixture(scope="module")
def start(here):
    return here.original.state_dict()


def weights_of(here, function, **settings):
    return here.run(function, **settings).model.state_dict()


def mean_loss(here, model, batch):
    with torch.no_grad():
        return here.task().loss(model, batch).mean().item()


# ------------------------------------------------------------------ the contract


def test_lora_keeps_the_contract():
    battery(page.lora, [{"epochs": 0}, {"mode": "negation", "scale": 0.0}], settings=LORA)


def test_lora_that_negates_reads_the_forget_set_alone(here):
    forget, retain = here.forget(), here.retain()
    page.lora(here.model(), forget, retain, here.task(), **LORA, mode="negation")
    assert forget.examples_read and not retain.examples_read


def test_sparse_aware_keeps_the_contract():
    battery(page.sparse_aware, {"epochs": 0})


def test_sparse_aware_that_prunes_keeps_the_contract():
    battery(page.sparse_aware, settings={"mode": "prune_first", "epochs": 2})


@pytest.mark.parametrize("granularity", ["weight", "unit"])
def test_mask_based_keeps_the_contract(granularity):
    settings = {**MASKS, "granularity": granularity}
    battery(page.mask_based, {"steps": 0}, settings=settings)


def test_neuron_pruning_keeps_the_contract():
    battery(page.neuron_pruning, {"frac_per_step": 0.0}, random=False)


def test_layer_freezing_keeps_the_contract():
    battery(page.layer_freezing, {"epochs": 0}, random=False, settings={"epochs": 3})


def test_layer_freezing_that_resets_keeps_the_contract():
    battery(page.layer_freezing, random=False, settings={"mode": "eu", "epochs": 3})


@pytest.mark.parametrize(
    "function, wrong",
    [
        ("lora", {"mode": "subtract"}),
        ("sparse_aware", {"mode": "l2"}),
        ("mask_based", {"granularity": "layer"}),
        ("mask_based", {"init_keep": 0.4}),
        ("neuron_pruning", {"importance": "sign"}),
        ("layer_freezing", {"mode": "cfk"}),
        ("layer_freezing", {"reset_to": "zero", "mode": "eu"}),
        ("layer_freezing", {"k": 0}),
        ("layer_freezing", {"k": 4}),
    ],
)
def test_a_setting_that_means_nothing_is_refused(here, function, wrong):
    with pytest.raises(ValueError, match=str(next(iter(wrong)))):
        here.run(getattr(page, function), **wrong)


@pytest.mark.parametrize("name", list(cells.strategies("parameter")))
def test_every_strategy_runs_on_the_convolutional_network(name):
    where = setting("digits")
    cheap = {
        "lora": LORA,
        "sparse_aware": {"epochs": 1},
        "mask_based": {"steps": 5, "lr": 2.0},
        "neuron_pruning": {},
        "layer_freezing": {"mode": "eu", "k": 2, "epochs": 1},
    }[name]
    new = weights_of(where, getattr(page, name), **cheap)
    assert not same_weights(new, where.original.state_dict())
    assert all(value.isfinite().all() for value in new.values())


# ------------------------------------------------------------------ lora


def change(new, old, layer):
    """The change of a layer's weight as a matrix with a row per output, float64."""
    name = f"{layer}.weight"
    return (new[name].double() - old[name].double()).flatten(1)


@pytest.mark.parametrize("workload", ["synthetic", "digits"])
@pytest.mark.parametrize("r", [1, 3])
def test_the_change_of_every_target_has_at_most_rank_r(workload, r):
    where = setting(workload)
    old, new = where.original.state_dict(), weights_of(where, page.lora, r=r, **LORA)
    for layer in where.task().linears(where.original):
        sizes = torch.linalg.svdvals(change(new, old, layer))
        # Beyond rank r there is only the rounding of W + BA to float32.
        assert sizes[:r].min() > 1e-4 and sizes[r:].max() < 1e-5


def test_whatever_has_no_adapter_is_untouched(here, start):
    new = weights_of(here, page.lora, targets=["hidden2"], **LORA)
    moved = {name for name in start if not torch.equal(new[name], start[name])}
    assert moved == {"hidden2.weight"}


def test_the_head_has_no_adapter_by_default(here, start):
    new = weights_of(here, page.lora, **LORA)
    assert torch.equal(new["head.weight"], start["head.weight"])


def test_fresh_adapters_change_no_answer(here):
    adapted = page.adapters(here.model(), ["hidden1", "hidden2"], 4, 8, 0)
    inputs = here.retain_batch["inputs"]
    assert torch.equal(adapted(inputs), here.original(inputs))


def test_taking_adapters_out_again_restores_the_weights_to_rounding(here, start):
    adapted = page.adapters(here.model(), ["hidden1", "hidden2"], 4, 8, 0)
    draw = generator("unmerge")
    with torch.no_grad():
        for name, factor in adapted.named_parameters():
            if "lora_B" in name:
                factor.copy_(torch.randn(factor.shape, generator=draw) / 10)
    adapted.merge_adapter()
    layer = adapted.get_base_model().hidden1.base_layer
    biggest = torch.maximum(layer.weight.abs(), start["hidden1.weight"].abs())
    assert not torch.equal(layer.weight, start["hidden1.weight"])
    adapted.unmerge_adapter()
    off = (layer.weight - start["hidden1.weight"]).abs()
    assert (off <= torch.finfo(torch.float32).eps * biggest).all()


def opposite(here, start):
    """Whether subtracting an adapter moves every weight opposite to fitting with it."""
    settings = {**LORA, "mode": "negation"}
    fitted = weights_of(here, page.lora, **settings, scale=-1.0)  # adds what was learnt
    negated = weights_of(here, page.lora, **settings, scale=1.0)
    assert mean_loss(here, load(here, fitted), here.forget_batch) < mean_loss(
        here, here.original, here.forget_batch
    )
    sums = [
        change(fitted, start, layer) + change(negated, start, layer)
        for layer in ("hidden1", "hidden2")
    ]
    return max(s.abs().max().item() for s in sums) < 1e-6


def load(here, state):
    model = here.model()
    model.load_state_dict(state)
    return model


def test_negation_is_the_exact_opposite_of_fitting_the_forget_set(here, start):
    assert opposite(here, start)


def test_negating_both_factors_is_caught(here, start, monkeypatch):
    right = page.negate

    def both(adapted, scale):
        right(adapted, scale)
        with torch.no_grad():
            for name, factor in adapted.named_parameters():
                if "lora_A" in name and scale > 0:
                    factor.neg_()

    monkeypatch.setattr(page, "negate", both)
    assert not opposite(here, start)


@pytest.mark.parametrize("mode", ["objective", "negation"])
def test_lora_raises_the_forget_loss_more_than_the_retain_loss(here, mode):
    new = here.run(page.lora, mode=mode, lr=3e-3, epochs=10, scale=3.0).model
    rise = {
        part: mean_loss(here, new, batch) - mean_loss(here, here.original, batch)
        for part, batch in (("forget", here.forget_batch), ("retain", here.retain_batch))
    }
    assert rise["forget"] > 1 and rise["forget"] > 5 * rise["retain"]


# ------------------------------------------------------------------ sparse_aware


def all_of(state):
    return torch.cat([value.flatten() for value in state.values()])


def test_without_a_penalty_it_is_fine_tuning_on_the_retain_set(here):
    student, draw = here.model(), generator("sparse_aware", 0)
    step = optimizer("sgd", student.parameters(), 0.01, momentum=0.9, weight_decay=5e-4)
    for _ in range(3):
        for batch in here.retain().batches(32, draw):
            loss = nn.functional.cross_entropy(student(batch["inputs"]), batch["labels"])
            step.zero_grad()
            loss.backward()
            step.step()
    new = weights_of(here, page.sparse_aware, gamma=0.0, epochs=3)
    assert same_weights(new, student.state_dict())


def test_weights_get_smaller_the_stronger_the_penalty(here):
    states = [weights_of(here, page.sparse_aware, gamma=g) for g in (0.0, 1e-3, 1e-2, 3e-2)]
    norms = [all_of(s).abs().sum() for s in states]
    small = [(all_of(s).abs() < 1e-3).double().mean() for s in states]
    assert norms == sorted(norms, reverse=True) and small == sorted(small)
    assert norms[-1] < norms[0] / 2 and small[-1] > 5 * small[0]


def test_the_penalty_falls_in_a_line_and_the_last_epochs_have_none():
    strengths = [page.gamma_in(epoch, 0.8, 10, 2) for epoch in range(10)]
    assert strengths == pytest.approx([0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0, 0])
    assert page.gamma_in(0, 0.8, 3, 3) == 0


@pytest.mark.parametrize("prox", [False, True])
def test_an_epoch_without_penalty_has_no_pull_at_all(here, prox):
    plain = weights_of(here, page.sparse_aware, gamma=0.0, epochs=2)
    settings = {"gamma": 1.0, "epochs": 2, "prox": prox}
    assert same_weights(weights_of(here, page.sparse_aware, no_l1_epochs=2, **settings), plain)
    pulled = weights_of(here, page.sparse_aware, no_l1_epochs=1, **settings)
    assert not same_weights(pulled, plain)


def test_only_the_proximal_step_makes_exact_zeros(here):
    settings = {"gamma": 5e-3, "lr": 0.05, "epochs": 4}
    slope = here.run(page.sparse_aware, **settings)
    steps = here.run(page.sparse_aware, prox=True, **settings)
    assert slope.info["zero"] == 0 and steps.info["zero"] > 0.02
    flat = all_of(steps.model.state_dict())
    assert steps.info["zero"] == float((flat == 0).double().mean())
    assert steps.info["near_zero"] == float((flat.abs() <= 1e-3).double().mean())


class Regression(Task):
    """Half the squared error of a linear model; every example is the whole problem."""

    def loss(self, model, batch):
        residual = model(batch["inputs"]).squeeze(-1) - batch["labels"]
        return residual.pow(2).sum(-1) / 2


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_proximal_steps_find_soft_thresholded_least_squares(momentum):
    d, gamma, draw = 12, 0.3, generator("lasso")
    design = torch.linalg.qr(torch.randn(30, d, generator=draw)).Q
    truth = torch.randn(d, generator=draw)
    target = design @ truth + 0.1 * torch.randn(30, generator=draw)
    examples = 400
    retain = Split(
        "retain",
        Batch(
            {
                "inputs": design.expand(examples, 30, d),
                "labels": target.expand(examples, 30),
                "ids": torch.arange(examples),
            }
        ),
    )
    model = nn.Linear(d, 1, bias=False)
    # One epoch of many steps: within an epoch the penalty is constant.
    settings = {"epochs": 1, "batch_size": 1, "lr": 0.05, "weight_decay": 0.0}
    new = page.sparse_aware(
        model, None, retain, Regression(), gamma=gamma, prox=True, momentum=momentum, **settings
    ).model
    squares = design.T @ target  # the columns of the design are orthonormal
    wanted = squares.sign() * (squares.abs() - gamma).clamp(min=0)
    assert (wanted == 0).any()
    assert torch.allclose(new.weight[0], wanted, atol=1e-4)
    assert torch.equal(new.weight[0] == 0, wanted == 0)


def test_pruned_weights_are_the_smallest_and_stay_exactly_zero(here, start):
    new = weights_of(here, page.sparse_aware, mode="prune_first", sparsity=0.9, epochs=3)
    layers = ["hidden1.weight", "hidden2.weight"]
    sizes = torch.cat([start[n].abs().flatten() for n in layers])
    zero = torch.cat([new[n].flatten() == 0 for n in layers])
    assert zero.sum() == len(sizes) - math.floor(0.1 * len(sizes))
    assert sizes[zero].max() <= sizes[~zero].min()
    assert (new["head.weight"] != 0).all()


def test_training_on_brings_back_what_pruning_broke(here):
    settings = {"mode": "prune_first", "lr": 0.05}
    pruned, trained = (
        here.run(page.sparse_aware, epochs=epochs, **settings).model for epochs in (0, 10)
    )
    broken = mean_loss(here, pruned, here.retain_batch)
    assert mean_loss(here, trained, here.retain_batch) < broken / 2


# ------------------------------------------------------------------ mask_based


@pytest.fixture(scope="module")
def by_weight(here):
    return here.run(page.mask_based, **MASKS)


def ignorance(here, model):
    """Mean divergence from knowing nothing on the forget set; what masks minimise."""
    with torch.no_grad():
        said = model(here.forget_batch["inputs"])
        return here.task().divergence(said, torch.zeros_like(said)).mean().item()


def test_switches_are_on_or_off_and_pass_a_gradient():
    logits = {"a": torch.linspace(-2, 2, 50, requires_grad=True)}
    for draw in (None, generator("switches")):
        mask = page.switches(logits, 0.66, draw)["a"]
        assert torch.isin(mask, torch.tensor([0.0, 1.0])).all()
        (slope,) = torch.autograd.grad(mask.sum(), logits["a"])
        assert (slope > 0).all()
    # Without noise, the sign decides.
    assert torch.equal(page.switches(logits, 0.66)["a"] == 1, logits["a"] > 0)


def test_noise_leaves_a_switch_on_as_often_as_its_logit_says():
    logits = {"a": torch.full((20_000,), 1.0)}
    on = page.switches(logits, 0.66, generator("often"))["a"].mean().item()
    assert on == pytest.approx(torch.sigmoid(torch.tensor(1.0)).item(), abs=0.01)


def test_every_weight_that_stays_is_the_original_and_the_rest_is_zero(start, by_weight):
    new = by_weight.model.state_dict()
    removed = 0
    for name, value in new.items():
        kept = value == start[name]
        assert (kept | (value == 0)).all()
        if name in ("hidden1.weight", "hidden2.weight"):
            removed += int((~kept).sum())
        else:
            assert kept.all(), f"{name} has no switches"
    size = start["hidden1.weight"].numel() + start["hidden2.weight"].numel()
    assert removed and by_weight.info["removed"] == pytest.approx(removed / size, abs=1e-6)


def test_a_removed_unit_is_silent_and_the_others_are_the_original(here, start):
    settings = {"granularity": "unit", "lam": (1, 3, 0.01), "steps": 60, "lr": 0.2}
    new = weights_of(here, page.mask_based, **settings)
    gone = (new["hidden2.weight"] == 0).all(1)
    assert 0 < gone.sum() < 64
    assert (new["hidden2.bias"][gone] == 0).all()
    for name in ("hidden2.weight", "hidden2.bias"):
        assert torch.equal(new[name][~gone], start[name][~gone])
    assert torch.equal(new["head.weight"], start["head.weight"])


def test_only_layers_in_scope_have_switches(here, start):
    new = weights_of(here, page.mask_based, scope=["hidden2"], **MASKS)
    moved = {name for name in start if not torch.equal(new[name], start[name])}
    assert moved == {"hidden2.weight"}


def test_nothing_is_removed_where_nothing_has_to_be_forgotten(here, start):
    assert same_weights(weights_of(here, page.mask_based, lam=(0, 1, 1)), start)


def test_the_last_reported_loss_is_that_of_the_model_returned(here, by_weight):
    with torch.no_grad():
        said = by_weight.model(here.retain_batch["inputs"])
        known = here.original(here.retain_batch["inputs"])
    change = here.task().divergence(said, known).mean().item()
    assert by_weight.losses["retain"][-1] == pytest.approx(change, rel=1e-5)
    assert by_weight.losses["forget"][-1] == pytest.approx(
        ignorance(here, by_weight.model), rel=1e-5
    )
    assert by_weight.losses["forget"][-1] < by_weight.losses["forget"][0] / 2


def test_fewer_weights_are_removed_the_more_that_costs(here):
    shares = [
        here.run(page.mask_based, lam=(1, 1, cost), **MASKS).info["removed"]
        for cost in (0.1, 10.0, 100.0)
    ]
    assert shares[0] > shares[1] > shares[2]


def test_a_random_mask_of_the_same_size_forgets_less(here, start, by_weight):
    draw, new = generator("random mask"), by_weight.model.state_dict()
    state = dict(start)
    for name in ("hidden1.weight", "hidden2.weight"):
        zero = (new[name] == 0).flatten()
        shuffled = zero[torch.randperm(len(zero), generator=draw)].view_as(new[name])
        state[name] = start[name].masked_fill(shuffled, 0.0)
    assert ignorance(here, by_weight.model) < 0.8 * ignorance(here, load(here, state))


# ------------------------------------------------------------------ neuron_pruning


def groups_of(here):
    return here.task().unit_groups(here.original)


def scores(here, forget, retain, eps=1e-3, importance="abs", batch_size=256):
    how = (groups_of(here), importance, batch_size)
    model, task = here.original, here.task()
    on_forget = page.activity(model, task, forget, *how)
    return page.ratio(on_forget, page.activity(model, task, retain, *how), eps)


def silent(state, group):
    """Mask of the units whose incoming and outgoing weights are all zero."""
    into = (state[f"{group.producer}.weight"].flatten(1) == 0).all(1)
    out = state[f"{group.consumer}.weight"].transpose(0, 1).flatten(1)
    out = out.unflatten(0, (-1, group.columns)).flatten(1)
    return into & (state[f"{group.producer}.bias"] == 0) & (out == 0).all(1)


@pytest.mark.parametrize("workload", ["synthetic", "digits"])
def test_exactly_the_share_asked_for_is_removed_and_nothing_else(workload):
    where = setting(workload)
    old, groups = where.original.state_dict(), groups_of(where)
    result = where.run(page.neuron_pruning, frac_per_step=0.1)
    new = result.model.state_dict()
    units = sum(len(old[f"{g.producer}.bias"]) for g in groups)
    gone = {g.name: silent(new, g) for g in groups}
    assert sum(int(mask.sum()) for mask in gone.values()) == math.floor(0.1 * units)
    assert result.info["removed"] == math.floor(0.1 * units)
    expected = {name: value.clone() for name, value in old.items()}
    for group in groups:
        for unit in gone[group.name].nonzero()[:, 0].tolist():
            expected[f"{group.producer}.weight"][unit] = 0
            expected[f"{group.producer}.bias"][unit] = 0
            columns = slice(unit * group.columns, (unit + 1) * group.columns)
            expected[f"{group.consumer}.weight"][:, columns] = 0
    assert same_weights(new, expected)


def test_several_steps_remove_other_units_each_time(here):
    result = here.run(page.neuron_pruning, frac_per_step=0.05, steps=4)
    new = result.model.state_dict()
    gone = sum(int(silent(new, g).sum()) for g in groups_of(here))
    assert gone == result.info["removed"] == 4 * math.floor(0.05 * 128)


@pytest.mark.parametrize("importance", ["abs", "rms", "std", "freq"])
def test_activity_is_that_of_the_whole_set_whatever_the_batch_size(here, importance):
    with torch.no_grad():
        z = torch.relu(here.original.hidden1(here.forget_batch["inputs"])).double()
    wanted = {
        "abs": z.abs().mean(0),
        "rms": z.pow(2).mean(0).sqrt(),
        "std": z.std(0, correction=0),
        "freq": (z > 0).double().mean(0),
    }[importance]
    for batch_size in (7, 1000):
        found = page.activity(
            here.original, here.task(), here.forget(), groups_of(here), importance, batch_size
        )
        assert torch.allclose(found["hidden 1"], wanted, atol=1e-6)


def test_a_channel_is_averaged_over_its_places():
    where = setting("digits")
    found = page.activity(where.original, where.task(), where.forget(), groups_of(where), "abs", 50)
    with torch.no_grad():
        z = torch.relu(where.original.conv1(where.forget_batch["inputs"]))
    assert torch.allclose(found["channels 1"].float(), z.mean((0, 2, 3)), atol=1e-5)


def test_hooks_come_off_even_when_the_forward_pass_fails(here):
    class Broken(type(here.task())):
        def outputs(self, model, batch):
            raise RuntimeError("no forward pass")

    task, model = here.task(), here.model()
    task.__class__ = Broken
    with pytest.raises(RuntimeError, match="no forward pass"):
        page.activity(model, task, here.forget(), groups_of(here), "abs", 64)
    assert not any(m._forward_hooks for m in model.modules())


def planted():
    """A network whose unit 5 fires on the forget set alone, and both sets."""
    where = setting()
    model = where.task().new_model("planted").eval()
    draw = generator("planted")
    with torch.no_grad():
        model.hidden1.weight[:, 0] = 0
        model.hidden1.weight[5] = 0
        model.hidden1.weight[5, 0] = 1.0
        model.hidden1.bias[5] = 0

    def split(name, mark, n):
        inputs = torch.randn(n, 32, generator=draw)
        inputs[:, 0] = mark
        labels = torch.zeros(n, dtype=torch.long)
        return Split(name, Batch({"inputs": inputs, "labels": labels, "ids": torch.arange(n)}))

    return where, model, split("forget", 1.0, 40), split("retain", 0.0, 80)


def test_a_unit_for_the_forget_set_alone_goes_first_and_takes_nothing_with_it():
    where, model, forget, retain = planted()
    new = page.neuron_pruning(model, forget, retain, where.task(), frac_per_step=1 / 128).model
    state = new.state_dict()
    gone = [silent(state, g).nonzero()[:, 0].tolist() for g in groups_of(where)]
    assert gone == [[5], []]
    kept, lost = retain.all()["inputs"], forget.all()["inputs"]
    assert torch.equal(new(kept), model(kept))
    assert not torch.allclose(new(lost), model(lost))


def test_swapping_the_sets_turns_the_ranking_around(here):
    ahead = scores(here, here.forget(), here.retain(), eps=0.0)
    back = scores(here, here.retain(), here.forget(), eps=0.0)
    for name, score in ahead.items():
        seen = (score > 0) & (back[name] > 0)
        assert seen.sum() > 30
        forth = torch.argsort(score[seen])
        assert torch.equal(forth, torch.argsort(back[name][seen], descending=True))


def test_it_stops_before_answers_on_the_retain_set_drift_too_far(here):
    known = here.original(here.retain_batch["inputs"]).detach()
    counts = []
    for until in (0.0, 0.05, 0.5):
        result = here.run(page.neuron_pruning, steps=30, until=until)
        said = result.model(here.retain_batch["inputs"]).detach()
        assert here.task().divergence(said, known).mean() <= until
        counts.append(result.info["removed"])
    assert counts[0] < counts[1] < counts[2] < 30 * math.floor(0.02 * 128)


# ------------------------------------------------------------------ layer_freezing

ORDER = ["hidden1", "hidden2", "head"]


@pytest.mark.parametrize("mode", ["cf", "eu"])
@pytest.mark.parametrize("k", [1, 2, 3])
def test_only_the_last_k_layers_change(here, start, mode, k):
    new = weights_of(here, page.layer_freezing, mode=mode, k=k, epochs=2)
    for layer in ORDER:
        for name in (f"{layer}.weight", f"{layer}.bias"):
            assert torch.equal(new[name], start[name]) == (layer not in ORDER[-k:])


@pytest.mark.parametrize("k", [1, 2])
def test_reset_layers_do_not_depend_on_what_they_were(here, k):
    settings, task = {"mode": "eu", "k": k, "epochs": 2}, here.task()
    other = here.model()
    with torch.no_grad():
        for layer in ORDER[-k:]:
            for parameter in other.get_submodule(layer).parameters():
                parameter.normal_(generator=generator("disturb", layer))
    new = page.layer_freezing(other, here.forget(), here.retain(), task, **settings).model
    assert same_weights(new.state_dict(), weights_of(here, page.layer_freezing, **settings))
    del settings["mode"]
    kept = page.layer_freezing(other, here.forget(), here.retain(), task, **settings).model
    assert not same_weights(kept.state_dict(), weights_of(here, page.layer_freezing, **settings))


@pytest.mark.parametrize("workload, epochs", [("synthetic", None), ("digits", 3)])
def test_resetting_every_layer_is_retraining_to_the_last_bit(workload, epochs):
    where, seed = setting(workload), 0
    task = where.task()
    recipe = replace(task.recipe, epochs=epochs or task.recipe.epochs)
    retrained = where.model()
    retrained.load_state_dict(task.initial_weights())
    fit(retrained.train(), task, where.retain(), recipe, seed)
    layers, settings = (len(task.blocks(where.original)), {"mode": "eu", "epochs": epochs})
    new = weights_of(where, page.layer_freezing, k=layers, **settings)
    assert same_weights(new, retrained.state_dict())
    fewer = weights_of(where, page.layer_freezing, k=layers - 1, **settings)
    assert not same_weights(fewer, retrained.state_dict())


def accuracy(here, model):
    right = model(here.retain_batch["inputs"]).argmax(-1) == here.retain_batch["labels"]
    return right.double().mean().item()


def test_fresh_layers_alone_answer_at_chance(here):
    new = [
        here.run(page.layer_freezing, mode="eu", reset_to="fresh", epochs=0, seed=seed).model
        for seed in range(10)
    ]
    assert sum(accuracy(here, model) for model in new) / 10 < 0.2
    assert not same_weights(new[0].state_dict(), new[1].state_dict())


def test_the_first_weights_of_the_head_still_suit_the_layers_in_front(here):
    result = here.run(page.layer_freezing, mode="eu", epochs=0)
    first = here.task().initial_weights()
    assert torch.equal(result.model.head.weight, first["head.weight"])
    assert accuracy(here, result.model) > 0.5
    everything = here.run(page.layer_freezing, mode="eu", k=3, epochs=0)
    assert same_weights(everything.model.state_dict(), dict(first))
    assert accuracy(here, everything.model) < 0.3


class Normed(Task):
    """A classifier with batch normalisation, whose statistics are buffers."""

    recipe = Recipe(epochs=2, lr=1e-2, batch_size=8)

    def loss(self, model, batch):
        return nn.functional.cross_entropy(
            model(batch["inputs"]), batch["labels"], reduction="none"
        )

    def blocks(self, model):
        return [["0", "1"], ["3", "4"], ["6"]]


@pytest.mark.parametrize("training", [False, True])
def test_a_frozen_layer_keeps_its_running_statistics(training):
    torch.manual_seed(0)
    norm = lambda: nn.BatchNorm1d(6)
    model = nn.Sequential(
        nn.Linear(4, 6), norm(), nn.ReLU(), nn.Linear(6, 6), norm(), nn.ReLU(), nn.Linear(6, 3)
    ).train(training)
    n = 24
    batch = Batch(
        {"inputs": torch.randn(n, 4) + 3, "labels": torch.arange(n) % 3, "ids": torch.arange(n)}
    )
    new = page.layer_freezing(model, None, Split("retain", batch), Normed(), k=2).model
    old, new = model.state_dict(), new.state_dict()
    moved = {name for name in old if not torch.equal(old[name], new[name])}
    assert moved == {name for name in old if name[0] in "346"}


def test_the_step_size_and_the_number_of_epochs_can_be_chosen(here):
    task = here.task()
    model = clone(here.original)
    head = list(model.head.parameters())
    fit(model, task, here.retain(), replace(task.recipe, epochs=2, lr=0.02), 0, parameters=head)
    new = weights_of(here, page.layer_freezing, epochs=2, lr=0.02)
    assert same_weights(new, model.state_dict())
