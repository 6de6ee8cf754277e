"""The workloads, one file each, and the one door to them."""

from __future__ import annotations

from importlib import import_module

#: Workload -> the modules of this folder, besides base.py, that its rows depend on.
MADE_OF = {
    "synthetic": ("classifier.py", "synthetic.py"),
    "digits": ("classifier.py", "digits.py"),
    "text": ("corpus.py", "text.py"),
}
WORKLOADS = tuple(MADE_OF)


def load(name: str, profile: str = "laptop", device: str = "cpu"):
    """Build a workload at a profile's sizes.

    Raises:
        ValueError: an unknown workload or profile; the message says which there are.
    """
    import torch

    from ..profiles import sizes_of

    if name not in WORKLOADS:
        raise ValueError(
            f"there is no workload {name!r}; there are {', '.join(WORKLOADS)}"
        )
    return import_module(f".{name}", __name__).make(
        sizes_of(profile, name), torch.device(device)
    )
