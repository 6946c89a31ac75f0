"""Votes written to a file: JSON lines, Parquet, a folder of the `datasets` library, or LLM Comparator's JSON.

Whole or not at all: a file takes its name when it is complete. Which rows a vote gives is said in `exchange`.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

from labkit.errors import LabError
from labkit.feedback import exchange
from labkit.feedback.store import VoteStore
from labkit.records import Vote, to_json

FORMATS = {".jsonl": "jsonl", ".parquet": "parquet", ".json": "json", "": "datasets"}
BATCH = 1000  # rows that are in memory at once


@dataclass(frozen=True)
class Written:
    """What an export came to: rows, the votes that gave them, and how many votes the form could not say."""

    path: Path
    format: str
    rows: int
    votes: int
    left_out: int


def chosen(store: VoteStore, form: str, **where: str | None) -> list[Vote]:
    """The votes that an export in `form` is about, oldest first: those that stand; for `votes` undos and undone ones too."""
    if form != "votes":
        return sorted(store.votes(**where), key=lambda v: (v.time, v.id))
    found = store.history(**where)
    there = {v.id for v in found}
    return [v for v in found if not v.retracts or v.retracts in there]  # an undo never stands without what it undoes


def write(votes: Iterable[Vote], target: str | Path, form: str, format: str = "") -> Written:
    """Write votes as rows of `form`. `format` is jsonl, parquet, datasets or json (guessed from the name if empty).

    A file of that name is replaced, a folder only if it is a data set. Raises LabError when it cannot be written, or when
    no vote can be said in that form.
    """
    path, votes = Path(target).expanduser(), list(votes)
    format = format_of(path, form, format)
    if not any(True for vote in votes for _ in exchange.rows(vote, form)):
        raise LabError(f"There is no vote here that can be written as {form}: 'labkit votes list' shows what there is.")
    extra = {key for v in votes for m in v.prompt.messages for key in m} - {"role", "content"}
    if extra and format in ("parquet", "datasets"):
        raise LabError(f"A prompt's messages have {', '.join(extra)} too, which {format} would lose: write jsonl.")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        gave = [0, 0]  # rows, votes
        {"jsonl": _jsonl, "json": _json, "parquet": _parquet, "datasets": _datasets}[format](
            temporary, _counted(votes, form, gave), form
        )
        if path.is_dir():
            shutil.rmtree(path)
        os.replace(temporary, path)
    except OSError as error:
        raise LabError(f"{path} cannot be written ({error.strerror or error}): choose another place.") from error
    except UnicodeEncodeError as error:
        raise LabError(f"A vote holds half a character, which {format} cannot keep: write jsonl, which can.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        with contextlib.suppress(OSError):
            temporary.unlink()
    return Written(path, format, gave[0], gave[1], len(votes) - gave[1])


def format_of(path: Path, form: str, format: str = "") -> str:
    """The format of an export, from its name unless told; raises LabError where form, format and name do not fit."""
    guess = FORMATS.get("" if path.is_dir() else path.suffix.lower())
    format = format or guess or ""
    if form == "comparator" and format != "json":
        raise LabError(f"LLM Comparator reads one JSON file, and {path} is none: name it something.json.")
    if form != "comparator" and format == "json":
        raise LabError(f"{path} would be one JSON text, which only --as comparator is: name it something.jsonl.")
    if not format:
        raise LabError(f"{path} has an ending that says nothing: end it in .jsonl or .parquet, or give --format.")
    if path.is_dir() and (format != "datasets" or not (path / "state.json").exists() and any(path.iterdir())):
        raise LabError(f"{path} is a folder with other things in it: choose another name.")
    return format


def anonymous(votes: Iterable[Vote], key: bytes) -> list[Vote]:
    """The votes without their raters' names: one pseudonym a rater, always the same under one key; new ids as well.

    An id may be made of a name, and whoever holds the original file could join on it. What was written (prompts, edits,
    reasons) and when stays as it is, and may give a person away.
    """

    def under(kind: str, text: str) -> str:
        return hmac.new(key, f"{kind}/{text}".encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()

    return [
        replace(
            vote,
            id=under("vote", vote.id)[:20],
            rater=f"rater-{under('rater', vote.rater)[:8]}",
            retracts=under("vote", vote.retracts)[:20] if vote.retracts else "",
        )
        for vote in votes
    ]


def pseudonym_key(outputs: Path) -> bytes:
    """The secret behind the pseudonyms of an outputs folder, made once and readable by its owner alone.

    Whoever has it can try names on a pseudonym; without it nobody can, and deleting it cuts the thread for good.
    """
    file = outputs / ".pseudonyms.key"
    if not file.exists():
        mine = outputs / f".pseudonyms.{secrets.token_hex(4)}"
        with os.fdopen(os.open(mine, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as f:
            f.write(secrets.token_hex(32))
        with contextlib.suppress(FileExistsError):  # another process was first: its key counts
            os.link(mine, file)
        mine.unlink()
    return bytes.fromhex(file.read_text())


def _counted(votes: Iterable[Vote], form: str, gave: list[int]) -> Iterator[tuple[Vote, dict[str, Any]]]:
    for vote in votes:
        before = gave[0]
        for row in exchange.rows(vote, form):
            gave[0] += 1
            yield vote, row
        gave[1] += gave[0] > before


Made = Iterator[tuple[Vote, dict[str, Any]]]


def _jsonl(path: Path, made: Made, form: str) -> None:
    """The form `votes` is what runs keep in votes.jsonl. Letters as they are, but escaped where UTF-8 has no word."""
    with open(path, "w", encoding="utf-8", newline="\n") as f:
        for vote, row in made:
            line = to_json(vote) if form == "votes" else json.dumps(row, ensure_ascii=False)
            try:
                line.encode()
            except UnicodeEncodeError:
                line = json.dumps(json.loads(line))
            f.write(line + "\n")


def _json(path: Path, made: Made, form: str) -> None:
    whole = exchange.comparison([row for _, row in made], "votes of a labkit store")
    path.write_text(json.dumps(whole, indent=1), encoding="utf-8")


def _tables(made: Made) -> Iterator[Any]:
    """The rows as Arrow tables of one schema, which is known beforehand: an empty list has no type of its own."""
    import pyarrow as pa  # type: ignore[import-untyped]

    first = next(made)
    texts, numbers = pa.list_(pa.string()), pa.list_(pa.int64())
    turns = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    known = {**dict.fromkeys(("prompt", "chosen", "rejected", "completion"), turns), "seconds": pa.float64()}
    known |= {"label": pa.bool_(), "reasons": texts, "answers": texts, "shown": numbers, "ranks": numbers}
    schema = pa.schema([(name, known.get(name, pa.string())) for name in first[1]])
    made = chain([first], made)
    while batch := [row for _, row in islice(made, BATCH)]:
        yield pa.Table.from_pylist(batch, schema=schema)


def _parquet(path: Path, made: Made, form: str) -> None:
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    writer = None
    for table in _tables(made):
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
    if writer:
        writer.close()


def _datasets(path: Path, made: Made, form: str) -> None:
    import datasets
    import pyarrow as pa

    table = pa.concat_tables(_tables(made))
    quiet = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        datasets.Dataset(datasets.table.InMemoryTable(table)).save_to_disk(path)
    finally:
        if not quiet:
            datasets.enable_progress_bars()
