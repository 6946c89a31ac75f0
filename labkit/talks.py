"""Answers to conversations of several turns, compared: a `Comparison` made from the `dialogues.jsonl` of runs.

These prompts stand beside the ladder's own, since only few models ever saw a second turn; all that is known of a comparison
(paired intervals over prompts, wins, examples) holds for them too. Its kinds are the number of turns, or how the talk goes on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from labkit.compare import Comparison
from labkit.records import Answer, Prompt, read_jsonl
from labkit.runs import Run

FILE = "dialogues.jsonl"
ORDER = ("sft", "dialogue", "dialogue_blind")


def turns(prompt: Prompt) -> int:
    """How many questions a conversation has."""
    return sum(m["role"] == "user" for m in prompt.messages)


def kind(prompt: Prompt, by: str) -> str:
    """`2 turns` for `by="turns"`; else how the talk goes on, or the prompt's kind where nobody said."""
    return f"{turns(prompt)} turns" if by == "turns" else str(prompt.meta.get("follow", prompt.kind))


def answers(run: Run, split: str) -> list[Answer]:
    """All answers to conversations that a run left, its own and those of who it was compared with."""
    rows = (Answer.from_json(r) for r in read_jsonl(run.path / FILE))
    return [a for a in rows if a.prompt.split == split]


def join(runs: Iterable[Run], *, split: str, by: str = "turns", seed: int = 0, samples: int = 2000) -> Comparison:
    """Everybody's answers to the conversations that all have answered; empty where there are none, or no gold."""
    owners: dict[str, Run] = {}
    table: dict[str, dict[str, list[Answer]]] = {}
    for run in runs:
        for a in answers(run, split):
            if "gold" in a.scores and owners.setdefault(a.author, run) is run:
                told = replace(a, prompt=replace(a.prompt, kind=kind(a.prompt, by)))
                table.setdefault(a.author, {}).setdefault(a.prompt.id, []).append(told)
    shared = sorted(set.intersection(*(set(mine) for mine in table.values()))) if table else []
    first = next(iter(table.values()), {})
    ranked = sorted(table, key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))
    return Comparison(
        split=split, score="gold", reference="sft", prompts=tuple(first[i][0].prompt for i in shared),
        answers={n: {i: tuple(table[n][i]) for i in shared} for n in ranked}, runs={n: owners[n] for n in ranked},
        left_out={n: len(table[n]) - len(shared) for n in ranked}, seed=seed, samples=samples,
    )  # fmt: skip


def gains(c: Comparison, author: str, against: str) -> list[dict[str, Any]]:
    """Rows of what (all, then each kind), n, both means, and the paired difference with its interval."""
    kinds: Sequence[str] = sorted({p.kind for p in c.prompts})
    rows = []
    for name in ("all", *kinds):
        chosen = np.array([name in ("all", p.kind) for p in c.prompts])
        difference, ci = c.interval(c.deltas(author, against)[chosen])
        rows.append(
            {
                "what": name,
                "n": int(chosen.sum()),
                "author": author,
                "against": against,
                "gold": c.interval(c.gold(author)[chosen])[0],
                "gold_of_other": c.interval(c.gold(against)[chosen])[0],
                "difference": difference,
                "difference_ci": ci,
                "wins": c.interval(c.wins(author, against)[chosen])[0],
            }
        )
    return rows


def table(c: Comparison) -> list[dict[str, Any]]:
    """All that the page and the report say in figures: tuned against SFT, against the blind control, and that against SFT."""
    pairs = (("dialogue", "sft"), ("dialogue", "dialogue_blind"), ("dialogue_blind", "sft"))
    return [row for a, b in pairs if {a, b} <= set(c.authors) for row in gains(c, a, b)]
