"""What every workload is: data, a model, a loss, measurements and a request.

A workload answers for itself. What depends on its kind (a sentence for a reader, the gates,
which strategies can run, what only it can draw) is asked of the object; nothing outside this
folder asks which workload it is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from .. import metrics
from ..profiles import TUNING_SEEDS, Recipe
from ..strategy import Batch, Split
from ..task import Task
from ..training import fit, global_seed
from ..update_log import UpdateLog

CLOSER, HIGHER, LOWER = "closer to retrained", "higher", "lower"


class Metric(NamedTuple):
    """One measured number; see `metric`."""

    name: str
    value: float | None
    unit: str
    better: str
    n: int
    reason: str | None


def metric(
    name: str,
    values: Tensor | Sequence[float] | float | None,
    unit: str = "fraction",
    better: str = CLOSER,
    n: int | None = None,
    absent: str = "there is nothing to measure it on",
) -> Metric:
    """One line of a workload's table of measurements.

    Args:
        name: In words, for a reader.
        values: One value per example, whose mean is taken, or the value itself. None, or no
            examples: it was not measured.
        better: CLOSER (to the retrained model), HIGHER or LOWER.
        n: Examples behind it; by default as many as there are values.
        absent: Why it has no value, where it has none.
    """
    if isinstance(values, Tensor):
        n = values.numel() if n is None else n
        values = values.double() if values.dtype == torch.bool else values
        values = float(values.mean()) if values.numel() else None
    elif isinstance(values, Sequence):
        n = len(values) if n is None else n
        values = sum(values) / len(values) if values else None
    value = None if values is None else float(values)
    return Metric(name, value, unit, better, n or 0, absent if value is None else None)


@dataclass(frozen=True)
class Request:
    """What is to be forgotten, and what that is compared with.

    Args:
        kind: "standard" (folds), or "most", "random", "least" (by memorisation score).
        folds: The folds it asks for, counted from 1; empty for a selected request.
        forget, retain: The training data in two parts.
        holdout: Never trained on; same distribution as the forget set.
        concept: Never-trained examples of the forgotten class; empty for selected requests.
        utility: Never-trained examples of the retained classes.
        rote: Mask over the forget set: the examples only rote can hold (canaries).
        forgotten_class: The class asked for, where it is a single one.
        sentence: One sentence for a reader.
    """

    kind: str
    folds: tuple[int, ...]
    forget: Batch
    retain: Batch
    holdout: Batch
    concept: Batch
    utility: Batch
    rote: Tensor
    forgotten_class: int | None
    sentence: str


class Workload(ABC):
    """What the bench asks of any workload; a kind of workload is a subclass.

    A subclass adds what is marked "its own" below. Attributes without a value here are set
    by it.

    Attributes:
        name: In results and on boards.
        sizes: From profiles.py.
        device: Where everything is computed.
        model_text, data_text: For readers and board headers.
        kind: The folder here that has what workloads of its kind share, and their pictures.
        criteria: What C1 to C4 are here, in a few words each.
        gates: What the workload has to meet before a board means anything (gates.py).
        sentence: What a page says of a strategy here, for `Page.say`; None where the page's
            own sentence fits, which speaks of classifiers.
        in_prose: Whether the pages speak of it: their claims are checked where this is so.
        tuning_seeds: Training seeds on which settings are chosen; no row reports them.
        requests: The kinds of request that it takes.
        stacked: Whether models of several seeds are trained at once.
        timed_steps: On how many steps retraining is timed; None times it whole.
        attack_steps: Steps of the relearning attack after which is measured.
        no_record: Records of base training that mean nothing here, with the reason.
        fixed: Which model -> its weights, where original and retrained come from elsewhere.
        owners: Training ids of each who may ask, where that is known before training; a log
            of updates then keeps sums and not steps.
        published: Whether models and data are others', so that no claim of the book is about it.
        remember: Keeps costly tensors by name; the bench puts its cache here.
    """

    name: str
    sizes: Any
    device: torch.device
    model_text: str
    data_text: str
    kind: ClassVar[str]
    criteria: Mapping[str, str]
    gates: Sequence[Mapping[str, Any]] = ()
    sentence: str | None = None
    in_prose: bool = False
    tuning_seeds: Sequence[int] = TUNING_SEEDS
    requests: Sequence[str] = ("standard",)
    stacked: bool = False
    timed_steps: int | None = None
    attack_steps: Sequence[int] = (0, 5, 10, 20, 40)
    no_record: Mapping[str, str] = {}
    fixed: Callable[[str], dict[str, Tensor]] | None = None
    owners: Sequence[Tensor] | None = None
    published: bool = False
    remember: Callable[[str, Callable[[], dict[str, Tensor]]], dict[str, Tensor]]

    # ---- its own: data and the request

    @property
    @abstractmethod
    def provides(self) -> Collection[str]:
        """What a strategy can need and is here, of strategy.NEEDS."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Hash of everything that the training data and the measurements are made of."""

    @property
    @abstractmethod
    def train_ids(self) -> Tensor:
        """Ids of all training examples, shape (n,)."""

    @abstractmethod
    def batch(self, ids: Tensor) -> Batch:
        """Training examples by id."""

    @abstractmethod
    def request(self, kind: str = "standard", folds: Sequence[int] = (1,)) -> Request:
        """What to forget, what to keep, and what to compare with.

        Raises:
            ValueError: an unknown kind or fold, or an empty request.
        """

    @abstractmethod
    def validation(self, request: Request) -> Batch | None:
        """Never-trained examples for strategies that tune themselves, if there are any."""

    # ---- models: its own, or these where they are trained one by one

    #: Seed -> a fresh model, where `make_model` is the one below; the bench's global seed is set.
    build: Callable[[object], nn.Module]

    def make_model(self, seed: object) -> nn.Module:
        """A freshly initialised model on this workload's device; the same for the same seed."""
        with global_seed(("init", self.name, seed)):
            return self.build(seed).to(self.device)

    def train(
        self,
        ids: Sequence[Tensor],
        seeds: Sequence[object],
        recipe: Recipe | None = None,
        logs: Sequence[UpdateLog | None] | None = None,
    ) -> list[dict[str, Tensor]]:
        """Train one model per (ids, seed) pair, one after the other; returns their state dicts.

        `logs`, one per pair or None for a pair, receive every update.
        """
        states = []
        for number, (chosen, seed) in enumerate(zip(ids, seeds, strict=True)):
            model = self.start_model(seed).train()
            data = Split("train", self.batch(chosen))
            log = logs[number] if logs else None
            fit(model, self.task(seed), data, recipe or self.sizes.recipe, seed, log=log)
            states.append({k: v.detach().clone() for k, v in model.state_dict().items()})
        return states

    @abstractmethod
    def task(self, seed: object = 0, **rest) -> Task:
        """The hooks handed to a strategy; see Task for the arguments."""

    # ---- its own: measuring

    @abstractmethod
    def measure(self, model: nn.Module, request: Request) -> tuple[dict[str, Metric], Tensor]:
        """Everything that is measured on one model, and `distributions`.

        Raises:
            ValueError: the model does not answer as a model of this workload does.
        """

    @abstractmethod
    def distributions(self, model: nn.Module, request: Request) -> Tensor:
        """What the model answers on the forget set, (k, answers); `divergence` compares two.

        Probabilities, where a workload does not say otherwise.
        """

    def divergence(self, answers: Tensor, others: Tensor) -> Tensor:
        """How far the answers of two models are apart, row by row, (k,): D of the score.

        Jensen-Shannon divergence in nats, where answers are probabilities.

        Args:
            answers, others: Of `distributions`, (k, answers) each.
        """
        return metrics.js_divergence(answers, others)

    @abstractmethod
    def attack(self, request: Request) -> tuple[Batch, dict[str, Callable[[nn.Module], float]]]:
        """A quarter of the forget set to relearn, and what to measure of the rest.

        Returns:
            The quarter, and {criterion: model -> share}, higher when more came back.
        """

    # ---- the same for all

    def start_model(self, seed: object) -> nn.Module:
        """The model that base training starts from."""
        return self.make_model(seed)

    def load(self, state: Mapping[str, Tensor]) -> nn.Module:
        """A model with the given weights, in eval mode."""
        model = self.make_model(0)
        model.load_state_dict(state)
        return model.eval()

    @property
    def made_by(self) -> str:
        """The module of this folder that makes it: rows depend on what its `make` names."""
        return self.name

    @property
    def about(self) -> dict[str, Any]:
        """What its own kind of workload says in a document, besides `facts`."""
        return {}

    @property
    def facts(self) -> dict[str, Any]:
        """What a document says of this workload."""
        return {
            "made_by": self.made_by,
            "model": self.model_text,
            "data": self.data_text,
            "criteria": dict(self.criteria),
            "gates": [dict(gate) for gate in self.gates],
            **self.about,
        }

    @property
    def pictures(self) -> ModuleType:
        """What only this kind of workload can draw: the module `pictures` of its folder.

        By name, because no row depends on how something is drawn.
        """
        return import_module(f"{__package__}.{self.kind}.pictures")

    def adapted(
        self, function: Callable, chosen: dict[str, Any], by: str
    ) -> tuple[dict[str, Any], str]:
        """Settings that differ from a strategy's defaults, as they are used here.

        Args:
            chosen: What tuning chose on the workload of this name.
            by: Who chose them.

        Returns:
            The settings, and who chose them.
        """
        return chosen, by

    def checked_folds(self, folds: Sequence[int], count: int) -> tuple[int, ...]:
        """Folds of a request, each once.

        Raises:
            ValueError: an unknown one, or none.
        """
        folds = tuple(dict.fromkeys(folds))
        if not folds or any(not 1 <= k <= count for k in folds):
            raise ValueError(f"folds are 1 to {count} and at least one, got {folds}")
        return folds

    def without(self, ids: Tensor) -> Tensor:
        """Ids of all training examples but these."""
        keep = torch.ones(len(self.train_ids), dtype=torch.bool)
        keep[ids.cpu()] = False
        return self.train_ids[keep]

    def moved(self, batch: Batch) -> Batch:
        """A batch on this workload's device."""
        return Batch({name: value.to(self.device) for name, value in batch.items()})
