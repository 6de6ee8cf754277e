"""What published models and data are called, and whether what lies in a folder has changed.

Nothing here loads torch or reads a weight: the command line asks before it starts a run.
"""

from __future__ import annotations

import json
import re
import unicodedata
from pathlib import Path

#: Bytes of a name that a board keeps: with two of them it stays within any file system's 255.
LONGEST = 80
#: The file that says what a pipeline is made of, and the one that says what a model is.
CONFIGURATIONS = "model_index.json", "config.json"
#: What `model_type` calls a pipeline.
PIPELINE = "diffusers"


def split_request(data: str) -> tuple[str, str]:
    """A data source without the request at its end, and that request ("" if there is none)."""
    found = re.search(r":(forget\d\d)$", data)
    return (data[: found.start()], found[1]) if found else (data, "")


def model_type(model: str) -> str:
    """What the configuration of a model in a folder here calls its architecture; else "".

    Pipelines of diffusers, and their parts, are all PIPELINE.
    """
    pipeline, config = (_configuration(Path(model, name)) for name in CONFIGURATIONS)
    if pipeline or "_diffusers_version" in config:
        return PIPELINE
    found = config.get("model_type")
    return found if isinstance(found, str) else ""


def _configuration(file: Path) -> dict:
    """What stands in a file of JSON; nothing where there is none that can be read."""
    try:
        found = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):  # whoever opens the model says what is wrong with it
        return {}
    return found if isinstance(found, dict) else {}


def board_slug(workload: str, data: str, model: str) -> str:
    """What a reader knows the board of published data and a published model by.

    The letters and digits of any script stay. Different sources can share it; the board's
    name has a hash of their content behind it.
    """
    return "-".join(filter(None, (workload, _readable(data), _readable(model))))


def _readable(source: str) -> str:
    path, request = split_request(source)
    # A folder given as "." is called something, too.
    name = Path(path).resolve().name if Path(path).is_dir() else Path(path).name
    text = unicodedata.normalize("NFC", f"{name} {request}".lower())
    # Letters, marks and numbers: without their marks Hindi's words would be cut to pieces.
    kept = "".join(c if unicodedata.category(c)[0] in "LMN" else " " for c in text)
    short = "-".join(kept.split()).encode()[:LONGEST].decode(errors="ignore")
    return short.strip("-")


def folder_stamp(source: str) -> list:
    """What changes when the files of a source do: names, sizes and times of a folder's.

    Of a hub id: the commits that lie in the hub's cache under it. Hidden files are left
    out, which `hf download` keeps for itself.
    """
    path = Path(split_request(source)[0])
    if path.is_dir():
        found = []
        for file in sorted(path.rglob("*")):
            name = file.relative_to(path)
            if file.is_file() and not any(part.startswith(".") for part in name.parts):
                about = file.stat()
                found.append([name.as_posix(), about.st_size, about.st_mtime_ns])
        return found
    from huggingface_hub import constants

    folder = path.as_posix().replace("/", "--")
    references = [
        Path(constants.HF_HUB_CACHE) / f"{kind}--{folder}" / "refs" / "main"
        for kind in ("models", "datasets")
    ]
    return [reference.read_text("utf-8").strip() for reference in references if reference.is_file()]
