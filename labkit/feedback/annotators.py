"""Simulated people who compare answers: they see the truth dimly, and each has a taste of their own.

An annotator's utility for an answer is gold, plus what the biases add, plus noise. With Gumbel noise of scale `noise`,
the better of two is chosen with probability σ((u₁ − u₂) / noise): the Bradley–Terry model (Bradley and Terry 1952), and
a ranking is a draw from Plackett–Luce.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from labkit.records import Prompt
from labkit.world.signals import Signals

# What a bias multiplies: each is about 0 to 1 for an answer, so that its weight is in units of gold.
TASTES = ("length", "politeness", "dislikes_refusals", "first_shown")
TIE = 0.05  # utilities closer than this many units of gold cannot be told apart


@dataclass(frozen=True, kw_only=True)
class Annotator:
    """One simulated rater. `noise` is the Bradley–Terry temperature in units of gold; `biases` are weights by taste.

    `length`: likes long answers (per 25 words). `politeness`: likes warm words. `dislikes_refusals`: takes that much off
    whenever an answer declines. `first_shown`: favours the answer at the top of the screen.
    """

    name: str
    noise: float = 0.8
    biases: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        unknown = sorted(set(self.biases) - set(TASTES))
        if unknown or self.noise < 0:
            raise ValueError(f"noise must not be negative and biases must be among {', '.join(TASTES)}; got {self}")

    def taste(self, text: str, place: int = 0) -> float:
        """What this person adds to gold for an answer shown at `place` (0 is first)."""
        if not self.biases:
            return 0.0
        s, b = Signals(text), self.biases
        return (
            b.get("length", 0.0) * min(len(s.words) / 25, 2.0)
            + b.get("politeness", 0.0) * s.warm
            - b.get("dislikes_refusals", 0.0) * s.declines
            + b.get("first_shown", 0.0) * (place == 0)
        )

    def rank(
        self, prompt: Prompt, answers: Sequence[str], golds: Sequence[float], *, rng: random.Random
    ) -> tuple[int, ...]:
        """Ranks of the answers as shown, 1 best; equal ranks where two cannot be told apart. The same rng, the same ranks."""
        if len(answers) != len(golds):
            raise ValueError(f"{len(answers)} answers but {len(golds)} gold values: give one for each")
        felt = [
            gold + self.taste(text, place) + self.noise * _gumbel(rng)
            for place, (text, gold) in enumerate(zip(answers, golds, strict=True))
        ]
        for i, text in enumerate(answers):  # the same words twice are the same answer
            felt[i] = felt[answers.index(text)]
        order = sorted(range(len(felt)), key=lambda i: -felt[i])
        ranks, rank, last = [0] * len(felt), 0, math.inf
        for place, i in enumerate(order):
            if last - felt[i] > TIE:
                rank = place + 1
            ranks[i], last = rank, felt[i]
        return tuple(ranks)


def _gumbel(rng: random.Random) -> float:
    return -math.log(-math.log(rng.random() or 1e-12))


def pool(seed: int, size: int = 6) -> list[Annotator]:
    """A team of raters with differing noise and tastes, the same for a seed: about 72 % agree, about 80 % with gold."""
    names = ("Wren", "Milo", "Tilda", "Oskar", "Pia", "Rufus", "Selma", "Tove", "Ulric", "Vera")
    rng = random.Random(f"annotators/{seed}")
    found = []
    for n in range(size):
        biases = {
            "length": rng.uniform(0.7, 1.6),
            "politeness": rng.uniform(0.5, 1.3),
            "dislikes_refusals": rng.uniform(0.0, 0.8),
            "first_shown": rng.uniform(0.0, 0.25),
        }
        name = names[n] if n < len(names) else f"{names[n % len(names)]}-{n // len(names) + 1}"
        found.append(Annotator(name=name, noise=rng.uniform(1.05, 1.65), biases=MappingProxyType(biases)))
    return found
