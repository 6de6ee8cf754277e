"""causal_tracing: the trace, keys and values, and the edit."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from contract import battery, setting, small_text
from transformers import LlamaForCausalLM

from erasus_nb import charts
from erasus_nb.cells import load
from erasus_nb.strategy import NotApplicable, Unlearned, strategy
from erasus_nb.task import Meter
from erasus_nb.training import clone, generator

page = load("llm")
QUICK = {"v_steps": 3, "contexts": 2, "layer": 0}


@pytest.mark.parametrize("multi", ["exact", "memit"])
def test_causal_tracing_keeps_the_contract(multi):
    settings = {**QUICK, "multi": multi}
    battery(page.causal_tracing, settings=settings, where=setting("text"))


def situation(architecture="llama"):
    """A model, its task, the different facts of the forget set, a matrix's name."""
    load_ = small_text(architecture)
    model = setting("text").model() if architecture == "llama" else load_.make_model(0)
    task = load_.task()
    facts = page.different(task.facts(load_.request().forget), task)
    return model.eval(), task, facts, task.decoder(model)[0].mlp_out, load_


def test_every_fact_is_edited_once():
    _, task, facts, _, load_ = situation()
    assert len(facts) == 4 * 4  # people, relations
    again = page.different(facts + facts, task)
    assert len(again) == len(facts)


# ------------------------------------------------------------------ the trace


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_hiding_the_subject_costs_the_answer_and_the_last_state_gives_it_back(architecture):
    model, task, facts, _, _ = situation(architecture)
    if architecture == "llama":  # the other one is not trained
        known, blind = zip(*(page.trace(model, task, f, draws=3)[:2] for f in facts))
        assert sum(known) > 0.7 * len(facts) and sum(blind) < 0.5 * sum(known)
    clean, hidden, found = page.trace(model, task, facts[0], draws=3)
    assert found["state"].shape == (2, len(facts[0].prompt))
    # The last layer's state at the last token is all that the answer is made from.
    assert found["state"][-1, -1].item() == pytest.approx(clean, abs=1e-5)
    # Before the subject nothing was hidden, so there is nothing to restore.
    start = facts[0].subject[0]
    assert torch.allclose(found["state"][:, :start], torch.tensor(hidden), atol=1e-5)


def test_putting_back_every_state_of_a_layer_gives_the_answer_exactly():
    model, task, facts, _, _ = situation()
    fact, names = facts[0], page.places_of(model, task)["state"]
    with torch.no_grad():
        kept = {}
        keep = lambda out: kept.setdefault("out", out.clone())
        with page.watching(model, {names[0]: keep}):
            clean = model(input_ids=fact.prompt[None]).logits
        noise = lambda out: out + torch.randn(out.shape, generator=generator("noise"))
        whole = {task.embedding(model): noise, names[0]: lambda out: kept["out"]}
        with page.watching(model, whole):
            assert torch.equal(model(input_ids=fact.prompt[None]).logits, clean)
        with page.watching(model, {task.embedding(model): noise}):
            assert not torch.allclose(model(input_ids=fact.prompt[None]).logits, clean)


def test_the_noise_is_three_deviations_of_the_subjects_own_embeddings():
    model, task, facts, _, _ = situation()
    fact, seen = min(facts, key=lambda f: len(f.prompt)), []
    first = model.get_submodule(task.decoder(model)[0].name)
    hook = first.register_forward_pre_hook(lambda m, inputs: seen.append(inputs[0]))
    page.trace(model, task, fact, draws=40)
    hook.remove()
    start, stop = fact.subject
    clean, hidden = seen[:2]
    noise, subject = (hidden - clean)[:, start:stop], clean[0, start:stop]
    assert noise.std().item() == pytest.approx(3 * subject.std().item(), rel=0.1)
    assert torch.equal(hidden[:, :start], clean[:, :start])
    assert torch.equal(hidden[:, stop:], clean[:, stop:])


def test_the_trace_leaves_the_model_as_it_was():
    model, task, facts, _, _ = situation()
    before = copy.deepcopy(model.state_dict())
    page.trace(model, task, facts[0], draws=2)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert not any(m._forward_hooks for m in model.modules())


def test_the_heat_map_says_where_the_answer_comes_back():
    effects = {"state": torch.tensor([[0.1, 0.2, 0.1], [0.1, 0.1, 0.9]])}
    chart = charts.traced(effects, ["start", "Ann", "won"], 0.9, 0.1)
    assert "0.90 as it is, 0.10 with the subject hidden" in chart.title
    assert "state: most at layer 1, token 'won'" in chart.alt


# ------------------------------------------------------------------ keys and values


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_a_key_is_what_the_matrix_reads_at_the_subjects_last_token(architecture):
    model, _, facts, name, _ = situation(architecture)
    keys = page.keys_of(model, facts, name, [])
    seen = []
    module = model.get_submodule(name)
    module.register_forward_pre_hook(lambda m, i: seen.append(i[0]))
    model(input_ids=facts[3].prompt[None])
    alone = seen[0][0, facts[3].subject[1] - 1].double()
    assert torch.allclose(keys[3], alone, atol=1e-5)
    more = page.keys_of(model, facts, name, [torch.tensor([5, 6, 7])])
    assert not torch.allclose(more, keys, atol=1e-3)


@pytest.mark.parametrize("at", ["first", "last"])
def test_after_a_prefix_a_key_is_still_the_subjects(at):
    model, _, facts, name, _ = situation()
    prefix = torch.tensor([5, 6, 7])
    # A key is a mean over the bare prompt and its continuations: here of two.
    bare = page.keys_of(model, facts, name, [], at)
    after = 2 * page.keys_of(model, facts, name, [prefix], at) - bare
    for found, fact in zip(after, facts):
        row = torch.cat([fact.prompt[:1], prefix, fact.prompt[1:]])
        subject = fact.prompt[slice(*fact.subject)]
        place = (row.unfold(0, len(subject), 1) == subject).all(-1).nonzero()[0, 0]
        place += len(subject) - 1 if at == "last" else 0
        read = page.reads(model, [row], name)[0, place].double()
        assert torch.allclose(found, read, atol=1e-5)


def test_padding_is_not_part_of_the_second_moment():
    model, task, _, name, load_ = situation()
    kept = load_.request().retain
    longer = kept.replace(inputs=F.pad(kept["inputs"], (0, 20)))
    assert not task.places(longer)[:, -20:].any()
    moment, same = (page.second_moment(model, task, batch, name, 1e-3) for batch in (kept, longer))
    assert (moment - same).norm() < 1e-4 * moment.norm()


def test_a_value_under_which_the_answer_is_unlikely():
    model, task, facts, name, _ = situation()
    with torch.no_grad():
        before = page.chance_of(model, facts)

    def values(at, decay):
        return page.values_of(model, task, facts, name, 40, 0.5, 0.0625, decay, 4.0, at)

    # One trained model holds its facts at the first name, another at the last.
    runs = {at: values(at, 0.0) for at in ("first", "last")}
    at = min(runs, key=lambda at: runs[at][2][-1])
    old, new, curve = runs[at]
    _, held, slower = values(at, 10.0)
    assert curve[0] == pytest.approx(float(before.mean()), rel=1e-4)
    assert curve[-1] < 0.5 * curve[0]
    assert ((new - old).norm(dim=-1) <= 4.0 * old.norm(dim=-1) + 1e-6).all()
    # Decay holds the value back, and with it what the search may erase.
    assert (held - old).norm() < (new - old).norm()
    assert curve[-1] < slower[-1] < slower[0]


# ------------------------------------------------------------------ the edit


def random_edit(multi, facts=1, weight=1.0):
    draw = generator("edit", facts)
    normal = lambda *shape: torch.randn(*shape, generator=draw).double()
    wide = normal(200, 12) @ normal(12, 12)
    moment = wide.T @ wide / 200
    keys, missing = normal(facts, 12), normal(facts, 7)
    return missing, keys, moment, page.change(missing, keys, moment, multi, weight)


def test_one_fact_is_one_rank_and_meets_its_constraint():
    missing, keys, moment, delta = random_edit("exact")
    assert torch.linalg.matrix_rank(delta) == 1
    assert torch.allclose(delta @ keys[0], missing[0])
    u = torch.linalg.solve(moment, keys[0])
    assert torch.allclose(delta, torch.outer(missing[0], u) / (u @ keys[0]))


def test_keys_at_right_angles_are_left_alone():
    _, keys, moment, delta = random_edit("exact")
    other = torch.randn(12, generator=generator("other")).double()
    u = torch.linalg.solve(moment, keys[0])
    other -= (other @ u) / (keys[0] @ u) * keys[0]
    assert (delta @ other).abs().max() < 1e-10


def test_no_other_edit_that_meets_the_constraints_changes_less():
    missing, keys, moment, delta = random_edit("exact", facts=3)
    assert torch.allclose(delta @ keys.T, missing.T)
    cost = lambda d: torch.trace(d @ moment @ d.T)
    null = torch.linalg.svd(keys)[2][3:]  # directions that no key has
    for seed in range(20):
        step = torch.randn(7, 9, generator=generator("null", seed)).double() @ null
        assert torch.allclose((delta + step) @ keys.T, missing.T)
        assert cost(delta + 0.1 * step) > cost(delta)


def test_memit_meets_its_constraints_the_more_the_less_change_costs():
    left = []
    for weight in (10.0, 0.1, 1e-6):
        missing, keys, _, delta = random_edit("memit", 3, weight)
        left.append(float((delta @ keys.T - missing.T).norm()))
    assert left[0] > left[1] > left[2] and left[2] < 1e-4


def one_tensor_changes(function) -> bool:
    """The property: one matrix moves, and no other tensor."""
    model, task, facts, name, _ = situation()
    result = setting("text").run(function).model
    start, after = model.state_dict(), result.state_dict()
    moved = {k for k in start if not torch.equal(start[k], after[k])}
    return moved == {f"{name}.weight"}


def test_exactly_one_matrix_changes_and_the_rivals_stub_is_found_out():
    @strategy(category="T", cite="", reads=("forget inputs", "retain inputs"), on=())
    def edit(model, forget, retain, task, *, seed=0):
        return page.causal_tracing(model, forget, retain, task, **QUICK)

    @strategy(category="T", cite="", reads=("forget",), on=())
    def entropy_everywhere(model, forget, retain, task, *, seed=0):
        """The rival's: Adam on all parameters for more entropy."""
        student = clone(model)
        step = torch.optim.Adam(student.parameters(), 1e-3)
        log_p = task.outputs(student, forget.all()).log_softmax(-1)
        (log_p.exp() * log_p).sum(-1).mean().backward()
        step.step()
        return Unlearned(student)

    assert one_tensor_changes(edit)
    assert not one_tensor_changes(entropy_everywhere)


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_the_edited_matrix_gives_the_new_values(architecture):
    model, task, facts, name, load_ = situation(architecture)
    facts = facts[:3]
    keys = page.keys_of(model, facts, name, [])
    values = torch.randn(3, load_.sizes.width, generator=generator("v")).double()
    moment = page.second_moment(model, task, load_.request().retain, name, 1e-3)
    page.edited(model, task, name, keys, values, moment, "exact", 1.0)
    module = model.get_submodule(name)
    said = module(keys.float()).double()
    assert ((said - values).norm() / values.norm()).item() < 1e-3


def test_one_fact_edits_one_rank_of_a_matrix_and_meets_its_value():
    model, task, facts, name, load_ = situation()
    model = model.double()
    before = task.matrix(model.get_submodule(name)).detach().clone()
    keys = page.keys_of(model, facts[:1], name, [])
    value = torch.randn(1, load_.sizes.width, generator=generator("v")).double()
    moment = page.second_moment(model, task, load_.request().retain, name, 1e-3)
    page.edited(model, task, name, keys, value, moment, "exact", 1.0)
    after = task.matrix(model.get_submodule(name)).detach()
    assert torch.linalg.matrix_rank(after - before) == 1
    assert ((keys @ after.T - value).norm() / value.norm()).item() < 1e-5


def test_one_after_the_other_erases_what_all_at_once_does():
    where = setting("text")
    model, task, facts, _, _ = situation()
    with torch.no_grad():
        before = page.chance_of(model, facts).mean()
    settings = {**QUICK, "v_steps": 20, "multi": "sequential"}
    edited = where.run(page.causal_tracing, **settings).model
    with torch.no_grad():
        assert page.chance_of(edited, facts).mean() < 0.7 * before


def test_the_trace_points_at_the_layer_that_can_still_be_read():
    # What the last layer writes at the subject is read by no later layer.
    model, task, facts, _, _ = situation()
    layer, effects = page.peak(model, task, facts, 3.0, 4, 0, "last")
    assert layer == 0 and len(effects) == 2
    assert effects[1] == pytest.approx(0, abs=1e-5)


def test_the_last_layer_is_not_chosen_even_where_the_others_do_harm(monkeypatch):
    model, task, facts, _, _ = situation()

    def harmful(model, task, fact, *rest):
        effects = torch.tensor([[-0.2], [-0.1], [0.0]]).expand(3, len(fact.prompt))
        return 0.9, 0.1, {"MLP": 0.1 + effects}

    monkeypatch.setattr(page, "trace", harmful)
    assert page.peak(model, task, facts, 3.0, 4, 0, "last")[0] == 1


def test_facts_that_the_model_does_not_know_point_nowhere(monkeypatch):
    model, task, facts, _, _ = situation()

    def traced(model, task, fact, *rest):
        known = fact is facts[0]
        effects = torch.tensor([[0.0], [0.1], [0.0]] if known else [[0.9], [0], [0]])
        both = effects.expand(3, len(fact.prompt))
        return (0.9 if known else 0.2), 0.1, {"MLP": 0.1 + both}

    monkeypatch.setattr(page, "trace", traced)
    assert page.peak(model, task, facts, 3.0, 4, 0, "last")[0] == 1


def test_by_default_the_edit_is_where_it_can_act_and_every_pass_is_counted(monkeypatch):
    where, meter, made = setting("text"), Meter(), Meter()
    task = where.task(meter=meter)
    forward = LlamaForCausalLM.forward

    def counted(self, *args, input_ids, **named):
        made.count(len(input_ids))
        return forward(self, *args, input_ids=input_ids, **named)

    monkeypatch.setattr(LlamaForCausalLM, "forward", counted)
    settings = {"v_steps": 20, "contexts": 3, "draws": 2}
    parts = where.model(), where.forget(), where.retain(), task
    found = page.causal_tracing(*parts, seed=0, **settings)
    assert found.info["layer"] == 0 and len(found.info["effect by layer"]) == 2
    assert meter.passes == made.passes > 0
    assert not any(m._forward_pre_hooks for m in found.model.modules())
    first, *_, last = found.losses["p(answer)"]
    assert last < 0.9 * first  # in the last layer nothing would move


def test_the_essence_is_held_from_the_side_of_what_is_said_now(monkeypatch):
    # KL(now || before), as in the paper: with all else switched off, the search only
    # moves what it says of the subject, and its gradient is that divergence's.
    model, task, facts, name, _ = situation()
    facts, kept = facts[:2], []

    def search(objective, v, *rest):
        with torch.no_grad():
            kept.append((objective(torch.zeros_like(v)), objective(0.5 * v)))
        return v, []

    monkeypatch.setattr(page, "search", search)
    page.values_of(model, task, facts, name, 1, 0.5, 1.0, 0.0, 4.0)
    (_, nothing), (_, moved) = kept[0]
    assert torch.allclose(nothing, torch.zeros(2), atol=1e-5)
    short = torch.tensor([f.subject[1] - f.subject[0] for f in facts])
    with torch.no_grad():
        before = page.essence(model, task, facts).double()
        v = {}
        take = lambda out: v.setdefault("v", out.clone())
        at = torch.tensor([f.subject[1] - 1 for f in facts])
        with page.watching(model, {name: lambda out: (take(out), out)[1]}):
            page.chance_of(model, facts)
        delta = 0.5 * v["v"][torch.arange(2), at]
        with page.watching(model, {name: page.added(delta, short)}):
            now = page.essence(model, task, facts).double()
    forward = (now.exp() * (now - before)).sum(-1).float()
    backward = (before.exp() * (before - now)).sum(-1).float()
    assert torch.allclose(moved, forward, rtol=1e-4)
    assert not torch.allclose(moved, backward, rtol=1e-2)


def test_a_key_at_the_first_token_is_read_there_and_edited_there():
    model, task, facts, name, _ = situation()
    found = page.keys_of(model, facts, name, [], "first")
    seen = []
    module = model.get_submodule(name)
    hook = module.register_forward_pre_hook(lambda m, i: seen.append(i[0]))
    with torch.no_grad():
        model(input_ids=facts[3].prompt[None])
    hook.remove()
    alone = seen[0][0, facts[3].subject[0]].double()
    assert torch.allclose(found[3], alone, atol=1e-5)
    settings = {**QUICK, "v_steps": 20, "at": "first"}
    edited = setting("text").run(page.causal_tracing, **settings).model
    with torch.no_grad():
        before = page.chance_of(model, facts).mean()
        assert page.chance_of(edited, facts).mean() < 0.7 * before


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="last or first token, not 'middle'"):
        setting("text").run(page.causal_tracing, at="middle")
    with pytest.raises(ValueError, match="sequential, exact or memit, not 'all'"):
        setting("text").run(page.causal_tracing, multi="all")


# ------------------------------------------------------------------ without tokens


@pytest.mark.parametrize("multi", ["exact", "memit", "sequential"])
def test_the_edit_keeps_the_contract_on_the_analogue(multi):
    battery(page.causal_tracing, random=False, settings={"multi": multi, "v_steps": 5})


def test_an_exact_edit_of_examples_says_what_was_searched_for():
    where = setting()
    task, model = where.task(), where.model().eval()
    few = where.forget_batch.take(torch.arange(5))
    keys, values = page.through(model, task, few, "hidden2")
    known = page.through(model, task, where.retain_batch, "hidden2")[0].double()
    moment = known.T @ known / len(known) + 1e-3 * torch.eye(64)
    wanted = (values + torch.randn(values.shape, generator=generator("v"))).double()
    student = clone(model)
    page.edited(student, task, "hidden2", keys.double(), wanted, moment, "exact", 1.0)
    said = page.through(student, task, few, "hidden2")[1]
    assert torch.allclose(said.double(), wanted, atol=1e-3)
    # Rare keys move more than common ones do: that is what C is for.
    moved = lambda batch: (
        page.through(student, task, batch, "hidden2")[1]
        - page.through(model, task, batch, "hidden2")[1]
    ).norm(dim=-1)
    assert moved(where.retain_batch).mean() < moved(few).mean()


def labels_become_unlikely(function) -> bool:
    """Whether forgotten labels go, and retained ones stay, with constraints weighed."""
    where = setting()
    task, model = where.task(), where.model().eval()
    chance = lambda m, b: float((-task.loss(m, b)).exp().mean().detach())
    after = where.run(function, multi="memit", weight=100.0).model.eval()
    gone = chance(after, where.forget_batch) < 0.3 * chance(model, where.forget_batch)
    return gone and chance(after, where.retain_batch) > 0.5


def test_edited_examples_lose_their_label_and_others_do_not():
    assert labels_become_unlikely(page.causal_tracing)


def test_an_edit_of_the_mean_value_alone_is_caught():
    """The planted stub: it subtracts the forget set's mean value, whatever the key."""

    @strategy(category="LLM", cite="", reads=("forget", "retain"), on=("synthetic",))
    def stub(model, forget, retain, task, *, multi, weight, seed=0):
        student = clone(model)
        said = page.through(student.eval(), task, forget.all(), "hidden2")[1]
        with torch.no_grad():
            student.hidden2.bias -= said.mean(0)
        return Unlearned(student)

    assert not labels_become_unlikely(stub)


def test_a_convolution_has_no_such_matrix():
    with pytest.raises(NotApplicable, match="convolution"):
        setting("digits").run(page.causal_tracing)
