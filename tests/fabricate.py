"""Result documents made up for tests: no model, the shape of a real run.

What is written into a results folder carries the code of the project that the folder is in.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from erasus_nb import ROOT, keys, records, score
from erasus_nb.workloads import WORKLOADS, gates

#: Strategy -> (category, share of the original's memory left, utility, time ratio).
STRATEGIES = {
    "gradient_ascent": ("Gradient", -0.4, 0.72, 0.03),
    "negative_gradient": ("Gradient", 0.25, 0.93, 0.12),
    "fisher_forgetting": ("Gradient", 0.8, 0.85, 0.05),
    "saliency_unlearning": ("Gradient", 0.3, 0.94, 0.2),
    "scrub": ("Gradient", 0.1, 0.95, 0.3),
    "lora": ("Parameter", 0.45, 0.94, 0.25),
    "sparse_aware": ("Parameter", 0.35, 0.93, 0.4),
    "mask_based": ("Parameter", 0.6, 0.9, 0.09),
    "neuron_pruning": ("Parameter", 0.5, 0.8, 0.01),
    "layer_freezing": ("Parameter", 0.08, 0.95, 0.5),
    "amnesiac": ("Data", 0.3, 0.9, 0.15),
    "sisa": ("Data", 0.02, 0.9, 0.31),
    "certified_removal": ("Data", 0.75, 0.92, 0.02),
    "knowledge_distillation": ("Data", 0.28, 0.94, 0.22),
    "ssd": ("LLM", 0.5, 0.88, 0.02),
    "token_masking": ("LLM", 0.9, 0.94, 0.06),
    "ensemble": ("Ensemble", 0.33, 0.95, 1.4),
}
CONTROLS = {
    "random_init": ("Control", 0.02, 0.1, 0.001),
    "fine_tune": ("Control", 0.85, 0.95, 0.25),
    "random_label": ("Control", 0.5, 0.93, 0.25),
    "ascent_to_destruction": ("Control", -1.6, 0.2, 0.1),
    "partial_retrain": ("Control", 0.06, 0.9, 0.22),
}
#: Who may be called first -> what makes such a board. On each, `lora` shares the first place
#: as far as the seeds can tell, because they scatter, and is not above the best control.
FIRST = {
    "nobody": {
        "strategies": {
            "lora": ("Parameter", 0.4, 0.93, 0.2),
            "mask_based": ("Parameter", 0.6, 0.9, 0.1),
            "ssd": ("LLM", 0.7, 0.9, 0.1),
        },
        "shaky": {"lora": 8.0},
    },
    "one": {
        "strategies": {
            "scrub": ("Gradient", 0.1, 0.95, 0.3),
            "lora": ("Parameter", 0.3, 0.93, 0.2),
            "mask_based": ("Parameter", 0.6, 0.9, 0.1),
        },
        "shaky": {"lora": 8.0},
    },
    "several": {
        "strategies": {
            "scrub": ("Gradient", 0.1, 0.95, 0.3),
            "sisa": ("Data", 0.1, 0.95, 0.3),
            "amnesiac": ("Data", 0.3, 0.95, 0.3),
            "lora": ("Parameter", 0.1, 0.93, 0.2),
        },
        "shaky": {"lora": 8.0},
        "seeds": 4,
    },
}
#: The same -> how the sentence on it begins, and whom it names but for the control.
SAID = {
    "nobody": ("No strategy is significantly better than", ()),
    "one": ("Only {0} is significantly better than", ("scrub",)),
    "several": ("{0} and {1} share the first place, as far as the seeds", ("sisa", "scrub")),
}
ORIGINAL = {"C1": 0.98, "C2": 0.92, "C3": 0.78}
RETRAINED = {"C1": 0.05, "C2": 0.04, "C3": 0.5}


def _metrics(left: float, utility: float, noise) -> dict[str, records.Metric]:
    values = {
        name: np.clip(RETRAINED[name] + (left + noise()) * (ORIGINAL[name] - RETRAINED[name]), 0, 1)
        for name in ORIGINAL
    }
    values["C4"] = np.clip(utility + 0.2 * noise(), 0, 1)
    values["forget_accuracy"] = float(np.clip(0.02 + 0.95 * max(left, 0) + noise(), 0, 1))
    values["retain_accuracy"] = min(utility + 0.04, 1.0)
    values["test_accuracy"] = utility
    values["forget_loss"] = 2.5 - 2.4 * left
    values["retain_loss"] = 1.0 - utility
    values["holdout_loss"] = 2.6
    wanted = {"C1": "closer to retrained", "C4": "higher"}
    return {
        name: records.Metric(
            name=name,
            value=float(value),
            unit="fraction",
            better=wanted.get(name, "closer to retrained"),
            n=384 if name == "C3" else 64,  # forget set and holdout
        )
        for name, value in values.items()
    }


def _row(name, kind, category, left, utility, ratio, seed, seeds, noise) -> records.Row:
    divergence = {
        str(other): 0.02 + 0.5 * min(abs(left), 1.2) * (1 + 0.1 * noise())
        for other in seeds
        if kind != "retrained" or other != seed
    }
    return records.Row(
        strategy=name,
        kind=kind,
        category=category,
        seed=seed,
        status="ok",
        metrics=_metrics(left, utility, noise),
        divergence_to_retrained=divergence,
        weights_changed=kind != "original",
        key=f"{name}-{seed}",
        settings={"lr": 0.001},
        settings_chosen_by="defaults",
        cost=records.Cost(
            seconds=2.0 * ratio,
            example_passes=8000 * ratio,
            retrain_seconds=2.0,
            retrain_example_passes=8000,
            peak_memory_mb=12.5,
            extra_storage_bytes=250_000 if name in ("sisa", "amnesiac") else 0,
        ),
    )


def environment(**given) -> records.Environment:
    """Where and when the rows were made."""
    usual = {
        "commit": "0123456789abcdef",
        "dirty": False,
        "python": "3.12.0",
        "torch": "2.13.0",
        "device": "cpu, 1 thread",
        "threads": 1,
        "at": "2026-01-31T12:00:00Z",
    }
    return records.Environment(**usual | given)


def documents(
    workload: str = "synthetic",
    profile: str = "laptop",
    seeds: int = 5,
    strategies: dict | None = None,
    absent: dict[str, tuple[str, str]] | None = None,
    analogues: tuple[str, ...] = (),
    retrained: float = 0.0,
    missing: dict[str, tuple[int, ...]] | None = None,
    shaky: dict[str, float] | None = None,
) -> list[records.Document]:
    """The reference document and one per category.

    Args:
        strategies: Like STRATEGIES, which is the default.
        absent: Strategy -> (status, reason) of one that has no result at any seed.
        analogues: Strategies marked as analogues.
        retrained: Share of the original's memory that the retrained models have; above
            about a tenth, the workload misses its gates.
        missing: Name -> seeds at which it has no row.
        shaky: Name -> how many times as much as the others its seeds scatter.
    """
    draw = np.random.default_rng(len(workload))
    noise = lambda: float(draw.normal(0, 0.05))
    every = range(seeds)
    lines = {"original": ("original", "reference", 1.0, 0.95, 0.0)}
    lines["retrained"] = ("retrained", "reference", retrained, 0.95, 1.0)
    for name, (category, *rest) in CONTROLS.items():
        lines[name] = ("control", category, *rest)
    for name, (category, *rest) in (STRATEGIES if strategies is None else strategies).items():
        lines[name] = ("strategy", category, *rest)
    rows: dict[str, list[records.Row]] = {"reference": []}
    for name, (kind, category, *rest) in lines.items():
        where = category.lower() if kind == "strategy" else "reference"
        own = lambda times=(shaky or {}).get(name, 1.0): times * noise()
        made = [_row(name, kind, category, *rest, seed, every, own) for seed in every]
        made = [row.model_copy(update={"analogue": name in analogues}) for row in made]
        left = (missing or {}).get(name, ())
        rows.setdefault(where, []).extend(row for row in made if row.seed not in left)
    for name, (status, reason) in (absent or {}).items():
        category = STRATEGIES[name][0] if name in STRATEGIES else "Gradient"
        kept = [row for row in rows.setdefault(category.lower(), []) if row.strategy != name]
        rows[category.lower()] = kept + [
            records.Row(
                strategy=name,
                kind="strategy",
                category=category,
                seed=seed,
                status=status,
                reason=reason,
                key=f"{name}-{seed}",
            )
            for seed in every
        ]
    made_at = environment()
    for row in (row for group in rows.values() for row in group):
        row.made = made_at
    base = workload.partition("-")[0]
    base = base if base in WORKLOADS else "synthetic"
    facts = {
        "workload": base,
        "made_by": base,
        "gates": gates.LANGUAGE_MODEL if base == "text" else gates.CLASSIFIER,
        "chance": 0.1,
        "forget": 128,
        "retain": 256,
        "holdout": 256,
        "batch_size": 32,
        "model": "BenchmarkModel (32->64->64->10)",
        "data": "Two views of a latent.",
        "request": "one class and some mislabelled examples",
        "request_kind": "standard",
        "criteria": {"C1": "canary recall", "C2": "concept accuracy", "C3": "loss AUC"},
    }
    made = [
        records.Document(
            category=where,
            workload=workload,
            profile=profile,
            facts=facts,
            environment=made_at,
            rows=found,
        )
        for where, found in rows.items()
        if found
    ]
    made[0].gates = score.gates(made[0])
    return made


def published(workload: str) -> list[records.Document]:
    """The published documents of a workload, with its gates where they do not say them yet."""
    declared = gates.LANGUAGE_MODEL if workload == "text" else gates.CLASSIFIER
    return [
        document.model_copy(update={"facts": {"gates": declared} | document.facts})
        for document in records.load(ROOT / "results" / "published")[workload]
    ]


def defining(names) -> str:
    """The code of a page's cell that defines strategies of these names."""
    mark = '@strategy(category="Gradient", cite="x", reads=("forget",), on=("synthetic",))'
    head = "(model, forget, retain, task, *, seed=0):\n    return model"
    return "\n\n\n".join(f"{mark}\ndef {name}{head}" for name in names)


def project_of(folder: Path) -> Path:
    """The project that a results folder is in: the nearest with notebooks, or this one."""
    here = (place for place in folder.absolute().parents if (place / "notebooks").is_dir())
    return next(here, ROOT)


def sign(document: records.Document, sources: keys.Sources) -> records.Document:
    """A document whose rows say that they were made with these sources.

    A strategy that its page does not define keeps the code that it had.
    """
    facts = document.facts
    where = facts["made_by"], facts["workload"], document.profile, document.category
    rows = []
    for row in document.rows:
        name = None if row.kind in ("original", "retrained") else row.strategy
        code = sources.row_code(*where, name) or row.code or "nobody's"
        rows.append(row.model_copy(update={"code": code}))
    return document.model_copy(update={"rows": rows})


def write(folder: Path, *groups: list[records.Document]) -> Path:
    """Write documents as a results folder has them: `<folder>/<workload>/<category>.json`."""
    sources = keys.Sources(project_of(folder))
    for group in groups:
        for document in group:
            path = folder / document.workload / f"{document.category}.json"
            records.write(path, sign(document, sources))
    return folder


def outdated(folder: Path, *names: str) -> Path:
    """Give the rows of some names (of all without any) a code that is nobody's."""
    for path in records.paths(folder):
        document = records.read(path)
        for row in document.rows:
            row.code = "of another time" if not names or row.strategy in names else row.code
        records.write(path, document)
    return folder
