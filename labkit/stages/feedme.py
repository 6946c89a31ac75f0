"""FeedME and expert iteration: fine-tune on the answers that were graded best, a way to use preferences without RL or DPO.

    L(θ) = −1/T Σ_t log π_θ(y*_t | x, y*_<t)      y* the best of K answers, by people's ranks or by the reward model

in      the SFT run; either the votes of the preferences run (`by: votes`), or the reward run (`by: reward`)
out     a policy that imitates the best of what it wrote; with `by: reward` it writes, is graded and imitates again, `rounds` times
watch   the control that imitates a *random* one of the same answers: the difference is what the grading was worth
left out  filtering by an absolute grade, mixing in the demonstrations, KL to the start (imitation of its own answers stays near)
source  OpenAI's model index (FeedME, 2022); Anthony et al. (2017); Dong et al. (2023), RAFT, algorithm 1
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from labkit.errors import LabError
from labkit.recipe import Settings as Section
from labkit.records import Answer, Vote

if TYPE_CHECKING:
    from labkit.job import Job

VERSION = 1
READS_VOTES = True


class Settings(Section):
    by: Literal["votes", "reward"] = Field("votes", description="who graded: annotators, or the reward model")
    pick: Literal["best", "random"] = Field("best", description="a control: random takes any of the same answers")
    rounds: int = Field(2, ge=1, description="with by: reward, times that the tuned model writes anew and is graded")
    prompts: int = Field(800, ge=1, description="with by: reward, training prompts a round")
    n: int = Field(8, ge=2, description="with by: reward, answers a prompt, of which one is kept")
    epochs: int = Field(2, ge=1, description="times that each kept answer is read")
    batch: int = Field(16, ge=1, description="answers a step")
    accumulate: int = Field(1, ge=1, description="parts that a batch is split into when memory is short")
    learning_rate: float = Field(6e-4, gt=0, description="peak rate; 5e-6 to 1e-5 for models of billions of weights")
    threads: int = Field(1, ge=1, description="CPU threads; part of the run's identity")


def dataset(votes: list[Vote], *, pick: str, seed: int) -> list[Answer]:
    """One answer a training vote: among the best-ranked, or (the control) among all."""
    rng, kept = random.Random(seed), []
    for vote in votes:
        if vote.prompt.split != "train" or vote.flag or not vote.pairs():
            continue
        top = [a for a, rank in zip(vote.answers, vote.ranks, strict=True) if rank == min(vote.ranks)]
        kept.append(Answer(prompt=vote.prompt, text=rng.choice(top if pick == "best" else vote.answers), author="sft"))
    if not kept:
        raise LabError("There is no training preference to pick from: collect votes on page 04_preferences first.")
    return kept


def graded(job: Job, model: Any, tokenizer: Any, *, round_: int) -> list[Answer]:
    """The model answers `prompts` prompts `n` times; of each prompt's answers the reward model's favourite, if it ended."""
    from labkit import answers, models, sampling

    s = job.settings
    rng = random.Random(f"{job.seed}/{round_}")
    prompts = rng.sample(usable := job.source.prompts("train"), min(s.prompts, len(usable)))
    written = answers.write_answers(job, model, tokenizer, prompts, author=job.name, seed=job.seed + round_, n=s.n)
    load = {"device": job.device, "dtype": job.recipe["model"].dtype}
    judge = sampling.frozen(models.load_reward(job.parents["reward"].model, **load))
    scores = sampling.score_rewards(judge, [q for _, q, _ in written], [one.ids for _, _, one in written]).tolist()
    kept = []
    for start in range(0, len(written), s.n):
        mine = [i for i in range(start, start + s.n) if written[i][0].ended]
        if mine:
            kept.append(written[max(mine, key=scores.__getitem__) if s.pick == "best" else rng.choice(mine)][0])
    job.summary["mean_reward"] = [*job.summary.get("mean_reward", []), round(sum(scores) / len(scores), 4)]
    return kept


def run(job: Job) -> None:
    from labkit import answers, imitation, models, training

    s, settings = job.settings, job.recipe["model"]
    load = {"device": job.device, "dtype": settings.dtype}
    model, tokenizer = models.load(job.parents["sft"].model, **load)
    read = targets = 0
    for round_ in range(s.rounds if s.by == "reward" else 1):
        with job.phase("grade"):
            kept = (
                graded(job, model, tokenizer, round_=round_)
                if s.by == "reward"
                else dataset(job.votes, pick=s.pick, seed=job.seed)
            )
        rows = imitation.dataset(kept, tokenizer, context=settings.context)
        with job.phase("train"):
            fit = imitation.trainer(job, model, tokenizer, rows)
            training.train(fit)
        model = models.save(training.released(fit), tokenizer, job.folder)
        read += sum(map(len, rows["input_ids"])) * s.epochs
        targets += len(kept)
        job.summary.setdefault("rounds", []).append(answers.glance(job, model, tokenizer, round_=round_ + 1))
        if job.stopped:
            break
    job.cost.update(tokens=read, targets=targets)
    answers.evaluate(job, model, tokenizer)
    job.summary["kept"] = targets
