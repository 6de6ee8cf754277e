"""embedding_alignment: Align-then-Unlearn, and RMU."""

from __future__ import annotations

import copy

import pytest
import torch
from contract import battery, setting

from erasus_nb.cells import load
from erasus_nb.strategy import Unlearned, strategy
from erasus_nb.training import clone, generator, global_seed, same_weights

page = load("llm")
QUICK = {"align_steps": 4, "unlearn_steps": 2, "taus": (0.2, -0.5)}


def test_align_then_unlearn_keeps_the_contract():
    zero = {"unlearn_steps": 0}
    battery(page.embedding_alignment, zero, settings=QUICK, where=setting("text"))


def test_rmu_keeps_the_contract_on_text_and_on_the_analogue():
    settings = {"variant": "rmu", "steps": 4}
    battery(page.embedding_alignment, {"steps": 0}, settings=settings, where=setting("text"))
    battery(page.embedding_alignment, {"steps": 0}, settings={"steps": 4})


def parts():
    where = setting("text")
    model, task = where.model(), where.task()
    texts = where.forget_batch.take(torch.arange(8))
    targets, whole, centre = page.ahead(where.original, task, texts, 4)
    reader = page.Reader(64)
    return where, model, task, texts, targets, whole, centre, reader


def test_a_reader_foretells_from_the_past_alone():
    reader = page.Reader(16).eval()
    hidden = torch.randn(2, 9, 16, generator=generator("hidden"))
    other = hidden.clone()
    other[:, 6:] += 1.0
    assert torch.equal(reader(hidden)[:, :6], reader(other)[:, :6])
    assert not torch.allclose(reader(hidden)[:, 6:], reader(other)[:, 6:])


def test_what_lies_ahead_is_the_window_read_alone():
    where, model, task, texts, targets, whole, centre, _ = parts()
    row, place = 2, 5
    alone = texts["inputs"][row : row + 1, place + 1 : place + 5]
    found = page.meaning(where.original, task, alone)[0] - centre
    assert torch.allclose(targets[row, place], found, atol=1e-5)
    real = task.places(texts)
    assert torch.equal(whole[:, 0], real[:, 1:5].all(-1))
    assert not whole[~real[:, 4:]].any()


def test_a_name_that_lies_ahead_is_its_concept():
    # One origin for both: a window that holds just the name means what the name means.
    where = setting("text")
    task, texts = where.task(), where.forget_batch
    fact = task.facts(texts)[0]
    name = task.tokens(f" {task.text(fact.prompt[slice(*fact.subject)]).strip()}")
    targets, _, centre = page.ahead(where.original, task, texts, len(name))
    goal = page.concepts(where.original, task, page.names_in(task, texts), centre)
    rows, starts = (texts["inputs"].unfold(1, len(name), 1) == name).all(-1).nonzero().T
    apart = torch.cdist(targets[rows, starts - 1], goal).min(-1).values
    assert len(apart) and (apart < 1e-3 * centre.norm()).all()


def test_a_state_is_aligned_with_what_lies_ahead_of_its_own_place():
    _, model, task, texts, _, whole, _, _ = parts()
    name = task.decoder(model)[-1].name
    with torch.no_grad():
        states = page.hidden_states(model, task, texts, name)[:, : whole.shape[1]]
    # Each place's own state is its target: the identity is right from the start and stays,
    # unless it learns from places that no whole window follows.
    targets = torch.where(whole[..., None], states, states.flip(-1))
    reader = torch.nn.Linear(64, 64, bias=False)
    torch.nn.init.eye_(reader.weight)
    step, draw = torch.optim.SGD(reader.parameters(), 1.0), generator("align")
    near = page.align(reader, model, task, texts, targets, whole, name, 5, step, draw)
    assert near == pytest.approx(1.0, abs=1e-4)


def test_the_excess_is_a_mean_over_real_places_of_what_the_nearest_name_exceeds():
    _, model, task, texts, *_, reader = parts()
    name, tau = task.decoder(model)[-1].name, 0.02
    goal = torch.randn(2, 64, generator=generator("goal"))
    over = []
    with torch.no_grad():
        found = page.excess(reader, model, task, texts, goal, tau, name).item()
        for row in texts.parts(1):
            real = task.places(row)[0]
            bare = {field: row[field][:, real] for field in ("inputs", "learnt")}
            states = page.hidden_states(model, task, row.replace(**bare), name)
            for said in reader(states)[0]:
                near = max(torch.cosine_similarity(said, one, dim=0) for one in goal)
                over.append(max(near.item() - tau, 0.0))
    assert 0 < over.count(0.0) < len(over)  # some places are below the threshold
    assert found == pytest.approx(sum(over) / len(over), rel=1e-4)


def test_aligning_moves_the_reader_and_not_the_model():
    where, model, task, texts, targets, whole, _, reader = parts()
    before, state = (copy.deepcopy(reader.state_dict()), copy.deepcopy(model.state_dict()))
    step = torch.optim.Adam(reader.parameters(), 3e-3)
    name, draw = task.decoder(model)[-1].name, generator("align")
    rest = (texts, targets, whole, name)
    first = page.align(reader, model, task, *rest, 1, step, draw)
    last = page.align(reader, model, task, *rest, 40, step, draw)
    assert same_weights(model.state_dict(), state)
    assert not same_weights(reader.state_dict(), before) and last > first + 0.1


def test_below_the_threshold_nothing_pulls():
    where, model, task, texts, _, _, centre, reader = parts()
    goal = page.concepts(where.original, task, page.names_in(task, where.forget_batch), centre)
    name = task.decoder(model)[-1].name
    assert len(goal) == 4  # the people to forget
    reader.requires_grad_(False)

    def pull(tau):
        loss = page.excess(reader, model, task, texts, goal, tau, name)
        return torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)

    assert all(g is None or (g == 0).all() for g in pull(1.01))
    assert any(g is not None and (g != 0).any() for g in pull(-1.0))


def test_unlearning_moves_the_model_and_neither_the_reader_nor_the_meanings(monkeypatch):
    where, made = setting("text"), []

    def kept(build):
        return lambda *given: made.append(build(*given)) or made[-1]

    monkeypatch.setattr(page, "Reader", kept(page.Reader))
    monkeypatch.setattr(page, "frozen", kept(page.frozen))
    settings = {"align_steps": 0, "unlearn_steps": 3, "taus": (-1.0,)}
    model = where.run(page.embedding_alignment, **settings).model
    meaning, reader = made
    with global_seed("reader", 0):
        fresh = type(reader)(64)
    assert same_weights(reader.state_dict(), fresh.state_dict())
    assert same_weights(meaning.state_dict(), where.original.state_dict())
    assert not same_weights(model.state_dict(), where.original.state_dict())


def test_unlearning_lowers_the_likeness_and_new_readers_agree():
    where = setting("text")
    task = where.task()
    settings = {"align_steps": 60, "unlearn_steps": 60, "taus": (0.0, -0.4), "lr": 3e-3}
    model = where.run(page.embedding_alignment, **settings).model
    texts = where.forget_batch
    targets, whole, centre = page.ahead(where.original, task, texts, 6)
    goal = page.concepts(where.original, task, page.names_in(task, texts), centre)
    name = task.decoder(model)[-1].name

    def likeness(of, seed):
        torch.manual_seed(seed)
        reader = page.Reader(64)
        step = torch.optim.Adam(reader.parameters(), 3e-3)
        draw = generator("again", seed)
        page.align(reader, of, task, texts, targets, whole, name, 80, step, draw)
        with torch.no_grad():
            return page.excess(reader, of, task, texts, goal, -1.0, name).item()

    mean = lambda of: sum(likeness(of, seed) for seed in range(2)) / 2
    assert mean(model) < mean(where.original) - 0.04


def only_listed_tensors_move(function) -> bool:
    where = setting("text")
    result = where.run(function).model.state_dict()
    _, trained = page.rmu_places(where.original, where.task(), 1)
    start = where.original.state_dict()
    moved = {n for n in start if not torch.equal(start[n], result[n])}
    return moved == set(trained)


def test_rmu_trains_the_listed_matrices_and_the_rivals_stub_is_found_out():
    @strategy(category="Test", cite="", reads=("forget", "retain"), on=())
    def rmu(model, forget, retain, task, *, seed=0):
        return page.misdirect(model, forget, retain, task, 1, 3, 1e-3, 2.0, 1.0, seed)

    @strategy(category="Test", cite="", reads=("forget",), on=())
    def shrunk_embedding(model, forget, retain, task, *, seed=0):
        """The rival's: a smaller mean hidden state, by all parameters."""
        student, name = clone(model), task.decoder(model)[-1].name
        step = torch.optim.Adam(student.parameters(), 1e-3)
        pooled = page.hidden_states(student, task, forget.all(), name).mean(1)
        pooled.norm(dim=-1).mean().backward()
        step.step()
        return Unlearned(student)

    assert only_listed_tensors_move(rmu)
    assert not only_listed_tensors_move(shrunk_embedding)


def test_the_direction_lies_in_the_positive_orthant_at_the_asked_length():
    found = page.direction(40, 6.5, generator("direction"))
    assert (found >= 0).all() and found.norm().item() == pytest.approx(6.5)
    assert found.mean() / found.norm() * 40**0.5 > 0.75  # rand, not randn


def test_rmu_turns_forgotten_states_and_holds_the_others():
    where = setting("text")
    settings = {"variant": "rmu", "steps": 60, "alpha": 10.0, "lr": 3e-3}
    curves = where.run(page.embedding_alignment, **settings).losses
    assert curves["forget"][-1] < 0.8 * curves["forget"][0]
    assert curves["retain"][0] == 0.0  # nothing has moved yet


def test_the_more_rmu_weighs_what_stays_the_less_that_drifts():
    where = setting("text")
    task, kept = where.task(), where.retain_batch
    name, _ = page.rmu_places(where.original, task, None)

    def drift(alpha):
        settings = {"variant": "rmu", "steps": 20, "alpha": alpha, "lr": 3e-3}
        model = where.run(page.embedding_alignment, **settings).model
        with torch.no_grad():
            now, then = (
                page.hidden_states(m, task, kept, name)[task.places(kept)]
                for m in (model, where.original)
            )
        return (now - then).square().mean()

    assert drift(100.0) < 0.5 * drift(0.0)


def test_an_unknown_variant_is_refused():
    with pytest.raises(ValueError, match="atu or rmu, not 'eco'"):
        setting("text").run(page.embedding_alignment, variant="eco")
