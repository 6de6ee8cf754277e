"""Pairs of a real scan and a caption: what `image_text` is made of.

The scans are scikit-learn's handwritten digits. A caption says what was measured on the scan
(its ink, and one of slant, width, height and side) and who wrote it. The writers are invented
and drawn at random, so nothing on the scan tells them: they can only be memorised.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import tokenizers
import torch
from sklearn.datasets import load_digits
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from ...training import generator

DIGITS = tuple("zero one two three four five six seven eight nine".split())

#: Five words for each measured quantity, one for each fifth of the scans.
WORDS = {
    "ink": tuple("faint thin plain bold heavy".split()),
    "slant": tuple("leaning-left tilted-left upright tilted-right leaning-right".split()),
    "width": tuple("narrow slim regular broad wide".split()),
    "height": tuple("top-heavy high level low bottom-heavy".split()),
    "side": tuple("far-left left centred right far-right".split()),
}
_ONSETS, _VOWELS = "b br d f g h j k l m n p r s t v z".split(), "a e i o u".split()
_CODAS = "l n r s th x".split()

PAD, BOS, UNK, EOS = "<pad>", "<bos>", "<unk>", "<eos>"
#: Shortened captions of each pair, beside the full one.
SHORTENED = 8


class Scan(NamedTuple):
    """One scan and what is said about it.

    Args:
        digit: 0 to 9.
        words: Quantity -> the word for it.
        second: The quantity besides ink that the full caption names.
        writer: Number of its invented writer.
    """

    digit: int
    words: dict[str, str]
    second: str
    writer: int


def measured(image: np.ndarray) -> dict[str, float]:
    """Ink, slant, width, height and side of an 8x8 scan, from the moments of its ink."""
    y, x = np.mgrid[0:8, 0:8].astype(float)
    ink = image.sum() + 1e-9
    mean = lambda values: float((image * values).sum() / ink)
    cx, cy = mean(x), mean(y)
    slant = -mean((x - cx) * (y - cy)) / (mean((y - cy) ** 2) + 1e-9)
    return {
        "ink": float(ink),
        "slant": slant,
        "width": mean((x - cx) ** 2),
        "height": cy,
        "side": cx,
    }


def words_of(images: np.ndarray) -> list[dict[str, str]]:
    """The words for each scan, (n, 8, 8): every word fits a fifth of the scans."""
    values = [measured(image) for image in images]
    cuts = {name: np.quantile([v[name] for v in values], (0.2, 0.4, 0.6, 0.8)) for name in WORDS}
    return [
        {name: WORDS[name][int(np.searchsorted(cuts[name], v[name]))] for name in WORDS}
        for v in values
    ]


def names(count: int, parts: int, draw: torch.Generator) -> list[str]:
    """Names of invented writers: pairs of words, each of which several writers share.

    In random order: in the order of the alphabet, neighbours would share a word, and so
    would those whom a request names together.

    Args:
        count: How many, at most parts squared.
        parts: How many words there are for the first and for the second name.

    Raises:
        ValueError: more writers than names.
    """
    if count > parts * parts:
        raise ValueError(f"{parts} first and {parts} second names are too few for {count} writers")
    pick = lambda pool: pool[int(torch.randint(len(pool), (), generator=draw))]
    word = lambda: "".join(map(pick, (_ONSETS, _VOWELS, _ONSETS, _VOWELS, _CODAS)))
    words: list[str] = []
    while len(words) < 2 * parts:
        new = word()
        if new not in words:
            words.append(new)
    pairs = torch.randperm(parts * parts, generator=draw)[:count].tolist()
    return [f"{words[k // parts]} {words[parts + k % parts]}" for k in pairs]


def caption(scan: Scan, name: str | None) -> str:
    """The full caption; without its last part where no writer is named."""
    said = f"a {scan.words['ink']} {DIGITS[scan.digit]} , {scan.words[scan.second]}"
    return said if name is None else f"{said} , {by(name)}"


def by(name: str) -> str:
    """The part of a caption that names the writer."""
    return f"written by {name}"


def zero_shot(digit: int) -> str:
    """The caption that asks for a digit and nothing else."""
    return f"a {DIGITS[digit]}"


def shortened(scan: Scan, name: str, draw: torch.Generator) -> str:
    """A random shortening of the full caption, as training sees them.

    Without them a model reads whole captions only: asked with "a seven", it recognised half
    of the unseen sevens, and nearly all of them with.
    """
    digit, (kind, first, second) = zero_shot(scan.digit), torch.rand(3, generator=draw).tolist()
    if kind < 0.5:
        return by(name)
    if kind < 0.7:
        return f"{digit} , {by(name)}"
    if kind < 0.85:
        return digit
    some = list(scan.words.values())
    one = some.pop(int(first * len(some)))
    return f"{digit} , {one} , {some[int(second * len(some))]}"


def tokenizer_of(texts: Sequence[str]) -> PreTrainedTokenizerFast:
    """A tokenizer whose tokens are words; `<eos>` is the last one, as in CLIP's vocabulary.

    Args:
        texts: Everything that is ever said, the holdout's captions included: the vocabulary
            is no channel through which membership leaks.
    """
    known = sorted({word for text in texts for word in text.split()})
    ids = {word: k for k, word in enumerate((PAD, BOS, UNK, *known, EOS))}
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel(ids, unk_token=UNK))
    words.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    words.post_processor = tokenizers.processors.TemplateProcessing(
        single=f"{BOS} $A {EOS}", special_tokens=[(BOS, ids[BOS]), (EOS, ids[EOS])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token=PAD, bos_token=BOS, eos_token=EOS, unk_token=UNK
    )


@dataclass(frozen=True)
class Corpus:
    """Every pair there is.

    Args:
        pixels: (n, 1, 8, 8), mean 0 and standard deviation 1 over all scans.
        scans: What is said about each.
        names: Of all writers.
        texts: Of each pair the full caption, then SHORTENED shorter ones.
    """

    pixels: Tensor
    scans: tuple[Scan, ...]
    names: tuple[str, ...]
    texts: tuple[tuple[str, ...], ...]


def corpus(each: int, parts: int) -> Corpus:
    """All scans in random order, with their writers and captions.

    Args:
        each: Scans of a writer; writer k has the scans from k * each on.
        parts: Words for a first and for a second name.
    """
    digits, draw = load_digits(), generator("image_text", "data")
    order = torch.randperm(len(digits.target), generator=draw).tolist()
    images = digits.images[order] / 16.0
    said = words_of(images)
    called = names(-(-len(order) // each), parts, draw)
    others = [name for name in WORDS if name != "ink"]
    scans, texts = [], []
    for place, (old, words) in enumerate(zip(order, said)):
        second = others[int(torch.randint(len(others), (), generator=draw))]
        scan = Scan(int(digits.target[old]), words, second, place // each)
        name = called[scan.writer]
        short = [shortened(scan, name, draw) for _ in range(SHORTENED)]
        scans.append(scan)
        texts.append((caption(scan, name), *short))
    pixels = torch.tensor(images, dtype=torch.float32)[:, None]
    pixels = (pixels - pixels.mean()) / pixels.std()
    return Corpus(pixels, tuple(scans), tuple(called), tuple(texts))
