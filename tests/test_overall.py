"""All workloads together: known answers, and boards with known structure."""

from __future__ import annotations

import math
import statistics
from dataclasses import replace

import pytest
from scipy import stats
from test_score import (
    DESTROYED,
    RETRAINED,
    SEEDS,
    absent,
    between,
    board_of,
    document,
    reference,
    rows,
)

from erasus_nb import overall, score


def lines_of(**boards):
    return {line.name: line for line in overall.overall(boards)}


# ------------------------------------------------------------------ means and tests


def test_over_one_workload_the_interval_and_the_test_are_those_of_the_board():
    a, b = {0: 50.0, 1: 54.0, 2: 61.0}, {0: 47.0, 1: 55.0, 2: 49.0}
    found, wanted = overall.mean_over({"x": a}), score.interval(a.values())
    assert (found.mean, found.n) == (wanted.mean, wanted.n)
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high))
    assert overall.paired({"x": a}, {"x": b}) == pytest.approx(score.paired(a, b))


def test_the_interval_over_workloads_is_welchs():
    x, y = [50.0, 54.0, 61.0], [20.0, 22.0, 29.0, 25.0, 21.0]
    found = overall.mean_over({"x": dict(enumerate(x)), "y": dict(enumerate(y))})
    # Half the sum of two means: scipy's interval of the difference of x and -y, halved.
    ends = stats.ttest_ind(x, [-v for v in y], equal_var=False).confidence_interval(0.95)
    assert found.mean == pytest.approx((statistics.fmean(x) + statistics.fmean(y)) / 2)
    assert (found.low, found.high) == pytest.approx((ends.low / 2, ends.high / 2))


def test_two_strategies_are_compared_only_where_both_run():
    a = {"x": {0: 90.0, 1: 91.0}, "y": {0: 1.0, 1: 2.0}}
    b = {"x": {0: 80.0, 1: 81.5}}
    assert overall.paired(a, b) == pytest.approx(score.paired(a["x"], b["x"]))
    assert overall.paired(a, {"z": {0: 1.0}}) == (0.0, 1.0, 0)


def test_one_seed_tells_nothing_apart():
    a, b = {"x": {0: 90.0}, "y": {0: 9.0, 1: 8.0}}, {"x": {0: 10.0}, "y": {0: 1.0, 1: 0.0}}
    assert overall.paired(a, b)[1:] == (1.0, 1)
    assert overall.mean_over(a).low == overall.mean_over(a).mean


def test_equal_rows_are_equal_and_a_constant_difference_is_certain():
    a = {"x": {0: 50.0, 1: 60.0}}
    assert overall.paired(a, a)[:2] == (0.0, 1.0)
    assert overall.paired(a, {"x": {0: 40.0, 1: 50.0}})[:2] == (10.0, 0.0)


# ------------------------------------------------------------------ points and places


def test_points_are_the_share_of_others_that_a_row_is_above():
    means = {"a": {"x": 9, "y": 1}, "b": {"x": 5, "y": 5}, "c": {"x": 1, "y": 9}}
    assert overall.points(means) == {"a": 0.5, "b": 0.5, "c": 0.5}
    assert overall.points({"a": {"x": 9}, "b": {"x": 5}, "c": {"x": 5}}) == {
        "a": 1.0,
        "b": 0.25,  # c is equal: half of one of two others
        "c": 0.25,
    }


def test_points_do_not_change_when_a_workloads_scores_are_stretched():
    means = {"a": {"x": 9, "y": 1}, "b": {"x": 5, "y": 5}, "c": {"x": 1, "y": 2}}
    stretched = {name: {"x": row["x"] ** 3, "y": row["y"]} for name, row in means.items()}
    assert overall.points(means) == overall.points(stretched)


def test_a_missing_cell_takes_nothing_from_a_row():
    means = {"a": {"x": 9, "y": 9}, "b": {"x": 5, "y": 5}, "c": {"x": 1}}
    assert overall.points(means)["a"] == 1.0
    assert overall.points(means) | {"c": 0.0} == overall.points(means)
    assert overall.points({"a": {"x": 9}}) == {}  # nothing to be above


def test_equal_points_share_a_place():
    assert overall.places({"a": 0.5, "b": 0.5, "c": 0.1}) == {"a": 1, "b": 1, "c": 3}


# ------------------------------------------------------------------ the board


def test_a_clear_order_is_found_and_told():
    one = board_of(
        rows("good", between(0.1)), rows("fair", between(0.3)), rows("bad", between(0.7))
    )
    found = lines_of(x=one, y=one)
    assert [found[n].place for n in ("good", "fair", "bad")] == [1, 2, 3]
    assert [found[n].rank for n in ("good", "fair", "bad")] == [(1, 1), (2, 2), (3, 3)]
    assert [found[n].won for n in ("good", "fair", "bad")] == [1.0, 0.5, 0.0]
    assert [found[n].tier for n in ("good", "fair", "bad")] == ["A", "B", "C"]
    assert found["good"].rm.mean == pytest.approx(one["good"].rm.mean)
    assert found["good"].without_workload == found["good"].without_seed == (1, 1)
    assert found["retrained"].place is found["fine_tune"].rank is None
    assert list(found)[:3] == ["good", "fair", "bad"]


def test_a_strategy_on_fewer_workloads_is_compared_on_those():
    hard = board_of(
        rows("both", between(0.6)),
        rows("other", between(0.65)),
        absent("only", "not_applicable", "no"),
    )
    mixed = board_of(
        rows("both", between(0.2)), rows("other", between(0.4)), rows("only", between(0.3))
    )
    found = lines_of(mixed=mixed, hard=hard)
    assert found["only"].on.keys() == {"mixed"} and found["only"].place
    # Its mean over one easy workload is higher than both's over two, and it is below both there.
    assert found["only"].rm.mean > found["both"].rm.mean
    assert found["only"].rank[0] > found["both"].rank[0]
    assert found["both"].place == 1
    assert "only" not in lines_of(hard=hard)


def test_leaving_out_the_one_workload_that_made_it_first_is_seen():
    a = board_of(rows("p", between(0.1)), rows("q", between(0.3)), rows("r", between(0.5)))
    b = board_of(rows("p", between(0.1)), rows("q", between(0.3)), rows("r", between(0.5)))
    c = board_of(rows("p", between(0.6)), rows("q", between(0.3)), rows("r", between(0.5)))
    found = lines_of(a=a, b=b, c=c)
    assert found["p"].place == 1 and found["p"].without_workload == (1, 2)
    assert found["q"].without_workload == (1, 2)
    assert lines_of(a=a)["p"].without_workload is None


def test_a_seed_that_carries_the_order_alone_is_seen():
    far = [replace_value(r, 7, "C1", 0.05) for r in rows("q", between(0.305), noise=0.0)]
    board = board_of(rows("p", between(0.3), noise=0.0), far, rows("r", between(0.5)))
    found = lines_of(x=board)
    assert found["q"].place == 1 and found["q"].without_seed == (1, 2)


def replace_value(row, seed, name, value):
    if row.seed == seed:
        row.metrics[name].value = value
    return row


def test_only_who_beats_the_control_on_its_own_workloads_may_be_first():
    high = board_of(rows("only", between(0.2)), rows("both", between(0.1)))
    low = board_of(rows("both", between(0.75), noise=0.1))
    found = lines_of(x=high, y=low)
    assert found["only"].above_control
    # A control that is good on x alone is the bar of who runs on x alone.
    strong = rows("random_label", between(0.15), "control")
    better = board_of(rows("only", between(0.2)), rows("both", between(0.1)), strong)
    weak = board_of(rows("both", between(0.2)), rows("random_label", between(0.95), "control"))
    found = lines_of(x=better, y=weak)
    assert not found["only"].above_control and found["both"].above_control


def test_a_control_that_lacks_a_seed_or_a_workload_still_has_to_be_beaten():
    strong = rows("random_label", between(0.15), "control")
    strategies = rows("good", between(0.3)), rows("best", between(0.05))
    whole = board_of(*strategies, strong)
    partial = board_of(*strategies, strong[1:])
    nowhere = board_of(*strategies)
    for y in (whole, partial, nowhere):
        found = lines_of(x=whole, y=y)
        assert found["best"].above_control and not found["good"].above_control


def test_the_sentence_on_who_is_first():
    said = lambda **boards: overall.first_place(overall.overall(boards))
    good, fair = rows("good", between(0.1)), rows("fair", between(0.3))
    one = board_of(good, fair)
    assert said(x=one, y=one).startswith("good is first: no other strategy is significantly better")
    nobody = board_of(rows("good", between(0.9)), rows("fair", between(0.9)))
    assert said(x=nobody, y=nobody).startswith("No strategy is significantly better")
    alone = board_of(good, rows("fair", between(0.9)))
    assert said(x=alone, y=alone).startswith("Only good is significantly better")
    some = board_of(rows("fair", between(0.3)), absent("good", "not_applicable", "no"))
    assert "good (on 1 of 2)" in said(x=one, y=some)


def test_boards_of_one_seed_give_means_and_no_order_that_is_told():
    seeds = (0,)
    made = [rows(name, between(s), seeds=seeds) for name, s in (("a", 0.1), ("b", 0.6))]
    board = score.board([reference(seeds), document([r for group in made for r in group])])
    found = {line.name: line for line in overall.overall({"x": board})}
    assert found["a"].place == 1 and found["a"].rank == found["b"].rank == (1, 2)
    assert found["a"].rm.n == 1 and found["a"].without_seed is None
    assert not found["a"].above_control
    said = overall.first_place(overall.overall({"x": board}))
    assert said == "One training seed tells nothing apart, so no strategy is called first"
    assert overall.first_place([]) == "No strategy could be ranked"


# ------------------------------------------------------------------ what seeds can carry


def test_the_smallest_difference_is_the_one_that_is_just_significant():
    board = board_of(rows("a", between(0.2)), rows("b", between(0.5)), rows("c", between(0.6)))
    found = overall.resolution(board)
    assert found.pairs == 3
    spreads = sorted(
        statistics.stdev(board[a].rm_by_seed[s] - board[b].rm_by_seed[s] for s in SEEDS)
        for a, b in (("a", "b"), ("a", "c"), ("b", "c"))
    )
    assert found.spread == pytest.approx(spreads[1])
    t = found.smallest / (found.spread / math.sqrt(len(SEEDS)))
    assert 2 * stats.t.sf(t, len(SEEDS) - 1) == pytest.approx(score.ALPHA / 3)


def test_so_many_seeds_as_it_says_make_five_points_significant_and_fewer_do_not():
    board = board_of(*(rows(n, between(s), noise=0.04) for n, s in (("a", 0.2), ("b", 0.5))))
    found = overall.resolution(board)
    p = lambda n: 2 * stats.t.sf(overall.TOLD / (found.spread / math.sqrt(n)), n - 1)
    assert p(found.seeds_for) <= score.ALPHA < p(found.seeds_for - 1)


def test_pairs_that_never_differ_say_nothing_of_how_others_scatter():
    gone = [rows(f"gone{n}", DESTROYED, noise=0) for n in range(5)]
    board = board_of(rows("good", between(0.1)), *gone)
    assert all(board[f"gone{n}"].rm_by_seed == board["gone0"].rm_by_seed for n in range(5))
    found = overall.resolution(board)
    assert found.pairs == 15 and found.smallest > 0.01
    assert overall.resolution(board_of(*gone)) is None


def test_one_strategy_or_one_seed_has_no_resolution():
    assert overall.resolution(board_of(rows("a", RETRAINED))) is None
    board = board_of(rows("a", RETRAINED), rows("b", between(0.5)))
    assert overall.resolution(replace(board, seeds=(0,))) is None
