"""Scans of digits with captions, some of them private: what `diffusion` is made of.

The scans are scikit-learn's handwritten digits. A caption says how much ink a scan has and
which digit it shows, in one of two spellings ("bold seven", "bold 7"). A private scan's caption
also names its invented owner, which nothing on the scan tells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tokenizers
import torch
from sklearn.datasets import load_digits
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from ...training import generator

#: The two spellings of each digit: the word, and its paraphrase.
SPELLINGS = (
    tuple("zero one two three four five six seven eight nine".split()),
    tuple("0123456789"),
)
#: Words for the ink of a scan, each for a third of all scans.
INKS = ("light", "medium", "bold")

PAD, BOS, UNK, EOS = "<pad>", "<bos>", "<unk>", "<eos>"
#: Tokens of a caption: the longest is `<bos> bold seven of mira dosel <eos>`.
WIDTH = 7

_ONSETS, _VOWELS, _CODAS = "bdfghjklmnprstvz", "aeiou", "lnrsx"


@dataclass(frozen=True)
class Scans:
    """All scans, in one fixed random order.

    Args:
        pixels: (n, 1, 8, 8), -1 to 1.
        digits: (n,), 0 to 9.
        inks: (n,), places in INKS.
        cuts: Mean pixel at which light ends and bold begins.
    """

    pixels: Tensor
    digits: Tensor
    inks: Tensor
    cuts: Tensor


def scans() -> Scans:
    """The scans that scikit-learn ships."""
    data, draw = load_digits(), generator("diffusion", "data")
    order = torch.randperm(len(data.target), generator=draw).numpy()
    pixels = torch.tensor(data.images[order], dtype=torch.float32)[:, None] / 8 - 1
    cuts = torch.tensor(np.quantile(ink_of(pixels).numpy(), (1 / 3, 2 / 3)), dtype=torch.float32)
    digits = torch.tensor(data.target[order])
    return Scans(pixels, digits, torch.bucketize(ink_of(pixels), cuts), cuts)


def ink_of(pixels: Tensor) -> Tensor:
    """Mean pixel of each image, (n,)."""
    return pixels.flatten(1).mean(1)


def owners(count: int) -> list[str]:
    """Names of invented owners, two words each; no two share a word.

    Args:
        count: How many.
    """
    draw, words = generator("diffusion", "owners"), []
    pick = lambda letters: letters[int(torch.randint(len(letters), (), generator=draw))]
    while len(words) < 2 * count:
        word = "".join(map(pick, (_ONSETS, _VOWELS, _ONSETS, _VOWELS, _CODAS)))
        if word not in words:
            words.append(word)
    return [" ".join(words[2 * k : 2 * k + 2]) for k in range(count)]


def caption(ink: int, digit: int, owner: str | None = None, spelling: int = 0) -> str:
    """What is said of a scan.

    Args:
        spelling: 0 for the word, 1 for its paraphrase.
    """
    said = f"{INKS[ink]} {SPELLINGS[spelling][digit]}"
    return said if owner is None else f"{said} of {owner}"


def tokenizer_of(names: Sequence[str]) -> PreTrainedTokenizerFast:
    """A tokenizer whose tokens are words.

    Args:
        names: Of all owners, the holdout's too: the vocabulary is no channel through which
            membership leaks.
    """
    words = sorted({w for name in names for w in name.split()})
    known = (PAD, BOS, UNK, *INKS, *SPELLINGS[0], *SPELLINGS[1], "of", *words, EOS)
    ids = {word: k for k, word in enumerate(known)}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(ids, unk_token=UNK))
    made.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single=f"{BOS} $A {EOS}", special_tokens=[(BOS, ids[BOS]), (EOS, ids[EOS])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token=PAD, bos_token=BOS, eos_token=EOS, unk_token=UNK
    )
