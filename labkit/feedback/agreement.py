"""How far raters agree: with each other, with themselves, with a score; which pairs are contested; how fast they judge.

Unit of everything: a pair of answers to one prompt, whichever stood first, and which of the two won, or a tie; for thumbs
one answer, good or bad. A ranking of K answers judges K(K−1)/2 pairs. Skips judge nothing, and "both bad" is a tie.

Krippendorff's alpha is 1 − D_o / D_e, observed over expected disagreement: 1 for raters who always agree, 0 for dice. As
nobody's answer is the first by nature, every pair counts once in either direction, so that "first" and "second" are
equally common whatever the raters think; without ties and with many pairs, alpha is then twice the agreement minus 1.

Intervals are 95 %, from a bootstrap over prompts. Where all agree, or none, resampling knows no doubt, and the share's
Wilson interval over prompts stands instead. Functions take votes that stand and give rows for `show.table`: `x` beside `x_ci`.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from statistics import median
from typing import Any

import numpy as np

from labkit.records import Prompt, Vote
from labkit.statistics import wilson

Unit = tuple[str, ...]  # the prompt's id and one or two answers, these in alphabetical order
Score = Callable[[Prompt, str], float | None] | Mapping[tuple[str, str], float]  # (prompt id, answer) in a mapping
Row = dict[str, Any]
SAMPLES = 1000  # resamples of prompts behind an interval


@dataclass(frozen=True, slots=True)
class Judgement:
    """What one vote says of one unit: 1, the first answer won (a thumb: good); −1, the second (bad); 0, a tie."""

    unit: Unit
    value: int
    vote: Vote


def judgements(votes: Iterable[Vote], *, thumbs: bool = False) -> list[Judgement]:
    """Every pair that the votes judge, or every answer where `thumbs` asks for those; the oldest first."""
    found = []
    for vote in sorted(votes, key=lambda v: (v.time, v.id)):
        if vote.flag == "skip" or vote.retracts or (vote.mode == "thumb") != thumbs:
            continue
        if thumbs:
            found.append(Judgement((vote.prompt.id, vote.answers[0]), 1 if vote.ranks[0] == 1 else -1, vote))
            continue
        for (a, first), (b, second) in combinations(sorted(zip(vote.answers, vote.ranks, strict=True)), 2):
            if a != b:
                found.append(Judgement((vote.prompt.id, a, b), (first < second) - (first > second), vote))
    return found


def alpha(votes: Iterable[Vote], *, thumbs: bool = False, seed: int = 0) -> Row:
    """Krippendorff's alpha between raters: `alpha`, `alpha_ci`, `units` that two or more judged, `raters`.

    Of what a rater judged twice the first time counts. `alpha` is None where no unit has two raters, or all of them say the
    same one thing, of which no chance can be known.
    """
    import krippendorff

    by_unit = _first_by_rater(judgements(votes, thumbs=thumbs))
    shared = {unit: said for unit, said in by_unit.items() if len(said) > 1}
    counts = np.array([[list(said.values()).count(v) for v in (1, 0, -1)] for said in shared.values()])
    raters = {rater for said in shared.values() for rater in said}
    row: Row = {"alpha": None, "alpha_ci": None, "units": len(shared), "raters": len(raters)}
    if not shared:
        return row
    both = counts if thumbs else np.concatenate([counts, counts[:, ::-1]])
    if np.count_nonzero(both.sum(0)) < 2:
        return row
    row["alpha"] = float(krippendorff.alpha(value_counts=both, value_domain=[1, 0, -1], level_of_measurement="nominal"))
    row["alpha_ci"] = _alpha_interval(counts, [unit[0] for unit in shared], thumbs, seed)
    return row


def between(votes: Iterable[Vote], *, thumbs: bool = False, seed: int = 0) -> list[Row]:
    """How often two raters said the same of what both judged: all of them first, then each two with most in common first."""
    hits: dict[tuple[str, str], list[tuple[str, bool]]] = defaultdict(list)
    for unit, said in _first_by_rater(judgements(votes, thumbs=thumbs)).items():
        for one, other in combinations(sorted(said), 2):
            hits[one, other].append((unit[0], said[one] == said[other]))
    if not hits:
        return []
    rows = [{"raters": " and ".join(two), **_share(found, seed)} for two, found in hits.items()]
    rows.sort(key=lambda r: (-r["units"], r["raters"]))
    return [{"raters": "any two", **_share([h for found in hits.values() for h in found], seed)}, *rows]


def themselves(votes: Iterable[Vote], *, thumbs: bool = False, seed: int = 0) -> list[Row]:
    """How often each rater, asked the same again, said the same as the first time; raters who were never asked again are left out."""
    first: dict[tuple[str, Unit], int] = {}
    hits: dict[str, list[tuple[str, bool]]] = defaultdict(list)
    for j in judgements(votes, thumbs=thumbs):
        key = (j.vote.rater, j.unit)
        if key in first:
            hits[j.vote.rater].append((j.unit[0], first[key] == j.value))
        first.setdefault(key, j.value)
    return [{"rater": rater, **_share(hits[rater], seed)} for rater in sorted(hits)]


def against(votes: Iterable[Vote], score: Score, *, seed: int = 0) -> list[Row]:
    """How often the answer that won has the higher score (gold, a reward model's, the length): all raters first, then each.

    `score` is a function of the prompt and the answer, or a mapping from (prompt id, answer). Ties of raters or scores, and
    answers without a score, are left out.
    """
    known: dict[tuple[str, str], float | None] = {}

    def of(prompt: Prompt, text: str) -> float | None:
        if (prompt.id, text) not in known:
            known[prompt.id, text] = score(prompt, text) if callable(score) else score.get((prompt.id, text))
        return known[prompt.id, text]

    hits: dict[str, list[tuple[str, bool]]] = defaultdict(list)
    for j in judgements(votes):
        if j.value:
            a, b = (of(j.vote.prompt, text) for text in j.unit[1:])
            if a is not None and b is not None and a != b:
                hits[j.vote.rater].append((j.unit[0], (a > b) == (j.value > 0)))
    if not hits:
        return []
    rows = [{"rater": rater, **_share(hits[rater], seed)} for rater in sorted(hits)]
    return [{"rater": "all", **_share([h for found in hits.values() for h in found], seed)}, *rows]


def contested(votes: Iterable[Vote], n: int = 10) -> list[Row]:
    """The `n` pairs of answers about which raters differ most: the share of two raters who do, then how many there are.

    Columns: prompt (the record), first, second, first_wins, ties, second_wins, raters, differ (share of two raters).
    """
    found = judgements(votes)
    prompts = {j.unit[0]: j.vote.prompt for j in found}
    rows = []
    for (prompt, a, b), said in _first_by_rater(found).items():
        values = list(said.values())
        wins, ties, losses = (values.count(v) for v in (1, 0, -1))
        apart = wins * ties + wins * losses + ties * losses
        if apart:
            row: Row = {"prompt": prompts[prompt], "first": a, "second": b, "first_wins": wins, "ties": ties}
            rows.append(
                {**row, "second_wins": losses, "raters": len(values), "differ": apart / math.comb(len(values), 2)}
            )
    return sorted(rows, key=lambda r: (-r["differ"], -r["raters"], r["prompt"].id, r["first"]))[:n]


def pace(votes: Iterable[Vote], *, seed: int = 0) -> list[Row]:
    """How each rater goes about it: votes, `seconds` (median, of votes that were timed), the shares that were tied (both bad
    too) and skipped, and of decided pairs the share that the answer shown first won, which is a half where place plays no part."""
    mine: dict[str, list[Vote]] = defaultdict(list)
    for vote in votes:
        mine[vote.rater].append(vote)
    rows = []
    for rater, given in sorted(mine.items()):
        timed = [v.seconds for v in given if v.seconds > 0]
        judged = [v for v in given if v.flag != "skip"]
        row: Row = {"rater": rater, "votes": len(given), "seconds": median(timed) if timed else None}
        row["tied"] = sum(len(set(v.ranks)) == 1 < len(v.ranks) for v in judged) / len(judged) if judged else None
        row["skipped"] = 1 - len(judged) / len(given)
        decided = [v for v in judged if len(v.shown) == 2 and len(set(v.ranks)) == 2]
        share = _share([(v.prompt.id, v.ranks[v.shown[0]] == 1) for v in decided], seed)
        rows.append({**row, "first_shown_wins": share["alike"], "first_shown_wins_ci": share["alike_ci"]})
    return rows


def _first_by_rater(found: Iterable[Judgement]) -> dict[Unit, dict[str, int]]:
    by_unit: dict[Unit, dict[str, int]] = defaultdict(dict)
    for j in found:
        by_unit[j.unit].setdefault(j.vote.rater, j.value)
    return by_unit


def _share(hits: Sequence[tuple[str, bool]], seed: int) -> Row:
    """`alike` (share of hits, None of none), its interval, and `units`; hits come with the prompt that they belong to."""
    if not hits:
        return {"alike": None, "alike_ci": None, "units": 0}
    index = {prompt: i for i, prompt in enumerate(dict.fromkeys(p for p, _ in hits))}
    good, seen = np.zeros(len(index)), np.zeros(len(index))
    for prompt, hit in hits:
        good[index[prompt]] += hit
        seen[index[prompt]] += 1
    share = float(good.sum() / seen.sum())
    if share in (0.0, 1.0):
        interval = wilson(share, len(index))
    else:
        weights = _weights(len(index), seed)
        low, high = np.percentile((weights @ good) / (weights @ seen), [2.5, 97.5])
        interval = (float(low), float(high))
    return {"alike": share, "alike_ci": interval, "units": len(hits)}


@lru_cache(maxsize=4)
def _weights(n: int, seed: int) -> np.ndarray:
    """(SAMPLES, n): how often each resample holds each of n prompts."""
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=SAMPLES).astype(float)


def _alpha_interval(counts: np.ndarray, prompts: Sequence[str], thumbs: bool, seed: int) -> tuple[float, float] | None:
    """Alpha over resampled prompts, from sums of their coincidences; None where most resamples hold one value only.

    A unit that values c and k were given n_c and n_k times coincides n_c n_k / (m − 1) times, m of them in all (Krippendorff
    2004, 11.3); what is not on the diagonal is disagreement.
    """
    index = {prompt: i for i, prompt in enumerate(dict.fromkeys(prompts))}
    m = counts.sum(1)
    sums = np.zeros((len(index), 4))
    np.add.at(sums, [index[p] for p in prompts], np.column_stack([(m**2 - (counts**2).sum(1)) / (m - 1), counts]))

    def disagreement(drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Observed, expected, and how many values, each for every row of sums."""
        observed, values = drawn[:, 0], drawn[:, 1:]
        if not thumbs:
            observed, values = 2 * observed, values + values[:, ::-1]
        total = values.sum(1)
        return observed, (total**2 - (values**2).sum(1)) / (total - 1), total

    observed, expected, total = disagreement(sums.sum(0, keepdims=True))
    if not observed[0]:
        doubt = (1 - wilson(1.0, len(index))[0]) * total[0]
        return float(1 - doubt / expected[0]), 1.0
    observed, expected, _ = disagreement(_weights(len(index), seed) @ sums)
    fit = expected > 0
    if fit.sum() < SAMPLES / 2:
        return None
    low, high = np.percentile(1 - observed[fit] / expected[fit], [2.5, 97.5])
    return float(low), float(high)
