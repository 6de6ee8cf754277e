"""The score: known answers, planted faults, and boards of rows with known structure."""

import csv
import io
import json
import math
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import fabricate
import numpy as np
import pytest
from scipy import stats

from erasus_nb import overall, records, score
from erasus_nb.workloads import gates as declared

SEEDS = tuple(range(8))

# What a model of each kind measures, before noise. D: divergence from retrained, nats.
ORIGINAL = {"C1": 1.0, "C2": 0.94, "C3": 0.90, "C4": 0.95, "D": 0.60}
RETRAINED = {"C1": 0.05, "C2": 0.02, "C3": 0.50, "C4": 0.95, "D": 0.04}
FRESH = {"C1": 0.1, "C2": 0.1, "C3": 0.5, "C4": 0.1, "D": 0.4}
DESTROYED = {"C1": 0.0, "C2": 0.0, "C3": 0.3, "C4": 0.15, "D": 0.6}
HALFWAY = {"C1": 0.525, "C2": 0.48, "C3": 0.70, "C4": 0.95, "D": 0.32}


def between(share, **other):
    """Measurements `share` of the way from retrained (0) to the original (1)."""
    found = {k: RETRAINED[k] + share * (ORIGINAL[k] - RETRAINED[k]) for k in ORIGINAL}
    return found | other


def row(strategy, seed, numbers, kind="strategy", noise=0.004, seeds=SEEDS, **fields):
    """One row with a little noise that follows from strategy and seed."""
    draw = np.random.default_rng([seed, *strategy.encode()])
    numbers = {k: v if v is None else v + noise * draw.normal() for k, v in numbers.items()}
    away = numbers.pop("D")
    accuracy = numbers["C1"]
    numbers |= {"forget_accuracy": accuracy, "retain_accuracy": numbers["C4"]}
    numbers |= {"forget_loss": 1.5, "retain_loss": 0.25}
    own = 0.0 if kind == "retrained" else away
    values = {
        "category": "Gradient" if kind == "strategy" else kind.capitalize(),
        "status": "ok",
        "metrics": {
            name: records.Metric(
                name=name,
                value=value,
                unit="fraction",
                better="closer to retrained",
                reason=None if value is not None else "not asked",
            )
            for name, value in numbers.items()
        },
        "divergence_to_retrained": {str(s): own if s == seed else away for s in seeds},
        "weights_changed": kind != "original",
        "cost": records.Cost(
            seconds=1.0, example_passes=100, retrain_seconds=4.0, retrain_example_passes=400
        ),
        "key": "k",
    }
    return records.Row(strategy=strategy, kind=kind, seed=seed, **(values | fields))


def rows(strategy, numbers, kind="strategy", seeds=SEEDS, **fields):
    return [row(strategy, s, numbers, kind, seeds=seeds, **fields) for s in seeds]


def absent(strategy, status, reason, seeds=SEEDS):
    return [
        records.Row(
            strategy=strategy,
            kind="strategy",
            category="Gradient",
            seed=s,
            status=status,
            reason=reason,
            key="k",
        )
        for s in seeds
    ]


def document(found, category="gradient", workload="toy", facts=(), at="2026-02-15T02:38:00Z"):
    return records.Document(
        category=category,
        workload=workload,
        profile="laptop",
        facts={
            "chance": 0.1,
            "forget": 64,
            "retain": 256,
            "holdout": 256,
            "batch_size": 32,
            "model": "BenchmarkModel (32->64->64->10)",
            "data": "Synthetic MUSE-style",
            "request_kind": "standard",
        }
        | dict(facts),
        environment=records.Environment(
            commit="c", dirty=False, python="3", torch="2", device="cpu", threads=1, at=at
        ),
        rows=found,
    )


def reference(seeds=SEEDS, **fields):
    """The reference document: original, retrained, and the controls."""
    found = rows("original", ORIGINAL, "original", seeds, **fields)
    found += rows("retrained", RETRAINED, "retrained", seeds, **fields)
    found += rows("random_init", FRESH, "control", seeds, **fields)
    found += rows("fine_tune", between(0.8), "control", seeds, **fields)
    return document(found, "reference")


def board_of(*groups, seeds=SEEDS):
    """A board of the references and some groups of rows."""
    return score.board([reference(seeds), document([r for g in groups for r in g])])


# ------------------------------------------------------------------ the formula


def test_the_headline_is_the_harmonic_mean_of_three_axes():
    by_hand = 100 * 3 / (1 / 0.5 + 1 / 0.25 + 1 / 1.0)
    assert score.retrain_match([0.5, 0.25, 1.0]) == pytest.approx(by_hand)
    assert score.retrain_match([1, 1, 1]) == 100
    assert score.retrain_match([0.9, 0.0, 0.9]) == 0


@pytest.mark.parametrize("rule", score.RULES)
def test_every_rule_agrees_at_the_ends_and_refuses_what_is_no_axis(rule):
    assert score.retrain_match([1, 1, 1], rule) == pytest.approx(100)
    assert score.retrain_match([0, 1, 1], rule) == 0
    with pytest.raises(ValueError, match="between 0 and 1"):
        score.retrain_match([1.2, 1, 1], rule)


def test_a_slow_recomputation_agrees_with_the_score_of_a_noisy_row():
    group = rows("halfway", between(0.3, C4=0.9), noise=0.03)
    original = rows("original", ORIGINAL, "original", noise=0.03)
    retrained = rows("retrained", RETRAINED, "retrained", noise=0.03)
    board = score.board([document(original + retrained, "reference"), document(group)])

    get = lambda r, m: r.metrics[m].value
    far = lambda r: np.mean([r.divergence_to_retrained[str(s)] for s in SEEDS if s != r.seed])
    for u in group:
        peers = [r for r in retrained if r.seed != u.seed]
        match = {}
        for m in ("C1", "C2", "C3"):
            gap = np.mean([get(r, m) for r in original])
            gap -= np.mean([get(r, m) for r in retrained])
            z = (get(u, m) - np.mean([get(r, m) for r in peers])) / gap
            match[m] = min(max(1 - abs(z), 0), 1)
        top, floor = (np.mean([far(r) for r in original]), np.mean([far(r) for r in retrained]))
        output = min(max((top - far(u)) / (top - floor), 0), 1)
        wanted = np.mean([get(r, "C4") for r in peers])
        useful = min(1 - max(0, wanted - get(u, "C4")) / (wanted - 0.1), 1)
        axes = [(match["C1"] + match["C2"]) / 2, (match["C3"] + output) / 2, useful]
        by_hand = 100 * 3 / sum(1 / a for a in axes)
        assert board["halfway"].rm_by_seed[u.seed] == pytest.approx(by_hand)


def test_doing_nothing_scores_0_and_retraining_about_100():
    board = board_of()
    assert board["original"].rm.mean < 3
    assert 97 < board["retrained"].rm.mean <= 100
    assert board["original"].position["C1"].mean == pytest.approx(1, abs=1e-9)
    assert board["retrained"].position["C2"].mean == pytest.approx(0, abs=1e-9)


def test_a_copy_of_the_retrained_entered_as_a_strategy_scores_as_it_does():
    copies = [
        r.model_copy(update={"strategy": "copy", "kind": "strategy"})
        for r in rows("retrained", RETRAINED, "retrained")
    ]
    board = board_of(copies)
    assert board["copy"].rm_by_seed == board["retrained"].rm_by_seed
    assert board["copy"].flags == ()
    assert board["copy"].rank == (1, 1)


@pytest.mark.parametrize("name", ["C1", "C2", "C3"])
def test_going_too_far_costs_as_much_as_not_going_far_enough(name):
    gap = ORIGINAL[name] - RETRAINED[name]
    at = lambda z: RETRAINED | {name: RETRAINED[name] + z * gap}
    quiet = reference(noise=0.0)
    group = rows("under", at(0.4), noise=0.0) + rows("over", at(-0.4), noise=0.0)
    board = score.board([quiet, document(group)])
    assert board["under"].position[name].mean == pytest.approx(0.4)
    assert board["over"].position[name].mean == pytest.approx(-0.4)
    assert board["under"].rm.mean == pytest.approx(board["over"].rm.mean)
    assert board["under"].rm.mean < 95


def test_more_utility_than_retrained_is_not_punished_and_less_is():
    group = rows("better", RETRAINED | {"C4": 1.0}) + rows("worse", RETRAINED | {"C4": 0.5})
    board = board_of(group)
    assert board["better"].utility.mean == 1
    assert board["worse"].utility.mean == pytest.approx((0.5 - 0.1) / (0.95 - 0.1), abs=0.01)


def test_each_seed_is_compared_with_the_other_seeds_only():
    # Retrained model 0 is an outlier. Judged by itself, it would look perfect.
    odd = reference(noise=0.0)
    outlier = next(r for r in odd.rows if r.kind == "retrained" and r.seed == 0)
    outlier.metrics["C1"].value = 0.45
    board = score.board([odd])
    positions = board["retrained"].position_by_seed["C1"]
    assert positions[0] > 0.4
    assert -0.1 < positions[1] < 0


def test_the_noise_floor_of_the_answers_is_full_marks():
    group = rows("as near as retrained", RETRAINED) + rows("far", RETRAINED | {"D": 0.32})
    board = board_of(group)
    assert board["as near as retrained"].privacy.mean > 0.97
    assert board["far"].privacy.mean == pytest.approx(0.75, abs=0.02)


# ------------------------------------------------------------------ planted faults


def test_a_destroyed_model_scores_low_and_is_called_collapsed_and_over_unlearned():
    board = board_of(rows("ascent", DESTROYED))
    assert board["ascent"].rm.mean < 20
    flags = board["ascent"].flags
    assert flags == (
        "collapsed",
        "forgets what stays",
        "over-unlearned",
        "not better than control",
    )


def test_a_model_at_chance_scores_nothing_and_is_not_taken_for_a_no_op():
    board = board_of(rows("dead", FRESH | {"C4": 0.1}, noise=0.0))
    assert board["dead"].rm.mean == pytest.approx(0, abs=0.5)
    assert "collapsed" in board["dead"].flags
    assert "no-op" not in board["dead"].flags


def test_a_random_network_wins_the_seed_rule_and_not_the_score():
    board = board_of(rows("noise", FRESH), rows("good", between(0.15)))
    table, _ = score.seed_table(board)
    assert table[0]["Strategy"] == "noise"
    assert [s.name for s in board.of("strategy")] == ["good", "noise"]
    assert "collapsed" in board["noise"].flags


def test_unchanged_weights_are_a_no_op():
    board = board_of(rows("idle", ORIGINAL, weights_changed=False))
    assert board["idle"].flags == ("no-op", "not better than control")


def test_changed_weights_without_an_effect_are_a_no_op_at_any_number_of_seeds():
    for seeds in (SEEDS, (0, 1), (0,)):
        board = board_of(rows("jiggle", ORIGINAL, seeds=seeds), seeds=seeds)
        assert "no-op" in board["jiggle"].flags


def test_a_half_effect_is_no_no_op_even_at_two_seeds():
    for seeds in (SEEDS, (0, 1), (0,)):
        board = board_of(rows("half", HALFWAY, seeds=seeds), seeds=seeds)
        assert "no-op" not in board["half"].flags


def test_a_forget_set_that_stands_out_more_than_before_is_exposed():
    board = board_of(rows("random labels", RETRAINED | {"C3": 0.97}))
    assert "exposes" in board["random labels"].flags
    assert board["random labels"].position["C3"].low > 1
    assert board["original"].flags == board["retrained"].flags == ()


def test_only_a_clear_win_over_the_best_cheap_control_counts():
    board = board_of(rows("same", between(0.8)), rows("better", between(0.3)))
    assert "not better than control" in board["same"].flags
    assert board["better"].flags == ()
    cheap = [s for s in board.standings if s.name in score.CHEAP_CONTROLS]
    assert board.bar is max(cheap, key=lambda control: control.rm.mean)


def test_a_win_within_the_noise_is_no_win():
    board = board_of(rows("lucky", between(0.75), noise=0.1))
    assert board["lucky"].rm.mean > board["fine_tune"].rm.mean
    assert board["lucky"].flags == ("not better than control",)


def test_a_shift_within_the_noise_is_not_called_over_unlearned():
    board = board_of(rows("shaky", RETRAINED | {"C3": 0.40}, noise=0.1))
    assert board["shaky"].position["C3"].mean < -0.1
    assert board["shaky"].position["C3"].high > -0.1
    assert "over-unlearned" not in board["shaky"].flags


def test_a_model_that_only_answers_differently_is_no_no_op():
    # Every summary is still within noise of the original's, but the score is not.
    board = board_of(rows("reworded", between(0.96) | {"D": RETRAINED["D"]}))
    assert all(abs(z.mean - 1) < 0.05 for z in board["reworded"].position.values())
    assert "no-op" not in board["reworded"].flags


def test_the_cost_matched_control_is_not_the_one_to_beat():
    group = rows("partial_retrain", between(0.05), "control")
    board = board_of(group, rows("better", between(0.3)))
    assert board["partial_retrain"].rm.mean > board["better"].rm.mean
    assert board["better"].flags == ()


def test_errors_and_absences_are_lines_with_their_reason_and_no_rank():
    mixed = rows("mixed", between(0.2))
    mixed[3] = absent("mixed", "diverged", "the forget loss is not finite")[3]
    board = board_of(
        mixed,
        absent("broken", "error", "ValueError: boom | <b>"),
        absent("elsewhere", "not_applicable", "it needs text"),
        rows("good", between(0.2)),
    )
    by_status = {s.name: s.status for s in board.of("strategy")}
    assert by_status == {
        "good": "ok",
        "mixed": "partial",
        "broken": "error",
        "elsewhere": "not_applicable",
    }
    assert list(by_status)[:2] == ["good", "mixed"]
    assert board["mixed"].reason == "seed 3: the forget loss is not finite"
    assert len(board["mixed"].seeds) == 7 and board["mixed"].rm is not None
    assert "errored" in board["mixed"].flags and "errored" in board["broken"].flags
    assert board["elsewhere"].flags == ()
    assert [s.rank for s in board.of("strategy")] == [(1, 1), None, None, None]
    text = score.markdown(board)
    assert "error: ValueError: boom \\| &lt;b>" in text
    assert "not applicable: it needs text" in text


# ------------------------------------------------------------------ seeds


def test_everything_is_computed_on_the_seeds_that_a_strategy_was_tried_at():
    some = SEEDS[:5]
    head = reference()
    quick, slow = between(0.1), between(0.4)
    mine = document(
        [r for r in rows("quick", quick) + rows("slow", slow) if r.seed in some], "gradient"
    )
    board = score.board([head, mine])
    assert board.seeds == some and board.left_out == SEEDS[5:] and not board.missing
    less = lambda d: d.model_copy(update={"rows": [r for r in d.rows if r.seed in some]})
    same = score.board([less(head), less(mine)])
    assert board.standings == same.standings and board.gates == same.gates
    assert all(s.status == "ok" and s.seeds == some for s in board.standings)
    said = score.what_is_missing(board)
    assert said.startswith("Seeds 5, 6, 7 left out, because") and said in score.markdown(board)
    assert score.what_is_missing(same) == ""


def test_a_seed_without_an_original_or_a_retrained_model_is_left_out():
    head = reference()
    lost = {("original", 2), ("retrained", 6)}
    kept = [r for r in head.rows if (r.strategy, r.seed) not in lost]
    failed = next(r for r in head.rows if (r.strategy, r.seed) == ("original", 2))
    kept.append(failed.model_copy(update={"status": "error", "reason": "boom"}))
    board = score.board([document(kept, "reference"), document(rows("half", HALFWAY))])
    assert board.seeds == (0, 1, 3, 4, 5, 7) and board.left_out == (2, 6)
    assert board["half"].seeds == board["original"].seeds == board.seeds
    assert board["half"].rank == (1, 1)
    never = [r for r in head.rows if r.kind != "retrained" or r.seed > 3]
    never = [r for r in never if r.kind != "original" or r.seed < 4]
    with pytest.raises(records.RecordError, match="at no seed are both"):
        score.board([document(never, "reference")])


def test_a_strategy_that_lacks_a_seed_is_shown_last_and_never_compared():
    # On the seeds that it has it would be first by far.
    best = [r for r in rows("best", RETRAINED) if r.seed not in (3, 6)]
    board = board_of(best, rows("good", between(0.2)), rows("bad", between(0.7)))
    line = board["best"]
    assert (line.status, line.reason) == ("partial", "no row at seeds 3, 6")
    assert line.rm.mean > board["good"].rm.mean and line.seeds == (0, 1, 2, 4, 5, 7)
    assert line.rank is line.tier is None and "errored" not in line.flags
    assert board.missing == {"best": (3, 6)} and board.left_out == ()
    assert [s.name for s in board.of("strategy")] == ["good", "bad", "best"]
    assert [s.name for s in board.leaders] == ["good"]
    assert "best" not in score.first_place(board).replace("best cheap", "")
    assert board.pairs_resolved[1] == 1
    assert all("best" not in found.rm for found in score.sensitivity(board))
    (good,) = [x for x in overall.overall({"toy": board, "two": board}) if x.name == "good"]
    assert good.place == 1


def test_a_failure_does_not_shrink_the_board_to_hide_itself():
    failing = rows("failing", between(0.1))
    failing[4] = absent("failing", "diverged", "no end")[4]
    board = board_of(failing)
    assert board.seeds == SEEDS and board.missing == {"failing": (4,)}
    assert board["failing"].reason == "seed 4: no end"
    assert "errored" in board["failing"].flags and not board.leaders
    every = [absent("failing", "error", f"reason {s % 3}")[s] for s in (1, 2, 3)]
    found = [r for r in rows("failing", HALFWAY) if r.seed not in (1, 2, 3, 5)] + every
    board = board_of(found, rows("other", HALFWAY))
    assert board["failing"].reason == (
        "seeds 1, 2, 3: reason 1 (and 2 other reasons); no row at seed 5"
    )


def test_a_row_without_a_score_at_one_seed_is_partial_too():
    found = rows("once", between(0.2))
    found[2] = row("once", 2, between(0.2) | {"C4": None})
    board = board_of(found, rows("good", between(0.3)))
    assert board["once"].reason == "no score at seed 2" and board["once"].rank is None


def test_a_control_that_lacks_a_seed_stays_the_one_to_beat():
    """Or a failed run of the best control would make every strategy look better."""
    head = reference()
    rest = [r for r in head.rows if (r.strategy, r.seed) != ("fine_tune", 5)]
    board = score.board([document(rest, "reference"), document(rows("same", between(0.8)))])
    assert board["fine_tune"].status == "partial" and board.missing == {"fine_tune": (5,)}
    assert board.bar.name == "fine_tune" and "not better than control" in board["same"].flags
    assert board.standings[-1].name == "fine_tune"


def test_what_does_not_apply_is_not_missing_and_asks_for_no_seed():
    other = absent("elsewhere", "not_applicable", "it needs text")
    board = board_of(other[:2], [r for r in rows("half", HALFWAY) if r.seed < 4])
    assert board.seeds == (0, 1, 2, 3) and not board.missing
    assert (board["elsewhere"].status, board["elsewhere"].reason) == (
        "not_applicable",
        "it needs text",
    )
    assert board_of(other).seeds == SEEDS


def test_a_strategy_of_other_seeds_than_the_references_is_a_line_without_a_score():
    board = board_of(rows("stranger", HALFWAY, seeds=(20, 21)))
    assert board.seeds == SEEDS and board.left_out == (20, 21)
    assert board["stranger"].rm is None and board["stranger"].reason.startswith("no row at seeds 0")
    assert score.json_text(board) and score.csv_text(board)


def test_text_formats_say_which_seeds_are_missing():
    most = [r for r in rows("most", between(0.2)) if r.seed != 1]
    board = board_of(most, [r for r in rows("other", between(0.5)) if r.seed != 7])
    assert board.missing == {"most": (1,), "other": (7,)}
    said = "Not compared, because they lack seeds: most (seed 1), other (seed 7)."
    assert said in score.markdown(board)
    lines = {x["strategy"]: x for x in csv.DictReader(io.StringIO(score.csv_text(board)))}
    assert lines["most"]["missing_seeds"] == "1" and lines["original"]["missing_seeds"] == ""
    (parsed,) = json.loads(score.json_text(board))
    assert parsed["missing"] == {"most": [1], "other": [7]} and parsed["left_out"] == []
    shorter = board_of([r for r in rows("half", HALFWAY) if r.seed < 6])
    (line, *_) = csv.DictReader(io.StringIO(score.csv_text(shorter)))
    assert line["seeds_left_out"] == "6 7"


# ------------------------------------------------------------------ who is first


@pytest.mark.parametrize("case", fabricate.FIRST)
def test_only_who_is_better_than_the_best_cheap_control_is_called_first(case):
    board = score.board(fabricate.documents(**fabricate.FIRST[case]))
    begins, names = fabricate.SAID[case]
    assert board["lora"].rank[0] == 1  # and yet it is never named
    assert tuple(s.name for s in board.leaders) == names
    marked = score.first_place(board, lambda name: f"<{name}>")
    assert marked.startswith(begins.format(*(f"<{name}>" for name in names)))
    assert "the best cheap control, <random_label>" in marked and "<lora>" not in marked
    assert f"{score.first_place(board)}." in score.markdown(board).replace("\\", "")


def test_where_several_are_better_than_the_control_one_alone_can_be_first():
    board = board_of(rows("top", between(0.1)), rows("mid", between(0.4)))
    assert score.first_place(board) == (
        "top is first, as far as the seeds can tell; 2 of 2 strategies on toy are "
        "significantly better than the best cheap control, fine_tune"
    )


def test_boards_on_which_nobody_can_be_first_say_why():
    board = board_of(rows("half", HALFWAY, seeds=(5,)), seeds=(5,))
    assert "not better than control" not in board["half"].flags and not board.leaders
    assert score.first_place(board).startswith("One training seed tells nothing apart on toy")
    assert score.first_place(board_of()) == "No strategy could be ranked on toy"
    none = [s for s in board_of(rows("half", HALFWAY)).standings if s.kind == "strategy"]
    board = replace(board_of(rows("half", HALFWAY)), standings=tuple(none))
    assert not board.leaders and "No cheap control has a score" in score.first_place(board)
    board = board_of(rows("half", HALFWAY))
    assert score.first_place(board).startswith("half, the only strategy ranked on toy, is sign")
    board = board_of(rows("idle", between(0.9)))
    assert score.first_place(board).startswith("idle, the only strategy ranked on toy, is not")
    # A steady one above the control, and one that is better still but scatters too much.
    a, b = board_of(rows("a", between(0.2)), rows("b", between(0.3))).above_control
    board = board_of(rows("a", between(0.2)), rows("b", between(0.3)))
    lines = [replace(s, rank=(2, 3)) if s in (a, b) else s for s in board.standings]
    board = replace(board, standings=tuple(lines))
    assert not board.leaders and "the seeds put none of them first" in score.first_place(board)


def test_long_lists_of_names_end_in_a_number():
    assert score.listed([]) == "" and score.listed(["a"]) == "a"
    assert score.listed("abc") == "a, b and c"
    assert score.listed("abcdefg", most=4) == "a, b, c and 4 more"


# ------------------------------------------------------------------ what may be missing


def test_a_request_without_a_concept_is_scored_on_its_canaries():
    facts = {"request_kind": "most"}
    strip = lambda found: [
        r.model_copy(
            update={
                "metrics": r.metrics
                | {"C2": r.metrics["C2"].model_copy(update={"value": None, "reason": "-"})}
            }
        )
        for r in found
    ]
    head = document(strip(reference().rows), "reference", facts=facts)
    board = score.board([head, document(strip(rows("half", HALFWAY)), facts=facts)])
    assert "C2" not in board["half"].position
    match = [1 - abs(z) for z in board["half"].position_by_seed["C1"].values()]
    assert board["half"].forgetting.mean == pytest.approx(np.mean(match))
    assert board["half"].rm.mean > 40
    assert not [g for g in board.gates if g.name.startswith("C2")]
    assert board.gates_passed


def test_a_missing_axis_leaves_the_row_on_the_board_without_a_score():
    board = board_of(rows("no utility", between(0.2) | {"C4": None}))
    standing = board["no utility"]
    assert standing.status == "ok" and standing.rm is None and standing.rank is None
    assert standing.forgetting.mean == pytest.approx(0.8, abs=0.02)
    assert "no utility" in score.markdown(board)


def test_one_seed_scores_but_tells_nothing_apart():
    board = board_of(
        rows("good", between(0.1), seeds=(5,)), rows("bad", between(0.7), seeds=(5,)), seeds=(5,)
    )
    assert board["retrained"].rm == score.Interval(100, 100, 100, 1)
    assert board["good"].rm.mean > board["bad"].rm.mean
    assert board["good"].rank == board["bad"].rank == (1, 2)
    assert board["good"].tier == board["bad"].tier == "A"
    assert board.pairs_resolved == (0, 1)
    failed = {g.name: g for g in board.gates if not g.passed}
    assert set(failed) == {"D original / D retrained >= 5", "RM retrained >= 90"}
    assert all(g.value is None and "one seed" in g.reason for g in failed.values())


def test_boards_of_nothing_or_of_mixed_rows_are_refused():
    with pytest.raises(records.RecordError, match="no documents"):
        score.board([])
    with pytest.raises(records.RecordError, match="no original was measured"):
        score.board([document(rows("half", HALFWAY))])
    half = document(rows("half", HALFWAY))
    with pytest.raises(records.RecordError, match="does not belong"):
        score.board([reference(), half.model_copy(update={"workload": "other"})])
    with pytest.raises(records.RecordError, match="measured with forget 65"):
        score.board([reference(), document(half.rows, facts={"forget": 65})])
    with pytest.raises(records.RecordError, match="half, seed 0, is also in"):
        score.board([reference(), half, document(half.rows, "data")])


# ------------------------------------------------------------------ statistics


def test_scipy_agrees_on_the_interval_and_on_the_paired_test():
    draw = np.random.default_rng(0)
    a = dict(enumerate(draw.normal(5, 2, 6)))
    b = dict(enumerate(draw.normal(4, 2, 7)))
    found = score.interval(a.values())
    values = list(a.values())
    wanted = stats.t.interval(0.95, 5, np.mean(values), stats.sem(values))
    assert (found.low, found.high) == pytest.approx(wanted) and found.n == 6
    difference, p, n = score.paired(a, b)
    common = [b[s] for s in a]
    assert n == 6 and difference == pytest.approx(np.mean(values) - np.mean(common))
    assert p == pytest.approx(stats.ttest_rel(values, common).pvalue)


def test_an_interval_is_cut_to_its_range_and_a_single_value_is_a_point():
    assert score.interval([99.0, 100.0, 100.0], 0, 100).high == 100
    assert score.interval([3.0]) == score.Interval(3, 3, 3, 1)
    assert score.interval([]) is None


def test_equal_rows_are_ties_and_constant_differences_are_certain():
    a = {0: 1.0, 1: 2.0, 2: 4.0}
    assert score.paired(a, dict(a)) == (0, 1, 3)
    assert score.paired(a, {s: v - 1 for s, v in a.items()}) == (1, 0, 3)
    assert score.paired(a, {7: 1.0})[1:] == (1, 0)


def test_holm_gives_the_textbook_values():
    # Adjusted by hand: 4 x .005, 3 x .01, 2 x .03, and .04 raised to its neighbour's
    # .06.
    assert score.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert score.holm([0.5, 0.9]) == [1, 1]
    assert score.holm([]) == []


def test_rank_intervals_show_a_known_structure():
    near = np.random.default_rng(1).normal(0, 1, (4, 8))
    means = {"first": 90, "twin 1": 50, "twin 2": 50, "last": 10}
    scores = {
        name: dict(enumerate(mean + noise))
        for (name, mean), noise in zip(means.items(), near, strict=True)
    }
    ranks, pairs = score.rank_intervals(scores)
    assert ranks == {"first": (1, 1), "twin 1": (2, 3), "twin 2": (2, 3), "last": (4, 4)}
    assert pairs == (5, 6)
    assert score.tiers(ranks) == {"first": "A", "twin 1": "B", "twin 2": "B", "last": "C"}


def test_identical_rows_share_rank_and_tier():
    scores = {name: {0: 50.0, 1: 60.0, 2: 40.0} for name in "abc"}
    ranks, pairs = score.rank_intervals(scores)
    assert set(ranks.values()) == {(1, 3)} and pairs == (0, 3)


def test_a_chain_of_overlaps_does_not_pull_everything_into_one_tier():
    ranks = {"a": (1, 2), "b": (1, 3), "c": (2, 4), "d": (3, 5), "e": (5, 5)}
    assert score.tiers(ranks) == {"a": "A", "b": "A", "c": "A", "d": "B", "e": "B"}


def test_tiers_go_on_after_z():
    letters = score.tiers({i: (i, i) for i in range(1, 29)})
    assert (letters[1], letters[26], letters[27], letters[28]) == ("A", "Z", "AA", "AB")


def test_the_board_is_sorted_by_score_and_ranks_strategies_only():
    board = board_of(rows("mid", between(0.4)), rows("top", between(0.1)))
    scores = [s.rm.mean for s in board.standings]
    assert scores == sorted(scores, reverse=True)
    assert board["top"].rank == (1, 1) and board["mid"].rank == (2, 2)
    assert {s.name: s.rank for s in board.of("original", "retrained", "control")} == {
        "retrained": None,
        "fine_tune": None,
        "random_init": None,
        "original": None,
    }
    assert board["top"].time_ratio == board["top"].pass_ratio == 0.25
    with pytest.raises(KeyError, match="there are retrained, top"):
        board["nobody"]


def test_a_board_does_not_depend_on_the_order_of_documents_or_rows():
    found = rows("mid", between(0.4)) + rows("top", between(0.1))
    forward = score.board([reference(), document(found)])
    head = reference()
    backward = score.board(
        [document(found[::-1]), head.model_copy(update={"rows": head.rows[::-1]})]
    )
    assert score.json_text(forward) == score.json_text(backward)


def test_other_boards_numbers_are_printed_beside_the_score():
    board = board_of(rows("half", HALFWAY))
    assert board["original"].other_scores["privleak"].mean == pytest.approx(-80, abs=2)
    assert board["retrained"].other_scores["privleak"].mean == pytest.approx(0, abs=0.1)
    assert board["retrained"].other_scores["tug_of_war"].mean == 1
    assert board["half"].other_scores["tug_of_war"].mean == pytest.approx(0.525, abs=0.02)


# ------------------------------------------------------------------ gates


def gate(found, start):
    return next(g for g in found if g.name.startswith(start))


def test_a_sound_workload_passes_every_gate():
    found = score.gates(reference())
    assert [g.name for g in found if not g.passed] == []
    assert [g.name for g in found] == [
        "C1 original >= 0.9",
        "C1 retrained <= 0.15",
        "C2 gap >= 0.5",
        "AUC gap >= 0.15",
        "D original / D retrained >= 5",
        "RM retrained >= 90",
        "RM original <= 5",
        "RM random_init <= 10",
    ]


@pytest.mark.parametrize(
    "kind, change, name",
    [
        ("original", {"C1": 0.7}, "C1 original"),
        ("retrained", {"C1": 0.3}, "C1 retrained"),
        ("original", {"C2": 0.4}, "C2 gap"),
        ("original", {"C3": 0.6}, "AUC gap"),
        ("retrained", {"D": 0.3}, "D original"),
        ("control", FRESH | {"C4": 0.9}, "RM random_init"),
    ],
)
def test_each_gate_fails_when_its_fault_is_planted(kind, change, name):
    base = {"original": ORIGINAL, "retrained": RETRAINED, "control": FRESH}
    strategy = "random_init" if kind == "control" else kind
    found = [r for r in reference().rows if r.strategy != strategy]
    found += rows(strategy, base[kind] | change, kind)
    gates = score.gates(document(found, "reference"))
    assert not gate(gates, name).passed
    assert gate(gates, name).value is not None
    assert not score.board([document(found, "reference")]).gates_passed


def of_language(change=lambda row: row):
    """The reference document as a language model's, with its retrained rows changed."""
    found = reference()
    facts = {**found.facts, "gates": declared.LANGUAGE_MODEL}
    some = [change(r) if r.kind == "retrained" else r for r in found.rows]
    return found.model_copy(update={"facts": facts, "rows": some})


def test_a_language_models_divergence_gap_is_measured_in_its_own_noise():
    def noisy(row):
        times = 1 + 0.5 * (row.seed % 2)
        apart = {s: 40 * times * d for s, d in row.divergence_to_retrained.items()}
        return row.model_copy(update={"divergence_to_retrained": apart})

    name = "D gap / its spread over seeds"
    assert gate(score.gates(of_language()), name).passed
    found = gate(score.gates(of_language(noisy)), name)
    assert not found.passed and found.value is not None
    assert not [g for g in score.gates(of_language()) if g.name.startswith("D original")]


@pytest.mark.parametrize("above, passed", [(0.02, True), (0.2, False)])
def test_a_retrained_language_model_holds_no_more_than_common_words(above, passed):
    def measured(row):
        c1 = row.metrics["C1"]
        more = {
            "C1": c1.model_copy(update={"value": 0.25 + above}),
            "verbatim_holdout": c1.model_copy(update={"value": 0.25}),
        }
        return row.model_copy(update={"metrics": {**row.metrics, **more}})

    found = gate(score.gates(of_language(measured)), "C1 retrained over holdout")
    assert found.passed == passed and found.value == pytest.approx(above)


def test_noisy_retrained_models_fail_the_gate_on_their_own_score():
    found = [r for r in reference().rows if r.kind != "retrained"]
    found += rows("retrained", RETRAINED, "retrained", noise=0.15)
    assert not gate(score.gates(document(found, "reference")), "RM retrained").passed


def test_an_original_that_already_looks_retrained_fails_the_gate_on_its_score():
    # Half of the originals had learnt nothing: on average there is a gap, per seed
    # none.
    found = [r for r in reference().rows if r.kind != "original"]
    for seed in SEEDS:
        numbers = ORIGINAL if seed % 2 else between(0.4)
        found.append(row("original", seed, numbers, "original"))
    assert not gate(score.gates(document(found, "reference")), "RM original").passed


def test_the_auc_gate_asks_for_enough_examples():
    few = reference().model_copy(update={"facts": reference().facts | {"holdout": 64}})
    found = gate(score.gates(few), "AUC gap")
    assert found.value > 0.15 and not found.passed
    assert "64 against 64 examples" in found.reason


def test_an_attack_on_few_of_the_examples_has_to_show_a_large_gap():
    """Where C3 is asked of a part of the request, its own number of examples counts."""

    def asked(n):
        found = reference()
        for row in found.rows:
            row.metrics["C3"] = row.metrics["C3"].model_copy(update={"n": n})
        return gate(score.gates(found), "AUC gap")

    gap = asked(40).value
    error = lambda n: (2 * (n + 1) / (12 * (n // 4) * (n - n // 4))) ** 0.5
    assert gap - 2 * error(40) < 0.15 <= gap - 2 * error(60)
    assert not asked(40).passed and "from 40 examples" in asked(40).reason
    assert asked(60).passed


def test_gates_without_reference_models_say_so():
    (only,) = score.gates(document(rows("half", HALFWAY)))
    assert not only.passed and only.reason == "no original could be measured"


def test_one_original_beside_many_retrained_models_has_no_spread_to_ask_for():
    head = reference()
    rest = [r for r in head.rows if r.kind != "original" or r.seed == 0]
    found = score.gates(document(rest, "reference", facts={"gates": declared.DUAL_ENCODER}))
    (spread,) = [gate for gate in found if gate.name.startswith("D gap / its spread")]
    assert not spread.passed and spread.value is None and spread.reason


@pytest.mark.parametrize("workload", ["synthetic", "digits", "text"])
def test_published_rows_have_the_gates_that_they_had_when_they_were_measured(workload):
    head = fabricate.published(workload)[0]
    assert score.gates(head) == head.gates and len(head.gates) == 8


def test_a_workload_says_itself_what_its_gates_are():
    facts = {
        "gates": [
            {"measure": "C1 gap", "sign": ">=", "bound": 0.2},
            {"measure": "RM original", "sign": "<=", "bound": 1},
            {"measure": "C2 gap", "sign": ">=", "bound": 0.1, "request": "most"},
            {"measure": "RM random_init", "sign": "<=", "bound": 10, "row": "nowhere"},
        ]
    }
    found = score.gates(document(reference().rows, "reference", facts=facts))
    assert [g.name for g in found] == ["C1 gap >= 0.2", "RM original <= 1"]
    assert found[0].value == pytest.approx(0.95, abs=0.01) and found[0].passed
    assert {
        gate["measure"]
        for name in ("CLASSIFIER", "LANGUAGE_MODEL", "DENOISER", "PUBLISHED")
        for gate in getattr(declared, name)
    } == set(score.MEASURES)


@pytest.mark.parametrize(
    "wrong, said",
    [
        ([{"measure": "C9 gap", "sign": ">=", "bound": 1}], "no measure 'C9 gap'.*C1 original"),
        ([{"measure": "C1 gap", "sign": ">", "bound": 1}], "gate on C1 gap needs a sign"),
        ([{"measure": "C1 gap", "sign": ">="}], "gate on C1 gap needs a sign"),
        (["C1 gap"], "no list of gates"),
        (None, "no list of gates"),
    ],
)
def test_a_gate_that_cannot_be_understood_is_named(wrong, said):
    found = document(reference().rows, "reference", facts={"gates": wrong})
    with pytest.raises(records.RecordError, match=f"laptop/toy/reference.*{said}"):
        score.gates(found)


def test_the_published_gates_ask_for_differences():
    weak = rows("original", between(0.4) | {"C3": 0.9}, "original")
    found = [r for r in reference().rows if r.kind != "original"] + weak
    facts = {"gates": declared.PUBLISHED}
    names = [g.name for g in score.gates(document(found, "reference", facts=facts)) if g.passed]
    assert {"C1 gap >= 0.2", "C2 gap >= 0.1", "AUC gap >= 0.15"} <= set(names)


# -------------------------------------------------------------- other rules


def test_rules_agree_with_the_headline_on_clear_orders_and_can_differ_on_unequal_axes():
    lopsided = RETRAINED | {"C4": 0.35}  # perfect but for utility
    even = between(0.5)
    board = board_of(rows("lopsided", lopsided), rows("even", even))
    found = {(s.rule, s.output_match): s for s in score.sensitivity(board)}
    assert len(found) == 8
    assert found["harmonic", True].tau == 1
    assert found["harmonic", True].rm == pytest.approx(
        {s.name: s.rm.mean for s in board.of("strategy")}
    )
    assert next(iter(found["min", True].rm)) == "even"
    assert next(iter(found["geometric", True].rm)) == "lopsided"
    assert found["min", True].tau == -found["geometric", True].tau


def test_without_the_answers_a_model_that_matches_only_the_summaries_moves_up():
    board = board_of(rows("summaries", RETRAINED | {"D": 0.55}), rows("answers", between(0.2)))
    found = {(s.rule, s.output_match): s for s in score.sensitivity(board)}
    assert next(iter(found["harmonic", True].rm)) == "answers"
    assert next(iter(found["harmonic", False].rm)) == "summaries"


def test_without_the_answers_privacy_is_the_match_of_c3_alone():
    board = board_of(rows("exposed", RETRAINED | {"C3": 0.7}, noise=0.0))
    found = {(s.rule, s.output_match): s for s in score.sensitivity(board)}
    assert found["min", False].rm["exposed"] == pytest.approx(50, abs=1)
    assert found["min", True].rm["exposed"] == pytest.approx(75, abs=1)


def test_a_single_strategy_has_no_order_to_compare():
    board = board_of(rows("half", HALFWAY))
    assert [s.tau for s in score.sensitivity(board)] == [None] * 8


# ------------------------------------------------------------------ text


def test_csv_and_json_hold_the_same_numbers_as_the_board():
    board = board_of(rows("half", HALFWAY), absent("broken", "error", "boom, twice"))
    lines = {x["strategy"]: x for x in csv.DictReader(io.StringIO(score.csv_text(board)))}
    (parsed,) = json.loads(score.json_text(board))
    by_name = {s["name"]: s for s in parsed["standings"]}
    mean = board["half"].rm.mean
    assert float(lines["half"]["rm_mean"]) == by_name["half"]["rm"]["mean"] == mean
    assert float(lines["half"]["C4_low"]) == board["half"].metrics["C4"].low
    assert lines["broken"]["rm_mean"] == "" and by_name["broken"]["rm"] is None
    assert lines["broken"]["reason"] == by_name["broken"]["reason"] == "boom, twice"
    assert parsed["gates"][0]["name"] == "C1 original >= 0.9"


def test_the_markdown_table_is_rectangular_and_names_missed_gates():
    board = board_of(rows("half", HALFWAY), absent("broken", "error", "a | b"))
    text = score.markdown(board)
    table = [line.replace("\\|", "") for line in text.splitlines() if line[:1] == "|"]
    assert len(table) == 2 + len(board.standings)
    assert len({line.count("|") for line in table}) == 1
    assert "All 8 gates" in text
    missed = board.gates[0].model_copy(update={"value": 0.5, "passed": False})
    text = score.markdown(replace(board, gates=[missed], gates_passed=False))
    assert "misses its gates" in text and "- C1 original >= 0.9: 0.500" in text


def test_where_a_gate_failed_nobody_is_called_first():
    board = board_of(rows("good", between(0.1)), rows("idle", between(0.9)))
    assert board.leaders and "good" in score.first_place(board)
    board = replace(board, gates_passed=False)
    assert not board.leaders
    assert score.first_place(board) == "A gate failed on toy, so no strategy is called first"


def test_the_seed_board_is_printed_in_the_seed_format():
    numbers = lambda forget, retain: between(0.2) | {"C1": forget, "C4": retain}
    quick = records.Cost(
        seconds=0.0304, example_passes=1, retrain_seconds=4, retrain_example_passes=400
    )
    board = board_of(
        rows("sisa", numbers(0.0469, 0.1328), noise=0.0),
        rows("scrub", numbers(0.0156, 0.1797), noise=0.0),
        rows("lora", numbers(0.0156, 0.2109), noise=0.0),
        rows("ensemble", numbers(0.0781, 0.1250), noise=0.0, cost=quick),
        absent("amnesiac", "error", "ValueError: no log"),
        absent("ssd", "not_applicable", "it needs text"),
    )
    accuracy = board["original"].metrics
    base = (
        f"Forget {accuracy['forget_accuracy'].mean:.4f} / "
        f"Retain {accuracy['retain_accuracy'].mean:.4f}"
    )
    lines = score.seed_markdown(board, framework="Erasus").splitlines()
    assert lines[:22] == [
        "# MUSE Benchmark Leaderboard",
        "",
        "> **Generated**: 2026-02-15 02:38  ",
        "> **Framework**: Erasus  ",
        "> **Model**: BenchmarkModel (32->64->64->10)  ",
        "> **Data**: Synthetic MUSE-style (64 forget / 256 retain, batch=32)  ",
        f"> **Base Model Accuracy**: {base}  ",
        "> **Strategies Tested**: 4 succeeded, 1 errored, 1 not applicable (out of 6 total)",
        "",
        "## Ranking Criteria",
        "",
        "Strategies are ranked by **forget accuracy** (lower = better unlearning), "
        "with ties broken by **retain accuracy** (higher = better utility "
        "preservation).",
        "",
        "## Leaderboard",
        "",
        "| Rank | Strategy | Category | Time (s) | Forget Loss | Retain Loss "
        "| Forget Acc ↓ | Retain Acc ↑ |",
        "|------|----------|----------|----------|-------------|-------------"
        "|--------------|--------------|",
        "| 🥇 1 | **lora** | Gradient | 1.000 | 1.5000 | 0.2500 | 0.0156 | 0.2109 |",
        "| 🥈 2 | **scrub** | Gradient | 1.000 | 1.5000 | 0.2500 | 0.0156 | 0.1797 |",
        "| 🥉 3 | **sisa** | Gradient | 1.000 | 1.5000 | 0.2500 | 0.0469 | 0.1328 |",
        "| 4 | **ensemble** | Gradient | 0.030 | 1.5000 | 0.2500 | 0.0781 | 0.1250 |",
        "| — | **amnesiac** \\* | Gradient | — | — | — | — | — |",
    ]
    assert lines[22:] == [
        "| — | **ssd** \\* | Gradient | — | — | — | — | — |",
        "",
        "\\* `amnesiac`: error: ValueError: no log",
        "",
        "\\* `ssd`: not applicable: it needs text",
        "",
        "## Summary",
        "",
        "- **Best unlearning**: `lora` (Forget Acc: 0.0156)",
        "- **Best utility preservation**: `lora` (Retain Acc: 0.2109)",
        "- **Fastest**: `ensemble` (0.030s)",
        "- **Total strategies**: 6",
        "- **Successful runs**: 4",
        "- **Errored**: 1",
        "- **Not applicable**: 1",
    ]


def test_the_seed_rule_can_be_shown_with_controls_and_references_in_it():
    board = board_of(rows("ascent", DESTROYED), rows("good", between(0.2)))
    everything = ("strategy", "control", "original", "retrained")
    table, summary = score.seed_table(board, everything)
    assert [r["Strategy"] for r in table][0] == "ascent"
    assert summary["total"] == 6 and table[-1]["Strategy"] == "original"


def test_a_seed_board_on_which_nothing_succeeded_still_prints():
    board = board_of(absent("amnesiac", "error", "boom"))
    text = score.seed_markdown(board)
    assert "0 succeeded, 1 errored (out of 1 total)" in text
    assert "- **Fastest**: —" in text


def test_boards_are_read_from_a_folder(tmp_path):
    groups = [fabricate.documents(name, seeds=2) for name in ("synthetic", "digits")]
    found = score.boards(fabricate.write(tmp_path, *groups))
    assert set(found) == {"synthetic", "digits"}
    assert found["digits"] == score.board(groups[1])


def test_a_board_says_in_every_form_which_rows_it_leaves_aside(tmp_path):
    made = fabricate.documents(seeds=2)
    for row in (row for document in made for row in document.rows):
        row.edited = row.strategy == "scrub"
    (board,) = score.boards(fabricate.write(tmp_path, made)).values()
    said = "2 rows are left aside: 2 ran with a strategy that had been edited (scrub)."
    assert "scrub" not in {s.name for s in board.standings} and board.left_aside == said
    assert f"\n{said}\n" in score.markdown(board)
    assert {
        line["rows_left_aside"] for line in csv.DictReader(score.csv_text(board).splitlines())
    } == {said}
    assert json.loads(score.json_text(board))[0]["left_aside"] == said


def test_reading_scores_does_not_load_torch():
    code = "import sys, erasus_nb.score; print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stdout.strip() == "False"


def test_no_number_on_a_board_is_nan():
    board = board_of(rows("half", HALFWAY), rows("ascent", DESTROYED))
    for s in board.standings:
        for found in (s.rm, s.forgetting, s.privacy, s.utility, s.divergence):
            assert all(math.isfinite(x) for x in (found.mean, found.low, found.high))


@pytest.mark.parametrize("values, flagged", [((0.6, 0.62), True), ((0.88, 0.9), False)])
def test_who_remembers_less_of_what_stays_than_retrained_models_is_flagged(values, flagged):
    of = lambda *shares: SimpleNamespace(metrics={"retain_accuracy": score.interval(shares)})
    assert score._forgets_what_stays(of(*values), of(0.9, 0.92)) == flagged


def test_a_row_without_that_measurement_is_not_flagged_for_it():
    nothing = SimpleNamespace(metrics={})
    assert not score._forgets_what_stays(nothing, nothing)


def test_boards_of_other_requests_say_nothing_about_the_order_over_workloads():
    one = board_of(rows("both", between(0.3)), rows("one", between(0.1)))
    other = board_of(rows("both", between(0.6)))
    other = replace(other, facts={**other.facts, "request_kind": "concept"})
    lines = {line.name: line for line in overall.overall({"x": one, "x-concept": other})}
    assert lines["one"].place == 1 and lines["both"].on.keys() == {"x"}
    assert overall.overall({"x-concept": other})  # where there is nothing else


def test_the_seed_board_over_homes_takes_each_strategy_where_it_is_at_home():
    one = board_of(
        rows("scrub", between(0.3)),
        rows("moved", between(0.2), analogue=True),
        rows("nowhere", between(0.4), analogue=True),
    )
    two = board_of(
        rows("scrub", between(0.1)),
        rows("moved", between(0.5)),
        absent("nowhere", "error", "boom"),
        rows("caption", between(0.2), category="VLM"),
    )
    boards = {"toy": one, "pairs": two}
    home = {"gradient": "toy", "vlm": "pairs"}.__getitem__
    found = {name: where for name, (where, _) in score.at_home(boards, home).items()}
    # An analogue is no row at home where the method itself has one elsewhere.
    assert found == {"scrub": "toy", "moved": "pairs", "nowhere": "toy", "caption": "pairs"}
    concept = replace(two, facts={**two.facts, "request_kind": "concept"})
    assert score.at_home({"toy": one, "pairs-concept": concept}, home)["moved"][0] == "toy"
    text = score.seed_markdown_at_home(boards, home)
    assert "| **moved** | Gradient | 1.000 |" in text and text.count("| pairs |") == 2
    assert "4 succeeded, 0 errored (out of 4 total)" in text and "- **Fastest**: " in text
    best = min(
        (standing for _, standing in score.at_home(boards, home).values()),
        key=lambda s: s.metrics["forget_accuracy"].mean,
    )
    assert f"- **Best unlearning**: `{best.name}`" in text


def test_the_home_of_a_page_is_read_without_torch():
    code = (
        "import sys; from erasus_nb import workloads; "
        "print(*(workloads.home(p) for p in ('gradient', 'llm', 'vlm', 'diffusion')), 'torch' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stdout.split() == ["synthetic", "text", "image_text", "diffusion", "False"]
