"""Agreement between raters, with numbers worked out by hand, a textbook's example and the definition spelt out."""

from __future__ import annotations

import random
from itertools import permutations

import pytest

from labkit import show, statistics
from labkit.feedback import agreement
from labkit.records import Prompt, Vote


def a_vote(
    rater: str, prompt: str, first: str = "a", second: str = "b", *, won: int = 1, at: int = 0, **fields: object
) -> Vote:
    """`won` 1: the first of the two answers is better, −1: the second, 0: a tie."""
    given = {"answers": (first, second), "ranks": {1: (1, 2), -1: (2, 1), 0: (1, 1)}[won], "mode": "pair", **fields}
    time = f"2025-03-01T12:{at // 60:02}:{at % 60:02}+00:00"
    return Vote(
        id=f"{rater}/{prompt}/{at}/{first}", prompt=Prompt.of(prompt), rater=rater, source="person", time=time, **given
    )  # type: ignore[arg-type]


def a_thumb(rater: str, prompt: str, good: bool, at: int = 0) -> Vote:
    return a_vote(rater, prompt, at=at, answers=("a",), ranks=(1,) if good else (2,), mode="thumb")


# Ada and Bob judge four pairs, and differ about the last one.
FOUR = [a_vote("ada", f"q{i}") for i in range(4)] + [a_vote("bob", f"q{i}", won=1 if i < 3 else -1) for i in range(4)]


def by_definition(votes: list[Vote]) -> float:
    """Alpha as Krippendorff defines it, pair by pair of values, every unit in both directions."""
    units: dict[object, list[int]] = {}
    for j in agreement.judgements(votes):
        units.setdefault((j.unit, 1), []).append(j.value)
        units.setdefault((j.unit, -1), []).append(-j.value)
    shared = [values for values in units.values() if len(values) > 1]
    every = [v for values in shared for v in values]
    observed = sum(sum(a != b for a, b in permutations(values, 2)) / (len(values) - 1) for values in shared) / len(
        every
    )
    expected = sum(a != b for a, b in permutations(every, 2)) / (len(every) * (len(every) - 1))
    return 1 - observed / expected


def test_alpha_by_hand() -> None:
    """Both directions of four pairs: 16 values, 8 of each kind; 2 of 8 pairs differ.

    D_o = 4 / 16 = .25, D_e = 2 · 8 · 8 / (16 · 15) = .5333, alpha = 1 − .25 / .5333 = .53125.
    """
    found = agreement.alpha(FOUR)
    assert found["alpha"] == pytest.approx(0.53125) == pytest.approx(by_definition(FOUR))
    assert (found["units"], found["raters"]) == (4, 2)
    low, high = found["alpha_ci"]
    assert -1 <= low < found["alpha"] < high <= 1


def test_alpha_of_the_textbook() -> None:
    """Krippendorff's ten articles, two observers: 1 − 19 · 8 / (2 · 14 · 6) = .0952."""
    meg, owen = "0100000010", "1110010000"
    thumbs = [
        a_thumb(name, f"q{i}", v == "1") for name, said in (("meg", meg), ("owen", owen)) for i, v in enumerate(said)
    ]
    found = agreement.alpha(thumbs, thumbs=True)
    assert found["alpha"] == pytest.approx(1 - 19 * 8 / (2 * 14 * 6))
    assert found["units"] == 10
    assert agreement.alpha(thumbs)["units"] == 0, "a thumb compares nothing"


def test_alpha_is_the_definition() -> None:
    """Five raters, rankings with ties, many answers missing: the library's number is the definition's."""
    rng = random.Random(1)
    votes = []
    for i in range(40):
        for rater in rng.sample("abcde", rng.randint(1, 5)):
            ranks = tuple(rng.sample(((1, 2, 3), (1, 1, 3), (2, 1, 3), (1, 2, 2)), 1)[0])
            votes.append(a_vote(rater, f"q{i}", answers=("x", "y", "z"), ranks=ranks, mode="ranking"))
    found = agreement.alpha(votes)
    assert found["alpha"] == pytest.approx(by_definition(votes))
    assert 0.05 < found["alpha"] < 0.5
    low, high = found["alpha_ci"]
    assert low < found["alpha"] < high and high - low < 0.4


def test_the_order_of_the_answers_does_not_matter() -> None:
    """The same judgements with the sides exchanged, or with answers whose names sort the other way round."""
    turned = [
        a_vote(v.rater, v.prompt.text, "b", "a", won=-1 if v.ranks == (1, 2) else 1) if v.rater == "bob" else v
        for v in FOUR
    ]
    assert agreement.alpha(turned) == agreement.alpha(FOUR)
    assert agreement.between(turned) == agreement.between(FOUR)
    renamed = [a_vote(v.rater, v.prompt.text, "z", won=1 if v.ranks == (1, 2) else -1) for v in FOUR]
    assert agreement.alpha(renamed) == agreement.alpha(FOUR)


def test_where_alpha_cannot_be_known() -> None:
    nothing = {"alpha": None, "alpha_ci": None, "units": 0, "raters": 0}
    assert agreement.alpha([]) == agreement.alpha(FOUR[:4]) == nothing
    assert agreement.alpha([a_vote("ada", "q", won=0), a_vote("bob", "q", won=0)])["alpha"] is None
    skips = [a_vote("ada", "q", flag="skip", ranks=()), a_vote("bob", "q")]
    assert agreement.alpha(skips) == nothing


def test_perfect_agreement_of_few_is_not_sure() -> None:
    """Three of three: alpha 1 and share 1, but Wilson's lower end for 3 of 3 is 3 / (3 + z²) = .4385."""
    votes = [v for v in FOUR if v.prompt.text != "q3"]
    found, shares = agreement.alpha(votes), agreement.between(votes)
    assert found["alpha"] == shares[0]["alike"] == 1.0
    assert shares[0]["alike_ci"] == pytest.approx((3 / (3 + 1.96**2), 1), abs=1e-4)
    assert found["alpha_ci"] == pytest.approx((1 - (1 - 0.4385) / (2 * 6 * 6 / (12 * 11)), 1), abs=1e-3)
    assert statistics.wilson(1.0, 5) == pytest.approx((0.5655, 1), abs=1e-4)
    assert statistics.wilson(0.5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)


def test_between_raters() -> None:
    """Ada and Bob agree on 3 of 4; Cem judged one of them, like Bob, and another that nobody shares."""
    votes = [*FOUR, a_vote("cem", "q3", won=-1), a_vote("cem", "alone")]
    rows = agreement.between(votes)
    assert [(r["raters"], r["units"], r["alike"]) for r in rows] == [
        ("any two", 6, 4 / 6), ("ada and bob", 4, 0.75), ("ada and cem", 1, 0.0), ("bob and cem", 1, 1.0),
    ]  # fmt: skip
    low, high = rows[1]["alike_ci"]
    assert 0 < low < 0.75 < high == 1.0
    assert agreement.between(FOUR[:4]) == []


def test_with_themselves() -> None:
    """Asked again, sides swapped: Ada says the same twice of three; the newest of several is compared with the first."""
    again = [
        a_vote("ada", "q0", "b", "a", won=-1, at=90),
        a_vote("ada", "q1", won=0, at=91),
        a_vote("ada", "q1", at=92),
    ]
    rows = agreement.themselves([*again, *FOUR, a_vote("bob", "q0", flag="skip", ranks=(), at=99)])
    assert [(r["rater"], r["units"], r["alike"]) for r in rows] == [("ada", 3, 2 / 3)]
    assert agreement.alpha([*FOUR, *again])["alpha"] == pytest.approx(0.53125), "between raters the first time counts"
    thumbs = [a_thumb("ada", "q", True), a_thumb("ada", "q", False, at=5)]
    assert agreement.themselves(thumbs, thumbs=True)[0]["alike"] == 0.0


def test_against_a_score() -> None:
    """Answer a scores 2 and b 1, but in q3, where they score the same; Bob disagrees about q3 only, so both are always right."""
    score = lambda prompt, text: 1.0 if prompt.text == "q3" or text == "b" else 2.0  # noqa: E731
    asked: list[str] = []
    rows = agreement.against(FOUR, lambda p, t: asked.append(t) or score(p, t))
    assert [(r["rater"], r["units"], r["alike"]) for r in rows] == [("all", 6, 1.0), ("ada", 3, 1.0), ("bob", 3, 1.0)]
    assert len(asked) == 8, "every answer is scored once"
    model = {
        (Prompt.of("q0").id, "a"): 0.0,
        (Prompt.of("q0").id, "b"): 1.0,
        (Prompt.of("q3").id, "a"): 3.0,
        (Prompt.of("q3").id, "b"): 1.0,
    }
    rows = agreement.against([*FOUR, a_vote("cem", "q0", won=0)], model)
    assert [(r["rater"], r["units"], r["alike"]) for r in rows] == [("all", 4, 0.25), ("ada", 2, 0.5), ("bob", 2, 0.0)]
    assert agreement.against(FOUR, {}) == []


def test_contested_pairs() -> None:
    """q0: 1 against 1 (all of one pair differ); q1: 2 against 1 with a tie (5 of 6); q2: agreed, and not listed."""
    votes = [a_vote("ada", "q0"), a_vote("bob", "q0", won=-1), a_vote("ada", "q2"), a_vote("bob", "q2")]
    votes += [a_vote(r, "q1", won=w) for r, w in (("ada", 1), ("bob", 1), ("cem", -1), ("dee", 0))]
    rows = agreement.contested(votes)
    assert [(r["prompt"].text, r["first_wins"], r["ties"], r["second_wins"], r["raters"], r["differ"]) for r in rows] == [
        ("q0", 1, 0, 1, 2, 1.0), ("q1", 2, 1, 1, 4, 5 / 6),
    ]  # fmt: skip
    assert (rows[0]["first"], rows[0]["second"]) == ("a", "b")
    assert len(agreement.contested(votes, n=1)) == 1


def test_pace() -> None:
    """Seconds 2, 4 and 9 have the median 4; the untimed import does not count. The left side won 2 of 3 decided pairs."""
    votes = [
        a_vote("ada", "q0", seconds=2, shown=(0, 1)),
        a_vote("ada", "q1", seconds=9, shown=(1, 0)),
        a_vote("ada", "q2", seconds=4, shown=(1, 0), won=-1),
        a_vote("ada", "q3", won=0, flag="both_bad", shown=(0, 1)),
        a_vote("ada", "q4", flag="skip", ranks=()),
        a_thumb("bob", "q0", True),
    ]
    ada, bob = agreement.pace(votes)
    assert (ada["votes"], ada["seconds"], ada["tied"], ada["skipped"]) == (5, 4, 0.25, pytest.approx(0.2))
    assert ada["first_shown_wins"] == pytest.approx(2 / 3) and ada["first_shown_wins_ci"][0] < 2 / 3
    assert bob == {"rater": "bob", "votes": 1, "seconds": None, "tied": 0.0, "skipped": 0.0, "first_shown_wins": None, "first_shown_wins_ci": None}  # fmt: skip
    shown = show.table(agreement.pace(votes), formats={"tied": ".0%"}).text
    assert "0.67 [" in shown and "25%" in shown.replace(" ", "")


def test_many_votes_are_quick() -> None:
    """2,000 rankings of five answers by two raters each, 40,000 judgements: what a live page asks for."""
    import time

    rng = random.Random(0)
    votes = [
        a_vote(r, f"q{i}", answers=tuple("vwxyz"), ranks=tuple(rng.sample((1, 2, 3, 4, 5), 5)), mode="ranking")
        for i in range(2000)
        for r in ("ada", "bob")
    ]
    start = time.process_time()
    found = agreement.alpha(votes)
    assert time.process_time() - start < 5
    assert found["units"] == 20_000 and abs(found["alpha"]) < 0.05
