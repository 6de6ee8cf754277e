"""Loops every strategy may use: seeds, batch orders, training, per-example gradients, masks.

Two ways to train the same thing: `fit` trains one module; `fit_stack` trains many of one
architecture at once (torch.func), for originals, retrained models and shadow models, where it
is several times cheaper on one core. Both can log every update.
"""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap

from .profiles import Recipe
from .strategy import Batch, Split
from .task import Task
from .update_log import UpdateLog

# ------------------------------------------------------------------ seeds and orders


def generator(*keys: object) -> torch.Generator:
    """A CPU generator that depends on nothing but `keys` (strings and numbers).

    Draws are made on the CPU and moved, so that a seed means the same on every device.
    """
    digest = hashlib.blake2b(repr(keys).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") % (2**63))


@contextmanager
def global_seed(*keys: object) -> Iterator[None]:
    """Seed torch's global generators from `keys` for the block, then put them back.

    For library code (module constructors, adapters) that draws from the global generator.
    """
    with torch.random.fork_rng():
        torch.manual_seed(generator(*keys).initial_seed())
        yield


def epoch_order(ids: Tensor, epoch: int, seed: object) -> Tensor:
    """Positions into `ids` in the order of one epoch, shape (n,).

    Each example's place follows from its id, the seed and the epoch alone, so dropping an
    example leaves the order of all others as it was.
    """
    keys = torch.rand(int(ids.max()) + 1, generator=generator("order", seed, epoch))
    return torch.argsort(keys[ids.cpu()], stable=True)


def training_batches(ids: Tensor, recipe: Recipe, seed: object, first_epoch: int = 0):
    """Yield (epoch, positions into `ids`) for every step of base training, last batch kept."""
    for epoch in range(first_epoch, first_epoch + recipe.epochs):
        order = epoch_order(ids, epoch, seed)
        for start in range(0, len(ids), recipe.batch_size):
            yield epoch, order[start : start + recipe.batch_size]


# ------------------------------------------------------------------ models


def clone(model: nn.Module) -> nn.Module:
    """A deep copy that shares no storage with `model`, trainable, in the model's own mode."""
    copied = copy.deepcopy(model)
    for parameter in copied.parameters():
        parameter.requires_grad_(True)
        parameter.grad = None
    return copied


def frozen(model: nn.Module) -> nn.Module:
    """A deep copy in eval mode whose parameters take no gradient: a teacher."""
    copied = copy.deepcopy(model).eval()
    return copied.requires_grad_(False)


def optimizer(
    name: str, parameters, lr: float, *, weight_decay: float = 0.0, momentum: float = 0.0
) -> torch.optim.Optimizer:
    """ "sgd", "adam" or "adamw". Raises ValueError for another name."""
    parameters = list(parameters)
    if name == "sgd":
        return torch.optim.SGD(parameters, lr, momentum=momentum, weight_decay=weight_decay)
    if name in ("adam", "adamw"):
        kind = torch.optim.Adam if name == "adam" else torch.optim.AdamW
        # The fused kernel does the same update in one call: 1.4 times faster at these sizes.
        return kind(parameters, lr, weight_decay=weight_decay, fused=True)
    raise ValueError(f"optimizer must be sgd, adam or adamw, got {name!r}")


# ------------------------------------------------------------------ training


def fit(
    model: nn.Module,
    task: Task,
    split: Split,
    recipe: Recipe,
    seed: object,
    *,
    parameters: Sequence[nn.Parameter] | None = None,
    log: UpdateLog | None = None,
    first_epoch: int = 0,
) -> list[float]:
    """Train `model` in place on a split by ordinary descent; the loop of base training.

    Args:
        parameters: What to train; None means every parameter.
        log: Receives every step's sample ids and weight change (see provenance).
        first_epoch: Number of the first epoch; it enters the batch order.

    Returns:
        Mean training loss per epoch.
    """
    parameters = list(model.parameters()) if parameters is None else list(parameters)
    step = optimizer(recipe.optimizer, parameters, recipe.lr, weight_decay=recipe.weight_decay)
    totals: dict[int, Tensor] = {}
    ids = split.ids
    total = recipe.steps(len(ids))
    steps = training_batches(ids, recipe, seed, first_epoch)
    with global_seed("fit", seed, first_epoch):  # for models that drop out
        for number, (epoch, positions) in enumerate(steps, 1):
            batch = split.take(positions)
            loss = task.loss(model, batch).mean()
            step.zero_grad(set_to_none=True)
            loss.backward()
            scheduled(step, parameters, recipe, number / total)
            before = log.before(model) if log is not None else None
            step.step()
            if log is not None:
                log.after(model, before, epoch, batch["ids"])
            totals[epoch] = totals.get(epoch, 0.0) + loss.detach() * len(batch)
    return [float(total) / len(ids) for total in totals.values()]


def scheduled(
    step: torch.optim.Optimizer, parameters: Sequence[nn.Parameter], recipe: Recipe, done: float
) -> None:
    """Set the step size of the recipe and clip the gradients, just before a step.

    Args:
        done: Share of all steps, this one included, in (0, 1].
    """
    if recipe.clip is not None:
        nn.utils.clip_grad_norm_(parameters, recipe.clip)
    if recipe.warmup or recipe.final != 1:
        share = step_size_share(recipe, done)
        for group in step.param_groups:
            group["lr"] = recipe.lr * share


def step_size_share(recipe: Recipe, done: float) -> float:
    """The step size as a share of the recipe's, after `done` of all steps."""
    if done < recipe.warmup:
        return done / recipe.warmup
    left = (done - recipe.warmup) / (1 - recipe.warmup)
    return recipe.final + (1 - recipe.final) * (1 + math.cos(math.pi * left)) / 2


def stack_sizes(device: torch.device) -> tuple[int, int | None]:
    """Fewest and most members of a stack on a device, None being any number.

    Kernels are chosen by the size of the work, and other kernels round differently. On a CPU
    only a stack of one differs from larger ones. A GPU's convolutions differ at every size
    (seen on an H200: 2, 3, 6 and 8 members), so there all stacks have one.
    """
    return (2, None) if device.type == "cpu" else (8, 8)


def fit_stack(
    make_model: Callable[[object], nn.Module],
    loss: Callable[[Tensor, Tensor], Tensor],
    inputs: Tensor,
    labels: Tensor,
    ids: Sequence[Tensor],
    seeds: Sequence[object],
    recipe: Recipe,
    logs: Sequence[UpdateLog | None] | None = None,
) -> list[dict[str, Tensor]]:
    """Train one model per (ids, seed) pair at once and return their state dicts.

    Each member sees exactly the batches that `fit` would give it; the loss is summed over
    the stack, so an element-wise optimiser treats the members independently. A member's
    weights are the same to the last bit whoever else is asked for.

    Args:
        make_model: Seed -> freshly initialised module without buffers.
        loss: (logits (B, C), labels (B,)) -> per-example loss (B,).
        inputs, labels: All training data, indexed by id.
        ids: One id tensor per member, all of one length.
        seeds: One training seed per member.
        logs: One per member, or None for a member; receives every step's sample ids and
            weight change.
    """
    least, most = stack_sizes(inputs.device)
    if most is not None and len(seeds) > most:
        parts = [slice(k, k + most) for k in range(0, len(seeds), most)]
        what = make_model, loss, inputs, labels
        trained = (fit_stack(*what, ids[p], seeds[p], recipe, logs and logs[p]) for p in parts)
        return [state for part in trained for state in part]
    if len({len(member) for member in ids}) != 1:
        raise ValueError("members of a stack train on equally many examples")
    if recipe.warmup or recipe.final != 1 or recipe.clip is not None:
        raise ValueError("a stack trains at a constant step size, without clipping")
    count = len(seeds)
    company = max(0, least - count)
    ids, seeds = [*ids, *[ids[0]] * company], [*seeds, *[seeds[0]] * company]
    models = [make_model(seed) for seed in seeds]
    device = inputs.device
    stacked, _ = stack_module_state(models)
    shapes = {k: v.shape[1:] for k, v in stacked.items()}
    # One row per member, padded to whole vector registers: an optimiser kernel rounds the
    # end of a tensor differently, and no member may be the end.
    flat = torch.cat([v.detach().flatten(1) for v in stacked.values()], 1)
    padding = -flat.shape[1] % 64
    flat = nn.functional.pad(flat, (0, padding)).to(device).requires_grad_(True)
    parts = [shape.numel() for shape in shapes.values()]

    def weights_of(rows: Tensor) -> dict[str, Tensor]:
        pieces = rows.split([*parts, padding], -1)
        return {k: v.unflatten(-1, s) for (k, s), v in zip(shapes.items(), pieces)}

    skeleton = copy.deepcopy(models[0]).to("meta")
    step = optimizer(recipe.optimizer, [flat], recipe.lr, weight_decay=recipe.weight_decay)
    forward = vmap(lambda p, x: functional_call(skeleton, p, (x,)))
    table = torch.stack([member.cpu() for member in ids])
    recorded = {i: log for i, log in enumerate(logs or ()) if log is not None}
    orders = zip(*(training_batches(member, recipe, seed) for member, seed in zip(ids, seeds)))
    for members in orders:
        positions = torch.stack([position for _, position in members])
        rows = torch.gather(table, 1, positions).to(device)
        logits = forward(weights_of(flat), inputs[rows])
        value = loss(logits.flatten(0, 1), labels[rows].flatten())
        step.zero_grad(set_to_none=True)
        value.view(rows.shape).mean(1).sum().backward()
        now = lambda i: weights_of(flat.detach()[i])
        before = {i: log.before(now(i)) for i, log in recorded.items()}
        step.step()
        for i, log in recorded.items():
            log.after(now(i), before[i], members[i][0], rows[i])
    return [{k: v.clone() for k, v in weights_of(flat.detach()[i]).items()} for i in range(count)]


# ------------------------------------------------------------------ teachers

#: What a teacher said that is kept, in numbers: 2 GiB of them.
KEPT_NUMBERS = 2**29


@torch.no_grad()
def teacher_outputs(
    teacher: nn.Module, task: Task, examples: Split | Batch
) -> Callable[[Tensor], Tensor]:
    """What a fixed model says about examples: their positions (k,) -> task.outputs (k, ...).

    It is asked about every example once, and what it said is kept. Where that would be too
    much, as it is for every token of a large language model's data, it is asked anew about
    the examples that are wanted, each time.
    """

    def ask(positions: Tensor) -> Tensor:
        with torch.no_grad():
            return task.outputs(teacher, examples.take(positions))

    parts = torch.arange(len(examples)).split(32)
    first = ask(parts[0])
    if first.shape[1:].numel() * len(examples) > KEPT_NUMBERS:
        return ask
    said = torch.cat([first, *map(ask, parts[1:])])
    return lambda positions: said[positions.to(said.device)]


# ------------------------------------------------------------------ gradients

#: Per-example gradients held at a time, in numbers: 2 GiB of them.
CHUNK_NUMBERS = 2**29


class Bound:
    """A module with its parameters replaced: what task.loss is given under torch.func."""

    def __init__(self, model: nn.Module, parameters: dict[str, Tensor]):
        self.model, self.parameters = model, parameters

    def __call__(self, *args, **kwargs):
        return functional_call(self.model, self.parameters, args, kwargs)

    def __getattr__(self, name: str) -> Tensor:
        """A parameter of the module itself, such as CLIP's `logit_scale`."""
        try:
            return self.__dict__["parameters"][name]
        except KeyError:
            raise AttributeError(f"the module itself has no parameter {name}") from None


def gradient(model: nn.Module, task: Task, batch: Batch) -> dict[str, Tensor]:
    """Gradient of the mean loss over a batch, by parameter name; the model is not changed."""
    names, parameters = zip(*((n, p) for n, p in model.named_parameters() if p.requires_grad))
    values = torch.autograd.grad(task.loss(model, batch).mean(), parameters, allow_unused=True)
    return {
        n: torch.zeros_like(p) if g is None else g for n, p, g in zip(names, parameters, values)
    }


def squared_gradients(
    model: nn.Module, task: Task, batch: Batch, chunk: int | None = None
) -> dict[str, Tensor]:
    """Mean over examples of the squared per-example gradient (a Fisher diagonal), float64.

    Independent of order and batch size, unlike the square of a batch's mean gradient. The
    model is put in eval mode for the call and back afterwards.

    Args:
        batch: The examples; a field the strategy did not declare is not used.
        chunk: Examples per vmap call; memory only. By default 64, fewer for a large model.
    """
    if chunk is None:
        size = sum(p.numel() for p in model.parameters())
        chunk = min(64, max(1, CHUNK_NUMBERS // size))
    parameters = {n: p.detach() for n, p in model.named_parameters()}
    training = model.training
    model.eval()

    def one(values, fields):
        example = Batch({k: v.unsqueeze(0) for k, v in fields.items()}, batch._hidden)
        return task.example_loss(Bound(model, values), example).sum()

    per_example = vmap(grad(one), (None, 0))
    totals = {n: torch.zeros_like(p, dtype=torch.float64) for n, p in parameters.items()}
    try:
        for part in batch.parts(chunk):
            task.meter.count(len(part) - 1, backward=True)  # the hook itself counts one
            for name, value in per_example(parameters, part.visible()).items():
                totals[name] += value.double().pow(2).sum(0)
    finally:
        model.train(training)
    return {n: t / len(batch) for n, t in totals.items()}


# ------------------------------------------------------------------ weights as dictionaries


def weights(model: nn.Module) -> dict[str, Tensor]:
    """The parameters by name, detached copies."""
    return {n: p.detach().clone() for n, p in model.named_parameters()}


@torch.no_grad()
def set_weights(model: nn.Module, values: dict[str, Tensor]) -> nn.Module:
    """Write `values` into the parameters and buffers of those names, in place.

    Unlike `load_state_dict` it does not ask for the second name of a tied weight.
    Returns the model.
    """
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if name in values:
            tensor.copy_(values[name])
    return model


def same_weights(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    """Whether two state dicts hold the same tensors to the last bit."""
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def count_of(fraction: float, total: int) -> int:
    """How many of `total` a fraction is: cut down to a whole number, as in most authors' codes.

    A product that floating point has put just below a whole number (0.29 * 100) is that number.
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"a fraction lies between 0 and 1, got {fraction}")
    exact = fraction * total
    return round(exact) if math.isclose(exact, round(exact), rel_tol=1e-12) else int(exact)


def top_fraction(scores: dict[str, Tensor], fraction: float) -> dict[str, Tensor]:
    """Boolean masks of the `fraction` of all entries with the highest scores, by exact rank.

    As many as `count_of` says. Ties (many zeros, say) are broken by position, so the count
    is exact: comparing with the k-th value would select every tied entry.
    """
    flat = torch.cat([s.flatten() for s in scores.values()])
    count = count_of(fraction, len(flat))
    chosen = torch.zeros(len(flat), dtype=torch.bool, device=flat.device)
    chosen[torch.argsort(flat, descending=True, stable=True)[:count]] = True
    parts = chosen.split([s.numel() for s in scores.values()])
    return {n: part.view_as(s) for (n, s), part in zip(scores.items(), parts)}
