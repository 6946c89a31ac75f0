"""The vote store keeps every judgement exactly once, whoever gives it and whatever dies.

The same tests run on a PostgreSQL that they start where one is installed (Debian: `postgresql`), or on the empty database that
LABKIT_POSTGRES names by its SQLAlchemy address.
"""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import postgres
import pytest

from labkit.errors import LabError
from labkit.feedback.store import VoteStore, check
from labkit.records import Prompt, Vote, digest

ROOT = Path(__file__).parent.parent
PROMPT = Prompt.of("Where do otters sleep?", kind="fact", meta={"task": "home", "entities": ["otter"]})
POSTGRES = os.environ.get("LABKIT_POSTGRES", "")


def a_vote(name: str, **fields: object) -> Vote:
    given = {
        "answers": ("On the river bank.", "Go away."),
        "ranks": (1, 2),
        "rater": "ada",
        "source": "person",
        **fields,
    }
    return Vote(id=name, prompt=PROMPT, time="2025-03-01T12:00:00+00:00", shown=(), **given)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The address of an empty PostgreSQL database."""
    installed = postgres.programs()
    if POSTGRES or installed is None:
        if not POSTGRES and postgres.REQUIRED:
            pytest.fail("PostgreSQL is not installed, and LABKIT_POSTGRES_REQUIRED=1 asks for it (Debian: postgresql)")
        if not POSTGRES:
            pytest.skip("PostgreSQL is not installed here (Debian: postgresql), and LABKIT_POSTGRES names no database")
        yield POSTGRES
        return
    with postgres.cluster(installed) as address:
        yield address


@pytest.fixture(params=["sqlite", "postgresql"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'votes.sqlite'}"
        return
    import sqlalchemy as sa

    server = request.getfixturevalue("server")
    yield server
    engine = sa.create_engine(server)
    with engine.begin() as db:
        db.exec_driver_sql("DROP TABLE IF EXISTS votes")
    engine.dispose()


@pytest.fixture
def store(address: str) -> Iterator[VoteStore]:
    opened = VoteStore(address)
    yield opened
    opened.close()


def test_sending_twice_stores_once(store: VoteStore) -> None:
    """Two votes, then the second again with a third: 2 new, then 1 new, 3 in all; the first version of an id stays."""
    assert store.add(a_vote("a"), a_vote("b")) == 2
    assert store.add(a_vote("b", ranks=(2, 1)), a_vote("c"), a_vote("c")) == 1
    assert [v.id for v in store.votes()] == ["a", "b", "c"]
    assert store.votes()[1].ranks == (1, 2)
    assert store.add() == 0


def test_a_vote_comes_back_as_it_went_in(store: VoteStore) -> None:
    """Every field, long texts, many alphabets, quotes, a NUL and half a surrogate pair included."""
    odd = "Zoë 🦦 'quoted\" \\ 水獺 \u202eabc\u0000\ud83d " + "long " * 50_000
    sent = replace(
        a_vote("ü-1", answers=(odd, "b", "c"), ranks=(1, 2, 2), mode="ranking", rater="Zoë 🦦"),
        shown=(2, 0, 1),
        seconds=1.25,
        flag="both_bad",
        run="preferences-0a1b2c",
        reasons=("kinder", "正しい"),
        edit="better\n",
        prompt=Prompt.of("Où?", split="validation", meta={"n": [1, None, 0.1], "ok": True}),
    )
    store.add(sent)
    assert store.votes() == [sent]
    assert VoteStore(store._engine.url.render_as_string(hide_password=False)).votes() == [sent]


def test_undo_is_a_new_vote(store: VoteStore) -> None:
    store.add(a_vote("a"), a_vote("b"))
    undo = store.retract("a", rater="ada")
    store.retract("a", rater="ada")
    assert undo.retracts == "a"
    assert [v.id for v in store.votes()] == ["b"]
    assert [v.id for v in store.history()] == ["a", "b", undo.id], "nothing is ever removed"
    assert store.count() == 1
    assert store.raters() == {"ada": 1}
    store.add(a_vote("late"), replace(a_vote("late-undo"), retracts="late"))  # both wait in one outbox
    assert [v.id for v in store.votes()] == ["b"]
    for unknown in (lambda: store.retract("zzz", rater="ada"), lambda: store.add(replace(a_vote("x"), retracts="zzz"))):
        with pytest.raises(LabError, match="zzz"):
            unknown()
    with pytest.raises(LabError, match="give a new vote"):
        store.retract(undo.id, rater="ada")


def test_the_order_of_arrival_does_not_show(tmp_path: Path) -> None:
    votes = [a_vote(f"v{i}", rater=f"r{i % 3}") for i in range(30)]
    digests = set()
    for name, order in (("x", votes), ("y", votes[::-1])):
        store = VoteStore(f"sqlite:///{tmp_path / name}.sqlite")
        for vote in order:
            store.add(vote)
        assert [v.id for v in store.history()] == [v.id for v in order]
        digests.add(digest([v.id for v in store.votes()]))
    assert len(digests) == 1


def test_filters(store: VoteStore) -> None:
    store.add(
        a_vote("a", run="preferences-1", rater="ada"),
        a_vote("b", run="preferences-1", rater="bob", source="simulated"),
        a_vote("c", run="preferences-2", rater="bob", answers=("x",), ranks=(2,), mode="thumb"),
        replace(a_vote("d", rater="ada"), prompt=replace(PROMPT, split="test")),
    )
    seen = {
        (("run", "preferences-1"),): ["a", "b"],
        (("rater", "bob"),): ["b", "c"],
        (("source", "simulated"),): ["b"],
        (("mode", "thumb"),): ["c"],
        (("split", "test"),): ["d"],
        (("run", "preferences-1"), ("rater", "ada"), ("mode", None)): ["a"],
    }
    for where, ids in seen.items():
        assert [v.id for v in store.votes(**dict(where))] == ids
        assert [v.id for v in store.history(**dict(where))] == ids
        assert store.count(**dict(where)) == len(ids)
    assert len(seen) == 6
    assert store.raters() == {"ada": 2, "bob": 2}
    with pytest.raises(LabError, match="there are run, rater, source, split, mode"):
        store.votes(rtaer="ada")


def test_reading_again_notices_new_votes(address: str) -> None:
    """`votes` remembers what it read; a vote or an undo from another process must still show."""
    here, there = VoteStore(address), VoteStore(address)
    there.add(a_vote("a"))
    assert here.count() == len(here.votes()) == 1
    there.add(a_vote("b"))
    assert len(here.votes()) == 2
    there.retract("a", rater="ada")
    assert [v.id for v in here.votes()] == ["b"]
    here.votes().clear()
    assert len(here.votes()) == 1, "the list handed out is the caller's own"


MALFORMED = {
    "2 answers need 2 ranks": {"ranks": (1,)},
    "whole numbers from 1": {"ranks": (0, 1)},
    "ranks must be": {"ranks": (2, 2)},
    "from 1 .best.": {"ranks": (1, 3)},
    "whole numbers": {"ranks": (1.0, 2.0)},
    "a pair has exactly 2 answers": {"answers": ("a", "b", "c"), "ranks": (1, 2, 3)},
    "a thumb has exactly 1": {"mode": "thumb"},
    "a ranking has at least 2": {"mode": "ranking", "answers": ("a",), "ranks": (1,)},
    "mode must be one of 'pair', 'ranking', 'thumb', not 'duel'": {"mode": "duel"},
    "source must be one of": {"source": "martian"},
    "flag must be one of": {"flag": "meh"},
    "name of its rater": {"rater": " "},
    "rater must be text": {"rater": None},
    "answers and reasons must be text": {"answers": ("a", 5)},
    "seconds must be 0 or more, not nan": {"seconds": float("nan")},
    "seconds must be": {"seconds": -1.0},
}


def test_a_malformed_vote_is_refused_with_all_that_came_with_it(store: VoteStore) -> None:
    for sentence, fields in MALFORMED.items():
        with pytest.raises(LabError, match=sentence):
            store.add(a_vote("good"), a_vote("bad", **fields))
    for sentence, vote in {
        "an order of 0 to 1": replace(a_vote("bad"), shown=(0, 0)),
        "ISO 8601": replace(a_vote("bad"), time="yesterday"),
        "split must be one of": replace(a_vote("bad"), prompt=replace(PROMPT, split="dev")),
        "no message": replace(a_vote("bad"), prompt=replace(PROMPT, messages=())),
        "plain JSON": replace(a_vote("bad"), prompt=replace(PROMPT, meta={"a": {1, 2}})),
    }.items():
        with pytest.raises(LabError, match=sentence):
            store.add(a_vote("good"), vote)
    assert len(MALFORMED) == 16
    assert store.history() == []
    check(a_vote("skip", ranks=(), flag="skip"))
    check(a_vote("tie", ranks=(1, 1)))


def _writer(address: str, number: int, votes: int) -> None:
    store = VoteStore(address)
    for i in range(votes):
        assert store.add(a_vote(f"w{number}-{i:03}", rater=str(number))) == 1
        if i % 10 == 0:  # ids that all eight send, in opposite orders: a careless database deadlocks
            store.add(*[a_vote(f"shared-{i:03}-{j}", rater=str(number)) for j in range(3)][:: 1 if number % 2 else -1])


@pytest.mark.slow
def test_eight_processes_lose_and_double_nothing(address: str) -> None:
    """8 × 500 votes at once, each durable before the next, and 150 ids that all eight send: 4,150 votes, each once.

    In PostgreSQL 8 × 100 and 30: nothing there depends on how long it goes on.
    """
    votes = 500 if address.startswith("sqlite") else 100
    spawn = multiprocessing.get_context("spawn")
    writers = [spawn.Process(target=_writer, args=(address, n, votes)) for n in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(300)
    assert [writer.exitcode for writer in writers] == [0] * 8
    ids = [v.id for v in VoteStore(address).history()]
    own = {f"w{n}-{i:03}" for n in range(8) for i in range(votes)}
    assert len(ids) == 8 * votes + 3 * votes // 10
    assert set(ids) == own | {f"shared-{i:03}-{j}" for i in range(0, votes, 10) for j in range(3)}


KILLED = """
import sys, time
sys.path.insert(0, "tests")
from test_store import VoteStore, a_vote
store = VoteStore(sys.argv[1])
store.add(a_vote("kept"))
print("stored", flush=True)
time.sleep(60)
"""


def test_a_stored_vote_survives_kill_9(address: str) -> None:
    child = subprocess.Popen([sys.executable, "-c", KILLED, address], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert child.stdout and child.stdout.readline() == "stored\n"
    child.kill()
    child.wait()
    assert [v.id for v in VoteStore(address).votes()] == ["kept"]


def words(address: str) -> bytes:
    """All that stands in the files of an SQLite store."""
    return b"".join(p.read_bytes() for p in Path(address.removeprefix("sqlite:///")).parent.glob("votes.sqlite*"))


def test_erasing_a_rater(address: str) -> None:
    """Ada's votes are gone with her undo and Bob's undo of hers; what she took back of Bob's stays taken back."""
    store, other = VoteStore(address), VoteStore(address)
    store.add(*(a_vote(f"a{i}", edit=f"ada's own words {i} " + "x" * 500) for i in range(30)), a_vote("gone"))
    store.add(*(a_vote(f"b{i}", rater="bob") for i in range(3)))
    store.retract("gone", rater="ada")
    store.retract("a1", rater="bob")
    store.retract("b1", rater="ada")
    assert len(other.votes()) == 31
    if address.startswith("sqlite"):
        assert b"own words" in words(address)
    assert store.erase("ada") == 31, "the one that she took back was hers as well"
    assert [v.id for v in store.votes()] == ["b0", "b2"]
    assert [(v.id, v.rater) for v in store.history()] == [
        ("b0", "bob"),
        ("b1", "bob"),
        ("b2", "bob"),
        ("undo-b1", "erased"),
    ]
    if address.startswith("sqlite"):
        assert b"own words" not in words(address) and b"ada" not in words(address)
    store.add(
        *(a_vote(f"c{i}", rater="cem") for i in range(31))
    )  # as many as were there, perhaps under the same numbers
    assert {v.rater for v in other.votes()} == {"bob", "cem"}, "a store that was open notices"
    assert store.erase("ada") == 0
    assert store.add(a_vote("a0")) == 1, "an erased rater may come back"


def test_erasing_waits_for_a_reader_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While another program reads an old state, the log still holds the words: that is told, and a second time succeeds."""
    monkeypatch.setattr("labkit.feedback.database.WAIT", 0.2)
    address = f"sqlite:///{tmp_path / 'votes.sqlite'}"
    store = VoteStore(address)
    store.add(a_vote("a", edit="her own words"), a_vote("b", rater="bob"))
    reader = sqlite3.connect(tmp_path / "votes.sqlite")
    reader.execute("BEGIN")
    assert reader.execute("SELECT count(*) FROM votes").fetchone() == (2,)
    with pytest.raises(LabError, match="close that program and erase once more"):
        store.erase("ada")
    assert [v.id for v in store.votes()] == ["b"]
    reader.close()
    assert store.erase("ada") == 0
    assert b"her own words" not in words(address)
    with store._engine.connect() as db:  # the borrowed connection is as careful as before
        assert db.connection.driver_connection.isolation_level == "IMMEDIATE"


def test_the_disk_is_asked_to_keep_it(tmp_path: Path) -> None:
    """Write-ahead log; synchronous 2 = FULL; a busy writer is waited for; a write takes its turn at BEGIN."""
    store = VoteStore(f"sqlite:///{tmp_path / 'v.sqlite'}")
    with store._engine.connect() as db:
        pragmas = {
            p: db.exec_driver_sql(f"PRAGMA {p}").scalar() for p in ("journal_mode", "synchronous", "busy_timeout")
        }
        said: list[str] = []
        db.connection.driver_connection.set_trace_callback(said.append)
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "busy_timeout": 30_000}
    store.add(a_vote("a"))
    assert any(s.startswith("BEGIN IMMEDIATE") for s in said)
    assert said[-1] == "COMMIT"
    assert not any(s.lstrip().upper().startswith(("UPDATE", "DELETE", "DROP")) for s in said)


def test_ten_thousand_votes_at_once(tmp_path: Path) -> None:
    """0.5 s on a quiet core; the limit leaves room for a loaded machine."""
    store = VoteStore(f"sqlite:///{tmp_path / 'v.sqlite'}")
    votes = [a_vote(f"v{i:05}", source="simulated", rater=f"annotator {i % 20}") for i in range(10_000)]
    start = time.process_time()
    assert store.add(*votes) == 10_000
    assert time.process_time() - start < 2
    assert store.count(source="simulated") == 10_000


def test_what_cannot_be_opened_gets_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "text.sqlite").write_text("this is not a database, it is a letter to a friend\n" * 100)
    with sqlite3.connect(tmp_path / "other.sqlite") as db:
        db.execute("CREATE TABLE votes (colour TEXT)")
    cases = {
        f"sqlite:///{tmp_path / 'missing' / 'v.sqlite'}": "check the path or address",
        f"sqlite:///{tmp_path}": "check the path or address",
        f"sqlite:///{tmp_path / 'text.sqlite'}": "damaged or is something else",
        f"sqlite:///{tmp_path / 'other.sqlite'}": "cannot be used",
        "votes.sqlite": "no database address",
        "mysql://host/votes": "neither sqlite nor postgresql",
        "postgresql+nosuch://ada:secret@host/votes": "no database address",
        "postgresql+asyncpg://ada:secret@host/votes": "pip install 'asyncpg",
    }
    for address, sentence in cases.items():
        with pytest.raises(LabError, match=sentence) as caught:
            VoteStore(address).add(a_vote("a"))
        assert "secret" not in str(caught.value), "a password never stands in a message"
    assert len(cases) == 8


def test_a_damaged_file_gets_a_sentence(tmp_path: Path) -> None:
    """Zeros over the middle of the file, as a failing disk leaves them: reading says so, and gives no half list."""
    path = tmp_path / "v.sqlite"
    store = VoteStore(f"sqlite:///{path}")
    store.add(*(a_vote(f"v{i}", answers=("x" * 500, "y")) for i in range(500)))
    store.close()  # the last one out writes the log back into the file
    content = bytearray(path.read_bytes())
    content[len(content) // 4 : -len(content) // 4] = bytes(len(content[len(content) // 4 : -len(content) // 4]))
    path.write_bytes(content)
    with pytest.raises(LabError, match="damaged"):
        VoteStore(f"sqlite:///{path}").history()


def test_importing_the_store_is_cheap() -> None:
    """A page that shows no votes pays nothing for SQLAlchemy."""
    loaded = (
        "import sys, labkit.feedback.store; print([m for m in ('sqlalchemy', 'torch', 'datasets') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", loaded], cwd=ROOT, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
