"""The workloads, a folder for each kind, and the one door to them.

A workload is a module here with a function `make(sizes, device)`, and sizes of that name in
profiles.py. It takes models and data of others if its folder has a module `published`. Nothing
else lists them.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from ..profiles import WORKLOADS, sizes_of
from .given import Published
from .identity import model_type

if TYPE_CHECKING:
    from .base import Workload

__all__ = ["TAKES_PUBLISHED", "WORKLOADS", "Published", "home", "load", "made_for"]

#: Workloads that models and data of others can be given for.
TAKES_PUBLISHED = tuple(
    name for name in WORKLOADS if Path(__file__).with_name(name).joinpath("published.py").is_file()
)


def load(
    name: str, profile: str = "laptop", device: str = "cpu", published: Published | None = None
) -> Workload:
    """Build a workload at a profile's sizes.

    Args:
        published: Models and data of others, where the workload takes them.

    Raises:
        ValueError: an unknown workload or profile, or something published that cannot be
            used; the message says what there is.
    """
    import torch

    if name not in WORKLOADS:
        raise ValueError(f"there is no workload {name!r}; there are {', '.join(WORKLOADS)}")
    if published is None:
        module = import_module(f".{name}", __name__)
        return module.make(sizes_of(profile, name), torch.device(device))
    if name not in TAKES_PUBLISHED:
        raise ValueError(
            f"published models and data are for workload {' or '.join(TAKES_PUBLISHED)}, not {name}"
        )
    return _door(name).make(published, profile, torch.device(device))


def _door(name: str):
    """The module that reads models and data of others for a workload."""
    return import_module(f".{name}.published", __name__)


def made_for(page: str, model: str, asked: Sequence[str] = ()) -> str:
    """The workload that a model of others is for.

    The one asked for. Where none is: that of the page, if it takes any; else the first that
    takes models of this type, if the model is in a folder here; else the first that takes any.

    Args:
        page: The notebook that is given the model.
        model: Its hub id or folder.
        asked: The workloads that the notebook was asked for.

    Raises:
        ValueError: asked for several workloads, or for one that takes no models of others.
    """
    if asked and (len(asked) > 1 or asked[0] not in TAKES_PUBLISHED):
        raise ValueError(
            "published models and data are for one workload: leave workloads empty or give "
            + " or ".join(str([name]) for name in TAKES_PUBLISHED)
        )
    if asked:
        return asked[0]
    if (name := home(page)) in TAKES_PUBLISHED:
        return name
    if found := model_type(model):
        fitting = [name for name in TAKES_PUBLISHED if found in _door(name).MODELS]
        return (fitting or TAKES_PUBLISHED)[0]
    return TAKES_PUBLISHED[0]


def home(page: str) -> str:
    """The workload at which a page's strategies are at home; the first one where none says so."""
    for name in WORKLOADS:
        if page in _home_of(name):
            return name
    return WORKLOADS[0]


@cache
def _home_of(name: str) -> tuple[str, ...]:
    """What a workload's module assigns to HOME_OF, read and not run: who ranks needs no torch."""
    here = Path(__file__).parent
    file = next(f for f in (here / f"{name}.py", here / name / "__init__.py") if f.is_file())
    for node in ast.parse(file.read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "HOME_OF":
            return tuple(ast.literal_eval(node.value))
    return ()
