"""What every strategy must do, whatever it does: the checks that all categories share.

`setting()` is a small trained situation; `battery(function, ...)` runs a marked
strategy in it and checks the contract: a new model comes back and the old one is as it
was, the seed decides everything, strength zero does nothing and the defaults do
something, and only what the mark declares is read.
"""

from __future__ import annotations

import copy
import json
import math
import random as python_random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy
import torch
from torch import Tensor, nn

from erasus_nb import workloads
from erasus_nb.strategy import Batch, Split, Unlearned
from erasus_nb.task import Meter, Records, Task
from erasus_nb.training import generator, same_weights


@dataclass(frozen=True)
class Setting:
    """A trained original with its forget and retain set, to run strategies in.

    Args:
        original: The trained model; `model()` hands out copies.
        forget_batch, retain_batch: The training data in two parts.
        make_task: Arguments `reads` and `meter` -> the task that a strategy gets.
        learnt: Share of the forget set that the original gets right, 0 to 1.
    """

    original: nn.Module
    forget_batch: Batch
    retain_batch: Batch
    make_task: Callable[..., Task]
    learnt: float

    def model(self) -> nn.Module:
        """A copy of the original, in eval mode, every parameter trainable."""
        return copy.deepcopy(self.original)

    def forget(self, reads: frozenset[str] | None = None) -> Split:
        """The forget set as a strategy declaring `reads` sees it; None allows all."""
        return Split("forget", self.forget_batch, reads)

    def retain(self, reads: frozenset[str] | None = None) -> Split:
        """The retain set, likewise."""
        return Split("retain", self.retain_batch, reads)

    def task(self, reads: frozenset[str] | None = None, meter: Meter | None = None) -> Task:
        """The hooks, likewise."""
        return self.make_task(reads=reads, meter=meter)

    def run(self, function: Callable, *, seed: int = 0, **settings) -> Unlearned:
        """The strategy on a copy of the original, with the access that it declares."""
        reads = function.facts.reads
        splits = self.forget(reads), self.retain(reads)
        return function(self.model(), *splits, self.task(reads), seed=seed, **settings)


@cache
def setting(name: str = "synthetic", seed: int = 0) -> Setting:
    """A workload with its original of one training seed.

    Classifiers at laptop sizes; the others smaller, so that they have learnt in seconds.
    """
    torch.set_num_threads(1)
    small = {
        "text": small_text,
        "image_text": small_image_text,
        "diffusion": small_diffusion,
    }.get(name)
    load = small() if small else workloads.load(name, "laptop", "cpu")
    original = load.load(load.train([load.train_ids], [seed])[0])
    asked = load.request()
    records = Records(_makers(load, seed, original))

    def make_task(reads=None, meter=None):
        return load.task(
            seed,
            reads=reads,
            records=records,
            meter=meter,
            forgotten_class=asked.forgotten_class,
            validation=load.validation(asked),
        )

    if name == "text":
        answers = load.answers(original, asked.parts["forget"].seen)
        learnt = sum(answers) / len(answers)
    elif name == "image_text":
        with torch.no_grad():
            first = make_task().outputs(original, asked.forget).argmax(-1) == 0
        learnt = float(first.double().mean())
    elif name == "diffusion":
        learnt = load.measure(original, asked)[0]["forget_accuracy"].value
    else:
        with torch.no_grad():
            said = original(asked.forget["inputs"]).argmax(-1)
        learnt = float((said == asked.forget["labels"]).double().mean())
    return Setting(original, asked.forget, asked.retain, make_task, learnt)


@cache
def small_text(architecture: str = "llama"):
    """Workload `text` with 4 people a fold, whose original trains in seconds."""
    from erasus_nb.profiles import Recipe, TextSizes
    from erasus_nb.workloads import text

    recipe = Recipe(25, 0.01, 8, weight_decay=0.01, warmup=0.05, final=0.05, clip=1.0)
    # Eight sheets a person: with four, one of sixteen answers stays unlearnt on some machines.
    sizes = TextSizes(2, 4, 8, 6, 1, 8, 1, 2, 64, 4, recipe, architecture)
    return text.make(sizes, torch.device("cpu"))


@cache
def small_image_text():
    """Workload `image_text` with 4 writers a fold, whose original trains in seconds."""
    from erasus_nb.profiles import ImageTextSizes, Recipe
    from erasus_nb.workloads import image_text

    recipe = Recipe(150, 2e-3, 120, weight_decay=0.01, warmup=0.05, final=0.02, clip=1.0)
    sizes = ImageTextSizes(2, 4, 4, 4, 4, 6, 24, 32, 2, 96, 4, 48, 4, recipe)
    return image_text.make(sizes, torch.device("cpu"))


@cache
def small_diffusion():
    """Workload `diffusion` with 4 private scans a fold, that an original learns in twenty seconds."""
    from erasus_nb.profiles import DiffusionSizes, Recipe
    from erasus_nb.workloads import diffusion

    recipe = Recipe(80, 8e-3, 48, warmup=0.1, final=0.02, clip=1.0)
    # Sixteen scans of a digit: with twelve the judge recognises too few of its samples.
    sizes = DiffusionSizes(2, 16, 4, 6, 12, 8, 4, 30, 10, 1, 2, (24, 48), 64, recipe)
    return diffusion.make(sizes, torch.device("cpu"))


def _makers(load, seed: int, original: nn.Module) -> dict[str, Callable[[], Any]]:
    """The records of base training, made when a strategy asks for them."""

    def kept(name: str, *rest):
        from erasus_nb import provenance  # only strategies with records need it

        return getattr(provenance, name)(load, seed, *rest)

    return {
        "initial weights": lambda: load.start_model(seed).state_dict(),
        "update log": lambda: kept("update_log", original.state_dict()),
        "sisa shards": lambda: kept("sisa_shards"),
        "convex head": lambda: kept("convex_head"),
    }


# ------------------------------------------------------------------ the battery


def battery(
    function: Callable,
    zero_strength: Mapping[str, Any] | Iterable[Mapping[str, Any]] | None = None,
    *,
    random: bool = True,
    settings: Mapping[str, Any] | None = None,
    where: Setting | None = None,
) -> None:
    """Check the whole contract of one marked strategy.

    What comes back must be a plain model like the original, unless the strategy's mark says
    that its product is something else.

    Args:
        zero_strength: Settings, or several of them, under which the strategy must give
            back the original's weights to the last bit. None where there are none such.
        random: Whether another seed must give another result; if not, it must not.
        settings: What differs from the defaults in every run but the one that checks
            that the defaults do something.
        where: The situation; by default `setting()`.
    """
    where, settings = where or setting(), dict(settings or {})
    name = function.__name__
    assert where.learnt >= 0.95, f"the original has learnt only {where.learnt:.2f}"
    if isinstance(zero_strength, Mapping):
        zero_strength = (zero_strength,)

    first = _first_run(function, settings, where)
    again = _in_another_world(function, settings, where)
    assert same_weights(first, again), (
        f"{name}: the same seed gave another result (does it use a global generator?)"
    )
    other = where.run(function, seed=1, **settings).model.state_dict()
    if random:
        assert not same_weights(first, other), f"{name}: the seed does nothing"
    else:
        assert same_weights(first, other), f"{name}: not random, yet the seed matters"
    check_reads_no_more_than_declared(function, settings, where)

    start = where.original.state_dict()
    for zero in zero_strength or ():
        kept = where.run(function, **{**settings, **zero}).model.state_dict()
        assert same_weights(kept, start), f"{name}: {zero} changed weights"
    defaults = where.run(function).model.state_dict() if settings else first
    assert not same_weights(defaults, start), f"{name}: its defaults change nothing"


def _first_run(function: Callable, settings: Mapping, where: Setting) -> dict[str, Tensor]:
    """One run with everything around it watched; returns the unlearned weights."""
    name, reads = function.__name__, function.facts.reads
    model, forget, retain = where.model(), where.forget(reads), where.retain(reads)
    meter = Meter()
    before, marks = copy.deepcopy(model.state_dict()), _marks(model)
    task = where.task(reads, meter)
    result = function(model, forget, retain, task, seed=0, **settings)

    assert isinstance(result, Unlearned), f"{name}: it returned no Unlearned"
    new = result.model
    assert isinstance(new, nn.Module), f"{name}: its model is not a module"
    assert same_weights(model.state_dict(), before), f"{name}: it changed its input"
    assert _marks(model) == marks, (
        f"{name}: it left hooks, gradients, modes or requires_grad changed on its input"
    )
    assert new is not model, f"{name}: it returned its input"
    place = lambda tensor: tensor.untyped_storage().data_ptr()
    old = {place(t) for t in model.state_dict().values()}
    shared = [n for n, t in new.state_dict().items() if place(t) in old]
    assert not shared, f"{name}: {shared} share memory with the input"
    if not function.facts.product:
        check_same_architecture(name, new, model)

    for split, part in ((forget, "forget"), (retain, "retain")):
        declared = {f"{part} {what}" for what in ("inputs", "prompts", "labels")} & reads
        if declared:
            assert split.examples_read, f"{name}: it declares {part} data, reads none"
        else:
            assert not split.examples_read, f"{name}: it reads {part} data undeclared"
    words = {"forget prompts", "retain prompts"}  # who reads words may need no pass
    if forget.examples_read + retain.examples_read and reads - words:
        assert meter.passes, f"{name}: no example pass was counted; use task hooks"
    for curve, values in result.losses.items():
        assert all(map(math.isfinite, values)), f"{name}: {curve} losses are not finite"
    json.dumps(result.info, allow_nan=False)  # raises where info is not plain
    finite = all(t.isfinite().all() for t in new.state_dict().values())
    assert finite, f"{name}: weights are not finite"
    return copy.deepcopy(new.state_dict())


def check_same_architecture(name: str, new: nn.Module, model: nn.Module) -> None:
    """The result is a plain module like the original, in its mode, all trainable."""
    assert type(new) is type(model), f"{name}: it returned a {type(new).__name__}"
    kinds = lambda m: [(n, type(c)) for n, c in m.named_modules()]
    assert kinds(new) == kinds(model), f"{name}: the result has other submodules"
    shapes = lambda m: {n: (t.shape, t.dtype) for n, t in m.state_dict().items()}
    assert shapes(new) == shapes(model), f"{name}: the result has other tensors"
    modes = lambda m: [c.training for c in m.modules()]
    assert modes(new) == modes(model), f"{name}: the result is not in the input's mode"
    frozen = [n for n, p in new.named_parameters() if not p.requires_grad]
    assert not frozen, f"{name}: {frozen} came back frozen"
    assert _hooks(new) == _hooks(model), f"{name}: the result carries hooks"


def _hooks(model: nn.Module) -> int:
    ways = ("forward", "forward_pre", "backward", "backward_pre")
    kinds = [f"_{way}_hooks" for way in ways]
    return sum(len(getattr(m, kind)) for m in model.modules() for kind in kinds)


def _marks(model: nn.Module) -> tuple:
    """What a strategy must leave on a module besides its weights."""
    return (
        _hooks(model),
        [m.training for m in model.modules()],
        [(n, p.requires_grad, p.grad is None) for n, p in model.named_parameters()],
    )


def _in_another_world(function, settings, where: Setting) -> dict[str, Tensor]:
    """The same run with the model in train mode and other global generators.

    The models of the settings have no layer that behaves differently in train mode.
    """
    model, reads = where.model().train(), function.facts.reads
    state = python_random.getstate(), numpy.random.get_state(), torch.get_rng_state()
    try:
        python_random.seed(12345)
        numpy.random.seed(12345)
        torch.manual_seed(12345)
        splits = where.forget(reads), where.retain(reads)
        result = function(model, *splits, where.task(reads), seed=0, **settings)
    finally:
        python_random.setstate(state[0])
        numpy.random.set_state(state[1])
        torch.set_rng_state(state[2])
    name = function.__name__
    assert result.model.training, f"{name}: train mode went in, eval mode came out"
    assert model.training, f"{name}: it left its input in eval mode"
    return result.model.state_dict()


def check_reads_no_more_than_declared(
    function: Callable, settings: Mapping[str, Any], where: Setting | None = None
) -> None:
    """Everything undeclared may be scrambled without changing a bit of the result.

    Here nothing is hidden: a strategy that looks at scrambled data is not stopped but
    found out.
    """
    where, reads = where or setting(), function.facts.reads
    result = where.run(function, **settings).model.state_dict()
    splits = {"forget": where.forget_batch, "retain": where.retain_batch}
    scrambled = []
    for part, batch in splits.items():
        order = torch.randperm(len(batch), generator=generator("scramble", part))
        labels, prompts = {"labels"} & set(batch), {"prompts"} & set(batch)
        inputs = set(batch) - labels - prompts - {"ids"}
        for what, fields in {"inputs": inputs, "prompts": prompts, "labels": labels}.items():
            seen = {f"{part} {what}"} | ({f"{part} inputs"} if what == "prompts" else set())
            if not seen & reads:
                batch = batch.replace(**{f: batch[f][order] for f in fields})
                scrambled.append(f"{part} {what}")
        splits[part] = Split(part, batch)
    splits = splits["forget"], splits["retain"]
    unlearned = function(where.model(), *splits, where.task(), seed=0, **settings)
    assert same_weights(result, unlearned.model.state_dict()), (
        f"{function.__name__}: scrambling {', '.join(scrambled)} changed the result, "
        "so it reads more than it declares"
    )
