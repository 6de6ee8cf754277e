"""A classifier of one's own, from a module and tensors to rows of a board.

    import erasus_nb.own as own

    mine = own.Classifier(net, train=(x, y), forget=ids, holdout=(x2, y2), test=(x3, y3))
    print(own.unlearn(mine, ["layer_freezing", "negative_gradient"], settings=own.tuned()))

`net` is a trained torch module; or a class, or a function, that makes a new one, and then the
original is trained here, and so are the models retrained without the forget set. Nothing is
written unless a folder is named.
"""

from __future__ import annotations

import copy
import hashlib
import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from markupsafe import escape
from torch import Tensor, nn

from . import ROOT, cells, charts, controls, keys, records, score, selection
from .benchmark import Bench, tuned_settings
from .parameters import ParameterError, check_device, check_notebook, one_of, strategies_in
from .profiles import PROFILES, Recipe
from .strategy import Unlearned, settings_of, strategy
from .tables import DASH, number, table
from .training import clone, global_seed, same_weights
from .workloads.classifier.own import (
    CLASSIFIERS,
    Material,
    OwnClassifier,
    make,
    not_redrawn,
    reinitialised,
    worded,
)

__all__ = ["Classifier", "Recipe", "Result", "boards", "check_page", "tuned", "unlearn"]

#: How models are trained where nobody says how: AdamW at the step size that suits most small
#: networks. Controls go by it, too.
DEFAULT = Recipe(epochs=30, lr=1e-3)
#: Name of the profile in the files: no board of the book takes rows of it.
PROFILE = "own"
OPTIMIZERS = "sgd", "adam", "adamw"


# ------------------------------------------------------------------ what is given


def _has_text(given: Any) -> bool:
    try:
        return any(isinstance(x, (str, bytes)) for x in np.asarray(given, dtype=object).ravel())
    except (TypeError, ValueError):
        return False


def _tensor(name: str, given: Any, wanted: str = "numbers") -> Tensor:
    """Numbers as a tensor: of a tensor, an array, a table of pandas, a list, a set or a range.

    Args:
        wanted: What they must be, for the refusal of strings.

    Raises:
        ParameterError: they are no numbers, or of no one shape.
    """
    try:
        if hasattr(given, "to_numpy"):
            given = np.array(given)  # a copy: a table's own memory may be read-only
        if isinstance(given, (set, frozenset)):
            given = list(given)
        return torch.as_tensor(given).detach()
    except (TypeError, ValueError, RuntimeError) as error:
        if _has_text(given):
            raise ParameterError(f"{name} must be {wanted}; got strings") from None
        raise ParameterError(
            f"{name} holds something that is no tensor and cannot become one; {worded(error)}"
        ) from None


def _class_of(name: str, given: Any) -> int:
    """The label of an item of a dataset."""
    if isinstance(given, (str, bytes)):
        raise ParameterError(f"{name}: labels must be whole numbers from 0; got strings")
    if int(given) != given:
        raise ParameterError(f"{name}: labels must be whole numbers from 0; got {given}")
    return int(given)


def _tensors(name: str, given: Any) -> tuple[Tensor, Tensor]:
    """Inputs and labels of a pair of tensors or arrays, or of a Dataset, read into memory.

    Raises:
        ParameterError: it is neither, or inputs and labels do not fit.
    """
    if isinstance(given, (tuple, list)) and len(given) == 2:
        # Copied: what happens to the reader's own tensors later must not change the data here.
        inputs = _tensor(f"{name}: inputs", given[0]).clone()
        labels = _tensor(f"{name}: labels", given[1], "whole numbers from 0").clone()
    elif hasattr(given, "__getitem__") and not hasattr(given, "dtype"):
        try:
            items = [given[place] for place in range(len(given))]
            inputs = torch.stack([torch.as_tensor(item[0]).detach() for item in items])
            labels = torch.as_tensor([_class_of(name, item[1]) for item in items])
        except ParameterError:
            raise
        except (TypeError, ValueError, RuntimeError, IndexError, KeyError) as error:
            raise ParameterError(
                f"{name}: every item of the dataset must be (tensor, label), all tensors of one "
                f"shape; {worded(error)}"
            ) from None
    else:
        raise ParameterError(
            f"{name} must be (inputs, labels) or a torch Dataset; got {type(given).__name__}"
        )
    if labels.dim() > 1:
        how = "labels[:, 0]" if labels.shape[1] == 1 else "labels.argmax(1), if they are one-hot"
        raise ParameterError(
            f"{name}: labels must have shape (n,), one whole number for each example; got shape "
            f"{tuple(labels.shape)} (give {how})"
        )
    if labels.dim() != 1 or inputs.dim() < 1 or len(inputs) != len(labels):
        raise ParameterError(
            f"{name}: inputs (n, ...) and labels (n,) must have the same n; got "
            f"{tuple(inputs.shape)} and {tuple(labels.shape)}"
        )
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise ParameterError(f"{name}: labels must be whole numbers from 0; got {labels.dtype}")
    if not len(labels):
        raise ParameterError(f"{name} is empty; leave it out where there is none")
    if inputs.is_floating_point() and not inputs.isfinite().all():
        raise ParameterError(f"{name}: the inputs hold NaN or infinity")
    return inputs, labels.long()


def _ids(given: Any, count: int) -> Tensor:
    """Ids of the forget set, rising; a mask of bools over the training data will do, too.

    Raises:
        ParameterError: no ids, or ids that do not exist, twice the same one, or all of them.
    """
    allowed = f"whole numbers from 0 to {count - 1}, each once"
    ids = _tensor("forget", given, f"ids, {allowed}")
    if not ids.numel():
        raise ParameterError("forget is empty: there is nothing to unlearn")
    if ids.dtype == torch.bool:
        if tuple(ids.shape) != (count,):
            raise ParameterError(
                "forget is a mask, and a mask needs as many entries as train has examples, shape "
                f"({count},); got shape {tuple(ids.shape)}"
            )
        ids = ids.nonzero()[:, 0]
    if ids.dim() != 1 or ids.is_floating_point() or ids.is_complex():
        raise ParameterError(
            f"forget must be a list of ids, {allowed}; got {ids.dtype} of shape {tuple(ids.shape)}"
        )
    ids = ids.cpu().long().sort().values
    if not len(ids):
        raise ParameterError("forget is a mask that names no example")
    if ids[0] < 0 or ids[-1] >= count:
        wrong = int(ids[0] if ids[0] < 0 else ids[-1])
        raise ParameterError(f"forget holds id {wrong}; ids are {allowed}")
    if len(ids.unique()) != len(ids):
        if len(ids) == count and ids[-1] <= 1:
            raise ParameterError("forget is a mask of 0 and 1; a mask must be of True and False")
        twice = int(ids[1:][ids[1:] == ids[:-1]][0])
        raise ParameterError(f"forget holds id {twice} twice; ids are {allowed}")
    if len(ids) > count - 2:
        raise ParameterError("forget names all training examples; at least two must stay")
    return ids


def _copied(model: nn.Module, device: torch.device) -> nn.Module:
    """A copy on the device.

    Raises:
        ParameterError: it cannot be copied, or has nothing to train, or not yet.
    """
    _check_sizes(model, "the model")
    try:
        copied = copy.deepcopy(model).to(device)
    except Exception as error:  # noqa: BLE001 - whatever a user's module says
        raise ParameterError(
            "strategies work on copies of the model, and this one cannot be copied with "
            f"copy.deepcopy: {worded(error)}"
        ) from None
    if not any(True for _ in copied.parameters()):
        raise ParameterError(f"{type(model).__name__} has no parameters, so nothing can change")
    return copied


def _check_sizes(model: nn.Module, what: str) -> None:
    """Refuse a module whose layers wait for a first input to have weights."""
    if any(map(nn.parameter.is_lazy, (*model.parameters(), *model.buffers()))):
        raise ParameterError(f"{what} has lazy layers without weights; give their sizes")


def _made(make_one: Callable[[], nn.Module], what: str) -> nn.Module:
    """What a function without arguments makes.

    Raises:
        ParameterError: it fails, or what it makes is no module.
    """
    try:
        found = make_one()
    except Exception as error:  # noqa: BLE001 - whatever a user's function says
        raise ParameterError(
            f"{what} must make a new module when it is called without arguments; {worded(error)}"
        ) from None
    if not isinstance(found, nn.Module):
        raise ParameterError(f"{what} must make a torch module; got {type(found).__name__}")
    return found


def _two(make_one: Callable[[], nn.Module], what: str) -> tuple[nn.Module, nn.Module]:
    """Two modules that a function makes, one after the other."""
    with global_seed("own"):
        return _made(make_one, what), _made(make_one, what)


def _share(one: nn.Module, other: nn.Module) -> bool:
    """Whether to train one module would train something of the other."""
    trained = {id(weight) for weight in one.parameters() if weight.requires_grad}
    return one is other or any(id(weight) in trained for weight in other.parameters())


def _alike(answers: Tensor, others: Tensor) -> bool:
    """Whether two sets of logits, (n, classes), are the same but for rounding."""
    same = answers.shape == others.shape
    return same and torch.allclose(answers.double(), others.double(), atol=1e-4, equal_nan=True)


@torch.no_grad()
def _logits(model: nn.Module, inputs: Tensor, what: str = "the model") -> Tensor:
    """What a model answers in eval mode, (n, classes); model and inputs stay as they are.

    Args:
        inputs: A few examples, (n, ...).
        what: What to call it in a refusal.

    Raises:
        ParameterError: it does not take the inputs, or answers otherwise.
    """
    shape = tuple(inputs.shape[1:])
    try:
        said = copy.deepcopy(model).eval()(inputs.clone())  # it may work in place on them
    except Exception as error:  # noqa: BLE001 - whatever a user's forward says
        raise ParameterError(
            f"{what} does not take inputs of shape ({', '.join(map(str, ('n', *shape)))}) and "
            f"type {inputs.dtype}: {worded(error)}"
        ) from None
    if not isinstance(said, Tensor) or said.dim() != 2 or len(said) != len(inputs):
        got = tuple(said.shape) if isinstance(said, Tensor) else type(said).__name__
        raise ParameterError(
            f"{what} must answer with one logit per class, shape ({len(inputs)}, classes) for "
            f"{len(inputs)} examples; got {got}"
        )
    if said.shape[1] < 2:
        raise ParameterError(f"{what} answers with one number; two classes need two logits")
    if (said >= 0).all() and torch.allclose(said.sum(1), torch.ones_like(said[:, 0]), atol=1e-4):
        raise ParameterError(f"{what} answers with probabilities; leave out its softmax")
    return said


class Classifier:
    """A classifier of one's own, its data, and what it is asked to forget.

    Args:
        model: A trained module, (n, ...) inputs -> (n, classes) logits: the original. Or a class
            or function without arguments that makes a new module: then original and retrained
            models are trained here by `recipe`, one each for every training seed.
        train: What the original was (or is to be) trained on: (inputs, labels), tensors or
            arrays of shape (n, ...) and (n,); or a torch Dataset of such items, which is read
            into memory once. An example's id is its place.
        forget: Ids of the training examples to forget, or a mask of bools.
        holdout: Never trained on, of the same source as the forget set; for membership (C3).
        test: Never trained on; says what the model can still do (C4).
        validation: Never trained on and like the forget set, for strategies that tune themselves.
        retrained: The same architecture trained without the forget set: a module, or several.
            Each stands for one training seed, in this order.
        recipe: How models are trained here. With a trained module, it is for the retrained
            models; without it and `retrained`, nothing is compared with retraining.
        fresh: A function that makes a new module, where `model` is a trained one whose layers'
            `reset_parameters` do not give the weights that its training started from: layers
            without one, say, or frozen ones.
        name: In results; letters, digits, "-" and "_".
        device: "cpu" or "cuda".

    Raises:
        ParameterError: one sentence that says what does not fit.
    """

    def __init__(
        self,
        model: nn.Module | Callable[[], nn.Module],
        train: Any,
        forget: Any,
        *,
        holdout: Any = None,
        test: Any = None,
        validation: Any = None,
        retrained: nn.Module | Sequence[nn.Module] | None = None,
        recipe: Recipe | None = None,
        fresh: Callable[[], nn.Module] | None = None,
        name: str = "own",
        device: str = "cpu",
    ):
        check_device(device)
        if not re.fullmatch(r"[\w-]{1,60}", name):
            raise ParameterError(f"name is letters, digits, - and _, at most 60; got {name!r}")
        where = torch.device(device)
        given = isinstance(model, nn.Module)
        if not given and retrained is not None:
            raise ParameterError(
                "retrained models belong to an original that is given, too: give the trained "
                "module itself as model"
            )
        template, makes, made = self._architecture(model, fresh, recipe, where)
        inputs, labels = _tensors("train", train)
        ids = _ids(forget, len(labels))
        few = inputs[:2].to(where)
        answers = _logits(template, few)
        if not _alike(answers, _logits(template, few)):
            raise ParameterError(
                "the model answers differently twice in eval mode; leave chance out of it there "
                "(F.dropout, for example, needs training=self.training)"
            )
        parts = {"holdout": holdout, "test": test, "validation": validation}
        parts = {k: None if v is None else _tensors(k, v) for k, v in parts.items()}
        for what, pair in {"train": (inputs, labels), **parts}.items():
            _check_part(what, pair, inputs, answers.shape[1])
        states = {"original": [_state(template)]} if given else {}
        if retrained is not None:
            each = _several(retrained)
            states["retrained"] = [_checked_state(one, template) for one in each]
            made += [("retrained", one) for one in each]
        for what, one in made:
            loaded = copy.deepcopy(template)
            loaded.load_state_dict(_state(one))
            if not _alike(_logits(loaded, few), _logits(_copied(one, where), few, what)):
                raise ParameterError(
                    f"{what} answers otherwise than its weights do in a copy of model: it keeps "
                    "something outside its state_dict, or has another architecture"
                )
        self._material = Material(
            name=name,
            template=template,
            fresh=makes,
            inputs=inputs,
            labels=labels,
            forget=ids,
            **parts,
            states=states,
            recipe=_checked_recipe(recipe or DEFAULT),
            trains=not given or recipe is not None,
            classes=answers.shape[1],
            seeds=1,
            device=where,
        )
        self.assumed = recipe is None
        self._benches: dict[tuple, OwnBench] = {}

    @staticmethod
    def _architecture(model, fresh, recipe, where) -> tuple[nn.Module, Callable | str, list]:
        """A module of the architecture, and how new ones are made.

        Returns:
            The module, on the device; a function that makes a new one (or why nothing does); and
            modules that a user's function made, each with what to call it: their answers have
            to follow from their weights.

        Raises:
            ParameterError: model or fresh gives no new modules of one architecture.
        """
        if not isinstance(model, nn.Module):
            if not callable(model):
                raise ParameterError(
                    "model must be a torch module, or a class or function that makes one; got "
                    f"{type(model).__name__}"
                )
            if fresh is not None:
                raise ParameterError(
                    "fresh belongs to a trained module, and model makes new ones itself; leave "
                    "fresh out"
                )
            first, second = _two(model, "model")
            if _share(first, second):
                raise ParameterError("model gives the same module twice; give the module itself")
            template, what = _copied(first, where), "what model makes"
            _checked_state(second, template, what)
            return template, model, [(what, second)]
        template = _copied(model, where)
        if fresh is not None:
            first, second = _two(fresh, "fresh")
            if _share(first, second) or _share(first, model):
                raise ParameterError("fresh gives the same module twice; it must make a new one")
            if same_weights(_checked_state(first, template, "what fresh makes"), _state(template)):
                raise ParameterError("fresh gives a copy of the model; it must draw new weights")
            return template, fresh, [("what fresh makes", first)]
        if lacking := not_redrawn(template):
            why = (
                f"no new model can be made: {lacking} (give fresh, a function that makes a new "
                "module)"
            )
            if recipe is not None:
                raise ParameterError(why)
            return template, why, []
        return template, lambda: reinitialised(template), []

    def bench(self, seeds: int, out: str | Path | None = None) -> OwnBench:
        """The bench of so many training seeds; asked twice, it has not forgotten its models."""
        out = out or None  # "" is no folder, though to the book's bench it is its own results
        key = seeds, None if out is None else str(out)
        if key not in self._benches:
            workload = make(replace(self._material, seeds=seeds))
            _check_folder(workload, out)
            self._benches[key] = OwnBench(
                "own",
                PROFILE,
                range(seeds),
                device=str(self._material.device),
                cache="",
                out=out,
                resume=False,
                own=workload,
            )
        return self._benches[key]

    @property
    def material(self) -> Material:
        """Everything that was given, checked."""
        return self._material


def _check_part(what: str, pair: tuple[Tensor, Tensor] | None, like: Tensor, classes: int) -> None:
    """That examples have the training data's shape and type, and labels that the model knows."""
    if pair is None:
        return
    inputs, labels = pair
    if inputs.shape[1:] != like.shape[1:] or inputs.dtype != like.dtype:
        raise ParameterError(
            f"{what}: an example has shape {tuple(inputs.shape[1:])} and type {inputs.dtype}, one "
            f"of train {tuple(like.shape[1:])} and {like.dtype}"
        )
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise ParameterError(
            f"{what}: labels run from {low} to {high}, and the model has {classes} logits, for "
            f"labels 0 to {classes - 1}"
        )


def _several(retrained: Any) -> list[nn.Module]:
    """The retrained models that were given, one or several.

    Raises:
        ParameterError: they are no modules, none, or twice the same one.
    """
    if isinstance(retrained, nn.Module):
        return [retrained]
    if not isinstance(retrained, Iterable):
        raise ParameterError(
            f"retrained must be a torch module or several; got {type(retrained).__name__}"
        )
    several = list(retrained)
    if not several:
        raise ParameterError("retrained is empty; leave it out where there is none")
    if len({id(one) for one in several}) < len(several):
        raise ParameterError(
            "retrained holds the same module twice; each stands for a training seed of its own"
        )
    return several


def _state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def _checked_state(model: Any, template: nn.Module, what: str = "retrained") -> dict[str, Tensor]:
    """The weights of a module of the same architecture.

    Raises:
        ParameterError: it is no module, or of another architecture.
    """
    if not isinstance(model, nn.Module):
        raise ParameterError(f"{what} must be a torch module; got {type(model).__name__}")
    _check_sizes(model, what)
    shapes = lambda state: {name: tuple(value.shape) for name, value in state.items()}
    mine, its = shapes(template.state_dict()), shapes(model.state_dict())
    if mine != its:
        differs = next(k for k in (*mine, *its) if mine.get(k) != its.get(k))
        raise ParameterError(
            f"{what} has another architecture than model: {differs} is {its.get(differs)}, not "
            f"{mine.get(differs)}"
        )
    device = next(template.parameters()).device
    return {name: value.to(device) for name, value in _state(model).items()}


def _checked_recipe(recipe: Any) -> Recipe:
    """The recipe, if models can be trained by it.

    Raises:
        ParameterError: it is no recipe, or one of its numbers means nothing.
    """
    if not isinstance(recipe, Recipe):
        raise ParameterError(
            f"recipe must be own.Recipe(epochs, lr, batch_size=32, ...); got {recipe!r}"
        )
    one_of("optimizer", recipe.optimizer, OPTIMIZERS)
    for name, value in vars(recipe).items():
        kinds = {"epochs": int, "batch_size": int}.get(name, (int, float))
        if name == "optimizer" or (name == "clip" and value is None):
            continue
        if isinstance(value, bool) or not isinstance(value, kinds):
            what = "a whole number" if kinds is int else "a number"
            raise ParameterError(f"{name} of a recipe must be {what}; got {value!r}")
    if recipe.epochs < 1 or recipe.batch_size < 1 or not recipe.lr > 0:
        raise ParameterError(
            "recipe needs at least one epoch, one example a batch and a step size above 0; got "
            f"{recipe.epochs}, {recipe.batch_size} and {recipe.lr}"
        )
    if not 0 <= recipe.warmup < 1:
        raise ParameterError(
            f"warmup of a recipe is a share of all steps, from 0 to below 1; got {recipe.warmup!r}"
        )
    for name in ("final", "weight_decay"):
        if not getattr(recipe, name) >= 0:
            raise ParameterError(
                f"{name} of a recipe must be at least 0; got {getattr(recipe, name)!r}"
            )
    if recipe.clip is not None and not recipe.clip > 0:
        raise ParameterError(
            f"clip of a recipe must be None or a number above 0; got {recipe.clip!r}"
        )
    return recipe


def _check_folder(workload: OwnClassifier, out: str | Path | None) -> None:
    """Refuse a folder that holds results of other data or another model under this name."""
    if out is None:
        return
    folder = records.path_of(PROFILE, workload.name, "reference", out).parent
    for path in sorted(folder.glob("[!.]*.json")):
        if records.read(path).facts.get("content") != workload.fingerprint:
            raise ParameterError(
                f"{path} holds results of another model, recipe or data; give another name or "
                "folder, or remove it"
            )


# ------------------------------------------------------------------ the bench


@strategy(category="Control", cite="", reads=("retain", "initial weights"))
def partial_retrain(model, forget, retain, task, *, share=0.25, seed=0) -> Unlearned:
    """The control of this name in training mode, so that running statistics are learnt, too."""
    made = controls.partial_retrain(
        clone(model).train(), forget, retain, task, share=share, seed=seed
    )
    return Unlearned(made.model.train(model.training), made.losses, made.info)


#: What a row says where a strategy had to do with less than its page asks for.
_REDRAWN = (
    "the weights that the original's training started from are not known, so it started from "
    "newly drawn ones (reset_parameters, or fresh)"
)
_UNVALIDATED = "no validation data were given, and with these settings it does not use any"


@dataclass(repr=False)
class OwnBench(Bench):
    """The bench of a classifier of one's own.

    Args:
        own: The workload. Original and retrained models may be given with it.
    """

    own: OwnClassifier | None = None
    _chosen: dict[str, Chosen] = field(default_factory=dict)

    def run(self, function: Callable, *, settings: Any = None, keep: bool = True) -> list:
        """As of any bench; settings that `tuned` gave say where they were chosen."""
        if not isinstance(settings, Chosen):
            return super().run(function, settings=settings, keep=keep)
        self._chosen[function.__name__] = settings
        try:
            return super().run(function, keep=keep)
        finally:
            del self._chosen[function.__name__]

    def chosen(self, function: Callable) -> tuple[dict[str, Any], str]:
        found = self._chosen.get(function.__name__)
        return super().chosen(function) if found is None else (dict(found), found.by)

    def attempt(self, function: Callable, full: dict[str, Any], row: records.Row) -> records.Row:
        """As of any bench; the row says which records it began from that are not the original's."""
        self.own.redrawn = False
        row = super().attempt(function, full, row)
        notes = []
        if self.own.redrawn and "original" in self.own.material.states:
            notes.append(_REDRAWN)
        reads = "validation" in function.facts.reads and self.own.material.validation is None
        if reads and row.status == "ok":
            notes.append(_UNVALIDATED)
        return row.model_copy(update={"departures": [*row.departures, *notes]}) if notes else row

    def _open(self) -> OwnClassifier:
        # Threads stay as they are: how large a user's model is, nobody knows.
        return self.own

    def kinds(self) -> tuple[str, ...]:
        return ("original", "retrained") if self.own.material.compares else ("original",)

    def controls(self) -> list[Callable]:
        found = [c for c in controls.on(self.load.provides) if c.__name__ != "partial_retrain"]
        return [*found, partial_retrain] if self.own.material.trains else found

    def _trained(self, kind: str) -> dict[int, dict[str, Tensor]]:
        if kind not in self.kinds():
            return {}
        given = self.own.material.states.get(kind)
        if given is None:
            return super()._trained(kind)
        return {seed: given[place % len(given)] for place, seed in enumerate(self.seeds)}

    @property
    def retrain_seconds(self) -> float:
        """As of any bench; 0, which stands for unknown, where nothing is trained here."""
        return super().retrain_seconds if self.own.material.trains else 0.0

    @property
    def retrain_passes(self) -> int:
        return super().retrain_passes if self.own.material.trains else 0

    def code_of(self, function: Callable, given: dict[str, Any] | None) -> tuple[str, bool]:
        """Rows of one's own claim no code of the book's."""
        return keys.digest("own", keys.live_code(function), given), False

    def reference_code(self) -> str:
        return keys.digest("own", keys.sources().rows_code(self.load.made_by))


# ------------------------------------------------------------------ strategies


def _known() -> dict[str, str]:
    """Strategy -> the page that defines it."""
    pages = selection.categories(ROOT)
    return {n: page for page in pages for n in strategies_in(ROOT / "notebooks" / f"{page}.ipynb")}


def _functions(wanted: Any, workload: OwnClassifier) -> list[Callable]:
    """The strategies asked for; of none, all that have a meaning for a model like this.

    Raises:
        ParameterError: an unknown name, a function without a mark, or a name of two rows.
    """
    known = _known()
    if isinstance(wanted, str) or callable(wanted):
        wanted = [wanted]
    if not isinstance(wanted, Iterable):
        raise ParameterError(
            "strategies must be names or functions marked with @strategy; got "
            f"{type(wanted).__name__}"
        )
    wanted = list(wanted)
    found = []
    for each in wanted or known:
        if isinstance(each, str):
            one_of("strategy", each, known)
            each = cells.strategies(known[each])[each]
        if not hasattr(each, "facts"):
            raise ParameterError(
                f"a strategy is a name or a function marked with @strategy; got {each!r}"
            )
        if wanted or each.facts.form_on("own", workload.provides) is not None:
            found.append(each)
    found = list(dict.fromkeys(found))
    names = [each.__name__ for each in found]
    beside = {"original", "retrained", *(c.__name__ for c in controls.on(workload.provides))}
    for name in names:
        if names.count(name) > 1:
            raise ParameterError(f"two strategies are named {name!r}; rename one")
        if name in beside:
            raise ParameterError(f"a strategy is named {name!r}, as other rows are; rename it")
    return found


class Chosen(dict):
    """Settings of one strategy, and who chose them."""

    def __init__(self, values: Mapping[str, Any], by: str):
        super().__init__(values)
        self.by = by


def tuned(workload: str = CLASSIFIERS[0]) -> dict[str, Chosen]:
    """The settings that tuning chose on a workload of this book, for `unlearn(..., settings=)`.

    They are a better start than the defaults, which some strategies hardly act with. They were
    not chosen on the model at hand, and its rows say so. A strategy that was not tuned there
    keeps its defaults.

    Args:
        workload: One of the book's classifiers, see CLASSIFIERS.

    Returns:
        Strategy -> its settings that differ from the defaults. For settings of your own beside
        them: `{**own.tuned(), "ssd": {"alpha": 5.0}}`.

    Raises:
        ParameterError: no such workload.
    """
    one_of("workload of a classifier", workload, CLASSIFIERS)
    by = f"chosen on the workload {workload} of this book, not on this model"
    found = {}
    for name, page in _known().items():
        values, who = tuned_settings(cells.strategies(page)[name], workload)
        if who != _DEFAULTS:
            found[name] = Chosen(values, by)
    return found


#: Who chose settings that nobody chose, as the bench says it.
_DEFAULTS = "the function's defaults"


def _checked_settings(settings: Any, functions: Iterable[Callable]) -> dict[str, dict]:
    known = {f.__name__: settings_of(f) for f in functions}
    settings = {
        name: values
        for name, values in dict(settings or {}).items()
        if name in known or not isinstance(values, Chosen)
    }
    for name, values in settings.items():
        one_of("strategy to give settings for", name, known)
        for setting in values:
            one_of(f"setting of {name}", setting, known[name])
    return settings


def unlearn(
    mine: Classifier,
    strategies: str | Callable | Sequence[str | Callable] = (),
    *,
    seeds: int | None = None,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    out: str | Path | None = None,
) -> Result:
    """Run strategies on a classifier of one's own, beside the controls.

    Args:
        mine: The classifier. Models that were trained for it are kept, for the next call.
        strategies: Names of this book's strategies, or functions of one's own marked with
            @strategy; none stands for every one that has a meaning for such a model.
        seeds: How many training seeds, from 0; by default one. Where retrained models were given,
            at most as many as these, and by default all: each stands for one seed.
        settings: Strategy -> its settings that differ from the defaults; or `own.tuned()`, those
            that tuning chose on a workload of this book.
        out: Folder for the rows: `<out>/own/<name>/<category>.json`. None writes nothing.

    Returns:
        The rows of original, retrained models, controls and strategies, with what they say:
        print it. A strategy that fails or means nothing here has a row with the reason.

    Raises:
        ParameterError: one sentence that says what is wrong and what is allowed; also where the
            models cannot be trained or measured.
        RecordError: a file in `out` cannot be used; it is named.
    """
    if not isinstance(mine, Classifier):
        raise ParameterError(f"the first argument is an own.Classifier; got {type(mine).__name__}")
    given = len(mine.material.states.get("retrained", ()))
    count = (given or 1) if seeds is None else seeds
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise ParameterError(f"seeds must be a whole number, at least 1; got {seeds!r}")
    if 0 < given < count:
        were = "1 retrained model was" if given == 1 else f"{given} retrained models were"
        raise ParameterError(f"seeds is {count}, and {were} given: at most one seed for each")
    bench = mine.bench(count, out)
    functions = _functions(strategies, bench.own)
    settings = _checked_settings(settings, functions)
    try:
        reference = bench.references()
    except (ParameterError, records.RecordError, OSError):
        raise
    except Exception as error:  # noqa: BLE001 - whatever a user's model says in training
        raise ParameterError(
            f"the models cannot be trained or measured: {worded(error)}"
        ) from error
    rows = [row for f in functions for row in bench.run(f, settings=settings.get(f.__name__))]
    return Result(mine, bench, functions, reference, rows, settings)


def boards(folder: str | Path) -> dict[str, score.Board]:
    """Name -> board of the results of one's own in a folder that `unlearn` was given as `out`.

    The book's boards leave these rows aside. Results without retrained models have no board.

    Raises:
        RecordError: a file there cannot be used; it is named.
    """
    found = records.load(Path(folder) / PROFILE)
    compared = lambda group: any(row.kind == "retrained" for d in group for row in d.rows)
    return {name: score.board(group) for name, group in found.items() if compared(group)}


def check_page(name: str, namespace: dict[str, Any]) -> dict[str, Any]:
    """Check the parameters of a page on models of one's own, before any work.

    Args:
        name: The notebook, e.g. "your_own".
        namespace: Its `globals()`.

    Raises:
        ParameterError: one sentence that says what is wrong and what is allowed.
    """
    given = check_notebook(name, namespace)
    one_of("profile", given["profile"], PROFILES)
    check_device(given["device"])
    for each in given["strategies"]:
        one_of("strategy", each, _known())
    if given["seeds"] < 1:
        raise ParameterError(f"seeds must be at least 1; got {given['seeds']}")
    return given


# ------------------------------------------------------------------ what comes out


#: Accuracies that count as the same where one model alone is compared with another.
_REMEMBERED = 0.1
_SCORES = "RM", "F", "P", "U", "z C1", "z C2", "z C3"
#: Kinds of rows, in the order in which they are printed.
_KINDS = "original", "retrained", "strategy", "control"
#: What must differ for a trace of the forget set to be seen, and by how much.
_TRACES = {"C1": 0.2, "C2": 0.1, "C3": score.AUC_GAP}
_UNSEEN = "holdout", "test", "validation"
_WHERE = {
    "training": "training data",
    "retain": "retain set",
    "holdout": "holdout",
    "test": "test data",
}
#: Parts of the data that should not share an example with others, and what it means if they do.
_COPIES = (
    ("holdout", "training", "so they do not show whether membership still shows"),
    ("test", "training", "so they do not show what the model can do with unseen examples"),
    ("validation", "training", "so a strategy that tunes itself on them is misled"),
    ("validation", "holdout", "so a strategy that tunes itself has seen what C3 is measured on"),
    ("validation", "test", "so a strategy that tunes itself has seen what C4 is measured on"),
    ("forget", "retain", "so retrained models were trained on them, too"),
)
#: Gates of a board -> what they ask for, in words.
_ASKED = {
    "C1 gap": "original and retrained models to differ by at least 0.2 in accuracy on the forget "
    "set (here {})",
    "AUC gap": "original and retrained models to differ by at least 0.15 in the AUC (here {})",
    "D gap / its spread over seeds": "the answers of original and retrained models to differ at "
    "least 5 times as much as chance moves them from seed to seed (here {} times)",
    "RM retrained": "retrained models to score at least 90 (here {})",
    "RM original": "the original to score at most 5 (here {})",
    "RM random_init": "a network with new, untrained weights to score at most 10 (here {})",
}
#: What flags mean where there is no retrained model to compare with; see score.FLAGS for the rest.
_FLAGS_ALONE = {
    "no-op": "no weight changed",
    "collapsed": "over half of what the original knew beyond the most frequent class is lost",
    "forgets what stays": "right on the retain set less often than the original, by over 0.1",
    "over-unlearned": "the AUC is below 0.5, by over two standard errors",
    "exposes": "the AUC is above the original's, by over two standard errors",
}
_MEASURES = {
    "forget": "forget_accuracy",
    "retain": "retain_accuracy",
    "unseen": "C4",
    "AUC": "C3",
}


@dataclass(frozen=True)
class Line:
    """One model or strategy, as means over the training seeds.

    Args:
        name, kind: As in the rows; kind is original, retrained, control or strategy.
        label: The name, with what a reader must know beside it.
        status: ok, partial, not_applicable, error or diverged; and the reason where not ok.
        scores: RM, F, P, U and the positions z of C1, C2 and C3, where there are any.
        measures: Accuracy on the forget set, the retain set and unseen examples, 0 to 1; and the
            AUC of the loss, forget set against holdout.
        interval: 95 % t interval of RM over the seeds; None for a single seed.
        cost: Mean time of a run, in words: a multiple of retraining's, where that is known, or
            else in seconds.
        flags: What to beware of; of score.FLAGS.
    """

    name: str
    kind: str
    label: str
    status: str
    reason: str | None
    scores: dict[str, float]
    measures: dict[str, float]
    cost: str
    flags: tuple[str, ...]
    interval: tuple[float, float] | None = None

    @property
    def score(self) -> str:
        """Retrain-Match with its interval, for a table."""
        mean = number(self.scores.get("RM"), 1)
        if self.interval is None:
            return mean
        return f"{mean} ({number(self.interval[0], 0)} to {number(self.interval[1], 0)})"


@dataclass(repr=False)
class Result:
    """What strategies made of a classifier of one's own.

    Attributes:
        mine: The classifier.
        bench: The bench that ran them.
        functions: The strategies.
        reference: Rows of original, retrained models and controls.
        rows: The strategies' rows, one for each and every training seed.
        settings: Strategy -> its settings that differ from the defaults.
    """

    mine: Classifier
    bench: OwnBench
    functions: list[Callable]
    reference: records.Document
    rows: list[records.Row]
    settings: Mapping[str, Mapping[str, Any]]

    @cached_property
    def board(self) -> score.Board | None:
        """The board; None where there is no retrained model to score against."""
        if not self.bench.own.material.compares:
            return None
        try:
            return score.board(
                [
                    self.reference,
                    self.reference.model_copy(update={"category": "own", "rows": self.rows}),
                ]
            )
        except records.RecordError:  # the original or the retrained model diverged
            return None

    @cached_property
    def lines(self) -> list[Line]:
        """Original, retrained models, strategies, controls.

        Strategies come in the order of their scores where a board would rank them, or else in
        the order in which they were run.
        """
        found: dict[str, list[records.Row]] = {}
        for row in (*self.reference.rows, *self.rows):
            found.setdefault(row.strategy, []).append(row)
        if self.board is not None:
            lines = [_line_of(standing) for standing in self.board.standings]
        else:
            before = _means([row for row in found["original"] if row.status == "ok"])
            lines = [_line_alone(rows, before, self.bench.own) for rows in found.values()]
        places = {name: place for place, name in enumerate(found)}

        def order(line: Line) -> tuple:
            rm = line.scores.get("RM") if self.ranked and line.kind == "strategy" else 0.0
            return _KINDS.index(line.kind), math.inf if rm is None else -rm, places[line.name]

        return sorted(lines, key=order)

    @cached_property
    def _failed(self) -> list[records.Gate]:
        """What a board of the book asks for and does not find here; of what can be told."""
        gates = () if self.board is None else self.board.gates
        return [gate for gate in gates if gate.reason is None and not gate.passed]

    @property
    def ranked(self) -> bool:
        """Whether the order of the scores means anything: several seeds, and no gate failed."""
        return self.board is not None and len(self.board.seeds) > 1 and not self._failed

    def _gap(self, criterion: str) -> tuple[float, float] | None:
        """A criterion of the original and of retrained models."""
        mean = lambda kind: getattr(self.board[kind].metrics.get(criterion), "mean", None)
        values = mean("original"), mean("retrained")
        return None if None in values else values

    @property
    def _traceless(self) -> bool:
        """Whether original and retrained models hardly differ in anything that is measured."""
        if self.board is None:
            return False
        gaps = {c: self._gap(c) for c in _TRACES}
        return all(v is None or abs(v[0] - v[1]) < _TRACES[c] for c, v in gaps.items())

    @property
    def _noise(self) -> str | None:
        """Why the scores mean nothing; None where they may mean something."""
        if self._traceless:
            count = len(self.bench.own.material.forget)
            these = "This one example leaves" if count == 1 else f"These {count} examples leave"
            scores = " The scores below are noise." if self.scored else ""
            return (
                f"{these} hardly a trace that this test can see: original and retrained models "
                f"differ too little.{scores}"
            )
        if not self.scored:
            return None
        if any(gate.name.startswith(("RM original", "RM retrained")) for gate in self._failed):
            rm = lambda kind: number(self[kind].scores.get("RM"), 1)
            return (
                "The scale does not hold here: the original should score near 0 and retrained "
                f"models near 100, and they score {rm('original')} and {rm('retrained')}. The "
                "scores below are noise."
            )
        return None

    @cached_property
    def first(self) -> list[str]:
        """What to know before any number is read, a sentence each."""
        m, said = self.bench.own.material, self._about_copies()
        if noise := self._noise:
            said.append(noise)
        if self.board is not None and m.test is not None and not self.scored:
            said.append(self._unscored())
        elif self._failed and not noise:
            said.append(f"The scores below are no ranking. {self._about_gates()[0]}")
        return said

    def _about_copies(self) -> list[str]:
        """Examples that stand in two parts of the data, number for number."""
        m, said = self.bench.own.material, []
        stays = torch.ones(len(m.labels), dtype=torch.bool)
        stays[m.forget] = False
        parts = {
            "forget": m.inputs[m.forget],
            "retain": m.inputs[stays],
            **{k: pair[0] for k in _UNSEEN if (pair := getattr(m, k)) is not None},
        }
        numbers = {k: _numbers(part) for k, part in parts.items()}
        known = {k: set(each) for k, each in numbers.items()}
        known["training"] = known["forget"] | known["retain"]
        for some, others, therefore in _COPIES:
            if some not in numbers or others not in known:
                continue
            if shared := sum(each in known[others] for each in numbers[some]):
                said.append(
                    f"{shared} of {len(numbers[some])} {some} examples are in the "
                    f"{_WHERE[others]}, too, {therefore}."
                )
        return said

    def __getitem__(self, name: str) -> Line:
        for line in self.lines:
            if line.name == name:
                return line
        raise KeyError(f"no {name!r} here; there are {', '.join(line.name for line in self.lines)}")

    @property
    def flags(self) -> dict[str, tuple[str, ...]]:
        """Strategy -> its flags."""
        return {f.__name__: self[f.__name__].flags for f in self.functions}

    def model(self, name: str, seed: int = 0) -> nn.Module:
        """The model that a strategy made, in eval mode; it is the caller's to change.

        The bench keeps the models of the first seeds. Another is made again, in the same way.

        Raises:
            KeyError: no such strategy was run at this seed, or it made no model.
        """
        functions = {f.__name__: f for f in self.functions}
        if name not in functions:
            raise KeyError(f"no strategy {name!r} here; there are {', '.join(functions)}")
        rows = {row.seed: row for row in self.rows if row.strategy == name}
        if seed not in rows:
            raise KeyError(f"no seed {seed!r} here; there are {', '.join(map(str, rows))}")
        row = rows[seed]
        kept = self.bench._models.get(row.key)
        if kept is None and row.status in ("error", "not_applicable"):
            raise KeyError(f"{name} made no model at seed {seed}: {row.reason}")
        if kept is None:
            # Not the row's settings: as JSON has them, a tuple is a list.
            full = {**settings_of(functions[name]), **self.settings.get(name, {})}
            made = self.bench.unlearn(functions[name], seed, full)[0]
            kept = self.bench.product_of(functions[name], made)
        return clone(kept).eval()

    # ---- the picture

    @property
    def scored(self) -> bool:
        """Whether anything has a Retrain-Match, and so a position to draw."""
        return any(line.scores.get("RM") is not None for line in self.lines)

    def picture(self) -> charts.Chart:
        """Where each strategy and control ends between original and retrained.

        Raises:
            ParameterError: there is no position to draw.
        """
        if not self.scored:
            raise ParameterError(f"there is no position to draw: {' '.join(self.missing)}")
        return charts.positions(self.board, names=[f.__name__ for f in self.functions])

    # ---- sentences

    @property
    def sentence(self) -> str:
        """What the numbers say, and what they cannot say."""
        return " ".join([*self.first, *self.says, *self.missing, *self.limits])

    @property
    def says(self) -> list[str]:
        """What was found, a sentence for each strategy that has a result."""
        before = self["original"].measures
        if not before:
            return [f"The original could not be measured: {self['original'].reason}."]
        mine = [line for line in self.lines if line.kind == "strategy" and line.measures]
        if not mine:
            return ["No strategy has a result."]
        scored = [line for line in mine if line.scores.get("RM") is not None]
        if not scored or self._noise:
            return self._answers(mine)
        bar = self.board.bar
        beside = (
            f"; {bar.name}, the best cheap control, has {number(bar.rm.mean, 1)}" if bar else ""
        )
        every = score.listed((f"{line.name} {number(line.scores['RM'], 1)}" for line in scored), 6)
        return [
            "Retrain-Match says how near the answers are to a model's that never saw the forget "
            f"set, from 0 (like the original) to 100 (like retrained): {every}{beside}."
        ]

    def _answers(self, lines: Sequence[Line]) -> list[str]:
        """How often strategies are right, where no score says more; and what is to be expected."""
        m, others = self.bench.own.material, [self["original"]]
        others += [line for line in self.lines if line.kind == "retrained" and line.measures]
        beside = lambda what: ", ".join(
            f"{line.kind} {number(line.measures[what])}" for line in others
        )
        said = [
            f"{line.name} is right on {number(line.measures['forget'])} of the forget set "
            f"({beside('forget')}) and on {number(line.measures['retain'])} of the retain set "
            f"({beside('retain')})."
            for line in lines
        ]
        if len(others) == 1:
            stays = torch.ones(len(m.labels), dtype=torch.bool)
            stays[m.forget] = False
            if torch.isin(m.labels[m.forget], m.labels[stays]).any():
                said.append(
                    "A model that never saw the forget set is right on about as many of it as of "
                    "unseen examples like these: for examples drawn at random, near 1 is no "
                    "failure."
                )
            else:
                said.append("A model that never saw these classes is right on none of them.")
        return said

    @property
    def notes(self) -> list[str]:
        """What strategies had to do without, a sentence each."""
        said = []
        for note in (_REDRAWN, _UNVALIDATED):
            rows = (*self.rows, *self.reference.rows)
            names = dict.fromkeys(row.strategy for row in rows if note in row.departures)
            said += [f"{name}: {note}." for name in names]
        return said

    @property
    def key(self) -> list[str]:
        """What the columns and flags of the tables mean, and why a column is empty."""
        said, scored = [], any(line.scores for line in self.lines)
        if scored:
            several = ", with its 95 % interval over the seeds" if len(self.bench.seeds) > 1 else ""
            said.append(
                f"RM: Retrain-Match, 0 like the original, 100 like retrained models{several}. F, "
                "P, U: its parts forgetting, privacy and utility, 0 to 1. z: position, 1 like the "
                "original, 0 like retrained models, below 0 beyond them; in C1 (accuracy on the "
                "forget set), C2 (accuracy on unseen examples of a forgotten class) and C3 (AUC)."
            )
            said += [f"z {c} is empty: {why}." for c, why in self._empty_positions().items()]
        said.append(
            "forget, retain, unseen: accuracy on the forget set, the retain set and the test data"
            "; AUC: how well the loss tells the forget set from the holdout, 0.5 is not at all. "
            f"{DASH}: not known."
        )
        used = {flag for line in self.lines for flag in line.flags}
        meanings = score.FLAGS if scored else {**score.FLAGS, **_FLAGS_ALONE}
        flags = [f'"{flag}", {meanings[flag]}' for flag in score.FLAGS if flag in used]
        if flags:
            beside = "retrained models" if scored else "the original, for want of retrained models"
            said.append(f"Flags here compare with {beside}: {'; '.join(flags)}.")
        if scored and any(line.kind == "strategy" for line in self.lines):
            by = "of their Retrain-Match" if self.ranked else "in which they ran: no ranking"
            said.append(f"Strategies come in the order {by}; controls come after them.")
        return said

    def _empty_positions(self) -> dict[str, str]:
        found = {}
        for criterion in score.POSITIONS:
            if any(line.scores.get(f"z {criterion}") is not None for line in self.lines):
                continue
            rows = [row for row in self.reference.rows if row.kind == "original"]
            reasons = [row.metrics[criterion].reason for row in rows if criterion in row.metrics]
            alike = "original and retrained models do not differ in it"
            found[criterion] = next((why for why in reasons if why), alike)
        return found

    @property
    def missing(self) -> list[str]:
        """What was not given, and what is therefore not known, a sentence each."""
        m, said = self.bench.own.material, []
        if not m.compares:
            said.append(
                "No retrained model: how near a strategy comes to a model that never saw the "
                "forget set is not known, so there is no Retrain-Match and no position, and flags "
                "compare with the original alone; give recipe to train one here, or retrained."
            )
        elif self.board is None:
            said.append(
                "No original, or no retrained model, could be measured, so nothing is scored."
            )
        if m.holdout is None:
            rests = ", and privacy rests on the answers to the forget set alone"
            said.append(
                "No holdout: whether the forget set still stands out from examples that were "
                f"never trained on (C3) is not known{rests if m.compares else ''}."
            )
        if m.test is None:
            score_too = ", so there is no Retrain-Match" if m.compares else ""
            said.append(f"No test data: what the model can still do is not known{score_too}.")
        return said

    def _unscored(self) -> str:
        """Why nothing has a score although everything was given."""
        if any(line.scores["U"] is not None for line in self.lines):
            return (
                "Original and retrained models are alike on the forget set, so there is nothing to "
                "score, and no Retrain-Match."
            )
        if not len(self.bench.asked.utility):
            return (
                "All test data are of a forgotten class, so what the model can still do is not "
                "known: no Retrain-Match."
            )
        return (
            "The retrained models are right on no more of the test data than the most frequent "
            "class would be, so what strategies keep cannot be scored: no Retrain-Match."
        )

    @property
    def limits(self) -> list[str]:
        """What the numbers cannot say, a sentence each."""
        m, said = self.bench.own.material, []
        if len(self.bench.seeds) == 1:
            itself = " and the retrained model is compared with itself (its 100 says nothing)"
            said.append(
                f"One training seed: there is no interval{itself if m.compares else ''}, and "
                "chance alone may have put one row above another."
            )
        elif "original" in m.states:
            said.append(
                "All seeds have the same original, so intervals do not hold the spread of originals."
            )
        said += self._about_data() + (self._about_gaps() if self.board is not None else [])
        if "original" in m.states and m.trains and "retrained" not in m.states:
            said.append(
                "The original was trained elsewhere, so it may differ from the models retrained "
                "here by more than the forget set."
            )
        said += self._about_settings()
        if self.mine.assumed:
            said.append(
                f"No recipe was given: {'models and ' if m.trains else ''}controls go by AdamW, "
                f"step size {m.recipe.lr:g} and {m.recipe.epochs} epochs."
            )
        said.append(
            "No number here proves that the data are gone; a stronger attack may find them."
        )
        return said

    def _about_settings(self) -> list[str]:
        """Who chose the settings of the strategies that have a result."""
        chosen: dict[str, list[str]] = {}
        for row in self.rows:
            names = chosen.setdefault(row.settings_chosen_by, [])
            if row.strategy not in names and self[row.strategy].measures:
                names.append(row.strategy)
        said = []
        for by, names in chosen.items():
            if by == _DEFAULTS and names:
                said.append(
                    f"Settings are the defaults of {score.listed(names)}; nothing was tuned on "
                    "this model. The scores on this book's front page are of tuned settings, so "
                    f'they do not carry over; settings=own.tuned("{CLASSIFIERS[0]}") gives such a '
                    "start."
                )
            elif by.startswith("chosen on the workload") and names:
                said.append(
                    f"Settings of {score.listed(names)} were {by}: others may suit it better."
                )
        return said

    def _about_data(self) -> list[str]:
        """What is to be said of the examples themselves."""
        m, said = self.bench.own.material, []
        if m.holdout is not None:
            forget, holdout = len(m.forget), len(m.holdout[1])
            twice = 2 * _auc_error(forget, holdout)
            if twice > 0.1:
                said.append(
                    f"The AUC of {forget} against {holdout} examples is uncertain by "
                    f"{number(twice)} (two standard errors)."
                )
        before = self["original"].measures
        if before and before["retain"] < 1 / m.classes + 0.1:
            advice = "a recipe that trains it longer may help"
            if "original" in m.states:
                advice = "if it is not trained, give a function that makes it"
            said.append(
                f"The original is right on only {number(before['retain'])} of the retain set; "
                f"{advice}."
            )
        return said

    def _about_gaps(self) -> list[str]:
        """Where original and retrained hardly differ, a position means little."""
        said = []
        for criterion, bound in _TRACES.items():
            values = self._gap(criterion)
            if values is not None and abs(values[0] - values[1]) < bound:
                said.append(f"{criterion} ({number(values[0])} and {number(values[1])})")
        hardly = (
            f"Original and retrained hardly differ in {score.listed(said)}, so what these add to "
            "score and position is mostly noise."
        )
        return ([hardly] if said else []) + (self._about_gates() if self._noise else [])

    def _about_gates(self) -> list[str]:
        """Conditions that a board of the book has to meet, and this one does not, in words."""
        failed = []
        for gate in self._failed:
            measure = next(name for name in _ASKED if gate.name.startswith(f"{name} "))
            failed.append(_ASKED[measure].format(number(gate.value)))
        if not failed:
            return []
        return [f"A board of this book would not rank these rows: it asks for {'; '.join(failed)}."]

    # ---- as text

    def _tables(self) -> list[tuple[list[str], list[list[str]]]]:
        """Columns and rows: of the scores, where there are any, and of what was measured."""
        lines = [line for line in self.lines if line.measures]
        flags = [", ".join(line.flags) or DASH for line in lines]
        measured = [
            [line.label, *(number(line.measures.get(name)) for name in _MEASURES), line.cost]
            for line in lines
        ]
        columns = ["row", *_MEASURES, "time"]
        if not any(line.scores for line in lines):
            return [([*columns, "flags"], [[*m, f] for m, f in zip(measured, flags)])]
        scored = [
            [line.label, line.score, *(number(line.scores.get(name)) for name in _SCORES[1:]), f]
            for line, f in zip(lines, flags)
        ]
        tables = [(["row", *_SCORES, "flags"], scored), (columns, measured)]
        return tables[::-1] if self._noise else tables  # what was measured holds in any case

    @property
    def head(self) -> str:
        """Which model, how many examples and seeds, in one line."""
        m, load, seeds = self.bench.own.material, self.bench.own, len(self.bench.seeds)
        parts = [f"forget {load.asked.sentence}"]
        for what in ("holdout", "test"):
            pair = getattr(m, what)
            parts.append(f"{what} {len(pair[1])}" if pair else f"no {what}")
        return (
            f"{load.model_text}: {', '.join(parts)}; {seeds} training "
            f"seed{'s' if seeds > 1 else ''}."
        )

    def _without_result(self) -> list[str]:
        return [
            f"{line.name}: {line.status.replace('_', ' ')}: {line.reason}"
            for line in self.lines
            if line.status != "ok"
        ]

    def __str__(self) -> str:
        parts = [self.head, *self.first]
        parts += [_aligned(*each) for each in self._tables()]
        parts += ["\n".join(self.key)]
        beside = [*self._without_result(), *self.notes]
        parts += ["\n".join(beside)] if beside else []
        cannot = [f"- {line}" for line in (*self.missing, *self.limits)]
        parts += [" ".join(self.says), "\n".join(["What these numbers cannot say:", *cannot])]
        return "\n\n".join(parts)

    __repr__ = __str__  # or a notebook would keep the data themselves beside the table

    def _repr_html_(self) -> str:
        strong = {line.label for line in self.lines if line.kind == "strategy"}
        tables = "".join(table(*each, strong) for each in self._tables())
        paragraphs = lambda lines: "".join(f"<p>{escape(line)}</p>" for line in lines)
        before = "".join(f"<p><strong>{escape(line)}</strong></p>" for line in self.first)
        absent = paragraphs([*self._without_result(), *self.notes])
        key = f"<small>{paragraphs(self.key)}</small>"
        cannot = "".join(f"<li>{escape(line)}</li>" for line in (*self.missing, *self.limits))
        return (
            f"<p>{escape(self.head)}</p>{before}{tables}{key}{absent}"
            f"<p>{escape(' '.join(self.says))}</p>"
            f"<p>What these numbers cannot say:</p><ul>{cannot}</ul>"
        )


def _aligned(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in plain text; all but the first column and flags stand to the right."""
    widths = [max(map(len, column)) for column in zip(columns, *rows)]
    left = {0, *(k for k, name in enumerate(columns) if name == "flags")}
    return "\n".join(
        "  ".join(
            cell.ljust(width) if k in left else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(line, widths))
        ).rstrip()
        for line in (columns, *rows)
    )


def _label(name: str, kind: str) -> str:
    return f"{name} (control)" if kind == "control" else name


def _line_of(standing: score.Standing) -> Line:
    """A standing of a board as a line."""
    mean = lambda found: None if found is None else found.mean
    scores = {
        "RM": mean(standing.rm),
        "F": mean(standing.forgetting),
        "P": mean(standing.privacy),
        "U": mean(standing.utility),
        **{f"z {name}": mean(standing.position.get(name)) for name in score.POSITIONS},
    }
    measures = {
        name: standing.metrics[key].mean
        for name, key in _MEASURES.items()
        if key in standing.metrics
    }
    return Line(
        standing.name,
        standing.kind,
        _label(standing.label, standing.kind),
        standing.status,
        standing.reason,
        scores,
        measures,
        _cost(standing.seconds, standing.time_ratio),
        standing.flags,
        (standing.rm.low, standing.rm.high) if standing.rm and standing.rm.n > 1 else None,
    )


def _cost(seconds: float | None, ratio: float | None) -> str:
    if ratio:
        return f"{number(ratio)} x retraining"
    return f"{number(seconds)} s" if seconds else DASH


def _line_alone(
    rows: Sequence[records.Row], original: Mapping[str, float], workload: OwnClassifier
) -> Line:
    """The rows of one name where there is no retrained model: compared with the original.

    Args:
        original: What was measured on the original; nothing, if that failed.
    """
    done, first = [row for row in rows if row.status == "ok"], rows[0]
    bad = next((row for row in rows if row.status != "ok"), None)
    measures = _means(done)
    seconds = [row.cost.seconds for row in done if row.cost]
    return Line(
        first.strategy,
        first.kind,
        _label(_noted(first), first.kind),
        "ok" if bad is None else ("partial" if done else bad.status),
        bad.reason if bad else None,
        {},
        measures,
        _cost(sum(seconds) / len(seconds) if seconds else None, None),
        _flags_alone(done, measures, original, workload) if done and original else (),
    )


def _noted(row: records.Row) -> str:
    """A row's name as a board would label it."""
    notes = [*(["analogue"] if row.analogue else []), *([row.product] if row.product else [])]
    return f"{row.strategy} ({', '.join(notes)})" if notes else row.strategy


def _means(rows: Collection[records.Row]) -> dict[str, float]:
    found = {}
    for name, key in _MEASURES.items():
        values = [row.metrics[key].value for row in rows if key in row.metrics]
        values = [value for value in values if value is not None]
        if values:
            found[name] = sum(values) / len(values)
    return found


def _flags_alone(
    rows: Sequence[records.Row],
    mine: Mapping[str, float],
    original: Mapping[str, float],
    workload: OwnClassifier,
) -> tuple[str, ...]:
    """The flags of score.FLAGS that the original alone can tell, in their order.

    An AUC differs where it does by more than two of its standard errors.
    """
    if rows[0].kind in ("original", "retrained"):
        return ()
    flags = set()
    if all(row.weights_changed is False for row in rows):
        flags.add("no-op")
    lost = lambda name: original.get(name, 0) - mine.get(name, 0)
    what = "unseen" if "unseen" in original else "retain"
    if lost(what) > (original[what] - workload.chance) / 2 > 0:
        flags.add("collapsed")
    if lost("retain") > _REMEMBERED:
        flags.add("forgets what stays")
    if "AUC" in mine:
        error = 2 * _auc_error(len(workload.asked.forget), len(workload.asked.holdout))
        flags |= {"over-unlearned"} if mine["AUC"] < 0.5 - error else set()
        flags |= {"exposes"} if mine["AUC"] > original["AUC"] + error else set()
    return tuple(flag for flag in score.FLAGS if flag in flags)


def _auc_error(n: int, m: int) -> float:
    """Standard error of an AUC of one half, from n against m examples."""
    return math.sqrt((n + m + 1) / (12 * n * m))


def _numbers(part: Tensor) -> list[bytes]:
    """A hash of each example's numbers, to tell which are the same."""
    flat = part.cpu().reshape(len(part), -1).contiguous().view(torch.uint8).numpy()
    return [hashlib.blake2b(row, digest_size=16).digest() for row in flat]
