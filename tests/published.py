"""Tiny published models and data: what the authors' repositories look like, made by tests."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPProcessor,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from erasus_nb.training import global_seed
from erasus_nb.workloads import Published
from erasus_nb.workloads.image_text.captions import tokenizer_of
from erasus_nb.workloads.text.corpus import people


def sentences(count: int, seed: str) -> list[str]:
    """Different news passages about invented people."""
    return [p for one in people(count, 1, 1, 2, seed) for p in one.passages]


def questions(count: int, seed: str) -> list[tuple[str, str, str]]:
    """(question, the same in other words, answer)."""
    found = []
    for one in people(count, 1, 1, 1, seed):
        (ask, answer), (other, _) = (one.questions(seen=True)[0], one.questions(seen=False)[0])
        plain = lambda text: text.removeprefix("Question: ").removesuffix("Answer:").strip()
        found.append((plain(ask), plain(other), answer.strip()))
    return found


def chunks(text: str, count: int) -> list[str]:
    """A text cut into so many parts of equally many words."""
    words = text.split(" ")
    size = -(-len(words) // count)
    return [" ".join(words[k : k + size]) for k in range(0, len(words), size)]


def muse(folder: Path, *, drop: tuple[str, str] | None = None, scal: bool = True) -> Path:
    """Files in the layout of muse-bench/MUSE-News: parquet files and a card that lists them.

    Args:
        drop: (configuration, split) to leave out.
        scal: With the nested and disjoint requests, as News has them and Books has not.
    """
    asked = [sentences(4, f"forget {k}") for k in range(4)]
    retain, holdout = sentences(8, "retain"), sentences(8, "holdout")
    # The authors join articles and cut them anew: a chunk begins in the middle of one.
    told = chunks("\n\n".join(holdout[:4]), 3)
    # What is to be forgotten may stand among the retained texts once more.
    kept = [*retain[:4], asked[0][0], asked[1][0]]
    text = lambda rows: {"text": rows}
    pairs = lambda seed: {
        "question": [q for q, _, _ in questions(4, seed)],
        "answer": [a for _, _, a in questions(4, seed)],
    }
    cut = [p.split(" ", 8) for p in asked[0]]
    layout = {
        "raw": {
            "forget": text(asked[0]),
            "retain1": text(kept),
            "retain2": text(retain[4:]),
            "holdout": text(holdout),
        },
        "verbmem": {
            "forget": {
                "prompt": [" ".join(words[:8]) for words in cut],
                "gt": [words[8] for words in cut],
            }
        },
        "knowmem": {
            "forget_qa": pairs("forget 0"),
            "forget_qa_icl": {k: v[:2] for k, v in pairs("shots").items()},
            "retain_qa": pairs("retain"),
            "retain_qa_icl": {k: v[:2] for k, v in pairs("shots").items()},
        },
        "privleak": {"forget": text(asked[0]), "retain": text(retain[4:]), "holdout": text(told)},
    }
    if scal:
        layout["scal"] = {f"forget_{k}": text(sum(asked[:k], [])) for k in (1, 2, 3, 4)}
        layout["sust"] = {f"forget_{k}": text(asked[k - 1]) for k in (1, 2, 3, 4)}
        layout["train"] = {
            "forget": text(sum(asked, [])),
            "retain1": text(kept),
            "retain2": text(retain[4:]),
        }
    if drop:
        del layout[drop[0]][drop[1]]
    card = []
    for config, splits in layout.items():
        files = []
        for split, columns in splits.items():
            path = folder / config / f"{split}-00000-of-00001.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            pd.DataFrame(columns).to_parquet(path)
            files.append({"split": split, "path": f"{config}/{split}-*"})
        card.append({"config_name": config, "data_files": files})
    return _card(folder, card)


def tofu(folder: Path) -> Path:
    """Files in the layout of locuslab/TOFU: JSON lines, one configuration a file."""
    folder.mkdir(parents=True, exist_ok=True)
    card = []
    for config, count, seed in (
        ("forget10", 6, "forget 0"),
        ("retain90", 12, "retain"),
        ("holdout10", 8, "holdout"),
        ("forget10_perturbed", 6, "forget 0"),
        ("retain_perturbed", 6, "retain"),
    ):
        lines = []
        for ask, other, answer in questions(count, seed):
            line = {"question": ask, "answer": answer}
            if config.endswith("perturbed"):
                line |= {
                    "paraphrased_question": other,
                    "paraphrased_answer": answer,
                    "perturbed_answer": ["someone else"],
                }
            lines.append(json.dumps(line))
        (folder / f"{config}.json").write_text("\n".join(lines), "utf-8")
        card.append({"config_name": config, "data_files": f"{config}.json"})
    return _card(folder, card)


def _card(folder: Path, configs: list[dict]) -> Path:
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump({'configs': configs})}---\n")
    return folder


def byte_pairs(
    texts: list[str], size: int, first: tuple[str, ...] = ("<pad>", "<bos>", "<eos>")
) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of at most `size` tokens, as published models have.

    Args:
        first: The first tokens, in order; the special ones among them.
    """
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    special = dict(pad_token="<pad>", bos_token="<bos>", eos_token="<eos>")
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(first),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    # As Llama's: whoever asks for special tokens gets the one that starts a text.
    start = ("<bos>", bpe.token_to_id("<bos>"))
    bpe.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A $B", special_tokens=[start]
    )
    return PreTrainedTokenizerFast(tokenizer_object=bpe, **special)


def checkpoint(folder: Path, architecture: str = "llama", seed: int = 0, **tokens) -> Path:
    """A tiny model and its tokenizer, saved as published ones are.

    Args:
        tokens: Attributes of the tokenizer to change, e.g. pad_token=None.
    """
    texts = [t for part in ("forget 0", "retain", "holdout") for t in sentences(8, part)]
    words = [t for part in ("forget 0", "retain") for q in questions(8, part) for t in q]
    tokenizer = byte_pairs([*texts, *words, "Question: Answer:"], 700)
    for name, value in tokens.items():
        setattr(tokenizer, name, value)
    size = len(tokenizer) + 4  # published vocabularies are padded, too
    with global_seed("checkpoint", seed):
        if architecture == "gpt2":
            model = GPT2LMHeadModel(
                GPT2Config(
                    vocab_size=size,
                    n_positions=320,
                    n_embd=32,
                    n_layer=2,
                    n_head=2,
                    bos_token_id=1,
                    eos_token_id=2,
                )
            )
        else:
            model = LlamaForCausalLM(
                LlamaConfig(
                    vocab_size=size,
                    hidden_size=32,
                    intermediate_size=64,
                    num_hidden_layers=2,
                    num_attention_heads=4,
                    num_key_value_heads=4,
                    max_position_embeddings=320,
                )
            )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


# ------------------------------------------------------------------ images and captions

#: part -> pairs of a small image folder.
COUNTS = {"forget": 6, "retain": 12, "holdout": 6, "validation": 3, "test": 12}
SHAPES, COLOURS = ("disk", "bar", "cross", "ring"), ("red", "green", "blue", "grey")
PLACES = ("left", "middle", "right")


def picture(shape: str, number: int, side: int = 20) -> Image.Image:
    """A shape in a colour on noise, higher than wide so that a processor has to crop."""
    draw = np.random.default_rng([SHAPES.index(shape), number])
    y, x = np.mgrid[: side + 8, :side] - np.array([side + 8, side])[:, None, None] / 2
    far = np.hypot(x, y)
    inside = {
        "disk": far < 6,
        "bar": abs(y) < 3,
        "cross": (abs(x) < 2) | (abs(y) < 2),
        "ring": (far > 4) & (far < 7),
    }[shape]
    paint = np.array([[220, 60, 60], [60, 200, 60], [60, 60, 220], [150, 150, 150]])[number % 4]
    noise = draw.integers(0, 90, (*inside.shape, 3))
    return Image.fromarray(np.where(inside[..., None], paint, noise).astype("uint8"))


def pairs(concepts: bool = True) -> list[dict[str, str]]:
    """Lines of a metadata file: `file_name`, `text`, `part`, `concept`.

    Args:
        concepts: Disks are to be forgotten, and are marked; else pairs of any shape are, and
            no shape is marked.
    """
    lines = []
    for part, count in COUNTS.items():
        for k in range(count):
            gone = part in ("forget", "holdout", "validation")
            shape = ("disk" if gone else SHAPES[1 + k % 3]) if concepts else SHAPES[k % 4]
            number = len(lines)
            text = f"a {COLOURS[number % 4]} {shape} at the {PLACES[k % 3]} , number {number}"
            # A file or folder called after a part would be a split to `datasets`.
            line = {"file_name": f"images/{number}.png", "text": text, "part": part}
            lines.append({**line, **({"concept": shape} if concepts else {})})
    return lines


def image_folder(
    folder: Path, lines: Sequence[dict[str, str]] | None = None, kind: str = "csv"
) -> Path:
    """Images and a metadata file, laid out as Hugging Face's `imagefolder` reads them.

    Args:
        lines: Of the metadata file; by default `pairs()`.
        kind: Of the metadata file: "csv" or "jsonl".
    """
    lines = pairs() if lines is None else lines
    for line in lines:
        path, words = folder / line["file_name"], line["text"].split()
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(next(word for word in words if word in SHAPES), int(words[-1])).save(path)
    write_metadata(folder, lines, kind)
    return folder


def write_metadata(folder: Path, lines: Sequence[dict], kind: str = "csv") -> None:
    """Write the metadata file of an image folder; `kind` is "csv" or "jsonl"."""
    with (folder / f"metadata.{kind}").open("w", encoding="utf-8", newline="") as file:
        if kind == "csv":
            writer = csv.DictWriter(file, list(lines[0]))
            writer.writeheader()
            writer.writerows(lines)
        else:
            file.writelines(json.dumps(line) + "\n" for line in lines)


def clip_model(words: int, seed: int = 0, **text) -> CLIPModel:
    """A tiny CLIP model for RGB images of 16 x 16.

    Args:
        words: Size of its vocabulary, whose last token ends captions.
        text: Further settings of the text tower.
    """
    tower = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2)
    ids = dict(pad_token_id=0, bos_token_id=1, eos_token_id=words - 1)
    config = CLIPConfig(
        text_config={**tower, **ids, "vocab_size": words, "max_position_embeddings": 16, **text},
        vision_config={**tower, "image_size": 16, "patch_size": 8},
        projection_dim=8,
    )
    with global_seed("clip", seed):
        return CLIPModel(config)


def clip_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer of everything that `pairs` and CLIP's prompt say."""
    said = [line["text"] for concepts in (True, False) for line in pairs(concepts)]
    return tokenizer_of([*said, *(f"a photo of a {shape}." for shape in SHAPES)])


def clip_processor(**settings) -> CLIPImageProcessorPil:
    """What makes 16 x 16 pixels of any image."""
    usual = {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}}
    return CLIPImageProcessorPil(**usual | settings)


def clip_checkpoint(folder: Path, seed: int = 0, **text) -> Path:
    """A tiny CLIP model with its processor and tokenizer, saved as published ones are."""
    tokenizer = clip_tokenizer()
    clip_model(len(tokenizer), seed, **text).save_pretrained(folder)
    CLIPProcessor(clip_processor(), tokenizer).save_pretrained(folder)
    return folder


def given(folder, data: str, model: str, retrained: str, tokenizer: str) -> Published:
    """What a run is given of the sources in `folder`; "" is none."""
    there = lambda name: str(folder / name) if name else ""
    return Published(*map(there, (model, data, retrained, tokenizer)))
