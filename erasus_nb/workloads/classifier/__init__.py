"""What the two classifier workloads share: the four-fold request, the hooks, the measurements.

Design of the training data (knowledge: memorised items + a concept + a matched holdout):
four disjoint folds, each a *concept* (all training examples of one class, knowledge that
generalises) plus *canaries* (wrongly labelled examples of other classes, held by rote
alone); the rest is the core, classes that nobody asks to forget. Fold 1 is the standard
request. Nothing of the holdout or the test data is ever trained on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ... import metrics
from ...profiles import Recipe, Sizes
from ...strategy import Batch
from ...task import Task, UnitGroup
from ...training import fit_stack, generator
from ...update_log import UpdateLog
from ..base import HIGHER, LOWER, Metric, Request, Workload, metric
from ..gates import CLASSIFIER


@dataclass(frozen=True)
class Fold:
    """Training ids of one fold, and its never-trained counterparts."""

    concept_class: int
    concept: Tensor
    canaries: Tensor
    holdout: Batch
    validation: Batch


class ClassifierTask(Task):
    """The hooks of a classifier: logits, cross-entropy, hidden units, layers."""

    def __init__(self, workload: ClassifierWorkload, seed: object = 0, **rest):
        super().__init__(seed, **rest)
        self._workload = workload
        self.recipe = workload.sizes.recipe

    def outputs(self, model, batch: Batch) -> Tensor:
        self.meter.count(len(batch))
        return model(batch["inputs"])

    def loss(self, model, batch: Batch) -> Tensor:
        return self.loss_from(self.outputs(model, batch), batch)

    def loss_from(self, outputs: Tensor, batch: Batch) -> Tensor:
        return F.cross_entropy(outputs, batch["labels"], reduction="none")

    def divergence(self, student: Tensor, teacher: Tensor, T: float = 1.0) -> Tensor:
        student, teacher = (student / T).log_softmax(-1), (teacher / T).log_softmax(-1)
        return F.kl_div(student, teacher, reduction="none", log_target=True).sum(-1) * T**2

    def uninformed(self, outputs: Tensor) -> Tensor:
        return torch.zeros_like(outputs)

    def _fresh(self, seed: object) -> nn.Module:
        return self._workload.make_model(seed)

    def relabel(self, batch: Batch, generator: torch.Generator) -> Batch:
        labels = batch["labels"]
        shift = torch.randint(1, self._workload.classes, labels.shape, generator=generator)
        return batch.replace(labels=(labels + shift.to(labels.device)) % self._workload.classes)

    def label_distribution(self, model, batch: Batch) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            probabilities = self.outputs(model, batch).softmax(-1)
        return torch.arange(self._workload.classes, device=probabilities.device), probabilities

    def sample_labels(self, model, batch: Batch, generator: torch.Generator) -> Batch:
        _, probabilities = self.label_distribution(model, batch)
        drawn = torch.multinomial(probabilities.cpu(), 1, generator=generator).squeeze(1)
        return batch.replace(labels=drawn.to(probabilities.device))

    def features(self, model, batch: Batch) -> Tensor:
        read: list[Tensor] = []
        head = model.get_submodule(self.head(model))
        hook = head.register_forward_pre_hook(lambda module, inputs: read.append(inputs[0]))
        try:
            self.outputs(model, batch)
        finally:
            hook.remove()
        return read[0]

    def views(self, model) -> dict[str, list[tuple[str, slice]]]:
        if not self._workload.views:
            return super().views(model)
        first = f"{self._layers(model)[0]}.weight"
        return {name: [(first, columns)] for name, columns in self._workload.views.items()}

    def unit_groups(self, model) -> list[UnitGroup]:
        return list(self._workload.unit_groups)

    def blocks(self, model) -> list[list[str]]:
        return [[name] for name in self._layers(model)]

    def head(self, model) -> str:
        return self._layers(model)[-1]

    def linears(self, model) -> list[str]:
        return self._layers(model)[:-1]

    @staticmethod
    def _layers(model) -> list[str]:
        return [n for n, m in model.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d))]


@dataclass
class ClassifierWorkload(Workload):
    """Data, model, request and measurements of a classifier workload.

    Args:
        name: Of its module in this folder.
        sizes: From profiles.py.
        inputs, labels: Training data, indexed by id; the labels include the canaries' wrong
            ones, because those are what base training sees.
        folds: The four folds.
        test: Never-trained, correctly labelled examples, apart from the holdouts.
        classes: Number of classes; chance is 1 / classes.
        model_text, data_text: For readers and board headers.
        unit_groups: The model's prunable hidden layers.
        module: The model's class, made from a seed and nothing else.
        device: Where everything is computed.
        remember: Keeps costly tensors by name; the bench puts its cache here.
        in_prose: Whether the pages' prose speaks of this workload.
        views: Halves of an example that an encoder each could see, as columns of the inputs.
    """

    name: str
    sizes: Sizes
    inputs: Tensor
    labels: Tensor
    folds: tuple[Fold, ...]
    test: Batch
    classes: int
    model_text: str
    data_text: str
    unit_groups: tuple[UnitGroup, ...]
    module: type[nn.Module]
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    remember: Callable[[str, Callable[[], dict[str, Tensor]]], dict[str, Tensor]] = field(
        default=lambda name, make: make()
    )
    in_prose: bool = False
    views: Mapping[str, slice] = field(default_factory=dict)

    kind = "classifier"
    gates = CLASSIFIER
    criteria = {
        "C1": "canary recall",
        "C2": "concept accuracy, unseen",
        "C3": "loss AUC",
        "C4": "retained accuracy, unseen",
    }
    requests = ("standard", "most", "random", "least")
    #: Several times cheaper than one by one. Requests may name any example, so a log of base
    #: training keeps every step (`owners` is None).
    stacked = True

    def __post_init__(self):
        self.inputs, self.labels = self.inputs.to(self.device), self.labels.to(self.device)
        self.test = self.moved(self.test)
        self.folds = tuple(
            replace(f, holdout=self.moved(f.holdout), validation=self.moved(f.validation))
            for f in self.folds
        )

    # ---- data

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the training data."""
        parts = (self.inputs.cpu().numpy(), self.labels.cpu().numpy())
        whole = b"".join(part.tobytes() for part in parts)
        return hashlib.blake2b(whole, digest_size=8).hexdigest()

    @property
    def provides(self) -> frozenset[str]:
        # A matrix reads one column a unit where no image was flattened in between.
        dense = all(group.columns == 1 for group in self.unit_groups)
        words = {"labels", "classes", "outputs", "features", "prunable units"}
        halves = {"two views"} if self.views else set()
        return frozenset(words | halves | ({"dense units"} if dense else set()))

    @property
    def about(self) -> dict:
        return {"chance": 1 / self.classes, "shadows": self.sizes.shadows}

    def batch(self, ids: Tensor) -> Batch:
        """Training examples by id."""
        ids = ids.to(self.device)
        return Batch({"inputs": self.inputs[ids], "labels": self.labels[ids], "ids": ids})

    @property
    def train_ids(self) -> Tensor:
        """Ids of all training examples, shape (n,)."""
        return torch.arange(len(self.labels))

    @property
    def core_ids(self) -> Tensor:
        """Ids that no fold ever asks to forget: what a public feature extractor may see."""
        return self.without(torch.cat([torch.cat([f.concept, f.canaries]) for f in self.folds]))

    @cached_property
    def unseen(self) -> Batch:
        """Every never-trained, correctly labelled example: test data and holdout concepts."""
        concepts = [
            f.holdout.take((f.holdout["labels"] == f.concept_class).nonzero()[:, 0])
            for f in self.folds
        ]
        return Batch.cat([self.test, *concepts])

    def request(self, kind: str = "standard", folds: Sequence[int] = (1,)) -> Request:
        """The request: what to forget, what to keep, and what to compare with.

        Args:
            kind: "standard" asks for whole folds. "most", "random" and "least" ask for as
                many examples as one fold holds, chosen by memorisation score; they have no
                concept, and their holdout is fold 1's, so that their loss AUC is only
                meaningful beside the retrained model's.
            folds: Which folds, counted from 1; only for the standard request.

        Raises:
            ValueError: an unknown kind or fold, or an empty request.
        """
        if kind not in self.requests:
            raise ValueError(f"request must be one of {', '.join(self.requests)}, got {kind!r}")
        if kind != "standard":
            return self._selected(kind)
        folds = self.checked_folds(folds, len(self.folds))
        asked = [self.folds[k - 1] for k in folds]
        ids = torch.cat([torch.cat([f.concept, f.canaries]) for f in asked])
        gone = torch.tensor([f.concept_class for f in asked], device=self.device)
        in_concept = torch.isin(self.unseen["labels"], gone)
        rote = torch.cat(
            [torch.arange(len(f.concept) + len(f.canaries)) >= len(f.concept) for f in asked]
        )
        return Request(
            kind,
            folds,
            self.batch(ids),
            self.batch(self.without(ids)),
            Batch.cat([f.holdout for f in asked]),
            self.unseen.take(in_concept.nonzero()[:, 0]),
            self.unseen.take((~in_concept).nonzero()[:, 0]),
            rote.to(self.device),
            asked[0].concept_class if len(asked) == 1 else None,
            f"all {sum(len(f.concept) for f in asked)} training examples of class "
            f"{', '.join(str(f.concept_class) for f in asked)} and "
            f"{sum(len(f.canaries) for f in asked)} wrongly labelled examples of other classes",
        )

    def _selected(self, kind: str) -> Request:
        size = len(self.folds[0].concept) + len(self.folds[0].canaries)
        if kind == "random":
            order = torch.randperm(len(self.labels), generator=generator(self.name, "request"))
        else:
            order = torch.argsort(self.memorisation, descending=kind == "most", stable=True)
        ids = order[:size].sort().values
        return Request(
            kind,
            (),
            self.batch(ids),
            self.batch(self.without(ids)),
            self.folds[0].holdout,
            self.unseen.take(torch.arange(0)),
            self.unseen,
            torch.ones(size, dtype=torch.bool, device=self.device),
            None,
            f"the {size} training examples that are {kind} memorised"
            if kind != "random"
            else f"{size} training examples drawn at random",
        )

    # ---- models

    def make_model(self, seed: object) -> nn.Module:
        """A freshly initialised model on this workload's device; the same for the same seed."""
        return self.module(("init", self.name, seed)).to(self.device)

    def train(
        self,
        ids: Sequence[Tensor],
        seeds: Sequence[object],
        recipe: Recipe | None = None,
        logs: Sequence[UpdateLog | None] | None = None,
    ):
        """Train one model per (ids, seed) pair, stacked; returns their state dicts.

        Seed s gives the same model whether it is trained alone or beside others. `logs`, one
        per pair or None for a pair, receive every update.
        """
        loss = lambda logits, labels: F.cross_entropy(logits, labels, reduction="none")
        recipe = recipe or self.sizes.recipe
        return fit_stack(self.make_model, loss, self.inputs, self.labels, ids, seeds, recipe, logs)

    def task(self, seed: object = 0, **rest) -> ClassifierTask:
        """The hooks handed to a strategy; see Task for the arguments."""
        return ClassifierTask(self, seed, **rest)

    def validation(self, request: Request) -> Batch | None:
        """Examples set aside for strategies that tune themselves; never used to measure."""
        if not request.folds:
            return None
        return Batch.cat([self.folds[k - 1].validation for k in request.folds])

    # ---- shadow models: memorisation scores and LiRA-lite

    @cached_property
    def memorisation(self) -> Tensor:
        """Memorisation score of every training example, shape (n,), in [-1, 1].

        Accuracy of shadow models that trained on it minus that of those that did not; each
        shadow trains on a random 70 % of the training data.

        Source: Feldman and Zhang (NeurIPS 2020), with shadow models shared by all examples.
        """
        member = _memberships(
            len(self.labels), self.sizes.shadows, generator(self.name, "memorisation"), 0.7
        )

        def make():
            logits = self._shadow_logits(member, self.batch(self.train_ids), "memorisation")
            right = (logits.argmax(-1) == self.labels).cpu()
            return {"score": metrics.memorisation_scores(right, member)}

        return self.remember("memorisation", make)["score"]

    @cached_property
    def _lira(self) -> dict:
        return {}

    def shadow_confidence(self, request: Request) -> tuple[Tensor, Tensor]:
        """Shadow models for LiRA-lite: (K, n) confidences and the (K, n) membership mask.

        The n examples are the forget set followed by the holdout; every shadow trains on the
        retain set plus a random half of those n. They depend on the request, not on a seed
        or a strategy, so they are trained once.
        """
        key = (request.kind, request.folds)
        if key not in self._lira:
            pool = Batch.cat([request.forget, request.holdout])
            member = _memberships(
                len(pool), self.sizes.shadows, generator(self.name, "lira", key), 0.5
            )

            def make():
                logits = self._shadow_logits(member, pool, "lira", request.retain)
                phi = metrics.logit_scaled_confidence(logits, pool["labels"])
                return {"confidence": phi.cpu()}

            made = self.remember(f"lira {key}", make)
            self._lira[key] = made["confidence"], member
        return self._lira[key]

    def _shadow_logits(self, member, pool, what, always: Batch | None = None) -> Tensor:
        """Logits (K, n, classes) on `pool` of models trained on `always` + its members."""
        inputs, labels = pool["inputs"], pool["labels"]
        rows = [mask.nonzero()[:, 0] for mask in member]
        if always is not None:
            inputs = torch.cat([inputs, always["inputs"]])
            labels = torch.cat([labels, always["labels"]])
            kept = torch.arange(len(pool), len(inputs))
            rows = [torch.cat([row, kept]) for row in rows]
        seeds = [(what, k) for k in range(len(member))]
        loss = lambda logits, target: F.cross_entropy(logits, target, reduction="none")
        states = fit_stack(self.make_model, loss, inputs, labels, rows, seeds, self.sizes.recipe)
        with torch.no_grad():
            return torch.stack([self.load(state)(pool["inputs"]) for state in states])

    # ---- measuring

    @torch.no_grad()
    def distributions(self, model: nn.Module, request: Request) -> Tensor:
        """Predicted class probabilities on the forget set, (n_forget, classes)."""
        return model(request.forget["inputs"]).softmax(-1)

    def attack(self, request: Request) -> tuple[Batch, dict[str, Callable[[nn.Module], float]]]:
        """A random quarter of the forget set to relearn, and what to measure of the rest.

        Returns:
            The quarter, and {criterion: model -> share}, higher when more came back.
        """
        forget = request.forget
        order = torch.randperm(len(forget), generator=generator("relearn", self.name))
        quarter, rest = order.split([len(order) // 4, len(order) - len(order) // 4])
        canaries = rest[request.rote.cpu()[rest]].sort().values
        probes = {"recall of the other canaries": forget.take(canaries.to(self.device))}
        if len(request.concept):
            probes["concept accuracy, unseen"] = request.concept
        return forget.take(quarter.to(self.device)), {
            name: partial(_accuracy, batch=batch) for name, batch in probes.items()
        }

    def measure(self, model: nn.Module, request: Request) -> tuple[dict[str, Metric], Tensor]:
        """Everything that is measured on one model, and class probabilities on the forget set.

        Raises:
            ValueError: the model does not answer with one logit per class.
        """
        logits = self._logits(model, request)
        parts = {name: getattr(request, name) for name in logits}
        losses = {
            name: F.cross_entropy(logits[name], part["labels"], reduction="none")
            for name, part in parts.items()
        }
        right = {name: logits[name].argmax(-1) == part["labels"] for name, part in parts.items()}
        loss_auc = metrics.auc(-losses["forget"].cpu(), -losses["holdout"].cpu())
        both = len(request.forget) + len(request.holdout)
        no_concept = "a request selected by memorisation names no concept"
        against = "forget against holdout"
        table = {
            "C1": metric("canary recall", right["forget"][request.rote]),
            "C2": metric("concept accuracy, unseen", right["concept"], absent=no_concept),
            "C3": metric(f"loss AUC, {against}", loss_auc, "AUC", n=both),
            "C4": metric("accuracy on retained classes, unseen", right["utility"], better=HIGHER),
            "lira_auc": metric(
                f"LiRA-lite AUC, {against}", self._lira_auc(logits, request), "AUC", n=both
            ),
            "forget_accuracy": metric("accuracy on the forget set", right["forget"]),
            "retain_accuracy": metric("accuracy on the retain set", right["retain"], better=HIGHER),
            "forget_loss": metric("loss on the forget set", losses["forget"], "nats"),
            "retain_loss": metric("loss on the retain set", losses["retain"], "nats", LOWER),
            "holdout_loss": metric("loss on the holdout", losses["holdout"], "nats"),
        }
        return table, logits["forget"].softmax(-1)

    @torch.no_grad()
    def _logits(self, model: nn.Module, request: Request) -> dict[str, Tensor]:
        """What a model answers in eval mode: part of the request -> logits (n, classes)."""
        names = ("forget", "retain", "holdout", "concept", "utility")
        parts = [getattr(request, name) for name in names]
        training = model.training
        model.eval()
        every = model(torch.cat([part["inputs"] for part in parts]))
        model.train(training)
        if every.shape[1:] != (self.classes,):
            raise ValueError(
                f"it answers with shape {tuple(every.shape[1:])}, not ({self.classes},)"
            )
        return dict(zip(names, every.split([len(part) for part in parts])))

    def _lira_auc(self, logits: dict[str, Tensor], request: Request) -> float:
        """AUC of the likelihood ratio of LiRA-lite, forget set against holdout."""
        confidence, member = self.shadow_confidence(request)
        target = torch.cat([logits["forget"], logits["holdout"]])
        labels = torch.cat([request.forget["labels"], request.holdout["labels"]])
        found = metrics.logit_scaled_confidence(target, labels).cpu()
        ratio = metrics.lira_lite(confidence, member, found)
        n = len(request.forget)
        return metrics.auc(ratio[:n], ratio[n:])


@torch.no_grad()
def _accuracy(model: nn.Module, batch: Batch) -> float:
    return float((model(batch["inputs"]).argmax(-1) == batch["labels"]).double().mean())


def _memberships(n: int, count: int, draw: torch.Generator, share: float) -> Tensor:
    """Membership masks (count, n): each row has round(share n) members, and no example is
    always in or always out (rows come in shuffled complementary blocks)."""
    size = round(share * n)
    step = min(size, n - size)  # so that both members and non-members come round to all
    rows = []
    while len(rows) < count:
        order = torch.randperm(n, generator=draw)
        for turn in range(-(-n // step)):
            mask = torch.zeros(n, dtype=torch.bool)
            mask[torch.roll(order, turn * step)[:size]] = True
            rows.append(mask)
    return torch.stack(rows[:count])


def wrong_labels(true: Tensor, allowed: Sequence[int], draw: torch.Generator) -> Tensor:
    """For each true label, another label from `allowed`, uniformly; shape of `true`."""
    table = [[c for c in allowed if c != int(label)] for label in true]
    picks = torch.rand(len(true), generator=draw)
    return torch.tensor([row[int(p * len(row))] for row, p in zip(table, picks.tolist())])
