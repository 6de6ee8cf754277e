"""The controls: rows that are no candidates, but without which no other row can be read.

They have a strategy's signature and go through the same door, so that a control is measured
exactly as a strategy is. Their settings follow the workload's base recipe; nothing is tuned.
"""

from __future__ import annotations

from dataclasses import replace

from .strategy import Split, Unlearned, strategy
from .training import clone, fit, generator, optimizer

EVERYWHERE = ("synthetic", "digits")


@strategy(category="Control", cite="", reads=(), on=EVERYWHERE)
def random_init(model, forget: Split, retain: Split, task, *, seed=0) -> Unlearned:
    """A fresh, never-trained network: what the lowest forget accuracy rewards."""
    return Unlearned(task.new_model(("control", seed)).train(model.training))


@strategy(category="Control", cite="", reads=("retain",), on=EVERYWHERE)
def fine_tune(
    model, forget: Split, retain: Split, task, *, share=0.25, seed=0
) -> Unlearned:
    """Go on training on the retain set, for `share` of the base epochs at the base step size.

    The control every strategy must beat: it does nothing about the forget set.
    """
    student = clone(model)
    recipe = replace(task.recipe, epochs=max(1, round(share * task.recipe.epochs)))
    losses = fit(student, task, retain, recipe, ("fine_tune", seed))
    return Unlearned(student, {"retain": losses})


@strategy(category="Control", cite="", reads=("forget", "retain"), on=EVERYWHERE)
def random_label(
    model, forget: Split, retain: Split, task, *, share=0.25, seed=0
) -> Unlearned:
    """Train on the forget set with wrong labels, drawn anew each epoch, and on the retain set."""
    student, draw = clone(model), generator("random_label", seed)
    recipe = task.recipe
    step = optimizer(recipe.optimizer, student.parameters(), recipe.lr)
    losses = []
    for _ in range(max(1, round(share * recipe.epochs))):
        wrong = [task.relabel(b, draw) for b in forget.batches(recipe.batch_size, draw)]
        for batch in [*wrong, *retain.batches(recipe.batch_size, draw)]:
            loss = task.loss(student, batch).mean()
            step.zero_grad(set_to_none=True)
            loss.backward()
            step.step()
        losses.append(loss.item())
    return Unlearned(student, {"last batch": losses})


@strategy(category="Control", cite="", reads=("forget",), on=EVERYWHERE)
def ascent_to_destruction(
    model, forget: Split, retain: Split, task, *, share=1.0, seed=0
) -> Unlearned:
    """Gradient ascent on the forget set at five times the base step size, never stopped.

    The over-unlearning exhibit: it shows what a score makes of a destroyed model.
    """
    student, draw = clone(model), generator("ascent_to_destruction", seed)
    step = optimizer("adam", student.parameters(), 5 * task.recipe.lr)
    losses = []
    for _ in range(max(1, round(share * task.recipe.epochs))):
        for batch in forget.batches(task.recipe.batch_size, draw):
            loss = task.loss(student, batch).mean()
            step.zero_grad(set_to_none=True)
            (-loss).backward()
            step.step()
        losses.append(loss.item())
    return Unlearned(student, {"forget": losses})


@strategy(
    category="Control", cite="", reads=("retain", "initial weights"), on=EVERYWHERE
)
def partial_retrain(
    model, forget: Split, retain: Split, task, *, share=0.25, seed=0
) -> Unlearned:
    """Retraining from the same initial weights, stopped after `share` of the base epochs.

    The cost-matched control: what the usual cost of a strategy (a quarter of retraining)
    buys if it is spent on retraining.
    """
    student = clone(model)
    student.load_state_dict({**student.state_dict(), **task.initial_weights()})
    recipe = replace(task.recipe, epochs=max(1, round(share * task.recipe.epochs)))
    losses = fit(student, task, retain, recipe, task.seed)
    return Unlearned(student, {"retain": losses})


CONTROLS = (
    random_init,
    fine_tune,
    random_label,
    ascent_to_destruction,
    partial_retrain,
)
