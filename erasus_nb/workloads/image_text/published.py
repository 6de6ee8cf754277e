"""Models and data of others for workload `image_text`: a CLIP checkpoint and an image folder.

How the folder is laid out is in imagefolder.py, and what a pair can be for in PARTS. Where models
are found and what is refused of any is in hub.py.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import CLIPImageProcessorPil, CLIPModel
from transformers.utils import logging

from ... import profiles
from ...strategy import Batch
from .. import hub, imagefolder
from ..base import CLOSER, Metric
from ..gates import PUBLISHED_PAIRS
from ..given import Published
from ..identity import board_slug
from ..imagefolder import Line, some
from . import (
    GALLERY,
    NEAREST,
    NO_WRITERS,
    TOP,
    Encoder,
    Found,
    ImageTextWorkload,
    PairFold,
    PairRequest,
)

#: The architectures (`model_type`) that this door takes.
MODELS = frozenset({"clip"})
#: Architectures of one tower alone, as CLIPVisionModel and CLIPTextModel are saved.
ONE_TOWER = frozenset({"clip_vision_model", "clip_text_model"})
#: What a pair can be for, and how many are needed. Forget and retain pairs are trained on. The
#: holdout is never trained on and distributed like the forget set; on the test pairs it is
#: measured what the model can still do; strategies that tune themselves get the validation.
PARTS = {"forget": 4, "retain": 2, "holdout": 2, "test": 4, "validation": 0}
#: How a concept is asked for: the first of CLIP's own prompts.
PROMPT = "a photo of a {}."
#: Kept pairs whose damage is looked at apart, at most.
NEAR = 100


# ------------------------------------------------------------------ reading data


def read(name: str) -> list[Line]:
    """The lines of all metadata files of an image folder; see imagefolder.py."""
    return imagefolder.read(name, PARTS)


# ------------------------------------------------------------------ reading models


def open_model(name: str, dtype: str, device: torch.device) -> nn.Module:
    """A CLIP model; see `hub.open_model`.

    Raises:
        ValueError: also, it is one tower without its projection.
    """
    hub.reachable(name, "model")
    if (found := hub.model_type(name)) in ONE_TOWER:
        raise ValueError(
            f"model {name} is one tower (of type {found}) without the projections that make "
            "images and captions comparable; wanted is a whole CLIP model (CLIPModel)"
        )
    return hub.open_model(name, CLIPModel, dtype, device, MODELS, "a CLIP model")


def open_processor(name: str):
    """What makes a model's input of an image; with PIL, whatever else is installed.

    Raises:
        ValueError: it is not there.
    """
    if Path(name).is_dir() and not any(
        Path(name, f"{kind}_config.json").is_file() for kind in ("preprocessor", "processor")
    ):
        raise ValueError(
            f"{name} has no image processor (preprocessor_config.json), so nobody knows how the "
            "model wants its images; give a folder with the model's processor and tokenizer as "
            "tokenizer"
        )
    try:
        return CLIPImageProcessorPil.from_pretrained(name)
    except Exception as error:  # whatever a library finds wrong with somebody's files
        raise hub.unreachable(name, "image processor", error) from error


def pixels(image: Path, processor, wanted: tuple[int, int, int]) -> Tensor:
    """An image as the model takes it, float32 of shape `wanted` (C, H, W).

    Raises:
        ValueError: the file is broken, or the processor makes something else of it.
    """
    picture = imagefolder.picture(image)
    what = imagefolder.named(image, picture)
    try:
        found = processor(images=picture, return_tensors="pt")["pixel_values"][0]
    except Exception as error:  # a processor without conversions refuses most images
        raise ValueError(f"{what} cannot be used by the image processor: {error}") from error
    if tuple(found.shape) != wanted:
        shape = lambda sides: " x ".join(map(str, sides))
        raise ValueError(
            f"{what} becomes {shape(found.shape)} numbers (channels, height, width) in the image "
            f"processor, and the model takes {shape(wanted)}"
        )
    return found.float()


def coded(tokenizer, said: Sequence[tuple[str, str]], config) -> Tensor:
    """Captions as token ids, (n, T), padded behind their end.

    Args:
        said: What a caption is of, for a reader, and the caption.
        config: Of the text tower.

    Raises:
        ValueError: one is longer than the model reads, or the tower looks for the end of
            captions elsewhere than where the tokenizer ends them.
    """
    if not said:
        return torch.zeros(0, 1, dtype=torch.long)
    rows = hub.token_rows(tokenizer, said, config.max_position_embeddings)
    end = -1 if tokenizer.eos_token_id is None else tokenizer.eos_token_id
    # Nothing is read behind the end, so it does not matter what stands there.
    found = pad_sequence(rows, batch_first=True, padding_value=max(end, 0))
    ends = found == end
    # With 2, CLIP's first configurations mean the highest token of a caption.
    highest = config.eos_token_id == 2
    read = found if highest else (found == config.eos_token_id).int()
    if not ends.any(1).all() or (read.argmax(1) != ends.int().argmax(1)).any():
        looked = "the highest token" if highest else f"token {config.eos_token_id}"
        raise ValueError(
            f"the tokenizer ends captions with {tokenizer.eos_token or 'no token'!r}, and the model "
            f"looks for their end at {looked}: it is not this model's tokenizer"
        )
    return found


# ------------------------------------------------------------------ the workload


@dataclass
class PublishedWorkload(hub.GivenWorkload, ImageTextWorkload):
    """Workload `image_text` with a published model and data; see Published for the sources.

    Args:
        models: "original" and "retrained" -> weights, or "start" -> weights that both are
            trained from.
        template: The published model as it was opened; every other is made from a copy.
        source: Where everything came from.
    """

    models: dict[str, dict[str, Tensor]] | None = None
    template: nn.Module | None = None
    source: Published | None = None

    requests = ("standard",)
    owners = None
    gates = PUBLISHED_PAIRS
    no_record = {**ImageTextWorkload.no_record, **hub.NO_RECORD}

    def __post_init__(self):
        super().__post_init__()
        self.criteria = {
            "C1": "own caption found",
            "C2": "concept recognised",
            "C3": "cosine AUC",
            "C4": "unseen and kept pairs still recognised and found",
        }

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the models, the tokenizer and the pairs as they were read."""
        tensors = {**self.pairs, **{f"bank {k}": v for k, v in self.bank.items()}}
        tensors |= {"classes": self.classes, "prompts": self.prompts, "unseen": self.unseen}
        tensors |= {k: getattr(self.folds[0], k) for k in ("ids", "holdout", "validation")}
        parts = [self.given_parts, hub.digest(tensors), self.names[0]]
        text = json.dumps(parts, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def chance(self) -> float:
        found = min(1.0, TOP / min(GALLERY, len(self.useful)))
        guesses = [1 / found, self.trained, *filter(None, [len(self.names[0])])]
        return len(guesses) / sum(guesses)

    # ---- data

    def _show(self, rows: Tensor, concepts: Sequence[int]) -> Tensor:
        """Which of these rows show one of these concepts."""
        return torch.isin(self.classes.cpu()[rows], torch.tensor(concepts, dtype=torch.long))

    @cached_property
    def gone(self) -> list[int]:
        """The concepts that are to be forgotten: the forget set has them and nobody else.

        Empty where the forget set has images without such a concept: then single pairs are to
        be forgotten, and nothing unseen shows what they are about.
        """
        fold, classes = self.folds[0], self.classes.cpu()
        asked, kept = classes[fold.ids].unique(), classes[self.without(fold.ids)].unique()
        shared = torch.isin(asked, kept).any() or (asked < 0).any()
        unseen = torch.cat([fold.holdout, self.unseen])
        return [] if shared or not self._show(unseen, asked.tolist()).any() else asked.tolist()

    @property
    def useful(self) -> Tensor:
        """Rows of unseen pairs that have nothing to do with what is forgotten."""
        return self.unseen[~self._show(self.unseen, self.gone)]

    def request(self, kind: str = "standard", folds: Sequence[int] = (1,)) -> PairRequest:
        """The request: the pairs marked forget; of kind "concept" if they are a concept's.

        Raises:
            ValueError: another kind or fold than the standard one.
        """
        if kind not in self.requests:
            raise ValueError(f"published data have the standard request only, not {kind}")
        folds = self.checked_folds(folds, len(self.folds))
        fold = self.folds[0]
        unseen = torch.cat([fold.holdout, self.unseen])
        rows = {
            "forget": fold.ids,
            "retain": self.without(fold.ids),
            "holdout": fold.holdout,
            "concept": unseen[self._show(unseen, self.gone)],
            "utility": self.useful,
            "nearest": self.nearest,
        }
        batches = {name: self.rows(found) for name, found in rows.items()}
        near = "kept pairs whose images are most like forgotten ones to the given model"
        if self.gone:
            near = "kept concepts whose names are most like the forgotten one to the given model"
        return PairRequest(
            "concept" if self.gone else "standard",
            folds,
            *(batches[k] for k in ("forget", "retain", "holdout", "concept", "utility")),
            torch.ones(len(fold.ids), dtype=torch.bool, device=self.device),
            self.gone[0] if len(self.gone) == 1 else None,
            f"the {len(fold.ids)} pairs marked forget in {self.source.data}",
            rows,
            near,
        )

    @cached_property
    def nearest(self) -> Tensor:
        """Rows of kept pairs most like what is forgotten, as the given model sees it."""
        model, forget = self.template, self.folds[0].ids
        if not self.gone:
            kept = self.without(forget)
            alike = (self.images(model, kept) @ self.images(model, forget).T).amax(1)
            return kept[alike.topk(min(NEAR, -(-len(kept) // 4))).indices.cpu()]
        named = self.texts(model, self.prompts)
        alike = (named @ named[self.gone].T).amax(1)
        alike[self.gone] = -2
        there = self.classes[self.unseen.to(self.device)].unique()
        alike[~torch.isin(torch.arange(len(alike), device=there.device), there)] = -2
        best = [k for k in alike.topk(min(NEAREST, len(alike))).indices.tolist() if alike[k] > -2]
        return self.unseen[self._show(self.unseen, best)]

    def validation(self, request: PairRequest) -> Batch | None:
        """The pairs marked so, if there are any."""
        rows = self.folds[0].validation
        return self.rows(rows) if len(rows) else None

    # ---- measuring

    def _known(self, model, request: PairRequest) -> dict[str, tuple]:
        if request.kind == "concept":
            return super()._known(model, request)
        absent = "no concept is marked that the forget set has alone"
        lines = {"C2": "concept recognised", "top_5": f"concept among the best {TOP}"}
        return {k: (name, None, "fraction", CLOSER, 0, absent) for k, name in lines.items()}

    def _useful(self, model, rows: Tensor) -> dict[str, Tensor]:
        """As of the small workload, but captions are looked for whole, and concepts only where
        they are marked."""
        found = {"recall": Found.of(self, model, rows[:GALLERY]).recall(top=TOP)}
        named = rows[self.classes.cpu()[rows] >= 0]
        if len(named):
            sims = self.images(model, named) @ self.texts(model, self.prompts).T
            found["zero_shot"] = sims.argmax(1) == self.classes[named.to(self.device)]
        return found

    def _described_cosines(self, model, rows: dict[str, Tensor]) -> None:
        return None  # the captions are whole as they are

    def _probe(self, model, request: PairRequest) -> tuple:
        if request.kind == "concept":
            return super()._probe(model, request)
        what = "linear probe on frozen image features"
        return what, None, "fraction", CLOSER, 0, "nothing is marked that a probe could tell"

    def _measured(self, model, encoder: Encoder, request: PairRequest) -> dict[str, Metric]:
        found = super()._measured(model, encoder, request)
        why = {"auc_described": NO_WRITERS}
        if found["zero_shot"].value is None:
            why["zero_shot"] = "no concept of a kept test pair is marked"
        return found | {
            name: found[name]._replace(n=0, reason=reason) for name, reason in why.items()
        }

    def attack(self, request: PairRequest) -> tuple[Batch, dict[str, Callable[[nn.Module], float]]]:
        """A quarter of the forget pairs to relearn, and what to measure of the rest."""
        if request.kind == "concept":
            return super().attack(request)
        forget = request.rows["forget"]
        count = max(1, len(forget) // 4)

        def recalled(model) -> float:
            every = Found.of(self, model, self.gallery(request))
            return float(every.recall(forget[count:]).mean())

        return self.batch(forget[:count]), {"captions of the other forgotten pairs found": recalled}


# ------------------------------------------------------------------ making it


def make(published: Published, profile: str, device: torch.device) -> PublishedWorkload:
    """Read a model and data and check that they fit.

    Raises:
        ValueError: something is missing or does not fit; one sentence says what.
    """
    sizes = profiles.sizes_of(profile, PublishedWorkload.kind, published=True)
    return build(published, sizes, device)


def build(
    published: Published, sizes: profiles.PublishedPairSizes, device: torch.device
) -> PublishedWorkload:
    """The workload at the given sizes; see `make`."""
    logging.disable_progress_bar()
    hub.check_complete(published)
    lines = read(published.data)
    model = open_model(published.model, sizes.dtype, device)
    beside = published.tokenizer or published.model
    processor = open_processor(beside)
    tokenizer = hub.open_tokenizer(beside, model.config.text_config.vocab_size)
    models = hub.given_models(published, model, lambda n: open_model(n, sizes.dtype, device))

    part = lambda name, most: some([line for line in lines if line.part == name], most)
    test = part("test", sizes.probes)
    bank = min(sizes.bank, len(test) // 2)
    if len({line.text for line in test[:bank]}) < 2:
        raise ValueError(
            f"the {bank} test pairs of {published.data} that all others are compared with have one "
            "caption; pairs of at least two are needed"
        )
    groups = [
        part("forget", sizes.forget),
        part("retain", sizes.retain),
        part("holdout", sizes.probes),
        part("validation", sizes.probes),
        test[:bank],
        test[bank:],
    ]
    chosen = [line for group in groups for line in group]
    forget, retain, holdout, validation, compared, unseen = torch.arange(len(chosen)).split(
        list(map(len, groups))
    )
    concepts = tuple(sorted({line.concept for line in chosen} - {""}))
    text = model.config.text_config
    called = [(f"image {line.image}", line.text) for line in chosen]
    asked = [(f"concept {concept}", PROMPT.format(concept)) for concept in concepts]
    numbers = {caption: k for k, caption in enumerate(dict.fromkeys(said for _, said in called))}
    pairs = {
        "pixel_values": _stacked(chosen, processor, model),
        "input_ids": coded(tokenizer, called, text)[:, None],
        "captions": torch.tensor([numbers[said] for _, said in called])[:, None],
        "ids": torch.arange(len(chosen)),
    }
    classes = torch.tensor([concepts.index(p.concept) if p.concept else -1 for p in chosen])

    def fresh(seed: object) -> nn.Module:
        with device:  # its weights are drawn where they are needed
            return CLIPModel(deepcopy(model.config)).to(model.dtype)

    count = sum(p.numel() for p in model.parameters())
    return PublishedWorkload(
        sizes,
        tokenizer,
        Batch(pairs),
        len(forget) + len(retain),
        (pairs["input_ids"][:, 0], pairs["captions"][:, 0]),
        classes,
        torch.full((len(chosen),), -1),  # nobody says whose they are
        coded(tokenizer, asked, text),
        torch.zeros(0, 1, dtype=torch.long),
        (PairFold(forget, holdout, validation),),
        unseen,
        Batch(pairs).take(compared).replace(ids=torch.full((bank,), -1)),
        fresh,
        (concepts, ()),
        f"{published.model}: {type(model).__name__}, {count:,} parameters, {sizes.dtype}",
        published.data,
        device,
        name=board_slug(PublishedWorkload.kind, published.data, published.model),
        models=models,
        template=model,
        source=published,
    ).named()


def _stacked(lines: Sequence[Line], processor, model: nn.Module) -> Tensor:
    """The images of some lines as the model takes them, (n, C, H, W)."""
    vision = model.config.vision_config
    wanted = (vision.num_channels, vision.image_size, vision.image_size)
    with ThreadPoolExecutor() as pool:
        found = pool.map(lambda line: pixels(line.image, processor, wanted), lines)
        return torch.stack([each.to(model.dtype) for each in found])
