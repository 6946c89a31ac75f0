"""Instruction tuning: SFT on a weighted mixture of many tasks; its controls tune on some of them, by definitions, or by LoRA.

    L(θ) = −1/T Σ_g Σ_{(x, y) ∈ D_g} Σ_t log π_θ(y_t | d_k, x, y_<t)     |D_g| ∝ w_g of group g; d_k the definition of task k
    W' = W + 2 B A                                                       LoRA: only A (r × d_in) and B (d_out × r) are trained

in      the pretrained run, the source's demonstrations with their kinds, a book of tasks (labkit/tasks.yaml)
out     a policy that follows instructions of the kinds that it was shown, and perhaps of others
watch   what was left out of the mixture; every node reads as many demonstrations in as many steps, so they can be compared
left out  mixing by temperature, several definitions of a task, negative examples, packing
source  Ouyang et al. (2022) 3.2; Mishra et al. (2022) and Wang et al. (2022), definitions; Wei et al. (2022), FLAN, held-out
        tasks; Hu et al. (2022), LoRA, equation 3
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator

from labkit import tasks
from labkit.errors import LabError
from labkit.recipe import Settings as Section
from labkit.records import Answer

if TYPE_CHECKING:
    from labkit.compare import Comparison
    from labkit.job import Job

VERSION = 1


class Settings(Section):
    mixture: dict[str, float] = Field(
        {"closed": 0.4, "open": 0.4, "harmless": 0.2},
        description="weights of the groups: short answers, open-ended ones, harm declined and the harmless not",
    )
    tasks: Literal["all", "closed", "one", "seen"] = Field(
        "all", description="controls: the closed group alone; the task `one` alone; all tasks that are not `held_out`"
    )
    one: str = Field("story", description="with tasks: one, the kind of prompt that is tuned for")
    held_out: list[str] = Field(
        ["which", "description", "advice"], description="with tasks: seen, the kinds of prompt that are never shown"
    )
    definitions: bool = Field(False, description="whether each question comes with its task's definition")
    book: str = Field("", description="a YAML file of tasks by kind of prompt; empty: the lab's own")
    lora: bool = Field(False, description="whether low-rank adapters are trained in place of all weights")
    rank: int = Field(8, ge=1, description="of the adapters; 8 to 64, more for what the model has never seen")
    demonstrations: int = Field(
        4000, ge=1, description="demonstrations an epoch, of whatever tasks; repeated where there are fewer"
    )
    epochs: int = Field(1, ge=1, description="times that each is read")
    batch: int = Field(16, ge=1, description="demonstrations a step")
    accumulate: int = Field(1, ge=1, description="parts that a batch is split into when memory is short")
    learning_rate: float = Field(1.5e-3, gt=0, description="peak rate; 1e-5 to 2e-5 for models of billions of weights")
    lora_rate: float = Field(
        1.2e-2, gt=0, description="peak rate of adapters; 1e-4 to 3e-4 for models of billions of weights"
    )
    threads: int = Field(1, ge=1, description="CPU threads; part of the run's identity")

    @field_validator("mixture")
    @classmethod
    def _weights(cls, mixture: dict[str, float]) -> dict[str, float]:
        unknown = [g for g in mixture if g not in tasks.GROUPS]
        if unknown or not mixture or min(mixture.values()) < 0 or sum(mixture.values()) <= 0:
            raise ValueError(
                f"mixture takes weights of {', '.join(tasks.GROUPS)}, none negative, not all zero; got {mixture}"
            )
        return mixture


def reads(settings: Any) -> str:
    """The book's words count for the run's identity, not where it lies; where no question comes with them only its groups."""
    return tasks.load(settings.book).fingerprint(words=settings.definitions)


def wanted(s: Settings, groups: dict[str, str]) -> tuple[list[str], str]:
    """The kinds to tune on, and a sentence where these data do not have what was asked for: then all of them."""
    chosen = {
        "all": list(groups),
        "closed": [k for k, g in groups.items() if g == "closed"],
        "one": [k for k in groups if k == s.one],
        "seen": [k for k in groups if k not in s.held_out],
    }[s.tasks]
    if chosen and (s.tasks in ("all", "one") or len(chosen) < len(groups)):
        return chosen, ""
    missing = {
        "closed": "closed task besides open ones",
        "one": f"task '{s.one}'",
        "seen": "held-out task beside others",
    }
    return list(groups), f"These data have no {missing[s.tasks]} (kinds: {', '.join(sorted(groups))}), so all are used."


def dataset(demonstrations: Sequence[Answer], s: Settings, groups: dict[str, str], *, seed: int) -> list[Answer]:
    """`s.demonstrations` of them, groups by their weights, within a group each as often as any other, shuffled.

    Two runs that differ in nothing but how a question is put, or which weights are trained, read the same ones.
    """
    kinds, _ = wanted(s, groups)
    rng = random.Random(f"instruct/{seed}")
    by_group: dict[str, list[Answer]] = {}
    for a in demonstrations:
        if a.prompt.kind in kinds:
            by_group.setdefault(groups[a.prompt.kind], []).append(a)
    weights = {g: s.mixture.get(g, 0.0) for g in by_group}
    if not sum(weights.values()):  # only groups that the mixture leaves out: one of them is better than nothing
        weights = dict.fromkeys(by_group, 1.0)
    found: list[Answer] = []
    for group, count in tasks.shares(weights, s.demonstrations).items():
        mine = list(by_group[group])
        rng.shuffle(mine)
        found += [mine[i % len(mine)] for i in range(count)]
    rng.shuffle(found)
    return found


def trained(c: Comparison, authors: Iterable[str]) -> list[dict[str, Any]]:
    """What each run trained and what came of it: rows of stage, weights, share, seconds, gold and gold_ci."""
    rows = []
    for author in (a for a in authors if a in c.answers):
        run = c.runs[author]
        gold, ci = c.interval(c.gold(author))
        weights, seconds = run.summary.get("weights_trained"), run.manifest["phases"].get("train")
        share = weights / run.summary["weights"] if weights else None
        row = {"stage": author, "weights": weights, "share": share, "seconds": seconds, "gold": gold, "gold_ci": ci}
        rows.append(row)
    return rows


def run(job: Job) -> None:
    from labkit import answers, imitation, models, training

    s, settings = job.settings, job.recipe["model"]
    demonstrations = job.source.demonstrations()
    if not demonstrations:
        raise LabError("These data have no demonstration to imitate: name some in data.demonstrations.")
    book = tasks.load(s.book).without_held_out(job.source)
    groups = book.groups(demonstrations)
    kinds, note = wanted(s, groups)
    kept = dataset(demonstrations, s, groups, seed=job.recipe.seed)
    asked = kept
    if s.definitions:
        book.save(job.folder)
        asked = [replace(a, prompt=book.defined(a.prompt, sum(a.text.encode()))) for a in kept]  # examples take turns
    model, tokenizer = models.load(job.parents["pretrain"].model, device=job.device, dtype=settings.dtype)
    rows = imitation.dataset(asked, tokenizer, context=settings.context)
    rank = s.rank if s.lora else 0
    fit = imitation.trainer(job, model, tokenizer, rows, lora=rank, **({"learning_rate": s.lora_rate} if rank else {}))
    job.summary["weights_trained"] = sum(w.numel() for w in fit.model.parameters() if w.requires_grad)
    with job.phase("train"):
        training.train(fit)
    model = models.save(training.released(fit), tokenizer, job.folder)
    distinct = {tuple(ids): sum(mask) for ids, mask in zip(rows["input_ids"], rows["completion_mask"], strict=True)}
    job.cost.update(tokens=sum(map(len, rows["input_ids"])) * s.epochs, targets=sum(distinct.values()))
    job.cost["bits"] = job.cost["targets"] * math.log2(len(tokenizer))
    answers.evaluate(job, model, tokenizer, put=book.defined if s.definitions else None, kl=False)
    mixed = dict(Counter(groups[a.prompt.kind] for a in kept))
    job.summary.update(weights=model.num_parameters(), demonstrations=len(rows), distinct=len(distinct), mixture=mixed)
    job.summary.update(kinds=sorted(kinds), groups=groups, **({"note": note} if note else {}))
