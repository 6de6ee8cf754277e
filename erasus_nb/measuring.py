"""From a workload and a seed to a row: the models, the records of base training, the numbers.

All that decides what a row holds stands here, and nothing else: rows are keyed by this code.
Which rows are made, and where they are written, is the bench's (benchmark.py).
"""

from __future__ import annotations

import hashlib
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from importlib import import_module
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from . import records
from .clock import PeakMemory, now
from .keys import MAKERS
from .strategy import NotApplicable, Split, Unlearned
from .task import Meter, Records
from .training import fit, generator, global_seed, same_weights
from .update_log import UpdateLog

#: How many seeds an attack after unlearning takes; their unlearned models are kept for it.
ATTACKED = 3
#: How many forget examples show whether a run changed what the original answers.
COMPARED = 8


def _module_of(record: str) -> ModuleType:
    """The module that makes a record of base training.

    By name: a row depends on the makers of the records that its strategy declares
    (keys.MAKERS), and not on the others.
    """
    return import_module(MAKERS[record][0])


def strategy_seed(seed: int) -> int:
    """The seed that a strategy is called with: it says nothing about base training's."""
    return generator("strategy seed", seed).initial_seed() % 2**31


class Models:
    """The reference models of one workload and request, and the records of base training.

    Attributes:
        load: The workload.
        asked: The request.
        seeds: Training seeds.
        device: "cpu" or "cuda".
        store: A Cache, which keeps what is costly.
        model_key, record_key: (parts) -> the key of a model, and of a record of base training.
    """

    def prepare(self) -> None:
        """Nothing has been made yet."""
        self._states: dict[str, dict[int, dict[str, Tensor]]] = {}
        self._logs: dict[int, UpdateLog] = {}
        #: Told which piece of work begins; the bench shows it.
        self.step: Callable[[str], None] = lambda piece: None
        self.load.remember = lambda name, make: self.store.one(self.record_key(name), make)

    # ---- the reference models

    def originals(self) -> dict[int, dict[str, Tensor]]:
        """Seed -> weights of the model trained on everything."""
        return self._trained("original")

    def retrained(self) -> dict[int, dict[str, Tensor]]:
        """Seed -> weights of the model trained from the same start without the forget set."""
        return self._trained("retrained")

    def _trained(self, kind: str) -> dict[int, dict[str, Tensor]]:
        if kind in self._states:
            return self._states[kind]
        if self.load.fixed is not None:
            # Nothing is trained, so there is nothing to keep: one copy serves every seed.
            self._states[kind] = dict.fromkeys(self.seeds, self.load.fixed(kind))
            return self._states[kind]
        # Where models are trained one by one, both kinds in one go: whoever needs the one
        # needs the other, and more pieces are shared out more evenly.
        kinds = (kind,) if self.load.stacked else ("original", "retrained")
        kept = self.asked.retain["ids"].cpu()
        ids = {"original": self.load.train_ids, "retrained": kept}
        wanted = [(k, seed) for k in kinds for seed in self.seeds]
        keys = [self.model_key(k, ids[k].tolist(), seed) for k, seed in wanted]

        def train(places: Sequence[int]) -> list[dict[str, Tensor]]:
            which, seeds = zip(*(wanted[place] for place in places))
            self.step(f"{which[0]}, seed {', '.join(map(str, dict.fromkeys(seeds)))}")
            logs = [self._new_log(*wanted[place]) for place in places]
            states = self.load.train([ids[k] for k in which], seeds, logs=logs)
            for seed, log, state in zip(seeds, logs, states):
                if log is not None:
                    self.store.one(self._log_key(seed, state), log.tensors)
            return states

        if self.load.stacked:
            states = self.store.many(keys, train)
        else:
            states = self.store.each(keys, lambda place: train([place])[0])
        for (k, seed), state in zip(wanted, states):
            self._states.setdefault(k, {})[seed] = state
        return self._states[kind]

    @cached_property
    def retrain_seconds(self) -> float:
        """Seconds of retraining one model with the plain loop, in this process, now.

        Median of three at the first seed, so that time ratios compare like with like.
        Where retraining is long, a few of its steps are timed and multiplied.
        """
        recipe, retain = self.load.sizes.recipe, self.asked.retain
        timed, some = recipe, retain
        if self.load.timed_steps is not None:
            timed = replace(recipe, epochs=1)
            some = next(retain.parts(self.load.timed_steps * recipe.batch_size))
        times = []
        for _ in range(3):
            model = self.load.start_model(self.seeds[0]).train()
            start = now(self.device)
            fit(model, self.load.task(), Split("retain", some), timed, 0)
            times.append(now(self.device) - start)
        done, whole = timed.steps(len(some)), recipe.steps(len(retain))
        return statistics.median(times) * whole / done

    @property
    def retrain_passes(self) -> int:
        """Example passes of one retraining: forward and backward of every retain example."""
        return 2 * self.load.sizes.recipe.epochs * len(self.asked.retain)

    # ---- records of base training

    def records(self, seed: int) -> Records:
        """The records of base training of one seed, each made when it is asked for."""

        def refuse(reason: str):
            raise NotApplicable(reason)

        cannot = {what: partial(refuse, reason) for what, reason in self.load.no_record.items()}
        return Records(
            {
                "initial weights": lambda: self.load.start_model(seed).state_dict(),
                "update log": lambda: self.update_log(seed),
                "sisa shards": lambda: self._shards(seed),
                "convex head": lambda: _module_of("convex head").convex_head(self.load, seed),
                **cannot,
            }
        )

    def _shards(self, seed: int):
        # What the request goes back to is base training, and no cost of the strategy.
        shards = _module_of("sisa shards").sisa_shards(self.load, seed)
        return shards.ready_for(self.asked.forget["ids"])

    @property
    def _logs_kept(self) -> bool:
        """Whether originals are kept with their logs: where these are small."""
        return self.load.owners is not None and not self.load.published

    def _new_log(self, kind: str, seed: int) -> UpdateLog | None:
        """What a model is to be trained with: originals are kept with their logs, if at all."""
        return self._empty_log(seed) if kind == "original" and self._logs_kept else None

    def _empty_log(self, seed: int) -> UpdateLog:
        return UpdateLog(self.load.start_model(seed), self.load.owners)

    def _log_key(self, seed: int, final: dict[str, Tensor]) -> str:
        """Of the log that ends at these very weights: another machine's original has another."""
        ends = hashlib.blake2b(digest_size=12)
        for name in sorted(final):
            ends.update(final[name].cpu().numpy().tobytes())
        return self.record_key("update log", seed, ends.hexdigest())

    def update_log(self, seed: int) -> UpdateLog:
        """The log of one seed: kept with its original, or recorded by training it again.

        Those of the next seeds are recorded beside it then, and held.
        """
        maker = _module_of("update log")
        if self._logs_kept:
            final = self.originals()[seed]
            again = lambda: maker.update_logs(self.load, {seed: final})[seed].tensors()
            kept = self.store.one(self._log_key(seed, final), again)
            return self._empty_log(seed).restore(kept)
        if seed not in self._logs:
            self._logs.clear()  # before the next ones are made: they are large
            place = self.seeds.index(seed)
            beside = self.seeds[place : place + maker.logs_at_once(self.load)]
            finals = {s: self.originals()[s] for s in beside}
            self._logs |= maker.update_logs(self.load, finals)
        return self._logs[seed]


class Measuring(Models):
    """Runs a strategy on the original of one seed, and measures what comes out.

    Attributes:
        workload: The name by which marks know the workload; what is published has others.
    """

    def prepare(self) -> None:
        """Nothing has been made or measured yet."""
        super().prepare()
        self._models: dict[str, nn.Module] = {}

    # ---- a strategy

    def unlearn(
        self,
        function: Callable,
        seed: int,
        full: dict[str, Any],
        kept: Records | None = None,
        look: Callable[[nn.Module, int], None] | None = None,
    ) -> tuple[Unlearned, Meter, dict[str, int]]:
        """Run a strategy once on the original of one seed, with the access that it declares.

        Args:
            look: Called with the model and the example passes so far, before every loss of
                a language model that is to be differentiated.

        Returns:
            What it returned, the meter of its example passes, and the examples it read of
            each split.
        """
        reads = function.facts.reads
        meter = Meter()
        task = self.load.task(
            seed,
            reads=reads,
            records=kept or self.records(seed),
            meter=meter,
            forgotten_class=self.asked.forgotten_class,
            validation=self.load.validation(self.asked),
        )
        if look is not None:
            task.look = lambda model: look(model, meter.passes)
        forget = Split("forget", self.asked.forget, reads)
        retain = Split("retain", self.asked.retain, reads)
        state = self.originals()[seed]
        model = self.load.load(state)
        with global_seed("unlearn", seed):  # for models that drop out
            unlearned = function(model, forget, retain, task, seed=strategy_seed(seed), **full)
        if not isinstance(unlearned, Unlearned) or not isinstance(unlearned.model, nn.Module):
            raise TypeError("a strategy returns Unlearned(model, ...)")
        if not self._is(model, state):
            raise RuntimeError("the strategy changed the model it was given")
        return (unlearned, meter, {"forget": forget.examples_read, "retain": retain.examples_read})

    def product_of(self, function: Callable, unlearned: Unlearned) -> nn.Module:
        """What is measured: the weights that came back, in a model of the workload's own class.

        So that nothing else of the returned object counts: no wrapper, no hook, no filter over
        its answers. A strategy whose product is more than weights says so in its mark, and
        then the object itself is measured.

        Raises:
            TypeError: the weights are not those of the workload's model.
        """
        if function.facts.product:
            return unlearned.model
        state = {
            name: value.detach().as_subclass(Tensor).clone()
            for name, value in unlearned.model.state_dict().items()
        }
        try:
            return self.load.load(state)
        except (RuntimeError, KeyError) as error:
            raise TypeError(
                "what came back has other weights than this workload's model; a strategy whose "
                "product is more than weights says so in its mark (product=...)"
            ) from error

    def _answer(self, seed: int) -> Tensor:
        """Losses of a fresh model with the original's weights on some forget examples, now."""
        model, forget = self.load.load(self.originals()[seed]), self.asked.forget
        some = torch.linspace(0, len(forget) - 1, min(COMPARED, len(forget))).long()
        with torch.no_grad():  # and not its outputs, which are gigabytes of a large vocabulary
            losses = self.load.task().example_loss(model, forget.take(some.to(self.device)))
        return losses.float().cpu()

    @cached_property
    def _originals_answers(self) -> dict[int, Tensor]:
        """Seed -> the same as it was before any strategy ran in this process."""
        if self.load.fixed is not None:  # one model for every seed
            return dict.fromkeys(self.seeds, self._answer(self.seeds[0]))
        return {seed: self._answer(seed) for seed in self.seeds}

    def _is(self, model: nn.Module, state: dict[str, Tensor]) -> bool:
        """Whether a model has these very weights; compared where the model is."""
        there = {k: v.to(self.device) for k, v in state.items()}
        return same_weights(model.state_dict(), there)

    # ---- a row

    def blank(self, kind: str, category: str, seed: int, key: str, **rest: Any) -> records.Row:
        """A row before its run: an error, until the run says otherwise."""
        return records.Row(
            status="error",
            reason="did not finish",
            kind=kind,
            category=category,
            seed=seed,
            key=key,
            **rest,
        )

    def blank_of(
        self,
        function: Callable,
        kind: str,
        full: Mapping[str, Any],
        by: str,
        seed: int,
        key: str,
        **rest: Any,
    ) -> records.Row:
        """The same of a strategy or control, with all its settings."""
        facts = function.facts
        return self.blank(
            kind,
            facts.category,
            seed,
            key,
            strategy=facts.name,
            analogue=facts.form_on(self.workload, self.load.provides) == "analogue",
            settings=plain(full),
            settings_chosen_by=by,
            departures=list(facts.departures),
            product=facts.product,
            **rest,
        )

    def attempt(self, function, full, row: records.Row) -> records.Row:
        """The row of a strategy, run now. What goes wrong is a result, with its reason."""
        self.originals()
        kept, retrain_seconds = self.records(row.seed), self.retrain_seconds
        try:
            # Records are made before the clock starts: they belong to base training.
            for what in sorted(function.facts.reads & kept.makers.keys()):
                kept.get(what)
            before = self._originals_answers[row.seed]
            memory, start = PeakMemory(self.device), now(self.device)
            unlearned, meter, read = self.unlearn(function, row.seed, full, kept)
            cost = self._cost(now(self.device) - start, meter.passes, retrain_seconds)
            cost.peak_memory_mb, cost.examples_read = memory.rise_mb(), read
            after = self._answer(row.seed)
            if not torch.allclose(after, before, rtol=1e-4, atol=1e-4, equal_nan=True):
                raise RuntimeError(
                    "after this run the original answers otherwise than before, with the same "
                    "weights: something changed all models of this process (a hook on every "
                    "module, a class); start it again"
                )
            product = self.product_of(function, unlearned)
            info = dict(unlearned.info)
            cost.extra_storage_bytes = int(info.pop("extra_storage_bytes", 0))
            losses = {k: [float(x) for x in v] for k, v in unlearned.losses.items()}
        except NotApplicable as reason:
            return row.model_copy(update={"status": "not_applicable", "reason": str(reason)})
        except Exception as error:  # noqa: BLE001 - a strategy's failure is a result, with its reason
            return row.model_copy(update={"reason": f"{type(error).__name__}: {error}"})
        row = row.model_copy(update={"losses": losses, "info": plain(info)})
        bad = [k for k, v in row.losses.items() if not all(map(math.isfinite, v))]
        if bad:
            return row.model_copy(
                update={
                    "status": "diverged",
                    "reason": f"the {bad[0]} loss is not finite",
                    "losses": {},
                }
            )
        if not self.load.published and row.seed in self.seeds[:ATTACKED]:
            self._models[row.key] = product  # small: an attack needs it again
        return self.measured(row, product, self.originals()[row.seed], cost)

    def measured(self, row, model, original, cost) -> records.Row:
        """Fill a row with what is measured on its model."""
        try:
            measured, answers = self.load.measure(model, self.asked)
        except NotApplicable as reason:
            return row.model_copy(update={"status": "not_applicable", "reason": str(reason)})
        except Exception as error:  # noqa: BLE001 - a broken model is a result, with its reason
            return row.model_copy(
                update={"status": "error", "reason": f"its model cannot be measured: {error}"}
            )
        values = [m.value for m in measured.values() if m.value is not None]
        if not (answers.isfinite().all() and all(map(math.isfinite, values))):
            return row.model_copy(
                update={"status": "diverged", "reason": "its model answers with NaN or infinity"}
            )
        return row.model_copy(
            update={
                "status": "ok",
                "reason": None,
                "metrics": {k: records.Metric(**m._asdict()) for k, m in measured.items()},
                "divergence_to_retrained": self._divergences(answers.cpu()),
                "weights_changed": original is None or not self._is(model, original),
                "cost": cost,
            }
        )

    def _cost(self, seconds: float, passes: float, retrain: float | None = None) -> records.Cost:
        return records.Cost(
            seconds=seconds,
            example_passes=passes,
            retrain_seconds=retrain or self.retrain_seconds,
            retrain_example_passes=self.retrain_passes,
        )

    @cached_property
    def _retrained_answers(self) -> dict[int, Tensor]:
        """Seed -> what the retrained model answers; one that diverged answers nothing."""
        answers = {
            seed: self.load.distributions(self.load.load(state), self.asked).cpu()
            for seed, state in self.retrained().items()
        }
        return {seed: each for seed, each in answers.items() if each.isfinite().all()}

    def _divergences(self, answers: Tensor) -> dict[str, float]:
        """Seed of each retrained model -> mean divergence from its answers."""
        if not self._retrained_answers:
            return {}
        seeds, others = zip(*self._retrained_answers.items())
        apart = self.load.divergence(answers.repeat(len(others), 1), torch.cat(others))
        means = apart.view(len(others), -1).mean(1)
        return {str(seed): float(mean) for seed, mean in zip(seeds, means)}


def plain(values: dict[str, Any]) -> dict[str, Any]:
    """Values as JSON has them; a number that is not finite becomes its name."""

    def one(value):
        if isinstance(value, Tensor):
            value = value.tolist()
        if isinstance(value, dict):
            return {str(k): one(v) for k, v in value.items()}
        if isinstance(value, (list, tuple)):
            return [one(v) for v in value]
        if isinstance(value, float) and not math.isfinite(value):
            return str(value)
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        return getattr(value, "__name__", repr(value))

    return {k: one(v) for k, v in values.items()}
