"""Votes of every kind that the store takes, drawn at random, and one that is easy to read."""

from __future__ import annotations

import random
from dataclasses import replace

from labkit.records import Prompt, Vote

ALPHABETS = ("abc ", "äöü ß", "水獺 正", "🦦🧺", "\n\r\t\u2028\u0085 ", "\"'\\,;{}[]<>", "\u202e\u200d\x00")
TIME = "2025-03-01T12:00:00.250+00:00"


def a_text(rng: random.Random) -> str:
    return "".join(rng.choice(rng.choice(ALPHABETS)) for _ in range(rng.randint(0, 12)))


def a_vote(rng: random.Random, number: int) -> Vote:
    """Any vote that the store takes: all modes, ties, skips with and without ranks, both bad, odd letters everywhere."""
    mode = rng.choice(("pair", "ranking", "thumb"))
    k = {"pair": 2, "thumb": 1, "ranking": rng.randint(2, 5)}[mode]
    ranks = [rng.randint(1, max(k, 2)) for _ in range(k)]
    ranks[0] = ranks[0] if k == 1 else 1
    rng.shuffle(ranks)
    flag = rng.choice(("", "", "both_bad", "skip"))
    turns = [{"role": "system", "content": a_text(rng)}] if rng.random() < 0.3 else []
    turns += [{"role": "user", "content": a_text(rng)}, {"role": "assistant", "content": a_text(rng)}] * rng.randint(
        0, 1
    )
    return Vote(
        id=f"vote {number} {rng.choice('äz🦦')}",
        prompt=Prompt(
            id=f"p{rng.randint(0, 9)}",
            messages=(*turns, {"role": "user", "content": a_text(rng)}),
            kind=rng.choice(("fact", "", "über")),
            split=rng.choice(("train", "validation", "test")),
            meta=rng.choice(({}, {"task": "home", "n": [1, None, 0.1, {"ok": True}]}, {"": "\u2028"})),
        ),
        answers=tuple(a_text(rng) for _ in range(k)),
        ranks=() if flag == "skip" and rng.random() < 0.5 else tuple(ranks),
        rater=rng.choice(("ada", "Zoë 🦦", "bob")),
        source=rng.choice(("person", "simulated", "model", "import")),
        time=TIME,
        mode=mode,
        seconds=rng.choice((0, 0.0, 1.25, 1e-9, 3600)),
        shown=tuple(rng.sample(range(k), k)) if rng.random() < 0.7 else (),
        flag=flag,
        run=rng.choice(("", "preferences-0a1b2c", "repeat:preferences-0a1b2c", "arena")),
        reasons=tuple(a_text(rng).replace("\x00", "") for _ in range(rng.randint(0, 2))),
        edit=rng.choice(("", "", "better\n✓")),
    )


VOTES = [a_vote(random.Random(i), i) for i in range(400)]
PAIR = replace(
    VOTES[0], id="pair", mode="pair", answers=("On the bank.", "Go away."), ranks=(1, 2), shown=(1, 0), flag="", run="",
    prompt=Prompt.of("Where do otters sleep?", kind="fact", meta={"task": "home"}), rater="ada", edit="", reasons=("kinder",),
    source="person",
)  # fmt: skip
