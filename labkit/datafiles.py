"""Rows from files (jsonl, json, parquet, csv, plain text; gzip too) and data sets of the hub; errors in sentences."""

from __future__ import annotations

import csv
import difflib
import gzip
import hashlib
import io
import json
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Any

from labkit.errors import LabError

SUFFIXES = (".jsonl", ".json", ".parquet", ".csv", ".txt")
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)*(:\S+)?")
Numbered = Iterator[tuple[str, dict[str, Any]]]


def rows(name: str, *, limit: int = 0) -> Numbered:
    """Pairs of a place ("file.jsonl, line 3") and a row of columns; the first `limit` ones, or all.

    Raises LabError when there is nothing of that name, it cannot be read, or it is empty.
    """
    found = islice(_file_rows(file_of(name)) if is_file(name) else _hub_rows(name), limit or None)
    first = next(found, None)
    if first is None:
        raise LabError(f"{name} is empty: there is not one row in it.")
    yield first
    yield from found


def is_file(name: str) -> bool:
    """Whether the name means a file here, there or not, and no data set of the hub."""
    path = Path(name).expanduser()
    return (
        path.exists()
        or _suffix(path) in SUFFIXES
        or name.startswith((".", "/", "~", "\\"))
        or not _NAME.fullmatch(name)
    )


def file_of(name: str) -> Path:
    """The path of a file that is there; raises LabError with the nearest name in its folder when it is not."""
    path = Path(name).expanduser()
    if path.is_dir():
        raise LabError(f"{name} is a folder: name the file in it that holds the rows.")
    if not path.exists():
        there = sorted(p.name for p in path.parent.iterdir() if p.is_file()) if path.parent.is_dir() else []
        near = difflib.get_close_matches(path.name, there, n=1, cutoff=0.5)
        hint = f"did you mean '{path.parent / near[0]}'?" if near else "check the path."
        raise LabError(f"There is no file {name}: {hint}")
    if _suffix(path) not in SUFFIXES:
        raise LabError(f"{name} has an ending that says nothing: {', '.join(SUFFIXES)} (also with .gz) are understood.")
    return path


def stem(name: str) -> str:
    """A short name for tables: the file's without its endings, or the data set's without its owner."""
    if not is_file(name):
        return name.partition(":")[0].partition("/")[2].replace("/", "-") or name
    return re.sub(r"(\.(jsonl|json|parquet|csv|txt))?(\.gz)?$", "", Path(name).name)


def fingerprint(name: str) -> str:
    """Hex digits that change with the content: of a file's bytes, or of a data set's revision on the hub."""
    if not is_file(name):
        return _load(name)._fingerprint
    with open(file_of(name), "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def _suffix(path: Path) -> str:
    return Path(path.name.removesuffix(".gz")).suffix.lower()


def _file_rows(path: Path) -> Numbered:
    suffix = _suffix(path)
    try:
        if suffix == ".parquet":
            yield from _parquet(path)
            return
        opened: Any = gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb")
        with io.TextIOWrapper(opened, encoding="utf-8-sig", newline="") as f:
            yield from {".csv": _csv, ".txt": _text, ".json": _json}.get(suffix, _jsonl)(f, path.name)
    except UnicodeDecodeError as error:
        raise LabError(f"{path} is not text in UTF-8: save it as UTF-8 and try again.") from error
    except (EOFError, gzip.BadGzipFile) as error:
        raise LabError(f"{path} is damaged or cut short ({error}): fetch it again.") from error
    except OSError as error:
        raise LabError(f"{path} cannot be read ({error.strerror or error}): check who may read it.") from error


def _jsonl(f: IO[str], name: str) -> Numbered:
    for number, line in enumerate(f, 1):
        if not line.strip():
            continue
        where = f"{name}, line {number}"
        try:
            row = json.loads(line)
        except ValueError as error:
            raise LabError(f"{where} is not JSON ({error}): mend or remove that line.") from error
        if not isinstance(row, dict):
            raise LabError(f"{where} holds {type(row).__name__}, not an object with named columns.")
        yield where, row


def _json(f: IO[str], name: str) -> Numbered:
    text = f.read()
    if not text.lstrip().startswith("["):  # one object a line, whatever the ending says
        yield from _jsonl(io.StringIO(text), name)
        return
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise LabError(f"{name}, line {error.lineno} is not JSON ({error.msg}): mend the file.") from error
    for number, row in enumerate(found, 1):
        if not isinstance(row, dict):
            raise LabError(f"{name}, row {number} holds {type(row).__name__}, not an object with named columns.")
        yield f"{name}, row {number}", row


def _csv(f: IO[str], name: str) -> Numbered:
    csv.field_size_limit(2**27)  # answers are longer than a spreadsheet's cell
    reader = csv.DictReader(f, strict=True)
    try:
        for row in reader:
            yield f"{name}, line {reader.line_num}", {k: v for k, v in row.items() if k is not None}
    except csv.Error as error:
        raise LabError(f"{name}, from line {reader.line_num + 1} on, is not CSV ({error}): mend the file.") from error


def _text(f: IO[str], name: str) -> Numbered:
    for number, block in enumerate(re.split(r"\n\s*\n", f.read().replace("\r\n", "\n")), 1):
        if block.strip():
            yield f"{name}, block {number}", {"text": block.strip()}


def _parquet(path: Path) -> Numbered:
    import pyarrow as pa  # type: ignore[import-untyped]
    import pyarrow.parquet  # type: ignore[import-untyped]

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches(1024):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path.name}, row {number}", row
    except pa.ArrowException as error:
        raise LabError(f"{path} is not a Parquet file that can be read: fetch it again.") from error


def _hub_rows(name: str) -> Numbered:
    for number, row in enumerate(_load(name), 1):
        yield f"{name}, row {number}", row


def _load(name: str) -> Any:
    """A data set of the hub: `owner/id`, `owner/id:split` or `owner/id/part:split`; split train unless named."""
    import datasets

    which, _, split = name.partition(":")
    owner, *rest = which.split("/")
    hub_id, part = "/".join([owner, *rest[:1]]), "/".join(rest[1:])
    try:
        try:
            return datasets.load_dataset(hub_id, part or None, split=split or "train")
        except ValueError as error:
            if not part or "BuilderConfig" not in str(error):
                raise
            return datasets.load_dataset(
                hub_id, data_dir=part, split=split or "train"
            )  # a folder of the data set, as in HH-RLHF
    except Exception as error:  # the hub's client raises a dozen kinds; each gets a sentence, none is swallowed
        raise LabError(_why(name, f"{type(error).__name__}: {error}")) from error


def _why(name: str, said: str) -> str:
    low = said.lower()
    if re.search(r"\bgated\b|40[13] client", low):
        return f"{name} is gated: accept its terms on its page on the hub, log in with 'hf auth login', and run again."
    if "unknown split" in low or "builderconfig" in low:
        return f"{name}: {said.partition(': ')[2].splitlines()[0]} Write 'owner/id/part:split' with one that is there."
    if "dataset scripts" in low:
        return f"{name} needs a program of its own to be read, which is never run here: name its files instead."
    if any(w in low for w in ("offline", "couldn't reach", "connection", "timeout", "timed out", "resolve", "proxy")):
        return (
            f"{name} is no file here, and the hub cannot be reached: check the connection, or name a file on this disk."
        )
    if "datasetnotfound" in low or "404" in low or "doesn't exist" in low:
        return f"{name} is neither a file here nor a data set on the hub: check its spelling."
    return f"{name} cannot be loaded from the hub: {said.splitlines()[0]}"
