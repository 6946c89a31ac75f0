"""Rows that `exchange` made, as the votes that they were: to the last field, or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from labkit import arena
from labkit.errors import LabError
from labkit.feedback.exchange import FIELDS, LISTS, OF_PROMPT, Row, rows
from labkit.feedback.session import REPEAT
from labkit.feedback.store import check
from labkit.records import Prompt, Vote, digest


class Damaged(ValueError):
    """This row cannot be a vote, and why."""


def restored(row: Row) -> Vote | None:
    """The vote that a row of ours was made of, or None for a row from elsewhere; raises Damaged.

    A form's own columns must still say what the vote says: who changes `chosen` by hand must drop the column `vote`.
    """
    if isinstance(row.get("custom_fields"), dict) and "vote" in row["custom_fields"]:
        fields = {k: _plain(k, v) for k, v in row["custom_fields"].items()}
        vote, form = _whole({**fields, "prompt": fields.get("messages")}), "comparator"
        mine: set[str] = {"output_text_a", "output_text_b", "score"}
    elif isinstance(row.get("prompt"), dict) and "id" in row:
        return checked(lambda: _native(row))
    elif row.get("vote") and row.get("answers") is not None and "prompt_id" in row:
        vote, form, mine = _whole(row), _form(row), set(row) & {"chosen", "rejected", "completion", "label"}
    else:
        return None
    if not any(all(row.get(k) == made.get(k) for k in mine) for made in rows(vote, form)):
        said = " and ".join(sorted(mine)) or "answers"
        raise Damaged(f"its {said} are not what its vote says; if they were changed by hand, drop the column 'vote'")
    return vote


def checked(make: Callable[[], Vote]) -> Vote:
    """The vote that `make` gives, if it is well formed; raises Damaged in every other case."""
    try:
        vote = make()
        check(vote)
        p = vote.prompt
        fit = all(isinstance(m, dict) and all(isinstance(t, str) for t in m.values()) for m in p.messages)
        if not fit or not all({"role", "content"} <= set(m) for m in p.messages):
            raise Damaged("its prompt is not a list of messages with role and content")
        if not (isinstance(p.id, str) and p.id and isinstance(p.kind, str) and isinstance(p.meta, dict)):
            raise Damaged("its prompt needs an id, a kind and a meta")
        return vote
    except LabError as error:
        raise Damaged(str(error).partition("cannot be stored: ")[2].rstrip(".") or str(error)) from error
    except KeyError as error:
        raise Damaged(f"it has no {error.args[0]!r}") from error
    except (TypeError, ValueError, AttributeError, IndexError) as error:
        raise error if isinstance(error, Damaged) else Damaged(f"a value of the wrong kind ({error})") from error


def moved(vote: Vote, run: str) -> Vote:
    """The vote as one on `run`: another vote, with an id made of the old one, so that it can stand beside it.

    A second judgement stays a second judgement, and an arena's vote in the arena: neither may train anything.
    """
    run = f"{REPEAT}{run}" if vote.run.startswith(REPEAT) else run
    if vote.run in (run, arena.RUN):
        return vote
    undone = digest([vote.retracts, run], 20) if vote.retracts else ""
    return replace(vote, run=run, id=digest([vote.id, run], 20), retracts=undone)


def _form(row: Row) -> str:
    found = {"chosen": "preference", "label": "unpaired", "completion": "demonstrations"}
    return next((form for column, form in found.items() if row.get(column) is not None), "votes")


def _whole(row: Row) -> Vote:
    def make() -> Vote:
        fields = _tuples({name: row[column] for column, name in FIELDS.items()})
        of_prompt = {name: row[column] for column, name in OF_PROMPT.items()}
        prompt = Prompt(messages=_messages(row["prompt"]), meta=json.loads(row["meta"]), **of_prompt)
        return Vote(prompt=prompt, **fields)

    return checked(make)


def _native(row: Row) -> Vote:
    unknown = set(row) - set(Vote.__slots__) | set(row["prompt"]) - set(Prompt.__slots__)
    if unknown:
        raise Damaged(f"it has {', '.join(sorted(unknown))}, which a vote does not have")
    prompt = Prompt(**{**row["prompt"], "messages": _messages(row["prompt"]["messages"])})
    return Vote(**{**_tuples(row), "prompt": prompt})


def _tuples(fields: Row) -> Row:
    """The fields with tuples for lists; a text there is damage, though it could be walked through letter by letter."""
    for name in LISTS & set(fields):
        if not isinstance(fields[name], list):
            raise Damaged(f"its {name} are not a list")
    return {name: tuple(value) if name in LISTS else value for name, value in fields.items()}


def _messages(value: list[Row]) -> tuple[dict[str, str], ...]:
    """Parquet gives every message the keys of all: the empty ones go."""
    return tuple({k: v for k, v in m.items() if v is not None} for m in value)


def _plain(name: str, value: Any) -> Any:
    """A custom field as it was before it became text."""
    if name not in LISTS | {"messages"} or not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError as error:
        raise Damaged(f"its {name} is not JSON ({error})") from error
