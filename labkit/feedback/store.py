"""The durable store of every judgement: append-only, idempotent, shared by many processes.

A person, a simulated annotator, a model and an import all enter by `VoteStore.add`. Nothing is ever updated or deleted:
an undo is a vote that retracts another; only `erase` deletes, for a rater who asks for it. One table: columns to filter
by, and the whole vote as one line of JSON, so that it comes back as it went in. SQLite by default (write-ahead log, on the
disk before `add` returns), PostgreSQL by its address with the same code. SQLAlchemy is imported when a store is opened.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from labkit.errors import LabError
from labkit.feedback.database import WAIT, connect, create, delete, erasures, insert_new, overwrite, table, take_turn
from labkit.records import SPLITS, Prompt, Vote

if TYPE_CHECKING:
    import sqlalchemy as sa

MODES = ("pair", "ranking", "thumb")
SOURCES = ("person", "simulated", "model", "import")
FLAGS = ("", "both_bad", "skip")
FILTERS = ("run", "rater", "source", "split", "mode")


class VoteStore:
    """All votes behind one SQLAlchemy address, such as `sqlite:///votes.sqlite` or `postgresql://host/votes`.

    Opening makes the table where it is missing. Every method raises LabError when the database cannot be used.
    """

    def __init__(self, address: str) -> None:
        self._engine, self.address = connect(address)
        self._seen: dict[tuple[Any, ...], tuple[Any, list[Vote]]] = {}
        with self._speaking(), self._engine.begin() as db:
            create(db)

    def add(self, *votes: Vote) -> int:
        """Store votes in one transaction, on the disk when this returns; returns how many were new.

        A vote whose id is there already is left as it is. Raises LabError for a malformed vote, and then stores none.
        """
        for vote in votes:
            check(vote)
        if not votes:
            return 0
        rows = [_row(v) for v in votes]
        with self._speaking(), self._engine.begin() as db:
            take_turn(db)
            self._retractable(db, votes)
            return len(db.execute(insert_new(db.dialect.name), rows).all())

    def retract(self, vote_id: str, *, rater: str) -> Vote:
        """Take a vote back by a new vote, which is returned; a second time changes nothing."""
        with self._speaking(), self._engine.connect() as db:
            body = db.execute(_select("body").where(table().c.id == vote_id)).scalar()
        if body is None:
            raise LabError(f"There is no vote {vote_id!r} to take back: it was never stored here.")
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        undo = replace(_vote(body), id=f"undo-{vote_id}", rater=rater, time=now, seconds=0.0, retracts=vote_id)
        self.add(undo)
        return undo

    def votes(self, **where: str | None) -> list[Vote]:
        """The votes that stand: neither retracted nor retractions. `where` takes run, rater, source, split and mode.

        Sorted by id, so that a digest over them does not depend on the order in which they arrived.
        """
        key = tuple(sorted(where.items(), key=str))
        query = _filter(_live(_select("body")), where)
        with self._speaking(), self._engine.connect() as db:
            state = (*db.execute(_aggregate("max", "count")).one(), erasures(db))  # the same state, the same votes
            if self._seen.get(key, (None,))[0] != state:
                found = (_vote(body) for body in db.execute(query.order_by(table().c.seq)).scalars())
                self._seen[key] = (state, sorted(found, key=lambda v: v.id))
        return list(self._seen[key][1])

    def history(self, **where: str | None) -> list[Vote]:
        """Every vote ever stored, retractions too, in the order of arrival; filters as in `votes`."""
        with self._speaking(), self._engine.connect() as db:
            query = _filter(_select("body"), where).order_by(table().c.seq)
            return [_vote(body) for body in db.execute(query).scalars()]

    def count(self, **where: str | None) -> int:
        """How many votes stand; filters as in `votes`."""
        with self._speaking(), self._engine.connect() as db:
            return db.execute(_filter(_live(_aggregate("count")), where)).scalar_one()

    def raters(self) -> dict[str, int]:
        """Who judged, and how many of their votes stand."""
        column = table().c.rater
        with self._speaking(), self._engine.connect() as db:
            rows = db.execute(_live(_aggregate("count").add_columns(column)).group_by(column)).all()
        return {rater: n for n, rater in sorted(rows, key=lambda row: row[1])}

    def erase(self, rater: str) -> int:
        """Delete a rater's votes for good, the undone ones too, and overwrite their place; returns how many there were.

        What others took back of theirs goes with them. An undo that this rater gave on somebody else's vote stays, under the
        name "erased", so that no vote comes back to life. Copies elsewhere (finished runs, exports, backups) are not touched.
        """
        self._seen.clear()
        with self._speaking():
            with self._engine.begin() as db:
                gone, undos = delete(db, rater)
                for seq, body in undos:
                    kept = _row(replace(_vote(body), rater="erased"))
                    db.execute(table().update().where(table().c.seq == seq).values(**kept))
            overwrite(self._engine)
        return gone

    def close(self) -> None:
        """Let go of the database; the store can still be used and then opens it again."""
        self._engine.dispose()

    def _retractable(self, db: sa.Connection, votes: Iterable[Vote]) -> None:
        """Raise LabError unless every retraction names a vote that is stored, or stands before it in the batch."""
        known: dict[str, str] = {}
        for vote in votes:
            target = vote.retracts
            if target and target not in known:
                found = db.execute(_select("retracts").where(table().c.id == target)).scalar()
                if found is None:
                    raise LabError(
                        f"Vote {vote.id!r} takes back {target!r}, which is not stored: send that vote first."
                    )
                known[target] = found
            if target and known[target]:
                raise LabError(f"Vote {vote.id!r} takes back {target!r}, itself a retraction: give a new vote instead.")
            known[vote.id] = target

    @contextlib.contextmanager
    def _speaking(self) -> Iterator[None]:
        """Turn what a database says into a sentence."""
        import sqlite3

        from sqlalchemy.exc import SQLAlchemyError

        try:
            yield
        except (SQLAlchemyError, sqlite3.Error) as error:
            said = str(getattr(error, "orig", None) or error).splitlines()[0]
            hint = "check the path or address, and that it may be written"
            if "locked" in said:
                hint = f"another program held it for {WAIT} seconds; close that one and try again"
            elif "malformed" in said or "not a database" in said:
                hint = (
                    "the file is damaged or is something else; put a copy in its place, or move it away to start anew"
                )
            elif "full" in said:
                hint = "free some space; nothing of this vote was stored"
            raise LabError(f"The vote store {self.address} cannot be used ({said}): {hint}.") from error


def check(vote: Vote) -> None:
    """Raise LabError unless a vote is well formed: known words, one rank an answer, sides that are a permutation."""

    def must(true: bool, sentence: str) -> None:
        if not true:
            raise LabError(f"Vote {vote.id!r} cannot be stored: {sentence}.")

    for name in ("id", "rater", "run", "retracts", "time", "edit"):
        value = getattr(vote, name)
        must(isinstance(value, str) and "\0" not in value, f"{name} must be text, not {value!r}")
    must(bool(vote.id.strip()) and bool(vote.rater.strip()), "it needs an id and the name of its rater")
    for name, allowed in (("source", SOURCES), ("mode", MODES), ("flag", FLAGS)):
        value = getattr(vote, name)
        must(value in allowed, f"{name} must be one of {', '.join(map(repr, allowed))}, not {value!r}")
    must(
        vote.prompt.split in SPLITS, f"its prompt's split must be one of {', '.join(SPLITS)}, not {vote.prompt.split!r}"
    )
    must(bool(vote.prompt.messages), "its prompt has no message")
    k, least = len(vote.answers), 1 if vote.mode == "thumb" else 2
    exact = "exactly" if vote.mode != "ranking" else "at least"
    must(k == least or (k > least and vote.mode == "ranking"), f"a {vote.mode} has {exact} {least} answers, not {k}")
    must(all(isinstance(a, str) for a in (*vote.answers, *vote.reasons)), "answers and reasons must be text")
    if vote.ranks or vote.flag != "skip":  # a skip may leave the ranks out
        must(len(vote.ranks) == k, f"{k} answers need {k} ranks, not {len(vote.ranks)}")
        fit = all(type(r) is int and 1 <= r <= max(k, 2) for r in vote.ranks)
        must(fit and (k == 1 or 1 in vote.ranks), f"ranks must be whole numbers from 1 (best), not {vote.ranks!r}")
    must(
        not vote.shown or sorted(vote.shown) == list(range(k)),
        f"shown must be an order of 0 to {k - 1}, not {vote.shown!r}",
    )
    must(math.isfinite(vote.seconds) and vote.seconds >= 0, f"seconds must be 0 or more, not {vote.seconds!r}")
    try:
        datetime.fromisoformat(vote.time)
    except ValueError:
        must(False, f"time must be an ISO 8601 date and time, not {vote.time!r}")


def _row(vote: Vote) -> dict[str, Any]:
    try:
        prompt = {
            name: getattr(vote.prompt, name) for name in Prompt.__slots__
        }  # `asdict` copies deeply: 8 times slower
        body = json.dumps(
            {**{name: getattr(vote, name) for name in Vote.__slots__}, "prompt": prompt}
        )  # ASCII: any text
        columns = {c: getattr(vote, c) for c in ("id", "run", "rater", "source", "mode", "retracts")}
        "".join(columns.values()).encode()
    except (TypeError, ValueError) as error:
        raise LabError(f"Vote {vote.id!r} cannot be stored: {error}. Its fields must be plain JSON values.") from error
    return {**columns, "split": vote.prompt.split, "body": body}


def _vote(body: str) -> Vote:
    try:
        return Vote.from_json(json.loads(body))
    except (ValueError, KeyError, TypeError) as error:
        raise LabError(
            f"A stored vote cannot be read ({error}): the vote store is damaged, put a copy in its place."
        ) from error


def _select(*columns: str) -> sa.Select[Any]:
    import sqlalchemy as sa

    return sa.select(*(table().c[c] for c in columns))


def _aggregate(*functions: str) -> sa.Select[Any]:
    """SELECT max(seq), count(seq), ..."""
    import sqlalchemy as sa

    return sa.select(*(getattr(sa.func, f)(table().c.seq) for f in functions))


def _live(query: sa.Select[Any]) -> sa.Select[Any]:
    """Only what stands: not a retraction, and not retracted."""
    import sqlalchemy as sa

    undo = table().alias("undo")
    taken_back = sa.exists().where(undo.c.retracts == table().c.id)
    return query.where(table().c.retracts == "", ~taken_back)


def _filter(query: sa.Select[Any], where: dict[str, str | None]) -> sa.Select[Any]:
    for column, value in where.items():
        if column not in FILTERS:
            raise LabError(f"Votes cannot be chosen by {column!r}: there are {', '.join(FILTERS)}.")
        if value is not None:
            query = query.where(table().c[column] == value)
    return query
