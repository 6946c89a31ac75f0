"""Self-Instruct: the base model writes instructions after a few of people's, answers them, and is tuned on what the filters leave.

    q ~ π_base(· | some of Q),  kept if valid, unlike all of Q, no copy of an evaluation prompt;  y ~ π_base(· | q, some of S)
    L(θ) = −1/T Σ_t log π_θ(y_t | q, y_<t)      over S and what was kept; Q is S's instructions and those kept so far

in      the pretrained run; S, a handful of demonstrations by people: no other word here is a person's
out     a model that answers instead of continuing; generated.jsonl with every line written and what threw it away
watch   what each filter takes; a base that never refuses writes no refusal, so that harm is helped with
control the same number of answers read, the seeds alone, over and over
left out  telling classification from other tasks, inputs apart from instructions
source  Wang et al. (2022), Self-Instruct, section 2. Method `unnatural`, after Honovich et al. (2022), Unnatural Instructions, section 2:
        each instruction also in other words, with the same answer. There a model is asked to reformulate; one of half a million
        weights cannot (a few attempts in a thousand kept the sense), so another instruction's beginning is put before the rest
        of this one, and the model decides: what reads well to it, and calls for the same answer, is kept
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from labkit.errors import LabError
from labkit.recipe import Settings as Section
from labkit.records import Answer, Prompt, read_jsonl, write_jsonl
from labkit.surface import surface

if TYPE_CHECKING:
    from labkit.job import Job
    from labkit.synthetic import Seen

VERSION = 1
FILTERS = ("not a line of the list", "no sentence", "too short or long", "stood already", "leaks", "too similar")
REWORDED = ("reads badly", "stood already", "leaks", "calls for another answer")
SPOILT = ("answer unfinished", "answer says nothing", "answer repeats")


class Settings(Section):
    method: Literal["self_instruct", "unnatural", "seeds"] = Field(
        "self_instruct", description="unnatural words each instruction anew as well; seeds is a control without a word of the model's"
    )  # fmt: skip
    seeds: int = Field(175, ge=2, description="demonstrations by people to start from, as many as in the paper")
    lists: int = Field(720, ge=4, description="lists of questions that the base goes on with; each gives one or two")
    rounds: int = Field(3, ge=1, description="times that it writes; from the second on it also sees its own")
    examples: int = Field(4, ge=2, description="instructions in a list, a quarter of them its own; 8 in the paper")
    temperature: float = Field(1.0, gt=0, description="of instructions; .7 in the paper gives fewer kinds of them here")
    shortest: int = Field(3, ge=1, description="words of an instruction, at least")
    longest: int = Field(30, ge=3, le=60, description="words of an instruction, at most")
    similarity: float = Field(
        0.9, gt=0, description="ROUGE-L to any one kept from which a line is thrown away; .7 in the paper, for longer ones"
    )  # fmt: skip
    shots: int = Field(2, ge=1, description="seeds with their answers that stand before a question to be answered")
    answer_temperature: float = Field(0.5, gt=0, description="of answers; the paper takes the likeliest, near 0")
    wordings: int = Field(
        8, ge=1, description="other wordings tried for each instruction, of which at most one is kept"
    )
    margin: float = Field(
        0.1, ge=0, description="nats a token that the answer may lose under another wording; method unnatural only"
    )
    reads: int = Field(6000, ge=1, description="answers read in training in all, over and over: the control's as well")
    batch: int = Field(16, ge=1, description="answers a step")
    accumulate: int = Field(1, ge=1, description="parts that a batch is split into when memory is short")
    learning_rate: float = Field(
        1.5e-3, gt=0, description="peak rate, as in sft; 1e-5 for models of billions of weights"
    )
    threads: int = Field(1, ge=1, description="CPU threads; part of the run's identity")

    @property
    def epochs(self) -> int:
        """One pass over `reads` answers."""
        return 1


def chosen(demonstrations: Sequence[Answer], count: int) -> list[Answer]:
    """The seeds: the first `count` demonstrations of different prompts that fit on two short lines."""
    found: dict[str, Answer] = {}
    for d in demonstrations:
        short = len(d.prompt.messages) == 1 and len(d.prompt.text + d.text) < 300
        if short and "\n" not in d.prompt.text + d.text and len(found) < count:
            found.setdefault(d.prompt.id, d)
    if not found:
        raise LabError("No demonstration is short enough to be shown to a base model: self_instruct needs a few seeds.")
    return list(found.values())


def lines(text: str, ended: bool) -> tuple[list[str], int]:
    """The questions with which a list goes on, and how many other lines stand there (a cut one, one without its Q)."""
    first, *rest = text.split("\n")
    found = [first.strip(), *(line.removeprefix("Q:").strip() for line in rest if line.startswith("Q:"))]
    other = len(rest) + 1 - len(found)
    if not ended:  # whatever was being written when the room ended
        found, other = (found[:-1], other + 1) if not rest or rest[-1].startswith("Q:") else (found, other)
    return found, other


def sieve(text: str, seen: Seen, taken: set[str], held_out: set[str], s: Settings) -> tuple[str, str]:
    """Which filter throws the instruction away, "" for none, and what it is like where it is too similar."""
    from labkit import synthetic

    grades = surface(text)
    if not grades["finished"] or grades["repetitive"] or "Q:" in text or "A:" in text:
        return "no sentence", ""
    if not s.shortest <= len(synthetic.words(text)) <= s.longest:
        return "too short or long", ""
    plain = synthetic.normal(text)
    if plain in taken:
        return "stood already", ""
    if plain in held_out:
        return "leaks", ""
    likeness, other = seen.nearest(text)
    return ("too similar", other) if likeness >= s.similarity else ("", "")


def instructions(job: Job, model: Any, tokenizer: Any, seeds: Sequence[Answer]) -> list[dict[str, Any]]:
    """Every line that the base wrote, in order: `instruction`, `thrown_by` ("" if kept) and `like`, the one it resembles."""
    from labkit import answers, synthetic

    s, how = job.settings, job.recipe["answers"]
    asked = [a.prompt.text for a in seeds]
    seen, taken = synthetic.Seen(asked), set(map(synthetic.normal, asked))
    held_out = {synthetic.normal(p.text) for p in answers.evaluation_prompts(job)}
    own, rows, rng = list[str](), list[dict[str, Any]](), random.Random(job.seed)
    fit = {"room": how.max_tokens, "context": job.recipe["model"].context}
    for round_ in range(s.rounds):
        queries = []
        for _ in range(max(1, s.lists // s.rounds // 4)):
            mine = rng.sample(own, min(len(own), s.examples // 4))
            shown = [f"Q: {q}" for q in [*rng.sample(asked, min(len(asked), s.examples - len(mine))), *mine]]
            queries.append(synthetic.fitting(tokenizer, synthetic.LISTED, shown, "Q:", **fit))
        said = synthetic.say(
            job, model, tokenizer, queries, n=4, temperature=s.temperature, seed=job.seed + round_, room=how.max_tokens
        )
        for text, ended in (one for mine in said for one in mine):
            found, other = lines(text, ended)
            rows += [{"instruction": "", "thrown_by": FILTERS[0], "like": ""}] * other
            for line in found:
                why, like = sieve(line, seen, taken, held_out, s)
                rows.append({"instruction": line, "thrown_by": why, "like": like})
                if not why:
                    own.append(line)
                    seen.add(line)
                    taken.add(synthetic.normal(line))
        job.log(round_ + 1, s.rounds, written=len(rows), kept=len(own))
    return rows


def answered(job: Job, model: Any, tokenizer: Any, seeds: Sequence[Answer], rows: list[dict[str, Any]]) -> None:
    """Writes `answer` into the rows that were kept, by the base after some seeds; a spoilt answer throws its row away."""
    from labkit import synthetic

    s, how, rng = job.settings, job.recipe["answers"], random.Random(job.seed + 1)
    kept = [r for r in rows if not r["thrown_by"]]
    fit = {"room": how.max_tokens, "context": job.recipe["model"].context}
    queries = []
    for row in kept:
        shown = [f"Q: {a.prompt.text}\nA: {a.text}" for a in rng.sample(list(seeds), min(len(seeds), s.shots))]
        queries.append(synthetic.fitting(tokenizer, synthetic.ANSWERED, shown, f"Q: {row['instruction']}\nA:", **fit))
    ways = {"n": 1, "temperature": s.answer_temperature, "seed": job.seed, "room": how.max_tokens}
    for row, [(text, ended)] in zip(kept, synthetic.say(job, model, tokenizer, queries, **ways), strict=True):
        row["answer"], line_break, _ = text.partition("\n")
        row["answer"] = row["answer"].strip()
        if not ended and not line_break:
            row["thrown_by"] = SPOILT[0]
        elif not synthetic.words(row["answer"]) or synthetic.normal(row["answer"]) == synthetic.normal(
            row["instruction"]
        ):
            row["thrown_by"] = SPOILT[1]
        elif surface(row["answer"])["repetitive"]:
            row["thrown_by"] = SPOILT[2]


def funnel(rows: Sequence[dict[str, Any]], filters: Sequence[str] = (*FILTERS, *SPOILT)) -> list[dict[str, Any]]:
    """What was written and what each filter, one after the other, threw away: rows of `filter`, `thrown`, `left`."""
    thrown, left = Counter(r["thrown_by"] for r in rows), len(rows)
    table = [{"filter": "written", "thrown": 0, "left": left}]
    for name in filters:
        left -= thrown[name]
        table.append({"filter": name, "thrown": thrown[name], "left": left})
    return table


def dataset(seeds: Sequence[Answer], rows: Sequence[dict[str, Any]], reads: int, *, seed: int) -> list[Answer]:
    """Seeds and what was kept, each before any twice, in another order each time, until `reads` stand there."""
    both = [*seeds, *(Answer(prompt=Prompt.of(r["instruction"]), text=r["answer"], author="base") for r in rows)]
    rng, found = random.Random(seed), list[Answer]()
    while len(found) < reads:
        found += rng.sample(both, len(both))
    return found[:reads]


def measure(job: Job, rows: Sequence[dict[str, Any]], seeds: Sequence[Answer]) -> None:
    """The funnel, and how many lines other thresholds of similarity would have kept, into the summary."""
    from labkit import synthetic

    job.summary["funnel"] = funnel(rows)
    new = [r["instruction"] for r in rows if r["thrown_by"] in ("", "too similar", *SPOILT)]
    asked, thresholds = [a.prompt.text for a in seeds], sorted({0.5, 0.6, 0.7, 0.8, 0.9, 1.0, job.settings.similarity})
    kept = [{"similarity": t, "kept": synthetic.survivors(new, asked, t)} for t in thresholds]
    job.summary["thresholds"] = [{**row, "share": round(row["kept"] / max(1, len(new)), 4)} for row in kept]


def written(job: Job, model: Any, tokenizer: Any, seeds: Sequence[Answer]) -> list[dict[str, Any]]:
    """What the model adds to the seeds, `instruction` and `answer`; leaves all that was tried in generated.jsonl."""
    from labkit import synthetic

    if job.settings.method == "seeds":
        return []
    if job.settings.method == "unnatural":
        first = [r for r in read_jsonl(job.parents["self_instruct"].path / "generated.jsonl") if not r["thrown_by"]]
        rows = synthetic.reworded(job, model, tokenizer, first)
        job.summary["funnel"] = funnel(rows, REWORDED)
        write_jsonl(job.folder / "generated.jsonl", rows)
        return [*first, *({**r, "instruction": r["reworded"]} for r in rows if not r["thrown_by"])]
    rows = instructions(job, model, tokenizer, seeds)
    answered(job, model, tokenizer, seeds, rows)
    measure(job, rows, seeds)
    write_jsonl(job.folder / "generated.jsonl", rows)
    return [r for r in rows if not r["thrown_by"]]


def run(job: Job) -> None:
    from labkit import answers, chat, costs, imitation, models, training

    s, settings = job.settings, job.recipe["model"]
    model, tokenizer = models.load(job.parents["pretrain"].model, device=job.device, dtype=settings.dtype)
    seeds = chosen(job.source.demonstrations(), s.seeds)
    with job.phase("write"):
        kept = written(job, model, tokenizer, seeds)
    rows = imitation.dataset(dataset(seeds, kept, s.reads, seed=job.seed), tokenizer, context=settings.context)
    with job.phase("train"):
        fit = imitation.trainer(job, model, tokenizer, rows)
        training.train(fit)
    model = models.save(training.released(fit), tokenizer, job.folder)
    people = sum(len(chat.answer_ids(tokenizer, a.prompt, a.text)[1]) for a in seeds)
    bits = people * float(np.log2(len(tokenizer)))  # all that people told it; the rest was in the base already
    job.cost.update(tokens=sum(map(len, rows["input_ids"])), targets=people, bits=round(bits, 1))
    answers.evaluate(job, model, tokenizer, kl=False)
    own = round(len(kept) / (len(seeds) + len(kept)), 4)
    job.summary |= {"seeds": len(seeds), "kept": len(kept), "text_by": {costs.PEOPLE: 1 - own, costs.OWN: own}}
