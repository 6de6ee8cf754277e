"""Images of others with a caption each, laid out as Hugging Face's `imagefolder` reads them.

A folder has images, and a `metadata.csv` or `metadata.jsonl` with a line for each pair. Beside
`file_name` and `text`, a column `part` says what a pair is for, and a column `concept` may say
in a word or two what an image shows.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageOps

from ..training import generator
from . import hub


@dataclass(frozen=True)
class Line:
    """One line of a metadata file: an image, its caption and what the pair is for.

    Args:
        concept: What the image shows; "" where nobody says.
        copies: How often the pair is trained on.
    """

    image: Path
    text: str
    part: str
    concept: str
    copies: int = 1


def read(name: str, parts: Mapping[str, int], copies: bool = False) -> list[Line]:
    """The lines of all metadata files of an image folder.

    Args:
        parts: What a pair can be for -> how many pairs are needed for it.
        copies: Whether a column `copies` is looked at, where there is one.

    Raises:
        ValueError: there is no such file, a line cannot be used, or a part is missing; the
            sentence names it.
    """
    folder = hub.dataset_folder(name)
    files = [p for kind in ("csv", "jsonl") for p in sorted(folder.rglob(f"metadata.{kind}"))]
    if not files:
        raise ValueError(
            f"data {name} has no metadata.csv or metadata.jsonl, which says of each image what "
            "it shows (text) and what it is for (part)"
        )
    lines = [
        _line(file, number, row, parts, copies) for file in files for number, row in _rows(file)
    ]
    marked: dict[Path, str] = {}
    for line in lines:
        if marked.setdefault(line.image, line.part) != line.part:
            raise ValueError(
                f"image {line.image} is marked {marked[line.image]} and {line.part}: a pair "
                "belongs to one part"
            )
    for part, least in parts.items():
        found = sum(line.part == part for line in lines)
        if found < least:
            raise ValueError(
                f"data {name} marks {found or 'no'} pairs {part}; at least {least} are needed"
            )
    return lines


def _rows(file: Path) -> Iterator[tuple[int, Any]]:
    """Number and content of each line that is not empty."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as opened:
            if file.suffix == ".csv":
                reader = csv.DictReader(opened)
                for row in reader:
                    yield reader.line_num, row
            else:
                for number, line in enumerate(opened, 1):
                    if line.strip():
                        yield number, json.loads(line)
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not UTF-8 text: {error}") from error
    except (csv.Error, json.JSONDecodeError) as error:
        raise ValueError(f"{file} cannot be read: {error}") from error


def _line(file: Path, number: int, row: Any, parts: Mapping[str, int], copies: bool) -> Line:
    where = f"{file}, line {number}"
    if not isinstance(row, dict):
        raise ValueError(f"{where} is no JSON object")
    for column in ("file_name", "text", "part"):
        if column not in row:
            there = ", ".join(str(name) for name in row if name is not None)
            raise ValueError(f"{where}: there is no column {column}; there are {there}")
    for column in ("file_name", "text", "part", "concept"):
        value = row.get(column) or ""
        if not isinstance(value, str):
            raise ValueError(f"{where}: {column} is no text but of type {type(value).__name__}")
        if not value.strip() and column != "concept":
            raise ValueError(f"{where}: {column} is empty")
    name, part = Path(row["file_name"]), row["part"].strip()
    if part not in parts:
        raise ValueError(f"{where}: part is {part!r}; it is one of {', '.join(parts)}")
    if name.is_absolute() or ".." in name.parts or not (file.parent / name).is_file():
        raise ValueError(f"{where} names the image {name}, which is not in {file.parent}")
    times = str(row.get("copies") or "1").strip() if copies else "1"
    if not (times.isascii() and times.isdigit() and int(times)):
        raise ValueError(f"{where}: copies is {times!r}; it is a whole number from 1")
    concept = (row.get("concept") or "").strip()
    return Line(file.parent / name, row["text"], part, concept, int(times))


def some(lines: Sequence[Line], count: int | None) -> list[Line]:
    """At most `count` of them (None is all) in random order, the same ones every time."""
    order = torch.randperm(len(lines), generator=generator("pairs", "some", len(lines)))
    return [lines[k] for k in order[:count].tolist()]


def picture(image: Path) -> Image.Image:
    """An image file, turned as its EXIF data say, which is how `datasets` turns it.

    Raises:
        ValueError: the file is broken.
    """
    try:
        with Image.open(image) as opened:
            found = ImageOps.exif_transpose(opened)
            found.load()
    except Exception as error:  # whatever a library finds wrong with somebody's files
        raise ValueError(f"image {image} is broken: {error}") from error
    return found


def named(image: Path, found: Image.Image) -> str:
    """What a sentence calls an image: its file, size and mode."""
    return f"image {image} ({found.width} x {found.height}, mode {found.mode})"
