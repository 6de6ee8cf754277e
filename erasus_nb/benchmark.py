"""Which rows are made: references, controls and strategies at some seeds, and their documents.

What a row holds is decided in measuring.py. Here stands what is run, in which order, with
which settings; what is finished and need not be run again; and what is written where.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from . import ROOT, controls, keys, progress, records, workloads
from .cache import Cache, default_cache
from .clock import environment
from .locks import shared
from .measuring import ATTACKED, Measuring, plain
from .strategy import NEEDS, Batch, NotApplicable, settings_of
from .training import clone, generator, global_seed, optimizer
from .writer import Writer

__all__ = ["ATTACKED", "Bench", "Cache", "environment", "plain", "tuned", "tuned_settings"]

_Writer = Writer


@dataclass
class Bench(Measuring):
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
        published: Models and data of others, where the workload takes them.
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
        keys.sources()  # read now, so that what is edited while this runs is told from it
        self.load = self._open()
        if self.seeds is None:
            self.seeds = range(self.load.sizes.seeds)
        self.seeds = tuple(self.seeds)
        if not self.seeds:
            raise ValueError("at least one training seed is needed")
        for_tuning = sorted(set(self.seeds) & set(self.load.tuning_seeds))
        if self.out is not None and for_tuning:
            raise ValueError(
                f"settings were chosen on training seed {for_tuning[0]}, so no row reports it"
            )
        folder = default_cache() if self.cache is None else self.cache
        self.store = Cache(Path(folder) if folder else None)
        self.asked = self.load.request(self.request, self.folds)
        self._documents: dict[str, Writer] = {}
        #: What the last `run` raised first, of a row that is an error now; None if nothing.
        self.failure: Exception | None = None
        self.prepare()

    def _open(self) -> workloads.base.Workload:
        """The workload of this name."""
        if self.device == "cpu":
            # A second thread waits more than it works at these sizes; processes run side by side.
            torch.set_num_threads(1)
        return workloads.load(self.workload, self.profile, self.device, self.published)

    # ---- names and code

    @property
    def name(self) -> str:
        """The workload's name in results: with the request, where it is not the standard one."""
        name = self.load.name
        return name if self.request == "standard" else f"{name}-{self.request}"

    @cached_property
    def _spec(self) -> tuple:
        """What of the workload decides its models, besides code."""
        sizes = asdict(self.load.sizes)
        return self.load.name, sizes, self.load.fingerprint, self.device, torch.__version__

    def model_key(self, *parts: Any) -> str:
        """The key of a model that is trained here."""
        return keys.digest(*parts, self._spec, keys.sources().models_code(self.load.made_by))

    def record_key(self, *parts: Any) -> str:
        """The key of a record of base training."""
        return self.model_key(*parts, keys.sources().digest(keys.MAKERS.values()))

    def row_key(self, code: str, *parts: Any) -> str:
        """The key of a row: its `code`, and everything else that it depends on."""
        return keys.digest("row", code, *parts, self._spec, self.asked.kind, self.asked.folds)

    # ---- what is running

    @contextmanager
    def _working(
        self, what: str, total: int | None = None, unit: str = "seed"
    ) -> Iterator[Callable]:
        """Show what runs, and the pieces that the code inside names."""
        with progress.working(f"{what} on {self.name}", total, unit) as step:
            outer, self.step = self.step, step
            try:
                yield step
            finally:
                self.step = outer

    def _trained(self, kind: str) -> dict[int, dict[str, Tensor]]:
        if kind in self._states:
            return self._states[kind]
        with self._working("training"):
            return super()._trained(kind)

    # ---- code

    def code_of(self, function: Callable, given: dict[str, Any] | None) -> tuple[str, bool]:
        """The `code` of a strategy's rows here, and whether the file holds other code.

        Args:
            given: Settings that a caller gave; such a row claims no code of the project's.
        """
        sources, page = keys.sources(), function.facts.category.lower()
        sources.look()
        known = sources.place_of(page, function.__name__) is not None
        edited = known and not keys.committed(function, page)
        code = None
        if known and not edited:
            made_by = self.load.made_by
            code = sources.row_code(made_by, self.workload, self.profile, page, function.__name__)
        if code is None:
            common = sources.rows_code(self.load.made_by), asdict(self.load.sizes)
            code = keys.digest("live", common, keys.live_code(function))
        return (code if given is None else keys.digest("given", code, given)), edited

    def reference_code(self) -> str:
        """The `code` of the rows of originals and retrained models here."""
        return keys.sources().row_code(self.load.made_by, self.workload, self.profile, "reference")

    def uncommitted(self, function: Callable) -> bool:
        """Whether a strategy of a page is not, as it runs, what was last committed.

        Saved or not. False where git cannot tell, and for ideas of one's own.
        """
        page, name, sources = function.facts.category.lower(), function.__name__, keys.sources()
        sources.look()  # the page may have been saved since
        head = keys.at_head()
        if head is None or sources.place_of(page, name) is None:
            return False
        here = sources.strategy_code(page, name, self.workload)
        same = here == head.strategy_code(page, name, self.workload)
        return not (same and keys.committed(function, page))

    def kinds(self) -> tuple[str, ...]:
        """The reference models that there are."""
        return "original", "retrained"

    def controls(self) -> list[Callable]:
        """The controls and baselines that are measured beside every strategy."""
        return controls.on(self.load.provides)

    def references(self, controls_too: bool = True) -> records.Document:
        """Measure the original, the retrained models and the controls; checks the gates.

        What else the file holds (controls of another time) stays in it and is not returned.

        Processes that write the same document share the rows out: where a row takes
        seconds, one by one, so that none waits long for another's last.

        Args:
            controls_too: False leaves the controls out: a score needs none of them.
        """
        writer = self._writer("reference")
        functions = {c.__name__: c for c in self.controls() if controls_too}
        pieces = [self.seeds] if self.load.stacked else [(s,) for s in self.seeds]
        names = (*self.kinds(), *functions)
        items = [(name, seeds) for name in names for seeds in pieces]
        if writer.path is not None:
            items = shared(items, writer.turn)
        for name, seeds in items:
            writer.look()
            if name in functions:
                how = self.full_settings(functions[name])
                self._rows(writer, functions[name], "control", *how, seeds, None)
                continue
            with self._working(name, len(seeds)) as step:
                for seed in seeds:
                    step(f"seed {seed}")
                    self._reference(writer, name, seed)
        writer.look()
        found = [row for row in writer.document.rows if row.strategy in names]
        mine = writer.document.model_copy(update={"rows": found})
        mine.gates = writer.document.gates = self._gates(mine)
        writer.flush()
        return mine

    def _reference(self, writer: Writer, kind: str, seed: int) -> None:
        """Measure the original or the retrained model of one seed."""
        code = self.reference_code()
        key = self.row_key(code, kind, seed)
        if writer.has(kind, seed, key, self._comparable()):
            return
        made = environment(self.device)
        row = self.blank(kind, "Reference", seed, key, strategy=kind, code=code, made=made)
        seconds = self.retrain_seconds if kind == "retrained" else 0.0
        passes = self.retrain_passes if kind == "retrained" else 0
        state, cost = self._trained(kind)[seed], self._cost(seconds, passes)
        before = state if kind == "original" else None
        writer.add(self.measured(row, self.load.load(state), before, cost))

    def _comparable(self) -> list[int]:
        """Seeds whose retrained model answers, as far as is known: a diverged one has no row."""
        writer = self._documents.get("reference")
        rows = writer.document.rows if writer is not None else ()
        broken = {r.seed for r in rows if r.kind == "retrained" and r.status != "ok"}
        return [seed for seed in self.seeds if seed not in broken]

    def _gates(self, document: records.Document) -> list[records.Gate]:
        from . import score

        return score.gates(document)

    # ---- strategies

    def run(
        self,
        function: Callable,
        *,
        settings: dict[str, Any] | None = None,
        keep: bool = True,
        seeds: Sequence[int] | None = None,
    ) -> list[records.Row]:
        """Run one marked strategy at every seed and return its rows, finished ones included.

        Args:
            settings: Overrides; by default the tuned settings of this workload if there are
                any, else the function's own defaults.
            keep: Write the rows to the category's document. False only measures.
            seeds: Some of the run's seeds; None is all.

        Raises:
            ValueError: the function is not marked, or has no such setting.
        """
        facts, self.failure = getattr(function, "facts", None), None
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
        writer = self._writer(facts.category.lower()) if keep else Writer(None, self._empty("own"))
        seeds = self.seeds if seeds is None else seeds
        return self._rows(writer, function, "strategy", full, by, seeds, settings)

    def unlearn(self, function: Callable, *given: Any, **more: Any) -> tuple:
        """As Measuring.unlearn; what goes wrong is kept in `failure` as well.

        A row holds one sentence of it; whoever is writing the strategy needs the traceback.
        """
        try:
            return super().unlearn(function, *given, **more)
        except NotApplicable:
            raise
        except Exception as error:
            self.failure = self.failure or error
            raise

    def chosen(self, function: Callable) -> tuple[dict[str, Any], str]:
        """The settings of a row here that differ from the defaults, and who chose them."""
        if function in self.controls():
            by = "fixed fractions of the base recipe"
            return self.load.adapted(function, {}, by)[0], by
        return self.load.adapted(function, *tuned_settings(function, self.workload))

    def full_settings(self, function: Callable) -> tuple[dict[str, Any], str]:
        """Every setting of a row of this strategy, control or baseline here, and who chose it."""
        chosen, by = self.chosen(function)
        return {**settings_of(function), **chosen}, by

    def _rows(self, writer, function, kind, full, by, seeds, given) -> list[records.Row]:
        name, rows = function.facts.name, []
        code, edited = self.code_of(function, given)
        with self._working(name, len(seeds)) as step:
            for seed in seeds:
                step(f"seed {seed}")
                key = self.row_key(code, full, by, seed)
                if not writer.has(name, seed, key, self._comparable()):
                    facts = {"code": code, "edited": edited, "made": environment(self.device)}
                    row = self.blank_of(function, kind, full, by, seed, key, **facts)
                    writer.add(self._meant(function, self.attempt(function, full, row)))
                rows.append(writer.row(name, seed))
        return rows

    def _meant(self, function: Callable, row: records.Row) -> records.Row:
        """A row, or why there is none, where a strategy runs that means nothing here.

        Mostly a hook says so. Where all hooks that it calls exist for something else, what
        comes out is no result of the strategy.
        """
        facts, provides = function.facts, self.load.provides
        if row.status == "not_applicable" or facts.form_on(self.workload, provides) is not None:
            return row
        missing = "; ".join(NEEDS[need] for need in facts.needs if need not in provides)
        why = f"it needs {missing}" if missing else f"it keeps to {', '.join(facts.on)}"
        given = row.settings, row.settings_chosen_by, row.seed, row.key
        made = {"code": row.code, "edited": row.edited, "made": row.made}
        blank = self.blank_of(function, row.kind, *given, **made)
        return blank.model_copy(update={"status": "not_applicable", "reason": why})

    def model_of(self, function: Callable, seed: int) -> nn.Module:
        """What a strategy makes of one original with the settings of its row here.

        The very model that was measured, where this process did so and has kept it.
        """
        full, by = self.full_settings(function)
        kept = self._models.get(self.row_key(self.code_of(function, None)[0], full, by, seed))
        if kept is not None:
            return kept
        return self.product_of(function, self.unlearn(function, seed, full)[0])

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
                self._attack_key(*asked),
                lambda: attacked(self.load.load(state), seed),
            )

        with self._working("relearning attack", len(seeds) * (2 + len(functions)), "model") as step:
            for seed in seeds:
                found = {}
                for kind in ("original", "retrained"):
                    step(f"{kind}, seed {seed}")
                    found[kind] = reference(kind, seed)
                for function in functions:
                    step(f"{function.__name__}, seed {seed}")
                    model = self.model_of(function, seed)
                    if all(p.requires_grad for p in model.parameters()):
                        found[function.__name__] = attacked(model, seed)
                for name, values in found.items():
                    for criterion, line in values.items():
                        curve = curves[criterion].setdefault(name, {})
                        for number, value in zip(steps, line.tolist(), strict=True):
                            curve.setdefault(number, []).append(value)
        return curves

    def _attack_key(self, *asked: Any) -> str:
        code = [keys.ROWS, (f"{keys.PACKAGE}.benchmark", "Bench")]
        made = keys.sources().digest(code), keys.sources().models_code(self.load.made_by)
        return keys.digest("relearn", *asked, self._spec, *made)

    def _attack(self, model, quarter, seed, steps):
        draw, task = generator("attack", seed), self.load.task(seed)
        retain = self.asked.retain
        half = self.load.sizes.recipe.batch_size // 2
        step = optimizer("adam", model.parameters(), self.load.sizes.recipe.lr / 10)
        for number in range(max(steps)):
            if number in steps:
                yield model
            picked = torch.randint(len(quarter), (half,), generator=draw).to(self.device)
            kept = torch.randint(len(retain), (half,), generator=draw).to(self.device)
            batch = Batch.cat([quarter.take(picked), retain.take(kept)])
            # A loss may draw from the global generator, as the denoiser's does for its noise.
            with global_seed("attack", seed, number):
                loss = task.loss(model, batch).mean()
            step.zero_grad(set_to_none=True)
            loss.backward()
            step.step()
        yield model

    # ---- documents

    def _empty(self, category: str) -> records.Document:
        request, sizes = self.asked, self.load.sizes
        return records.Document(
            category=category,
            workload=self.name,
            profile=self.profile,
            facts={
                "workload": self.workload,
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

    def _writer(self, category: str) -> Writer:
        if category not in self._documents:
            path = None
            if self.out is not None:
                path = records.path_of(self.profile, self.name, category, self.out)
            self._documents[category] = Writer(path, self._empty(category), self.resume)
        return self._documents[category]


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
