"""What a workload has to meet before its board means anything, declared as plain data.

A workload puts one of these lists, or one of its own, under `gates` into the facts of its
documents, so a row's file says itself what its workload was held to. score.py knows how each
measure is computed and in which unit its bound is.

A gate is a dictionary of `measure` (a key of `score.MEASURES`), `sign` (">=" or "<=") and
`bound`. Two keys are optional: with `request` the gate is asked of this kind of request only,
with `row` only where a row of this name was measured.
"""

from __future__ import annotations

# The score must put retrained, original and a fresh network where they belong.
_SCORE = (
    {"measure": "RM retrained", "sign": ">=", "bound": 90},
    {"measure": "RM original", "sign": "<=", "bound": 5},
    {"measure": "RM random_init", "sign": "<=", "bound": 10, "row": "random_init"},
)

#: A request that is selected by memorisation names no concept, so its C2 has no gate.
CLASSIFIER = [
    {"measure": "C1 original", "sign": ">=", "bound": 0.9},
    {"measure": "C1 retrained", "sign": "<=", "bound": 0.15},
    {"measure": "C2 gap", "sign": ">=", "bound": 0.5, "request": "standard"},
    {"measure": "AUC gap", "sign": ">=", "bound": 0.15},
    {"measure": "D original / D retrained", "sign": ">=", "bound": 5},
    *_SCORE,
]

#: What a text shares with texts that nobody trained on is no memory of it. And two models that
#: were never shown a text differ at every word of it, so their own divergence is large whatever
#: the noise; what ranking needs is a gap that training seeds do not blur.
LANGUAGE_MODEL = [
    {"measure": "C1 original", "sign": ">=", "bound": 0.9},
    {"measure": "C1 retrained over holdout", "sign": "<=", "bound": 0.05},
    {"measure": "C2 gap", "sign": ">=", "bound": 0.5, "request": "standard"},
    {"measure": "AUC gap", "sign": ">=", "bound": 0.15},
    {"measure": "D gap / its spread over seeds", "sign": ">=", "bound": 5},
    *_SCORE,
]

#: As of a language model: a caption that describes its scan is found among all by who never saw
#: the pair, too. A concept is known from any image of it, trained on or not, so a request for one
#: cannot ask that membership shows.
DUAL_ENCODER = [
    {"measure": "C1 original", "sign": ">=", "bound": 0.9},
    {"measure": "C1 retrained over holdout", "sign": "<=", "bound": 0.05},
    {"measure": "C2 gap", "sign": ">=", "bound": 0.5},
    {"measure": "AUC gap", "sign": ">=", "bound": 0.15, "request": "standard"},
    {"measure": "D gap / its spread over seeds", "sign": ">=", "bound": 5},
    *_SCORE,
]

#: A judge has to recognise what the original makes, and not what the retrained model makes. Only
#: images that were trained on many times over are memorised; a concept shows no membership. Two
#: models that never saw an image predict its noise differently, as with language models.
DENOISER = [
    {"measure": "C1 original", "sign": ">=", "bound": 0.9, "request": "standard"},
    {"measure": "C1 retrained", "sign": "<=", "bound": 0.15, "request": "standard"},
    {"measure": "C2 original", "sign": ">=", "bound": 0.95, "request": "standard"},
    {"measure": "C2 retrained", "sign": "<=", "bound": 0.1, "request": "standard"},
    {"measure": "AUC gap", "sign": ">=", "bound": 0.15, "request": "standard"},
    {"measure": "D gap / its spread over seeds", "sign": ">=", "bound": 5},
    *_SCORE,
]

#: Others' models recite and answer less than ours; what can be ranked is a difference.
PUBLISHED = [
    {"measure": "C1 gap", "sign": ">=", "bound": 0.2},
    {"measure": "C1 retrained over holdout", "sign": "<=", "bound": 0.05},
    {"measure": "C2 gap", "sign": ">=", "bound": 0.1, "request": "standard"},
    {"measure": "AUC gap", "sign": ">=", "bound": 0.15},
    {"measure": "D gap / its spread over seeds", "sign": ">=", "bound": 5},
    *_SCORE,
]

#: The same of pairs. Only a concept is known from images that nobody trained on.
PUBLISHED_PAIRS = [
    {"measure": "C1 gap", "sign": ">=", "bound": 0.2},
    {"measure": "C1 retrained over holdout", "sign": "<=", "bound": 0.05},
    {"measure": "C2 gap", "sign": ">=", "bound": 0.1, "request": "concept"},
    {"measure": "AUC gap", "sign": ">=", "bound": 0.15, "request": "standard"},
    {"measure": "D gap / its spread over seeds", "sign": ">=", "bound": 5},
    *_SCORE,
]

#: The same of a pipeline and images. A concept shows no membership; single images show no concept.
PUBLISHED_IMAGES = [
    {"measure": "C1 gap", "sign": ">=", "bound": 0.2, "request": "standard"},
    {"measure": "C1 gap", "sign": ">=", "bound": 0.2, "request": "memorised"},
    {"measure": "C2 gap", "sign": ">=", "bound": 0.1, "request": "standard"},
    {"measure": "C2 gap", "sign": ">=", "bound": 0.1, "request": "concept"},
    {"measure": "AUC gap", "sign": ">=", "bound": 0.15, "request": "standard"},
    {"measure": "AUC gap", "sign": ">=", "bound": 0.15, "request": "memorised"},
    {"measure": "D gap / its spread over seeds", "sign": ">=", "bound": 5},
    *_SCORE,
]
