"""The statistics behind every figure: a bootstrap over prompts, win rates with ties half, distinct n-grams."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import numpy as np

from labkit.errors import LabError


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


def distinct(texts: Iterable[str], n: int = 2) -> float | None:
    """Distinct n-grams of words over all n-grams (Li et al. 2016): 1 says that no n words ever come twice."""
    words = [t.lower().split() for t in texts]
    grams = [tuple(w[i : i + n]) for w in words for i in range(len(w) - n + 1)]
    return len(set(grams)) / len(grams) if grams else None
