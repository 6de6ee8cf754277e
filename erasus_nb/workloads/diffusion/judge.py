"""The judges: classifiers that say what a generated image shows. No denoiser's data trains them.

Which judge, its threshold and its seed decide the numbers, so each row names them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...training import generator, global_seed

#: An image shows a digit if the judge gives it at least this probability.
THRESHOLD = 0.5
EPOCHS, BATCH, STEP = 25, 50, 2e-3
#: Standard deviation of the noise that a judge is trained with, so that a sample which is not
#: quite clean is judged by its shape.
BLUR = 0.1


@dataclass(frozen=True)
class Judge:
    """A trained classifier of 8x8 images.

    Args:
        name: What a row calls it, with its threshold and seed.
        body: Images (B, 1, 8, 8) -> features (B, 32).
        head: Features -> logits (B, 10).
        accuracy: On never-trained scans.
    """

    name: str
    body: nn.Module
    head: nn.Module
    accuracy: float

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """What the last layer reads of each image, (B, 32)."""
        return self.body(images)

    @torch.no_grad()
    def sees(self, images: Tensor) -> Tensor:
        """The digit that each image shows, (B,); -1 where no digit reaches the threshold."""
        chance, digit = self.head(self.body(images)).softmax(-1).max(-1)
        return digit.where(chance >= THRESHOLD, -1)

    def to(self, device: torch.device) -> Judge:
        """The same judge on a device."""
        return replace(self, body=self.body.to(device), head=self.head.to(device))

    def shows(self, images: Tensor, digits: Tensor) -> Tensor:
        """Whether each image shows the digit asked for, bool, (B,)."""
        return self.sees(images) == digits


def _convolutions() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 32, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.Flatten()),
        *(nn.Linear(64 * 16, 32), nn.Tanh()),
    )


def _layers() -> nn.Module:
    return nn.Sequential(
        *(nn.Flatten(), nn.Linear(64, 256), nn.ReLU()),
        *(nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 32), nn.Tanh()),
    )


#: Name -> the body. The second is of another kind, so that it errs elsewhere.
BODIES = {"convolutional judge": _convolutions, "dense judge": _layers}


def trained(
    kind: str, images: Tensor, digits: Tensor, unseen: tuple[Tensor, Tensor], seed: int = 0
) -> Judge:
    """Train a judge.

    Args:
        kind: A name of BODIES.
        images, digits: Its own training scans.
        unseen: Further images and digits, to say how good it is.
    """
    draw = generator("judge", kind, seed)
    with global_seed(("judge", kind, seed)):
        body, head = BODIES[kind](), nn.Linear(32, 10)
    parameters = [*body.parameters(), *head.parameters()]
    step = torch.optim.AdamW(parameters, STEP, weight_decay=1e-2)
    for _ in range(EPOCHS):
        for part in torch.randperm(len(images), generator=draw).split(BATCH):
            noise = BLUR * torch.randn(images[part].shape, generator=draw)
            logits = head(body(images[part] + noise))
            loss = F.cross_entropy(logits, digits[part], label_smoothing=0.05)
            step.zero_grad(set_to_none=True)
            loss.backward()
            step.step()
    body, head = (part.eval().requires_grad_(False) for part in (body, head))
    name = f"{kind} (probability at least {THRESHOLD:g}, seed {seed})"
    judge = Judge(name, body, head, 0.0)
    return replace(judge, accuracy=float(judge.shows(*unseen).double().mean()))
