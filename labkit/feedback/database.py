"""The database behind the vote store: its table, and how SQLite and PostgreSQL are opened.

SQLAlchemy is imported inside the functions, a quarter of a second that a page without votes does not pay.
"""

from __future__ import annotations

import re
import time
from functools import cache
from typing import TYPE_CHECKING, Any

from labkit.errors import LabError

if TYPE_CHECKING:
    import sqlalchemy as sa

WAIT = 30  # seconds that a writer waits for another one


@cache
def table() -> sa.Table:
    """Columns to filter by, and the whole vote as JSON in `body`."""
    import sqlalchemy as sa

    names = ("run", "retracts", "rater", "source", "split", "mode", "body")
    texts = [sa.Column(c, sa.Text, nullable=False, index=c in ("run", "retracts")) for c in names]
    return sa.Table(
        "votes",
        sa.MetaData(),
        sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),  # the order of arrival
        sa.Column("id", sa.Text, nullable=False, unique=True),
        *texts,
    )


def insert_new(dialect: str) -> Any:
    """INSERT that leaves a known id alone and returns what was new: ON CONFLICT DO NOTHING, spelt for each dialect."""
    if dialect == "postgresql":
        from sqlalchemy.dialects.postgresql import insert
    else:
        from sqlalchemy.dialects.sqlite import insert  # type: ignore[assignment]
    return insert(table()).on_conflict_do_nothing(index_elements=["id"]).returning(table().c.seq)


def take_turn(db: sa.Connection) -> None:
    """One writer at a time until the transaction ends, as in SQLite: `seq` is the order of arrival; no deadlocks."""
    if db.dialect.name == "postgresql":
        db.exec_driver_sql("SELECT pg_advisory_xact_lock(1147562836)")


def create(db: sa.Connection) -> None:
    """Make the table and its indexes where they are missing, also when several processes do so at once."""
    from sqlalchemy.schema import CreateIndex, CreateTable

    take_turn(db)  # in PostgreSQL, IF NOT EXISTS alone is not safe against a second process
    db.execute(CreateTable(table(), if_not_exists=True))
    for index in sorted(table().indexes, key=lambda i: str(i.name)):
        db.execute(CreateIndex(index, if_not_exists=True))


def delete(db: sa.Connection, rater: str) -> tuple[int, list[Any]]:
    """Delete a rater's votes and whatever took them back; returns how many, and this rater's undos of others': (seq, body)."""
    import sqlalchemy as sa

    take_turn(db)
    t = table()
    theirs = sa.select(t.c.id).where(t.c.rater == rater, t.c.retracts == "")
    db.execute(sa.delete(t).where(t.c.retracts.in_(theirs)))
    gone = db.execute(sa.delete(t).where(t.c.rater == rater, t.c.retracts == "")).rowcount
    erasures(db, one_more=True)
    return gone, list(db.execute(sa.select(t.c.seq, t.c.body).where(t.c.rater == rater)).all())


def erasures(db: sa.Connection, *, one_more: bool = False) -> int:
    """How often votes were erased. SQLite may give a freed number to a new row, so that counting rows does not show it."""
    if db.dialect.name != "sqlite":
        return 0
    known = db.exec_driver_sql("PRAGMA user_version").scalar_one()
    if one_more:
        db.exec_driver_sql(f"PRAGMA user_version = {known + 1}")
    return known


def overwrite(engine: sa.Engine) -> None:
    """Rewrite the whole store without what was deleted, so that its files hold no letter of it any more.

    Waits for programs that are reading. PostgreSQL's own log and backups keep it until they are recycled.
    """
    if engine.dialect.name == "postgresql":
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("VACUUM (FULL, ANALYZE) votes")
        return
    pooled = engine.raw_connection()
    db: Any = pooled.driver_connection
    try:
        db.isolation_level = None  # VACUUM stands in no transaction
        db.execute("PRAGMA secure_delete = ON")
        db.execute("VACUUM")
        busy = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
    finally:
        db.isolation_level = "IMMEDIATE"
        pooled.close()
    if busy:
        raise LabError(
            "The votes are deleted, but a program that reads the store keeps its write-ahead log, which holds them still: "
            "close that program and erase once more."
        )


def connect(address: str) -> tuple[sa.Engine, str]:
    """An engine, and the address without its password."""
    import sqlalchemy as sa

    shown = re.sub(r":[^:/@]*@", ":***@", address)
    try:
        url = sa.make_url(address)
        shown = url.render_as_string(hide_password=True)
        if url.get_backend_name() not in ("sqlite", "postgresql"):
            raise LabError(f"The vote store {shown} is neither sqlite nor postgresql: those two are supported.")
        engine = sa.create_engine(url, pool_pre_ping=url.get_backend_name() == "postgresql")
    except sa.exc.ArgumentError as error:
        raise LabError(
            f"{shown!r} is no database address: write for example sqlite:///outputs/votes.sqlite."
        ) from error
    except ModuleNotFoundError as error:
        raise LabError(
            f"The vote store {shown} needs the package {error.name}: pip install '{error.name}[binary]'."
        ) from error
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "connect", _durable)
    return engine, shown


def _durable(connection: Any, _: Any) -> None:
    """Write-ahead log, flushed at every commit; a second writer waits its turn from BEGIN on, never fails half-way."""
    connection.isolation_level = "IMMEDIATE"
    connection.execute(f"PRAGMA busy_timeout = {WAIT * 1000}")
    deadline = time.monotonic() + WAIT
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            break
        except Exception as error:  # sqlite3.OperationalError: the switch itself does not wait for others
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA fullfsync = 1")  # macOS: through the drive's own cache as well
