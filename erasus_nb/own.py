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
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from . import ROOT, cells, controls, records, score, selection
from .benchmark import tuned_settings
from .own_bench import UNCHOSEN, Chosen, OwnBench
from .own_result import Line, Result
from .parameters import ParameterError, check_device, check_notebook, one_of, strategies_in
from .profiles import PROFILES, Recipe
from .strategy import settings_of
from .training import global_seed, same_weights
from .workloads.classifier.own import (
    CLASSIFIERS,
    Material,
    OwnClassifier,
    make,
    not_redrawn,
    reinitialised,
    worded,
)

__all__ = ["Classifier", "Line", "Recipe", "Result", "boards", "check_page", "tuned", "unlearn"]

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
            recipe=_checked_recipe(DEFAULT if recipe is None else recipe),
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
            _check_frozen(first, template)
            return template, fresh, [("what fresh makes", first)]
        if lacking := not_redrawn(template):
            thawed = all(weight.requires_grad for weight in template.parameters())
            why = (
                f"no new model can be made: {lacking} (give fresh, a function that makes a new "
                f"module{'' if thawed else ' with the same frozen weights'})"
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


def _check_frozen(made: nn.Module, template: nn.Module) -> None:
    """Refuse a new module that stands on other frozen weights than the model.

    Weights that it alone freezes are fine if they are the model's: a model that was loaded from
    a file may have forgotten which ones were frozen.
    """
    its = dict(made.named_parameters(remove_duplicate=False))
    for name, weight in template.named_parameters(remove_duplicate=False):
        other = its.get(name, weight)
        if weight.requires_grad and other.requires_grad:
            continue
        same = torch.equal(other.detach().to(weight), weight.detach())
        if other.requires_grad or not same:
            raise ParameterError(
                f"fresh makes other frozen weights than model has ({name}); it must keep the "
                "frozen ones, e.g. copy.deepcopy(model) with reset_parameters on the other layers"
            )


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
        if who != UNCHOSEN:
            found[name] = Chosen(values, by)
    return found


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
