"""Choosing settings: the same declared budget for everybody, on seeds that no row reports.

Each strategy's mark lists at most eight settings to try; those for a workload of another size,
where other ones are sensible, are in `notebooks/budgets/<workload>.json`. They and the function's defaults are
run on the tuning seeds; the highest mean Retrain-Match wins. Every trial is kept in
`notebooks/tuned/<category>.json`, the defaults' own among them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from . import ROOT, cells, records, score, workloads
from .benchmark import Bench
from .strategy import BUDGET, settings_of


def budget_on(function: Callable, workload: str) -> tuple[dict[str, Any], ...]:
    """Settings to try on a workload, besides the defaults.

    Raises:
        ValueError: more than eight, or a setting that the function does not take.
    """
    path = ROOT / "notebooks" / "budgets" / f"{workload}.json"
    if not path.is_file():
        return tuple(map(dict, function.facts.budget))
    name, known = function.__name__, settings_of(function)
    listed = json.loads(path.read_text("utf-8")).get(name, function.facts.budget)
    if len(listed) > BUDGET:
        raise ValueError(
            f"{path.name} lists {len(listed)} settings for {name}; the budget is {BUDGET}"
        )
    strange = sorted({key for trial in listed for key in trial} - set(known))
    if strange:
        raise ValueError(
            f"{path.name}: {name} has no setting {strange[0]!r}; it has {', '.join(known)}"
        )
    return tuple(map(dict, listed))


def trials(bench: Bench, function: Callable) -> list[dict[str, Any]]:
    """Run every setting of a strategy's budget, defaults first.

    Returns:
        One dictionary per trial: settings (what differs from the defaults), time (seconds as
        a share of retraining's), rm (Retrain-Match per tuning seed; empty where it failed)
        and reason (of the first failure, or null).
    """
    reference = bench.references()
    tried = []
    for settings in ({}, *budget_on(function, bench.workload)):
        rows = bench.run(function, settings=dict(settings), keep=False)
        document = reference.model_copy(update={"category": "trial", "rows": rows})
        standing = score.board([reference, document])[function.__name__]
        time = standing.time_ratio
        tried.append(
            {
                "settings": dict(settings),
                "time": None if time is None else round(time, 2),
                "rm": [round(standing.rm_by_seed[s], 1) for s in sorted(standing.rm_by_seed)],
                "reason": next((r.reason for r in rows if r.reason), None),
            }
        )
    return tried


def choose(tried: Sequence[dict[str, Any]], seeds: Sequence[int]) -> dict[str, Any]:
    """The entry of the tuned file: settings, who chose them, and every trial.

    A trial that failed at any seed cannot win; the first of equals does. Nor can one that
    takes longer than retraining, if another does not: nobody would choose it.
    """
    whole = [t for t in tried if len(t["rm"]) == len(seeds)]
    if not whole:
        return {}
    whole = [t for t in whole if (t.get("time") or 0) <= 1] or whole
    best = max(whole, key=lambda t: sum(t["rm"]))
    return {
        "settings": best["settings"],
        "chosen_by": (
            f"highest mean Retrain-Match of {len(tried)} settings (defaults and a budget of at "
            f"most {BUDGET}) on tuning seeds {seeds[0]} to {seeds[-1]}, which no row reports"
        ),
        "trials": list(tried),
    }


def tune(
    category: str, workload: str, names: Sequence[str] = (), say: Callable[[str], None] = print
) -> None:
    """Tune a category's strategies on one workload and write the result.

    Args:
        category: Notebook, e.g. "gradient".
        names: Which of its strategies; all of them if empty.
        say: Receives one line per strategy.
    """
    load = workloads.load(workload, "laptop")
    seeds = tuple(load.tuning_seeds)
    bench = Bench(workload, "laptop", seeds, out=None)
    path = ROOT / "notebooks" / "tuned" / f"{category}.json"
    for name, function in cells.strategies(category).items():
        if (names and name not in names) or not function.facts.form_on(workload, load.provides):
            continue
        found = trials(bench, function)
        entry = choose(found, seeds)
        kept = json.loads(path.read_text("utf-8")) if path.is_file() else {}
        if entry:
            kept.setdefault(workload, {})[name] = entry
            records.write_text(path, json.dumps(kept, indent=1, sort_keys=True) + "\n")
        best = entry.get("settings", found[0]["reason"])
        means = [round(sum(t["rm"]) / len(t["rm"]), 1) if t["rm"] else None for t in found]
        say(f"{workload} {name}: {best} from {means}")
