"""What honest base training must record: update log, SISA checkpoints, convex head.

Three strategies cannot run on just any finished model. Each needs something that only
exists if it was kept, or built in, while the model was trained, before anybody asked to
forget anything. This module is that part of base training.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from scipy.optimize import root
from torch import Tensor, nn

from .strategy import Batch, MissingRecord, Split
from .task import Task
from .training import fit, frozen, generator, same_weights
from .update_log import UpdateLog, Weights
from .workloads.base import Workload

#: Memory for update logs that are recorded side by side: all 24 seeds of the smallest network
#: (14 MB each), two of a small convolutional one (144 MB each).
LOG_BYTES = 350 * 10**6


# ------------------------------------------------------------------ the update log


def update_logs(
    workload: Workload, finals: Mapping[object, Mapping[str, Tensor]]
) -> dict[object, UpdateLog]:
    """The update logs of the originals of some seeds, recorded side by side.

    For originals that are kept without their logs, which would fill the disk. Training is
    deterministic, so a log is recorded by training its seed once more with the recorder
    on; it is the original's log only if it ends at the original.

    Args:
        finals: Seed -> weights of its original.

    Raises:
        MissingRecord: a training run does not end at its original to the last bit.
    """
    logs = {seed: UpdateLog(workload.start_model(seed), workload.owners) for seed in finals}
    ids = [workload.train_ids] * len(logs)
    states = workload.train(ids, list(logs), logs=list(logs.values()))
    on_cpu = lambda weights: {name: value.cpu() for name, value in weights.items()}
    for (seed, final), state in zip(finals.items(), states):
        if not same_weights(on_cpu(state), on_cpu(final)):
            raise MissingRecord(
                f"training seed {seed} of {workload.name} again does not end at the "
                "original's weights to the last bit, so this is not the original's log. "
                "The original comes from another machine or device: remove it from the "
                "cache and run again"
            )
    return logs


def update_log(workload: Workload, seed: object, final: Mapping[str, Tensor]) -> UpdateLog:
    """The update log of the original of one seed; see `update_logs`."""
    return update_logs(workload, {seed: final})[seed]


def logs_at_once(workload: Workload) -> int:
    """How many update logs to record and hold at a time, at least one."""
    weights = sum(p.numel() for p in workload.make_model(0).parameters())
    recipe = workload.sizes.recipe
    steps = recipe.steps(len(workload.train_ids))
    return max(1, LOG_BYTES // (4 * weights * steps))


# ------------------------------------------------------------------ SISA

#: Shards and slices per shard. A shard must hold enough examples to learn from: with
#: 320 training examples, 4 shards of 4 slices are 80 examples a shard and 20 a slice.
SHARDS, SLICES = 4, 4


@dataclass(frozen=True)
class SisaPlan:
    """Where every example goes, and how the shards are trained.

    Args:
        shards, slices: Number of shards, and of slices in each.
        epochs: Epochs per slice.
        seed: Training seed; with the shard number it fixes initial weights and orders.
        cells: Place of every example: shard * slices + slice, indexed by id.
    """

    shards: int
    slices: int
    epochs: int
    seed: object
    cells: Tensor

    def first_touched(self, ids: Tensor) -> dict[int, int]:
        """Shard -> the first of its slices, from 0, that holds any of `ids`."""
        first: dict[int, int] = {}
        for cell in sorted(self.cells[ids.cpu()].unique().tolist()):
            first.setdefault(cell // self.slices, cell % self.slices)
        return first

    def upto(self, shard: int, number: int, ids: Tensor) -> Tensor:
        """Positions in `ids` of a shard's slices 0..number, shape (k,)."""
        cells = self.cells[ids.cpu()]
        wanted = (cells // self.slices == shard) & (cells % self.slices <= number)
        return wanted.nonzero()[:, 0]


def sisa_plan(
    workload: Workload, seed: object, shards: int = SHARDS, slices: int = SLICES
) -> SisaPlan:
    """The plan of one seed.

    An example's place follows from its own id and the seed, so it stays where it is
    when others leave. With R slices each takes 2 e / (R + 1) epochs, where e is that of
    base training: the ensemble sees as many examples in all as in e plain epochs.
    """
    draw = torch.rand(len(workload.train_ids), generator=generator("sisa", seed))
    epochs = max(1, round(2 * workload.sizes.recipe.epochs / (slices + 1)))
    return SisaPlan(shards, slices, epochs, seed, (draw * shards * slices).long())


class SisaEnsemble(nn.Module):
    """Models trained on disjoint shards of the data, which answer together.

    Args:
        models: One trained constituent per shard.
        aggregation: "mean" of the constituents' class probabilities, or "vote".

    Source: Bourtoule et al. (IEEE S&P 2021), sections IV and VII.
    """

    def __init__(self, models: Sequence[nn.Module], aggregation: str = "mean"):
        super().__init__()
        if aggregation not in ("mean", "vote"):
            raise ValueError(f"aggregation must be mean or vote, got {aggregation!r}")
        self.aggregation, self.models = aggregation, nn.ModuleList(models)

    def forward(self, *args, **named) -> Tensor:
        """Log class probabilities, shape (B, classes); of tokens, (B, T, V).

        Takes what its constituents take.

        "vote" counts, per class, the constituents that prefer it, and adds the mean
        probability: less than a vote, so it only breaks ties and keeps the log finite.
        """
        said = [model(*args, **named) for model in self.models]
        logits = [one if isinstance(one, Tensor) else one.logits for one in said]
        logs = torch.stack(logits).log_softmax(-1)
        mean = logs.logsumexp(0) - math.log(len(logs))
        if self.aggregation == "mean":
            return mean
        votes = nn.functional.one_hot(logs.argmax(-1), logs.shape[-1]).sum(0)
        return torch.log((votes + mean.exp()) / (len(logs) + 1))


class _Part:
    """Some positions of a split, which `fit` takes for a split of its own."""

    def __init__(self, split: Split, positions: Tensor):
        self._split, self._positions = split, positions
        self.ids = split.ids.cpu()[positions]

    def take(self, index: Tensor) -> Batch:
        return self._split.take(self._positions[index])


@dataclass
class SisaShards:
    """What SISA training keeps: every shard's weights after each of its slices.

    A slice starts with a fresh optimiser and takes its batch order from seed and epoch, so
    weights are all there is to resume. They are trained when they are asked for: training
    is deterministic, so a checkpoint is the same whenever it is made, and one that no
    request goes back to costs nothing.

    Args:
        plan: Where every example went, and how the shards are trained.
        make_model: Shard -> its freshly initialised model.
        data: What the shards are trained on.
        task: Whose loss and recipe they are trained with.
        keep: (shard, slices, make) -> the weights after so many slices, made if they are
            not at hand.

    Source: Bourtoule et al. (IEEE S&P 2021), section IV.
    """

    plan: SisaPlan
    make_model: Callable[[int], nn.Module]
    data: Split
    task: Task
    keep: Callable[[int, int, Callable[[], Weights]], Weights] = lambda shard, slices, make: make()
    _made: dict[tuple[int, int], Weights] = field(default_factory=dict)

    def after(self, shard: int, slices: int) -> Weights:
        """Weights of a shard after its first `slices` slices; 0 is before any training."""
        place = shard, slices
        if place not in self._made:
            self._made[place] = self.keep(*place, lambda: self._trained(*place))
        return self._made[place]

    def _trained(self, shard: int, slices: int) -> Weights:
        if slices == 0:
            return _snapshot(self.make_model(shard))
        model, done, plan = self.model(shard, slices - 1), slices - 1, self.plan
        part = _Part(self.data, plan.upto(shard, done, self.data.ids))
        if len(part.ids):  # a shard of which nothing is left stays as it was
            recipe = replace(self.task.recipe, epochs=plan.epochs)
            order, first = ("sisa", plan.seed, shard), done * plan.epochs
            fit(model.train(), self.task, part, recipe, order, first_epoch=first)
        return _snapshot(model)

    def model(self, shard: int, slices: int | None = None) -> nn.Module:
        """A shard's model after its first `slices` slices, None being all; in eval mode."""
        model = self.make_model(shard)
        slices = self.plan.slices if slices is None else slices
        model.load_state_dict(self.after(shard, slices))
        return model.eval()

    def models(self) -> list[nn.Module]:
        """Every shard's model after all its slices, in eval mode."""
        return [self.model(shard) for shard in range(self.plan.shards)]

    def ready_for(self, ids: Tensor) -> SisaShards:
        """Train what a request for `ids` goes back to; returns these shards."""
        first = self.plan.first_touched(ids)
        for shard in range(self.plan.shards):
            self.after(shard, first.get(shard, self.plan.slices))
        return self

    def again(self, data: Split, task: Task, clean: Callable[[int, int], bool]) -> SisaShards:
        """The same shards on other data, going on from the checkpoints that stay valid.

        Args:
            clean: (shard, slices) -> whether the weights after so many slices are the
                same on that data, having seen nothing that is missing there.
        """

        def keep(shard: int, slices: int, make: Callable[[], Weights]) -> Weights:
            return self.after(shard, slices) if clean(shard, slices) else make()

        return SisaShards(self.plan, self.make_model, data, task, keep)

    @property
    def nbytes(self) -> int:
        """Bytes of all checkpoints: they exist only to serve a request."""
        one = sum(value.nbytes for value in self.after(0, 0).values())
        return one * self.plan.shards * (self.plan.slices + 1)


def _snapshot(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def sisa_shards(
    workload: Workload, seed: object, shards: int = SHARDS, slices: int = SLICES
) -> SisaShards:
    """The shards of one seed on all training data; the workload remembers what was trained."""

    def keep(shard: int, number: int, make: Callable[[], Weights]) -> Weights:
        name = f"sisa {seed} {shards}x{slices} {shard}/{number}"
        return workload.remember(name, make) if number else make()

    return SisaShards(
        sisa_plan(workload, seed, shards, slices),
        lambda shard: workload.make_model(("sisa", seed, shard)),
        Split("sisa", workload.batch(workload.train_ids)),
        workload.task(seed),
        keep,
    )


# ------------------------------------------------------------------ the convex head

#: Strength of the L2 term and standard deviation of the perturbation. Chosen on tuning
#: seeds so that one fold's request fits into the budget of epsilon = 1, delta = 1e-4: a
#: weaker L2 term or a smaller perturbation classifies better but certifies less.
LAMBDA, SIGMA = 1.0, 0.5


class BudgetExhausted(RuntimeError):
    """A request would leave more behind in a convex head than its certificate allows."""


class PublicFeatures(nn.Module):
    """Features of a frozen network that was trained on public examples only.

    Centred and whitened with the public examples' statistics, then scaled to length 1,
    as the certificate asks. Their mean is about zero, so the head needs no constant
    feature.

    Args:
        trunk: Network without its output layer: inputs -> (B, d).
        public: Inputs of the public examples.
    """

    def __init__(self, trunk: nn.Module, public: Tensor):
        super().__init__()
        self.trunk = trunk
        with torch.no_grad():
            raw = trunk(public).double()
            variance, axes = torch.linalg.eigh(raw.T.cov(correction=0))
            # A tenth of the mean variance keeps directions that hold only noise small.
            scale = (variance.clamp(min=0) + 0.1 * variance.mean()).rsqrt()
        self.register_buffer("mean", raw.mean(0))
        self.register_buffer("whiten", (axes * scale) @ axes.T)

    def forward(self, inputs: Tensor) -> Tensor:
        """Features in float64, shape (B, d), rows of length 1 (or 0)."""
        return nn.functional.normalize(
            (self.trunk(inputs).double() - self.mean) @ self.whiten, dim=1
        )


class ConvexPredictor(nn.Module):
    """Public features and a one-vs-rest linear head, answering like a classifier.

    The answer is log sigmoid of each head's score, whose softmax is the heads'
    probabilities divided by their sum.
    """

    def __init__(self, features: PublicFeatures, weights: Tensor):
        super().__init__()
        self.features, self.head = features, nn.Parameter(weights.detach().clone())

    def forward(self, inputs: Tensor) -> Tensor:
        scores = self.features(inputs) @ self.head.T
        return nn.functional.logsigmoid(scores).float()


@dataclass
class ConvexHead:
    """A perturbed, strongly convex one-vs-rest head at its optimum, with its budget.

    Head k minimises, over the n training examples, with y = 1 for class k and 0 else,
    sum_i logistic(w_k . x_i, y_ik) + lam n / 2 |w_k|^2 + noise_k . w_k.

    Args:
        features: What turns inputs into x.
        weights: The optimum, shape (classes, d), float64.
        noise: The perturbation, drawn from N(0, sigma^2) before training; same shape.
        lam, sigma: L2 strength per example, and the perturbation's standard deviation.
        public_ids: What the features were trained on; this cannot be forgotten.
        spent: Bound on the gradient residual that earlier requests and the solver left.

    Source: Guo et al. (ICML 2020), sections 3.1 to 3.3; one-vs-rest as in their code.
    """

    features: PublicFeatures
    weights: Tensor
    noise: Tensor
    lam: float
    sigma: float
    public_ids: Tensor
    spent: float = 0.0

    def examples(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Features (n, d) and one-vs-rest targets (n, classes) of a batch, float64."""
        with torch.no_grad():
            rows = self.features(batch["inputs"])
        targets = nn.functional.one_hot(batch["labels"], len(self.weights))
        return rows, targets.double()

    def gradient(self, weights: Tensor, rows: Tensor, targets: Tensor) -> Tensor:
        """Loss gradient, with L2 and without noise: (classes, d), a sum over rows."""
        errors = torch.sigmoid(rows @ weights.T) - targets
        return errors.T @ rows + self.lam * len(rows) * weights

    def hessian(self, weights: Tensor, rows: Tensor) -> Tensor:
        """Second derivative of each head's loss, shape (classes, d, d)."""
        p = torch.sigmoid(rows @ weights.T)
        curvature = torch.stack([(rows * c[:, None]).T @ rows for c in (p * (1 - p)).T])
        ridge = self.lam * len(rows)
        return curvature + ridge * torch.eye(rows.shape[1]).to(rows)

    def residual(self, weights: Tensor, rows: Tensor, targets: Tensor) -> float:
        """Length of the objective's gradient: 0 at the optimum for these examples."""
        return float((self.gradient(weights, rows, targets) + self.noise).norm())

    def optimum(self, rows: Tensor, targets: Tensor) -> Tensor:
        """The weights that minimise the objective on these examples: (classes, d).

        Raises:
            RuntimeError: the solver did not get there.
        """
        found = [
            self._zero_gradient(rows, targets[:, k : k + 1], noise)
            for k, noise in enumerate(self.noise)
        ]
        weights = torch.stack(found)
        if (left := self.residual(weights, rows, targets)) > 1e-8:
            raise RuntimeError(f"the convex head did not converge: gradient length {left:.1e}")
        return weights

    def _zero_gradient(self, rows: Tensor, target: Tensor, noise: Tensor) -> Tensor:
        """Where one head's gradient is zero, shape (d,).

        The gradient's zero is looked for, not the smallest loss: near the minimum the
        loss is flat to the last bit long before the gradient is zero.
        """

        def slope(w):
            return self.gradient(w[None], rows, target)[0] + noise

        def bend(w):
            return self.hessian(w[None], rows)[0]

        def on_arrays(function):
            return lambda w: function(torch.as_tensor(w).to(rows)).cpu().numpy()

        start = torch.zeros(len(noise), dtype=torch.float64).numpy()
        solved = root(on_arrays(slope), start, jac=on_arrays(bend), options={"xtol": 1e-14})
        return torch.as_tensor(solved.x).to(rows)

    def predictor(self, weights: Tensor | None = None) -> ConvexPredictor:
        """The head with its features as a classifier, in eval mode."""
        kept = self.weights if weights is None else weights
        return ConvexPredictor(copy.deepcopy(self.features), kept).eval()


def convex_head(
    workload: Workload, seed: object, lam: float = LAMBDA, sigma: float = SIGMA
) -> ConvexHead:
    """The head of one seed, trained on all training data; the workload remembers it.

    Its features come from a network trained only on the examples that no fold asks to
    forget, so the certificate covers the whole model and not the head alone.
    """
    public = workload.core_ids

    def trunk() -> dict[str, Tensor]:
        return workload.train([public], [("public trunk", seed)])[0]

    model = workload.load(workload.remember(f"public trunk {seed}", trunk))
    *path, last = workload.task().head(model).split(".")
    setattr(model.get_submodule(".".join(path)), last, nn.Identity())
    features = frozen(PublicFeatures(model, workload.batch(public)["inputs"]))
    size = (workload.classes, len(features.mean))
    draw = generator("convex head", workload.name, seed)
    noise = sigma * torch.randn(*size, generator=draw, dtype=torch.float64)
    noise = noise.to(workload.device)
    head = ConvexHead(features, torch.zeros_like(noise), noise, lam, sigma, public)
    rows, targets = head.examples(workload.batch(workload.train_ids))
    solve = lambda: {"weights": head.optimum(rows, targets)}
    kept = workload.remember(f"convex head {seed} {lam} {sigma}", solve)
    head.weights = kept["weights"].to(workload.device)
    head.spent = head.residual(head.weights, rows, targets)
    return head
