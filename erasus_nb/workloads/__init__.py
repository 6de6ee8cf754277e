"""The workloads, one file each, and the one door to them."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module

#: Workload -> the modules of this folder, besides base.py, that its rows depend on.
MADE_OF = {
    "synthetic": ("classifier.py", "synthetic.py"),
    "digits": ("classifier.py", "digits.py"),
    "text": ("corpus.py", "text.py"),
}
WORKLOADS = tuple(MADE_OF)


@dataclass(frozen=True)
class Published:
    """Models and data of others for workload `text`, each a hub id or a local folder.

    Args:
        model: A causal language model: the original, if `retrained` is given; else what
            original and retrained model are trained from.
        data: MUSE-News, MUSE-Books or TOFU in their authors' layouts;
            "locuslab/TOFU:forget05" is one of TOFU's smaller requests.
        retrained: The original's architecture trained without the forget set.
        tokenizer: Where the tokenizer is, if not beside the model.
    """

    model: str
    data: str
    retrained: str = ""
    tokenizer: str = ""


def load(
    name: str, profile: str = "laptop", device: str = "cpu", published: Published | None = None
):
    """Build a workload at a profile's sizes.

    Args:
        published: Models and data of others, for `text`.

    Raises:
        ValueError: an unknown workload or profile, or something published that cannot be
            used; the message says what there is.
    """
    import torch

    from ..profiles import sizes_of

    if name not in WORKLOADS:
        raise ValueError(f"there is no workload {name!r}; there are {', '.join(WORKLOADS)}")
    if published is not None:
        if name != "text":
            raise ValueError(f"published models and data are for workload text, not {name}")
        return import_module(".published", __name__).make(published, profile, torch.device(device))
    return import_module(f".{name}", __name__).make(sizes_of(profile, name), torch.device(device))
