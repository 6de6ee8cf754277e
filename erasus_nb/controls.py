"""The controls: rows that are no candidates, but without which no other row can be read.

They have a strategy's signature and go through the same door, so that a control is measured
exactly as a strategy is. Their settings follow the workload's base recipe; nothing is tuned.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from .strategy import Split, Unlearned, strategy
from .training import clone, fit, frozen, generator, optimizer


@strategy(category="Control", cite="", reads=("new model",))
def random_init(model, forget: Split, retain: Split, task, *, seed=0) -> Unlearned:
    """A fresh, never-trained network: what the lowest forget accuracy rewards."""
    return Unlearned(task.new_model(("control", seed)).train(model.training))


@strategy(category="Control", cite="", reads=("retain",))
def fine_tune(model, forget: Split, retain: Split, task, *, share=0.25, seed=0) -> Unlearned:
    """Go on training on the retain set, for `share` of the base epochs at the base step size.

    The control every strategy must beat: it does nothing about the forget set.
    """
    student = clone(model)
    recipe = replace(task.recipe, epochs=max(1, round(share * task.recipe.epochs)))
    losses = fit(student, task, retain, recipe, ("fine_tune", seed))
    return Unlearned(student, {"retain": losses})


@strategy(category="Control", cite="", reads=("forget", "retain"), needs=("labels",))
def random_label(model, forget: Split, retain: Split, task, *, share=0.25, seed=0) -> Unlearned:
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


@strategy(category="Control", cite="", reads=("forget",))
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


@strategy(category="Control", cite="", reads=("retain", "initial weights"))
def partial_retrain(model, forget: Split, retain: Split, task, *, share=0.25, seed=0) -> Unlearned:
    """Retraining from the same initial weights, stopped after `share` of the base epochs.

    The cost-matched control: what the usual cost of a strategy (a quarter of retraining)
    buys if it is spent on retraining.
    """
    student = clone(model)
    student.load_state_dict({**student.state_dict(), **task.initial_weights()})
    recipe = replace(task.recipe, epochs=max(1, round(share * task.recipe.epochs)))
    losses = fit(student, task, retain, recipe, task.training_seed())
    return Unlearned(student, {"retain": losses})


@strategy(
    category="Baseline",
    cite="zhang2024npo",
    reads=("forget", "retain"),
    needs=("tokens",),
    departures=(
        "The retain term is a mean over texts; open-unlearning's is one over all tokens of a "
        "batch. Examples of 39 to 51 tokens, as here, change a token's weight by a fifth at most.",
    ),
)
def npo(
    model, forget: Split, retain: Split, task, *, beta=0.1, lr=1e-3, epochs=10, seed=0
) -> Unlearned:
    """Negative preference optimisation with a retain term (NPO + GDR).

    Lowers the sequences' log-probability relative to the original's, by less and less as
    it falls: L = 2 / beta * softplus(beta * (log p - log p_original)) + retain loss, each
    a mean over texts.

    Source: Zhang et al. (2024), arXiv 2404.05868, equation 3. MUSE's code takes the
    difference of raw logits instead, which is not the paper's.
    """
    start, ids = frozen(model), forget.ids
    # Once: the original need not stay in memory beside the student.
    with torch.no_grad():
        parts = forget.batches(task.recipe.batch_size)
        at_first = -torch.cat([task.token_losses(start, b).sum(-1) for b in parts])
    del start

    def away(student, batch):
        before = at_first[(batch["ids"][:, None] == ids).int().argmax(1)]
        return npo_loss(-task.token_losses(student, batch).sum(-1), before, beta).mean()

    return _against(away, model, forget, retain, task, lr, epochs, ("npo", seed))


@strategy(
    category="Baseline",
    cite="fan2024simnpo",
    reads=("forget", "retain"),
    needs=("tokens",),
    departures=(
        "The retain term is a mean over texts; open-unlearning's is one over all tokens of a "
        "batch. Examples of 39 to 51 tokens, as here, change a token's weight by a fifth at most.",
    ),
)
def simnpo(
    model, forget: Split, retain: Split, task, *, beta=2.5, gamma=0.0, lr=1e-3, epochs=10, seed=0
) -> Unlearned:
    """NPO without a reference model, on the mean log-probability per token (SimNPO + GDR).

    L = 2 / beta * softplus(beta * mean log p + gamma) + retain loss, each a mean over texts.

    Source: Fan et al. (2024), arXiv 2410.07163, equation 4.
    """

    def away(student, batch):
        return simnpo_loss(-task.loss(student, batch), beta, gamma).mean()

    return _against(away, model, forget, retain, task, lr, epochs, ("simnpo", seed))


@strategy(
    category="Baseline",
    cite="maini2024tofu",
    reads=("forget", "retain"),
    needs=("tokens",),
    departures=(
        "Each of the two terms is a mean over texts; open-unlearning's is one over all tokens of a "
        "batch. Examples of 39 to 51 tokens, as here, change a token's weight by a fifth at most.",
    ),
)
def grad_diff(
    model, forget: Split, retain: Split, task, *, lr=1e-3, epochs=10, seed=0
) -> Unlearned:
    """Ascent on the forget set with descent on the retain set, at equal weight (GradDiff).

    L = retain loss - forget loss, each a mean over texts of the mean over their tokens.

    Source: Maini et al. (2024), arXiv 2401.06121, section 3.3; MUSE's GA + GDR.
    """
    away = lambda student, batch: -task.loss(student, batch).mean()
    return _against(away, model, forget, retain, task, lr, epochs, ("grad_diff", seed))


def npo_loss(log_p: Tensor, log_p_start: Tensor, beta: float) -> Tensor:
    """NPO's loss of each sequence, (B,), from its log-probability now and at the start."""
    return 2 / beta * F.softplus(beta * (log_p - log_p_start))


def simnpo_loss(log_p_per_token: Tensor, beta: float, gamma: float) -> Tensor:
    """SimNPO's loss of each sequence, (B,), from its mean log-probability per token."""
    return 2 / beta * F.softplus(beta * log_p_per_token + gamma)


def _against(away, model, forget, retain, task, lr, epochs, key) -> Unlearned:
    """Every forget batch, with its loss `away`, beside one retain batch with its own."""
    student, draw, size = clone(model), generator(*key), task.recipe.batch_size
    step = optimizer("adamw", student.parameters(), lr)
    kept, losses = iter(()), []
    for _ in range(epochs):
        for batch in forget.batches(size, draw):
            beside = next(kept, None)
            if beside is None:
                kept = retain.batches(size, draw)
                beside = next(kept)
            loss = away(student, batch) + task.loss(student, beside).mean()
            step.zero_grad(set_to_none=True)
            loss.backward()
            step.step()
        losses.append(loss.item())
    return Unlearned(student, {"last batch": losses})


@strategy(
    category="Baseline",
    cite="mishra2025ccup",
    reads=("forget inputs", "retain inputs"),
    needs=("pairs",),
    departures=(
        "The paper's directions are those of the prompts of forgotten classes; a strategy sees no "
        "prompts, so ours are those of the forgotten captions.",
        "Forgotten captions span the whole space here, and share most of it with kept ones. So "
        "the main directions of kept captions are taken out of them first, and the main half of "
        "what is left is removed; share=1 with kept=0 removes their whole span, as the paper does.",
    ),
)
def null_space_projection(
    model, forget: Split, retain: Split, task, *, share=0.5, kept=0.5, tower="vision", seed=0
) -> Unlearned:
    """Project the last layer onto the null space of what the forgotten captions say (CCUP).

    W' = (I - U U^T) W, where the columns of U are orthonormal: the main directions of
    T_f (I - R R^T), whose rows T_f are the unit embeddings of the forgotten captions, and R
    holds the main directions of those of the kept ones. Nothing is trained, and nothing is
    drawn.

    Args:
        share: U has the fewest directions that hold this share of the squared length of
            T_f (I - R R^T); 0 removes none, 1 all.
        kept: R has the fewest that hold this share of that of the kept captions; 0 keeps none.
        tower: Whose projection is changed: a modality of the task's, or "both".

    Raises:
        ValueError: another tower, or no share.

    Source: Mishra et al. (2025), arXiv 2512.14137, who remove the span of the target texts
        from CLIP's final projection layer.
    """
    towers = task.modalities(model)  # refuses where there is only one
    if tower not in (*towers, "both"):
        raise ValueError(f"tower is {', '.join(towers)} or both, got {tower!r}")
    said = [_caption_directions(model, task, split) for split in (forget, retain)]
    base = main_directions(said[1], kept)
    gone = main_directions(said[0] - said[0] @ base.T @ base, share, len(said[0]))
    student = clone(model)
    for name in towers if tower == "both" else (tower,):
        layer = student.get_submodule(towers[name][-1])
        for part in (task.matrix(layer), getattr(layer, "bias", None)):
            if part is not None:
                _remove(part, gone)
    info = {"removed": len(gone), "kept": len(base), "dimensions": gone.shape[1]}
    return Unlearned(student, {}, info)


def main_directions(rows: Tensor, share: float, of: float | None = None) -> Tensor:
    """The fewest orthonormal directions that hold a share of some rows' squared length, (r, d).

    Args:
        rows: (n, d).
        share: 0 to 1; directions that hold nothing are never among them.
        of: What counts as something: their own squared length, or that of what they are
            left over from.

    Raises:
        ValueError: no share.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"a share lies between 0 and 1, got {share}")
    _, sizes, directions = torch.linalg.svd(rows, full_matrices=False)
    held = sizes.square()
    something = int((held > 1e-10 * (held.sum() if of is None else of)).sum())
    short = held.cumsum(0) < (share - 1e-10) * held.sum()
    needed = int(short.sum()) + 1 if share else 0
    return directions[: min(needed, something)]


@torch.no_grad()
def _caption_directions(model, task, split: Split) -> Tensor:
    """Unit embeddings of a split's captions, (n, d), float64."""
    found = []
    for part in split.batches(task.recipe.batch_size):
        *_, captions = task.embeddings(model, part).values()  # a pair's second half
        found.append(captions.projected.double())
    return torch.cat(found)


@torch.no_grad()
def _remove(part: Tensor, directions: Tensor) -> None:
    """Take orthonormal directions, (r, d), out of the outputs of a weight (d, ...), in place."""
    if len(directions):
        exact = part.double()
        part.copy_(exact - directions.T @ (directions @ exact))


CONTROLS = (random_init, fine_tune, random_label, ascent_to_destruction, partial_retrain)

#: Methods that every reader of a board of language models, or of CLIP, looks for; not among the
#: 29.
BASELINES = (grad_diff, npo, simnpo, null_space_projection)


def on(provides: Collection[str]) -> list:
    """The controls and baselines of a workload that provides this, in the order of the board."""
    return [c for c in (*CONTROLS, *BASELINES) if set(c.facts.needs) <= set(provides)]
