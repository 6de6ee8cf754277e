"""The data strategies: the contract, and what each one's paper promises."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from contract import battery, setting

from erasus_nb import measuring, workloads
from erasus_nb.benchmark import Bench
from erasus_nb.cells import load
from erasus_nb.profiles import Recipe
from erasus_nb.provenance import (
    BudgetExhausted,
    ConvexHead,
    SisaEnsemble,
    SisaShards,
    UpdateLog,
    convex_head,
    sisa_shards,
)
from erasus_nb.strategy import MissingRecord, NotApplicable, Split
from erasus_nb.task import Records
from erasus_nb.training import fit, same_weights

torch.set_num_threads(1)
data = load("data")
GAMMA = 1 / (6 * 3**0.5)


@pytest.fixture(scope="module")
def small():
    return workloads.load("synthetic", "smoke")


def distance(a, b) -> float:
    return max(float((a[name].detach() - b[name].detach()).abs().max()) for name in a)


def splits(workload, ids):
    """Forget and retain set when `ids` are to be forgotten."""
    ids = torch.as_tensor(ids, dtype=torch.long)
    kept = workload.train_ids[~torch.isin(workload.train_ids, ids)]
    return Split("forget", workload.batch(ids)), Split("retain", workload.batch(kept))


# ------------------------------------------------------------------ the contract


def test_amnesiac_keeps_the_contract():
    battery(data.amnesiac)


def test_sisa_keeps_the_contract():
    battery(data.sisa, random=False)


def test_certified_removal_keeps_the_contract():
    battery(data.certified_removal, random=False)


def test_knowledge_distillation_keeps_the_contract():
    battery(data.knowledge_distillation, zero_strength=({"epochs": 0}, {"lr": 0.0}))


@pytest.mark.parametrize("name", ["amnesiac", "sisa", "certified_removal"])
def test_a_missing_record_raises(small, name):
    forget, retain = splits(small, range(5))
    with pytest.raises(MissingRecord):
        getattr(data, name)(small.make_model(0), forget, retain, small.task(0))


# ------------------------------------------------------------------ amnesiac


@pytest.fixture(scope="module")
def one_epoch(small):
    """A model trained for one epoch, so that every example has a single step; and its log."""
    model = small.make_model(0)
    log = UpdateLog(model)
    everything = Split("all", small.batch(small.train_ids))
    fit(model, small.task(0), everything, Recipe(1, 3e-3), 0, log=log)
    task = small.task(0, records=Records({"update log": lambda: log}))
    return model, log, task


@pytest.fixture(scope="module")
def amnesiac(small, one_epoch):
    def run(ids, **settings):
        model, _, task = one_epoch
        return data.amnesiac(model, *splits(small, ids), task, **settings)

    return run


def test_forgetting_the_last_batch_gives_the_weights_before_it(one_epoch, amnesiac):
    _, log, _ = one_epoch
    before = log.initial + torch.stack(log.changes[:-1]).sum(0)
    result = amnesiac(log.ids[-1][:3], repair=0)
    found = torch.cat([p.detach().flatten() for p in result.model.parameters()])
    assert torch.allclose(found, before, atol=1e-6)
    assert not torch.allclose(found, before + log.changes[-1], atol=1e-4)
    assert result.info["fraction_reverted"] == 1 / len(log)


def test_forgetting_nothing_is_identity(one_epoch, amnesiac):
    result = amnesiac([], repair=0)
    assert same_weights(result.model.state_dict(), one_epoch[0].state_dict())
    assert result.info["fraction_reverted"] == 0


def test_forgetting_everything_but_one_batch_leaves_its_change(small, one_epoch):
    model, log, task = one_epoch
    forget, retain = splits(small, torch.cat(log.ids[1:]))
    result = data.amnesiac(model, forget, retain, task, repair=0)
    found = torch.cat([p.detach().flatten() for p in result.model.parameters()])
    assert torch.allclose(found, log.initial + log.changes[0], atol=1e-6)


def test_forgetting_every_step_gives_the_initial_weights():
    where = setting()
    result = where.run(data.amnesiac, repair=0)
    assert result.info["fraction_reverted"] == 1.0
    start = where.task().initial_weights()
    assert distance(result.model.state_dict(), start) < 1e-6


def test_without_repair_no_example_is_read():
    where = setting()
    forget, retain = where.forget(), where.retain()
    data.amnesiac(where.model(), forget, retain, where.task(), repair=0)
    assert (forget.examples_read, retain.examples_read) == (0, 0)


# ------------------------------------------------------------------ sisa


@pytest.fixture(scope="module")
def shards(small):
    return sisa_shards(small, 0)


def places(plan):
    """Every checkpoint: (shard, slices done)."""
    return [(s, r) for s in range(plan.shards) for r in range(plan.slices + 1)]


def without(small, shards, ids):
    """The shards after forgetting `ids`, trained, and how many examples that read."""
    _, retain = splits(small, ids)
    ids = torch.as_tensor(ids, dtype=torch.long)
    shards.ready_for(ids)
    again = data.without(shards, ids, retain, small.task(0))
    again.models()
    return again, retain.examples_read


def never_saw(small, shards, ids):
    """Shards trained without `ids` from the very start."""
    _, retain = splits(small, ids)
    return shards.again(retain, small.task(0), lambda shard, slices: slices == 0)


@pytest.mark.parametrize("ids", [[17], [200], [3, 90, 270], range(40, 75)])
def test_the_result_is_the_ensemble_that_never_saw_them(small, shards, ids):
    unlearned, _ = without(small, shards, list(ids))
    never = never_saw(small, shards, list(ids))
    for place in places(shards.plan):
        assert same_weights(unlearned.after(*place), never.after(*place))
    last = [(s, shards.plan.slices) for s in range(shards.plan.shards)]
    assert not all(same_weights(unlearned.after(*p), shards.after(*p)) for p in last)


def test_other_shards_are_neither_changed_nor_read(small, shards):
    plan = shards.plan
    example = int((plan.cells == plan.slices + 2).nonzero()[0])  # shard 1, slice 2
    unlearned, read = without(small, shards, [example])
    for shard in range(plan.shards):
        ends = [s.after(shard, plan.slices) for s in (shards, unlearned)]
        assert same_weights(*ends) == (shard != 1)
    kept = small.train_ids[small.train_ids != example]
    slices = range(2, plan.slices)
    trained = sum(len(plan.upto(1, r, kept)) for r in slices)
    assert read == plan.epochs * trained
    for early in range(3):
        assert unlearned.after(1, early) is shards.after(1, early)


def test_a_late_slice_is_cheaper_to_forget_than_an_early_one(small, shards):
    first = [int((shards.plan.cells == r).nonzero()[0]) for r in (0, 3)]
    costs = [without(small, shards, [example])[1] for example in first]
    assert costs[0] > costs[1] > 0


def test_requests_commute_across_shards(small, shards):
    cells, slices = shards.plan.cells, shards.plan.slices
    one = int((cells == 1).nonzero()[0])
    two = int((cells == 2 * slices).nonzero()[0])

    def in_turn(first, second):
        after, _ = without(small, shards, [first])
        ids = torch.tensor([second])
        _, retain = splits(small, [first, second])
        again = data.without(after, ids, retain, small.task(0))
        return SisaEnsemble(again.models()).state_dict()

    assert same_weights(in_turn(one, two), in_turn(two, one))
    at_once, _ = without(small, shards, [one, two])
    both = SisaEnsemble(at_once.models()).state_dict()
    assert same_weights(in_turn(one, two), both)


def test_one_shard_and_slice_is_retraining(small):
    _, retain = splits(small, range(30))
    whole = sisa_shards(small, 0, 1, 1)
    unlearned = data.without(whole, torch.arange(30), retain, small.task(0))
    model = small.make_model(("sisa", 0, 0)).train()
    fit(model, small.task(0), retain, small.sizes.recipe, ("sisa", 0, 0))
    assert same_weights(unlearned.after(0, 1), model.state_dict())


def test_the_shards_themselves_are_left_as_they_were(small, shards):
    every = {p: shards.after(*p) for p in places(shards.plan)}
    before = {p: {n: v.clone() for n, v in w.items()} for p, w in every.items()}
    again, _ = without(small, shards, [1, 2, 3])
    for model in again.models():  # whoever goes on training one changes no checkpoint
        for value in model.parameters():
            value.data.add_(1)
    assert all(same_weights(shards.after(*p), before[p]) for p in every)


def test_what_a_request_goes_back_to_is_trained_before_the_clock_starts(monkeypatch):
    bench = Bench("synthetic", "smoke", (0,), out=None, cache="")
    ready, asked = SisaShards.ready_for, []
    monkeypatch.setattr(
        SisaShards, "ready_for", lambda self, ids: asked.append(ids) or ready(self, ids)
    )
    started = []
    now = lambda device: started.append(len(asked)) or 0.0
    monkeypatch.setattr(measuring, "now", now)
    [row] = bench.run(data.sisa, keep=False)
    assert row.status == "ok" and torch.equal(*asked, bench.asked.forget["ids"])
    assert started[-2:] == [1, 1]  # the strategy's start and end


def test_the_whole_forget_set_touches_every_shard_and_aggregation_is_a_setting():
    where = setting()
    mean, vote = where.run(data.sisa), where.run(data.sisa, aggregation="vote")
    assert mean.info["shards_touched"] == len(mean.model.models)
    assert 0.9 < mean.info["fraction_retrained"] <= 1
    assert same_weights(mean.model.state_dict(), vote.model.state_dict())
    inputs = where.retain_batch["inputs"]
    assert isinstance(vote.model, SisaEnsemble)
    assert not torch.allclose(mean.model(inputs), vote.model(inputs))


# ------------------------------------------------------------------ certified_removal


def random_head(seed, n, d, lam, sigma=1.0, classes=3):
    """A head at its optimum on random data, with all its examples."""
    draw = torch.Generator().manual_seed(seed)
    rows = torch.randn(n, d, generator=draw, dtype=torch.float64)
    rows = rows / rows.norm(dim=1).max()
    truth = torch.randn(d, classes, generator=draw, dtype=torch.float64)
    labels = (rows @ truth).argmax(1)
    targets = torch.nn.functional.one_hot(labels, classes).double()
    noise = sigma * torch.randn(classes, d, generator=draw, dtype=torch.float64)
    head = ConvexHead(None, torch.zeros_like(noise), noise, lam, sigma, torch.arange(0))
    head.weights = head.optimum(rows, targets)
    head.spent = head.residual(head.weights, rows, targets)
    return head, rows, targets


def parts(rows, targets, m):
    return (rows[:m], targets[:m]), (rows[m:], targets[m:])


def test_on_a_quadratic_loss_the_newton_step_is_retraining():
    draw = torch.Generator().manual_seed(0)
    X = torch.randn(200, 12, generator=draw, dtype=torch.float64)
    y = torch.randn(200, generator=draw, dtype=torch.float64)
    lam, m = 0.05, 40
    eye = torch.eye(12, dtype=torch.float64)

    def ridge(X, y):
        return torch.linalg.solve(X.T @ X + lam * len(X) * eye, X.T @ y)

    w, gone, kept = ridge(X, y), X[:m], X[m:]
    gradient = gone.T @ (gone @ w - y[:m]) + lam * m * w
    hessian = kept.T @ kept + lam * len(kept) * eye
    step = data.newton_step(gradient[None], hessian[None])[0]
    assert torch.allclose(w + step, ridge(kept, y[m:]), rtol=0, atol=1e-12)
    # The L2 term shrinks with the data: leaving its share out misses the optimum.
    short = data.newton_step((gradient - lam * m * w)[None], hessian[None])[0]
    assert (w + short - ridge(kept, y[m:])).norm() > 1e-3


@pytest.mark.parametrize("seed", range(12))
def test_what_is_left_behind_never_exceeds_the_bound(seed):
    draw = torch.Generator().manual_seed(100 + seed)
    pick = lambda low, high: int(torch.randint(low, high, (1,), generator=draw))
    n, d, m = pick(60, 300), pick(2, 30), pick(1, 50)
    lam = 10.0 ** (-3 * float(torch.rand(1, generator=draw)))
    head, *examples = random_head(seed, n, d, lam)
    gone, kept = parts(*examples, m)
    weights, beta = data.removed(head, gone, kept, GAMMA)
    left = head.residual(weights, *kept)
    assert left <= beta + head.spent
    # Strong convexity: a small gradient means being close to the retrained head.
    retrained = head.optimum(*kept)
    assert (weights - retrained).norm() <= left / (lam * len(kept[0])) + 1e-9


def test_the_step_comes_far_closer_to_retraining_than_doing_nothing():
    head, *examples = random_head(0, 400, 20, 0.01)
    gone, kept = parts(*examples, 20)
    weights, _ = data.removed(head, gone, kept, GAMMA)
    retrained = head.optimum(*kept)
    nothing = (head.weights - retrained).norm()
    assert (weights - retrained).norm() < nothing / 50


def test_dropping_the_share_of_the_l2_term_is_worse():
    head, *examples = random_head(1, 400, 20, 0.1)
    gone, kept = parts(*examples, 40)
    weights, _ = data.removed(head, gone, kept, GAMMA)
    without_l2 = replace(head, lam=0.0).gradient(head.weights, *gone)
    short = head.weights + data.newton_step(without_l2, head.hessian(head.weights, kept[0]))
    assert head.residual(short, *kept) > 10 * head.residual(weights, *kept)


def test_the_error_grows_at_most_quadratically_with_the_request():
    head, *examples = random_head(2, 600, 10, 0.05)
    bounds = [data.removed(head, *parts(*examples, m), GAMMA)[1] for m in (5, 10, 20)]
    for small, large in pairwise(bounds):
        assert small < large < 4.5 * small


def test_removing_one_by_one_agrees_with_removing_at_once_within_the_bound():
    head, *examples = random_head(3, 300, 8, 0.05)
    gone, kept = parts(*examples, 6)
    at_once, bound = data.removed(head, gone, kept, GAMMA)
    now, spent = head, head.spent
    for k in range(6):
        one = tuple(part[k : k + 1] for part in examples)
        rest = tuple(part[k + 1 :] for part in examples)
        weights, beta = data.removed(now, one, rest, GAMMA)
        now, spent = replace(now, weights=weights), spent + beta
    assert head.residual(now.weights, *kept) <= spent
    near = (spent + bound) / (head.lam * len(kept[0]))
    assert (now.weights - at_once).norm() <= near


def test_removing_nothing_is_identity_and_costs_nothing():
    head, *examples = random_head(4, 100, 5, 0.1)
    weights, beta = data.removed(head, *parts(*examples, 0), GAMMA)
    assert torch.equal(weights, head.weights)
    assert beta == 0


def test_the_budget_is_that_of_the_paper_and_scales_with_the_noise():
    assert data.budget_for(1.0, 1.0, 1e-4) == pytest.approx(0.2280, abs=1e-4)
    assert data.budget_for(3.0, 1.0, 1e-4) == pytest.approx(3 * 0.2280, abs=1e-3)
    assert data.budget_for(1.0, 0.1, 1e-4) == pytest.approx(0.0228, abs=1e-4)


def test_gamma_is_the_sharpest_constant_for_the_logistic_loss():
    x = torch.linspace(-10, 10, 200_001, dtype=torch.float64)
    p = torch.sigmoid(x)
    third = (p * (1 - p) * (1 - 2 * p)).abs().max()
    assert float(third) == pytest.approx(GAMMA, rel=1e-6)


def test_the_standard_request_is_certified_and_beats_its_own_bound():
    result = setting().run(data.certified_removal)
    info = result.info
    assert not info["retrained"]
    assert info["residual"] <= info["beta"] < info["spent"] <= info["budget"]


def test_an_exhausted_budget_raises_or_retrains():
    where = setting()
    with pytest.raises(BudgetExhausted, match="of a budget of"):
        where.run(data.certified_removal, epsilon=1e-3, on_exhausted="raise")
    result = where.run(data.certified_removal, epsilon=1e-3)
    assert result.info["retrained"]
    head = where.task().convex_head()
    optimum = head.optimum(*head.examples(where.retain_batch))
    assert torch.equal(result.model.head.detach(), optimum)
    with pytest.raises(ValueError, match="ignore"):
        where.run(data.certified_removal, on_exhausted="ignore")


def test_a_request_for_public_examples_is_refused(small):
    head = convex_head(small, 0)
    task = small.task(0, records=Records({"convex head": lambda: head}))
    forget, retain = splits(small, [0, 1, int(small.core_ids[0])])
    with pytest.raises(NotApplicable, match="features were trained on"):
        data.certified_removal(small.make_model(0), forget, retain, task)


# ------------------------------------------------------------------ distillation


def distilled(small, model, forget, retain, **settings):
    result = data.knowledge_distillation(model, forget, retain, small.task(0), **settings)
    return result.model, result.losses["distillation"]


@pytest.fixture(scope="module")
def trained(small):
    return small.load(small.train([small.train_ids], [0])[0])


def kl(small, batch, student, teacher):
    task = small.task()
    with torch.no_grad():
        outputs = [task.outputs(m, batch) for m in (student, teacher)]
        return float(task.divergence(*outputs).mean())


def test_without_retain_set_the_student_becomes_the_bad_teacher(small, trained):
    forget, retain = splits(small, range(64))
    bad = small.make_model("bad")
    settings = {"bad_teacher": bad, "retain_share": 0.0, "batch_size": 64, "epochs": 60}
    student, losses = distilled(small, trained, forget, retain, **settings)
    assert all(b < a for a, b in pairwise(losses))
    assert losses[-1] < losses[0] / 20
    start = kl(small, forget.all(), trained, bad)
    assert losses[0] == pytest.approx(start, rel=1e-4)
    assert kl(small, forget.all(), student, bad) < start / 20


def test_without_forget_set_the_student_stays_where_it_is(small, trained):
    forget, retain = splits(small, [])
    _, losses = distilled(small, trained, forget, retain, lr=1e-7)
    assert max(losses) < 1e-6
    # Adam blows rounding errors up to whole steps, so at the default rate it stays near.
    student, _ = distilled(small, trained, forget, retain, retain_share=1.0)
    assert kl(small, retain.all(), student, trained) < 5e-3


def test_a_bad_teacher_that_is_the_original_teaches_nothing(small, trained):
    forget, retain = splits(small, range(64))
    itself = {"bad_teacher": trained}
    _, losses = distilled(small, trained, forget, retain, lr=1e-7, **itself)
    assert max(losses) < 1e-6
    student, _ = distilled(small, trained, forget, retain, **itself)
    assert kl(small, forget.all(), student, trained) < 5e-3
    default, _ = distilled(small, trained, forget, retain)
    assert kl(small, forget.all(), default, trained) > 0.1


def test_the_kept_share_is_cut_down_to_whole_examples(small, trained):
    forget, retain = splits(small, range(64))
    shares = [len(retain) * 0.3, (2 * len(retain) - 1) / 2]
    assert [share % 1 for share in shares] == [pytest.approx(0.8), 0.5]
    for share in shares:
        before = retain.examples_read
        distilled(small, trained, forget, retain, retain_share=share / len(retain), epochs=1)
        assert retain.examples_read - before == math.floor(share)


def test_teachers_are_left_as_they_are(small, trained):
    bad = small.make_model("bad").train()
    before = [{n: v.clone() for n, v in m.state_dict().items()} for m in (trained, bad)]
    forget, retain = splits(small, range(64))
    distilled(small, trained, forget, retain, bad_teacher=bad, epochs=1)
    assert same_weights(trained.state_dict(), before[0])
    assert same_weights(bad.state_dict(), before[1])
    assert bad.training
    assert all(p.grad is None and p.requires_grad for p in bad.parameters())


def test_it_forgets_without_a_label_and_keeps_the_rest():
    where = setting()
    result = where.run(data.knowledge_distillation, retain_share=1.0)

    def right(batch):
        with torch.no_grad():
            said = result.model(batch["inputs"]).argmax(-1)
        return float((said == batch["labels"]).double().mean())

    assert where.learnt >= 0.95
    assert right(where.forget_batch) < 0.6
    assert right(where.retain_batch) > 0.8


def test_only_the_asked_share_of_the_retain_set_is_read(small, trained):
    forget, retain = splits(small, range(64))
    distilled(small, trained, forget, retain, retain_share=0.25, epochs=3)
    assert retain.examples_read == math.floor(0.25 * len(retain))
