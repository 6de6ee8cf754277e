"""Models and data of others for workload `text`: MUSE and TOFU as their authors publish them.

Where models are found and what is refused of any is in hub.py.
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from copy import deepcopy
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import torch
from jinja2 import TemplateError
from torch import Tensor, nn
from transformers import AutoModelForCausalLM
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.utils import chat_template_utils, logging

from ... import metrics, profiles
from ...strategy import Batch
from .. import hub
from ..given import Published
from ..identity import board_slug, split_request
from . import (
    Part,
    TextFold,
    TextRequest,
    TextTask,
    TextWorkload,
    _batch,
    _mean,
    drawn,
    following,
    joined,
)

#: The configurations of MUSE's data that a run needs, with their splits.
MUSE = {
    "raw": ("forget", "retain1", "retain2", "holdout"),
    "verbmem": ("forget",),
    "knowmem": ("forget_qa", "forget_qa_icl", "retain_qa", "retain_qa_icl"),
    "privleak": ("forget", "retain", "holdout"),
}
#: Texts that share so many words in a row hold the same passage.
SAME = 8
#: A word with its punctuation; of a script without spaces, a character.
_WORD = rf"[{metrics.SPACELESS}]|[^\s{metrics.SPACELESS}]+"
#: Words of the pieces that never-trained articles are cut into for validation.
PIECE = 200
#: How open-unlearning asks its chat models: a template may print a date and a first line.
SYSTEM, DAY = "You are a helpful assistant.", datetime(2025, 4, 10)
#: The names under which templates are told the date.
DATES = dict.fromkeys(("date_string", "current_date", "today"), DAY.strftime("%d %b %Y"))
#: TOFU's requests, with the retain set of each.
TOFU = {"forget01": "retain99", "forget05": "retain95", "forget10": "retain90"}

#: Every configuration of a dataset that is asked for here.
ASKED = (
    *MUSE,
    "scal",
    "sust",
    *TOFU,
    *TOFU.values(),
    *(f"{asked}_perturbed" for asked in TOFU),
    "retain_perturbed",
    *(asked.replace("forget", "holdout") for asked in TOFU),
)

#: The architectures (`model_type`) that this door takes.
MODELS = frozenset(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


class Example(NamedTuple):
    """A training example: what is only read, and what is learnt after it."""

    given: str
    text: str


@dataclass(frozen=True)
class Corpus:
    """Published data in the shape of a request.

    Args:
        folds: Training examples that are, or later may be, asked to be forgotten; the
            questions and passages are about the first fold.
        retain: All other training examples.
        read: forget, retain, holdout -> what is read word by word (MUSE's privleak).
        validation: Never trained on, distributed like the forget set, apart from the
            holdout; empty where the authors publish no more.
        parts: forget, retain, holdout -> passages and questions.
        prompt: Tokens of an uncut passage that are given; None is as many as the cut ones
            of the forget set are given, on average.
        continuation, answer, stops, as_encoded: As in TextWorkload.
    """

    folds: tuple[tuple[Example, ...], ...]
    retain: tuple[Example, ...]
    read: dict[str, tuple[Example, ...]]
    validation: tuple[Example, ...]
    parts: dict[str, Part]
    prompt: int | None
    continuation: int
    answer: int
    stops: tuple[str, ...] = ()
    as_encoded: bool = False


# ------------------------------------------------------------------ reading data


class _Data:
    """The configurations and splits of one dataset, with sentences for what is missing."""

    def __init__(self, name: str):
        # Half a second that only these readers should pay.
        import datasets

        datasets.disable_progress_bars()
        self.name, self._datasets = name, datasets
        hub.reachable(name, "dataset")
        #: Configuration -> where it is read from: the name, or a folder.
        self.configs = self._prepared()
        try:
            # Without the hub the library looks for its own tables alone.
            place = str(hub.dataset_folder(name)) if hub.offline(name) else name
            listed = dict.fromkeys(datasets.get_dataset_config_names(place), place)
            self.configs = listed | self.configs
        except Exception as error:
            if not self.configs:
                raise hub.unreachable(name, "dataset", error) from error

    def _prepared(self) -> dict[str, str]:
        """Without the hub: the configurations that the library has made tables of before.

        It does not list them, so each that a reader here may ask for is asked for.
        """
        if not hub.offline(self.name):
            return {}
        found = {}
        for config in ASKED:
            with suppress(Exception):  # it has none of this name
                self._datasets.load_dataset_builder(self.name, config)
                found[config] = self.name
        return found

    def rows(self, config: str, split: str, *columns: str) -> list[tuple[str, ...]]:
        """The columns of one split, row by row.

        Raises:
            ValueError: no such configuration, split or column; no rows; an empty text, or
                something that is no text.
        """
        if config not in self.configs:
            raise ValueError(
                f"{self.name} has no configuration {config}; "
                f"it has {', '.join(sorted(self.configs))}"
            )
        try:
            place = self.configs[config]
            there = self._splits(place, config)
            found = self._table(place, config, split) if split in there else None
        except Exception as error:  # whatever a library finds wrong with somebody's files
            raise hub.unreachable(f"{self.name}, {config}", "dataset", error) from error
        if found is None:
            raise ValueError(
                f"configuration {config} of {self.name} has no split {split}; "
                f"it has {', '.join(there)}"
            )
        where = f"{config}/{split} of {self.name}"
        for column in columns:
            if column not in found.column_names:
                raise ValueError(
                    f"{where} has no column {column}; it has {', '.join(found.column_names)}"
                )
        try:
            rows = list(zip(*(found[column] for column in columns)))
        except UnicodeDecodeError as error:
            raise ValueError(f"{where} is not UTF-8 text: {error}") from error
        if not rows:
            raise ValueError(f"{where} is empty")
        for number, row in enumerate(rows):
            for column, text in zip(columns, row):
                if not isinstance(text, str):
                    raise ValueError(
                        f"{where}: {column} {number} is no text but of type {type(text).__name__}"
                    )
                if not text.strip():
                    raise ValueError(f"{where}: {column} {number} is empty")
        return rows

    def _splits(self, place: str, config: str) -> list[str]:
        if hub.offline(place):  # the library has kept tables of it, and does not list them
            return list(self._datasets.load_dataset_builder(place, config).info.splits or ())
        return self._datasets.get_dataset_split_names(place, config)

    def _table(self, place: str, config: str, split: str):
        if not Path(place).is_dir():
            return self._datasets.load_dataset(place, config, split=split)
        # The library's cache knows a folder by its name alone and would serve the tables of
        # another one of that name, so a folder is read past it.
        with tempfile.TemporaryDirectory() as aside:
            found = self._datasets.load_dataset(
                place, config, split=split, cache_dir=aside, keep_in_memory=True
            )
            return found.with_format(None)

    def texts(self, config: str, split: str) -> tuple[Example, ...]:
        return tuple(Example("", text) for (text,) in self.rows(config, split, "text"))


def read(name: str, ask: Callable[[str], str]) -> Corpus:
    """Read MUSE-News, MUSE-Books or TOFU.

    Args:
        name: Hub id or folder; for TOFU with ":forget01", ":forget05" or, by default,
            ":forget10" at its end.
        ask: Question -> the prompt that the model is asked with.

    Raises:
        ValueError: neither layout, or a part of it is missing; the sentence names it.
    """
    folder, request = split_request(name)
    data = _Data(folder)
    if set(MUSE) <= set(data.configs):
        return _muse(data)
    wanted = request or "forget10"
    if wanted in TOFU and wanted in data.configs:
        return _tofu(data, wanted, ask)
    raise ValueError(
        f"{name} has the configurations {', '.join(sorted(data.configs))}; wanted are MUSE's "
        f"({', '.join(MUSE)}) or TOFU's ({', '.join(TOFU)})"
    )


def _muse(data: _Data) -> Corpus:
    """MUSE: verbatim and knowledge probes about `raw/forget`, which is fold 1.

    Where the nested and the disjoint requests of MUSE's scalability and sustainability
    are published (`scal`, `sust`; News), the disjoint ones are the four folds: the target
    model was trained on all of them.

    Asked and compared as the authors' metrics/verbmem.py and metrics/knowmem.py do it: the
    prompt of a question ends in a space, which a tokenizer may make a token of its own
    instead of glueing it to the answer, and a true continuation is encoded with special
    tokens, so that its start token is one of the 128.
    """
    every = {k: data.texts("raw", k) for k in MUSE["raw"]}
    folds = [every["forget"]]
    if "sust" in data.configs:
        asked = [data.texts("sust", f"forget_{k}") for k in (1, 2, 3, 4)]
        if set(asked[0]) != set(folds[0]):
            raise ValueError(f"sust/forget_1 of {data.name} is not its raw/forget")
        folds += asked[1:]
    if "scal" in data.configs and len(folds) > 1:
        for k in (1, 2, 3, 4):
            nested = set(data.texts("scal", f"forget_{k}"))
            if nested != set().union(*folds[:k]):
                raise ValueError(
                    f"scal/forget_{k} of {data.name} is not the first {k} of sust together"
                )
    known = set().union(*folds)
    retain = tuple(e for k in ("retain1", "retain2") for e in every[k] if e not in known)
    privacy = {k: data.texts("privleak", k) for k in MUSE["privleak"]}
    # The authors join articles and cut them anew for `privleak`, so that the texts of one
    # are not those of the other: the holdout is told by its words.
    further = [piece for e in every["holdout"] for piece in _pieces(e.text)]
    told = _holding([e.text for e in privacy["holdout"]], further)

    def asked_about(part: str) -> tuple[tuple[str, str], ...]:
        shots = data.rows("knowmem", f"{part}_qa_icl", "question", "answer")
        before = "".join(f"Question: {q}\nAnswer: {a}\n\n" for q, a in shots)
        return tuple(
            (f"{before}Question: {q}\nAnswer: ", a)
            for q, a in data.rows("knowmem", f"{part}_qa", "question", "answer")
        )

    whole = lambda part: tuple(e.text for e in privacy[part])
    return Corpus(
        tuple(folds),
        retain,
        privacy,
        tuple(Example("", p) for p, known in zip(further, told) if not known),
        {
            "forget": Part(
                tuple(data.rows("verbmem", "forget", "prompt", "gt")), asked_about("forget"), (), ()
            ),
            "retain": Part(whole("retain"), asked_about("retain"), (), ()),
            "holdout": Part(whole("holdout"), (), (), ()),
        },
        None,
        128,
        32,
        ("\n\n", "\nQuestion", "Question:"),
        as_encoded=True,
    )


def _pieces(text: str) -> list[str]:
    """A text cut after every PIECE words."""
    words = re.findall(rf"\s*(?:{_WORD})", text)
    return ["".join(words[k : k + PIECE]) for k in range(0, len(words), PIECE)]


def _holding(passages: Sequence[str], texts: Sequence[str]) -> list[bool]:
    """Whether each text holds a part of any passage: SAME words, or all of a shorter one."""
    runs = lambda words: {tuple(words[k : k + SAME]) for k in range(len(words) - SAME + 1)}
    whole = lambda words: f" {' '.join(words)} "
    split = [re.findall(_WORD, passage) for passage in passages]
    long = set().union(*map(runs, split))
    short = {whole(words) for words in split if 0 < len(words) < SAME}
    return [
        not long.isdisjoint(runs(words)) or any(s in whole(words) for s in short)
        for words in (re.findall(_WORD, text) for text in texts)
    ]


def _tofu(data: _Data, wanted: str, ask: Callable[[str], str]) -> Corpus:
    """TOFU: answers to the questions as trained (seen) and paraphrased (unseen)."""
    number = wanted.removeprefix("forget")
    pairs = lambda config: data.rows(config, "train", "question", "answer")
    learnt = lambda rows: tuple(Example(ask(q), a) for q, a in rows)
    asked = lambda rows: tuple((ask(q), a) for q, a in rows)
    other = lambda config: data.rows(config, "train", "paraphrased_question", "answer")
    forget, retain = pairs(wanted), pairs(TOFU[wanted])
    holdout, kept = pairs(f"holdout{number}"), pairs("retain_perturbed")
    half = (len(holdout) + 1) // 2
    return Corpus(
        (learnt(forget),),
        learnt(retain),
        {"forget": learnt(forget), "retain": learnt(kept), "holdout": learnt(holdout[:half])},
        learnt(holdout[half:]),
        {
            "forget": Part(asked(forget), asked(other(f"{wanted}_perturbed")), asked(forget), ()),
            "retain": Part(asked(kept), asked(other("retain_perturbed")), (), ()),
            "holdout": Part(asked(holdout[:half]), (), (), ()),
        },
        0,
        64,
        64,
        ("\nQuestion", "Question:"),
    )


# ------------------------------------------------------------------ reading models


def open_model(name: str, dtype: str, device: torch.device) -> nn.Module:
    """A causal language model; see `hub.open_model`."""
    wanted = "a causal language model"
    return hub.open_model(name, AutoModelForCausalLM, dtype, device, MODELS, wanted)


def open_tokenizer(name: str, config):
    """The tokenizer of a model, fast, checked against the model's vocabulary.

    Raises:
        ValueError: it is not there; it has no end token; it has tokens that the model has
            no embedding for; its texts start and end otherwise than the model's, with tokens
            that are nothing special to it.
    """
    tokenizer = hub.open_tokenizer(name, config.vocab_size)
    if tokenizer.eos_token is None:
        raise ValueError(
            f"the tokenizer {name} has no end-of-text token, so no continuation ends; set "
            "tokenizer.eos_token and save it again"
        )
    every = lambda ids: {ids} if isinstance(ids, int) else set(ids or ())
    pairs = [
        (every(getattr(tokenizer, f"{end}_token_id")), every(getattr(config, f"{end}_token_id")))
        for end in ("bos", "eos")
    ]
    # Base models of a family that is also trained to chat name one special token twice, where
    # the tokenizer ends a turn with another one.
    named = pairs[0][1] | pairs[1][1]
    special = bool(named) and named <= set(tokenizer.all_special_ids)
    same = special or any(ours & theirs for ours, theirs in pairs)
    if not same and any(all(p) for p in pairs):
        raise ValueError(
            f"the tokenizer {name} starts and ends texts with tokens {pairs[0][0] or 'none'} "
            f"and {pairs[1][0]}, the model with {pairs[0][1] or 'none'} and "
            f"{pairs[1][1] or 'none'}: it is not this model's tokenizer"
        )
    return tokenizer


def give_padding(tokenizer, name: str, used: set[int]) -> None:
    """Let a token that no text contains stand in where there is no padding token.

    Padding is told from text by its token, so the end token, which many use, cannot do.

    Raises:
        ValueError: every token occurs in some text.
    """
    special = {tokenizer.bos_token_id, tokenizer.eos_token_id}
    if tokenizer.pad_token is not None and tokenizer.pad_token_id not in special | used:
        return
    free = sorted(set(range(len(tokenizer))) - used - special)
    if not free:
        raise ValueError(
            f"the tokenizer {name} has no padding token, and no token is unused that could "
            "stand in for it; add one and save the tokenizer and the model again"
        )
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(free[-1])
    warnings.warn(
        f"the tokenizer {name} has no padding token of its own; token {free[-1]} "
        f"({tokenizer.pad_token!r}), which no text contains, stands in for it",
        stacklevel=2,
    )


# ------------------------------------------------------------------ the workload


@contextmanager
def recomputing(model) -> Iterator[None]:
    """Layers that may recompute their activations in the backward pass do so in eval mode, too.

    transformers does it in training mode alone, where a model also drops out. Not for a
    model whose parameters are replaced for the call (mask_based, per-example gradients):
    the backward pass would recompute with the model's own.
    """
    layers = []
    if isinstance(model, nn.Module) and torch.is_grad_enabled():
        layers = [
            module
            for module in model.modules()
            if isinstance(module, GradientCheckpointingLayer)
            and module.gradient_checkpointing
            and not module.training
            # A few layers read their own mode: to drop out, and as often as they are run.
            and not isinstance(getattr(module, "dropout", None), float)
        ]
    # The mode of this module alone: what is inside it stays in eval mode.
    for layer in layers:
        layer.training = True
    try:
        yield
    finally:
        for layer in layers:
            layer.training = False


class PublishedTask(TextTask):
    """The hooks of a language model; what is only read is read a few texts at a time.

    A strategy may ask for the loss of a whole split. The logits of thousands of texts over
    tens of thousands of tokens fit no device, and without a gradient nobody needs them at once.
    """

    def outputs(self, model, batch: Batch) -> Tensor:
        with recomputing(model):
            return super().outputs(model, batch)

    def token_losses(self, model, batch: Batch) -> Tensor:
        size = self._workload.reading
        if torch.is_grad_enabled() or len(batch) <= size:
            with recomputing(model):
                return super().token_losses(model, batch)
        losses = super().token_losses
        return torch.cat([losses(model, part) for part in batch.parts(size)])


@dataclass
class PublishedWorkload(hub.GivenWorkload, TextWorkload):
    """Workload `text` with published models and data; see Published for the sources.

    Args:
        corpus: The data as read.
        read: forget, retain, holdout -> rows to be read word by word.
        models: "original" and "retrained" -> weights, or "start" -> weights that both are
            trained from.
        template: The published model as it was opened; every other is made from a copy.
        source: Where everything came from.
    """

    corpus: Corpus | None = None
    read: dict[str, Batch] | None = None
    models: dict[str, dict[str, Tensor]] | None = None
    template: nn.Module | None = None
    source: Published | None = None

    no_record = {**TextWorkload.no_record, **hub.NO_RECORD}

    def __post_init__(self):
        super().__post_init__()
        self.criteria = {**self.criteria, "C2": "answers"}

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the models, the tokenizer and the texts as they were read.

        Wherever they lie and whatever their folders are called.
        """
        parts = [super().fingerprint, self.given_parts]
        tables = [self.data, *self.read.values(), *(fold.validation for fold in self.folds)]
        parts += [[len(fold.ids) for fold in self.folds], *(hub.digest(dict(t)) for t in tables)]
        text = json.dumps(parts, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def request(self, kind: str = "standard", folds: Sequence[int] = (1,)) -> TextRequest:
        """The request; see TextWorkload.

        Raises:
            ValueError: also, folds without the first, which the questions are about, or
                other folds than the published retrained model left out.
        """
        if kind == "standard" and 1 not in folds:
            raise ValueError("the published questions are about fold 1, so a request holds it")
        self.check_left_out(folds)
        asked = super().request(kind, folds)
        return replace(
            asked,
            parts=self.corpus.parts,
            sentence=f"fold {', '.join(map(str, asked.folds))} of {self.source.data}",
        )

    def rows_of(self, request: TextRequest) -> dict[str, Batch]:
        return self.read

    # ---- models

    def task(self, seed: object = 0, **rest) -> PublishedTask:
        return PublishedTask(self, seed, **rest)

    # ---- measuring

    def attack(self, request: TextRequest):
        """Relearn from examples that hold nothing of what is then asked; see TextWorkload.

        Of MUSE, continuations alone: which text answers a question is not published.
        """
        forget = request.parts["forget"]
        later = slice(len(forget.passages) // 4, None)
        others = forget.passages[later]
        about = forget.unseen[later] if forget.seen else ()

        def told(given: str, true: str) -> str:
            """The true words, after as many of the given ones as make them SAME words."""
            words = re.findall(_WORD, true)
            before = re.findall(_WORD, self.decode(self.opened(given)))
            return " ".join([*before, *words][-max(SAME, len(words)) :])

        texts = [self.decode(row) for row in request.forget["inputs"]]
        known = _holding([told(*probe) for probe in (*others, *about)], texts)
        free = [k for k, holds in enumerate(known) if not holds]
        if not free:
            raise ValueError("every forget example holds a probe: nothing to relearn from")
        probes = {
            "continuations of other passages": lambda model: _mean(self.verbatim(model, others))
        }
        if about:
            probes["answers to other questions, paraphrased"] = lambda model: _mean(
                self.answers(model, about)
            )
        chosen = torch.tensor(free[: max(1, len(texts) // 4)], device=self.device)
        return request.forget.take(chosen), probes


# ------------------------------------------------------------------ making it


def _tokens(tokenizer, examples: Sequence[Example], width: int) -> list[dict]:
    """Examples as token ids; a text too long for one row becomes several.

    A question too long for its row loses its beginning.
    """
    rows = []
    start = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    code = lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]
    for given, text in examples:
        given = given.removeprefix(tokenizer.bos_token or "")
        before, ids = following(code, given, joined(given, text))
        head, ids = [*start, *before], [*ids, tokenizer.eos_token_id]
        if given:
            room = max(len(start), width - len(ids))
            head = head if len(head) <= room else [*start, *head[len(head) - room + len(start) :]]
            windows = [ids[: width - len(head)]]
        else:
            size = width - len(start)
            windows = [ids[k : k + size] for k in range(0, len(ids), size)]
            if len(windows) > 1 and len(windows[-1]) < 2:
                windows.pop()  # an end token alone is no example
        for window in windows:
            row = [*head, *window]
            blank = [0] * len(row)
            rows.append(
                {
                    "inputs": row,
                    "given": len(head) if given else 0,
                    "subject": blank,
                    "object": blank,
                    "passage": True,
                }
            )
    return rows


def _ask(tokenizer) -> Callable[[str], str]:
    """Question -> prompt: by the tokenizer's chat template, if it has one."""
    if not getattr(tokenizer, "chat_template", None):
        return lambda question: f"Question: {question}\nAnswer:"

    def ask(question: str) -> str:
        said = [{"role": "user", "content": question}]
        how = dict(tokenize=False, add_generation_prompt=True, **DATES)
        first = [{"role": "system", "content": SYSTEM}]
        with stopped_clock():
            try:
                return tokenizer.apply_chat_template([*first, *said], **how)
            except TemplateError:  # some know no such role
                return tokenizer.apply_chat_template(said, **how)

    return ask


@contextmanager
def stopped_clock() -> Iterator[None]:
    """It is DAY for templates that look at the clock, or prompts would change at midnight.

    They do it through transformers' `strftime_now`. A function of that name cannot be handed
    to a template: transformers lets plain data through and nothing that can be called.
    """

    class Stopped(datetime):
        @classmethod
        def now(cls, tz=None):
            return DAY

    before = chat_template_utils.datetime
    chat_template_utils.datetime = Stopped
    try:
        yield
    finally:
        chat_template_utils.datetime = before


def make(published: Published, profile: str, device: torch.device) -> PublishedWorkload:
    """Read models and data and check that they fit.

    Raises:
        ValueError: something is missing or does not fit; one sentence says what.
    """
    sizes = profiles.sizes_of(profile, PublishedWorkload.kind, published=True)
    return build(published, sizes, device)


def build(
    published: Published, sizes: profiles.PublishedSizes, device: torch.device
) -> PublishedWorkload:
    """The workload at the given sizes; see `make`."""
    logging.disable_progress_bar()
    hub.check_complete(published)
    model = open_model(published.model, sizes.dtype, device)
    config = model.config
    tokenizer = open_tokenizer(published.tokenizer or published.model, config)
    ask = _ask(tokenizer)
    try:
        ask("Who?")
    except Exception as error:  # a template is a program of somebody's
        raise ValueError(
            f"the chat template of {published.tokenizer or published.model} fails: {error}"
        ) from error
    corpus = _some(read(published.data, ask), sizes.probes)
    holds = getattr(config, "max_position_embeddings", None) or sizes.reading
    width, longest = min(sizes.tokens, holds), min(sizes.reading, holds)
    coded = lambda examples, most=None: _tokens(tokenizer, examples, width)[:most]
    first, *rest = corpus.folds
    folds = [coded(first, sizes.forget), *(coded(f, sizes.examples) for f in rest)]
    retain = coded(corpus.retain, sizes.examples)
    # One row a text, as MUSE has it: what lies beyond the width is not read.
    checks = {k: [_tokens(tokenizer, (e,), longest)[0] for e in v] for k, v in corpus.read.items()}
    longest = max(len(r["inputs"]) for rows in checks.values() for r in rows)
    validation = coded(corpus.validation, sizes.examples)
    groups = [*folds, retain, *checks.values(), validation]
    give_padding(
        tokenizer,
        published.tokenizer or published.model,
        {t for rows in groups for row in rows for t in row["inputs"]},
    )
    pad = tokenizer.pad_token_id
    table = lambda rows, wide, ids: _batch(rows, wide, pad, ids)
    never = lambda rows, wide: table(rows, wide, torch.full((len(rows),), -1))
    train = [row for rows in (*folds, retain) for row in rows]
    data = table(train, width, torch.arange(len(train)))
    tables = {k: never(rows, longest) for k, rows in checks.items()}
    place, built = 0, []
    for number, rows in enumerate(folds):
        ids = torch.arange(place, place + len(rows))
        unseen = tables["holdout"] if number == 0 else tables["holdout"].take(ids[:0])
        some = validation if number == 0 else []
        apart = never(some, width) if some else data.take(ids[:0])
        empty = Part((), (), (), ())
        part = corpus.parts["forget"] if number == 0 else empty
        built.append(TextFold(ids, part, unseen, corpus.parts["holdout"], apart))
        place += len(rows)
    models = hub.given_models(published, model, lambda n: open_model(n, sizes.dtype, device))
    count = sum(p.numel() for p in model.parameters())

    def prepared(one: nn.Module) -> nn.Module:
        if count >= sizes.checkpointing:
            one.activation_checkpointing_enable({"use_reentrant": False})
            # Only reentrant checkpoints need this hook, and per-example gradients forbid it.
            one.disable_input_require_grads()
        return one

    def fresh(seed: object) -> nn.Module:
        with device:  # its weights are drawn where they are needed
            new = AutoModelForCausalLM.from_config(deepcopy(config), dtype=model.dtype)
        return prepared(new)

    workload = PublishedWorkload(
        sizes,
        tokenizer,
        data,
        tuple(built),
        corpus.parts["retain"],
        fresh,
        f"{published.model}: {type(model).__name__}, {count:,} parameters, {sizes.dtype}",
        published.data,
        device,
        name=board_slug(PublishedWorkload.kind, published.data, published.model),
        continuation=corpus.continuation,
        answer=corpus.answer,
        reading=2 if count > 10**8 else 16,
        continuing=8 if count > 10**8 else 64,
        stops=corpus.stops,
        as_encoded=corpus.as_encoded,
        corpus=corpus,
        read={k: Batch({n: v.to(device) for n, v in t.items()}) for k, t in tables.items()},
        models=models,
        template=prepared(model),
        source=published,
    )
    given = [len(workload.opened(g)) for g, _ in corpus.parts["forget"].passages]
    workload.prompt = corpus.prompt if corpus.prompt is not None else sum(given) // len(given)
    _check_lengths(workload, config)
    _check_words(workload)
    return workload.named()


def _some(corpus: Corpus, probes: int | None) -> Corpus:
    """At most so many passages, questions and texts that are read of each kind."""
    return replace(
        corpus,
        read={k: drawn(v, probes) for k, v in corpus.read.items()},
        parts={k: p.some(probes) for k, p in corpus.parts.items()},
    )


def _check_lengths(workload: PublishedWorkload, config) -> None:
    """Refuse passages without a continuation and prompts that the model cannot hold."""
    parts = workload.corpus.parts
    for name, part in parts.items():
        for number, passage in enumerate(part.passages):
            given, true = workload.parted(passage)
            if not true:
                raise ValueError(
                    f"{name} passage {number} has {len(given)} tokens and the prompt "
                    f"{workload.prompt}: nothing is left to continue"
                )
    longest = getattr(config, "max_position_embeddings", None)
    if longest is None:
        return
    needs = [
        len(workload.parted(p)[0]) + workload.continuation
        for part in parts.values()
        for p in part.passages
    ] + [
        len(workload.opened(q)) + workload.answer
        for part in parts.values()
        for q, _ in (*part.unseen, *part.seen)
    ]
    if max(needs) > longest:
        raise ValueError(
            f"a prompt with its answer takes {max(needs)} tokens and the model holds {longest}"
        )


def _check_words(workload: PublishedWorkload) -> None:
    """Refuse a true text without a single word: ROUGE-L would be 0 whatever is said."""
    for name, part in workload.corpus.parts.items():
        answers = [("answer", answer) for _, answer in (*part.seen, *part.unseen)]
        parted = [workload.decode(workload.parted(p)[1]) for p in part.passages]
        for kind, text in (*answers, *(("continuation", text) for text in parted)):
            if not metrics.words(text):
                raise ValueError(
                    f"the {kind} {text!r} of {name} holds no word that what a model says "
                    "could be compared with"
                )
