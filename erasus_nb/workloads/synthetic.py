"""Workload `synthetic`: two noisy views of a latent, ten classes, the seed board's model.

An example is a class prototype plus individual variation in an 8-d latent space, seen
through two 16-d views (one squashed by tanh, one linear) with noise of its own. A class can
be learnt from half of its examples; a canary, an example of one class filed under another,
cannot be learnt from anything but itself.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..profiles import Sizes
from ..strategy import Batch
from ..task import UnitGroup
from ..training import generator, global_seed
from .classifier import ClassifierWorkload, Fold, wrong_labels

#: Pages whose strategies are at home here.
HOME_OF = ("gradient", "parameter", "data", "ensemble")

CLASSES, LATENT, VIEW = 10, 8, 16
SEPARATION, NOISE = 6.0, 0.6
CONCEPTS = (0, 1, 2, 3)
CORE = (4, 5, 6, 7, 8, 9)


class BenchmarkModel(nn.Sequential):
    """The seed board's network, 32 -> 64 -> 64 -> 10 with ReLU; 6 922 parameters."""

    def __init__(self, seed: object):
        with global_seed(seed):
            super().__init__()
            self.hidden1, self.act1 = nn.Linear(2 * VIEW, 64), nn.ReLU()
            self.hidden2, self.act2 = nn.Linear(64, 64), nn.ReLU()
            self.head = nn.Linear(64, CLASSES)


UNITS = (
    UnitGroup("hidden 1", "hidden1", "hidden2", "act1"),
    UnitGroup("hidden 2", "hidden2", "head", "act2"),
)


def _views(labels: Tensor, draw: torch.Generator, world: dict[str, Tensor]) -> Tensor:
    """Both views of one fresh example per label, shape (n, 32)."""
    normal = lambda *shape: torch.randn(*shape, generator=draw)
    z = world["prototypes"][labels] + normal(len(labels), LATENT)
    first = torch.tanh(z @ world["to_first"]) + NOISE * normal(len(labels), VIEW)
    second = z @ world["to_second"] + NOISE * normal(len(labels), VIEW)
    return torch.cat([first, second], 1)


def make(sizes: Sizes, device: torch.device) -> ClassifierWorkload:
    """Build the workload: data are drawn once, the same in every profile of equal sizes.

    Canaries of a fold are examples of the three other concepts, filed under a core class: so
    no canary teaches a concept, and the core classes' own examples stay clean.
    """
    draw = generator("synthetic", "data")
    directions = F.normalize(torch.randn(CLASSES, LATENT, generator=draw), dim=1)
    world = {
        "prototypes": SEPARATION * directions,
        "to_first": torch.randn(LATENT, VIEW, generator=draw) / LATENT**0.5,
        "to_second": torch.randn(LATENT, VIEW, generator=draw) / LATENT**0.5,
    }

    def examples(labels: Tensor) -> Batch:
        return Batch(
            {
                "inputs": _views(labels, draw, world),
                "labels": labels,
                "ids": torch.full((len(labels),), -1),
            }
        )

    def fold_like(concept: int, n_concept: int, n_canaries: int) -> Batch:
        others = torch.tensor([c for c in CONCEPTS if c != concept])
        true = others[torch.arange(n_canaries) % len(others)]
        wrong = wrong_labels(true, CORE, draw)
        canaries = examples(true).replace(labels=wrong)
        return Batch.cat([examples(torch.full((n_concept,), concept)), canaries])

    share = sizes.canaries / (sizes.concept + sizes.canaries)
    hold = (sizes.holdout - round(share * sizes.holdout), round(share * sizes.holdout))
    train, folds = [], []
    for number, concept in enumerate(CONCEPTS):
        size = sizes.concept + sizes.canaries
        train.append(fold_like(concept, sizes.concept, sizes.canaries))
        ids = torch.arange(size) + number * size
        folds.append(
            Fold(
                concept,
                ids[: sizes.concept],
                ids[sizes.concept :],
                fold_like(concept, *hold),
                fold_like(concept, *hold),
            )
        )
    train.append(examples(torch.tensor(CORE)[torch.arange(sizes.core) % len(CORE)]))
    data = Batch.cat(train)
    test = examples(torch.arange(CLASSES * sizes.test) % CLASSES)
    mean, std = data["inputs"].mean(0), data["inputs"].std(0)
    scale = lambda batch: batch.replace(inputs=(batch["inputs"] - mean) / std)
    return ClassifierWorkload(
        name="synthetic",
        sizes=sizes,
        inputs=scale(data)["inputs"],
        labels=data["labels"],
        folds=tuple(
            Fold(f.concept_class, f.concept, f.canaries, scale(f.holdout), scale(f.validation))
            for f in folds
        ),
        test=scale(test),
        classes=CLASSES,
        model_text="BenchmarkModel (32->64->64->10)",
        data_text="Synthetic two-view data",
        unit_groups=UNITS,
        module=BenchmarkModel,
        device=device,
        in_prose=True,
        views={"first view": slice(0, VIEW), "second view": slice(VIEW, 2 * VIEW)},
    )
