"""The gradient strategies: the contract, and what each paper's algorithm must do."""

import copy
import math
from functools import cache, partial
from itertools import islice
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from contract import Setting, battery, check_reads_no_more_than_declared, setting
from scipy.stats import ks_2samp
from torch import Tensor, nn

from erasus_nb import cells, training
from erasus_nb.strategy import Batch, DataAccessError, NotApplicable, Split
from erasus_nb.task import Task
from erasus_nb.training import generator, same_weights

page = cells.load("gradient")

#: Strong enough to forget here; the papers' step sizes are for larger networks.
ASCENT = {"optimizer": "adam", "epochs": 8}
SALUN = {"lr": 0.05, "epochs": 5}
SCRUB = {"lr": 3e-3, "T": 2.0, "epochs": 6}


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


def accuracy(model, batch):
    right = model(batch["inputs"]).argmax(-1) == batch["labels"]
    return right.double().mean().item()


def length(new, old):
    """Distance between two sets of weights."""
    return sum((new[n] - old[n]).square().sum().item() for n in old) ** 0.5


def close(a, b, atol):
    return all(torch.allclose(a[name], b[name], atol=atol, rtol=0) for name in b)


# ------------------------------------------------------------------ the contract


def test_gradient_ascent_keeps_the_contract():
    battery(page.gradient_ascent, [{"lr": 0.0}, {"epochs": 0}, {"stop_at": 0.0}])


def test_gradient_ascent_with_adam_keeps_the_contract():
    battery(page.gradient_ascent, settings={**ASCENT, "stop_at": "validation"})


def test_negative_gradient_keeps_the_contract():
    battery(page.negative_gradient, [{"lr": 0.0}, {"epochs": 0}])


def test_fisher_forgetting_keeps_the_contract():
    battery(page.fisher_forgetting, {"alpha": 0.0})


def test_fisher_forgetting_with_drawn_labels_keeps_the_contract():
    settings = {"fisher": "mc", "mc": 2, "head_reset": "class"}
    battery(page.fisher_forgetting, settings=settings)


def test_saliency_unlearning_keeps_the_contract():
    zero = [{"keep": 0.0}, {"lr": 0.0}, {"epochs": 0}]
    battery(page.saliency_unlearning, zero, settings={"epochs": 2})


def test_scrub_keeps_the_contract():
    battery(page.scrub, [{"lr": 0.0}, {"epochs": 0}], settings={"epochs": 2})


def test_scrub_that_rewinds_keeps_the_contract():
    battery(page.scrub, settings={**SCRUB, "epochs": 3, "rewind": True})


@pytest.mark.parametrize(
    "function, wrong",
    [
        ("gradient_ascent", {"stop_at": "chance"}),
        ("gradient_ascent", {"optimizer": "lion"}),
        ("fisher_forgetting", {"fisher": "empirical"}),
        ("fisher_forgetting", {"head_reset": "row"}),
        ("saliency_unlearning", {"order": "shuffled"}),
        ("scrub", {"first": "middle"}),
    ],
)
def test_a_setting_that_means_nothing_is_refused(here, function, wrong):
    with pytest.raises(ValueError, match=str(next(iter(wrong)))):
        here.run(getattr(page, function), **wrong)


@pytest.mark.parametrize(
    "function, cheap",
    [
        ("gradient_ascent", {"optimizer": "adam", "lr": 1e-4, "epochs": 1}),
        ("negative_gradient", {"epochs": 1}),
        ("fisher_forgetting", {"fisher": "mc", "head_reset": "class"}),
        ("saliency_unlearning", {"epochs": 1, "order": "mixed"}),
        ("scrub", {"epochs": 1}),
    ],
)
def test_every_strategy_runs_on_the_convolutional_network(function, cheap):
    where = setting("digits")
    new = weights_of(where, getattr(page, function), **cheap)
    assert not same_weights(new, where.original.state_dict())
    assert all(value.isfinite().all() for value in new.values())


# ------------------------------------------------------------------ gradient_ascent


def gradient(here, batch):
    return training.gradient(here.model(), here.task(), batch)


def test_one_step_goes_up_the_gradient_by_the_step_size(here, start):
    new = weights_of(here, page.gradient_ascent, lr=0.5, epochs=1, batch_size=64)
    slope = gradient(here, here.forget_batch)
    assert close(new, {n: start[n] + 0.5 * slope[n] for n in start}, atol=1e-7)
    assert max(s.abs().max() for s in slope.values()) > 1e-3


def test_the_retain_set_is_not_even_needed(here):
    sets = here.forget(), None, here.task()
    alone = page.gradient_ascent(here.model(), *sets, **ASCENT).model.state_dict()
    assert same_weights(alone, weights_of(here, page.gradient_ascent, **ASCENT))


def test_the_forget_loss_of_a_linear_model_never_falls(here):
    model = nn.Linear(32, 10)
    with torch.no_grad():
        model.weight.normal_(generator=generator("linear"))
    how = {"lr": 1e-2, "epochs": 40, "batch_size": 64}
    result = page.gradient_ascent(model, here.forget(), None, here.task(), **how)
    losses = result.losses["forget"]
    assert losses == sorted(losses) and losses[-1] > 1.2 * losses[0]


def test_a_clipped_step_is_no_longer_than_asked(here, start):
    settings = {"lr": 1.0, "epochs": 1, "batch_size": 64}
    free = weights_of(here, page.gradient_ascent, **settings)
    clipped = weights_of(here, page.gradient_ascent, grad_clip=0.01, **settings)
    assert length(clipped, start) == pytest.approx(0.01, rel=1e-3)
    assert length(free, start) > 0.02


def test_it_stops_where_the_original_stands_on_unseen_examples(here):
    ascend = partial(here.run, page.gradient_ascent, optimizer="adam", lr=3e-4)
    free, stopped = ascend(epochs=40), ascend(epochs=40, stop_at="validation")
    before = ascend(epochs=stopped.info["epochs"] - 1)
    wanted = mean_loss(here, here.original, here.task().validation())
    assert stopped.info["epochs"] < free.info["epochs"] == 40
    assert mean_loss(here, before.model, here.forget_batch) < wanted
    assert mean_loss(here, stopped.model, here.forget_batch) >= wanted


def test_small_plain_steps_do_nothing_and_adaptive_ones_forget(here):
    known = accuracy(here.original, here.forget_batch)
    assert accuracy(here.run(page.gradient_ascent).model, here.forget_batch) == known
    adaptive = here.run(page.gradient_ascent, **ASCENT).model
    assert accuracy(adaptive, here.forget_batch) < 0.5


# ------------------------------------------------------------------ negative_gradient


def test_with_all_weight_on_the_retain_set_it_is_fine_tuning(here):
    student, order = here.model(), generator("retain order", 0)
    step = torch.optim.SGD(student.parameters(), 0.01)
    for _ in range(2):
        for batch in here.retain().batches(32, order):
            loss = F.cross_entropy(student(batch["inputs"]), batch["labels"])
            step.zero_grad()
            loss.backward()
            step.step()
    new = weights_of(here, page.negative_gradient, alpha=1.0, epochs=2)
    assert same_weights(new, student.state_dict())


def test_with_all_weight_on_the_forget_set_it_is_ascent_step_for_step(here):
    # A pass over 256 retain examples takes as many steps as four passes over 64.
    settings = {"lr": 0.02, "epochs": 2}
    new = weights_of(here, page.negative_gradient, alpha=0.0, **settings)
    settings["epochs"] *= 4
    assert same_weights(new, weights_of(here, page.gradient_ascent, **settings))


def step_error(here, function, alpha=0.7):
    """How far one step is from -lr (alpha G_retain - (1 - alpha) G_forget)."""
    how = {"alpha": alpha, "lr": 1.0, "epochs": 1, "batch_size": 256}
    result = function(here.model(), here.forget(), here.retain(), here.task(), **how)
    kept, asked = gradient(here, here.retain_batch), gradient(here, here.forget_batch)
    return max(
        (new - old + alpha * kept[n] - (1 - alpha) * asked[n]).abs().max().item()
        for (n, new), old in zip(result.model.named_parameters(), here.original.parameters())
    )


def test_both_gradients_are_added_before_the_step(here):
    assert step_error(here, page.negative_gradient) < 1e-6


def test_ascent_and_descent_one_after_the_other_are_caught(here):
    def in_turn(model, forget, retain, task, *, alpha, lr, epochs, batch_size):
        sets, up = (forget, retain, task), lr * (1 - alpha)
        first = page.gradient_ascent(model, *sets, lr=up, epochs=epochs, batch_size=64)
        how = {"alpha": 1.0, "lr": lr * alpha, "batch_size": batch_size}
        return page.negative_gradient(first.model, *sets, epochs=epochs, **how)

    assert step_error(here, in_turn) > 1e-4


def test_equal_sets_in_equal_parts_leave_the_weights_where_they_are(here, start):
    same = here.retain_batch
    how = {"alpha": 0.5, "lr": 0.1, "epochs": 3, "batch_size": len(same)}
    for asked, moves in ((same, False), (here.forget_batch, True)):
        new = page.negative_gradient(
            here.model(), Split("forget", asked), here.retain(), here.task(), **how
        )
        assert close(new.model.state_dict(), start, atol=1e-6) != moves


def test_a_pull_towards_the_original_keeps_the_weights_closer(here, start):
    train = partial(weights_of, here, page.negative_gradient, lr=0.05, epochs=3)
    assert length(train(prox=5.0), start) < 0.8 * length(train(), start)


def test_every_retain_batch_makes_a_step_whatever_the_sizes(here):
    forget, retain = here.forget(), here.retain()
    how = {"epochs": 1, "batch_size": 40}
    page.negative_gradient(here.model(), forget, retain, here.task(), **how)
    assert retain.examples_read == 256  # 7 batches, the last of 16
    assert forget.examples_read == 3 * 64 + 40  # as many: 40 and 24 in turn


@pytest.mark.parametrize("bn_eval", [True, False])
def test_normalisation_statistics_move_only_in_training_mode(here, bn_eval):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(32, 8), nn.BatchNorm1d(8), nn.Linear(8, 10)).eval()
    sets = here.forget(), here.retain(), here.task()
    new = page.negative_gradient(model, *sets, epochs=1, bn_eval=bn_eval).model
    moved = not torch.equal(new[1].running_mean, model[1].running_mean)
    assert moved == (not bn_eval) and not new.training


# ------------------------------------------------------------------ fisher_forgetting


def linear(scale=0.3):
    model = nn.Linear(32, 10)
    with torch.no_grad():
        model.weight.normal_(generator=generator("linear")).mul_(scale)
        model.bias.normal_(generator=generator("bias")).mul_(scale)
    return model.eval()


def test_the_fisher_of_a_linear_model_is_the_textbook_formula(here):
    model, batch = linear(), here.retain_batch
    found = page.true_fisher(model, here.task(), batch)
    with torch.no_grad():
        p = model(batch["inputs"]).softmax(-1).double()
    spread = p * (1 - p)
    wanted = spread.T @ batch["inputs"].double().square() / len(batch)
    assert torch.allclose(found["weight"], wanted, rtol=1e-4)
    assert torch.allclose(found["bias"], spread.mean(0), rtol=1e-4)


def test_the_fisher_of_the_network_agrees_with_a_slow_loop(here):
    model, batch = here.model(), here.retain_batch.take(torch.arange(5))
    names, parameters = zip(*model.named_parameters())
    total = {n: torch.zeros_like(p) for n, p in model.named_parameters()}
    for x in batch["inputs"]:
        said = model(x[None]).log_softmax(-1)[0]
        for value in said:
            slopes = torch.autograd.grad(-value, parameters, retain_graph=True)
            for name, slope in zip(names, slopes):
                total[name] += value.exp().detach() * slope.square() / len(batch)
    found = page.true_fisher(model, here.task(), batch)
    for name, value in total.items():
        assert torch.allclose(found[name].float(), value, rtol=1e-3, atol=1e-12), name


def test_drawn_labels_give_the_same_fisher_in_the_long_run(here):
    model, batch, task = linear(), here.retain_batch, here.task()
    exact = page.true_fisher(model, task, batch)["weight"]
    drawn = page.sampled_fisher(model, task, batch, 60, generator("draws"))["weight"]
    assert ((drawn - exact).abs() / exact).mean() < 0.1


def empirical(model, task, batch):
    return training.squared_gradients(model, task, batch)


def test_real_labels_have_almost_no_gradient_left_on_a_network_that_knows_them(here):
    how = here.model(), here.task(), here.retain_batch
    size = lambda fisher: sum(value.sum() for value in fisher.values())
    assert size(page.true_fisher(*how)) > 3 * size(empirical(*how))


def test_an_empirical_fisher_is_caught(here, monkeypatch):
    check_reads_no_more_than_declared(page.fisher_forgetting, {})
    monkeypatch.setattr(page, "true_fisher", empirical)
    with pytest.raises(DataAccessError, match="retain labels"):
        here.run(page.fisher_forgetting)
    # And by its result, where nobody stands guard.
    batch = here.retain_batch
    changed = batch.replace(labels=batch["labels"].roll(1))
    new = [
        page.fisher_forgetting(here.model(), None, Split("retain", part), here.task())
        for part in (batch, changed)
    ]
    assert not same_weights(*(each.model.state_dict() for each in new))


@pytest.mark.parametrize("power", [0.5, 0.25])
def test_noise_has_mean_zero_and_the_variance_of_the_law(here, power):
    model, task = linear(), here.task()
    retain = Split("retain", here.retain_batch.take(torch.arange(20)))
    # The head's cap and its factor of ten hold for the whole of a linear model.
    fisher = page.true_fisher(model, task, retain.all())
    v = {n: 1e-4 * (f + 1e-8).pow(-2 * power).clamp(max=1e2) for n, f in fisher.items()}
    v["weight"] = v["weight"].mean(1, keepdim=True).expand(10, 32)
    draws = {n: [] for n in v}
    how = {"alpha": 1e-4, "power": power}
    for seed in range(40):
        new = page.fisher_forgetting(model, None, retain, task, seed=seed, **how).model
        for name, old in model.state_dict().items():
            draws[name].append((new.state_dict()[name] - old) / (10 * v[name]).sqrt())
    for name, values in draws.items():
        z = torch.stack(values)
        error = z.numel() ** -0.5  # of the mean; root two times that of the square
        assert abs(z.mean().item()) < 4 * error, name
        assert abs(z.square().mean().item() - 1) < 4 * 2**0.5 * error, name


def test_hidden_layers_and_head_have_caps_of_their_own(here):
    unused = torch.zeros(4, 3, dtype=torch.float64)
    v = partial(page.noise_variance, alpha=1e-6, power=0.5)
    assert torch.allclose(v(unused, cap=1e3, is_head=False), unused + 1e-3)
    assert torch.allclose(v(unused, cap=1e2, is_head=True), unused + 1e-3)
    assert torch.allclose(v(unused[:, 0], cap=1e3, is_head=False), unused[:, 0] + 1e-2)
    one_unit = torch.tensor([[1.0, 1e-2]], dtype=torch.float64)
    assert torch.allclose(v(one_unit, cap=1e3, is_head=False), 0 * one_unit + 50.5e-6)


def test_overwriting_touches_the_unit_of_the_forgotten_class_alone(here, start):
    unit = here.task().forgotten_class
    new = weights_of(here, page.fisher_forgetting, alpha=0.0, head_reset="class")
    moved = {n for n in start if not torch.equal(new[n], start[n])}
    assert moved == {"head.weight", "head.bias"}
    rows = (new["head.weight"] != start["head.weight"]).any(1).nonzero()[:, 0].tolist()
    assert rows == [unit]
    assert new["head.weight"][unit].std().item() == pytest.approx(1e-3**0.5, rel=0.4)
    concept = (here.forget_batch["labels"] == unit).nonzero()[:, 0]
    concept = here.forget_batch.take(concept)
    overwritten = here.run(page.fisher_forgetting, alpha=0.0, head_reset="class").model
    assert accuracy(here.original, concept) > 0.95
    assert accuracy(overwritten, concept) < 0.7


def test_a_request_without_a_class_has_no_unit_to_overwrite(here):
    task = here.task()
    task._forgotten_class = None
    with pytest.raises(NotApplicable, match="no single class"):
        page.fisher_forgetting(here.model(), None, here.retain(), task, head_reset="class")


# ------------------------------------------------------------------ saliency_unlearning


def test_weights_outside_the_mask_stay_as_they_were_to_the_last_bit(here, start):
    for keep in (0.1, 0.5):
        result = here.run(page.saliency_unlearning, keep=keep, weight_decay=0.1)
        scores = page.saliency(here.model(), here.forget(), here.task(), 32)
        masks = training.top_fraction(scores, keep)
        new = result.model.state_dict()
        size = sum(p.numel() for p in here.original.parameters())
        assert result.info["selected"] == math.floor(keep * size)
        assert all(torch.equal(new[n][~m], start[n][~m]) for n, m in masks.items())
        changed = sum(int((new[n] != start[n]).sum()) for n in start)
        assert 0.9 * keep * size < changed <= math.floor(keep * size)


def test_masking_gradients_alone_is_caught(here, monkeypatch):
    monkeypatch.setattr(page, "put_back", lambda student, anchor, masks: None)
    with pytest.raises(AssertionError):
        test_weights_outside_the_mask_stay_as_they_were_to_the_last_bit(
            here, here.original.state_dict()
        )


def masks_by_batch_size(here, saliency):
    double = here.forget_batch.replace(inputs=here.forget_batch["inputs"].double())
    model, task = here.model().double(), here.task()
    return [
        training.top_fraction(saliency(model, Split("forget", double), task, size), 0.5)
        for size in (1, 4, 24, 64)
    ]


def share_different(a, b):
    differ = sum(int((a[n] != b[n]).sum()) for n in a)
    return differ / sum(m.numel() for m in a.values())


def test_the_mask_does_not_depend_on_the_batch_size(here):
    first, *others = masks_by_batch_size(here, page.saliency)
    assert all(same_weights(first, other) for other in others)


def test_sizes_taken_batch_by_batch_are_caught(here):
    def by_batch(model, forget, task, batch_size):
        parts = [training.gradient(model, task, b) for b in forget.batches(batch_size)]
        return {n: sum(part[n].abs() for part in parts) for n in parts[0]}

    masks = masks_by_batch_size(here, by_batch)
    assert share_different(masks[0], masks[-1]) > 0.05


def test_batch_means_give_the_same_mask_where_batches_are_full(here):
    """The official code adds up batch means: ours, but where the last batch is smaller."""

    def of_means(model, forget, task, batch_size):
        parts = [training.gradient(model, task, b) for b in forget.batches(batch_size)]
        return {n: sum(part[n] for part in parts).abs() for n in parts[0]}

    assert len(here.forget_batch) == 64
    ours = masks_by_batch_size(here, page.saliency)
    one, four, uneven, whole = masks_by_batch_size(here, of_means)  # 1, 4, 24 and 64
    assert all(same_weights(mask, ours[0]) for mask in (one, four, whole))
    assert share_different(uneven, ours[0]) > 0.01


def test_the_mask_holds_the_weights_that_the_forget_loss_pulls_at_most(here):
    masks = training.top_fraction(page.saliency(here.model(), here.forget(), here.task(), 32), 0.3)
    pull = {n: g.abs() for n, g in gradient(here, here.forget_batch).items()}
    inside = torch.cat([pull[n][m] for n, m in masks.items()])
    outside = torch.cat([pull[n][~m] for n, m in masks.items()])
    assert inside.min() >= outside.max() * (1 - 1e-4)


@pytest.mark.parametrize("order", ["alternate", "mixed"])
def test_an_epoch_has_every_example_once_and_no_forget_label_is_right(here, order):
    sets = here.forget(), here.retain(), here.task()
    batches = list(page.lessons(*sets, 0.25, order, 32, generator("epoch")))
    every = Batch.cat([batch for batch, _ in batches])
    weight = torch.cat([torch.as_tensor(w).expand(len(b)) for b, w in batches])
    asked = torch.isin(every["ids"], here.forget_batch["ids"])
    both = torch.cat([here.forget_batch["ids"], here.retain_batch["ids"]])
    assert torch.equal(every["ids"].sort().values, both.sort().values)
    assert (weight[asked] == 1).all() and (weight[~asked] == 0.25).all()
    truth = {
        int(i): int(y)
        for part in (here.forget_batch, here.retain_batch)
        for i, y in zip(part["ids"], part["labels"])
    }
    said = zip(every["ids"].tolist(), every["labels"].tolist())
    right = torch.tensor([truth[i] == y for i, y in said])
    assert not right[asked].any() and right[~asked].all()
    apart = [len(part.unique()) == 1 for part in asked.split(32)]
    assert all(apart) == (order == "alternate")


def test_with_every_weight_in_the_mask_it_is_random_labels(here):
    student, task, draw = here.model(), here.task(), generator("saliency_unlearning", 0)
    step = torch.optim.SGD(student.parameters(), 0.013, momentum=0.9, weight_decay=5e-4)
    for _ in range(2):
        asked = [task.relabel(b, draw) for b in here.forget().batches(32, draw)]
        for batch in [*asked, *here.retain().batches(32, draw)]:
            loss = F.cross_entropy(student(batch["inputs"]), batch["labels"])
            step.zero_grad()
            loss.backward()
            step.step()
    new = weights_of(here, page.saliency_unlearning, keep=1.0, epochs=2)
    assert close(new, student.state_dict(), atol=1e-6)


def test_it_forgets_and_keeps_the_rest(here):
    new = here.run(page.saliency_unlearning, **SALUN).model
    assert accuracy(new, here.forget_batch) < 0.3
    assert accuracy(new, here.retain_batch) > 0.8


# ------------------------------------------------------------------ scrub


def divergence(here, model, batch):
    """Mean KL from the original's answers to a model's."""
    with torch.no_grad():
        said = [m(batch["inputs"]).log_softmax(-1) for m in (model, here.original)]
    return F.kl_div(*said, reduction="batchmean", log_target=True).item()


def test_labels_of_the_forget_set_are_not_used(here):
    wrong = here.forget_batch.replace(labels=here.forget_batch["labels"].roll(7))
    other = page.scrub(here.model(), Split("forget", wrong), here.retain(), here.task(), **SCRUB)
    assert same_weights(other.model.state_dict(), weights_of(here, page.scrub, **SCRUB))


def test_only_rewinding_looks_at_forget_labels_and_validation(here):
    reads = page.scrub.facts.reads - {"forget labels", "validation"}
    sets = here.forget(reads), here.retain(reads), here.task(reads)
    page.scrub(here.model(), *sets, epochs=1)
    with pytest.raises(DataAccessError):
        page.scrub(here.model(), *sets, epochs=1, rewind=True)


def watched(here, monkeypatch):
    """Run SCRUB; (student, teacher, teacher's weights at first) of each max epoch."""
    seen, inner = [], page.max_epoch

    def spy(student, teacher, *rest):
        seen.append((student, teacher, copy.deepcopy(teacher.state_dict())))
        return inner(student, teacher, *rest)

    monkeypatch.setattr(page, "max_epoch", spy)
    return here.run(page.scrub, **SCRUB), seen


def test_the_teacher_stays_the_original_and_shares_nothing(here, start, monkeypatch):
    _, seen = watched(here, monkeypatch)
    assert len(seen) == 3
    for student, teacher, at_first in seen:
        places = {p.data_ptr() for p in student.parameters()}
        assert not places & {p.data_ptr() for p in teacher.parameters()}
        assert same_weights(at_first, start)
        assert same_weights(teacher.state_dict(), start)


def test_it_moves_away_on_the_forget_set_further_than_on_the_retain_set(here):
    result = here.run(page.scrub, **SCRUB)
    away = divergence(here, result.model, here.forget_batch)
    assert away > 1 and away > 3 * divergence(here, result.model, here.retain_batch)
    assert result.losses["forget divergence"][-1] > 0


def test_a_teacher_that_shares_the_students_weights_is_caught(here, monkeypatch):
    monkeypatch.setattr(training, "frozen", copy.copy)
    with monkeypatch.context() as inner:
        # A shallow copy of the student, as one published package makes it.
        inner.setattr(training, "clone", lambda model: model)
        model = here.model()
        result = page.scrub(model, here.forget(), here.retain(), here.task(), **SCRUB)
    # Student and teacher agree for ever, so nothing drives them apart.
    assert result.losses["forget divergence"] == pytest.approx([0, 0, 0], abs=1e-5)


def test_without_max_epochs_it_is_distilled_fine_tuning(here):
    student, draw = here.model(), generator("scrub", 0)
    step = training.optimizer("adam", student.parameters(), 5e-4, weight_decay=5e-4)
    for _ in range(3):
        for batch in here.retain().batches(32, draw):
            with torch.no_grad():
                said = here.original(batch["inputs"])
            logits = student(batch["inputs"])
            pair = (logits / 4).log_softmax(-1), (said / 4).softmax(-1)
            to_teacher = 16 * F.kl_div(*pair, reduction="batchmean")
            loss = F.cross_entropy(logits, batch["labels"]) + 0.5 * to_teacher
            step.zero_grad()
            loss.backward()
            step.step()
    new = weights_of(here, page.scrub, epochs=3, msteps=0, first="max")
    assert close(new, student.state_dict(), atol=1e-5)


def test_a_max_epoch_first_does_not_start(here, start):
    alone = {"gamma": 0.0, "alpha": 0.0, "weight_decay": 0.0, "epochs": 1}
    how = {"optimizer": "sgd", "lr": 0.01, "first": "max"}
    assert close(weights_of(here, page.scrub, **how, **alone), start, atol=1e-6)
    # An adaptive optimiser makes full steps of the rounding errors.
    how["optimizer"] = "adam"
    assert not close(weights_of(here, page.scrub, **how, **alone), start, atol=1e-2)


def test_a_min_epoch_on_the_labels_first_gives_the_push(here):
    how = {"optimizer": "sgd", "lr": 0.01, "weight_decay": 0.0, "epochs": 1}
    losses = lambda first: here.run(page.scrub, first=first, **how).losses
    gap = {first: losses(first)["forget divergence"][0] for first in ("min", "max")}
    assert gap["max"] < 1e-5
    assert gap["min"] > 1e-4


def test_with_nothing_to_obey_it_is_ascent_on_the_divergence(here):
    # Batch normalisation in training mode gives the first push, as in the paper.
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(32, 8), nn.BatchNorm1d(8), nn.Linear(8, 10)).train()
    how = {"optimizer": "sgd", "lr": 0.05, "weight_decay": 0.0, "first": "max"}
    how.update(gamma=0.0, alpha=0.0, epochs=2, msteps=2)
    sets = here.forget(), here.retain(), here.task()
    new = page.scrub(model, *sets, **how).model

    student, teacher = copy.deepcopy(model), copy.deepcopy(model).eval()
    step = torch.optim.SGD(student.parameters(), 0.05, momentum=0.9)  # the official code's
    draw = generator("scrub", 0)
    for _ in range(2):
        for batch in here.forget().batches(16, draw):
            said = teacher(batch["inputs"]).detach() / 4
            apart = (student(batch["inputs"]) / 4).log_softmax(-1)
            loss = -16 * F.kl_div(apart, said.softmax(-1), reduction="batchmean")
            step.zero_grad()
            loss.backward()
            step.step()
        for _ in here.retain().batches(32, draw):  # min epochs: no slope, momentum rolls on
            step.zero_grad(set_to_none=False)
            step.step()
    moved = dict(student.named_parameters())
    assert close(dict(new.named_parameters()), moved, atol=1e-5)
    assert not close(dict(model.named_parameters()), moved, atol=1e-3)


def test_rewinding_returns_the_epoch_closest_to_unseen_examples(here):
    each = [here.run(page.scrub, **{**SCRUB, "epochs": e}).model for e in range(1, 7)]
    wanted = mean_loss(here, each[-1], here.task().validation())
    gaps = [abs(mean_loss(here, m, here.forget_batch) - wanted) for m in each]
    best = gaps.index(min(gaps))
    result = here.run(page.scrub, **SCRUB, rewind=True)
    assert result.info["epoch"] == best + 1
    assert same_weights(result.model.state_dict(), each[best].state_dict())


def test_rewinding_can_go_back_before_the_last_epoch(here):
    class Told(Task):
        """Every model's loss is its weight, and one more on validation examples."""

        def loss(self, model, batch):
            return model.weight.flatten() + batch["ids"]

    ids = lambda *values: Batch({"ids": torch.tensor(values)})
    students = [nn.Linear(1, 1) for _ in range(4)]
    for student, loss in zip(students, (0.5, 2.2, 4.0, 1.0)):
        nn.init.constant_(student.weight, loss)
    task = Told(validation=ids(1))
    assert page.rewound(students, task, Split("forget", ids(0))) == 1


# ------------------------------------------------------------------ modality_decoupling


class Embedding(NamedTuple):
    features: Tensor
    projected: Tensor


class TwoTowers(nn.Module):
    """A dual encoder: two small towers, a projection each, and a temperature."""

    def __init__(self):
        super().__init__()
        for name in ("image", "text"):
            setattr(self, f"{name}_first", nn.Linear(12, 48))
            setattr(self, f"{name}_last", nn.Linear(48, 48))
            setattr(self, f"{name}_projection", nn.Linear(48, 16))
        self.logit_scale = nn.Parameter(torch.tensor(2.0))

    def embed(self, name, x):
        for layer in ("first", "last"):
            x = torch.relu(getattr(self, f"{name}_{layer}")(x))
        return Embedding(x, F.normalize(getattr(self, f"{name}_projection")(x)))


class PairTask(Task):
    """Pairs of images and texts: what `image_text` will give the strategy."""

    def modalities(self, model):
        layers = ("first", "last", "projection")
        return {m: [f"{m}_{layer}" for layer in layers] for m in ("image", "text")}

    def embeddings(self, model, batch):
        self.meter.count(len(batch))
        return {m: model.embed(m, batch[f"{m}s"]) for m in ("image", "text")}

    def similarities(self, model, batch):
        image, text = self.embeddings(model, batch).values()
        return image.projected @ text.projected.T


FORGET, PAIRS = 24, 96


@cache
def pairs():
    """Random pairs, learnt by heart: nothing else connects an image with its text."""
    draw = generator("pairs")
    every = Batch(
        {
            "images": torch.randn(PAIRS, 12, generator=draw),
            "texts": torch.randn(PAIRS, 12, generator=draw),
            "ids": torch.arange(PAIRS),
        }
    )
    with training.global_seed("towers"):
        model = TwoTowers()
    step, right = torch.optim.Adam(model.parameters(), 3e-3), torch.arange(PAIRS)
    for _ in range(250):
        logits = model.logit_scale.exp() * PairTask().similarities(model, every)
        loss = (F.cross_entropy(logits, right) + F.cross_entropy(logits.T, right)) / 2
        step.zero_grad()
        loss.backward()
        step.step()
    step.zero_grad(set_to_none=True)
    with torch.no_grad():
        best = PairTask().similarities(model, every).argmax(1)
    learnt = (best == right)[:FORGET].double().mean().item()
    parts = every.take(right[:FORGET]), every.take(right[FORGET:])
    return Setting(model.eval(), *parts, PairTask, learnt)


TOWERS = {"lr": 2e-3, "epochs": 60, "batch_size": 16, "w_mkr": 5.0, "w_ukr": 10.0}


@pytest.fixture(scope="module")
def decoupled():
    return pairs().run(page.modality_decoupling, **TOWERS)


@torch.no_grad()
def table(model, batch):
    return PairTask().similarities(model, batch)


def test_modality_decoupling_keeps_the_contract():
    settings = {"epochs": 2, "batch_size": 16}
    zero = [{"lr": 0.0}, {"epochs": 0}, {"w_md": 0.0}]
    battery(page.modality_decoupling, zero, settings=settings, where=pairs())


def test_a_classifier_has_no_pairs_and_the_reason_is_given(here):
    with pytest.raises(NotApplicable, match="one modality"):
        here.run(page.modality_decoupling)


def test_forgotten_pairs_look_like_strangers_and_did_not_before(decoupled):
    where = pairs()
    strangers = table(where.original, where.forget_batch)
    strangers = strangers[~torch.eye(FORGET, dtype=torch.bool)]
    for model, alike in ((where.original, False), (decoupled.model, True)):
        matched = table(model, where.forget_batch).diag()
        assert (ks_2samp(matched.numpy(), strangers.numpy()).pvalue > 0.01) == alike


def test_pairs_that_stay_are_as_before(decoupled):
    where = pairs()
    both = where.original, decoupled.model
    before, after = (table(model, where.retain_batch) for model in both)
    assert (before.diag() - after.diag()).abs().mean() < 0.15
    assert (after.argmax(1) == torch.arange(PAIRS - FORGET)).double().mean() > 0.95


@torch.no_grad()
def drift(model):
    """How far the towers' features of forget images and texts have moved, relative."""
    where, task = pairs(), PairTask()
    old, new = (task.embeddings(m, where.forget_batch) for m in (where.original, model))
    pairs_of = [(new[m].features, old[m].features) for m in old]
    return torch.stack([(now - then).norm() / then.norm() for now, then in pairs_of])


def test_each_half_of_a_forgotten_pair_is_known_as_before(decoupled):
    careless = pairs().run(page.modality_decoupling, **{**TOWERS, "w_ukr": 0.0}).model
    assert (drift(decoupled.model) < 0.25).all()
    assert (drift(careless) > 1.3 * drift(decoupled.model)).all()


def test_without_the_first_term_nothing_is_wrong_and_nothing_moves():
    where = pairs()
    result = where.run(page.modality_decoupling, w_md=0.0, **TOWERS)
    assert result.losses["sum of terms"] == [0.0] * TOWERS["epochs"]
    assert same_weights(result.model.state_dict(), where.original.state_dict())


@pytest.mark.parametrize("train, layers", [("proj+last", "lp"), ("all", "flp")])
def test_only_what_may_be_trained_changes(train, layers):
    where = pairs()
    settings = {**TOWERS, "epochs": 1, "train": train}
    new = weights_of(where, page.modality_decoupling, **settings)
    old = where.original.state_dict()
    moved = {n for n in old if not torch.equal(new[n], old[n])}
    named = {n for n in old if "_" in n and n.split("_")[1][0] in layers}
    assert moved == named - {"logit_scale"}


def test_strangers_from_the_retain_set_will_do():
    where = pairs()
    settings = {**TOWERS, "partner": "retain"}
    new = where.run(page.modality_decoupling, **settings).model
    both = where.original, new
    before, after = (table(model, where.forget_batch).diag().mean() for model in both)
    assert after < before - 0.3


@pytest.mark.parametrize("wrong", [{"partner": "random"}, {"train": "head"}])
def test_a_word_that_means_nothing_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        pairs().run(page.modality_decoupling, **wrong)


@pytest.mark.parametrize("n", [2, 3, 10])
def test_a_derangement_leaves_nobody_in_place(n):
    draw = generator("derangement", n)
    for order in islice(iter(lambda: page.derangement(n, draw), None), 200):
        assert (order != torch.arange(n)).all()
        assert torch.equal(order.sort().values, torch.arange(n))


def test_one_pair_alone_cannot_be_deranged():
    with pytest.raises(ValueError, match="one pair alone"):
        page.derangement(1, generator("alone"))


def test_only_matched_entries_are_compared_with_strangers():
    side = lambda *rows: Embedding(None, torch.tensor(rows))
    east, north = [1.0, 0.0], [0.0, 1.0]
    new = side(east, north), side(east, north)  # matched pairs agree: similarity 1
    old = side(east, north), side(east, north)
    swapped = side(north, east), side(north, east)  # strangers: similarity 0
    assert page.decoupling(new, old, swapped).item() == pytest.approx(1)
    apart = side(east, north), side(north, east)
    assert page.decoupling(apart, old, swapped).item() == pytest.approx(0)
