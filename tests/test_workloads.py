"""The two classifier workloads: their data, requests, hooks and measurements."""

from __future__ import annotations

import copy
import math
from collections import Counter
from dataclasses import replace
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from erasus_nb import workloads
from erasus_nb.profiles import PROFILES, sizes_of
from erasus_nb.strategy import DataAccessError, MissingRecord, NotApplicable
from erasus_nb.task import Meter, Records
from erasus_nb.training import generator, same_weights
from erasus_nb.workloads import digits, synthetic
from erasus_nb.workloads.classifier import _memberships, wrong_labels

MODULES = {"synthetic": synthetic, "digits": digits}
CPU = torch.device("cpu")
both = pytest.mark.parametrize("name", MODULES)


@cache
def load(name: str = "synthetic", shadows: int = 8):
    """A workload at laptop sizes, but for fewer shadow models."""
    torch.set_num_threads(1)
    return MODULES[name].make(replace(sizes_of("laptop", name), shadows=shadows), CPU)


@cache
def trained(name: str = "synthetic"):
    """Originals and retrained models of two training seeds, at laptop sizes."""
    work = load(name)
    ids = work.train_ids, work.request().retain["ids"]
    return [[work.load(s) for s in work.train([i] * 2, [1000, 1001])] for i in ids]


def everything(work) -> dict[str, torch.Tensor]:
    """All examples of a workload by what they are for; inputs flattened."""
    parts = {"train": work.inputs, "test": work.test["inputs"]}
    for k, fold in enumerate(work.folds, 1):
        parts[f"holdout {k}"] = fold.holdout["inputs"]
        parts[f"validation {k}"] = fold.validation["inputs"]
    return {what: x.flatten(1) for what, x in parts.items()}


# ------------------------------------------------------------------ the door


def test_an_unknown_workload_or_profile_is_refused_with_what_there_is():
    with pytest.raises(ValueError, match="no workload 'novels'; there are synthetic, digits"):
        workloads.load("novels")
    with pytest.raises(ValueError, match="no profile 'tiny'; there are smoke, laptop, full"):
        workloads.load("synthetic", "tiny")


def test_every_profile_has_every_workload():
    assert all(set(sizes) == set(workloads.WORKLOADS) for sizes in PROFILES.values())


def test_a_profile_without_the_workload_is_refused():
    with pytest.raises(ValueError, match="'laptop' has no workload 'novels'; it has synthetic"):
        sizes_of("laptop", "novels")


# ------------------------------------------------------------------ the data


@pytest.mark.parametrize("name, forget, retain", [("synthetic", 64, 256), ("digits", 104, 696)])
def test_the_request_has_the_sizes_it_says(name, forget, retain):
    work = load(name)
    asked = work.request()
    assert (len(asked.forget), len(asked.retain)) == (forget, retain)
    assert len(work.labels) == forget + retain == len(work.train_ids)
    assert len(asked.holdout) == sizes_of("laptop", name).holdout
    assert work.sizes.recipe.batch_size == 32


@both
def test_the_data_are_the_same_whenever_they_are_made(name):
    torch.manual_seed(0)
    first = MODULES[name].make(sizes_of("smoke", name), CPU)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    again = MODULES[name].make(sizes_of("smoke", name), CPU)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.inputs, again.inputs) and torch.equal(first.labels, again.labels)
    assert torch.equal(first.folds[3].holdout["inputs"], again.folds[3].holdout["inputs"])
    assert torch.equal(first.test["inputs"], again.test["inputs"])


@both
def test_folds_and_core_are_disjoint_and_make_up_the_training_data(name):
    work = load(name)
    parts = [ids for f in work.folds for ids in (f.concept, f.canaries)] + [work.core_ids]
    assert sorted(torch.cat(parts).tolist()) == work.train_ids.tolist()
    assert len({f.concept_class for f in work.folds}) == len(work.folds) == 4


@both
def test_no_example_is_in_two_places(name):
    parts = everything(load(name))
    rows = torch.cat(list(parts.values()))
    assert len(torch.unique(rows, dim=0)) == len(rows)
    # The planted fault: one training example in the holdout is found.
    leak = torch.cat([rows, parts["train"][:1]])
    assert len(torch.unique(leak, dim=0)) < len(leak)


@both
def test_concept_examples_carry_their_class_and_core_examples_never_a_concept(name):
    work, module = load(name), MODULES[name]
    assert [f.concept_class for f in work.folds] == list(module.CONCEPTS)
    for fold in work.folds:
        assert (work.labels[fold.concept] == fold.concept_class).all()
    core = Counter(work.labels[work.core_ids].tolist())
    assert set(core) == set(module.CORE)
    assert max(core.values()) - min(core.values()) <= 1


@both
def test_canaries_are_filed_under_core_classes_only(name):
    work, core = load(name), torch.tensor(MODULES[name].CORE)
    for fold in work.folds:
        filed = work.labels[fold.canaries]
        assert torch.isin(filed, core).all()
        assert len(filed.unique()) >= 4  # spread out, so that no class is the canaries'


@both
def test_the_holdout_is_composed_like_the_fold(name):
    work = load(name)
    for k, fold in enumerate(work.folds, 1):
        forget = work.request(folds=(k,)).forget
        share, held, validated = (
            float((part["labels"] != fold.concept_class).double().mean())
            for part in (forget, fold.holdout, fold.validation)
        )
        assert held == pytest.approx(share, abs=1e-9)
        assert validated == pytest.approx(share, abs=0.02)
        core = torch.tensor(MODULES[name].CORE)
        for part in (fold.holdout, fold.validation):
            other = part["labels"][part["labels"] != fold.concept_class]
            assert torch.isin(other, core).all()


def test_canaries_and_their_holdout_are_other_concepts_by_their_looks():
    work = load("synthetic")
    judge = LinearDiscriminantAnalysis().fit(work.test["inputs"], work.test["labels"])
    for fold in work.folds:
        concept = work.batch(fold.concept)["inputs"]
        assert (judge.predict(concept) == fold.concept_class).mean() > 0.6
        held = fold.holdout["labels"] != fold.concept_class
        for inputs, filed in (
            (work.inputs[fold.canaries], work.labels[fold.canaries]),
            (fold.holdout["inputs"][held], fold.holdout["labels"][held]),
        ):
            looks = judge.predict(inputs)
            assert sum(x in synthetic.CONCEPTS for x in looks) > 0.75 * len(looks)
            assert (looks == filed.numpy()).mean() < 0.1


def test_forget_set_and_holdout_have_one_distribution():
    work = load("synthetic")
    asked = work.request()
    own = asked.forget["labels"] == asked.forgotten_class
    held = asked.holdout["labels"] == asked.forgotten_class
    for a, b in ((own, held), (~own, ~held)):
        x, y = asked.forget["inputs"][a], asked.holdout["inputs"][b]
        error = (x.var(0) / len(x) + y.var(0) / len(y)).sqrt()
        z = (x.mean(0) - y.mean(0)) / error
        assert float(z.square().mean().sqrt()) < 2  # 1 is expected


@cache
def scan_of() -> tuple[dict[bytes, int], torch.Tensor]:
    """Noisy pixels -> which scan it is, and the digit that each scan shows."""
    scans, draw = load_digits(), generator("digits", "data")
    images = torch.tensor(scans.images, dtype=torch.float32)[:, None] / 8 - 1
    images = images + digits.NOISE * torch.randn(images.shape, generator=draw)
    return {x.numpy().tobytes(): i for i, x in enumerate(images)}, torch.tensor(scans.target)


@pytest.mark.parametrize("profile", PROFILES)
def test_digits_uses_each_scan_at_most_once(profile):
    work, (where, _) = workloads.load("digits", profile), scan_of()
    used = [where[x.view(1, 8, 8).numpy().tobytes()] for p in everything(work).values() for x in p]
    assert len(set(used)) == len(used) <= 1797


def test_digits_canaries_show_another_core_digit_than_their_label():
    work, (where, shows) = load("digits"), scan_of()
    for fold in work.folds:
        pairs = [(work.inputs[i], work.labels[i]) for i in fold.canaries]
        held = fold.holdout
        pairs += [
            (x, y) for x, y in zip(held["inputs"], held["labels"]) if int(y) != fold.concept_class
        ]
        true = [int(shows[where[x.numpy().tobytes()]]) for x, _ in pairs]
        filed = [int(y) for _, y in pairs]
        assert len(pairs) == 80
        assert all(t != f for t, f in zip(true, filed))
        assert set(true) <= set(digits.CORE) and set(filed) <= set(digits.CORE)


def test_digits_that_do_not_suffice_are_refused():
    greedy = replace(sizes_of("laptop", "digits"), test=150)
    with pytest.raises(ValueError, match="not enough scans of 0"):
        digits.make(greedy, CPU)


def test_wrong_labels_are_wrong_allowed_and_uniform():
    true = torch.arange(10).repeat(600)
    wrong = wrong_labels(true, (4, 5, 6), generator("wrong"))
    assert not (wrong == true).any() and set(wrong.tolist()) == {4, 5, 6}
    of_four = wrong[true == 4]
    assert set(of_four.tolist()) == {5, 6}
    assert float((of_four == 5).double().mean()) == pytest.approx(0.5, abs=0.1)


def test_synthetic_inputs_are_scaled_by_the_training_data():
    work = load()
    assert work.inputs.mean(0).abs().max() < 1e-5
    assert (work.inputs.std(0) - 1).abs().max() < 1e-4
    # Scaled by the same numbers and not by their own: the test data come out elsewhere.
    assert work.test["inputs"].mean(0).abs().max() > 0.02


# ------------------------------------------------------------------ requests


@both
def test_a_request_splits_the_training_data_in_two(name):
    work = load(name)
    for folds in ((1,), (3,), (1, 2), (1, 2, 3, 4)):
        asked = work.request(folds=folds)
        ids = asked.forget["ids"].tolist() + asked.retain["ids"].tolist()
        assert sorted(ids) == work.train_ids.tolist()
        for part in (asked.forget, asked.retain):
            assert torch.equal(part["inputs"], work.inputs[part["ids"]])
            assert torch.equal(part["labels"], work.labels[part["ids"]])


@both
def test_the_standard_request_names_one_class_and_marks_its_canaries(name):
    work, fold = load(name), load(name).folds[0]
    asked = work.request()
    assert asked.forgotten_class == fold.concept_class
    assert asked.forget["ids"][asked.rote].tolist() == fold.canaries.tolist()
    assert asked.forget["ids"][~asked.rote].tolist() == fold.concept.tolist()
    assert (asked.concept["labels"] == fold.concept_class).all() and len(asked.concept) >= 64
    assert not (asked.utility["labels"] == fold.concept_class).any()
    assert len(asked.concept) + len(asked.utility) == len(work.unseen)
    assert f"class {fold.concept_class}" in asked.sentence
    assert f"{len(fold.canaries)} wrongly labelled" in asked.sentence


@both
def test_a_request_for_two_folds_joins_them(name):
    work = load(name)
    one, two, joined = (work.request(), work.request(folds=(2,)), work.request(folds=(1, 2)))
    ids = lambda batch: batch["ids"].tolist()
    assert ids(joined.forget) == ids(one.forget) + ids(two.forget)
    assert len(joined.holdout) == len(one.holdout) + len(two.holdout)
    assert len(joined.concept) == len(one.concept) + len(two.concept)
    assert joined.rote.tolist() == one.rote.tolist() + two.rote.tolist()
    assert joined.forgotten_class is None
    gone = {work.folds[0].concept_class, work.folds[1].concept_class}
    assert not gone & set(joined.utility["labels"].tolist())
    assert len(work.validation(joined)) == sum(len(work.validation(r)) for r in (one, two))


@both
def test_measuring_examples_are_correctly_labelled_and_never_canaries(name):
    work = load(name)
    asked = work.request()
    known = {x.numpy().tobytes() for x in work.test["inputs"]}
    for fold in work.folds:
        own = fold.holdout["labels"] == fold.concept_class
        known |= {x.numpy().tobytes() for x in fold.holdout["inputs"][own]}
    for part in (asked.concept, asked.utility):
        assert all(x.numpy().tobytes() in known for x in part["inputs"])


def test_a_fold_asked_for_twice_is_forgotten_once():
    assert len(load().request(folds=(1, 1)).forget) == len(load().request().forget)


def test_unknown_requests_are_refused_with_what_there_is():
    with pytest.raises(ValueError, match="one of standard, most, random, least, got 'all'"):
        load().request("all")
    for folds in ((), (0,), (5,), (1, 9)):
        with pytest.raises(ValueError, match="folds are 1 to 4 and at least one"):
            load().request(folds=folds)


def scored():
    """A workload with enough shadow models to tell memorised from not."""
    return load("synthetic", shadows=12)


def test_selected_requests_are_ordered_by_memorisation():
    work = scored()
    score = {k: work.request(k) for k in ("most", "random", "least")}
    mean = {k: float(work.memorisation[r.forget["ids"]].mean()) for k, r in score.items()}
    assert mean["most"] > mean["random"] + 0.2 and mean["random"] > mean["least"] + 0.2
    for asked in score.values():
        assert len(asked.forget) == len(work.request().forget)
        assert asked.rote.all() and len(asked.concept) == 0
        assert asked.forgotten_class is None and work.validation(asked) is None


def test_memorisation_finds_the_canaries():
    work = scored()
    canaries = torch.cat([f.canaries for f in work.folds])
    score = work.memorisation
    assert score.shape == work.labels.shape and float(score.abs().max()) <= 1
    assert score[canaries].mean() > score[work.core_ids].mean() + 0.2


def test_shadow_models_are_trained_once():
    work, made = synthetic.make(sizes_of("smoke", "synthetic"), CPU), []

    def remember(name, make):
        made.append(name)
        return make()

    work.remember = remember
    for _ in range(2):
        work.shadow_confidence(work.request())
        work.request("most")
    work.shadow_confidence(work.request(folds=(2,)))
    assert len(made) == len(set(made)) == 3


@pytest.mark.parametrize("share, count", [(0.5, 4), (0.5, 5), (0.7, 4), (0.7, 9), (0.5, 32)])
def test_shadow_memberships_are_of_equal_size_and_nobody_is_always_in_or_out(share, count):
    member = _memberships(41, count, generator("members"), share)
    assert member.shape == (count, 41)
    assert member.sum(1).tolist() == [round(share * 41)] * count
    assert not member.all(0).any() and member.any(0).all()


# ------------------------------------------------------------------ hooks


@both
def test_a_model_follows_its_seed_alone(name):
    work = load(name)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = work.make_model(5).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert same_weights(first, work.make_model(5).state_dict())
    assert not same_weights(first, work.make_model(6).state_dict())


@both
def test_no_seed_brings_a_strategy_the_weights_that_training_started_from(name):
    work = load(name)
    started = [work.start_model(seed).state_dict() for seed in range(3)]
    task = work.task(1, reads=frozenset({"new model"}))
    for seed in (*range(3), ("init", name, 1), ("strategy", 1)):
        fresh = task.new_model(seed).state_dict()
        assert not any(same_weights(fresh, start) for start in started)
    assert same_weights(task.new_model(1).state_dict(), task.new_model(1).state_dict())
    with pytest.raises(DataAccessError, match="new model"):
        work.task(1, reads=frozenset({"retain inputs"})).new_model(1)
    with pytest.raises(DataAccessError, match="initial weights"):
        task.training_seed()
    assert not hasattr(task, "seed")


@both
def test_the_texts_about_the_model_are_true(name):
    model = load(name).make_model(0)
    parameters = sum(p.numel() for p in model.parameters())
    assert f"{parameters:,}".replace(",", " ") in type(model).__doc__
    assert load(name).model_text.startswith(type(model).__name__)


@both
def test_loss_and_outputs_are_cross_entropy_and_logits_per_example(name):
    work = load(name)
    task, model, batch = work.task(), work.make_model(0), work.request().forget
    logits = task.outputs(model, batch)
    assert logits.shape == (len(batch), 10)
    by_hand = [-logits[i].log_softmax(-1)[batch["labels"][i]] for i in range(len(batch))]
    assert torch.allclose(task.loss(model, batch), torch.stack(by_hand), atol=1e-6)


def test_divergence_is_the_kl_from_teacher_to_student():
    task, draw = load().task(), generator("kl")
    student, teacher = (torch.randn(6, 10, generator=draw) for _ in range(2))
    for T in (1.0, 4.0):
        p, q = (teacher / T).softmax(-1), (student / T).softmax(-1)
        expected = (p * (p / q).log()).sum(-1) * T**2
        assert torch.allclose(task.divergence(student, teacher, T), expected, atol=1e-5)
    assert task.divergence(student, student).abs().max() < 1e-6
    assert not torch.allclose(
        task.divergence(student, teacher), task.divergence(teacher, student), rtol=0.05
    )


@both
def test_an_uninformed_output_is_uniform_and_shaped_like_any_other(name):
    work = load(name)
    logits = work.task().outputs(work.make_model(0), work.request().forget)
    nothing = work.task().uninformed(logits)
    assert nothing.shape == logits.shape
    assert torch.allclose(nothing.softmax(-1), torch.tensor(0.1))


def test_relabelling_is_never_right_and_uniform_over_the_rest():
    work = load()
    batch = work.batch(torch.zeros(9000, dtype=torch.long))
    right = int(batch["labels"][0])
    new = work.task().relabel(batch, generator("relabel"))
    count = Counter(new["labels"].tolist())
    assert right not in count and len(count) == 9
    assert all(850 < c < 1150 for c in count.values())  # five standard errors
    assert torch.equal(new["inputs"], batch["inputs"]) and (batch["labels"] == right).all()


def test_relabelling_follows_its_generator():
    task, batch = load().task(), load().request().forget
    labels = lambda key: task.relabel(batch, generator(key))["labels"]
    assert torch.equal(labels(1), labels(1)) and not torch.equal(labels(1), labels(2))


def test_relabelling_undeclared_labels_is_refused():
    hidden = load().request().forget.hide({"labels": "the forget labels"})
    with pytest.raises(DataAccessError, match="the forget labels"):
        load().task().relabel(hidden, generator(0))


@both
def test_the_label_distribution_is_the_models_own(name):
    work = load(name)
    model = work.make_model(0)
    hidden = work.request().forget.hide({"labels": "the forget labels"})
    labels, probabilities = work.task().label_distribution(model, hidden)
    assert labels.tolist() == list(range(10))
    assert torch.allclose(probabilities.sum(-1), torch.ones(len(hidden)))
    assert torch.allclose(probabilities, model(hidden["inputs"]).softmax(-1))
    assert not probabilities.requires_grad


def test_sampled_labels_follow_the_models_predictions_and_not_the_true_ones():
    work = load()
    model = work.make_model(0)
    one = work.batch(torch.zeros(6000, dtype=torch.long)).hide({"labels": "the forget labels"})
    drawn = work.task().sample_labels(model, one, generator("sample"))["labels"]
    expected = model(one["inputs"][:1]).softmax(-1)[0]
    found = torch.bincount(drawn, minlength=10) / len(drawn)
    assert (found - expected).abs().max() < 5 * math.sqrt(0.25 / 6000)


@both
def test_blocks_cover_every_parameter_once_from_input_to_head(name):
    work = load(name)
    task, model = work.task(), work.make_model(0)
    names = [module for block in task.blocks(model) for module in block]
    owned = [f"{m}.{n}" for m in names for n, _ in model.get_submodule(m).named_parameters()]
    assert owned == [n for n, _ in model.named_parameters()]
    assert names == [*task.linears(model), task.head(model)]
    assert model.get_submodule(task.head(model)).out_features == 10


def with_units_off(model, group, unit, how):
    """A copy without one unit, by its producer, its consumer or its activation."""
    model = copy.deepcopy(model)
    with torch.no_grad():
        if how == "producer":
            model.get_submodule(group.producer).weight[unit] = 0
            model.get_submodule(group.producer).bias[unit] = 0
        if how == "consumer":
            first = unit * group.columns
            model.get_submodule(group.consumer).weight[:, first : first + group.columns] = 0
        if how == "activation":

            def off(module, inputs, output):
                keep = torch.ones(output.shape[1])
                keep[unit] = 0
                return output * keep.view(1, -1, *[1] * (output.dim() - 2))

            model.get_submodule(group.activation).register_forward_hook(off)
    return model


@torch.no_grad()
def with_activation(model, name, inputs):
    """The model's outputs, and what its module `name` gave on the way."""
    seen = []
    keep = lambda module, inputs, output: seen.append(output)
    hook = model.get_submodule(name).register_forward_hook(keep)
    outputs = model(inputs)
    hook.remove()
    return outputs, seen[0]


@both
def test_unit_groups_name_what_makes_reads_and_carries_a_unit(name):
    work = load(name)
    task, model = work.task(), work.make_model(0)
    batch = work.request().retain.take(torch.arange(40))
    groups = task.unit_groups(model)
    assert [g.producer for g in groups] == task.linears(model)
    assert groups[-1].consumer == task.head(model)
    for group in groups:
        producer, consumer = (model.get_submodule(m) for m in (group.producer, group.consumer))
        units = producer.weight.shape[0]
        assert consumer.weight.shape[1] == units * group.columns
        before, active = with_activation(model, group.activation, batch["inputs"])
        assert active.shape[1] == units and (active >= 0).all()
        unit = int(active.transpose(0, 1).flatten(1).sum(1).argmax())
        with torch.no_grad():
            off = {
                how: with_units_off(model, group, unit, how)(batch["inputs"])
                for how in ("producer", "consumer", "activation")
            }
            wrong = with_units_off(model, group, (unit + 1) % units, "consumer")(batch["inputs"])
        assert torch.allclose(off["producer"], off["activation"], atol=1e-6)
        assert torch.allclose(off["consumer"], off["activation"], atol=1e-6)
        assert not torch.allclose(off["activation"], before, atol=1e-4)
        assert not torch.allclose(wrong, off["activation"], atol=1e-5)


@both
def test_a_classifier_has_one_modality(name):
    with pytest.raises(NotApplicable, match="one modality"):
        load(name).task().modalities(load(name).make_model(0))


def test_passes_are_counted_one_forward_two_with_gradients():
    meter = Meter()
    task, model, batch = (load().task(meter=meter), load().make_model(0), load().request().forget)
    task.loss(model, batch)
    assert meter.passes == 2 * 64
    with torch.no_grad():
        task.outputs(model, batch)
    assert meter.passes == 3 * 64
    task.label_distribution(model, batch)
    assert meter.passes == 4 * 64


# ------------------------------------------------------------------ what must be declared

DECLARED = {
    "forgotten class": lambda task: task.forgotten_class,
    "validation": lambda task: task.validation(),
    "initial weights": lambda task: task.initial_weights(),
    "update log": lambda task: task.update_log(),
    "sisa shards": lambda task: task.sisa(),
    "convex head": lambda task: task.convex_head(),
}


@pytest.mark.parametrize("what", DECLARED)
def test_a_record_is_handed_out_only_if_it_is_declared(what):
    work = load()
    records = Records({name: lambda name=name: name for name in DECLARED})
    given = {
        "records": records,
        "forgotten_class": 0,
        "validation": work.validation(work.request()),
    }
    others = frozenset(DECLARED) - {what}
    with pytest.raises(DataAccessError, match=f"reads {what} but does not declare it"):
        DECLARED[what](work.task(reads=others, **given))
    for reads in (frozenset({what}), None):
        assert DECLARED[what](work.task(reads=reads, **given)) is not None


@pytest.mark.parametrize("what", [w for w in DECLARED if w != "forgotten class"])
def test_a_record_that_was_not_made_is_missing_and_nothing_else(what):
    with pytest.raises(MissingRecord):
        DECLARED[what](load().task(reads=frozenset({what})))


def test_a_record_is_made_once_and_only_when_asked_for():
    made = []
    records = Records({"a": lambda: made.append("a") or 1, "b": lambda: made.append("b")})
    assert records.get("a") == records.get("a") == 1
    assert made == ["a"]


# ------------------------------------------------------------------ measuring

VALUE = 1  # place of the value in what measure() gives for a metric


def test_originals_have_memorised_and_retrained_models_have_not():
    work, asked = load(), load().request()
    originals, retrained = (
        [{k: v[VALUE] for k, v in work.measure(m, asked)[0].items()} for m in models]
        for models in trained()
    )
    mean = lambda rows, key: sum(row[key] for row in rows) / len(rows)
    gap = lambda key: mean(originals, key) - mean(retrained, key)
    assert mean(originals, "C1") >= 0.9 and mean(retrained, "C1") <= 0.15
    assert gap("C2") >= 0.5 and mean(retrained, "C2") <= 0.02
    assert gap("C3") >= 0.15 and abs(mean(retrained, "C3") - 0.5) < 0.1
    assert mean(originals, "C4") > 0.7 and mean(retrained, "C4") > 0.7
    assert mean(originals, "forget_accuracy") >= 0.95
    assert gap("lira_auc") > 0.2 and abs(mean(retrained, "lira_auc") - 0.5) < 0.15


def test_a_model_that_knows_nothing_measures_at_chance():
    work = load()
    model = work.make_model(0)
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.zero_()
    measured, probabilities = work.measure(model, work.request())
    assert measured["forget_loss"][VALUE] == pytest.approx(math.log(10), rel=1e-5)
    assert measured["C3"][VALUE] == 0.5
    assert torch.allclose(probabilities, torch.tensor(0.1))


def test_measures_agree_with_a_slow_reading_of_their_names():
    work, asked = load(), load().request()
    model = trained()[0][0]
    found = {k: v[VALUE] for k, v in work.measure(model, asked)[0].items()}
    right = lambda batch: [
        int(model(x[None]).argmax()) == int(y) for x, y in zip(batch["inputs"], batch["labels"])
    ]
    share = lambda flags: sum(flags) / len(flags)
    forget = right(asked.forget)
    assert found["C1"] == pytest.approx(share([f for f, r in zip(forget, asked.rote) if r]))
    assert found["forget_accuracy"] == pytest.approx(share(forget))
    assert found["C2"] == pytest.approx(share(right(asked.concept)))
    assert found["C4"] == pytest.approx(share(right(asked.utility)))
    assert found["retain_accuracy"] == pytest.approx(share(right(asked.retain)))
    losses = lambda b: F.cross_entropy(model(b["inputs"]), b["labels"], reduction="none").tolist()
    a, b = losses(asked.forget), losses(asked.holdout)
    wins = sum((x < y) + (x == y) / 2 for x in a for y in b) / (len(a) * len(b))
    assert found["C3"] == pytest.approx(wins, abs=1e-4)
    assert found["holdout_loss"] == pytest.approx(sum(b) / len(b), rel=1e-4)


def test_measuring_changes_neither_the_models_mode_nor_its_weights():
    work = load()
    model = copy.deepcopy(trained()[0][0]).train()
    before = copy.deepcopy(model.state_dict())
    work.measure(model, work.request())
    assert model.training and same_weights(model.state_dict(), before)


def test_every_measured_metric_says_its_unit_direction_and_size():
    measured, probabilities = load().measure(trained()[0][0], load().request())
    assert {"C1", "C2", "C3", "C4", "lira_auc"} <= set(measured)
    for name, value, unit, better, n, reason in measured.values():
        assert name and unit in ("fraction", "AUC", "nats") and n > 0 and reason is None
        assert better in ("closer to retrained", "higher", "lower")
        assert unit == "nats" or 0 <= value <= 1
    assert torch.allclose(probabilities.sum(-1), torch.ones(64))


def test_a_selected_request_has_no_concept_and_says_why():
    work = scored()
    measured, _ = work.measure(work.make_model(0), work.request("random"))
    _, value, _, _, n, reason = measured["C2"]
    assert value is None and n == 0 and "names no concept" in reason
