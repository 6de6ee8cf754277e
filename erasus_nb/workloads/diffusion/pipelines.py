"""Diffusion pipelines of others: opened part by part, and refused with a sentence.

A pipeline is what diffusers saves: a `model_index.json`, and a folder for each part. Of these a
U-Net, a CLIP text encoder with its tokenizer, a scheduler's noise levels and, where there is
one, an autoencoder (`vae`) are read. A safety checker is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDPMScheduler, DiffusionPipeline, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel

from .. import hub, imagefolder
from ..identity import CONFIGURATIONS

#: Parts of a pipeline -> the class that they have to be of.
CLASSES = {"unet": "UNet2DConditionModel", "text_encoder": "CLIPTextModel", "vae": "AutoencoderKL"}
#: Settings of a U-Net with which it wants more than a noisy image, a timestep and a text.
MORE = ("addition_embed_type", "class_embed_type", "encoder_hid_dim_type", "time_cond_proj_dim")
#: A scheduler's settings that decide its noise levels.
LEVELS = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas")
#: Channels of an image -> its mode in PIL.
MODES = {1: "L", 3: "RGB"}
#: Images that one pass takes where no gradient is kept.
READ = 16


@dataclass(frozen=True)
class Pipeline:
    """The parts of a pipeline, opened; see diffusers for each."""

    unet: nn.Module
    encoder: nn.Module
    vae: nn.Module | None
    scheduler: DDPMScheduler

    @property
    def channels(self) -> int:
        """Of an image."""
        return (self.vae or self.unet).config.in_channels

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of an image."""
        side = self.unet.config.sample_size
        height, width = (side, side) if isinstance(side, int) else side
        if self.vae is None:
            return height, width
        times = 2 ** (len(self.vae.config.block_out_channels) - 1)
        return height * times, width * times

    @property
    def frozen(self) -> dict[str, Tensor]:
        """The tensors of all that is not unlearned, by name."""
        found = {"levels": self.scheduler.alphas_cumprod}
        for name, part in (("encoder", self.encoder), ("vae", self.vae)):
            if part is not None:
                found |= {f"{name} {k}": v for k, v in hub.weights(part).items()}
        return found


def open_pipeline(name: str, device: torch.device) -> Pipeline:
    """The parts of a pipeline in a folder or on the hub, in float32 and eval mode.

    Raises:
        ValueError: it is not there or no pipeline, lacks a part, or has one that cannot be used.
    """
    hub.reachable(name, "model")
    if Path(name).is_dir() and not Path(name, CONFIGURATIONS[0]).is_file():
        raise ValueError(
            f"model {name} has no {CONFIGURATIONS[0]}: it is no diffusers pipeline; save the "
            "whole pipeline (save_pretrained), not one part of it"
        )
    try:
        index = DiffusionPipeline.load_config(name)
    except Exception as error:  # whatever a library finds wrong with somebody's files
        raise hub.unreachable(name, "model", error) from error
    has = {k: v[1] for k, v in index.items() if isinstance(v, (list, tuple)) and v[1:] and v[1]}
    for part in ("unet", "text_encoder", "tokenizer", "scheduler"):
        if part not in has:
            raise ValueError(
                f"the pipeline {name} has no {part}; wanted is one that makes images of texts, "
                "with unet, text_encoder, tokenizer, scheduler and maybe a vae"
            )
    for part, wanted in CLASSES.items():
        if has.get(part, wanted) != wanted:
            raise ValueError(f"the {part} of {name} is of class {has[part]}; wanted is {wanted}")
    if "text_encoder_2" in has:
        raise ValueError(f"the pipeline {name} has two text encoders; wanted is one")
    scheduler = noise_levels(name)
    encoder = hub.open_model(
        name,
        CLIPTextModel,
        "float32",
        device,
        {"clip_text_model"},
        "a CLIP text encoder",
        "text_encoder",
    )
    unet = _part(name, UNet2DConditionModel, "unet", device)
    vae = _part(name, AutoencoderKL, "vae", device) if "vae" in has else None
    if vae is not None:
        vae.requires_grad_(False)
    found = Pipeline(unet, encoder.requires_grad_(False), vae, scheduler)
    _check_fit(name, found)
    return found


def _part(name: str, made: Any, subfolder: str, device: torch.device) -> nn.Module:
    """A part of a pipeline that diffusers opens."""
    try:
        model, loaded = made.from_pretrained(
            name,
            subfolder=subfolder,
            torch_dtype=torch.float32,
            use_safetensors=True,
            output_loading_info=True,
        )
    except Exception as error:  # whatever a library finds wrong with somebody's files
        raise hub.unreachable(name, "model", error) from error
    hub.check_whole(name, model, loaded["missing_keys"])
    return model.to(device).eval()


def noise_levels(name: str) -> DDPMScheduler:
    """The noise levels of a pipeline's scheduler, whatever sampler it is of.

    Raises:
        ValueError: it is not there, is no DDPM's, or predicts something else than the noise.
    """
    try:
        config = DDPMScheduler.load_config(name, subfolder="scheduler")
    except Exception as error:  # whatever a library finds wrong with somebody's files
        raise hub.unreachable(name, "scheduler", error) from error
    what = f"the scheduler of {name} ({config.get('_class_name', 'of no class')})"
    betas = config.get("beta_schedule") or config.get("trained_betas")
    flow = config.get("use_flow_sigmas") or config.get("rescale_betas_zero_snr")
    if not betas or not config.get("num_train_timesteps") or flow:
        raise ValueError(
            f"{what} has not the noise levels of a DDPM (num_train_timesteps and betas that "
            "leave some of the image at the last one), so nobody can train with them"
        )
    predicts = config.get("prediction_type", "epsilon")
    if predicts != "epsilon":
        raise ValueError(f"{what} predicts {predicts}; wanted is one that predicts the noise")
    try:
        return DDPMScheduler(**{k: config[k] for k in LEVELS if config.get(k) is not None})
    except Exception as error:  # a schedule that DDPM does not know
        raise ValueError(f"{what} cannot be used: {error}") from error


def _check_fit(name: str, parts: Pipeline) -> None:
    """Refuse a U-Net that wants or gives something else than the other parts give and want."""
    config, vae = parts.unet.config, parts.vae
    if wants := [each for each in MORE if config.get(each)]:
        raise ValueError(
            f"the unet of {name} wants more than a noisy image, a timestep and a text "
            f"({wants[0]} is {config[wants[0]]})"
        )
    if config.in_channels != config.out_channels:
        raise ValueError(
            f"the unet of {name} takes {config.in_channels} channels and gives "
            f"{config.out_channels}; wanted is one that gives the noise of what it takes"
        )
    if not config.sample_size:
        raise ValueError(f"the unet of {name} does not say the size of its images (sample_size)")
    if vae is not None and vae.config.latent_channels != config.in_channels:
        raise ValueError(
            f"the vae of {name} gives {vae.config.latent_channels} channels and its unet takes "
            f"{config.in_channels}"
        )
    if parts.channels not in MODES:
        raise ValueError(
            f"the images of {name} have {parts.channels} channels; wanted are 1 (grey) or 3 (RGB)"
        )
    width, reads = parts.encoder.config.hidden_size, config.cross_attention_dim
    if set(np.atleast_1d(reads).tolist()) != {width}:
        raise ValueError(
            f"the text encoder of {name} gives {width} numbers a token and its unet reads {reads}"
        )


def coded(tokenizer, said: Sequence[tuple[str, str]], longest: int) -> Tensor:
    """Captions as token ids, (n, longest), padded behind their end.

    Args:
        said: What a caption is of, for a reader, and the caption.
        longest: So many tokens the text encoder reads.

    Raises:
        ValueError: one is too long, has a word that the tokenizer does not know, or has no end.
    """
    rows = hub.token_rows(tokenizer, said, longest)
    end, unknown = tokenizer.eos_token_id, tokenizer.unk_token_id
    known = {end, tokenizer.bos_token_id, tokenizer.pad_token_id}
    for (what, text), row in zip(said, rows):
        if unknown is not None and unknown not in known and (row == unknown).any():
            strange = [w for w in text.split() if unknown in tokenizer(w)["input_ids"]] or [text]
            raise ValueError(f"the caption of {what}: the tokenizer does not know {strange[0]!r}")
        if end is None or end not in row:
            raise ValueError(
                f"the tokenizer puts no end token behind the caption of {what}: it is not that "
                "of a CLIP text encoder"
            )
    filler = end if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    return torch.stack([F.pad(row, (0, longest - len(row)), value=filler) for row in rows])


def pixels(image: Path, channels: int, size: tuple[int, int]) -> Tensor:
    """An image file as numbers in -1 to 1, float32 of shape (channels, *size).

    Raises:
        ValueError: the file is broken, or the image is of another size or mode.
    """
    found = imagefolder.picture(image)
    if found.mode != MODES[channels] or found.size != size[::-1]:
        raise ValueError(
            f"{imagefolder.named(image, found)} is not what the pipeline takes: "
            f"{size[1]} x {size[0]}, mode {MODES[channels]}"
        )
    values = torch.from_numpy(np.array(found)).float() / 127.5 - 1
    return values[None] if channels == 1 else values.movedim(-1, 0)


@torch.no_grad()
def encoded(vae: nn.Module | None, images: Tensor) -> Tensor:
    """What the U-Net works on: the mean of the latents of images, scaled; without a vae these."""
    if vae is None:
        return images
    shift = vae.config.shift_factor or 0.0
    return (vae.encode(images).latent_dist.mean - shift) * vae.config.scaling_factor


@torch.no_grad()
def decoded(vae: nn.Module | None, images: Tensor) -> Tensor:
    """What `encoded` has been made of, some images at a time."""
    if vae is None:
        return images
    shift = vae.config.shift_factor or 0.0
    scaled = (some / vae.config.scaling_factor + shift for some in images.split(READ))
    return torch.cat([vae.decode(some).sample for some in scaled])
