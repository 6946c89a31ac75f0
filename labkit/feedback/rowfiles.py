"""The rows of a file with the place of each, damaged ones among them: one bad line says so and the reading goes on.

`labkit.datafiles` reads training data and stops at the first thing that is wrong; judgements are dearer, so that here
every row that can be read is.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from labkit import datafiles
from labkit.errors import LabError
from labkit.feedback.exchange import Row
from labkit.feedback.returning import Damaged

Placed = Iterator[tuple[str, Row | Damaged]]


def rows(path: Path) -> Placed:
    """Pairs of a place ("votes.jsonl, line 3") and a row, or what is wrong with it.

    Raises LabError when the file is not there, cannot be read, or has an ending that says nothing.
    """
    if path.is_dir():
        yield from _folder(path)
        return
    path = datafiles.file_of(str(path))
    suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
    if suffix == ".parquet":
        yield from datafiles.rows(str(path))
        return
    if suffix == ".txt":
        raise LabError(f"{path} is plain text, which holds no judgement: give .jsonl, .json, .parquet or .csv.")
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, gzip.BadGzipFile) as error:
        raise LabError(f"{path} is damaged or cut short ({error}): fetch it again.") from error
    except OSError as error:
        raise LabError(f"{path} cannot be read ({error.strerror or error}): check who may read it.") from error
    content = content.removeprefix(b"\xef\xbb\xbf")
    if suffix == ".json" and content.lstrip()[:1] in (b"[", b"{"):
        yield from _json(content, path.name)
    else:
        yield from (_csv if suffix == ".csv" else _jsonl)(content, path.name)


def _jsonl(content: bytes, name: str) -> Placed:
    for number, line in enumerate(content.split(b"\n"), 1):
        if line.strip():
            yield f"{name}, line {number}", _object(line)


def _object(line: bytes) -> Row | Damaged:
    try:
        row = json.loads(line.decode())
    except UnicodeDecodeError:
        return Damaged("it is not text in UTF-8")
    except ValueError as error:
        return Damaged(f"it is not JSON ({error})")
    except RecursionError:
        return Damaged("it is not JSON that anybody would nest so deeply")
    return row if isinstance(row, dict) else Damaged(f"it holds {type(row).__name__}, not an object with named columns")


def _json(content: bytes, name: str) -> Placed:
    """A list of rows, LLM Comparator's examples, or one object a line whatever the ending says."""
    whole = _object(b'{"rows": ' + content + b"}")
    if isinstance(whole, Damaged):
        if isinstance(_object(content.lstrip().partition(b"\n")[0]), Damaged):
            raise LabError(f"{name} cannot be read, {whole}: mend the file.")
        yield from _jsonl(content, name)
        return
    rows, kind = whole["rows"], "row"
    if isinstance(rows, dict):
        rows, kind = (rows["examples"], "example") if isinstance(rows.get("examples"), list) else ([rows], "row")
    for number, row in enumerate(rows, 1):
        why = f"it holds {type(row).__name__}, not an object with named columns"
        yield f"{name}, {kind} {number}", row if isinstance(row, dict) else Damaged(why)


def _csv(content: bytes, name: str) -> Placed:
    """Commas, semicolons or tabs, whichever the head has; bytes that are no UTF-8 become half characters, and are told."""
    csv.field_size_limit(2**27)  # answers are longer than a spreadsheet's cell
    text = content.decode("utf-8", "surrogateescape")
    head_line = text.partition("\n")[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=head_line.count), strict=True)
    head: list[str] | None = None
    while True:
        start = reader.line_num + 1
        place = f"{name}, line {start}"
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield place, Damaged(f"it is not CSV ({error})")
            continue
        if head is None:
            head = [h.strip() for h in cells]
        elif cells:
            yield place, _cells(head, cells)


def _cells(head: list[str], cells: list[str]) -> Row | Damaged:
    if len(cells) != len(head):
        return Damaged(f"it has {len(cells)} cells where the first line has {len(head)}")
    if any("\udc80" <= letter <= "\udcff" for cell in cells for letter in cell):
        return Damaged("it is not text in UTF-8")
    return {name: cell if cell else None for name, cell in zip(head, cells, strict=True)}


def _folder(path: Path) -> Placed:
    """A data set, or several by split, that the `datasets` library saved."""
    if not (path / "state.json").exists() and not (path / "dataset_dict.json").exists():
        raise LabError(f"{path} is a folder, and no data set that the datasets library saved: name the file in it.")
    import datasets

    try:
        loaded: Any = datasets.load_from_disk(str(path))
        parts = loaded.values() if isinstance(loaded, datasets.DatasetDict) else [loaded]
        number = 0
        for part in parts:
            for table in part.with_format("arrow").iter(1000):
                for row in table.to_pylist():
                    number += 1
                    yield f"{path.name}, row {number}", row
    except Exception as error:  # the library raises a dozen kinds; each gets a sentence, none is swallowed
        raise LabError(f"{path} is not a data set that can be read ({type(error).__name__}: {error}).") from error
