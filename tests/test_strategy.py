"""The mark, batches and splits: what a strategy may read, and what happens when it tries."""

from __future__ import annotations

import pytest
import torch

from erasus_nb.strategy import (
    BUDGET,
    READABLE,
    Batch,
    DataAccessError,
    Facts,
    Split,
    settings_of,
    strategy,
)
from erasus_nb.training import generator


def marked(**changes):
    """A minimal strategy with the given arguments of the mark."""
    arguments = {"category": "Gradient", "cite": "", "reads": ()}

    @strategy(**{**arguments, **changes})
    def example(model, forget, retain, task, *, lr=0.1, epochs=3, seed=0):
        return model

    return example


def batch(n: int = 7) -> Batch:
    return Batch(
        {
            "inputs": torch.arange(n * 2.0).view(n, 2),
            "labels": torch.arange(n) % 3,
            "ids": torch.arange(n) + 100,
        }
    )


def split(*reads: str, n: int = 7, name: str = "forget") -> Split:
    return Split(name, batch(n), frozenset(reads))


# ------------------------------------------------------------------ the mark


def test_the_mark_attaches_facts_and_wraps_nothing():
    def plain(model, forget, retain, task, *, lr=0.1, seed=0):
        return "untouched"

    mark = strategy(
        category="Data",
        cite="key2024",
        reads=("forget labels",),
        needs=["decoder"],
        analogue=["labels"],
        product="an ensemble",
        budget=[{"lr": 1.0}],
        departures=["One."],
    )
    assert mark(plain) is plain
    assert plain(None, None, None, None) == "untouched"
    assert plain.facts == Facts(
        name="plain",
        category="Data",
        cite="key2024",
        reads=frozenset({"forget labels"}),
        needs=("decoder",),
        analogue=("labels",),
        on=(),
        budget=({"lr": 1.0},),
        departures=("One.",),
        product="an ensemble",
        declared=("forget labels",),
    )


def test_a_mark_says_what_is_needed_and_the_workload_what_it_provides():
    facts = marked(needs=("decoder", "facts"), analogue=("dense units",)).facts
    assert facts.form_on("any", {"decoder", "facts", "tokens"}) == "native"
    assert facts.form_on("any", {"decoder", "dense units"}) == "analogue"
    assert facts.form_on("any", {"decoder"}) is None
    everywhere = marked().facts
    assert everywhere.form_on("any", ()) == "native"
    kept = marked(on=("here",)).facts
    assert kept.form_on("here", ()) == "native" and kept.form_on("there", ()) is None
    assert marked(needs=("decoder",)).facts.form_on("any", ()) is None  # no analogue


@pytest.mark.parametrize("where", ["needs", "analogue"])
def test_an_unknown_need_is_refused_with_what_there_is(where):
    with pytest.raises(ValueError, match="'wings' is not something a strategy can need; .*labels"):
        marked(**{where: ("wings",)})


def test_what_was_read_cannot_be_set_back():
    split = Split("forget", batch(), None)
    split.take(torch.arange(2))
    assert split.examples_read == 2
    with pytest.raises(AttributeError):
        split.examples_read = 0
    assert split.examples_read == 2


def test_forget_and_retain_stand_for_inputs_and_labels():
    assert marked(reads=("forget",)).facts.reads == {"forget inputs", "forget labels", "forget ids"}
    assert marked(reads=("retain",)).facts.reads == {"retain inputs", "retain labels"}
    assert marked(reads=READABLE).facts.reads == set(READABLE)


@pytest.mark.parametrize("wrong", ["holdout", "Forget", "test", ""])
def test_what_nobody_may_read_is_refused(wrong):
    with pytest.raises(ValueError, match="allowed: forget, retain, forget inputs"):
        marked(reads=("forget", wrong))


def test_a_tuning_budget_is_the_same_for_everybody():
    assert len(marked(budget=[{"lr": k} for k in range(BUDGET)]).facts.budget) == BUDGET == 8
    with pytest.raises(ValueError, match="9 settings to try; the budget is 8"):
        marked(budget=[{"lr": k} for k in range(9)])


@pytest.mark.parametrize("name", ["learning_rate", "seed", "model"])
def test_a_budget_tries_only_settings_that_there_are(name):
    with pytest.raises(ValueError, match=f"no setting '{name}'; it has lr, epochs"):
        marked(budget=[{"lr": 1.0}, {name: 1}])


def test_the_budget_is_a_copy_that_nobody_changes_from_outside():
    trial = {"lr": 1.0}
    function = marked(budget=[trial])
    trial["lr"] = 2.0
    assert function.facts.budget == ({"lr": 1.0},)


def test_settings_are_the_keyword_arguments_but_the_seed():
    assert settings_of(marked()) == {"lr": 0.1, "epochs": 3}
    assert settings_of(lambda model, forget, retain, task, *, seed=0: None) == {}


# ------------------------------------------------------------------ batches


def test_a_batch_has_as_many_items_as_examples():
    assert len(batch(5)) == 5
    assert list(batch(5)) == ["inputs", "labels", "ids"]


def test_a_hidden_field_stays_hidden_through_everything_a_batch_can_do():
    hidden = batch().hide({"labels": "the forget labels"})
    index = torch.tensor([4, 0])
    derived = {
        "take": hidden.take(index),
        "replace": hidden.replace(inputs=torch.zeros(7, 2)),
        "cat": Batch.cat([batch(), hidden]),
        "hide": hidden.hide({"inputs": "the forget inputs"}),
        "take of cat": Batch.cat([hidden, batch()]).take(index),
    }
    for how, result in derived.items():
        with pytest.raises(DataAccessError, match="the forget labels but does not declare"):
            print(how, result["labels"])
        assert "labels" not in result.visible(), how


def test_every_way_to_read_a_hidden_field_raises():
    hidden = batch().hide({"labels": "the forget labels"})
    with pytest.raises(DataAccessError):
        dict(hidden)
    with pytest.raises(DataAccessError):
        list(hidden.values())
    with pytest.raises(DataAccessError):
        hidden.get("labels")


def test_a_replaced_field_is_readable():
    hidden = batch().hide({"labels": "the forget labels"})
    own = torch.full((7,), 2)
    assert hidden.replace(labels=own)["labels"] is own


def test_hiding_and_replacing_leave_the_batch_as_it_was():
    first = batch()
    first.hide({"labels": "x"})
    first.replace(labels=torch.zeros(7))
    assert torch.equal(first["labels"], torch.arange(7) % 3)


def test_take_keeps_the_order_asked_for():
    taken = batch().take(torch.tensor([6, 0, 6]))
    assert taken["ids"].tolist() == [106, 100, 106]
    assert taken["inputs"][:, 0].tolist() == [12.0, 0.0, 12.0]


def test_cat_puts_batches_one_after_the_other():
    both = Batch.cat([batch(2), batch(3)])
    assert both["ids"].tolist() == [100, 101, 100, 101, 102]


# ------------------------------------------------------------------ splits

FIELD_OF = {"forget inputs": "inputs", "forget labels": "labels"}


@pytest.mark.parametrize("declared", FIELD_OF)
def test_a_split_shows_what_is_declared_and_nothing_else(declared):
    one = split(declared)
    for what, field in FIELD_OF.items():
        for got in (one.all(), one.take(torch.arange(2)), next(one.batches(3))):
            if what == declared:
                assert len(got[field]) == len(got)
            else:
                with pytest.raises(DataAccessError, match=f"the {what} but does not"):
                    got[field]


def test_every_field_but_labels_and_ids_is_an_input():
    wide = Batch({**dict(batch()), "mask": torch.ones(7)})
    seen = Split("forget", wide, frozenset({"forget labels"})).all()
    for field in ("inputs", "mask"):
        with pytest.raises(DataAccessError, match="the forget inputs"):
            seen[field]


def captioned(*reads: str, name: str = "forget") -> Split:
    """A split whose examples are images with prompts."""
    fields = {"pixel_values": torch.ones(7, 1), "prompts": torch.arange(7)[:, None]}
    return Split(name, Batch({**fields, "ids": torch.arange(7)}), frozenset(reads))


@pytest.mark.parametrize("name", ["forget", "retain"])
def test_prompts_can_be_declared_without_the_images(name):
    one = captioned(f"{name} prompts", name=name)
    for got in (one.all(), one.take(torch.arange(2)), next(one.batches(3))):
        assert len(got["prompts"]) == len(got) and set(got.visible()) == {"prompts", "ids"}
        with pytest.raises(DataAccessError, match=f"the {name} inputs but does not"):
            got["pixel_values"]
    assert one.examples_read == 12
    with pytest.raises(DataAccessError, match=f"does not declare the {name} ids"):
        print(one.ids)
    other = captioned(f"{name} prompts", name="retain" if name == "forget" else "forget")
    with pytest.raises(DataAccessError, match="does not declare"):
        other.all()


def test_inputs_have_their_prompts_with_them():
    both = captioned("forget inputs").all()
    assert set(both.visible()) == {"pixel_values", "prompts", "ids"}
    seen = Split("forget", both.replace(labels=torch.zeros(7)), frozenset({"forget labels"}))
    for field, what in (("prompts", "prompts"), ("pixel_values", "inputs")):
        with pytest.raises(DataAccessError, match=f"the forget {what} but does not"):
            seen.all()[field]


def test_prompts_are_part_of_no_short_word_but_with_the_inputs():
    assert "forget prompts" in READABLE and "retain prompts" in READABLE
    assert marked(reads=("forget",)).facts.reads.isdisjoint({"forget prompts"})
    assert marked(reads=("forget prompts",)).facts.reads == {"forget prompts"}


def test_a_declaration_for_one_split_does_not_open_the_other():
    other = split("forget inputs", "forget labels", "forget ids", name="retain")
    with pytest.raises(DataAccessError, match="the retain examples"):
        other.all()
    with pytest.raises(DataAccessError, match="the retain ids"):
        print(other.ids)


def test_undeclared_examples_cannot_be_taken_in_any_way():
    nothing = split()
    for reach in (nothing.all, lambda: nothing.take(torch.arange(1)), nothing.batches(2).__next__):
        with pytest.raises(DataAccessError, match="does not declare the forget examples"):
            reach()
    assert nothing.examples_read == 0


def test_ids_alone_can_be_declared():
    which = split("forget ids")
    assert which.ids.tolist() == list(range(100, 107))
    with pytest.raises(DataAccessError):
        which.all()


def test_inputs_give_ids_but_labels_do_not():
    assert len(split("forget inputs").ids) == 7
    with pytest.raises(DataAccessError, match="does not declare the forget ids"):
        print(split("forget labels").ids)


def test_how_many_there_are_is_no_secret():
    assert len(split()) == 7


def test_none_allows_everything():
    everything = Split("forget", batch())
    assert set(everything.all().visible()) == {"inputs", "labels", "ids"}
    assert len(everything.ids) == 7


@pytest.mark.parametrize("n, size", [(7, 3), (7, 7), (7, 10), (6, 3), (1, 4)])
@pytest.mark.parametrize("shuffled", [False, True])
def test_one_pass_hands_out_every_example_once(n, size, shuffled):
    draw = generator("pass") if shuffled else None
    one = split("forget inputs", n=n)
    sizes, ids = [], []
    for got in one.batches(size, draw):
        sizes.append(len(got))
        ids += got["ids"].tolist()
    assert sizes == [size] * (n // size) + [n % size] * (n % size > 0)
    assert sorted(ids) == list(range(100, 100 + n))
    assert one.examples_read == n
    assert shuffled or ids == sorted(ids)


def test_a_shuffled_pass_follows_its_generator():
    order = lambda *keys: [
        b["ids"].tolist() for b in split("forget inputs").batches(3, generator(*keys))
    ]
    assert order(1) == order(1)
    assert order(1) != order(2)
    assert order(1) != [b["ids"].tolist() for b in split("forget inputs").batches(3)]


def test_two_passes_of_one_generator_differ():
    draw, one = generator("passes"), split("forget inputs")
    first, second = ([b["ids"].tolist() for b in one.batches(3, draw)] for _ in range(2))
    assert first != second


def test_examples_are_counted_each_time_they_are_read():
    one = split("forget inputs")
    one.all()
    one.take(torch.tensor([0, 0, 1]))
    next(one.batches(2))
    assert one.examples_read == 7 + 3 + 2


@pytest.mark.parametrize("size", [0, -1])
def test_an_empty_batch_size_is_refused(size):
    with pytest.raises(ValueError, match="at least one example"):
        next(split("forget inputs").batches(size))
