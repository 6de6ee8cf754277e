"""Named sizes: how big a run is. The only place where sizes live."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

#: Training seeds reserved for choosing settings; a reported row never uses one.
TUNING_SEEDS = (1000, 1001, 1002, 1003)


@dataclass(frozen=True)
class Recipe:
    """How a workload's original and retrained models are trained.

    Args:
        epochs, lr, batch_size, optimizer, weight_decay: As usual.
        warmup: Share of all steps over which the step size rises from 0.
        final: What the step size falls to by the last step, on half a cosine, as a share
            of `lr`; 1 keeps it constant.
        clip: Largest gradient norm of a step; None does not clip.
    """

    epochs: int
    lr: float
    batch_size: int = 32
    optimizer: str = "adamw"
    weight_decay: float = 0.0
    warmup: float = 0.0
    final: float = 1.0
    clip: float | None = None

    def steps(self, examples: int) -> int:
        """Optimiser steps of training on so many examples; the last batch may be smaller."""
        return self.epochs * math.ceil(examples / self.batch_size)


@dataclass(frozen=True)
class Sizes:
    """One workload in one profile.

    Args:
        seeds: Training seeds of a run (original, retrained and unlearned redrawn together).
        concept: Examples of the fold's concept class, per fold.
        canaries: Mislabelled examples per fold; a request is `concept + canaries` examples.
        core: Training examples of the classes that no fold asks to forget.
        holdout: Never-trained examples with the composition of a fold, per fold.
        test: Further never-trained, correctly labelled examples per class (`digits`: per core
            class; its concepts' unseen scans are the holdout's).
        shadows: Shadow models behind LiRA-lite and the memorisation scores.
        recipe: Base training.
    """

    seeds: int
    concept: int
    canaries: int
    core: int
    holdout: int
    test: int
    shadows: int
    recipe: Recipe

    def __post_init__(self):
        if self.concept < 1 or self.canaries < 1:
            raise ValueError(
                "a request must ask to forget a concept and canaries, at least one each"
            )


@dataclass(frozen=True)
class TextSizes:
    """The language-model workload in one profile.

    Args:
        seeds: Training seeds of a run.
        people: People per fold; a request is everything about them.
        core: People whom no fold asks to forget.
        holdout: Never-trained people, per fold.
        passages, sheets: News passages and sheets of four facts, per person.
        fillers: Sentences without personal facts in a passage.
        architecture: "llama" or "gpt2".
        layers, width, heads: Of the model.
        recipe: Base training.
        spread: Standard deviation of the initial weights.
    """

    seeds: int
    people: int
    core: int
    holdout: int
    passages: int
    sheets: int
    fillers: int
    layers: int
    width: int
    heads: int
    recipe: Recipe
    architecture: str = "llama"
    #: transformers' own 0.02 suits models of thousands of units and starts one of a hundred
    #: too flat: with 0.05, and a larger step, 16 epochs teach what took 24.
    spread: float = 0.05


@dataclass(frozen=True)
class ImageTextSizes:
    """The image-text workload in one profile.

    Args:
        seeds: Training seeds of a run.
        writers: Invented writers per fold; a request is all their pairs.
        core: Writers whom no fold asks to forget.
        holdout, validation: Never-trained writers, per fold.
        scans: Scans of each writer.
        words: Different first, and different second, names.
        bank: Never-trained pairs that outputs and per-example losses compare with.
        layers, width, heads: Of each tower.
        projection: Length of the embeddings.
        patch: Side of the squares that a scan is cut into, in pixels.
        recipe: Base training.
    """

    seeds: int
    writers: int
    core: int
    holdout: int
    validation: int
    scans: int
    words: int
    bank: int
    layers: int
    width: int
    heads: int
    projection: int
    patch: int
    recipe: Recipe


@dataclass(frozen=True)
class DiffusionSizes:
    """The diffusion workload in one profile.

    Args:
        seeds: Training seeds of a run.
        concept: Scans of the fold's digit, per fold.
        private: Private scans, per fold; copies: how often each is trained on.
        core: Scans of each digit that no fold asks to forget.
        holdout, validation: Never-trained scans of the digit, and as many private ones, per fold.
        judge: Scans of each digit that the judges are trained on.
        utility: Never-trained scans of each digit that samples are compared with.
        samples: Samples of each kept caption; tries: of each private one.
        channels: Of the denoiser's two levels; text: width of the text encoder.
        recipe: Base training.
        steps, guidance: Of the sampler.
    """

    seeds: int
    concept: int
    private: int
    copies: int
    core: int
    holdout: int
    validation: int
    judge: int
    utility: int
    samples: int
    tries: int
    channels: tuple[int, int]
    text: int
    recipe: Recipe
    steps: int = 5
    guidance: float = 2.0


@dataclass(frozen=True)
class PublishedSizes:
    """A published language model on published data, in one profile.

    Args:
        seeds: Seeds of a run. Two published models differ in nothing but a strategy's draws;
            a model trained here differs in its batch orders too.
        tokens: Longest training example; longer texts become several.
        examples: At most so many training examples of the retain set, of each fold but the
            first, and of the validation texts; None is all.
        probes: At most so many passages and questions of a kind; None is all.
        recipe: Base training, where original and retrained model are trained here.
        dtype: Of the weights: "bfloat16" or "float32".
        checkpointing: From so many parameters on, activations are computed again in the
            backward pass instead of being kept.
        forget: At most so many training examples of the first fold; None is all. Whoever
            cuts it asks about texts that were not there.
        reading: Longest text that is read word by word, in tokens.
    """

    seeds: int
    tokens: int
    examples: int | None
    probes: int | None
    recipe: Recipe
    dtype: str = "bfloat16"
    checkpointing: int = 200_000_000
    forget: int | None = None
    reading: int = 2048  # as long as MUSE's


@dataclass(frozen=True)
class PublishedPairSizes:
    """A published CLIP model on a published image folder, in one profile.

    Args:
        seeds: Seeds of a run; see PublishedSizes.
        retain: At most so many retain pairs; None is all.
        probes: At most so many holdout, validation and test pairs each; None is all.
        bank: Test pairs that outputs and per-example losses compare with, at most half of
            them; no measurement uses them.
        recipe: Base training, where original and retrained model are trained here.
        dtype: Of the weights: "bfloat16" or "float32". The models are small enough for the
            latter, which loses no small step.
        forget: At most so many forget pairs; None is all.
    """

    seeds: int
    retain: int | None
    probes: int | None
    bank: int
    recipe: Recipe
    dtype: str = "float32"
    forget: int | None = None


@dataclass(frozen=True)
class PublishedDiffusionSizes:
    """A published diffusion pipeline on a published image folder, in one profile.

    Args:
        seeds: Seeds of a run; see PublishedSizes.
        retain: At most so many retain pairs; None is all.
        probes: At most so many holdout, validation, test and judge pairs each, but four test and
            judge pairs of every concept; None is all.
        prompts: At most so many captions each of the concept, of memorised images and of kept
            concepts that images are made from.
        samples: Images made of each; noises: of each caption of the concept, of which the best
            counts.
        recipe: Base training, where original and retrained model are trained here.
        steps, guidance: Of the sampler.
        forget: At most so many forget pairs; None is all.
        dtype: Of the weights. Small steps are not rounded away in "float32".
    """

    seeds: int
    retain: int | None
    probes: int | None
    prompts: int
    samples: int
    noises: int
    recipe: Recipe
    steps: int
    guidance: float = 7.5  # as Stable Diffusion's pipeline
    forget: int | None = None
    dtype: str = "float32"


#: What TOFU's authors fine-tune with: 5 epochs, 1e-5, weight decay 0.01.
_FINE_TUNING = Recipe(5, 1e-5, 8, weight_decay=0.01)
#: Our choice, of the size that fine-tuning a CLIP model usually takes; not tuned.
_PAIR_TUNING = Recipe(10, 1e-5, 64, weight_decay=0.1, warmup=0.1, final=0.0, clip=1.0)
#: Step size, weight decay and clipping of diffusers' own script for fine-tuning Stable Diffusion
#: (train_text_to_image.py); epochs and batch are our choice. Not tuned.
_IMAGE_TUNING = Recipe(50, 1e-5, 16, weight_decay=0.01, clip=1.0)

#: profile -> workload -> sizes of published models and data.
PUBLISHED: dict[str, dict[str, PublishedSizes | PublishedPairSizes | PublishedDiffusionSizes]] = {
    # Too few steps for bfloat16, which rounds a step of 1e-5 away more often than not.
    "smoke": {
        "text": PublishedSizes(
            1, 128, 16, 8, replace(_FINE_TUNING, epochs=1), dtype="float32", forget=16
        ),
        "image_text": PublishedPairSizes(
            1, 32, 16, 8, replace(_PAIR_TUNING, epochs=1, batch_size=16), forget=16
        ),
        "diffusion": PublishedDiffusionSizes(
            1, 32, 16, 4, 1, 3, replace(_IMAGE_TUNING, epochs=1), 3, forget=16
        ),
    },
    "laptop": {
        "text": PublishedSizes(2, 512, 2000, 100, _FINE_TUNING),
        "image_text": PublishedPairSizes(2, 2000, 500, 64, _PAIR_TUNING),
        "diffusion": PublishedDiffusionSizes(2, 2000, 500, 12, 4, 12, _IMAGE_TUNING, 25),
    },
    "full": {
        "text": PublishedSizes(3, 2048, None, None, _FINE_TUNING),
        "image_text": PublishedPairSizes(3, None, None, 128, _PAIR_TUNING),
        "diffusion": PublishedDiffusionSizes(3, None, None, 100, 4, 24, _IMAGE_TUNING, 50),
    },
}

#: Base training of `text`.
_LANGUAGE = Recipe(16, 8e-3, 10, weight_decay=0.01, warmup=0.15, final=0.05, clip=1.0)

#: Base training of `image_text`.
_CONTRASTIVE = Recipe(120, 2e-3, 126, weight_decay=0.01, warmup=0.05, final=0.02, clip=1.0)

#: Base training of `diffusion`.
_DENOISING = Recipe(36, 5e-3, 64, warmup=0.1, final=0.02, clip=1.0)

#: profile -> workload -> sizes. `smoke` is for plumbing: its rows never enter a board.
#: `synthetic` has the seed board's sizes: 64 forget, 256 retain, batch 32. `digits` asks for
#: more, because 104 forget against 104 holdout examples is what an AUC needs.
PROFILES: dict[str, dict[str, Sizes | TextSizes | ImageTextSizes | DiffusionSizes]] = {
    "smoke": {
        "synthetic": Sizes(2, 44, 20, 64, 96, 20, 4, Recipe(8, 3e-3)),
        "digits": Sizes(2, 24, 15, 120, 39, 20, 4, Recipe(3, 2e-3)),
        "text": TextSizes(2, 4, 4, 6, 2, 2, 1, 2, 32, 2, replace(_LANGUAGE, epochs=2)),
        "image_text": ImageTextSizes(
            2,
            4,
            4,
            4,
            4,
            6,
            24,
            16,
            2,
            32,
            2,
            32,
            2,
            replace(_CONTRASTIVE, epochs=4, batch_size=64),
        ),
        "diffusion": DiffusionSizes(
            2, 8, 4, 4, 8, 8, 4, 20, 10, 1, 1, (8, 16), 16, replace(_DENOISING, epochs=2), 3
        ),
    },
    "laptop": {
        "synthetic": Sizes(24, 44, 20, 64, 256, 100, 32, Recipe(50, 3e-3)),
        "digits": Sizes(8, 64, 40, 384, 104, 45, 16, Recipe(20, 2e-3)),
        "text": TextSizes(5, 16, 16, 20, 2, 4, 1, 2, 96, 4, _LANGUAGE),
        "image_text": ImageTextSizes(6, 18, 12, 18, 9, 6, 24, 64, 2, 96, 4, 64, 4, _CONTRASTIVE),
        "diffusion": DiffusionSizes(
            5, 44, 16, 8, 44, 24, 12, 50, 24, 3, 4, (24, 48), 64, _DENOISING
        ),
    },
    "full": {
        "synthetic": Sizes(64, 44, 20, 64, 256, 400, 128, Recipe(50, 3e-3)),
        "digits": Sizes(24, 64, 40, 384, 104, 45, 128, Recipe(20, 2e-3)),
        "text": TextSizes(10, 16, 16, 20, 2, 4, 1, 2, 96, 4, _LANGUAGE),
        "image_text": ImageTextSizes(12, 18, 12, 18, 9, 6, 24, 64, 2, 96, 4, 64, 4, _CONTRASTIVE),
        "diffusion": DiffusionSizes(
            10, 44, 16, 8, 44, 24, 12, 50, 24, 6, 8, (32, 64), 64, _DENOISING
        ),
    },
}


#: Processor seconds that all strategies and controls at all seeds of profile `laptop` should
#: take at most; `benchmarks/cost.py board` prints what they take.
COST_TARGETS = {"synthetic": 60.0, "digits": 240.0}

#: Every workload there is; the sizes make it one.
WORKLOADS = tuple(PROFILES["laptop"])


def sizes_of(
    profile: str, workload: str, published: bool = False
) -> (
    Sizes
    | TextSizes
    | ImageTextSizes
    | DiffusionSizes
    | PublishedSizes
    | PublishedPairSizes
    | PublishedDiffusionSizes
):
    """The sizes of one workload in one profile.

    Args:
        published: Of models and data of others on that workload.

    Raises:
        ValueError: an unknown profile or workload; the message says which there are.
    """
    table = PUBLISHED if published else PROFILES
    if profile not in table:
        raise ValueError(f"there is no profile {profile!r}; there are {', '.join(table)}")
    if workload not in table[profile]:
        raise ValueError(
            f"profile {profile!r} has no workload {workload!r}; it has {', '.join(table[profile])}"
        )
    return table[profile][workload]
