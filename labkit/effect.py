"""What a retraining changed: the same prompts before and after, each figure with an interval over prompts.

Before and after are two finished runs; nothing here needs weights or torch. Only validation prompts are looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from labkit import compare
from labkit.compare import Comparison
from labkit.records import Answer, Prompt, digest
from labkit.runs import Run
from labkit.statistics import paired_bootstrap, wilson
from labkit.theme import duration, interval, label, listed, number

SPLIT = "validation"
ROLES = ("before", "after")
Count = Callable[[Prompt, str], float | None]
GRADES = {
    "correct": "correct", "refuses": "refuses harm", "over_refuses": "over-refuses", "rude": "rude", "on_topic": "on topic",
    "repetitive": "repetitive", "finished": "finished",
}  # fmt: skip


@dataclass(frozen=True)
class Retrained:
    """One retraining: the run that stood before, the one that came of it, and the reward model trained beside it, if any.

    `votes` counts what it learned from (pairs, thumbs, edits, simulated, held_out). `held_out` has rows of judge, on, n,
    before, after, each with `_ci`: how often a judge orders pairs as they were voted that nothing was trained on. `examples`
    are prompts with one answer before and one after, by the same dice. `counted` is what an exercise counts, by its label.
    """

    method: str
    mix: str
    before: Run
    after: Run
    reward: Run | None
    votes: dict[str, int]
    held_out: list[dict[str, Any]]
    examples: list[tuple[Prompt, Answer, Answer]]
    counted: dict[str, tuple[Count, str]] = field(default_factory=dict)
    samples: int = 2000
    seconds: float = 0.0

    def comparison(self) -> Comparison:
        """Both runs on the validation prompts, by gold, or by what needs no judge where there is no gold."""
        both = [self.before, self.after]
        return compare.join(both, split=SPLIT, score=None, reference=self.before.name, samples=self.samples)

    def rows(self) -> list[dict[str, Any]]:
        """Rows of measure, before, after, difference and form, the middle three with `_ci`: what the exercise counts first. What
        never happens, before or after, is left out."""
        c = self.comparison()
        found = [_row(c, label, _mean(c, count), form) for label, (count, form) in self.counted.items()]
        if "words in an answer" not in self.counted:
            found.append(_row(c, "words in an answer", _mean(c, lambda _, text: float(len(text.split()))), ".1f"))
        if c.score:
            found.append(_row(c, f"{c.score} score", c.gold, ".2f"))
        found += [_row(c, label, partial(_grade, c, name), ".0%") for name, label in GRADES.items()]
        return [row for row in found if row["before"] is not None and (row["before"] or row["after"])]

    def wins(self) -> tuple[float | None, list[float] | None]:
        """How often the answer after is better than the one before, ties half, by gold; (None, None) where there is none."""
        c = self.comparison()
        return c.interval(c.wins(self.after.name))

    def told(self) -> dict[str, Any]:
        """All of it in words and figures as people read them, plain JSON: for a view, or a page."""
        rows = [_told(row) for row in self.rows()]
        wins, ci = self.wins()
        first, v = rows[0], self.votes
        learned = [
            f"{v['pairs']} pairs" if v["pairs"] else "", f"{v['thumbs']} thumbs" if v["thumbs"] else "",
            f"{v['edits']} answers of your own" if v["edits"] else "",
            f"{v['simulated']} simulated pairs" if v["simulated"] else "",
        ]  # fmt: skip
        verdict = "more than chance would do" if first["clear"] else "which may be chance"
        return {
            "title": f"{first['measure'].capitalize()}: {first['before']} → {first['after']}",
            "said": f"The difference is {first['difference']}, {verdict}. {self.method.upper()} on "
            f"{listed(x for x in learned if x)}, from {label(self.before.name)}, in {duration(self.seconds)}.",
            "wins": "" if wins is None else f"The answer after is better than the one before {interval(wins, ci, '.0%')} of the time.",
            "rows": rows,
            "held_out": [_judged(row) for row in self.held_out],
            "examples": [{"prompt": p.text, "before": b.text, "after": a.text} for p, b, a in self.examples],
            "runs": [run.id for run in (self.after, self.reward) if run],
        }  # fmt: skip


def _told(row: dict[str, Any]) -> dict[str, Any]:
    """A row as text; `clear` where the interval of the difference leaves out zero."""
    low, high = row["difference_ci"] or (0.0, 0.0)
    form = row["form"]
    return {
        "measure": row["measure"], "before": number(row["before"], form), "after": number(row["after"], form),
        "difference": interval(row["difference"], row["difference_ci"], f"+{form}"), "clear": bool(low > 0 or high < 0),
    }  # fmt: skip


def _judged(row: dict[str, Any]) -> dict[str, Any]:
    """A row of `held_out` as text."""
    return {k: row[k] for k in ("judge", "on", "n")} | {k: interval(row[k], row[f"{k}_ci"], ".0%") for k in ROLES}


def _grade(c: Comparison, name: str, author: str) -> np.ndarray:
    return c.measured(author, name)


def _mean(c: Comparison, count: Count) -> Callable[[str], np.ndarray]:
    """What is counted in an answer, averaged over an author's answers to each prompt; NaN where it does not arise."""

    def of(author: str) -> np.ndarray:
        out = []
        for prompt in c.prompts:
            known = [v for a in c.answers[author][prompt.id] if (v := count(prompt, a.text)) is not None]
            out.append(np.mean(known) if known else np.nan)
        return np.array(out, dtype=float)

    return of


def _row(c: Comparison, measure: str, of: Callable[[str], np.ndarray], form: str) -> dict[str, Any]:
    before, after = (of(author) for author in (c.reference, _other(c)))
    row: dict[str, Any] = {"measure": measure, "form": form}
    for name, values in (("before", before), ("after", after), ("difference", after - before)):
        row[name], row[f"{name}_ci"] = c.interval(values)
    return row


def _other(c: Comparison) -> str:
    return next(author for author in c.authors if author != c.reference)


def share_ordered(
    gaps: np.ndarray, prompts: Sequence[str], *, samples: int, seed: int = 0
) -> tuple[float, list[float]]:
    """The share of pairs whose chosen answer got the higher score (`gaps` are chosen minus rejected, (N,)), ties half, and its
    interval over prompts (`prompts` are their ids): Wilson's where all are ordered alike."""
    _, of = np.unique(np.array(prompts), return_inverse=True)
    each = np.bincount(of, (np.sign(gaps) + 1) / 2) / np.bincount(of)
    mean, low, high = paired_bootstrap(each, seed=seed, samples=samples)
    if mean in (0.0, 1.0):  # resampling knows no doubt where all is alike
        low, high = wilson(mean, len(each))
    return round(mean, 4), [round(low, 4), round(high, 4)]


def spread(prompts: Sequence[Prompt], n: int) -> list[Prompt]:
    """`n` of the prompts: one a kind in turn, the first by digest, so that nobody picks."""
    queues: dict[str, list[Prompt]] = {}
    for p in sorted(prompts, key=lambda p: digest(p.id, 12)):
        queues.setdefault(p.kind, []).append(p)
    chosen: list[Prompt] = []
    while len(chosen) < min(n, len(prompts)):
        chosen += [queue.pop(0) for _, queue in sorted(queues.items()) if queue][: n - len(chosen)]
    return chosen
