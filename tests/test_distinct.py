"""No strategy is a no-op, a fallback or a copy of another: each at home, compared pairwise."""

from __future__ import annotations

import itertools
import json

import pytest
import torch

from erasus_nb import ROOT, cells, score, selection, workloads
from erasus_nb.benchmark import Bench
from erasus_nb.training import same_weights

#: The seed board's strategies, by category.
SEED_BOARD = {
    "gradient": "gradient_ascent negative_gradient fisher_forgetting saliency_unlearning scrub "
    "modality_decoupling",
    "parameter": "lora sparse_aware mask_based neuron_pruning layer_freezing",
    "data": "amnesiac sisa certified_removal knowledge_distillation",
    "llm": "ssd token_masking attention_surgery causal_tracing embedding_alignment",
    "vlm": "attention_unlearning vision_text_split contrastive_unlearning",
    "diffusion": "safe_latents concept_erasure noise_injection timestep_masking unet_surgery",
    "ensemble": "ensemble",
}
#: MultiDelete needs pairs: it is at home with the dual encoder, not with its page's classifier.
ELSEWHERE = {"modality_decoupling": "vlm"}
NAMES = [name for names in SEED_BOARD.values() for name in names.split()]


def home_of(name: str) -> str:
    """The workload that a strategy of the seed board is at home on."""
    page = ELSEWHERE.get(name) or next(
        p for p, names in SEED_BOARD.items() if name in names.split()
    )
    return workloads.home(page)


def test_the_pages_define_the_seed_boards_strategies_and_no_others():
    assert len(NAMES) == len(set(NAMES)) == 29
    for page, names in SEED_BOARD.items():
        assert set(cells.strategies(page)) == set(names.split()), page


def made(bench: Bench, name: str, seed: int):
    """What a strategy makes of one original, at its defaults; the model that is measured."""
    page = next(p for p, names in SEED_BOARD.items() if name in names.split())
    function = cells.strategies(page)[name]
    assert function.facts.form_on(bench.workload, bench.load.provides) == "native", name
    full, _ = bench.full_settings(function)
    return bench.product_of(function, bench.unlearn(function, seed, full)[0])


def fingerprint(bench: Bench, model) -> tuple:
    """Weights of a model, what it answers about the forget set, and what is measured on it."""
    measured, answers = bench.load.measure(model, bench.asked)
    return model.state_dict(), answers, {name: m.value for name, m in measured.items()}


def same(one: tuple, other: tuple) -> bool:
    """Whether two models cannot be told apart: by weights, or else by all that they make."""
    if one[0].keys() == other[0].keys():
        return same_weights(one[0], other[0])
    return torch.equal(one[1], other[1]) and one[2] == other[2]


@pytest.mark.parametrize("workload", sorted({home_of(name) for name in NAMES}))
def test_no_two_strategies_at_home_make_the_same_model(workload, tmp_path):
    bench = Bench(workload, "smoke", (0,), out=None, cache=str(tmp_path))
    original = bench.load.load(bench.originals()[0])
    found = {"original": fingerprint(bench, original)}
    for name in NAMES:
        if home_of(name) == workload:
            found[name] = fingerprint(bench, made(bench, name, 0))
    assert len(found) >= 4
    for (one, a), (other, b) in itertools.combinations(found.items(), 2):
        assert not same(a, b), f"{one} and {other}"


def test_every_strategy_has_a_published_row_at_home():
    boards = score.boards_of(selection.usable(ROOT / "results" / "published", ROOT))
    found = score.at_home(boards, workloads.home)
    assert {name for name, (_, s) in found.items() if s.status == "ok"} == set(NAMES)
    assert all(found[name][0] == home_of(name) and not found[name][1].analogue for name in NAMES)
    # The same from what the command line prints.
    shown = json.loads(score.json_text(*boards.values()))
    assert shown, "no board is printed"


def test_a_copy_is_found_to_be_one():
    bench = Bench("synthetic", "smoke", (0,), out=None, cache="")
    original = bench.load.load(bench.originals()[0])
    again = bench.load.load(bench.originals()[0])
    assert same(fingerprint(bench, original), fingerprint(bench, again))
    with torch.no_grad():
        next(again.parameters()).add_(1e-3)
    assert not same(fingerprint(bench, original), fingerprint(bench, again))
