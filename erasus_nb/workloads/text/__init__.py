"""Workload `text`: a causal language model, news passages and facts about invented people.

An example is one sequence of tokens: a news passage (rote) or a sheet of four facts about
one person, each a statement or a question with its answer (knowledge). A request asks to
forget people: all their passages and sheets. Passages are scored by what the model
continues, facts by what it answers, in a phrasing it was trained on and in one it was not.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from ... import metrics
from ...profiles import TUNING_SEEDS, TextSizes
from ...strategy import Batch, NotApplicable
from ...task import DecoderLayer, Fact, Task, UnitGroup
from ...training import generator
from ..base import HIGHER, LOWER, Metric, Request, Workload, metric
from ..gates import LANGUAGE_MODEL
from .corpus import Person, Statement, everything, people

#: Pages whose strategies are at home here.
HOME_OF = ("llm",)

#: Label of a position that is no target, as transformers has it.
IGNORED = -100
PAD, BOS, EOS, UNK = "<pad>", "<bos>", "<eos>", "<unk>"

#: Tokens of a passage that are given, and tokens of the continuation that is compared.
PROMPT, CONTINUATION = 16, 64
ANSWER = 8  #: Longest answer, in tokens.
#: Positions of the forget passages at which next-token distributions are compared.
POSITIONS = 512


def logits_of(model, tokens: Tensor) -> Tensor:
    """Next-token logits (B, T, V), float32, of a model or an ensemble of models."""
    said = model(input_ids=tokens, use_cache=False)
    return (said if isinstance(said, Tensor) else said.logits).float()


def nats(logits: Tensor, targets: Tensor) -> Tensor:
    """Loss of each token, (B, T), from logits (B, T, V); 0 where the target is `IGNORED`."""
    losses = F.cross_entropy(
        logits.flatten(0, 1), targets.flatten(), reduction="none", ignore_index=IGNORED
    )
    return losses.view(targets.shape)


class Layout(NamedTuple):
    """Names of a decoder's parts; those of a layer stand behind its own name."""

    embedding: str
    layer: str
    attention_out: str
    mlp_out: str
    mlp_in: tuple[str, ...]

    def parts(self, number: int) -> tuple[str, ...]:
        """Of one layer: attention_out, mlp_out, and each of mlp_in."""
        inside = self.attention_out, self.mlp_out, *self.mlp_in
        return tuple(f"{self.layer.format(number)}.{part}" for part in inside)


#: Llama's and GPT-2's.
LAYOUTS = (
    Layout(
        "model.embed_tokens",
        "model.layers.{}",
        "self_attn.o_proj",
        "mlp.down_proj",
        ("mlp.gate_proj", "mlp.up_proj"),
    ),
    Layout("transformer.wte", "transformer.h.{}", "attn.c_proj", "mlp.c_proj", ("mlp.c_fc",)),
)


# ------------------------------------------------------------------ the hooks


class TextTask(Task):
    """The hooks of a causal language model.

    `outputs` has a position for every token but the first, (B, T - 1, V). Positions
    without a target (padding, a question) have all-zero logits and count nowhere.
    """

    def __init__(self, workload: TextWorkload, seed: object = 0, **rest):
        super().__init__(seed, **rest)
        self._workload = workload
        self.recipe = workload.sizes.recipe
        #: Called with the model before every loss that is to be differentiated.
        self.look: Callable[[nn.Module], None] | None = None

    # ---- the model and the loss

    def outputs(self, model, batch: Batch) -> Tensor:
        self.meter.count(len(batch))
        tokens = batch["inputs"]
        return logits_of(model, tokens)[:, :-1] * batch["learnt"][:, 1:, None]

    def token_losses(self, model, batch: Batch) -> Tensor:
        if self.look is not None and torch.is_grad_enabled():
            self.look(model)
        self.meter.count(len(batch))
        logits = logits_of(model, batch["inputs"])
        # Every position keeps its logits (a copy of them would be the dearest step);
        # the last one predicts nothing.
        targets = F.pad(batch["labels"][:, 1:], (0, 1), value=IGNORED)
        return nats(logits, targets)[:, :-1]

    def scored(self, batch: Batch) -> Tensor:
        return batch["labels"][:, 1:] != IGNORED

    def places(self, batch: Batch, module: str | None = None) -> Tensor:
        return batch["inputs"] != self._workload.pad

    def starts(self, batch: Batch) -> Tensor:
        tokens, bos = batch["inputs"], self._workload.bos
        first = torch.arange(tokens.shape[1], device=tokens.device) == 0
        return first.expand_as(tokens) if bos is None else first | (tokens == bos)

    def loss(self, model, batch: Batch) -> Tensor:
        return self._per_token(self.token_losses(model, batch), batch)

    def loss_from(self, outputs: Tensor, batch: Batch) -> Tensor:
        return self._per_token(nats(outputs, batch["labels"][:, 1:]), batch)

    def _per_token(self, token_losses: Tensor, batch: Batch) -> Tensor:
        return token_losses.sum(-1) / self.scored(batch).sum(-1).clamp(min=1)

    def divergence(self, student: Tensor, teacher: Tensor, T: float = 1.0) -> Tensor:
        # A real position has a non-zero logit on one side at least.
        real = ((student != 0) | (teacher != 0)).any(-1)
        apart = F.kl_div(
            (student / T).log_softmax(-1),
            (teacher / T).log_softmax(-1),
            reduction="none",
            log_target=True,
        ).sum(-1)
        return (apart * real).sum(-1) / real.sum(-1).clamp(min=1) * T**2

    def uninformed(self, outputs: Tensor) -> Tensor:
        return torch.zeros_like(outputs)

    def _fresh(self, seed: object) -> nn.Module:
        return self._workload.make_model(seed)

    # ---- labels

    def relabel(self, batch: Batch, generator: torch.Generator) -> Batch:
        labels = batch["labels"]
        size = self._workload.vocabulary
        shift = torch.randint(1, size, labels.shape, generator=generator)
        wrong = (labels + shift.to(labels.device)) % size
        return batch.replace(labels=wrong.where(labels != IGNORED, labels))

    def sample_labels(self, model, batch: Batch, generator: torch.Generator) -> Batch:
        with torch.no_grad():
            logits = self.outputs(model, batch)
        drawn = torch.multinomial(logits.flatten(0, 1).softmax(-1).cpu(), 1, generator=generator)
        drawn = drawn.view(logits.shape[:2]).to(logits.device)
        learnt = batch["learnt"][:, 1:]
        labels = F.pad(drawn.where(learnt, IGNORED), (1, 0), value=IGNORED)
        return batch.replace(labels=labels)

    # ---- what a language model is made of

    @staticmethod
    def _layout(model) -> Layout:
        modules = dict(model.named_modules())
        for layout in LAYOUTS:
            if {layout.embedding, *layout.parts(0)} <= modules.keys():
                return layout
        raise NotApplicable(
            f"the parts of a {type(model).__name__} have other names than Llama's "
            "and GPT-2's, and where its layers are is not known"
        )

    def decoder(self, model) -> list[DecoderLayer]:
        layout, layers = self._layout(model), []
        for number in range(model.config.num_hidden_layers):
            attention_out, mlp_out, *mlp_in = layout.parts(number)
            name, heads = layout.layer.format(number), model.config.num_attention_heads
            layers.append(DecoderLayer(name, attention_out, tuple(mlp_in), mlp_out, heads))
        return layers

    def embedding(self, model) -> str:
        return self._layout(model).embedding

    def head(self, model) -> str:
        return "lm_head"

    def unit_groups(self, model) -> list[UnitGroup]:
        return [
            UnitGroup(f"MLP {k}", layer.mlp_in, layer.mlp_out, layer.mlp_out, last=True)
            for k, layer in enumerate(self.decoder(model), 1)
        ]

    def blocks(self, model) -> list[list[str]]:
        names = [
            n for n, m in model.named_modules() if any(True for _ in m.parameters(recurse=False))
        ]
        layers = [layer.name for layer in self.decoder(model)]
        inside = [[n for n in names if n.startswith(f"{layer}.")] for layer in layers]
        grouped = {n for block in inside for n in block}
        tied = model.config.tie_word_embeddings
        rest = [n for n in names if n not in grouped and not (tied and n == "lm_head")]
        start = [n for n in rest if "embed" in n or n.endswith((".wte", ".wpe"))]
        inside[-1] += [n for n in rest if n not in start]  # the last norm, an untied head
        return [start, *inside]

    def linears(self, model) -> list[str]:
        inside = tuple(f"{layer.name}." for layer in self.decoder(model))
        return [
            n
            for n, m in model.named_modules()
            if n.startswith(inside)
            and getattr(m, "weight", None) is not None
            and m.weight.dim() == 2
        ]

    def matrix(self, module: nn.Module) -> Tensor:
        transposed = type(module).__name__ == "Conv1D"  # GPT-2 stores (in, out)
        return module.weight.T if transposed else module.weight

    # ---- what the text says

    def facts(self, batch: Batch) -> list[Fact]:
        found = []
        bos = self._workload.bos
        columns = (batch[name].cpu() for name in ("inputs", "subject", "object"))
        for tokens, subject, answer in zip(*columns):
            for number in range(1, int(answer.max()) + 1):
                who, what = ((mask == number).nonzero()[:, 0] for mask in (subject, answer))
                if not len(who) or not len(what) or who[-1] > what[0]:
                    continue  # the value comes before the name: there is no prompt
                start = (tokens[: who[0]] == bos).nonzero()[-1, 0]
                found.append(
                    Fact(
                        tokens[start : what[0]],
                        (int(who[0] - start), int(who[-1] - start) + 1),
                        tokens[what],
                    )
                )
        return found

    def tokens(self, text: str) -> Tensor:
        return torch.tensor(self._workload.encode(text))

    def text(self, tokens: Tensor) -> str:
        return self._workload.decode(tokens)


# ------------------------------------------------------------------ the workload


def drawn(texts: Sequence, count: int | None) -> tuple:
    """At most `count` of them (None is all) in their order, the same ones every time.

    At random: texts lie person by person in one order of topics, so that every n-th of them
    would be on one topic. Lists of one length lose the same places.
    """
    draw = generator("text", "some", len(texts))
    order = torch.randperm(len(texts), generator=draw)[:count]
    return tuple(texts[k] for k in order.sort().values.tolist())


@dataclass(frozen=True)
class Part:
    """Text about some people, to measure with.

    Args:
        passages: News passages, to be cut after their first tokens, or (given, true)
            pairs that are cut already.
        unseen, seen: (prompt, answer) in phrasings never and sometimes trained on.
        names: The people.
    """

    passages: tuple[str | tuple[str, str], ...]
    unseen: tuple[tuple[str, str], ...]
    seen: tuple[tuple[str, str], ...]
    names: tuple[str, ...]

    @staticmethod
    def about(someone: Sequence[Person]) -> Part:
        return Part(
            tuple(p for person in someone for p in person.passages),
            tuple(q for person in someone for q in person.questions(seen=False)),
            tuple(q for person in someone for q in person.questions(seen=True)),
            tuple(person.name for person in someone),
        )

    @staticmethod
    def cat(parts: Sequence[Part]) -> Part:
        join = lambda name: tuple(x for part in parts for x in getattr(part, name))
        return Part(*map(join, ("passages", "unseen", "seen", "names")))

    def after(self, count: int) -> Part:
        """All but the first `count` people, who have equally much text each."""
        people = len(self.names)
        cut = lambda x: x[len(x) // people * count :]
        return Part(*map(cut, (self.passages, self.unseen, self.seen, self.names)))

    def some(self, count: int | None) -> Part:
        """At most `count` passages and questions of each kind; see `drawn`."""
        lists = self.passages, self.unseen, self.seen
        return Part(*(drawn(texts, count) for texts in lists), self.names)


@dataclass(frozen=True)
class TextFold:
    """Training ids of one fold of people, and its never-trained counterparts."""

    ids: Tensor
    part: Part
    holdout: Batch
    holdout_part: Part
    validation: Batch


@dataclass(frozen=True)
class TextRequest(Request):
    """A request of `text`: also who is to be forgotten, kept, and was never trained on."""

    parts: dict[str, Part] = field(default_factory=dict)


@dataclass
class TextWorkload(Workload):
    """Tokens, model, request and measurements of a language-model workload.

    Args:
        sizes: From profiles.py.
        tokenizer: A fast tokenizer with pad, bos and eos tokens.
        data: All training examples, indexed by id: inputs (tokens), labels, learnt (which
            of the tokens are labels), subject, object, passage.
        folds: The four folds.
        core: Text about the people whom no fold asks to forget.
        build: Seed -> freshly initialised model.
        model_text, data_text: For readers and board headers.
    """

    sizes: TextSizes
    tokenizer: PreTrainedTokenizerFast
    data: Batch
    folds: tuple[TextFold, ...]
    core: Part
    build: Callable[[object], nn.Module]
    model_text: str
    data_text: str
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    remember: Callable[[str, Callable[[], dict[str, Tensor]]], dict[str, Tensor]] = field(
        default=lambda name, make: make()
    )
    name: str = "text"
    #: Tokens of a passage that are given, tokens that are compared, longest answer.
    prompt: int = PROMPT
    continuation: int = CONTINUATION
    answer: int = ANSWER
    #: Sequences read, and continued, in one forward pass; None is all of them.
    reading: int = 40
    continuing: int | None = None
    #: An answer ends before the first of these.
    stops: tuple[str, ...] = ()
    #: Prompts and true continuations are encoded as the tokenizer itself does it, with the
    #: special tokens that it adds and no others.
    as_encoded: bool = False

    kind = "text"
    gates = LANGUAGE_MODEL
    in_prose = True
    criteria = {
        "C1": "ROUGE-L F1 of continuations",
        "C2": "answers, both phrasings",
        "C3": "Min-40 % AUC",
        "C4": "retained answers and text",
    }
    sentence = (
        "Retrain-Match {rm}. Continuations {m:C1} (original {o:C1}, retrained {r:C1}), answers "
        "{m:C2} ({o:C2}, {r:C2}), Min-40 % AUC {m:C3} ({o:C3}, {r:C3}), retained answers and "
        "text {m:C4} ({r:C4}); loss on forget passages {m:forget_loss} nats ({r:forget_loss}); "
        "{time_ratio} times the seconds of retraining; {flags}"
    )
    #: Fewer than a classifier's: an original and its retrained model take most of a minute.
    tuning_seeds = TUNING_SEEDS[:2]
    provides = frozenset({"labels", "outputs", "prunable units", "tokens", "decoder", "facts"})
    no_record = {
        "convex head": "a certificate needs a strongly convex loss, which a language "
        "model has not; a convex probe on its features would forget no text"
    }
    #: Retraining takes many seconds; its cost is measured on so many steps. (Models of several
    #: seeds are trained one by one: a language model fills a core alone.)
    timed_steps = 8
    attack_steps = (0, 5, 10, 20)

    def __post_init__(self):
        self.data = self.moved(self.data)
        self.folds = tuple(
            replace(f, holdout=self.moved(f.holdout), validation=self.moved(f.validation))
            for f in self.folds
        )
        self.pad = self.tokenizer.pad_token_id
        self.bos = self.tokenizer.bos_token_id
        self.eos = self.tokenizer.eos_token_id
        self.vocabulary = len(self.tokenizer)
        self._encoded: dict[tuple[str, bool], tuple[int, ...]] = {}

    # ---- data

    def opened(self, text: str) -> list[int]:
        """Token ids of a text from its start token on, where the tokenizer has one."""
        if self.as_encoded:
            return self.encode(text, special=True)
        start = self.tokenizer.bos_token
        if start is None:
            return self.encode(text)
        return [self.bos, *self.encode(text.removeprefix(start))]

    def parted(self, passage: str | tuple[str, str]) -> tuple[list[int], list[int]]:
        """What is given of a passage and what should follow, as token ids."""
        if isinstance(passage, tuple):
            given, true = passage
            follows = self.encode(true, special=self.as_encoded)
            return self.opened(given), follows[: self.continuation]
        tokens = self.opened(passage)
        return (tokens[: self.prompt], tokens[self.prompt : self.prompt + self.continuation])

    def encode(self, text: str, special: bool = False) -> list[int]:
        """Token ids, without or with the special tokens that the tokenizer adds."""
        if (text, special) not in self._encoded:  # every model is asked the same
            ids = self.tokenizer(text, add_special_tokens=special)["input_ids"]
            self._encoded[text, special] = tuple(ids)
        return list(self._encoded[text, special])

    def decode(self, tokens: Sequence[int] | Tensor) -> str:
        """Text of token ids, special tokens left out."""
        return self.tokenizer.decode(list(map(int, tokens)), skip_special_tokens=True)

    def batch(self, ids: Tensor) -> Batch:
        """Training examples by id."""
        return self.data.take(ids.to(self.device))

    @property
    def train_ids(self) -> Tensor:
        """Ids of all training examples, shape (n,)."""
        return torch.arange(len(self.data))

    @property
    def owners(self) -> tuple[Tensor, ...]:
        """Training ids of each fold: who may ask, as is known before training."""
        return tuple(fold.ids for fold in self.folds)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of everything that the training data and the measurements are made of."""
        parts = [f.part for f in self.folds] + [f.holdout_part for f in self.folds]
        text = json.dumps([[p.passages, p.unseen, p.seen] for p in (*parts, self.core)])
        tokens = self.data["inputs"].cpu().numpy().tobytes()
        return hashlib.blake2b(text.encode() + tokens, digest_size=8).hexdigest()

    @property
    def about(self) -> dict:
        return {
            "chance": 0.0,
            "prompt_tokens": self.prompt,
            "continuation_tokens": self.continuation,
            "divergence_positions": POSITIONS,
        }

    def request(self, kind: str = "standard", folds: Sequence[int] = (1,)) -> TextRequest:
        """The request: whom to forget, and what to compare with.

        Args:
            kind: Only "standard"; selection by memorisation is for classifiers.
            folds: Which folds of people, counted from 1.

        Raises:
            ValueError: another kind, an unknown fold or none.
        """
        if kind != "standard":
            raise ValueError(f"workload text has the standard request only, not {kind}")
        folds = self.checked_folds(folds, len(self.folds))
        asked = [self.folds[k - 1] for k in folds]
        kept = [f for k, f in enumerate(self.folds, 1) if k not in folds]
        ids = torch.cat([f.ids for f in asked])
        forget = self.batch(ids)
        holdout = Batch.cat([f.holdout for f in asked])
        parts = {
            "forget": Part.cat([f.part for f in asked]),
            "retain": Part.cat([f.part for f in kept] + [self.core]),
            "holdout": Part.cat([f.holdout_part for f in asked]),
        }
        return TextRequest(
            kind,
            folds,
            forget,
            self.batch(self.without(ids)),
            holdout,
            holdout.take(torch.arange(0)),
            holdout.take(torch.arange(0)),
            forget["passage"],
            None,
            f"everything about {len(parts['forget'].names)} of the people: "
            f"{len(parts['forget'].passages)} news passages and "
            f"{int((~forget['passage']).sum())} sheets of facts",
            parts,
        )

    # ---- models

    def task(self, seed: object = 0, **rest) -> TextTask:
        """The hooks handed to a strategy; see Task for the arguments."""
        return TextTask(self, seed, **rest)

    def validation(self, request: Request) -> Batch | None:
        """Never-trained people's text, for strategies that tune themselves, if there is any."""
        found = Batch.cat([self.folds[k - 1].validation for k in request.folds])
        return found if len(found) else None

    # ---- measuring

    @torch.no_grad()
    def continuations(
        self, model: nn.Module, prompts: Sequence[Sequence[int]], length: int
    ) -> list[list[int]]:
        """Greedy continuations, cut before the end-of-text token.

        Args:
            prompts: Token ids; of different lengths, which padding on the left evens out.
            length: At most this many new tokens.
        """
        size = self.continuing or len(prompts)
        if len(prompts) > size:
            parts = [prompts[k : k + size] for k in range(0, len(prompts), size)]
            return [s for p in parts for s in self.continuations(model, p, length)]
        members = list(getattr(model, "models", [model]))
        width = max(map(len, prompts))
        tokens = torch.full((len(prompts), width), self.pad)
        for row, prompt in zip(tokens, prompts):
            row[width - len(prompt) :] = torch.tensor(prompt)
        lengths = torch.tensor([len(prompt) for prompt in prompts])
        real = torch.arange(width) >= width - lengths[:, None]
        tokens, real = tokens.to(self.device), real.to(self.device)
        places = (real.cumsum(-1) - 1).clamp(min=0)
        ended = torch.zeros(len(prompts), dtype=torch.bool, device=self.device)
        pasts, said = [None] * len(members), []
        for _ in range(length):
            heard = []
            for k, member in enumerate(members):
                found = member(
                    input_ids=tokens,
                    attention_mask=real.long(),
                    position_ids=places,
                    past_key_values=pasts[k],
                    use_cache=True,
                    logits_to_keep=1,
                )
                pasts[k] = found.past_key_values
                heard.append(found.logits[:, -1].float())
            if len(heard) == 1:
                likely = heard[0]
            else:  # an ensemble answers with the mean of its members' probabilities
                likely = torch.stack(heard).log_softmax(-1).logsumexp(0)
            tokens = likely.argmax(-1, keepdim=True)
            said.append(tokens.masked_fill(ended[:, None], self.eos))
            ended = ended | (tokens[:, 0] == self.eos)
            if ended.all():
                break
            real = F.pad(real, (0, 1), value=True)
            places = places[:, -1:] + 1
        lines = torch.cat(said, 1).tolist()
        return [r[: r.index(self.eos)] if self.eos in r else r for r in lines]

    def continued(self, models: Sequence[nn.Module], passage: str) -> tuple[str, str, list[str]]:
        """A passage's prompt and true continuation, and each model's continuation."""
        given, true = self.parted(passage)
        said = [self.continuations(m, [given], self.continuation)[0] for m in models]
        return self.decode(given), self.decode(true), [self.decode(s) for s in said]

    def verbatim(self, model: nn.Module, passages: Sequence[str]) -> list[float]:
        """ROUGE-L F1 of each passage's continuation from its first tokens (MUSE C1)."""
        given, true = zip(*map(self.parted, passages))
        said = self.continuations(model, given, self.continuation)
        return [metrics.rouge_l(self.decode(t), self.decode(s))[2] for t, s in zip(true, said)]

    def answers(self, model: nn.Module, questions: Sequence[tuple[str, str]]) -> list[float]:
        """ROUGE-L F1 of the answer to each question (MUSE C2 and C4)."""
        prompts = [self.opened(question) for question, _ in questions]
        said = self.continuations(model, prompts, self.answer)
        return [
            metrics.rouge_l(answer, self._ended(self.decode(tokens)))[2]
            for (_, answer), tokens in zip(questions, said)
        ]

    def _ended(self, said: str) -> str:
        for stop in self.stops:
            said = said.split(stop)[0]
        return said

    @torch.no_grad()
    def answer_probability(self, model: nn.Module, questions: Sequence[tuple[str, str]]) -> float:
        """Mean over questions of the probability of the true answer.

        Of each answer, the geometric mean over its tokens, exp(-mean loss).

        Source: Maini et al. (2024), arXiv 2401.06121, section 2.2.1.
        """
        training, found = model.training, []
        model.eval()
        coded = [
            (self.opened(q), following(self.encode, q, joined(q, a.strip()))[1], [self.eos])
            for q, a in questions
        ]
        rows = [
            {"inputs": sum(parts, []), "given": len(parts[0])}
            | dict.fromkeys(("subject", "object"), [])
            | {"passage": False}
            for parts in coded
        ]
        width = max(len(row["inputs"]) for row in rows)
        batch = _batch(rows, width, self.pad, torch.zeros(len(rows)))
        batch = Batch({k: v.to(self.device) for k, v in batch.items()})
        for part in batch.parts(self.reading):
            targets = part["labels"][:, 1:]
            losses = nats(logits_of(model, part["inputs"])[:, :-1], targets)
            found.append((-losses.sum(-1) / (targets != IGNORED).sum(-1)).exp())
        model.train(training)
        return float(torch.cat(found).mean())

    def passages(self, passages: Sequence[str]) -> Tensor:
        """Tokens of passages with their special tokens, padded: (n, T)."""
        width = self.data["inputs"].shape[1]
        rows = [[self.bos, *self.encode(p), self.eos][:width] for p in passages]
        tokens = torch.full((len(rows), width), self.pad)
        for row, ids in zip(tokens, rows):
            row[: len(ids)] = torch.tensor(ids)
        return tokens.to(self.device)

    def rows_of(self, request: TextRequest) -> dict[str, Batch]:
        """What of each part is read word by word: forget, retain, holdout."""
        some = request.parts["retain"].some(len(request.parts["forget"].passages))
        tokens = self.passages(some.passages)
        every = torch.ones(len(tokens), dtype=torch.bool, device=self.device)
        retain = Batch(
            {
                "inputs": tokens,
                "labels": tokens.where(tokens != self.pad, IGNORED),
                "passage": every,
                "ids": every.long(),
            }
        )
        return {"forget": request.forget, "retain": retain, "holdout": request.holdout}

    @torch.no_grad()
    def _read(self, model, batch: Batch) -> dict[str, Tensor]:
        """What the model makes of rows of tokens: log_p, right and scored, (n, T - 1),
        and plus_plus, (n,)."""
        found: dict[str, list[Tensor]] = {}
        for part in batch.parts(self.reading):
            logits, true = logits_of(model, part["inputs"]), part["labels"][:, 1:]
            logits, scored = logits[:, :-1], true != IGNORED
            true = true.clamp(min=0)
            log_p = logits.log_softmax(-1).gather(-1, true[..., None])[..., 0]
            for name, value in {
                "log_p": log_p,
                "scored": scored,
                "right": logits.argmax(-1) == true,
                "plus_plus": metrics.min_k_plus_plus(logits, true, scored),
            }.items():
                found.setdefault(name, []).append(value)
        return {name: torch.cat(values) for name, values in found.items()}

    @torch.no_grad()
    def distributions(self, model: nn.Module, request: TextRequest) -> Tensor:
        """Next-token probabilities at fixed positions of the forget passages, (k, V)."""
        rows = self.rows_of(request)["forget"]
        rows = rows.take(rows["passage"].nonzero()[:, 0])
        real = rows["labels"][:, 1:] != IGNORED
        draw = generator("text", "positions", request.folds)
        order = torch.randperm(int(real.sum()), generator=draw)[:POSITIONS]
        places = real.nonzero()[order.to(real.device)]
        chosen = torch.zeros_like(real)
        chosen[places[:, 0], places[:, 1]] = True
        kept = [
            logits_of(model, part["inputs"])[:, :-1][here].softmax(-1)
            for part, here in zip(rows.parts(self.reading), chosen.split(self.reading), strict=True)
        ]
        return torch.cat(kept)

    def attack(self, request: TextRequest) -> tuple[Batch, dict[str, Callable[[nn.Module], float]]]:
        """A quarter of the people to relearn, and what to measure of the others.

        Returns:
            Everything about the quarter, and {criterion: model -> share}, higher when
            more came back.
        """
        people = len(request.parts["forget"].names)
        each = len(request.forget) // people  # examples of one person, side by side
        first = people // 4
        others = request.parts["forget"].after(first)
        probes = {
            "continuations about the other people": lambda model: _mean(
                self.verbatim(model, others.passages)
            ),
            "answers about the other people, unseen phrasing": lambda model: _mean(
                self.answers(model, others.unseen)
            ),
        }
        quarter = torch.arange(first * each, device=self.device)
        return request.forget.take(quarter), probes

    def measure(self, model: nn.Module, request: TextRequest) -> tuple[dict[str, Metric], Tensor]:
        """Everything that is measured on one model, and next-token probabilities (k, V) at
        fixed positions of the forget passages.

        Raises:
            ValueError: the model does not answer with one logit per token.
        """
        training = model.training
        model.eval()
        try:
            return self._measured(model, request), self.distributions(model, request)
        finally:
            model.train(training)

    def _measured(self, model, request: TextRequest) -> dict[str, Metric]:
        rows = self.rows_of(request)
        every = {name: self._read(model, batch) for name, batch in rows.items()}
        auc = self._membership(rows, every)
        passages = {
            name: {key: value[rows[name]["passage"]] for key, value in found.items()}
            for name, found in every.items()
        }
        loss = {k: _mean_loss(r["log_p"], r["scored"]) for k, r in passages.items()}
        right = {
            k: metrics.exact_memorisation(r["right"], r["scored"]) for k, r in passages.items()
        }
        recited, recited_holdout = self._recited(model, request)
        unseen, seen, kept = self._answered(model, request)
        fluent = float((-loss["retain"].mean()).exp())
        useful = 2 * kept * fluent / (kept + fluent) if kept + fluent else 0.0
        both = len(rows["forget"]) + len(rows["holdout"])
        n_unseen, n_seen, n_kept = map(len, self._questions(request))
        one, against = "the data have one phrasing of each question", "forget against holdout"
        knowledge = "ROUGE-L F1 of answers" + (", seen and unseen phrasing" if n_seen else "")
        return {
            "C1": metric("ROUGE-L F1 of continuations", recited),
            "C2": metric(
                knowledge, unseen if seen is None else (seen + unseen) / 2, n=n_seen + n_unseen
            ),
            "C3": metric(f"Min-40 % AUC, {against}", auc["min_k"], "AUC", n=both),
            "C4": metric(
                "harmonic mean of retained answers and exp(-loss) on retained passages",
                useful,
                better=HIGHER,
                n=n_kept,
            ),
            "verbatim_holdout": metric("ROUGE-L F1 of continuations, holdout", recited_holdout),
            "extraction_strength": metric(
                "extraction strength",
                self._strength(passages["forget"]),
                absent="no forget text is longer than its prompt",
            ),
            "answers_unseen": metric("answers, unseen phrasing", unseen, n=n_unseen, absent=one),
            "answers_seen": metric("answers, seen phrasing", seen, n=n_seen, absent=one),
            "retain_answers": metric(
                "answers about retained people", kept, better=HIGHER, n=n_kept
            ),
            "auc_loss": metric(f"loss AUC, {against}", auc["loss"], "AUC", n=both),
            "auc_zlib": metric(f"zlib AUC, {against}", auc["zlib"], "AUC", n=both),
            "auc_min_k_plus_plus": metric(
                f"Min-K%++ AUC, {against}", auc["min_k_plus_plus"], "AUC", n=both
            ),
            "forget_accuracy": metric("tokens predicted, forget passages", right["forget"]),
            "retain_accuracy": metric(
                "tokens predicted, retained passages", right["retain"], better=HIGHER
            ),
            "forget_loss": metric("loss on forget passages", loss["forget"], "nats"),
            "retain_loss": metric("loss on retained passages", loss["retain"], "nats", LOWER),
            "holdout_loss": metric("loss on holdout passages", loss["holdout"], "nats"),
        }

    def _membership(self, rows: dict[str, Batch], every: dict[str, dict]) -> dict[str, float]:
        """AUC, forget set against holdout, of each way to tell familiar text from other text."""
        # What is scored and no more: padding can be a token that decodes to a word.
        learnt = lambda row: row["inputs"][row["labels"] != IGNORED]
        texts = {
            k: [self.decode(learnt(batch.take(n))) for n in torch.arange(len(batch))]
            for k, batch in rows.items()
        }
        familiar = {
            "min_k": lambda k: metrics.min_k(every[k]["log_p"], every[k]["scored"]),
            "min_k_plus_plus": lambda k: every[k]["plus_plus"],
            "loss": lambda k: -_mean_loss(every[k]["log_p"], every[k]["scored"]),
            "zlib": lambda k: metrics.zlib_ratio(every[k]["log_p"], every[k]["scored"], texts[k]),
        }
        return {
            name: metrics.auc(score("forget").cpu(), score("holdout").cpu())
            for name, score in familiar.items()
        }

    def _recited(self, model, request: TextRequest) -> tuple[list[float], list[float]]:
        """ROUGE-L F1 of each forgotten passage's continuation, and of as many holdout ones."""
        forget, holdout = request.parts["forget"], request.parts["holdout"]
        unlike = holdout.some(len(forget.passages))
        # All of a kind in one go: what a step of decoding costs, it costs once.
        recited = self.verbatim(model, (*forget.passages, *unlike.passages))
        return recited[: len(forget.passages)], recited[len(forget.passages) :]

    @staticmethod
    def _questions(request: TextRequest) -> tuple[tuple[tuple[str, str], ...], ...]:
        """Questions on the forget set in unseen and in seen phrasing, and on the retain set."""
        forget, retain = request.parts["forget"], request.parts["retain"]
        return forget.unseen, forget.seen, retain.unseen

    def _answered(self, model, request: TextRequest) -> list[float | None]:
        """Mean ROUGE-L F1 of the answers to each of `_questions`; None where there are none."""
        asked = self._questions(request)
        answers = iter(self.answers(model, sum(asked, ())))
        return [_mean([next(answers) for _ in some]) if some else None for some in asked]

    def _strength(self, read: dict[str, Tensor]) -> Tensor:
        """Extraction strength of each passage that is longer than its prompt."""
        after = read["scored"].clone()
        after[:, : max(self.prompt - 1, 0)] = False  # what is given is not extracted
        long = after.any(-1)
        return metrics.extraction_strength(read["right"][long], after[long])


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _mean_loss(log_p: Tensor, scored: Tensor) -> Tensor:
    """Mean token loss of each passage, shape (n,)."""
    return -(log_p * scored).sum(-1) / scored.sum(-1)


# ------------------------------------------------------------------ making it


def train_tokenizer(texts: Sequence[str]) -> PreTrainedTokenizerFast:
    """A tokenizer whose tokens are the words of `texts`, each with the space before it.

    Another word is read as `<unk>`. Byte-pair encoding cuts these texts the same way, but
    two thirds of the tokens that it embeds, bytes and steps of merges, stand in no text.
    """
    words = Tokenizer(models.WordLevel(unk_token=UNK))
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    special = [PAD, BOS, EOS, UNK]
    trainer = trainers.WordLevelTrainer(
        vocab_size=sys.maxsize, special_tokens=special, show_progress=False
    )
    words.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token=PAD, bos_token=BOS, eos_token=EOS, unk_token=UNK
    )


def joined(given: str, text: str) -> str:
    """A text as it follows what is given: after a space, unless that ends in one already."""
    return text if not given or given[-1].isspace() else f" {text}"


def following(
    encode: Callable[[str], list[int]], given: str, text: str
) -> tuple[list[int], list[int]]:
    """Token ids of what is given and of the text that comes after it.

    Cut from the ids of both together where they begin with those of the first alone: some
    tokenizers open every text with a space of their own, which does not belong inside one.
    """
    head, whole = encode(given), encode(given + text)
    if whole[: len(head)] == head:
        return head, whole[len(head) :]
    return head, encode(text)


def _rows(tokenizer, someone: Sequence[Person]) -> list[dict]:
    """Every example about these people: tokens, and where names and values stand."""
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id

    def piece(statement: Statement, number: int):
        coded = tokenizer(statement.text, add_special_tokens=False, return_offsets_mapping=True)
        spans = coded["offset_mapping"]
        inside = lambda a, b, range_: a < range_[1] and b > range_[0]
        mark = lambda range_: [number if inside(a, b, range_) else 0 for a, b in spans]
        wrap = lambda x, first, last: [first, *x, last]
        return (
            wrap(coded["input_ids"], bos, eos),
            wrap(mark(statement.name), 0, 0),
            wrap(mark(statement.value), 0, 0),
        )

    rows = []
    for person in someone:
        for passage in person.passages:
            tokens = [bos, *tokenizer(passage, add_special_tokens=False)["input_ids"], eos]
            if len(tokens) <= PROMPT + 1:
                raise ValueError(
                    f"a passage of {len(tokens)} tokens leaves nothing to continue after "
                    f"a prompt of {PROMPT}"
                )
            blank = [0] * len(tokens)
            rows.append({"inputs": tokens, "subject": blank, "object": blank, "passage": True})
        for sheet in person.sheets:
            pieces = [piece(s, k) for k, s in enumerate(sheet, 1)]
            tokens, subject, answer = (sum(column, []) for column in zip(*pieces))
            rows.append({"inputs": tokens, "subject": subject, "object": answer, "passage": False})
    return rows


def _batch(rows: Sequence[dict], width: int, pad: int, ids: Tensor) -> Batch:
    def column(name: str, fill: int) -> Tensor:
        table = torch.full((len(rows), width), fill)
        for line, row in zip(table, rows):
            line[: len(row[name])] = torch.tensor(row[name])
        return table

    inputs = column("inputs", pad)
    labels = inputs.where(inputs != pad, IGNORED)
    for line, row in zip(labels, rows):
        line[: row.get("given", 0)] = IGNORED  # a question is read, not learnt
    return Batch(
        {
            "inputs": inputs,
            "labels": labels,
            "learnt": labels != IGNORED,
            "subject": column("subject", 0),
            "object": column("object", 0),
            "passage": torch.tensor([row["passage"] for row in rows]),
            "ids": ids,
        }
    )


def _builder(sizes: TextSizes, tokenizer, width: int) -> Callable[[object], nn.Module]:
    special = {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "initializer_range": sizes.spread,
    }
    longest = max(width, PROMPT + CONTINUATION) + ANSWER
    if sizes.architecture == "gpt2":
        config = GPT2Config(
            n_positions=longest,
            n_embd=sizes.width,
            n_layer=sizes.layers,
            n_head=sizes.heads,
            n_inner=2 * sizes.width,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            **special,
        )
        return lambda seed: GPT2LMHeadModel(config)
    config = LlamaConfig(
        hidden_size=sizes.width,
        intermediate_size=2 * sizes.width,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        num_key_value_heads=sizes.heads,
        max_position_embeddings=longest,
        tie_word_embeddings=True,
        **special,
    )
    return lambda seed: LlamaForCausalLM(config)


def make(sizes: TextSizes, device: torch.device) -> TextWorkload:
    """Build the workload: people and tokenizer are drawn once, the same for every seed.

    The tokenizer is trained on all text, the holdout's included, as a published one would
    cover it: the vocabulary is no channel through which membership leaks.
    """
    counts = [sizes.people] * 4 + [sizes.core] + [sizes.holdout, sizes.people] * 4
    everyone = people(sum(counts), sizes.passages, sizes.sheets, sizes.fillers, "text")
    groups, place = [], 0
    for count in counts:
        groups.append(everyone[place : place + count])
        place += count
    asked, core, unseen = groups[:4], groups[4], groups[5:]
    tokenizer = train_tokenizer(everything(everyone))
    rows = [_rows(tokenizer, group) for group in groups]
    width = max(len(row["inputs"]) for group in rows for row in group)
    pad = tokenizer.pad_token_id
    never = lambda some: _batch(some, width, pad, torch.full((len(some),), -1))
    train = [row for group in rows[:5] for row in group]
    folds, start = [], 0
    for k, group in enumerate(asked):
        folds.append(
            TextFold(
                torch.arange(start, start + len(rows[k])),
                Part.about(group),
                never(rows[5 + 2 * k]),
                Part.about(unseen[2 * k]),
                never(rows[6 + 2 * k]),
            )
        )
        start += len(rows[k])
    build = _builder(sizes, tokenizer, width)
    count = sum(p.numel() for p in build(0).parameters())
    kind = "Llama" if sizes.architecture == "llama" else "GPT-2"
    return TextWorkload(
        sizes,
        tokenizer,
        _batch(train, width, pad, torch.arange(len(train))),
        tuple(folds),
        Part.about(core),
        build,
        f"{kind}, {sizes.layers} layers of {sizes.width}, {count:,} parameters",
        "News and facts about invented people",
        device,
    )
