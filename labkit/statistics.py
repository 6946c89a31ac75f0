"""The statistics behind every figure: a bootstrap over prompts, win rates with ties half, distinct n-grams."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from math import comb, sqrt

import numpy as np

from labkit.errors import LabError

Z = 1.959963984540054  # the normal distribution leaves 2.5 % on either side


@lru_cache(maxsize=8)
def _resamples(n: int, seed: int, samples: int) -> np.ndarray:
    """(samples, n): which prompts each resample holds; kept, so that all intervals over n prompts use the same ones."""
    return np.random.default_rng(seed).integers(0, n, (samples, n))


def paired_bootstrap(values: np.ndarray, *, seed: int = 0, samples: int = 2000) -> tuple[float, float, float]:
    """The mean of `values` (N,), one a prompt, and its 95 % percentile bootstrap interval: (mean, low, high).

    Pass differences between two models, prompt by prompt, for a paired interval. NaN marks a prompt where the question
    does not arise; it is left out first. Raises LabError when nothing is left.
    """
    values = np.asarray(values, dtype=float)
    values = values[~np.isnan(values)]
    if not len(values):
        raise LabError("There is no value to average: give at least one prompt with a score.")
    means = values[_resamples(len(values), seed, samples)].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(values.mean()), float(low), float(high)


def win_rates(a: Iterable[np.ndarray], b: Iterable[np.ndarray]) -> np.ndarray:
    """(N,): for each prompt the share of its pairs (one score from A, one from B) that A wins, ties half.

    Scores 2 and 0 against 1 and 0 make four pairs: 2>1, 2>0, 0<1, 0=0, so A wins (1 + 1 + 0 + ½) / 4 = 0.625.
    """
    return np.array([(np.sign(x[:, None] - y[None, :]).mean() + 1) / 2 for x, y in zip(a, b, strict=True)])


def wilson(share: float, n: float) -> tuple[float, float]:
    """Wilson's 95 % interval (1927) of a share of n: 8 of 10 is [.490, .943].

    Unlike the mean ± 1.96 standard errors it stays within 0 and 1, and has a width even at 0 of 5.
    """
    square = Z * Z / n
    middle = (share + square / 2) / (1 + square)
    half = Z / (1 + square) * sqrt(share * (1 - share) / n + square / (4 * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def distinct(texts: Iterable[str], n: int = 2) -> float | None:
    """Distinct n-grams of words over all n-grams (Li et al. 2016): 1 says that no n words ever come twice."""
    words = [t.lower().split() for t in texts]
    grams = [tuple(w[i : i + n]) for w in words for i in range(len(w) - n + 1)]
    return len(set(grams)) / len(grams) if grams else None


def best_of_n(scores: np.ndarray, values: np.ndarray, n: int) -> np.ndarray:
    """(P,): for each prompt the expected value of the best of `n` answers, when (P, N) `scores` choose and (P, N) `values` count.

    Unbiased, from all N answers at once: the answer of rank i (1 is the lowest score) is the best of a random n of them with
    probability C(i−1, n−1) / C(N, n) (Nakano et al. 2021, appendix I). Equal scores share their ranks' probabilities.
    """
    total = scores.shape[1]
    if not 1 <= n <= total:
        raise LabError(f"The best of {n} cannot be told from {total} answers a prompt: ask for 1 to {total}.")
    chance = np.array([comb(i, n - 1) for i in range(total)], dtype=float) / comb(total, n)
    out = np.empty(len(scores))
    for row, (score, value) in enumerate(zip(scores, values, strict=True)):
        _, level, size = np.unique(score, return_inverse=True, return_counts=True)
        at = np.cumsum(size)
        mass = np.add.reduceat(chance, at - size) / size
        out[row] = (mass[level] * value).sum()
    return out
