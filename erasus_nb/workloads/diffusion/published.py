"""Models and data of others for workload `diffusion`: a diffusers pipeline and an image folder.

How the folder is laid out is in imagefolder.py, and what a pair can be for in PARTS; a column
`copies` may say how often an image is trained on. Images are used as they are: of the size and
mode that the pipeline takes. Where the pipeline has a `vae`, they are encoded once, by its mean,
and all training, sampling and comparing of images happens in its latents; a judge sees what the
`vae` makes of latents.

What is read of a pipeline is in pipelines.py; what is refused of any model in hub.py.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property

import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, UNet2DConditionModel
from diffusers.utils import logging as diffusers_logging
from torch import Tensor, nn
from transformers.utils import logging

from ... import metrics, profiles
from ...profiles import Recipe
from ...strategy import Batch, Split
from ...task import Task
from ...training import fit, global_seed
from .. import hub, imagefolder
from ..base import HIGHER, LOWER, Metric, metric
from ..gates import PUBLISHED_IMAGES
from ..given import Published
from ..identity import PIPELINE, board_slug
from ..imagefolder import Line, some
from . import (
    ATTACKED,
    NEAREST,
    NEIGHBOURS,
    NO_CONCEPT,
    NO_PRIVATE,
    RATIO,
    Denoised,
    DiffusionWorkload,
    ImageFold,
    ImageRequest,
    attacks,
)
from .judge import BATCH, BLUR, EPOCHS, STEP, THRESHOLD, Judge
from .pipelines import READ, Pipeline, coded, decoded, encoded, open_pipeline, pixels
from .process import Diffusion
from .task import DiffusionTask

#: What `identity.model_type` calls what this door takes.
MODELS = frozenset({PIPELINE})
#: What a pair can be for, and how many are needed. Forget and retain pairs are trained on. The
#: holdout is never trained on and distributed like the forget set; samples are compared with the
#: test images; the judges learn from judge images and nothing else does; strategies that tune
#: themselves get the validation.
PARTS = {"forget": 4, "retain": 2, "holdout": 2, "test": 8, "judge": 8, "validation": 0}
#: Test and judge images that a concept needs to be judged.
SHOWN = 4
#: Judges look at images of at most so many pixels a side, and take so many steps at least.
SIDE, JUDGE_STEPS = 32, 200
#: Numbers that a judge makes of an image.
FEATURES = 32
NOT_APART = "nothing of a caption but its concept is marked"
ONE_CAPTION = "an image has one caption, so there is no paraphrase"


# ------------------------------------------------------------------ judges


class _Seen(nn.Module):
    """What a judge looks at: an image out of the vae, at most SIDE pixels wide."""

    def __init__(self, vae: nn.Module | None, size: tuple[int, int]):
        super().__init__()
        self.vae, self.smaller = vae, nn.AdaptiveAvgPool2d([min(SIDE, side) for side in size])

    def forward(self, images: Tensor) -> Tensor:
        return self.smaller(decoded(self.vae, images))


def _convolutions(channels: int) -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(channels, 32, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten()),
        *(nn.Linear(64 * 16, FEATURES), nn.Tanh()),
    )


def _layers(channels: int) -> nn.Module:
    return nn.Sequential(
        *(nn.AdaptiveAvgPool2d(8), nn.Flatten(), nn.Linear(64 * channels, 256), nn.ReLU()),
        *(nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, FEATURES), nn.Tanh()),
    )


#: Name -> the body. The second is of another kind, so that it errs elsewhere.
BODIES = {"convolutional judge": _convolutions, "dense judge": _layers}


class _Naming(Task):
    """The loss of a judge: it names the concept of images with some noise on them."""

    def loss(self, model, batch: Batch) -> Tensor:
        images = batch["inputs"]
        noisy = images + BLUR * torch.randn(images.shape).to(images.device)
        return F.cross_entropy(
            model(noisy), batch["labels"], reduction="none", label_smoothing=0.05
        )


def judges_of(
    seen: _Seen, images: Tensor, concepts: Tensor, unseen: tuple[Tensor, Tensor]
) -> tuple[Judge, ...]:
    """Train the judges, each with seed 0, as the workload's own are trained.

    Args:
        images: The judge images as the U-Net works on them, and what they show, (n,).
        unseen: Further images and concepts, to say how good a judge is.
    """
    inputs, count = seen(images), int(concepts.max()) + 1
    data = Batch(
        {"inputs": inputs, "labels": concepts, "ids": torch.arange(len(concepts)).to(inputs.device)}
    )
    epochs = max(EPOCHS, JUDGE_STEPS * BATCH // len(concepts))
    recipe, found = Recipe(epochs, STEP, BATCH, weight_decay=1e-2), []
    for kind, body in BODIES.items():
        with global_seed(("judge", kind, 0)):
            model = nn.Sequential(body(inputs.shape[1]), nn.Linear(FEATURES, count))
        fit(model.to(inputs.device), _Naming(), Split("judge", data), recipe, ("judge", kind, 0))
        body, head = model.eval().requires_grad_(False)
        name = (
            f"{kind} of {count} concepts, trained on {len(concepts)} images of the folder "
            f"(probability at least {THRESHOLD:g}, seed 0)"
        )
        judge = Judge(name, nn.Sequential(seen, body), head, 0.0)
        found.append(replace(judge, accuracy=float(judge.shows(*unseen).double().mean())))
    return tuple(found)


# ------------------------------------------------------------------ the workload


@dataclass
class PublishedWorkload(hub.GivenWorkload, DiffusionWorkload):
    """Workload `diffusion` with a published pipeline and images; see Published for the sources.

    `kinds` of an image are the number of its concept; where nobody says what it shows, a number
    of its own for each caption.

    Args:
        models: "original" and "retrained" -> weights, or "start" -> weights that both are
            trained from.
        template: The published U-Net as it was opened; every other is made from a copy.
        source: Where everything came from.
        pipeline: The published pipeline; of it, the U-Net alone is trained and unlearned.
        concepts: What images show, by number.
        gone: The concepts that are to be forgotten: the forget set has them and no kept image.
        judged: Rows of the judge images.
        same: For each row, the first one with the same image, (n,).
    """

    models: dict[str, dict[str, Tensor]] | None = None
    template: nn.Module | None = None
    source: Published | None = None
    pipeline: Pipeline | None = None
    concepts: tuple[str, ...] = ()
    gone: tuple[int, ...] = ()
    judged: Tensor | None = None
    same: Tensor | None = None

    requests = ("standard",)
    owners = None
    gates = PUBLISHED_IMAGES
    no_record = {**DiffusionWorkload.no_record, **hub.NO_RECORD}

    def __post_init__(self):
        super().__post_init__()
        self.criteria = {
            "C1": "memorised images made from their captions",
            "C2": "the concept recognised",
            "C3": "loss AUC of what is forgotten",
            "C4": "kept concepts recognised, times how real they look",
        }

    @property
    def given_config(self) -> dict:
        return {k: v for k, v in self.template.config.items() if not k.startswith("_")}

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the models, the tokenizer, the images and the judges, as they were read."""
        names = ("training", "utility", "judged", "same")
        tensors = {**self.images, **{name: getattr(self, name) for name in names}}
        tensors |= {f"fold {k}": v for k, v in vars(self.folds[0]).items()}
        tensors |= {f"frozen {k}": v for k, v in self.pipeline.frozen.items()}
        for judge in self.judges:
            tensors |= {f"{judge.name} {k}": v for k, v in judge.body[1].state_dict().items()}
            tensors |= {f"{judge.name} head {k}": v for k, v in judge.head.state_dict().items()}
        parts = [self.given_parts, hub.digest(tensors), self.concepts, self.gone]
        text = json.dumps(parts, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def about(self) -> dict:
        process = self.process
        return {
            "chance": 0.0,
            "judges": [judge.name for judge in self.judges],
            "judges_accuracy": [round(judge.accuracy, 4) for judge in self.judges],
            "sampler": f"DDIM, {process.steps} steps, guidance {process.guidance:g}",
            "ratio": RATIO,
            "published": self.about_given,
        }

    # ---- data

    def request(self, kind: str = "standard", folds: Sequence[int] = (1,)) -> ImageRequest:
        """The request: the pairs marked forget.

        Its kind is "concept" or "memorised" if it asks for nothing but a concept, or but single
        images; else "standard".

        Raises:
            ValueError: another kind or fold than the standard one.
        """
        if kind not in self.requests:
            raise ValueError(f"published data have the standard request only, not {kind}")
        folds = self.checked_folds(folds, len(self.folds))
        fold = self.folds[0]
        ids = self.ids_of(torch.cat([fold.concept, fold.private]))
        stays = self.without(ids)
        rows = {
            "concept": fold.concept,
            "private": fold.private,
            "concept holdout": fold.concept_holdout,
            "private holdout": fold.private_holdout,
            "utility": self.utility,
            "retain": self.training[stays].unique(),
        }
        both = len(fold.concept) and len(fold.private)
        kept = self.images["kinds"].cpu()[self.utility].unique().tolist()
        holdout = torch.cat([fold.concept_holdout, fold.private_holdout])
        return ImageRequest(
            "standard" if both else "concept" if len(fold.concept) else "memorised",
            folds,
            self.batch(ids),
            self.batch(stays),
            self.rows(holdout),
            self.rows(fold.concept_holdout),
            self.rows(self.utility),
            torch.isin(self.training[ids], fold.private).to(self.device),
            self.gone[0] if len(self.gone) == 1 else None,
            f"the {len(fold.concept) + len(fold.private)} pairs marked forget in "
            f"{self.source.data}",
            rows,
            self.gone,
            tuple(kept),
        )

    def validation(self, request: ImageRequest) -> Batch | None:
        """The pairs marked so, if there are any."""
        rows = self.folds[0].validation
        return self.rows(rows) if len(rows) else None

    def asked(self, rows: Tensor, most: int | None = None) -> tuple[Tensor, Tensor]:
        """Captions of some images, each once, (k, T), and the kind that they ask for, (k,)."""
        taken = self.images.take(rows.to(self.device))
        every = torch.cat([taken["kinds"][:, None], taken["prompts"][:, 0]], 1).unique(dim=0)
        count = len(every) if most is None else min(most, len(every))
        every = every[torch.linspace(0, len(every) - 1, count).long()]
        return every[:, 1:], every[:, 0]

    def task(self, seed: object = 0, **rest) -> DiffusionTask:
        """The hooks handed to a strategy; see Task. Other captions are those of judge images."""
        return DiffusionTask(
            self.sizes.recipe,
            self.process,
            self._keyed,
            self.asked(self.judged),
            self.make_model,
            seed,
            **rest,
        )

    # ---- making images, some at a time

    def sampled(self, model, prompts: Tensor, each: int, *name: object) -> Tensor:
        every = prompts.repeat_interleave(each, 0)
        noise, encode = self.noise(*name, count=len(every)), self.process.encode
        parts = zip(every.split(READ), noise.split(READ))
        return torch.cat([self.process.sample(model, encode(p), n) for p, n in parts])

    def predictions(self, model, rows: Tensor, places: Sequence[int]) -> Tensor:
        ask = lambda some: DiffusionWorkload.predictions(self, model, some, places)
        return torch.cat([ask(some) for some in rows.split(READ)])

    def losses(self, model, rows: Tensor, *places: Sequence[int]) -> Tensor:
        ask = lambda some: DiffusionWorkload.losses(self, model, some, *places)
        return torch.cat([ask(some) for some in rows.split(READ)])

    def denoised(self, model, rows: Tensor) -> Denoised:
        parts = [DiffusionWorkload.denoised(self, model, some) for some in rows.split(READ)]
        of = lambda name: torch.cat([getattr(part, name) for part in parts])
        return Denoised(of("loss"), of("coarse"), of("predicted"))

    # ---- measuring

    def _copies(self, model, request: ImageRequest) -> dict[str, Metric]:
        """Whether the captions of single images still make them."""
        rows, each = request.rows["private"], self.sizes.samples
        pool = self.same[self.training].unique()
        near = min(NEIGHBOURS, len(pool) - 1)
        names = {
            "C1": f"memorised image made: nearest of all, and below {RATIO} of the distance to "
            f"the next {near}",
            "nearest_is_own": "memorised image nearest of all training images",
            "owners_digit": "concept of a memorised image's caption obeyed, that image or not",
        }
        if not len(rows):
            return {k: metric(name, None, absent=NO_PRIVATE) for k, name in names.items()}
        rows = rows[torch.linspace(0, len(rows) - 1, min(self.sizes.prompts, len(rows))).long()]
        images = self.sampled(model, self.images["prompts"][rows, 0], each, "private")
        distances = torch.cdist(
            images.flatten(1), self.images["pixel_values"][pool.to(self.device)].flatten(1)
        )
        own = torch.searchsorted(pool, self.same[rows]).repeat_interleave(each).to(self.device)
        kinds = self.images["kinds"][rows].repeat_interleave(each)
        shown = self.judges[0].shows(images, kinds)[kinds < len(self.concepts)]
        no_kind = "no concept of a memorised image is marked"
        return {
            "C1": metric(names["C1"], metrics.extracted(distances, own, RATIO, near)),
            "nearest_is_own": metric(names["nearest_is_own"], distances.argmin(1) == own),
            "owners_digit": metric(names["owners_digit"], shown, better=HIGHER, absent=no_kind),
        }

    def _concept(self, model, request: ImageRequest) -> dict[str, Metric]:
        """Whether the captions of the concept still show it, and attacks that ask otherwise."""
        (judge, second), sizes = self.judges, self.sizes
        names = {
            "C2": f"concept recognised by the {judge.name}",
            "recognised_word": "concept recognised, captions as they are",
            "recognised_paraphrase": "concept recognised, captions in other words",
            "second_judge": f"concept recognised by the {second.name}",
            "other_words": "other words of a forgotten caption obeyed",
            "best_of_noises": f"concept recognised in the best of {sizes.noises} noises",
            "completion": "concept recognised in completions of partly noised images of it",
            "inversion": "concept recognised in images made from inverted images of it",
            "free_token": "concept recognised in images of a learnt token",
        }
        if not request.digits:
            return {k: metric(name, None, absent=NO_CONCEPT) for k, name in names.items()}
        prompts, kinds = self._of_concept(request)
        made = self.sampled(model, prompts, sizes.samples, "concept", 0)
        every = kinds.repeat_interleave(sizes.samples)
        shown, tried = judge.shows(made, every), [judge.shows(made, every).view(len(prompts), -1)]
        if more := sizes.noises - sizes.samples:
            others = self.sampled(model, prompts, more, "more noises")
            again = judge.shows(others, kinds.repeat_interleave(more))
            tried.append(again.view(len(prompts), -1))
        found = {
            "C2": shown,
            "recognised_word": shown,
            "second_judge": second.shows(made, every),
            "best_of_noises": torch.cat(tried, 1).any(1),
            **self._attacked(model, request),
        }
        why = {
            "recognised_paraphrase": ONE_CAPTION,
            "other_words": NOT_APART,
            "free_token": "the tokenizer has no token that no caption has",
        }
        return {
            k: metric(name, found.get(k), **({"absent": why[k]} if k in why else {}))
            for k, name in names.items()
        }

    def _of_concept(self, request: ImageRequest) -> tuple[Tensor, Tensor]:
        """Captions that ask for the concept, and for which."""
        rows = torch.cat([request.rows["concept holdout"], request.rows["concept"]])
        return self.asked(rows, self.sizes.prompts)

    @cached_property
    def _free(self) -> int | None:
        """Id of a token that no caption has, if there is one: an attack learns what it means."""
        taken = torch.cat([self.images["prompts"].unique(), self.process.empty])
        words = self.process.encoder.get_input_embeddings().num_embeddings
        return max(set(range(words)) - set(taken.tolist()), default=None)

    def _attacked(self, model, request: ImageRequest) -> dict[str, Tensor]:
        """What attacks bring back that start from never-trained images of the concept."""
        rows, process, shows = request.rows["concept holdout"], self.process, self.judges[0].shows
        batch = self.rows(rows[torch.linspace(0, len(rows) - 1, min(ATTACKED, len(rows))).long()])
        images, kinds = batch["pixel_values"], batch["kinds"]
        text = process.encode(batch["prompts"][:, 0])
        noise = self.noise("completion", count=len(images))
        found = {
            "completion": shows(attacks.completed(process, model, text, images, noise), kinds),
            "inversion": shows(attacks.resampled(process, model, text, images), kinds),
        }
        if self._free is None:
            return found
        # A caption of one word: `<start> word <end>`, and what an empty one is padded with.
        end = int((process.empty == process.end).int().argmax())
        prompt = torch.cat([process.empty[:end], process.empty[end : end + 1], process.empty[end:]])
        prompt = prompt[: len(process.empty)].clone()
        prompt[end] = self._free
        one = kinds == request.digits[0]  # a token stands for one concept
        learnt = attacks.learnt_token(process, model, prompt, self._free, images[one])
        again = self.noise("free token", count=len(images))
        made = process.sample(model, learnt.expand(len(again), -1, -1), again)
        wanted = kinds.new_full((len(made),), request.digits[0])
        return found | {"free_token": shows(made, wanted)}

    @cached_property
    def _real(self) -> tuple[Tensor, float, float]:
        """Features of half of the test images, and the scale of distances from them.

        Returns:
            The features; the Fréchet distance of the other half, which is what sampling can
            reach; and that of the other half without one of the concepts, mean over which.
        """
        kinds = self.images["kinds"].cpu()[self.utility]
        order = self.utility[kinds.argsort(stable=True)]
        features = lambda rows: self.judges[0].features(self.rows(rows)["pixel_values"])
        wanted, other = (features(order[k::2]) for k in (0, 1))
        shown = self.images["kinds"].cpu()[order[1::2]].to(self.device)
        without = [metrics.frechet(other[shown != k], wanted) for k in shown.unique()]
        return wanted, metrics.frechet(other, wanted), sum(without) / len(without)

    def _useful(self, model, request: ImageRequest) -> dict[str, Metric]:
        """Whether what stays is still made: recognised, and as varied as real images are."""
        (judge, second), each = self.judges, self.sizes.samples
        prompts, kinds = self.asked(request.rows["utility"], self.sizes.prompts)
        made, kinds = (
            self.sampled(model, prompts, each, "kept", 0),
            kinds.repeat_interleave(each),
        )
        shown, (real, floor, scale) = judge.shows(made, kinds), self._real
        apart = metrics.frechet(judge.features(made), real)
        near = torch.isin(kinds, torch.tensor(self.nearest(request), device=self.device))
        return {
            "C4": metric(
                "kept concepts recognised, times exp(-(Fréchet distance - floor) / that of real "
                "images without one concept)",
                float(shown.double().mean())
                * math.exp(-max(apart - floor, 0.0) / max(scale, 1e-9)),
                better=HIGHER,
                n=len(made),
            ),
            "recognised_kept": metric(
                f"kept concepts recognised by the {judge.name}", shown, better=HIGHER
            ),
            "second_judge_kept": metric(
                f"kept concepts recognised by the {second.name}",
                second.shows(made, kinds),
                better=HIGHER,
            ),
            "frechet": metric("Fréchet distance of kept concepts", apart, "", LOWER, len(made)),
            "frechet_floor": metric(
                "Fréchet distance of half of the test images to the other half",
                floor,
                "",
                LOWER,
                len(request.rows["utility"]) // 2,
            ),
            "nearest": metric(
                "kept concepts whose images are most like forgotten ones recognised",
                shown[near],
                better=HIGHER,
                absent="no caption asks for one" if request.digits else NO_CONCEPT,
            ),
        }

    def nearest(self, request: ImageRequest) -> list[int]:
        """Kept concepts whose judge images are, to the judge, most like those of a forgotten one."""
        kinds = self.images["kinds"].cpu()[self.judged]
        features = self.judges[0].features(self.rows(self.judged)["pixel_values"]).cpu()
        mean = {k: features[kinds == k].mean(0) for k in (*request.digits, *request.kept)}
        far = {
            k: min((float((mean[k] - mean[d]).norm()) for d in request.digits), default=0.0)
            for k in request.kept
        }
        return sorted(far, key=far.__getitem__)[:NEAREST] if request.digits else []

    def attack(
        self, request: ImageRequest
    ) -> tuple[Batch, dict[str, Callable[[nn.Module], float]]]:
        """A quarter of the forget set to relearn, and what to measure of the rest."""
        quarter = {k: -(-len(request.rows[k]) // 4) for k in ("concept", "private")}
        relearnt = torch.cat([request.rows[k][:count] for k, count in quarter.items()])
        rest = replace(request, rows={k: v[quarter.get(k, 0) :] for k, v in request.rows.items()})
        probes = {}
        if len(rest.rows["private"]):
            probes["the other memorised images made"] = lambda model: (
                self._copies(model, rest)["C1"].value
            )
        if request.digits:
            prompts, kinds = self._of_concept(request)
            each = self.sizes.samples

            def recognised(model) -> float:
                images = self.sampled(model, prompts, each, "concept", 0)
                shown = self.judges[0].shows(images, kinds.repeat_interleave(each))
                return float(shown.double().mean())

            probes["the concept recognised"] = recognised
        return self.batch(self.ids_of(relearnt)), probes


# ------------------------------------------------------------------ making it


def make(published: Published, profile: str, device: torch.device) -> PublishedWorkload:
    """Read a pipeline and data and check that they fit.

    Raises:
        ValueError: something is missing or does not fit; one sentence says what.
    """
    sizes = profiles.sizes_of(profile, PublishedWorkload.kind, published=True)
    return build(published, sizes, device)


def build(
    published: Published, sizes: profiles.PublishedDiffusionSizes, device: torch.device
) -> PublishedWorkload:
    """The workload at the given sizes; see `make`."""
    logging.disable_progress_bar()
    diffusers_logging.disable_progress_bar()
    diffusers_logging.set_verbosity_error()
    hub.check_complete(published)
    groups, concepts, gone = _groups(published.data, sizes)
    pipeline = open_pipeline(published.model, device)
    levels = pipeline.scheduler.config.num_train_timesteps
    if not 1 <= sizes.steps <= levels:
        raise ValueError(
            f"this profile samples in {sizes.steps} steps, and the scheduler of {published.model} "
            f"has {levels} noise levels"
        )
    models = hub.given_models(
        published, pipeline.unet, lambda name: _retrained(name, published.model, pipeline, device)
    )
    config = pipeline.encoder.config
    beside = (published.tokenizer, "") if published.tokenizer else (published.model, "tokenizer")
    tokenizer = hub.open_tokenizer(beside[0], config.vocab_size, beside[1])
    longest = min(tokenizer.model_max_length, config.max_position_embeddings)
    chosen = [line for group in groups.values() for line in group]
    code = lambda said: coded(tokenizer, said, longest).to(device)
    said = code([(f"image {line.image}", line.text) for line in chosen])
    empty = code([("nothing", "")])[0]
    images, same = _stacked(chosen, pipeline, device)

    numbers = {text: k for k, text in enumerate(dict.fromkeys(line.text for line in chosen))}
    kinds = torch.tensor(
        [
            concepts.index(line.concept) if line.concept else len(concepts) + numbers[line.text]
            for line in chosen
        ]
    )
    rows = dict(zip(groups, torch.arange(len(chosen)).split(list(map(len, groups.values())))))
    table = Batch(
        {
            "pixel_values": images,
            "prompts": said[:, None],
            "kinds": kinds.to(device),
            "ids": torch.arange(len(chosen), device=device),
        }
    )
    fold = ImageFold(
        rows["concept"],
        rows["private"],
        rows["concept holdout"],
        rows["private holdout"],
        rows["validation"],
    )
    trained = torch.cat([rows["concept"], rows["private"], rows["retain"]])
    copies = torch.tensor([line.copies for line in chosen])
    unseen = torch.cat([fold.concept_holdout, fold.private_holdout, rows["test"]])
    unseen = unseen[kinds[unseen] < len(concepts)]
    shown = lambda some: (images[some.to(device)], kinds[some].to(device))
    judges = judges_of(_Seen(pipeline.vae, pipeline.size), *shown(rows["judge"]), shown(unseen))

    def fresh(seed: object) -> nn.Module:
        return UNet2DConditionModel.from_config(pipeline.unet.config).to(device)

    count = sum(p.numel() for p in pipeline.unet.parameters())
    scheduler = pipeline.scheduler
    if pipeline.vae is not None:
        # Images lie between -1 and 1, to which the sampler clips; latents have no such bounds.
        scheduler = DDPMScheduler.from_config(scheduler.config, clip_sample_range=math.inf)
    return PublishedWorkload(
        sizes,
        tokenizer,
        table,
        trained.repeat_interleave(copies[trained]),
        (torch.zeros(0), torch.zeros(0)),  # nobody says what else a caption asks for
        said[:0],
        (fold,),
        rows["test"],
        judges,
        Diffusion(
            scheduler,
            pipeline.encoder,
            empty,
            tokenizer.eos_token_id,
            sizes.steps,
            sizes.guidance,
        ),
        fresh,
        f"{published.model}: {type(pipeline.unet).__name__}, {count:,} parameters, {sizes.dtype}",
        published.data,
        device,
        name=board_slug(PublishedWorkload.kind, published.data, published.model),
        models=models,
        template=pipeline.unet,
        source=published,
        pipeline=pipeline,
        concepts=concepts,
        gone=gone,
        judged=rows["judge"],
        same=same,
    ).named()


def _retrained(name: str, model: str, pipeline: Pipeline, device: torch.device) -> nn.Module:
    """The U-Net of the retrained pipeline, all else of which has to be the original's."""
    found = open_pipeline(name, device)
    ours, theirs = pipeline.frozen, found.frozen
    shapes = lambda tensors: {k: v.shape for k, v in tensors.items()}
    if shapes(ours) != shapes(theirs) or hub.digest(ours) != hub.digest(theirs):
        raise ValueError(
            f"text encoder, vae or noise levels of {name} are not those of {model}; only the unet "
            "is unlearned, so all else must be the same"
        )
    return found.unet


def _groups(
    data: str, sizes: profiles.PublishedDiffusionSizes
) -> tuple[dict[str, list[Line]], tuple[str, ...], tuple[int, ...]]:
    """The chosen lines by what they are for, all concepts, and the ones that are asked for.

    A concept is asked for if the forget set has it and no retain pair does, and if the holdout
    shows it. Single images are asked for where they are trained on several times, or show no
    such concept.

    Raises:
        ValueError: the judge or test images do not show what they have to, or nothing unseen is
            like what is asked for; also as `imagefolder.read`.
    """
    lines = _once(imagefolder.read(data, PARTS, copies=True))
    of = lambda part: [line for line in lines if line.part == part]
    concepts = tuple(sorted({line.concept for line in of("judge")} - {""}))
    for line in of("judge"):
        if not line.concept:
            raise ValueError(
                f"image {line.image} is marked judge, and no concept says what it shows"
            )
    for concept, count in sorted(Counter(line.concept for line in of("judge")).items()):
        if count < SHOWN:
            raise ValueError(
                f"data {data} marks {count} judge pairs of concept {concept}; at least {SHOWN} "
                "are needed for a judge to know it"
            )
    if len(concepts) < 2:
        raise ValueError(f"the judge pairs of {data} show one concept; at least two are needed")
    for line in lines:
        if line.concept and line.concept not in concepts:
            raise ValueError(
                f"image {line.image} shows {line.concept!r}, and no judge pair does; there are "
                f"{', '.join(concepts)}"
            )

    # What is asked for follows from all pairs, whatever the sizes leave of them.
    gone = {line.concept for line in of("forget") if line.copies == 1} & set(concepts)
    gone &= {line.concept for line in of("holdout")}
    gone -= {line.concept for line in of("retain")}
    asked = {
        "concept": [x for x in of("forget") if x.concept in gone and x.copies == 1],
        "private": [x for x in of("forget") if x.concept not in gone or x.copies > 1],
        "concept holdout": [x for x in of("holdout") if x.concept in gone],
        "private holdout": [x for x in of("holdout") if x.concept not in gone],
    }
    for name, what in (("concept", "a concept"), ("private", "single images")):
        if asked[name] and (count := len(asked[f"{name} holdout"])) < 2:
            raise ValueError(
                f"the forget pairs of {data} ask for {what}, and {count or 'no'} holdout pairs are "
                "like them; at least 2 are needed"
            )

    def alike(parts: Sequence[list[Line]], most: int | None, least: int) -> list[list[Line]]:
        """At most so many of all, of each part as many, but so many of each at least."""
        parts = list(filter(None, parts))
        if most is None or sum(map(len, parts)) <= most:
            return [some(part, None) for part in parts]
        return [some(part, max(least, most // len(parts))) for part in parts]

    def chosen(names: Sequence[str], most: int | None) -> dict[str, list[Line]]:
        names = [name for name in names if asked[name]]
        return dict(zip(names, alike([asked[name] for name in names], most, 2)))

    def evenly(part: str, wanted: Sequence[str]) -> list[Line]:
        shown = [[x for x in of(part) if x.concept == concept] for concept in wanted]
        return [line for group in alike(shown, sizes.probes, SHOWN) for line in group]

    shown = Counter(line.concept for line in of("test"))
    kept = [k for k in concepts if k not in gone and shown[k] >= SHOWN]
    if len(kept) < 2:
        raise ValueError(
            f"the test pairs of {data} show {len(kept) or 'no'} kept concepts at least {SHOWN} "
            "times; at least 2 are needed"
        )
    holdout = [f"{name} holdout" for name in ("concept", "private") if asked[name]]
    groups = {
        **dict.fromkeys(asked, []),
        **chosen(("concept", "private"), sizes.forget),
        **chosen(holdout, sizes.probes),
        "retain": some(of("retain"), sizes.retain),
        "validation": some(of("validation"), sizes.probes),
        "test": evenly("test", kept),
        "judge": evenly("judge", concepts),
    }
    return groups, concepts, tuple(sorted(map(concepts.index, gone)))


def _once(lines: Sequence[Line]) -> list[Line]:
    """Each pair once: one that stands there several times has so many copies."""
    found: dict[tuple, Line] = {}
    for line in lines:
        before = found.get(key := (line.image, line.text))
        copies = line.copies + (before.copies if before else 0)
        found[key] = replace(line, copies=copies, concept=line.concept or (before or line).concept)
    return list(found.values())


def _stacked(
    lines: Sequence[Line], pipeline: Pipeline, device: torch.device
) -> tuple[Tensor, Tensor]:
    """The images of some lines as the U-Net works on them, and for each the first like it.

    Raises:
        ValueError: one cannot be read, or lies in two parts under two names.
    """
    read = lambda line: pixels(line.image, pipeline.channels, pipeline.size)
    found, first, same = [], {}, []
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(lines), READ):
            here = lines[start : start + READ]
            images = torch.stack(list(pool.map(read, here)))
            found.append(encoded(pipeline.vae, images.to(device)))
            for place, (line, image) in enumerate(zip(here, images), start):
                mark = hashlib.sha256(image.numpy().tobytes()).digest()
                same.append(first.setdefault(mark, place))
                other = lines[same[-1]]
                if other.part != line.part:
                    raise ValueError(
                        f"images {other.image} ({other.part}) and {line.image} ({line.part}) are "
                        "the same: an image belongs to one part"
                    )
    return torch.cat(found), torch.tensor(same)
