"""The ensemble page: NegMerge, soups and TIES merges."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from contract import battery, check_reads_no_more_than_declared, setting

from erasus_nb.cells import load
from erasus_nb.controls import ascent_to_destruction, fine_tune, partial_retrain, random_label
from erasus_nb.strategy import DataAccessError, Unlearned, strategy
from erasus_nb.training import clone, generator, same_weights, set_weights, weights

page = load("ensemble")
ensemble = page.ensemble


def vectors(*columns):
    """Task vectors of a model with one parameter, a row of numbers each."""
    return [{"w": torch.tensor(column)} for column in columns]


def copies(K=3, seed=0):
    """Real task vectors: copies of the trained original, fine-tuned on the forget set."""
    where = setting()
    arguments = where.model(), where.forget(), where.task()
    return page.fine_tuned(*arguments, K, (1e-3, 3e-3), (2, 4), seed)[0]


def difference(unlearned: Unlearned):
    start = weights(setting().original)
    return {n: w - start[n] for n, w in weights(unlearned.model).items()}


# ------------------------------------------------------------------ the contract


def test_it_keeps_the_contract():
    battery(ensemble, [{"lam": 0.0}, {"epochs": (0,)}])


@pytest.mark.parametrize("mode", ["soup", "ties"])
def test_the_modes_over_members_keep_the_contract(mode):
    members = (random_label, ascent_to_destruction)
    battery(ensemble, settings={"mode": mode, "members": members})


def test_its_settings_are_checked():
    where = setting()
    for settings, message in (
        ({"mode": "vote"}, "negmerge, soup or ties, not 'vote'"),
        ({"mode": "soup"}, "soup and ties need members"),
        ({"mode": "ties", "members": ()}, "soup and ties need members"),
        ({"members": (fine_tune,)}, "negmerge takes none"),
    ):
        with pytest.raises(ValueError, match=message):
            where.run(ensemble, **settings)


# ------------------------------------------------------------------ the vote


def test_only_a_unanimous_vote_counts_and_its_mean_is_taken():
    merged, kept = page.consensus(vectors([1.0, -2.0, 1.0, 0.0, 5.0], [3.0, -4.0, -1.0, 2.0, 0.0]))
    assert merged["w"].tolist() == [2.0, -3.0, 0.0, 0.0, 0.0]
    assert kept == pytest.approx(2 / 5)


def test_one_copy_or_equal_copies_keep_what_moved():
    (one,) = copies(K=1)
    alone, kept = page.consensus([one])
    assert same_weights(alone, one)
    thrice, same = page.consensus([one, one, one])
    assert kept == same < 1  # a weight that did not move has no direction to agree on
    assert all(torch.allclose(thrice[n], one[n], rtol=1e-6) for n in one)


def test_opposite_copies_cancel():
    (one,) = copies(K=1)
    merged, kept = page.consensus([one, {n: -v for n, v in one.items()}])
    assert kept == 0 and not any(v.any() for v in merged.values())
    original = setting().original
    moved = page.moved(original, merged, -1.0)
    assert same_weights(moved.state_dict(), original.state_dict())


def test_the_order_of_the_copies_does_not_matter():
    three = copies(K=3)
    first, kept = page.consensus(three)
    for order in ((2, 0, 1), (1, 2, 0)):
        other, same = page.consensus([three[k] for k in order])
        assert kept == same
        assert all(torch.allclose(first[n], other[n], atol=1e-8) for n in first)


def test_random_signs_agree_as_often_as_luck_says():
    draw = generator("signs")
    for K in (2, 5):
        noise = [{"w": torch.randn(20000, generator=draw)} for _ in range(K)]
        _, kept = page.consensus(noise)
        assert kept == pytest.approx(2.0 ** (1 - K), abs=0.02)


# ------------------------------------------------------------------ negation


def test_one_copy_is_plain_task_vector_negation():
    where = setting()
    settings = {"K": 1, "lrs": (2e-3,), "epochs": (3,), "lam": 0.7}
    (tau,) = page.fine_tuned(where.model(), where.forget(), where.task(), 1, (2e-3,), (3,), 0)[0]
    expected = {n: w - 0.7 * tau[n] for n, w in weights(where.original).items()}
    assert same_weights(weights(where.run(ensemble, **settings).model), expected)


def test_every_weight_moves_against_the_consensus_or_not_at_all():
    where, settings = setting(), {"K": 3, "lrs": (1e-3, 3e-3), "epochs": (2, 4)}
    merged, kept = page.consensus(copies(K=3))
    assert 0.1 < kept < 1
    result = where.run(ensemble, **settings, lam=1.0)
    for n, delta in difference(result).items():
        against = -merged[n].sign()
        # A move below half a unit in the last place is rounded away.
        assert ((delta.sign() == against) | (delta == 0)).all()
        assert not delta[merged[n] == 0].any()
        assert torch.allclose(delta, -merged[n], atol=1e-6)
    assert result.info["kept"] == kept
    assert result.info["kept_by_luck"] == 0.25


def test_the_copies_differ_from_each_other():
    five = copies(K=5)
    assert not any(same_weights(five[i], five[j]) for i in range(5) for j in range(i))
    # Copies 0 and 2 share every setting but the batch order.
    assert not same_weights(five[0], five[2])


def test_the_copies_learn_the_forget_set_better():
    where = setting()
    _, losses = page.fine_tuned(where.model(), where.forget(), where.task(), 2, (3e-3,), (5,), 0)
    assert set(losses) == {"copy 1", "copy 2"}
    assert all(len(curve) == 5 and curve[-1] < curve[0] for curve in losses.values())


@torch.no_grad()
def mean_loss(model, split):
    return float(setting().task().loss(model, split.all()).mean())


def test_a_small_step_raises_the_forget_loss_and_a_larger_one_raises_it_more():
    where = setting()
    losses = [
        mean_loss(where.run(ensemble, lam=lam).model, where.forget()) for lam in (0, 0.1, 1.0)
    ]
    assert losses[0] < losses[1] < losses[2]
    # The planted fault: a step with the consensus instead of against it.
    assert mean_loss(where.run(ensemble, lam=-0.1).model, where.forget()) < losses[0]


def test_by_default_it_forgets_more_than_it_breaks():
    where = setting()
    model = where.run(ensemble).model
    forget = mean_loss(model, where.forget()) - mean_loss(where.original, where.forget())
    retain = mean_loss(model, where.retain()) - mean_loss(where.original, where.retain())
    assert forget > 3 * max(retain, 0.0) and forget > 1


# ------------------------------------------------------------------ how far


def test_the_step_is_the_largest_that_the_kept_examples_bear():
    where, (tau,) = setting(), copies(K=1)
    kept, lams = where.retain().all(), (0.5, 4.0, 1.0, 2.0)
    rise = {
        lam: mean_loss(page.moved(where.original, tau, -lam), where.retain())
        - mean_loss(where.original, where.retain())
        for lam in lams
    }
    assert rise[0.5] < rise[1.0] < rise[2.0] < rise[4.0]
    for lam, following in ((1.0, 2.0), (2.0, 4.0)):
        tolerance = (rise[lam] + rise[following]) / 2
        arguments = where.original, tau, kept, where.task(), lams, tolerance
        assert page.largest_harmless(*arguments) == lam


def test_if_every_step_harms_it_says_so():
    where = setting()
    with pytest.raises(ValueError, match="costs more than -1 nats"):
        where.run(ensemble, K=2, epochs=(2,), tolerance=-1)


def test_a_given_step_needs_no_retained_example():
    where = setting()
    reads = ensemble.facts.reads
    retain = where.retain(reads)
    ensemble(where.model(), where.forget(reads), retain, where.task(reads), lam=1.0)
    assert retain.examples_read == 0


def test_the_slice_has_the_size_asked_for():
    where = setting()
    for share, count in ((0.25, 64), (1.0, 256), (0.0, 1)):
        retain = where.retain()
        settings = {"share": share, "K": 1, "epochs": (1,), "tolerance": 9.0}
        ensemble(where.model(), where.forget(), retain, where.task(), **settings)
        assert retain.examples_read == count


# ------------------------------------------------------------------ soups and TIES merges


def test_a_soup_of_one_is_its_member():
    where = setting()
    member = where.run(fine_tune, seed=4).model.state_dict()
    soup = where.run(ensemble, mode="soup", members=(fine_tune,), seed=4).model.state_dict()
    assert same_weights(soup, member)


def test_a_soup_is_the_average_in_any_order():
    where, members = setting(), (fine_tune, ascent_to_destruction)
    soup = weights(where.run(ensemble, mode="soup", members=members).model)
    back = weights(where.run(ensemble, mode="soup", members=members[::-1]).model)
    made = [weights(where.run(member).model) for member in members]
    for n in soup:
        assert torch.allclose(soup[n], (made[0][n] + made[1][n]) / 2, atol=1e-7)
        assert torch.equal(soup[n], back[n])


def test_a_member_used_twice_runs_with_two_seeds():
    where = setting()
    arguments = where.model(), where.forget(), where.retain(), where.task(), 0
    one, two = page.models_of((fine_tune, fine_tune), *arguments)
    assert same_weights(one.state_dict(), where.run(fine_tune).model.state_dict())
    assert not same_weights(one.state_dict(), two.state_dict())


def test_a_member_that_reads_more_is_refused_before_any_runs():
    ran = []

    @strategy(category="Yours", cite="", reads=("forget",), on=())
    def watched(model, forget, retain, task, *, seed=0):
        ran.append(seed)

    where = setting()
    with pytest.raises(DataAccessError, match="partial_retrain reads initial weights, which"):
        where.run(ensemble, mode="soup", members=(watched, partial_retrain))
    assert not ran


def slow_ties(columns, density):
    """TIES, one weight at a time, after Yadav et al. (2023), algorithm 1."""
    keep = math.floor(density * len(columns[0]))
    trimmed = []
    for column in columns:
        large = sorted(range(len(column)), key=lambda i: -abs(column[i]))[:keep]
        trimmed.append([x if i in large else 0.0 for i, x in enumerate(column)])
    merged = []
    for votes in zip(*trimmed):
        total = sum(votes)
        agree = [v for v in votes if v * total > 0]
        merged.append(sum(agree) / len(agree) if agree else 0.0)
    return merged


@pytest.mark.parametrize("density", [0.0, 0.3, 1.0])
def test_a_ties_merge_equals_a_slow_one(density):
    table = torch.randn(4, 30, generator=generator("ties", density))
    found = page.ties([{"a": row[:10], "b": row[10:].view(4, 5)} for row in table], density)
    flat = torch.cat([found["a"], found["b"].flatten()])
    assert flat.tolist() == pytest.approx(slow_ties(table.tolist(), density), abs=1e-6)


def test_a_ties_merge_of_one_whole_vector_is_that_vector():
    (one,) = copies(K=1)
    assert same_weights(page.ties([one], 1.0), one)


def test_in_a_ties_merge_the_larger_side_wins_and_the_other_is_left_out():
    merged = page.ties(vectors([3.0, 1.0, -1.0], [-1.0, 2.0, 1.0]), 1.0)
    assert merged["w"].tolist() == [3.0, 1.5, 0.0]


def test_trimming_keeps_the_largest_moves_of_the_whole_vector():
    merged = page.ties([{"a": torch.tensor([1.0, -9.0]), "b": torch.tensor([8.0, 2.0])}], 0.5)
    assert merged["a"].tolist() == [0.0, -9.0] and merged["b"].tolist() == [8.0, 0.0]


# ------------------------------------------------------------------ planted faults


def planted(body, reads=("forget", "retain")):
    """A strategy with a fault, marked as `ensemble` is."""

    @strategy(category="Ensemble", cite="", reads=reads, on=())
    def stub(model, forget, retain, task, *, lam=1.0, seed=0):
        return body(model, forget, retain, task, lam, seed)

    return stub


def through(model, forget, retain, task, lam, seed):
    return ensemble(model, forget, retain, task, lam=lam, K=1, epochs=(1,), seed=seed)


def no_op(model, forget, retain, task, lam, seed):
    task.loss(model, forget.all())
    task.loss(model, retain.all())
    return Unlearned(clone(model))


def seedless(model, forget, retain, task, lam, seed):
    retain.all()
    return through(model, forget, retain, task, lam, 0)


def in_place(model, forget, retain, task, lam, seed):
    retain.all()
    new = through(model, forget, retain, task, lam, seed).model
    return Unlearned(set_weights(model, weights(new)))


def never_zero(model, forget, retain, task, lam, seed):
    retain.all()
    return through(model, forget, retain, task, lam + 0.1, seed)


@pytest.mark.parametrize(
    "body, message",
    [
        (no_op, "the seed does nothing"),
        (seedless, "the seed does nothing"),
        (in_place, "changed its input"),
        (never_zero, "changed weights"),
        (through, "reads none"),
    ],
)
def test_the_contract_finds_planted_faults(body, message):
    with pytest.raises(AssertionError, match=message):
        battery(planted(body), {"lam": 0.0})


def test_the_contract_finds_a_strategy_that_reads_more_than_it_declares():
    def greedy(model, forget, retain, task, lam, seed):
        return ensemble(model, forget, retain, task, lam=lam, K=1, epochs=(1,), seed=seed)

    stub = planted(greedy, reads=("forget inputs",))
    with pytest.raises(DataAccessError, match="the forget labels"):
        check_reads_no_more_than_declared(stub, {})


def test_the_original_is_left_alone_by_every_mode():
    where = setting()
    model = where.model()
    before = copy.deepcopy(model.state_dict())
    arguments = model, where.forget(), where.retain(), where.task()
    ensemble(*arguments)
    ensemble(*arguments, mode="ties", members=(fine_tune,))
    assert same_weights(model.state_dict(), before)
