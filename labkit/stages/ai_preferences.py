"""AI preferences: the critic says which of two answers is better, for the same answers that people ranked.

    P(a ≻ b | x) = σ(½[z(a, b) − z(b, a)] / τ)      z: log-odds of "A" over "B"; τ from the critic's run

in      the critic run; the preferences run, of which the answers are taken and the ranks only measured against
out     votes by a model in the store; how far it agrees with people and, where known, with gold
watch   does it choose what stands first too often (position)? its own family's answers (self-preference)?
left out  reasons before the verdict, several votes a pair, soft labels
source  Bai et al. (2022), Constitutional AI, section 4.1; Lee et al. (2023), RLAIF, sections 3.1 and 4
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from labkit import constitution
from labkit.errors import LabError
from labkit.recipe import Settings as Section
from labkit.records import Prompt, Vote, digest, read_jsonl, write_jsonl

if TYPE_CHECKING:
    from labkit.job import Job

VERSION = 1
TEXT_BY: dict[str, float] = {}  # nothing is trained
READS_VOTES = True
RATER = "critic"
PART = 500  # pairs between two lines of the log
OWN = 400  # pairs at most in which a model's answer meets a person's


class Settings(Section):
    pairs: int = Field(
        8000, ge=0, description="pairs of answers to training prompts that it judges, drawn at random; 0: all"
    )
    alike: float = Field(
        0.25, ge=0, description="units of gold: a model's and a person's answer closer than this are of like quality"
    )
    threads: int = Field(1, ge=1, description="CPU threads; part of the run's identity")


@dataclass(frozen=True, slots=True)
class Judged:
    """One pair with its log-odds (first is better), shown in this order and in the other."""

    prompt: Prompt
    first: str
    second: str
    z: tuple[float, float]

    @property
    def mean(self) -> float:
        """Free of any leaning towards a letter."""
        return sum(self.z) / 2


def dataset(votes: Iterable[Vote], split: str, *, limit: int = 0, seed: int = 0) -> list[constitution.Compared]:
    """Distinct pairs of the answers that people were shown, in an order that says nothing of what they thought."""
    found: dict[tuple[str, str, str], constitution.Compared] = {}
    for vote in votes:
        if vote.prompt.split == split:
            for a, b in combinations(sorted(set(vote.answers), key=lambda text: digest([vote.prompt.id, text], 12)), 2):
                found[vote.prompt.id, a, b] = (vote.prompt, a, b)
    pairs = list(found.values())
    random.Random(seed).shuffle(pairs)
    return pairs[: limit or len(pairs)]


def judge(
    job: Job, model: Any, tokenizer: Any, pairs: Sequence[constitution.Compared], *, log: bool = False
) -> list[Judged]:
    """The critic's verdicts; pairs that do not fit its context are left out."""
    by, context = constitution.of(job.parents["critic"]), job.recipe["model"].context
    found: list[Judged] = []
    for start in range(0, len(pairs), PART):
        part = pairs[start : start + PART]
        z = constitution.log_odds(model, tokenizer, by, part, context=context)
        found += [
            Judged(*pair, (float(a), float(b))) for pair, (a, b) in zip(part, z, strict=True) if not np.isnan(a + b)
        ]
        if log:
            job.log(start + len(part), len(pairs), judged=len(found))
            if job.stops(start + len(part), len(pairs)):
                break
    return found


def votes_of(job: Job, judged: Iterable[Judged]) -> list[Vote]:
    """Each verdict as a vote by a model; its id is made of what was judged: making it again stores nothing new."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return [
        Vote(
            id=digest([job.id, j.prompt.id, j.first, j.second], 20), prompt=j.prompt, answers=(j.first, j.second),
            ranks=(1 + (j.mean < 0), 1 + (j.mean > 0)), shown=(0, 1), rater=RATER, source="model", time=now, run=job.id,
        )
        for j in judged
    ]  # fmt: skip


def share(prompts: Sequence[str], hits: Any, *, seed: int, samples: int) -> tuple[float, list[float]]:
    """The mean over prompts of each one's share of hits, with its interval: a prompt's pairs stand and fall together."""
    from labkit import statistics

    _, of = np.unique(np.array(prompts), return_inverse=True)
    means = np.bincount(of, np.asarray(hits, dtype=float)) / np.bincount(of)
    middle, low, high = statistics.paired_bootstrap(means, seed=seed, samples=samples)
    return round(middle, 4), [round(low, 4), round(high, 4)]


def measure(job: Job, judged: Sequence[Judged], votes: Iterable[Vote], tau: float) -> dict[str, Any]:
    """How far the verdicts agree with people, with gold, with length and with themselves when the order is turned."""
    by_pair = {(j.prompt.id, *order): j for j in judged for order in ((j.first, j.second), (j.second, j.first))}
    ranked = [(p, j) for v in votes for p in v.pairs() if (j := by_pair.get((p.prompt.id, p.chosen, p.rejected)))]
    golds = {(j.prompt.id, t): job.source.grade(j.prompt, t)[0] for j in judged for t in (j.first, j.second)}
    gap = [(golds[j.prompt.id, j.first] or 0.0) - (golds[j.prompt.id, j.second] or 0.0) for j in judged]
    known = None not in golds.values()
    found: dict[str, Any] = {"pairs": len(judged), "pairs_of_people": len(ranked)}
    alike = [(j.mean > 0) == (p.chosen == j.first) for p, j in ranked]
    longer = [(j, len(j.first) > len(j.second)) for j in judged if len(j.first) != len(j.second)]
    rows: dict[str, list[tuple[str, float]]] = {
        "agrees_with_people": [(p.prompt.id, a) for (p, _), a in zip(ranked, alike, strict=True)],
        "agrees_with_gold": [(j.prompt.id, (j.mean > 0) == (g > 0)) for j, g in zip(judged, gap, strict=True) if known and g],
        "people_agree_with_gold": [
            (p.prompt.id, g > 0)
            for p, _ in ranked
            if known and (g := golds[p.prompt.id, p.chosen] - golds[p.prompt.id, p.rejected])  # type: ignore[operator]
        ],
        "chooses_longer": [(j.prompt.id, (j.mean > 0) == first) for j, first in longer],
        "people_choose_longer": [(p.prompt.id, len(p.chosen) > len(p.rejected)) for p, _ in ranked if len(p.chosen) != len(p.rejected)],
        "same_in_both_orders": [(j.prompt.id, (j.z[0] > 0) == (j.z[1] > 0)) for j in judged],
        "chooses_first": [(j.prompt.id, ((j.z[0] > 0) + (j.z[1] < 0)) / 2) for j in judged],
    }  # fmt: skip
    for name, hits in rows.items():
        if hits:
            middle, ci = share(*zip(*hits, strict=True), seed=job.seed, samples=job.recipe["answers"].bootstrap)
            found |= {name: middle, f"{name}_ci": ci}
    if ranked:
        sure = constitution.confidence(np.array([j.z for _, j in ranked]), tau)
        found["calibration"] = calibration(np.maximum(sure, 1 - sure), np.array(alike))
    return found


def calibration(confidence: np.ndarray, right: np.ndarray, bins: int = 5) -> list[dict[str, float]]:
    """Pairs in groups of like size by how sure the critic is: rows of confidence, accuracy, n."""
    groups = np.array_split(np.argsort(confidence, kind="stable"), min(bins, len(confidence)))
    return [
        {"confidence": round(float(confidence[g].mean()), 4), "accuracy": round(float(right[g].mean()), 4), "n": len(g)}
        for g in groups
    ]


def agreement(figures: dict[str, Any]) -> list[dict[str, Any]]:
    """What `measure` found, for a picture of who agrees with whom: rows of who, agreement and ci."""
    names = {
        "people and gold": "people_agree_with_gold",
        "critic and gold": "agrees_with_gold",
        "critic and people": "agrees_with_people",
        "critic and “the longer one”": "chooses_longer",
        "people and “the longer one”": "people_choose_longer",
        "critic and itself, order turned": "same_in_both_orders",
    }
    return [{"who": w, "agreement": figures[k], "ci": figures[f"{k}_ci"]} for w, k in names.items() if k in figures]


def against_people(job: Job) -> list[constitution.Compared]:
    """SFT's own answer and a person's demonstration for the same training prompt, of like gold where gold is known: one pair a
    prompt, the closest; prompts that the critic had lessons on are left out, and answers that came with the data, which the model did not write."""
    taught = {row["prompt"]["id"] for row in read_jsonl(job.parents["critic"].path / "lessons.jsonl")}
    people: dict[str, list[str]] = {}
    for d in job.source.demonstrations():
        people.setdefault(d.prompt.id, []).append(d.text)
    found = {}
    for vote in job.votes:
        prompt = vote.prompt
        if prompt.split != "train" or vote.source == "import" or prompt.id in taught or prompt.id in found:
            continue
        golds = {t: job.source.grade(prompt, t)[0] for t in (*vote.answers, *people.get(prompt.id, ()))}
        gaps = {
            (own, theirs): abs((golds[own] or 0.0) - (golds[theirs] or 0.0))
            for own in vote.answers
            for theirs in people.get(prompt.id, ())
            if own != theirs
        }
        best = min(gaps, key=lambda two: gaps[two], default=None)
        if best and gaps[best] <= job.settings.alike:
            found[prompt.id] = (prompt, *best)
    return list(found.values())


def self_preference(job: Job, model: Any, tokenizer: Any) -> dict[str, Any] | None:
    """How often it prefers what its own family wrote, one half if it is fair; None with nothing to compare."""
    judged = judge(job, model, tokenizer, against_people(job)[:OWN])
    if not judged:
        return None
    middle, ci = share(
        [j.prompt.id for j in judged],
        [j.mean > 0 for j in judged],
        seed=job.seed,
        samples=job.recipe["answers"].bootstrap,
    )
    gold = job.source.grade(judged[0].prompt, judged[0].first)[0]
    return {"chooses_own": middle, "chooses_own_ci": ci, "pairs": len(judged), "like_quality": gold is not None}


def run(job: Job) -> None:
    from labkit import models

    critic = job.parents["critic"]
    model, tokenizer = models.load(critic.model, device=job.device, dtype=job.recipe["model"].dtype)
    tau = critic.summary.get("held_out", {}).get("temperature", 1.0)
    pairs = dataset(job.votes, "train", limit=job.settings.pairs, seed=job.seed)
    with job.phase("judge"):
        judged = judge(job, model, tokenizer, pairs, log=True)
    if not judged:
        raise LabError(
            "The critic has judged no pair of answers: collect votes on page 04_preferences, or raise model.context, which "
            "must hold a question, two answers and the request."
        )
    with job.phase("measure"):
        held_out = {s: judge(job, model, tokenizer, dataset(job.votes, s)) for s in ("validation", "test")}
        for split, its in held_out.items():
            if its:
                job.summary[split] = measure(job, its, job.votes, tau)
        if own := self_preference(job, model, tokenizer):
            job.summary["self_preference"] = own
    votes = votes_of(job, [*judged, *held_out["validation"]])
    job.lab.votes.add(*votes)
    write_jsonl(job.folder / "votes.jsonl", votes)
    sure = constitution.confidence(np.array([j.z for j in judged]), tau)
    sure = np.maximum(sure, 1 - sure)
    job.summary.update(
        votes=len(votes), left_out=len(pairs) - len(judged), mean_confidence=round(float(sure.mean()), 4)
    )
    job.cost.update(tokens=0, targets=len(votes), bits=0.0)  # no person gave any of them
