"""`labkit votes`: list, export, import and erase, as a person types them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from random_votes import PAIR, VOTES

from labkit import __main__ as cli
from labkit import runs, votes_cli
from labkit.feedback import exchange, exports
from labkit.feedback.store import SOURCES, VoteStore
from labkit.records import Prompt, write_jsonl

Command = Callable[..., tuple[int, str, str]]
RUN = "preferences-0a1b2c"


@pytest.fixture
def votes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    """Run `labkit votes ARGUMENTS --recipe smoke --outputs TMP`: exit code, what went to stdout, what went to stderr."""

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(
            sys, "argv", ["labkit", "votes", *arguments, "--recipe", "smoke", "--outputs", str(tmp_path)]
        )
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return call


@pytest.fixture
def store(tmp_path: Path) -> VoteStore:
    return VoteStore(f"sqlite:///{tmp_path / 'votes.sqlite'}")


def finished(outputs: Path, run_id: str, votes: list[object]) -> runs.Run:
    """A finished run that keeps votes."""
    folder = outputs / "smoke" / run_id
    folder.mkdir(parents=True)
    write_jsonl(folder / "votes.jsonl", votes)
    stage = run_id.split("-")[0]
    return runs.finish(folder, {"id": run_id, "name": stage, "stage": stage, "finished": "2026-01-01T10:00:00"})


def test_the_words_are_those_of_the_library() -> None:
    """The command line knows them without importing it."""
    assert votes_cli.FORMS == tuple(exchange.FORMS) and votes_cli.SOURCES == SOURCES
    assert set(votes_cli.LEFT_OUT) == set(exchange.FORMS) - {"votes"}


def test_list(votes: Command, store: VoteStore, tmp_path: Path) -> None:
    """Two raters, one of them in two modes; the vote that was taken back is only mentioned, and no name moves the cursor."""
    store.add(
        PAIR, replace(PAIR, id="b", ranks=(1, 1), seconds=3.0), replace(PAIR, id="c", rater="[bold]Zo\x1bë", run=RUN)
    )
    store.add(
        replace(PAIR, id="t", mode="thumb", answers=("x",), ranks=(1,), shown=(), edit="e"), replace(PAIR, id="u")
    )
    store.retract("u", rater="ada")
    code, out, _ = votes("list")
    assert code == 0
    head, _, *rows, last = [line.split() for line in out.splitlines()]
    assert head == "rater source mode run votes ties skips edits seconds last".split()
    assert [r[:4] for r in rows] == [
        ["[bold]Zo?ë", "person", "pair", RUN],
        ["ada", "person", "pair", "2"],
        ["ada", "person", "thumb", "1"],
    ]
    assert rows[1][3:6] == ["2", "1", "0"] and rows[2][3:7] == ["1", "0", "0", "1"]
    assert last[:3] == "4 votes in".split() and last[-4:] == "1 more taken back".split()


def test_nothing_to_show_is_a_sentence(votes: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, _, err = votes("list")
    assert code == 2 and "There are no votes in sqlite:///" in err
    code, _, err = votes("export", str(tmp_path / "x.jsonl"))
    assert code == 2 and "no vote here that can be written as votes" in err
    assert not (tmp_path / "x.jsonl").exists()
    monkeypatch.setattr(sys, "argv", ["labkit", "votes", "list", "--outputs", str(tmp_path / "nowhere")])
    with pytest.raises(SystemExit):
        cli.main()
    assert not (tmp_path / "nowhere").exists(), "looking makes no folder"


def test_out_of_one_lab_and_into_another(votes: Command, store: VoteStore, tmp_path: Path) -> None:
    store.add(*VOTES)
    store.retract(VOTES[0].id, rater="ada")
    before = store.history()
    code, out, _ = votes("export", str(tmp_path / "all.jsonl"))
    assert code == 0 and "401 rows from 401 votes (votes, jsonl)" in out
    store.close()
    for file in tmp_path.glob("votes.sqlite*"):
        file.unlink()
    code, out, _ = votes("import", str(tmp_path / "all.jsonl"))
    assert code == 0 and out.strip() == "401 rows, 401 votes: 401 new"
    assert sorted(store.history(), key=lambda v: v.id) == sorted(before, key=lambda v: v.id)
    assert votes("import", str(tmp_path / "all.jsonl"))[1].strip() == "401 rows, 401 votes: 0 new, 401 there already"


def test_export_chooses(votes: Command, store: VoteStore, tmp_path: Path) -> None:
    tie = replace(PAIR, id="tie", ranks=(1, 1), run=RUN)
    store.add(PAIR, tie, replace(PAIR, id="bob", rater="bob", run=RUN), replace(PAIR, id="sim", source="simulated"))
    file = tmp_path / "x.jsonl"

    def ids(*options: str) -> list[str]:
        code, out, err = votes("export", str(file), *options)
        assert code == 0, err
        return sorted(json.loads(line)["vote"] for line in file.read_text().splitlines())

    assert ids("--as", "preference") == ["bob", "pair", "sim"]
    assert ids("--as", "ranking") == ["bob", "pair", "sim", "tie"]
    assert ids("--as", "preference", "--source", "person", "--rater", "ada") == ["pair"]
    assert ids("--as", "preference", "--run", "pref") == ["bob"]
    assert ids("--as", "preference", "--run", "") == ["pair", "sim"], "those of no run"
    assert (
        "1 vote left out: a tie, a skip or a thumb prefers nothing."
        in votes("export", str(file), "--as", "preference")[1]
    )
    assert votes("export", str(file), "--run", "dpo")[2].startswith(f"'dpo' has no votes here, only {RUN}")
    assert votes("export", str(tmp_path / "x.docx"))[0] == 2
    code, out, _ = votes("export", str(tmp_path / "c.json"), "--as", "comparator")
    assert code == 0 and "4 rows from 4 votes (comparator, json)" in out
    assert votes("export", str(tmp_path / "as.told"), "--as", "preference", "--format", "parquet")[0] == 0
    assert (tmp_path / "as.told").read_bytes()[:4] == b"PAR1"


def test_damaged_rows_store_nothing_but_for_skip_bad(votes: Command, store: VoteStore, tmp_path: Path) -> None:
    file = tmp_path / "f.jsonl"
    good = {"prompt": "Where?", "chosen": "Here.", "rejected": "Go away."}
    file.write_text("\n".join([json.dumps(good), *["{"] * 12]))
    code, out, err = votes("import", str(file))
    assert (code, out, store.count()) == (2, "", 0)
    lines = err.splitlines()
    assert [line.split(":")[0] for line in lines[:10]] == [f"f.jsonl, line {n}" for n in range(2, 12)]
    assert lines[10:] == [
        "and 2 more",
        "Damaged: 12 of 13 rows. Nothing was stored: mend them, or keep the rest with --skip-bad.",
    ]
    code, out, err = votes("import", str(file), "--skip-bad", "--rater", "eve")
    assert code == 0 and out.strip() == "13 rows, 1 vote: 1 new, 12 damaged rows left out"
    assert store.raters() == {"eve": 1} and len(err.splitlines()) == 11
    file.write_text("{")
    code, _, err = votes("import", str(file), "--skip-bad")
    assert code == 2 and "not one is left to keep" in err


def test_imported_for_a_run(votes: Command, store: VoteStore, tmp_path: Path) -> None:
    """They stand on the preferences run and so train; a prompt of the lab's own keeps its split."""
    finished(tmp_path, RUN, [])
    finished(tmp_path, "dpo-111111", [])
    from labkit import lab

    asked = lab.Lab.open("smoke", outputs=tmp_path).source.prompts("test")[0]
    rows = [{"prompt": text, "chosen": "a", "rejected": "b"} for text in (asked.text, "What would nobody here ask?")]
    write_jsonl(tmp_path / "f.jsonl", rows)
    assert votes("import", str(tmp_path / "f.jsonl"), "--run", "pref")[0] == 0
    held_out, new = sorted(store.votes(run=RUN), key=lambda v: v.prompt.text != asked.text)
    assert held_out.prompt == asked and new.prompt.split == "train" and new.rater == "import"
    code, _, err = votes("import", str(tmp_path / "f.jsonl"), "--run", "dpo")
    assert code == 2 and "votes are for a run of preferences" in err


def test_erasing_a_rater(votes: Command, store: VoteStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bob = replace(PAIR, id="bob", rater="bob")
    store.add(PAIR, bob)
    run = finished(tmp_path, "dpo-111111", [PAIR, bob])
    code, _, err = votes("erase", "--rater", "adda")
    assert code == 2 and "did you mean 'ada'?" in err
    monkeypatch.setattr("click.termui.visible_prompt_func", lambda _: "n")
    assert votes("erase", "--rater", "ada")[0] == 130
    assert store.count() == 2

    code, out, _ = votes("erase", "--rater", "ada", "--yes")
    assert code == 0 and "1 vote of 'ada' erased" in out and "1 vote left in" in out and "--runs" in out
    assert [v.id for v in store.history()] == ["bob"] and len(run.votes()) == 2
    code, out, _ = votes("erase", "--rater", "ada", "--yes", "--runs")
    assert code == 0 and "1 taken out of" in out
    again = runs.find(run.path.parent, run.id)
    assert again and again.votes() == [bob], "the run is whole, and the rest of its votes is there"
    assert again.manifest["votes_erased"] == 1
    assert "ada" not in "".join(p.read_text(errors="replace") for p in tmp_path.rglob("*.json*"))
    assert votes("erase", "--rater", "ada", "--yes")[0] == 2, "nothing is left of them"


def test_keeping_the_votes_without_the_name(votes: Command, store: VoteStore, tmp_path: Path) -> None:
    """Export under a pseudonym, erase, import: the votes stand again, and nobody's name."""
    store.add(PAIR, replace(PAIR, id="b", prompt=Prompt.of("Who?")))
    for command in (
        ("export", str(tmp_path / "a.parquet"), "--rater", "ada", "--anonymous"),
        ("erase", "--rater", "ada", "--yes"),
        ("import", str(tmp_path / "a.parquet")),
    ):
        assert votes(*command)[0] == 0
    (rater,) = store.raters()
    assert rater.startswith("rater-") and len(store.votes()) == 2
    assert [replace(v, id="", rater="") for v in exports.chosen(store, "ranking") if v.prompt == PAIR.prompt] == [replace(PAIR, id="", rater="")]  # fmt: skip
