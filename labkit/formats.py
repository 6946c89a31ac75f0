"""The shapes in which people keep instructions and preferences, each turned into an `Example` by a small function.

A row's format is known by its columns. Left out: images, tools, ratings of single answers other than KTO's `label`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from labkit.errors import LabError

Messages = tuple[dict[str, str], ...]
Row = dict[str, Any]
ROLES = ("system", "user", "assistant")
_TURN = re.compile(r"(?:^|\n\n)(Human|Assistant):[ \t]*")


class Unusable(ValueError):
    """This row holds nothing to learn from, and why; it is left out and counted."""


@dataclass(frozen=True, slots=True)
class Example:
    """One row: a conversation that ends with a user's turn, and the answers that came with it."""

    messages: Messages
    answer: str | None = None
    chosen: str | None = None
    rejected: str | None = None


@dataclass(frozen=True, slots=True)
class Format:
    """A shape of rows: the columns by which it is known, one of `any_of` among them, and how a row is read."""

    name: str
    columns: frozenset[str]
    any_of: frozenset[str]
    read: Callable[[Row], Example]


def alpaca(row: Row) -> Example:
    """`instruction`, `input` (may be empty), `output`; `chosen` and `rejected` where there are preferences too."""
    extra = (row.get("input") or "").strip()
    question = row["instruction"].strip() + (f"\n\n{extra}" if extra else "")
    return _example(_user(question), row.get("output"), row.get("chosen"), row.get("rejected"))


def self_instruct(row: Row) -> Example:
    """`instruction` with a list of `instances`, of which the first is taken."""
    first = row["instances"][0]
    return alpaca({"instruction": row["instruction"], "input": first.get("input"), "output": first["output"]})


def prompt_completion(row: Row) -> Example:
    """TRL's `prompt` and `completion`, text or messages; an answer that KTO's `label` calls bad is left out."""
    if row.get("label") is False:
        raise Unusable("the answer is labelled as bad")
    return _example(conversation(row["prompt"]), _reply(row["completion"]))


def prompt_preference(row: Row) -> Example:
    """TRL's `prompt`, `chosen` and `rejected`, text or messages; whole conversations in the last two are understood."""
    if isinstance(row["chosen"], list) and len(row["chosen"]) > 1:
        return implicit_preference(row)
    return _example(conversation(row["prompt"]), None, _reply(row["chosen"]), _reply(row["rejected"]))


def implicit_preference(row: Row) -> Example:
    """`chosen` and `rejected` that begin alike: messages, HH-RLHF transcripts or text. What they share is the prompt."""
    a, b = row["chosen"], row["rejected"]
    if isinstance(a, str) and not _TURN.match(a):
        return _shared_text(a, b)
    one, two = conversation(a), conversation(b)
    shared = len(os.path.commonprefix([list(map(str, one)), list(map(str, two))]))
    if len(one) == len(two) == shared:
        raise Unusable("no two different answers")
    if len(one) != shared + 1 or len(two) != shared + 1:
        raise Unusable("the conversations part before the last answer")
    return _example(one[:shared], None, _reply(list(one[shared:])), _reply(list(two[shared:])))


def messages_only(row: Row) -> Example:
    """TRL's `messages`: the last assistant's turn answers what stands before it."""
    turns = conversation(row["messages"])
    return _example(turns[:-1], _reply(list(turns[-1:])))


def conversation(value: str | list[Row]) -> Messages:
    """Turns from messages, from a "Human: … Assistant: …" transcript, or from plain text, which is one user's turn.

    Empty turns are dropped, and turns of one speaker in a row become one: chat templates want speakers to alternate.
    """
    if isinstance(value, str) and not _TURN.match(value):
        return _user(value)
    if isinstance(value, str):
        parts = _TURN.split(value)
        turns = [
            ("user" if who == "Human" else "assistant", text)
            for who, text in zip(parts[1::2], parts[2::2], strict=True)
        ]
    else:
        turns = [(m["role"], m["content"]) for m in value]
    found: list[dict[str, str]] = []
    for role, text in turns:
        if role not in ROLES or not isinstance(text, str):
            raise Unusable(f"a turn of {role!r} that is not plain text")
        if found and text.strip() and found[-1]["role"] == role:
            found[-1] = {"role": role, "content": found[-1]["content"] + "\n\n" + text.strip()}
        elif text.strip():
            found.append({"role": role, "content": text.strip()})
    return tuple(found)


def _shared_text(a: str, b: str) -> Example:
    shared = os.path.commonprefix([a, b])
    start = max(shared.rfind(" "), shared.rfind("\n")) + 1  # never in the middle of a word
    if a == b:
        raise Unusable("no two different answers")
    if not shared[:start].strip():
        raise Unusable("chosen and rejected share no beginning that could be the prompt")
    return _example(_user(a[:start]), None, a[start:], b[start:])


def _user(text: str) -> Messages:
    return ({"role": "user", "content": text.strip()},)


def _reply(value: str | list[Row]) -> str:
    """The text of an answer that is text, or one assistant's turn."""
    if isinstance(value, str):
        return value
    turns = conversation(value)
    if len(turns) != 1 or turns[0]["role"] != "assistant":
        raise Unusable("no single answer of an assistant")
    return turns[0]["content"]


def _example(messages: Messages, answer: str | None, chosen: str | None = None, rejected: str | None = None) -> Example:
    if not messages or messages[-1]["role"] != "user" or not messages[-1]["content"]:
        raise Unusable("no question before the answer")
    texts = [t if t is None else t.strip() for t in (answer, chosen, rejected)]
    if "" in texts:
        raise Unusable("an empty answer")
    if chosen is not None and texts[1] == texts[2]:
        if answer is None:
            raise Unusable("no two different answers")
        texts[1:] = None, None
    return Example(messages, *texts)


def _format(name: str, columns: str, read: Callable[[Row], Example], *any_of: str) -> Format:
    return Format(name, frozenset(columns.split()), frozenset(any_of), read)


FORMATS = (
    _format("self-instruct (instruction, instances)", "instruction instances", self_instruct),
    _format("Alpaca (instruction, input, output, or chosen and rejected)", "instruction", alpaca, "output", "chosen"),
    _format("TRL preference (prompt, chosen, rejected)", "prompt chosen rejected", prompt_preference),
    _format("preference without a prompt, HH-RLHF too (chosen, rejected)", "chosen rejected", implicit_preference),
    _format("TRL prompt-completion (prompt, completion)", "prompt completion", prompt_completion),
    _format("TRL conversation (messages)", "messages", messages_only),
)


def detect(row: Row, where: str) -> Format:
    """The format of a row; raises LabError, with the columns that were seen, when it is none of `FORMATS`."""
    seen = {c for c, value in row.items() if value is not None}
    for form in FORMATS:
        if form.columns <= seen and (not form.any_of or form.any_of & seen):
            return form
    known = "; ".join(f.name for f in FORMATS)
    raise LabError(f"{where} has the columns {', '.join(map(str, row)) or '(none)'}. What is understood: {known}.")
