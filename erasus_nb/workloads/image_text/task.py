"""The hooks of a dual encoder of images and captions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...profiles import Recipe
from ...strategy import Batch, NotApplicable
from ...task import Embedding, Task, UnitGroup

#: Modality -> the tower, and the layer that projects what it makes.
TOWERS = {
    "vision": ("vision_model", "visual_projection"),
    "text": ("text_model", "text_projection"),
}
#: The logit where a caption says the same as the right one, so that it is not called wrong.
LEFT_OUT = -1e4
#: Share of pairs that training shows with their full caption.
FULL = 0.5


def encoded(model, pixel_values: Tensor, input_ids: Tensor) -> Any:
    """What CLIPModel makes of images (B, ...) and captions (N, T), which need not be pairs.

    Captions are padded behind their end token, and a causal text tower never looks behind
    it, so no attention mask is needed.
    """
    return model(input_ids=input_ids, pixel_values=pixel_values)


def members(model) -> list:
    """The dual encoders of an ensemble, or the one model.

    Raises:
        NotApplicable: the ensemble votes.
    """
    if getattr(model, "aggregation", "mean") != "mean":
        raise NotApplicable("a vote counts answers, and a dual encoder gives embeddings")
    return list(getattr(model, "models", [model]))


def embedded(model, pixel_values: Tensor, input_ids: Tensor) -> tuple[Tensor, Tensor]:
    """Unit embeddings of images (B, d) and of captions (N, d).

    An ensemble is a dual encoder, too: with the members' embeddings side by side, the cosine
    of two is the mean of the members' cosines.
    """
    parts = [encoded(m, pixel_values, input_ids) for m in members(model)]
    share = len(parts) ** -0.5
    side = lambda name: torch.cat([getattr(p, name).float() for p in parts], -1) * share
    return side("image_embeds"), side("text_embeds")


def temperature_of(model) -> Tensor:
    """What cosines are multiplied with to become logits, a scalar; of an ensemble the mean."""
    return torch.stack([m.logit_scale.float().exp() for m in members(model)]).mean()


class ImageTextTask(Task):
    """The hooks of a dual encoder (CLIP).

    Args:
        bank: Pairs that `outputs` and `example_loss` compare with.
        end: Number of the token that ends a caption.
        make_model: Seed -> freshly initialised model.

    A batch has `pixel_values` (B, C, H, W), `input_ids` (B, V, T) and `captions` (B, V): of
    each pair the full caption and V - 1 shortened ones, and a number for each that is the
    same where the words are the same. With gradients on, each pair shows one of its captions,
    drawn from torch's global generator as in base training; else the full one.

    `outputs` are logits against a fixed bank of pairs, (B, 2, 1 + K): [:, 0] an image with
    its own caption and with those of the bank, [:, 1] a caption with its own image and with
    those of the bank. The bank's embeddings are the model's own, and take no gradient.
    """

    def __init__(
        self,
        recipe: Recipe,
        bank: Batch,
        end: int,
        make_model: Callable[[object], nn.Module],
        seed: object = 0,
        **rest,
    ):
        super().__init__(seed, **rest)
        self.recipe, self._bank, self._end, self._make_model = recipe, bank, end, make_model

    # ---- the model and the loss

    def loss(self, model, batch: Batch) -> Tensor:
        """InfoNCE of each pair among the batch, the mean of both directions.

        Captions that say the same are not each other's negatives.
        """
        self.meter.count(len(batch))
        input_ids, captions = self._shown(batch)
        images, texts = embedded(model, batch["pixel_values"], input_ids)
        logits = (texts @ images.T * temperature_of(model)).T
        same = captions[:, None] == captions
        right = torch.eye(len(batch), dtype=torch.bool, device=same.device)
        logits = logits.masked_fill(same & ~right, LEFT_OUT)
        both = logits.log_softmax(1).diagonal() + logits.log_softmax(0).diagonal()
        return -both / 2

    def _shown(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The caption that each pair shows, (B, T), and its number, (B,)."""
        input_ids, captions = batch["input_ids"], batch["captions"]
        if not torch.is_grad_enabled() or captions.shape[1] == 1:
            return input_ids[:, 0], captions[:, 0]
        full = torch.rand(len(batch)) < FULL
        other = torch.randint(1, captions.shape[1], (len(batch),))
        which = other.masked_fill(full, 0).to(captions.device)
        place = torch.arange(len(batch), device=captions.device)
        return input_ids[place, which], captions[place, which]

    def example_loss(self, model, batch: Batch) -> Tensor:
        return self.loss_from(self.outputs(model, batch), batch)

    def outputs(self, model, batch: Batch) -> Tensor:
        self.meter.count(len(batch))
        own = embedded(model, batch["pixel_values"], batch["input_ids"][:, 0])
        self.meter.count(len(self._bank), backward=False)
        scale = temperature_of(model)
        return self.compared(own, self.bank_of(model), batch["captions"][:, 0], scale)

    @torch.no_grad()
    def bank_of(self, model) -> tuple[Tensor, Tensor]:
        """Unit embeddings of the bank's images and captions, (K, d) each."""
        return embedded(model, self._bank["pixel_values"], self._bank["input_ids"][:, 0])

    def compared(
        self,
        own: tuple[Tensor, Tensor],
        others: tuple[Tensor, Tensor],
        captions: Tensor,
        scale: Tensor,
    ) -> Tensor:
        """The logits of `outputs` from embeddings.

        Args:
            own: Unit embeddings of the images and captions of some pairs, (B, d) each.
            others: Those of the bank, `bank_of`.
            captions: Number of each pair's caption, (B,).
            scale: What cosines are multiplied with, a scalar.
        """
        images, texts = own
        cosines = (images * texts).sum(-1, keepdim=True)
        same = captions[:, None] == self._bank["captions"][:, 0]
        against = lambda one, side: (scale * one @ side.T).masked_fill(same, LEFT_OUT)
        both = [
            torch.cat([scale * cosines, against(one, side)], 1)
            for one, side in zip((images, texts), reversed(others))
        ]
        return torch.stack(both, 1)

    def forward(self, model, batch: Batch) -> None:
        self.meter.count(len(batch))
        embedded(model, batch["pixel_values"], batch["input_ids"][:, 0])

    def loss_from(self, outputs: Tensor, batch: Batch) -> Tensor:
        return -outputs.log_softmax(-1)[..., 0].mean(-1)

    def divergence(self, student: Tensor, teacher: Tensor, T: float = 1.0) -> Tensor:
        logs = (student / T).log_softmax(-1), (teacher / T).log_softmax(-1)
        apart = F.kl_div(*logs, reduction="none", log_target=True).sum(-1)
        return apart.mean(-1) * T**2

    def uninformed(self, outputs: Tensor) -> Tensor:
        return torch.zeros_like(outputs).where(outputs > LEFT_OUT, LEFT_OUT)

    def _fresh(self, seed: object) -> nn.Module:
        return self._make_model(seed)

    # ---- captions as labels

    def relabel(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Each image with the captions of a pair of the bank, none of which is one of its own."""
        bank, own = self._bank, batch["captions"]
        if not len(batch):
            return batch
        said = (own[:, None, :, None] == bank["captions"][:, None]).flatten(2).any(-1)
        if said.all(1).any():
            raise NotApplicable("every pair to compare with has a caption of a pair to relabel")
        drawn = torch.multinomial((~said).float().cpu(), 1, generator=generator)[:, 0]
        other = bank.take(drawn.to(own.device))
        return batch.replace(input_ids=other["input_ids"], captions=other["captions"])

    def sample_labels(self, model, batch: Batch, generator: torch.Generator) -> Batch:
        """Each image with its own caption or one of the bank's, as the model finds likely."""
        with torch.no_grad():
            chances = self.outputs(model, batch)[:, 0].softmax(-1)
        drawn = torch.multinomial(chances.cpu(), 1, generator=generator)[:, 0]
        bank = self._bank
        place = (drawn - 1).clamp(min=0).to(bank["captions"].device)
        other, own = bank.take(place), (drawn == 0).to(place.device)
        keep = lambda name: torch.where(
            own.view(-1, *[1] * (batch[name].dim() - 1)), batch[name], other[name]
        )
        return batch.replace(input_ids=keep("input_ids"), captions=keep("captions"))

    # ---- the architecture

    @staticmethod
    def _layers(model, tower: str) -> list[str]:
        layers = model.get_submodule(f"{tower}.encoder.layers")
        return [f"{tower}.encoder.layers.{k}" for k in range(len(layers))]

    def unit_groups(self, model) -> list[UnitGroup]:
        return [
            UnitGroup(
                f"{name} MLP {k}",
                f"{layer}.mlp.fc1",
                f"{layer}.mlp.fc2",
                f"{layer}.mlp.fc2",
                last=True,
            )
            for name, (tower, _) in TOWERS.items()
            for k, layer in enumerate(self._layers(model, tower), 1)
        ]

    def blocks(self, model) -> list[list[str]]:
        """The towers side by side: block k has layer k of each that is so deep.

        The last block also has what follows the last layers, and the temperature stays as it
        is: it belongs to no module.
        """
        names = [
            n for n, m in model.named_modules() if any(True for _ in m.parameters(recurse=False))
        ]
        layers = [self._layers(model, tower) for tower, _ in TOWERS.values()]
        depth = max(map(len, layers))
        # Aligned at the end, where the towers meet.
        level = {name: depth - len(some) + k for some in layers for k, name in enumerate(some)}
        inside = [
            [n for n in names for layer in level if level[layer] == k and n.startswith(f"{layer}.")]
            for k in range(depth)
        ]
        grouped = {n for block in inside for n in block}
        rest = [n for n in names if n not in grouped and n]
        start = [n for n in rest if "embed" in n or "pre_layrnorm" in n]
        inside[-1] += [n for n in rest if n not in start]
        return [start, *inside]

    def head(self, model) -> str:
        raise NotApplicable("a dual encoder has two output layers, one of each tower")

    def heads(self, model) -> list[str]:
        return [projection for _, projection in TOWERS.values()]

    def places(self, batch: Batch, module: str | None = None) -> Tensor | None:
        """All of an image; of a caption, where the text tower meets it, what ends with `end`."""
        if module is None or not module.startswith(TOWERS["text"][0]):
            return None
        ends = (batch["input_ids"][:, 0] == self._end).int()
        return ends.cumsum(1) - ends == 0

    def linears(self, model) -> list[str]:
        inside = tuple(f"{tower}.encoder.layers." for tower, _ in TOWERS.values())
        return [
            n for n, m in model.named_modules() if n.startswith(inside) and isinstance(m, nn.Linear)
        ]

    # ---- pairs of two modalities

    def modalities(self, model) -> dict[str, list[str]]:
        """See Task; the norm between a tower's last layer and its projection is left out."""
        return {
            name: [f"{tower}.embeddings", *self._layers(model, tower), projection]
            for name, (tower, projection) in TOWERS.items()
        }

    def embeddings(self, model, batch: Batch) -> dict[str, Embedding]:
        self.meter.count(len(batch))
        given = {"vision": batch["pixel_values"], "text": batch["input_ids"][:, 0]}
        found = {}
        for name, (tower, projection) in TOWERS.items():
            features = model.get_submodule(tower)(given[name]).pooler_output
            projected = model.get_submodule(projection)(features)
            found[name] = Embedding(features, F.normalize(projected, dim=-1))
        return found

    def attentions(self, model) -> dict[str, list[str]]:
        return {
            name: [f"{layer}.self_attn" for layer in self._layers(model, tower)]
            for name, (tower, _) in TOWERS.items()
        }
