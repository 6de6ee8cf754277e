"""What a strategy is: the mark, what it returns, and the contract on what it may read.

A strategy is a plain function. The mark attaches facts and wraps nothing, so the function a
reader sees in the notebook is the function that runs.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

#: Everything a strategy can declare to read. "forget" and "retain" mean inputs and labels.
#: Prompts are the part of the inputs that says what an image is to show: who edits words
#: declares them alone.
READABLE = (
    "forget inputs",
    "forget prompts",
    "forget labels",
    "forget ids",
    "retain inputs",
    "retain prompts",
    "retain labels",
    "forgotten class",
    "validation",
    "new model",
    "initial weights",
    "update log",
    "sisa shards",
    "convex head",
)
_SHORT = {
    "forget": ("forget inputs", "forget labels", "forget ids"),
    "retain": ("retain inputs", "retain labels"),
}


class NotApplicable(Exception):
    """A strategy cannot mean anything on this workload; the message is the printed reason."""


class DataAccessError(Exception):
    """A strategy reached for data or a record that its mark does not declare."""


class MissingRecord(Exception):
    """A strategy needs a record of base training that was not made."""


#: What a strategy can need of a workload, and what each word means.
NEEDS = {
    "labels": "an answer to each example that a wrong one can replace",
    "classes": "labels that are finitely many classes",
    "outputs": "answers of two models to one example that can be compared",
    "prunable units": "hidden units that can be removed one by one",
    "dense units": "hidden units, each read by one column of one matrix",
    "tokens": "examples that are sequences of tokens",
    "decoder": "a transformer decoder, layer by layer",
    "facts": "facts with a subject and an object, marked in the data",
    "features": "a vector for each example, or for each half of one, to compare with others",
    "pairs": "examples that are pairs of two modalities",
    "attention": "attention layers whose logits can be made flatter",
    "two views": "examples that two encoders could see, one half each",
    "denoiser": "a network that takes noise out of an image, step by step",
}


@dataclass(frozen=True)
class Facts:
    """What the mark attaches to a strategy.

    Args:
        name: The seed board's name, also the function's name.
        category: One of the seed board's seven categories.
        cite: Key in references.bib of the paper that the function implements.
        reads: The declared members of READABLE, "forget" and "retain" already expanded.
        needs: What a workload must provide for the paper's own method, of NEEDS.
        analogue: What it must provide for the marked analogue; None where there is none.
        on: Names of workloads to keep to; empty is every one that provides what is needed.
        budget: Settings tried on the tuning seeds, at most eight, besides the defaults.
        departures: How the function differs from the paper, a sentence each.
        product: What it returns, where that is more than the weights of the workload's model.
        declared: `reads` as written.
    """

    name: str
    category: str
    cite: str
    reads: frozenset[str]
    needs: tuple[str, ...] = ()
    analogue: tuple[str, ...] | None = None
    on: tuple[str, ...] = ()
    budget: tuple[Mapping[str, Any], ...] = ()
    departures: tuple[str, ...] = ()
    product: str = ""
    declared: tuple[str, ...] = ()

    def form_on(self, workload: str, provides: Collection[str]) -> str | None:
        """How it runs on a workload: "native", "analogue", or None where it does not.

        Args:
            workload: Its name.
            provides: What it provides, of NEEDS.
        """
        if self.on and workload not in self.on:
            return None
        if set(self.needs) <= set(provides):
            return "native"
        if self.analogue is not None and set(self.analogue) <= set(provides):
            return "analogue"
        return None


#: How many settings a strategy may try on the tuning seeds; the same for everybody.
BUDGET = 8


def strategy(
    *,
    category: str,
    cite: str,
    reads: Iterable[str],
    needs: Iterable[str] = (),
    analogue: Iterable[str] | None = None,
    on: Iterable[str] = (),
    budget: Iterable[Mapping[str, Any]] = (),
    departures: Iterable[str] = (),
    product: str = "",
) -> Callable[[Callable], Callable]:
    """Mark a function as a strategy by attaching its Facts as `.facts`; nothing is wrapped.

    Raises:
        ValueError: an unknown name in `reads`, `needs` or `analogue`, a tuning budget of more
            than eight settings, or a setting that the function does not take.
    """
    declared, needs = tuple(reads), tuple(needs)
    analogue = None if analogue is None else tuple(analogue)
    for need in (*needs, *(analogue or ())):
        if need not in NEEDS:
            raise ValueError(
                f"{need!r} is not something a strategy can need; allowed: {', '.join(NEEDS)}"
            )
    wanted: set[str] = set()
    for item in declared:
        parts = _SHORT.get(item, (item,))
        unknown = [part for part in parts if part not in READABLE]
        if unknown:
            raise ValueError(
                f"{unknown[0]!r} is not something a strategy can read; "
                f"allowed: {', '.join((*_SHORT, *READABLE))}"
            )
        wanted.update(parts)
    trials = tuple(dict(trial) for trial in budget)
    if len(trials) > BUDGET:
        raise ValueError(f"{len(trials)} settings to try; the budget is {BUDGET}")

    def mark(function: Callable) -> Callable:
        known = settings_of(function)
        for trial in trials:
            strange = sorted(set(trial) - set(known))
            if strange:
                raise ValueError(
                    f"{function.__name__} has no setting {strange[0]!r}; it has {', '.join(known)}"
                )
        function.facts = Facts(
            name=function.__name__,
            category=category,
            cite=cite,
            reads=frozenset(wanted),
            needs=needs,
            analogue=analogue,
            on=tuple(on),
            budget=trials,
            departures=tuple(departures),
            product=product,
            declared=declared,
        )
        return function

    return mark


def settings_of(function: Callable) -> dict[str, Any]:
    """A strategy's settings with their defaults: its keyword-only arguments but `seed`."""
    return {
        name: parameter.default
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY and name != "seed"
    }


@dataclass
class Unlearned:
    """What a strategy returns.

    Args:
        model: The unlearned model, a new module; the input model is left as it was.
        losses: Named loss curves, one number per epoch (or step, if it has no epochs).
        info: Small facts worth a row: fraction reverted, weights selected, budget spent.
            `extra_storage_bytes`, where present, is what had to be kept before the request.
    """

    model: torch.nn.Module
    losses: dict[str, list[float]] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)


class Batch(Mapping):
    """Examples side by side: named tensors that share their first dimension.

    A classifier's batch has `inputs` and `labels`; every batch has `ids`, the examples'
    places in the training data. A strategy hands batches to the task's hooks and need not
    know the names. A field that the strategy did not declare raises DataAccessError.
    """

    def __init__(self, fields: Mapping[str, Tensor], hidden: Mapping[str, str] | None = None):
        self._fields = dict(fields)
        self._hidden = dict(hidden or {})

    def __getitem__(self, name: str) -> Tensor:
        if name in self._hidden:
            raise DataAccessError(
                f"this strategy reads {self._hidden[name]} but does not declare it"
            )
        return self._fields[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        """Number of examples (not of fields)."""
        return len(self._fields["ids"])

    def take(self, index: Tensor) -> Batch:
        """The examples at `index`, shape (k,), in that order."""
        return Batch({k: v[index] for k, v in self._fields.items()}, self._hidden)

    def parts(self, size: int) -> Iterator[Batch]:
        """At most `size` examples at a time, in order: what memory holds at once."""
        places = torch.arange(len(self), device=self._fields["ids"].device)
        for place in places.split(size):
            yield self.take(place)

    def replace(self, **fields: Tensor) -> Batch:
        """The same examples with some fields replaced (a replaced field is readable)."""
        hidden = {k: v for k, v in self._hidden.items() if k not in fields}
        return Batch({**self._fields, **fields}, hidden)

    def hide(self, hidden: Mapping[str, str]) -> Batch:
        """The same examples; reading a field named in `hidden` raises with its description."""
        return Batch(self._fields, {**self._hidden, **hidden})

    def visible(self) -> dict[str, Tensor]:
        """The readable fields as a dictionary (what torch.func maps over)."""
        return {k: v for k, v in self._fields.items() if k not in self._hidden}

    @staticmethod
    def cat(batches: Iterable[Batch]) -> Batch:
        """Batches one after the other. A field hidden in any of them stays hidden."""
        batches = list(batches)
        hidden: dict[str, str] = {}
        for batch in batches:
            hidden.update(batch._hidden)
        names = batches[0]._fields
        return Batch({k: torch.cat([b._fields[k] for b in batches]) for k in names}, hidden)


class _Tally:
    """A number that only grows, and that all copies of its holder share."""

    def __init__(self):
        self.total = 0

    def __deepcopy__(self, memo: dict) -> _Tally:
        return self


class Split:
    """A forget or retain set as a strategy sees it: batches, and only what is declared.

    Args:
        name: "forget" or "retain"; used in messages.
        batch: All its examples.
        reads: What the strategy declared (Facts.reads). None allows everything.

    """

    def __init__(self, name: str, batch: Batch, reads: frozenset[str] | None = None):
        self.name, self._reads, self._handed_out = name, reads, _Tally()
        hidden = {}
        for part in set(batch) - {"ids"}:
            kind = part if part in ("labels", "prompts") else "inputs"
            wanted = {kind, "inputs"} if kind == "prompts" else {kind}
            if not any(self._may(f"{name} {what}") for what in wanted):
                hidden[part] = f"the {name} {kind}"
        self._batch = batch.hide(hidden)

    @property
    def examples_read(self) -> int:
        """Examples handed out so far."""
        return self._handed_out.total

    def _may(self, what: str) -> bool:
        return self._reads is None or what in self._reads

    def __len__(self) -> int:
        return len(self._batch)

    @property
    def ids(self) -> Tensor:
        """The examples' places in the training data, shape (n,): which, not what."""
        if not (self._may(f"{self.name} ids") or self._may(f"{self.name} inputs")):
            raise DataAccessError(f"this strategy does not declare the {self.name} ids")
        return self._batch["ids"]

    def all(self) -> Batch:
        """Every example in one batch, in the order of the training data."""
        return self.take(torch.arange(len(self)))

    def take(self, index: Tensor) -> Batch:
        """The examples at positions `index`, shape (k,)."""
        if not any(self._may(f"{self.name} {what}") for what in ("inputs", "prompts", "labels")):
            raise DataAccessError(f"this strategy does not declare the {self.name} examples")
        self._handed_out.total += len(index)
        return self._batch.take(index.to(self._batch["ids"].device))

    def batches(self, size: int, generator: torch.Generator | None = None) -> Iterator[Batch]:
        """One pass over the split; the last batch may be smaller, none is dropped.

        Args:
            size: Examples per batch, >= 1.
            generator: CPU generator for a shuffled pass; None keeps the stored order.
        """
        if size < 1:
            raise ValueError(f"a batch holds at least one example, got {size}")
        n = len(self)
        order = torch.arange(n) if generator is None else torch.randperm(n, generator=generator)
        for start in range(0, n, size):
            yield self.take(order[start : start + size])
