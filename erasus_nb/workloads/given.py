"""What a run can be given from elsewhere: models and data that others publish."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """Models and data of others, each a hub id or a local folder.

    Args:
        model: A causal language model, a CLIP model or a diffusers pipeline: the original, if
            `retrained` is given; else what original and retrained model are trained from.
        data: MUSE-News, MUSE-Books or TOFU in their authors' layouts;
            "locuslab/TOFU:forget05" is one of TOFU's smaller requests. For a CLIP model or a
            pipeline an image folder with metadata.
        retrained: The original's architecture trained without the forget set.
        tokenizer: Where the tokenizer is, if not beside the model; of a CLIP model also the
            image processor.
    """

    model: str
    data: str
    retrained: str = ""
    tokenizer: str = ""
