"""Two strategies of the Diffusion page that train: the contract, the papers, and stubs.

`noise_injection` (EraseDiff, Selective Amnesia) and `timestep_masking` (KSCU, ANT).
"""

from __future__ import annotations

import copy
import inspect
import math
from functools import cache

import pytest
import torch
from contract import battery, setting, small_diffusion

from erasus_nb import workloads
from erasus_nb.cells import load, strategies
from erasus_nb.strategy import NotApplicable, Split, Unlearned, strategy
from erasus_nb.task import Meter
from erasus_nb.training import clone, frozen, generator, optimizer, same_weights, weights

page = load("diffusion")

#: Short runs, for what does not depend on how far a strategy gets.
QUICK = {"passes": 1, "K": 1}
AMNESIA = {"variant": "selective_amnesia", "steps": 4, "replay": 24, "fisher": 8}
STEPS = {"iterations": 6, "batch_size": 8, "lr": 1e-3}


@pytest.fixture(scope="module")
def here():
    return setting("diffusion")


@pytest.fixture(scope="module")
def process(here):
    return here.task().diffusion()


@pytest.fixture(scope="module")
def teacher(here):
    return frozen(here.original)


@cache
def ran(name, **settings):
    return setting("diffusion").run(getattr(page, name), **settings)


def ends(name, **settings):
    return ran(name, **settings).model.state_dict()


# ------------------------------------------------------------------ the contract


@pytest.mark.parametrize("settings", [QUICK, {**QUICK, "target": "rl"}, AMNESIA])
def test_noise_injection_keeps_the_contract(here, settings):
    none = "steps" if "variant" in settings else "passes"
    zero = [{"lr": 0.0}, {none: 0}]
    battery(page.noise_injection, zero, settings=settings, where=here)


def test_noise_injection_keeps_the_contract_on_its_analogue():
    battery(page.noise_injection, [{"lr": 0.0}, {"passes": 0}], settings={"passes": 2})


@pytest.mark.parametrize("variant", ["kscu", "ant"])
def test_timestep_masking_keeps_the_contract(here, variant):
    zero = [{"lr": 0.0}, {"iterations": 0}]
    settings = {"variant": variant, **STEPS}
    battery(page.timestep_masking, zero, settings=settings, where=here)


@pytest.mark.parametrize(
    "name, wrong, message",
    [
        ("noise_injection", {"variant": "esd"}, "variant is erasediff or selective_amnesia"),
        ("noise_injection", {"target": "zero"}, "target uniform or rl"),
        ("noise_injection", {"passes": -1}, "K, passes, steps start at 0"),
        ("noise_injection", {"replay": 0}, "replay, fisher, batch_size at 1"),
        ("timestep_masking", {"variant": "esd"}, "variant is kscu or ant"),
        ("timestep_masking", {"method": "y"}, "method x, strict, u or all"),
        ("timestep_masking", {"start": 18}, "start is 0 to below 0.9 end"),
        ("timestep_masking", {"start": -1}, "start is 0 to below 0.9 end"),
        ("timestep_masking", {"loops": 0}, "loops 1 or more"),
        ("timestep_masking", {"end": 2000, "start": 5}, "a sampler takes 1 to 1000 steps"),
        ("timestep_masking", {"variant": "ant", "before_step": 21}, "before_step is 0 to 20"),
        ("timestep_masking", {"augment": 1.5}, "augment 0 to 1"),
        ("timestep_masking", {"maps": 0}, "maps and batch_size at least 1"),
    ],
)
def test_settings_that_mean_nothing_are_refused_before_anything_is_read(here, name, wrong, message):
    forget, retain, meter = here.forget(), here.retain(), Meter()
    with pytest.raises(ValueError, match=message):
        getattr(page, name)(here.model(), forget, retain, here.task(meter=meter), **wrong)
    assert forget.examples_read == retain.examples_read == meter.passes == 0


def test_each_runs_where_it_means_something():
    expected = {"noise_injection": ("analogue", None, None), "timestep_masking": (None,) * 3}
    for name, forms in expected.items():
        facts = getattr(page, name).facts
        for workload, form in zip(("synthetic", "text", "image_text"), forms, strict=True):
            provides = workloads.load(workload, "smoke").provides
            assert facts.form_on(workload, provides) == form, (name, workload)
        assert facts.form_on("diffusion", small_diffusion().provides) == "native"


def test_who_generates_nothing_replays_nothing():
    with pytest.raises(NotApplicable, match="takes no noise out of images"):
        setting().run(page.noise_injection, variant="selective_amnesia")


def test_no_two_forms_end_in_the_same_weights():
    forms = [
        ends("noise_injection", **QUICK),
        ends("noise_injection", target="rl", **QUICK),
        ends("noise_injection", **AMNESIA),
        ends("timestep_masking", **STEPS),
        ends("timestep_masking", variant="ant", **STEPS),
    ]
    for k, one in enumerate(forms):
        assert not any(same_weights(one, other) for other in forms[:k])


# ------------------------------------------------------------------ what is read


def told_nothing_of(images, where, parts):
    """The sets, with images that are not numbers in some parts."""
    sets = {"forget": where.forget_batch, "retain": where.retain_batch}
    for part in parts:
        spoilt = torch.full_like(sets[part]["pixel_values"], images)
        sets[part] = sets[part].replace(pixel_values=spoilt)
    return [Split(name, batch) for name, batch in sets.items()]


def end_with(function, where, parts, settings):
    sets = told_nothing_of(math.nan, where, parts)
    return function(where.model(), *sets, where.task(), **settings).model.state_dict()


@pytest.mark.parametrize("parts", [("forget",), ("retain",), ("forget", "retain")])
@pytest.mark.parametrize("name", ["noise_injection", "timestep_masking"])
def test_replay_fisher_and_key_steps_read_no_training_image(here, name, parts):
    settings = AMNESIA if name == "noise_injection" else STEPS
    spoilt = end_with(getattr(page, name), here, parts, settings)
    assert same_weights(spoilt, ends(name, **settings))


@pytest.mark.parametrize("part", ["forget", "retain"])
def test_the_poison_works_where_images_are_read(here, part):
    spoilt = end_with(page.noise_injection, here, (part,), QUICK)
    assert any(t.isnan().any() for t in spoilt.values())


def test_key_steps_see_prompts_alone(here):
    reads = page.timestep_masking.facts.reads
    assert reads == {"forget prompts"}
    forget, retain = here.forget(reads), here.retain(reads)
    page.timestep_masking(here.model(), forget, retain, here.task(reads), **STEPS)
    assert forget.examples_read == len(forget) and not retain.examples_read


@pytest.mark.parametrize(
    "name, settings",
    [("noise_injection", QUICK), ("noise_injection", AMNESIA), ("timestep_masking", STEPS)],
)
def test_no_example_that_judges_is_read(here, name, settings, monkeypatch):
    work, function = small_diffusion(), getattr(page, name)
    asked = work.request()
    judged = torch.cat([asked.rows[k] for k in ("concept holdout", "private holdout", "utility")])
    pixels = work.images["pixel_values"].clone()
    pixels[judged] = math.nan
    bad = copy.copy(work)
    bad.images = work.images.replace(pixel_values=pixels)
    for what in ("measure", "distributions", "attack"):
        monkeypatch.setattr(type(bad), what, None)  # whoever calls it, fails
    reads = function.facts.reads
    again = bad.request()
    sets = Split("forget", again.forget, reads), Split("retain", again.retain, reads)
    found = function(here.model(), *sets, bad.task(reads=reads), **settings)
    assert same_weights(found.model.state_dict(), ends(name, **settings))


# ------------------------------------------------------------------ the constrained step


def dot(a, b):
    return sum(float((x.double() * y.double()).sum()) for x, y in zip(a, b))


def directions(seed, tilt):
    draw = generator("directions", seed)
    q = [torch.randn(4, 3, generator=draw), torch.randn(5, generator=draw)]
    r = [torch.randn(4, 3, generator=draw), torch.randn(5, generator=draw)]
    return [a + tilt * b for a, b in zip(r, q)], q


@pytest.mark.parametrize("tilt", [-3.0, -0.5, 0.0, 0.1, 0.5, 3.0])
@pytest.mark.parametrize("seed", range(4))
def test_each_step_forgets_enough_and_no_more_than_it_must(seed, tilt):
    r, q = directions(seed, tilt)
    weight = page.injection_weight(r, q, 0.1, None)
    needed, own = 0.1 * dot(q, q), dot(r, q)
    made = dot([a + weight * b for a, b in zip(r, q)], q)
    assert made >= needed - 1e-5 * (abs(own) + needed)  # the step itself is in float32
    assert (weight == 0) == (own >= needed)
    if weight:
        assert made == pytest.approx(needed)


def test_the_weight_by_hand_and_the_authors_fixed_one():
    q, r = [torch.tensor([2.0, 0.0])], [torch.tensor([-1.0, 5.0])]
    assert page.injection_weight(r, q, 0.1, None) == pytest.approx((0.1 * 4 + 2) / 4)
    assert page.injection_weight(q, q, 0.1, None) == 0
    assert page.injection_weight(r, [torch.zeros(2)], 0.1, None) == 0
    assert page.injection_weight(r, q, 0.1, 0.1) == page.injection_weight(q, q, 0.1, 0.1) == 0.1


def outer_steps(where, monkeypatch, **settings):
    """(r, q, lambda) of every outer step of a run, and the run."""
    seen, kept = [], page.injection_weight

    def spy(r, q, eta, lam):
        seen.append((r, q, kept(r, q, eta, lam)))
        return seen[-1][-1]

    with monkeypatch.context() as patch:
        patch.setattr(page, "injection_weight", spy)
        return seen, where.run(page.noise_injection, **settings)


def test_a_run_meets_the_constraint_at_every_step(here, monkeypatch):
    seen, result = outer_steps(here, monkeypatch, passes=2, K=1, lam=None)
    assert len(seen) >= 2
    for r, q, weight in seen:
        made = dot([a + weight * b for a, b in zip(r, q)], q)
        assert made >= 0.1 * dot(q, q) * (1 - 1e-6)
    assert all(value >= 0 for value in result.losses["lambda"])
    assert {"retain", "forget", "lambda", "gap"} == set(result.losses)


@pytest.mark.parametrize("where", ["diffusion", "synthetic"])
def test_inner_passes_change_the_gap_and_no_step(where, monkeypatch):
    """phi_K is a number; with an Adam of its own the inner loop reaches nothing."""
    alone = {"passes": 2, "shared": False, "lam": None}
    one, first = outer_steps(setting(where), monkeypatch, **alone, K=1)
    three, second = outer_steps(setting(where), monkeypatch, **alone, K=3)
    assert first.losses["gap"] != second.losses["gap"]
    for (r, q, weight), (other_r, other_q, other) in zip(one, three, strict=True):
        assert weight == other
        assert all(map(torch.equal, r, other_r)) and all(map(torch.equal, q, other_q))
    assert same_weights(first.model.state_dict(), second.model.state_dict())


def test_what_reaches_the_result_is_the_shared_memory_of_adam():
    short, long = (ends("noise_injection", passes=2, K=k) for k in (1, 2))
    assert not same_weights(short, long)
    own = ends("noise_injection", passes=2, K=1, shared=False)
    assert not same_weights(short, own)


def test_more_inner_passes_learn_more_of_the_wrong_answer():
    gaps = [ran("noise_injection", passes=1, K=k, shared=False).losses["gap"][0] for k in (0, 1, 6)]
    assert gaps[0] == 0 and gaps[1] < gaps[2]


def check_passes_add_up(erase, monkeypatch):
    """Every outer pass starts where the last one ended, whatever the inner passes did."""
    where, events = setting("synthetic"), []
    inner, outer = page.injection_inner, page.injection_outer

    def spied(kind, function):
        def spy(student, *rest):
            events.append((kind, "before", weights(student)))
            found = function(student, *rest)
            events.append((kind, "after", weights(student)))
            return found

        return spy

    monkeypatch.setattr(page, "injection_inner", spied("inner", inner))
    monkeypatch.setattr(page, "injection_outer", spied("outer", outer))
    how, rule, rest = ("uniform", True), (0.1, None, 1.0), (2, 3, 1e-3, 32)
    sets = where.forget(), where.retain(), where.task()
    result = erase(where.model(), *sets, how, rule, rest, 0)
    ended = weights(where.original)
    assert {kind for kind, *_ in events} == {"inner", "outer"}
    for kind, when, found in events:
        if when == "before":
            assert same_weights(found, ended), kind
        elif kind == "outer":
            ended = found
    assert same_weights(weights(result.model), ended)
    assert not same_weights(ended, weights(where.original))


def test_an_outer_pass_starts_where_the_last_one_ended(monkeypatch):
    check_passes_add_up(page.injection_erase, monkeypatch)


def test_an_inner_step_is_a_pass_over_the_forget_set(monkeypatch):
    where, passes, of = setting(), [], Split.batches
    monkeypatch.setattr(
        Split, "batches", lambda split, *rest: passes.append(split.name) or of(split, *rest)
    )
    where.run(page.noise_injection, passes=2, K=3)
    assert passes == 2 * (3 * ["forget"] + ["forget"])


def undone(model, forget, retain, task, how, rule, rest, seed):
    """W4: the outer loop sits inside the inner one, and each time the weights are set back."""
    (target, _), (K, passes, lr, size) = how, rest
    student, draw = clone(model), generator("undone", seed)
    step = optimizer("adam", student.parameters(), lr)
    for _ in range(passes):
        start = weights(student)
        for _ in range(K):
            page.injection_inner(student, forget, task, step, target, 1, rule[-1], size, draw)
            page.set_weights(student, start)
            kept = page.shuffled_forever(len(retain), size, draw)
            for batch, place in zip(forget.batches(size, draw), kept):
                pair = batch, retain.take(place)
                page.injection_outer(student, *pair, task, step, target, rule, draw)
    return Unlearned(student)


def test_a_script_that_undoes_its_outer_passes_is_found_out(monkeypatch):
    with pytest.raises(AssertionError):
        check_passes_add_up(undone, monkeypatch)


# ------------------------------------------------------------------ the wrong answer


class Asked:
    """A denoiser that keeps what it is asked, and answers zero."""

    def __init__(self):
        self.seen = []

    def __call__(self, noisy, t, encoder_hidden_states):
        self.seen.append((noisy, t, encoder_hidden_states))
        return type("Answer", (), {"sample": torch.zeros_like(noisy, requires_grad=True)})


def answers_asked_for(where, monkeypatch, count, target="uniform"):
    """Of each asking: the noisy images, and the answer that the loss compares with."""
    asked, wanted, draws = [], [], []
    kept, noised = torch.rand, type(where.task().diffusion()).noised
    monkeypatch.setattr(
        torch, "rand", lambda *a, **k: draws.append(found := kept(*a, **k)) or found
    )

    def spy(process, images, t, noise):
        asked.append((noise, noised(process, images, t, noise)))
        return asked[-1][-1]

    monkeypatch.setattr(type(where.task().diffusion()), "noised", spy)
    draw = generator("asked")
    for _ in range(count):
        model = Asked()
        loss = page.injection_forget(model, where.forget_batch, where.task(), target, draw)
        wanted.append(draws[-1])
        assert loss.item() == pytest.approx(draws[-1].square().mean().item(), rel=1e-5)
    return asked, wanted


def test_uniform_answers_are_redrawn_and_say_nothing_of_the_image(here, monkeypatch):
    asked, wanted = answers_asked_for(here, monkeypatch, 40)
    every = torch.stack(wanted)
    assert 0 <= every.min() and every.max() < 1 and abs(every.mean() - 0.5) < 0.01
    assert every.var().item() == pytest.approx(1 / 12, rel=0.05)
    assert not torch.equal(wanted[0], wanted[1])
    clean = here.forget_batch["pixel_values"].expand_as(every)
    noise, noisy = (torch.stack(part) for part in zip(*asked))
    number = every.numel()
    for what in (clean, noise, noisy):
        found = torch.corrcoef(torch.stack([what.flatten(), every.flatten()]))[0, 1]
        assert abs(found) < 4 / math.sqrt(number)
    # Were the answer the noise itself, as where the code reuses one draw, this would see it.
    mixed = torch.corrcoef(torch.stack([noisy.flatten(), noise.flatten()]))[0, 1]
    assert mixed > 0.3


def test_another_captions_answer_is_the_models_own_and_has_no_gradient(here, process, monkeypatch):
    asked, kept = [], type(process).predict

    def spy(self, model, noisy, t, text):
        asked.append((noisy, t, text, kept(self, model, noisy, t, text)))
        return asked[-1][-1]

    monkeypatch.setattr(type(process), "predict", spy)
    task, batch, student = here.task(), here.forget_batch, here.model()
    torch.manual_seed(0)
    loss = page.injection_forget(student, batch, task, "rl", generator("other"))
    other = task.relabel(batch, generator("other"))["instead"]
    (noisy, t, text, constant), (same, at, _, found) = asked
    assert torch.equal(noisy, same) and torch.equal(t, at)
    assert torch.allclose(text, process.encode(other))
    own = small_diffusion().prompts_of(small_diffusion().request().digits, 0)
    concept = (batch["prompts"][:, :1] == own).all(-1).any(1)
    assert concept.any() and not (other[concept, None] == own).all(-1).any()
    assert not constant.requires_grad and found.requires_grad
    assert torch.equal(constant, kept(process, student, noisy, t, text).detach())
    assert loss.item() == pytest.approx((found - constant).square().mean().item(), rel=1e-5)


def test_on_labels_the_wrong_answer_is_that_all_are_equally_likely():
    where = setting()
    task, batch = where.task(), where.forget_batch
    found = page.injection_forget(where.original, batch, task, "uniform", None)
    said = where.original(batch["inputs"]).log_softmax(-1)
    expected = -said.mean(-1).mean() - math.log(said.shape[-1])
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


@torch.no_grad()
def wrongness(model):
    """L_f with fixed draws, and the training loss of the retain set with keyed ones."""
    where = setting("diffusion")
    draw, task = generator("wrongness"), where.task()
    terms = [
        page.injection_forget(model, where.forget_batch, task, "uniform", draw) for _ in "abcd"
    ]
    return sum(terms).item() / 4, task.example_loss(model, where.retain_batch).mean().item()


def known_of(function, settings):
    """Those of some settings that a function takes."""
    known = set(inspect.signature(function).parameters)
    return {name: value for name, value in settings.items() if name in known}


#: EraseDiff in its paper's form, long enough for a small forget set.
LONG = {"lam": None, "shared": False, "K": 1, "passes": 12, "batch_size": 16}


def check_noise_injection(function):
    """Forget captions are answered with uniform noise, and others as before."""
    where = setting("diffusion")
    model = where.run(function, **known_of(function, LONG)).model
    (before, kept), (after, keeps) = map(wrongness, (where.original, model))
    assert after < before / 3 and after > 1 / 12  # the best answer is the mean, 1/2
    assert keeps < kept + 0.1


def test_forget_captions_are_answered_with_uniform_noise_and_others_as_before():
    check_noise_injection(page.noise_injection)


def test_on_classes_the_forget_set_becomes_uncertain_and_the_rest_stays():
    where = setting()
    model = where.run(page.noise_injection, passes=20, lr=1e-3).model
    with torch.no_grad():
        said = model(where.forget_batch["inputs"]).softmax(-1)
        right = model(where.retain_batch["inputs"]).argmax(-1) == where.retain_batch["labels"]
    assert said.max(-1).values.mean() < 0.5
    assert right.double().mean() > 0.95


# ------------------------------------------------------------------ Selective Amnesia


def test_replayed_images_are_what_the_original_makes_of_retain_captions(here, process, teacher):
    draw = generator("replay")
    old = page.amnesia_replay(teacher, here.retain(), process, 16, draw)
    assert len(old) == 16 and old["pixel_values"].abs().max() <= 1
    known = here.retain_batch["prompts"].flatten(0, 1)
    for prompt in old["prompts"][:, 0]:
        assert (known == prompt).all(1).any()
    images = here.retain_batch["pixel_values"].flatten(1)
    assert torch.cdist(old["pixel_values"].flatten(1), images).min() > 1e-3
    other = page.amnesia_replay(here.model(), here.retain(), process, 16, generator("replay"))
    assert torch.equal(old["pixel_values"], other["pixel_values"])


def test_the_tie_is_the_fisher_weighted_distance(here):
    student, start = here.model(), weights(here.original)
    fisher = {n: torch.full_like(p, 2.0) for n, p in start.items()}
    assert page.amnesia_tie(student, fisher, start).item() == 0
    with torch.no_grad():
        student.conv_out.bias += 3.0
    assert page.amnesia_tie(student, fisher, start).item() == pytest.approx(18.0)


def test_a_stronger_tie_moves_the_tied_weights_less(here, monkeypatch):
    kept, apart = page.amnesia_tie, []
    monkeypatch.setattr(page, "amnesia_tie", lambda *a: apart.append(kept(*a)) or apart[-1])
    ends = []
    for ewc in (0.0, 1e6):
        here.run(page.noise_injection, **AMNESIA | {"steps": 12, "ewc": ewc})
        ends.append(apart[-1].item())  # by how much each matters, after eleven steps
    assert len(apart) == 24 and apart[0] == apart[12] == 0
    assert 0 < ends[1] < ends[0] / 3


def test_surrogates_are_uniform_images_told_forget_captions(here, process, monkeypatch):
    seen, kept = [], page.injection_noised
    monkeypatch.setattr(page, "injection_noised", lambda *a: seen.append(a) or kept(*a))
    model, draw = here.model(), generator("surrogate")
    page.amnesia_surrogate(model, here.forget_batch, process, draw)
    page.amnesia_surrogate(model, here.forget_batch, process, draw)
    (_, one, captions, _), (_, other, *_) = seen
    assert one.min() >= -1 and one.max() <= 1 and not torch.equal(one, other)
    assert one.mean().abs() < 0.05 and one.var().item() == pytest.approx(1 / 3, rel=0.1)
    assert torch.equal(captions, here.forget_batch["prompts"])


# ------------------------------------------------------------------ key steps


@pytest.mark.parametrize(
    "start, end, iterations, loops",
    [(8, 20, 500, 8), (0, 5, 200, 2), (14, 50, 750, 8), (3, 4, 9, 1)],
)
def test_the_table_repeats_the_interval_and_then_its_start_moves_on(start, end, iterations, loops):
    table = page.key_steps(start, end, iterations, loops)
    assert len(table) == iterations
    rounds, row = [], []
    for n in table:
        if row and n <= row[-1]:
            rounds.append(row)
            row = []
        row.append(n)
    starts = [row[0] for row in rounds]
    assert all(row == list(range(row[0], end)) for row in rounds)
    assert starts == sorted(starts) and starts[0] == start and max(starts) < 0.9 * end
    for k, first in enumerate(starts):
        last = math.ceil(0.9 * end) - 1
        assert first == min(start + k // loops, last)
    assert min(table) >= start


def watched(where, function, **settings):
    """Timesteps that the model in training is told, step by step, and the run."""
    model, told = where.model(), []

    def note(module, given, named):  # a copy of a model keeps its hooks
        if torch.is_grad_enabled():
            told.append(given[1].unique())

    model.register_forward_pre_hook(note, with_kwargs=True)
    reads = function.facts.reads
    splits = where.forget(reads), where.retain(reads)
    return told, function(model, *splits, where.task(reads), **settings)


def check_timestep_masking(function):
    """All training is at key steps, in their order, and the caption is turned away from."""
    where = setting("diffusion")
    process = where.task().diffusion()
    settings = {"start": 3, "end": 6, "loops": 2, "lr": 1e-3, "iterations": 30}
    told, result = watched(where, function, **known_of(function, settings))
    times = process.sampler(6).timesteps.tolist()
    assert told and all(len(t) == 1 for t in told)  # one step for the whole batch
    steps = [times.index(int(t)) if int(t) in times else -1 for t in told]
    assert steps == page.key_steps(3, 6, len(steps), 2)
    before, after = (captioned(m, process) for m in (where.original, result.model))
    assert after < before / 2


@torch.no_grad()
def captioned(model, process):
    """How far what the model says told a forget caption leans to the original's, 1 being there."""
    where = setting("diffusion")
    prompts = where.forget_batch["prompts"].flatten(0, 1).unique(dim=0)
    draw, table = generator("captioned"), [4, 5]
    path = page.key_path(
        process, frozen(where.original), iter([prompts]), table, 6, None, (1, 8, 8), draw
    )
    leans = []
    for key in path:
        said = process.predict(model, key.images, key.t, process.encode(prompts))
        way = key.told - key.without
        leans.append(float(((said - key.without) * way).sum() / way.square().sum()))
    return sum(leans) / len(leans)


def test_training_is_at_key_steps_and_turns_away_from_the_caption():
    check_timestep_masking(page.timestep_masking)


def test_neighbouring_steps_share_a_path_and_others_begin_anew(process, teacher, here):
    prompts = here.forget_batch["prompts"].flatten(0, 1).unique(dim=0)[:3]
    asked = iter([prompts, prompts.flip(0), prompts])
    table = [2, 3, 4, 2, 3, 4, 3]
    draw = generator("path")
    keys = list(page.key_path(process, teacher, asked, table, 5, 2.0, (1, 8, 8), draw))
    assert [key.number for key in keys] == table
    again, start = generator("path"), []
    for told in (prompts, prompts.flip(0), prompts):
        start.append((told, torch.randn((3, 1, 8, 8), generator=again)))
    paths = [
        list(process.path(teacher, process.encode(p), noise, steps=5, guidance=2.0))
        for p, noise in start
    ]
    for key, path in zip(keys, [0, 0, 0, 1, 1, 1, 2]):
        t, images = paths[path][key.number]
        assert (key.t == t).all() and torch.allclose(key.images, images, atol=1e-5)
        assert torch.equal(key.prompts, start[path][0])


def one_key(process, teacher, prompts, number=0, end=20):
    """The images of one step, on their way from noise."""
    draw = generator("one key")
    path = page.key_path(process, teacher, iter([prompts]), [number], end, 3.0, (1, 8, 8), draw)
    return next(path)


def forget_prompts(here, count=6):
    return here.forget_batch["prompts"].flatten(0, 1).unique(dim=0)[:count]


def test_one_step_from_the_first_without_the_empty_caption_is_esd(here, process, teacher):
    prompts = forget_prompts(here)
    key = one_key(process, teacher, prompts)
    text, student = process.encode(prompts), here.model()
    rule = page.KeyRule("kscu", 1.0, 2e-5, 0.0, 0, 0.0)
    parameters = list(student.parameters())
    loss = page.key_loss(student, key, process, rule, text)
    with torch.no_grad():
        nothing = process.nothing(len(prompts))
        without = process.predict(teacher, key.images, key.t, nothing)
        told = process.predict(teacher, key.images, key.t, text)
    target = without - 1.0 * (told - without)  # ESD, negative guidance 1
    esd = (process.predict(student, key.images, key.t, text) - target).square().mean()
    assert loss.item() == pytest.approx(esd.item(), rel=1e-5) and esd.item() > 1e-4
    pairs = zip(page.slopes_along(loss, parameters), page.slopes_along(esd, parameters))
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in pairs)


def test_the_empty_captions_target_leans_away_more_the_cleaner_the_image(here, process, teacher):
    rule, leans = page.KeyRule("kscu", 1.0, 2e-5, 1e-4, 0, 0.0), []
    for number in (0, 5, 12, 19):
        key = one_key(process, teacher, forget_prompts(here), number)
        told, without = rule.targets(key, process.levels)
        way = key.told - key.without
        assert torch.allclose(told, key.without - way)
        lean = float(((key.without - without) * way).sum() / way.square().sum())
        assert lean == pytest.approx(2e-5 * (1000 - int(key.t[0])), rel=1e-2)
        leans.append(lean)
    assert leans == sorted(leans)  # lambda_1 falls with t, and t falls with the step


def change_at(model, process, teacher, prompts, number):
    key = one_key(process, teacher, prompts, number)
    with torch.no_grad():
        said = process.predict(model, key.images, key.t, process.encode(prompts))
    return float((said - key.told).square().mean())


@pytest.mark.parametrize("start, end, far", [(15, 20, (0, 3, 6))])
def test_what_is_said_at_other_steps_moves_less(here, process, teacher, start, end, far):
    model = ran("timestep_masking", start=start, end=end, iterations=30, lr=1e-3).model
    change = lambda n: change_at(model, process, teacher, forget_prompts(here), n)
    assert max(map(change, far)) < min(map(change, range(start, end)))


@pytest.mark.parametrize(
    "method, moves",
    [
        ("x", lambda n: "attn2" in n),
        ("strict", lambda n: "attn2.to_k" in n or "attn2.to_v" in n),
        ("u", lambda n: "attn2" not in n),
        ("all", lambda n: True),
    ],
)
def test_only_the_weights_of_the_method_move(here, method, moves):
    new = weights(ran("timestep_masking", method=method, **STEPS).model)
    old = weights(here.original)
    changed = {n for n in old if not torch.equal(old[n], new[n])}
    assert changed and all(map(moves, changed))
    # Biases before a normalisation have no gradient; all else of the method moves.
    assert {n for n in old if moves(n) and n.endswith("weight")} <= changed


def test_captions_are_varied_in_the_last_iterations_alone(here, monkeypatch):
    calls, kept = [], page.varied_prompts
    monkeypatch.setattr(page, "varied_prompts", lambda *a: calls.append(1) or kept(*a))
    here.run(page.timestep_masking, iterations=20, batch_size=4, augment=0.1)
    assert len(calls) == 2
    here.run(page.timestep_masking, iterations=6, batch_size=4, augment=0.0)
    assert len(calls) == 2
    varied = ends("timestep_masking", **STEPS)  # the last of six
    assert not same_weights(varied, ends("timestep_masking", augment=0.0, **STEPS))


def test_a_varied_prompt_has_other_order_or_one_word_less_and_its_last_word(here, process):
    prompts = here.forget_batch["prompts"].flatten(0, 1).unique(dim=0)
    words = lambda row: row[1 : int(process.last_word(row[None])) + 1].tolist()
    fewer = moved = 0
    for k in range(20):
        varied = page.varied_prompts(process, prompts, generator("varied", k))
        assert varied.shape == prompts.shape
        for old, new in zip(prompts, varied):
            before, after = words(old), words(new)
            assert new[0] == old[0] and before[-1] in after and process.end in new
            assert (new[len(after) + 2 :] == process.empty[-1]).all()
            if len(after) < len(before):
                fewer += 1
                rest = list(before)
                rest.remove((set(before) - set(after)).pop())
                assert after == rest and after[-1] == before[-1]
            else:
                assert sorted(after) == sorted(before)
                moved += after != before
    assert fewer > 10 and moved > 10


# ------------------------------------------------------------------ which steps decide


def test_nothing_swapped_is_sampling_and_everything_swapped_is_the_other_prompt(
    here, process, teacher
):
    text, count = process.encode(forget_prompts(here)), len(forget_prompts(here))
    noise, other = torch.randn(count, 1, 8, 8, generator=generator("swap")), process.nothing(count)
    windows = [(0, 0), (0, 8), (0, 4), (4, 8)]
    none, every, first, last = page.identity_by_step(
        process, teacher, text, other, noise, 8, windows
    )
    assert torch.allclose(none, process.sample(teacher, text, noise, steps=8), atol=1e-5)
    assert torch.allclose(every, process.sample(teacher, other, noise, steps=8), atol=1e-5)
    assert (first - none).square().mean() > 1e-6 and (last - none).square().mean() > 1e-6
    # (0, 4) swaps the noisy half: it is the other prompt's path up to there.
    *_, (_, half) = list(process.path(teacher, other, noise, steps=8))[:5]
    rest = process.sample(teacher, text, half, steps=8, first=4)
    assert torch.allclose(first, rest, atol=1e-5)


def test_the_default_start_leaves_out_steps_that_decide_little(here, process):
    """Identity is decided late on this denoiser, which is why `start` is what it is."""
    work, digit = small_diffusion(), small_diffusion().request().digits
    prompts = work.prompts_of(digit, 0)
    text = process.encode(prompts).repeat_interleave(16, 0)
    noise = torch.randn(len(text), 1, 8, 8, generator=generator("which steps"))
    parameters = inspect.signature(page.timestep_masking).parameters
    start, end = parameters["start"].default, parameters["end"].default
    windows = [(0, 0), (0, start), (start, end)]
    made = page.identity_by_step(
        process, here.original, text, process.nothing(len(text)), noise, end, windows
    )
    whole, early, late = (
        float(work.judges[0].shows(images, torch.full((len(text),), digit[0])).double().mean())
        for images in made
    )
    assert whole > 0.8 and late < whole / 2 and early > late + 0.3


# ------------------------------------------------------------------ ANT


def ant(before, g=1.0):
    return page.KeyRule("ant", g, 0.0, 0.0, before, 0.5)


def signs(process, teacher, prompts, before, end=20):
    """+1 where a step is asked to follow the caption, -1 where to turn away; noisiest first."""
    found = []
    for number in range(end):
        key = one_key(process, teacher, prompts, number, end)
        told, without = ant(before).targets(key, process.levels)
        assert torch.equal(without, key.without)
        follow, turn = key.told, 2 * key.without - key.told
        found.append(1 if torch.allclose(told, follow, atol=1e-5) else -1)
        assert torch.allclose(told, follow if found[-1] > 0 else turn, atol=1e-5)
    return found


@pytest.mark.parametrize("before", [0, 7, 20])
def test_before_step_counts_from_the_noisiest_step_and_keeps_these(here, process, teacher, before):
    times = process.sampler(20).timesteps
    assert times[0] == times.max() == process.levels - 1
    found = signs(process, teacher, forget_prompts(here, 2), before)
    assert found == before * [1] + (20 - before) * [-1]


def test_where_all_steps_are_kept_nothing_is_asked_of_the_original(here, process, teacher):
    prompts = forget_prompts(here)
    key = one_key(process, teacher, prompts, 10)
    guided = process.guided(teacher, key.images, key.t, process.encode(prompts), 2.5)
    assert torch.allclose(ant(20, 2.5).targets(key, process.levels)[0], guided, atol=1e-5)
    # With g = 1 the target is what the original says already: no loss, so no forgetting.
    loss = page.key_loss(here.model(), key, process, ant(20), process.encode(prompts))
    assert loss.item() < 1e-9
    loss = page.key_loss(here.model(), key, process, ant(0), process.encode(prompts))
    assert loss.item() > 1e-4


def test_the_term_without_a_caption_has_a_gradient(here, process, teacher):
    key, student = one_key(process, teacher, forget_prompts(here), 10), here.model()
    with torch.no_grad():
        student.conv_out.weight *= 1.2
    text, parameters = process.encode(key.prompts), list(student.parameters())
    slopes = {}
    for weight in (0.0, 0.5):
        rule = ant(5)._replace(alpha2=weight)
        loss = page.key_loss(student, key, process, rule, text)
        slopes[weight] = page.slopes_along(loss, parameters)
    apart = [b - a for a, b in zip(slopes[0.0], slopes[0.5])]
    nothing = process.predict(student, key.images, key.t, process.nothing(len(text)))
    held = page.slopes_along(0.5 * (nothing - key.without).square().mean(), parameters)
    assert dot(held, held) > 1e-8
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(apart, held))


def check_mask(mask_of):
    """Weights in the mask have larger gradients than all weights outside, at each draw."""
    where = setting("diffusion")
    process, teacher = where.task().diffusion(), frozen(where.original)
    prompts, student = forget_prompts(where), where.model()
    keys = [one_key(process, teacher, prompts, n) for n in (10, 18)]
    parameters, rule = page.key_parameters(student, "x"), ant(5)
    count = sum(p.numel() for p in parameters.values())
    masks, sizes = [], []
    for key in keys:
        mask = mask_of(student, [key], process, rule, parameters, 0.3)
        loss = page.key_loss(student, key, process, rule, process.encode(prompts))
        slopes = page.slopes_along(loss, list(parameters.values()))
        inside = torch.cat([s.abs()[m].flatten() for s, m in zip(slopes, mask.values())])
        outside = torch.cat([s.abs()[~m].flatten() for s, m in zip(slopes, mask.values())])
        assert inside.min() >= outside.max() and len(inside) == int(0.3 * count)
        masks.append(mask)
    both = mask_of(student, keys, process, rule, parameters, 0.3)
    assert all(torch.equal(both[n], masks[0][n] & masks[1][n]) for n in both)
    sizes = [sum(int(m.sum()) for m in mask.values()) for mask in (*masks, both)]
    assert 0 < sizes[2] < sizes[0]


def test_the_mask_keeps_the_largest_gradients_at_every_draw():
    check_mask(page.key_mask)


def test_a_mask_of_the_smallest_gradients_is_found_out(monkeypatch):
    def smallest(student, keys, process, rule, parameters, fraction):
        """W2: ranks ascending, tensor by tensor."""
        chosen = {n: torch.ones_like(p, dtype=torch.bool) for n, p in parameters.items()}
        for key in keys:
            loss = page.key_loss(student, key, process, rule, process.encode(key.prompts))
            slopes = page.slopes_along(loss, list(parameters.values()))
            for (name, p), slope in zip(parameters.items(), slopes):
                rank = slope.abs().flatten().argsort().argsort().view_as(p)
                chosen[name] &= rank < fraction * p.numel()
        return chosen

    with pytest.raises(AssertionError):
        check_mask(smallest)


def test_weights_outside_the_mask_stay(here, monkeypatch):
    kept, made = page.key_mask, []
    monkeypatch.setattr(page, "key_mask", lambda *a: made.append(kept(*a)) or made[-1])
    result = here.run(page.timestep_masking, variant="ant", fraction=0.3, **STEPS)
    new, old = weights(result.model), weights(here.original)
    for name in old:
        still = ~made[0][name] if name in made[0] else torch.ones_like(old[name], dtype=torch.bool)
        assert torch.equal(new[name][still], old[name][still]), name
    share = sum(int(m.sum()) for m in made[0].values()) / sum(p.numel() for p in old.values())
    assert result.info["weights_trained"] == share
    moved = sum(int((new[n] != old[n]).sum()) for n in made[0])
    assert moved > 0.5 * share * sum(p.numel() for p in old.values())


def test_ant_trains_at_early_and_late_steps(here, process):
    settings = {"variant": "ant", "fraction": 1.0, "end": 6, "before_step": 2}
    told, _ = watched(here, page.timestep_masking, iterations=12, batch_size=4, **settings)
    times = process.sampler(6).timesteps.tolist()
    # Three draws for the mask, at the steps of reversal; then the whole path, twice.
    assert [times.index(int(t)) for t in told] == [5, 3, 2] + 2 * list(range(6))


# ------------------------------------------------------------------ planted stubs
# What the seed framework does under these names, in its own words and on this workload.


def planted(reads=("forget", "retain")):
    return strategy(category="Test", cite="", reads=reads)


@planted()
def no_noise_injected(model, forget, retain, task, *, lr=1e-3, seed=0):
    """A loss that nobody implements, so gradient ascent; no noise is injected anywhere."""
    student = clone(model)
    step = optimizer("adam", student.parameters(), lr)
    for _ in range(10):
        for batch in forget.batches(64):
            step.zero_grad()
            (-task.loss(student, batch).mean()).backward()
            step.step()
    return Unlearned(student)


@planted()
def coin_flip(model, forget, retain, task, *, lr=1e-3, iterations=30, seed=0):
    """A random timestep decides whether a step of ascent happens; the model is not told it."""
    student, draw = clone(model), generator("coin", seed)
    step = optimizer("adam", student.parameters(), lr)
    for _ in range(iterations):
        for batch in forget.batches(64):
            if torch.randint(1000, (), generator=draw) < 500:
                step.zero_grad()
                (-task.loss(student, batch).mean()).backward()
                step.step()
    return Unlearned(student)


@planted()
def one_answer(model, forget, retain, task, *, lr=1e-3, seed=0):
    """The wrong answer without the right ones: nothing holds what should stay."""
    student, draw = clone(model), generator("one answer", seed)
    step = optimizer("adam", student.parameters(), lr)
    for _ in range(60):
        for batch in forget.batches(64):
            loss = page.injection_forget(student, batch, task, "uniform", draw)
            step.zero_grad()
            loss.backward()
            step.step()
    return Unlearned(student)


@planted()
def nothing(model, forget, retain, task, *, lr=1e-3, iterations=30, seed=0):
    return Unlearned(clone(model))


@pytest.mark.parametrize(
    "check, stub",
    [
        (check_noise_injection, no_noise_injected),
        (check_noise_injection, one_answer),
        (check_noise_injection, nothing),
        (check_timestep_masking, coin_flip),
        (check_timestep_masking, nothing),
    ],
)
def test_the_seed_frameworks_version_is_found_out(check, stub):
    with pytest.raises(AssertionError):
        check(stub)


def test_this_page_holds_both():
    assert {"noise_injection", "timestep_masking"} <= set(strategies("diffusion"))
