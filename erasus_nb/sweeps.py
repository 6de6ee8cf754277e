"""What happens when one setting of a strategy is moved: measured in advance, one per page.

`notebooks/sweeps/<page>.json` says which setting of which strategy is moved over which values
on which workload, and holds what `python -m erasus_nb sweep` measured there. All other settings
are those that tuning chose. Measured on the tuning seeds, which no row reports.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from . import ROOT, cells, keys, records, score, workloads
from .benchmark import Bench, environment
from .strategy import settings_of

FOLDER = ROOT / "notebooks" / "sweeps"
#: The size of the runs that are measured.
PROFILE = "laptop"

Number = Annotated[float, Field(allow_inf_nan=False)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Point(_Model):
    """What one value of the setting gives.

    Args:
        value: Of the setting.
        rm: Retrain-Match, 0 to 100, a training seed each; null where the run failed.
        position: Criterion C1, C2 or C3 -> position at each seed: 1 like the original, 0 like
            the retrained models, below 0 beyond them.
        utility: U, how much of what is to stay is kept, 0 to 1, at each seed.
        time_ratio: Median seconds as a share of retraining's.
        reason: Why a seed has no result.
    """

    value: Number
    rm: tuple[Number | None, ...]
    position: dict[str, tuple[Number | None, ...]]
    utility: tuple[Number | None, ...]
    time_ratio: Number | None = None
    reason: str | None = None


class Measured(_Model):
    """Everything that was measured, and with what.

    Args:
        seeds: Training seeds.
        chosen: The value of the setting that the page's rows have.
        settings: The other settings that differ from the defaults.
        criteria: Criterion -> what it is on this workload.
        code: Hash of the code and settings that the page's rows depend on, as in rows.
        made: Where and when.
        points: One for each value, in their order.
    """

    seeds: tuple[int, ...]
    chosen: Number
    settings: dict[str, Any]
    criteria: dict[str, str]
    code: str
    made: records.Environment
    points: tuple[Point, ...]


class Sweep(_Model):
    """One file: what is moved, and what was found (null before the first measurement).

    Args:
        strategy, workload, setting: Their names.
        meaning: What the setting is, in a few words.
        values: Of the setting, in the order in which they are shown.
        found: What was measured.
    """

    strategy: str
    workload: str
    setting: str
    meaning: str
    values: tuple[Number, ...]
    found: Measured | None = None


def path_of(page: str) -> Path:
    """The file of one page's sweep."""
    return FOLDER / f"{page}.json"


def read(page: str) -> Sweep:
    """The sweep of a page.

    Raises:
        records.RecordError: the file is missing, or not a sweep; one sentence.
    """
    path = path_of(page)
    try:
        return Sweep.model_validate_json(path.read_text("utf-8"))
    except OSError as error:
        raise records.RecordError(f"{path}: cannot be read ({error.strerror})") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise records.RecordError(f"{path}: wrong at {where}: {first['msg']}") from error


def code_now(page: str, sweep: Sweep) -> str | None:
    """The hash that the sweep would have if it was measured with the code that is here."""
    made_by = workloads.load(sweep.workload, PROFILE).made_by
    return keys.sources().row_code(made_by, sweep.workload, PROFILE, page, sweep.strategy)


def _point(bench: Bench, function: Callable, reference, settings: dict, setting: str, value):
    rows = bench.run(function, settings={**settings, setting: value}, keep=False)
    document = reference.model_copy(update={"category": "sweep", "rows": rows})
    standing = score.board([reference, document])[function.__name__]
    rounded = lambda of, digits: tuple(
        round(of[seed], digits) if seed in of else None for seed in bench.seeds
    )
    time = standing.time_ratio
    return Point(
        value=value,
        rm=rounded(standing.rm_by_seed, 1),
        position={
            name: rounded(standing.position_by_seed.get(name, {}), 3) for name in score.POSITIONS
        },
        utility=rounded(standing.axes_by_seed.get("U", {}), 3),
        time_ratio=None if time is None else round(time, 2),
        reason=next((row.reason for row in rows if row.reason), None),
    )


def measure(page: str, say: Callable[[str], None] = print) -> None:
    """Measure a page's sweep and write it into its file.

    Args:
        page: The notebook, e.g. "gradient".
        say: Receives one line per value.

    Raises:
        ValueError: the page has no such strategy, the strategy no such setting, or the value
            that tuning chose is not among those to be shown.
        records.RecordError: the file is missing or wrong.
    """
    sweep, known = read(page), cells.strategies(page)
    if sweep.strategy not in known:
        raise ValueError(f"{page} has no strategy {sweep.strategy!r}; it has {', '.join(known)}")
    function = known[sweep.strategy]
    if sweep.setting not in settings_of(function):
        raise ValueError(f"{sweep.strategy} has no setting {sweep.setting!r}")
    load = workloads.load(sweep.workload, PROFILE)
    bench = Bench(sweep.workload, PROFILE, tuple(load.tuning_seeds), out=None)
    full, (settings, _) = bench.full_settings(function)[0], bench.chosen(function)
    if full[sweep.setting] not in sweep.values:
        raise ValueError(
            f"{page}: tuning chose {sweep.setting}={full[sweep.setting]}, which is not among the "
            f"values of {path_of(page).name}; add it there"
        )
    reference, points = bench.references(controls_too=False), []
    for value in sweep.values:
        point = _point(bench, function, reference, settings, sweep.setting, value)
        say(f"{page} {sweep.strategy} {sweep.setting}={value:g}: Retrain-Match {point.rm}")
        points.append(point)
    found = Measured(
        seeds=bench.seeds,
        chosen=full[sweep.setting],
        settings={name: value for name, value in settings.items() if name != sweep.setting},
        criteria={name: load.criteria[name] for name in score.POSITIONS},
        code=code_now(page, sweep),
        made=environment(bench.device),
        points=points,
    )
    done = sweep.model_copy(update={"found": found})
    text = json.dumps(done.model_dump(mode="json"), indent=1)
    records.write_text(path_of(page), text + "\n")
