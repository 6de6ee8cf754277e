"""The bench of a classifier of one's own: models that may be given, and where settings are from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from . import controls, keys, records
from .benchmark import Bench
from .strategy import Unlearned, strategy
from .training import clone
from .workloads.classifier.own import OwnClassifier

#: Who chose settings that nobody chose, as the bench says it.
UNCHOSEN = "the function's defaults"
#: What a row says where a strategy had to do with less than its page asks for.
REDRAWN = (
    "the weights that the original's training started from are not known, so it started from "
    "newly drawn ones (reset_parameters, or fresh)"
)
UNVALIDATED = "no validation data were given, and with these settings it does not use any"


class Chosen(dict):
    """Settings of one strategy, and who chose them."""

    def __init__(self, values: Mapping[str, Any], by: str):
        super().__init__(values)
        self.by = by


@strategy(category="Control", cite="", reads=("retain", "initial weights"))
def partial_retrain(model, forget, retain, task, *, share=0.25, seed=0) -> Unlearned:
    """The control of this name in training mode, so that running statistics are learnt, too."""
    made = controls.partial_retrain(
        clone(model).train(), forget, retain, task, share=share, seed=seed
    )
    return Unlearned(made.model.train(model.training), made.losses, made.info)


@dataclass(repr=False)
class OwnBench(Bench):
    """The bench of a classifier of one's own.

    Args:
        own: The workload. Original and retrained models may be given with it.
    """

    own: OwnClassifier | None = None
    _chosen: dict[str, Chosen] = field(default_factory=dict)

    def run(self, function: Callable, *, settings: Any = None, keep: bool = True) -> list:
        """As of any bench; settings that `tuned` gave say where they were chosen."""
        if not isinstance(settings, Chosen):
            return super().run(function, settings=settings, keep=keep)
        self._chosen[function.__name__] = settings
        try:
            return super().run(function, keep=keep)
        finally:
            del self._chosen[function.__name__]

    def chosen(self, function: Callable) -> tuple[dict[str, Any], str]:
        found = self._chosen.get(function.__name__)
        return super().chosen(function) if found is None else (dict(found), found.by)

    def attempt(self, function: Callable, full: dict[str, Any], row: records.Row) -> records.Row:
        """As of any bench; the row says which records it began from that are not the original's."""
        self.own.redrawn = False
        row = super().attempt(function, full, row)
        notes = []
        if self.own.redrawn and "original" in self.own.material.states:
            notes.append(REDRAWN)
        reads = "validation" in function.facts.reads and self.own.material.validation is None
        if reads and row.status == "ok":
            notes.append(UNVALIDATED)
        return row.model_copy(update={"departures": [*row.departures, *notes]}) if notes else row

    def _open(self) -> OwnClassifier:
        # Threads stay as they are: how large a user's model is, nobody knows.
        return self.own

    def kinds(self) -> tuple[str, ...]:
        return ("original", "retrained") if self.own.material.compares else ("original",)

    def controls(self) -> list[Callable]:
        found = [c for c in controls.on(self.load.provides) if c.__name__ != "partial_retrain"]
        return [*found, partial_retrain] if self.own.material.trains else found

    def _trained(self, kind: str) -> dict[int, dict[str, Tensor]]:
        if kind not in self.kinds():
            return {}
        given = self.own.material.states.get(kind)
        if given is None:
            return super()._trained(kind)
        return {seed: given[place % len(given)] for place, seed in enumerate(self.seeds)}

    @property
    def retrain_seconds(self) -> float:
        """As of any bench; 0, which stands for unknown, where nothing is trained here."""
        return super().retrain_seconds if self.own.material.trains else 0.0

    @property
    def retrain_passes(self) -> int:
        return super().retrain_passes if self.own.material.trains else 0

    def code_of(self, function: Callable, given: dict[str, Any] | None) -> tuple[str, bool]:
        """Rows of one's own claim no code of the book's."""
        return keys.digest("own", keys.live_code(function), given), False

    def reference_code(self) -> str:
        return keys.digest("own", keys.sources().rows_code(self.load.made_by))
