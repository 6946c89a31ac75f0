"""Votes as the rows that other programs read.

A row has the columns of its form and, beside them, all that is known of its vote (`columns`): the same row read again
gives the same vote, to the last field (`returning`). What a form cannot say, it leaves out as a whole: a tie is no preference.

preference      prompt, chosen, rejected          TRL's; one row for each pair of answers of which one was better
unpaired        prompt, completion, label         TRL's, for KTO; thumbs, and both answers of every pair
ranking         prompt, answers, ranks            one row a vote; ties too, no skips
demonstrations  prompt, completion                TRL's; the better answers that raters wrote
comparator      input_text, output_text_a, …      LLM Comparator's JSON; one example for each pair of answers, ties too
votes           the vote itself                   every vote ever stored, skips, undos and what they undid included

Prompts and answers are lists of messages, as TRL wants them for chat models. Nothing here reads or writes a file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import combinations
from typing import Any

from labkit.errors import LabError
from labkit.records import Vote

Row = dict[str, Any]

# What stands beside a form's own columns: a field of the vote, or of its prompt.
FIELDS = {
    "vote": "id", "rater": "rater", "source": "source", "time": "time", "mode": "mode", "seconds": "seconds", "flag": "flag",
    "run": "run", "retracts": "retracts", "edit": "edit", "reasons": "reasons", "shown": "shown", "answers": "answers", "ranks": "ranks",
}  # fmt: skip
OF_PROMPT = {"prompt_id": "id", "kind": "kind", "split": "split"}
COLUMNS = (*FIELDS, *OF_PROMPT, "meta")
LISTS = {"answers", "ranks", "shown", "reasons"}


def columns(vote: Vote) -> Row:
    """All of a vote but its prompt's messages: plain values and lists; the prompt's `meta` as JSON, for it has any shape."""
    row = {column: getattr(vote, name) for column, name in FIELDS.items()}
    row.update({column: list(value) for column, value in row.items() if isinstance(value, tuple)})
    row.update({column: getattr(vote.prompt, name) for column, name in OF_PROMPT.items()})
    return {**row, "meta": json.dumps(vote.prompt.meta)}


def preference(vote: Vote) -> Iterator[Row]:
    for pair in vote.pairs():
        yield {"chosen": _said(pair.chosen), "rejected": _said(pair.rejected)}


def unpaired(vote: Vote) -> Iterator[Row]:
    """A thumb as it is; every pair as a good and a bad answer, as TRL unpairs them; "both bad" as two bad ones."""
    judged: list[tuple[str, bool]] = []
    if vote.mode == "thumb" and vote.flag != "skip":
        judged = [(vote.answers[0], vote.ranks[0] == 1)]
    elif vote.flag == "both_bad":
        judged = [(text, False) for text in vote.answers]
    else:
        judged = [each for p in vote.pairs() for each in ((p.chosen, True), (p.rejected, False))]
    for text, good in judged:
        yield {"completion": _said(text), "label": good}


def ranking(vote: Vote) -> Iterator[Row]:
    if vote.mode != "thumb" and vote.flag != "skip":
        yield {}


def demonstrations(vote: Vote) -> Iterator[Row]:
    if vote.edit:
        yield {"completion": _said(vote.edit)}


def comparator(vote: Vote) -> Iterator[Row]:
    """Score 1 says that answer A is better, −1 that B is, 0 a tie; the vote's own columns are custom fields, as text."""
    from labkit import arena

    if vote.mode == "thumb" or vote.flag == "skip":
        return
    who = arena.authors(vote) or (None,) * len(vote.answers)
    why = ", ".join(r for r in vote.reasons if r != arena.BLIND and not r.startswith(arena.BY))
    turns = vote.prompt.messages
    asked = vote.prompt.text if len(turns) == 1 else "\n\n".join(f"{m['role']}: {m['content']}" for m in turns)
    fields = {"messages": list(turns), **columns(vote)}
    fields = {k: v if isinstance(v, str | int | float) else json.dumps(v) for k, v in fields.items()}
    for i, j in combinations(range(len(vote.answers)), 2):
        score = float((vote.ranks[i] < vote.ranks[j]) - (vote.ranks[i] > vote.ranks[j]))
        label = {1.0: "A is better", -1.0: "B is better"}.get(score, vote.flag.replace("_", " ") or "tie")
        flipped = vote.shown.index(i) > vote.shown.index(j) if vote.shown else None
        rating = {"index": 0, "score": score, "rating_label": label, "is_flipped": flipped, "custom_fields": {}}
        yield {
            "input_text": asked,
            "tags": [vote.prompt.kind],
            "output_text_a": vote.answers[i],
            "output_text_b": vote.answers[j],
            "score": score,
            "individual_rater_scores": [{**rating, "rationale": why}],
            "custom_fields": {**fields, "author": [who[i], who[j]]},
        }


def everything(vote: Vote) -> Iterator[Row]:
    yield {}


FORMS: dict[str, Callable[[Vote], Iterator[Row]]] = {
    "preference": preference, "unpaired": unpaired, "ranking": ranking, "demonstrations": demonstrations,
    "comparator": comparator, "votes": everything,
}  # fmt: skip


def rows(vote: Vote, form: str) -> Iterator[Row]:
    """The rows that a vote gives in a form; none where the form cannot say it."""
    if form not in FORMS:
        raise LabError(f"There is no form {form!r} of votes: there are {', '.join(FORMS)}.")
    if form == "comparator":
        yield from comparator(vote)
        return
    for row in FORMS[form](vote):
        yield {"prompt": [dict(m) for m in vote.prompt.messages], **row, **columns(vote)}


def comparison(examples: list[Row], source: str) -> Row:
    """The whole of an LLM Comparator file: what it is, the two sides, how each field of a vote is to be shown, the examples.

    The sides are two models where the votes are an arena's over the same two; else they are just two answers.
    """
    sides = {tuple(e["custom_fields"]["author"]) for e in examples}
    names = next(iter(sides)) if len(sides) == 1 and None not in next(iter(sides)) else ("answer A", "answer B")
    kinds = dict.fromkeys(("messages", *COLUMNS), "string") | {"seconds": "number", "edit": "text", "meta": "text"}
    kinds |= dict.fromkeys(("rater", "source", "mode", "flag", "run", "kind", "split"), "category")
    kinds["author"] = "per_model_category"
    return {
        "metadata": {
            "source_path": source,
            "custom_fields_schema": [{"name": name, "type": kind} for name, kind in kinds.items()],
        },
        "models": [{"name": name} for name in names],
        "examples": examples,
    }


def _said(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]
