"""Workload `image_text`: a CLIP dual encoder, real scans of digits and captions about them.

A pair is one scan and its caption, which says what is measured on the scan and who wrote it.
The writers are invented. A request asks to forget some of them, all their pairs (identity),
or one digit, with all pairs that show it (concept).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel, PreTrainedTokenizerFast

from ... import metrics
from ...profiles import TUNING_SEEDS, ImageTextSizes
from ...strategy import Batch
from ...training import generator
from ..base import HIGHER, LOWER, Metric, Request, Workload, metric
from ..gates import DUAL_ENCODER
from .captions import DIGITS, by, caption, corpus, tokenizer_of, zero_shot
from .task import ImageTextTask, embedded, members, temperature_of

#: Pages whose strategies are at home here.
HOME_OF = ("vlm",)

#: Digits that the folds of a concept request ask for; the bank shows none of them.
CONCEPTS = (7, 4, 3, 9)
#: Captions of other writers that the right one is compared with.
SWAPS = 9
#: The best so many count as a hit, where it is not the best one alone.
TOP = 5
#: Unseen pairs among which one is looked for.
GALLERY = 216
#: Kept digits that look most like the forgotten one.
NEAREST = 2
#: Images of each forgotten writer that a probe is asked about; it sees the others.
PROBED = 2
#: Images or captions read in one forward pass.
READING = 512
NO_WRITERS = "the captions name no writers"


@dataclass(frozen=True)
class PairFold:
    """What one fold of the identity request holds, as rows of the table of pairs.

    Args:
        ids: Training pairs of its writers.
        holdout, validation: Never-trained pairs of other writers.
    """

    ids: Tensor
    holdout: Tensor
    validation: Tensor


@dataclass(frozen=True)
class PairRequest(Request):
    """A request of `image_text`: also the rows of the pairs that are measured.

    Args:
        rows: "forget", "retain", "holdout", "concept" and "utility" -> rows of the table;
            "nearest" are the kept pairs most like what is forgotten.
        near: What these are, in words.
    """

    rows: dict[str, Tensor] = field(default_factory=dict)
    near: str = ""


@dataclass
class ImageTextWorkload(Workload):
    """Pairs, model, request and measurements of a dual encoder of images and captions.

    Args:
        sizes: From profiles.py.
        tokenizer: Of the captions.
        pairs: All pairs, trained on or not: `pixel_values` (n, C, H, W), `input_ids` (n, V, T)
            and `captions` (n, V).
        trained: So many are training pairs: the first ones, by id.
        described: Captions without the writer, (n, T), and their numbers, (n,).
        classes: What an image shows, (n,); writers: whose it is, (n,).
        prompts: The caption that asks for each class, (classes, T).
        people: The caption that names each writer and nothing else, (writers, T).
        folds: The four folds of the identity request.
        unseen: Rows of never-trained pairs, apart from the holdouts and all else.
        bank: Never-trained pairs that `outputs` compares with; no measurement uses them.
        build: Seed -> freshly initialised model.
        names: Of the classes, and of the writers.
        model_text, data_text: For readers and board headers.
    """

    sizes: ImageTextSizes
    tokenizer: PreTrainedTokenizerFast
    pairs: Batch
    trained: int
    described: tuple[Tensor, Tensor]
    classes: Tensor
    writers: Tensor
    prompts: Tensor
    people: Tensor
    folds: tuple[PairFold, ...]
    unseen: Tensor
    bank: Batch
    build: Callable[[object], nn.Module]
    names: tuple[tuple[str, ...], tuple[str, ...]]
    model_text: str
    data_text: str
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    remember: Callable[[str, Callable[[], dict[str, Tensor]]], dict[str, Tensor]] = field(
        default=lambda name, make: make()
    )
    name: str = "image_text"

    kind = "image_text"
    gates = DUAL_ENCODER
    in_prose = True
    criteria = {
        "C1": "own caption found",
        "C2": "name or concept recognised",
        "C3": "cosine AUC",
        "C4": "unseen and kept pairs still recognised and found",
    }
    sentence = (
        "Retrain-Match {rm}. Own caption found and told from those of other writers {m:C1} "
        "(original {o:C1}, retrained {r:C1}), name or concept recognised {m:C2} ({o:C2}, {r:C2}), "
        "cosine AUC {m:C3} ({o:C3}, {r:C3}), what stays {m:C4} ({r:C4}), kept pairs found "
        "{m:retain_accuracy} ({r:retain_accuracy}); {time_ratio} times the seconds of "
        "retraining; {flags}"
    )
    requests = ("standard", "concept")
    provides = frozenset({"labels", "outputs", "features", "prunable units", "pairs", "attention"})
    no_record = {
        "convex head": "a certificate needs a strongly convex loss, and the contrastive loss "
        "of two towers is none; a convex probe on frozen features would match no captions"
    }
    tuning_seeds = TUNING_SEEDS[:2]
    timed_steps = 8
    attack_steps = (0, 5, 10, 20)

    def __post_init__(self):
        to = lambda tensor: tensor.to(self.device)
        self.pairs, self.bank = self.moved(self.pairs), self.moved(self.bank)
        self.described = tuple(map(to, self.described))
        self.classes, self.writers = to(self.classes), to(self.writers)
        self.prompts, self.people = to(self.prompts), to(self.people)

    # ---- data

    def rows(self, rows: Tensor) -> Batch:
        """Pairs by row; the id of one that was never trained on is -1."""
        rows = rows.to(self.device)
        return self.pairs.take(rows).replace(ids=rows.where(rows < self.trained, -1))

    def batch(self, ids: Tensor) -> Batch:
        """Training pairs by id."""
        return self.rows(ids)

    @property
    def train_ids(self) -> Tensor:
        """Ids of all training pairs, shape (n,)."""
        return torch.arange(self.trained)

    @property
    def owners(self) -> tuple[Tensor, ...]:
        """Training ids of the writers of each fold, and of each digit that can be asked for."""
        return (*(fold.ids for fold in self.folds), *map(self._showing, range(len(self.folds))))

    def _showing(self, fold: int) -> Tensor:
        """Training ids of the pairs that show the concept of a fold, counted from 0."""
        return (self.classes[: self.trained] == CONCEPTS[fold]).nonzero()[:, 0].cpu()

    @cached_property
    def fingerprint(self) -> str:
        """Hash of everything that the training data and the measurements are made of."""
        parts = [self.pairs[name] for name in ("pixel_values", "input_ids")]
        parts += [self.described[0], self.prompts, self.people, self.unseen]
        parts += [t for f in self.folds for t in (f.ids, f.holdout, f.validation)]
        whole = b"".join(part.cpu().numpy().tobytes() for part in parts)
        return hashlib.blake2b(whole, digest_size=8).hexdigest()

    @property
    def about(self) -> dict:
        return {"chance": self.chance, "swaps": SWAPS, "top": TOP, "gallery": GALLERY}

    @property
    def chance(self) -> float:
        """C4 of a model that guesses."""
        return 3 / (len(self.prompts) + GALLERY / TOP + self.trained)

    def request(self, kind: str = "standard", folds: Sequence[int] = (1,)) -> PairRequest:
        """The request: what to forget, and what to compare with.

        Args:
            kind: "standard" asks for all pairs of some writers (identity), "concept" for all
                pairs that show a digit.
            folds: Which writers, or which digit, counted from 1.

        Raises:
            ValueError: another kind, an unknown fold or none.
        """
        if kind not in self.requests:
            raise ValueError(f"request must be one of {', '.join(self.requests)}, got {kind!r}")
        folds = self.checked_folds(folds, len(self.folds))
        rows = self._identity(folds) if kind == "standard" else self._concept(folds)
        ids = rows["forget"]
        rows["retain"] = self.without(ids)
        unlike = self.unseen[:0]
        gone = [CONCEPTS[k - 1] for k in folds] if kind == "concept" else []
        if kind == "standard":
            near = "kept pairs whose writer shares a name with a forgotten one"
            who = f"all {len(ids)} pairs of {len(self.writers[ids].unique())} writers"
        else:
            near = f"kept digits that look most like {self._spoken(gone)}"
            who = f"all {len(ids)} pairs that show a {self._spoken(gone)}"
        rows["nearest"] = self._alike(ids, gone)
        return PairRequest(
            kind,
            folds,
            self.batch(ids),
            self.batch(rows["retain"]),
            self.rows(rows["holdout"]),
            self.rows(rows.get("concept", unlike)),
            self.rows(rows["utility"]),
            torch.ones(len(ids), dtype=torch.bool, device=self.device),
            gone[0] if len(gone) == 1 else None,
            who,
            {"concept": unlike, **rows},
            near,
        )

    def _spoken(self, classes: Sequence[int]) -> str:
        return " or ".join(self.names[0][k] for k in classes)

    def _identity(self, folds: Sequence[int]) -> dict[str, Tensor]:
        asked = [self.folds[k - 1] for k in folds]
        return {
            "forget": torch.cat([fold.ids for fold in asked]),
            "holdout": torch.cat([fold.holdout for fold in asked]),
            "utility": self.unseen,
        }

    def _concept(self, folds: Sequence[int]) -> dict[str, Tensor]:
        gone = torch.tensor([CONCEPTS[k - 1] for k in folds])
        never = torch.cat([*(fold.holdout for fold in self.folds), self.unseen])
        shows = lambda rows: torch.isin(self.classes.cpu()[rows], gone)
        return {
            "forget": torch.cat([self._showing(k - 1) for k in folds]),
            "holdout": never[shows(never)],
            "concept": never[shows(never)],
            "utility": self.unseen[~shows(self.unseen)],
        }

    def validation(self, request: Request) -> Batch:
        """Never-trained pairs like those of the request, apart from all that is measured."""
        rows = torch.cat([self.folds[k - 1].validation for k in request.folds])
        if request.kind == "concept":
            every = torch.cat([fold.validation for fold in self.folds])
            gone = torch.tensor([CONCEPTS[k - 1] for k in request.folds])
            rows = every[torch.isin(self.classes.cpu()[every], gone)]
        return self.rows(rows)

    # ---- models

    def task(self, seed: object = 0, **rest) -> ImageTextTask:
        """The hooks handed to a strategy; see Task for the arguments."""
        end = self.tokenizer.eos_token_id
        return ImageTextTask(self.sizes.recipe, self.bank, end, self.make_model, seed, **rest)

    # ---- measuring

    def _alike(self, ids: Tensor, gone: Sequence[int]) -> Tensor:
        """Kept pairs most like the forgotten ones.

        Of a concept: unseen pairs of the digits whose mean training image is nearest to its
        own. Of writers: training pairs of kept writers who share one of their two names.
        """
        classes, kept = self.classes.cpu(), self.without(ids)
        if gone:
            pixels = self.pairs["pixel_values"].cpu()
            there = [k for k in range(len(self.prompts)) if k not in gone]
            mean = lambda k: pixels[: self.trained][classes[: self.trained] == k].mean(0)
            far = [min(float((mean(k) - mean(g)).norm()) for g in gone) for k in there]
            near = torch.tensor(there)[torch.tensor(far).argsort()[:NEAREST]]
            return self.unseen[torch.isin(classes[self.unseen], near)]
        words = {word for row in self.writers[ids].unique().tolist() for word in self._name(row)}
        shares = [not words.isdisjoint(self._name(w)) for w in self.writers[kept].tolist()]
        return kept[torch.tensor(shares)]

    def _name(self, writer: int) -> list[str]:
        return self.names[1][writer].split()

    @torch.no_grad()
    def images(self, model: nn.Module | Encoder, rows: Tensor) -> Tensor:
        """Unit embeddings of the images of some pairs, (n, d)."""
        if isinstance(model, Encoder):
            return model.images(rows)
        pixels, one = (
            self.pairs["pixel_values"][rows.to(self.device)],
            self.pairs["input_ids"][:1, 0],
        )
        return torch.cat([embedded(model, some, one)[0] for some in pixels.split(READING)])

    @torch.no_grad()
    def texts(self, model: nn.Module | Encoder, input_ids: Tensor) -> Tensor:
        """Unit embeddings of captions, (n, d)."""
        if isinstance(model, Encoder):
            return model.texts(input_ids)
        one = self.pairs["pixel_values"][:1]
        return torch.cat([embedded(model, one, some)[1] for some in input_ids.split(READING)])

    def captions(self, model: nn.Module | Encoder, rows: Tensor) -> Tensor:
        """Unit embeddings of the full captions of some pairs, (n, d)."""
        return self.texts(model, self.pairs["input_ids"][rows.to(self.device), 0])

    @torch.no_grad()
    def features(self, model: nn.Module, rows: Tensor) -> Tensor:
        """What the image tower makes of some images before it projects it, (n, width)."""
        pixels = self.pairs["pixel_values"][rows.to(self.device)]
        parts = [
            torch.cat(
                [m.vision_model(some).pooler_output.float() for some in pixels.split(READING)]
            )
            for m in members(model)
        ]
        return torch.cat(parts, -1)

    def gallery(self, request: PairRequest) -> Tensor:
        """Rows among whose captions and images one is looked for: training pairs, by id, and
        the holdout."""
        return torch.cat([self.train_ids, request.rows["holdout"]])

    def distributions(self, model: nn.Module, request: PairRequest) -> Tensor:
        """How the model spreads each forgotten image over all captions, (k, captions)."""
        return self._spread(model, Encoder(self, model), request)

    @torch.no_grad()
    def _spread(self, model, encoder: Encoder, request: PairRequest) -> Tensor:
        said = self.captions(encoder, self.gallery(request))
        seen = self.images(encoder, request.rows["forget"])
        return (temperature_of(model) * seen @ said.T).softmax(-1)

    def measure(self, model: nn.Module, request: PairRequest) -> tuple[dict[str, Metric], Tensor]:
        """Everything that is measured on one model, and `distributions`.

        Raises:
            ValueError: the model does not answer with embeddings of images and captions.
        """
        training = model.training
        model.eval()
        try:
            encoder = Encoder(self, model)
            return (
                self._measured(model, encoder, request),
                self._spread(model, encoder, request),
            )
        finally:
            model.train(training)

    def _measured(self, model, encoder: Encoder, request: PairRequest) -> dict[str, Metric]:
        rows = request.rows
        every = Found.of(self, encoder, self.gallery(request))
        unseen = torch.arange(self.trained, len(every))  # the holdout, behind the training pairs
        recalled, recalled_unseen = every.recall(rows["forget"]), every.recall(unseen)
        told = self.told_apart(encoder, rows["forget"], request)
        told_unseen = self.told_apart(encoder, rows["holdout"], request)
        # Of pairs without writers, what is left of C1 is whether their captions are found.
        parts = lambda recall, told: [recall] if told is None else [recall, told.double()]
        both = lambda *found: sum(float(part.mean()) for part in found) / len(found)
        cosines = (every.images * every.texts).sum(-1).cpu()
        of = cosines[rows["forget"]], cosines[unseen]
        described = self._described_cosines(encoder, rows)
        known = self._known(encoder, request)
        retain = every.recall(rows["retain"])
        useful = self._useful(encoder, rows["utility"])
        against, n = "forget against holdout", len(of[0]) + len(of[1])
        loss = self._losses(model, encoder, rows)
        return {
            "C1": metric(
                "own caption found among all"
                + ("" if told is None else ", and told from other writers' captions"),
                both(*parts(recalled, told)),
                n=len(rows["forget"]),
            ),
            "C2": metric(*known["C2"]),
            "C3": metric(f"cosine AUC, {against}", metrics.auc(*of), "AUC", n=n),
            "C4": metric(
                "harmonic mean of "
                + ("zero-shot accuracy and " if "zero_shot" in useful else "")
                + "recall at 5 on retained unseen pairs, and of recall at 1 on the retain set",
                together([*useful.values(), retain]),
                better=HIGHER,
                n=len(rows["utility"]),
            ),
            "recall": metric("own caption or image found among all (recall at 1)", recalled),
            "told_apart": metric(
                "caption told from those of other writers", told, absent=NO_WRITERS
            ),
            "verbatim_holdout": metric(
                "C1 on the holdout",
                both(*parts(recalled_unseen, told_unseen)),
                n=len(unseen),
            ),
            **{name: metric(*line) for name, line in known.items() if name != "C2"},
            "zero_shot": metric(
                "zero-shot accuracy, retained unseen", useful.get("zero_shot"), better=HIGHER
            ),
            "recall_at_5": metric("recall at 5, retained unseen", useful["recall"], better=HIGHER),
            "nearest": metric(*self._nearest(encoder, every, request), better=HIGHER),
            "tpr_at_1_fpr": metric(
                f"true positives at 1 % false ones, {against}",
                metrics.tpr_at_fpr(*of, 0.01),
                n=n,
            ),
            "auc_described": metric(
                f"cosine AUC of captions without the writer, {against}",
                described,
                "AUC",
                n=n,
            ),
            "probe": metric(*self._probe(model, request)),
            "forget_accuracy": metric("own caption or image found, forget set", recalled),
            "retain_accuracy": metric(
                "own caption or image found, retain set", retain, better=HIGHER
            ),
            "forget_loss": metric("loss against the bank, forget set", loss["forget"], "nats"),
            "retain_loss": metric(
                "loss against the bank, retain set", loss["retain"], "nats", LOWER
            ),
            "holdout_loss": metric("loss against the bank, holdout", loss["holdout"], "nats"),
        }

    def told_apart(self, model, rows: Tensor, request: PairRequest) -> Tensor | None:
        """Whether each image is nearer to its caption than to the same one with other writers.

        The other writers are of the same set, so that a model which knows none of them has
        one chance in SWAPS + 1. None where the pairs have no writers.
        """
        writers = self.writers[rows]
        there = writers.unique()
        if len(there) < 2 or (there < 0).any():
            return None
        count = min(SWAPS, len(there) - 1)
        draw = generator("image_text", "swaps", request.kind, request.folds, len(rows))
        keys = torch.rand(len(rows), len(there), generator=draw).to(self.device)
        others = keys.masked_fill(writers[:, None] == there, -1).topk(count).indices
        full = self.pairs["input_ids"][rows.to(self.device), 0]
        swapped = self.renamed(full.repeat_interleave(count, 0), there[others].flatten())
        images = self.images(model, rows)
        own = (images * self.captions(model, rows)).sum(-1)
        texts = self.texts(model, swapped).view(len(rows), count, -1)
        return own > (images[:, None] * texts).sum(-1).amax(1)

    def renamed(self, input_ids: Tensor, writers: Tensor) -> Tensor:
        """Captions (n, T) that end in a writer's name, with the names of others (n,)."""
        end = (input_ids == self.tokenizer.eos_token_id).int().argmax(1, keepdim=True)
        place = end + torch.tensor([-2, -1], device=end.device)
        return input_ids.scatter(1, place, self.people[writers, 3:5])

    def _known(self, model, request: PairRequest) -> dict[str, tuple]:
        """C2 and what stands beside it, as arguments of `metric`.

        Of a concept, whether unseen images of it are recognised. Of writers, who can only be
        known from the images that were trained on, whether the name alone finds them.
        """
        if request.kind == "concept":
            rows, texts, true = request.rows["concept"], self.prompts, self.classes
            what = "zero-shot accuracy on unseen images of the concept"
        else:
            trained = self.writers[: self.trained].unique()
            rows, texts, true = request.rows["forget"], self.people[trained], self.writers
            what = "forgotten images given to their writer by the name alone"
        sims = self.images(model, rows) @ self.texts(model, texts).T
        best = sims.topk(min(TOP, len(texts))).indices
        hits = best == true[rows.to(self.device)][:, None]
        return {
            "C2": (what, hits[:, 0]),
            "top_5": (f"{what}, among the best {TOP}", hits.any(1)),
        }

    def _useful(self, model, rows: Tensor) -> dict[str, Tensor]:
        """Zero-shot accuracy and recall at 5 on unseen pairs, each pair's own."""
        images, true = self.images(model, rows), self.classes[rows.to(self.device)]
        right = (images @ self.texts(model, self.prompts).T).argmax(1) == true
        some = rows[:GALLERY].to(self.device)
        texts, captions = (t[some] for t in self.described)
        recall = Found(images[: len(some)], self.texts(model, texts), captions).recall(top=TOP)
        return {"zero_shot": right, "recall": recall}

    def _described_cosines(self, model, rows: dict[str, Tensor]) -> float:
        """AUC of the cosine with captions that name no writer, forget against holdout."""
        cosines = []
        for part in ("forget", "holdout"):
            texts = self.texts(model, self.described[0][rows[part].to(self.device)])
            cosines.append((self.images(model, rows[part]) * texts).sum(-1).cpu())
        return metrics.auc(*cosines)

    @torch.no_grad()
    def _losses(self, model, encoder: Encoder, rows: dict[str, Tensor]) -> dict[str, Tensor]:
        """Loss of each pair of a split against the bank, (n,)."""
        task, scale = self.task(), temperature_of(model)
        bank, found = task.bank_of(model), {}
        for part in ("forget", "retain", "holdout"):
            own = self.images(encoder, rows[part]), self.captions(encoder, rows[part])
            captions = self.pairs["captions"][rows[part].to(self.device), 0]
            logits = task.compared(own, bank, captions, scale)
            found[part] = task.loss_from(logits, Batch({"captions": captions}))
        return found

    def _nearest(self, model, every: Found, request: PairRequest) -> tuple[str, Tensor]:
        """What is left of the kept pairs that are most like the forgotten ones."""
        near = request.rows["nearest"]
        if request.kind != "concept":
            return f"own caption or image found, {request.near}", every.recall(near)
        sims = self.images(model, near) @ self.texts(model, self.prompts).T
        return (
            f"zero-shot accuracy, {request.near}",
            sims.argmax(1) == self.classes[near.to(self.device)],
        )

    def _probe(self, model, request: PairRequest) -> tuple[str, Tensor]:
        """Whether a linear probe on frozen image features still tells what is forgotten.

        Of a concept: does it find the unseen images of the digit, having seen the training
        ones. Of writers: does it give two of each forgotten writer's images to the writer,
        having seen the others; nothing on a scan tells the writer, so only memory can.
        """
        forget, numpy = request.rows["forget"], lambda t: t.cpu().numpy()
        if request.kind == "concept":
            seen, asked = self.train_ids, request.rows["concept"]
            true = lambda rows: numpy(torch.isin(rows, torch.cat([forget, asked])))
            what = "linear probe on frozen image features: unseen images of the concept"
        else:
            writers = self.writers.cpu()[forget]
            number = torch.tensor([int((writers[:k] == w).sum()) for k, w in enumerate(writers)])
            seen, asked = forget[number >= PROBED], forget[number < PROBED]
            true = lambda rows: numpy(self.writers[rows])
            what = "linear probe on frozen image features: the writer of left-out forget images"
        probe = LogisticRegression(max_iter=500, class_weight="balanced")
        probe.fit(numpy(self.features(model, seen)), true(seen))
        right = probe.predict(numpy(self.features(model, asked))) == true(asked)
        return what, torch.from_numpy(right)

    def attack(self, request: PairRequest) -> tuple[Batch, dict[str, Callable[[nn.Module], float]]]:
        """A quarter of the forget set to relearn, and what to measure of the rest.

        Returns:
            Pairs of a quarter of the writers (of a concept: a quarter of its pairs), and
            {criterion: model -> share}, higher when more came back.
        """
        forget = request.rows["forget"]
        who = self.writers.cpu()[forget]
        owner = torch.arange(len(forget)) if request.kind == "concept" else who
        there = owner.unique()
        relearnt = torch.isin(owner, there[: len(there) // 4])
        others = forget[~relearnt]

        def recalled(model) -> float:
            every = Found.of(self, model, self.gallery(request))
            return float(every.recall(others).mean())

        probes = {"captions of the other forgotten pairs found": recalled}
        if request.kind == "concept":
            probes["unseen images of the concept recognised"] = lambda model: float(
                self._known(model, request)["C2"][1].double().mean()
            )
        else:
            probes["writers of the other forgotten pairs told apart"] = lambda model: float(
                self.told_apart(model, others, request).double().mean()
            )
        return self.batch(forget[relearnt]), probes


def together(parts: Sequence[Tensor]) -> float:
    """Harmonic mean of the means of several measurements; 0 where one is 0."""
    means = [float(part.double().mean()) for part in parts]
    return len(means) / sum(1 / mean for mean in means) if all(means) else 0.0


class Encoder:
    """A model's unit embeddings, of which each is made once.

    Most measurements ask for the same images and captions. Give it to `images`, `texts` and
    what is made of them, in place of the model.
    """

    def __init__(self, workload: ImageTextWorkload, model: nn.Module):
        self._workload, self._model = workload, model
        self._images: dict[int, Tensor] = {}
        self._texts: dict[tuple[int, ...], Tensor] = {}

    def images(self, rows: Tensor) -> Tensor:
        """Of the images of some pairs, (n, d)."""
        make = lambda some: self._workload.images(self._model, rows[some])
        return self._of(self._images, rows.tolist(), make)

    def texts(self, input_ids: Tensor) -> Tensor:
        """Of captions (n, T), (n, d)."""
        make = lambda some: self._workload.texts(self._model, input_ids[some])
        return self._of(self._texts, list(map(tuple, input_ids.tolist())), make)

    @staticmethod
    def _of(kept: dict, keys: list, make: Callable[[Tensor], Tensor]) -> Tensor:
        place = {key: k for k, key in enumerate(keys) if key not in kept}
        new = torch.tensor(list(place.values()), dtype=torch.long)
        if not keys:
            return make(new)
        if place:
            kept.update(zip(place, make(new)))
        return torch.stack([kept[key] for key in keys])


@dataclass(frozen=True)
class Found:
    """Unit embeddings of pairs, (n, d) each, and the numbers of their captions, (n,)."""

    images: Tensor
    texts: Tensor
    captions: Tensor

    @staticmethod
    def of(workload: ImageTextWorkload, model: nn.Module | Encoder, rows: Tensor) -> Found:
        captions = workload.pairs["captions"][rows.to(workload.device), 0]
        return Found(workload.images(model, rows), workload.captions(model, rows), captions)

    def __len__(self) -> int:
        return len(self.captions)

    def recall(self, places: Tensor | None = None, top: int = 1) -> Tensor:
        """Share of both directions in which a pair finds its other half, (k,): 0, 1/2 or 1.

        An image looks for its caption among all, and a caption for its image. A caption that
        says the same as the right one, and an image with such a caption, is no wrong answer;
        what is exactly as near as the right one is.

        Args:
            places: Which pairs look; None is all.
            top: The best so many count.
        """
        places = torch.arange(len(self)) if places is None else places
        places = places.to(self.captions.device)
        same = self.captions[places, None] == self.captions
        found = []
        for one, other in ((self.images, self.texts), (self.texts, self.images)):
            sims = one[places] @ other.T
            own = sims.gather(1, places[:, None])
            ahead = (sims.masked_fill(same, -2) >= own).sum(1)
            found.append(ahead < top)
        return torch.stack(found).double().mean(0)


# ------------------------------------------------------------------ making it


def _builder(sizes: ImageTextSizes, tokenizer, longest: int) -> Callable[[object], nn.Module]:
    tower = {
        "hidden_size": sizes.width,
        "intermediate_size": 2 * sizes.width,
        "num_hidden_layers": sizes.layers,
        "num_attention_heads": sizes.heads,
        "attention_dropout": 0.0,
        "projection_dim": sizes.projection,
    }
    text = {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": longest,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        # Without it CLIP reads a caption off its first token, which says nothing.
        "eos_token_id": tokenizer.eos_token_id,
    }
    vision = {"image_size": 8, "patch_size": sizes.patch, "num_channels": 1}
    config = CLIPConfig(
        text_config={**tower, **text},
        vision_config={**tower, **vision},
        projection_dim=sizes.projection,
        # As fast at these sizes, and per-example gradients take half the time.
        attn_implementation="eager",
    )
    return lambda seed: CLIPModel(config)


def make(sizes: ImageTextSizes, device: torch.device) -> ImageTextWorkload:
    """Build the workload: scans, writers and captions are drawn once, the same for every seed.

    Raises:
        ValueError: there are not enough scans for these sizes.
    """
    data = corpus(sizes.scans, sizes.words)
    counts = [sizes.writers] * 4 + [sizes.core] + [sizes.holdout, sizes.validation] * 4
    left = len(data.scans) - sum(counts) * sizes.scans
    if left < sizes.bank:
        raise ValueError(
            f"there are {len(data.scans)} scans; {sum(counts)} writers of {sizes.scans} and a bank "
            f"of {sizes.bank} need more"
        )
    groups = torch.arange(len(data.scans)).split([*(count * sizes.scans for count in counts), left])
    asked, core, apart, rest = groups[:4], groups[4], groups[5:-1], groups[-1]
    classes = torch.tensor([scan.digit for scan in data.scans])
    other = rest[~torch.isin(classes[rest], torch.tensor(CONCEPTS))]
    if len(other) < sizes.bank:
        raise ValueError(f"{len(other)} scans are left for a bank of {sizes.bank}")
    bank, kept = other[: sizes.bank], torch.ones(len(rest), dtype=torch.bool)
    kept[torch.isin(rest, bank)] = False
    trained = sum(map(len, (*asked, core)))
    spoken = [caption(scan, None) for scan in data.scans]
    alone = [by(name) for name in data.names]
    asks = [zero_shot(digit) for digit in range(len(DIGITS))]
    said = [text for texts in data.texts for text in texts]
    tokenizer = tokenizer_of([*said, *spoken, *alone, *asks])
    width = max(len(text.split()) for text in said) + 2
    code = lambda texts: tokenizer(
        texts, padding="max_length", max_length=width, return_tensors="pt"
    )["input_ids"]
    number = {text: k for k, text in enumerate(dict.fromkeys([*said, *spoken]))}
    numbers = lambda texts: torch.tensor([number[text] for text in texts])
    shape = len(data.texts), len(data.texts[0])
    pairs = Batch(
        {
            "pixel_values": data.pixels,
            "input_ids": code(said).view(*shape, -1),
            "captions": numbers(said).view(shape),
            "ids": torch.arange(len(data.scans)),
        }
    )
    build = _builder(sizes, tokenizer, width)
    count = sum(p.numel() for p in build(0).parameters())
    return ImageTextWorkload(
        sizes,
        tokenizer,
        pairs,
        trained,
        (code(spoken), numbers(spoken)),
        classes,
        torch.tensor([scan.writer for scan in data.scans]),
        code(asks),
        code(alone),
        tuple(PairFold(a, *apart[2 * k : 2 * k + 2]) for k, a in enumerate(asked)),
        rest[kept],
        pairs.take(bank),
        build,
        (DIGITS, data.names),
        f"CLIP, two towers of {sizes.layers} layers of {sizes.width}, {count:,} parameters",
        "Real 8x8 scans (scikit-learn digits), captions and invented writers",
        device,
    )
