"""Best-of-n against every choice counted out, and what FeedME keeps of a ranking."""

from __future__ import annotations

from itertools import combinations
from math import log

import numpy as np
import pytest
import tiny_lab

from labkit import statistics
from labkit.errors import LabError
from labkit.stages import best_of_n, feedme


def test_the_best_of_n_by_hand() -> None:
    """Three answers, two drawn: the third is the best of 2 of the 3 draws, the second of 1."""
    scores, values = np.array([[1.0, 2.0, 3.0]]), np.array([[10.0, 20.0, 60.0]])
    assert statistics.best_of_n(scores, values, 1)[0] == pytest.approx(30)
    assert statistics.best_of_n(scores, values, 2)[0] == pytest.approx(20 / 3 + 60 * 2 / 3)
    assert statistics.best_of_n(scores, values, 3)[0] == pytest.approx(60)
    with pytest.raises(LabError, match="1 to 3"):
        statistics.best_of_n(scores, values, 4)


def test_the_estimator_equals_counting_every_draw_also_with_ties() -> None:
    dice = np.random.default_rng(0)
    scores, values = dice.integers(0, 4, (5, 6)).astype(float), dice.normal(size=(5, 6))
    for n in range(1, 7):
        counted = [
            np.mean([np.mean(v[list(c)][s[list(c)] == s[list(c)].max()]) for c in map(list, combinations(range(6), n))])
            for s, v in zip(scores, values, strict=True)
        ]
        assert statistics.best_of_n(scores, values, n) == pytest.approx(counted)


def test_the_curve_climbs_in_what_chooses_and_names_its_price() -> None:
    proxy = np.random.default_rng(1).normal(size=(40, 16))
    rows = best_of_n.curve(proxy, -proxy, seed=0, samples=200)
    assert [r["n"] for r in rows] == [1, 2, 4, 8, 16]
    assert rows[0]["kl"] == 0 and rows[1]["kl"] == pytest.approx(log(2) - 0.5, abs=1e-4)
    assert all(a["reward"] < b["reward"] and a["gold"] > b["gold"] for a, b in zip(rows, rows[1:], strict=False))
    assert "gold" not in best_of_n.curve(proxy, None, seed=0, samples=200)[0]


def test_feedme_keeps_the_best_and_its_control_anything() -> None:
    votes = [tiny_lab.vote(f"Question {i}?", ("good", "plain", "bad"), (1, 2, 3)) for i in range(60)]
    votes.append(tiny_lab.vote("Held out?", ("good", "bad"), (1, 2), split="test"))
    votes.append(tiny_lab.vote("No verdict?", ("good", "bad"), (1, 1)))
    best = feedme.dataset(votes, pick="best", seed=0)
    assert [a.text for a in best] == ["good"] * 60
    control = [a.text for a in feedme.dataset(votes, pick="random", seed=0)]
    assert len(control) == 60 and set(control) == {"good", "plain", "bad"}
    with pytest.raises(LabError, match="04_preferences"):
        feedme.dataset(votes[60:], pick="best", seed=0)
