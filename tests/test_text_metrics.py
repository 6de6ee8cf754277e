"""The language-model metrics: known answers, second opinions, edge cases."""

import math
import random
import re
import unicodedata
import zlib

import pytest
import torch
from rouge_score.rouge_scorer import RougeScorer
from sklearn.metrics import roc_auc_score

from erasus_nb.metrics import (
    auc,
    exact_memorisation,
    extraction_strength,
    min_k,
    min_k_plus_plus,
    privleak,
    rouge_l,
    words,
    zlib_ratio,
)

YES, NO = True, False


def rows(*lists, dtype=torch.bool):
    return torch.tensor(lists, dtype=dtype)


def tokens(n=12, length=15, seed=0):
    """Log-probabilities and a mask of at least one scored token a row."""
    draw = torch.Generator().manual_seed(seed)
    scored = torch.rand(n, length, generator=draw) < 0.7
    scored[:, 0] = True
    return -5 * torch.rand(n, length, generator=draw).double(), scored


# ------------------------------------------------------------------ ROUGE-L


def common(a: list[str], b: list[str]) -> int:
    """Length of the longest common subsequence, by the textbook table."""
    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            best = max(table[i][j + 1], table[i + 1][j])
            table[i + 1][j + 1] = table[i][j] + 1 if x == y else best
    return table[-1][-1]


def test_rouge_of_a_pair_worked_out_by_hand():
    # "the cat sat" has 3 of 4 words of the reference in order, and says 5.
    found = rouge_l("the cat sat down", "the big cat quietly sat")
    assert found == pytest.approx((3 / 5, 3 / 4, 2 * 0.6 * 0.75 / 1.35))


def test_rouge_agrees_with_a_slow_loop():
    draw, words = random.Random(0), ["ant", "bee", "cow", "dog", "eel"]
    for _ in range(200):
        a, b = ([draw.choice(words) for _ in range(draw.randint(1, 12))] for _ in "ab")
        shared = common(a, b)
        p, r = shared / len(b), shared / len(a)
        f = 2 * p * r / (p + r) if shared else 0.0
        assert rouge_l(" ".join(a), " ".join(b)) == pytest.approx((p, r, f))


def test_rouge_does_not_stem_and_silence_scores_nothing():
    assert rouge_l("they opened doors", "they opens door")[2] == pytest.approx(1 / 3)
    assert rouge_l("a b", "") == rouge_l("", "a b") == (0.0, 0.0, 0.0)


OTHER_SCRIPTS = (
    "Её зовут Анна Петрова",
    "她的名字是王小明",
    "カラオケが好きです",
    "그녀의 이름은 안나",
    "اسمُها ليلى",
    "می‌روم به خانه",
    "मलेसिया एक देश है",
    "สวัสดีครับ",
    "Ở đó 12",
    "١٢",
    "½",
    "é",
)


@pytest.mark.parametrize("text", OTHER_SCRIPTS)
def test_rouge_of_a_text_with_itself_is_one_in_any_script(text):
    assert rouge_l(text, text) == (1, 1, 1)
    # Whichever way accents are stored.
    assert rouge_l(text, unicodedata.normalize("NFD", text)) == (1, 1, 1)
    assert rouge_l(text, "12 apples") != (1, 1, 1)


def test_rouge_of_other_scripts_is_not_that_of_a_shared_number():
    # One word of five, and one of two.
    assert rouge_l("Вера живёт в доме 12", "Нет 12") == pytest.approx((1 / 2, 1 / 5, 2 / 7))
    # A language that is Latin for the most part, and two of one text in which it is not all.
    assert rouge_l("Ở đó 12", "Ừ 12")[2] == pytest.approx(2 / 5)
    assert rouge_l("iPhone是苹果的", "iPhone")[1] == 1 / 5


def test_rouge_of_english_is_rouge_scores():
    theirs = RougeScorer(["rougeL"], use_stemmer=False)
    draw = random.Random(1)
    tokens = [
        "Anna's",
        "café",
        "naïve",
        "3.5%",
        "½",
        "don't",
        "(U.S.)",
        "Müller",
        "—",
        "x²",
        "“so”",
    ]
    for _ in range(300):
        a, b = (" ".join(draw.choices(tokens, k=draw.randint(1, 9))) for _ in "ab")
        if re.search("[A-Za-z0-9]", a):
            found = theirs.score(a, b)["rougeL"]
            assert rouge_l(a, b) == (found.precision, found.recall, found.fmeasure)


def test_words_of_scripts_without_spaces_are_characters_with_their_marks():
    assert words("她叫Anna，12岁") == ["她", "叫", "anna", "12", "岁"]
    assert words("ที่นี่ ") == ["ที่", "นี่"]
    assert words("मलेसिया, देश!") == ["मलेसिया", "देश"]
    assert words("?! — …") == []


# ------------------------------------------------------------------ what is extracted


def test_extraction_strength_counts_what_must_be_given():
    right = rows([YES] * 4, [NO, YES, YES, YES], [NO] * 4, [YES, YES, YES, NO])
    found = extraction_strength(right, torch.ones_like(right))
    assert found.tolist() == [1.0, 0.75, 0.0, 0.0]


def test_extraction_strength_agrees_with_trying_every_prefix():
    draw = torch.Generator().manual_seed(1)
    right = torch.rand(60, 9, generator=draw) < 0.8
    _, scored = tokens(60, 9, seed=2)

    def slowly(hits):
        count = len(hits)
        return next(1 - k / count for k in range(count + 1) if all(hits[k:]))

    slow = [slowly(r[s].tolist()) for r, s in zip(right, scored)]
    assert extraction_strength(right, scored).tolist() == pytest.approx(slow)


def test_exact_memorisation_is_the_share_of_right_tokens_that_count():
    right = rows([YES, NO, YES, YES])
    assert exact_memorisation(right, rows([YES, YES, YES, NO])).item() == 2 / 3


# ------------------------------------------------------------------ membership


def test_min_k_takes_the_least_likely_tokens_and_at_least_one():
    log_p = rows([-1.0, -5.0, -2.0, -3.0, -9.0], dtype=torch.float64)
    scored = rows([YES, YES, YES, YES, NO])
    assert min_k(log_p, scored, 0.5).item() == -4.0  # of -5 and -3
    assert min_k(log_p, scored, 0.01).item() == -5.0
    assert min_k(log_p, scored, 1.0).item() == -2.75
    assert min_k(log_p[:, :1], scored[:, :1]).item() == -1.0  # a text of one token


@pytest.mark.parametrize("share", [0.05, 0.2, 0.4, 1.0])
def test_min_k_agrees_with_a_slow_loop(share):
    log_p, scored = tokens()

    def slowly(values):
        lowest = sorted(values)[: max(1, int(share * len(values)))]
        return sum(lowest) / len(lowest)

    slow = [slowly(p[s].tolist()) for p, s in zip(log_p, scored)]
    assert min_k(log_p, scored, share).tolist() == pytest.approx(slow)


def test_min_k_takes_forty_percent_unless_told_otherwise():
    assert torch.equal(min_k(*tokens()), min_k(*tokens(), 0.4))


def test_min_k_plus_plus_agrees_with_a_slow_loop():
    draw = torch.Generator().manual_seed(3)
    logits = 3 * torch.randn(4, 6, 11, generator=draw).double()
    targets = torch.randint(11, (4, 6), generator=draw)
    _, scored = tokens(4, 6)

    def score(place, target):
        p = place.softmax(-1)
        mean = sum(q * math.log(q) for q in p.tolist())
        square = sum(q * math.log(q) ** 2 for q in p.tolist())
        spread = math.sqrt(max(square - mean**2, 1e-6))
        return (math.log(p[target]) - mean) / spread

    for row in range(4):
        each = [score(logits[row, t], targets[row, t]) for t in range(6)]
        each = sorted(x for x, s in zip(each, scored[row]) if s)
        count = max(1, int(0.4 * len(each)))
        found = min_k_plus_plus(logits, targets, scored)[row].item()
        assert found == pytest.approx(sum(each[:count]) / count, rel=1e-6)


def test_min_k_plus_plus_is_finite_where_the_model_is_certain():
    logits = torch.tensor([[[1e4, 0.0, 0.0]] * 3])
    targets, scored = torch.zeros(1, 3, dtype=torch.long), torch.ones(1, 3) > 0
    assert min_k_plus_plus(logits, targets, scored).isfinite().all()


def test_zlib_forgives_what_is_easy_for_everybody():
    log_p, scored = -torch.ones(2, 5).double(), torch.ones(2, 5) > 0
    texts = ["no no no no no no no no no no", "quick zebras vex dim jocks, half by luck"]
    found = zlib_ratio(log_p, scored, texts)
    sizes = [len(zlib.compress(text.encode())) for text in texts]
    assert found.tolist() == pytest.approx([-1 / size for size in sizes])
    assert found[0] < found[1]  # at equal loss the compressible text is less familiar
    with pytest.raises(ValueError, match="text 1 is empty"):
        zlib_ratio(log_p, scored, ["a", ""])
    with pytest.raises(ValueError, match="1 texts for 2 rows"):
        zlib_ratio(log_p, scored, ["a"])


@pytest.mark.parametrize("shift", [-3.0, 0.0, 2.0])
def test_privleak_is_muses_own_with_its_sign(shift):
    draw = torch.Generator().manual_seed(4)
    normal = lambda: torch.randn(200, generator=draw).double()
    forget, holdout, forget_r, holdout_r = (normal() + shift, normal(), normal(), normal())

    def muse(familiar, unfamiliar):
        # Label 1 is the holdout: the AUC is the chance that forget text is harder.
        labels = [0] * len(familiar) + [1] * len(unfamiliar)
        return roc_auc_score(labels, torch.cat([familiar, unfamiliar]))

    ours = privleak(auc(forget, holdout), auc(forget_r, holdout_r))
    reference = muse(forget_r, holdout_r)
    theirs = 100 * (muse(forget, holdout) - reference) / reference
    assert ours == pytest.approx(theirs)
    if shift:
        assert (ours > 0) == (shift < 0)  # stranger than unseen text: over-unlearned


# ------------------------------------------------------------------ padding, bad input


@pytest.mark.parametrize("metric", [min_k, exact_memorisation, extraction_strength])
def test_padding_changes_nothing(metric):
    log_p, scored = tokens()
    values = log_p if metric is min_k else log_p > -1
    pad = lambda x, value: torch.nn.functional.pad(x, (0, 4), value=value)
    padded = metric(pad(values, 0), pad(scored, False))
    assert torch.equal(metric(values, scored), padded)


@pytest.mark.parametrize("metric", [min_k, exact_memorisation, extraction_strength])
def test_a_text_without_tokens_is_named(metric):
    log_p, scored = tokens(3)
    scored[1] = False
    with pytest.raises(ValueError, match="example 1 has no token"):
        metric(log_p > -1 if metric is not min_k else log_p, scored)
    with pytest.raises(ValueError, match="one shape"):
        metric(log_p[:, 1:], scored)


@pytest.mark.parametrize("share", [0.0, -0.1, 1.1])
def test_a_share_of_tokens_lies_between_nothing_and_all(share):
    with pytest.raises(ValueError, match="lies in"):
        min_k(*tokens(), share)
