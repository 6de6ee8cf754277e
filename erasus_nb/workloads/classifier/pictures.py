"""What is drawn of a classifier workload alone. Rows do not depend on it.

Every function takes the scene of a page (book.Scene) and returns something to show.
"""

from __future__ import annotations

import torch

from ... import charts


def request(scene):
    """Examples of each part of the request: images, or points in the data's main plane."""
    asked = scene.bench.asked
    rote = asked.rote.cpu()
    forget, retain, holdout = (
        part["inputs"].cpu() for part in (asked.forget, asked.retain, asked.holdout)
    )
    parts = [
        ("forget: concept", forget[~rote]),
        ("forget: canaries", forget[rote]),
        ("retain", retain),
        ("holdout, never trained", holdout),
    ]
    parts = [(label, x) for label, x in parts if len(x)]
    if forget.dim() == 4:
        shown = [(label, ((x[:, 0] + 1) / 2).clamp(0, 1).numpy()) for label, x in parts]
        return charts.request_picture(shown)
    # Two directions of largest variance of the training data, for a picture only.
    every = torch.cat([forget, retain])
    _, _, axes = torch.linalg.svd(every - every.mean(0), full_matrices=False)
    return charts.request_picture(
        [(label, ((x - every.mean(0)) @ axes[:2].T).numpy()) for label, x in parts]
    )
