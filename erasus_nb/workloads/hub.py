"""The door for models and data of others: what is the same whatever a model reads.

A hub id and a local folder go the same way; a folder is what `hf download` leaves. Weights are
read from safetensors only and no code of a repository is run.
"""

from __future__ import annotations

import hashlib
import re
import socket
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import torch
from huggingface_hub import constants, snapshot_download
from torch import Tensor, nn
from transformers import CONFIG_MAPPING, AutoTokenizer, PreTrainedConfig

from .. import profiles
from ..strategy import settings_of
from ..training import global_seed
from .base import Workload
from .gates import PUBLISHED
from .given import Published

#: Records that only base training here could leave, and that at a bearable size.
NO_RECORD = {
    "update log": "a log of every update of a model of this size is many times the "
    "model, and a published model comes without one",
    "sisa shards": "the shards would be fine-tuned from the start at several times the "
    "cost of the original; a published model comes without them",
}
#: Strategies whose step size is that of something else than the model's weights.
STEPS_OF_THEIR_OWN = ("mask_based",)


# ------------------------------------------------------------------ reading


def reachable(name: str, kind: str) -> None:
    """Refuse what is neither a folder nor a hub id, and a hub id without a network.

    The hub's own client would try again for most of a minute. Whoever has the files in its
    cache sets HF_HUB_OFFLINE, and then it is not asked for at all.
    """
    if Path(name).is_dir():
        return
    if not re.fullmatch(r"(?!\.)[\w.-]+/[\w.-]+", name):
        raise ValueError(f"{kind} {name!r} is no folder here and no hub id of the form owner/name")
    if offline(name) or getproxies():
        return
    host = urlsplit(constants.ENDPOINT).hostname
    try:
        socket.getaddrinfo(host, 443)
    except OSError as error:
        raise unreachable(name, kind, error) from error


def offline(name: str) -> bool:
    """Whether this is a hub id and the hub must not be asked (HF_HUB_OFFLINE)."""
    return constants.HF_HUB_OFFLINE and not Path(name).is_dir()


def unreachable(name: str, kind: str, error: Exception) -> ValueError:
    """What is said of a model or data that a library could not read, as an error to raise."""
    while error.__cause__:  # the first thing that went wrong says most
        error = error.__cause__
    reason = str(error).strip().splitlines() or [type(error).__name__]
    if Path(name.split(",")[0]).is_dir():
        return ValueError(f"{kind} {name} cannot be read: {reason[0]}")
    place = "--repo-type dataset " if kind == "dataset" else ""
    return ValueError(
        f"{kind} {name} is no folder here, and the hub did not give it ({reason[0]}); "
        f"on a machine with network, `hf download {place}{name} --local-dir FOLDER` gets "
        "it, and FOLDER can be given instead"
    )


def model_type(name: str, subfolder: str = "") -> str:
    """What a model's configuration calls its architecture; "" where it does not say so."""
    try:
        found = PreTrainedConfig.get_config_dict(name, subfolder=subfolder)[0]
        return found.get("model_type") or ""
    except Exception:  # whoever opens the model says what is wrong with it
        return ""


def open_model(
    name: str,
    made: Any,
    dtype: str,
    device: torch.device,
    types: Collection[str],
    wanted: str,
    subfolder: str = "",
) -> nn.Module:
    """A model in eval mode, loaded straight onto the device.

    Args:
        name: Hub id or folder; only safetensors are read.
        made: The class of transformers that opens it.
        dtype: Of the weights, e.g. "bfloat16".
        types: The architectures (`model_type`) that will do.
        wanted: What these are, in words.
        subfolder: Where it lies, if it is a part of something.

    Raises:
        ValueError: it is not there, of another kind, an adapter on a model, lacks weights, or
            some are not finite.
    """
    reachable(name, "model")
    adapter = ValueError(
        f"model {name} is an adapter (LoRA) on another model; merge it (merge_and_unload) "
        "and save the whole model"
    )
    if Path(name, "adapter_config.json").is_file():
        raise adapter
    found = model_type(name, subfolder)
    if found in CONFIG_MAPPING and found not in types:
        raise ValueError(f"model {name} is of type {found}; wanted is {wanted}")
    try:
        model, loaded = made.from_pretrained(
            name,
            dtype=getattr(torch, dtype),
            use_safetensors=True,
            device_map={"": device},
            trust_remote_code=False,
            output_loading_info=True,
            subfolder=subfolder,
        )
    except Exception as error:  # whatever a library finds wrong with somebody's files
        raise unreachable(name, "model", error) from error
    if getattr(model, "_hf_peft_config_loaded", False):
        raise adapter
    check_whole(name, model, loaded["missing_keys"])
    return model.eval()


def check_whole(name: str, model: nn.Module, lacking: Collection[str]) -> None:
    """Refuse a model whose weights lack some, or hold NaN or infinity."""
    if lacking := sorted(lacking):
        raise ValueError(
            f"model {name} lacks the weights {lacking[0]}"
            + (f" and {len(lacking) - 1} more" if len(lacking) > 1 else "")
            + ", which would be drawn at random"
        )
    check_finite(name, model)


def open_tokenizer(name: str, words: int, subfolder: str = ""):
    """A tokenizer, checked against the number of tokens that a model embeds.

    Args:
        subfolder: Where it lies, if it is a part of something.

    Raises:
        ValueError: it is not there, or it has more tokens.
    """
    reachable(name, "tokenizer")
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            name, trust_remote_code=False, subfolder=subfolder
        )
    except Exception as error:  # whatever a library finds wrong with somebody's files
        raise unreachable(name, "tokenizer", error) from error
    if len(tokenizer) > words:
        raise ValueError(
            f"the tokenizer {name} has {len(tokenizer)} tokens and the model embeds {words}: it "
            "is not this model's tokenizer"
        )
    return tokenizer


def token_rows(tokenizer, said: Sequence[tuple[str, str]], longest: int) -> list[Tensor]:
    """Token ids of captions, each as long as it is.

    Args:
        said: What a caption is of, for a reader, and the caption.
        longest: So many tokens are read.

    Raises:
        ValueError: one is longer.
    """
    rows = [torch.tensor(row) for row in tokenizer([text for _, text in said])["input_ids"]]
    for (what, _), row in zip(said, rows):
        if len(row) > longest:
            raise ValueError(
                f"the caption of {what} takes {len(row)} tokens and the model reads {longest}"
            )
    return rows


def dataset_folder(name: str) -> Path:
    """The folder of a dataset; one of the hub is fetched into its cache.

    Raises:
        ValueError: it is not there.
    """
    reachable(name, "dataset")
    if Path(name).is_dir():
        return Path(name)
    try:
        return Path(snapshot_download(name, repo_type="dataset"))
    except Exception as error:  # whatever a library finds wrong on the way
        raise unreachable(name, "dataset", error) from error


def check_finite(name: str, model: nn.Module) -> None:
    """Refuse weights that hold NaN or infinity, as training that diverged leaves them."""
    for key, value in model.state_dict().items():
        if not value.is_floating_point() or not value.numel():
            continue
        # Both ends are NaN if anything is; nothing of the tensor's size is made.
        ends = torch.stack(value.aminmax())
        if not ends.isfinite().all():
            held = "NaN" if ends.isnan().any() else "infinity"
            raise ValueError(
                f"model {name} holds {held} in its weights {key}, as training that diverged "
                "leaves them: nothing can be measured on it"
            )


def check_complete(published: Published) -> None:
    """Refuse a model without data, or data without a model."""
    if not published.model or not published.data:
        raise ValueError("model and data are given together, or neither is")


def given_models(
    published: Published, model: nn.Module, opened: Callable[[str], nn.Module]
) -> dict[str, dict[str, Tensor]]:
    """The weights that were given: "original" and "retrained", or "start" for both.

    Args:
        model: The published model, opened.
        opened: Name -> that model, opened the same way.

    Raises:
        ValueError: the retrained model cannot be opened or has another shape.
    """
    if not published.retrained:
        return {"start": weights(model)}
    other = opened(published.retrained)
    if shapes(other) != shapes(model):
        raise ValueError(f"{published.retrained} is not of the architecture of {published.model}")
    return {"original": weights(model), "retrained": weights(other)}


def weights(model: nn.Module) -> dict[str, Tensor]:
    """The tensors of a model by name; no copies."""
    return {name: value.detach() for name, value in model.state_dict().items()}


def digest(tensors: dict[str, Tensor]) -> str:
    """Hash of all values, byte by byte, with their names, shapes and types."""

    def one(item: tuple[str, Tensor]) -> bytes:
        name, value = item
        found = hashlib.sha256(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        found.update(value.reshape(-1).view(torch.uint8).cpu().numpy().data)
        return found.digest()

    # Billions of weights: hashing leaves the interpreter free for the next tensor.
    with ThreadPoolExecutor() as pool:
        return hashlib.sha256(b"".join(pool.map(one, tensors.items()))).hexdigest()


def shapes(model: nn.Module) -> dict[str, torch.Size]:
    """Shapes of a model's tensors by name."""
    return {name: value.shape for name, value in model.state_dict().items()}


def tokenizer_rules(tokenizer) -> list:
    """What decides a tokenizer's answers: vocabulary and rules, special tokens, template."""
    rules = tokenizer.backend_tokenizer.to_str() if tokenizer.is_fast else tokenizer.get_vocab()
    return [rules, tokenizer.special_tokens_map, tokenizer.chat_template]


# ------------------------------------------------------------------ the workload


class GivenWorkload(Workload):
    """What any workload is whose models and data come from elsewhere; mixed into one of a kind.

    Attributes:
        source: Where everything came from.
        models: "original" and "retrained" -> weights, or "start" -> weights that both are
            trained from.
        template: The published model as it was opened; every other is made from a copy.
        tokenizer: Of its texts.
        build: Seed -> a fresh model; the bench's global seed is set.
    """

    source: Published
    models: dict[str, dict[str, Tensor]]
    template: nn.Module
    tokenizer: Any
    build: Callable[[object], nn.Module]

    in_prose = False
    published = True
    gates = PUBLISHED

    def __post_init__(self):
        getattr(super(), "__post_init__", lambda: None)()  # not every kind has one
        if "original" in self.models:
            self.fixed = lambda kind: self.models[kind]
            self.no_record = {
                **self.no_record,
                "initial weights": "a published model comes without the weights that its "
                "training started from",
            }

    @property
    def given_config(self) -> dict:
        """What makes the given models' architecture."""
        return self.template.config.to_diff_dict()

    @property
    def given_parts(self) -> list:
        """What of the models decides a row: to be hashed, wherever they lie."""
        config = self.given_config
        for name in ("_name_or_path", "architectures", "transformers_version"):
            config.pop(name, None)
        digests = [[kind, digest(found)] for kind, found in self.models.items()]
        return [self.sizes.dtype, config, tokenizer_rules(self.tokenizer), *digests]

    def named(self):
        """Itself, with its content in its name: sources of one name are told apart by it."""
        self.name += f"-{self.fingerprint[:8]}"
        return self

    @property
    def made_by(self) -> str:
        return f"{self.kind}.published"

    @property
    def about(self) -> dict:
        return {**super().about, "published": self.about_given}

    @property
    def about_given(self) -> dict:
        """Where the models and the data come from."""
        how = (
            "both models are published"
            if self.fixed
            else "original and retrained model are trained here from one published model"
        )
        return {
            **{k: v for k, v in vars(self.source).items() if v},
            "content": self.fingerprint,
            "dtype": self.sizes.dtype,
            "references": how,
        }

    def check_left_out(self, folds: Sequence[int]) -> None:
        """Refuse other folds than those that a published retrained model left out."""
        if self.fixed and tuple(folds) != (1,):
            raise ValueError("the published retrained model left out fold 1 and nothing else")

    def adapted(
        self, function: Callable, chosen: dict[str, Any], by: str
    ) -> tuple[dict[str, Any], str]:
        """Settings with step sizes scaled by the ratio of the base step sizes."""
        full, scaled = {**settings_of(function), **chosen}, dict(chosen)
        share = self.sizes.recipe.lr / profiles.sizes_of("laptop", self.kind).recipe.lr
        if function.__name__ not in STEPS_OF_THEIR_OWN:
            if isinstance(full.get("lr"), float):
                scaled["lr"] = full["lr"] * share
            if full.get("lrs"):
                scaled["lrs"] = tuple(lr * share for lr in full["lrs"])
        return scaled, (
            f"{by}, all on the small model of `{self.kind}`; step sizes scaled by the ratio of "
            "the base step sizes; nothing was tuned on this model"
        )

    # ---- models

    def start_model(self, seed: object) -> nn.Module:
        if "start" not in self.models:
            return self.make_model(seed)
        return self.load(self.models["start"])

    def make_model(self, seed: object) -> nn.Module:
        with global_seed(("init", self.name, seed)):
            return self.build(seed)

    def load(self, state: dict[str, Tensor]) -> nn.Module:
        # Not from a fresh model: to draw billions of weights takes longer than to unlearn.
        model = deepcopy(self.template)
        model.load_state_dict(state)
        return model.eval()
