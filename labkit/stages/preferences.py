"""Preferences: the SFT model answers each prompt several times, and annotators rank the answers.

    P(y_i ≻ y_j | x) = σ((u(x, y_i) − u(x, y_j)) / noise)      Bradley–Terry, for the simulated annotators

in      the SFT run; the source's prompts and annotators (or the pairs that a data set recorded)
out     votes in the store: rankings of K answers to training prompts, and to held-out prompts for measuring
watch   annotators agree with each other less often than one would hope; nothing downstream can be surer than they are
left out  pay, fatigue, instructions to annotators
source  Ouyang et al. (2022), section 3.4 (K = 4 to 9 answers are ranked at once)
"""

from __future__ import annotations

import random
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pydantic import Field

from labkit.recipe import Settings as Section
from labkit.records import Pair, Prompt, Vote, digest, write_jsonl

if TYPE_CHECKING:
    from labkit.job import Job

VERSION = 1
TEXT_BY: dict[str, float] = {}  # nothing is trained


class Settings(Section):
    prompts: int = Field(2000, ge=1, description="training prompts that are ranked")
    answers: int = Field(5, ge=2, le=9, description="K, answers a prompt; K(K−1)/2 pairs come of one ranking")
    held_out_answers: int = Field(
        3, ge=2, le=9, description="answers to each validation and test prompt, for measuring only"
    )
    raters: int = Field(6, ge=1, description="simulated annotators")
    overlap: float = Field(
        0.1, ge=0, le=1, description="share of prompts that two annotators rank, to see whether they agree"
    )
    threads: int = Field(1, ge=1, description="CPU threads; part of the run's identity")


def imported(job: Job) -> list[Vote]:
    """The pairs that a data set recorded, as votes of the rater who recorded them."""
    return [
        _vote(
            job, pair.prompt, (pair.chosen, pair.rejected), (1, 2), rater=job.source.name, source="import", mode="pair"
        )
        for split in ("train", "validation", "test")
        for pair in job.source.pairs(split)
    ]


def simulated(job: Job) -> list[Vote]:
    """Sample K answers a prompt from the SFT model, and let the simulated annotators rank them."""
    from labkit import answers, models
    from labkit.feedback import annotators

    s = job.settings
    model, tokenizer = models.load(job.parents["sft"].model, device=job.device)
    rng = random.Random(job.seed)
    pool = annotators.pool(job.recipe.seed, s.raters)
    train = list(job.source.prompts("train"))
    rng.shuffle(train)
    groups = [(train[: s.prompts], s.answers)]
    groups += [(job.source.prompts(split), s.held_out_answers) for split in ("validation", "test")]
    votes, total, done = [], sum(len(p) for p, _ in groups), 0
    for at, (prompts, k) in enumerate(groups):
        written = answers.write_answers(job, model, tokenizer, prompts, author="sft", seed=job.seed + at, n=k)
        texts = [a for a, _, _ in written]
        for start, prompt in zip(range(0, len(texts), k), prompts, strict=True):
            mine = {a.text: a for a in texts[start : start + k]}  # equal answers stand once
            if len(mine) > 1:
                golds = [job.source.grade(prompt, a.text, ended=a.ended)[0] or 0.0 for a in mine.values()]
                for rater in rng.sample(pool, 2 if rng.random() < s.overlap and len(pool) > 1 else 1):
                    ranks = rater.rank(prompt, list(mine), golds, rng=rng)
                    votes.append(
                        _vote(job, prompt, tuple(mine), ranks, rater=rater.name, source="simulated", mode="ranking")
                    )
        done += len(prompts)
        job.log(done, total, **{"votes": len(votes)})
    return votes


def _vote(job: Job, prompt: Prompt, answers: tuple[str, ...], ranks: tuple[int, ...], **fields: Any) -> Vote:
    """A vote whose id is made of what was judged and by whom: making it again stores nothing new."""
    return Vote(
        id=digest([job.id, prompt.id, answers, fields["rater"]], 20),
        prompt=prompt, answers=answers, ranks=tuple(ranks), shown=tuple(range(len(answers))), run=job.id,
        time=datetime.now(UTC).isoformat(timespec="seconds"), **fields,
    )  # fmt: skip


def agreement(votes: list[Vote]) -> dict[str, float | int]:
    """Of the pairs of answers that two annotators both ranked without a tie: the share that they ranked alike."""
    seen: dict[tuple[str, str, str], list[Pair]] = {}
    for vote in votes:
        for pair in vote.pairs():
            seen.setdefault((pair.prompt.id, *sorted((pair.chosen, pair.rejected))), []).append(pair)  # type: ignore[arg-type]
    twice = [p for p in seen.values() if len(p) == 2]
    alike = sum(a.chosen == b.chosen for a, b in twice)
    return {"pairs_ranked_twice": len(twice), "agreement": round(alike / len(twice), 4) if twice else float("nan")}


def run(job: Job) -> None:
    with job.phase("sample and vote"):
        votes = imported(job) or simulated(job)
        job.lab.votes.add(*votes)
    write_jsonl(job.folder / "votes.jsonl", votes)
    pairs = {s: [p for v in votes if v.prompt.split == s for p in v.pairs()] for s in ("train", "validation", "test")}
    graded = [[job.source.grade(p.prompt, t)[0] for t in (p.chosen, p.rejected)] for p in pairs["validation"]]
    golds = [chosen > rejected for chosen, rejected in graded if chosen is not None and rejected is not None]
    job.summary.update(votes=len(votes), pairs={s: len(p) for s, p in pairs.items()})
    if golds:
        job.summary["agreement_with_gold"] = round(sum(golds) / len(golds), 4)
    twice = agreement(votes)
    if twice["pairs_ranked_twice"]:
        job.summary.update(twice)
    job.cost.update(targets=sum(map(len, pairs.values())))
