"""The contract battery itself: it passes what is sound, and names what is not."""

import copy
from types import SimpleNamespace

import pytest
import torch
from contract import battery, setting

from erasus_nb import controls
from erasus_nb.strategy import DataAccessError, Unlearned, strategy
from erasus_nb.training import clone, generator


def mark(function, reads=("forget", "retain"), product=""):
    return strategy(category="Test", cite="", reads=reads, product=product)(function)


def shake(model, draw, size=1e-3):
    """A copy of the model with noise on every weight."""
    student = clone(model)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter += size * torch.randn(parameter.shape, generator=draw)
    return student


def losses(task, model, *splits):
    with torch.no_grad():
        return [task.loss(model, split.all()).mean().item() for split in splits]


@pytest.mark.parametrize(
    "control, random",
    [(c, c is not controls.partial_retrain) for c in controls.CONTROLS],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_the_controls_keep_the_contract(control, random):
    battery(control, random=random)


def sound(model, forget, retain, task, *, size=1e-3, seed=0):
    losses(task, model, forget, retain)
    return Unlearned(shake(model, generator("sound", seed), size))


def test_a_sound_strategy_passes():
    battery(mark(sound), {"size": 0.0})


def changes_its_input(model, forget, retain, task, *, seed=0):
    losses(task, model, forget, retain)
    new = shake(model, generator("x", seed))
    with torch.no_grad():
        next(model.parameters()).mul_(1.001)
    return Unlearned(new)


def returns_its_input(model, forget, retain, task, *, seed=0):
    losses(task, model, forget, retain)
    return Unlearned(model)


def shares_memory(model, forget, retain, task, *, seed=0):
    losses(task, model, forget, retain)
    new = copy.copy(model)
    new._modules = dict(model._modules)
    return Unlearned(new)


def leaves_a_hook(model, forget, retain, task, *, seed=0):
    model.register_forward_hook(lambda *_: None)
    return sound(model, forget, retain, task, seed=seed)


def leaves_a_gradient(model, forget, retain, task, *, seed=0):
    task.loss(model, forget.all()).mean().backward()
    return sound(model, forget, retain, task, seed=seed)


def freezes_the_result(model, forget, retain, task, *, seed=0):
    result = sound(model, forget, retain, task, seed=seed)
    result.model.requires_grad_(False)
    return result


def forgets_the_mode(model, forget, retain, task, *, seed=0):
    result = sound(model, forget, retain, task, seed=seed)
    result.model.eval()
    return result


def draws_from_everywhere(model, forget, retain, task, *, seed=0):
    torch.manual_seed(torch.initial_seed())
    losses(task, model, forget, retain)
    return Unlearned(shake(model, None))


def ignores_the_seed(model, forget, retain, task, *, seed=0):
    return sound(model, forget, retain, task, seed=0)


def counts_nothing(model, forget, retain, task, *, seed=0):
    for split in (forget, retain):
        model(split.all()["inputs"])
    return Unlearned(shake(model, generator("x", seed)))


def reads_nothing(model, forget, retain, task, *, seed=0):
    return Unlearned(shake(model, generator("x", seed)))


def loses_itself(model, forget, retain, task, *, seed=0):
    losses(task, model, forget, retain)
    return Unlearned(shake(model, generator("x", seed), float("nan")))


def returns_a_bare_model(model, forget, retain, task, *, seed=0):
    return sound(model, forget, retain, task, seed=seed).model


class Pair(torch.nn.Module):
    """Two models whose answers are averaged."""

    def __init__(self, *models):
        super().__init__()
        self.models = torch.nn.ModuleList(models)

    def forward(self, inputs):
        return sum(model(inputs) for model in self.models) / 2


def returns_two_models(model, forget, retain, task, *, seed=0):
    losses(task, model, forget, retain)
    draw = generator("two", seed)
    return Unlearned(Pair(shake(model, draw), shake(model, draw)).train(model.training))


def test_only_a_product_may_be_another_module_than_the_original():
    with pytest.raises(AssertionError, match="it returned a Pair"):
        battery(mark(returns_two_models))
    battery(mark(returns_two_models, product="an ensemble of two"))


@pytest.mark.parametrize(
    "fault, says",
    [
        (changes_its_input, "changed its input"),
        (returns_its_input, "returned its input"),
        (shares_memory, "share memory"),
        (leaves_a_hook, "hooks"),
        (leaves_a_gradient, "gradients"),
        (freezes_the_result, "frozen"),
        (forgets_the_mode, "train mode"),
        (draws_from_everywhere, "another result"),
        (ignores_the_seed, "seed does nothing"),
        (counts_nothing, "no example pass"),
        (reads_nothing, "reads none"),
        (loses_itself, "not finite"),
        (returns_a_bare_model, "no Unlearned"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_fault_is_caught_and_named(fault, says):
    with pytest.raises(AssertionError, match=says):
        battery(mark(fault))


def test_a_strategy_that_reads_more_than_it_declares_is_caught():
    with pytest.raises(DataAccessError, match="forget labels"):
        battery(mark(sound, reads=("forget inputs", "retain")))


def around_the_guard(model, forget, retain, task, *, seed=0):
    labels = retain._batch._fields["labels"].double()
    task.outputs(model, retain.all())
    how_much = labels[:64].std().item()
    return Unlearned(shake(model, generator("guard", seed), 1e-3 * how_much))


def test_a_strategy_that_goes_around_the_guard_is_found_out():
    with pytest.raises(AssertionError, match="scrambling .*retain labels"):
        battery(mark(around_the_guard, reads=("retain inputs",)))


def test_strength_zero_that_changes_something_is_caught():
    with pytest.raises(AssertionError, match="changed weights"):
        battery(mark(sound), [{"size": 0.0}, {"size": 1e-4}])


def test_a_strategy_that_does_nothing_is_caught():
    def nothing(model, forget, retain, task, *, seed=0):
        losses(task, model, forget, retain)
        return Unlearned(clone(model))

    with pytest.raises(AssertionError, match="change nothing"):
        battery(mark(nothing), random=False)


def test_randomness_that_was_not_announced_is_caught():
    with pytest.raises(AssertionError, match="the seed matters"):
        battery(mark(sound), random=False)


def test_an_original_that_has_not_learnt_proves_nothing():
    poor = SimpleNamespace(learnt=0.4)
    with pytest.raises(AssertionError, match="learnt only 0.40"):
        battery(mark(sound), where=poor)


def test_every_run_gets_its_own_copy_of_the_original():
    where = setting()
    with torch.no_grad():
        where.model().head.weight.zero_()
    assert where.original.head.weight.abs().sum() > 0
