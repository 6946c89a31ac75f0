"""A lab whose SFT and preferences runs stand, of random weights and made-up answers, in a second: for what votes become."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import tiny_lab

from labkit import models, runs
from labkit.lab import Lab
from labkit.records import Answer, Prompt, Vote, write_jsonl
from labkit.runs import Run

WORDS = "the badger sleeps under a quiet hill and likes warm milk , old songs and rain by the river".split()
SIZES = tiny_lab.SIZES | {"context": 192}
SMALL = {f"model.{k}": v for k, v in SIZES.items()} | {"answers.max_tokens": 8, "answers.n": 1, "seed": 0}
RATERS = ("Wren", "Milo")


def opened(outputs: Path, **overrides: Any) -> Lab:
    """The lab with no run at all; overrides with `__` for the dots."""
    return Lab.open("smoke", SMALL | {k.replace("__", "."): v for k, v in overrides.items()}, outputs=outputs)


def voted(outputs: Path, *, prompts: int = 40) -> Lab:
    """SFT is a random model, and simulated raters have ranked three made-up answers of it to each prompt."""
    lab, rng = opened(outputs), random.Random(0)
    policy(lab, "sft")
    train, validation = lab.source.prompts("train")[:prompts], lab.source.prompts("validation")[:12]
    votes = [ranking(lab, p, rng, n) for n, p in enumerate([*train, *validation])]
    lab.votes.add(*votes)
    seal(lab, "preferences", votes)
    return lab


def policy(lab: Lab, name: str, *, seed: int = 0) -> Run:
    """A finished run of that name: random weights, and an answer of two to nine words to each evaluation prompt."""
    tok, rng = tiny_lab.tokenizer(), random.Random(seed)
    folder = runs.start(lab.folder, lab.plan(name).id)
    models.save(tiny_lab.policy(tok, seed=seed, **SIZES), tok, folder)
    asked = [*lab.source.prompts("validation"), *lab.source.prompts("test")]
    answers = [
        Answer(prompt=p, text=text(rng), author=name, scores={"gold": rng.gauss(0, 1)}, grades={"rude": 0.0})
        for p in asked
    ]
    write_jsonl(folder / "answers.jsonl", answers)
    return close(lab, name, folder)


def seal(lab: Lab, name: str, votes: list[Vote]) -> Run:
    """A finished run that only holds votes."""
    folder = runs.start(lab.folder, lab.plan(name).id)
    write_jsonl(folder / "votes.jsonl", votes)
    return close(lab, name, folder)


def close(lab: Lab, name: str, folder: Path) -> Run:
    plan = lab.plan(name)
    (folder / "recipe.yaml").write_text(lab.recipe.dump())
    return runs.finish(
        folder,
        {
            "id": plan.id, "name": name, "stage": name, "settings": plan.settings.model_dump(mode="json"),
            "parents": {n: p.id for n, p in plan.parents.items()}, "summary": {}, "cost": {}, "seconds": 1.0,
            "finished": "2026-01-01T00:00:00", "recipe": lab.recipe.name, "votes": None,
        },
    )  # fmt: skip


def text(rng: random.Random) -> str:
    return " ".join(rng.choices(WORDS, k=rng.randint(2, 9))).capitalize() + "."


def ranking(lab: Lab, prompt: Prompt, rng: random.Random, n: int) -> Vote:
    """One simulated vote on three answers of two, five and eight words or so."""
    answers = tuple(dict.fromkeys(" ".join(rng.choices(WORDS, k=k)) for k in (2, 5, 8)))
    ranks = tuple(rng.sample(range(1, len(answers) + 1), len(answers)))
    return Vote(
        id=f"simulated-{n:03}", prompt=prompt, answers=answers, ranks=ranks, rater=RATERS[n % 2], source="simulated",
        time="2026-01-01T00:00:00+00:00", mode="ranking", run=lab.plan("preferences").id, shown=tuple(range(len(answers))),
    )  # fmt: skip


def label(lab: Lab, n: int, *, rater: str = "Ada", mode: str = "pair", **more: Any) -> list[Vote]:
    """A person judges the first `n` items of the preferences run, through a session; the shorter answer wins."""
    from labkit.feedback.session import Session, items_from_run

    session = Session(
        lab.votes, items_from_run(Run(lab.folder / lab.plan("preferences").id), mode=mode), rater, mode, repeats=0
    )
    made = []
    for question in session.window(n):
        told = session.wire(question)["answers"]
        if mode == "thumb":
            ranks = [1 if len(told[0]["text"]) < 25 else 2]
        else:
            ranks = [1 + (len(a["text"]) > min(len(b["text"]) for b in told)) for a in told]
        letter = {
            "id": f"{rater}-{mode}-{question.item.id}",
            "item": question.id,
            "shown": [a["key"] for a in told],
            "ranks": ranks,
        }
        made.append(session.take(letter | more))
    return made
