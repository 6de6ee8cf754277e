"""The hooks of a text-conditional denoiser."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn

from ...profiles import Recipe
from ...strategy import Batch, NotApplicable
from ...task import Task, UnitGroup
from ...training import generator
from .process import Diffusion

#: Share of examples whose prompt training leaves out, so that the empty prompt means something.
DROPPED = 0.1
#: Pairs of timestep and noise that examples are looked up in by id; a prime, so that copies of
#: an image get pairs of their own. From one id to the next the timestep moves on by the golden
#: part of all, so that the timesteps of any few examples in a row are spread evenly: a mean loss
#: says more of the examples then, and less of which timesteps they happened to get.
KEYS, STRIDE = 1021, 631


class Keyed:
    """Timesteps and noises that follow from an example's id: two calls with one key agree.

    Ids below 0, of never-trained examples, have pairs like any others.

    Args:
        shape: Of an image, (C, H, W).
        levels: Timesteps there are.
    """

    def __init__(self, shape: tuple[int, ...], levels: int, device: torch.device):
        draw = generator("diffusion", "keys")
        order = (torch.arange(KEYS) * STRIDE % KEYS).double()
        self.times = ((order + 0.5) * levels / KEYS).long().to(device)
        self.noises = torch.randn((KEYS, *shape), generator=draw).to(device)

    def __call__(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Timesteps (B,) and noises (B, C, H, W) of examples by id."""
        place = ids % KEYS
        return self.times[place], self.noises[place]


class _Keeping(AttnProcessor):
    """Attention written out, as fused attention shows no probabilities; they are kept.

    Args:
        maps: Where they go, (B, heads, queries, keys) of each call.
    """

    def __init__(self, maps: list[Tensor]):
        self._maps = maps

    def __call__(self, attn, *args, **named):
        scores = attn.get_attention_scores

        def kept(*given, **rest) -> Tensor:
            found = scores(*given, **rest)  # (B * heads, queries, keys)
            self._maps.append(found.unflatten(0, (-1, attn.heads)))
            return found

        attn.get_attention_scores = kept
        try:
            return super().__call__(attn, *args, **named)
        finally:
            del attn.get_attention_scores  # the class's own is seen again


@contextmanager
def attention_kept(model: nn.Module) -> Iterator[list[Tensor]]:
    """Keep the probabilities of all cross-attention that the model does in the block.

    Yields:
        A list that grows by (B, heads, queries, keys), with gradients, at each call of a layer.
    """
    layers = [m for name, m in model.named_modules() if name.endswith("attn2")]
    before, maps = [layer.processor for layer in layers], []
    try:
        for layer in layers:
            layer.set_processor(_Keeping(maps))
        yield maps
    finally:
        for layer, processor in zip(layers, before):
            layer.set_processor(processor)


class DiffusionTask(Task):
    """The hooks of a text-conditional denoiser.

    Args:
        diffusion: Noise levels, text encoder and sampler.
        keyed: Timestep and noise of an example by its id.
        prompts: Prompts that another label is drawn from, (P, T), and what they ask for, (P,).
        make_model: Seed -> freshly initialised model.

    A batch has `pixel_values` (B, C, H, W) in -1 to 1, `prompts` (B, V, T): the token ids of V
    captions that say the same, and `kinds` (B,): what an image shows, by number. With
    gradients on, `loss` draws each example's timestep, noise and caption, and leaves a tenth
    of the captions out, from torch's global generator as base training does; else, and in
    `example_loss` and `outputs`, timestep and noise follow from the example's id and the
    caption is the first. Fields that `relabel` and `sample_labels` add change what the loss
    asks for.

    `outputs` are the predicted noise, (B, C, H, W).
    """

    def __init__(
        self,
        recipe: Recipe,
        diffusion: Diffusion,
        keyed: Keyed,
        prompts: tuple[Tensor, Tensor],
        make_model: Callable[[object], nn.Module],
        seed: object = 0,
        **rest,
    ):
        super().__init__(seed, **rest)
        self.recipe, self._keyed, self._prompts = recipe, keyed, prompts
        self._diffusion, self._make_model = replace(diffusion, meter=self.meter), make_model

    def diffusion(self) -> Diffusion:
        return self._diffusion

    # ---- the model and the loss

    def loss(self, model, batch: Batch) -> Tensor:
        """Squared error of the predicted noise, mean over pixels (Ho et al. 2020, eq. 14)."""
        if "drawn" in batch or not torch.is_grad_enabled():
            return self.example_loss(model, batch)  # what was drawn belongs to its own timestep
        images, captions = batch["pixel_values"], batch["prompts"]
        count, device = len(batch), images.device
        which = torch.randint(captions.shape[1], (count,)).to(device)
        prompts = captions[torch.arange(count, device=device), which]
        dropped = (torch.rand(count) < DROPPED).to(device)
        if "instead" in batch:  # the empty prompt is no one's wrong caption
            dropped = torch.zeros_like(dropped)
        prompts = torch.where(dropped[:, None], self._diffusion.empty, prompts)
        t = torch.randint(self._diffusion.levels, (count,)).to(device)
        noise = torch.randn(images.shape).to(device)
        return self._error(model, batch, prompts, t, noise)

    def example_loss(self, model, batch: Batch) -> Tensor:
        t, noise = self._keyed(batch["ids"])
        return self._error(model, batch, batch["prompts"][:, 0], t, noise)

    def _error(self, model, batch: Batch, prompts: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """Squared error against the noise, or against what the batch has instead of it."""
        process = self._diffusion
        noisy = process.noised(batch["pixel_values"], t, noise)
        wanted = batch["drawn"] if "drawn" in batch else noise
        if "instead" in batch:
            with torch.no_grad():
                wanted = process.predict(model, noisy, t, process.encode(batch["instead"]))
        found = process.predict(model, noisy, t, process.encode(prompts))
        return (found - wanted).square().flatten(1).mean(1)

    def outputs(self, model, batch: Batch) -> Tensor:
        t, noise = self._keyed(batch["ids"])
        noisy = self._diffusion.noised(batch["pixel_values"], t, noise)
        text = self._diffusion.encode(batch["prompts"][:, 0])
        return self._diffusion.predict(model, noisy, t, text)

    def loss_from(self, outputs: Tensor, batch: Batch) -> Tensor:
        if "instead" in batch:
            raise NotApplicable("the loss of a wrong caption asks the model what that would bring")
        wanted = batch["drawn"] if "drawn" in batch else self._keyed(batch["ids"])[1]
        return (outputs - wanted).square().flatten(1).mean(1)

    def divergence(self, student: Tensor, teacher: Tensor, T: float = 1.0) -> Tensor:
        """Mean squared difference: the KL of two Gaussians around them, up to a factor.

        A temperature divides both and its square multiplies the result, so T has no effect.
        """
        return (student - teacher).square().flatten(1).mean(1)

    def uninformed(self, outputs: Tensor) -> Tensor:
        """No noise at all: the mean of what could be there."""
        return torch.zeros_like(outputs)

    def _fresh(self, seed: object) -> nn.Module:
        return self._make_model(seed)

    # ---- captions as labels

    def relabel(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Each image with a caption of something else beside its own, in the field `instead`.

        The loss then asks that the model answers its own caption as it would answer the other.

        Source: Fan et al. (ICLR 2024), arXiv 2310.12508, equation 6, and their code.
        """
        if not len(batch):
            return batch
        prompts, kinds = self._prompts
        other = (batch["kinds"][:, None] != kinds).float().cpu()
        if not other.any(1).all():
            raise NotApplicable("there is no prompt for anything else than what is to be forgotten")
        drawn = torch.multinomial(other, 1, generator=generator)[:, 0]
        return batch.replace(instead=prompts[drawn.to(prompts.device)])

    def sample_labels(self, model, batch: Batch, generator: torch.Generator) -> Batch:
        """Each image with a noise drawn around what the model predicts, in the field `drawn`.

        The squared error is the logarithm of a Gaussian of variance 1/2 around the prediction.
        """
        with torch.no_grad():
            found = self.outputs(model, batch)
        noise = torch.randn(found.shape, generator=generator).to(found.device)
        return batch.replace(drawn=found + noise * 0.5**0.5)

    # ---- the architecture

    def cross_attention(self, model, batch: Batch) -> tuple[list[Tensor], Tensor]:
        """Attention of the noisy images to the tokens of their first captions.

        The concept is what the last word says: the digit, or the owner of a private image.
        """
        t, noise = self._keyed(batch["ids"])
        noisy = self._diffusion.noised(batch["pixel_values"], t, noise)
        prompts = batch["prompts"][:, 0]
        with attention_kept(model) as maps:
            self._diffusion.predict(model, noisy, t, self._diffusion.encode(prompts))
        places = torch.arange(prompts.shape[1], device=prompts.device)
        return maps, places == self._diffusion.last_word(prompts)[:, None]

    def unit_groups(self, model) -> list[UnitGroup]:
        """The channels between the two convolutions of every residual block."""
        return [
            UnitGroup(f"channels of {name}", f"{name}.conv1", f"{name}.conv2", f"{name}.dropout")
            for name, module in model.named_modules()
            if hasattr(module, "conv1") and hasattr(module, "time_emb_proj")
        ]

    def blocks(self, model) -> list[list[str]]:
        """What embeds image and timestep, each block of the U from input to output, the end."""
        stages = [f"down_blocks.{k}" for k in range(len(model.down_blocks))]
        stages += ["mid_block"] if model.mid_block is not None else []
        stages += [f"up_blocks.{k}" for k in range(len(model.up_blocks))]
        names = [
            n for n, m in model.named_modules() if any(True for _ in m.parameters(recurse=False))
        ]
        inside = [[n for n in names if n.startswith(f"{stage}.")] for stage in stages]
        grouped = {n for block in inside for n in block}
        rest = [n for n in names if n not in grouped]
        end = [n for n in rest if "out" in n]
        return [[n for n in rest if n not in end], *inside, end]

    def head(self, model) -> str:
        return "conv_out"

    def linears(self, model) -> list[str]:
        return [
            n
            for n, m in model.named_modules()
            if isinstance(m, (nn.Linear, nn.Conv2d)) and n != self.head(model)
        ]
