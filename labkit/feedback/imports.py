"""Votes read from files: what `exports` wrote, TRL's and LLM Comparator's from elsewhere, and CSV.

JSON lines, JSON, Parquet, CSV (the first two and CSV also with .gz), and folders of the `datasets` library. A row of ours
gives back its vote. A row from elsewhere is judged by its columns, and its vote's id is made of its content and its
rater: reading it twice stores it once. A damaged row is named by its line and never ends the reading.

from elsewhere                                what it becomes
prompt, chosen, rejected                      a pair, the first one better (also HH-RLHF's, without a prompt)
prompt, completion, label                     a thumb, good or bad
prompt, completion                            a thumb up, and a demonstration
prompt, answers, ranks                        a ranking
input_text, output_text_a, …_b, score         a pair; score 0 is a tie

Beside these, rater, time, seconds, run, split, kind, edit and reasons are read where a row has them.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from labkit import formats
from labkit.errors import LabError
from labkit.feedback import returning, rowfiles
from labkit.feedback.exchange import Row
from labkit.feedback.returning import Damaged
from labkit.records import Prompt, Vote, digest

NOBODY = "import"  # the rater of rows that name none
SPOKEN = {"true": True, "1": True, "good": True, "yes": True, "false": False, "0": False, "bad": False, "no": False}


@dataclass
class Found:
    """What a file holds: how many rows, the votes they gave (each once), and the damaged ones: (place, why)."""

    rows: int = 0
    votes: list[Vote] = field(default_factory=list)
    damaged: list[tuple[str, str]] = field(default_factory=list)


def read(
    name: str | Path,
    *,
    rater: str = "",
    run: str = "",
    known: Callable[[], Mapping[str, Prompt]] = dict,
    stored: Container[str] = (),
) -> Found:
    """Read a file of votes; raises LabError when it cannot be read at all or holds no row.

    `rater` stands for rows that name none. `run` moves every vote to that preferences run. `known` gives the lab's own prompts
    by `asked(messages)`: a row from elsewhere that asks the same thing keeps that prompt's id, kind and, above all, split.
    `stored` holds ids in the store, which an undo may name.
    """
    found, votes, prompts = Found(), dict[str, Vote](), None
    now = datetime.now(UTC).isoformat(timespec="seconds")
    for place, row in rowfiles.rows(Path(name).expanduser()):
        found.rows += 1
        try:
            if isinstance(row, Damaged):
                raise row
            vote = returning.restored(row)
            if vote is None:
                prompts = known() if prompts is None else prompts
                vote = _from_elsewhere(row, rater or NOBODY, run, now, prompts)
            elif run:
                vote = returning.moved(vote, run)
            if votes.setdefault(vote.id, vote) != vote and not vote.id.startswith("import-"):
                raise Damaged(f"another row says something else of the vote {vote.id}")
        except Damaged as error:
            found.damaged.append((place, str(error)))
    if not found.rows:
        raise LabError(f"{name} is empty: there is not one row in it.")
    for vote in list(votes.values()):
        target = votes.get(vote.retracts)
        if vote.retracts and (target.retracts if target else vote.retracts not in stored):
            del votes[vote.id]
            found.damaged.append((f"vote {vote.id}", f"it takes back {vote.retracts}, which is no vote here"))
    found.votes = sorted(votes.values(), key=lambda v: bool(v.retracts))  # an undo after what it undoes
    return found


def asked(messages: Any) -> str:
    """A key for a conversation that does not see case and spacing."""
    return digest([[m["role"], " ".join(m["content"].casefold().split())] for m in messages], 20)


def _from_elsewhere(row: Row, rater: str, run: str, now: str, known: Mapping[str, Prompt]) -> Vote:
    """One vote of a row that this lab did not write; raises Damaged."""

    def make() -> Vote:
        messages, judged = _judgement(row)
        fields: dict[str, Any] = {**_extras(row), **judged}
        mine = known.get(asked(messages))
        if mine is None:
            told = {k: row[k] for k in ("split", "kind") if row.get(k)}
            mine = Prompt(**{"id": digest(list(messages), 10), "messages": messages, "kind": "import", **told})
        fields = {"rater": rater, "time": now, "source": "import", **fields, "run": run or row.get("run") or ""}
        content = [list(mine.messages), *(fields.get(k) for k in ("answers", "ranks", "mode", "rater", "edit", "run"))]
        return Vote(id=f"import-{digest(content, 20)}", prompt=mine, **fields)

    try:
        return returning.checked(make)
    except formats.Unusable as error:
        raise Damaged(str(error)) from error


def _judgement(row: Row) -> tuple[formats.Messages, dict[str, Any]]:
    """The conversation, and the fields of the vote that say what was judged and how."""
    has = {c for c, value in row.items() if value is not None}
    if {"input_text", "output_text_a", "output_text_b"} <= has:
        if not isinstance(row.get("score"), int | float):
            raise Damaged("it has no score")
        ranks = (1, 1) if row["score"] == 0 else (1, 2) if row["score"] > 0 else (2, 1)
        judged = {"answers": (row["output_text_a"], row["output_text_b"]), "ranks": ranks, "mode": "pair"}
        return formats.conversation(row["input_text"]), judged
    if {"prompt", "answers", "ranks"} <= has:
        texts = tuple(a if isinstance(a, str) else a[-1]["content"] for a in row["answers"])
        judged = {"answers": texts, "ranks": tuple(row["ranks"]), "mode": "ranking"}
        return formats.conversation(row["prompt"]), judged
    try:
        form = formats.detect(row, "It")
    except LabError as error:
        raise Damaged(str(error)) from error
    example = form.read({k: v for k, v in row.items() if k != "label"})
    if example.chosen is not None and example.rejected is not None:
        return example.messages, {"answers": (example.chosen, example.rejected), "ranks": (1, 2), "mode": "pair"}
    if example.answer is None:
        raise Damaged("no answer that was judged")
    judged = {"answers": (example.answer,), "mode": "thumb", "ranks": (1,)}
    if row.get("label") is None:
        return example.messages, {**judged, "edit": example.answer}
    good = SPOKEN.get(str(row["label"]).strip().lower())
    if good is None:
        raise Damaged(f"its label is {row['label']!r}, neither true nor false")
    return example.messages, {**judged, "ranks": (1,) if good else (2,)}


def _extras(row: Row) -> dict[str, Any]:
    """What a row from elsewhere may tell of its rater and the moment."""
    told = {k: row[k] for k in ("rater", "time", "edit") if row.get(k)}
    if row.get("seconds") not in (None, ""):
        told["seconds"] = float(row["seconds"])
    if row.get("reasons"):
        reasons = row["reasons"]
        told["reasons"] = tuple(r.strip() for r in reasons.split(",")) if isinstance(reasons, str) else tuple(reasons)
    return told
