"""Pure functions from predictions to numbers; no strategy or workload is known here.

Tensors are used through their methods, so that reading rows (score.py) does not load
torch.
"""

from __future__ import annotations

import math
import re
import unicodedata
import zlib
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

if TYPE_CHECKING:
    from torch import Tensor


def js_divergence(p: Tensor, q: Tensor) -> Tensor:
    """Jensen-Shannon divergence between matching rows of two sets of predictions.

    How far one model's answer is from another's, example by example. 0 means the same
    answer; ln 2 (0.693) means no class in common.

    Args:
        p: Class probabilities, shape (n_examples, n_classes); each row sums to 1.
        q: The same for the other model, in the same order of examples.

    Returns:
        Divergence in nats, shape (n_examples,), double precision. The caller decides
        how to average.

    Raises:
        ValueError: the shapes differ, or rows do not sum to 1 (logits by mistake).

    Source: Lin (1991), IEEE Trans. Inf. Theory 37(1), with equal weights.
    Differs: summed over classes. Several unlearning codebases average over classes,
        which makes the number shrink as classes are added.
    """
    if p.shape != q.shape:
        raise ValueError(f"rows must match: p is {tuple(p.shape)}, q is {tuple(q.shape)}")
    p, q = p.double(), q.double()
    for name, x in (("p", p), ("q", q)):
        off = (x.sum(dim=-1) - 1).abs()
        if not ((x >= 0).all() and (off < 1e-4).all()):
            raise ValueError(
                f"{name} must hold probabilities; its rows do not sum to 1, or some are negative"
            )

    middle = (p + q) / 2  # (n_examples, n_classes)
    # xlogy(0, 0) is 0: a class that neither model predicts adds nothing.
    apart = (p.xlogy(p) + q.xlogy(q)) / 2 - middle.xlogy(middle)
    # Rounding can leave -1e-17 for nearly equal rows; a divergence is never negative.
    return apart.sum(dim=-1).clamp(min=0.0)


def auc(members: ArrayLike | Tensor, non_members: ArrayLike | Tensor) -> float:
    """How well a score tells members from non-members: P(member's score is higher).

    0.5 cannot tell, 1 exposes every member, below 0.5 members look *less* familiar than
    examples the model never saw. A tie counts one half.

    Args:
        members: Scores of the examples in question, shape (n,); high = "trained on it".
        non_members: Scores of examples that no model saw, shape (m,).

    Returns:
        The area under the ROC curve, in [0, 1]; NaN if any score is NaN.

    Raises:
        ValueError: one of the two groups is empty.

    Source: Hanley and McNeil (1982): the area is the Mann-Whitney statistic.
    """
    members, non_members = _array(members), np.sort(_array(non_members))
    if not len(members) or not len(non_members):
        raise ValueError("an AUC needs at least one member and one non-member")
    if np.isnan(members).any() or np.isnan(non_members).any():
        return math.nan
    below = np.searchsorted(non_members, members, side="left")
    not_above = np.searchsorted(non_members, members, side="right")
    return float((below + not_above).mean() / (2 * len(non_members)))


def tpr_at_fpr(members: ArrayLike | Tensor, non_members: ArrayLike | Tensor, fpr: float) -> float:
    """Share of members found by the lowest threshold that calls at most `fpr` of the others one.

    Args:
        members, non_members: Scores, higher where membership is more likely; not empty.
        fpr: Largest share of false positives, 0 to 1.

    Raises:
        ValueError: either is empty, or `fpr` is not a share.

    Source: Carlini et al. (2022), arXiv 2112.03570, section III.
    """
    members, non_members = _array(members), _array(non_members)
    if not len(members) or not len(non_members):
        raise ValueError("a rate needs members and non-members")
    if not 0 <= fpr <= 1:
        raise ValueError(f"a share lies between 0 and 1, got {fpr}")
    allowed = int(fpr * len(non_members) + 1e-9)  # a product may be just below a whole number
    # Strictly above the first score that may not be called a member.
    highest = np.sort(non_members)[::-1]
    threshold = highest[allowed] if allowed < len(highest) else -np.inf
    return float((members > threshold).mean())


def _array(x: ArrayLike | Tensor) -> np.ndarray:
    """A flat double array, also of a tensor on another device."""
    return np.asarray(x.detach().cpu() if hasattr(x, "detach") else x, float).ravel()


def privleak(auc_unlearned: float, auc_retrained: float) -> float:
    """MUSE's privacy leakage, in percent, with MUSE's sign.

    0 is like retraining; negative is under-unlearned (the forget set still looks
    familiar), positive is over-unlearned (it looks stranger than unseen examples).

    Args:
        auc_unlearned: Our `auc` of the unlearned model, P(forget scores as more
            familiar). MUSE's AUC is P(forget is *harder*), one minus ours; it is turned
            here.
        auc_retrained: The same of the retrained model.

    Raises:
        ValueError: an AUC outside [0, 1], or a retrained model that exposes every
            member (the percentage would be of nothing).

    Source: Shi et al. (2024), MUSE, arXiv 2407.06460, criterion 3.
    """
    for value in (auc_unlearned, auc_retrained):
        if not 0 <= value <= 1:
            raise ValueError(f"an AUC is between 0 and 1, got {value}")
    if auc_retrained == 1:
        raise ValueError("PrivLeak is a share of 1 - AUC of the retrained model, 0 here")
    return 100 * (auc_retrained - auc_unlearned) / (1 - auc_retrained)


def tug_of_war(
    unlearned: tuple[float, float, float], retrained: tuple[float, float, float]
) -> float:
    """Tug-of-war: 1 if forget, retain and test accuracy are all the retrained model's.

    Blind to privacy, and generous to a model that does nothing wherever the retrained
    model gets the forget set right too; printed beside the score for readers who know
    it.

    Args:
        unlearned: Accuracies on the forget set, the retain set and unseen examples, 0
            to 1.
        retrained: The same three of the retrained model of the same seed.

    Source: Zhao et al. (2024), "What makes unlearning hard", arXiv 2406.01257.
    """
    return math.prod(1 - abs(u - r) for u, r in zip(unlearned, retrained, strict=True))


def logit_scaled_confidence(logits: Tensor, labels: Tensor) -> Tensor:
    """log p(label) - log p(any other class): a confidence that is roughly Gaussian.

    Computed from logits, so that a confidence of 1 - 1e-30 stays finite.

    Args:
        logits: Shape (..., n_examples, n_classes).
        labels: Shape (n_examples,); the same for every leading index of `logits`.

    Returns:
        Shape (..., n_examples), nats.

    Source: Carlini et al. (2022), LiRA, arXiv 2112.03570, section IV.
    """
    index = labels.expand(logits.shape[:-1]).unsqueeze(-1)
    own = logits.gather(-1, index).squeeze(-1)
    return own - logits.scatter(-1, index, -math.inf).logsumexp(-1)


def lira_lite(confidence: Tensor, member: Tensor, target: Tensor) -> Tensor:
    """Likelihood ratio of "trained on it" to "never saw it", example by example.

    For each example, one Gaussian over the shadow models that trained on it and one
    over those that did not; each side has its own spread, pooled over all examples
    because few shadow models cannot estimate one per example.

    Args:
        confidence: Logit-scaled confidence of the shadow models, shape (K, n).
        member: Which shadow trained on which example, shape (K, n), bool.
        target: Logit-scaled confidence of the model under attack, shape (n,).

    Returns:
        Log likelihood ratio, shape (n,); high = looks trained on.

    Raises:
        ValueError: the shapes differ; an example is in every shadow or in none; or the
            shadows do not vary.

    Source: Carlini et al. (2022), LiRA, arXiv 2112.03570, online attack, pooled
        variance.
    """
    _check_shadows(confidence, member)
    if target.shape != confidence.shape[1:]:
        raise ValueError(f"{tuple(target.shape)} targets for {confidence.shape[1]} examples")
    confidence, target = confidence.double(), target.double()

    def log_density(inside: Tensor) -> Tensor:  # (n,), up to the same constant
        mean = _mean_where(confidence, inside)
        spread = ((confidence - mean) ** 2 * inside).sum() / inside.sum()
        if spread == 0:
            raise ValueError("the shadow models all give the same confidence")
        return -0.5 * (spread.log() + (target - mean) ** 2 / spread)

    return log_density(member) - log_density(~member)


def memorisation_scores(right: Tensor, member: Tensor) -> Tensor:
    """How much each example is known only by rote: accuracy when in minus when out.

    Args:
        right: Whether each shadow model predicts each example's label, shape (K, n),
            bool.
        member: Which shadow trained on which example, shape (K, n), bool.

    Returns:
        Shape (n,), in [-1, 1]: 1 = right only for those that trained on it.

    Raises:
        ValueError: the shapes differ, or an example is in every shadow or in none.

    Source: Feldman and Zhang (2020), arXiv 2008.03703, equation 1, over shared subsets.
    """
    _check_shadows(right, member)
    right = right.double()
    return _mean_where(right, member) - _mean_where(right, ~member)


def _mean_where(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over dimension 0 of the entries that `mask` selects, shape (n,)."""
    return (values * mask).sum(0) / mask.sum(0)


def _check_shadows(values: Tensor, member: Tensor) -> None:
    if values.shape != member.shape or values.ndim != 2:
        raise ValueError(
            "shadow values and membership must have one shape (K, n), got "
            f"{tuple(values.shape)} and {tuple(member.shape)}"
        )
    count = member.sum(0)
    stuck = ((count == 0) | (count == len(member))).nonzero().flatten().tolist()
    if stuck:
        raise ValueError(
            f"{len(stuck)} examples (first: {stuck[0]}) are in every shadow model's "
            "training data or in none's; there is nothing to compare"
        )


# ------------------------------------------------------------------ language models
#
# `scored` says which positions of padded rows count; every row needs one.


def rouge_l(reference: str, text: str) -> tuple[float, float, float]:
    """ROUGE-L of a text: the longest common subsequence of words, without stemming.

    Words are rouge-score's, runs of a to z and 0 to 9, unless those leave out a whole word
    of the reference, as in Russian, Chinese or Hindi. Then both texts are cut by `words`.

    Args:
        reference: What should have been said.
        text: What was said; an empty one scores 0, so a model that fell silent looks
            like one that forgot.

    Returns:
        Precision, recall and F1, each 0 to 1.

    Source: Lin (2004), ROUGE; the numbers of Google's rouge-score, as in MUSE.
    Differs: rouge-score finds no word in a text without Latin letters, so that it scores 0
        against itself, and two such texts that share a number score 1.
    """
    found = _rouge(_left_out(reference)).score(reference, text)["rougeL"]
    return float(found.precision), float(found.recall), float(found.fmeasure)


#: Scripts written without spaces between words: Thai and Lao, Tibetan, Burmese, Khmer, kana,
#: and Chinese characters.
SPACELESS = (
    "\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3041-\u30ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
)
_SPACELESS = re.compile(f"[{SPACELESS}]")
#: Joiners and soft hyphens stand inside a word and are not seen.
_UNSEEN = str.maketrans("", "", "\u00ad\u200c\u200d")


def words(text: str) -> list[str]:
    """The words of a text in any script, in lower case.

    A word is a run of letters, numbers and the marks on them. Of a script that puts no
    spaces between its words, each character with its marks is one.
    """
    found, before = [], ""
    for char in unicodedata.normalize("NFC", text.translate(_UNSEEN)).lower():
        kind = unicodedata.category(char)[0]
        if kind not in "LMN":
            before = ""
            continue
        now = "alone" if _SPACELESS.match(char) else "in a word"
        if before and (kind == "M" or before == now == "in a word"):
            found[-1] += char
        else:
            found.append(char)
            before = now
    return found


def _left_out(reference: str) -> bool:
    """Whether rouge-score would see nothing of some word; signs such as ½ or ² are none."""
    if reference.isascii():
        return False
    found = words(reference)
    unseen = [word for word in found if not re.search("[a-z0-9]", word)]
    spoken = lambda word: any(c.isalpha() or c.isdecimal() for c in word)
    return len(unseen) == len(found) or any(map(spoken, unseen))


class _AnyScript:
    """`words` under the name that rouge-score asks for."""

    tokenize = staticmethod(words)


@cache
def _rouge(any_script: bool):
    from rouge_score.rouge_scorer import RougeScorer  # loads nltk: only when needed

    tokenizer = _AnyScript() if any_script else None
    return RougeScorer(["rougeL"], use_stemmer=False, tokenizer=tokenizer)


def exact_memorisation(right: Tensor, scored: Tensor) -> Tensor:
    """Share of tokens that the model predicts exactly, given all true ones before.

    Args:
        right: Whether the likeliest token is the true one, shape (B, T), bool.
        scored: Which positions count, shape (B, T), bool.

    Returns:
        Shape (B,), double, 0 to 1.

    Raises:
        ValueError: the shapes differ, or an example has no scored token.

    Source: Tirumala et al. (2022), arXiv 2205.10770.
    """
    _check_tokens(scored, right)
    return (right & scored).sum(-1).double() / scored.sum(-1)


def extraction_strength(right: Tensor, scored: Tensor) -> Tensor:
    """How little of a text must be given for the model to complete all the rest.

    1 - k / L, with L scored tokens and k the shortest prefix of them after which every
    likeliest token is the true one. 1: all of it comes unprompted; 0: not even the last.

    Args and Raises: as for `exact_memorisation`.

    Returns:
        Shape (B,), double, 0 to 1.

    Source: Carlini et al. (2021), arXiv 2012.07805, as in open-unlearning.
    Differs: open-unlearning never tries the whole text as prefix, so its lowest value
        is 1 / L; ours is 0.
    """
    _check_tokens(scored, right)
    # Scored tokens right from here to the end: no scored token is wrong at or after.
    wrong_later = (~right & scored).flip(-1).cumsum(-1).flip(-1) > 0
    return (scored & ~wrong_later).sum(-1).double() / scored.sum(-1)


def min_k(log_p: Tensor, scored: Tensor, share: float = 0.4) -> Tensor:
    """Min-K% Prob: mean log-probability of a text's least likely tokens.

    Texts that were trained on have few tokens that surprise, so higher means more
    familiar, as `auc` has it.

    Args:
        log_p: Log-probability of each true token, shape (B, T), nats.
        scored: Which positions count, shape (B, T), bool.
        share: Share of tokens taken, lowest first, in (0, 1]; at least one is.

    Returns:
        Shape (B,), nats.

    Raises:
        ValueError: the shapes differ, an example has no scored token, or `share` is
            outside (0, 1].

    Source: Shi et al. (2024), arXiv 2310.16789.
    Differs: MUSE's code averages no tokens at all in a text of one or two, which gives
        NaN; like open-unlearning we take one at least.
    """
    _check_tokens(scored, log_p)
    if not 0 < share <= 1:
        raise ValueError(f"the share of tokens lies in (0, 1], got {share}")
    lowest = log_p.masked_fill(~scored, math.inf).sort(-1).values
    count = (scored.sum(-1) * share).long().clamp(min=1)
    taken = scored.new_ones(scored.shape).cumsum(-1) <= count.unsqueeze(-1)
    return lowest.masked_fill(~taken, 0).sum(-1) / count


def min_k_plus_plus(logits: Tensor, targets: Tensor, scored: Tensor, share: float = 0.4) -> Tensor:
    """Min-K%++: Min-K% of log-probabilities standardised over the vocabulary.

    Each token's log-probability minus its mean under the model's own prediction,
    divided by its standard deviation: is this token likelier than its rivals?

    Args:
        logits: Shape (B, T, V).
        targets: The true tokens, shape (B, T).
        scored, share: As for `min_k`.

    Returns:
        Shape (B,), in standard deviations; higher = more familiar.

    Raises:
        ValueError: as for `min_k`.

    Source: Zhang et al. (2024), arXiv 2404.02936; variance of at least 1e-6 as in
        open-unlearning.
    """
    _check_tokens(scored, targets)
    log_p = logits.log_softmax(-1)
    p = log_p.exp()
    own = log_p.gather(-1, targets.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    # 0 log 0 is 0: a token that has no chance surprises nobody.
    log_p = log_p.clamp(min=-1e4)
    mean = (p * log_p).sum(-1)
    off = log_p - mean.unsqueeze(-1)
    variance = (p * off * off).sum(-1)
    return min_k((own - mean) / variance.clamp(min=1e-6).sqrt(), scored, share)


def zlib_ratio(log_p: Tensor, scored: Tensor, texts: Sequence[str]) -> Tensor:
    """Minus a text's mean token loss over the bytes that zlib needs for it.

    Text that is predictable for anybody compresses well and is forgiven. Higher = more
    familiar.

    Args:
        log_p: Log-probability of each true token, shape (B, T), nats.
        scored: Which positions count, shape (B, T), bool.
        texts: The B texts.

    Returns:
        Shape (B,), nats per byte.

    Raises:
        ValueError: the shapes differ, an example has no scored token, or a text is
            empty.

    Source: Carlini et al. (2021), arXiv 2012.07805, as in open-unlearning.
    """
    _check_tokens(scored, log_p)
    if len(texts) != len(log_p):
        raise ValueError(f"{len(texts)} texts for {len(log_p)} rows of tokens")
    empty = [k for k, text in enumerate(texts) if not text]
    if empty:
        raise ValueError(f"text {empty[0]} is empty")
    sizes = [len(zlib.compress(text.encode())) for text in texts]
    mean = (log_p.masked_fill(~scored, 0)).sum(-1) / scored.sum(-1)
    return mean / mean.new_tensor(sizes)


def _check_tokens(scored: Tensor, values: Tensor) -> None:
    if scored.shape != values.shape or scored.ndim != 2:
        raise ValueError(
            "values and scored positions must have one shape (B, T), got "
            f"{tuple(values.shape)} and {tuple(scored.shape)}"
        )
    bare = (scored.sum(-1) == 0).nonzero().flatten().tolist()
    if bare:
        raise ValueError(f"example {bare[0]} has no token to score")


# ------------------------------------------------------------------ generated images


def frechet(generated: ArrayLike | Tensor, real: ArrayLike | Tensor) -> float:
    """Fréchet distance of two sets of features, each taken for a Gaussian; 0 or more.

    |m - n|^2 + tr(A + B - 2 (A B)^1/2), with means m, n and covariances A, B. It falls as
    samples grow: set it beside the distance of equally many real images.

    Args:
        generated, real: Features, (n, d) and (m, d); n and m are 2 or more.

    Raises:
        ValueError: fewer than two rows.

    Source: Heusel et al. (NeurIPS 2017), arXiv 1706.08500, equation 6; their features are an
        Inception network's.
    """
    rows = [np.asarray(x.cpu() if hasattr(x, "cpu") else x, float) for x in (generated, real)]
    if min(map(len, rows)) < 2:
        raise ValueError("a Fréchet distance needs at least two images on either side")
    if not all(np.isfinite(x).all() for x in rows):
        return math.nan
    (m, a), (n, b) = ((x.mean(0), np.atleast_2d(np.cov(x.T))) for x in rows)
    # The eigenvalues of a product of two covariances are real and not negative; rounding
    # makes some of them a little less so.
    roots = np.sqrt(np.maximum(np.linalg.eigvals(a @ b).real, 0)).sum()
    return float(max(((m - n) ** 2).sum() + np.trace(a) + np.trace(b) - 2 * roots, 0.0))


def extracted(distances: Tensor, own: Tensor, ratio: float, neighbours: int) -> Tensor:
    """Whether each generated image is a copy of the training image that it was asked for.

    It is one if that image is the nearest of all, and nearer than `ratio` times the mean
    distance to the next ones. Without the second half, a model that always makes the same
    grey image would copy whatever happens to be nearest to it.

    Args:
        distances: From each generated to each training image, (n, m); no image twice.
        own: Place of the image asked for, (n,).
        ratio: 0 to 1.
        neighbours: So many next ones, 1 to m - 1.

    Returns:
        bool, (n,).

    Source: Carlini et al. (USENIX Security 2023), arXiv 2301.13188, section 4.2, whose
        threshold is relative to the nearest neighbours, too.
    """
    mine = distances.gather(1, own[:, None])[:, 0]
    others = distances.scatter(1, own[:, None], math.inf)
    near = others.topk(neighbours, largest=False).values
    return (mine < near[:, 0]) & (mine < ratio * near.mean(1))
