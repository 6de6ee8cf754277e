"""Workload `diffusion`: a text-conditional denoiser, real scans of digits and captions.

An image is made from a caption: how bold, and which digit, in one of two spellings. A request
asks to forget one digit (a concept), and some private scans that were trained on many times
over, each under the name of its owner (memorised images).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

from ... import metrics
from ...profiles import TUNING_SEEDS, DiffusionSizes
from ...strategy import Batch
from ...training import generator, global_seed
from ..base import HIGHER, LOWER, Metric, Request, Workload, metric
from ..gates import DENOISER
from . import attacks
from .captions import INKS, SPELLINGS, WIDTH, Scans, caption, ink_of, owners, scans, tokenizer_of
from .judge import Judge, trained
from .process import Diffusion
from .task import DiffusionTask, Keyed

#: Pages whose strategies are at home here.
HOME_OF = ("diffusion",)

#: Digits that the folds ask for; private scans show the other ones.
CONCEPTS = (7, 4, 3, 9)
CORE = tuple(k for k in range(10) if k not in CONCEPTS)
#: Kept digits that look most like the forgotten one.
NEAREST = 2
#: A sample is a copy if it is nearer to its image than this share of the mean distance to the
#: next training images.
RATIO, NEIGHBOURS = 0.7, 10
#: Timesteps at which the loss of an image is measured, each with one noise for all images.
TIMES = (50, 136, 221, 307, 393, 479, 564, 650)
#: Places in TIMES at which two models' predictions are compared.
COMPARED = (1, 3, 5, 7)
#: And those at which a whole split's mean loss is taken.
COARSE = (2, 6)
#: Images of a request's concept that attacks start from.
ATTACKED = 24
NO_CONCEPT = "the request names no concept"
NO_PRIVATE = "the request asks for no private images"


@dataclass(frozen=True)
class ImageFold:
    """What one fold holds, as rows of the table of images.

    Args:
        concept, private: Training rows of its digit, and of its private scans, each once.
        concept_holdout, private_holdout: Never-trained rows like them.
        validation: Never-trained rows like both.
    """

    concept: Tensor
    private: Tensor
    concept_holdout: Tensor
    private_holdout: Tensor
    validation: Tensor


@dataclass(frozen=True)
class ImageRequest(Request):
    """A request of `diffusion`: also the rows that are measured.

    Args:
        rows: "concept", "private" (both trained on, each once), "concept holdout", "private
            holdout", "retain" (each once) and "utility" -> rows of the table.
        digits: The concepts asked for; kept: all other digits.
    """

    rows: dict[str, Tensor] = field(default_factory=dict)
    digits: tuple[int, ...] = ()
    kept: tuple[int, ...] = ()


#: Parts of a request that are to be forgotten, and all whose single losses are measured.
ASKED = ("concept", "private")
MEMBERS = (*ASKED, *(f"{part} holdout" for part in ASKED))


@dataclass(frozen=True)
class Denoised:
    """What a model's predictions for some images come to.

    Args:
        loss, coarse: Loss of each image, mean over all places of the bank and over COARSE, (n,).
        predicted: Predicted noise at the places in COMPARED, (n, numbers).
    """

    loss: Tensor
    coarse: Tensor
    predicted: Tensor


@dataclass
class DiffusionWorkload(Workload):
    """Images, denoiser, request and measurements.

    Args:
        sizes: From profiles.py.
        tokenizer: Of the captions.
        images: All images, trained on or not: `pixel_values` (n, 1, 8, 8), `prompts` (n, V, T)
            and `kinds` (n,), the digit.
        training: Row of each training example, by id; private rows come several times.
        inks: Ink of each image, (n,), and where light ends and bold begins, (2,).
        prompts: Captions without an owner, (digits, inks, V, T).
        folds: The four folds of a request.
        utility: Never-trained rows of every digit, to compare samples with.
        judges: The judge, and the second one.
        process: Noise levels, text encoder and sampler.
        build: Seed -> freshly initialised denoiser.
        model_text, data_text: For readers and board headers.
    """

    sizes: DiffusionSizes
    tokenizer: PreTrainedTokenizerFast
    images: Batch
    training: Tensor
    inks: tuple[Tensor, Tensor]
    prompts: Tensor
    folds: tuple[ImageFold, ...]
    utility: Tensor
    judges: tuple[Judge, Judge]
    process: Diffusion
    build: Callable[[object], nn.Module]
    model_text: str
    data_text: str
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    remember: Callable[[str, Callable[[], dict[str, Tensor]]], dict[str, Tensor]] = field(
        default=lambda name, make: make()
    )
    name: str = "diffusion"

    kind = "diffusion"
    gates = DENOISER
    in_prose = True
    criteria = {
        "C1": "private images made from their prompts",
        "C2": "the digit recognised, both spellings",
        "C3": "loss AUC of private images",
        "C4": "kept digits recognised, times how real they look",
    }
    sentence = (
        "Retrain-Match {rm}. Private images made from their prompts {m:C1} (original {o:C1}, "
        "retrained {r:C1}), the digit recognised, in both spellings {m:C2} ({o:C2}, {r:C2}), "
        "loss AUC of private images {m:C3} ({o:C3}, {r:C3}), what stays {m:C4} ({r:C4}), kept "
        "digits recognised {m:recognised_kept} ({r:recognised_kept}); {time_ratio} times the "
        "seconds of retraining; {flags}"
    )
    requests = ("standard", "concept", "memorised")
    provides = frozenset({"labels", "outputs", "prunable units", "denoiser"})
    no_record = {
        "convex head": "a certificate needs a strongly convex loss, and a denoiser's is none; "
        "a convex head on frozen features would make no images"
    }
    tuning_seeds = TUNING_SEEDS[:2]
    timed_steps = 8
    attack_steps = (0, 5, 10, 20)

    # ---- data

    def rows(self, rows: Tensor, ids: Tensor | None = None) -> Batch:
        """Images by row; without ids they count as never trained on: -1, -2 and so on.

        An id of its own gives each a timestep and noise of its own (task.Keyed).
        """
        rows = rows.to(self.device)
        ids = -1 - torch.arange(len(rows)) if ids is None else ids
        ids = ids.to(self.device)
        return self.images.take(rows).replace(ids=ids)

    def batch(self, ids: Tensor) -> Batch:
        """Training examples by id; a private image has several."""
        return self.rows(self.training[ids.cpu()], ids)

    @property
    def train_ids(self) -> Tensor:
        """Ids of all training examples, shape (n,)."""
        return torch.arange(len(self.training))

    @property
    def owners(self) -> tuple[Tensor, ...]:
        """Training ids of each fold's concept, and of its private scans."""
        parts = [part for f in self.folds for part in (f.concept, f.private)]
        return tuple(map(self.ids_of, parts))

    def ids_of(self, rows: Tensor) -> Tensor:
        """Ids of all training examples that are some rows of the table, (k,)."""
        return torch.isin(self.training, rows).nonzero()[:, 0]

    @cached_property
    def fingerprint(self) -> str:
        """Hash of everything that the training data and the measurements are made of."""
        parts = [self.images["pixel_values"], self.images["prompts"], self.training, self.prompts]
        parts += [self.utility, *self.process.encoder.state_dict().values()]
        parts += [t for f in self.folds for t in vars(f).values()]
        parts += [t for judge in self.judges for t in judge.body.state_dict().values()]
        whole = b"".join(part.cpu().contiguous().numpy().tobytes() for part in parts)
        return hashlib.blake2b(whole, digest_size=8).hexdigest()

    @property
    def about(self) -> dict:
        return {
            "chance": 0.0,
            "judges": [judge.name for judge in self.judges],
            "judges_accuracy": [round(judge.accuracy, 4) for judge in self.judges],
            "sampler": f"DDIM, {self.process.steps} steps, guidance {self.process.guidance:g}",
            "copies": self.sizes.copies,
            "ratio": RATIO,
        }

    def request(self, kind: str = "standard", folds: Sequence[int] = (1,)) -> ImageRequest:
        """The request: what to forget, and what to compare with.

        Args:
            kind: "standard" asks for a digit and private scans, "concept" and "memorised" for
                one of the two.
            folds: Which, counted from 1.

        Raises:
            ValueError: another kind, an unknown fold or none.
        """
        if kind not in self.requests:
            raise ValueError(f"request must be one of {', '.join(self.requests)}, got {kind!r}")
        folds = self.checked_folds(folds, len(self.folds))
        asked, none = [self.folds[k - 1] for k in folds], self.utility[:0]
        part = lambda name, wanted: (
            torch.cat([getattr(f, name) for f in asked]) if kind in ("standard", wanted) else none
        )
        rows = {
            "concept": part("concept", "concept"),
            "private": part("private", "memorised"),
            "concept holdout": part("concept_holdout", "concept"),
            "private holdout": part("private_holdout", "memorised"),
        }
        digits = tuple(CONCEPTS[k - 1] for k in folds) if len(rows["concept"]) else ()
        kept = tuple(k for k in range(len(self.prompts)) if k not in digits)
        kinds = self.images["kinds"].cpu()
        rows["utility"] = self.utility[torch.isin(kinds[self.utility], torch.tensor(kept))]
        ids = self.ids_of(torch.cat([rows["concept"], rows["private"]]))
        stays = self.without(ids)
        rows["retain"] = self.training[stays].unique()
        said = [f"all {len(rows['concept'])} scans of a {self._spoken(digits)}"] if digits else []
        if private := len(rows["private"]):
            said.append(f"{private} private scans, each trained on {self.sizes.copies} times")
        return ImageRequest(
            kind,
            folds,
            self.batch(ids),
            self.batch(stays),
            self.rows(torch.cat([rows["concept holdout"], rows["private holdout"]])),
            self.rows(rows["concept holdout"]),
            self.rows(rows["utility"]),
            torch.isin(self.training[ids], rows["private"]).to(self.device),
            digits[0] if len(digits) == 1 else None,
            " and ".join(said),
            rows,
            digits,
            kept,
        )

    def _spoken(self, digits: Sequence[int]) -> str:
        return " or ".join(SPELLINGS[0][k] for k in digits)

    def validation(self, request: ImageRequest) -> Batch:
        """Never-trained images like those of the request, apart from all that is measured."""
        rows = torch.cat([self.folds[k - 1].validation for k in request.folds])
        concept = torch.isin(self.images["kinds"].cpu()[rows], torch.tensor(CONCEPTS))
        if request.kind != "standard":
            rows = rows[concept if request.kind == "concept" else ~concept]
        return self.rows(rows)

    # ---- the hooks

    def task(self, seed: object = 0, **rest) -> DiffusionTask:
        """The hooks handed to a strategy; see Task for the arguments."""
        prompts = self.prompts[:, :, 0].flatten(0, 1)
        kinds = torch.arange(len(self.prompts)).repeat_interleave(self.prompts.shape[1])
        return DiffusionTask(
            self.sizes.recipe,
            self.process,
            self._keyed,
            (prompts, kinds.to(self.device)),
            self.make_model,
            seed,
            **rest,
        )

    @cached_property
    def _keyed(self) -> Keyed:
        shape = tuple(self.images["pixel_values"].shape[1:])
        return Keyed(shape, self.process.levels, self.device)

    # ---- making images

    def noise(self, *name: object, count: int) -> Tensor:
        """Noises to start from, the same for every model, (count, 1, 8, 8)."""
        draw = generator("diffusion", "noise", *name)
        shape = self.images["pixel_values"].shape[1:]
        return torch.randn((count, *shape), generator=draw).to(self.device)

    def sampled(self, model, prompts: Tensor, each: int, *name: object) -> Tensor:
        """Images of prompts (n, T), `each` of every one, in order: (n * each, 1, 8, 8)."""
        text = self.process.encode(prompts).repeat_interleave(each, 0)
        return self.process.sample(model, text, self.noise(*name, count=len(text)))

    def prompts_of(self, digits: Sequence[int], spelling: int) -> Tensor:
        """Captions of some digits in every ink, digit by digit, (digits * inks, T)."""
        return self.prompts[list(digits), :, spelling].flatten(0, 1)

    # ---- measuring

    @cached_property
    def _bank(self) -> tuple[Tensor, Tensor]:
        """Timesteps and noises at which every image's loss is measured, (k,) and (k, ...)."""
        times = torch.tensor(TIMES, device=self.device) * self.process.levels // 1000
        return times, self.noise("bank", count=len(TIMES))

    @torch.no_grad()
    def predictions(self, model, rows: Tensor, places: Sequence[int]) -> Tensor:
        """Predicted noise of images at places of the bank, told their captions, (n, k, ...)."""
        batch, (times, noises) = self.rows(rows), self._bank
        text, found = self.process.encode(batch["prompts"][:, 0]), []
        for place in places:
            t, noise = (
                times[place].expand(len(rows)),
                noises[place].expand_as(batch["pixel_values"]),
            )
            noisy = self.process.noised(batch["pixel_values"], t, noise)
            found.append(self.process.predict(model, noisy, t, text))
        return torch.stack(found, 1)

    def losses(self, model, rows: Tensor, places: Sequence[int] = range(len(TIMES))) -> Tensor:
        """Loss of each image: squared error of the noise, mean over places of the bank, (n,)."""
        if not len(rows):
            return torch.zeros(0, device=self.device)
        return self._error(self.predictions(model, rows, places), places)

    def _error(self, found: Tensor, places: Sequence[int]) -> Tensor:
        """Squared error of noise predicted at places of the bank, (n, k, ...) -> (n,)."""
        return (found - self._bank[1][list(places)]).square().flatten(1).mean(1)

    def denoised(self, model, rows: Tensor) -> Denoised:
        """What a model's predictions for some images come to, made once."""
        if not len(rows):
            return Denoised(*[torch.zeros(0, device=self.device)] * 2, self._bank[1][:0].flatten(1))
        found = self.predictions(model, rows, range(len(TIMES)))
        return Denoised(
            self._error(found, range(len(TIMES))),
            self._error(found[:, list(COARSE)], COARSE),
            found[:, list(COMPARED)].flatten(1),
        )

    def distributions(self, model: nn.Module, request: ImageRequest) -> Tensor:
        """Predicted noise of the forgotten images, each once, (k, numbers)."""
        rows = torch.cat([request.rows[part] for part in ASKED])
        return self.predictions(model, rows, COMPARED).flatten(1)

    def divergence(self, answers: Tensor, others: Tensor) -> Tensor:
        """Mean squared difference of the predicted noise, (k,)."""
        return (answers - others).square().mean(1)

    @cached_property
    def _real(self) -> dict[tuple[str, tuple[int, ...]], tuple[float, float]]:
        """Filled by `real`."""
        return {}

    def real(self, request: ImageRequest) -> tuple[float, float]:
        """Fréchet distances of real images from the utility images, as a scale.

        Returns:
            That of as many training images as are sampled of every kept digit, which is the
            least that sampling can reach; and that of the same without one of the digits,
            mean over which.
        """
        if (asked := (request.kind, request.folds)) not in self._real:
            kinds, retain = self.images["kinds"].cpu(), request.rows["retain"]
            each = self.sizes.samples * self.prompts.shape[1] * self.prompts.shape[2]
            of = {k: retain[kinds[retain] == k][:each] for k in request.kept}
            features = lambda rows: self.judges[0].features(self.rows(rows)["pixel_values"])
            wanted = features(request.rows["utility"])
            apart = lambda some: metrics.frechet(features(torch.cat(some)), wanted)
            floor = apart(list(of.values()))
            without = [apart([v for k, v in of.items() if k != gone]) for gone in of]
            self._real[asked] = floor, sum(without) / len(without)
        return self._real[asked]

    def measure(self, model: nn.Module, request: ImageRequest) -> tuple[dict[str, Metric], Tensor]:
        """Everything that is measured on one model, and `distributions`.

        Raises:
            ValueError: the model does not answer as a denoiser of these images does.
        """
        training = model.training
        model.eval()
        try:
            seen = {part: self.denoised(model, request.rows[part]) for part in MEMBERS}
            asked = [seen[part].predicted for part in ASKED if len(seen[part].loss)]
            return self._measured(model, request, seen), torch.cat(asked)
        finally:
            model.train(training)

    def _measured(
        self, model, request: ImageRequest, seen: dict[str, Denoised]
    ) -> dict[str, Metric]:
        copies, concept = self._copies(model, request), self._concept(model, request)
        useful, memory = self._useful(model, request), self._memory(request, seen)
        told = [m for m in (copies["C1"], concept["C2"]) if m.value is not None]
        forgotten = torch.cat([seen[part].coarse for part in ASKED])
        holdout = torch.cat([seen[f"{part} holdout"].coarse for part in ASKED])
        return {
            "C1": copies.pop("C1"),
            "C2": concept.pop("C2"),
            "C3": memory.pop("C3"),
            "C4": useful.pop("C4"),
            **copies,
            **concept,
            **memory,
            **useful,
            "forget_accuracy": metric(
                "mean of C1 and C2", sum(m.value for m in told) / len(told), n=len(forgotten)
            ),
            "retain_accuracy": useful["recognised_kept"],
            "forget_loss": metric("denoising loss, forget set", forgotten, "squared error"),
            "retain_loss": metric(
                "denoising loss, retain set",
                self.losses(model, request.rows["retain"], COARSE),
                "squared error",
                LOWER,
            ),
            "holdout_loss": metric("denoising loss, holdout", holdout, "squared error"),
        }

    def _copies(self, model, request: ImageRequest) -> dict[str, Metric]:
        """Whether private prompts still make their images."""
        rows, tries = request.rows["private"], self.sizes.tries
        names = {
            "C1": f"private image made: nearest of all, and below {RATIO} of the distance to "
            f"the next {NEIGHBOURS}",
            "nearest_is_own": "private image nearest of all training images",
            "owners_digit": "digit of a private prompt obeyed, owner or not",
        }
        if not len(rows):
            return {k: metric(name, None, absent=NO_PRIVATE) for k, name in names.items()}
        images = self.sampled(model, self.images["prompts"][rows, 0], tries, "private")
        pool = self.training.unique()
        own = torch.searchsorted(pool, rows).repeat_interleave(tries).to(self.device)
        flat = self.images["pixel_values"][pool].flatten(1)
        distances = torch.cdist(images.flatten(1), flat)
        digits = self.images["kinds"][rows].repeat_interleave(tries)
        found = {
            "C1": metrics.extracted(distances, own, RATIO, NEIGHBOURS),
            "nearest_is_own": distances.argmin(1) == own,
            "owners_digit": self.judges[0].shows(images, digits),
        }
        better = {"owners_digit": HIGHER}
        return {k: metric(names[k], v, **_better(better.get(k))) for k, v in found.items()}

    def _concept(self, model, request: ImageRequest) -> dict[str, Metric]:
        """Whether the prompts of the concept still show it, and attacks that ask otherwise."""
        judge, second = self.judges
        names = {
            "C2": f"concept recognised by the {judge.name}, both spellings",
            "recognised_word": "concept recognised, prompts with the word",
            "recognised_paraphrase": "concept recognised, prompts with the paraphrase",
            "second_judge": f"concept recognised by the {second.name}, both spellings",
            "other_words": "ink of a forgotten prompt obeyed",
            "best_of_noises": f"concept recognised in the best of {attacks.NOISES} noises",
            "completion": "concept recognised in completions of partly noised images of it",
            "inversion": "concept recognised in images made from inverted images of it",
            "free_token": "concept recognised in images of a learnt token",
        }
        if not request.digits:
            return {k: metric(name, None, absent=NO_CONCEPT) for k, name in names.items()}
        each = attacks.NOISES // 3
        asked = [self.prompts_of(request.digits, s) for s in range(self.prompts.shape[2])]
        made = [self.sampled(model, p, each, "concept", s) for s, p in enumerate(asked)]
        digits = torch.tensor(request.digits, device=self.device)
        every = digits.repeat_interleave(len(INKS) * each)
        shown = [judge.shows(images, every) for images in made]
        inks = torch.arange(len(INKS), device=self.device).repeat_interleave(each)
        obeyed = torch.bucketize(ink_of(made[0]), self.inks[1]) == inks.repeat(len(digits))
        more = self.sampled(model, asked[0], attacks.NOISES - each, "more noises")
        again = judge.shows(more, digits.repeat_interleave(len(more) // len(digits)))
        tried = torch.cat([shown[0].view(-1, each), again.view(len(asked[0]), -1)], 1)
        found = {
            "C2": torch.cat(shown),
            "recognised_word": shown[0],
            "recognised_paraphrase": torch.cat(shown[1:]),
            "second_judge": second.shows(torch.cat(made), every.repeat(len(made))),
            "other_words": obeyed,
            "best_of_noises": tried.any(1),
            **self._attacked(model, request),
        }
        better = {"other_words": HIGHER}
        return {k: metric(names[k], v, **_better(better.get(k))) for k, v in found.items()}

    def _attacked(self, model, request: ImageRequest) -> dict[str, Tensor]:
        """What attacks bring back that start from never-trained images of the concept."""
        rows = request.rows["concept holdout"]
        batch = self.rows(rows[torch.linspace(0, len(rows) - 1, min(ATTACKED, len(rows))).long()])
        images, digits = batch["pixel_values"], batch["kinds"]
        text = self.process.encode(batch["prompts"][:, 0])
        noise, shows = self.noise("completion", count=len(images)), self.judges[0].shows
        prompt, word = self.prompts[request.digits[0], 1, 0].clone(), self.tokenizer.unk_token_id
        prompt[self.process.last_word(prompt[None])] = word
        one = digits == request.digits[0]  # a token stands for one digit
        learnt = attacks.learnt_token(self.process, model, prompt, word, images[one])
        again = self.noise("free token", count=len(images))
        made = self.process.sample(model, learnt.expand(len(again), -1, -1), again)
        return {
            "completion": shows(
                attacks.completed(self.process, model, text, images, noise), digits
            ),
            "inversion": shows(attacks.resampled(self.process, model, text, images), digits),
            "free_token": shows(made, digits.new_full((len(made),), request.digits[0])),
        }

    def _memory(self, request: ImageRequest, seen: dict[str, Denoised]) -> dict[str, Metric]:
        """Whether the loss tells trained images from never-trained ones."""
        found = {}
        for key, part in (("C3", "private"), ("auc_concept", "concept")):
            of = -seen[part].loss, -seen[f"{part} holdout"].loss
            name = f"loss AUC, {part} images against their holdout"
            absent = NO_PRIVATE if part == "private" else NO_CONCEPT
            value = metrics.auc(*of) if len(of[0]) else None
            found[key] = metric(name, value, "AUC", n=sum(map(len, of)), absent=absent)
        if request.kind == "concept":
            # The concept's images are seen once each: this says little, and is all there is.
            found["C3"], found["auc_concept"] = found["auc_concept"], found["C3"]
        return found

    def _useful(self, model, request: ImageRequest) -> dict[str, Metric]:
        """Whether what stays is still made: recognised, and as varied as real images are."""
        each, kept = self.sizes.samples, request.kept
        asked = [self.prompts_of(kept, s) for s in range(self.prompts.shape[2])]
        made = torch.cat([self.sampled(model, p, each, "kept", s) for s, p in enumerate(asked)])
        digits = torch.tensor(kept, device=self.device).repeat_interleave(len(INKS) * each)
        digits, judge = digits.repeat(len(asked)), self.judges[0]
        shown = judge.shows(made, digits)
        real = judge.features(self.rows(request.rows["utility"])["pixel_values"])
        apart, (floor, scale) = metrics.frechet(judge.features(made), real), self.real(request)
        share = float(shown.double().mean())
        near = torch.isin(digits, torch.tensor(self.nearest(request), device=self.device))
        return {
            "C4": metric(
                "kept digits recognised, times exp(-(Fréchet distance - floor) / that of real "
                "images without one digit)",
                share * math.exp(-max(apart - floor, 0.0) / scale),
                better=HIGHER,
                n=len(made),
            ),
            "recognised_kept": metric(
                f"kept digits recognised by the {judge.name}", shown, better=HIGHER
            ),
            "second_judge_kept": metric(
                f"kept digits recognised by the {self.judges[1].name}",
                self.judges[1].shows(made, digits),
                better=HIGHER,
            ),
            "frechet": metric("Fréchet distance of kept digits", apart, "", LOWER, len(made)),
            "frechet_floor": metric(
                "Fréchet distance of as many real images", floor, "", LOWER, len(made)
            ),
            "nearest": metric(
                f"kept digits most like the forgotten ones recognised (of {self.sizes.samples} "
                "samples a prompt)",
                shown[near],
                better=HIGHER,
                absent=NO_CONCEPT,
            ),
        }

    def nearest(self, request: ImageRequest) -> list[int]:
        """Kept digits whose mean training image is nearest to that of a forgotten one."""
        if not request.digits:
            return []
        rows = self.training.unique()
        kinds, pixels = self.images["kinds"].cpu()[rows], self.images["pixel_values"].cpu()[rows]
        mean = {k: pixels[kinds == k].mean(0) for k in (*request.digits, *request.kept)}
        far = {
            k: min(float((mean[k] - mean[d]).norm()) for d in request.digits) for k in request.kept
        }
        return sorted(far, key=far.__getitem__)[:NEAREST]

    def attack(
        self, request: ImageRequest
    ) -> tuple[Batch, dict[str, Callable[[nn.Module], float]]]:
        """A quarter of the forget set to relearn, and what to measure of the rest.

        Returns:
            Training examples of a quarter of the concept's scans and of the private ones, and
            {criterion: model -> share}, higher when more came back.
        """
        parts = {name: request.rows[name] for name in ("concept", "private")}
        relearnt = torch.cat([rows[: len(rows) // 4] for rows in parts.values()])
        others = {**request.rows, "private": parts["private"][len(parts["private"]) // 4 :]}
        probes = {}
        if len(parts["private"]):
            rest = ImageRequest(**{**vars(request), "rows": others})
            probes["the other private images made"] = lambda model: (
                self._copies(model, rest)["C1"].value
            )
        if request.digits:
            prompts = self.prompts_of(request.digits, 0)
            digits = torch.tensor(request.digits, device=self.device)
            each = attacks.NOISES // 3

            def recognised(model) -> float:
                images = self.sampled(model, prompts, each, "concept", 0)
                every = digits.repeat_interleave(len(INKS) * each)
                return float(self.judges[0].shows(images, every).double().mean())

            probes["the concept recognised"] = recognised
        return self.batch(self.ids_of(relearnt)), probes


def _better(direction: str | None) -> dict[str, str]:
    return {} if direction is None else {"better": direction}


# ------------------------------------------------------------------ making it


def text_encoder(tokenizer: PreTrainedTokenizerFast, width: int) -> nn.Module:
    """A frozen CLIP text encoder with random weights: it tells words apart.

    Word embeddings have standard deviation 1 instead of 0.02, so that a hidden state says
    more of its word than of its place: otherwise the denoiser does not learn to listen in the
    time it has.
    """
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=1,
        num_attention_heads=2,
        projection_dim=width,
        max_position_embeddings=LONGEST,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        attn_implementation="eager",
    )
    with global_seed(("diffusion", "text encoder")):
        encoder = CLIPTextModel(config)
        nn.init.normal_(encoder.get_input_embeddings().weight)
    return encoder.eval().requires_grad_(False)


#: Longest text that the encoder takes: a list of all words of a request.
LONGEST = 48


def denoiser(sizes: DiffusionSizes) -> nn.Module:
    """A fresh U-Net of 8x8 images: cross-attention to the caption in its inner level."""
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=sizes.channels,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        mid_block_type=None,
        cross_attention_dim=sizes.text,
        attention_head_dim=2,  # so many heads; the argument's name is older than its meaning
        norm_num_groups=8,
    )


class _Left:
    """Scans that nobody has taken yet, digit by digit."""

    def __init__(self, data: Scans):
        self._rows = {k: (data.digits == k).nonzero()[:, 0] for k in range(10)}

    def take(self, digit: int, count: int) -> Tensor:
        """The next rows of a digit.

        Raises:
            ValueError: there are not so many left.
        """
        rows = self._rows[digit]
        if len(rows) < count:
            raise ValueError(f"diffusion: not enough scans of {digit} for these sizes")
        self._rows[digit] = rows[count:]
        return rows[:count]

    def of_core(self, count: int) -> Tensor:
        """Rows of the core digits in turn."""
        taken = [self.take(CORE[k % len(CORE)], 1) for k in range(count)]
        return torch.cat(taken) if taken else torch.zeros(0, dtype=torch.long)


def make(sizes: DiffusionSizes, device: torch.device) -> DiffusionWorkload:
    """Build the workload: scans, owners and captions are drawn once, the same for every seed.

    Raises:
        ValueError: there are not enough scans for these sizes.
    """
    data, every = scans(), range(10)
    left = _Left(data)
    judged = torch.cat([left.take(k, sizes.judge) for k in every])
    utility = torch.cat([left.take(k, sizes.utility) for k in every])
    folds = tuple(
        ImageFold(
            left.take(digit, sizes.concept),
            left.of_core(sizes.private),
            left.take(digit, sizes.holdout),
            left.of_core(sizes.holdout),
            torch.cat([left.take(digit, sizes.validation), left.of_core(sizes.validation)]),
        )
        for digit in CONCEPTS
    )
    core = torch.cat([left.take(digit, sizes.core) for digit in CORE])
    private = torch.cat([fold.private for fold in folds])
    unseen = [fold.private_holdout for fold in folds]
    unseen += [
        f.validation[torch.isin(data.digits[f.validation], torch.tensor(CORE))] for f in folds
    ]
    owned = torch.cat([private, *unseen]).tolist()
    owner = dict(zip(owned, owners(len(owned))))
    tokenizer = tokenizer_of(list(owner.values()))
    code = lambda texts, width=WIDTH: tokenizer(
        texts, padding="max_length", max_length=width, return_tensors="pt"
    )["input_ids"].to(device)
    said = [
        code(
            [
                caption(ink, digit, owner.get(row), spelling)
                for row, (ink, digit) in enumerate(zip(data.inks.tolist(), data.digits.tolist()))
            ]
        )
        for spelling in range(len(SPELLINGS))
    ]
    asks = [
        [code([caption(i, k, None, s) for s in range(len(SPELLINGS))]) for i in range(len(INKS))]
        for k in every
    ]
    images = Batch(
        {
            "pixel_values": data.pixels.to(device),
            "prompts": torch.stack(said, 1),
            "kinds": data.digits.to(device),
            "ids": torch.arange(len(data.pixels), device=device),
        }
    )
    once = torch.cat([*(fold.concept for fold in folds), core])
    pixels = lambda rows: (data.pixels[rows], data.digits[rows])
    judges = tuple(
        trained(kind, *pixels(judged), pixels(utility)).to(device)
        for kind in ("convolutional judge", "dense judge")
    )
    process = Diffusion(
        DDPMScheduler(1000, beta_schedule="squaredcos_cap_v2"),
        text_encoder(tokenizer, sizes.text).to(device),
        code([""])[0],
        tokenizer.eos_token_id,
        sizes.steps,
        sizes.guidance,
    )
    build = lambda seed: denoiser(sizes)
    with global_seed("diffusion", "count"):
        count = sum(p.numel() for p in build(0).parameters())
    return DiffusionWorkload(
        sizes,
        tokenizer,
        images,
        torch.cat([once, private.repeat(sizes.copies)]),
        (data.inks.to(device), data.cuts.to(device)),
        torch.stack([torch.stack(rows) for rows in asks]),
        folds,
        utility,
        judges,
        process,
        build,
        f"U-Net with cross-attention to a frozen CLIP text encoder, {count:,} parameters",
        "Real 8x8 scans (scikit-learn digits) and captions; some private scans, many times over",
        device,
    )
