"""The metrics: known answers, what must not change them, and second opinions."""

import math

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from scipy.spatial.distance import jensenshannon
from scipy.stats import norm
from sklearn.metrics import roc_auc_score, roc_curve

from erasus_nb import metrics
from erasus_nb.metrics import (
    auc,
    js_divergence,
    lira_lite,
    logit_scaled_confidence,
    memorisation_scores,
    privleak,
    tug_of_war,
)


def softmax_pairs(classes, n=200, seed=0):
    draw = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, n, classes, generator=draw) * 3
    return logits.double().softmax(-1)


# ------------------------------------------------------------------ divergence


def test_answers_with_no_class_in_common_are_ln2_apart():
    sure_cat, sure_dog = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    assert js_divergence(sure_cat, sure_dog).item() == pytest.approx(math.log(2))


def test_equal_answers_are_exactly_zero_apart():
    p, _ = softmax_pairs(10)
    assert (js_divergence(p, p) == 0).all()


def test_a_coin_against_a_certainty_has_the_value_worked_out_by_hand():
    coin, sure = torch.tensor([[0.5, 0.5]]), torch.tensor([[1.0, 0.0]])
    by_hand = 0.5 * (0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25) + math.log(1 / 0.75))
    assert js_divergence(coin, sure).item() == pytest.approx(by_hand)


def test_classes_nobody_predicts_do_not_change_the_divergence():
    p, q = torch.tensor([[0.7, 0.3]]), torch.tensor([[0.2, 0.8]])
    p100, q100 = (torch.nn.functional.pad(x, (0, 98)) for x in (p, q))
    assert torch.allclose(js_divergence(p100, q100), js_divergence(p, q))


def test_the_divergence_of_a_hundred_classes_is_not_averaged_away():
    # The formula that several codebases share calls these pairs nearly equal (1 - JS
    # 0.96).
    p, q = softmax_pairs(100)
    ours = js_divergence(p, q)
    middle = (p + q) / 2
    common = (middle * (middle / p).log()).mean()  # over examples and classes
    assert 1 - ours.mean() / math.log(2) < 0.5
    assert 1 - common > 0.95


def test_scipy_agrees_on_the_divergence():
    p, q = softmax_pairs(7)
    theirs = jensenshannon(p.numpy(), q.numpy(), axis=1) ** 2
    assert js_divergence(p, q).numpy() == pytest.approx(theirs)


def test_logits_and_rows_of_another_shape_are_refused():
    p, q = softmax_pairs(4)
    with pytest.raises(ValueError, match="q must hold probabilities"):
        js_divergence(p, q.log())
    with pytest.raises(ValueError, match="rows must match"):
        js_divergence(p, q[:10])


# ------------------------------------------------------------------ AUC and PrivLeak


@pytest.mark.parametrize(
    "members, others, wanted", [([2, 3], [0, 1], 1.0), ([0, 1], [2, 3], 0.0), ([1, 1], [1, 1], 0.5)]
)
def test_auc_at_its_ends_and_when_everything_is_tied(members, others, wanted):
    assert auc(members, others) == wanted


def test_sklearn_and_a_slow_loop_agree_on_the_auc_of_tied_scores():
    draw = np.random.default_rng(0)
    members, others = draw.integers(1, 8, 60), draw.integers(0, 7, 90)
    wins = [(m > o) + 0.5 * (m == o) for m in members for o in others]
    labels = np.r_[np.ones(60), np.zeros(90)]
    theirs = roc_auc_score(labels, np.r_[members, others])
    assert auc(members, others) == pytest.approx(np.mean(wins))
    assert auc(torch.tensor(members), torch.tensor(others)) == pytest.approx(theirs)


def test_auc_has_no_answer_for_nan_and_refuses_an_empty_group():
    assert math.isnan(auc([1.0, math.nan], [0.0]))
    assert math.isnan(auc([1.0], [0.0, math.nan]))
    with pytest.raises(ValueError, match="at least one"):
        auc([], [1.0])


@pytest.mark.parametrize(
    ("members", "others", "fpr", "wanted"),
    [
        ([2, 3], [0, 1], 0.0, 1.0),
        ([0, 1], [2, 3], 0.0, 0.0),
        ([1, 3], [0, 2], 0.0, 0.5),
        ([1, 3], [0, 2], 0.5, 1.0),  # the threshold may call the 2 a member
        ([1, 3], [0, 2], 0.49, 0.5),  # two of two are no half of one
        ([1, 1, 1], [1, 1], 0.5, 0.0),  # a tie with an other is not found
        ([0, 5], [9, 9], 1.0, 1.0),
        ([70.5], range(100), 0.29, 1.0),  # 0.29 * 100 is just below 29
    ],
)
def test_true_positives_at_a_share_of_false_ones(members, others, fpr, wanted):
    assert metrics.tpr_at_fpr(members, others, fpr) == wanted


def test_sklearn_agrees_on_true_positives_at_a_share_of_false_ones():
    draw = np.random.default_rng(5)
    members, others = draw.normal(0.7, 1, 150).round(1), draw.normal(0, 1, 208).round(1)
    labels = np.r_[np.ones(150), np.zeros(208)]
    false, true, _ = roc_curve(labels, np.r_[members, others], drop_intermediate=False)
    for fpr in (0.01, 0.1, 0.5):
        assert metrics.tpr_at_fpr(members, others, fpr) == true[false <= fpr].max()


def test_a_rate_of_nobody_and_a_share_above_one_are_refused():
    for bad in (([], [1], 0.1), ([1], [], 0.1)):
        with pytest.raises(ValueError, match="members and non-members"):
            metrics.tpr_at_fpr(*bad)
    with pytest.raises(ValueError, match="between 0 and 1"):
        metrics.tpr_at_fpr([1], [0], 1.5)


def test_privleak_has_muse_sign_on_both_sides():
    assert privleak(0.5, 0.5) == 0
    assert privleak(0.8, 0.5) == pytest.approx(-60)  # still familiar: under-unlearned
    assert privleak(0.2, 0.5) == pytest.approx(60)  # stranger than unseen: over-unlearned
    assert privleak(1.0, 0.48) == pytest.approx(-100)


def test_privleak_is_muse_formula_in_muse_own_auc():
    ours_unlearned, ours_retrained = 0.63, 0.5228
    muse_unlearned, muse_retrained = 1 - ours_unlearned, 1 - ours_retrained
    muse = (muse_unlearned - muse_retrained) / muse_retrained * 100
    assert privleak(ours_unlearned, ours_retrained) == pytest.approx(muse)


def test_privleak_of_nothing_is_refused():
    with pytest.raises(ValueError, match="0 here"):
        privleak(0.5, 1.0)
    with pytest.raises(ValueError, match="between 0 and 1"):
        privleak(-60.0, 0.5)


def test_tug_of_war_is_one_at_retrained_and_multiplies_its_gaps():
    assert tug_of_war((0.4, 0.9, 0.8), (0.4, 0.9, 0.8)) == 1
    wanted = 0.5 * 0.9 * 0.8
    assert tug_of_war((0.9, 0.8, 1.0), (0.4, 0.9, 0.8)) == pytest.approx(wanted)


# ------------------------------------------------------------------ shadow models


def test_confidence_is_the_logit_of_the_label_probability():
    logits = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(1)).double()
    labels = torch.tensor([0, 3, 1, 2, 2])
    p = logits.softmax(-1)[:, torch.arange(5), labels]
    assert torch.allclose(logit_scaled_confidence(logits, labels), p.logit())
    assert torch.allclose(logit_scaled_confidence(logits[0], labels), p[0].logit())


def test_confidence_stays_finite_where_the_probability_rounds_to_one():
    logits, labels = torch.tensor([[200.0, 0.0, 0.0]]), torch.tensor([0])
    assert logits.softmax(-1)[0, 0] == 1
    assert logit_scaled_confidence(logits, labels).item() == pytest.approx(200 - math.log(2))


def shadows(lift, n=200, count=32, seed=0):
    """Confidences that rise by `lift` for the examples a shadow trained on."""
    draw = torch.Generator().manual_seed(seed)
    member = torch.zeros(count, n, dtype=torch.bool)
    for column in range(n):
        member[torch.randperm(count, generator=draw)[: count // 2], column] = True
    base = 2 * torch.randn(n, generator=draw)  # how easy each example is
    noise = torch.randn(count, n, generator=draw)
    confidence = base + lift * member + noise
    target_member = torch.arange(n) < n // 2
    target = base + lift * target_member + torch.randn(n, generator=draw)
    return confidence, member, target, target_member


def test_lira_finds_planted_members_where_plain_confidence_hardly_does():
    confidence, member, target, planted = shadows(lift=2.0)
    ratio = lira_lite(confidence, member, target)
    by_ratio = auc(ratio[planted], ratio[~planted])
    assert by_ratio > 0.85
    assert by_ratio > auc(target[planted], target[~planted]) + 0.1


def test_lira_finds_nothing_where_nothing_is_planted():
    confidence, member, target, planted = shadows(lift=0.0)
    ratio = lira_lite(confidence, member, target)
    assert auc(ratio[planted], ratio[~planted]) == pytest.approx(0.5, abs=0.08)


def test_a_slow_loop_with_scipy_agrees_on_the_likelihood_ratio():
    confidence, member, target, _ = shadows(lift=1.0, n=20)
    phi, inside, slow = confidence.numpy(), member.numpy(), []

    def fit(mask):
        means = [phi[mask[:, i], i].mean() for i in range(20)]
        left = np.concatenate([phi[mask[:, i], i] - means[i] for i in range(20)])
        return means, math.sqrt((left**2).mean())

    (mean_in, sd_in), (mean_out, sd_out) = fit(inside), fit(~inside)
    for i, x in enumerate(target.tolist()):
        slow.append(norm.logpdf(x, mean_in[i], sd_in) - norm.logpdf(x, mean_out[i], sd_out))
    assert lira_lite(confidence, member, target).numpy() == pytest.approx(slow, rel=1e-4)


def test_memorisation_is_one_for_rote_zero_for_knowledge_and_minus_one_for_harm():
    member = torch.tensor([[1, 1, 1], [1, 1, 1], [0, 0, 0], [0, 0, 0]], dtype=torch.bool)
    right = torch.tensor([[1, 1, 0], [1, 1, 0], [0, 1, 1], [0, 1, 1]], dtype=torch.bool)
    assert memorisation_scores(right, member).tolist() == [1, 0, -1]


def test_memorisation_weighs_unequal_sides_as_means():
    member = torch.tensor([[1], [1], [1], [0]], dtype=torch.bool)
    right = torch.tensor([[1], [1], [0], [1]], dtype=torch.bool)
    assert memorisation_scores(right, member).item() == pytest.approx(2 / 3 - 1)


@pytest.mark.parametrize("always", [True, False])
def test_an_example_in_every_shadow_or_in_none_is_refused(always):
    confidence, member, target, _ = shadows(lift=1.0, n=10)
    member[:, 4] = always
    with pytest.raises(ValueError, match="first: 4"):
        lira_lite(confidence, member, target)
    with pytest.raises(ValueError, match="first: 4"):
        memorisation_scores(confidence > 0, member)


def test_shadows_that_do_not_fit_together_are_refused():
    confidence, member, target, _ = shadows(lift=1.0, n=10)
    with pytest.raises(ValueError, match="one shape"):
        lira_lite(confidence, member[:, :9], target)
    with pytest.raises(ValueError, match="targets for 10"):
        lira_lite(confidence, member, target[:9])
    with pytest.raises(ValueError, match="same confidence"):
        lira_lite(torch.ones_like(confidence), member, target)


# ------------------------------------------------------------------ generated images


def features(n=200, d=6, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=draw).double() @ torch.randn(d, d, generator=draw).double()


def test_the_frechet_distance_of_a_set_to_itself_is_nothing_whatever_its_order():
    rows = features()
    assert metrics.frechet(rows, rows.flip(0)) == pytest.approx(0, abs=1e-6)
    few = rows[:3]  # fewer rows than features: covariances without an inverse
    assert metrics.frechet(few, few) == pytest.approx(0, abs=1e-6)


def test_a_shift_counts_with_its_square_and_a_spread_with_the_difference_of_deviations():
    rows, shift = features(), torch.tensor([3.0, 0, 0, -4.0, 0, 0])
    assert metrics.frechet(rows + shift, rows) == pytest.approx(25)
    centred = rows - rows.mean(0)
    wanted = (2 - 1) ** 2 * np.trace(np.cov(rows.T))  # |A^1/2 - B^1/2|^2 where they commute
    assert metrics.frechet(2 * centred, centred) == pytest.approx(wanted)
    line = torch.tensor([[0.0], [1.0], [2.0]])
    assert metrics.frechet(line, 3 * line + 5) == pytest.approx((3 - 1) ** 2 + (8 - 1) ** 2)


def test_scipy_agrees_on_the_frechet_distance_and_it_is_symmetric():
    one, two = features(), features(90, seed=1) + 0.5
    a, b = (np.cov(x.T) for x in (one, two))
    apart = ((one.mean(0) - two.mean(0)) ** 2).sum()
    theirs = apart + np.trace(a + b - 2 * sqrtm(a @ b).real)
    assert metrics.frechet(one, two) == pytest.approx(float(theirs))
    assert metrics.frechet(two.numpy(), one.float()) == pytest.approx(float(theirs), rel=1e-4)


def test_a_frechet_distance_of_one_image_is_refused_and_nan_has_no_answer():
    rows = features()
    for pair in ((rows[:1], rows), (rows, rows[:1]), (rows[:0], rows)):
        with pytest.raises(ValueError, match="at least two images on either side"):
            metrics.frechet(*pair)
    for bad in (math.nan, math.inf):
        broken = rows.clone()
        broken[3, 2] = bad
        assert math.isnan(metrics.frechet(broken, rows))
        assert math.isnan(metrics.frechet(rows, broken))


def test_a_copy_is_the_nearest_image_and_nearer_than_others_are_to_each_other():
    distances = torch.tensor(
        [
            [0.1, 1.0, 1.2, 1.1],  # a copy of image 0
            [0.8, 1.0, 1.2, 1.1],  # nearest, and no nearer than images are to each other
            [1.0, 0.1, 1.2, 1.1],  # a copy, of another image
            [0.0, 0.0, 1.2, 1.1],  # as near to another one
        ]
    )
    found = lambda ratio, k=2: metrics.extracted(distances, torch.zeros(4).long(), ratio, k)
    assert found(0.5).tolist() == [True, False, False, False]
    assert found(0.8).tolist() == [True, True, False, False]
    assert metrics.extracted(distances, torch.tensor([1, 1, 1, 1]), 0.5, 3).tolist() == [
        False,
        False,
        True,
        False,
    ]


def test_the_threshold_is_a_share_of_the_mean_distance_to_so_many_next_images():
    distances, own = torch.tensor([[0.55, 1.0, 1.0, 4.0]]), torch.tensor([0])
    assert [bool(metrics.extracted(distances, own, 0.5, k)) for k in (1, 2, 3)] == [
        False,
        False,
        True,
    ]
    # The image itself is none of the next ones.
    assert not metrics.extracted(torch.tensor([[0.0, 0.0, 0.0]]), own, 0.5, 2)
    assert not metrics.extracted(torch.tensor([[math.nan, 1.0, 2.0]]), own, 0.5, 2)


def test_who_always_makes_the_mean_image_copies_nothing_and_a_thief_everything():
    draw = torch.Generator().manual_seed(4)
    images, own = torch.randn(60, 20, generator=draw), torch.arange(60)
    apart = lambda made: torch.cdist(made, images)
    mean = images.mean(0).expand(60, -1)
    assert (apart(mean).argmin(1) == own).sum() == 1  # something is always nearest
    assert not metrics.extracted(apart(mean), own, 0.7, 10).any()
    near = images + 0.01 * torch.randn(60, 20, generator=draw)
    assert metrics.extracted(apart(near), own, 0.7, 10).all()
    assert not metrics.extracted(apart(near), own.roll(1), 0.7, 10).any()


def test_no_metric_changes_what_it_is_given():
    confidence, member, target, _ = shadows(lift=1.0, n=10)
    draw = torch.Generator().manual_seed(2)
    logits = torch.randn(10, 4, generator=draw)
    labels = torch.randint(4, (10,), generator=draw)
    p = logits.softmax(-1)
    given = (confidence, member, target, logits, labels, p)
    before = [x.clone() for x in given]
    metrics.lira_lite(confidence, member, target)
    metrics.logit_scaled_confidence(logits, labels)
    metrics.js_divergence(p, p.flip(-1))
    metrics.auc(target, target.flip(0))
    assert all(torch.equal(x, y) for x, y in zip(given, before, strict=True))
