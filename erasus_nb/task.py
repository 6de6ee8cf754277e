"""The hooks that a strategy may use: what it gets of a workload, and all that it gets.

A strategy never sees the workload, whose measurements judge it. It gets a Task, which answers
the hooks below and hands out records of base training only to strategies that declare them.
The hooks stand in groups: any model, labels, the architecture, language models, pairs,
denoisers, and what only some strategies declare.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .profiles import Recipe
from .strategy import Batch, DataAccessError, MissingRecord, NotApplicable


class Meter:
    """Counts example passes: one forward or one backward pass of one example is one.

    The bench holds it. A strategy gets `counting`, with which it can only add.
    """

    def __init__(self):
        self._passes = 0

    @property
    def passes(self) -> int:
        """Example passes so far."""
        return self._passes

    def count(self, examples: int, backward: bool | None = None) -> None:
        """Add a forward pass of `examples`, and a backward pass where gradients are kept.

        Raises:
            ValueError: fewer than no examples.
        """
        if examples < 0:
            raise ValueError(f"passes are only ever added, got {examples}")
        backward = torch.is_grad_enabled() if backward is None else backward
        self._passes += examples * (2 if backward else 1)

    @property
    def counting(self) -> Counting:
        """What a strategy gets of it."""
        return Counting(lambda examples, backward=None: self.count(examples, backward))


@dataclass(frozen=True)
class Counting:
    """A meter that can be added to, and not read or set back."""

    count: Callable[..., None]


@dataclass(frozen=True)
class UnitGroup:
    """A layer of hidden units that can be pruned one by one.

    Args:
        name: For messages, e.g. "hidden 1".
        producer: Module whose output rows are the units; consumer: module that reads them.
        activation: Module whose output is the activation after the nonlinearity; the unit
            axis is dimension 1.
        columns: Consecutive input columns of the consumer that belong to one unit.
        last: The activation is instead the *input* of `activation`, (B, T, units).
    """

    name: str
    producer: str | tuple[str, ...]
    consumer: str
    activation: str
    columns: int = 1
    last: bool = False


@dataclass(frozen=True)
class DecoderLayer:
    """Where the parts of one transformer layer are, by module name.

    Args:
        name: The layer; its output is the hidden state.
        attention_out: Output projection of attention; its input is all heads side by side.
        mlp_in: First matrices of the MLP (two where it is gated); a row is a neuron.
        mlp_out: Second matrix of the MLP; its input is the neurons' activations.
        heads: Attention heads.
    """

    name: str
    attention_out: str
    mlp_in: tuple[str, ...]
    mlp_out: str
    heads: int


class Fact(NamedTuple):
    """A fact as a language model meets it.

    `prompt` (p,) is a whole prompt, its start token included, up to where the object
    begins; `subject` is the (start, stop) of the subject's tokens in it; `object` (o,)
    are the tokens that should follow.
    """

    prompt: Tensor
    subject: tuple[int, int]
    object: Tensor


class Embedding(NamedTuple):
    """One modality of a batch: `features` before and `projected` after its projection."""

    features: Tensor
    projected: Tensor


@dataclass
class Records:
    """Records of base training, each made when it is first asked for and then kept."""

    makers: Mapping[str, Callable[[], Any]] = field(default_factory=dict)
    made: dict[str, Any] = field(default_factory=dict)

    def get(self, name: str) -> Any:
        if name not in self.makers:
            raise MissingRecord(f"base training of this workload kept no {name}")
        if name not in self.made:
            self.made[name] = self.makers[name]()
        return self.made[name]


class Task:
    """The hooks a strategy may use. A workload subclasses it; strategies stay as they are.

    Everything is per example, shape (B,), unless it says otherwise. A hook that means
    nothing on a workload raises NotApplicable with the reason.
    """

    recipe: Recipe

    def __init__(
        self,
        seed: object = 0,
        *,
        reads: frozenset[str] | None = None,
        records: Records | None = None,
        meter: Meter | None = None,
        forgotten_class: int | None = None,
        validation: Batch | None = None,
    ):
        self._training_seed, self._reads = seed, reads
        self._records, self._meter = records or Records(), (meter or Meter()).counting
        self._forgotten_class, self._validation = forgotten_class, validation

    @property
    def meter(self) -> Counting:
        """Counts the example passes of the hooks, and those of who works around them."""
        return self._meter

    # ---- any model

    def loss(self, model, batch: Batch) -> Tensor:
        """Training loss of each example."""
        raise NotApplicable("this workload has no per-example loss")

    def example_loss(self, model, batch: Batch) -> Tensor:
        """Loss of each example that does not depend on which others are in the batch."""
        return self.loss(model, batch)

    def outputs(self, model, batch: Batch) -> Tensor:
        """What the model says, before any normalisation; (B, C) for a classifier."""
        raise NotApplicable("this workload has no outputs that compare between models")

    def forward(self, model, batch: Batch) -> None:
        """Run the model on the examples and on nothing else: what hooks on its modules see.

        `outputs` may run it on further examples, to compare with.
        """
        self.outputs(model, batch)

    def loss_from(self, outputs: Tensor, batch: Batch) -> Tensor:
        """`loss`, where what the model says about the batch is at hand already."""
        raise NotApplicable("this workload's loss does not follow from outputs")

    def divergence(self, student: Tensor, teacher: Tensor, T: float = 1.0) -> Tensor:
        """How far the student's outputs are from the teacher's: KL(teacher || student) T^2."""
        raise NotApplicable("this workload has no divergence between outputs")

    def uninformed(self, outputs: Tensor) -> Tensor:
        """Outputs of a model that knows nothing, same shape: the target of forced ignorance."""
        raise NotApplicable("this workload has no uninformed output")

    def new_model(self, seed: object) -> nn.Module:
        """A freshly initialised model of the original's architecture, for who declares it.

        Never one that base training started from, whatever the seed.
        """
        self._declared("new model")
        return self._fresh(("strategy", seed))

    def _fresh(self, seed: object) -> nn.Module:
        raise NotApplicable("this workload cannot make a fresh model")

    # ---- labels

    def relabel(self, batch: Batch, generator: torch.Generator) -> Batch:
        """The batch with a wrong label on every example (never the right one by chance)."""
        raise NotApplicable("this workload has no labels to replace")

    def label_distribution(self, model, batch: Batch) -> tuple[Tensor, Tensor]:
        """Labels (K,) and the model's own probability of each, (B, K), detached."""
        raise NotApplicable("this workload's labels cannot be enumerated")

    def sample_labels(self, model, batch: Batch, generator: torch.Generator) -> Batch:
        """The batch with labels drawn from the model's own predictions."""
        raise NotApplicable("this workload's labels cannot be sampled")

    def features(self, model, batch: Batch) -> Tensor:
        """What the output layer reads of each example, (B, d)."""
        raise NotApplicable("this workload has no features that belong to one example")

    # ---- the architecture

    def unit_groups(self, model) -> list[UnitGroup]:
        """Hidden units that can be pruned, layer by layer; never the output layer."""
        raise NotApplicable("this workload's model has no prunable units")

    def blocks(self, model) -> list[list[str]]:
        """Module names with parameters, block by block, from input to output."""
        raise NotApplicable("this workload's model has no ordered blocks")

    def head(self, model) -> str:
        """Name of the output module."""
        raise NotApplicable("this workload's model has no output layer")

    def heads(self, model) -> list[str]:
        """Names of all output modules: one but where a model answers in several modalities."""
        return [self.head(model)]

    def linears(self, model) -> list[str]:
        """Names of the linear and convolution modules but the head: where adapters go."""
        raise NotApplicable("this workload's model has no layer for adapters")

    def views(self, model) -> dict[str, list[tuple[str, slice]]]:
        """Half of an example -> the weights that read it: parameter name and its columns."""
        raise NotApplicable("this workload's examples have one half; there is nothing to split")

    def cross_attention(self, model, batch: Batch) -> tuple[list[Tensor], Tensor]:
        """Attention of one modality to the tokens of the other, with gradients.

        Returns:
            Probabilities of each layer, (B, heads, queries, keys), rows summing to 1; and
            which keys are the tokens of the concept, bool, (B, keys).
        """
        raise NotApplicable("this workload's model has no cross-attention")

    # ---- language models

    def token_losses(self, model, batch: Batch) -> Tensor:
        """Loss of each next token, shape (B, T - 1); 0 where there is no target."""
        raise NotApplicable("this workload has no tokens")

    def scored(self, batch: Batch) -> Tensor:
        """Which next tokens are targets, bool, shape (B, T - 1)."""
        raise NotApplicable("this workload has no tokens")

    def places(self, batch: Batch, module: str | None = None) -> Tensor | None:
        """Which places of each example are real, bool, (B, T); None where all are.

        Args:
            module: Name of a module that meets them, where modules meet different ones.
        """
        return None

    def starts(self, batch: Batch) -> Tensor | None:
        """Places at which a text starts and says nothing yet, bool, (B, T), if there are any."""
        return None

    def decoder(self, model) -> list[DecoderLayer]:
        """The transformer layers, from input to output."""
        raise NotApplicable("this workload's model is no transformer decoder")

    def embedding(self, model) -> str:
        """Name of the token embedding."""
        raise NotApplicable("this workload's model has no token embedding")

    def matrix(self, module: nn.Module) -> Tensor:
        """A module's weight as (out, in), sharing its memory however it is stored."""
        return module.weight

    def facts(self, batch: Batch) -> list[Fact]:
        """The facts that a batch states with their subject before their object."""
        raise NotApplicable("this workload states no facts")

    def tokens(self, text: str) -> Tensor:
        """Token ids of a text, shape (n,), without special tokens."""
        raise NotApplicable("this workload has no tokens")

    def text(self, tokens: Tensor) -> str:
        """Text of token ids, special tokens left out."""
        raise NotApplicable("this workload has no tokens")

    # ---- pairs of two modalities

    def modalities(self, model) -> dict[str, list[str]]:
        """Modality -> its module names, from input to output, the projection last."""
        raise NotApplicable("this workload has one modality; there is nothing to decouple")

    def embeddings(self, model, batch: Batch) -> dict[str, Embedding]:
        """Modality -> what the model makes of that half of each pair."""
        raise NotApplicable("this workload has one modality; there is nothing to embed")

    def attentions(self, model) -> dict[str, list[str]]:
        """Modality -> names of its attention modules; their `scale` multiplies the logits."""
        raise NotApplicable("this workload's model has no attention")

    # ---- denoisers

    def diffusion(self) -> Any:
        """How a denoiser is trained, asked and sampled from: see workloads/diffusion/process.py."""
        raise NotApplicable("this workload's model takes no noise out of images")

    # ---- what only some strategies declare

    def _declared(self, what: str) -> None:
        if self._reads is not None and what not in self._reads:
            raise DataAccessError(f"this strategy reads {what} but does not declare it")

    @property
    def forgotten_class(self) -> int | None:
        """The class that the request asks to forget, or None if it asks for something else."""
        self._declared("forgotten class")
        return self._forgotten_class

    def validation(self) -> Batch:
        """Never-trained examples distributed like the forget set, apart from the holdout.

        Raises:
            MissingRecord: the workload sets none aside.
        """
        self._declared("validation")
        if self._validation is None:
            raise MissingRecord("this workload sets no validation examples aside")
        return self._validation

    def initial_weights(self) -> dict[str, Tensor]:
        """The weights before base training, by parameter name."""
        self._declared("initial weights")
        return self._records.get("initial weights")

    def training_seed(self) -> object:
        """The seed of base training: with the initial weights, it fixes the batch orders.

        The seed that a strategy is called with is another one.
        """
        self._declared("initial weights")
        return self._training_seed

    def update_log(self):
        """The log of every update of base training (update_log.UpdateLog)."""
        self._declared("update log")
        return self._records.get("update log")

    def sisa(self):
        """The shards' weights after each of their slices (provenance.SisaShards)."""
        self._declared("sisa shards")
        return self._records.get("sisa shards")

    def convex_head(self):
        """The perturbed convex head on frozen features (provenance.ConvexHead)."""
        self._declared("convex head")
        return self._records.get("convex head")
