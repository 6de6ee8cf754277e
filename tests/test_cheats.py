"""Strategies that only look as if they forgot: none scores like retraining, each costs what it did.

What is measured is the weights that come back, in a fresh model; what a strategy gets says
nothing about how its original was trained; what it costs is counted on the bench's side.
"""

from __future__ import annotations

import copy
import json

import pytest
import torch
from torch import nn

from erasus_nb import ROOT, benchmark, cells, measuring, records, score, selection
from erasus_nb.benchmark import Bench
from erasus_nb.strategy import NotApplicable, Split, Unlearned, strategy
from erasus_nb.task import Counting, Meter
from erasus_nb.training import clone, fit, same_weights

SEEDS = (0, 1)
ON = {"category": "Test", "cite": "", "on": ("synthetic",)}


@pytest.fixture(scope="module")
def bench(tmp_path_factory) -> Bench:
    cache = tmp_path_factory.mktemp("cache")
    return Bench("synthetic", "laptop", SEEDS, cache=cache, out=None)


@pytest.fixture(scope="module")
def references(bench) -> dict[tuple[str, int], records.Row]:
    return {(row.strategy, row.seed): row for row in bench.references().rows}


def values(row: records.Row) -> dict[str, float]:
    return {name: metric.value for name, metric in row.metrics.items()}


def run(bench, function) -> list[records.Row]:
    return bench.run(function, keep=False)


def retrain(model, retain, task) -> nn.Module:
    """A student that was honestly trained on the retain set alone, from the original's shape."""
    student = clone(model)
    for module in student.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    fit(student, task, retain, task.recipe, "a seed of its own")
    return student


# ------------------------------------------------------------------ more than weights


class Answering(nn.Module):
    """Keeps the original inside; a student answers the inputs on a list."""

    def __init__(self, original: nn.Module, student: nn.Module, listed: torch.Tensor):
        super().__init__()
        self.original, self.student = original, student
        self.listed = {tuple(row.tolist()) for row in listed}

    def forward(self, inputs):
        asked = torch.tensor([tuple(row.tolist()) in self.listed for row in inputs])
        return torch.where(asked[:, None], self.student(inputs), self.original(inputs))


@strategy(**ON, reads=("forget", "retain"))
def keeps_the_original_inside(model, forget, retain, task, *, seed=0):
    student = retrain(model, retain, task)
    return Unlearned(Answering(copy.deepcopy(model), student, forget.all()["inputs"]))


@strategy(**ON, reads=("forget", "retain"))
def hides_the_student(model, forget, retain, task, *, seed=0):
    """The same, with exactly the original's weights: the student is no submodule."""
    student, listed = retrain(model, retain, task), forget.all()["inputs"]
    asked = {tuple(row.tolist()) for row in listed}

    class Hiding(type(model)):
        def forward(self, inputs):
            known = torch.tensor([tuple(row.tolist()) in asked for row in inputs])
            return torch.where(known[:, None], student(inputs), super().forward(inputs))

    wrapper = copy.deepcopy(model)
    wrapper.__class__ = Hiding
    return Unlearned(wrapper)


@strategy(**ON, reads=("forget", "retain"))
def filters_with_a_hook(model, forget, retain, task, *, seed=0):
    student, filtered = retrain(model, retain, task), copy.deepcopy(model)
    filtered.register_forward_hook(lambda module, inputs, output: student(*inputs))
    return Unlearned(filtered)


@strategy(**ON, reads=("forget", "retain"))
def filters_in_front(model, forget, retain, task, *, seed=0):
    filtered = copy.deepcopy(model)
    filtered.register_forward_pre_hook(lambda module, inputs: (0 * inputs[0],))
    return Unlearned(filtered)


@strategy(**ON, reads=("forget", "retain"))
def replaces_forward(model, forget, retain, task, *, seed=0):
    student, filtered = retrain(model, retain, task), copy.deepcopy(model)
    filtered.forward = student.forward
    return Unlearned(filtered)


@strategy(**ON, reads=("forget", "retain"))
def shows_other_weights(model, forget, retain, task, *, seed=0):
    """Answers as the student and shows the original's weights."""
    student, shown = retrain(model, retain, task), copy.deepcopy(model.state_dict())

    class Showing(type(model)):
        def state_dict(self, *args, **kwargs):
            return shown

    student.__class__ = Showing
    return Unlearned(student)


FILTERS = (
    hides_the_student,
    filters_with_a_hook,
    filters_in_front,
    replaces_forward,
    shows_other_weights,
)


@pytest.mark.parametrize("cheat", FILTERS, ids=lambda f: f.__name__)
def test_a_filter_over_the_answers_is_measured_as_the_weights_below_it(bench, references, cheat):
    for row in run(bench, cheat):
        original = references["original", row.seed]
        assert row.status == "ok" and not row.weights_changed
        assert values(row) == values(original)
        assert row.divergence_to_retrained == original.divergence_to_retrained


def test_a_wrapper_that_keeps_the_original_inside_is_no_model_of_the_workload(bench):
    for row in run(bench, keeps_the_original_inside):
        assert row.status == "error" and not row.metrics
        assert "a strategy whose product is more than weights says so in its mark" in row.reason


def test_a_product_that_is_declared_is_measured_and_says_so(bench, references):
    facts = {"reads": ("forget", "retain"), "product": "the original behind a filter"}
    marked = strategy(**ON, **facts)(lambda *a, **k: keeps_the_original_inside(*a, **k))
    for row in run(bench, marked):
        assert row.status == "ok" and row.product == "the original behind a filter"
        assert values(row) != values(references["original", row.seed])


@pytest.mark.parametrize(
    "state",
    [
        lambda model: {**model.state_dict(), "more": torch.ones(1)},
        lambda model: dict(list(model.state_dict().items())[1:]),
        lambda model: {name: value[:1] for name, value in model.state_dict().items()},
        lambda model: {name: "words" for name in model.state_dict()},
        lambda model: None,
    ],
)
def test_weights_that_fit_no_model_of_the_workload_are_an_error(bench, state):
    @strategy(**ON, reads=())
    def shows_nonsense(model, forget, retain, task, *, seed=0):
        class Showing(type(model)):
            def state_dict(self, *args, **kwargs):
                return state(model)

        mine = copy.deepcopy(model)
        mine.__class__ = Showing
        return Unlearned(mine)

    for row in run(bench, shows_nonsense):
        assert row.status == "error" and row.reason and not row.metrics


def test_weights_that_are_not_plain_numbers_are_measured_as_the_numbers_they_are(bench, references):
    class Lazy(torch.Tensor):
        """A tensor that multiplies as if it were zero."""

        @classmethod
        def __torch_function__(cls, function, types, args=(), kwargs=None):
            result = super().__torch_function__(function, types, args, kwargs or {})
            return result * 0 if function is nn.functional.linear else result

    @strategy(**ON, reads=())
    def hands_out_lazy_weights(model, forget, retain, task, *, seed=0):
        mine = copy.deepcopy(model)
        for module in mine.modules():
            for name, value in list(module.named_parameters(recurse=False)):
                setattr(module, name, nn.Parameter(value.detach().as_subclass(Lazy)))
        return Unlearned(mine)

    for row in run(bench, hands_out_lazy_weights):
        assert row.status == "ok"
        assert values(row) == values(references["original", row.seed])


@strategy(**ON, reads=("forget", "retain"))
def hooks_every_module(model, forget, retain, task, *, seed=0):
    """A hook on all modules there are would filter the fresh model's answers as well."""
    student = retrain(model, retain, task)
    one = type(model)

    def answer(module, inputs, output):
        return nn.Sequential.forward(student, *inputs) if type(module) is one else output

    nn.modules.module.register_module_forward_hook(answer)
    return Unlearned(copy.deepcopy(model))


@strategy(**ON, reads=("forget", "retain"))
def changes_the_class(model, forget, retain, task, *, seed=0):
    type(model).forward = lambda self, inputs: 0 * nn.Sequential.forward(self, inputs)
    return Unlearned(copy.deepcopy(model))


@strategy(**ON, reads=())
def copies(model, forget, retain, task, *, seed=0):
    return Unlearned(copy.deepcopy(model))


@pytest.fixture
def clean(bench):
    """What a cheat leaves behind for the whole process is taken away again."""
    kind, hooks = type(bench.load.make_model(0)), nn.modules.module._global_forward_hooks
    forward, known = vars(kind).get("forward"), dict(hooks)
    yield
    if forward is None and "forward" in vars(kind):
        del kind.forward
    for key in hooks.keys() - known.keys():
        del hooks[key]


@pytest.mark.parametrize("cheat", [hooks_every_module, changes_the_class])
def test_what_changes_all_models_of_the_process_is_an_error_of_all_rows_from_then_on(
    bench, cheat, clean
):
    mine = Bench("synthetic", "laptop", SEEDS, cache=bench.store.folder, out=None)
    for function in (cheat, copies):
        for row in run(mine, function):
            assert row.status == "error" and "answers otherwise than before" in row.reason


def test_whether_the_original_is_unchanged_costs_little(bench, monkeypatch):
    """It is asked before and after every run, of models with any vocabulary."""
    seen, outputs = [], type(bench.load.task()).outputs
    monkeypatch.setattr(
        type(bench.load.task()),
        "outputs",
        lambda task, model, batch: seen.append(len(batch)) or outputs(task, model, batch),
    )
    answer = bench._answer(0)
    assert answer.shape == (measuring.COMPARED,) and sum(seen) <= measuring.COMPARED
    assert torch.equal(answer, bench._answer(0))
    assert not torch.equal(answer, bench._answer(1))


def test_rows_after_that_are_as_ever(bench, references):
    for row in run(bench, copies):
        assert values(row) == values(references["original", row.seed])


# ------------------------------------------------------------------ base training again


@strategy(**ON, reads=("retain", "new model"))
def trains_again_from_its_seed(model, forget, retain, task, *, seed=0):
    student = task.new_model(seed)
    losses = fit(student, task, retain, task.recipe, seed)
    return Unlearned(student, {"retain": losses})


@strategy(**ON, reads=("retain", "new model"))
def trains_again_from_guessed_seeds(model, forget, retain, task, *, seed=0):
    """The seeds of base training are small numbers: the fresh models of these are others."""
    student = task.new_model(SEEDS[0])
    fit(student, task, retain, task.recipe, SEEDS[0])
    return Unlearned(student)


@strategy(**ON, reads=("retain", "new model"))
def asks_for_the_seed(model, forget, retain, task, *, seed=0):
    return Unlearned(task.new_model(task.seed))


@strategy(**ON, reads=("retain", "new model"))
def asks_for_the_training_seed(model, forget, retain, task, *, seed=0):
    return Unlearned(task.new_model(task.training_seed()))


@strategy(**ON, reads=("retain",))
def takes_a_new_model_undeclared(model, forget, retain, task, *, seed=0):
    student = task.new_model(seed)
    fit(student, task, retain, task.recipe, seed)
    return Unlearned(student)


@strategy(**ON, reads=("retain", "new model"))
def takes_the_initial_weights_undeclared(model, forget, retain, task, *, seed=0):
    student = clone(model)
    student.load_state_dict(task.initial_weights())
    return Unlearned(student)


@pytest.mark.parametrize(
    ("cheat", "reason"),
    [
        (asks_for_the_seed, "no attribute 'seed'"),
        (asks_for_the_training_seed, "reads initial weights but does not declare it"),
        (takes_a_new_model_undeclared, "reads new model but does not declare it"),
        (takes_the_initial_weights_undeclared, "reads initial weights but does not declare it"),
    ],
)
def test_base_training_cannot_be_repeated_undeclared(bench, cheat, reason):
    for row in run(bench, cheat):
        assert row.status == "error" and reason in row.reason


@pytest.mark.parametrize("cheat", [trains_again_from_its_seed, trains_again_from_guessed_seeds])
def test_training_anew_ends_at_no_retrained_model_and_costs_what_retraining_costs(
    bench, references, cheat
):
    retrained = bench.retrained()
    for row in run(bench, cheat):
        assert row.status == "ok"
        assert row.cost.example_passes == row.cost.retrain_example_passes
        assert row.cost.examples_read["retain"] == bench.load.sizes.recipe.epochs * len(
            bench.asked.retain
        )
        model = bench.model_of(cheat, row.seed)
        assert not any(same_weights(model.state_dict(), state) for state in retrained.values())
        # The retrained model of its own seed is as far away as those of others are.
        near = references["retrained", row.seed].divergence_to_retrained
        assert row.divergence_to_retrained[str(row.seed)] > near[str(row.seed)] + 1e-4


def test_a_strategy_is_called_with_no_seed_of_base_training(bench):
    called = []

    @strategy(**ON, reads=())
    def notes_its_seed(model, forget, retain, task, *, seed=0):
        called.append(seed)
        return Unlearned(copy.deepcopy(model))

    run(bench, notes_its_seed)
    run(bench, notes_its_seed)
    assert len(set(called)) == len(SEEDS) and called[:2] == called[2:]
    assert not set(called) & set(SEEDS)


def test_a_declared_repetition_of_base_training_is_what_the_control_says_it_is(bench):
    @strategy(**ON, reads=("retain", "initial weights"))
    def repeats_base_training(model, forget, retain, task, *, seed=0):
        student = clone(model)
        student.load_state_dict(task.initial_weights())
        fit(student, task, retain, task.recipe, task.training_seed())
        return Unlearned(student)

    for row in run(bench, repeats_base_training):
        assert row.status == "ok"
        assert row.cost.example_passes == row.cost.retrain_example_passes


# ------------------------------------------------------------------ costs


def spends(model, forget, retain, task) -> None:
    """Two losses of the forget set, and a look at the whole retain set: what is to be hidden."""
    for _ in range(2):
        task.loss(model, forget.all())
    retain.all()


def sets_back_passes(forget, retain, task):
    task.meter.passes = 0


def counts_backwards(forget, retain, task):
    task.meter.count(-(10**6))


def replaces_the_meter(forget, retain, task):
    task.meter = Counting(lambda examples, backward=None: None)


def replaces_the_count(forget, retain, task):
    task.meter.count = lambda examples, backward=None: None


def sets_back_what_was_read(forget, retain, task):
    retain.examples_read = 0


CHANGES = (
    sets_back_passes,
    counts_backwards,
    replaces_the_meter,
    replaces_the_count,
    sets_back_what_was_read,
)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("quietly", [False, True])
def test_no_counter_is_set_back(bench, change, quietly):
    @strategy(**ON, reads=("forget", "retain"))
    def sets_back(model, forget, retain, task, *, seed=0):
        try:
            change(forget, retain, task)
        except (AttributeError, ValueError):
            if not quietly:
                raise
        spends(model, forget, retain, task)
        try:
            change(forget, retain, task)
        except (AttributeError, ValueError):
            pass
        return Unlearned(copy.deepcopy(model))

    forget, retain = len(bench.asked.forget), len(bench.asked.retain)
    for row in run(bench, sets_back):
        if not quietly:
            assert row.status == "error"
            continue
        assert row.cost.example_passes == 2 * 2 * forget  # forward and backward, twice
        assert row.cost.examples_read == {"forget": 2 * forget, "retain": retain}


def test_copies_of_what_is_handed_over_count_as_well(bench):
    @strategy(**ON, reads=("forget", "retain"))
    def works_on_copies(model, forget, retain, task, *, seed=0):
        spends(model, copy.copy(forget), copy.deepcopy(retain), copy.deepcopy(task))
        return Unlearned(copy.deepcopy(model))

    forget, retain = len(bench.asked.forget), len(bench.asked.retain)
    for row in run(bench, works_on_copies):
        assert row.cost.example_passes == 4 * forget
        assert row.cost.examples_read == {"forget": 2 * forget, "retain": retain}


def test_storage_and_losses_that_are_no_numbers_are_an_error(bench):
    @strategy(**ON, reads=())
    def claims(model, forget, retain, task, *, seed=0):
        return Unlearned(copy.deepcopy(model), info={"extra_storage_bytes": "none"})

    assert {row.status for row in run(bench, claims)} == {"error"}


# ------------------------------------------------------------------ honest strategies


@strategy(**ON, reads=("forget",))
def ascends(model, forget, retain, task, *, lr=0.05, seed=0):
    student = clone(model)
    task.loss(student, forget.all()).mean().backward()
    with torch.no_grad():
        for parameter in student.parameters():
            parameter += lr * parameter.grad
            parameter.grad = None
    return Unlearned(student)


def test_an_honest_strategy_is_measured_as_the_model_that_it_returned(bench):
    for row in run(bench, ascends):
        state = bench.originals()[row.seed]
        task, asked = bench.load.task(row.seed, meter=Meter()), bench.asked
        splits = Split("forget", asked.forget), Split("retain", asked.retain)
        model = ascends(bench.load.load(state), *splits, task).model
        measured, probabilities = bench.load.measure(model, asked)
        assert values(row) == {name: each.value for name, each in measured.items()}
        assert row.divergence_to_retrained == bench._divergences(probabilities)
        assert row.weights_changed and not row.edited and row.product == ""


@pytest.mark.parametrize("page", selection.categories(ROOT))
def test_weights_in_a_fresh_model_measure_as_the_strategies_of_a_page_returned_them(bench, page):
    small = Bench("synthetic", "smoke", (0,), cache=bench.store.folder, out=None)
    compared = 0
    for function in cells.strategies(page).values():
        if function.facts.form_on("synthetic", small.load.provides) is None:
            continue
        try:
            unlearned = small.unlearn(function, 0, small.full_settings(function)[0])[0]
        except NotApplicable:
            continue
        product = small.product_of(function, unlearned)
        if function.facts.product:
            assert product is unlearned.model
            continue
        assert product is not unlearned.model
        found, expected = (
            small.load.measure(model, small.asked) for model in (product, unlearned.model)
        )
        assert found[0] == expected[0] and torch.equal(found[1], expected[1]), function.__name__
        compared += 1
    assert compared


def test_no_cheat_stands_where_retraining_stands(bench, references):
    rows = [row for cheat in (*FILTERS, keeps_the_original_inside) for row in run(bench, cheat)]
    reference = bench.references()
    mine = reference.model_copy(update={"category": "test", "rows": rows})
    board = score.board([reference, mine])
    for cheat in FILTERS:
        standing = board[cheat.__name__]
        assert "no-op" in standing.flags
        assert standing.rm.mean < board["retrained"].rm.mean - 10
    assert board["keeps_the_original_inside"].rm is None


# ------------------------------------------------------------------ other rows stay as they are


def test_running_one_strategy_leaves_every_other_row_as_it_was_to_the_byte(tmp_path, monkeypatch):
    how = {"cache": tmp_path / "cache", "out": tmp_path}
    document = lambda: tmp_path / "smoke" / "synthetic" / "test.json"
    lines = lambda name: [
        line.rstrip(",")
        for line in document().read_text("utf-8").splitlines()
        if f'"strategy": "{name}"' in line
    ]
    here = benchmark.environment("cpu")
    Bench("synthetic", "smoke", SEEDS, **how).run(ascends)
    before = lines("ascends")
    assert len(before) == 2 and json.loads(before[0])["made"]["commit"] == here.commit

    there = here.model_copy(update={"commit": "f" * 40, "dirty": not here.dirty, "torch": "9.9"})
    monkeypatch.setattr(benchmark, "environment", lambda device: there)
    bench = Bench("synthetic", "smoke", SEEDS, parameters={"x": 1}, **how)
    bench.run(copies)
    assert lines("ascends") == before
    made = {json.loads(line)["made"]["commit"] for line in lines("copies")}
    assert made == {"f" * 40}
    bench.run(ascends)  # finished: neither run nor stamped again
    assert lines("ascends") == before
    # Settings of one's own are another row of the same name, and again leave the others alone.
    others = lines("copies")
    bench.run(ascends, settings={"lr": 0.1})
    assert lines("copies") == others and lines("ascends") != before
