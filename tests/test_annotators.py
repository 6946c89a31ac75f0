"""Simulated annotators: Bradley–Terry on gold, with tastes of their own, and the same for the same random numbers."""

from __future__ import annotations

import math
import random
from itertools import combinations

import pytest

from labkit.feedback.annotators import Annotator, pool
from labkit.records import Prompt
from labkit.world import World

PROMPT = Prompt.of("What colour is the badger?", kind="fact")


def share_first(annotator: Annotator, answers: list[str], golds: list[float], n: int = 4_000) -> float:
    rng = random.Random(0)
    ranks = [annotator.rank(PROMPT, answers, golds, rng=rng) for _ in range(n)]
    decided = [r for r in ranks if r[0] != r[1]]
    return sum(r[0] < r[1] for r in decided) / len(decided)


def test_the_choice_follows_bradley_terry() -> None:
    """A gap of 1.0 at temperature 0.8: σ(1 / 0.8) = 1 / (1 + e^−1.25) = 0.777; 4,000 draws have a standard error of 0.007."""
    measured = share_first(Annotator(name="plain", noise=0.8), ["one", "two"], [1.0, 0.0])
    assert abs(measured - 1 / (1 + math.exp(-1.25))) < 0.03


def test_each_taste_moves_the_choice_its_way() -> None:
    long, short = "The badger is grey, and it sits under the stairs and grumbles all day.", "It is grey."
    kind, plain, refusal = "It is grey, dear friend.", "It is a grey animal.", "I cannot help with that."
    assert share_first(Annotator(name="a", biases={"length": 1.0}), [long, short], [0, 0]) > 0.55
    assert share_first(Annotator(name="a", biases={"politeness": 1.0}), [kind, plain], [0, 0]) > 0.65
    assert share_first(Annotator(name="a", biases={"dislikes_refusals": 1.0}), [refusal, plain], [0, 0]) < 0.35
    assert share_first(Annotator(name="a", biases={"first_shown": 1.0}), [plain, short], [0, 0]) > 0.65
    assert 0.47 < share_first(Annotator(name="a"), [long, short], [0, 0]) < 0.53


def test_without_noise_ranks_are_golds_and_equals_tie() -> None:
    exact = Annotator(name="exact", noise=0.0)
    assert exact.rank(PROMPT, ["a", "b", "c", "d"], [0.0, 2.0, 2.01, -1.0], rng=random.Random(0)) == (3, 1, 1, 4)
    assert pool(0)[0].rank(PROMPT, ["a", "b", "a"], [1, 1, 1], rng=random.Random(0))[0::2] in ((1, 1), (2, 2))


def test_the_same_random_numbers_give_the_same_ranks() -> None:
    for annotator in pool(3, 12):
        once, again = (annotator.rank(PROMPT, ["a", "b", "c"], [1, 2, 3], rng=random.Random(7)) for _ in range(2))
        assert once == again
    assert pool(3) == pool(3) and len({a.name for a in pool(3, 12)}) == 12


def test_bad_tastes_and_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="biases"):
        Annotator(name="x", biases={"lenght": 1.0})
    with pytest.raises(ValueError, match="one for each"):
        Annotator(name="x").rank(PROMPT, ["a"], [1.0, 2.0], rng=random.Random(0))


def test_agreement_is_that_of_people() -> None:
    """On pairs of demonstrations: about 73 % with each other (InstructGPT's labellers: 73 ± 1.5) and about 79 % with gold."""
    world, rng = World(0), random.Random(1)
    team, mix = pool(0), world.settings.mix
    together, pairs, right, votes = 0, 0, 0, 0
    for prompt in world.prompts("train")[:400]:
        authors = rng.choices(list(mix), weights=list(mix.values()), k=6)
        answers = list(dict.fromkeys(world.demonstrate(prompt, a, rng) for a in authors))
        golds = [world.grade(prompt, a)[0] for a in answers]
        ranks = [a.rank(prompt, answers, golds, rng=rng) for a in team]
        for i, j in combinations(range(len(answers)), 2):
            signs = [(r[j] > r[i]) - (r[j] < r[i]) for r in ranks]
            truth = (golds[i] > golds[j]) - (golds[i] < golds[j])
            for x in signs:
                right, votes = right + (x * truth > 0), votes + (x * truth != 0)
            for x, y in combinations(signs, 2):
                together, pairs = together + (x * y > 0), pairs + (x * y != 0)
    assert votes > 10_000
    assert 0.69 < together / pairs < 0.76
    assert 0.76 < right / votes < 0.83
