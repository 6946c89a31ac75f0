"""Compare runs on the same prompts: means, paired differences and win rates, each with an interval over prompts.

A prompt is the unit of chance: its answers stand and fall together, so every interval resamples whole prompts (a
cluster bootstrap; Efron and Tibshirani 1993, ch. 8), and differences between two models resample the *same* prompts for both.
Comparing is a join: the scores stand in answers.jsonl, so it needs neither weights nor torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from labkit.errors import LabError
from labkit.records import Answer, Prompt, digest
from labkit.runs import Run
from labkit.statistics import distinct, paired_bootstrap, win_rates

CONTROLS = (
    "sft_twice",
    "dpo_shuffled",
    "feedme_random",
    "expert_random",
    "sl_cai_lessons",
    "dialogue_blind",
    "sft_mixed",
    "sft_closed",
    "sft_task",
    "sft_held_out",
    "sft_definitions",
    "sft_lora",
    "self_instruct_seeds",
    "textbook_web",
)
LADDER = (
    "pretrain",
    "prompted",
    "prompt_search",
    "soft_prompt",
    "prefix",
    "textbook",
    "self_instruct",
    "unnatural",
    "sft",
    "best_of_n",
    "feedme",
    "expert",
    "spin",
    "kto",
    "sl_cai",
    "rlaif",
    "dialogue",
    "ppo",
    "rloo",
    "grpo",
    "dpo",
    *CONTROLS,
)
JUDGES = ("gold", "judge")


@dataclass(frozen=True)
class Comparison:
    """Answers of several authors to the same prompts of one split.

    `answers[author][prompt id]` are one author's answers to one prompt; every author has answered every prompt of
    `prompts`. `left_out[author]` counts that author's prompts that some other author did not answer.
    """

    split: str
    score: str
    reference: str
    prompts: tuple[Prompt, ...]
    answers: Mapping[str, Mapping[str, tuple[Answer, ...]]]
    runs: Mapping[str, Run]
    left_out: Mapping[str, int] = field(default_factory=dict)
    seed: int = 0
    samples: int = 2000

    @property
    def authors(self) -> list[str]:
        """Who is compared, in the order of the ladder, controls last."""
        return list(self.answers)

    @property
    def notice(self) -> str:
        """Says in a sentence which prompts had to be left out; empty when every author answered every prompt."""
        gone = {a: n for a, n in self.left_out.items() if n}
        if not gone:
            return ""
        listed = ", ".join(f"{a} {n}" for a, n in gone.items())
        return f"Only the {len(self.prompts)} prompts that all have answered are compared; left out: {listed}."

    def scores(self, author: str, score: str = "") -> list[np.ndarray]:
        """The author's scores, one array a prompt."""
        name = score or self.score
        mine = self.answers[author]
        return [np.array([a.scores[name] for a in mine[p.id] if name in a.scores], dtype=float) for p in self.prompts]

    def gold(self, author: str) -> np.ndarray:
        """(N,): the author's mean score on each prompt; NaN where nobody judged."""
        mine = self.answers[author]
        return np.array([_mean(a.scores.get(self.score) for a in mine[p.id]) for p in self.prompts])

    def deltas(self, author: str, against: str = "") -> np.ndarray:
        """(N,): mean score minus that of `against` (the reference unless given), prompt by prompt."""
        return self.gold(author) - self.gold(against or self.reference)

    def wins(self, author: str, against: str = "") -> np.ndarray:
        """(N,): the share of pairs of answers to each prompt that the author wins, ties half."""
        if not self.score:
            return np.full(len(self.prompts), np.nan)
        return win_rates(self.scores(author), self.scores(against or self.reference))

    def measured(self, author: str, name: str) -> np.ndarray:
        """(N,): a grade (`rude`), or `kl` or `tokens`, averaged over a prompt's answers; NaN for none."""
        mine, own = self.answers[author], name in ("kl", "tokens")
        return np.array(
            [_mean(getattr(a, name) if own else a.grades.get(name) for a in mine[p.id]) for p in self.prompts]
        )

    def interval(self, values: np.ndarray) -> tuple[float | None, list[float] | None]:
        """Mean and [low, high] of one value a prompt, to six digits; (None, None) where no prompt has a value."""
        values = values[~np.isnan(values)]
        if not len(values):
            return None, None
        mean, low, high = paired_bootstrap(values, seed=self.seed, samples=self.samples)
        return round(mean, 6), [round(low, 6), round(high, 6)]

    def rows(self) -> list[dict[str, Any]]:
        """The ladder: one row an author; a figure that is not defined is None."""
        return [dict(row) for row in self._rows]

    @cached_property
    def _rows(self) -> list[dict[str, Any]]:
        return [self._row(author) for author in self.authors]

    def _row(self, author: str) -> dict[str, Any]:
        run = self.runs[author]
        harmful = np.array([p.kind == "harmful" for p in self.prompts])
        gold, gold_ci = self.interval(self.gold(author))
        difference = self.interval(self.deltas(author)) if self.reference in self.answers else (None, None)
        over_sft = self.interval(self.wins(author)) if self.reference in self.answers else (None, None)
        over_base = self.interval(self.wins(author, "pretrain")) if "pretrain" in self.answers else (None, None)
        kl, kl_ci = self.interval(self.measured(author, "kl"))
        own = [a for p in self.prompts for a in self.answers[author][p.id]]
        variety = distinct(a.text for a in own)
        nll = run.summary.get("web_nll")
        return {
            "stage": author,
            "run": run.id,
            "n_prompts": len(self.prompts),
            "n_answers": len(own),
            "gold": gold,
            "gold_ci": gold_ci,
            "gold_minus_sft": difference[0],
            "gold_minus_sft_ci": difference[1],
            "win_over_sft": over_sft[0],
            "win_over_sft_ci": over_sft[1],
            "win_over_base": over_base[0],
            "win_over_base_ci": over_base[1],
            "correct": self.interval(self.measured(author, "correct"))[0],
            "refuse_harm": self.interval(self.measured(author, "refuses")[harmful])[0],
            "over_refuse": self.interval(self.measured(author, "over_refuses")[~harmful])[0],
            "rude": self.interval(self.measured(author, "rude"))[0],
            "on_topic": self.interval(self.measured(author, "on_topic"))[0],
            "distinct_2": None if variety is None else round(variety, 6),
            "kl": kl,
            "kl_ci": kl_ci,
            "tokens": self.interval(self.measured(author, "tokens"))[0],
            "web_nll": nll.get(author) if isinstance(nll, Mapping) else nll,
            # the seconds of the training that made this row; prompting a finished model takes none
            "seconds": None if author == "prompted" else run.manifest.get("seconds"),
        }

    def by_kind(self) -> list[dict[str, Any]]:
        """The mean score by kind of prompt and author: rows of kind, stage, n_prompts, gold, gold_ci."""
        kinds = sorted({p.kind for p in self.prompts})
        rows = []
        for author in self.authors:
            scores = self.gold(author)
            for kind in kinds:
                chosen = np.array([p.kind == kind for p in self.prompts])
                gold, ci = self.interval(scores[chosen])
                row = {"kind": kind, "stage": author, "n_prompts": int(chosen.sum()), "gold": gold, "gold_ci": ci}
                rows.append(row)
        return rows

    def best_examples(self, n: int = 8) -> list[dict[str, Any]]:
        """A handful of prompts with everybody's answers: one a kind in turn, the first by digest, so nobody picks.

        Rows of prompt, why, answers {author: [Answer, ...]}.
        """
        queues: dict[str, list[Prompt]] = {}
        for p in sorted(self.prompts, key=lambda p: digest(p.id, 12)):
            queues.setdefault(p.kind, []).append(p)
        chosen: list[Prompt] = []
        while len(chosen) < min(n, len(self.prompts)):
            chosen += [queue.pop(0) for _, queue in sorted(queues.items()) if queue][: n - len(chosen)]
        return [self._example(p, p.kind) for p in chosen]

    def extremes(self, author: str, n: int = 2) -> list[dict[str, Any]]:
        """The author's `n` biggest wins over the reference, then its `n` biggest losses, with their delta."""
        deltas = self.deltas(author)
        order = np.argsort(-deltas, kind="stable")
        won = [i for i in order[:n] if deltas[i] > 0]
        lost = [i for i in order[::-1][:n] if deltas[i] < 0]
        return [
            {**self._example(self.prompts[i], f"{author} {deltas[i]:+.2f}"), "delta": float(deltas[i])}
            for i in [*won, *lost]
        ]

    def hacked(self, author: str, n: int = 4) -> list[dict[str, Any]]:
        """Prompts where the author's proxy reward is above the reference's but its score below; both far apart first.

        Empty where the proxy was not measured; each row has reward_delta and delta.
        """
        reward, base = self.scores(author, "reward"), self.scores(self.reference, "reward")
        deltas = self.deltas(author)
        rows = [
            {
                **self._example(p, "the proxy likes it, gold does not"),
                "reward_delta": float(r.mean() - b.mean()),
                "delta": float(d),
            }
            for p, r, b, d in zip(self.prompts, reward, base, deltas, strict=True)
            if len(r) and len(b) and d < 0 < r.mean() - b.mean()
        ]
        return sorted(rows, key=lambda row: -min(row["reward_delta"], -row["delta"]))[:n]

    def _example(self, prompt: Prompt, why: str) -> dict[str, Any]:
        return {"prompt": prompt, "why": why, "answers": {a: list(self.answers[a][prompt.id]) for a in self.authors}}


def _mean(values: Iterable[float | None]) -> float:
    """The mean of what is known; NaN where nothing is."""
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else math.nan


def answered(runs: Iterable[Run], split: str) -> bool:
    """Whether any of the runs has answers to prompts of that split."""
    return any(run.answers(split) for run in runs)


def highest(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rung with the highest mean, and those whose interval reaches that mean: nobody can tell them apart from it.

    Controls are no rungs: they count where nothing else was compared.
    """
    known = sorted((r for r in rows if r.get("gold") is not None), key=lambda r: -r["gold"])
    known = [r for r in known if r["stage"] not in CONTROLS] or known
    return [r for r in known if r is known[0] or (r.get("gold_ci") or (0, r["gold"]))[1] >= known[0]["gold"]]


def join(
    runs: Iterable[Run],
    *,
    split: str = "validation",
    score: str | None = "gold",
    reference: str = "sft",
    seed: int = 0,
    samples: int = 2000,
) -> Comparison:
    """Join the runs' answers on the prompts that all of them have answered, scored by `score`.

    Two runs with one author (two `dpo` runs) stand apart under their run's id. An empty `score` compares only what needs
    no judge: lengths, refusals, KL. None is the best judge that has scored everybody, never the proxy that a policy climbed.
    Raises LabError when there are no answers, no such score, or no prompt in common.
    """
    groups, owners = _groups(runs, split)
    if not groups:
        raise LabError(f"None of these runs has answers to {split} prompts: name one that answers, such as sft.")
    if score is None:
        score = next((s for s in JUDGES if all(any(s in a.scores for a in own) for own in groups.values())), "")
    table: dict[str, dict[str, list[Answer]]] = {}
    prompts: dict[str, Prompt] = {}
    for author, answers in groups.items():
        scored = [a for a in answers if not score or score in a.scores]
        if not scored:
            known = ", ".join(sorted({s for a in answers for s in a.scores})) or "none"
            raise LabError(f"No answer of {author} has the score '{score}': choose another (known: {known}).")
        for a in scored:
            table.setdefault(author, {}).setdefault(a.prompt.id, []).append(a)
            prompts.setdefault(a.prompt.id, a.prompt)
    shared = set.intersection(*(set(mine) for mine in table.values()))
    if not shared:
        raise LabError(f"These runs share no {split} prompt ({', '.join(table)}): compare runs of one recipe.")
    ids = sorted(shared)
    return Comparison(
        split=split,
        score=score,
        reference=_reference(reference, list(table)),
        prompts=tuple(prompts[i] for i in ids),
        answers={a: {i: tuple(mine[i]) for i in ids} for a, mine in table.items()},
        runs=owners,
        left_out={a: len(mine) - len(shared) for a, mine in table.items()},
        seed=seed,
        samples=samples,
    )


def _reference(wanted: str, authors: list[str]) -> str:
    """The author called `wanted`, or the first of several runs of that name, which stand under their run's id."""
    return wanted if wanted in authors else next((a for a in authors if a.startswith(f"{wanted}-")), wanted)


def _groups(runs: Iterable[Run], split: str) -> tuple[dict[str, list[Answer]], dict[str, Run]]:
    """Answers by author in the ladder's order, and the run that each author belongs to.

    A `compare` run may hold everybody's answers again, with a judge's scores added: then those count.
    """
    by_id = {r.id: r for r in runs}
    found: dict[str, dict[str, list[Answer]]] = {}
    for run in by_id.values():
        for a in run.answers(split):
            found.setdefault(a.author, {}).setdefault(run.id, []).append(a)
    named: dict[str, tuple[list[Answer], Run]] = {}
    for author, by_run in found.items():
        judged = [r for r in by_run if by_id[r].manifest["stage"] == "compare"]
        makers = [r for r in by_run if r not in judged] or judged
        for run_id in makers:
            name = author if len(makers) == 1 else run_id if author == by_id[run_id].name else f"{author} of {run_id}"
            home = "pretrain" if author == "prompted" else author
            by_name = {r.name: r for r in by_id.values()}
            owner = by_name.get(home, by_id[run_id]) if run_id in judged else by_id[run_id]
            named[name] = (by_run[judged[-1] if judged and len(makers) == 1 else run_id], owner)
    place = {a: i for i, a in enumerate(LADDER)}
    ranked = sorted(named, key=lambda n: (place.get(n, place.get(named[n][1].name, len(place))), n))
    return {n: named[n][0] for n in ranked}, {n: named[n][1] for n in ranked}
