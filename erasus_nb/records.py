"""The result JSON: its model, its validation, reading and atomic writing.

One document per notebook and workload: `results/<profile>/<workload>/<category>.json`, and
`reference.json` for the original, the retrained models and the controls. A row is one
strategy on one workload at one training seed, as measured. Means, ranks and scores are
computed when rows are read (score.py) and never stored.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from . import ROOT

#: Raised when a field changes meaning; documents of another version are refused by name.
SCHEMA_VERSION = 2

Status = Literal["ok", "not_applicable", "error", "diverged"]
Number = Annotated[float, Field(allow_inf_nan=False)]


class RecordError(Exception):
    """A result file cannot be used; the message names the file and what is wrong with it."""

    def _render_traceback_(self) -> list[str]:
        # Jupyter prints this instead of a stack trace: the reader needs the sentence.
        return [f"RecordError: {self}"]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="strings")


class Metric(_Model):
    """One measured number.

    `value` is null only with a `reason`. `better` says how to read it: "higher", "lower" or
    "closer to retrained". `n` is the number of examples behind it.
    """

    name: str
    value: Number | None
    unit: str
    better: Literal["higher", "lower", "closer to retrained"]
    n: int | None = None
    reason: str | None = None

    @model_validator(mode="after")
    def _absence_has_a_reason(self):
        if self.value is None and not self.reason:
            raise ValueError(f"metric {self.name!r} has no value and no reason")
        return self


class Cost(_Model):
    """What the strategy cost, apart from measuring it.

    `example_passes` counts forward plus backward passes of single examples through a model.
    `seconds` is processor time of the one thread on a CPU, wall time on an accelerator.
    `retrain_*` are the same for the retrained model of this seed.
    `peak_memory_mb` is the rise of peak memory during the run (process or accelerator), null
    where the system cannot tell. `extra_storage_bytes` had to be kept before the request.
    """

    seconds: Number
    example_passes: Number
    retrain_seconds: Number
    retrain_example_passes: Number
    peak_memory_mb: Number | None = None
    extra_storage_bytes: int = 0
    examples_read: dict[str, int] = {}


class Environment(_Model):
    """Where, when and with which commit something was made."""

    commit: str
    dirty: bool
    python: str
    torch: str
    device: str
    threads: int
    at: str


class Row(_Model):
    """One strategy x workload x seed, as measured.

    `code` is the hash of all code and settings that the row depends on, as keys.py computes it
    from the sources; a board takes only rows whose code is that of the sources that are there.
    `made` says where the row itself was made, whatever else stands in its document. `edited`:
    the code that ran is not the code of that name in the file. `product` is what was measured,
    where that is more than the weights of the workload's model.
    """

    strategy: str
    kind: Literal["original", "retrained", "control", "strategy"]
    category: str
    analogue: bool = False
    seed: int
    status: Status
    reason: str | None = None
    settings: dict[str, Any] = {}
    settings_chosen_by: str = ""
    metrics: dict[str, Metric] = {}
    #: Seed of a retrained model -> mean Jensen-Shannon divergence (nats) of the predictions
    #: on the forget set from that model's.
    divergence_to_retrained: dict[str, Number] = {}
    weights_changed: bool | None = None
    losses: dict[str, list[Number]] = {}
    info: dict[str, Any] = {}
    cost: Cost | None = None
    departures: list[str] = []
    product: str = ""
    key: str
    code: str = ""
    edited: bool = False
    made: Environment | None = None

    @model_validator(mode="after")
    def _absence_has_a_reason(self):
        if self.status != "ok" and not self.reason:
            raise ValueError(f"row {self.strategy}/{self.seed} is {self.status} without a reason")
        if self.status == "ok" and not self.metrics:
            raise ValueError(f"row {self.strategy}/{self.seed} is ok but measured nothing")
        return self


class Gate(_Model):
    """One condition that a workload must meet before its board prints."""

    name: str
    value: Number | None
    wanted: str
    passed: bool
    reason: str | None = None


class Document(_Model):
    """The rows that one notebook wrote for one workload.

    `facts` describes the workload (chance, sizes, model, data, request, criteria);
    `parameters` and `environment` are those of the run that wrote it last.
    """

    schema_version: Literal[2] = SCHEMA_VERSION
    category: str
    workload: str
    profile: str
    facts: dict[str, Any] = {}
    parameters: dict[str, Any] = {}
    environment: Environment
    gates: list[Gate] = []
    rows: list[Row] = []

    @model_validator(mode="after")
    def _one_row_each(self):
        seen = set()
        for row in self.rows:
            if (row.strategy, row.seed) in seen:
                raise ValueError(f"two rows for {row.strategy}, seed {row.seed}")
            seen.add((row.strategy, row.seed))
        return self


def path_of(profile: str, workload: str, category: str, out: str | Path = "") -> Path:
    """Where a document lives: `<out or the project's results/>/<profile>/<workload>/<category>.json`."""
    return Path(out or ROOT / "results") / profile / workload / f"{category}.json"


def text_of(path: str | Path) -> str:
    """The text of a file.

    Raises:
        RecordError: it cannot be read.
    """
    try:
        return Path(path).read_text("utf-8")
    except OSError as error:
        raise RecordError(f"{path}: cannot be read ({error.strerror})") from error


def read(path: str | Path) -> Document:
    """Read one document.

    Raises:
        RecordError: the file is missing, truncated, of another schema, or edited into
            something that does not validate. It is never half-read.
    """
    path = Path(path)
    try:
        data = json.loads(text_of(path))
    except ValueError as error:
        raise RecordError(
            f"{path}: is not complete JSON ({error}); remove it and run again"
        ) from error
    if not isinstance(data, dict) or "schema_version" not in data:
        raise RecordError(f"{path}: is not a result document of this book (no schema_version)")
    if data["schema_version"] != SCHEMA_VERSION:
        raise RecordError(
            f"{path}: has schema version {data['schema_version']!r}; this book reads {SCHEMA_VERSION}"
        )
    try:
        return Document.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "document"
        raise RecordError(
            f"{path}: does not validate at {where}: {first['msg']}; remove it and run again"
        ) from error


def write_text(path: str | Path, text: str) -> None:
    """Write a file so that a reader sees the old content or the new, never a part.

    Raises:
        RecordError: the folder cannot be written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
            os.chmod(name, 0o644)  # mkstemp's own 0600 would hide published rows from others
            os.replace(name, path)
        except BaseException:
            os.unlink(name)
            raise
    except OSError as error:
        raise RecordError(f"{path}: cannot be written ({error.strerror})") from error


def dumps(document: Document) -> str:
    """The document as JSON, one row per line, so that diffs are readable."""
    head = document.model_dump(mode="json", exclude={"rows"})
    rows = ",\n".join(
        json.dumps(row.model_dump(mode="json"), allow_nan=False) for row in document.rows
    )
    return json.dumps(head, indent=1, allow_nan=False)[:-2] + ',\n "rows": [\n' + rows + "\n ]\n}\n"


def write(path: str | Path, document: Document) -> None:
    """Validate and write one document atomically."""
    Document.model_validate(document.model_dump())
    write_text(path, dumps(document))


def paths(folder: str | Path) -> list[Path]:
    """Every document below `<folder>/<workload>/`, sorted.

    Hidden files and folders are none: macOS lays `._gradient.json` beside `gradient.json`.
    """
    found = sorted(Path(folder).glob("*/*.json"))
    return [p for p in found if not p.name.startswith(".") and not p.parent.name.startswith(".")]


def load(folder: str | Path) -> dict[str, list[Document]]:
    """Every document below `<folder>/<workload>/`, by workload, `reference` first.

    Raises:
        RecordError: any file there is unreadable or foreign; it is named.
    """
    found: dict[str, list[Document]] = {}
    for path in sorted(paths(folder), key=lambda p: (p.parent.name, p.stem != "reference", p.stem)):
        document = read(path)
        if document.workload != path.parent.name or document.category != path.stem:
            raise RecordError(
                f"{path}: says it is {document.workload}/{document.category}; it was moved or edited"
            )
        found.setdefault(document.workload, []).append(document)
    return found


def stamp(rows: Iterable[Row]) -> str:
    """Where some rows were made, in a few words: device, torch, commit, day of the newest."""
    made = [row.made for row in rows if row.made is not None]
    if not made:
        return "made nobody knows where"
    every = lambda name: " and ".join(sorted({str(getattr(each, name)) for each in made}))
    commits = " and ".join(sorted({each.commit[:10] for each in made}))
    dirty = " with uncommitted changes" if any(each.dirty for each in made) else ""
    newest = max(each.at for each in made)[:10]
    return f"{every('device')}, torch {every('torch')}; commit {commits}{dirty}; {newest}"


def json_schema() -> dict[str, Any]:
    """The published JSON Schema (docs/result.schema.json) of a document."""
    return Document.model_json_schema()
