"""The workloads, a folder for each kind, and the one door to them.

A workload is a module here with a function `make(sizes, device)`, and sizes of that name in
profiles.py. Nothing else lists them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from ..profiles import WORKLOADS, sizes_of
from .given import Published

if TYPE_CHECKING:
    from .base import Workload

__all__ = ["TAKES_PUBLISHED", "WORKLOADS", "Published", "home", "load"]

#: Workloads that models and data of others can be given for, and the module that reads them.
TAKES_PUBLISHED = {"text": "published"}


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
    module = import_module(f".{TAKES_PUBLISHED[name]}", __name__)
    return module.make(published, profile, torch.device(device))


def home(page: str) -> str:
    """The workload at which a page's strategies are at home; the first one where none says so."""
    for name in WORKLOADS:
        if page in getattr(import_module(f".{name}", __name__), "HOME_OF", ()):
            return name
    return WORKLOADS[0]
