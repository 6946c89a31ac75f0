"""Votes from other people's files: what becomes of their rows, and that what is damaged is named and never half stored."""

from __future__ import annotations

import csv
import gzip
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from random_votes import PAIR

from labkit.errors import LabError
from labkit.feedback import exchange, exports, imports
from labkit.feedback.store import VoteStore
from labkit.records import Prompt, write_jsonl

FOREIGN: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"prompt": "Q?", "chosen": "yes", "rejected": "no"}, {"answers": ("yes", "no"), "ranks": (1, 2), "mode": "pair"}),
    (
        {"prompt": [{"role": "user", "content": "Q?"}], "chosen": [{"role": "assistant", "content": "yes"}],
         "rejected": [{"role": "assistant", "content": "no"}], "rater": "eve", "seconds": 2, "split": "validation",
         "time": "2024-01-01T00:00:00", "reasons": ["true"], "edit": "yes!"},
        {"answers": ("yes", "no"), "rater": "eve", "seconds": 2.0, "time": "2024-01-01T00:00:00", "reasons": ("true",), "edit": "yes!"},
    ),
    ({"chosen": "Human: Q?\n\nAssistant: a", "rejected": "Human: Q?\n\nAssistant: b"}, {"answers": ("a", "b"), "mode": "pair"}),
    ({"prompt": "Q?", "completion": "yes", "label": True}, {"answers": ("yes",), "ranks": (1,), "mode": "thumb", "edit": ""}),
    ({"prompt": "Q?", "completion": "yes", "label": False}, {"answers": ("yes",), "ranks": (2,), "mode": "thumb"}),
    ({"prompt": "Q?", "completion": "yes"}, {"ranks": (1,), "mode": "thumb", "edit": "yes"}),
    ({"prompt": "Q?", "answers": ["a", "b", "c"], "ranks": [2, 1, 2]}, {"answers": ("a", "b", "c"), "ranks": (2, 1, 2), "mode": "ranking"}),
    ({"input_text": "Q?", "output_text_a": "a", "output_text_b": "b", "score": -1.25}, {"answers": ("a", "b"), "ranks": (2, 1)}),
    ({"input_text": "Q?", "output_text_a": "a", "output_text_b": "b", "score": 0.0}, {"ranks": (1, 1), "mode": "pair"}),
]  # fmt: skip


@pytest.mark.parametrize(("row", "fields"), FOREIGN)
def test_rows_from_elsewhere_become_votes(tmp_path: Path, row: dict[str, Any], fields: dict[str, Any]) -> None:
    write_jsonl(tmp_path / "f.jsonl", [row, row])
    found = imports.read(tmp_path / "f.jsonl", rater="mo", run="preferences-1")
    (vote,) = found.votes
    assert found.rows == 2 and found.damaged == []
    expected = {"rater": "mo", "source": "import", "run": "preferences-1", **fields}
    assert {k: getattr(vote, k) for k in expected} == expected
    assert vote.prompt.messages == ({"role": "user", "content": "Q?"},)
    assert vote.prompt.split == row.get("split", "train")


def test_reading_twice_stores_once(tmp_path: Path) -> None:
    """Ids are made of content, rater and run, and of nothing that differs tomorrow."""
    store = VoteStore(f"sqlite:///{tmp_path / 'v.sqlite'}")
    rows = [row for row, _ in FOREIGN]
    write_jsonl(tmp_path / "f.jsonl", rows)
    first = imports.read(tmp_path / "f.jsonl").votes
    (tmp_path / "renamed.json").write_text(json.dumps(rows))
    assert store.add(*first) == 9
    assert store.add(*imports.read(tmp_path / "renamed.json").votes) == 0
    assert store.add(*imports.read(tmp_path / "f.jsonl", rater="another").votes) == 8, (
        "the row that names its rater keeps it"
    )
    assert store.add(*imports.read(tmp_path / "f.jsonl", run="preferences-1").votes) == 9


def test_our_own_prompts_are_known_again(tmp_path: Path) -> None:
    """A held-out prompt that comes back in somebody's file stays held out, however it is spaced."""
    ours = Prompt.of("Where do otters sleep?", id="w1", kind="fact", split="test", meta={"task": "home"})
    write_jsonl(
        tmp_path / "f.jsonl", [{"prompt": " where do  Otters sleep?", "chosen": "a", "rejected": "b", "split": "train"}]
    )
    (vote,) = imports.read(tmp_path / "f.jsonl", known=lambda: {imports.asked(ours.messages): ours}).votes
    assert vote.prompt == ours


def test_moving_votes_to_a_run(tmp_path: Path) -> None:
    """They get ids of their own; second judgements stay second ones and the arena's stay there, for neither may train."""
    votes = [
        replace(PAIR, id=f"v{run}", run=run)
        for run in ("", "preferences-1", "preferences-2", "repeat:preferences-1", "arena")
    ]
    undo = replace(votes[1], id="undo", retracts=votes[1].id)
    write_jsonl(tmp_path / "v.jsonl", [*votes, undo])
    read = lambda: imports.read(tmp_path / "v.jsonl", run="preferences-2").votes  # noqa: E731
    moved = read()
    assert [v.run for v in moved] == ["preferences-2"] * 3 + ["repeat:preferences-2", "arena", "preferences-2"]
    assert [v.id == w.id for v, w in zip(moved, votes, strict=False)] == [False, False, True, False, True]
    assert moved[5].retracts == moved[1].id
    assert read() == moved


def test_csv(tmp_path: Path) -> None:
    """A spreadsheet's: quotes, line breaks in cells, semicolons, a byte-order mark; and labels in words."""
    path = tmp_path / "f.csv"
    with open(path, "w", encoding="utf-8-sig", newline="") as f:
        rows = csv.writer(f, delimiter=";")
        rows.writerow(["prompt", "chosen", "rejected", "rater", "seconds"])
        rows.writerow(["Where; when?", 'at "home",\nmostly', "Go away.", "Zoë", "1.5"])
        rows.writerow(["Who?", "An otter.", "Nobody.", "", ""])
    first, second = sorted(imports.read(path, rater="mo").votes, key=lambda v: v.prompt.text)
    assert (first.prompt.text, first.answers[0]) == ("Where; when?", 'at "home",\nmostly')
    assert [(v.rater, v.seconds) for v in (first, second)] == [("Zoë", 1.5), ("mo", 0.0)]
    path.write_text("prompt,completion,label\nq,a,True\nq,b,0\nq,c,perhaps\n")
    found = imports.read(path)
    assert sorted((v.answers[0], v.ranks) for v in found.votes) == [("a", (1,)), ("b", (2,))]
    assert found.damaged == [("f.csv, line 4", "its label is 'perhaps', neither true nor false")]


ROW = next(exchange.rows(PAIR, "preference"))
DAMAGED = {
    "not JSON": '{"prompt": "q", "chosen": ',
    "holds list": "[1, 2]",
    "UTF-8": b'{"prompt": "\xff\xfe"}',
    "nest": "[" * 100_000,
    "has no 'time'": json.dumps({k: v for k, v in ROW.items() if k != "time"}),
    "ranks must be": json.dumps({**ROW, "ranks": [0, 1]}),
    "answers are not a list": json.dumps({**ROW, "answers": "ab"}),
    "wrong kind": json.dumps({**ROW, "seconds": "soon"}),
    "wrong kind .Expecting": json.dumps({**ROW, "meta": "{"}),
    "a kind and a meta": json.dumps({**ROW, "meta": "[]"}),
    "role and content": json.dumps({**ROW, "prompt": [{"role": "user"}]}),
    "changed by hand": json.dumps({**ROW, "chosen": [{"role": "assistant", "content": "mine"}]}),
    "says something else": json.dumps({**ROW, "rater": "bob"}),
    "does not have": json.dumps({"id": "x", "prompt": {"id": "p", "messages": []}, "colour": "red"}),
    "has no 'messages'": json.dumps({"id": "x", "prompt": {}}),
    "no two different answers": json.dumps({"prompt": "q", "chosen": "a", "rejected": "a"}),
    "columns colour": json.dumps({"colour": "red"}),
    "no score": json.dumps({"input_text": "q", "output_text_a": "a", "output_text_b": "b", "score": None}),
    "3 ranks, not 2": json.dumps({"prompt": "q", "answers": ["a", "b", "c"], "ranks": [1, 2]}),
    "split must be": json.dumps({"prompt": "q", "chosen": "a", "rejected": "b", "split": "dev"}),
    "could not convert": json.dumps({"prompt": "q", "chosen": "a", "rejected": "b", "seconds": "soon"}),
    "ISO 8601": json.dumps({"prompt": "q", "chosen": "a", "rejected": "b", "time": "noon"}),
    "no question": json.dumps({"prompt": "", "chosen": "a", "rejected": "b"}),
    "not plain text": json.dumps({"prompt": [{"role": "robot", "content": 5}], "chosen": "a", "rejected": "b"}),
}


def test_damaged_rows_are_named_by_line(tmp_path: Path) -> None:
    """A good row, then every kind of damage on its own line: all named, none stored, the good one kept."""
    lines = [json.dumps(ROW), "", *DAMAGED.values()]
    (tmp_path / "d.jsonl").write_bytes(b"\n".join(x if isinstance(x, bytes) else x.encode() for x in lines))
    found = imports.read(tmp_path / "d.jsonl")
    assert found.votes == [PAIR] and found.rows == 1 + len(DAMAGED) == 25
    assert [place for place, _ in found.damaged] == [f"d.jsonl, line {n}" for n in range(3, 3 + len(DAMAGED))]
    for sentence, (_, why) in zip(DAMAGED, found.damaged, strict=True):
        assert re.search(sentence, why), f"{why!r} does not say {sentence!r}"


def test_damage_in_csv_json_and_folders(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_bytes(b'prompt,chosen,rejected\nq,a,b\nq,a\nq,"a"x,b\nq,\xff,b\nr,a,b\n')
    found = imports.read(tmp_path / "d.csv")
    assert [v.prompt.text for v in found.votes] == ["q", "r"]
    assert [place for place, _ in found.damaged] == ["d.csv, line 3", "d.csv, line 4", "d.csv, line 5"]
    made = exports.write([PAIR], tmp_path / "d.json", "comparator").path
    whole = json.loads(made.read_text())
    whole["examples"] += [{**whole["examples"][0], "score": -1.0}, 7]
    whole["examples"].append({**whole["examples"][0], "custom_fields": {"vote": "x", "answers": "["}})
    made.write_text(json.dumps(whole))
    found = imports.read(made)
    assert found.votes == [PAIR]
    assert [place for place, _ in found.damaged] == [f"d.json, example {n}" for n in (2, 3, 4)]
    with gzip.open(tmp_path / "z.jsonl.gz", "wt") as f:
        f.write(json.dumps(ROW) + "\n")
    assert imports.read(tmp_path / "z.jsonl.gz").votes == [PAIR]
    (tmp_path / "cut.jsonl.gz").write_bytes((tmp_path / "z.jsonl.gz").read_bytes()[:-12])
    (tmp_path / "empty.jsonl").write_text("\n\n")
    (tmp_path / "list.json").write_text('[{"prompt": "q"},\n')
    (tmp_path / "bad.parquet").write_text("no")
    (tmp_path / "plain").mkdir()
    for name, sentence in {
        "cut.jsonl.gz": "cut short", "empty.jsonl": "is empty", "list.json": "mend the file", "bad.parquet": "Parquet",
        "plain": "no data set", "d.jsno": "did you mean", "notes.txt": "no file",
    }.items():  # fmt: skip
        with pytest.raises(LabError, match=sentence):
            imports.read(tmp_path / name)
