"""A classifier of one's own: a module, tensors, and the ids of the examples to forget.

What only belongs to the book's own classifiers (folds, canaries, shadow models) is not here.
`erasus_nb.own` is what a reader uses: it checks what is given and builds this.
"""

from __future__ import annotations

import copy
import hashlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import torch
import torch.fx
import torch.nn.functional as F
from torch import Tensor, nn

from ... import metrics
from ...profiles import Recipe
from ...strategy import Batch, NotApplicable
from ...task import UnitGroup
from ...training import generator, global_seed
from ..base import HIGHER, LOWER, Metric, Request, Workload, metric
from . import ClassifierTask

#: Examples that a model answers at a time when it is measured.
ASKED_AT_ONCE = 256
#: Workloads of the book that are classifiers: settings chosen there can be tried on one's own.
CLASSIFIERS = "digits", "synthetic"
#: Steps on which retraining is timed: a model of one's own may take long.
TIMED_STEPS = 20
#: The largest log of updates that is recorded, in bytes.
LARGEST_LOG = 2 * 10**9

#: What must differ between original and retrained models before a position between them means
#: anything. As for published models, which recite less than the book's own.
GATES = [
    {"measure": "C1 gap", "sign": ">=", "bound": 0.2},
    {"measure": "AUC gap", "sign": ">=", "bound": 0.15},
    {"measure": "D gap / its spread over seeds", "sign": ">=", "bound": 5},
    {"measure": "RM retrained", "sign": ">=", "bound": 90},
    {"measure": "RM original", "sign": "<=", "bound": 5},
    {"measure": "RM random_init", "sign": "<=", "bound": 10, "row": "random_init"},
]

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_ACTIVATIONS = (nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid)
#: What may stand between a hidden layer and the next one without mixing its units.
_BETWEEN = (
    *(nn.Dropout, nn.Identity, nn.Flatten),
    *(nn.MaxPool1d, nn.MaxPool2d, nn.AvgPool1d, nn.AvgPool2d),
    *(nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.Dropout2d),
)


@dataclass(frozen=True)
class OwnSizes:
    """How many training seeds there are, and how models are trained here."""

    seeds: int
    recipe: Recipe


@dataclass(frozen=True, repr=False)
class Material:
    """What a workload of one's own is made of, already checked.

    Args:
        name: In results.
        template: A module of the architecture, on the device; never trained or changed.
        fresh: Makes a module with new weights, drawn from torch's global generator; a text says
            why there can be none.
        inputs, labels: All training data; an example's id is its place.
        forget: Ids to forget.
        holdout, test, validation: Never trained on, (inputs, labels); None where not given.
        states: "original", "retrained" -> weights that were given.
        recipe: How models are trained here, and what controls go by.
        trains: Whether anything is trained from the start here.
        classes: Number of classes, as many as the model has logits.
        seeds: Training seeds.
        device: Where everything is computed.
    """

    name: str
    template: nn.Module
    fresh: Callable[[], nn.Module] | str
    inputs: Tensor
    labels: Tensor
    forget: Tensor
    holdout: tuple[Tensor, Tensor] | None
    test: tuple[Tensor, Tensor] | None
    validation: tuple[Tensor, Tensor] | None
    states: Mapping[str, Sequence[dict[str, Tensor]]]
    recipe: Recipe
    trains: bool
    classes: int
    seeds: int
    device: torch.device

    @property
    def compares(self) -> bool:
        """Whether there are retrained models, given or trained here."""
        return self.trains or "retrained" in self.states


# ------------------------------------------------------------------ what a module is made of


@torch.no_grad()
def blocks_of(model: nn.Module, example: Tensor) -> list[list[str]]:
    """Names of a model's modules with weights, in the order in which they run.

    A block begins at every linear layer or convolution; what follows it before the next one
    (normalisation, say) belongs to it. Weights that a module owns beside modules that run inside
    of it (a scale, a token) are in no block: to freeze or reset that module is to do so to all
    that is in it.

    Args:
        example: A few inputs, (n, ...).
    """
    order: list[str] = []
    hooks = []

    def note(name: str) -> Callable:
        return lambda module, inputs, output: order.append(name) if name not in order else None

    for name, module in model.named_modules():
        if any(True for _ in module.parameters(recurse=False)):
            hooks.append(module.register_forward_hook(note(name)))
    try:
        model(example)
    finally:
        for hook in hooks:
            hook.remove()
    inside = lambda one, other: other != one and (not one or other.startswith(f"{one}."))
    order = [name for name in order if not any(inside(name, other) for other in order)]
    blocks: list[list[str]] = []
    for name in order:
        if not blocks or isinstance(model.get_submodule(name), _LAYERS):
            blocks.append([])
        blocks[-1].append(name)
    return blocks


def unit_groups_of(model: nn.Module) -> tuple[UnitGroup, ...]:
    """Hidden layers whose units can be removed one by one, where that can be told.

    That is where a linear layer or convolution is followed by one activation module and then
    by the next such layer, and by nothing else: no sum, no normalisation, no second reader.
    None are found in a model that torch.fx cannot follow.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            nodes = list(torch.fx.symbolic_trace(model).graph.nodes)
    except Exception:  # noqa: BLE001 - whatever a user's forward does under tracing
        return ()
    modules = dict(model.named_modules())
    called = [node.target for node in nodes if node.op == "call_module"]
    groups = []
    for node in nodes:
        if node.op == "call_module" and isinstance(modules[node.target], _LAYERS):
            found = _group_after(node, modules)
            if found is not None and all(
                called.count(name) == 1
                for name in (found.producer, found.consumer, found.activation)
            ):
                groups.append(found)
    return tuple(groups)


def _group_after(node: torch.fx.Node, modules: Mapping[str, nn.Module]) -> UnitGroup | None:
    """The units of one layer, if nothing but an activation stands before their only reader."""
    producer, activation = node.target, None
    while len(node.users) == 1:
        (node,) = node.users
        if node.op != "call_module":
            return None
        module = modules[node.target]
        if isinstance(module, _LAYERS):
            columns = _columns(modules[producer], module)
            if activation is None or columns is None:
                return None
            return UnitGroup(producer, producer, node.target, activation, columns)
        if isinstance(module, _ACTIVATIONS) and activation is None:
            activation = node.target
        elif not isinstance(module, _BETWEEN):
            return None
    return None


def _columns(producer: nn.Module, consumer: nn.Module) -> int | None:
    """How many columns of the consumer read one unit of the producer."""
    units = producer.weight.shape[0]
    if not isinstance(consumer, nn.Linear):
        # Of a grouped convolution, a column is not read by every output.
        return 1 if consumer.groups == 1 and consumer.in_channels == units else None
    return consumer.in_features // units if consumer.in_features % units == 0 else None


# ------------------------------------------------------------------ the workload


class OwnTask(ClassifierTask):
    """The hooks of a classifier whose layers are known from watching it run."""

    def blocks(self, model) -> list[list[str]]:
        if not self._workload.blocks:
            raise NotApplicable("this model has no layers that are modules")
        return [list(block) for block in self._workload.blocks]

    def head(self, model) -> str:
        if self._workload.head is None:
            raise NotApplicable("this model's answer does not come from a linear layer")
        return self._workload.head

    def linears(self, model) -> list[str]:
        names = [n for block in self._workload.blocks for n in block]
        found = [n for n in names if isinstance(model.get_submodule(n), _LAYERS)]
        if len(found) < 2:
            raise NotApplicable("this model has no layer before its output layer")
        return found[:-1]

    def unit_groups(self, model) -> list[UnitGroup]:
        if not self._workload.unit_groups:
            raise NotApplicable("this model has no hidden units that can be removed one by one")
        return list(self._workload.unit_groups)

    def initial_weights(self) -> dict[str, Tensor]:
        self._workload.redrawn = True
        return super().initial_weights()

    def validation(self) -> Batch:
        self._declared("validation")
        if self._validation is None:
            raise NotApplicable("it tunes itself on validation examples, and none were given")
        return self._validation


@dataclass(repr=False)
class OwnClassifier(Workload):
    """A classifier of one's own as a workload; see Material for what it is made of."""

    material: Material
    remember: Callable[[str, Callable[[], dict[str, Tensor]]], dict[str, Tensor]] = field(
        default=lambda name, make: make()
    )

    kind = "classifier"
    gates = GATES
    #: Each kind of model is trained when it is asked for: an original may be given.
    stacked = True
    timed_steps = TIMED_STEPS
    #: Nothing that the book says is about it.
    published = False
    views: Mapping[str, slice] = field(default_factory=dict)
    #: Whether a strategy has asked for initial weights; the bench sets it back before each run.
    redrawn: bool = False

    def __post_init__(self):
        m = self.material
        self.name, self.device = m.name, m.device
        self.sizes, self.classes = OwnSizes(m.seeds, m.recipe), m.classes
        self.inputs, self.labels = m.inputs.to(m.device), m.labels.to(m.device)
        weights = sum(p.numel() for p in m.template.parameters())
        self.model_text = f"{type(m.template).__name__} ({weights:,} parameters)"
        self.data_text = f"{len(m.labels)} examples of one's own, each {_shape(m.inputs)}"
        # A copy: a model may work in place on what it is given.
        self.blocks = blocks_of(self.load(m.template.state_dict()), self.inputs[:2].clone())
        self.unit_groups = unit_groups_of(m.template)
        self.head = self._head()
        self._weights = weights

    def _head(self) -> str | None:
        """The last layer, if it is a linear one with an output for each class."""
        last = self.blocks[-1][0] if self.blocks else None
        module = self.material.template.get_submodule(last) if last is not None else None
        fits = isinstance(module, nn.Linear) and module.out_features == self.classes
        return last if fits else None

    # ---- data

    @property
    def provides(self) -> frozenset[str]:
        words = {"labels", "classes", "outputs"}
        words |= {"features"} if self.head is not None else set()
        words |= {"prunable units"} if self.unit_groups else set()
        names = [name for group in self.unit_groups for name in (group.producer, group.consumer)]
        linear = all(isinstance(self.material.template.get_submodule(n), nn.Linear) for n in names)
        return frozenset(words | ({"dense units"} if names and linear else set()))

    @cached_property
    def fingerprint(self) -> str:
        m, whole = self.material, hashlib.blake2b(digest_size=12)
        for part in (m.holdout, m.test, m.validation):
            whole.update(repr(part is None).encode())
            for tensor in part or ():
                whole.update(_bytes(tensor))
        for tensor in (self.inputs, self.labels, m.forget):
            whole.update(_bytes(tensor))
        for state in ({"template": m.template.state_dict()}, *map(_numbered, m.states.items())):
            for name, values in sorted(state.items()):
                for key, value in sorted(values.items()):
                    whole.update(f"{name} {key}".encode() + _bytes(value))
        whole.update(repr((m.template, m.recipe, m.trains)).encode())
        return whole.hexdigest()

    @property
    def criteria(self) -> dict[str, str]:
        return {
            "C1": "accuracy on the forget set",
            "C2": "accuracy on unseen examples of the forgotten class",
            "C3": "loss AUC",
            "C4": "accuracy on unseen examples",
        }

    @cached_property
    def chance(self) -> float:
        """What always naming the most frequent class gets right of the test data that C4 is
        measured on; of the retain set, where there are none."""
        some = self.asked.utility if len(self.asked.utility) else self.asked.retain
        return float(some["labels"].bincount().max() / len(some))

    @property
    def about(self) -> dict[str, Any]:
        return {"chance": self.chance, "content": self.fingerprint}

    @property
    def made_by(self) -> str:
        return "classifier.own"

    @property
    def train_ids(self) -> Tensor:
        return torch.arange(len(self.labels))

    def batch(self, ids: Tensor) -> Batch:
        ids = ids.to(self.device)
        return Batch({"inputs": self.inputs[ids], "labels": self.labels[ids], "ids": ids})

    def _unseen(self, part: tuple[Tensor, Tensor] | None) -> Batch:
        """Never-trained examples as a batch; an empty one where there are none."""
        inputs, labels = part or (self.inputs[:0], self.labels[:0])
        ids = torch.full((len(labels),), -1)
        return self.moved(Batch({"inputs": inputs, "labels": labels, "ids": ids}))

    @cached_property
    def asked(self) -> Request:
        """The one request that there is."""
        forget, retain = self.material.forget, self.without(self.material.forget)
        kept = self.labels[retain.to(self.device)].unique()
        gone = self.labels.unique()
        gone = gone[~torch.isin(gone, kept)]
        test = self._unseen(self.material.test)
        in_concept = torch.isin(test["labels"], gone)
        whole = f", every one of class {', '.join(map(str, gone.tolist()))}" if len(gone) else ""
        return Request(
            "standard",
            (1,),
            self.batch(forget),
            self.batch(retain),
            self._unseen(self.material.holdout),
            test.take(in_concept.nonzero()[:, 0]),
            test.take((~in_concept).nonzero()[:, 0]),
            torch.ones(len(forget), dtype=torch.bool, device=self.device),
            int(gone[0]) if len(gone) == 1 else None,
            f"{len(forget)} of {len(self.labels)} training examples{whole}",
        )

    def request(self, kind: str = "standard", folds: Sequence[int] = (1,)) -> Request:
        if kind != "standard" or tuple(folds) != (1,):
            raise ValueError("a classifier of one's own has one request: the ids it was given")
        return self.asked

    def validation(self, request: Request) -> Batch | None:
        given = self.material.validation
        return None if given is None else self._unseen(given)

    # ---- models

    def build(self, seed: object) -> nn.Module:
        """A fresh model, drawn from torch's global generator.

        Raises:
            NotApplicable: there can be none, with the reason.
        """
        if isinstance(self.material.fresh, str):
            raise NotApplicable(self.material.fresh)
        return self.material.fresh()

    def load(self, state: Mapping[str, Tensor]) -> nn.Module:
        model = copy.deepcopy(self.material.template)
        model.load_state_dict(state)
        return model.eval()

    def task(self, seed: object = 0, **rest) -> OwnTask:
        return OwnTask(self, seed, **rest)

    @property
    def no_record(self) -> dict[str, str]:
        """Records of base training that there are none of, with the reason."""
        reasons = {
            "convex head": "its frozen features must come from data that nobody may ask to "
            "forget, and which these are is not known of data of one's own"
        }
        given = "the original was trained elsewhere, and "
        steps = self.sizes.recipe.steps(len(self.labels))
        size = 4 * self._weights * steps
        if "original" in self.material.states:
            reasons["update log"] = f"{given}nobody logged the updates of its weights"
            reasons["sisa shards"] = f"{given}not in shards"
        elif size > LARGEST_LOG:
            reasons["update log"] = (
                f"a log of {steps} updates of {self._weights:,} weights would take "
                f"{size / 1e9:.0f} GB"
            )
        if isinstance(self.material.fresh, str):
            reasons["initial weights"] = self.material.fresh
        return reasons

    # ---- measuring

    @torch.no_grad()
    def distributions(self, model: nn.Module, request: Request) -> Tensor:
        return self._logits(model, request.forget).softmax(-1)

    @torch.no_grad()
    def _logits(self, model: nn.Module, examples: Batch) -> Tensor:
        """What a model answers in eval mode, (n, classes); never in half precision.

        Raises:
            ValueError: it does not answer with one logit per class.
        """
        training = model.training
        model.eval()
        parts = [model(part["inputs"]) for part in examples.parts(ASKED_AT_ONCE)]
        model.train(training)
        found = torch.cat(parts) if parts else torch.zeros(0, self.classes, device=self.device)
        if found.shape[1:] != (self.classes,):
            raise ValueError(f"it answers with shape {tuple(found.shape)}, not (n, {self.classes})")
        # Probabilities in half precision do not add up to 1, and numpy knows no bfloat16.
        return found.float() if found.dtype in (torch.half, torch.bfloat16) else found

    def measure(self, model: nn.Module, request: Request) -> tuple[dict[str, Metric], Tensor]:
        names = ("forget", "retain", "holdout", "concept", "utility")
        parts = {name: getattr(request, name) for name in names}
        logits = {name: self._logits(model, part) for name, part in parts.items()}
        losses = {
            name: F.cross_entropy(logits[name], part["labels"], reduction="none")
            for name, part in parts.items()
        }
        right = {name: logits[name].argmax(-1) == part["labels"] for name, part in parts.items()}
        auc, both = None, len(request.forget) + len(request.holdout)
        if len(request.holdout):
            auc = metrics.auc(-losses["forget"].cpu(), -losses["holdout"].cpu())
        no_class = "no whole class is forgotten, or the test data have none of it"
        no_holdout, no_test = "no holdout was given", "no test data were given"
        if self.material.test is not None:
            no_test = "all test data are of a forgotten class"
        nats = dict(unit="nats")
        table = {
            "C1": metric(self.criteria["C1"], right["forget"]),
            "C2": metric(self.criteria["C2"], right["concept"], absent=no_class),
            "C3": metric("loss AUC, forget against holdout", auc, "AUC", n=both, absent=no_holdout),
            "C4": metric(self.criteria["C4"], right["utility"], better=HIGHER, absent=no_test),
            "forget_accuracy": metric("accuracy on the forget set", right["forget"]),
            "retain_accuracy": metric("accuracy on the retain set", right["retain"], better=HIGHER),
            "forget_loss": metric("loss on the forget set", losses["forget"], **nats),
            "retain_loss": metric("loss on the retain set", losses["retain"], better=LOWER, **nats),
            "holdout_loss": metric(
                "loss on the holdout", losses["holdout"], absent=no_holdout, **nats
            ),
        }
        return table, logits["forget"].softmax(-1)

    def attack(self, request: Request) -> tuple[Batch, dict[str, Callable[[nn.Module], float]]]:
        order = torch.randperm(len(request.forget), generator=generator("relearn", self.name))
        quarter, rest = order.split([len(order) // 4, len(order) - len(order) // 4])
        others = request.forget.take(rest.sort().values.to(self.device))
        probe = {"accuracy on the other forgotten examples": partial(self._accuracy, batch=others)}
        return request.forget.take(quarter.to(self.device)), probe

    def _accuracy(self, model: nn.Module, batch: Batch) -> float:
        return float((self._logits(model, batch).argmax(-1) == batch["labels"]).double().mean())


def reinitialised(template: nn.Module) -> nn.Module:
    """A copy of a module with new weights, each layer's own `reset_parameters`."""
    model = copy.deepcopy(template)
    for module in model.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    return model


def not_redrawn(template: nn.Module) -> str | None:
    """Why `reinitialised` gives no model such as training starts from; None if it does.

    Weights that were trained must be gone, and frozen ones, which training never drew, must stay.
    """
    for name, module in template.named_modules():
        own = any(True for _ in module.parameters(recurse=False))
        if own and not hasattr(module, "reset_parameters"):
            return f"{name or type(module).__name__} has weights and no reset_parameters"
    for name, weight in template.named_parameters():
        if not weight.requires_grad:
            return f"{name} is frozen (requires_grad=False)"
    try:
        with global_seed("own"):
            new = dict(reinitialised(template).named_parameters())
    except Exception as error:  # noqa: BLE001 - whatever a user's reset_parameters says
        return f"reset_parameters fails ({worded(error)})"
    for name, weight in template.named_parameters():
        # Ones and zeros, as of a normalisation that was not trained, are drawn as they are.
        if torch.equal(new[name], weight) and len(weight.unique()) > 1:
            return f"reset_parameters leaves {name} as it is"
    return None


def worded(error: Exception) -> str:
    """An error's kind and the first line of what it says: a user's module may say a page."""
    first = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def _shape(inputs: Tensor) -> str:
    return " x ".join(map(str, inputs.shape[1:])) or "one number"


def _numbered(given: tuple[str, Sequence[dict[str, Tensor]]]) -> dict[str, dict[str, Tensor]]:
    kind, states = given
    return {f"{kind} {number}": state for number, state in enumerate(states)}


def _bytes(tensor: Tensor) -> bytes:
    return repr((tensor.dtype, tuple(tensor.shape))).encode() + (
        tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()
        if tensor.dim()
        else repr(tensor.item()).encode()
    )


def make(material: Material) -> OwnClassifier:
    """Build the workload of what was given."""
    return OwnClassifier(material)
