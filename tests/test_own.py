"""A classifier of one's own: five lines to a row, what is refused, and what is said to be missing."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading

import pandas
import pytest
import torch
from torch import nn

import erasus_nb.__main__ as cli
import erasus_nb.own as own
from erasus_nb import ROOT, cells, charts, keys, records, score, selection
from erasus_nb.parameters import ParameterError
from erasus_nb.strategy import Unlearned, strategy
from erasus_nb.training import clone, generator, same_weights
from erasus_nb.workloads.classifier.own import blocks_of, not_resettable, unit_groups_of

CLASSES, WIDE = 3, 6


def examples(count, key, wrong=0.0):
    """Points around three centres, and labels of which a share is wrong."""
    draw = generator("own", key)
    labels = torch.randint(CLASSES, (count,), generator=draw)
    centres = 1.5 * torch.randn(CLASSES, WIDE, generator=generator("own centres"))
    points = centres[labels] + torch.randn(count, WIDE, generator=draw)
    moved = torch.rand(count, generator=draw) < wrong
    return points, torch.where(moved, (labels + 1) % CLASSES, labels)


def network():
    return nn.Sequential(
        nn.Linear(WIDE, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, CLASSES)
    )


BAD, GOOD = examples(40, "bad", wrong=1.0), examples(120, "good")
TRAIN = tuple(torch.cat(pair) for pair in zip(BAD, GOOD))
HOLDOUT, TEST = examples(40, "holdout", wrong=1.0), examples(150, "test")
RECIPE = own.Recipe(40, 5e-3)
X, Y = TRAIN
WHOLE = dict(train=TRAIN, forget=range(40), holdout=HOLDOUT, test=TEST)


@pytest.fixture(scope="module")
def trained():
    """A classifier whose models are trained here."""
    return own.Classifier(network, **WHOLE, recipe=RECIPE)


@pytest.fixture(scope="module")
def result(trained):
    return own.unlearn(trained, ["scrub", "ssd", "amnesiac", "sisa", "neuron_pruning"])


def module_of(mine, kind):
    bench = mine.bench(1)
    return bench.load.load(bench._trained(kind)[0])


@pytest.fixture(scope="module")
def original(trained):
    return module_of(trained, "original")


# ------------------------------------------------------------------ five lines

FIVE = """\
import torch, sklearn.datasets, erasus_nb.own as own
x, y = map(torch.tensor, sklearn.datasets.load_wine(return_X_y=True))
net = lambda: torch.nn.Sequential(torch.nn.BatchNorm1d(13), torch.nn.Linear(13, 3))
mine = own.Classifier(net, (x[::2].float(), y[::2]), y[::2] == 1, test=(x[1::2].float(), y[1::2]))
print(own.unlearn(mine, "scrub"))"""


def test_five_lines_print_a_row_and_what_it_cannot_say():
    assert len(FIVE.splitlines()) == 5
    ran = subprocess.run(
        [sys.executable, "-c", FIVE],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert re.search(r"^scrub +\d+\.\d +[\d.]+ +[\d.]+ +[\d.]+ ", ran.stdout, flags=re.MULTILINE)
    assert "every one of class 1, no holdout, test 89; 1 training seed." in ran.stdout
    assert "- One training seed: there is no interval" in ran.stdout
    assert "- No holdout: whether the forget set still stands out" in ran.stdout


def test_a_row_has_a_score_positions_flags_and_stands_beside_the_controls(result):
    by_name = {line.name: line for line in result.lines}
    assert by_name["retrained"].scores["RM"] == 100 and by_name["original"].scores["RM"] < 5
    assert {"fine_tune", "random_init", "partial_retrain"} <= by_name.keys()
    # Exact unlearning ends where retraining does; every model and its answers were measured.
    assert by_name["sisa"].scores["RM"] > 80 > by_name["original"].scores["RM"]
    for name in ("scrub", "ssd", "amnesiac", "neuron_pruning"):
        line = by_name[name]
        assert line.status == "ok" and set(line.measures) == {"forget", "retain", "unseen", "AUC"}
        assert line.scores["z C1"] is not None and line.scores["z C3"] is not None
        assert line.scores["z C2"] is None and result.flags[name] == line.flags
    assert str(result) == repr(result) and "<table" in result._repr_html_()
    chart = result.picture()
    assert isinstance(chart, charts.Chart) and "5 strategies" in chart.title


def test_the_row_is_what_its_model_does(trained, result, original):
    state = {k: v.clone() for k, v in original.state_dict().items()}
    for name in ("scrub", "neuron_pruning"):
        model = result.model(name)
        right = (model(TRAIN[0][:40]).argmax(1) == TRAIN[1][:40]).double().mean()
        assert result[name].measures["forget"] == pytest.approx(float(right))
        right = (model(TEST[0]).argmax(1) == TEST[1]).double().mean()
        assert result[name].measures["unseen"] == pytest.approx(float(right))
        assert not same_weights(model.state_dict(), state)
    with pytest.raises(KeyError, match="no 'lora' here; there are"):
        result.model("lora")


def test_every_strategy_that_applies_runs_where_none_is_named(original):
    found = own._functions((), own.Classifier(original, **WHOLE).bench(1).own)
    names = {f.__name__ for f in found}
    assert {"scrub", "lora", "neuron_pruning", "ssd", "ensemble", "concept_erasure"} <= names
    assert not names & {"token_masking", "safe_latents", "modality_decoupling"}


def test_a_dataset_of_pairs_is_the_same_as_tensors(trained, result):
    class Pairs(torch.utils.data.Dataset):
        def __len__(self):
            return len(TRAIN[1])

        def __getitem__(self, place):
            return TRAIN[0][place], int(TRAIN[1][place])

    holdout = torch.utils.data.TensorDataset(*HOLDOUT)
    again = own.Classifier(
        network, Pairs(), list(range(40)), holdout=holdout, test=TEST, recipe=RECIPE
    )
    assert again.bench(1).own.fingerprint == trained.bench(1).own.fingerprint


def test_tables_of_pandas_sets_and_ranges_are_the_same_as_tensors(trained, result):
    table, column = pandas.DataFrame(X.numpy()), pandas.Series(Y.numpy())
    rest = {k: v for k, v in WHOLE.items() if k in ("holdout", "test")}
    for ids in (set(range(40)), range(39, -1, -1), torch.arange(160) < 40):
        again = own.Classifier(network, (table, column), ids, **rest, recipe=RECIPE)
        assert again.bench(1).own.fingerprint == trained.bench(1).own.fingerprint


def test_what_happens_to_the_readers_tensors_later_changes_nothing():
    points, labels = X.clone(), Y.clone()
    mine = own.Classifier(network, (points, labels), range(40))
    before = mine.bench(1).own.fingerprint
    points += 1
    labels[:] = 0
    assert mine.bench(2).own.fingerprint == before


# ------------------------------------------------------------------ models that are given


def values(row):
    measured = {name: each.value for name, each in row.metrics.items()}
    return measured, row.divergence_to_retrained, row.status


def test_given_models_give_the_rows_of_those_that_were_trained_here(trained, result, original):
    retrained = module_of(trained, "retrained")
    given = own.unlearn(
        own.Classifier(original, **WHOLE, retrained=retrained, recipe=RECIPE),
        ["scrub", "ssd", "neuron_pruning"],
    )
    names = {"original", "retrained", "fine_tune", "random_label", "scrub", "ssd"}
    mine = {r.strategy: values(r) for r in (*result.reference.rows, *result.rows)}
    its = {r.strategy: values(r) for r in (*given.reference.rows, *given.rows)}
    for name in (*names, "neuron_pruning"):
        assert mine[name] == its[name], name
    assert given["scrub"].scores == pytest.approx(result["scrub"].scores)


def test_a_given_original_stays_as_it_was_and_has_no_records_of_its_training(original):
    before = {k: v.clone() for k, v in original.state_dict().items()}
    found = own.unlearn(
        own.Classifier(original, **WHOLE, recipe=RECIPE), ["amnesiac", "sisa", "scrub"], seeds=2
    )
    assert same_weights(original.state_dict(), before) and not original.training
    assert found["amnesiac"].status == found["sisa"].status == "not_applicable"
    assert "nobody logged the updates" in found["amnesiac"].reason
    assert found["scrub"].status == "ok" and found.board.seeds == (0, 1)
    assert any("trained elsewhere" in line for line in found.limits)
    assert any("the same original" in line for line in found.limits)


def test_several_retrained_models_are_as_many_seeds(trained, original):
    bench = trained.bench(3)
    several = [bench.load.load(state) for state in bench.retrained().values()]
    found = own.unlearn(own.Classifier(original, **WHOLE, retrained=several), "ssd")
    assert found.board.seeds == (0, 1, 2)
    assert found.board["retrained"].rm.n == 3 and found.board["retrained"].time_ratio is None


def test_a_module_that_cannot_begin_anew_is_run_without_new_models_or_with_fresh(original):
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.scale = network(), nn.Parameter(torch.ones(1))

        def forward(self, x):
            return self.inner(x) * self.scale

    net = Scaled()
    net.inner.load_state_dict(original.state_dict())
    assert not_resettable(net) == "Scaled" and not_resettable(original) is None
    with pytest.raises(ParameterError, match="Scaled has weights and no reset_parameters"):
        own.Classifier(net, **WHOLE, recipe=RECIPE)
    found = own.unlearn(own.Classifier(net, **WHOLE), ["ssd", "knowledge_distillation"])
    assert found["ssd"].status == "ok"
    assert found["knowledge_distillation"].status == "not_applicable"
    assert found["random_init"].status == "not_applicable"
    found = own.unlearn(own.Classifier(net, **WHOLE, recipe=RECIPE, fresh=Scaled), "ssd")
    assert found["ssd"].scores["RM"] is not None and found["random_init"].status == "ok"


# ------------------------------------------------------------------ what is missing


def test_without_a_retrained_model_no_score_is_made_up(original):
    found = own.unlearn(own.Classifier(original, **WHOLE), ["scrub", "gradient_ascent"])
    assert found.board is None and all(line.scores == {} for line in found.lines)
    assert "partial_retrain" not in {line.name for line in found.lines}
    assert found["scrub"].measures["forget"] < found["original"].measures["forget"] - 0.1
    assert found.missing[0].startswith("No retrained model: how near a strategy comes")
    assert "RM" not in str(found).splitlines()[2] and "scrub is right on" in found.sentence
    assert "collapsed" in found["random_init"].flags
    with pytest.raises(ParameterError, match="no position to draw: No retrained model"):
        found.picture()


def test_without_a_holdout_privacy_rests_on_the_answers_alone():
    mine = own.Classifier(network, TRAIN, range(40), test=TEST, recipe=RECIPE)
    found = own.unlearn(mine, "scrub")
    assert found["scrub"].scores["z C3"] is None and "AUC" not in found["scrub"].measures
    assert found["scrub"].scores["RM"] is not None
    assert "privacy rests on the answers to the forget set alone" in found.sentence
    assert found.rows[0].metrics["C3"].reason == "no holdout was given"
    assert isinstance(found.picture(), charts.Chart)


def test_without_test_data_there_is_no_score():
    found = own.unlearn(
        own.Classifier(network, TRAIN, range(40), holdout=HOLDOUT, recipe=RECIPE), "scrub"
    )
    assert found["scrub"].scores["RM"] is None and found["scrub"].scores["F"] is not None
    assert "No test data: what the model can still do is not known" in found.sentence


def test_what_one_seed_and_small_numbers_cannot_say_is_said(result):
    said = " ".join(result.limits)
    assert "One training seed: there is no interval and the retrained model is compared" in said
    assert "The AUC of 40 against 40 examples is uncertain by 0.13" in said
    assert "Settings are the defaults of scrub" in said and "nothing was tuned" in said
    two = own.unlearn(result.mine, "scrub", seeds=2, settings={"scrub": {"epochs": 2}})
    said = " ".join(two.limits)
    assert "One training seed" not in said and "nothing was tuned" not in said
    assert two.rows[0].settings["epochs"] == 2
    low, high = two["scrub"].interval
    assert low < two["scrub"].scores["RM"] < high and result["scrub"].interval is None
    assert f" ({low:.0f} to {high:.0f})  " in str(two)
    assert two.rows[0].settings_chosen_by == "given by the caller"


def test_an_untrained_original_and_a_holdout_that_was_trained_on_are_noticed():
    torch.manual_seed(3)
    holdout = tuple(part[:20] for part in TRAIN)
    found = own.unlearn(own.Classifier(network(), TRAIN, range(40), holdout=holdout), "ssd")
    assert "of the retain set; if it is not trained, give a function" in found.sentence
    assert "20 of 20 holdout examples are in the training data, too" in found.sentence


def test_models_that_diverge_are_said_to_have_no_result():
    mine = own.Classifier(network, **WHOLE, recipe=own.Recipe(3, 1e30))
    found = own.unlearn(mine, "ssd")
    assert found.board is None and found["original"].status == "diverged"
    assert "The original could not be measured: its model answers with NaN" in found.sentence
    assert "original: diverged" in str(found) and "<table" in found._repr_html_()
    with pytest.raises(ParameterError, match="there is no position to draw"):
        found.picture()


def test_where_nothing_can_be_scored_the_reason_is_said(original):
    ignorant = clone(original)
    nn.init.zeros_(ignorant[-1].weight), nn.init.zeros_(ignorant[-1].bias)
    for retrained, said in (
        (ignorant, "no more of the test data than the most frequent class"),
        (original, "are alike on the forget set, so there is nothing to score"),
    ):
        found = own.unlearn(own.Classifier(original, **WHOLE, retrained=retrained), "ssd")
        assert found["ssd"].scores["RM"] is None and found["ssd"].measures
        assert said in found.sentence
        with pytest.raises(ParameterError, match="there is no position to draw"):
            found.picture()


def test_a_batch_that_cannot_be_trained_on_is_one_sentence():
    net = lambda: nn.Sequential(nn.BatchNorm1d(WIDE), nn.Linear(WIDE, CLASSES))
    mine = own.Classifier(net, TRAIN, range(40), recipe=own.Recipe(1, 1e-3, batch_size=53))
    with pytest.raises(ParameterError, match="cannot be trained or measured: ValueError: Expected"):
        own.unlearn(mine, "ssd")


def test_a_whole_class_is_a_concept_of_its_own():
    mine = own.Classifier(network, GOOD, GOOD[1] == 2, test=TEST, recipe=RECIPE)
    asked = mine.bench(1).asked
    assert asked.forgotten_class == 2 and (asked.concept["labels"] == 2).all()
    assert not (asked.utility["labels"] == 2).any() and "every one of class 2" in asked.sentence
    found = own.unlearn(mine, ["unet_surgery", "contrastive_unlearning"])
    assert found["retrained"].measures["forget"] == 0
    assert found.rows[0].metrics["C2"].value is not None
    assert "tunes itself on validation examples" in found["contrastive_unlearning"].reason


# ------------------------------------------------------------------ flags and strategies


@strategy(category="Yours", cite="", reads=())
def does_nothing(model, forget, retain, task, *, seed=0):
    return Unlearned(clone(model))


@strategy(category="Yours", cite="", reads=())
def breaks(model, forget, retain, task, *, seed=0):
    raise RuntimeError("out of ideas")


def test_a_strategy_that_returns_the_original_is_flagged_with_and_without_retraining(
    trained, original
):
    for mine in (trained, own.Classifier(original, TRAIN, range(40))):
        found = own.unlearn(mine, [does_nothing, breaks])
        assert "no-op" in found["does_nothing"].flags
        assert found["breaks"].status == "error"
        assert found["breaks"].reason == "RuntimeError: out of ideas"
        assert "breaks: error: RuntimeError: out of ideas" in str(found)


def test_flags_without_retraining_follow_their_words(original):
    workload = own.Classifier(original, **WHOLE).bench(1).own

    class Row:
        kind, weights_changed = "strategy", True

    before = {"forget": 1.0, "retain": 1.0, "unseen": 0.9, "AUC": 0.8}
    flags = lambda **new: own._flags_alone([Row], {**before, **new}, before, workload)
    assert flags() == ()
    assert flags(unseen=0.4) == ("collapsed",)
    assert flags(retain=0.85) == ("forgets what stays",)
    assert flags(AUC=0.3) == ("over-unlearned",) and flags(AUC=0.45) == ()
    assert flags(AUC=0.99) == ("exposes",) and flags(AUC=0.85) == ()


# ------------------------------------------------------------------ settings, order, first words

ADVISED = ["amnesiac", "layer_freezing", "negative_gradient"]


def test_settings_that_were_tuned_on_the_book_say_so(trained):
    asked = {**own.tuned("digits"), "scrub": {"epochs": 2}}
    found = own.unlearn(trained, [*ADVISED, "scrub", does_nothing], settings=asked)
    by = "chosen on the workload digits of this book, not on this model"
    rows = {row.strategy: row for row in found.rows}
    for name in ADVISED:
        assert rows[name].settings_chosen_by == by and found[name].status == "ok"
        assert rows[name].settings.items() >= own.tuned("digits")[name].items()
    assert rows["layer_freezing"].settings["mode"] == "eu"
    assert "no-op" not in found.flags["layer_freezing"]
    assert rows["scrub"].settings_chosen_by == "given by the caller"
    assert rows["does_nothing"].settings_chosen_by == "the function's defaults"
    said = " ".join(found.limits)
    assert f"amnesiac, layer_freezing and negative_gradient were {by}" in said
    assert "defaults of does_nothing" in said and 'settings=own.tuned("digits") gives' in said
    made = found.model("layer_freezing")
    right = (made(X[:40]).argmax(1) == Y[:40]).double().mean()
    assert found["layer_freezing"].measures["forget"] == pytest.approx(float(right))
    # The same strategy with its defaults again: nothing is left of the other settings.
    again = own.unlearn(trained, "layer_freezing")
    assert again.rows[0].settings["mode"] == "cf" and again.notes == []
    with pytest.raises(
        ParameterError, match="no workload of a classifier 'text'; there are digits"
    ):
        own.tuned("text")


def test_what_a_strategy_did_without_is_said(original):
    found = own.unlearn(
        own.Classifier(original, **WHOLE),
        ["layer_freezing", "scrub"],
        settings=own.tuned("synthetic"),
    )
    assert any(
        line.startswith("layer_freezing: the weights that the original") for line in found.notes
    )
    assert any(line.startswith("scrub: no validation data were given") for line in found.notes)
    assert all(
        line in str(found) and line.split(":")[0] in found._repr_html_() for line in found.notes
    )
    said = str(found)
    assert "Flags here compare with the original, for want of retrained models" in said
    assert "near 1 is no failure" in said


def test_examples_that_leave_no_trace_and_a_test_set_that_was_trained_on_are_said_first():
    test = X[40:100], Y[40:100]
    data = dict(train=TRAIN, forget=range(40, 160, 3), holdout=TEST, test=test)
    mine = own.Classifier(network, **data, validation=test, recipe=own.Recipe(6, 5e-3))
    found = own.unlearn(mine, ["negative_gradient", "ssd"], seeds=2)
    first = " ".join(found.first)
    assert "60 of 60 test examples are in the training data, too" in first
    assert "60 of 60 validation examples are in the training data, too" in first
    assert "These 40 examples leave hardly a trace that this test can see" in first
    text = str(found)
    assert text.index(found.first[0]) < text.index("hardly a trace") < text.index("row  ")
    assert not found.ranked and "no ranking; controls come after them" in text
    assert "Retrain-Match says how near" not in text and "is right on" in text
    kinds = [line.kind for line in found.lines]
    assert kinds == sorted(kinds, key=own._KINDS.index)
    names = [line.name for line in found.lines if line.kind == "strategy"]
    assert names == ["negative_gradient", "ssd"]
    columns = [line for line in text.splitlines() if line.startswith("row ")]
    assert "AUC" in columns[0] and "RM" in columns[1]
    one = own.unlearn(own.Classifier(network, GOOD, [3], test=TEST, recipe=RECIPE), "ssd")
    assert "This one example leaves hardly a trace" in one.first[0]
    assert any("no Retrain-Match" in line for line in one.first) == (not one.scored)


def test_the_key_explains_every_column_flag_and_empty_position(result):
    said = " ".join(result.key)
    for word in ("RM: Retrain-Match", "F, P, U:", "z: position", "C1", "C2", "C3", "AUC:"):
        assert word in said, word
    assert "z C2 is empty: no whole class is forgotten, or the test data have none of it" in said
    used = {flag for line in result.lines for flag in line.flags}
    assert used and all(f'"{flag}"' in said for flag in used)
    assert "Flags here compare with retrained models" in said
    assert "<small>" in result._repr_html_() and all(line in str(result) for line in result.key)


def test_gates_are_said_in_words(result):
    for gate in result.board.gates:
        measure = next(name for name in own._ASKED if gate.name.startswith(f"{name} "))
        assert gate.wanted.split()[1] in own._ASKED[measure], gate.name


# ------------------------------------------------------------------ refusals, a sentence each


class Locked(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.lock = network(), threading.Lock()

    def forward(self, x):
        return self.inner(x)


class Alone(nn.Module):
    def __init__(self, answer):
        super().__init__()
        self.inner, self.answer = network(), answer

    def forward(self, x):
        return self.answer(self.inner(x))


NET = network()
REFUSED = {
    "no module": (dict(model="net"), "model must be a torch module, or a class or function"),
    "makes none": (dict(model=lambda: 3), "model must make a torch module; got int"),
    "one object": (dict(model=lambda: NET), "gives the same module twice"),
    "no copy": (dict(model=Locked()), "this one cannot be copied with copy.deepcopy"),
    "no weights": (dict(model=nn.Flatten()), "Flatten has no parameters"),
    "other inputs": (dict(train=(X[:, :4], Y)), r"does not take inputs of shape \(n, 4\)"),
    "one logit": (dict(model=Alone(lambda x: x[:, :1])), "two classes need two logits"),
    "no matrix": (dict(model=Alone(lambda x: x.sum())), "one logit per class"),
    "softmax": (dict(model=Alone(lambda x: x.softmax(1))), "leave out its softmax"),
    "no labels": (dict(train=X), "train must be .inputs, labels. or a torch Dataset; got Tensor"),
    "no data": (dict(train=7), "train must be .inputs, labels. or a torch Dataset; got int"),
    "words": (
        dict(train=(X, ["a"] * 160)),
        "train: labels must be whole numbers from 0; got strings",
    ),
    "no pairs": (dict(train=["a", "b", "c"]), "every item of the dataset must be"),
    "lengths": (dict(train=(X, Y[:-1])), "must have the same n"),
    "columns": (dict(train=(X, Y[:, None])), r"must have shape \(n,\).*give labels\[:, 0\]"),
    "one-hot": (dict(train=(X, torch.eye(3)[Y])), r"got shape \(160, 3\) \(give labels.argmax"),
    "words in pairs": (dict(train=[(x, "cat") for x in X]), "labels must be whole numbers from 0"),
    "parts": (dict(train=[(x, 0.5) for x in X]), "labels must be whole numbers from 0; got 0.5"),
    "pandas words": (
        dict(train=(X, pandas.Series(["a", "b"] * 80))),
        "labels must be whole numbers from 0; got strings",
    ),
    "labels": (dict(train=(X, Y.float())), "labels must be whole numbers"),
    "classes": (dict(train=(X, Y + 1)), "labels run from 1 to 3, and the model has 3 logits"),
    "not finite": (dict(train=(X / 0, Y)), "hold NaN or infinity"),
    "no ids": (dict(forget=[]), "forget is empty"),
    "text ids": (
        dict(forget=["3"]),
        "forget must be ids, whole numbers from 0 to 159.*got strings",
    ),
    "short mask": (dict(forget=Y[:9] == 1), r"as many entries as train has .*; got shape \(9,\)"),
    "mask of numbers": (dict(forget=(Y == 1).int()), "a mask must be of True and False"),
    "empty mask": (dict(forget=Y > 9), "a mask that names no example"),
    "past the end": (dict(forget=[0, 160]), "forget holds id 160; ids are whole numbers from 0 to"),
    "below 0": (dict(forget=[-1, 3]), "forget holds id -1"),
    "twice": (dict(forget=[3, 5, 3]), "forget holds id 3 twice"),
    "fractions": (dict(forget=[0.5]), "forget must be a list of ids"),
    "all": (dict(forget=range(160)), "forget names all training examples"),
    "holdout": (dict(holdout=(HOLDOUT[0][:, :2], HOLDOUT[1])), "holdout: an example has shape"),
    "empty test": (dict(test=(TEST[0][:0], TEST[1][:0])), "test is empty; leave it out"),
    "architecture": (dict(retrained=nn.Linear(WIDE, 3)), "retrained has another architecture"),
    "two origins": (dict(model=network, retrained=NET), "belong to an original that is given"),
    "recipe": (dict(recipe=dict(lr=1)), "recipe must be own.Recipe"),
    "optimiser": (dict(recipe=own.Recipe(3, 1e-3, optimizer="lion")), "no optimizer 'lion'"),
    "epochs": (dict(recipe=own.Recipe(0, 1e-3)), "at least one epoch"),
    "below no epochs": (dict(recipe=own.Recipe(-2, 1e-3)), "at least one epoch"),
    "half epochs": (
        dict(recipe=own.Recipe(2.5, 1e-3)),
        "epochs of a recipe must be a whole number",
    ),
    "step in words": (dict(recipe=own.Recipe(2, "small")), "lr of a recipe must be a number"),
    "name": (dict(name="../mine"), "name is letters, digits"),
    "device": (dict(device="tpu"), "no device 'tpu'; there are cpu, cuda"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_does_not_fit_is_refused_in_one_sentence(what):
    wrong, said = REFUSED[what]
    with pytest.raises(ParameterError, match=said) as refusal:
        own.Classifier(**{"model": NET, "train": TRAIN, "forget": range(40), **wrong})
    assert "\n" not in str(refusal.value) and not str(refusal.value).endswith(".")


@pytest.mark.parametrize(
    "asked, said",
    [
        (dict(strategies="scrubb"), "there is no strategy 'scrubb'; there are"),
        (dict(strategies=[print]), "a name or a function marked with @strategy"),
        (dict(strategies="ssd", seeds=0), "seeds must be a whole number, at least 1; got 0"),
        (dict(strategies="ssd", settings={"ssd": {"beta": 1}}), "no setting of ssd 'beta'"),
        (
            dict(strategies="ssd", settings={"scrub": {}}),
            "no strategy to give settings for 'scrub'",
        ),
    ],
)
def test_what_cannot_be_run_is_refused_before_any_work(asked, said):
    mine = own.Classifier(network, **WHOLE)
    with pytest.raises(ParameterError, match=said):
        own.unlearn(mine, **asked)
    assert all(not bench._states for bench in mine._benches.values())
    with pytest.raises(ParameterError, match="first argument is an own.Classifier"):
        own.unlearn(network(), "ssd")


# ------------------------------------------------------------------ what is written


def test_rows_go_to_a_folder_that_was_named_and_to_no_board_of_the_book(tmp_path, original):
    before = sorted((ROOT / "results").rglob("*"))
    mine = own.Classifier(network, **WHOLE, recipe=own.Recipe(5, 5e-3), name="mine")
    own.unlearn(mine, "ssd")
    assert sorted((ROOT / "results").rglob("*")) == before
    found = own.unlearn(mine, "ssd", out=tmp_path)
    assert {p.name for p in records.paths(tmp_path / "own")} == {"reference.json", "llm.json"}
    assert own.boards(tmp_path)["mine"]["ssd"].rm == found.board["ssd"].rm
    assert isinstance(own.boards(tmp_path)["mine"], score.Board)
    book = selection.load(tmp_path / "own", ROOT)
    assert not book.documents and book.aside["mine"].total() == len(found.rows) + 7
    own.unlearn(
        own.Classifier(network, **WHOLE, recipe=own.Recipe(5, 5e-3), name="mine"),
        "ssd",
        out=tmp_path,
    )
    other = own.Classifier(network, TRAIN, range(30), recipe=own.Recipe(5, 5e-3), name="mine")
    with pytest.raises(ParameterError, match="holds results of another model, recipe or data"):
        own.unlearn(other, "ssd", out=tmp_path)


# ------------------------------------------------------------------ what a module is made of


class Residual(nn.Module):
    """A convolution, a shortcut with batch normalisation, a linear layer."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, CLASSES)  # defined first, run last
        self.conv1, self.bn1 = nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.conv2, self.relu = nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(inplace=True)

    def forward(self, x):
        x = self.relu(self.bn1(self.conv1(x)))
        return self.fc((x + self.conv2(x)).mean((2, 3)))


def pictures(count, key):
    draw = generator("own pictures", key)
    labels = torch.randint(CLASSES, (count,), generator=draw)
    noise = torch.randn(count, 1, 6, 6, generator=draw)
    return noise + labels[:, None, None, None].float(), labels


def test_layers_are_in_the_order_in_which_they_run_whatever_order_they_are_defined_in():
    blocks = blocks_of(Residual().eval(), pictures(2, "two")[0])
    assert blocks == [["conv1", "bn1"], ["conv2"], ["fc"]]


def test_units_are_prunable_only_where_nothing_else_reads_them():
    plain = nn.Sequential(
        *(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(36, 8), nn.Tanh(), nn.Dropout(), nn.Linear(8, 3)),
    )
    groups = unit_groups_of(plain)
    assert [(g.producer, g.consumer, g.activation, g.columns) for g in groups] == [
        ("0", "4", "1", 9),
        ("4", "7", "5", 1),
    ]
    assert unit_groups_of(Residual()) == ()  # normalised, added up, or read twice

    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = network()

        def forward(self, x):
            return self.inner(x) if x.sum() > 0 else self.inner(-x)

    assert unit_groups_of(Branching()) == ()  # torch.fx cannot follow it


def test_a_residual_network_with_batch_normalisation_goes_through(tmp_path):
    train, test = pictures(90, "train"), pictures(60, "test")
    mine = own.Classifier(
        Residual, train, range(20), test=test, validation=test, recipe=own.Recipe(6, 1e-2)
    )
    names = ["scrub", "lora", "ssd", "amnesiac", "layer_freezing", "neuron_pruning"]
    found = own.unlearn(mine, [*names, "contrastive_unlearning", "certified_removal"])
    for name in (*names[:-1], "contrastive_unlearning"):
        assert found[name].status == "ok", found[name].reason
    assert found["neuron_pruning"].status == "not_applicable"
    assert "data that nobody may ask to forget" in found["certified_removal"].reason
    # Retraining for a share of its epochs learns running statistics, too.
    partial = next(r for r in found.reference.rows if r.strategy == "partial_retrain")
    assert partial.status == "ok"
    bench = found.bench
    made = bench.unlearn(own.partial_retrain, 0, {"share": 0.25})[0].model
    assert not made.training and made.bn1.num_batches_tracked > 0
    assert made.bn1.running_mean.abs().max() > 0.01


# ------------------------------------------------------------------ the page


def run_page(target, **given):
    code = [sys.executable, "-m", "erasus_nb.execute", ROOT / "notebooks/your_own.ipynb", target]
    return subprocess.run(
        [*map(str, code), "--cwd", str(target.parent)],
        input=json.dumps(given),
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_page_runs_headless_and_writes_rows_only_where_it_is_told_to(tmp_path):
    target = tmp_path / "out.ipynb"
    given = {"profile": "smoke", "seeds": 1, "strategies": ["ssd"], "out": str(tmp_path / "rows")}
    ran = run_page(target, **given)
    assert ran.returncode == 0, ran.stderr
    text = target.read_text("utf-8")
    for said in ("ResNet (", "Sequential (", "What these numbers cannot say", "No retrained model"):
        assert said in text, said
    outputs = [o for c in json.loads(text)["cells"] for o in c.get("outputs", ())]
    assert sum("<figure" in json.dumps(o) for o in outputs) == 2
    names = {p.parent.name for p in records.paths(tmp_path / "rows" / "own")}
    assert names == {"resnet", "mlp"}


@pytest.mark.parametrize(
    "given, said",
    [
        ({"strategies": ["scrubb"]}, "ParameterError: there is no strategy 'scrubb'"),
        ({"seeds": 0}, "ParameterError: seeds must be at least 1; got 0"),
        ({"profile": "big"}, "ParameterError: there is no profile 'big'"),
        ({"device": "tpu"}, "ParameterError: there is no device 'tpu'"),
    ],
)
def test_parameters_of_the_page_are_checked(given, said):
    values = {"strategies": [], "seeds": 1, "profile": "smoke", "device": "cpu", "out": ""}
    with pytest.raises(ParameterError, match=said.removeprefix("ParameterError: ")):
        own.check_page("your_own", {**values, **given, "_parameters_checked": True})


def test_the_page_is_run_with_the_others_and_is_no_category():
    assert "your_own" in selection.runnable(ROOT) and "your_own" in cells.names()
    assert "your_own" not in selection.categories(ROOT)
    assert set(selection.runnable(ROOT)) == {*selection.categories(ROOT), *selection.GUIDES}


def test_the_page_and_no_other_is_run_again_when_this_code_changes():
    path = ROOT / "erasus_nb" / "own.py"
    edited = keys.Sources(instead={path: path.read_text("utf-8") + "\nNEW = 1\n"})
    assert edited.pages_code() == keys.sources().pages_code()
    assert cli.guide_code() == keys.sources().pages_code("erasus_nb.own")
    assert edited.pages_code("erasus_nb.own") != cli.guide_code()


def test_no_row_of_the_book_depends_on_models_of_ones_own():
    sources = keys.sources()
    for name in ("synthetic", "digits"):
        reached = sources.closure([keys.ROWS, keys.MODELS, (f"erasus_nb.workloads.{name}", "make")])
        assert not [module for module, _ in reached if module.endswith(".own")]
