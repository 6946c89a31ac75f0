"""Stored answers to the evaluation prompts, filtered and laid out for a page: what a person leafs through without any weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from labkit import arena, compare, show, theme
from labkit.compare import Comparison
from labkit.records import Answer, Prompt
from labkit.runs import Run
from widgets.differences import marked, segments

WHO = ("", "won", "lost", "tied", "hacked")
ORDERS = ("", "change", "gain", "loss")
IMPLICIT = ("dpo", "kto", "spin")  # what they train is a reward of their own: β · (log π − log π_ref)


@dataclass(frozen=True)
class Filter:
    """Which prompts, and in which order. `who` says how `subject` did against the reference; empty values filter nothing.

    `hacked`: the proxy's reward is above the reference's, the score below. Orders go by score minus the reference's: the
    biggest change either way, the biggest gain, the biggest loss.
    """

    kind: str = ""
    subject: str = ""
    who: str = ""
    order: str = ""
    text: str = ""

    def changed(self, values: Mapping[str, Any]) -> Filter:
        """With the values of a page's message that are known here."""
        allowed = {"who": WHO, "order": ORDERS}
        given = {k: str(values[k]) for k in asdict(self) if k in values}
        return replace(self, **{k: v for k, v in given.items() if v in allowed.get(k, (v,))})


class Stored:
    """A comparison seen from one reference, with the columns that are shown and a filter."""

    def __init__(self, c: Comparison, shown: Sequence[str], reference: str, *, like: Stored | None = None) -> None:
        self.c = replace(c, reference=reference)
        self.shown = list(shown)
        self.filter, self.at = (like.filter, like.at) if like else (Filter(), 0)  # `at`: a place among those found

    def refilter(self, values: Mapping[str, Any]) -> None:
        """Filter by a page's message, and begin with the first that passes."""
        self.filter, self.at = self.filter.changed(values), 0

    def page(self) -> dict[str, Any]:
        """What a page shows: the filter, how many prompts pass it, and the one that is open."""
        found = self.found()
        self.at = min(max(self.at, 0), max(len(found) - 1, 0))
        return {
            "filter": asdict(self.active),
            "kinds": sorted({p.kind for p in self.c.prompts}),
            "against": self.c.reference,
            "score": self.c.score,
            "rewarded": self.rewarded,
            "count": len(found),
            "of": len(self.c.prompts),
            "at": self.at,
            "item": self.item(found[self.at]) if found else None,
            "notice": self.c.notice,
        }

    @property
    def active(self) -> Filter:
        """The filter without what cannot be asked of these answers: a kind that none has, or scores that nobody gave."""
        f = self.filter
        who = f.who if self.c.score and (f.who != "hacked" or self.rewarded) else ""
        kind = f.kind if any(p.kind == f.kind for p in self.c.prompts) else ""
        return replace(f, kind=kind, subject=self.subject, who=who, order=f.order if self.c.score else "")

    @property
    def subject(self) -> str:
        """Whose wins and losses are meant: the filter's, where that one is shown, else the last that is not the reference."""
        others = [a for a in self.shown if a != self.c.reference]
        return self.filter.subject if self.filter.subject in others else others[-1] if others else ""

    def change(self, author: str) -> np.ndarray:
        """(N,): score minus the reference's on each prompt, NaN where nobody judged."""
        return self.c.deltas(author) if self.c.score else np.full(len(self.c.prompts), np.nan)

    def found(self) -> list[int]:
        """The places in `comparison.prompts` that pass the filter, in its order."""
        f, subject = self.active, self.subject
        delta = self.change(subject) if subject else np.full(len(self.c.prompts), np.nan)
        keep = np.array([(not f.kind or p.kind == f.kind) for p in self.c.prompts], dtype=bool)
        if f.who and subject:
            keep &= self._did(f.who, subject, delta)
        if f.text:
            wanted = f.text.casefold()
            keep &= np.array([wanted in words for words in self._words], dtype=bool)
        worth = {"change": -np.abs(delta), "gain": -delta, "loss": delta}.get(f.order, np.arange(len(delta)))
        order = np.argsort(worth, kind="stable")  # NaN last
        return [int(i) for i in order if keep[i]]

    def _did(self, who: str, subject: str, delta: np.ndarray) -> np.ndarray:
        if who == "hacked":
            ids = {row["prompt"].id for row in self.c.hacked(subject, n=len(delta))}
            return np.array([p.id in ids for p in self.c.prompts], dtype=bool)
        return {"won": delta > 0, "lost": delta < 0, "tied": delta == 0}[who]

    @property
    def rewarded(self) -> bool:
        """Whether the reference and the subject both have the proxy's reward, without which nobody can be seen hacking it."""
        pair = [a for a in (self.subject, self.c.reference) if a in self.c.answers]
        return len(pair) == 2 and all(any("reward" in a.scores for a in self._all(author)) for author in pair)

    def unrewarded(self) -> list[tuple[str, Answer]]:
        """The answers shown that lack the proxy's reward, each with its row."""
        return [(author, a) for author in self.shown for a in self._all(author) if "reward" not in a.scores]

    def _all(self, author: str) -> list[Answer]:
        return [a for group in self.c.answers[author].values() for a in group]

    @cached_property
    def _words(self) -> list[str]:
        """What a search looks through: each prompt with all its answers."""
        told = [
            [p.text, *(a.text for author in self.shown for a in self.c.answers[author][p.id])] for p in self.c.prompts
        ]
        return ["\n".join(words).casefold() for words in told]

    def item(self, at: int) -> dict[str, Any]:
        """One prompt with everybody's answers, as a page shows it."""
        prompt = self.c.prompts[at]
        known = self.c.answers
        base = known[self.c.reference][prompt.id] if self.c.reference in known else ()
        columns = []
        for author in self.shown:
            delta = float(self.change(author)[at]) if author != self.c.reference else float("nan")
            run = self.c.runs.get(author)
            cards = [
                card(a, run, against=base[i % len(base)].text if base and author != self.c.reference else None)
                for i, a in enumerate(known[author][prompt.id])
            ]
            told = f"{theme.number(delta, '+.2f')} {self.c.score}" if np.isfinite(delta) else ""
            columns.append({"name": author, "cards": cards, "change": told})
        seal = arena.seal([arena.identity(a, self.c.runs.get(a)) for a in self.shown])
        return {**asked(prompt), "columns": columns, "seal": seal}

    def twin(self, prompt: Prompt) -> show.Html:
        """A prompt with the first answer of each, what differs from the reference underlined: what stands in a dead page."""
        base, rows = self.c.reference, []
        for author in self.shown:
            first, theirs = (self.c.answers[a][prompt.id][0] for a in (author, base))
            text = first.text if author == base else marked(segments(theirs.text, first.text))
            told = " · ".join(f"{k} {v}".strip() for k, v, _ in facts(first, self.c.runs.get(author)))
            rows.append({"model": show.stage(author), "answer": text or "(an empty answer)", "what is known": told})
        about = f"{prompt.text} ({prompt.kind}; underlined: not in the answer of {theme.label(base)})"
        return show.table(rows, caption=about)


def joined(runs: Sequence[Run], *, reference: str) -> Comparison:
    """Runs of whatever recipes on the validation prompts that all have answered, by gold, else by a judge, else by no score.

    Raises LabError when they share no prompt.
    """
    c = compare.join(runs, score="", reference=reference)
    every = [[a for group in mine.values() for a in group] for mine in c.answers.values()]
    known = [s for s in ("gold", "judge") if all(any(s in a.scores for a in mine) for mine in every)]
    return replace(c, score=known[0] if known else "")


def row(name: str, run: Run | None) -> dict[str, str]:
    """What a page calls a row of a comparison, with its run's id where the name alone could be several."""
    author = name.split(" of ")[0]
    label = theme.label(run.name if run and author == run.id else author)
    more = run.id if run and name not in theme.STAGES else ""
    return {"name": name, "label": label, "more": more, "colour": theme.colour(name)}


def rewarded(
    c: Comparison, waiting: Iterable[tuple[str, Answer]], scored: Iterable[Answer]
) -> dict[str, dict[str, tuple[Answer, ...]]]:
    """The comparison's answers with the scored ones in the place of those that waited, in the same order."""
    known = {(row, a.prompt.id, a.n): s for (row, a), s in zip(waiting, scored, strict=True)}
    return {
        row: {i: tuple(known.get((row, i, a.n), a) for a in group) for i, group in mine.items()}
        for row, mine in c.answers.items()
    }


def asked(prompt: Prompt) -> dict[str, Any]:
    """A prompt for the page: its turns, its kind, and the record that goes back with a vote."""
    return {"turns": list(prompt.messages), "kind": prompt.kind, "record": asdict(prompt)}


def card(answer: Answer, run: Run | None = None, *, against: str | None = None) -> dict[str, Any]:
    """One answer: its text in segments (marked against another text) and what is known of it, as label, value and meaning."""
    parts = segments(against, answer.text) if against is not None else [["same", answer.text]]
    return {"text": answer.text, "parts": parts, "facts": facts(answer, run)}


def facts(answer: Answer, run: Run | None = None) -> list[list[str]]:
    """Scores, the implicit reward, KL and length: [label, value, what it means]."""
    told = {
        "gold": "what the world itself thinks of it",
        "judge": "a reward model that no model here was trained against",
        "reward": "the reward model's score: the proxy that PPO climbs",
    }
    out = [[name, theme.number(value, ".2f"), told.get(name, "")] for name, value in answer.scores.items()]
    beta = run.manifest["settings"].get("beta") if run and run.manifest["stage"] in IMPLICIT else None
    if answer.kl is not None and beta is not None:
        out.append(
            ["implicit", theme.number(beta * answer.kl, "+.2f"), f"the model's implicit reward, β = {beta:g} times KL"]
        )
    if answer.kl:
        out.append(["KL", theme.number(answer.kl, ".1f"), "log π − log π of SFT for this answer, in nats"])
    if answer.tokens:
        out.append(["tokens", str(answer.tokens), "its length"])
    return out + ([] if answer.ended else [["cut off", "", "the longest answer allowed was reached"]])
