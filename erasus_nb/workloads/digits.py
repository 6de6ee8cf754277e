"""Workload `digits`: real 8x8 scans of handwritten digits, a small convolutional network.

scikit-learn ships the scans. Each image gets fixed pixel noise, drawn once (a bad sensor):
clean digits are so easy that nothing is memorised and there is nothing to unlearn.
"""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from ..profiles import Sizes
from ..strategy import Batch
from ..task import UnitGroup
from ..training import generator, global_seed
from .classifier import ClassifierWorkload, Fold, wrong_labels

CLASSES = 10
NOISE = 0.6  # of the [-1, 1] pixel scale
CONCEPTS = (3, 5, 7, 9)
CORE = (0, 1, 2, 4, 6, 8)


class DigitsModel(nn.Sequential):
    """Two 3x3 convolutions (16, then 32 with stride 2), a layer of 128, ten logits; 71 754 parameters."""

    def __init__(self, seed: object):
        with global_seed(seed):
            super().__init__()
            self.conv1, self.act1 = nn.Conv2d(1, 16, 3, padding=1), nn.ReLU()
            self.conv2, self.act2 = nn.Conv2d(16, 32, 3, padding=1, stride=2), nn.ReLU()
            self.flatten = nn.Flatten()
            self.hidden, self.act3 = nn.Linear(32 * 16, 128), nn.ReLU()
            self.head = nn.Linear(128, CLASSES)


UNITS = (
    UnitGroup("channels 1", "conv1", "conv2", "act1"),
    UnitGroup("channels 2", "conv2", "hidden", "act2", columns=16),
    UnitGroup("hidden", "hidden", "head", "act3"),
)


def make(sizes: Sizes, device: torch.device) -> ClassifierWorkload:
    """Build the workload: every scan is used at most once.

    Canaries are scans of core digits filed under another core digit: no canary teaches a
    concept.
    """
    scans = load_digits()
    draw = generator("digits", "data")
    images = torch.tensor(scans.images, dtype=torch.float32)[:, None] / 8 - 1
    images = images + NOISE * torch.randn(images.shape, generator=draw)
    digit = torch.tensor(scans.target)
    left = {}
    for c in range(CLASSES):
        mine = (digit == c).nonzero()[:, 0]
        left[c] = mine[torch.randperm(len(mine), generator=draw)]

    def take(c: int, count: int) -> Tensor:
        if len(left[c]) < count:
            raise ValueError(f"digits: not enough scans of {c} for these sizes")
        taken, left[c] = left[c][:count], left[c][count:]
        return taken

    def rows(index: Tensor, labels: Tensor | None = None) -> Batch:
        return Batch(
            {
                "inputs": images[index],
                "labels": digit[index] if labels is None else labels,
                "ids": torch.full((len(index),), -1),
            }
        )

    def fold_like(concept: int, n_concept: int, n_canaries: int) -> Batch:
        sources = [CORE[i % len(CORE)] for i in range(n_canaries)]
        index = torch.cat([take(c, sources.count(c)) for c in CORE if c in sources])
        canaries = rows(index, wrong_labels(digit[index], CORE, draw))
        return Batch.cat([rows(take(concept, n_concept)), canaries])

    share = sizes.canaries / (sizes.concept + sizes.canaries)
    hold = (sizes.holdout - round(share * sizes.holdout), round(share * sizes.holdout))
    train, folds = [], []
    size = sizes.concept + sizes.canaries
    for number, concept in enumerate(CONCEPTS):
        train.append(fold_like(concept, sizes.concept, sizes.canaries))
        ids = torch.arange(size) + number * size
        # Scans are few: validation is a third as large as the holdout.
        folds.append(
            Fold(
                concept,
                ids[: sizes.concept],
                ids[sizes.concept :],
                fold_like(concept, *hold),
                fold_like(concept, *(part // 3 for part in hold)),
            )
        )
    train.append(rows(torch.cat([take(c, sizes.core // len(CORE)) for c in CORE])))
    data = Batch.cat(train)
    # Unseen scans of the concepts are the holdout's; the core's are set aside here.
    test = rows(torch.cat([take(c, sizes.test) for c in CORE]))
    return ClassifierWorkload(
        name="digits",
        sizes=sizes,
        inputs=data["inputs"],
        labels=data["labels"],
        folds=tuple(folds),
        test=test,
        classes=CLASSES,
        model_text="DigitsModel (conv16 -> conv32 -> 128 -> 10)",
        data_text="Real 8x8 scans (scikit-learn digits) with fixed pixel noise",
        unit_groups=UNITS,
        module=DigitsModel,
        device=device,
        in_prose=True,
    )
