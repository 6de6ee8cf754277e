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
from erasus_nb import ROOT, cells, charts, keys, own_bench, own_result, records, score, selection
from erasus_nb.parameters import ParameterError
from erasus_nb.strategy import Unlearned, strategy
from erasus_nb.training import clone, generator, same_weights
from erasus_nb.workloads.classifier.own import blocks_of, not_redrawn, unit_groups_of

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


FIELDS = "mine", "bench", "functions", "reference", "rows", "settings"


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
    for name in ("lora", "original", "fine_tune"):
        with pytest.raises(KeyError, match=f"no strategy '{name}' here; there are scrub, ssd"):
            result.model(name)
    with pytest.raises(KeyError, match="no seed 7 here; there are 0"):
        result.model("scrub", 7)


def test_a_retrained_model_is_handed_out_and_its_row_says_its_seconds(trained, result):
    model = result.model("retrained", seed=0)
    assert not model.training
    assert same_weights(model.state_dict(), module_of(trained, "retrained").state_dict())
    nn.init.zeros_(model[0].weight)
    assert result.model("retrained")[0].weight.any()
    with pytest.raises(KeyError, match="no seed 7 here; there are 0"):
        result.model("retrained", 7)
    assert re.fullmatch(
        r"(\d+\.\d\d|under 0.01) s \(1\.00 x retraining\)", result["retrained"].cost
    )
    assert re.fullmatch(r"[\d.]+ x retraining", result["scrub"].cost)
    assert own_result._cost(0.004, 1.0, both=True) == "under 0.01 s (1.00 x retraining)"


def test_the_controls_beside_the_strategies_are_named(result):
    (said,) = result.says
    bar, rm = result.board.bar, {line.name: line.scores["RM"] for line in result.lines}
    cheap = "original, fine_tune, random_label, random_init"
    assert f"{bar.name}, the best of the cheap controls ({cheap}), has {bar.rm.mean:.1f}; " in said
    stopped = rm["partial_retrain"]
    assert f"stopped early (partial_retrain) has {stopped:.1f}" in said
    lines = [result[name] for name in ("ssd", "neuron_pruning")]
    assert stopped > max(line.scores["RM"] for line in lines)
    assert result._beside(lines)[1].endswith(f"{stopped:.1f}, above both strategies")
    assert result._beside(lines[:1])[1].endswith(", above the strategy")
    above = stopped > max(rm[f.__name__] for f in result.functions)
    assert said.endswith(", above all strategies.") == above


def test_a_model_of_a_result_is_the_readers_to_change(result):
    first = result.model("scrub").train()
    nn.init.zeros_(first[0].weight)
    second = result.model("scrub")
    assert not second.training and second[0].weight.any()


def test_where_no_strategy_is_named_all_with_a_meaning_are_chosen(original):
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


class Scaled(nn.Module):
    """A network beside a weight that the root module owns."""

    def __init__(self):
        super().__init__()
        self.inner, self.scale = network(), nn.Parameter(torch.ones(1))

    def forward(self, x):
        return self.inner(x) * self.scale


def test_a_module_that_cannot_begin_anew_is_run_without_new_models_or_with_fresh(original):
    net = Scaled()
    net.inner.load_state_dict(original.state_dict())
    assert not_redrawn(net) == "Scaled has weights and no reset_parameters"
    assert not_redrawn(original) is None
    with pytest.raises(ParameterError, match="Scaled has weights and no reset_parameters"):
        own.Classifier(net, **WHOLE, recipe=RECIPE)
    found = own.unlearn(own.Classifier(net, **WHOLE), ["ssd", "knowledge_distillation"])
    assert found["ssd"].status == "ok"
    assert found["knowledge_distillation"].status == "not_applicable"
    assert found["random_init"].status == "not_applicable"
    found = own.unlearn(own.Classifier(net, **WHOLE, recipe=RECIPE, fresh=Scaled), "ssd")
    assert found["ssd"].scores["RM"] is not None and found["random_init"].status == "ok"


class Forgetful(nn.Linear):
    def reset_parameters(self):
        nn.init.uniform_(self.bias)


class Asking(nn.Linear):
    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.reset_parameters = lambda spread: nn.init.normal_(self.weight, 0, spread)


def test_weights_that_would_stay_trained_in_a_new_model_are_found():
    normed = nn.utils.spectral_norm(nn.Linear(WIDE, CLASSES))
    assert not_redrawn(nn.Sequential(normed)) == "reset_parameters leaves 0.weight_orig as it is"
    forgetful = Forgetful(WIDE, CLASSES)
    nn.init.normal_(forgetful.weight)
    assert not_redrawn(forgetful) == "reset_parameters leaves weight as it is"
    with pytest.raises(ParameterError, match="no new model can be made: reset_parameters leaves"):
        own.Classifier(forgetful, **WHOLE, recipe=RECIPE)
    assert not_redrawn(Asking(WIDE, CLASSES)).startswith("reset_parameters fails (TypeError: ")
    # What starts at ones and zeros and was not trained is drawn as it is.
    assert not_redrawn(nn.Sequential(nn.BatchNorm1d(WIDE), nn.Linear(WIDE, CLASSES))) is None


def test_a_frozen_layer_is_no_new_layer(original):
    net = clone(original)
    net[0].requires_grad_(False)
    lacking = "made: 0.weight is frozen .*a new module with the same frozen weights"
    with pytest.raises(ParameterError, match=lacking):
        own.Classifier(net, **WHOLE, recipe=RECIPE)
    assert "0.weight is frozen" in own.Classifier(net, **WHOLE).material.fresh

    def fresh():
        made = network()
        made[0].load_state_dict(net[0].state_dict())
        made[0].requires_grad_(False)
        return made

    mine = own.Classifier(net, **WHOLE, recipe=own.Recipe(2, 5e-3), fresh=fresh)
    retrained = mine.bench(1).retrained()[0]
    assert torch.equal(retrained["0.weight"], original[0].weight)
    assert not torch.equal(retrained["2.weight"], original[2].weight)

    def thawed():
        return fresh().requires_grad_()

    def otherwise():
        made = network()
        made[0].requires_grad_(False)
        return made

    for model, wrong in ((net, network), (net, thawed), (net, otherwise), (original, otherwise)):
        with pytest.raises(ParameterError, match=r"other frozen weights than model has \(0.weight"):
            own.Classifier(model, **WHOLE, recipe=RECIPE, fresh=wrong)
    own.Classifier(original, **WHOLE, recipe=RECIPE, fresh=fresh)  # it was loaded, say


def test_layer_freezing_freezes_all_but_the_last_block_beside_a_weight_of_the_root(original):
    net = Scaled()
    net.inner.load_state_dict(original.state_dict())
    assert blocks_of(net, X[:2]) == [["inner.0"], ["inner.2"], ["inner.4"]]
    found = own.unlearn(own.Classifier(net, **WHOLE, fresh=Scaled), "layer_freezing")
    changed = {
        name
        for name, weight in found.model("layer_freezing").named_parameters()
        if not torch.equal(weight, net.get_parameter(name))
    }
    assert changed == {"inner.4.weight", "inner.4.bias"}
    last = net.inner[4].weight.numel() + net.inner[4].bias.numel()
    whole = sum(weight.numel() for weight in net.parameters())
    assert found.rows[0].info["trained"] == pytest.approx(last / whole)


def test_attention_whose_output_layer_is_never_called_is_a_layer():
    class Attending(nn.Module):
        def __init__(self):
            super().__init__()
            self.mix = nn.MultiheadAttention(WIDE, 1, batch_first=True)
            self.out = nn.Linear(WIDE, CLASSES)

        def forward(self, x):
            return self.out(self.mix(x[:, None], x[:, None], x[:, None])[0][:, 0])

    assert sum(blocks_of(Attending().train(), X[:2]), []) == ["mix", "out"]


def test_a_model_that_works_in_place_on_what_it_is_given_leaves_the_data_alone():
    mine = own.Classifier(nn.Sequential(nn.ReLU(inplace=True), network()), TRAIN, range(40))
    assert torch.equal(mine.material.inputs, X)
    assert torch.equal(mine.bench(1).own.inputs, X)


class Turned(nn.Module):
    """A network whose answers depend on numbers that are not among its weights."""

    def __init__(self, buffer=False):
        super().__init__()
        self.inner, turn = network(), torch.randn(CLASSES)
        if buffer:
            self.register_buffer("turn", turn, persistent=False)
        else:
            self.turn = turn

    def forward(self, x):
        return self.inner(x) + self.turn


@pytest.mark.parametrize("buffer", [False, True])
def test_what_a_model_keeps_outside_its_weights_is_noticed(buffer):
    make = lambda: Turned(buffer)
    for given, who in (
        (dict(model=make), "what model makes"),
        (dict(model=make(), fresh=make), "what fresh makes"),
        (dict(model=make(), retrained=make()), "retrained"),
    ):
        with pytest.raises(
            ParameterError, match=f"{who} answers otherwise.*outside its state_dict"
        ):
            own.Classifier(**given, **WHOLE)


class Halved(nn.Module):
    """Tokens to logits, in half precision."""

    def __init__(self):
        super().__init__()
        self.embed, self.out = nn.Embedding(8, 16), nn.Linear(16, CLASSES)
        self.bfloat16()

    def forward(self, x):
        return self.out(self.embed(x).mean(1))


def test_a_model_in_half_precision_is_measured():
    tokens = torch.randint(8, (60, 4), generator=generator("own tokens"))
    pair = tokens, tokens[:, 0] % CLASSES
    torch.manual_seed(0)
    mine = own.Classifier(
        Halved(), pair, range(20), holdout=pair, test=pair, retrained=Halved(), recipe=RECIPE
    )
    found = own.unlearn(mine, "ssd")
    for name in ("original", "retrained", "ssd", "fine_tune"):
        assert found[name].status == "ok", found[name].reason
        assert set(found[name].measures) == {"forget", "retain", "unseen", "AUC"}


@strategy(category="Yours", cite="", reads=())
def wants_a_pair(model, forget, retain, task, *, pair=(1, 2), seed=0):
    if not isinstance(pair, tuple):
        raise TypeError("pair must be a tuple")
    made = clone(model)
    nn.init.constant_(made[-1].bias, float(sum(pair)))
    return Unlearned(made)


def test_a_model_of_a_late_seed_is_made_again_with_the_settings_as_they_were(original):
    mine = own.Classifier(original, **WHOLE)
    asked = {"wants_a_pair": {"pair": (3, 4)}}
    found = own.unlearn(mine, [wants_a_pair, "sisa"], seeds=4, settings=asked)
    assert (found.model("wants_a_pair", 3)[-1].bias == 7).all()
    with pytest.raises(KeyError, match="sisa made no model at seed 3: the original was trained"):
        found.model("sisa", 3)


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


def test_a_strategy_that_fails_at_one_seed_is_partial_with_and_without_a_score(original):
    tried = []

    @strategy(category="Yours", cite="", reads=())
    def fails_later(model, forget, retain, task, *, seed=0):
        tried.append(seed)
        if len(set(tried)) > 1:
            raise RuntimeError("out of ideas")
        return Unlearned(clone(model))

    mine = own.Classifier(original, TRAIN, range(40), retrained=[network(), network()])
    found = own.unlearn(mine, fails_later)
    line = found["fails_later"]
    assert line.measures and line.scores["RM"] is None and line.status == "partial"
    assert "fails_later: partial: seed 1: RuntimeError: out of ideas" in str(found)


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


def test_a_holdout_unlike_the_forget_set_is_said_first(original, trained, result):
    assert not result._about_holdout()
    data = dict(train=TRAIN, forget=range(40), test=TEST)
    found = own.unlearn(own.Classifier(network, **data, holdout=TEST, recipe=RECIPE), "ssd")
    auc = found["retrained"].measures["AUC"]
    assert found.first[0].startswith(
        "Retrained models, which saw neither, tell the forget set from the holdout (AUC "
        f"{auc:.2f}, expected about 0.5): the holdout is not like the forget set"
    )
    retrained = module_of(trained, "retrained")
    given = own.Classifier(original, **data, holdout=TEST, retrained=retrained)
    first = own.unlearn(given, "ssd").first[0]
    assert "which should have seen neither" in first and "or they saw one of the two" in first
    # Of a holdout that is in the retain set they did see some.
    copies = tuple(part[100:140] for part in TRAIN)
    found = own.unlearn(own.Classifier(network, **data, holdout=copies, recipe=RECIPE), "ssd")
    assert "in the training data, too" in found.first[0]
    assert "Retrained models, which" not in found.sentence


def test_a_recipe_unlike_the_originals_is_asked_about(original):
    flat = own.Recipe(2, 1e-2, weight_decay=90.0)  # one answer to everything
    found = own.unlearn(own.Classifier(original, **WHOLE, recipe=flat), "ssd", seeds=2)
    before = found["original"].measures["unseen"]
    (said,) = [line for line in found.first if line.startswith("The retrained models are right")]
    assert f"would be (original {before:.2f}), so what strategies keep cannot be scored" in said
    assert said.endswith("Does recipe say how the original was trained?")
    assert "of their Retrain-Match" not in str(found) and "in which they ran" in str(found)


def test_what_a_gate_asks_for_is_said_in_words(result, monkeypatch):
    gate = lambda name, value: records.Gate(name=name, value=value, wanted="", passed=False)
    found = own_result.Result(**{k: v for k, v in vars(result).items() if k in FIELDS})
    for value, said in ((-0.51, "(here no more than chance does)"), (3, "(here 3.00 times)")):
        found._failed = [gate("D gap / its spread over seeds >= 5", value)]
        assert said in found._about_gates()[0] and "few classes" not in found._about_gates()[0]
    found._failed = [gate("RM random_init <= 10", 24.53)]
    (said,) = found._about_gates()
    assert "at most 10 (here 24.53). With few classes an untrained network is right by" in said
    monkeypatch.setattr(own_result, "_FEW_CLASSES", CLASSES - 1)
    assert "few classes" not in found._about_gates()[0]


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
        with pytest.raises(ParameterError, match=f"there is no position to draw: .*{said}"):
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


def test_test_data_of_the_forgotten_class_alone_are_no_utility():
    test = tuple(part[TEST[1] == 2] for part in TEST)
    mine = own.Classifier(network, GOOD, GOOD[1] == 2, test=test, recipe=RECIPE)
    found = own.unlearn(mine, "ssd")
    assert found.rows[0].metrics["C2"].value is not None
    assert found.rows[0].metrics["C4"].reason == "all test data are of a forgotten class"
    assert any(line.startswith("All test data are of a forgotten class") for line in found.first)
    assert "no test data were given" not in str(found)


def test_chance_is_the_most_frequent_class_of_what_there_is(original):
    most = lambda labels: float(labels.bincount().max() / len(labels))
    chance = lambda **given: own.Classifier(original, TRAIN, range(40), **given).bench(1).own.chance
    assert chance(test=TEST) == pytest.approx(most(TEST[1]))
    assert chance() == pytest.approx(most(Y[40:])) and most(Y[40:]) > 1 / CLASSES


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
    flags = lambda **new: own_result._flags_alone([Row], {**before, **new}, before, workload)
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
    assert "60 of 60 validation examples are in the test data, too" in first
    assert "validation examples are in the holdout" not in first
    assert found.first is found.first  # counted once
    assert "These 40 examples leave hardly a trace that this test can see" in first
    text = str(found)
    assert text.index(found.first[0]) < text.index("hardly a trace") < text.index("row  ")
    assert not found.ranked and "no ranking; controls come after them" in text
    assert "Retrain-Match says how near" not in text and "is right on" in text
    kinds = [line.kind for line in found.lines]
    assert kinds == sorted(kinds, key=own_result._KINDS.index)
    names = [line.name for line in found.lines if line.kind == "strategy"]
    assert names == ["negative_gradient", "ssd"]
    columns = [line for line in text.splitlines() if line.startswith("row ")]
    assert "AUC" in columns[0] and "RM" in columns[1]
    one = own.unlearn(own.Classifier(network, GOOD, [3], test=TEST, recipe=RECIPE), "ssd")
    assert "This one example leaves hardly a trace" in one.first[0]
    assert any("no Retrain-Match" in line for line in one.first) == (not one.scored)


def test_forgotten_examples_that_stay_as_copies_and_a_holdout_that_tunes_are_said(original):
    again = torch.cat([X, X[:5]]), torch.cat([Y, Y[:5]])
    mine = own.Classifier(original, again, range(40), holdout=HOLDOUT, validation=HOLDOUT)
    first = " ".join(own.unlearn(mine, does_nothing).first)
    assert "5 of 40 forget examples are in the retain set, too, so retrained models were" in first
    assert "40 of 40 validation examples are in the holdout, too" in first
    assert not own.unlearn(own.Classifier(original, **WHOLE), does_nothing).first


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
        measure = next(name for name in own_result._ASKED if gate.name.startswith(f"{name} "))
        bounds = re.findall(r"\d+(?:\.\d+)?", own_result._ASKED[measure])
        assert bounds == [gate.wanted.split()[1]], gate.name


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


def fails(x):
    raise ValueError("this is wrong\nand a page of what it was given")


def frozen_network():
    net = network()
    net[0].requires_grad_(False)
    return net


NET, OTHER = network(), network()
LAZY = nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.LazyLinear(CLASSES))
REFUSED = {
    "no module": (dict(model="net"), "model must be a torch module, or a class or function"),
    "makes none": (dict(model=lambda: 3), "model must make a torch module; got int"),
    "one object": (dict(model=lambda: NET), "gives the same module twice"),
    "no copy": (dict(model=Locked()), "this one cannot be copied with copy.deepcopy"),
    "no weights": (dict(model=nn.Flatten()), "Flatten has no parameters"),
    "other inputs": (dict(train=(X[:, :4], Y)), r"does not take inputs of shape \(n, 4\)"),
    "one logit": (dict(model=Alone(lambda x: x[:, :1])), "two classes need two logits"),
    "no matrix": (dict(model=Alone(lambda x: x.sum())), "one logit per class"),
    "two lines": (dict(model=Alone(fails)), "ValueError: this is wrong$"),
    "chance": (dict(model=Alone(nn.functional.dropout)), "answers differently twice in eval mode"),
    "lazy layers": (
        dict(model=LAZY),
        "the model has lazy layers without weights; give their sizes",
    ),
    "lazy retrained": (dict(retrained=LAZY), "retrained has lazy layers without weights"),
    "frozen": (dict(model=frozen_network(), recipe=RECIPE), "0.weight is frozen"),
    "one fresh": (dict(fresh=lambda: OTHER), "fresh gives the same module twice; it must make"),
    "fresh layers": (
        dict(fresh=lambda: nn.Sequential(*OTHER)),
        "fresh gives the same module twice",
    ),
    "fresh is it": (dict(fresh=lambda: NET), "fresh gives the same module twice"),
    "fresh copies": (dict(fresh=lambda: clone(NET)), "fresh gives a copy of the model"),
    "two makers": (
        dict(model=network, fresh=network),
        "model makes new ones itself; leave fresh out",
    ),
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
    "mixed ids": (dict(forget={1, "a"}), "forget must be ids, whole numbers .*; got strings"),
    "past the end": (dict(forget=[0, 160]), "forget holds id 160; ids are whole numbers from 0 to"),
    "below 0": (dict(forget=[-1, 3]), "forget holds id -1"),
    "twice": (dict(forget=[3, 5, 3]), "forget holds id 3 twice"),
    "fractions": (dict(forget=[0.5]), "forget must be a list of ids"),
    "all": (dict(forget=range(160)), "forget names all training examples"),
    "holdout": (dict(holdout=(HOLDOUT[0][:, :2], HOLDOUT[1])), "holdout: an example has shape"),
    "empty test": (dict(test=(TEST[0][:0], TEST[1][:0])), "test is empty; leave it out"),
    "architecture": (dict(retrained=nn.Linear(WIDE, 3)), "retrained has another architecture"),
    "two origins": (dict(model=network, retrained=NET), "belong to an original that is given"),
    "none retrained": (dict(retrained=[]), "retrained is empty; leave it out"),
    "no retrained": (dict(retrained=7), "retrained must be a torch module or several; got int"),
    "retrained twice": (dict(retrained=[OTHER, OTHER]), "retrained holds the same module twice"),
    "retrained otherwise": (
        dict(retrained=nn.Sequential(*(nn.Tanh() if isinstance(m, nn.ReLU) else m for m in OTHER))),
        "retrained answers otherwise than its weights do in a copy of model",
    ),
    "double retrained": (
        dict(retrained=network().double()),
        r"retrained does not take inputs of shape \(n, 6\) and type torch.float32",
    ),
    "recipe": (dict(recipe=dict(lr=1)), "recipe must be own.Recipe"),
    "optimiser": (dict(recipe=own.Recipe(3, 1e-3, optimizer="lion")), "no optimizer 'lion'"),
    "epochs": (dict(recipe=own.Recipe(0, 1e-3)), "at least one epoch"),
    "below no epochs": (dict(recipe=own.Recipe(-2, 1e-3)), "at least one epoch"),
    "half epochs": (
        dict(recipe=own.Recipe(2.5, 1e-3)),
        "epochs of a recipe must be a whole number",
    ),
    "true epochs": (dict(recipe=own.Recipe(True, 1e-3)), "must be a whole number; got True"),
    "steps of warmup": (dict(recipe=own.Recipe(3, 1e-3, warmup=5)), "from 0 to below 1; got 5"),
    "warmup alone": (dict(recipe=own.Recipe(3, 1e-3, warmup=1)), "warmup of a recipe is a share"),
    "final": (dict(recipe=own.Recipe(3, 1e-3, final=-1)), "final of a recipe must be at least 0"),
    "decay": (dict(recipe=own.Recipe(3, 1e-3, weight_decay=-1)), "weight_decay of a recipe must"),
    "clip in words": (
        dict(recipe=own.Recipe(3, 1e-3, clip="1")),
        "clip of a recipe must be a number",
    ),
    "clip": (
        dict(recipe=own.Recipe(3, 1e-3, clip=-1)),
        "clip of a recipe must be None or a number",
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


def named(name):
    """A strategy of this name, which is another's."""

    def function(model, forget, retain, task, *, seed=0):
        return Unlearned(clone(model))

    function.__name__ = name
    return strategy(category="Yours", cite="", reads=())(function)


@pytest.mark.parametrize(
    "asked, said",
    [
        (dict(strategies=None), "must be names or functions marked with @strategy; got NoneType"),
        (dict(strategies=["ssd", named("ssd")]), "two strategies are named 'ssd'; rename one"),
        (dict(strategies=named("fine_tune")), "a strategy is named 'fine_tune', as other rows are"),
        (dict(strategies=named("original")), "a strategy is named 'original', as other rows are"),
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
    made = []
    mine = own.Classifier(lambda: made.append(1) or network(), **WHOLE)
    before = len(made)
    with pytest.raises(ParameterError, match=said):
        own.unlearn(mine, **asked)
    assert len(made) == before  # no model was made, so none was trained
    with pytest.raises(ParameterError, match="first argument is an own.Classifier"):
        own.unlearn(network(), "ssd")


def test_there_are_no_more_seeds_than_retrained_models():
    mine = own.Classifier(NET, **WHOLE, retrained=OTHER)
    with pytest.raises(
        ParameterError, match="^seeds is 5, and 1 retrained model was given: at most"
    ):
        own.unlearn(mine, "ssd", seeds=5)
    mine = own.Classifier(NET, **WHOLE, retrained=(network(), network()))
    with pytest.raises(ParameterError, match="^seeds is 3, and 2 retrained models were given"):
        own.unlearn(mine, "ssd", seeds=3)


class Auxiliary(nn.Module):
    """Two answers while it is trained, one afterwards."""

    def __init__(self):
        super().__init__()
        self.inner = network()

    def forward(self, x):
        answer = self.inner(x)
        return (answer, answer) if self.training else answer


def test_what_a_model_says_in_training_is_one_sentence():
    mine = own.Classifier(Auxiliary, **WHOLE, recipe=RECIPE)
    with pytest.raises(ParameterError, match="cannot be trained or measured: TypeError: ") as error:
        own.unlearn(mine, "ssd")
    assert "\n" not in str(error.value)
    tokens = torch.arange(20)[:, None] % 10
    net = lambda: nn.Sequential(nn.Embedding(5, 4), nn.Flatten(), nn.Linear(4, CLASSES))
    mine = own.Classifier(net, (tokens, torch.arange(20) % CLASSES), range(3), recipe=RECIPE)
    with pytest.raises(
        ParameterError, match="cannot be trained or measured: IndexError: index out"
    ):
        own.unlearn(mine, "ssd")


def test_tensors_that_carry_a_graph_and_tables_of_others_than_pandas_are_read():
    carrying = [(2 * x.clone().requires_grad_(), y) for x, y in zip(X, Y)]
    mine = own.Classifier(NET, carrying, range(40))
    assert not mine.material.inputs.requires_grad

    class Table:
        def __init__(self, values):
            self.values = values

        def to_numpy(self):  # without pandas' copy=
            return self.values.numpy()

        def __array__(self, dtype=None, copy=None):
            return self.values.numpy().copy()

    mine = own.Classifier(NET, (Table(X), Table(Y)), range(40))
    assert torch.equal(mine.material.inputs, X) and torch.equal(mine.material.labels, Y)


# ------------------------------------------------------------------ what is written


def test_rows_go_to_a_folder_that_was_named_and_to_no_board_of_the_book(tmp_path, original):
    before = sorted((ROOT / "results").rglob("*"))
    mine = own.Classifier(network, **WHOLE, recipe=own.Recipe(5, 5e-3), name="mine")
    own.unlearn(mine, "ssd")
    own.unlearn(mine, "ssd", out="")
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
    made = bench.unlearn(own_bench.partial_retrain, 0, {"share": 0.25})[0].model
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
