"""Prompt search: find words that make a base model answer. No weight is changed.

    t* = argmax_t 1/N Σ log π(y | t(x))      y a person's answer to x, in nats a token, over training prompts that t does not show

in      the pretrained run; the library of templates; the source's demonstrations (some as examples, others to score by)
out     the best template and its answers, as a row of the ladder; every score on the way in `search.jsonl`
watch   examples are worth more than rules to a small model; a score on few prompts flatters whoever is first
left out  prompts written by a language model (Zhou et al. 2023), gradients through tokens, a template for each kind of prompt
source  Brown et al. (2020), few-shot; Jamieson and Talwalkar (2016), successive halving; Prasad et al. (2023), GrIPS, for edits
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from labkit import prompting
from labkit.errors import LabError
from labkit.prompting import Library, Shot, Template
from labkit.recipe import Settings as Section
from labkit.records import Answer, write_jsonl

if TYPE_CHECKING:
    from labkit.job import Job

VERSION = 1


class Settings(Section):
    library: str = Field("", description="YAML file of templates; empty: the lab's own (labkit/prompting.yaml)")
    by: Literal["likelihood", "gold"] = Field(
        "likelihood", description="what a template is chosen by: likelihood of people's answers, or gold of its own"
    )
    rounds: int = Field(4, ge=1, description="times that the better half is kept and the sample doubled")
    sample: int = Field(32, ge=4, description="training prompts that score a template in the first round")
    most_shots: int = Field(4, ge=0, description="examples in a template; the context holds no more than a few")
    pool: int = Field(24, ge=1, description="demonstrations that examples are drawn from")
    threads: int = Field(1, ge=1, description="CPU threads; part of the run's identity")


def reads(settings: Settings) -> str:
    """The content of the library: other templates are another search."""
    return prompting.fingerprint(settings.library)


def dataset(
    demonstrations: Sequence[Answer], *, pool: int, references: int, seed: int
) -> tuple[list[Shot], list[Answer]]:
    """Short examples to show, and other demonstrations to score by: no prompt is in both, and none is in either twice."""
    usable = prompting.single(demonstrations)
    one = list({a.prompt.id: a for a in random.Random(seed).sample(usable, len(usable))}.values())
    shown = [a for a in one if len(a.prompt.text + a.text) <= prompting.LONGEST_SHOT][: min(pool, len(one) // 2)]
    ids = {a.prompt.id for a in shown}
    shots = [(a.prompt.text, a.text) for a in shown]
    rest = [a for a in one if a.prompt.id not in ids][:references]
    if not rest:
        raise LabError(
            "No demonstration asks one question and answers in one line, so nothing can score a template: add some data."
        )
    return shots, rest


def likelihood(job: Job, model: Any, tokenizer: Any, template: Template, references: Sequence[Answer]) -> np.ndarray:
    """(N,): mean log π of each reference's tokens and the line break that ends it, behind the template.

    What stands before the question is read once for all of them.
    """
    import torch

    from labkit import chat, prefixes, sampling

    before, _ = template.pieces
    asked = [chat.text_ids(tokenizer, template.asked(a.prompt.text)) for a in references]
    said = [chat.text_ids(tokenizer, template.answered(a.text)) for a in references]
    if not before:
        logps = sampling.score_logps(model, asked, said)
    else:
        with torch.inference_mode():
            prefix = prefixes.read(model, chat.text_ids(tokenizer, before))
        with prefixes.before(model, prefix):
            logps = sampling.score_logps(model, asked, said)
    return np.array([float(p.double().mean()) for p in logps])


def gold(job: Job, model: Any, tokenizer: Any, template: Template, references: Sequence[Answer]) -> np.ndarray:
    """(N,): what one sampled answer to each reference's prompt is truly worth. Raises LabError where nobody knows."""
    from labkit import answers

    prompts = [a.prompt for a in references]
    written = answers.write_answers(
        job, model, tokenizer, prompts, author=job.name, seed=job.seed, template=template.text, n=1
    )
    found = [job.source.grade(a.prompt, a.text, ended=a.ended)[0] for a, _, _ in written]
    if None in found:
        raise LabError("This source knows no gold to choose a template by: set prompt_search.by=likelihood.")
    return np.array(found, dtype=float)


def ranked(scores: Mapping[Any, np.ndarray]) -> list[Any]:
    """Templates by their mean score on the prompts that were asked, best first."""
    return sorted(scores, key=lambda t: -scores[t].mean())


def better_half(order: list[Any]) -> list[Any]:
    """The better half, and never fewer than two: one alone has nobody to be combined with."""
    return order[: max(2, len(order) // 2)]


def fits(job: Job, tokenizer: Any, template: Template, longest: str) -> bool:
    """Whether the template leaves room for the longest question and an answer to it."""
    from labkit import chat

    ids = chat.text_ids(tokenizer, template.text.replace("{prompt}", longest))
    return len(ids) + job.recipe["answers"].max_tokens <= job.recipe["model"].context


def children(
    library: Library, kept: Sequence[Template], known: Sequence[Template], shots: Sequence[Shot], count: int, *,
    most: int, usable: Any, rng: random.Random,
) -> list[Template]:  # fmt: skip
    """Up to `count` templates made of the kept ones that were not tried before and fit; the better of two strangers is a parent."""
    found: list[Template] = []
    for _ in range(20 * count):
        if len(found) == count:
            break
        a, b = (kept[min(rng.randrange(len(kept)) for _ in range(2))] for _ in range(2))
        new = library.child(a, b, shots, most, rng)
        if new not in known and new not in found and usable(new):
            found.append(new)
    return found


def search(job: Job, model: Any, tokenizer: Any) -> tuple[Template, list[dict[str, Any]]]:
    """The best template, and a row for each scoring: round, name, how, score, score_ci, n, kept, text."""
    from labkit import answers, statistics

    s, rng = job.settings, random.Random(job.seed)
    most = s.sample * 2 ** (s.rounds - 1)
    shots, references = dataset(job.source.demonstrations(), pool=s.pool, references=most, seed=job.seed)
    library = prompting.load(s.library)
    prompts = [*answers.evaluation_prompts(job), *(a.prompt for a in references)]
    longest = max((p.text for p in prompts), key=len)
    usable = lambda t: fits(job, tokenizer, t, longest)  # noqa: E731
    trying = [t for t in library.start(shots, rng) if usable(t)]
    if not trying:
        raise LabError("No template leaves room for a question and its answer: raise model.context, or shorten them.")
    known, rows = list(trying), []
    score = {"likelihood": likelihood, "gold": gold}[s.by]
    for round_ in range(1, s.rounds + 1):
        some = references[: s.sample * 2 ** (round_ - 1)]
        found = {t: score(job, model, tokenizer, t, some) for t in trying}
        order = ranked(found)
        kept = better_half(order)
        for t in order:
            middle, low, high = statistics.paired_bootstrap(
                found[t], seed=job.seed, samples=job.recipe["answers"].bootstrap
            )
            row = {"round": round_, "name": t.name, "how": t.how, "score": round(middle, 4), "n": len(some)}
            rows.append(row | {"score_ci": [round(low, 4), round(high, 4)], "kept": t in kept, "text": t.text})
        job.cost["tokens"] = job.cost.get("tokens", 0) + _read(tokenizer, trying, some)
        job.log(round_, s.rounds, **{"search/best": rows[-len(order)]["score"], "search/mean": _mean(found)})
        if round_ == s.rounds or job.stops(round_, s.rounds):
            break
        made = children(library, kept, known, shots, max(2, len(kept) // 2), most=s.most_shots, usable=usable, rng=rng)
        made = [replace(t, name=f"new {round_}.{i}") for i, t in enumerate(made, 1)]
        known += made
        trying = [*kept, *made]
    return order[0], rows


def _mean(found: dict[Template, np.ndarray]) -> float:
    return float(np.mean([values.mean() for values in found.values()]))


def _read(tokenizer: Any, templates: Sequence[Template], references: Sequence[Answer]) -> int:
    """Tokens that were read to score them: each template once, each question and answer once a template."""
    from labkit import chat

    return sum(len(chat.text_ids(tokenizer, t.pieces[0])) for t in templates) + len(templates) * sum(
        len(chat.text_ids(tokenizer, a.prompt.text + a.text)) for a in references
    )


def run(job: Job) -> None:
    from labkit import answers, models

    parent = job.parents["pretrain"]
    model, tokenizer = models.load(parent.model, device=job.device, dtype=job.recipe["model"].dtype)
    with job.phase("search"):
        best, rows = search(job, model, tokenizer)
    write_jsonl(job.folder / "search.jsonl", rows)
    with job.phase("answer"):
        answers.answer(job, model, tokenizer, author=job.name, template=best.text)
    tried = len({row["text"] for row in rows})
    job.cost.update(
        targets=max(row["n"] for row in rows), bits=round(math.log2(tried), 4)
    )  # which one of so many: no more
    score = next(row["score"] for row in reversed(rows) if row["text"] == best.text)
    job.summary.update(template=best.text, name=best.name, how=best.how, by=job.settings.by, tried=tried, score=score)
