"""Workload `text`: its people, requests, hooks and measurements."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from contract import battery, setting, small_text

from erasus_nb import cells, controls
from erasus_nb.benchmark import Bench
from erasus_nb.metrics import rouge_l
from erasus_nb.profiles import PROFILES, Recipe, sizes_of
from erasus_nb.provenance import UpdateLog
from erasus_nb.strategy import Batch, MissingRecord, NotApplicable, Split
from erasus_nb.training import (
    clone,
    generator,
    gradient,
    same_weights,
    set_weights,
    step_size_share,
    weights,
)
from erasus_nb.workloads import text
from erasus_nb.workloads.text.corpus import PHRASINGS, everything, people

torch.set_num_threads(1)


@cache
def everyone():
    return people(30, passages=2, sheets=4, fillers=2, key="test")


# ------------------------------------------------------------------ the people


def test_names_are_shared_in_part_and_never_whole():
    names = [person.name for person in everyone()]
    assert len(set(names)) == len(names)
    firsts = [name.split()[0] for name in people(300, 1, 1, 1, "test") for name in [name.name]]
    assert len(set(firsts)) < 41 < len(firsts)


def test_a_person_stays_when_there_are_more_of_them():
    assert people(3, 2, 4, 2, "test") == everyone()[:3]


def test_a_sheet_states_every_fact_once_and_where_it_does():
    for person in everyone():
        for sheet in person.sheets:
            values = [s.text[slice(*s.value)] for s in sheet]
            assert sorted(values) == sorted(person.facts.values())
            assert {s.text[slice(*s.name)] for s in sheet} == {person.name}


def test_a_seen_question_is_on_a_sheet_and_an_unseen_one_on_nobodys():
    told = {s.text for p in everyone() for sheet in p.sheets for s in sheet}
    for person in everyone():
        asked = zip(person.questions(seen=True), person.questions(seen=False))
        for (seen, answer), (unseen, same) in asked:
            assert answer == same
            assert f"{seen} {answer}" in told
            assert not any(line.startswith(unseen) for line in told)


def test_the_question_for_measuring_is_no_training_phrasing():
    for statements, questions, kept in PHRASINGS.values():
        assert kept not in questions and kept not in statements


def test_there_are_only_so_many_names():
    with pytest.raises(ValueError, match="names for 2400 people, asked for 2401"):
        people(2401, 1, 1, 1, "test")


# ------------------------------------------------------------------ the request


def test_folds_and_core_make_up_the_training_data():
    load = small_text()
    ids = torch.cat([fold.ids for fold in load.folds])
    core = len(load.core.names) * (1 + 8)  # passages and sheets
    assert ids.tolist() == list(range(len(load.data) - core))
    names = [n for f in load.folds for n in (*f.part.names, *f.holdout_part.names)]
    names += load.core.names
    assert len(set(names)) == len(names)


def test_a_request_splits_training_data_and_people():
    load = small_text()
    asked = load.request(folds=(2, 3))
    both = torch.cat([asked.forget["ids"], asked.retain["ids"]]).sort().values
    assert torch.equal(both, load.train_ids)
    assert asked.parts["forget"].names == load.folds[1].part.names + load.folds[2].part.names
    said = {load.decode(row) for row in asked.forget["inputs"][asked.rote]}
    assert said == set(asked.parts["forget"].passages)
    assert (asked.holdout["ids"] == -1).all()


@pytest.mark.parametrize("kind", ["most", "random", "least"])
def test_only_the_standard_request_is_there(kind):
    with pytest.raises(ValueError, match="standard request only"):
        small_text().request(kind)


@pytest.mark.parametrize("folds", [(), (0,), (5,)])
def test_unknown_folds_are_refused(folds):
    with pytest.raises(ValueError, match="folds are 1 to 4"):
        small_text().request(folds=folds)


def test_a_passage_that_the_prompt_uses_up_is_refused(monkeypatch):
    monkeypatch.setattr(text, "PROMPT", 500)
    with pytest.raises(ValueError, match="leaves nothing to continue"):
        text.make(sizes_of("smoke", "text"), torch.device("cpu"))


# ------------------------------------------------------------------ tokens and facts


def test_every_word_is_one_token_and_every_token_is_in_some_text():
    load = small_text()
    texts = everything(_people(load))
    coded = [load.encode(text) for text in texts]
    assert [load.decode(tokens) for tokens in coded] == texts
    special = {load.pad, load.bos, load.eos, load.tokenizer.unk_token_id}
    assert {i for tokens in coded for i in tokens} | special == set(range(load.vocabulary))
    # Another word is unknown and takes nothing else with it.
    name, unknown = load.core.names[0], load.tokenizer.unk_token_id
    known, strange = (load.encode(f" {w} was born in") for w in (name, "Qwxz Vbnm"))
    assert strange[:2] == [unknown] * 2 and unknown not in known
    assert strange[2:] == known[2:] and len(known) == 5


def test_marked_tokens_are_the_name_and_the_value():
    load = small_text()
    asked = load.request()
    person = next(p for p in _people(load) if p.name == asked.parts["forget"].names[0])
    batch = asked.forget.take((~asked.forget["passage"]).nonzero()[:1, 0])
    tokens, subject, value = (batch[k][0] for k in ("inputs", "subject", "object"))
    for k in range(1, 5):
        assert load.decode(tokens[subject == k]).strip() == person.name
        assert load.decode(tokens[value == k]).strip() in person.facts.values()


def _people(load):
    sizes = load.sizes
    count = 4 * sizes.people + sizes.core + 4 * (sizes.holdout + sizes.people)
    return people(count, sizes.passages, sizes.sheets, sizes.fillers, "text")


def test_a_fact_is_a_prompt_of_its_own_that_ends_where_the_value_begins():
    load, asked = small_text(), small_text().request()
    facts = load.task().facts(asked.forget)
    assert len(facts) == 4 * int((~asked.forget["passage"]).sum())
    values = {p.name: set(p.facts.values()) for p in _people(load)}
    for fact in facts:
        assert fact.prompt[0] == load.bos and (fact.prompt == load.bos).sum() == 1
        name = load.decode(fact.prompt[slice(*fact.subject)]).strip()
        assert load.decode(fact.object).strip() in values[name]


def test_padding_and_the_first_token_are_no_targets():
    load = small_text()
    batch = load.batch(load.train_ids)
    real = batch["inputs"] != load.pad
    assert torch.equal(batch["labels"] != text.IGNORED, real)
    assert torch.equal(load.task().scored(batch), real[:, 1:])
    assert torch.equal(load.task().places(batch), real)


# ------------------------------------------------------------------ the hooks


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_the_loss_is_the_mean_over_real_tokens(architecture):
    load = small_text(architecture)
    model, task = load.make_model(0).eval(), load.task()
    batch = load.batch(load.train_ids[:6])
    for row, loss in zip(batch["inputs"], task.loss(model, batch)):
        row = row[row != load.pad]
        logits = model(input_ids=row[None]).logits[0, :-1]  # without any padding
        assert loss.item() == pytest.approx(F.cross_entropy(logits, row[1:]).item(), 1e-4)


def test_a_loss_from_outputs_is_the_loss():
    load = small_text()
    model, task = load.make_model(0).eval(), load.task()
    questions = load.batch(load.train_ids[:6])
    labels = questions["labels"].clone()
    labels[:, :5] = text.IGNORED  # what is only read
    part = questions.replace(labels=labels, learnt=labels != text.IGNORED)
    for batch in (questions, part):
        found = task.loss_from(task.outputs(model, batch), batch)
        assert torch.allclose(found, task.loss(model, batch), atol=1e-5)


def test_a_divergence_counts_real_tokens_only():
    load = small_text()
    task, batch = load.task(), load.batch(load.train_ids[:4])
    one, other = (task.outputs(load.make_model(s).eval(), batch) for s in (0, 1))
    found = task.divergence(one, other, 2.0)
    for row, (a, b, mask) in enumerate(zip(one, other, task.scored(batch))):
        p, q = (b[mask] / 2).softmax(-1), (a[mask] / 2).softmax(-1)
        by_hand = (p * (p / q).log()).sum(-1).mean() * 4
        assert found[row].item() == pytest.approx(by_hand.item(), rel=1e-3)
    assert (task.divergence(one, one) == 0).all()
    assert (task.divergence(one, task.uninformed(one)) > 0).all()


def test_wrong_labels_are_never_right_and_padding_stays():
    load = small_text()
    batch = load.batch(load.train_ids)
    wrong = load.task().relabel(batch, generator("wrong"))["labels"]
    real = batch["labels"] != text.IGNORED
    assert (wrong[real] != batch["labels"][real]).all()
    assert (wrong[~real] == text.IGNORED).all()
    assert wrong[real].max() < load.vocabulary


def test_sampled_labels_follow_the_model():
    where = setting("text")
    task, batch = where.task(), where.forget_batch.take(torch.arange(10))
    drawn = task.sample_labels(where.model(), batch, generator("draw"))
    real = task.scored(batch)
    same = (drawn["labels"][:, 1:] == batch["labels"][:, 1:])[real].double().mean()
    assert same > 0.6  # the original knows these texts by heart


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_blocks_cover_every_parameter_once_and_layers_are_where_they_say(architecture):
    load = small_text(architecture)
    model, task = load.make_model(0), load.task()
    blocks = task.blocks(model)
    names = [f"{n}.{k}" for b in blocks for n in b for k, _ in
             model.get_submodule(n).named_parameters(recurse=False)]  # fmt: skip
    assert sorted(names) == sorted(n for n, _ in model.named_parameters())
    for layer in task.decoder(model):
        width, inner = load.sizes.width, 2 * load.sizes.width
        matrix = lambda name: task.matrix(model.get_submodule(name))
        assert matrix(layer.attention_out).shape == (width, width)
        assert matrix(layer.mlp_out).shape == (width, inner)
        assert all(matrix(name).shape == (inner, width) for name in layer.mlp_in)
        module = model.get_submodule(layer.mlp_out)
        matrix(layer.mlp_out).data.zero_()  # a view: the weight itself
        assert (module.weight == 0).all()


def test_pruning_every_unit_of_a_layer_silences_its_mlp():
    where = setting("text")
    model, task = where.model(), where.task()
    group = task.unit_groups(model)[0]
    seen = []
    module = model.get_submodule(group.activation)
    handle = module.register_forward_hook(lambda m, i, o: seen.append(o))
    prune = cells.load("parameter").remove_units
    prune(model, group, torch.ones(2 * 64, dtype=torch.bool), task.matrix)
    task.outputs(model, where.forget_batch)
    handle.remove()
    assert (seen[0] == 0).all()


def test_what_means_nothing_on_text_says_so():
    task = small_text().task()
    with pytest.raises(NotApplicable, match="enumerated"):
        task.label_distribution(None, Batch({"ids": torch.arange(1)}))
    with pytest.raises(NotApplicable, match="one modality"):
        task.modalities(None)


def test_an_accumulated_gradient_reaches_every_weight():
    load = small_text()
    found = gradient(load.make_model(0), load.task(), load.batch(load.train_ids))
    assert all((value != 0).any() for value in found.values())


# ------------------------------------------------------------------ training


def test_the_step_size_rises_then_falls_on_a_half_cosine():
    recipe = Recipe(1, 1.0, warmup=0.1, final=0.2)
    share = [step_size_share(recipe, done) for done in (0.05, 0.1, 0.55, 1.0)]
    assert share == pytest.approx([0.5, 1.0, 0.6, 0.2])


def test_a_model_follows_its_seed_alone():
    load = small_text()
    recipe = Recipe(1, 1e-3, 16, warmup=0.5, final=0.1, clip=1.0)
    one, two = load.train([load.train_ids[:32]] * 2, [3, 4], recipe)
    [again] = load.train([load.train_ids[:32]], [3], recipe)
    assert same_weights(one, again) and not same_weights(one, two)


# ------------------------------------------------------------------ measuring


def test_the_original_has_learnt_and_a_stranger_has_not():
    where, load = setting("text"), small_text()
    asked = load.request()
    known, _ = load.measure(where.original, asked)
    fresh, _ = load.measure(load.make_model(9), asked)
    value = lambda found, name: found[name][1]
    assert value(known, "C1") > 0.9 and value(known, "C2") > 0.7
    assert value(known, "extraction_strength") > 0.8 and value(known, "C3") > 0.95
    assert value(fresh, "C1") < 0.1 and value(fresh, "C2") < 0.1
    assert value(fresh, "extraction_strength") < 0.1
    assert abs(value(fresh, "C3") - 0.5) < 0.35
    assert value(fresh, "forget_loss") == pytest.approx(math.log(load.vocabulary), rel=0.1)
    assert all(m[1] is None or math.isfinite(m[1]) for m in known.values())


def _halfway(share):
    """The original, by a share on its way to a model that has learnt nothing."""
    model, fresh = setting("text").model(), small_text().make_model(9)
    for weight, other in zip(model.parameters(), fresh.parameters()):
        weight.data.lerp_(other.data, share)
    return model


@torch.no_grad()
def _next(model, tokens):
    """Log-probabilities after every token but the last, text by text without padding."""
    rows = [row[row != small_text().pad] for row in tokens]
    return [model(row[None]).logits[0, :-1].log_softmax(-1) for row in rows], rows


def _log_p(model, tokens):
    """Log-probability of every token but the first, text by text."""
    return [p[range(len(p)), row[1:]] for p, row in zip(*_next(model, tokens))]


@torch.no_grad()
def _greedy(model, tokens, length):
    tokens, start = list(tokens), len(tokens)
    while len(tokens) < start + length:
        likely = int(model(torch.tensor([tokens])).logits[0, -1].argmax())
        if likely == small_text().eos:
            break
        tokens.append(likely)
    return small_text().decode(tokens[start:])


def test_answers_and_retained_text_are_scored_as_plain_loops_score_them():
    load, model = small_text(), _halfway(0.5)
    asked = load.request()
    forget, retain = asked.parts["forget"], asked.parts["retain"]
    # Never right in the one phrasing, so that the two of them differ on every machine.
    forget = replace(forget, seen=tuple((q, "nobody knows") for q, _ in forget.seen))
    asked = replace(asked, parts={**asked.parts, "forget": forget})

    def answered(questions):
        said = [_greedy(model, [load.bos, *load.encode(q)], 8) for q, _ in questions]
        scores = [rouge_l(a, s)[2] for (_, a), s in zip(questions, said)]
        return sum(scores) / len(scores)

    unseen, kept = answered(forget.unseen), answered(retain.unseen)
    texts = [
        torch.tensor([load.bos, *load.encode(p), load.eos])
        for p in retain.some(len(forget.passages)).passages
    ]
    losses = [-float(p.mean()) for p in _log_p(model, texts)]
    fluent = math.exp(-sum(losses) / len(losses))
    measured, _ = load.measure(model, asked)
    assert unseen > 0 and answered(forget.seen) == 0
    assert measured["C2"][1] == pytest.approx(unseen / 2)
    assert measured["C4"][1] == pytest.approx(2 / (1 / kept + 1 / fluent), 1e-3)


def test_membership_is_told_by_the_least_likely_forty_percent_of_each_text():
    load, model = small_text(), _halfway(0.8)
    asked = load.request()

    def familiar(batch):
        rows = [sorted(p.tolist()) for p in _log_p(model, batch["inputs"])]
        lowest = [row[: int(0.4 * len(row))] for row in rows]
        return [sum(row) / len(row) for row in lowest]

    forget, holdout = familiar(asked.forget), familiar(asked.holdout)
    told = [f > h for f in forget for h in holdout]
    measured, _ = load.measure(model, asked)
    name, found, *_ = measured["C3"]
    assert name.startswith("Min-40 %")
    assert found == pytest.approx(sum(told) / len(told), abs=2e-3)


def test_passages_are_extracted_after_the_prompt_and_read_at_every_place():
    load, model = small_text(), _halfway(0.5)
    asked = load.request()
    spread, rows = _next(model, asked.forget["inputs"][asked.rote])
    strengths = []
    for p, row in zip(spread, rows):
        right = (p.argmax(-1) == row[1:]).tolist()[text.PROMPT - 1 :]
        given = next(k for k in range(len(right) + 1) if all(right[k:]))
        strengths.append(1 - given / len(right))
    measured, found = load.measure(model, asked)
    assert any(0 < s < 1 for s in strengths)
    mean = sum(strengths) / len(strengths)
    assert measured["extraction_strength"][1] == pytest.approx(mean)
    assert torch.allclose(found, torch.cat(spread).exp(), atol=1e-4)


def test_distributions_are_probabilities_at_the_same_places_for_every_model():
    load, asked = small_text(), small_text().request()
    one = load.distributions(load.make_model(0), asked)
    assert one.shape[1] == load.vocabulary and len(one) <= text.POSITIONS
    assert torch.allclose(one.sum(-1), torch.ones(len(one)), atol=1e-4)
    assert torch.equal(one, load.distributions(load.make_model(0), asked))


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_batched_decoding_says_what_one_prompt_alone_says(architecture):
    load = small_text(architecture)
    model = setting("text").original if architecture == "llama" else load.make_model(0)
    questions = [q for q, _ in load.request().parts["forget"].unseen[:6]]
    prompts = [[load.bos, *load.encode(q)] for q in questions]
    assert len({len(p) for p in prompts}) > 1
    together = load.continuations(model, prompts, 8)
    for prompt, said in zip(prompts, together):
        made = model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt)),
            do_sample=False,
            max_new_tokens=8,
            pad_token_id=load.pad,
        )[0, len(prompt) :].tolist()
        assert said == (made[: made.index(load.eos)] if load.eos in made else made)


def test_an_ensemble_of_one_model_twice_says_what_the_model_says():
    from erasus_nb.provenance import SisaEnsemble

    load, where = small_text(), setting("text")
    pair = SisaEnsemble([where.model(), where.model()])
    passage = load.request().parts["forget"].passages[0]
    _, _, (alone, both) = load.continued([where.original, pair], passage)
    assert alone == both
    tokens = where.forget_batch["inputs"][:2]
    one = text.logits_of(where.original, tokens).log_softmax(-1)
    assert torch.allclose(text.logits_of(pair, tokens).exp(), one.exp(), atol=1e-5)


def test_token_ids_are_handed_out_as_a_list_of_ones_own():
    load = small_text()
    text = load.request().parts["forget"].passages[0]
    first = load.encode(text)
    plain = load.tokenizer(text, add_special_tokens=False)["input_ids"]
    first.append(0)
    assert load.encode(text) == plain and first != plain


def test_relearning_gets_whole_people_and_measures_the_others():
    load = small_text()
    asked = load.request()
    quarter, probes = load.attack(asked)
    told = " ".join(load.decode(row) for row in quarter["inputs"])
    first, *others = asked.parts["forget"].names
    assert first in told and not any(name in told for name in others)
    assert all(probe(setting("text").original) > 0.5 for probe in probes.values())


# ------------------------------------------------------------------ strategies there

QUICK = {
    "gradient": {
        "gradient_ascent": ({"epochs": 1}, {"epochs": 0}),
        "saliency_unlearning": ({"epochs": 1}, {"epochs": 0}),
        "scrub": ({"epochs": 1, "msteps": 1}, None),
    },
    "parameter": {"lora": ({"epochs": 1, "lr": 1e-3}, {"epochs": 0})},
    "data": {"knowledge_distillation": ({"epochs": 1}, {"epochs": 0})},
}


@pytest.mark.parametrize(
    "page, name", [(page, name) for page, names in QUICK.items() for name in names]
)
def test_universal_strategies_keep_the_contract_on_text(page, name):
    settings, zero = QUICK[page][name]
    function = cells.strategies(page)[name]
    battery(function, zero, settings=settings, where=setting("text"))


@pytest.mark.parametrize(
    "page, name, settings",
    [
        ("llm", "ssd", {}),
        ("parameter", "neuron_pruning", {}),
        ("parameter", "layer_freezing", {"epochs": 1}),
    ],
)
def test_strategies_without_chance_keep_the_contract_on_text(page, name, settings):
    function = cells.strategies(page)[name]
    battery(function, random=False, settings=settings, where=setting("text"))


ON_TEXT = [b for b in controls.BASELINES if b.facts.form_on("text", small_text().provides)]


@pytest.mark.parametrize("baseline", ON_TEXT, ids=lambda b: b.__name__)
def test_the_baselines_keep_the_contract(baseline):
    battery(baseline, {"epochs": 0}, settings={"epochs": 1}, where=setting("text"))


def test_npo_and_simnpo_are_the_papers_equations():
    start = torch.tensor([-10.0, -10.0, -40.0]).double()
    now = torch.tensor([-10.0, -200.0, -20.0]).double().requires_grad_()
    beta, found = 0.1, controls.npo_loss(now, start, 0.1)
    ratio = (now.detach() - start).exp()
    assert torch.allclose(found, 2 / beta * torch.log(1 + ratio**beta))
    [slope] = torch.autograd.grad(found.sum(), now)
    # At the original ascent's slope, 1 per nat; nothing where nothing is left.
    assert slope[0] == pytest.approx(1.0) and 0 < slope[1] < 1e-6
    per_token = torch.tensor([-0.1, -8.0])
    want = -2 / 2.5 * F.logsigmoid(-2.5 * per_token - 0.5)
    assert torch.allclose(controls.simnpo_loss(per_token, 2.5, 0.5), want)


@pytest.mark.parametrize("baseline", [controls.npo, controls.simnpo])
def test_npo_and_simnpo_take_their_loss_of_the_right_log_probabilities(baseline, monkeypatch):
    where, read, seen = setting("text"), [], []
    name, losses = f"{baseline.__name__}_loss", text.TextTask.token_losses
    loss = getattr(controls, name)

    def listen(task, model, batch):
        read.append(batch)
        return losses(task, model, batch)

    def look(now, *rest):  # at what was read last
        seen.append((now.detach(), *rest, read[-1]))
        return loss(now, *rest)

    monkeypatch.setattr(text.TextTask, "token_losses", listen)
    monkeypatch.setattr(controls, name, look)
    where.run(baseline, epochs=5)
    (first, *_, begun), (last, *rest, batch) = seen[0], seen[-1]
    each = torch.sum if baseline is controls.npo else torch.mean
    known = lambda batch: torch.stack([each(p) for p in _log_p(where.original, batch["inputs"])])
    assert torch.allclose(first, known(begun), 1e-3)
    assert last.mean() < 2 * known(batch).mean()
    if baseline is controls.npo:  # what it is compared with does not move along
        assert torch.allclose(rest[0], known(batch), 1e-3)


@pytest.mark.parametrize("baseline", ON_TEXT, ids=lambda b: b.__name__)
def test_a_baseline_lowers_one_set_and_holds_the_other(baseline):
    where = setting("text")
    task, forget, retain = where.task(), where.forget_batch, where.retain_batch
    loss = lambda model, batch: float(task.loss(model, batch).mean().detach())
    both = where.run(baseline, epochs=6).model.eval()
    assert loss(both, forget) > 3 * loss(where.original, forget)
    # The same steps beside texts of which nothing is learnt: ascent alone.
    silent = retain.replace(labels=torch.full_like(retain["labels"], text.IGNORED))
    splits = where.forget(), Split("retain", silent)
    alone = baseline(where.model(), *splits, where.task(), epochs=6).model.eval()
    assert 1.2 * loss(both, retain) < loss(alone, retain)


def test_a_look_at_the_model_changes_nothing_and_comes_at_rising_passes(tmp_path):
    bench = Bench("text", "smoke", (0,), cache=tmp_path, out=None)
    seen = []

    def look(model, passes):
        part = bench.asked.parts["forget"]
        seen.append((passes, bench.load.answer_probability(model, part.unseen)))

    full, _ = bench.full_settings(controls.npo)
    plain = bench.unlearn(controls.npo, 0, full)[0].model.state_dict()
    looked = bench.unlearn(controls.npo, 0, full, look=look)[0].model.state_dict()
    assert same_weights(plain, looked)
    passes = [p for p, _ in seen]
    assert passes == sorted(passes) and passes[0] < passes[-1]
    assert all(0 < chance < 1 for _, chance in seen)


def test_amnesiac_takes_back_the_tied_weights_too():
    load = small_text()
    recipe = Recipe(1, 1e-3, 16)
    start = load.make_model(3)
    log = UpdateLog(start)
    [state] = load.train([load.train_ids], [3], recipe, [log])
    trained = load.load(state)
    back = set_weights(clone(trained), log.revert(trained, range(len(log))))
    for name, weight in weights(start).items():
        assert torch.allclose(weights(back)[name], weight, atol=1e-6), name
    assert torch.equal(back.lm_head.weight, back.model.embed_tokens.weight)
    assert not torch.allclose(trained.lm_head.weight, start.lm_head.weight, atol=1e-4)


def test_an_original_is_kept_with_its_log(tmp_path, monkeypatch):
    bench = Bench("text", "smoke", (0, 1), cache=tmp_path, out=None)
    finals = bench.originals()
    again = Bench("text", "smoke", (1,), cache=tmp_path, out=None)
    with monkeypatch.context() as patch:
        patch.setattr(type(again.load), "train", lambda *_, **__: pytest.fail("again"))
        log = again.update_log(1)
    assert log.initial.equal(UpdateLog(again.load.make_model(1)).initial)
    model = again.load.load(finals[1])
    flat = torch.cat([p.detach().flatten() for p in model.parameters()])
    moved = torch.stack(log.changes).sum(0)
    assert torch.allclose(log.initial + moved, flat.double(), atol=1e-6)
    recipe = again.load.sizes.recipe
    steps = recipe.epochs * -(-len(again.load.train_ids) // recipe.batch_size)
    assert len(log) == steps and len(log.changes) <= 2 ** len(again.load.folds)
    # A log that got lost is recorded again, and is the same.
    (tmp_path / f"{again._log_key(1, finals[1])}.safetensors").unlink()
    lost = Bench("text", "smoke", (1,), cache=tmp_path, out=None)
    changes = torch.stack(lost.update_log(1).changes)
    assert torch.equal(changes, torch.stack(log.changes))
    # Another machine's original has another log, which cannot be recorded here.
    other = {name: value * (1 + 1e-6) for name, value in finals[1].items()}
    lost._states["original"][1] = other
    with pytest.raises(MissingRecord, match="another machine"):
        lost.update_log(1)


def test_certified_removal_says_why_it_cannot_be(tmp_path):
    bench = Bench("text", "smoke", (0,), cache=tmp_path, out=None)
    [row] = bench.run(cells.strategies("data")["certified_removal"], keep=False)
    assert row.status == "not_applicable" and "strongly convex" in row.reason


def test_a_part_of_a_part_is_about_everything():
    load = text.make(PROFILES["laptop"]["text"], torch.device("cpu"))
    retain = load.request().parts["retain"]
    some = retain.some(32)
    assert some == retain.some(32) and len(some.passages) == len(some.unseen) == 32
    # Questions lie person by person, in one order of four relations.
    asked = [retain.unseen.index(question) % 4 for question in some.unseen]
    assert min(asked.count(k) for k in range(4)) >= 4
    assert retain.some(10**6) == retain


def test_retained_answers_are_those_to_every_question():
    where = small_text()
    measured, _ = where.measure(setting("text").model(), where.request())
    asked = where.request().parts["retain"].unseen
    said = where.answers(setting("text").model(), asked)
    assert measured["retain_answers"][1] == pytest.approx(sum(said) / len(said))
    assert measured["C4"][4] == measured["retain_answers"][4] == len(asked)
