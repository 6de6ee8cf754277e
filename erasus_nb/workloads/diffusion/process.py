"""How a text-conditional denoiser is trained, asked and sampled from: what `task.diffusion()` is.

A denoiser predicts the noise in a noisy image, told the timestep and a text. The text encoder
is frozen, as in Stable Diffusion: the model that is trained, and unlearned, is the denoiser.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import torch
from diffusers import DDIMScheduler, DDPMScheduler
from diffusers.schedulers.scheduling_ddim import DDIMSchedulerOutput
from torch import Tensor, nn
from torch.func import functional_call

from ...strategy import NotApplicable
from ...task import Counting, Meter

#: Images that one forward pass takes where no gradient is kept.
READING = 512


class Sampler(DDIMScheduler):
    """DDIM without noise of its own, whose steps end at the level of the next timestep.

    The step of diffusers goes `levels // steps` timesteps down. Where the number of steps does
    not divide that of the levels, this is not the next timestep, so that an image has another
    noise level than the network is told, and is not clean in the end.

    Source: Song et al. (ICLR 2021), arXiv 2010.02502, equation 12 with sigma 0.
    """

    def step(self, model_output: Tensor, timestep, sample: Tensor) -> DDIMSchedulerOutput:
        """From the level of a timestep to that of the next one; after the last, to none.

        Args:
            model_output: The predicted noise, (n, C, H, W).
            timestep: One of `timesteps`.
            sample: Images at its level, (n, C, H, W).
        """
        t = int(timestep)
        below = max((s for s in self.timesteps.tolist() if s < t), default=-1)
        level = self.alphas_cumprod[t]
        after = self.alphas_cumprod[below] if below >= 0 else self.final_alpha_cumprod
        clean = (sample - (1 - level) ** 0.5 * model_output) / level**0.5
        clean = clean.clamp(-self.config.clip_sample_range, self.config.clip_sample_range)
        less = after**0.5 * clean + (1 - after) ** 0.5 * model_output
        return DDIMSchedulerOutput(prev_sample=less, pred_original_sample=clean)


@dataclass(frozen=True)
class Diffusion:
    """The noise levels, the frozen text encoder, and the sampler around a denoiser.

    Args:
        scheduler: The noise level of every timestep, 0 (clean) to its last (noise only).
        encoder: Token ids (n, T) -> hidden states (n, T, d); frozen.
        empty: Token ids of the empty prompt, (T,).
        end: Id of the token that ends a prompt.
        steps, guidance: Of the sampler, where a call says nothing else.
        meter: Counts the passes.
    """

    scheduler: DDPMScheduler
    encoder: nn.Module
    empty: Tensor
    end: int
    steps: int
    guidance: float
    meter: Counting = field(default_factory=lambda: Meter().counting)

    # ---- text

    @torch.no_grad()
    def encode(self, prompts: Tensor) -> Tensor:
        """What the frozen text encoder makes of prompts (n, T): hidden states (n, T, d)."""
        return self.encoder(prompts).last_hidden_state

    def encode_with(self, prompts: Tensor, word: int, embedding: Tensor) -> Tensor:
        """The same with another embedding (d,) for the word of this id, with its gradient."""
        table = self.encoder.get_input_embeddings()
        name = next(n for n, module in self.encoder.named_modules() if module is table)
        place = torch.tensor([word], device=embedding.device)
        weight = table.weight.index_put((place,), embedding)
        given = {f"{name}.weight": weight}
        return functional_call(self.encoder, given, (prompts,)).last_hidden_state

    @cached_property
    def _nothing(self) -> Tensor:
        return self.encode(self.empty[None])

    def nothing(self, count: int) -> Tensor:
        """Hidden states of the empty prompt, (count, T, d)."""
        return self._nothing.expand(count, -1, -1)

    def last_word(self, prompts: Tensor) -> Tensor:
        """Place of the last word of each prompt, the one before its end token, (n,)."""
        return (prompts == self.end).int().argmax(1) - 1

    # ---- noise

    @property
    def levels(self) -> int:
        """How many timesteps there are."""
        return self.scheduler.config.num_train_timesteps

    def noised(self, images: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """Images (B, ...) at the noise levels of timesteps t (B,), in the images' precision."""
        return self.scheduler.add_noise(images, noise.to(images.dtype), t)

    def predict(self, model, noisy: Tensor, t: Tensor, text: Tensor) -> Tensor:
        """The noise that a denoiser sees in noisy images, same shape.

        Several denoisers that answer together predict the mean of their predictions.

        Args:
            noisy: (B, C, H, W).
            t: Timesteps, (B,).
            text: Hidden states, (B, T, d).

        Raises:
            NotApplicable: they vote.
            ValueError: what comes back is no noise for these images.
        """
        self.meter.count(len(noisy))
        if getattr(model, "aggregation", "mean") != "mean":
            raise NotApplicable("a vote counts answers, and a denoiser gives images")
        members = getattr(model, "models", None) or [model]
        found = [each(noisy, t, encoder_hidden_states=text).sample for each in members]
        if wrong := [one for one in found if one.shape != noisy.shape]:
            shape, other = tuple(noisy.shape), tuple(wrong[0].shape)
            raise ValueError(f"a denoiser of images {shape} answers in their shape, not in {other}")
        return found[0] if len(found) == 1 else torch.stack(found).mean(0)

    def answer(self, model, noisy: Tensor, t: Tensor, text: Tensor) -> Tensor:
        """The same, with the guidance of a model that brings its own (`answer`)."""
        own = getattr(model, "answer", None)
        return self.predict(model, noisy, t, text) if own is None else own(self, noisy, t, text)

    def guided(self, model, noisy: Tensor, t: Tensor, text: Tensor, guidance: float) -> Tensor:
        """The same with classifier-free guidance: e(null) + w (e(text) - e(null)).

        Source: Ho and Salimans (2022), arXiv 2207.12598, with w as in Stable Diffusion's code.
        """
        if guidance == 1:
            return self.predict(model, noisy, t, text)
        both = torch.cat([self.nothing(len(noisy)), text])
        without, told = self.predict(model, noisy.repeat(2, 1, 1, 1), t.repeat(2), both).chunk(2)
        return without + guidance * (told - without)

    # ---- sampling

    def sampler(self, steps: int | None = None) -> Sampler:
        """A DDIM sampler with so many steps, from noise to image; see its `timesteps`.

        Their spacing is "trailing": the first is the noisiest level there is, the last is one
        stride above the clean image.

        Raises:
            ValueError: fewer steps than one, or more than there are timesteps.
        """
        steps = self.steps if steps is None else steps
        if not 1 <= steps <= self.levels:
            raise ValueError(f"a sampler takes 1 to {self.levels} steps, got {steps}")
        made = Sampler.from_config(self.scheduler.config, timestep_spacing="trailing")
        made.set_timesteps(steps)
        # The same, counted in whole numbers: adding up strides of 1000 / 61 brings one too many.
        down = self.levels * torch.arange(steps, 0, -1, dtype=torch.double) / steps
        made.timesteps = (down.round().long() - 1).to(self.empty.device)
        return made

    def path(
        self,
        model,
        text: Tensor,
        noise: Tensor,
        *,
        steps: int | None = None,
        guidance: float | None = None,
        first: int = 0,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Every step of sampling: (timestep, image at its noise level), then (-1, the image).

        Args:
            text: Hidden states of the prompts, (n, T, d).
            noise: The images to start from, (n, C, H, W), at the level of step `first`.
            first: Number of the first step, counted from the noisiest.
        """
        guidance = self.guidance if guidance is None else guidance
        sampler, images = self.sampler(steps), noise.to(text.dtype)
        for t in sampler.timesteps[first:]:
            yield t, images
            with torch.no_grad():
                found = self.guided(model, images, t.expand(len(images)), text, guidance)
                images = sampler.step(found, t, images).prev_sample
        yield torch.tensor(-1), images

    @torch.no_grad()
    def sample(self, model, text: Tensor, noise: Tensor, **how) -> Tensor:
        """Images of prompts, (n, C, H, W), by DDIM; see `path`.

        A model that brings a sampler of its own (`sample`) is sampled from with it.
        """
        parts = zip(text.split(READING), noise.split(READING))
        own = getattr(model, "sample", None)
        if own is not None:
            return torch.cat([own(self, *part, **how) for part in parts])
        return torch.cat([self._last(model, *part, **how) for part in parts])

    def _last(self, model, text: Tensor, noise: Tensor, **how) -> Tensor:
        *_, (_, images) = self.path(model, text, noise, **how)
        return images

    @torch.no_grad()
    def inverted(self, model, images: Tensor, text: Tensor, steps: int | None = None) -> Tensor:
        """The noise from which DDIM without guidance would make these images, (n, C, H, W).

        Going up to a timestep takes the noise that the model sees there, where the image is not
        yet: it is put there with the noise seen on the way, and looked at again.

        Source: Song et al. (ICLR 2021), arXiv 2010.02502, equation 14 run backwards; the second
        look is one iteration of Pan et al. (ICCV 2023), arXiv 2309.04907.
        """
        times = self.sampler(steps).timesteps.flip(0)
        level = self.scheduler.alphas_cumprod.to(images.device)
        before = torch.ones((), device=images.device)
        for t in times:
            there = images
            for _ in range(2):
                found = self.predict(model, there, t.expand(len(there)), text)
                clean = (images - (1 - before).sqrt() * found) / before.sqrt()
                there = level[t].sqrt() * clean + (1 - level[t]).sqrt() * found
            images, before = there, level[t]
        return images
