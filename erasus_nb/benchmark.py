"""Original -> strategy -> measurements -> row; with a cache, resuming, and errors as rows."""

from __future__ import annotations

import ctypes
import hashlib
import inspect
import json
import math
import os
import platform
import statistics
import subprocess
import time
import types
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from . import ROOT, controls, metrics, profiles, provenance, records, workloads
from .strategy import Batch, NotApplicable, Split, Unlearned, settings_of
from .training import clone, fit, generator, global_seed, optimizer, same_weights
from .workloads.base import Meter, Records

#: Training seeds reserved for choosing settings; a reported row never uses one.
TUNING_SEEDS = (1000, 1001, 1002, 1003)

#: How many seeds an attack after unlearning takes; their unlearned models are kept for it.
ATTACKED = 3

#: Strategies whose step size is that of something else than the model's weights.
_STEPS_OF_THEIR_OWN = ("mask_based",)

#: Code that models, records of base training and rows depend on.
_MODEL_CODE = ("metrics.py", "strategy.py", "training.py")
_RECORD_CODE = ("provenance.py", *_MODEL_CODE)
_ROW_CODE = ("benchmark.py", *_RECORD_CODE)


def digest(*parts: Any) -> str:
    """A short, stable hash of values that JSON can write (others by their repr)."""
    text = json.dumps(parts, sort_keys=True, default=repr)
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


@cache
def code_version(names: tuple[str, ...], workload: str) -> str:
    """Hash of these modules of the package and of those that one workload is made of."""
    package = ROOT / "erasus_nb"
    made_of = ("base.py", *workloads.MADE_OF[workload])
    files = [package / name for name in names]
    files += [package / "workloads" / name for name in made_of]
    return digest([(f.name, f.read_text("utf-8")) for f in files])


def source_of(function: Callable) -> str:
    """Source of a function and of everything of its own module that it uses.

    So that editing one strategy, or a helper of it, reruns that strategy and no other. The
    same text in a notebook's kernel and in the module exported from its cells.
    """
    seen: dict[tuple[str, str], str] = {}

    def visit(item) -> None:
        name = (item.__module__, item.__qualname__)
        if name in seen:
            return
        methods = [item]
        if isinstance(item, type):
            # A class of a kernel has no source file; its methods have.
            methods = _methods(item)
            seen[name] = repr(_outline(item))
        else:
            seen[name] = inspect.getsource(item)
        for method in methods:
            if method is not item:
                seen[(item.__module__, method.__qualname__)] = inspect.getsource(method)
            for used in sorted(_names(method.__code__)):
                found = method.__globals__.get(used)
                if isinstance(found, (type, types.FunctionType)) and (
                    found.__module__ == item.__module__
                ):
                    visit(found)

    visit(function)
    return "\n".join(seen.values())


def _methods(kind: type) -> list[types.FunctionType]:
    """The methods written in a class, not those that a decorator generates."""
    found = []
    for member in vars(kind).values():
        if isinstance(member, property):
            member = member.fget
        member = getattr(member, "__func__", member)
        if isinstance(member, types.FunctionType) and member.__code__.co_filename != "<string>":
            found.append(member)
    return found


def _outline(kind: type) -> tuple:
    """Name, bases, fields and plain values of a class: what its methods do not say."""
    fields = {k: getattr(v, "__name__", str(v)) for k, v in inspect.get_annotations(kind).items()}
    plain = {k: v for k, v in vars(kind).items() if isinstance(v, (str, int, float, bool, tuple))}
    hidden = {"__module__", "__doc__", "__qualname__", "__firstlineno__"}
    bases = [base.__name__ for base in kind.__bases__]
    values = {k: v for k, v in plain.items() if k not in hidden}
    return kind.__name__, bases, fields, values


def _names(code: types.CodeType) -> set[str]:
    nested = (c for c in code.co_consts if isinstance(c, types.CodeType))
    return set(code.co_names).union(*(_names(c) for c in nested))


# ------------------------------------------------------------------ cache


def shared(items: Iterable[Any], lock: Callable[[Any], FileLock]) -> Iterator[Any]:
    """Every item, each while its lock is held; those that another process holds come last.

    So that processes that want the same things done share them out. An item may have been
    done by another process by the time it comes: the caller looks.
    """
    taken = []
    for item in items:
        held = lock(item)
        try:
            held.acquire(blocking=False)
        except Timeout:
            taken.append(item)
            continue
        try:
            yield item
        finally:
            held.release()
    for item in taken:
        with lock(item):
            yield item


class Cache:
    """Tensors by key: in memory, and as safetensors files where the folder can be written.

    The cache only saves time. A file that cannot be read, or that holds another key, is
    named in a warning and made anew; a folder that cannot be written is named once and the
    run goes on without it. Processes wait for each other instead of doing work twice.
    """

    def __init__(self, folder: Path | None):
        self.folder, self._memory = folder, {}
        if folder is not None:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                (probe := folder / f".probe-{os.getpid()}").touch()
                probe.unlink()
            except OSError as error:
                warnings.warn(
                    f"cache {folder} cannot be written ({error.strerror}); "
                    "everything is computed in this run",
                    stacklevel=2,
                )
                self.folder = None

    def one(self, key: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """The tensors of one key, made if they are not there."""
        return self.many([key], lambda missing: [make()])[0]

    def each(
        self, keys: Sequence[str], make: Callable[[int], dict[str, Tensor]]
    ) -> list[dict[str, Tensor]]:
        """The tensors of several keys, made one by one and shared out between processes.

        Args:
            make: Position of a missing key -> its tensors.
        """
        places = range(len(keys))
        if self.folder is not None:
            places = shared(places, lambda place: self._lock([keys[place]]))
        for place in places:
            self._fetch([keys[place]], lambda _, place=place: [make(place)])
        return [self._memory[key] for key in keys]

    def many(
        self, keys: Sequence[str], make: Callable[[list[int]], list[dict[str, Tensor]]]
    ) -> list[dict[str, Tensor]]:
        """The tensors of several keys; `make` gets the positions of the missing ones."""
        if any(key not in self._memory for key in keys):
            with nullcontext() if self.folder is None else self._lock(keys):
                self._fetch(keys, make)
        return [self._memory[key] for key in keys]

    def _lock(self, keys: Sequence[str]) -> FileLock:
        return FileLock(self.folder / f"{digest(list(keys))}.lock")

    def _fetch(self, keys, make) -> None:
        """Read what is on disk, make and write the rest; whoever calls holds the lock."""
        for key in keys:
            if self.folder is not None and key not in self._memory:
                if (found := self._read(key)) is not None:
                    self._memory[key] = found
        missing = [i for i, key in enumerate(keys) if key not in self._memory]
        if missing:
            for i, made in zip(missing, make(missing), strict=True):
                self._memory[keys[i]] = made
                if self.folder is not None:
                    self._write(keys[i], made)

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.safetensors"

    def _read(self, key: str) -> dict[str, Tensor] | None:
        path = self._path(key)
        if not path.is_file():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                if (file.metadata() or {}).get("key") != key:
                    raise ValueError("it holds another key")
                return {name: file.get_tensor(name) for name in file.keys()}
        except (SafetensorError, OSError, ValueError) as error:
            warnings.warn(
                f"cache file {path} is not usable ({error}); making it anew", stacklevel=2
            )
            return None

    def _write(self, key: str, tensors: dict[str, Tensor]) -> None:
        part = self._path(key).with_suffix(f".{os.getpid()}.part")
        save_file({k: v.contiguous().cpu() for k, v in tensors.items()}, part, {"key": key})
        os.replace(part, self._path(key))


def default_cache() -> Path:
    """Where originals and retrained models are kept: $ERASUS_CACHE or `_runs/cache`."""
    return Path(os.environ.get("ERASUS_CACHE") or ROOT / "_runs" / "cache")


# ------------------------------------------------------------------ the bench


@dataclass
class Bench:
    """One workload and request at some training seeds: the references and the rows.

    Args:
        workload: Name of the workload.
        profile: Name of the sizes.
        seeds: Training seeds; None means as many as the profile says, from 0.
        request: "standard", "most", "random" or "least".
        folds: Which folds the standard request asks for.
        device: "cpu" or "cuda".
        cache: Folder of the cache; "" keeps it in memory.
        out: Results folder; "" is the project's results/. None writes nothing.
        resume: Keep finished rows whose key matches.
        parameters: What the notebook was run with; goes into the documents.
        published: Models and data of others, for `text`.
    """

    workload: str
    profile: str = "laptop"
    seeds: Sequence[int] | None = None
    request: str = "standard"
    folds: tuple[int, ...] = (1,)
    device: str = "cpu"
    cache: Path | str | None = None
    out: str | Path | None = ""
    resume: bool = True
    parameters: dict[str, Any] = field(default_factory=dict)
    published: workloads.Published | None = None

    def __post_init__(self):
        if self.device == "cpu":
            # A second thread waits more than it works at these sizes; processes run side by side.
            torch.set_num_threads(1)
        self.load = workloads.load(self.workload, self.profile, self.device, self.published)
        if self.seeds is None:
            self.seeds = range(self.load.sizes.seeds)
        self.seeds = tuple(self.seeds)
        if not self.seeds:
            raise ValueError("at least one training seed is needed")
        folder = default_cache() if self.cache is None else self.cache
        self.store = Cache(Path(folder) if folder else None)
        self.load.remember = self._remember
        self.asked = self.load.request(self.request, self.folds)
        self._documents: dict[str, _Writer] = {}
        self._states: dict[str, dict[int, dict[str, Tensor]]] = {}
        self._logs: dict[int, provenance.UpdateLog] = {}
        self._models: dict[str, nn.Module] = {}

    # ---- names and keys

    @property
    def name(self) -> str:
        """The workload's name in results: with the request, where it is not the standard one."""
        name = self.load.name
        return name if self.request == "standard" else f"{name}-{self.request}"

    def _key(self, *parts: Any, code: tuple[str, ...] = _MODEL_CODE) -> str:
        spec = (self.workload, asdict(self.load.sizes), self.load.fingerprint, self.device)
        return digest(*parts, spec, code_version(code, self.workload), torch.__version__)

    def _remember(self, name: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        return self.store.one(self._key(name, code=_RECORD_CODE), make)

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
        keys = [self._key(k, ids[k].tolist(), seed) for k, seed in wanted]

        def train(places: Sequence[int]) -> list[dict[str, Tensor]]:
            which, seeds = zip(*(wanted[place] for place in places))
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

    def _now(self) -> float:
        """Seconds on the clock that costs are read from.

        On a CPU, where one thread does all the work, processor time: a neighbour that takes
        the core for a while does not make a strategy slower. On an accelerator, wall time.
        """
        if self.device == "cpu":
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()

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
            start = self._now()
            fit(model, self.load.task(), Split("retain", some), timed, 0)
            times.append(self._now() - start)
        done, whole = timed.steps(len(some)), recipe.steps(len(retain))
        return statistics.median(times) * whole / done

    @property
    def retrain_passes(self) -> int:
        """Example passes of one retraining: forward and backward of every retain example."""
        return 2 * self.load.sizes.recipe.epochs * len(self.asked.retain)

    @cached_property
    def _retrained_probabilities(self) -> dict[int, Tensor]:
        return {
            seed: self.load.distributions(self.load.load(state), self.asked).cpu()
            for seed, state in self.retrained().items()
        }

    def _divergences(self, probabilities: Tensor) -> dict[str, float]:
        """Seed of each retrained model -> mean divergence from its predictions, nats."""
        seeds, others = zip(*self._retrained_probabilities.items())
        apart = metrics.js_divergence(probabilities.repeat(len(others), 1), torch.cat(others))
        means = apart.view(len(others), -1).mean(1)
        return {str(seed): float(mean) for seed, mean in zip(seeds, means)}

    def references(self) -> records.Document:
        """Measure the original, the retrained models and the controls; checks the gates.

        Processes that write the same document share the rows out: where a row takes
        seconds, one by one, so that none waits long for another's last.
        """
        writer = self._writer("reference")
        functions = {c.__name__: c for c in controls.on(self.workload)}
        pieces = [self.seeds] if self.load.stacked else [(s,) for s in self.seeds]
        names = ("original", "retrained", *functions)
        items = [(name, seeds) for name in names for seeds in pieces]
        if writer.path is not None:
            items = shared(items, writer.turn)
        for name, seeds in items:
            writer.look()
            if name not in functions:
                for seed in seeds:
                    self._reference(writer, name, seed)
                continue
            how = self.full_settings(functions[name])
            self._rows(writer, functions[name], "control", *how, seeds)
        writer.look()
        writer.document.gates = self._gates(writer.document)
        writer.flush()
        return writer.document

    def _reference(self, writer: _Writer, kind: str, seed: int) -> None:
        """Measure the original or the retrained model of one seed."""
        asked = (kind, seed, self.request, self.folds)
        key = self._key("row", *asked, code=_ROW_CODE)
        if writer.has(kind, seed, key, self.seeds):
            return
        row = _unfinished(strategy=kind, kind=kind, category="Reference", seed=seed, key=key)
        seconds = self.retrain_seconds if kind == "retrained" else 0.0
        passes = self.retrain_passes if kind == "retrained" else 0
        state, cost = self._trained(kind)[seed], self._cost(seconds, passes)
        before = state if kind == "original" else None
        writer.add(self._measured(row, self.load.load(state), before, cost))

    def _gates(self, document: records.Document) -> list[records.Gate]:
        from . import score

        return score.gates(document)

    # ---- strategies

    def run(
        self, function: Callable, *, settings: dict[str, Any] | None = None, keep: bool = True
    ) -> list[records.Row]:
        """Run one marked strategy at every seed and return its rows, finished ones included.

        Args:
            settings: Overrides; by default the tuned settings of this workload if there are
                any, else the function's own defaults.
            keep: Write the rows to the category's document. False only measures.

        Raises:
            ValueError: the function is not marked, or has no such setting.
        """
        facts = getattr(function, "facts", None)
        if facts is None:
            raise ValueError(f"{function.__name__} is not marked with @strategy")
        full, by = self.full_settings(function)
        if settings is not None:
            full, by = {**settings_of(function), **settings}, "given by the caller"
        known = settings_of(function)
        strange = sorted(set(full) - set(known))
        if strange:
            raise ValueError(
                f"{function.__name__} has no setting {strange[0]!r}; it has {', '.join(known)}"
            )
        writer = self._writer(facts.category.lower()) if keep else _Writer(None, self._empty("own"))
        return self._rows(writer, function, "strategy", full, by, self.seeds)

    def chosen(self, function: Callable) -> tuple[dict[str, Any], str]:
        """The settings of a row here that differ from the defaults, and who chose them."""
        if function in controls.on(self.workload):
            return self._scaled(function, {}), "fixed fractions of the base recipe"
        chosen, by = tuned_settings(function, self.workload)
        if self.published is None:
            return chosen, by
        return self._scaled(function, chosen), (
            f"{by}, all on the small model of `{self.workload}`; step sizes scaled by the "
            "ratio of the base step sizes; nothing was tuned on this model"
        )

    def full_settings(self, function: Callable) -> tuple[dict[str, Any], str]:
        """Every setting of a row of this strategy, control or baseline here, and who chose it."""
        chosen, by = self.chosen(function)
        return {**settings_of(function), **chosen}, by

    def _scaled(self, function: Callable, chosen: dict[str, Any]) -> dict[str, Any]:
        """Settings with the step sizes of a published model, where it is one."""
        if self.published is None:
            return chosen
        small = profiles.sizes_of("laptop", self.workload).recipe.lr
        share, full = (self.load.sizes.recipe.lr / small, {**settings_of(function), **chosen})
        scaled = {}
        if function.__name__ in _STEPS_OF_THEIR_OWN:
            return chosen
        if isinstance(full.get("lr"), float):
            scaled["lr"] = full["lr"] * share
        if full.get("lrs"):
            scaled["lrs"] = tuple(lr * share for lr in full["lrs"])
        return {**chosen, **scaled}

    def _row_key(self, function: Callable, full: dict, by: str, seed: int) -> str:
        asked = (seed, self.request, self.folds)
        return self._key("row", source_of(function), full, by, *asked, code=_ROW_CODE)

    def _rows(self, writer, function, kind, full, by, seeds) -> list[records.Row]:
        facts, rows = function.facts, []
        for seed in seeds:
            key = self._row_key(function, full, by, seed)
            if not writer.has(facts.name, seed, key, self.seeds):
                row = _unfinished(
                    strategy=facts.name,
                    kind=kind,
                    category=facts.category,
                    analogue=self.workload in facts.analogue_on,
                    seed=seed,
                    settings=plain(full),
                    settings_chosen_by=by,
                    departures=list(facts.departures),
                    key=key,
                )
                writer.add(self._attempt(function, full, row))
            rows.append(writer.row(facts.name, seed))
        return rows

    def model_of(self, function: Callable, seed: int) -> nn.Module:
        """What a strategy makes of one original with the settings of its row here.

        The very model that was measured, where this process did so and has kept it.
        """
        full, by = self.full_settings(function)
        kept = self._models.get(self._row_key(function, full, by, seed))
        return self.unlearn(function, seed, full)[0].model if kept is None else kept

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
            records=kept or self._records(seed),
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
            unlearned = function(model, forget, retain, task, seed=seed, **full)
        if not isinstance(unlearned, Unlearned) or not isinstance(unlearned.model, nn.Module):
            raise TypeError("a strategy returns Unlearned(model, ...)")
        if not self._is(model, state):
            raise RuntimeError("the strategy changed the model it was given")
        return (unlearned, meter, {"forget": forget.examples_read, "retain": retain.examples_read})

    def _is(self, model: nn.Module, state: dict[str, Tensor]) -> bool:
        """Whether a model has these very weights; compared where the model is."""
        there = {k: v.to(self.device) for k, v in state.items()}
        return same_weights(model.state_dict(), there)

    def _records(self, seed: int) -> Records:
        def refuse(reason: str):
            raise NotApplicable(reason)

        cannot = {what: partial(refuse, reason) for what, reason in self.load.no_record.items()}
        return Records(
            {
                "initial weights": lambda: self.load.start_model(seed).state_dict(),
                "update log": lambda: self.update_log(seed),
                "sisa shards": lambda: self._shards(seed),
                "convex head": lambda: provenance.convex_head(self.load, seed),
                **cannot,
            }
        )

    def _shards(self, seed: int) -> provenance.SisaShards:
        # What the request goes back to is base training, and no cost of the strategy.
        shards = provenance.sisa_shards(self.load, seed)
        return shards.ready_for(self.asked.forget["ids"])

    @property
    def _logs_kept(self) -> bool:
        """Whether originals are kept with their logs: where these are small."""
        return self.load.owners is not None and self.published is None

    def _new_log(self, kind: str, seed: int) -> provenance.UpdateLog | None:
        """What a model is to be trained with: originals are kept with their logs, if at all."""
        return self._empty_log(seed) if kind == "original" and self._logs_kept else None

    def _empty_log(self, seed: int) -> provenance.UpdateLog:
        return provenance.UpdateLog(self.load.start_model(seed), self.load.owners)

    def _log_key(self, seed: int, final: dict[str, Tensor]) -> str:
        """Of the log that ends at these very weights: another machine's original has another."""
        ends = hashlib.blake2b(digest_size=12)
        for name in sorted(final):
            ends.update(final[name].cpu().numpy().tobytes())
        return self._key("update log", seed, ends.hexdigest(), code=_RECORD_CODE)

    def update_log(self, seed: int) -> provenance.UpdateLog:
        """The log of one seed: kept with its original, or recorded by training it again.

        Those of the next seeds are recorded beside it then, and held.
        """
        if self._logs_kept:
            final = self.originals()[seed]
            again = lambda: provenance.update_log(self.load, seed, final).tensors()
            kept = self.store.one(self._log_key(seed, final), again)
            return self._empty_log(seed).restore(kept)
        if seed not in self._logs:
            self._logs.clear()  # before the next ones are made: they are large
            place = self.seeds.index(seed)
            beside = self.seeds[place : place + provenance.logs_at_once(self.load)]
            finals = {s: self.originals()[s] for s in beside}
            self._logs |= provenance.update_logs(self.load, finals)
        return self._logs[seed]

    def _attempt(self, function, full, row: records.Row) -> records.Row:
        self.originals()
        kept, retrain_seconds = self._records(row.seed), self.retrain_seconds
        try:
            # Records are made before the clock starts: they belong to base training.
            for what in sorted(function.facts.reads & kept.makers.keys()):
                kept.get(what)
            memory, start = _PeakMemory(self.device), self._now()
            unlearned, meter, read = self.unlearn(function, row.seed, full, kept)
            cost = self._cost(self._now() - start, meter.passes, retrain_seconds)
            cost.peak_memory_mb, cost.examples_read = memory.rise_mb(), read
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
        if self.published is None and row.seed in self.seeds[:ATTACKED]:
            self._models[row.key] = unlearned.model  # small: an attack needs it again
        return self._measured(row, unlearned.model, self.originals()[row.seed], cost)

    def _measured(self, row, model, original, cost) -> records.Row:
        """Fill a row with what is measured on its model."""
        try:
            measured, probabilities = self.load.measure(model, self.asked)
        except Exception as error:  # noqa: BLE001 - a broken model is a result, with its reason
            return row.model_copy(
                update={"status": "error", "reason": f"its model cannot be measured: {error}"}
            )
        values = [m[1] for m in measured.values() if m[1] is not None]
        if not (probabilities.isfinite().all() and all(map(math.isfinite, values))):
            return row.model_copy(
                update={"status": "diverged", "reason": "its model answers with NaN or infinity"}
            )
        names = ("name", "value", "unit", "better", "n", "reason")
        return row.model_copy(
            update={
                "status": "ok",
                "reason": None,
                "metrics": {k: records.Metric(**dict(zip(names, v))) for k, v in measured.items()},
                "divergence_to_retrained": self._divergences(probabilities.cpu()),
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

    # ---- try to break it

    def relearn(
        self,
        functions: Sequence[Callable],
        seeds: Sequence[int],
        steps: Sequence[int] | None = None,
    ) -> dict[str, dict[str, dict[int, list[float]]]]:
        """Fine-tune on a quarter of the forget set; measure what returns of the rest.

        Every model gets the same attack: Adam at a tenth of the base step size, half of each
        batch from the quarter, half from the retain set. Only the other three quarters and
        never-trained examples are measured, so what rises was still in the model.

        Args:
            functions: Marked strategies, run with their chosen settings.
            seeds: Training seeds to attack.
            steps: Attack steps after which to measure, rising; None is the workload's.

        Returns:
            Criterion -> model -> step -> one value per seed. Models without trainable
            weights are left out.
        """
        steps = self.load.attack_steps if steps is None else steps
        quarter, probes = self.load.attack(self.asked)
        curves = {name: {} for name in probes}

        def attacked(model: nn.Module, seed: int) -> dict[str, Tensor]:
            attack = self._attack(clone(model), quarter, seed, steps)
            found = [[probe(moved) for probe in probes.values()] for moved in attack]
            return dict(zip(probes, torch.tensor(found, dtype=torch.float64).T))

        def reference(kind: str, seed: int) -> dict[str, Tensor]:
            # Every page attacks these two the same way: made once.
            asked = (kind, seed, tuple(steps), self.request, self.folds)
            state = self._trained(kind)[seed]
            return self.store.one(
                self._key("relearn", *asked, code=_ROW_CODE),
                lambda: attacked(self.load.load(state), seed),
            )

        for seed in seeds:
            found = {kind: reference(kind, seed) for kind in ("original", "retrained")}
            for function in functions:
                model = self.model_of(function, seed)
                if all(p.requires_grad for p in model.parameters()):
                    found[function.__name__] = attacked(model, seed)
            for name, values in found.items():
                for criterion, line in values.items():
                    curve = curves[criterion].setdefault(name, {})
                    for number, value in zip(steps, line.tolist(), strict=True):
                        curve.setdefault(number, []).append(value)
        return curves

    def _attack(self, model, quarter, seed, steps):
        draw, task = generator("attack", seed), self.load.task(seed)
        retain = self.asked.retain
        half = self.load.sizes.recipe.batch_size // 2
        step = optimizer("adam", model.parameters(), self.load.sizes.recipe.lr / 10)
        for number in range(max(steps) + 1):
            if number in steps:
                yield model
            picked = torch.randint(len(quarter), (half,), generator=draw).to(self.device)
            kept = torch.randint(len(retain), (half,), generator=draw).to(self.device)
            loss = task.loss(model, Batch.cat([quarter.take(picked), retain.take(kept)])).mean()
            step.zero_grad(set_to_none=True)
            loss.backward()
            step.step()

    # ---- documents

    def _empty(self, category: str) -> records.Document:
        request, sizes = self.asked, self.load.sizes
        return records.Document(
            category=category,
            workload=self.name,
            profile=self.profile,
            facts={
                "forget": len(request.forget),
                "retain": len(request.retain),
                "holdout": len(request.holdout),
                "batch_size": sizes.recipe.batch_size,
                "request_kind": request.kind,
                "request": request.sentence,
                "recipe": asdict(sizes.recipe),
                **self.load.facts,
            },
            parameters=plain(self.parameters),
            environment=environment(self.device),
        )

    def _writer(self, category: str) -> _Writer:
        if category not in self._documents:
            path = None
            if self.out is not None:
                path = records.path_of(self.profile, self.name, category, self.out)
            self._documents[category] = _Writer(path, self._empty(category), self.resume)
        return self._documents[category]


class _Writer:
    """One document on disk: rows are added one by one, and each is safe once added.

    Two processes may write the same document: each addition reads what the other wrote.
    """

    def __init__(self, path: Path | None, empty: records.Document, resume: bool = True):
        self.path, self.document, self._seen = path, empty, None
        self._resume = resume
        self._trust: set[tuple[str, int]] = set()
        self._own: set[tuple[str, int]] = set()
        if path is not None:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise records.RecordError(
                    f"{path}: cannot be written ({error.strerror})"
                ) from error
            with self._locked():
                self._merge()
                self._save()
            if resume:
                self._trust = {(r.strategy, r.seed) for r in self.document.rows}

    def _locked(self) -> FileLock:
        return FileLock(self.path.with_name(f".{self.path.name}.lock"))

    def turn(self, rows: tuple[str, Sequence[int]]) -> FileLock:
        """Held while a process measures rows (a name, its seeds) that others want too."""
        name, seeds = rows
        which = f"{name}-{seeds[0]}-{seeds[-1]}"
        return FileLock(self.path.with_name(f".{self.path.name}.{which}.lock"))

    def look(self) -> None:
        """Take in, and trust, what another process finished while this one waited."""
        if self.path is not None and self._resume:
            with self._locked():
                self._merge()
            self._trust = {(r.strategy, r.seed) for r in self.document.rows}

    def _merge(self) -> None:
        if self.path.is_file() and self.path.stat().st_mtime_ns != self._seen:
            found = records.read(self.path)
            # Only what this process measured is newer than the file.
            mine = [r for r in self.document.rows if (r.strategy, r.seed) in self._own]
            kept = [r for r in found.rows if (r.strategy, r.seed) not in self._own]
            self.document.rows = kept + mine
            self.document.gates = self.document.gates or found.gates

    def _save(self) -> None:
        records.write_text(self.path, records.dumps(self.document))
        self._seen = self.path.stat().st_mtime_ns

    def row(self, strategy: str, seed: int) -> records.Row:
        return next(r for r in self.document.rows if (r.strategy, r.seed) == (strategy, seed))

    def has(self, strategy: str, seed: int, key: str, seeds: Iterable[int]) -> bool:
        """Whether a finished row with this key is there, compared with all these retrained."""
        if (strategy, seed) not in self._trust:
            return False
        row = self.row(strategy, seed)
        compared = (
            row.status != "ok" or {str(s) for s in seeds} <= row.divergence_to_retrained.keys()
        )
        return row.key == key and compared and row.status != "error"

    def add(self, row: records.Row) -> None:
        row = records.Row.model_validate(row.model_dump())
        if self.path is None:
            self._put(row)
            return
        with self._locked():
            self._merge()
            self._put(row)
            self._save()

    def _put(self, row: records.Row) -> None:
        others = [r for r in self.document.rows if (r.strategy, r.seed) != (row.strategy, row.seed)]
        self.document.rows = [*others, row]
        self._trust.add((row.strategy, row.seed))
        self._own.add((row.strategy, row.seed))

    def flush(self) -> None:
        """Write the document again, for what is not a row."""
        if self.path is not None:
            with self._locked():
                self._merge()
                self._save()


class _PeakMemory:
    """How far peak memory rises: of the accelerator, or of this process where Linux tells."""

    def __init__(self, device: str):
        self.cuda = device.startswith("cuda")
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
            self.start = torch.cuda.memory_allocated() / 2**20
            return
        try:
            # What is free already, and only kept by the allocator, would hide a rise.
            if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
                trim(0)
            Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
            self.start = self._status("VmRSS")
        except (OSError, TypeError):  # not Linux
            self.start = None

    @staticmethod
    def _status(name: str) -> float:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) / 1024
        raise OSError(f"no {name}")

    def rise_mb(self) -> float | None:
        if self.cuda:
            return torch.cuda.max_memory_allocated() / 2**20 - self.start
        if self.start is None:
            return None
        try:
            return max(0.0, self._status("VmHWM") - self.start)
        except OSError:
            return None


def _unfinished(**facts: Any) -> records.Row:
    """A row before its run: an error, until the run says otherwise."""
    return records.Row(status="error", reason="did not finish", **facts)


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


def tuned(category: str, name: str, workload: str) -> dict[str, Any]:
    """What tuning kept of a strategy on a workload: settings, chosen_by, trials; or nothing."""
    path = ROOT / "notebooks" / "tuned" / f"{category.lower()}.json"
    kept = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    return kept.get(workload, {}).get(name, {})


def tuned_settings(function: Callable, workload: str) -> tuple[dict[str, Any], str]:
    """The settings chosen on the tuning seeds, if this strategy was tuned on this workload.

    Returns:
        The settings that differ from the defaults, and who chose them.
    """
    found = tuned(function.facts.category, function.facts.name, workload)
    if not found:
        return {}, "the function's defaults"
    return found["settings"], found["chosen_by"]


@cache
def _commit() -> tuple[str, bool]:
    """The commit of the project, and whether code differs from it (results do not count)."""
    git = ["git", "-C", str(ROOT)]
    try:
        commit = subprocess.run(
            [*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        )
        code = ["erasus_nb", "notebooks", "requirements.txt"]
        changed = subprocess.run(
            [*git, "status", "--porcelain", "--", *code], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown", True
    return commit.stdout.strip(), bool(changed.stdout.strip())


def environment(device: str) -> records.Environment:
    """What a document says about where its rows were made."""
    commit, dirty = _commit()
    return records.Environment(
        commit=commit,
        dirty=dirty,
        python=platform.python_version(),
        torch=torch.__version__,
        device=device,
        threads=torch.get_num_threads(),
        at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
